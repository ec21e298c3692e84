//! What speaks for a Node being at risk: the model's score, and the floors of its active alerts.

use std::time::Duration;

use jiff::Timestamp;

use super::policy::{Policy, Reach, Rules};
use super::world::{NodeFacts, ScoreUnknown, World};
use crate::record::{ActingAlert, NodeRecord};
use crate::risk::{Band, Risk};
use crate::time::{after, since};

/// What speaks for one Node being at risk.
#[derive(Clone, Debug)]
pub(super) struct Evidence {
    /// The model's word, fresh, or why there is none.
    pub(super) model: Result<Risk, ScoreUnknown>,
    /// How far the model's word may go for this Node.
    model_reach: Reach,
    /// Why it is no ground to act at all.
    pub(super) drift: Option<String>,
    /// This Node's own inputs are odd, so that its score is no ground to give it back either.
    pub(super) odd: bool,
    /// Active alerts, strongest floor first.
    pub(super) alerts: Vec<ActingAlert>,
    /// What drives the score, in words.
    reasons: Vec<String>,
    /// The larger of the model's word and the floors; `None` is unknown.
    pub(super) risk: Option<Risk>,
    pub(super) band: Band,
}

impl Evidence {
    /// Gathers what speaks for this Node at the time of the decision.
    pub(super) fn of(policy: &Policy, world: &World, node: &NodeFacts) -> Self {
        let rules = policy.rules_of(node);
        let (model, reasons) = model(policy, world, node);
        let far_out = world
            .scores
            .get(&node.id.name)
            .and_then(|score| score.out_of_range.as_ref());
        let drift = far_out.or(world.drift.as_ref()).cloned();
        let odd = far_out.is_some();
        let alerts = alerts(world, node);
        let floor = alerts.first().map(|alert| alert.floor);
        let risk = match (model, floor) {
            (Ok(model), Some(floor)) => Some(model.max(floor)),
            (Ok(model), None) => Some(model),
            // Without a score, a low floor says nothing about what else may be wrong.
            (Err(_), Some(floor)) => Some(floor).filter(|floor| *floor >= rules.caution),
            (Err(_), None) => None,
        };
        Self {
            model,
            model_reach: match (&drift, policy.model_trusted) {
                (Some(_), _) => Reach::Observe,
                (None, true) => Reach::Evict,
                (None, false) => Reach::Label,
            },
            drift,
            odd,
            alerts,
            reasons,
            risk,
            band: rules.band(risk),
        }
    }

    /// Why the Node is where it is, in words, strongest first.
    pub(super) fn reasons(&self, rules: &Rules) -> Vec<String> {
        let mut reasons: Vec<String> = self
            .alerts
            .iter()
            .filter(|alert| alert.floor >= rules.caution)
            .map(|alert| format!("alert {} (floor {})", alert.name, alert.floor))
            .collect();
        if self.model.is_ok_and(|risk| risk >= rules.caution) {
            reasons.extend(self.reasons.iter().cloned());
        }
        reasons.truncate(NodeRecord::REASONS_MAX);
        reasons
    }

    /// The model alone puts the Node at risk.
    pub(super) fn model_at_risk(&self, rules: &Rules) -> bool {
        self.model.is_ok_and(|risk| risk > rules.at_risk)
    }

    /// The Node looks well: a fresh score, and nothing at or above `recover_below`.
    pub(super) fn well(&self, rules: &Rules) -> bool {
        !self.odd && self.model.is_ok() && self.risk.is_some_and(|risk| risk < rules.recover_below)
    }

    /// How far the evidence above `threshold` goes, the model's only if `model_counts`.
    pub(super) fn reach_above(
        &self,
        rules: &Rules,
        threshold: impl Fn(Risk) -> bool,
        model_counts: bool,
    ) -> Reach {
        let model = (model_counts && self.model.is_ok_and(&threshold)).then_some(self.model_reach);
        let alerts = self
            .alerts
            .iter()
            .filter(|alert| threshold(alert.floor))
            .map(|alert| alert.reach);
        alerts
            .chain(model)
            .max()
            .unwrap_or(Reach::Observe)
            .min(rules.reach)
    }
}

fn model(
    policy: &Policy,
    world: &World,
    node: &NodeFacts,
) -> (Result<Risk, ScoreUnknown>, Vec<String>) {
    let Some(score) = world.scores.get(&node.id.name) else {
        return (Err(ScoreUnknown::NoScrape), Vec::new());
    };
    // A score of the Node that had this name before says nothing about this one, and one from the
    // future means that a clock has jumped.
    let age_known =
        score.at >= node.created_at && score.at <= after(world.at, Duration::from_secs(1));
    if !age_known || since(score.at, world.at) > policy.score_age_max {
        return (
            Err(score.risk.err().unwrap_or(ScoreUnknown::Stale)),
            Vec::new(),
        );
    }
    (score.risk, score.reasons.clone())
}

/// Alerts that count: those heard, and those that the record has kept over a restart.
fn alerts(world: &World, node: &NodeFacts) -> Vec<ActingAlert> {
    let heard = world
        .alerts
        .get(&node.id.name)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let kept = node
        .record
        .ours()
        .map(|record| record.alerts.as_slice())
        .unwrap_or_default();
    let kept = kept.iter().filter(|kept| {
        !heard
            .iter()
            .any(|heard| heard.fingerprint == kept.fingerprint)
    });
    let counts = |alert: &&ActingAlert| {
        alert.starts_at >= node.created_at
            && world.at < alert.expires_at
            && !is_resolved(world, alert)
    };
    let mut alerts: Vec<ActingAlert> = heard.iter().chain(kept).filter(counts).cloned().collect();
    alerts.sort_by(|a, b| {
        b.floor
            .cmp(&a.floor)
            .then_with(|| (&a.name, &a.fingerprint).cmp(&(&b.name, &b.fingerprint)))
    });
    alerts.dedup_by(|a, b| a.fingerprint == b.fingerprint);
    alerts.truncate(NodeRecord::ALERTS_MAX);
    alerts
}

fn is_resolved(world: &World, alert: &ActingAlert) -> bool {
    // The end of an earlier firing is not the end of this one.
    world
        .resolved
        .get(&alert.fingerprint)
        .is_some_and(|starts_at: &Timestamp| alert.starts_at <= *starts_at)
}
