//! Where the Pods of a drained Node would go, against the real scheduler; and Nodes whose Pods share a
//! budget. There is no Prometheus here: alerts are posted to the webhook, as Alertmanager would.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use foreshock::clock::SystemClock;
use foreshock::core::room::{Going, Resources, Survivor, fits};
use foreshock::kubernetes::{Cluster as _, KubeCluster, KubeOptions, NodeTable};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::scenario::{ACCOUNT, apply_account};
use crate::support::cluster::{Cluster, NodeShape, budget, deployment};
use crate::support::foreshock::{Foreshock, drains_for_alerts};
use crate::support::server::Workdir;
use crate::support::{wait_for, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

struct Scene {
    cluster: Cluster,
    foreshock: Foreshock,
    _workdir: Workdir,
}

impl Scene {
    /// Four Nodes in three zones, of which `zone-b` has one.
    async fn start() -> Self {
        let cluster = Cluster::start().await;
        cluster.create_nodes(4).await;
        apply_account(&cluster).await;
        cluster.kubectl(&["create", "namespace", "shop"]).await;
        let workdir = Workdir::new("room");
        let kubeconfig = cluster.kubeconfig_for("foreshock", "foreshock").await;
        // Half of these few Nodes are at risk in the end, one by one.
        let limits = "[policy.limits]\ntainted_max = 3\ndraining_max = 3\nstorm_min = 20";
        let config = drains_for_alerts(&kubeconfig, limits);
        let config = workdir.write("foreshock.toml", &config);
        let foreshock = Foreshock::start(&config, &[], &[]).await;
        Self {
            cluster,
            foreshock,
            _workdir: workdir,
        }
    }

    async fn fire(&self, nodes: &[&str]) {
        let alerts: Vec<Value> = nodes
            .iter()
            .map(|node| {
                json!({
                    "status": "firing", "labels": {"alertname": "NodeOnFire", "node": node},
                    "annotations": {}, "startsAt": Timestamp::now().to_string(),
                    "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "", "fingerprint": format!("f-{node}"),
                })
            })
            .collect();
        let payload = json!({
            "version": "4", "groupKey": "{}", "truncatedAlerts": 0, "status": "firing",
            "receiver": "foreshock", "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {},
            "externalURL": "http://alertmanager", "alerts": alerts,
        });
        let (status, body) = self
            .foreshock
            .post_json("/webhook/alertmanager", &payload)
            .await;
        assert_eq!(status, 202, "{body}");
    }

    async fn wait_node(&self, node: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let view = wait_until(&format!("{node} {what}"), LIMIT, async || {
            let (status, body) = self.foreshock.get(&format!("/api/nodes/{node}")).await;
            let view: Value = serde_json::from_str(&body).unwrap_or_default();
            if status == 200 && fits(&view) {
                return Ok(view);
            }
            Err(format!(
                "{status} phase {} hold {}",
                view["phase"], view["hold"]
            ))
        })
        .await;
        println!("{node} {what}: {}", view["hold"]);
        view
    }

    async fn document(&self, args: &[&str]) -> Value {
        let mut all = vec!["get", "-o", "json"];
        all.extend(args);
        serde_json::from_str(&self.cluster.kubectl(&all).await).expect("kubectl writes JSON")
    }

    /// The Node of every Pod of an application.
    async fn nodes_of(&self, app: &str) -> BTreeMap<String, String> {
        let label = format!("app={app}");
        let pods = self.document(&["pods", "-n", "shop", "-l", &label]).await;
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        pods.iter()
            .filter_map(|pod| {
                let node = pod["spec"]["nodeName"].as_str()?;
                Some((
                    pod["metadata"]["name"].as_str()?.to_owned(),
                    node.to_owned(),
                ))
            })
            .collect()
    }

    /// The names of the Pods that foreshock evicted, in order.
    fn evicted(&self) -> Vec<String> {
        let ours = self.cluster.audit().into_iter().filter(|event| {
            event.user == ACCOUNT && event.is_eviction() && !event.is_dry_run() && event.succeeded()
        });
        ours.map(|event| event.name).collect()
    }
}

/// A volume in `zone-b`, its claim, and a Deployment of one Pod that uses it.
fn database() -> String {
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "orders"},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"], "storageClassName": "",
            "nfs": {"server": "nfs.invalid", "path": "/"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["zone-b"]},
            ]}]}},
        },
    });
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "shop", "name": "orders"},
        "spec": {
            "accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": "orders",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    });
    let mut deployment: Value =
        serde_json::from_str(&deployment("shop", "orders", 1)).expect("a Deployment");
    let spec = &mut deployment["spec"]["template"]["spec"];
    spec["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "orders"}}]);
    [volume, claim, deployment]
        .map(|one| one.to_string())
        .join("\n---\n")
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn a_drain_waits_for_room_and_for_those_that_share_its_budgets() {
    let scene = Scene::start().await;
    scene.cluster.apply(&database()).await;
    scene
        .cluster
        .wait_rollout("shop", "deployment/orders")
        .await;
    no_room_by_topology_of_a_volume(&scene).await;
    one_after_the_other(&scene).await;
}

/// The only Node of its zone is at risk: its taint is set, and the Pod stays, because the volume cannot
/// follow it. As soon as the zone has another Node, it moves there.
async fn no_room_by_topology_of_a_volume(scene: &Scene) {
    let before = scene.nodes_of("orders").await;
    assert!(
        before.values().all(|node| node == "worker-02"),
        "{before:?}"
    );
    scene.fire(&["worker-02"]).await;
    let held = scene
        .wait_node("worker-02", "to be held", |view| {
            view["hold"]["reason"] == "no_room"
        })
        .await;
    let pod = before.keys().next().expect("one");
    let detail = held["hold"]["detail"].as_str().unwrap_or_default();
    assert!(
        detail.contains(&format!("shop/{pod} (volume of claim orders: 3)")),
        "{detail}"
    );
    assert_eq!(held["phase"], "tainted");
    let plan = scene.foreshock.get_json("/api/nodes/worker-02/plan").await;
    assert_eq!(plan["possible"], false, "{plan}");
    assert_eq!(plan["impossible"][0]["name"], pod.as_str(), "{plan}");
    // The scheduler says the same of one more of its kind.
    let scale = async |replicas: &str| {
        let args = ["scale", "-n", "shop", "deployment/orders", replicas];
        scene.cluster.kubectl(&args).await
    };
    scale("--replicas=2").await;
    wait_for("the scheduler to find no Node", LIMIT, async || {
        let pods = scene
            .document(&["pods", "-n", "shop", "-l", "app=orders"])
            .await;
        let all = pods["items"].as_array()?.clone();
        let unschedulable = all.iter().any(|pod| {
            let conditions = pod["status"]["conditions"].as_array().cloned();
            conditions.unwrap_or_default().iter().any(|condition| {
                condition["type"] == "PodScheduled" && condition["reason"] == "Unschedulable"
            })
        });
        unschedulable.then_some(())
    })
    .await;
    scale("--replicas=1").await;
    assert!(scene.evicted().is_empty(), "{:?}", scene.evicted());

    scene
        .cluster
        .create_nodes_like("more", 2, &NodeShape::default())
        .await;
    scene
        .wait_node("worker-02", "to be drained", |view| {
            view["phase"] == "drained"
        })
        .await;
    let after = scene.nodes_of("orders").await;
    assert!(
        after.values().all(|node| node == "more-02"),
        "its zone's other Node took it: {after:?}"
    );
}

/// Two Nodes at risk at once, each with Pods under one budget.
async fn one_after_the_other(scene: &Scene) {
    let all = [
        deployment("shop", "api", 20),
        budget("shop", "api", ("maxUnavailable", json!(2))),
    ];
    scene.cluster.apply(&all.join("\n---\n")).await;
    scene.cluster.wait_rollout("shop", "deployment/api").await;
    let before = scene.nodes_of("api").await;
    let on = |name: &str| before.values().filter(|node| *node == name).count();
    let nodes = ["worker-01", "worker-03"];
    assert!(nodes.iter().all(|node| on(node) >= 2), "{before:?}");
    let earlier = scene.evicted().len();
    scene.fire(&nodes).await;
    // They are equally at risk, so their names decide.
    let held = scene
        .wait_node("worker-03", "to wait for the other", |view| {
            view["hold"]["reason"] == "shared_budget"
        })
        .await;
    let detail = held["hold"]["detail"].as_str().unwrap_or_default();
    assert_eq!(
        detail,
        "worker-01 goes first: Pods of both are under PodDisruptionBudget shop/api"
    );
    for node in nodes {
        scene
            .wait_node(node, "to be drained", |view| view["phase"] == "drained")
            .await;
    }
    let evicted = scene.evicted();
    let mut order: Vec<&str> = evicted[earlier..]
        .iter()
        .filter_map(|pod| before.get(pod).map(String::as_str))
        .collect();
    assert_eq!(order.len(), on("worker-01") + on("worker-03"));
    order.dedup();
    assert_eq!(order, nodes, "one after the other");
}

/// Requests are counted as the scheduler counts them: of two Pods that differ by a thousandth of a core,
/// the one that fits by our count is scheduled, and the other is not.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn room_is_counted_as_the_scheduler_counts_it() {
    let bed = Cluster::start().await;
    let shape = NodeShape {
        cpu: "2".into(),
        ..NodeShape::default()
    };
    bed.create_nodes_like("worker", 1, &shape).await;
    bed.kubectl(&["create", "namespace", "shop"]).await;
    bed.kubectl(&["taint", "node", "worker-01", "dedicated=shop:NoSchedule"])
        .await;
    let container = |name: &str, cpu: &str| json!({"name": name, "image": "example.invalid/app", "resources": {"requests": {"cpu": cpu}}});
    let pod = |name: &str, containers: Value, init: Value, tolerates: bool| {
        let tolerations = if tolerates {
            json!([{"key": "dedicated", "operator": "Equal", "value": "shop", "effect": "NoSchedule"}])
        } else {
            json!([])
        };
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "shop", "name": name, "labels": {"app": name}},
            "spec": {
                "containers": containers, "initContainers": init, "tolerations": tolerations,
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "NotIn", "values": ["zone-z"]}]},
                ]}}},
            },
        })
        .to_string()
    };
    let mut sidecar = container("side", "0.25");
    sidecar["restartPolicy"] = json!("Always");
    // 100m and the sidecar's 250m while it runs; 500m and the sidecar's while it starts.
    let mixed = pod(
        "mixed",
        json!([container("main", "100m")]),
        json!([sidecar, container("setup", "500m")]),
        true,
    );
    bed.apply(&mixed).await;
    let bound = async |name: &str| -> Option<String> {
        let text = bed
            .kubectl(&["get", "pod", name, "-n", "shop", "-o", "json"])
            .await;
        let pod: Value = serde_json::from_str(&text).expect("JSON");
        pod["spec"]["nodeName"].as_str().map(str::to_owned)
    };
    wait_for("the mixed Pod is bound", LIMIT, async || {
        bound("mixed").await
    })
    .await;

    let path = bed.workdir().path().join("room.kubeconfig");
    bed.kubeconfig(&path);
    let options = KubeOptions {
        kubeconfig: Some(path),
        instance: "foreshock".to_owned(),
        namespace: "default".to_owned(),
        node_selector: String::new(),
        taints: Vec::new(),
    };
    let cluster = KubeCluster::connect(options, Arc::new(SystemClock))
        .await
        .expect("the kubeconfig is good");
    let mut nodes = cluster.nodes();
    let table: Arc<NodeTable> = tokio::time::timeout(
        LIMIT,
        nodes.wait_for(|table| {
            table
                .nodes
                .values()
                .any(|node| !node.facts.taints.is_empty())
        }),
    )
    .await
    .expect("in time")
    .expect("watched")
    .clone();
    let node = &table.nodes["worker-01"].facts;
    let there = cluster.pods(&node.id).await.expect("listed");
    assert_eq!(there.len(), 1, "{there:?}");
    assert_eq!(there[0].needs.requests.cpu, 750);
    assert_eq!(node.allocatable.cpu, 2_000);

    // 1,250m are left by our count.
    let cases = [
        ("exact", "1250m", true, true),
        ("over", "1251m", true, false),
        ("shy", "100m", false, false),
    ];
    for (name, cpu, tolerates, expected) in cases {
        let mut like = there[0].clone();
        like.id.name = name.to_owned();
        like.needs.requests = Resources {
            cpu: cpu.trim_end_matches('m').parse().expect("a number"),
            pods: 1,
            ..Resources::default()
        };
        if !tolerates {
            like.needs.tolerations.clear();
        }
        let survivor = Survivor {
            name: &node.id.name,
            labels: &node.labels,
            taints: node.taints.iter().collect(),
            allocatable: &node.allocatable,
            pods: &there,
        };
        let going = Going {
            pod: &like,
            from: &node.labels,
        };
        assert_eq!(fits(&survivor, &going), expected, "{name}");
        let arriving = pod(name, json!([container("main", cpu)]), json!([]), tolerates);
        bed.apply(&arriving).await;
        let scheduled = wait_for("the scheduler has judged", LIMIT, async || {
            if bound(name).await.is_some() {
                return Some(true);
            }
            let text = bed
                .kubectl(&["get", "pod", name, "-n", "shop", "-o", "json"])
                .await;
            let pod: Value = serde_json::from_str(&text).expect("JSON");
            let conditions = pod["status"]["conditions"].as_array().cloned();
            let refused = conditions.unwrap_or_default().iter().any(|condition| {
                condition["type"] == "PodScheduled" && condition["reason"] == "Unschedulable"
            });
            refused.then_some(false)
        })
        .await;
        assert_eq!(
            scheduled, expected,
            "{name}: the scheduler judges otherwise"
        );
        bed.kubectl(&[
            "delete",
            "pod",
            name,
            "-n",
            "shop",
            "--grace-period=0",
            "--force",
        ])
        .await;
    }
    cluster.close().await;
}
