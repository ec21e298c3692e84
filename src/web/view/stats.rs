//! Counts, limits, storm, and the thresholds that are in force.

use std::collections::BTreeMap;

use foreshock_core::drain::PodOutcome;
use foreshock_core::time::{after, since};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::alertmanager::AlertOutcome;
use crate::snapshot::Snapshot;
use crate::web::words::{Time, seconds};

/// Counters and a summary of the fleet.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Stats)]
pub(in crate::web) struct StatsJson {
    /// The time of the decision that is shown.
    at: Time,
    /// Nodes by band.
    nodes: BTreeMap<&'static str, usize>,
    /// Nodes by phase.
    phases: BTreeMap<&'static str, usize>,
    /// Nodes by the primary reason that holds them.
    holds: BTreeMap<&'static str, usize>,
    /// How much of each limit is used.
    limits: Vec<LimitJson>,
    /// The storm that is on.
    storm: Option<StormJson>,
    /// The cautious beginning after the last storm; `null` once the usual limits are the narrower ones.
    ramp: Option<RampJson>,
    /// Writes to Nodes since the start, by action and outcome.
    taints: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    /// Pods of drains since the start, by what came of them.
    evictions: BTreeMap<&'static str, u64>,
    /// Alerts.
    alerts: AlertsJson,
    /// Cycles since the start.
    cycles: CyclesJson,
    /// Seconds since the start.
    uptime_seconds: f64,
    /// Thresholds and waiting times of the policy.
    policy: PolicyJson,
    /// Waiting times that are shorter than the defaults (demo and tests).
    shortened: Vec<ShortenedJson>,
}

/// How much of a limit is used.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Limit)]
struct LimitJson {
    /// The key in the configuration.
    name: &'static str,
    /// `cluster`, `zone/NAME` (`zone/` for Nodes without a zone label) or `pool/NAME`.
    scope: String,
    /// How many count against it.
    used: usize,
    /// How many may.
    max: usize,
}

/// A storm: so many Nodes turned at risk at once that nothing new is begun.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Storm)]
struct StormJson {
    /// When it began.
    since: Time,
    /// What it was seen in: the cluster, a zone, a pool, or an input that many have in common.
    about: String,
    /// Since when few enough Nodes are at risk without our taint; `null` while they are not.
    calm_since: Option<Time>,
    /// When it is over if it stays calm; `null` while it is not calm.
    until: Option<Time>,
}

/// The cautious beginning after a storm.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Ramp)]
struct RampJson {
    /// Since when it is at this width.
    since: Time,
    /// So many Nodes are begun on before it is seen what came of them.
    width: u32,
    /// The Nodes that were begun on at this width: the next ones wait for them.
    nodes: Vec<String>,
}

/// Alerts.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Alerts)]
struct AlertsJson {
    /// Those that fire now.
    active: usize,
    /// Those received since the start, by what became of them.
    received: BTreeMap<&'static str, u64>,
}

/// Cycles.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Cycles)]
struct CyclesJson {
    /// How many.
    count: u64,
    /// How long the last one took.
    last_seconds: Option<f64>,
    /// How long its stages took.
    stages: BTreeMap<&'static str, f64>,
    /// The time between two cycles.
    interval_seconds: f64,
}

/// Thresholds and waiting times of the policy.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Policy)]
struct PolicyJson {
    /// Above this: at risk.
    at_risk: f64,
    /// From here: caution.
    caution: f64,
    /// Below this: well again.
    recover_below: f64,
    /// The taint.
    taint: String,
    /// At risk this long before anything is written.
    confirm_for_seconds: f64,
    /// Tainted this long before the first eviction.
    drain_after_seconds: f64,
    /// Well this long before release.
    recover_for_seconds: f64,
}

/// A waiting time that is shorter than its default.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Shortened)]
struct ShortenedJson {
    /// The key in the configuration.
    key: String,
    /// What is in force.
    seconds: f64,
    /// The default.
    default_seconds: f64,
}

impl StatsJson {
    pub(in crate::web) fn new(snapshot: &Snapshot, now: Timestamp) -> Self {
        let counters = &snapshot.counters;
        let mut taints: BTreeMap<_, BTreeMap<_, u64>> = BTreeMap::new();
        for ((action, outcome), count) in &counters.taints {
            taints.entry(*action).or_default().insert(*outcome, *count);
        }
        let policy = &snapshot.policy;
        Self {
            at: Time(snapshot.at),
            nodes: words(snapshot.bands(), |band| band.as_str()),
            phases: words(snapshot.phases(), |phase| phase.as_str()),
            holds: words(snapshot.holds(), |reason| reason.as_str()),
            limits: snapshot
                .limits
                .iter()
                .map(|limit| LimitJson {
                    name: limit.name,
                    scope: limit.scope.clone(),
                    used: limit.used,
                    max: limit.max,
                })
                .collect(),
            storm: snapshot.storm.as_ref().map(|storm| StormJson {
                since: Time(storm.since),
                about: storm.about.clone(),
                calm_since: storm.calm_since.map(Time),
                until: storm
                    .calm_since
                    .map(|calm| Time(after(calm, policy.limits.storm_window))),
            }),
            ramp: snapshot.ramp.as_ref().map(|ramp| RampJson {
                since: Time(ramp.since),
                width: ramp.width,
                nodes: ramp.nodes.keys().map(ToString::to_string).collect(),
            }),
            taints,
            evictions: PodOutcome::ALL
                .into_iter()
                .map(|outcome| {
                    let count = counters.evictions.get(&outcome).copied().unwrap_or(0);
                    (outcome.as_str(), count)
                })
                .collect(),
            alerts: AlertsJson {
                active: snapshot.alerts.len(),
                received: AlertOutcome::ALL
                    .into_iter()
                    .map(|outcome| {
                        let count = counters.alerts.get(&outcome).copied().unwrap_or(0);
                        (outcome.as_str(), count)
                    })
                    .collect(),
            },
            cycles: CyclesJson {
                count: snapshot.cycles.count,
                last_seconds: snapshot.cycles.last.map(seconds),
                stages: snapshot
                    .cycles
                    .stages
                    .iter()
                    .map(|(stage, duration)| (*stage, seconds(*duration)))
                    .collect(),
                interval_seconds: seconds(snapshot.interval),
            },
            uptime_seconds: seconds(since(snapshot.started_at, now)),
            policy: PolicyJson {
                at_risk: policy.rules.at_risk.as_f64(),
                caution: policy.rules.caution.as_f64(),
                recover_below: policy.rules.recover_below.as_f64(),
                taint: policy.rules.taint.to_string(),
                confirm_for_seconds: seconds(policy.rules.confirm_for),
                drain_after_seconds: seconds(policy.rules.drain_after),
                recover_for_seconds: seconds(policy.rules.recover_for),
            },
            shortened: snapshot
                .shortened
                .iter()
                .map(|time| ShortenedJson {
                    key: time.key.clone(),
                    seconds: seconds(time.value),
                    default_seconds: seconds(time.default),
                })
                .collect(),
        }
    }
}

fn words<K: Ord>(
    counts: BTreeMap<K, usize>,
    word: impl Fn(&K) -> &'static str,
) -> BTreeMap<&'static str, usize> {
    counts.iter().map(|(key, n)| (word(key), *n)).collect()
}
