//! Integration tests, one binary.

mod bed;
mod shipped;
mod support;
mod journey;
mod scenario;
