//! What a drain of a Node would meet, for whoever asks: read-only, and within bounds however many ask.

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

use super::dry_runs::{DryRuns, MayWrite};
use crate::clock::Clock;
use crate::cycle::chain;
use crate::kubernetes::Cluster;
use crate::snapshot::Snapshot;
use crate::web::{PlanError, PlanFacts, PlanRoom, PlanSurge, Plans};

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
pub(super) struct Alone {
    /// What is to be said about the Pod of a Deployment, if anything.
    known: Lately<Option<String>>,
}

impl Alone {
    pub(super) async fn of(
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
