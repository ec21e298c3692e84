//! Integration tests, one binary.

mod bed;
mod journey;
mod scenario;
mod shipped;
mod support;
