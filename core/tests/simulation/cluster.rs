//! The cluster as it truly is: Nodes, Pods, budgets and the Lease's record, with an API server that
//! answers as Kubernetes does. It knows nothing of decisions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foreshock_core::decision::plan::{Cause, MarkOrder};
use foreshock_core::decision::world::{Fact, HoldUntil, NodeFacts};
use foreshock_core::drain::{self, Answer, Budget, EvictionAllowance, Owner, PodFacts, PodId};
use foreshock_core::node::{NodeId, NodeName, Uid};
use foreshock_core::record::{ClusterRecord, NodeRecord, RecordState, Taint, TaintEffect};
use foreshock_core::time::after;
use jiff::Timestamp;

use super::chance::Chance;
use super::support;

/// The grace period of every Pod.
const GRACE: Duration = Duration::from_secs(30);

/// The pool that every fourth Node is in.
pub const POOL: &str = "batch";

/// How a workload's Pods are protected.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Pods that there should be.
    pub replicas: usize,
    /// `maxUnavailable` of its budget, if it has one.
    pub unavailable_max: Option<usize>,
}

/// One Pod.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its identity.
    pub id: PodId,
    /// Which workload it is of.
    pub workload: usize,
    /// Where it runs.
    pub node: Option<NodeName>,
    /// It is Ready, as long as its Node is.
    pub ready: bool,
    /// When it has to be gone by.
    pub terminating_until: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Transition {
    Ready(usize),
    Gone(usize),
}

/// The cluster and its API server.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The true time.
    pub now: Timestamp,
    /// Nodes as the API server has them; Pods are asked for separately.
    pub nodes: BTreeMap<NodeName, NodeFacts>,
    /// Nodes that somebody wrote to since this was last emptied.
    pub touched: BTreeSet<NodeName>,
    /// The record on the Lease.
    pub record: ClusterRecord,
    /// `foreshock.dev/paused` on the Lease.
    pub paused: bool,
    /// By slot; `None` is gone.
    pub pods: Vec<Option<Pod>>,
    /// What runs where, by slot.
    on: BTreeMap<NodeName, BTreeSet<usize>>,
    /// Pods without a place.
    unplaced: BTreeSet<usize>,
    /// What runs.
    pub workloads: Vec<Workload>,
    of: Vec<BTreeSet<usize>>,
    agenda: BTreeSet<(Timestamp, Transition)>,
    chance: Chance,
    counter: u64,
}

impl Cluster {
    /// `nodes` workers in `zones` zones, with about five Pods each, all Ready.
    pub fn new(seed: u64, now: Timestamp, nodes: usize, zones: usize) -> Self {
        let mut cluster = Self {
            now,
            nodes: BTreeMap::new(),
            touched: BTreeSet::new(),
            record: ClusterRecord::default(),
            paused: false,
            pods: Vec::new(),
            on: BTreeMap::new(),
            unplaced: BTreeSet::new(),
            workloads: Vec::new(),
            of: Vec::new(),
            agenda: BTreeSet::new(),
            chance: Chance::new(seed, "cluster"),
            counter: 0,
        };
        for index in 0..nodes {
            let zone = format!("zone-{}", index % zones.max(1));
            let created_at = after(Timestamp::UNIX_EPOCH, Duration::from_secs(1));
            cluster.add_node(&format!("n{index:03}"), &zone, created_at);
        }
        let mut left = nodes * 5;
        while left > 0 {
            let replicas = (2 + cluster.chance.below(5)).min(left);
            let unavailable_max = cluster
                .chance
                .hits(0.6)
                .then(|| 1 + cluster.chance.below(2));
            cluster.workloads.push(Workload {
                replicas,
                unavailable_max: unavailable_max.filter(|_| replicas > 1),
            });
            cluster.of.push(BTreeSet::new());
            left -= replicas;
        }
        cluster.reconcile();
        let slots: Vec<usize> = (0..cluster.pods.len()).collect();
        for slot in slots {
            if let Some(pod) = &mut cluster.pods[slot] {
                pod.ready = pod.node.is_some();
            }
        }
        cluster.agenda.clear();
        cluster
    }

    /// A new Node, with a UID that no other has had.
    pub fn add_node(&mut self, name: &str, zone: &str, created_at: Timestamp) {
        self.counter += 1;
        let facts = NodeFacts {
            id: NodeId::new(name, format!("node-{}", self.counter).as_str()),
            created_at,
            zone: Some(zone.to_owned()),
            pool: self.counter.is_multiple_of(4).then(|| POOL.to_owned()),
            pods: Fact::Unknown,
            ..support::node(name)
        };
        let name = facts.id.name.clone();
        self.on.insert(name.clone(), BTreeSet::new());
        self.nodes.insert(name.clone(), facts);
        self.touched.insert(name);
    }

    /// The Node goes, and what ran on it.
    pub fn delete_node(&mut self, name: &NodeName) {
        for slot in self.on.remove(name).unwrap_or_default() {
            self.remove(slot);
        }
        self.nodes.remove(name);
        self.touched.insert(name.clone());
        self.reconcile();
    }

    /// Somebody who is not foreshock writes to a Node.
    pub fn change(&mut self, name: &NodeName, change: impl FnOnce(&mut NodeFacts)) {
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        let was_ready = node.ready;
        change(node);
        let is_ready = node.ready;
        self.touched.insert(name.clone());
        if was_ready == is_ready {
            return;
        }
        for slot in self.on[name].clone() {
            if let Some(pod) = &mut self.pods[slot] {
                if is_ready {
                    let at = after(self.now, self.chance.lasting(2, 20));
                    self.agenda.insert((at, Transition::Ready(slot)));
                } else {
                    pod.ready = false;
                }
            }
        }
    }

    /// Lets time pass.
    pub fn advance(&mut self, to: Timestamp) {
        while let Some((at, transition)) = self.agenda.first().copied() {
            if at > to {
                break;
            }
            self.agenda.pop_first();
            self.now = self.now.max(at);
            match transition {
                Transition::Ready(slot) => self.become_ready(slot),
                Transition::Gone(slot) => {
                    let answers = self.pods[slot]
                        .as_ref()
                        .and_then(|pod| pod.node.as_ref())
                        .is_none_or(|node| self.nodes.get(node).is_some_and(|node| node.ready));
                    if answers {
                        self.remove(slot);
                        self.reconcile();
                    } else {
                        let again = after(at, Duration::from_secs(10));
                        self.agenda.insert((again, transition));
                    }
                }
            }
        }
        self.now = self.now.max(to);
        if !self.unplaced.is_empty() {
            self.place();
        }
    }

    /// Whether anything of the Pods is still on its way.
    pub fn moves(&self) -> bool {
        !self.agenda.is_empty()
    }

    fn become_ready(&mut self, slot: usize) {
        let Some(pod) = &mut self.pods[slot] else {
            return;
        };
        let answers = pod
            .node
            .as_ref()
            .is_some_and(|node| self.nodes.get(node).is_some_and(|node| node.ready));
        pod.ready = answers && pod.terminating_until.is_none();
    }

    fn remove(&mut self, slot: usize) {
        if let Some(pod) = self.pods[slot].take() {
            self.of[pod.workload].remove(&slot);
            self.unplaced.remove(&slot);
            if let Some(on) = pod.node.and_then(|node| self.on.get_mut(&node)) {
                on.remove(&slot);
            }
        }
    }

    /// Every workload gets the Pods that it lacks; terminating ones do not count.
    fn reconcile(&mut self) {
        for workload in 0..self.workloads.len() {
            let there = self.of[workload]
                .iter()
                .filter(|slot| {
                    self.pods[**slot]
                        .as_ref()
                        .is_some_and(|pod| pod.terminating_until.is_none())
                })
                .count();
            for _ in there..self.workloads[workload].replicas {
                self.counter += 1;
                let id = PodId {
                    namespace: "shop".to_owned(),
                    name: format!("w{workload}-{}", self.counter),
                    uid: Uid::from(format!("pod-{}", self.counter)),
                };
                let slot = self.pods.iter().position(Option::is_none);
                let slot = slot.unwrap_or_else(|| {
                    self.pods.push(None);
                    self.pods.len() - 1
                });
                self.pods[slot] = Some(Pod {
                    id,
                    workload,
                    node: None,
                    ready: false,
                    terminating_until: None,
                });
                // A slot is used again; what was to come of its last Pod is not to come of this one.
                self.agenda.retain(|(_, transition)| match transition {
                    Transition::Ready(of) | Transition::Gone(of) => *of != slot,
                });
                self.of[workload].insert(slot);
                self.unplaced.insert(slot);
            }
        }
        self.place();
    }

    /// Each Pod without a place goes where the fewest are.
    fn place(&mut self) {
        for slot in self.unplaced.clone() {
            let place = self
                .nodes
                .values()
                .filter(|node| takes_work(node))
                .min_by_key(|node| (self.on[&node.id.name].len(), node.id.name.clone()))
                .map(|node| node.id.name.clone());
            let (Some(name), Some(pod)) = (place, &mut self.pods[slot]) else {
                continue;
            };
            pod.node = Some(name.clone());
            self.on.entry(name).or_default().insert(slot);
            self.unplaced.remove(&slot);
            let at = after(self.now, self.chance.lasting(2, 20));
            self.agenda.insert((at, Transition::Ready(slot)));
        }
    }

    /// Pods of a workload that are Ready and stay.
    pub fn healthy(&self, workload: usize) -> usize {
        self.healthy_pods(workload).count()
    }

    fn healthy_pods(&self, workload: usize) -> impl Iterator<Item = &Pod> {
        self.of[workload]
            .iter()
            .filter_map(|slot| self.pods[*slot].as_ref())
            .filter(|pod| pod.ready && pod.terminating_until.is_none())
    }

    /// How many disruptions the workload's budget allows now; `None` without a budget.
    pub fn allowed(&self, workload: usize) -> Option<usize> {
        let spec = self.workloads[workload];
        let wanted = spec.replicas - spec.unavailable_max?.min(spec.replicas);
        Some(self.healthy(workload).saturating_sub(wanted))
    }

    fn owner(workload: usize) -> Owner {
        Owner {
            group: "apps".to_owned(),
            kind: "ReplicaSet".to_owned(),
            name: format!("w{workload}"),
            uid: Uid::from(format!("rs-{workload}")),
        }
    }

    /// A workload as a reader sees it, by the UID of the Pods' controller.
    pub fn workload(&self, uid: &Uid) -> Option<drain::Workload> {
        let workload: usize = uid.as_str().strip_prefix("rs-")?.parse().ok()?;
        let ready = self.healthy_pods(workload).map(|pod| pod.id.uid.clone());
        Some(drain::Workload {
            wanted: u32::try_from(self.workloads.get(workload)?.replicas).ok(),
            ready: ready.collect(),
            ..drain::Workload::default()
        })
    }

    /// The Pods of a Node as a reader sees them.
    pub fn facts(&self, node: &NodeName) -> Vec<PodFacts> {
        let slots = self.on.get(node).into_iter().flatten();
        slots
            .filter_map(|slot| self.pods[*slot].as_ref())
            .map(|pod| PodFacts {
                id: pod.id.clone(),
                owner: Some(Self::owner(pod.workload)),
                workload: Ok(Some(Self::owner(pod.workload))),
                ready: pod.ready,
                terminating_until: pod.terminating_until,
                grace: GRACE,
                budgets: self
                    .allowed(pod.workload)
                    .map(|allowed| Budget {
                        allowance: EvictionAllowance::Now(u32::try_from(allowed).unwrap_or(0)),
                        ..support::pods::budget(
                            &format!("w{}", pod.workload),
                            EvictionAllowance::Never,
                        )
                    })
                    .into_iter()
                    .collect(),
                ..support::pods::pod(&pod.id.name)
            })
            .collect()
    }

    /// Whether nothing runs there.
    pub fn is_empty(&self, node: &NodeName) -> bool {
        self.on.get(node).is_none_or(BTreeSet::is_empty)
    }

    /// The Pod of this UID.
    pub fn pod(&self, uid: &Uid) -> Option<&Pod> {
        self.pods.iter().flatten().find(|pod| pod.id.uid == *uid)
    }

    // ---- the API server's writes ----

    /// The Eviction API.
    pub fn evict(&mut self, id: &PodId) -> Answer {
        let slot = self
            .pods
            .iter()
            .position(|pod| pod.as_ref().is_some_and(|pod| pod.id == *id));
        let Some((slot, workload, terminating)) = slot.and_then(|slot| {
            let pod = self.pods[slot].as_ref()?;
            Some((slot, pod.workload, pod.terminating_until.is_some()))
        }) else {
            return Answer::Gone;
        };
        if terminating {
            return Answer::Accepted;
        }
        let ready = self.pods[slot].as_ref().is_some_and(|pod| pod.ready);
        let healthy = self.healthy(workload);
        let spec = self.workloads[workload];
        if let Some(allowed) = self.allowed(workload) {
            // A Pod that is not Ready may go where the budget is met without it (IfHealthyBudget).
            let met = healthy >= spec.replicas - spec.unavailable_max.unwrap_or(0);
            if (ready && allowed == 0) || (!ready && !met) {
                return support::pods::blocked();
            }
        }
        if let Some(pod) = &mut self.pods[slot] {
            pod.terminating_until = Some(after(self.now, GRACE));
            let gone = after(self.now, self.chance.lasting(1, 30));
            self.agenda
                .retain(|(_, transition)| *transition != Transition::Ready(slot));
            self.agenda.insert((gone, Transition::Gone(slot)));
        }
        self.reconcile();
        Answer::Accepted
    }

    /// The patch of one mark order: what differs from what the order expects refuses it.
    ///
    /// # Errors
    ///
    /// What differs.
    pub fn mark(&mut self, order: &MarkOrder) -> Result<NodeFacts, String> {
        let Some(node) = self.nodes.get_mut(&order.node.name) else {
            return Err("it is gone".to_owned());
        };
        if node.id != order.node {
            return Err("it is another Node of this name".to_owned());
        }
        let found = node.record.ours();
        if found != order.expects.as_deref()
            || matches!(
                node.record,
                RecordState::Foreign { .. } | RecordState::Unreadable { .. }
            )
        {
            return Err("its record is not as expected".to_owned());
        }
        let ours = |record: Option<&NodeRecord>| -> Vec<Taint> {
            record
                .into_iter()
                .flat_map(|record| record.marks.taint.iter().chain(&record.marks.caution_taint))
                .cloned()
                .collect()
        };
        let (before, next) = (
            ours(order.expects.as_deref()),
            ours(order.record.as_deref()),
        );
        for taint in next.iter().filter(|taint| !before.contains(taint)) {
            if node
                .taints
                .iter()
                .any(|there| there.key == taint.key && !before.contains(there))
            {
                return Err(format!("somebody else's taint is in the place of {taint}"));
            }
        }
        let main = order
            .expects
            .as_ref()
            .and_then(|record| record.marks.taint.as_ref());
        if let Some(taint) = main {
            let there = node.taints.contains(taint);
            let follows = order.cause == Cause::Veto && !next.contains(taint);
            if there == follows {
                return Err(format!("the taint {taint} is not as expected"));
            }
        }
        let label_now = order.expects.as_ref().and_then(|record| record.marks.label);
        let label_next = order.record.as_ref().and_then(|record| record.marks.label);
        let changes = before != next || label_now != label_next || order.begins();
        let held = match &node.hold_until {
            Some(HoldUntil::Time(until)) => *until > self.now,
            Some(HoldUntil::Malformed(_)) => true,
            None => false,
        };
        if changes && (node.excluded || held) {
            return Err("it is to be left alone".to_owned());
        }
        if order.begins() && node.taken_by.is_some() {
            return Err("somebody takes it away".to_owned());
        }
        node.taints
            .retain(|taint| !before.contains(taint) || next.contains(taint));
        for taint in next {
            if !before.contains(&taint) {
                node.taints.push(taint);
            }
        }
        let label = |record: Option<&NodeRecord>| record.and_then(|record| record.marks.label);
        match (
            label(order.expects.as_deref()),
            label(order.record.as_deref()),
        ) {
            (before, Some(next)) if before != Some(next) => {
                node.risk_label = Some(next.as_str().to_owned());
            }
            (Some(before), None) if node.risk_label.as_deref() == Some(before.as_str()) => {
                node.risk_label = order
                    .expects
                    .as_ref()
                    .and_then(|record| record.marks.label_before.clone());
            }
            _ => {}
        }
        node.record = order
            .record
            .clone()
            .map_or(RecordState::Absent, RecordState::Ours);
        self.touched.insert(order.node.name.clone());
        Ok(node.clone())
    }
}

/// Ordinary Pods are scheduled here.
pub fn takes_work(node: &NodeFacts) -> bool {
    node.ready
        && !node.cordoned
        && node
            .taints
            .iter()
            .all(|taint| taint.effect == TaintEffect::PreferNoSchedule)
}
