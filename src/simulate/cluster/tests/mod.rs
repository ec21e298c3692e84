mod budgets;
mod calls;
mod failures;
mod marks;
mod pods;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use foreshock_core::decision::plan::{Cause, MarkOrder};
use foreshock_core::decision::world::HoldUntil;
use foreshock_core::drain::{Answer, EvictionAllowance, PodFacts, PodId};
use foreshock_core::node::{NodeId, NodeName};
use foreshock_core::record::{
    ClusterRecord, Marks, NodeRecord, RecordState, RecordedPhase, RiskLabel, Taint, TaintEffect,
};
use foreshock_core::time::after;
use futures::FutureExt;
use jiff::Timestamp;

use super::random::Random;
use super::*;

fn start() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().expect("a time")
}

fn at(milliseconds: u64) -> Timestamp {
    after(start(), Duration::from_millis(milliseconds))
}

fn demo(seed: u64) -> Arc<SimulatedCluster> {
    SimulatedCluster::new(SimulatedClusterOptions::demo(seed, start()))
}

fn small(workloads: Vec<WorkloadSpec>) -> Arc<SimulatedCluster> {
    let nodes = ["a", "b", "c"].map(NodeSpec::worker).to_vec();
    SimulatedCluster::new(SimulatedClusterOptions::new(7, start(), nodes, workloads))
}

/// The calls of the simulated cluster never wait.
fn now<T>(future: BoxFuture<'_, T>) -> T {
    future.now_or_never().expect("answered at once")
}

fn node(cluster: &SimulatedCluster, name: &str) -> NodeId {
    cluster.nodes().borrow().nodes[name].facts.id.clone()
}

fn entry(cluster: &SimulatedCluster, name: &str) -> NodeEntry {
    (*cluster.nodes().borrow().nodes[name]).clone()
}

fn pods(cluster: &SimulatedCluster, workload: &str) -> Vec<(Option<NodeName>, PodFacts)> {
    let mut pods = cluster.all_pods();
    pods.retain(|(_, pod)| pod.id.name.starts_with(&format!("{workload}-")));
    pods
}

fn id(cluster: &SimulatedCluster, workload: &str) -> PodId {
    let mut pods = pods(cluster, workload);
    pods.retain(|(_, pod)| pod.terminating_until.is_none());
    pods.first().expect("a Pod that stays").1.id.clone()
}

fn evict(cluster: &SimulatedCluster, pod: &PodId) -> Answer {
    now(cluster.evict(pod, None))
}

fn our_taint() -> Taint {
    Taint {
        key: "degradation".into(),
        value: "true".into(),
        effect: TaintEffect::NoSchedule,
    }
}

fn tainted(id: &NodeId) -> NodeRecord {
    NodeRecord {
        phase: RecordedPhase::Tainted,
        marks: Marks {
            taint: Some(our_taint()),
            label: Some(RiskLabel::AtRisk),
            ..Marks::default()
        },
        ..NodeRecord::clear("foreshock", &id.uid, start())
    }
}

fn order(
    id: &NodeId,
    cause: Cause,
    expects: Option<NodeRecord>,
    record: Option<NodeRecord>,
) -> MarkOrder {
    MarkOrder {
        node: id.clone(),
        cause,
        note: String::new(),
        expects: expects.map(Box::new),
        record: record.map(Box::new),
    }
}

fn taint(cluster: &SimulatedCluster, name: &str) -> NodeId {
    let id = node(cluster, name);
    let order = order(&id, Cause::Taint, None, Some(tainted(&id)));
    now(cluster.mark(&order)).expect("tainted");
    id
}
