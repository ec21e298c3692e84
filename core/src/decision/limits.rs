//! The limits of the cluster, which choose among the steps that nothing else holds.

use std::collections::{BTreeMap, BTreeSet};

use super::evidence::Evidence;
use super::lifecycle::{Beginning, Lifecycle};
use super::plan::{Cause, MarkOrder, Plan};
use super::policy::{ControlPlane, Policy};
use super::verdict::{Hold, HoldReason};
use super::world::{NodeFacts, OwnWrite, World};
use super::{HOUR, Usage, cluster_record};
use crate::node::NodeName;
use crate::record::{RecordedPhase, Storm, Taint, TaintEffect};
use crate::risk::Band;
use crate::time::{after, since};

/// Chooses what is done now. Highest risk first, ties by name; taints before drains, so that every
/// candidate is marked before its neighbours' Pods look for a place.
pub(super) fn choose(
    policy: &Policy,
    world: &World,
    evidence: &BTreeMap<NodeName, Evidence>,
    lives: &mut BTreeMap<NodeName, Lifecycle>,
    storm: Option<&Storm>,
) -> (Plan, Usage) {
    let mut plan = Plan::empty(world.at);
    let mut room = Room::count(world, evidence);

    // Finishing comes before beginning: room freed in this plan is used in this plan, so that
    // deciding again on the outcome changes nothing. The executor begins nothing in a plan of which
    // a finishing order has failed.
    for life in lives.values_mut() {
        if let Some(order) = life.finish.take() {
            life.begin = None;
            life.level = None;
            room.finish(world, &order);
            plan.marks.push(order);
        }
    }

    let mut started = Vec::new();
    for wanted in [Beginning::Taint, Beginning::Drain] {
        let mut candidates: Vec<NodeName> = lives
            .values()
            .filter(|life| {
                life.begin
                    .as_ref()
                    .is_some_and(|(beginning, _)| *beginning == wanted)
            })
            .map(|life| life.node.name.clone())
            .collect();
        candidates.sort_by(|a, b| lives[b].risk.cmp(&lives[a].risk).then_with(|| a.cmp(b)));
        for name in candidates {
            let Some(life) = lives.get_mut(&name) else {
                continue;
            };
            let Some((beginning, order)) = life.begin.take() else {
                continue;
            };
            let held_by_limits = match beginning {
                Beginning::Taint => room.taint_holds(policy, world, &name),
                Beginning::Drain => room.drain_holds(policy, &name),
            };
            let free = life.holds.is_empty() && held_by_limits.is_empty();
            life.holds.extend(held_by_limits);
            if free {
                match beginning {
                    Beginning::Taint => room.taint(&name, control_plane(world, &name)),
                    Beginning::Drain => {
                        room.drain(&name);
                        started.push(order.node.clone());
                    }
                }
                life.level = None;
                plan.marks.push(order);
            }
        }
    }
    for life in lives.values_mut() {
        plan.marks.extend(life.level.take());
        plan.drains.extend(life.drain.take());
    }
    if let Some(before) = &world.cluster {
        let record = cluster_record(world, before, started, storm);
        if record != *before {
            plan.cluster = Some(record);
        }
    }
    let usage = room.usage(policy);
    (plan, usage)
}

fn control_plane(world: &World, name: &NodeName) -> bool {
    world.nodes.get(name).is_some_and(|node| node.control_plane)
}

/// How much of each limit is in use, own writes under way included.
struct Room {
    tainted: BTreeSet<NodeName>,
    draining: BTreeSet<NodeName>,
    survivors: BTreeSet<NodeName>,
    control_plane_tainted: usize,
    eligible: usize,
    drains_last_hour: usize,
    first_drain: Option<jiff::Timestamp>,
}

impl Room {
    fn count(world: &World, evidence: &BTreeMap<NodeName, Evidence>) -> Self {
        let mut room = Self {
            tainted: BTreeSet::new(),
            draining: BTreeSet::new(),
            survivors: BTreeSet::new(),
            control_plane_tainted: 0,
            eligible: 0,
            drains_last_hour: 0,
            first_drain: None,
        };
        for (name, node) in &world.nodes {
            let recorded = node
                .record
                .ours()
                .map_or(RecordedPhase::Clear, |record| record.phase);
            let (taints, drains) = match world.writes.get(name) {
                Some(
                    OwnWrite::InFlight { taints, drains } | OwnWrite::Failed { taints, drains, .. },
                ) => (*taints, *drains),
                None => (false, false),
            };
            let tainted = taints || drains || recorded != RecordedPhase::Clear;
            if tainted {
                room.tainted.insert(name.clone());
                room.control_plane_tainted += usize::from(node.control_plane);
            }
            if drains || recorded == RecordedPhase::Draining {
                room.draining.insert(name.clone());
            }
            if node.ready && !node.cordoned {
                room.eligible += 1;
            }
            let at_risk = evidence
                .get(name)
                .is_some_and(|evidence| evidence.band == Band::AtRisk);
            if !tainted && !at_risk && takes_work(node, |_| false) {
                room.survivors.insert(name.clone());
            }
        }
        if let Some(cluster) = &world.cluster {
            let recent = || {
                cluster
                    .drains
                    .keys()
                    .map(|(at, _)| *at)
                    .filter(|at| since(*at, world.at) < HOUR)
            };
            room.drains_last_hour = recent().count();
            room.first_drain = recent().min();
        }
        room
    }

    fn finish(&mut self, world: &World, order: &MarkOrder) {
        let name = &order.node.name;
        let phase = order
            .record
            .as_ref()
            .map_or(RecordedPhase::Clear, |record| record.phase);
        if phase == RecordedPhase::Clear {
            self.tainted.remove(name);
        }
        if phase != RecordedPhase::Draining {
            self.draining.remove(name);
        }
        // A Node that is given back is well, so it can take work again as soon as our taint is gone.
        let removed = order.taints_removed();
        if order.cause == Cause::Release
            && world
                .nodes
                .get(name)
                .is_some_and(|node| takes_work(node, |taint| removed.contains(&taint)))
        {
            self.survivors.insert(name.clone());
        }
    }

    fn taint(&mut self, name: &NodeName, control_plane: bool) {
        self.tainted.insert(name.clone());
        self.survivors.remove(name);
        self.control_plane_tainted += usize::from(control_plane);
    }

    fn drain(&mut self, name: &NodeName) {
        self.draining.insert(name.clone());
        self.drains_last_hour += 1;
    }

    fn last_node(&self, name: &NodeName) -> Option<Hold> {
        let others = self
            .survivors
            .iter()
            .filter(|survivor| *survivor != name)
            .count();
        (others == 0).then(|| Hold {
            reason: HoldReason::LastNode,
            detail: "no other Node is ready, schedulable and well".to_owned(),
            until: None,
        })
    }

    fn taint_holds(&self, policy: &Policy, world: &World, name: &NodeName) -> Vec<Hold> {
        let mut holds = Vec::from_iter(self.last_node(name));
        let max = policy.limits.tainted_max.of(self.eligible);
        if self.tainted.len() >= max {
            let detail = format!(
                "{} of {max} Nodes tainted (policy.limits.tainted_max = {})",
                self.tainted.len(),
                policy.limits.tainted_max
            );
            holds.push(Hold {
                reason: HoldReason::TaintedMax,
                detail,
                until: None,
            });
        }
        let one_at_a_time =
            policy.control_plane == ControlPlane::Include && control_plane(world, name);
        if one_at_a_time && self.control_plane_tainted > 0 {
            let detail = "control-plane Nodes are acted on one at a time".to_owned();
            holds.push(Hold {
                reason: HoldReason::ControlPlane,
                detail,
                until: None,
            });
        }
        holds
    }

    fn drain_holds(&self, policy: &Policy, name: &NodeName) -> Vec<Hold> {
        let mut holds = Vec::from_iter(self.last_node(name));
        let max = policy.limits.draining_max.of(self.eligible);
        if self.draining.len() >= max {
            let detail = format!(
                "{} of {max} Nodes draining (policy.limits.draining_max = {})",
                self.draining.len(),
                policy.limits.draining_max
            );
            holds.push(Hold {
                reason: HoldReason::DrainingMax,
                detail,
                until: None,
            });
        }
        let per_hour = policy.limits.drains_per_hour as usize;
        if self.drains_last_hour >= per_hour {
            let detail = format!(
                "{} of {per_hour} drains within the hour (policy.limits.drains_per_hour)",
                self.drains_last_hour
            );
            let until = self.first_drain.map(|first| after(first, HOUR));
            holds.push(Hold {
                reason: HoldReason::DrainsPerHour,
                detail,
                until,
            });
        }
        holds
    }

    fn usage(&self, policy: &Policy) -> Usage {
        Usage {
            tainted: self.tainted.len(),
            tainted_max: policy.limits.tainted_max.of(self.eligible),
            draining: self.draining.len(),
            draining_max: policy.limits.draining_max.of(self.eligible),
            drains_last_hour: self.drains_last_hour,
            drains_per_hour: policy.limits.drains_per_hour as usize,
        }
    }
}

/// The Node can take the work of others: Ready, schedulable, and no taint keeps ordinary Pods out,
/// apart from those that are about to go.
fn takes_work(node: &NodeFacts, about_to_go: impl Fn(&Taint) -> bool) -> bool {
    let keeps_out = |taint: &&Taint| match taint.effect {
        TaintEffect::NoSchedule | TaintEffect::NoExecute => !about_to_go(taint),
        TaintEffect::PreferNoSchedule => false,
    };
    node.ready
        && !node.cordoned
        && node.taken_by.is_none()
        && !node.taints.iter().any(|taint| keeps_out(&taint))
}
