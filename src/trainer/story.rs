//! What happened to the Nodes, from everything that was seen of them.

use std::collections::BTreeMap;

use foreshock_core::node::NodeName;
use jiff::Timestamp;

use crate::train::incidents::Reported;
use crate::train::labels::{Kind, Label, NodeHistory, Rules, Timeline};
use crate::train::sample::Enough;
use crate::train::track::Span;

use super::archive::Seen;

/// What happened to every Node.
#[derive(Debug)]
pub(super) struct Story {
    /// The history that it is of.
    pub(super) history: Span,
    nodes: BTreeMap<NodeName, (NodeHistory, Timeline)>,
}

/// What was seen, as it comes in.
#[derive(Debug, Default)]
pub(super) struct Telling(BTreeMap<NodeName, NodeHistory>);

impl Telling {
    /// Takes what was seen, in the order of time.
    pub(super) fn take(&mut self, seen: &Seen) {
        for series in &seen.series {
            let history = self.0.entry(series.node.as_str().into());
            let history = history.or_insert_with(|| NodeHistory::new(Seen::STEP));
            series.tell(seen.from, history);
        }
    }

    /// Whether anything was seen of a Node of this name.
    pub(super) fn knows(&self, node: &str) -> bool {
        self.0.contains_key(node)
    }

    /// The whole of it, with what the operator reports.
    pub(super) fn end(mut self, reported: &[Reported], rules: &Rules, history: Span) -> Story {
        for one in reported {
            if let Some(of) = self.0.get_mut(&one.node) {
                of.report(one.span, &one.kind);
            }
        }
        let nodes = self.0.into_iter().map(|(node, of)| {
            let timeline = of.timeline(rules, history);
            (node, (of, timeline))
        });
        Story {
            history,
            nodes: nodes.collect(),
        }
    }
}

impl Story {
    /// What the row of a Node is; `None` of one of which nothing was seen.
    pub(super) fn label(&self, node: &NodeName, at: Timestamp) -> Option<Label> {
        Some(self.nodes.get(node)?.1.label(at))
    }

    /// Whether an alert was pending or fired.
    pub(super) fn alerting(&self, node: &NodeName, at: Timestamp) -> bool {
        let of = self.nodes.get(node);
        of.is_some_and(|(history, _)| history.alerting(at))
    }

    /// The incidents and labels of a Node.
    pub(super) fn timeline(&self, node: &NodeName) -> Option<&Timeline> {
        Some(&self.nodes.get(node)?.1)
    }

    /// Incidents of the whole history.
    pub(super) fn enough(&self) -> Enough {
        let all = self.nodes.iter().flat_map(|(node, (_, timeline))| {
            timeline.incidents().iter().map(move |one| (node, one))
        });
        Enough::count(all, self.history)
    }

    /// Nodes by how many incidents befell them.
    pub(super) fn befallen(&self) -> impl Iterator<Item = (&NodeName, usize)> {
        let nodes = self.nodes.iter();
        nodes.map(|(node, (_, timeline))| (node, timeline.incidents().len()))
    }

    /// Incidents by what they were seen as.
    pub(super) fn kinds(&self) -> BTreeMap<Kind, u64> {
        let mut kinds = BTreeMap::new();
        let timelines = self.nodes.values().map(|(_, timeline)| timeline);
        for kind in timelines
            .flat_map(Timeline::incidents)
            .flat_map(|one| &one.kinds)
        {
            *kinds.entry(kind.clone()).or_default() += 1;
        }
        kinds
    }

    /// Signs of incidents that planned work excused.
    pub(super) fn excused(&self) -> u64 {
        let timelines = self.nodes.values();
        timelines
            .map(|(_, timeline)| timeline.n_excused() as u64)
            .sum()
    }
}
