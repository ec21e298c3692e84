//! Pools, zones, maintenance windows and drifted inputs: who may be acted on, how far, and when.

use std::time::Duration;

use crate::support::{HOUR, MINUTE, Scene, alert, now, risk, scene};
use foreshock_core::decision::plan::Cause;
use foreshock_core::decision::policy::{Limit, Policy, Pool, PoolLimits, Reach};
use foreshock_core::decision::verdict::{Hold, HoldReason};
use foreshock_core::decision::window::Window;
use foreshock_core::decision::{audit::audit, decide};
use foreshock_core::record::{RecordedPhase, RiskLabel};
use foreshock_core::time::{after, ago};
use jiff::civil::{Weekday, time};
use jiff::tz::TimeZone;

/// What is begun, released or held, by Node.
#[track_caller]
fn outcome(scene: &Scene) -> Vec<(String, Result<Cause, HoldReason>)> {
    let decision = decide(&scene.policy, &scene.memory, &scene.world);
    audit(
        &scene.policy,
        &decision.memory,
        &scene.world,
        decision.plan.clone(),
    )
    .expect("the audit passes what the planner plans");
    decision
        .verdicts
        .iter()
        .filter_map(|(name, verdict)| {
            let order = decision
                .plan
                .marks
                .iter()
                .find(|order| order.node.name == *name && order.cause != Cause::Caution);
            let outcome = match (order, verdict.hold()) {
                (Some(order), _) => Ok(order.cause),
                (None, Some(hold)) => Err(hold.reason),
                (None, None) => return None,
            };
            Some((name.to_string(), outcome))
        })
        .collect()
}

#[track_caller]
fn check(scene: &Scene, expected: &[(&str, Result<Cause, HoldReason>)]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, outcome)| ((*name).to_owned(), *outcome))
        .collect();
    assert_eq!(outcome(scene), expected);
}

fn hold_of(scene: &Scene, name: &str) -> Hold {
    let decision = decide(&scene.policy, &scene.memory, &scene.world);
    decision.verdicts[name].hold().expect("held").clone()
}

/// Twelve Nodes that may all be tainted and drained as far as the cluster is concerned.
fn wide() -> Scene {
    let mut scene = scene();
    for name in ["n10", "n11"] {
        scene = scene.with_node(crate::support::node(name), Ok(0.05));
    }
    scene.with_policy(|policy| {
        policy.limits.tainted_max = Limit::Count(12);
        policy.limits.draining_max = Limit::Count(12);
        policy.limits.drains_per_hour = 100;
        policy.limits.storm_min = 50;
    })
}

fn with_pool(scene: Scene, nodes: &[&str], change: impl FnOnce(&mut Pool)) -> Scene {
    let mut scene = scene.with_policy(|policy: &mut Policy| {
        let mut pool = Pool {
            name: "gpu".into(),
            rules: policy.rules.clone(),
            limits: PoolLimits::default(),
        };
        change(&mut pool);
        policy.pools.push(pool);
    });
    for name in nodes {
        scene = scene.node(name, |node| node.pool = Some("gpu".into()));
    }
    scene
}

// ---- pools ----

#[test]
fn a_pool_may_reach_less_or_more_than_the_others() {
    let bad = || wide().at_risk("n1", 0.9, MINUTE).at_risk("n2", 0.9, MINUTE);
    check(
        &with_pool(bad(), &["n1"], |pool| pool.rules.reach = Reach::Label),
        &[("n1", Err(HoldReason::Reach)), ("n2", Ok(Cause::Taint))],
    );
    let observing = bad().with_policy(|policy| policy.rules.reach = Reach::Observe);
    check(
        &with_pool(observing, &["n1"], |pool| pool.rules.reach = Reach::Taint),
        &[("n1", Ok(Cause::Taint)), ("n2", Err(HoldReason::Reach))],
    );
}

#[test]
fn a_pool_has_thresholds_and_taints_of_its_own() {
    let scene = with_pool(
        wide().at_risk("n1", 0.6, MINUTE).at_risk("n2", 0.6, MINUTE),
        &["n1"],
        |pool| {
            pool.rules.at_risk = risk(0.55);
            pool.rules.taint.key = "gpu-degradation".into();
        },
    );
    let decision = decide(&scene.policy, &scene.memory, &scene.world);
    let order = decision
        .plan
        .marks
        .iter()
        .find(|order| order.cause == Cause::Taint)
        .expect("n1 is at risk by its pool");
    assert_eq!(order.node.name.as_str(), "n1");
    assert_eq!(order.taints_added()[0].key, "gpu-degradation");
    check(&scene, &[("n1", Ok(Cause::Taint))]);
}

#[test]
fn the_limits_of_a_pool_apply_besides_those_of_the_cluster() {
    let bad = |scene: Scene| {
        scene
            .at_risk("n1", 0.9, MINUTE)
            .at_risk("n2", 0.8, MINUTE)
            .at_risk("n3", 0.7, MINUTE)
    };
    let pool = ["n1", "n2", "n4", "n5"];
    // A quarter of the pool's four Nodes is one.
    let limited = with_pool(bad(wide()), &pool, |pool| {
        pool.limits.tainted_max = Some(Limit::Percent(25.0));
    });
    check(
        &limited,
        &[
            ("n1", Ok(Cause::Taint)),
            ("n2", Err(HoldReason::TaintedMax)),
            ("n3", Ok(Cause::Taint)),
        ],
    );
    assert_eq!(
        hold_of(&limited, "n2").detail,
        "pool gpu: 1 of 1 Nodes tainted (policy.limits, tainted_max = 25%)"
    );
    let tainted = |scene: Scene| {
        ["n1", "n2", "n3"].iter().fold(bad(scene), |scene, name| {
            scene.marked(name, RecordedPhase::Tainted, 2 * MINUTE)
        })
    };
    check(
        &with_pool(tainted(wide()), &pool, |pool| {
            pool.limits.draining_max = Some(Limit::Count(1));
        }),
        &[
            ("n1", Ok(Cause::DrainStart)),
            ("n2", Err(HoldReason::DrainingMax)),
            ("n3", Ok(Cause::DrainStart)),
        ],
    );
    // A drain of a Node that is gone may have been one of the pool's.
    for (drained, allowed) in [("n5", false), ("gone", false), ("n9", true)] {
        let scene = with_pool(tainted(wide()), &pool, |pool| {
            pool.limits.drains_per_hour = Some(1);
        })
        .with_world(|world| {
            let cluster = world.cluster.as_mut().expect("the scene has one");
            cluster
                .drains
                .insert((ago(now(), MINUTE), drained.into()), "uid".into());
        });
        let first = if allowed {
            Ok(Cause::DrainStart)
        } else {
            Err(HoldReason::DrainsPerHour)
        };
        check(
            &scene,
            &[
                ("n1", first),
                ("n2", Err(HoldReason::DrainsPerHour)),
                ("n3", Ok(Cause::DrainStart)),
            ],
        );
    }
}

// ---- zones ----

fn zoned(scene: Scene) -> Scene {
    let names: Vec<String> = scene.world.nodes.keys().map(ToString::to_string).collect();
    names.iter().enumerate().fold(scene, |scene, (n, name)| {
        let zone = ["a", "b", "c"][n % 3].to_owned();
        scene.node(name, |node| node.zone = Some(zone))
    })
}

#[test]
fn a_zone_has_limits_of_its_own() {
    // n0 a, n1 b, n10 c, n11 a, n2 b, n3 c, …
    let bad = zoned(wide())
        .at_risk("n0", 0.9, MINUTE)
        .at_risk("n11", 0.8, MINUTE)
        .at_risk("n2", 0.7, MINUTE);
    let limited = bad
        .clone()
        .with_policy(|policy| policy.limits.zone_tainted_max = Some(Limit::Percent(25.0)));
    check(
        &limited,
        &[
            ("n0", Ok(Cause::Taint)),
            ("n11", Err(HoldReason::TaintedMax)),
            ("n2", Ok(Cause::Taint)),
        ],
    );
    assert_eq!(
        hold_of(&limited, "n11").detail,
        "zone a: 1 of 1 Nodes tainted (policy.limits, zone_tainted_max = 25%)"
    );
    let tainted = ["n0", "n11", "n2"].iter().fold(bad, |scene, name| {
        scene.marked(name, RecordedPhase::Tainted, 2 * MINUTE)
    });
    check(
        &tainted.with_policy(|policy| policy.limits.zone_draining_max = Some(Limit::Count(1))),
        &[
            ("n0", Ok(Cause::DrainStart)),
            ("n11", Err(HoldReason::DrainingMax)),
            ("n2", Ok(Cause::DrainStart)),
        ],
    );
}

#[test]
fn nodes_without_a_zone_share_one_limit() {
    let scene = wide()
        .at_risk("n1", 0.9, MINUTE)
        .at_risk("n2", 0.8, MINUTE)
        .with_policy(|policy| policy.limits.zone_tainted_max = Some(Limit::Count(1)));
    check(
        &scene,
        &[
            ("n1", Ok(Cause::Taint)),
            ("n2", Err(HoldReason::TaintedMax)),
        ],
    );
    assert!(
        hold_of(&scene, "n2")
            .detail
            .starts_with("Nodes without a zone: 1 of 1")
    );
}

#[test]
fn a_share_is_rounded_down_and_at_least_one_also_in_small_clusters() {
    for (nodes, percent, tainted) in [
        (1, 100.0, 0), // the last Node that can take work
        (2, 10.0, 1),
        (3, 10.0, 1),
        (3, 66.0, 1),
        (3, 67.0, 2),
    ] {
        let mut scene = wide().with_world(|world| {
            world.nodes.retain(|name, _| {
                name.as_str().len() == 2
                    && name.as_str()[1..].parse::<usize>().is_ok_and(|n| n < nodes)
            });
        });
        scene.policy.limits.tainted_max = Limit::Percent(percent);
        for n in 0..nodes {
            scene = scene.at_risk(&format!("n{n}"), 0.9 - 0.01 * n as f64, MINUTE);
        }
        // One is well, or nothing could take the work.
        if nodes > 1 {
            let last = format!("n{}", nodes - 1);
            scene = scene.score(&last, Ok(0.05)).remember(&last, |memory| {
                memory.at_risk_since = None;
                memory.model_at_risk_since = None;
            });
        }
        let decision = decide(&scene.policy, &scene.memory, &scene.world);
        let count = decision
            .plan
            .marks
            .iter()
            .filter(|order| order.cause == Cause::Taint)
            .count();
        assert_eq!(count, tainted, "{percent} % of {nodes}");
    }
}

// ---- windows ----

fn window(days: &[Weekday], from: (i8, i8), to: (i8, i8), zone: &str) -> Window {
    Window {
        days: days.to_vec(),
        from: time(from.0, from.1, 0, 0),
        to: time(to.0, to.1, 0, 0),
        time_zone: TimeZone::posix(zone).expect("a time zone"),
    }
}

#[test]
fn outside_the_windows_no_drain_starts_and_taints_are_set_all_the_same() {
    // It is Sunday, 12:00 UTC.
    let closed = window(&[Weekday::Sunday], (14, 30), (16, 0), "UTC0");
    let opens = after(now(), Duration::from_secs(2 * 3600 + 1800));
    let scene = |window: Window| {
        wide()
            .at_risk("n1", 0.9, MINUTE)
            .at_risk("n2", 0.9, MINUTE)
            .marked("n2", RecordedPhase::Tainted, 2 * MINUTE)
            .with_policy(|policy| policy.rules.windows = vec![window])
    };
    check(
        &scene(closed.clone()),
        &[("n1", Ok(Cause::Taint)), ("n2", Err(HoldReason::Window))],
    );
    assert_eq!(hold_of(&scene(closed), "n2").until, Some(opens));
    check(
        &scene(window(&[], (11, 0), (12, 1), "UTC0")),
        &[("n1", Ok(Cause::Taint)), ("n2", Ok(Cause::DrainStart))],
    );
}

#[test]
fn windows_run_past_midnight_on_the_clock_of_their_place() {
    let at = |text: &str| text.parse().expect("a time");
    let night = window(&[Weekday::Friday], (22, 0), (5, 0), "UTC0");
    for (text, open) in [
        ("2026-02-27T21:59:59Z", false), // a Friday
        ("2026-02-27T22:00:00Z", true),
        ("2026-02-28T04:59:59Z", true),
        ("2026-02-28T05:00:00Z", false),
        ("2026-02-28T22:00:00Z", false),
    ] {
        assert_eq!(night.contains(at(text)), open, "{text}");
    }
    // The clocks of Berlin go forward on 2026-03-29 at 02:00: the window that begins in the gap begins
    // after it, and lasts until its end all the same.
    let spring = window(&[], (2, 30), (4, 0), "CET-1CEST,M3.5.0,M10.5.0/3");
    for (text, open) in [
        ("2026-03-29T00:59:59Z", false), // 01:59:59
        ("2026-03-29T01:29:59Z", false), // 03:29:59, which 02:30 has become
        ("2026-03-29T01:30:00Z", true),
        ("2026-03-29T01:59:59Z", true), // 03:59:59
        ("2026-03-29T02:00:00Z", false),
    ] {
        assert_eq!(spring.contains(at(text)), open, "{text}");
    }
    assert_eq!(
        foreshock_core::decision::window::open(
            &[night.clone(), spring],
            at("2026-02-27T06:00:00Z")
        ),
        Err(Some(at("2026-02-27T22:00:00Z")))
    );
    // One that ends as it begins lasts a whole day.
    let day = window(&[Weekday::Friday], (22, 0), (22, 0), "UTC0");
    for (text, open) in [
        ("2026-02-27T21:59:59Z", false),
        ("2026-02-28T10:00:00Z", true),
        ("2026-02-28T22:00:00Z", false),
    ] {
        assert_eq!(day.contains(at(text)), open, "{text}");
    }
    // One that lies in the gap as a whole does not open on that day, not even for the moment that it becomes.
    let lost = window(&[], (2, 30), (3, 0), "CET-1CEST,M3.5.0,M10.5.0/3");
    let at_the_moment = foreshock_core::decision::window::open(&[lost], at("2026-03-29T01:30:00Z"));
    assert_eq!(at_the_moment, Err(Some(at("2026-03-30T00:30:00Z"))));
    assert_eq!(foreshock_core::decision::window::open(&[], now()), Ok(()));
    let once_a_week = foreshock_core::decision::window::open(&[night], at("2026-02-28T05:00:00Z"));
    assert_eq!(once_a_week, Err(Some(at("2026-03-06T22:00:00Z"))));
}

#[test]
fn a_drain_that_runs_goes_on_after_its_window() {
    let scene = wide()
        .at_risk("n2", 0.9, MINUTE)
        .marked("n2", RecordedPhase::Draining, 2 * MINUTE)
        .with_policy(|policy| {
            policy.rules.windows = vec![window(&[], (1, 0), (2, 0), "UTC0")];
        });
    let decision = decide(&scene.policy, &scene.memory, &scene.world);
    assert!(decision.plan.drains[0].sends);
}

// ---- drift ----

#[test]
fn inputs_that_the_model_does_not_know_are_no_ground_to_act() {
    let strange = |scene: Scene| {
        scene.with_world(|world| {
            let score = world.scores.get_mut("n1").expect("scored");
            score.out_of_range = Some("12 of 30 features".into());
        })
    };
    let scene = strange(wide().at_risk("n1", 0.9, MINUTE).at_risk("n2", 0.9, MINUTE));
    check(
        &scene,
        &[("n1", Err(HoldReason::Drift)), ("n2", Ok(Cause::Taint))],
    );
    assert_eq!(
        hold_of(&scene, "n1").detail,
        "the model does not know such inputs: 12 of 30 features"
    );
    let decision = decide(&scene.policy, &scene.memory, &scene.world);
    assert!(
        decision
            .plan
            .marks
            .iter()
            .all(|order| order.node.name.as_str() != "n1"),
        "no label either"
    );
    // An alert stands on its own.
    let alerted =
        strange(wide().at_risk("n1", 0.9, MINUTE)).alert("n1", alert("Disk", 0.8, Reach::Taint));
    check(&alerted, &[("n1", Ok(Cause::Taint))]);
    // A drain that stands on the model alone sends nothing more, and what is marked stays marked.
    let draining = strange(wide().at_risk("n1", 0.9, MINUTE).marked(
        "n1",
        RecordedPhase::Draining,
        MINUTE,
    ));
    let decision = decide(&draining.policy, &draining.memory, &draining.world);
    assert!(!decision.plan.drains[0].sends);
    assert_eq!(
        decision.verdicts["n1"].hold().map(|hold| hold.reason),
        Some(HoldReason::Drift)
    );
}

#[test]
fn drift_of_the_whole_fleet_lowers_the_reach_of_every_score() {
    let scene = wide()
        .at_risk("n1", 0.9, MINUTE)
        .with_world(|world| world.drift = Some("population stability 0.4".into()));
    check(&scene, &[("n1", Err(HoldReason::Drift))]);
    let labelled = scene.record("n1", |record| {
        record.marks.label = Some(RiskLabel::AtRisk);
        record.since = ago(now(), HOUR);
    });
    let decision = decide(&labelled.policy, &labelled.memory, &labelled.world);
    assert!(
        decision.plan.marks.is_empty(),
        "a label that is there stays"
    );
}
