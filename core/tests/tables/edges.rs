//! The audit at the very edge of each limit: what just passes, and what just does not.

use std::time::Duration;

use foreshock_core::decision::audit::{Limit as Broken, audit};
use foreshock_core::decision::plan::MarkOrder;
use foreshock_core::decision::policy::{ControlPlane, Limit, Policy, Reach};
use foreshock_core::decision::world::{Fact, HoldUntil, OwnWrite};
use foreshock_core::drain::Choice;
use foreshock_core::node::NodeName;
use foreshock_core::record::{
    ActingAlert, NodeRecord, RecordState, RecordedPhase, RiskLabel, Storm, Taint, TaintEffect,
};
use foreshock_core::room::{HOSTNAME, PodTerm, Spread};
use foreshock_core::time::{after, ago};
use jiff::Timestamp;

use crate::audit::{
    Good, anything, draining, moving, n3, pod_of, ramp, releasing, starting, tainting, target,
};
use crate::support::pods::{sized, with};
use crate::support::{HOUR, MINUTE, Scene, alert, caution_taint, now, risk, scene, taint};

const MILLISECOND: Duration = Duration::from_millis(1);

/// What is done to a good plan or its world, and the limit that it breaks then, if any.
type Edge = (&'static str, fn() -> Good, fn(&mut Good), Option<Broken>);

fn check(edges: &[Edge]) {
    for (what, make, change, broken) in edges {
        let mut good = make();
        change(&mut good);
        let passed = audit(&good.policy, &good.memory, &good.world, good.plan.clone());
        match (passed, broken) {
            (Ok(_), None) => {}
            (Ok(_), Some(limit)) => panic!("{what}: passes, and breaks {limit:?}"),
            (Err(refusals), None) => panic!("{what}: refused: {refusals:?}"),
            (Err(refusals), Some(limit)) => {
                let named = refusals.iter().all(|refusal| refusal.limit == *limit);
                assert!(named, "{what}: {limit:?} alone is broken, not {refusals:?}");
            }
        }
    }
}

fn score_at(good: &mut Good, at: Timestamp) {
    good.world.scores.get_mut("n3").expect("scored").at = at;
}

fn score(good: &mut Good, p: f64) {
    good.world.scores.get_mut("n3").expect("scored").risk = Ok(risk(p));
}

/// The Node's record as the watch shows it and as the order expects it.
fn standing(good: &mut Good, change: impl Fn(&mut NodeRecord)) {
    let RecordState::Ours(record) = &mut n3(good).record else {
        unreachable!("marked")
    };
    change(record);
    for order in &mut good.plan.marks {
        change(order.expects.as_mut().expect("it expects a record"));
    }
}

fn hold_until(good: &mut Good, until: Timestamp) {
    n3(good).hold_until = Some(HoldUntil::Time(until));
}

/// The model is silent; an alert speaks for it.
fn only_alert(good: &mut Good, change: impl FnOnce(&mut ActingAlert)) {
    good.world.scores.remove("n3");
    let mut alert = alert("KubeNodeNotReady", 0.9, Reach::Evict);
    change(&mut alert);
    good.world.alerts.insert("n3".into(), vec![alert]);
}

fn drains_on_record(good: &mut Good, count: u64, age: Duration) {
    let standing = good.world.cluster.as_mut().expect("known");
    for n in 0..count {
        let at = ago(now(), age + Duration::from_millis(n));
        let key = (at, NodeName::from(format!("gone-{n}").as_str()));
        standing.drains.insert(key.clone(), "uid".into());
        let next = good.plan.cluster.as_mut().expect("a drain begins");
        next.drains.insert(key, "uid".into());
    }
}

#[test]
fn times_are_kept_to_the_millisecond() {
    check(&[
        (
            "a hold that ends now",
            tainting,
            |good| hold_until(good, now()),
            None,
        ),
        (
            "a hold that has not quite ended",
            tainting,
            |good| hold_until(good, after(now(), MILLISECOND)),
            Some(Broken::HoldUntil),
        ),
        (
            "a Node that is just old enough",
            tainting,
            |good| {
                n3(good).created_at = ago(now(), 10 * MINUTE);
            },
            None,
        ),
        (
            "a Node that is not quite old enough",
            tainting,
            |good| n3(good).created_at = ago(now(), 10 * MINUTE - MILLISECOND),
            Some(Broken::NewNode),
        ),
        (
            "confirmed for just long enough",
            tainting,
            |good| good.policy.rules.confirm_for = MINUTE,
            None,
        ),
        (
            "confirmed for not quite long enough",
            tainting,
            |good| good.policy.rules.confirm_for = MINUTE + MILLISECOND,
            Some(Broken::Unconfirmed),
        ),
        (
            "tainted for just long enough",
            starting,
            |good| good.policy.rules.drain_after = 2 * MINUTE,
            None,
        ),
        (
            "tainted for not quite long enough",
            starting,
            |good| good.policy.rules.drain_after = 2 * MINUTE + MILLISECOND,
            Some(Broken::DrainAfter),
        ),
        (
            "a veto that ends now",
            starting,
            |good| standing(good, |record| record.veto_until = Some(now())),
            None,
        ),
        (
            "a veto that has not quite ended",
            starting,
            |good| {
                standing(good, |record| {
                    record.veto_until = Some(after(now(), MILLISECOND))
                })
            },
            Some(Broken::Veto),
        ),
        (
            "well for just long enough",
            releasing,
            |good| good.policy.rules.recover_for = HOUR,
            None,
        ),
        (
            "well for not quite long enough",
            releasing,
            |good| good.policy.rules.recover_for = HOUR + MILLISECOND,
            Some(Broken::Recovery),
        ),
        (
            "a score that is just fresh",
            tainting,
            |good| score_at(good, ago(now(), MINUTE)),
            None,
        ),
    ]);
}

/// Refused, and by this limit among others.
fn refused(mut good: Good, change: impl FnOnce(&mut Good), limit: Broken) {
    change(&mut good);
    let passed = audit(&good.policy, &good.memory, &good.world, good.plan.clone());
    let refusals = passed.expect_err("it is refused");
    let named = refusals.iter().any(|refusal| refusal.limit == limit);
    assert!(named, "{limit:?} is not named in {refusals:?}");
}

#[test]
fn evidence_that_is_just_too_old_or_too_new_is_none() {
    refused(
        tainting(),
        |good| score_at(good, ago(now(), MINUTE + MILLISECOND)),
        Broken::Unknown,
    );
    refused(
        tainting(),
        |good| score_at(good, after(now(), Duration::from_millis(1_001))),
        Broken::Unknown,
    );
    refused(
        tainting(),
        |good| {
            n3(good).created_at = ago(now(), 20 * MINUTE);
            score_at(good, ago(now(), 20 * MINUTE + MILLISECOND));
            good.policy.score_age_max = HOUR;
        },
        Broken::Unknown,
    );
    refused(
        tainting(),
        |good| only_alert(good, |alert| alert.expires_at = now()),
        Broken::Unknown,
    );
    refused(
        tainting(),
        |good| {
            let born = n3(good).created_at;
            only_alert(good, |alert| alert.starts_at = ago(born, MILLISECOND));
        },
        Broken::Unknown,
    );
    refused(
        tainting(),
        |good| {
            only_alert(good, |_| {});
            let started = ago(now(), 5 * MINUTE);
            good.world
                .resolved
                .insert("fp-KubeNodeNotReady".into(), started);
        },
        Broken::Unknown,
    );
    check(&[
        (
            "a clock that is a second behind",
            tainting,
            |good| score_at(good, after(now(), Duration::from_secs(1))),
            None,
        ),
        (
            "a score of the moment in which the Node was created",
            tainting,
            |good| {
                let born = n3(good).created_at;
                score_at(good, born);
                good.policy.score_age_max = 1_000 * HOUR;
            },
            None,
        ),
        (
            "an alert alone",
            tainting,
            |good| only_alert(good, |_| {}),
            None,
        ),
        (
            "an alert that has not quite expired",
            tainting,
            |good| only_alert(good, |alert| alert.expires_at = after(now(), MILLISECOND)),
            None,
        ),
        (
            "an alert that began when the Node was created",
            tainting,
            |good| {
                let born = n3(good).created_at;
                only_alert(good, |alert| alert.starts_at = born);
            },
            None,
        ),
        (
            "the end of an earlier firing",
            tainting,
            |good| {
                only_alert(good, |_| {});
                let earlier = ago(now(), 5 * MINUTE + MILLISECOND);
                good.world
                    .resolved
                    .insert("fp-KubeNodeNotReady".into(), earlier);
            },
            None,
        ),
        (
            "an alert of the record alone",
            starting,
            |good| {
                good.world.scores.remove("n3");
                standing(good, |record| {
                    record.alerts = vec![alert("X", 0.9, Reach::Evict)]
                });
            },
            None,
        ),
    ]);
    // What is heard now counts, and not what the record has kept of the same alert.
    refused(
        starting(),
        |good| {
            standing(good, |record| {
                record.alerts = vec![alert("X", 0.9, Reach::Evict)]
            });
            only_alert(good, |heard| {
                heard.fingerprint = "fp-X".into();
                heard.floor = risk(0.1);
            });
        },
        Broken::Reach,
    );
}

#[test]
fn thresholds_are_exclusive_where_something_begins_and_inclusive_where_it_goes_on() {
    check(&[
        (
            "just above at_risk",
            tainting,
            |good| score(good, 0.651),
            None,
        ),
        (
            "a drain that goes on in the dead band",
            draining,
            |good| score(good, 0.5),
            None,
        ),
        (
            "a drain whose Node looks well",
            draining,
            |good| score(good, 0.499),
            Some(Broken::Reach),
        ),
        ("well, just", releasing, |good| score(good, 0.499), None),
        (
            "not well, just",
            releasing,
            |good| score(good, 0.5),
            Some(Broken::Recovery),
        ),
        (
            "well by the model, and an alert says no",
            releasing,
            |good| {
                good.world
                    .alerts
                    .insert("n3".into(), vec![alert("X", 0.5, Reach::Evict)]);
            },
            Some(Broken::Recovery),
        ),
        (
            "well by the model, and an alert that says little",
            releasing,
            |good| {
                good.world
                    .alerts
                    .insert("n3".into(), vec![alert("X", 0.4, Reach::Evict)]);
            },
            None,
        ),
        (
            "well by a model that does not know such inputs",
            releasing,
            |good| {
                let score = good.world.scores.get_mut("n3").expect("scored");
                score.out_of_range = Some("units".into());
            },
            Some(Broken::Recovery),
        ),
        (
            "never seen to be well",
            releasing,
            |good| good.memory.nodes.clear(),
            Some(Broken::Recovery),
        ),
        (
            "a drain by an untrusted model whose drift is known",
            draining,
            |good| good.world.drift = Some("everything".into()),
            Some(Broken::Reach),
        ),
    ]);
    refused(tainting(), |good| score(good, 0.65), Broken::Reach);
}

#[test]
fn counts_may_be_used_up_and_not_exceeded() {
    check(&[
        (
            "as many repeats as are allowed",
            starting,
            |good| standing(good, |record| record.repeats = vec![ago(now(), HOUR); 2]),
            None,
        ),
        (
            "one repeat more, of which one has just run out",
            starting,
            |good| {
                standing(good, |record| {
                    record.repeats =
                        vec![ago(now(), 24 * HOUR), ago(now(), HOUR), ago(now(), HOUR)];
                })
            },
            None,
        ),
        (
            "one repeat more, of which none has quite run out",
            starting,
            |good| {
                standing(good, |record| {
                    record.repeats = vec![
                        ago(now(), 24 * HOUR - MILLISECOND),
                        ago(now(), HOUR),
                        ago(now(), HOUR),
                    ];
                })
            },
            Some(Broken::RepeatOffender),
        ),
        (
            "the sixth drain of the hour",
            starting,
            |good| drains_on_record(good, 5, MINUTE),
            None,
        ),
        (
            "the seventh drain of the hour",
            starting,
            |good| drains_on_record(good, 6, MINUTE),
            Some(Broken::DrainsPerHour),
        ),
        (
            "drains of the hour before",
            starting,
            |good| drains_on_record(good, 6, HOUR),
            None,
        ),
        (
            "drains of just within the hour",
            starting,
            |good| drains_on_record(good, 6, HOUR - Duration::from_millis(6)),
            Some(Broken::DrainsPerHour),
        ),
        (
            "the last attempt",
            starting,
            |good| {
                let record = good.plan.marks[0].record.as_mut().expect("a record");
                record.drain.as_mut().expect("a drain").attempts = Policy::DRAIN_ATTEMPTS_MAX;
            },
            None,
        ),
        (
            "one attempt more",
            starting,
            |good| {
                let record = good.plan.marks[0].record.as_mut().expect("a record");
                record.drain.as_mut().expect("a drain").attempts = Policy::DRAIN_ATTEMPTS_MAX + 1;
            },
            Some(Broken::DrainOrder),
        ),
        (
            "as long as a drain may take",
            draining,
            |good| good.policy.drain.deadline = 15 * MINUTE,
            None,
        ),
        (
            "Pods that were read just lately enough",
            moving,
            |good| {
                for name in ["n3", "n5"] {
                    let node = good.world.nodes.get_mut(name).expect("there");
                    let Fact::Known(at, _) = &mut node.pods else {
                        unreachable!("known")
                    };
                    *at = ago(now(), MINUTE);
                }
                let Fact::Known(at, _) = &mut target(good).pods else {
                    unreachable!("known")
                };
                *at = ago(now(), MINUTE);
            },
            None,
        ),
        (
            "exactly as much room as is asked for",
            moving,
            |good| target(good).allocatable.cpu = 3_000,
            None,
        ),
    ]);
}

#[test]
fn the_ramp_doubles_and_no_more() {
    fn stood(good: &mut Good, width: u32, nodes: &[&str]) {
        ramp(good, width, nodes);
        let standing = good.world.cluster.as_mut().expect("known");
        standing.ramp.clone_from(&good.memory.ramp);
    }
    check(&[
        (
            "one Node first",
            tainting,
            |good| ramp(good, 1, &["n3"]),
            None,
        ),
        (
            "two first",
            tainting,
            |good| ramp(good, 2, &["n3"]),
            Some(Broken::Storm),
        ),
        (
            "twice as wide",
            tainting,
            |good| {
                stood(good, 2, &["n7"]);
                ramp(good, 4, &["n3", "n7"]);
            },
            None,
        ),
        (
            "more than twice as wide",
            tainting,
            |good| {
                stood(good, 2, &["n7"]);
                ramp(good, 5, &["n3", "n7"]);
            },
            Some(Broken::Storm),
        ),
        (
            "as many as it is wide",
            tainting,
            |good| {
                stood(good, 2, &["n7"]);
                ramp(good, 2, &["n3", "n7"]);
            },
            None,
        ),
        (
            "one more than it is wide, and one is new",
            tainting,
            |good| {
                stood(good, 1, &["n7"]);
                ramp(good, 1, &["n3", "n7"]);
            },
            Some(Broken::Storm),
        ),
        (
            "one more than it is wide, and both were in it before",
            tainting,
            |good| {
                stood(good, 1, &["n3", "n7"]);
                ramp(good, 1, &["n3", "n7"]);
            },
            None,
        ),
    ]);
    // The Node of that name, and not another that has it now.
    refused(
        tainting(),
        |good| {
            ramp(good, 1, &["n3"]);
            let ramp = good.memory.ramp.as_mut().expect("set");
            ramp.nodes.insert("n3".into(), "another".into());
            good.plan
                .cluster
                .as_mut()
                .expect("set")
                .ramp
                .clone_from(&good.memory.ramp);
        },
        Broken::Storm,
    );
}

/// Two plans in one, the orders of the first before those of the second.
fn both(mut first: Good, second: Good) -> Good {
    first.plan.marks.extend(second.plan.marks);
    first
}

fn released() -> Scene {
    scene()
        .marked("n5", RecordedPhase::Drained, HOUR)
        .remember("n5", |memory| memory.well_since = Some(ago(now(), HOUR)))
        .at_risk("n3", 0.9, MINUTE)
        .with_policy(|policy| policy.limits.tainted_max = Limit::Count(2))
}

#[test]
fn a_node_that_is_given_back_makes_place_for_the_next_in_its_cluster_zone_and_pool() {
    let good = Good::of(released());
    let order = |name: &str| -> MarkOrder {
        let mut marks = good.plan.marks.iter();
        marks
            .find(|order| order.node.name.as_str() == name)
            .expect("ordered")
            .clone()
    };
    let (release, taint) = (order("n5"), order("n3"));
    let verdict = |change: &dyn Fn(&mut Policy), marks: Vec<MarkOrder>| {
        let (mut policy, mut plan) = (good.policy.clone(), good.plan.clone());
        change(&mut policy);
        plan.marks = marks;
        audit(&policy, &good.memory, &good.world, plan).is_ok()
    };
    let limits: [&dyn Fn(&mut Policy); 2] = [
        &|policy| policy.limits.tainted_max = Limit::Count(1),
        &|policy| policy.limits.zone_tainted_max = Some(Limit::Count(1)),
    ];
    for limit in limits {
        assert!(verdict(limit, vec![release.clone(), taint.clone()]));
        assert!(
            !verdict(limit, vec![taint.clone(), release.clone()]),
            "the other way round it does not"
        );
        assert!(!verdict(limit, vec![taint.clone()]));
    }
}

#[test]
fn what_was_sent_and_not_seen_yet_counts() {
    let full = |write: OwnWrite| {
        move |good: &mut Good| {
            good.policy.limits.tainted_max = Limit::Count(1);
            good.world.writes.insert("n7".into(), write);
        }
    };
    let failed = |taints, drains| OwnWrite::Failed {
        problem: "timeout".into(),
        retry_at: after(now(), MINUTE),
        taints,
        drains,
    };
    refused(
        tainting(),
        full(OwnWrite::InFlight {
            taints: true,
            drains: false,
        }),
        Broken::TaintedMax,
    );
    refused(
        tainting(),
        full(OwnWrite::InFlight {
            taints: false,
            drains: true,
        }),
        Broken::TaintedMax,
    );
    refused(tainting(), full(failed(true, false)), Broken::TaintedMax);
    refused(tainting(), full(failed(false, true)), Broken::TaintedMax);
    let drains = |write: OwnWrite| {
        move |good: &mut Good| {
            good.world.writes.insert("n7".into(), write);
        }
    };
    refused(
        starting(),
        drains(OwnWrite::InFlight {
            taints: false,
            drains: true,
        }),
        Broken::DrainingMax,
    );
    refused(starting(), drains(failed(false, true)), Broken::DrainingMax);
    let passes = |write: OwnWrite| {
        let mut good = tainting();
        full(write)(&mut good);
        audit(&good.policy, &good.memory, &good.world, good.plan).expect("it sets no taint");
    };
    passes(OwnWrite::InFlight {
        taints: false,
        drains: false,
    });
    passes(failed(false, false));
}

#[test]
fn a_node_with_our_taint_and_a_record_that_nobody_can_read_counts_as_tainted() {
    let unreadable = |taints: Vec<Taint>| {
        move |good: &mut Good| {
            good.policy.limits.tainted_max = Limit::Count(1);
            let node = good.world.nodes.get_mut("n7").expect("there");
            node.record = RecordState::Unreadable {
                problem: "no JSON".into(),
            };
            node.taints = taints;
        }
    };
    refused(tainting(), unreadable(vec![taint()]), Broken::TaintedMax);
    let mut without = tainting();
    unreadable(Vec::new())(&mut without);
    audit(
        &without.policy,
        &without.memory,
        &without.world,
        without.plan,
    )
    .expect("it has no taint");
    let mut absent = tainting();
    unreadable(vec![taint()])(&mut absent);
    absent.world.nodes.get_mut("n7").expect("there").record = RecordState::Absent;
    audit(&absent.policy, &absent.memory, &absent.world, absent.plan).expect("it is not ours");
}

#[test]
fn two_are_too_many_in_a_zone_that_may_have_one() {
    let good = || {
        Good::of(
            scene()
                .with_policy(|policy| {
                    policy.limits.tainted_max = Limit::Count(5);
                    policy.limits.storm_share = 1.0;
                })
                .node("n3", |node| node.zone = Some("a".into()))
                .node("n7", |node| node.zone = Some("a".into()))
                .node("n8", |node| node.zone = Some("b".into()))
                .at_risk("n3", 0.9, MINUTE)
                .at_risk("n7", 0.9, MINUTE)
                .at_risk("n8", 0.9, MINUTE),
        )
    };
    assert_eq!(good().plan.marks.len(), 3);
    refused(
        good(),
        |good| good.policy.limits.zone_tainted_max = Some(Limit::Count(1)),
        Broken::TaintedMax,
    );
    // Half of the two Nodes of zone a, and of the one of zone b: one each.
    refused(
        good(),
        |good| good.policy.limits.zone_tainted_max = Some(Limit::Percent(50.0)),
        Broken::TaintedMax,
    );
    let mut enough = good();
    enough.policy.limits.zone_tainted_max = Some(Limit::Count(2));
    audit(&enough.policy, &enough.memory, &enough.world, enough.plan).expect("two fit");
}

#[test]
fn of_two_nodes_one_is_left() {
    let two = |name: &str| {
        let mut scene = scene().with_policy(|policy| policy.limits.tainted_max = Limit::Count(5));
        scene
            .world
            .nodes
            .retain(|name, _| ["n3", "n4"].contains(&name.as_str()));
        Good::of(scene.at_risk(name, 0.9, MINUTE))
    };
    let mut plan = both(two("n3"), two("n4"));
    // Each may be taken by itself. That the other is not at risk in either world is what makes this hard.
    let refusals =
        audit(&plan.policy, &plan.memory, &plan.world, plan.plan.clone()).expect_err("not both");
    assert!(
        refusals
            .iter()
            .any(|refusal| refusal.limit == Broken::LastNode),
        "{refusals:?}"
    );
    plan.plan.marks.truncate(1);
    audit(&plan.policy, &plan.memory, &plan.world, plan.plan).expect("one of them");
}

#[test]
fn what_is_left_can_work() {
    let others = |change: fn(&mut foreshock_core::decision::world::NodeFacts)| {
        move |good: &mut Good| {
            let nodes = good.world.nodes.values_mut();
            nodes
                .filter(|node| node.id.name.as_str() != "n3")
                .for_each(change);
        }
    };
    refused(
        tainting(),
        others(|node| node.cordoned = true),
        Broken::LastNode,
    );
    refused(
        tainting(),
        others(|node| node.taken_by = Some("karpenter".into())),
        Broken::LastNode,
    );
    let foreign = |effect| Taint {
        key: "gpu".into(),
        effect,
        ..taint()
    };
    refused(
        tainting(),
        others(|node| {
            node.taints.push(Taint {
                key: "gpu".into(),
                ..taint()
            })
        }),
        Broken::LastNode,
    );
    let mut preferred = tainting();
    for node in preferred.world.nodes.values_mut() {
        node.taints.push(foreign(TaintEffect::PreferNoSchedule));
    }
    audit(
        &preferred.policy,
        &preferred.memory,
        &preferred.world,
        preferred.plan,
    )
    .expect("they take Pods");
    refused(
        tainting(),
        |good| {
            for (name, score) in &mut good.world.scores {
                if name.as_str() != "n3" {
                    score.risk = Ok(risk(0.9));
                }
            }
        },
        Broken::LastNode,
    );
}

/// A Node in the caution band gets its label and its caution taint.
fn cautioning() -> Good {
    let good = Good::of(scene().score("n3", Ok(0.6)).remember("n3", |memory| {
        memory.caution_differs_since = Some(ago(now(), HOUR));
    }));
    let record = good.plan.marks[0].record.as_ref().expect("a record");
    assert_eq!(record.marks.label, Some(RiskLabel::Caution));
    assert_eq!(record.marks.caution_taint, Some(caution_taint()));
    good
}

fn stormy(good: &mut Good) {
    good.memory.storm = Some(Storm {
        since: now(),
        about: "4 of 10 Nodes".into(),
        input: None,
        calm_since: None,
    });
    let standing = good.world.cluster.clone().expect("the scene has one");
    good.plan
        .cluster
        .get_or_insert(standing)
        .storm
        .clone_from(&good.memory.storm);
}

#[test]
fn caution_marks_are_marks() {
    check(&[
        ("in a storm", cautioning, stormy, Some(Broken::Storm)),
        (
            "at reach label",
            cautioning,
            |good| good.policy.rules.reach = Reach::Label,
            Some(Broken::Reach),
        ),
        (
            "at reach label, and no taint",
            cautioning,
            |good| {
                good.policy.rules.reach = Reach::Label;
                good.plan.marks[0]
                    .record
                    .as_mut()
                    .expect("a record")
                    .marks
                    .caution_taint = None;
            },
            None,
        ),
        (
            "no label, only the taint, at reach taint",
            cautioning,
            |good| {
                good.policy.rules.reach = Reach::Taint;
                good.plan.marks[0]
                    .record
                    .as_mut()
                    .expect("a record")
                    .marks
                    .label = None;
            },
            None,
        ),
        (
            "on a Node that somebody cordoned",
            cautioning,
            |good| n3(good).cordoned = true,
            Some(Broken::ForeignMark),
        ),
        (
            "on the control plane",
            cautioning,
            |good| n3(good).control_plane = true,
            Some(Broken::ControlPlane),
        ),
        (
            "on the control plane where that is included",
            cautioning,
            |good| {
                n3(good).control_plane = true;
                good.policy.rules.control_plane = ControlPlane::Include;
            },
            None,
        ),
        (
            "at the threshold",
            cautioning,
            |good| score(good, 0.5),
            None,
        ),
        (
            "below the threshold",
            cautioning,
            |good| score(good, 0.499),
            Some(Broken::Reach),
        ),
        (
            "with another caution taint than the rules'",
            cautioning,
            |good| good.policy.rules.caution_taint = None,
            Some(Broken::ForeignMark),
        ),
        // Taking them off again is clean-up.
        (
            "taken off in a storm",
            || {
                let marked = scene().record("n3", |record| {
                    record.released_at = Some(ago(now(), MINUTE));
                    record.marks.label = Some(RiskLabel::Caution);
                    record.marks.caution_taint = Some(caution_taint());
                });
                Good::of(marked.remember("n3", |memory| {
                    memory.caution_differs_since = Some(ago(now(), HOUR));
                }))
            },
            stormy,
            None,
        ),
    ]);
}

#[test]
fn a_drain_is_as_the_record_says() {
    check(&[
        (
            "of a Node whose drain has ended",
            draining,
            |good| {
                let RecordState::Ours(record) = &mut n3(good).record else {
                    unreachable!("marked")
                };
                let drain = record.drain.as_mut().expect("a drain");
                drain.ended = Some((now(), foreshock_core::drain::NodeOutcome::Drained));
            },
            Some(Broken::DrainOrder),
        ),
        (
            "of a Node that is only tainted",
            draining,
            |good| {
                let RecordState::Ours(record) = &mut n3(good).record else {
                    unreachable!("marked")
                };
                record.phase = RecordedPhase::Tainted;
            },
            Some(Broken::DrainOrder),
        ),
        (
            "of another Node of that name",
            draining,
            |good| good.plan.drains[0].node.uid = "another".into(),
            Some(Broken::Identity),
        ),
        (
            "of a Node that somebody else is taking away",
            draining,
            |good| n3(good).taken_by = Some("karpenter".into()),
            Some(Broken::ForeignMark),
        ),
        (
            "that sends nothing, of a Node that somebody else is taking away",
            draining,
            |good| {
                n3(good).taken_by = Some("karpenter".into());
                good.plan.drains[0].sends = false;
            },
            None,
        ),
        (
            "without the cluster's record",
            draining,
            |good| good.world.cluster = None,
            Some(Broken::ClusterRecord),
        ),
        (
            "whose rules are not the policy's",
            draining,
            |good| good.policy.drain.unmanaged = Choice::Evict,
            Some(Broken::DrainOrder),
        ),
        (
            "held by an alert alone",
            draining,
            |good| only_alert(good, |_| {}),
            None,
        ),
    ]);
}

#[test]
fn the_clusters_record_forgets_no_drain_that_counts() {
    fn forgotten(good: &mut Good, at: Timestamp) {
        let standing = good.world.cluster.as_mut().expect("known");
        standing.drains.insert((at, "n8".into()), "uid-n8".into());
    }
    check(&[
        (
            "a drain of within the hour",
            starting,
            |good| forgotten(good, ago(now(), HOUR - MILLISECOND)),
            Some(Broken::ClusterRecord),
        ),
        (
            "a drain of an hour ago",
            starting,
            |good| forgotten(good, ago(now(), HOUR)),
            None,
        ),
        (
            "a drain of the near future",
            starting,
            |good| forgotten(good, after(now(), HOUR - MILLISECOND)),
            Some(Broken::ClusterRecord),
        ),
        (
            "the drain that begins, of another Node of that name",
            starting,
            |good| {
                let next = good.plan.cluster.as_mut().expect("a drain begins");
                next.drains.insert((now(), "n3".into()), "another".into());
            },
            Some(Broken::ClusterRecord),
        ),
        (
            "an entry whose mark has failed",
            starting,
            |good| {
                let at = ago(now(), Duration::from_secs(300));
                tainted_since(good, ago(at, MILLISECOND));
                forgotten(good, at);
            },
            None,
        ),
        (
            "an entry whose mark may still be on its way",
            starting,
            |good| {
                let at = ago(now(), Duration::from_secs(300) - MILLISECOND);
                tainted_since(good, ago(at, MILLISECOND));
                forgotten(good, at);
            },
            Some(Broken::ClusterRecord),
        ),
        (
            "an entry of before the Node's taint",
            starting,
            |good| {
                let at = ago(now(), Duration::from_secs(400));
                tainted_since(good, at);
                forgotten(good, at);
            },
            Some(Broken::ClusterRecord),
        ),
    ]);
}

/// `n8` has had our taint since then.
fn tainted_since(good: &mut Good, since: Timestamp) {
    let scene = Scene {
        policy: good.policy.clone(),
        memory: good.memory.clone(),
        world: good.world.clone(),
    };
    good.policy.limits.tainted_max = Limit::Count(5);
    good.world = scene
        .marked("n8", RecordedPhase::Tainted, HOUR)
        .record("n8", |record| record.since = since)
        .world;
}

#[test]
fn pods_in_the_way_are_those_that_go() {
    check(&[
        (
            "the other drain has nothing left to evict under the budget",
            moving,
            |good| {
                let pod = pod_of(good, "n5");
                pod.budgets[0].name = "web".into();
                pod.finished = true;
                let places = good.plan.places.get_mut("n3").expect("moving");
                places.retain(|place| place.pod.name == "a");
            },
            None,
        ),
        (
            "a Node that has finished Pods only has their room",
            moving,
            |good| {
                let done = with(sized("x", 4_000), |pod| pod.finished = true);
                target(good).pods = Fact::Known(now(), vec![done]);
            },
            None,
        ),
        (
            "a resource that nobody asks for may be short",
            moving,
            |good| {
                let hungry = with(sized("x", 0), |pod| pod.needs.requests.memory = 1 << 40);
                target(good).pods = Fact::Known(now(), vec![hungry]);
            },
            None,
        ),
        (
            "one Pod is said to go to two places",
            moving,
            |good| {
                let places = good.plan.places.get_mut("n3").expect("moving");
                let twice = places[0].clone();
                places.push(twice);
            },
            Some(Broken::NoRoom),
        ),
    ]);
}

#[test]
fn every_limit_has_a_name_of_its_own_that_refusals_bear() {
    let names: std::collections::BTreeSet<&str> = [
        Broken::Observe,
        Broken::Stale,
        Broken::Identity,
        Broken::InFlight,
        Broken::OneOrder,
        Broken::Paused,
        Broken::Excluded,
        Broken::HoldUntil,
        Broken::Ownership,
        Broken::ForeignMark,
        Broken::Veto,
        Broken::ControlPlane,
        Broken::NewNode,
        Broken::Unknown,
        Broken::Storm,
        Broken::Reach,
        Broken::Unconfirmed,
        Broken::RepeatOffender,
        Broken::DrainAfter,
        Broken::Window,
        Broken::LastNode,
        Broken::TaintedMax,
        Broken::DrainingMax,
        Broken::DrainsPerHour,
        Broken::FactsUnknown,
        Broken::SharedBudget,
        Broken::NoRoom,
        Broken::DrainOrder,
        Broken::ClusterRecord,
        Broken::Recovery,
    ]
    .iter()
    .map(|limit| limit.as_str())
    .collect();
    assert_eq!(names.len(), 30);
    let mut good = tainting();
    good.world.paused = true;
    let refusals = audit(&good.policy, &good.memory, &good.world, good.plan).expect_err("paused");
    assert_eq!(
        refusals[0].to_string(),
        "plan refused by paused: taint of n3"
    );
}

#[test]
fn where_nothing_may_be_written_a_running_drain_is_too_much() {
    refused(
        draining(),
        |good| {
            assert!(good.plan.marks.is_empty() && good.plan.cluster.is_none());
            good.policy.rules.reach = Reach::Observe;
        },
        Broken::Observe,
    );
    refused(
        tainting(),
        |good| {
            good.plan.marks.clear();
            good.plan.cluster = good.world.cluster.clone();
            good.policy.rules.reach = Reach::Observe;
        },
        Broken::Observe,
    );
}

#[test]
fn a_node_with_our_taint_takes_no_pods() {
    let tainted = |good: &mut Good| {
        let name = target(good).id.name.clone();
        let scene = Scene {
            policy: good.policy.clone(),
            memory: good.memory.clone(),
            world: good.world.clone(),
        };
        good.world = scene
            .marked(name.as_str(), RecordedPhase::Tainted, HOUR)
            .world;
        good.policy.limits.tainted_max = Limit::Count(9);
    };
    refused(moving(), tainted, Broken::NoRoom);
    check(&[
        (
            "a Node that is exactly at the threshold takes Pods",
            moving,
            |good| {
                let name = target(good).id.name.clone();
                good.world.scores.get_mut(&name).expect("scored").risk = Ok(risk(0.65));
            },
            None,
        ),
        (
            "a Node that somebody else is taking away takes none",
            moving,
            |good| target(good).taken_by = Some("karpenter".into()),
            Some(Broken::NoRoom),
        ),
        (
            "a cordoned Node takes none",
            moving,
            |good| target(good).cordoned = true,
            Some(Broken::NoRoom),
        ),
    ]);
}

const ZONE: &str = "topology.kubernetes.io/zone";

/// The Node that the Pod leaves and the one that it goes to are in these zones.
fn zones(good: &mut Good, from: &str, to: &str) {
    let mut set = |name: &NodeName, zone: &str| {
        let node = good.world.nodes.get_mut(name).expect("there");
        std::sync::Arc::make_mut(&mut node.labels).insert(ZONE.into(), zone.into());
    };
    set(&"n3".into(), from);
    let places = good.plan.places["n3"].clone();
    let place = places.iter().find(|place| place.pod.name == "a");
    set(&place.expect("it has a place").on, to);
}

/// A Pod that is where the other goes.
fn beside(good: &mut Good, change: impl FnOnce(&mut foreshock_core::drain::PodFacts)) {
    let there = with(sized("x", 0), change);
    target(good).pods = Fact::Known(now(), vec![there]);
}

/// Pods of another namespace.
fn of_others(topology_key: &str) -> PodTerm {
    PodTerm {
        namespaces: Some(["other".to_owned()].into()),
        ..anything(topology_key)
    }
}

#[test]
fn pods_get_along_by_the_rules_that_both_have() {
    check(&[
        (
            "it avoids who is there",
            moving,
            |good| {
                pod_of(good, "n3").needs.apart = vec![anything(HOSTNAME)];
                beside(good, |_| {});
            },
            Some(Broken::NoRoom),
        ),
        (
            "it avoids others than who is there",
            moving,
            |good| {
                pod_of(good, "n3").needs.apart = vec![of_others(HOSTNAME)];
                beside(good, |_| {});
            },
            None,
        ),
        (
            "it avoids them in its zone, which it does not leave",
            moving,
            |good| {
                zones(good, "a", "a");
                pod_of(good, "n3").needs.apart = vec![anything(ZONE)];
                beside(good, |_| {});
            },
            None,
        ),
        (
            "it avoids them in any zone, and goes to another",
            moving,
            |good| {
                zones(good, "a", "b");
                pod_of(good, "n3").needs.apart = vec![anything(ZONE)];
                beside(good, |_| {});
            },
            Some(Broken::NoRoom),
        ),
        (
            "who is there avoids it in the zone that it comes to",
            moving,
            |good| {
                zones(good, "a", "b");
                beside(good, |pod| pod.needs.apart = vec![anything(ZONE)]);
            },
            Some(Broken::NoRoom),
        ),
        (
            "who is there avoids it in the zone that it was in before",
            moving,
            |good| {
                zones(good, "a", "a");
                beside(good, |pod| pod.needs.apart = vec![anything(ZONE)]);
            },
            None,
        ),
        (
            "who is there avoids others",
            moving,
            |good| beside(good, |pod| pod.needs.apart = vec![of_others(HOSTNAME)]),
            None,
        ),
        (
            "it wants company, and has it",
            moving,
            |good| {
                pod_of(good, "n3").needs.together = vec![anything(HOSTNAME)];
                beside(good, |_| {});
            },
            None,
        ),
        (
            "it wants other company",
            moving,
            |good| {
                pod_of(good, "n3").needs.together = vec![of_others(HOSTNAME)];
                beside(good, |_| {});
            },
            Some(Broken::NoRoom),
        ),
        (
            "it wants company in its zone, which it does not leave",
            moving,
            |good| {
                zones(good, "a", "a");
                pod_of(good, "n3").needs.together = vec![anything(ZONE)];
            },
            None,
        ),
        (
            "one of its kind is there, and two may be",
            moving,
            |good| {
                let over = anything(HOSTNAME);
                pod_of(good, "n3").needs.spread = vec![Spread { over, skew_max: 2 }];
                beside(good, |_| {});
            },
            None,
        ),
        (
            "one of its kind is there, and leaves",
            moving,
            |good| {
                let over = anything(HOSTNAME);
                pod_of(good, "n3").needs.spread = vec![Spread { over, skew_max: 1 }];
                beside(good, |pod| pod.terminating_until = Some(now()));
            },
            None,
        ),
        (
            "one of another kind is there",
            moving,
            |good| {
                let over = of_others(HOSTNAME);
                pod_of(good, "n3").needs.spread = vec![Spread { over, skew_max: 1 }];
                beside(good, |_| {});
            },
            None,
        ),
        (
            "it is spread over zones, and does not leave its own",
            moving,
            |good| {
                zones(good, "a", "a");
                let over = anything(ZONE);
                pod_of(good, "n3").needs.spread = vec![Spread { over, skew_max: 1 }];
                beside(good, |_| {});
            },
            None,
        ),
    ]);
}

#[test]
fn two_are_too_many_in_a_pool_that_may_have_one() {
    let good = || {
        let scene = crate::audit::pooled(
            scene()
                .with_policy(|policy| policy.limits.tainted_max = Limit::Count(5))
                .at_risk("n3", 0.9, MINUTE)
                .at_risk("n7", 0.9, MINUTE),
        );
        Good::of(scene.node("n7", |node| node.pool = Some("gpu".into())))
    };
    assert_eq!(good().plan.marks.len(), 2);
    refused(
        good(),
        |good| good.policy.pools[0].limits.tainted_max = Some(Limit::Count(1)),
        Broken::TaintedMax,
    );
    let mut enough = good();
    enough.policy.pools[0].limits.tainted_max = Some(Limit::Count(2));
    audit(&enough.policy, &enough.memory, &enough.world, enough.plan).expect("two fit");
}

#[test]
fn a_node_that_is_not_ready_or_cordoned_is_no_base_of_a_share() {
    // 50 % of ten are five, of two one.
    let good = || {
        Good::of(
            scene()
                .with_policy(|policy| {
                    policy.limits.tainted_max = Limit::Percent(50.0);
                    policy.limits.storm_share = 1.0;
                })
                .at_risk("n3", 0.9, MINUTE)
                .at_risk("n7", 0.9, MINUTE),
        )
    };
    let changes: [fn(&mut foreshock_core::decision::world::NodeFacts); 2] =
        [|node| node.ready = false, |node| node.cordoned = true];
    for change in changes {
        refused(
            good(),
            |good| {
                let nodes = good.world.nodes.values_mut();
                let others =
                    nodes.filter(|node| !["n3", "n7", "n8"].contains(&node.id.name.as_str()));
                others.for_each(change);
            },
            Broken::TaintedMax,
        );
    }
}
