//! The part of foreshock that writes: the actuator, the cluster as it asks for it, and what is written there.
//!
//! It knows neither HTTP nor the API server's client: what carries a write out implements
//! [`kubernetes::Cluster`]. Nor does it decide anything: plans come from `foreshock_core`.

pub mod actuator;
pub mod clock;
pub mod kubernetes;
