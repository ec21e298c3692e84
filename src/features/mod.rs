//! What is known of every Node as numbers: which features there are, their values at one time, whose
//! they are, and what the model makes of them.
//!
//! Nothing here knows HTTP or Kubernetes. Telemetry comes in as columns of labelled samples (from
//! Prometheus) or as a ready matrix (from the simulator); it leaves as a [`FeatureMatrix`].

pub mod matrix;
pub mod schema;
mod schema_toml;

pub use matrix::FeatureMatrix;
pub use schema::{Feature, FeatureName, Schema};
