//! What is always true of a decision, over clusters drawn at random.
//!
//! Each property judges the outcome by counting on the cluster as it is afterwards, never by
//! repeating what the planner does. Each says how many of its cases tainted, drained, held and
//! released; a property that never saw one of them has proved nothing, and fails.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::support::pods::{budget, sized, with};
use crate::support::{HOUR, MINUTE, Scene, alert, apply, node, now, scene};
use foreshock_core::decision::audit::audit;
use foreshock_core::decision::memory::Memory;
use foreshock_core::decision::plan::{Cause, Plan};
use foreshock_core::decision::policy::{Limit, Reach};
use foreshock_core::decision::verdict::HoldReason;
use foreshock_core::decision::world::{Fact, HoldUntil, OwnWrite, ScoreUnknown, World};
use foreshock_core::decision::{Decision, decide};
use foreshock_core::drain::{Disposition, EvictionAllowance, PodFacts, classify};
use foreshock_core::node::NodeName;
use foreshock_core::record::{Ramp, RecordState, RecordedPhase, Storm, Taint};
use foreshock_core::time::{after, ago, since};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// One Node as it is drawn.
#[derive(Clone, Debug)]
struct Drawn {
    score: Result<f64, ScoreUnknown>,
    at_risk_for: u32,
    phase: Option<RecordedPhase>,
    phase_for: u32,
    well_for: Option<u32>,
    alert: Option<(f64, Reach)>,
    oddity: u8,
    pods_known: bool,
    /// CPU, budget and a binding to a zone, for each.
    pods: Vec<(u64, u8, bool)>,
    cpu: u64,
}

const ZONE: &str = "topology.kubernetes.io/zone";

impl Drawn {
    fn pods_of(&self, node: &str, zone: Option<&str>) -> Vec<PodFacts> {
        let pods = self.pods.iter().enumerate();
        pods.map(|(index, (cpu, under, bound))| {
            with(sized(&format!("{node}-{index}"), *cpu), |pod| {
                if *under < 2 {
                    let name = format!("budget-{under}");
                    pod.budgets = vec![budget(&name, EvictionAllowance::Now(1))];
                }
                if let Some(zone) = zone.filter(|_| *bound) {
                    pod.needs.node_selector = [(ZONE.to_owned(), zone.to_owned())].into();
                }
            })
        })
        .collect()
    }
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let score = prop_oneof![
        4 => (0.0..0.5_f64).prop_map(Ok),
        1 => (0.5..0.65_f64).prop_map(Ok),
        4 => (0.66..1.0_f64).prop_map(Ok),
        1 => Just(Err(ScoreUnknown::NoScrape)),
        1 => Just(Err(ScoreUnknown::FeaturesMissing)),
    ];
    let phase = prop_oneof![
        6 => Just(None),
        1 => Just(Some(RecordedPhase::Clear)),
        2 => Just(Some(RecordedPhase::Tainted)),
        1 => Just(Some(RecordedPhase::Draining)),
        2 => Just(Some(RecordedPhase::Drained)),
    ];
    let reach = prop_oneof![Just(Reach::Label), Just(Reach::Taint), Just(Reach::Evict)];
    let alert = prop_oneof![6 => Just(None), 1 => (0.4..1.0_f64, reach).prop_map(Some)];
    (
        score,
        0..600_u32,
        phase,
        0..3600_u32,
        prop::option::of(0..1800_u32),
        alert,
        0..40_u8,
        prop::bool::weighted(0.8),
        prop::collection::vec((0..3000_u64, 0..6_u8, prop::bool::weighted(0.1)), 0..4),
        1000..8000_u64,
    )
        .prop_map(
            |(
                score,
                at_risk_for,
                phase,
                phase_for,
                well_for,
                alert,
                oddity,
                pods_known,
                pods,
                cpu,
            )| Drawn {
                score,
                at_risk_for,
                phase,
                phase_for,
                well_for,
                alert,
                oddity,
                pods_known,
                pods,
                cpu,
            },
        )
}

/// A policy and a cluster as they are drawn.
#[derive(Clone, Debug)]
struct Case {
    nodes: Vec<Drawn>,
    reach: Reach,
    trusted: bool,
    tainted_max: u32,
    draining_max: u32,
    drains_per_hour: u32,
    recent_drains: u32,
    storm_min: u32,
    /// A storm is on, and on record.
    storm: bool,
    /// The width of a ramp after one.
    ramp: Option<u32>,
    /// A limit for each zone.
    zone_tainted_max: Option<u32>,
}

fn case() -> impl Strategy<Value = Case> {
    let reach = prop_oneof![1 => Just(Reach::Observe), 1 => Just(Reach::Label), 2 => Just(Reach::Taint), 8 => Just(Reach::Evict)];
    let limits = (1..4_u32, 1..3_u32, 1..5_u32, 0..3_u32);
    let storm_min = prop_oneof![1 => Just(3_u32), 3 => Just(50)];
    let weather = (
        prop::bool::weighted(0.1),
        prop::option::weighted(0.15, 1..3_u32),
        prop::option::weighted(0.3, 1..3_u32),
    );
    (
        prop::collection::vec(drawn(), 1..12),
        reach,
        prop::bool::weighted(0.8),
        limits,
        storm_min,
        weather,
    )
        .prop_map(
            |(
                nodes,
                reach,
                trusted,
                (tainted_max, draining_max, drains_per_hour, recent_drains),
                storm_min,
                (storm, ramp, zone_tainted_max),
            )| Case {
                nodes,
                reach,
                trusted,
                tainted_max,
                draining_max,
                drains_per_hour,
                recent_drains,
                storm_min,
                storm,
                ramp: ramp.filter(|_| !storm),
                zone_tainted_max,
            },
        )
}

fn seconds(n: u32) -> Duration {
    Duration::from_secs(n.into())
}

impl Case {
    fn scene(&self) -> Scene {
        let mut scene = scene().with_world(|world| {
            world.nodes.clear();
            world.scores.clear();
            let cluster = world.cluster.as_mut().expect("the scene has one");
            for index in 0..self.recent_drains {
                cluster.drains.insert(
                    (ago(now(), seconds(60 + index)), "earlier".into()),
                    "uid".into(),
                );
            }
        });
        scene = scene.with_policy(|policy| {
            policy.rules.reach = self.reach;
            policy.model_trusted = self.trusted;
            policy.limits.tainted_max = Limit::Count(self.tainted_max);
            policy.limits.draining_max = Limit::Count(self.draining_max);
            policy.limits.drains_per_hour = self.drains_per_hour;
            policy.limits.storm_min = self.storm_min;
            policy.limits.zone_tainted_max = self.zone_tainted_max.map(Limit::Count);
        });
        if self.storm {
            let storm = Storm {
                since: ago(now(), HOUR),
                about: "9 of 10 Nodes".into(),
                input: None,
                calm_since: None,
            };
            scene.memory.storm = Some(storm.clone());
            scene
                .world
                .cluster
                .as_mut()
                .expect("the scene has one")
                .storm = Some(storm);
        }
        if let Some(width) = self.ramp {
            let ramp = Some(Ramp {
                since: ago(now(), MINUTE),
                width,
                nodes: BTreeMap::new(),
            });
            scene.memory.ramp.clone_from(&ramp);
            scene
                .world
                .cluster
                .as_mut()
                .expect("the scene has one")
                .ramp = ramp;
        }
        for (index, drawn) in self.nodes.iter().enumerate() {
            let name = format!("n{index:02}");
            scene = scene
                .with_node(node(&name), Ok(0.0))
                .at_risk(&name, 0.0, seconds(drawn.at_risk_for))
                .score(&name, Ok(0.0));
            scene
                .world
                .scores
                .get_mut(name.as_str())
                .expect("scored")
                .risk = drawn.score.map(crate::support::risk);
            if let Some(phase) = drawn.phase {
                scene = match phase {
                    RecordedPhase::Clear => {
                        scene.record(&name, |record| record.released_at = Some(ago(now(), HOUR)))
                    }
                    phase => scene.marked(&name, phase, seconds(drawn.phase_for)),
                };
            }
            if let Some(well_for) = drawn.well_for {
                scene = scene.remember(&name, |memory| {
                    memory.well_since = Some(ago(now(), seconds(well_for)))
                });
            }
            if let Some((floor, reach)) = drawn.alert {
                scene = scene.alert(&name, alert(&format!("alert-{index}"), floor, reach));
            }
            scene = scene.node(&name, |node| {
                node.zone = [Some("a"), Some("b"), None][index % 3].map(str::to_owned);
                let mut labels = (*node.labels).clone();
                labels.extend(node.zone.clone().map(|zone| (ZONE.to_owned(), zone)));
                node.labels = std::sync::Arc::new(labels);
                node.allocatable.cpu = drawn.cpu;
                node.pods = if drawn.pods_known {
                    Fact::Known(now(), drawn.pods_of(&name, node.zone.as_deref()))
                } else {
                    Fact::Unknown
                };
                match drawn.oddity {
                    0 => node.cordoned = true,
                    1 => node.ready = false,
                    2 => node.excluded = true,
                    3 => node.control_plane = true,
                    4 => node.created_at = ago(now(), MINUTE),
                    5 => node.taken_by = Some("cluster-autoscaler".into()),
                    7 => node.taints.push(Taint {
                        value: "somebody-elses".into(),
                        ..crate::support::taint()
                    }),
                    8 => node.hold_until = Some(HoldUntil::Time(after(now(), HOUR))),
                    9 => node.hold_until = Some(HoldUntil::Malformed("soon".into())),
                    10 => {
                        node.record = RecordState::Foreign {
                            instance: "another".into(),
                        }
                    }
                    11 => {
                        if let RecordState::Ours(record) = &mut node.record {
                            record.veto_until = Some(after(now(), HOUR));
                        }
                    }
                    _ => {}
                }
            });
            if drawn.oddity == 6 {
                scene = scene.with_world(|world| {
                    world.writes.insert(
                        name.as_str().into(),
                        OwnWrite::InFlight {
                            taints: true,
                            drains: false,
                        },
                    );
                });
            }
        }
        scene
    }
}

/// What the cases of a property came to.
#[derive(Default)]
struct Tally {
    cases: usize,
    tainted: usize,
    drained: usize,
    held: usize,
    released: usize,
    no_room: usize,
    shared_budget: usize,
    moved: usize,
}

impl Tally {
    fn count(&mut self, decision: &Decision) {
        let does = |cause| decision.plan.marks.iter().any(|order| order.cause == cause);
        self.cases += 1;
        self.tainted += usize::from(does(Cause::Taint));
        self.drained += usize::from(
            does(Cause::DrainStart) || decision.plan.drains.iter().any(|order| order.sends),
        );
        self.released += usize::from(does(Cause::Release));
        let held_by = |reason| {
            let verdicts = decision.verdicts.values();
            verdicts
                .flat_map(|verdict| &verdict.holds)
                .any(|hold| hold.reason == reason)
        };
        self.no_room += usize::from(held_by(HoldReason::NoRoom));
        self.shared_budget += usize::from(held_by(HoldReason::SharedBudget));
        self.moved += usize::from(
            decision
                .plan
                .places
                .values()
                .any(|places| !places.is_empty()),
        );
        self.held += usize::from(
            decision
                .verdicts
                .values()
                .any(|verdict| verdict.hold().is_some()),
        );
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cases,
            tainted,
            drained,
            held,
            released,
            no_room,
            shared_budget,
            moved,
        } = self;
        write!(
            f,
            "{cases} cases: {tainted} tainted, {drained} drained, {held} held, {released} released, \
             {no_room} without room, {shared_budget} with a shared budget, {moved} with Pods to move"
        )
    }
}

/// Clusters in which much is to be moved at once: every other Node is at risk and tainted or being drained.
fn moving() -> impl Strategy<Value = Case> {
    case().prop_map(|case| {
        let nodes = case.nodes.into_iter().enumerate();
        let nodes = nodes.map(|(index, drawn)| {
            let pods_known = drawn.oddity != 6;
            let drawn = Drawn {
                alert: None,
                oddity: 39,
                pods_known,
                ..drawn
            };
            if index % 2 == 1 {
                return Drawn {
                    score: Ok(0.1),
                    phase: None,
                    ..drawn
                };
            }
            let drains = index % 6 == 4;
            Drawn {
                score: Ok(0.7 + f64::from(drawn.phase_for) / 36_000.0),
                at_risk_for: 600,
                phase: Some(if drains {
                    RecordedPhase::Draining
                } else {
                    RecordedPhase::Tainted
                }),
                phase_for: 120,
                well_for: None,
                ..drawn
            }
        });
        Case {
            nodes: nodes.collect(),
            reach: Reach::Evict,
            trusted: true,
            tainted_max: 12,
            draining_max: 1 + case.tainted_max,
            drains_per_hour: 12,
            recent_drains: 0,
            storm_min: 50,
            storm: false,
            ramp: None,
            zone_tainted_max: None,
        }
    })
}

/// Runs a property over many clusters and checks that it met every kind of case.
#[track_caller]
fn always(name: &str, property: impl Fn(&Scene, &Decision) -> Result<(), TestCaseError>) {
    let tally = over(name, case(), property);
    assert!(
        [tally.tainted, tally.drained, tally.held, tally.released]
            .iter()
            .all(|count| *count > 0),
        "the cases have to taint, drain, hold and release: {tally}"
    );
}

/// The same over clusters in which much is to be moved.
#[track_caller]
fn always_moving(name: &str, property: impl Fn(&Scene, &Decision) -> Result<(), TestCaseError>) {
    let tally = over(name, moving(), property);
    assert!(
        [
            tally.drained,
            tally.no_room,
            tally.shared_budget,
            tally.moved
        ]
        .iter()
        .all(|count| *count > 0),
        "the cases have to move Pods, find no room and share budgets: {tally}"
    );
}

fn over(
    name: &str,
    cases: impl Strategy<Value = Case>,
    property: impl Fn(&Scene, &Decision) -> Result<(), TestCaseError>,
) -> Tally {
    // The same cases in every run: a test that fails by chance is a test that is run again.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let config = Config {
        cases: crate::support::cases(4_000),
        failure_persistence: None,
        ..Config::default()
    };
    let tally = RefCell::new(Tally::default());
    let outcome = TestRunner::new_with_rng(config, rng).run(&cases, |case| {
        let scene = case.scene();
        let decision = decide(&scene.policy, &scene.memory, &scene.world);
        tally.borrow_mut().count(&decision);
        property(&scene, &decision)
    });
    let tally = tally.into_inner();
    println!("property {name}: {tally}");
    if let Err(error) = outcome {
        panic!("{error}");
    }
    tally
}

fn carry_out(scene: &Scene, decision: &Decision) -> Scene {
    let mut next = scene.clone();
    next.memory = decision.memory.clone();
    apply(&mut next.world, &decision.plan);
    next
}

fn with_our_taint(world: &World, taint: &Taint) -> usize {
    world
        .nodes
        .values()
        .filter(|node| node.taints.contains(taint) && node.record.ours().is_some())
        .count()
}

fn in_phase(world: &World, phase: RecordedPhase) -> usize {
    world
        .nodes
        .values()
        .filter(|node| {
            node.record
                .ours()
                .is_some_and(|record| record.phase == phase)
        })
        .count()
}

#[test]
fn deciding_again_on_the_outcome_changes_nothing() {
    always("settled", |scene, decision| {
        let next = carry_out(scene, decision);
        let again = decide(&next.policy, &next.memory, &next.world);
        prop_assert!(
            again.plan.marks.is_empty(),
            "it goes on: {:#?}",
            again.plan.marks
        );
        prop_assert_eq!(again.plan.cluster, None);
        Ok(())
    });
}

#[test]
fn drains_that_begin_share_no_budget_and_no_room() {
    always_moving("moving: budgets and room", |scene, decision| {
        let next = carry_out(scene, decision);
        budgets_and_room(scene, &next, decision)
    });
}

#[test]
fn where_much_is_to_be_moved_it_is_settled_and_the_audit_agrees() {
    always_moving("moving: settled", |scene, decision| {
        let next = carry_out(scene, decision);
        let again = decide(&next.policy, &next.memory, &next.world);
        prop_assert!(
            again.plan.marks.is_empty(),
            "it goes on: {:#?}",
            again.plan.marks
        );
        let audited = audit(
            &scene.policy,
            &decision.memory,
            &scene.world,
            decision.plan.clone(),
        );
        prop_assert!(audited.is_ok(), "{:?}", audited.err());
        Ok(())
    });
}

#[test]
fn what_is_done_stays_within_every_budget() {
    always("within budget", |scene, decision| {
        let next = carry_out(scene, decision);
        let limits = &scene.policy.limits;
        let base = next
            .world
            .nodes
            .values()
            .filter(|node| node.ready && !node.cordoned)
            .count();
        let taint = &scene.policy.rules.taint;
        let in_flight = scene.world.writes.len();
        let (before, after) = (
            with_our_taint(&scene.world, taint),
            with_our_taint(&next.world, taint),
        );
        if after > before {
            prop_assert!(
                after + in_flight <= limits.tainted_max.of(base) + tainted_and_in_flight(scene),
                "{after} tainted"
            );
            let well = next.world.nodes.values().filter(|node| {
                let score = next.world.scores[&node.id.name].risk;
                node.ready
                    && !node.cordoned
                    && node.taints.is_empty()
                    && !score.is_ok_and(|risk| risk > scene.policy.rules.at_risk)
            });
            prop_assert!(well.count() >= 1, "no Node is left for the work");
        }
        let draining = |world| in_phase(world, RecordedPhase::Draining);
        if draining(&next.world) > draining(&scene.world) {
            prop_assert!(
                draining(&next.world) <= limits.draining_max.of(base),
                "too many drains at once"
            );
            let cluster = next.world.cluster.as_ref().expect("a drain began");
            let recent = cluster
                .drains
                .keys()
                .filter(|(at, _)| since(*at, now()) < HOUR)
                .count();
            prop_assert!(
                recent <= limits.drains_per_hour as usize,
                "{recent} drains within the hour"
            );
            budgets_and_room(scene, &next, decision)?;
        }
        Ok(())
    });
}

/// No two Nodes that are drained, of which one has just begun, have Pods under one budget; and if every Pod
/// goes where the plan says that it fits, no Node has more than it can hold.
fn budgets_and_room(scene: &Scene, next: &Scene, decision: &Decision) -> Result<(), TestCaseError> {
    let leaving = |name: &str| -> Vec<PodFacts> {
        match &next.world.nodes[name].pods {
            Fact::Known(_, pods) => pods
                .iter()
                .filter(|pod| classify(pod, &scene.policy.drain) == Disposition::Evict)
                .cloned()
                .collect(),
            Fact::Assumed(_) | Fact::Unknown => Vec::new(),
        }
    };
    let drained = next.world.nodes.values().filter(|node| {
        let record = node.record.ours();
        record.is_some_and(|record| record.phase == RecordedPhase::Draining)
    });
    let drained: Vec<&str> = drained.map(|node| node.id.name.as_str()).collect();
    let begun = |name: &str| {
        let mut orders = decision.plan.marks.iter();
        orders.any(|order| order.cause == Cause::DrainStart && order.node.name.as_str() == name)
    };
    for one in drained.iter().filter(|name| begun(name)) {
        for other in drained.iter().filter(|other| *other != one) {
            for pod in leaving(one).iter().flat_map(|pod| &pod.budgets) {
                let shares =
                    |other: &PodFacts| other.budgets.iter().any(|budget| budget.name == pod.name);
                prop_assert!(
                    !leaving(other).iter().any(shares),
                    "{one} and {other} share {}",
                    pod.name
                );
            }
        }
        let places = &decision.plan.places[*one];
        prop_assert!(
            leaving(one)
                .iter()
                .all(|pod| places.iter().any(|place| place.pod == pod.id)),
            "a Pod of {one} has no place"
        );
        let mut load: BTreeMap<&str, u64> = BTreeMap::new();
        for place in places {
            let all = drained.iter().flat_map(|name| leaving(name));
            let pod = all
                .into_iter()
                .find(|pod| pod.id == place.pod)
                .expect("a Pod that goes");
            *load.entry(place.on.as_str()).or_default() += pod.needs.requests.cpu;
            let target = &next.world.nodes[&place.on];
            let zone = pod.needs.node_selector.get(ZONE);
            prop_assert!(zone.is_none() || zone == target.labels.get(ZONE));
            prop_assert!(
                target.ready
                    && !target.cordoned
                    && target
                        .taints
                        .iter()
                        .all(|taint| *taint != scene.policy.rules.taint)
            );
        }
        for (name, more) in load {
            let target = &next.world.nodes[name];
            let Fact::Known(_, pods) = &target.pods else {
                return Err(TestCaseError::fail(format!("{name} is not known")));
            };
            let there: u64 = pods.iter().map(|pod| pod.needs.requests.cpu).sum();
            prop_assert!(there + more <= target.allocatable.cpu, "{name} is too full");
        }
    }
    Ok(())
}

/// Nodes that are tainted already and have a write under way besides are counted once by the limit.
fn tainted_and_in_flight(scene: &Scene) -> usize {
    scene
        .world
        .writes
        .keys()
        .filter(|name| {
            scene.world.nodes[*name]
                .taints
                .contains(&scene.policy.rules.taint)
        })
        .count()
}

#[test]
fn the_order_in_which_things_are_told_makes_no_difference() {
    always("order-free", |scene, decision| {
        let mut other = scene.clone();
        for alerts in other.world.alerts.values_mut() {
            alerts.reverse();
        }
        other.world.nodes = scene
            .world
            .nodes
            .iter()
            .rev()
            .map(|(name, node)| (name.clone(), node.clone()))
            .collect();
        let again = decide(&other.policy, &other.memory, &other.world);
        prop_assert_eq!(&again.plan, &decision.plan);
        prop_assert_eq!(&again.verdicts, &decision.verdicts);
        Ok(())
    });
}

#[test]
fn stale_data_neither_disrupts_nor_releases() {
    always("stale data", |scene, _| {
        let mut stale = scene.clone();
        stale.world.alerts = BTreeMap::new();
        for score in stale.world.scores.values_mut() {
            score.at = ago(now(), 2 * MINUTE);
        }
        let decision = decide(&stale.policy, &stale.memory, &stale.world);
        for order in &decision.plan.marks {
            // A record that has run out, or one without its drain, is tidied without touching a mark.
            prop_assert!(
                order.taints_added().is_empty() && order.taints_removed().is_empty(),
                "{order:#?}"
            );
            prop_assert!(
                !order.cause.begins() && order.cause != Cause::Release,
                "{order:#?}"
            );
        }
        prop_assert!(
            decision.plan.drains.iter().all(|order| !order.sends),
            "a drain goes on in the dark"
        );
        Ok(())
    });
}

#[test]
fn the_audit_passes_what_the_planner_plans() {
    always("audit agrees", |scene, decision| {
        let audited = audit(
            &scene.policy,
            &decision.memory,
            &scene.world,
            decision.plan.clone(),
        );
        prop_assert!(audited.is_ok(), "{:?}", audited.err());
        Ok(())
    });
}

#[test]
fn observing_changes_what_is_done_and_never_what_is_seen() {
    always("observe", |scene, decision| {
        let mut observing = scene.clone();
        observing.policy.rules.reach = Reach::Observe;
        let seen = decide(&observing.policy, &observing.memory, &observing.world);
        prop_assert_eq!(&seen.plan, &Plan::empty(now()));
        for (name, verdict) in &seen.verdicts {
            let other = &decision.verdicts[name];
            prop_assert_eq!(
                (verdict.risk, verdict.band, verdict.phase),
                (other.risk, other.band, other.phase)
            );
        }
        Ok(())
    });
}

#[test]
fn more_is_asked_than_done_only_with_a_reason() {
    always("one primary hold", |scene, decision| {
        for (name, verdict) in &decision.verdicts {
            let ordered = decision
                .plan
                .marks
                .iter()
                .any(|order| order.node.name == *name && order.cause != Cause::Caution);
            let draining = decision
                .plan
                .drains
                .iter()
                .any(|order| order.node.name == *name && order.sends);
            let in_flight = scene.world.writes.contains_key(name);
            let asked =
                verdict.band == foreshock_core::risk::Band::AtRisk || verdict.risk.is_none();
            if asked
                && !ordered
                && !draining
                && !in_flight
                && scene.policy.rules.reach == Reach::Evict
            {
                prop_assert!(
                    verdict.hold().is_some(),
                    "no reason is given for {name}: {verdict:#?}"
                );
            }
        }
        Ok(())
    });
}

/// The Nodes on which this is begun.
fn begun(decision: &Decision, cause: Cause) -> BTreeSet<NodeName> {
    decision
        .plan
        .marks
        .iter()
        .filter(|order| order.cause == cause)
        .map(|order| order.node.name.clone())
        .collect()
}

/// The Nodes from which Pods may be evicted now.
fn sending(decision: &Decision) -> BTreeSet<NodeName> {
    decision
        .plan
        .drains
        .iter()
        .filter(|order| order.sends)
        .map(|order| order.node.name.clone())
        .collect()
}

#[test]
fn a_higher_risk_never_takes_away_what_a_lower_one_brought_and_never_releases() {
    always("monotone", |scene, decision| {
        for (name, score) in &scene.world.scores {
            let at_risk = score
                .risk
                .is_ok_and(|risk| risk > scene.policy.rules.at_risk);
            if !at_risk {
                continue;
            }
            let mut worse = scene.clone();
            worse.world.scores.get_mut(name).expect("it was there").risk =
                Ok(crate::support::risk(1.0));
            let again = decide(&worse.policy, &worse.memory, &worse.world);
            for cause in [Cause::Taint, Cause::DrainStart] {
                prop_assert!(
                    !begun(decision, cause).contains(name) || begun(&again, cause).contains(name),
                    "{name} loses its {cause:?}"
                );
            }
            prop_assert!(!begun(&again, Cause::Release).contains(name));
        }
        Ok(())
    });
}

#[test]
fn between_the_thresholds_nothing_is_begun_and_nothing_given_back() {
    always("dead band", |scene, decision| {
        for (name, verdict) in &decision.verdicts {
            let rules = &scene.policy.rules;
            let between = verdict
                .risk
                .is_some_and(|risk| risk <= rules.at_risk && risk >= rules.recover_below);
            if between {
                for cause in [Cause::Taint, Cause::DrainStart, Cause::Release] {
                    prop_assert!(!begun(decision, cause).contains(name), "{name}: {cause:?}");
                }
            }
        }
        Ok(())
    });
}

#[test]
fn what_is_not_ours_is_left_alone() {
    always("hands off", |scene, decision| {
        for order in &decision.plan.marks {
            let node = &scene.world.nodes[&order.node.name];
            let untouchable = node.excluded
                || node.hold_until.is_some()
                || matches!(
                    node.record,
                    RecordState::Foreign { .. } | RecordState::Unreadable { .. }
                );
            prop_assert!(!untouchable, "{order:#?}");
            let others = node.cordoned
                || node.control_plane
                || node.taken_by.is_some()
                || node
                    .taints
                    .iter()
                    .any(|taint| taint.value == "somebody-elses");
            prop_assert!(!others || !order.begins(), "{order:#?}");
            for removed in order.taints_removed() {
                let record = node.record.ours().expect("only what is recorded is ours");
                let ours = [&record.marks.taint, &record.marks.caution_taint];
                prop_assert!(ours.contains(&&Some(removed.clone())), "{order:#?}");
            }
        }
        for name in sending(decision) {
            let node = &scene.world.nodes[&name];
            prop_assert!(!node.excluded && node.hold_until.is_none() && node.taken_by.is_none());
        }
        Ok(())
    });
}

#[test]
fn in_a_storm_nothing_is_begun_and_no_drain_sends() {
    always("storm holds", |_, decision| {
        if decision.storm.is_some() {
            prop_assert!(
                decision.plan.marks.iter().all(|order| !order.begins()),
                "{:#?}",
                decision.plan.marks
            );
            prop_assert!(sending(decision).is_empty());
        }
        if let Some(ramp) = &decision.memory.ramp {
            let new =
                begun(decision, Cause::Taint).len() + begun(decision, Cause::DrainStart).len();
            prop_assert!(new <= ramp.width as usize, "{new} begun in {ramp:?}");
        }
        Ok(())
    });
}

#[test]
fn a_shorter_reach_does_less_and_sees_the_same() {
    always("reach", |scene, decision| {
        for reach in Reach::ALL {
            if reach > scene.policy.rules.reach {
                continue;
            }
            let mut shorter = scene.clone();
            shorter.policy.rules.reach = reach;
            let less = decide(&shorter.policy, &shorter.memory, &shorter.world);
            for cause in [Cause::Taint, Cause::DrainStart] {
                let (more, less) = (begun(decision, cause), begun(&less, cause));
                prop_assert!(less.is_subset(&more), "{cause:?}: {less:?} of {more:?}");
            }
            prop_assert!(sending(&less).is_subset(&sending(decision)));
            for (name, verdict) in &less.verdicts {
                let other = &decision.verdicts[name];
                prop_assert_eq!(
                    (verdict.risk, verdict.band, verdict.phase),
                    (other.risk, other.band, other.phase)
                );
            }
            // What is ours is given back, however short the reach; but by `observe`, which writes nothing.
            if reach > Reach::Observe {
                let (less, more) = (
                    begun(&less, Cause::Release),
                    begun(decision, Cause::Release),
                );
                prop_assert_eq!(less, more);
            }
        }
        Ok(())
    });
}

#[test]
fn forgetting_everything_never_adds_a_disruption() {
    always("restart-safe", |scene, decision| {
        let again = decide(&scene.policy, &Memory::default(), &scene.world);
        for cause in [Cause::Taint, Cause::DrainStart, Cause::Release] {
            let (before, after) = (begun(decision, cause), begun(&again, cause));
            prop_assert!(
                after.len() <= before.len(),
                "{cause:?}: {after:?} instead of {before:?}"
            );
        }
        prop_assert!(sending(&again).is_subset(&sending(decision)));
        let audited = audit(
            &scene.policy,
            &again.memory,
            &scene.world,
            again.plan.clone(),
        );
        prop_assert!(audited.is_ok(), "{:?}", audited.err());
        Ok(())
    });
}

#[test]
fn every_verdict_has_one_primary_hold_and_no_reason_twice() {
    always("holds", |_, decision| {
        for verdict in decision.verdicts.values() {
            let reasons: Vec<_> = verdict.holds.iter().map(|hold| hold.reason).collect();
            let mut sorted = reasons.clone();
            sorted.sort();
            sorted.dedup();
            prop_assert_eq!(sorted, reasons, "in the order of precedence, each once");
        }
        Ok(())
    });
}
