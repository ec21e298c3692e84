//! The alerts that fire.

use serde::Serialize;
use utoipa::ToSchema;

use crate::alertmanager::ShownAlert;
use crate::snapshot::Snapshot;
use crate::web::words::{ReachWord, Time};

/// An alert that fires, whether or not it acts.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = FiringAlert)]
struct FiringAlertJson {
    /// `alertname`.
    name: String,
    /// Alertmanager's fingerprint.
    fingerprint: String,
    /// Label `severity`.
    severity: String,
    /// What it says.
    summary: String,
    /// The Node it means, where it means one.
    node: Option<String>,
    /// The label that names the Node, or fails to, as `label=value`.
    clue: Option<String>,
    /// Where it stands: it acts, is only shown, or why it does not act.
    outcome: &'static str,
    /// The Node's risk is at least this; `null` where no rule is about the alert.
    floor: Option<f64>,
    /// The furthest that it may cause.
    reach: Option<ReachWord>,
    /// Since when it fires.
    starts_at: Time,
    /// When it is forgotten unless it is refreshed.
    expires_at: Time,
}

impl FiringAlertJson {
    fn new(alert: &ShownAlert) -> Self {
        Self {
            name: alert.name.clone(),
            fingerprint: alert.fingerprint.clone(),
            severity: alert.severity.clone(),
            summary: alert.summary.clone(),
            node: alert.node.as_ref().map(|node| node.as_str().to_owned()),
            clue: alert
                .clue
                .as_ref()
                .map(|clue| format!("{}={}", clue.label, clue.value)),
            outcome: alert.outcome.as_str(),
            floor: alert.rule.map(|(floor, _)| floor.as_f64()),
            reach: alert.rule.map(|(_, reach)| ReachWord(reach)),
            starts_at: Time(alert.starts_at),
            expires_at: Time(alert.expires_at),
        }
    }
}

/// Every alert that fires.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FiringAlerts)]
pub(in crate::web) struct FiringAlertsJson {
    /// The time of the decision that is shown.
    at: Time,
    /// The alerts.
    alerts: Vec<FiringAlertJson>,
}

impl FiringAlertsJson {
    pub(in crate::web) fn new(snapshot: &Snapshot) -> Self {
        Self {
            at: Time(snapshot.at),
            alerts: snapshot.alerts.iter().map(FiringAlertJson::new).collect(),
        }
    }
}
