//! What is known of every Node as numbers: which features there are, their values at one time, whose
//! they are, and what the model makes of them.
//!
//! Nothing here knows HTTP or Kubernetes. Telemetry comes in as columns of labelled samples (from
//! Prometheus) or as a ready matrix (from the simulator); it leaves as a [`FeatureMatrix`].

pub mod assemble;
pub mod basics;
pub mod columns;
pub mod derive;
pub mod directory;
pub mod history;
pub mod identity;
pub mod matrix;
pub mod schema;
mod schema_toml;
pub mod series;
pub mod telemetry;
pub mod usual;

pub use basics::{Basic, basics};
pub use columns::{ColumnName, Summary};
pub use derive::{ModelMatrix, derive};
pub use directory::{NodeDirectory, NodeEntry};
pub use history::History;
pub use identity::IdentityMap;
pub use matrix::FeatureMatrix;
pub use schema::{Feature, FeatureName, Schema};
pub use telemetry::{PastFeatures, Telemetered, Telemetry, TelemetryError, grid};
pub use usual::Usual;

#[cfg(test)]
mod tests;
