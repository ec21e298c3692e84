//! Integration tests, one binary.

mod bad_input;
mod bed;
mod cases;
mod fleet;
mod hands_off;
mod healthy;
mod journey;
mod kills;
mod kubernetes;
// The yardstick of tests/drains; its own tests need no server.
#[allow(dead_code, reason = "only its tests are run here")]
#[path = "../timing/limit.rs"]
mod limit;
mod outage;
mod replicas;
mod room;
mod scenario;
mod shipped;
mod support;
mod switch;
