//! The one loop: evidence in, decision, plan and picture out.
//!
//! Telemetry is asked for on the grid and at no other time. Whatever else changes (an alert, a Node,
//! a write of ours, the end of a wait) makes the same decision function look again at the last
//! matrix, at most ten times a second. The loop never writes to the cluster: it publishes a plan, and
//! the actuator carries it out.

mod announce;
mod drift;
mod own;
mod past;
mod reload;
mod score;
mod show;
mod time;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use foreshock_core::decision::audit::{AuditedPlan, audit};
use foreshock_core::decision::memory::Memory;
use foreshock_core::decision::policy::{Policy, Reach};
use foreshock_core::decision::world::{Fact, NodeFacts, World};
use foreshock_core::decision::{Decision, decide};
use foreshock_core::drain::PodFacts;
use foreshock_core::node::{NodeId, NodeName, Uid};
use foreshock_core::record::RecordState;
use foreshock_core::room::Resources;
use foreshock_core::time::since;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use self::announce::Announced;
use self::drift::DriftWatch;
use self::own::OwnWrites;
use self::past::{Filled, Past};
use self::reload::Looked;
use self::score::{Scored, features_of, score};
use self::show::Shown;
use self::time::{Break, Times};
use crate::actuator::{EventTx, Leadership, Report, ReportRx};
use crate::alertmanager::{
    AlertBook, AlertRules, AlertmanagerClient, NodeDirectory as AlertNodes, Payload,
    WebhookReceiver,
};
use crate::clock::Clock;
use crate::config::PoolSelectors;
use crate::events::EventLog;
use crate::features::{
    History, NodeDirectory, NodeEntry as FeatureNode, Telemetered, Telemetry, grid,
};
use crate::kubernetes::{Cluster, ClusterError, NodeEntry, NodeTable};
use crate::metrics::Counters;
use crate::model::drift::Counts;
use crate::model::loaded::{Model, Standing};
use crate::snapshot::{ModelCard, Shortened, Snapshot};

/// The least time between two decisions.
const DECISION_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// The watch of the Nodes may be broken for so long, as when the API server restarts, before nothing
/// is begun on what it showed last.
const NODES_BROKEN_MAX: Duration = Duration::from_secs(10);
/// Pods are asked for on so many Nodes at once.
const POD_QUERIES_MAX: usize = 4;
/// And again after a failure, on the same Node.
const POD_QUERY_PAUSE: Duration = Duration::from_secs(5);
/// Facts about Pods are asked for again when they are this old: well before a decision calls them stale.
const POD_FACTS_REFRESH: Duration = Duration::from_secs(20);
/// Active alerts are read from Alertmanager this often, where that is configured.
const ALERTS_INTERVAL: Duration = Duration::from_secs(60);

/// What the loop is told once.
pub struct CycleOptions {
    /// `cycle.interval`.
    pub interval: Duration,
    /// `prometheus.lag`.
    pub lag: Duration,
    /// `model.missing_max`.
    pub missing_max: f64,
    /// What the operator allows.
    pub policy: Arc<Policy>,
    /// Which Nodes are in which pool.
    pub pools: PoolSelectors,
    /// Waiting times shorter than the defaults, to be shown.
    pub shortened: Vec<Shortened>,
    /// The model to begin with.
    pub model: Model,
    /// When the process started.
    pub started_at: Timestamp,
    /// `[alerts]`.
    pub alerts: Arc<AlertRules>,
}

/// Who the loop talks to.
pub struct CycleParts {
    /// Where features come from.
    pub telemetry: Arc<dyn Telemetry>,
    /// The cluster, where there is one.
    pub cluster: Option<Arc<dyn Cluster>>,
    /// What Alertmanager has sent.
    pub webhook: WebhookReceiver,
    /// Alertmanager itself, where active alerts are read as well.
    pub alertmanager: Option<AlertmanagerClient>,
    /// Who may write, and whether somebody paused us.
    pub leadership: watch::Receiver<Leadership>,
    /// What the actuator did; `None` where there is none.
    pub reports: Option<ReportRx>,
    /// Where Kubernetes Events go; `None` where nothing may be written.
    pub announce: Option<EventTx>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What happened, for people.
    pub events: Arc<EventLog>,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// Where the picture goes.
    pub snapshots: watch::Sender<Arc<Snapshot>>,
    /// Where the plan goes.
    pub plans: watch::Sender<Option<Arc<AuditedPlan>>>,
}

/// Something that was asked for has come.
enum Answer {
    Telemetry {
        asked_at: Timestamp,
        took: Duration,
        model: Arc<Model>,
        answer: Result<Box<(Scored, Option<Counts>)>, String>,
    },
    Model(Result<Box<Looked>, String>),
    Pods {
        node: NodeId,
        at: Timestamp,
        answer: Result<Vec<PodFacts>, ClusterError>,
    },
    Alerts(Result<Payload, String>),
    Past(Filled),
}

/// The loop.
pub struct Cycle {
    options: CycleOptions,
    parts: CycleParts,
    nodes: watch::Receiver<Arc<NodeTable>>,
    /// Nodes with marks of ours that are not among them.
    strays: Option<watch::Receiver<Arc<BTreeSet<NodeName>>>>,
    // Keeps the channel of a loop without a cluster open.
    _no_nodes: Option<watch::Sender<Arc<NodeTable>>>,
    memory: Memory,
    book: AlertBook,
    /// What the next scores are made with.
    model: Arc<Model>,
    /// How far the one may go whose scores are decided on, and what is shown of it.
    standing: Standing,
    card: Arc<ModelCard>,
    drift: DriftWatch,
    /// A look at its file is under way.
    looking: bool,
    /// Why its file cannot be used any more.
    model_problem: Option<String>,
    scored: Option<Arc<Scored>>,
    /// What they were made with.
    speaks: Option<Arc<Model>>,
    past: Past,
    telemetry_problem: Option<String>,
    telemetry_running: bool,
    nodes_broken_since: Option<Instant>,
    alerts_problem: Option<String>,
    /// The evidence in the book is that of a leader.
    led: bool,
    pods: BTreeMap<NodeName, (Uid, Timestamp, Vec<PodFacts>)>,
    pods_asked: BTreeMap<NodeName, Timestamp>,
    /// Whose Pods could not be read, and when.
    pods_failed: BTreeMap<NodeName, Instant>,
    answers: JoinSet<Answer>,
    own: OwnWrites,
    times: Times,
    announced: Announced,
    shown: Shown,
}

/// When the next decision is due.
struct Pace {
    last: Instant,
    due: Instant,
}

impl Pace {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            last: now,
            due: now,
        }
    }

    /// Something has changed: decide as soon as the pace allows.
    fn nudge(&mut self) {
        self.due = self
            .due
            .min((self.last + DECISION_INTERVAL_MIN).max(Instant::now()));
    }

    fn decided(&mut self, wait: Duration) {
        self.last = Instant::now();
        self.due = self.last + wait.max(DECISION_INTERVAL_MIN);
    }
}

impl Cycle {
    /// Puts the loop together.
    pub fn new(options: CycleOptions, parts: CycleParts) -> Self {
        let (nodes, no_nodes) = match &parts.cluster {
            Some(cluster) => (cluster.nodes(), None),
            None => {
                let (tx, rx) = watch::channel(Arc::new(NodeTable {
                    synced: true,
                    ..NodeTable::default()
                }));
                (rx, Some(tx))
            }
        };
        let standing = options.model.standing(parts.clock.now(), None);
        Self {
            book: AlertBook::new(Arc::clone(&options.alerts)),
            own: OwnWrites::default(),
            times: Times::default(),
            announced: Announced::default(),
            shown: Shown::default(),
            strays: parts.cluster.as_ref().map(|cluster| cluster.strays()),
            model: Arc::new(options.model.clone()),
            card: Arc::new(options.model.card(&standing, None)),
            drift: DriftWatch::new(&options.model),
            standing,
            looking: false,
            model_problem: None,
            options,
            parts,
            nodes,
            _no_nodes: no_nodes,
            memory: Memory::default(),
            scored: None,
            speaks: None,
            past: Past::default(),
            telemetry_problem: None,
            telemetry_running: false,
            nodes_broken_since: None,
            alerts_problem: None,
            led: false,
            pods: BTreeMap::new(),
            pods_asked: BTreeMap::new(),
            pods_failed: BTreeMap::new(),
            answers: JoinSet::new(),
        }
    }

    /// Runs until shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let features = features_of(self.model.scorer.columns());
        debug!(
            features = features.len(),
            model = self.model.scorer.id(),
            "cycle starts"
        );
        let mut tick = Instant::now();
        let mut alerts_tick = Instant::now();
        let mut pace = Pace::new();
        let mut leadership_open = true;
        loop {
            let alerts_due = self.parts.alertmanager.is_some();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                // Before everything that can come in a stream: at most ten times a second it starves
                // nobody, and a flood of alerts must not keep a running drain under old orders.
                () = tokio::time::sleep_until(pace.due) => {
                    let wait = self.decide_once().await;
                    // The end of a wait is looked at when it comes, not at the next tick.
                    pace.decided(wait.map_or(self.options.interval, |wait| wait.min(self.options.interval)));
                },
                report = next_report(self.parts.reports.as_mut()) => match report {
                    Some(report) => {
                        self.take_report(report);
                        pace.nudge();
                    }
                    // The actuator has ended, so the process is about to.
                    None => self.parts.reports = None,
                },
                payload = self.parts.webhook.recv() => match payload {
                    Some(payload) => {
                        self.take_alerts(payload);
                        pace.nudge();
                    }
                    // The queue's other end lives in the web server, which ends with the process.
                    None => return,
                },
                answer = self.answers.join_next(), if !self.answers.is_empty() => {
                    self.take_answer(answer);
                    pace.nudge();
                },
                changed = self.nodes.changed() => {
                    if changed.is_err() { return; }
                    pace.nudge();
                },
                changed = self.parts.leadership.changed(), if leadership_open => {
                    leadership_open = changed.is_ok();
                    pace.nudge();
                },
                () = tokio::time::sleep_until(tick) => {
                    self.ask_model();
                    self.ask_telemetry();
                    self.ask_past();
                    tick = Instant::now() + self.until_next_tick();
                },
                () = tokio::time::sleep_until(alerts_tick), if alerts_due => {
                    self.ask_alerts();
                    alerts_tick = Instant::now() + ALERTS_INTERVAL;
                },
            }
        }
    }

    /// Time until the grid has its next point.
    fn until_next_tick(&self) -> Duration {
        let now = self.parts.clock.now();
        let at = grid(now, self.options.lag, self.options.interval);
        let due = foreshock_core::time::after(
            foreshock_core::time::after(at, self.options.lag),
            self.options.interval,
        );
        since(now, due).clamp(Duration::from_millis(10), self.options.interval)
    }

    // ---- asking ----

    fn ask_telemetry(&mut self) {
        let table = Arc::clone(&self.nodes.borrow());
        if !table.synced || self.telemetry_running {
            if self.telemetry_running {
                warn!("features of the last cycle are still on their way; this one is left out");
            }
            return;
        }
        self.telemetry_running = true;
        let directory = if self.parts.cluster.is_some() {
            directory(&table)
        } else {
            NodeDirectory::open()
        };
        let at = grid(
            self.parts.clock.now(),
            self.options.lag,
            self.options.interval,
        );
        let telemetry = Arc::clone(&self.parts.telemetry);
        let model = Arc::clone(&self.model);
        let count = self.drift.is_due(&model, at);
        let missing_max = self.options.missing_max;
        let history = self.past.history();
        self.answers.spawn(async move {
            let started = Instant::now();
            let answer = match telemetry.snapshot(at, &directory).await {
                Ok(telemetered) => {
                    score_aside(Arc::clone(&model), telemetered, missing_max, history, count).await
                }
                Err(error) => Err(chain(&error)),
            };
            Answer::Telemetry {
                asked_at: at,
                took: started.elapsed(),
                model,
                answer: answer.map(Box::new),
            }
        });
    }

    fn ask_alerts(&mut self) {
        let Some(client) = self.parts.alertmanager.clone() else {
            return;
        };
        self.answers.spawn(async move {
            Answer::Alerts(client.active().await.map_err(|error| chain(&error)))
        });
    }

    fn ask_pods(&mut self, decision: &Decision, now: Timestamp) {
        let Some(cluster) = &self.parts.cluster else {
            return;
        };
        self.pods_failed
            .retain(|_, at| at.elapsed() < POD_QUERY_PAUSE);
        // A call that never answered is bounded by the cluster's own timeout; the entry only spreads calls.
        let wanted = decision.wants.iter().filter(|(name, from)| {
            let fresh = self
                .pods
                .get(*name)
                .is_some_and(|(_, at, _)| at >= *from && since(*at, now) < POD_FACTS_REFRESH);
            !fresh && !self.pods_asked.contains_key(*name) && !self.pods_failed.contains_key(*name)
        });
        let room = POD_QUERIES_MAX.saturating_sub(self.pods_asked.len());
        let ids: Vec<NodeId> = wanted
            .filter_map(|(name, _)| {
                decision
                    .verdicts
                    .get(name)
                    .map(|verdict| verdict.node.clone())
            })
            .take(room)
            .collect();
        for node in ids {
            self.pods_asked.insert(node.name.clone(), now);
            let cluster = Arc::clone(cluster);
            let clock = Arc::clone(&self.parts.clock);
            self.answers.spawn(async move {
                let at = clock.now();
                let answer = cluster.pods(&node).await;
                Answer::Pods { node, at, answer }
            });
        }
        self.pods
            .retain(|name, _| decision.wants.contains_key(name));
    }

    // ---- taking ----

    fn take_answer(&mut self, answer: Option<Result<Answer, tokio::task::JoinError>>) {
        match answer {
            None => {}
            Some(Err(error)) => {
                // A task of ours that panicked is a fault in the program, and must not be silent.
                error!(%error, "a task of the cycle failed");
                self.telemetry_running = false;
                self.looking = false;
                self.forget_filling();
                self.pods_asked.clear();
            }
            Some(Ok(Answer::Telemetry {
                asked_at,
                took,
                model,
                answer,
            })) => {
                self.telemetry_running = false;
                self.parts.counters.cycle(&[("features", took)], took);
                match answer {
                    Ok(answer) => {
                        let (scored, counts) = *answer;
                        self.parts
                            .counters
                            .set_telemetry(scored.columns_failed, scored.targets_refused);
                        self.parts.counters.set_history(scored.history);
                        self.telemetry_problem = None;
                        self.scored_by(Arc::clone(&model));
                        self.take_drift(&model, &scored, counts);
                        self.scored = Some(Arc::new(scored));
                    }
                    Err(problem) => {
                        self.parts.counters.telemetry_failed();
                        warn!(at = %asked_at, error = problem, "no features");
                        self.telemetry_problem = Some(problem);
                    }
                }
            }
            Some(Ok(Answer::Model(looked))) => self.take_model(looked),
            Some(Ok(Answer::Past(filled))) => self.take_past(filled),
            Some(Ok(Answer::Pods { node, at, answer })) => {
                self.pods_asked.remove(&node.name);
                match answer {
                    // Asked before the clock was set back: nobody could tell how old it is.
                    Ok(_) if at > self.parts.clock.now() => {}
                    Ok(pods) => drop(self.pods.insert(node.name, (node.uid, at, pods))),
                    Err(error) => {
                        warn!(node = %node, %error, "pods could not be read");
                        self.pods_failed.insert(node.name, Instant::now());
                    }
                }
            }
            Some(Ok(Answer::Alerts(Ok(payload)))) => {
                self.alerts_problem = None;
                self.take_alerts(payload);
            }
            Some(Ok(Answer::Alerts(Err(problem)))) => {
                warn!(
                    error = problem,
                    "active alerts could not be read from Alertmanager"
                );
                self.alerts_problem = Some(problem);
            }
        }
    }

    fn take_report(&mut self, report: Report) {
        let now = self.now();
        self.own.take(&report, now);
        self.shown
            .report(&self.parts.events, &self.parts.counters, now, &report);
    }

    /// Takes one delivery in.
    fn take_alerts(&mut self, payload: Payload) {
        let now = self.now();
        let table = Arc::clone(&self.nodes.borrow());
        let instances = self
            .scored
            .as_ref()
            .map(|scored| scored.instances.clone())
            .unwrap_or_default();
        let nodes = self.alert_nodes(&table, &instances);
        let applied = self
            .book
            .apply(payload, now, Some(&nodes).filter(|_| table.synced));
        self.parts.counters.alerts(&applied);
        self.shown.alerts(&self.parts.events, now, &applied);
    }

    fn alert_nodes<'a>(
        &self,
        table: &NodeTable,
        instances: &'a BTreeMap<String, NodeName>,
    ) -> AlertNodes<'a> {
        let watched = table
            .nodes
            .iter()
            .map(|(name, entry)| (name.clone(), entry.facts.created_at, entry.hostname.clone()));
        let scraped = self
            .scored
            .iter()
            .filter(|_| self.parts.cluster.is_none())
            .flat_map(|scored| {
                scored
                    .matrix
                    .nodes
                    .iter()
                    .map(|name| (name.clone(), Timestamp::UNIX_EPOCH, None))
            });
        AlertNodes::new(watched.chain(scraped), instances)
    }

    // ---- time ----

    /// The time by the wall clock; a jump since the last look is dealt with first.
    fn now(&mut self) -> Timestamp {
        let now = self.parts.clock.now();
        if let Some(by) = self.times.look(now, self.parts.clock.boottime()) {
            self.broke_off(now, Break::Jumped(by));
        }
        now
    }

    /// The time since the last decision is not what the clock says, or was not watched. Waits begin
    /// again; after a jump nothing is begun either until those on record have really passed.
    fn broke_off(&mut self, now: Timestamp, what: Break) {
        // Read before the jump, or dated by a clock that was set: as good as not read.
        self.pods.clear();
        self.pods_asked.clear();
        let by = match what {
            Break::Unwatched(_) => SignedDuration::ZERO,
            Break::Jumped(by) => {
                self.book.shift(by);
                let lasting = {
                    let leadership = self.parts.leadership.borrow();
                    time::settle_for(&self.options.policy, by, leadership.record.as_ref())
                };
                let why = time::words(by);
                self.times.settle(self.parts.clock.boottime(), lasting, why);
                by
            }
        };
        self.memory = self.memory.after_a_break(by);
        self.shown.broke_off(&self.parts.events, now, what);
    }

    // ---- deciding ----

    /// Decides once and publishes what came of it. Returns the time to the end of the nearest wait.
    async fn decide_once(&mut self) -> Option<Duration> {
        // Reports before Nodes: a mark that is made in between then counts twice, as sent and as seen,
        // and a set of names counts it once. The other way round it could be missed.
        let waiting = self
            .parts
            .reports
            .as_mut()
            .map(ReportRx::drain)
            .unwrap_or_default();
        waiting
            .into_iter()
            .for_each(|report| self.take_report(report));
        let table = Arc::clone(&self.nodes.borrow_and_update());
        if !table.synced {
            self.publish_unsynced(&table);
            return None;
        }
        let started = Instant::now();
        let world = self.world(&table);
        let now = world.at;
        let policy = Arc::clone(&self.options.policy);
        let memory = std::mem::take(&mut self.memory);
        let thought = tokio::task::spawn_blocking(move || {
            let decision = decide(&policy, &memory, &world);
            let audited = audit(&policy, &decision.memory, &world, decision.plan.clone());
            (world, decision, audited)
        });
        let (world, decision, audited) = match thought.await {
            Ok(done) => done,
            Err(error) => {
                error!(%error, "the decision failed; nothing is done until it succeeds");
                self.publish_plan(AuditedPlan::idle(now));
                return None;
            }
        };
        let took = started.elapsed();
        self.parts.counters.cycle(&[("decide", took)], took);
        self.memory = decision.memory.clone();

        let leads = self.parts.leadership.borrow().leader;
        let mut refusal = None;
        let plan = match audited {
            Ok(plan) if leads => plan,
            Ok(_) => AuditedPlan::idle(now),
            Err(refusals) => {
                refusal = refusals.first().map(ToString::to_string);
                // Deciding again, many times a second, says nothing new.
                if refusal != self.shown.refusal() {
                    for refused in &refusals {
                        error!(
                            limit = refused.limit.as_str(),
                            detail = refused.detail,
                            "the audit refused a plan; nothing of it is done"
                        );
                    }
                }
                AuditedPlan::idle(now)
            }
        };
        self.publish_plan(plan);
        self.announce(&world, &decision, refusal.as_deref());
        self.ask_pods(&decision, now);
        let until = decision
            .verdicts
            .values()
            .flat_map(|verdict| verdict.holds.iter().filter_map(|hold| hold.until))
            .filter(|until| *until > now)
            .min()
            .map(|until| since(now, until));
        self.publish(&table, &world, decision, refusal, took);
        until
    }

    /// Kubernetes Events about what is not done.
    fn announce(&mut self, world: &World, decision: &Decision, refusal: Option<&str>) {
        let leadership = self.parts.leadership.borrow();
        let out = self
            .parts
            .announce
            .as_ref()
            .filter(|_| leadership.leader && !leadership.paused);
        // A follower leaves it to the leader, and forgets nothing that it may have to say later.
        if out.is_some() || self.parts.announce.is_none() {
            self.announced.malformed(&self.parts.events, out, world);
        }
        if let Some(out) = out {
            self.announced
                .announce(out, decision, refusal, leadership.since);
        }
    }

    /// Always, also when it is the same again: the actuator carries out only what was decided after
    /// its last write.
    fn publish_plan(&self, plan: AuditedPlan) {
        self.parts.plans.send_replace(Some(Arc::new(plan)));
    }

    fn world(&mut self, table: &NodeTable) -> World {
        let leadership = self.parts.leadership.borrow_and_update().clone();
        self.forget_alerts_of_another_time(&leadership);
        // Milliseconds are enough for anything that is decided, and for anybody who reads it.
        let now = milliseconds(self.now());
        let boot = self.parts.clock.boottime();
        if let Some(gap) = self.times.decide(boot, self.options.policy.score_age_max) {
            self.broke_off(now, Break::Unwatched(gap));
        }
        let settled = self.times.settling(boot).is_none();
        self.own.tidy(table, now);
        self.judge_model(now);
        let nodes_known = self.nodes_are_known(table);
        let scored = self.scored.clone();
        let instances = scored
            .as_ref()
            .map(|scored| scored.instances.clone())
            .unwrap_or_default();

        let nodes: BTreeMap<NodeName, NodeFacts> = if self.parts.cluster.is_some() {
            table
                .nodes
                .iter()
                .map(|(name, entry)| (name.clone(), self.facts_of(entry)))
                .collect()
        } else {
            let scraped = scored.iter().flat_map(|scored| scored.matrix.nodes.iter());
            scraped
                .map(|name| (name.clone(), unwatched(name)))
                .collect()
        };
        self.book.prune(now);
        let alerts = self
            .book
            .active_by_node(now, &self.alert_nodes(table, &instances));
        World {
            at: now,
            nodes,
            scores: scored
                .map(|scored| scored.scores.clone())
                .unwrap_or_default(),
            alerts,
            resolved: self.book.resolved(),
            cluster: leadership.record.filter(|_| nodes_known && settled),
            paused: leadership.paused,
            untrusted: self.standing.why_not(),
            // Across the fleet drift is a question of the model's standing; a Node's own inputs speak for
            // themselves.
            drift: None,
            writes: self.own.writes(),
            drains: self.own.drains.clone(),
        }
    }

    /// Once another process leads, webhooks reach that one, and an alert that was taken here would never
    /// be seen to end. Alerts that act are in the records of their Nodes.
    fn forget_alerts_of_another_time(&mut self, leadership: &Leadership) {
        if leadership.leader {
            self.led = true;
        } else if leadership.other_leads && std::mem::take(&mut self.led) {
            info!("another process leads; alerts that were sent here are forgotten");
            self.book = AlertBook::new(Arc::clone(&self.options.alerts));
        }
    }

    /// What is known of a Node: what the watch shows, its pool, and its Pods where they were asked for.
    fn facts_of(&self, entry: &NodeEntry) -> NodeFacts {
        let facts = entry.facts.clone();
        let pool = self.options.pools.pool_of(&entry.labels).map(str::to_owned);
        let pods = match self.pods.get(&facts.id.name) {
            Some((uid, at, pods)) if *uid == facts.id.uid => Fact::Known(*at, pods.clone()),
            Some(_) | None => Fact::Unknown,
        };
        NodeFacts {
            pods,
            pool,
            ..facts
        }
    }

    /// Whether the watch of the Nodes is fit to decide on. While it is broken for longer than a moment
    /// nothing is begun and no drain sends: a person's `exclude`, or another's mark, would not be seen.
    fn nodes_are_known(&mut self, table: &NodeTable) -> bool {
        if table.problem.is_none() {
            self.nodes_broken_since = None;
            return true;
        }
        let since = *self.nodes_broken_since.get_or_insert_with(Instant::now);
        since.elapsed() < NODES_BROKEN_MAX
    }

    /// Where nothing is ever written, every process counts as leader.
    fn leads(&self) -> bool {
        self.options.policy.reach_max() == Reach::Observe || self.parts.leadership.borrow().leader
    }
}

fn milliseconds(at: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at)
}

/// The next report; never, where there is no actuator.
async fn next_report(reports: Option<&mut ReportRx>) -> Option<Report> {
    match reports {
        Some(reports) => reports.recv().await,
        None => std::future::pending().await,
    }
}

async fn score_aside(
    model: Arc<Model>,
    telemetered: Telemetered,
    missing_max: f64,
    history: Arc<Mutex<History>>,
    count: bool,
) -> Result<(Scored, Option<Counts>), String> {
    let scoring = move || {
        let mut scored = score(&*model.scorer, telemetered, missing_max, &history)?;
        let derived = scored.derived.take().filter(|_| count);
        let counts = derived.map(|derived| drift::count(&model.probe, &derived, &scored.scores));
        Ok((scored, counts))
    };
    match tokio::task::spawn_blocking(scoring).await {
        Ok(scored) => scored,
        Err(error) => Err(format!("scoring failed: {error}")),
    }
}

fn directory(table: &NodeTable) -> NodeDirectory {
    NodeDirectory::new(table.nodes.values().map(|entry| FeatureNode {
        name: entry.facts.id.name.clone(),
        uid: entry.facts.id.uid.clone(),
        created: entry.facts.created_at,
        hostname: entry.hostname.clone(),
        addresses: entry.addresses.clone(),
    }))
}

/// A Node that only Prometheus knows, where Kubernetes is not used: nothing can be written to it.
fn unwatched(name: &NodeName) -> NodeFacts {
    NodeFacts {
        id: NodeId {
            name: name.clone(),
            uid: Uid::new(""),
        },
        created_at: Timestamp::UNIX_EPOCH,
        ready: true,
        cordoned: false,
        control_plane: false,
        zone: None,
        pool: None,
        labels: Arc::default(),
        allocatable: Resources::default(),
        taints: Vec::new(),
        risk_label: None,
        record: RecordState::Absent,
        excluded: false,
        hold_until: None,
        taken_by: None,
        pods: Fact::Unknown,
    }
}

/// An error with everything that led to it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
