//! A cluster in memory: Nodes, workloads, budgets, a scheduler and a Lease, behind the same trait as
//! the real one.
//!
//! It is as faithful as the service needs: evictions are answered as the API server answers them,
//! budgets are counted as the disruption controller counts them, marks are refused under the same
//! conditions, Pods take time to go and to become Ready. Time is virtual: nothing happens but in
//! [`SimulatedCluster::advance`] and in calls. With the same seed and the same calls, everything
//! happens again.

mod budgets;
mod controllers;
mod faults;
mod lease;
mod life;
mod marks;
mod people;
mod random;
mod spec;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use foreshock_core::decision::plan::{Cause, MarkOrder};
use foreshock_core::decision::world::NodeFacts;
use foreshock_core::drain::{Answer, Owner, PodFacts, PodId};
use foreshock_core::node::{NodeId, NodeName, Uid};
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::watch;

pub use self::budgets::BudgetStatus;
pub use self::faults::{Fault, Faults};
pub use self::spec::{
    Amount, BudgetRule, BudgetSpec, Controller, NodeSpec, SimulatedClusterOptions, Tolerations,
    WorkloadSpec, demo_nodes, demo_workloads,
};
use self::state::State;
use crate::kubernetes::{
    Cluster, ClusterError, ClusterEvent, Guard, LeaseState, LeaseView, LeaseWrite, NodeEntry,
    NodeTable, PodTable, WorkloadState,
};

/// Events and log entries that are kept: a day of a busy demo.
const KEPT_MAX: usize = 10_000;

/// A write that reached the simulated API server, with the time at which it did.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: WriteKind,
}

/// What was written, or tried.
#[derive(Clone, Debug, PartialEq)]
pub enum WriteKind {
    /// A Node was marked.
    Mark(NodeId, Cause),
    /// A mark was refused.
    MarkRefused(NodeId, Cause),
    /// The Eviction API was asked.
    Evict {
        /// For which Pod.
        pod: PodId,
        /// It was running until then, and goes now.
        began: bool,
        /// What the server said, whether or not the answer arrived.
        answer: Answer,
    },
    /// The Lease was written.
    Lease,
    /// An Event was published.
    Event,
}

/// The cluster, and everybody who looks at it.
#[derive(Debug)]
struct Inner {
    state: State,
    faults: Faults,
    lease: Option<LeaseView>,
    events: VecDeque<(Timestamp, ClusterEvent)>,
    nodes_tx: watch::Sender<Arc<NodeTable>>,
    pods_tx: BTreeMap<NodeId, watch::Sender<Arc<PodTable>>>,
    workloads_tx: BTreeMap<Uid, watch::Sender<WorkloadState>>,
    lease_tx: watch::Sender<LeaseState>,
    /// Ordinary Pods on each Node at the start, on average.
    usual_pods: f64,
}

/// A simulated cluster.
pub struct SimulatedCluster {
    inner: Mutex<Inner>,
    guard: OnceLock<Guard>,
}

impl std::fmt::Debug for SimulatedCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimulatedCluster").finish_non_exhaustive()
    }
}

impl SimulatedCluster {
    /// The cluster at its start: everything placed and Ready, the watches synced.
    pub fn new(options: SimulatedClusterOptions) -> Arc<Self> {
        let mut inner = Inner {
            state: State::new(options),
            faults: Faults::default(),
            lease: None,
            events: VecDeque::new(),
            nodes_tx: watch::Sender::new(Arc::new(NodeTable::default())),
            pods_tx: BTreeMap::new(),
            workloads_tx: BTreeMap::new(),
            lease_tx: watch::Sender::new(LeaseState::Absent),
            usual_pods: 0.0,
        };
        let placed: usize = inner.pods_per_node().values().sum();
        #[expect(clippy::cast_precision_loss, reason = "a number of Pods")]
        let usual = placed as f64 / inner.state.nodes.len().max(1) as f64;
        inner.usual_pods = usual;
        inner.show();
        Arc::new(Self {
            inner: Mutex::new(inner),
            guard: OnceLock::new(),
        })
    }

    fn may_write(&self) -> Result<(), String> {
        self.guard.get().map_or(Ok(()), |guard| guard())
    }

    /// Lets time pass until `to`. Going back does nothing.
    pub fn advance(&self, to: Timestamp) {
        self.with(|inner| inner.state.advance(to));
    }

    /// The cluster's time.
    pub fn now(&self) -> Timestamp {
        self.lock().state.now
    }

    /// Follows a clock for ever, looking at it every `interval` of tokio's time.
    pub async fn follow(&self, mut clock: impl FnMut() -> Timestamp + Send, interval: Duration) {
        self.with(|inner| inner.state.lag = interval);
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.advance(clock());
        }
    }

    /// How many Pods run on each Node, those of DaemonSets and finished ones aside.
    pub fn pods_per_node(&self) -> BTreeMap<NodeName, usize> {
        self.lock().pods_per_node()
    }

    /// How much work a Node has: 1 is the average at the start, 0 an empty Node.
    pub fn load_share(&self, node: &NodeName) -> f64 {
        let inner = self.lock();
        let pods = inner.pods_per_node().get(node).copied().unwrap_or(0);
        if inner.usual_pods > 0.0 {
            #[expect(clippy::cast_precision_loss, reason = "a number of Pods")]
            let pods = pods as f64;
            pods / inner.usual_pods
        } else {
            0.0
        }
    }

    /// Every Pod in the cluster with its Node, by namespace and name.
    pub fn all_pods(&self) -> Vec<(Option<NodeName>, PodFacts)> {
        let inner = self.lock();
        let mut pods: Vec<(Option<NodeName>, PodFacts)> = inner
            .state
            .pods
            .values()
            .map(|pod| {
                let facts = PodFacts {
                    budgets: inner.state.budgets_towards(pod),
                    ..inner.state.facts(pod)
                };
                (pod.node.clone(), facts)
            })
            .collect();
        pods.sort_by(|(_, a), (_, b)| a.id.cmp(&b.id));
        pods
    }

    /// The status of every budget.
    pub fn budgets(&self) -> Vec<BudgetStatus> {
        let inner = self.lock();
        let state = &inner.state;
        state
            .workloads
            .iter()
            .flat_map(|workload| {
                let budgets = workload.spec.budgets.iter();
                budgets.map(|budget| state.budget_status(workload, budget))
            })
            .collect()
    }

    /// The Events that were published, oldest first; at most 10,000.
    pub fn events(&self) -> Vec<(Timestamp, ClusterEvent)> {
        self.lock().events.iter().cloned().collect()
    }

    /// What was written, oldest first; the last 10,000: the simulated server's audit log.
    pub fn writes(&self) -> Vec<Write> {
        self.lock().state.log.iter().cloned().collect()
    }

    /// The Nodes as the API server has them, whatever the watches show.
    pub fn nodes_now(&self) -> BTreeMap<NodeName, NodeFacts> {
        let inner = self.lock();
        let nodes = inner.state.nodes.iter();
        nodes
            .map(|(name, node)| (name.clone(), node.entry().facts))
            .collect()
    }

    /// The Lease as the API server has it, whatever the watches show.
    pub fn lease_now(&self) -> Option<LeaseView> {
        self.lock().lease.clone()
    }

    /// Changes what the next calls meet.
    pub fn with_faults<T>(&self, change: impl FnOnce(&mut Faults) -> T) -> T {
        // What a standing watch has missed is shown when it moves again.
        self.with(|inner| change(&mut inner.faults))
    }

    /// Does something to the cluster, lets the controllers follow, and shows it to the watches.
    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.lock();
        let result = work(&mut inner);
        inner.state.reconcile();
        inner.show();
        result
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere is that test's failure; what is here is still whole enough to look at.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn pods_per_node(&self) -> BTreeMap<NodeName, usize> {
        let counts = |number: &&u64| {
            self.state.pods.get(number).is_some_and(|pod| {
                let spec = &self.state.workloads[pod.workload].spec;
                spec.controller != Controller::DaemonSet && !pod.finished
            })
        };
        self.state
            .nodes
            .iter()
            .map(|(name, node)| (name.clone(), node.pods.iter().filter(counts).count()))
            .collect()
    }

    fn log(&mut self, what: WriteKind) {
        if self.state.log.len() == KEPT_MAX {
            self.state.log.pop_front();
        }
        let at = self.state.now;
        self.state.log.push_back(Write { at, what });
    }

    /// Shows the watches what has changed.
    fn show(&mut self) {
        self.pods_tx.retain(|_, sender| sender.receiver_count() > 0);
        self.workloads_tx
            .retain(|_, sender| sender.receiver_count() > 0);
        if self.faults.watches_stand_still {
            return;
        }
        let changed = std::mem::take(&mut self.state.changed);
        if !changed.nodes.is_empty() {
            let mut nodes = self.nodes_tx.borrow().nodes.clone();
            for name in &changed.nodes {
                match self.state.nodes.get(name) {
                    Some(node) => nodes.insert(name.clone(), Arc::new(node.entry())),
                    None => nodes.remove(name),
                };
            }
            self.nodes_tx.send_replace(Arc::new(NodeTable {
                synced: true,
                problem: None,
                nodes,
            }));
        }
        for (id, sender) in &self.pods_tx {
            let at = Some(self.state.now);
            sender.send_if_modified(|table| {
                let table = Arc::make_mut(table);
                table.at = at;
                if !changed.pods {
                    return false;
                }
                let pods = self.state.pods_of_id(id).unwrap_or_default();
                let pods: Vec<Arc<PodFacts>> = pods.into_iter().map(Arc::new).collect();
                let differs = table.pods != pods;
                table.pods = pods;
                differs
            });
        }
        if changed.pods {
            for (uid, sender) in &self.workloads_tx {
                let now = Some(Ok(self.state.workload(uid)));
                sender.send_if_modified(|state| {
                    let differs = *state != now;
                    *state = now;
                    differs
                });
            }
        }
        if changed.lease {
            self.lease_tx.send_replace(self.lease_state());
        }
    }

    fn lease_state(&self) -> LeaseState {
        match &self.lease {
            Some(lease) => LeaseState::Present(Box::new(lease.clone())),
            None => LeaseState::Absent,
        }
    }
}

impl State {
    /// The Pods of the Node with this UID, if it is there.
    fn pods_of_id(&self, id: &NodeId) -> Option<Vec<PodFacts>> {
        self.nodes
            .get(&id.name)
            .filter(|node| node.uid == id.uid)
            .map(|node| self.pods_of(node))
    }
}

impl Cluster for SimulatedCluster {
    fn set_guard(&self, guard: Guard) {
        // The first stays, as with the real cluster.
        drop(self.guard.set(guard));
    }

    fn nodes(&self) -> watch::Receiver<Arc<NodeTable>> {
        self.lock().nodes_tx.subscribe()
    }

    fn pods(&self, node: &NodeId) -> BoxFuture<'_, Result<Vec<PodFacts>, ClusterError>> {
        let node = node.clone();
        Box::pin(async move {
            let mut inner = self.lock();
            if let Some(fault) = inner.faults.reads.pop_front().flatten() {
                let limit = inner.state.options.call_timeout;
                return Err(fault.error(&format!("Node {node}"), "list Pods", limit));
            }
            inner
                .state
                .pods_of_id(&node)
                .ok_or_else(|| ClusterError::Superseded {
                    object: format!("Node {node}"),
                    detail: "it is gone, or another has its name".to_owned(),
                })
        })
    }

    fn watch_pods(&self, node: &NodeId) -> watch::Receiver<Arc<PodTable>> {
        let mut inner = self.lock();
        if let Some(sender) = inner.pods_tx.get(node) {
            return sender.subscribe();
        }
        let table = PodTable {
            synced: true,
            at: Some(inner.state.now),
            problem: None,
            pods: inner
                .state
                .pods_of_id(node)
                .unwrap_or_default()
                .into_iter()
                .map(Arc::new)
                .collect(),
        };
        let (sender, receiver) = watch::channel(Arc::new(table));
        inner.pods_tx.insert(node.clone(), sender);
        receiver
    }

    fn watch_workload(&self, _namespace: &str, workload: &Owner) -> watch::Receiver<WorkloadState> {
        let mut inner = self.lock();
        if let Some(sender) = inner.workloads_tx.get(&workload.uid) {
            return sender.subscribe();
        }
        let state = Some(Ok(inner.state.workload(&workload.uid)));
        let (sender, receiver) = watch::channel(state);
        inner.workloads_tx.insert(workload.uid.clone(), sender);
        receiver
    }

    fn read_pod(&self, pod: &PodId) -> BoxFuture<'_, Result<Option<PodFacts>, ClusterError>> {
        let pod = pod.clone();
        Box::pin(async move {
            let mut inner = self.lock();
            if let Some(fault) = inner.faults.reads.pop_front().flatten() {
                let limit = inner.state.options.call_timeout;
                return Err(fault.error(&format!("Pod {pod}"), "read a Pod", limit));
            }
            let state = &inner.state;
            Ok(state
                .find_pod(&pod.namespace, &pod.name)
                .and_then(|number| state.pods.get(&number))
                .filter(|found| found.id.uid == pod.uid)
                .map(|found| state.facts(found)))
        })
    }

    fn mark(&self, order: &MarkOrder) -> BoxFuture<'_, Result<NodeEntry, ClusterError>> {
        let order = order.clone();
        Box::pin(async move {
            self.may_write().map_err(|detail| ClusterError::Failed {
                action: "patch a Node".to_owned(),
                detail,
            })?;
            self.with(|inner| {
                let fault = inner.faults.marks.pop_front().flatten();
                let limit = inner.state.options.call_timeout;
                let object = format!("Node {}", order.node);
                let failed = |fault: Fault| Err(fault.error(&object, "patch a Node", limit));
                if let Some(fault) = fault.filter(|fault| !fault.takes_place()) {
                    return failed(fault);
                }
                let result = inner.state.mark(&order);
                let (node, cause) = (order.node.clone(), order.cause);
                inner.log(match &result {
                    Ok(_) => WriteKind::Mark(node, cause),
                    Err(_) => WriteKind::MarkRefused(node, cause),
                });
                fault.map_or(result, failed)
            })
        })
    }

    fn evict(&self, pod: &PodId, grace: Option<Duration>) -> BoxFuture<'_, Answer> {
        let pod = pod.clone();
        Box::pin(async move {
            if let Err(detail) = self.may_write() {
                return Answer::Failed { detail };
            }
            self.with(|inner| {
                let fault = inner.faults.evictions.pop_front().flatten();
                if let Some(fault) = fault.filter(|fault| !fault.takes_place()) {
                    return fault.answer();
                }
                let running = |state: &State| {
                    state
                        .find_pod(&pod.namespace, &pod.name)
                        .and_then(|number| state.pods.get(&number))
                        .is_some_and(|found| found.id.uid == pod.uid && found.deletion.is_none())
                };
                let before = running(&inner.state);
                let answer = inner.state.evict(&pod, grace);
                inner.log(WriteKind::Evict {
                    pod: pod.clone(),
                    began: before && !running(&inner.state),
                    answer: answer.clone(),
                });
                fault.map_or(answer, Fault::answer)
            })
        })
    }

    fn lease(&self) -> watch::Receiver<LeaseState> {
        self.lock().lease_tx.subscribe()
    }

    fn read_lease(&self) -> BoxFuture<'_, Result<LeaseState, ClusterError>> {
        Box::pin(async move {
            let mut inner = self.lock();
            if let Some(fault) = inner.faults.reads.pop_front().flatten() {
                let limit = inner.state.options.call_timeout;
                return Err(fault.error("Lease", "read the Lease", limit));
            }
            // What is read shows in the watch as well, also in one that stands still.
            let seen = inner.lease_state();
            inner.lease_tx.send_if_modified(|shown| {
                let differs = *shown != seen;
                shown.clone_from(&seen);
                differs
            });
            Ok(seen)
        })
    }

    fn write_lease(&self, write: &LeaseWrite) -> BoxFuture<'_, Result<LeaseView, ClusterError>> {
        let write = write.clone();
        Box::pin(async move {
            self.with(|inner| {
                let fault = inner.faults.leases.pop_front().flatten();
                let limit = inner.state.options.call_timeout;
                let failed = |fault: Fault| Err(fault.error("Lease", "write the Lease", limit));
                if let Some(fault) = fault.filter(|fault| !fault.takes_place()) {
                    return failed(fault);
                }
                let result = inner.write_lease(&write);
                if result.is_ok() {
                    inner.log(WriteKind::Lease);
                }
                fault.map_or(result, failed)
            })
        })
    }

    fn publish(&self, event: &ClusterEvent) -> BoxFuture<'_, Result<(), ClusterError>> {
        let event = event.clone();
        Box::pin(async move {
            self.with(|inner| {
                let fault = inner.faults.events.pop_front().flatten();
                if fault.is_none_or(Fault::takes_place) {
                    if inner.events.len() == KEPT_MAX {
                        inner.events.pop_front();
                    }
                    let at = inner.state.now;
                    inner.events.push_back((at, event));
                    inner.log(WriteKind::Event);
                }
                let limit = inner.state.options.call_timeout;
                match fault {
                    Some(fault) => Err(fault.error("Event", "create an Event", limit)),
                    None => Ok(()),
                }
            })
        })
    }
}
