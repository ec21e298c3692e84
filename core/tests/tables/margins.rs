//! Decisions at the very edge of each time and threshold, and what orders say.

use std::time::Duration;

use foreshock_core::decision::decide;
use foreshock_core::decision::plan::{Cause, MarkOrder};
use foreshock_core::decision::policy::{Policy, Reach};
use foreshock_core::decision::verdict::{Hold, HoldReason};
use foreshock_core::decision::world::{Fact, ScoreUnknown};
use foreshock_core::drain::{DrainReport, NodeOutcome, PodOutcome};
use foreshock_core::record::{
    ActingAlert, DrainRecord, Marks, NodeRecord, RecordState, RecordedPhase, RiskLabel, TaintEffect,
};
use foreshock_core::time::{after, ago};

use crate::decide::{Expect, check, confirmed, drain_due, draining, order_for};
use crate::support::timeline::{Timeline, fleet, name};
use crate::support::{HOUR, MINUTE, Scene, alert, caution_taint, now, risk, scene, taint};

const MILLISECOND: Duration = Duration::from_millis(1);

fn record_of(order: &MarkOrder) -> &NodeRecord {
    order.record.as_ref().expect("a record")
}

fn hold(scene: &Scene, reason: HoldReason) -> Hold {
    let decision = decide(&scene.policy, &scene.memory, &scene.world);
    let holds = &decision.verdicts["n3"].holds;
    let found = holds.iter().find(|hold| hold.reason == reason);
    found
        .unwrap_or_else(|| panic!("{reason:?} is not among {holds:?}"))
        .clone()
}

#[test]
fn waits_end_to_the_millisecond_and_say_when() {
    let aged = |age| confirmed().node("n3", move |node| node.created_at = ago(now(), age));
    check(&aged(10 * MINUTE), "n3", Expect::Does(Cause::Taint));
    let young = aged(10 * MINUTE - MILLISECOND);
    check(&young, "n3", Expect::Holds(HoldReason::NewNode));
    assert_eq!(
        hold(&young, HoldReason::NewNode).until,
        Some(after(now(), MILLISECOND))
    );

    let tainted = |age| confirmed().marked("n3", RecordedPhase::Tainted, age);
    check(&tainted(MINUTE), "n3", Expect::Does(Cause::DrainStart));
    let early = tainted(MINUTE - MILLISECOND);
    check(&early, "n3", Expect::Holds(HoldReason::DrainAfter));
    assert_eq!(
        hold(&early, HoldReason::DrainAfter).until,
        Some(after(now(), MILLISECOND))
    );

    let well = |age| {
        scene()
            .marked("n3", RecordedPhase::Drained, HOUR)
            .remember("n3", move |memory| {
                memory.well_since = Some(ago(now(), age))
            })
    };
    check(&well(10 * MINUTE), "n3", Expect::Does(Cause::Release));
    let soon = well(10 * MINUTE - MILLISECOND);
    check(&soon, "n3", Expect::Holds(HoldReason::Recovering));
    assert_eq!(
        hold(&soon, HoldReason::Recovering).until,
        Some(after(now(), MILLISECOND))
    );

    let read = |age| {
        drain_due().node("n3", move |node| {
            node.pods = Fact::Known(ago(now(), age), Vec::new())
        })
    };
    check(&read(MINUTE), "n3", Expect::Does(Cause::DrainStart));
    check(
        &read(MINUTE + MILLISECOND),
        "n3",
        Expect::Holds(HoldReason::FactsUnknown),
    );

    let unconfirmed = scene().at_risk("n3", 0.9, 45 * Duration::from_secs(1) - MILLISECOND);
    assert_eq!(
        hold(&unconfirmed, HoldReason::Unconfirmed).until,
        Some(after(now(), MILLISECOND))
    );

    let held = confirmed().node("n3", |node| {
        node.hold_until = Some(foreshock_core::decision::world::HoldUntil::Time(after(
            now(),
            MILLISECOND,
        )));
    });
    assert_eq!(
        hold(&held, HoldReason::HoldUntil).until,
        Some(after(now(), MILLISECOND))
    );
}

#[test]
fn a_score_is_fresh_until_its_last_millisecond() {
    let scored = |age| {
        confirmed().with_world(move |world| {
            world.scores.get_mut("n3").expect("scored").at = ago(now(), age);
        })
    };
    check(&scored(MINUTE), "n3", Expect::Does(Cause::Taint));
    check(
        &scored(MINUTE + MILLISECOND),
        "n3",
        Expect::Holds(HoldReason::Unknown),
    );
    let ahead = |by| {
        confirmed().with_world(move |world| {
            world.scores.get_mut("n3").expect("scored").at = after(now(), by);
        })
    };
    check(
        &ahead(Duration::from_secs(1)),
        "n3",
        Expect::Does(Cause::Taint),
    );
    check(
        &ahead(Duration::from_millis(1_001)),
        "n3",
        Expect::Holds(HoldReason::Unknown),
    );
    let born = |before| {
        confirmed()
            .with_policy(|policy| policy.rules.new_node_age = Duration::ZERO)
            .node("n3", move |node| {
                node.created_at = after(ago(now(), Duration::from_secs(30)), before);
            })
    };
    check(&born(Duration::ZERO), "n3", Expect::Does(Cause::Taint));
    check(&born(MILLISECOND), "n3", Expect::Holds(HoldReason::Unknown));
}

#[test]
fn thresholds_are_where_the_configuration_says() {
    check(
        &scene().at_risk("n3", 0.651, HOUR),
        "n3",
        Expect::Does(Cause::Taint),
    );
    let drained = |p| {
        scene()
            .score("n3", Ok(p))
            .marked("n3", RecordedPhase::Drained, HOUR)
            .remember("n3", |memory| memory.well_since = Some(ago(now(), HOUR)))
    };
    check(&drained(0.499), "n3", Expect::Does(Cause::Release));
    check(&drained(0.5), "n3", Expect::Holds(HoldReason::Drained));
    let floor = |floor| {
        drained(0.1)
            .alert("n3", alert("X", floor, Reach::Evict))
            .record("n3", move |record| {
                record.alerts = vec![alert("X", floor, Reach::Evict)];
            })
    };
    check(&floor(0.4), "n3", Expect::Does(Cause::Release));
    check(&floor(0.5), "n3", Expect::Holds(HoldReason::Drained));
}

#[test]
fn a_low_floor_alone_says_nothing_about_a_silent_node() {
    let silent = |floor| {
        scene()
            .score("n3", Err(ScoreUnknown::NoScrape))
            .alert("n3", alert("X", floor, Reach::Evict))
    };
    let risk_of = |scene: &Scene| {
        let decision = decide(&scene.policy, &scene.memory, &scene.world);
        decision.verdicts["n3"].risk.map(|risk| risk.as_f64())
    };
    assert_eq!(risk_of(&silent(0.499)), None);
    assert_eq!(risk_of(&silent(0.5)), Some(0.5));
    // The larger of both, where both are known.
    assert_eq!(risk_of(&silent(0.3).score("n3", Ok(0.2))), Some(0.3));
    assert_eq!(risk_of(&silent(0.3).score("n3", Ok(0.4))), Some(0.4));
}

#[test]
fn reasons_name_what_speaks_against_the_node_and_nothing_else() {
    let reasons = |scene: &Scene| {
        let decision = decide(&scene.policy, &scene.memory, &scene.world);
        decision.verdicts["n3"].reasons.clone()
    };
    let with = |p: f64, floor: f64| {
        scene()
            .score("n3", Ok(p))
            .alert("n3", alert("X", floor, Reach::Evict))
    };
    assert_eq!(reasons(&with(0.5, 0.5)), ["alert X (floor 0.50)", "disk"]);
    assert_eq!(reasons(&with(0.499, 0.5)), ["alert X (floor 0.50)"]);
    assert_eq!(reasons(&with(0.5, 0.499)), ["disk"]);
    assert_eq!(reasons(&with(0.4, 0.4)), Vec::<String>::new());
}

#[test]
fn alerts_come_by_their_floor_and_each_once() {
    let named = |scene: &Scene| {
        let decision = decide(&scene.policy, &scene.memory, &scene.world);
        let alerts = decision.verdicts["n3"].alerts.iter();
        alerts
            .map(|alert| (alert.name.clone(), alert.floor.as_f64()))
            .collect::<Vec<_>>()
    };
    let of = |name: &str, floor: f64| (name.to_owned(), floor);
    let both = scene()
        .alert("n3", alert("low", 0.3, Reach::Evict))
        .alert("n3", alert("high", 0.9, Reach::Evict))
        .record("n3", |record| {
            record.marks.label = Some(RiskLabel::AtRisk);
            record.alerts = vec![
                alert("low", 0.8, Reach::Evict),
                alert("kept", 0.6, Reach::Evict),
            ];
        });
    // What is heard counts, and what only the record has comes on top.
    assert_eq!(
        named(&both),
        [of("high", 0.9), of("kept", 0.6), of("low", 0.3)]
    );
    let mut expiring = alert("X", 0.8, Reach::Evict);
    expiring.expires_at = after(now(), MILLISECOND);
    assert_eq!(named(&scene().alert("n3", expiring)), [of("X", 0.8)]);
    let born = scene().world.nodes["n3"].created_at;
    let started = |at| {
        let mut old = alert("X", 0.8, Reach::Evict);
        old.starts_at = at;
        scene().alert("n3", old)
    };
    assert_eq!(named(&started(born)), [of("X", 0.8)]);
    assert_eq!(named(&started(ago(born, MILLISECOND))), []);
}

#[test]
fn repeats_are_counted_within_their_window_and_probation() {
    let with = |repeats: Vec<_>| {
        confirmed().record("n3", move |record| {
            record.released_at = Some(ago(now(), 2 * HOUR));
            record.repeats = repeats;
        })
    };
    let old = ago(now(), 24 * HOUR);
    check(
        &with(vec![old, ago(now(), HOUR), ago(now(), HOUR)]),
        "n3",
        Expect::Does(Cause::Taint),
    );
    let recent = with(vec![
        after(old, MILLISECOND),
        ago(now(), HOUR),
        ago(now(), HOUR),
    ]);
    check(&recent, "n3", Expect::Holds(HoldReason::RepeatOffender));
    assert_eq!(
        hold(&recent, HoldReason::RepeatOffender).until,
        Some(after(now(), MILLISECOND))
    );

    // The taint that comes back within the probation is a repeat by itself.
    let released = |ago_| {
        confirmed().record("n3", move |record| {
            record.released_at = Some(ago(now(), ago_));
            record.repeats = vec![ago(now(), HOUR), ago(now(), HOUR)];
        })
    };
    // At risk for a minute, so it turned an hour after that release.
    check(
        &released(HOUR + MINUTE),
        "n3",
        Expect::Holds(HoldReason::RepeatOffender),
    );
    check(
        &released(HOUR + MINUTE + MILLISECOND),
        "n3",
        Expect::Does(Cause::Taint),
    );
    let first = |ago_| {
        let scene = confirmed().record("n3", move |record| {
            record.released_at = Some(ago(now(), ago_))
        });
        record_of(&order_for(&scene, "n3")).repeats.clone()
    };
    assert_eq!(first(HOUR + MINUTE), [now()]);
    assert_eq!(first(HOUR + MINUTE + MILLISECOND), []);
    // What has run out is dropped, and the list stays bounded.
    let kept = record_of(&order_for(&with(vec![old, ago(now(), HOUR)]), "n3"))
        .repeats
        .clone();
    assert_eq!(kept, [ago(now(), HOUR)]);
    let many = confirmed()
        .with_policy(|policy| policy.rules.repeat_max = 100)
        .record("n3", |record| {
            record.released_at = Some(ago(now(), HOUR));
            record.repeats = vec![ago(now(), HOUR); NodeRecord::REPEATS_MAX];
        });
    let kept = record_of(&order_for(&many, "n3")).repeats.clone();
    assert_eq!(
        (kept.len(), kept.last()),
        (NodeRecord::REPEATS_MAX, Some(&now()))
    );
    // A Node that carries our taint is no repeat of it.
    let tainted = drain_due().record("n3", |record| {
        record.released_at = Some(ago(now(), HOUR));
        record.repeats = vec![ago(now(), HOUR), ago(now(), HOUR)];
    });
    check(&tainted, "n3", Expect::Does(Cause::DrainStart));
}

// ---- what orders write ----

#[test]
fn the_taint_takes_the_place_of_the_caution_taint_and_keeps_what_was_there() {
    let scene = confirmed()
        .node("n3", |node| node.risk_label = Some("theirs".into()))
        .record("n3", |record| {
            record.marks.caution_taint = Some(caution_taint());
            record.veto_until = Some(ago(now(), MINUTE));
            record.drain = Some(DrainRecord {
                started_at: ago(now(), HOUR),
                attempts: 2,
                ended: None,
            });
        });
    let mut scene = scene.node("n3", |node| node.risk_label = Some("theirs".into()));
    let score = scene.world.scores.get_mut("n3").expect("scored");
    score.inputs.model = "m1".into();
    let order = order_for(&scene, "n3");
    let record = record_of(&order);
    assert_eq!(order.cause, Cause::Taint);
    assert_eq!(
        (record.phase, record.since),
        (RecordedPhase::Tainted, now())
    );
    assert_eq!(record.marks.taint, Some(taint()));
    assert_eq!(record.marks.caution_taint, None);
    assert_eq!(record.marks.label_before.as_deref(), Some("theirs"));
    assert_eq!((record.veto_until, &record.drain), (None, &None));
    assert!(record.had_features);
    assert_eq!(record.reasons, ["disk"]);
    assert_eq!(
        order.note,
        "tainted degradation=true:NoSchedule: risk 0.90 by model m1, disk"
    );
    assert_eq!(
        order.expects.as_deref(),
        scene.world.nodes["n3"].record.ours()
    );
}

#[test]
fn the_start_of_a_drain_counts_the_attempts_that_failed() {
    let ended = |outcome| {
        drain_due().record("n3", move |record| {
            record.drain = Some(DrainRecord {
                started_at: ago(now(), 2 * HOUR),
                attempts: 1,
                ended: Some((ago(now(), HOUR), outcome)),
            });
        })
    };
    let attempts = |scene: &Scene| {
        let order = order_for(scene, "n3");
        assert_eq!(order.cause, Cause::DrainStart);
        assert!(
            order.note.starts_with("drain started: risk 0.90, disk"),
            "{}",
            order.note
        );
        let record = record_of(&order).clone();
        assert_eq!(
            (record.phase, record.since),
            (RecordedPhase::Draining, now())
        );
        let drain = record.drain.expect("a drain");
        assert_eq!((drain.started_at, drain.ended), (now(), None));
        drain.attempts
    };
    assert_eq!(attempts(&drain_due()), 1);
    assert_eq!(
        attempts(&ended(NodeOutcome::Ended(PodOutcome::BlockedByBudget))),
        2
    );
    assert_eq!(
        attempts(&ended(NodeOutcome::Ended(PodOutcome::Cancelled))),
        1
    );
}

#[test]
fn a_failed_drain_waits_longer_each_time() {
    let failed = |attempts, ended_ago| {
        drain_due().record("n3", move |record| {
            record.drain = Some(DrainRecord {
                started_at: ago(now(), 10 * HOUR),
                attempts,
                ended: Some((
                    ago(now(), ended_ago),
                    NodeOutcome::Ended(PodOutcome::BlockedByBudget),
                )),
            });
        })
    };
    check(
        &failed(1, 5 * MINUTE),
        "n3",
        Expect::Does(Cause::DrainStart),
    );
    let early = failed(1, 5 * MINUTE - MILLISECOND);
    check(&early, "n3", Expect::Holds(HoldReason::DrainFailed));
    let said = hold(&early, HoldReason::DrainFailed);
    assert_eq!(said.until, Some(after(now(), MILLISECOND)));
    assert_eq!(said.detail, "drain 1 of 3 ended: blocked_by_budget");
    check(
        &failed(2, 10 * MINUTE),
        "n3",
        Expect::Does(Cause::DrainStart),
    );
    check(
        &failed(2, 10 * MINUTE - MILLISECOND),
        "n3",
        Expect::Holds(HoldReason::DrainFailed),
    );
    let never = failed(Policy::DRAIN_ATTEMPTS_MAX, 9 * HOUR);
    check(&never, "n3", Expect::Holds(HoldReason::DrainFailed));
    let said = hold(&never, HoldReason::DrainFailed);
    assert_eq!(said.until, None);
    assert!(
        said.detail.contains("remove what stands in the way"),
        "{}",
        said.detail
    );
}

#[test]
fn the_end_of_a_drain_is_written_with_what_came_of_it() {
    let ended = |outcome, detail: &str| {
        let detail = detail.to_owned();
        draining().with_world(move |world| {
            let report = DrainReport {
                started_at: ago(now(), MINUTE),
                remaining: 0,
                gone: 3,
                ended: Some((ago(now(), MILLISECOND), outcome)),
                detail,
            };
            world.drains.insert("n3".into(), report);
        })
    };
    let order = order_for(&ended(NodeOutcome::Drained, ""), "n3");
    assert_eq!(
        (order.cause, record_of(&order).phase),
        (Cause::Drained, RecordedPhase::Drained)
    );
    assert_eq!(order.note, "drained: every Pod that may move is gone");
    let blocked = NodeOutcome::Ended(PodOutcome::BlockedByBudget);
    let order = order_for(&ended(blocked, "shop/web"), "n3");
    let record = record_of(&order);
    assert_eq!(
        (order.cause, record.phase, record.since),
        (Cause::DrainEnd, RecordedPhase::Tainted, now())
    );
    assert_eq!(order.note, "drain ended: blocked_by_budget: shop/web");
    let drain = record.drain.as_ref().expect("kept");
    assert_eq!(
        (drain.started_at, drain.ended),
        (ago(now(), MINUTE), Some((ago(now(), MILLISECOND), blocked)))
    );
    assert_eq!(
        order_for(&ended(blocked, ""), "n3").note,
        "drain ended: blocked_by_budget"
    );

    // A record of ours never lacks the drain; where it does, the drain ends and may begin again.
    let lacking = draining().record("n3", |record| record.drain = None);
    let order = order_for(&lacking, "n3");
    assert_eq!(
        order.note,
        "drain ended: cancelled: its record lacks the drain"
    );
}

#[test]
fn a_drain_goes_on_by_the_record() {
    let decision = |scene: &Scene| decide(&scene.policy, &scene.memory, &scene.world);
    let order = decision(&draining()).plan.drains[0].clone();
    assert_eq!(order.started_at, ago(now(), MINUTE));
    assert_eq!(
        order.complete_after,
        after(order.started_at, Duration::from_secs(5))
    );
    assert_eq!(order.deadline_at, after(order.started_at, 15 * MINUTE));
    assert!(order.sends);
    assert_eq!(order.rules, draining().policy.drain);
    // Well, and somebody has said to leave it alone: it is neither ended nor goes on.
    let left = draining()
        .score("n3", Ok(0.1))
        .node("n3", |node| node.excluded = true);
    check(&left, "n3", Expect::Drains(false));
    // Held where a person has lowered the reach.
    let lowered = draining().with_policy(|policy| policy.rules.reach = Reach::Taint);
    check(&lowered, "n3", Expect::Drains(false));
    let untrusted = draining().with_policy(|policy| policy.model_trusted = false);
    check(&untrusted, "n3", Expect::Drains(false));
    hold(&untrusted, HoldReason::Untrained);
    let by_alert = draining()
        .score("n3", Ok(0.1))
        .alert("n3", alert("X", 0.9, Reach::Taint))
        .record("n3", |record| {
            record.alerts = vec![alert("X", 0.9, Reach::Taint)]
        });
    check(&by_alert, "n3", Expect::Drains(false));
    hold(&by_alert, HoldReason::Reach);
    let taken = draining().node("n3", |node| node.taken_by = Some("karpenter".into()));
    check(&taken, "n3", Expect::Drains(false));
    let unread = draining().with_world(|world| world.cluster = None);
    check(&unread, "n3", Expect::Drains(false));
}

#[test]
fn a_release_leaves_a_record_that_remembers_it() {
    let scene = scene()
        .marked("n3", RecordedPhase::Drained, HOUR)
        .record("n3", |record| {
            record.repeats = vec![ago(now(), HOUR)];
            record.reasons = vec!["disk".into()];
            // It ended a while ago.
            let mut old = alert("NodeOnFire", 0.9, Reach::Evict);
            old.expires_at = ago(now(), HOUR);
            record.alerts = vec![old];
        })
        .remember("n3", |memory| memory.well_since = Some(ago(now(), HOUR)));
    let order = order_for(&scene, "n3");
    let record = record_of(&order);
    assert_eq!((record.phase, record.since), (RecordedPhase::Clear, now()));
    assert_eq!(record.released_at, Some(now()));
    assert_eq!(record.repeats, [ago(now(), HOUR)]);
    assert!(record.marks.is_empty() && record.reasons.is_empty() && record.drain.is_none());
    assert!(record.alerts.is_empty() && !record.had_features);
    assert_eq!(order.note, "given back: risk 0.05, below 0.50 for 600s");
}

#[test]
fn every_mark_may_be_vetoed_by_itself() {
    let veto = |scene: &Scene| {
        let order = order_for(scene, "n3");
        assert_eq!(order.cause, Cause::Veto);
        let record = record_of(&order).clone();
        assert_eq!(record.veto_until, Some(after(now(), 24 * HOUR)));
        (
            order.note.split(':').next().expect("words").to_owned(),
            record,
        )
    };
    let (said, record) = veto(&drain_due().node("n3", |node| node.taints.clear()));
    assert_eq!(said, "somebody removed our taint");
    assert_eq!((record.phase, record.since), (RecordedPhase::Clear, now()));
    assert_eq!(record.marks.taint, None);
    assert_eq!(
        record.marks.label,
        Some(RiskLabel::AtRisk),
        "the label is still there"
    );
    assert_eq!(record.drain, None);

    let cautious = || {
        scene().score("n3", Ok(0.55)).record("n3", |record| {
            record.marks.label = Some(RiskLabel::Caution);
            record.marks.label_before = Some("theirs".into());
            record.marks.caution_taint = Some(caution_taint());
        })
    };
    let (said, record) = veto(&cautious().node("n3", |node| node.taints.clear()));
    assert_eq!(said, "somebody removed our caution taint");
    assert_eq!(
        (record.marks.caution_taint, record.marks.label),
        (None, Some(RiskLabel::Caution))
    );
    let (said, record) =
        veto(&cautious().node("n3", |node| node.risk_label = Some("other".into())));
    assert_eq!(said, "somebody removed our label");
    assert_eq!(
        (record.marks.label, record.marks.label_before),
        (None, None)
    );
    assert_eq!(record.marks.caution_taint, Some(caution_taint()));

    // In the middle of a drain too: it ends with it.
    let gone = draining().node("n3", |node| node.taints.clear());
    let decision = decide(&gone.policy, &gone.memory, &gone.world);
    assert!(decision.plan.drains.is_empty());
    check(&gone, "n3", Expect::Does(Cause::Veto));
}

// ---- label and caution taint ----

fn cautious(p: f64, differs: Duration) -> Scene {
    scene().score("n3", Ok(p)).remember("n3", move |memory| {
        memory.caution_differs_since = Some(ago(now(), differs));
    })
}

const CONFIRM: Duration = Duration::from_secs(45);

#[test]
fn a_floor_at_the_threshold_is_caution_and_one_above_it_at_risk() {
    let label = |floor: f64| {
        let scene = scene()
            .alert("n3", alert("Hot", floor, Reach::Label))
            .remember("n3", |memory| {
                memory.caution_differs_since = Some(ago(now(), HOUR));
            });
        record_of(&order_for(&scene, "n3")).marks.label
    };
    assert_eq!(label(0.65), Some(RiskLabel::Caution));
    assert_eq!(label(0.66), Some(RiskLabel::AtRisk));
}

#[test]
fn the_wait_of_confirm_for_begins_above_the_threshold() {
    let mut all = Timeline::new(fleet(10));
    all.risk(&name(3), 0.65);
    all.run(10 * MINUTE);
    all.risk(&name(3), 0.7);
    all.run(CONFIRM - Duration::from_secs(15));
    assert_eq!(all.count(Cause::Taint), 0, "0.65 is not above 0.65");
    all.run(MINUTE);
    assert_eq!(all.count(Cause::Taint), 1);
}

#[test]
fn caution_marks_come_after_confirm_for_and_change_at_most_every_five_minutes() {
    check(&cautious(0.5, CONFIRM), "n3", Expect::Does(Cause::Caution));
    check(&cautious(0.5, CONFIRM - MILLISECOND), "n3", Expect::Rests);
    check(&cautious(0.499, HOUR), "n3", Expect::Rests);
    let changed = |at| {
        cautious(0.6, HOUR).remember("n3", move |memory| {
            memory.caution_changed_at = Some(ago(now(), at))
        })
    };
    check(&changed(5 * MINUTE), "n3", Expect::Does(Cause::Caution));
    check(&changed(5 * MINUTE - MILLISECOND), "n3", Expect::Rests);
    let order = order_for(&cautious(0.6, CONFIRM), "n3");
    assert_eq!(order.note, "risk label caution: risk 0.60, disk");
    assert_eq!(record_of(&order).reasons, ["disk"]);
}

fn carrying(label: RiskLabel, p: f64) -> Scene {
    cautious(p, HOUR).record("n3", move |record| {
        record.released_at = Some(ago(now(), MINUTE));
        record.marks.label = Some(label);
        record.marks.label_before = Some("theirs".into());
        record.marks.caution_taint = Some(caution_taint());
    })
}

#[test]
fn caution_marks_leave_with_a_dead_band() {
    check(&carrying(RiskLabel::Caution, 0.45), "n3", Expect::Rests);
    let order = order_for(&carrying(RiskLabel::Caution, 0.449), "n3");
    let marks = &record_of(&order).marks;
    assert!(marks.is_empty() && marks.label_before.is_none());
    assert_eq!(order.note, "risk label none: risk 0.45");
    assert!(record_of(&order).reasons.is_empty());
    check(&carrying(RiskLabel::AtRisk, 0.6), "n3", Expect::Rests);
    let order = order_for(&carrying(RiskLabel::AtRisk, 0.599), "n3");
    let marks = &record_of(&order).marks;
    assert_eq!(marks.label, Some(RiskLabel::Caution));
    assert_eq!(marks.label_before.as_deref(), Some("theirs"));
    assert_eq!(marks.caution_taint, Some(caution_taint()));
}

#[test]
fn a_record_that_loses_its_last_mark_loses_what_spoke_for_it() {
    let scene = carrying(RiskLabel::Caution, 0.2).record("n3", |record| {
        record.reasons = vec!["disk".into()];
        let mut old = alert("NodeOnFire", 0.6, Reach::Evict);
        old.expires_at = ago(now(), HOUR);
        record.alerts = vec![old];
    });
    let order = order_for(&scene, "n3");
    let record = record_of(&order);
    assert!(record.marks.is_empty());
    assert_eq!((&record.reasons, &record.alerts), (&vec![], &vec![]));
}

#[test]
fn a_change_of_marks_is_remembered_when_it_is_seen() {
    let seen = |before: Option<Marks>| {
        let scene = carrying(RiskLabel::Caution, 0.45).remember("n3", |memory| {
            memory.marks_seen = before;
        });
        let decision = decide(&scene.policy, &scene.memory, &scene.world);
        let memory = &decision.memory.nodes[&scene.world.nodes["n3"].id];
        let there = scene.world.nodes["n3"]
            .record
            .ours()
            .expect("ours")
            .marks
            .clone();
        assert_eq!(memory.marks_seen, Some(there));
        memory.caution_changed_at
    };
    assert_eq!(seen(None), None, "the first look is no change");
    assert_eq!(seen(Some(Marks::default())), Some(now()));
    let same = carrying(RiskLabel::Caution, 0.45);
    let same = same.world.nodes["n3"]
        .record
        .ours()
        .expect("ours")
        .marks
        .clone();
    assert_eq!(seen(Some(same)), None);
}

#[test]
fn marks_that_fall_are_clean_up_in_a_storm_and_those_that_rise_are_not() {
    let stormy = |scene: Scene| {
        let mut scene = scene;
        scene.memory.storm = Some(foreshock_core::record::Storm {
            since: ago(now(), MINUTE),
            about: "4 of 10 Nodes".into(),
            input: None,
            calm_since: None,
        });
        scene
    };
    check(
        &stormy(carrying(RiskLabel::Caution, 0.2)),
        "n3",
        Expect::Does(Cause::Caution),
    );
    check(
        &stormy(carrying(RiskLabel::AtRisk, 0.55)),
        "n3",
        Expect::Does(Cause::Caution),
    );
    check(&stormy(cautious(0.6, HOUR)), "n3", Expect::Rests);
    // The label stays as it is, and a caution taint that is there already is nothing new.
    let only_taint = carrying(RiskLabel::AtRisk, 0.55).record("n3", |record| {
        record.marks.caution_taint = None;
    });
    check(&stormy(only_taint), "n3", Expect::Rests);
    // A label alone is a mark, and a taint that leaves alone is clean-up.
    let only_label = cautious(0.6, HOUR).with_policy(|policy| policy.rules.reach = Reach::Label);
    check(&only_label, "n3", Expect::Does(Cause::Caution));
    check(&stormy(only_label), "n3", Expect::Rests);
    let taint_leaves = carrying(RiskLabel::Caution, 0.2).record("n3", |record| {
        record.marks.label = None;
        record.marks.label_before = None;
    });
    check(&stormy(taint_leaves), "n3", Expect::Does(Cause::Caution));
}

#[test]
fn inputs_far_outside_of_what_was_trained_add_no_label_and_let_one_fall() {
    let strange = |scene: Scene| {
        scene.with_world(|world| {
            let score = world.scores.get_mut("n3").expect("scored");
            score.out_of_range = Some("12 of 30 features".into());
        })
    };
    check(&cautious(0.6, HOUR), "n3", Expect::Does(Cause::Caution));
    check(&strange(cautious(0.6, HOUR)), "n3", Expect::Rests);
    let order = order_for(&strange(carrying(RiskLabel::AtRisk, 0.55)), "n3");
    assert_eq!(record_of(&order).marks.label, Some(RiskLabel::Caution));
}

#[test]
fn a_reach_of_label_writes_the_label_alone() {
    let scene = cautious(0.6, HOUR).with_policy(|policy| policy.rules.reach = Reach::Label);
    let marks = record_of(&order_for(&scene, "n3")).marks.clone();
    assert_eq!(
        (marks.label, marks.caution_taint),
        (Some(RiskLabel::Caution), None)
    );
    let untrusted = cautious(0.6, HOUR).with_policy(|policy| policy.model_trusted = false);
    let marks = record_of(&order_for(&untrusted, "n3")).marks.clone();
    assert_eq!(
        (marks.label, marks.caution_taint),
        (Some(RiskLabel::Caution), None)
    );
    let none = cautious(0.6, HOUR).with_policy(|policy| policy.rules.caution_taint = None);
    assert_eq!(record_of(&order_for(&none, "n3")).marks.caution_taint, None);
    // A label that is there may be lowered whatever the reach.
    let lowered =
        carrying(RiskLabel::AtRisk, 0.55).with_policy(|policy| policy.rules.reach = Reach::Observe);
    let pool = lowered.with_policy(|policy| {
        let mut rules = policy.rules.clone();
        rules.reach = Reach::Evict;
        policy.pools = vec![foreshock_core::decision::policy::Pool {
            name: "other".into(),
            rules,
            limits: foreshock_core::decision::policy::PoolLimits::default(),
        }];
    });
    let marks = record_of(&order_for(&pool, "n3")).marks.clone();
    assert_eq!(marks.label, Some(RiskLabel::Caution));
}

#[test]
fn new_caution_marks_are_held_by_what_holds_a_beginning_and_old_ones_go() {
    let storm = |scene: Scene| {
        scene.with_world(|world| {
            let storm = foreshock_core::record::Storm {
                since: ago(now(), MINUTE),
                about: "4 of 10 Nodes".into(),
                input: None,
                calm_since: None,
            };
            world.cluster.as_mut().expect("known").storm = Some(storm);
        })
    };
    check(&storm(cautious(0.6, HOUR)), "n3", Expect::Rests);
    check(
        &storm(carrying(RiskLabel::Caution, 0.2)),
        "n3",
        Expect::Does(Cause::Caution),
    );
    let unread = |scene: Scene| scene.with_world(|world| world.cluster = None);
    check(&unread(cautious(0.6, HOUR)), "n3", Expect::Rests);
    check(
        &unread(carrying(RiskLabel::Caution, 0.2)),
        "n3",
        Expect::Does(Cause::Caution),
    );
    let cordoned = |scene: Scene| scene.node("n3", |node| node.cordoned = true);
    check(&cordoned(cautious(0.6, HOUR)), "n3", Expect::Rests);
    check(
        &cordoned(carrying(RiskLabel::Caution, 0.2)),
        "n3",
        Expect::Does(Cause::Caution),
    );
    let repeating = cautious(0.9, HOUR)
        .at_risk("n3", 0.9, MINUTE)
        .record("n3", |record| {
            record.repeats = vec![ago(now(), HOUR); 3];
            record.released_at = Some(ago(now(), 2 * HOUR));
        });
    let decision = decide(&repeating.policy, &repeating.memory, &repeating.world);
    assert!(decision.plan.marks.is_empty(), "{:?}", decision.plan.marks);
}

// ---- upkeep of the record ----

#[test]
fn a_record_runs_out_to_the_millisecond() {
    let released = |age| {
        scene().record("n3", move |record| {
            record.released_at = Some(ago(now(), age))
        })
    };
    check(&released(24 * HOUR), "n3", Expect::Does(Cause::Record));
    check(&released(24 * HOUR - MILLISECOND), "n3", Expect::Rests);
    let order = order_for(&released(24 * HOUR), "n3");
    assert!(order.record.is_none());
    assert_eq!(order.note, "its record has run out");
    let vetoed = |until| scene().record("n3", move |record| record.veto_until = Some(until));
    check(&vetoed(now()), "n3", Expect::Does(Cause::Record));
    check(&vetoed(after(now(), MILLISECOND)), "n3", Expect::Rests);
    let longer = released(24 * HOUR).with_policy(|policy| policy.rules.probation = 48 * HOUR);
    check(&longer, "n3", Expect::Rests);
}

#[test]
fn a_record_follows_its_alerts_but_not_each_refresh() {
    let heard = |change: fn(&mut ActingAlert)| {
        let mut heard = alert("X", 0.9, Reach::Taint);
        change(&mut heard);
        scene()
            .alert("n3", heard)
            .marked("n3", RecordedPhase::Tainted, HOUR)
            .record("n3", |record| {
                record.alerts = vec![alert("X", 0.9, Reach::Taint)]
            })
    };
    check(&heard(|_| {}), "n3", Expect::Holds(HoldReason::Reach));
    // The record would let it run out after half of the time that is left, or later: near enough.
    check(
        &heard(|alert| alert.expires_at = after(now(), 10 * HOUR)),
        "n3",
        Expect::Holds(HoldReason::Reach),
    );
    let changes: [fn(&mut ActingAlert); 4] = [
        |alert| alert.expires_at = after(now(), 10 * HOUR + MILLISECOND),
        |alert| alert.floor = risk(0.8),
        |alert| alert.reach = Reach::Label,
        |alert| alert.starts_at = ago(now(), MINUTE),
    ];
    for change in changes {
        check(&heard(change), "n3", Expect::Does(Cause::Record));
    }
    let order = order_for(&heard(changes[1]), "n3");
    assert_eq!(order.note, "its acting alerts changed");
    assert_eq!(record_of(&order).alerts[0].floor, risk(0.8));
}

// ---- unknown ----

#[test]
fn blinded_is_who_fell_silent_after_our_taint_while_others_are_heard() {
    let silent = |why| {
        scene()
            .score("n3", Err(why))
            .marked("n3", RecordedPhase::Drained, HOUR)
    };
    let is = |scene: &Scene| {
        let decision = decide(&scene.policy, &scene.memory, &scene.world);
        decision.verdicts["n3"].hold().expect("held").reason
    };
    assert_eq!(
        is(&silent(ScoreUnknown::NoScrape)),
        HoldReason::BlindedByTaint
    );
    assert_eq!(
        is(&silent(ScoreUnknown::FeaturesMissing)),
        HoldReason::Unknown
    );
    assert_eq!(is(&silent(ScoreUnknown::Ambiguous)), HoldReason::Unknown);
    let never = silent(ScoreUnknown::NoScrape).record("n3", |record| record.had_features = false);
    assert_eq!(is(&never), HoldReason::Unknown);
    let unmarked = scene()
        .score("n3", Err(ScoreUnknown::NoScrape))
        .record("n3", |record| record.had_features = true);
    assert_eq!(is(&unmarked), HoldReason::Unknown);
    // Stale is silent too, and so are others who were heard too long ago.
    let stale = |age| {
        silent(ScoreUnknown::NoScrape).with_world(move |world| {
            for (name, score) in &mut world.scores {
                score.at = ago(now(), if name.as_str() == "n3" { HOUR } else { age });
            }
        })
    };
    assert_eq!(is(&stale(MINUTE)), HoldReason::BlindedByTaint);
    assert_eq!(is(&stale(MINUTE + MILLISECOND)), HoldReason::Unknown);
    let old = scene()
        .marked("n3", RecordedPhase::Drained, HOUR)
        .with_world(|world| {
            world.scores.get_mut("n3").expect("scored").at = ago(now(), HOUR);
        });
    assert_eq!(is(&old), HoldReason::BlindedByTaint);
}

#[test]
fn marks_of_ours_are_not_foreign_and_those_of_others_are_named() {
    let taints = |key: &str, value: &str, effect| foreshock_core::record::Taint {
        key: key.into(),
        value: value.into(),
        effect,
    };
    let said = |scene: &Scene| hold(scene, HoldReason::ForeignMark).detail;
    let foreign = confirmed().node("n3", move |node| {
        node.taints
            .push(taints("degradation", "mine", TaintEffect::NoExecute));
    });
    assert_eq!(
        said(&foreign),
        "the taint degradation=mine:NoExecute is not ours"
    );
    let other = confirmed().node("n3", |node| {
        node.taints.push(foreshock_core::record::Taint {
            key: "gpu".into(),
            ..taint()
        });
    });
    check(&other, "n3", Expect::Does(Cause::Taint));
    let cautioned = confirmed().record("n3", |record| {
        record.marks.caution_taint = Some(caution_taint())
    });
    check(&cautioned, "n3", Expect::Does(Cause::Taint));
    // Where no caution taint is configured, ours of an earlier configuration is still ours.
    let earlier = cautioned.with_policy(|policy| policy.rules.caution_taint = None);
    check(&earlier, "n3", Expect::Does(Cause::Taint));
    let of_another = confirmed()
        .record("n3", |record| record.marks.caution_taint = None)
        .node("n3", |node| node.taints.push(caution_taint()));
    assert_eq!(
        said(&of_another),
        "the taint degradation=caution:PreferNoSchedule is not ours"
    );
    let foreign_record = confirmed().node("n3", |node| {
        node.record = RecordState::Foreign {
            instance: "other".into(),
        };
    });
    assert!(said(&foreign_record).contains("\"other\""));
}

// ---- what is remembered ----

#[test]
fn what_is_remembered_of_a_node_goes_on_for_as_long_as_it_is_true() {
    let memory_of = |scene: &Scene| {
        let decision = decide(&scene.policy, &scene.memory, &scene.world);
        decision.memory.nodes[&scene.world.nodes["n3"].id].clone()
    };
    let kept = memory_of(&scene().at_risk("n3", 0.9, MINUTE));
    assert_eq!(kept.at_risk_since, Some(ago(now(), MINUTE)));
    assert_eq!(kept.model_at_risk_since, Some(ago(now(), MINUTE)));
    let begun = memory_of(&scene().score("n3", Ok(0.9)));
    assert_eq!(begun.at_risk_since, Some(now()));
    assert_eq!(begun.model_at_risk_since, Some(now()));
    let over = memory_of(&scene().at_risk("n3", 0.9, MINUTE).score("n3", Ok(0.6)));
    assert_eq!((over.at_risk_since, over.model_at_risk_since), (None, None));
    let by_alert = scene()
        .at_risk("n3", 0.2, MINUTE)
        .alert("n3", alert("X", 0.9, Reach::Evict));
    let kept = memory_of(&by_alert);
    assert_eq!(kept.at_risk_since, Some(ago(now(), MINUTE)));
    assert_eq!(kept.model_at_risk_since, None);

    // Time to recover runs for a Node that waits to be given back and is well, and for no other.
    let well = |scene: Scene| memory_of(&scene).well_since;
    assert_eq!(well(scene()), None);
    assert_eq!(
        well(scene().marked("n3", RecordedPhase::Draining, HOUR)),
        None
    );
    for phase in [RecordedPhase::Tainted, RecordedPhase::Drained] {
        assert_eq!(well(scene().marked("n3", phase, HOUR)), Some(now()));
        assert_eq!(
            well(scene().score("n3", Ok(0.9)).marked("n3", phase, HOUR)),
            None
        );
    }
    let goes_on = scene()
        .marked("n3", RecordedPhase::Drained, HOUR)
        .remember("n3", |memory| memory.well_since = Some(ago(now(), MINUTE)));
    assert_eq!(well(goes_on), Some(ago(now(), MINUTE)));

    // What carries our mark had turned before that, which is all that is known after a restart.
    let turned = |scene: Scene| memory_of(&scene.score("n3", Ok(0.9))).turned_at;
    assert_eq!(turned(scene()), Some(now()));
    let hour_ago = Some(ago(now(), HOUR));
    let marked = |phase| scene().marked("n3", phase, HOUR);
    assert_eq!(turned(marked(RecordedPhase::Tainted)), hour_ago);
    let only_label = scene().record("n3", |record| {
        record.since = ago(now(), HOUR);
        record.marks.label = Some(RiskLabel::Caution);
    });
    assert_eq!(turned(only_label), Some(now()));
}

#[test]
fn the_clusters_record_keeps_what_counts_of_other_nodes() {
    let next = |drains: Vec<(foreshock_core::node::NodeName, Duration)>| {
        let scene = drain_due().with_world(|world| {
            let record = world.cluster.as_mut().expect("known");
            for (name, age) in drains {
                record.drains.insert((ago(now(), age), name), "uid".into());
            }
        });
        let decision = decide(&scene.policy, &scene.memory, &scene.world);
        let cluster = decision.plan.cluster.expect("a drain begins");
        let named = cluster
            .drains
            .into_keys()
            .map(|(at, name)| (name.to_string(), at));
        named.collect::<Vec<_>>()
    };
    let (soon, hour) = (HOUR - MILLISECOND, HOUR);
    let begun = ("n3".to_owned(), now());
    assert_eq!(
        next(vec![("gone".into(), soon)]),
        [("gone".to_owned(), ago(now(), soon)), begun.clone()]
    );
    assert_eq!(
        next(vec![("gone".into(), hour)]),
        std::slice::from_ref(&begun)
    );
    // An earlier entry of this Node whose mark had failed: it has only had the taint since before.
    assert_eq!(
        next(vec![("n3".into(), Duration::from_secs(20))]),
        [
            ("n3".to_owned(), ago(now(), Duration::from_secs(20))),
            begun.clone()
        ]
    );
    let since_longer = |entry| {
        let scene = confirmed()
            .marked("n3", RecordedPhase::Tainted, 30 * MINUTE)
            .with_world(|world| {
                let record = world.cluster.as_mut().expect("known");
                record
                    .drains
                    .insert((ago(now(), entry), "n3".into()), "uid".into());
            });
        let decision = decide(&scene.policy, &scene.memory, &scene.world);
        decision.plan.cluster.expect("a drain begins").drains.len()
    };
    assert_eq!(since_longer(5 * MINUTE), 1, "it never began");
    assert_eq!(
        since_longer(5 * MINUTE - MILLISECOND),
        2,
        "its mark may be on its way"
    );
    assert_eq!(
        since_longer(30 * MINUTE),
        2,
        "as old as the taint: it may have been another's"
    );
    assert_eq!(since_longer(31 * MINUTE), 2, "older than the taint");
}

#[test]
fn how_calm_a_storm_is_stays_off_the_lease() {
    let storm = foreshock_core::record::Storm {
        since: ago(now(), 10 * MINUTE),
        about: "4 of 10 Nodes".into(),
        input: None,
        calm_since: None,
    };
    let mut scene = scene().with_world(|world| {
        world.cluster.as_mut().expect("known").storm = Some(storm.clone());
    });
    scene.memory.storm = Some(foreshock_core::record::Storm {
        calm_since: Some(ago(now(), MINUTE)),
        ..storm
    });
    let decision = decide(&scene.policy, &scene.memory, &scene.world);
    let remembered = decision.memory.storm.expect("it goes on");
    assert_eq!(remembered.calm_since, Some(ago(now(), MINUTE)));
    assert_eq!(decision.plan.cluster, None, "the Lease has it already");
}
