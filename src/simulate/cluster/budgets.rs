//! PodDisruptionBudgets as the disruption controller keeps them, and evictions as the API server
//! answers them (`pkg/controller/disruption`, `pkg/registry/core/pod/storage/eviction.go`).

use std::time::Duration;

use foreshock_core::drain::{Answer, Budget, EvictionAllowance, PodId};
use foreshock_core::time::since;

use super::spec::{BudgetRule, BudgetSpec, Controller};
use super::state::{Pod, State, Transition, Workload};

/// A disruption that was granted and not followed by a deletion is given back after this.
const DISRUPTION_PENDING: Duration = Duration::from_secs(120);

/// `status` of a PodDisruptionBudget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetStatus {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `currentHealthy`: Ready, and not on their way.
    pub healthy: u32,
    /// `desiredHealthy`.
    pub desired: u32,
    /// `expectedPods`.
    pub expected: u32,
    /// `disruptionsAllowed`.
    pub allowed: u32,
}

impl State {
    pub(super) fn budget_status(&self, workload: &Workload, budget: &BudgetSpec) -> BudgetStatus {
        let spec = &workload.spec;
        let pods = || {
            workload
                .pods
                .iter()
                .filter_map(|number| self.pods.get(number))
        };
        let n_pods = count(pods().count());
        let scale = match spec.controller {
            Controller::Deployment | Controller::StatefulSet => spec.replicas,
            Controller::DaemonSet | Controller::None => n_pods,
        };
        let (expected, desired) = match budget.rule {
            BudgetRule::MaxUnavailable(amount) => (scale, scale.saturating_sub(amount.of(scale))),
            BudgetRule::MinAvailable(super::spec::Amount::Count(count)) => (n_pods, count),
            BudgetRule::MinAvailable(amount) => (scale, amount.of(scale)),
        };
        let healthy = pods()
            .filter(|pod| pod.ready && pod.deletion.is_none() && !self.is_disrupted(workload, pod))
            .count();
        let healthy = count(healthy);
        let allowed = if expected == 0 {
            0
        } else {
            healthy.saturating_sub(desired)
        };
        BudgetStatus {
            namespace: spec.namespace.clone(),
            name: budget.name.clone(),
            healthy,
            desired,
            expected,
            allowed,
        }
    }

    fn is_disrupted(&self, workload: &Workload, pod: &Pod) -> bool {
        workload
            .disrupted
            .get(&pod.id.name)
            .is_some_and(|at| since(*at, self.now) < DISRUPTION_PENDING)
    }

    /// What the budgets over a Pod let through for it, as the service works it out from their status.
    pub(super) fn budgets_towards(&self, pod: &Pod) -> Vec<Budget> {
        let workload = &self.workloads[pod.workload];
        workload
            .spec
            .budgets
            .iter()
            .map(|budget| {
                let status = self.budget_status(workload, budget);
                let allowance = if passes_unhealthy(pod, budget, &status) {
                    EvictionAllowance::Now(status.allowed.max(1))
                } else if status.allowed == 0
                    && status.expected > 0
                    && status.desired >= status.expected
                {
                    EvictionAllowance::Never
                } else {
                    EvictionAllowance::Now(status.allowed)
                };
                Budget {
                    name: budget.name.clone(),
                    allowance,
                    observed: true,
                    unsettled: !workload.disrupted.is_empty(),
                    detail: format!(
                        "{} of {} healthy, {} wanted",
                        status.healthy, status.expected, status.desired
                    ),
                }
            })
            .collect()
    }

    /// One eviction. The budget is looked at before the UID, as the API server does it.
    pub(super) fn evict(&mut self, id: &PodId, grace: Option<Duration>) -> Answer {
        let Some(number) = self.find_pod(&id.namespace, &id.name) else {
            return Answer::Gone;
        };
        let Some(pod) = self.pods.get(&number) else {
            return Answer::Gone;
        };
        let pending = !pod.started;
        let mut spends = false;
        if !pending && !pod.finished && pod.deletion.is_none() {
            let workload = &self.workloads[pod.workload];
            match workload.spec.budgets.as_slice() {
                [] => {}
                [budget] => {
                    let status = self.budget_status(workload, budget);
                    if !passes_unhealthy(pod, budget, &status) {
                        if status.allowed == 0 {
                            return blocked(&status);
                        }
                        spends = true;
                    }
                }
                [_, _, ..] => {
                    let detail = "This pod has more than one PodDisruptionBudget, which the \
                                  eviction subresource does not support.";
                    return Answer::OverlappingBudgets {
                        detail: detail.to_owned(),
                    };
                }
            }
        }
        if pod.id.uid != id.uid {
            if spends {
                let (index, name) = (pod.workload, pod.id.name.clone());
                self.workloads[index].disrupted.insert(name, self.now);
                self.later(DISRUPTION_PENDING, Transition::Look);
                self.changed.pods = true;
            }
            return Answer::Gone;
        }
        self.delete_pod(number, grace);
        Answer::Accepted
    }
}

/// A Pod that is not Ready may go by its own rule, without spending a disruption.
fn passes_unhealthy(pod: &Pod, budget: &BudgetSpec, status: &BudgetStatus) -> bool {
    let enough_others = status.healthy >= status.desired && status.desired > 0;
    !pod.ready && (budget.always_allow_unhealthy || enough_others)
}

fn blocked(status: &BudgetStatus) -> Answer {
    Answer::BlockedByBudget {
        detail: format!(
            "Cannot evict pod as it would violate the pod's disruption budget. The disruption \
             budget {} needs {} healthy pods and has {} currently",
            status.name, status.desired, status.healthy
        ),
        retry_after: None,
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
