//! What requests may cause, and where: the webhook, the switch, the plan of a drain, and who leads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use foreshock_core::decision::policy::{Policy, Reach};
use foreshock_core::decision::verdict::Phase;
use foreshock_core::decision::world::NodeFacts;
use foreshock_core::drain::{
    Disposition, DrainRules, NoSurge, Owner, PodFacts, PodId, Scalable, classify, may_surge, surges,
};
use foreshock_core::node::{NodeId, NodeName, Uid};
use foreshock_core::room::{Going, NoPlace, Survivor, choose, fits, place};
use foreshock_core::time::since;
use futures::StreamExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::{Mutex, watch};
use tracing::debug;

use crate::actuator::{LeaderHandle, Leadership};
use crate::alertmanager::{Taken, WebhookQueue};
use crate::clock::Clock;
use crate::cycle::chain;
use crate::kubernetes::rate::Rate;
use crate::kubernetes::{Cluster, DryRun};
use crate::metrics::{Counters, WebhookOutcome};
use crate::snapshot::Snapshot;
use crate::web::{
    Bytes, Control, ControlError, Lead, Leads, PlanDryRun, PlanError, PlanFacts, PlanRoom,
    PlanSurge, Plans, Switched, Webhook, WebhookAnswer,
};

/// Puts what Alertmanager sends into the queue.
pub(crate) struct WebhookDoor {
    pub(crate) queue: WebhookQueue,
    pub(crate) counters: Arc<Counters>,
}

impl Webhook for WebhookDoor {
    fn receive(&self, body: Bytes) -> WebhookAnswer {
        let (outcome, answer) = match self.queue.take(&body) {
            Ok(Taken::Accepted { alerts }) => {
                (WebhookOutcome::Accepted, WebhookAnswer::Accepted { alerts })
            }
            Ok(Taken::Full) => (WebhookOutcome::Full, WebhookAnswer::QueueFull),
            Err(error) => (
                WebhookOutcome::Malformed,
                WebhookAnswer::Malformed {
                    problem: chain(&error),
                },
            ),
        };
        self.counters.webhook(outcome);
        answer
    }
}

/// Who leads, by the Lease.
pub(crate) struct LeadDoor {
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) counters: Arc<Counters>,
}

impl Leads for LeadDoor {
    fn who(&self) -> Lead {
        let leadership = self.leadership.borrow();
        if leadership.leader {
            Lead::Here
        } else if leadership.other_leads {
            Lead::There {
                address: leadership.address.clone(),
            }
        } else {
            Lead::Nobody
        }
    }

    fn handed_on(&self, taken: bool) {
        self.counters.webhook(if taken {
            WebhookOutcome::Forwarded
        } else {
            WebhookOutcome::ForwardFailed
        });
    }
}

/// The switch, on the Lease; or in this process alone, where nothing is ever written.
pub(crate) struct Switch {
    pub(crate) leader: LeaderHandle,
    /// There is a Lease, so that the switch outlasts the process.
    pub(crate) lasting: bool,
}

impl Switch {
    async fn set(&self, paused: bool) -> Result<Switched, ControlError> {
        match self.leader.set_paused(paused).await {
            Ok(()) => Ok(Switched {
                paused,
                lasting: self.lasting,
            }),
            // Pausing holds in this process whether or not the Lease could be written.
            Err(error) if paused => Err(ControlError::NotRecorded {
                problem: chain(&error),
            }),
            Err(error) => Err(ControlError::Failed {
                problem: chain(&error),
            }),
        }
    }
}

impl Control for Switch {
    fn pause(&self) -> BoxFuture<'_, Result<Switched, ControlError>> {
        Box::pin(self.set(true))
    }

    fn resume(&self) -> BoxFuture<'_, Result<Switched, ControlError>> {
        Box::pin(self.set(false))
    }
}

/// The switch where there is no cluster: there is nothing to be switched.
pub(crate) struct NoSwitch;

impl Control for NoSwitch {
    fn pause(&self) -> BoxFuture<'_, Result<Switched, ControlError>> {
        Box::pin(std::future::ready(Err(no_cluster())))
    }

    fn resume(&self) -> BoxFuture<'_, Result<Switched, ControlError>> {
        Box::pin(std::future::ready(Err(no_cluster())))
    }
}

fn no_cluster() -> ControlError {
    ControlError::Failed {
        problem: "without Kubernetes nothing is ever written (kubernetes.enabled is false)"
            .to_owned(),
    }
}

/// So many other Nodes are looked at for a plan. The decision itself may look at more.
const PLAN_NODES_MAX: usize = 16;
/// So many of them are read at once.
const PLAN_READS: usize = 4;
/// What was read for a plan serves others for so long: whoever asks again and again reads no more.
const PLAN_READ_AGE: Duration = Duration::from_secs(20);
/// Looking for room must be over within this; a plan comes without it otherwise.
const PLAN_ROOM_LIMIT: Duration = Duration::from_secs(5);

/// Deployments that are looked at for one plan, because they may be scaled up.
const PLAN_SURGES_MAX: usize = 32;
/// Looking at them must be over within this; what was not looked at by then says so.
const PLAN_SURGES_LIMIT: Duration = Duration::from_secs(5);

/// Dry runs in flight at once, in the whole process: an eviction holds a place of the API server's
/// for mutating requests, of which it has 200 by default.
const DRY_RUNS_IN_FLIGHT: usize = 4;
/// Dry runs a second, for all plans together: a quarter of what the client sends at most.
const DRY_RUNS_PER_SECOND: u32 = 25;
/// Asking must be over within this; what was not asked by then says so.
const DRY_RUNS_LIMIT: Duration = Duration::from_secs(5);
/// An answer serves other plans for so long, so that the next plan of a large Node goes on where this
/// one had no more time. With the rate this bounds the answers kept, to 750.
const DRY_RUN_AGE: Duration = Duration::from_secs(30);
/// A Pod of which there was no answer is asked about again after this.
const DRY_RUN_AGAIN: Duration = Duration::from_secs(3);
/// A busy server that does not say for how long is left alone for this long.
const DRY_RUN_QUIET: Duration = Duration::from_secs(1);

/// A Pod to ask about, and the grace period to ask with.
type Question = (PodId, Option<Duration>);

/// Says whether a write could leave now, and why not.
pub(crate) type MayWrite = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Asks the API server, in the plan of a Node, what it would say to each eviction.
struct DryRuns {
    may_write: MayWrite,
    rate: Rate,
    /// Held while somebody asks: one plan after the other, so that each finds what the last was told.
    turn: Mutex<()>,
    answers: std::sync::Mutex<BTreeMap<PodId, (Timestamp, PlanDryRun)>>,
}

impl DryRuns {
    fn new(may_write: MayWrite) -> Self {
        Self {
            may_write,
            rate: Rate::per_second(DRY_RUNS_PER_SECOND),
            turn: Mutex::default(),
            answers: std::sync::Mutex::default(),
        }
    }

    /// What is known about each Pod that would be evicted, after asking within the bounds above.
    async fn of(
        &self,
        cluster: &dyn Cluster,
        clock: &dyn Clock,
        reach: Option<Reach>,
        pods: &[PodFacts],
        rules: &DrainRules,
    ) -> BTreeMap<PodId, PlanDryRun> {
        let mut said = BTreeMap::new();
        let mut asked: Vec<Question> = Vec::new();
        for pod in pods {
            if classify(pod, rules) != Disposition::Evict {
                continue;
            }
            if pod.terminating_until.is_some() {
                let answer = unknown("not asked: it is terminating already");
                said.insert(pod.id.clone(), answer);
            } else {
                // As the executor would ask.
                let grace = rules.grace_cap.filter(|cap| *cap < pod.grace);
                asked.push((pod.id.clone(), grace));
            }
        }
        // Below `evict` nothing may be evicted, and a question whose answer nobody may act on is load.
        let closed = match reach {
            Some(Reach::Evict) => (self.may_write)().err(),
            Some(reach) => Some(format!("reach is {}", reach.as_str())),
            None => Some("the Node is not known yet".to_owned()),
        };
        if let Some(why) = closed {
            let words = format!("not asked: {why}");
            said.extend(asked.into_iter().map(|(pod, _)| (pod, unknown(&words))));
            return said;
        }
        let mut told = BTreeMap::new();
        let ask = self.ask(cluster, clock, &asked, &mut told);
        let in_time = tokio::time::timeout(DRY_RUNS_LIMIT, ask).await.is_ok();
        let words = if in_time {
            "not asked: the API server is busy".to_owned()
        } else {
            format!("not asked: no time left within {DRY_RUNS_LIMIT:?}")
        };
        let kept = self.kept(clock.now());
        for (pod, _) in asked {
            let answer = told
                .remove(&pod)
                .or_else(|| kept.get(&pod).map(|(_, answer)| answer.clone()));
            said.insert(pod, answer.unwrap_or_else(|| unknown(&words)));
        }
        said
    }

    /// Asks about those that are not known. What tells of the Pod is kept for others, what only tells
    /// of this request goes into `told`.
    async fn ask(
        &self,
        cluster: &dyn Cluster,
        clock: &dyn Clock,
        pods: &[Question],
        told: &mut BTreeMap<PodId, PlanDryRun>,
    ) {
        let _turn = self.turn.lock().await;
        let kept = self.kept(clock.now());
        let mut missing: Vec<Question> = pods.to_vec();
        missing.retain(|(pod, _)| !kept.contains_key(pod));
        let requests = missing.into_iter().map(|(pod, grace)| async move {
            self.rate.turn().await;
            let answer = cluster.try_eviction(&pod, grace).await;
            (pod, answer)
        });
        let mut answers = futures::stream::iter(requests).buffer_unordered(DRY_RUNS_IN_FLIGHT);
        while let Some((pod, answer)) = answers.next().await {
            let now = clock.now();
            let answer = match answer {
                DryRun::Allowed => PlanDryRun::Allowed(now),
                DryRun::Refused(words) => PlanDryRun::Refused(now, words),
                DryRun::NoAnswer(why) => unknown(&format!("asked, without an answer: {why}")),
                DryRun::NotAsked(why) => {
                    told.insert(pod, unknown(&format!("not asked: {why}")));
                    continue;
                }
                DryRun::Busy(wait) => {
                    self.rate.quiet(wait.unwrap_or(DRY_RUN_QUIET));
                    return;
                }
            };
            let mut known = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(pod, (now, answer));
        }
    }

    fn kept(&self, now: Timestamp) -> BTreeMap<PodId, (Timestamp, PlanDryRun)> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|_, (at, answer)| {
            let kept_for = match answer {
                PlanDryRun::Allowed(_) | PlanDryRun::Refused(..) => DRY_RUN_AGE,
                PlanDryRun::Unknown(_) => DRY_RUN_AGAIN,
            };
            since(*at, now) < kept_for
        });
        answers.clone()
    }
}

/// What was found lately, by UID: whoever asks for plans again and again reads no more.
struct Lately<T>(std::sync::Mutex<BTreeMap<Uid, (Timestamp, T)>>);

impl<T> Default for Lately<T> {
    fn default() -> Self {
        Self(std::sync::Mutex::default())
    }
}

impl<T: Clone> Lately<T> {
    fn known(&self, now: Timestamp) -> BTreeMap<Uid, (Timestamp, T)> {
        let mut known = self.lock();
        known.retain(|_, (at, _)| since(*at, now) < PLAN_READ_AGE);
        known.clone()
    }

    fn insert(&self, uid: Uid, now: Timestamp, found: T) {
        self.lock().insert(uid, (now, found));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Uid, (Timestamp, T)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Finds the Pods of kube-system for which nobody stands in while they move: name resolution is often one.
#[derive(Default)]
struct Alone {
    /// What is to be said about the Pod of a Deployment, if anything.
    known: Lately<Option<String>>,
}

impl Alone {
    async fn of(
        &self,
        cluster: &dyn Cluster,
        clock: &dyn Clock,
        pods: &[PodFacts],
        rules: &DrainRules,
    ) -> BTreeMap<PodId, String> {
        let mut said = BTreeMap::new();
        let mut asked: Vec<(PodId, Owner)> = Vec::new();
        let known = self.known.known(clock.now());
        for pod in pods {
            let goes =
                classify(pod, rules) == Disposition::Evict && pod.terminating_until.is_none();
            if pod.id.namespace != "kube-system" || !pod.budgets.is_empty() || !goes {
                continue;
            }
            let Ok(Some(owner)) = &pod.workload else {
                continue;
            };
            if owner.group != "apps" || owner.kind != "Deployment" {
                continue;
            }
            let words = match known.get(&owner.uid) {
                Some((_, words)) => words.clone(),
                None => {
                    if asked.len() < PLAN_SURGES_MAX {
                        asked.push((pod.id.clone(), owner.clone()));
                    }
                    Some(unknown_alone(owner, "not looked at in time"))
                }
            };
            said.extend(words.map(|words| (pod.id.clone(), words)));
        }
        let looks = asked.into_iter().map(|(pod, owner)| async move {
            let found = cluster.deployment(&pod.namespace, &owner).await;
            (pod, owner, found)
        });
        let mut looks = futures::stream::iter(looks).buffer_unordered(PLAN_READS);
        let look = async {
            while let Some((pod, owner, found)) = looks.next().await {
                let words = match found {
                    Ok(Some(found)) if found.replicas == 1 => Some(format!(
                        "is the only one of {owner}, under no PodDisruptionBudget: nobody stands in for it while it moves"
                    )),
                    Ok(_) => None,
                    Err(error) => Some(unknown_alone(&owner, &chain(&error))),
                };
                self.known.insert(owner.uid, clock.now(), words.clone());
                match words {
                    Some(words) => drop(said.insert(pod, words)),
                    None => drop(said.remove(&pod)),
                }
            }
        };
        // Of the others it is said that they were not looked at.
        let _ = tokio::time::timeout(PLAN_SURGES_LIMIT, look).await;
        said
    }
}

fn unknown_alone(owner: &Owner, why: &str) -> String {
    format!("may be the only one of {owner}, under no PodDisruptionBudget: {why}")
}

fn unknown(why: &str) -> PlanDryRun {
    PlanDryRun::Unknown(why.to_owned())
}

/// The Pods of a Node, and when they were read.
type PodsRead = (Timestamp, Arc<Vec<PodFacts>>);

/// Reads the Pods of a Node for a plan that somebody asked for.
pub(crate) struct PlanDoor {
    cluster: Option<Arc<dyn Cluster>>,
    policy: Arc<Policy>,
    rate: u32,
    clock: Arc<dyn Clock>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Held while room is looked for: one after the other, so that each finds what the last has read.
    read: Mutex<BTreeMap<NodeId, PodsRead>>,
    dry_runs: DryRuns,
    /// What was found of Deployments lately, by UID.
    surges: Lately<PlanSurge>,
    alone: Alone,
}

impl PlanDoor {
    pub(crate) fn new(
        cluster: Option<Arc<dyn Cluster>>,
        policy: Arc<Policy>,
        rate: u32,
        clock: Arc<dyn Clock>,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        may_write: MayWrite,
    ) -> Self {
        Self {
            cluster,
            policy,
            rate,
            clock,
            snapshots,
            read: Mutex::default(),
            dry_runs: DryRuns::new(may_write),
            surges: Lately::default(),
            alone: Alone::default(),
        }
    }

    /// Whether others have room for these Pods, as the decision would find it: Nodes that are well and
    /// take work, with the Pods that they have, beside those that leave Nodes which are being drained.
    async fn room(
        &self,
        cluster: &dyn Cluster,
        node: &NodeId,
        pods: &[PodFacts],
    ) -> Option<PlanRoom> {
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let mut read = self.read.lock().await;
        let now = self.clock.now();
        read.retain(|_, (at, _)| since(*at, now) < PLAN_READ_AGE);
        let own = snapshot.node(node.name.as_str())?.entry.as_ref()?;
        let then = self.going(pods, &own.facts);
        if then.is_empty() {
            return Some(PlanRoom::default());
        }
        let entries = || {
            let others = snapshot
                .nodes
                .iter()
                .filter(|view| view.name() != &node.name);
            others.filter_map(|view| Some((&view.verdict, &view.entry.as_ref()?.facts)))
        };
        let draining: Vec<&NodeFacts> = entries()
            .filter(|(verdict, _)| verdict.phase == Phase::Draining)
            .map(|(_, facts)| facts)
            .collect();
        self.fetch(cluster, &draining, &mut read).await?;
        let others: Vec<&NodeFacts> = entries()
            .filter(|(verdict, facts)| {
                verdict.phase == Phase::Healthy
                    && facts.ready
                    && !facts.cordoned
                    && facts.taken_by.is_none()
            })
            .map(|(_, facts)| facts)
            .collect();
        let bare: Vec<Survivor<'_>> = others.iter().map(|facts| survivor(facts, &[])).collect();
        let chosen = match choose(&bare, &then, PLAN_NODES_MAX) {
            Ok(chosen) => chosen,
            Err(without) => {
                return Some(PlanRoom {
                    looked_at: others.len(),
                    without,
                    ..PlanRoom::default()
                });
            }
        };
        let chosen: Vec<&NodeFacts> = chosen.into_iter().map(|at| others[at]).collect();
        self.fetch(cluster, &chosen, &mut read).await?;
        let of = |facts: &NodeFacts| read.get(&facts.id).map_or(&[][..], |(_, pods)| pods);
        let known: Vec<Survivor<'_>> = chosen
            .iter()
            .map(|facts| survivor(facts, of(facts)))
            .collect();
        let first: Vec<Going<'_>> = draining
            .iter()
            .flat_map(|facts| self.going(of(facts), facts))
            .collect();
        let placement = place(&known, &first, &then);
        let without: Vec<NoPlace> = placement.without;
        let fits_of = |going: &Going<'_>| {
            let placed = placement
                .places
                .iter()
                .find(|place| place.pod == going.pod.id);
            let others = known.iter().filter(|survivor| fits(survivor, going));
            let mut nodes: Vec<NodeName> = placed.iter().map(|place| place.on.clone()).collect();
            nodes.extend(others.map(|survivor| survivor.name.clone()));
            // The one in front comes again among the others.
            let mut seen = BTreeSet::new();
            nodes.retain(|name| seen.insert(name.clone()));
            (going.pod.id.clone(), nodes)
        };
        Some(PlanRoom {
            looked_at: known.len(),
            fits: then.iter().map(fits_of).collect(),
            without,
        })
    }

    /// Which Pods get a second one before they go, as the executor would find it.
    async fn surges(&self, cluster: &dyn Cluster, pods: &[PodFacts]) -> BTreeMap<PodId, PlanSurge> {
        let rules = &self.policy.drain;
        let mut said = BTreeMap::new();
        let mut asked: Vec<(PodId, Owner)> = Vec::new();
        let known = self.surges.known(self.clock.now());
        for pod in pods {
            if classify(pod, rules) != Disposition::Evict {
                continue;
            }
            match surges(pod, pods, rules) {
                None => {}
                Some(Err(why)) => drop(said.insert(pod.id.clone(), PlanSurge::No(why.to_string()))),
                Some(Ok(owner)) => {
                    let answer = known.get(&owner.uid).map(|(_, answer)| answer.clone());
                    let unknown = || PlanSurge::Unknown("not looked at in time".to_owned());
                    if answer.is_none() && asked.len() < PLAN_SURGES_MAX {
                        asked.push((pod.id.clone(), owner.clone()));
                    }
                    said.insert(pod.id.clone(), answer.unwrap_or_else(unknown));
                }
            }
        }
        let looks = asked.into_iter().map(|(pod, owner)| async move {
            let found = cluster.deployment(&pod.namespace, &owner).await;
            let autoscaler = cluster.autoscaler(&pod.namespace, &owner).await;
            (pod, owner, found, autoscaler)
        });
        let mut looks = futures::stream::iter(looks).buffer_unordered(PLAN_READS);
        let look = async {
            while let Some((pod, owner, found, autoscaler)) = looks.next().await {
                let answer = match (found, autoscaler) {
                    (Ok(Some(found)), Ok(autoscaler)) => {
                        let found = Scalable {
                            autoscaler,
                            ..found
                        };
                        may_surge(&found)
                            .map_or_else(|why| PlanSurge::No(why.to_string()), |()| PlanSurge::Yes)
                    }
                    (Ok(None), _) => PlanSurge::No(NoSurge::Deleted.to_string()),
                    (Err(error), _) | (_, Err(error)) => PlanSurge::Unknown(chain(&error)),
                };
                let now = self.clock.now();
                self.surges.insert(owner.uid, now, answer.clone());
                said.insert(pod, answer);
            }
        };
        // What was found by then is told.
        let _ = tokio::time::timeout(PLAN_SURGES_LIMIT, look).await;
        said
    }

    /// The furthest that the policy lets foreshock go with this very Node.
    fn reach(&self, node: &NodeId) -> Option<Reach> {
        let snapshot = self.snapshots.borrow();
        let entry = snapshot.node(node.name.as_str())?.entry.as_ref()?;
        (entry.facts.id == *node).then(|| self.policy.rules_of(&entry.facts).reach)
    }

    fn going<'a>(&self, pods: &'a [PodFacts], from: &'a NodeFacts) -> Vec<Going<'a>> {
        let leaves = |pod: &&PodFacts| {
            classify(pod, &self.policy.drain) == Disposition::Evict && pod.comes_back()
        };
        pods.iter()
            .filter(leaves)
            .map(|pod| Going {
                pod,
                from: &from.labels,
            })
            .collect()
    }

    /// Reads the Pods of those Nodes that were not read lately; `None` where one cannot be read.
    async fn fetch(
        &self,
        cluster: &dyn Cluster,
        nodes: &[&NodeFacts],
        read: &mut BTreeMap<NodeId, (Timestamp, Arc<Vec<PodFacts>>)>,
    ) -> Option<()> {
        let missing: Vec<NodeId> = nodes
            .iter()
            .filter(|facts| !read.contains_key(&facts.id))
            .map(|facts| facts.id.clone())
            .collect();
        let reads = missing.into_iter().map(|node| async move {
            let at = self.clock.now();
            let pods = cluster.pods(&node).await;
            (node, at, pods)
        });
        let mut answers = futures::stream::iter(reads).buffer_unordered(PLAN_READS);
        while let Some((node, at, answer)) = answers.next().await {
            match answer {
                Ok(pods) => drop(read.insert(node, (at, Arc::new(pods)))),
                Err(error) => {
                    debug!(node = %node, %error, "no room is shown in the plan: pods could not be read");
                    return None;
                }
            }
        }
        Some(())
    }
}

fn survivor<'a>(facts: &'a NodeFacts, pods: &'a [PodFacts]) -> Survivor<'a> {
    Survivor {
        name: &facts.id.name,
        labels: &facts.labels,
        taints: facts.taints.iter().collect(),
        allocatable: &facts.allocatable,
        pods,
    }
}

impl Plans for PlanDoor {
    fn facts(&self, node: &NodeId) -> BoxFuture<'_, Result<PlanFacts, PlanError>> {
        let node = node.clone();
        Box::pin(async move {
            let cluster = self.cluster.as_ref().ok_or(PlanError::NoCluster)?;
            let at = self.clock.now();
            let pods = cluster
                .pods(&node)
                .await
                .map_err(|error| PlanError::Unread {
                    problem: chain(&error),
                })?;
            let room = self.room(&**cluster, &node, &pods);
            let room = tokio::time::timeout(PLAN_ROOM_LIMIT, room);
            let reach = self.reach(&node);
            let dry_runs =
                self.dry_runs
                    .of(&**cluster, &*self.clock, reach, &pods, &self.policy.drain);
            let surges = self.surges(&**cluster, &pods);
            let alone = self
                .alone
                .of(&**cluster, &*self.clock, &pods, &self.policy.drain);
            let (room, dry_runs, surges, alone) = tokio::join!(room, dry_runs, surges, alone);
            Ok(PlanFacts {
                at,
                pods,
                rules: self.policy.drain.clone(),
                rate: f64::from(self.rate),
                room: room.unwrap_or(None),
                dry_runs,
                surges,
                alone,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use foreshock_core::decision::plan::MarkOrder;
    use foreshock_core::drain::{Answer, Choice};

    use super::*;
    use crate::clock::{SystemClock, VirtualClock};
    use crate::kubernetes::{
        ClusterError, ClusterEvent, Guard, LeaseState, LeaseView, LeaseWrite, NodeEntry, NodeTable,
        PodTable, WorkloadState,
    };

    /// Takes dry runs and reads Deployments, and nothing else.
    #[derive(Default)]
    struct Tried {
        asked: AtomicUsize,
        read: AtomicUsize,
        busy: AtomicBool,
    }

    impl Cluster for Tried {
        fn try_eviction(&self, pod: &PodId, _: Option<Duration>) -> BoxFuture<'_, DryRun> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let answer = if self.busy.load(Ordering::Relaxed) {
                DryRun::Busy(Some(Duration::from_secs(9)))
            } else if pod.name == "no" {
                DryRun::Refused("its budget".to_owned())
            } else if pod.name == "mute" {
                DryRun::NoAnswer("timed out".to_owned())
            } else {
                DryRun::Allowed
            };
            Box::pin(std::future::ready(answer))
        }

        fn deployment(
            &self,
            _: &str,
            owner: &Owner,
        ) -> BoxFuture<'_, Result<Option<Scalable>, ClusterError>> {
            self.read.fetch_add(1, Ordering::Relaxed);
            let replicas = match owner.name.as_str() {
                "one" => Ok(Some(1)),
                "two" => Ok(Some(2)),
                "gone" => Ok(None),
                _ => Err(ClusterError::Timeout {
                    action: format!("read {owner}"),
                    limit: Duration::from_secs(5),
                }),
            };
            let found = replicas.map(|replicas| {
                replicas.map(|replicas| Scalable {
                    replicas,
                    ..Scalable::default()
                })
            });
            Box::pin(std::future::ready(found))
        }

        fn set_guard(&self, _: Guard) {
            unreachable!("a plan sets no guard")
        }

        fn nodes(&self) -> watch::Receiver<Arc<NodeTable>> {
            unreachable!("dry runs look at no Node")
        }

        fn pods(&self, _: &NodeId) -> BoxFuture<'_, Result<Vec<PodFacts>, ClusterError>> {
            unreachable!("dry runs list no Pods")
        }

        fn watch_pods(&self, _: &NodeId) -> watch::Receiver<Arc<PodTable>> {
            unreachable!("dry runs watch no Pods")
        }

        fn watch_workload(&self, _: &str, _: &Owner) -> watch::Receiver<WorkloadState> {
            unreachable!("dry runs wait for no replacement")
        }

        fn read_pod(&self, _: &PodId) -> BoxFuture<'_, Result<Option<PodFacts>, ClusterError>> {
            unreachable!("dry runs read no Pod")
        }

        fn mark(&self, _: &MarkOrder) -> BoxFuture<'_, Result<NodeEntry, ClusterError>> {
            unreachable!("a plan writes nothing")
        }

        fn evict(&self, _: &PodId, _: Option<Duration>) -> BoxFuture<'_, Answer> {
            unreachable!("a plan evicts nothing")
        }

        fn lease(&self) -> watch::Receiver<LeaseState> {
            unreachable!("a plan asks for no Lease")
        }

        fn write_lease(&self, _: &LeaseWrite) -> BoxFuture<'_, Result<LeaseView, ClusterError>> {
            unreachable!("a plan writes nothing")
        }

        fn publish(&self, _: &ClusterEvent) -> BoxFuture<'_, Result<(), ClusterError>> {
            unreachable!("a plan publishes nothing")
        }
    }

    fn pod(name: &str) -> PodFacts {
        PodFacts {
            id: PodId {
                namespace: "shop".into(),
                name: name.into(),
                uid: name.into(),
            },
            owner: Some(Owner {
                group: "apps".into(),
                kind: "ReplicaSet".into(),
                name: "web".into(),
                uid: "rs".into(),
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
            critical: false,
            opted_out: None,
            tolerates_taint: false,
            own: false,
            budgets: Vec::new(),
            needs: foreshock_core::room::Needs::default(),
        }
    }

    fn rules() -> DrainRules {
        DrainRules {
            grace_cap: None,
            deadline: Duration::from_secs(900),
            pod_deadline: Duration::from_secs(600),
            pace: foreshock_core::drain::Pace::Owner,
            surge: false,
            unmanaged: Choice::Leave,
            empty_dir: Choice::Leave,
            local_volumes: Choice::Leave,
            devices: Choice::Evict,
            kube_system: Choice::Leave,
            opted_out: Choice::Leave,
            orphaned_daemon_set: Choice::Leave,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_only_pod_of_a_deployment_in_kube_system_is_told() {
        let of = |name: &str| {
            let mut pod = pod(name);
            pod.id.namespace = "kube-system".into();
            pod.workload = Ok(Some(Owner {
                group: "apps".into(),
                kind: "Deployment".into(),
                name: name.into(),
                uid: name.into(),
            }));
            pod
        };
        let mut elsewhere = of("one");
        elsewhere.id = pod("elsewhere").id;
        let mut covered = of("one");
        covered.id.name = "covered".into();
        covered.budgets.push(foreshock_core::drain::Budget {
            name: "dns".into(),
            allowance: foreshock_core::drain::EvictionAllowance::Now(1),
            observed: true,
            detail: String::new(),
        });
        let pods = [
            of("one"),
            of("two"),
            of("gone"),
            of("mute"),
            elsewhere,
            covered,
        ];
        let mut chosen = rules();
        let (cluster, alone) = (Tried::default(), Alone::default());
        let clock = VirtualClock::new(Timestamp::UNIX_EPOCH);
        let none = alone.of(&cluster, &clock, &pods, &chosen).await;
        assert!(none.is_empty(), "none of them goes");
        chosen.kube_system = Choice::Evict;
        let said = alone.of(&cluster, &clock, &pods, &chosen).await;
        let read = || cluster.read.load(Ordering::Relaxed);
        assert_eq!(read(), 4);
        for (later, reads) in [(19, 4), (1, 8)] {
            tokio::time::advance(Duration::from_secs(later)).await;
            let again = alone.of(&cluster, &clock, &pods, &chosen).await;
            assert_eq!((&again, read()), (&said, reads));
        }
        let names: Vec<&str> = said.keys().map(|pod| pod.name.as_str()).collect();
        assert_eq!(names, ["mute", "one"]);
        let words: Vec<&String> = said.values().collect();
        assert!(
            words[0].starts_with("may be the only one of Deployment/mute"),
            "{words:?}"
        );
        assert!(
            words[1].starts_with("is the only one of Deployment/one"),
            "{words:?}"
        );
    }

    async fn said(
        dry_runs: &DryRuns,
        cluster: &Tried,
        reach: Reach,
        pods: &[PodFacts],
    ) -> Vec<String> {
        let answers = dry_runs
            .of(cluster, &SystemClock, Some(reach), pods, &rules())
            .await;
        let words = |answer: &PlanDryRun| match answer {
            PlanDryRun::Allowed(_) => "allowed".to_owned(),
            PlanDryRun::Refused(_, why) | PlanDryRun::Unknown(why) => why.clone(),
        };
        answers.values().map(words).collect()
    }

    #[tokio::test]
    async fn only_pods_that_would_be_evicted_are_asked_about_and_once() {
        let (dry_runs, cluster) = (DryRuns::new(Arc::new(|| Ok(()))), Tried::default());
        let (mut left, mut going) = (pod("left"), pod("going"));
        left.empty_dir = true;
        going.terminating_until = Some(Timestamp::UNIX_EPOCH);
        let pods = [pod("fine"), going, left, pod("no")];
        let expected = [
            "allowed",
            "not asked: it is terminating already",
            "its budget",
        ];
        for _ in 0..3 {
            let answers = said(&dry_runs, &cluster, Reach::Evict, &pods).await;
            assert_eq!(answers, expected);
        }
        assert_eq!(cluster.asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_serves_for_half_a_minute_and_none_for_a_moment() {
        let clock = VirtualClock::new(Timestamp::UNIX_EPOCH);
        let asked_again = async |name: &str, later: Duration| {
            let (dry_runs, cluster) = (DryRuns::new(Arc::new(|| Ok(()))), Tried::default());
            let pods = [pod(name)];
            for wait in [Duration::ZERO, later] {
                tokio::time::advance(wait).await;
                dry_runs
                    .of(&cluster, &clock, Some(Reach::Evict), &pods, &rules())
                    .await;
            }
            cluster.asked.load(Ordering::Relaxed) == 2
        };
        let second = Duration::from_secs(1);
        for (name, long) in [("fine", 30), ("no", 30), ("mute", 3)] {
            assert!(!asked_again(name, (long - 1) * second).await, "{name}");
            assert!(asked_again(name, long * second).await, "{name}");
        }
    }

    #[tokio::test]
    async fn nothing_is_asked_below_reach_evict_or_where_no_write_may_leave() {
        let cluster = Tried::default();
        let open = DryRuns::new(Arc::new(|| Ok(())));
        let paused = DryRuns::new(Arc::new(|| Err("paused".to_owned())));
        for (dry_runs, reach, why) in [
            (&open, Reach::Observe, "not asked: reach is observe"),
            (&open, Reach::Label, "not asked: reach is label"),
            (&open, Reach::Taint, "not asked: reach is taint"),
            (&paused, Reach::Evict, "not asked: paused"),
        ] {
            let answers = said(dry_runs, &cluster, reach, &[pod("a")]).await;
            assert_eq!(answers, [why]);
        }
        assert_eq!(cluster.asked.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_server_is_left_alone_and_a_plan_does_not_wait_for_it() {
        let (dry_runs, cluster) = (DryRuns::new(Arc::new(|| Ok(()))), Tried::default());
        cluster.busy.store(true, Ordering::Relaxed);
        let pods: Vec<PodFacts> = (0..50).map(|n| pod(&format!("p{n}"))).collect();
        let answers = said(&dry_runs, &cluster, Reach::Evict, &pods).await;
        assert!(
            answers
                .iter()
                .all(|why| why == "not asked: the API server is busy")
        );
        let first = cluster.asked.load(Ordering::Relaxed);
        assert!(
            (1..=DRY_RUNS_IN_FLIGHT).contains(&first),
            "{first} were asked"
        );
        // It asked for 9 s, and a plan has 5.
        let answers = said(&dry_runs, &cluster, Reach::Evict, &pods).await;
        assert!(answers.iter().all(|why| why.contains("no time left")));
        assert_eq!(cluster.asked.load(Ordering::Relaxed), first);
    }
}
