//! What the actuator tells the cycle.
//!
//! A queue of its own rather than a channel: a write must not wait for the cycle, and the cycle must
//! know when something was lost. So it never blocks, has an end, and counts what goes beyond it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use foreshock_core::decision::plan::Cause;
use foreshock_core::drain::{
    Answer, Difference, DrainReport, LeftBehind, Moved, PodId, PodOutcome,
};
use foreshock_core::node::NodeId;
use foreshock_core::record::ClusterRecord;
use jiff::Timestamp;
use tokio::sync::Notify;
use tracing::error;

use crate::kubernetes::{ClusterError, NodeEntry};

/// Reports that may wait: a storm's worth, 500 Nodes with 110 Pods each.
pub const REPORTS_MAX: usize = 65_536;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// A mark is on its way: from here on it counts as an own write that the watch has not shown.
    MarkSent {
        /// The Node.
        node: NodeId,
        /// Why it is marked.
        cause: Cause,
        /// When it was sent.
        at: Timestamp,
    },
    /// A mark was made. The table of Nodes shows it already.
    Marked {
        /// The Node as it is now.
        entry: Box<NodeEntry>,
        /// Why it was marked.
        cause: Cause,
        /// The order's note.
        note: String,
        /// When the answer came.
        at: Timestamp,
    },
    /// A mark was not made, or nobody knows ([`ClusterError::Timeout`]).
    MarkFailed {
        /// The Node.
        node: NodeId,
        /// Why it was to be marked.
        cause: Cause,
        /// What went wrong.
        error: ClusterError,
        /// When.
        at: Timestamp,
    },
    /// The cluster's record was written.
    RecordWritten {
        /// What was written.
        record: ClusterRecord,
    },
    /// The cluster's record was not written; marks that begin something were not made.
    RecordFailed {
        /// What went wrong.
        problem: String,
    },
    /// The Eviction API has answered, for the log and for counting.
    Answered {
        /// The Pod's Node.
        node: NodeId,
        /// The Pod.
        pod: PodId,
        /// The answer.
        answer: Answer,
        /// When it came.
        at: Timestamp,
    },
    /// What came of one Pod of a drain. Of one that is gone it is said once more where its volumes are still
    /// attached to the Node at the drain's deadline.
    Pod(PodReport),
    /// How a drain stands. Repeated with every plan once it is over, until the plan has taken note.
    Drain {
        /// The Node.
        node: NodeId,
        /// How it stands.
        report: DrainReport,
    },
    /// Pods of a drain that wait for a budget, by namespace and budget; replaces what was said of this
    /// Node before.
    Blocked {
        /// The Node.
        node: NodeId,
        /// How many wait for which.
        budgets: BTreeMap<(String, String), u32>,
    },
    /// Where the Pods of a drain went, once for each drain; it may be over for long.
    Moved {
        /// The Node.
        node: NodeId,
        /// All of it.
        moved: Arc<Moved>,
        /// The same in one sentence, fit to be shown.
        message: String,
        /// When it was known.
        at: Timestamp,
    },
    /// Volumes of evicted Pods that had not left the Node at the drain's deadline, once for each drain where there
    /// are any; it may be over for long.
    LeftBehind {
        /// The Node.
        node: NodeId,
        /// All of it.
        left: Arc<LeftBehind>,
        /// The same in one sentence, fit to be shown.
        message: String,
        /// When it was seen.
        at: Timestamp,
    },
    /// With which Pods a drain that is over went otherwise than planned; there may be none.
    Differs {
        /// The Node.
        node: NodeId,
        /// Which drain: its start.
        drain: Timestamp,
        /// Each of them.
        differences: Arc<Vec<Difference>>,
        /// The same in one sentence, fit to be shown.
        message: String,
        /// When it was over.
        at: Timestamp,
    },
    /// So many reports were lost, because nobody took them.
    Lost {
        /// How many.
        count: u64,
    },
}

/// What came of one Pod of a drain.
#[derive(Clone, Debug, PartialEq)]
pub struct PodReport {
    /// Its Node.
    pub node: NodeId,
    /// The Pod.
    pub pod: PodId,
    /// What came of it.
    pub outcome: PodOutcome,
    /// What stood in the way; empty when nothing did.
    pub detail: String,
    /// When it was first asked to go, if it was.
    pub requested_at: Option<Timestamp>,
    /// When it was seen to be gone, if it is.
    pub gone_at: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Report>,
    lost: u64,
    senders: usize,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    news: Notify,
}

/// The end that reports.
#[derive(Debug)]
pub struct ReportTx(Arc<Shared>);

/// The end that listens.
#[derive(Debug)]
pub struct ReportRx(Arc<Shared>);

/// The two ends of a queue of reports.
pub fn channel() -> (ReportTx, ReportRx) {
    let shared = Arc::new(Shared::default());
    shared
        .queue
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .senders = 1;
    (ReportTx(Arc::clone(&shared)), ReportRx(shared))
}

impl ReportTx {
    /// Reports; never waits.
    pub fn send(&self, report: Report) {
        let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.waiting.len() >= REPORTS_MAX {
            if queue.lost == 0 {
                error!(
                    waiting = REPORTS_MAX,
                    "reports of the actuator are being lost"
                );
            }
            queue.lost += 1;
        } else {
            queue.waiting.push_back(report);
        }
        drop(queue);
        self.0.news.notify_one();
    }
}

impl Clone for ReportTx {
    fn clone(&self) -> Self {
        self.0
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl Drop for ReportTx {
    fn drop(&mut self) {
        self.0
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .senders -= 1;
        self.0.news.notify_one();
    }
}

impl ReportRx {
    /// The next report; `None` when nobody can send any more. May be dropped and called again.
    pub async fn recv(&mut self) -> Option<Report> {
        loop {
            match self.take() {
                Ok(report) => return Some(report),
                Err(true) => return None,
                // What is sent between the look and the wait leaves its notice behind.
                Err(false) => self.0.news.notified().await,
            }
        }
    }

    /// Everything that waits now.
    pub fn drain(&mut self) -> Vec<Report> {
        std::iter::from_fn(|| self.take().ok()).collect()
    }

    /// The next report, or whether there can be none any more.
    fn take(&mut self) -> Result<Report, bool> {
        let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(report) = queue.waiting.pop_front() {
            return Ok(report);
        }
        match std::mem::take(&mut queue.lost) {
            0 => Err(queue.senders == 0),
            count => Ok(Report::Lost { count }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(n: usize) -> Report {
        Report::RecordFailed {
            problem: n.to_string(),
        }
    }

    #[tokio::test]
    async fn reports_come_in_order_and_what_is_lost_is_said() {
        let (tx, mut rx) = channel();
        for n in 0..REPORTS_MAX + 5 {
            tx.send(failed(n));
        }
        assert_eq!(rx.recv().await, Some(failed(0)));
        assert_eq!(rx.drain().last(), Some(&Report::Lost { count: 5 }));
        let other = tx.clone();
        drop(tx);
        other.send(failed(7));
        drop(other);
        assert_eq!(rx.recv().await, Some(failed(7)));
        assert_eq!(rx.recv().await, None);
    }

    #[tokio::test]
    async fn a_listener_that_waits_is_woken_by_the_last_sender() {
        let (tx, mut rx) = channel();
        let listener = tokio::spawn(async move { rx.recv().await });
        tokio::task::yield_now().await;
        drop(tx);
        assert_eq!(listener.await.expect("ends"), None);
    }
}
