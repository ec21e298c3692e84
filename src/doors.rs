//! What requests may cause, and where: the webhook, the switch, the plan of a drain, and who leads.

mod dry_runs;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::watch;

pub(crate) use self::dry_runs::MayWrite;
pub(crate) use self::plan::PlanDoor;
use crate::actuator::{LeaderHandle, Leadership};
use crate::alertmanager::{Taken, WebhookQueue};
use crate::cycle::chain;
use crate::metrics::{Counters, WebhookOutcome};
use crate::web::{Bytes, Control, ControlError, Lead, Leads, Switched, Webhook, WebhookAnswer};

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
