//! Storms: where they are seen, what they hold, when they end, and how carefully it goes on then.

use std::sync::Arc;
use std::time::Duration;

use crate::support::timeline::{Timeline, fleet, name};
use crate::support::{HOUR, MINUTE, Scene, alert, now, scene};
use foreshock_core::decision::decide;
use foreshock_core::decision::memory::Known;
use foreshock_core::decision::plan::Cause;
use foreshock_core::decision::policy::{Pool, PoolLimits};
use foreshock_core::decision::verdict::HoldReason;
use foreshock_core::decision::world::ScoreUnknown;
use foreshock_core::record::{Input, Ramp, RecordedPhase, Storm};
use foreshock_core::time::ago;

#[test]
fn forty_per_cent_at_once_is_a_storm_for_as_long_as_it_lasts_and_ends_in_a_ramp() {
    let mut line = Timeline::new(fleet(100).marked("n99", RecordedPhase::Drained, HOUR));
    line.run(MINUTE);
    for n in 0..40 {
        line.risk(&name(n), 0.9);
    }
    line.run(6 * HOUR);
    assert_eq!(line.storm(), Some("40 of 100 Nodes"));
    assert_eq!(line.count(Cause::Taint) + line.count(Cause::DrainStart), 0);
    assert_eq!(
        line.nodes(Cause::Release),
        ["n99"],
        "a Node that is well is given back in the middle of it"
    );

    for n in 15..40 {
        line.risk(&name(n), 0.05);
    }
    line.run(4 * HOUR);
    assert_eq!(line.storm(), None);
    assert_eq!(line.count(Cause::Drained), 15, "{:?}", line.log);
    // Every drain of one width has ended before the first taint of the next.
    let mut widths = Vec::new();
    let mut open = 0_usize;
    for begun in &line.log {
        match begun.cause {
            Cause::Taint if open == 0 => {
                widths.push(1);
                open += 1;
            }
            Cause::Taint => {
                *widths.last_mut().expect("a width is open") += 1;
                open += 1;
            }
            Cause::Drained => open = open.saturating_sub(1),
            _ => {}
        }
    }
    assert_eq!(widths, [1, 2, 4, 8]);
    assert_eq!(
        line.ramp(),
        None,
        "then the usual limits are the narrower ones"
    );

    for n in 0..15 {
        line.risk(&name(n), 0.05);
    }
    line.run(HOUR);
    assert_eq!(line.count(Cause::Release), 16, "everything is given back");
}

#[test]
fn a_storm_in_one_zone_holds_the_whole_cluster() {
    let mut line = Timeline::new(fleet(60));
    line.run(MINUTE);
    // 6 of 60 is no storm of the cluster; 6 of the 20 of its zone is one.
    for n in (0..18).step_by(3) {
        line.risk(&name(n), 0.9);
    }
    line.run(10 * MINUTE);
    assert_eq!(line.storm(), Some("zone a: 6 of 20 Nodes"));
    assert_eq!(line.count(Cause::Taint), 0);
}

#[test]
fn a_storm_in_one_pool_holds_the_whole_cluster() {
    let mut scene = fleet(60).with_policy(|policy| {
        policy.pools = vec![Pool {
            name: "gpu".into(),
            rules: policy.rules.clone(),
            limits: PoolLimits::default(),
        }];
    });
    for n in 0..9 {
        scene = scene.node(&name(n), |node| node.pool = Some("gpu".into()));
    }
    let mut line = Timeline::new(scene);
    line.run(MINUTE);
    for n in [0, 1, 2] {
        line.risk(&name(n), 0.9);
    }
    line.run(10 * MINUTE);
    assert_eq!(line.storm(), Some("pool gpu: 3 of 9 Nodes"));
    assert_eq!(line.count(Cause::Taint), 0);
}

#[test]
fn positives_that_share_a_new_exporter_are_a_storm_however_slowly_they_come() {
    let mut scene = fleet(60);
    for score in scene.world.scores.values_mut() {
        score.inputs.exporter = Some("1.11.0".into());
        score.inputs.model = "m1".into();
    }
    let mut line = Timeline::new(scene);
    // A day on, nothing of this is new any more.
    line.scene.world.at = foreshock_core::time::after(line.scene.world.at, 25 * HOUR);
    line.step();
    line.scene.world.at = foreshock_core::time::after(line.scene.world.at, 25 * HOUR);
    line.step();
    for n in 0..6 {
        let score = line
            .scene
            .world
            .scores
            .get_mut(name(n).as_str())
            .expect("scored");
        score.inputs.exporter = Some(Arc::from("1.12.0"));
        // Not all that have it are at risk by it, and never three within the window.
        if n % 2 == 0 {
            line.risk(&name(n), 0.9);
        }
        line.run(6 * MINUTE);
    }
    assert_eq!(
        line.storm(),
        Some("3 of 5 Nodes, all by node_exporter 1.12.0, which is new")
    );
    let last = line.last.as_ref().and_then(|last| last.storm.as_ref());
    assert_eq!(
        last.and_then(|storm| storm.input.as_ref()),
        Some(&Input::Exporter("1.12.0".into())),
        "so that it is looked for later too"
    );
    let drained = line.count(Cause::DrainStart);
    line.run(6 * HOUR);
    assert!(line.storm().is_some(), "it lasts as long as its cause");
    assert_eq!(line.count(Cause::DrainStart), drained);
}

#[test]
fn a_rule_that_is_new_and_speaks_against_everybody_is_a_storm() {
    let mut line = Timeline::new(fleet(60));
    line.run(MINUTE);
    for n in 0..13 {
        let scene = std::mem::replace(&mut line.scene, scene());
        let mut wrong = alert(
            "BadRule",
            0.9,
            foreshock_core::decision::policy::Reach::Evict,
        );
        wrong.fingerprint = format!("fp-{n}");
        wrong.starts_at = scene.world.at;
        wrong.expires_at = foreshock_core::time::after(scene.world.at, 24 * HOUR);
        line.scene = scene.alert(&name(n), wrong);
        line.run(6 * MINUTE);
    }
    assert_eq!(
        line.storm(),
        Some("13 of 60 Nodes, all by alert BadRule, which is new")
    );
}

#[test]
fn falling_silent_does_not_end_a_storm() {
    let mut line = Timeline::new(fleet(20));
    line.run(MINUTE);
    for n in 0..8 {
        line.risk(&name(n), 0.9);
    }
    line.run(10 * MINUTE);
    assert!(line.storm().is_some());
    for score in line.scene.world.scores.values_mut() {
        score.risk = Err(ScoreUnknown::NoScrape);
    }
    line.run(2 * HOUR);
    assert!(line.storm().is_some(), "nobody said that they are well");
}

#[test]
fn one_bad_node_is_acted_on_in_small_clusters() {
    for count in [3, 4, 10] {
        let mut line = Timeline::new(fleet(count));
        line.run(MINUTE);
        line.risk("n01", 0.9);
        line.run(10 * MINUTE);
        assert_eq!(line.nodes(Cause::Drained), ["n01"], "of {count} Nodes");
    }
}

fn after_a_storm(count: usize, bad: usize) -> Timeline {
    let mut line = Timeline::new(fleet(count));
    line.run(MINUTE);
    for n in 0..count / 2 {
        line.risk(&name(n), 0.9);
    }
    line.run(10 * MINUTE);
    for n in bad..count / 2 {
        line.risk(&name(n), 0.05);
    }
    line
}

#[test]
fn a_drain_that_fails_does_not_widen_the_ramp() {
    let mut line = after_a_storm(100, 15);
    line.drains_fail.insert("n00".into());
    line.run(8 * MINUTE);
    assert_eq!(line.nodes(Cause::Taint), ["n00", "n01"]);
    assert_eq!(line.ramp(), Some(1), "after a failure it stays as narrow");
    line.run(5 * MINUTE);
    assert!(line.ramp() > Some(1), "and widens with the next good end");
}

#[test]
fn the_ramp_survives_a_restart() {
    let mut line = after_a_storm(100, 15);
    while line.count(Cause::Drained) < 3 {
        line.run(Duration::from_secs(15));
        assert!(line.elapsed() < 5 * HOUR);
    }
    line.run(MINUTE);
    let width = line.ramp();
    let begun = line.count(Cause::Taint);
    line.restart();
    line.step();
    assert_eq!(line.ramp(), width);
    line.step();
    assert_eq!(line.count(Cause::Taint), begun, "nothing is begun for it");
}

#[test]
fn a_storm_in_the_middle_of_a_ramp_begins_it_anew() {
    let mut line = after_a_storm(100, 15);
    line.run(12 * MINUTE);
    assert!(line.ramp() >= Some(2));
    for n in 50..90 {
        line.risk(&name(n), 0.9);
    }
    line.run(2 * MINUTE);
    assert!(line.storm().is_some());
    assert_eq!(line.ramp(), None);
    for n in 50..90 {
        line.risk(&name(n), 0.05);
    }
    line.run(Duration::from_secs(5 * 60 + 15));
    assert_eq!(line.storm(), None);
    assert_eq!(line.ramp(), Some(1));
}

#[test]
fn a_ramp_that_nobody_needs_ends() {
    let mut line = after_a_storm(100, 0);
    line.run(10 * MINUTE);
    assert_eq!(line.ramp(), Some(1));
    line.run(HOUR);
    assert_eq!(line.ramp(), None);
    let record = line.scene.world.cluster.as_ref().expect("written");
    assert_eq!((&record.ramp, &record.storm), (&None, &None));
}

#[test]
fn who_waits_for_the_ramp_is_told_for_whom() {
    let mut line = after_a_storm(100, 15);
    while line.count(Cause::Taint) == 0 {
        assert!(line.elapsed() < 5 * HOUR);
        line.step();
        line.scene.world.at = foreshock_core::time::after(line.scene.world.at, MINUTE / 4);
    }
    let decision = line.last.as_ref().expect("decided");
    let waits = decision.verdicts["n05"].hold().expect("held");
    assert_eq!(waits.reason, HoldReason::Storm);
    assert_eq!(
        waits.detail,
        "after a storm Nodes are begun on 1 at a time; first n00 must have come to an end"
    );
}

/// So many of twenty Nodes that have just turned at risk, by a model that has been there for long.
fn turned(count: usize) -> Scene {
    let mut scene = fleet(20);
    for score in scene.world.scores.values_mut() {
        score.inputs.model = "m1".into();
    }
    let old = Known {
        first: None,
        last: now(),
    };
    scene.memory.inputs.insert(Input::Model("m1".into()), old);
    for n in 0..count {
        let name = name(n);
        scene = scene
            .at_risk(&name, 0.9, MINUTE)
            .remember(&name, |memory| memory.turned_at = Some(ago(now(), MINUTE)));
    }
    scene
}

fn about(scene: &Scene) -> Option<String> {
    let decision = decide(&scene.policy, &scene.memory, &scene.world);
    decision.storm.map(|storm| storm.about)
}

fn seen(scene: &mut Scene, input: Input, first: jiff::Timestamp) {
    let known = Known {
        first: Some(first),
        last: now(),
    };
    scene.memory.inputs.insert(input, known);
}

fn with_alert(mut scene: Scene, count: usize, floor: f64) -> Scene {
    for n in 0..count {
        let reach = foreshock_core::decision::policy::Reach::Evict;
        scene = scene.alert(&name(n), alert("NewRule", floor, reach));
    }
    scene
}

#[test]
fn a_share_is_a_storm_only_above_the_threshold_and_the_least_number() {
    assert_eq!(about(&turned(4)), None, "4 of 20 is just 20 %");
    assert_eq!(about(&turned(5)).as_deref(), Some("5 of 20 Nodes"));
    let careless = turned(5).with_policy(|policy| policy.limits.storm_min = 6);
    assert_eq!(about(&careless), None);
}

#[test]
fn a_storm_is_about_what_explains_it_best() {
    // A new model that all Nodes have explains no more than the cluster.
    let mut new_model = turned(5);
    seen(
        &mut new_model,
        Input::Model("m1".into()),
        ago(now(), 2 * MINUTE),
    );
    assert_eq!(about(&new_model).as_deref(), Some("5 of 20 Nodes"));
    // Where more are at risk by it than have turned of late, the exporter that only they have does.
    let slow = |scene: Scene| {
        let mut scene = scene;
        for n in 0..5 {
            scene = scene.remember(&name(n), |memory| memory.turned_at = Some(ago(now(), HOUR)));
            let score = scene
                .world
                .scores
                .get_mut(name(n).as_str())
                .expect("scored");
            score.inputs.exporter = Some("1.12.0".into());
        }
        seen(&mut scene, Input::Model("m1".into()), ago(now(), 2 * HOUR));
        seen(
            &mut scene,
            Input::Exporter("1.12.0".into()),
            ago(now(), 2 * HOUR),
        );
        scene
    };
    assert_eq!(
        about(&slow(turned(5))).as_deref(),
        Some("5 of 5 Nodes, all by node_exporter 1.12.0, which is new")
    );
    // An alert is no input that everybody has, though its share is of all Nodes.
    let mut rule = with_alert(turned(5), 5, 0.9);
    for n in 0..5 {
        rule = rule.remember(&name(n), |memory| memory.turned_at = Some(ago(now(), HOUR)));
    }
    seen(&mut rule, Input::Model("m1".into()), ago(now(), 2 * HOUR));
    seen(
        &mut rule,
        Input::Alert("NewRule".into()),
        ago(now(), 2 * HOUR),
    );
    assert_eq!(
        about(&rule).as_deref(),
        Some("5 of 20 Nodes, all by alert NewRule, which is new")
    );
}

#[test]
fn an_input_is_new_for_a_day_and_speaks_only_against_what_turned_after_it() {
    let at_risk_since = |ago_: Duration, first: Duration| {
        let mut scene = with_alert(fleet(20), 5, 0.9);
        for n in 0..5 {
            scene = scene.remember(&name(n), |memory| memory.turned_at = Some(ago(now(), ago_)));
        }
        seen(
            &mut scene,
            Input::Alert("NewRule".into()),
            ago(now(), first),
        );
        about(&scene)
    };
    let day = 24 * HOUR;
    let millisecond = Duration::from_millis(1);
    assert!(at_risk_since(HOUR, day).is_some());
    assert_eq!(
        at_risk_since(HOUR, day + millisecond),
        None,
        "no longer new"
    );
    assert!(at_risk_since(HOUR, HOUR).is_some());
    assert_eq!(
        at_risk_since(HOUR + millisecond, HOUR),
        None,
        "it was not there"
    );
    // A floor at the threshold puts nobody at risk.
    let at_it = with_alert(fleet(20), 5, 0.65);
    let decision = decide(&at_it.policy, &at_it.memory, &at_it.world);
    assert!(
        !decision
            .memory
            .inputs
            .contains_key(&Input::Alert("NewRule".into()))
    );
    let over_it = with_alert(fleet(20), 5, 0.66);
    let decision = decide(&over_it.policy, &over_it.memory, &over_it.world);
    assert!(
        decision
            .memory
            .inputs
            .contains_key(&Input::Alert("NewRule".into()))
    );
}

#[test]
fn inputs_are_kept_for_sixty_days_and_a_thousand_of_them() {
    let day = 24 * HOUR;
    let kept = |last: Duration| {
        let mut scene = fleet(3);
        let known = Known {
            first: None,
            last: ago(now(), last),
        };
        scene
            .memory
            .inputs
            .insert(Input::Alert("Old".into()), known);
        let decision = decide(&scene.policy, &scene.memory, &scene.world);
        decision
            .memory
            .inputs
            .contains_key(&Input::Alert("Old".into()))
    };
    assert!(kept(60 * day - Duration::from_millis(1)));
    assert!(!kept(60 * day));

    // One place is taken by the model that all scores are from.
    let many = |count: usize| {
        let mut scene = fleet(3);
        for n in 0..count {
            let known = Known {
                first: None,
                last: ago(now(), Duration::from_secs(60 + n as u64)),
            };
            let input = Input::Alert(format!("A{n}"));
            scene.memory.inputs.insert(input, known);
        }
        decide(&scene.policy, &scene.memory, &scene.world)
            .memory
            .inputs
    };
    assert_eq!(many(999).len(), 1_000);
    let all = many(1_000);
    assert_eq!(all.len(), 1_000);
    assert!(
        !all.contains_key(&Input::Alert("A999".into())),
        "the one unused for longest goes"
    );
    assert!(all.contains_key(&Input::Alert("A998".into())));
}

fn stormy(mut scene: Scene, calm_since: Option<jiff::Timestamp>) -> Scene {
    scene.memory.storm = Some(Storm {
        since: ago(now(), HOUR),
        about: "8 of 20 Nodes".into(),
        input: None,
        calm_since,
    });
    scene
}

fn calm(scene: &Scene) -> Option<Option<jiff::Timestamp>> {
    let decision = decide(&scene.policy, &scene.memory, &scene.world);
    decision.storm.map(|storm| storm.calm_since)
}

#[test]
fn a_storm_ends_after_a_window_of_calm_in_which_half_of_the_nodes_are_heard() {
    assert_eq!(calm(&stormy(fleet(20), None)), Some(Some(now())));
    let millisecond = Duration::from_millis(1);
    let nearly = ago(now(), 5 * MINUTE - millisecond);
    assert_eq!(calm(&stormy(fleet(20), Some(nearly))), Some(Some(nearly)));
    assert_eq!(
        calm(&stormy(fleet(20), Some(ago(now(), 5 * MINUTE)))),
        None,
        "it is over"
    );
    assert_eq!(
        calm(&stormy(turned(5), Some(nearly))),
        Some(None),
        "many at risk again: the calm begins anew"
    );
    let silent = |count: usize| {
        let mut scene = stormy(fleet(20), Some(nearly));
        for n in 0..count {
            scene = scene.score(&name(n), Err(ScoreUnknown::NoScrape));
        }
        calm(&scene)
    };
    assert_eq!(silent(10), Some(Some(nearly)));
    assert_eq!(silent(11), Some(None), "in the dark nothing is calm");
}

#[test]
fn a_storm_of_the_lease_goes_on_without_its_calm_and_ends_once() {
    let recorded = |over: bool| {
        let mut scene = fleet(20);
        let storm = Storm {
            since: ago(now(), HOUR),
            about: "8 of 20 Nodes".into(),
            input: None,
            calm_since: Some(ago(now(), 10 * MINUTE)),
        };
        scene.memory.storm_over = over.then_some(storm.since);
        let cluster = scene.world.cluster.as_mut().expect("known");
        cluster.storm = Some(storm);
        calm(&scene)
    };
    assert_eq!(
        recorded(false),
        Some(Some(now())),
        "what another saw of calm is not trusted"
    );
    assert_eq!(recorded(true), None);
}

#[test]
fn a_place_with_a_long_name_is_cut_and_one_with_a_strange_one_is_plain() {
    let zoned = |zone: &str| {
        let mut scene = turned(5);
        for n in 0..6 {
            scene = scene.node(&name(n), |node| node.zone = Some(zone.into()));
        }
        // More of the zone than of the cluster have turned: only its share is over the threshold.
        scene.policy.limits.storm_share = 0.5;
        about(&scene).expect("a storm of the zone")
    };
    assert_eq!(zoned("a\nb\u{7f}  c"), "zone a b c: 5 of 6 Nodes");
    let long = zoned(&"z".repeat(300));
    assert_eq!(long.len(), Storm::ABOUT_MAX - 2);
    assert!(long.starts_with("zone zzz"));
}

#[test]
fn what_carries_our_taint_is_settled_and_what_only_has_a_record_is_not() {
    let marked = |on_the_node: bool| {
        let mut scene = stormy(turned(5), None);
        for n in 0..5 {
            scene = scene.marked(&name(n), RecordedPhase::Tainted, HOUR);
            if !on_the_node {
                scene = scene.node(&name(n), |node| node.taints.clear());
            }
        }
        calm(&scene)
    };
    assert_eq!(
        marked(true),
        Some(Some(now())),
        "what is marked is dealt with"
    );
    assert_eq!(
        marked(false),
        Some(None),
        "a person has taken the taints off"
    );
}

#[test]
fn a_ramp_of_width_nothing_is_taken_as_one() {
    let mut scene = turned(1);
    let cluster = scene.world.cluster.as_mut().expect("known");
    cluster.ramp = Some(Ramp {
        since: ago(now(), MINUTE),
        width: 0,
        nodes: [].into(),
    });
    let decision = decide(&scene.policy, &scene.memory, &scene.world);
    assert_eq!(decision.memory.ramp.map(|ramp| ramp.width), Some(1));
}
