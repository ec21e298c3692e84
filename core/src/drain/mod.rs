//! Draining one Node: which Pods, in what order, what next, and what came of it.
//!
//! Plan, dry run, executor, `explain` and replay all walk the same two functions: [`classify`] and
//! [`step`].

mod classify;
mod facts;
mod intent;
mod moved;
mod outcome;
mod pace;
mod step;
mod surge;
mod volumes;

pub use classify::{Disposition, ImpossibleReason, LeaveReason, SkipReason, classify};
pub use facts::{Budget, EvictionAllowance, Owner, PodFacts, PodId};
pub use intent::{Difference, Differs, Intent, differences_in_words};
pub use moved::{DrainId, Moved, MovedWorkload, Moves, Replica};
pub use outcome::{NodeOutcome, PodOutcome};
pub use pace::{Pace, Workload, Workloads, paced_by};
pub use step::{
    Action, Answer, DrainFacts, DrainProgress, PodProgress, Step, StepState, overdue, step,
};
pub use surge::{
    NoSurge, Scalable, Surge, SurgeAnswer, SurgeEnd, Undo, may_surge, surges, surges_over, undo,
};
pub use volumes::{LeftBehind, Volume};

use std::time::Duration;

use jiff::Timestamp;

use crate::node::NodeId;

/// What is done with a class of Pods that `kubectl drain` would stop at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Left where they are, and reported.
    #[default]
    Leave,
    /// Evicted like any other.
    Evict,
}

/// How drains are done: the words are those of the TOML's `[eviction]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainRules {
    /// Cap of the Pods' own grace period; `None` leaves it to the Pod.
    pub grace_cap: Option<Duration>,
    /// Time for the whole Node, from the start of its drain.
    pub deadline: Duration,
    /// Time for one Pod, from its first eviction request.
    pub pod_deadline: Duration,
    /// What holds back the next Pod of a workload.
    pub pace: Pace,
    /// A second Pod of a single replica is Ready before the first goes.
    pub surge: bool,
    /// Pods without a controller.
    pub unmanaged: Choice,
    /// Pods with an emptyDir volume.
    pub empty_dir: Choice,
    /// Pods with hostPath or local volumes.
    pub local_volumes: Choice,
    /// Pods that use devices: what they have computed there may be lost.
    pub devices: Choice,
    /// Pods in `kube-system`.
    pub kube_system: Choice,
    /// Pods that ask to be left alone.
    pub opted_out: Choice,
    /// Pods of a DaemonSet that does not exist any more.
    pub orphaned_daemon_set: Choice,
}

/// Standing order: drain this Node by these rules until then.
#[derive(Clone, Debug, PartialEq)]
pub struct DrainOrder {
    /// The Node.
    pub node: NodeId,
    /// When the drain was started, as in the Node's record; identifies the drain.
    pub started_at: Timestamp,
    /// Not complete before this, so that Pods which the scheduler had already bound are caught.
    pub complete_after: Timestamp,
    /// The end of it.
    pub deadline_at: Timestamp,
    /// Whether evictions may be sent. While false, those that were accepted are still followed.
    pub sends: bool,
    /// How.
    pub rules: DrainRules,
}

impl DrainOrder {
    /// Pods can still appear this long after the taint: the scheduler had bound them before it saw it.
    pub const SCHEDULER_LAG: Duration = Duration::from_secs(5);
}

/// How a drain stands, as the executor reports it.
#[derive(Clone, Debug, PartialEq)]
pub struct DrainReport {
    /// Which drain: its start, as in the order.
    pub started_at: Timestamp,
    /// Pods that are still to go.
    pub remaining: u32,
    /// Pods of this drain that are gone.
    pub gone: u32,
    /// When and how it ended; `None` while it runs.
    pub ended: Option<(Timestamp, NodeOutcome)>,
    /// What the outcome names: the Pods and budgets that stood in the way.
    pub detail: String,
}
