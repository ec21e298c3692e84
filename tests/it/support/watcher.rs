//! Watches a cluster as a bystander would, and judges afterwards what was done to it.
//!
//! It must share no code with the program: it is the second opinion.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Api;
use kube::runtime::watcher::{self, Event};

use super::wait_for;

/// One thing that was seen to happen.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    /// When the watch told of it, by the clock of the test.
    pub(crate) at: Timestamp,
    pub(crate) kind: Kind,
    /// `namespace/name`, or the name of a Node.
    pub(crate) object: String,
    pub(crate) uid: String,
    pub(crate) what: What,
}

/// The kind of the object that a [`Moment`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Node,
    Pod,
    Budget,
}

/// What happened to the object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum What {
    /// First seen: new, or there when the watch began.
    Appeared,
    /// A Pod was bound to a Node.
    Bound {
        node: String,
    },
    Ready(bool),
    /// A Pod was deleted and has its grace period to end.
    Terminating {
        node: String,
    },
    /// Removed from the API, from this Node if it is a Pod that had one.
    Gone {
        node: String,
    },
    /// Each taint as `key=value:Effect`.
    Taints {
        before: BTreeSet<String>,
        after: BTreeSet<String>,
    },
    Cordoned(bool),
    /// A budget's status as the control plane gives it.
    Budget {
        expected: i32,
        desired: i32,
        healthy: i32,
        allowed: i32,
    },
    /// Fewer Pods were healthy than the budget demands, as counted here.
    BudgetBroken {
        desired: i32,
        healthy: i32,
    },
    /// The watch was interrupted: what happened meanwhile is known only by its outcome.
    WatchBroken(String),
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} {:?} {}: ", self.at, self.kind, self.object)?;
        let list =
            |taints: &BTreeSet<String>| taints.iter().cloned().collect::<Vec<_>>().join(", ");
        match &self.what {
            What::Appeared => write!(f, "appeared"),
            What::Bound { node } => write!(f, "bound to {node}"),
            What::Ready(ready) => write!(f, "ready {ready}"),
            What::Terminating { node } => write!(f, "terminating on {node}"),
            What::Gone { node } => write!(f, "gone from {node}"),
            What::Taints { before, after } => {
                write!(f, "taints [{}] -> [{}]", list(before), list(after))
            }
            What::Cordoned(cordoned) => write!(f, "cordoned {cordoned}"),
            What::Budget {
                expected,
                desired,
                healthy,
                allowed,
            } => write!(
                f,
                "{healthy} of {expected} healthy, {desired} desired, {allowed} disruptions allowed"
            ),
            What::BudgetBroken { desired, healthy } => {
                write!(f, "BROKEN: {healthy} healthy, {desired} desired")
            }
            What::WatchBroken(error) => write!(f, "watch broken: {error}"),
        }
    }
}

/// The record of one PodDisruptionBudget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BudgetRecord {
    /// Pods that it counts on, as the control plane last said.
    pub(crate) expected: i32,
    /// Pods that must be healthy, as the control plane last said.
    pub(crate) desired: i32,
    /// The fewest that were healthy at any moment since it was first kept.
    pub(crate) healthy_min: i32,
    /// The most that were missing at any moment since it was first kept.
    pub(crate) unavailable_max: i32,
    /// How often it was broken.
    pub(crate) broken: usize,
}

/// A bystander of a cluster. It stops watching when it is dropped, and tells what it saw when the test
/// panics.
#[derive(Debug)]
pub(crate) struct Watcher {
    scene: Arc<Mutex<Scene>>,
    task: tokio::task::JoinHandle<()>,
}

impl Watcher {
    /// Begins to watch; when it returns, everything that exists has been seen.
    pub(crate) async fn start(client: kube::Client) -> Self {
        let scene = Arc::new(Mutex::new(Scene::default()));
        let task = tokio::spawn(watch(client, Arc::clone(&scene)));
        let watcher = Self { scene, task };
        wait_for(
            "the first lists of the watcher",
            Duration::from_secs(60),
            async || (watcher.scene().listed.len() == 3).then_some(()),
        )
        .await;
        watcher
    }

    fn scene(&self) -> MutexGuard<'_, Scene> {
        // A panic elsewhere leaves the record as useful as it was.
        self.scene
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Everything seen so far, oldest first.
    pub(crate) fn timeline(&self) -> Vec<Moment> {
        self.scene().timeline.clone()
    }

    /// What was seen after the first `seen` moments, for reading on and on.
    pub(crate) fn timeline_after(&self, seen: usize) -> Vec<Moment> {
        self.scene()
            .timeline
            .get(seen..)
            .map_or_else(Vec::new, <[Moment]>::to_vec)
    }

    /// How many moments there are so far.
    pub(crate) fn moments(&self) -> usize {
        self.scene().timeline.len()
    }

    /// The timeline as text, a line for each moment.
    pub(crate) fn timeline_text(&self) -> String {
        self.scene()
            .timeline
            .iter()
            .map(|moment| format!("{moment}\n"))
            .collect()
    }

    /// `namespace/name` of each PodDisruptionBudget, and what became of it.
    pub(crate) fn budgets(&self) -> BTreeMap<String, BudgetRecord> {
        let scene = self.scene();
        scene
            .budgets
            .iter()
            .map(|(name, budget)| (name.clone(), budget.record.clone()))
            .collect()
    }

    /// Panics if at any moment, since a budget was first kept, fewer Pods were healthy than it demands, or
    /// if a budget never was kept at all.
    pub(crate) fn assert_budgets_kept(&self) {
        let scene = self.scene();
        let broken: Vec<String> = scene
            .timeline
            .iter()
            .filter(|moment| matches!(moment.what, What::BudgetBroken { .. }))
            .map(ToString::to_string)
            .collect();
        let never: Vec<&String> = scene
            .budgets
            .iter()
            .filter(|(_, budget)| !budget.armed)
            .map(|(name, _)| name)
            .collect();
        assert!(broken.is_empty(), "budgets broken:\n{}", broken.join("\n"));
        assert!(never.is_empty(), "budgets that were never kept: {never:?}");
    }

    /// Pods that were deleted while on a Node: `namespace/name` and UID, in the order of their deletion.
    pub(crate) fn pods_deleted(&self, node: &str) -> Vec<(String, String)> {
        let mut seen = BTreeSet::new();
        self.scene()
            .timeline
            .iter()
            .filter(|moment| {
                moment.kind == Kind::Pod
                    && matches!(&moment.what, What::Terminating { node: on } | What::Gone { node: on } if on == node)
            })
            // A Pod that goes without a grace period is never seen terminating.
            .filter(|moment| seen.insert(moment.uid.clone()))
            .map(|moment| (moment.object.clone(), moment.uid.clone()))
            .collect()
    }

    /// The changes to the taints of a Node: when, before and after.
    pub(crate) fn taint_changes(
        &self,
        node: &str,
    ) -> Vec<(Timestamp, BTreeSet<String>, BTreeSet<String>)> {
        self.scene()
            .timeline
            .iter()
            .filter(|moment| moment.kind == Kind::Node && moment.object == node)
            .filter_map(|moment| match &moment.what {
                What::Taints { before, after } => Some((moment.at, before.clone(), after.clone())),
                _ => None,
            })
            .collect()
    }

    /// The Pods that are on a Node now, terminating ones included: `namespace/name` and UID.
    pub(crate) fn pods_on(&self, node: &str) -> Vec<(String, String)> {
        self.scene()
            .pods
            .iter()
            .filter(|(_, pod)| pod.node == node)
            .map(|(name, pod)| (name.clone(), pod.uid.clone()))
            .collect()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
        if std::thread::panicking() {
            eprintln!("what the watcher saw:\n{}", self.timeline_text());
        }
    }
}

#[derive(Debug, Default)]
struct Scene {
    timeline: Vec<Moment>,
    listed: BTreeSet<&'static str>,
    nodes: BTreeMap<String, NodeSeen>,
    pods: BTreeMap<String, PodSeen>,
    budgets: BTreeMap<String, BudgetSeen>,
    /// Names met in the list that is being read; those that it lacks are gone.
    relisted: BTreeMap<&'static str, BTreeSet<String>>,
}

#[derive(Debug, Default)]
struct NodeSeen {
    uid: String,
    ready: bool,
    cordoned: bool,
    taints: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct PodSeen {
    uid: String,
    labels: BTreeMap<String, String>,
    node: String,
    ready: bool,
    terminating: bool,
}

#[derive(Debug, Default)]
struct BudgetSeen {
    uid: String,
    selector: LabelSelector,
    status: (i32, i32, i32, i32),
    /// Whether it has ever been kept: a new workload starts below its budget.
    armed: bool,
    /// Whether the last count broke it, so that one breach is one moment.
    broken: bool,
    record: BudgetRecord,
}

async fn watch(client: kube::Client, scene: Arc<Mutex<Scene>>) {
    let lock = || {
        scene
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    };
    let config = watcher::Config::default;
    let mut nodes = watcher::watcher(Api::<Node>::all(client.clone()), config()).boxed();
    let mut pods = watcher::watcher(Api::<Pod>::all(client.clone()), config()).boxed();
    let mut budgets = watcher::watcher(Api::<PodDisruptionBudget>::all(client), config()).boxed();
    loop {
        let failed = tokio::select! {
            Some(event) = nodes.next() => {
                lock().take("nodes", event, Scene::node, Scene::node_gone)
            }
            Some(event) = pods.next() => {
                lock().take("pods", event, Scene::pod, Scene::pod_gone)
            }
            Some(event) = budgets.next() => {
                lock().take("budgets", event, Scene::budget, Scene::budget_gone)
            }
            else => return,
        };
        if failed {
            // Instead of the backoff of kube's runtime: on loopback its seconds would hide more than they
            // spare.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Scene {
    /// Takes in one event of a watch; whether it was an error.
    fn take<K: kube::ResourceExt>(
        &mut self,
        watch: &'static str,
        event: watcher::Result<Event<K>>,
        seen: fn(&mut Self, &str, &K),
        gone: fn(&mut Self, &str),
    ) -> bool {
        let name = |object: &K| match object.namespace() {
            Some(namespace) => format!("{namespace}/{}", object.name_any()),
            None => object.name_any(),
        };
        match event {
            Ok(Event::Apply(object)) => seen(self, &name(&object), &object),
            Ok(Event::Delete(object)) => {
                // The object as it was when it went: it may differ from the last that was seen of it.
                seen(self, &name(&object), &object);
                gone(self, &name(&object));
            }
            Ok(Event::Init) => {
                self.relisted.insert(watch, BTreeSet::new());
            }
            Ok(Event::InitApply(object)) => {
                let name = name(&object);
                seen(self, &name, &object);
                self.relisted.entry(watch).or_default().insert(name);
            }
            Ok(Event::InitDone) => {
                let there = self.relisted.remove(watch).unwrap_or_default();
                let known: Vec<String> = match watch {
                    "nodes" => self.nodes.keys().cloned().collect(),
                    "pods" => self.pods.keys().cloned().collect(),
                    _ => self.budgets.keys().cloned().collect(),
                };
                for name in known.iter().filter(|name| !there.contains(*name)) {
                    gone(self, name);
                }
                self.listed.insert(watch);
            }
            Err(error) => {
                let kind = match watch {
                    "nodes" => Kind::Node,
                    "pods" => Kind::Pod,
                    _ => Kind::Budget,
                };
                self.add(kind, watch, "", What::WatchBroken(error.to_string()));
                return true;
            }
        }
        false
    }

    fn add(&mut self, kind: Kind, object: &str, uid: &str, what: What) {
        self.timeline.push(Moment {
            at: Timestamp::now(),
            kind,
            object: object.to_owned(),
            uid: uid.to_owned(),
            what,
        });
    }

    fn node(&mut self, name: &str, node: &Node) {
        let uid = node.metadata.uid.clone().unwrap_or_default();
        let spec = node.spec.clone().unwrap_or_default();
        let now = NodeSeen {
            uid: uid.clone(),
            ready: node
                .status
                .iter()
                .flat_map(|status| status.conditions.iter().flatten())
                .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            cordoned: spec.unschedulable.unwrap_or_default(),
            taints: spec
                .taints
                .iter()
                .flatten()
                .map(|taint| {
                    let value = taint.value.as_deref().unwrap_or_default();
                    format!("{}={value}:{}", taint.key, taint.effect)
                })
                .collect(),
        };
        if self.nodes.get(name).is_some_and(|before| before.uid != uid) {
            self.node_gone(name);
        }
        let before = self.nodes.remove(name).unwrap_or_else(|| {
            self.add(Kind::Node, name, &uid, What::Appeared);
            NodeSeen::default()
        });
        if before.ready != now.ready {
            self.add(Kind::Node, name, &uid, What::Ready(now.ready));
        }
        if before.cordoned != now.cordoned {
            self.add(Kind::Node, name, &uid, What::Cordoned(now.cordoned));
        }
        if before.taints != now.taints {
            let (before, after) = (before.taints, now.taints.clone());
            self.add(Kind::Node, name, &uid, What::Taints { before, after });
        }
        self.nodes.insert(name.to_owned(), now);
    }

    fn node_gone(&mut self, name: &str) {
        if let Some(node) = self.nodes.remove(name) {
            let what = What::Gone {
                node: name.to_owned(),
            };
            self.add(Kind::Node, name, &node.uid, what);
        }
    }

    fn pod(&mut self, name: &str, pod: &Pod) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let now = PodSeen {
            uid: uid.clone(),
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            node: pod
                .spec
                .as_ref()
                .and_then(|spec| spec.node_name.clone())
                .unwrap_or_default(),
            ready: pod
                .status
                .iter()
                .flat_map(|status| status.conditions.iter().flatten())
                .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            terminating: pod.metadata.deletion_timestamp.is_some(),
        };
        if self.pods.get(name).is_some_and(|before| before.uid != uid) {
            self.pod_gone(name);
        }
        let before = self.pods.remove(name).unwrap_or_else(|| {
            self.add(Kind::Pod, name, &uid, What::Appeared);
            PodSeen::default()
        });
        let node = now.node.clone();
        if before.node != now.node {
            self.add(Kind::Pod, name, &uid, What::Bound { node: node.clone() });
        }
        if before.ready != now.ready {
            self.add(Kind::Pod, name, &uid, What::Ready(now.ready));
        }
        if before.terminating != now.terminating {
            self.add(Kind::Pod, name, &uid, What::Terminating { node });
        }
        let labels = (before.labels == now.labels).then(|| now.labels.clone());
        self.pods.insert(name.to_owned(), now);
        self.count(name, labels.as_ref());
    }

    fn pod_gone(&mut self, name: &str) {
        if let Some(pod) = self.pods.remove(name) {
            self.add(Kind::Pod, name, &pod.uid, What::Gone { node: pod.node });
            self.count(name, Some(&pod.labels));
        }
    }

    fn budget(&mut self, name: &str, budget: &PodDisruptionBudget) {
        let uid = budget.metadata.uid.clone().unwrap_or_default();
        if self
            .budgets
            .get(name)
            .is_some_and(|before| before.uid != uid)
        {
            self.budget_gone(name);
        }
        if !self.budgets.contains_key(name) {
            self.add(Kind::Budget, name, &uid, What::Appeared);
        }
        let seen = self.budgets.entry(name.to_owned()).or_default();
        seen.uid.clone_from(&uid);
        seen.selector = budget
            .spec
            .as_ref()
            .and_then(|spec| spec.selector.clone())
            .unwrap_or_default();
        if let Some(status) = &budget.status {
            let now = (
                status.expected_pods,
                status.desired_healthy,
                status.current_healthy,
                status.disruptions_allowed,
            );
            if seen.status != now {
                seen.status = now;
                seen.record.expected = now.0;
                seen.record.desired = now.1;
                let what = What::Budget {
                    expected: now.0,
                    desired: now.1,
                    healthy: now.2,
                    allowed: now.3,
                };
                self.add(Kind::Budget, name, &uid, what);
            }
        }
        self.count(name, None);
    }

    fn budget_gone(&mut self, name: &str) {
        if let Some(budget) = self.budgets.remove(name) {
            let what = What::Gone {
                node: String::new(),
            };
            self.add(Kind::Budget, name, &budget.uid, what);
        }
    }

    /// Counts the healthy Pods of every budget in the namespace of `object`, or of those that select these
    /// labels: a Pod that has them is all that has changed.
    ///
    /// How many must be healthy is taken from the budget's status, because it changes only with the size of
    /// the workload; how many are is counted here, because the status comes later than the Pods. All Pods
    /// come through one watch, in the order in which they changed, so no count mixes two moments.
    fn count(&mut self, object: &str, labels: Option<&BTreeMap<String, String>>) {
        let Some((namespace, _)) = object.split_once('/') else {
            return;
        };
        let of_namespace = |name: &str| {
            name.split_once('/')
                .is_some_and(|(other, _)| other == namespace)
        };
        let mut broken = Vec::new();
        for (name, budget) in &mut self.budgets {
            let (expected, desired, ..) = budget.status;
            if !of_namespace(name) || expected == 0 {
                continue;
            }
            if labels.is_some_and(|labels| !selects(&budget.selector, labels)) {
                continue;
            }
            let count = self
                .pods
                .iter()
                .filter(|(name, pod)| {
                    of_namespace(name)
                        && pod.ready
                        && !pod.terminating
                        && selects(&budget.selector, &pod.labels)
                })
                .count();
            let healthy = i32::try_from(count).unwrap_or(i32::MAX);
            if !budget.armed {
                if healthy < desired {
                    continue;
                }
                budget.armed = true;
                budget.record.healthy_min = healthy;
            }
            budget.record.healthy_min = budget.record.healthy_min.min(healthy);
            budget.record.unavailable_max = budget.record.unavailable_max.max(expected - healthy);
            if healthy < desired && !budget.broken {
                budget.record.broken += 1;
                let what = What::BudgetBroken { desired, healthy };
                broken.push((name.clone(), budget.uid.clone(), what));
            }
            budget.broken = healthy < desired;
        }
        for (name, uid, what) in broken {
            self.add(Kind::Budget, &name, &uid, what);
        }
    }
}

/// Whether a label selector of `policy/v1` selects these labels; an empty one selects everything.
fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    let expressions = selector.match_expressions.iter().flatten().all(|wanted| {
        let value = labels.get(&wanted.key);
        let listed =
            value.is_some_and(|value| wanted.values.iter().flatten().any(|one| one == value));
        match wanted.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            other => panic!("a label selector has the operator `{other}`"),
        }
    });
    equal && expressions
}
