//! The judge: what must never happen, told from the history of writes and from the truth.
//!
//! It shares types with the program and nothing else: no plan, no verdict but where one is judged
//! itself, no count of the planner. Where the program cannot have known better (a watch is seconds
//! behind, a machine's clock was set), the judge gives that much time and no more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use foreshock_core::decision::Decision;
use foreshock_core::decision::world::{HoldUntil, NodeFacts};
use foreshock_core::drain::{Answer, PodId};
use foreshock_core::node::{NodeName, Uid};
use foreshock_core::record::{RecordState, RecordedPhase, Taint};
use foreshock_core::risk::Band;
use foreshock_core::time::{after, ago, since};
use jiff::Timestamp;

use super::cluster::{Cluster, takes_work};

/// What the watch may be behind, and a decision and its write may take.
pub const BEHIND: Duration = Duration::from_secs(15);
/// Numbers of Nodes are judged by the most that there were in this time.
const LATELY: Duration = Duration::from_secs(60);
/// A storm is on the Lease within this, whatever goes wrong with single writes.
const STORM_WRITTEN: Duration = Duration::from_secs(300);
const HOUR: Duration = Duration::from_secs(3600);

/// A number of Nodes as an operator writes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Share {
    /// So many.
    Count(usize),
    /// So many per cent, rounded down, at least one.
    Percent(usize),
}

impl Share {
    fn of(self, base: usize) -> usize {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => (base * percent / 100).max(1),
        }
    }
}

/// What the operator allows, in the operator's numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// `tainted_max`.
    pub tainted_max: Share,
    /// `draining_max`.
    pub draining_max: Share,
    /// `zone_tainted_max`.
    pub zone_tainted_max: Option<Share>,
    /// `zone_draining_max`.
    pub zone_draining_max: Option<Share>,
    /// `tainted_max` of every pool.
    pub pool_tainted_max: Option<Share>,
    /// `draining_max` of every pool.
    pub pool_draining_max: Option<Share>,
    /// `drains_per_hour`.
    pub drains_per_hour: usize,
    /// `at_risk`.
    pub at_risk: f64,
    /// `recover_below`.
    pub recover_below: f64,
    /// `recover_for`.
    pub recover_for: Duration,
    /// `veto_for`.
    pub veto_for: Duration,
    /// `new_node_age`.
    pub new_node_age: Duration,
    /// How old a score may be.
    pub score_age_max: Duration,
    /// `storm_share`, in per cent.
    pub storm_percent: usize,
    /// `storm_min`.
    pub storm_min: usize,
    /// `storm_window`.
    pub storm_window: Duration,
    /// The taint.
    pub taint: Taint,
    /// The caution taint.
    pub caution_taint: Taint,
}

/// Something that must never happen, and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When, in truth.
    pub at: Timestamp,
    /// Which rule.
    pub rule: &'static str,
    /// What happened.
    pub detail: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.at, self.rule, self.detail)
    }
}

/// What is known to have been told about one Node.
#[derive(Clone, Debug, Default)]
struct Told {
    uid: Option<Uid>,
    zone: Option<String>,
    pool: Option<String>,
    /// When it was last Ready and not cordoned.
    eligible_at: Option<Timestamp>,
    /// The last score: what it says, the time in it, and when it came in truth.
    score: Option<(Option<f64>, Timestamp, Timestamp)>,
    /// The last score that said anything, whoever heard it: a write outlives a kill.
    heard: Option<(f64, Timestamp)>,
    /// The one before it: a write that was sent on it may land after the next was heard.
    heard_before: Option<(f64, Timestamp)>,
    /// Floors by alert, until then.
    alerts: BTreeMap<String, (f64, Timestamp, Timestamp)>,
    /// On the program's clock.
    at_risk_since: Option<Timestamp>,
    /// Since when, times included in which nobody knew.
    turned_at: Option<Timestamp>,
    well_since: Option<Timestamp>,
    schedulable_at: Option<Timestamp>,
    hands_off_since: Option<Timestamp>,
    foreign_since: Option<Timestamp>,
}

/// What is ours on one Node, by the writes alone.
#[derive(Clone, Debug, Default)]
struct Ours {
    uid: Option<Uid>,
    taints: Vec<Taint>,
    label: Option<(String, Option<String>)>,
    draining: bool,
    vetoed_at: Option<Timestamp>,
}

/// Counts, so that a run that shows nothing is seen to show nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Taints set.
    pub taints: u64,
    /// Drains begun.
    pub drains: u64,
    /// Drains completed.
    pub drained: u64,
    /// Nodes given back.
    pub releases: u64,
    /// Evictions accepted.
    pub evictions: u64,
    /// Vetoes noted.
    pub vetoes: u64,
    /// Storms.
    pub storms: u64,
    /// Decisions.
    pub decisions: u64,
    /// Nodes that were held, over all decisions.
    pub held: u64,
}

impl Seen {
    /// Both.
    pub fn add(&mut self, other: &Self) {
        self.taints += other.taints;
        self.drains += other.drains;
        self.drained += other.drained;
        self.releases += other.releases;
        self.evictions += other.evictions;
        self.vetoes += other.vetoes;
        self.storms += other.storms;
        self.decisions += other.decisions;
        self.held += other.held;
    }
}

/// What was done to a Node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It was tainted.
    Tainted,
    /// Its drain began.
    DrainBegun,
    /// Its drain was completed.
    Drained,
    /// It was given back.
    Released,
}

/// A Ready Pod of a workload without a budget is evicted.
#[derive(Clone, Copy, Debug)]
pub struct Paced {
    /// The workload.
    pub workload: usize,
    /// Its Ready Pods, this one included.
    pub ready: usize,
    /// Pods that there should be.
    pub replicas: usize,
}

/// `eviction.pod_deadline` of every run. Later than that nobody waits for a replacement any more.
const POD_DEADLINE: Duration = Duration::from_secs(600);

/// The judge.
#[derive(Clone, Debug)]
pub struct Judge {
    rules: Rules,
    told: BTreeMap<NodeName, Told>,
    ours: BTreeMap<NodeName, Ours>,
    resolved: BTreeMap<String, Timestamp>,
    accepted: BTreeSet<Uid>,
    /// By workload without a budget: when a Pod of it was last evicted, and how many were Ready before.
    taken: BTreeMap<usize, (Timestamp, usize)>,
    drains: VecDeque<Timestamp>,
    paused_since: Option<Timestamp>,
    /// Since when a storm is on, and since when it is calm.
    storm: Option<(Timestamp, Option<Timestamp>)>,
    unrecorded_since: Option<Timestamp>,
    /// What was done, counted.
    pub seen: Seen,
    /// What was done, in order.
    pub log: Vec<(Timestamp, NodeName, What)>,
    /// Writes to Nodes.
    pub marks: u64,
    /// What must not have happened.
    pub violations: Vec<Violation>,
}

impl Judge {
    /// A judge by these rules.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            told: BTreeMap::new(),
            ours: BTreeMap::new(),
            resolved: BTreeMap::new(),
            accepted: BTreeSet::new(),
            taken: BTreeMap::new(),
            drains: VecDeque::new(),
            paused_since: None,
            storm: None,
            unrecorded_since: None,
            seen: Seen::default(),
            log: Vec::new(),
            marks: 0,
            violations: Vec::new(),
        }
    }

    /// Notes something that must not happen.
    pub fn refuse(&mut self, at: Timestamp, rule: &'static str, detail: impl Into<String>) {
        self.violations.push(Violation {
            at,
            rule,
            detail: detail.into(),
        });
    }

    // ---- what the program was told ----

    /// A score has arrived, or that there is none.
    pub fn score(
        &mut self,
        node: &NodeName,
        risk: Option<f64>,
        said_at: Timestamp,
        now: Timestamp,
    ) {
        let told = match self.told.get_mut(node) {
            Some(told) => told,
            None => self.told.entry(node.clone()).or_default(),
        };
        told.score = Some((risk, said_at, now));
        if let Some(risk) = risk {
            told.heard_before = told.heard.replace((risk, now));
        }
    }

    /// An alert has arrived.
    pub fn alert(
        &mut self,
        node: &NodeName,
        fingerprint: &str,
        floor: f64,
        starts_at: Timestamp,
        expires_at: Timestamp,
    ) {
        let told = self.told.entry(node.clone()).or_default();
        told.alerts
            .insert(fingerprint.to_owned(), (floor, starts_at, expires_at));
    }

    /// The end of an alert has arrived.
    pub fn resolved(&mut self, node: &NodeName, fingerprint: &str, starts_at: Timestamp) {
        if let Some(told) = self.told.get_mut(node) {
            told.alerts.remove(fingerprint);
        }
        self.resolved.insert(fingerprint.to_owned(), starts_at);
    }

    /// The program was killed: what it was told of alerts is lost, but for what the records keep.
    /// A storm that it had no time to write down is lost too, and seen again once it is told again.
    pub fn forgets(&mut self, cluster: &Cluster) {
        if cluster.record.storm.is_none() {
            self.storm = None;
        }
        for told in self.told.values_mut() {
            told.alerts.clear();
            told.score = None;
        }
        self.resolved.clear();
    }

    /// The program's clock was set forwards by this.
    pub fn clock_set(&mut self, forwards: Duration) {
        for told in self.told.values_mut() {
            told.well_since = told.well_since.map(|at| ago(at, forwards));
        }
        // A veto runs on the program's clock as well.
        for ours in self.ours.values_mut() {
            ours.vetoed_at = ours.vetoed_at.map(|at| ago(at, forwards));
        }
    }

    /// A person has removed our taint.
    pub fn taint_removed_by_a_person(&mut self, node: &NodeName, now: Timestamp) {
        if let Some(ours) = self.ours.get_mut(node)
            && ours.taints.contains(&self.rules.taint)
        {
            ours.vetoed_at = Some(now);
        }
    }

    /// Looks at the cluster and at what has been told. To be called before every decision; `acts`
    /// says whether the program leads.
    pub fn look(&mut self, cluster: &Cluster, wall: Timestamp, acts: bool) {
        let now = cluster.now;
        let rules = &self.rules;
        // Of the cluster, of each zone and of each pool: Nodes, at risk without our taint, turned.
        let mut tallies: BTreeMap<(u8, Option<&str>), [usize; 3]> = BTreeMap::new();
        self.told.retain(|name, _| cluster.nodes.contains_key(name));
        // What is gone with its Node, or by a person's hand, is on no Node any more.
        self.ours.retain(|name, ours| {
            let node = cluster.nodes.get(name);
            let node = node.filter(|node| ours.uid.as_ref() == Some(&node.id.uid));
            if let Some(node) = node {
                ours.taints.retain(|taint| node.taints.contains(taint));
            }
            node.is_some()
        });
        for (name, node) in &cluster.nodes {
            let told = match self.told.get_mut(name) {
                Some(told) => told,
                None => self.told.entry(name.clone()).or_default(),
            };
            if told.uid.as_ref() != Some(&node.id.uid) {
                *told = Told {
                    uid: Some(node.id.uid.clone()),
                    zone: node.zone.clone(),
                    pool: node.pool.clone(),
                    alerts: std::mem::take(&mut told.alerts),
                    score: told.score.take(),
                    heard: told.heard.take(),
                    heard_before: told.heard_before.take(),
                    ..Told::default()
                };
            }
            if node.ready && !node.cordoned {
                told.eligible_at = Some(now);
            }
            if takes_work(node) {
                told.schedulable_at = Some(now);
            }
            let held = node.excluded
                || match &node.hold_until {
                    Some(HoldUntil::Time(until)) => wall < *until,
                    Some(HoldUntil::Malformed(_)) => true,
                    None => false,
                };
            told.hands_off_since = held.then(|| told.hands_off_since.unwrap_or(now));
            let foreign = node.cordoned || node.taken_by.is_some();
            told.foreign_since = foreign.then(|| told.foreign_since.unwrap_or(now));

            let fresh = told.score.filter(|(_, at, _)| {
                *at >= node.created_at
                    && *at <= after(wall, Duration::from_secs(1))
                    && since(*at, wall) <= rules.score_age_max
            });
            let score = fresh.and_then(|(risk, ..)| risk);
            told.alerts.retain(|_, (_, _, until)| wall < *until);
            let kept = node
                .record
                .ours()
                .into_iter()
                .flat_map(|record| &record.alerts);
            let kept = kept.filter(|alert| {
                wall < alert.expires_at
                    && !told.alerts.contains_key(&alert.fingerprint)
                    && self
                        .resolved
                        .get(&alert.fingerprint)
                        .is_none_or(|at| *at < alert.starts_at)
            });
            let kept = kept.map(|alert| (alert.floor.as_f64(), alert.starts_at));
            let floor = told
                .alerts
                .values()
                .map(|(floor, starts, _)| (*floor, *starts))
                .chain(kept)
                .filter(|(_, starts)| *starts >= node.created_at)
                .map(|(floor, _)| floor)
                .fold(0.0, f64::max);
            let risk = score.unwrap_or(0.0).max(floor);
            let is_at_risk = risk > rules.at_risk;
            // To fall silent is no recovery, and to be heard again no turn for the worse.
            told.turned_at = match (is_at_risk, score) {
                (true, _) => Some(told.turned_at.unwrap_or(wall)),
                (false, None) => told.turned_at,
                (false, Some(_)) => None,
            };
            told.at_risk_since = is_at_risk.then(|| told.at_risk_since.unwrap_or(wall));
            let well = score.is_some() && risk < rules.recover_below;
            told.well_since = well.then(|| told.well_since.unwrap_or(now));
            let marked = self
                .ours
                .get(name)
                .is_some_and(|ours| ours.taints.contains(&rules.taint));
            // When a Node that has our taint turned is not known after a restart, so it is not asked for.
            let turned = is_at_risk
                && !marked
                && told
                    .turned_at
                    .is_some_and(|at| since(at, wall) <= rules.storm_window);
            let places = [
                Some((0, None)),
                node.zone.as_deref().map(|zone| (1, Some(zone))),
                node.pool.as_deref().map(|pool| (2, Some(pool))),
            ];
            for place in places.into_iter().flatten() {
                let tally = tallies.entry(place).or_default();
                tally[0] += 1;
                tally[1] += usize::from(is_at_risk && !marked);
                tally[2] += usize::from(turned);
            }
        }
        // The watch may not show a Node yet that has just come.
        let many = |count: usize, all: usize| {
            count >= rules.storm_min && count * 100 > rules.storm_percent * (all + 1)
        };
        let turned = tallies.values().any(|tally| many(tally[2], tally[0]));
        let at_risk = tallies.values().any(|tally| many(tally[1], tally[0]));
        // A storm that the judge sees end a little early is one that nobody may still act against.
        let calm_for = self.rules.storm_window.saturating_sub(2 * BEHIND);
        self.storm = match self.storm {
            None if turned => {
                self.seen.storms += 1;
                Some((now, None))
            }
            None => None,
            Some((from, _)) if at_risk => Some((from, None)),
            Some((from, calm)) => {
                let calm = calm.unwrap_or(wall);
                (since(calm, wall) < calm_for).then_some((from, Some(calm)))
            }
        };
        self.paused_since = cluster.paused.then(|| self.paused_since.unwrap_or(now));
        let unrecorded = self.storm.is_some() && cluster.record.storm.is_none() && acts;
        let unrecorded = unrecorded && !cluster.paused;
        self.unrecorded_since = unrecorded.then(|| self.unrecorded_since.unwrap_or(now));
        if let Some(at) = self
            .unrecorded_since
            .filter(|at| since(*at, now) > STORM_WRITTEN)
        {
            let detail = format!("a storm is on, and the Lease does not say so since {at}");
            self.refuse(now, "storm record", detail);
        }
    }

    /// No more than this many Nodes of a place are in a state that is limited there.
    fn within(
        &mut self,
        now: Timestamp,
        rule: &'static str,
        limits: [Option<Share>; 3],
        name: &NodeName,
        is: impl Fn(&Ours) -> bool,
    ) {
        let about = self.told.get(name).cloned().unwrap_or_default();
        let there = |place: &str, told: &Told| match place {
            "its zone" => told.zone == about.zone,
            "its pool" => told.pool == about.pool,
            _ => true,
        };
        let places = ["the cluster", "its zone", "its pool"];
        let mut wrong = Vec::new();
        for (place, limit) in places.into_iter().zip(limits) {
            let Some(limit) = limit.filter(|_| place != "its pool" || about.pool.is_some()) else {
                continue;
            };
            let (mut base, mut count) = (0, 0);
            for (name, told) in self.told.iter().filter(|(_, told)| there(place, told)) {
                base += usize::from(told.eligible_at.is_some_and(|at| since(at, now) <= LATELY));
                count += usize::from(self.ours.get(name).is_some_and(&is));
            }
            let max = limit.of(base);
            if count > max {
                wrong.push(format!(
                    "with {name}, {count} Nodes of {place}; {max} may be"
                ));
            }
        }
        for detail in wrong {
            self.refuse(now, rule, detail);
        }
    }

    /// What was decided: who is at risk and not acted on is told why, and in the right order.
    pub fn decided(
        &mut self,
        now: Timestamp,
        decision: &Decision,
        busy: impl Fn(&NodeName) -> bool,
    ) {
        self.seen.decisions += 1;
        let mut wrong = None;
        for (name, verdict) in &decision.verdicts {
            self.seen.held += u64::from(!verdict.holds.is_empty());
            let ordered = verdict
                .holds
                .windows(2)
                .all(|pair| pair[0].reason < pair[1].reason);
            if !ordered {
                wrong = Some(format!("{name}: holds out of order: {:?}", verdict.holds));
            }
            let acted_on = || {
                decision
                    .plan
                    .marks
                    .iter()
                    .any(|order| order.node.name == *name)
                    || decision
                        .plan
                        .drains
                        .iter()
                        .any(|order| order.node.name == *name && order.sends)
                    || busy(name)
            };
            if verdict.holds.is_empty()
                && matches!(verdict.band, Band::AtRisk | Band::Unknown)
                && !acted_on()
            {
                wrong = Some(format!(
                    "{name} is {} and nothing says why nothing is done",
                    verdict.band
                ));
            }
            if !verdict.holds.is_empty() && acted_on() && !busy(name) && begins(decision, name) {
                wrong = Some(format!("{name} is held and acted on: {:?}", verdict.holds));
            }
        }
        if let Some(detail) = wrong {
            self.refuse(now, "primary hold", detail);
        }
    }

    // ---- what the program did ----

    /// A Node was written to by the program.
    pub fn wrote(&mut self, now: Timestamp, wall: Timestamp, before: &NodeFacts, next: &NodeFacts) {
        let name = before.id.name.clone();
        self.marks += 1;
        self.not_paused(now, &format!("mark on {name}"));
        self.foreign_is_kept(now, before, next);
        let had = before.taints.contains(&self.rules.taint);
        let has = next.taints.contains(&self.rules.taint);
        let phase = |facts: &NodeFacts| match &facts.record {
            RecordState::Ours(record) => Some(record.phase),
            _ => None,
        };
        let (was, is) = (phase(before), phase(next));
        if has && !had {
            self.log.push((now, name.clone(), What::Tainted));
            self.tainted(now, &name, next);
        }
        if was != Some(RecordedPhase::Draining) && is == Some(RecordedPhase::Draining) {
            self.log.push((now, name.clone(), What::DrainBegun));
            self.drain_begun(now, wall, &name);
        }
        if is != Some(RecordedPhase::Draining)
            && let Some(ours) = self.ours.get_mut(&name)
        {
            ours.draining = false;
        }
        if is == Some(RecordedPhase::Drained) && was != is {
            self.seen.drained += 1;
            self.log.push((now, name.clone(), What::Drained));
        }
        if had && !has {
            self.log.push((now, name.clone(), What::Released));
            self.released(now, &name);
            if takes_work(next) {
                self.told.entry(name.clone()).or_default().schedulable_at = Some(now);
            }
        }
        let veto = |facts: &NodeFacts| facts.record.ours().and_then(|record| record.veto_until);
        self.seen.vetoes += u64::from(veto(next).is_some() && veto(before).is_none());
        if had != has || was != is {
            let hands_off = self
                .told
                .get(&name)
                .and_then(|told| told.hands_off_since)
                .is_some_and(|at| since(at, now) > BEHIND);
            if hands_off {
                self.refuse(now, "hands off", format!("{name} is to be left alone"));
            }
        }
    }

    fn not_paused(&mut self, now: Timestamp, what: &str) {
        if self
            .paused_since
            .is_some_and(|at| since(at, now) > Duration::from_secs(1))
        {
            self.refuse(now, "paused", what.to_owned());
        }
    }

    /// What is not ours by our own writes is still there afterwards.
    fn foreign_is_kept(&mut self, now: Timestamp, before: &NodeFacts, next: &NodeFacts) {
        let name = &before.id.name;
        let rules = &self.rules;
        let ours = match self.ours.get_mut(name) {
            Some(ours) => ours,
            None => self.ours.entry(name.clone()).or_default(),
        };
        if ours.uid.as_ref() != Some(&before.id.uid) {
            *ours = Ours {
                uid: Some(before.id.uid.clone()),
                ..Ours::default()
            };
        }
        let mut wrong = Vec::new();
        for taint in &before.taints {
            if !next.taints.contains(taint) && !ours.taints.contains(taint) {
                wrong.push(format!("the taint {taint} is lost"));
            }
        }
        for taint in &next.taints {
            if !before.taints.contains(taint) {
                if *taint != rules.taint && *taint != rules.caution_taint {
                    wrong.push(format!("the taint {taint} is not one that we may set"));
                }
                ours.taints.push(taint.clone());
            }
        }
        ours.taints.retain(|taint| next.taints.contains(taint));
        if before.risk_label != next.risk_label {
            let first = ours
                .label
                .as_ref()
                .map_or(before.risk_label.clone(), |(_, first)| first.clone());
            let still_ours = ours
                .label
                .as_ref()
                .is_none_or(|(label, _)| before.risk_label.as_ref() == Some(label));
            if !still_ours {
                wrong.push("a label that is not ours was overwritten".to_owned());
            }
            match &next.risk_label {
                Some(label) if label == "caution" || label == "at-risk" => {
                    ours.label = Some((label.clone(), first));
                }
                label => {
                    if *label != first {
                        wrong.push(format!(
                            "the label was {first:?} before us and is {label:?}"
                        ));
                    }
                    ours.label = None;
                }
            }
        }
        let same = before.id == next.id
            && before.cordoned == next.cordoned
            && before.excluded == next.excluded
            && before.hold_until == next.hold_until
            && before.taken_by == next.taken_by
            && before.ready == next.ready;
        if !same {
            wrong.push("something other than our marks has changed".to_owned());
        }
        if let RecordState::Foreign { instance } = &before.record {
            wrong.push(format!("the record of {instance} was overwritten"));
        }
        for detail in wrong {
            self.refuse(now, "foreign marks", format!("{name}: {detail}"));
        }
    }

    fn storm_is_on(&mut self, now: Timestamp, what: &str) {
        if let Some((from, _)) = self.storm {
            self.refuse(now, "storm", format!("{what}, in a storm since {from}"));
        }
    }

    fn tainted(&mut self, now: Timestamp, name: &NodeName, node: &NodeFacts) {
        self.seen.taints += 1;
        self.storm_is_on(now, &format!("{name} is tainted"));
        let taint = self.rules.taint.clone();
        let limits = [
            Some(self.rules.tainted_max),
            self.rules.zone_tainted_max,
            self.rules.pool_tainted_max,
        ];
        self.within(now, "tainted_max", limits, name, |ours| {
            ours.taints.contains(&taint)
        });
        let told = self.told.get(name).cloned().unwrap_or_default();
        let speaks = |(risk, came): (f64, Timestamp)| {
            risk > self.rules.at_risk && since(came, now) <= self.rules.score_age_max + BEHIND
        };
        let lately = told
            .heard
            .is_some_and(|(_, came)| since(came, now) <= BEHIND);
        let fresh =
            told.heard.is_some_and(speaks) || (lately && told.heard_before.is_some_and(speaks));
        let alerted = told
            .alerts
            .values()
            .any(|(floor, ..)| *floor > self.rules.at_risk);
        let kept = node
            .record
            .ours()
            .is_some_and(|record| record.alerts.iter().any(|alert| alert.expires_at > now));
        if !fresh && !alerted && !kept {
            self.refuse(
                now,
                "stale",
                format!("{name} is tainted and nothing fresh says so"),
            );
        }
        if told.foreign_since.is_some_and(|at| since(at, now) > BEHIND) {
            self.refuse(
                now,
                "hands off",
                format!("{name} is cordoned or taken by somebody"),
            );
        }
        if since(node.created_at, now) + BEHIND < self.rules.new_node_age {
            self.refuse(now, "new node", format!("{name} is tainted and too young"));
        }
        let vetoed_at = self.ours.get(name).and_then(|ours| ours.vetoed_at);
        if let Some(at) = vetoed_at
            && since(at, now) + LATELY < self.rules.veto_for
        {
            self.refuse(
                now,
                "veto",
                format!("{name}: a person removed the taint at {at}"),
            );
        }
        self.not_the_last(now, name);
    }

    fn not_the_last(&mut self, now: Timestamp, name: &NodeName) {
        let left = self.told.iter().any(|(other, told)| {
            let marked = self
                .ours
                .get(other)
                .is_some_and(|ours| ours.taints.contains(&self.rules.taint));
            other != name
                && !marked
                && told
                    .schedulable_at
                    .is_some_and(|at| since(at, now) <= LATELY)
                && told.at_risk_since.is_none_or(|at| since(at, now) <= LATELY)
        });
        if !left {
            self.refuse(now, "last node", format!("nothing is left beside {name}"));
        }
    }

    fn drain_begun(&mut self, now: Timestamp, wall: Timestamp, name: &NodeName) {
        self.seen.drains += 1;
        self.storm_is_on(now, &format!("the drain of {name} begins"));
        if let Some(ours) = self.ours.get_mut(name) {
            ours.draining = true;
        }
        let limits = [
            Some(self.rules.draining_max),
            self.rules.zone_draining_max,
            self.rules.pool_draining_max,
        ];
        self.within(now, "draining_max", limits, name, |ours| ours.draining);
        self.drains.push_back(wall);
        // The program counts from its first decision for it; the write came a little later, after others.
        self.drains
            .retain(|at| since(*at, wall) + 2 * BEHIND < HOUR);
        if self.drains.len() > self.rules.drains_per_hour {
            let detail = format!("{} drains were begun within the hour", self.drains.len());
            self.refuse(now, "drains_per_hour", detail);
        }
        self.not_the_last(now, name);
    }

    fn released(&mut self, now: Timestamp, name: &NodeName) {
        self.seen.releases += 1;
        let told = self.told.get(name).cloned().unwrap_or_default();
        let fresh = told
            .heard
            .is_some_and(|(_, came)| since(came, now) <= self.rules.score_age_max + BEHIND);
        if !fresh {
            self.refuse(
                now,
                "stale",
                format!("{name} is given back and nothing fresh says that it is well"),
            );
        }
        let long = told.well_since.is_some_and(|at| {
            since(at, now) + self.rules.score_age_max + BEHIND >= self.rules.recover_for
        });
        if !long {
            let detail = format!(
                "{name} is given back and is well since {:?}",
                told.well_since
            );
            self.refuse(now, "recovery", detail);
        }
    }

    /// The Eviction API was asked. `facts` are the Node's at that moment, `allowed` what the budget
    /// let through, by the judge's own count.
    pub fn evicted(
        &mut self,
        now: Timestamp,
        pod: &PodId,
        facts: Option<&NodeFacts>,
        over_budget: bool,
        paced: Option<Paced>,
        answer: &Answer,
    ) {
        self.not_paused(now, &format!("eviction of {pod}"));
        if !matches!(answer, Answer::Accepted) {
            return;
        }
        self.seen.evictions += 1;
        self.storm_is_on(now, &format!("{pod} is evicted"));
        if !self.accepted.insert(pod.uid.clone()) {
            self.refuse(
                now,
                "twice",
                format!("{pod} has a second accepted eviction"),
            );
        }
        if over_budget {
            self.refuse(now, "budget", format!("{pod} is evicted past its budget"));
        }
        if let Some(paced) = paced {
            let before = self.taken.insert(paced.workload, (now, paced.ready));
            if let Some((at, ready)) = before
                && after(at, POD_DEADLINE) > now
                && paced.ready < ready.min(paced.replicas)
            {
                let detail = format!(
                    "{pod} is evicted while its workload has {} Ready Pods, of {ready} before the last",
                    paced.ready
                );
                self.refuse(now, "pace", detail);
            }
        }
        let recorded = facts
            .and_then(|facts| facts.record.ours())
            .is_some_and(|record| {
                record.phase == RecordedPhase::Draining
                    && record
                        .drain
                        .as_ref()
                        .is_some_and(|drain| drain.ended.is_none())
            });
        if !recorded {
            self.refuse(
                now,
                "record",
                format!("{pod} is evicted and its Node's record has no drain"),
            );
        }
        let told = facts.and_then(|facts| self.told.get(&facts.id.name));
        if told
            .and_then(|told| told.hands_off_since)
            .is_some_and(|at| since(at, now) > BEHIND)
        {
            self.refuse(
                now,
                "hands off",
                format!("{pod} is evicted from a Node that is to be left alone"),
            );
        }
    }

    /// Everything has been well for long: nothing of ours may be left.
    pub fn settled(&mut self, cluster: &Cluster) {
        for (name, node) in &cluster.nodes {
            let ours = [&self.rules.taint, &self.rules.caution_taint];
            if let Some(taint) = node.taints.iter().find(|taint| ours.contains(taint)) {
                self.refuse(
                    cluster.now,
                    "orphan",
                    format!("{name} still has {taint}: {:?}", node.record),
                );
            }
            let marked = match &node.record {
                RecordState::Ours(record) => {
                    !record.marks.is_empty() || record.phase != RecordedPhase::Clear
                }
                RecordState::Absent
                | RecordState::OtherUid
                | RecordState::Foreign { .. }
                | RecordState::Unreadable { .. } => false,
            };
            if marked {
                self.refuse(
                    cluster.now,
                    "orphan",
                    format!("{name} still has a record: {:?}", node.record),
                );
            }
            if matches!(node.risk_label.as_deref(), Some("caution" | "at-risk")) {
                self.refuse(cluster.now, "orphan", format!("{name} still has our label"));
            }
        }
        if let Some((from, _)) = self.storm {
            self.refuse(
                cluster.now,
                "orphan",
                format!("a storm is still on, since {from}"),
            );
        }
    }

    /// How many Nodes are draining, by the writes.
    pub fn draining(&self) -> usize {
        self.ours.values().filter(|ours| ours.draining).count()
    }

    /// How many Nodes are tainted, by the writes.
    pub fn tainted_now(&self) -> usize {
        self.ours
            .values()
            .filter(|ours| ours.taints.contains(&self.rules.taint))
            .count()
    }

    /// How many Nodes are at risk, by what was told.
    pub fn at_risk_now(&self) -> usize {
        self.told
            .values()
            .filter(|told| told.at_risk_since.is_some())
            .count()
    }

    /// Whether the judge sees a storm.
    pub fn storm(&self) -> bool {
        self.storm.is_some()
    }
}

fn begins(decision: &Decision, name: &NodeName) -> bool {
    let orders = &decision.plan.marks;
    orders.iter().any(|order| {
        order.node.name == *name
            && order.begins()
            && order.cause != foreshock_core::decision::plan::Cause::Caution
    })
}
