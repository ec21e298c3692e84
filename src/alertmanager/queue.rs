//! What stands between the webhook's handler and the cycle: the body is read and queued at once, so
//! that Alertmanager has its answer within milliseconds and never sends the same again for slowness.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::payload::{Payload, PayloadError};

/// What became of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is in the queue: 202.
    Accepted {
        /// Alerts in it, unreadable ones included.
        alerts: usize,
    },
    /// There is no room: 503, and Alertmanager comes again.
    Full,
}

/// The sending end, for the webhook's handler. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WebhookQueue {
    tx: mpsc::Sender<Payload>,
    /// Alerts in the queue. Bodies alone would not bound the memory: one may hold tens of thousands.
    waiting: Arc<AtomicUsize>,
}

/// The receiving end, for the cycle.
#[derive(Debug)]
pub struct WebhookReceiver {
    rx: mpsc::Receiver<Payload>,
    waiting: Arc<AtomicUsize>,
}

/// Bodies that may wait. The cycle takes them at least once a second; Alertmanager sends one per
/// group and `group_interval`.
const BODIES_MAX: usize = 256;

/// A queue between the webhook's handler and the cycle.
pub fn webhook_queue() -> (WebhookQueue, WebhookReceiver) {
    let (tx, rx) = mpsc::channel(BODIES_MAX);
    let waiting = Arc::new(AtomicUsize::new(0));
    (
        WebhookQueue {
            tx,
            waiting: Arc::clone(&waiting),
        },
        WebhookReceiver { rx, waiting },
    )
}

impl WebhookQueue {
    /// Alerts that may wait, in all bodies together; one body alone always fits.
    pub const ALERTS_MAX: usize = Payload::ALERTS_MAX;

    /// Reads a body and queues it.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] when it is no webhook of Alertmanager's: 400.
    pub fn take(&self, body: &[u8]) -> Result<Taken, PayloadError> {
        Ok(self.try_send(Payload::parse(body)?))
    }

    /// Queues what has been read.
    pub fn try_send(&self, payload: Payload) -> Taken {
        let alerts = payload.alerts.len();
        let entries = alerts + payload.malformed + payload.beyond;
        let waiting = self.waiting.fetch_add(alerts, Ordering::Relaxed);
        let fits = waiting == 0 || waiting + alerts <= Self::ALERTS_MAX;
        if fits && self.tx.try_send(payload).is_ok() {
            return Taken::Accepted { alerts: entries };
        }
        self.waiting.fetch_sub(alerts, Ordering::Relaxed);
        Taken::Full
    }
}

impl WebhookReceiver {
    /// The next payload; `None` when every sender is gone. Loses nothing when it is cancelled.
    pub async fn recv(&mut self) -> Option<Payload> {
        let payload = self.rx.recv().await?;
        self.taken(&payload);
        Some(payload)
    }

    /// The next payload, if one waits.
    pub fn try_recv(&mut self) -> Option<Payload> {
        let payload = self.rx.try_recv().ok()?;
        self.taken(&payload);
        Some(payload)
    }

    fn taken(&self, payload: &Payload) {
        let alerts = payload.alerts.len();
        self.waiting.fetch_sub(alerts, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::alertmanager::{Alert, AlertStatus};

    fn of(alerts: usize) -> Payload {
        let alert = Alert {
            fingerprint: "f".into(),
            status: AlertStatus::Firing,
            labels: Default::default(),
            summary: String::new(),
            starts_at: Timestamp::UNIX_EPOCH,
            ends_at: None,
            updated_at: None,
        };
        Payload {
            alerts: vec![alert; alerts],
            ..Payload::default()
        }
    }

    #[test]
    fn a_full_queue_is_an_answer_and_room_comes_back() {
        let (tx, mut rx) = webhook_queue();
        for _ in 0..BODIES_MAX {
            assert_eq!(tx.try_send(of(1)), Taken::Accepted { alerts: 1 });
        }
        assert_eq!(tx.try_send(of(1)), Taken::Full);
        assert!(rx.try_recv().is_some());
        assert_eq!(tx.try_send(of(1)), Taken::Accepted { alerts: 1 });
    }

    #[test]
    fn alerts_are_bounded_as_well_as_bodies() {
        let (tx, mut rx) = webhook_queue();
        let max = WebhookQueue::ALERTS_MAX;
        assert_eq!(
            tx.try_send(of(max - 1)),
            Taken::Accepted { alerts: max - 1 }
        );
        assert_eq!(tx.try_send(of(2)), Taken::Full);
        assert_eq!(tx.try_send(of(1)), Taken::Accepted { alerts: 1 });
        while rx.try_recv().is_some() {}
        assert_eq!(tx.try_send(of(max)), Taken::Accepted { alerts: max });
    }

    #[test]
    fn without_a_cycle_behind_it_nothing_is_accepted() {
        let (tx, rx) = webhook_queue();
        drop(rx);
        assert_eq!(tx.try_send(of(1)), Taken::Full);
    }

    #[tokio::test]
    async fn a_body_is_read_before_it_is_queued() {
        let (tx, mut rx) = webhook_queue();
        assert!(tx.take(b"not json").is_err());
        let body = br#"{"version":"4","alerts":[{"odd":1}]}"#;
        let taken = tx.take(body).expect("a webhook");
        assert_eq!(taken, Taken::Accepted { alerts: 1 });
        assert_eq!(rx.recv().await.map(|payload| payload.malformed), Some(1));
        drop(tx);
        assert_eq!(rx.recv().await, None);
    }
}
