//! Risk as a probability, and the bands that an operator reads it in.

use std::fmt;

/// Probability that a Node degrades within the model's horizon, in `0.0..=1.0`.
///
/// Cannot be NaN, so nothing downstream asks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Risk(f64);

/// A number that is no probability.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{0} is not a probability between 0 and 1")]
pub struct NotAProbability(pub f64);

impl Risk {
    /// No risk at all.
    pub const ZERO: Self = Self(0.0);

    /// Takes a probability.
    ///
    /// # Errors
    ///
    /// [`NotAProbability`] for NaN and for numbers outside `0.0..=1.0`.
    pub fn new(probability: f64) -> Result<Self, NotAProbability> {
        if (0.0..=1.0).contains(&probability) {
            Ok(Self(probability))
        } else {
            Err(NotAProbability(probability))
        }
    }

    /// The probability, in `0.0..=1.0`.
    pub fn as_f64(self) -> f64 {
        self.0
    }

    /// The larger of two risks.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self(self.0.max(other.0))
    }
}

impl Eq for Risk {}

impl PartialOrd for Risk {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Risk {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl fmt::Display for Risk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}", self.0)
    }
}

/// How a Node's risk reads against the thresholds of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Band {
    /// Below `policy.caution`.
    Healthy,
    /// From `policy.caution` to `policy.at_risk`.
    Caution,
    /// Above `policy.at_risk`.
    AtRisk,
    /// No risk can be told: neither healthy nor at risk.
    Unknown,
}

impl Band {
    /// Every band, in the order of the contracts.
    pub const ALL: [Self; 4] = [Self::Healthy, Self::Caution, Self::AtRisk, Self::Unknown];

    /// The name in the API and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Caution => "caution",
            Self::AtRisk => "at_risk",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Band {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
