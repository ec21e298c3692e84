//! Many Pods at once: how many evictions a second, never more than allowed, and what it costs in memory.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::scene::{LIMIT, Scene};
use crate::support::audit::AuditEvent;
use crate::support::cluster::budget;
use crate::support::wait_until;

/// A Node with Pods of owners of its own, each under a budget that lets all of them go.
struct Crowd {
    namespace: String,
    nodes: Vec<String>,
    owners: usize,
    replicas: usize,
}

impl Crowd {
    /// The Pods are put on their Node by name; the template of what replaces them has none.
    async fn create(
        scene: &Scene,
        namespace: &str,
        nodes: usize,
        owners: usize,
        replicas: usize,
    ) -> Self {
        scene
            .cluster
            .kubectl(&["create", "namespace", namespace])
            .await;
        let places = (owners * replicas).to_string();
        let nodes = scene.nodes(namespace, nodes, &places).await;
        let crowd = Self {
            namespace: namespace.to_owned(),
            nodes,
            owners,
            replicas,
        };
        let sets = crowd.each(|node, name| replica_set(namespace, name, replicas, json!(node)));
        scene.cluster.apply(&sets.join("\n---\n")).await;
        scene
            .wait_ready(namespace, &crowd.nodes, crowd.pods())
            .await;
        let free = crowd.each(|_, name| replica_set(namespace, name, replicas, Value::Null));
        scene.cluster.apply(&free.join("\n---\n")).await;
        let budgets =
            crowd.each(|_, name| budget(namespace, name, ("maxUnavailable", json!("100%"))));
        scene.cluster.apply(&budgets.join("\n---\n")).await;
        scene.wait_budgets(namespace).await;
        wait_until("the watcher to see them all", LIMIT, async || {
            let seen = scene.pods_on(&crowd.nodes).len();
            if seen == crowd.pods() {
                Ok(())
            } else {
                Err(seen.to_string())
            }
        })
        .await;
        crowd
    }

    fn pods(&self) -> usize {
        self.nodes.len() * self.owners * self.replicas
    }

    fn each(&self, manifest: impl Fn(&str, &str) -> String) -> Vec<String> {
        let mut all = Vec::new();
        for node in &self.nodes {
            for owner in 1..=self.owners {
                all.push(manifest(node, &format!("{node}-{owner}")));
            }
        }
        all
    }

    /// Drains them all at once, and gives the evictions.
    async fn drain(&self, scene: &mut Scene) -> Vec<AuditEvent> {
        let pods = scene.pods_on(&self.nodes);
        let seen = scene.watcher.moments();
        scene.fire(&self.nodes).await;
        scene.wait_gone(&pods, seen).await;
        scene.wait_drained(&self.nodes).await;
        let evictions = scene.evictions_of(&pods);
        let accepted = evictions.iter().filter(|event| event.succeeded()).count();
        assert_eq!(accepted, pods.len(), "each Pod is evicted once");
        evictions
    }
}

fn replica_set(namespace: &str, name: &str, replicas: usize, node: Value) -> String {
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "nodeName": node,
                    "containers": [{
                        "name": "main", "image": "example.invalid/app",
                        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                    }],
                },
            },
        },
    })
    .to_string()
}

/// How much foreshock grows, in MiB, while it drains a Node with 500 Pods: the most that was seen at any
/// moment, less what it had before.
pub(crate) async fn memory(scene: &mut Scene) -> f64 {
    let crowd = Crowd::create(scene, "heavy", 1, 10, 50).await;
    let pid = scene.foreshock.server().pid().expect("foreshock runs");
    let before = resident_mib(pid);
    let done = CancellationToken::new();
    let watch = tokio::spawn(most_resident_mib(pid, done.clone()));
    let evictions = crowd.drain(scene).await;
    done.cancel();
    let most = watch.await.expect("the task ends when it is told to");
    println!(
        "memory: {} Pods, {} requests: {:.1} MiB before, {:.1} at most; data alone: {:.1} before, {:.1} at most",
        crowd.pods(),
        evictions.len(),
        before.all,
        most.all,
        before.data,
        most.data
    );
    scene.clear(&crowd.namespace, &crowd.nodes).await;
    most.all - before.all
}

/// The most that a process had at any moment until `done`.
async fn most_resident_mib(pid: u32, done: CancellationToken) -> Resident {
    let mut most = resident_mib(pid);
    loop {
        let now = resident_mib(pid);
        most.all = most.all.max(now.all);
        most.data = most.data.max(now.data);
        tokio::select! {
            () = done.cancelled() => return most,
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }
}

/// What a process has in memory, and how much of it is its own data: the rest are pages of the program,
/// which are read when they are first used and can be dropped at any time.
fn resident_mib(pid: u32) -> Resident {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let of = |name: &str| {
        let kib: Option<u32> = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok());
        f64::from(kib.expect("the kernel tells the size of a running process")) / 1024.0
    };
    Resident {
        all: of("VmRSS:"),
        data: of("RssAnon:"),
    }
}

/// In MiB.
#[derive(Clone, Copy, Debug)]
struct Resident {
    all: f64,
    data: f64,
}

/// Drains four Nodes at once at the default rate; the evictions are judged with all others of their kind.
pub(crate) async fn at_default_rate(scene: &mut Scene) {
    let crowd = Crowd::create(scene, "usual", 4, 5, 10).await;
    let evictions = crowd.drain(scene).await;
    println!(
        "default rate: {} evictions over {} Nodes, {:.1} a second",
        evictions.len(),
        crowd.nodes.len(),
        per_second(&evictions)
    );
    scene.clear(&crowd.namespace, &crowd.nodes).await;
}

/// Evictions a second over 20 Nodes with 1,000 Pods, from the first request to the last answer.
pub(crate) async fn throughput(scene: &mut Scene) -> f64 {
    let crowd = Crowd::create(scene, "many", 20, 5, 10).await;
    let evictions = crowd.drain(scene).await;
    let rate = per_second(&evictions);
    println!(
        "throughput: {} requests over {} Nodes, {rate:.1} evictions a second, at most {} in any second",
        evictions.len(),
        crowd.nodes.len(),
        most_in_a_second(&evictions)
    );
    scene.clear(&crowd.namespace, &crowd.nodes).await;
    rate
}

fn per_second(evictions: &[AuditEvent]) -> f64 {
    let accepted: Vec<&AuditEvent> = evictions.iter().filter(|event| event.succeeded()).collect();
    let first = evictions.iter().map(|event| event.received).min();
    let last = accepted.iter().map(|event| event.answered).max();
    let (Some(first), Some(last)) = (first, last) else {
        return 0.0;
    };
    let count = u32::try_from(accepted.len()).expect("a few thousand at most");
    f64::from(count) / last.duration_since(first).as_secs_f64()
}

/// The most requests that the API server received within any one second.
pub(crate) fn most_in_a_second(evictions: &[AuditEvent]) -> usize {
    let mut received: Vec<Timestamp> = evictions.iter().map(|event| event.received).collect();
    received.sort();
    let mut first = 0;
    let mut most = 0;
    for (n, at) in received.iter().enumerate() {
        while at.duration_since(received[first]) >= jiff::SignedDuration::from_secs(1) {
            first += 1;
        }
        most = most.max(n - first + 1);
    }
    most
}
