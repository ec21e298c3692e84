//! Where evicted Pods went: follows their workloads, also after the drain is over, and says it once.
//!
//! Nothing waits for this. While a drain looks at a workload, what it sees is used; the others are followed
//! by watches that take no place and no turn from those of drains.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foreshock_core::drain::{Answer, DrainId, Moved, Moves, Owner, PodFacts, PodId, Workload};
use foreshock_core::node::{NodeName, Uid};
use foreshock_core::time::since;
use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::drain::{Shared, any_changed};
use super::reports::Report;
use crate::kubernetes::text::clean;
use crate::kubernetes::{ClusterEvent, WorkloadState};

/// Workloads that are followed at once: as many as have places.
const FOLLOWED_MAX: usize = 16;
/// Where others wait, a workload without news gives up its place after this, and comes again after them.
const TURN: Duration = Duration::from_secs(20);
/// While Pods are evicted nothing more is followed: replacements are told by their times, so a later look sees as
/// much, and the API server is busy. For so long at most; a Pod that is waited for may be gone after an hour.
const HELD_BACK_MAX: Duration = Duration::from_secs(60);
/// Between two looks while nothing more is followed.
const LOOK_HELD_BACK: Duration = Duration::from_secs(1);
/// Between two looks at least: a thousand evictions are followed in one look.
const LOOK_FLOOR: Duration = Duration::from_millis(200);
/// Between two looks at most: the wall clock, which deadlines are on, can be set forwards meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Letters of what is said; the sentence names only a few, but names are long.
const TEXT_MAX: usize = 500;

/// What was evicted and has to become Ready again.
#[derive(Debug, Default)]
pub(super) struct Account {
    inner: Mutex<Inner>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    moves: Moves,
    /// Workloads that the drain of each Node looks at by itself.
    looked_at: BTreeMap<NodeName, BTreeSet<Uid>>,
}

impl Account {
    /// Notes that a request is being made for this Pod.
    pub(super) fn sent(
        &self,
        drain: &DrainId,
        pod: &PodFacts,
        at: Timestamp,
        pod_deadline: Duration,
    ) {
        self.lock().moves.sent(drain, pod, at, pod_deadline);
    }

    /// Notes that the request never left, and none before it.
    pub(super) fn withheld(&self, pod: &PodId) {
        self.lock().moves.withheld(pod);
    }

    /// Notes the answer to a request.
    pub(super) fn answered(&self, pod: &PodId, answer: &Answer) {
        self.lock().moves.answered(pod, answer);
        self.news.notify_one();
    }

    /// What a drain sees of a workload.
    pub(super) fn see(&self, workload: &Uid, seen: &Result<Workload, String>) {
        self.lock().moves.see(workload, seen);
    }

    /// These are looked at by the drain of this Node, which tells of them.
    pub(super) fn looks_at(&self, node: &NodeName, workloads: BTreeSet<Uid>) {
        let mut inner = self.lock();
        let before = inner.looked_at.insert(node.clone(), workloads);
        let differs = before.as_ref() != inner.looked_at.get(node);
        drop(inner);
        if differs {
            self.news.notify_one();
        }
    }

    /// This drain sends nothing more and looks at nothing more.
    pub(super) fn over(&self, drain: &DrainId) {
        let mut inner = self.lock();
        inner.looked_at.remove(&drain.node.name);
        inner.moves.over(drain);
        drop(inner);
        self.news.notify_one();
    }

    /// The drains that are settled, the workloads that nobody looks at and whose Pods are awaited, and when
    /// to look again.
    fn look(&self, now: Timestamp) -> (Vec<Moved>, Vec<(String, Owner)>, Duration) {
        let mut inner = self.lock();
        let settled = inner.moves.settle(now);
        let looked_at: BTreeSet<&Uid> = inner.looked_at.values().flatten().collect();
        let awaited = inner.moves.awaited(now).into_iter();
        let awaited = awaited
            .filter(|(_, owner)| !looked_at.contains(&owner.uid))
            .map(|(namespace, owner)| (namespace.to_owned(), owner.clone()));
        let pause = inner.moves.wake_at(now).map(|at| since(now, at));
        let pause = pause.unwrap_or(LOOK_EVERY).min(LOOK_EVERY);
        (settled, awaited.collect(), pause)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The workloads that are followed.
#[derive(Default)]
struct Followed {
    states: BTreeMap<Uid, watch::Receiver<WorkloadState>>,
    since: BTreeMap<Uid, Instant>,
    /// Those that gave up their places, and when.
    yielded: BTreeMap<Uid, Instant>,
    /// Since when Pods are evicted without a pause.
    busy_since: Option<Instant>,
}

impl Followed {
    /// Whether nothing more is to be followed now, since Pods are evicted.
    fn is_held_back(&mut self, busy: bool) -> bool {
        let now = Instant::now();
        let since = busy.then(|| self.busy_since.unwrap_or(now));
        self.busy_since = since;
        since.is_some_and(|since| now < since + HELD_BACK_MAX)
    }

    /// Ends to follow all but these.
    fn keep(&mut self, awaited: &[(String, Owner)]) {
        let wanted: BTreeSet<&Uid> = awaited.iter().map(|(_, owner)| &owner.uid).collect();
        self.since.retain(|uid, _| wanted.contains(uid));
        self.yielded.retain(|uid, _| wanted.contains(uid));
        self.states.retain(|uid, _| wanted.contains(uid));
    }

    /// Follows these, as far as there are places; the first of them first.
    fn choose(&mut self, awaited: &[(String, Owner)], shared: &Shared) {
        let now = Instant::now();
        self.keep(awaited);
        let wanted: BTreeSet<&Uid> = awaited.iter().map(|(_, owner)| &owner.uid).collect();
        if wanted.len() > FOLLOWED_MAX {
            let yielded = &mut self.yielded;
            self.since.retain(|uid, since| {
                let stays = now < *since + TURN;
                if !stays {
                    yielded.insert(uid.clone(), now);
                }
                stays
            });
        }
        let mut waiting: Vec<&(String, Owner)> = awaited
            .iter()
            .filter(|(_, owner)| !self.since.contains_key(&owner.uid))
            .collect();
        // Stable: among those that have not been followed, who has waited longest.
        waiting.sort_by_key(|(_, owner)| self.yielded.get(&owner.uid).copied());
        for (namespace, owner) in waiting {
            if self.since.len() >= FOLLOWED_MAX {
                break;
            }
            self.since.insert(owner.uid.clone(), now);
            self.yielded.remove(&owner.uid);
            self.states
                .entry(owner.uid.clone())
                .or_insert_with(|| shared.cluster.follow_workload(namespace, owner));
        }
        let since = &self.since;
        self.states.retain(|uid, _| since.contains_key(uid));
    }
}

/// Follows what was evicted until `stop`.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut followed = Followed::default();
    loop {
        for (workload, state) in &mut followed.states {
            if let Some(seen) = &*state.borrow_and_update() {
                shared.account.see(workload, seen);
            }
        }
        let now = shared.clock.now();
        let (settled, awaited, pause) = shared.account.look(now);
        for moved in settled {
            say(&shared, moved, now);
        }
        let pause = if followed.is_held_back(shared.turns.in_use()) {
            followed.keep(&awaited);
            pause.min(LOOK_HELD_BACK)
        } else {
            followed.choose(&awaited, &shared);
            pause
        };
        let floor = Instant::now() + LOOK_FLOOR;
        let wake = floor.max(Instant::now() + pause);
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = shared.account.news.notified() => {}
            () = any_changed(&mut followed.states) => {}
            () = tokio::time::sleep_until(wake) => {}
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(floor) => {}
        }
    }
}

fn say(shared: &Shared, moved: Moved, at: Timestamp) {
    // Names come from the API server, a problem's words from wherever.
    let message = clean(&moved.to_string(), TEXT_MAX);
    let node = moved.drain.node.clone();
    info!(node = %node, message, "replacements of evicted pods");
    shared.events.publish(ClusterEvent {
        node: Some(node.clone()),
        pod: None,
        reason: "DegradationWorkMoved",
        warning: moved.missing() > 0,
        note: message.clone(),
    });
    shared.reports.send(Report::Moved {
        node,
        moved: Arc::new(moved),
        message,
        at,
    });
}

#[cfg(test)]
mod tests {
    use foreshock_core::node::NodeId;
    use foreshock_core::time::after;
    use futures::FutureExt;

    use super::*;
    use crate::actuator::fake::{START, pod};

    const DEADLINE: Duration = Duration::from_secs(600);

    fn drain() -> DrainId {
        DrainId {
            node: NodeId::new("a", "uid-a"),
            started_at: START,
        }
    }

    fn of_web() -> PodFacts {
        let web = Owner {
            group: "apps".to_owned(),
            kind: "Deployment".to_owned(),
            name: "web".to_owned(),
            uid: Uid::from("web"),
        };
        PodFacts {
            workload: Ok(Some(web)),
            ..pod("p")
        }
    }

    fn heard(account: &Account) -> bool {
        account.news.notified().now_or_never().is_some()
    }

    #[test]
    fn what_a_drain_looks_at_is_not_followed_beside_it() {
        let account = Account::default();
        let followed = |account: &Account| {
            let (_, awaited, _) = account.look(after(START, DEADLINE / 2));
            awaited.len()
        };
        account.sent(&drain(), &of_web(), START, DEADLINE);
        account.answered(&of_web().id, &Answer::Accepted);
        assert!(heard(&account));
        assert_eq!(followed(&account), 1);
        let (node, web) = (NodeName::from("a"), BTreeSet::from([Uid::from("web")]));
        account.looks_at(&node, web.clone());
        assert!(heard(&account));
        assert_eq!(followed(&account), 0, "the drain tells of it");
        account.looks_at(&node, web);
        assert!(!heard(&account), "it did so before");
        account.looks_at(&node, BTreeSet::new());
        assert!(heard(&account));
        assert_eq!(followed(&account), 1);
    }

    #[test]
    fn a_request_that_never_left_has_no_replacement() {
        let awaited = |withheld: bool| {
            let account = Account::default();
            account.sent(&drain(), &of_web(), START, DEADLINE);
            if withheld {
                account.withheld(&of_web().id);
            }
            account.answered(&of_web().id, &Answer::Accepted);
            let (_, awaited, _) = account.look(after(START, DEADLINE / 2));
            awaited.len()
        };
        assert_eq!((awaited(false), awaited(true)), (1, 0));
    }
}
