//! What a cycle shows: the snapshot, and what changed since the last one as events and log lines.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use foreshock_core::decision::plan::Cause;
use foreshock_core::decision::policy::Reach;
use foreshock_core::decision::verdict::{HoldReason, Phase, Verdict};
use foreshock_core::decision::world::World;
use foreshock_core::decision::{Decision, Group, Usage};
use foreshock_core::node::{NodeId, NodeName};
use foreshock_core::record::Storm;
use foreshock_core::risk::Band;
use foreshock_core::time::since;
use jiff::Timestamp;
use tracing::{error, info, warn};

use super::Cycle;
use super::time::{self, Break};
use crate::actuator::Report;
use crate::alertmanager::{AlertOutcome, Applied};
use crate::events::{EventKind, EventLog, NewEvent};
use crate::kubernetes::{ClusterError, NodeTable};
use crate::metrics::{Counters, WriteOutcome};
use crate::snapshot::{
    Cycles, Health, KubernetesHealth, LimitUse, NodeView, NothingUsual, PrometheusHealth, Snapshot,
    UsualValues,
};

/// Changes of Nodes that one decision may put into the event list; beyond it they are counted. The
/// list holds a thousand.
const NODE_EVENTS_MAX: usize = 100;
/// Problems of the telemetry that health lists; beyond it they are counted.
const PROBLEMS_MAX: usize = 10;
/// Nodes outside the selector that are named.
const STRAYS_NAMED: usize = 5;

/// What was shown last, to tell what is new.
#[derive(Debug, Default)]
pub(super) struct Shown {
    nodes: BTreeMap<NodeId, (Band, Phase, Option<HoldReason>)>,
    storm: Option<Storm>,
    ramp: Option<u32>,
    paused: bool,
    leader: bool,
    ok: Option<bool>,
    audit: Option<String>,
    drains_over: BTreeSet<(NodeId, Timestamp)>,
    cycles: u64,
}

impl Shown {
    /// Something that the actuator did.
    pub(super) fn report(
        &mut self,
        events: &EventLog,
        counters: &Counters,
        now: Timestamp,
        report: &Report,
    ) {
        match report {
            Report::MarkSent { .. }
            | Report::RecordWritten { .. }
            | Report::Answered { .. }
            | Report::Blocked { .. } => {}
            Report::Marked {
                entry,
                cause,
                note,
                at,
            } => {
                let node = &entry.facts.id.name;
                counters.write(*cause, WriteOutcome::of::<()>(&Ok(())));
                info!(node = %node, cause = cause.as_str(), note, "node marked");
                events.push(
                    NewEvent::new(*at, kind_of(*cause), note.as_str())
                        .node(node)
                        .reason(cause.as_str()),
                );
            }
            Report::MarkFailed {
                at,
                node,
                cause,
                error,
            } => {
                let failed: Result<(), ClusterError> = Err(error.clone());
                counters.write(*cause, WriteOutcome::of(&failed));
                if matches!(error, ClusterError::Superseded { .. }) {
                    info!(node = %node, cause = cause.as_str(), %error, "node is not as it was; deciding again");
                    return;
                }
                warn!(node = %node, cause = cause.as_str(), %error, "node not marked");
                let message = format!("{} could not be written: {error}", cause.as_str());
                events.push(
                    NewEvent::new(*at, EventKind::WriteFailed, message)
                        .node(&node.name)
                        .reason(cause.as_str()),
                );
            }
            Report::RecordFailed { problem } => {
                warn!(
                    error = problem,
                    "the cluster's record could not be written; nothing is begun"
                );
                let message = format!(
                    "the record on the Lease could not be written, so nothing was begun: {problem}"
                );
                events.push(NewEvent::new(now, EventKind::WriteFailed, message));
            }
            Report::Pod(report) => {
                counters.pod(report.outcome);
                let (pod, outcome) = (&report.pod, report.outcome);
                let why = if report.detail.is_empty() {
                    String::new()
                } else {
                    format!(", {}", report.detail)
                };
                let event = NewEvent::new(now, EventKind::Evict, format!("{pod}: {outcome}{why}"));
                events.push(
                    event
                        .node(&report.node.name)
                        .pod(pod)
                        .reason(outcome.as_str()),
                );
            }
            Report::Drain { node, report } => {
                let Some((at, outcome)) = report.ended else {
                    return;
                };
                // The end is repeated until the decision has taken note of it.
                if !self.drains_over.insert((node.clone(), report.started_at)) {
                    return;
                }
                counters.drain(outcome);
                let why = if report.detail.is_empty() {
                    String::new()
                } else {
                    format!(": {}", report.detail)
                };
                let message = format!("drain over, {outcome}; {} Pods gone{why}", report.gone);
                events.push(
                    NewEvent::new(at, EventKind::Drain, message)
                        .node(&node.name)
                        .reason(outcome.as_str()),
                );
            }
            Report::Moved {
                node,
                moved,
                message,
                at,
            } => {
                for took in &moved.replacements {
                    counters.replacement(*took);
                }
                counters.replacements_missing(moved.missing());
                let all = moved.missing() == 0 && moved.unseen() == 0;
                let event = NewEvent::new(*at, EventKind::Moved, message.as_str());
                events.push(
                    event
                        .node(&node.name)
                        .reason(if all { "ready" } else { "not_ready" }),
                );
            }
            Report::LeftBehind {
                node, message, at, ..
            } => {
                let event = NewEvent::new(*at, EventKind::Drain, message.as_str());
                events.push(event.node(&node.name).reason("volumes"));
            }
            Report::Differs {
                node, message, at, ..
            } => {
                if !message.is_empty() {
                    let event = NewEvent::new(*at, EventKind::Drain, message.as_str());
                    events.push(event.node(&node.name).reason("not_as_planned"));
                }
            }
            Report::Lost { count } => {
                error!(
                    count,
                    "reports of the actuator were lost; counters and events are short of them"
                );
                let message = format!("{count} reports of the actuator were lost");
                events.push(NewEvent::new(now, EventKind::Health, message));
            }
        }
    }

    /// What became of a delivery.
    pub(super) fn alerts(&self, events: &EventLog, now: Timestamp, applied: &Applied) {
        for received in applied.received.iter().take(NODE_EVENTS_MAX) {
            let name = received
                .alert
                .labels
                .get("alertname")
                .map_or("(without alertname)", String::as_str);
            // What is only repeated is no news.
            if received.outcome == AlertOutcome::Refreshed {
                continue;
            }
            info!(
                alert = name,
                node = received.node.as_ref().map(tracing::field::display),
                outcome = received.outcome.as_str(),
                "alert received"
            );
            let mut event = NewEvent::new(
                now,
                EventKind::Alert,
                format!("{name}: {}", received.outcome),
            );
            if let Some(node) = &received.node {
                event = event.node(node);
            }
            events.push(event.reason(received.outcome.as_str()));
        }
    }

    /// The time since the last decision is not what the clock says, or was not watched.
    pub(super) fn broke_off(&self, events: &EventLog, now: Timestamp, what: Break) {
        let message = match what {
            Break::Jumped(by) => {
                let words = time::words(by);
                warn!(
                    by_seconds = by.as_secs(),
                    "the clock was set; waits begin again, and nothing is begun meanwhile"
                );
                format!("{words}: all waits begin again, and nothing is begun meanwhile")
            }
            Break::Unwatched(gap) => {
                warn!(
                    gap_seconds = gap.as_secs(),
                    "nothing was decided for a while, as when the process is suspended; waits begin again"
                );
                let gap = humantime::format_duration(Duration::from_secs(gap.as_secs()));
                format!("nothing was looked at for {gap}: all waits begin again")
            }
        };
        events.push(NewEvent::new(now, EventKind::Health, message).reason("clock"));
    }

    /// What is new in a decision.
    fn decision(&mut self, events: &EventLog, now: Timestamp, decision: &Decision, model: &str) {
        let mut said = 0;
        let mut unsaid = 0;
        let mut nodes = BTreeMap::new();
        for verdict in decision.verdicts.values() {
            let state = (
                verdict.band,
                verdict.phase,
                verdict.hold().map(|hold| hold.reason),
            );
            let before = self.nodes.get(&verdict.node).copied();
            let unremarkable = (Band::Healthy, Phase::Healthy, None);
            let before = before.unwrap_or(unremarkable);
            if state != before {
                if said < NODE_EVENTS_MAX {
                    said += changes(events, now, verdict, before, model);
                } else {
                    unsaid += 1;
                }
            }
            nodes.insert(verdict.node.clone(), state);
        }
        self.nodes = nodes;
        if unsaid > 0 {
            events.push(NewEvent::new(
                now,
                EventKind::Phase,
                format!("and {unsaid} more Nodes changed"),
            ));
        }
        self.storm(events, now, decision);
    }

    /// A storm and the ramp after it, each change once.
    fn storm(&mut self, events: &EventLog, now: Timestamp, decision: &Decision) {
        match (&self.storm, &decision.storm) {
            (None, Some(storm)) => {
                error!(
                    about = storm.about,
                    "storm: too many nodes turned at risk at once; nothing new is begun"
                );
                let message = format!(
                    "storm, {}: so many at once are more likely a fault of the signal; nothing new is begun",
                    storm.about
                );
                events.push(NewEvent::new(now, EventKind::Storm, message).reason("begins"));
            }
            (Some(storm), None) => {
                info!(about = storm.about, "the storm is over");
                let message = format!("the storm since {:.0} is over", storm.since);
                events.push(NewEvent::new(now, EventKind::Storm, message).reason("over"));
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        self.storm.clone_from(&decision.storm);
        let width = decision.ramp.as_ref().map(|ramp| ramp.width);
        if width != self.ramp {
            info!(width, "ramp after a storm");
            let message = match width {
                Some(1) => "after the storm: one Node first".to_owned(),
                Some(width) => format!("after the storm: {width} Nodes at a time"),
                None => "after the storm: the usual limits count alone again".to_owned(),
            };
            // A storm that comes back ends the ramp, and has been said.
            if decision.storm.is_none() {
                events.push(NewEvent::new(now, EventKind::Storm, message).reason("ramp"));
            }
            self.ramp = width;
        }
    }

    /// What the audit refused last.
    pub(super) fn refusal(&self) -> Option<String> {
        self.audit.clone()
    }

    fn switches(&mut self, events: &EventLog, now: Timestamp, health: &Health) {
        if health.paused != self.paused {
            self.paused = health.paused;
            let message = if health.paused {
                "paused: nothing is written"
            } else {
                "resumed"
            };
            info!(paused = health.paused, "switch");
            events.push(NewEvent::new(now, EventKind::Pause, message));
        }
        if health.leader != self.leader {
            self.leader = health.leader;
            let message = if health.leader {
                "this process leads"
            } else {
                "this process does not lead any more"
            };
            info!(leader = health.leader, "leadership");
            events.push(NewEvent::new(now, EventKind::Leader, message));
        }
        let ok = health.is_ok();
        if self.ok != Some(ok) {
            let problems = [&health.prometheus.problem, &health.kubernetes.problem];
            let why: Vec<&str> = problems
                .into_iter()
                .flatten()
                .map(String::as_str)
                .chain(health.degraded.iter().map(String::as_str))
                .collect();
            if ok {
                info!("health is ok");
            } else {
                warn!(problems = why.join("; "), "health is degraded");
            }
            let message = if ok {
                "health is ok".to_owned()
            } else {
                format!("health is degraded: {}", why.join("; "))
            };
            events.push(NewEvent::new(now, EventKind::Health, message));
            self.ok = Some(ok);
        }
    }
}

/// Says what changed about one Node; returns how many events that took.
fn changes(
    events: &EventLog,
    now: Timestamp,
    verdict: &Verdict,
    before: (Band, Phase, Option<HoldReason>),
    model: &str,
) -> usize {
    let (band, phase, hold) = before;
    let mut said = 0;
    let node = &verdict.node.name;
    let risk = verdict
        .risk
        .map_or_else(|| "unknown".to_owned(), |risk| risk.to_string());
    if verdict.band != band {
        info!(node = %node, risk, model, from = band.as_str(), to = verdict.band.as_str(), "risk changed its band");
        let why: Vec<&str> = verdict.reasons.iter().take(3).map(String::as_str).collect();
        let why = if why.is_empty() {
            String::new()
        } else {
            format!(": {}", why.join(", "))
        };
        let message = format!("risk {risk}, {band} → {}{why}", verdict.band);
        events.push(
            NewEvent::new(now, EventKind::Risk, message)
                .node(node)
                .reason(verdict.band.as_str()),
        );
        said += 1;
    }
    if verdict.phase != phase {
        info!(node = %node, model, from = phase.as_str(), to = verdict.phase.as_str(), "phase changed");
        let message = format!("{phase} → {}", verdict.phase);
        events.push(
            NewEvent::new(now, EventKind::Phase, message)
                .node(node)
                .reason(verdict.phase.as_str()),
        );
        said += 1;
    }
    let held = verdict.hold();
    if held.map(|hold| hold.reason) != hold {
        let (message, reason) = match held {
            Some(hold) => {
                info!(node = %node, model, reason = hold.reason.as_str(), detail = hold.detail, "held");
                (
                    format!("held: {}, {}", hold.reason, hold.detail),
                    hold.reason.as_str(),
                )
            }
            None => ("not held any more".to_owned(), "none"),
        };
        events.push(
            NewEvent::new(now, EventKind::Hold, message)
                .node(node)
                .reason(reason),
        );
        said += 1;
    }
    said
}

fn kind_of(cause: Cause) -> EventKind {
    match cause {
        Cause::Taint => EventKind::Taint,
        Cause::Release => EventKind::Untaint,
        Cause::Caution | Cause::Record => EventKind::Caution,
        Cause::Veto => EventKind::Veto,
        Cause::DrainStart | Cause::Drained | Cause::DrainEnd => EventKind::Drain,
    }
}

impl Cycle {
    /// Publishes what is known before the first list of Nodes is there.
    pub(super) fn publish_unsynced(&mut self, table: &NodeTable) {
        let now = self.parts.clock.now();
        let health = self.health(table, now, None);
        let mut snapshot = Snapshot::starting(
            self.options.started_at,
            env!("CARGO_PKG_VERSION"),
            Arc::clone(&self.options.policy),
        );
        snapshot.at = now;
        snapshot.health = health;
        snapshot.interval = self.options.interval;
        snapshot.shortened.clone_from(&self.options.shortened);
        snapshot.model = Some(Arc::clone(&self.card));
        snapshot.counters = self.parts.counters.shown();
        self.parts.snapshots.send_replace(Arc::new(snapshot));
    }

    /// Publishes what a decision came to.
    pub(super) fn publish(
        &mut self,
        table: &NodeTable,
        world: &World,
        decision: Decision,
        refusal: Option<String>,
        took: Duration,
    ) {
        let now = world.at;
        if let Some(refusal) = refusal.as_ref().filter(|_| refusal != self.shown.audit) {
            let message = format!("a plan was refused, and nothing of it is done: {refusal}");
            let event = NewEvent::new(now, EventKind::Health, message);
            self.parts.events.push(event.reason("audit"));
        }
        self.shown.audit = refusal;
        self.shown.cycles += 1;
        // Before the first features nothing is known of any Node, and that is no news.
        if self.scored.is_some() || self.telemetry_problem.is_some() {
            let model = &self.card.name.name;
            self.shown
                .decision(&self.parts.events, now, &decision, model);
        }
        let health = self.health(table, now, Some(&decision));
        if self.scored.is_some() || self.telemetry_problem.is_some() {
            self.shown.switches(&self.parts.events, now, &health);
        }
        self.parts.counters.set_blocked(self.own.blocked());
        self.shown
            .drains_over
            .retain(|(node, _)| world.nodes.contains_key(&node.name));

        let scored = self.scored.clone();
        let instances = scored
            .as_ref()
            .map(|scored| scored.instances.clone())
            .unwrap_or_default();
        let alerts = self
            .book
            .shown(now, Some(&self.alert_nodes(table, &instances)));
        let storm = decision.storm.clone();
        let ramp = decision.ramp.clone();
        let limits = limits_of(&decision.usage);
        let nodes = decision.verdicts.into_values().map(|verdict| {
            let name = &verdict.node.name;
            let scored = scored
                .as_ref()
                .filter(|_| verdict.model_risk.is_some() || verdict.risk.is_none());
            NodeView {
                contributions: scored
                    .and_then(|scored| scored.contributions.get(name).cloned())
                    .unwrap_or_default(),
                missing: self
                    .scored
                    .as_ref()
                    .and_then(|scored| scored.missing.get(name).copied())
                    .unwrap_or(1.0),
                rule: self
                    .scored
                    .as_ref()
                    .and_then(|scored| scored.rules.get(name).copied()),
                model: scored
                    .filter(|_| verdict.model_risk.is_some())
                    .and_then(|scored| Some(Arc::clone(&scored.scores.get(name)?.inputs.model))),
                pool: table
                    .nodes
                    .get(name)
                    .and_then(|entry| self.options.pools.pool_of(&entry.labels))
                    .map(str::to_owned),
                entry: table.nodes.get(name).cloned(),
                drain: world.drains.get(name).cloned(),
                moved: self.own.moved.get(&verdict.node).cloned(),
                differs: self.own.differs.get(&verdict.node).cloned(),
                volumes: self.own.volumes.get(&verdict.node).cloned(),
                verdict,
            }
        });
        let nodes = nodes.collect();
        let usual: Arc<dyn UsualValues> = match &scored {
            Some(scored) => Arc::clone(&scored.usual) as Arc<dyn UsualValues>,
            None => Arc::new(NothingUsual),
        };
        let snapshot = Snapshot {
            at: now,
            started_at: self.options.started_at,
            version: env!("CARGO_PKG_VERSION"),
            synced: true,
            nodes,
            matrix: scored.as_ref().map(|scored| Arc::clone(&scored.matrix)),
            usual,
            alerts,
            storm,
            ramp,
            limits,
            health,
            policy: Arc::clone(&self.options.policy),
            interval: self.options.interval,
            shortened: self.options.shortened.clone(),
            model: Some(Arc::clone(&self.card)),
            counters: self.parts.counters.shown(),
            cycles: Cycles {
                count: self.shown.cycles,
                last: Some(took),
                stages: vec![("decide", took)],
            },
        };
        self.parts.snapshots.send_replace(Arc::new(snapshot));
    }

    fn health(&mut self, table: &NodeTable, now: Timestamp, decision: Option<&Decision>) -> Health {
        let settling = self.times.settling(self.parts.clock.boottime());
        let settling = settling.map(|(why, left)| {
            let until = foreshock_core::time::after(now, left);
            format!("{why}: nothing is begun before {until:.0}, so that what has to be waited for has really passed")
        });
        let features_at = self.scored.as_ref().map(|scored| scored.at());
        let stale = features_at.is_none_or(|at| since(at, now) > self.options.policy.score_age_max);
        let problem = self.telemetry_problem.clone().or_else(|| {
            (stale && self.scored.is_some())
                .then(|| "the features are too old; is Prometheus slow to answer?".to_owned())
        });
        let leadership = self.parts.leadership.borrow().clone();
        let mut degraded = Vec::new();
        if let Some(scored) = &self.scored {
            degraded.extend(scored.problems.iter().take(PROBLEMS_MAX).cloned());
            let more = scored.problems.len().saturating_sub(PROBLEMS_MAX);
            if more > 0 {
                degraded.push(format!("and {more} more problems of the telemetry"));
            }
        }
        degraded.extend(self.model_problem.clone());
        degraded.extend(self.model_demoted());
        degraded.extend(
            self.alerts_problem
                .as_ref()
                .map(|problem| format!("Alertmanager: {problem}")),
        );
        if self.options.policy.reach_max() > Reach::Observe
            && leadership.record.is_none()
            && table.synced
        {
            degraded.push("the record on the Lease is not known, so nothing is begun".to_owned());
        }
        degraded.extend(settling);
        degraded.extend(leadership.problem.clone());
        degraded.extend(self.shown.audit.clone());
        if self.options.policy.reach_max() == Reach::Observe
            && decision.is_some_and(|decision| {
                decision
                    .verdicts
                    .values()
                    .any(|verdict| marked(table, &verdict.node.name))
            })
        {
            degraded.push("marks of ours are on Nodes although policy.reach is observe: `foreshock release` takes them off".to_owned());
        }
        degraded.extend(
            self.strays
                .as_ref()
                .and_then(|strays| strayed(&strays.borrow())),
        );
        Health {
            prometheus: PrometheusHealth {
                ok: !stale && self.telemetry_problem.is_none(),
                features_at,
                problem,
            },
            kubernetes: KubernetesHealth {
                ok: self.parts.cluster.is_none() || (table.synced && table.problem.is_none()),
                enabled: self.parts.cluster.is_some(),
                problem: table.problem.clone(),
            },
            model: Some(self.card.name.clone()),
            leader: self.leads(),
            leader_name: leadership.holder,
            paused: leadership.paused,
            degraded,
        }
    }
}

/// The limits as page and metrics show them, the cluster's first.
fn limits_of(usage: &Usage) -> Vec<LimitUse> {
    let of_cluster = [
        ("tainted_max", usage.tainted, usage.tainted_max),
        ("draining_max", usage.draining, usage.draining_max),
        (
            "drains_per_hour",
            usage.drains_last_hour,
            usage.drains_per_hour,
        ),
    ];
    let of_cluster = of_cluster.into_iter().map(|(name, used, max)| LimitUse {
        name,
        scope: "cluster".to_owned(),
        used,
        max,
    });
    let of_groups = usage.groups.iter().map(|usage| LimitUse {
        name: usage.limit,
        scope: match &usage.group {
            Group::Zone(zone) => format!("zone/{}", zone.as_deref().unwrap_or_default()),
            Group::Pool(pool) => format!("pool/{pool}"),
        },
        used: usage.used,
        max: usage.max,
    });
    of_cluster.chain(of_groups).collect()
}

/// Nodes that have left the selector with marks of ours.
fn strayed(nodes: &BTreeSet<NodeName>) -> Option<String> {
    let named: Vec<&str> = nodes
        .iter()
        .take(STRAYS_NAMED)
        .map(NodeName::as_str)
        .collect();
    let more = match nodes.len().saturating_sub(STRAYS_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!named.is_empty()).then(|| {
        format!(
            "{}{more} have left kubernetes.node_selector with marks of ours: give their labels back, or \
             take the marks off with `foreshock release --node NAME`, then `foreshock resume`",
            named.join(", ")
        )
    })
}

fn marked(table: &NodeTable, name: &NodeName) -> bool {
    let record = table
        .nodes
        .get(name)
        .and_then(|entry| entry.facts.record.ours());
    record.is_some_and(|record| !record.marks.is_empty())
}
