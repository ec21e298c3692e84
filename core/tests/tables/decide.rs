//! Decisions as tables: a scene, and what is to be done and said about one Node.

use std::time::Duration;

use crate::support::pods::{budgeted, pod, sized, with};
use crate::support::{HOUR, MINUTE, Scene, alert, caution_taint, node, now, scene, taint};
use foreshock_core::decision::audit::audit;
use foreshock_core::decision::decide;
use foreshock_core::decision::plan::{Cause, MarkOrder};
use foreshock_core::decision::policy::{ControlPlane, Limit, Reach};
use foreshock_core::decision::verdict::{HoldReason, Phase};
use foreshock_core::decision::world::{Fact, HoldUntil, OwnWrite, ScoreUnknown};
use foreshock_core::drain::{DrainReport, NodeOutcome, PodFacts, PodOutcome};
use foreshock_core::node::Uid;
use foreshock_core::record::{
    DrainRecord, RecordState, RecordedPhase, RiskLabel, Storm, SurgeRecord, Taint, TaintEffect,
};
use foreshock_core::risk::Band;
use foreshock_core::time::{after, ago};

/// What is expected for one Node.
#[derive(Debug, PartialEq)]
pub(crate) enum Expect {
    /// This is written.
    Does(Cause),
    /// Nothing is written, and this is the primary hold.
    Holds(HoldReason),
    /// Nothing is written, and nothing is held.
    Rests,
    /// A drain goes on, and sends evictions or not.
    Drains(bool),
}

#[track_caller]
pub(crate) fn check(scene: &Scene, name: &str, expected: Expect) {
    let decision = decide(&scene.policy, &scene.memory, &scene.world);
    let verdict = &decision.verdicts[name];
    let order = decision
        .plan
        .marks
        .iter()
        .find(|order| order.node.name.as_str() == name);
    let drain = decision
        .plan
        .drains
        .iter()
        .find(|order| order.node.name.as_str() == name);
    // Label and caution taint follow the band of a Node that is held back from more.
    let only_level = order.is_some_and(|order| order.cause == Cause::Caution);
    let order = order.filter(|_| !(only_level && matches!(expected, Expect::Holds(_))));
    let actual = match (order, drain, verdict.hold()) {
        (Some(order), ..) => Expect::Does(order.cause),
        (None, Some(drain), _) => Expect::Drains(drain.sends),
        (None, None, Some(hold)) => Expect::Holds(hold.reason),
        (None, None, None) => Expect::Rests,
    };
    assert_eq!(actual, expected, "verdict: {verdict:#?}");
    let mut sorted = verdict.holds.clone();
    sorted.sort();
    assert_eq!(verdict.holds, sorted, "the primary hold comes first");
    if let Err(refusals) = audit(
        &scene.policy,
        &decision.memory,
        &scene.world,
        decision.plan.clone(),
    ) {
        panic!("the audit refuses a plan of the planner: {refusals:?}");
    }
}

pub(crate) fn order_for(scene: &Scene, name: &str) -> MarkOrder {
    let decision = decide(&scene.policy, &scene.memory, &scene.world);
    decision
        .plan
        .marks
        .into_iter()
        .find(|order| order.node.name.as_str() == name)
        .expect("there is an order")
}

pub(crate) fn confirmed() -> Scene {
    scene().at_risk("n3", 0.9, MINUTE)
}

pub(crate) fn drain_due() -> Scene {
    confirmed().marked("n3", RecordedPhase::Tainted, 2 * MINUTE)
}

pub(crate) fn draining() -> Scene {
    confirmed().marked("n3", RecordedPhase::Draining, MINUTE)
}

// ---- on the way in ----

#[test]
fn healthy_nodes_are_left_in_peace() {
    check(&scene(), "n3", Expect::Rests);
}

#[test]
fn a_risk_of_exactly_the_threshold_is_not_at_risk() {
    let scene = scene()
        .at_risk("n3", 0.65, HOUR)
        .with_policy(|policy| policy.rules.reach = Reach::Observe);
    check(&scene, "n3", Expect::Rests);
}

#[test]
fn the_model_has_to_say_so_for_a_while() {
    check(
        &scene().at_risk("n3", 0.9, Duration::from_secs(44)),
        "n3",
        Expect::Holds(HoldReason::Unconfirmed),
    );
    check(
        &scene().at_risk("n3", 0.9, Duration::from_secs(45)),
        "n3",
        Expect::Does(Cause::Taint),
    );
}

#[test]
fn a_tainted_node_gets_taint_label_and_record_in_one_order() {
    let order = order_for(&confirmed(), "n3");
    assert_eq!(order.taints_added(), [&taint()]);
    let record = order.record.expect("the order writes a record");
    assert_eq!(record.marks.label, Some(RiskLabel::AtRisk));
    assert_eq!(record.phase, RecordedPhase::Tainted);
    assert!(record.had_features);
}

#[test]
fn an_alert_needs_no_confirmation_and_no_features() {
    let with_alert = |scene: Scene| scene.alert("n3", alert("KubeNodeNotReady", 0.8, Reach::Evict));
    check(&with_alert(scene()), "n3", Expect::Does(Cause::Taint));
    check(
        &with_alert(scene().score("n3", Err(ScoreUnknown::NoScrape))),
        "n3",
        Expect::Does(Cause::Taint),
    );
    let record = order_for(
        &with_alert(scene().score("n3", Err(ScoreUnknown::NoScrape))),
        "n3",
    )
    .record
    .expect("a record");
    assert!(!record.had_features);
    assert_eq!(record.alerts.len(), 1);
}

#[test]
fn an_alert_goes_no_further_than_its_own_reach() {
    check(
        &scene().alert("n3", alert("X", 0.8, Reach::Observe)),
        "n3",
        Expect::Holds(HoldReason::Reach),
    );
    check(
        &scene().alert("n3", alert("X", 0.8, Reach::Label)),
        "n3",
        Expect::Does(Cause::Caution),
    );
    let tainted = scene().alert("n3", alert("X", 0.8, Reach::Taint)).marked(
        "n3",
        RecordedPhase::Tainted,
        HOUR,
    );
    let tainted = tainted.record("n3", |record| {
        record.alerts = vec![alert("X", 0.8, Reach::Taint)]
    });
    check(&tainted, "n3", Expect::Holds(HoldReason::Reach));
}

#[test]
fn alerts_that_expired_resolved_or_meant_an_earlier_node_say_nothing() {
    let mut expired = alert("X", 0.8, Reach::Evict);
    expired.expires_at = now();
    check(&scene().alert("n3", expired), "n3", Expect::Rests);

    let resolved = scene().alert("n3", alert("X", 0.8, Reach::Evict));
    let started = alert("X", 0.8, Reach::Evict).starts_at;
    check(
        &resolved.with_world(|world| {
            world.resolved.insert("fp-X".into(), started);
        }),
        "n3",
        Expect::Rests,
    );

    let mut old = alert("X", 0.8, Reach::Evict);
    old.starts_at = ago(now(), 200 * HOUR);
    check(&scene().alert("n3", old), "n3", Expect::Rests);
}

#[test]
fn the_end_of_an_earlier_firing_does_not_end_the_present_one() {
    let earlier = ago(alert("X", 0.8, Reach::Evict).starts_at, HOUR);
    let scene = scene()
        .alert("n3", alert("X", 0.8, Reach::Evict))
        .with_world(|world| {
            world.resolved.insert("fp-X".into(), earlier);
        });
    check(&scene, "n3", Expect::Does(Cause::Taint));
}

#[test]
fn an_alert_that_only_the_record_holds_goes_on_counting_after_a_restart() {
    let scene =
        scene()
            .score("n3", Err(ScoreUnknown::NoScrape))
            .marked("n3", RecordedPhase::Tainted, HOUR);
    let scene = scene.record("n3", |record| {
        record.alerts = vec![alert("X", 0.8, Reach::Evict)]
    });
    check(&scene, "n3", Expect::Does(Cause::DrainStart));
}

#[test]
fn an_untrained_model_labels_and_no_more() {
    let untrained = |scene: Scene| scene.with_policy(|policy| policy.model_trusted = false);
    check(&untrained(confirmed()), "n3", Expect::Does(Cause::Caution));
    let labelled = confirmed().record("n3", |record| record.marks.label = Some(RiskLabel::AtRisk));
    check(
        &untrained(labelled),
        "n3",
        Expect::Holds(HoldReason::Untrained),
    );
}

#[test]
fn observe_sees_everything_and_writes_nothing() {
    let scene = confirmed()
        .with_policy(|policy| policy.rules.reach = Reach::Observe)
        .with_world(|world| world.cluster = None);
    check(&scene, "n3", Expect::Holds(HoldReason::Reach));
    let decision = decide(&scene.policy, &scene.memory, &scene.world);
    assert_eq!(decision.plan.cluster, None);
    assert_eq!(decision.verdicts["n3"].phase, Phase::Suspect);
    assert_eq!(decision.verdicts["n3"].band, Band::AtRisk);
}

// ---- who is left alone ----

#[test]
fn people_and_other_controllers_come_first() {
    let foreign = Taint {
        key: "degradation".into(),
        value: "mine".into(),
        effect: TaintEffect::NoSchedule,
    };
    let cases: Vec<(Scene, HoldReason)> = vec![
        (
            confirmed().with_world(|world| world.paused = true),
            HoldReason::Paused,
        ),
        (
            confirmed().node("n3", |node| node.excluded = true),
            HoldReason::Excluded,
        ),
        (
            confirmed().node("n3", |node| {
                node.hold_until = Some(HoldUntil::Time(after(now(), HOUR)))
            }),
            HoldReason::HoldUntil,
        ),
        (
            confirmed().node("n3", |node| {
                node.hold_until = Some(HoldUntil::Malformed("soon".into()))
            }),
            HoldReason::HoldUntil,
        ),
        (
            confirmed().node("n3", |node| node.cordoned = true),
            HoldReason::ForeignMark,
        ),
        (
            confirmed().node("n3", |node| node.taints.push(foreign)),
            HoldReason::ForeignMark,
        ),
        (
            confirmed().node("n3", |node| node.taints.push(taint())),
            HoldReason::ForeignMark,
        ),
        (
            confirmed().node("n3", |node| node.taken_by = Some("karpenter".into())),
            HoldReason::ForeignMark,
        ),
        (
            confirmed().node("n3", |node| {
                node.record = RecordState::Foreign {
                    instance: "other".into(),
                }
            }),
            HoldReason::ForeignMark,
        ),
        (
            confirmed().node("n3", |node| {
                node.record = RecordState::Unreadable {
                    problem: "version 9".into(),
                }
            }),
            HoldReason::ForeignMark,
        ),
        (
            confirmed().record("n3", |record| record.veto_until = Some(after(now(), HOUR))),
            HoldReason::Veto,
        ),
        (
            confirmed().node("n3", |node| node.control_plane = true),
            HoldReason::ControlPlane,
        ),
        (
            confirmed().node("n3", |node| node.created_at = ago(now(), 5 * MINUTE)),
            HoldReason::NewNode,
        ),
        (
            confirmed().with_world(|world| world.cluster = None),
            HoldReason::FactsUnknown,
        ),
    ];
    for (scene, reason) in cases {
        check(&scene, "n3", Expect::Holds(reason));
    }
}

#[test]
fn a_hold_until_that_has_passed_holds_no_longer() {
    let scene = confirmed().node("n3", |node| node.hold_until = Some(HoldUntil::Time(now())));
    check(&scene, "n3", Expect::Does(Cause::Taint));
}

#[test]
fn a_record_of_a_node_that_had_this_name_before_is_ignored() {
    check(
        &confirmed().node("n3", |node| node.record = RecordState::OtherUid),
        "n3",
        Expect::Does(Cause::Taint),
    );
}

#[test]
fn memory_of_a_node_that_had_this_name_before_is_ignored() {
    let scene = confirmed().node("n3", |node| node.id.uid = Uid::from("another"));
    check(&scene, "n3", Expect::Holds(HoldReason::Unconfirmed));
}

#[test]
fn a_taint_that_a_person_removed_does_not_come_back() {
    let removed = drain_due().node("n3", |node| node.taints.clear());
    check(&removed, "n3", Expect::Does(Cause::Veto));
    let order = order_for(&removed, "n3");
    let record = order.record.expect("the record stays");
    assert_eq!(record.phase, RecordedPhase::Clear);
    assert_eq!(record.veto_until, Some(after(now(), 24 * HOUR)));
}

#[test]
fn a_veto_is_over_when_its_time_is() {
    let vetoed = |until| confirmed().record("n3", move |record| record.veto_until = Some(until));
    check(
        &vetoed(after(now(), MINUTE)),
        "n3",
        Expect::Holds(HoldReason::Veto),
    );
    check(&vetoed(now()), "n3", Expect::Does(Cause::Taint));
}

#[test]
fn our_own_write_under_way_is_waited_for() {
    let scene = confirmed().with_world(|world| {
        world.writes.insert(
            "n3".into(),
            OwnWrite::InFlight {
                taints: true,
                drains: false,
            },
        );
    });
    check(&scene, "n3", Expect::Rests);
}

#[test]
fn a_failed_write_is_tried_again_later() {
    let failed = |until| {
        confirmed().with_world(move |world| {
            let failed = OwnWrite::Failed {
                problem: "conflict".into(),
                retry_at: until,
                taints: false,
                drains: false,
            };
            world.writes.insert("n3".into(), failed);
        })
    };
    check(
        &failed(after(now(), MINUTE)),
        "n3",
        Expect::Holds(HoldReason::WriteFailed),
    );
    check(&failed(now()), "n3", Expect::Does(Cause::Taint));
}

#[test]
fn a_write_whose_answer_was_lost_counts_against_the_limits_until_it_is_settled() {
    let lost = confirmed().with_world(|world| {
        let failed = OwnWrite::Failed {
            problem: "connection reset".into(),
            retry_at: after(now(), MINUTE),
            taints: true,
            drains: false,
        };
        world.writes.insert("n5".into(), failed);
    });
    check(&lost, "n3", Expect::Holds(HoldReason::TaintedMax));
}

#[test]
fn a_node_that_keeps_coming_back_waits_for_a_person() {
    let back = |repeats: usize| {
        confirmed().record("n3", |record| {
            record.released_at = Some(ago(now(), 30 * MINUTE));
            record.repeats = (1..=repeats)
                .map(|hours| ago(now(), HOUR * u32::try_from(hours).expect("few")))
                .collect();
        })
    };
    check(&back(1), "n3", Expect::Does(Cause::Taint));
    check(&back(2), "n3", Expect::Holds(HoldReason::RepeatOffender));
}

// ---- limits ----

#[test]
fn tainted_max_counts_marked_and_in_flight_nodes() {
    let marked = confirmed()
        .marked("n5", RecordedPhase::Tainted, HOUR)
        .at_risk("n5", 0.8, HOUR);
    check(&marked, "n3", Expect::Holds(HoldReason::TaintedMax));
    let in_flight = confirmed().with_world(|world| {
        world.writes.insert(
            "n5".into(),
            OwnWrite::InFlight {
                taints: true,
                drains: false,
            },
        );
    });
    check(&in_flight, "n3", Expect::Holds(HoldReason::TaintedMax));
}

#[test]
fn of_two_candidates_the_riskier_is_taken() {
    let scene = scene()
        .at_risk("n3", 0.8, MINUTE)
        .at_risk("n4", 0.9, MINUTE);
    check(&scene, "n4", Expect::Does(Cause::Taint));
    check(&scene, "n3", Expect::Holds(HoldReason::TaintedMax));
}

#[test]
fn the_last_node_that_can_work_is_never_taken() {
    let mut only = scene().at_risk("n0", 0.9, MINUTE);
    for index in 1..10 {
        only = only
            .node(&format!("n{index}"), |node| node.ready = index > 8)
            .node(&format!("n{index}"), |node| {
                node.cordoned = index > 8;
            });
    }
    check(&only, "n0", Expect::Holds(HoldReason::LastNode));
}

#[test]
fn one_bad_node_in_a_small_cluster_is_acted_on_and_the_last_is_not() {
    for (size, expected) in [
        (1, Expect::Holds(HoldReason::LastNode)),
        (2, Expect::Does(Cause::Taint)),
        (3, Expect::Does(Cause::Taint)),
        (4, Expect::Does(Cause::Taint)),
    ] {
        let scene = scene().at_risk("n0", 0.9, MINUTE).with_world(|world| {
            world
                .nodes
                .retain(|name, _| name.as_str() < format!("n{size}").as_str());
        });
        check(&scene, "n0", expected);
    }
}

#[test]
fn percentages_round_down_and_mean_at_least_one() {
    for (percent, base, expected) in [
        (10.0, 1, 1),
        (10.0, 2, 1),
        (10.0, 3, 1),
        (10.0, 19, 1),
        (10.0, 20, 2),
        (15.0, 100, 15),
        (0.0, 50, 1),
    ] {
        assert_eq!(
            Limit::Percent(percent).of(base),
            expected,
            "{percent} % of {base}"
        );
    }
    assert_eq!(Limit::Count(0).of(100), 0, "a count of zero means none");
}

#[test]
fn draining_max_and_drains_per_hour_hold_the_start_of_a_drain() {
    let two = drain_due().with_policy(|policy| policy.limits.tainted_max = Limit::Count(3));
    let busy = two
        .clone()
        .marked("n5", RecordedPhase::Draining, MINUTE)
        .at_risk("n5", 0.8, HOUR);
    check(&busy, "n3", Expect::Holds(HoldReason::DrainingMax));

    let tired = two.with_world(|world| {
        let cluster = world.cluster.as_mut().expect("the scene has one");
        for minute in 1..=6 {
            cluster.drains.insert(
                (ago(now(), minute * 5 * MINUTE), "n9".into()),
                "uid-n9".into(),
            );
        }
    });
    check(&tired, "n3", Expect::Holds(HoldReason::DrainsPerHour));
    let decision = decide(&tired.policy, &tired.memory, &tired.world);
    assert_eq!(
        decision.verdicts["n3"].holds[0].until,
        Some(after(ago(now(), 30 * MINUTE), HOUR))
    );
}

#[test]
fn control_plane_nodes_are_acted_on_one_at_a_time_where_included() {
    let include = |scene: Scene| {
        scene
            .with_policy(|policy| {
                policy.rules.control_plane = ControlPlane::Include;
                policy.limits.tainted_max = Limit::Count(5);
            })
            .node("n3", |node| node.control_plane = true)
            .node("n4", |node| node.control_plane = true)
    };
    check(&include(confirmed()), "n3", Expect::Does(Cause::Taint));
    let other = include(
        confirmed()
            .marked("n4", RecordedPhase::Tainted, HOUR)
            .at_risk("n4", 0.8, HOUR),
    );
    check(&other, "n3", Expect::Holds(HoldReason::ControlPlane));
}

// ---- storm ----

fn many_at_risk(count: usize) -> Scene {
    let scene = scene().with_policy(|policy| policy.limits.tainted_max = Limit::Count(9));
    (0..count).fold(scene, |scene, index| {
        scene.at_risk(&format!("n{index}"), 0.9, MINUTE)
    })
}

#[test]
fn too_many_at_once_is_a_storm_and_holds_everything_new() {
    check(&many_at_risk(2), "n0", Expect::Does(Cause::Taint));
    let storm = many_at_risk(3);
    for index in 0..3 {
        check(
            &storm,
            &format!("n{index}"),
            Expect::Holds(HoldReason::Storm),
        );
    }
    let decision = decide(&storm.policy, &storm.memory, &storm.world);
    assert_eq!(
        decision
            .plan
            .cluster
            .expect("it is recorded")
            .storm
            .expect("a storm")
            .since,
        now()
    );
}

#[test]
fn a_running_drain_sends_nothing_in_a_storm() {
    let storm = many_at_risk(4).marked("n3", RecordedPhase::Draining, MINUTE);
    check(&storm, "n3", Expect::Drains(false));
}

#[test]
fn in_a_storm_nodes_that_are_well_are_still_given_back() {
    let storm = many_at_risk(4).marked("n9", RecordedPhase::Drained, HOUR);
    check(
        &storm.remember("n9", |memory| memory.well_since = Some(ago(now(), HOUR))),
        "n9",
        Expect::Does(Cause::Release),
    );
}

#[test]
fn a_storm_on_record_goes_on_after_a_restart_until_a_whole_window_was_calm() {
    let recorded = confirmed().with_world(|world| {
        let storm = Storm {
            since: ago(now(), HOUR),
            about: "4 of 10 Nodes".into(),
            input: None,
            calm_since: None,
        };
        world.cluster.as_mut().expect("the scene has one").storm = Some(storm);
    });
    check(&recorded, "n3", Expect::Holds(HoldReason::Storm));
    let mut calm = recorded;
    calm.memory.storm = Some(Storm {
        since: ago(now(), HOUR),
        about: "4 of 10 Nodes".into(),
        input: None,
        calm_since: Some(ago(now(), 5 * MINUTE)),
    });
    check(&calm, "n3", Expect::Does(Cause::Taint));
}

// ---- draining ----

#[test]
fn the_drain_waits_for_drain_after_and_for_fresh_facts() {
    let young = confirmed().marked("n3", RecordedPhase::Tainted, Duration::from_secs(59));
    check(&young, "n3", Expect::Holds(HoldReason::DrainAfter));
    check(&drain_due(), "n3", Expect::Does(Cause::DrainStart));
    check(
        &drain_due().node("n3", |node| node.pods = Fact::Unknown),
        "n3",
        Expect::Holds(HoldReason::FactsUnknown),
    );
    let old = Fact::Known(ago(now(), 2 * MINUTE), Vec::new());
    check(
        &drain_due().node("n3", |node| node.pods = old),
        "n3",
        Expect::Holds(HoldReason::FactsUnknown),
    );
}

#[test]
fn the_pods_of_a_node_that_may_be_drained_are_asked_for() {
    let scene = drain_due().node("n3", |node| node.pods = Fact::Unknown);
    let wants = decide(&scene.policy, &scene.memory, &scene.world).wants;
    assert_eq!(
        wants.keys().map(|name| name.as_str()).collect::<Vec<_>>(),
        ["n3"]
    );
}

#[test]
fn a_drain_is_on_the_clusters_record_before_it_begins() {
    let decision = decide(&drain_due().policy, &drain_due().memory, &drain_due().world);
    let cluster = decision.plan.cluster.expect("the record changes");
    assert!(cluster.drains.contains_key(&(now(), "n3".into())));
}

#[test]
fn a_running_drain_goes_on_in_the_dead_band_and_pauses_when_nothing_is_known() {
    check(&draining(), "n3", Expect::Drains(true));
    check(
        &draining().score("n3", Ok(0.55)),
        "n3",
        Expect::Drains(true),
    );
    check(
        &draining().score("n3", Err(ScoreUnknown::FeaturesMissing)),
        "n3",
        Expect::Drains(false),
    );
    check(
        &draining().with_world(|world| world.paused = true),
        "n3",
        Expect::Drains(false),
    );
    check(
        &draining().node("n3", |node| node.excluded = true),
        "n3",
        Expect::Drains(false),
    );
    check(
        &draining().with_policy(|policy| policy.rules.reach = Reach::Taint),
        "n3",
        Expect::Drains(false),
    );
    check(
        &draining().with_world(|world| world.cluster = None),
        "n3",
        Expect::Drains(false),
    );
}

#[test]
fn a_drain_whose_node_looks_well_again_is_cancelled_and_not_counted_as_drained() {
    let scene = draining().score("n3", Ok(0.2));
    check(&scene, "n3", Expect::Does(Cause::DrainEnd));
    let record = order_for(&scene, "n3").record.expect("a record");
    assert_eq!(record.phase, RecordedPhase::Tainted);
    let ended = record
        .drain
        .and_then(|drain| drain.ended)
        .map(|(_, outcome)| outcome);
    assert_eq!(ended, Some(NodeOutcome::Ended(PodOutcome::Cancelled)));
}

pub(crate) fn reported(outcome: NodeOutcome) -> Scene {
    draining().with_world(|world| {
        let report = DrainReport {
            started_at: ago(now(), MINUTE),
            remaining: 0,
            gone: 3,
            ended: Some((now(), outcome)),
            detail: "shop/cart: needs 1".into(),
        };
        world.drains.insert("n3".into(), report);
    })
}

#[test]
fn the_end_of_a_drain_is_recorded_for_what_it_was() {
    check(
        &reported(NodeOutcome::Drained),
        "n3",
        Expect::Does(Cause::Drained),
    );
    check(
        &reported(NodeOutcome::Ended(PodOutcome::BlockedByBudget)),
        "n3",
        Expect::Does(Cause::DrainEnd),
    );
}

#[test]
fn a_report_of_another_drain_says_nothing_about_this_one() {
    let scene = reported(NodeOutcome::Drained).with_world(|world| {
        world.drains.get_mut("n3").expect("reported").started_at = ago(now(), HOUR);
    });
    check(&scene, "n3", Expect::Drains(true));
}

#[test]
fn a_failed_drain_is_tried_again_with_growing_pauses_and_then_waits_for_a_person() {
    let failed = |attempts: u32, ago_by: Duration| {
        drain_due().record("n3", |record| {
            let outcome = NodeOutcome::Ended(PodOutcome::BlockedByBudget);
            record.drain = Some(DrainRecord {
                started_at: ago(now(), 2 * HOUR),
                attempts,
                ended: Some((ago(now(), ago_by), outcome)),
            });
        })
    };
    check(
        &failed(1, 4 * MINUTE),
        "n3",
        Expect::Holds(HoldReason::DrainFailed),
    );
    check(
        &failed(1, 5 * MINUTE),
        "n3",
        Expect::Does(Cause::DrainStart),
    );
    check(
        &failed(2, 9 * MINUTE),
        "n3",
        Expect::Holds(HoldReason::DrainFailed),
    );
    check(
        &failed(2, 10 * MINUTE),
        "n3",
        Expect::Does(Cause::DrainStart),
    );
    check(
        &failed(3, HOUR),
        "n3",
        Expect::Holds(HoldReason::DrainFailed),
    );
}

#[test]
fn a_drained_node_that_is_not_well_stays_drained() {
    check(
        &confirmed().marked("n3", RecordedPhase::Drained, HOUR),
        "n3",
        Expect::Holds(HoldReason::Drained),
    );
}

// ---- on the way out ----

#[test]
fn a_node_is_given_back_after_it_was_well_for_long_enough() {
    let well = |long| {
        scene()
            .marked("n3", RecordedPhase::Drained, HOUR)
            .remember("n3", |memory| memory.well_since = Some(ago(now(), long)))
    };
    check(
        &well(9 * MINUTE),
        "n3",
        Expect::Holds(HoldReason::Recovering),
    );
    check(&well(10 * MINUTE), "n3", Expect::Does(Cause::Release));
    let order = order_for(&well(10 * MINUTE), "n3");
    assert_eq!(order.taints_removed(), [&taint()]);
    let record = order.record.expect("probation is on record");
    assert!(record.marks.is_empty());
    assert_eq!(record.released_at, Some(now()));
}

#[test]
fn the_dead_band_neither_drains_nor_releases() {
    let scene = scene()
        .marked("n3", RecordedPhase::Tainted, HOUR)
        .score("n3", Ok(0.55))
        .remember("n3", |memory| memory.well_since = Some(ago(now(), HOUR)));
    check(&scene, "n3", Expect::Holds(HoldReason::Recovering));
}

#[test]
fn silence_releases_nothing() {
    let long_well =
        |scene: Scene| scene.remember("n3", |memory| memory.well_since = Some(ago(now(), HOUR)));
    let silent = scene()
        .marked("n3", RecordedPhase::Drained, HOUR)
        .score("n3", Err(ScoreUnknown::FeaturesMissing));
    check(&long_well(silent), "n3", Expect::Holds(HoldReason::Unknown));
    let blinded = scene()
        .marked("n3", RecordedPhase::Drained, HOUR)
        .score("n3", Err(ScoreUnknown::NoScrape));
    check(
        &long_well(blinded),
        "n3",
        Expect::Holds(HoldReason::BlindedByTaint),
    );
    let old = scene()
        .marked("n3", RecordedPhase::Drained, HOUR)
        .with_world(|world| {
            world.scores.get_mut("n3").expect("scored").at = ago(now(), 2 * MINUTE);
        });
    check(
        &long_well(old),
        "n3",
        Expect::Holds(HoldReason::BlindedByTaint),
    );
}

#[test]
fn where_no_node_is_heard_none_is_blinded_by_its_taint() {
    let dark = scene()
        .marked("n3", RecordedPhase::Drained, HOUR)
        .with_world(|world| {
            for score in world.scores.values_mut() {
                score.at = ago(now(), 2 * MINUTE);
            }
        });
    check(&dark, "n3", Expect::Holds(HoldReason::Unknown));
    let restarted = scene()
        .marked("n3", RecordedPhase::Drained, HOUR)
        .with_world(|world| world.scores.clear());
    check(&restarted, "n3", Expect::Holds(HoldReason::Unknown));
    let exporters_gone = scene()
        .marked("n3", RecordedPhase::Drained, HOUR)
        .with_world(|world| {
            for score in world.scores.values_mut() {
                score.risk = Err(ScoreUnknown::NoScrape);
            }
        });
    check(&exporters_gone, "n3", Expect::Holds(HoldReason::Unknown));
}

#[test]
fn an_alert_that_ends_while_nothing_is_heard_writes_nothing_to_a_drained_node() {
    let ended = |phase| {
        let old = alert("X", 0.8, Reach::Evict);
        scene()
            .marked("n3", phase, HOUR)
            .record("n3", |record| record.alerts = vec![old.clone()])
            .with_world(|world| {
                world.resolved.insert("fp-X".into(), old.starts_at);
                world.scores.clear();
            })
    };
    let drained = ended(RecordedPhase::Drained);
    check(&drained, "n3", Expect::Holds(HoldReason::Unknown));
    // One that is not drained yet could be after a restart, on the word of an alert that is over.
    let tainted = ended(RecordedPhase::Tainted);
    assert!(
        order_for(&tainted, "n3")
            .record
            .expect("kept")
            .alerts
            .is_empty()
    );
    // With features again the record follows.
    let heard = scene()
        .marked("n3", RecordedPhase::Drained, HOUR)
        .record("n3", |record| {
            record.alerts = vec![alert("X", 0.8, Reach::Evict)]
        })
        .with_world(|world| {
            let started = alert("X", 0.8, Reach::Evict).starts_at;
            world.resolved.insert("fp-X".into(), started);
        });
    assert!(
        order_for(&heard, "n3")
            .record
            .expect("kept")
            .alerts
            .is_empty()
    );
}

#[test]
fn a_second_reason_keeps_the_mark_when_the_first_clears() {
    let scene = scene()
        .marked("n3", RecordedPhase::Drained, HOUR)
        .remember("n3", |memory| memory.well_since = Some(ago(now(), HOUR)))
        .record("n3", |record| {
            record.alerts = vec![alert("X", 0.8, Reach::Evict)]
        });
    check(&scene, "n3", Expect::Holds(HoldReason::Drained));
}

#[test]
fn a_lower_reach_does_not_keep_a_node_from_being_given_back() {
    let scene = scene()
        .marked("n3", RecordedPhase::Drained, HOUR)
        .remember("n3", |memory| memory.well_since = Some(ago(now(), HOUR)))
        .with_policy(|policy| policy.rules.reach = Reach::Label);
    check(&scene, "n3", Expect::Does(Cause::Release));
}

#[test]
fn a_record_that_has_run_out_is_removed() {
    let old = scene().record("n3", |record| {
        record.released_at = Some(ago(now(), 25 * HOUR))
    });
    check(&old, "n3", Expect::Does(Cause::Record));
    assert_eq!(order_for(&old, "n3").record, None);
    // Not while a Deployment is to be scaled back: nobody else would know.
    let surging = old.record("n3", |record| {
        record.surges = vec![SurgeRecord {
            namespace: "shop".into(),
            deployment: "web".into(),
            uid: "web".into(),
            before: 1,
            pod: pod("a").id,
            since: now(),
        }];
    });
    check(&surging, "n3", Expect::Rests);
    check(
        &scene().record("n3", |record| {
            record.released_at = Some(ago(now(), 23 * HOUR))
        }),
        "n3",
        Expect::Rests,
    );
}

// ---- caution ----

#[test]
fn caution_marks_follow_the_band_with_delay_and_dead_band() {
    let caution = |p: f64, differs: Duration| {
        scene().score("n3", Ok(p)).remember("n3", |memory| {
            memory.caution_differs_since = Some(ago(now(), differs))
        })
    };
    check(&caution(0.55, Duration::from_secs(44)), "n3", Expect::Rests);
    check(
        &caution(0.55, Duration::from_secs(45)),
        "n3",
        Expect::Does(Cause::Caution),
    );
    assert_eq!(
        order_for(&caution(0.55, MINUTE), "n3").taints_added(),
        [&caution_taint()]
    );

    let marked = |p: f64| {
        caution(p, MINUTE).record("n3", |record| {
            record.marks.label = Some(RiskLabel::Caution);
            record.marks.caution_taint = Some(caution_taint());
        })
    };
    check(&marked(0.46), "n3", Expect::Rests);
    check(&marked(0.44), "n3", Expect::Does(Cause::Caution));
    check(
        &marked(0.44).remember("n3", |memory| {
            memory.caution_changed_at = Some(ago(now(), 4 * MINUTE))
        }),
        "n3",
        Expect::Rests,
    );
    check(
        &marked(0.44).score("n3", Err(ScoreUnknown::NoScrape)),
        "n3",
        Expect::Holds(HoldReason::Unknown),
    );
}

#[test]
fn a_label_that_stood_there_before_is_restored() {
    let before = confirmed().node("n3", |node| node.risk_label = Some("legacy".into()));
    let record = order_for(&before, "n3").record.expect("a record");
    assert_eq!(record.marks.label_before.as_deref(), Some("legacy"));
}

#[test]
fn a_new_node_without_any_score_is_unknown_and_not_healthy() {
    let scene = scene().with_node(node("fresh"), Err(ScoreUnknown::NoScrape));
    check(&scene, "fresh", Expect::Holds(HoldReason::Unknown));
    let decision = decide(&scene.policy, &scene.memory, &scene.world);
    assert_eq!(decision.verdicts["fresh"].risk, None);
}

#[test]
fn a_score_from_the_future_means_that_a_clock_has_jumped() {
    let scene = confirmed()
        .with_world(|world| world.scores.get_mut("n3").expect("scored").at = after(now(), MINUTE));
    check(&scene, "n3", Expect::Holds(HoldReason::Unknown));
}

// ---- room and budgets ----

fn with_pods(scene: Scene, name: &str, pods: Vec<PodFacts>) -> Scene {
    scene.node(name, |node| node.pods = Fact::Known(now(), pods))
}

/// `n3` is due to be drained and has these Pods.
fn due_with(pods: Vec<PodFacts>) -> Scene {
    with_pods(
        drain_due().with_policy(|policy| {
            policy.limits.tainted_max = Limit::Count(5);
            policy.limits.draining_max = Limit::Count(5);
        }),
        "n3",
        pods,
    )
}

/// `n5` is being drained and has these Pods.
fn beside(scene: Scene, pods: Vec<PodFacts>) -> Scene {
    let scene = scene
        .at_risk("n5", 0.8, HOUR)
        .marked("n5", RecordedPhase::Draining, MINUTE);
    with_pods(scene, "n5", pods)
}

/// Every Node but these has no room at all.
fn only_room_on(scene: Scene, names: &[&str]) -> Scene {
    scene.with_world(|world| {
        for (name, node) in &mut world.nodes {
            if !names.contains(&name.as_str()) {
                node.allocatable.pods = 0;
            }
        }
    })
}

pub(crate) fn detail(scene: &Scene, name: &str) -> String {
    let decision = decide(&scene.policy, &scene.memory, &scene.world);
    decision.verdicts[name]
        .hold()
        .map(|hold| hold.detail.clone())
        .unwrap_or_default()
}

fn wants(scene: &Scene) -> Vec<String> {
    let decision = decide(&scene.policy, &scene.memory, &scene.world);
    decision.wants.keys().map(ToString::to_string).collect()
}

#[test]
fn nodes_whose_pods_share_a_budget_are_drained_one_after_the_other() {
    let due = || due_with(vec![budgeted("a", 1)]);
    let held = beside(due(), vec![budgeted("b", 1)]);
    check(&held, "n3", Expect::Holds(HoldReason::SharedBudget));
    assert_eq!(
        detail(&held, "n3"),
        "n5 goes first: Pods of both are under PodDisruptionBudget shop/web"
    );
    // Another budget, the same name in another namespace, a Pod that stays: nothing is shared.
    let free = Expect::Does(Cause::DrainStart);
    check(&beside(due(), vec![sized("b", 100)]), "n3", free);
    let elsewhere = with(budgeted("b", 1), |pod| pod.id.namespace = "other".into());
    let free = Expect::Does(Cause::DrainStart);
    check(&beside(due(), vec![elsewhere]), "n3", free);
    let stays = with(budgeted("b", 1), |pod| pod.empty_dir = true);
    let free = Expect::Does(Cause::DrainStart);
    check(&beside(due(), vec![stays]), "n3", free);
    // As soon as the other has none of them left, it goes on; and so it does when that drain has ended.
    let free = Expect::Does(Cause::DrainStart);
    check(&beside(due(), Vec::new()), "n3", free);
    let ended = beside(due(), vec![budgeted("b", 1)]).record("n5", |record| {
        record.phase = RecordedPhase::Tainted;
        record.drain = Some(DrainRecord {
            started_at: ago(now(), HOUR),
            attempts: 1,
            ended: Some((
                ago(now(), 2 * MINUTE),
                NodeOutcome::Ended(PodOutcome::BlockedByBudget),
            )),
        });
    });
    check(&ended, "n3", Expect::Does(Cause::DrainStart));
}

#[test]
fn of_two_that_share_a_budget_the_riskier_begins() {
    let both = due_with(vec![budgeted("a", 1)])
        .at_risk("n4", 0.95, HOUR)
        .marked("n4", RecordedPhase::Tainted, HOUR);
    let both = with_pods(both, "n4", vec![budgeted("b", 1)]);
    check(&both, "n4", Expect::Does(Cause::DrainStart));
    check(&both, "n3", Expect::Holds(HoldReason::SharedBudget));
}

#[test]
fn what_is_not_known_of_a_running_drain_holds_the_next() {
    let unknown = beside(due_with(vec![sized("a", 100)]), Vec::new())
        .node("n5", |node| node.pods = Fact::Unknown);
    check(&unknown, "n3", Expect::Holds(HoldReason::FactsUnknown));
    // Nothing moves from here, so nothing has to be known.
    let empty =
        beside(due_with(Vec::new()), Vec::new()).node("n5", |node| node.pods = Fact::Unknown);
    check(&empty, "n3", Expect::Does(Cause::DrainStart));
}

#[test]
fn a_drain_starts_only_where_the_others_hold_its_pods() {
    check(
        &due_with(vec![sized("a", 4_000)]),
        "n3",
        Expect::Does(Cause::DrainStart),
    );
    let large = due_with(vec![sized("a", 4_001), sized("b", 100)]);
    check(&large, "n3", Expect::Holds(HoldReason::NoRoom));
    assert_eq!(
        detail(&large, "n3"),
        "9 other Nodes were looked at and have no room for shop/a (not enough cpu: 9)"
    );
    // What is left where it is, or what nobody starts again, needs no room.
    for change in [
        (|pod: &mut PodFacts| pod.empty_dir = true) as fn(&mut PodFacts),
        |pod| pod.owner = None,
        |pod| pod.finished = true,
    ] {
        let stays = due_with(vec![with(sized("a", 9_000), change)]);
        check(&stays, "n3", Expect::Does(Cause::DrainStart));
    }
    let evicted = due_with(vec![with(sized("a", 9_000), |pod| pod.owner = None)])
        .with_policy(|policy| policy.drain.unmanaged = foreshock_core::drain::Choice::Evict);
    check(&evicted, "n3", Expect::Does(Cause::DrainStart));
}

#[test]
fn no_room_holds_the_drain_and_never_the_taint_or_the_release() {
    let pods = vec![sized("a", 9_000)];
    let suspect = with_pods(confirmed(), "n3", pods.clone());
    check(&suspect, "n3", Expect::Does(Cause::Taint));
    let running = with_pods(draining(), "n3", pods.clone());
    check(&running, "n3", Expect::Drains(true));
    let well = scene()
        .marked("n3", RecordedPhase::Tainted, HOUR)
        .remember("n3", |memory| memory.well_since = Some(ago(now(), HOUR)));
    check(
        &with_pods(well, "n3", pods),
        "n3",
        Expect::Does(Cause::Release),
    );
}

#[test]
fn those_who_come_late_are_looked_at_where_the_first_have_no_room() {
    let full = |free: &str| {
        let mut scene = due_with(vec![sized("a", 3_000)]);
        let names: Vec<String> = scene.world.nodes.keys().map(ToString::to_string).collect();
        for name in names.iter().filter(|name| *name != "n3" && *name != free) {
            scene = scene.node(name, |node| {
                node.pods = Fact::Known(now(), vec![sized("x", 3_950)]);
            });
        }
        scene
    };
    for free in ["n1", "n9"] {
        check(&full(free), "n3", Expect::Does(Cause::DrainStart));
    }
    check(&full("none"), "n3", Expect::Holds(HoldReason::NoRoom));
}

#[test]
fn only_nodes_that_are_well_and_take_work_have_room() {
    let due = || only_room_on(due_with(vec![sized("a", 100)]), &["n7"]);
    check(&due(), "n3", Expect::Does(Cause::DrainStart));
    let changes: [fn(&mut foreshock_core::decision::world::NodeFacts); 5] = [
        |node| node.ready = false,
        |node| node.cordoned = true,
        |node| node.taken_by = Some("karpenter".into()),
        |node| {
            node.taints = vec![Taint {
                key: "gpu".into(),
                value: String::new(),
                effect: TaintEffect::NoSchedule,
            }]
        },
        |node| node.pods = Fact::Known(now(), vec![sized("x", 3_950)]),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let held = due().node("n7", change);
        let reason = decide(&held.policy, &held.memory, &held.world).verdicts["n3"]
            .hold()
            .map(|hold| hold.reason);
        assert_eq!(reason, Some(HoldReason::NoRoom), "change {index}");
    }
    check(
        &due().at_risk("n7", 0.7, HOUR),
        "n3",
        Expect::Holds(HoldReason::NoRoom),
    );
    let ours = due()
        .marked("n7", RecordedPhase::Tainted, HOUR)
        .score("n7", Ok(0.55));
    check(&ours, "n3", Expect::Holds(HoldReason::NoRoom));
    // One that is given back in the same plan can take them.
    let back = due()
        .marked("n7", RecordedPhase::Drained, HOUR)
        .remember("n7", |memory| memory.well_since = Some(ago(now(), HOUR)))
        .record("n7", |record| record.drain = None);
    check(&back, "n3", Expect::Does(Cause::DrainStart));
}

#[test]
fn the_same_room_is_not_given_twice() {
    // Room for one on each of two Nodes, and another drain on its way to one of them.
    let due = || only_room_on(due_with(vec![sized("a", 3_000)]), &["n7", "n8"]);
    check(
        &beside(due(), vec![sized("b", 3_000)]),
        "n3",
        Expect::Does(Cause::DrainStart),
    );
    let crowded = beside(due(), vec![sized("b", 3_000), sized("c", 3_000)]);
    check(&crowded, "n3", Expect::Holds(HoldReason::NoRoom));
    // Two that would begin at once.
    let both = only_room_on(due_with(vec![sized("a", 3_000)]), &["n7"])
        .at_risk("n4", 0.95, HOUR)
        .marked("n4", RecordedPhase::Tainted, HOUR);
    let both = with_pods(both, "n4", vec![sized("b", 3_000)]);
    check(&both, "n4", Expect::Does(Cause::DrainStart));
    check(&both, "n3", Expect::Holds(HoldReason::NoRoom));
}

#[test]
fn the_pods_of_a_few_other_nodes_are_asked_for_and_of_more_only_where_they_do_not_suffice() {
    let unknown = |scene: Scene, names: &[usize]| {
        names.iter().fold(scene, |scene, index| {
            scene.node(&format!("n{index}"), |node| node.pods = Fact::Unknown)
        })
    };
    let all = [0, 1, 2, 4, 5, 6, 7, 8, 9];
    let first = unknown(due_with(vec![sized("a", 100)]), &all);
    check(&first, "n3", Expect::Holds(HoldReason::FactsUnknown));
    assert_eq!(wants(&first), ["n0", "n1", "n2", "n3", "n4"]);
    // The four are known and suffice.
    let four = unknown(due_with(vec![sized("a", 100)]), &[5, 6, 7, 8, 9]);
    check(&four, "n3", Expect::Does(Cause::DrainStart));
    // They do not.
    let full = (0..5)
        .filter(|index| *index != 3)
        .fold(four, |scene, index| {
            with_pods(scene, &format!("n{index}"), vec![sized("x", 4_000)])
        });
    check(&full, "n3", Expect::Holds(HoldReason::FactsUnknown));
    assert_eq!(
        wants(&full),
        ["n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8"]
    );
    // What was read too long ago is asked for again.
    let old = Fact::Known(ago(now(), 2 * MINUTE), Vec::new());
    let stale = due_with(vec![sized("a", 100)]).node("n1", |node| node.pods = old);
    check(&stale, "n3", Expect::Holds(HoldReason::FactsUnknown));
}

#[test]
fn where_nothing_is_to_be_drained_nobody_is_asked() {
    let idle = scene().with_world(|world| {
        for node in world.nodes.values_mut() {
            node.pods = Fact::Unknown;
        }
    });
    assert!(wants(&idle).is_empty());
    // Nor where something else holds the drain.
    let held =
        due_with(vec![sized("a", 100)]).with_policy(|policy| policy.rules.drain_after = HOUR);
    assert_eq!(wants(&held), ["n3"]);
}

#[test]
fn in_a_large_cluster_some_are_looked_at_and_others_in_turn() {
    let large = |later: Duration| {
        let mut scene = due_with(vec![sized("a", 100)]);
        for index in 0..100 {
            let full = Fact::Known(after(now(), later), vec![sized("x", 4_000)]);
            let mut node = node(&format!("w{index:02}"));
            node.pods = full;
            scene = scene.with_node(node, Ok(0.05));
        }
        let mut scene = only_room_on(scene, &[]);
        for (name, node) in &mut scene.world.nodes {
            if name.as_str().starts_with('w') {
                node.allocatable.pods = 110;
            }
        }
        scene.world.at = after(now(), later);
        for score in scene.world.scores.values_mut() {
            score.at = scene.world.at;
        }
        scene.node("n3", |node| {
            node.pods = Fact::Known(after(now(), later), vec![sized("a", 100)]);
        })
    };
    let first = large(Duration::ZERO);
    check(&first, "n3", Expect::Holds(HoldReason::NoRoom));
    assert!(
        detail(&first, "n3").starts_with("32 other Nodes"),
        "{}",
        detail(&first, "n3")
    );
    assert_eq!(wants(&first).len(), 33);
    let later = large(10 * MINUTE);
    assert_eq!(wants(&later).len(), 33);
    assert_ne!(wants(&first), wants(&later), "others have their turn");
}

#[test]
fn room_is_looked_for_only_on_what_was_read_after_the_last_drain_had_settled() {
    let ended = |long_ago: Duration| {
        due_with(vec![sized("a", 100)])
            .at_risk("n5", 0.8, HOUR)
            .marked("n5", RecordedPhase::Drained, long_ago)
            .record("n5", |record| {
                let drain = record.drain.as_mut().expect("drained");
                drain.ended = Some((ago(now(), long_ago), NodeOutcome::Drained));
            })
    };
    let settling = ended(Duration::from_secs(2));
    check(&settling, "n3", Expect::Holds(HoldReason::FactsUnknown));
    let verdict = &decide(&settling.policy, &settling.memory, &settling.world).verdicts["n3"];
    assert_eq!(
        verdict.holds[0].until,
        Some(after(now(), Duration::from_secs(3)))
    );
    check(
        &ended(Duration::from_secs(5)),
        "n3",
        Expect::Does(Cause::DrainStart),
    );
    let read_before = ended(Duration::from_secs(20)).with_world(|world| {
        for node in world
            .nodes
            .values_mut()
            .filter(|node| node.id.name.as_str() != "n3")
        {
            node.pods = Fact::Known(ago(now(), Duration::from_secs(17)), Vec::new());
        }
    });
    check(&read_before, "n3", Expect::Holds(HoldReason::FactsUnknown));
    let decision = decide(&read_before.policy, &read_before.memory, &read_before.world);
    assert_eq!(decision.wants["n0"], ago(now(), Duration::from_secs(15)));
}

#[test]
fn what_is_assumed_counts_as_known() {
    let assumed = due_with(Vec::new()).with_world(|world| {
        for node in world.nodes.values_mut() {
            node.pods = Fact::Assumed(vec![sized("a", 100)]);
        }
    });
    check(&assumed, "n3", Expect::Does(Cause::DrainStart));
    let full = only_room_on(assumed, &[]);
    check(&full, "n3", Expect::Holds(HoldReason::NoRoom));
}
