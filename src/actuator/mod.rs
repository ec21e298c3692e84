//! The only writer of Nodes and Pods.

mod report;

pub use report::{ActuatorState, Leadership, Report};
pub struct ActuatorOptions { pub identity: String, pub address: Option<String>, pub reach: foreshock_core::decision::policy::Reach, pub eviction_rate: f64, pub marks_per_second: f64 }
pub struct Handle { pub task: tokio::task::JoinHandle<()>, pub state: tokio::sync::watch::Receiver<std::sync::Arc<ActuatorState>>, pub leadership: tokio::sync::watch::Receiver<Leadership>, pub reports: tokio::sync::mpsc::Receiver<Report>, pub control: std::sync::Arc<dyn crate::web::Control> }
pub fn start(_: std::sync::Arc<dyn crate::kubernetes::Cluster>, _: std::sync::Arc<dyn crate::clock::Clock>, _: ActuatorOptions, _: tokio::sync::watch::Receiver<std::sync::Arc<foreshock_core::decision::audit::AuditedPlan>>, _: tokio_util::sync::CancellationToken) -> Handle { unreachable!() }
