//! What people, other controllers and bad luck do to a simulated cluster. Each says whether the
//! object was there.

use foreshock_core::decision::world::HoldUntil;
use foreshock_core::drain::PodId;
use foreshock_core::node::NodeName;
use foreshock_core::record::{RecordState, Taint};

use super::state::{Node, Pod, State};
use super::{Inner, SimulatedCluster, WorkloadSpec};

impl SimulatedCluster {
    /// The Node answers, or stops answering.
    pub fn set_node_ready(&self, node: &NodeName, ready: bool) -> bool {
        self.with(|inner| {
            inner.state.set_node_ready(node, ready);
            inner.state.nodes.contains_key(node)
        })
    }

    /// `kubectl cordon` and `uncordon`.
    pub fn cordon(&self, node: &NodeName, cordoned: bool) -> bool {
        self.change_schedulability(node, |node| node.cordoned = cordoned)
    }

    /// `kubectl taint`: a taint of the same key and effect is replaced.
    pub fn add_taint(&self, node: &NodeName, taint: Taint) -> bool {
        self.change_schedulability(node, |node| {
            node.taints.retain(|found| !found.collides_with(&taint));
            node.taints.push(taint);
        })
    }

    /// `kubectl taint node N key-`.
    pub fn remove_taint(&self, node: &NodeName, key: &str) -> bool {
        self.change_schedulability(node, |node| node.taints.retain(|taint| taint.key != key))
    }

    /// `kubectl taint node N key=value-`: only the one with this value.
    pub fn remove_taint_of(&self, node: &NodeName, key: &str, value: &str) -> bool {
        self.change_schedulability(node, |node| {
            node.taints
                .retain(|taint| taint.key != key || taint.value != value);
        })
    }

    /// Annotation `foreshock.dev/exclude`.
    pub fn set_excluded(&self, node: &NodeName, excluded: bool) -> bool {
        self.change_node(node, |node| node.excluded = excluded)
    }

    /// Annotation `foreshock.dev/hold-until`.
    pub fn set_hold_until(&self, node: &NodeName, until: Option<HoldUntil>) -> bool {
        self.change_node(node, |node| node.hold_until = until)
    }

    /// The label `foreshock.dev/risk`, by somebody else.
    pub fn set_risk_label(&self, node: &NodeName, value: Option<&str>) -> bool {
        self.change_node(node, |node| node.risk_label = value.map(str::to_owned))
    }

    /// Another controller takes the Node away, or leaves it.
    pub fn set_taken_by(&self, node: &NodeName, who: Option<&str>) -> bool {
        self.change_node(node, |node| node.taken_by = who.map(str::to_owned))
    }

    /// What stands in `foreshock.dev/state`, by somebody else.
    pub fn set_record(&self, node: &NodeName, record: RecordState) -> bool {
        self.change_node(node, |node| node.record = record)
    }

    /// Removes a Node and what ran on it.
    pub fn delete_node(&self, name: &NodeName) -> bool {
        self.with(|inner| inner.state.delete_node(name))
    }

    /// Removes a Node and adds one of the same name: another UID, no marks, as young as can be.
    pub fn recreate_node(&self, name: &NodeName) -> bool {
        self.with(|inner| {
            let Some(spec) = inner.state.nodes.get(name).map(|node| node.spec.clone()) else {
                return false;
            };
            inner.state.delete_node(name);
            let now = inner.state.now;
            inner.state.add_node(spec, now);
            true
        })
    }

    /// Adds a workload.
    pub fn add_workload(&self, spec: WorkloadSpec) {
        self.with(|inner| inner.state.add_workload(spec));
    }

    /// `kubectl scale`.
    pub fn scale(&self, namespace: &str, name: &str, replicas: u32) -> bool {
        self.change_workload(namespace, name, |state, index| {
            state.workloads[index].spec.replicas = replicas;
        })
    }

    /// Changes a workload's specification; replicas and budgets take effect at once.
    pub fn edit(
        &self,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut WorkloadSpec),
    ) -> bool {
        self.change_workload(namespace, name, |state, index| {
            change(&mut state.workloads[index].spec);
        })
    }

    /// Removes a controller and orphans its Pods.
    pub fn delete_controller(&self, namespace: &str, name: &str) -> bool {
        self.change_workload(namespace, name, |state, index| {
            state.workloads[index].gone = true;
        })
    }

    /// `kubectl delete pod`, which asks no budget.
    pub fn delete_pod(&self, pod: &PodId) -> bool {
        self.with(|inner| {
            let number = inner.number_of(pod);
            if let Some(number) = number {
                inner.state.delete_pod(number, None);
            }
            number.is_some()
        })
    }

    /// A Pod crashes and does not become Ready again.
    pub fn break_pod(&self, pod: &PodId) -> bool {
        self.change_pod(pod, |pod| {
            pod.broken = true;
            pod.ready = false;
        })
    }

    /// A Pod has done what it had to do.
    pub fn finish_pod(&self, pod: &PodId) -> bool {
        self.change_pod(pod, |pod| {
            pod.finished = true;
            pod.ready = false;
        })
    }

    /// Sets a Pod's finalizers; without any, one that has ended goes.
    pub fn set_finalizers(&self, pod: &PodId, finalizers: &[&str]) -> bool {
        let found = self.change_pod(pod, |pod| {
            pod.finalizers = finalizers.iter().map(|&name| name.to_owned()).collect();
        });
        self.with(|inner| {
            let ended = inner.number_of(pod).filter(|number| {
                let pod = inner.state.pods.get(number);
                pod.is_some_and(|pod| pod.stopped && pod.finalizers.is_empty())
            });
            if let Some(number) = ended {
                inner.state.remove_pod(number);
            }
        });
        found
    }

    /// Annotation `foreshock.dev/paused` on the Lease.
    pub fn set_paused(&self, paused: bool) -> bool {
        self.with(|inner| inner.change_lease(|lease| lease.paused = paused))
    }

    /// Removes the Lease.
    pub fn delete_lease(&self) -> bool {
        self.with(|inner| {
            inner.state.changed.lease = true;
            inner.lease.take().is_some()
        })
    }

    fn change_node(&self, name: &NodeName, change: impl FnOnce(&mut Node)) -> bool {
        self.with(|inner| {
            let Some(node) = inner.state.nodes.get_mut(name) else {
                return false;
            };
            change(node);
            inner.state.touch_node(name);
            true
        })
    }

    fn change_schedulability(&self, name: &NodeName, change: impl FnOnce(&mut Node)) -> bool {
        self.with(|inner| inner.state.scheduler_will_see(name));
        self.change_node(name, change)
    }

    fn change_workload(
        &self,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut State, usize),
    ) -> bool {
        self.with(|inner| {
            let index = inner.state.workloads.iter().position(|workload| {
                workload.spec.namespace == namespace && workload.spec.name == name
            });
            if let Some(index) = index {
                change(&mut inner.state, index);
                inner.state.stale.insert(index);
                inner.state.changed.pods = true;
            }
            index.is_some()
        })
    }

    fn change_pod(&self, pod: &PodId, change: impl FnOnce(&mut Pod)) -> bool {
        self.with(|inner| {
            let number = inner.number_of(pod);
            let found = number.and_then(|number| inner.state.pods.get_mut(&number));
            let Some(found) = found else {
                return false;
            };
            change(found);
            let index = found.workload;
            inner.state.stale.insert(index);
            inner.state.changed.pods = true;
            true
        })
    }
}

impl Inner {
    fn number_of(&self, pod: &PodId) -> Option<u64> {
        self.state
            .find_pod(&pod.namespace, &pod.name)
            .filter(|number| {
                let found = self.state.pods.get(number);
                found.is_some_and(|found| found.id.uid == pod.uid)
            })
    }
}

impl State {
    fn delete_node(&mut self, name: &NodeName) -> bool {
        let Some(node) = self.nodes.get(name) else {
            return false;
        };
        // The garbage collector removes what was bound to a Node that is no more.
        for number in node.pods.clone() {
            self.remove_pod(number);
        }
        self.nodes.remove(name);
        self.touch_node(name);
        true
    }
}
