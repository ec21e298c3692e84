//! The whole service over a simulated cluster, in virtual time: the real cycle, actuator and leader,
//! in processes that can be killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foreshock::actuator::{Actuator, ActuatorOptions, Leader, LeaderOptions, LeaseTimes};
use foreshock::alertmanager::{WebhookQueue, webhook_queue};
use foreshock::clock::{Clock, VirtualClock};
use foreshock::config::Config;
use foreshock::core::decision::policy::{Policy, Reach};
use foreshock::core::node::NodeName;
use foreshock::core::record::Taint;
use foreshock::core::risk::Risk;
use foreshock::cycle::{Cycle, CycleOptions, CycleParts};
use foreshock::events::EventLog;
use foreshock::features::telemetry::Column;
use foreshock::features::{
    ColumnName, FeatureMatrix, FeatureName, IdentityMap, ModelMatrix, NodeDirectory, Schema,
    Telemetered, Telemetry, TelemetryError,
};
use foreshock::kubernetes::Cluster;
use foreshock::metrics::Counters;
use foreshock::model::artifact::Source;
use foreshock::model::loaded::Model;
use foreshock::model::scorer::{Explanation, Score, Scorer};
use foreshock::simulate::cluster::{
    NodeSpec, SimulatedCluster, SimulatedClusterOptions, WorkloadSpec,
};
use foreshock::snapshot::Snapshot;
use futures::future::BoxFuture;
use jiff::Timestamp;
use ndarray::Array2;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::ledger::Ledger;
use crate::points::{Calls, Seen};

/// What the model says of each Node; one that is not there has no scrape.
pub(crate) type Risks = Arc<Mutex<BTreeMap<NodeName, f64>>>;

/// What a run looks after.
pub(crate) struct Setup {
    /// Workers.
    pub(crate) nodes: usize,
    /// The configuration, as a file would say it.
    pub(crate) configuration: &'static str,
    /// `tainted_max`, in Nodes.
    pub(crate) tainted_max: usize,
    /// `draining_max`, in Nodes.
    pub(crate) draining_max: usize,
}

/// Six workers, and waits of seconds: what a kill meets is the same.
pub(crate) const SHORT: Setup = Setup {
    nodes: 6,
    configuration: SHORT_WAITS,
    tainted_max: 1,
    draining_max: 1,
};

/// The waits of the defaults, with limits that let more go on at once.
pub(crate) const USUAL: Setup = Setup {
    nodes: 24,
    configuration: r#"
        [cycle]
        interval = "30s"
        [model]
        act_untrained = true
        [policy]
        reach = "evict"
        probation = "10m"
        veto_for = "30m"
        repeat_window = "2h"
        [policy.limits]
        tainted_max = 3
        draining_max = 2
        drains_per_hour = 12
        [[alerts.rules]]
        match = ['alertname="NodeOnFire"']
        floor = 0.9
        reach = "evict"
        expire = "30m"
    "#,
    tainted_max: 3,
    draining_max: 2,
};

const SHORT_WAITS: &str = r#"
    [prometheus]
    lag = "1s"
    rate_window = "20s"
    stale_after = "10s"
    [cycle]
    interval = "2s"
    [model]
    act_untrained = true
    [policy]
    reach = "evict"
    confirm_for = "4s"
    drain_after = "4s"
    recover_for = "20s"
    probation = "10s"
    new_node_age = "0s"
    [policy.limits]
    tainted_max = 1
    draining_max = 1
    drains_per_hour = 30
    [[alerts.rules]]
    match = ['alertname="NodeOnFire"']
    floor = 0.9
    reach = "evict"
    expire = "5m"
"#;

/// When every run begins.
pub(crate) fn start() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().expect("a valid time")
}

/// Telemetry that says what it is told.
struct Told {
    risks: Risks,
    gone: Arc<AtomicBool>,
    schema: Arc<Schema>,
    nodes: Vec<NodeName>,
}

impl Telemetry for Told {
    fn snapshot<'a>(
        &'a self,
        at: Timestamp,
        _nodes: &'a NodeDirectory,
    ) -> BoxFuture<'a, Result<Telemetered, TelemetryError>> {
        let risks = self
            .risks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut matrix = FeatureMatrix::missing(at, Arc::clone(&self.schema), self.nodes.clone());
        for (row, name) in matrix.nodes.clone().iter().enumerate() {
            if let Some(risk) = risks.get(name) {
                matrix.values.row_mut(row).fill(*risk);
                matrix.scraped_at[row] = Some(at);
            }
        }
        let columns = self.schema.features().iter();
        let columns = columns
            .map(|feature| Column::new(feature.name.clone(), at))
            .collect();
        let gone = self.gone.load(Ordering::Relaxed);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(30)).await;
            if gone {
                // As when every query has run into its limit: columns there are, and nothing in them.
                let nodes = matrix.nodes.clone();
                matrix = FeatureMatrix::missing(at, Arc::clone(&self.schema), nodes);
            }
            Ok(Telemetered {
                matrix,
                columns,
                identity: IdentityMap::default(),
                problems: Vec::new(),
            })
        })
    }
}

/// A model whose word is its one column.
struct Echo(Vec<ColumnName>);

impl Scorer for Echo {
    fn id(&self) -> &str {
        "echo"
    }

    fn source(&self) -> Source {
        Source::Synthetic
    }

    fn columns(&self) -> &[ColumnName] {
        &self.0
    }

    fn score(&self, matrix: &ModelMatrix) -> Vec<Score> {
        let column: Array2<f64> = matrix.values.clone();
        let risks = column.column(0).to_owned();
        risks
            .iter()
            .map(|risk| Score {
                log_odds: 0.0,
                probability: Risk::new(*risk).unwrap_or(Risk::ZERO),
            })
            .collect()
    }

    fn explain(
        &self,
        _: &ModelMatrix,
        _: usize,
        _: &dyn Fn(&FeatureName) -> Option<f64>,
    ) -> Option<Explanation> {
        None
    }
}

/// One process of foreshock.
struct Process {
    tasks: JoinSet<()>,
    webhook: WebhookQueue,
}

/// A cluster, and the processes that look after it.
pub(crate) struct World {
    /// The cluster.
    pub(crate) cluster: Arc<SimulatedCluster>,
    /// The calls of all processes.
    pub(crate) calls: Arc<Calls>,
    /// What reached the cluster.
    pub(crate) ledger: Arc<Ledger>,
    /// What the model says.
    pub(crate) risks: Risks,
    /// Prometheus is gone.
    pub(crate) prometheus_gone: Arc<AtomicBool>,
    /// The time.
    pub(crate) clock: Arc<VirtualClock>,
    config: Config,
    model: Model,
    processes: BTreeMap<usize, Process>,
    started: usize,
}

impl World {
    /// Workers with a small shop, and nobody who looks after them yet. To be made in a runtime whose time
    /// is paused.
    pub(crate) fn new(calls: Calls, setup: &Setup) -> Self {
        let nodes: Vec<NodeSpec> = (1..=setup.nodes)
            .map(|n| NodeSpec::worker(format!("worker-{n:02}")).in_zone(["a", "b", "c"][n % 3]))
            .collect();
        let size = u32::try_from(setup.nodes).expect("a small cluster");
        let workloads = vec![
            WorkloadSpec::deployment("shop", "web", size).max_unavailable(1),
            WorkloadSpec::deployment("shop", "cart", size - 2),
            WorkloadSpec::stateful_set("shop", "orders", 3),
            WorkloadSpec::daemon_set("monitoring", "node-exporter"),
        ];
        let names: Vec<NodeName> = nodes.iter().map(|node| node.name.clone()).collect();
        let options = SimulatedClusterOptions::new(1, start(), nodes, workloads);
        let config = Config::parse(setup.configuration, Path::new("the simulation"), [])
            .expect("a valid configuration");
        let model = Model::load(None, config.model_terms()).expect("the built-in model");
        let rules = &config.policy.rules;
        let ours: [Taint; 2] = [
            rules.taint.clone(),
            rules
                .caution_taint
                .clone()
                .expect("there is one by default"),
        ];
        Self {
            cluster: SimulatedCluster::new(options),
            calls: Arc::new(calls),
            ledger: Ledger::new(ours, setup.tainted_max, setup.draining_max),
            prometheus_gone: Arc::default(),
            risks: Arc::new(Mutex::new(
                names.into_iter().map(|name| (name, 0.1)).collect(),
            )),
            clock: Arc::new(VirtualClock::new(start())),
            config,
            model,
            processes: BTreeMap::new(),
            started: 0,
        }
    }

    /// Sets what the model says of a Node.
    pub(crate) fn risk(&self, node: &str, risk: f64) {
        let mut risks = self.risks.lock().unwrap_or_else(PoisonError::into_inner);
        risks.insert(NodeName::from(node), risk);
    }

    /// Delivers an alert, or its end, to every process that runs.
    pub(crate) fn alert(&self, node: &str, firing: bool, since: Timestamp) {
        let status = if firing { "firing" } else { "resolved" };
        let ends_at = if firing {
            "0001-01-01T00:00:00Z".to_owned()
        } else {
            self.clock.now().to_string()
        };
        let body = serde_json::json!({
            "version": "4", "groupKey": "{}", "status": status, "receiver": "foreshock",
            "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "",
            "alerts": [{
                "status": status, "labels": {"alertname": "NodeOnFire", "node": node},
                "annotations": {}, "startsAt": since.to_string(), "endsAt": ends_at,
                "generatorURL": "", "fingerprint": format!("fp-{node}"),
            }],
        });
        for process in self.processes.values() {
            process
                .webhook
                .take(body.to_string().as_bytes())
                .expect("a payload of Alertmanager's");
        }
    }

    /// Starts a process. Returns its number.
    pub(crate) fn start_process(&mut self) -> usize {
        self.started += 1;
        let number = self.started;
        let identity = format!("process-{number}");
        let mut policy: Policy = self.config.policy.clone();
        policy.model_trusted = true;
        let policy = Arc::new(policy);
        let cluster: Arc<dyn Cluster> =
            Seen::new(&self.cluster, &self.calls, &self.ledger, &identity);
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let leading = LeaderOptions {
            identity,
            address: None,
            elect: true,
            times: LeaseTimes::default(),
        };
        let (leader, handle) = Leader::new(Arc::clone(&cluster), Arc::clone(&clock), leading);
        let gate = handle.gate(Reach::Evict);
        cluster.set_guard(Arc::new(move || {
            gate.check().map_err(|closed| closed.to_string())
        }));
        let leadership = handle.leadership();
        let (plans_tx, plans) = watch::channel(None);
        let options = ActuatorOptions {
            reach: Reach::Evict,
            marks_per_second: self.config.marks_per_second,
            evictions_per_second: self.config.eviction_rate,
        };
        let (actuator, reports, announce) = Actuator::new(
            options,
            Arc::clone(&cluster),
            Arc::clone(&clock),
            handle,
            plans,
        );
        let (webhook, webhook_rx) = webhook_queue();
        let starting = Snapshot::starting(clock.now(), "simulated", Arc::clone(&policy));
        let (snapshots, _) = watch::channel(Arc::new(starting));
        let telemetry = Told {
            risks: Arc::clone(&self.risks),
            gone: Arc::clone(&self.prometheus_gone),
            schema: Arc::clone(&self.config.schema),
            nodes: self.cluster.nodes_now().into_keys().collect(),
        };
        let feature = self.config.schema.features()[0].name.to_string();
        let mut model = self.model.clone();
        model.scorer = Arc::new(Echo(vec![feature.parse().expect("a feature is a column")]));
        let cycle = Cycle::new(
            CycleOptions {
                interval: self.config.interval,
                lag: self.config.prometheus.lag,
                missing_max: self.config.model.missing_max,
                policy,
                pools: self.config.pools.clone(),
                shortened: Vec::new(),
                model,
                started_at: clock.now(),
                alerts: Arc::new(self.config.alerts.clone()),
            },
            CycleParts {
                telemetry: Arc::new(telemetry),
                cluster: Some(cluster),
                webhook: webhook_rx,
                alertmanager: None,
                leadership,
                reports: Some(reports),
                announce: Some(announce),
                events: Arc::new(EventLog::new(clock.now())),
                clock,
                counters: Arc::new(Counters::new()),
                snapshots,
                plans: plans_tx,
            },
        );
        let mut tasks = JoinSet::new();
        // A process that is killed is told nothing.
        let never = CancellationToken::new();
        tasks.spawn(leader.run(never.clone()));
        tasks.spawn(actuator.run(never.clone()));
        tasks.spawn(cycle.run(never));
        self.processes.insert(number, Process { tasks, webhook });
        number
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self, number: usize) {
        if let Some(mut process) = self.processes.remove(&number) {
            process.tasks.shutdown().await;
        }
    }

    /// The processes that run.
    pub(crate) fn running(&self) -> Vec<usize> {
        self.processes.keys().copied().collect()
    }

    /// Lets the cluster's time pass until now.
    pub(crate) fn follow(&self) {
        self.cluster.advance(self.clock.now());
        self.ledger.look(&self.cluster);
    }
}
