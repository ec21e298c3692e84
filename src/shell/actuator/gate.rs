//! What everybody else holds of the leader's task: how it stands, the switch, the record, and the gate
//! that every write passes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use foreshock_core::decision::policy::Reach;
use foreshock_core::record::ClusterRecord;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::Clock;
use crate::kubernetes::{ClusterError, LeaseState, WRITE_LIMIT};

/// How it stands with leading.
#[derive(Clone, Debug, PartialEq)]
pub struct Leadership {
    /// This process leads.
    pub leader: bool,
    /// Since when that is so, or is not.
    pub since: Timestamp,
    /// Somebody has paused foreshock.
    pub paused: bool,
    /// The cluster's record; `None` while it is not known or cannot be read.
    pub record: Option<ClusterRecord>,
    /// Who leads, if anybody does.
    pub holder: Option<String>,
    /// That is another process than this one.
    pub other_leads: bool,
    /// Where the leader's HTTP API is to be reached, if it says so.
    pub address: Option<String>,
    /// Why the Lease cannot be read or written at present, with the remedy.
    pub problem: Option<String>,
}

/// Why something could not be written to the Lease.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Only the leader writes the record.
    #[error("this process does not lead")]
    NotLeader,
    /// What stands there cannot be understood, and is not overwritten.
    #[error("the cluster's record on the Lease cannot be read: {0}")]
    Unreadable(String),
    /// The Lease has not been read yet.
    #[error("the Lease has not been read yet")]
    Unknown,
    /// The API server said no, or nothing.
    #[error("the Lease could not be written")]
    Cluster(#[from] ClusterError),
    /// The process is shutting down.
    #[error("shutting down")]
    Stopped,
}

/// What the others hold of the leader's task.
#[derive(Clone)]
pub struct LeaderHandle {
    pub(super) leadership: watch::Receiver<Leadership>,
    pub(super) lease: Option<watch::Receiver<LeaseState>>,
    /// Until when, on the boot clock in nanoseconds, the Lease is ours whatever happens.
    pub(super) valid_until: Arc<AtomicU64>,
    /// Paused in this process alone, until the Lease says so or somebody resumes.
    pub(super) paused_here: Arc<AtomicBool>,
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) clock: Arc<dyn Clock>,
}

impl LeaderHandle {
    /// How it stands with leading, latest state.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Throws the one switch, on whichever replica; written when this returns. Pausing holds in this
    /// process from the call on, and where the Lease could not be written it holds there alone, until
    /// somebody resumes or the process ends.
    ///
    /// # Errors
    ///
    /// [`LeaseError`]: the Lease does not say so.
    pub async fn set_paused(&self, paused: bool) -> Result<(), LeaseError> {
        self.paused_here.store(paused, Ordering::Release);
        self.request(|reply| Request::Pause(paused, reply)).await?;
        // From here on the Lease says it, and whoever clears it there clears it everywhere.
        self.paused_here.store(false, Ordering::Release);
        Ok(())
    }

    /// Writes the cluster's record; written when this returns.
    ///
    /// # Errors
    ///
    /// [`LeaseError`].
    pub async fn write_record(&self, record: ClusterRecord) -> Result<(), LeaseError> {
        self.request(|reply| Request::Record(record, reply)).await
    }

    /// The gate that every write passes. `reach` is the furthest that any pool allows.
    pub fn gate(&self, reach: Reach) -> Gate {
        Gate {
            reach,
            handle: self.clone(),
        }
    }

    async fn request(&self, make: impl FnOnce(Reply) -> Request) -> Result<(), LeaseError> {
        let (tx, rx) = oneshot::channel();
        self.requests
            .send(make(tx))
            .await
            .map_err(|_| LeaseError::Stopped)?;
        rx.await.unwrap_or(Err(LeaseError::Stopped))
    }
}

/// Why a write may not leave now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// Nothing is ever written.
    #[error("reach is observe")]
    Reach,
    /// Somebody has paused foreshock.
    #[error("paused")]
    Paused,
    /// Another leads.
    #[error("not the leader")]
    NotLeader,
    /// The Lease could end before the write does.
    #[error("the Lease ends too soon")]
    LeaseEnds,
}

/// Says whether a write may leave now. Asked before every single one.
#[derive(Clone)]
pub struct Gate {
    reach: Reach,
    handle: LeaderHandle,
}

impl Gate {
    /// Whether a write may leave now.
    ///
    /// # Errors
    ///
    /// [`Closed`], if it may not.
    pub fn check(&self) -> Result<(), Closed> {
        if self.reach == Reach::Observe {
            return Err(Closed::Reach);
        }
        let (leader, paused) = {
            let leadership = self.handle.leadership.borrow();
            (leadership.leader, leadership.paused)
        };
        // Also from the Lease itself: the leader's task may be waiting for an answer at the moment.
        let paused_there = self.handle.lease.as_ref().is_some_and(
            |lease| matches!(&*lease.borrow(), LeaseState::Present(view) if view.paused),
        );
        let paused_here = self.handle.paused_here.load(Ordering::Acquire);
        if paused || paused_there || paused_here {
            return Err(Closed::Paused);
        }
        if !leader {
            return Err(Closed::NotLeader);
        }
        let valid_until = Duration::from_nanos(self.handle.valid_until.load(Ordering::Acquire));
        if self.handle.clock.boottime() + WRITE_LIMIT >= valid_until {
            return Err(Closed::LeaseEnds);
        }
        Ok(())
    }

    /// Since when this process leads; `None` while it does not.
    pub(super) fn leads_since(&self) -> Option<Timestamp> {
        let leadership = self.handle.leadership.borrow();
        leadership.leader.then_some(leadership.since)
    }

    /// Waits until something that [`Self::check`] looks at opens or closes it. A Lease that runs out is
    /// no event; whoever finds the gate closed for that asks again after a while.
    pub async fn changed(&mut self) {
        let before = self.check().is_ok();
        while self.check().is_ok() == before {
            let lease = async {
                if let Some(lease) = &mut self.handle.lease
                    && lease.changed().await.is_ok()
                {
                    return;
                }
                std::future::pending().await
            };
            let leadership = async {
                if self.handle.leadership.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = lease => {}
                () = leadership => {}
            }
        }
    }
}

pub(super) type Reply = oneshot::Sender<Result<(), LeaseError>>;

/// What the Lease's writer is asked for.
pub(super) enum Request {
    Pause(bool, Reply),
    Record(ClusterRecord, Reply),
}
