//! What is counted between two cycles, by whoever sees it happen.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foreshock_core::decision::plan::Cause;
use foreshock_core::drain::{NodeOutcome, PodOutcome};

use crate::alertmanager::{AlertOutcome, Applied};
use crate::kubernetes::ClusterError;
use crate::model::artifact::ModelError;
use crate::snapshot;

/// What came of a write to a Node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WriteOutcome {
    /// Written.
    Ok,
    /// The Node was not as the decision saw it; decided again.
    Superseded,
    /// Our credentials do not allow it.
    Forbidden,
    /// No answer in time: it may have been written.
    Timeout,
    /// Anything else.
    Failed,
}

impl WriteOutcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [
        Self::Ok,
        Self::Superseded,
        Self::Forbidden,
        Self::Timeout,
        Self::Failed,
    ];

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Superseded => "superseded",
            Self::Forbidden => "forbidden",
            Self::Timeout => "timeout",
            Self::Failed => "failed",
        }
    }

    /// What came of a call.
    pub fn of<T>(result: &Result<T, ClusterError>) -> Self {
        match result {
            Ok(_) => Self::Ok,
            Err(ClusterError::Superseded { .. }) => Self::Superseded,
            Err(ClusterError::Forbidden { .. }) => Self::Forbidden,
            Err(ClusterError::Timeout { .. }) => Self::Timeout,
            Err(ClusterError::Failed { .. }) => Self::Failed,
        }
    }
}

/// What came of asking for all features once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TelemetryOutcome {
    /// Every feature came.
    Ok,
    /// Some did not.
    Partial,
    /// None came: nobody answered, or it was not even known whose series are whose.
    Failed,
}

impl TelemetryOutcome {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Ok, Self::Partial, Self::Failed];

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Partial => "partial",
            Self::Failed => "failed",
        }
    }
}

/// What came of a model file that says something new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReloadOutcome {
    /// The model is in use.
    Ok,
    /// The file is gone, or may not be read.
    Unreadable,
    /// It is no valid model.
    Invalid,
    /// It was made for other features than these.
    OtherFeatures,
}

impl ReloadOutcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [
        Self::Ok,
        Self::Unreadable,
        Self::Invalid,
        Self::OtherFeatures,
    ];

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unreadable => "unreadable",
            Self::Invalid => "invalid",
            Self::OtherFeatures => "other_features",
        }
    }

    /// What came of a file with this fault.
    pub fn of(fault: &ModelError) -> Self {
        match fault {
            ModelError::Read { .. } | ModelError::Write { .. } => Self::Unreadable,
            ModelError::TooLarge { .. }
            | ModelError::Json(_)
            | ModelError::Foreign
            | ModelError::Version { .. }
            | ModelError::Checksum
            | ModelError::Invalid { .. } => Self::Invalid,
            ModelError::Schema { .. } => Self::OtherFeatures,
        }
    }
}

/// How a delivery of Alertmanager's was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WebhookOutcome {
    /// Taken: 202.
    Accepted,
    /// Handed to the leader: 202.
    Forwarded,
    /// No webhook of Alertmanager's: 400.
    Malformed,
    /// No room: 503.
    Full,
    /// The leader could not be reached: 503.
    ForwardFailed,
}

impl WebhookOutcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [
        Self::Accepted,
        Self::Forwarded,
        Self::Malformed,
        Self::Full,
        Self::ForwardFailed,
    ];

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Forwarded => "forwarded",
            Self::Malformed => "malformed",
            Self::Full => "full",
            Self::ForwardFailed => "forward_failed",
        }
    }
}

/// What was counted since the start. Shared by everything that counts.
#[derive(Debug, Default)]
pub struct Counters {
    writes: [[AtomicU64; WriteOutcome::ALL.len()]; Cause::ALL.len()],
    pods: [AtomicU64; PodOutcome::ALL.len()],
    drained: AtomicU64,
    drains_ended: [AtomicU64; PodOutcome::ALL.len()],
    alerts: [AtomicU64; AlertOutcome::ALL.len()],
    webhooks: [AtomicU64; WebhookOutcome::ALL.len()],
    telemetry: [AtomicU64; TelemetryOutcome::ALL.len()],
    reloads: [AtomicU64; ReloadOutcome::ALL.len()],
    features_failed: AtomicU64,
    targets_refused: AtomicU64,
    history: Mutex<Option<Duration>>,
    stages: Mutex<BTreeMap<&'static str, Timings>>,
    replacements: Mutex<Option<Timings>>,
    missing: AtomicU64,
    blocked: Mutex<BTreeMap<(String, String), u32>>,
}

impl Counters {
    /// The stage of a cycle that is all of it.
    pub const STAGE_TOTAL: &'static str = "total";
    /// Budgets that are exported: one drain meets a few. Those with the most Pods are kept.
    pub const BLOCKED_MAX: usize = 100;

    /// Nothing counted yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A write to a Node was tried.
    pub fn write(&self, cause: Cause, outcome: WriteOutcome) {
        add(&self.writes[cause as usize][outcome as usize], 1);
    }

    /// A Pod of a drain came to this.
    pub fn pod(&self, outcome: PodOutcome) {
        add(&self.pods[outcome as usize], 1);
    }

    /// A drain ended.
    pub fn drain(&self, outcome: NodeOutcome) {
        match outcome {
            NodeOutcome::Drained => add(&self.drained, 1),
            NodeOutcome::Ended(outcome) => add(&self.drains_ended[outcome as usize], 1),
        }
    }

    /// The book took in a webhook's delivery.
    pub fn alerts(&self, applied: &Applied) {
        for (outcome, n) in &applied.counts {
            add(&self.alerts[*outcome as usize], *n);
        }
    }

    /// A delivery was answered.
    pub fn webhook(&self, outcome: WebhookOutcome) {
        add(&self.webhooks[outcome as usize], 1);
    }

    /// Features came; so many of them could not be had, and so many targets mean no Node.
    pub fn set_telemetry(&self, features_failed: usize, targets_refused: usize) {
        let outcome = match features_failed {
            0 => TelemetryOutcome::Ok,
            _ => TelemetryOutcome::Partial,
        };
        add(&self.telemetry[outcome as usize], 1);
        self.features_failed
            .store(features_failed as u64, Ordering::Relaxed);
        self.targets_refused
            .store(targets_refused as u64, Ordering::Relaxed);
    }

    /// So much of the Nodes' last week is remembered; `None` where the model needs none of it.
    pub fn set_history(&self, history: Option<Duration>) {
        *locked(&self.history) = history;
    }

    /// No features came at all.
    pub fn telemetry_failed(&self) {
        add(&self.telemetry[TelemetryOutcome::Failed as usize], 1);
    }

    /// The model file said something new.
    pub fn reload(&self, outcome: ReloadOutcome) {
        add(&self.reloads[outcome as usize], 1);
    }

    /// A cycle took so long, stage by stage and in all.
    pub fn cycle(&self, stages: &[(&'static str, Duration)], total: Duration) {
        let mut timings = locked(&self.stages);
        for (stage, took) in stages.iter().chain(&[(Self::STAGE_TOTAL, total)]) {
            let of_stage = timings.entry(stage);
            of_stage
                .or_insert_with(|| Timings::new(&STAGE_BOUNDS))
                .observe(*took);
        }
    }

    /// The replacement of an evicted Pod was Ready so long after the request.
    pub fn replacement(&self, took: Duration) {
        let mut timings = locked(&self.replacements);
        timings
            .get_or_insert_with(|| Timings::new(&REPLACEMENT_BOUNDS))
            .observe(took);
    }

    /// So many evicted Pods had no Ready replacement when it was not waited for any longer.
    pub fn replacements_missing(&self, count: u32) {
        add(&self.missing, u64::from(count));
    }

    /// Pods of running drains that wait for a budget now, by the budget's namespace and name.
    pub fn set_blocked(&self, pods: BTreeMap<(String, String), u32>) {
        let mut pods: Vec<_> = pods.into_iter().collect();
        pods.sort_by(|(a, n), (b, m)| (m, a).cmp(&(n, b)));
        pods.truncate(Self::BLOCKED_MAX);
        *locked(&self.blocked) = pods.into_iter().collect();
    }

    /// The numbers as page and API show them. Only what has happened is listed.
    pub fn shown(&self) -> snapshot::Counters {
        let writes = self.writes().filter(|(_, n)| *n > 0);
        let pods = self.pods().filter(|(_, n)| *n > 0);
        let alerts = self.alert_outcomes().filter(|(_, n)| *n > 0);
        snapshot::Counters {
            taints: writes
                .map(|((cause, outcome), n)| ((cause.as_str(), outcome.as_str()), n))
                .collect(),
            evictions: pods.collect(),
            alerts: alerts.collect(),
            history: self.history(),
        }
    }

    pub(super) fn writes(&self) -> impl Iterator<Item = ((Cause, WriteOutcome), u64)> {
        Cause::ALL
            .into_iter()
            .flat_map(|cause| WriteOutcome::ALL.map(|outcome| (cause, outcome)))
            .map(|(cause, outcome)| {
                let n = read(&self.writes[cause as usize][outcome as usize]);
                ((cause, outcome), n)
            })
    }

    pub(super) fn pods(&self) -> impl Iterator<Item = (PodOutcome, u64)> {
        tally(PodOutcome::ALL, &self.pods)
    }

    pub(super) fn drains(&self) -> impl Iterator<Item = (NodeOutcome, u64)> {
        let ended = tally(PodOutcome::ALL, &self.drains_ended)
            .map(|(outcome, n)| (NodeOutcome::Ended(outcome), n));
        std::iter::once((NodeOutcome::Drained, read(&self.drained))).chain(ended)
    }

    pub(super) fn alert_outcomes(&self) -> impl Iterator<Item = (AlertOutcome, u64)> {
        tally(AlertOutcome::ALL, &self.alerts)
    }

    pub(super) fn webhooks(&self) -> impl Iterator<Item = (WebhookOutcome, u64)> {
        tally(WebhookOutcome::ALL, &self.webhooks)
    }

    pub(super) fn telemetry(&self) -> impl Iterator<Item = (TelemetryOutcome, u64)> {
        tally(TelemetryOutcome::ALL, &self.telemetry)
    }

    pub(crate) fn reloads(&self) -> impl Iterator<Item = (ReloadOutcome, u64)> {
        tally(ReloadOutcome::ALL, &self.reloads)
    }

    pub(super) fn history(&self) -> Option<Duration> {
        *locked(&self.history)
    }

    pub(super) fn features_failed(&self) -> u64 {
        read(&self.features_failed)
    }

    pub(super) fn targets_refused(&self) -> u64 {
        read(&self.targets_refused)
    }

    pub(super) fn stages(&self) -> BTreeMap<&'static str, Timings> {
        locked(&self.stages).clone()
    }

    pub(super) fn replacements(&self) -> Timings {
        let timings = locked(&self.replacements).clone();
        timings.unwrap_or_else(|| Timings::new(&REPLACEMENT_BOUNDS))
    }

    pub(super) fn missing(&self) -> u64 {
        read(&self.missing)
    }

    pub(super) fn blocked(&self) -> BTreeMap<(String, String), u32> {
        locked(&self.blocked).clone()
    }
}

/// In seconds: from a decision about a few Nodes to a cycle that has missed its interval.
const STAGE_BOUNDS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0,
];
/// In seconds: from a small program whose image is there to what `eviction.pod_deadline` may be raised to.
const REPLACEMENT_BOUNDS: [f64; 12] = [
    1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0,
];

/// Durations, counted by upper bound.
#[derive(Clone, Debug)]
pub(super) struct Timings {
    pub(super) sum: Duration,
    pub(super) count: u64,
    bounds: &'static [f64],
    /// One more than there are bounds: the last counts what is above all of them.
    counts: Vec<u64>,
}

impl Timings {
    fn new(bounds: &'static [f64]) -> Self {
        Self {
            sum: Duration::ZERO,
            count: 0,
            bounds,
            counts: vec![0; bounds.len() + 1],
        }
    }

    fn observe(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[bucket] += 1;
        self.count += 1;
        self.sum += took;
    }

    /// As the encoder wants them: not yet added up, and the last bound for `+Inf`.
    pub(super) fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        bounds.zip(self.counts.iter().copied()).collect()
    }
}

fn tally<T: Copy, const N: usize>(
    all: [T; N],
    counts: &[AtomicU64; N],
) -> impl Iterator<Item = (T, u64)> {
    all.into_iter().zip(counts.iter().map(read))
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// A thread that panicked while it counted has left whole numbers behind.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_is_counted_under_its_own_name() {
        let counters = Counters::new();
        for (n, cause) in Cause::ALL.into_iter().enumerate() {
            for _ in 0..=n {
                counters.write(cause, WriteOutcome::Timeout);
            }
        }
        for (n, outcome) in PodOutcome::ALL.into_iter().enumerate() {
            for _ in 0..=n {
                counters.pod(outcome);
                counters.drain(NodeOutcome::Ended(outcome));
            }
        }
        let mut applied = Applied::default();
        for (n, outcome) in AlertOutcome::ALL.into_iter().enumerate() {
            applied.counts.insert(outcome, n as u64 + 1);
        }
        counters.alerts(&applied);
        let shown = counters.shown();
        for (n, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(shown.taints[&(cause.as_str(), "timeout")], n as u64 + 1);
        }
        assert_eq!(shown.taints.len(), Cause::ALL.len(), "and nothing else");
        for (n, outcome) in PodOutcome::ALL.into_iter().enumerate() {
            assert_eq!(shown.evictions[&outcome], n as u64 + 1);
        }
        let drains: Vec<u64> = counters.drains().map(|(_, n)| n).collect();
        assert_eq!(drains, (0..=14).collect::<Vec<u64>>());
        for (n, outcome) in AlertOutcome::ALL.into_iter().enumerate() {
            assert_eq!(shown.alerts[&outcome], n as u64 + 1);
        }
    }

    #[test]
    fn a_duration_on_a_bound_counts_below_it() {
        let mut timings = Timings::new(&STAGE_BOUNDS);
        for millis in [0, 1, 2, 60_000, 60_001] {
            timings.observe(Duration::from_millis(millis));
        }
        let buckets = timings.buckets();
        assert_eq!(buckets[0], (0.001, 2));
        assert_eq!(buckets[1], (0.0025, 1));
        assert_eq!(buckets[13..], [(60.0, 1), (f64::INFINITY, 1)]);
        assert_eq!(timings.count, 5);
    }

    #[test]
    fn the_budgets_that_block_most_are_kept() {
        let counters = Counters::new();
        let blocked = (0..500).map(|n| (("ns".to_owned(), format!("pdb-{n}")), n));
        counters.set_blocked(blocked.collect());
        let kept = counters.blocked();
        assert_eq!(kept.len(), Counters::BLOCKED_MAX);
        assert!(kept.values().all(|n| *n >= 400), "{kept:?}");
        counters.set_blocked(BTreeMap::new());
        assert!(counters.blocked().is_empty());
    }
}
