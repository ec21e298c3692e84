//! What happens to Pods and Nodes as time passes.

use std::time::Duration;

use foreshock_core::drain::PodId;
use foreshock_core::node::NodeName;
use foreshock_core::record::{Taint, TaintEffect};
use foreshock_core::time::after;
use jiff::Timestamp;

use super::spec::Controller;
use super::state::{Pod, State, Transition};

/// A Pod on a Node that does not answer is deleted after this: `tolerationSeconds` of the tolerations
/// that Kubernetes adds to every Pod.
const UNREACHABLE_TOLERATED: Duration = Duration::from_secs(300);

impl State {
    /// Lets time pass until then; the past is over.
    pub(super) fn advance(&mut self, to: Timestamp) {
        while let Some(entry) = self.agenda.first_entry() {
            if entry.key().0 > to {
                break;
            }
            let ((at, _), transition) = entry.remove_entry();
            self.now = self.now.max(at);
            self.happens(transition);
            self.reconcile();
        }
        self.now = self.now.max(to);
    }

    fn happens(&mut self, transition: Transition) {
        match transition {
            Transition::Ready(number) => self.becomes_ready(number),
            Transition::Stopped(number) => self.stops(number),
            Transition::Abandon(name, since) => self.abandon(&name, since),
            Transition::Look => {
                self.node_changed_for_daemons();
                self.changed.pods = true;
            }
        }
    }

    pub(super) fn later(&mut self, wait: Duration, transition: Transition) {
        self.counter += 1;
        self.agenda
            .insert((after(self.now, wait), self.counter), transition);
    }

    /// A Node has changed: its `resourceVersion` does too, and the watch shows it.
    pub(super) fn touch_node(&mut self, name: &NodeName) {
        self.version += 1;
        if let Some(node) = self.nodes.get_mut(name) {
            node.resource_version = self.version;
        }
        self.changed.nodes.insert(name.clone());
    }

    /// Remembers for the scheduler what it does not see yet of a change to taints or cordon.
    pub(super) fn scheduler_will_see(&mut self, name: &NodeName) {
        let lag = self.options.scheduler_lag;
        self.node_changed_for_daemons();
        if lag.is_zero() {
            return;
        }
        let until = after(self.now, lag);
        if let Some(node) = self.nodes.get_mut(name)
            && node
                .scheduler_sees
                .as_ref()
                .is_none_or(|(until, ..)| *until <= self.now)
        {
            node.scheduler_sees = Some((until, node.taints.clone(), node.cordoned));
            self.later(lag, Transition::Look);
        }
    }

    pub(super) fn node_changed_for_daemons(&mut self) {
        let daemons = self
            .workloads
            .iter()
            .enumerate()
            .filter(|(_, workload)| workload.spec.controller == Controller::DaemonSet)
            .map(|(index, _)| index);
        self.stale.extend(daemons);
    }

    pub(super) fn create_pod(
        &mut self,
        index: usize,
        ordinal: Option<u32>,
        node: Option<NodeName>,
    ) -> u64 {
        let workload = &self.workloads[index];
        let name = match (ordinal, &workload.owner) {
            (Some(ordinal), _) => format!("{}-{ordinal}", workload.spec.name),
            (None, Some(owner)) => format!("{}-{}", owner.name, self.random.suffix(5)),
            (None, None) => format!("{}-{}", workload.spec.name, self.random.suffix(5)),
        };
        let id = PodId {
            namespace: workload.spec.namespace.clone(),
            name,
            uid: self.random.uid(),
        };
        self.counter += 1;
        let number = self.counter;
        self.pods.insert(
            number,
            Pod {
                id,
                workload: index,
                ordinal,
                node: None,
                started: false,
                ready: false,
                finished: false,
                broken: false,
                created_at: self.now,
                ready_at: None,
                deletion: None,
                stopped: false,
                finalizers: Vec::new(),
            },
        );
        self.workloads[index].pods.insert(number);
        self.changed.pods = true;
        match node {
            Some(node) => self.bind(number, node),
            None => {
                self.unscheduled.insert(number);
            }
        }
        number
    }

    pub(super) fn bind(&mut self, number: u64, name: NodeName) {
        self.unscheduled.remove(&number);
        if let (Some(pod), Some(node)) = (self.pods.get_mut(&number), self.nodes.get_mut(&name)) {
            pod.node = Some(name);
            node.pods.insert(number);
            self.changed.pods = true;
            let wait = self.random.within(&self.options.ready_after);
            self.later(wait, Transition::Ready(number));
        }
    }

    pub(super) fn becomes_ready(&mut self, number: u64) {
        let Some(pod) = self.pods.get_mut(&number) else {
            return;
        };
        let answers = pod
            .node
            .as_ref()
            .and_then(|name| self.nodes.get(name))
            .is_some_and(|node| node.ready);
        if !answers || pod.finished || pod.deletion.is_some() {
            return;
        }
        pod.started = true;
        pod.ready = !pod.broken;
        if pod.ready {
            pod.ready_at.get_or_insert(self.now);
        }
        self.stale.insert(pod.workload);
        self.changed.pods = true;
    }

    /// A Pod is told to go; again, and only a shorter grace period changes anything.
    pub(super) fn delete_pod(&mut self, number: u64, grace: Option<Duration>) {
        let Some(pod) = self.pods.get_mut(&number) else {
            return;
        };
        let grace = grace.unwrap_or(self.workloads[pod.workload].spec.grace);
        let until = after(self.now, grace);
        if let Some(deletion) = &mut pod.deletion {
            *deletion = (*deletion).min(until);
            return;
        }
        pod.deletion = Some(until);
        self.stale.insert(pod.workload);
        self.changed.pods = true;
        let name = pod.id.name.clone();
        self.workloads[pod.workload].disrupted.remove(&name);
        // Nobody has to be told where nothing runs.
        if pod.node.is_none() || pod.finished {
            self.stops(number);
        } else {
            let wait = self.random.within(&self.options.gone_after).min(grace);
            self.later(wait, Transition::Stopped(number));
        }
    }

    fn stops(&mut self, number: u64) {
        let Some(pod) = self.pods.get_mut(&number) else {
            return;
        };
        // A Node that does not answer does not say so either.
        let answers = pod
            .node
            .as_ref()
            .and_then(|name| self.nodes.get(name))
            .is_none_or(|node| node.ready);
        if !answers {
            return;
        }
        pod.stopped = true;
        pod.ready = false;
        self.changed.pods = true;
        if pod.finalizers.is_empty() {
            self.remove_pod(number);
        }
    }

    pub(super) fn remove_pod(&mut self, number: u64) {
        let Some(pod) = self.pods.remove(&number) else {
            return;
        };
        self.unscheduled.remove(&number);
        if let Some(node) = pod.node.as_ref().and_then(|name| self.nodes.get_mut(name)) {
            node.pods.remove(&number);
        }
        let workload = &mut self.workloads[pod.workload];
        workload.pods.remove(&number);
        workload.disrupted.remove(&pod.id.name);
        self.stale.insert(pod.workload);
        self.changed.pods = true;
    }

    pub(super) fn set_node_ready(&mut self, name: &NodeName, ready: bool) {
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        if node.ready == ready {
            return;
        }
        node.ready = ready;
        let pods: Vec<u64> = node.pods.iter().copied().collect();
        if ready {
            node.not_ready_since = None;
            node.taints
                .retain(|taint| !unreachable_taints().contains(taint));
        } else {
            node.not_ready_since = Some(self.now);
            node.taints.extend(unreachable_taints());
            let abandon = Transition::Abandon(name.clone(), self.now);
            self.later(UNREACHABLE_TOLERATED, abandon);
        }
        for number in pods {
            let Some(pod) = self.pods.get_mut(&number) else {
                continue;
            };
            self.stale.insert(pod.workload);
            if !ready {
                pod.ready = false;
                continue;
            }
            let (range, transition) = if pod.deletion.is_some() {
                (&self.options.gone_after, Transition::Stopped(number))
            } else {
                (&self.options.ready_after, Transition::Ready(number))
            };
            let wait = self.random.within(range);
            self.later(wait, transition);
        }
        self.changed.pods = true;
        self.node_changed_for_daemons();
        self.touch_node(name);
    }

    /// The Node has been silent for so long that its Pods are told to go, which it does not hear.
    fn abandon(&mut self, name: &NodeName, since: Timestamp) {
        let Some(node) = self.nodes.get(name) else {
            return;
        };
        if node.not_ready_since != Some(since) {
            return;
        }
        for number in node.pods.clone() {
            let stays = self.pods.get(&number).is_some_and(|pod| {
                let spec = &self.workloads[pod.workload].spec;
                spec.controller == Controller::DaemonSet
                    || unreachable_taints()
                        .iter()
                        .all(|taint| spec.tolerations.tolerate(taint))
            });
            if !stays {
                self.delete_pod(number, None);
            }
        }
    }
}

/// The taints that Kubernetes gives a Node that does not answer.
fn unreachable_taints() -> [Taint; 2] {
    [TaintEffect::NoSchedule, TaintEffect::NoExecute].map(|effect| Taint {
        key: "node.kubernetes.io/unreachable".to_owned(),
        value: String::new(),
        effect,
    })
}
