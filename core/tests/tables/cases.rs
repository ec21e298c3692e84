//! Cases of `docs/cases.md` about single Pods of a drain that other tables do not have.

use crate::support::now;
use crate::support::pods::{Walk, blocked, budget, pod, seconds, with};
use foreshock_core::drain::{
    Action, Answer, EvictionAllowance, NodeOutcome, PodOutcome, StepState,
};
use foreshock_core::node::Uid;
use foreshock_core::time::after;

#[test]
fn a_pod_created_anew_under_its_name_is_another_pod() {
    let mut walk = Walk::of([pod("db-0")]);
    assert_eq!(walk.ask(), ["db-0"]);
    walk.answer("db-0", Answer::Accepted).gone("db-0");
    // Elsewhere it is none of this drain's.
    assert_eq!(walk.over().expect("over").0, NodeOutcome::Drained);
    // Bound here once more, it is asked for by its own UID, for the first time.
    walk.pods.push(with(pod("db-0"), |pod| {
        pod.id.uid = Uid::from("uid-db-0-anew");
    }));
    let step = walk.step();
    let [
        Action::Evict {
            pod, read_first, ..
        },
    ] = &step.actions[..]
    else {
        panic!("one request expected: {step:?}");
    };
    assert_eq!(pod.uid, Uid::from("uid-db-0-anew"));
    assert!(!read_first, "nothing was ever asked of this one");
}

#[test]
fn a_pod_that_has_not_started_is_waited_for_like_any_other() {
    // The Eviction API asks no budget for it, so none covers it here.
    let mut walk = Walk::of([with(pod("a"), |pod| pod.ready = false)]);
    assert_eq!(walk.ask(), ["a"]);
    walk.answer("a", Answer::Accepted);
    assert_eq!(walk.step().state, StepState::Running { remaining: 1 });
    walk.change("a", |pod| {
        pod.terminating_until = Some(after(now(), seconds(30)));
    });
    assert_eq!(walk.step().state, StepState::Running { remaining: 1 });
    walk.gone("a");
    assert_eq!(walk.over().expect("over").0, NodeOutcome::Drained);
}

#[test]
fn a_pod_that_ignores_its_signal_has_its_own_time_and_a_margin() {
    // Longer than the cap: the API server's own deadline for it counts, which the cap has shortened.
    let mut walk = Walk::of([with(pod("a"), |pod| {
        pod.grace = seconds(300);
        pod.terminating_until = Some(after(now(), seconds(20)));
    })]);
    walk.order.rules.grace_cap = Some(seconds(20));
    walk.pass(49_999);
    assert_eq!(walk.over(), None);
    walk.pass(1);
    let (outcome, detail) = walk.over().expect("over");
    assert_eq!(outcome, NodeOutcome::Ended(PodOutcome::StuckTerminating));
    assert!(detail.contains("shop/a"), "{detail}");
    assert_eq!(walk.step().actions, [], "nothing is forced");
}

#[test]
fn a_budget_that_blocks_for_ever_holds_back_no_other_pod() {
    let mut walk = Walk::of([
        with(pod("a"), |pod| {
            pod.budgets = vec![budget("web", EvictionAllowance::Now(0))];
        }),
        pod("b"),
        pod("c"),
    ]);
    assert_eq!(walk.ask(), ["a", "b", "c"]);
    walk.answer("a", blocked())
        .answer("b", Answer::Accepted)
        .answer("c", Answer::Accepted)
        .gone("b")
        .gone("c");
    while walk.over().is_none() {
        walk.until_asked_or_over(&blocked());
    }
    let (outcome, detail) = walk.over().expect("over");
    assert_eq!(outcome, NodeOutcome::Ended(PodOutcome::BlockedByBudget));
    assert!(
        detail.contains("shop/a") && detail.contains("budget web"),
        "{detail}"
    );
    assert!(!detail.contains("shop/b"), "{detail}");
}
