//! The list of Nodes: one line of each, and what changes it.

use foreshock_core::decision::verdict::Hold;
use foreshock_core::node::NodeName;
use foreshock_core::record::ActingAlert;
use serde::Serialize;
use utoipa::ToSchema;

use super::drains::DrainJson;
use super::{decimals, significant};
use crate::snapshot::{Contribution, NodeView};
use crate::web::words::{BandWord, HoldWord, PhaseWord, ReachWord, Time, UnitWord};

/// How many contributions the list of Nodes shows of each.
const TOP: usize = 5;

/// One Node.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Node)]
pub(in crate::web) struct NodeJson {
    /// Its name.
    node: String,
    /// The larger of the model's word and the floors of its active alerts, a probability; `null` is
    /// unknown, which is neither healthy nor at risk.
    risk: Option<f64>,
    /// The model's word alone.
    model_risk: Option<f64>,
    /// Name of the model whose word that is.
    model: Option<String>,
    /// The rule score, a yardstick beside the model that never acts; `null` where no rule finds a value.
    rule_score: Option<f64>,
    /// How the risk reads.
    band: BandWord,
    /// Where the Node is: what is true, never what would be.
    phase: PhaseWord,
    /// Since when it is there.
    since: Time,
    /// How far evidence and policy together would let foreshock go.
    reach: ReachWord,
    /// Why nothing, or nothing more, is done: the primary reason.
    hold: Option<HoldJson>,
    /// All reasons, the primary one first.
    holds: Vec<HoldJson>,
    /// Alerts that count, strongest first.
    alerts: Vec<AlertJson>,
    /// Share of the required features that are missing.
    missing: f64,
    /// What drives the model's word most.
    top: Vec<ContributionJson>,
    /// Why, in words, strongest first.
    reasons: Vec<String>,
    /// Its zone.
    zone: Option<String>,
    /// The pool of the policy that it falls into.
    pool: Option<String>,
    /// How its running or last drain under the present taint stands.
    drain: Option<DrainJson>,
}

impl NodeJson {
    pub(in crate::web) fn new(node: &NodeView) -> Self {
        let verdict = &node.verdict;
        let holds: Vec<HoldJson> = verdict.holds.iter().map(HoldJson::new).collect();
        Self {
            node: node.name().as_str().to_owned(),
            risk: verdict.risk.map(|risk| decimals(risk.as_f64(), 4)),
            model_risk: verdict.model_risk.map(|risk| decimals(risk.as_f64(), 4)),
            model: node.model.as_deref().map(str::to_owned),
            rule_score: node.rule.map(|rule| decimals(rule.as_f64(), 4)),
            band: BandWord(verdict.band),
            phase: PhaseWord(verdict.phase),
            since: Time(verdict.since),
            reach: ReachWord(verdict.reach),
            hold: holds.first().cloned(),
            holds,
            alerts: verdict.alerts.iter().map(AlertJson::new).collect(),
            missing: decimals(node.missing, 4),
            top: node
                .contributions
                .iter()
                .take(TOP)
                .map(ContributionJson::new)
                .collect(),
            reasons: verdict.reasons.clone(),
            zone: node.zone().map(str::to_owned),
            pool: node.pool.clone(),
            drain: node.drain.as_ref().map(DrainJson::new),
        }
    }
}

/// Why nothing, or nothing more, is done.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Hold)]
struct HoldJson {
    /// The reason.
    reason: HoldWord,
    /// In words.
    detail: String,
    /// What would lift it: who has to do what, or what has to come true.
    lift: &'static str,
    /// When time alone lifts it.
    until: Option<Time>,
}

impl HoldJson {
    fn new(hold: &Hold) -> Self {
        Self {
            reason: HoldWord(hold.reason),
            detail: hold.detail.clone(),
            lift: hold.reason.lift(),
            until: hold.until.map(Time),
        }
    }
}

/// An alert that counts.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Alert)]
struct AlertJson {
    /// `alertname`.
    name: String,
    /// Alertmanager's fingerprint.
    fingerprint: String,
    /// Since when it fires.
    starts_at: Time,
    /// The Node's risk is at least this while it is active.
    floor: f64,
    /// The furthest that it may cause.
    reach: ReachWord,
    /// When it stops counting unless it is refreshed.
    expires_at: Time,
}

impl AlertJson {
    fn new(alert: &ActingAlert) -> Self {
        Self {
            name: alert.name.clone(),
            fingerprint: alert.fingerprint.clone(),
            starts_at: Time(alert.starts_at),
            floor: alert.floor.as_f64(),
            reach: ReachWord(alert.reach),
            expires_at: Time(alert.expires_at),
        }
    }
}

/// What one metric adds to a score.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Contribution)]
pub(super) struct ContributionJson {
    /// The feature.
    feature: String,
    /// Its value, in `unit`; `null` is missing.
    value: Option<f64>,
    /// What it usually is, in `unit`; `null` where nobody can tell.
    usual: Option<f64>,
    /// In log-odds; above zero it raises the risk.
    contribution: f64,
    /// Unit of `value` and `usual`.
    unit: UnitWord,
}

impl ContributionJson {
    pub(super) fn new(contribution: &Contribution) -> Self {
        Self {
            feature: contribution.feature.as_str().to_owned(),
            value: contribution.value.map(significant),
            usual: contribution.usual.map(significant),
            contribution: decimals(contribution.contribution, 4),
            unit: UnitWord(contribution.unit),
        }
    }
}

/// The Nodes. Written piece by piece from the cache; this says what it looks like.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Nodes)]
pub(in crate::web) struct NodesJson {
    /// The time of the decision that is shown.
    at: Time,
    /// The Nodes, by name.
    nodes: Vec<NodeJson>,
    /// `cursor` for the next part; `null` when there is none.
    next: Option<String>,
}

/// What changes what a person would see of a Node. A healthy Node's numbers jitter all the time
/// without saying anything, so they do not count; risk counts in hundredths.
pub(in crate::web) fn signature(node: &NodeView) -> u64 {
    use std::hash::{Hash, Hasher};
    let mut hash = std::hash::DefaultHasher::new();
    let verdict = &node.verdict;
    #[expect(clippy::cast_possible_truncation, reason = "a probability times 100")]
    let hundredths = |risk: f64| (risk * 100.0).round() as i64;
    (
        &verdict.node.uid,
        verdict.risk.map(|risk| hundredths(risk.as_f64())),
        verdict.model_risk.map(|risk| hundredths(risk.as_f64())),
        verdict.band,
        verdict.phase,
        verdict.since,
        verdict.reach,
        hundredths(node.missing),
    )
        .hash(&mut hash);
    for hold in &verdict.holds {
        (hold.reason, &hold.detail, hold.until).hash(&mut hash);
    }
    for alert in &verdict.alerts {
        (&alert.fingerprint, alert.starts_at, alert.expires_at).hash(&mut hash);
    }
    if let Some(drain) = &node.drain {
        (drain.started_at, drain.remaining, drain.gone).hash(&mut hash);
        (drain.ended, &drain.detail).hash(&mut hash);
    }
    // That there is more to be read of it in detail.
    node.moved.as_ref().map(|moved| moved.at).hash(&mut hash);
    node.differs
        .as_ref()
        .map(|differs| differs.at)
        .hash(&mut hash);
    node.volumes
        .as_ref()
        .map(|volumes| volumes.at)
        .hash(&mut hash);
    (&node.pool, node.zone()).hash(&mut hash);
    if verdict.band != foreshock_core::risk::Band::Healthy {
        for top in node.contributions.iter().take(TOP) {
            (&top.feature, hundredths(top.contribution)).hash(&mut hash);
            top.value
                .map(|value| significant(value).to_bits())
                .hash(&mut hash);
        }
    }
    hash.finish()
}

/// Whether a Node answers to a text typed by a person: in its name, zone, pool, reasons or alerts.
pub(in crate::web) fn matches_text(node: &NodeView, needle: &str) -> bool {
    let within = |text: &str| text.to_lowercase().contains(needle);
    let name: &NodeName = node.name();
    within(name.as_str())
        || node.zone().is_some_and(within)
        || node.pool.as_deref().is_some_and(within)
        || node.verdict.reasons.iter().any(|reason| within(reason))
        || node.verdict.alerts.iter().any(|alert| within(&alert.name))
}
