//! Alertmanager: what it sends becomes evidence, and nothing else.
//!
//! [`Payload`] reads the webhook's body and the list of active alerts, [`AlertRules`] says which
//! alerts count and how far, [`AlertBook`] remembers them until they end or run out. Nothing in here
//! acts: the cycle asks the book for [`AlertBook::active_by_node`] when it decides.

mod book;
mod client;
mod matcher;
mod payload;
mod queue;
mod rules;

pub use book::{AlertBook, AlertOutcome, Applied, Received, ShownAlert};
pub use client::{AlertmanagerClient, AlertmanagerError};
pub use matcher::{MatchOp, Matcher, MatcherError};
pub use payload::{Alert, AlertStatus, Payload, PayloadError};
pub use queue::{Taken, WebhookQueue, WebhookReceiver, webhook_queue};
pub use rules::{AlertRule, AlertRules, NodeClue, NodeDirectory, NodeProblem};
