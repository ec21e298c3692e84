use std::collections::VecDeque;
use std::sync::Mutex;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;

use super::*;
use crate::clock::VirtualClock;
use crate::kubernetes::LeaseView;
use crate::kubernetes::marks::Lost;

/// A cluster whose Nodes carry what their names say, and which notes when it was written.
struct Desk {
    clock: VirtualClock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lease: Option<LeaseView>,
    marked: BTreeSet<NodeName>,
    lost: BTreeMap<NodeName, Lost>,
    /// What happens to the next writes of Nodes; they succeed once there is nothing more.
    fail: VecDeque<bool>,
    /// The switch is thrown back after so many looks at it.
    resumed_after: Option<u32>,
    wrote_at: Vec<Duration>,
    /// How long a write of a Node takes, and when the switch was looked at.
    write_takes: Duration,
    looked_at: Vec<Duration>,
    /// A Node gets a mark when this one is released: something that had been under way.
    late: Option<(NodeName, NodeName)>,
}

fn lease(paused: bool, duration: u64) -> LeaseView {
    LeaseView {
        holder: Some("a".to_owned()),
        address: None,
        duration: Duration::from_secs(duration),
        renewed_at: None,
        transitions: 0,
        paused,
        record: Ok(foreshock_core::record::ClusterRecord::default()),
        resource_version: "1".to_owned(),
    }
}

fn patch() -> Release {
    Release::Patch {
        patch: Value::Null,
        takes: vec!["record".to_owned()],
        surges: Vec::new(),
    }
}

impl Desk {
    fn new(nodes: &[&str]) -> Self {
        Self {
            clock: VirtualClock::new(Timestamp::UNIX_EPOCH),
            state: Mutex::new(State {
                marked: nodes.iter().map(|node| NodeName::from(*node)).collect(),
                ..State::default()
            }),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no test panics while it holds this")
    }

    async fn release(&self) -> Result<Summary, ReleaseError> {
        release(self, &self.clock, &ReleaseOptions::default(), &mut |_| {}).await
    }
}

impl ByHand for Desk {
    fn set_paused(&self, paused: bool) -> BoxFuture<'_, Result<Option<LeaseView>, ClusterError>> {
        let before = self.state().lease.clone();
        let duration = before.as_ref().map_or(0, |view| view.duration.as_secs());
        self.state().lease = Some(lease(paused, duration));
        async move { Ok(before) }.boxed()
    }

    fn is_paused(&self) -> BoxFuture<'_, Result<bool, ClusterError>> {
        let mut state = self.state();
        state.looked_at.push(self.clock.boottime());
        if let Some(left) = state.resumed_after.as_mut() {
            *left = left.saturating_sub(1);
            if *left == 0 {
                state.lease = Some(lease(false, 15));
            }
        }
        let paused = state.lease.as_ref().is_some_and(|view| view.paused);
        async move { Ok(paused) }.boxed()
    }

    fn find<'a>(
        &'a self,
        _taints: &'a [Taint],
        _adopt: bool,
    ) -> BoxFuture<'a, Result<Vec<(NodeName, Release)>, ClusterError>> {
        let state = self.state();
        let marked = state.marked.iter().map(|node| (node.clone(), patch()));
        let lost = state
            .lost
            .iter()
            .map(|(node, lost)| (node.clone(), Release::Lost(lost.clone())));
        let found = marked.chain(lost).collect();
        async move { Ok(found) }.boxed()
    }

    fn take_off<'a>(
        &'a self,
        node: &'a NodeName,
        _taints: &'a [Taint],
        _adopt: bool,
    ) -> BoxFuture<'a, Result<Release, ClusterError>> {
        let mut state = self.state();
        state.wrote_at.push(self.clock.boottime());
        let fails = state.fail.pop_front().unwrap_or(false);
        if !fails {
            state.marked.remove(node);
            if let Some((_, late)) = state.late.take_if(|(first, _)| first == node) {
                state.marked.insert(late);
            }
        }
        let takes = state.write_takes;
        async move {
            tokio::time::sleep(takes).await;
            if fails {
                return Err(ClusterError::Failed {
                    action: "release".to_owned(),
                    detail: "no".to_owned(),
                });
            }
            Ok(patch())
        }
        .boxed()
    }
}

fn names(summary: &BTreeMap<NodeName, Vec<String>>) -> String {
    let names: Vec<&str> = summary.keys().map(NodeName::as_str).collect();
    names.join(" ")
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_before_every_write_of_a_service_has_timed_out() {
    // Whether there was a Lease, and how long one may last by what stands on it.
    for (found, wait) in [
        (None, 23),
        (Some(15), 23),
        (Some(60), 68),
        (Some(100_000), 308),
    ] {
        let desk = Desk::new(&["a", "b"]);
        desk.state().lease = found.map(|duration| lease(false, duration));
        let summary = desk.release().await.expect("nothing stands in the way");
        assert_eq!(names(&summary.released), "a b");
        let first = desk.state().wrote_at[0];
        assert!(
            first >= Duration::from_secs(wait) && first < Duration::from_secs(wait + 1),
            "{found:?}: {first:?}"
        );
        assert!(desk.state().lease.as_ref().expect("created").paused);
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_resumed_meanwhile_ends_it() {
    // While it waits, and once it writes: each Node after a second.
    let desk = Desk::new(&["a"]);
    desk.state().resumed_after = Some(3);
    let ended = desk.release().await;
    assert!(
        matches!(ended, Err(ReleaseError::Resumed { released: 0 })),
        "{ended:?}"
    );
    assert!(desk.state().wrote_at.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_switch_is_looked_at_once_a_second_however_many_nodes_there_are() {
    let looks = async |write_takes: Duration| {
        let desk = Desk::new(&["a", "b", "c", "d"]);
        desk.state().write_takes = write_takes;
        desk.release().await.expect("nothing stands in the way");
        let state = desk.state();
        let begun = state.wrote_at[0];
        let while_writing = state.looked_at.iter().filter(|at| **at > begun);
        while_writing.count()
    };
    assert_eq!(looks(Duration::ZERO).await, 0);
    assert_eq!(looks(LOOK / 2).await, 1, "before the third");
    assert_eq!(looks(LOOK).await, 3, "before each but the first");
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_and_then_named() {
    let desk = Desk::new(&["a", "b"]);
    desk.state().fail = [true].into();
    let summary = desk.release().await.expect("nothing stands in the way");
    assert_eq!(names(&summary.released), "a b");
    assert!(summary.left.is_empty());

    let desk = Desk::new(&["a", "b"]);
    desk.state().fail = [true, false, true, true, true].into();
    let summary = desk.release().await.expect("nothing stands in the way");
    assert_eq!(names(&summary.released), "b");
    let left: Vec<_> = summary.left.into_iter().collect();
    assert_eq!(
        left,
        [(NodeName::from("a"), "release failed: no".to_owned())]
    );
}

#[tokio::test(start_paused = true)]
async fn it_looks_again_until_a_look_finds_nothing() {
    let desk = Desk::new(&["a"]);
    desk.state().late = Some((NodeName::from("a"), NodeName::from("z")));
    let summary = desk.release().await.expect("nothing stands in the way");
    assert_eq!(names(&summary.released), "a z");
    assert!(desk.state().marked.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_no_record_claims_is_told_from_what_is_left() {
    let desk = Desk::new(&[]);
    let lost = |ours| Lost {
        marks: vec!["taint degradation=true:NoSchedule".to_owned()],
        ours,
        why: "damaged".to_owned(),
    };
    desk.state().lost = [("a", true), ("b", false)]
        .map(|(node, ours)| (NodeName::from(node), lost(ours)))
        .into();
    let summary = desk.release().await.expect("nothing stands in the way");
    assert!(summary.released.is_empty());
    assert_eq!(
        summary.left[&NodeName::from("a")],
        "taint degradation=true:NoSchedule (damaged)"
    );
    assert_eq!(names(&summary.unclaimed), "b");
    assert!(desk.state().wrote_at.is_empty());

    // A rehearsal says the same and pauses nothing.
    let desk = Desk::new(&["c", "d"]);
    let only = ReleaseOptions {
        nodes: [NodeName::from("c")].into(),
        ..ReleaseOptions::default()
    };
    let summary = rehearse(&desk, &only).await.expect("listed");
    assert_eq!(names(&summary.released), "c");
    assert!(desk.state().lease.is_none() && desk.state().wrote_at.is_empty());
}
