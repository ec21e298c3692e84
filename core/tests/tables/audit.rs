//! The audit refuses good plans that were broken on purpose, once per limit, by the name of that limit.

use std::time::Duration;

use crate::support::pods::{budget, pod, sized, with};
use crate::support::{HOUR, MINUTE, Scene, alert, now, scene, taint};
use foreshock_core::decision::audit::{Limit as Broken, audit};
use foreshock_core::decision::memory::Memory;
use foreshock_core::decision::plan::{Cause, Plan};
use foreshock_core::decision::policy::{Limit, Policy, Pool, PoolLimits, Reach};
use foreshock_core::decision::window::Window;
use foreshock_core::decision::world::{Fact, HoldUntil, NodeFacts, OwnWrite, ScoreUnknown, World};
use foreshock_core::decision::{Decision, decide};
use foreshock_core::drain::{EvictionAllowance, PodFacts};
use foreshock_core::record::{
    DrainRecord, Ramp, RecordState, RecordedPhase, Storm, SurgeRecord, Taint, TaintEffect,
};
use foreshock_core::room::{HostPort, PodTerm, Protocol, Spread, VolumeTopology};
use foreshock_core::time::{after, ago};

/// A plan that the planner made and the audit passes, and the world it was made for.
pub(crate) struct Good {
    pub(crate) policy: Policy,
    pub(crate) memory: Memory,
    pub(crate) world: World,
    pub(crate) plan: Plan,
}

impl Good {
    pub(crate) fn of(scene: Scene) -> Self {
        let Decision { memory, plan, .. } = decide(&scene.policy, &scene.memory, &scene.world);
        assert!(
            !plan.marks.is_empty() || !plan.drains.is_empty(),
            "the plan does something"
        );
        audit(&scene.policy, &memory, &scene.world, plan.clone()).expect("a good plan passes");
        Self {
            policy: scene.policy,
            memory,
            world: scene.world,
            plan,
        }
    }
}

pub(crate) fn tainting() -> Good {
    Good::of(scene().at_risk("n3", 0.9, MINUTE))
}

pub(crate) fn starting() -> Good {
    Good::of(
        scene()
            .at_risk("n3", 0.9, MINUTE)
            .marked("n3", RecordedPhase::Tainted, 2 * MINUTE),
    )
}

/// Its label alone is written.
fn labelling() -> Good {
    let scene = scene().with_policy(|policy| policy.rules.caution_taint = None);
    let scene = scene.score("n3", Ok(0.55)).remember("n3", |memory| {
        memory.caution_differs_since = Some(ago(now(), MINUTE));
    });
    Good::of(scene)
}

/// A drain that begins ten minutes after another, which has ended: of that the Node's record tells too.
fn starting_after_another() -> Good {
    let mut scene = scene()
        .at_risk("n3", 0.9, MINUTE)
        .marked("n3", RecordedPhase::Tainted, 2 * MINUTE)
        .with_policy(|policy| policy.limits.tainted_max = Limit::Count(5))
        .at_risk("n5", 0.9, MINUTE)
        .marked("n5", RecordedPhase::Tainted, 2 * HOUR)
        .record("n5", |record| {
            record.drain = Some(DrainRecord {
                started_at: ago(now(), 10 * MINUTE),
                attempts: 3,
                ended: None,
            });
        });
    let cluster = scene.world.cluster.as_mut().expect("known");
    cluster
        .drains
        .insert((ago(now(), 10 * MINUTE), "n5".into()), "uid-n5".into());
    Good::of(scene)
}

/// A drain that begins while `n5` is being drained; both have a Pod under a budget of its own.
pub(crate) fn moving() -> Good {
    let under = |name: &str, of: &str| {
        with(sized(name, 3_000), |pod| {
            pod.budgets = vec![budget(of, EvictionAllowance::Now(1))];
        })
    };
    let scene = scene()
        .with_policy(|policy| {
            policy.limits.tainted_max = Limit::Count(5);
            policy.limits.draining_max = Limit::Count(5);
        })
        .at_risk("n3", 0.9, MINUTE)
        .marked("n3", RecordedPhase::Tainted, 2 * MINUTE)
        .at_risk("n5", 0.9, MINUTE)
        .marked("n5", RecordedPhase::Draining, MINUTE)
        .node("n3", |node| {
            node.pods = Fact::Known(now(), vec![under("a", "web")]);
        })
        .node("n5", |node| {
            node.pods = Fact::Known(now(), vec![under("b", "api")]);
        });
    Good::of(scene)
}

/// The Node on which the Pod of `n3` is said to fit.
pub(crate) fn target(good: &mut Good) -> &mut NodeFacts {
    let places = &good.plan.places["n3"];
    let place = places.iter().find(|place| place.pod.name == "a");
    let on = place.expect("it has a place").on.clone();
    good.world.nodes.get_mut(&on).expect("in the world")
}

pub(crate) fn pod_of<'a>(good: &'a mut Good, node: &str) -> &'a mut PodFacts {
    match &mut good.world.nodes.get_mut(node).expect("in the world").pods {
        Fact::Known(_, pods) => &mut pods[0],
        Fact::Assumed(_) | Fact::Unknown => unreachable!("known"),
    }
}

pub(crate) fn draining() -> Good {
    Good::of(
        scene()
            .at_risk("n3", 0.9, MINUTE)
            .marked("n3", RecordedPhase::Draining, MINUTE),
    )
}

/// What is scaled up for its sake goes on standing in the record, whatever becomes of the Node.
fn surging(scene: Scene) -> Scene {
    scene.record("n3", |record| {
        record.surges = vec![SurgeRecord {
            namespace: "shop".into(),
            deployment: "web".into(),
            uid: "web".into(),
            before: 1,
            pod: pod("a").id,
            since: now(),
        }];
    })
}

fn releasing_with_a_surge() -> Good {
    Good::of(surging(
        scene()
            .marked("n3", RecordedPhase::Drained, HOUR)
            .remember("n3", |memory| memory.well_since = Some(ago(now(), HOUR))),
    ))
}

#[test]
fn whatever_is_decided_about_a_node_keeps_what_is_to_be_scaled_back() {
    let at_risk = || scene().at_risk("n3", 0.9, MINUTE);
    let tainted = at_risk().marked("n3", RecordedPhase::Tainted, 2 * MINUTE);
    let vetoed = at_risk()
        .marked("n3", RecordedPhase::Tainted, MINUTE)
        .node("n3", |node| node.taints.clear());
    for scene in [at_risk(), tainted, vetoed] {
        // The audit passes them, which it does not where one is forgotten.
        let good = Good::of(surging(scene));
        let record = good.plan.marks[0].record.as_ref().expect("a record");
        assert_eq!(record.surges.len(), 1, "{:?}", good.plan.marks[0].cause);
    }
    let good = releasing_with_a_surge();
    let record = good.plan.marks[0].record.as_ref().expect("a record");
    assert_eq!(record.surges.len(), 1);
    assert!(record.marks.is_empty());
}

pub(crate) fn releasing() -> Good {
    Good::of(
        scene()
            .marked("n3", RecordedPhase::Drained, HOUR)
            .remember("n3", |memory| memory.well_since = Some(ago(now(), HOUR))),
    )
}

/// Any Pod at all.
pub(crate) fn anything(topology_key: &str) -> PodTerm {
    PodTerm {
        topology_key: topology_key.into(),
        namespaces: None,
        selector: Some(Vec::new()),
    }
}

pub(crate) fn pooled(scene: Scene) -> Scene {
    scene
        .with_policy(|policy| {
            policy.pools = vec![Pool {
                name: "gpu".into(),
                rules: policy.rules.clone(),
                limits: PoolLimits::default(),
            }];
        })
        .node("n3", |node| node.pool = Some("gpu".into()))
}

pub(crate) fn pooled_tainting() -> Good {
    Good::of(pooled(scene().at_risk("n3", 0.9, MINUTE)))
}

pub(crate) fn pooled_starting() -> Good {
    let tainted =
        scene()
            .at_risk("n3", 0.9, MINUTE)
            .marked("n3", RecordedPhase::Tainted, 2 * MINUTE);
    Good::of(pooled(tainted))
}

/// As if the planner had come to this ramp after a storm.
pub(crate) fn ramp(good: &mut Good, width: u32, nodes: &[&str]) {
    let nodes = nodes
        .iter()
        .map(|name| ((*name).into(), format!("uid-{name}").as_str().into()))
        .collect();
    let ramp = Some(Ramp {
        since: now(),
        width,
        nodes,
    });
    good.memory.ramp.clone_from(&ramp);
    let standing = good.world.cluster.clone().expect("the scene has one");
    let record = good.plan.cluster.get_or_insert(standing);
    record.ramp = ramp;
}

type Fault = (Broken, fn() -> Good, fn(&mut Good));

pub(crate) fn n3(good: &mut Good) -> &mut foreshock_core::decision::world::NodeFacts {
    good.world.nodes.get_mut("n3").expect("the scene has n3")
}

#[test]
fn every_limit_is_refused_by_its_name() {
    let faults: Vec<Fault> = vec![
        (Broken::Observe, tainting, |good| {
            good.policy.rules.reach = Reach::Observe
        }),
        (Broken::Stale, tainting, |good| {
            good.plan.at = ago(now(), MINUTE)
        }),
        (Broken::Identity, tainting, |good| {
            good.plan.marks[0].node.uid = "another".into()
        }),
        (Broken::InFlight, tainting, |good| {
            good.world.writes.insert(
                "n3".into(),
                OwnWrite::InFlight {
                    taints: false,
                    drains: false,
                },
            );
        }),
        (Broken::OneOrder, tainting, |good| {
            good.plan.marks.push(good.plan.marks[0].clone())
        }),
        (Broken::Paused, releasing, |good| good.world.paused = true),
        (Broken::Paused, draining, |good| good.world.paused = true),
        (Broken::Excluded, releasing, |good| n3(good).excluded = true),
        (Broken::Excluded, draining, |good| n3(good).excluded = true),
        (Broken::HoldUntil, tainting, |good| {
            n3(good).hold_until = Some(HoldUntil::Time(after(now(), HOUR)))
        }),
        (Broken::HoldUntil, tainting, |good| {
            n3(good).hold_until = Some(HoldUntil::Malformed("soon".into()))
        }),
        (Broken::Ownership, tainting, |good| {
            n3(good).record = RecordState::Foreign {
                instance: "other".into(),
            }
        }),
        (Broken::Ownership, starting, |good| {
            let record = good.plan.marks[0].record.as_mut();
            record.expect("a record").phase = RecordedPhase::Drained;
        }),
        (Broken::Ownership, releasing, |good| {
            good.plan.marks[0].expects = None
        }),
        (Broken::Ownership, tainting, |good| {
            good.plan.marks[0]
                .record
                .as_mut()
                .expect("a record")
                .instance = "other".into();
        }),
        (Broken::Ownership, releasing_with_a_surge, |good| {
            let record = good.plan.marks[0].record.as_mut();
            record.expect("a record").surges.clear();
        }),
        (Broken::Ownership, releasing_with_a_surge, |good| {
            good.plan.marks[0].record = None;
        }),
        (Broken::ForeignMark, tainting, |good| {
            n3(good).taints.push(Taint {
                value: "mine".into(),
                ..taint()
            })
        }),
        (Broken::ForeignMark, tainting, |good| {
            n3(good).cordoned = true
        }),
        (Broken::ForeignMark, tainting, |good| {
            n3(good).taken_by = Some("karpenter".into())
        }),
        (Broken::ForeignMark, tainting, |good| {
            let no_execute = Taint {
                effect: TaintEffect::NoExecute,
                ..taint()
            };
            good.plan.marks[0]
                .record
                .as_mut()
                .expect("a record")
                .marks
                .taint = Some(no_execute);
        }),
        (Broken::Veto, starting, |good| {
            let RecordState::Ours(record) = &mut n3(good).record else {
                unreachable!("marked")
            };
            record.veto_until = Some(after(now(), HOUR));
            good.plan.marks[0]
                .expects
                .as_mut()
                .expect("a record")
                .veto_until = Some(after(now(), HOUR));
        }),
        (Broken::ControlPlane, tainting, |good| {
            n3(good).control_plane = true
        }),
        (Broken::NewNode, tainting, |good| {
            n3(good).created_at = ago(now(), MINUTE)
        }),
        (Broken::Unknown, tainting, |good| {
            good.world.scores.get_mut("n3").expect("scored").risk = Err(ScoreUnknown::NoScrape);
        }),
        (Broken::Unknown, draining, |good| {
            good.world.scores.get_mut("n3").expect("scored").at = ago(now(), HOUR);
        }),
        (Broken::Storm, tainting, |good| {
            good.memory.storm = Some(Storm {
                since: now(),
                about: "4 of 10 Nodes".into(),
                input: None,
                calm_since: None,
            })
        }),
        (Broken::Storm, labelling, |good| {
            good.memory.storm = Some(Storm {
                since: now(),
                about: "4 of 10 Nodes".into(),
                input: None,
                calm_since: None,
            })
        }),
        (Broken::DrainsPerHour, starting_after_another, |good| {
            good.policy.limits.drains_per_hour = 1
        }),
        (Broken::Recovery, releasing, |good| {
            // Not a person's doing, as far as the order says.
            n3(good).taints.clear();
            good.world.scores.get_mut("n3").expect("scored").risk = Ok(crate::support::risk(0.9));
        }),
        (Broken::Storm, draining, |good| {
            good.memory.storm = Some(Storm {
                since: now(),
                about: "4 of 10 Nodes".into(),
                input: None,
                calm_since: None,
            })
        }),
        (Broken::Reach, tainting, |good| {
            good.policy.rules.reach = Reach::Label
        }),
        (Broken::Reach, starting, |good| {
            good.policy.rules.reach = Reach::Taint
        }),
        (Broken::Reach, draining, |good| {
            good.policy.model_trusted = false
        }),
        (Broken::Unconfirmed, tainting, |good| {
            good.policy.rules.confirm_for = HOUR
        }),
        (Broken::RepeatOffender, starting, |good| {
            let repeats = vec![ago(now(), MINUTE), ago(now(), HOUR), ago(now(), 2 * HOUR)];
            let RecordState::Ours(record) = &mut n3(good).record else {
                unreachable!("marked")
            };
            record.repeats = repeats.clone();
            good.plan.marks[0]
                .expects
                .as_mut()
                .expect("a record")
                .repeats = repeats;
        }),
        (Broken::DrainAfter, starting, |good| {
            good.policy.rules.drain_after = HOUR
        }),
        (Broken::LastNode, tainting, |good| {
            good.world
                .nodes
                .values_mut()
                .filter(|node| node.id.name.as_str() != "n3")
                .for_each(|node| node.ready = false);
        }),
        (Broken::TaintedMax, tainting, |good| {
            good.policy.limits.tainted_max = Limit::Count(0)
        }),
        (Broken::DrainingMax, starting, |good| {
            good.policy.limits.draining_max = Limit::Count(0)
        }),
        (Broken::DrainsPerHour, starting, |good| {
            good.policy.limits.drains_per_hour = 0
        }),
        (Broken::TaintedMax, tainting, |good| {
            good.policy.limits.zone_tainted_max = Some(Limit::Count(0))
        }),
        (Broken::TaintedMax, pooled_tainting, |good| {
            good.policy.pools[0].limits.tainted_max = Some(Limit::Count(0))
        }),
        (Broken::DrainingMax, starting, |good| {
            good.policy.limits.zone_draining_max = Some(Limit::Count(0))
        }),
        (Broken::DrainingMax, pooled_starting, |good| {
            good.policy.pools[0].limits.draining_max = Some(Limit::Count(0))
        }),
        (Broken::DrainsPerHour, pooled_starting, |good| {
            good.policy.pools[0].limits.drains_per_hour = Some(0)
        }),
        (Broken::Reach, pooled_tainting, |good| {
            good.policy.pools[0].rules.reach = Reach::Label
        }),
        (Broken::Reach, tainting, |good| {
            let score = good.world.scores.get_mut("n3").expect("scored");
            score.out_of_range = Some("units".into());
        }),
        (Broken::Reach, tainting, |good| {
            good.world.drift = Some("everything".into())
        }),
        (Broken::Window, starting, |good| {
            let hour = |hour| jiff::civil::time(hour, 0, 0, 0);
            good.policy.rules.windows = vec![Window {
                days: Vec::new(),
                from: hour(1),
                to: hour(2),
                time_zone: jiff::tz::TimeZone::UTC,
            }]
        }),
        (Broken::Storm, tainting, |good| ramp(good, 1, &["n7"])),
        (Broken::Storm, starting, |good| ramp(good, 1, &["n7"])),
        (Broken::Storm, tainting, |good| ramp(good, 1, &["n3", "n7"])),
        (Broken::Storm, tainting, |good| ramp(good, 4, &["n3"])),
        (Broken::ClusterRecord, tainting, |good| {
            ramp(good, 1, &["n3"]);
            good.plan.cluster = None;
        }),
        (Broken::DrainOrder, draining, |good| {
            good.plan.drains[0].deadline_at = after(now(), HOUR)
        }),
        (Broken::DrainOrder, draining, |good| {
            good.plan.drains[0].rules.empty_dir = foreshock_core::drain::Choice::Evict
        }),
        (Broken::DrainOrder, draining, |good| {
            good.plan.drains[0].started_at = ago(now(), Duration::from_secs(1))
        }),
        (Broken::DrainOrder, draining, |good| n3(good).taints.clear()),
        (Broken::ClusterRecord, starting, |good| {
            good.plan.cluster = None
        }),
        (Broken::ClusterRecord, starting, |good| {
            good.world.cluster = None
        }),
        (Broken::FactsUnknown, starting, |good| {
            n3(good).pods = Fact::Unknown
        }),
        (Broken::FactsUnknown, moving, |good| {
            n3(good).pods = Fact::Known(ago(now(), HOUR), Vec::new())
        }),
        (Broken::FactsUnknown, moving, |good| {
            good.world.nodes.get_mut("n5").expect("there").pods = Fact::Unknown;
        }),
        (Broken::FactsUnknown, moving, |good| {
            target(good).pods = Fact::Unknown
        }),
        (Broken::SharedBudget, moving, |good| {
            pod_of(good, "n5").budgets[0].name = "web".into();
        }),
        (Broken::NoRoom, moving, |good| good.plan.places.clear()),
        (Broken::NoRoom, moving, |good| {
            target(good).allocatable.cpu = 2_999
        }),
        (Broken::NoRoom, moving, |good| {
            target(good).allocatable.pods = 0
        }),
        (Broken::NoRoom, moving, |good| target(good).ready = false),
        (Broken::NoRoom, moving, |good| {
            let name = target(good).id.name.clone();
            good.world.scores.get_mut(&name).expect("scored").risk = Ok(crate::support::risk(0.9));
        }),
        (Broken::NoRoom, moving, |good| {
            target(good).taints.push(Taint {
                key: "gpu".into(),
                ..taint()
            })
        }),
        // A Pod is said to go to the Node that it leaves.
        (Broken::NoRoom, moving, |good| {
            let places = good.plan.places.get_mut("n3").expect("moving");
            places.iter_mut().for_each(|place| place.on = "n3".into());
        }),
        // One Pod in two places, each of which has room for it.
        (Broken::NoRoom, moving, |good| {
            let taken = target(good).id.name.clone();
            let places = good.plan.places.get_mut("n3").expect("moving");
            let all: Vec<_> = places.iter().map(|place| place.on.clone()).collect();
            let again = places.iter().find(|place| place.on == taken).cloned();
            let free = good
                .world
                .nodes
                .keys()
                .find(|name| !all.contains(name) && !["n3", "n5"].contains(&name.as_str()));
            let mut again = again.expect("placed");
            again.on = free.expect("another Node").clone();
            places.push(again);
        }),
        // Both Pods on one Node, which has room for one.
        (Broken::NoRoom, moving, |good| {
            let on = target(good).id.name.clone();
            let places = good.plan.places.get_mut("n3").expect("moving");
            places.iter_mut().for_each(|place| place.on = on.clone());
        }),
        // Its own Pod is forgotten, and the other's has its place.
        (Broken::NoRoom, moving, |good| {
            let places = good.plan.places.get_mut("n3").expect("moving");
            places.retain(|place| place.pod.name == "b");
        }),
        // The Pod of the other drain is forgotten, and may need that very room.
        (Broken::NoRoom, moving, |good| {
            let places = good.plan.places.get_mut("n3").expect("moving");
            places.retain(|place| place.pod.name == "a");
        }),
        (Broken::NoRoom, moving, |good| {
            pod_of(good, "n3").needs.node_affinity = Some(Vec::new());
        }),
        (Broken::NoRoom, moving, |good| {
            pod_of(good, "n3").needs.volumes = vec![VolumeTopology {
                claim: "data".into(),
                terms: Vec::new(),
            }];
        }),
        (Broken::NoRoom, moving, |good| {
            pod_of(good, "n3").needs.node_selector = [("disk".into(), "fast".into())].into();
        }),
        (Broken::NoRoom, moving, |good| {
            pod_of(good, "n3").needs.uncountable.push("a claim".into());
        }),
        (Broken::NoRoom, moving, |good| {
            pod_of(good, "n3").needs.together = vec![anything("kubernetes.io/hostname")];
        }),
        (Broken::NoRoom, moving, |good| {
            pod_of(good, "n3").needs.apart = vec![anything("topology.kubernetes.io/zone")];
        }),
        (Broken::NoRoom, moving, |good| {
            let shy = with(sized("x", 0), |pod| {
                pod.needs.apart = vec![anything("kubernetes.io/hostname")];
            });
            target(good).pods = Fact::Known(now(), vec![shy]);
        }),
        (Broken::NoRoom, moving, |good| {
            let port = HostPort {
                protocol: Protocol::Tcp,
                port: 80,
                address: None,
            };
            pod_of(good, "n3").needs.host_ports = vec![port.clone()];
            let serving = with(sized("x", 0), |pod| pod.needs.host_ports = vec![port]);
            target(good).pods = Fact::Known(now(), vec![serving]);
        }),
        (Broken::NoRoom, moving, |good| {
            pod_of(good, "n3").needs.spread = vec![Spread {
                over: anything("kubernetes.io/hostname"),
                skew_max: 1,
            }];
            target(good).pods = Fact::Known(now(), vec![sized("x", 0)]);
        }),
        (Broken::Recovery, releasing, |good| {
            good.world.scores.get_mut("n3").expect("scored").risk = Err(ScoreUnknown::NoScrape);
        }),
        (Broken::Recovery, releasing, |good| {
            good.world
                .alerts
                .insert("n3".into(), vec![alert("X", 0.8, Reach::Evict)]);
        }),
        (Broken::Recovery, releasing, |good| {
            good.policy.rules.recover_for = 2 * HOUR
        }),
    ];
    for (index, (limit, make, break_it)) in faults.iter().enumerate() {
        let mut good = make();
        break_it(&mut good);
        let refused = audit(&good.policy, &good.memory, &good.world, good.plan.clone());
        let refusals = refused.expect_err(&format!(
            "fault {index} against {limit:?} has to be refused"
        ));
        assert!(
            refusals.iter().any(|refusal| refusal.limit == *limit),
            "fault {index}: {limit:?} is not named in {refusals:?}"
        );
    }
    let named: std::collections::BTreeSet<Broken> =
        faults.iter().map(|(limit, ..)| *limit).collect();
    assert_eq!(named.len(), 30, "every limit has its fault");
}

#[test]
fn a_pod_of_another_drain_that_fits_nowhere_takes_no_room() {
    let scene = scene()
        .with_policy(|policy| {
            policy.limits.tainted_max = Limit::Count(5);
            policy.limits.draining_max = Limit::Count(5);
        })
        .at_risk("n3", 0.9, MINUTE)
        .marked("n3", RecordedPhase::Tainted, 2 * MINUTE)
        .at_risk("n5", 0.9, MINUTE)
        .marked("n5", RecordedPhase::Draining, MINUTE)
        .node("n3", |node| {
            node.pods = Fact::Known(now(), vec![sized("a", 3_000)]);
        })
        .node("n5", |node| {
            node.pods = Fact::Known(now(), vec![sized("huge", 1_000_000)]);
        });
    let places = &Good::of(scene).plan.places["n3"];
    let placed: Vec<&str> = places.iter().map(|place| place.pod.name.as_str()).collect();
    assert_eq!(placed, ["a"]);
}

#[test]
fn of_a_node_that_is_given_back_only_our_own_taint_counts_as_gone() {
    let mut scene = scene()
        .with_policy(|policy| policy.limits.tainted_max = Limit::Count(5))
        .at_risk("n3", 0.9, MINUTE)
        .marked("n3", RecordedPhase::Tainted, 2 * MINUTE)
        .marked("n7", RecordedPhase::Drained, HOUR)
        .remember("n7", |memory| memory.well_since = Some(ago(now(), HOUR)))
        .node("n3", |node| {
            node.pods = Fact::Known(now(), vec![sized("a", 3_000)]);
        });
    for (name, node) in &mut scene.world.nodes {
        if name.as_str() != "n7" {
            node.allocatable.cpu = 100;
        }
    }
    let mut good = Good::of(scene);
    assert_eq!(good.plan.places["n3"][0].on, "n7".into());
    let released = good.world.nodes.get_mut("n7").expect("there");
    released.taints.push(Taint {
        key: "gpu".into(),
        ..taint()
    });
    let refusals = audit(&good.policy, &good.memory, &good.world, good.plan)
        .expect_err("somebody else's taint stays");
    let limits: Vec<Broken> = refusals.iter().map(|refusal| refusal.limit).collect();
    assert_eq!(limits, [Broken::NoRoom]);
}

#[test]
fn the_last_node_that_can_work_may_be_one_that_is_given_back_at_the_same_time() {
    let mut scene = scene()
        .with_policy(|policy| policy.limits.tainted_max = Limit::Count(5))
        .at_risk("n3", 0.9, MINUTE)
        .marked("n7", RecordedPhase::Drained, HOUR)
        .remember("n7", |memory| memory.well_since = Some(ago(now(), HOUR)));
    for (name, node) in &mut scene.world.nodes {
        node.cordoned = !["n3", "n7"].contains(&name.as_str());
    }
    let good = Good::of(scene);
    let marks: Vec<(&str, &Cause)> = good
        .plan
        .marks
        .iter()
        .map(|mark| (mark.node.name.as_str(), &mark.cause))
        .collect();
    assert_eq!(marks, [("n7", &Cause::Release), ("n3", &Cause::Taint)]);
}

#[test]
fn a_taint_that_keeps_nobody_out_takes_no_room() {
    let mut scene = scene()
        .at_risk("n3", 0.9, MINUTE)
        .marked("n3", RecordedPhase::Tainted, 2 * MINUTE)
        .node("n3", |node| {
            node.pods = Fact::Known(now(), vec![sized("a", 3_000)]);
        });
    for node in scene.world.nodes.values_mut() {
        node.taints.push(Taint {
            key: "slow".into(),
            effect: TaintEffect::PreferNoSchedule,
            ..taint()
        });
    }
    let places = Good::of(scene).plan.places;
    assert_eq!(places["n3"].len(), 1);
}

#[test]
fn a_drain_may_begin_beside_two_whose_budgets_are_their_own() {
    let under = |name: &str, of: &str| {
        let pod = with(sized(name, 10), |pod| {
            pod.budgets = vec![budget(of, EvictionAllowance::Now(1))];
        });
        Fact::Known(now(), vec![pod])
    };
    let mut scene = scene().with_policy(|policy| {
        policy.limits.tainted_max = Limit::Count(5);
        policy.limits.draining_max = Limit::Count(5);
        policy.limits.storm_min = 10;
    });
    for (node, of, phase) in [
        ("n3", "web", RecordedPhase::Tainted),
        ("n5", "api", RecordedPhase::Draining),
        ("n6", "jobs", RecordedPhase::Draining),
    ] {
        scene = scene
            .at_risk(node, 0.9, MINUTE)
            .marked(node, phase, 2 * MINUTE)
            .node(node, |facts| facts.pods = under(&format!("of-{node}"), of));
    }
    let good = Good::of(scene);
    assert!(good.plan.places.contains_key("n3"), "it begins");
}

#[test]
fn a_drain_of_exactly_an_hour_ago_is_none_of_the_hour_and_one_that_never_began_neither() {
    let passes = |age: Duration, last: Option<Duration>| {
        let mut scene = scene()
            .with_policy(|policy| {
                policy.limits.tainted_max = Limit::Count(5);
                policy.limits.drains_per_hour = 1;
            })
            .at_risk("n3", 0.9, MINUTE)
            .marked("n3", RecordedPhase::Tainted, 2 * MINUTE)
            .marked("n5", RecordedPhase::Tainted, 2 * HOUR)
            .record("n5", |record| {
                record.drain = last.map(|last| DrainRecord {
                    started_at: ago(now(), last),
                    attempts: 3,
                    ended: None,
                });
            });
        let cluster = scene.world.cluster.as_mut().expect("known");
        cluster
            .drains
            .insert((ago(now(), age), "n5".into()), "uid-n5".into());
        Good::of(scene)
    };
    for good in [
        passes(HOUR, Some(HOUR)),
        passes(10 * MINUTE, Some(11 * MINUTE)),
        passes(10 * MINUTE, None),
    ] {
        let orders = good.plan.marks.iter();
        assert_eq!(
            orders
                .filter(|order| order.node.name.as_str() == "n3")
                .count(),
            1
        );
    }
}

#[test]
fn a_start_that_waits_passes_and_no_other_time_than_now() {
    let waiting = |age: Duration| {
        let mut good = starting();
        let at = ago(now(), age);
        let (key, uid) = ((at, "n3".into()), "uid-n3".into());
        let order = good.plan.marks.iter_mut();
        let drains = order.filter_map(|order| order.record.as_mut()?.drain.as_mut());
        drains.for_each(|drain| drain.started_at = at);
        good.plan.cluster = None;
        let cluster = good.world.cluster.as_mut().expect("known");
        cluster.drains.insert(key, uid);
        good.policy.limits.drains_per_hour = 1;
        good
    };
    let refused = |good: &Good| {
        let judged = audit(&good.policy, &good.memory, &good.world, good.plan.clone());
        let refusals = judged.err().unwrap_or_default();
        let limits = refusals.iter().map(|refusal| refusal.limit);
        limits.collect::<Vec<Broken>>()
    };
    let second = Duration::from_secs(1);
    assert_eq!(refused(&waiting(second)), []);
    assert_eq!(refused(&waiting(10 * second - second / 1000)), []);
    let broken = [Broken::ClusterRecord];
    assert_eq!(refused(&waiting(10 * second)), broken, "for too long");

    let with = |change: fn(&mut Good)| {
        let mut good = waiting(Duration::from_secs(1));
        change(&mut good);
        refused(&good)
    };
    let not_there = with(|good| good.world.cluster.as_mut().expect("known").drains.clear());
    assert_eq!(not_there, [Broken::ClusterRecord, Broken::ClusterRecord]);
    let of_another = with(|good| {
        let uids = good
            .world
            .cluster
            .as_mut()
            .expect("known")
            .drains
            .values_mut();
        uids.for_each(|uid| *uid = "another".into());
    });
    assert_eq!(of_another, [Broken::ClusterRecord, Broken::ClusterRecord]);
    let since = |good: &mut Good, age: Duration| {
        let node = good.world.nodes.get_mut("n3").expect("there");
        let RecordState::Ours(record) = &mut node.record else {
            unreachable!("marked")
        };
        record.since = ago(now(), age);
        let record = record.clone();
        good.policy.rules.drain_after = Duration::ZERO;
        good.plan.marks[0].expects = Some(record);
    };
    let mut younger = waiting(second);
    since(&mut younger, second);
    assert_eq!(refused(&younger), broken, "from before the taint");
    since(&mut younger, second + second / 1000);
    assert_eq!(refused(&younger), []);
    let last = |age: Duration| {
        let mut good = waiting(Duration::from_secs(1));
        let node = good.world.nodes.get_mut("n3").expect("there");
        let RecordState::Ours(record) = &mut node.record else {
            unreachable!("marked")
        };
        record.drain = Some(DrainRecord {
            started_at: ago(now(), age),
            attempts: 1,
            ended: None,
        });
        good.plan.marks[0].expects = Some(record.clone());
        refused(&good)
    };
    assert_eq!(last(second), broken, "it was made");
    assert_eq!(last(second + second / 1000), []);

    // Others count beside it.
    let mut full = waiting(second);
    let cluster = full.world.cluster.as_mut().expect("known");
    cluster
        .drains
        .insert((ago(now(), second), "n4".into()), "uid-n4".into());
    assert_eq!(refused(&full), [Broken::DrainsPerHour]);
}
