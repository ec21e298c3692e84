//! Make before break, on the real API server, judged from a watch of the test's own.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::scene::{LIMIT, Scene};
use crate::support::cluster::deployment;
use crate::support::watcher::{Kind, Moment, What};
use crate::support::{init, wait_until};

/// The fewest ready Pods of a namespace at any moment after the first `from`.
fn fewest_ready(moments: &[Moment], namespace: &str, from: usize) -> usize {
    let mut ready = BTreeSet::new();
    let mut fewest = usize::MAX;
    for (n, moment) in moments.iter().enumerate() {
        if n == from {
            fewest = ready.len();
        }
        let mine = moment
            .object
            .split_once('/')
            .is_some_and(|(of, _)| of == namespace);
        if moment.kind != Kind::Pod || !mine {
            continue;
        }
        match &moment.what {
            What::Ready(true) => {
                ready.insert(&moment.uid);
            }
            What::Ready(false) | What::Terminating { .. } | What::Gone { .. } => {
                ready.remove(&moment.uid);
            }
            What::Appeared
            | What::Bound { .. }
            | What::Taints { .. }
            | What::Cordoned(_)
            | What::Budget { .. }
            | What::BudgetBroken { .. }
            | What::WatchBroken(_) => {}
        }
        if n >= from {
            fewest = fewest.min(ready.len());
        }
    }
    fewest
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn of_three_replicas_without_a_budget_on_one_node_two_are_ready_at_every_moment() {
    init();
    let mut scene = Scene::start(2, "").await;
    scene
        .cluster
        .kubectl(&["create", "namespace", "shop"])
        .await;
    let nodes = scene.nodes("lone", 1, "110").await;
    scene.open_room(false).await;
    scene.cluster.apply(&deployment("shop", "web", 3)).await;
    scene.wait_ready("shop", &nodes, 3).await;
    scene.open_room(true).await;
    let pods = scene.pods_on(&nodes);
    assert_eq!(pods.len(), 3, "all on one Node");
    let seen = scene.watcher.moments();
    scene.fire(&nodes).await;
    scene.wait_gone(&pods, seen).await;
    scene.wait_drained(&nodes).await;
    let moments = scene.watcher.timeline();
    assert!(
        !moments
            .iter()
            .any(|moment| matches!(moment.what, What::WatchBroken(_))),
        "the watch saw every moment"
    );
    assert_eq!(fewest_ready(&moments, "shop", seen), 2);
    let accepted = scene.evictions_of(&pods);
    let accepted = accepted.iter().filter(|event| event.succeeded()).count();
    assert_eq!(accepted, 3, "each is evicted once");
}

/// The ServiceAccount gets the rights of the component `surge`.
async fn grant_surge(scene: &Scene) {
    let rbac = format!(
        "{}/deploy/kustomize/components/surge/rbac.yaml",
        env!("CARGO_MANIFEST_DIR")
    );
    scene.cluster.kubectl(&["apply", "-f", &rbac]).await;
}

/// How many a Deployment asks for, and what the Node's record says of Deployments that are to be put back.
async fn standing(scene: &Scene, deployment: &str, node: &str) -> (Value, Value) {
    let get = async |args: &[&str]| -> Value {
        let text = scene.cluster.kubectl(args).await;
        serde_json::from_str(&text).expect("kubectl writes JSON")
    };
    let found = get(&["get", "deployment", deployment, "-n", "shop", "-o", "json"]).await;
    let node = get(&["get", "node", node, "-o", "json"]).await;
    let record = node["metadata"]["annotations"]["foreshock.dev/state"].as_str();
    let record: Value = record.map_or(Value::Null, |text| {
        serde_json::from_str(text).expect("a record is JSON")
    });
    (
        found["spec"]["replicas"].clone(),
        record["marks"]["surges"].clone(),
    )
}

async fn wait_standing(scene: &Scene, deployment: &str, node: &str, replicas: u32, noted: usize) {
    let what = format!("{deployment} to ask for {replicas}, with {noted} noted on {node}");
    wait_until(&what, LIMIT, async || {
        let (found, surges) = standing(scene, deployment, node).await;
        let is_noted = surges.as_array().map_or(0, Vec::len) == noted;
        if found == json!(replicas) && is_noted {
            Ok(())
        } else {
            Err(format!("{found}, {surges}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn of_a_single_replica_with_surge_one_is_ready_at_every_moment() {
    init();
    let mut scene = Scene::start(2, "[eviction]\nsurge = true").await;
    grant_surge(&scene).await;
    for namespace in ["shop", "auto"] {
        scene
            .cluster
            .kubectl(&["create", "namespace", namespace])
            .await;
    }
    let nodes = scene.nodes("lone", 1, "110").await;
    scene.open_room(false).await;
    scene.cluster.apply(&deployment("shop", "web", 1)).await;
    scene.cluster.apply(&deployment("auto", "scaled", 1)).await;
    let autoscaler = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"namespace": "auto", "name": "by-load"},
        "spec": {
            "minReplicas": 1, "maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "scaled"},
        },
    });
    scene.cluster.apply(&autoscaler.to_string()).await;
    scene.wait_ready("shop", &nodes, 1).await;
    scene.wait_ready("auto", &nodes, 1).await;
    scene.open_room(true).await;

    let path = format!("/api/nodes/{}/plan", nodes[0]);
    let said = wait_until("the plan to say who gets a second Pod", LIMIT, async || {
        let (_, body) = scene.foreshock.get(&path).await;
        let plan: Value = serde_json::from_str(&body).unwrap_or_default();
        let pods = plan["pods"].as_array().cloned().unwrap_or_default();
        let of = |namespace: &str| {
            let pod = pods.iter().find(|pod| pod["namespace"] == namespace);
            pod.map(|pod| (pod["surge"].clone(), pod["surge_detail"].clone()))
        };
        match (of("shop"), of("auto")) {
            (Some(shop), Some(auto)) if !shop.0.is_null() && !auto.0.is_null() => Ok((shop, auto)),
            _ => Err(body),
        }
    })
    .await;
    let why = json!("HorizontalPodAutoscaler by-load sets its replicas");
    assert_eq!(said, ((json!(true), Value::Null), (json!(false), why)));

    let pods = scene.pods_on(&nodes);
    assert_eq!(pods.len(), 2, "both on one Node");
    let seen = scene.watcher.moments();
    scene.fire(&nodes).await;
    scene.wait_gone(&pods, seen).await;
    scene.wait_drained(&nodes).await;
    wait_standing(&scene, "web", &nodes[0], 1, 0).await;
    // Whichever of the two that are left is removed, it is not the one that is Ready.
    wait_until("one Pod to be left, and Ready", LIMIT, async || {
        let args = ["get", "pods", "-n", "shop", "--no-headers"];
        let pods = scene.cluster.kubectl(&args).await;
        let lines: Vec<&str> = pods.lines().collect();
        match lines[..] {
            [one] if one.contains(" 1/1 ") => Ok(()),
            _ => Err(pods),
        }
    })
    .await;
    let moments = scene.watcher.timeline();
    assert!(
        !moments
            .iter()
            .any(|moment| matches!(moment.what, What::WatchBroken(_))),
        "the watch saw every moment"
    );
    assert_eq!(fewest_ready(&moments, "shop", seen), 1);
    let accepted = scene.evictions_of(&pods);
    let accepted = accepted.iter().filter(|event| event.succeeded()).count();
    assert_eq!(accepted, 2, "each is evicted once");
    let generation = [
        "get",
        "deployment",
        "scaled",
        "-n",
        "auto",
        "-o",
        "jsonpath={.metadata.generation}",
    ];
    let generation = scene.cluster.kubectl(&generation).await;
    assert_eq!(
        generation.trim(),
        "1",
        "what is autoscaled is never written"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn what_a_killed_process_has_scaled_up_is_put_back_by_release_unless_it_is_theirs_now() {
    init();
    let mut scene = Scene::start(1, "[eviction]\nsurge = true").await;
    grant_surge(&scene).await;
    scene
        .cluster
        .kubectl(&["create", "namespace", "shop"])
        .await;
    let nodes = scene.nodes("lone", 1, "110").await;
    scene.open_room(false).await;
    for name in ["ours", "theirs"] {
        scene.cluster.apply(&deployment("shop", name, 1)).await;
    }
    scene.wait_ready("shop", &nodes, 2).await;
    scene.open_room(true).await;
    // There is room for the drain, and no second Pod can be made: it waits.
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"namespace": "shop", "name": "full"},
        "spec": {"hard": {"pods": "2"}},
    });
    scene.cluster.apply(&quota.to_string()).await;
    scene.fire(&nodes).await;
    for name in ["ours", "theirs"] {
        wait_standing(&scene, name, &nodes[0], 2, 2).await;
    }
    scene.foreshock.kill9();
    // Two by somebody else's will from here on.
    for replicas in ["--replicas=1", "--replicas=2"] {
        let scale = ["scale", "deployment", "theirs", "-n", "shop", replicas];
        scene.cluster.kubectl(&scale).await;
    }
    // With the service's own rights.
    let kubeconfig = scene.cluster.kubeconfig_for("foreshock", "foreshock").await;
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_foreshock"))
        .args(["release", "--namespace", "foreshock", "--kubeconfig"])
        .arg(&kubeconfig)
        .env("HOME", "/nonexistent")
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(LIMIT, output).await.expect("it ends");
    let output = output.expect("the program can be started");
    let said = String::from_utf8_lossy(&output.stdout);
    for words in [
        "Deployment shop/ours, scaled back to 1",
        "Deployment shop/theirs, left as it is: somebody else has scaled it to 2",
    ] {
        assert!(said.contains(words), "{words:?} is not in:\n{said}");
    }
    assert!(output.status.success(), "{said}");
    for (name, replicas) in [("ours", 1), ("theirs", 2)] {
        let (found, surges) = standing(&scene, name, &nodes[0]).await;
        assert_eq!((found, surges), (json!(replicas), Value::Null), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn a_kill_in_the_middle_of_a_surge_costs_nobody_the_one_ready_pod() {
    init();
    let mut scene = Scene::start(2, "[eviction]\nsurge = true").await;
    grant_surge(&scene).await;
    scene
        .cluster
        .kubectl(&["create", "namespace", "shop"])
        .await;
    let nodes = scene.nodes("lone", 1, "110").await;
    scene.open_room(false).await;
    scene.cluster.apply(&deployment("shop", "web", 1)).await;
    scene.wait_ready("shop", &nodes, 1).await;
    scene.open_room(true).await;
    let pods = scene.pods_on(&nodes);
    // No second Pod can be made, so that it waits where it is killed.
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"namespace": "shop", "name": "full"},
        "spec": {"hard": {"pods": "1"}},
    });
    scene.cluster.apply(&quota.to_string()).await;
    let seen = scene.watcher.moments();
    scene.fire(&nodes).await;
    wait_standing(&scene, "web", &nodes[0], 2, 1).await;
    scene.foreshock.kill9();
    scene
        .cluster
        .kubectl(&["delete", "resourcequota", "full", "-n", "shop"])
        .await;
    // It leads again when its Lease has run out, puts back what it finds, and begins anew.
    scene.foreshock.restart().await;
    scene.wait_gone(&pods, seen).await;
    scene.wait_drained(&nodes).await;
    wait_standing(&scene, "web", &nodes[0], 1, 0).await;
    let moments = scene.watcher.timeline();
    assert_eq!(fewest_ready(&moments, "shop", seen), 1);
    let accepted = scene.evictions_of(&pods);
    let accepted = accepted.iter().filter(|event| event.succeeded()).count();
    assert_eq!(accepted, 1, "it is evicted once");
}
