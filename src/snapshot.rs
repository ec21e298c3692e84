//! What one cycle shows: plain data that the cycle fills and that page, API and metrics read.
//!
//! A [`Snapshot`] is whole and never changes: one answer, one scrape and one picture on the page
//! show one cycle. It travels through a `tokio::sync::watch<Arc<Snapshot>>`, where the latest wins.
//! The feature matrix is shared, not copied.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use foreshock_core::decision::policy::{Policy, Reach};
use foreshock_core::decision::verdict::{HoldReason, Phase, Verdict};
use foreshock_core::drain::{Difference, DrainReport, LeftBehind, Moved, PodOutcome};
use foreshock_core::node::NodeName;
use foreshock_core::record::{Ramp, Storm};
use foreshock_core::risk::{Band, Risk};
use jiff::Timestamp;

use crate::alertmanager::{AlertOutcome, ShownAlert};
use crate::features::basics::{Asked, basics};
use crate::features::schema::Unit;
use crate::features::{FeatureMatrix, FeatureName, Usual};
use crate::kubernetes::NodeEntry;
use crate::model::drift::Measured;
use crate::model::outcomes::Outcomes;

/// What one cycle shows.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The time of the decision that is shown.
    pub at: Timestamp,
    /// When this process started.
    pub started_at: Timestamp,
    /// Version of the program.
    pub version: &'static str,
    /// The first list of Nodes is complete and a first decision was made; before that nothing is
    /// known, which is not the same as nothing being there.
    pub synced: bool,
    /// Every Node, sorted by name, without repeats.
    pub nodes: Vec<NodeView>,
    /// The features that the decision rested on; `None` until the first ones have come.
    pub matrix: Option<Arc<FeatureMatrix>>,
    /// What the values in `matrix` usually are.
    pub usual: Arc<dyn UsualValues>,
    /// Every alert that fires, also those that act on nothing; whoever sent one can see it here.
    pub alerts: Vec<ShownAlert>,
    /// The storm that is on.
    pub storm: Option<Storm>,
    /// The cautious beginning after the last one.
    pub ramp: Option<Ramp>,
    /// How much of each limit is used, the cluster's first.
    pub limits: Vec<LimitUse>,
    /// How foreshock itself is.
    pub health: Health,
    /// The policy of the cluster (pools may differ).
    pub policy: Arc<Policy>,
    /// `cycle.interval`: a new snapshot is due after it.
    pub interval: Duration,
    /// Waiting times that are shorter than the defaults, in the demo and in tests; shown so that
    /// nobody takes the demo's haste for the product's.
    pub shortened: Vec<Shortened>,
    /// What is known about the model; `None` where there is none.
    pub model: Option<Arc<ModelCard>>,
    /// What was counted since the start.
    pub counters: Counters,
    /// The cycles since the start.
    pub cycles: Cycles,
}

impl Snapshot {
    /// What is shown before the first cycle: nothing is known yet.
    pub fn starting(at: Timestamp, version: &'static str, policy: Arc<Policy>) -> Self {
        Self {
            at,
            started_at: at,
            version,
            synced: false,
            nodes: Vec::new(),
            matrix: None,
            usual: Arc::new(NothingUsual),
            alerts: Vec::new(),
            storm: None,
            ramp: None,
            limits: Vec::new(),
            health: Health::default(),
            policy,
            interval: Duration::from_secs(15),
            shortened: Vec::new(),
            model: None,
            counters: Counters::default(),
            cycles: Cycles::default(),
        }
    }

    /// What is shown of one Node.
    pub fn node(&self, name: &str) -> Option<&NodeView> {
        self.nodes
            .binary_search_by(|node| node.name().as_str().cmp(name))
            .ok()
            .and_then(|at| self.nodes.get(at))
    }

    /// Nodes in each band, every band included.
    pub fn bands(&self) -> BTreeMap<Band, usize> {
        let mut counts: BTreeMap<Band, usize> = Band::ALL.map(|band| (band, 0)).into();
        for node in &self.nodes {
            *counts.entry(node.verdict.band).or_default() += 1;
        }
        counts
    }

    /// Nodes in each phase, every phase included.
    pub fn phases(&self) -> BTreeMap<Phase, usize> {
        let mut counts: BTreeMap<Phase, usize> = Phase::ALL.map(|phase| (phase, 0)).into();
        for node in &self.nodes {
            *counts.entry(node.verdict.phase).or_default() += 1;
        }
        counts
    }

    /// Nodes by the primary reason that holds them, only reasons that hold one.
    pub fn holds(&self) -> BTreeMap<HoldReason, usize> {
        let mut counts = BTreeMap::new();
        for hold in self.nodes.iter().filter_map(|node| node.verdict.hold()) {
            *counts.entry(hold.reason).or_default() += 1;
        }
        counts
    }

    /// Every input of one Node, in the order of the schema; empty without features.
    pub fn inputs(&self, name: &NodeName) -> Vec<Input> {
        let Some((matrix, row)) = self.row(name) else {
            return Vec::new();
        };
        (0..matrix.schema.len())
            .filter_map(|column| self.input(matrix, row, column))
            .collect()
    }

    /// When the Node was last scraped, as far as the matrix knows.
    pub fn scraped_at(&self, name: &NodeName) -> Option<Timestamp> {
        let (matrix, row) = self.row(name)?;
        matrix.scraped_at.get(row).copied().flatten()
    }

    /// The six things that every operator asks first, each with the feature that tells it; without
    /// one where nothing does.
    pub fn basics(&self, name: &NodeName) -> Vec<(Asked, Option<Input>)> {
        let Some((matrix, row)) = self.row(name) else {
            return Vec::new();
        };
        let input = |feature: &FeatureName| {
            let column = matrix.schema.column_of(feature.as_str())?;
            self.input(matrix, row, column)
        };
        basics(matrix, row)
            .into_iter()
            .map(|basic| (basic.what, basic.told.and_then(|told| input(&told.feature))))
            .collect()
    }

    fn row(&self, name: &NodeName) -> Option<(&FeatureMatrix, usize)> {
        let matrix = self.matrix.as_deref()?;
        Some((matrix, matrix.row_of(name)?))
    }

    fn input(&self, matrix: &FeatureMatrix, row: usize, column: usize) -> Option<Input> {
        let feature = matrix.schema.features().get(column)?;
        let value = matrix.values.get((row, column)).copied()?;
        let value = value.is_finite().then_some(value);
        let source = value.and_then(|_| {
            let place = usize::from(*matrix.sources.get((row, column))?);
            Some(feature.sources.get(place)?.name.clone())
        });
        Some(Input {
            feature: feature.name.clone(),
            value,
            usual: self.usual.usual(row, column),
            unit: feature.unit,
            source,
            optional: feature.optional,
        })
    }
}

/// One feature's value for one Node.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// The feature.
    pub feature: FeatureName,
    /// Its value, in `unit`; `None` is missing.
    pub value: Option<f64>,
    /// What it usually is, in `unit`; `None` where nobody can tell.
    pub usual: Option<f64>,
    /// Unit of both.
    pub unit: Unit,
    /// Where the value came from (`node_exporter`, `kubelet`, …); `None` without a value.
    pub source: Option<Arc<str>>,
    /// It does not count in the share of missing features.
    pub optional: bool,
}

/// What is shown of one Node.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// What is said about it.
    pub verdict: Verdict,
    /// What drives the model's word, the largest absolute contribution first. They and the base add
    /// up to the log-odds of `verdict.model_risk`. Empty without a score.
    pub contributions: Vec<Contribution>,
    /// The rule score: a yardstick beside the model, which never acts. `None` where no rule finds a value.
    pub rule: Option<Risk>,
    /// Id of the model whose word counts; `None` without one.
    pub model: Option<Arc<str>>,
    /// Share of the required features that are missing, in `0.0..=1.0`; 1 without any features.
    pub missing: f64,
    /// The pool of the policy that the Node falls into, if one does.
    pub pool: Option<String>,
    /// What Kubernetes says about it; `None` where Kubernetes is not used.
    pub entry: Option<Arc<NodeEntry>>,
    /// How its running or last drain under the present taint stands.
    pub drain: Option<DrainReport>,
    /// Where the Pods of its last drain went, once that is known.
    pub moved: Option<MovedView>,
    /// With which Pods of its last drain it went otherwise than planned.
    pub differs: Option<DiffersView>,
    /// Volumes of evicted Pods that had not left it at the deadline of its last drain.
    pub volumes: Option<VolumesView>,
}

/// Volumes of evicted Pods that had not left the Node.
#[derive(Clone, Debug)]
pub struct VolumesView {
    /// When that was seen.
    pub at: Timestamp,
    /// In one sentence, fit to be shown.
    pub message: String,
    /// All of it.
    pub left: Arc<LeftBehind>,
}

/// How a drain differed from what was planned when it began.
#[derive(Clone, Debug, PartialEq)]
pub struct DiffersView {
    /// Which drain: its start.
    pub drain: Timestamp,
    /// When it was over.
    pub at: Timestamp,
    /// In one sentence, fit to be shown; empty where it went as planned.
    pub message: String,
    /// Each Pod with which it went otherwise.
    pub differences: Arc<Vec<Difference>>,
}

/// Where the Pods of a drain went.
#[derive(Clone, Debug)]
pub struct MovedView {
    /// When it was known.
    pub at: Timestamp,
    /// In one sentence, fit to be shown.
    pub message: String,
    /// All of it.
    pub moved: Arc<Moved>,
}

impl NodeView {
    /// Its name.
    pub fn name(&self) -> &NodeName {
        &self.verdict.node.name
    }

    /// Its zone, where Kubernetes knows one.
    pub fn zone(&self) -> Option<&str> {
        self.entry.as_ref()?.facts.zone.as_deref()
    }
}

/// What one metric adds to a Node's score.
#[derive(Clone, Debug, PartialEq)]
pub struct Contribution {
    /// The feature.
    pub feature: FeatureName,
    /// Its value, in `unit`; `None` is missing.
    pub value: Option<f64>,
    /// What it usually is, in `unit`.
    pub usual: Option<f64>,
    /// Unit of both.
    pub unit: Unit,
    /// In log-odds; above zero it raises the risk.
    pub contribution: f64,
}

/// What the values of a [`FeatureMatrix`] usually are: the median of the Node's peers, or of its own
/// past.
pub trait UsualValues: Send + Sync + fmt::Debug {
    /// What the value of this row and column usually is, in the feature's unit; `None` where nobody
    /// can tell, as with fewer than three peers.
    fn usual(&self, row: usize, column: usize) -> Option<f64>;
}

/// Nothing is known about what is usual.
#[derive(Clone, Copy, Debug, Default)]
pub struct NothingUsual;

impl UsualValues for NothingUsual {
    fn usual(&self, _row: usize, _column: usize) -> Option<f64> {
        None
    }
}

impl UsualValues for Usual {
    fn usual(&self, row: usize, column: usize) -> Option<f64> {
        self.value(row, column)
    }
}

/// How foreshock itself is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    /// The source of the features.
    pub prometheus: PrometheusHealth,
    /// The cluster.
    pub kubernetes: KubernetesHealth,
    /// The model in use; `None` where there is none.
    pub model: Option<ModelName>,
    /// This process may write. Where nothing is ever written, every process counts as leader.
    pub leader: bool,
    /// Who leads, by the Lease.
    pub leader_name: Option<String>,
    /// Somebody has paused foreshock.
    pub paused: bool,
    /// Everything else that is not as it should be, in words with the remedy.
    pub degraded: Vec<String>,
}

impl Health {
    /// Whether everything is as it should be.
    pub fn is_ok(&self) -> bool {
        self.prometheus.ok && self.kubernetes.ok && self.degraded.is_empty()
    }
}

/// How the source of the features is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PrometheusHealth {
    /// The last cycle got its features.
    pub ok: bool,
    /// The evaluation time of the newest features.
    pub features_at: Option<Timestamp>,
    /// What is wrong, with the remedy.
    pub problem: Option<String>,
}

/// How the connection to the cluster is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KubernetesHealth {
    /// The watch is up to date, or Kubernetes is not used.
    pub ok: bool,
    /// `kubernetes.enabled`.
    pub enabled: bool,
    /// What is wrong, with the remedy.
    pub problem: Option<String>,
}

/// Which model is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelName {
    /// Its name, which changes with its content.
    pub name: String,
    /// Where it was learned: `synthetic`, `local`, `imported`, `rule`.
    pub source: String,
    /// Digest of the features that it was made for.
    pub schema: String,
    /// The furthest that it may cause (`act_untrained` included).
    pub reach: Reach,
}

/// How much of one limit is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitUse {
    /// The key in the configuration: `tainted_max`, `draining_max`, `drains_per_hour`.
    pub name: &'static str,
    /// `cluster`, `zone/NAME` (`zone/` for Nodes without a zone label) or `pool/NAME`.
    pub scope: String,
    /// How many count against it.
    pub used: usize,
    /// How many may.
    pub max: usize,
}

/// A waiting time that is shorter than its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortened {
    /// The key in the configuration, for example `policy.confirm_for`.
    pub key: String,
    /// What is in force.
    pub value: Duration,
    /// The default.
    pub default: Duration,
}

/// What was counted since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Writes to Nodes, by action (`taint`, `untaint`, …) and outcome (`ok`, `conflict`, …).
    pub taints: BTreeMap<(&'static str, &'static str), u64>,
    /// Pods of drains, by what came of them.
    pub evictions: BTreeMap<PodOutcome, u64>,
    /// Alerts received, by what became of them.
    pub alerts: BTreeMap<AlertOutcome, u64>,
    /// How much of the Nodes' last week is remembered; `None` where the model has no column that needs
    /// it.
    pub history: Option<Duration>,
}

/// The cycles since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cycles {
    /// How many.
    pub count: u64,
    /// How long the last one took; `None` before the first.
    pub last: Option<Duration>,
    /// How long its stages took, in their order.
    pub stages: Vec<(&'static str, Duration)>,
}

/// What is known about the model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelCard {
    /// Which model.
    pub name: ModelName,
    /// How far ahead it looks.
    pub horizon: Duration,
    /// The command that made it; empty where that is not known.
    pub command: String,
    /// The time that the training rows span; `None` for simulated rows.
    pub window: Option<(Timestamp, Timestamp)>,
    /// Training rows.
    pub rows: u64,
    /// Those of them that were followed by a degradation.
    pub positives: u64,
    /// The features it reads, the most important first.
    pub features: Vec<CardFeature>,
    /// How it did on rows that it had not seen, by name of the figure (`pr_auc`, `brier_skill`, …).
    pub validation: Vec<(String, f64)>,
    /// How often what it said came true, by bins of what it said; empty where it was not measured.
    pub calibration: Vec<CalibrationBin>,
    /// How far the inputs of today are from those of the training; `None` where that is not measured.
    pub drift: Option<Drift>,
    /// How far it may go, and why no further.
    pub authority: CardAuthority,
    /// What acting on it would have cost on the operator's own history, by what an incident is worth; empty
    /// where that was not judged.
    pub costs: Vec<CardCosts>,
    /// What the operator's own cost of an incident implies.
    pub threshold: CardThreshold,
    /// What a reader has to know, in sentences.
    pub notes: Vec<String>,
}

/// How far a model may go, and why no further.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CardAuthority {
    /// It may cause more than a label.
    pub acts: bool,
    /// `model.act_untrained`: it may although it has not earned it.
    pub act_untrained: bool,
    /// What it has not earned: the name of each reason, and what is to be done, in words.
    pub refusals: Vec<(&'static str, String)>,
    /// The part of the history that it was judged on, with the events in it and the Nodes that they befell.
    pub judged: Option<(Timestamp, Timestamp, u64, u64)>,
}

/// What acting would have cost where an incident is worth so much.
#[derive(Clone, Debug, PartialEq)]
pub struct CardCosts {
    /// Drains that an incident is worth.
    pub incident_cost: f64,
    /// The probability above which acting pays there.
    pub threshold: f64,
    /// Acting on the model, in drains for each Node and day.
    pub cost: f64,
    /// The same without the model: by what, its cost, and the 95 % interval of the model's cost less it.
    pub against: Vec<(&'static str, f64, (f64, f64))>,
}

/// The threshold that a cost implies.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CardThreshold {
    /// `model.incident_cost`: drains that an incident is worth.
    pub incident_cost: f64,
    /// Share of it that a drain in time averts.
    pub efficacy: f64,
    /// The probability above which acting costs less than not acting.
    pub implied: f64,
}

/// One feature of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct CardFeature {
    /// The feature.
    pub feature: FeatureName,
    /// Its unit.
    pub unit: Unit,
    /// Its share of what the model makes of all of them, in `0.0..=1.0`.
    pub importance: f64,
}

/// How often what a model said came true, for one bin of what it said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CalibrationBin {
    /// Lower end of the bin, a probability.
    pub from: f64,
    /// Upper end.
    pub to: f64,
    /// Mean of what the model said.
    pub predicted: f64,
    /// Share that came true.
    pub observed: f64,
    /// Rows in the bin.
    pub rows: u64,
}

/// How far the inputs of today are from those of the training.
#[derive(Clone, Debug, PartialEq)]
pub struct Drift {
    /// What was measured.
    pub measured: Measured,
    /// `model.drift_warn`.
    pub warn: f64,
    /// `model.drift_alarm`.
    pub alarm: f64,
    /// So much has drifted that the model may cause no more than a label.
    pub alarmed: bool,
    /// Whether as many Nodes degrade as it expects; `None` where Kubernetes is not used, and at first.
    pub outcomes: Option<Outcomes>,
}

impl Drift {
    /// In one word.
    pub fn level(&self) -> &'static str {
        let known = self.measured.score.is_some()
            || self.measured.features.iter().any(|one| one.index.is_some());
        if self.alarmed {
            "alarm"
        } else if !known {
            "unknown"
        } else if self.measured.beyond(self.warn).is_empty() {
            "ok"
        } else {
            "warn"
        }
    }
}
