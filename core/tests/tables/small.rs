//! Small promises of the types that everything else stands on: names, orders, what is left of memory.

use std::collections::BTreeSet;

use foreshock_core::decision::memory::{Known, Memory, NodeMemory};
use foreshock_core::decision::plan::{Cause, MarkOrder};
use foreshock_core::decision::policy::{Limit, Reach};
use foreshock_core::decision::verdict::{HoldReason, Phase};
use foreshock_core::decision::world::{OwnWrite, ScoreUnknown};
use foreshock_core::decision::{Group, decide};
use foreshock_core::record::{
    Input, Marks, NodeRecord, Ramp, RecordedPhase, RiskLabel, Storm, Taint,
};
use foreshock_core::risk::Band;
use foreshock_core::time::{after, ago};
use jiff::SignedDuration;

use crate::support::{HOUR, MINUTE, Scene, alert, caution_taint, node, now, risk, scene, taint};

#[test]
fn every_reach_and_cause_has_the_name_that_scripts_know() {
    let reach: Vec<String> = Reach::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(reach, ["observe", "label", "taint", "evict"]);
    let named: BTreeSet<&str> = Cause::ALL.iter().map(|cause| cause.as_str()).collect();
    assert_eq!(named.len(), Cause::ALL.len());
    let begins: Vec<&str> = Cause::ALL
        .iter()
        .filter(|cause| cause.begins())
        .map(|cause| cause.as_str())
        .collect();
    assert_eq!(begins, ["taint", "caution", "drain_start"]);
}

#[test]
fn bands_meet_where_the_configuration_says() {
    let rules = scene().policy.rules;
    let band = |p: Option<f64>| rules.band(p.map(risk));
    assert_eq!(band(None), Band::Unknown);
    assert_eq!(band(Some(0.499)), Band::Healthy);
    assert_eq!(band(Some(0.5)), Band::Caution);
    assert_eq!(band(Some(0.65)), Band::Caution);
    assert_eq!(band(Some(0.651)), Band::AtRisk);
}

#[test]
fn a_change_of_caution_marks_begins_something_only_where_they_rise() {
    let id = node("n3").id;
    let record = |label: Option<RiskLabel>, taint: Option<Taint>| {
        let marks = Marks {
            label,
            caution_taint: taint,
            ..Marks::default()
        };
        Some(Box::new(NodeRecord {
            marks,
            ..NodeRecord::clear("foreshock", &id.uid, now())
        }))
    };
    let begins = |cause, expects, record| {
        let order = MarkOrder {
            node: id.clone(),
            cause,
            note: String::new(),
            expects,
            record,
        };
        order.begins()
    };
    let (caution, at_risk) = (Some(RiskLabel::Caution), Some(RiskLabel::AtRisk));
    assert!(begins(Cause::Caution, None, record(caution, None)));
    assert!(begins(
        Cause::Caution,
        record(caution, None),
        record(at_risk, None)
    ));
    assert!(begins(
        Cause::Caution,
        record(caution, None),
        record(caution, Some(caution_taint()))
    ));
    assert!(!begins(
        Cause::Caution,
        record(at_risk, None),
        record(caution, None)
    ));
    assert!(!begins(
        Cause::Caution,
        record(caution, None),
        record(caution, None)
    ));
    assert!(!begins(
        Cause::Caution,
        record(caution, Some(caution_taint())),
        record(None, None)
    ));
    assert!(begins(Cause::Taint, None, None) && begins(Cause::DrainStart, None, None));
    assert!(!begins(
        Cause::Release,
        None,
        record(at_risk, Some(caution_taint()))
    ));
}

#[test]
fn after_a_break_every_wait_begins_again_and_what_holds_stays() {
    let id = node("n3").id;
    let input = Input::Job("node".into());
    let memory = Memory {
        nodes: [(
            id.clone(),
            NodeMemory {
                at_risk_since: Some(ago(now(), MINUTE)),
                model_at_risk_since: Some(ago(now(), MINUTE)),
                well_since: Some(ago(now(), MINUTE)),
                turned_at: Some(ago(now(), MINUTE)),
                marks_seen: Some(Marks {
                    taint: Some(taint()),
                    ..Marks::default()
                }),
                caution_changed_at: Some(ago(now(), MINUTE)),
                ..NodeMemory::default()
            },
        )]
        .into(),
        storm: Some(Storm {
            since: ago(now(), HOUR),
            about: "4 of 10 Nodes".into(),
            input: None,
            calm_since: Some(ago(now(), MINUTE)),
        }),
        storm_over: Some(ago(now(), 2 * HOUR)),
        ramp: Some(Ramp {
            since: ago(now(), HOUR),
            width: 2,
            nodes: [("n3".into(), "uid".into())].into(),
        }),
        inputs: [(
            input.clone(),
            Known {
                first: Some(ago(now(), HOUR)),
                last: now(),
            },
        )]
        .into(),
    };
    let left = memory.after_a_break(SignedDuration::from_hours(3));
    let moved = |at| after(at, 3 * HOUR);
    let kept = NodeMemory {
        turned_at: Some(moved(ago(now(), MINUTE))),
        marks_seen: Some(Marks {
            taint: Some(taint()),
            ..Marks::default()
        }),
        ..NodeMemory::default()
    };
    assert_eq!(left.nodes[&id], kept);
    let storm = left.storm.expect("it is on");
    assert_eq!((storm.since, storm.calm_since), (ago(now(), HOUR), None));
    assert_eq!(storm.about, "4 of 10 Nodes");
    assert_eq!(left.storm_over, memory.storm_over);
    let ramp = left.ramp.expect("it is on");
    assert_eq!(
        (ramp.since, ramp.width, ramp.nodes.len()),
        (moved(ago(now(), HOUR)), 2, 1)
    );
    let known = &left.inputs[&input];
    assert_eq!(
        (known.first, known.last),
        (Some(moved(ago(now(), HOUR))), moved(now()))
    );
}

// ---- phases ----

fn shown(scene: &Scene) -> (Phase, jiff::Timestamp) {
    let decision = decide(&scene.policy, &scene.memory, &scene.world);
    let verdict = &decision.verdicts["n3"];
    (verdict.phase, verdict.since)
}

#[test]
fn the_phase_is_what_is_true_and_since_when() {
    let five = 5 * MINUTE;
    assert_eq!(shown(&scene()), (Phase::Healthy, now()));
    let known = scene().remember("n3", |memory| {
        memory.phase = Some((Phase::Healthy, ago(now(), HOUR)))
    });
    assert_eq!(shown(&known), (Phase::Healthy, ago(now(), HOUR)));
    let other = scene().remember("n3", |memory| {
        memory.phase = Some((Phase::Suspect, ago(now(), HOUR)))
    });
    assert_eq!(shown(&other), (Phase::Healthy, now()));
    assert_eq!(
        shown(&scene().at_risk("n3", 0.9, five)),
        (Phase::Suspect, ago(now(), five))
    );
    assert_eq!(
        shown(&scene().score("n3", Ok(0.6))),
        (Phase::Healthy, now()),
        "caution is no phase"
    );
    assert_eq!(
        shown(&scene().score("n3", Err(ScoreUnknown::NoScrape))).0,
        Phase::Healthy
    );
    let marked = |phase| scene().at_risk("n3", 0.9, MINUTE).marked("n3", phase, five);
    assert_eq!(
        shown(&marked(RecordedPhase::Tainted)),
        (Phase::Tainted, ago(now(), five))
    );
    assert_eq!(
        shown(&marked(RecordedPhase::Draining)),
        (Phase::Draining, ago(now(), five))
    );
    assert_eq!(
        shown(&marked(RecordedPhase::Drained)),
        (Phase::Drained, ago(now(), five))
    );
    for phase in [RecordedPhase::Tainted, RecordedPhase::Drained] {
        let well = scene().marked("n3", phase, HOUR).remember("n3", |memory| {
            memory.well_since = Some(ago(now(), MINUTE));
        });
        assert_eq!(shown(&well), (Phase::Recovering, ago(now(), MINUTE)));
    }
    let draining = scene().marked("n3", RecordedPhase::Draining, five);
    assert_eq!(
        shown(&draining).0,
        Phase::Draining,
        "well in the middle of a drain"
    );
}

#[test]
fn the_reach_of_a_verdict_is_that_of_what_speaks_against_the_node() {
    let reach = |scene: &Scene| {
        let decision = decide(&scene.policy, &scene.memory, &scene.world);
        decision.verdicts["n3"].reach
    };
    assert_eq!(reach(&scene()), Reach::Evict, "what the pool allows");
    assert_eq!(reach(&scene().at_risk("n3", 0.9, HOUR)), Reach::Evict);
    let untrusted = |scene: Scene| scene.with_policy(|policy| policy.model_trusted = false);
    assert_eq!(
        reach(&untrusted(scene().at_risk("n3", 0.9, HOUR))),
        Reach::Label
    );
    assert_eq!(reach(&untrusted(scene())), Reach::Evict);
    assert_eq!(
        reach(&scene().alert("n3", alert("X", 0.9, Reach::Taint))),
        Reach::Taint
    );
    // A floor at the threshold is no evidence above it.
    assert_eq!(
        reach(&scene().alert("n3", alert("X", 0.65, Reach::Taint))),
        Reach::Evict
    );
}

#[test]
fn each_reason_to_hold_is_said_once() {
    let scene = scene().at_risk("n3", 0.9, MINUTE).node("n3", |node| {
        node.cordoned = true;
        node.record = foreshock_core::record::RecordState::Foreign {
            instance: "other".into(),
        };
    });
    let decision = decide(&scene.policy, &scene.memory, &scene.world);
    let holds = &decision.verdicts["n3"].holds;
    let reasons: BTreeSet<HoldReason> = holds.iter().map(|hold| hold.reason).collect();
    assert_eq!(reasons.len(), holds.len(), "{holds:?}");
    assert!(reasons.contains(&HoldReason::ForeignMark));
}

#[test]
fn why_the_model_may_not_act_is_said_in_the_words_that_come_with_the_world() {
    let said = |why: Option<&str>| {
        let scene = scene()
            .at_risk("n3", 0.9, MINUTE)
            .with_policy(|policy| policy.model_trusted = false)
            .with_world(|world| world.untrusted = why.map(str::to_owned));
        let decision = decide(&scene.policy, &scene.memory, &scene.world);
        decision.verdicts["n3"].holds[0].detail.clone()
    };
    assert_eq!(
        said(Some("it was judged 100 days ago")),
        "the model alone may cause no more than a label: it was judged 100 days ago"
    );
    assert_eq!(
        said(None),
        "the model alone may cause no more than a label: it has proved nothing on this cluster"
    );
}

#[test]
fn what_holds_at_a_reach_is_said_at_that_reach() {
    let hold = |scene: &Scene| {
        let decision = decide(&scene.policy, &scene.memory, &scene.world);
        let holds = &decision.verdicts["n3"].holds;
        holds.iter().map(|hold| hold.reason).collect::<Vec<_>>()
    };
    // Where only an alert speaks, and not far enough, the model is not to blame.
    let by_alert = scene().alert("n3", alert("X", 0.9, Reach::Observe));
    assert_eq!(hold(&by_alert), [HoldReason::Reach]);
    // Unconfirmed comes on top of what is missing besides.
    let untrusted = |long| {
        scene()
            .at_risk("n3", 0.9, long)
            .with_policy(|policy| policy.model_trusted = false)
    };
    assert_eq!(
        hold(&untrusted(MINUTE / 2)),
        [HoldReason::Untrained, HoldReason::Unconfirmed]
    );
    assert_eq!(hold(&untrusted(MINUTE)), [HoldReason::Untrained]);
    let pods = |scene: &Scene| {
        let decision = decide(&scene.policy, &scene.memory, &scene.world);
        decision
            .wants
            .keys()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(pods(&scene().at_risk("n3", 0.9, MINUTE)), ["n3"]);
    let label = scene()
        .at_risk("n3", 0.9, MINUTE)
        .with_policy(|policy| policy.rules.reach = Reach::Label);
    assert_eq!(
        pods(&label),
        Vec::<String>::new(),
        "nothing is read for what is never drained"
    );
}

// ---- counting ----

#[test]
fn a_node_that_is_its_own_limit_does_not_stand_in_its_own_way() {
    let failed = |taints, drains| OwnWrite::Failed {
        problem: "timeout".into(),
        retry_at: now(),
        taints,
        drains,
    };
    let does = |scene: &Scene| {
        let decision = decide(&scene.policy, &scene.memory, &scene.world);
        let marks = decision.plan.marks.iter();
        // Labels follow the band of a Node that is held back from more.
        let marks = marks.filter(|order| order.cause != Cause::Caution);
        marks
            .map(|order| (order.node.name.to_string(), order.cause))
            .collect::<Vec<_>>()
    };
    let zoned = |scene: Scene| {
        scene
            .node("n3", |node| node.zone = Some("a".into()))
            .with_policy(|policy| {
                policy.limits.tainted_max = Limit::Count(1);
                policy.limits.zone_tainted_max = Some(Limit::Count(1));
                policy.limits.draining_max = Limit::Count(1);
                policy.limits.zone_draining_max = Some(Limit::Count(1));
            })
    };
    let again = zoned(scene().at_risk("n3", 0.9, MINUTE)).with_world(|world| {
        world.writes.insert("n3".into(), failed(true, false));
    });
    assert_eq!(does(&again), [("n3".to_owned(), Cause::Taint)]);
    let again = zoned(scene().at_risk("n3", 0.9, MINUTE).marked(
        "n3",
        RecordedPhase::Tainted,
        2 * MINUTE,
    ))
    .with_world(|world| {
        world.writes.insert("n3".into(), failed(false, true));
    });
    assert_eq!(does(&again), [("n3".to_owned(), Cause::DrainStart)]);
    // Another's counts, in the cluster and in the zone.
    let other = |scene: Scene| {
        scene
            .node("n7", |node| node.zone = Some("a".into()))
            .with_world(|world| {
                world.writes.insert("n7".into(), failed(true, false));
            })
    };
    assert_eq!(does(&other(zoned(scene().at_risk("n3", 0.9, MINUTE)))), []);
    let wide = other(zoned(scene().at_risk("n3", 0.9, MINUTE)))
        .with_policy(|policy| policy.limits.tainted_max = Limit::Count(5));
    assert_eq!(does(&wide), [], "the zone is full");
}

#[test]
fn what_is_given_back_is_free_for_the_next_in_the_same_plan() {
    let released = scene()
        .marked("n5", RecordedPhase::Drained, HOUR)
        .remember("n5", |memory| memory.well_since = Some(ago(now(), HOUR)))
        .at_risk("n3", 0.9, MINUTE)
        .node("n3", |node| node.zone = Some("a".into()))
        .node("n5", |node| node.zone = Some("a".into()))
        .with_policy(|policy| {
            policy.limits.tainted_max = Limit::Count(1);
            policy.limits.zone_tainted_max = Some(Limit::Count(1));
        });
    let decision = decide(&released.policy, &released.memory, &released.world);
    let done: Vec<(String, Cause)> = decision
        .plan
        .marks
        .iter()
        .map(|order| (order.node.name.to_string(), order.cause))
        .collect();
    assert_eq!(
        done,
        [
            ("n5".to_owned(), Cause::Release),
            ("n3".to_owned(), Cause::Taint)
        ]
    );
    assert_eq!(decision.usage.tainted, 1);
    let zone_a = Group::Zone(Some("a".to_owned()));
    let zones: Vec<usize> = decision
        .usage
        .groups
        .iter()
        .filter(|group| group.limit == "tainted_max" && group.group == zone_a)
        .map(|group| group.used)
        .collect();
    assert_eq!(zones, [1], "{:?}", decision.usage.groups);
}

#[test]
fn phases_and_holds_have_the_names_that_scripts_know() {
    let phases: Vec<String> = Phase::ALL.iter().map(ToString::to_string).collect();
    let known = [
        "healthy",
        "suspect",
        "tainted",
        "draining",
        "drained",
        "recovering",
    ];
    assert_eq!(phases, known);
    let words: Vec<&str> = Phase::ALL.iter().map(|phase| phase.as_str()).collect();
    assert_eq!(words, known);
    let holds: Vec<String> = HoldReason::ALL.iter().map(ToString::to_string).collect();
    let known = [
        "paused",
        "excluded",
        "hold_until",
        "foreign_mark",
        "veto",
        "control_plane",
        "new_node",
        "blinded_by_taint",
        "unknown",
        "storm",
        "reach",
        "untrained",
        "drift",
        "repeat_offender",
        "unconfirmed",
        "drain_after",
        "window",
        "last_node",
        "tainted_max",
        "draining_max",
        "drains_per_hour",
        "no_room",
        "shared_budget",
        "facts_unknown",
        "drain_failed",
        "write_failed",
        "drained",
        "recovering",
    ];
    assert_eq!(holds, known);
    let words: Vec<&str> = HoldReason::ALL.iter().map(|hold| hold.as_str()).collect();
    assert_eq!(words, known);
}
