//! What a simulated cluster is made of.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use foreshock_core::node::NodeName;
use foreshock_core::record::{Taint, TaintEffect};
use foreshock_core::room::{Resources, Toleration};
use jiff::Timestamp;

/// How a simulated cluster is to be.
#[derive(Clone, Debug)]
pub struct SimulatedClusterOptions {
    /// The same seed gives the same names, UIDs and times.
    pub seed: u64,
    /// The time at which everything is placed and Ready.
    pub start: Timestamp,
    /// The Nodes.
    pub nodes: Vec<NodeSpec>,
    /// What runs on them.
    pub workloads: Vec<WorkloadSpec>,
    /// `kubernetes.instance` of the foreshock that looks at it: whose records are its own.
    pub instance: String,
    /// The taint of `policy.taint`: Pods that tolerate it say so in their facts.
    pub taint: Taint,
    /// From the binding of a Pod until it is Ready.
    pub ready_after: RangeInclusive<Duration>,
    /// From the deletion of a Pod until it is gone, where its grace period does not end before.
    pub gone_after: RangeInclusive<Duration>,
    /// How far the scheduler's view of taints and cordons is behind.
    pub scheduler_lag: Duration,
    /// The limit that a [`crate::kubernetes::ClusterError::Timeout`] names.
    pub call_timeout: Duration,
}

impl SimulatedClusterOptions {
    /// A cluster with the times of the test bed: Pods are Ready after 1–3 s and gone after 1–2 s.
    pub fn new(
        seed: u64,
        start: Timestamp,
        nodes: Vec<NodeSpec>,
        workloads: Vec<WorkloadSpec>,
    ) -> Self {
        Self {
            seed,
            start,
            nodes,
            workloads,
            instance: "foreshock".to_owned(),
            taint: Taint {
                key: "degradation".to_owned(),
                value: "true".to_owned(),
                effect: TaintEffect::NoSchedule,
            },
            ready_after: Duration::from_secs(1)..=Duration::from_secs(3),
            gone_after: Duration::from_secs(1)..=Duration::from_secs(2),
            scheduler_lag: Duration::ZERO,
            call_timeout: Duration::from_secs(10),
        }
    }

    /// The cluster of the demo.
    pub fn demo(seed: u64, start: Timestamp) -> Self {
        Self::new(seed, start, demo_nodes(), demo_workloads())
    }
}

/// A Node as it is to be.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    /// `metadata.name`; also its hostname.
    pub name: NodeName,
    /// `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// `status.capacity.pods`. Kubernetes' own default is 110.
    pub pods_max: usize,
    /// `status.allocatable` for `cpu`, in thousandths of a core.
    pub cpu: u64,
    /// `status.allocatable` for `memory`, in bytes.
    pub memory: u64,
    /// It has the control-plane role and the taint that goes with it.
    pub control_plane: bool,
    /// `status.addresses`.
    pub addresses: Vec<String>,
    /// Further labels.
    pub labels: BTreeMap<String, String>,
    /// How long it exists at the start.
    pub age: Duration,
}

impl NodeSpec {
    /// A worker with 4 cores and 16 GiB that exists for 30 days.
    pub fn worker(name: impl Into<NodeName>) -> Self {
        Self {
            name: name.into(),
            zone: None,
            pods_max: 110,
            cpu: 4_000,
            memory: 16 << 30,
            control_plane: false,
            addresses: Vec::new(),
            labels: BTreeMap::new(),
            age: Duration::from_secs(30 * 24 * 3600),
        }
    }

    /// `status.allocatable`.
    pub fn allocatable(&self) -> Resources {
        Resources {
            cpu: self.cpu,
            memory: self.memory,
            pods: self.pods_max as u64,
            ..Resources::default()
        }
    }

    /// In this zone.
    #[must_use]
    pub fn in_zone(mut self, zone: &str) -> Self {
        self.zone = Some(zone.to_owned());
        self
    }
}

/// What starts a workload's Pods again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    /// A Deployment: a Pod that begins to go is replaced at once, under another name.
    Deployment,
    /// A StatefulSet: a Pod is replaced under its name when it is gone, in the order of its ordinals.
    StatefulSet,
    /// A DaemonSet: one Pod on each Node whose taints it tolerates; `replicas` means nothing.
    DaemonSet,
    /// Nothing.
    None,
}

/// Which taints a Pod tolerates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tolerations {
    /// Those that Kubernetes adds by itself.
    #[default]
    Default,
    /// All of them.
    Everything,
    /// Those with these keys, whatever value and effect.
    Keys(Vec<String>),
}

impl Tolerations {
    /// Whether this taint is tolerated.
    pub fn tolerate(&self, taint: &Taint) -> bool {
        match self {
            Self::Default => false,
            Self::Everything => true,
            Self::Keys(keys) => keys.contains(&taint.key),
        }
    }

    /// As they stand in `spec.tolerations`.
    pub(super) fn listed(&self) -> Vec<Toleration> {
        let of = |key: Option<&String>| Toleration {
            key: key.cloned(),
            value: None,
            effect: None,
        };
        match self {
            Self::Default => Vec::new(),
            Self::Everything => vec![of(None)],
            Self::Keys(keys) => keys.iter().map(|key| of(Some(key))).collect(),
        }
    }
}

/// A number of Pods, or a share of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many.
    Count(u32),
    /// So many of a hundred, rounded up as the disruption controller does.
    Percent(u32),
}

impl Amount {
    /// How many of `of` that is.
    pub fn of(self, of: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => of.saturating_mul(percent).div_ceil(100),
        }
    }
}

/// What a PodDisruptionBudget demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetRule {
    /// `spec.maxUnavailable`.
    MaxUnavailable(Amount),
    /// `spec.minAvailable`.
    MinAvailable(Amount),
}

/// A PodDisruptionBudget over all Pods of one workload.
#[derive(Clone, Debug)]
pub struct BudgetSpec {
    /// Its name.
    pub name: String,
    /// What it demands.
    pub rule: BudgetRule,
    /// `unhealthyPodEvictionPolicy: AlwaysAllow`; otherwise `IfHealthyBudget`.
    pub always_allow_unhealthy: bool,
}

/// A workload as it is to be.
#[derive(Clone, Debug)]
pub struct WorkloadSpec {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// What starts its Pods again.
    pub controller: Controller,
    /// How many Pods.
    pub replicas: u32,
    /// The budgets over them: none or one, two where the overlap is the point.
    pub budgets: Vec<BudgetSpec>,
    /// Which taints its Pods tolerate.
    pub tolerations: Tolerations,
    /// What each asks for of `cpu`, in thousandths of a core.
    pub cpu: u64,
    /// What each asks for of `memory`, in bytes.
    pub memory: u64,
    /// Labels that their Node has to have (`spec.nodeSelector`).
    pub node_selector: BTreeMap<String, String>,
    /// Their grace period.
    pub grace: Duration,
    /// They have an emptyDir.
    pub empty_dir: bool,
    /// They have local volumes.
    pub local_volumes: bool,
    /// Each has a persistent volume claim `data-<pod>`.
    pub claims: bool,
    /// They are system-critical.
    pub critical: bool,
    /// The annotation by which they ask to be left alone.
    pub opted_out: Option<String>,
    /// They are foreshock itself.
    pub own: bool,
}

impl WorkloadSpec {
    /// A Deployment whose Pods ask for a tenth of a core and 128 MiB, with 30 s of grace and nothing special.
    pub fn deployment(namespace: &str, name: &str, replicas: u32) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            controller: Controller::Deployment,
            replicas,
            budgets: Vec::new(),
            tolerations: Tolerations::Default,
            cpu: 100,
            memory: 128 << 20,
            node_selector: BTreeMap::new(),
            grace: Duration::from_secs(30),
            empty_dir: false,
            local_volumes: false,
            claims: false,
            critical: false,
            opted_out: None,
            own: false,
        }
    }

    /// A StatefulSet whose Pods each have a claim.
    pub fn stateful_set(namespace: &str, name: &str, replicas: u32) -> Self {
        Self {
            controller: Controller::StatefulSet,
            claims: true,
            ..Self::deployment(namespace, name, replicas)
        }
    }

    /// A DaemonSet that tolerates everything.
    pub fn daemon_set(namespace: &str, name: &str) -> Self {
        Self {
            controller: Controller::DaemonSet,
            tolerations: Tolerations::Everything,
            ..Self::deployment(namespace, name, 0)
        }
    }

    /// Pods that nothing starts again.
    pub fn bare(namespace: &str, name: &str, replicas: u32) -> Self {
        Self {
            controller: Controller::None,
            ..Self::deployment(namespace, name, replicas)
        }
    }

    /// Each asks for so much, in thousandths of a core.
    #[must_use]
    pub fn with_cpu(self, cpu: u64) -> Self {
        Self { cpu, ..self }
    }

    /// Only on Nodes with this label.
    #[must_use]
    pub fn only_on(mut self, key: &str, value: &str) -> Self {
        self.node_selector.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Under a budget of its name with this `maxUnavailable`.
    #[must_use]
    pub fn max_unavailable(self, count: u32) -> Self {
        let rule = BudgetRule::MaxUnavailable(Amount::Count(count));
        self.budget(rule)
    }

    /// Under a budget of its name with this `minAvailable`.
    #[must_use]
    pub fn min_available(self, count: u32) -> Self {
        let rule = BudgetRule::MinAvailable(Amount::Count(count));
        self.budget(rule)
    }

    /// Under one more budget; the first has the workload's name.
    #[must_use]
    pub fn budget(mut self, rule: BudgetRule) -> Self {
        let name = match self.budgets.len() {
            0 => self.name.clone(),
            n => format!("{}-{}", self.name, n + 1),
        };
        self.budgets.push(BudgetSpec {
            name,
            rule,
            always_allow_unhealthy: false,
        });
        self
    }
}

/// Twelve workers in three zones.
pub fn demo_nodes() -> Vec<NodeSpec> {
    (0..12_u8)
        .map(|n| {
            let zone = format!("zone-{}", char::from(b'a' + n % 3));
            let mut node = NodeSpec::worker(format!("worker-{:02}", n + 1)).in_zone(&zone);
            node.addresses = vec![format!("10.0.0.{}", n + 11)];
            node
        })
        .collect()
}

/// A small shop: Deployments with and without budgets, a database, an exporter and a DNS.
pub fn demo_workloads() -> Vec<WorkloadSpec> {
    let deployment = WorkloadSpec::deployment;
    vec![
        deployment("shop", "web", 6).max_unavailable(1),
        deployment("shop", "checkout", 4).max_unavailable(1),
        deployment("shop", "cart", 3),
        deployment("shop", "search", 5).max_unavailable(2),
        deployment("shop", "recommendations", 4),
        deployment("shop", "images", 3),
        deployment("backoffice", "invoices", 2),
        deployment("backoffice", "reports", 2),
        deployment("backoffice", "mailer", 3),
        WorkloadSpec::stateful_set("shop", "orders-db", 3),
        WorkloadSpec::daemon_set("monitoring", "node-exporter"),
        WorkloadSpec {
            critical: true,
            ..deployment("kube-system", "coredns", 2).max_unavailable(1)
        },
    ]
}
