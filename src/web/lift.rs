//! What would lift a hold, in the operator's words. When time alone does, the hold's `until` says when.

use foreshock_core::decision::verdict::HoldReason;

/// What would lift a hold of this reason.
pub(super) fn lifted_by(reason: HoldReason) -> &'static str {
    match reason {
        HoldReason::Paused => {
            "resume: `foreshock resume`, POST /api/monitoring/start, or the annotation \
             foreshock.dev/paused taken off the Lease"
        }
        HoldReason::Excluded => "taking the annotation foreshock.dev/exclude off the Node",
        HoldReason::HoldUntil => {
            "the time of the annotation foreshock.dev/hold-until, or taking it off the Node"
        }
        HoldReason::ForeignMark => {
            "whoever set the taint, cordon, label or record, or is taking the Node away: it is theirs"
        }
        HoldReason::Veto => {
            "time (policy.veto_for), or taking the annotation foreshock.dev/state off the Node"
        }
        HoldReason::ControlPlane => "policy.control_plane = \"include\"",
        HoldReason::NewNode => "time (policy.new_node_age)",
        HoldReason::BlindedByTaint => {
            "fresh telemetry: give the exporter's DaemonSet a toleration for the taint, or remove the \
             taint"
        }
        HoldReason::Unknown => {
            "fresh telemetry: is the Node scraped, and is the Prometheus that is asked up to date?"
        }
        HoldReason::Storm => {
            "calm: few enough Nodes newly at risk for the whole of policy.limits.storm_window; look at \
             what they have in common"
        }
        HoldReason::Reach => {
            "a further policy.reach, or a further reach of the alert's rule, where that is what ends it"
        }
        HoldReason::Untrained => {
            "a model that was validated on your own history, model.act_untrained = true, or an alert \
             whose rule reaches further"
        }
        HoldReason::Drift => "inputs within the range of the training, or a model trained anew",
        HoldReason::RepeatOffender => "a person who mends the Node, or time (policy.repeat_window)",
        HoldReason::Unconfirmed => "time, while it stays at risk (policy.confirm_for)",
        HoldReason::DrainAfter => "time, while it stays at risk (policy.drain_after)",
        HoldReason::Window => "the next maintenance window (policy.windows)",
        HoldReason::LastNode => "another Node that is Ready, schedulable and not at risk",
        HoldReason::TaintedMax => {
            "a Node that is given back, or a larger policy.limits.tainted_max"
        }
        HoldReason::DrainingMax => "a drain that ends, or a larger policy.limits.draining_max",
        HoldReason::DrainsPerHour => "time, or a larger policy.limits.drains_per_hour",
        HoldReason::NoRoom => "room on other Nodes for the Pods that are named",
        HoldReason::SharedBudget => {
            "the end of the other Node's drain, whose Pods are under the same PodDisruptionBudget"
        }
        HoldReason::FactsUnknown => {
            "an answer of the API server: it is asked again by itself; /api/health says what is wrong"
        }
        HoldReason::DrainFailed => {
            "a person who removes what stands in the way, then the taint; or the Node's recovery"
        }
        HoldReason::WriteFailed => "a write that succeeds: it is tried again by itself",
        HoldReason::Drained => "the Node's recovery: everything else is done; a person should look",
        HoldReason::Recovering => "time, while it looks well (policy.recover_for)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hold_says_what_would_lift_it_and_names_keys_that_there_are() {
        let sample = include_str!("../../config/foreshock.toml");
        for reason in HoldReason::ALL {
            let words = lifted_by(reason);
            assert!(!words.is_empty() && words.len() < 200, "{reason}: {words}");
            let keys = words
                .split(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_')
                .filter(|word| word.starts_with("policy.") || word.starts_with("model."));
            for key in keys {
                let last = key.rsplit('.').next().unwrap_or_default();
                let known = sample
                    .lines()
                    .any(|line| line.trim_start_matches("# ").split(" =").next() == Some(last));
                assert!(known, "{reason}: {key}");
            }
        }
    }
}
