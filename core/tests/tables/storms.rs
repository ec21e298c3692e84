//! Storms: where they are seen, what they hold, when they end, and how carefully it goes on then.

use std::sync::Arc;
use std::time::Duration;

use crate::support::timeline::{Timeline, fleet, name};
use crate::support::{HOUR, MINUTE, alert, scene};
use foreshock_core::decision::plan::Cause;
use foreshock_core::decision::policy::{Pool, PoolLimits};
use foreshock_core::decision::verdict::HoldReason;
use foreshock_core::decision::world::ScoreUnknown;
use foreshock_core::record::RecordedPhase;

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
