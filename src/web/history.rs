//! The recent risk of every Node, for sparklines: what the page would not know after a reload.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use foreshock_core::node::NodeName;
use jiff::Timestamp;

use super::view::{RiskHistoryJson, RiskPointJson};
use super::words::Time;
use crate::snapshot::Snapshot;

/// Points of each Node: a quarter of an hour at the default interval. Two bytes each, so that 5,000
/// Nodes take 600 KB.
const POINTS_MAX: usize = 60;

/// Stands for an unknown risk.
const UNKNOWN: u16 = u16::MAX;

/// The recent risk of every Node.
#[derive(Debug, Default)]
pub(super) struct RiskHistory(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    at: VecDeque<Timestamp>,
    /// Risks in thousandths; the last one belongs to the last time.
    nodes: BTreeMap<NodeName, VecDeque<u16>>,
    seen: Option<Timestamp>,
}

impl RiskHistory {
    /// Notes the risks of a snapshot, once for each time that features were asked for (or each
    /// interval without features): a decision that an alert woke is not a point of its own.
    pub(super) fn note(&self, snapshot: &Snapshot) {
        let mut inner = self.lock();
        let grid = snapshot.matrix.as_ref().map(|matrix| matrix.at);
        let due = match (grid, inner.seen) {
            (_, None) => snapshot.synced,
            (Some(at), Some(seen)) => at > seen,
            (None, Some(seen)) => {
                foreshock_core::time::since(seen, snapshot.at) >= snapshot.interval
            }
        };
        if !due {
            return;
        }
        inner.seen = Some(grid.unwrap_or(snapshot.at));
        if inner.at.len() == POINTS_MAX {
            inner.at.pop_front();
        }
        inner.at.push_back(snapshot.at);
        inner
            .nodes
            .retain(|name, _| snapshot.node(name.as_str()).is_some());
        for node in &snapshot.nodes {
            let point = node.verdict.risk.map_or(UNKNOWN, |risk| {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a probability times 1000"
                )]
                let point = (risk.as_f64() * 1_000.0).round() as u16;
                point
            });
            let points = inner.nodes.entry(node.name().clone()).or_default();
            if points.len() == POINTS_MAX {
                points.pop_front();
            }
            points.push_back(point);
        }
    }

    /// The risk of one Node, oldest first.
    pub(super) fn of(&self, name: &str) -> Vec<RiskPointJson> {
        let inner = self.lock();
        let Some(points) = inner.nodes.get(name) else {
            return Vec::new();
        };
        let skip = inner.at.len().saturating_sub(points.len());
        inner
            .at
            .iter()
            .skip(skip)
            .zip(points)
            .map(|(at, point)| RiskPointJson {
                at: Time(*at),
                risk: risk(*point),
            })
            .collect()
    }

    /// The risk of every Node.
    pub(super) fn all(&self) -> RiskHistoryJson {
        let inner = self.lock();
        RiskHistoryJson {
            at: inner.at.iter().copied().map(Time).collect(),
            nodes: inner
                .nodes
                .iter()
                .map(|(name, points)| {
                    let risks = points.iter().copied().map(risk).collect();
                    (name.as_str().to_owned(), risks)
                })
                .collect(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // A point that is there for half the Nodes only is shown as such and does no harm.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn risk(point: u16) -> Option<f64> {
    (point != UNKNOWN).then(|| f64::from(point) / 1_000.0)
}
