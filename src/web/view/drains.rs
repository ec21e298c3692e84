//! Drains: how they stand, where the Pods went, what differed from the plan, which volumes stayed.

use foreshock_core::drain::{DrainReport, MovedWorkload, Volume};
use foreshock_core::node::NodeName;
use serde::Serialize;
use utoipa::ToSchema;

use super::decimals;
use crate::snapshot::{DiffersView, MovedView, VolumesView};
use crate::web::words::{OutcomeWord, Time};

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
    pub(super) fn new(drain: &DrainReport) -> Self {
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
struct MovedToJson {
    /// The Node.
    node: String,
    /// Pods.
    pods: u32,
}

/// Where the Pods of one workload went.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = MovedWorkload)]
struct MovedWorkloadJson {
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
    pub(super) fn new(view: &MovedView) -> Self {
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
struct DifferenceJson {
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
    pub(super) fn new(view: &DiffersView) -> Self {
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
struct VolumeJson {
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
    pub(super) fn new(view: &VolumesView) -> Self {
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
