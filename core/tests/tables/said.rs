//! What a decision says besides what it does: limits of zones and pools, what would lift a hold.

use std::collections::BTreeSet;

use crate::support::{HOUR, Scene, node, scene};
use foreshock_core::decision::policy::{Limit, Pool, PoolLimits};
use foreshock_core::decision::verdict::HoldReason;
use foreshock_core::decision::{Group, GroupUsage, Usage, decide};
use foreshock_core::record::RecordedPhase;

fn usage(scene: &Scene) -> Vec<GroupUsage> {
    decide(&scene.policy, &scene.memory, &scene.world)
        .usage
        .groups
}

fn of(group: Group, limit: &'static str, used: usize, max: usize) -> GroupUsage {
    GroupUsage {
        group,
        limit,
        used,
        max,
    }
}

#[test]
fn limits_of_zones_and_pools_are_told_where_they_are_configured() {
    let zones = |mut scene: Scene| {
        for (name, zone) in [("n0", "a"), ("n1", "a"), ("n2", "b")] {
            scene = scene.node(name, |node| node.zone = Some(zone.into()));
        }
        scene
    };
    let marked = zones(scene()).marked("n0", RecordedPhase::Draining, HOUR);
    assert_eq!(usage(&marked), [], "nothing is configured");

    let limited = marked
        .node("n5", |node| node.pool = Some("gpu".into()))
        .marked("n5", RecordedPhase::Tainted, HOUR)
        .with_policy(|policy| {
            policy.limits.zone_tainted_max = Some(Limit::Percent(50.0));
            policy.pools.push(Pool {
                name: "gpu".into(),
                rules: policy.rules.clone(),
                limits: PoolLimits {
                    draining_max: Some(Limit::Count(2)),
                    drains_per_hour: Some(3),
                    ..PoolLimits::default()
                },
            });
        });
    let zone = |name: &str| Group::Zone(Some(name.into()));
    let gpu = || Group::Pool("gpu".into());
    assert_eq!(
        usage(&limited),
        [
            of(Group::Zone(None), "tainted_max", 1, 3),
            of(zone("a"), "tainted_max", 1, 1),
            of(zone("b"), "tainted_max", 0, 1),
            of(gpu(), "draining_max", 0, 2),
            of(gpu(), "drains_per_hour", 0, 3),
        ]
    );
}

#[test]
fn a_zone_label_that_differs_from_node_to_node_does_not_become_thousands_of_series() {
    let mut scene = scene().with_policy(|policy| {
        policy.limits.zone_tainted_max = Some(Limit::Count(2));
    });
    for index in 0..1_000 {
        let mut node = node(&format!("m{index:04}"));
        node.zone = Some(format!("rack-{index}"));
        scene = scene.with_node(node, Ok(0.05));
    }
    let scene = scene.marked("m0777", RecordedPhase::Tainted, HOUR);
    let told = usage(&scene);
    assert_eq!(told.len(), Usage::GROUPS_MAX);
    let fullest = of(Group::Zone(Some("rack-777".into())), "tainted_max", 1, 2);
    assert!(
        told.contains(&fullest),
        "the one with the least room is told"
    );
}

#[test]
fn every_hold_says_in_its_own_words_what_would_lift_it() {
    let lifts: BTreeSet<&str> = HoldReason::ALL.iter().map(|reason| reason.lift()).collect();
    assert_eq!(lifts.len(), HoldReason::ALL.len());
    for lift in lifts {
        assert!(lift.len() > 10 && !lift.ends_with('.'), "{lift}");
    }
}
