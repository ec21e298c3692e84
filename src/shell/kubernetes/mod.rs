//! The cluster, as foreshock needs it: Nodes watched, Pods asked for, marks, evictions, a Lease.
//!
//! [`Cluster`] has two implementations: the real one, over the API server, and the simulated one of the demo and
//! the simulator. Everything above speaks the core's types; Kubernetes objects stop at what implements it, and
//! at the modules here, which read and write them as JSON: they are what all implementations share.

pub mod marks;
pub mod names;
pub mod needs;
pub mod node;
pub mod rate;
pub mod record;
pub mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use foreshock_core::decision::plan::MarkOrder;
use foreshock_core::decision::world::NodeFacts;
use foreshock_core::drain::{Answer, Owner, PodFacts, PodId, Scalable, Volume, Workload};
use foreshock_core::node::{NodeId, NodeName};
use foreshock_core::record::{ClusterRecord, Taint};
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::watch as channel;

use self::marks::Release;

/// One Node as the watch shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeEntry {
    /// What a decision needs.
    pub facts: NodeFacts,
    /// `metadata.resourceVersion` of the version that last changed anything in here; opaque. A
    /// heartbeat does not show.
    pub resource_version: String,
    /// Label `kubernetes.io/hostname`.
    pub hostname: Option<String>,
    /// `status.addresses`, all types.
    pub addresses: Vec<String>,
    /// Every label, for pools and the page; those of the facts.
    pub labels: Arc<BTreeMap<String, String>>,
}

/// All Nodes, as the watch shows them.
#[derive(Clone, Debug, Default)]
pub struct NodeTable {
    /// The first list is complete. Nothing is decided before.
    pub synced: bool,
    /// The watch's last word on why it is not up to date, if it is not.
    pub problem: Option<String>,
    /// By name.
    pub nodes: BTreeMap<NodeName, Arc<NodeEntry>>,
}

/// The Pods of one Node, as a watch shows them.
#[derive(Clone, Debug, Default)]
pub struct PodTable {
    /// The first list is complete, budgets included.
    pub synced: bool,
    /// When it was last known to be true.
    pub at: Option<Timestamp>,
    /// Why it is not up to date, if it is not.
    pub problem: Option<String>,
    /// All Pods of the Node, with the budgets that cover them. What does not change is shared with the
    /// tables before and after.
    pub pods: Vec<Arc<PodFacts>>,
}

/// How it stands with a workload: `None` while it is being looked at, `Err` with the reason why it cannot be.
pub type WorkloadState = Option<Result<Workload, String>>;

/// Why a call to the cluster failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// The object changed under us, or is not as the decision saw it; decide again.
    #[error("{object} is not as it was: {detail}")]
    Superseded {
        /// Kind and name.
        object: String,
        /// What differs.
        detail: String,
    },
    /// Our credentials do not allow it. The remedy is in the message.
    #[error("not allowed to {action}: {detail}; apply the roles in deploy/kustomize/base")]
    Forbidden {
        /// What was tried, as verb and resource.
        action: String,
        /// In the server's words.
        detail: String,
    },
    /// No answer came in time: the write may have taken place.
    #[error("no answer to {action} within {limit:?}")]
    Timeout {
        /// What was tried.
        action: String,
        /// The limit.
        limit: Duration,
    },
    /// Anything else.
    #[error("{action} failed: {detail}")]
    Failed {
        /// What was tried.
        action: String,
        /// In the server's words.
        detail: String,
    },
}

/// The Lease: who leads, whether somebody paused foreshock, and the cluster's record.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseView {
    /// `spec.holderIdentity`; `None` when nobody holds it.
    pub holder: Option<String>,
    /// Where the holder's HTTP API is to be reached, if it said so.
    pub address: Option<String>,
    /// `spec.leaseDurationSeconds`.
    pub duration: Duration,
    /// `spec.renewTime`, by the holder's clock: shown, never judged by.
    pub renewed_at: Option<Timestamp>,
    /// `spec.leaseTransitions`.
    pub transitions: u32,
    /// Annotation `foreshock.dev/paused` is there with any value but `false`.
    pub paused: bool,
    /// The cluster's record; empty where there is none yet, `Err` where it cannot be understood.
    pub record: Result<ClusterRecord, String>,
    /// `metadata.resourceVersion`; opaque.
    pub resource_version: String,
}

/// What is written to the Lease.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseWrite {
    /// `metadata.resourceVersion` that must still be there; `None` creates the Lease.
    pub expects: Option<String>,
    /// `spec.holderIdentity`; `None` gives it up.
    pub holder: Option<String>,
    /// Where the holder's HTTP API is to be reached.
    pub address: Option<String>,
    /// `spec.leaseDurationSeconds`.
    pub duration: Duration,
    /// `spec.renewTime`.
    pub renewed_at: Timestamp,
    /// `spec.leaseTransitions`.
    pub transitions: u32,
    /// Annotation `foreshock.dev/paused`.
    pub paused: bool,
    /// The cluster's record; `None` leaves what stands there.
    pub record: Option<ClusterRecord>,
}

/// A Kubernetes Event about a Node, a Pod, or foreshock as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterEvent {
    /// The Node it is about, or on which the Pod runs. `None` where it is about foreshock as a whole:
    /// then it is said about our Lease, the one object that stands for it.
    pub node: Option<NodeId>,
    /// The Pod it is about, if it is about one.
    pub pod: Option<PodId>,
    /// CamelCase reason, for example `DegradationTainted`.
    pub reason: &'static str,
    /// Whether a person should look.
    pub warning: bool,
    /// One sentence. Numbers and names go here.
    pub note: String,
}

/// What the API server says to an eviction that is only tried (`dryRun=All`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DryRun {
    /// It would be accepted now, were it the only one: a dry run takes nothing from a budget.
    Allowed,
    /// It would not, in the server's words.
    Refused(String),
    /// The server is busy, and asked for so much time. Others are not to be asked meanwhile.
    Busy(Option<Duration>),
    /// It was not sent, and why.
    NotAsked(String),
    /// It was sent, and the answer does not tell whether an eviction would be accepted.
    NoAnswer(String),
}

/// What a cluster says that has none.
fn no_deployments<T: Send + 'static>(
    namespace: &str,
    deployment: &Owner,
) -> BoxFuture<'static, Result<T, ClusterError>> {
    Box::pin(std::future::ready(Err(ClusterError::Failed {
        action: format!("look for {deployment} in {namespace}"),
        detail: "this cluster is simulated and has no Deployments".to_owned(),
    })))
}

/// A mark or an eviction is over within this, read included: well inside the 15 s of the Lease.
pub const WRITE_LIMIT: Duration = Duration::from_secs(8);

/// Says whether a write may leave now; the reason if not. Asked at the very last moment.
pub type Guard = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What foreshock asks of a cluster.
///
/// Every call is bounded by the implementation's own timeout, shorter than the Lease.
pub trait Cluster: Send + Sync + 'static {
    /// Has every write ask first, at the very last moment. To be set once, before the first write.
    fn set_guard(&self, guard: Guard);

    /// The Nodes that match `kubernetes.node_selector`, latest state.
    fn nodes(&self) -> channel::Receiver<Arc<NodeTable>>;

    /// Nodes outside `kubernetes.node_selector` that carry marks of ours, latest state. Nothing is decided
    /// about them, so their marks would stay unseen.
    fn strays(&self) -> channel::Receiver<Arc<BTreeSet<NodeName>>> {
        channel::channel(Arc::default()).1
    }

    /// The Pods of a Node with their budgets, read once.
    fn pods(&self, node: &NodeId) -> BoxFuture<'_, Result<Vec<PodFacts>, ClusterError>>;

    /// The Pods of a Node with their budgets, kept up to date until the receiver is dropped.
    fn watch_pods(&self, node: &NodeId) -> channel::Receiver<Arc<PodTable>>;

    /// How it stands with a workload of this namespace, kept up to date until the receiver is dropped.
    fn watch_workload(&self, namespace: &str, workload: &Owner)
    -> channel::Receiver<WorkloadState>;

    /// A Deployment read afresh; `None` when it is gone or another has its name. Its autoscaler is asked for
    /// apart.
    fn deployment(
        &self,
        namespace: &str,
        deployment: &Owner,
    ) -> BoxFuture<'_, Result<Option<Scalable>, ClusterError>> {
        no_deployments(namespace, deployment)
    }

    /// The HorizontalPodAutoscaler that scales this Deployment, if one does.
    fn autoscaler(
        &self,
        namespace: &str,
        deployment: &Owner,
    ) -> BoxFuture<'_, Result<Option<String>, ClusterError>> {
        no_deployments(namespace, deployment)
    }

    /// Sets how many Pods a Deployment asks for, if its `resourceVersion` is still this one.
    fn scale(
        &self,
        namespace: &str,
        deployment: &Owner,
        version: &str,
        replicas: u32,
    ) -> BoxFuture<'_, Result<(), ClusterError>> {
        let _ = (version, replicas);
        no_deployments(namespace, deployment)
    }

    /// The same for a workload that no drain waits for: it takes nothing away from those, and may come later.
    fn follow_workload(
        &self,
        namespace: &str,
        workload: &Owner,
    ) -> channel::Receiver<WorkloadState> {
        self.watch_workload(namespace, workload)
    }

    /// Whether this volume is attached to the Node, or is being attached or detached. It takes nothing away from
    /// drains, and may come later.
    fn is_attached(
        &self,
        node: &NodeName,
        volume: &Volume,
    ) -> BoxFuture<'_, Result<bool, ClusterError>> {
        let _ = (node, volume);
        Box::pin(std::future::ready(Ok(false)))
    }

    /// One Pod read afresh, without its budgets; `None` when it is gone or another has its name.
    fn read_pod(&self, pod: &PodId) -> BoxFuture<'_, Result<Option<PodFacts>, ClusterError>>;

    /// Carries out one order in one patch under the Node's `resourceVersion`, after checking on a
    /// fresh read that the Node is what the order expects. Returns the Node as it is afterwards.
    fn mark(&self, order: &MarkOrder) -> BoxFuture<'_, Result<NodeEntry, ClusterError>>;

    /// Asks the Eviction API once. Never fails: what went wrong is an answer too.
    fn evict(&self, pod: &PodId, grace: Option<Duration>) -> BoxFuture<'_, Answer>;

    /// Asks the Eviction API once what it would say; evicts nothing. Never fails, as [`Self::evict`].
    fn try_eviction(&self, pod: &PodId, grace: Option<Duration>) -> BoxFuture<'_, DryRun> {
        let _ = (pod, grace);
        let words = "this cluster is simulated and takes no dry runs".to_owned();
        Box::pin(std::future::ready(DryRun::NotAsked(words)))
    }

    /// The Lease, latest state, `None` when it does not exist; `synced` only after the first read.
    fn lease(&self) -> channel::Receiver<LeaseState>;

    /// The Lease, read afresh; what is read shows in [`Self::lease`] as well.
    fn read_lease(&self) -> BoxFuture<'_, Result<LeaseState, ClusterError>> {
        let state = self.lease().borrow().clone();
        Box::pin(std::future::ready(Ok(state)))
    }

    /// Writes the Lease under its `resourceVersion`. What was written shows in [`Self::lease`] before
    /// the answer comes.
    fn write_lease(&self, write: &LeaseWrite) -> BoxFuture<'_, Result<LeaseView, ClusterError>>;

    /// Publishes an Event, best effort: a failure is the caller's to log.
    fn publish(&self, event: &ClusterEvent) -> BoxFuture<'_, Result<(), ClusterError>>;
}

/// The Lease as the watch shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum LeaseState {
    /// Not read yet, or it cannot be read at present.
    #[default]
    Unknown,
    /// There is none.
    Absent,
    /// It is there.
    Present(Box<LeaseView>),
}

/// The cluster, as a command meets it.
pub trait ByHand: Send + Sync {
    /// Throws the switch on the Lease, which is created where there is none to be paused. Returns the
    /// Lease as it was before, if there was one.
    fn set_paused(&self, paused: bool) -> BoxFuture<'_, Result<Option<LeaseView>, ClusterError>>;

    /// Whether the Lease says that foreshock is paused.
    fn is_paused(&self) -> BoxFuture<'_, Result<bool, ClusterError>>;

    /// Every Node of the cluster with what a release would do to it, those without anything left out.
    fn find<'a>(
        &'a self,
        taints: &'a [Taint],
        adopt: bool,
    ) -> BoxFuture<'a, Result<Vec<(NodeName, Release)>, ClusterError>>;

    /// Takes everything of ours off one Node, in one patch. What it returns is what was done, or why not.
    fn take_off<'a>(
        &'a self,
        node: &'a NodeName,
        taints: &'a [Taint],
        adopt: bool,
    ) -> BoxFuture<'a, Result<Release, ClusterError>>;
}
