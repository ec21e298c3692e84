//! A second opinion on every plan, by code that shares nothing but types with the planner.
//!
//! It does not ask what the best plan would be. It goes through the orders one by one, as they will
//! be carried out, and asks of each whether what the operator allows still holds afterwards. Only an
//! [`AuditedPlan`] can be executed, and only this module makes one.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::memory::Memory;
use super::plan::{Cause, MarkOrder, Plan};
use super::policy::{ControlPlane, Limit as Bound, Policy, Pool, Reach, Rules};
use super::world::{Fact, HoldUntil, NodeFacts, OwnWrite, World};
use crate::drain::{Disposition, PodFacts, PodId, classify};
use crate::node::{NodeId, NodeName};
use crate::record::{
    ActingAlert, ClusterRecord, NodeRecord, RecordState, RecordedPhase, TaintEffect,
};
use crate::risk::Risk;
use crate::room::{HOSTNAME, Place, PodTerm, Resources};

/// A plan that has passed the audit.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditedPlan(Plan);

impl AuditedPlan {
    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.0
    }

    /// A plan that does nothing needs no audit.
    pub fn idle(at: Timestamp) -> Self {
        Self(Plan::empty(at))
    }
}

/// What a plan would have broken. The names are those of the configuration or of the holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// Reach `observe` writes nothing.
    Observe,
    /// The plan was made for another world.
    Stale,
    /// The Node is not there, or has another UID.
    Identity,
    /// A write to the Node is under way.
    InFlight,
    /// Two orders for one Node.
    OneOrder,
    /// Somebody has paused foreshock.
    Paused,
    /// A person excluded the Node.
    Excluded,
    /// A person asked to wait.
    HoldUntil,
    /// The record is another's, or the order expects another.
    Ownership,
    /// A mark that is not ours would be touched, or one written that is not in the policy.
    ForeignMark,
    /// A person removed our mark.
    Veto,
    /// Control-plane Nodes are left alone, or acted on one at a time.
    ControlPlane,
    /// The Node is too young.
    NewNode,
    /// Nothing fresh speaks for it.
    Unknown,
    /// A storm is on.
    Storm,
    /// What speaks for it, or the policy, does not reach so far.
    Reach,
    /// Not at risk for long enough.
    Unconfirmed,
    /// It keeps coming back.
    RepeatOffender,
    /// Not tainted for long enough.
    DrainAfter,
    /// Outside every maintenance window.
    Window,
    /// No other Node would be left.
    LastNode,
    /// Too many Nodes tainted.
    TaintedMax,
    /// Too many Nodes draining.
    DrainingMax,
    /// Too many drains within the hour.
    DrainsPerHour,
    /// The Pods of the Node, of one that is being drained, or of one that is to take them, are not known.
    FactsUnknown,
    /// Pods of a Node that is being drained are under the same budget.
    SharedBudget,
    /// A Pod has no place that holds it, or two have the same room.
    NoRoom,
    /// A drain outside its Node's record, by other rules, or beyond its deadline.
    DrainOrder,
    /// The cluster's record would forget something, or not have what is begun.
    ClusterRecord,
    /// The Node would be given back without being well for long enough.
    Recovery,
}

impl Limit {
    /// The name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Stale => "stale",
            Self::Identity => "identity",
            Self::InFlight => "in_flight",
            Self::OneOrder => "one_order",
            Self::Paused => "paused",
            Self::Excluded => "excluded",
            Self::HoldUntil => "hold_until",
            Self::Ownership => "ownership",
            Self::ForeignMark => "foreign_mark",
            Self::Veto => "veto",
            Self::ControlPlane => "control_plane",
            Self::NewNode => "new_node",
            Self::Unknown => "unknown",
            Self::Storm => "storm",
            Self::Reach => "reach",
            Self::Unconfirmed => "unconfirmed",
            Self::RepeatOffender => "repeat_offender",
            Self::DrainAfter => "drain_after",
            Self::Window => "window",
            Self::LastNode => "last_node",
            Self::TaintedMax => "tainted_max",
            Self::DrainingMax => "draining_max",
            Self::DrainsPerHour => "drains_per_hour",
            Self::FactsUnknown => "facts_unknown",
            Self::SharedBudget => "shared_budget",
            Self::NoRoom => "no_room",
            Self::DrainOrder => "drain_order",
            Self::ClusterRecord => "cluster_record",
            Self::Recovery => "recovery",
        }
    }
}

/// Why a plan is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("plan refused by {}: {}", .limit.as_str(), .detail)]
pub struct Refusal {
    /// The limit that it would have broken.
    pub limit: Limit,
    /// Which order, in words.
    pub detail: String,
}

/// Goes through a plan and passes it, or says everything that is wrong with it. A plan with a single
/// fault is refused whole: whoever made it was wrong about something.
///
/// # Errors
///
/// Every [`Refusal`], in the order in which the faults were met.
pub fn audit(
    policy: &Policy,
    memory: &Memory,
    world: &World,
    plan: Plan,
) -> Result<AuditedPlan, Vec<Refusal>> {
    let mut audit = Audit::start(policy, memory, world);
    if plan.at != world.at {
        audit.refuse(
            Limit::Stale,
            format!("made for {}, asked at {}", plan.at, world.at),
        );
    }
    if audit.observes()
        && (!plan.marks.is_empty() || !plan.drains.is_empty() || plan.cluster.is_some())
    {
        audit.refuse(Limit::Observe, "it writes something".to_owned());
    }
    let mut seen = BTreeSet::new();
    for order in &plan.marks {
        if !seen.insert(&order.node.name) {
            audit.refuse(Limit::OneOrder, order.node.to_string());
        }
        audit.mark(order, &plan.places);
    }
    for order in &plan.drains {
        audit.drain(order);
    }
    audit.cluster_record(&plan);
    if audit.refusals.is_empty() {
        Ok(AuditedPlan(plan))
    } else {
        Err(audit.refusals)
    }
}

/// Where the Pods of the Nodes whose drains begin are said to fit.
type Places = BTreeMap<NodeName, Vec<Place>>;

/// The cluster as it will be while the orders are carried out one after the other.
struct Audit<'a> {
    policy: &'a Policy,
    memory: &'a Memory,
    world: &'a World,
    tainted: Counted<'a>,
    draining: Counted<'a>,
    /// Nodes that are Ready and not cordoned.
    eligible: Counted<'a>,
    begun: Vec<(Timestamp, NodeId)>,
    /// Nodes on which a taint or a drain is begun.
    beginnings: Vec<NodeId>,
    refusals: Vec<Refusal>,
}

/// Nodes, counted by zone and pool as well.
#[derive(Default)]
struct Counted<'a> {
    names: BTreeSet<&'a NodeName>,
    zones: BTreeMap<Option<&'a str>, usize>,
    pools: BTreeMap<Option<&'a str>, usize>,
}

impl<'a> Counted<'a> {
    fn insert(&mut self, node: &'a NodeFacts) {
        if self.names.insert(&node.id.name) {
            *self.zones.entry(node.zone.as_deref()).or_default() += 1;
            *self.pools.entry(node.pool.as_deref()).or_default() += 1;
        }
    }

    fn remove(&mut self, node: &'a NodeFacts) {
        if self.names.remove(&node.id.name) {
            let counts = [
                self.zones.get_mut(&node.zone.as_deref()),
                self.pools.get_mut(&node.pool.as_deref()),
            ];
            for count in counts.into_iter().flatten() {
                *count -= 1;
            }
        }
    }

    fn contains(&self, name: &NodeName) -> bool {
        self.names.contains(name)
    }

    fn in_zone(&self, node: &NodeFacts) -> usize {
        self.zones.get(&node.zone.as_deref()).copied().unwrap_or(0)
    }

    fn in_pool(&self, node: &NodeFacts) -> usize {
        self.pools.get(&node.pool.as_deref()).copied().unwrap_or(0)
    }
}

impl<'a> Audit<'a> {
    fn start(policy: &'a Policy, memory: &'a Memory, world: &'a World) -> Self {
        let mut audit = Self {
            policy,
            memory,
            world,
            tainted: Counted::default(),
            draining: Counted::default(),
            eligible: Counted::default(),
            begun: Vec::new(),
            beginnings: Vec::new(),
            refusals: Vec::new(),
        };
        for (name, node) in &world.nodes {
            if node.ready && !node.cordoned {
                audit.eligible.insert(node);
            }
            let in_flight = match world.writes.get(name) {
                Some(
                    OwnWrite::InFlight { taints, drains } | OwnWrite::Failed { taints, drains, .. },
                ) => (*taints, *drains),
                _ => (false, false),
            };
            if let RecordState::Ours(record) = &node.record {
                if record.phase != RecordedPhase::Clear {
                    audit.tainted.insert(node);
                }
                if record.phase == RecordedPhase::Draining {
                    audit.draining.insert(node);
                }
            }
            let rules = audit.rules(node);
            let unreadable = matches!(node.record, RecordState::Unreadable { .. })
                && node.taints.contains(&rules.taint);
            if in_flight.0 || in_flight.1 || unreadable {
                audit.tainted.insert(node);
            }
            if in_flight.1 {
                audit.draining.insert(node);
            }
        }
        audit
    }

    fn refuse(&mut self, limit: Limit, detail: String) {
        self.refusals.push(Refusal { limit, detail });
    }

    fn require(&mut self, met: bool, limit: Limit, detail: &str) {
        if !met {
            self.refuse(limit, detail.to_owned());
        }
    }

    // ---- one order ----

    fn mark(&mut self, order: &MarkOrder, places: &Places) {
        let what = format!("{} of {}", order.cause.as_str(), order.node);
        let Some((name, node)) = self
            .world
            .nodes
            .get_key_value(&order.node.name)
            .filter(|(_, node)| node.id == order.node)
        else {
            return self.refuse(Limit::Identity, what);
        };
        self.hands_off(node, &what);
        self.ownership(node, order, &what);
        let after = order.record.as_deref();
        let phase = after.map_or(RecordedPhase::Clear, |record| record.phase);
        let before = match &node.record {
            RecordState::Ours(record) => record.phase,
            _ => RecordedPhase::Clear,
        };
        match (before, phase) {
            (RecordedPhase::Clear, RecordedPhase::Clear) => self.level(node, order, &what),
            (RecordedPhase::Clear, RecordedPhase::Tainted) => {
                self.beginning(node, Reach::Taint, &what);
                self.tainting(name, node, &what);
            }
            (RecordedPhase::Tainted, RecordedPhase::Draining) => {
                self.beginning(node, Reach::Evict, &what);
                self.starting_drain(name, node, order, &what);
                self.moving(name, places.get(name).map_or(&[], Vec::as_slice), &what);
            }
            (_, RecordedPhase::Clear) => {
                self.release(node, order, &what);
                self.tainted.remove(node);
                self.draining.remove(node);
            }
            (RecordedPhase::Draining, RecordedPhase::Drained | RecordedPhase::Tainted) => {
                self.draining.remove(node);
            }
            (before, after) if before == after => {}
            (before, after) => {
                let detail = format!(
                    "{what}: {} cannot become {}",
                    before.as_str(),
                    after.as_str()
                );
                self.refuse(Limit::Ownership, detail);
            }
        }
    }

    /// What holds for every write, clean-up included.
    fn hands_off(&mut self, node: &NodeFacts, what: &str) {
        let in_flight = matches!(
            self.world.writes.get(&node.id.name),
            Some(OwnWrite::InFlight { .. })
        );
        self.require(!in_flight, Limit::InFlight, what);
        self.require(!self.world.paused, Limit::Paused, what);
        self.require(!node.excluded, Limit::Excluded, what);
        let waits = match &node.hold_until {
            None => false,
            Some(HoldUntil::Malformed(_)) => true,
            Some(HoldUntil::Time(until)) => *until > self.world.at,
        };
        self.require(!waits, Limit::HoldUntil, what);
    }

    fn ownership(&mut self, node: &NodeFacts, order: &MarkOrder, what: &str) {
        let standing: Option<&NodeRecord> = match &node.record {
            RecordState::Ours(record) => Some(record),
            RecordState::Absent | RecordState::OtherUid => None,
            RecordState::Foreign { .. } | RecordState::Unreadable { .. } => {
                return self.refuse(
                    Limit::Ownership,
                    format!("{what}: its record is not ours to change"),
                );
            }
        };
        self.require(
            standing == order.expects.as_deref(),
            Limit::Ownership,
            &format!("{what}: expects another record"),
        );
        if let Some(record) = &order.record {
            let ours = record.instance == self.policy.instance && record.uid == node.id.uid;
            self.require(
                ours,
                Limit::Ownership,
                &format!("{what}: writes a record of somebody else"),
            );
            let consistent = record.marks.taint.is_some() == (record.phase != RecordedPhase::Clear);
            self.require(
                consistent,
                Limit::Ownership,
                &format!("{what}: taint and phase disagree"),
            );
        }
        // Whoever is to scale a Deployment back knows of it from here alone.
        let surges = |record: Option<&NodeRecord>| {
            record.map_or_else(Vec::new, |record| record.surges.clone())
        };
        self.require(
            surges(standing) == surges(order.record.as_deref()),
            Limit::Ownership,
            &format!("{what}: forgets a Deployment that is scaled up"),
        );
        let rules = self.rules(node);
        for taint in order.taints_added() {
            let wanted = *taint == rules.taint || Some(taint) == rules.caution_taint.as_ref();
            // A mark of our own may give way to it in the same patch.
            let removed = order.taints_removed();
            let free = !node.taints.iter().any(|there| {
                there.key == taint.key && there.effect == taint.effect && !removed.contains(&there)
            });
            let fit = wanted && free && taint.effect != TaintEffect::NoExecute;
            self.require(fit, Limit::ForeignMark, &format!("{what}: adds {taint}"));
        }
    }

    fn level(&mut self, node: &NodeFacts, order: &MarkOrder, what: &str) {
        let marks = |record: Option<&NodeRecord>| {
            record
                .map(|record| record.marks.clone())
                .unwrap_or_default()
        };
        let (before, after) = (
            marks(order.expects.as_deref()),
            marks(order.record.as_deref()),
        );
        let adds_taint = after.caution_taint.is_some() && before.caution_taint.is_none();
        let adds_label = after.label > before.label;
        if !adds_taint && !adds_label {
            return;
        }
        self.untouchable(node, what);
        self.require(self.memory.storm.is_none(), Limit::Storm, what);
        let needs = if adds_taint {
            Reach::Taint
        } else {
            Reach::Label
        };
        self.require(
            self.reach_from(node, self.rules(node).caution) >= needs,
            Limit::Reach,
            what,
        );
    }

    /// Nodes that are left alone, whatever speaks for acting.
    fn untouchable(&mut self, node: &NodeFacts, what: &str) {
        let rules = self.rules(node);
        let excluded = node.control_plane && rules.control_plane == ControlPlane::Exclude;
        self.require(!excluded, Limit::ControlPlane, what);
        let age = self.world.at.duration_since(node.created_at);
        let young = age
            < jiff::SignedDuration::try_from(rules.new_node_age)
                .unwrap_or(jiff::SignedDuration::MAX);
        self.require(!young, Limit::NewNode, what);
        self.require(
            node.taken_by.is_none() && !node.cordoned,
            Limit::ForeignMark,
            what,
        );
        if let RecordState::Ours(record) = &node.record {
            let vetoed = record.veto_until.is_some_and(|until| until > self.world.at);
            self.require(!vetoed, Limit::Veto, what);
        }
    }

    fn beginning(&mut self, node: &NodeFacts, needs: Reach, what: &str) {
        self.untouchable(node, what);
        self.require(self.memory.storm.is_none(), Limit::Storm, what);
        self.require(self.world.cluster.is_some(), Limit::ClusterRecord, what);
        let known = self.model_risk(node).is_some() || self.floors(node).next().is_some();
        self.require(known, Limit::Unknown, what);
        let above = self.rules(node).at_risk;
        if self.reach_over(node, above, true) < needs {
            let limit = if self.reach_over(node, above, false) >= needs {
                Limit::Unconfirmed
            } else {
                Limit::Reach
            };
            self.refuse(limit, what.to_owned());
        }
        if let RecordState::Ours(record) = &node.record {
            let rules = self.rules(node);
            let window = rules.repeat_window.as_secs_f64();
            let recent =
                |at: &&Timestamp| self.world.at.duration_since(**at).as_secs_f64() < window;
            let repeats = record.repeats.iter().filter(recent).count();
            self.require(
                repeats <= rules.repeat_max as usize,
                Limit::RepeatOffender,
                what,
            );
        }
    }

    fn tainting(&mut self, name: &'a NodeName, node: &'a NodeFacts, what: &str) {
        self.last_node(name, what);
        self.beginnings.push(node.id.clone());
        if node.control_plane {
            let others = self.tainted.names.iter().any(|name| {
                self.world
                    .nodes
                    .get(*name)
                    .is_some_and(|node| node.control_plane)
            });
            self.require(!others, Limit::ControlPlane, what);
        }
        self.tainted.insert(node);
        let limits = &self.policy.limits;
        let (cluster, zone) = (Some(limits.tainted_max), limits.zone_tainted_max);
        let pool = self.pool(node).and_then(|pool| pool.limits.tainted_max);
        let fits = self.within(node, &self.tainted, [cluster, zone, pool]);
        self.require(fits, Limit::TaintedMax, what);
    }

    fn starting_drain(
        &mut self,
        name: &'a NodeName,
        node: &'a NodeFacts,
        order: &MarkOrder,
        what: &str,
    ) {
        self.last_node(name, what);
        if let RecordState::Ours(record) = &node.record {
            let waited = self.world.at.duration_since(record.since).as_secs_f64();
            let waits =
                record.drain.is_none() && waited < self.rules(node).drain_after.as_secs_f64();
            self.require(!waits, Limit::DrainAfter, what);
            let attempts = order
                .record
                .as_ref()
                .and_then(|record| record.drain.as_ref())
                .map_or(u32::MAX, |drain| drain.attempts);
            self.require(
                attempts <= Policy::DRAIN_ATTEMPTS_MAX,
                Limit::DrainOrder,
                what,
            );
        }
        let windows = &self.rules(node).windows;
        let open =
            windows.is_empty() || windows.iter().any(|window| window.contains(self.world.at));
        self.require(open, Limit::Window, what);
        self.draining.insert(node);
        let start = order
            .record
            .as_ref()
            .and_then(|record| record.drain.as_ref())
            .map_or(Timestamp::MAX, |drain| drain.started_at);
        self.require(
            start == self.world.at || self.waits(node, start),
            Limit::ClusterRecord,
            &format!("{what}: another time than now"),
        );
        self.begun.push((start, node.id.clone()));
        self.beginnings.push(node.id.clone());
        let limits = &self.policy.limits;
        let (cluster, zone) = (Some(limits.draining_max), limits.zone_draining_max);
        let pool = self.pool(node).and_then(|pool| pool.limits.draining_max);
        let fits = self.within(node, &self.draining, [cluster, zone, pool]);
        self.require(fits, Limit::DrainingMax, what);
        let per_hour = |max: u32, of_pool: Option<&str>| {
            let begun = self.begun.iter().map(|(_, node)| &node.name);
            let earlier = self.recent_drains().filter(|key| !self.is_begun(key));
            let earlier = earlier.map(|(_, name)| name);
            let counts = |name: &&NodeName| {
                let pool = self.world.nodes.get(*name).map(|node| node.pool.as_deref());
                of_pool.is_none() || pool.is_none_or(|pool| pool == of_pool)
            };
            earlier.chain(begun).filter(counts).count() <= max as usize
        };
        let fits = per_hour(limits.drains_per_hour, None)
            && self.pool(node).is_none_or(|pool| {
                let max = pool.limits.drains_per_hour;
                max.is_none_or(|max| per_hour(max, Some(&pool.name)))
            });
        self.require(fits, Limit::DrainsPerHour, what);
    }

    /// The Pods of a Node whose drain begins: nobody else moves Pods under their budgets, and where they
    /// are said to fit there is room for all of them, those of the other drains included.
    fn moving(&mut self, name: &'a NodeName, places: &[Place], what: &str) {
        let mut moved: Vec<(&'a NodeFacts, &'a PodFacts)> = Vec::new();
        let world = self.world;
        let own = world.nodes.get(name).map(|node| self.known_pods(node));
        let goes = |pod: &&PodFacts| classify(pod, &self.policy.drain) == Disposition::Evict;
        if let Some(Some(pods)) = own
            && !pods.iter().any(|pod| goes(&pod))
        {
            // Nothing moves, so nobody is in the way of anything.
            return;
        }
        let draining: Vec<&'a NodeName> = self.draining.names.iter().copied().collect();
        for other in draining {
            let Some(node) = world.nodes.get(other) else {
                continue;
            };
            let Some(pods) = self.known_pods(node) else {
                let detail = format!("{what}: the Pods of {other} are not known");
                return self.refuse(Limit::FactsUnknown, detail);
            };
            moved.extend(pods.iter().filter(goes).map(|pod| (node, pod)));
        }
        let covers = |node: &NodeName| -> BTreeSet<(&str, &str)> {
            let pods = moved.iter().filter(|(of, _)| of.id.name == *node);
            pods.flat_map(|(_, pod)| {
                let names = pod.budgets.iter().map(|budget| budget.name.as_str());
                names.map(|name| (pod.id.namespace.as_str(), name))
            })
            .collect()
        };
        let own = covers(name);
        let shared = self
            .draining
            .names
            .iter()
            .filter(|other| **other != name)
            .any(|other| !covers(other).is_disjoint(&own));
        self.require(!shared, Limit::SharedBudget, what);
        moved.retain(|(_, pod)| pod.owner.is_some() && !pod.daemon_set_gone);
        self.room(name, &moved, places, what);
    }

    fn room(
        &mut self,
        name: &NodeName,
        moved: &[(&'a NodeFacts, &'a PodFacts)],
        places: &[Place],
        what: &str,
    ) {
        let mut on: BTreeMap<&NodeName, Vec<(&'a NodeFacts, &'a PodFacts)>> = BTreeMap::new();
        let mut placed: BTreeSet<&PodId> = BTreeSet::new();
        for place in places {
            let pod = moved.iter().find(|(_, pod)| pod.id == place.pod);
            let once = placed.insert(&place.pod);
            let detail = format!("{what}: {} on {}", place.pod, place.on);
            match pod {
                Some(pod) if once => on.entry(&place.on).or_default().push(*pod),
                Some(_) | None => self.refuse(Limit::NoRoom, detail),
            }
        }
        for (of, pod) in moved.iter().filter(|(of, _)| of.id.name == *name) {
            let has = placed.contains(&pod.id);
            self.require(
                has,
                Limit::NoRoom,
                &format!("{what}: {} on {}", pod.id, of.id),
            );
        }
        for (target, arriving) in on {
            let detail = format!("{what}: on {target}");
            let Some(node) = self
                .world
                .nodes
                .get(target)
                .filter(|node| self.holds_pods(node))
            else {
                self.refuse(Limit::NoRoom, format!("{detail}, which takes no Pods"));
                continue;
            };
            let Some(there) = self.known_pods(node) else {
                self.refuse(Limit::FactsUnknown, detail);
                continue;
            };
            let there: Vec<&PodFacts> = there.iter().filter(|pod| !pod.finished).collect();
            // Its room may be needed by a Pod of another drain that the plan has forgotten.
            let forgotten = moved.iter().find(|(from, pod)| {
                let mut load = pod.needs.requests.clone();
                there.iter().for_each(|pod| load.add(&pod.needs.requests));
                !placed.contains(&pod.id)
                    && pod.needs.requests.iter().all(|(resource, amount)| {
                        amount == 0 || load.of(resource) <= node.allocatable.of(resource)
                    })
                    && self.lets_in(node, from, pod)
                    && gets_along(node, from, pod, &there)
            });
            if let Some((_, pod)) = forgotten {
                self.refuse(Limit::NoRoom, format!("{detail}: {} may need it", pod.id));
            }
            let mut load = Resources::default();
            let arrived = arriving.iter().map(|(_, pod)| *pod);
            for pod in there.iter().copied().chain(arrived) {
                load.add(&pod.needs.requests);
            }
            let asked = |resource: &str| {
                let mut all = arriving.iter();
                all.any(|(_, pod)| pod.needs.requests.of(resource) > 0)
            };
            let over = load.iter().find(|(resource, amount)| {
                asked(resource) && *amount > node.allocatable.of(resource)
            });
            if let Some((resource, _)) = over {
                self.refuse(Limit::NoRoom, format!("{detail}: not enough {resource}"));
            }
            for (index, (from, pod)) in arriving.iter().enumerate() {
                let before = arriving[..index].iter().map(|(_, pod)| *pod);
                let beside: Vec<&PodFacts> = there.iter().copied().chain(before).collect();
                let fits = self.lets_in(node, from, pod) && gets_along(node, from, pod, &beside);
                self.require(fits, Limit::NoRoom, &format!("{detail}: {}", pod.id));
            }
        }
    }

    fn known_pods(&self, node: &'a NodeFacts) -> Option<&'a [PodFacts]> {
        match &node.pods {
            Fact::Assumed(pods) => Some(pods),
            Fact::Known(at, pods) => {
                let age = self.world.at.duration_since(*at).as_secs_f64();
                (age <= self.policy.facts_age_max.as_secs_f64()).then_some(pods)
            }
            Fact::Unknown => None,
        }
    }

    /// A Node that may take the Pods of others.
    fn holds_pods(&self, node: &NodeFacts) -> bool {
        node.ready
            && !node.cordoned
            && node.taken_by.is_none()
            && !self.tainted.contains(&node.id.name)
            && !self.at_risk(node)
    }

    fn at_risk(&self, node: &NodeFacts) -> bool {
        let floor = self.floors(node).map(|(floor, _)| floor).max();
        self.model_risk(node)
            .max(floor)
            .is_some_and(|risk| risk > self.rules(node).at_risk)
    }

    /// What a Node's labels, taints and name say about a Pod from another.
    fn lets_in(&self, node: &NodeFacts, from: &NodeFacts, pod: &PodFacts) -> bool {
        let needs = &pod.needs;
        let (name, labels) = (&node.id.name, &*node.labels);
        let removed = |taint: &crate::record::Taint| match &node.record {
            // The Node counts as released, so what is ours of its taints is gone by then.
            RecordState::Ours(record) => {
                record.phase != RecordedPhase::Clear && record.marks.taint.as_ref() == Some(taint)
            }
            _ => false,
        };
        let tolerated = node
            .taints
            .iter()
            .all(|taint| removed(taint) || !needs.kept_out_by(taint));
        let affinities = needs.node_affinity.iter();
        let reachable = needs.volumes.iter().map(|volume| &volume.terms);
        let meant = affinities
            .chain(reachable)
            .all(|terms| terms.iter().any(|term| term.matches(name, labels)));
        let selected = needs
            .node_selector
            .iter()
            .all(|one| labels.get(one.0) == Some(one.1));
        let keys = needs
            .apart
            .iter()
            .chain(&needs.together)
            .chain(needs.spread.iter().map(|spread| &spread.over))
            .map(|term| term.topology_key.as_str());
        let same_domains = keys
            .filter(|key| *key != HOSTNAME)
            .all(|key| labels.contains_key(key) && labels.get(key) == from.labels.get(key));
        needs.uncountable.is_empty() && tolerated && meant && selected && same_domains
    }

    fn release(&mut self, node: &NodeFacts, order: &MarkOrder, what: &str) {
        let RecordState::Ours(record) = &node.record else {
            return;
        };
        // Where a person has taken the taint off, the record only follows.
        let still_there = record
            .marks
            .taint
            .as_ref()
            .is_some_and(|taint| node.taints.contains(taint));
        if !still_there && order.cause == Cause::Veto {
            return;
        }
        let below = self.rules(node).recover_below;
        let well = self.model_risk(node).is_some_and(|risk| risk < below)
            && self.floors(node).all(|(floor, _)| floor < below);
        let since = self
            .memory
            .nodes
            .get(&node.id)
            .and_then(|memory| memory.well_since);
        let long = since.is_some_and(|since| {
            self.world.at.duration_since(since).as_secs_f64()
                >= self.rules(node).recover_for.as_secs_f64()
        });
        let odd = self
            .world
            .scores
            .get(&node.id.name)
            .is_some_and(|score| score.out_of_range.is_some());
        self.require(well && long && !odd, Limit::Recovery, what);
    }

    fn drain(&mut self, order: &crate::drain::DrainOrder) {
        let what = format!("drain of {}", order.node);
        let Some(node) = self
            .world
            .nodes
            .get(&order.node.name)
            .filter(|node| node.id == order.node)
        else {
            return self.refuse(Limit::Identity, what);
        };
        let RecordState::Ours(record) = &node.record else {
            return self.refuse(Limit::DrainOrder, what);
        };
        let started = record
            .drain
            .as_ref()
            .filter(|drain| drain.ended.is_none())
            .map(|drain| drain.started_at);
        let in_record =
            record.phase == RecordedPhase::Draining && started == Some(order.started_at);
        let marked = record
            .marks
            .taint
            .as_ref()
            .is_some_and(|taint| node.taints.contains(taint));
        let longest = order
            .deadline_at
            .duration_since(order.started_at)
            .as_secs_f64();
        let bounded = longest <= self.policy.drain.deadline.as_secs_f64();
        let by_rule = order.rules == self.policy.drain;
        self.require(
            in_record && marked && bounded && by_rule,
            Limit::DrainOrder,
            &what,
        );
        if !order.sends {
            return;
        }
        self.hands_off(node, &what);
        self.require(self.memory.storm.is_none(), Limit::Storm, &what);
        self.require(self.world.cluster.is_some(), Limit::ClusterRecord, &what);
        self.require(node.taken_by.is_none(), Limit::ForeignMark, &what);
        let known = self.model_risk(node).is_some() || self.floors(node).next().is_some();
        self.require(known, Limit::Unknown, &what);
        self.require(
            self.reach_from(node, self.rules(node).recover_below) >= Reach::Evict,
            Limit::Reach,
            &what,
        );
    }

    fn cluster_record(&mut self, plan: &Plan) {
        let Some(standing) = &self.world.cluster else {
            return self.require(
                plan.cluster.is_none(),
                Limit::ClusterRecord,
                "replaces a record that could not be read",
            );
        };
        let next: &ClusterRecord = plan.cluster.as_ref().unwrap_or(standing);
        let recent = |at: Timestamp| self.world.at.duration_since(at).abs().as_secs_f64() < 3600.0;
        let forgets = standing
            .drains
            .keys()
            .any(|key| recent(key.0) && self.came_to_be(key) && !next.drains.contains_key(key));
        let begun = std::mem::take(&mut self.begun);
        let lacks = begun
            .iter()
            .any(|(at, node)| next.drains.get(&(*at, node.name.clone())) != Some(&node.uid));
        self.require(
            !forgets,
            Limit::ClusterRecord,
            "forgets a drain of the last hour",
        );
        self.require(
            !lacks,
            Limit::ClusterRecord,
            "a drain begins that is not in it",
        );
        if self.observes() {
            return;
        }
        let hides = self.memory.storm.is_some() && next.storm.is_none();
        self.require(
            !hides,
            Limit::ClusterRecord,
            "does not say that a storm is on",
        );
        self.require(
            next.ramp == self.memory.ramp,
            Limit::ClusterRecord,
            "does not say how many Nodes may be begun on after a storm",
        );
        self.ramp(standing);
    }

    /// After a storm: nothing is begun but on the Nodes that the ramp names, and it widens only by doubling.
    fn ramp(&mut self, standing: &ClusterRecord) {
        let Some(ramp) = &self.memory.ramp else {
            return;
        };
        let outside = self
            .beginnings
            .iter()
            .find(|node| ramp.nodes.get(&node.name) != Some(&node.uid));
        let outside = outside.map(|node| format!("begins on {node}, which is not in the ramp"));
        if let Some(detail) = outside {
            self.refuse(Limit::Storm, detail);
        }
        let before = standing.ramp.as_ref();
        let widest = before.map_or(1, |before| before.width.max(1).saturating_mul(2));
        self.require(
            ramp.width <= widest,
            Limit::Storm,
            "the ramp more than doubles",
        );
        // Drains that the storm has interrupted are in it as well.
        let is_new = |node: &&NodeId| {
            before.is_none_or(|before| before.nodes.get(&node.name) != Some(&node.uid))
        };
        let begins_anew = self.beginnings.iter().any(|node| is_new(&node));
        let crowded = ramp.nodes.len() > ramp.width as usize && begins_anew;
        self.require(
            !crowded,
            Limit::Storm,
            "more Nodes are begun on than the ramp is wide",
        );
    }

    // ---- what the world says ----

    /// The model's word, if it is about this Node and fresh.
    fn model_risk(&self, node: &NodeFacts) -> Option<Risk> {
        let score = self.world.scores.get(&node.id.name)?;
        let age = self.world.at.duration_since(score.at).as_secs_f64();
        let fresh = (-1.0..=self.policy.score_age_max.as_secs_f64()).contains(&age)
            && score.at >= node.created_at;
        score.risk.ok().filter(|_| fresh)
    }

    /// Floors of the alerts that count, with their reach.
    fn floors<'b>(&'b self, node: &'b NodeFacts) -> impl Iterator<Item = (Risk, Reach)> + 'b {
        let heard = self.world.alerts.get(&node.id.name).into_iter().flatten();
        let kept = match &node.record {
            RecordState::Ours(record) => record.alerts.as_slice(),
            _ => &[],
        };
        // What is heard now of an alert counts, and not what the record has kept of it.
        let stale = |alert: &&ActingAlert| {
            let heard = self.world.alerts.get(&node.id.name).into_iter().flatten();
            !heard
                .map(|heard| &heard.fingerprint)
                .any(|fingerprint| *fingerprint == alert.fingerprint)
        };
        heard
            .chain(kept.iter().filter(stale))
            .filter(|alert| alert.expires_at > self.world.at && alert.starts_at >= node.created_at)
            .filter(|alert| {
                self.world
                    .resolved
                    .get(&alert.fingerprint)
                    .is_none_or(|started| *started < alert.starts_at)
            })
            .map(|alert| (alert.floor, alert.reach))
    }

    fn reach_where(
        &self,
        node: &NodeFacts,
        speaks: impl Fn(Risk) -> bool,
        confirmed_only: bool,
    ) -> Reach {
        let alerts = self
            .floors(node)
            .filter(|(floor, _)| speaks(*floor))
            .map(|(_, reach)| reach)
            .max();
        let confirmed = !confirmed_only || {
            let since = self
                .memory
                .nodes
                .get(&node.id)
                .and_then(|memory| memory.model_at_risk_since);
            since.is_some_and(|since| {
                self.world.at.duration_since(since).as_secs_f64()
                    >= self.rules(node).confirm_for.as_secs_f64()
            })
        };
        let model = self
            .model_risk(node)
            .filter(|risk| speaks(*risk) && confirmed);
        let out_of_range = self
            .world
            .scores
            .get(&node.id.name)
            .is_some_and(|score| score.out_of_range.is_some());
        let model = model.map(|_| {
            if out_of_range || self.world.drift.is_some() {
                Reach::Observe
            } else if self.policy.model_trusted {
                Reach::Evict
            } else {
                Reach::Label
            }
        });
        alerts
            .max(model)
            .unwrap_or(Reach::Observe)
            .min(self.rules(node).reach)
    }

    /// The furthest that evidence above a threshold goes.
    fn reach_over(&self, node: &NodeFacts, threshold: Risk, confirmed_only: bool) -> Reach {
        self.reach_where(node, |risk| risk > threshold, confirmed_only)
    }

    /// The furthest that evidence at or above a threshold goes, confirmed or not.
    fn reach_from(&self, node: &NodeFacts, threshold: Risk) -> Reach {
        self.reach_where(node, |risk| risk >= threshold, false)
    }

    fn pool(&self, node: &NodeFacts) -> Option<&'a Pool> {
        self.policy
            .pools
            .iter()
            .find(|pool| Some(&pool.name) == node.pool.as_ref())
    }

    fn rules(&self, node: &NodeFacts) -> &'a Rules {
        self.pool(node)
            .map_or(&self.policy.rules, |pool| &pool.rules)
    }

    fn observes(&self) -> bool {
        let pools = self.policy.pools.iter().map(|pool| &pool.rules);
        pools
            .chain([&self.policy.rules])
            .all(|rules| rules.reach == Reach::Observe)
    }

    /// Whether these Nodes are within the limits of the cluster, of this Node's zone and its pool.
    fn within(
        &self,
        node: &NodeFacts,
        these: &Counted<'_>,
        [cluster, zone, pool]: [Option<Bound>; 3],
    ) -> bool {
        let fits = |bound: Option<Bound>, there: usize, base: usize| {
            bound.is_none_or(|bound| there <= bound.of(base))
        };
        let all = &self.eligible;
        fits(cluster, these.names.len(), all.names.len())
            && fits(zone, these.in_zone(node), all.in_zone(node))
            && fits(pool, these.in_pool(node), all.in_pool(node))
    }

    /// Nodes on which a drain was started within the hour.
    fn recent_drains(&self) -> impl Iterator<Item = &'a (Timestamp, NodeName)> {
        let now = self.world.at;
        let drains = self
            .world
            .cluster
            .iter()
            .flat_map(|cluster| cluster.drains.keys());
        drains
            .filter(move |(at, _)| now.duration_since(*at).abs().as_secs_f64() < 3600.0)
            .filter(|key| self.came_to_be(key))
    }

    /// Whether this entry of the cluster's record is a start that the plan makes.
    fn is_begun(&self, (at, name): &(Timestamp, NodeName)) -> bool {
        let mut begun = self.begun.iter();
        begun.any(|(start, node)| start == at && node.name == *name)
    }

    /// Whether a start from some seconds ago is on the cluster's record and still to be made.
    fn waits(&self, node: &NodeFacts, start: Timestamp) -> bool {
        let recorded = self
            .world
            .cluster
            .as_ref()
            .and_then(|cluster| cluster.drains.get(&(start, node.id.name.clone())));
        let age = self.world.at.duration_since(start).as_secs_f64();
        let RecordState::Ours(record) = &node.record else {
            return false;
        };
        let made = |drain: &crate::record::DrainRecord| drain.started_at >= start;
        recorded == Some(&node.id.uid)
            && (0.0..10.0).contains(&age)
            && record.since < start
            && !record.drain.as_ref().is_some_and(made)
    }

    /// Whether a drain on the cluster's record was started on its Node too, as far as can be told: an entry
    /// that is younger than the Node's taint, on a Node that has only the taint, is one whose mark failed.
    fn came_to_be(&self, (at, name): &(Timestamp, NodeName)) -> bool {
        let Some(RecordState::Ours(record)) = self.world.nodes.get(name).map(|node| &node.record)
        else {
            return true;
        };
        let settled = self.world.at.duration_since(*at).as_secs_f64() >= 300.0;
        let later_drain = record
            .drain
            .as_ref()
            .is_some_and(|drain| drain.started_at >= *at);
        !settled || record.phase != RecordedPhase::Tainted || record.since >= *at || later_drain
    }

    fn last_node(&mut self, name: &NodeName, what: &str) {
        let ours = |node: &NodeFacts, taint: &crate::record::Taint| match &node.record {
            RecordState::Ours(record) => record.marks.taint.as_ref() == Some(taint),
            _ => false,
        };
        let can_work = |(other, node): (&NodeName, &NodeFacts)| {
            let blocked = node.taints.iter().any(|taint| {
                taint.effect != TaintEffect::PreferNoSchedule
                    && (self.tainted.contains(other) || !ours(node, taint))
            });
            other != name
                && node.ready
                && !node.cordoned
                && node.taken_by.is_none()
                && !blocked
                && !self.tainted.contains(other)
        };
        let left = self
            .world
            .nodes
            .iter()
            .any(|(other, node)| can_work((other, node)) && !self.at_risk(node));
        self.require(left, Limit::LastNode, what);
    }
}

/// What the Pods of a Node say about one more.
fn gets_along(node: &NodeFacts, from: &NodeFacts, pod: &PodFacts, beside: &[&PodFacts]) -> bool {
    let needs = &pod.needs;
    let means =
        |term: &PodTerm, other: &PodFacts| term.matches(&other.id.namespace, &other.needs.labels);
    let avoids = |other: &PodFacts| {
        let mut terms = needs.apart.iter();
        terms.any(|term| term.topology_key == HOSTNAME && means(term, other))
    };
    let is_avoided = |other: &PodFacts| {
        other.needs.apart.iter().any(|term| {
            let (here, there) = (&node.labels, &from.labels);
            let new = here.get(&term.topology_key) != there.get(&term.topology_key);
            (term.topology_key == HOSTNAME || new) && means(term, pod)
        })
    };
    let peace = beside.iter().all(|other| {
        let ports = other.needs.host_ports.iter();
        let clash = ports
            .flat_map(|port| needs.host_ports.iter().map(move |own| (port, own)))
            .any(|(port, own)| port.collides_with(own));
        !clash && !avoids(other) && !is_avoided(other)
    });
    let company = needs.together.iter().all(|term| {
        term.topology_key != HOSTNAME
            || beside
                .iter()
                .any(|other| term.matches(&other.id.namespace, &other.needs.labels))
    });
    let even = needs.spread.iter().all(|spread| {
        let like = beside.iter().filter(|other| {
            other.terminating_until.is_none()
                && spread
                    .over
                    .matches(&other.id.namespace, &other.needs.labels)
        });
        spread.over.topology_key != HOSTNAME || like.count() < spread.skew_max as usize
    });
    peace && company && even
}
