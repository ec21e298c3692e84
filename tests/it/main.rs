//! Integration tests, one binary.

mod bad_input;
mod bed;
mod cases;
mod drain_cases;
mod fleet;
mod hands_off;
mod healthy;
mod journey;
mod kills;
mod kubernetes;
mod outage;
mod replicas;
mod room;
mod scenario;
mod shipped;
mod support;
mod switch;
