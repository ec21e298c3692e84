//! The real cluster, over its API server: what implements [`Cluster`].

mod answer;
mod budget;
mod by_hand;
pub mod client;
mod connect;
mod deployments;
mod events;
pub mod lease;
mod nodes;
pub mod permissions;
mod pod;
mod pods;
pub mod selector;
mod strays;
mod volumes;
pub(crate) mod watch;
mod workloads;

pub use foreshock_shell::kubernetes::*;

pub use client::KubeCluster;
pub use connect::{ConnectError, KubeOptions};
pub use pod::Surroundings;
