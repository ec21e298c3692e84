//! What is to be done: standing orders, each with what it expects to find.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::drain::DrainOrder;
use crate::node::{NodeId, NodeName};
use crate::record::{ClusterRecord, NodeRecord, Taint};
use crate::room::Place;

/// Why a Node is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Our taint is set.
    Taint,
    /// Label or caution taint follow the band.
    Caution,
    /// A drain begins.
    DrainStart,
    /// A drain is complete.
    Drained,
    /// A drain ended otherwise.
    DrainEnd,
    /// The Node is given back.
    Release,
    /// A person removed our taint.
    Veto,
    /// Only the record changes: acting alerts, or a record that has run out.
    Record,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 8] = [
        Self::Taint,
        Self::Caution,
        Self::DrainStart,
        Self::Drained,
        Self::DrainEnd,
        Self::Release,
        Self::Veto,
        Self::Record,
    ];

    /// The name in metrics, logs and Events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Taint => "taint",
            Self::Caution => "caution",
            Self::DrainStart => "drain_start",
            Self::Drained => "drained",
            Self::DrainEnd => "drain_end",
            Self::Release => "release",
            Self::Veto => "veto",
            Self::Record => "record",
        }
    }

    /// Whether this begins something, as against finishing or cleaning up what was begun.
    pub fn begins(self) -> bool {
        match self {
            Self::Taint | Self::Caution | Self::DrainStart => true,
            Self::Drained | Self::DrainEnd | Self::Release | Self::Veto | Self::Record => false,
        }
    }
}

/// Change one Node's marks and record, in one patch, if the Node is still as the decision saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct MarkOrder {
    /// The Node; the patch is refused for another UID.
    pub node: NodeId,
    /// Why.
    pub cause: Cause,
    /// In words for an operator: the note of the Event.
    pub note: String,
    /// Our record as the decision saw it; `None` where there was none. Refused if it differs now.
    pub expects: Option<Box<NodeRecord>>,
    /// Our record afterwards; `None` removes it. What is ours is what `marks` in here says: the
    /// executor removes marks that are in `expects` and not in here, and sets those that are new.
    pub record: Option<Box<NodeRecord>>,
}

impl MarkOrder {
    /// Whether this begins something, as against finishing or cleaning up what was begun. Marks that
    /// follow the band begin something only where they rise.
    pub fn begins(&self) -> bool {
        let label = |record: &Option<Box<NodeRecord>>| {
            record.as_ref().and_then(|record| record.marks.label)
        };
        match self.cause {
            Cause::Caution => {
                !self.taints_added().is_empty() || label(&self.record) > label(&self.expects)
            }
            cause => cause.begins(),
        }
    }

    /// Our taints that the order adds.
    pub fn taints_added(&self) -> Vec<&Taint> {
        difference(self.record.as_deref(), self.expects.as_deref())
    }

    /// Our taints that the order removes.
    pub fn taints_removed(&self) -> Vec<&Taint> {
        difference(self.expects.as_deref(), self.record.as_deref())
    }
}

fn difference<'a>(of: Option<&'a NodeRecord>, without: Option<&NodeRecord>) -> Vec<&'a Taint> {
    let taints =
        |record: &'a NodeRecord| record.marks.taint.iter().chain(&record.marks.caution_taint);
    let others: Vec<&Taint> = without
        .map(|record| {
            record
                .marks
                .taint
                .iter()
                .chain(&record.marks.caution_taint)
                .collect()
        })
        .unwrap_or_default();
    of.into_iter()
        .flat_map(taints)
        .filter(|taint| !others.contains(taint))
        .collect()
}

/// Everything that is to be done now. The next plan replaces this one: an order that is not in it
/// any more is withdrawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The time of the decision.
    pub at: Timestamp,
    /// The cluster's record, to be written before anything else when it differs from what was read.
    pub cluster: Option<ClusterRecord>,
    /// Changes to Nodes, in the order in which they should be made.
    pub marks: Vec<MarkOrder>,
    /// Drains that go on.
    pub drains: Vec<DrainOrder>,
    /// For each drain that begins, by Node: where its Pods fit, and where those of the Nodes that are
    /// emptied already. Nobody is told to go there; it is the proof that there is room.
    pub places: BTreeMap<NodeName, Vec<Place>>,
}

impl Plan {
    /// A plan that does nothing.
    pub fn empty(at: Timestamp) -> Self {
        Self {
            at,
            cluster: None,
            marks: Vec::new(),
            drains: Vec::new(),
            places: BTreeMap::new(),
        }
    }
}
