//! The only writer of Nodes and Pods.

mod report;

pub use report::{ActuatorState, Leadership, Report};
