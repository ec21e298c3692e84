//! From the archive into the folder, slice by slice in the order of time.

use std::sync::Arc;

use foreshock_core::time::after;
use jiff::Timestamp;

use super::archive::{Archive, Seen};
use super::story::Telling;
use super::work::{Work, WorkError};
use super::{Progress, Step, TrainError};
use crate::features::history::GRID;
use crate::features::{FeatureMatrix, Schema};
use crate::train::track::Span;

/// Values of one slice, 16 MB of them: 5,000 Nodes with 53 features are asked for 35 minutes at a time.
const CELLS_MAX: usize = 2_000_000;
/// Points of a day.
const DAY: usize = 288;

/// The features of a history, in the folder.
#[derive(Clone, Debug)]
pub(super) struct Fetched {
    work: Work,
    schema: Arc<Schema>,
    slices: Vec<(Timestamp, usize)>,
}

impl Fetched {
    /// How many points there are.
    pub(super) fn points(&self) -> u64 {
        self.slices.iter().map(|(_, points)| *points as u64).sum()
    }

    pub(super) fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Every matrix, in the order of time; a slice at a time is in memory.
    pub(super) fn matrices(&self) -> impl Iterator<Item = Result<FeatureMatrix, WorkError>> {
        self.slices.iter().flat_map(|(from, points)| {
            let (matrices, error) = match self.work.features(*from, *points, &self.schema) {
                Ok(matrices) => (matrices, None),
                Err(error) => (Vec::new(), Some(error)),
            };
            matrices.into_iter().map(Ok).chain(error.map(Err))
        })
    }
}

/// Fetches what happened, day by day, and tells it.
pub(super) async fn seen(
    archive: &dyn Archive,
    work: &Work,
    history: Span,
    progress: &dyn Progress,
) -> Result<Telling, TrainError> {
    let each = DAY * (GRID.as_secs() / Seen::STEP.as_secs()) as usize;
    let slices = slices_of(history, Seen::STEP.as_secs(), each);
    let mut telling = Telling::default();
    for (done, (from, times)) in slices.iter().enumerate() {
        progress.at(Step::Seen, done as u64, slices.len() as u64);
        let seen = match work.seen(*from)? {
            Some(seen) => seen,
            None => {
                let seen = archive.seen(*from, *times).await?;
                work.keep_seen(&seen)?;
                seen
            }
        };
        telling.take(&seen);
    }
    progress.at(Step::Seen, slices.len() as u64, slices.len() as u64);
    Ok(telling)
}

/// Fetches the features.
pub(super) async fn features(
    archive: &dyn Archive,
    work: &Work,
    history: Span,
    n_nodes: usize,
    progress: &dyn Progress,
) -> Result<Fetched, TrainError> {
    let schema = Arc::clone(archive.schema());
    let each = (CELLS_MAX / (n_nodes.max(1) * schema.len())).clamp(1, DAY);
    let slices = slices_of(history, GRID.as_secs(), each);
    for (done, (from, points)) in slices.iter().enumerate() {
        progress.at(Step::Features, done as u64, slices.len() as u64);
        if !work.has_features(*from) {
            let matrices = archive.features(*from, *points).await?;
            work.keep_features(*from, &matrices)?;
        }
    }
    progress.at(Step::Features, slices.len() as u64, slices.len() as u64);
    Ok(Fetched {
        work: work.clone(),
        schema,
        slices,
    })
}

/// Begin and number of times of each slice of a history, the times so many seconds apart.
fn slices_of(history: Span, step: u64, each: usize) -> Vec<(Timestamp, usize)> {
    let all = usize::try_from(history.lasts().as_secs() / step).unwrap_or(0);
    let begins = (0..all).step_by(each.max(1));
    let slices = begins.map(|begin| {
        let from = after(
            history.from,
            std::time::Duration::from_secs(step * begin as u64),
        );
        (from, each.min(all - begin))
    });
    slices.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_whole_but_for_the_last_and_leave_nothing_out() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let history = Span {
            from: at(600),
            to: at(600 + 300 * 7),
        };
        assert_eq!(
            slices_of(history, 300, 3),
            [(at(600), 3), (at(1_500), 3), (at(2_400), 1)]
        );
        assert_eq!(slices_of(history, 300, 100), [(at(600), 7)]);
        let empty = Span {
            from: at(600),
            to: at(600),
        };
        assert_eq!(slices_of(empty, 300, 3), []);
    }
}
