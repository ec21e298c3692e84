//! Where feature matrices come from, in columns and not in PromQL, so that the demo and the simulator
//! need no query engine.

use std::sync::Arc;
use std::time::Duration;

use foreshock_core::node::NodeName;
use futures::future::BoxFuture;
use jiff::Timestamp;

use super::directory::NodeDirectory;
use super::identity::IdentityMap;
use super::matrix::FeatureMatrix;
use super::schema::{FeatureName, Schema};

/// Somebody who knows the features of all Nodes at a time.
pub trait Telemetry: Send + Sync {
    /// The features of every Node of the directory, evaluated at `at`, which lies on the
    /// [`grid`]. A single column that fails is missing and says so; it is no error.
    ///
    /// # Errors
    ///
    /// [`TelemetryError`] when nothing can be said of any Node.
    fn snapshot<'a>(
        &'a self,
        at: Timestamp,
        nodes: &'a NodeDirectory,
    ) -> BoxFuture<'a, Result<Telemetered, TelemetryError>>;

    /// Whether somebody here knows past times: [`Self::past`].
    fn knows_past(&self) -> bool {
        false
    }

    /// The features of `schema`, at so many points of the [`GRID`](super::history::GRID) from `from` on, by the rules of
    /// [`Self::snapshot`]. Slow, so as to leave the server to others. A column that fails is missing, and
    /// the answer is not whole.
    ///
    /// # Errors
    ///
    /// [`TelemetryError`] when nothing can be said of any Node, or nobody here knows past times.
    fn past<'a>(
        &'a self,
        _schema: &'a Arc<Schema>,
        from: Timestamp,
        _points: u32,
        _nodes: &'a NodeDirectory,
    ) -> BoxFuture<'a, Result<PastFeatures, TelemetryError>> {
        let source = "nobody here knows past times".into();
        Box::pin(std::future::ready(Err(TelemetryError { at: from, source })))
    }
}

/// What is known of past times.
#[derive(Clone, Debug)]
pub struct PastFeatures {
    /// One matrix for each point, in the order of time.
    pub matrices: Vec<FeatureMatrix>,
    /// What could not be had, as text for an operator; empty if the matrices are whole.
    pub problems: Vec<String>,
}

/// Nothing can be said of any Node: nobody could be asked, or nobody can be told from another.
#[derive(Debug, thiserror::Error)]
#[error("no telemetry for {at}")]
pub struct TelemetryError {
    /// The evaluation time that was asked for.
    pub at: Timestamp,
    /// What went wrong.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Everything that is known of all Nodes at one time.
#[derive(Clone, Debug)]
pub struct Telemetered {
    /// The values.
    pub matrix: FeatureMatrix,
    /// What came of each column, in the order of the schema.
    pub columns: Vec<Column>,
    /// Which `instance` is which Node, and what was refused.
    pub identity: IdentityMap,
    /// Problems of the queries behind the columns (collectors, histories, Pods): text for an operator.
    pub problems: Vec<String>,
}

impl Telemetered {
    /// Nodes of the matrix that had no fresh scrape.
    pub fn unscraped(&self) -> impl Iterator<Item = &NodeName> {
        let rows = self.matrix.nodes.iter().zip(&self.matrix.scraped_at);
        rows.filter(|(_, scraped)| scraped.is_none())
            .map(|(node, _)| node)
    }
}

/// What came of one feature's query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The feature.
    pub feature: FeatureName,
    /// Evaluation time of the values: the matrix's own, or earlier for a feature with `every`.
    pub at: Timestamp,
    /// Series in the answer.
    pub series: usize,
    /// Nodes with a value, zeros for absence included.
    pub filled: usize,
    /// Values that cannot be: infinite, or outside of `min..max`.
    pub absurd: usize,
    /// Nodes with two series of the same source: neither counts.
    pub doubled: usize,
    /// Series of refused instances or Nodes.
    pub refused: usize,
    /// Series of no Node of this installation.
    pub strangers: usize,
    /// Series whose `source` the schema does not know.
    pub unknown_sources: usize,
    /// Values of Nodes that were scraped for less than the feature's history.
    pub young: usize,
    /// Values of a collector that did not succeed.
    pub uncollected: usize,
    /// Why the whole column is missing; `None` if it was answered.
    pub problem: Option<String>,
    /// What the server remarked on an answer that counts.
    pub remarks: Vec<String>,
}

impl Column {
    /// A column of which nothing is known yet.
    pub fn new(feature: FeatureName, at: Timestamp) -> Self {
        Self {
            feature,
            at,
            series: 0,
            filled: 0,
            absurd: 0,
            doubled: 0,
            refused: 0,
            strangers: 0,
            unknown_sources: 0,
            young: 0,
            uncollected: 0,
            problem: None,
            remarks: Vec::new(),
        }
    }

    /// How old the values are at the time of the matrix.
    pub fn age(&self, matrix_at: Timestamp) -> Duration {
        matrix_at.duration_since(self.at).unsigned_abs()
    }
}

/// The evaluation time of a cycle: `floor((now − lag) / interval) × interval`, so that history can be
/// asked for exactly the same times. An `interval` of zero counts as one nanosecond.
pub fn grid(now: Timestamp, lag: Duration, interval: Duration) -> Timestamp {
    let nanos = |d: Duration| i128::try_from(d.as_nanos()).unwrap_or(i128::MAX / 2);
    let interval = nanos(interval).max(1);
    let at = (now.as_nanosecond() - nanos(lag)).div_euclid(interval) * interval;
    Timestamp::from_nanosecond(at).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_is_the_same_for_every_moment_of_an_interval() {
        let grid = |now: i64, lag: u64, interval: u64| {
            let now = Timestamp::from_second(now).unwrap();
            grid(now, Duration::from_secs(lag), Duration::from_secs(interval)).as_second()
        };
        assert_eq!(grid(1_000_000_035, 30, 15), 1_000_000_005);
        assert_eq!(grid(1_000_000_049, 30, 15), 1_000_000_005);
        assert_eq!(grid(1_000_000_050, 30, 15), 1_000_000_020);
        assert_eq!(grid(10, 30, 15), -30);
        assert_eq!(grid(1, 0, 0), 1);
    }
}
