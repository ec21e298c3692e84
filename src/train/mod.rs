//! Training on the operator's own history, as far as it is pure: what an incident was, which rows may be
//! learned from, how good a model is beside doing without it, and the report of all that.
//!
//! Samples come in as they are seen, times as arguments, and what comes out is data or text. The module
//! must not know HTTP, the clock or Kubernetes; `model` learns from the rows that are chosen here.

pub mod incidents;
pub mod judge;
pub mod labels;
pub mod report;
pub mod sample;
pub mod signals;
pub mod track;
