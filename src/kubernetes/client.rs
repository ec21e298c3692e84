//! The real cluster, over its API.
//!
//! Traps that this file steps around (each was met on a real API server): kube's own eviction drops
//! the delete options, so the Eviction is typed and sent by hand; kube retries 429, 503 and 504 by
//! itself, which hides a budget's refusal, so the client has that switched off; a 2xx can carry a
//! `Failure`; the API server looks at a budget before it looks at the UID precondition, so a 409 or 429
//! says nothing before the Pod has been read again.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use foreshock_core::decision::plan::MarkOrder;
use foreshock_core::decision::policy::Reach;
use foreshock_core::drain::{Answer, Owner, PodFacts, PodId, Scalable, Volume};
use foreshock_core::node::{NodeId, NodeName};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Request};
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::{Eviction, PodDisruptionBudget};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions};
use kube::api::PostParams;
use kube::client::Body;
use kube::{Api, Client, Config};
use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, info_span, warn};

use super::answer::{Meaning, Reply, meaning, tried};
use super::connect::config;
pub use super::connect::{ConnectError, KubeOptions};
use super::events::{self, Said};
use super::lease::{self, LeaseBook};
use super::marks::{self, Superseded};
use super::names::CONTROLLER;
use super::node;
use super::nodes::NodeBook;
use super::permissions::{self, Permission};
use super::pod::{Surroundings, seen};
use super::pods::{self, BudgetFeed, BudgetTable, Lookups, WATCH_FOR};
use super::rate::Rate;
use super::strays;
use super::text::clean;
use super::volumes;
use super::watch::{Scope, follow, list, said};
use super::workloads::{self, Means};
use super::{
    Cluster, ClusterError, ClusterEvent, DryRun, Guard, LeaseState, LeaseView, LeaseWrite,
    NodeEntry, NodeTable, PodTable, WRITE_LIMIT, WorkloadState,
};
use crate::clock::Clock;

/// A write of the Lease is over within this: two fit before a leader must stand down.
const LEASE_LIMIT: Duration = Duration::from_secs(4);
/// A read of one object, and a question about rights.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// A mark that meets a change by somebody else is worked out anew so often. A heartbeat of the kubelet
/// is such a change too.
const MARK_TRIES: u32 = 3;
/// Requests a second, watches and the Lease aside. kube-controller-manager's default is 20, with
/// bursts of 30; a drain needs its Pods read besides being evicted.
const REQUESTS_PER_SECOND: u32 = 100;
/// Events a second.
const EVENTS_PER_SECOND: u32 = 10;
/// Namespaces whose budgets are listed one by one; for more, the cluster's are listed at once.
const NAMESPACES_MAX: usize = 8;
/// Whole Nodes in a page: with their images each can take 30 KiB, and few are in memory at once.
const NODES_PAGE: u32 = 250;

/// The real cluster.
pub struct KubeCluster {
    pub(super) client: Client,
    url: String,
    instance: String,
    namespace: String,
    around: Arc<Surroundings>,
    clock: Arc<dyn Clock>,
    pub(super) rate: Arc<Rate>,
    lookups: Arc<Lookups>,
    nodes: Arc<NodeBook>,
    strays: watch::Sender<Arc<BTreeSet<NodeName>>>,
    lease: Arc<LeaseBook>,
    lease_watched: OnceLock<()>,
    budgets: Mutex<Weak<BudgetFeed>>,
    /// Of workloads that drains wait for.
    workloads: Means,
    /// Of those that are only followed.
    followed: Means,
    events: Rate,
    said: Said,
    guard: OnceLock<Guard>,
    warned: Mutex<Vec<String>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl std::fmt::Debug for KubeCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubeCluster")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl KubeCluster {
    /// Makes a client and begins to watch the Nodes. That the server answers shows in the table.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], where no client can be made from what is configured.
    pub async fn connect(
        options: KubeOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, ConnectError> {
        // kube panics in its first request where two providers are compiled in and none is chosen.
        // Choosing twice is refused and harmless.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = config(options.kubeconfig.as_ref()).await?;
        Self::with_config(config, options, clock)
    }

    /// The same for a command: it watches nothing, and asks for what it needs.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub async fn at_hand(
        options: KubeOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ConnectError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = config(options.kubeconfig.as_ref()).await?;
        Self::unwatched(config, options, clock)
    }

    /// The same with a client configuration that was made elsewhere.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Client`].
    pub fn with_config(
        config: Config,
        options: KubeOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, ConnectError> {
        let node_selector = options.node_selector.clone();
        let cluster = Arc::new(Self::unwatched(config, options, clock)?);
        if !node_selector.is_empty() {
            cluster.watch_strays();
        }
        cluster.watch_nodes(node_selector);
        Ok(cluster)
    }

    fn unwatched(
        mut config: Config,
        options: KubeOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ConnectError> {
        config.default_retry = false;
        config.connect_timeout = Some(READ_LIMIT);
        let url = config.cluster_url.to_string();
        let namespace = if options.namespace.is_empty() {
            config.default_namespace.clone()
        } else {
            options.namespace
        };
        let client = Client::try_from(config).map_err(|source| ConnectError::Client {
            url: url.clone(),
            source: Box::new(source),
        })?;
        let rate = Arc::new(Rate::per_second(REQUESTS_PER_SECOND));
        let workloads = Means {
            client: client.clone(),
            clock: Arc::clone(&clock),
            rate: Arc::clone(&rate),
            places: Arc::new(Semaphore::new(workloads::WATCHED_MAX)),
        };
        let followed = Means {
            rate: Arc::new(Rate::per_second(workloads::FOLLOWED_PER_SECOND)),
            places: Arc::new(Semaphore::new(workloads::FOLLOWED_MAX)),
            ..workloads.clone()
        };
        Ok(Self {
            url,
            instance: options.instance,
            namespace,
            around: Arc::new(Surroundings::from_environment(options.taints)),
            clock,
            lookups: Arc::new(Lookups::new(client.clone(), Arc::clone(&rate))),
            rate,
            nodes: Arc::new(NodeBook::new()),
            strays: watch::channel(Arc::default()).0,
            lease: Arc::new(LeaseBook::new()),
            lease_watched: OnceLock::new(),
            budgets: Mutex::default(),
            workloads,
            followed,
            events: Rate::per_second(EVENTS_PER_SECOND),
            said: Said::default(),
            guard: OnceLock::new(),
            warned: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            client,
        })
    }

    fn look_at(
        &self,
        means: &Means,
        namespace: &str,
        workload: &Owner,
    ) -> watch::Receiver<WorkloadState> {
        let (tx, rx) = watch::channel(None);
        let run = workloads::keep(means.clone(), namespace.to_owned(), workload.clone(), tx);
        self.spawn("workload", run);
        rx
    }

    /// Ends every watch and waits until they have ended.
    pub async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The API server's URL, for messages.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `kubernetes.instance`: the name of the Lease.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The same with its Lease in another namespace.
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// The namespace of the Lease.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Asks the API server which of the rights that `reach` and `eviction.surge` need the credentials have
    /// (SelfSubjectAccessReview: a question, not a write).
    ///
    /// # Errors
    ///
    /// [`ClusterError`], when it cannot be asked.
    pub async fn permissions(
        &self,
        reach: Reach,
        surge: bool,
    ) -> Result<Vec<Permission>, ClusterError> {
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let mut answered = Vec::new();
        for (mut permission, review) in
            permissions::questions(reach, surge, &self.namespace, &self.instance)
        {
            self.rate.turn().await;
            let params = PostParams::default();
            let review =
                bounded("ask for rights", READ_LIMIT, api.create(&params, &review)).await?;
            if let Some(status) = review.status {
                permission.allowed = status.allowed;
                permission.reason = clean(&status.reason.unwrap_or_default(), 300);
            }
            answered.push(permission);
        }
        Ok(answered)
    }

    fn watch_nodes(self: &Arc<Self>, node_selector: String) {
        let scope = Scope {
            labels: node_selector,
            fields: String::new(),
            page: NODES_PAGE,
            watch_for: WATCH_FOR,
        };
        let api: Api<Node> = Api::all(self.client.clone());
        let (nodes, rate) = (Arc::clone(&self.nodes), Arc::clone(&self.rate));
        let instance = self.instance.clone();
        self.spawn("nodes", async move {
            let convert = |node: Node| node::entry(&node, &instance);
            tokio::select! {
                never = follow(&api, &scope, &rate, convert, |seen| nodes.see(seen)) => match never {},
                never = nodes.publish() => match never {},
            }
        });
    }

    fn watch_strays(&self) {
        let (client, instance) = (self.client.clone(), self.instance.clone());
        let (nodes, rate) = (Arc::clone(&self.nodes), Arc::clone(&self.rate));
        let (gone, strays) = (self.nodes.gone(), self.strays.clone());
        self.spawn("strays", async move {
            match strays::follow(client, instance, nodes, rate, gone, strays).await {}
        });
    }

    fn watch_lease(&self) {
        let scope = Scope {
            labels: String::new(),
            fields: format!("metadata.name={}", self.instance),
            page: 10,
            // A switch that is thrown behind a dead connection must be heard.
            watch_for: Duration::from_secs(20),
        };
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let (book, rate) = (Arc::clone(&self.lease), Arc::clone(&self.rate));
        self.spawn("lease", async move {
            let convert = |lease: Lease| Some(lease::view(&lease));
            match follow(&api, &scope, &rate, convert, |seen| book.see(seen)).await {}
        });
    }

    /// Every task of this cluster ends with it; none is detached.
    fn spawn(&self, task: &'static str, run: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        let run = async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = run => {}
            }
        };
        self.tasks
            .spawn(run.instrument(info_span!("kubernetes", task)));
    }

    fn budgets(&self) -> Arc<BudgetFeed> {
        let mut shared = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(feed) = shared.upgrade() {
            return feed;
        }
        let (feed, run) = BudgetFeed::new(self.client.clone(), Arc::clone(&self.rate));
        self.spawn("budgets", run);
        let feed = Arc::new(feed);
        *shared = Arc::downgrade(&feed);
        feed
    }

    async fn list_pods(&self, node: &NodeId) -> Result<Vec<PodFacts>, ClusterError> {
        let action = format!("list the Pods of Node {node}");
        let failed = |error: super::watch::ListError| match error {
            super::watch::ListError::Api(error) => cluster_error(&action, &error),
            super::watch::ListError::Timeout => ClusterError::Failed {
                action: action.clone(),
                detail: error.to_string(),
            },
        };
        let api: Api<Pod> = Api::all(self.client.clone());
        let convert = |pod: Pod| seen(&pod, &self.around);
        let (pods, _) = list(&api, &pods::of_node(&node.name), &self.rate, &convert)
            .await
            .map_err(failed)?;
        let namespaces: std::collections::BTreeSet<&String> =
            pods.iter().map(|pod| &pod.facts.id.namespace).collect();
        let shared = self
            .budgets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .upgrade();
        let watched = shared
            .map(|feed| feed.table.borrow().clone())
            .filter(|table| table.synced && table.problem.is_none());
        let table = match watched {
            Some(table) => table,
            None => {
                let apis: Vec<Api<PodDisruptionBudget>> = if namespaces.len() > NAMESPACES_MAX {
                    vec![Api::all(self.client.clone())]
                } else {
                    namespaces
                        .iter()
                        .map(|namespace| Api::namespaced(self.client.clone(), namespace))
                        .collect()
                };
                let mut table = BudgetTable::default();
                let convert = |pdb: PodDisruptionBudget| super::budget::SeenBudget::from(&pdb);
                for api in &apis {
                    let (budgets, _) = list(api, &pods::everything(), &self.rate, &convert)
                        .await
                        .map_err(failed)?;
                    for budget in budgets {
                        let of_namespace = table
                            .namespaces
                            .entry(budget.namespace.clone())
                            .or_default();
                        Arc::make_mut(of_namespace).insert(budget.name.clone(), Arc::new(budget));
                    }
                }
                Arc::new(table)
            }
        };
        Ok(self.lookups.complete(pods.iter(), &table).await)
    }

    pub(super) async fn fresh_pod(&self, pod: &PodId) -> Result<Option<PodFacts>, ClusterError> {
        let action = format!("read Pod {pod}");
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let found = bounded(&action, READ_LIMIT, async {
            self.rate.turn().await;
            api.get_opt(&pod.name).await
        })
        .await?;
        let facts = found
            .and_then(|found| seen(&found, &self.around))
            .map(|seen| seen.facts);
        Ok(facts.filter(|facts| facts.id.uid == pod.uid))
    }

    async fn read_attachment(
        &self,
        node: &NodeName,
        volume: &Volume,
    ) -> Result<bool, ClusterError> {
        let action = format!("read the VolumeAttachment of {volume} to Node {node}");
        let api: Api<VolumeAttachment> = Api::all(self.client.clone());
        let name = volumes::attachment_name(volume, node);
        self.followed.rate.turn().await;
        let found = bounded(&action, READ_LIMIT, api.get_opt(&name)).await?;
        Ok(found.is_some_and(|found| found.spec.node_name == node.as_str()))
    }

    async fn mark_node(&self, order: &MarkOrder) -> Result<NodeEntry, ClusterError> {
        let name = &order.node.name;
        let action = format!("mark Node {name}");
        for _ in 0..MARK_TRIES {
            let Some(document) = self.node_document(name, &action).await? else {
                return Err(ClusterError::Superseded {
                    object: format!("Node {name}"),
                    detail: "it is gone".to_owned(),
                });
            };
            // Everything that the order takes for granted is looked at again on each try.
            let patch = marks::patch_for(&document, order, &self.instance, self.clock.now())
                .map_err(|problem| superseded(name, &problem))?;
            self.may_write(&action)?;
            if let Some(entry) = self.patch_node(name, &patch, &action).await? {
                self.nodes.wrote(entry.clone());
                return Ok(entry);
            }
        }
        Err(conflict(name))
    }

    pub(super) async fn node_document(
        &self,
        node: &NodeName,
        action: &str,
    ) -> Result<Option<Value>, ClusterError> {
        self.rate.turn().await;
        let reply = self
            .send(action, Method::GET, &format!("/api/v1/nodes/{node}"), None)
            .await?;
        match reply.code() {
            404 => Ok(None),
            _ if reply.is_success() => Ok(Some(reply.body)),
            _ => Err(refused(action, &reply)),
        }
    }

    /// `None` on a conflict.
    pub(super) async fn patch_node(
        &self,
        node: &NodeName,
        patch: &Value,
        action: &str,
    ) -> Result<Option<NodeEntry>, ClusterError> {
        let path = format!(
            "/api/v1/nodes/{node}?fieldManager={CONTROLLER}&timeout={}s",
            WRITE_LIMIT.as_secs()
        );
        let body = Some((
            "application/merge-patch+json",
            patch.to_string().into_bytes(),
        ));
        let reply = self.send(action, Method::PATCH, &path, body).await?;
        if reply.code() == 409 {
            return Ok(None);
        }
        if !reply.is_success() {
            return Err(refused(action, &reply));
        }
        marks::read(&reply.body, &self.instance)
            .map(Some)
            .map_err(|problem| superseded(node, &problem))
    }

    async fn evict_once(&self, pod: &PodId, grace: Option<Duration>) -> Answer {
        let (path, body) = eviction(pod, grace, Evicts::ForGood);
        let action = format!("evict Pod {pod}");
        self.rate.turn().await;
        if let Err(error) = self.may_write(&action) {
            return Answer::Lost {
                detail: error.to_string(),
            };
        }
        let body = Some(("application/json", body));
        let reply = match self.send(&action, Method::POST, &path, body).await {
            Ok(reply) => reply,
            Err(error) => {
                return Answer::Lost {
                    detail: error.to_string(),
                };
            }
        };
        match meaning(&reply, &pod.name) {
            Meaning::Plain(answer) => answer,
            Meaning::ReadFirst(answer) => match self.fresh_pod(pod).await {
                Ok(None) => Answer::Gone,
                Ok(Some(facts)) if facts.terminating_until.is_some() => Answer::Accepted,
                Ok(Some(_)) | Err(_) => answer,
            },
        }
    }

    async fn try_eviction_once(&self, pod: &PodId, grace: Option<Duration>) -> DryRun {
        let (path, body) = eviction(pod, grace, Evicts::DryRun);
        let action = format!("try an eviction of Pod {pod}");
        self.rate.turn().await;
        // No write, but admission webhooks hear of it: not while paused, and by the leader alone.
        if let Err(error) = self.may_write(&action) {
            return DryRun::NotAsked(error.to_string());
        }
        let body = Some(("application/json", body));
        match self.send(&action, Method::POST, &path, body).await {
            Ok(reply) => tried(&reply, &pod.name),
            Err(error) => DryRun::NoAnswer(error.to_string()),
        }
    }

    pub(super) fn lease_path(&self, name: bool) -> String {
        let collection = format!(
            "/apis/coordination.k8s.io/v1/namespaces/{}/leases",
            self.namespace
        );
        if name {
            format!("{collection}/{}", self.instance)
        } else {
            collection
        }
    }

    async fn put_lease(&self, write: &LeaseWrite) -> Result<LeaseView, ClusterError> {
        let object = format!("Lease {}/{}", self.namespace, self.instance);
        let action = format!("write {object}");
        let failed = |detail: String| ClusterError::Failed {
            action: action.clone(),
            detail,
        };
        let mut body = lease::patch(write).map_err(|error| failed(error.to_string()))?;
        let query = format!(
            "?fieldManager={CONTROLLER}&timeout={}s",
            LEASE_LIMIT.as_secs()
        );
        let reply = if write.expects.is_some() {
            let path = format!("{}{query}", self.lease_path(true));
            let body = Some((
                "application/merge-patch+json",
                body.to_string().into_bytes(),
            ));
            self.send(&action, Method::PATCH, &path, body).await?
        } else {
            body["apiVersion"] = Value::from("coordination.k8s.io/v1");
            body["kind"] = Value::from("Lease");
            body["metadata"]["name"] = Value::from(self.instance.as_str());
            let path = format!("{}{query}", self.lease_path(false));
            let body = Some(("application/json", body.to_string().into_bytes()));
            self.send(&action, Method::POST, &path, body).await?
        };
        if matches!(reply.code(), 404 | 409) {
            return Err(ClusterError::Superseded {
                object,
                detail: reply.message(),
            });
        }
        if !reply.is_success() {
            return Err(refused(&action, &reply));
        }
        let written: Lease =
            serde_json::from_value(reply.body).map_err(|error| failed(error.to_string()))?;
        let view = lease::view(&written);
        self.lease.wrote(&view);
        Ok(view)
    }

    async fn get_lease(&self) -> Result<LeaseState, ClusterError> {
        let action = format!("read Lease {}/{}", self.namespace, self.instance);
        let reply = self
            .send(&action, Method::GET, &self.lease_path(true), None)
            .await?;
        if reply.code() == 404 {
            self.lease.read(None);
            return Ok(LeaseState::Absent);
        }
        if !reply.is_success() {
            return Err(refused(&action, &reply));
        }
        let found: Lease =
            serde_json::from_value(reply.body).map_err(|error| ClusterError::Failed {
                action,
                detail: error.to_string(),
            })?;
        let view = lease::view(&found);
        self.lease.read(Some(view.clone()));
        Ok(LeaseState::Present(Box::new(view)))
    }

    async fn publish_event(&self, event: &ClusterEvent) -> Result<(), ClusterError> {
        if !self.said.is_news(event) {
            return Ok(());
        }
        let about = match &event.node {
            Some(node) => format!("Node {node}"),
            None => "foreshock".to_owned(),
        };
        let action = format!("publish Event {} about {about}", event.reason);
        self.events.turn().await;
        let now = self.clock.now();
        let serial = format!(
            "{:x}{:04x}",
            now.as_nanosecond(),
            std::process::id() & 0xffff
        );
        let (namespace, body) = events::body(event, &self.instance, &self.namespace, now, &serial);
        self.may_write(&action)?;
        let path = format!(
            "/apis/events.k8s.io/v1/namespaces/{namespace}/events?fieldManager={CONTROLLER}"
        );
        let body = Some(("application/json", body.to_string().into_bytes()));
        let sent = self.send(&action, Method::POST, &path, body);
        let reply =
            tokio::time::timeout(READ_LIMIT, sent)
                .await
                .map_err(|_| ClusterError::Timeout {
                    action: action.clone(),
                    limit: READ_LIMIT,
                })??;
        if reply.is_success() {
            Ok(())
        } else {
            Err(refused(&action, &reply))
        }
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub(super) fn may_write(&self, action: &str) -> Result<(), ClusterError> {
        match self.guard.get().map(|guard| guard()) {
            Some(Err(reason)) => Err(ClusterError::Failed {
                action: action.to_owned(),
                detail: format!("held back before it was sent: {reason}"),
            }),
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// One request, as it is: status, headers and body are looked at by the caller.
    pub(super) async fn send(
        &self,
        action: &str,
        method: Method,
        path: &str,
        body: Option<(&'static str, Vec<u8>)>,
    ) -> Result<Reply, ClusterError> {
        tokio::time::timeout(WRITE_LIMIT, self.exchange(action, method, path, body))
            .await
            .unwrap_or_else(|_| {
                Err(ClusterError::Timeout {
                    action: action.to_owned(),
                    limit: WRITE_LIMIT,
                })
            })
    }

    async fn exchange(
        &self,
        action: &str,
        method: Method,
        path: &str,
        body: Option<(&'static str, Vec<u8>)>,
    ) -> Result<Reply, ClusterError> {
        let failed = |detail: String| ClusterError::Failed {
            action: action.to_owned(),
            detail,
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("accept", "application/json");
        let body = match body {
            Some((content_type, body)) => {
                request = request.header("content-type", content_type);
                Body::from(body)
            }
            None => Body::empty(),
        };
        let request = request
            .body(body)
            .map_err(|error| failed(error.to_string()))?;
        let response = self
            .client
            .send(request)
            .await
            .map_err(|error| failed(said(&error)))?;
        let (head, body) = response.into_parts();
        self.log_warnings(&head.headers);
        let retry_after = head
            .headers
            .get("retry-after")
            .and_then(|value| value.to_str().ok());
        let body = body
            .collect_bytes()
            .await
            .map_err(|error| failed(said(&error)))?;
        Ok(Reply::new(head.status.as_u16(), retry_after, &body))
    }

    /// A `Warning: 299` is how the API server says that it ignored a field or that something is going
    /// away. Each is logged once.
    fn log_warnings(&self, headers: &http::HeaderMap) {
        /// Different warnings that are remembered.
        const WARNINGS_MAX: usize = 64;
        for value in headers.get_all("warning") {
            let text = clean(&String::from_utf8_lossy(value.as_bytes()), 300);
            let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
            if !warned.contains(&text) && warned.len() < WARNINGS_MAX {
                warn!(warning = text, "the API server warns");
                warned.push(text);
            }
        }
    }
}

/// Whether a request evicts, or only asks what would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evicts {
    ForGood,
    DryRun,
}

/// Path and body of one request to the Eviction API.
fn eviction(pod: &PodId, grace: Option<Duration>, evicts: Evicts) -> (String, Vec<u8>) {
    // In the query, so that admission knows; in the body too, so that a proxy which loses the query
    // cannot make an eviction of it. The API server refuses a request whose two places differ.
    let (query, dry_run) = match evicts {
        Evicts::ForGood => ("", None),
        Evicts::DryRun => ("&dryRun=All", Some(vec!["All".to_owned()])),
    };
    let eviction = Eviction {
        metadata: ObjectMeta {
            name: Some(pod.name.clone()),
            namespace: Some(pod.namespace.clone()),
            ..ObjectMeta::default()
        },
        delete_options: Some(DeleteOptions {
            dry_run,
            grace_period_seconds: grace
                // Never 0, which would be a kill.
                .map(|grace| i64::try_from(grace.as_secs()).unwrap_or(i64::MAX).max(1)),
            preconditions: Some(Preconditions {
                uid: Some(pod.uid.to_string()),
                ..Preconditions::default()
            }),
            ..DeleteOptions::default()
        }),
    };
    let body = serde_json::to_vec(&eviction).expect("a typed object is always JSON");
    let path = format!(
        "/api/v1/namespaces/{}/pods/{}/eviction?fieldManager={CONTROLLER}&timeout={}s{query}",
        pod.namespace,
        pod.name,
        WRITE_LIMIT.as_secs()
    );
    (path, body)
}

impl Cluster for KubeCluster {
    fn set_guard(&self, guard: Guard) {
        if self.guard.set(guard).is_err() {
            warn!("the guard of writes was set twice; the first stays");
        }
    }

    fn nodes(&self) -> watch::Receiver<Arc<NodeTable>> {
        self.nodes.subscribe()
    }

    fn strays(&self) -> watch::Receiver<Arc<BTreeSet<NodeName>>> {
        self.strays.subscribe()
    }

    fn pods(&self, node: &NodeId) -> BoxFuture<'_, Result<Vec<PodFacts>, ClusterError>> {
        let node = node.clone();
        async move { self.list_pods(&node).await }.boxed()
    }

    fn watch_pods(&self, node: &NodeId) -> watch::Receiver<Arc<PodTable>> {
        let (tx, rx) = watch::channel(Arc::new(PodTable::default()));
        let run = pods::keep(
            node.name.clone(),
            tx,
            self.budgets(),
            Arc::clone(&self.lookups),
            Arc::clone(&self.around),
            Arc::clone(&self.clock),
        );
        self.spawn("pods", run);
        rx
    }

    fn watch_workload(&self, namespace: &str, workload: &Owner) -> watch::Receiver<WorkloadState> {
        self.look_at(&self.workloads, namespace, workload)
    }

    fn follow_workload(&self, namespace: &str, workload: &Owner) -> watch::Receiver<WorkloadState> {
        self.look_at(&self.followed, namespace, workload)
    }

    fn deployment(
        &self,
        namespace: &str,
        deployment: &Owner,
    ) -> BoxFuture<'_, Result<Option<Scalable>, ClusterError>> {
        let (namespace, deployment) = (namespace.to_owned(), deployment.clone());
        async move { self.read_deployment(&namespace, &deployment).await }.boxed()
    }

    fn autoscaler(
        &self,
        namespace: &str,
        deployment: &Owner,
    ) -> BoxFuture<'_, Result<Option<String>, ClusterError>> {
        let (namespace, deployment) = (namespace.to_owned(), deployment.clone());
        async move { self.find_autoscaler(&namespace, &deployment).await }.boxed()
    }

    fn scale(
        &self,
        namespace: &str,
        deployment: &Owner,
        version: &str,
        replicas: u32,
    ) -> BoxFuture<'_, Result<(), ClusterError>> {
        let (namespace, deployment) = (namespace.to_owned(), deployment.clone());
        let version = version.to_owned();
        async move {
            self.patch_scale(&namespace, &deployment, &version, replicas)
                .await
        }
        .boxed()
    }

    fn is_attached(
        &self,
        node: &NodeName,
        volume: &Volume,
    ) -> BoxFuture<'_, Result<bool, ClusterError>> {
        let (node, volume) = (node.clone(), volume.clone());
        async move { self.read_attachment(&node, &volume).await }.boxed()
    }

    fn read_pod(&self, pod: &PodId) -> BoxFuture<'_, Result<Option<PodFacts>, ClusterError>> {
        let pod = pod.clone();
        async move { self.fresh_pod(&pod).await }.boxed()
    }

    fn mark(&self, order: &MarkOrder) -> BoxFuture<'_, Result<NodeEntry, ClusterError>> {
        let order = order.clone();
        async move {
            let action = format!("mark Node {}", order.node);
            tokio::time::timeout(WRITE_LIMIT, self.mark_node(&order))
                .await
                .unwrap_or(Err(ClusterError::Timeout {
                    action,
                    limit: WRITE_LIMIT,
                }))
        }
        .boxed()
    }

    fn evict(&self, pod: &PodId, grace: Option<Duration>) -> BoxFuture<'_, Answer> {
        let pod = pod.clone();
        async move { self.evict_once(&pod, grace).await }.boxed()
    }

    fn try_eviction(&self, pod: &PodId, grace: Option<Duration>) -> BoxFuture<'_, DryRun> {
        let pod = pod.clone();
        async move { self.try_eviction_once(&pod, grace).await }.boxed()
    }

    fn lease(&self) -> watch::Receiver<LeaseState> {
        // Not before somebody asks: with reach `observe` nobody does, and no right is needed.
        self.lease_watched.get_or_init(|| self.watch_lease());
        self.lease.subscribe()
    }

    fn read_lease(&self) -> BoxFuture<'_, Result<LeaseState, ClusterError>> {
        async move {
            let action = format!("read Lease {}/{}", self.namespace, self.instance);
            tokio::time::timeout(LEASE_LIMIT, self.get_lease())
                .await
                .unwrap_or(Err(ClusterError::Timeout {
                    action,
                    limit: LEASE_LIMIT,
                }))
        }
        .boxed()
    }

    fn write_lease(&self, write: &LeaseWrite) -> BoxFuture<'_, Result<LeaseView, ClusterError>> {
        let write = write.clone();
        async move {
            let action = format!("write Lease {}/{}", self.namespace, self.instance);
            tokio::time::timeout(LEASE_LIMIT, self.put_lease(&write))
                .await
                .unwrap_or(Err(ClusterError::Timeout {
                    action,
                    limit: LEASE_LIMIT,
                }))
        }
        .boxed()
    }

    fn publish(&self, event: &ClusterEvent) -> BoxFuture<'_, Result<(), ClusterError>> {
        let event = event.clone();
        async move { self.publish_event(&event).await }.boxed()
    }
}

async fn bounded<T>(
    action: &str,
    limit: Duration,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ClusterError> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(cluster_error(action, &error)),
        Err(_) => Err(ClusterError::Timeout {
            action: action.to_owned(),
            limit,
        }),
    }
}

pub(super) fn cluster_error(action: &str, error: &kube::Error) -> ClusterError {
    let (action, detail) = (action.to_owned(), said(error));
    match error {
        kube::Error::Api(status) if status.code == 403 => {
            ClusterError::Forbidden { action, detail }
        }
        _ => ClusterError::Failed { action, detail },
    }
}

pub(super) fn refused(action: &str, reply: &Reply) -> ClusterError {
    let (action, detail) = (action.to_owned(), reply.message());
    match reply.code() {
        403 => ClusterError::Forbidden { action, detail },
        _ => ClusterError::Failed { action, detail },
    }
}

pub(super) fn superseded(node: &NodeName, problem: &Superseded) -> ClusterError {
    ClusterError::Superseded {
        object: format!("Node {node}"),
        detail: problem.to_string(),
    }
}

pub(super) fn conflict(node: &NodeName) -> ClusterError {
    ClusterError::Superseded {
        object: format!("Node {node}"),
        detail: "it changes faster than it can be written".to_owned(),
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
