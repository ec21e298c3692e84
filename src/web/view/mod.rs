//! The answers of the API: the shapes that scripts rely on.
//!
//! Fields may be added here, never renamed. Numbers are rounded to what they can mean, so that an
//! answer is no longer than it says.

mod alerts;
mod detail;
mod drains;
mod events;
mod health;
mod model;
mod nodes;
mod stats;

use serde::Serialize;
use utoipa::ToSchema;

pub(super) use self::alerts::FiringAlertsJson;
pub(super) use self::detail::{HistoryJson, NodeDetailJson, RiskHistoryJson, RiskPointJson};
pub(super) use self::events::{EventJson, EventsJson};
pub(super) use self::health::HealthJson;
pub(super) use self::model::{ModelCardJson, PredictionsJson};
pub(super) use self::nodes::{NodeJson, NodesJson, matches_text, signature};
pub(super) use self::stats::StatsJson;

/// How the switch stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Switch)]
pub(super) struct SwitchJson {
    /// Nothing is written.
    pub(super) paused: bool,
    /// Whether it survives the end of this process.
    pub(super) lasting: bool,
    /// What that means.
    pub(super) message: &'static str,
}

/// What became of a webhook's payload.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookTaken)]
pub(super) struct WebhookJson {
    /// Alerts in it. Taken is not believed: `/api/stats` counts what became of them.
    pub(super) alerts: usize,
}

/// Rounded to so many decimals.
pub(super) fn decimals(value: f64, count: i32) -> f64 {
    let scale = 10_f64.powi(count);
    (value * scale).round() / scale
}

/// Rounded to six significant digits: more than any sensor has.
fn significant(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the exponent of a float is small"
    )]
    let exponent = value.abs().log10().floor() as i32;
    let places = 5 - exponent;
    if places > 300 {
        return value;
    }
    if places >= 0 {
        decimals(value, places)
    } else {
        let step = 10_f64.powi(-places);
        (value / step).round() * step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_what_they_can_mean() {
        for (value, shown) in [
            (0.0, 0.0),
            (0.084_123_456_789, 0.084_123_5),
            (123_456_789.0, 123_457_000.0),
            (-2.000_000_04, -2.0),
            (1e-310, 1e-310),
            (0.999_999_99, 1.0),
        ] {
            assert_eq!(significant(value), shown, "{value}");
        }
    }
}
