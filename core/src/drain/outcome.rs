//! What came of it.

use std::fmt;

/// What came of one Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PodOutcome {
    /// Evicted by us and gone.
    Evicted,
    /// Gone without an accepted eviction of ours.
    Gone,
    /// Its budget did not allow it in time.
    BlockedByBudget,
    /// Its budget can never allow it.
    NeverAllowed,
    /// More than one budget covers it.
    OverlappingPdbs,
    /// It was told to go and did not.
    StuckTerminating,
    /// It is gone, and its volumes are still attached to the Node.
    Volumes,
    /// Its Node does not answer, so it cannot finish.
    Unreachable,
    /// An admission webhook or policy refused.
    WebhookDenied,
    /// Our credentials do not allow it.
    Forbidden,
    /// Its replacement did not become Ready in time.
    ReplacementNotReady,
    /// The drain was cancelled before its turn.
    Cancelled,
    /// Another Pod has its name now.
    Superseded,
    /// The time for the Node ran out.
    Deadline,
}

impl PodOutcome {
    /// Every outcome, in the order of the contracts.
    pub const ALL: [Self; 14] = [
        Self::Evicted,
        Self::Gone,
        Self::BlockedByBudget,
        Self::NeverAllowed,
        Self::OverlappingPdbs,
        Self::StuckTerminating,
        Self::Volumes,
        Self::Unreachable,
        Self::WebhookDenied,
        Self::Forbidden,
        Self::ReplacementNotReady,
        Self::Cancelled,
        Self::Superseded,
        Self::Deadline,
    ];

    /// The name in the API, in metrics and in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Gone => "gone",
            Self::BlockedByBudget => "blocked_by_budget",
            Self::NeverAllowed => "never_allowed",
            Self::OverlappingPdbs => "overlapping_pdbs",
            Self::StuckTerminating => "stuck_terminating",
            Self::Volumes => "volumes",
            Self::Unreachable => "unreachable",
            Self::WebhookDenied => "webhook_denied",
            Self::Forbidden => "forbidden",
            Self::ReplacementNotReady => "replacement_not_ready",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
            Self::Deadline => "deadline",
        }
    }
}

impl fmt::Display for PodOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What came of a Node's drain: complete, or the worst of what its Pods met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeOutcome {
    /// Every Pod that would be evicted is gone.
    Drained,
    /// It ended for this reason; the Node is not drained.
    Ended(PodOutcome),
}

impl NodeOutcome {
    /// The name in the API, in metrics and in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drained => "drained",
            Self::Ended(outcome) => outcome.as_str(),
        }
    }

    /// The outcome of this name.
    pub fn parse(name: &str) -> Option<Self> {
        if name == Self::Drained.as_str() {
            return Some(Self::Drained);
        }
        PodOutcome::ALL
            .into_iter()
            .find(|outcome| outcome.as_str() == name)
            .map(Self::Ended)
    }
}

impl fmt::Display for NodeOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
