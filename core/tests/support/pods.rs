//! Pods in a few words, and one drain that is walked step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foreshock_core::drain::{
    Action, Answer, Budget, DrainFacts, DrainOrder, DrainProgress, DrainRules, EvictionAllowance,
    NodeOutcome, Owner, PodFacts, PodId, Step, StepState, Workload, Workloads, step,
};
use foreshock_core::node::{NodeId, NodeName, Uid};
use foreshock_core::room::{Needs, Resources};
use foreshock_core::time::{after, ago};
use jiff::Timestamp;

use super::{MINUTE, now, rules};

/// A running Pod of a ReplicaSet in namespace `shop`, with 30 s of grace and nothing special.
pub fn pod(name: &str) -> PodFacts {
    PodFacts {
        id: PodId {
            namespace: "shop".into(),
            name: name.into(),
            uid: format!("uid-{name}").into(),
        },
        owner: owner("apps", "ReplicaSet"),
        workload: Ok(None),
        daemon_set_gone: false,
        mirror: false,
        finished: false,
        ready: true,
        terminating_until: None,
        finalizers: Vec::new(),
        grace: seconds(30),
        empty_dir: false,
        local_volumes: false,
        devices: Vec::new(),
        dependency: None,
        claims: Vec::new(),
        volumes: Vec::new(),
        critical: false,
        opted_out: None,
        tolerates_taint: false,
        own: false,
        budgets: Vec::new(),
        needs: needs(100),
    }
}

/// So many thousandths of a core.
pub fn needs(cpu: u64) -> Needs {
    Needs {
        requests: Resources {
            cpu,
            pods: 1,
            ..Resources::default()
        },
        ..Needs::default()
    }
}

/// A Pod that asks for so many thousandths of a core.
pub fn sized(name: &str, cpu: u64) -> PodFacts {
    with(pod(name), |pod| pod.needs = needs(cpu))
}

/// The Pod with a difference.
pub fn with(mut pod: PodFacts, change: impl FnOnce(&mut PodFacts)) -> PodFacts {
    change(&mut pod);
    pod
}

pub fn owner(group: &str, kind: &str) -> Option<Owner> {
    Some(Owner {
        group: group.into(),
        kind: kind.into(),
        name: "owner".into(),
        uid: "uid-owner".into(),
    })
}

pub fn budget(name: &str, allowance: EvictionAllowance) -> Budget {
    Budget {
        name: name.into(),
        allowance,
        observed: true,
        unsettled: false,
        detail: "2 of 2 healthy, 2 wanted".into(),
    }
}

/// A Pod under the budget `web`, which allows so many disruptions.
pub fn budgeted(name: &str, allowed: u32) -> PodFacts {
    with(pod(name), |pod| {
        pod.budgets = vec![budget("web", EvictionAllowance::Now(allowed))];
    })
}

pub fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub fn blocked() -> Answer {
    Answer::BlockedByBudget {
        detail: "The disruption budget web needs 2 healthy pods and has 2 currently".into(),
        retry_after: None,
    }
}

pub fn lost() -> Answer {
    Answer::Lost {
        detail: "connection reset".into(),
    }
}

pub fn order(rules: DrainRules) -> DrainOrder {
    DrainOrder {
        node: NodeId::new("worker-01", "uid-worker-01"),
        started_at: now(),
        complete_after: ago(now(), MINUTE),
        deadline_at: after(now(), rules.deadline),
        sends: true,
        rules,
    }
}

/// A drain that is walked step by step.
#[derive(Clone)]
pub struct Walk {
    pub order: DrainOrder,
    pub pods: Vec<PodFacts>,
    pub node_ready: bool,
    pub progress: DrainProgress,
    pub workloads: Workloads,
    pub now: Timestamp,
}

impl Walk {
    pub fn of(pods: impl IntoIterator<Item = PodFacts>) -> Self {
        Self {
            order: order(rules()),
            pods: pods.into_iter().collect(),
            node_ready: true,
            progress: DrainProgress::default(),
            workloads: Workloads::default(),
            now: now(),
        }
    }

    pub fn facts(&self) -> DrainFacts<'_> {
        DrainFacts {
            pods: self.pods.iter().collect(),
            node_ready: self.node_ready,
            workloads: &self.workloads,
        }
    }

    pub fn step(&self) -> Step {
        step(&self.order, &self.facts(), &self.progress, self.now)
    }

    /// The Deployment `web` with these Ready Pods here, by name, and elsewhere.
    pub fn workload(here: &[&str], elsewhere: &[&str], wanted: Option<u32>) -> Workload {
        let here = here
            .iter()
            .map(|name| (pod(name).id.uid, "worker-01".into()));
        let there = elsewhere
            .iter()
            .map(|uid| ((*uid).into(), "worker-02".into()));
        let on: BTreeMap<Uid, NodeName> = here.chain(there).collect();
        Workload {
            wanted,
            ready: on.keys().cloned().collect(),
            on,
            ..Workload::default()
        }
    }

    /// This is seen of `web`.
    pub fn sees(&mut self, here: &[&str], there: &[&str], wanted: Option<u32>) -> &mut Self {
        let seen = Self::workload(here, there, wanted);
        self.workloads.trust(true);
        self.workloads.see(&"web".into(), Ok(seen));
        self
    }

    /// What is settled is forgotten, once the drain is over.
    pub fn settle(&mut self) -> &mut Self {
        let deadline = self.order.rules.pod_deadline;
        self.workloads.settle(&BTreeSet::new(), self.now, deadline);
        self
    }

    /// So many milliseconds pass.
    pub fn pass(&mut self, milliseconds: u64) -> &mut Self {
        self.now = after(self.now, Duration::from_millis(milliseconds));
        self
    }

    /// Carries out the actions of one step; says which Pods were asked to go.
    pub fn ask(&mut self) -> Vec<String> {
        let asked: Vec<PodId> = self
            .step()
            .actions
            .into_iter()
            .map(|Action::Evict { pod, .. }| pod)
            .collect();
        for pod in &asked {
            let facts = self.pods.iter().find(|there| there.id == *pod);
            let facts = facts.expect("there");
            self.progress.sent(facts, self.now);
            self.workloads.sent(facts, self.now);
        }
        asked.into_iter().map(|pod| pod.name).collect()
    }

    pub fn answer(&mut self, name: &str, answer: Answer) -> &mut Self {
        self.workloads.answered(&pod(name).id, &answer);
        self.progress.answered(&pod(name).id, answer, self.now);
        self
    }

    pub fn change(&mut self, name: &str, change: impl FnOnce(&mut PodFacts)) -> &mut Self {
        change(
            self.pods
                .iter_mut()
                .find(|pod| pod.id.name == name)
                .expect("a Pod of this drain"),
        );
        self
    }

    pub fn gone(&mut self, name: &str) -> &mut Self {
        self.pods.retain(|pod| pod.id.name != name);
        self
    }

    /// When the next request is due, found by waking at the times that are named; milliseconds from
    /// now.
    pub fn until_asked(&mut self) -> i128 {
        let from = self.now;
        for _ in 0..100 {
            let step = self.step();
            if !step.actions.is_empty() {
                return self.now.duration_since(from).as_millis();
            }
            assert!(step.wake_at > self.now, "a hot loop");
            self.now = step.wake_at;
        }
        panic!("never asked");
    }

    /// Goes on to the next request, which gets this answer, or to the end.
    pub fn until_asked_or_over(&mut self, answer: &Answer) {
        let step = self.step();
        if step.actions.is_empty() && self.over().is_none() {
            assert!(step.wake_at > self.now, "a hot loop");
            self.now = step.wake_at;
        }
        for name in self.ask() {
            self.answer(&name, answer.clone());
        }
    }

    pub fn over(&self) -> Option<(NodeOutcome, String)> {
        match self.step().state {
            StepState::Over { outcome, detail } => Some((outcome, detail)),
            StepState::Running { .. } => None,
        }
    }
}
