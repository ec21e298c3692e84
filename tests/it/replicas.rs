//! Two replicas, two instances, the switch and the release, with real processes on a real API server.
//!
//! There is no Prometheus: alerts are sent by hand, and act without features. So a Node that was tainted
//! here is never given back, and whatever takes its marks off is what the test is about.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::scenario::{ACCOUNT, apply_account};
use crate::support::audit::AuditEvent;
use crate::support::cluster::{Cluster, budget, deployment};
use crate::support::foreshock::Foreshock;
use crate::support::server::Workdir;
use crate::support::watcher::Watcher;
use crate::support::{free_port, init, wait_for, wait_until};

const OUR_TAINT: &str = "degradation=true:NoSchedule";
/// Where the Pods run that are slow to be replaced.
const SLOW_NODE: &str = "worker-01";
/// Of those: each has to wait for the one before, by their budget.
const SLOW_PODS: usize = 6;

/// A configuration for one instance.
struct Instance<'a> {
    name: &'a str,
    reach: &'a str,
    kubeconfig: &'a Path,
    selector: &'a str,
}

impl Instance<'_> {
    fn config(&self) -> String {
        let mut text = String::new();
        write!(
            text,
            r#"
[listen]
address = "127.0.0.1:0"
[prometheus]
url = "http://127.0.0.1:{}"
timeout = "1s"
[kubernetes]
kubeconfig = "{}"
namespace = "foreshock"
instance = "{}"
node_selector = "{}"
[cycle]
interval = "1s"
[policy]
reach = "{}"
drain_after = "1s"
new_node_age = "0s"
[policy.limits]
tainted_max = "50%"
storm_min = 20
[[alerts.rules]]
match = ['alertname="NodeOnFire"']
floor = 0.8
reach = "evict"
expire = "1h"
"#,
            // Nobody listens there.
            free_port(),
            self.kubeconfig.display(),
            self.name,
            self.selector,
            self.reach,
        )
        .expect("writing to a String cannot fail");
        text
    }
}

/// A cluster with six Nodes, the roles of `deploy/`, and Pods.
struct Scene {
    cluster: Cluster,
    workdir: Workdir,
    /// With the rights that `deploy/` gives.
    kubeconfig: PathBuf,
    admin: PathBuf,
}

impl Scene {
    async fn start() -> Self {
        init();
        let workdir = Workdir::new("replicas");
        let cluster = Cluster::start().await;
        cluster.create_nodes(6).await;
        apply_account(&cluster).await;
        let kubeconfig = cluster.kubeconfig_for("foreshock", "foreshock").await;
        let admin = workdir.join("admin.kubeconfig");
        cluster.kubeconfig(&admin);
        Self {
            cluster,
            workdir,
            kubeconfig,
            admin,
        }
    }

    fn config(&self, file: &str, instance: &Instance<'_>) -> PathBuf {
        self.workdir.write(file, &instance.config())
    }

    async fn populate(&self) {
        let mut slow: Value =
            serde_json::from_str(&deployment("shop", "slow", SLOW_PODS)).expect("JSON");
        let template = &mut slow["spec"]["template"];
        template["metadata"]["annotations"] =
            json!({"bed/ready-delay": "4s", "bed/ready-delay-max": "5s"});
        template["spec"]["affinity"] = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 100,
            "preference": {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [SLOW_NODE]}]},
        }]}});
        self.cluster.kubectl(&["create", "namespace", "shop"]).await;
        let all = [
            slow.to_string(),
            budget("shop", "slow", ("maxUnavailable", json!(1))),
            deployment("shop", "web", 12),
        ];
        self.cluster.apply(&all.join("\n---\n")).await;
        for name in ["slow", "web"] {
            self.cluster
                .wait_rollout("shop", &format!("deployment/{name}"))
                .await;
        }
    }

    async fn node(&self, name: &str) -> Value {
        let text = self
            .cluster
            .kubectl(&["get", "node", name, "-o", "json"])
            .await;
        serde_json::from_str(&text).expect("kubectl writes JSON")
    }

    /// Everything of a Node that somebody has put there: all but heartbeats.
    async fn lasting(&self, name: &str) -> Value {
        let mut node = self.node(name).await;
        node["status"] = Value::Null;
        for field in ["resourceVersion", "managedFields", "generation"] {
            node["metadata"][field] = Value::Null;
        }
        node
    }

    async fn all_lasting(&self) -> BTreeMap<String, Value> {
        let mut all = BTreeMap::new();
        for n in 1..=6 {
            let name = format!("worker-{n:02}");
            let node = self.lasting(&name).await;
            all.insert(name, node);
        }
        all
    }

    async fn wait_taint(&self, node: &str) {
        wait_for(
            &format!("our taint on {node}"),
            Duration::from_secs(30),
            async || has_taint(&self.node(node).await, OUR_TAINT).then_some(()),
        )
        .await;
    }

    /// What the account of `deploy/` wrote, received after `at`.
    fn writes_after(&self, at: Timestamp) -> Vec<AuditEvent> {
        let mut all = self.cluster.audit();
        all.retain(|event| event.user == ACCOUNT && event.is_write() && event.received > at);
        all
    }

    fn accepted_evictions(&self) -> Vec<AuditEvent> {
        let mut all = self.cluster.audit();
        all.retain(|event| event.is_eviction() && !event.is_dry_run() && event.succeeded());
        all
    }

    fn no_pod_was_evicted_twice(&self) -> usize {
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for event in self.accepted_evictions() {
            let uid = event.pod_uid().expect("a precondition").to_owned();
            *times.entry(uid).or_default() += 1;
        }
        let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "evicted more than once: {twice:?}");
        times.len()
    }
}

fn has_taint(node: &Value, wanted: &str) -> bool {
    let taints = node["spec"]["taints"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    taints.iter().any(|t| {
        let part = |name: &str| t[name].as_str().unwrap_or_default();
        wanted == format!("{}={}:{}", part("key"), part("value"), part("effect"))
    })
}

/// Runs a command of the program to its end: exit code, standard output, standard error.
async fn foreshock(args: &[&str]) -> (i32, String, String) {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_foreshock"))
        .args(args)
        .env_remove("KUBECONFIG")
        .env("HOME", "/nonexistent")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(120), output)
        .await
        .unwrap_or_else(|_| panic!("foreshock {args:?} does not end"))
        .expect("the program can be started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    println!("$ foreshock {}\n{err}{out}", args.join(" "));
    (output.status.code().unwrap_or(-1), out, err)
}

fn alert(node: &str, status: &str) -> Value {
    json!({
        "version": "4", "groupKey": "fires", "status": status, "receiver": "foreshock", "truncatedAlerts": 0,
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "",
        "alerts": [{
            "status": status,
            "labels": {"alertname": "NodeOnFire", "node": node, "severity": "critical"},
            "annotations": {"summary": "the node is on fire"},
            "startsAt": Timestamp::now().to_string(), "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "", "fingerprint": format!("fire-{node}"),
        }],
    })
}

async fn send(to: &Foreshock, node: &str) {
    let (status, body) = to
        .post_json("/webhook/alertmanager", &alert(node, "firing"))
        .await;
    assert_eq!(status, 202, "{body}");
}

async fn wait_health(
    of: &Foreshock,
    what: &str,
    limit: u64,
    fits: impl Fn(&Value) -> bool,
) -> Value {
    wait_until(what, Duration::from_secs(limit), async || {
        let health = of.get_json("/api/health").await;
        if fits(&health) {
            Ok(health)
        } else {
            Err(health.to_string())
        }
    })
    .await
}

async fn wait_view(
    of: &Foreshock,
    node: &str,
    what: &str,
    limit: u64,
    fits: impl Fn(&Value) -> bool,
) {
    let path = format!("/api/nodes/{node}?plan=false");
    wait_until(
        &format!("{node} {what}"),
        Duration::from_secs(limit),
        async || {
            let (status, body) = of.get(&path).await;
            let view: Value = serde_json::from_str(&body).unwrap_or_default();
            if status == 200 && fits(&view) {
                Ok(())
            } else {
                Err(format!("phase {} holds {}", view["phase"], view["holds"]))
            }
        },
    )
    .await;
}

fn holds(view: &Value, reason: &str) -> bool {
    let holds = view["holds"].as_array().cloned().unwrap_or_default();
    holds.iter().any(|hold| hold["reason"] == reason)
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn two_replicas_act_as_one_and_the_other_goes_on_when_the_leader_is_killed() {
    let scene = Scene::start().await;
    scene.populate().await;
    let watcher = Watcher::start(scene.cluster.client()).await;
    let config = scene.config(
        "foreshock.toml",
        &Instance {
            name: "foreshock",
            reach: "evict",
            kubeconfig: &scene.kubeconfig,
            selector: "",
        },
    );
    let mut first = Foreshock::start(&config, &[], &[]).await;
    let leads = |health: &Value| health["leader"] == true;
    wait_health(&first, "the first to lead", 30, leads).await;
    let second = Foreshock::start(&config, &[], &[]).await;
    follows_and_answers(&first, &second).await;
    throws_the_switch_from_the_follower(&scene, &first, &second).await;

    // An alert that reaches the follower acts, and only the leader has taken it.
    send(&second, SLOW_NODE).await;
    let alerts = async |of: &Foreshock| of.get_json("/api/alerts").await["alerts"].clone();
    wait_for(
        "the alert at the leader",
        Duration::from_secs(10),
        async || (alerts(&first).await[0]["node"] == SLOW_NODE).then_some(()),
    )
    .await;
    assert_eq!(alerts(&second).await, json!([]));
    scene.wait_taint(SLOW_NODE).await;
    let slow_evicted = || {
        let evicted = scene.accepted_evictions();
        evicted
            .iter()
            .filter(|event| event.name.starts_with("slow-"))
            .count()
    };
    wait_for(
        "two of the slow Pods to be evicted",
        Duration::from_secs(60),
        async || (slow_evicted() >= 2).then_some(()),
    )
    .await;
    let before = slow_evicted();
    let killing_at = Timestamp::now();
    first.kill9();
    // What it had sent before is not the other's.
    let killed_at = Timestamp::now();
    assert!(
        before < SLOW_PODS,
        "killed in the middle: {before} of {SLOW_PODS}"
    );
    wait_health(&second, "the second to lead", 25, leads).await;
    let renewed = wait_for(
        "the second's renewal",
        Duration::from_secs(10),
        async || {
            let writes = scene.writes_after(killed_at);
            let lease = writes
                .into_iter()
                .find(|event| event.resource == "leases" && event.succeeded());
            lease.map(|event| event.received)
        },
    )
    .await;
    let took = renewed.duration_since(killing_at).as_secs_f64();
    println!("figure first_renewal_after_kill_seconds {took:.1}");
    assert!(took <= 20.0, "first renewal {took:.1} s after the kill");
    // Without the alert, which the first took with it: it is in the Node's record.
    wait_view(&second, SLOW_NODE, "to be drained", 120, |view| {
        view["phase"] == "drained"
    })
    .await;
    let on: Vec<_> = watcher.pods_on(SLOW_NODE);
    assert!(on.is_empty(), "still there: {on:?}");
    watcher.assert_budgets_kept();
    let evicted = scene.no_pod_was_evicted_twice();
    println!("{evicted} Pods evicted, each once, {before} slow ones of them before the kill");

    // Whoever comes back follows.
    first.restart().await;
    follows_and_answers(&second, &first).await;
    let (status, body) = first
        .post_json("/webhook/alertmanager", &alert("worker-02", "firing"))
        .await;
    assert_eq!(status, 202, "{body}");
    scene.wait_taint("worker-02").await;
}

/// The second is ready, knows the Nodes, answers reads and exports none of their series.
async fn follows_and_answers(leader: &Foreshock, follower: &Foreshock) {
    wait_for(
        "the follower to be ready",
        Duration::from_secs(30),
        async || (follower.get("/readyz").await.0 == 200).then_some(()),
    )
    .await;
    let health = wait_health(follower, "the follower to know who leads", 30, |health| {
        health["leader"] == false && !health["leader_name"].is_null()
    })
    .await;
    let leading = leader.get_json("/api/health").await;
    assert_eq!(leading["leader"], true);
    assert_eq!(health["leader_name"], leading["leader_name"]);
    let nodes = follower.get_json("/api/nodes").await;
    assert_eq!(nodes["nodes"].as_array().map(Vec::len), Some(6));
    let (code, table, _) = foreshock(&["explain", SLOW_NODE, "--server", follower.url()]).await;
    assert!(code == 0 && table.contains("Holds:"), "{table}");
    let metrics = async |of: &Foreshock| of.get("/metrics").await.1;
    let (leads, follows) = (metrics(leader).await, metrics(follower).await);
    assert!(leads.contains("foreshock_leader 1\n"), "{leads}");
    assert!(leads.contains("foreshock_node_phase{"), "{leads}");
    assert!(follows.contains("foreshock_leader 0\n"), "{follows}");
    assert!(!follows.contains("foreshock_node_"), "{follows}");
}

async fn throws_the_switch_from_the_follower(
    scene: &Scene,
    leader: &Foreshock,
    follower: &Foreshock,
) {
    let (status, body) = follower.post_json("/api/monitoring/stop", &json!({})).await;
    assert!(
        status == 200 && body.contains("\"lasting\":true"),
        "{status} {body}"
    );
    for of in [leader, follower] {
        wait_health(of, "to be paused", 10, |health| health["paused"] == true).await;
    }
    let lease = scene
        .cluster
        .kubectl(&["get", "lease", "foreshock", "-n", "foreshock", "-o", "json"])
        .await;
    let lease: Value = serde_json::from_str(&lease).expect("JSON");
    let annotations = &lease["metadata"]["annotations"];
    assert_eq!(annotations["foreshock.dev/paused"], "true");
    assert_eq!(annotations["foreshock.dev/address"], leader.url());
    let (code, out, _) = foreshock(&["resume", "--server", follower.url()]).await;
    assert_eq!((code, out.as_str()), (0, "resumed\n"));
    for of in [leader, follower] {
        wait_health(of, "not to be paused", 10, |health| {
            health["paused"] == false
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn a_release_takes_what_is_ours_and_nothing_of_another_instance_or_a_person() {
    let scene = Scene::start().await;
    scene.populate().await;
    let kubectl = async |args: &[&str]| scene.cluster.kubectl(args).await;
    kubectl(&["taint", "node", SLOW_NODE, "theirs=1:PreferNoSchedule"]).await;
    kubectl(&["label", "node", "worker-02", "foreshock.dev/risk=mine"]).await;
    kubectl(&[
        "annotate",
        "node",
        "worker-02",
        "foreshock.dev/hold-until=2020-01-01T00:00:00Z",
    ])
    .await;
    kubectl(&["cordon", "worker-06"]).await;
    let bare = scene.all_lasting().await;
    // Marks that look like ours, and no record says so.
    kubectl(&["taint", "node", "worker-04", OUR_TAINT]).await;
    let orphan = scene.lasting("worker-04").await;

    let ours = scene.config(
        "foreshock.toml",
        &Instance {
            name: "foreshock",
            reach: "evict",
            kubeconfig: &scene.kubeconfig,
            selector: "",
        },
    );
    let theirs = scene.config(
        "second.toml",
        &Instance {
            name: "second",
            reach: "taint",
            kubeconfig: &scene.admin,
            selector: "",
        },
    );
    let mut service = Foreshock::start(&ours, &[], &[]).await;
    let second = Foreshock::start(&theirs, &[], &[]).await;
    for of in [&service, &second] {
        wait_health(of, "both to lead, each by its own Lease", 30, |health| {
            health["leader"] == true
        })
        .await;
    }
    send(&service, "worker-02").await;
    scene.wait_taint("worker-02").await;
    send(&second, "worker-03").await;
    scene.wait_taint("worker-03").await;
    // Each takes the other's for foreign, and leaves the Node alone.
    send(&service, "worker-03").await;
    send(&second, "worker-02").await;
    for (of, node) in [(&service, "worker-03"), (&second, "worker-02")] {
        wait_view(of, node, "to be held by a foreign mark", 20, |view| {
            view["hold"]["reason"] == "foreign_mark"
        })
        .await;
    }
    // Otherwise it would take the Node over once it is free.
    let over = alert("worker-02", "resolved");
    assert_eq!(
        second.post_json("/webhook/alertmanager", &over).await.0,
        202
    );
    wait_view(&second, "worker-02", "to be well", 20, |view| {
        view["alerts"] == json!([])
    })
    .await;
    // In the middle of a drain that takes long.
    send(&service, SLOW_NODE).await;
    let slow = || {
        let evicted = scene.accepted_evictions();
        evicted.iter().any(|event| event.name.starts_with("slow-"))
    };
    wait_for(
        "a slow Pod to be evicted",
        Duration::from_secs(60),
        async || slow().then_some(()),
    )
    .await;
    let others = scene.lasting("worker-03").await;

    release_beside_the_service(&scene, &ours, &service).await;
    let mut expected = bare.clone();
    expected.insert("worker-03".to_owned(), others.clone());
    expected.insert("worker-04".to_owned(), orphan);
    assert_eq!(scene.all_lasting().await, expected);

    // Its alerts have not ended: it is the pause that holds it, and resumed it marks again.
    let released_at = Timestamp::now();
    for _ in 0..3 {
        let decided = service.get_json("/api/stats").await["at"].clone();
        wait_view(
            &service,
            SLOW_NODE,
            "to be decided about again",
            20,
            |view| view["at"].as_str() > decided.as_str() && view["hold"]["reason"] == "paused",
        )
        .await;
    }
    let written = scene.writes_after(released_at);
    let beyond_the_lease: Vec<_> = written
        .iter()
        .filter(|event| event.resource != "leases")
        .collect();
    assert!(
        beyond_the_lease.is_empty(),
        "written while paused: {beyond_the_lease:?}"
    );
    let ours = ours.to_str().expect("a path");
    let admin = scene.admin.to_str().expect("a path");
    let (code, out, _) = foreshock(&["resume", "--config", ours]).await;
    assert!(
        code == 0 && out.starts_with("resumed: Lease foreshock/foreshock"),
        "{out}"
    );
    scene.wait_taint(SLOW_NODE).await;

    // Without a service, with the service's own rights; now with what has lost its record.
    service.kill9();
    let (code, out, _) = foreshock(&["release", "--config", ours, "--dry-run", "--adopt"]).await;
    assert!(
        code == 0 && out.contains("would release") && out.contains("nothing was changed"),
        "{out}"
    );
    assert!(has_taint(&scene.node(SLOW_NODE).await, OUR_TAINT));
    let (code, out, _) = foreshock(&["release", "--config", ours, "--adopt"]).await;
    assert_eq!(code, 0, "{out}");
    assert!(
        out.contains("nothing of instance foreshock is left"),
        "{out}"
    );
    let mut expected = bare;
    expected.insert("worker-03".to_owned(), others);
    assert_eq!(scene.all_lasting().await, expected);
    let (code, out, _) = foreshock(&["resume", "--kubeconfig", admin]).await;
    assert!(
        code == 0 && out.starts_with("resumed: Lease foreshock/foreshock"),
        "{out}"
    );
    let (code, out, _) = foreshock(&["resume", "--kubeconfig", admin, "--instance", "third"]).await;
    assert!(code == 0 && out.starts_with("nothing to resume"), "{out}");
    // The other instance was never paused.
    assert_eq!(second.get_json("/api/health").await["paused"], false);
}

/// `release` while the service drains: evictions end at once, marks go, and stay away.
async fn release_beside_the_service(scene: &Scene, config: &Path, service: &Foreshock) {
    let config = config.to_str().expect("a path");
    let admin = scene.admin.to_str().expect("a path");
    let (code, out, err) = foreshock(&["release", "--config", config, "--kubeconfig", admin]).await;
    assert_eq!(code, 0, "{err}{out}");
    for words in [
        "worker-01  released",
        "taint degradation=true:NoSchedule",
        "back to \"mine\"",
        "worker-04  not ours",
        "nothing of instance foreshock is left",
        "stays paused until `foreshock resume --config",
    ] {
        assert!(out.contains(words), "{words:?} is not in:\n{out}");
    }
    assert!(!out.contains("worker-03"), "{out}");
    let audit = scene.cluster.audit();
    // The pause: the only write of the Lease that is not one of the services'.
    let paused = audit
        .iter()
        .find(|event| {
            event.user == "admin" && event.resource == "leases" && event.name == "foreshock"
        })
        .expect("the command paused it");
    let late: Vec<&AuditEvent> = audit
        .iter()
        .filter(|event| event.user == ACCOUNT && event.is_write() && event.resource != "leases")
        .filter(|event| event.received.duration_since(paused.answered).as_secs_f64() > 1.0)
        .collect();
    assert!(
        late.is_empty(),
        "written later than 1 s after the pause: {late:?}"
    );
    let first_mark_off = audit
        .iter()
        .filter(|event| event.user == "admin" && event.resource == "nodes" && event.verb == "patch")
        .find(|event| {
            event.received > paused.answered && event.uri.contains("fieldManager=foreshock")
        })
        .expect("marks were taken off");
    let waited = first_mark_off
        .received
        .duration_since(paused.answered)
        .as_secs_f64();
    println!("figure release_waited_seconds {waited:.1}");
    assert!(waited >= 23.0, "only {waited:.1} s");
    wait_health(service, "to be paused", 10, |health| {
        health["paused"] == true
    })
    .await;
    wait_view(service, SLOW_NODE, "to be seen without marks", 20, |view| {
        holds(view, "paused") && view["taints"] != json!([OUR_TAINT])
    })
    .await;
    scene.no_pod_was_evicted_twice();
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn a_command_that_cannot_do_its_job_says_what_to_do() {
    let scene = Scene::start().await;
    let admin = scene.admin.to_str().expect("a path");
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let fails = async |args: &[&str], words: &[&str]| {
        let (code, out, err) = foreshock(args).await;
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        for word in words {
            assert!(err.contains(word), "{word:?} is not in: {err}");
        }
    };
    fails(
        &["pause", "--server", &nobody],
        &["is foreshock running there?", &nobody],
    )
    .await;
    fails(
        &["explain", "a", "--server", "nonsense"],
        &["--server", "no URL"],
    )
    .await;
    fails(
        &["pause", "--server", &nobody, "--config", "x.toml"],
        &["give one of them"],
    )
    .await;
    fails(
        &["release", "--config", "x.toml"],
        &["x.toml", "cannot be read"],
    )
    .await;
    fails(
        &[
            "release",
            "--kubeconfig",
            "/nonexistent",
            "--namespace",
            "a",
        ],
        &["/nonexistent"],
    )
    .await;
    fails(
        &[
            "release",
            "--kubeconfig",
            admin,
            "--namespace",
            "a",
            "--node",
            "worker-99",
        ],
        &["there is no Node worker-99"],
    )
    .await;
    // Two services of one name: which is meant has to be said, and nothing is paused before.
    let lease = |namespace: &str| {
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "foreshock", "namespace": namespace}, "spec": {}}).to_string()
    };
    let (a, b) = (lease("foreshock"), lease("default"));
    scene.cluster.apply(&format!("{a}\n---\n{b}")).await;
    fails(
        &["release", "--kubeconfig", admin],
        &["several namespaces", "default, foreshock", "--namespace"],
    )
    .await;
    // The service's own rights do not reach every namespace, so it has to be said as well.
    let own = scene.kubeconfig.to_str().expect("a path");
    fails(
        &["release", "--kubeconfig", own],
        &["--namespace", "not allowed"],
    )
    .await;
    let leases = scene
        .cluster
        .kubectl(&["get", "leases", "-A", "-o", "yaml"])
        .await;
    assert!(!leases.contains("foreshock.dev/paused"), "{leases}");

    let config = scene.config(
        "foreshock.toml",
        &Instance {
            name: "foreshock",
            reach: "observe",
            kubeconfig: &scene.kubeconfig,
            selector: "",
        },
    );
    let service = Foreshock::start(&config, &[], &[]).await;
    wait_health(&service, "the Nodes to be known", 30, |health| {
        health["synced"] == true
    })
    .await;
    fails(
        &["explain", "worker-99", "--server", service.url()],
        &["404", "there is no Node `worker-99`"],
    )
    .await;
    let (code, out, _) = foreshock(&[
        "explain",
        "worker-01",
        "-o",
        "json",
        "--server",
        service.url(),
    ])
    .await;
    let json: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        (code, &json["node"], &json["plan"]["possible"]),
        (0, &json!("worker-01"), &json!(true))
    );
    let keys: BTreeSet<&String> = json.as_object().expect("an object").keys().collect();
    for key in ["risk", "contributions", "holds", "plan"] {
        assert!(keys.contains(&key.to_owned()), "{key}");
    }
    // Without a Lease a pause ends with the process, and that is said.
    let (code, out, _) = foreshock(&["pause", "--server", service.url()]).await;
    assert!(
        code == 0 && out.contains("does not survive a restart"),
        "{out}"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn a_pause_from_before_the_first_start_holds_until_somebody_resumes() {
    let scene = Scene::start().await;
    let config = scene.config(
        "foreshock.toml",
        &Instance {
            name: "fresh",
            reach: "evict",
            kubeconfig: &scene.admin,
            selector: "",
        },
    );
    let config = config.to_str().expect("a path");
    let (code, out, _) = foreshock(&["pause", "--config", config]).await;
    assert!(code == 0 && out.contains("was created"), "{out}");
    let (code, out, _) = foreshock(&["pause", "--config", config]).await;
    assert!(code == 0 && out.contains("paused already"), "{out}");

    let service = Foreshock::start(Path::new(config), &[], &[]).await;
    wait_health(&service, "it to lead and be paused", 30, |health| {
        health["leader"] == true && health["paused"] == true
    })
    .await;
    send(&service, "worker-01").await;
    wait_view(
        &service,
        "worker-01",
        "to be held by the pause",
        20,
        |view| view["risk"] == 0.8 && view["hold"]["reason"] == "paused",
    )
    .await;
    let (_, table, _) = foreshock(&["explain", "worker-01", "--server", service.url()]).await;
    assert!(table.contains("Lifted by:  `foreshock resume`"), "{table}");
    let (code, out, _) = foreshock(&["release", "--config", config]).await;
    assert!(code == 0 && out.contains("0 Nodes released"), "{out}");
    let (code, out, _) = foreshock(&["resume", "--config", config]).await;
    assert!(code == 0 && out.starts_with("resumed"), "{out}");
    scene.wait_taint("worker-01").await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn a_marked_node_that_leaves_the_selector_is_reported_and_can_be_released() {
    let scene = Scene::start().await;
    let label = async |node: &str, value: &str| {
        let pair = format!("pool={value}");
        scene
            .cluster
            .kubectl(&["label", "node", node, &pair, "--overwrite"])
            .await
    };
    for node in ["worker-01", "worker-02", "worker-03"] {
        label(node, "a").await;
    }
    let bare = scene.lasting("worker-01").await;
    let config = scene.config(
        "foreshock.toml",
        &Instance {
            name: "foreshock",
            reach: "taint",
            kubeconfig: &scene.kubeconfig,
            selector: "pool=a",
        },
    );
    let service = Foreshock::start(&config, &[], &[]).await;
    wait_health(&service, "it to lead", 30, |health| {
        health["leader"] == true
    })
    .await;
    send(&service, "worker-01").await;
    scene.wait_taint("worker-01").await;

    let strays = |health: &Value| {
        let problems = health["problems"].as_array().cloned().unwrap_or_default();
        problems.iter().any(|problem| {
            let text = problem.as_str().unwrap_or_default();
            text.starts_with("worker-01 have left") && text.contains("foreshock release --node")
        })
    };
    label("worker-01", "b").await;
    wait_health(&service, "the stray to be reported", 30, strays).await;
    label("worker-01", "a").await;
    wait_health(&service, "the Node to be its own again", 30, |health| {
        !strays(health)
    })
    .await;
    assert!(has_taint(&scene.node("worker-01").await, OUR_TAINT));
    label("worker-01", "b").await;
    wait_health(&service, "the stray to be reported again", 30, strays).await;

    let config = config.to_str().expect("a path");
    let (code, out, _) = foreshock(&["release", "--config", config, "--node", "worker-01"]).await;
    assert!(code == 0 && out.contains("1 Node released"), "{out}");
    let mut expected = bare;
    expected["metadata"]["labels"]["pool"] = json!("b");
    assert_eq!(scene.lasting("worker-01").await, expected);
    assert_eq!(foreshock(&["resume", "--server", service.url()]).await.0, 0);
    wait_health(&service, "nothing to be reported any more", 60, |health| {
        !strays(health)
    })
    .await;
}
