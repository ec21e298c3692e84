//! What is to be done about every Node, and why.
//!
//! [`decide`] is the only place where that is decided. It is deterministic and looks at nothing but
//! its arguments. It proceeds in four stages: evidence and memory of each Node; the storm guard over
//! all of them; the next step of each Node, with what holds it; and the limits, which choose among
//! the steps that are left.

pub mod audit;
mod evidence;
mod lifecycle;
mod limits;
pub mod memory;
pub mod plan;
pub mod policy;
mod ramp;
mod room;
mod storm;
pub mod verdict;
pub mod window;
pub mod world;

use std::collections::BTreeMap;

use jiff::Timestamp;

use self::evidence::Evidence;
use self::lifecycle::{Lifecycle, Situation};
use self::memory::{Memory, NodeMemory};
use self::plan::Plan;
use self::policy::{Policy, Reach};
use self::verdict::Verdict;
use self::world::{NodeFacts, World};
use crate::node::{NodeId, NodeName};
use crate::record::{ClusterRecord, Ramp, RecordedPhase, Storm};
use crate::risk::Band;
use crate::time::since;

/// What is to be done, and what is to be said.
#[derive(Clone, Debug)]
pub struct Decision {
    /// To be handed to the next decision.
    pub memory: Memory,
    /// One for each Node.
    pub verdicts: BTreeMap<NodeName, Verdict>,
    /// What is to be done now. Empty with reach `observe`.
    pub plan: Plan,
    /// Nodes whose Pods the next decision would like to know. What was read before the time beside the
    /// name is of no use to it, whatever its age.
    pub wants: BTreeMap<NodeName, Timestamp>,
    /// The storm that is on.
    pub storm: Option<Storm>,
    /// The cautious beginning after the last one, this plan's Nodes included.
    pub ramp: Option<Ramp>,
    /// The limits as they count now, for metrics and the page.
    pub usage: Usage,
}

/// Nodes that have limits of their own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// The Nodes of one zone; `None` for those without a zone label.
    Zone(Option<String>),
    /// The Nodes of one pool.
    Pool(String),
}

/// One limit of one group, and how much of it is in use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupUsage {
    /// Whose.
    pub group: Group,
    /// The key in the configuration, without `zone_`.
    pub limit: &'static str,
    /// How many count against it.
    pub used: usize,
    /// How many may.
    pub max: usize,
}

/// The limits, and how much of each is in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Nodes with our taint, planned and in flight included.
    pub tainted: usize,
    /// `tainted_max` as a count.
    pub tainted_max: usize,
    /// Nodes being drained, planned and in flight included.
    pub draining: usize,
    /// `draining_max` as a count.
    pub draining_max: usize,
    /// Drains started within the last hour, planned included.
    pub drains_last_hour: usize,
    /// `drains_per_hour`.
    pub drains_per_hour: usize,
    /// Those of zones and pools, as far as they are configured; where there are very many, those with
    /// the least room. By group and limit.
    pub groups: Vec<GroupUsage>,
}

impl Usage {
    /// Limits of zones and pools that are told: a label that differs from Node to Node may stand
    /// where a zone is expected, and every one of them becomes a series.
    pub const GROUPS_MAX: usize = 200;
}

/// Decides what is to be done about every Node, and why.
///
/// Deterministic: the same arguments give the same decision. Deciding again on the outcome, at the
/// same time, changes nothing.
pub fn decide(policy: &Policy, memory: &Memory, world: &World) -> Decision {
    let evidence: BTreeMap<NodeName, Evidence> = world
        .nodes
        .iter()
        .map(|(name, node)| (name.clone(), Evidence::of(policy, world, node)))
        .collect();

    let mut next = Memory {
        nodes: world
            .nodes
            .values()
            .map(|node| {
                let before = memory.nodes.get(&node.id).cloned().unwrap_or_default();
                (
                    node.id.clone(),
                    remember(policy, world, node, &evidence[&node.id.name], before),
                )
            })
            .collect(),
        ..memory.clone()
    };
    let guarded = storm::guard(policy, world, &next, &evidence);
    next.inputs = guarded.inputs;
    next.storm = guarded.storm;
    next.ramp = if next.storm.is_some() {
        None
    } else {
        ramp::ramp(policy, world, &next, &evidence, guarded.ended.is_some())
    };
    if let Some(ended) = guarded.ended {
        next.storm_over = Some(ended.since);
    }

    let mut lives: BTreeMap<NodeName, Lifecycle> = BTreeMap::new();
    for node in world.nodes.values() {
        let situation = Situation {
            policy,
            rules: policy.rules_of(node),
            world,
            node,
            evidence: &evidence[&node.id.name],
            storm: next.storm.as_ref(),
        };
        let memory = next.nodes.entry(node.id.clone()).or_default();
        lives.insert(node.id.name.clone(), lifecycle::live(&situation, memory));
    }

    let limits::Chosen {
        plan,
        usage,
        mut wants,
    } = limits::choose(
        policy,
        world,
        &evidence,
        &mut lives,
        next.storm.as_ref(),
        &mut next.ramp,
    );
    for life in lives.values().filter(|life| life.wants_pods) {
        wants
            .entry(life.node.name.clone())
            .or_insert(Timestamp::MIN);
    }
    let verdicts = lives
        .into_iter()
        .map(|(name, life)| (name, life.into_verdict()))
        .collect();
    let storm = next.storm.clone();
    let ramp = next.ramp.clone();
    let plan = if policy.reach_max() == Reach::Observe {
        Plan::empty(world.at)
    } else {
        plan
    };
    Decision {
        memory: next,
        verdicts,
        plan,
        wants,
        storm,
        ramp,
        usage,
    }
}

/// Brings what is remembered of a Node up to date with what is seen now.
fn remember(
    policy: &Policy,
    world: &World,
    node: &NodeFacts,
    evidence: &Evidence,
    before: NodeMemory,
) -> NodeMemory {
    let rules = policy.rules_of(node);
    let while_true = |is: bool, since: Option<_>| is.then(|| since.unwrap_or(world.at));
    // Time to recover runs from the end of a drain: what looks well in the middle of one cancels it.
    let waits = node.record.ours().is_some_and(|record| {
        matches!(
            record.phase,
            RecordedPhase::Tainted | RecordedPhase::Drained
        )
    });
    NodeMemory {
        at_risk_since: while_true(evidence.band == Band::AtRisk, before.at_risk_since),
        turned_at: match evidence.band {
            Band::Unknown => before.turned_at,
            Band::AtRisk => before.turned_at.or_else(|| Some(turned_at(world, node))),
            Band::Healthy | Band::Caution => None,
        },
        model_at_risk_since: while_true(evidence.model_at_risk(rules), before.model_at_risk_since),
        well_since: while_true(waits && evidence.well(rules), before.well_since),
        ..before
    }
}

/// When a Node that is found at risk has turned so. What we have marked had turned before that; after a
/// restart it is all that is known of it.
fn turned_at(world: &World, node: &NodeFacts) -> Timestamp {
    let marked = node
        .record
        .ours()
        .filter(|record| record.phase != RecordedPhase::Clear);
    marked.map_or(world.at, |record| record.since.min(world.at))
}

/// The cluster's record with these drains added, and without those that no limit looks at any more.
fn cluster_record(
    world: &World,
    before: &ClusterRecord,
    started: impl IntoIterator<Item = (Timestamp, NodeId)>,
    storm: Option<&Storm>,
    ramp: Option<&Ramp>,
) -> ClusterRecord {
    let mut drains = before.drains.clone();
    drains.retain(|(at, _), _| is_recent(*at, world.at));
    for (at, node) in started {
        drains.retain(|(at, name), _| *name != node.name || !never_began(world, name, *at));
        drains.insert((at, node.name), node.uid);
    }
    ClusterRecord {
        drains,
        storm: storm.map(|storm| Storm {
            calm_since: None,
            ..storm.clone()
        }),
        ramp: ramp.cloned(),
    }
}

/// Whether a drain counts as one of the last hour. A clock that was set back may have left some in the
/// future: they count for an hour from there, either way.
fn is_recent(drain: Timestamp, now: Timestamp) -> bool {
    drain.duration_since(now).unsigned_abs() < HOUR
}

/// The start of a drain of this Node that stands on the cluster's record and not on its own: it is made
/// now, instead of one more that would count as well. Marks wait for each other, and meanwhile every
/// decision has it again. One that was made, of which the answer is lost, has this very time.
fn waiting_start(policy: &Policy, world: &World, node: &NodeFacts) -> Option<Timestamp> {
    let record = node
        .record
        .ours()
        .filter(|record| record.phase == RecordedPhase::Tainted)?;
    let last = record.drain.as_ref().map(|drain| drain.started_at);
    let longest = START_WAITS_MAX.min(policy.drain.deadline / 10);
    let drains = world.cluster.as_ref()?.drains.iter();
    let waiting = drains.filter(|((at, name), uid)| {
        *name == node.id.name
            && **uid == node.id.uid
            && *at <= world.at
            && since(*at, world.at) < longest
            && record.since < *at
            && last.is_none_or(|last| last < *at)
    });
    waiting.map(|((at, _), _)| *at).max()
}

/// A start that waits for longer is a new one: its deadline runs from its time, and so does its hour.
const START_WAITS_MAX: std::time::Duration = std::time::Duration::from_secs(10);

/// Whether a drain on the cluster's record never came to be: its Node has had our taint since before, and
/// not started one. The cluster's record is written first, so a mark that fails leaves such an entry.
fn never_began(world: &World, name: &NodeName, at: Timestamp) -> bool {
    let record = world.nodes.get(name).and_then(|node| node.record.ours());
    record.is_some_and(|record| {
        record.phase == RecordedPhase::Tainted
            && record.since < at
            && record
                .drain
                .as_ref()
                .is_none_or(|drain| drain.started_at < at)
            && since(at, world.at) >= NEVER_BEGAN_AFTER
    })
}

/// By then the watch shows a mark whose answer was lost, however slow it is: one that is broken for longer
/// than a moment begins nothing.
const NEVER_BEGAN_AFTER: std::time::Duration = std::time::Duration::from_secs(300);

/// The window of `drains_per_hour`.
const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);
