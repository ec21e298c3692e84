//! What counts against the limits, and what a plan frees for itself before it uses it.

use std::time::Duration;

use foreshock_core::decision::plan::{Cause, Plan};
use foreshock_core::decision::policy::{ControlPlane, Limit, Pool, PoolLimits, Reach};
use foreshock_core::decision::verdict::HoldReason;
use foreshock_core::decision::world::Fact;
use foreshock_core::decision::{Decision, decide};
use foreshock_core::drain::{DrainReport, NodeOutcome};
use foreshock_core::record::{DrainRecord, RecordState, RecordedPhase};
use foreshock_core::time::{after, ago};

use crate::audit;
use crate::support::{HOUR, MINUTE, SECOND, Scene, alert, apply, now, scene, taint};

fn wide() -> Scene {
    scene().with_policy(|policy| {
        policy.limits.tainted_max = Limit::Percent(50.0);
        policy.limits.draining_max = Limit::Count(10);
        policy.limits.drains_per_hour = 100;
        policy.limits.storm_min = 50;
    })
}

fn decided(scene: &Scene) -> Decision {
    decide(&scene.policy, &scene.memory, &scene.world)
}

fn done(scene: &Scene) -> Vec<(String, Cause)> {
    let orders = decided(scene).plan.marks;
    let named = orders
        .iter()
        .map(|order| (order.node.to_string(), order.cause));
    named.collect()
}

fn held_by(scene: &Scene, name: &str) -> Option<HoldReason> {
    let decision = decided(scene);
    decision.verdicts[name].hold().map(|hold| hold.reason)
}

/// Tainted and at risk for longer than `drain_after`.
fn due(scene: Scene, name: &str) -> Scene {
    scene
        .at_risk(name, 0.9, HOUR)
        .marked(name, RecordedPhase::Tainted, 10 * MINUTE)
}

/// Its drain has just ended, by the executor's word.
fn drained(scene: Scene, name: &str) -> Scene {
    scene
        .at_risk(name, 0.9, HOUR)
        .marked(name, RecordedPhase::Draining, 10 * MINUTE)
        .with_world(|world| {
            let report = DrainReport {
                started_at: ago(now(), 10 * MINUTE),
                remaining: 0,
                gone: 3,
                ended: Some((ago(now(), 5 * MINUTE), NodeOutcome::Drained)),
                detail: String::new(),
            };
            world.drains.insert(name.into(), report);
        })
}

#[test]
fn all_candidates_are_marked_before_any_is_drained() {
    let scene = due(wide(), "n1").at_risk("n5", 0.7, MINUTE);
    let expected = [
        ("n5".to_owned(), Cause::Taint),
        ("n1".to_owned(), Cause::DrainStart),
    ];
    assert_eq!(done(&scene), expected);
}

#[test]
fn one_control_plane_node_at_a_time_and_workers_as_usual() {
    let include = |scene: Scene| {
        scene.with_policy(|policy| policy.rules.control_plane = ControlPlane::Include)
    };
    let control = |scene: Scene, name| scene.node(name, |node| node.control_plane = true);
    let worker_beside = include(control(wide(), "n1"))
        .marked("n1", RecordedPhase::Tainted, HOUR)
        .at_risk("n5", 0.9, MINUTE);
    assert!(done(&worker_beside).contains(&("n5".to_owned(), Cause::Taint)));
    let control_beside_worker = include(control(wide(), "n5"))
        .marked("n1", RecordedPhase::Tainted, HOUR)
        .at_risk("n5", 0.9, MINUTE);
    assert!(done(&control_beside_worker).contains(&("n5".to_owned(), Cause::Taint)));
    let both = control(worker_beside, "n5");
    assert_eq!(held_by(&both, "n5"), Some(HoldReason::ControlPlane));
}

#[test]
fn what_counts_as_tainted_and_as_eligible() {
    let usage = |scene: &Scene| {
        let usage = decided(scene).usage;
        (usage.tainted, usage.tainted_max)
    };
    assert_eq!(usage(&wide()), (0, 5));
    let unready = wide().node("n1", |node| node.ready = false);
    assert_eq!(
        usage(&unready.clone().node("n2", |node| node.cordoned = true)),
        (0, 4)
    );
    assert_eq!(
        usage(&unready.node("n1", |node| node.cordoned = true)),
        (0, 4)
    );
    // A record that cannot be read counts while our taint is there; a taint alone is another's.
    let unreadable = |scene: Scene| {
        scene.node("n1", |node| {
            node.record = RecordState::Unreadable {
                problem: "a later version".into(),
            };
        })
    };
    let carries = |scene: Scene| scene.node("n1", |node| node.taints = vec![taint()]);
    assert_eq!(usage(&unreadable(wide())).0, 0);
    assert_eq!(usage(&carries(wide())).0, 0);
    assert_eq!(usage(&unreadable(carries(wide()))).0, 1);
}

#[test]
fn the_hour_has_only_drains_that_are_recent_and_began() {
    let recorded = |age, tainted: bool| {
        let mut scene = wide();
        if tainted {
            scene = scene.marked("n1", RecordedPhase::Tainted, 2 * HOUR);
        }
        let cluster = scene.world.cluster.as_mut().expect("known");
        cluster
            .drains
            .insert((ago(now(), age), "n1".into()), "uid-n1".into());
        decided(&scene).usage.drains_last_hour
    };
    assert_eq!(recorded(10 * MINUTE, false), 1);
    assert_eq!(recorded(HOUR, false), 0, "an hour old");
    assert_eq!(
        recorded(10 * MINUTE, true),
        0,
        "tainted before, and no drain: it never began"
    );
    assert_eq!(recorded(5 * MINUTE, true), 0);
    assert_eq!(
        recorded(5 * MINUTE - std::time::Duration::from_millis(1), true),
        1,
        "too soon to say"
    );
    assert_eq!(recorded(90 * MINUTE, true), 0);
}

#[test]
fn a_drain_of_the_hour_is_told_from_an_earlier_one_of_the_same_node() {
    // The cluster's record says that one began ten minutes ago; the Node's says when its last one did.
    let with_last = |age: std::time::Duration| {
        let mut scene = wide()
            .marked("n1", RecordedPhase::Tainted, 2 * HOUR)
            .record("n1", |record| {
                record.drain = Some(DrainRecord {
                    started_at: ago(now(), age),
                    attempts: 1,
                    ended: None,
                });
            });
        let cluster = scene.world.cluster.as_mut().expect("known");
        cluster
            .drains
            .insert((ago(now(), 10 * MINUTE), "n1".into()), "uid-n1".into());
        decided(&scene).usage.drains_last_hour
    };
    assert_eq!(
        with_last(11 * MINUTE),
        0,
        "an earlier one: this never began"
    );
    assert_eq!(with_last(10 * MINUTE), 1, "this very one");
    assert_eq!(with_last(9 * MINUTE), 1, "a later one was tried");
}

/// A Node that is due, and a start of its drain that stands on the cluster's record for so long.
fn waiting(age: Duration) -> Scene {
    let mut scene = due(wide(), "n1").with_policy(|policy| policy.limits.drains_per_hour = 1);
    let cluster = scene.world.cluster.as_mut().expect("known");
    cluster
        .drains
        .insert((ago(now(), age), "n1".into()), "uid-n1".into());
    scene
}

/// When the drains start that are begun now.
fn starts(scene: &Scene) -> Vec<(String, jiff::Timestamp)> {
    let good = audit::Good::of(scene.clone());
    let starts = good.plan.marks.iter().filter_map(|order| {
        let record = order.record.as_ref()?;
        let drain = record.drain.as_ref()?;
        (order.cause == Cause::DrainStart).then(|| (order.node.to_string(), drain.started_at))
    });
    starts.collect()
}

#[test]
fn a_start_that_waits_for_other_marks_is_planned_again_and_counts_once() {
    let ten = 10 * SECOND;
    for age in [Duration::ZERO, SECOND / 10, ten - Duration::from_millis(1)] {
        let scene = waiting(age);
        assert_eq!(starts(&scene), [("n1".to_owned(), ago(now(), age))]);
        let decision = decided(&scene);
        assert_eq!(decision.plan.cluster, None, "it stands there");
        assert_eq!(decision.usage.drains_last_hour, 1);
    }
    // Its deadline runs from its time, so a tenth of that is the longest that it may wait.
    let hasty = |age| waiting(age).with_policy(|policy| policy.drain.deadline = 10 * SECOND);
    assert_eq!(starts(&hasty(SECOND - Duration::from_millis(1))).len(), 1);
    assert_eq!(
        held_by(&hasty(SECOND), "n1"),
        Some(HoldReason::DrainsPerHour)
    );
    assert_eq!(
        held_by(&waiting(ten), "n1"),
        Some(HoldReason::DrainsPerHour)
    );
}

#[test]
fn many_starts_that_wait_leave_one_entry_each() {
    let mut scene = wide().with_policy(|policy| policy.limits.drains_per_hour = 3);
    for name in ["n1", "n3", "n5"] {
        scene = due(scene, name);
    }
    let first = decided(&scene).plan.cluster.expect("three begin");
    assert_eq!(first.drains.len(), 3);
    scene.world.cluster = Some(first.clone());
    scene.world.at = after(now(), SECOND / 10);
    let again = decided(&scene);
    assert_eq!(again.plan.cluster, None);
    let begun = |plan: &Plan| {
        let marks = plan.marks.iter();
        marks
            .filter(|order| order.cause == Cause::DrainStart)
            .count()
    };
    assert_eq!(begun(&again.plan), 3);
    // One more has no room, whoever is made first.
    let more = due(scene, "n2");
    assert_eq!(held_by(&more, "n2"), Some(HoldReason::DrainsPerHour));
    assert_eq!(begun(&decided(&more).plan), 3);
}

#[test]
fn a_start_whose_answer_was_lost_counts_as_what_it_was() {
    // Made at its first attempt, seen after a second was planned.
    let scene = waiting(SECOND);
    let plan = decided(&scene).plan;
    for age in [SECOND, 5 * MINUTE, 50 * MINUTE] {
        let mut later = scene.clone();
        apply(&mut later.world, &plan);
        later.world.at = after(now(), age);
        assert_eq!(decided(&later).usage.drains_last_hour, 1, "{age:?} later");
    }
}

#[test]
fn what_is_not_a_start_of_this_drain_is_not_made_again() {
    let with = |change: fn(&mut Scene)| {
        let mut scene = waiting(SECOND);
        scene.policy.limits.drains_per_hour = 2;
        change(&mut scene);
        let new = starts(&scene) == [("n1".to_owned(), now())];
        (new, decided(&scene).usage.drains_last_hour)
    };
    assert_eq!(with(|_| ()), (false, 1));
    let uid = |scene: &mut Scene| {
        let cluster = scene.world.cluster.as_mut().expect("known");
        let uids = cluster.drains.values_mut();
        uids.for_each(|uid| *uid = "another".into());
    };
    assert_eq!(with(uid), (true, 2), "of a Node that was here before");
    let made = |scene: &mut Scene| {
        *scene = scene.clone().record("n1", |record| {
            record.drain = Some(DrainRecord {
                started_at: ago(now(), SECOND),
                attempts: 1,
                ended: None,
            });
        });
    };
    assert_eq!(with(made), (true, 2), "it was made");
    let earlier = |scene: &mut Scene| {
        *scene = scene.clone().record("n1", |record| {
            record.drain = Some(DrainRecord {
                started_at: ago(now(), 2 * SECOND),
                attempts: 1,
                ended: None,
            });
        });
    };
    assert_eq!(with(earlier), (false, 1), "an earlier one was made");
    let before_the_taint = |scene: &mut Scene| {
        scene.policy.rules.drain_after = Duration::ZERO;
        *scene = scene
            .clone()
            .record("n1", |record| record.since = ago(now(), SECOND));
    };
    assert_eq!(with(before_the_taint), (true, 2));
    let to_come = |scene: &mut Scene| {
        let cluster = scene.world.cluster.as_mut().expect("known");
        cluster.drains.clear();
        let key = (after(now(), SECOND), "n1".into());
        cluster.drains.insert(key, "uid-n1".into());
    };
    assert_eq!(with(to_come), (true, 2), "from a clock that was set back");
    let two = |scene: &mut Scene| {
        let cluster = scene.world.cluster.as_mut().expect("known");
        let key = (ago(now(), 2 * SECOND), "n1".into());
        cluster.drains.insert(key, "uid-n1".into());
    };
    assert_eq!(with(two), (false, 2), "the last of two");
    assert_eq!(
        starts(&{
            let mut scene = waiting(SECOND);
            scene.policy.limits.drains_per_hour = 2;
            two(&mut scene);
            scene
        }),
        [("n1".to_owned(), ago(now(), SECOND))]
    );
}

#[test]
fn a_start_that_waits_counts_once_in_its_pool_too() {
    let scene = waiting(SECOND).with_policy(|policy| {
        policy.limits.drains_per_hour = 10;
        policy.pools = vec![Pool {
            name: "small".to_owned(),
            rules: policy.rules.clone(),
            limits: PoolLimits {
                drains_per_hour: Some(1),
                ..PoolLimits::default()
            },
        }];
    });
    let scene = scene.node("n1", |node| node.pool = Some("small".to_owned()));
    assert_eq!(starts(&scene).len(), 1);
    let groups = decided(&scene).usage.groups;
    assert_eq!((groups[0].used, groups[0].max), (1, 1));
}

#[test]
fn pods_that_were_seen_too_long_ago_are_not_known() {
    let seen = |age: std::time::Duration| {
        let scene = due(wide(), "n1").node("n1", |node| {
            node.pods = Fact::Known(ago(now(), age), Vec::new());
        });
        let decision = decided(&scene);
        let hold = decision.verdicts["n1"].hold();
        hold.map(|hold| (hold.reason, hold.detail.clone()))
    };
    assert_eq!(seen(MINUTE), None);
    assert_eq!(
        seen(MINUTE + std::time::Duration::from_millis(1)),
        Some((
            HoldReason::FactsUnknown,
            "its Pods are not known yet".to_owned()
        ))
    );
    // It is said beside another reason too, where nobody looks for room yet.
    let early = wide()
        .at_risk("n1", 0.9, HOUR)
        .marked("n1", RecordedPhase::Tainted, MINUTE / 2)
        .node("n1", |node| {
            node.pods = Fact::Known(ago(now(), 2 * MINUTE), Vec::new());
        });
    let decision = decided(&early);
    let holds = decision.verdicts["n1"].holds.iter();
    let reasons: Vec<HoldReason> = holds.map(|hold| hold.reason).collect();
    assert!(
        reasons.contains(&HoldReason::DrainAfter) && reasons.contains(&HoldReason::FactsUnknown),
        "{reasons:?}"
    );
}

#[test]
fn two_drains_of_one_plan_count_as_two() {
    let mut scene = due(due(wide(), "n1"), "n2");
    scene.policy.limits.drains_per_hour = 1;
    assert_eq!(done(&scene), [("n1".to_owned(), Cause::DrainStart)]);
    assert_eq!(held_by(&scene, "n2"), Some(HoldReason::DrainsPerHour));
    assert_eq!(decided(&scene).usage.drains_last_hour, 1);
}

#[test]
fn a_drain_that_ends_frees_its_place_in_the_zone_for_the_same_plan() {
    let zone = |scene: Scene, name| scene.node(name, |node| node.zone = Some("a".into()));
    let mut scene = due(drained(wide(), "n1"), "n4");
    scene = zone(zone(scene, "n1"), "n4");
    scene.policy.limits.zone_draining_max = Some(Limit::Count(1));
    let expected = [
        ("n1".to_owned(), Cause::Drained),
        ("n4".to_owned(), Cause::DrainStart),
    ];
    assert_eq!(done(&scene), expected);
}

#[test]
fn a_node_that_is_given_back_may_be_the_one_that_takes_the_work() {
    let two = |change: fn(Scene) -> Scene| {
        let mut scene = wide();
        scene
            .world
            .nodes
            .retain(|name, _| ["n1", "n5"].contains(&name.as_str()));
        let scene = scene
            .marked("n1", RecordedPhase::Drained, 2 * HOUR)
            .remember("n1", |memory| memory.well_since = Some(ago(now(), HOUR)))
            .at_risk("n5", 0.9, MINUTE);
        let mut scene = change(scene);
        scene.policy.limits.tainted_max = Limit::Count(2);
        let begun = done(&scene).contains(&("n5".to_owned(), Cause::Taint));
        let given_back = done(&scene).contains(&("n1".to_owned(), Cause::Release));
        (given_back, begun)
    };
    assert_eq!(two(|scene| scene), (true, true));
    // Given back as well, and yet no place for any Pod.
    assert_eq!(
        two(|scene| scene.node("n1", |node| node.cordoned = true)),
        (true, false)
    );
    // An end of a drain leaves the taint where it is.
    let mut ending = drained(wide(), "n1").at_risk("n5", 0.9, MINUTE);
    ending
        .world
        .nodes
        .retain(|name, _| ["n1", "n5"].contains(&name.as_str()));
    ending.policy.limits.tainted_max = Limit::Count(2);
    let expected = [
        ("n1".to_owned(), Cause::Drained),
        ("n5".to_owned(), Cause::Caution),
    ];
    assert_eq!(done(&ending), expected);
    assert_eq!(held_by(&ending, "n5"), Some(HoldReason::LastNode));
}

#[test]
fn an_alert_at_the_threshold_lends_its_reach_to_nobody() {
    let scene = wide()
        .with_policy(|policy| policy.model_trusted = false)
        .at_risk("n1", 0.9, MINUTE)
        .alert("n1", alert("AtIt", 0.65, Reach::Evict));
    let decision = decided(&scene);
    assert_eq!(decision.verdicts["n1"].reach, Reach::Label);
    assert_eq!(held_by(&scene, "n1"), Some(HoldReason::Untrained));
    let over = wide()
        .with_policy(|policy| policy.model_trusted = false)
        .at_risk("n1", 0.9, MINUTE)
        .alert("n1", alert("OverIt", 0.66, Reach::Evict));
    assert_eq!(decided(&over).verdicts["n1"].reach, Reach::Evict);
    assert_eq!(done(&over), [("n1".to_owned(), Cause::Taint)]);
}

#[test]
fn who_only_observes_misses_no_facts() {
    let blind = |reach| {
        let scene = wide()
            .at_risk("n1", 0.9, MINUTE)
            .with_policy(|policy| policy.rules.reach = reach)
            .with_world(|world| world.cluster = None);
        let holds = decided(&scene).verdicts["n1"].holds.clone();
        holds
            .iter()
            .any(|hold| hold.reason == HoldReason::FactsUnknown)
    };
    assert!(!blind(Reach::Observe));
    assert!(blind(Reach::Label));
}

#[test]
fn a_running_drain_says_that_the_reach_was_lowered() {
    let running = |reach| {
        let scene = wide()
            .at_risk("n1", 0.9, HOUR)
            .marked("n1", RecordedPhase::Draining, MINUTE)
            .with_policy(|policy| policy.rules.reach = reach);
        held_by(&scene, "n1")
    };
    assert_eq!(running(Reach::Taint), Some(HoldReason::Reach));
    assert_eq!(running(Reach::Evict), None);
}
