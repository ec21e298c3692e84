//! What all drains know of the workloads of their Pods, and what they have asked of them.
//!
//! Two drains with Pods of one workload must not both send: looking, deciding and noting what is sent
//! happen under one lock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foreshock_core::drain::{Answer, PodId, Workloads};
use foreshock_core::node::{NodeName, Uid};
use foreshock_core::time::since;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

/// The board of one process.
#[derive(Debug)]
pub(super) struct Board {
    inner: Mutex<Inner>,
    /// A turn was given back, or something is settled: others may have waited for it.
    changed: watch::Sender<()>,
    since: Instant,
}

#[derive(Debug, Default)]
struct Inner {
    workloads: Workloads,
    /// Workloads of the Pods of each running drain.
    concerned: BTreeMap<NodeName, BTreeSet<Uid>>,
}

impl Board {
    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::default(),
            changed: watch::Sender::new(()),
            since: Instant::now(),
        }
    }

    /// Looks, decides and notes what is sent, with nobody in between. `workloads` are those of the Pods
    /// of this Node that are to go; `leads_since`, from when on nobody else has sent anything.
    pub(super) fn look<T>(
        &self,
        node: &NodeName,
        workloads: BTreeSet<Uid>,
        now: Timestamp,
        leads_since: Option<Timestamp>,
        pod_deadline: Duration,
        decide: impl FnOnce(&mut Workloads) -> T,
    ) -> T {
        let mut inner = self.lock();
        // What an earlier drain has waited for in vain is no time that this one has waited.
        if inner.concerned.insert(node.clone(), workloads).is_none() {
            inner.workloads.expire(now, pod_deadline);
        }
        // By then nothing is awaited any more of what a predecessor may have evicted. A follower may have
        // been up for weeks, so the time that it leads counts; and the process's own, which no clock that
        // is put right can lengthen.
        let settled_before = leads_since.is_some_and(|led| since(led, now) >= pod_deadline)
            && self.since.elapsed() >= pod_deadline;
        inner.workloads.trust(settled_before);
        let decided = decide(&mut inner.workloads);
        let before = inner.workloads.unsettled().count();
        let concerned = inner.concerned.values().flatten().cloned().collect();
        inner.workloads.settle(&concerned, now, pod_deadline);
        let settled = inner.workloads.unsettled().count() < before;
        drop(inner);
        if settled {
            self.changed.send_replace(());
        }
        decided
    }

    /// Notes that a request never left, and none before it.
    pub(super) fn withheld(&self, pod: &PodId) {
        self.lock().workloads.withheld(pod);
        self.changed.send_replace(());
    }

    /// Notes the answer to a request.
    pub(super) fn answered(&self, pod: &PodId, answer: &Answer) {
        self.lock().workloads.answered(pod, answer);
        self.changed.send_replace(());
    }

    /// The drain of this Node waits for nobody any more.
    pub(super) fn leave(&self, node: &NodeName) {
        self.lock().concerned.remove(node);
        self.changed.send_replace(());
    }

    /// Shows when it may be worth looking again.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use foreshock_core::drain::{Owner, PodFacts};
    use foreshock_core::time::after;

    use super::*;
    use crate::actuator::fake::pod;

    const DEADLINE: Duration = Duration::from_secs(600);

    fn of_a_deployment() -> PodFacts {
        let mut pod = pod("a");
        pod.workload = Ok(Some(Owner {
            group: "apps".to_owned(),
            kind: "Deployment".to_owned(),
            name: "web".to_owned(),
            uid: Uid::from("web"),
        }));
        pod
    }

    /// Whether the only Pod of a Deployment here may go without a look at it.
    fn is_trusted(board: &Board, now: Timestamp, leads_since: Option<Timestamp>) -> bool {
        let node = NodeName::from("a");
        let pod = of_a_deployment();
        board.look(
            &node,
            BTreeSet::new(),
            now,
            leads_since,
            DEADLINE,
            |workloads| workloads.to_look_at(std::iter::once(&pod)).is_empty(),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_leader_trusts_no_shortage_however_long_it_has_been_up() {
        let board = Board::new();
        let begin = Timestamp::UNIX_EPOCH;
        let led_for = |time: Duration| (after(begin, time), Some(begin));
        let (now, led) = led_for(DEADLINE);
        assert!(!is_trusted(&board, now, led), "the clock was put forward");
        tokio::time::advance(7 * 24 * 6 * DEADLINE).await;
        assert!(!is_trusted(&board, now, None), "it does not lead");
        let (now, led) = led_for(DEADLINE - Duration::from_millis(1));
        assert!(!is_trusted(&board, now, led), "it leads since a moment ago");
        let (now, led) = led_for(DEADLINE);
        assert!(is_trusted(&board, now, led));
    }

    /// What the drain of `node`, whose Pods are of `web`, does in a look.
    fn look<T>(
        board: &Board,
        node: &str,
        at: Timestamp,
        act: impl FnOnce(&mut Workloads) -> T,
    ) -> T {
        let workloads = BTreeSet::from([Uid::from("web")]);
        board.look(&NodeName::from(node), workloads, at, None, DEADLINE, act)
    }

    #[tokio::test(start_paused = true)]
    async fn others_hear_when_something_is_settled_and_not_at_every_look() {
        let board = Board::new();
        let begin = Timestamp::UNIX_EPOCH;
        let mut changes = board.changes();
        let mut heard = || {
            let heard = changes.has_changed().expect("open");
            changes.mark_unchanged();
            heard
        };
        let pod = of_a_deployment();
        look(&board, "a", begin, |workloads| workloads.sent(&pod, begin));
        assert!(!heard(), "nothing is settled");
        let early = after(begin, DEADLINE - Duration::from_millis(1));
        look(&board, "a", early, |_| ());
        assert!(!heard());
        let late = after(begin, DEADLINE);
        look(&board, "a", late, |_| ());
        assert!(heard(), "nobody waits for it any more");
        look(&board, "a", late, |_| ());
        assert!(!heard());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_never_left_gives_its_turn_back() {
        let board = Board::new();
        let (begin, pod) = (Timestamp::UNIX_EPOCH, of_a_deployment());
        let unsettled = |board: &Board| look(board, "a", begin, |all| all.unsettled().count());
        look(&board, "a", begin, |workloads| workloads.sent(&pod, begin));
        assert_eq!(unsettled(&board), 1);
        let changes = board.changes();
        board.withheld(&pod.id);
        assert!(changes.has_changed().expect("open"));
        assert_eq!(unsettled(&board), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_drain_waits_for_any_more_is_forgotten() {
        let board = Board::new();
        let (begin, web) = (Timestamp::UNIX_EPOCH, Uid::from("web"));
        // The only Pod of a workload goes unseen, unless something is known of it.
        tokio::time::advance(DEADLINE).await;
        let now = after(begin, DEADLINE);
        let known = |board: &Board| {
            is_trusted(board, now, Some(begin));
            !is_trusted(board, now, Some(begin))
        };
        assert!(!known(&board));
        let problem = || Err("cannot be looked at".to_owned());
        let of_b = BTreeSet::from([web.clone()]);
        let see = |all: &mut Workloads| all.see(&web, problem());
        board.look(&NodeName::from("b"), of_b, now, Some(begin), DEADLINE, see);
        assert!(known(&board), "the drain of b waits for it");
        let changes = board.changes();
        board.leave(&NodeName::from("b"));
        assert!(changes.has_changed().expect("open"));
        assert!(!known(&board));
    }
}
