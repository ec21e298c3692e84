//! The same Node drained by `kubectl drain` and by foreshock, in turns, and each of foreshock's drains held
//! against the fastest that it could have been.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use crate::limit::{Group, Leaving, MaxUnavailable, fastest};
use crate::scene::{LIMIT, Scene};
use crate::support::cluster::{budget, deployment};
use crate::support::wait_until;
use crate::support::watcher::{Kind, Moment, What};

/// What is on the Node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// 12 Pods: 3 of one owner under `maxUnavailable: 1`, 9 of nine owners without a budget.
    Pdb,
    /// 110 Pods: 55 of five Deployments of 22 replicas under `maxUnavailable: 10%`, 55 of as many owners.
    Budget10,
    /// 12 Pods of 12 owners, without a budget.
    Plain,
}

/// A Deployment.
#[derive(Clone, Debug)]
struct Workload {
    name: String,
    replicas: usize,
    /// How many of them are on the Node that is drained.
    on_node: usize,
    budget: Option<MaxUnavailable>,
}

impl Layout {
    pub(crate) const ALL: [Self; 3] = [Self::Pdb, Self::Budget10, Self::Plain];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pdb => "pdb",
            Self::Budget10 => "budget10",
            Self::Plain => "plain",
        }
    }

    /// foreshock's time is at most so much of kubectl's.
    pub(crate) fn ratio_max(self) -> f64 {
        match self {
            Self::Pdb => 0.5,
            Self::Budget10 => 0.3,
            Self::Plain => 1.05,
        }
    }

    fn workloads(self) -> Vec<Workload> {
        let singles = |count: usize| {
            (1..=count).map(|n| Workload {
                name: format!("single{n:02}"),
                replicas: 1,
                on_node: 1,
                budget: None,
            })
        };
        let paced = |n: usize, replicas: usize, on_node: usize, budget: MaxUnavailable| Workload {
            name: format!("paced{n}"),
            replicas,
            on_node,
            budget: Some(budget),
        };
        match self {
            Self::Pdb => std::iter::once(paced(1, 3, 3, MaxUnavailable::Count(1)))
                .chain(singles(9))
                .collect(),
            Self::Budget10 => (1..=5)
                .map(|n| paced(n, 22, 11, MaxUnavailable::Percent(10)))
                .chain(singles(55))
                .collect(),
            Self::Plain => singles(12).collect(),
        }
    }
}

/// What came of one pair of drains.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    /// From the start of its process to the last Pod gone.
    pub(crate) kubectl: Duration,
    /// From its first eviction request to the last Pod gone.
    pub(crate) foreshock: Duration,
    /// The same run of foreshock's with nothing but the cluster's own time.
    pub(crate) fastest: Duration,
}

/// A Node that is laid out and waits for its drain.
struct Ready {
    namespace: String,
    nodes: Vec<String>,
    /// UIDs of its Pods.
    pods: BTreeSet<String>,
    /// How much the watcher had seen.
    seen: usize,
}

/// One drain by each.
pub(crate) async fn pair(scene: &mut Scene, layout: Layout, round: usize) -> Pair {
    let by_kubectl = lay_out(scene, layout, &format!("{}-k{round}", layout.name())).await;
    let kubectl = drain_by_kubectl(scene, &by_kubectl).await;
    settle(scene, &by_kubectl).await;
    scene.clear(&by_kubectl.namespace, &by_kubectl.nodes).await;

    let by_foreshock = lay_out(scene, layout, &format!("{}-f{round}", layout.name())).await;
    let foreshock = drain_by_foreshock(scene, &by_foreshock).await;
    settle(scene, &by_foreshock).await;
    let moments = scene.watcher.timeline_after(by_foreshock.seen);
    let groups = groups(layout, &by_foreshock, &moments);
    let fastest = fastest(&groups).unwrap_or_else(|error| panic!("{layout:?}: {error}"));
    scene
        .clear(&by_foreshock.namespace, &by_foreshock.nodes)
        .await;
    Pair {
        kubectl,
        foreshock,
        fastest,
    }
}

/// A new Node with new Pods. The others take Pods only once it has all of its own.
async fn lay_out(scene: &Scene, layout: Layout, name: &str) -> Ready {
    let workloads = layout.workloads();
    scene.cluster.kubectl(&["create", "namespace", name]).await;
    let nodes = scene.nodes(name, 1, "110").await;
    scene.open_room(false).await;
    let manifests: Vec<String> = workloads
        .iter()
        .map(|workload| deployment(name, &workload.name, workload.on_node))
        .collect();
    scene.cluster.apply(&manifests.join("\n---\n")).await;
    let on_node: usize = workloads.iter().map(|workload| workload.on_node).sum();
    scene.wait_ready(name, &nodes, on_node).await;

    scene.cordon(&nodes, true).await;
    scene.open_room(true).await;
    let more: Vec<String> = workloads
        .iter()
        .filter(|workload| workload.replicas > workload.on_node)
        .map(|workload| deployment(name, &workload.name, workload.replicas))
        .collect();
    if !more.is_empty() {
        scene.cluster.apply(&more.join("\n---\n")).await;
    }
    let budgets: Vec<String> = workloads
        .iter()
        .filter_map(|workload| {
            let limit = match workload.budget? {
                MaxUnavailable::Count(count) => json!(count),
                MaxUnavailable::Percent(percent) => json!(format!("{percent}%")),
            };
            Some(budget(name, &workload.name, ("maxUnavailable", limit)))
        })
        .collect();
    wait_rollouts(scene, layout, name).await;
    if !budgets.is_empty() {
        scene.cluster.apply(&budgets.join("\n---\n")).await;
    }
    scene.wait_budgets(name).await;
    scene.cordon(&nodes, false).await;
    let what = format!("the watcher to see {on_node} Pods on {name}");
    let pods = wait_until(&what, LIMIT, async || {
        let pods = scene.pods_on(&nodes);
        if pods.len() == on_node {
            Ok(pods)
        } else {
            Err(format!("{}", pods.len()))
        }
    })
    .await;
    Ready {
        namespace: name.to_owned(),
        nodes,
        pods,
        seen: scene.watcher.moments(),
    }
}

/// Waits until every Deployment is whole.
async fn wait_rollouts(scene: &Scene, layout: Layout, namespace: &str) {
    let mut wait = vec!["rollout", "status", "-n", namespace, "--timeout=300s"];
    let workloads = layout.workloads();
    let names: Vec<String> = workloads
        .iter()
        .filter(|workload| workload.replicas > 1)
        .map(|workload| format!("deployment/{}", workload.name))
        .collect();
    wait.extend(names.iter().map(String::as_str));
    if !names.is_empty() {
        scene.cluster.kubectl(&wait).await;
    }
}

async fn drain_by_kubectl(scene: &Scene, ready: &Ready) -> Duration {
    let node = &ready.nodes[0];
    let command = ["drain", node.as_str(), "--timeout=300s"];
    let began = Timestamp::now();
    let (output, (_, last)) = tokio::join!(
        scene.cluster.try_kubectl(&command, ""),
        scene.wait_gone(&ready.pods, ready.seen),
    );
    assert!(
        output.status.success(),
        "kubectl drain {node}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    between(began, last)
}

async fn drain_by_foreshock(scene: &mut Scene, ready: &Ready) -> Duration {
    scene.fire(&ready.nodes).await;
    let (_, last) = scene.wait_gone(&ready.pods, ready.seen).await;
    scene.wait_drained(&ready.nodes).await;
    let evictions = scene.evictions_of(&ready.pods);
    let first = evictions.iter().map(|event| event.received).min();
    between(first.expect("foreshock has evicted them"), last)
}

/// Waits until every Pod has its replacement, so that the next round begins in quiet, and what the
/// replacements took has been seen.
async fn settle(scene: &Scene, ready: &Ready) {
    let before: BTreeSet<&String> = ready.pods.iter().collect();
    let what = format!("every Pod of {} to have its replacement", ready.namespace);
    wait_until(&what, LIMIT, async || {
        let moments = scene.watcher.timeline_after(ready.seen);
        let new: BTreeSet<&String> = moments
            .iter()
            .filter(|moment| moment.kind == Kind::Pod && !before.contains(&moment.uid))
            .filter(|moment| moment.what == What::Ready(true))
            .map(|moment| &moment.uid)
            .collect();
        if new.len() == before.len() {
            Ok(())
        } else {
            Err(format!("{} of {}", new.len(), before.len()))
        }
    })
    .await;
}

/// What was seen of the Pods that went and of those that came in their place.
fn groups(layout: Layout, ready: &Ready, moments: &[Moment]) -> Vec<Group> {
    layout
        .workloads()
        .iter()
        .map(|workload| {
            let of_workload = |moment: &&Moment| {
                moment.kind == Kind::Pod
                    && owner(&moment.object) == Some((&ready.namespace, &workload.name))
            };
            let mine: Vec<&Moment> = moments.iter().filter(of_workload).collect();
            let (left, came): (Vec<&Moment>, Vec<&Moment>) = mine
                .into_iter()
                .partition(|moment| ready.pods.contains(&moment.uid));
            let pods = lasted(
                &left,
                |what| matches!(what, What::Terminating { .. }),
                |what| matches!(what, What::Gone { .. }),
            );
            Group {
                at_once: match workload.budget {
                    Some(limit) => Some(limit.of(workload.replicas)),
                    // The default pace: one of an owner at a time.
                    None if workload.replicas > 1 => Some(1),
                    None => None,
                },
                pods: pods
                    .into_iter()
                    .map(|gone_after| Leaving {
                        critical: false,
                        gone_after,
                    })
                    .collect(),
                replacements: lasted(
                    &came,
                    |what| *what == What::Appeared,
                    |what| *what == What::Ready(true),
                ),
            }
        })
        .collect()
}

/// How long it lasted from one kind of moment to the other, for each Pod that had both, in the order in
/// which it began.
fn lasted(
    moments: &[&Moment],
    begins: impl Fn(&What) -> bool,
    ends: impl Fn(&What) -> bool,
) -> Vec<Duration> {
    let mut began: Vec<(&str, Timestamp)> = Vec::new();
    let mut ended: BTreeMap<&str, Timestamp> = BTreeMap::new();
    for moment in moments {
        if begins(&moment.what) {
            began.push((&moment.uid, moment.at));
        } else if ends(&moment.what) {
            ended.entry(&moment.uid).or_insert(moment.at);
        }
    }
    began
        .into_iter()
        .filter_map(|(uid, at)| Some(between(at, *ended.get(uid)?)))
        .collect()
}

/// Namespace and Deployment of a Pod, by its name: `NAMESPACE/DEPLOYMENT-HASH-SUFFIX`.
fn owner(object: &str) -> Option<(&str, &str)> {
    let (namespace, pod) = object.split_once('/')?;
    let (replica_set, _) = pod.rsplit_once('-')?;
    let (deployment, _) = replica_set.rsplit_once('-')?;
    Some((namespace, deployment))
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

/// The middle one; of an even number, the mean of the middle two.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}
