//! The web: page, API, Server-Sent Events, metrics and webhook, on one listener.
//!
//! Everything shown comes from the latest [`Snapshot`] and the [`EventLog`]; nothing here decides or
//! knows Kubernetes. What a request may cause goes through three small doors that the application
//! puts behind them, [`Webhook`], [`Control`] and [`Plans`]; a fourth, [`Leads`], says whether this
//! replica is the one to take it.

mod api;
mod cache;
mod guard;
mod hand_on;
mod history;
mod openapi;
mod page;
mod plan;
mod problem;
mod query;
mod router;
mod server;
mod stream;
mod view;
mod words;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use axum::body::Bytes;
use foreshock_core::drain::{DrainRules, PodFacts, PodId};
use foreshock_core::node::{NodeId, NodeName};
use foreshock_core::room::NoPlace;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::events::EventLog;
use crate::snapshot::Snapshot;

pub(crate) use guard::read_secret;
pub use hand_on::{Lead, Leads, PeerUrl};
pub use openapi::document as openapi_document;
pub use plan::{DaemonSetView, DispositionWord, DrainPlan, DryRunWord, ObstacleView, PlannedPod};
pub use server::{WebError, bind, serve};

/// What the web shows, and the doors to what it may cause.
#[derive(Clone)]
pub struct WebState {
    /// The latest cycle.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// What happened.
    pub events: Arc<EventLog>,
    /// The body of `/metrics`, in the OpenMetrics text format. Called on a blocking thread.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Takes what Alertmanager sends.
    pub webhook: Arc<dyn Webhook>,
    /// Pauses and resumes.
    pub control: Arc<dyn Control>,
    /// Knows what a drain would meet.
    pub plans: Arc<dyn Plans>,
    /// Knows who leads.
    pub leads: Arc<dyn Leads>,
    /// The time, for ages in answers.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

/// How the web is served.
#[derive(Clone, Debug, Default)]
pub struct WebOptions {
    /// What a `POST` has to show. Required where the listener is not loopback; where it is given, it
    /// is asked for on loopback too, since a proxy may stand in front.
    pub credentials: Option<Credentials>,
    /// Reading needs the credentials too (the page's own files, `/healthz` and `/readyz` do not).
    pub protect_reads: bool,
    /// Host names under which this server is known besides loopback names, addresses and names
    /// that only a cluster's own DNS can answer. Lower case, without port.
    pub hosts: Vec<String>,
    /// Serve HTTPS.
    pub tls: Option<TlsFiles>,
    /// Bounds.
    pub bounds: Bounds,
}

/// What a caller has to show. The files are read anew for each request, so that rotated secrets
/// count at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// `Authorization: Bearer …` with the content of the file.
    Bearer {
        /// The file; white space around the token does not count.
        token_file: PathBuf,
    },
    /// `Authorization: Basic …`.
    Basic {
        /// The user.
        user: String,
        /// The file with the password; white space around it does not count.
        password_file: PathBuf,
    },
}

/// Certificate and key for HTTPS, both PEM. Read anew when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by its chain.
    pub cert_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
}

/// What no caller can make the server exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Open connections; more wait in the kernel's queue.
    pub connections: usize,
    /// Requests being answered at once, streams aside; more are answered 503.
    pub requests: usize,
    /// Streams of events at once; more are answered 503.
    pub streams: usize,
    /// Bytes of a webhook's body: 1,000 alerts are 0.5 to 2 MB.
    pub webhook_body: usize,
    /// Bytes of the headers of one request.
    pub headers: usize,
    /// Time for the headers of one request.
    pub header_timeout: Duration,
    /// Time for one answer, streams aside.
    pub request_timeout: Duration,
    /// A connection that takes no byte for so long is cut.
    pub write_timeout: Duration,
    /// Time for answers under way at shutdown.
    pub shutdown_timeout: Duration,
    /// A comment is sent on an idle stream after this.
    pub keep_alive: Duration,
    /// The least time between two pictures of the Nodes on one stream.
    pub stream_interval: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 1_024,
            requests: 128,
            streams: 128,
            webhook_body: 16 << 20,
            headers: 64 << 10,
            header_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            shutdown_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(15),
            stream_interval: Duration::from_millis(100),
        }
    }
}

/// Takes what Alertmanager sends. It leaves evidence and wakes the cycle; it never acts.
pub trait Webhook: Send + Sync + 'static {
    /// Takes one payload. Called on a blocking thread; must not wait for the cycle.
    fn receive(&self, body: Bytes) -> WebhookAnswer;
}

/// What became of a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookAnswer {
    /// Taken: 202.
    Accepted {
        /// Alerts in it.
        alerts: usize,
    },
    /// It cannot be understood: 400, and Alertmanager does not send it again at once.
    Malformed {
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// No room: 503, and Alertmanager sends it again.
    QueueFull,
}

/// The one switch.
pub trait Control: Send + Sync + 'static {
    /// From the answer on nothing more is written, clean-up and release included.
    fn pause(&self) -> BoxFuture<'_, Result<Switched, ControlError>>;

    /// Writing goes on.
    fn resume(&self) -> BoxFuture<'_, Result<Switched, ControlError>>;
}

/// How the switch stands now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switched {
    /// Nothing is written.
    pub paused: bool,
    /// Whether it survives the end of this process: it is on the Lease. Where nothing is ever
    /// written there is no Lease, and it holds until the process ends.
    pub lasting: bool,
}

/// The switch could not be set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// This process pauses, but the Lease could not be written: the pause ends with the process.
    #[error("paused in this process only, because the Lease could not be written: {problem}")]
    NotRecorded {
        /// In the words of the cluster.
        problem: String,
    },
    /// Nothing has changed.
    #[error("{problem}")]
    Failed {
        /// Why, with the remedy.
        problem: String,
    },
}

/// Knows what a drain would meet, without writing anything.
pub trait Plans: Send + Sync + 'static {
    /// What a drain of the Node would meet now.
    fn facts(&self, node: &NodeId) -> BoxFuture<'_, Result<PlanFacts, PlanError>>;
}

/// What a drain would meet.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanFacts {
    /// When the Pods were read.
    pub at: Timestamp,
    /// All Pods of the Node.
    pub pods: Vec<PodFacts>,
    /// The rules that apply to the Node.
    pub rules: DrainRules,
    /// `eviction.rate`, per second.
    pub rate: f64,
    /// Whether others have room for them; `None` where that could not be looked at.
    pub room: Option<PlanRoom>,
    /// What came of asking the API server about each Pod that would be evicted.
    pub dry_runs: BTreeMap<PodId, PlanDryRun>,
    /// Single replicas that may have a second Pod before they go. Empty without `eviction.surge`.
    pub surges: BTreeMap<PodId, PlanSurge>,
    /// Pods of kube-system under no budget that are the only ones of their Deployment, or of which that could
    /// not be looked at: in words.
    pub alone: BTreeMap<PodId, String>,
}

/// Whether a second Pod is to be Ready before this one goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanSurge {
    /// Its Deployment is scaled up.
    Yes,
    /// It goes without, and why.
    No(String),
    /// That is not known, and why.
    Unknown(String),
}

/// What came of asking the API server whether it would accept an eviction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanDryRun {
    /// It would, when it was asked at this time.
    Allowed(Timestamp),
    /// It would not, when it was asked at this time, and why in its words.
    Refused(Timestamp, String),
    /// That is not known, and why.
    Unknown(String),
}

/// Whether other Nodes have room for the Pods that would be evicted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanRoom {
    /// So many other Nodes were looked at.
    pub looked_at: usize,
    /// Where each Pod fits: first where all of them fit together, then the others of those looked at.
    pub fits: BTreeMap<PodId, Vec<NodeName>>,
    /// Those for which there is no room.
    pub without: Vec<NoPlace>,
}

/// A plan cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// `kubernetes.enabled = false`: there are no Pods to know about.
    #[error("no plan without Kubernetes (kubernetes.enabled is false)")]
    NoCluster,
    /// The Pods could not be read.
    #[error("the Pods could not be read: {problem}")]
    Unread {
        /// In the words of the cluster.
        problem: String,
    },
}
