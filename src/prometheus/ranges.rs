//! What happened, over a range of time: any series, and whose it was.
//!
//! As in [`super::past`], one query at a time, as long a pause after each, and in halves where a whole is too
//! much.

use std::time::Duration;

use jiff::Timestamp;

use super::PrometheusTelemetry;
use super::client::{Query, QueryError};
use super::decode::{Labelled, Steps};
use crate::features::history::GRID;
use crate::features::identity::Labels;
use crate::features::{IdentityMap, NodeDirectory};

/// The times of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// The first, a whole second.
    pub from: Timestamp,
    /// From one to the next, whole seconds and at least one.
    pub step: Duration,
    /// How many; at least one.
    pub n: usize,
}

impl Times {
    fn steps(self) -> Steps {
        Steps {
            from: self.from.as_second(),
            step: i64::try_from(self.step.as_secs())
                .unwrap_or(i64::MAX)
                .max(1),
            n: self.n.max(1),
        }
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Timestamp> {
        let Steps { from, step, n } = self.steps();
        let seconds = (0..n as i64).map(move |i| from + step * i);
        seconds.filter_map(|seconds| Timestamp::from_second(seconds).ok())
    }
}

/// One series over a range.
#[derive(Clone, Debug, PartialEq)]
pub struct PastSeries {
    /// All its labels.
    pub labels: Labels,
    /// A value for each time; not a number where there is none.
    pub values: Vec<f64>,
}

/// Why a range is not known.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// The configured matchers cannot be added to the query.
    #[error("the query for {what} cannot be made: {problem}")]
    Render {
        /// What was to be asked for.
        what: &'static str,
        /// Why.
        problem: String,
    },
    /// It was not answered.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Our own work on the answer broke off.
    #[error("whose the series are could not be worked out")]
    Task(#[from] tokio::task::JoinError),
}

impl PrometheusTelemetry {
    /// The series of a query over a range. `$S` and the like are filled in; `what` names it in errors.
    ///
    /// # Errors
    ///
    /// [`RangeError`].
    pub async fn series(
        &self,
        what: &'static str,
        promql: &str,
        times: Times,
    ) -> Result<Vec<PastSeries>, RangeError> {
        let promql = self.render(promql);
        let promql = promql.map_err(|problem| RangeError::Render { what, problem })?;
        let series = self.ranged::<Labelled>(Query::Seen(what), &promql, times.steps());
        let series = series.await?.into_iter().map(|series| PastSeries {
            labels: series.metric,
            values: series.values,
        });
        Ok(series.collect())
    }

    /// Which `instance` was which Node, at so many points of the [`GRID`] from `from` on.
    ///
    /// # Errors
    ///
    /// [`RangeError`].
    pub async fn identities(
        &self,
        from: Timestamp,
        points: usize,
        nodes: &NodeDirectory,
    ) -> Result<Vec<IdentityMap>, RangeError> {
        let times = Times {
            from,
            step: GRID,
            n: points,
        };
        let who = self.who(self.own_queries(), times.steps(), nodes).await?;
        let (nodes, stale_after) = (nodes.clone(), self.stale_after);
        let maps = tokio::task::spawn_blocking(move || {
            let times = times.iter().enumerate();
            times
                .map(|(i, at)| who.at(i, at, &nodes, stale_after))
                .collect()
        });
        Ok(maps.await?)
    }
}
