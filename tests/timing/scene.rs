//! A cluster whose Nodes are drained again and again, by foreshock and by kubectl, each time from the same
//! layout: the Node is new, and so are its Pods, and the other Nodes have room for them.
//!
//! There is no Prometheus: alerts are posted to the webhook, as Alertmanager would.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::audit::{AuditEvent, AuditTail};
use crate::support::cluster::{Cluster, NodeShape};
use crate::support::foreshock::{ACCOUNT, Foreshock, apply_account, drains_for_alerts};
use crate::support::server::Workdir;
use crate::support::wait_until;
use crate::support::watcher::{Kind, Moment, Watcher, What};

/// `kubectl drain` of the largest Node takes less than a minute.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);

/// The whole of it.
pub(crate) struct Scene {
    // Dropped in this order: foreshock ends before what it talks to.
    pub(crate) foreshock: Foreshock,
    pub(crate) watcher: Watcher,
    pub(crate) cluster: Cluster,
    audit: AuditTail,
    /// Every eviction that foreshock has asked for.
    pub(crate) evictions: Vec<AuditEvent>,
    room: Vec<String>,
    workdir: Workdir,
}

impl Scene {
    /// `room` Nodes for what was drained. `eviction` is foreshock's table of that name; empty for the
    /// defaults.
    pub(crate) async fn start(room: usize, eviction: &str) -> Self {
        let cluster = Cluster::start().await;
        cluster.create_nodes_like("room", room, &shape("110")).await;
        apply_account(&cluster).await;
        let workdir = Workdir::new("timing");
        let foreshock = start_foreshock(&cluster, &workdir, eviction).await;
        let watcher = Watcher::start(cluster.client()).await;
        let audit = cluster.audit_tail();
        Self {
            foreshock,
            watcher,
            cluster,
            audit,
            evictions: Vec::new(),
            room: (1..=room).map(|n| format!("room-{n:02}")).collect(),
            workdir,
        }
    }

    /// Ends foreshock and starts another with this table `eviction`.
    pub(crate) async fn restart_with(&mut self, eviction: &str) {
        let status = self.foreshock.stop().await;
        assert!(status.success(), "foreshock ended with {status}");
        self.foreshock = start_foreshock(&self.cluster, &self.workdir, eviction).await;
    }

    /// New Nodes `NAME-01` … with room for `pods` Pods each, and nothing on them.
    pub(crate) async fn nodes(&self, name: &str, count: usize, pods: &str) -> Vec<String> {
        self.cluster
            .create_nodes_like(name, count, &shape(pods))
            .await;
        (1..=count).map(|n| format!("{name}-{n:02}")).collect()
    }

    /// Whether new Pods may go to the Nodes for what was drained.
    pub(crate) async fn open_room(&self, open: bool) {
        self.cordon(&self.room, !open).await;
    }

    pub(crate) async fn cordon(&self, nodes: &[String], cordoned: bool) {
        let api: Api<Node> = Api::all(self.cluster.client());
        let patch = json!({"spec": {"unschedulable": cordoned}});
        futures::stream::iter(nodes)
            .for_each_concurrent(8, async |node| {
                let result = api
                    .patch(node, &PatchParams::default(), &Patch::Merge(&patch))
                    .await;
                assert!(result.is_ok(), "Node {node} cannot be changed: {result:?}");
            })
            .await;
    }

    /// Waits until so many Pods of a namespace are ready, all of the wanted Nodes. A Pod that the scheduler
    /// had put elsewhere before it saw the cordon is sent back to it.
    pub(crate) async fn wait_ready(&self, namespace: &str, nodes: &[String], count: usize) {
        let what = format!("{count} Pods of {namespace} to be ready on {nodes:?}");
        wait_until(&what, LIMIT, async || {
            let text = self
                .cluster
                .kubectl(&["get", "pods", "-n", namespace, "-o", "json"])
                .await;
            let list: Value = serde_json::from_str(&text).expect("kubectl writes JSON");
            let pods = list["items"].as_array().cloned().unwrap_or_default();
            let on = |pod: &Value| pod["spec"]["nodeName"].as_str().unwrap_or("").to_owned();
            let strays: Vec<&str> = pods
                .iter()
                .filter(|pod| !on(pod).is_empty() && !nodes.contains(&on(pod)))
                .filter_map(|pod| pod["metadata"]["name"].as_str())
                .collect();
            if !strays.is_empty() {
                let mut delete = vec!["delete", "pods", "-n", namespace, "--wait=false"];
                delete.extend(&strays);
                self.cluster.kubectl(&delete).await;
                return Err(format!("strays {strays:?}"));
            }
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            if ready == count && pods.len() == count {
                Ok(())
            } else {
                Err(format!("{ready} of {} ready", pods.len()))
            }
        })
        .await;
    }

    /// Waits until each budget of a namespace lets through what its limit says, and all its Pods count.
    pub(crate) async fn wait_budgets(&self, namespace: &str) {
        self.wait_budgets_of(namespace, &[]).await;
    }

    /// The same for some of its budgets; for all with an empty list.
    pub(crate) async fn wait_budgets_of(&self, namespace: &str, names: &[&str]) {
        let what = format!("the budgets of {namespace} to be settled");
        wait_until(&what, LIMIT, async || {
            let text = self
                .cluster
                .kubectl(&["get", "pdb", "-n", namespace, "-o", "json"])
                .await;
            let list: Value = serde_json::from_str(&text).expect("kubectl writes JSON");
            let mut budgets = list["items"].as_array().cloned().unwrap_or_default();
            let name = |budget: &Value| budget["metadata"]["name"].as_str().map(str::to_owned);
            budgets.retain(|budget| {
                names.is_empty() || name(budget).is_some_and(|name| names.contains(&name.as_str()))
            });
            let open = |budget: &&Value| {
                let status = &budget["status"];
                status["observedGeneration"] == budget["metadata"]["generation"]
                    && status["currentHealthy"] == status["expectedPods"]
                    && status["disruptionsAllowed"].as_u64() > Some(0)
            };
            match budgets.iter().find(|budget| !open(budget)) {
                None => Ok(()),
                Some(budget) => Err(budget["status"].to_string()),
            }
        })
        .await;
    }

    /// Removes everything of a namespace, and the Nodes that were drained.
    pub(crate) async fn clear(&self, namespace: &str, nodes: &[String]) {
        // The budgets first: what is done here is no eviction.
        for kinds in ["poddisruptionbudgets", "deployments,replicasets"] {
            self.cluster
                .kubectl(&["delete", kinds, "--all", "-n", namespace])
                .await;
        }
        let pods = ["get", "pods", "-n", namespace, "-o", "name"];
        wait_until(
            &format!("the Pods of {namespace} to be gone"),
            LIMIT,
            async || {
                let left = self.cluster.kubectl(&pods).await;
                match left.lines().count() {
                    0 => Ok(()),
                    left => Err(format!("{left} left")),
                }
            },
        )
        .await;
        let mut delete = vec!["delete", "node", "--wait=true"];
        delete.extend(nodes.iter().map(String::as_str));
        self.cluster.kubectl(&delete).await;
        self.open_room(true).await;
    }

    /// An alert fires for these Nodes, or is resolved.
    pub(crate) async fn fire(&self, nodes: &[String]) {
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

    /// Waits until foreshock says that these Nodes are drained.
    pub(crate) async fn wait_drained(&self, nodes: &[String]) {
        for node in nodes {
            let path = format!("/api/nodes/{node}");
            wait_until(&format!("{node} to be drained"), LIMIT, async || {
                let (status, body) = self.foreshock.get(&path).await;
                let view: Value = serde_json::from_str(&body).unwrap_or_default();
                if status == 200 && view["phase"] == "drained" {
                    return Ok(());
                }
                Err(format!(
                    "{status} phase {} hold {}",
                    view["phase"], view["hold"]
                ))
            })
            .await;
        }
    }

    /// UIDs of the Pods of a namespace that are on these Nodes now.
    pub(crate) fn pods_on(&self, nodes: &[String]) -> BTreeSet<String> {
        nodes
            .iter()
            .flat_map(|node| self.watcher.pods_on(node))
            .map(|(_, uid)| uid)
            .collect()
    }

    /// Waits until the last of these Pods is gone; what was seen meanwhile, and when it was gone.
    pub(crate) async fn wait_gone(
        &self,
        pods: &BTreeSet<String>,
        seen: usize,
    ) -> (Vec<Moment>, Timestamp) {
        wait_until("the last Pod to be gone", LIMIT, async || {
            let moments = self.watcher.timeline_after(seen);
            let gone: Vec<&Moment> = moments
                .iter()
                .filter(|moment| moment.kind == Kind::Pod && pods.contains(&moment.uid))
                .filter(|moment| matches!(moment.what, What::Gone { .. }))
                .collect();
            if gone.len() < pods.len() {
                return Err(format!("{} of {} gone", gone.len(), pods.len()));
            }
            let last = gone.iter().map(|moment| moment.at).max();
            let last = last.expect("there are Pods to drain");
            Ok((moments, last))
        })
        .await
    }

    /// Reads the audit log on, and gives foreshock's evictions of these Pods.
    pub(crate) fn evictions_of(&mut self, pods: &BTreeSet<String>) -> Vec<AuditEvent> {
        let new =
            self.audit.read().into_iter().filter(|event| {
                event.user == ACCOUNT && event.is_eviction() && !event.is_dry_run()
            });
        self.evictions.extend(new);
        self.evictions
            .iter()
            .filter(|event| event.pod_uid().is_some_and(|uid| pods.contains(uid)))
            .cloned()
            .collect()
    }

    /// Requests that the API server's priority and fairness has turned away.
    pub(crate) async fn rejected(&self) -> f64 {
        let metrics = self.cluster.kubectl(&["get", "--raw", "/metrics"]).await;
        let values: Vec<f64> = metrics
            .lines()
            .filter(|line| line.starts_with("apiserver_flowcontrol_rejected_requests_total"))
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .collect();
        assert!(
            metrics.contains("apiserver_flowcontrol_dispatched_requests_total"),
            "the API server counts no requests"
        );
        values.iter().sum()
    }
}

/// Enough of everything but places for Pods.
fn shape(pods: &str) -> NodeShape {
    NodeShape {
        cpu: "128".into(),
        memory: "512Gi".into(),
        pods: pods.into(),
        ..NodeShape::default()
    }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    pod["metadata"]["deletionTimestamp"].is_null()
        && conditions
            .into_iter()
            .flatten()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Thresholds of the policy that would keep Nodes from being drained one after the other are raised, and
/// waiting times before a drain are shortened; how a drain goes is the default but for `eviction`.
async fn start_foreshock(cluster: &Cluster, workdir: &Workdir, eviction: &str) -> Foreshock {
    let kubeconfig = cluster.kubeconfig_for("foreshock", "foreshock").await;
    let more = format!(
        "[policy.limits]\ntainted_max = 50\ndraining_max = 50\ndrains_per_hour = 300\nstorm_min = 10000\n{eviction}"
    );
    let config = drains_for_alerts(&kubeconfig, &more);
    let config = workdir.write("foreshock.toml", &config);
    // As the shipped manifests say.
    Foreshock::start(&config, &[("POD_NAMESPACE", "foreshock")], &[]).await
}
