//! The Pods of one Node, completed with what has to be looked up: budgets, DaemonSets, volumes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foreshock_core::drain::{Owner, PodFacts, Volume};
use foreshock_core::node::{NodeName, Uid};
use foreshock_core::room::VolumeTopology;
use k8s_openapi::api::apps::v1::{DaemonSet, ReplicaSet};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::{Api, Client};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::warn;

use super::PodTable;
use super::budget::{SeenBudget, covering};
use super::needs;
use super::pod::{SeenPod, Surroundings, controller, is_replica_set, seen};
use super::rate::Rate;
use super::volumes;
use super::watch::{Scope, Seen, follow, with_remedy};
use crate::clock::Clock;

/// Objects in a page of a list.
const PAGE: u32 = 500;
/// Whole Pods in a page: with their managed fields each can take 30 KiB, and few are in memory at once.
const PODS_PAGE: u32 = 50;
/// How long one watch request lasts; also how long a dead connection can go unnoticed.
pub(super) const WATCH_FOR: Duration = Duration::from_secs(60);
/// One look-up must answer within this.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);
/// What was looked up is believed for this long.
const LOOKUP_AGE_MAX: Duration = Duration::from_secs(60);
/// Which Deployment a ReplicaSet is of hardly ever changes.
const CONTROLLER_AGE_MAX: Duration = Duration::from_secs(3600);
/// A look-up that failed is tried again after this.
const LOOKUP_RETRY: Duration = Duration::from_secs(10);
/// Look-ups kept; a Node has at most a few hundred Pods, and most share their DaemonSets.
const LOOKUPS_MAX: usize = 5000;

/// The scope of one Node's Pods.
pub(super) fn of_node(node: &NodeName) -> Scope {
    Scope {
        labels: String::new(),
        fields: format!("spec.nodeName={node}"),
        page: PODS_PAGE,
        watch_for: WATCH_FOR,
    }
}

/// All budgets of a namespace, or of the cluster.
pub(super) fn everything() -> Scope {
    Scope {
        labels: String::new(),
        fields: String::new(),
        page: PAGE,
        watch_for: WATCH_FOR,
    }
}

/// All budgets of the cluster, by namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct BudgetTable {
    pub(super) synced: bool,
    pub(super) problem: Option<String>,
    /// An `Arc` per namespace, so that a change elsewhere is told by comparing pointers.
    pub(super) namespaces: BTreeMap<String, Arc<Budgets>>,
}

/// The budgets of a namespace, by name. An `Arc` for each, so that those that are as they were are told at once.
pub(super) type Budgets = BTreeMap<String, Arc<SeenBudget>>;

/// One watch of all budgets, shared by every drain that runs, and ended with the last.
///
/// A watch for each namespace of each Node's Pods would be hundreds where many Nodes drain at once.
#[derive(Debug)]
pub(super) struct BudgetFeed {
    pub(super) table: watch::Receiver<Arc<BudgetTable>>,
    _stop: DropGuard,
}

impl BudgetFeed {
    /// The feed, and the future that keeps it; the future ends when the feed is dropped.
    pub(super) fn new(
        client: Client,
        rate: Arc<Rate>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (tx, table) = watch::channel(Arc::new(BudgetTable::default()));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let run = async move {
            let api: Api<PodDisruptionBudget> = Api::all(client);
            let scope = everything();
            let convert = |pdb: PodDisruptionBudget| SeenBudget::from(&pdb);
            let handle = |seen| {
                tx.send_if_modified(|table| {
                    let table = Arc::make_mut(table);
                    see_budget(table, seen)
                });
            };
            tokio::select! {
                () = stopped.cancelled() => {}
                never = follow(&api, &scope, &rate, convert, handle) => match never {},
            }
        };
        let feed = Self {
            table,
            _stop: stop.drop_guard(),
        };
        (feed, run)
    }
}

/// Takes in what the watch says. True where it changes anything.
fn see_budget(table: &mut BudgetTable, seen: Seen<SeenBudget>) -> bool {
    match seen {
        Seen::Listed { items, .. } => {
            let mut namespaces: BTreeMap<String, Budgets> = BTreeMap::new();
            for budget in items {
                namespaces
                    .entry(budget.namespace.clone())
                    .or_default()
                    .insert(budget.name.clone(), Arc::new(budget));
            }
            table.namespaces = namespaces
                .into_iter()
                .map(|(name, budgets)| (name, Arc::new(budgets)))
                .collect();
            table.synced = true;
            table.problem = None;
            true
        }
        Seen::Applied { item, .. } => {
            let budgets = table.namespaces.entry(item.namespace.clone()).or_default();
            if budgets.get(&item.name).is_some_and(|had| **had == item) {
                return false;
            }
            Arc::make_mut(budgets).insert(item.name.clone(), Arc::new(item));
            true
        }
        Seen::Deleted { item, .. } => table
            .namespaces
            .get_mut(&item.namespace)
            .is_some_and(|budgets| Arc::make_mut(budgets).remove(&item.name).is_some()),
        Seen::Alive => table.problem.take().is_some(),
        Seen::Failed(problem) => {
            let changed = table.problem.as_ref() != Some(&problem);
            table.problem = Some(problem);
            changed
        }
    }
}

/// The Pods of a Node as its watch shows them.
#[derive(Debug, Default)]
struct PodBook {
    inner: Mutex<Pods>,
    changed: Notify,
}

#[derive(Clone, Debug, Default)]
struct Pods {
    synced: bool,
    at: Option<jiff::Timestamp>,
    problem: Option<String>,
    /// Shared with the copies from which tables are made, several times a second.
    pods: BTreeMap<Uid, Arc<SeenPod>>,
}

impl PodBook {
    fn see(&self, seen: Seen<SeenPod>, now: jiff::Timestamp) {
        let mut pods = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(seen, Seen::Failed(_)) {
            pods.at = Some(now);
        }
        match seen {
            Seen::Listed { items, .. } => {
                pods.pods = items
                    .into_iter()
                    .map(|pod| (pod.facts.id.uid.clone(), Arc::new(pod)))
                    .collect();
                pods.synced = true;
                pods.problem = None;
            }
            Seen::Applied { item, .. } => {
                pods.pods.insert(item.facts.id.uid.clone(), Arc::new(item));
            }
            Seen::Deleted { item, .. } => {
                pods.pods.remove(&item.facts.id.uid);
            }
            Seen::Alive => pods.problem = None,
            Seen::Failed(problem) => pods.problem = Some(problem),
        }
        drop(pods);
        self.changed.notify_one();
    }

    fn snapshot(&self) -> Pods {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Keeps the table of one Node's Pods until nobody listens any more.
pub(super) async fn keep(
    node: NodeName,
    tx: watch::Sender<Arc<PodTable>>,
    budgets: Arc<BudgetFeed>,
    lookups: Arc<Lookups>,
    around: Arc<Surroundings>,
    clock: Arc<dyn Clock>,
) {
    let book = PodBook::default();
    let scope = of_node(&node);
    let api: Api<Pod> = Api::all(lookups.client.clone());
    let handle = |seen| book.see(seen, clock.now());
    let follow = follow(
        &api,
        &scope,
        &lookups.rate,
        |pod| seen(&pod, &around),
        handle,
    );
    let publish = async {
        let mut table = budgets.table.clone();
        let mut made = Made::default();
        loop {
            let pods = book.snapshot();
            let budgets = table.borrow_and_update().clone();
            let synced = pods.synced && budgets.synced;
            let facts = made.again(&lookups, &pods, &budgets).await;
            let problem = pods.problem.or_else(|| budgets.problem.clone());
            let unresolved = facts.iter().any(|pod| pod.workload.is_err());
            let next = PodTable {
                synced,
                at: pods.at,
                problem,
                pods: facts,
            };
            tx.send_if_modified(|present| {
                let differs = present.synced != next.synced
                    || present.problem != next.problem
                    || present.at != next.at
                    || present.pods != next.pods;
                if differs {
                    *present = Arc::new(next);
                }
                differs
            });
            let namespaces: BTreeSet<&String> = pods
                .pods
                .values()
                .map(|pod| &pod.facts.id.namespace)
                .collect();
            tokio::select! {
                () = book.changed.notified() => {}
                () = changed_in(&mut table, &budgets, &namespaces) => {}
                // A Pod waits for it, and nothing else may happen.
                () = tokio::time::sleep(LOOKUP_RETRY), if unresolved => {}
            }
        }
    };
    tokio::select! {
        () = tx.closed() => {}
        never = follow => match never {},
        () = publish => {}
    }
}

/// Waits until the budgets of one of these namespaces change, or how they are known.
async fn changed_in(
    table: &mut watch::Receiver<Arc<BudgetTable>>,
    before: &BudgetTable,
    namespaces: &BTreeSet<&String>,
) {
    loop {
        if table.changed().await.is_err() {
            // The feed outlives its users; without it there is nothing more to wait for here.
            return std::future::pending().await;
        }
        let now = table.borrow_and_update();
        let concerns = now.synced != before.synced
            || now.problem != before.problem
            || namespaces.iter().any(|namespace| {
                match (
                    now.namespaces.get(*namespace),
                    before.namespaces.get(*namespace),
                ) {
                    (Some(now), Some(before)) => !Arc::ptr_eq(now, before),
                    (None, None) => false,
                    (Some(_), None) | (None, Some(_)) => true,
                }
            });
        if concerns {
            return;
        }
    }
}

/// The facts of a Node's Pods as they were made last. Tables are made several times a second, and each change of a
/// budget makes those of every Node with Pods in its namespace: only what that touches is made anew, and whole
/// copies of hundreds of Pods would be spread all over the memory.
#[derive(Default)]
struct Made {
    pods: BTreeMap<Uid, MadePod>,
    budgets: Arc<BudgetTable>,
}

struct MadePod {
    from: Arc<SeenPod>,
    facts: Arc<PodFacts>,
    /// When what was looked up for it was asked for.
    at: Instant,
}

impl Made {
    /// The facts of these Pods, complete, in the order of their UIDs.
    async fn again(
        &mut self,
        lookups: &Lookups,
        pods: &Pods,
        budgets: &Arc<BudgetTable>,
    ) -> Vec<Arc<PodFacts>> {
        let changed = changed_budgets(&self.budgets, budgets);
        let mut before = std::mem::take(&mut self.pods);
        let mut complete = Vec::with_capacity(pods.pods.len());
        for (uid, pod) in &pods.pods {
            let had = before.remove(uid);
            let next = match had {
                Some(had) if had.is_still_true(pod, &changed) => had,
                had => {
                    let at = Instant::now();
                    let facts = lookups.complete_one(pod, budgets).await;
                    let same = had.map(|had| had.facts).filter(|had| **had == facts);
                    MadePod {
                        from: Arc::clone(pod),
                        facts: same.unwrap_or_else(|| Arc::new(facts)),
                        at,
                    }
                }
            };
            complete.push(Arc::clone(&next.facts));
            self.pods.insert(uid.clone(), next);
        }
        self.budgets = Arc::clone(budgets);
        complete
    }
}

impl MadePod {
    /// Whether nothing of it can be otherwise now: the Pod is the same, no budget that covers it has changed or
    /// does so only now, and what was looked up need not be asked again.
    fn is_still_true(&self, pod: &Arc<SeenPod>, changed: &[&SeenBudget]) -> bool {
        Arc::ptr_eq(&self.from, pod)
            && self.facts.workload.is_ok()
            && self.at.elapsed() < LOOKUP_RETRY
            && !changed.iter().any(|budget| budget.covers(pod))
    }
}

/// The budgets that are otherwise than they were, each as it was and as it is: it may cover other Pods now.
fn changed_budgets<'a>(before: &'a BudgetTable, now: &'a BudgetTable) -> Vec<&'a SeenBudget> {
    static NONE: Budgets = Budgets::new();
    let names: BTreeSet<&String> = before
        .namespaces
        .keys()
        .chain(now.namespaces.keys())
        .collect();
    let mut changed = Vec::new();
    for name in names {
        let (had, has) = (before.namespaces.get(name), now.namespaces.get(name));
        if let (Some(had), Some(has)) = (had, has)
            && Arc::ptr_eq(had, has)
        {
            continue;
        }
        let had = had.map_or(&NONE, Arc::as_ref);
        let has = has.map_or(&NONE, Arc::as_ref);
        let differs = |one: &Arc<SeenBudget>, others: &Budgets| {
            !others
                .get(&one.name)
                .is_some_and(|other| Arc::ptr_eq(one, other))
        };
        changed.extend(
            had.values()
                .filter(|one| differs(one, has))
                .map(Arc::as_ref),
        );
        changed.extend(
            has.values()
                .filter(|one| differs(one, had))
                .map(Arc::as_ref),
        );
    }
    changed
}

/// What has to be asked of the API server beside the Pods themselves, remembered for a while.
pub(super) struct Lookups {
    pub(super) client: Client,
    pub(super) rate: Arc<Rate>,
    known: Mutex<HashMap<Question, (Instant, Found)>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Question {
    /// Whether the DaemonSet of this namespace, name and UID is gone.
    DaemonSetGone(String, String, Uid),
    /// What is behind this claim of this namespace.
    Claim(String, String),
    /// The controller of the ReplicaSet of this namespace, name and UID.
    Controller(String, String, Uid),
}

/// What a look-up says.
#[derive(Clone, Debug, PartialEq)]
enum Found {
    DaemonSet {
        gone: bool,
    },
    Claim(SeenClaim),
    /// Of a ReplicaSet: the Deployment that it is of, if it is of one; or why that is not known.
    Controller(Result<Option<Owner>, String>),
}

/// What is behind a claim.
#[derive(Clone, Debug, PartialEq)]
enum SeenClaim {
    /// Nothing, or nothing yet; it holds no data.
    Unbound,
    /// A volume: whether it exists on one Node only, where it can be reached, if not everywhere, and what is
    /// attached for it.
    Bound {
        local: bool,
        topology: Option<VolumeTopology>,
        volume: Option<Volume>,
    },
    /// It could not be asked.
    Unread,
}

impl Lookups {
    pub(super) fn new(client: Client, rate: Arc<Rate>) -> Self {
        Self {
            client,
            rate,
            known: Mutex::default(),
        }
    }

    /// The facts of these Pods, complete, in the order given.
    pub(super) async fn complete<'a>(
        &self,
        pods: impl Iterator<Item = &'a SeenPod>,
        budgets: &BudgetTable,
    ) -> Vec<PodFacts> {
        let mut complete = Vec::new();
        for pod in pods {
            complete.push(self.complete_one(pod, budgets).await);
        }
        complete
    }

    async fn complete_one(&self, pod: &SeenPod, budgets: &BudgetTable) -> PodFacts {
        let in_namespace = budgets.namespaces.get(&pod.facts.id.namespace);
        let mut facts = pod.facts.clone();
        let budgets = in_namespace.iter().flat_map(|budgets| budgets.values());
        facts.budgets = covering(pod, budgets.map(Arc::as_ref));
        self.look_up(&mut facts, &pod.own_claims).await;
        facts
    }

    async fn look_up(&self, facts: &mut PodFacts, own_claims: &[String]) {
        let daemon_set = facts
            .owner
            .as_ref()
            .filter(|owner| owner.kind == "DaemonSet" && owner.group == "apps");
        if let Some(owner) = daemon_set {
            let question = Question::DaemonSetGone(
                facts.id.namespace.clone(),
                owner.name.clone(),
                owner.uid.clone(),
            );
            let found = self.ask(question).await;
            facts.daemon_set_gone = matches!(found, Found::DaemonSet { gone: true });
            return;
        }
        if let Some(owner) = facts.owner.as_ref().filter(|owner| is_replica_set(owner)) {
            let question = Question::Controller(
                facts.id.namespace.clone(),
                owner.name.clone(),
                owner.uid.clone(),
            );
            if let Found::Controller(found) = self.ask(question).await {
                facts.workload = found.map(|found| found.or_else(|| facts.owner.clone()));
            }
        }
        // Of Pods that stay anyway nothing more needs to be known.
        if facts.mirror || facts.finished {
            return;
        }
        for claim in &facts.claims {
            let question = Question::Claim(facts.id.namespace.clone(), claim.clone());
            let Found::Claim(seen) = self.ask(question).await else {
                continue;
            };
            let lasting = !own_claims.contains(claim);
            match seen {
                SeenClaim::Bound {
                    local,
                    topology,
                    volume,
                } => {
                    facts.local_volumes |= local;
                    if lasting {
                        facts.needs.volumes.extend(topology);
                        facts.volumes.extend(volume);
                    }
                }
                // Where it will be bound is not known, or whether at all.
                SeenClaim::Unbound if lasting => {
                    let what = format!("claim {claim}, which is not bound,");
                    facts.needs.uncountable.push(what);
                }
                SeenClaim::Unbound => {}
                // Counts as what leaves the Pod where it is.
                SeenClaim::Unread => {
                    facts.local_volumes = true;
                    let what = format!("claim {claim}, which could not be read,");
                    facts.needs.uncountable.push(what);
                }
            }
        }
    }

    async fn ask(&self, question: Question) -> Found {
        let now = Instant::now();
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((until, answer)) = known.get(&question)
                && *until > now
            {
                return answer.clone();
            }
        }
        let (answer, age_max) =
            match tokio::time::timeout(LOOKUP_LIMIT, self.answer(&question)).await {
                Ok(Ok(answer @ Found::Controller(_))) => (answer, CONTROLLER_AGE_MAX),
                Ok(Ok(answer)) => (answer, LOOKUP_AGE_MAX),
                result => {
                    let error = match result {
                        Ok(Err(error)) => with_remedy(&error),
                        Ok(Ok(_)) | Err(_) => format!("no answer within {LOOKUP_LIMIT:?}"),
                    };
                    // What is not known counts as what leaves the Pod where it is: its DaemonSet is
                    // there, its volume is local.
                    let safe = match &question {
                        Question::DaemonSetGone(..) => Found::DaemonSet { gone: false },
                        Question::Claim(..) => Found::Claim(SeenClaim::Unread),
                        // To take the ReplicaSet for it would be to forget what was asked of the Deployment.
                        Question::Controller(..) => Found::Controller(Err(error.clone())),
                    };
                    warn!(question = ?question, error, "look-up failed");
                    (safe, LOOKUP_RETRY)
                }
            };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= LOOKUPS_MAX {
            known.retain(|_, (until, _)| *until > now);
        }
        if known.len() < LOOKUPS_MAX {
            known.insert(question, (now + age_max, answer.clone()));
        }
        answer
    }

    async fn answer(&self, question: &Question) -> Result<Found, kube::Error> {
        self.rate.turn().await;
        match question {
            Question::DaemonSetGone(namespace, name, uid) => {
                let api: Api<DaemonSet> = Api::namespaced(self.client.clone(), namespace);
                let found = api.get_metadata_opt(name).await?;
                let gone =
                    found.is_none_or(|found| found.metadata.uid.as_deref() != Some(uid.as_str()));
                Ok(Found::DaemonSet { gone })
            }
            Question::Controller(namespace, name, uid) => {
                let api: Api<ReplicaSet> = Api::namespaced(self.client.clone(), namespace);
                let found = api.get_metadata_opt(name).await?;
                let found =
                    found.filter(|found| found.metadata.uid.as_deref() == Some(uid.as_str()));
                let references = found.and_then(|found| found.metadata.owner_references);
                let controller = controller(references.as_deref().unwrap_or_default());
                // Of other kinds it is not known what they ask for; the ReplicaSet says it for itself.
                let known =
                    controller.filter(|owner| owner.group == "apps" && owner.kind == "Deployment");
                Ok(Found::Controller(Ok(known)))
            }
            Question::Claim(namespace, name) => {
                let api: Api<PersistentVolumeClaim> =
                    Api::namespaced(self.client.clone(), namespace);
                let unbound = Ok(Found::Claim(SeenClaim::Unbound));
                let Some(claim) = api.get_opt(name).await? else {
                    return unbound;
                };
                let Some(volume) = claim.spec.and_then(|spec| spec.volume_name) else {
                    return unbound;
                };
                let api: Api<PersistentVolume> = Api::all(self.client.clone());
                let Some(found) = api.get_opt(&volume).await? else {
                    return unbound;
                };
                Ok(Found::Claim(SeenClaim::Bound {
                    local: is_local(&found),
                    topology: needs::topology(name, &found),
                    volume: volumes::volume(namespace, name, &found),
                }))
            }
        }
    }
}

/// Whether a volume exists on one Node only: by its kind, or because its affinity names Nodes. An
/// affinity to a zone does not: the volume moves within it.
fn is_local(volume: &PersistentVolume) -> bool {
    let Some(spec) = &volume.spec else {
        return false;
    };
    if spec.local.is_some() || spec.host_path.is_some() {
        return true;
    }
    let required = spec
        .node_affinity
        .as_ref()
        .and_then(|affinity| affinity.required.as_ref());
    required
        .into_iter()
        .flat_map(|required| &required.node_selector_terms)
        .any(|term| {
            let expressions = term.match_expressions.iter().flatten();
            let fields = term.match_fields.iter().flatten();
            let names_nodes = |key: &str| {
                // `kubernetes.io/hostname`, and what CSI drivers of local disks use, such as
                // `topology.topolvm.io/node` and `topology.hostpath.csi/node`.
                let name = key.rsplit('/').next().unwrap_or(key);
                matches!(name, "hostname" | "node" | "nodename" | "metadata.name")
            };
            expressions
                .chain(fields)
                .any(|requirement| names_nodes(&requirement.key))
        })
}

#[cfg(test)]
mod tests {
    use foreshock_core::drain::EvictionAllowance;
    use serde_json::{Value, json};
    use wiremock::matchers::{method, path};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;

    /// Of a ReplicaSet that cannot be read nobody knows which Deployment it is of. To take it for its own
    /// workload would be to forget what was asked of the Deployment.
    #[tokio::test]
    async fn a_pod_belongs_to_its_deployment_or_to_nobody_knows_whom() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": "p", "uid": "p", "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "rs", "controller": true},
            ]},
            "spec": {"containers": []},
        }))
        .expect("a Pod");
        let pod = seen(&pod, &Surroundings::default()).expect("named");
        let belongs_to = async |code: u16, body: Value| {
            let server = MockServer::start().await;
            Mock::given(method("GET"))
                .and(path("/apis/apps/v1/namespaces/shop/replicasets/web-1"))
                .respond_with(ResponseTemplate::new(code).set_body_json(body))
                .mount(&server)
                .await;
            let config = kube::Config::new(server.uri().parse().expect("a URL"));
            let client = Client::try_from(config).expect("a client");
            let lookups = Lookups::new(client, Arc::new(Rate::per_second(1000)));
            let facts = lookups
                .complete([&pod].into_iter(), &BudgetTable::default())
                .await;
            facts[0]
                .workload
                .clone()
                .map(|owner| owner.map(|owner| owner.to_string()))
        };
        let replica_set = |uid: &str, owner: Value| {
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                "metadata": {"name": "web-1", "uid": uid, "ownerReferences": owner}})
        };
        let deployment = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d", "controller": true}]);
        let known = |name: &str| Ok(Some(name.to_owned()));
        assert_eq!(
            belongs_to(200, replica_set("rs", deployment.clone())).await,
            known("Deployment/web")
        );
        assert_eq!(
            belongs_to(200, replica_set("rs", json!([]))).await,
            known("ReplicaSet/web-1")
        );
        assert_eq!(
            belongs_to(200, replica_set("another", deployment)).await,
            known("ReplicaSet/web-1")
        );
        let status = |code: u16| json!({"kind": "Status", "status": "Failure", "code": code, "message": "no", "reason": ""});
        let problem = belongs_to(403, status(403)).await.expect_err("forbidden");
        assert_eq!(problem, "no; apply the roles in deploy/kustomize/base");
        belongs_to(500, status(500)).await.expect_err("not known");
    }

    #[test]
    fn a_volume_on_one_node_is_told_from_one_in_a_zone() {
        let check = |spec: Value, local: bool| {
            let volume: PersistentVolume =
                serde_json::from_value(json!({"metadata": {}, "spec": spec})).expect("a volume");
            assert_eq!(is_local(&volume), local, "{spec}");
        };
        let affine = |key: &str| json!({"csi": {"driver": "d", "volumeHandle": "h"}, "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": key, "operator": "In", "values": ["x"]}]}]}}});
        check(json!({"local": {"path": "/mnt"}}), true);
        check(json!({"hostPath": {"path": "/mnt"}}), true);
        check(affine("kubernetes.io/hostname"), true);
        check(affine("topology.topolvm.io/node"), true);
        check(affine("topology.kubernetes.io/zone"), false);
        check(json!({"csi": {"driver": "d", "volumeHandle": "h"}}), false);
    }

    fn budget(namespace: &str, app: &str, allowed: i32) -> SeenBudget {
        let pdb: PodDisruptionBudget = serde_json::from_value(json!({
            "metadata": {"namespace": namespace, "name": app},
            "spec": {"selector": {"matchLabels": {"app": app}}},
            "status": {"disruptionsAllowed": allowed, "currentHealthy": 3, "desiredHealthy": 2, "expectedPods": 3},
        }))
        .expect("a budget");
        SeenBudget::from(&pdb).expect("named")
    }

    fn table_of(budgets: Vec<SeenBudget>, before: &BudgetTable) -> Arc<BudgetTable> {
        let mut table = before.clone();
        for item in budgets {
            let version = String::new();
            see_budget(&mut table, Seen::Applied { item, version });
        }
        Arc::new(table)
    }

    /// Only what a budget touches is made anew; and nothing is missed of what is touched.
    #[tokio::test(start_paused = true)]
    async fn a_budget_that_changes_makes_the_facts_of_its_own_pods_anew() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let pod = |name: &str, app: &str| {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {"namespace": "shop", "name": name, "uid": name, "labels": {"app": app}},
                "spec": {"containers": []},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
            }))
            .expect("a Pod");
            let seen = seen(&pod, &Surroundings::default()).expect("named");
            (seen.facts.id.uid.clone(), Arc::new(seen))
        };
        let config = kube::Config::new("http://127.0.0.1:9".parse().expect("a URL"));
        let client = Client::try_from(config).expect("a client");
        let lookups = Lookups::new(client, Arc::new(Rate::per_second(1000)));
        let mut pods = Pods {
            pods: [pod("p1", "a"), pod("p2", "b")].into(),
            ..Pods::default()
        };
        let mut made = Made::default();
        let allowed = |facts: &PodFacts| {
            let budgets = facts.budgets.iter();
            let each = budgets.map(|budget| (budget.name.clone(), budget.allowance));
            each.collect::<Vec<_>>()
        };
        let now = |app: &str, n: u32| vec![(app.to_owned(), EvictionAllowance::Now(n))];

        let none = Arc::new(BudgetTable::default());
        let first = made.again(&lookups, &pods, &none).await;
        assert!(first.iter().all(|facts| facts.budgets.is_empty()));
        // A budget that is new, and one elsewhere.
        let table = table_of(vec![budget("shop", "a", 0), budget("other", "b", 0)], &none);
        let second = made.again(&lookups, &pods, &table).await;
        assert_eq!(allowed(&second[0]), now("a", 0));
        assert!(Arc::ptr_eq(&first[1], &second[1]));
        // It opens.
        let table = table_of(vec![budget("shop", "a", 1), budget("shop", "b", 2)], &table);
        let third = made.again(&lookups, &pods, &table).await;
        assert_eq!(allowed(&third[0]), now("a", 1));
        assert_eq!(allowed(&third[1]), now("b", 2));
        // It is another's now: the same name, another selector.
        let mut other = budget("shop", "b", 1);
        other.name = "a".to_owned();
        let table = table_of(vec![other], &table);
        let fourth = made.again(&lookups, &pods, &table).await;
        assert_eq!(allowed(&fourth[0]), []);
        assert_eq!(fourth[1].budgets.len(), 2);
        // It is gone, and a Pod has another label.
        let mut without = (*table).clone();
        let item = budget("shop", "a", 0);
        let version = String::new();
        assert!(see_budget(&mut without, Seen::Deleted { item, version }));
        pods.pods.extend([pod("p1", "b")]);
        let fifth = made.again(&lookups, &pods, &Arc::new(without)).await;
        assert_eq!(allowed(&fifth[0]), now("b", 2));
        assert_eq!(allowed(&fifth[1]), now("b", 2));
        // A Pod that has left is forgotten.
        pods.pods.remove(&Uid::from("p1"));
        let sixth = made.again(&lookups, &pods, &table).await;
        assert_eq!((sixth.len(), made.pods.len()), (1, 1));
    }

    /// What was looked up is asked again in time, though nothing changes.
    #[tokio::test(start_paused = true)]
    async fn what_was_looked_up_is_not_believed_for_ever() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": "p", "uid": "p", "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "rs", "controller": true},
            ]},
            "spec": {"containers": []},
        }))
        .expect("a Pod");
        let seen = Arc::new(seen(&pod, &Surroundings::default()).expect("named"));
        let uid = seen.facts.id.uid.clone();
        let made = MadePod {
            facts: Arc::new(PodFacts {
                workload: Ok(None),
                ..seen.facts.clone()
            }),
            from: Arc::clone(&seen),
            at: Instant::now(),
        };
        assert!(made.is_still_true(&seen, &[]));
        tokio::time::advance(LOOKUP_RETRY).await;
        assert!(!made.is_still_true(&seen, &[]));
        let unknown = MadePod {
            facts: Arc::new(PodFacts {
                workload: Err("no answer".to_owned()),
                ..seen.facts.clone()
            }),
            at: Instant::now(),
            ..made
        };
        assert!(!unknown.is_still_true(&seen, &[]), "{uid}");
    }

    #[test]
    fn a_budget_that_changes_elsewhere_leaves_the_others_as_they_are() {
        let budget = |namespace: &str, allowed: i32| budget(namespace, "pdb", allowed);
        let applied = |namespace: &str, allowed: i32| Seen::Applied {
            item: budget(namespace, allowed),
            version: String::new(),
        };
        let mut table = BudgetTable::default();
        assert!(see_budget(
            &mut table,
            Seen::Listed {
                items: vec![budget("a", 0), budget("b", 0)],
                version: String::new()
            }
        ));
        let before = table.clone();
        assert!(!see_budget(&mut table, applied("a", 0)));
        assert!(see_budget(&mut table, applied("a", 1)));
        assert!(Arc::ptr_eq(&before.namespaces["b"], &table.namespaces["b"]));
        assert!(!Arc::ptr_eq(
            &before.namespaces["a"],
            &table.namespaces["a"]
        ));
        assert!(see_budget(
            &mut table,
            Seen::Deleted {
                item: budget("b", 0),
                version: String::new()
            }
        ));
        assert!(!see_budget(
            &mut table,
            Seen::Deleted {
                item: budget("c", 0),
                version: String::new()
            }
        ));
    }
}
