//! One foreshock in a few lines: the real `decide`, `audit` and `step`, and around them what the
//! shell does, without its tasks. It can be killed between any two calls.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use foreshock_core::decision::audit::audit;
use foreshock_core::decision::memory::Memory;
use foreshock_core::decision::plan::{Cause, MarkOrder, Plan};
use foreshock_core::decision::policy::Policy;
use foreshock_core::decision::verdict::Phase;
use foreshock_core::decision::world::{
    Fact, Inputs, NodeFacts, OwnWrite, Score, ScoreUnknown, World,
};
use foreshock_core::decision::{Decision, decide};
use foreshock_core::drain::{
    Action, Answer, DrainFacts, DrainOrder, DrainProgress, DrainReport, Pace, PodFacts, StepState,
    Workloads, paced_by, step,
};
use foreshock_core::node::{NodeName, Uid};
use foreshock_core::record::{ActingAlert, RecordState, RecordedPhase};
use foreshock_core::risk::Band;
use foreshock_core::time::{after, since};
use jiff::{SignedDuration, Timestamp};

use super::cluster::Cluster;
use super::judge::{Judge, Paced};
use super::support;
use super::weather::{Kind, Weather};

/// `cycle.interval` of the simulation.
pub const INTERVAL: Duration = Duration::from_secs(30);
/// `prometheus.lag` of the simulation.
const LAG: Duration = Duration::from_secs(20);
/// Facts about Pods are asked for again at this age, as the shell does. Its four at a time come within
/// milliseconds, and each wakes the next decision; here all come at once, and the next tick is soon.
const FACTS_REFRESH: Duration = Duration::from_secs(20);
/// Pauses after a failed write, and how long one without an answer counts: as the shell does.
const RETRY_MIN: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(60);
const LOST_FOR: Duration = Duration::from_secs(10);
/// Marks per tick.
const MARKS_AT_ONCE: usize = 20;

/// A deliberate fault in the program, to see that the judge finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Asks for every eviction twice.
    EvictsTwice,
    /// Waits for no replacement.
    EvictsAllAtOnce,
    /// Goes on by its last plan while paused.
    IgnoresPause,
    /// Evicts from Nodes whose record has no drain.
    DrainsUnrecorded,
    /// Takes foreign taints off with its own.
    TakesForeignTaints,
    /// Never gives a Node back.
    NeverReleases,
    /// Does not write the cluster's record before it begins.
    ForgetsDrains,
}

#[derive(Clone, Debug)]
struct OwnState {
    state: OwnWrite,
    failures: u32,
    until: Option<Timestamp>,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    Conflict,
    TimeoutBefore,
    TimeoutAfter,
    Fails,
}

#[derive(Clone, Debug)]
struct Sent {
    lands_at: Timestamp,
    order: MarkOrder,
    fate: Fate,
    /// Which life of the process sent it: nobody hears the answer to a dead one.
    life: u64,
}

#[derive(Clone, Debug)]
struct Drain {
    started_at: Timestamp,
    progress: DrainProgress,
    report: Option<DrainReport>,
}

/// Scores that are on their way.
type Answered = (
    Timestamp,
    Timestamp,
    Vec<(NodeName, Result<f64, ScoreUnknown>)>,
);

/// One foreshock.
#[derive(Clone, Debug)]
pub struct Process {
    /// The policy.
    pub policy: Policy,
    /// By how much its wall clock is wrong.
    pub offset: SignedDuration,
    /// The true time, as of the last thing that happened to it.
    pub now: Timestamp,
    /// Says what it does.
    pub trace: bool,
    /// Versions of node_exporter that are not the usual one.
    pub exporters: BTreeMap<NodeName, Arc<str>>,
    bands: BTreeMap<NodeName, Band>,
    world: World,
    memory: Memory,
    own: BTreeMap<NodeName, OwnState>,
    drains: BTreeMap<NodeName, Drain>,
    workloads: Workloads,
    wanted: BTreeMap<NodeName, DrainOrder>,
    with_pods: BTreeSet<NodeName>,
    dirty: BTreeMap<NodeName, Timestamp>,
    sent: Vec<Sent>,
    answers: Vec<Answered>,
    asks_at: Timestamp,
    acts_from: Timestamp,
    lives_from: Timestamp,
    life: u64,
    sabotage: Option<Sabotage>,
    last_plan: Option<Plan>,
    /// Facts have come that no decision has seen yet.
    news: bool,
}

impl Process {
    /// A process that starts now.
    pub fn new(policy: Policy, now: Timestamp, sabotage: Option<Sabotage>) -> Self {
        let mut world = support::scene().world;
        world.nodes.clear();
        world.scores.clear();
        world.at = now;
        Self {
            policy,
            offset: SignedDuration::ZERO,
            now,
            trace: false,
            exporters: BTreeMap::new(),
            bands: BTreeMap::new(),
            world,
            memory: Memory::default(),
            own: BTreeMap::new(),
            drains: BTreeMap::new(),
            workloads: Workloads::default(),
            wanted: BTreeMap::new(),
            with_pods: BTreeSet::new(),
            dirty: BTreeMap::new(),
            sent: Vec::new(),
            answers: Vec::new(),
            asks_at: now,
            acts_from: now,
            lives_from: now,
            life: 0,
            sabotage,
            last_plan: None,
            news: false,
        }
    }

    /// The time on its wall clock.
    pub fn wall(&self, now: Timestamp) -> Timestamp {
        now.checked_add(self.offset).unwrap_or(now)
    }

    // ---- what happens to it ----

    /// `kill -9`; another process starts after a while.
    pub fn die(&mut self, cluster: &Cluster, wait: Duration, judge: &mut Judge) {
        let now = cluster.now;
        let sent = std::mem::take(&mut self.sent);
        let life = self.life + 1;
        let starts = after(now, wait);
        *self = Self {
            offset: self.offset,
            trace: self.trace,
            exporters: std::mem::take(&mut self.exporters),
            sent,
            life,
            asks_at: starts,
            // The Lease of the one before has to run out first.
            acts_from: starts.max(after(now, Duration::from_secs(15))),
            lives_from: starts,
            ..Self::new(self.policy.clone(), now, self.sabotage)
        };
        judge.forgets(cluster);
    }

    /// Another replica, which has watched all the while, leads from then on.
    pub fn hand_over(&mut self, now: Timestamp, wait: Duration) {
        self.life += 1;
        self.own.clear();
        self.drains.clear();
        self.workloads = Workloads::default();
        self.wanted.clear();
        self.world.drains.clear();
        self.acts_from = after(now, wait);
    }

    /// Its machine is suspended.
    pub fn sleep(&mut self, now: Timestamp, lasting: Duration) {
        let wakes = after(now, lasting);
        self.lives_from = self.lives_from.max(wakes);
        // Its Lease has run out meanwhile, and it has to win it again first.
        self.acts_from = self.acts_from.max(after(wakes, Duration::from_secs(2)));
        self.asks_at = self.asks_at.max(wakes);
    }

    fn is_down(&self, now: Timestamp) -> bool {
        now < self.lives_from
    }

    /// An alert arrives, if somebody is there.
    pub fn alert(&mut self, node: &NodeName, alert: ActingAlert, judge: &mut Judge) {
        if self.is_down(self.now) {
            return;
        }
        judge.alert(
            node,
            &alert.fingerprint,
            alert.floor.as_f64(),
            alert.starts_at,
            alert.expires_at,
        );
        let alerts = self.world.alerts.entry(node.clone()).or_default();
        alerts.retain(|there| there.fingerprint != alert.fingerprint);
        alerts.push(alert);
    }

    /// The end of an alert arrives, if somebody is there.
    pub fn resolved(
        &mut self,
        node: &NodeName,
        fingerprint: &str,
        starts_at: Timestamp,
        judge: &mut Judge,
    ) {
        if self.is_down(self.now) {
            return;
        }
        judge.resolved(node, fingerprint, starts_at);
        if let Some(alerts) = self.world.alerts.get_mut(node) {
            alerts.retain(|there| there.fingerprint != fingerprint);
        }
        self.world
            .resolved
            .insert(fingerprint.to_owned(), starts_at);
    }

    /// Something of it is under way, so that a look at the next point of the grid is too late.
    pub fn is_busy(&self) -> bool {
        self.news || !self.wanted.is_empty() || !self.sent.is_empty() || !self.dirty.is_empty()
    }

    /// Whether it holds everything for a storm.
    pub fn storm(&self) -> bool {
        self.memory.storm.is_some()
    }

    /// The band of a Node in the last decision, if that was not healthy.
    pub fn band(&self, node: &NodeName) -> Option<Band> {
        self.bands.get(node).copied()
    }

    /// When it has something to do at the latest.
    pub fn next(&self) -> Timestamp {
        let answers = self.answers.iter().map(|(at, ..)| *at).min();
        let next = answers.map_or(self.asks_at, |at| at.min(self.asks_at));
        next.max(self.lives_from)
    }

    // ---- one look ----

    /// Sees, decides and acts, once.
    pub fn tick(&mut self, cluster: &mut Cluster, weather: &mut Weather, judge: &mut Judge) {
        let now = cluster.now;
        self.now = now;
        self.land(cluster, judge);
        if self.is_down(now) {
            return;
        }
        self.watch(cluster, weather);
        self.ask(cluster, weather);
        self.take_answers(now, judge);
        let wall = self.wall(now);
        self.world.at = wall;
        self.world.cluster = Some(cluster.record.clone());
        self.world.paused = cluster.paused;
        self.tidy(wall);
        judge.look(cluster, wall, now >= self.acts_from);

        let decision = decide(&self.policy, &self.memory, &self.world);
        let audited = audit(
            &self.policy,
            &decision.memory,
            &self.world,
            decision.plan.clone(),
        );
        let own = &self.own;
        judge.decided(now, &decision, |name| own.contains_key(name));
        self.bands = decision
            .verdicts
            .iter()
            .filter(|(_, verdict)| verdict.band != Band::Healthy)
            .map(|(name, verdict)| (name.clone(), verdict.band))
            .collect();
        if self.trace {
            self.tell(&decision, judge);
        }
        self.memory = decision.memory;
        self.want_pods(cluster, &decision.wants, wall);
        let plan = match audited {
            Ok(plan) => plan.plan().clone(),
            Err(refusals) => {
                for refusal in refusals {
                    judge.refuse(now, "audit", refusal.to_string());
                }
                Plan::empty(wall)
            }
        };
        if now < self.acts_from {
            self.wanted.clear();
            return;
        }
        let plan = match (self.sabotage, &self.last_plan) {
            (Some(Sabotage::IgnoresPause), Some(last)) if cluster.paused => last.clone(),
            _ => plan,
        };
        if self.sabotage == Some(Sabotage::IgnoresPause) && !cluster.paused {
            self.last_plan = Some(plan.clone());
        }
        self.carry_out(plan, cluster, weather, judge);
    }

    /// One line for each Node of which there is something to say.
    fn tell(&self, decision: &Decision, judge: &Judge) {
        println!(
            "{} on its clock {}: paused {}, storm {:?}, judge's storm {}, {} drains in the record",
            self.now,
            self.world.at,
            self.world.paused,
            decision.storm.as_ref().map(|storm| storm.since),
            judge.storm(),
            self.world
                .cluster
                .as_ref()
                .map_or(0, |record| record.drains.len()),
        );
        for order in &decision.plan.marks {
            println!(
                "    {} of {}: {}",
                order.cause.as_str(),
                order.node,
                order.note
            );
        }
        for (name, verdict) in &decision.verdicts {
            if verdict.band == Band::Healthy && verdict.phase == Phase::Healthy {
                continue;
            }
            println!(
                "    {name} {} {} risk {:?} score {:?} alerts {:?} holds {:?} own {:?}",
                verdict.band,
                verdict.phase,
                verdict.risk.map(|risk| risk.as_f64()),
                self.world
                    .scores
                    .get(name)
                    .map(|score| (score.at, score.risk.is_ok())),
                verdict
                    .alerts
                    .iter()
                    .map(|alert| &alert.fingerprint)
                    .collect::<Vec<_>>(),
                verdict
                    .holds
                    .iter()
                    .map(|hold| hold.reason.as_str())
                    .collect::<Vec<_>>(),
                self.own.get(name).map(|own| &own.state),
            );
        }
    }

    /// What the watch shows.
    fn watch(&mut self, cluster: &mut Cluster, weather: &mut Weather) {
        let now = cluster.now;
        if self.world.nodes.is_empty() {
            self.world.nodes = cluster.nodes.clone();
            cluster.touched.clear();
            self.dirty.clear();
            return;
        }
        for name in std::mem::take(&mut cluster.touched) {
            let lag = if weather.strikes(Kind::WatchLag, 0.5) {
                weather.chance(Kind::WatchLag).lasting(1, 10)
            } else {
                Duration::ZERO
            };
            let due = after(now, lag);
            self.dirty.entry(name).or_insert(due);
        }
        let due: Vec<NodeName> = self
            .dirty
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            self.dirty.remove(&name);
            match cluster.nodes.get(&name) {
                Some(node) => self.show(node.clone()),
                None => {
                    self.world.nodes.remove(&name);
                    self.world.alerts.remove(&name);
                    self.world.scores.remove(&name);
                    self.own.remove(&name);
                }
            }
        }
    }

    fn show(&mut self, node: NodeFacts) {
        let pods = match self.world.nodes.remove(&node.id.name) {
            Some(before) if before.id == node.id => before.pods,
            Some(_) | None => Fact::Unknown,
        };
        self.world
            .nodes
            .insert(node.id.name.clone(), NodeFacts { pods, ..node });
    }

    /// Asks for scores on the grid.
    fn ask(&mut self, cluster: &Cluster, weather: &mut Weather) {
        let now = cluster.now;
        if now < self.asks_at {
            return;
        }
        self.asks_at = after(now, INTERVAL);
        let Some(late) = weather.answer(now) else {
            return;
        };
        let said_at = foreshock_core::time::ago(self.wall(now), LAG);
        // Prometheus evaluates at the time that it is asked for: far from its own there is nothing.
        let off = self.offset.abs() > SignedDuration::from_secs(90);
        let mut scores = Vec::with_capacity(self.world.nodes.len());
        for name in self.world.nodes.keys() {
            let ready = cluster.nodes.get(name).is_some_and(|node| node.ready) && !off;
            let score = weather.score(now, name, ready, || cluster.is_empty(name));
            scores.push((name.clone(), score));
        }
        self.answers.push((after(now, late), said_at, scores));
    }

    fn take_answers(&mut self, now: Timestamp, judge: &mut Judge) {
        let due: Vec<Answered> = {
            let (due, rest) = std::mem::take(&mut self.answers)
                .into_iter()
                .partition(|(at, ..)| *at <= now);
            self.answers = rest;
            due
        };
        for (_, said_at, scores) in due {
            for (name, score) in scores {
                judge.score(&name, score.ok(), said_at, now);
                let risk = score.map(support::risk);
                let exporter = self.exporters.get(&name).cloned();
                match self.world.scores.get_mut(&name) {
                    Some(there) => {
                        there.risk = risk;
                        there.at = said_at;
                        if exporter.is_some() {
                            there.inputs.exporter = exporter;
                        }
                    }
                    None => {
                        let score = Score {
                            risk,
                            at: said_at,
                            reasons: vec!["simulated".to_owned()],
                            inputs: Inputs {
                                model: "m1".into(),
                                exporter: Some("1.11.0".into()),
                                job: Some("node".into()),
                            },
                            out_of_range: None,
                        };
                        self.world.scores.insert(name, score);
                    }
                }
            }
        }
    }

    fn tidy(&mut self, wall: Timestamp) {
        self.own
            .retain(|_, own| own.until.is_none_or(|until| wall < until));
        self.world.writes = self
            .own
            .iter()
            .map(|(name, own)| (name.clone(), own.state.clone()))
            .collect();
        for alerts in self.world.alerts.values_mut() {
            alerts.retain(|alert| wall < alert.expires_at);
        }
        self.world.alerts.retain(|_, alerts| !alerts.is_empty());
        let kept = Duration::from_secs(24 * 3600);
        self.world.resolved.retain(|_, at| since(*at, wall) < kept);
        let draining = |name: &NodeName| {
            let record = self
                .world
                .nodes
                .get(name)
                .and_then(|node| node.record.ours());
            record.is_some_and(|record| record.phase == RecordedPhase::Draining)
        };
        self.drains.retain(|name, _| draining(name));
        self.world.drains = self
            .drains
            .iter()
            .filter_map(|(name, drain)| Some((name.clone(), drain.report.clone()?)))
            .collect();
    }

    fn want_pods(
        &mut self,
        cluster: &Cluster,
        wants: &BTreeMap<NodeName, Timestamp>,
        wall: Timestamp,
    ) {
        let wanted: BTreeSet<NodeName> = wants.keys().cloned().collect();
        let unwanted: Vec<NodeName> = self.with_pods.difference(&wanted).cloned().collect();
        for name in unwanted {
            self.with_pods.remove(&name);
            if let Some(node) = self.world.nodes.get_mut(&name) {
                node.pods = Fact::Unknown;
            }
        }
        self.news = false;
        for (name, from) in wants {
            let Some(node) = self.world.nodes.get_mut(name) else {
                continue;
            };
            let known = match &node.pods {
                Fact::Known(at, _) => Some(*at).filter(|at| at >= from),
                Fact::Unknown | Fact::Assumed(_) => None,
            };
            if known.is_some_and(|at| since(at, wall) < FACTS_REFRESH) {
                continue;
            }
            self.news |= known.is_none();
            node.pods = Fact::Known(wall, cluster.facts(name));
            self.with_pods.insert(name.clone());
        }
    }

    // ---- acting ----

    /// What becomes of the next write.
    fn fate(weather: &mut Weather) -> Fate {
        if weather.strikes(Kind::Conflicts, 0.1) {
            Fate::Conflict
        } else if weather.strikes(Kind::Timeouts, 0.1) {
            if weather.chance(Kind::Timeouts).hits(0.5) {
                Fate::TimeoutAfter
            } else {
                Fate::TimeoutBefore
            }
        } else if weather.strikes(Kind::ServerErrors, 0.1) {
            Fate::Fails
        } else {
            Fate::Answered
        }
    }

    fn killed(&mut self, cluster: &Cluster, weather: &mut Weather, judge: &mut Judge) -> bool {
        let strikes = weather.strikes(Kind::Kills, 0.02);
        if strikes {
            let wait = weather.chance(Kind::Kills).lasting(1, 30);
            self.die(cluster, wait, judge);
        }
        strikes
    }

    fn carry_out(
        &mut self,
        plan: Plan,
        cluster: &mut Cluster,
        weather: &mut Weather,
        judge: &mut Judge,
    ) {
        self.wanted = plan
            .drains
            .iter()
            .map(|order| (order.node.name.clone(), order.clone()))
            .collect();
        let open = !cluster.paused || self.sabotage == Some(Sabotage::IgnoresPause);
        let mut problem = false;
        if let Some(record) = plan.cluster.filter(|_| open)
            && self.sabotage != Some(Sabotage::ForgetsDrains)
        {
            if self.killed(cluster, weather, judge) {
                return;
            }
            let fate = Self::fate(weather);
            if matches!(fate, Fate::Answered | Fate::TimeoutAfter) {
                cluster.record = record;
            }
            problem = fate != Fate::Answered;
            if self.killed(cluster, weather, judge) {
                return;
            }
        }
        if open {
            let (begin, finish): (Vec<MarkOrder>, Vec<MarkOrder>) =
                plan.marks.into_iter().partition(MarkOrder::begins);
            let orders = finish.into_iter().chain(begin).take(MARKS_AT_ONCE);
            for order in orders {
                if self.sabotage == Some(Sabotage::NeverReleases) && order.cause == Cause::Release {
                    continue;
                }
                let waits = order.begins() && self.sent.iter().any(|sent| !sent.order.begins());
                if waits {
                    continue;
                }
                if order.begins() && problem {
                    let wall = self.wall(cluster.now);
                    self.failed(&order, "the record was not written", wall);
                    continue;
                }
                if self.killed(cluster, weather, judge) {
                    return;
                }
                let finishing = !order.begins();
                let well = self.send(order, cluster, weather, judge);
                problem |= finishing && !well;
                if self.killed(cluster, weather, judge) {
                    return;
                }
            }
        }
        self.walk_drains(cluster, weather, judge);
    }

    /// Sends one mark. False if it failed already.
    fn send(
        &mut self,
        order: MarkOrder,
        cluster: &mut Cluster,
        weather: &mut Weather,
        judge: &mut Judge,
    ) -> bool {
        let failures = self.own.get(&order.node.name).map_or(0, |own| own.failures);
        let state = OwnWrite::InFlight {
            taints: order.cause == Cause::Taint,
            drains: order.cause == Cause::DrainStart,
        };
        let own = OwnState {
            state,
            failures,
            until: None,
        };
        self.own.insert(order.node.name.clone(), own);
        let slow = if weather.strikes(Kind::SlowWrites, 0.2) {
            weather.chance(Kind::SlowWrites).lasting(1, 8)
        } else {
            Duration::ZERO
        };
        let sent = Sent {
            lands_at: after(cluster.now, slow),
            fate: Self::fate(weather),
            order,
            life: self.life,
        };
        if slow.is_zero() {
            self.arrive(sent, cluster, judge)
        } else {
            self.sent.push(sent);
            true
        }
    }

    fn land(&mut self, cluster: &mut Cluster, judge: &mut Judge) {
        if self.sent.is_empty() {
            return;
        }
        let (due, rest) = std::mem::take(&mut self.sent)
            .into_iter()
            .partition(|sent| sent.lands_at <= cluster.now);
        self.sent = rest;
        let due: Vec<Sent> = due;
        for sent in due {
            self.arrive(sent, cluster, judge);
        }
    }

    /// The write reaches the API server, or does not, and its answer comes, or does not.
    fn arrive(&mut self, sent: Sent, cluster: &mut Cluster, judge: &mut Judge) -> bool {
        let now = cluster.now;
        let wall = self.wall(now);
        let name = sent.order.node.name.clone();
        let result = match sent.fate {
            Fate::Conflict => Err(true),
            Fate::TimeoutBefore | Fate::Fails => Err(false),
            // One that is under way when somebody pauses is over within the second.
            Fate::Answered | Fate::TimeoutAfter if cluster.paused && sent.lands_at < now => {
                Err(false)
            }
            Fate::Answered | Fate::TimeoutAfter => {
                let before = cluster.nodes.get(&name).cloned();
                let result = cluster.mark(&sent.order);
                if let (Some(before), Ok(next)) = (&before, &result) {
                    let mut next = next.clone();
                    if self.sabotage == Some(Sabotage::TakesForeignTaints)
                        && sent.order.cause == Cause::Release
                    {
                        cluster.change(&name, |node| node.taints.clear());
                        next.taints.clear();
                    }
                    judge.wrote(now, wall, before, &next);
                }
                result.map_err(|_| true)
            }
        };
        if sent.life != self.life {
            return true;
        }
        match (sent.fate, result) {
            (Fate::TimeoutAfter | Fate::TimeoutBefore, _) => {
                if let Some(own) = self.own.get_mut(&name) {
                    own.until = Some(after(wall, LOST_FOR));
                }
                false
            }
            (_, Ok(node)) => {
                self.own.remove(&name);
                self.show(node);
                true
            }
            (_, Err(true)) => {
                self.own.remove(&name);
                false
            }
            (_, Err(false)) => {
                self.failed(&sent.order, "the server fails", wall);
                false
            }
        }
    }

    fn failed(&mut self, order: &MarkOrder, problem: &str, wall: Timestamp) {
        let name = &order.node.name;
        let failures = self.own.get(name).map_or(0, |own| own.failures);
        let pause = RETRY_MIN
            .saturating_mul(1 << failures.min(8))
            .min(RETRY_MAX);
        let retry_at = after(wall, pause);
        let state = OwnWrite::Failed {
            problem: problem.to_owned(),
            retry_at,
            taints: order.cause == Cause::Taint,
            drains: order.cause == Cause::DrainStart,
        };
        let own = OwnState {
            state,
            failures: failures + 1,
            until: Some(after(retry_at, RETRY_MAX)),
        };
        self.own.insert(name.clone(), own);
    }

    /// Every drain takes its next step.
    fn walk_drains(&mut self, cluster: &mut Cluster, weather: &mut Weather, judge: &mut Judge) {
        let orders: Vec<DrainOrder> = self.wanted.values().cloned().collect();
        for order in orders {
            let name = order.node.name.clone();
            let recorded = self.world.nodes.get(&name).is_some_and(|node| {
                node.id == order.node
                    && matches!(&node.record, RecordState::Ours(record)
                    if record.phase == RecordedPhase::Draining
                        && record.drain.as_ref().is_some_and(|drain| {
                            drain.started_at == order.started_at && drain.ended.is_none()
                        }))
            });
            if !recorded {
                continue;
            }
            if self.walk_drain(order, cluster, weather, judge) {
                return;
            }
        }
        if self.sabotage == Some(Sabotage::DrainsUnrecorded) {
            self.drain_unrecorded(cluster, judge);
        }
    }

    /// True if the process was killed.
    fn walk_drain(
        &mut self,
        order: DrainOrder,
        cluster: &mut Cluster,
        weather: &mut Weather,
        judge: &mut Judge,
    ) -> bool {
        let (now, wall) = (cluster.now, self.wall(cluster.now));
        let name = order.node.name.clone();
        let open = !cluster.paused || self.sabotage == Some(Sabotage::IgnoresPause);
        let mut order = DrainOrder {
            sends: order.sends && open,
            ..order
        };
        if self.sabotage == Some(Sabotage::EvictsAllAtOnce) {
            order.rules.pace = Pace::Budget;
        }
        let mut drain = self
            .drains
            .remove(&name)
            .filter(|drain| drain.started_at == order.started_at)
            .unwrap_or_else(|| Drain {
                started_at: order.started_at,
                progress: DrainProgress::default(),
                report: None,
            });
        // A drain that is over says so until the plan has taken note.
        if drain
            .report
            .as_ref()
            .is_some_and(|report| report.ended.is_some())
        {
            self.drains.insert(name, drain);
            return false;
        }
        let ready = cluster.nodes.get(&name).is_some_and(|node| node.ready);
        let pods = cluster.facts(&name);
        self.look_at_workloads(&pods, cluster, wall);
        let facts = DrainFacts {
            pods: pods.iter().collect(),
            node_ready: ready,
            workloads: &self.workloads,
        };
        let next = step(&order, &facts, &drain.progress, wall);
        for Action::Evict {
            pod, read_first, ..
        } in next.actions
        {
            if self.killed(cluster, weather, judge) {
                return true;
            }
            let known = pods.iter().find(|known| known.id == pod);
            let known = known.expect("a step is about Pods that it knows");
            drain.progress.sent(known, wall);
            self.workloads.sent(known, wall);
            let found = cluster.pod(&pod.uid).map(|pod| pod.terminating_until);
            let answer = match found {
                None if read_first => Answer::Gone,
                Some(Some(_)) if read_first => Answer::Accepted,
                Some(_) | None => match Self::fate(weather) {
                    Fate::Answered => Self::evict(cluster, &name, &pod, judge, now),
                    Fate::TimeoutAfter => {
                        Self::evict(cluster, &name, &pod, judge, now);
                        support::pods::lost()
                    }
                    Fate::TimeoutBefore => support::pods::lost(),
                    Fate::Conflict => Answer::Throttled { retry_after: None },
                    Fate::Fails => Answer::Failed {
                        detail: "the server fails".to_owned(),
                    },
                },
            };
            if self.sabotage == Some(Sabotage::EvictsTwice) {
                Self::evict(cluster, &name, &pod, judge, now);
            }
            self.workloads.answered(&pod, &answer);
            drain.progress.answered(&pod, answer, wall);
            if self.killed(cluster, weather, judge) {
                return true;
            }
        }
        let (remaining, ended, detail) = match next.state {
            StepState::Running { remaining } => (remaining, None, String::new()),
            StepState::Over { outcome, detail } => (0, Some((wall, outcome)), detail),
        };
        drain.report = Some(DrainReport {
            started_at: order.started_at,
            remaining,
            gone: 0,
            ended,
            detail,
        });
        self.drains.insert(name, drain);
        false
    }

    /// Those of these Pods, and those of which something was asked that is not settled yet.
    fn look_at_workloads(&mut self, pods: &[PodFacts], cluster: &Cluster, wall: Timestamp) {
        let concerned: BTreeSet<Uid> = pods
            .iter()
            .filter_map(|pod| paced_by(pod).cloned())
            .chain(self.workloads.unsettled().cloned())
            .collect();
        let pod_deadline = self.policy.drain.pod_deadline;
        let trusted = after(self.lives_from.max(self.acts_from), pod_deadline) <= cluster.now;
        self.workloads.trust(trusted);
        for uid in &concerned {
            let seen = cluster.workload(uid).expect("its Pods are there");
            self.workloads.see(uid, Ok(seen));
        }
        self.workloads.settle(&concerned, wall, pod_deadline);
    }

    fn evict(
        cluster: &mut Cluster,
        node: &NodeName,
        pod: &foreshock_core::drain::PodId,
        judge: &mut Judge,
        now: Timestamp,
    ) -> Answer {
        let before = cluster
            .pod(&pod.uid)
            .map(|pod| (pod.workload, pod.ready && pod.terminating_until.is_none()));
        let over_budget =
            before.is_some_and(|(workload, ready)| ready && cluster.allowed(workload) == Some(0));
        let paced =
            before.filter(|(workload, ready)| *ready && cluster.allowed(*workload).is_none());
        let paced = paced.map(|(workload, _)| Paced {
            workload,
            ready: cluster.healthy(workload),
            replicas: cluster.workloads[workload].replicas,
        });
        let answer = cluster.evict(pod);
        judge.evicted(
            now,
            pod,
            cluster.nodes.get(node),
            over_budget,
            paced,
            &answer,
        );
        answer
    }

    fn drain_unrecorded(&mut self, cluster: &mut Cluster, judge: &mut Judge) {
        let tainted = self.world.nodes.values().find(|node| {
            node.record
                .ours()
                .is_some_and(|record| record.phase == RecordedPhase::Tainted)
        });
        let Some(name) = tainted.map(|node| node.id.name.clone()) else {
            return;
        };
        let pod = cluster
            .facts(&name)
            .into_iter()
            .find(|pod| pod.terminating_until.is_none());
        if let Some(pod) = pod {
            let now = cluster.now;
            Self::evict(cluster, &name, &pod.id, judge, now);
        }
    }
}
