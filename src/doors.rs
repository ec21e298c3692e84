//! What requests may cause, and where: the webhook, the switch, the plan of a drain, and who leads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use foreshock_core::decision::policy::Policy;
use foreshock_core::decision::verdict::Phase;
use foreshock_core::decision::world::NodeFacts;
use foreshock_core::drain::{Disposition, PodFacts, classify};
use foreshock_core::node::{NodeId, NodeName};
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
use crate::kubernetes::Cluster;
use crate::metrics::{Counters, WebhookOutcome};
use crate::snapshot::Snapshot;
use crate::web::{
    Bytes, Control, ControlError, Lead, Leads, PlanError, PlanFacts, PlanRoom, Plans, Switched,
    Webhook, WebhookAnswer,
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
}

impl PlanDoor {
    pub(crate) fn new(
        cluster: Option<Arc<dyn Cluster>>,
        policy: Arc<Policy>,
        rate: u32,
        clock: Arc<dyn Clock>,
        snapshots: watch::Receiver<Arc<Snapshot>>,
    ) -> Self {
        Self {
            cluster,
            policy,
            rate,
            clock,
            snapshots,
            read: Mutex::default(),
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
            let room = tokio::time::timeout(PLAN_ROOM_LIMIT, room).await;
            Ok(PlanFacts {
                at,
                pods,
                rules: self.policy.drain.clone(),
                rate: f64::from(self.rate),
                room: room.unwrap_or(None),
            })
        })
    }
}
