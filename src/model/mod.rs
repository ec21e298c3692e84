//! The risk model: what a model file is, how a row is scored and explained, how a model is made.
//!
//! Scoring is pure: a row of column values goes in, log-odds and a probability come out, and there
//! is no path to a panic. `gbdt` is the only module that knows the gbdt crate, and only training
//! calls into it: a file is checked by [`artifact`] and scored by the flat trees of [`scorer`], so
//! nothing that a file says can make the service hang or fall over.
//!
//! This module must not know Prometheus, Kubernetes or the clock.

pub mod artifact;
pub mod authority;
pub mod bins;
pub mod boost;
pub mod built_in;
pub mod calibrate;
pub mod choose;
pub mod drift;
pub mod explain;
pub mod gbdt;
pub mod hands;
pub mod learn;
pub mod loaded;
pub mod local;
pub mod measure;
pub mod outcomes;
pub mod range;
pub mod reliability;
pub mod rule;
pub mod scorer;
pub mod synthetic;
pub mod taken;
pub mod trees;
mod validate;
pub mod watch;
pub mod xgboost;

#[cfg(test)]
pub(crate) mod testing;
