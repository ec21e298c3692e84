//! Integration tests, one binary.

mod bad_input;
mod bed;
mod fleet;
mod healthy;
mod journey;
mod kubernetes;
mod replicas;
mod scenario;
mod shipped;
mod support;
