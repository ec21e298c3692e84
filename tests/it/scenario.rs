//! The whole of it on real servers: a fleet, Prometheus, Alertmanager, a cluster, and foreshock with
//! exactly the rights that `deploy/` gives it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::alertmanager::Alertmanager;
use crate::support::audit::AuditEvent;
use crate::support::cluster::{Cluster, budget, deployment};
use crate::support::foreshock::Foreshock;
pub(crate) use crate::support::foreshock::{ACCOUNT, apply_account};
use crate::support::prometheus::{Prometheus, PrometheusOptions};
use crate::support::proxy::Proxy;
use crate::support::server::{Server, Workdir, listening};
use crate::support::target::Targets;
use crate::support::watcher::Watcher;
use crate::support::{Version, free_port, http, wait_for, wait_until};

/// Nodes of every scene: worker-01 to worker-20.
pub(crate) const NODES: usize = 20;
/// Where the slow Pods of the scene run at first.
pub(crate) const LEDGER_NODE: &str = "worker-07";
/// Severity of every fault in these tests: a multiple of a tenth, which training never uses.
pub(crate) const SEVERITY: f64 = 0.8;

/// What a scene is like.
pub(crate) struct SceneOptions {
    /// Of Prometheus and Alertmanager.
    pub(crate) version: Version,
    /// `policy.reach`.
    pub(crate) reach: &'static str,
    /// `policy.confirm_for`.
    pub(crate) confirm_for: &'static str,
    /// Whether foreshock reaches the API server through [`Scene::proxy`].
    pub(crate) proxied: bool,
    /// Further tables of foreshock's configuration; `@ALERTMANAGER@` is Alertmanager's URL.
    pub(crate) more: &'static str,
}

impl Default for SceneOptions {
    fn default() -> Self {
        Self {
            version: Version::Current,
            reach: "evict",
            confirm_for: "3s",
            proxied: false,
            more: "",
        }
    }
}

/// A running scene.
pub(crate) struct Scene {
    pub(crate) foreshock: Foreshock,
    pub(crate) cluster: Cluster,
    pub(crate) watcher: Watcher,
    pub(crate) prometheus: Prometheus,
    proxy: Option<Proxy>,
    listen: String,
    _alertmanager: Alertmanager,
    pub(crate) fires: Targets,
    _fleet: Server,
    fleet_url: String,
    started: Timestamp,
    _workdir: Workdir,
}

impl Scene {
    /// Starts everything and waits until every Node has a risk and every Pod is ready.
    pub(crate) async fn start(options: SceneOptions) -> Self {
        let workdir = Workdir::new("scene");
        let (fleet, fleet_url) = start_fleet(&workdir).await;
        let fires = Targets::start().await;
        for node in names() {
            fires.set(&node, "bed_fire 0\n");
        }
        let cluster = Cluster::start().await;
        cluster.create_nodes(NODES).await;
        apply_account(&cluster).await;
        populate(&cluster).await;
        let (namespace, account) = ("foreshock", "foreshock");
        let (proxy, kubeconfig) = if options.proxied {
            let proxy = Proxy::start(&cluster).await;
            let kubeconfig = proxy.kubeconfig_for(&cluster, namespace, account).await;
            (Some(proxy), kubeconfig)
        } else {
            (None, cluster.kubeconfig_for(namespace, account).await)
        };

        let listen = format!("127.0.0.1:{}", free_port());
        let alertmanager =
            Alertmanager::start(options.version, &alertmanager_config(&listen)).await;
        let prometheus = Prometheus::start(PrometheusOptions {
            version: options.version,
            config: prometheus_config(&fleet_url, &fires, &listen, alertmanager.url()),
            rules: vec![("fires.yml".to_owned(), FIRE_RULES.to_owned())],
            ..PrometheusOptions::default()
        })
        .await;
        let config = workdir.write(
            "foreshock.toml",
            &foreshock_config(&listen, prometheus.url(), &kubeconfig, &options)
                .replace("@ALERTMANAGER@", alertmanager.url()),
        );
        let watcher = Watcher::start(cluster.client()).await;
        let foreshock = Foreshock::start(&config, &[], &[]).await;
        let scene = Self {
            foreshock,
            cluster,
            watcher,
            prometheus,
            proxy,
            listen,
            _alertmanager: alertmanager,
            fires,
            _fleet: fleet,
            fleet_url,
            started: Timestamp::now(),
            _workdir: workdir,
        };
        scene.wait_all_known().await;
        scene
    }

    /// Every Node is scored and well.
    async fn wait_all_known(&self) {
        wait_until(
            "every Node to be scored and healthy",
            Duration::from_secs(90),
            async || {
                let nodes = self.nodes().await;
                let odd: Vec<String> = nodes
                    .iter()
                    .filter(|node| node["band"] != "healthy")
                    .map(|node| format!("{} {} {}", node["node"], node["band"], node["hold"]))
                    .collect();
                if nodes.len() == NODES && odd.is_empty() {
                    Ok(())
                } else {
                    Err(format!("{} Nodes, odd: {odd:?}", nodes.len()))
                }
            },
        )
        .await;
    }

    /// What stands between foreshock and the API server, where the scene was asked for it.
    pub(crate) fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("the scene is a proxied one")
    }

    /// A scrape configuration for foreshock's own metrics.
    pub(crate) fn scrape_config(&self) -> Value {
        foreshock_job(&self.listen)
    }

    pub(crate) async fn nodes(&self) -> Vec<Value> {
        let answer = self.foreshock.get_json("/api/nodes").await;
        answer["nodes"].as_array().cloned().unwrap_or_default()
    }

    /// What the API shows of a Node; nothing yet while foreshock has just been started.
    pub(crate) async fn node(&self, name: &str) -> Value {
        let (status, body) = self.foreshock.get(&format!("/api/nodes/{name}")).await;
        match status {
            503 => Value::Null,
            200 => serde_json::from_str(&body).expect("the API writes JSON"),
            _ => panic!("GET /api/nodes/{name}: {status} {body}"),
        }
    }

    /// Begins a fault of the fleet, now.
    pub(crate) async fn fault(&self, node: &str, kind: &str, lasts: &str) {
        let fault =
            json!({"node": node, "kind": kind, "for": lasts, "severity": SEVERITY, "ramp": "5s"});
        let answer = http()
            .post(format!("{}/faults", self.fleet_url))
            .json(&fault)
            .send()
            .await
            .expect("the fleet answers");
        let status = answer.status();
        assert!(
            status.is_success(),
            "the fleet refuses {fault}: {status} {}",
            answer.text().await.unwrap_or_default()
        );
        println!("{} fault {kind} on {node} for {lasts}", self.clock());
    }

    /// Lets the rule in Prometheus fire for a Node, or stops it.
    pub(crate) fn fire(&self, node: &str, burning: bool) {
        self.fires
            .set(node, &format!("bed_fire {}\n", u8::from(burning)));
        println!(
            "{} alert on {node}: {}",
            self.clock(),
            if burning { "fires" } else { "stops" }
        );
    }

    /// Waits until the API shows the Node in a phase.
    pub(crate) async fn wait_phase(&self, node: &str, phase: &str, limit: u64) -> Value {
        self.wait_node(node, &format!("to be {phase}"), limit, |view| {
            view["phase"] == phase
        })
        .await
    }

    /// Waits until what the API shows of a Node fits.
    pub(crate) async fn wait_node(
        &self,
        node: &str,
        what: &str,
        limit: u64,
        fits: impl Fn(&Value) -> bool,
    ) -> Value {
        let view = wait_until(
            &format!("{node} {what}"),
            Duration::from_secs(limit),
            async || {
                let view = self.node(node).await;
                if fits(&view) {
                    return Ok(view);
                }
                Err(format!(
                    "risk {} phase {} hold {} top {}",
                    view["risk"], view["phase"], view["hold"], view["top"]
                ))
            },
        )
        .await;
        println!(
            "{} {node} {what}: risk {}, hold {}",
            self.clock(),
            view["risk"],
            view["hold"]["reason"]
        );
        view
    }

    /// Our taint on a Node, as kubectl shows it.
    pub(crate) async fn taints(&self, node: &str) -> Vec<String> {
        let node = self.node_object(node).await;
        let taints = node["spec"]["taints"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        taints
            .iter()
            .map(|t| {
                format!(
                    "{}={}:{}",
                    t["key"].as_str().unwrap_or(""),
                    t["value"].as_str().unwrap_or(""),
                    t["effect"].as_str().unwrap_or("")
                )
            })
            .collect()
    }

    /// The Node object, as kubectl shows it.
    pub(crate) async fn node_object(&self, node: &str) -> Value {
        let text = self
            .cluster
            .kubectl(&["get", "node", node, "-o", "json"])
            .await;
        serde_json::from_str(&text).expect("kubectl writes JSON")
    }

    /// Waits until our taint is gone and the Node is healthy again.
    pub(crate) async fn wait_released(&self, node: &str, limit: u64) {
        self.wait_phase(node, "healthy", limit).await;
        wait_for(
            &format!("the taint of {node} to be gone"),
            Duration::from_secs(5),
            async || self.taints(node).await.is_empty().then_some(()),
        )
        .await;
    }

    /// Everything that foreshock asked of the API server and was not only a question.
    pub(crate) fn writes(&self) -> Vec<AuditEvent> {
        self.cluster
            .audit()
            .into_iter()
            .filter(|event| event.user == ACCOUNT && event.is_write())
            .collect()
    }

    /// Evictions of foreshock's that were accepted.
    pub(crate) fn evictions(&self) -> Vec<AuditEvent> {
        let mut all = self.writes();
        all.retain(|event| event.is_eviction() && !event.is_dry_run() && event.succeeded());
        all
    }

    /// Judges the whole run: no budget exceeded, no Pod of another Node touched, no Pod evicted twice,
    /// nothing written that foreshock has no business with.
    pub(crate) fn judge(&self, touched: &[&str]) {
        self.watcher.assert_budgets_kept();
        for node in names().filter(|node| !touched.contains(&node.as_str())) {
            let deleted = self.watcher.pods_deleted(&node);
            assert!(
                deleted.is_empty(),
                "Pods of {node}, which was well, were deleted: {deleted:?}"
            );
        }
        let mut accepted: BTreeMap<String, usize> = BTreeMap::new();
        for event in self.evictions() {
            let uid = event
                .pod_uid()
                .expect("every eviction has its Pod's UID as precondition")
                .to_owned();
            *accepted.entry(uid).or_default() += 1;
        }
        let twice: Vec<_> = accepted.iter().filter(|(_, times)| **times > 1).collect();
        assert!(
            twice.is_empty(),
            "Pods with more than one accepted eviction: {twice:?}"
        );
        let kinds: BTreeSet<(String, String, String)> = self
            .writes()
            .iter()
            .map(|event| {
                (
                    event.verb.clone(),
                    event.resource.clone(),
                    event.subresource.clone(),
                )
            })
            .collect();
        let known = [
            ("patch", "nodes", ""),
            ("create", "pods", "eviction"),
            ("create", "events", ""),
            ("create", "leases", ""),
            ("patch", "leases", ""),
        ];
        for (verb, resource, subresource) in &kinds {
            assert!(
                known.contains(&(verb, resource, subresource)),
                "foreshock wrote {verb} {resource}/{subresource}"
            );
        }
        println!(
            "{} accepted evictions, each of another Pod; every budget kept",
            accepted.len()
        );
    }

    /// Prints what the watcher saw.
    pub(crate) fn print_timeline(&self) {
        println!("{}", self.watcher.timeline_text());
    }

    /// When everything had been started.
    pub(crate) fn started(&self) -> Timestamp {
        self.started
    }

    fn clock(&self) -> String {
        format!(
            "{:7.1} s",
            Timestamp::now().duration_since(self.started).as_secs_f64()
        )
    }
}

pub(crate) fn names() -> impl Iterator<Item = String> {
    (1..=NODES).map(|n| format!("worker-{n:02}"))
}

/// What of a Node has to be the same after a release: everything but heartbeats and our record.
pub(crate) fn lasting(node: &Value) -> Value {
    let mut node = node.clone();
    node["status"] = Value::Null;
    for field in ["resourceVersion", "managedFields", "generation"] {
        node["metadata"][field] = Value::Null;
    }
    if let Some(annotations) = node["metadata"]["annotations"].as_object_mut() {
        annotations.remove("foreshock.dev/state");
    }
    node
}

async fn start_fleet(workdir: &Workdir) -> (Server, String) {
    let program = Path::new(env!("CARGO_BIN_EXE_foreshock"));
    let args = [
        "fleet",
        "--nodes",
        "20",
        "--listen",
        "127.0.0.1:0",
        "--seed",
        "7",
    ]
    .map(str::to_owned)
    .to_vec();
    let mut fleet = Server::start("fleet", program, args, &[], workdir.path());
    let address = fleet
        .ready(Duration::from_secs(30), async |log| listening(log))
        .await;
    (fleet, format!("http://{address}"))
}

/// 200 Pods: Deployments with and without budgets, a StatefulSet, a DaemonSet.
async fn populate(cluster: &Cluster) {
    cluster.kubectl(&["create", "namespace", "shop"]).await;
    let all = [
        deployment("shop", "api", 40),
        budget("shop", "api", ("maxUnavailable", json!(2))),
        deployment("shop", "web", 50),
        budget("shop", "web", ("maxUnavailable", json!("10%"))),
        deployment("shop", "cart", 40),
        deployment("shop", "mail", 40),
        stateful_set("shop", "store", 10),
        budget("shop", "store", ("minAvailable", json!(9))),
        daemon_set("shop", "agent"),
        ledger("shop", "ledger"),
        budget("shop", "ledger", ("maxUnavailable", json!(1))),
    ];
    cluster.apply(&all.join("\n---\n")).await;
    for name in ["api", "web", "cart", "mail", "ledger"] {
        cluster
            .wait_rollout("shop", &format!("deployment/{name}"))
            .await;
    }
    cluster.wait_rollout("shop", "statefulset/store").await;
    cluster.wait_rollout("shop", "daemonset/agent").await;
}

fn pod_template(name: &str, tolerations: &Value) -> Value {
    json!({
        "metadata": {"labels": {"app": name}},
        "spec": {
            "tolerations": tolerations,
            "containers": [{"name": "main", "image": "example.invalid/app", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}],
        },
    })
}

fn stateful_set(namespace: &str, name: &str, replicas: usize) -> String {
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "replicas": replicas, "serviceName": name, "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": name}}, "template": pod_template(name, &json!([])),
        },
    })
    .to_string()
}

/// Two Pods that like [`LEDGER_NODE`] and are slow to get ready: the second has to wait for its budget.
fn ledger(namespace: &str, name: &str) -> String {
    let mut template = pod_template(name, &json!([]));
    template["metadata"]["annotations"] =
        json!({"bed/ready-delay": "5s", "bed/ready-delay-max": "6s"});
    template["spec"]["affinity"] = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
        "weight": 100,
        "preference": {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [LEDGER_NODE]}]},
    }]}});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": namespace, "name": name},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": template},
    })
    .to_string()
}

fn daemon_set(namespace: &str, name: &str) -> String {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"namespace": namespace, "name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": pod_template(name, &json!([{"operator": "Exists"}]))},
    })
    .to_string()
}

const FIRE_RULES: &str = r#"
groups:
  - name: fires
    interval: 1s
    rules:
      - alert: NodeOnFire
        expr: max by (node) (bed_fire) > 0
        labels: { severity: critical }
        annotations: { summary: "the node is on fire" }
"#;

fn prometheus_config(fleet: &str, fires: &Targets, foreshock: &str, alertmanager: &str) -> String {
    let host = alertmanager.trim_start_matches("http://");
    let all: Vec<String> = names().collect();
    let fire_job = fires.scrape_config(
        "fires",
        "1s",
        all.iter().map(String::as_str),
        |node| json!({"node": node, "instance": format!("{node}:1")}),
    );
    let mut jobs = vec![fire_job];
    // No prober: within these short windows a single lost probe would be a large share, and tcp
    // retransmits stand for the latency, as in most clusters.
    for (job, target) in [("node-exporter", "node-exporter"), ("kubelet", "kubelet")] {
        jobs.push(json!({
            "job_name": job, "scrape_interval": "1s", "scrape_timeout": "1s",
            "http_sd_configs": [{"url": format!("{fleet}/sd?target={target}"), "refresh_interval": "5s"}],
        }));
    }
    let fleet_host = fleet.trim_start_matches("http://");
    jobs.push(json!({
        "job_name": "kube-state-metrics", "scrape_interval": "2s", "honor_labels": true,
        "metrics_path": "/kube-state-metrics/metrics", "static_configs": [{"targets": [fleet_host]}],
    }));
    jobs.push(foreshock_job(foreshock));
    json!({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules/*.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [host]}]}]},
        "scrape_configs": jobs,
    })
    .to_string()
}

fn foreshock_job(foreshock: &str) -> Value {
    json!({
        "job_name": "foreshock", "scrape_interval": "1s", "honor_labels": true, "static_configs": [{"targets": [foreshock]}],
    })
}

fn alertmanager_config(foreshock: &str) -> String {
    json!({
        "route": {"receiver": "foreshock", "group_by": ["alertname", "node"], "group_wait": "0s", "group_interval": "1s", "repeat_interval": "1m"},
        "receivers": [{"name": "foreshock", "webhook_configs": [{"url": format!("http://{foreshock}/webhook/alertmanager"), "send_resolved": true}]}],
    })
    .to_string()
}

/// The waiting times of the policy are shortened; thresholds and limits are the defaults but for
/// `drains_per_hour`, since some tests drain more Nodes than an hour allows.
fn foreshock_config(
    listen: &str,
    prometheus: &str,
    kubeconfig: &Path,
    options: &SceneOptions,
) -> String {
    let SceneOptions {
        reach,
        confirm_for,
        more,
        ..
    } = options;
    let mut text = String::new();
    write!(
        text,
        r#"
[listen]
address = "{listen}"
[prometheus]
url = "{prometheus}"
rate_window = "12s"
stale_after = "10s"
lag = "2s"
timeout = "5s"
[kubernetes]
kubeconfig = "{}"
namespace = "foreshock"
[cycle]
interval = "1s"
[model]
act_untrained = true
[policy]
reach = "{reach}"
confirm_for = "{confirm_for}"
drain_after = "3s"
recover_for = "5s"
probation = "1s"
new_node_age = "0s"
[policy.limits]
drains_per_hour = 60
[[alerts.rules]]
match = ['alertname="NodeOnFire"']
floor = 0.8
reach = "evict"
expire = "10m"
{more}
"#,
        kubeconfig.display()
    )
    .expect("writing to a String cannot fail");
    text
}
