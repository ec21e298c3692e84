//! Who knows the past: what happened to the Nodes, and what their features were.

use std::sync::Arc;

use foreshock_core::time::after;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::features::{FeatureMatrix, Schema};
use crate::train::labels::NodeHistory;
use crate::train::signals::{Signal, alert_state};

/// Somebody who knows the past.
pub trait Archive: Send + Sync {
    /// The features that are known.
    fn schema(&self) -> &Arc<Schema>;

    /// What was seen of the Nodes at so many times from `from` on, [`Seen::STEP`] apart.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`].
    fn seen(&self, from: Timestamp, times: usize) -> BoxFuture<'_, Result<Seen, ArchiveError>>;

    /// The features at so many points of the [`GRID`](crate::features::history::GRID) from `from` on, one matrix
    /// for each.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`], also where a single feature could not be had: a model would learn that it was missing.
    fn features(
        &self,
        from: Timestamp,
        points: usize,
    ) -> BoxFuture<'_, Result<Vec<FeatureMatrix>, ArchiveError>>;
}

/// Why the past is not known.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Something of it could not be had.
    #[error("the history of {from:.0} and after could not be had: {problem}")]
    NotHad {
        /// The begin of what was asked for.
        from: Timestamp,
        /// What went wrong.
        problem: String,
    },
}

/// What was seen of the Nodes over some time: values, and where they stay the same only how often.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// The first time.
    pub from: Timestamp,
    /// Each Node's signals, in any order.
    pub series: Vec<SeenSeries>,
}

/// One signal, or one alert, of one Node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenSeries {
    /// Whose.
    pub node: String,
    /// What.
    pub what: What,
    /// Stretches of one value: the place of the first time, how many times, and the value.
    pub runs: Vec<(u32, u32, f64)>,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A signal.
    Signal(Signal),
    /// The alert of this name, which is an incident when it fires.
    Alert(String),
    /// An alert of this name, which is none.
    OtherAlert(String),
}

impl Seen {
    /// Distance of two times.
    pub const STEP: std::time::Duration = std::time::Duration::from_secs(60);

    /// Adds values, one for each time; not a number where there is none.
    pub fn add(&mut self, node: &str, what: What, values: &[f64]) {
        let mut runs: Vec<(u32, u32, f64)> = Vec::new();
        for (place, value) in (0u32..).zip(values) {
            match runs.last_mut() {
                _ if !value.is_finite() => {}
                Some((first, n, same)) if *first + *n == place && same == value => *n += 1,
                _ => runs.push((place, 1, *value)),
            }
        }
        if !runs.is_empty() {
            let node = node.to_owned();
            self.series.push(SeenSeries { node, what, runs });
        }
    }
}

impl SeenSeries {
    /// Tells it to the history of the Node, sample by sample. `from` is the first time of its [`Seen`].
    pub fn tell(&self, from: Timestamp, history: &mut NodeHistory) {
        for (first, n, value) in &self.runs {
            for place in *first..first.saturating_add(*n) {
                let at = after(from, Seen::STEP * place);
                match &self.what {
                    What::Signal(signal) => history.see(*signal, at, *value),
                    What::Alert(name) => history.see_alert(name, at, alert_state(*value)),
                    What::OtherAlert(name) => {
                        history.see_other_alert(name, at, alert_state(*value));
                    }
                }
            }
        }
    }
}
