//! Deployments that are scaled up until a Pod of theirs has left its Node, and scaled back.
//!
//! Scaling up is a drain's; what is to be put back stands in the Node's record before. Scaling back is done in
//! one place ([`keep`]), for whatever stands in a record and is held by no drain of this process: because its
//! drain needs it no more, was cancelled or is over, or was another process's that died.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foreshock_core::decision::plan::{Cause, MarkOrder};
use foreshock_core::drain::{NoSurge, Owner, PodId, SurgeAnswer, Undo, may_surge, undo};
use foreshock_core::node::{NodeId, Uid};
use foreshock_core::record::{NodeRecord, SurgeRecord};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::SHUTDOWN_LIMIT;
use super::drain::Shared;
use crate::kubernetes::rate::Rate;
use crate::kubernetes::{ClusterError, ClusterEvent, NodeTable, WRITE_LIMIT};

/// What meets a change by somebody else is looked at and tried anew so often.
const TRIES: u32 = 5;
/// The watch shows within this what somebody else has changed.
const CHANGE_LIMIT: Duration = Duration::from_secs(1);
/// Deployments that are scaled back at once.
const UNDOING_MAX: usize = 4;
/// Between two looks at a Pod that is on its way, of a surge that no drain follows any more.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// After a first failure; it doubles with each further one.
const RETRY_MIN: Duration = Duration::from_secs(2);
/// The longest pause.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// After the gate was found closed. Its opening is an event, but for a Lease that is renewed late.
const GATE_PAUSE: Duration = Duration::from_millis(500);

/// Why a Deployment is not scaled up.
const NOT_BACK_YET: &str = "an earlier one has not been scaled back yet";

/// The surges of one process.
pub(super) struct Surges {
    /// Deployments that drains of this process hold, by UID.
    held: watch::Sender<BTreeSet<Uid>>,
    /// Those that this process has noted in records, for the case that a Node is deleted with its record.
    known: Mutex<BTreeMap<Uid, (NodeId, SurgeRecord)>>,
    /// As Nodes are marked: `policy.limits.marks_per_second`.
    rate: Rate,
}

/// While this is there, its Deployment is not scaled back.
pub(super) struct Held {
    surges: Arc<Surges>,
    pub(super) namespace: String,
    pub(super) owner: Owner,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.surges.held.send_modify(|held| {
            held.remove(&self.owner.uid);
        });
    }
}

/// What an attempt to scale up has come to.
pub(super) struct Begun {
    pub(super) pod: PodId,
    pub(super) workload: Uid,
    pub(super) answer: SurgeAnswer,
    /// Only where two are asked for.
    pub(super) held: Option<Held>,
}

impl Surges {
    pub(super) fn new(per_second: u32) -> Arc<Self> {
        Arc::new(Self {
            held: watch::Sender::default(),
            known: Mutex::default(),
            rate: Rate::per_second(per_second),
        })
    }

    /// `None` while another drain holds it.
    fn hold(self: &Arc<Self>, namespace: &str, owner: &Owner) -> Option<Held> {
        let new = self
            .held
            .send_if_modified(|held| held.insert(owner.uid.clone()));
        new.then(|| Held {
            surges: Arc::clone(self),
            namespace: namespace.to_owned(),
            owner: owner.clone(),
        })
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Uid, (NodeId, SurgeRecord)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes in the Node's record what is to be put back, and scales the Deployment up.
pub(super) async fn begin(
    shared: Arc<Shared>,
    sending: CancellationToken,
    node: NodeId,
    pod: PodId,
    owner: Owner,
) -> Begun {
    let held = shared.surges.hold(&pod.namespace, &owner);
    let answer = match &held {
        Some(_) => scale_up(&shared, &sending, &node, &pod, &owner).await,
        None => SurgeAnswer::Failed("it is scaled up for the drain of another Node".to_owned()),
    };
    match &answer {
        SurgeAnswer::Up => {
            info!(node = %node, pod = %pod, deployment = %owner.name, replicas = SurgeRecord::TO, "deployment scaled up");
            let note = format!(
                "Deployment {}/{} scaled up to {} until Pod {} has left Node {node}",
                pod.namespace,
                owner.name,
                SurgeRecord::TO,
                pod.name
            );
            say(&shared, &node, &pod, "SurgeStarted", false, note);
        }
        SurgeAnswer::Without(why) => {
            info!(node = %node, pod = %pod, reason = %why, "pod goes without a second one");
            let note = format!("goes without a second Pod: {why}");
            say(&shared, &node, &pod, "SurgeLeftOut", false, note);
        }
        SurgeAnswer::Failed(problem) => {
            warn!(node = %node, pod = %pod, problem, "deployment not scaled up");
        }
        SurgeAnswer::Withheld => {}
    }
    Begun {
        pod,
        workload: owner.uid,
        held: held.filter(|_| answer == SurgeAnswer::Up),
        answer,
    }
}

async fn scale_up(
    shared: &Shared,
    sending: &CancellationToken,
    node: &NodeId,
    pod: &PodId,
    owner: &Owner,
) -> SurgeAnswer {
    let may_send = || !sending.is_cancelled() && shared.gate.check().is_ok();
    let failed = |error: ClusterError| SurgeAnswer::Failed(error.to_string());
    let namespace = pod.namespace.as_str();
    if !may_send() {
        return SurgeAnswer::Withheld;
    }
    // By another drain, or by a predecessor that died: what the Deployment asks for now is not its owner's.
    let is_noted = {
        let nodes = shared.cluster.nodes();
        let table = nodes.borrow();
        table.nodes.values().any(|entry| {
            let ours = entry.facts.record.ours();
            ours.is_some_and(|record| record.surges.iter().any(|one| one.uid == owner.uid))
        })
    };
    if is_noted {
        return SurgeAnswer::Failed(NOT_BACK_YET.to_owned());
    }
    let mut seen = match shared.cluster.deployment(namespace, owner).await {
        Ok(Some(seen)) => seen,
        Ok(None) => return SurgeAnswer::Without(NoSurge::Deleted),
        Err(error) => return failed(error),
    };
    seen.autoscaler = match shared.cluster.autoscaler(namespace, owner).await {
        Ok(autoscaler) => autoscaler,
        Err(error) => return failed(error),
    };
    if let Err(why) = may_surge(&seen) {
        return why.into();
    }
    shared.surges.rate.turn().await;
    if !may_send() {
        return SurgeAnswer::Withheld;
    }
    let surge = SurgeRecord {
        namespace: namespace.to_owned(),
        deployment: owner.name.clone(),
        uid: owner.uid.clone(),
        before: seen.replicas,
        pod: pod.clone(),
        since: shared.clock.now(),
    };
    // From here on whatever happens is put back by `keep`, of this process or of another.
    let noted = amend(shared, node, "a Deployment is scaled up", |record| {
        let earlier = record.surges.iter().any(|known| known.uid == surge.uid);
        if earlier || record.surges.len() >= NodeRecord::SURGES_MAX {
            return Err(NOT_BACK_YET.to_owned());
        }
        record.surges.push(surge.clone());
        Ok(())
    });
    // It may stand there all the same, and is taken off again: nothing is scaled up yet.
    if let Err(error) = noted.await {
        return failed(error);
    }
    let known = (node.clone(), surge.clone());
    shared.surges.known().insert(owner.uid.clone(), known);
    for _ in 0..TRIES {
        if !may_send() {
            return SurgeAnswer::Failed("held back before it was sent".to_owned());
        }
        let sent = shared
            .cluster
            .scale(namespace, owner, &seen.version, SurgeRecord::TO);
        match sent.await {
            Ok(()) => return SurgeAnswer::Up,
            Err(ClusterError::Superseded { .. }) => {}
            Err(error @ ClusterError::Forbidden { .. }) => return failed(error),
            Err(error @ (ClusterError::Timeout { .. } | ClusterError::Failed { .. })) => {
                // It may take place yet, for as long as the request itself says. Who looks before then could
                // find it as it was, and take it off the record.
                tokio::time::sleep(WRITE_LIMIT).await;
                return failed(error);
            }
        }
        let autoscaler = seen.autoscaler.take();
        seen = match shared.cluster.deployment(namespace, owner).await {
            Ok(Some(seen)) => seen,
            Ok(None) => return SurgeAnswer::Without(NoSurge::Deleted),
            Err(error) => return failed(error),
        };
        seen.autoscaler = autoscaler;
        if let Err(why) = may_surge(&seen) {
            return why.into();
        }
    }
    SurgeAnswer::Failed("it changes faster than it can be scaled".to_owned())
}

/// Changes what the Node's record says of surges, and nothing else of it.
async fn amend(
    shared: &Shared,
    node: &NodeId,
    note: &str,
    change: impl Fn(&mut NodeRecord) -> Result<(), String>,
) -> Result<(), ClusterError> {
    let object = format!("Node {node}");
    let mut nodes = shared.cluster.nodes();
    for _ in 0..TRIES {
        let record = record_of(&nodes.borrow_and_update(), node).cloned();
        let superseded = |detail: String| ClusterError::Superseded {
            object: object.clone(),
            detail,
        };
        let record = record.ok_or_else(|| superseded("it has no record of ours".to_owned()))?;
        let mut next = record.clone();
        change(&mut next).map_err(superseded)?;
        if next == record {
            return Ok(());
        }
        if let Err(closed) = shared.gate.check() {
            return Err(ClusterError::Failed {
                action: format!("mark {object}"),
                detail: format!("held back before it was sent: {closed}"),
            });
        }
        let order = MarkOrder {
            node: node.clone(),
            cause: Cause::Record,
            note: note.to_owned(),
            expects: Some(Box::new(record)),
            record: Some(Box::new(next)),
        };
        let limit = WRITE_LIMIT + Duration::from_secs(1);
        match tokio::time::timeout(limit, shared.cluster.mark(&order)).await {
            Ok(Ok(_)) => return Ok(()),
            // The watch may show already what has changed.
            Ok(Err(ClusterError::Superseded { .. })) => {
                let _ = tokio::time::timeout(CHANGE_LIMIT, nodes.changed()).await;
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                return Err(ClusterError::Timeout {
                    action: format!("mark {object}"),
                    limit,
                });
            }
        }
    }
    Err(ClusterError::Superseded {
        object,
        detail: "its record changes faster than it can be written".to_owned(),
    })
}

fn record_of<'a>(table: &'a NodeTable, node: &NodeId) -> Option<&'a NodeRecord> {
    let entry = table.nodes.get(&node.name)?;
    let ours = entry.facts.record.ours();
    ours.filter(|_| entry.facts.id == *node)
}

/// Scales back whatever stands in a record and is held by no drain, until `stop`.
pub(super) async fn keep(shared: Arc<Shared>, stop: CancellationToken) {
    let mut nodes = shared.cluster.nodes();
    let mut held = shared.surges.held.subscribe();
    let mut gate = shared.gate.clone();
    let mut undoing: FuturesUnordered<BoxFuture<'static, (Uid, Undone)>> = FuturesUnordered::new();
    let mut busy: BTreeSet<Uid> = BTreeSet::new();
    let mut pauses: BTreeMap<Uid, (Instant, u32)> = BTreeMap::new();
    loop {
        let table = Arc::clone(&nodes.borrow_and_update());
        let due = {
            let held = held.borrow_and_update();
            let mut known = shared.surges.known();
            // What another process has put back meanwhile.
            known.retain(|uid, (node, _)| {
                let record = record_of(&table, node);
                let noted = |record: &NodeRecord| record.surges.iter().any(|one| one.uid == *uid);
                held.contains(uid) || record.is_none_or(noted)
            });
            left_over(&table, &known, &held)
        };
        pauses.retain(|uid, _| due.contains_key(uid));
        let mut wake = Instant::now() + RETRY_MAX;
        for (uid, (node, surge)) in due {
            if busy.contains(&uid) || undoing.len() >= UNDOING_MAX {
                continue;
            }
            if let Some((at, _)) = pauses.get(&uid)
                && *at > Instant::now()
            {
                wake = wake.min(*at);
                continue;
            }
            if shared.gate.check().is_err() {
                wake = wake.min(Instant::now() + GATE_PAUSE);
                continue;
            }
            busy.insert(uid.clone());
            let shared = Arc::clone(&shared);
            undoing.push(Box::pin(async move {
                let undone = put_back(&shared, &node, &surge).await;
                (uid, undone)
            }));
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some((uid, undone)) = undoing.next(), if !undoing.is_empty() => {
                busy.remove(&uid);
                let failures = pauses.get(&uid).map_or(0, |(_, failures)| *failures);
                match undone {
                    Undone::Done => drop(pauses.remove(&uid)),
                    Undone::Later => drop(pauses.insert(uid, (Instant::now() + LOOK_PAUSE, 0))),
                    Undone::Failed => {
                        let pause = RETRY_MIN.saturating_mul(1 << failures.min(8)).min(RETRY_MAX);
                        pauses.insert(uid, (Instant::now() + pause, failures + 1));
                    }
                }
            }
            Ok(()) = nodes.changed() => {}
            Ok(()) = held.changed() => {}
            () = gate.changed() => {}
            () = tokio::time::sleep_until(wake) => {}
        }
    }
    // What is under way may have been sent already; what is not finished stands in the record.
    let rest = async { while undoing.next().await.is_some() {} };
    if tokio::time::timeout(SHUTDOWN_LIMIT, rest).await.is_err() {
        warn!(limit = ?SHUTDOWN_LIMIT, "deployments were still being scaled back at shutdown");
    }
}

/// The surges that nobody holds: those in records, and those whose Node is gone with its record.
fn left_over(
    table: &NodeTable,
    known: &BTreeMap<Uid, (NodeId, SurgeRecord)>,
    held: &BTreeSet<Uid>,
) -> BTreeMap<Uid, (NodeId, SurgeRecord)> {
    let recorded = table.nodes.values().flat_map(|entry| {
        let surges = entry.facts.record.ours().map(|record| &record.surges);
        let of = |surge: &SurgeRecord| (entry.facts.id.clone(), surge.clone());
        surges.into_iter().flatten().map(of).collect::<Vec<_>>()
    });
    let is_there = |node: &NodeId| {
        let entry = table.nodes.get(&node.name);
        entry.is_some_and(|entry| entry.facts.id == *node)
    };
    let lost = known.values().filter(|(node, _)| !is_there(node)).cloned();
    recorded
        .chain(lost)
        .filter(|(_, surge)| !held.contains(&surge.uid))
        .map(|(node, surge)| (surge.uid.clone(), (node, surge)))
        .collect()
}

/// What has come of an attempt to scale back.
enum Undone {
    Done,
    /// The Pod is on its way.
    Later,
    Failed,
}

async fn put_back(shared: &Shared, node: &NodeId, surge: &SurgeRecord) -> Undone {
    match try_put_back(shared, node, surge).await {
        Ok(undone) => undone,
        Err(error) => {
            warn!(node = %node, namespace = surge.namespace, deployment = surge.deployment, %error, "deployment not scaled back yet");
            Undone::Failed
        }
    }
}

async fn try_put_back(
    shared: &Shared,
    node: &NodeId,
    surge: &SurgeRecord,
) -> Result<Undone, ClusterError> {
    let (cluster, owner) = (&shared.cluster, surge.owner());
    let of = format!("Deployment {}/{}", surge.namespace, surge.deployment);
    for _ in 0..TRIES {
        let deployment = cluster.deployment(&surge.namespace, &owner).await?;
        let pod = cluster.read_pod(&surge.pod).await?;
        let now = shared.clock.now();
        let (warning, reason, note) = match undo(surge, pod.as_ref(), deployment.as_ref(), now) {
            Undo::Wait(_) => return Ok(Undone::Later),
            Undo::Nothing => {
                forget(shared, node, surge, "a Deployment is as it was").await?;
                return Ok(Undone::Done);
            }
            Undo::Leave(why) => {
                info!(node = %node, namespace = surge.namespace, deployment = surge.deployment, reason = why, "deployment not scaled back: left as it is");
                (true, "SurgeLeft", format!("{of} is left as it is: {why}"))
            }
            Undo::ScaleBack => {
                shared.surges.rate.turn().await;
                if let Err(closed) = shared.gate.check() {
                    return Err(ClusterError::Failed {
                        action: format!("scale {of} back"),
                        detail: format!("held back before it was sent: {closed}"),
                    });
                }
                let version = deployment.map(|seen| seen.version).unwrap_or_default();
                let sent = cluster.scale(&surge.namespace, &owner, &version, surge.before);
                match sent.await {
                    Ok(()) => {}
                    // Somebody else was faster: what it is now counts.
                    Err(ClusterError::Superseded { .. }) => continue,
                    Err(error) => return Err(error),
                }
                info!(node = %node, namespace = surge.namespace, deployment = surge.deployment, replicas = surge.before, "deployment scaled back");
                let note = format!("{of} scaled back to {}", surge.before);
                (false, "SurgeEnded", note)
            }
        };
        forget(shared, node, surge, &note).await?;
        say(shared, node, &surge.pod, reason, warning, note);
        return Ok(Undone::Done);
    }
    Err(ClusterError::Superseded {
        object: of,
        detail: "it changes faster than it can be scaled".to_owned(),
    })
}

/// Takes it off the record, where there is one.
async fn forget(
    shared: &Shared,
    node: &NodeId,
    surge: &SurgeRecord,
    note: &str,
) -> Result<(), ClusterError> {
    if record_of(&shared.cluster.nodes().borrow(), node).is_some() {
        amend(shared, node, note, |record| {
            record.surges.retain(|known| known.uid != surge.uid);
            Ok(())
        })
        .await?;
    }
    shared.surges.known().remove(&surge.uid);
    Ok(())
}

fn say(
    shared: &Shared,
    node: &NodeId,
    pod: &PodId,
    reason: &'static str,
    warning: bool,
    note: String,
) {
    shared.events.publish(ClusterEvent {
        node: Some(node.clone()),
        pod: Some(pod.clone()),
        reason,
        warning,
        note,
    });
}
