//! Every call that the program makes to the cluster, counted, so that it can be killed at each of
//! them: before it was sent, when it has taken place and its answer is lost, and after the answer.

use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use foreshock::core::decision::plan::MarkOrder;
use foreshock::core::drain::{Answer, Owner, PodFacts, PodId};
use foreshock::core::node::NodeId;
use foreshock::kubernetes::{
    Cluster, ClusterError, ClusterEvent, Guard, LeaseState, LeaseView, LeaseWrite, NodeEntry,
    NodeTable, PodTable, WorkloadState,
};
use foreshock::simulate::cluster::SimulatedCluster;
use futures::future::BoxFuture;
use tokio::sync::{Notify, watch};

use crate::ledger::Ledger;

/// Half of the way to the API server and back.
const WAY: Duration = Duration::from_millis(5);

/// What is asked of the cluster on the way to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A Node is marked.
    Mark,
    /// The Eviction API is asked.
    Evict,
    /// The Lease is taken.
    Lead,
    /// The cluster's record is written.
    Record,
    /// The Lease is renewed.
    Renew,
    /// The Lease is read.
    ReadLease,
    /// A Pod is read.
    ReadPod,
    /// The Pods of a Node are read.
    Pods,
    /// An Event is published.
    Event,
}

/// When in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    /// Before it is sent.
    Before,
    /// It has taken place, and its answer never comes.
    Lost,
    /// Right after its answer.
    After,
}

impl Moment {
    /// Every moment.
    pub(crate) const ALL: [Self; 3] = [Self::Before, Self::Lost, Self::After];
}

/// One place to be killed at: the n-th call of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Point {
    /// Which call.
    pub(crate) kind: Kind,
    /// The how manyeth of its kind, from 0.
    pub(crate) number: usize,
    /// When in it.
    pub(crate) moment: Moment,
}

/// The calls of all processes of one run.
#[derive(Default)]
pub(crate) struct Calls {
    counts: Mutex<BTreeMap<Kind, usize>>,
    kill_at: Option<Point>,
    /// Told when the point is reached.
    pub(crate) reached: Notify,
}

impl Calls {
    /// Kills nobody, or at this point.
    pub(crate) fn new(kill_at: Option<Point>) -> Self {
        Self {
            kill_at,
            ..Self::default()
        }
    }

    /// How many calls of each kind there were.
    pub(crate) fn counts(&self) -> BTreeMap<Kind, usize> {
        self.locked().clone()
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<Kind, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, kind: Kind) -> usize {
        let mut counts = self.locked();
        let count = counts.entry(kind).or_default();
        *count += 1;
        *count - 1
    }

    fn strikes(&self, kind: Kind, number: usize, moment: Moment) -> bool {
        let here = Point {
            kind,
            number,
            moment,
        };
        let strikes = self.kill_at == Some(here);
        if strikes {
            self.reached.notify_one();
        }
        strikes
    }

    /// The call, with its three places to be killed at.
    async fn pass<T>(&self, kind: Kind, call: impl Future<Output = T>) -> T {
        let number = self.count(kind);
        if self.strikes(kind, number, Moment::Before) {
            pending::<()>().await;
        }
        tokio::time::sleep(WAY).await;
        let answer = call.await;
        if self.strikes(kind, number, Moment::Lost) {
            pending::<()>().await;
        }
        tokio::time::sleep(WAY).await;
        self.strikes(kind, number, Moment::After);
        answer
    }
}

/// The cluster as one process sees it.
pub(crate) struct Seen {
    cluster: Arc<SimulatedCluster>,
    calls: Arc<Calls>,
    ledger: Arc<Ledger>,
    /// `holderIdentity` of the process.
    identity: String,
    guard: OnceLock<Guard>,
}

impl Seen {
    /// The cluster for the process of this identity.
    pub(crate) fn new(
        cluster: &Arc<SimulatedCluster>,
        calls: &Arc<Calls>,
        ledger: &Arc<Ledger>,
        identity: &str,
    ) -> Arc<Self> {
        Arc::new(Self {
            cluster: Arc::clone(cluster),
            calls: Arc::clone(calls),
            ledger: Arc::clone(ledger),
            identity: identity.to_owned(),
            guard: OnceLock::new(),
        })
    }

    fn may_write(&self) -> Result<(), String> {
        self.guard.get().map_or(Ok(()), |guard| guard())
    }
}

impl Cluster for Seen {
    fn set_guard(&self, guard: Guard) {
        // The first stays, as with the real cluster.
        drop(self.guard.set(guard));
    }

    fn nodes(&self) -> watch::Receiver<Arc<NodeTable>> {
        self.cluster.nodes()
    }

    fn pods(&self, node: &NodeId) -> BoxFuture<'_, Result<Vec<PodFacts>, ClusterError>> {
        let node = node.clone();
        Box::pin(async move {
            let call = async { self.cluster.pods(&node).await };
            self.calls.pass(Kind::Pods, call).await
        })
    }

    fn watch_pods(&self, node: &NodeId) -> watch::Receiver<Arc<PodTable>> {
        self.cluster.watch_pods(node)
    }

    fn watch_workload(&self, namespace: &str, workload: &Owner) -> watch::Receiver<WorkloadState> {
        self.cluster.watch_workload(namespace, workload)
    }

    fn read_pod(&self, pod: &PodId) -> BoxFuture<'_, Result<Option<PodFacts>, ClusterError>> {
        let pod = pod.clone();
        Box::pin(async move {
            let call = async { self.cluster.read_pod(&pod).await };
            self.calls.pass(Kind::ReadPod, call).await
        })
    }

    fn mark(&self, order: &MarkOrder) -> BoxFuture<'_, Result<NodeEntry, ClusterError>> {
        let order = order.clone();
        Box::pin(async move {
            let call = async {
                self.may_write().map_err(|detail| ClusterError::Failed {
                    action: "patch a Node".to_owned(),
                    detail,
                })?;
                self.ledger
                    .mark(&self.cluster, &self.identity, &order)
                    .await
            };
            self.calls.pass(Kind::Mark, call).await
        })
    }

    fn evict(&self, pod: &PodId, grace: Option<Duration>) -> BoxFuture<'_, Answer> {
        let pod = pod.clone();
        Box::pin(async move {
            let call = async {
                if let Err(detail) = self.may_write() {
                    return Answer::Failed { detail };
                }
                self.ledger
                    .evict(&self.cluster, &self.identity, &pod, grace)
                    .await
            };
            self.calls.pass(Kind::Evict, call).await
        })
    }

    fn lease(&self) -> watch::Receiver<LeaseState> {
        self.cluster.lease()
    }

    fn read_lease(&self) -> BoxFuture<'_, Result<LeaseState, ClusterError>> {
        Box::pin(async move {
            let call = async { self.cluster.read_lease().await };
            self.calls.pass(Kind::ReadLease, call).await
        })
    }

    fn write_lease(&self, write: &LeaseWrite) -> BoxFuture<'_, Result<LeaseView, ClusterError>> {
        let write = write.clone();
        Box::pin(async move {
            let kind = match &*self.cluster.lease().borrow() {
                LeaseState::Present(view) if view.holder != write.holder => Kind::Lead,
                LeaseState::Present(view) => match &write.record {
                    Some(record) if view.record.as_ref() != Ok(record) => Kind::Record,
                    Some(_) | None => Kind::Renew,
                },
                LeaseState::Absent | LeaseState::Unknown => Kind::Lead,
            };
            let call = async { self.cluster.write_lease(&write).await };
            self.calls.pass(kind, call).await
        })
    }

    fn publish(&self, event: &ClusterEvent) -> BoxFuture<'_, Result<(), ClusterError>> {
        let event = event.clone();
        Box::pin(async move {
            let call = async { self.cluster.publish(&event).await };
            self.calls.pass(Kind::Event, call).await
        })
    }
}
