//! What a decision hands to the next one. Losing it delays, and never adds a disruption: what a
//! limit needs is in the records.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::verdict::Phase;
use crate::node::NodeId;
use crate::record::{Marks, Storm};

/// What is remembered about one Node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeMemory {
    /// Since when its risk is above `at_risk`, by any evidence.
    pub at_risk_since: Option<Timestamp>,
    /// Since when the model alone says so.
    pub model_at_risk_since: Option<Timestamp>,
    /// Since when the caution marks ought to be other than they are.
    pub caution_differs_since: Option<Timestamp>,
    /// When the marks were last seen to change.
    pub caution_changed_at: Option<Timestamp>,
    /// The marks of the record, as last seen.
    pub marks_seen: Option<Marks>,
    /// Since when it looks well, with fresh features, under our taint.
    pub well_since: Option<Timestamp>,
    /// The phase last shown, and since when.
    pub phase: Option<(Phase, Timestamp)>,
}

/// What a decision hands to the next one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// By Node name and UID, so that a re-created Node starts afresh.
    pub nodes: BTreeMap<NodeId, NodeMemory>,
    /// The storm that is on, also where nothing may be written.
    pub storm: Option<Storm>,
}
