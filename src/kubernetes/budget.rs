//! PodDisruptionBudgets: which Pods they cover, and what they let through.

use std::collections::BTreeMap;

use foreshock_core::drain::{Budget, EvictionAllowance};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::pod::SeenPod;
use super::text::clean;

/// A budget as the watch shows it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SeenBudget {
    pub(super) namespace: String,
    pub(super) name: String,
    selector: Selector,
    observed: bool,
    unsettled: bool,
    allowed: u32,
    current: i32,
    desired: i32,
    expected: i32,
    always_allows_unhealthy: bool,
    /// Why the controller could not work it out, if it could not.
    sync_failure: Option<String>,
}

impl SeenBudget {
    pub(super) fn from(pdb: &PodDisruptionBudget) -> Option<Self> {
        let spec = pdb.spec.as_ref();
        let status = pdb.status.as_ref();
        let failed = status
            .and_then(|status| status.conditions.as_deref())
            .unwrap_or_default()
            .iter()
            .find(|condition| condition.reason == "SyncFailed" && condition.status == "False");
        Some(Self {
            namespace: pdb.metadata.namespace.clone()?,
            name: pdb.metadata.name.clone()?,
            selector: Selector::from(spec.and_then(|spec| spec.selector.as_ref())),
            observed: status.is_some_and(|status| {
                status.observed_generation.unwrap_or(0) >= pdb.metadata.generation.unwrap_or(0)
            }),
            unsettled: status
                .and_then(|status| status.disrupted_pods.as_ref())
                .is_some_and(|pods| !pods.is_empty()),
            allowed: status.map_or(0, |status| {
                u32::try_from(status.disruptions_allowed).unwrap_or(0)
            }),
            current: status.map_or(0, |status| status.current_healthy),
            desired: status.map_or(0, |status| status.desired_healthy),
            expected: status.map_or(0, |status| status.expected_pods),
            always_allows_unhealthy: spec
                .and_then(|spec| spec.unhealthy_pod_eviction_policy.as_deref())
                == Some("AlwaysAllow"),
            sync_failure: failed.map(|condition| clean(&condition.message, 200)),
        })
    }

    pub(super) fn covers(&self, pod: &SeenPod) -> bool {
        self.namespace == pod.facts.id.namespace && self.selector.matches(&pod.labels)
    }

    /// What it lets through for this Pod. Follows `pkg/registry/core/pod/storage/eviction.go`.
    pub(super) fn towards(&self, pod: &SeenPod) -> Budget {
        let detail = format!(
            "{} of {} healthy, {} wanted",
            self.current, self.expected, self.desired
        );
        let budget = |allowance: EvictionAllowance, more: &str| Budget {
            name: self.name.clone(),
            allowance,
            observed: self.observed,
            unsettled: self.unsettled,
            detail: format!("{detail}{more}"),
        };
        let now = EvictionAllowance::Now;
        if let Some(failure) = &self.sync_failure {
            return budget(
                now(0),
                &format!("; its status could not be worked out: {failure}"),
            );
        }
        if !pod.facts.ready {
            // A Pod that is not Ready is let go by its own rule, without spending a disruption.
            if self.always_allows_unhealthy {
                return budget(
                    now(self.allowed.max(1)),
                    "; the Pod is not Ready, and unhealthyPodEvictionPolicy AlwaysAllow lets it go",
                );
            }
            if self.current >= self.desired && self.desired > 0 {
                return budget(
                    now(self.allowed.max(1)),
                    "; the Pod is not Ready, and enough others are",
                );
            }
        }
        if self.allowed > 0 {
            return budget(now(self.allowed), "");
        }
        let unhealthy = if pod.facts.ready {
            ""
        } else {
            "; the Pod is not Ready, and unhealthyPodEvictionPolicy IfHealthyBudget keeps it until \
             enough others are"
        };
        // As many wanted as there are: `maxUnavailable: 0`, `minAvailable: 100%` or
        // `minAvailable` at or above the number of replicas.
        if self.expected > 0 && self.desired >= self.expected {
            budget(EvictionAllowance::Never, unhealthy)
        } else {
            budget(now(0), unhealthy)
        }
    }
}

/// Completes a Pod with the budgets that cover it, by name.
pub(super) fn covering<'a>(
    pod: &SeenPod,
    budgets: impl IntoIterator<Item = &'a SeenBudget>,
) -> Vec<Budget> {
    // The Eviction API asks no budget for a Pod that has not started, has finished or is going.
    if pod.pending || pod.facts.finished || pod.facts.terminating_until.is_some() {
        return Vec::new();
    }
    let mut covering: Vec<Budget> = budgets
        .into_iter()
        .filter(|budget| budget.covers(pod))
        .map(|budget| budget.towards(pod))
        .collect();
    covering.sort_by(|a, b| a.name.cmp(&b.name));
    covering
}

/// A label selector. In `policy/v1` an empty one selects every Pod of the namespace, and none at all
/// selects none.
#[derive(Clone, Debug, Default, PartialEq)]
struct Selector {
    none: bool,
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq)]
enum Term {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
    /// An operator that Kubernetes does not have today.
    Unknown,
}

impl Selector {
    fn from(selector: Option<&LabelSelector>) -> Self {
        let Some(selector) = selector else {
            return Self {
                none: true,
                terms: Vec::new(),
            };
        };
        let labels = selector.match_labels.iter().flatten();
        let mut terms: Vec<Term> = labels
            .map(|(key, value)| Term::In(key.clone(), vec![value.clone()]))
            .collect();
        terms.extend(
            selector
                .match_expressions
                .iter()
                .flatten()
                .map(|requirement| {
                    let key = requirement.key.clone();
                    let values = requirement.values.clone().unwrap_or_default();
                    match requirement.operator.as_str() {
                        "In" => Term::In(key, values),
                        "NotIn" => Term::NotIn(key, values),
                        "Exists" => Term::Exists(key),
                        "DoesNotExist" => Term::Absent(key),
                        _ => Term::Unknown,
                    }
                }),
        );
        Self { none: false, terms }
    }

    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.none
            && self.terms.iter().all(|term| match term {
                Term::In(key, values) => {
                    labels.get(key).is_some_and(|value| values.contains(value))
                }
                Term::NotIn(key, values) => {
                    labels.get(key).is_none_or(|value| !values.contains(value))
                }
                Term::Exists(key) => labels.contains_key(key),
                Term::Absent(key) => !labels.contains_key(key),
                // To cover a Pod too many delays it; to cover one too few would surprise.
                Term::Unknown => true,
            })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kubernetes::pod::{Surroundings, seen};

    fn budget(spec: Value, status: Value) -> SeenBudget {
        let pdb: PodDisruptionBudget = serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": "pdb", "generation": 3},
            "spec": spec, "status": status,
        }))
        .expect("a budget");
        SeenBudget::from(&pdb).expect("named")
    }

    fn pod(labels: Value, ready: bool, phase: &str) -> SeenPod {
        let ready = if ready { "True" } else { "False" };
        let pod = serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": "p", "uid": "u", "labels": labels},
            "spec": {"containers": []},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]},
        }))
        .expect("a Pod");
        seen(&pod, &Surroundings::default()).expect("named")
    }

    #[test]
    fn selectors_match_as_in_policy_v1() {
        let check = |selector: Value, labels: Value, matches: bool| {
            let budget = budget(json!({"selector": selector}), json!({}));
            assert_eq!(
                budget.covers(&pod(labels.clone(), true, "Running")),
                matches,
                "{selector} on {labels}"
            );
        };
        check(json!({}), json!({}), true);
        check(json!(null), json!({"app": "a"}), false);
        check(
            json!({"matchLabels": {"app": "a"}}),
            json!({"app": "a", "x": "y"}),
            true,
        );
        check(
            json!({"matchLabels": {"app": "a"}}),
            json!({"app": "b"}),
            false,
        );
        let expression = |operator: &str, values: Value| json!({"matchExpressions": [{"key": "app", "operator": operator, "values": values}]});
        check(
            expression("In", json!(["a", "b"])),
            json!({"app": "b"}),
            true,
        );
        check(expression("In", json!(["a", "b"])), json!({}), false);
        check(expression("NotIn", json!(["a"])), json!({}), true);
        check(
            expression("NotIn", json!(["a"])),
            json!({"app": "a"}),
            false,
        );
        check(expression("Exists", json!(null)), json!({"app": ""}), true);
        check(
            expression("DoesNotExist", json!(null)),
            json!({"app": ""}),
            false,
        );
        check(
            json!({"matchLabels": {"app": "a"}, "matchExpressions": [{"key": "tier", "operator": "Exists"}]}),
            json!({"app": "a"}),
            false,
        );
    }

    #[test]
    fn what_a_budget_lets_through_is_told_from_what_it_never_can() {
        let status = |allowed: i32, current: i32, desired: i32, expected: i32| json!({"disruptionsAllowed": allowed, "currentHealthy": current, "desiredHealthy": desired, "expectedPods": expected, "observedGeneration": 3});
        let check =
            |status: Value, pod: SeenPod, policy: &str, expected: EvictionAllowance, says: &str| {
                let budget = budget(
                    json!({"selector": {}, "unhealthyPodEvictionPolicy": policy}),
                    status.clone(),
                );
                let covering = covering(&pod, [&budget]);
                assert_eq!(covering[0].allowance, expected, "{status}");
                assert!(covering[0].detail.contains(says), "{}", covering[0].detail);
                assert!(covering[0].observed);
            };
        let ready = || pod(json!({}), true, "Running");
        let sick = || pod(json!({}), false, "Running");
        let default = "IfHealthyBudget";
        check(
            status(1, 3, 2, 3),
            ready(),
            default,
            EvictionAllowance::Now(1),
            "3 of 3 healthy, 2 wanted",
        );
        check(
            status(0, 2, 2, 3),
            ready(),
            default,
            EvictionAllowance::Now(0),
            "2 of 3 healthy, 2 wanted",
        );
        check(
            status(0, 3, 3, 3),
            ready(),
            default,
            EvictionAllowance::Never,
            "3 wanted",
        );
        check(
            status(0, 3, 5, 3),
            ready(),
            default,
            EvictionAllowance::Never,
            "5 wanted",
        );
        check(
            status(0, 0, 0, 0),
            ready(),
            default,
            EvictionAllowance::Now(0),
            "0 of 0",
        );
        check(
            status(0, 1, 2, 3),
            sick(),
            default,
            EvictionAllowance::Now(0),
            "IfHealthyBudget",
        );
        check(
            status(0, 2, 3, 3),
            sick(),
            default,
            EvictionAllowance::Never,
            "IfHealthyBudget",
        );
        check(
            status(0, 2, 2, 3),
            sick(),
            default,
            EvictionAllowance::Now(1),
            "enough others",
        );
        check(
            status(0, 1, 3, 3),
            sick(),
            "AlwaysAllow",
            EvictionAllowance::Now(1),
            "AlwaysAllow",
        );
    }

    #[test]
    fn a_status_of_an_older_specification_is_not_observed() {
        let old = budget(
            json!({"selector": {}}),
            json!({"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1, "observedGeneration": 2}),
        );
        assert!(!covering(&pod(json!({}), true, "Running"), [&old])[0].observed);
        let failed = budget(
            json!({"selector": {}}),
            json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0, "observedGeneration": 3,
            "conditions": [{"type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed", "message": "found no controllers for pod \"p\"", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}),
        );
        let towards = &covering(&pod(json!({}), true, "Running"), [&failed])[0];
        assert!(
            towards.detail.contains("found no controllers"),
            "{}",
            towards.detail
        );
    }

    #[test]
    fn a_pod_that_has_not_started_is_asked_of_no_budget() {
        let any = budget(json!({"selector": {}}), json!({}));
        assert!(covering(&pod(json!({}), false, "Pending"), [&any, &any]).is_empty());
        assert!(covering(&pod(json!({}), false, "Succeeded"), [&any]).is_empty());
        assert_eq!(
            covering(&pod(json!({}), true, "Running"), [&any, &any]).len(),
            2
        );
    }
}
