//! What Kubernetes does by itself: Pods are created where some are missing, and placed.

use std::collections::BTreeMap;

use foreshock_core::node::NodeName;
use foreshock_core::record::{Taint, TaintEffect};

use super::spec::{Controller, Tolerations, WorkloadSpec};
use super::state::{Node, State, requests};

impl State {
    /// Looks after every workload that has changed, then places what has no Node.
    pub(super) fn reconcile(&mut self) {
        while let Some(index) = self.stale.pop_first() {
            if self.workloads[index].gone {
                continue;
            }
            match self.workloads[index].spec.controller {
                Controller::Deployment => self.look_after_deployment(index),
                Controller::StatefulSet => self.look_after_stateful_set(index),
                Controller::DaemonSet => self.look_after_daemon_set(index),
                Controller::None => {}
            }
        }
        for number in self.unscheduled.clone() {
            self.schedule(number);
        }
    }

    /// As a ReplicaSet does it: a Pod that has begun to go does not count any more.
    fn look_after_deployment(&mut self, index: usize) {
        let workload = &self.workloads[index];
        let wanted = workload.spec.replicas as usize;
        let mut active: Vec<u64> = workload
            .pods
            .iter()
            .copied()
            .filter(|number| {
                self.pods
                    .get(number)
                    .is_some_and(|pod| pod.deletion.is_none() && !pod.finished)
            })
            .collect();
        for _ in active.len()..wanted {
            self.create_pod(index, None, None);
        }
        if active.len() > wanted {
            // Those that are not Ready go first, then the youngest.
            active.sort_by_key(|number| {
                let ready = self.pods.get(number).is_some_and(|pod| pod.ready);
                (ready, std::cmp::Reverse(*number))
            });
            for number in &active[..active.len() - wanted] {
                self.delete_pod(*number, None);
            }
        }
    }

    /// One Pod for each ordinal, in order, and the next only when those before are Ready.
    fn look_after_stateful_set(&mut self, index: usize) {
        let workload = &self.workloads[index];
        let wanted = workload.spec.replicas;
        let there: BTreeMap<u32, u64> = workload
            .pods
            .iter()
            .filter_map(|number| Some((self.pods.get(number)?.ordinal?, *number)))
            .collect();
        for ordinal in 0..wanted {
            let Some(number) = there.get(&ordinal) else {
                self.create_pod(index, Some(ordinal), None);
                return;
            };
            if !self.pods.get(number).is_some_and(|pod| pod.ready) {
                return;
            }
        }
        if let Some((_, number)) = there.range(wanted..).next_back() {
            self.delete_pod(*number, None);
        }
    }

    fn look_after_daemon_set(&mut self, index: usize) {
        let workload = &self.workloads[index];
        let tolerations = &workload.spec.tolerations;
        let missing: Vec<NodeName> = self
            .nodes
            .values()
            .filter(|node| {
                !node
                    .pods
                    .iter()
                    .any(|number| workload.pods.contains(number))
                    && !node.taints.iter().any(|taint| {
                        // Tolerations for the taints of Kubernetes itself come with the DaemonSet.
                        keeps_out(taint, tolerations)
                            && !taint.key.starts_with("node.kubernetes.io/")
                    })
            })
            .map(|node| node.spec.name.clone())
            .collect();
        for name in missing {
            self.create_pod(index, None, Some(name));
        }
    }

    /// The Node that may take the Pod and has the fewest; one with a `PreferNoSchedule` taint last.
    fn schedule(&mut self, number: u64) {
        let Some(pod) = self.pods.get(&number) else {
            return;
        };
        let workload = &self.workloads[pod.workload];
        let tolerations = &workload.spec.tolerations;
        let best = self
            .nodes
            .values()
            .filter(|node| self.may_take(node, &workload.spec))
            .min_by_key(|node| {
                let (taints, _) = self.as_scheduler_sees(node);
                let avoided = taints.iter().any(|taint| {
                    taint.effect == TaintEffect::PreferNoSchedule && !tolerations.tolerate(taint)
                });
                let siblings = node
                    .pods
                    .iter()
                    .filter(|number| workload.pods.contains(number))
                    .count();
                (avoided, node.pods.len(), siblings, &node.spec.name)
            })
            .map(|node| node.spec.name.clone());
        if let Some(name) = best {
            self.bind(number, name);
        }
    }

    fn may_take(&self, node: &Node, spec: &WorkloadSpec) -> bool {
        let (taints, cordoned) = self.as_scheduler_sees(node);
        node.ready
            && !cordoned
            && !taints
                .iter()
                .any(|taint| keeps_out(taint, &spec.tolerations))
            && self.selects(node, spec)
            && self.has_room(node, spec)
    }

    fn selects(&self, node: &Node, spec: &WorkloadSpec) -> bool {
        if spec.node_selector.is_empty() {
            return true;
        }
        let labels = node.labels();
        let mut selector = spec.node_selector.iter();
        selector.all(|(key, value)| labels.get(key) == Some(value))
    }

    fn has_room(&self, node: &Node, spec: &WorkloadSpec) -> bool {
        let mut free = node.spec.allocatable();
        let there = node.pods.iter().filter_map(|number| self.pods.get(number));
        for pod in there.filter(|pod| !pod.finished) {
            free.subtract(&requests(&self.workloads[pod.workload].spec));
        }
        free.lacking(&requests(spec)).is_none()
    }

    fn as_scheduler_sees<'a>(&self, node: &'a Node) -> (&'a [Taint], bool) {
        match &node.scheduler_sees {
            Some((until, taints, cordoned)) if self.now < *until => (taints, *cordoned),
            Some(_) | None => (&node.taints, node.cordoned),
        }
    }
}

fn keeps_out(taint: &Taint, tolerations: &Tolerations) -> bool {
    match taint.effect {
        TaintEffect::NoSchedule | TaintEffect::NoExecute => !tolerations.tolerate(taint),
        TaintEffect::PreferNoSchedule => false,
    }
}
