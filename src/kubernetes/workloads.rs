//! How it stands with the workloads of Pods that are to go: Deployments, StatefulSets, Jobs and the like.
//!
//! Watched one by one, and only those that a running drain waits for, or whose evicted Pods have to become
//! Ready again elsewhere.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foreshock_core::drain::{Owner, Replica, Workload};
use foreshock_core::node::{NodeName, Uid};
use foreshock_core::time::{after, ago};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Selector;
use kube::{Api, Client};
use tokio::sync::{Notify, Semaphore, watch};
use tracing::warn;

use super::WorkloadState;
use super::pod::owner;
use super::pods::WATCH_FOR;
use super::rate::Rate;
use super::watch::{Scope, Seen, follow, with_remedy};
use crate::clock::Clock;

/// Pods in a page of a list.
const PAGE: u32 = 500;
/// Workloads that are watched at once, in the whole cluster. The others wait for a place.
pub(super) const WATCHED_MAX: usize = 64;
/// As [`WATCHED_MAX`], of those that no drain waits for. They have places of their own, so that what is only
/// to be told afterwards keeps no eviction waiting.
pub(super) const FOLLOWED_MAX: usize = 16;
/// Requests a second for those, which are three for each.
pub(super) const FOLLOWED_PER_SECOND: u32 = 20;
/// The API server cuts its times to whole seconds, and its clock may be a little behind ours.
const CLOCKS_APART: Duration = Duration::from_secs(3);
/// Pods that became Ready longer ago, before anybody looked, are in nobody's place.
const FRESH_FOR: Duration = Duration::from_secs(3600);
/// What a workload asks for is read again after this, and soon after its Pods have changed.
const READ_EVERY: Duration = Duration::from_secs(10);
/// Between two reads at least.
const READ_FLOOR: Duration = Duration::from_secs(1);
/// One read must answer within this.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// What it takes to look at workloads.
#[derive(Clone)]
pub(super) struct Means {
    pub(super) client: Client,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) rate: Arc<Rate>,
    /// For those that are watched at once.
    pub(super) places: Arc<Semaphore>,
}

/// Keeps the state of one workload until nobody listens any more.
pub(super) async fn keep(
    means: Means,
    namespace: String,
    workload: Owner,
    tx: watch::Sender<WorkloadState>,
) {
    tokio::select! {
        () = tx.closed() => {}
        () = run(means, &namespace, &workload, &tx) => tx.closed().await,
    }
}

/// Ends only where there is nothing more to be seen: the workload is gone.
async fn run(means: Means, namespace: &str, workload: &Owner, tx: &watch::Sender<WorkloadState>) {
    let Means {
        client,
        clock,
        rate,
        places,
    } = means;
    let reader = Reader {
        client: client.clone(),
        rate: Arc::clone(&rate),
        namespace,
        workload,
    };
    let (_place, found) = loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match reader.read().await {
            Ok(found) => break (place, found),
            Err(problem) => {
                // Others may be readable.
                drop(place);
                say(tx, Some(Err(problem)));
                tokio::time::sleep(READ_EVERY).await;
            }
        }
    };
    let Found::There { labels, asks } = found else {
        return say(tx, Some(Ok(over())));
    };
    let book = Book::new(clock.now());
    let api: Api<Pod> = Api::namespaced(client, namespace);
    let scope = Scope {
        labels,
        fields: String::new(),
        page: PAGE,
        watch_for: WATCH_FOR,
    };
    let follow = follow(
        &api,
        &scope,
        &rate,
        |pod| seen(&pod, workload),
        |seen| book.see(seen, clock.now()),
    );
    book.asks(asks);
    let publish = async {
        loop {
            say(tx, book.state());
            book.changed.notified().await;
        }
    };
    let read_again = async {
        let mut unread = false;
        loop {
            tokio::select! {
                () = book.pods_changed.notified() => tokio::time::sleep(READ_FLOOR).await,
                () = tokio::time::sleep(READ_EVERY) => {}
            }
            match reader.read().await {
                Ok(Found::There { asks, .. }) => {
                    unread = false;
                    book.asks(asks);
                }
                Ok(Found::Gone) => return say(tx, Some(Ok(over()))),
                // What it asked for last is the best that is known, and its Pods are seen all the same.
                Err(problem) if !unread => {
                    unread = true;
                    warn!(workload = %workload, namespace, problem, "workload cannot be read any more");
                }
                Err(_) => {}
            }
        }
    };
    tokio::select! {
        never = follow => match never {},
        () = publish => {}
        () = read_again => {}
    }
}

fn over() -> Workload {
    Workload {
        over: true,
        ..Workload::default()
    }
}

fn say(tx: &watch::Sender<WorkloadState>, state: WorkloadState) {
    tx.send_if_modified(|present| {
        let differs = *present != state;
        if differs {
            *present = state;
        }
        differs
    });
}

/// What a workload asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Asks {
    wanted: Option<u32>,
    over: bool,
}

/// What a read has found.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    There {
        /// Label selector of its Pods; empty where its kind does not say, and then all Pods of the
        /// namespace are looked at.
        labels: String,
        asks: Asks,
    },
    /// It is gone, or another has its name.
    Gone,
}

struct Reader<'a> {
    client: Client,
    rate: Arc<Rate>,
    namespace: &'a str,
    workload: &'a Owner,
}

impl Reader<'_> {
    async fn read(&self) -> Result<Found, String> {
        self.rate.turn().await;
        match tokio::time::timeout(READ_LIMIT, self.ask()).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(with_remedy(&error)),
            Err(_) => Err(format!("no answer within {READ_LIMIT:?}")),
        }
    }

    async fn ask(&self) -> Result<Found, kube::Error> {
        let Owner {
            group, kind, name, ..
        } = self.workload;
        match (group.as_str(), kind.as_str()) {
            ("apps", "Deployment") => {
                let found = self.get::<Deployment>(name).await?;
                Ok(self.found(found, |one| {
                    let spec = one.spec.as_ref();
                    (
                        spec.map(|spec| &spec.selector),
                        replicas(spec.and_then(|spec| spec.replicas)),
                    )
                }))
            }
            ("apps", "StatefulSet") => {
                let found = self.get::<StatefulSet>(name).await?;
                Ok(self.found(found, |one| {
                    let spec = one.spec.as_ref();
                    (
                        spec.map(|spec| &spec.selector),
                        replicas(spec.and_then(|spec| spec.replicas)),
                    )
                }))
            }
            ("apps", "ReplicaSet") => {
                let found = self.get::<ReplicaSet>(name).await?;
                Ok(self.found(found, |one| {
                    let spec = one.spec.as_ref();
                    (
                        spec.map(|spec| &spec.selector),
                        replicas(spec.and_then(|spec| spec.replicas)),
                    )
                }))
            }
            ("", "ReplicationController") => {
                let found = self.get::<ReplicationController>(name).await?;
                Ok(self.found(found, |one| {
                    let wanted = one.spec.as_ref().and_then(|spec| spec.replicas);
                    (None, replicas(wanted))
                }))
            }
            ("batch", "Job") => {
                let found = self.get::<Job>(name).await?;
                Ok(self.found(found, |one| {
                    let selector = one.spec.as_ref().and_then(|spec| spec.selector.as_ref());
                    (selector, of_job(one))
                }))
            }
            // Of kinds that it does not know foreshock may read nothing; their Pods say that they are there.
            _ => Ok(Found::There {
                labels: String::new(),
                asks: Asks::default(),
            }),
        }
    }

    async fn get<K>(&self, name: &str) -> Result<Option<K>, kube::Error>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + serde::de::DeserializeOwned
            + std::fmt::Debug,
        K::DynamicType: Default,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), self.namespace);
        api.get_opt(name).await
    }

    fn found<K: kube::Resource>(
        &self,
        found: Option<K>,
        says: impl Fn(&K) -> (Option<&LabelSelector>, Asks),
    ) -> Found {
        let uid = self.workload.uid.as_str();
        let Some(found) = found.filter(|found| found.meta().uid.as_deref() == Some(uid)) else {
            return Found::Gone;
        };
        let (selector, asks) = says(&found);
        // A selector that cannot be written as text selects nothing that could be counted; all Pods of the
        // namespace are looked at then, and those of other workloads left out.
        let labels = selector
            .and_then(|selector| Selector::try_from(selector.clone()).ok())
            .map_or_else(String::new, |selector| selector.to_string());
        Found::There {
            labels,
            asks: Asks {
                over: asks.over || found.meta().deletion_timestamp.is_some(),
                ..asks
            },
        }
    }
}

/// Kubernetes' default is 1.
fn replicas(wanted: Option<i32>) -> Asks {
    Asks {
        wanted: Some(u32::try_from(wanted.unwrap_or(1)).unwrap_or(0)),
        over: false,
    }
}

/// As many at a time as it may run, and no more than it still needs.
fn of_job(job: &Job) -> Asks {
    let count = |n: Option<i32>, usual: u32| n.map_or(usual, |n| u32::try_from(n).unwrap_or(0));
    let (spec, status) = (job.spec.as_ref(), job.status.as_ref());
    let parallelism = count(spec.and_then(|spec| spec.parallelism), 1);
    let completions = spec.and_then(|spec| spec.completions);
    let succeeded = count(status.and_then(|status| status.succeeded), 0);
    let needed = completions.map_or(parallelism, |n| {
        u32::try_from(n).unwrap_or(0).saturating_sub(succeeded)
    });
    let conditions = status.and_then(|status| status.conditions.as_deref());
    let ended = conditions.unwrap_or_default().iter().any(|condition| {
        matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True"
    });
    let suspended = spec.and_then(|spec| spec.suspend).unwrap_or(false);
    Asks {
        wanted: Some(if suspended {
            0
        } else {
            parallelism.min(needed)
        }),
        over: ended,
    }
}

/// One Pod, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SeenPod {
    uid: Uid,
    is_ready: bool,
    node: Option<NodeName>,
    created_at: Option<Timestamp>,
    /// By the clock of its Node.
    ready_since: Option<Timestamp>,
}

/// A Pod of this workload. Selectors may overlap, so its controller counts.
fn seen(pod: &Pod, workload: &Owner) -> Option<SeenPod> {
    let controller = owner(pod)?;
    // Which of a Deployment's ReplicaSets it is of does not matter, and the selector says that it is one.
    let by_deployment = workload.kind == "Deployment"
        && workload.group == "apps"
        && (controller.group.as_str(), controller.kind.as_str()) == ("apps", "ReplicaSet");
    if !by_deployment && controller.uid != workload.uid {
        return None;
    }
    let conditions = pod.status.as_ref()?.conditions.as_deref();
    let ready = conditions
        .unwrap_or_default()
        .iter()
        .find(|condition| condition.type_ == "Ready" && condition.status == "True");
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    Some(SeenPod {
        uid: Uid::from(pod.metadata.uid.as_deref()?),
        is_ready: ready.is_some() && pod.metadata.deletion_timestamp.is_none(),
        node: node.map(NodeName::from),
        created_at: pod.metadata.creation_timestamp.as_ref().map(|at| at.0),
        ready_since: ready.and_then(|ready| Some(ready.last_transition_time.as_ref()?.0)),
    })
}

/// What is known of one workload.
#[derive(Debug)]
struct Book {
    began_at: Timestamp,
    inner: Mutex<Known>,
    /// Anything has changed.
    changed: Notify,
    /// Pods have: what the workload asks for may have too.
    pods_changed: Notify,
}

#[derive(Debug, Default)]
struct Known {
    synced: bool,
    problem: Option<String>,
    pods: BTreeMap<Uid, KnownPod>,
    asks: Asks,
}

#[derive(Debug)]
struct KnownPod {
    is_ready: bool,
    node: Option<NodeName>,
    /// It came into being then or earlier, on our clock.
    appeared_at: Timestamp,
    /// When it became Ready for the first time, on our clock.
    ready_at: Option<Timestamp>,
}

impl KnownPod {
    /// One that was not known before.
    fn new(pod: &SeenPod, now: Timestamp, listed: bool) -> Self {
        // One that comes up before our eyes is as old as it looks. One in a list may be older.
        let created_at = pod.created_at.filter(|_| listed);
        let latest = created_at.map(|at| after(at, CLOCKS_APART));
        Self {
            is_ready: false,
            node: None,
            appeared_at: latest.map_or(now, |latest| latest.min(now)),
            ready_at: None,
        }
    }

    /// Returns whether its being Ready has changed.
    fn see(&mut self, pod: SeenPod, now: Timestamp, listed: bool) -> bool {
        if pod.is_ready && self.ready_at.is_none() {
            // What happens before our eyes happens now. One in a list may have become Ready long ago, by
            // times that are cut to whole seconds, and by a clock of its Node that may be far behind.
            let said = pod.ready_since.max(pod.created_at).filter(|_| listed);
            let said = said.map(|at| after(at, Duration::from_secs(1)));
            self.ready_at = Some(said.map_or(now, |said| said.min(now)));
        }
        self.node = pod.node;
        std::mem::replace(&mut self.is_ready, pod.is_ready) != pod.is_ready
    }
}

impl Book {
    fn new(began_at: Timestamp) -> Self {
        Self {
            began_at,
            inner: Mutex::default(),
            changed: Notify::new(),
            pods_changed: Notify::new(),
        }
    }

    fn see(&self, seen: Seen<SeenPod>, now: Timestamp) {
        let mut known = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let pods_changed = match seen {
            Seen::Listed { items, .. } => {
                let mut before = std::mem::take(&mut known.pods);
                for pod in items {
                    let uid = pod.uid.clone();
                    let entry = before.remove(&uid);
                    let mut entry = entry.unwrap_or_else(|| KnownPod::new(&pod, now, true));
                    entry.see(pod, now, true);
                    known.pods.insert(uid, entry);
                }
                known.synced = true;
                known.problem = None;
                true
            }
            Seen::Applied { item, .. } => {
                let entry = known.pods.entry(item.uid.clone());
                entry
                    .or_insert_with(|| KnownPod::new(&item, now, false))
                    .see(item, now, false)
            }
            Seen::Deleted { item, .. } => {
                let gone = known.pods.remove(&item.uid);
                gone.is_some_and(|gone| gone.is_ready)
            }
            Seen::Alive => {
                known.problem = None;
                false
            }
            Seen::Failed(problem) => {
                known.problem = Some(problem);
                false
            }
        };
        drop(known);
        self.changed.notify_one();
        if pods_changed {
            self.pods_changed.notify_one();
        }
    }

    fn asks(&self, asks: Asks) {
        let mut known = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        known.asks = asks;
        drop(known);
        self.changed.notify_one();
    }

    /// `None` before the first list is complete.
    fn state(&self) -> WorkloadState {
        let known = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(problem) = &known.problem {
            return Some(Err(problem.clone()));
        }
        if !known.synced {
            return None;
        }
        let ready = || known.pods.iter().filter(|(_, pod)| pod.is_ready);
        let from = ago(self.began_at, FRESH_FOR);
        let fresh = ready().filter_map(|(uid, pod)| {
            let replica = Replica {
                node: pod.node.clone()?,
                appeared_at: pod.appeared_at,
                ready_at: pod.ready_at.filter(|at| *at >= from)?,
            };
            Some((uid.clone(), replica))
        });
        Some(Ok(Workload {
            wanted: known.asks.wanted,
            ready: ready().map(|(uid, _)| uid.clone()).collect(),
            on: ready()
                .filter_map(|(uid, pod)| Some((uid.clone(), pod.node.clone()?)))
                .collect(),
            fresh: fresh.collect(),
            over: known.asks.over,
        }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use wiremock::matchers::{method, path, query_param, query_param_is_missing};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;
    use crate::clock::SystemClock;

    fn workload(group: &str, kind: &str) -> Owner {
        Owner {
            group: group.to_owned(),
            kind: kind.to_owned(),
            name: "web".to_owned(),
            uid: Uid::from("w"),
        }
    }

    fn pod(controller: &Value, ready: &str, deleted: bool) -> Pod {
        let mut pod = json!({
            "metadata": {"namespace": "shop", "name": "p", "uid": "p", "ownerReferences": [controller]},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        });
        if deleted {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        serde_json::from_value(pod).expect("a Pod")
    }

    fn reference(api_version: &str, kind: &str, uid: &str) -> Value {
        json!({"apiVersion": api_version, "kind": kind, "name": "x", "uid": uid, "controller": true})
    }

    fn client(server: &MockServer) -> Client {
        // Choosing twice is refused and harmless.
        drop(rustls::crypto::ring::default_provider().install_default());
        let config = kube::Config::new(server.uri().parse().expect("a URL"));
        Client::try_from(config).expect("a client")
    }

    fn means(server: &MockServer, places: &Arc<Semaphore>) -> Means {
        Means {
            client: client(server),
            clock: Arc::new(SystemClock),
            rate: Arc::new(Rate::per_second(1000)),
            places: Arc::clone(places),
        }
    }

    async fn answers(server: &MockServer, at: &str, code: u16, body: Value) {
        Mock::given(method("GET"))
            .and(path(at))
            .respond_with(ResponseTemplate::new(code).set_body_json(body))
            .mount(server)
            .await;
    }

    fn failure(code: u16, message: &str) -> Value {
        let reason = if code == 404 { "NotFound" } else { "" };
        json!({"kind": "Status", "status": "Failure", "code": code, "message": message, "reason": reason})
    }

    async fn next(state: &mut watch::Receiver<WorkloadState>) -> Result<Workload, String> {
        let said = tokio::time::timeout(Duration::from_secs(30), state.changed()).await;
        said.expect("it says something").expect("it is kept");
        let state = state.borrow_and_update().clone();
        state.expect("more than that it is being looked at")
    }

    /// One place for both: who holds it without being able to use it would keep the other waiting for ever.
    #[tokio::test]
    async fn what_cannot_be_read_takes_no_place_from_what_can() {
        let server = MockServer::start().await;
        let job = "/apis/batch/v1/namespaces/shop/jobs/web";
        answers(&server, job, 403, failure(403, "jobs is forbidden")).await;
        let gone = "/apis/apps/v1/namespaces/shop/deployments/web";
        answers(&server, gone, 404, failure(404, "not found")).await;
        let places = Arc::new(Semaphore::new(1));
        let watched = |workload: Owner| {
            let (tx, rx) = watch::channel(None);
            tokio::spawn(keep(
                means(&server, &places),
                "shop".to_owned(),
                workload,
                tx,
            ));
            rx
        };
        let mut forbidden = watched(workload("batch", "Job"));
        let problem = next(&mut forbidden).await.expect_err("forbidden");
        assert!(problem.contains("jobs is forbidden"), "{problem}");
        assert!(
            problem.contains("apply the roles in deploy/kustomize/base"),
            "{problem}"
        );
        let mut readable = watched(workload("apps", "Deployment"));
        assert!(next(&mut readable).await.expect("read").over, "it is gone");
    }

    #[tokio::test]
    async fn the_pods_of_a_workload_are_counted_by_its_own_selector() {
        let server = MockServer::start().await;
        let set = json!({
            "metadata": {"namespace": "shop", "name": "web", "uid": "w"},
            "spec": {
                "replicas": 2, "serviceName": "web", "template": {},
                "selector": {
                    "matchLabels": {"app": "web"},
                    "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}],
                },
            },
        });
        answers(
            &server,
            "/apis/apps/v1/namespaces/shop/statefulsets/web",
            200,
            set,
        )
        .await;
        let mine = pod(&reference("apps/v1", "StatefulSet", "w"), "True", false);
        let items = vec![serde_json::to_value(mine).expect("JSON")];
        Mock::given(method("GET"))
            .and(path("/api/v1/namespaces/shop/pods"))
            .and(query_param("labelSelector", "app=web,tier in (a,b)"))
            .and(query_param_is_missing("watch"))
            .respond_with(ResponseTemplate::new(200).set_body_json(json!({
                "kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}, "items": items,
            })))
            .mount(&server)
            .await;
        let (tx, mut state) = watch::channel(None);
        tokio::spawn(keep(
            means(&server, &Arc::new(Semaphore::new(1))),
            "shop".to_owned(),
            workload("apps", "StatefulSet"),
            tx,
        ));
        let seen = next(&mut state).await.expect("listed");
        assert_eq!((seen.wanted, seen.over), (Some(2), false));
        assert_eq!(seen.ready, [Uid::from("p")].into());
        // The watch is not scripted: it breaks, and what is known is not believed any more.
        next(&mut state).await.expect_err("broken");
    }

    #[test]
    fn pods_count_by_their_controller_and_while_they_are_ready_and_stay() {
        let of = |workload: &Owner, controller: &Value, ready: &str, deleted: bool| {
            seen(&pod(controller, ready, deleted), workload).map(|pod| pod.is_ready)
        };
        let replica_set = reference("apps/v1", "ReplicaSet", "rs-2");
        let deployment = workload("apps", "Deployment");
        assert_eq!(of(&deployment, &replica_set, "True", false), Some(true));
        assert_eq!(of(&deployment, &replica_set, "False", false), Some(false));
        assert_eq!(of(&deployment, &replica_set, "True", true), Some(false));
        assert_eq!(
            of(
                &deployment,
                &reference("apps/v1", "StatefulSet", "s"),
                "True",
                false
            ),
            None
        );
        let set = workload("apps", "StatefulSet");
        assert_eq!(
            of(
                &set,
                &reference("apps/v1", "StatefulSet", "w"),
                "True",
                false
            ),
            Some(true)
        );
        assert_eq!(
            of(
                &set,
                &reference("apps/v1", "StatefulSet", "other"),
                "True",
                false
            ),
            None
        );
        let foreign = workload("example.org", "Deployment");
        assert_eq!(of(&foreign, &replica_set, "True", false), None);
    }

    #[test]
    fn a_job_asks_for_what_it_still_needs() {
        let asks = |spec: Value, status: Value| {
            let mut spec = spec;
            spec["template"] = json!({"spec": {"containers": []}});
            let job = json!({"metadata": {"name": "j"}, "spec": spec, "status": status});
            of_job(&serde_json::from_value(job).expect("a Job"))
        };
        let wanted = |spec, status| asks(spec, status).wanted;
        assert_eq!(wanted(json!({}), json!({})), Some(1));
        assert_eq!(wanted(json!({"parallelism": 4}), json!({})), Some(4));
        assert_eq!(
            wanted(
                json!({"parallelism": 4, "completions": 6}),
                json!({"succeeded": 1})
            ),
            Some(4)
        );
        assert_eq!(
            wanted(
                json!({"parallelism": 4, "completions": 6}),
                json!({"succeeded": 4})
            ),
            Some(2)
        );
        assert_eq!(
            wanted(json!({"parallelism": 4, "suspend": true}), json!({})),
            Some(0)
        );
        let ended = |kind: &str, status: &str| {
            asks(
                json!({}),
                json!({"conditions": [{"type": kind, "status": status}]}),
            )
            .over
        };
        assert!(ended("Complete", "True") && ended("Failed", "True"));
        assert!(!ended("Complete", "False") && !ended("Suspended", "True"));
    }

    #[test]
    fn a_watch_that_breaks_says_so_until_it_is_up_again() {
        let book = Book::new(at(0));
        book.asks(replicas(Some(2)));
        assert_eq!(book.state(), None);
        book.see(
            Seen::Listed {
                items: vec![plain("a", true), plain("b", false)],
                version: "1".into(),
            },
            at(1),
        );
        let ready = |book: &Book| {
            let state = book.state().expect("known").expect("up to date");
            assert_eq!((state.wanted, state.over), (Some(2), false));
            assert!(
                state
                    .ready
                    .iter()
                    .all(|uid| state.on[uid] == NodeName::from("n"))
            );
            state
                .ready
                .iter()
                .map(|uid| uid.as_str().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(ready(&book), ["a"]);
        book.see(
            Seen::Applied {
                item: plain("b", true),
                version: "2".into(),
            },
            at(2),
        );
        assert_eq!(ready(&book), ["a", "b"]);
        book.see(Seen::Failed("connection reset".into()), at(3));
        assert_eq!(book.state(), Some(Err("connection reset".into())));
        book.see(Seen::Alive, at(3));
        book.see(
            Seen::Applied {
                item: plain("a", false),
                version: "3".into(),
            },
            at(3),
        );
        assert_eq!(ready(&book), ["b"]);
        book.see(
            Seen::Deleted {
                item: plain("b", true),
                version: "4".into(),
            },
            at(4),
        );
        assert_eq!(ready(&book), Vec::<String>::new());
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a time")
    }

    fn plain(uid: &str, is_ready: bool) -> SeenPod {
        SeenPod {
            uid: Uid::from(uid),
            is_ready,
            node: Some(NodeName::from("n")),
            created_at: None,
            ready_since: None,
        }
    }

    /// When each Ready Pod may have come up, and when it became Ready, in seconds.
    fn fresh(book: &Book) -> Vec<(String, i64, i64)> {
        let seconds = |time: Timestamp| time.as_second() - at(0).as_second();
        let state = book.state().expect("known").expect("up to date");
        let each = state.fresh.into_iter().map(|(uid, replica)| {
            assert_eq!(replica.node.as_str(), "n1");
            let (up, ready) = (seconds(replica.appeared_at), seconds(replica.ready_at));
            (uid.to_string(), up, ready)
        });
        each.collect()
    }

    #[test]
    fn when_a_pod_came_up_and_became_ready_is_told_by_our_own_clock_where_we_saw_it() {
        let pod = |uid: &str, created_at: i64, ready_since: Option<i64>| SeenPod {
            node: Some("n1".into()),
            created_at: Some(at(created_at)),
            ready_since: ready_since.map(at),
            ..plain(uid, ready_since.is_some())
        };
        let listed = |items: &[SeenPod]| Seen::Listed {
            items: items.to_vec(),
            version: "1".into(),
        };
        let applied = |item: &SeenPod| Seen::Applied {
            item: item.clone(),
            version: "2".into(),
        };
        let book = Book::new(at(10_000));
        let first = [
            pod("ancient", 0, Some(10)),
            pod("old", 6_000, Some(6_500)),
            pod("late", 9_999, None),
        ];
        book.see(listed(&first), at(10_000));
        // Its Node's clock is behind.
        book.see(applied(&pod("live", 3, Some(9_000))), at(10_005));
        book.see(applied(&pod("slow", 10_006, None)), at(10_007));
        book.see(applied(&pod("slow", 10_006, Some(10_020))), at(10_020));
        book.see(applied(&pod("late", 9_999, Some(99_999))), at(10_030));
        let seen = [
            ("late".to_owned(), 10_000, 10_030),
            ("live".to_owned(), 10_005, 10_005),
            ("old".to_owned(), 6_003, 6_501),
            ("slow".to_owned(), 10_007, 10_020),
        ];
        assert_eq!(fresh(&book), seen, "and the ancient one is none");
        // What is known stays known over a watch that began anew; what is new then may be older.
        let again = [
            pod("live", 3, Some(9_000)),
            pod("slow", 10_006, Some(10_900)),
            pod("new", 10_900, Some(10_950)),
            pod("odd", 10_800, Some(5)),
        ];
        book.see(listed(&again), at(11_000));
        let seen = [
            ("live".to_owned(), 10_005, 10_005),
            ("new".to_owned(), 10_903, 10_951),
            ("odd".to_owned(), 10_803, 10_801),
            ("slow".to_owned(), 10_007, 10_020),
        ];
        assert_eq!(fresh(&book), seen);
        // Not Ready for a while, it is still in the place that it took first.
        book.see(applied(&pod("slow", 10_006, None)), at(11_001));
        assert_eq!(fresh(&book).len(), 3);
        book.see(applied(&pod("slow", 10_006, Some(11_100))), at(11_100));
        assert_eq!(fresh(&book), seen);
        book.see(
            Seen::Deleted {
                item: pod("slow", 10_006, None),
                version: "3".into(),
            },
            at(11_200),
        );
        assert_eq!(fresh(&book).len(), 3);
    }
}
