//! The loop in virtual time: what it orders, and what it says, when telemetry and clocks misbehave.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use foreshock_core::decision::plan::Cause;
use foreshock_core::decision::verdict::HoldReason;
use foreshock_core::record::ClusterRecord;
use foreshock_core::risk::Risk;
use futures::future::BoxFuture;

use super::*;
use crate::actuator::{EventRx, event_channel};
use crate::alertmanager::webhook_queue;
use crate::clock::VirtualClock;
use crate::config::Config;
use crate::events::{EventKind, EventQuery};
use crate::features::identity::{Sightings, Target};
use crate::features::{ColumnName, FeatureMatrix, FeatureName, IdentityMap, ModelMatrix, Schema};
use crate::features::{TelemetryError, telemetry::Column};
use crate::model::artifact::Source;
use crate::model::loaded::Terms;
use crate::model::scorer::{Explanation, Score, Scorer};
use crate::model::testing;
use crate::simulate::cluster::{Fault, NodeSpec, SimulatedCluster, SimulatedClusterOptions};
use crate::snapshot::NodeView;

mod drift;
mod fail_static;
mod past;
mod reload;
mod said_once;

/// The feature that stands for the risk here.
const RISK: &str = "mem_used";
const MINUTE: u64 = 60;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The risk of each Node, as Prometheus would have it; a Node that is not here is not scraped.
#[derive(Default)]
struct Told {
    risks: BTreeMap<String, f64>,
    exporter: String,
    /// Nodes with another exporter.
    upgraded: BTreeMap<String, String>,
    down: bool,
    /// How long an answer takes.
    takes: Duration,
}

struct FakeTelemetry(Arc<Mutex<Told>>);

impl Telemetry for FakeTelemetry {
    fn snapshot<'a>(
        &'a self,
        at: Timestamp,
        nodes: &'a NodeDirectory,
    ) -> BoxFuture<'a, Result<Telemetered, TelemetryError>> {
        Box::pin(async move {
            let takes = self.0.lock().unwrap_or_else(PoisonError::into_inner).takes;
            if !takes.is_zero() {
                tokio::time::sleep(takes).await;
            }
            let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if told.down {
                return Err(TelemetryError {
                    at,
                    source: "connection refused".into(),
                });
            }
            let schema = Arc::new(Schema::built_in());
            let names = nodes.entries().iter().map(|entry| entry.name.clone());
            let mut matrix = FeatureMatrix::missing(at, Arc::clone(&schema), names.collect());
            let column = schema.column_of(RISK).expect("is built in");
            let mut sightings = Sightings::default();
            for row in 0..matrix.nodes.len() {
                let name = matrix.nodes[row].to_string();
                let Some(risk) = told.risks.get(&name) else {
                    continue;
                };
                matrix.scraped_at[row] = Some(at);
                matrix.values[(row, column)] = *risk;
                let labels = |pairs: &[(&str, &str)]| {
                    let pairs = pairs.iter();
                    pairs.map(|(k, v)| ((*k).into(), (*v).into())).collect()
                };
                sightings.targets.push(Target {
                    labels: labels(&[("node", &name), ("instance", &name), ("job", "node")]),
                    scraped_at: at,
                });
                let version = told.upgraded.get(&name).unwrap_or(&told.exporter);
                let version = ("version", version.as_str());
                sightings
                    .builds
                    .push(labels(&[("instance", &name), version]));
            }
            Ok(Telemetered {
                identity: IdentityMap::resolve(nodes, at, seconds(120), &sightings),
                columns: schema
                    .features()
                    .iter()
                    .map(|feature| Column::new(feature.name.clone(), at))
                    .collect(),
                problems: Vec::new(),
                matrix,
            })
        })
    }
}

/// Says what the feature says.
struct FakeScorer(Vec<ColumnName>);

impl Scorer for FakeScorer {
    fn id(&self) -> &str {
        "fake"
    }

    fn source(&self) -> Source {
        Source::Synthetic
    }

    fn columns(&self) -> &[ColumnName] {
        &self.0
    }

    fn score(&self, matrix: &ModelMatrix) -> Vec<Score> {
        let risks = matrix.values.column(0);
        let score = |risk: &f64| Score {
            log_odds: 0.0,
            probability: Risk::new(*risk).unwrap_or(Risk::ZERO),
        };
        risks.iter().map(score).collect()
    }

    fn explain(
        &self,
        _matrix: &ModelMatrix,
        _row: usize,
        _usual: &dyn Fn(&FeatureName) -> Option<f64>,
    ) -> Option<Explanation> {
        None
    }
}

/// What was ordered: when, counted from the start on the clock that nobody can set, and what.
type Ordered = Vec<(u64, Cause, String)>;

/// A running loop over a simulated cluster, and hands that carry out at once what it orders.
struct Scene {
    clock: Arc<VirtualClock>,
    cluster: Arc<SimulatedCluster>,
    told: Arc<Mutex<Told>>,
    events: Arc<EventLog>,
    counters: Arc<Counters>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    ordered: Arc<Mutex<Ordered>>,
    leadership: Arc<watch::Sender<Leadership>>,
    published: Mutex<EventRx>,
    _queue: crate::alertmanager::WebhookQueue,
    _tasks: JoinSet<()>,
}

/// Nodes `n00`, `n01`, … that are well, under a policy with these lines.
fn scene(nodes: usize, policy: &str) -> Scene {
    scene_to("taint", nodes, policy)
}

/// The same with another reach.
fn scene_to(reach: &str, nodes: usize, policy: &str) -> Scene {
    let mut model = Model::load(None, terms()).expect("the built-in model");
    model.scorer = Arc::new(FakeScorer(vec![RISK.parse().expect("a column")]));
    scene_by(model, reach, nodes, policy)
}

/// What a model has to fit here, and it may do anything.
fn terms() -> Terms {
    let mut terms = testing::terms(Schema::built_in());
    terms.demands.act_untrained = true;
    terms
}

/// The same with another model.
fn scene_by(model: Model, reach: &str, nodes: usize, policy: &str) -> Scene {
    let toml = format!("[policy]\nreach = \"{reach}\"\n{policy}");
    let config = Config::parse(&toml, Path::new("test.toml"), []).expect("a configuration");
    let policy = Arc::new(config.policy);
    let start: Timestamp = "2026-03-01T12:00:00Z".parse().expect("a time");
    let clock = Arc::new(VirtualClock::new(start));
    let names: Vec<String> = (0..nodes).map(|n| format!("n{n:02}")).collect();
    let specs = names.iter().map(|name| NodeSpec::worker(name.as_str()));
    let options = SimulatedClusterOptions::new(7, start, specs.collect(), Vec::new());
    let cluster = SimulatedCluster::new(options);
    let told = Arc::new(Mutex::new(Told {
        risks: names.iter().map(|name| (name.clone(), 0.05)).collect(),
        exporter: "1.9.1".to_owned(),
        upgraded: BTreeMap::new(),
        down: false,
        takes: Duration::ZERO,
    }));
    let events = Arc::new(EventLog::new(start));
    let counters = Arc::new(Counters::new());
    let (queue, webhook) = webhook_queue();
    let leads = Leadership {
        leader: true,
        other_leads: false,
        since: start,
        paused: false,
        record: Some(ClusterRecord::default()),
        holder: None,
        address: None,
        problem: None,
    };
    let (leadership_tx, leadership) = watch::channel(leads);
    let leadership_tx = Arc::new(leadership_tx);
    let (announce, published) = event_channel();
    let starting = Snapshot::starting(start, "test", Arc::clone(&policy));
    let (snapshots_tx, snapshots) = watch::channel(Arc::new(starting));
    let (plans_tx, plans) = watch::channel(None);
    let cycle = Cycle::new(
        CycleOptions {
            interval: seconds(15),
            lag: seconds(30),
            // One feature is all that there is.
            missing_max: 1.0,
            shortened: Vec::new(),
            pools: config.pools,
            model,
            started_at: start,
            alerts: Arc::new(config.alerts),
            policy,
        },
        CycleParts {
            telemetry: Arc::new(FakeTelemetry(Arc::clone(&told))),
            cluster: Some(Arc::clone(&cluster) as Arc<dyn Cluster>),
            webhook,
            alertmanager: None,
            leadership,
            reports: None,
            announce: Some(announce),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            events: Arc::clone(&events),
            counters: Arc::clone(&counters),
            snapshots: snapshots_tx,
            plans: plans_tx,
        },
    );
    let mut tasks = JoinSet::new();
    tasks.spawn(cycle.run(CancellationToken::new()));
    let ordered = Arc::new(Mutex::new(Ordered::new()));
    tasks.spawn(hands(
        Arc::clone(&clock),
        Arc::clone(&cluster),
        plans,
        Arc::clone(&leadership_tx),
        Arc::clone(&ordered),
    ));
    Scene {
        clock,
        cluster,
        told,
        events,
        counters,
        snapshots,
        ordered,
        leadership: leadership_tx,
        published: Mutex::new(published),
        _queue: queue,
        _tasks: tasks,
    }
}

/// Carries out every order at once.
async fn hands(
    clock: Arc<VirtualClock>,
    cluster: Arc<SimulatedCluster>,
    mut plans: watch::Receiver<Option<Arc<AuditedPlan>>>,
    leadership: Arc<watch::Sender<Leadership>>,
    ordered: Arc<Mutex<Ordered>>,
) {
    while plans.changed().await.is_ok() {
        let Some(plan) = plans.borrow_and_update().clone() else {
            continue;
        };
        let plan = plan.plan();
        if let Some(record) = plan.cluster.clone() {
            leadership.send_modify(|leadership| leadership.record = Some(record));
        }
        for order in &plan.marks {
            // What differs from what was expected was decided before the last mark was seen.
            if cluster.mark(order).await.is_ok() {
                let done = (
                    clock.boottime().as_secs(),
                    order.cause,
                    order.node.name.to_string(),
                );
                ordered
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(done);
            }
        }
    }
}

impl Scene {
    fn tell(&self, change: impl FnOnce(&mut Told)) {
        change(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn risk(&self, node: &str, risk: f64) {
        self.tell(|told| {
            told.risks.insert(node.to_owned(), risk);
        });
    }

    /// Lets time pass.
    async fn pass(&self, lasting: u64) {
        tokio::time::sleep(seconds(lasting)).await;
    }

    /// When this was first done to the Node.
    fn done(&self, cause: Cause, node: &str) -> Option<u64> {
        let ordered = self.ordered.lock().unwrap_or_else(PoisonError::into_inner);
        let done = ordered
            .iter()
            .find(|(_, done, name)| *done == cause && name == node);
        done.map(|(at, ..)| *at)
    }

    /// How many times anything was done to any Node.
    fn writes(&self) -> usize {
        let ordered = self.ordered.lock().unwrap_or_else(PoisonError::into_inner);
        ordered.len()
    }

    fn node(&self, name: &str) -> NodeView {
        let snapshot = self.snapshots.borrow().clone();
        snapshot.node(name).expect("is there").clone()
    }

    /// The Node's primary hold.
    fn hold(&self, name: &str) -> Option<HoldReason> {
        self.node(name).verdict.hold().map(|hold| hold.reason)
    }

    /// The Kubernetes Events since the last call: whom they are about, and the reason.
    fn published(&self) -> Vec<(String, &'static str)> {
        let mut published = self
            .published
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let all = std::iter::from_fn(|| published.take());
        all.map(|event| {
            let about = event
                .node
                .map_or("Lease".to_owned(), |node| node.name.to_string());
            (about, event.reason)
        })
        .collect()
    }

    fn pause(&self, paused: bool) {
        self.leadership
            .send_modify(|leadership| leadership.paused = paused);
    }

    fn said(&self, kind: EventKind) -> Vec<String> {
        let page = self.events.page(&EventQuery {
            kind: Some(kind),
            limit: 1_000,
            ..EventQuery::default()
        });
        page.events
            .iter()
            .map(|event| event.message.clone())
            .collect()
    }

    /// A Node that was tainted and has been well again for a minute.
    async fn recovering(&self, node: &str) {
        self.risk(node, 0.9);
        self.pass(2 * MINUTE).await;
        assert!(self.done(Cause::Taint, node).is_some(), "{node} is tainted");
        self.risk(node, 0.05);
        self.pass(MINUTE).await;
        assert_eq!(self.hold(node), Some(HoldReason::Recovering));
    }
}
