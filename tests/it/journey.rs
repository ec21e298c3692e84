//! The main job, end to end, on real servers: a Node degrades, is tainted, its Pods move within their
//! budgets, it recovers and is given back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::scenario::{ACCOUNT, LEDGER_NODE, Scene, SceneOptions, lasting};
use crate::support::{Version, init, wait_for};

const OUR_TAINT: &str = "degradation=true:NoSchedule";

/// A Node's disk slows; everything that follows is waited for, and judged from outside.
async fn telemetry_path(scene: &Scene, node: &str) {
    let before = lasting(&scene.node_object(node).await);
    let pods_before = scene.watcher.pods_on(node);
    assert!(pods_before.len() > 5, "{node} has work: {pods_before:?}");
    scene.fault(node, "slow-disk", "75s").await;
    scene
        .wait_node(node, "to be at risk", 60, |view| view["band"] == "at_risk")
        .await;
    wait_for("our taint", Duration::from_secs(20), async || {
        scene
            .taints(node)
            .await
            .contains(&OUR_TAINT.to_owned())
            .then_some(())
    })
    .await;
    scene.wait_phase(node, "drained", 90).await;
    let left = scene.watcher.pods_on(node);
    assert!(
        left.iter().all(|(pod, _)| pod.starts_with("shop/agent-")),
        "only the DaemonSet's Pod is left: {left:?}"
    );
    scene.wait_phase(node, "recovering", 120).await;
    scene.wait_released(node, 60).await;
    let after = lasting(&scene.node_object(node).await);
    assert_eq!(
        before, after,
        "the Node is as before but for heartbeats and our record"
    );
    // Replacements run elsewhere, and all of them.
    wait_for(
        "every Deployment to be whole again",
        Duration::from_secs(30),
        async || {
            let text = scene
                .cluster
                .kubectl(&[
                    "get",
                    "deployments,statefulsets",
                    "-n",
                    "shop",
                    "-o",
                    "json",
                ])
                .await;
            let all: serde_json::Value = serde_json::from_str(&text).expect("kubectl writes JSON");
            let whole = |item: &serde_json::Value| {
                item["status"]["readyReplicas"] == item["spec"]["replicas"]
            };
            all["items"]
                .as_array()
                .is_some_and(|items| items.iter().all(whole))
                .then_some(())
        },
    )
    .await;
}

/// A rule in Prometheus fires for a Node that the model finds well.
async fn alert_path(scene: &Scene, node: &str) {
    scene.fire(node, true);
    let view = scene
        .wait_node(node, "to be tainted", 30, |view| {
            view["phase"] != "healthy" && view["phase"] != "suspect"
        })
        .await;
    assert!(
        view["model_risk"].as_f64().is_some_and(|risk| risk < 0.5),
        "the model is silent: {view}"
    );
    assert_eq!(view["alerts"][0]["name"], "NodeOnFire", "{view}");
    scene.wait_phase(node, "drained", 60).await;
    scene.fire(node, false);
    scene.wait_released(node, 60).await;
}

/// The same for a Node of which there is nothing to see: held, not released, until there is again.
async fn alert_path_in_the_dark(scene: &Scene, node: &str) {
    scene.fault(node, "vanished-exporter", "60s").await;
    scene
        .wait_node(node, "to be unknown", 40, |view| view["band"] == "unknown")
        .await;
    scene.fire(node, true);
    scene.wait_phase(node, "drained", 60).await;
    scene.fire(node, false);
    let held = scene
        .wait_node(node, "to be held", 30, |view| view["risk"].is_null())
        .await;
    assert_eq!(held["hold"]["reason"], "unknown", "{held}");
    assert!(
        scene.taints(node).await.contains(&OUR_TAINT.to_owned()),
        "silence releases nothing"
    );
    scene.wait_released(node, 120).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn a_degrading_node_is_tainted_drained_and_given_back() {
    init();
    let scene = Scene::start(SceneOptions::default()).await;
    scene.fire("worker-04", true);
    telemetry_path(&scene, LEDGER_NODE).await;
    scene.fire("worker-04", false);
    scene.wait_released("worker-04", 60).await;
    scene.print_timeline();
    scene.judge(&[LEDGER_NODE, "worker-04"]);
    every_panel_moves(&scene).await;
}

/// Every query of the shipped dashboard has data over the scenario, and no panel stays constant.
async fn every_panel_moves(scene: &Scene) {
    let (started, ended) = (scene.started().as_second(), Timestamp::now().as_second());
    let (start, end) = (started.to_string(), ended.to_string());
    let mut moving: BTreeMap<String, bool> = BTreeMap::new();
    for (title, promql) in crate::shipped::dashboard::queries() {
        let promql = ["$cluster", "$job", "$instance", "$node"]
            .iter()
            .fold(promql, |promql, name| promql.replace(name, ".*"));
        let promql = promql.replace("$__rate_interval", "10s");
        let range = [
            ("query", promql.as_str()),
            ("start", &start),
            ("end", &end),
            ("step", "1"),
        ];
        let answer = scene.prometheus.get("/api/v1/query_range", &range).await;
        let series = answer["result"].as_array().cloned().unwrap_or_default();
        assert!(!series.is_empty(), "no data for {title}: {promql}");
        let points: Vec<&Vec<Value>> = series
            .iter()
            .filter_map(|series| series["values"].as_array())
            .collect();
        let values: BTreeSet<&str> = points
            .iter()
            .flat_map(|points| points.iter().filter_map(|point| point[1].as_str()))
            .collect();
        // A series that is there for a part of the time only moves as well, to whoever looks at it.
        let comes_or_goes = points.iter().any(|points| {
            let at = |point: Option<&Value>| point.and_then(|point| point[0].as_i64());
            at(points.first()).is_some_and(|first| first > started + 30)
                || at(points.last()).is_some_and(|last| last < ended - 10)
        });
        *moving.entry(title).or_default() |= values.len() > 1 || comes_or_goes;
    }
    let still: Vec<&String> = moving
        .iter()
        .filter(|(_, moves)| !**moves)
        .map(|(title, _)| title)
        .collect();
    assert!(
        still.is_empty(),
        "panels that stay constant over the scenario: {still:?}"
    );
    println!("{} panels, each with data that moves", moving.len());
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn an_alert_alone_does_the_same_with_and_without_features() {
    init();
    let scene = Scene::start(SceneOptions::default()).await;
    alert_path(&scene, "worker-04").await;
    alert_path_in_the_dark(&scene, "worker-11").await;
    scene.print_timeline();
    scene.judge(&["worker-04", "worker-11"]);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn both_paths_work_on_the_oldest_servers() {
    init();
    let scene = Scene::start(SceneOptions {
        version: Version::Debian,
        ..SceneOptions::default()
    })
    .await;
    telemetry_path(&scene, "worker-07").await;
    alert_path(&scene, "worker-04").await;
    alert_path_in_the_dark(&scene, "worker-11").await;
    scene.judge(&["worker-07", "worker-04", "worker-11"]);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn observing_writes_nothing_at_all() {
    init();
    let scene = Scene::start(SceneOptions {
        reach: "observe",
        ..SceneOptions::default()
    })
    .await;
    scene.fault("worker-07", "slow-disk", "60s").await;
    let view = scene
        .wait_node("worker-07", "to be at risk", 60, |view| {
            view["band"] == "at_risk"
        })
        .await;
    assert_eq!(view["phase"], "suspect", "{view}");
    assert_eq!(view["hold"]["reason"], "reach", "{view}");
    scene.fire("worker-04", true);
    scene
        .wait_node("worker-04", "to be held by reach", 30, |view| {
            view["hold"]["reason"] == "reach"
        })
        .await;
    scene
        .wait_node("worker-07", "to be healthy again", 120, |view| {
            view["band"] == "healthy"
        })
        .await;
    let writes = scene.writes();
    assert!(writes.is_empty(), "foreshock wrote: {writes:?}");
    let reads = scene
        .cluster
        .audit()
        .iter()
        .filter(|event| event.user == ACCOUNT)
        .count();
    assert!(
        reads > 0,
        "foreshock has read, so the audit log would have shown a write"
    );
}

/// After which accepted eviction of a Node's Pods foreshock is killed.
#[derive(Clone, Copy, Debug)]
enum KillAfter {
    /// Tainted, and not one Pod evicted yet.
    None,
    First,
    Half,
    Last,
}

impl KillAfter {
    fn evictions(self, movable: usize) -> usize {
        match self {
            Self::None => 0,
            Self::First => 1,
            Self::Half => movable / 2,
            Self::Last => movable,
        }
    }
}

/// Kills foreshock after the n-th accepted eviction, starts it again, and waits until the Node is empty.
/// The Node's evidence, a fault or an alert, must have begun.
async fn killed_after(scene: &mut Scene, node: &str, after: KillAfter) {
    // Its Pods are counted when it is tainted: from then on nothing but a DaemonSet puts one there.
    scene.wait_phase(node, "tainted", 60).await;
    let pods = scene.watcher.pods_on(node);
    let movable = pods
        .iter()
        .filter(|(pod, _)| !pod.starts_with("shop/agent-"))
        .count();
    assert!(movable > 4, "{node} has work: {pods:?}");
    let n = after.evictions(movable);
    let uids: BTreeSet<String> = pods.into_iter().map(|(_, uid)| uid).collect();
    let accepted = |scene: &Scene| {
        let all = scene.evictions();
        all.iter()
            .filter(|event| event.pod_uid().is_some_and(|uid| uids.contains(uid)))
            .count()
    };
    wait_for(
        &format!("accepted eviction {n} of {node}"),
        Duration::from_secs(120),
        async || (accepted(scene) >= n).then_some(()),
    )
    .await;
    scene.foreshock.kill9();
    println!(
        "{node}: killed after {} of {movable} evictions were accepted, {n} were waited for",
        accepted(scene)
    );
    scene.foreshock.restart().await;
    scene.wait_phase(node, "drained", 90).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn a_kill_at_any_eviction_leaves_nothing_undone_and_nothing_done_twice() {
    init();
    // Slow enough for the test to see which eviction was the n-th.
    let mut scene = Scene::start(SceneOptions {
        more: "[eviction]\nrate = 2\n",
        ..SceneOptions::default()
    })
    .await;
    // While the disk of the first Node of a pair recovers, only an alert holds the second: each kill of
    // the second is one more kill in the first one's way back. By default two Nodes of twenty may be
    // tainted, so the next pair's first can begin, and its second waits for a place.
    let pairs = [
        (KillAfter::None, "worker-02", "worker-03"),
        (KillAfter::First, "worker-05", "worker-06"),
        (KillAfter::Half, "worker-08", "worker-09"),
        (KillAfter::Last, "worker-14", "worker-15"),
    ];
    let mut recovers: Option<&str> = None;
    for (after, degrading, alerted) in pairs {
        scene.fault(degrading, "slow-disk", "70s").await;
        killed_after(&mut scene, degrading, after).await;
        if let Some(before) = recovers.replace(degrading) {
            scene.wait_released(before, 240).await;
        }
        scene.fire(alerted, true);
        killed_after(&mut scene, alerted, after).await;
        // A process killed after the last eviction has nothing left to drain, and no score yet.
        scene
            .wait_node(alerted, "to be held by the alert alone", 30, |view| {
                view["model_risk"].as_f64().is_some_and(|risk| risk < 0.5)
            })
            .await;
        scene.fire(alerted, false);
        scene.wait_released(alerted, 120).await;
    }
    if let Some(last) = recovers {
        scene.wait_released(last, 240).await;
    }
    scene.print_timeline();
    let nodes: Vec<&str> = pairs.iter().flat_map(|(_, a, b)| [*a, *b]).collect();
    scene.judge(&nodes);
    for node in nodes {
        let object = scene.node_object(node).await;
        assert!(
            object["metadata"]["labels"]["foreshock.dev/risk"].is_null(),
            "a label of ours stays on {node}"
        );
    }
}
