//! What requests may cause: the webhook, the switch, and the plan of a drain.

use std::sync::Arc;

use foreshock_core::decision::policy::Policy;
use foreshock_core::node::NodeId;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::actuator::Leadership;
use crate::alertmanager::{Taken, WebhookQueue};
use crate::clock::Clock;
use crate::cycle::chain;
use crate::kubernetes::Cluster;
use crate::metrics::{Counters, WebhookOutcome};
use crate::web::{Bytes, Control, ControlError, PlanError, PlanFacts, Plans, Switched, Webhook, WebhookAnswer};

/// Puts what Alertmanager sends into the queue.
pub(crate) struct WebhookDoor {
    pub(crate) queue: WebhookQueue,
    pub(crate) counters: Arc<Counters>,
}

impl Webhook for WebhookDoor {
    fn receive(&self, body: Bytes) -> WebhookAnswer {
        let (outcome, answer) = match self.queue.take(&body) {
            Ok(Taken::Accepted { alerts }) => (WebhookOutcome::Accepted, WebhookAnswer::Accepted { alerts }),
            Ok(Taken::Full) => (WebhookOutcome::Full, WebhookAnswer::QueueFull),
            Err(error) => (WebhookOutcome::Malformed, WebhookAnswer::Malformed { problem: chain(&error) }),
        };
        self.counters.webhook(outcome);
        answer
    }
}

/// The switch where nothing is ever written: there is no Lease to put it on, so it ends with the process.
pub(crate) struct LocalSwitch {
    pub(crate) leadership: watch::Sender<Leadership>,
}

impl LocalSwitch {
    fn set(&self, paused: bool) -> BoxFuture<'_, Result<Switched, ControlError>> {
        self.leadership.send_modify(|leadership| leadership.paused = paused);
        Box::pin(std::future::ready(Ok(Switched { paused, lasting: false })))
    }
}

impl Control for LocalSwitch {
    fn pause(&self) -> BoxFuture<'_, Result<Switched, ControlError>> {
        self.set(true)
    }

    fn resume(&self) -> BoxFuture<'_, Result<Switched, ControlError>> {
        self.set(false)
    }
}

/// Reads the Pods of a Node for a plan that somebody asked for.
pub(crate) struct PlanDoor {
    pub(crate) cluster: Option<Arc<dyn Cluster>>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) rate: f64,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Plans for PlanDoor {
    fn facts(&self, node: &NodeId) -> BoxFuture<'_, Result<PlanFacts, PlanError>> {
        let node = node.clone();
        Box::pin(async move {
            let cluster = self.cluster.as_ref().ok_or(PlanError::NoCluster)?;
            let at = self.clock.now();
            let pods = cluster.pods(&node).await.map_err(|error| PlanError::Unread { problem: chain(&error) })?;
            Ok(PlanFacts { at, pods, rules: self.policy.drain.clone(), rate: self.rate })
        })
    }
}
