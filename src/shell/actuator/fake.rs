//! A small cluster in memory, for the tests of this folder. The simulator has the large one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use foreshock_core::decision::plan::MarkOrder;
use foreshock_core::drain::{
    Answer, Budget, EvictionAllowance, Owner, PodFacts, PodId, Scalable, Volume, Workload,
};
use foreshock_core::node::{NodeId, NodeName, Uid};
use foreshock_core::record::{
    ClusterRecord, DrainRecord, Marks, NodeRecord, RecordedPhase, Taint, TaintEffect,
};
use foreshock_core::time::after;
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::clock::{Clock, VirtualClock};
use crate::kubernetes::{
    Cluster, ClusterError, ClusterEvent, Guard, LeaseState, LeaseView, LeaseWrite, NodeEntry,
    NodeTable, PodTable, WorkloadState, marks, record,
};

/// When the tests begin.
pub(super) const START: Timestamp = Timestamp::constant(1_800_000_000, 0);

/// One write that reached the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Write {
    Mark(String),
    Evict(String),
    Lease,
    Event(&'static str),
    /// A Deployment, and how many it asks for from then on.
    Scale(String, u32),
}

/// What goes wrong with a scaling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScaleFault {
    /// It takes place, and its answer is lost.
    Lost,
    /// It does not take place.
    Refused,
    /// Somebody else has just written the Deployment.
    Conflict,
}

pub(super) struct Fake {
    pub(super) clock: Arc<VirtualClock>,
    inner: Mutex<Inner>,
    nodes: watch::Sender<Arc<NodeTable>>,
    lease: watch::Sender<LeaseState>,
}

#[derive(Default)]
pub(super) struct Inner {
    documents: BTreeMap<NodeName, Value>,
    version: u64,
    tables: BTreeMap<NodeName, watch::Sender<Arc<PodTable>>>,
    workloads: BTreeMap<Uid, watch::Sender<WorkloadState>>,
    /// Deployments by UID.
    pub(super) deployments: BTreeMap<Uid, Scalable>,
    /// How long the second Pod of a Deployment takes to be Ready on the Node `b`; `None` for ever.
    pub(super) second_after: Option<Duration>,
    /// What the next scalings are answered beyond a success.
    pub(super) scale_fails: VecDeque<ScaleFault>,
    /// Every write that arrived, with the time on the boot clock.
    pub(super) writes: Vec<(Duration, Write)>,
    /// What was said of Nodes.
    pub(super) said: Vec<ClusterEvent>,
    /// Workloads that were followed, though no drain waited for them.
    pub(super) followed: Vec<Uid>,
    /// Claims whose volumes are attached to any Node that is asked about.
    pub(super) attached: BTreeSet<String>,
    /// Whether a volume is attached cannot be read.
    pub(super) attached_fails: bool,
    /// Claims whose volumes were asked about, each time.
    pub(super) attached_asked: Vec<String>,
    /// Pods that were read afresh.
    pub(super) reads: Vec<String>,
    /// What the next evictions of a Pod are answered; accepted when there is nothing.
    pub(super) answers: BTreeMap<String, VecDeque<Answer>>,
    /// How long the answer to a write takes. The write takes place before.
    pub(super) slow: Duration,
    /// How long an evicted Pod takes to go; `None` for ever.
    pub(super) gone_after: Option<Duration>,
    /// Marks of these Nodes fail.
    pub(super) marks_fail: Vec<String>,
    /// Writes of the Lease fail.
    pub(super) lease_fails: bool,
    /// Pods cannot be listed.
    pub(super) pods_fail: bool,
    /// Whoever reads a Pod finds it on its way out.
    pub(super) reads_terminating: bool,
    /// How much longer the answer to a mark takes than that to another write.
    pub(super) marking_takes: Duration,
    /// How long a Pod or a Deployment takes to be read.
    pub(super) reading_takes: Duration,
    /// The next eviction brings its task down.
    pub(super) evict_panics: bool,
}

impl Fake {
    pub(super) fn new() -> Arc<Self> {
        let inner = Inner {
            gone_after: Some(Duration::from_secs(1)),
            second_after: Some(Duration::from_secs(2)),
            ..Inner::default()
        };
        Arc::new(Self {
            clock: Arc::new(VirtualClock::new(START)),
            inner: Mutex::new(inner),
            nodes: watch::channel(Arc::new(NodeTable {
                synced: true,
                ..NodeTable::default()
            }))
            .0,
            lease: watch::channel(LeaseState::Absent).0,
        })
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("not poisoned")
    }

    /// The Node `name` with this record, and the marks that it says.
    pub(super) fn node(&self, name: &str, record: Option<&NodeRecord>) {
        let mut document = json!({
            "metadata": {"name": name, "uid": format!("uid-{name}"), "annotations": {}},
            "spec": {},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        if let Some(record) = record {
            document["metadata"]["annotations"]["foreshock.dev/state"] =
                json!(record::encode(record).expect("fits"));
            if let Some(taint) = &record.marks.taint {
                document["spec"]["taints"] = json!([{"key": taint.key, "value": taint.value, "effect": taint.effect.as_str()}]);
            }
        }
        self.put(name, document);
    }

    /// As a person does who removes every taint of a Node.
    pub(super) fn untaint(&self, name: &str) {
        self.change_node(name, |node| node["spec"] = json!({}));
    }

    /// Changes the Node, as others than foreshock do.
    pub(super) fn change_node(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut document = self.inner().documents[name].clone();
        change(&mut document);
        self.put(name, document);
    }

    pub(super) fn delete_node(&self, name: &str) {
        self.inner().documents.remove(&NodeName::from(name));
        self.nodes.send_modify(|table| {
            Arc::make_mut(table).nodes.remove(&NodeName::from(name));
        });
    }

    fn put(&self, name: &str, mut document: Value) -> NodeEntry {
        let mut inner = self.inner();
        inner.version += 1;
        document["metadata"]["resourceVersion"] = json!(inner.version.to_string());
        inner
            .documents
            .insert(NodeName::from(name), document.clone());
        drop(inner);
        let entry = marks_read(&document);
        self.nodes.send_modify(|table| {
            Arc::make_mut(table)
                .nodes
                .insert(NodeName::from(name), Arc::new(entry.clone()));
        });
        entry
    }

    pub(super) fn record(&self, name: &str) -> Option<NodeRecord> {
        self.nodes.borrow().nodes[name].facts.record.ours().cloned()
    }

    /// How it stands with the ReplicaSet of every [`pod`], as its watch shows it.
    pub(super) fn set_workload(&self, seen: Workload) {
        let mut inner = self.inner();
        let sender = inner.workloads.entry(Uid::from("rs")).or_default();
        sender.send_replace(Some(Ok(seen)));
    }

    /// The Deployment `web` with one replica, whose Pod is `pod` on the Node `a`.
    pub(super) fn deployment(&self, pod: &str) {
        let one = Scalable {
            replicas: 1,
            version: "1".to_owned(),
            ..Scalable::default()
        };
        self.inner().deployments.insert(Uid::from("web"), one);
        let uid = Uid::from(format!("uid-{pod}"));
        self.change_workload(|seen| {
            seen.wanted = Some(1);
            seen.ready.insert(uid.clone());
            seen.on.insert(uid, NodeName::from("a"));
        });
    }

    /// How many `web` asks for.
    pub(super) fn replicas(&self) -> u32 {
        self.inner().deployments[&Uid::from("web")].replicas
    }

    /// As another than foreshock does.
    pub(super) fn scale_by_hand(&self, replicas: u32) {
        let version = self.next_version();
        let mut inner = self.inner();
        let web = inner.deployments.get_mut(&Uid::from("web")).expect("there");
        (web.replicas, web.by_us, web.version) = (replicas, Some(false), version);
        drop(inner);
        self.change_workload(|seen| seen.wanted = Some(replicas));
    }

    /// Changes what the watch of `web` shows.
    pub(super) fn change_workload(&self, change: impl FnOnce(&mut Workload)) {
        let mut inner = self.inner();
        let sender = inner.workloads.entry(Uid::from("web")).or_default();
        sender.send_modify(|state| {
            let seen = state.get_or_insert_with(|| Ok(Workload::default()));
            change(seen.as_mut().expect("it can be looked at"));
        });
    }

    /// The same for any other workload.
    pub(super) fn set_other_workload(&self, uid: &str, seen: Workload) {
        let mut inner = self.inner();
        let sender = inner.workloads.entry(Uid::from(uid)).or_default();
        sender.send_replace(Some(Ok(seen)));
    }

    /// The workloads that somebody looks at.
    pub(super) fn looked_at(&self) -> Vec<String> {
        let inner = self.inner();
        let workloads = inner.workloads.iter();
        let looked_at = workloads.filter(|(_, sender)| sender.receiver_count() > 0);
        looked_at.map(|(uid, _)| uid.to_string()).collect()
    }

    /// A look at the ReplicaSet that begins from now on sees nothing until [`Self::set_workload`].
    pub(super) fn forget_workload(&self) {
        self.inner().workloads.remove(&Uid::from("rs"));
    }

    /// Has every watch of a workload say again what it shows.
    pub(super) fn touch_workloads(&self) {
        for sender in self.inner().workloads.values() {
            sender.send_modify(|_| ());
        }
    }

    /// Ready Pods of `web`, terminating ones left out.
    pub(super) fn ready(&self) -> usize {
        let inner = self.inner();
        let state = inner.workloads[&Uid::from("web")].borrow();
        let seen = state.as_ref().expect("seen");
        seen.as_ref().expect("it can be looked at").ready.len()
    }

    /// How many listen to how it stands with that ReplicaSet.
    pub(super) fn listeners(&self) -> usize {
        let inner = self.inner();
        let sender = inner.workloads.get(&Uid::from("rs"));
        sender.map_or(0, watch::Sender::receiver_count)
    }

    /// Sets the Pods of a Node, as its watch shows them.
    pub(super) fn set_pods(&self, node: &str, pods: Vec<PodFacts>) {
        let now = self.clock.now();
        self.table(node).send_replace(Arc::new(PodTable {
            synced: true,
            at: Some(now),
            problem: None,
            pods: pods.into_iter().map(Arc::new).collect(),
        }));
    }

    pub(super) fn change_pods(&self, node: &str, change: impl FnOnce(&mut PodTable)) {
        self.table(node)
            .send_modify(|table| change(Arc::make_mut(table)));
    }

    pub(super) fn pod_names(&self, node: &str) -> Vec<String> {
        self.table(node)
            .borrow()
            .pods
            .iter()
            .map(|pod| pod.id.name.clone())
            .collect()
    }

    fn table(&self, node: &str) -> watch::Sender<Arc<PodTable>> {
        let mut inner = self.inner();
        inner
            .tables
            .entry(NodeName::from(node))
            .or_insert_with(|| watch::channel(Arc::default()).0)
            .clone()
    }

    /// What a person does to the Lease with kubectl.
    pub(super) fn edit_lease(&self, edit: impl FnOnce(&mut LeaseView)) {
        let version = self.next_version();
        self.lease.send_modify(|state| {
            let LeaseState::Present(view) = state else {
                panic!("no Lease to edit")
            };
            edit(view);
            view.resource_version = version;
        });
    }

    pub(super) fn delete_lease(&self) {
        self.lease.send_replace(LeaseState::Absent);
    }

    pub(super) fn lease_view(&self) -> LeaseView {
        match &*self.lease.borrow() {
            LeaseState::Present(view) => (**view).clone(),
            LeaseState::Absent | LeaseState::Unknown => panic!("no Lease"),
        }
    }

    fn next_version(&self) -> String {
        let mut inner = self.inner();
        inner.version += 1;
        inner.version.to_string()
    }

    fn log(&self, write: Write) -> Duration {
        let at = self.clock.boottime();
        let mut inner = self.inner();
        inner.writes.push((at, write));
        inner.slow
    }

    /// The writes so far, the Lease aside.
    pub(super) fn written(&self) -> Vec<Write> {
        let inner = self.inner();
        inner
            .writes
            .iter()
            .map(|(_, write)| write.clone())
            .filter(|write| *write != Write::Lease)
            .collect()
    }

    pub(super) fn evictions(&self) -> Vec<String> {
        let of = |write| match write {
            Write::Evict(pod) => Some(pod),
            Write::Mark(_) | Write::Lease | Write::Event(_) | Write::Scale(..) => None,
        };
        self.written().into_iter().filter_map(of).collect()
    }

    pub(super) fn marked(&self) -> Vec<String> {
        let of = |write| match write {
            Write::Mark(node) => Some(node),
            Write::Evict(_) | Write::Lease | Write::Event(_) | Write::Scale(..) => None,
        };
        self.written().into_iter().filter_map(of).collect()
    }

    async fn take_time(slow: Duration) {
        if !slow.is_zero() {
            tokio::time::sleep(slow).await;
        }
    }
}

fn marks_read(document: &Value) -> NodeEntry {
    marks::read(document, "foreshock").expect("a Node")
}

/// A merge patch (RFC 7386).
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    let into = into.as_object_mut().expect("made one above");
    for (key, value) in patch {
        if value.is_null() {
            into.remove(key);
        } else {
            merge(into.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

impl Cluster for Fake {
    // The gate is asked by the actuator itself in these tests; the client has its own for the guard.
    fn set_guard(&self, _: Guard) {}

    fn nodes(&self) -> watch::Receiver<Arc<NodeTable>> {
        self.nodes.subscribe()
    }

    fn pods(&self, node: &NodeId) -> BoxFuture<'_, Result<Vec<PodFacts>, ClusterError>> {
        if self.inner().pods_fail {
            return std::future::ready(Err(ClusterError::Failed {
                action: format!("list the Pods of Node {node}"),
                detail: "scripted".to_owned(),
            }))
            .boxed();
        }
        let pods = self.table(node.name.as_str()).borrow().pods.clone();
        let pods = pods.into_iter().map(Arc::unwrap_or_clone).collect();
        std::future::ready(Ok(pods)).boxed()
    }

    fn watch_workload(&self, _: &str, workload: &Owner) -> watch::Receiver<WorkloadState> {
        let mut inner = self.inner();
        let workloads = &mut inner.workloads;
        let sender = workloads.entry(workload.uid.clone()).or_default();
        sender.subscribe()
    }

    fn follow_workload(&self, namespace: &str, workload: &Owner) -> watch::Receiver<WorkloadState> {
        self.inner().followed.push(workload.uid.clone());
        self.watch_workload(namespace, workload)
    }

    fn is_attached(
        &self,
        _: &NodeName,
        volume: &Volume,
    ) -> BoxFuture<'_, Result<bool, ClusterError>> {
        let mut inner = self.inner();
        inner.attached_asked.push(volume.claim.clone());
        let answer = if inner.attached_fails {
            Err(ClusterError::Forbidden {
                action: "get VolumeAttachment".to_owned(),
                detail: "scripted".to_owned(),
            })
        } else {
            Ok(inner.attached.contains(&volume.claim))
        };
        std::future::ready(answer).boxed()
    }

    fn watch_pods(&self, node: &NodeId) -> watch::Receiver<Arc<PodTable>> {
        if self.inner().pods_fail {
            let (tx, rx) = watch::channel(Arc::new(PodTable {
                problem: Some("refused".to_owned()),
                ..PodTable::default()
            }));
            tokio::spawn(async move { tx.closed().await });
            return rx;
        }
        self.table(node.name.as_str()).subscribe()
    }

    fn read_pod(&self, pod: &PodId) -> BoxFuture<'_, Result<Option<PodFacts>, ClusterError>> {
        self.inner().reads.push(pod.name.clone());
        let tables: Vec<_> = self.inner().tables.values().cloned().collect();
        let found = tables.iter().find_map(|table| {
            table
                .borrow()
                .pods
                .iter()
                .find(|facts| facts.id == *pod)
                .cloned()
        });
        let takes = self.inner().reading_takes;
        let mut found = found.map(Arc::unwrap_or_clone);
        if self.inner().reads_terminating {
            let until = after(self.clock.now(), Duration::from_secs(30));
            found = found.map(|facts| PodFacts {
                terminating_until: Some(until),
                ..facts
            });
        }
        async move {
            Self::take_time(takes).await;
            Ok(found)
        }
        .boxed()
    }

    fn deployment(
        &self,
        _: &str,
        deployment: &Owner,
    ) -> BoxFuture<'_, Result<Option<Scalable>, ClusterError>> {
        let found = self.inner().deployments.get(&deployment.uid).cloned();
        let found = found.map(|found| Scalable {
            autoscaler: None,
            ..found
        });
        let takes = self.inner().reading_takes;
        async move {
            Self::take_time(takes).await;
            Ok(found)
        }
        .boxed()
    }

    fn autoscaler(
        &self,
        _: &str,
        deployment: &Owner,
    ) -> BoxFuture<'_, Result<Option<String>, ClusterError>> {
        let found = self.inner().deployments.get(&deployment.uid).cloned();
        std::future::ready(Ok(found.and_then(|found| found.autoscaler))).boxed()
    }

    fn scale(
        &self,
        _: &str,
        deployment: &Owner,
        version: &str,
        replicas: u32,
    ) -> BoxFuture<'_, Result<(), ClusterError>> {
        let (deployment, version) = (deployment.clone(), version.to_owned());
        async move {
            let slow = self.log(Write::Scale(deployment.name.clone(), replicas));
            let fault = self.inner().scale_fails.pop_front();
            self.scales(&deployment, &version, replicas, fault)?;
            Self::take_time(slow).await;
            match fault {
                Some(ScaleFault::Lost) => Err(ClusterError::Timeout {
                    action: format!("scale {deployment}"),
                    limit: Duration::from_secs(8),
                }),
                Some(ScaleFault::Refused | ScaleFault::Conflict) | None => Ok(()),
            }
        }
        .boxed()
    }

    fn mark(&self, order: &MarkOrder) -> BoxFuture<'_, Result<NodeEntry, ClusterError>> {
        let order = order.clone();
        async move {
            let name = order.node.name.to_string();
            let action = format!("mark {name}");
            if self.inner().marks_fail.contains(&name) {
                let slow = self.log(Write::Mark(name));
                Self::take_time(slow).await;
                return Err(ClusterError::Failed {
                    action,
                    detail: "scripted".to_owned(),
                });
            }
            let document = self.inner().documents.get(&order.node.name).cloned();
            let superseded = |detail: String| ClusterError::Superseded {
                object: name.clone(),
                detail,
            };
            let mut document = document.ok_or_else(|| superseded("gone".to_owned()))?;
            let patch = marks::patch_for(&document, &order, "foreshock", self.clock.now())
                .map_err(|problem| superseded(problem.to_string()))?;
            merge(&mut document, &patch);
            let slow = self.log(Write::Mark(name.clone()));
            let more = self.inner().marking_takes;
            let entry = self.put(&name, document);
            Self::take_time(slow + more).await;
            Ok(entry)
        }
        .boxed()
    }

    fn evict(&self, pod: &PodId, _: Option<Duration>) -> BoxFuture<'_, Answer> {
        let pod = pod.clone();
        async move {
            let panics = std::mem::take(&mut self.inner().evict_panics);
            assert!(!panics, "scripted");
            let slow = self.log(Write::Evict(pod.name.clone()));
            let answer = self
                .inner()
                .answers
                .get_mut(&pod.name)
                .and_then(VecDeque::pop_front);
            let answer = answer.unwrap_or(Answer::Accepted);
            let took_place = matches!(&answer, Answer::Accepted)
                || matches!(&answer, Answer::Lost { detail } if detail.contains("took place"));
            if took_place {
                self.terminate(&pod);
            }
            Self::take_time(slow).await;
            answer
        }
        .boxed()
    }

    fn lease(&self) -> watch::Receiver<LeaseState> {
        self.lease.subscribe()
    }

    fn write_lease(&self, write: &LeaseWrite) -> BoxFuture<'_, Result<LeaseView, ClusterError>> {
        let write = write.clone();
        async move {
            let slow = self.log(Write::Lease);
            if self.inner().lease_fails {
                Self::take_time(slow).await;
                return Err(ClusterError::Failed {
                    action: "write the Lease".to_owned(),
                    detail: "scripted".to_owned(),
                });
            }
            let before = match &*self.lease.borrow() {
                LeaseState::Present(view) => Some((**view).clone()),
                LeaseState::Absent | LeaseState::Unknown => None,
            };
            if before.as_ref().map(|view| &view.resource_version) != write.expects.as_ref() {
                return Err(ClusterError::Superseded {
                    object: "Lease".to_owned(),
                    detail: "changed".to_owned(),
                });
            }
            let view = LeaseView {
                holder: write.holder,
                address: write.address,
                duration: write.duration,
                renewed_at: Some(write.renewed_at),
                transitions: write.transitions,
                paused: write.paused,
                record: match write.record {
                    Some(record) => Ok(record),
                    None => before.map_or(Ok(ClusterRecord::default()), |view| view.record),
                },
                resource_version: self.next_version(),
            };
            self.lease
                .send_replace(LeaseState::Present(Box::new(view.clone())));
            Self::take_time(slow).await;
            Ok(view)
        }
        .boxed()
    }

    fn publish(&self, event: &ClusterEvent) -> BoxFuture<'_, Result<(), ClusterError>> {
        self.log(Write::Event(event.reason));
        if event.pod.is_none() {
            self.inner().said.push(event.clone());
        }
        std::future::ready(Ok(())).boxed()
    }
}

impl Fake {
    /// A scaling takes place, unless it is refused.
    fn scales(
        &self,
        deployment: &Owner,
        version: &str,
        replicas: u32,
        fault: Option<ScaleFault>,
    ) -> Result<(), ClusterError> {
        let superseded = ClusterError::Superseded {
            object: deployment.to_string(),
            detail: "changed".to_owned(),
        };
        let next = self.next_version();
        let mut inner = self.inner();
        let found = inner.deployments.get_mut(&deployment.uid);
        let found = found.ok_or_else(|| superseded.clone())?;
        match fault {
            Some(ScaleFault::Conflict) => {
                found.version = next;
                return Err(superseded);
            }
            Some(ScaleFault::Refused) => {
                return Err(ClusterError::Failed {
                    action: format!("scale {deployment}"),
                    detail: "scripted".to_owned(),
                });
            }
            Some(ScaleFault::Lost) | None => {}
        }
        if found.version != version {
            return Err(superseded);
        }
        (found.replicas, found.by_us, found.version) = (replicas, Some(true), next);
        let second_after = inner.second_after.filter(|_| replicas == 2);
        drop(inner);
        self.change_workload(|seen| {
            seen.wanted = Some(replicas);
            // Of two the younger goes.
            if replicas == 1 && seen.ready.len() > 1 {
                seen.ready.remove(&Uid::from("second"));
            }
        });
        let workload = self.inner().workloads[&deployment.uid].clone();
        if let Some(second_after) = second_after {
            tokio::spawn(async move {
                tokio::time::sleep(second_after).await;
                workload.send_modify(|state| {
                    let Some(Ok(seen)) = state else { return };
                    if seen.wanted != Some(2) {
                        return;
                    }
                    seen.ready.insert(Uid::from("second"));
                    seen.on.insert(Uid::from("second"), NodeName::from("b"));
                });
            });
        }
        Ok(())
    }

    /// The Pod is going, and is gone after a while.
    fn terminate(&self, pod: &PodId) {
        let tables: Vec<_> = self.inner().tables.values().cloned().collect();
        let gone_after = self.inner().gone_after;
        let until = after(self.clock.now(), Duration::from_secs(30));
        if self.inner().deployments.contains_key(&Uid::from("web")) {
            self.change_workload(|seen| {
                seen.ready.remove(&pod.uid);
            });
        }
        for table in tables {
            if !table.borrow().pods.iter().any(|facts| facts.id == *pod) {
                continue;
            }
            table.send_modify(|table| {
                for facts in &mut Arc::make_mut(table).pods {
                    if facts.id == *pod {
                        Arc::make_mut(facts).terminating_until.get_or_insert(until);
                    }
                }
            });
            if let Some(gone_after) = gone_after {
                let pod = pod.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(gone_after).await;
                    table.send_modify(|table| {
                        Arc::make_mut(table).pods.retain(|facts| facts.id != pod)
                    });
                });
            }
        }
    }
}

/// A plain Pod of a ReplicaSet, ready, without a budget.
pub(super) fn pod(name: &str) -> PodFacts {
    PodFacts {
        id: PodId {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            uid: Uid::from(format!("uid-{name}")),
        },
        owner: Some(Owner {
            group: "apps".to_owned(),
            kind: "ReplicaSet".to_owned(),
            name: "web".to_owned(),
            uid: Uid::from("rs"),
        }),
        workload: Ok(None),
        daemon_set_gone: false,
        mirror: false,
        finished: false,
        ready: true,
        terminating_until: None,
        finalizers: Vec::new(),
        grace: Duration::from_secs(30),
        empty_dir: false,
        local_volumes: false,
        devices: Vec::new(),
        dependency: None,
        claims: Vec::new(),
        volumes: Vec::new(),
        critical: false,
        opted_out: None,
        tolerates_taint: false,
        own: false,
        budgets: Vec::new(),
        needs: foreshock_core::room::Needs::default(),
    }
}

/// The same under a budget that allows so many disruptions now.
pub(super) fn budgeted(name: &str, allowed: u32) -> PodFacts {
    let budget = Budget {
        name: "pdb".to_owned(),
        allowance: EvictionAllowance::Now(allowed),
        observed: true,
        unsettled: false,
        detail: String::new(),
    };
    PodFacts {
        budgets: vec![budget],
        ..pod(name)
    }
}

pub(super) fn taint() -> Taint {
    Taint {
        key: "degradation".to_owned(),
        value: "true".to_owned(),
        effect: TaintEffect::NoSchedule,
    }
}

/// A record of the Node `name` with our taint.
pub(super) fn tainted(name: &str) -> NodeRecord {
    NodeRecord {
        phase: RecordedPhase::Tainted,
        marks: Marks {
            taint: Some(taint()),
            ..Marks::default()
        },
        ..NodeRecord::clear("foreshock", &Uid::from(format!("uid-{name}")), START)
    }
}

/// The same with a drain that began then.
pub(super) fn draining(name: &str, started_at: Timestamp) -> NodeRecord {
    NodeRecord {
        phase: RecordedPhase::Draining,
        drain: Some(DrainRecord {
            started_at,
            attempts: 1,
            ended: None,
        }),
        ..tainted(name)
    }
}
