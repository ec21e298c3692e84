//! How the records are written into annotations: JSON with a version.
//!
//! The text comes back from the API server, where anybody with `patch nodes` may have changed it, so
//! reading it never panics and takes nothing for granted. What it does not understand, it says.

use std::collections::BTreeMap;
use std::str::FromStr;

use foreshock_core::decision::policy::Reach;
use foreshock_core::drain::{NodeOutcome, PodId};
use foreshock_core::node::{NodeName, Uid};
use foreshock_core::record::{
    ActingAlert, ClusterRecord, DrainRecord, Input, Marks, NodeRecord, Ramp, RecordState,
    RecordedPhase, RiskLabel, Storm, SurgeRecord, Taint, TaintEffect,
};
use foreshock_core::risk::Risk;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::text::clean;

/// The version that this program writes, and the only one that it reads.
pub const VERSION: u32 = 1;
/// A longer annotation is not ours: the largest record that [`encode`] writes is below 56 KiB, of which 33 are
/// Deployments with the longest names.
pub const NODE_RECORD_BYTES_MAX: usize = 64 * 1024;
/// A longer annotation is not ours. Kubernetes allows 256 KiB for all annotations of an object.
pub const CLUSTER_RECORD_BYTES_MAX: usize = 128 * 1024;
/// Drains that the cluster's record lists at most; `drains_per_hour` cannot usefully be larger, and
/// 1,000 of them are about 100 KiB.
pub const DRAINS_MAX: usize = 1000;

/// Letters that a reason may have in the record.
const REASON_MAX: usize = 256;
/// Letters of an alert's name and fingerprint. Names are Prometheus rule names; fingerprints are 16
/// digits, or our digest of 64.
const NAME_MAX: usize = 128;

/// Why a record could not be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It does not fit into an annotation.
    #[error("the record takes {bytes} bytes, more than {max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The most there may be.
        max: usize,
    },
}

/// The annotation's value for a record. Texts that came from outside are shortened and cleaned, so
/// what is read back can differ in them.
///
/// # Errors
///
/// [`RecordError::TooLarge`] for a record that [`decode`] would refuse.
pub fn encode(record: &NodeRecord) -> Result<String, RecordError> {
    let text = to_json(&NodeWire::from(record));
    bounded(text, NODE_RECORD_BYTES_MAX)
}

/// What stands in a Node's annotation: `text` is its value, `instance` and `uid` say whose it would
/// have to be to be ours.
pub fn decode(text: Option<&str>, instance: &str, uid: &Uid) -> RecordState {
    let Some(text) = text else {
        return RecordState::Absent;
    };
    let unreadable = |problem: String| RecordState::Unreadable {
        problem: clean(&problem, REASON_MAX),
    };
    if text.len() > NODE_RECORD_BYTES_MAX {
        return unreadable(format!("it takes {} bytes", text.len()));
    }
    let head: Head = match serde_json::from_str(text) {
        Ok(head) => head,
        Err(error) => return unreadable(error.to_string()),
    };
    // The version first: another version may use the other fields for something else.
    if head.version != VERSION {
        return unreadable(format!(
            "it has version {}, and this program knows {VERSION}",
            head.version
        ));
    }
    match head.instance {
        Some(other) if other != instance => {
            return RecordState::Foreign {
                instance: clean(&other, NAME_MAX),
            };
        }
        Some(_) => {}
        None => return unreadable("it names no instance".to_owned()),
    }
    match serde_json::from_str::<NodeWire>(text)
        .map_err(|error| error.to_string())
        .and_then(NodeRecord::try_from)
    {
        Ok(record) if record.uid != *uid => RecordState::OtherUid,
        Ok(record) => RecordState::Ours(Box::new(record)),
        Err(problem) => unreadable(problem),
    }
}

/// The annotation's value for the cluster's record.
///
/// # Errors
///
/// [`RecordError::TooLarge`] for a record that [`decode_cluster`] would refuse.
pub fn encode_cluster(record: &ClusterRecord) -> Result<String, RecordError> {
    let text = to_json(&ClusterWire::from(record));
    bounded(text, CLUSTER_RECORD_BYTES_MAX)
}

/// The cluster's record from its annotation; empty where there is none.
///
/// # Errors
///
/// What is wrong with it, in words.
pub fn decode_cluster(text: Option<&str>) -> Result<ClusterRecord, String> {
    let Some(text) = text else {
        return Ok(ClusterRecord::default());
    };
    if text.len() > CLUSTER_RECORD_BYTES_MAX {
        return Err(format!("it takes {} bytes", text.len()));
    }
    let problem = |error: serde_json::Error| clean(&error.to_string(), REASON_MAX);
    let head: Head = serde_json::from_str(text).map_err(problem)?;
    if head.version != VERSION {
        return Err(format!(
            "it has version {}, and this program knows {VERSION}",
            head.version
        ));
    }
    let wire: ClusterWire = serde_json::from_str(text).map_err(problem)?;
    if wire.drains.len() > DRAINS_MAX {
        return Err(format!("it lists {} drains", wire.drains.len()));
    }
    Ok(ClusterRecord {
        drains: wire
            .drains
            .into_iter()
            .map(|drain| ((drain.at, NodeName::from(drain.node)), Uid::from(drain.uid)))
            .collect::<BTreeMap<_, _>>(),
        storm: wire.storm.map(|storm| Storm {
            since: storm.since,
            about: clean(&storm.about, Storm::ABOUT_MAX),
            input: storm.input.map(Input::from),
            calm_since: storm.calm_since,
        }),
        ramp: wire.ramp.map(|ramp| Ramp {
            since: ramp.since,
            width: ramp.width,
            nodes: ramp
                .nodes
                .into_iter()
                .take(DRAINS_MAX)
                .map(|(node, uid)| (NodeName::from(node), Uid::from(uid)))
                .collect(),
        }),
    })
}

fn bounded(text: String, max: usize) -> Result<String, RecordError> {
    if text.len() > max {
        return Err(RecordError::TooLarge {
            bytes: text.len(),
            max,
        });
    }
    Ok(text)
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("structs of strings, numbers and lists are always JSON")
}

#[derive(Deserialize)]
struct Head {
    version: u32,
    instance: Option<String>,
}

/// `marks` and `drain` are read strictly: a field that is not understood there could be a mark that
/// would be forgotten. Elsewhere an unknown field is an addition of a later program of this version.
#[derive(Serialize, Deserialize)]
struct NodeWire {
    version: u32,
    instance: String,
    uid: String,
    phase: String,
    since: Timestamp,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    alerts: Vec<AlertWire>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    repeats: Vec<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    released_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    veto_until: Option<Timestamp>,
    #[serde(default)]
    had_features: bool,
    #[serde(default)]
    marks: MarksWire,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drain: Option<DrainWire>,
}

#[derive(Serialize, Deserialize)]
struct AlertWire {
    fingerprint: String,
    name: String,
    starts_at: Timestamp,
    /// As text, as Kubernetes does with fractions: what is read back is the very number that was
    /// written, and the record is compared with what the decision saw.
    floor: String,
    reach: String,
    expires_at: Timestamp,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MarksWire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    taint: Option<TaintWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    caution_taint: Option<TaintWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label_before: Option<String>,
    /// Among the marks, so that a program which does not know of them refuses the record, rather than forget
    /// to scale somebody's Deployment back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    surges: Vec<SurgeWire>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SurgeWire {
    namespace: String,
    deployment: String,
    uid: String,
    replicas_before: u32,
    pod: String,
    pod_uid: String,
    since: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TaintWire {
    key: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    value: String,
    effect: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainWire {
    started_at: Timestamp,
    attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<EndedWire>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndedWire {
    at: Timestamp,
    outcome: String,
}

#[derive(Serialize, Deserialize)]
struct ClusterWire {
    version: u32,
    #[serde(default)]
    drains: Vec<StartedWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    storm: Option<StormWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ramp: Option<RampWire>,
}

/// `{"exporter": "1.11.0"}`. The name is written as it is: it is compared with, and JSON keeps any text.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum InputWire {
    Model(String),
    Exporter(String),
    Job(String),
    Alert(String),
}

impl From<InputWire> for Input {
    fn from(wire: InputWire) -> Self {
        match wire {
            InputWire::Model(name) => Self::Model(name.into()),
            InputWire::Exporter(name) => Self::Exporter(name.into()),
            InputWire::Job(name) => Self::Job(name.into()),
            InputWire::Alert(name) => Self::Alert(name),
        }
    }
}

impl From<&Input> for InputWire {
    fn from(input: &Input) -> Self {
        match input {
            Input::Model(name) => Self::Model(name.to_string()),
            Input::Exporter(name) => Self::Exporter(name.to_string()),
            Input::Job(name) => Self::Job(name.to_string()),
            Input::Alert(name) => Self::Alert(name.clone()),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct RampWire {
    since: Timestamp,
    width: u32,
    #[serde(default)]
    nodes: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct StartedWire {
    at: Timestamp,
    node: String,
    uid: String,
}

#[derive(Serialize, Deserialize)]
struct StormWire {
    since: Timestamp,
    #[serde(default)]
    about: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    input: Option<InputWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    calm_since: Option<Timestamp>,
}

impl From<&NodeRecord> for NodeWire {
    fn from(record: &NodeRecord) -> Self {
        Self {
            version: VERSION,
            instance: record.instance.clone(),
            uid: record.uid.to_string(),
            phase: record.phase.as_str().to_owned(),
            since: record.since,
            reasons: record
                .reasons
                .iter()
                .take(NodeRecord::REASONS_MAX)
                .map(|reason| clean(reason, REASON_MAX))
                .collect(),
            alerts: record
                .alerts
                .iter()
                .take(NodeRecord::ALERTS_MAX)
                .map(|alert| AlertWire {
                    fingerprint: clean(&alert.fingerprint, NAME_MAX),
                    name: clean(&alert.name, NAME_MAX),
                    starts_at: alert.starts_at,
                    floor: alert.floor.as_f64().to_string(),
                    reach: alert.reach.as_str().to_owned(),
                    expires_at: alert.expires_at,
                })
                .collect(),
            // The newest are at the end, and they are the ones that count.
            repeats: record
                .repeats
                .iter()
                .skip(record.repeats.len().saturating_sub(NodeRecord::REPEATS_MAX))
                .copied()
                .collect(),
            released_at: record.released_at,
            veto_until: record.veto_until,
            had_features: record.had_features,
            marks: MarksWire {
                taint: record.marks.taint.as_ref().map(TaintWire::from),
                caution_taint: record.marks.caution_taint.as_ref().map(TaintWire::from),
                label: record.marks.label.map(|label| label.as_str().to_owned()),
                label_before: record.marks.label_before.clone(),
                surges: record.surges.iter().map(SurgeWire::from).collect(),
            },
            drain: record.drain.as_ref().map(|drain| DrainWire {
                started_at: drain.started_at,
                attempts: drain.attempts,
                ended: drain.ended.map(|(at, outcome)| EndedWire {
                    at,
                    outcome: outcome.as_str().to_owned(),
                }),
            }),
        }
    }
}

impl TryFrom<NodeWire> for NodeRecord {
    type Error = String;

    fn try_from(wire: NodeWire) -> Result<Self, String> {
        let too_many = |what: &str, count: usize| Err(format!("it lists {count} {what}"));
        if wire.reasons.len() > Self::REASONS_MAX {
            return too_many("reasons", wire.reasons.len());
        }
        if wire.alerts.len() > Self::ALERTS_MAX {
            return too_many("alerts", wire.alerts.len());
        }
        if wire.repeats.len() > Self::REPEATS_MAX {
            return too_many("taints", wire.repeats.len());
        }
        if wire.marks.surges.len() > Self::SURGES_MAX {
            return too_many("surges", wire.marks.surges.len());
        }
        let phase = named(&wire.phase, "phase", |name| {
            RecordedPhase::ALL
                .into_iter()
                .find(|phase| phase.as_str() == name)
        })?;
        // A record that contradicts itself was not written by us, or not whole.
        if wire.marks.taint.is_some() != (phase != RecordedPhase::Clear) {
            return Err(format!(
                "phase {} and taint contradict each other",
                phase.as_str()
            ));
        }
        let runs = wire
            .drain
            .as_ref()
            .is_some_and(|drain| drain.ended.is_none());
        if runs != (phase == RecordedPhase::Draining) && phase != RecordedPhase::Drained {
            return Err(format!(
                "phase {} and drain contradict each other",
                phase.as_str()
            ));
        }
        Ok(Self {
            phase,
            instance: wire.instance,
            uid: Uid::from(wire.uid),
            since: wire.since,
            reasons: wire.reasons,
            alerts: wire
                .alerts
                .into_iter()
                .map(ActingAlert::try_from)
                .collect::<Result<_, _>>()?,
            repeats: wire.repeats,
            released_at: wire.released_at,
            veto_until: wire.veto_until,
            had_features: wire.had_features,
            marks: Marks {
                taint: wire.marks.taint.map(Taint::try_from).transpose()?,
                caution_taint: wire.marks.caution_taint.map(Taint::try_from).transpose()?,
                label: wire
                    .marks
                    .label
                    .map(|label| {
                        named(&label, "label", |name| {
                            [RiskLabel::Caution, RiskLabel::AtRisk]
                                .into_iter()
                                .find(|label| label.as_str() == name)
                        })
                    })
                    .transpose()?,
                label_before: wire.marks.label_before,
            },
            drain: wire.drain.map(DrainRecord::try_from).transpose()?,
            surges: wire
                .marks
                .surges
                .into_iter()
                .map(SurgeRecord::try_from)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<AlertWire> for ActingAlert {
    type Error = String;

    fn try_from(wire: AlertWire) -> Result<Self, String> {
        Ok(Self {
            floor: f64::from_str(&wire.floor)
                .map_err(|error| error.to_string())
                .and_then(|floor| Risk::new(floor).map_err(|error| error.to_string()))
                .map_err(|problem| format!("floor of alert {:?}: {problem}", wire.name))?,
            reach: named(&wire.reach, "reach", |name| {
                Reach::ALL.into_iter().find(|reach| reach.as_str() == name)
            })?,
            fingerprint: wire.fingerprint,
            name: wire.name,
            starts_at: wire.starts_at,
            expires_at: wire.expires_at,
        })
    }
}

impl From<&Taint> for TaintWire {
    fn from(taint: &Taint) -> Self {
        Self {
            key: taint.key.clone(),
            value: taint.value.clone(),
            effect: taint.effect.as_str().to_owned(),
        }
    }
}

impl TryFrom<TaintWire> for Taint {
    type Error = String;

    fn try_from(wire: TaintWire) -> Result<Self, String> {
        Ok(Self {
            effect: named(&wire.effect, "effect", effect)?,
            key: wire.key,
            value: wire.value,
        })
    }
}

/// The effect of this name, if Kubernetes has it.
pub fn effect(name: &str) -> Option<TaintEffect> {
    [
        TaintEffect::NoSchedule,
        TaintEffect::PreferNoSchedule,
        TaintEffect::NoExecute,
    ]
    .into_iter()
    .find(|effect| effect.as_str() == name)
}

impl From<&SurgeRecord> for SurgeWire {
    fn from(surge: &SurgeRecord) -> Self {
        Self {
            namespace: surge.namespace.clone(),
            deployment: surge.deployment.clone(),
            uid: surge.uid.to_string(),
            replicas_before: surge.before,
            pod: surge.pod.name.clone(),
            pod_uid: surge.pod.uid.to_string(),
            since: surge.since,
        }
    }
}

impl TryFrom<SurgeWire> for SurgeRecord {
    type Error = String;

    fn try_from(wire: SurgeWire) -> Result<Self, String> {
        // They become parts of a path, and anybody who may change Nodes may write them.
        for name in [&wire.namespace, &wire.deployment, &wire.pod] {
            if !is_object_name(name) {
                return Err(format!("surge of {name:?}, which is no name"));
            }
        }
        if wire.replicas_before != Self::FROM {
            return Err(format!("surge from {} replicas", wire.replicas_before));
        }
        Ok(Self {
            pod: PodId {
                namespace: wire.namespace.clone(),
                name: wire.pod,
                uid: Uid::from(wire.pod_uid),
            },
            namespace: wire.namespace,
            deployment: wire.deployment,
            uid: Uid::from(wire.uid),
            before: wire.replicas_before,
            since: wire.since,
        })
    }
}

/// What Kubernetes accepts as the name of a Deployment, a Pod or a namespace.
fn is_object_name(name: &str) -> bool {
    (1..=253).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte))
        && name.bytes().any(|byte| byte.is_ascii_alphanumeric())
}

impl TryFrom<DrainWire> for DrainRecord {
    type Error = String;

    fn try_from(wire: DrainWire) -> Result<Self, String> {
        Ok(Self {
            started_at: wire.started_at,
            attempts: wire.attempts,
            ended: wire
                .ended
                .map(|ended| {
                    named(&ended.outcome, "outcome", NodeOutcome::parse)
                        .map(|outcome| (ended.at, outcome))
                })
                .transpose()?,
        })
    }
}

impl From<&ClusterRecord> for ClusterWire {
    fn from(record: &ClusterRecord) -> Self {
        Self {
            version: VERSION,
            drains: record
                .drains
                .iter()
                .skip(record.drains.len().saturating_sub(DRAINS_MAX))
                .map(|((at, node), uid)| StartedWire {
                    at: *at,
                    node: node.to_string(),
                    uid: uid.to_string(),
                })
                .collect(),
            storm: record.storm.as_ref().map(|storm| StormWire {
                since: storm.since,
                about: clean(&storm.about, Storm::ABOUT_MAX),
                input: storm.input.as_ref().map(InputWire::from),
                calm_since: storm.calm_since,
            }),
            ramp: record.ramp.as_ref().map(|ramp| RampWire {
                since: ramp.since,
                width: ramp.width,
                nodes: ramp
                    .nodes
                    .iter()
                    .map(|(node, uid)| (node.to_string(), uid.to_string()))
                    .collect(),
            }),
        }
    }
}

fn named<T>(name: &str, what: &str, find: impl Fn(&str) -> Option<T>) -> Result<T, String> {
    find(name).ok_or_else(|| format!("{what} {name:?} is not known"))
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
