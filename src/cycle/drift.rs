//! How far the inputs are from those of the training, and whether the model's expectations come true.
//!
//! All of it belongs to the model that scores: with another one it begins again.

use std::collections::BTreeMap;
use std::time::Duration;

use foreshock_core::decision::world::{Score, ScoreUnknown};
use foreshock_core::node::NodeName;
use foreshock_core::time::since;
use jiff::Timestamp;

use super::Cycle;
use super::score::Scored;
use crate::features::ModelMatrix;
use crate::model::drift::{Counts, Day, Measured, Probe};
use crate::model::loaded::Model;
use crate::model::outcomes::{Account, Outcomes, Seen};
use crate::snapshot::Drift;

/// The values of one Node hardly change from one scrape to the next; more often tells nothing more.
const COUNT_INTERVAL: Duration = Duration::from_secs(300);

/// Counts the inputs of one model, and what came of what it said.
pub(super) struct DriftWatch {
    /// Which model's all this is.
    model: String,
    counted_at: Option<Timestamp>,
    day: Day,
    account: Account,
    measured: Option<Measured>,
    outcomes: Option<Outcomes>,
}

impl DriftWatch {
    pub(super) fn new(model: &Model) -> Self {
        Self {
            model: model.id().to_owned(),
            counted_at: None,
            day: Day::default(),
            account: Account::new(model.horizon()),
            measured: None,
            outcomes: None,
        }
    }

    /// Whether the inputs of this time are to be counted.
    pub(super) fn is_due(&self, model: &Model, at: Timestamp) -> bool {
        let counted = self.counted_at.filter(|_| self.model == model.id());
        counted.is_none_or(|counted| at < counted || since(counted, at) >= COUNT_INTERVAL)
    }

    /// What was measured of this model.
    pub(super) fn measured(&self, model: &Model) -> Option<&Measured> {
        self.measured.as_ref().filter(|_| self.model == model.id())
    }

    /// The same as it is shown.
    pub(super) fn shown(&self, model: &Model) -> Option<Drift> {
        let measured = self.measured(model)?.clone();
        let demands = model.demands();
        Some(Drift {
            alarmed: measured.is_alarm(demands.drift_alarm),
            warn: demands.drift_warn,
            alarm: demands.drift_alarm,
            outcomes: self.outcomes,
            measured,
        })
    }
}

/// Counts the inputs of all Nodes that say anything.
pub(super) fn count(
    probe: &Probe,
    derived: &ModelMatrix,
    scores: &BTreeMap<NodeName, Score>,
) -> Counts {
    let scored = |node| match scores.get(node).map(|score| score.risk) {
        Some(Ok(risk)) => Some(Some(risk.as_f64())),
        // A collector that fails everywhere is what the share of missing values is there for.
        Some(Err(ScoreUnknown::FeaturesMissing)) => Some(None),
        Some(Err(ScoreUnknown::NoScrape | ScoreUnknown::Stale | ScoreUnknown::Ambiguous))
        | None => None,
    };
    let scored: Vec<_> = derived.nodes.iter().map(scored).collect();
    probe.count(derived, &scored)
}

impl Cycle {
    /// Takes in what was counted of the inputs, and looks what became of the Nodes.
    pub(super) fn take_drift(&mut self, model: &Model, scored: &Scored, counts: Option<Counts>) {
        if self.drift.model != model.id() {
            self.drift = DriftWatch::new(model);
        }
        let at = scored.at();
        if let Some(counts) = counts {
            self.drift.counted_at = Some(at);
            self.drift.day.add(at, &counts);
            self.drift.measured = Some(self.drift.day.measure(&model.probe));
        }
        if self.parts.cluster.is_none() {
            return;
        }
        let table = self.nodes.borrow();
        let seen = table.nodes.iter().map(|(name, entry)| Seen {
            node: &entry.facts.id,
            ready: entry.facts.ready,
            planned: entry.facts.cordoned || entry.facts.taken_by.is_some(),
            probability: scored
                .scores
                .get(name)
                .and_then(|score| score.risk.ok())
                .map(|risk| risk.as_f64()),
        });
        self.drift.account.look(self.parts.clock.now(), seen);
        self.drift.outcomes = self.drift.account.outcomes();
    }
}
