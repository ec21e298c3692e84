//! A Kubernetes control plane of its own for one test, with Nodes and Pods that kwok keeps alive.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::audit::{self, AuditEvent, AuditTail};
use super::server::{Server, Workdir};
use super::{bed_program, free_port, http, init, wait_for, wait_until};

const STAGES: &str = include_str!("stages.yaml");

/// Who is who, for RBAC and for the audit log. The parts of the control plane have names of their own, so
/// that a test can tell their writes from those of the program.
const TOKENS: &str = r#"admin,admin,admin,"system:masters"
controller-manager,system:kube-controller-manager,controller-manager,"system:masters"
scheduler,system:kube-scheduler,scheduler,"system:masters"
kwok,kwok,kwok,"system:masters"
"#;

/// The bodies of evictions and of changes to Nodes are logged, of everything else that it happened. Reads,
/// leases and events of the control plane itself are left out: they are most of the traffic and no test's
/// subject.
const AUDIT_POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:kube-controller-manager", "system:kube-scheduler", "system:apiserver", "kwok"]
  verbs: [get, list, watch]
- level: None
  users: ["system:kube-controller-manager", "system:kube-scheduler", "system:apiserver", "kwok"]
  resources:
  - {group: coordination.k8s.io}
  - {group: "", resources: [events, nodes/status]}
  - {group: events.k8s.io}
- level: RequestResponse
  verbs: [create, update, patch, delete, deletecollection]
  resources: [{group: "", resources: [pods/eviction, nodes]}]
- level: Metadata
"#;

/// Memory for time: a control plane shares two cores with all that is measured on it, and with Go's own
/// default spends a good part of them on collecting garbage.
const SPACIOUS: [(&str, &str); 2] = [("GOGC", "400"), ("GOMEMLIMIT", "1GiB")];

/// How Pods live in a [`Cluster`]. Single Pods can be told to differ: see `stages.yaml`.
#[derive(Clone, Debug)]
pub(crate) struct ClusterOptions {
    /// From being bound to a Node until ready: shortest and longest.
    pub(crate) pod_ready: (Duration, Duration),
    /// From being deleted until gone: shortest and longest.
    pub(crate) pod_gone: (Duration, Duration),
    /// Further arguments of kube-apiserver.
    pub(crate) apiserver_args: Vec<String>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            pod_ready: (seconds(1), seconds(3)),
            pod_gone: (seconds(1), seconds(2)),
            apiserver_args: Vec::new(),
        }
    }
}

/// What each Node of [`Cluster::create_nodes_like`] looks like.
#[derive(Clone, Debug)]
pub(crate) struct NodeShape {
    pub(crate) cpu: String,
    pub(crate) memory: String,
    pub(crate) pods: String,
    /// The Nodes take turns among `zone-a`, `zone-b`, ….
    pub(crate) zones: usize,
    pub(crate) labels: Vec<(String, String)>,
}

impl Default for NodeShape {
    fn default() -> Self {
        Self {
            cpu: "8".into(),
            memory: "32Gi".into(),
            pods: "110".into(),
            zones: 3,
            labels: Vec::new(),
        }
    }
}

/// A running control plane: etcd, API server, controller manager, scheduler and kwok.
pub(crate) struct Cluster {
    // Dropped in this order: what writes to the API server ends before it does.
    kwok: Server,
    scheduler: Server,
    controller_manager: Server,
    apiserver: Server,
    etcd: Server,
    url: String,
    client: kube::Client,
    workdir: Workdir,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::start_with(ClusterOptions::default()).await
    }

    pub(crate) async fn start_with(options: ClusterOptions) -> Self {
        init();
        let workdir = Workdir::new("cluster");
        let etcd = start_etcd(&workdir).await;
        let (apiserver, url) = start_apiserver(&workdir, &etcd.1, &options.apiserver_args).await;
        let certificates = certificates();
        let client = client(&kubeconfig(&url, "admin", &certificates)).await;
        let as_user = |user: &str| {
            let text = kubeconfig(&url, user, &certificates);
            workdir
                .write(&format!("{user}.kubeconfig"), &text)
                .display()
                .to_string()
        };
        as_user("admin");

        let start = |name: &str, args: Vec<String>| {
            Server::start(name, &bed_program(name), args, &SPACIOUS, workdir.path())
        };
        let controller_manager = start(
            "kube-controller-manager",
            vec![
                format!("--kubeconfig={}", as_user("controller-manager")),
                "--leader-elect=false".into(),
                "--kube-api-qps=500".into(),
                "--kube-api-burst=1000".into(),
                "--secure-port=0".into(),
                format!(
                    "--service-account-private-key-file={}",
                    certificates.join("key.pem").display()
                ),
            ],
        );
        let scheduler = start(
            "kube-scheduler",
            vec![
                format!("--kubeconfig={}", as_user("scheduler")),
                "--leader-elect=false".into(),
                "--kube-api-qps=500".into(),
                "--kube-api-burst=1000".into(),
                "--secure-port=0".into(),
            ],
        );
        let millis = |duration: Duration| duration.as_millis().to_string();
        let stages = STAGES
            .replace("@READY_MIN@", &millis(options.pod_ready.0))
            .replace("@READY_MAX@", &millis(options.pod_ready.1))
            .replace("@GONE_MIN@", &millis(options.pod_gone.0))
            .replace("@GONE_MAX@", &millis(options.pod_gone.1));
        let kwok = start(
            "kwok",
            vec![
                format!("--kubeconfig={}", as_user("kwok")),
                "--manage-all-nodes=true".into(),
                "--node-lease-duration-seconds=40".into(),
                format!("-c={}", workdir.write("stages.yaml", &stages).display()),
            ],
        );

        let mut cluster = Self {
            kwok,
            scheduler,
            controller_manager,
            apiserver,
            etcd: etcd.0,
            url,
            client,
            workdir,
        };
        cluster.wait_controllers().await;
        cluster
    }

    /// The controller manager has begun its work when it has made the first ServiceAccount.
    async fn wait_controllers(&mut self) {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), "default");
        self.controller_manager
            .ready(Duration::from_secs(60), async |_| {
                accounts.get_opt("default").await.ok().flatten()
            })
            .await;
    }

    /// The API server's address, without a slash at its end.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The certificate that the API server shows.
    pub(crate) fn certificate() -> reqwest::Certificate {
        let pem = std::fs::read(certificates().join("cert.pem")).expect("the bed has one");
        reqwest::Certificate::from_pem(&pem).expect("the bed's certificate is one")
    }

    /// A client with every right. It does not retry.
    pub(crate) fn client(&self) -> kube::Client {
        self.client.clone()
    }

    pub(crate) fn workdir(&self) -> &Workdir {
        &self.workdir
    }

    pub(crate) fn apiserver(&mut self) -> &mut Server {
        &mut self.apiserver
    }

    pub(crate) fn controller_manager(&mut self) -> &mut Server {
        &mut self.controller_manager
    }

    pub(crate) fn scheduler(&mut self) -> &mut Server {
        &mut self.scheduler
    }

    /// While it is stopped, no Pod becomes ready or goes, and the leases of the Nodes run out.
    pub(crate) fn kwok(&mut self) -> &mut Server {
        &mut self.kwok
    }

    /// Writes a kubeconfig with every right.
    pub(crate) fn kubeconfig(&self, path: &Path) {
        let text = kubeconfig(&self.url, "admin", &certificates());
        std::fs::write(path, text).expect("the kubeconfig can be written");
    }

    /// Writes a kubeconfig with the rights of a ServiceAccount, and returns its path. The token is one that
    /// the API server issued for it and lasts an hour.
    pub(crate) async fn kubeconfig_for(&self, namespace: &str, service_account: &str) -> PathBuf {
        let token = self.token_for(namespace, service_account).await;
        let text = kubeconfig(&self.url, &token, &certificates());
        self.workdir
            .write(&format!("{namespace}.{service_account}.kubeconfig"), &text)
    }

    /// A kubeconfig whose token is read from a file, again and again.
    pub(crate) fn kubeconfig_of_file(&self, token: &Path) -> String {
        kubeconfig_with(
            &self.url,
            &json!({"tokenFile": token.display().to_string()}),
            &certificates(),
        )
    }

    /// A client with the rights of a ServiceAccount.
    pub(crate) async fn client_for(&self, namespace: &str, service_account: &str) -> kube::Client {
        let token = self.token_for(namespace, service_account).await;
        client(&kubeconfig(&self.url, &token, &certificates())).await
    }

    /// A token of a ServiceAccount, from the API server's TokenRequest.
    pub(crate) async fn token_for(&self, namespace: &str, service_account: &str) -> String {
        let token = self
            .kubectl(&["create", "token", service_account, "-n", namespace])
            .await;
        token.trim().to_owned()
    }

    /// Applies manifests, which may be several documents.
    pub(crate) async fn apply(&self, yaml: &str) {
        let output = self.try_kubectl(&["apply", "-f", "-"], yaml).await;
        assert!(
            output.status.success(),
            "kubectl apply: {}\n{yaml}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Runs kubectl with every right, which must succeed, and returns what it printed.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> String {
        let output = self.try_kubectl(args, "").await;
        assert!(
            output.status.success(),
            "kubectl {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs kubectl with every right, whatever becomes of it.
    pub(crate) async fn try_kubectl(&self, args: &[&str], stdin: &str) -> Output {
        let mut child = tokio::process::Command::new(bed_program("kubectl"))
            .args(args)
            .env("KUBECONFIG", self.workdir.join("admin.kubeconfig"))
            .env("HOME", self.workdir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("kubectl can be started");
        let mut pipe = child.stdin.take().expect("stdin is piped, see above");
        // An error means that kubectl did not want it; its exit says whether that matters.
        let _ = pipe.write_all(stdin.as_bytes()).await;
        drop(pipe);
        child
            .wait_with_output()
            .await
            .expect("kubectl can be waited for")
    }

    /// What the API server has answered so far. Watches appear when they end.
    pub(crate) fn audit(&self) -> Vec<AuditEvent> {
        audit::read(&self.workdir.join("audit.log"))
    }

    /// The same, for reading on and on.
    pub(crate) fn audit_tail(&self) -> AuditTail {
        AuditTail::new(&self.workdir.join("audit.log"))
    }

    /// Ends the API server with SIGKILL and starts it again at the same address. Watches break.
    pub(crate) async fn restart_apiserver(&mut self) {
        self.apiserver.start_again();
        let ready = apiserver_ready(&self.url);
        self.apiserver
            .ready(Duration::from_secs(60), async |_| ready().await)
            .await;
    }

    /// Creates `worker-01` … `worker-NN` and waits until Pods can be put there.
    pub(crate) async fn create_nodes(&self, count: usize) {
        self.create_nodes_like("worker", count, &NodeShape::default())
            .await;
    }

    /// Creates `NAME-01` … `NAME-NN` and waits until Pods can be put there.
    pub(crate) async fn create_nodes_like(&self, name: &str, count: usize, shape: &NodeShape) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let before = nodes
            .list_metadata(&ListParams::default())
            .await
            .expect("Nodes can be listed")
            .items
            .len();
        let nodes_to_be = (1..=count).map(|n| {
            let node: Node = serde_json::from_value(node(name, n, before + n, shape))
                .expect("the Node is well formed");
            let nodes = &nodes;
            async move {
                nodes
                    .create(&PostParams::default(), &node)
                    .await
                    .unwrap_or_else(|error| panic!("cannot create Node {name}-{n:02}: {error}"))
            }
        });
        // Sixteen at a time: thousands of Nodes in seconds, without a storm of connections.
        futures::stream::iter(nodes_to_be)
            .buffer_unordered(16)
            .for_each(async |_| ())
            .await;
        let limit = Duration::from_secs(60)
            + Duration::from_millis(100) * u32::try_from(count).unwrap_or(u32::MAX);
        let prefix = format!("{name}-");
        wait_until("the new Nodes are ready", limit, async || {
            let list = nodes
                .list(&ListParams::default())
                .await
                .map_err(|error| error.to_string())?;
            let ready = list
                .iter()
                .filter(|node| {
                    node.metadata
                        .name
                        .as_deref()
                        .is_some_and(|name| name.starts_with(&prefix))
                })
                .filter(|node| takes_pods(node))
                .count();
            (ready >= count)
                .then_some(())
                .ok_or_else(|| format!("{ready} of {count}"))
        })
        .await;
    }

    /// Makes a Node report that it is not ready, or leaves it to kwok again, and waits until the control
    /// plane has drawn its conclusions.
    pub(crate) async fn set_ready(&self, node: &str, ready: bool) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let (mark, status) = if ready {
            (Value::Null, "True")
        } else {
            (json!("set by the test"), "False")
        };
        let mark = json!({"metadata": {"annotations": {"bed/not-ready": mark}}});
        let now = jiff::Timestamp::now().to_string();
        let condition = json!({"status": {"conditions": [{
            "type": "Ready", "status": status, "reason": "Test", "message": "set by the test",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        }]}});
        let params = PatchParams::default();
        nodes
            .patch(node, &params, &Patch::Merge(&mark))
            .await
            .unwrap_or_else(|error| panic!("cannot mark Node {node}: {error}"));
        nodes
            .patch_status(node, &params, &Patch::Strategic(&condition))
            .await
            .unwrap_or_else(|error| panic!("cannot change the status of Node {node}: {error}"));
        let what = format!("Node {node} has ready={ready} and the matching taint");
        wait_for(&what, Duration::from_secs(60), async || {
            let node = nodes.get(node).await.ok()?;
            (takes_pods(&node) == ready).then_some(())
        })
        .await;
    }

    /// Waits until a Deployment, StatefulSet or DaemonSet, such as `deployment/web`, has all its Pods ready.
    pub(crate) async fn wait_rollout(&self, namespace: &str, what: &str) {
        self.kubectl(&["rollout", "status", what, "-n", namespace, "--timeout=120s"])
            .await;
    }
}

/// A Deployment of `replicas` Pods labelled `app=NAME`, each asking for a tenth of a core.
pub(crate) fn deployment(namespace: &str, name: &str, replicas: usize) -> String {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{
                    "name": "main",
                    "image": "example.invalid/app",
                    "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                }]},
            },
        },
    })
    .to_string()
}

/// A PodDisruptionBudget for the Pods labelled `app=NAME`. `limit` is such as `("maxUnavailable", 1)`.
pub(crate) fn budget(namespace: &str, name: &str, limit: (&str, Value)) -> String {
    json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {limit.0: limit.1, "selector": {"matchLabels": {"app": name}}},
    })
    .to_string()
}

fn node(name: &str, n: usize, address: usize, shape: &NodeShape) -> Value {
    let name = format!("{name}-{n:02}");
    let zone = char::from(b'a' + u8::try_from((n - 1) % shape.zones.max(1)).unwrap_or_default());
    let capacity = json!({"cpu": shape.cpu, "memory": shape.memory, "pods": shape.pods});
    let mut labels = json!({
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "topology.kubernetes.io/zone": format!("zone-{zone}"),
        "node-role.kubernetes.io/worker": "",
    });
    for (key, value) in &shape.labels {
        labels[key] = json!(value);
    }
    json!({
        "metadata": {"name": name, "labels": labels},
        "status": {
            "capacity": capacity,
            "allocatable": capacity,
            "addresses": [
                {"type": "InternalIP", "address": format!("10.1.{}.{}", address / 250, address % 250 + 1)},
                {"type": "Hostname", "address": name},
            ],
        },
    })
}

/// Whether a Node is Ready and without the taints that the control plane gives to one that is not.
fn takes_pods(node: &Node) -> bool {
    let ready = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let tainted = node
        .spec
        .iter()
        .flat_map(|spec| spec.taints.iter().flatten())
        .any(|taint| {
            matches!(
                taint.key.as_str(),
                "node.kubernetes.io/not-ready" | "node.kubernetes.io/unreachable"
            )
        });
    ready && !tainted
}

/// The folder with `cert.pem` and `key.pem`, which the bed made once for `127.0.0.1`.
fn certificates() -> PathBuf {
    bed_program("..").join("certificates")
}

/// A kubeconfig is YAML, and JSON is YAML.
fn kubeconfig(url: &str, token: &str, certificates: &Path) -> String {
    kubeconfig_with(url, &json!({"token": token}), certificates)
}

fn kubeconfig_with(url: &str, user: &Value, certificates: &Path) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "bed", "cluster": {
            "server": url,
            "certificate-authority": certificates.join("cert.pem"),
        }}],
        "users": [{"name": "bed", "user": user}],
        "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": "bed", "namespace": "default"}}],
        "current-context": "bed",
    })
    .to_string()
}

async fn client(kubeconfig: &str) -> kube::Client {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).expect("the kubeconfig is well formed");
    let mut config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .expect("the kubeconfig is complete");
    // A test sees the API server's own answers, a 429 among them, at once.
    config.default_retry = false;
    kube::Client::try_from(config).expect("the Kubernetes client can be built")
}

/// How often a server that cannot choose its port itself is started when others take it first.
const PORT_TRIES: usize = 5;

async fn start_etcd(workdir: &Workdir) -> (Server, String) {
    let http = http();
    for _ in 0..PORT_TRIES {
        let (url, peer) = (
            format!("http://127.0.0.1:{}", free_port()),
            format!("http://127.0.0.1:{}", free_port()),
        );
        let mut server = Server::start(
            "etcd",
            &bed_program("etcd"),
            vec![
                format!("--data-dir={}", workdir.join("etcd").display()),
                format!("--listen-client-urls={url}"),
                format!("--advertise-client-urls={url}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster=default={peer}"),
                // Nothing here has to survive the machine.
                "--unsafe-no-fsync".into(),
                "--log-level=warn".into(),
            ],
            &SPACIOUS,
            workdir.path(),
        );
        let health = format!("{url}/health");
        let ready = server
            .ready_unless_ended(Duration::from_secs(60), async |_| {
                let body = http.get(&health).send().await.ok()?.text().await.ok()?;
                body.contains("\"true\"").then_some(())
            })
            .await;
        if ready.is_some() {
            return (server, url);
        }
        lost_its_port(&server);
    }
    panic!("etcd found no port in {PORT_TRIES} tries");
}

async fn start_apiserver(workdir: &Workdir, etcd: &str, more: &[String]) -> (Server, String) {
    let certificates = certificates();
    let certificate = certificates.join("cert.pem").display().to_string();
    let key = certificates.join("key.pem").display().to_string();
    let tokens = workdir.write("tokens.csv", TOKENS);
    let policy = workdir.write("audit-policy.yaml", AUDIT_POLICY);
    for _ in 0..PORT_TRIES {
        let port = free_port();
        let url = format!("https://127.0.0.1:{port}");
        let mut args = vec![
            format!("--etcd-servers={etcd}"),
            format!("--secure-port={port}"),
            "--bind-address=127.0.0.1".into(),
            // No Pod reaches the API server through a Service here, and a machine without a default route
            // has no address to offer.
            "--advertise-address=127.0.0.1".into(),
            "--endpoint-reconciler-type=none".into(),
            format!("--tls-cert-file={certificate}"),
            format!("--tls-private-key-file={key}"),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            // A certificate serves as the public key that it contains.
            format!("--service-account-key-file={certificate}"),
            format!("--service-account-signing-key-file={key}"),
            format!("--token-auth-file={}", tokens.display()),
            "--authorization-mode=Node,RBAC".into(),
            "--service-cluster-ip-range=10.0.0.0/24".into(),
            "--disable-admission-plugins=ServiceAccount".into(),
            "--max-requests-inflight=3000".into(),
            "--max-mutating-requests-inflight=1000".into(),
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-log-path={}", workdir.join("audit.log").display()),
            // In mebibytes: one file for the whole test.
            "--audit-log-maxsize=10000".into(),
        ];
        args.extend(more.iter().cloned());
        let program = bed_program("kube-apiserver");
        let mut server = Server::start("kube-apiserver", &program, args, &SPACIOUS, workdir.path());
        let ready = apiserver_ready(&url);
        if server
            .ready_unless_ended(Duration::from_secs(90), async |_| ready().await)
            .await
            .is_some()
        {
            return (server, url);
        }
        lost_its_port(&server);
    }
    panic!("kube-apiserver found no port in {PORT_TRIES} tries");
}

/// Asks `/readyz`, with the certificate that the clients will use.
fn apiserver_ready(url: &str) -> impl AsyncFn() -> Option<()> + use<> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([Cluster::certificate()])
        .timeout(Duration::from_secs(5))
        .build()
        .expect("an HTTP client can be built");
    let url = format!("{url}/readyz");
    async move || {
        let answer = client.get(&url).bearer_auth("admin").send().await.ok()?;
        answer.status().is_success().then_some(())
    }
}

/// A server that ended for another reason would only do so again.
fn lost_its_port(server: &Server) {
    let log = server.log();
    assert!(
        log.contains("address already in use"),
        "{} ended:\n{log}",
        server.log_path().display()
    );
}
