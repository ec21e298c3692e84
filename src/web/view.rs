//! The answers of the API: the shapes that scripts rely on.
//!
//! Fields may be added here, never renamed. Numbers are rounded to what they can mean, so that an
//! answer is no longer than it says.

use std::collections::BTreeMap;

use foreshock_core::decision::verdict::Hold;
use foreshock_core::drain::{DrainReport, MovedWorkload, PodOutcome, Volume};
use foreshock_core::node::NodeName;
use foreshock_core::record::ActingAlert;
use foreshock_core::time::{after, since};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::plan::DrainPlan;
use super::words::{
    AskedWord, BandWord, HoldWord, KindWord, OutcomeWord, PhaseWord, ReachWord, Time, UnitWord,
    seconds,
};
use crate::alertmanager::{AlertOutcome, ShownAlert};
use crate::events::{Event, EventPage};
use crate::features::basics::Asked;
use crate::model::drift::FeatureDrift;
use crate::snapshot::{
    CardCosts, Contribution, DiffersView, Drift, Input, ModelName, MovedView, NodeView, Snapshot,
    VolumesView,
};

/// How many contributions the list of Nodes shows of each.
const TOP: usize = 5;

/// One Node.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Node)]
pub(super) struct NodeJson {
    /// Its name.
    node: String,
    /// The larger of the model's word and the floors of its active alerts, a probability; `null` is
    /// unknown, which is neither healthy nor at risk.
    risk: Option<f64>,
    /// The model's word alone.
    model_risk: Option<f64>,
    /// Name of the model whose word that is.
    model: Option<String>,
    /// The rule score, a yardstick beside the model that never acts; `null` where no rule finds a value.
    rule_score: Option<f64>,
    /// How the risk reads.
    band: BandWord,
    /// Where the Node is: what is true, never what would be.
    phase: PhaseWord,
    /// Since when it is there.
    since: Time,
    /// How far evidence and policy together would let foreshock go.
    reach: ReachWord,
    /// Why nothing, or nothing more, is done: the primary reason.
    hold: Option<HoldJson>,
    /// All reasons, the primary one first.
    holds: Vec<HoldJson>,
    /// Alerts that count, strongest first.
    alerts: Vec<AlertJson>,
    /// Share of the required features that are missing.
    missing: f64,
    /// What drives the model's word most.
    top: Vec<ContributionJson>,
    /// Why, in words, strongest first.
    reasons: Vec<String>,
    /// Its zone.
    zone: Option<String>,
    /// The pool of the policy that it falls into.
    pool: Option<String>,
    /// How its running or last drain under the present taint stands.
    drain: Option<DrainJson>,
}

impl NodeJson {
    pub(super) fn new(node: &NodeView) -> Self {
        let verdict = &node.verdict;
        let holds: Vec<HoldJson> = verdict.holds.iter().map(HoldJson::new).collect();
        Self {
            node: node.name().as_str().to_owned(),
            risk: verdict.risk.map(|risk| decimals(risk.as_f64(), 4)),
            model_risk: verdict.model_risk.map(|risk| decimals(risk.as_f64(), 4)),
            model: node.model.as_deref().map(str::to_owned),
            rule_score: node.rule.map(|rule| decimals(rule.as_f64(), 4)),
            band: BandWord(verdict.band),
            phase: PhaseWord(verdict.phase),
            since: Time(verdict.since),
            reach: ReachWord(verdict.reach),
            hold: holds.first().cloned(),
            holds,
            alerts: verdict.alerts.iter().map(AlertJson::new).collect(),
            missing: decimals(node.missing, 4),
            top: node
                .contributions
                .iter()
                .take(TOP)
                .map(ContributionJson::new)
                .collect(),
            reasons: verdict.reasons.clone(),
            zone: node.zone().map(str::to_owned),
            pool: node.pool.clone(),
            drain: node.drain.as_ref().map(DrainJson::new),
        }
    }
}

/// Why nothing, or nothing more, is done.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Hold)]
pub(super) struct HoldJson {
    /// The reason.
    reason: HoldWord,
    /// In words.
    detail: String,
    /// What would lift it: who has to do what, or what has to come true.
    lift: &'static str,
    /// When time alone lifts it.
    until: Option<Time>,
}

impl HoldJson {
    fn new(hold: &Hold) -> Self {
        Self {
            reason: HoldWord(hold.reason),
            detail: hold.detail.clone(),
            lift: hold.reason.lift(),
            until: hold.until.map(Time),
        }
    }
}

/// An alert that counts.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Alert)]
pub(super) struct AlertJson {
    /// `alertname`.
    name: String,
    /// Alertmanager's fingerprint.
    fingerprint: String,
    /// Since when it fires.
    starts_at: Time,
    /// The Node's risk is at least this while it is active.
    floor: f64,
    /// The furthest that it may cause.
    reach: ReachWord,
    /// When it stops counting unless it is refreshed.
    expires_at: Time,
}

impl AlertJson {
    fn new(alert: &ActingAlert) -> Self {
        Self {
            name: alert.name.clone(),
            fingerprint: alert.fingerprint.clone(),
            starts_at: Time(alert.starts_at),
            floor: alert.floor.as_f64(),
            reach: ReachWord(alert.reach),
            expires_at: Time(alert.expires_at),
        }
    }
}

/// What one metric adds to a score.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Contribution)]
pub(super) struct ContributionJson {
    /// The feature.
    feature: String,
    /// Its value, in `unit`; `null` is missing.
    value: Option<f64>,
    /// What it usually is, in `unit`; `null` where nobody can tell.
    usual: Option<f64>,
    /// In log-odds; above zero it raises the risk.
    contribution: f64,
    /// Unit of `value` and `usual`.
    unit: UnitWord,
}

impl ContributionJson {
    fn new(contribution: &Contribution) -> Self {
        Self {
            feature: contribution.feature.as_str().to_owned(),
            value: contribution.value.map(significant),
            usual: contribution.usual.map(significant),
            contribution: decimals(contribution.contribution, 4),
            unit: UnitWord(contribution.unit),
        }
    }
}

/// How a drain stands.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Drain)]
pub(super) struct DrainJson {
    /// When it was started; identifies the drain.
    started_at: Time,
    /// Pods that are still to go.
    remaining: u32,
    /// Pods that are gone.
    gone: u32,
    /// When it ended; `null` while it runs.
    ended_at: Option<Time>,
    /// How it ended.
    outcome: Option<OutcomeWord>,
    /// What stood in the way.
    detail: String,
}

impl DrainJson {
    fn new(drain: &DrainReport) -> Self {
        Self {
            started_at: Time(drain.started_at),
            remaining: drain.remaining,
            gone: drain.gone,
            ended_at: drain.ended.map(|(at, _)| Time(at)),
            outcome: drain.ended.map(|(_, outcome)| OutcomeWord(outcome)),
            detail: drain.detail.clone(),
        }
    }
}

/// Workloads of a drain that are listed.
const MOVED_WORKLOADS: usize = 100;

/// Where the Pods of a drain went.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Moved)]
pub(super) struct MovedJson {
    /// Which drain: its start.
    drain: Time,
    /// When it was known.
    at: Time,
    /// In one sentence.
    message: String,
    /// Replacements that became Ready.
    moved: u32,
    /// Evicted Pods without a Ready replacement within `eviction.pod_deadline`.
    not_ready: u32,
    /// Evicted Pods that needed no replacement: the workload has all that it asks for, or is gone.
    unneeded: u32,
    /// Evicted Pods of which it is not known, since their workload could not be looked at.
    unknown: u32,
    /// From the first request to the last Ready replacement.
    seconds: f64,
    /// The Nodes on which they became Ready, the one with the most first.
    to: Vec<MovedToJson>,
    /// The same for each workload; at most 100.
    workloads: Vec<MovedWorkloadJson>,
    /// Workloads that are not listed.
    workloads_left_out: usize,
}

/// So many Pods became Ready on a Node.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = MovedTo)]
pub(super) struct MovedToJson {
    /// The Node.
    node: String,
    /// Pods.
    pods: u32,
}

/// Where the Pods of one workload went.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = MovedWorkload)]
pub(super) struct MovedWorkloadJson {
    /// Its namespace.
    namespace: String,
    /// What it is: `Deployment`, `StatefulSet` and the like.
    kind: String,
    /// Its name.
    name: String,
    /// The Nodes on which its replacements became Ready.
    to: Vec<MovedToJson>,
    /// The longest time from a request to the replacement's being Ready.
    longest_seconds: f64,
    /// Evicted Pods without a Ready replacement.
    not_ready: u32,
    /// Evicted Pods that needed no replacement.
    unneeded: u32,
    /// Evicted Pods of which it is not known.
    unknown: u32,
    /// Why not.
    problem: Option<String>,
}

impl MovedJson {
    fn new(view: &MovedView) -> Self {
        let moved = &view.moved;
        let to = |(node, pods): (&NodeName, u32)| MovedToJson {
            node: node.as_str().to_owned(),
            pods,
        };
        let workload = |each: &MovedWorkload| MovedWorkloadJson {
            namespace: each.namespace.clone(),
            kind: each.owner.kind.clone(),
            name: each.owner.name.clone(),
            to: each.to.iter().map(|(node, n)| to((node, *n))).collect(),
            longest_seconds: decimals(each.longest.as_secs_f64(), 3),
            not_ready: each.missing,
            unneeded: each.unneeded,
            unknown: each.unseen,
            problem: each.problem.clone(),
        };
        let listed = moved.workloads.iter().take(MOVED_WORKLOADS);
        Self {
            drain: Time(moved.drain.started_at),
            at: Time(view.at),
            message: view.message.clone(),
            moved: moved.moved(),
            not_ready: moved.missing(),
            unneeded: moved.unneeded(),
            unknown: moved.unseen(),
            seconds: decimals(moved.took.as_secs_f64(), 3),
            to: moved.to().into_iter().map(to).collect(),
            workloads: listed.map(workload).collect(),
            workloads_left_out: moved.workloads.len().saturating_sub(MOVED_WORKLOADS),
        }
    }
}

/// Pods that went otherwise than planned which are listed.
const DIFFERENCES: usize = 100;

/// How the last drain differed from what was planned when it began.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Differs)]
pub(super) struct DiffersJson {
    /// Which drain: its start.
    drain: Time,
    /// When it was over.
    at: Time,
    /// In one sentence; empty where everything went as planned.
    message: String,
    /// The Pods with which it did not; at most 100.
    pods: Vec<DifferenceJson>,
    /// Pods that are not listed.
    pods_left_out: usize,
}

/// One Pod with which it went otherwise than planned.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Difference)]
pub(super) struct DifferenceJson {
    /// Its namespace.
    namespace: String,
    /// Its name.
    name: String,
    /// Its UID.
    uid: String,
    /// What is different, in words.
    difference: String,
}

impl DiffersJson {
    fn new(view: &DiffersView) -> Self {
        let listed = view.differences.iter().take(DIFFERENCES);
        Self {
            drain: Time(view.drain),
            at: Time(view.at),
            message: view.message.clone(),
            pods: listed
                .map(|each| DifferenceJson {
                    namespace: each.pod.namespace.clone(),
                    name: each.pod.name.clone(),
                    uid: each.pod.uid.as_str().to_owned(),
                    difference: each.what.to_string(),
                })
                .collect(),
            pods_left_out: view.differences.len().saturating_sub(DIFFERENCES),
        }
    }
}

/// Volumes of a drain that are listed.
const VOLUMES: usize = 100;

/// Volumes of evicted Pods that had not left the Node at the drain's deadline. No Pod on the Node used them.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Volumes)]
pub(super) struct VolumesJson {
    /// Which drain: its start.
    drain: Time,
    /// When they were looked at for the last time.
    at: Time,
    /// In one sentence.
    message: String,
    /// At most 100.
    volumes: Vec<VolumeJson>,
    /// Volumes that are not listed.
    volumes_left_out: usize,
}

/// One volume that had not left the Node.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Volume)]
pub(super) struct VolumeJson {
    /// Namespace of the claim.
    namespace: String,
    /// The claim.
    claim: String,
    /// The PersistentVolume.
    volume: String,
    /// Why it is not known whether it was attached; `null` where it was.
    problem: Option<String>,
}

impl VolumesJson {
    fn new(view: &VolumesView) -> Self {
        let left = &view.left;
        let one = |(volume, problem): (&Volume, Option<&String>)| VolumeJson {
            namespace: volume.namespace.clone(),
            claim: volume.claim.clone(),
            volume: volume.name.clone(),
            problem: problem.cloned(),
        };
        let attached = left.attached.iter().map(|volume| (volume, None));
        let unknown = left.unknown.iter();
        let unknown = unknown.map(|(volume, problem)| (volume, Some(problem)));
        let count = left.attached.len() + left.unknown.len();
        Self {
            drain: Time(left.drain.started_at),
            at: Time(view.at),
            message: view.message.clone(),
            volumes: attached.chain(unknown).take(VOLUMES).map(one).collect(),
            volumes_left_out: count.saturating_sub(VOLUMES),
        }
    }
}

/// The Nodes. Written piece by piece from the cache; this says what it looks like.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Nodes)]
pub(super) struct NodesJson {
    /// The time of the decision that is shown.
    at: Time,
    /// The Nodes, by name.
    nodes: Vec<NodeJson>,
    /// `cursor` for the next part; `null` when there is none.
    next: Option<String>,
}

/// One Node in detail.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NodeDetail)]
pub(super) struct NodeDetailJson {
    /// The Node as in the list.
    #[serde(flatten)]
    node: NodeJson,
    /// The time of the decision that is shown.
    at: Time,
    /// UID of the Node; `null` where Kubernetes is not used.
    uid: Option<String>,
    /// Condition `Ready` is `True`; `null` where Kubernetes is not used.
    ready: Option<bool>,
    /// Somebody has cordoned it.
    cordoned: Option<bool>,
    /// Its taints, as `key=value:effect`.
    taints: Vec<String>,
    /// Its labels.
    labels: BTreeMap<String, String>,
    /// Features by name; `null` is missing.
    features: BTreeMap<String, Option<f64>>,
    /// The time that the features were asked for.
    features_at: Option<Time>,
    /// When the Node was last scraped.
    scraped_at: Option<Time>,
    /// Features with unit, usual value and source, in the order of the schema.
    inputs: Vec<InputJson>,
    /// The six numbers that people look at first.
    basics: Vec<BasicJson>,
    /// What drives the model's word, all of it, the largest first.
    contributions: Vec<ContributionJson>,
    /// What a drain would do now; `null` where that is not known, or with `?plan=false`.
    plan: Option<DrainPlan>,
    /// Why there is no plan.
    plan_problem: Option<String>,
    /// Where the Pods of its last drain went; `null` before all replacements are accounted for, and after a
    /// restart.
    moved: Option<MovedJson>,
    /// How its last drain differed from what was planned when it began; `null` before its end, and after a
    /// restart.
    differs: Option<DiffersJson>,
    /// Volumes of Pods that its last drain has evicted and that had not left it at the drain's deadline; `null`
    /// before, where there are none, and after a restart.
    volumes: Option<VolumesJson>,
    /// What happened to it since foreshock started.
    history: HistoryJson,
}

impl NodeDetailJson {
    pub(super) fn new(
        snapshot: &Snapshot,
        node: &NodeView,
        plan: Option<Result<DrainPlan, String>>,
        history: HistoryJson,
    ) -> Self {
        let name = node.name();
        let facts = node.entry.as_ref().map(|entry| &entry.facts);
        let inputs = snapshot.inputs(name);
        let (plan, plan_problem) = match plan {
            None => (None, None),
            Some(Ok(plan)) => (Some(plan), None),
            Some(Err(problem)) => (None, Some(problem)),
        };
        Self {
            node: NodeJson::new(node),
            at: Time(snapshot.at),
            uid: facts.map(|facts| facts.id.uid.as_str().to_owned()),
            ready: facts.map(|facts| facts.ready),
            cordoned: facts.map(|facts| facts.cordoned),
            taints: facts
                .map(|facts| facts.taints.iter().map(ToString::to_string).collect())
                .unwrap_or_default(),
            labels: node
                .entry
                .as_ref()
                .map(|entry| (*entry.labels).clone())
                .unwrap_or_default(),
            features: inputs
                .iter()
                .map(|input| {
                    let value = input.value.map(significant);
                    (input.feature.as_str().to_owned(), value)
                })
                .collect(),
            features_at: snapshot.matrix.as_ref().map(|matrix| Time(matrix.at)),
            scraped_at: snapshot.scraped_at(name).map(Time),
            inputs: inputs.iter().map(InputJson::new).collect(),
            basics: snapshot
                .basics(name)
                .iter()
                .map(|(asked, input)| BasicJson::new(*asked, input.as_ref()))
                .collect(),
            contributions: node
                .contributions
                .iter()
                .map(ContributionJson::new)
                .collect(),
            plan,
            plan_problem,
            moved: node.moved.as_ref().map(MovedJson::new),
            differs: node.differs.as_ref().map(DiffersJson::new),
            volumes: node.volumes.as_ref().map(VolumesJson::new),
            history,
        }
    }
}

/// One feature of a Node.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Input)]
pub(super) struct InputJson {
    /// The feature.
    feature: String,
    /// Its value, in `unit`; `null` is missing.
    value: Option<f64>,
    /// What it usually is, in `unit`.
    usual: Option<f64>,
    /// Unit of both.
    unit: UnitWord,
    /// Where the value came from.
    source: Option<String>,
    /// It does not count in the share of missing features.
    optional: bool,
}

impl InputJson {
    fn new(input: &Input) -> Self {
        Self {
            feature: input.feature.as_str().to_owned(),
            value: input.value.map(significant),
            usual: input.usual.map(significant),
            unit: UnitWord(input.unit),
            source: input.source.as_deref().map(str::to_owned),
            optional: input.optional,
        }
    }
}

/// One of the six things that every operator asks first.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Basic)]
pub(super) struct BasicJson {
    /// What is asked.
    name: AskedWord,
    /// The feature that tells it; `null` where nothing does, and then the rest is too.
    feature: Option<String>,
    /// Its value, in `unit`.
    value: Option<f64>,
    /// What it usually is, in `unit`.
    usual: Option<f64>,
    /// Unit of both.
    unit: Option<UnitWord>,
    /// Where the value came from.
    source: Option<String>,
}

impl BasicJson {
    fn new(asked: Asked, input: Option<&Input>) -> Self {
        let input = input.map(InputJson::new);
        Self {
            name: AskedWord(asked),
            feature: input.as_ref().map(|input| input.feature.clone()),
            value: input.as_ref().and_then(|input| input.value),
            usual: input.as_ref().and_then(|input| input.usual),
            unit: input.as_ref().map(|input| input.unit),
            source: input.and_then(|input| input.source),
        }
    }
}

/// An alert that fires, whether or not it acts.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = FiringAlert)]
pub(super) struct FiringAlertJson {
    /// `alertname`.
    name: String,
    /// Alertmanager's fingerprint.
    fingerprint: String,
    /// Label `severity`.
    severity: String,
    /// What it says.
    summary: String,
    /// The Node it means, where it means one.
    node: Option<String>,
    /// The label that names the Node, or fails to, as `label=value`.
    clue: Option<String>,
    /// Where it stands: it acts, is only shown, or why it does not act.
    outcome: &'static str,
    /// The Node's risk is at least this; `null` where no rule is about the alert.
    floor: Option<f64>,
    /// The furthest that it may cause.
    reach: Option<ReachWord>,
    /// Since when it fires.
    starts_at: Time,
    /// When it is forgotten unless it is refreshed.
    expires_at: Time,
}

impl FiringAlertJson {
    fn new(alert: &ShownAlert) -> Self {
        Self {
            name: alert.name.clone(),
            fingerprint: alert.fingerprint.clone(),
            severity: alert.severity.clone(),
            summary: alert.summary.clone(),
            node: alert.node.as_ref().map(|node| node.as_str().to_owned()),
            clue: alert
                .clue
                .as_ref()
                .map(|clue| format!("{}={}", clue.label, clue.value)),
            outcome: alert.outcome.as_str(),
            floor: alert.rule.map(|(floor, _)| floor.as_f64()),
            reach: alert.rule.map(|(_, reach)| ReachWord(reach)),
            starts_at: Time(alert.starts_at),
            expires_at: Time(alert.expires_at),
        }
    }
}

/// Every alert that fires.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FiringAlerts)]
pub(super) struct FiringAlertsJson {
    /// The time of the decision that is shown.
    at: Time,
    /// The alerts.
    alerts: Vec<FiringAlertJson>,
}

impl FiringAlertsJson {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        Self {
            at: Time(snapshot.at),
            alerts: snapshot.alerts.iter().map(FiringAlertJson::new).collect(),
        }
    }
}

/// What happened to a Node.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = History)]
pub(super) struct HistoryJson {
    /// Its risk, oldest first.
    pub(super) risk: Vec<RiskPointJson>,
    /// Its events, newest first.
    pub(super) events: Vec<EventJson>,
}

/// A risk at a time.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = RiskPoint)]
pub(super) struct RiskPointJson {
    /// The time.
    pub(super) at: Time,
    /// The risk; `null` is unknown.
    pub(super) risk: Option<f64>,
}

/// The recent risk of every Node.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RiskHistory)]
pub(super) struct RiskHistoryJson {
    /// The times, oldest first.
    pub(super) at: Vec<Time>,
    /// The risks of each Node at the last so many of these times; `null` is unknown.
    pub(super) nodes: BTreeMap<String, Vec<Option<f64>>>,
}

/// Something that happened.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub(super) struct EventJson {
    /// Which event: `<start>-<n>`.
    id: String,
    /// When.
    at: Time,
    /// What kind of thing.
    kind: KindWord,
    /// The Node it is about.
    node: Option<String>,
    /// The Pod it is about, as `namespace/name`.
    pod: Option<String>,
    /// One sentence.
    message: String,
    /// A word from an enum, where there is one.
    reason: Option<String>,
}

impl EventJson {
    pub(super) fn new(event: &Event) -> Self {
        Self {
            id: event.id.to_string(),
            at: Time(event.at),
            kind: KindWord(event.kind),
            node: event.node.as_ref().map(|node| node.as_str().to_owned()),
            pod: event.pod.clone(),
            message: event.message.clone(),
            reason: event.reason.clone(),
        }
    }
}

/// A part of the events.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Events)]
pub(super) struct EventsJson {
    /// The events.
    events: Vec<EventJson>,
    /// `after` for the next part; `null` when there is none now.
    next: Option<String>,
    /// Some events behind `after` are not there any more.
    gap: bool,
}

impl EventsJson {
    pub(super) fn new(page: &EventPage) -> Self {
        Self {
            events: page.events.iter().map(|e| EventJson::new(e)).collect(),
            next: page.next.map(|id| id.to_string()),
            gap: page.gap,
        }
    }
}

/// How foreshock itself is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Health)]
pub(super) struct HealthJson {
    /// `ok` or `degraded`.
    #[schema(value_type = String, pattern = "ok|degraded")]
    status: &'static str,
    /// What is not as it should be, in words with the remedy.
    problems: Vec<String>,
    /// Version of the program.
    version: &'static str,
    /// The first list of Nodes is complete and a first decision was made.
    synced: bool,
    /// This process may write.
    leader: bool,
    /// Who leads, by the Lease.
    leader_name: Option<String>,
    /// Nothing is written, because somebody paused foreshock.
    paused: bool,
    /// The furthest that the policy allows.
    reach: ReachWord,
    /// The source of the features.
    prometheus: PrometheusJson,
    /// The cluster.
    kubernetes: KubernetesJson,
    /// The model in use.
    model: Option<ModelJson>,
}

impl HealthJson {
    /// Why this replica is not ready, in one line.
    pub(super) fn not_ready(&self) -> String {
        format!("not ready: {}", self.problems.join("; "))
    }
}

/// How the source of the features is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PrometheusHealth)]
struct PrometheusJson {
    /// The last cycle got its features.
    ok: bool,
    /// Age of the newest features; `null` before the first.
    age_seconds: Option<f64>,
    /// What is wrong, with the remedy.
    problem: Option<String>,
}

/// How the connection to the cluster is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KubernetesHealth)]
struct KubernetesJson {
    /// The watch is up to date, or Kubernetes is not used.
    ok: bool,
    /// Kubernetes is used.
    enabled: bool,
    /// What is wrong, with the remedy.
    problem: Option<String>,
}

/// Which model is in use.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Model)]
struct ModelJson {
    /// Its name.
    name: String,
    /// Where it was learned.
    source: String,
    /// The furthest that it may cause.
    reach: ReachWord,
}

impl ModelJson {
    fn new(model: &ModelName) -> Self {
        Self {
            name: model.name.clone(),
            source: model.source.clone(),
            reach: ReachWord(model.reach),
        }
    }
}

impl HealthJson {
    pub(super) fn new(snapshot: &Snapshot, now: Timestamp) -> Self {
        let health = &snapshot.health;
        let mut problems: Vec<String> = Vec::new();
        problems.extend(health.prometheus.problem.clone());
        problems.extend(health.kubernetes.problem.clone());
        problems.extend(health.degraded.iter().cloned());
        if !snapshot.synced {
            problems.push("starting: the first decision has not been made yet".to_owned());
        }
        let ok = health.is_ok() && snapshot.synced;
        Self {
            status: if ok { "ok" } else { "degraded" },
            problems,
            version: snapshot.version,
            synced: snapshot.synced,
            leader: health.leader,
            leader_name: health.leader_name.clone(),
            paused: health.paused,
            reach: ReachWord(snapshot.policy.reach_max()),
            prometheus: PrometheusJson {
                ok: health.prometheus.ok,
                age_seconds: health
                    .prometheus
                    .features_at
                    .map(|at| seconds(since(at, now))),
                problem: health.prometheus.problem.clone(),
            },
            kubernetes: KubernetesJson {
                ok: health.kubernetes.ok,
                enabled: health.kubernetes.enabled,
                problem: health.kubernetes.problem.clone(),
            },
            model: health.model.as_ref().map(ModelJson::new),
        }
    }
}

/// Counters and a summary of the fleet.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Stats)]
pub(super) struct StatsJson {
    /// The time of the decision that is shown.
    at: Time,
    /// Nodes by band.
    nodes: BTreeMap<&'static str, usize>,
    /// Nodes by phase.
    phases: BTreeMap<&'static str, usize>,
    /// Nodes by the primary reason that holds them.
    holds: BTreeMap<&'static str, usize>,
    /// How much of each limit is used.
    limits: Vec<LimitJson>,
    /// The storm that is on.
    storm: Option<StormJson>,
    /// The cautious beginning after the last storm; `null` once the usual limits are the narrower ones.
    ramp: Option<RampJson>,
    /// Writes to Nodes since the start, by action and outcome.
    taints: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    /// Pods of drains since the start, by what came of them.
    evictions: BTreeMap<&'static str, u64>,
    /// Alerts.
    alerts: AlertsJson,
    /// Cycles since the start.
    cycles: CyclesJson,
    /// Seconds since the start.
    uptime_seconds: f64,
    /// Thresholds and waiting times of the policy.
    policy: PolicyJson,
    /// Waiting times that are shorter than the defaults (demo and tests).
    shortened: Vec<ShortenedJson>,
}

/// How much of a limit is used.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Limit)]
struct LimitJson {
    /// The key in the configuration.
    name: &'static str,
    /// `cluster`, `zone/NAME` (`zone/` for Nodes without a zone label) or `pool/NAME`.
    scope: String,
    /// How many count against it.
    used: usize,
    /// How many may.
    max: usize,
}

/// A storm: so many Nodes turned at risk at once that nothing new is begun.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Storm)]
struct StormJson {
    /// When it began.
    since: Time,
    /// What it was seen in: the cluster, a zone, a pool, or an input that many have in common.
    about: String,
    /// Since when few enough Nodes are at risk without our taint; `null` while they are not.
    calm_since: Option<Time>,
    /// When it is over if it stays calm; `null` while it is not calm.
    until: Option<Time>,
}

/// The cautious beginning after a storm.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Ramp)]
struct RampJson {
    /// Since when it is at this width.
    since: Time,
    /// So many Nodes are begun on before it is seen what came of them.
    width: u32,
    /// The Nodes that were begun on at this width: the next ones wait for them.
    nodes: Vec<String>,
}

/// Alerts.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Alerts)]
struct AlertsJson {
    /// Those that fire now.
    active: usize,
    /// Those received since the start, by what became of them.
    received: BTreeMap<&'static str, u64>,
}

/// Cycles.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Cycles)]
struct CyclesJson {
    /// How many.
    count: u64,
    /// How long the last one took.
    last_seconds: Option<f64>,
    /// How long its stages took.
    stages: BTreeMap<&'static str, f64>,
    /// The time between two cycles.
    interval_seconds: f64,
}

/// Thresholds and waiting times of the policy.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Policy)]
struct PolicyJson {
    /// Above this: at risk.
    at_risk: f64,
    /// From here: caution.
    caution: f64,
    /// Below this: well again.
    recover_below: f64,
    /// The taint.
    taint: String,
    /// At risk this long before anything is written.
    confirm_for_seconds: f64,
    /// Tainted this long before the first eviction.
    drain_after_seconds: f64,
    /// Well this long before release.
    recover_for_seconds: f64,
}

/// A waiting time that is shorter than its default.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Shortened)]
struct ShortenedJson {
    /// The key in the configuration.
    key: String,
    /// What is in force.
    seconds: f64,
    /// The default.
    default_seconds: f64,
}

impl StatsJson {
    pub(super) fn new(snapshot: &Snapshot, now: Timestamp) -> Self {
        let counters = &snapshot.counters;
        let mut taints: BTreeMap<_, BTreeMap<_, u64>> = BTreeMap::new();
        for ((action, outcome), count) in &counters.taints {
            taints.entry(*action).or_default().insert(*outcome, *count);
        }
        let policy = &snapshot.policy;
        Self {
            at: Time(snapshot.at),
            nodes: words(snapshot.bands(), |band| band.as_str()),
            phases: words(snapshot.phases(), |phase| phase.as_str()),
            holds: words(snapshot.holds(), |reason| reason.as_str()),
            limits: snapshot
                .limits
                .iter()
                .map(|limit| LimitJson {
                    name: limit.name,
                    scope: limit.scope.clone(),
                    used: limit.used,
                    max: limit.max,
                })
                .collect(),
            storm: snapshot.storm.as_ref().map(|storm| StormJson {
                since: Time(storm.since),
                about: storm.about.clone(),
                calm_since: storm.calm_since.map(Time),
                until: storm
                    .calm_since
                    .map(|calm| Time(after(calm, policy.limits.storm_window))),
            }),
            ramp: snapshot.ramp.as_ref().map(|ramp| RampJson {
                since: Time(ramp.since),
                width: ramp.width,
                nodes: ramp.nodes.keys().map(ToString::to_string).collect(),
            }),
            taints,
            evictions: PodOutcome::ALL
                .into_iter()
                .map(|outcome| {
                    let count = counters.evictions.get(&outcome).copied().unwrap_or(0);
                    (outcome.as_str(), count)
                })
                .collect(),
            alerts: AlertsJson {
                active: snapshot.alerts.len(),
                received: AlertOutcome::ALL
                    .into_iter()
                    .map(|outcome| {
                        let count = counters.alerts.get(&outcome).copied().unwrap_or(0);
                        (outcome.as_str(), count)
                    })
                    .collect(),
            },
            cycles: CyclesJson {
                count: snapshot.cycles.count,
                last_seconds: snapshot.cycles.last.map(seconds),
                stages: snapshot
                    .cycles
                    .stages
                    .iter()
                    .map(|(stage, duration)| (*stage, seconds(*duration)))
                    .collect(),
                interval_seconds: seconds(snapshot.interval),
            },
            uptime_seconds: seconds(since(snapshot.started_at, now)),
            policy: PolicyJson {
                at_risk: policy.rules.at_risk.as_f64(),
                caution: policy.rules.caution.as_f64(),
                recover_below: policy.rules.recover_below.as_f64(),
                taint: policy.rules.taint.to_string(),
                confirm_for_seconds: seconds(policy.rules.confirm_for),
                drain_after_seconds: seconds(policy.rules.drain_after),
                recover_for_seconds: seconds(policy.rules.recover_for),
            },
            shortened: snapshot
                .shortened
                .iter()
                .map(|time| ShortenedJson {
                    key: time.key.clone(),
                    seconds: seconds(time.value),
                    default_seconds: seconds(time.default),
                })
                .collect(),
        }
    }
}

fn words<K: Ord>(
    counts: BTreeMap<K, usize>,
    word: impl Fn(&K) -> &'static str,
) -> BTreeMap<&'static str, usize> {
    counts.iter().map(|(key, n)| (word(key), *n)).collect()
}

/// Score, band and contributions of every Node.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Predictions)]
pub(super) struct PredictionsJson {
    /// The time of the decision that is shown.
    at: Time,
    /// The time that the features were asked for.
    features_at: Option<Time>,
    /// The model in use.
    model: Option<ModelJson>,
    /// The Nodes, by name.
    predictions: Vec<PredictionJson>,
}

/// Score, band and contributions of one Node.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Prediction)]
struct PredictionJson {
    /// The Node.
    node: String,
    /// The model's word, a probability; `null` is unknown.
    score: Option<f64>,
    /// The larger of the model's word and the floors of its active alerts.
    risk: Option<f64>,
    /// How the risk reads.
    band: BandWord,
    /// What drives the model's word, the largest first.
    contributions: Vec<ContributionJson>,
}

impl PredictionsJson {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        let prediction = |node: &NodeView| PredictionJson {
            node: node.name().as_str().to_owned(),
            score: node.verdict.model_risk.map(|r| decimals(r.as_f64(), 4)),
            risk: node.verdict.risk.map(|risk| decimals(risk.as_f64(), 4)),
            band: BandWord(node.verdict.band),
            contributions: node
                .contributions
                .iter()
                .map(ContributionJson::new)
                .collect(),
        };
        Self {
            at: Time(snapshot.at),
            features_at: snapshot.matrix.as_ref().map(|matrix| Time(matrix.at)),
            model: snapshot.health.model.as_ref().map(ModelJson::new),
            predictions: snapshot.nodes.iter().map(prediction).collect(),
        }
    }
}

/// What is known about the model.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ModelCard)]
pub(super) struct ModelCardJson {
    /// Its name.
    name: String,
    /// Where it was learned: `synthetic`, `local`, `imported`.
    source: String,
    /// The furthest that it may cause.
    reach: ReachWord,
    /// Digest of the features that it was made for.
    schema: String,
    /// How far ahead it looks.
    horizon_seconds: f64,
    /// The command that made it.
    command: String,
    /// What it was trained on.
    training: TrainingJson,
    /// The features it reads, the most important first.
    features: Vec<CardFeatureJson>,
    /// How it did on rows that it had not seen.
    validation: BTreeMap<String, f64>,
    /// How often what it said came true.
    calibration: Vec<CalibrationJson>,
    /// How far the inputs of today are from those of the training; `null` where not measured.
    drift: Option<DriftJson>,
    /// Whether it may act, and what it has not earned.
    authority: AuthorityJson,
    /// What acting on it would have cost on the cluster's own history, by what an incident is worth.
    costs: Vec<CostsJson>,
    /// What the configured worth of an incident implies.
    threshold: ThresholdJson,
    /// How much of the Nodes' last week (604800 s) is remembered for columns that need it; `null` where the
    /// model has none.
    history_seconds: Option<f64>,
    /// What a reader has to know.
    notes: Vec<String>,
}

/// Whether a model may act, and what it has not earned.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Authority)]
struct AuthorityJson {
    /// It may cause more than a label.
    acts: bool,
    /// `model.act_untrained`: it may although it has not earned it.
    act_untrained: bool,
    /// What it has not earned, each with its remedy.
    refusals: Vec<RefusalJson>,
    /// The part of the history that it was judged on; `null` where it was not.
    judged: Option<JudgedJson>,
}

/// Why a model may not cause more than a label.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ModelRefusal)]
struct RefusalJson {
    /// The reason.
    reason: &'static str,
    /// The same in words, with the remedy.
    detail: String,
}

/// The part of the history that a model was judged on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Judged)]
struct JudgedJson {
    /// Its begin.
    from: Time,
    /// Its end.
    to: Time,
    /// Degradations that began in it.
    events: u64,
    /// Nodes that they befell.
    nodes: u64,
}

/// What acting would have cost where an incident is worth so much, in drains for each Node and day.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Costs)]
struct CostsJson {
    /// Drains that an incident is worth.
    incident_cost: f64,
    /// The probability above which acting pays there.
    threshold: f64,
    /// Acting on the model.
    model: f64,
    /// The same without the model.
    baselines: BTreeMap<&'static str, BaselineJson>,
}

/// What a way to do without the model would have cost.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BaselineCost)]
struct BaselineJson {
    /// In drains for each Node and day.
    cost: f64,
    /// Lower end of the 95 % interval of the model's cost less this one.
    low: f64,
    /// Upper end.
    high: f64,
}

/// What the configured worth of an incident implies.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ImpliedThreshold)]
struct ThresholdJson {
    /// `model.incident_cost`: drains that an incident is worth.
    incident_cost: f64,
    /// Share of it that a drain in time is taken to avert.
    efficacy: f64,
    /// The probability above which acting costs less than not acting: 1 ÷ (efficacy × incident_cost).
    implied: f64,
    /// `policy.at_risk`, which is what counts.
    at_risk: f64,
}

/// What a model was trained on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Training)]
struct TrainingJson {
    /// Begin of the history; `null` for simulated rows.
    from: Option<Time>,
    /// Its end.
    to: Option<Time>,
    /// Rows.
    rows: u64,
    /// Rows that were followed by a degradation.
    positives: u64,
}

/// One feature of a model.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CardFeature)]
struct CardFeatureJson {
    /// The feature.
    feature: String,
    /// Its unit.
    unit: UnitWord,
    /// Its share of what the model makes of all of them.
    importance: f64,
}

/// How often what a model said came true, for one bin of what it said.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CalibrationBin)]
struct CalibrationJson {
    /// Lower end of the bin.
    from: f64,
    /// Upper end.
    to: f64,
    /// Mean of what the model said.
    predicted: f64,
    /// Share that came true.
    observed: f64,
    /// Rows in the bin.
    rows: u64,
}

/// How far the inputs of today are from those of the training.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Drift)]
struct DriftJson {
    /// `ok`, `warn`, `alarm` (the model may cause no more than a label), or `unknown`.
    level: &'static str,
    /// The model file says what inputs and scores were; without that there is no index of anything.
    reference: bool,
    /// Population stability index of the score; `null` where it is not known, as at first.
    score: Option<f64>,
    /// That of each feature, less what a single day usually has.
    features: BTreeMap<String, Option<f64>>,
    /// Share of the Nodes for which it is missing, by feature.
    missing: BTreeMap<String, f64>,
    /// Share of the values that lie far outside of the training, by feature.
    out_of_range: BTreeMap<String, f64>,
    /// `model.drift_warn`.
    warn: f64,
    /// `model.drift_alarm`.
    alarm: f64,
    /// Hours of the last day that were measured.
    hours: usize,
    /// Rows that were counted: Nodes, again and again.
    rows: u64,
    /// Whether as many Nodes degrade as expected; `null` where that is not known.
    events: Option<OutcomesJson>,
}

/// Whether as many Nodes turned not Ready as the model expected.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Outcomes)]
struct OutcomesJson {
    /// How many it expected: the sum of its probabilities.
    expected: f64,
    /// How many did within the horizon.
    observed: u64,
    /// Lower end of the exact 95 % interval of the rate behind `observed`.
    low: f64,
    /// Upper end.
    high: f64,
    /// What was expected lies within it.
    agrees: bool,
    /// Over so long, of a week at most.
    seconds: f64,
}

impl DriftJson {
    fn new(drift: &Drift) -> Self {
        let features = || drift.measured.features.iter();
        let by_name = |share: fn(&FeatureDrift) -> f64| {
            features()
                .map(|one| (one.feature.as_str().to_owned(), decimals(share(one), 4)))
                .collect()
        };
        Self {
            level: drift.level(),
            reference: drift.measured.reference,
            score: drift.measured.score.map(|index| decimals(index, 4)),
            features: features()
                .map(|one| {
                    let index = one.index.map(|index| decimals(index, 4));
                    (one.feature.as_str().to_owned(), index)
                })
                .collect(),
            missing: by_name(|one| one.missing),
            out_of_range: by_name(|one| one.far_out),
            warn: drift.warn,
            alarm: drift.alarm,
            hours: drift.measured.hours,
            rows: drift.measured.rows,
            events: drift.outcomes.map(|outcomes| OutcomesJson {
                expected: decimals(outcomes.expected, 2),
                observed: outcomes.observed,
                low: decimals(outcomes.low, 2),
                high: decimals(outcomes.high, 2),
                agrees: outcomes.agrees(),
                seconds: seconds(outcomes.lasting),
            }),
        }
    }
}

impl ModelCardJson {
    pub(super) fn new(snapshot: &Snapshot) -> Option<Self> {
        let card = snapshot.model.as_ref()?;
        Some(Self {
            name: card.name.name.clone(),
            source: card.name.source.clone(),
            reach: ReachWord(card.name.reach),
            schema: card.name.schema.clone(),
            horizon_seconds: seconds(card.horizon),
            command: card.command.clone(),
            training: TrainingJson {
                from: card.window.map(|(from, _)| Time(from)),
                to: card.window.map(|(_, to)| Time(to)),
                rows: card.rows,
                positives: card.positives,
            },
            features: card
                .features
                .iter()
                .map(|feature| CardFeatureJson {
                    feature: feature.feature.as_str().to_owned(),
                    unit: UnitWord(feature.unit),
                    importance: decimals(feature.importance, 6),
                })
                .collect(),
            validation: card
                .validation
                .iter()
                .map(|(name, value)| (name.clone(), significant(*value)))
                .collect(),
            calibration: card
                .calibration
                .iter()
                .map(|bin| CalibrationJson {
                    from: bin.from,
                    to: bin.to,
                    predicted: decimals(bin.predicted, 4),
                    observed: decimals(bin.observed, 4),
                    rows: bin.rows,
                })
                .collect(),
            drift: card.drift.as_ref().map(DriftJson::new),
            authority: AuthorityJson {
                acts: card.authority.acts,
                act_untrained: card.authority.act_untrained,
                refusals: card
                    .authority
                    .refusals
                    .iter()
                    .map(|(reason, detail)| RefusalJson {
                        reason,
                        detail: detail.clone(),
                    })
                    .collect(),
                judged: card
                    .authority
                    .judged
                    .map(|(from, to, events, nodes)| JudgedJson {
                        from: Time(from),
                        to: Time(to),
                        events,
                        nodes,
                    }),
            },
            costs: card.costs.iter().map(CostsJson::new).collect(),
            threshold: ThresholdJson {
                incident_cost: significant(card.threshold.incident_cost),
                efficacy: card.threshold.efficacy,
                implied: decimals(card.threshold.implied, 4),
                at_risk: decimals(snapshot.policy.rules.at_risk.as_f64(), 4),
            },
            history_seconds: snapshot.counters.history.map(seconds),
            notes: card.notes.clone(),
        })
    }
}

impl CostsJson {
    fn new(costs: &CardCosts) -> Self {
        let baselines = costs.against.iter().map(|(name, cost, (low, high))| {
            let baseline = BaselineJson {
                cost: significant(*cost),
                low: significant(*low),
                high: significant(*high),
            };
            (*name, baseline)
        });
        Self {
            incident_cost: significant(costs.incident_cost),
            threshold: decimals(costs.threshold, 4),
            model: significant(costs.cost),
            baselines: baselines.collect(),
        }
    }
}

/// How the switch stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Switch)]
pub(super) struct SwitchJson {
    /// Nothing is written.
    pub(super) paused: bool,
    /// Whether it survives the end of this process.
    pub(super) lasting: bool,
    /// What that means.
    pub(super) message: &'static str,
}

/// What became of a webhook's payload.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookTaken)]
pub(super) struct WebhookJson {
    /// Alerts in it. Taken is not believed: `/api/stats` counts what became of them.
    pub(super) alerts: usize,
}

/// What changes what a person would see of a Node. A healthy Node's numbers jitter all the time
/// without saying anything, so they do not count; risk counts in hundredths.
pub(super) fn signature(node: &NodeView) -> u64 {
    use std::hash::{Hash, Hasher};
    let mut hash = std::hash::DefaultHasher::new();
    let verdict = &node.verdict;
    #[expect(clippy::cast_possible_truncation, reason = "a probability times 100")]
    let hundredths = |risk: f64| (risk * 100.0).round() as i64;
    (
        &verdict.node.uid,
        verdict.risk.map(|risk| hundredths(risk.as_f64())),
        verdict.model_risk.map(|risk| hundredths(risk.as_f64())),
        verdict.band,
        verdict.phase,
        verdict.since,
        verdict.reach,
        hundredths(node.missing),
    )
        .hash(&mut hash);
    for hold in &verdict.holds {
        (hold.reason, &hold.detail, hold.until).hash(&mut hash);
    }
    for alert in &verdict.alerts {
        (&alert.fingerprint, alert.starts_at, alert.expires_at).hash(&mut hash);
    }
    if let Some(drain) = &node.drain {
        (drain.started_at, drain.remaining, drain.gone).hash(&mut hash);
        (drain.ended, &drain.detail).hash(&mut hash);
    }
    // That there is more to be read of it in detail.
    node.moved.as_ref().map(|moved| moved.at).hash(&mut hash);
    node.differs
        .as_ref()
        .map(|differs| differs.at)
        .hash(&mut hash);
    node.volumes
        .as_ref()
        .map(|volumes| volumes.at)
        .hash(&mut hash);
    (&node.pool, node.zone()).hash(&mut hash);
    if verdict.band != foreshock_core::risk::Band::Healthy {
        for top in node.contributions.iter().take(TOP) {
            (&top.feature, hundredths(top.contribution)).hash(&mut hash);
            top.value
                .map(|value| significant(value).to_bits())
                .hash(&mut hash);
        }
    }
    hash.finish()
}

/// Whether a Node answers to a text typed by a person: in its name, zone, pool, reasons or alerts.
pub(super) fn matches_text(node: &NodeView, needle: &str) -> bool {
    let within = |text: &str| text.to_lowercase().contains(needle);
    let name: &NodeName = node.name();
    within(name.as_str())
        || node.zone().is_some_and(within)
        || node.pool.as_deref().is_some_and(within)
        || node.verdict.reasons.iter().any(|reason| within(reason))
        || node.verdict.alerts.iter().any(|alert| within(&alert.name))
}

/// Rounded to so many decimals.
pub(super) fn decimals(value: f64, count: i32) -> f64 {
    let scale = 10_f64.powi(count);
    (value * scale).round() / scale
}

/// Rounded to six significant digits: more than any sensor has.
fn significant(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the exponent of a float is small"
    )]
    let exponent = value.abs().log10().floor() as i32;
    let places = 5 - exponent;
    if places > 300 {
        return value;
    }
    if places >= 0 {
        decimals(value, places)
    } else {
        let step = 10_f64.powi(-places);
        (value / step).round() * step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_what_they_can_mean() {
        for (value, shown) in [
            (0.0, 0.0),
            (0.084_123_456_789, 0.084_123_5),
            (123_456_789.0, 123_457_000.0),
            (-2.000_000_04, -2.0),
            (1e-310, 1e-310),
            (0.999_999_99, 1.0),
        ] {
            assert_eq!(significant(value), shown, "{value}");
        }
    }
}
