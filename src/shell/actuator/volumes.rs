//! Volumes of evicted Pods that stay attached to the Node: looked at after the drain until its deadline, and said
//! once.
//!
//! Nothing waits for this: a drain that is over hands its Pods over. A process that begins to lead later does not
//! follow what was over before.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foreshock_core::drain::{DrainId, LeftBehind, PodFacts, PodId, PodOutcome, Volume};
use foreshock_core::time::{after, since};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::drain::Shared;
use super::reports::{PodReport, Report};
use crate::kubernetes::ClusterEvent;
use crate::kubernetes::text::clean;

/// Drains that are followed at once, and as many more that wait for a place. Deadlines are minutes, and
/// `drains_per_hour` is 6 where nobody chose otherwise.
const FOLLOWED_MAX: usize = 64;
/// The pause before the first look. Unmounting and detaching take some seconds where all is well.
const PAUSE_MIN: Duration = Duration::from_secs(2);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// So long is looked at the least, also after a drain that ends just before its deadline.
const LOOK_MIN: Duration = Duration::from_secs(20);
/// The shortest pause, before the last look.
const PAUSE_FLOOR: Duration = Duration::from_millis(100);
/// Letters of what is said; a sentence names only a few volumes, but names and problems are long.
const TEXT_MAX: usize = 500;

/// A drain that is over, with the volumes of what it has evicted.
#[derive(Debug)]
pub(super) struct Drained {
    pub(super) drain: DrainId,
    /// Since when this process led when it was over.
    pub(super) leads_since: Timestamp,
    pub(super) over_at: Timestamp,
    /// Volumes are looked at until then.
    pub(super) deadline_at: Timestamp,
    pub(super) pods: Vec<Evicted>,
}

/// An evicted Pod that is gone.
#[derive(Debug)]
pub(super) struct Evicted {
    pub(super) pod: PodId,
    pub(super) volumes: Vec<Volume>,
    pub(super) requested_at: Option<Timestamp>,
    pub(super) gone_at: Option<Timestamp>,
}

/// Where drains that are over are handed over.
#[derive(Debug, Default)]
pub(super) struct HandOver {
    waiting: Mutex<VecDeque<Drained>>,
    news: Notify,
}

impl HandOver {
    /// Has the volumes followed.
    pub(super) fn give(&self, drained: Drained) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < FOLLOWED_MAX {
            waiting.push_back(drained);
        } else {
            warn!(node = %drained.drain.node, limit = FOLLOWED_MAX, "volumes not followed: too many drains are");
        }
        drop(waiting);
        self.news.notify_one();
    }

    fn take(&self) -> Option<Drained> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.pop_front()
    }
}

/// Follows what is handed over until `stop`.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut followed = FuturesUnordered::new();
    loop {
        while followed.len() < FOLLOWED_MAX
            && let Some(drained) = shared.drained.take()
        {
            followed.push(follow(&shared, drained));
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(()) = followed.next(), if !followed.is_empty() => {}
            () = shared.drained.news.notified() => {}
        }
    }
}

/// Looks until every volume has left the Node or the deadline is over.
async fn follow(shared: &Shared, drained: Drained) {
    let node = &drained.drain.node;
    // Another process or another Node of this name is none of this drain's.
    let concerns = || {
        let nodes = shared.cluster.nodes();
        let there = nodes.borrow().nodes.get(&node.name).cloned();
        shared.gate.leads_since() == Some(drained.leads_since)
            && there.is_some_and(|entry| entry.facts.id == *node)
    };
    let volumes = drained.pods.iter().flat_map(|pod| &pod.volumes);
    let mut left: BTreeMap<Volume, Option<String>> =
        volumes.map(|volume| (volume.clone(), None)).collect();
    let (mut pause, mut wait) = (PAUSE_MIN, PAUSE_MIN);
    let mut warned = false;
    let until = drained.deadline_at.max(after(drained.over_at, LOOK_MIN));
    loop {
        tokio::time::sleep(wait).await;
        if !concerns() {
            return;
        }
        look(shared, &drained, &mut left).await;
        let mut problems = left
            .iter()
            .filter_map(|(volume, problem)| Some((volume, problem.as_ref()?)));
        if let Some((volume, problem)) = problems.next().filter(|_| !warned) {
            warn!(node = %node, %volume, error = problem, "not known whether a volume has left the node; looked at again");
            warned = true;
        }
        let now = shared.clock.now();
        if left.is_empty() || now >= until {
            break;
        }
        pause = (pause * 2).min(PAUSE_MAX);
        wait = pause.min(since(now, until)).max(PAUSE_FLOOR);
    }
    if !left.is_empty() {
        leave_out_used(shared, &drained, &mut left).await;
    }
    if left.is_empty() {
        debug!(node = %node, "no volume of evicted pods is left on the node");
    } else if concerns() {
        say(shared, &drained, left);
    }
}

/// Takes out what has left the Node; of the rest, notes why it is not known.
async fn look(shared: &Shared, drained: &Drained, left: &mut BTreeMap<Volume, Option<String>>) {
    for volume in std::mem::take(left).into_keys() {
        match shared
            .cluster
            .is_attached(&drained.drain.node.name, &volume)
            .await
        {
            Ok(true) => drop(left.insert(volume, None)),
            Ok(false) => {}
            Err(error) => drop(left.insert(volume, Some(error.to_string()))),
        }
    }
}

/// Takes out what a Pod on the Node uses: it stays attached for that one.
async fn leave_out_used(
    shared: &Shared,
    drained: &Drained,
    left: &mut BTreeMap<Volume, Option<String>>,
) {
    match shared.cluster.pods(&drained.drain.node).await {
        Ok(pods) => {
            let claims = |pod: &PodFacts| {
                let namespace = pod.id.namespace.clone();
                let claims = pod.claims.clone().into_iter();
                claims.map(move |claim| (namespace.clone(), claim))
            };
            let using = pods.iter().filter(|pod| !pod.finished);
            let used: BTreeSet<(String, String)> = using.flat_map(claims).collect();
            left.retain(|volume, _| {
                !used.contains(&(volume.namespace.clone(), volume.claim.clone()))
            });
        }
        Err(error) => {
            for problem in left.values_mut() {
                problem.get_or_insert_with(|| error.to_string());
            }
        }
    }
}

fn say(shared: &Shared, drained: &Drained, left: BTreeMap<Volume, Option<String>>) {
    let node = &drained.drain.node;
    let at = shared.clock.now();
    let (mut attached, mut unknown) = (Vec::new(), Vec::new());
    for (volume, problem) in left {
        match problem {
            None => attached.push(volume),
            Some(problem) => unknown.push((volume, clean(&problem, TEXT_MAX))),
        }
    }
    for evicted in &drained.pods {
        let held = evicted.volumes.iter();
        let held: Vec<String> = held
            .filter(|volume| attached.contains(volume))
            .map(ToString::to_string)
            .collect();
        if held.is_empty() {
            continue;
        }
        let detail = format!("still attached to {}: {}", node.name, held.join(", "));
        shared.reports.send(Report::Pod(PodReport {
            node: node.clone(),
            pod: evicted.pod.clone(),
            outcome: PodOutcome::Volumes,
            detail: clean(&detail, TEXT_MAX),
            requested_at: evicted.requested_at,
            gone_at: evicted.gone_at,
        }));
    }
    let left = LeftBehind {
        drain: drained.drain.clone(),
        waited: since(drained.over_at, at),
        attached,
        unknown,
    };
    let message = clean(&left.to_string(), TEXT_MAX);
    warn!(node = %node, message, "volumes of evicted pods");
    // That it is not known is no news of the Node.
    if !left.attached.is_empty() {
        shared.events.publish(ClusterEvent {
            node: Some(node.clone()),
            pod: None,
            reason: "VolumesStillAttached",
            warning: true,
            note: message.clone(),
        });
    }
    shared.reports.send(Report::LeftBehind {
        node: node.clone(),
        left: Arc::new(left),
        message,
        at,
    });
}

#[cfg(test)]
mod tests {
    use foreshock_core::node::{NodeId, NodeName};

    use super::*;

    #[test]
    fn of_too_many_drains_the_first_are_followed_in_their_order() {
        let waiting = HandOver::default();
        let drained = |n: usize| Drained {
            drain: DrainId {
                node: NodeId::new(format!("n{n:02}"), "uid"),
                started_at: Timestamp::UNIX_EPOCH,
            },
            leads_since: Timestamp::UNIX_EPOCH,
            over_at: Timestamp::UNIX_EPOCH,
            deadline_at: Timestamp::UNIX_EPOCH,
            pods: Vec::new(),
        };
        for n in 0..FOLLOWED_MAX + 2 {
            waiting.give(drained(n));
        }
        let taken = std::iter::from_fn(|| waiting.take());
        let names: Vec<_> = taken.map(|drained| drained.drain.node.name).collect();
        let wanted = (0..FOLLOWED_MAX).map(|n| format!("n{n:02}").as_str().into());
        assert_eq!(names, wanted.collect::<Vec<NodeName>>());
    }
}
