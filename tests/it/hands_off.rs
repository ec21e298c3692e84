//! Nothing foreign is lost: thousands of our marks on a real API server, while a co-writer changes the
//! same Nodes before, between and right in the middle of them.
//!
//! The middle is made to happen: the guard, which the client asks at the last moment before a write
//! leaves, lets the co-writer write. Our write then carries a `resourceVersion` that is not the Node's
//! any more, and meets a 409.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use foreshock::clock::{Clock, SystemClock};
use foreshock::core::decision::plan::{Cause, MarkOrder};
use foreshock::core::drain::NodeOutcome;
use foreshock::core::node::NodeId;
use foreshock::core::record::{
    DrainRecord, Marks, NodeRecord, RecordState, RecordedPhase, RiskLabel, Taint, TaintEffect,
};
use foreshock::kubernetes::{
    ByHand as _, Cluster as _, ClusterError, KubeCluster, KubeOptions, record,
};
use http::{Method, Request};
use serde_json::{Map, Value, json};
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use crate::scenario::{ACCOUNT, apply_account};
use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::{figure, init, wait_for};

/// Marks that are tried altogether: a share of what `tests/interleavings` tries.
const INTERLEAVINGS: usize = 2_000;
/// Each Node has a client, a co-writer and a task of its own.
const NODES: usize = 20;
const SEED: u64 = 20_260_101;

const INSTANCE: &str = "foreshock";
const STATE: &str = "foreshock.dev/state";
const RISK: &str = "foreshock.dev/risk";
const OUR_KEY: &str = "degradation";
const SERIAL: &str = "co-writer/serial";

/// Only our own requests, and no bodies: the default of the bed would be hundreds of megabytes here.
const AUDIT_POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  users: ["system:serviceaccount:foreshock:foreshock"]
  verbs: [create, update, patch, delete]
- level: None
"#;

// ---- chance ----

/// SplitMix64: small, and the same on every machine.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        let at = self.below(all.len() as u64);
        all[usize::try_from(at).expect("an index")]
    }
}

// ---- the judge: what of a Node is not ours; shares no code with the program ----

/// Our record, if the annotation is one of ours for this very Node.
fn our_record(node: &Value) -> Option<Value> {
    let text = node["metadata"]["annotations"][STATE].as_str()?;
    let record: Value = serde_json::from_str(text).ok()?;
    let ours = record["version"] == 1
        && record["instance"] == INSTANCE
        && record["uid"] == node["metadata"]["uid"];
    ours.then_some(record)
}

/// The Node without what changes by itself, and without what our record there says is ours. A mark that
/// no record explains counts as foreign, and so would one that we left behind.
fn foreign(node: &Value) -> Value {
    let marks = our_record(node).map(|record| record["marks"].clone());
    let marks = marks.unwrap_or_default();
    let mut rest = whole(node);
    if our_record(node).is_some() {
        remove(&mut rest["metadata"]["annotations"], STATE);
    }
    let is_ours = |taint: &Value| {
        [&marks["taint"], &marks["caution_taint"]]
            .iter()
            .any(|mark| {
                !mark.is_null()
                    && ["key", "value", "effect"]
                        .iter()
                        .all(|part| taint[part] == mark[part])
            })
    };
    if let Some(taints) = rest["spec"]["taints"].as_array_mut() {
        taints.retain(|taint| !is_ours(taint));
    }
    if !marks["label"].is_null() && rest["metadata"]["labels"][RISK] == marks["label"] {
        match &marks["label_before"] {
            Value::Null => remove(&mut rest["metadata"]["labels"], RISK),
            before => rest["metadata"]["labels"][RISK] = before.clone(),
        }
    }
    rest
}

/// The Node without what the control plane changes by itself: versions, heartbeats, and the taints by
/// which it repeats a condition or a cordon.
fn whole(node: &Value) -> Value {
    let mut node = node.clone();
    remove(&mut node, "status");
    for field in ["resourceVersion", "managedFields", "generation"] {
        remove(&mut node["metadata"], field);
    }
    for field in ["annotations", "labels"] {
        if node["metadata"][field].is_null() {
            node["metadata"][field] = json!({});
        }
    }
    if let Some(annotations) = node["metadata"]["annotations"].as_object_mut() {
        annotations.retain(|name, _| !name.starts_with("node.alpha.kubernetes.io/"));
    }
    let mut taints = node["spec"]["taints"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    taints.retain(|taint| {
        !taint["key"]
            .as_str()
            .is_some_and(|key| key.starts_with("node.kubernetes.io/"))
    });
    // The order of the list means nothing to Kubernetes.
    taints.sort_by_key(Value::to_string);
    node["spec"]["taints"] = Value::Array(taints);
    node
}

fn remove(object: &mut Value, field: &str) {
    if let Some(object) = object.as_object_mut() {
        object.remove(field);
    }
}

// ---- the co-writer ----

/// Somebody else with rights on Nodes. It writes whole Nodes under their `resourceVersion`, as a
/// well-behaved controller does: what gets lost is lost by us.
struct CoWriter {
    client: kube::Client,
    path: String,
    dice: Dice,
    serial: u64,
    /// What the Node has to look like but for what is ours.
    model: Value,
    /// The Node as it was last read or written here.
    last: Value,
    /// The last things it did, for the message of a failure.
    did: Vec<String>,
}

impl CoWriter {
    async fn start(client: kube::Client, node: &str, seed: u64) -> Self {
        let mut this = Self {
            client,
            path: format!("/api/v1/nodes/{node}"),
            dice: Dice(seed),
            serial: 0,
            model: Value::Null,
            last: Value::Null,
            did: Vec::new(),
        };
        let node = this.get().await;
        this.model = foreign(&node);
        this.last = node;
        this
    }

    async fn send(&self, method: Method, body: Vec<u8>) -> Result<Value, kube::Error> {
        let request = Request::builder()
            .method(method)
            .uri(&self.path)
            .header("content-type", "application/json")
            .body(body)
            .expect("the request is well formed");
        self.client.request(request).await
    }

    async fn get(&self) -> Value {
        self.send(Method::GET, Vec::new())
            .await
            .unwrap_or_else(|error| panic!("GET {}: {error}", self.path))
    }

    /// Reads the Node, and panics if anything foreign is not as it was left.
    async fn look(&mut self) -> Value {
        let node = self.get().await;
        let found = foreign(&node);
        assert!(
            found == self.model,
            "{}: foreign marks are not as they were left\nwritten: {}\nfound:   {found}\nthe Node: {}\nlast: {:#?}",
            self.path,
            self.model,
            whole(&node),
            self.did,
        );
        self.last = node.clone();
        node
    }

    /// Changes one to three things in one write.
    async fn write(&mut self) {
        // Others write Nodes too; a heartbeat comes every few seconds.
        for _ in 0..20 {
            let mut node = self.look().await;
            self.serial += 1;
            self.did.push(format!("write {}", self.serial));
            node["metadata"]["annotations"][SERIAL] = json!(self.serial.to_string());
            for _ in 0..=self.dice.below(3) {
                self.change(&mut node);
            }
            match self.send(Method::PUT, node.to_string().into_bytes()).await {
                Ok(written) => {
                    self.model = foreign(&written);
                    self.last = written;
                    let old = self.did.len().saturating_sub(40);
                    self.did.drain(..old);
                    return;
                }
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => panic!("PUT {}: {error}\n{node}", self.path),
            }
        }
        panic!("{} changes faster than it can be written", self.path);
    }

    /// Ends whatever keeps us from writing at all, so that the rest of the run is not spent on refusals.
    async fn make_way(&mut self) {
        for _ in 0..20 {
            let mut node = self.look().await;
            let ours = our_record(&node).is_some();
            let annotations = &mut node["metadata"]["annotations"];
            for name in ["exclude", "hold-until"] {
                remove(annotations, &format!("foreshock.dev/{name}"));
            }
            if !ours {
                remove(annotations, STATE);
                remove(&mut node["metadata"]["labels"], RISK);
            }
            for taint in taints_of(&node) {
                let key = taint["key"].as_str().unwrap_or_default();
                if key.starts_with("ToBeDeleted")
                    || key == OUR_KEY && (!ours || taint["value"] == "theirs")
                {
                    set_taint(&mut node, key, taint["effect"].as_str().unwrap_or(""), None);
                }
            }
            if node == self.last {
                return;
            }
            self.did.push("make way".to_owned());
            match self.send(Method::PUT, node.to_string().into_bytes()).await {
                Ok(written) => {
                    self.model = foreign(&written);
                    self.last = written;
                    return;
                }
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => panic!("PUT {}: {error}\n{node}", self.path),
            }
        }
        panic!("{} changes faster than it can be written", self.path);
    }

    fn change(&mut self, node: &mut Value) {
        let dice = &mut self.dice;
        let effect = dice.one_of(&["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        let value = format!("v{}", dice.below(4));
        let name = format!("co-writer/{}", dice.below(4));
        let kind = dice.below(100);
        let did = match kind {
            0..30 => {
                let key = format!("co-writer-{}", dice.below(4));
                set_taint(node, &key, effect, Some(&value));
                format!("taint {key}={value}:{effect}")
            }
            30..42 => {
                let taints = taints_of(node);
                let theirs: Vec<&str> = taints
                    .iter()
                    .filter_map(|taint| taint["key"].as_str())
                    .filter(|key| key.starts_with("co-writer-"))
                    .collect();
                match theirs.is_empty() {
                    true => return,
                    false => {
                        let key = dice.one_of(&theirs);
                        for effect in ["NoSchedule", "PreferNoSchedule", "NoExecute"] {
                            set_taint(node, key, effect, None);
                        }
                        format!("no taint {key}")
                    }
                }
            }
            42..50 => {
                let cordon = dice.percent(50);
                node["spec"]["unschedulable"] = json!(cordon);
                format!("cordoned {cordon}")
            }
            50..60 => {
                node["metadata"]["labels"][&name] = json!(value);
                format!("label {name}={value}")
            }
            60..65 => {
                remove(&mut node["metadata"]["labels"], &name);
                format!("no label {name}")
            }
            65..75 => {
                node["metadata"]["annotations"][&name] = json!(value);
                format!("annotation {name}={value}")
            }
            75..80 => {
                remove(&mut node["metadata"]["annotations"], &name);
                format!("no annotation {name}")
            }
            80..85 => {
                for effect in ["NoSchedule", "PreferNoSchedule", "NoExecute"] {
                    set_taint(node, OUR_KEY, effect, None);
                }
                "our taints removed".to_owned()
            }
            85..88 => {
                set_taint(node, OUR_KEY, effect, Some("theirs"));
                format!("taint {OUR_KEY}=theirs:{effect}")
            }
            88..91 => {
                let value = dice.one_of(&["theirs", "caution", "at-risk"]);
                node["metadata"]["labels"][RISK] = json!(value);
                format!("label {RISK}={value}")
            }
            91..93 => {
                remove(&mut node["metadata"]["labels"], RISK);
                "our label removed".to_owned()
            }
            93..95 => {
                let until = dice.one_of(&[
                    "2020-01-01T00:00:00Z",
                    "2999-01-01T00:00:00Z",
                    "when I say so",
                ]);
                node["metadata"]["annotations"]["foreshock.dev/hold-until"] = json!(until);
                format!("hold-until {until}")
            }
            95 => {
                node["metadata"]["annotations"]["foreshock.dev/exclude"] = json!("true");
                "exclude".to_owned()
            }
            96 => {
                set_taint(
                    node,
                    "ToBeDeletedByClusterAutoscaler",
                    "NoSchedule",
                    Some("1"),
                );
                "taken by cluster-autoscaler".to_owned()
            }
            97 => {
                remove(&mut node["metadata"]["annotations"], STATE);
                "our record removed".to_owned()
            }
            98 => {
                let text = dice.one_of(&["{", "", "{\"version\":2,\"instance\":\"foreshock\"}"]);
                node["metadata"]["annotations"][STATE] = json!(text);
                format!("our record damaged: {text:?}")
            }
            _ => {
                let uid = node["metadata"]["uid"].clone();
                let record = json!({"version": 1, "instance": "another", "uid": uid, "phase": "clear",
                    "since": "2026-01-01T00:00:00Z"});
                node["metadata"]["annotations"][STATE] = json!(record.to_string());
                "the record is another instance's".to_owned()
            }
        };
        self.did.push(did);
    }
}

fn taints_of(node: &Value) -> Vec<Value> {
    node["spec"]["taints"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

/// Kubernetes takes one taint of a key and an effect.
fn set_taint(node: &mut Value, key: &str, effect: &str, value: Option<&str>) {
    let mut taints = taints_of(node);
    taints.retain(|taint| taint["key"] != key || taint["effect"] != effect);
    if let Some(value) = value {
        let mut taint = json!({"key": key, "value": value, "effect": effect});
        if effect == "NoExecute" {
            // A field that we have no use for, in somebody else's taint.
            taint["timeAdded"] = json!("2026-01-01T00:00:00Z");
        }
        taints.push(taint);
    }
    node["spec"]["taints"] = Value::Array(taints);
}

// ---- our side ----

fn taint() -> Taint {
    Taint {
        key: OUR_KEY.to_owned(),
        value: "true".to_owned(),
        effect: TaintEffect::NoSchedule,
    }
}

fn caution_taint() -> Taint {
    Taint {
        value: "caution".to_owned(),
        effect: TaintEffect::PreferNoSchedule,
        ..taint()
    }
}

fn record_state(node: &Value, id: &NodeId) -> RecordState {
    let text = node["metadata"]["annotations"][STATE].as_str();
    record::decode(text, INSTANCE, &id.uid)
}

/// An order as a decision on this view of the Node might give it, sensible or not.
fn some_order(node: &Value, id: &NodeId, n: usize, dice: &mut Dice) -> MarkOrder {
    let now = SystemClock.now();
    let expects = record_state(node, id).ours().cloned();
    let mut next = expects
        .clone()
        .unwrap_or_else(|| NodeRecord::clear(INSTANCE, &id.uid, now));
    next.reasons = vec![format!("interleaving {n}")];
    let label_there = node["metadata"]["labels"][RISK].as_str().map(str::to_owned);
    let mark_label = |next: &mut NodeRecord, label: Option<RiskLabel>| {
        if next.marks.label.is_none() {
            next.marks.label_before.clone_from(&label_there);
        }
        next.marks.label = label;
        if label.is_none() {
            next.marks.label_before = None;
        }
    };
    let taint_there = taints_of(node).iter().any(|there| {
        there["key"] == OUR_KEY && there["value"] == "true" && there["effect"] == "NoSchedule"
    });
    let ended = |next: &mut NodeRecord, outcome| {
        if let Some(drain) = &mut next.drain {
            drain.ended = Some((now, outcome));
        }
    };
    let choice = dice.below(100);
    let (cause, record) = match next.phase {
        RecordedPhase::Clear => match choice {
            0..60 => {
                next.phase = RecordedPhase::Tainted;
                next.marks.taint = Some(taint());
                if dice.percent(50) {
                    next.marks.caution_taint = None;
                }
                mark_label(&mut next, Some(RiskLabel::AtRisk));
                (Cause::Taint, Some(next))
            }
            60..85 => {
                next.marks.caution_taint = dice.percent(50).then(caution_taint);
                let label = dice.one_of(&[None, Some(RiskLabel::Caution), Some(RiskLabel::AtRisk)]);
                mark_label(&mut next, label);
                (Cause::Caution, Some(next))
            }
            85..95 => (Cause::Record, Some(next)),
            _ => (Cause::Release, None),
        },
        RecordedPhase::Tainted | RecordedPhase::Draining | RecordedPhase::Drained
            if !taint_there && choice < 70 =>
        {
            next.phase = RecordedPhase::Clear;
            next.drain = None;
            next.veto_until = Some(now);
            next.marks = Marks::default();
            (Cause::Veto, Some(next))
        }
        RecordedPhase::Tainted => match choice {
            0..40 => {
                next.phase = RecordedPhase::Draining;
                next.drain = Some(DrainRecord {
                    started_at: now,
                    attempts: 1,
                    ended: None,
                });
                (Cause::DrainStart, Some(next))
            }
            40..60 => {
                let label = dice.one_of(&[Some(RiskLabel::Caution), Some(RiskLabel::AtRisk)]);
                mark_label(&mut next, label);
                (Cause::Caution, Some(next))
            }
            60..80 => (Cause::Release, None),
            _ => (Cause::Record, Some(next)),
        },
        RecordedPhase::Draining => match choice {
            0..50 => {
                next.phase = RecordedPhase::Drained;
                ended(&mut next, NodeOutcome::Drained);
                (Cause::Drained, Some(next))
            }
            50..80 => {
                next.phase = RecordedPhase::Tainted;
                ended(
                    &mut next,
                    NodeOutcome::Ended(foreshock::core::drain::PodOutcome::Deadline),
                );
                (Cause::DrainEnd, Some(next))
            }
            _ => (Cause::Record, Some(next)),
        },
        RecordedPhase::Drained => match choice {
            0..70 => {
                next.phase = RecordedPhase::Clear;
                next.drain = None;
                next.released_at = Some(now);
                next.marks = Marks::default();
                (Cause::Release, dice.percent(50).then_some(next))
            }
            _ => (Cause::Record, Some(next)),
        },
    };
    MarkOrder {
        node: id.clone(),
        cause,
        note: String::new(),
        expects: expects.map(Box::new),
        record: record.map(Box::new),
    }
}

#[derive(Default)]
struct Counts {
    tried: usize,
    in_the_middle: usize,
    conflicted: usize,
    carried_out: BTreeMap<&'static str, usize>,
    refused: BTreeMap<String, usize>,
    co_writes: u64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.tried += other.tried;
        self.in_the_middle += other.in_the_middle;
        self.conflicted += other.conflicted;
        self.co_writes += other.co_writes;
        for (cause, count) in other.carried_out {
            *self.carried_out.entry(cause).or_default() += count;
        }
        for (reason, count) in other.refused {
            *self.refused.entry(reason).or_default() += count;
        }
    }
}

/// What happens at the last moment before a write.
struct Middle {
    co_writer: Arc<Mutex<CoWriter>>,
    /// Writes of ours that were about to leave, since the mark was begun.
    asked: AtomicU32,
    /// Writes of the co-writer right before them.
    wrote: AtomicU32,
    dice: std::sync::Mutex<Dice>,
}

impl Middle {
    fn guard(&self, handle: &Handle) -> Result<(), String> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let (write, hold_back) = {
            let mut dice = self.dice.lock().expect("no holder panics");
            (dice.percent(40), dice.percent(1))
        };
        if write {
            self.wrote.fetch_add(1, Ordering::Relaxed);
            // The guard is no future, and the write has to be over before it returns.
            tokio::task::block_in_place(|| {
                handle.block_on(async { self.co_writer.lock().await.write().await });
            });
        }
        if hold_back {
            return Err("the dice say no".to_owned());
        }
        Ok(())
    }
}

/// The interleavings on one Node.
async fn interleave(
    client: kube::Client,
    options: KubeOptions,
    name: String,
    seed: u64,
    count: usize,
) -> Counts {
    let cluster = KubeCluster::connect(options, Arc::new(SystemClock))
        .await
        .expect("the kubeconfig is good");
    let co_writer = Arc::new(Mutex::new(
        CoWriter::start(client, &name, seed ^ 0xc0c0).await,
    ));
    let middle = Arc::new(Middle {
        co_writer: Arc::clone(&co_writer),
        asked: AtomicU32::new(0),
        wrote: AtomicU32::new(0),
        dice: std::sync::Mutex::new(Dice(seed ^ 0x6a7d)),
    });
    let handle = Handle::current();
    let guard = Arc::clone(&middle);
    cluster.set_guard(Arc::new(move || guard.guard(&handle)));

    let taints = [taint(), caution_taint()];
    let mut dice = Dice(seed);
    let mut counts = Counts::default();
    let mut node = co_writer.lock().await.look().await;
    let id = NodeId::new(
        name.as_str(),
        foreshock::core::node::Uid::from(node["metadata"]["uid"].as_str().expect("a UID")),
    );
    for n in 0..count {
        let order = some_order(&node, &id, n, &mut dice);
        // Between the decision and our read.
        if dice.percent(25) {
            co_writer.lock().await.write().await;
        }
        middle.asked.store(0, Ordering::Relaxed);
        middle.wrote.store(0, Ordering::Relaxed);
        counts.tried += 1;
        let result = if dice.percent(2) {
            // A person's word: it does not ask the guard.
            let released = cluster.take_off(&id.name, &taints, false).await;
            *counts.carried_out.entry("release by hand").or_default() += 1;
            let mut co_writer = co_writer.lock().await;
            node = co_writer.look().await;
            assert!(
                released.is_err() || our_record(&node).is_none(),
                "released, and there is a record of ours: {node}"
            );
            continue;
        } else {
            cluster.mark(&order).await
        };
        let asked = middle.asked.load(Ordering::Relaxed);
        counts.in_the_middle += usize::from(middle.wrote.load(Ordering::Relaxed) > 0);
        let mut co_writer = co_writer.lock().await;
        let before = whole(&co_writer.last);
        node = co_writer.look().await;
        let mut refused = false;
        let gave_up = match result {
            Ok(_) => {
                *counts.carried_out.entry(order.cause.as_str()).or_default() += 1;
                let found = record_state(&node, &id);
                assert_eq!(
                    found.ours(),
                    order.record.as_deref(),
                    "the order was carried out, {order:?}, and the record is {found:?}"
                );
                // That ours is gone where it should be is the model's to say: what the record does not
                // name counts as foreign there. A caution taint that somebody removed stays away.
                let there = taints_of(&node);
                let wanted = order
                    .record
                    .iter()
                    .filter_map(|record| record.marks.taint.as_ref());
                for taint in wanted.chain(order.taints_added()) {
                    assert!(
                        there.iter().any(|there| there["key"] == taint.key.as_str()
                            && there["value"] == taint.value.as_str()
                            && there["effect"] == taint.effect.as_str()),
                        "the order was carried out, {order:?}, and the taints are {there:?}"
                    );
                }
                false
            }
            Err(error) => {
                assert!(
                    before == whole(&node),
                    "{error}, and the Node has changed\nfrom {before}\nto   {}",
                    whole(&node)
                );
                let why = match &error {
                    ClusterError::Superseded { detail, .. } => {
                        detail.split([':', '"', '(']).next().unwrap_or("").trim()
                    }
                    ClusterError::Failed { detail, .. } if detail.contains("the dice say no") => {
                        "held back"
                    }
                    ClusterError::Failed { .. }
                    | ClusterError::Forbidden { .. }
                    | ClusterError::Timeout { .. } => panic!("{name}: {error}"),
                };
                *counts.refused.entry(why.to_owned()).or_default() += 1;
                refused = true;
                why.contains("faster than")
            }
        };
        // A second try is only made after a 409, and so is a third; who gives up has met one in the last.
        counts.conflicted += usize::from(asked > 1 || gave_up);
        if refused && dice.percent(60) {
            co_writer.make_way().await;
            node = co_writer.last.clone();
        }
    }
    // What is left of ours goes, and what is not ours stays.
    let mut co_writer = co_writer.lock().await;
    co_writer.make_way().await;
    for _ in 0..10 {
        if cluster.take_off(&id.name, &taints, false).await.is_ok() {
            break;
        }
    }
    // Without a record everything that is left counts as foreign: to look says that what the record named is
    // gone. A mark whose record the co-writer had taken away stays, and is nobody's.
    let left = co_writer.look().await;
    assert!(
        our_record(&left).is_none(),
        "a record of ours stays: {left}"
    );
    counts.co_writes = co_writer.serial;
    cluster.close().await;
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn marks_among_the_writes_of_a_hostile_co_writer_lose_nothing_foreign() {
    init();
    let policy = crate::support::server::Workdir::new("audit");
    let policy_file = policy.write("policy.yaml", AUDIT_POLICY);
    let bed = Cluster::start_with(ClusterOptions {
        apiserver_args: vec![format!("--audit-policy-file={}", policy_file.display())],
        ..ClusterOptions::default()
    })
    .await;
    bed.create_nodes(NODES).await;
    apply_account(&bed).await;
    let kubeconfig = bed.kubeconfig_for("foreshock", "foreshock").await;

    let interleavings = std::env::var("FORESHOCK_INTERLEAVINGS").map_or(INTERLEAVINGS, |text| {
        text.parse()
            .expect("FORESHOCK_INTERLEAVINGS is a number of marks")
    });
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 1..=NODES {
        let name = format!("worker-{n:02}");
        let options = KubeOptions {
            kubeconfig: Some(kubeconfig.clone()),
            instance: INSTANCE.to_owned(),
            namespace: "foreshock".to_owned(),
            node_selector: format!("kubernetes.io/hostname={name}"),
            taints: vec![taint(), caution_taint()],
        };
        let seed = SEED.wrapping_mul(n as u64 + 1);
        tasks.spawn(interleave(
            bed.client(),
            options,
            name,
            seed,
            interleavings / NODES,
        ));
    }
    let mut counts = Counts::default();
    while let Some(done) = tasks.join_next().await {
        counts.add(done.expect("foreign marks are as they were left"));
    }
    let took = began.elapsed();

    // The API server's own word on how often we met a 409.
    let ours = || {
        let mut all = bed.audit();
        all.retain(|event| {
            event.user == ACCOUNT && event.verb == "patch" && event.resource == "nodes"
        });
        all
    };
    let carried_out: usize = counts.carried_out.values().sum();
    let audited = wait_for(
        "the audit log to be whole",
        Duration::from_secs(20),
        async || {
            let all = ours();
            let conflicts = all.iter().filter(|event| event.code == 409).count();
            (conflicts >= counts.conflicted).then_some(conflicts)
        },
    )
    .await;
    println!(
        "seed {SEED}; {:.0} s; carried out: {:?}; refused: {:?}",
        took.as_secs_f64(),
        counts.carried_out,
        counts.refused
    );
    figure("interleavings", counts.tried);
    figure("interleavings_in_the_middle", counts.in_the_middle);
    figure("interleavings_conflicted", counts.conflicted);
    figure("interleavings_audited_409", audited);
    figure("interleavings_co_writes", counts.co_writes);
    assert_eq!(counts.tried, interleavings);
    assert!(carried_out > interleavings / 3, "{carried_out} carried out");
    assert!(
        counts.conflicted >= interleavings / 5,
        "only {} met a 409",
        counts.conflicted
    );
    let odd: Map<String, Value> = ours()
        .iter()
        .filter(|event| !matches!(event.code, 200 | 409))
        .map(|event| (event.code.to_string(), json!(event.uri)))
        .collect();
    assert!(odd.is_empty(), "other answers to our writes: {odd:?}");
}
