//! The history behind the columns that need one, and how it is filled after a start.
//!
//! What the service has not seen itself, it asks Prometheus for: the last hour first, then today, then day
//! by day back to a week. One gap after the other, beside everything else, and only of the features that
//! the model's columns need; a model without such columns costs nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{Answer, Cycle, chain, directory};
use crate::features::history::{GRID, Gap, WEEK};
use crate::features::{History, NodeDirectory, Schema, Telemetry};

/// Values that one answer for all features may come to, 16 MB of them. 5,000 Nodes with 53 features are
/// asked for 35 minutes at a time, small clusters for a day.
const CELLS_MAX: usize = 2_000_000;
/// Points of a day: no more are asked for at once.
const POINTS_MAX: usize = 288;
/// A gap that takes longer than this is given up; 5,000 Nodes take some ten minutes a day.
const FILL_MAX: Duration = Duration::from_secs(2 * 3600);
/// A gap is tried so many times.
const ATTEMPTS_MAX: u32 = 3;
/// After a failure nothing is asked for so long.
const PAUSE: Duration = Duration::from_secs(300);
/// The last hour and today have new points all the time: they are tried again after this.
const PAUSE_LONG: Duration = Duration::from_secs(3600);

/// The history, and what is done to fill it.
#[derive(Debug, Default)]
pub(super) struct Past {
    history: Arc<Mutex<History>>,
    running: bool,
    /// Gaps that could not be filled: how often, and when last.
    failed: BTreeMap<Gap, (u32, Instant)>,
    said: Option<String>,
}

/// What came of filling a gap.
pub(super) struct Filled {
    pub(super) gap: Gap,
    pub(super) problem: Option<String>,
}

impl Past {
    pub(super) fn history(&self) -> Arc<Mutex<History>> {
        Arc::clone(&self.history)
    }

    /// The gap to be filled now.
    pub(super) fn next(&self) -> Option<Gap> {
        let failed_last = self.failed.values().map(|(_, at)| *at).max();
        if self.running || failed_last.is_some_and(|at| at.elapsed() < PAUSE) {
            return None;
        }
        let open = |gap: &Gap| match (self.failed.get(gap), gap) {
            (Some((times, _)), Gap::Day(_)) => *times < ATTEMPTS_MAX,
            (Some((times, at)), Gap::Hour | Gap::Today) => {
                *times < ATTEMPTS_MAX || at.elapsed() >= PAUSE_LONG
            }
            (None, _) => true,
        };
        // Whoever has it now has it for milliseconds: too long for the loop, and the next tick is soon.
        let history = self.history.try_lock().ok()?;
        history.gaps().into_iter().find(open)
    }

    pub(super) fn take(&mut self, filled: Filled) {
        let Filled { gap, problem } = filled;
        self.running = false;
        let Some(problem) = problem else {
            self.failed.remove(&gap);
            info!(?gap, "history filled from Prometheus");
            return;
        };
        let failed = self.failed.entry(gap).or_insert((0, Instant::now()));
        *failed = (failed.0 + 1, Instant::now());
        // The same again for each day says nothing new.
        if self.said.as_ref() != Some(&problem) {
            warn!(
                error = problem,
                "history could not be had from Prometheus; columns that need it stay missing for longer"
            );
            self.said = Some(problem);
        }
        // Days that do not count any more.
        self.failed.retain(|_, (_, at)| at.elapsed() < WEEK);
    }
}

impl Cycle {
    /// Begins to fill the next gap of the history, if there is one.
    pub(super) fn ask_past(&mut self) {
        if !self.parts.telemetry.knows_past() {
            return;
        }
        let Some(scored) = &self.scored else { return };
        let Some(gap) = self.past.next() else { return };
        let table = Arc::clone(&self.nodes.borrow());
        let nodes = if self.parts.cluster.is_some() {
            directory(&table)
        } else {
            NodeDirectory::open()
        };
        let filling = Filling {
            telemetry: Arc::clone(&self.parts.telemetry),
            history: self.past.history(),
            schema: Arc::clone(&scored.matrix.schema),
            n_nodes: scored.matrix.nodes.len(),
            nodes,
            gap,
        };
        self.past.running = true;
        self.answers.spawn(async move {
            let filled = tokio::time::timeout(FILL_MAX, filling.fill()).await;
            let problem = match filled {
                Ok(filled) => filled.err(),
                Err(_) => Some(format!("not done within {FILL_MAX:?}")),
            };
            Answer::Past(Filled { gap, problem })
        });
    }

    pub(super) fn take_past(&mut self, filled: Filled) {
        self.past.take(filled);
    }

    /// A task that failed may have been the one that fills.
    pub(super) fn forget_filling(&mut self) {
        self.past.running = false;
    }
}

/// One gap that is being filled.
pub(super) struct Filling {
    pub(super) telemetry: Arc<dyn Telemetry>,
    pub(super) history: Arc<Mutex<History>>,
    pub(super) schema: Arc<Schema>,
    pub(super) nodes: NodeDirectory,
    /// What the size of the slices goes by.
    pub(super) n_nodes: usize,
    pub(super) gap: Gap,
}

impl Filling {
    /// Asks slice by slice, in the order of time. What could be had counts, also where some could not.
    pub(super) async fn fill(self) -> Result<(), String> {
        let begun = {
            let history = lock(&self.history);
            let schema = self.schema.only(history.features());
            schema
                .zip(history.span(self.gap))
                .map(|begun| (begun, history.scratch()))
        };
        let Some(((schema, (from, mut to)), mut scratch)) = begun else {
            return Ok(());
        };
        let schema = Arc::new(schema);
        let cells = self.n_nodes.max(1) * schema.len();
        let most = (CELLS_MAX / cells).clamp(1, POINTS_MAX) as i64;
        let mut problem = None;
        let mut at = from;
        while at <= to {
            let points = points_to(at, to).min(most);
            let past = self
                .telemetry
                .past(&schema, at, points as u32, &self.nodes)
                .await
                .map_err(|error| chain(&error))?;
            problem = past.problems.first().cloned().or(problem);
            let whole = past.problems.is_empty();
            let (history, gap) = (Arc::clone(&self.history), self.gap);
            // Some milliseconds for each point of thousands of Nodes.
            let taken = tokio::task::spawn_blocking(move || {
                for matrix in &past.matrices {
                    match gap {
                        Gap::Hour => lock(&history).take(matrix, whole),
                        Gap::Today | Gap::Day(_) => scratch.take(matrix, whole),
                    };
                }
                scratch
            });
            scratch = taken.await.map_err(|error| error.to_string())?;
            at = after(at, points);
            if self.gap == Gap::Today && at > to {
                // The service has gone on meanwhile.
                to = lock(&self.history).span(self.gap).map_or(to, |(_, to)| to);
            }
        }
        let history = Arc::clone(&self.history);
        let gap = self.gap;
        let placed = tokio::task::spawn_blocking(move || match gap {
            Gap::Hour => true,
            Gap::Today => lock(&history).resume(scratch),
            Gap::Day(day) => lock(&history).adopt(day, scratch),
        });
        let placed = placed.await.map_err(|error| error.to_string())?;
        match problem {
            Some(problem) => Err(problem),
            // It asks for what it needs now, the next time.
            None if !placed => {
                debug!(
                    ?gap,
                    "the model or the day changed while history was asked for"
                );
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// Points from one time to another, both included.
fn points_to(from: Timestamp, to: Timestamp) -> i64 {
    to.duration_since(from).as_secs() / GRID.as_secs() as i64 + 1
}

fn after(at: Timestamp, points: i64) -> Timestamp {
    let seconds = at.as_second() + points * GRID.as_secs() as i64;
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}

pub(super) fn lock(history: &Mutex<History>) -> MutexGuard<'_, History> {
    // A task that panicked while it had it is a fault in the program, and said; the worst that it leaves
    // are values that are missing.
    history.lock().unwrap_or_else(PoisonError::into_inner)
}
