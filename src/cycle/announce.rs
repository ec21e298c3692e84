//! What is said to people by Kubernetes Events of the loop: each thing once, by whoever leads.
//!
//! Marks and evictions are said by the actuator, when they are made. This is about what is *not* done:
//! a storm, a plan that the audit refused, an annotation that nobody can understand.

use std::collections::{BTreeMap, BTreeSet};

use foreshock_core::decision::Decision;
use foreshock_core::decision::world::{HoldUntil, World};
use foreshock_core::node::NodeId;
use foreshock_core::record::Storm;
use jiff::Timestamp;

use crate::actuator::EventTx;
use crate::events::{EventKind, EventLog, NewEvent};
use crate::kubernetes::ClusterEvent;

/// Malformed annotations that are said in one decision; the others are said in the next ones.
const MALFORMED_MAX: usize = 20;

/// Remembers what was said.
#[derive(Debug, Default)]
pub(super) struct Announced {
    storm: Option<Storm>,
    refused: Option<String>,
    malformed: BTreeMap<NodeId, String>,
}

impl Announced {
    /// Says what is new. Called while this process leads and is not paused: what comes meanwhile is
    /// said afterwards, if it still holds. `leads_since` tells a storm that another has announced.
    pub(super) fn announce(
        &mut self,
        out: &EventTx,
        decision: &Decision,
        refusal: Option<&str>,
        leads_since: Timestamp,
    ) {
        match (&self.storm, &decision.storm) {
            (None, Some(storm)) if storm.since >= leads_since => out.publish(of_all(
                "DegradationStorm",
                true,
                format!(
                    "{}: so many at once are more likely a fault of the signal; nothing new is begun until it is over",
                    storm.about
                ),
            )),
            (Some(storm), None) => out.publish(of_all(
                "DegradationStormOver",
                false,
                format!(
                    "the storm since {:.0} is over ({}); Nodes are begun on one at a time first",
                    storm.since, storm.about
                ),
            )),
            (None, Some(_)) | (Some(_), Some(_)) | (None, None) => {}
        }
        self.storm.clone_from(&decision.storm);
        if let Some(refusal) = refusal
            && self.refused.as_deref() != Some(refusal)
        {
            let note = format!("a plan was refused, and nothing of it is done: {refusal}");
            out.publish(of_all("PlanRefused", true, note));
        }
        self.refused = refusal.map(str::to_owned);
    }

    /// Says which annotations cannot be understood: on the page always, in an Event where it may be.
    pub(super) fn malformed(&mut self, events: &EventLog, out: Option<&EventTx>, world: &World) {
        let malformed = world
            .nodes
            .values()
            .filter_map(|node| match &node.hold_until {
                Some(HoldUntil::Malformed(text)) => Some((&node.id, text)),
                Some(HoldUntil::Time(_)) | None => None,
            });
        let mut still = BTreeSet::new();
        let mut said = 0;
        for (node, text) in malformed {
            still.insert(node.clone());
            if self.malformed.get(node) == Some(text) || said == MALFORMED_MAX {
                continue;
            }
            said += 1;
            let note = format!(
                "foreshock.dev/hold-until is no RFC 3339 time, such as 2026-03-01T12:00:00Z: {text:?}; it holds until somebody corrects or removes it"
            );
            tracing::warn!(node = %node, value = text, "annotation foreshock.dev/hold-until is no time");
            let event = NewEvent::new(world.at, EventKind::Hold, note.as_str());
            events.push(event.node(&node.name).reason("hold_until"));
            if let Some(out) = out {
                out.publish(ClusterEvent {
                    node: Some(node.clone()),
                    pod: None,
                    reason: "HoldUntilMalformed",
                    warning: true,
                    note,
                });
            }
            self.malformed.insert(node.clone(), text.clone());
        }
        self.malformed.retain(|node, _| still.contains(node));
    }
}

fn of_all(reason: &'static str, warning: bool, note: String) -> ClusterEvent {
    ClusterEvent {
        node: None,
        pod: None,
        reason,
        warning,
        note,
    }
}
