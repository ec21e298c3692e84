//! What a Pod asks of a Node, and what a Node has.

use std::collections::BTreeMap;
use std::fmt;

use crate::node::NodeName;
use crate::record::{Taint, TaintEffect};

/// Amounts of resources: what a Pod asks for, or what a Node has for Pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// `cpu`, in thousandths of a core.
    pub cpu: u64,
    /// `memory`, in bytes.
    pub memory: u64,
    /// `ephemeral-storage`, in bytes.
    pub ephemeral_storage: u64,
    /// `pods`: how many Pods. A Pod asks for one.
    pub pods: u64,
    /// Everything else by its name, in whole units: huge pages, extended resources such as
    /// `nvidia.com/gpu`. Zeros are left out.
    pub other: BTreeMap<String, u64>,
}

impl Resources {
    /// Every amount with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        let usual = [
            ("cpu", self.cpu),
            ("memory", self.memory),
            ("ephemeral-storage", self.ephemeral_storage),
            ("pods", self.pods),
        ];
        let other = self.other.iter();
        usual
            .into_iter()
            .chain(other.map(|(name, amount)| (name.as_str(), *amount)))
    }

    /// How much there is of one.
    pub fn of(&self, name: &str) -> u64 {
        match name {
            "cpu" => self.cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral_storage,
            "pods" => self.pods,
            name => self.other.get(name).copied().unwrap_or(0),
        }
    }

    /// Adds the amounts of the other.
    pub fn add(&mut self, more: &Self) {
        self.each(more, u64::saturating_add);
    }

    /// Takes the amounts of the other away; nothing is below zero.
    pub fn subtract(&mut self, less: &Self) {
        self.each(less, u64::saturating_sub);
    }

    /// Raises each amount to that of the other, where that is larger.
    pub fn raise(&mut self, to: &Self) {
        self.each(to, u64::max);
    }

    fn each(&mut self, other: &Self, change: impl Fn(u64, u64) -> u64) {
        self.cpu = change(self.cpu, other.cpu);
        self.memory = change(self.memory, other.memory);
        self.ephemeral_storage = change(self.ephemeral_storage, other.ephemeral_storage);
        self.pods = change(self.pods, other.pods);
        for (name, amount) in &other.other {
            let present = self.other.entry(name.clone()).or_default();
            *present = change(*present, *amount);
        }
    }

    /// The first resource of which more is asked for than there is. What is not asked for is not looked
    /// at: a Node may be overcommitted in it.
    pub fn lacking<'a>(&self, asked: &'a Self) -> Option<&'a str> {
        asked
            .iter()
            .find(|(name, amount)| *amount > 0 && *amount > self.of(name))
            .map(|(name, _)| name)
    }
}

/// What a Pod tolerates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toleration {
    /// The taint's key; every key where there is none.
    pub key: Option<String>,
    /// The taint's value; every value where there is none (`Exists`).
    pub value: Option<String>,
    /// The taint's effect; every effect where there is none.
    pub effect: Option<TaintEffect>,
}

impl Toleration {
    /// Whether it tolerates this taint, as the scheduler judges.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.key.as_ref().is_none_or(|key| *key == taint.key)
            && self
                .value
                .as_ref()
                .is_none_or(|value| *value == taint.value)
            && self.effect.is_none_or(|effect| effect == taint.effect)
    }
}

/// What a label has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// There, with one of these values.
    In(Vec<String>),
    /// Absent, or with none of these values.
    NotIn(Vec<String>),
    /// There.
    Exists,
    /// Absent.
    DoesNotExist,
    /// A whole number above this.
    Gt(i64),
    /// A whole number below this.
    Lt(i64),
    /// Nothing that this program understands; never met.
    Unknown,
}

/// What one label has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What it has to be.
    pub operator: Operator,
}

impl Requirement {
    /// Whether a label with this value, or an absent one, meets it.
    fn accepts(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.operator {
            Operator::In(values) => {
                value.is_some_and(|value| values.iter().any(|one| one == value))
            }
            Operator::NotIn(values) => {
                value.is_none_or(|value| values.iter().all(|one| one != value))
            }
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt(bound) => number().is_some_and(|number| number > *bound),
            Operator::Lt(bound) => number().is_some_and(|number| number < *bound),
            Operator::Unknown => false,
        }
    }

    /// Whether these labels meet it.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.accepts(labels.get(&self.key).map(String::as_str))
    }
}

/// One alternative of a node affinity: all of it has to be met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeTerm {
    /// By the Node's labels (`matchExpressions`).
    pub labels: Vec<Requirement>,
    /// By the Node's name (`matchFields`).
    pub name: Vec<Requirement>,
}

impl NodeTerm {
    /// Whether a Node is meant. An empty term means none.
    pub fn matches(&self, name: &NodeName, labels: &BTreeMap<String, String>) -> bool {
        let empty = self.labels.is_empty() && self.name.is_empty();
        !empty
            && self.labels.iter().all(|one| one.matches(labels))
            && self.name.iter().all(|one| one.accepts(Some(name.as_str())))
    }
}

/// Where the volume behind a claim can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeTopology {
    /// The claim's name.
    pub claim: String,
    /// One of these has to be met.
    pub terms: Vec<NodeTerm>,
}

/// A port of the Node itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Protocol.
    pub protocol: Protocol,
    /// Number.
    pub port: u16,
    /// The address; `None` is every one.
    pub address: Option<String>,
}

/// A protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl HostPort {
    /// Whether both cannot be had on one Node.
    pub fn collides_with(&self, other: &Self) -> bool {
        let addresses = match (&self.address, &other.address) {
            (Some(one), Some(other)) => one == other,
            (None, _) | (_, None) => true,
        };
        self.port == other.port && self.protocol == other.protocol && addresses
    }
}

/// Pods near which, or apart from which, a Pod wants to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodTerm {
    /// The label of Nodes that makes a domain: Nodes with the same value are one.
    pub topology_key: String,
    /// Pods of these namespaces; of all of them where there is none.
    pub namespaces: Option<Vec<String>>,
    /// Pods whose labels meet all of these; none at all where there is no selector.
    pub selector: Option<Vec<Requirement>>,
}

impl PodTerm {
    /// Whether a Pod of this namespace and with these labels is meant.
    pub fn matches(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        let of_namespace = self
            .namespaces
            .as_ref()
            .is_none_or(|all| all.iter().any(|one| one == namespace));
        of_namespace
            && self
                .selector
                .as_ref()
                .is_some_and(|all| all.iter().all(|one| one.matches(labels)))
    }
}

/// A topology spread constraint that is binding (`DoNotSchedule`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    /// Which Pods, of the Pod's own namespace, in which domains.
    pub over: PodTerm,
    /// How many more there may be in one domain than in the emptiest (`maxSkew`).
    pub skew_max: u32,
}

/// What a Pod asks of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Its requests as the scheduler counts them, the Pod itself (`pods` = 1) included.
    pub requests: Resources,
    /// `spec.tolerations`.
    pub tolerations: Vec<Toleration>,
    /// `spec.nodeSelector`.
    pub node_selector: BTreeMap<String, String>,
    /// Its required node affinity: one of these has to be met, if there are any at all.
    pub node_affinity: Option<Vec<NodeTerm>>,
    /// Where its volumes can be reached.
    pub volumes: Vec<VolumeTopology>,
    /// Its host ports.
    pub host_ports: Vec<HostPort>,
    /// Its own labels, by which others find it.
    pub labels: BTreeMap<String, String>,
    /// Required affinity to Pods.
    pub together: Vec<PodTerm>,
    /// Required anti-affinity to Pods.
    pub apart: Vec<PodTerm>,
    /// Binding topology spread.
    pub spread: Vec<Spread>,
    /// What it asks for that cannot be counted, in words: it fits nowhere that could be named.
    pub uncountable: Vec<String>,
}

impl Needs {
    /// Whether it tolerates this taint.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.tolerations.iter().any(|one| one.tolerates(taint))
    }

    /// Whether the taint keeps it out.
    pub fn kept_out_by(&self, taint: &Taint) -> bool {
        match taint.effect {
            TaintEffect::NoSchedule | TaintEffect::NoExecute => !self.tolerates(taint),
            TaintEffect::PreferNoSchedule => false,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}
