//! Who may act: leadership over a Lease, and with it the one switch and the cluster's record.
//!
//! One task writes the Lease, and nobody else does. Expiry is judged by the time on the boot clock since
//! the Lease last *changed*, never by the times written in it: clocks of machines differ, and a machine
//! that was suspended must find its Lease expired when it wakes.
//!
//! Being leader at one moment stops no call that is under way at the next. So a write may leave only
//! while the Lease outlasts the write's own time limit; [`super::Gate`] says whether it does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use foreshock_core::record::ClusterRecord;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::gate::{LeaderHandle, Leadership, LeaseError, Request};
use crate::clock::Clock;
use crate::kubernetes::rate::chance;
use crate::kubernetes::{Cluster, ClusterError, LeaseState, LeaseView, LeaseWrite};

/// Requests that may wait for the Lease's writer; each takes a few milliseconds.
const REQUESTS_MAX: usize = 16;
/// A conflict is resolved by reading again, so often.
const TRIES: u32 = 3;
/// A stranger's `leaseDurationSeconds` is honoured up to this.
pub(super) const DURATION_MAX: Duration = Duration::from_secs(300);

/// The times of the election: those of Kubernetes' own components.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    /// A Lease that has not changed for so long is free.
    pub duration: Duration,
    /// A leader that could not renew for so long stands down. Shorter than `duration` by more than
    /// the Lease's own write limit.
    pub renew_deadline: Duration,
    /// Between two renewals, and between two tries to lead.
    pub retry: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// How this process takes part.
#[derive(Clone, Debug)]
pub struct LeaderOptions {
    /// Its identity: unique for each *process*, so that a restarted one does not take the Lease of the
    /// one before for its own. See [`identity`].
    pub identity: String,
    /// Where its HTTP API is to be reached by the other replicas.
    pub address: Option<String>,
    /// Whether to take part at all. Where no pool reaches further than `observe` nothing is written,
    /// the Lease neither: every replica then counts as leader.
    pub elect: bool,
    /// The times.
    pub times: LeaseTimes,
}

/// An identity of this process: its host's name (in a Pod, the Pod's) and something that no other
/// process has.
pub fn identity(clock: &dyn Clock) -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "foreshock".to_owned());
    let (booted, process) = (clock.boottime().as_nanos(), std::process::id());
    format!("{host}_{booted:x}-{process:x}-{:x}", chance().to_bits())
}

/// The task that leads, or waits to lead.
pub struct Leader {
    cluster: Arc<dyn Cluster>,
    clock: Arc<dyn Clock>,
    options: LeaderOptions,
    requests: mpsc::Receiver<Request>,
    leadership: watch::Sender<Leadership>,
    valid_until: Arc<AtomicU64>,
    paused_here: Arc<AtomicBool>,
    problem: Option<String>,
    /// The Lease as last seen.
    state: LeaseState,
    /// The last one that was there: what it is written anew from if it vanishes.
    memory: Option<LeaseView>,
    /// When, on the boot clock, its holder last showed a sign of life.
    alive_at: Duration,
    /// When, on the boot clock, the last successful renewal of ours was begun.
    renewed_at: Option<Duration>,
    next: Instant,
}

/// What a write changes besides renewing.
#[derive(Default)]
struct Change {
    paused: Option<bool>,
    record: Option<ClusterRecord>,
    gives_up: bool,
}

impl Leader {
    /// The task, to be run, and what the others hold of it.
    pub fn new(
        cluster: Arc<dyn Cluster>,
        clock: Arc<dyn Clock>,
        options: LeaderOptions,
    ) -> (Self, LeaderHandle) {
        let (leadership, leadership_rx) = watch::channel(Leadership {
            leader: !options.elect,
            since: clock.now(),
            paused: false,
            record: (!options.elect).then(ClusterRecord::default),
            holder: None,
            other_leads: false,
            address: None,
            problem: None,
        });
        let (requests_tx, requests) = mpsc::channel(REQUESTS_MAX);
        let valid_until = Arc::new(AtomicU64::new(if options.elect { 0 } else { u64::MAX }));
        let paused_here = Arc::new(AtomicBool::new(false));
        let handle = LeaderHandle {
            paused_here: Arc::clone(&paused_here),
            leadership: leadership_rx,
            lease: options.elect.then(|| cluster.lease()),
            valid_until: Arc::clone(&valid_until),
            requests: requests_tx,
            clock: Arc::clone(&clock),
        };
        let leader = Self {
            alive_at: clock.boottime(),
            cluster,
            clock,
            options,
            requests,
            leadership,
            valid_until,
            paused_here,
            problem: None,
            state: LeaseState::Unknown,
            memory: None,
            renewed_at: None,
            next: Instant::now(),
        };
        (leader, handle)
    }

    /// Runs until `shutdown`, then gives the Lease up. Cancel it only after the actuator has ended: a
    /// write that is under way must not outlive the Lease.
    pub async fn run(mut self, shutdown: CancellationToken) {
        if !self.options.elect {
            return self.run_alone(shutdown).await;
        }
        let mut lease = self.cluster.lease();
        loop {
            let state = lease.borrow_and_update().clone();
            self.see(state);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(request) = self.requests.recv() => self.serve(request).await,
                Ok(()) = lease.changed() => {}
                () = tokio::time::sleep_until(self.next) => self.turn().await,
            }
        }
        if self.renewed_at.is_some() {
            // Nothing is valid any more from here on, whatever comes of the call.
            self.valid_until.store(0, Ordering::Release);
            let change = Change {
                gives_up: true,
                ..Change::default()
            };
            match self.write(change).await {
                Ok(()) => info!("lease given up"),
                Err(error) => {
                    warn!(error = %chain(&error), "lease could not be given up; it runs out")
                }
            }
            self.stand_down();
        }
    }

    /// Without an election: the switch holds until the process ends, and nothing is written.
    async fn run_alone(mut self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Some(request) = self.requests.recv() => match request {
                    Request::Pause(paused, reply) => {
                        self.leadership.send_modify(|leadership| leadership.paused = paused);
                        let _ = reply.send(Ok(()));
                    }
                    Request::Record(record, reply) => {
                        self.leadership.send_modify(|leadership| leadership.record = Some(record));
                        let _ = reply.send(Ok(()));
                    }
                },
            }
        }
    }

    async fn serve(&mut self, request: Request) {
        match request {
            Request::Pause(paused, reply) => {
                let change = Change {
                    paused: Some(paused),
                    ..Change::default()
                };
                let result = self.write(change).await;
                self.show();
                let _ = reply.send(result);
            }
            Request::Record(record, reply) => {
                let result = match &self.memory {
                    _ if self.renewed_at.is_none() => Err(LeaseError::NotLeader),
                    Some(LeaseView {
                        record: Err(problem),
                        ..
                    }) => Err(LeaseError::Unreadable(problem.clone())),
                    Some(_) | None => {
                        let change = Change {
                            record: Some(record),
                            ..Change::default()
                        };
                        self.write(change).await
                    }
                };
                let _ = reply.send(result);
            }
        }
    }

    /// Takes in what the Lease is now.
    fn see(&mut self, state: LeaseState) {
        if let LeaseState::Present(view) = &state {
            // A renewal changes these; a person who writes an annotation on the Lease of a dead leader
            // must not keep it alive.
            let life = |view: &LeaseView| (view.holder.clone(), view.renewed_at, view.transitions);
            if self.memory.as_ref().map(life) != Some(life(view)) {
                self.alive_at = self.clock.boottime();
            }
            self.memory = Some((**view).clone());
            if self.renewed_at.is_some() && !self.holds(view) {
                warn!(holder = ?view.holder, "another has taken the lease");
                self.stand_down();
            }
        }
        if self.state != state {
            // Only on a change: a try that failed must not lead straight to the next.
            let leads = self.renewed_at.is_some();
            self.state = state;
            match &self.state {
                LeaseState::Unknown => {}
                LeaseState::Absent => self.next = Instant::now(),
                LeaseState::Present(_) if leads => {}
                LeaseState::Present(view) => {
                    let spread = Duration::from_millis(200).mul_f64(chance());
                    self.next = Instant::now() + self.free_in(view) + spread;
                }
            }
        }
        self.show();
    }

    fn holds(&self, view: &LeaseView) -> bool {
        view.holder.as_deref() == Some(&self.options.identity)
    }

    /// How long until the Lease is free to be taken.
    fn free_in(&self, view: &LeaseView) -> Duration {
        if view.holder.is_none() || self.holds(view) {
            return Duration::ZERO;
        }
        let duration = view
            .duration
            .max(self.options.times.duration)
            .min(DURATION_MAX);
        (self.alive_at + duration).saturating_sub(self.clock.boottime())
    }

    /// Renews, or tries to lead.
    async fn turn(&mut self) {
        let times = self.options.times;
        // Spread, so that two followers do not meet at every try.
        self.next = Instant::now() + times.retry.mul_f64(1.0 + 0.2 * chance());
        if let Some(renewed_at) = self.renewed_at {
            if self.clock.boottime() >= renewed_at + times.renew_deadline {
                warn!(deadline = ?times.renew_deadline, "lease not renewed in time, standing down");
                self.stand_down();
                self.show();
                return;
            }
            self.next = Instant::now() + times.retry;
            let result = self.write(Change::default()).await;
            if let Err(error) = &result {
                warn!(error = %chain(error), "lease not renewed");
            }
            self.has_problem(result.err().as_ref());
            return;
        }
        let free = match &self.state {
            LeaseState::Unknown => {
                // The watch has not delivered; perhaps a plain read does.
                match self.cluster.read_lease().await {
                    Ok(state) => {
                        self.see(state);
                        self.has_problem(None);
                    }
                    Err(error) => self.has_problem(Some(&error.into())),
                }
                false
            }
            LeaseState::Absent => true,
            // One that comes too early tries again.
            LeaseState::Present(view) => self.free_in(view).is_zero(),
        };
        if free {
            match self.lead().await {
                Ok(()) => {
                    info!(identity = self.options.identity, "leading");
                    self.has_problem(None);
                }
                // Somebody was faster, which is how elections go.
                Err(LeaseError::Cluster(ClusterError::Superseded { .. })) => self.has_problem(None),
                Err(error) => self.has_problem(Some(&error)),
            }
        }
    }

    /// Takes the Lease, under the version that was seen to be free.
    async fn lead(&mut self) -> Result<(), LeaseError> {
        let begun = self.clock.boottime();
        let held_by_other = self.memory.as_ref().filter(|view| !self.holds(view));
        let transitions = self.memory.as_ref().map_or(0, |view| view.transitions)
            + u32::from(held_by_other.is_some());
        let write = LeaseWrite {
            expects: self.version(),
            holder: Some(self.options.identity.clone()),
            address: self.options.address.clone(),
            duration: self.options.times.duration,
            renewed_at: self.clock.now(),
            transitions,
            paused: self.memory.as_ref().is_some_and(|view| view.paused),
            record: self.remembered_record(),
        };
        match self.cluster.write_lease(&write).await {
            Ok(view) => {
                self.renewed(begun);
                self.see(LeaseState::Present(Box::new(view)));
                Ok(())
            }
            Err(error) => {
                // Somebody was faster, or the view was old: look again before the next try.
                if let Ok(state) = self.cluster.read_lease().await {
                    self.see(state);
                }
                Err(error.into())
            }
        }
    }

    /// Writes the Lease as leader (and renews it), or as one who only throws the switch.
    async fn write(&mut self, change: Change) -> Result<(), LeaseError> {
        let mut last = LeaseError::Unknown;
        for _ in 0..TRIES {
            let begun = self.clock.boottime();
            let write = self.next_write(&change)?;
            let result = self.cluster.write_lease(&write).await;
            match result {
                Ok(view) => {
                    if self.renewed_at.is_some() && !change.gives_up {
                        self.renewed(begun);
                    }
                    if change.gives_up {
                        self.renewed_at = None;
                    }
                    self.see(LeaseState::Present(Box::new(view)));
                    return Ok(());
                }
                Err(error @ ClusterError::Superseded { .. }) => {
                    // Changed by a person's hand, by another replica, or by a write of ours whose
                    // answer was lost.
                    last = error.into();
                    let led = self.renewed_at.is_some();
                    let state = self.cluster.read_lease().await?;
                    self.see(state);
                    if led && self.renewed_at.is_none() {
                        return Err(LeaseError::NotLeader);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(last)
    }

    fn next_write(&self, change: &Change) -> Result<LeaseWrite, LeaseError> {
        let paused = change
            .paused
            .unwrap_or(self.memory.as_ref().is_some_and(|view| view.paused));
        let record = change.record.clone().or_else(|| self.remembered_record());
        if self.renewed_at.is_some() {
            let times = self.options.times;
            return Ok(LeaseWrite {
                expects: self.version(),
                holder: (!change.gives_up).then(|| self.options.identity.clone()),
                address: self.options.address.clone().filter(|_| !change.gives_up),
                duration: times.duration,
                renewed_at: self.clock.now(),
                transitions: self.memory.as_ref().map_or(0, |view| view.transitions),
                paused,
                record,
            });
        }
        // Not ours: all but the switch stays as it is, the renewal above all.
        match (&self.state, &self.memory) {
            (LeaseState::Unknown, _) => Err(LeaseError::Unknown),
            (LeaseState::Present(view), _) => Ok(LeaseWrite {
                expects: Some(view.resource_version.clone()),
                holder: view.holder.clone(),
                address: view.address.clone(),
                duration: view.duration,
                renewed_at: view.renewed_at.unwrap_or_else(|| self.clock.now()),
                transitions: view.transitions,
                paused,
                record: None,
            }),
            (LeaseState::Absent, memory) => Ok(LeaseWrite {
                expects: None,
                holder: None,
                address: None,
                duration: self.options.times.duration,
                renewed_at: self.clock.now(),
                transitions: memory.as_ref().map_or(0, |view| view.transitions),
                paused,
                record,
            }),
        }
    }

    fn version(&self) -> Option<String> {
        match &self.state {
            LeaseState::Present(view) => Some(view.resource_version.clone()),
            LeaseState::Unknown | LeaseState::Absent => None,
        }
    }

    /// What a Lease that has vanished had said; nothing for one that is there, which keeps its own.
    fn remembered_record(&self) -> Option<ClusterRecord> {
        match (&self.state, &self.memory) {
            (LeaseState::Absent, Some(view)) => view.record.clone().ok(),
            (LeaseState::Unknown | LeaseState::Absent | LeaseState::Present(_), _) => None,
        }
    }

    fn has_problem(&mut self, error: Option<&LeaseError>) {
        let problem = error.map(|error| chain(error));
        if problem != self.problem {
            if let Some(problem) = &problem {
                warn!(error = problem, "the lease cannot be read or written");
            }
            self.problem = problem;
        }
        self.show();
    }

    fn renewed(&mut self, begun: Duration) {
        self.renewed_at = Some(begun);
        let until = (begun + self.options.times.duration).as_nanos();
        self.valid_until
            .store(u64::try_from(until).unwrap_or(u64::MAX), Ordering::Release);
    }

    fn stand_down(&mut self) {
        self.valid_until.store(0, Ordering::Release);
        self.renewed_at = None;
        self.show();
    }

    fn show(&mut self) {
        let leader = self.renewed_at.is_some();
        let now = self.clock.now();
        self.leadership.send_if_modified(|shown| {
            let next = Leadership {
                leader,
                since: if shown.leader == leader {
                    shown.since
                } else {
                    now
                },
                paused: self.memory.as_ref().is_some_and(|view| view.paused)
                    || self.paused_here.load(Ordering::Acquire),
                record: self
                    .memory
                    .as_ref()
                    .and_then(|view| view.record.clone().ok()),
                holder: self.memory.as_ref().and_then(|view| view.holder.clone()),
                other_leads: self
                    .memory
                    .as_ref()
                    .is_some_and(|view| view.holder.is_some() && !self.holds(view)),
                address: self.memory.as_ref().and_then(|view| view.address.clone()),
                problem: self.problem.clone(),
            };
            let differs = *shown != next;
            *shown = next;
            differs
        });
    }
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
#[path = "leader_tests.rs"]
mod tests;
