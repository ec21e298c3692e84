//! Draining one Node: which Pods go, in what order, what is asked when, and how it ends.

use crate::support::pods::{Walk, blocked, budget, budgeted, lost, owner, pod, seconds, with};
use crate::support::{HOUR, MINUTE, now, rules};
use foreshock_core::drain::{
    Action, Answer, Choice, DrainOrder, DrainProgress, DrainRules, EvictionAllowance, NodeOutcome,
    Owner, Pace, PodFacts, PodOutcome, StepState, Workload, Workloads, classify,
};
use foreshock_core::time::{after, since};
use std::time::Duration;

// ---- choosing Pods ----

fn chosen(pod: &PodFacts, rules: &DrainRules) -> String {
    let disposition = classify(pod, rules);
    format!("{} {}", disposition.as_str(), disposition.reason())
        .trim()
        .to_owned()
}

/// Rules that evict whatever the operator may have evicted.
fn everything() -> DrainRules {
    DrainRules {
        unmanaged: Choice::Evict,
        empty_dir: Choice::Evict,
        local_volumes: Choice::Evict,
        devices: Choice::Evict,
        kube_system: Choice::Evict,
        opted_out: Choice::Evict,
        orphaned_daemon_set: Choice::Evict,
        ..rules()
    }
}

#[test]
fn an_ordinary_pod_is_evicted_under_any_rules() {
    assert_eq!(chosen(&pod("a"), &rules()), "evict");
    assert_eq!(chosen(&pod("a"), &everything()), "evict");
    // A Pod that is not Ready, or has a claim that moves with it, is as good as any.
    let slow = with(pod("a"), |pod| {
        pod.ready = false;
        pod.claims = vec!["data-a".into()];
    });
    assert_eq!(chosen(&slow, &rules()), "evict");
}

#[test]
fn what_may_never_be_evicted_is_not_whatever_the_rules_say() {
    let check = |pod: PodFacts, expected: &str| {
        assert_eq!(chosen(&pod, &rules()), expected, "{pod:?}");
        assert_eq!(chosen(&pod, &everything()), expected, "{pod:?}");
    };
    let mirror = with(pod("a"), |pod| pod.mirror = true);
    check(mirror.clone(), "skip mirror pod of a static pod");
    // Static Pods that ended are not removed by the API server either.
    check(
        with(mirror, |pod| pod.finished = true),
        "skip mirror pod of a static pod",
    );
    let daemon = with(pod("a"), |pod| pod.owner = owner("apps", "DaemonSet"));
    check(daemon.clone(), "skip managed by a DaemonSet");
    check(
        with(daemon, |pod| {
            pod.empty_dir = true;
            pod.local_volumes = true;
            pod.tolerates_taint = true;
            pod.critical = true;
        }),
        "skip managed by a DaemonSet",
    );
    check(with(pod("a"), |pod| pod.finished = true), "skip finished");
    check(
        with(pod("a"), |pod| {
            pod.finished = true;
            pod.empty_dir = true;
            pod.owner = None;
        }),
        "skip finished",
    );
    check(
        with(pod("a"), |pod| pod.own = true),
        "skip foreshock itself",
    );
    check(
        with(pod("a"), |pod| pod.tolerates_taint = true),
        "leave it tolerates our taint and could come straight back",
    );
    check(
        with(pod("a"), |pod| {
            pod.budgets = vec![budget("web", EvictionAllowance::Never)];
        }),
        "impossible PodDisruptionBudget web can never allow it (2 of 2 healthy, 2 wanted)",
    );
    check(
        with(pod("a"), |pod| {
            pod.budgets = vec![
                budget("all", EvictionAllowance::Now(1)),
                budget("web", EvictionAllowance::Now(1)),
            ];
        }),
        "impossible more than one PodDisruptionBudget covers it: all, web",
    );
}

#[test]
fn what_is_the_operators_choice_is_left_with_its_reason_until_chosen() {
    type Set = fn(&mut DrainRules);
    let check = |change: fn(&mut PodFacts), set: Set, reason: &str| {
        let pod = with(pod("a"), change);
        assert_eq!(chosen(&pod, &rules()), format!("leave {reason}"));
        let mut chosen_rules = rules();
        set(&mut chosen_rules);
        assert_eq!(chosen(&pod, &chosen_rules), "evict", "{reason}");
        // Another rule does not stand in for the one that speaks of this.
        let mut others = everything();
        let mut only = DrainRules { ..rules() };
        set(&mut only);
        for (mine, other) in [
            (only.unmanaged, &mut others.unmanaged),
            (only.empty_dir, &mut others.empty_dir),
            (only.local_volumes, &mut others.local_volumes),
            (only.devices, &mut others.devices),
            (only.kube_system, &mut others.kube_system),
            (only.opted_out, &mut others.opted_out),
            (only.orphaned_daemon_set, &mut others.orphaned_daemon_set),
        ] {
            if mine == Choice::Evict {
                *other = Choice::Leave;
            }
        }
        assert_eq!(chosen(&pod, &others), format!("leave {reason}"));
    };
    check(
        |pod| pod.owner = None,
        |rules| rules.unmanaged = Choice::Evict,
        "no controller would start it again (eviction.unmanaged)",
    );
    check(
        |pod| pod.empty_dir = true,
        |rules| rules.empty_dir = Choice::Evict,
        "its emptyDir would be lost (eviction.empty_dir)",
    );
    check(
        |pod| pod.local_volumes = true,
        |rules| rules.local_volumes = Choice::Evict,
        "its local volumes do not move (eviction.local_volumes)",
    );
    check(
        |pod| pod.devices = vec!["nvidia.com/gpu".into(), "resource claim nic".into()],
        |rules| rules.devices = Choice::Evict,
        "it uses nvidia.com/gpu, resource claim nic (eviction.devices)",
    );
    check(
        |pod| pod.id.namespace = "kube-system".into(),
        |rules| rules.kube_system = Choice::Evict,
        "in kube-system (eviction.kube_system)",
    );
    check(
        |pod| pod.opted_out = Some("karpenter.sh/do-not-disrupt".into()),
        |rules| rules.opted_out = Choice::Evict,
        "it asks to be left alone by karpenter.sh/do-not-disrupt (eviction.opted_out)",
    );
    check(
        |pod| {
            pod.owner = owner("apps", "DaemonSet");
            pod.daemon_set_gone = true;
        },
        |rules| rules.orphaned_daemon_set = Choice::Evict,
        "its DaemonSet is gone (eviction.orphaned_daemon_set)",
    );
}

#[test]
fn a_daemon_set_of_another_api_group_is_not_a_daemon_set() {
    let foreign = with(pod("a"), |pod| {
        pod.owner = owner("apps.kruise.io", "DaemonSet");
    });
    assert_eq!(chosen(&foreign, &rules()), "evict");
}

#[test]
fn a_budget_whose_status_is_behind_says_nothing_about_never() {
    let behind = with(pod("a"), |pod| {
        let mut budget = budget("web", EvictionAllowance::Never);
        budget.observed = false;
        pod.budgets = vec![budget];
    });
    assert_eq!(chosen(&behind, &rules()), "evict");
}

#[test]
fn a_terminating_pod_is_waited_for_and_nothing_is_asked_of_it() {
    // Also one that would otherwise be left, or could never go: it is on its way.
    let mut walk = Walk::of([
        with(pod("a"), |pod| {
            pod.terminating_until = Some(after(now(), seconds(30)));
        }),
        with(pod("b"), |pod| {
            pod.terminating_until = Some(after(now(), seconds(30)));
            pod.budgets = vec![budget("web", EvictionAllowance::Never)];
            pod.owner = None;
        }),
    ]);
    assert_eq!(walk.ask(), Vec::<String>::new());
    assert_eq!(walk.step().state, StepState::Running { remaining: 2 });
    walk.gone("a").gone("b");
    assert_eq!(walk.over().expect("over").0, NodeOutcome::Drained);
}

#[test]
fn pods_that_do_not_have_to_go_do_not_hold_up_the_end() {
    let mut walk = Walk::of([
        with(pod("finished"), |pod| pod.finished = true),
        with(pod("daemon"), |pod| pod.owner = owner("apps", "DaemonSet")),
        with(pod("mirror"), |pod| pod.mirror = true),
        with(pod("left"), |pod| pod.owner = None),
        with(pod("tolerates"), |pod| pod.tolerates_taint = true),
    ]);
    assert_eq!(walk.ask(), Vec::<String>::new());
    assert_eq!(walk.over(), Some((NodeOutcome::Drained, String::new())));
    walk.pods.clear();
    assert_eq!(walk.over(), Some((NodeOutcome::Drained, String::new())));
}

// ---- order and number ----

#[test]
fn critical_pods_go_after_the_last_ordinary_one_is_gone() {
    let mut walk = Walk::of([
        with(pod("a-critical"), |pod| pod.critical = true),
        pod("b"),
        pod("c"),
    ]);
    assert_eq!(walk.ask(), ["b", "c"]);
    walk.answer("b", Answer::Accepted)
        .answer("c", Answer::Accepted)
        .gone("b");
    assert_eq!(walk.ask(), Vec::<String>::new());
    walk.gone("c");
    assert_eq!(walk.ask(), ["a-critical"]);
}

#[test]
fn what_foreshock_may_live_on_goes_after_the_other_ordinary_pods() {
    let others = (0..12).map(|n| pod(&format!("p{n:02}")));
    let prometheus = with(pod("a-prometheus"), |pod| {
        pod.dependency = Some("Prometheus".to_owned());
    });
    let critical = with(pod("a-critical"), |pod| pod.critical = true);
    let mut walk = Walk::of([prometheus, critical].into_iter().chain(others));
    let first = walk.ask();
    assert_eq!((first[0].as_str(), first.len()), ("p00", 10));
    for name in &first {
        walk.answer(name, Answer::Accepted).gone(name);
    }
    assert_eq!(walk.ask(), ["p10", "p11", "a-prometheus"]);
}

#[test]
fn of_500_pods_ten_are_under_way_at_once_and_all_get_their_turn() {
    let mut walk = Walk::of((0..500).map(|n| pod(&format!("p{n:03}"))));
    let mut asked = 0;
    while !walk.pods.is_empty() {
        let names = walk.ask();
        assert!((1..=10).contains(&names.len()));
        asked += names.len();
        assert_eq!(walk.ask(), Vec::<String>::new(), "ten are under way");
        for name in &names {
            walk.answer(name, Answer::Accepted).gone(name);
        }
    }
    assert_eq!(asked, 500);
    assert_eq!(walk.over().expect("over").0, NodeOutcome::Drained);
}

#[test]
fn pods_of_one_budget_are_asked_one_at_a_time_and_as_many_as_it_has_room_for() {
    let mut walk = Walk::of([budgeted("b", 1), budgeted("c", 1), pod("a")]);
    assert_eq!(
        walk.ask(),
        ["b", "a"],
        "who has to wait for others is first"
    );
    assert_eq!(walk.ask(), Vec::<String>::new());
    walk.answer("b", Answer::Accepted);
    assert_eq!(
        walk.ask(),
        Vec::<String>::new(),
        "the watch shows a room that is taken"
    );
    let going = after(walk.now, seconds(30));
    walk.change("b", |pod| pod.terminating_until = Some(going));
    assert_eq!(walk.ask(), ["c"], "it is seen to go, and there is room");
    // An eviction that takes nothing of the budget does not hold the others for long.
    let mut walk = Walk::of([budgeted("a", 1), budgeted("b", 1)]);
    assert_eq!(walk.ask(), ["a"]);
    walk.answer("a", Answer::Accepted);
    assert_eq!(walk.until_asked(), 2_000);
    // A budget of the same name elsewhere is another budget.
    let elsewhere = with(budgeted("d", 1), |pod| pod.id.namespace = "other".into());
    let mut walk = Walk::of([budgeted("a", 1), elsewhere]);
    assert_eq!(walk.ask().len(), 2);
    // Room for two lets two go, one after the other: two at once would be in each other's way.
    let mut walk = Walk::of((0..4).map(|n| budgeted(&format!("p{n}"), 2)));
    for name in ["p0", "p1"] {
        assert_eq!(walk.ask(), [name]);
        walk.answer(name, Answer::Accepted);
    }
    assert_eq!(walk.ask(), Vec::<String>::new());
}

#[test]
fn of_a_budget_without_room_one_pod_is_asked_and_the_others_wait_for_it_to_open() {
    let mut walk = Walk::of((0..4).map(|n| budgeted(&format!("p{n}"), 0)));
    // What the watch shows may be old.
    assert_eq!(walk.ask(), ["p0"]);
    walk.answer("p0", blocked());
    assert!(
        (8_000..=10_000).contains(&walk.until_asked()),
        "its opening is an event"
    );
    assert_eq!(walk.ask(), ["p0"], "still the same one");
    walk.answer("p0", blocked()).pass(1);
    for name in ["p0", "p1", "p2", "p3"] {
        walk.change(name, |pod| {
            pod.budgets = vec![budget("web", EvictionAllowance::Now(1))];
        });
    }
    assert_eq!(walk.ask(), ["p1"], "at once, and not the one just refused");
    // Whoever was not asked says at the end what it waited for.
    let mut walk = Walk::of([budgeted("a", 0), budgeted("b", 0)]);
    walk.ask();
    walk.answer("a", blocked()).pass(20 * 60_000);
    let (outcome, detail) = walk.over().expect("over");
    assert_eq!(outcome, NodeOutcome::Ended(PodOutcome::BlockedByBudget));
    assert!(detail.contains("shop/b: budget web"), "{detail}");
}

#[test]
fn a_drain_is_not_complete_before_the_scheduler_has_seen_the_taint() {
    let mut walk = Walk::of([]);
    walk.order.complete_after = after(now(), DrainOrder::SCHEDULER_LAG);
    let step = walk.step();
    assert_eq!(step.state, StepState::Running { remaining: 0 });
    assert_eq!(step.wake_at, walk.order.complete_after);
    // A Pod that had been bound just before the taint is caught.
    walk.pass(4_000).pods.push(pod("late"));
    assert_eq!(walk.ask(), ["late"]);
    walk.answer("late", Answer::Accepted)
        .gone("late")
        .pass(1_000);
    assert_eq!(walk.over().expect("over").0, NodeOutcome::Drained);
}

#[test]
fn a_deadline_before_the_schedulers_lag_is_over_makes_no_hot_loop() {
    let mut walk = Walk::of([]);
    walk.order.complete_after = after(now(), seconds(5));
    walk.order.deadline_at = after(now(), seconds(1));
    walk.pass(2_000);
    assert!(walk.step().wake_at > walk.now);
    walk.pass(3_000);
    assert_eq!(walk.over().expect("over").0, NodeOutcome::Drained);
}

#[test]
fn while_nothing_may_be_sent_nothing_is_and_what_was_accepted_is_followed() {
    let mut walk = Walk::of([pod("a"), pod("b")]);
    walk.ask();
    walk.answer("a", Answer::Accepted).answer("b", lost());
    walk.order.sends = false;
    walk.pods.push(pod("c"));
    walk.pass(60_000);
    assert_eq!(walk.ask(), Vec::<String>::new());
    assert_eq!(walk.step().state, StepState::Running { remaining: 3 });
    walk.gone("a");
    assert_eq!(walk.step().state, StepState::Running { remaining: 2 });
    walk.order.sends = true;
    assert_eq!(walk.ask(), ["c", "b"]);
}

// ---- grace ----

#[test]
fn a_grace_period_is_sent_only_where_the_cap_shortens_it_and_never_0() {
    let check = |own: u64, cap: Option<std::time::Duration>, expected: Option<u64>| {
        let mut walk = Walk::of([with(pod("a"), |pod| pod.grace = seconds(own))]);
        walk.order.rules.grace_cap = cap;
        let [Action::Evict { grace, .. }] = walk.step().actions[..] else {
            panic!("one request expected");
        };
        assert_eq!(grace, expected.map(seconds), "own {own}, cap {cap:?}");
    };
    check(30, None, None);
    check(300, None, None);
    check(0, None, None);
    check(300, Some(seconds(30)), Some(30));
    check(30, Some(seconds(30)), None);
    check(5, Some(seconds(30)), None);
    check(0, Some(seconds(30)), None);
    check(30, Some(seconds(0)), Some(1));
    check(30, Some(std::time::Duration::from_millis(200)), Some(1));
    check(1, Some(seconds(0)), None);
    check(0, Some(seconds(0)), None);
}

// ---- answers ----

#[test]
fn an_accepted_pod_is_never_asked_again() {
    for answer in [Answer::Accepted, Answer::NamespaceTerminating] {
        let mut walk = Walk::of([pod("a")]);
        assert_eq!(walk.ask(), ["a"]);
        walk.answer("a", answer);
        for _ in 0..1000 {
            walk.pass(700);
            assert_eq!(walk.ask(), Vec::<String>::new());
        }
        // It never started to go: that is said once its time is up, and not before.
        let (outcome, detail) = walk.over().expect("over");
        assert_eq!(outcome, NodeOutcome::Ended(PodOutcome::StuckTerminating));
        assert!(detail.contains("shop/a"), "{detail}");
    }
}

#[test]
fn while_a_request_is_under_way_no_other_is_made_for_the_pod() {
    let mut walk = Walk::of([pod("a")]);
    walk.ask();
    let step = walk.pass(20 * 60_000).pass(0).step();
    assert_eq!(step.actions, []);
    let mut walk = Walk::of([pod("a")]);
    walk.ask();
    walk.pass(11 * 60_000);
    assert_eq!(walk.step().actions, []);
    assert!(walk.step().wake_at > walk.now, "a hot loop");
}

#[test]
fn after_a_lost_answer_the_pod_is_read_first() {
    let first = |walk: &Walk| match &walk.step().actions[..] {
        [Action::Evict { read_first, .. }] => *read_first,
        other => panic!("one request expected, got {other:?}"),
    };
    let mut walk = Walk::of([pod("a")]);
    assert!(!first(&walk), "nothing was sent before");
    walk.ask();
    walk.answer("a", lost());
    assert!(walk.until_asked() >= 500);
    assert!(first(&walk));
    walk.ask();
    // The watch shows in the meantime that it had taken place.
    walk.answer("a", lost()).change("a", |pod| {
        pod.terminating_until = Some(after(now(), seconds(600)));
    });
    walk.pass(60_000);
    assert_eq!(walk.ask(), Vec::<String>::new());
    // What a budget refuses has not taken place, unless an earlier request has.
    let mut walk = Walk::of([pod("a")]);
    walk.ask();
    walk.answer("a", blocked()).until_asked();
    assert!(!first(&walk));
    walk.ask();
    walk.answer("a", lost()).until_asked();
    walk.ask();
    walk.answer("a", blocked()).until_asked();
    assert!(first(&walk));
}

#[test]
fn nobody_is_asked_for_where_what_was_evicted_a_moment_ago_explains_that_there_is_no_room() {
    let open = |name: &str, count| budgeted(name, count);
    let mut walk = Walk::of(["a", "b"].map(|name| open(name, 1)));
    assert_eq!(walk.ask(), ["a"]);
    walk.answer("a", Answer::Accepted).change("a", |pod| {
        pod.terminating_until = Some(after(now(), seconds(600)));
        pod.budgets.clear();
    });
    walk.change("b", |pod| pod.budgets = open("b", 0).budgets);
    assert_eq!(walk.ask(), Vec::<String>::new());
    walk.pass(4_999);
    assert_eq!(walk.ask(), Vec::<String>::new());
    assert_eq!(
        walk.step().wake_at,
        after(walk.now, Duration::from_millis(1))
    );
    // After that it is worth the server's own words.
    walk.pass(1);
    assert_eq!(walk.ask(), ["b"]);
}

#[test]
fn a_write_of_the_disruption_controller_that_is_due_is_waited_for_a_moment() {
    let room_for_two = |name: &str, unsettled| {
        with(budgeted(name, 2), |pod| {
            pod.budgets[0].unsettled = unsettled
        })
    };
    let mut walk = Walk::of(["a", "b", "c"].map(|name| room_for_two(name, false)));
    assert_eq!(walk.ask(), ["a"]);
    walk.answer("a", Answer::Accepted).change("a", |pod| {
        pod.terminating_until = Some(after(now(), seconds(600)));
        pod.budgets.clear();
    });
    // Where it is not ours, it is nobody's business.
    let mut other = Walk::of([room_for_two("b", true)]);
    assert_eq!(other.ask(), ["b"]);
    let settles = |walk: &mut Walk, unsettled| {
        for name in ["b", "c"] {
            walk.change(name, |pod| {
                pod.budgets = room_for_two(name, unsettled).budgets
            });
        }
    };
    settles(&mut walk, true);
    assert_eq!(walk.ask(), Vec::<String>::new());
    walk.pass(299);
    assert_eq!(walk.ask(), Vec::<String>::new());
    assert_eq!(
        walk.step().wake_at,
        after(walk.now, Duration::from_millis(1))
    );
    // It comes, or it does not.
    let mut comes = walk.clone();
    settles(&mut comes, false);
    assert_eq!(comes.ask(), ["b"]);
    walk.pass(1);
    assert_eq!(walk.ask(), ["b"]);
}

#[test]
fn pods_that_nobody_waits_for_leave_the_server_to_the_links() {
    let alone = (0..20).map(|n| pod(&format!("p{n:02}")));
    let links = ["a", "b"].map(|name| budgeted(name, 1));
    let mut walk = Walk::of(links.into_iter().chain(alone.clone()));
    assert_eq!(walk.ask(), ["a", "p00", "p01", "p02", "p03"]);
    walk.answer("p00", Answer::Accepted);
    assert_eq!(walk.ask(), ["p04"]);
    assert_eq!(Walk::of(alone.clone()).ask().len(), 10);
    // A critical link waits for the others, and not they for it.
    let critical = with(budgeted("a", 1), |pod| pod.critical = true);
    assert_eq!(
        Walk::of([critical].into_iter().chain(alone)).ask().len(),
        10
    );
}

#[test]
fn every_answer_that_is_tried_again_waits_longer_each_time_from_a_floor_to_a_cap() {
    let answers = [
        blocked(),
        lost(),
        Answer::Throttled { retry_after: None },
        Answer::OverlappingBudgets {
            detail: "two".into(),
        },
        Answer::WebhookDenied {
            detail: "no".into(),
        },
        Answer::Failed {
            detail: "500".into(),
        },
        // The watch is behind.
        Answer::Gone,
        Answer::BlockedByBudget {
            detail: String::new(),
            retry_after: Some(seconds(0)),
        },
    ];
    for answer in answers {
        // The numbers of a status that is behind are no event to wait for.
        let behind = |pod: &mut PodFacts| pod.budgets[0].observed = false;
        let mut walk = Walk::of([with(budgeted("a", 0), behind)]);
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert_eq!(walk.ask(), ["a"], "{answer:?}");
            walk.answer("a", answer.clone());
            waits.push(walk.until_asked());
        }
        assert!((500..=1_000).contains(&waits[0]), "{answer:?}: {waits:?}");
        assert!(waits[1] > waits[0] && waits[2] > waits[1], "{waits:?}");
        assert!(waits.iter().all(|wait| (500..=10_000).contains(wait)));
        assert!(waits[8..].iter().all(|wait| *wait >= 8_000), "{waits:?}");
    }
}

#[test]
fn pods_that_were_refused_together_do_not_come_back_together() {
    let mut due: Vec<i128> = (0..10)
        .map(|n| {
            let name = format!("p{n}");
            let mut walk = Walk::of([pod(&name)]);
            for _ in 0..6 {
                walk.ask();
                walk.answer(&name, lost());
                walk.until_asked();
            }
            walk.ask();
            walk.answer(&name, lost()).until_asked()
        })
        .collect();
    due.sort_unstable();
    due.dedup();
    assert!(due.len() >= 8, "{due:?}");
}

#[test]
fn a_servers_retry_after_is_honoured_within_reason() {
    let check = |asked: u64, expected: i128| {
        for answer in [
            Answer::BlockedByBudget {
                detail: String::new(),
                retry_after: Some(seconds(asked)),
            },
            Answer::Throttled {
                retry_after: Some(seconds(asked)),
            },
        ] {
            // Also when the budget seems to have room: the server knows why it wants to be asked later.
            let mut walk = Walk::of([budgeted("a", 1)]);
            walk.ask();
            walk.answer("a", answer);
            assert_eq!(walk.until_asked(), expected);
        }
    };
    check(10, 10_000);
    check(1, 1_000);
    check(86_400, 60_000);
}

#[test]
fn when_the_budget_opens_the_pod_is_asked_at_once_but_not_sooner_than_the_floor() {
    for hint in [None, Some(seconds(0))] {
        let refused = Answer::BlockedByBudget {
            detail: String::new(),
            retry_after: hint,
        };
        let mut walk = Walk::of([budgeted("a", 0)]);
        for _ in 0..6 {
            walk.ask();
            walk.answer("a", refused.clone());
            walk.until_asked();
        }
        walk.ask();
        walk.answer("a", refused.clone()).pass(100);
        let open = |pod: &mut PodFacts| {
            pod.budgets = vec![budget("web", EvictionAllowance::Now(1))];
        };
        walk.change("a", open);
        assert_eq!(walk.until_asked(), 400);
        walk.ask();
        walk.answer("a", refused.clone());
        assert_eq!(walk.until_asked(), 500);
        // After its first refusals the floor is lower: they were about a moment that is over.
        let mut walk = Walk::of([budgeted("a", 1)]);
        for expected in [100, 200, 400, 500, 500] {
            walk.ask();
            walk.answer("a", refused.clone());
            assert_eq!(walk.until_asked(), expected);
        }
        // Numbers of a status that is behind open nothing.
        walk.ask();
        walk.answer("a", blocked())
            .change("a", |pod| pod.budgets[0].observed = false);
        assert!(walk.until_asked() >= 8_000);
    }
}

#[test]
fn a_busy_server_is_left_alone_by_the_whole_drain() {
    let mut walk = Walk::of((0..12).map(|n| pod(&format!("p{n:02}"))));
    assert_eq!(walk.ask().len(), 10);
    walk.answer(
        "p00",
        Answer::Throttled {
            retry_after: Some(seconds(7)),
        },
    );
    walk.answer("p01", Answer::Accepted);
    assert_eq!(walk.ask(), Vec::<String>::new());
    assert_eq!(walk.until_asked(), 7_000);
    // Who was not asked for yet comes before who was.
    assert_eq!(walk.ask(), ["p10", "p11"]);
}

fn forbidden() -> Answer {
    Answer::Forbidden {
        detail: "cannot create resource \"pods/eviction\"".into(),
    }
}

#[test]
fn a_server_that_has_just_started_and_forbids_what_it_allows_later_ends_no_drain() {
    let mut walk = Walk::of((0..5).map(|n| pod(&format!("p{n}"))));
    for name in walk.ask() {
        walk.answer(&name, forbidden());
    }
    assert_eq!(walk.ask(), Vec::<String>::new());
    let mut asked = 0;
    while !walk.pods.is_empty() {
        walk.until_asked();
        for name in walk.ask() {
            asked += 1;
            walk.answer(&name, Answer::Accepted).gone(&name);
        }
    }
    assert_eq!(asked, 5);
    assert_eq!(walk.over().expect("over").0, NodeOutcome::Drained);
}

#[test]
fn without_the_right_to_evict_nothing_more_is_asked_in_the_namespace() {
    let elsewhere = with(pod("z"), |pod| pod.id.namespace = "zoo".into());
    let mut walk = Walk::of((0..30).map(|n| pod(&format!("p{n:02}"))).chain([elsewhere]));
    let asked = walk.ask();
    for name in &asked {
        walk.answer(name, forbidden());
    }
    assert_eq!(walk.ask(), ["z"]);
    let id = walk.pods.last().expect("z").id.clone();
    walk.progress.answered(&id, Answer::Accepted, walk.now);
    walk.pods.pop();
    // One of them is asked for again, for a server that does not know its roles yet.
    let mut again = Vec::new();
    while walk.over().is_none() {
        let waits = walk.until_asked();
        assert!((400..=10_000).contains(&waits), "{waits} ms");
        let asked = walk.ask();
        assert_eq!(asked.len(), 1, "{asked:?}");
        walk.answer(&asked[0], forbidden());
        again.extend(asked);
    }
    assert_eq!(again.len(), 3);
    assert!(again.iter().all(|name| *name == again[0]), "{again:?}");
    let (outcome, detail) = walk.over().expect("over");
    assert_eq!(outcome, NodeOutcome::Ended(PodOutcome::Forbidden));
    assert!(detail.contains("cannot create resource"), "{detail}");
    assert!(detail.contains("and 25 more"), "{detail}");
}

// ---- ends ----

#[test]
fn what_can_never_go_is_named_after_the_others_have_moved() {
    let never = with(pod("a"), |pod| {
        pod.budgets = vec![budget("strict", EvictionAllowance::Never)];
    });
    let double = with(pod("b"), |pod| {
        pod.budgets = vec![
            budget("one", EvictionAllowance::Now(1)),
            budget("two", EvictionAllowance::Now(1)),
        ];
    });
    let mut walk = Walk::of([never, double, pod("c")]);
    assert_eq!(walk.ask(), ["c"]);
    assert_eq!(walk.step().state, StepState::Running { remaining: 3 });
    walk.answer("c", Answer::Accepted).gone("c");
    let (outcome, detail) = walk.over().expect("over");
    assert_eq!(outcome, NodeOutcome::Ended(PodOutcome::NeverAllowed));
    assert!(
        detail.contains("shop/a: PodDisruptionBudget strict"),
        "{detail}"
    );
    assert!(detail.contains("shop/b: more than one PodDisruptionBudget covers it: one, two"));
}

#[test]
fn a_pod_that_cannot_go_now_and_is_allowed_later_goes() {
    let mut walk = Walk::of([
        with(pod("a"), |pod| {
            pod.budgets = vec![budget("strict", EvictionAllowance::Never)];
        }),
        pod("b"),
    ]);
    assert_eq!(walk.ask(), ["b"]);
    walk.change("a", |pod| {
        pod.budgets = vec![budget("strict", EvictionAllowance::Now(1))];
    });
    assert_eq!(walk.ask(), ["a"]);
}

#[test]
fn a_pod_past_its_deadline_ends_with_what_it_was_told() {
    let check = |answer: Answer, expected: PodOutcome, named: &str| {
        let mut walk = Walk::of([budgeted("a", 0), pod("b")]);
        walk.ask();
        walk.answer("b", Answer::Accepted).gone("b");
        walk.answer("a", answer.clone());
        loop {
            if walk.over().is_some() {
                break;
            }
            walk.until_asked_or_over(&answer);
            assert!(since(now(), walk.now) < HOUR, "it never ends");
        }
        let (outcome, detail) = walk.over().expect("over");
        assert_eq!(outcome, NodeOutcome::Ended(expected));
        assert!(
            detail.contains("shop/a") && detail.contains(named),
            "{detail}"
        );
        let took = since(now(), walk.now);
        assert!(
            took >= 10 * MINUTE && took <= 10 * MINUTE + seconds(1),
            "{took:?}"
        );
    };
    check(blocked(), PodOutcome::BlockedByBudget, "budget web needs 2");
    check(
        Answer::OverlappingBudgets {
            detail: "more than one".into(),
        },
        PodOutcome::OverlappingPdbs,
        "more than one",
    );
    check(
        Answer::WebhookDenied {
            detail: "not on Fridays".into(),
        },
        PodOutcome::WebhookDenied,
        "not on Fridays",
    );
    check(
        Answer::Failed {
            detail: "etcd is full".into(),
        },
        PodOutcome::Deadline,
        "etcd is full",
    );
}

#[test]
fn at_the_nodes_deadline_each_pod_says_what_it_waited_for() {
    let mut walk = Walk::of([
        budgeted("a", 0),
        pod("b"),
        with(pod("c"), |pod| {
            pod.terminating_until = Some(after(now(), seconds(3600)));
            pod.finalizers = vec!["example.org/hold".into()];
        }),
        with(pod("d"), |pod| pod.id.namespace = "other".into()),
    ]);
    walk.ask();
    let id = walk.pods[3].id.clone();
    walk.progress.answered(
        &id,
        Answer::Forbidden {
            detail: "no right".into(),
        },
        walk.now,
    );
    walk.answer("a", blocked()).answer("b", lost());
    walk.order.deadline_at = after(now(), seconds(5));
    assert_eq!(walk.over(), None);
    walk.pass(5_000);
    let (outcome, detail) = walk.over().expect("over");
    assert_eq!(outcome, NodeOutcome::Ended(PodOutcome::BlockedByBudget));
    assert!(
        detail.contains("shop/a: The disruption budget web"),
        "{detail}"
    );
    assert!(
        detail.contains("shop/b: still there at the deadline"),
        "{detail}"
    );
    assert!(detail.contains("shop/c: still there at the deadline, finalizers example.org/hold"));
    assert!(detail.contains("other/d: no right"), "{detail}");
    assert_eq!(detail.matches("other/d").count(), 1, "named once: {detail}");
    assert_eq!(walk.step().actions, []);
}

#[test]
fn a_pod_that_does_not_finish_is_stuck_and_its_finalizers_are_named() {
    let mut walk = Walk::of([with(pod("a"), |pod| {
        pod.terminating_until = Some(after(now(), seconds(30)));
        pod.finalizers = vec!["a.example/x".into(), "b.example/y".into()];
    })]);
    assert_eq!(walk.step().wake_at, after(now(), seconds(60)));
    walk.pass(59_000);
    assert_eq!(walk.over(), None);
    walk.pass(1_000);
    let (outcome, detail) = walk.over().expect("over");
    assert_eq!(outcome, NodeOutcome::Ended(PodOutcome::StuckTerminating));
    assert!(
        detail.contains("finalizers a.example/x, b.example/y"),
        "{detail}"
    );
}

#[test]
fn where_the_node_does_not_answer_its_pods_are_unreachable_and_nothing_is_forced() {
    let mut walk = Walk::of([pod("a")]);
    walk.node_ready = false;
    walk.ask();
    walk.answer("a", Answer::Accepted).change("a", |pod| {
        pod.terminating_until = Some(after(now(), seconds(30)));
    });
    walk.pass(60_000);
    let (outcome, _) = walk.over().expect("over");
    assert_eq!(outcome, NodeOutcome::Ended(PodOutcome::Unreachable));
    assert_eq!(walk.step().actions, []);
}

#[test]
fn of_many_pods_in_the_way_five_are_named_and_the_rest_counted() {
    let walk = Walk::of((0..8).map(|n| {
        with(pod(&format!("p{n}")), |pod| {
            pod.budgets = vec![budget("strict", EvictionAllowance::Never)];
        })
    }));
    let (_, detail) = walk.over().expect("over");
    assert_eq!(detail.matches("strict").count(), 5);
    assert!(detail.ends_with("; and 3 more"), "{detail}");
}

#[test]
fn a_restart_asks_nothing_of_what_is_already_going() {
    let mut walk = Walk::of([pod("a"), pod("b")]);
    walk.ask();
    walk.answer("a", Answer::Accepted).change("a", |pod| {
        pod.terminating_until = Some(after(now(), seconds(30)));
    });
    walk.progress = foreshock_core::drain::DrainProgress::default();
    assert_eq!(walk.ask(), ["b"]);
}

// ---- one Pod of a workload at a time ----

/// Pods `a`, `b`, … of the Deployment `web`, which has these Ready Pods on other Nodes.
fn web(names: &[&str], elsewhere: &[&str], wanted: Option<u32>) -> Walk {
    let pods = names.iter().map(|name| of_web(name));
    let mut walk = Walk::of(pods);
    walk.sees(names, elsewhere, wanted);
    walk
}

pub(crate) fn of_web(name: &str) -> PodFacts {
    with(pod(name), |pod| {
        pod.workload = Ok(owner("apps", "Deployment").map(|owner| Owner {
            name: "web".into(),
            uid: "web".into(),
            ..owner
        }));
    })
}

#[test]
fn of_a_workload_the_next_pod_goes_when_the_replacement_is_ready() {
    let mut walk = web(&["a", "b", "c"], &[], Some(3));
    assert_eq!(walk.ask(), ["a"]);
    assert_eq!(
        walk.ask(),
        Vec::<String>::new(),
        "the answer is not there yet"
    );
    walk.answer("a", Answer::Accepted);
    assert_eq!(
        walk.ask(),
        Vec::<String>::new(),
        "the watch still shows all three"
    );
    walk.sees(&["b", "c"], &[], Some(3)).gone("a");
    assert_eq!(
        walk.ask(),
        Vec::<String>::new(),
        "its replacement is not Ready"
    );
    walk.sees(&["b", "c"], &["r1"], Some(3));
    assert_eq!(walk.ask(), ["b"]);
    walk.answer("b", Answer::Accepted).gone("b");
    walk.sees(&["c"], &["r1", "r2"], Some(3));
    assert_eq!(walk.ask(), ["c"]);
}

#[test]
fn a_workload_that_was_short_before_is_not_waited_for_to_have_all() {
    let mut walk = web(&["a", "b"], &[], Some(3));
    assert_eq!(walk.ask(), ["a"]);
    walk.answer("a", Answer::Accepted)
        .gone("a")
        .sees(&["b"], &[], Some(3));
    assert_eq!(walk.ask(), Vec::<String>::new());
    walk.sees(&["b"], &["r1"], Some(3));
    assert_eq!(walk.ask(), ["b"], "two were Ready before, and two are");
}

#[test]
fn a_process_that_followed_upon_another_trusts_no_shortage_that_it_finds() {
    let mut walk = web(&[], &[], None);
    walk.pods = vec![of_web("b"), of_web("c")];
    walk.workloads = Workloads::default();
    let seen = Walk::workload(&["b", "c"], &[], Some(3));
    walk.workloads.see(&"web".into(), Ok(seen));
    assert_eq!(walk.ask(), Vec::<String>::new());
    walk.sees(&["b", "c"], &["r1"], Some(3));
    assert_eq!(walk.ask(), ["b"]);
}

#[test]
fn a_workload_that_asks_for_less_meanwhile_is_held_to_that() {
    let mut walk = web(&["a", "b", "c"], &[], Some(3));
    walk.ask();
    walk.answer("a", Answer::Accepted)
        .gone("a")
        .sees(&["b", "c"], &[], Some(2));
    assert_eq!(walk.ask(), ["b"]);
    // More than it had is not asked of it either.
    let mut walk = web(&["a", "b"], &[], Some(2));
    walk.ask();
    walk.answer("a", Answer::Accepted)
        .gone("a")
        .sees(&["b"], &["r1"], Some(5));
    assert_eq!(walk.ask(), ["b"]);
    // A kind that does not say how many it asks for is held to what it had.
    let mut walk = web(&["a", "b"], &[], None);
    walk.ask();
    walk.answer("a", Answer::Accepted)
        .gone("a")
        .sees(&["b"], &[], None);
    assert_eq!(walk.ask(), Vec::<String>::new());
    walk.sees(&["b"], &["r1"], None);
    assert_eq!(walk.ask(), ["b"]);
}

#[test]
fn a_workload_that_is_gone_or_finished_holds_nobody() {
    let mut walk = web(&["a", "b", "c"], &[], Some(3));
    walk.ask();
    walk.answer("a", Answer::Accepted);
    let over = Workload {
        over: true,
        ..Workload::default()
    };
    walk.workloads.see(&"web".into(), Ok(over));
    assert_eq!(walk.ask(), ["b"], "one in each step");
    assert_eq!(walk.ask(), ["c"]);
}

#[test]
fn under_a_budget_or_at_the_pace_of_budgets_no_replacement_is_waited_for() {
    let mut walk = web(&["a", "b"], &[], Some(2));
    walk.order.rules.pace = Pace::Budget;
    assert_eq!(walk.ask(), ["a", "b"]);
    let mut walk = web(&["a", "b"], &[], Some(2));
    for pod in &mut walk.pods {
        pod.budgets = vec![budget("web", EvictionAllowance::Now(2))];
    }
    assert_eq!(walk.ask(), ["a"]);
    walk.answer("a", Answer::Accepted);
    assert_eq!(walk.ask(), ["b"], "its budget has room for two");
    let mut walk = web(&[], &[], None);
    walk.pods = vec![pod("alone"), pod("another")];
    assert_eq!(
        walk.ask(),
        ["alone", "another"],
        "nobody is known to replace them"
    );
}

#[test]
fn a_slow_workload_holds_back_nobody_else() {
    let mut walk = web(&["a", "b"], &[], Some(2));
    walk.pods.push(pod("c"));
    assert_eq!(walk.ask(), ["a", "c"]);
}

#[test]
fn a_replacement_that_never_comes_keeps_the_others_where_they_are() {
    let mut walk = web(&["a", "b", "c"], &[], Some(3));
    walk.ask();
    walk.answer("a", Answer::Accepted)
        .gone("a")
        .sees(&["b", "c"], &[], Some(3));
    walk.pass(600_000 - 1);
    assert!(walk.ask().is_empty() && walk.over().is_none());
    assert_eq!(
        walk.step().wake_at,
        after(walk.now, Duration::from_millis(1))
    );
    walk.pass(1);
    let (outcome, detail) = walk.over().expect("over");
    assert_eq!(outcome, NodeOutcome::Ended(PodOutcome::ReplacementNotReady));
    assert!(
        detail.contains("shop/b: Deployment/web has 2 of 3 Ready Pods"),
        "{detail}"
    );
    // The next attempt does not take what is left for all that there ever was.
    walk.progress = DrainProgress::default();
    walk.pass(300_000).settle();
    walk.sees(&["b", "c"], &[], Some(3));
    walk.order.started_at = walk.now;
    walk.order.deadline_at = after(walk.now, HOUR);
    assert_eq!(walk.ask(), Vec::<String>::new());
}

#[test]
fn a_workload_that_cannot_be_looked_at_is_waited_for_and_named() {
    let mut walk = web(&[], &[], None);
    walk.workloads = Workloads::default();
    walk.pods = vec![of_web("a")];
    assert_eq!(walk.ask(), Vec::<String>::new(), "it is being looked at");
    walk.workloads.see(&"web".into(), Err("forbidden".into()));
    walk.pass(600_000);
    let (outcome, detail) = walk.over().expect("over");
    assert_eq!(outcome, NodeOutcome::Ended(PodOutcome::ReplacementNotReady));
    assert!(
        detail.contains("Deployment/web could not be looked at: forbidden"),
        "{detail}"
    );
}

#[test]
fn who_was_refused_gives_the_turn_back_and_who_is_unheard_keeps_it() {
    let mut walk = web(&["a", "b"], &[], Some(2));
    walk.ask();
    walk.answer("a", lost());
    assert_eq!(walk.ask(), Vec::<String>::new());
    walk.pass(2_000);
    assert_eq!(walk.ask(), ["a"], "it is asked again, and nobody else");
    walk.answer(
        "a",
        Answer::WebhookDenied {
            detail: "no".into(),
        },
    );
    assert_eq!(walk.ask(), ["b"]);
}

#[test]
fn two_nodes_that_are_drained_at_once_share_the_turn() {
    let mut one = web(&["a"], &["b"], Some(2));
    assert_eq!(one.ask(), ["a"]);
    let mut other = web(&[], &[], None);
    other.pods = vec![of_web("b")];
    other.workloads = one.workloads.clone();
    assert_eq!(other.ask(), Vec::<String>::new());
    one.answer("a", Answer::Accepted)
        .sees(&[], &["b", "r1"], Some(2));
    other.workloads = one.workloads.clone();
    assert_eq!(other.ask(), ["b"]);
}

#[test]
fn the_only_pod_of_a_workload_goes_without_a_look_at_it() {
    let fresh = |names: &[&str], trusted: bool| {
        let mut walk = web(&[], &[], None);
        walk.workloads = Workloads::default();
        walk.workloads.trust(trusted);
        walk.pods = names.iter().map(|name| of_web(name)).collect();
        walk
    };
    let looks = |walk: &Walk| walk.workloads.to_look_at(walk.pods.iter()).len();
    let mut alone = fresh(&["a"], true);
    assert_eq!(looks(&alone), 0);
    assert_eq!(alone.ask(), ["a"]);
    // Another Node's Pod of the same workload waits for the replacement then.
    let mut other = fresh(&["b"], true);
    other.workloads = alone.workloads.clone();
    assert_eq!(looks(&other), 1);
    assert_eq!(other.ask(), Vec::<String>::new());
    alone
        .answer("a", Answer::Accepted)
        .sees(&["b"], &[], Some(2));
    other.workloads = alone.workloads.clone();
    assert_eq!(other.ask(), Vec::<String>::new(), "two were there before");
    alone.sees(&["b"], &["r1"], Some(2));
    other.workloads = alone.workloads.clone();
    assert_eq!(other.ask(), ["b"]);
    // Not where there are two, a predecessor may have left something, or nobody knows how many it asks for.
    assert_eq!(looks(&fresh(&["a", "b"], true)), 1);
    assert_eq!(fresh(&["a", "b"], true).ask(), Vec::<String>::new());
    assert_eq!(looks(&fresh(&["a"], false)), 1);
    assert_eq!(fresh(&["a"], false).ask(), Vec::<String>::new());
    let mut foreign = fresh(&["a"], true);
    let owner = foreign.pods[0].workload.as_mut().expect("known");
    owner.as_mut().expect("of web").group = "example.org".into();
    assert_eq!(looks(&foreign), 1);
    assert_eq!(foreign.ask(), Vec::<String>::new());
}

#[test]
fn a_workload_whose_pods_are_all_going_is_not_looked_at() {
    let mut walk = web(&["a", "b"], &[], Some(3));
    let looks = |walk: &Walk| walk.workloads.to_look_at(walk.pods.iter()).len();
    assert_eq!(looks(&walk), 1);
    let until = Some(after(walk.now, HOUR));
    walk.pods[0].terminating_until = until;
    assert_eq!(looks(&walk), 1, "the other waits for its replacement");
    walk.pods[1].terminating_until = until;
    assert_eq!(looks(&walk), 0);
}

#[test]
fn what_a_workload_had_before_grows_with_it_until_something_is_asked_of_it() {
    let mut walk = web(&["a", "b"], &[], Some(3));
    walk.sees(&["a", "b"], &["c"], Some(3));
    assert_eq!(walk.ask(), ["a"]);
    walk.answer("a", Answer::Accepted)
        .gone("a")
        .sees(&["b"], &["c"], Some(3));
    assert_eq!(walk.ask(), Vec::<String>::new(), "three were Ready before");
    walk.sees(&["b"], &["c", "r1"], Some(3));
    assert_eq!(walk.ask(), ["b"]);
}

#[test]
fn the_last_pod_of_a_workload_that_lacks_others_since_an_earlier_drain_is_not_taken_unseen() {
    let mut walk = web(&["a", "b"], &["c"], Some(3));
    walk.ask();
    walk.answer("a", Answer::Accepted)
        .gone("a")
        .sees(&["b"], &["c"], Some(3));
    walk.pass(600_000).settle();
    walk.progress = DrainProgress::default();
    walk.order.started_at = walk.now;
    walk.order.deadline_at = after(walk.now, HOUR);
    assert_eq!(walk.workloads.to_look_at(walk.pods.iter()).len(), 1);
    assert_eq!(walk.ask(), Vec::<String>::new());
    walk.sees(&["b"], &["c"], Some(3));
    assert_eq!(walk.ask(), Vec::<String>::new(), "two of three");
    walk.sees(&["b"], &["c", "r1"], Some(3));
    assert_eq!(walk.ask(), ["b"]);
}

#[test]
fn a_request_that_is_repeated_is_awaited_from_the_last_time_on() {
    let mut walk = web(&["a", "b"], &[], Some(2));
    assert_eq!(walk.ask(), ["a"]);
    walk.answer("a", lost()).pass(2_000);
    assert_eq!(walk.ask(), ["a"]);
    walk.pass(600_000 - 1).settle();
    assert_eq!(walk.workloads.unsettled().count(), 1);
    walk.pass(1).settle();
    assert_eq!(walk.workloads.unsettled().count(), 0);
}

/// The Pods' ReplicaSet cannot be read, so nobody knows what they belong to.
#[test]
fn a_pod_whose_workload_is_not_known_waits_and_is_never_taken_for_another_workloads() {
    let unresolved = |name: &str| {
        with(of_web(name), |pod| {
            pod.workload = Err("replicasets is forbidden".into());
        })
    };
    let mut walk = Walk::of(["a", "b", "c"].map(unresolved));
    walk.workloads.trust(true);
    walk.pods.push(pod("free"));
    assert_eq!(walk.ask(), ["free"], "it holds back nobody else");
    walk.answer("free", Answer::Accepted).gone("free");
    assert_eq!(walk.ask(), Vec::<String>::new());
    // It can be read now, and then not for a while: a second one does not go meanwhile.
    walk.pods = ["a", "b", "c"].map(of_web).into();
    walk.sees(&["a", "b", "c"], &[], Some(3));
    assert_eq!(walk.ask(), ["a"]);
    walk.answer("a", Answer::Accepted).gone("a");
    walk.pods = ["b", "c"].map(unresolved).into();
    walk.sees(&["b", "c"], &[], Some(3));
    assert_eq!(walk.ask(), Vec::<String>::new());
    walk.pods = ["b", "c"].map(of_web).into();
    assert_eq!(walk.ask(), Vec::<String>::new(), "two of three are Ready");
    walk.sees(&["b", "c"], &["r1"], Some(3));
    assert_eq!(walk.ask(), ["b"]);
    // A budget says it better, and at the pace of budgets nobody asks.
    let mut budgeted = Walk::of([unresolved("a")]);
    budgeted.pods[0].budgets = vec![budget("web", EvictionAllowance::Now(1))];
    assert_eq!(budgeted.ask(), ["a"]);
    let mut at_once = Walk::of(["a", "b"].map(unresolved));
    at_once.order.rules.pace = Pace::Budget;
    assert_eq!(at_once.ask(), ["a", "b"]);
    // It is bounded, and says why.
    let mut never = Walk::of([unresolved("a")]);
    assert!(never.ask().is_empty() && never.over().is_none());
    never.pass(600_000);
    let (outcome, detail) = never.over().expect("over");
    assert_eq!(outcome, NodeOutcome::Ended(PodOutcome::ReplacementNotReady));
    assert!(
        detail.contains("shop/a") && detail.contains("replicasets is forbidden"),
        "{detail}"
    );
}

#[test]
fn nobody_waits_for_a_forbidden_pod_that_is_gone_by_itself() {
    let mut walk = Walk::of([pod("a")]);
    walk.ask();
    walk.answer("a", forbidden());
    walk.pods.push(pod("b"));
    assert_eq!(
        walk.ask(),
        Vec::<String>::new(),
        "the other is asked for again first"
    );
    walk.gone("a");
    assert_eq!(walk.ask(), ["b"]);
    // Nor for one that goes by somebody else's word.
    let mut walk = Walk::of([pod("a")]);
    walk.ask();
    walk.answer("a", forbidden());
    walk.pods.push(pod("b"));
    walk.change("a", |pod| pod.terminating_until = Some(now()));
    assert_eq!(walk.ask(), ["b"]);
}

#[test]
fn a_critical_pod_that_its_namespace_waits_for_does_not_wait_for_it() {
    let critical = with(pod("critical"), |pod| pod.critical = true);
    let mut walk = Walk::of([critical]);
    assert_eq!(walk.ask(), ["critical"]);
    walk.answer("critical", forbidden());
    walk.pods.push(pod("late"));
    walk.until_asked();
    assert_eq!(walk.ask(), ["critical"]);
    walk.answer("critical", Answer::Accepted);
    assert_eq!(walk.ask(), ["late"]);
}

#[test]
fn links_of_chains_come_first_and_those_to_come_are_counted() {
    let mut walk = web(&["web-1", "web-2"], &[], Some(2));
    walk.pods.extend([
        budgeted("y-guarded", 1),
        pod("a-single"),
        budgeted("z-guarded", 1),
    ]);
    let step = walk.step();
    let names: Vec<&str> = step
        .actions
        .iter()
        .map(|Action::Evict { pod, .. }| pod.name.as_str())
        .collect();
    assert_eq!(names, ["web-1", "y-guarded", "a-single"]);
    assert_eq!((step.links, step.links_waiting), (2, 2));
    // At the pace of budgets only budgets make chains; of one Pod of a workload nobody waits for another.
    walk.order.rules.pace = Pace::Budget;
    let step = walk.step();
    assert_eq!((step.links, step.links_waiting), (1, 1));
    walk.order.rules.pace = Pace::Owner;
    walk.gone("web-2");
    let step = walk.step();
    assert_eq!((step.links, step.links_waiting), (1, 1));
    // What has been asked for is no link that is to come.
    walk.ask();
    let step = walk.step();
    assert_eq!(
        (step.actions.len(), step.links, step.links_waiting),
        (0, 0, 1)
    );
    walk.gone("z-guarded");
    assert_eq!(walk.step().links_waiting, 0);
}
