//! foreshock sees Kubernetes Nodes degrade before users do, and moves their work away first.
//!
//! The library behind the binary of the same name. `ARCHITECTURE.md` draws the whole picture.

pub use foreshock_core as core;
pub use foreshock_shell::{actuator, clock};

pub mod alertmanager;
pub mod app;
pub mod check;
pub mod cli;
pub mod config;
pub mod cycle;
pub mod demo;
mod doors;
pub mod events;
pub mod features;
pub mod kubernetes;
pub mod metrics;
pub mod model;
pub mod prometheus;
pub mod simulate;
pub mod snapshot;
pub mod telemetry;
pub mod train;
pub mod trainer;
pub mod web;
