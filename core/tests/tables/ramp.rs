//! The ramp after a storm, one decision at a time: what counts as an end of which kind, and whether anybody
//! is left for whom it goes on.

use std::time::Duration;

use foreshock_core::decision::decide;
use foreshock_core::decision::policy::{ControlPlane, Limit, Reach};
use foreshock_core::decision::world::{HoldUntil, OwnWrite};
use foreshock_core::drain::{NodeOutcome, PodOutcome};
use foreshock_core::record::{NodeRecord, Ramp, RecordState, RecordedPhase, Storm};
use foreshock_core::time::{after, ago};
use jiff::Timestamp;

use crate::support::{HOUR, MINUTE, Scene, now, scene};

const MILLISECOND: Duration = Duration::from_millis(1);

/// When the present width began.
fn began() -> Timestamp {
    ago(now(), 30 * MINUTE)
}

fn ramping(scene: Scene, since: Timestamp, width: u32, nodes: &[&str]) -> Scene {
    let nodes = nodes
        .iter()
        .map(|name| ((*name).into(), format!("uid-{name}").as_str().into()));
    let ramp = Ramp {
        since,
        width,
        nodes: nodes.collect(),
    };
    scene
        .with_policy(|policy| {
            policy.limits.tainted_max = Limit::Percent(50.0);
            policy.limits.draining_max = Limit::Count(5);
        })
        .with_world(|world| {
            let cluster = world.cluster.as_mut().expect("known");
            cluster.ramp = Some(ramp);
        })
}

fn next(scene: &Scene) -> Option<Ramp> {
    decide(&scene.policy, &scene.memory, &scene.world)
        .memory
        .ramp
}

#[test]
fn the_first_step_waits_for_the_drains_that_the_storm_has_interrupted() {
    let mut scene = scene()
        .marked("n3", RecordedPhase::Draining, 20 * MINUTE)
        .marked("n4", RecordedPhase::Tainted, 20 * MINUTE);
    scene.memory.storm = Some(Storm {
        since: ago(now(), HOUR),
        about: "4 of 10 Nodes".into(),
        input: None,
        calm_since: Some(ago(now(), 10 * MINUTE)),
    });
    let ramp = next(&scene).expect("the storm is over");
    assert_eq!((ramp.since, ramp.width), (now(), 1));
    let names: Vec<&str> = ramp.nodes.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["n3"]);
}

type Change = fn(Scene) -> Scene;

#[test]
fn after_an_hour_a_ramp_goes_on_only_for_a_node_that_may_be_begun_on() {
    let table: &[(&str, bool, Change)] = &[
        ("nothing in the way", true, |scene| scene),
        ("nobody at risk", false, |scene| scene.score("n3", Ok(0.1))),
        ("in the caution band", false, |scene| {
            scene.score("n3", Ok(0.65))
        }),
        ("excluded", false, |scene| {
            scene.node("n3", |node| node.excluded = true)
        }),
        ("cordoned", false, |scene| {
            scene.node("n3", |node| node.cordoned = true)
        }),
        ("somebody else's", false, |scene| {
            scene.node("n3", |node| node.taken_by = Some("Karpenter".into()))
        }),
        ("control plane, left alone", false, |scene| {
            scene.node("n3", |node| node.control_plane = true)
        }),
        ("control plane, included", true, |scene| {
            scene
                .node("n3", |node| node.control_plane = true)
                .with_policy(|policy| policy.rules.control_plane = ControlPlane::Include)
        }),
        (
            "a worker where the control plane is included",
            true,
            |scene| scene.with_policy(|policy| policy.rules.control_plane = ControlPlane::Include),
        ),
        ("held until now", true, |scene| {
            scene.node("n3", |node| node.hold_until = Some(HoldUntil::Time(now())))
        }),
        ("held a moment longer", false, |scene| {
            scene.node("n3", |node| {
                node.hold_until = Some(HoldUntil::Time(after(now(), MILLISECOND)));
            })
        }),
        ("held until a while ago", true, |scene| {
            scene.node("n3", |node| {
                node.hold_until = Some(HoldUntil::Time(ago(now(), HOUR)));
            })
        }),
        ("held, malformed", false, |scene| {
            scene.node("n3", |node| {
                node.hold_until = Some(HoldUntil::Malformed("soon".into()));
            })
        }),
        ("a record without marks", true, |scene| {
            scene.record("n3", |_| {})
        }),
        ("a veto that has just ended", true, |scene| {
            scene.record("n3", |record| record.veto_until = Some(now()))
        }),
        ("a veto that goes on", false, |scene| {
            scene.record("n3", |record| {
                record.veto_until = Some(after(now(), MILLISECOND));
            })
        }),
        ("tainted before the ramp", false, |scene| {
            scene.marked("n3", RecordedPhase::Tainted, 2 * HOUR)
        }),
        ("tainted, and an old veto on record", false, |scene| {
            scene
                .marked("n3", RecordedPhase::Tainted, 2 * HOUR)
                .record("n3", |record| record.veto_until = Some(ago(now(), HOUR)))
        }),
        ("a record of a Node before it", true, |scene| {
            scene.node("n3", |node| node.record = RecordState::OtherUid)
        }),
        ("another release's record", false, |scene| {
            scene.node("n3", |node| {
                node.record = RecordState::Foreign {
                    instance: "other".into(),
                };
            })
        }),
    ];
    for (what, goes_on, change) in table {
        let at_risk = scene().at_risk("n3", 0.9, 10 * MINUTE);
        let scene = |since| change(ramping(at_risk.clone(), since, 1, &[]));
        let late = scene(ago(now(), HOUR));
        assert_eq!(next(&late).is_some(), *goes_on, "{what}");
        let in_time = scene(ago(now(), HOUR - MILLISECOND));
        assert!(next(&in_time).is_some(), "{what}: it has its hour");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    NotBegun,
    Pending,
    Good,
    Failed,
}

/// How the only Node of a width of one stands, by what becomes of the ramp.
fn stands(scene: Scene) -> Stands {
    let ramp = next(&ramping(scene, began(), 1, &["n3"])).expect("it goes on");
    match (ramp.width, ramp.nodes.len(), ramp.since) {
        (1, 1, at) if at == began() => Stands::Pending,
        (1, 0, at) if at == began() => Stands::NotBegun,
        (1, 0, at) if at == now() => Stands::Failed,
        (2, 0, at) if at == now() => Stands::Good,
        other => panic!("{other:?}"),
    }
}

fn released_at(at: Timestamp) -> Scene {
    scene().record("n3", |record| record.released_at = Some(at))
}

fn tainted(change: impl FnOnce(&mut NodeRecord)) -> Scene {
    scene()
        .marked("n3", RecordedPhase::Tainted, 20 * MINUTE)
        .record("n3", change)
}

fn ended(outcome: NodeOutcome) -> Scene {
    scene()
        .marked("n3", RecordedPhase::Draining, 20 * MINUTE)
        .record("n3", |record| {
            record.phase = RecordedPhase::Tainted;
            let drain = record.drain.as_mut().expect("draining");
            drain.ended = Some((ago(now(), MINUTE), outcome));
        })
}

fn writing(scene: Scene, taints: bool, drains: bool) -> Scene {
    scene.with_world(|world| {
        let write = OwnWrite::InFlight { taints, drains };
        world.writes.insert("n3".into(), write);
    })
}

#[test]
fn what_is_an_end_and_of_which_kind() {
    let cancelled = || ended(NodeOutcome::Ended(PodOutcome::Cancelled));
    let blocked = || ended(NodeOutcome::Ended(PodOutcome::BlockedByBudget));
    let at_risk = |scene: Scene| scene.at_risk("n3", 0.9, 20 * MINUTE);
    let only_tainted = |scene: Scene| scene.with_policy(|policy| policy.rules.reach = Reach::Taint);
    let table = [
        ("no record", Stands::NotBegun, scene()),
        (
            "another's record",
            Stands::NotBegun,
            scene().node("n3", |node| {
                node.record = RecordState::OtherUid;
            }),
        ),
        ("given back since", Stands::Good, released_at(began())),
        (
            "given back before",
            Stands::NotBegun,
            released_at(ago(began(), MILLISECOND)),
        ),
        (
            "given back and vetoed",
            Stands::Failed,
            released_at(now()).record("n3", |record| {
                record.veto_until = Some(after(now(), MILLISECOND));
            }),
        ),
        (
            "given back after a veto",
            Stands::Good,
            released_at(now()).record("n3", |record| {
                record.veto_until = Some(now());
            }),
        ),
        (
            "the taint is being written",
            Stands::Pending,
            writing(scene(), true, false),
        ),
        (
            "the drain is being written",
            Stands::Pending,
            writing(scene(), false, true),
        ),
        (
            "a label is being written",
            Stands::NotBegun,
            writing(scene(), false, false),
        ),
        (
            "draining",
            Stands::Pending,
            scene().marked("n3", RecordedPhase::Draining, MINUTE),
        ),
        (
            "its drain was whole",
            Stands::Good,
            at_risk(ended(NodeOutcome::Drained)),
        ),
        ("its drain failed", Stands::Failed, at_risk(blocked())),
        (
            "its drain failed, and it is well",
            Stands::Failed,
            blocked(),
        ),
        (
            "its drain was cancelled as it was well",
            Stands::Good,
            cancelled(),
        ),
        (
            "its drain was cancelled",
            Stands::Pending,
            at_risk(cancelled()),
        ),
        (
            "tainted and well again",
            Stands::Good,
            tainted(|record| record.since = ago(now(), MINUTE)),
        ),
        (
            "tainted, goes on to the drain",
            Stands::Pending,
            at_risk(tainted(|_| {})),
        ),
        (
            "tainted, no drain wanted",
            Stands::Good,
            only_tainted(at_risk(tainted(|_| {}))),
        ),
        (
            "tainted, no drain wanted, for a storm's window",
            Stands::Good,
            only_tainted(at_risk(tainted(|record| {
                record.since = ago(now(), 5 * MINUTE);
            }))),
        ),
        (
            "tainted, no drain wanted, not for long yet",
            Stands::Pending,
            only_tainted(at_risk(tainted(|record| {
                record.since = ago(now(), 5 * MINUTE - MILLISECOND);
            }))),
        ),
        (
            "tainted, at the threshold and no further",
            Stands::Good,
            tainted(|_| {}).score("n3", Ok(0.65)),
        ),
        (
            "tainted, a little over the threshold",
            Stands::Pending,
            at_risk(tainted(|_| {})).score("n3", Ok(0.66)),
        ),
    ];
    for (what, expected, scene) in table {
        assert_eq!(stands(scene), expected, "{what}");
    }
}

#[test]
fn a_ramp_ends_where_the_usual_limit_is_no_wider() {
    let good = || ramping(released_at(now()), began(), 1, &["n3"]);
    let with = |scene: Scene, limit| scene.with_policy(|policy| policy.limits.tainted_max = limit);
    assert_eq!(next(&with(good(), Limit::Count(2))), None);
    assert_eq!(
        next(&with(good(), Limit::Count(3))).map(|ramp| ramp.width),
        Some(2)
    );
    // What does not take work is no part of the cluster that the limit is a share of.
    let share = || with(good(), Limit::Percent(30.0));
    assert!(next(&share()).is_some());
    assert_eq!(next(&share().node("n7", |node| node.ready = false)), None);
    assert_eq!(next(&share().node("n7", |node| node.cordoned = true)), None);
    // A width that did not come to a good end is tried again, however narrow the limit.
    let failed = ramping(
        released_at(now()).record("n3", |record| record.veto_until = Some(after(now(), HOUR))),
        began(),
        1,
        &["n3"],
    );
    assert_eq!(
        next(&with(failed, Limit::Count(1))).map(|ramp| ramp.width),
        Some(1)
    );
}

/// The Lease still speaks of the storm that has just ended here.
#[test]
fn a_lease_that_lags_behind_the_end_of_a_storm_does_not_end_its_ramp() {
    let since = ago(now(), HOUR);
    let mut scene = scene().with_world(|world| {
        let cluster = world.cluster.as_mut().expect("known");
        cluster.storm = Some(Storm {
            since,
            about: "4 of 10 Nodes".into(),
            input: None,
            calm_since: None,
        });
    });
    scene.memory.storm_over = Some(since);
    scene.memory.ramp = Some(Ramp {
        since: now(),
        width: 1,
        nodes: [].into(),
    });
    let decision = decide(&scene.policy, &scene.memory, &scene.world);
    assert_eq!(decision.storm, None);
    assert_eq!(decision.memory.ramp, scene.memory.ramp);
}
