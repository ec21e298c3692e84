//! Our own writes, as the actuator reports them: what the watch has not shown yet counts all the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use foreshock_core::decision::plan::Cause;
use foreshock_core::decision::world::OwnWrite;
use foreshock_core::drain::DrainReport;
use foreshock_core::node::{NodeId, NodeName};
use foreshock_core::record::RecordedPhase;
use foreshock_core::time::after;
use jiff::Timestamp;

use crate::actuator::Report;
use crate::kubernetes::{ClusterError, NodeTable};
use crate::snapshot::{DiffersView, MovedView, VolumesView};

/// The pause after a first failed write; it doubles with each further one.
const RETRY_MIN: Duration = Duration::from_secs(2);
/// The longest pause.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// A write whose answer was lost counts as done for so long; by then the watch shows it if it was.
const LOST_FOR: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
struct Write {
    state: OwnWrite,
    failures: u32,
    /// The state ends by itself then.
    until: Option<Timestamp>,
}

/// Our own writes.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnWrites {
    writes: BTreeMap<NodeName, Write>,
    pub(super) drains: BTreeMap<NodeName, DrainReport>,
    blocked: BTreeMap<NodeName, BTreeMap<(String, String), u32>>,
    /// Where the Pods of each Node's last drain went.
    pub(super) moved: BTreeMap<NodeId, MovedView>,
    /// How each Node's last drain differed from its plan.
    pub(super) differs: BTreeMap<NodeId, DiffersView>,
    /// What each Node's last drain has left attached.
    pub(super) volumes: BTreeMap<NodeId, VolumesView>,
}

impl OwnWrites {
    pub(super) fn take(&mut self, report: &Report, now: Timestamp) {
        match report {
            Report::MarkSent { node, cause, .. } => {
                let failures = self
                    .writes
                    .get(&node.name)
                    .map_or(0, |write| write.failures);
                let state = OwnWrite::InFlight {
                    taints: *cause == Cause::Taint,
                    drains: *cause == Cause::DrainStart,
                };
                self.writes.insert(
                    node.name.clone(),
                    Write {
                        state,
                        failures,
                        until: None,
                    },
                );
            }
            Report::Marked { entry, .. } => drop(self.writes.remove(&entry.facts.id.name)),
            // Somebody else wrote: decide again, at once.
            Report::MarkFailed {
                node,
                error: ClusterError::Superseded { .. },
                ..
            } => {
                self.writes.remove(&node.name);
            }
            Report::MarkFailed {
                node,
                error: ClusterError::Timeout { .. },
                ..
            } => {
                if let Some(write) = self.writes.get_mut(&node.name) {
                    write.until = Some(after(now, LOST_FOR));
                }
            }
            Report::MarkFailed {
                node, cause, error, ..
            } => {
                let failures = self
                    .writes
                    .get(&node.name)
                    .map_or(0, |write| write.failures);
                let pause = RETRY_MIN
                    .saturating_mul(1 << failures.min(8))
                    .min(RETRY_MAX);
                let retry_at = after(now, pause);
                // It may have taken place all the same: an answer that was lost, or a 5xx from in between.
                let (taints, drains) = (*cause == Cause::Taint, *cause == Cause::DrainStart);
                let state = OwnWrite::Failed {
                    problem: error.to_string(),
                    retry_at,
                    taints,
                    drains,
                };
                // The count is kept beyond the retry, so that the next pause is longer.
                let until = Some(after(retry_at, RETRY_MAX));
                self.writes.insert(
                    node.name.clone(),
                    Write {
                        state,
                        failures: failures + 1,
                        until,
                    },
                );
            }
            Report::Drain { node, report } => {
                // What was said of an earlier drain is not said of this one.
                let started_at = report.started_at;
                self.differs
                    .retain(|of, view| of != node || view.drain == started_at);
                self.volumes
                    .retain(|of, view| of != node || view.left.drain.started_at == started_at);
                drop(self.drains.insert(node.name.clone(), report.clone()))
            }
            Report::Blocked { node, budgets } => {
                drop(self.blocked.insert(node.name.clone(), budgets.clone()))
            }
            Report::RecordWritten { .. }
            | Report::RecordFailed { .. }
            | Report::Answered { .. }
            | Report::Pod(_) => {}
            Report::Moved {
                node,
                moved,
                message,
                at,
            } => {
                let view = MovedView {
                    at: *at,
                    message: message.clone(),
                    moved: Arc::clone(moved),
                };
                drop(self.moved.insert(node.clone(), view));
            }
            Report::LeftBehind {
                node,
                left,
                message,
                at,
            } => {
                // The next drain may have begun before the deadline of this one, or be over already.
                let started_at = left.drain.started_at;
                let running = self.drains.get(&node.name);
                let over = self.differs.get(node);
                if running.is_some_and(|running| running.started_at != started_at)
                    || over.is_some_and(|over| over.drain > started_at)
                {
                    return;
                }
                let view = VolumesView {
                    at: *at,
                    message: message.clone(),
                    left: Arc::clone(left),
                };
                drop(self.volumes.insert(node.clone(), view));
            }
            Report::Differs {
                node,
                drain,
                differences,
                message,
                at,
            } => {
                let view = DiffersView {
                    drain: *drain,
                    at: *at,
                    message: message.clone(),
                    differences: Arc::clone(differences),
                };
                drop(self.differs.insert(node.clone(), view));
            }
            // What became of a write may be among what was lost.
            Report::Lost { .. } => {
                for write in self.writes.values_mut() {
                    write.until.get_or_insert(after(now, LOST_FOR));
                }
            }
        }
    }

    /// Forgets what has run out, drains of Nodes that are not draining any more, and Nodes that are gone.
    pub(super) fn tidy(&mut self, table: &NodeTable, now: Timestamp) {
        self.writes
            .retain(|_, write| write.until.is_none_or(|until| now < until));
        let draining = |name: &NodeName| {
            let record = table
                .nodes
                .get(name)
                .and_then(|entry| entry.facts.record.ours());
            record.is_some_and(|record| record.phase == RecordedPhase::Draining)
        };
        self.drains.retain(|name, _| draining(name));
        self.blocked.retain(|name, _| draining(name));
        let is_there = |node: &NodeId| {
            let entry = table.nodes.get(&node.name);
            entry.is_some_and(|entry| entry.facts.id == *node)
        };
        self.moved.retain(|node, _| is_there(node));
        self.differs.retain(|node, _| is_there(node));
        self.volumes.retain(|node, _| is_there(node));
    }

    pub(super) fn writes(&self) -> BTreeMap<NodeName, OwnWrite> {
        self.writes
            .iter()
            .map(|(name, write)| (name.clone(), write.state.clone()))
            .collect()
    }

    /// Pods that wait for a budget, by namespace and budget, of all drains together.
    pub(super) fn blocked(&self) -> BTreeMap<(String, String), u32> {
        let mut all = BTreeMap::new();
        for (budget, count) in self.blocked.values().flatten() {
            *all.entry(budget.clone()).or_default() += count;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use foreshock_core::drain::{DrainId, LeftBehind};

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn sent() -> OwnWrites {
        let mut own = OwnWrites::default();
        let node = NodeId::new("a", "uid-a");
        own.take(
            &Report::MarkSent {
                node,
                cause: Cause::Taint,
                at: NOW,
            },
            NOW,
        );
        own
    }

    /// A drain of this Node that runs since then.
    fn drain(node: &NodeId, started_at: Timestamp) -> Report {
        Report::Drain {
            node: node.clone(),
            report: DrainReport {
                started_at,
                remaining: 0,
                gone: 1,
                ended: None,
                detail: String::new(),
            },
        }
    }

    fn taints_counted(own: &OwnWrites) -> bool {
        own.writes().values().any(|write| {
            matches!(
                write,
                OwnWrite::InFlight { taints: true, .. } | OwnWrite::Failed { taints: true, .. }
            )
        })
    }

    fn failed(own: &mut OwnWrites, at: Timestamp) {
        let error = ClusterError::Failed {
            action: "patch".into(),
            detail: "reset".into(),
        };
        let node = NodeId::new("a", "uid-a");
        own.take(
            &Report::MarkFailed {
                node,
                cause: Cause::Taint,
                error,
                at,
            },
            at,
        );
    }

    #[test]
    fn a_write_that_failed_goes_on_counting_since_it_may_have_taken_place() {
        let mut own = sent();
        failed(&mut own, NOW);
        own.tidy(&NodeTable::default(), after(NOW, RETRY_MIN));
        assert!(taints_counted(&own));
    }

    #[test]
    fn failures_are_repeated_with_growing_pauses() {
        let mut own = sent();
        let pauses: Vec<Duration> = (0..8)
            .map(|_| {
                failed(&mut own, NOW);
                match own.writes().values().next() {
                    Some(OwnWrite::Failed { retry_at, .. }) => {
                        foreshock_core::time::since(NOW, *retry_at)
                    }
                    other => panic!("{other:?}"),
                }
            })
            .collect();
        assert_eq!(pauses[0], RETRY_MIN);
        assert!(
            pauses.windows(2).all(|pair| pair[0] <= pair[1]),
            "{pauses:?}"
        );
        assert_eq!(pauses[7], RETRY_MAX);
    }

    #[test]
    fn reports_that_were_lost_leave_no_node_busy_for_ever() {
        let mut own = sent();
        own.tidy(&NodeTable::default(), after(NOW, 100 * LOST_FOR));
        assert!(taints_counted(&own), "without an answer it stays under way");
        own.take(&Report::Lost { count: 1 }, NOW);
        own.tidy(&NodeTable::default(), after(NOW, LOST_FOR));
        assert!(own.writes().is_empty());
    }

    #[test]
    fn how_an_earlier_drain_differed_is_not_said_of_the_next() {
        let mut own = OwnWrites::default();
        let node = NodeId::new("a", "uid-a");
        let differs = Report::Differs {
            node: node.clone(),
            drain: NOW,
            differences: Arc::default(),
            message: "1 Pod not as planned".to_owned(),
            at: NOW,
        };
        own.take(&differs, NOW);
        own.take(&drain(&node, NOW), NOW);
        assert!(own.differs.contains_key(&node), "the same is said again");
        own.take(&drain(&node, after(NOW, RETRY_MIN)), NOW);
        assert!(own.differs.is_empty());
    }

    #[test]
    fn what_an_earlier_drain_left_attached_is_not_said_of_the_next() {
        let mut own = OwnWrites::default();
        let node = NodeId::new("a", "uid-a");
        let left = Report::LeftBehind {
            node: node.clone(),
            left: Arc::new(LeftBehind {
                drain: DrainId {
                    node: node.clone(),
                    started_at: NOW,
                },
                waited: RETRY_MIN,
                attached: Vec::new(),
                unknown: Vec::new(),
            }),
            message: "1 volume is still attached".to_owned(),
            at: NOW,
        };
        own.take(&left, NOW);
        own.take(&drain(&node, NOW), NOW);
        assert!(own.volumes.contains_key(&node), "the same is said again");
        own.take(&drain(&node, after(NOW, RETRY_MIN)), NOW);
        assert!(own.volumes.is_empty());
        // It may be known only when the next one runs.
        own.take(&left, NOW);
        assert!(own.volumes.is_empty());
        // Or when that is over too, and its Node is not draining any more.
        let differs = Report::Differs {
            node: node.clone(),
            drain: after(NOW, RETRY_MIN),
            differences: Arc::default(),
            message: String::new(),
            at: NOW,
        };
        own.take(&differs, NOW);
        own.drains.clear();
        own.take(&left, NOW);
        assert!(own.volumes.is_empty());
    }
}
