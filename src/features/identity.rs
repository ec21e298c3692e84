//! Which Node is this series? From the node_exporter targets to Nodes, or a refusal.
//!
//! A wrong answer here drains the wrong Node, so whatever is ambiguous is refused and reported, never
//! guessed: two targets under one `instance`, two instances of one Node, one name of several Nodes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use foreshock_core::node::NodeName;
use jiff::Timestamp;

use super::directory::{Named, NodeDirectory, host_of};

/// All labels of one series.
pub type Labels = BTreeMap<String, String>;

/// One `node_uname_info` series.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// All its labels, those of the scrape target and `nodename`.
    pub labels: Labels,
    /// When the exporter was scraped: the raw sample's own time, not the evaluation's.
    pub scraped_at: Timestamp,
}

/// What the identity queries brought, all at one evaluation time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sightings {
    /// Every `node_uname_info` series.
    pub targets: Vec<Target>,
    /// Labels of every `up` series of the same selector, 0 or 1: targets whose exporter is silent
    /// still tell which Node an alert's `instance` is.
    pub up: Vec<Labels>,
    /// Labels `instance` and `version` of every `node_exporter_build_info` series. Nothing here, or two
    /// versions under one instance, leaves the version unknown and is no fault.
    pub builds: Vec<Labels>,
    /// Where the exporters' Pods run, from `kube_pod_info`; a Pod seen on several Nodes has several
    /// entries.
    pub pods: Vec<PodOnNode>,
}

/// A Pod and the Node it runs on, as kube-state-metrics says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodOnNode {
    /// Namespace of the Pod.
    pub namespace: String,
    /// Name of the Pod.
    pub pod: String,
    /// Name of the Node.
    pub node: String,
}

/// By which of the steps, tried in this order, a target's Node was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The label `node` is the Node's name.
    NodeLabel,
    /// The host of `instance` is the Node's name.
    InstanceName,
    /// `kube_pod_info` says where the exporter's Pod runs.
    Pod,
    /// The host of `instance` is an address of the Node.
    Address,
    /// `nodename` is the Node's name or hostname label.
    Nodename,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NodeLabel => "label node",
            Self::InstanceName => "the Node's name in instance",
            Self::Pod => "kube_pod_info",
            Self::Address => "the Node's address in instance",
            Self::Nodename => "nodename",
        })
    }
}

/// Why a target belongs to no Node although it might.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Several targets share one `instance`: their series cannot be told apart.
    SharedInstance {
        /// The `instance`.
        instance: String,
        /// How many targets.
        targets: usize,
        /// Values of the label `cluster` among them; two or more when clusters are mixed.
        clusters: Vec<String>,
    },
    /// Several instances say they are one Node.
    SeveralInstances {
        /// The Node.
        node: NodeName,
        /// The instances, sorted.
        instances: Vec<String>,
        /// Values of the label `cluster` among them; two or more when clusters are mixed.
        clusters: Vec<String>,
    },
    /// A name or address of the target belongs to several Nodes.
    SeveralNodes {
        /// The `instance`.
        instance: String,
        /// The step that found them.
        step: Step,
    },
    /// The sample is older than the Node: it is of an earlier Node of this name.
    OlderThanNode {
        /// The `instance`.
        instance: String,
        /// The Node.
        node: NodeName,
    },
}

impl Refusal {
    /// Whether the cause is that one Prometheus serves several clusters and `prometheus.matchers`
    /// does not tell them apart.
    pub fn mixes_clusters(&self) -> bool {
        match self {
            Self::SharedInstance { clusters, .. } | Self::SeveralInstances { clusters, .. } => {
                clusters.len() > 1
            }
            Self::SeveralNodes { .. } | Self::OlderThanNode { .. } => false,
        }
    }

    /// A word for metrics: `shared_instance several_instances several_nodes older_than_node`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::SharedInstance { .. } => "shared_instance",
            Self::SeveralInstances { .. } => "several_instances",
            Self::SeveralNodes { .. } => "several_nodes",
            Self::OlderThanNode { .. } => "older_than_node",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mixed = |clusters: &[String]| match clusters.len() {
            0 | 1 => String::new(),
            _ => format!(" (label cluster: {})", clusters.join(", ")),
        };
        match self {
            Self::SharedInstance {
                instance,
                targets,
                clusters,
            } => write!(
                f,
                "{targets} targets share the instance {instance}{}",
                mixed(clusters)
            ),
            Self::SeveralInstances {
                node,
                instances,
                clusters,
            } => {
                let instances = instances.join(", ");
                write!(
                    f,
                    "Node {node} has several instances: {instances}{}",
                    mixed(clusters)
                )
            }
            Self::SeveralNodes { instance, step } => {
                write!(f, "instance {instance} matches several Nodes by {step}")
            }
            Self::OlderThanNode { instance, node } => {
                write!(
                    f,
                    "the last sample of {instance} is older than its Node {node}"
                )
            }
        }
    }
}

/// What was found out about the targets, for `check`, metrics and the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityReport {
    /// How many instances the identity queries showed.
    pub instances: usize,
    /// Series without a label `instance`, which belong to nobody.
    pub unlabelled: usize,
    /// What was refused, and why; sorted.
    pub refused: Vec<Refusal>,
    /// Instances that name no Node of this installation; sorted. Usual where Prometheus also
    /// scrapes machines outside the cluster.
    pub strangers: Vec<String>,
    /// Nodes whose exporter was not scraped within `stale_after`; sorted.
    pub stale: Vec<NodeName>,
    /// Nodes without any target; sorted.
    pub silent: Vec<NodeName>,
    /// By which step the Nodes were found, and how many.
    pub steps: BTreeMap<Step, usize>,
}

/// The fresh target of one Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreshTarget {
    /// Its `instance`.
    pub instance: String,
    /// When it was scraped.
    pub scraped_at: Timestamp,
    /// Label `job`: the scrape job that its samples come from.
    pub job: Option<Arc<str>>,
    /// Version of its node_exporter, where it says so.
    pub exporter: Option<Arc<str>>,
}

/// Whose a series is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner<'a> {
    /// This Node's.
    Node(&'a NodeName),
    /// One that was refused: nobody's.
    Refused,
    /// No Node's.
    Stranger,
}

/// instance → Node, at one evaluation time.
#[derive(Clone, Debug, Default)]
pub struct IdentityMap {
    by_instance: HashMap<String, NodeName>,
    fresh: BTreeMap<NodeName, FreshTarget>,
    refused_instances: BTreeSet<String>,
    refused_nodes: BTreeSet<NodeName>,
    report: IdentityReport,
}

impl IdentityMap {
    /// Finds the Node of every target.
    ///
    /// A target is fresh while its last scrape is younger than `stale_after` at `at`. Where there
    /// are fresh targets, only they can make an `instance` or a Node ambiguous: of an exporter that
    /// was replaced, the old series lingers for some minutes.
    pub fn resolve(
        directory: &NodeDirectory,
        at: Timestamp,
        stale_after: Duration,
        sightings: &Sightings,
    ) -> Self {
        let mut map = Self::default();
        let pods = pods_by_name(&sightings.pods);
        let instances = by_instance(sightings, at, stale_after, &mut map.report.unlabelled);
        map.report.instances = instances.len();
        let mut by_node: BTreeMap<NodeName, Vec<Candidate<'_>>> = BTreeMap::new();
        for (instance, seen) in &instances {
            match seen.resolve(directory, instance, &pods) {
                Ok(Some(candidate)) => {
                    by_node
                        .entry(candidate.node.clone())
                        .or_default()
                        .push(candidate);
                }
                Ok(None) => map.report.strangers.push((*instance).to_owned()),
                Err(refusal) => {
                    map.refused_instances.insert((*instance).to_owned());
                    map.report.refused.push(refusal);
                }
            }
        }
        let mut versions = Versions::of(&sightings.builds);
        for (node, candidates) in by_node {
            map.settle(node, &candidates, &mut versions);
        }
        for entry in directory.entries() {
            let seen = map.fresh.contains_key(&entry.name)
                || map.refused_nodes.contains(&entry.name)
                || map.report.stale.binary_search(&entry.name).is_ok();
            if !seen {
                map.report.silent.push(entry.name.clone());
            }
        }
        map.report.refused.sort();
        map
    }

    /// One Node and every instance that says it is it. Nodes come in the order of their names.
    fn settle(
        &mut self,
        node: NodeName,
        candidates: &[Candidate<'_>],
        versions: &mut Versions<'_>,
    ) {
        let mut counted: Vec<_> = candidates.iter().filter(|c| c.fresh).collect();
        if counted.is_empty() {
            counted = candidates.iter().collect();
        }
        let [only] = counted.as_slice() else {
            let instances: Vec<_> = counted.iter().map(|c| c.instance.to_owned()).collect();
            self.refused_instances.extend(instances.iter().cloned());
            self.refused_nodes.insert(node.clone());
            self.report.refused.push(Refusal::SeveralInstances {
                node,
                instances,
                clusters: clusters(counted.iter().map(|c| c.labels)),
            });
            return;
        };
        let instance = only.instance.to_owned();
        self.by_instance.insert(instance.clone(), node.clone());
        *self.report.steps.entry(only.step).or_default() += 1;
        match only.scraped_at {
            Some(scraped_at) if only.fresh => {
                self.fresh.insert(
                    node,
                    FreshTarget {
                        job: only.labels.get("job").map(|job| versions.shared(job)),
                        exporter: versions.of_instance(&instance),
                        instance,
                        scraped_at,
                    },
                );
            }
            Some(_) | None => self.report.stale.push(node),
        }
    }

    /// Every `instance` that is a Node's, and which.
    pub fn instances(&self) -> BTreeMap<String, NodeName> {
        self.by_instance
            .iter()
            .map(|(instance, node)| (instance.clone(), node.clone()))
            .collect()
    }

    /// The Node of exactly this node_exporter instance, fresh or silent. This is what an alert's
    /// label `instance` is looked up in.
    pub fn node_of_instance(&self, instance: &str) -> Option<&NodeName> {
        self.by_instance.get(instance)
    }

    /// The fresh target of a Node; `None` means that its whole row is missing.
    pub fn fresh(&self, node: &NodeName) -> Option<&FreshTarget> {
        self.fresh.get(node)
    }

    /// Every Node that some target was found for, by name: fresh, silent or refused.
    pub fn nodes(&self) -> BTreeSet<NodeName> {
        let silent = self.report.stale.iter().chain(&self.refused_nodes);
        self.fresh.keys().chain(silent).cloned().collect()
    }

    /// What was found out about the targets.
    pub fn report(&self) -> &IdentityReport {
        &self.report
    }

    /// Whose a series of a feature's column is: by label `node`, else by `instance`.
    ///
    /// `of_targets` says that the series are those of the node_exporter targets, so that nothing but
    /// this map knows their instances. Other series (probes, recording rules) may also name a Node
    /// or one of its addresses in the host of `instance`.
    pub fn owner<'a>(
        &'a self,
        directory: &'a NodeDirectory,
        node: Option<&str>,
        instance: Option<&str>,
        of_targets: bool,
    ) -> Owner<'a> {
        if let Some(name) = node.filter(|name| !name.is_empty()) {
            let listed = directory.entry(name).map(|e| &e.name);
            let seen = || self.fresh.get_key_value(name).map(|(name, _)| name);
            if let Some(name) = listed.or_else(seen) {
                return self.unless_refused(name);
            }
        }
        let Some(instance) = instance else {
            return Owner::Stranger;
        };
        if let Some(name) = self.by_instance.get(instance) {
            return Owner::Node(name);
        }
        if self.refused_instances.contains(instance) {
            return Owner::Refused;
        }
        if of_targets {
            return Owner::Stranger;
        }
        let host = host_of(instance);
        match directory
            .by_name(host)
            .or_else(|| directory.by_address(host))
        {
            Some(Named::One(i)) => self.unless_refused(&directory.entries()[i].name),
            Some(Named::Several) => Owner::Refused,
            None => match self.fresh.get_key_value(host) {
                Some((name, _)) if directory.is_open() => Owner::Node(name),
                Some(_) | None => Owner::Stranger,
            },
        }
    }

    fn unless_refused<'a>(&self, name: &'a NodeName) -> Owner<'a> {
        if self.refused_nodes.contains(name) {
            Owner::Refused
        } else {
            Owner::Node(name)
        }
    }
}

/// Whether `kube_pod_info` can be of use: some target names no Node before that step's turn, and has
/// a Pod to ask for.
pub fn needs_pods(directory: &NodeDirectory, sightings: &Sightings) -> bool {
    let mut all = sightings
        .targets
        .iter()
        .map(|t| &t.labels)
        .chain(&sightings.up);
    !directory.is_open()
        && all.any(|labels| {
            let named = labels
                .get("node")
                .is_some_and(|n| directory.entry(n).is_some())
                || labels
                    .get("instance")
                    .is_some_and(|i| directory.by_name(host_of(i)).is_some());
            !named && labels.contains_key("namespace") && labels.contains_key("pod")
        })
}

/// What each exporter says of its version. Texts that thousands of Nodes have in common are kept once.
struct Versions<'a> {
    by_instance: HashMap<&'a str, Option<&'a str>>,
    texts: BTreeSet<Arc<str>>,
}

impl<'a> Versions<'a> {
    fn of(builds: &'a [Labels]) -> Self {
        let mut by_instance = HashMap::new();
        for labels in builds {
            let Some((instance, version)) = labels.get("instance").zip(labels.get("version"))
            else {
                continue;
            };
            by_instance
                .entry(instance.as_str())
                .and_modify(|known: &mut Option<&str>| *known = known.filter(|v| v == version))
                .or_insert(Some(version.as_str()));
        }
        Self {
            by_instance,
            texts: BTreeSet::new(),
        }
    }

    fn of_instance(&mut self, instance: &str) -> Option<Arc<str>> {
        let version = self.by_instance.get(instance).copied().flatten()?;
        Some(self.shared(version))
    }

    fn shared(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        let text: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&text));
        text
    }
}

/// A target that names one Node.
struct Candidate<'a> {
    node: NodeName,
    instance: &'a str,
    labels: &'a Labels,
    step: Step,
    scraped_at: Option<Timestamp>,
    fresh: bool,
}

/// Everything seen under one `instance`.
#[derive(Default)]
struct Seen<'a> {
    fresh: Vec<&'a Target>,
    old: Vec<&'a Target>,
    up: Vec<&'a Labels>,
}

/// (namespace, Pod) → Node; `None` for a Pod that was seen on several.
type PodIndex<'a> = HashMap<(&'a str, &'a str), Option<&'a str>>;

impl<'a> Seen<'a> {
    /// The Node that these sightings mean; `None` if they mean no Node of the directory.
    fn resolve(
        &self,
        directory: &NodeDirectory,
        instance: &'a str,
        pods: &PodIndex<'_>,
    ) -> Result<Option<Candidate<'a>>, Refusal> {
        let (labels, scraped_at, fresh) = self.only(instance)?;
        let Some((node, step)) = node_of(directory, instance, labels, pods)? else {
            return Ok(None);
        };
        let created = directory.entry(node.as_str()).map(|e| e.created);
        if scraped_at
            .zip(created)
            .is_some_and(|(scraped_at, created)| scraped_at < created)
        {
            let instance = instance.to_owned();
            return Err(Refusal::OlderThanNode { instance, node });
        }
        Ok(Some(Candidate {
            node,
            instance,
            labels,
            step,
            scraped_at,
            fresh,
        }))
    }

    /// The one target that speaks for the instance: a fresh one before an old, an old before one
    /// that was never scraped.
    fn only(&self, instance: &str) -> Result<(&'a Labels, Option<Timestamp>, bool), Refusal> {
        let refused = |labels: Vec<&'a Labels>| Refusal::SharedInstance {
            instance: instance.to_owned(),
            targets: labels.len(),
            clusters: clusters(labels.into_iter()),
        };
        for (targets, fresh) in [(&self.fresh, true), (&self.old, false)] {
            match targets.as_slice() {
                [] => {}
                [only] => return Ok((&only.labels, Some(only.scraped_at), fresh)),
                several => return Err(refused(several.iter().map(|t| &t.labels).collect())),
            }
        }
        match self.up.as_slice() {
            [only] => Ok((only, None, false)),
            several => Err(refused(several.to_vec())),
        }
    }
}

fn by_instance<'a>(
    sightings: &'a Sightings,
    at: Timestamp,
    stale_after: Duration,
    unlabelled: &mut usize,
) -> BTreeMap<&'a str, Seen<'a>> {
    let mut instances: BTreeMap<&str, Seen<'_>> = BTreeMap::new();
    for target in &sightings.targets {
        let Some(instance) = target.labels.get("instance") else {
            *unlabelled += 1;
            continue;
        };
        let seen = instances.entry(instance).or_default();
        let age = at.duration_since(target.scraped_at);
        if age.is_negative() || age.unsigned_abs() < stale_after {
            seen.fresh.push(target);
        } else {
            seen.old.push(target);
        }
    }
    for labels in &sightings.up {
        match labels.get("instance") {
            Some(instance) => instances.entry(instance).or_default().up.push(labels),
            None => *unlabelled += 1,
        }
    }
    instances
}

fn pods_by_name(pods: &[PodOnNode]) -> PodIndex<'_> {
    let mut index = PodIndex::new();
    for pod in pods {
        index
            .entry((&pod.namespace, &pod.pod))
            .and_modify(|node| *node = node.filter(|node| *node == pod.node))
            .or_insert(Some(&pod.node));
    }
    index
}

fn node_of(
    directory: &NodeDirectory,
    instance: &str,
    labels: &Labels,
    pods: &PodIndex<'_>,
) -> Result<Option<(NodeName, Step)>, Refusal> {
    let label = |name: &str| {
        labels
            .get(name)
            .map(String::as_str)
            .filter(|v| !v.is_empty())
    };
    let host = Some(host_of(instance)).filter(|host| !host.is_empty());
    if directory.is_open() {
        let named = [
            (label("node"), Step::NodeLabel),
            (label("nodename"), Step::Nodename),
            (host, Step::InstanceName),
        ];
        let first = named
            .into_iter()
            .find_map(|(name, step)| Some((name?, step)));
        return Ok(first.map(|(name, step)| (NodeName::from(name), step)));
    }
    if let Some(entry) = label("node").and_then(|name| directory.entry(name)) {
        return Ok(Some((entry.name.clone(), Step::NodeLabel)));
    }
    let pod = label("namespace").zip(label("pod"));
    let pod_node = match pod.and_then(|pod| pods.get(&pod)) {
        Some(Some(node)) => directory.by_name(node),
        Some(None) => Some(Named::Several),
        None => None,
    };
    let steps = [
        (host.and_then(|h| directory.by_name(h)), Step::InstanceName),
        (pod_node, Step::Pod),
        (host.and_then(|h| directory.by_address(h)), Step::Address),
        (
            label("nodename").and_then(|n| directory.by_nodename(n)),
            Step::Nodename,
        ),
    ];
    for (named, step) in steps {
        match named {
            None => {}
            Some(Named::One(i)) => {
                return Ok(Some((directory.entries()[i].name.clone(), step)));
            }
            Some(Named::Several) => {
                let instance = instance.to_owned();
                return Err(Refusal::SeveralNodes { instance, step });
            }
        }
    }
    Ok(None)
}

fn clusters<'a>(labels: impl Iterator<Item = &'a Labels>) -> Vec<String> {
    let values: BTreeSet<_> = labels.filter_map(|l| l.get("cluster")).collect();
    values.into_iter().cloned().collect()
}
