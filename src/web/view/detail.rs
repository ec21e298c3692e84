//! All that is known of one Node, and how its risk went.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::drains::{DiffersJson, MovedJson, VolumesJson};
use super::events::EventJson;
use super::nodes::{ContributionJson, NodeJson};
use super::significant;
use crate::features::basics::Asked;
use crate::snapshot::{Input, NodeView, Snapshot};
use crate::web::plan::DrainPlan;
use crate::web::words::{AskedWord, Time, UnitWord};

/// One Node in detail.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NodeDetail)]
pub(in crate::web) struct NodeDetailJson {
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
    pub(in crate::web) fn new(
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
struct InputJson {
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
struct BasicJson {
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

/// What happened to a Node.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = History)]
pub(in crate::web) struct HistoryJson {
    /// Its risk, oldest first.
    pub(in crate::web) risk: Vec<RiskPointJson>,
    /// Its events, newest first.
    pub(in crate::web) events: Vec<EventJson>,
}

/// A risk at a time.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = RiskPoint)]
pub(in crate::web) struct RiskPointJson {
    /// The time.
    pub(in crate::web) at: Time,
    /// The risk; `null` is unknown.
    pub(in crate::web) risk: Option<f64>,
}

/// The recent risk of every Node.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RiskHistory)]
pub(in crate::web) struct RiskHistoryJson {
    /// The times, oldest first.
    pub(in crate::web) at: Vec<Time>,
    /// The risks of each Node at the last so many of these times; `null` is unknown.
    pub(in crate::web) nodes: BTreeMap<String, Vec<Option<f64>>>,
}
