//! placeholder
use super::hardware::{Hardware, Machine};
pub(super) fn commit_limit(hardware: &Hardware) -> f64 {
    hardware.swap + super::hardware::pages(hardware.memory / 2.0)
}
pub(super) fn shows_throttles(hardware: &Hardware) -> bool {
    hardware.machine == Machine::Metal
}
