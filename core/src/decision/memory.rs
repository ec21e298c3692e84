//! What a decision hands to the next one. Losing it delays, and never adds a disruption: what a
//! limit needs is in the records.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::verdict::Phase;
use crate::node::NodeId;
use crate::record::{Input, Marks, Ramp, Storm};

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
    /// Since when it is at risk, times included in which its risk is unknown: falling silent does not
    /// make it well, and being heard again is no turn for the worse.
    pub turned_at: Option<Timestamp>,
    /// The phase last shown, and since when.
    pub phase: Option<(Phase, Timestamp)>,
}

/// Since when an input is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// When it was first seen; `None` where it was there when this process began to look.
    pub first: Option<Timestamp>,
    /// When it was last in use.
    pub last: Timestamp,
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
    /// What scores and alerts are made from, also what nothing uses at present. Bounded.
    pub inputs: BTreeMap<Input, Known>,
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
                turned_at: node.turned_at.map(moved),
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
                .map(|(input, known)| {
                    let known = Known {
                        first: known.first.map(moved),
                        last: moved(known.last),
                    };
                    (input.clone(), known)
                })
                .collect(),
        }
    }
}
