//! What requests may cause, and where: the webhook, the switch, the plan of a drain, and who leads.

use std::sync::Arc;

use foreshock_core::decision::policy::Policy;
use foreshock_core::node::NodeId;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::actuator::{LeaderHandle, Leadership};
use crate::alertmanager::{Taken, WebhookQueue};
use crate::clock::Clock;
use crate::cycle::chain;
use crate::kubernetes::Cluster;
use crate::metrics::{Counters, WebhookOutcome};
use crate::web::{
    Bytes, Control, ControlError, Lead, Leads, PlanError, PlanFacts, Plans, Switched, Webhook,
    WebhookAnswer,
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

/// Reads the Pods of a Node for a plan that somebody asked for.
pub(crate) struct PlanDoor {
    pub(crate) cluster: Option<Arc<dyn Cluster>>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) rate: u32,
    pub(crate) clock: Arc<dyn Clock>,
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
            Ok(PlanFacts {
                at,
                pods,
                rules: self.policy.drain.clone(),
                rate: f64::from(self.rate),
            })
        })
    }
}
