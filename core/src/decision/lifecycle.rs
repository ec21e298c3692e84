//! The next step of one Node, and what holds it, before the limits of the cluster are looked at.

use std::time::Duration;

use jiff::Timestamp;

use super::evidence::Evidence;
use super::memory::NodeMemory;
use super::plan::{Cause, MarkOrder};
use super::policy::{ControlPlane, Policy, Reach, Rules};
use super::verdict::{Hold, HoldReason, Phase, Verdict};
use super::world::{Fact, HoldUntil, NodeFacts, OwnWrite, ScoreUnknown, World};
use super::{waiting_start, window};
use crate::drain::{DrainOrder, NodeOutcome, PodOutcome};
use crate::node::NodeId;
use crate::record::{
    ActingAlert, DrainRecord, Marks, NodeRecord, RecordState, RecordedPhase, RiskLabel, Storm,
};
use crate::risk::{Band, Risk};
use crate::time::{after, since};

/// Everything that the next step of one Node depends on.
pub(super) struct Situation<'a> {
    pub(super) policy: &'a Policy,
    /// Those for this Node.
    pub(super) rules: &'a Rules,
    pub(super) world: &'a World,
    pub(super) node: &'a NodeFacts,
    pub(super) evidence: &'a Evidence,
    pub(super) storm: Option<&'a Storm>,
}

/// A step that only the limits of the cluster can still hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    Taint,
    Drain,
}

/// What one Node comes to.
pub(super) struct Lifecycle {
    pub(super) node: NodeId,
    pub(super) risk: Option<Risk>,
    pub(super) holds: Vec<Hold>,
    /// A step that finishes or cleans up, and that no limit holds.
    pub(super) finish: Option<MarkOrder>,
    /// A step that begins something, and whether nothing holds it so far.
    pub(super) begin: Option<(Beginning, MarkOrder)>,
    /// Label, caution taint and record follow what is seen, if the Node has no other step.
    pub(super) level: Option<MarkOrder>,
    pub(super) drain: Option<DrainOrder>,
    pub(super) wants_pods: bool,
    verdict: Verdict,
}

impl Lifecycle {
    pub(super) fn into_verdict(mut self) -> Verdict {
        self.holds.sort();
        self.holds.dedup_by(|a, b| a.reason == b.reason);
        Verdict {
            holds: self.holds,
            ..self.verdict
        }
    }
}

/// Works out the next step of one Node.
pub(super) fn live(s: &Situation<'_>, memory: &mut NodeMemory) -> Lifecycle {
    let record = s.node.record.ours();
    let recorded = record.map_or(RecordedPhase::Clear, |record| record.phase);
    let phase = shown_phase(s, recorded);
    let since = phase_since(s, memory, phase, record);
    memory.phase = Some((phase, since));

    let reach = if s.evidence.band == Band::AtRisk {
        s.evidence
            .reach_above(s.rules, |risk| risk > s.rules.at_risk, true)
    } else {
        s.rules.reach
    };
    let mut life = Lifecycle {
        node: s.node.id.clone(),
        risk: s.evidence.risk,
        holds: Vec::new(),
        finish: None,
        begin: None,
        level: None,
        drain: None,
        wants_pods: false,
        verdict: Verdict {
            node: s.node.id.clone(),
            model_risk: s.evidence.model.ok(),
            risk: s.evidence.risk,
            band: s.evidence.band,
            phase,
            since,
            reach,
            holds: Vec::new(),
            alerts: s.evidence.alerts.clone(),
            reasons: s.evidence.reasons(s.rules),
        },
    };

    let hands_off = hands_off(s);
    let busy = matches!(
        s.world.writes.get(&s.node.id.name),
        Some(OwnWrite::InFlight { .. })
    );
    let may_write = hands_off.is_empty() && !busy;

    match (recorded, record) {
        (RecordedPhase::Clear, _) | (_, None) => clear(s, memory, &hands_off, &mut life),
        (RecordedPhase::Tainted, Some(record)) => tainted(s, memory, record, &hands_off, &mut life),
        (RecordedPhase::Draining, Some(record)) => draining(s, record, &hands_off, &mut life),
        (RecordedPhase::Drained, Some(record)) => drained(s, memory, record, &hands_off, &mut life),
    }

    if let Some(order) = veto(s, record) {
        life.finish = Some(order);
        life.begin = None;
        life.drain = None;
    }
    see_marks(s, memory, record);
    life.level = level(s, memory, record, &life.holds, may_write).or_else(|| upkeep(s, record?));
    if !may_write {
        life.finish = None;
        life.level = None;
    }
    if busy {
        life.begin = None;
        // The write may be the one that ends the drain.
        if let Some(drain) = &mut life.drain {
            drain.sends = false;
        }
    }
    life
}

// ---- phases ----

fn shown_phase(s: &Situation<'_>, recorded: RecordedPhase) -> Phase {
    match recorded {
        RecordedPhase::Clear if s.evidence.band == Band::AtRisk => Phase::Suspect,
        RecordedPhase::Clear => Phase::Healthy,
        RecordedPhase::Draining => Phase::Draining,
        RecordedPhase::Tainted | RecordedPhase::Drained if s.evidence.well(s.rules) => {
            Phase::Recovering
        }
        RecordedPhase::Tainted => Phase::Tainted,
        RecordedPhase::Drained => Phase::Drained,
    }
}

fn phase_since(
    s: &Situation<'_>,
    memory: &NodeMemory,
    phase: Phase,
    record: Option<&NodeRecord>,
) -> Timestamp {
    match (phase, record) {
        (Phase::Tainted | Phase::Draining | Phase::Drained, Some(record)) => record.since,
        (Phase::Recovering, _) => memory.well_since.unwrap_or(s.world.at),
        (Phase::Suspect, _) => memory.at_risk_since.unwrap_or(s.world.at),
        _ => memory
            .phase
            .filter(|(before, _)| *before == phase)
            .map_or(s.world.at, |(_, since)| since),
    }
}

fn clear(s: &Situation<'_>, memory: &NodeMemory, hands_off: &[Hold], life: &mut Lifecycle) {
    match s.evidence.band {
        Band::Healthy | Band::Caution => return,
        Band::Unknown => {
            life.holds.extend(hands_off.iter().cloned());
            life.holds.extend(excused(s));
            life.holds.push(unknown(s));
            return;
        }
        Band::AtRisk => {}
    }
    life.holds.extend(hands_off.iter().cloned());
    life.holds.extend(begin_holds(s, memory, Reach::Taint));
    life.begin = Some((Beginning::Taint, taint_order(s, memory)));
    life.wants_pods = life.verdict.reach >= Reach::Evict;
}

fn tainted(
    s: &Situation<'_>,
    memory: &NodeMemory,
    record: &NodeRecord,
    hands_off: &[Hold],
    life: &mut Lifecycle,
) {
    life.holds.extend(hands_off.iter().cloned());
    if s.evidence.well(s.rules) {
        return recovering(s, memory, record, life);
    }
    match s.evidence.band {
        Band::Unknown => life.holds.push(unknown(s)),
        Band::Healthy | Band::Caution => life.holds.push(between(s)),
        Band::AtRisk => {
            life.holds.extend(begin_holds(s, memory, Reach::Evict));
            life.holds.extend(drain_holds(s, record));
            life.begin = Some((Beginning::Drain, drain_order(s, record)));
            life.wants_pods = life.verdict.reach >= Reach::Evict;
        }
    }
}

fn draining(s: &Situation<'_>, record: &NodeRecord, hands_off: &[Hold], life: &mut Lifecycle) {
    life.wants_pods = true;
    life.holds.extend(hands_off.iter().cloned());
    let Some(drain) = &record.drain else {
        // A record that says draining and not since when cannot be written by us; begin again.
        life.finish = Some(end_order(
            s,
            record,
            s.world.at,
            NodeOutcome::Ended(PodOutcome::Cancelled),
            "its record lacks the drain",
        ));
        return;
    };
    let report = s
        .world
        .drains
        .get(&s.node.id.name)
        .filter(|report| report.started_at == drain.started_at);
    if let Some((at, outcome)) = report.and_then(|report| report.ended) {
        life.finish = Some(end_order(
            s,
            record,
            at,
            outcome,
            report.map_or("", |report| &report.detail),
        ));
        return;
    }
    if s.evidence.well(s.rules) && hands_off.is_empty() {
        life.finish = Some(end_order(
            s,
            record,
            s.world.at,
            NodeOutcome::Ended(PodOutcome::Cancelled),
            "the Node looks well again",
        ));
        return;
    }
    let running = running_holds(s);
    let sends = hands_off.is_empty() && running.is_empty();
    life.holds.extend(running);
    life.drain = Some(DrainOrder {
        node: s.node.id.clone(),
        started_at: drain.started_at,
        complete_after: after(drain.started_at, DrainOrder::SCHEDULER_LAG),
        deadline_at: after(drain.started_at, s.policy.drain.deadline),
        sends,
        rules: s.policy.drain.clone(),
    });
}

fn drained(
    s: &Situation<'_>,
    memory: &NodeMemory,
    record: &NodeRecord,
    hands_off: &[Hold],
    life: &mut Lifecycle,
) {
    life.holds.extend(hands_off.iter().cloned());
    if s.evidence.well(s.rules) {
        return recovering(s, memory, record, life);
    }
    if s.evidence.band == Band::Unknown {
        life.holds.push(unknown(s));
    }
    life.holds.push(hold(
        HoldReason::Drained,
        "everything that may move has moved; the Node is not well yet",
        None,
    ));
}

fn recovering(s: &Situation<'_>, memory: &NodeMemory, record: &NodeRecord, life: &mut Lifecycle) {
    let due = after(memory.well_since.unwrap_or(s.world.at), s.rules.recover_for);
    if s.world.at >= due {
        life.finish = Some(release_order(s, record));
    } else {
        let detail = format!(
            "below {} since {:.0}",
            s.rules.recover_below,
            memory.well_since.unwrap_or(s.world.at)
        );
        life.holds
            .push(hold(HoldReason::Recovering, detail, Some(due)));
    }
}

// ---- holds ----

fn hold(reason: HoldReason, detail: impl Into<String>, until: Option<Timestamp>) -> Hold {
    Hold {
        reason,
        detail: detail.into(),
        until,
    }
}

/// Holds that keep us from writing to the Node at all, clean-up included.
fn hands_off(s: &Situation<'_>) -> Vec<Hold> {
    let mut holds = Vec::new();
    if s.world.paused {
        holds.push(hold(HoldReason::Paused, "foreshock is paused", None));
    }
    if s.node.excluded {
        holds.push(hold(
            HoldReason::Excluded,
            "annotation foreshock.dev/exclude",
            None,
        ));
    }
    match &s.node.hold_until {
        Some(HoldUntil::Time(until)) if s.world.at < *until => {
            holds.push(hold(
                HoldReason::HoldUntil,
                "annotation foreshock.dev/hold-until",
                Some(*until),
            ));
        }
        Some(HoldUntil::Malformed(text)) => {
            let detail =
                format!("annotation foreshock.dev/hold-until is no RFC 3339 time: {text:?}");
            holds.push(hold(HoldReason::HoldUntil, detail, None));
        }
        Some(HoldUntil::Time(_)) | None => {}
    }
    match &s.node.record {
        RecordState::Foreign { instance } => {
            holds.push(hold(
                HoldReason::ForeignMark,
                format!("the Node belongs to the foreshock instance {instance:?}"),
                None,
            ));
        }
        RecordState::Unreadable { problem } => {
            let detail = format!("annotation foreshock.dev/state cannot be understood: {problem}");
            holds.push(hold(HoldReason::ForeignMark, detail, None));
        }
        RecordState::Absent | RecordState::OtherUid | RecordState::Ours(_) => {}
    }
    if let Some(OwnWrite::Failed {
        problem, retry_at, ..
    }) = s.world.writes.get(&s.node.id.name)
        && s.world.at < *retry_at
    {
        holds.push(hold(
            HoldReason::WriteFailed,
            problem.clone(),
            Some(*retry_at),
        ));
    }
    holds
}

/// Holds of Nodes that are nobody's business of ours: somebody else's marks, the control plane, the young.
fn excused(s: &Situation<'_>) -> Vec<Hold> {
    let mut holds = Vec::new();
    if let Some(detail) = foreign_mark(s) {
        holds.push(hold(HoldReason::ForeignMark, detail, None));
    }
    if let Some(until) = s
        .node
        .record
        .ours()
        .and_then(|record| record.veto_until)
        .filter(|until| s.world.at < *until)
    {
        holds.push(hold(
            HoldReason::Veto,
            "a person removed our mark",
            Some(until),
        ));
    }
    if s.node.control_plane && s.rules.control_plane == ControlPlane::Exclude {
        holds.push(hold(
            HoldReason::ControlPlane,
            "control-plane Nodes are left alone (policy.control_plane)",
            None,
        ));
    }
    let grown_up = after(s.node.created_at, s.rules.new_node_age);
    if s.world.at < grown_up {
        holds.push(hold(
            HoldReason::NewNode,
            "younger than policy.new_node_age",
            Some(grown_up),
        ));
    }
    holds
}

fn foreign_mark(s: &Situation<'_>) -> Option<String> {
    if let Some(by) = &s.node.taken_by {
        return Some(format!("the Node is being taken away: {by}"));
    }
    let marks = s.node.record.ours().map(|record| &record.marks);
    let ours = |taint| {
        marks.is_some_and(|marks| {
            marks.taint.as_ref() == Some(taint) || marks.caution_taint.as_ref() == Some(taint)
        })
    };
    let keys = [Some(&s.rules.taint), s.rules.caution_taint.as_ref()];
    let same_key =
        |taint: &&crate::record::Taint| keys.iter().flatten().any(|key| key.key == taint.key);
    if let Some(taint) = s
        .node
        .taints
        .iter()
        .filter(same_key)
        .find(|taint| !ours(taint))
    {
        return Some(format!("the taint {taint} is not ours"));
    }
    s.node
        .cordoned
        .then(|| "somebody has cordoned the Node".to_owned())
}

fn unknown(s: &Situation<'_>) -> Hold {
    let record = s.node.record.ours();
    let why = s.evidence.model.err().unwrap_or(ScoreUnknown::NoScrape);
    // Where nobody is heard it is the signal that is gone and not this Node's exporter, and nobody should
    // remove a taint for it.
    let others_are_heard = || {
        s.world.scores.iter().any(|(name, score)| {
            *name != s.node.id.name
                && score.risk.is_ok()
                && since(score.at, s.world.at) <= s.policy.score_age_max
        })
    };
    let silent = matches!(why, ScoreUnknown::NoScrape | ScoreUnknown::Stale) && others_are_heard();
    if silent && record.is_some_and(|record| record.had_features && record.marks.taint.is_some()) {
        let detail = "its exporter fell silent after our taint: give its DaemonSet a toleration, or remove the taint";
        return hold(HoldReason::BlindedByTaint, detail, None);
    }
    hold(HoldReason::Unknown, why.to_string(), None)
}

fn between(s: &Situation<'_>) -> Hold {
    if let (true, Some(drift)) = (s.evidence.odd, &s.evidence.drift) {
        return drift_hold(drift);
    }
    let risk = s
        .evidence
        .risk
        .map_or_else(String::new, |risk| format!("risk {risk} "));
    hold(
        HoldReason::Recovering,
        format!("{risk}has to fall below {} first", s.rules.recover_below),
        None,
    )
}

/// Holds of a step that begins something and needs this much reach.
fn begin_holds(s: &Situation<'_>, memory: &NodeMemory, needs: Reach) -> Vec<Hold> {
    let mut holds = excused(s);
    holds.extend(s.storm.map(storm_hold));
    holds.extend(reach_holds(s, memory, needs));
    if let Some((since, until)) = repeat_offence(s, memory) {
        holds.push(hold(
            HoldReason::RepeatOffender,
            format!("it keeps coming back since {since:.0}; a person should look"),
            Some(until),
        ));
    }
    if s.rules.reach > Reach::Observe && s.world.cluster.is_none() {
        holds.push(hold(
            HoldReason::FactsUnknown,
            "what the limits need is not known: /api/health says why",
            None,
        ));
    }
    holds
}

fn reach_holds(s: &Situation<'_>, memory: &NodeMemory, needs: Reach) -> Vec<Hold> {
    let at_risk = |risk: Risk| risk > s.rules.at_risk;
    if s.rules.reach < needs {
        return vec![hold(
            HoldReason::Reach,
            format!("policy.reach is {}", s.rules.reach),
            None,
        )];
    }
    let due = memory
        .model_at_risk_since
        .map(|since| after(since, s.rules.confirm_for));
    let confirmed = due.is_some_and(|due| s.world.at >= due);
    if s.evidence.reach_above(s.rules, at_risk, confirmed) >= needs {
        return Vec::new();
    }
    if s.evidence.reach_above(s.rules, at_risk, true) >= needs {
        return vec![hold(
            HoldReason::Unconfirmed,
            "at risk, but not for policy.confirm_for yet",
            due,
        )];
    }
    let mut holds = Vec::new();
    if s.evidence.alerts.iter().any(|alert| at_risk(alert.floor)) {
        holds.push(hold(
            HoldReason::Reach,
            "the reach of its alerts ends here",
            None,
        ));
    }
    if s.evidence.model_at_risk(s.rules) {
        holds.push(match &s.evidence.drift {
            Some(drift) => drift_hold(drift),
            None => hold(HoldReason::Untrained, untrained(s.world), None),
        });
        if !confirmed {
            holds.push(hold(
                HoldReason::Unconfirmed,
                "at risk, but not for policy.confirm_for yet",
                due,
            ));
        }
    }
    holds
}

fn untrained(world: &World) -> String {
    let why = world
        .untrusted
        .as_deref()
        .unwrap_or("it has proved nothing on this cluster");
    format!("the model alone may cause no more than a label: {why}")
}

fn drift_hold(drift: &str) -> Hold {
    let detail = format!("the model does not know such inputs: {drift}");
    hold(HoldReason::Drift, detail, None)
}

fn storm_hold(storm: &Storm) -> Hold {
    let detail = format!(
        "too many Nodes turned at risk at once since {:.0}: {}",
        storm.since, storm.about
    );
    hold(HoldReason::Storm, detail, None)
}

/// Since when the Node keeps coming back, and when the earliest of it is forgotten.
fn repeat_offence(s: &Situation<'_>, memory: &NodeMemory) -> Option<(Timestamp, Timestamp)> {
    let record = s.node.record.ours()?;
    let recent: Vec<Timestamp> = record
        .repeats
        .iter()
        .copied()
        .filter(|at| since(*at, s.world.at) < s.rules.repeat_window)
        .collect();
    let again = usize::from(record.phase == RecordedPhase::Clear && comes_back(s, memory, record));
    if recent.len() + again <= s.rules.repeat_max as usize {
        return None;
    }
    let first = recent
        .first()
        .copied()
        .or(memory.at_risk_since)
        .unwrap_or(s.world.at);
    Some((first, after(first, s.rules.repeat_window)))
}

/// The Node turned at risk within the probation after its last release.
fn comes_back(s: &Situation<'_>, memory: &NodeMemory, record: &NodeRecord) -> bool {
    record.released_at.is_some_and(|released| {
        memory.at_risk_since.unwrap_or(s.world.at) <= after(released, s.rules.probation)
    })
}

/// Further holds of the start of a drain.
fn drain_holds(s: &Situation<'_>, record: &NodeRecord) -> Vec<Hold> {
    let mut holds = Vec::new();
    let due = after(record.since, s.rules.drain_after);
    // A drain that was ended was preceded by its own wait.
    if record.drain.is_none() && s.world.at < due {
        holds.push(hold(
            HoldReason::DrainAfter,
            "tainted, but not for policy.drain_after yet",
            Some(due),
        ));
    }
    if let Err(opens) = window::open(&s.rules.windows, s.world.at) {
        let detail = "outside every maintenance window (policy.windows)";
        holds.push(hold(HoldReason::Window, detail, opens));
    }
    match &s.node.pods {
        Fact::Known(at, _) if since(*at, s.world.at) <= s.policy.facts_age_max => {}
        Fact::Assumed(_) => {}
        Fact::Known(..) | Fact::Unknown => {
            holds.push(hold(
                HoldReason::FactsUnknown,
                "its Pods are not known yet",
                None,
            ));
        }
    }
    if let Some((until, detail)) = drain_again_at(record)
        && until.is_none_or(|until| s.world.at < until)
    {
        holds.push(hold(HoldReason::DrainFailed, detail, until));
    }
    holds
}

/// When a drain that failed may be tried again (`None`: not by itself), and what came of it.
fn drain_again_at(record: &NodeRecord) -> Option<(Option<Timestamp>, String)> {
    let drain = record.drain.as_ref()?;
    let (at, outcome) = drain.ended?;
    if outcome == NodeOutcome::Ended(PodOutcome::Cancelled) {
        return None;
    }
    let detail = format!(
        "drain {} of {} ended: {outcome}",
        drain.attempts,
        Policy::DRAIN_ATTEMPTS_MAX
    );
    if drain.attempts >= Policy::DRAIN_ATTEMPTS_MAX {
        return Some((
            None,
            format!("{detail}; remove what stands in the way, then the taint"),
        ));
    }
    let pause = RETRY_DRAIN_AFTER.saturating_mul(1 << drain.attempts.saturating_sub(1).min(8));
    Some((Some(after(at, pause)), detail))
}

/// The pause after the first failed drain of a Node; it doubles. Long enough for a rollout or a
/// budget to settle, short beside the default `tainted_for_max` of six hours.
const RETRY_DRAIN_AFTER: Duration = Duration::from_secs(300);

/// Holds that stop a running drain from sending evictions, without ending it.
fn running_holds(s: &Situation<'_>) -> Vec<Hold> {
    let mut holds = Vec::new();
    if s.evidence.risk.is_none() {
        holds.push(unknown(s));
    }
    if let Some(by) = &s.node.taken_by {
        holds.push(hold(
            HoldReason::ForeignMark,
            format!("the Node is being taken away: {by}"),
            None,
        ));
    }
    holds.extend(s.storm.map(storm_hold));
    if s.rules.reach < Reach::Evict {
        holds.push(hold(
            HoldReason::Reach,
            format!("policy.reach is {}", s.rules.reach),
            None,
        ));
    } else if s.evidence.risk.is_some()
        && s.evidence
            .reach_above(s.rules, |risk| risk >= s.rules.recover_below, true)
            < Reach::Evict
    {
        let reason = if s.evidence.alerts.is_empty() {
            HoldReason::Untrained
        } else {
            HoldReason::Reach
        };
        holds.push(match &s.evidence.drift {
            Some(drift) => drift_hold(drift),
            None => hold(reason, "what speaks for the drain may not evict", None),
        });
    }
    if s.world.cluster.is_none() {
        holds.push(hold(
            HoldReason::FactsUnknown,
            "what the limits need is not known: /api/health says why",
            None,
        ));
    }
    holds
}

// ---- orders ----

fn order(s: &Situation<'_>, cause: Cause, note: String, record: NodeRecord) -> MarkOrder {
    MarkOrder {
        node: s.node.id.clone(),
        cause,
        note,
        expects: s.node.record.ours().map(|record| Box::new(record.clone())),
        record: Some(Box::new(record)),
    }
}

fn recorded(s: &Situation<'_>) -> NodeRecord {
    let clear = || NodeRecord::clear(&s.policy.instance, &s.node.id.uid, s.world.at);
    s.node.record.ours().cloned().unwrap_or_else(clear)
}

/// What a record says about the evidence, brought up to date.
fn with_evidence(s: &Situation<'_>, record: NodeRecord) -> NodeRecord {
    NodeRecord {
        reasons: s.evidence.reasons(s.rules),
        alerts: s.evidence.alerts.clone(),
        ..record
    }
}

fn with_label(s: &Situation<'_>, marks: Marks, label: RiskLabel) -> Marks {
    let label_before = if marks.label.is_some() {
        marks.label_before
    } else {
        s.node.risk_label.clone()
    };
    Marks {
        label: Some(label),
        label_before,
        ..marks
    }
}

fn taint_order(s: &Situation<'_>, memory: &NodeMemory) -> MarkOrder {
    let before = recorded(s);
    let mut repeats = before.repeats.clone();
    repeats.retain(|at| since(*at, s.world.at) < s.rules.repeat_window);
    if comes_back(s, memory, &before) {
        repeats.push(s.world.at);
        let excess = repeats.len().saturating_sub(NodeRecord::REPEATS_MAX);
        repeats.drain(..excess);
    }
    let marks = with_label(s, before.marks.clone(), RiskLabel::AtRisk);
    let record = with_evidence(
        s,
        NodeRecord {
            phase: RecordedPhase::Tainted,
            since: s.world.at,
            repeats,
            had_features: s.evidence.model.is_ok(),
            veto_until: None,
            marks: Marks {
                taint: Some(s.rules.taint.clone()),
                caution_taint: None,
                ..marks
            },
            drain: None,
            ..before
        },
    );
    let note = format!("tainted {}: {}", s.rules.taint, because(s));
    order(s, Cause::Taint, note, record)
}

fn drain_order(s: &Situation<'_>, record: &NodeRecord) -> MarkOrder {
    let failed = record.drain.as_ref().filter(|drain| {
        drain
            .ended
            .is_some_and(|(_, outcome)| outcome != NodeOutcome::Ended(PodOutcome::Cancelled))
    });
    let attempts = failed.map_or(0, |drain| drain.attempts).saturating_add(1);
    let next = with_evidence(
        s,
        NodeRecord {
            phase: RecordedPhase::Draining,
            since: s.world.at,
            drain: Some(DrainRecord {
                started_at: waiting_start(s.policy, s.world, s.node).unwrap_or(s.world.at),
                attempts,
                ended: None,
            }),
            ..record.clone()
        },
    );
    order(
        s,
        Cause::DrainStart,
        format!("drain started: {}", because(s)),
        next,
    )
}

fn end_order(
    s: &Situation<'_>,
    record: &NodeRecord,
    at: Timestamp,
    outcome: NodeOutcome,
    detail: &str,
) -> MarkOrder {
    let (phase, cause) = match outcome {
        NodeOutcome::Drained => (RecordedPhase::Drained, Cause::Drained),
        NodeOutcome::Ended(_) => (RecordedPhase::Tainted, Cause::DrainEnd),
    };
    let drain = record.drain.clone().map(|drain| DrainRecord {
        ended: Some((at, outcome)),
        ..drain
    });
    let detail = if detail.is_empty() {
        String::new()
    } else {
        format!(": {detail}")
    };
    let note = match outcome {
        NodeOutcome::Drained => "drained: every Pod that may move is gone".to_owned(),
        NodeOutcome::Ended(outcome) => format!("drain ended: {outcome}{detail}"),
    };
    let next = with_evidence(
        s,
        NodeRecord {
            phase,
            since: s.world.at,
            drain,
            ..record.clone()
        },
    );
    order(s, cause, note, next)
}

fn release_order(s: &Situation<'_>, record: &NodeRecord) -> MarkOrder {
    let next = NodeRecord {
        phase: RecordedPhase::Clear,
        since: s.world.at,
        reasons: Vec::new(),
        alerts: Vec::new(),
        released_at: Some(s.world.at),
        had_features: false,
        marks: Marks::default(),
        drain: None,
        ..record.clone()
    };
    let risk = s
        .evidence
        .risk
        .map_or_else(String::new, |risk| format!("risk {risk}, "));
    order(
        s,
        Cause::Release,
        format!(
            "given back: {risk}below {} for {:?}",
            s.rules.recover_below, s.rules.recover_for
        ),
        next,
    )
}

fn because(s: &Situation<'_>) -> String {
    let risk = s
        .evidence
        .risk
        .map_or_else(|| "risk unknown".to_owned(), |risk| format!("risk {risk}"));
    // Whose word it was is to be known also when another model has taken its place.
    let says = s
        .evidence
        .model
        .is_ok_and(|risk| Some(risk) == s.evidence.risk);
    let score = s.world.scores.get(&s.node.id.name).filter(|_| says);
    let risk = match score.map(|score| &score.inputs.model) {
        Some(model) if !model.is_empty() => format!("{risk} by model {model}"),
        Some(_) | None => risk,
    };
    let reasons = s.evidence.reasons(s.rules);
    let shown: Vec<&str> = reasons.iter().take(3).map(String::as_str).collect();
    if shown.is_empty() {
        risk
    } else {
        format!("{risk}, {}", shown.join(", "))
    }
}

/// A person removed a mark of ours: it is theirs to decide now.
fn veto(s: &Situation<'_>, record: Option<&NodeRecord>) -> Option<MarkOrder> {
    let record = record?;
    let gone = |taint: &Option<crate::record::Taint>| {
        taint
            .as_ref()
            .is_some_and(|taint| !s.node.taints.contains(taint))
    };
    let label_gone = record
        .marks
        .label
        .is_some_and(|label| s.node.risk_label.as_deref() != Some(label.as_str()));
    let (taint_gone, caution_gone) = (gone(&record.marks.taint), gone(&record.marks.caution_taint));
    if !taint_gone && !caution_gone && !label_gone {
        return None;
    }
    let mut next = NodeRecord {
        veto_until: Some(after(s.world.at, s.rules.veto_for)),
        ..record.clone()
    };
    if taint_gone {
        next.marks.taint = None;
        next.phase = RecordedPhase::Clear;
        next.since = s.world.at;
        next.drain = None;
    }
    if caution_gone {
        next.marks.caution_taint = None;
    }
    if label_gone {
        // What stands there now is a person's word, also when it is nothing.
        next.marks.label = None;
        next.marks.label_before = None;
    }
    let what = if taint_gone {
        "taint"
    } else if caution_gone {
        "caution taint"
    } else {
        "label"
    };
    let note = format!(
        "somebody removed our {what}: not set again before {:.0}",
        after(s.world.at, s.rules.veto_for)
    );
    Some(order(s, Cause::Veto, note, next))
}

/// Notes when the marks changed: when it is seen, not when it is planned. An order may be withdrawn.
fn see_marks(s: &Situation<'_>, memory: &mut NodeMemory, record: Option<&NodeRecord>) {
    let marks = record
        .map(|record| record.marks.clone())
        .unwrap_or_default();
    if memory
        .marks_seen
        .as_ref()
        .is_some_and(|seen| *seen != marks)
    {
        memory.caution_changed_at = Some(s.world.at);
    }
    memory.marks_seen = Some(marks);
}

/// Brings label and caution taint to what the band asks for.
fn level(
    s: &Situation<'_>,
    memory: &mut NodeMemory,
    record: Option<&NodeRecord>,
    holds: &[Hold],
    may_write: bool,
) -> Option<MarkOrder> {
    if record.is_some_and(|record| record.phase != RecordedPhase::Clear) {
        memory.caution_differs_since = None;
        return None;
    }
    let marks = record
        .map(|record| record.marks.clone())
        .unwrap_or_default();
    let wanted = wanted_marks(s, memory, &marks);
    if wanted == marks {
        memory.caution_differs_since = None;
        return None;
    }
    let differs_since = *memory.caution_differs_since.get_or_insert(s.world.at);
    let turns_at_risk = wanted.label == Some(RiskLabel::AtRisk);
    let due = turns_at_risk
        || (since(differs_since, s.world.at) >= s.rules.confirm_for
            && memory
                .caution_changed_at
                .is_none_or(|at| since(at, s.world.at) >= Policy::CAUTION_CHANGE_MIN));
    let adds = wanted.label > marks.label
        || (wanted.caution_taint.is_some() && marks.caution_taint.is_none());
    // New marks are held by what holds every beginning; removing them is clean-up.
    let held = adds
        && (s.storm.is_some()
            || !excused(s).is_empty()
            || s.world.cluster.is_none()
            || holds
                .iter()
                .any(|hold| hold.reason == HoldReason::RepeatOffender));
    if !due || held || !may_write {
        return None;
    }
    let label = wanted.label.map_or("none", RiskLabel::as_str);
    let note = format!("risk label {label}: {}", because(s));
    let next = NodeRecord {
        marks: wanted,
        ..recorded(s)
    };
    let next = if next.marks.is_empty() {
        NodeRecord {
            reasons: Vec::new(),
            alerts: Vec::new(),
            ..next
        }
    } else {
        with_evidence(s, next)
    };
    Some(order(s, Cause::Caution, note, next))
}

fn wanted_marks(s: &Situation<'_>, memory: &NodeMemory, marks: &Marks) -> Marks {
    let Some(risk) = s.evidence.risk else {
        return marks.clone();
    };
    let current = marks
        .label
        .max(marks.caution_taint.as_ref().map(|_| RiskLabel::Caution));
    let confirmed = memory
        .model_at_risk_since
        .is_some_and(|at| since(at, s.world.at) >= s.rules.confirm_for);
    let at_risk = s
        .evidence
        .reach_above(s.rules, |risk| risk > s.rules.at_risk, confirmed)
        >= Reach::Label;
    let stays = |threshold: Risk| risk.as_f64() >= threshold.as_f64() - Policy::CAUTION_DEAD_BAND;
    let level = if at_risk || (current == Some(RiskLabel::AtRisk) && stays(s.rules.at_risk)) {
        Some(RiskLabel::AtRisk)
    } else if risk >= s.rules.caution || (current.is_some() && stays(s.rules.caution)) {
        Some(RiskLabel::Caution)
    } else {
        None
    };
    let reach = s
        .evidence
        .reach_above(s.rules, |risk| risk >= s.rules.caution, true);
    let mut wanted = marks.clone();
    match level {
        None => {
            wanted.label = None;
            wanted.label_before = None;
        }
        Some(level) if reach >= Reach::Label || marks.label.is_some_and(|label| level < label) => {
            wanted = with_label(s, wanted, level);
        }
        Some(_) => {}
    }
    wanted.caution_taint = match (level, &marks.caution_taint) {
        (None, _) => None,
        (Some(_), Some(taint)) => Some(taint.clone()),
        (Some(_), None) => s
            .rules
            .caution_taint
            .clone()
            .filter(|_| reach >= Reach::Taint),
    };
    wanted
}

/// Keeps the record's alerts in step with what is heard, and drops a record that has run out.
fn upkeep(s: &Situation<'_>, record: &NodeRecord) -> Option<MarkOrder> {
    if record.marks.is_empty() && record.phase == RecordedPhase::Clear {
        let vetoed = record.veto_until.is_some_and(|until| s.world.at < until);
        let window = s.rules.repeat_window.max(s.rules.probation);
        let recent = record
            .released_at
            .is_some_and(|at| since(at, s.world.at) < window);
        // What is not scaled back yet would be forgotten with it.
        if vetoed || recent || !record.surges.is_empty() {
            return None;
        }
        return Some(MarkOrder {
            record: None,
            ..order(
                s,
                Cause::Record,
                "its record has run out".to_owned(),
                record.clone(),
            )
        });
    }
    let (kept, heard) = (&record.alerts, &s.evidence.alerts);
    if same_alerts(kept, heard, s.world.at) {
        return None;
    }
    // A dying Prometheus resolves everything. A drained Node waits for fresh features whatever its alerts
    // say, after a restart too, so that their end can wait with it and an outage writes nothing.
    let only_ended = all_kept(kept, heard, s.world.at);
    if only_ended && record.phase == RecordedPhase::Drained && s.evidence.model.is_err() {
        return None;
    }
    let next = with_evidence(s, record.clone());
    Some(order(
        s,
        Cause::Record,
        "its acting alerts changed".to_owned(),
        next,
    ))
}

/// Whether a record's alerts are near enough: the same firings, none of which the record would let
/// run out much too early. Writing each refresh would be a write every group_interval.
fn same_alerts(recorded: &[ActingAlert], heard: &[ActingAlert], at: Timestamp) -> bool {
    recorded.len() == heard.len() && all_kept(recorded, heard, at)
}

/// Whether a record has everything that is heard, and perhaps more.
fn all_kept(recorded: &[ActingAlert], heard: &[ActingAlert], at: Timestamp) -> bool {
    heard.iter().all(|heard| {
        recorded.iter().any(|kept| {
            kept.fingerprint == heard.fingerprint
                && kept.starts_at == heard.starts_at
                && kept.floor == heard.floor
                && kept.reach == heard.reach
                && since(at, kept.expires_at) * 2 >= since(at, heard.expires_at)
        })
    })
}
