//! Simulated Nodes and, for the demo and the tests, what stands behind the same traits as real ones.

pub mod cluster;
pub mod fleet;
pub mod telemetry;
