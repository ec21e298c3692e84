//! The limits of the cluster, which choose among the steps that nothing else holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::evidence::Evidence;
use super::lifecycle::{Beginning, Lifecycle};
use super::plan::{Cause, MarkOrder, Plan};
use super::policy::{ControlPlane, Limit, Policy, PoolLimits};
use super::room::{After, Look, Looking};
use super::verdict::{Hold, HoldReason};
use super::world::{NodeFacts, OwnWrite, World};
use super::{
    Group as Named, GroupUsage, HOUR, Usage, cluster_record, is_recent, never_began, waiting_start,
};
use crate::node::NodeName;
use crate::record::{Ramp, RecordState, RecordedPhase, Storm, Taint, TaintEffect};
use crate::risk::Band;
use crate::time::after;

/// What is done now, and what would have to be known for more.
pub(super) struct Chosen {
    pub(super) plan: Plan,
    pub(super) usage: Usage,
    /// Nodes whose Pods have to be known, none of them read before then.
    pub(super) wants: BTreeMap<NodeName, jiff::Timestamp>,
}

/// Chooses what is done now. Highest risk first, ties by name; taints before drains, so that every
/// candidate is marked before its neighbours' Pods look for a place.
pub(super) fn choose(
    policy: &Policy,
    world: &World,
    evidence: &BTreeMap<NodeName, Evidence>,
    lives: &mut BTreeMap<NodeName, Lifecycle>,
    storm: Option<&Storm>,
    ramp: &mut Option<Ramp>,
) -> Chosen {
    let mut plan = Plan::empty(world.at);
    let mut room = Room::count(policy, world, evidence);

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
    let mut looking = Looking::new();
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
                Beginning::Taint => room.taint_holds(&name),
                Beginning::Drain => room.drain_holds(&name),
            };
            let held_by_limits: Vec<Hold> = held_by_limits
                .into_iter()
                .chain(ramp.as_ref().and_then(|ramp| ramp_hold(ramp, &name)))
                .collect();
            let mut free = life.holds.is_empty() && held_by_limits.is_empty();
            life.holds.extend(held_by_limits);
            if free && beginning == Beginning::Drain {
                match looking.look(&room.after(evidence), &name) {
                    Look::Free(places) => drop(plan.places.insert(name.clone(), places)),
                    Look::Held(hold) => {
                        life.holds.push(hold);
                        free = false;
                    }
                }
            }
            if free {
                if let Some(ramp) = ramp {
                    ramp.nodes.insert(name.clone(), order.node.uid.clone());
                }
                match beginning {
                    Beginning::Taint => room.taint(&name),
                    Beginning::Drain => {
                        room.drain(&name);
                        let start = order.record.as_ref().and_then(|to| to.drain.as_ref());
                        started.extend(start.map(|to| (to.started_at, order.node.clone())));
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
        let record = cluster_record(world, before, started, storm, ramp.as_ref());
        if record != *before {
            plan.cluster = Some(record);
        }
    }
    Chosen {
        plan,
        usage: room.usage(policy),
        wants: looking.wants,
    }
}

fn control_plane(world: &World, name: &NodeName) -> bool {
    world.nodes.get(name).is_some_and(|node| node.control_plane)
}

/// After a storm, Nodes are begun on a few at a time.
fn ramp_hold(ramp: &Ramp, name: &NodeName) -> Option<Hold> {
    let free = ramp.nodes.len() < ramp.width as usize || ramp.nodes.contains_key(name);
    if free {
        return None;
    }
    let waits_for: Vec<&str> = ramp.nodes.keys().map(NodeName::as_str).take(5).collect();
    Some(Hold {
        reason: HoldReason::Storm,
        detail: format!(
            "after a storm Nodes are begun on {} at a time; first {} must have come to an end",
            ramp.width,
            waits_for.join(", ")
        ),
        until: None,
    })
}

/// Nodes that have limits of their own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Group<'a> {
    /// By zone; empty for Nodes without a zone label.
    Zone(&'a str),
    Pool(&'a str),
}

impl Group<'_> {
    fn named(self) -> Named {
        match self {
            Self::Zone(zone) => Named::Zone((!zone.is_empty()).then(|| zone.to_owned())),
            Self::Pool(pool) => Named::Pool(pool.to_owned()),
        }
    }
}

impl fmt::Display for Group<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zone("") => f.write_str("Nodes without a zone"),
            Self::Zone(zone) => write!(f, "zone {zone}"),
            Self::Pool(pool) => write!(f, "pool {pool}"),
        }
    }
}

/// The hold of a limit that is used up.
fn full(
    reason: HoldReason,
    place: &str,
    what: &str,
    used: usize,
    limit: Limit,
    eligible: usize,
    key: &str,
) -> Option<Hold> {
    let max = limit.of(eligible);
    (used >= max).then(|| Hold {
        reason,
        detail: format!("{place}: {used} of {max} Nodes {what} (policy.limits, {key} = {limit})"),
        until: None,
    })
}

#[derive(Clone, Copy, Default)]
struct Count {
    eligible: usize,
    tainted: usize,
    draining: usize,
    drains_last_hour: usize,
}

/// How much of each limit is in use, own writes under way included.
struct Room<'a> {
    policy: &'a Policy,
    world: &'a World,
    tainted: BTreeSet<NodeName>,
    draining: BTreeSet<NodeName>,
    survivors: BTreeSet<NodeName>,
    groups: BTreeMap<Group<'a>, Count>,
    control_plane_tainted: usize,
    eligible: usize,
    drains_last_hour: usize,
    first_drain: Option<jiff::Timestamp>,
    /// Our taints that this plan removes, by Node.
    freed: BTreeMap<NodeName, Vec<Taint>>,
    /// The last time at which a drain ended that this plan says has ended.
    ended: Option<jiff::Timestamp>,
    /// Nodes whose start counts already: it stands on the cluster's record, and waits to be made.
    waiting: BTreeSet<NodeName>,
}

impl<'a> Room<'a> {
    fn count(
        policy: &'a Policy,
        world: &'a World,
        evidence: &BTreeMap<NodeName, Evidence>,
    ) -> Self {
        let mut room = Self {
            policy,
            world,
            tainted: BTreeSet::new(),
            draining: BTreeSet::new(),
            survivors: BTreeSet::new(),
            groups: BTreeMap::new(),
            control_plane_tainted: 0,
            eligible: 0,
            drains_last_hour: 0,
            first_drain: None,
            freed: BTreeMap::new(),
            ended: None,
            waiting: BTreeSet::new(),
        };
        for (name, node) in &world.nodes {
            if waiting_start(policy, world, node).is_some() {
                room.waiting.insert(name.clone());
            }
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
            // Of a later version's record nothing is known but that the taint is there.
            let unreadable = matches!(node.record, RecordState::Unreadable { .. })
                && node.taints.contains(&policy.rules_of(node).taint);
            let tainted = taints || drains || unreadable || recorded != RecordedPhase::Clear;
            if tainted {
                room.taint(name);
            }
            if drains || recorded == RecordedPhase::Draining {
                room.draining.insert(name.clone());
                room.each_group(name, |count| count.draining += 1);
            }
            if node.ready && !node.cordoned {
                room.eligible += 1;
                room.each_group(name, |count| count.eligible += 1);
            }
            let at_risk = evidence
                .get(name)
                .is_some_and(|evidence| evidence.band == Band::AtRisk);
            if !tainted && !at_risk && takes_work(node, |_| false) {
                room.survivors.insert(name.clone());
            }
        }
        if let Some(cluster) = &world.cluster {
            for (at, name) in cluster.drains.keys() {
                if !is_recent(*at, world.at) || never_began(world, name, *at) {
                    continue;
                }
                room.drains_last_hour += 1;
                room.first_drain = Some(room.first_drain.map_or(*at, |first| first.min(*at)));
                if world.nodes.contains_key(name) {
                    room.each_group(name, |count| count.drains_last_hour += 1);
                } else {
                    // Nobody knows any more where it belonged, so it counts everywhere.
                    for pool in &policy.pools {
                        let count = room.groups.entry(Group::Pool(&pool.name)).or_default();
                        count.drains_last_hour += 1;
                    }
                }
            }
        }
        room
    }

    fn groups_of(&self, name: &NodeName) -> impl Iterator<Item = Group<'a>> + use<'a> {
        let node = self.world.nodes.get(name);
        let zone = node.map(|node| Group::Zone(node.zone.as_deref().unwrap_or_default()));
        let pool = node
            .and_then(|node| self.policy.pool_of(node))
            .map(|pool| Group::Pool(&pool.name));
        zone.into_iter().chain(pool)
    }

    fn each_group(&mut self, name: &NodeName, change: impl Fn(&mut Count)) {
        for group in self.groups_of(name) {
            change(self.groups.entry(group).or_default());
        }
    }

    fn finish(&mut self, world: &World, order: &MarkOrder) {
        let name = &order.node.name;
        let phase = order
            .record
            .as_ref()
            .map_or(RecordedPhase::Clear, |record| record.phase);
        if phase == RecordedPhase::Clear && self.tainted.remove(name) {
            self.each_group(name, |count| count.tainted -= 1);
        }
        if phase != RecordedPhase::Draining && self.draining.remove(name) {
            self.each_group(name, |count| count.draining -= 1);
        }
        let drain = order
            .record
            .as_ref()
            .and_then(|record| record.drain.as_ref());
        self.ended = self
            .ended
            .max(drain.and_then(|drain| drain.ended).map(|(at, _)| at));
        // A Node that is given back is well, so it can take work again as soon as our taint is gone.
        let removed = order.taints_removed();
        self.freed
            .insert(name.clone(), removed.iter().copied().cloned().collect());
        if order.cause == Cause::Release
            && world
                .nodes
                .get(name)
                .is_some_and(|node| takes_work(node, |taint| removed.contains(&taint)))
        {
            self.survivors.insert(name.clone());
        }
    }

    /// The Nodes as the plan so far leaves them.
    fn after<'b>(&'b self, evidence: &'b BTreeMap<NodeName, Evidence>) -> After<'a, 'b> {
        After {
            policy: self.policy,
            world: self.world,
            evidence,
            tainted: &self.tainted,
            draining: &self.draining,
            freed: &self.freed,
            ended: self.ended,
        }
    }

    fn taint(&mut self, name: &NodeName) {
        if self.tainted.insert(name.clone()) {
            self.survivors.remove(name);
            self.control_plane_tainted += usize::from(control_plane(self.world, name));
            self.each_group(name, |count| count.tainted += 1);
        }
    }

    fn drain(&mut self, name: &NodeName) {
        let new = usize::from(self.draining.insert(name.clone()));
        let of_the_hour = 1 - self.counted(name);
        self.drains_last_hour += of_the_hour;
        self.each_group(name, |count| {
            count.draining += new;
            count.drains_last_hour += of_the_hour;
        });
    }

    /// How many of the drains of the last hour are the one of this Node that is about to begin.
    fn counted(&self, name: &NodeName) -> usize {
        usize::from(self.waiting.contains(name))
    }

    fn last_node(&self, name: &NodeName) -> Option<Hold> {
        let others = self.survivors.len() - usize::from(self.survivors.contains(name));
        (others == 0).then(|| Hold {
            reason: HoldReason::LastNode,
            detail: "no other Node is ready, schedulable and well".to_owned(),
            until: None,
        })
    }

    // A write to the Node itself that failed counts, and must not stand in its own way.
    fn taint_holds(&self, name: &NodeName) -> Vec<Hold> {
        let limits = &self.policy.limits;
        let mut holds = Vec::from_iter(self.last_node(name));
        holds.extend(full(
            HoldReason::TaintedMax,
            "the cluster",
            "tainted",
            self.tainted.len() - usize::from(self.tainted.contains(name)),
            limits.tainted_max,
            self.eligible,
            "tainted_max",
        ));
        for (group, count) in self.counts_of(name) {
            let (limit, key) = match group {
                Group::Zone(_) => (limits.zone_tainted_max, "zone_tainted_max"),
                Group::Pool(_) => (
                    self.pool_limit(group, |limits| limits.tainted_max),
                    "tainted_max",
                ),
            };
            holds.extend(limit.and_then(|limit| {
                full(
                    HoldReason::TaintedMax,
                    &group.to_string(),
                    "tainted",
                    count.tainted - usize::from(self.tainted.contains(name)),
                    limit,
                    count.eligible,
                    key,
                )
            }));
        }
        let one_at_a_time = self.world.nodes.get(name).is_some_and(|node| {
            node.control_plane && self.policy.rules_of(node).control_plane == ControlPlane::Include
        });
        let others = self
            .control_plane_tainted
            .saturating_sub(usize::from(self.tainted.contains(name)));
        if one_at_a_time && others > 0 {
            let detail = "control-plane Nodes are acted on one at a time".to_owned();
            holds.push(Hold {
                reason: HoldReason::ControlPlane,
                detail,
                until: None,
            });
        }
        holds
    }

    fn drain_holds(&self, name: &NodeName) -> Vec<Hold> {
        let limits = &self.policy.limits;
        let mut holds = Vec::from_iter(self.last_node(name));
        holds.extend(full(
            HoldReason::DrainingMax,
            "the cluster",
            "draining",
            self.draining.len() - usize::from(self.draining.contains(name)),
            limits.draining_max,
            self.eligible,
            "draining_max",
        ));
        holds.extend(self.drains_per_hour(
            "the cluster",
            self.drains_last_hour - self.counted(name),
            limits.drains_per_hour,
        ));
        for (group, count) in self.counts_of(name) {
            let (limit, key) = match group {
                Group::Zone(_) => (limits.zone_draining_max, "zone_draining_max"),
                Group::Pool(_) => (
                    self.pool_limit(group, |limits| limits.draining_max),
                    "draining_max",
                ),
            };
            holds.extend(limit.and_then(|limit| {
                full(
                    HoldReason::DrainingMax,
                    &group.to_string(),
                    "draining",
                    count.draining - usize::from(self.draining.contains(name)),
                    limit,
                    count.eligible,
                    key,
                )
            }));
            let per_hour = self.pool_limit(group, |limits| limits.drains_per_hour);
            holds.extend(per_hour.and_then(|max| {
                let used = count.drains_last_hour - self.counted(name);
                self.drains_per_hour(&group.to_string(), used, max)
            }));
        }
        holds
    }

    /// The groups of a Node, with how it stands with each.
    fn counts_of(&self, name: &NodeName) -> impl Iterator<Item = (Group<'a>, Count)> {
        self.groups_of(name).map(|group| {
            let count = self.groups.get(&group).copied().unwrap_or_default();
            (group, count)
        })
    }

    fn pool_limit<T>(&self, group: Group<'_>, of: impl Fn(&PoolLimits) -> Option<T>) -> Option<T> {
        match group {
            Group::Zone(_) => None,
            Group::Pool(name) => self
                .policy
                .pools
                .iter()
                .find(|pool| pool.name == name)
                .and_then(|pool| of(&pool.limits)),
        }
    }

    fn drains_per_hour(&self, place: &str, used: usize, max: u32) -> Option<Hold> {
        (used >= max as usize).then(|| Hold {
            reason: HoldReason::DrainsPerHour,
            detail: format!(
                "{place}: {used} of {max} drains within the hour (policy.limits.drains_per_hour)"
            ),
            until: self.first_drain.map(|first| after(first, HOUR)),
        })
    }

    fn usage(&self, policy: &Policy) -> Usage {
        Usage {
            tainted: self.tainted.len(),
            tainted_max: policy.limits.tainted_max.of(self.eligible),
            draining: self.draining.len(),
            draining_max: policy.limits.draining_max.of(self.eligible),
            drains_last_hour: self.drains_last_hour,
            drains_per_hour: policy.limits.drains_per_hour as usize,
            groups: self.groups_in_use(),
        }
    }

    /// The configured limits of zones and pools.
    fn groups_in_use(&self) -> Vec<GroupUsage> {
        let limits = &self.policy.limits;
        let mut all: Vec<GroupUsage> = Vec::new();
        for (group, count) in &self.groups {
            let (tainted_max, draining_max) = match group {
                Group::Zone(_) => (limits.zone_tainted_max, limits.zone_draining_max),
                Group::Pool(_) => (
                    self.pool_limit(*group, |limits| limits.tainted_max),
                    self.pool_limit(*group, |limits| limits.draining_max),
                ),
            };
            let drains_per_hour = self.pool_limit(*group, |limits| limits.drains_per_hour);
            let of = |limit: Option<Limit>| limit.map(|limit| limit.of(count.eligible));
            let known = [
                ("tainted_max", count.tainted, of(tainted_max)),
                ("draining_max", count.draining, of(draining_max)),
                (
                    "drains_per_hour",
                    count.drains_last_hour,
                    drains_per_hour.map(|max| max as usize),
                ),
            ];
            all.extend(known.into_iter().filter_map(|(limit, used, max)| {
                Some(GroupUsage {
                    group: group.named(),
                    limit,
                    used,
                    max: max?,
                })
            }));
        }
        all.sort_by_key(|usage| usage.max.saturating_sub(usage.used));
        all.truncate(Usage::GROUPS_MAX);
        all.sort();
        all
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
