//! Integration tests, one binary.

mod bed;
mod shipped;
mod support;
