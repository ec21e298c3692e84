//! Integration tests, one binary.

mod bed;
mod journey;
mod kubernetes;
mod scenario;
mod shipped;
mod support;
