//! What a decision hands to the next one. Losing it delays, and never adds a disruption: what a
//! limit needs is in the records.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::verdict::Phase;
use crate::node::NodeId;
use crate::record::{Marks, Ramp, Storm};

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
    /// It was at risk when its risk was last known: falling silent does not make it well.
    pub at_risk_last_known: bool,
    /// The phase last shown, and since when.
    pub phase: Option<(Phase, Timestamp)>,
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

/// What a decision hands to the next one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// By Node name and UID, so that a re-created Node starts afresh.
    pub nodes: BTreeMap<NodeId, NodeMemory>,
    /// The storm that is on, also where nothing may be written.
    pub storm: Option<Storm>,
    /// When the last storm began that is over: the Lease may still say that it is on.
    pub storm_over: Option<Timestamp>,
    /// The cautious beginning after it.
    pub ramp: Option<Ramp>,
    /// When each input was first seen, or `None` where a storm over it has come and gone. Inputs that
    /// nothing uses any more are forgotten.
    pub inputs: BTreeMap<Input, Option<Timestamp>>,
}

impl Memory {
    /// What is left of it where the time since was not seen to pass: every wait begins again. What
    /// holds (a storm, a ramp, a veto to come) stays. `by` is how far the wall clock was set meanwhile.
    #[must_use]
    pub fn after_a_break(&self, by: SignedDuration) -> Self {
        let moved = |at: Timestamp| at.checked_add(by).unwrap_or(at);
        let nodes = self.nodes.iter().map(|(id, node)| {
            let node = NodeMemory {
                marks_seen: node.marks_seen.clone(),
                at_risk_last_known: node.at_risk_last_known,
                ..NodeMemory::default()
            };
            (id.clone(), node)
        });
        Self {
            nodes: nodes.collect(),
            storm: self.storm.clone().map(|storm| Storm {
                calm_since: None,
                ..storm
            }),
            storm_over: self.storm_over,
            ramp: self.ramp.clone().map(|ramp| Ramp {
                since: moved(ramp.since),
                ..ramp
            }),
            // An input is no older because the clock was set.
            inputs: self
                .inputs
                .iter()
                .map(|(input, first)| (input.clone(), first.map(moved)))
                .collect(),
        }
    }
}
