//! What is always true of the account of a drain, whatever is seen in whatever order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::support::now;
use crate::support::pods::{owner, pod, with};
use foreshock_core::drain::{Answer, DrainId, Moves, Owner, PodFacts, Replica, Workload};
use foreshock_core::node::NodeId;
use foreshock_core::time::after;
use jiff::Timestamp;
use proptest::prelude::*;

fn at(step: u64) -> Timestamp {
    after(now(), Duration::from_secs(step))
}

/// When each Pod is asked to go, and of which of two drains it is.
type Evicted = (u64, bool);
/// When each Pod came up, and how long it then took to become Ready.
type Came = (u64, u64);

fn drain(second: bool) -> DrainId {
    DrainId {
        node: NodeId::new(if second { "n2" } else { "n1" }, "uid"),
        started_at: now(),
    }
}

fn of_web(name: &str) -> PodFacts {
    with(pod(name), |pod| {
        let deployment = owner("apps", "Deployment");
        pod.workload = Ok(deployment.map(|owner| Owner {
            uid: "web".into(),
            ..owner
        }));
    })
}

/// Each Pod runs on a Node of its own name, so that the account says which one was counted.
fn replica(n: usize, (appeared, takes): Came) -> (String, Replica) {
    let name = format!("r{n}");
    let replica = Replica {
        node: name.as_str().into(),
        appeared_at: at(appeared),
        ready_at: at(appeared + takes),
    };
    (name, replica)
}

/// Which Pods were counted for both drains, how many were missed, and the times they took, where Pods become
/// visible in this order, so many at a time.
fn account(
    evicted: &[Evicted],
    came: &[Came],
    order: &[usize],
) -> (Vec<String>, u32, Vec<Duration>) {
    let mut moves = Moves::default();
    for (n, (asked, second)) in evicted.iter().enumerate() {
        let pod = of_web(&format!("e{n}"));
        moves.sent(
            &drain(*second),
            &pod,
            at(*asked),
            Duration::from_secs(1_000),
        );
    }
    let mut fresh = BTreeMap::new();
    for (k, n) in order.iter().enumerate() {
        let (uid, replica) = replica(*n, came[*n]);
        fresh.insert(uid.as_str().into(), replica);
        // The answers come somewhere in between.
        if k == order.len() / 2 {
            for n in 0..evicted.len() {
                moves.answered(&of_web(&format!("e{n}")).id, &Answer::Accepted);
            }
        }
        let seen = Workload {
            ready: fresh.keys().cloned().collect(),
            fresh: fresh.clone(),
            ..Workload::default()
        };
        moves.see(&"web".into(), &Ok(seen));
    }
    moves.over(&drain(false));
    moves.over(&drain(true));
    let (mut counted, mut missing, mut took) = (Vec::new(), 0, Vec::new());
    for moved in moves.settle(at(10_000)) {
        for (node, count) in moved.to() {
            counted.extend(std::iter::repeat_n(node.to_string(), count as usize));
        }
        missing += moved.missing();
        took.extend(moved.replacements);
    }
    let minute_later = after(at(10_000), Duration::from_secs(60));
    assert_eq!(moves.settle(minute_later), []);
    assert_eq!(moves, Moves::default(), "nothing is kept");
    counted.sort();
    took.sort();
    (counted, missing, took)
}

/// The most that can be counted at all, by trying every way.
fn most(evicted: &[Evicted], came: &[Came], used: &mut BTreeSet<usize>) -> usize {
    let Some(((asked, _), rest)) = evicted.split_first() else {
        return 0;
    };
    let mut best = most(rest, came, used);
    for (n, (appeared, _)) in came.iter().enumerate() {
        if asked <= appeared && used.insert(n) {
            best = best.max(1 + most(rest, came, used));
            used.remove(&n);
        }
    }
    best
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn each_replacement_counts_once_as_many_as_can_and_in_any_order_of_seeing(
        evicted in prop::collection::vec((0..12_u64, any::<bool>()), 1..6),
        came in prop::collection::vec((0..14_u64, 0..8_u64), 1..6),
        draws in prop::collection::vec(any::<u32>(), 6),
    ) {
        let in_turn: Vec<usize> = (0..came.len()).collect();
        let (counted, missing, took) = account(&evicted, &came, &in_turn);
        let once: BTreeSet<&String> = counted.iter().collect();
        prop_assert_eq!(once.len(), counted.len(), "each once");
        prop_assert_eq!(counted.len(), most(&evicted, &came, &mut BTreeSet::new()));
        prop_assert_eq!(counted.len() + missing as usize, evicted.len(), "each is accounted for");
        prop_assert_eq!(took.len(), counted.len());
        let mut shuffled = in_turn;
        shuffled.sort_by_key(|n| draws[*n]);
        prop_assert_eq!(account(&evicted, &came, &shuffled), (counted, missing, took));
    }
}
