//! What is said about each Node, whatever is done.

use std::fmt;

use jiff::Timestamp;

use super::policy::Reach;
use crate::node::NodeId;
use crate::record::ActingAlert;
use crate::risk::{Band, Risk};

/// Where a Node is in its lifecycle: what is true, never what would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Nothing to say.
    Healthy,
    /// At risk, without our taint.
    Suspect,
    /// Our taint is there.
    Tainted,
    /// Its Pods are being moved.
    Draining,
    /// Every Pod that would be evicted is gone.
    Drained,
    /// Our taint is there, the Node looks well, and time is running until it is given back.
    Recovering,
}

impl Phase {
    /// Every phase, in the order of the contracts.
    pub const ALL: [Self; 6] = [
        Self::Healthy,
        Self::Suspect,
        Self::Tainted,
        Self::Draining,
        Self::Drained,
        Self::Recovering,
    ];

    /// The name in the API and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Suspect => "suspect",
            Self::Tainted => "tainted",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Recovering => "recovering",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why nothing, or nothing more, is done to a Node. The order is that of precedence: the first that
/// applies is the primary one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HoldReason {
    /// Somebody has paused foreshock.
    Paused,
    /// A person excluded the Node.
    Excluded,
    /// A person asked to wait.
    HoldUntil,
    /// Somebody else's mark, cordon, record or deletion.
    ForeignMark,
    /// A person removed our taint.
    Veto,
    /// Control-plane Nodes are left alone.
    ControlPlane,
    /// The Node is too young.
    NewNode,
    /// It fell silent after our taint.
    BlindedByTaint,
    /// Its risk is unknown.
    Unknown,
    /// Too many Nodes turned at risk at once.
    Storm,
    /// The configured reach, of the policy or of the alert, ends here.
    Reach,
    /// The model has not earned more than a label.
    Untrained,
    /// The inputs have drifted from what the model knows.
    Drift,
    /// It comes back too often.
    RepeatOffender,
    /// At risk, but not for long enough yet.
    Unconfirmed,
    /// Tainted, but not for long enough yet.
    DrainAfter,
    /// Outside every maintenance window.
    Window,
    /// No other Node is left for the work.
    LastNode,
    /// Enough Nodes are tainted.
    TaintedMax,
    /// Enough Nodes are being drained.
    DrainingMax,
    /// Enough drains were started within the hour.
    DrainsPerHour,
    /// The other Nodes have no room.
    NoRoom,
    /// A Node with Pods under the same budget goes first.
    SharedBudget,
    /// Something that has to be known before is not known yet.
    FactsUnknown,
    /// The drain ended without success.
    DrainFailed,
    /// A write to the Node failed.
    WriteFailed,
    /// Everything is done, and the Node is still at risk.
    Drained,
    /// It looks well; time is running until it is given back.
    Recovering,
}

impl HoldReason {
    /// Every reason, in the order of precedence.
    pub const ALL: [Self; 28] = [
        Self::Paused,
        Self::Excluded,
        Self::HoldUntil,
        Self::ForeignMark,
        Self::Veto,
        Self::ControlPlane,
        Self::NewNode,
        Self::BlindedByTaint,
        Self::Unknown,
        Self::Storm,
        Self::Reach,
        Self::Untrained,
        Self::Drift,
        Self::RepeatOffender,
        Self::Unconfirmed,
        Self::DrainAfter,
        Self::Window,
        Self::LastNode,
        Self::TaintedMax,
        Self::DrainingMax,
        Self::DrainsPerHour,
        Self::NoRoom,
        Self::SharedBudget,
        Self::FactsUnknown,
        Self::DrainFailed,
        Self::WriteFailed,
        Self::Drained,
        Self::Recovering,
    ];

    /// The name in the API and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Excluded => "excluded",
            Self::HoldUntil => "hold_until",
            Self::ForeignMark => "foreign_mark",
            Self::Veto => "veto",
            Self::ControlPlane => "control_plane",
            Self::NewNode => "new_node",
            Self::BlindedByTaint => "blinded_by_taint",
            Self::Unknown => "unknown",
            Self::Storm => "storm",
            Self::Reach => "reach",
            Self::Untrained => "untrained",
            Self::Drift => "drift",
            Self::RepeatOffender => "repeat_offender",
            Self::Unconfirmed => "unconfirmed",
            Self::DrainAfter => "drain_after",
            Self::Window => "window",
            Self::LastNode => "last_node",
            Self::TaintedMax => "tainted_max",
            Self::DrainingMax => "draining_max",
            Self::DrainsPerHour => "drains_per_hour",
            Self::NoRoom => "no_room",
            Self::SharedBudget => "shared_budget",
            Self::FactsUnknown => "facts_unknown",
            Self::DrainFailed => "drain_failed",
            Self::WriteFailed => "write_failed",
            Self::Drained => "drained",
            Self::Recovering => "recovering",
        }
    }

    /// What would lift it, in words for an operator: who has to do what, or what has to come true.
    pub fn lift(self) -> &'static str {
        match self {
            Self::Paused => {
                "`foreshock resume`, the button on the page, or foreshock.dev/paused taken off the Lease"
            }
            Self::Excluded => "a person takes the annotation foreshock.dev/exclude off the Node",
            Self::HoldUntil => {
                "the time in foreshock.dev/hold-until passes, or a person corrects or removes the annotation"
            }
            Self::ForeignMark => "whoever made the mark takes it away; foreshock never does",
            Self::Veto => {
                "time (policy.veto_for), or a person takes foreshock.dev/state off the Node"
            }
            Self::ControlPlane => {
                "policy.control_plane = \"include\", and then no other control-plane Node that is marked"
            }
            Self::NewNode => "time alone (policy.new_node_age)",
            Self::BlindedByTaint => {
                "a toleration for the taint on the exporter's DaemonSet, or a person removes the taint"
            }
            Self::Unknown => {
                "fresh features: is the Node scraped, and is the Prometheus that is asked up to date?"
            }
            Self::Storm => {
                "few enough Nodes at risk for a whole policy.limits.storm_window; then Nodes are begun on one, two, four at a time, each width when the one before has come to a good end"
            }
            Self::Reach => {
                "a further policy.reach, of the policy or of the Node's pool, or a further reach of the alert's rule"
            }
            Self::Untrained => {
                "what keeps the model from acting put right (its card names it, and the remedy), or model.act_untrained = true"
            }
            Self::Drift => {
                "inputs that are back within what the model was trained on, or a model trained on them"
            }
            Self::RepeatOffender => {
                "a person repairs the Node; else it is forgotten after policy.repeat_window"
            }
            Self::Unconfirmed => "at risk for the whole of policy.confirm_for",
            Self::DrainAfter => "tainted and at risk for the whole of policy.drain_after",
            Self::Window => "the next maintenance window opens (policy.windows)",
            Self::LastNode => {
                "another Node that is ready, schedulable, without our taint and not at risk"
            }
            Self::TaintedMax => "a tainted Node is given back, or a higher tainted_max",
            Self::DrainingMax => "a running drain ends, or a higher draining_max",
            Self::DrainsPerHour => {
                "the first drain of the last hour is an hour old, or a higher drains_per_hour"
            }
            Self::NoRoom => "room on other Nodes for the Pods that are named",
            Self::SharedBudget => "the drain of the Node that goes first ends",
            Self::FactsUnknown => "what has to be known is read; it is asked for again by itself",
            Self::DrainFailed => {
                "a person removes what stands in the way; it is tried again by itself a few times"
            }
            Self::WriteFailed => "the write succeeds; it is tried again by itself",
            Self::Drained => {
                "the Node reads well for the whole of policy.recover_for: a person repairs or replaces it"
            }
            Self::Recovering => {
                "fresh features below policy.recover_below for the whole of policy.recover_for"
            }
        }
    }
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why nothing, or nothing more, is done, with what would lift it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hold {
    /// The reason.
    pub reason: HoldReason,
    /// In words for an operator.
    pub detail: String,
    /// When time alone lifts it.
    pub until: Option<Timestamp>,
}

/// What is said about one Node.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The Node.
    pub node: NodeId,
    /// The model's word alone.
    pub model_risk: Option<Risk>,
    /// The larger of the model's word and the alerts' floors; `None` is unknown.
    pub risk: Option<Risk>,
    /// How the risk reads.
    pub band: Band,
    /// Where the Node is.
    pub phase: Phase,
    /// Since when it is there, as far as is known.
    pub since: Timestamp,
    /// How far the evidence and the policy together would let foreshock go.
    pub reach: Reach,
    /// Every hold, primary first; empty when nothing is held back.
    pub holds: Vec<Hold>,
    /// Alerts that count, strongest first.
    pub alerts: Vec<ActingAlert>,
    /// Why, in words, strongest first.
    pub reasons: Vec<String>,
}

impl Verdict {
    /// The hold that an operator is shown first.
    pub fn hold(&self) -> Option<&Hold> {
        self.holds.first()
    }
}
