//! Kubernetes Events, published one after the other and never in the way of a write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::gate::Gate;
use super::turns::Turns;
use crate::kubernetes::{Cluster, ClusterEvent};

/// Events that may wait. At four a second, while Pods are evicted, some minutes; what takes longer is no news.
const EVENTS_MAX: usize = 1_024;
/// Between two of them while Pods are evicted: what the server has to do then is for the evictions.
const PAUSE: Duration = Duration::from_millis(250);

/// The end that has something to say.
#[derive(Clone, Debug)]
pub struct EventTx {
    tx: mpsc::Sender<ClusterEvent>,
    dropped: Arc<AtomicU64>,
}

impl EventTx {
    /// Has an Event published, if there is room and while writing is allowed. Best effort: everything
    /// that Events say is in the log and the API too.
    pub fn publish(&self, event: ClusterEvent) {
        if self.tx.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many were dropped because too many waited.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The two ends.
pub fn channel() -> (EventTx, mpsc::Receiver<ClusterEvent>) {
    let (tx, rx) = mpsc::channel(EVENTS_MAX);
    (
        EventTx {
            tx,
            dropped: Arc::default(),
        },
        rx,
    )
}

/// Publishes until `stop`, or until nobody has anything to say any more.
pub(super) async fn run(
    cluster: Arc<dyn Cluster>,
    gate: Gate,
    turns: Arc<Turns>,
    mut events: mpsc::Receiver<ClusterEvent>,
    stop: CancellationToken,
) {
    loop {
        let event = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            event = events.recv() => match event {
                Some(event) => event,
                None => return,
            },
        };
        if turns.in_use() {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
        if let Err(closed) = gate.check() {
            debug!(node = event.node.as_ref().map(tracing::field::display), reason = event.reason, %closed, "event not published");
            continue;
        }
        if let Err(error) = cluster.publish(&event).await {
            warn!(node = event.node.as_ref().map(tracing::field::display), reason = event.reason, %error, "event not published");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_counted() {
        let (tx, _rx) = channel();
        let event = ClusterEvent {
            node: None,
            pod: None,
            reason: "DegradationTainted",
            warning: false,
            note: String::new(),
        };
        for _ in 0..EVENTS_MAX {
            tx.publish(event.clone());
        }
        assert_eq!(tx.dropped(), 0);
        for dropped in 1..=3 {
            tx.publish(event.clone());
            assert_eq!(tx.dropped(), dropped);
        }
    }
}
