//! What a person's command does to the cluster by itself, with or without a running service: throw the
//! switch on the Lease, find marks on every Node there is, and take them off.
//!
//! Nothing is watched here, and the Nodes are not only those of `kubernetes.node_selector`: a Node that
//! has left it can still carry marks.

use std::time::Duration;

use foreshock_core::node::NodeName;
use foreshock_core::record::Taint;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::Method;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::{Value, json};

use super::client::{conflict, refused, superseded};
use super::marks::{self, Release, surge_words};
use super::names::{ANNOTATION_PAUSED, CONTROLLER};
use super::{ByHand, ClusterError, KubeCluster, LeaseView, lease};

/// A Node that meets changes by others is read and written again so often. A kubelet's heartbeat is such
/// a change, and so is every write of another controller.
const TRIES: u32 = 20;
/// Between two such tries, times the number of the try.
const PAUSE: Duration = Duration::from_millis(20);
/// Whole Nodes in a page: with their images each can take 30 KiB.
const PAGE: u32 = 100;
/// A list whose continue token expires is begun again so often.
const RESTARTS_MAX: u32 = 3;

impl KubeCluster {
    /// The namespaces that have a Lease of our name: where the service runs, or ran.
    ///
    /// # Errors
    ///
    /// [`ClusterError`]; [`ClusterError::Forbidden`] is usual, since it needs the right to list Leases
    /// everywhere.
    pub async fn namespaces_with_lease(&self) -> Result<Vec<String>, ClusterError> {
        let action = format!("look for Lease {} in every namespace", self.instance());
        let path = format!(
            "/apis/coordination.k8s.io/v1/leases?fieldSelector=metadata.name%3D{}",
            self.instance()
        );
        let reply = self.send(&action, Method::GET, &path, None).await?;
        if !reply.is_success() {
            return Err(refused(&action, &reply));
        }
        let items = reply.body["items"].as_array();
        let mut namespaces: Vec<String> = items
            .into_iter()
            .flatten()
            .filter_map(|lease| lease["metadata"]["namespace"].as_str())
            .map(str::to_owned)
            .collect();
        namespaces.sort();
        Ok(namespaces)
    }

    /// Whether there is such a Node.
    ///
    /// # Errors
    ///
    /// [`ClusterError`].
    pub async fn has_node(&self, node: &NodeName) -> Result<bool, ClusterError> {
        let found = self
            .node_document(node, &format!("read Node {node}"))
            .await?;
        Ok(found.is_some())
    }

    fn lease_object(&self) -> String {
        format!("Lease {}/{}", self.namespace(), self.instance())
    }

    async fn lease_by_hand(&self) -> Result<Option<LeaseView>, ClusterError> {
        let action = format!("read {}", self.lease_object());
        let path = self.lease_path(true);
        let reply = self.send(&action, Method::GET, &path, None).await?;
        match reply.code() {
            404 => Ok(None),
            _ if reply.is_success() => view(&action, reply.body).map(Some),
            _ => Err(refused(&action, &reply)),
        }
    }

    /// Only the one annotation, and without a `resourceVersion`: whatever a leader writes meanwhile, the
    /// two do not undo each other. A leader's own write names the version that it has seen, so from here
    /// on none succeeds that does not know of the pause.
    async fn switch_by_hand(&self, paused: bool) -> Result<Option<LeaseView>, ClusterError> {
        let object = self.lease_object();
        let action = format!("{} {object}", if paused { "pause" } else { "resume" });
        let query = format!("?fieldManager={CONTROLLER}&timeout=8s");
        let mark = if paused { json!("true") } else { Value::Null };
        let patch = json!({"metadata": {"annotations": {ANNOTATION_PAUSED: mark}}});
        for _ in 0..TRIES {
            let before = self.lease_by_hand().await?;
            if before.is_some() {
                let path = format!("{}{query}", self.lease_path(true));
                let body = (
                    "application/merge-patch+json",
                    patch.to_string().into_bytes(),
                );
                let reply = self.send(&action, Method::PATCH, &path, Some(body)).await?;
                match reply.code() {
                    // Removed this very moment.
                    404 => continue,
                    _ if reply.is_success() => return Ok(before),
                    _ => return Err(refused(&action, &reply)),
                }
            }
            if !paused {
                return Ok(None);
            }
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self.instance(), "annotations": {ANNOTATION_PAUSED: "true"}},
                "spec": {},
            });
            let path = format!("{}{query}", self.lease_path(false));
            let body = ("application/json", lease.to_string().into_bytes());
            let reply = self.send(&action, Method::POST, &path, Some(body)).await?;
            match reply.code() {
                // Created this very moment by a service that starts.
                409 => {}
                _ if reply.is_success() => return Ok(None),
                _ => return Err(refused(&action, &reply)),
            }
        }
        Err(ClusterError::Superseded {
            object,
            detail: "it comes and goes faster than it can be written".to_owned(),
        })
    }

    async fn find_by_hand(
        &self,
        taints: &[Taint],
        adopt: bool,
    ) -> Result<Vec<(NodeName, Release)>, ClusterError> {
        let mut restarts = 0;
        loop {
            match self.find_once(taints, adopt).await {
                Ok(Some(found)) => return Ok(found),
                Err(error) => return Err(error),
                Ok(None) if restarts < RESTARTS_MAX => restarts += 1,
                Ok(None) => {
                    return Err(ClusterError::Failed {
                        action: "list Nodes".to_owned(),
                        detail: "the list expired while it was read".to_owned(),
                    });
                }
            }
        }
    }

    /// `None` where the list expired in between.
    async fn find_once(
        &self,
        taints: &[Taint],
        adopt: bool,
    ) -> Result<Option<Vec<(NodeName, Release)>>, ClusterError> {
        let action = "list Nodes";
        let mut found = Vec::new();
        let mut more = String::new();
        loop {
            self.rate.turn().await;
            let path = format!("/api/v1/nodes?limit={PAGE}{more}");
            let reply = self.send(action, Method::GET, &path, None).await?;
            if reply.code() == 410 {
                return Ok(None);
            }
            if !reply.is_success() {
                return Err(refused(action, &reply));
            }
            for document in reply.body["items"].as_array().into_iter().flatten() {
                let name =
                    NodeName::from(document["metadata"]["name"].as_str().unwrap_or_default());
                let release = marks::release(document, self.instance(), taints, adopt)
                    .map_err(|problem| superseded(&name, &problem))?;
                if release != Release::Nothing {
                    found.push((name, release));
                }
            }
            match reply.body["metadata"]["continue"].as_str() {
                Some(token) if !token.is_empty() => {
                    let pairs = [("continue", token)];
                    let query = reqwest::Url::parse_with_params("http://none/", pairs)
                        .ok()
                        .and_then(|url| url.query().map(str::to_owned));
                    more = format!("&{}", query.unwrap_or_default());
                }
                Some(_) | None => return Ok(Some(found)),
            }
        }
    }

    async fn take_off_by_hand(
        &self,
        node: &NodeName,
        taints: &[Taint],
        adopt: bool,
    ) -> Result<Release, ClusterError> {
        let action = format!("release Node {node}");
        for tries in 0..TRIES {
            let Some(document) = self.node_document(node, &action).await? else {
                return Ok(Release::Nothing);
            };
            let release = marks::release(&document, self.instance(), taints, adopt)
                .map_err(|problem| superseded(node, &problem))?;
            let Release::Patch {
                patch,
                takes,
                surges,
            } = &release
            else {
                return Ok(release);
            };
            // Before the record goes: nobody else would know of them.
            let mut took = takes.clone();
            for surge in surges {
                let was = surge_words(surge);
                let done = self.put_back_by_hand(surge).await?;
                took.retain(|words| *words != was);
                took.push(done);
            }
            let release = Release::Patch {
                patch: patch.clone(),
                takes: took,
                surges: Vec::new(),
            };
            if self.patch_node(node, patch, &action).await?.is_some() {
                return Ok(release);
            }
            tokio::time::sleep(PAUSE * tries).await;
        }
        Err(conflict(node))
    }
}

fn view(action: &str, body: Value) -> Result<LeaseView, ClusterError> {
    let found: Lease = serde_json::from_value(body).map_err(|error| ClusterError::Failed {
        action: action.to_owned(),
        detail: error.to_string(),
    })?;
    Ok(lease::view(&found))
}

impl ByHand for KubeCluster {
    fn set_paused(&self, paused: bool) -> BoxFuture<'_, Result<Option<LeaseView>, ClusterError>> {
        self.switch_by_hand(paused).boxed()
    }

    fn is_paused(&self) -> BoxFuture<'_, Result<bool, ClusterError>> {
        async move { Ok(self.lease_by_hand().await?.is_some_and(|view| view.paused)) }.boxed()
    }

    fn find<'a>(
        &'a self,
        taints: &'a [Taint],
        adopt: bool,
    ) -> BoxFuture<'a, Result<Vec<(NodeName, Release)>, ClusterError>> {
        self.find_by_hand(taints, adopt).boxed()
    }

    fn take_off<'a>(
        &'a self,
        node: &'a NodeName,
        taints: &'a [Taint],
        adopt: bool,
    ) -> BoxFuture<'a, Result<Release, ClusterError>> {
        self.take_off_by_hand(node, taints, adopt).boxed()
    }
}
