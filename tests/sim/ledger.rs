//! What reached the simulated API server, judged at the moment at which it did.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foreshock::core::decision::plan::MarkOrder;
use foreshock::core::decision::world::NodeFacts;
use foreshock::core::drain::{Answer, EvictionAllowance, PodId};
use foreshock::core::node::{NodeName, Uid};
use foreshock::core::record::{RecordState, RecordedPhase, Taint};
use foreshock::kubernetes::{Cluster, ClusterError, NodeEntry};
use foreshock::simulate::cluster::SimulatedCluster;
use jiff::Timestamp;

/// One that is under way when somebody pauses is over within this.
const PAUSE_SEEN: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Book {
    accepted: BTreeSet<Uid>,
    paused_since: Option<Timestamp>,
    tainted: Vec<NodeName>,
    drained: Vec<NodeName>,
    released: Vec<NodeName>,
    violations: Vec<String>,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    /// Evictions that were accepted.
    pub(crate) evicted: usize,
    /// Nodes that were tainted, in order.
    pub(crate) tainted: Vec<NodeName>,
    /// Nodes whose drain was completed, in order.
    pub(crate) drained: Vec<NodeName>,
    /// Nodes that were given back, in order.
    pub(crate) released: Vec<NodeName>,
    /// What must not have happened.
    pub(crate) violations: Vec<String>,
}

/// Every write, and what was wrong with it.
pub(crate) struct Ledger {
    book: Mutex<Book>,
    ours: [Taint; 2],
    tainted_max: usize,
    draining_max: usize,
}

impl Ledger {
    /// For a cluster in which so many Nodes may be tainted and drained.
    pub(crate) fn new(ours: [Taint; 2], tainted_max: usize, draining_max: usize) -> Arc<Self> {
        Arc::new(Self {
            book: Mutex::new(Book::default()),
            ours,
            tainted_max,
            draining_max,
        })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was done.
    pub(crate) fn done(&self) -> Done {
        let book = self.book();
        Done {
            evicted: book.accepted.len(),
            tainted: book.tainted.clone(),
            drained: book.drained.clone(),
            released: book.released.clone(),
            violations: book.violations.clone(),
        }
    }

    /// Notes what is true now. To be called often.
    pub(crate) fn look(&self, cluster: &SimulatedCluster) {
        let paused = cluster.lease_now().is_some_and(|lease| lease.paused);
        let mut book = self.book();
        book.paused_since = paused.then(|| book.paused_since.unwrap_or(cluster.now()));
    }

    fn may_write(&self, cluster: &SimulatedCluster, identity: &str, what: &str) {
        let holder = cluster.lease_now().and_then(|lease| lease.holder);
        let now = cluster.now();
        let mut book = self.book();
        if holder.as_deref() != Some(identity) {
            let text = format!("{now} {what} by {identity}, while {holder:?} leads");
            book.violations.push(text);
        }
        if let Some(since) = book.paused_since
            && foreshock::core::time::since(since, now) > PAUSE_SEEN
        {
            book.violations
                .push(format!("{now} {what}, paused since {since}"));
        }
    }

    /// Marks a Node, and looks at what has changed.
    pub(crate) async fn mark(
        &self,
        cluster: &SimulatedCluster,
        identity: &str,
        order: &MarkOrder,
    ) -> Result<NodeEntry, ClusterError> {
        self.may_write(cluster, identity, &format!("mark of {}", order.node));
        let before = cluster.nodes_now();
        let answer = cluster.mark(order).await;
        let after = cluster.nodes_now();
        let name = &order.node.name;
        if let (Some(was), Some(is)) = (before.get(name), after.get(name)) {
            self.compare(cluster.now(), name, was, is);
            let count = |wanted: RecordedPhase| {
                let phases = after.values().filter_map(phase);
                phases
                    .filter(|phase| {
                        *phase == wanted
                            || (wanted == RecordedPhase::Tainted && *phase != RecordedPhase::Clear)
                    })
                    .count()
            };
            let (tainted, draining) = (
                count(RecordedPhase::Tainted),
                count(RecordedPhase::Draining),
            );
            if phase(was) != phase(is)
                && (tainted > self.tainted_max || draining > self.draining_max)
            {
                let text = format!("{name}: {tainted} Nodes tainted, {draining} draining");
                self.book().violations.push(text);
            }
        }
        answer
    }

    fn compare(&self, now: Timestamp, name: &NodeName, was: &NodeFacts, is: &NodeFacts) {
        let mut book = self.book();
        for taint in &was.taints {
            if !is.taints.contains(taint) && !self.ours.contains(taint) {
                book.violations
                    .push(format!("{now} {name}: the taint {taint} is lost"));
            }
        }
        let same = was.cordoned == is.cordoned
            && was.excluded == is.excluded
            && was.hold_until == is.hold_until
            && was.taken_by == is.taken_by;
        if !same {
            book.violations
                .push(format!("{now} {name}: something that is not ours changed"));
        }
        let ours = |facts: &NodeFacts| facts.taints.contains(&self.ours[0]);
        match (ours(was), ours(is)) {
            (false, true) => book.tainted.push(name.clone()),
            (true, false) => book.released.push(name.clone()),
            (false, false) | (true, true) => {}
        }
        if phase(is) == Some(RecordedPhase::Drained) && phase(was) != phase(is) {
            book.drained.push(name.clone());
        }
    }

    /// Asks the Eviction API, and looks at what it was asked for.
    pub(crate) async fn evict(
        &self,
        cluster: &SimulatedCluster,
        identity: &str,
        pod: &PodId,
        grace: Option<Duration>,
    ) -> Answer {
        self.may_write(cluster, identity, &format!("eviction of {pod}"));
        let found = cluster
            .all_pods()
            .into_iter()
            .find(|(_, facts)| facts.id == *pod);
        let answer = cluster.evict(pod, grace).await;
        if answer != Answer::Accepted {
            return answer;
        }
        let node = found.as_ref().and_then(|(node, _)| node.clone());
        let recorded = node
            .and_then(|node| cluster.nodes_now().get(&node).and_then(phase))
            .is_some_and(|phase| phase == RecordedPhase::Draining);
        let past_budget = found.is_some_and(|(_, facts)| {
            facts.ready
                && facts.terminating_until.is_none()
                && facts
                    .budgets
                    .iter()
                    .any(|budget| budget.allowance == EvictionAllowance::Now(0))
        });
        let now = cluster.now();
        let mut book = self.book();
        if !book.accepted.insert(pod.uid.clone()) {
            book.violations
                .push(format!("{now} {pod}: a second accepted eviction"));
        }
        if !recorded {
            book.violations
                .push(format!("{now} {pod}: its Node's record has no drain"));
        }
        if past_budget {
            book.violations
                .push(format!("{now} {pod}: evicted past its budget"));
        }
        answer
    }

    /// What of ours is left on the Nodes: nothing, when all is well.
    pub(crate) fn left(&self, cluster: &SimulatedCluster) -> Vec<String> {
        let nodes = cluster.nodes_now();
        nodes
            .values()
            .filter(|facts| {
                let taint = facts.taints.iter().any(|taint| self.ours.contains(taint));
                let record = facts.record.ours().is_some_and(|record| {
                    !record.marks.is_empty() || record.phase != RecordedPhase::Clear
                });
                taint || record || facts.risk_label.is_some()
            })
            .map(|facts| format!("{}: {:?} {:?}", facts.id, facts.taints, facts.record))
            .collect()
    }
}

fn phase(facts: &NodeFacts) -> Option<RecordedPhase> {
    match &facts.record {
        RecordState::Ours(record) => Some(record.phase),
        RecordState::Absent
        | RecordState::OtherUid
        | RecordState::Foreign { .. }
        | RecordState::Unreadable { .. } => None,
    }
}
