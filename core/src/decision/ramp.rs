//! The cautious beginning after a storm: one Node, then two, then four.
//!
//! Only when every Node of one width has come to an end is anything begun on others, and only when all
//! of them came to a good end does the width double. Where the evidence was a lie after all, it costs
//! one Node.

use std::collections::BTreeMap;
use std::time::Duration;

use super::evidence::Evidence;
use super::memory::Memory;
use super::policy::{ControlPlane, Policy, Reach};
use super::world::{HoldUntil, NodeFacts, OwnWrite, World};
use crate::drain::{NodeOutcome, PodOutcome};
use crate::node::NodeName;
use crate::record::{Ramp, RecordState, RecordedPhase};
use crate::risk::Band;
use crate::time::since;

/// What has come to no end by then is not waited for any longer: a Node that hangs must not hold all
/// others for ever.
const STAGE_MAX: Duration = Duration::from_secs(3600);

/// How it stands with one Node of the present width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Nothing was begun on it: its place is free.
    NotBegun,
    /// It goes on.
    Pending,
    /// It came to a good end.
    Good,
    /// Its drain failed, or a person took our taint off.
    Failed,
}

/// The ramp as it is for this decision. `ended` says that a storm has ended with it.
pub(super) fn ramp(
    policy: &Policy,
    world: &World,
    memory: &Memory,
    evidence: &BTreeMap<NodeName, Evidence>,
    ended: bool,
) -> Option<Ramp> {
    if ended {
        // Drains that the storm has interrupted go on, and are waited for first.
        let draining = world
            .nodes
            .values()
            .filter(|node| {
                node.record
                    .ours()
                    .is_some_and(|record| record.phase == RecordedPhase::Draining)
            })
            .map(|node| (node.id.name.clone(), node.id.uid.clone()));
        return Some(Ramp {
            since: world.at,
            width: 1,
            nodes: draining.collect(),
        });
    }
    let mut ramp = match before(policy, world, memory) {
        Before::Recorded(ramp) => ramp?,
        // Nothing is begun before the Lease has it, so nothing can have come to an end.
        Before::Lags(ramp) => return ramp,
    };
    let standing: BTreeMap<NodeName, Standing> = ramp
        .nodes
        .iter()
        .map(|(name, uid)| {
            let node = world.nodes.get(name).filter(|node| node.id.uid == *uid);
            // A Node that was deleted says nothing of how it went.
            let standing = node.map_or(Standing::NotBegun, |node| {
                stands(policy, world, evidence, &ramp, node)
            });
            (name.clone(), standing)
        })
        .collect();
    let is = |name: &NodeName, what: Standing| standing.get(name) == Some(&what);
    ramp.nodes.retain(|name, _| !is(name, Standing::NotBegun));
    let pending = ramp.nodes.keys().any(|name| is(name, Standing::Pending));
    let late = since(ramp.since, world.at) >= STAGE_MAX;
    if ramp.nodes.is_empty() {
        let wanted = world.nodes.values().any(|node| {
            evidence
                .get(&node.id.name)
                .is_some_and(|evidence| evidence.band == Band::AtRisk)
                && may_be_begun_on(policy, world, node)
        });
        return (wanted || !late).then_some(ramp);
    }
    let full = ramp.nodes.len() >= ramp.width as usize;
    if !late && (!full || pending) {
        return Some(ramp);
    }
    let good = ramp.nodes.keys().all(|name| is(name, Standing::Good));
    let width = if good {
        ramp.width.saturating_mul(2)
    } else {
        ramp.width
    };
    let eligible = world
        .nodes
        .values()
        .filter(|node| node.ready && !node.cordoned)
        .count();
    // From here on the usual limit is the narrower one.
    (!good || (width as usize) < policy.limits.tainted_max.of(eligible)).then_some(Ramp {
        since: world.at,
        width,
        nodes: BTreeMap::new(),
    })
}

/// The ramp before this decision. What counts is what the Lease says, which is written before anything
/// is begun; but for the moment in which it still speaks of the storm.
fn before(policy: &Policy, world: &World, memory: &Memory) -> Before {
    // A width of nothing would hold for ever; nobody but a person can have written it.
    let widened = |ramp: &Ramp| Ramp {
        width: ramp.width.max(1),
        ..ramp.clone()
    };
    if policy.reach_max() == Reach::Observe {
        return Before::Recorded(memory.ramp.clone());
    }
    match &world.cluster {
        Some(cluster) if cluster.storm.is_none() => {
            Before::Recorded(cluster.ramp.as_ref().map(widened))
        }
        Some(_) | None => Before::Lags(memory.ramp.clone()),
    }
}

/// The ramp before this decision.
enum Before {
    /// As the Lease has it, or as it is remembered where nothing is ever written.
    Recorded(Option<Ramp>),
    /// As it is remembered, while the Lease does not have it yet or cannot be read.
    Lags(Option<Ramp>),
}

/// Whether nobody but the ramp and the limits keeps us from the Node.
fn may_be_begun_on(policy: &Policy, world: &World, node: &NodeFacts) -> bool {
    let rules = policy.rules_of(node);
    let hands_off = node.excluded
        || node.cordoned
        || node.taken_by.is_some()
        || (node.control_plane && rules.control_plane == ControlPlane::Exclude)
        || match &node.hold_until {
            Some(HoldUntil::Time(until)) => world.at < *until,
            Some(HoldUntil::Malformed(_)) => true,
            None => false,
        };
    let free = match &node.record {
        RecordState::Absent | RecordState::OtherUid => true,
        RecordState::Ours(record) => {
            record.phase == RecordedPhase::Clear
                && record.veto_until.is_none_or(|until| until <= world.at)
        }
        RecordState::Foreign { .. } | RecordState::Unreadable { .. } => false,
    };
    free && !hands_off
}

fn stands(
    policy: &Policy,
    world: &World,
    evidence: &BTreeMap<NodeName, Evidence>,
    ramp: &Ramp,
    node: &NodeFacts,
) -> Standing {
    let record = node.record.ours();
    let phase = record.map_or(RecordedPhase::Clear, |record| record.phase);
    let under_way = matches!(
        world.writes.get(&node.id.name),
        Some(
            OwnWrite::InFlight { taints, drains } | OwnWrite::Failed { taints, drains, .. }
        ) if *taints || *drains
    );
    if under_way {
        return Standing::Pending;
    }
    let rules = policy.rules_of(node);
    let evidence = evidence.get(&node.id.name);
    let well = evidence.is_some_and(|evidence| evidence.well(rules));
    match (phase, record) {
        (RecordedPhase::Clear, None) => Standing::NotBegun,
        (RecordedPhase::Clear, Some(record)) => {
            let given_back = record.released_at.is_some_and(|at| at >= ramp.since);
            let vetoed = record.veto_until.is_some_and(|until| world.at < until);
            if vetoed {
                // A person says that the evidence was a lie.
                Standing::Failed
            } else if given_back {
                Standing::Good
            } else {
                Standing::NotBegun
            }
        }
        (RecordedPhase::Drained, _) => Standing::Good,
        (RecordedPhase::Draining, _) | (RecordedPhase::Tainted, None) => Standing::Pending,
        (RecordedPhase::Tainted, Some(record)) => {
            let ended = record.drain.as_ref().and_then(|drain| drain.ended);
            match ended {
                Some((_, NodeOutcome::Drained)) => Standing::Good,
                Some((_, NodeOutcome::Ended(PodOutcome::Cancelled))) | None if well => {
                    Standing::Good
                }
                Some((_, NodeOutcome::Ended(PodOutcome::Cancelled))) | None => {
                    // Where evidence and rules go no further than the taint, it has come to its end
                    // once the time has passed in which a storm would have shown again.
                    let reach = evidence.map_or(Reach::Observe, |evidence| {
                        evidence.reach_above(rules, |risk| risk > rules.at_risk, true)
                    });
                    let settled = since(record.since, world.at) >= policy.limits.storm_window;
                    if reach < Reach::Evict && settled {
                        Standing::Good
                    } else {
                        Standing::Pending
                    }
                }
                Some((_, NodeOutcome::Ended(_))) => Standing::Failed,
            }
        }
    }
}
