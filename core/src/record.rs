//! What foreshock remembers outside itself: one record on each Node it has marked, and one small
//! record of the whole cluster on its Lease.
//!
//! These types say what is remembered. How it is written into annotations is the shell's business.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use crate::decision::policy::Reach;
use crate::drain::{NodeOutcome, Owner, PodId};
use crate::node::{NodeName, Uid};
use crate::risk::Risk;

/// Effect of a Node taint. `NoExecute` is here because others use it; foreshock never writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaintEffect {
    /// New Pods without a toleration are not scheduled here.
    NoSchedule,
    /// New Pods without a toleration are scheduled here last.
    PreferNoSchedule,
    /// Running Pods without a toleration are deleted, past every PodDisruptionBudget.
    NoExecute,
}

impl TaintEffect {
    /// The name in Kubernetes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSchedule => "NoSchedule",
            Self::PreferNoSchedule => "PreferNoSchedule",
            Self::NoExecute => "NoExecute",
        }
    }
}

/// A taint of a Node, as in `spec.taints`. Kubernetes identifies one by key and effect.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Taint {
    /// Key, for example `degradation`.
    pub key: String,
    /// Value, for example `true`; empty where there is none.
    pub value: String,
    /// Effect.
    pub effect: TaintEffect,
}

impl Taint {
    /// Whether the other is the same taint to Kubernetes: same key and effect, whatever the value.
    pub fn collides_with(&self, other: &Self) -> bool {
        self.key == other.key && self.effect == other.effect
    }
}

impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}:{}", self.key, self.value, self.effect.as_str())
    }
}

/// Value of the risk label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RiskLabel {
    /// `caution`.
    Caution,
    /// `at-risk`.
    AtRisk,
}

impl RiskLabel {
    /// The label's value in Kubernetes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Caution => "caution",
            Self::AtRisk => "at-risk",
        }
    }
}

/// Which marks on a Node are ours, and what stood in their place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Our taint, exactly as written.
    pub taint: Option<Taint>,
    /// Our caution taint, exactly as written.
    pub caution_taint: Option<Taint>,
    /// The label we wrote.
    pub label: Option<RiskLabel>,
    /// The label's value before we first wrote it; restored on release.
    pub label_before: Option<String>,
}

impl Marks {
    /// Whether nothing of ours is on the Node.
    pub fn is_empty(&self) -> bool {
        self.taint.is_none() && self.caution_taint.is_none() && self.label.is_none()
    }
}

/// The part of the lifecycle that has to survive a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordedPhase {
    /// Without our taint: healthy, cautious, vetoed or on probation.
    Clear,
    /// Our taint is there.
    Tainted,
    /// Our taint is there and a drain has begun.
    Draining,
    /// Our taint is there and the drain is complete.
    Drained,
}

impl RecordedPhase {
    /// Every phase.
    pub const ALL: [Self; 4] = [Self::Clear, Self::Tainted, Self::Draining, Self::Drained];

    /// The name in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Tainted => "tainted",
            Self::Draining => "draining",
            Self::Drained => "drained",
        }
    }
}

/// An alert that acts on a Node, as its record keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct ActingAlert {
    /// Alertmanager's fingerprint, or our digest of the labels where it sent none.
    pub fingerprint: String,
    /// `alertname`.
    pub name: String,
    /// Since when the alert fires.
    pub starts_at: Timestamp,
    /// The Node's risk is at least this while the alert is active.
    pub floor: Risk,
    /// The furthest that this alert may cause.
    pub reach: Reach,
    /// When the alert stops counting unless it is refreshed.
    pub expires_at: Timestamp,
}

/// How the Node's drain stands, or how its last one ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainRecord {
    /// When it was started; identifies the drain.
    pub started_at: Timestamp,
    /// How many drains without success were started since the taint was set, this one included.
    pub attempts: u32,
    /// When and how it ended; `None` while it runs.
    pub ended: Option<(Timestamp, NodeOutcome)>,
}

/// A Deployment that we have scaled up until a Pod of it has left the Node, or are about to. It stands in the
/// record before the Deployment is touched, until it is as it was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SurgeRecord {
    /// Namespace of the Deployment and of the Pod.
    pub namespace: String,
    /// Name of the Deployment.
    pub deployment: String,
    /// UID of the Deployment.
    pub uid: Uid,
    /// `spec.replicas` before; put back.
    pub before: u32,
    /// The Pod that is to leave.
    pub pod: PodId,
    /// When this was noted.
    pub since: Timestamp,
}

impl SurgeRecord {
    /// `spec.replicas` of a Deployment that may be scaled up.
    pub const FROM: u32 = 1;
    /// `spec.replicas` while it is on. Any other value is somebody else's, and stays.
    pub const TO: u32 = 2;

    /// The Deployment.
    pub fn owner(&self) -> Owner {
        Owner {
            group: "apps".to_owned(),
            kind: "Deployment".to_owned(),
            name: self.deployment.clone(),
            uid: self.uid.clone(),
        }
    }
}

/// The ownership record of one Node (annotation `foreshock.dev/state`).
#[derive(Clone, Debug, PartialEq)]
pub struct NodeRecord {
    /// `kubernetes.instance` of the foreshock that wrote it.
    pub instance: String,
    /// UID of the Node it was written for.
    pub uid: Uid,
    /// Where in the lifecycle the Node is.
    pub phase: RecordedPhase,
    /// Since when.
    pub since: Timestamp,
    /// Why, in words for an operator. At most [`NodeRecord::REASONS_MAX`].
    pub reasons: Vec<String>,
    /// Alerts that act. At most [`NodeRecord::ALERTS_MAX`], those of the highest floor first.
    pub alerts: Vec<ActingAlert>,
    /// When our taint came back within the probation after a release, oldest first. At most
    /// [`NodeRecord::REPEATS_MAX`].
    pub repeats: Vec<Timestamp>,
    /// When the taint was last released.
    pub released_at: Option<Timestamp>,
    /// A person removed our taint: it does not come back before this.
    pub veto_until: Option<Timestamp>,
    /// Whether the Node had fresh features when the taint was set.
    pub had_features: bool,
    /// What is ours, and what was there before.
    pub marks: Marks,
    /// The running or last drain under the present taint.
    pub drain: Option<DrainRecord>,
    /// Deployments that are to be scaled back. At most [`NodeRecord::SURGES_MAX`].
    pub surges: Vec<SurgeRecord>,
}

impl NodeRecord {
    /// Keeps a record far below the 256 KiB that Kubernetes allows for all annotations together.
    pub const ALERTS_MAX: usize = 16;
    /// See [`Self::ALERTS_MAX`].
    pub const REASONS_MAX: usize = 8;
    /// See [`Self::ALERTS_MAX`]; more than any sensible `repeat_max`.
    pub const REPEATS_MAX: usize = 16;
    /// See [`Self::ALERTS_MAX`]; one drain has ten at once, and those before it may wait for an API server.
    pub const SURGES_MAX: usize = 32;

    /// A record of a Node on which nothing of ours is.
    pub fn clear(instance: &str, uid: &Uid, since: Timestamp) -> Self {
        Self {
            instance: instance.to_owned(),
            uid: uid.clone(),
            phase: RecordedPhase::Clear,
            since,
            reasons: Vec::new(),
            alerts: Vec::new(),
            repeats: Vec::new(),
            released_at: None,
            veto_until: None,
            had_features: false,
            marks: Marks::default(),
            drain: None,
            surges: Vec::new(),
        }
    }
}

/// What stands in a Node's record annotation.
#[derive(Clone, Debug, PartialEq)]
pub enum RecordState {
    /// There is none.
    Absent,
    /// Ours, for this very Node.
    Ours(Box<NodeRecord>),
    /// Written by another instance of foreshock.
    Foreign {
        /// The other's `kubernetes.instance`.
        instance: String,
    },
    /// Ours, but of a Node that had this name before; ignored, and replaced when we next write.
    OtherUid,
    /// It cannot be understood: damaged, or of a version that this program does not know. It holds.
    Unreadable {
        /// What is wrong with it.
        problem: String,
    },
}

impl RecordState {
    /// Our valid record of this Node, if that is what stands there.
    pub fn ours(&self) -> Option<&NodeRecord> {
        match self {
            Self::Ours(record) => Some(record),
            Self::Absent | Self::Foreign { .. } | Self::OtherUid | Self::Unreadable { .. } => None,
        }
    }
}

/// Something that many scores or alerts may have in common, and that may be wrong for all of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Input {
    /// A model, by its id.
    Model(Arc<str>),
    /// A version of node_exporter.
    Exporter(Arc<str>),
    /// A scrape job.
    Job(Arc<str>),
    /// An alert, by its name.
    Alert(String),
}

impl Input {
    /// Its name is short enough for the record on the Lease.
    pub fn is_short(&self) -> bool {
        let name: &str = match self {
            Self::Model(name) | Self::Exporter(name) | Self::Job(name) => name,
            Self::Alert(name) => name,
        };
        name.len() <= Self::NAME_MAX
    }

    /// Longer names are kept out of the record: a storm over such an input goes on for its places alone.
    pub const NAME_MAX: usize = 250;
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model(id) => write!(f, "model {id}"),
            Self::Exporter(version) => write!(f, "node_exporter {version}"),
            Self::Job(job) => write!(f, "scrape job {job}"),
            Self::Alert(name) => write!(f, "alert {name}"),
        }
    }
}

/// A storm: so many Nodes turned at risk at once that the likelier fault is the signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storm {
    /// When it began.
    pub since: Timestamp,
    /// What it was seen in, in words for an operator: `41 of 100 Nodes`, `zone a: 12 of 30 Nodes`.
    /// At most [`Self::ABOUT_MAX`] bytes.
    pub about: String,
    /// The input that it is over, if it is over one: it goes on for as long as that speaks against many.
    pub input: Option<Input>,
    /// Since when the Nodes at risk without our taint are few enough; `None` while they are not.
    /// Always `None` on the Lease: after a restart, calm has to be seen again.
    pub calm_since: Option<Timestamp>,
}

impl Storm {
    /// Keeps the record on the Lease small, whatever zones and versions are called. Plain ASCII without
    /// double spaces, so that it is read back as it was written.
    pub const ABOUT_MAX: usize = 180;
}

/// After a storm: how many Nodes may be begun on before it is seen what came of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ramp {
    /// Since when it is at this width.
    pub since: Timestamp,
    /// So many Nodes. Doubles each time that all of them came to a good end.
    pub width: u32,
    /// The Nodes that were begun on at this width. At most `width`.
    pub nodes: BTreeMap<NodeName, Uid>,
}

/// The record of the whole cluster, kept on the Lease. Bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterRecord {
    /// Drains started within the last hour, newest last, by Node name and start. Counting them is
    /// what `drains_per_hour` needs, and it has to survive a restart.
    pub drains: BTreeMap<(Timestamp, NodeName), Uid>,
    /// The storm that is on.
    pub storm: Option<Storm>,
    /// The cautious beginning after the last one.
    pub ramp: Option<Ramp>,
}
