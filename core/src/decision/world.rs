//! Everything that a decision may look at, at one time.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::drain::{DrainReport, PodFacts};
use crate::node::{NodeId, NodeName};
use crate::record::{ActingAlert, ClusterRecord, RecordState, Taint};
use crate::risk::Risk;
use crate::room::Resources;
use crate::time::since;

/// Something that was asked for, with its age.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact<T> {
    /// Read at that time.
    Known(Timestamp, T),
    /// Not read yet, or it could not be read.
    Unknown,
    /// Taken for granted, in a replay of history where nobody recorded it.
    Assumed(T),
}

impl<T> Fact<T> {
    /// What is known, if it is not older than `age_max`.
    pub fn fresh(&self, at: Timestamp, age_max: std::time::Duration) -> Option<&T> {
        match self {
            Self::Known(read_at, known) => (since(*read_at, at) <= age_max).then_some(known),
            Self::Assumed(known) => Some(known),
            Self::Unknown => None,
        }
    }
}

/// What a Node's annotation `foreshock.dev/hold-until` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HoldUntil {
    /// Leave the Node alone until then.
    Time(Timestamp),
    /// It is no RFC 3339 time. It holds, until a person corrects it.
    Malformed(String),
}

/// What Kubernetes says about one Node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeFacts {
    /// Name and UID.
    pub id: NodeId,
    /// `metadata.creationTimestamp`.
    pub created_at: Timestamp,
    /// Condition `Ready` is `True`.
    pub ready: bool,
    /// `spec.unschedulable`: cordoned, and never by us.
    pub cordoned: bool,
    /// It carries a control-plane role label.
    pub control_plane: bool,
    /// `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// The first pool of the policy whose selector matches its labels.
    pub pool: Option<String>,
    /// `metadata.labels`, shared with whoever else looks at the Node: of thousands of Nodes they are the
    /// larger part.
    pub labels: Arc<BTreeMap<String, String>>,
    /// `status.allocatable`.
    pub allocatable: Resources,
    /// `spec.taints`.
    pub taints: Vec<Taint>,
    /// Value of the label `foreshock.dev/risk`.
    pub risk_label: Option<String>,
    /// What stands in `foreshock.dev/state`.
    pub record: RecordState,
    /// `foreshock.dev/exclude` is there with any value but `false`.
    pub excluded: bool,
    /// `foreshock.dev/hold-until`.
    pub hold_until: Option<HoldUntil>,
    /// Who else is taking this Node away, in words (`cluster-autoscaler`, `being deleted`, …).
    pub taken_by: Option<String>,
    /// Its Pods, where they were asked for.
    pub pods: Fact<Vec<PodFacts>>,
}

/// What the model says about one Node.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// The risk, or why there is none.
    pub risk: Result<Risk, ScoreUnknown>,
    /// The time that the features were asked for.
    pub at: Timestamp,
    /// What drives the score, in words for an operator, strongest first.
    pub reasons: Vec<String>,
    /// What it was made from, so that a fault of one input shows.
    pub inputs: Inputs,
    /// Its inputs lie so far outside of what the model was trained on that its word is no ground to
    /// act; in words for an operator.
    pub out_of_range: Option<String>,
}

/// What a score was made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    /// Id of the model.
    pub model: Arc<str>,
    /// `version` of the Node's node_exporter (`node_exporter_build_info`), where it says so.
    pub exporter: Option<Arc<str>>,
    /// The scrape job that its samples come from.
    pub job: Option<Arc<str>>,
}

/// Why a Node has no score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum ScoreUnknown {
    /// The Node's exporter has not been scraped lately, or never.
    #[error("no fresh scrape of its node_exporter")]
    NoScrape,
    /// Too many of the features it needs are missing.
    #[error("too many features are missing")]
    FeaturesMissing,
    /// The features are older than [`super::policy::Policy::score_age_max`].
    #[error("the features are too old")]
    Stale,
    /// Its series could not be told apart from another's.
    #[error("its series are ambiguous")]
    Ambiguous,
}

/// A write of ours that the watch has not shown yet, or that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnWrite {
    /// Sent, and not seen yet. It counts as done for every limit.
    InFlight {
        /// The write sets our taint.
        taints: bool,
        /// The write starts a drain.
        drains: bool,
    },
    /// The last one failed; the next is due at that time.
    Failed {
        /// What went wrong.
        problem: String,
        /// Not again before this.
        retry_at: Timestamp,
        /// It would have set our taint. It counts, because it may have taken place.
        taints: bool,
        /// It would have started a drain, and counts likewise.
        drains: bool,
    },
}

/// Everything that a decision may look at.
#[derive(Clone, Debug)]
pub struct World {
    /// The time of the decision.
    pub at: Timestamp,
    /// Nodes as the watch shows them.
    pub nodes: BTreeMap<NodeName, NodeFacts>,
    /// The model's word on each Node; a Node that is not here has no score.
    pub scores: BTreeMap<NodeName, Score>,
    /// Active alerts by Node, as heard since the start; those of the records come on top.
    pub alerts: BTreeMap<NodeName, Vec<ActingAlert>>,
    /// Fingerprints of alerts that were said to be resolved, with the time they had started at:
    /// they end an alert that only a record still holds.
    pub resolved: BTreeMap<String, Timestamp>,
    /// The cluster's record, or `None` when it could not be read: then nothing is begun.
    pub cluster: Option<ClusterRecord>,
    /// Somebody has paused foreshock.
    pub paused: bool,
    /// Why the model may not exceed reach `label`, in words for an operator; of no meaning where
    /// [`Policy::model_trusted`](super::policy::Policy::model_trusted) is set.
    pub untrusted: Option<String>,
    /// The inputs of the whole fleet have drifted from what the model knows, in words for an operator:
    /// its evidence then goes no further than `observe`.
    pub drift: Option<String>,
    /// Our writes that the watch has not shown yet.
    pub writes: BTreeMap<NodeName, OwnWrite>,
    /// How the drains stand.
    pub drains: BTreeMap<NodeName, DrainReport>,
}
