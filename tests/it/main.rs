//! Integration tests, one binary.

mod bed;
mod support;
