//! Prometheus, or anything that answers as it does: queries in, columns out.
//!
//! JSON, PromQL and HTTP stop here. What a value means is not decided here but in
//! [`features`](crate::features).

mod client;
mod decode;
mod options;
mod past;
mod promql;
mod ranges;
mod rules;
mod setup;
mod telemetry;

pub use client::{BuildInfo, PrometheusClient, Query, QueryError};
pub use decode::{DecodeError, Vector};
pub use options::{BasicAuth, OptionFault, PrometheusOptions, SetupError};
pub use ranges::{PastSeries, RangeError, Times};
pub use rules::AlertRule;
pub use telemetry::PrometheusTelemetry;

#[cfg(test)]
mod past_tests;
#[cfg(test)]
mod tests;
