//! Kubernetes Events, published one after the other and never in the way of a write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
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
    /// Of Pods that go, of which there may be hundreds.
    pods: mpsc::Sender<ClusterEvent>,
    /// All others, and warnings.
    others: mpsc::Sender<ClusterEvent>,
    dropped: Arc<AtomicU64>,
}

/// The end that publishes.
#[derive(Debug)]
pub struct EventRx {
    pods: mpsc::Receiver<ClusterEvent>,
    others: mpsc::Receiver<ClusterEvent>,
    dropped: Arc<AtomicU64>,
}

impl EventTx {
    /// Has an Event published, if there is room and while writing is allowed. Best effort: everything
    /// that Events say is in the log and the API too.
    pub fn publish(&self, event: ClusterEvent) {
        let tx = if event.pod.is_some() && !event.warning {
            &self.pods
        } else {
            &self.others
        };
        if tx.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many were dropped because too many waited, or because the process ended.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl EventRx {
    /// What waits and would be published next, if anything.
    pub fn take(&mut self) -> Option<ClusterEvent> {
        let other = self.others.try_recv();
        other.or_else(|_| self.pods.try_recv()).ok()
    }
}

/// The two ends.
pub fn channel() -> (EventTx, EventRx) {
    let (pods, pods_rx) = mpsc::channel(EVENTS_MAX);
    let (others, others_rx) = mpsc::channel(EVENTS_MAX);
    let dropped = Arc::<AtomicU64>::default();
    let tx = EventTx {
        pods,
        others,
        dropped: Arc::clone(&dropped),
    };
    let rx = EventRx {
        pods: pods_rx,
        others: others_rx,
        dropped,
    };
    (tx, rx)
}

/// Publishes until `stop`, or until nobody has anything to say any more.
pub(super) async fn run(
    cluster: Arc<dyn Cluster>,
    gate: Gate,
    turns: Arc<Turns>,
    mut events: EventRx,
    stop: CancellationToken,
) {
    let mut last = Instant::now();
    loop {
        let due = if turns.in_use() { last + PAUSE } else { last };
        let pods = &mut events.pods;
        let next_of_pods = async {
            tokio::time::sleep_until(due).await;
            pods.recv().await
        };
        let event = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(event) = events.others.recv() => event,
            event = next_of_pods => match event {
                Some(event) => event,
                None => return,
            },
        };
        last = Instant::now();
        if let Err(closed) = gate.check() {
            debug!(node = event.node.as_ref().map(tracing::field::display), reason = event.reason, %closed, "event not published");
            continue;
        }
        if let Err(error) = cluster.publish(&event).await {
            warn!(node = event.node.as_ref().map(tracing::field::display), reason = event.reason, %error, "event not published");
        }
    }
    let left = events.pods.len() + events.others.len();
    if left > 0 {
        let dropped = u64::try_from(left).unwrap_or(u64::MAX);
        events.dropped.fetch_add(dropped, Ordering::Relaxed);
        debug!(left, "events not published: the process ends");
    }
}

#[cfg(test)]
mod tests {
    use foreshock_core::decision::policy::Reach;

    use super::*;
    use crate::actuator::fake::Fake;
    use crate::actuator::{Leader, LeaderOptions, LeaseTimes, identity};

    fn event(reason: &'static str) -> ClusterEvent {
        ClusterEvent {
            node: None,
            pod: None,
            reason,
            warning: false,
            note: String::new(),
        }
    }

    fn event_of_pod(reason: &'static str) -> ClusterEvent {
        ClusterEvent {
            pod: Some(crate::actuator::fake::pod("p").id),
            ..event(reason)
        }
    }

    #[test]
    fn what_is_no_news_of_one_pod_comes_first_and_warnings_of_pods_with_it() {
        let (tx, mut rx) = channel();
        tx.publish(event_of_pod("Evicted"));
        tx.publish(event("Tainted"));
        tx.publish(ClusterEvent {
            warning: true,
            ..event_of_pod("NotEvicted")
        });
        let mut taken = std::iter::from_fn(|| rx.take()).map(|event| event.reason);
        assert!(taken.by_ref().eq(["Tainted", "NotEvicted", "Evicted"]));
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_when_the_process_ends_is_counted() {
        let cluster = Fake::new();
        let leading = LeaderOptions {
            identity: identity(&*cluster.clock),
            address: None,
            elect: true,
            times: LeaseTimes::default(),
        };
        let as_cluster = || Arc::clone(&cluster) as Arc<dyn Cluster>;
        let (_leader, handle) = Leader::new(as_cluster(), cluster.clock.clone(), leading);
        let (tx, rx) = channel();
        for _ in 0..2 {
            tx.publish(event_of_pod("Evicted"));
        }
        for _ in 0..3 {
            tx.publish(event("Tainted"));
        }
        let stop = CancellationToken::new();
        stop.cancel();
        let turns = Arc::new(Turns::per_second(1));
        run(as_cluster(), handle.gate(Reach::Evict), turns, rx, stop).await;
        assert_eq!(tx.dropped(), 5);
        assert_eq!(cluster.written(), []);
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let (tx, _rx) = channel();
        let event = event("DegradationTainted");
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
