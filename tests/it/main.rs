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
// The yardstick of tests/drains; its own tests need no server.
#[allow(dead_code, reason = "only its tests are run here")]
#[path = "../timing/limit.rs"]
mod limit;
mod moved;
mod outage;
mod pace;
mod plan;
mod replicas;
mod room;
mod scenario;
#[allow(dead_code, reason = "tests/drains needs more of it")]
#[path = "../timing/scene.rs"]
mod scene;
mod shipped;
mod support;
mod switch;
