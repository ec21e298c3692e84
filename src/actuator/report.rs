//! What the actuator says: how things stand (latest wins), and what happened (nothing is lost).

use std::collections::BTreeMap;

use foreshock_core::decision::plan::Cause;
use foreshock_core::decision::world::OwnWrite;
use foreshock_core::drain::{DrainReport, NodeOutcome, PodId, PodOutcome};
use foreshock_core::node::{NodeId, NodeName};
use foreshock_core::record::ClusterRecord;
use jiff::Timestamp;

use crate::kubernetes::ClusterError;

/// How the actuator's writes stand.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ActuatorState {
    /// Writes that are under way, from before the request until its result shows in the Node table;
    /// and the last failure of each Node until its retry succeeds or the order is withdrawn.
    pub writes: BTreeMap<NodeName, OwnWrite>,
    /// The last word on each drain, until the Node's record leaves draining.
    pub drains: BTreeMap<NodeName, DrainReport>,
    /// Pods of running drains that wait for a budget now, by the budget's namespace and name.
    pub blocked: BTreeMap<(String, String), u32>,
}

/// Who may write.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Leadership {
    /// This process holds the Lease, by its own clock.
    pub leader: bool,
    /// Who holds it, by the Lease.
    pub holder: Option<String>,
    /// Where the holder's API is to be reached.
    pub address: Option<String>,
    /// Somebody has paused foreshock.
    pub paused: bool,
    /// The cluster's record; `None` until it was read, and while it cannot be.
    pub record: Option<ClusterRecord>,
    /// Why leading or reading the Lease fails, with the remedy.
    pub problem: Option<String>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// An order was carried out.
    Marked {
        /// When.
        at: Timestamp,
        /// The Node.
        node: NodeId,
        /// Why it was written to.
        cause: Cause,
        /// The order's note.
        note: String,
    },
    /// An order could not be carried out.
    MarkFailed {
        /// When.
        at: Timestamp,
        /// The Node.
        node: NodeId,
        /// Why it was to be written to.
        cause: Cause,
        /// What went wrong.
        error: ClusterError,
    },
    /// The cluster's record could not be written, so nothing was begun.
    RecordFailed {
        /// When.
        at: Timestamp,
        /// What went wrong.
        error: ClusterError,
    },
    /// A drain is done with one Pod.
    Pod {
        /// When.
        at: Timestamp,
        /// The Node.
        node: NodeId,
        /// The Pod.
        pod: PodId,
        /// What came of it.
        outcome: PodOutcome,
        /// What stood in the way, if anything did.
        detail: String,
    },
    /// A drain is over.
    Drain {
        /// When.
        at: Timestamp,
        /// The Node.
        node: NodeId,
        /// How it ended.
        outcome: NodeOutcome,
        /// What stood in the way, if anything did.
        detail: String,
        /// Pods that it moved.
        gone: u32,
    },
}
