//! Which Pods are evicted.

use super::{Choice, DrainRules, EvictionAllowance, PodFacts};

/// What becomes of one Pod in a drain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It is evicted.
    Evict,
    /// It does not have to go for the Node to be drained.
    Skip(SkipReason),
    /// It stays, because the rules or its owner say so; it is reported.
    Leave(LeaveReason),
    /// It should go, and cannot.
    Impossible(ImpossibleReason),
}

impl Disposition {
    /// The name in the API.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Evict => "evict",
            Self::Skip(_) => "skip",
            Self::Leave(_) => "leave",
            Self::Impossible(_) => "impossible",
        }
    }

    /// Why, in words for an operator.
    pub fn reason(&self) -> String {
        match self {
            Self::Evict => String::new(),
            Self::Skip(reason) => reason.as_str().to_owned(),
            Self::Leave(reason) => reason.to_string(),
            Self::Impossible(reason) => reason.to_string(),
        }
    }
}

/// Why a Pod does not have to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SkipReason {
    /// The kubelet runs it from a file; the API server cannot remove it.
    Mirror,
    /// Its DaemonSet would put it back.
    DaemonSet,
    /// It has finished.
    Finished,
    /// It is foreshock itself.
    Own,
}

impl SkipReason {
    /// In words for an operator.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mirror => "mirror pod of a static pod",
            Self::DaemonSet => "managed by a DaemonSet",
            Self::Finished => "finished",
            Self::Own => "foreshock itself",
        }
    }
}

/// Why a Pod is left.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum LeaveReason {
    /// In `kube-system`.
    #[error("in kube-system (eviction.kube_system)")]
    KubeSystem,
    /// Without a controller, nobody would start it again.
    #[error("no controller would start it again (eviction.unmanaged)")]
    Unmanaged,
    /// Its emptyDir would be lost.
    #[error("its emptyDir would be lost (eviction.empty_dir)")]
    EmptyDir,
    /// Its volumes do not move.
    #[error("its local volumes do not move (eviction.local_volumes)")]
    LocalVolumes,
    /// It uses devices, whose state does not move.
    #[error("it uses {0} (eviction.devices)")]
    Devices(String),
    /// It asked to be left alone.
    #[error("it asks to be left alone by {0} (eviction.opted_out)")]
    OptedOut(String),
    /// Its DaemonSet is gone.
    #[error("its DaemonSet is gone (eviction.orphaned_daemon_set)")]
    OrphanedDaemonSet,
    /// It would come straight back.
    #[error("it tolerates our taint and could come straight back")]
    Tolerates,
}

/// Why a Pod cannot go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum ImpossibleReason {
    /// Its budget can never allow it.
    #[error("PodDisruptionBudget {budget} can never allow it ({detail})")]
    NeverAllowed {
        /// The budget's name.
        budget: String,
        /// In the words of its status.
        detail: String,
    },
    /// More than one budget covers it, which the Eviction API refuses.
    #[error("more than one PodDisruptionBudget covers it: {}", .0.join(", "))]
    OverlappingPdbs(Vec<String>),
}

/// Decides what becomes of a Pod.
///
/// Never evicted, whatever the rules say: mirror Pods, Pods of a DaemonSet, finished Pods and
/// foreshock itself. What asks for a choice of the operator follows the rules.
pub fn classify(pod: &PodFacts, rules: &DrainRules) -> Disposition {
    if pod.mirror {
        return Disposition::Skip(SkipReason::Mirror);
    }
    if pod.own {
        return Disposition::Skip(SkipReason::Own);
    }
    if pod.finished {
        return Disposition::Skip(SkipReason::Finished);
    }
    // Decided by the controller reference and its API group: a foreign kind may carry the same name.
    let daemon_set = pod
        .owner
        .as_ref()
        .is_some_and(|owner| owner.kind == "DaemonSet" && owner.group == "apps");
    if daemon_set && !pod.daemon_set_gone {
        return Disposition::Skip(SkipReason::DaemonSet);
    }
    if daemon_set && rules.orphaned_daemon_set == Choice::Leave {
        return Disposition::Leave(LeaveReason::OrphanedDaemonSet);
    }
    // A Pod that is already on its way is followed until it is gone; nothing is asked of it.
    if pod.terminating_until.is_some() {
        return Disposition::Evict;
    }
    if pod.id.namespace == "kube-system" && rules.kube_system == Choice::Leave {
        return Disposition::Leave(LeaveReason::KubeSystem);
    }
    if let Some(by) = &pod.opted_out
        && rules.opted_out == Choice::Leave
    {
        return Disposition::Leave(LeaveReason::OptedOut(by.clone()));
    }
    if pod.owner.is_none() && rules.unmanaged == Choice::Leave {
        return Disposition::Leave(LeaveReason::Unmanaged);
    }
    if pod.empty_dir && rules.empty_dir == Choice::Leave {
        return Disposition::Leave(LeaveReason::EmptyDir);
    }
    if pod.local_volumes && rules.local_volumes == Choice::Leave {
        return Disposition::Leave(LeaveReason::LocalVolumes);
    }
    if !pod.devices.is_empty() && rules.devices == Choice::Leave {
        return Disposition::Leave(LeaveReason::Devices(pod.devices.join(", ")));
    }
    if pod.tolerates_taint {
        return Disposition::Leave(LeaveReason::Tolerates);
    }
    if pod.budgets.len() > 1 {
        let names = pod
            .budgets
            .iter()
            .map(|budget| budget.name.clone())
            .collect();
        return Disposition::Impossible(ImpossibleReason::OverlappingPdbs(names));
    }
    if let Some(budget) = pod.budgets.first()
        && budget.observed
        && budget.allowance == EvictionAllowance::Never
    {
        return Disposition::Impossible(ImpossibleReason::NeverAllowed {
            budget: budget.name.clone(),
            detail: budget.detail.clone(),
        });
    }
    Disposition::Evict
}
