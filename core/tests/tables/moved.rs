//! Where it went: which Pod is counted for which, when it is said, and how it reads.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::now;
use crate::support::pods::{owner, pod, seconds, with};
use foreshock_core::drain::{Answer, DrainId, Moved, Moves, Owner, PodFacts, Replica, Workload};
use foreshock_core::node::NodeId;
use foreshock_core::time::after;
use jiff::Timestamp;

const DEADLINE: Duration = Duration::from_secs(900);

fn at(millis: u64) -> Timestamp {
    after(now(), Duration::from_millis(millis))
}

fn drain(node: &str) -> DrainId {
    DrainId {
        node: NodeId::new(node, format!("uid-{node}")),
        started_at: now(),
    }
}

/// A Pod of the Deployment `workload`.
fn of(workload: &str, name: &str) -> PodFacts {
    with(pod(name), |pod| {
        let deployment = owner("apps", "Deployment");
        pod.workload = Ok(deployment.map(|owner| Owner {
            name: workload.into(),
            uid: workload.into(),
            ..owner
        }));
    })
}

/// Ready Pods by UID: their Node, and when they came up and became Ready in milliseconds.
type Ready<'a> = &'a [(&'a str, &'a str, u64, u64)];

/// One drain of `worker-02`, and perhaps others.
struct Walk(Moves);

impl Walk {
    /// These Pods of `web` are asked to go at these milliseconds, and accepted.
    fn new(evicted: &[(&str, u64)]) -> Self {
        let mut walk = Self(Moves::default());
        for (name, millis) in evicted {
            walk.evict("worker-02", &of("web", name), *millis);
        }
        walk
    }

    fn evict(&mut self, node: &str, pod: &PodFacts, millis: u64) {
        self.0.sent(&drain(node), pod, at(millis), DEADLINE);
        self.0.answered(&pod.id, &Answer::Accepted);
    }

    fn sees_of(&mut self, workload: &str, wanted: Option<u32>, ready: Ready<'_>) {
        let replica = |(uid, node, appeared, ready): &(&str, &str, u64, u64)| {
            let replica = Replica {
                node: (*node).into(),
                appeared_at: at(*appeared),
                ready_at: at(*ready),
            };
            ((*uid).into(), replica)
        };
        let fresh: BTreeMap<_, _> = ready.iter().map(replica).collect();
        let seen = Workload {
            wanted,
            ready: fresh.keys().cloned().collect(),
            fresh,
            ..Workload::default()
        };
        self.0.see(&workload.into(), &Ok(seen));
    }

    fn sees(&mut self, ready: Ready<'_>) -> &mut Self {
        self.sees_of("web", Some(100), ready);
        self
    }

    /// What is said once the drain of this Node is over.
    fn ends(&mut self, node: &str, millis: u64) -> Option<Moved> {
        self.0.over(&drain(node));
        let mut said = self.0.settle(at(millis));
        assert!(said.len() < 2, "one account of one drain: {said:?}");
        said.pop()
    }

    fn says(&mut self, millis: u64) -> Option<String> {
        self.ends("worker-02", millis)
            .map(|moved| moved.to_string())
    }

    /// A minute after the last account nothing is kept, and nothing more is said.
    fn is_empty_after(&mut self, millis: u64) {
        assert_eq!(self.0.settle(at(millis)), []);
        assert_eq!(self.0, Moves::default(), "nothing is kept");
    }

    fn awaited(&self, millis: u64) -> Vec<String> {
        let awaited = self.0.awaited(at(millis));
        awaited
            .iter()
            .map(|(namespace, owner)| format!("{namespace}/{}", owner.name))
            .collect()
    }
}

#[test]
fn the_sentence_says_from_where_to_where_and_how_long() {
    let check = |evicted: &[(&str, u64)], ready: Ready<'_>, expected: &str| {
        let said = Walk::new(evicted).sees(ready).says(900_000);
        assert_eq!(said.as_deref(), Some(expected));
    };
    check(
        &[("a", 0), ("b", 100), ("c", 3_000), ("d", 6_000)],
        &[
            ("r1", "worker-01", 100, 2_000),
            ("r2", "worker-03", 200, 2_100),
            ("r3", "worker-01", 3_100, 5_000),
            ("r4", "worker-01", 6_100, 8_230),
        ],
        "moved 4 Pods from worker-02 to worker-01 (3), worker-03 (1) in 8.2 s",
    );
    check(
        &[("a", 0)],
        &[("r", "worker-01", 10, 59_940)],
        "moved 1 Pod from worker-02 to worker-01 (1) in 59.9 s",
    );
    check(
        &[("a", 0)],
        &[("r", "worker-01", 10, 59_950)],
        "moved 1 Pod from worker-02 to worker-01 (1) in 1 min",
    );
    check(
        &[("a", 0)],
        &[("r", "worker-01", 10, 125_000)],
        "moved 1 Pod from worker-02 to worker-01 (1) in 2 min 5 s",
    );
    check(
        &[("a", 0), ("b", 0), ("c", 0), ("d", 0)],
        &[
            ("r1", "worker-01", 100, 2_000),
            ("r2", "worker-01", 100, 3_000),
        ],
        "moved 2 Pods from worker-02 to worker-01 (2) in 3 s; \
         2 of 4 not Ready again after 15 min: Deployment shop/web",
    );
    check(
        &[("a", 0), ("b", 0)],
        &[],
        "2 Pods evicted from worker-02; 2 of 2 not Ready again after 15 min: Deployment shop/web",
    );
    let names: Vec<(String, String)> = (1..=7)
        .map(|n| (format!("p{n}"), format!("r{n}")))
        .collect();
    let evicted: Vec<(&str, u64)> = names.iter().map(|(pod, _)| (pod.as_str(), 0)).collect();
    let late = 90 * 60_000;
    let ready: Vec<(&str, &str, u64, u64)> = names
        .iter()
        .map(|(node, uid)| (uid.as_str(), node.as_str(), 1, late))
        .collect();
    check(
        &evicted,
        &ready,
        "moved 7 Pods from worker-02 to p1 (1), p2 (1), p3 (1), p4 (1), p5 (1) and 2 more in 1 h 30 min",
    );
}

#[test]
fn a_replacement_came_up_after_the_request_and_is_the_first_that_became_ready() {
    let check = |ready: Ready<'_>, node: Option<&str>| {
        let moved = Walk::new(&[("a", 1_000)])
            .sees(ready)
            .ends("worker-02", 900_000 + 1_000)
            .expect("over");
        let to = moved.to();
        assert_eq!(to.first().map(|(node, _)| node.as_str()), node, "{ready:?}");
        assert_eq!(moved.missing(), u32::from(node.is_none()));
    };
    check(&[("r", "n1", 1_000, 1_001)], Some("n1"));
    // It was there before, and became Ready only after.
    check(&[("r", "n1", 999, 5_000)], None);
    // By an old clock's word; it was Ready before.
    check(&[("r", "n1", 1_500, 999)], None);
    check(
        &[("r1", "n1", 1_100, 3_000), ("r2", "n2", 1_200, 2_000)],
        Some("n2"),
    );
    // Of two at once, by UID.
    check(
        &[("r2", "n2", 1_100, 3_000), ("r1", "n1", 1_100, 3_000)],
        Some("n1"),
    );
}

#[test]
fn one_replacement_counts_once_in_all_drains_together() {
    let mut walk = Walk::new(&[("a", 0)]);
    walk.evict("worker-04", &of("web", "b"), 100);
    walk.sees(&[("r1", "n1", 200, 2_000)]);
    // It came up after both requests, and stands for the later one.
    let moved = walk.ends("worker-04", 3_000).expect("settled");
    assert_eq!(moved.moved(), 1);
    // That it is seen again changes nothing, now that it has been given account of.
    walk.sees(&[("r1", "n1", 200, 2_000)]);
    assert_eq!(walk.says(3_000), None, "still awaited");
    assert_eq!(walk.awaited(3_000), ["shop/web"]);
    walk.sees(&[("r1", "n1", 200, 2_000), ("r2", "n2", 200, 4_000)]);
    let said = walk.says(5_000);
    let expected = "moved 1 Pod from worker-02 to n2 (1) in 4 s";
    assert_eq!(said.as_deref(), Some(expected));
    walk.is_empty_after(65_000);
}

#[test]
fn a_pod_that_is_evicted_itself_is_in_nobodys_place() {
    let mut walk = Walk::new(&[("a", 0), ("b", 0)]);
    // `b` becomes Ready after it was asked to go.
    walk.sees(&[("uid-b", "worker-02", 50, 60), ("r", "n1", 100, 200)]);
    let moved = walk.ends("worker-02", 900_000).expect("over");
    assert_eq!((moved.moved(), moved.missing()), (1, 1));
    // A replacement that has to move on has been one all the same.
    let mut walk = Walk::new(&[("a", 0)]);
    walk.sees(&[("uid-b", "worker-04", 100, 200)]);
    walk.evict("worker-04", &of("web", "b"), 300);
    walk.sees(&[]);
    let moved = walk.ends("worker-02", 400).expect("over");
    assert_eq!(moved.moved(), 1);
}

#[test]
fn it_is_said_when_the_drain_is_over_and_the_last_one_is_ready() {
    let mut walk = Walk::new(&[("a", 0), ("b", 0)]);
    let r1 = ("r1", "n1", 10, 1_000);
    walk.sees(&[r1]);
    assert_eq!(walk.0.settle(at(2_000)), [], "it goes on");
    assert_eq!(walk.says(2_000), None, "one is awaited");
    assert_eq!(walk.awaited(2_000), ["shop/web"]);
    assert_eq!(walk.0.wake_at(at(40_000)), Some(at(900_000)));
    assert_eq!(walk.says(899_999), None);
    assert_eq!(walk.awaited(900_000), Vec::<String>::new());
    assert_eq!(walk.0.wake_at(at(900_000)), None);
    walk.sees(&[r1, ("r2", "n1", 20, 900_000)]);
    assert!(
        walk.says(900_000)
            .is_some_and(|said| said.starts_with("moved 2 Pods"))
    );
    assert_eq!(walk.says(900_000), None, "once");
}

#[test]
fn a_workload_is_left_alone_while_its_drain_has_only_begun() {
    let mut walk = Walk::new(&[("a", 0)]);
    assert_eq!(walk.awaited(29_999), Vec::<String>::new());
    assert_eq!(walk.0.wake_at(at(0)), Some(at(30_000)));
    assert_eq!(walk.awaited(30_000), ["shop/web"]);
    assert_eq!(walk.0.wake_at(at(30_000)), Some(at(900_000)));
    walk.0.over(&drain("worker-02"));
    assert_eq!(
        walk.awaited(1),
        ["shop/web"],
        "nothing is kept from anybody"
    );
    // A short wait is not spent on leaving it alone.
    let mut walk = Walk(Moves::default());
    let pod = of("web", "a");
    walk.0.sent(&drain("worker-02"), &pod, at(0), seconds(10));
    walk.0.answered(&pod.id, &Answer::Accepted);
    assert_eq!(walk.awaited(4_999), Vec::<String>::new());
    assert_eq!(walk.awaited(5_000), ["shop/web"]);
}

#[test]
fn what_is_not_awaited_holds_up_nothing() {
    // The workload was made smaller: it has all that it asks for.
    let mut walk = Walk::new(&[("a", 0), ("b", 0)]);
    walk.sees_of("web", Some(2), &[("r", "n1", 10, 1_000), ("s", "n1", 0, 0)]);
    assert_eq!(walk.awaited(2_000), Vec::<String>::new());
    let said = walk.says(2_000);
    let expected = "moved 2 Pods from worker-02 to n1 (2) in 1 s";
    assert_eq!(said.as_deref(), Some(expected));
    let mut walk = Walk::new(&[("a", 10), ("b", 10)]);
    walk.sees_of("web", Some(2), &[("r", "n1", 10, 1_010), ("s", "n1", 0, 0)]);
    let said = walk.says(2_000);
    let expected = "moved 1 Pod from worker-02 to n1 (1) in 1 s; 1 of 2 needed no replacement";
    assert_eq!(said.as_deref(), Some(expected));
    // It is gone.
    let mut walk = Walk::new(&[("a", 0)]);
    let over = Workload {
        over: true,
        ..Workload::default()
    };
    walk.0.see(&"web".into(), &Ok(over));
    let said = walk.says(1);
    let expected = "1 Pod evicted from worker-02; 1 of 1 needed no replacement";
    assert_eq!(said.as_deref(), Some(expected));
    // A further one goes: that it had all was before.
    let mut walk = Walk::new(&[("a", 0)]);
    walk.sees_of("web", Some(1), &[("s", "n1", 0, 0)]);
    walk.evict("worker-02", &of("web", "s"), 100);
    assert_eq!(walk.says(200), None);
    assert_eq!(walk.awaited(200), ["shop/web"]);
    // Its kind does not say how many.
    let mut walk = Walk::new(&[("a", 10)]);
    walk.sees_of("web", None, &[("s", "n1", 0, 0)]);
    assert_eq!(walk.says(899_000), None);
}

#[test]
fn what_could_not_be_looked_at_is_not_called_missing() {
    let mut walk = Walk::new(&[("a", 0)]);
    walk.0.see(&"web".into(), &Err("forbidden".to_owned()));
    assert_eq!(walk.says(1_000), None);
    let said = walk.says(900_000);
    let expected = "1 Pod evicted from worker-02; \
                    1 of 1 could not be followed: Deployment shop/web: forbidden";
    assert_eq!(said.as_deref(), Some(expected));
    let said = Walk::new(&[("a", 0)]).says(900_000);
    assert!(said.is_some_and(|said| said.ends_with("web: it was not looked at in time")));
}

#[test]
fn only_accepted_evictions_count_from_the_first_request_that_may_have_been_the_one() {
    let lost = Answer::Lost {
        detail: "reset".into(),
    };
    let blocked = Answer::BlockedByBudget {
        detail: "no".into(),
        retry_after: None,
    };
    let walk = |answers: &[Answer]| {
        let mut walk = Walk(Moves::default());
        let pod = of("web", "a");
        for (n, answer) in answers.iter().enumerate() {
            let n = u64::try_from(n).expect("few");
            walk.0
                .sent(&drain("worker-02"), &pod, at(n * 1_000), DEADLINE);
            walk.0.answered(&pod.id, answer);
        }
        walk.sees(&[("r", "n1", 5_000, 6_000)]);
        let moved = walk.ends("worker-02", 10_000);
        walk.is_empty_after(70_000);
        moved.map(|moved| moved.replacements)
    };
    assert_eq!(walk(&[Answer::Accepted]), Some(vec![seconds(6)]));
    assert_eq!(
        walk(&[lost.clone(), Answer::Accepted]),
        Some(vec![seconds(6)])
    );
    assert_eq!(
        walk(&[blocked.clone(), Answer::Accepted]),
        Some(vec![seconds(5)])
    );
    assert_eq!(walk(&[blocked]), None);
    assert_eq!(walk(&[lost, Answer::Gone]), None);
    assert_eq!(walk(&[Answer::NamespaceTerminating]), None);
    // What came after an accepted one takes nothing back.
    assert_eq!(
        walk(&[Answer::Accepted, Answer::Gone]),
        Some(vec![seconds(6)])
    );
    let mut none = Walk(Moves::default());
    let lone = pod("a");
    none.evict("worker-02", &lone, 0);
    let unknown = with(of("web", "b"), |pod| pod.workload = Err("no".into()));
    none.evict("worker-02", &unknown, 0);
    let orphan = with(of("web", "c"), |pod| pod.daemon_set_gone = true);
    none.evict("worker-02", &orphan, 0);
    let withheld = of("web", "d");
    none.0.sent(&drain("worker-02"), &withheld, at(0), DEADLINE);
    none.0.withheld(&withheld.id);
    assert_eq!(
        none.awaited(1),
        Vec::<String>::new(),
        "nobody starts them again"
    );
    assert_eq!(none.says(1), None);
}

#[test]
fn each_workload_is_accounted_for_by_itself() {
    let mut walk = Walk::new(&[("a", 0)]);
    walk.evict("worker-02", &of("api", "b"), 1_000);
    assert_eq!(
        walk.awaited(40_000),
        ["shop/web", "shop/api"],
        "the oldest first"
    );
    walk.sees(&[("r1", "n1", 10, 2_000)]);
    walk.sees_of("api", Some(9), &[("r2", "n2", 1_500, 9_000)]);
    let moved = walk.ends("worker-02", 10_000).expect("settled");
    let each: Vec<(&str, u32, Duration)> = moved
        .workloads
        .iter()
        .map(|each| (each.owner.name.as_str(), each.evicted(), each.longest))
        .collect();
    assert_eq!(each, [("api", 1, seconds(8)), ("web", 1, seconds(2))]);
    assert_eq!(moved.replacements, [seconds(2), seconds(8)]);
    assert_eq!(moved.took, seconds(9));
}

#[test]
fn a_drain_that_goes_on_again_is_not_over() {
    let mut walk = Walk::new(&[("a", 0)]);
    walk.0.over(&drain("worker-02"));
    walk.evict("worker-02", &of("web", "b"), 10);
    walk.sees(&[("r1", "n1", 20, 30), ("r2", "n1", 20, 30)]);
    assert_eq!(walk.0.settle(at(100)), []);
    assert_eq!(
        walk.ends("worker-02", 100).map(|moved| moved.moved()),
        Some(2)
    );
}

#[test]
fn what_is_remembered_has_an_end() {
    let mut walk = Walk(Moves::default());
    for n in 0..20_001_u32 {
        walk.evict("worker-02", &of(&format!("w{n}"), &format!("p{n}")), 0);
    }
    let moved = walk.ends("worker-02", 900_000).expect("over");
    assert_eq!(moved.evicted(), 20_000);
    // A workload that starts one Pod after the other fills nothing.
    let mut walk = Walk::new(&[("a", 0)]);
    let names: Vec<String> = (0..1_000).map(|n| format!("r{n:04}")).collect();
    let ready: Vec<(&str, &str, u64, u64)> = names
        .iter()
        .map(|name| (name.as_str(), "n1", 10, 20))
        .collect();
    let mut one = Walk::new(&[("a", 0)]);
    walk.sees_of("web", None, &ready);
    one.sees_of("web", None, &ready[..1]);
    assert_eq!(walk.0, one.0, "one is kept");
}

/// Each watch of a workload has its own times of a Pod: exact where it came up before its eyes, cut to seconds
/// where it was listed.
#[test]
fn a_replacement_that_was_counted_is_not_counted_again_by_the_times_of_another_watch() {
    // Both drains wait for `web`, or the second one begins with it only when the first has given account.
    for early in [true, false] {
        let mut walk = Walk::new(&[("a", 0)]);
        if early {
            walk.evict("worker-03", &of("web", "b"), 2_050);
        }
        walk.sees(&[("r1", "room-1", 100, 2_000)]);
        let said = walk.says(2_100).expect("settled");
        assert_eq!(said, "moved 1 Pod from worker-02 to room-1 (1) in 2 s");
        if !early {
            walk.evict("worker-03", &of("web", "b"), 2_150);
        }
        walk.sees(&[("r1", "room-1", 3_100, 2_900)]);
        assert_eq!(
            walk.ends("worker-03", 3_000),
            None,
            "its own is still to come"
        );
        walk.sees(&[
            ("r1", "room-1", 3_100, 2_900),
            ("r2", "room-2", 2_200, 4_000),
        ]);
        let said = walk.ends("worker-03", 4_000).expect("settled");
        assert_eq!(said.workloads[0].to, [("room-2".into(), 1)].into());
    }
}
