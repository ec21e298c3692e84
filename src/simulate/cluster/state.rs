//! The objects of a simulated cluster.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foreshock_core::decision::world::{Fact, HoldUntil, NodeFacts};
use foreshock_core::drain::{self, Owner, PodFacts, PodId};
use foreshock_core::node::{NodeId, NodeName, Uid};
use foreshock_core::record::{RecordState, Taint, TaintEffect};
use foreshock_core::room::{Needs, Resources};
use foreshock_core::time::{after, ago};
use jiff::Timestamp;

use super::random::Random;
use super::spec::{Controller, NodeSpec, SimulatedClusterOptions, WorkloadSpec};
use crate::kubernetes::NodeEntry;

/// One Node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) spec: NodeSpec,
    pub(super) uid: Uid,
    pub(super) created_at: Timestamp,
    pub(super) ready: bool,
    pub(super) not_ready_since: Option<Timestamp>,
    pub(super) cordoned: bool,
    pub(super) taints: Vec<Taint>,
    pub(super) risk_label: Option<String>,
    pub(super) record: RecordState,
    pub(super) excluded: bool,
    pub(super) hold_until: Option<HoldUntil>,
    pub(super) taken_by: Option<String>,
    pub(super) resource_version: u64,
    /// By number.
    pub(super) pods: BTreeSet<u64>,
    /// What the scheduler still sees, until then.
    pub(super) scheduler_sees: Option<(Timestamp, Vec<Taint>, bool)>,
}

impl Node {
    pub(super) fn id(&self) -> NodeId {
        NodeId::new(self.spec.name.clone(), self.uid.clone())
    }

    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.spec.labels.clone();
        labels.insert(
            "kubernetes.io/hostname".to_owned(),
            self.spec.name.as_str().to_owned(),
        );
        if let Some(zone) = &self.spec.zone {
            labels.insert("topology.kubernetes.io/zone".to_owned(), zone.clone());
        }
        if self.spec.control_plane {
            labels.insert(CONTROL_PLANE.to_owned(), String::new());
        }
        if let Some(value) = &self.risk_label {
            labels.insert("foreshock.dev/risk".to_owned(), value.clone());
        }
        labels
    }

    pub(super) fn entry(&self) -> NodeEntry {
        let name = self.spec.name.as_str().to_owned();
        let labels = Arc::new(self.labels());
        NodeEntry {
            facts: NodeFacts {
                id: self.id(),
                created_at: self.created_at,
                ready: self.ready,
                cordoned: self.cordoned,
                control_plane: self.spec.control_plane,
                zone: self.spec.zone.clone(),
                pool: None,
                labels: Arc::clone(&labels),
                allocatable: self.spec.allocatable(),
                taints: self.taints.clone(),
                risk_label: self.risk_label.clone(),
                record: self.record.clone(),
                excluded: self.excluded,
                hold_until: self.hold_until.clone(),
                taken_by: self.taken_by.clone(),
                pods: Fact::Unknown,
            },
            resource_version: self.resource_version.to_string(),
            hostname: Some(name),
            addresses: self.spec.addresses.clone(),
            labels,
        }
    }
}

const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// What each Pod of a workload asks for.
pub(super) fn requests(spec: &WorkloadSpec) -> Resources {
    Resources {
        cpu: spec.cpu,
        memory: spec.memory,
        pods: 1,
        ..Resources::default()
    }
}

/// One Pod.
#[derive(Clone, Debug)]
pub(super) struct Pod {
    pub(super) id: PodId,
    /// Index of its workload.
    pub(super) workload: usize,
    pub(super) ordinal: Option<u32>,
    pub(super) node: Option<NodeName>,
    /// Its containers have run: from then on it is not Pending.
    pub(super) started: bool,
    pub(super) created_at: Timestamp,
    /// When it became Ready for the first time.
    pub(super) ready_at: Option<Timestamp>,
    pub(super) ready: bool,
    pub(super) finished: bool,
    /// It does not become Ready, whatever is done.
    pub(super) broken: bool,
    pub(super) deletion: Option<Timestamp>,
    /// Its containers have ended; only finalizers keep it.
    pub(super) stopped: bool,
    pub(super) finalizers: Vec<String>,
}

/// One workload with its Pods.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    pub(super) spec: WorkloadSpec,
    /// What the Pods name as their controller: for a Deployment its ReplicaSet.
    pub(super) owner: Option<Owner>,
    /// Nobody looks after its Pods any more.
    pub(super) gone: bool,
    /// By number.
    pub(super) pods: BTreeSet<u64>,
    /// By Pod name: disruptions that a budget has granted and no deletion has followed yet.
    pub(super) disrupted: BTreeMap<String, Timestamp>,
}

/// What happens at a time.
#[derive(Clone, Debug)]
pub(super) enum Transition {
    Ready(u64),
    Stopped(u64),
    /// A Node has been silent since then for too long.
    Abandon(NodeName, Timestamp),
    /// The scheduler, or a budget, sees something that it had not seen.
    Look,
}

/// What the watches have to show.
#[derive(Clone, Debug, Default)]
pub(super) struct Changed {
    pub(super) nodes: BTreeSet<NodeName>,
    pub(super) pods: bool,
    pub(super) lease: bool,
}

/// Everything in the cluster.
#[derive(Debug)]
pub(super) struct State {
    pub(super) options: SimulatedClusterOptions,
    pub(super) now: Timestamp,
    /// How far `now` may be behind the clock that it follows.
    pub(super) lag: Duration,
    pub(super) random: Random,
    pub(super) version: u64,
    pub(super) nodes: BTreeMap<NodeName, Node>,
    pub(super) workloads: Vec<Workload>,
    /// By number, in the order of their creation.
    pub(super) pods: BTreeMap<u64, Pod>,
    pub(super) unscheduled: BTreeSet<u64>,
    /// Workloads to be looked after, by index.
    pub(super) stale: BTreeSet<usize>,
    pub(super) agenda: BTreeMap<(Timestamp, u64), Transition>,
    pub(super) counter: u64,
    pub(super) changed: Changed,
    pub(super) log: VecDeque<super::Write>,
}

impl State {
    /// The cluster at its start: everything placed, everything Ready.
    pub(super) fn new(options: SimulatedClusterOptions) -> Self {
        let mut state = Self {
            now: options.start,
            lag: Duration::ZERO,
            random: Random::new(options.seed),
            version: 1,
            nodes: BTreeMap::new(),
            workloads: Vec::new(),
            pods: BTreeMap::new(),
            unscheduled: BTreeSet::new(),
            stale: BTreeSet::new(),
            agenda: BTreeMap::new(),
            counter: 0,
            changed: Changed::default(),
            log: VecDeque::new(),
            options,
        };
        for spec in state.options.nodes.clone() {
            let created_at = ago(state.now, spec.age);
            state.add_node(spec, created_at);
        }
        for spec in state.options.workloads.clone() {
            state.add_workload(spec);
        }
        // A StatefulSet starts its Pods one after the other, so that this takes some rounds.
        loop {
            state.reconcile();
            let waiting: Vec<u64> = state
                .pods
                .iter()
                .filter(|(_, pod)| pod.node.is_some() && !pod.started)
                .map(|(number, _)| *number)
                .collect();
            if waiting.is_empty() {
                break;
            }
            for number in waiting {
                state.becomes_ready(number);
            }
        }
        state.agenda.clear();
        state
    }

    pub(super) fn add_node(&mut self, spec: NodeSpec, created_at: Timestamp) {
        let control_plane = Taint {
            key: CONTROL_PLANE.to_owned(),
            value: String::new(),
            effect: TaintEffect::NoSchedule,
        };
        let node = Node {
            uid: self.random.uid(),
            created_at,
            ready: true,
            not_ready_since: None,
            cordoned: false,
            taints: Vec::from_iter(spec.control_plane.then_some(control_plane)),
            risk_label: None,
            record: RecordState::Absent,
            excluded: false,
            hold_until: None,
            taken_by: None,
            resource_version: 0,
            pods: BTreeSet::new(),
            scheduler_sees: None,
            spec,
        };
        let name = node.spec.name.clone();
        self.nodes.insert(name.clone(), node);
        self.touch_node(&name);
        self.node_changed_for_daemons();
    }

    pub(super) fn add_workload(&mut self, spec: WorkloadSpec) {
        let owner = |kind: &str, name: String, uid: Uid| {
            Some(Owner {
                group: "apps".to_owned(),
                kind: kind.to_owned(),
                name,
                uid,
            })
        };
        let uid = self.random.uid();
        let owner = match spec.controller {
            Controller::Deployment => {
                let hash = self.random.suffix(9);
                owner("ReplicaSet", format!("{}-{hash}", spec.name), uid)
            }
            Controller::StatefulSet => owner("StatefulSet", spec.name.clone(), uid),
            Controller::DaemonSet => owner("DaemonSet", spec.name.clone(), uid),
            Controller::None => None,
        };
        let bare = match spec.controller {
            Controller::None => spec.replicas,
            Controller::Deployment | Controller::StatefulSet | Controller::DaemonSet => 0,
        };
        let index = self.workloads.len();
        self.workloads.push(Workload {
            spec,
            owner,
            gone: false,
            pods: BTreeSet::new(),
            disrupted: BTreeMap::new(),
        });
        for ordinal in 0..bare {
            self.create_pod(index, Some(ordinal), None);
        }
        self.stale.insert(index);
    }

    /// The Pod of this namespace and name.
    pub(super) fn find_pod(&self, namespace: &str, name: &str) -> Option<u64> {
        self.pods
            .iter()
            .find(|(_, pod)| pod.id.name == name && pod.id.namespace == namespace)
            .map(|(number, _)| *number)
    }

    pub(super) fn facts(&self, pod: &Pod) -> PodFacts {
        let workload = &self.workloads[pod.workload];
        let spec = &workload.spec;
        let daemon_set = spec.controller == Controller::DaemonSet;
        PodFacts {
            id: pod.id.clone(),
            owner: workload.owner.clone(),
            workload: Ok(workload.owner.clone()),
            daemon_set_gone: daemon_set && workload.gone,
            mirror: false,
            finished: pod.finished,
            ready: pod.ready,
            terminating_until: pod.deletion,
            finalizers: pod.finalizers.clone(),
            grace: spec.grace,
            empty_dir: spec.empty_dir,
            local_volumes: spec.local_volumes,
            devices: Vec::new(),
            dependency: None,
            claims: Vec::from_iter(spec.claims.then(|| format!("data-{}", pod.id.name))),
            volumes: Vec::new(),
            critical: spec.critical,
            opted_out: spec.opted_out.clone(),
            tolerates_taint: spec.tolerations.tolerate(&self.options.taint),
            own: spec.own,
            budgets: Vec::new(),
            needs: Needs {
                requests: requests(spec),
                tolerations: spec.tolerations.listed(),
                node_selector: spec.node_selector.clone(),
                labels: BTreeMap::from([("app".to_owned(), spec.name.clone())]),
                ..Needs::default()
            },
        }
    }

    /// How it stands with the workload of this UID; over where there is none any more.
    pub(super) fn workload(&self, uid: &Uid) -> drain::Workload {
        let found = self.workloads.iter().find(|workload| {
            !workload.gone
                && workload
                    .owner
                    .as_ref()
                    .is_some_and(|owner| owner.uid == *uid)
        });
        let Some(found) = found else {
            return drain::Workload {
                over: true,
                ..drain::Workload::default()
            };
        };
        let pods = found.pods.iter().filter_map(|number| self.pods.get(number));
        let ready: Vec<&Pod> = pods
            .filter(|pod| pod.ready && pod.deletion.is_none() && !pod.finished)
            .collect();
        let fresh = ready.iter().filter_map(|pod| {
            let replica = drain::Replica {
                node: pod.node.clone()?,
                // A call creates Pods at the time of the last step.
                appeared_at: after(pod.created_at, self.lag),
                ready_at: pod.ready_at?,
            };
            Some((pod.id.uid.clone(), replica))
        });
        drain::Workload {
            wanted: Some(found.spec.replicas),
            fresh: fresh.collect(),
            on: ready
                .iter()
                .filter_map(|pod| Some((pod.id.uid.clone(), pod.node.clone()?)))
                .collect(),
            ready: ready.iter().map(|pod| pod.id.uid.clone()).collect(),
            over: false,
        }
    }

    /// The Pods of a Node with the budgets that cover them, by namespace and name.
    pub(super) fn pods_of(&self, node: &Node) -> Vec<PodFacts> {
        let mut pods: Vec<PodFacts> = node
            .pods
            .iter()
            .filter_map(|number| self.pods.get(number))
            .map(|pod| PodFacts {
                budgets: self.budgets_towards(pod),
                ..self.facts(pod)
            })
            .collect();
        pods.sort_by(|a, b| a.id.cmp(&b.id));
        pods
    }
}
