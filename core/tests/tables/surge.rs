//! One more before one less: a single replica is scaled up before its Pod goes.

use std::time::Duration;

use foreshock_core::drain::{
    Answer, EvictionAllowance, NoSurge, NodeOutcome, Pace, PodFacts, PodOutcome, Scalable,
    SurgeAnswer, SurgeEnd, Undo, may_surge, surges, surges_over, undo,
};
use foreshock_core::record::SurgeRecord;
use foreshock_core::time::after;

use crate::drain::of_web;
use crate::support::now;
use crate::support::pods::{Walk, blocked, budget, owner, pod, with};

/// A drain with surge of a Node with the only Pod of `web`, and whatever else.
fn single(others: impl IntoIterator<Item = PodFacts>) -> Walk {
    let mut walk = Walk::of(std::iter::once(of_web("a")).chain(others));
    walk.order.rules.surge = true;
    walk.workloads.trust(true);
    walk
}

/// Pods whose Deployments are to be scaled up in this step, which is noted.
fn begun(walk: &mut Walk) -> Vec<String> {
    let pods = walk.step().surges;
    for pod in &pods {
        walk.progress.surge_asked(pod, walk.now);
    }
    pods.into_iter().map(|pod| pod.name).collect()
}

fn answer(walk: &mut Walk, answer: SurgeAnswer) {
    let (pod, web) = (pod("a").id, "web".into());
    walk.progress.surge_answered(&pod, &web, answer, walk.now);
}

/// What is over now, which is noted.
fn over(walk: &mut Walk) -> Option<SurgeEnd> {
    let ended = surges_over(&walk.order, &walk.facts(), &walk.progress, walk.now);
    for (pod, end) in &ended {
        walk.progress.surge_over(pod, end.clone());
    }
    ended.into_iter().next().map(|(_, end)| end)
}

const NOBODY: [&str; 0] = [];

#[test]
fn it_is_scaled_up_then_evicted_then_over() {
    for pace in [Pace::Owner, Pace::Budget] {
        let mut walk = single([]);
        walk.order.rules.pace = pace;
        assert_eq!(begun(&mut walk), ["a"]);
        assert_eq!(begun(&mut walk), NOBODY, "the answer is not there yet");
        assert_eq!(walk.ask(), NOBODY);
        answer(&mut walk, SurgeAnswer::Up);
        assert_eq!(walk.ask(), NOBODY, "nothing is seen of a second Pod");
        walk.sees(&["a"], &[], Some(2));
        assert_eq!((walk.ask(), over(&mut walk)), (vec![], None));
        walk.sees(&["a"], &["b"], Some(2));
        assert_eq!(over(&mut walk), None);
        assert_eq!(walk.ask(), ["a"]);
        walk.answer("a", Answer::Accepted);
        walk.change("a", |pod| {
            pod.terminating_until = Some(after(now(), Duration::from_secs(30)));
        });
        assert_eq!(over(&mut walk), None, "it is still there");
        walk.gone("a");
        assert!(walk.over().is_none(), "it is not scaled back yet");
        walk.sees(&[], &[], Some(2));
        assert_eq!(over(&mut walk), None, "nobody is Ready");
        walk.sees(&[], &["b"], Some(2));
        assert_eq!(over(&mut walk), Some(SurgeEnd::Moved));
        assert_eq!(walk.over().expect("over").0, NodeOutcome::Drained);
    }
}

#[test]
fn a_second_pod_on_the_same_node_or_not_ready_is_none() {
    let mut walk = single([]);
    begun(&mut walk);
    answer(&mut walk, SurgeAnswer::Up);
    walk.sees(&["a", "b"], &[], Some(2));
    assert_eq!(walk.ask(), NOBODY);
}

#[test]
fn without_a_second_pod_in_time_the_first_stays_and_whatever_comes_later_changes_nothing() {
    let mut walk = single([pod("z")]);
    assert_eq!(begun(&mut walk), ["a"]);
    assert_eq!(walk.ask(), ["z"], "nobody else waits for it");
    walk.answer("z", Answer::Accepted).gone("z");
    walk.pass(5000);
    answer(&mut walk, SurgeAnswer::Up);
    walk.sees(&["a"], &[], Some(2));
    walk.pass(600_000 - 1);
    assert_eq!(over(&mut walk), None);
    walk.pass(1);
    let why = "its second Pod was not Ready on another Node within 600s";
    assert_eq!(over(&mut walk), Some(SurgeEnd::NotReady(why.to_owned())));
    walk.sees(&["a"], &["b"], Some(2));
    assert_eq!(walk.ask(), NOBODY, "it is being scaled back");
    assert_eq!(walk.progress.surge_failed(&pod("a").id), Some(why));
    let (outcome, detail) = walk.over().expect("over");
    assert_eq!(outcome, NodeOutcome::Ended(PodOutcome::ReplacementNotReady));
    assert_eq!(detail, format!("shop/a: {why}"));
}

#[test]
fn what_fails_is_tried_again_until_its_time_is_up() {
    let mut walk = single([]);
    assert_eq!(begun(&mut walk), ["a"]);
    let failed = || SurgeAnswer::Failed("not allowed".to_owned());
    answer(&mut walk, failed());
    assert_eq!((begun(&mut walk), walk.ask()), (vec![], vec![]));
    for pause in [10_000, 10_000, 20_000, 40_000] {
        walk.pass(pause - 1);
        assert_eq!(begun(&mut walk), NOBODY);
        walk.pass(1);
        assert_eq!(begun(&mut walk), ["a"]);
        answer(&mut walk, failed());
    }
    walk.pass(519_999);
    assert!(walk.over().is_none());
    walk.pass(1);
    let (outcome, detail) = walk.over().expect("over");
    assert_eq!(outcome, NodeOutcome::Ended(PodOutcome::ReplacementNotReady));
    assert!(detail.contains("not scaled up: not allowed"), "{detail}");
}

#[test]
fn what_was_held_back_is_begun_again_as_if_nothing_had_been() {
    let mut walk = single([]);
    begun(&mut walk);
    answer(&mut walk, SurgeAnswer::Withheld);
    walk.order.sends = false;
    assert_eq!((begun(&mut walk), walk.ask()), (vec![], vec![]), "paused");
    walk.order.sends = true;
    assert_eq!(begun(&mut walk), ["a"]);
}

#[test]
fn whoever_may_not_have_a_second_pod_goes_as_today() {
    let mut walk = single([]);
    begun(&mut walk);
    let autoscaled = NoSurge::Autoscaled("web".to_owned());
    answer(&mut walk, SurgeAnswer::Without(autoscaled));
    assert_eq!(
        (begun(&mut walk), walk.ask()),
        (vec![], vec!["a".to_owned()])
    );
}

#[test]
fn a_deployment_that_somebody_else_scales_goes_as_it_would_otherwise() {
    let mut walk = single([]);
    begun(&mut walk);
    answer(&mut walk, SurgeAnswer::Up);
    walk.pass(19_999).sees(&["a"], &[], Some(1));
    assert_eq!(over(&mut walk), None, "that may be from before");
    walk.pass(1);
    assert_eq!(over(&mut walk), Some(SurgeEnd::Overruled));
    assert_eq!(walk.ask(), ["a"]);
}

#[test]
fn a_budget_that_refuses_it_is_asked_again_while_the_second_pod_is_ready() {
    let mut walk = single([]);
    walk.change("a", |pod| {
        pod.budgets = vec![budget("web", EvictionAllowance::Now(1))];
    });
    begun(&mut walk);
    answer(&mut walk, SurgeAnswer::Up);
    walk.sees(&["a"], &["b"], Some(2));
    assert_eq!(walk.ask(), ["a"]);
    walk.answer("a", blocked());
    walk.sees(&["a"], &[], Some(2)).pass(60_000);
    assert_eq!(
        (walk.ask(), over(&mut walk)),
        (vec![], None),
        "it is not Ready any more"
    );
    walk.sees(&["a"], &["b"], Some(2));
    assert_eq!(walk.ask(), ["a"]);
    // Its own deadline counts, from the first request, and says who was in the way.
    walk.answer("a", blocked()).pass(540_000);
    assert_eq!(over(&mut walk), None);
    let (outcome, _) = walk.over().expect("over");
    assert_eq!(outcome, NodeOutcome::Ended(PodOutcome::BlockedByBudget));
}

#[test]
fn ten_are_scaled_up_at_once() {
    let many = (0..12).map(|n| {
        with(of_web(&format!("p{n:02}")), |pod| {
            if let Ok(Some(owner)) = &mut pod.workload {
                owner.uid = format!("web-{n}").as_str().into();
            }
        })
    });
    let mut walk = Walk::of(many);
    walk.order.rules.surge = true;
    assert_eq!(begun(&mut walk).len(), 10);
    assert_eq!(begun(&mut walk), NOBODY);
    let first = walk.pods[0].id.clone();
    let without = SurgeAnswer::Without(NoSurge::Paused);
    walk.progress
        .surge_answered(&first, &"web-0".into(), without, walk.now);
    assert_eq!(begun(&mut walk), ["p10"]);
}

#[test]
fn a_drain_that_is_ordered_again_begins_its_surges_again() {
    let mut walk = single([]);
    begun(&mut walk);
    answer(&mut walk, SurgeAnswer::Up);
    walk.progress.forget_surges();
    assert_eq!(begun(&mut walk), ["a"]);
    answer(&mut walk, SurgeAnswer::Without(NoSurge::Paused));
    walk.progress.forget_surges();
    assert_eq!(
        (begun(&mut walk), walk.ask()),
        (vec![], vec!["a".to_owned()])
    );
}

#[test]
fn only_the_single_ready_pod_of_a_deployment_is_looked_at() {
    let check = |pod: PodFacts, others: &[PodFacts], expected: Option<&str>| {
        let rules = single([]).order.rules;
        let pods: Vec<PodFacts> = others.iter().cloned().chain([pod.clone()]).collect();
        let said = surges(&pod, &pods, &rules).map(|answer| match answer {
            Ok(owner) => owner.to_string(),
            Err(why) => why.to_string(),
        });
        assert_eq!(said.as_deref(), expected, "{pod:?}");
    };
    let web = of_web("a");
    check(web.clone(), &[pod("b")], Some("Deployment/web"));
    let terminating = with(of_web("b"), |pod| pod.terminating_until = Some(now()));
    check(
        web.clone(),
        std::slice::from_ref(&terminating),
        Some("Deployment/web"),
    );
    check(web.clone(), &[of_web("b")], None);
    check(terminating, &[], None);
    check(pod("a"), &[], None);
    let of = |group, kind| with(pod("a"), |pod| pod.workload = Ok(owner(group, kind)));
    check(of("apps", "StatefulSet"), &[], None);
    check(of("example.org", "Deployment"), &[], None);
    check(
        with(web.clone(), |pod| pod.workload = Err("?".into())),
        &[],
        None,
    );
    let slow = with(web.clone(), |pod| pod.ready = false);
    check(slow, &[], Some("the Pod is not Ready"));
    let bound = with(web.clone(), |pod| pod.claims = vec!["data".into()]);
    check(
        bound,
        &[],
        Some("its claim data may be mounted by one Pod alone"),
    );
    let mut off = single([]).order.rules;
    off.surge = false;
    assert_eq!(surges(&web, &[], &off), None);
}

fn one() -> Scalable {
    Scalable {
        replicas: 1,
        version: "7".to_owned(),
        ..Scalable::default()
    }
}

#[test]
fn a_deployment_that_somebody_works_on_is_left_alone() {
    assert_eq!(may_surge(&one()), Ok(()));
    type Change = fn(&mut Scalable);
    let cases: [(Change, NoSurge); 8] = [
        (|one| one.deleted = true, NoSurge::Deleted),
        (|one| one.replicas = 0, NoSurge::Replicas(0)),
        (|one| one.replicas = 3, NoSurge::Replicas(3)),
        (|one| one.paused = true, NoSurge::Paused),
        (|one| one.rolling_out = true, NoSurge::RollingOut),
        (|one| one.scaling = true, NoSurge::Scaling),
        (|one| one.recreates = true, NoSurge::Recreates),
        (
            |one| one.autoscaler = Some("web".to_owned()),
            NoSurge::Autoscaled("web".to_owned()),
        ),
    ];
    for (change, why) in cases {
        let mut deployment = one();
        change(&mut deployment);
        assert_eq!(may_surge(&deployment), Err(why.clone()));
        // What passes by itself is waited for.
        let answer = match why {
            NoSurge::Scaling => SurgeAnswer::Failed("its Deployment is being scaled".to_owned()),
            lasting => SurgeAnswer::Without(lasting),
        };
        assert_eq!(
            may_surge(&deployment).map_err(SurgeAnswer::from),
            Err(answer)
        );
    }
}

#[test]
fn what_stands_in_a_record_is_undone_where_it_is_still_ours() {
    let record = SurgeRecord {
        namespace: "shop".to_owned(),
        deployment: "web".to_owned(),
        uid: "web".into(),
        before: 1,
        pod: pod("a").id,
        since: now(),
    };
    let leave = |why: &str| Undo::Leave(why.to_owned());
    let two = Scalable {
        replicas: 2,
        ..one()
    };
    let three = Scalable {
        replicas: 3,
        ..one()
    };
    let deleted = Scalable {
        deleted: true,
        ..two.clone()
    };
    let by = |by_us| Scalable {
        by_us,
        ..two.clone()
    };
    let there = pod("a");
    let going = with(pod("a"), |pod| pod.terminating_until = Some(now()));
    let stuck = now() - Duration::from_secs(30);
    let stuck = with(pod("a"), |pod| pod.terminating_until = Some(stuck));
    let later = after(now(), Duration::from_secs(30));
    let cases = [
        (None, Some(&two), Undo::ScaleBack),
        (Some(&there), Some(&two), Undo::ScaleBack),
        (None, Some(&by(Some(true))), Undo::ScaleBack),
        (
            None,
            Some(&by(Some(false))),
            leave("somebody else has scaled it to 2"),
        ),
        (Some(&going), Some(&two), Undo::Wait(later)),
        (Some(&stuck), Some(&two), Undo::ScaleBack),
        (
            Some(&going),
            Some(&three),
            leave("somebody else has scaled it to 3"),
        ),
        (None, Some(&one()), Undo::Nothing),
        (None, Some(&deleted), leave("it is gone")),
        (None, None, leave("it is gone")),
    ];
    for (pod, deployment, expected) in cases {
        assert_eq!(undo(&record, pod, deployment, now()), expected);
    }
}
