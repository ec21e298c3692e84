//! foreshock sees Kubernetes Nodes degrade before users do, and moves their work away first.
//!
//! The library behind the binary of the same name. `ARCHITECTURE.md` draws the whole picture.

pub use foreshock_core as core;

pub mod alertmanager;
pub mod events;
pub mod features;
pub mod kubernetes;
pub mod model;
pub mod prometheus;
pub mod simulate;
pub mod snapshot;
