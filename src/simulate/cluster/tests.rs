use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use foreshock_core::decision::plan::{Cause, MarkOrder};
use foreshock_core::decision::world::HoldUntil;
use foreshock_core::drain::{Answer, EvictionAllowance, PodFacts, PodId};
use foreshock_core::node::{NodeId, NodeName};
use foreshock_core::record::{
    ClusterRecord, Marks, NodeRecord, RecordState, RecordedPhase, RiskLabel, Taint, TaintEffect,
};
use foreshock_core::time::after;
use futures::FutureExt;
use jiff::Timestamp;

use super::random::Random;
use super::*;

fn start() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().expect("a time")
}

fn at(milliseconds: u64) -> Timestamp {
    after(start(), Duration::from_millis(milliseconds))
}

fn demo(seed: u64) -> Arc<SimulatedCluster> {
    SimulatedCluster::new(SimulatedClusterOptions::demo(seed, start()))
}

fn small(workloads: Vec<WorkloadSpec>) -> Arc<SimulatedCluster> {
    let nodes = ["a", "b", "c"].map(NodeSpec::worker).to_vec();
    SimulatedCluster::new(SimulatedClusterOptions::new(7, start(), nodes, workloads))
}

/// The calls of the simulated cluster never wait.
fn now<T>(future: BoxFuture<'_, T>) -> T {
    future.now_or_never().expect("answered at once")
}

fn node(cluster: &SimulatedCluster, name: &str) -> NodeId {
    cluster.nodes().borrow().nodes[name].facts.id.clone()
}

fn entry(cluster: &SimulatedCluster, name: &str) -> NodeEntry {
    (*cluster.nodes().borrow().nodes[name]).clone()
}

fn pods(cluster: &SimulatedCluster, workload: &str) -> Vec<(Option<NodeName>, PodFacts)> {
    let mut pods = cluster.all_pods();
    pods.retain(|(_, pod)| pod.id.name.starts_with(&format!("{workload}-")));
    pods
}

fn id(cluster: &SimulatedCluster, workload: &str) -> PodId {
    let mut pods = pods(cluster, workload);
    pods.retain(|(_, pod)| pod.terminating_until.is_none());
    pods.first().expect("a Pod that stays").1.id.clone()
}

fn evict(cluster: &SimulatedCluster, pod: &PodId) -> Answer {
    now(cluster.evict(pod, None))
}

fn our_taint() -> Taint {
    Taint {
        key: "degradation".into(),
        value: "true".into(),
        effect: TaintEffect::NoSchedule,
    }
}

fn tainted(id: &NodeId) -> NodeRecord {
    NodeRecord {
        phase: RecordedPhase::Tainted,
        marks: Marks {
            taint: Some(our_taint()),
            label: Some(RiskLabel::AtRisk),
            ..Marks::default()
        },
        ..NodeRecord::clear("foreshock", &id.uid, start())
    }
}

fn order(
    id: &NodeId,
    cause: Cause,
    expects: Option<NodeRecord>,
    record: Option<NodeRecord>,
) -> MarkOrder {
    MarkOrder {
        node: id.clone(),
        cause,
        note: String::new(),
        expects: expects.map(Box::new),
        record: record.map(Box::new),
    }
}

fn taint(cluster: &SimulatedCluster, name: &str) -> NodeId {
    let id = node(cluster, name);
    let order = order(&id, Cause::Taint, None, Some(tainted(&id)));
    now(cluster.mark(&order)).expect("tainted");
    id
}

// ---- Pods ----

#[test]
fn the_demo_starts_with_everything_placed_ready_and_spread() {
    let cluster = demo(1);
    let pods = cluster.all_pods();
    assert_eq!(pods.len(), 6 + 4 + 3 + 5 + 4 + 3 + 2 + 2 + 3 + 3 + 2 + 12);
    assert!(
        pods.iter()
            .all(|(node, pod)| node.is_some() && pod.ready && pod.terminating_until.is_none())
    );
    let counts: Vec<usize> = cluster.pods_per_node().into_values().collect();
    assert_eq!(counts.len(), 12);
    assert!(
        counts.iter().all(|count| (3..=4).contains(count)),
        "{counts:?}"
    );
    let names: BTreeSet<&PodId> = pods.iter().map(|(_, pod)| &pod.id).collect();
    assert_eq!(names.len(), pods.len());
    assert!(cluster.nodes().borrow().synced);
    assert_eq!(*cluster.lease().borrow(), LeaseState::Absent);
    // Some budget has room, and none starts exceeded.
    for budget in cluster.budgets() {
        assert!(
            budget.allowed > 0 && budget.healthy >= budget.desired,
            "{budget:?}"
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_story_and_another_seed_another() {
    let story = |seed: u64| {
        let cluster = demo(seed);
        let mut random = Random::new(99);
        for step in 1..200 {
            let pods = cluster.all_pods();
            let chosen = pick(&mut random, pods.len());
            evict(&cluster, &pods[chosen].1.id);
            cluster.advance(at(step * 300));
        }
        (cluster.all_pods(), cluster.writes())
    };
    assert_eq!(story(1), story(1));
    assert_ne!(story(1), story(2));
}

fn pick(random: &mut Random, n: usize) -> usize {
    let range = Duration::ZERO..=Duration::from_millis(n as u64 - 1);
    random.within(&range).as_millis() as usize
}

#[test]
fn under_random_evictions_no_budget_is_exceeded_and_no_replica_is_lost() {
    let (mut accepted, mut blocked) = (0, 0);
    for seed in 0..6 {
        let cluster = demo(seed);
        let mut random = Random::new(seed);
        let mut began: BTreeMap<PodId, u32> = BTreeMap::new();
        for step in 1..400 {
            let pods = cluster.all_pods();
            let pod = &pods[pick(&mut random, pods.len())].1;
            let before = budgets(&cluster);
            match evict(&cluster, &pod.id) {
                Answer::Accepted => accepted += 1,
                Answer::BlockedByBudget { .. } => blocked += 1,
                other => panic!("{other:?}"),
            }
            for (name, budget) in budgets(&cluster) {
                // A budget that is kept is not broken by an eviction.
                let kept = before[&name].healthy >= budget.desired;
                assert!(!kept || budget.healthy >= budget.desired, "{budget:?}");
            }
            cluster.advance(at(step * 200));
            for (workload, replicas) in [("web", 6), ("cart", 3), ("mailer", 3), ("search", 5)] {
                let active = self::pods(&cluster, workload)
                    .into_iter()
                    .filter(|(_, pod)| pod.terminating_until.is_none())
                    .count();
                assert_eq!(active, replicas, "{workload}");
            }
            assert!(self::pods(&cluster, "orders-db").len() <= 3);
        }
        for write in cluster.writes() {
            if let WriteKind::Evict {
                pod, began: true, ..
            } = write.what
            {
                *began.entry(pod).or_default() += 1;
            }
        }
        assert!(began.values().all(|times| *times == 1));
        cluster.advance(at(600_000));
        assert!(cluster.all_pods().iter().all(|(_, pod)| pod.ready));
    }
    assert!(accepted > 500 && blocked > 50, "{accepted} {blocked}");
}

fn budgets(cluster: &SimulatedCluster) -> BTreeMap<String, BudgetStatus> {
    let all = cluster.budgets().into_iter();
    all.map(|budget| (budget.name.clone(), budget)).collect()
}

#[test]
fn an_evicted_pod_goes_in_its_time_and_another_takes_its_place_at_once() {
    let cluster = small(vec![WorkloadSpec::deployment("shop", "web", 3)]);
    let pod = id(&cluster, "web");
    assert_eq!(evict(&cluster, &pod), Answer::Accepted);
    let found = now(cluster.read_pod(&pod)).expect("read").expect("there");
    assert_eq!(found.terminating_until, Some(at(30_000)));
    assert_eq!(pods(&cluster, "web").len(), 4);
    let ready = |cluster: &SimulatedCluster| {
        let pods = pods(cluster, "web");
        pods.iter().filter(|(_, pod)| pod.ready).count()
    };
    cluster.advance(at(999));
    assert_eq!(
        (pods(&cluster, "web").len(), ready(&cluster)),
        (4, 3),
        "nothing is done in a second"
    );
    cluster.advance(at(2_000));
    assert_eq!(now(cluster.read_pod(&pod)), Ok(None));
    cluster.advance(at(3_000));
    assert_eq!((pods(&cluster, "web").len(), ready(&cluster)), (3, 3));
    // Going back in time does nothing.
    cluster.advance(at(0));
    assert_eq!(cluster.now(), at(3_000));
}

#[test]
fn a_stateful_sets_pod_comes_back_under_its_name_with_another_uid() {
    let cluster = small(vec![WorkloadSpec::stateful_set("shop", "db", 3)]);
    let names = |cluster: &SimulatedCluster| {
        let pods = pods(cluster, "db").into_iter();
        pods.map(|(_, pod)| pod.id.name).collect::<Vec<_>>()
    };
    assert_eq!(names(&cluster), ["db-0", "db-1", "db-2"]);
    let old = id(&cluster, "db");
    evict(&cluster, &old);
    assert_eq!(
        names(&cluster).len(),
        3,
        "the old one is still there, and no other beside it"
    );
    cluster.advance(at(10_000));
    assert_eq!(names(&cluster), ["db-0", "db-1", "db-2"]);
    let new = id(&cluster, "db");
    assert_ne!(old.uid, new.uid);
    // The old UID is gone, and asking for it touches nobody.
    assert_eq!(evict(&cluster, &old), Answer::Gone);
    assert_eq!(now(cluster.read_pod(&old)), Ok(None));
    let (_, found) = &pods(&cluster, "db")[0];
    assert_eq!(
        (found.terminating_until, found.claims.as_slice()),
        (None, &["data-db-0".to_owned()][..])
    );
}

#[test]
fn a_second_eviction_of_a_pod_that_goes_is_accepted_and_changes_nothing() {
    let cluster = small(vec![
        WorkloadSpec::deployment("shop", "web", 2).max_unavailable(1),
    ]);
    let pod = id(&cluster, "web");
    assert_eq!(evict(&cluster, &pod), Answer::Accepted);
    let before = cluster.all_pods();
    assert_eq!(evict(&cluster, &pod), Answer::Accepted);
    assert_eq!(cluster.all_pods(), before);
    let began = cluster
        .writes()
        .into_iter()
        .filter(|write| matches!(write.what, WriteKind::Evict { began: true, .. }));
    assert_eq!(began.count(), 1);
    // A shorter grace period takes effect, a longer one does not.
    now(cluster.evict(&pod, Some(Duration::from_secs(5))));
    now(cluster.evict(&pod, Some(Duration::from_secs(500))));
    let found = now(cluster.read_pod(&pod)).expect("read").expect("there");
    assert_eq!(found.terminating_until, Some(at(5_000)));
}

#[test]
fn what_stays_on_a_tainted_node_stays_and_nothing_new_comes() {
    let cluster = demo(3);
    let name = NodeName::from("worker-02");
    let id = taint(&cluster, "worker-02");
    assert_eq!(
        entry(&cluster, "worker-02").labels["foreshock.dev/risk"],
        "at-risk"
    );
    let before = cluster.pods_per_node()[&name];
    assert!(before > 0);
    cluster.advance(at(60_000));
    assert_eq!(cluster.pods_per_node()[&name], before);
    // Drained by hand, as its budgets allow it.
    let mut time = 60_000;
    for _ in 0..100 {
        for pod in now(cluster.pods(&id)).expect("read") {
            if pod
                .owner
                .as_ref()
                .is_some_and(|owner| owner.kind != "DaemonSet")
            {
                evict(&cluster, &pod.id);
            }
        }
        time += 500;
        cluster.advance(at(time));
    }
    assert_eq!(cluster.pods_per_node()[&name], 0);
    assert!(cluster.load_share(&name) == 0.0);
    let left = now(cluster.pods(&id)).expect("read");
    assert_eq!(left.len(), 1, "the exporter stays: {left:?}");
    let total: usize = cluster.pods_per_node().values().sum();
    assert_eq!(total, 37);
    assert!(cluster.all_pods().iter().all(|(_, pod)| pod.ready));
    // Released, it takes work again.
    let record = tainted(&id);
    let release = order(&id, Cause::Release, Some(record), None);
    now(cluster.mark(&release)).expect("released");
    assert_eq!(entry(&cluster, "worker-02").facts.taints, []);
    assert_eq!(entry(&cluster, "worker-02").facts.risk_label, None);
    cluster.scale("shop", "cart", 6);
    assert!(cluster.pods_per_node()[&name] > 0);
}

#[test]
fn a_preferred_node_is_one_without_a_caution_taint() {
    let cluster = small(vec![]);
    let caution = Taint {
        key: "degradation".into(),
        value: "caution".into(),
        effect: TaintEffect::PreferNoSchedule,
    };
    cluster.add_taint(&"a".into(), caution.clone());
    cluster.add_workload(WorkloadSpec::deployment("shop", "web", 4));
    assert_eq!(cluster.pods_per_node()[&NodeName::from("a")], 0);
    // Where there is no other, it will do.
    cluster.add_taint(&"b".into(), caution.clone());
    cluster.add_taint(&"c".into(), caution);
    cluster.scale("shop", "web", 6);
    assert_eq!(cluster.pods_per_node()[&NodeName::from("a")], 2);
}

#[test]
fn pods_without_a_place_wait_for_one() {
    let cluster = small(vec![WorkloadSpec::deployment("shop", "web", 3)]);
    for name in ["a", "b", "c"] {
        cluster.cordon(&name.into(), true);
    }
    evict(&cluster, &id(&cluster, "web"));
    cluster.advance(at(10_000));
    let waiting = |cluster: &SimulatedCluster| {
        let pods = pods(cluster, "web");
        pods.iter().filter(|(node, _)| node.is_none()).count()
    };
    assert_eq!(waiting(&cluster), 1);
    cluster.cordon(&"b".into(), false);
    assert_eq!(waiting(&cluster), 0);
    let full = SimulatedCluster::new(SimulatedClusterOptions::new(
        1,
        start(),
        vec![NodeSpec {
            pods_max: 2,
            ..NodeSpec::worker("a")
        }],
        vec![WorkloadSpec::deployment("shop", "web", 3)],
    ));
    assert_eq!(waiting(&full), 1);
}

#[test]
fn the_scheduler_may_still_bind_pods_just_after_the_taint() {
    let mut options = SimulatedClusterOptions::demo(5, start());
    options.scheduler_lag = Duration::from_secs(2);
    let cluster = SimulatedCluster::new(options);
    let name = NodeName::from("worker-12");
    taint(&cluster, "worker-12");
    let before = cluster.pods_per_node()[&name];
    cluster.scale("shop", "web", 30);
    let late = cluster.pods_per_node()[&name];
    assert!(late > before);
    cluster.advance(at(2_000));
    cluster.scale("shop", "web", 60);
    assert_eq!(cluster.pods_per_node()[&name], late);
}

// ---- budgets ----

#[test]
fn a_spent_budget_refuses_in_the_words_of_the_api_server() {
    let cluster = small(vec![
        WorkloadSpec::deployment("shop", "web", 2).min_available(2),
    ]);
    let pod = id(&cluster, "web");
    let Answer::BlockedByBudget {
        detail,
        retry_after: None,
    } = evict(&cluster, &pod)
    else {
        panic!("refused");
    };
    assert_eq!(
        detail,
        "Cannot evict pod as it would violate the pod's disruption budget. The disruption budget \
         web needs 2 healthy pods and has 2 currently"
    );
    let facts = &pods(&cluster, "web")[0].1;
    assert_eq!(facts.budgets[0].allowance, EvictionAllowance::Never);
    assert_eq!(facts.budgets[0].detail, "2 of 2 healthy, 2 wanted");
    // Somebody changes the budget: it is seen at once.
    cluster.edit("shop", "web", |spec| {
        spec.budgets[0].rule = BudgetRule::MaxUnavailable(Amount::Percent(50));
    });
    assert_eq!(
        pods(&cluster, "web")[0].1.budgets[0].allowance,
        EvictionAllowance::Now(1)
    );
    assert_eq!(evict(&cluster, &pod), Answer::Accepted);
}

#[test]
fn budgets_count_as_the_disruption_controller_does() {
    let check = |rule: BudgetRule, replicas: u32, desired: u32, allowed: u32| {
        let spec = WorkloadSpec::deployment("shop", "web", replicas).budget(rule);
        let status = small(vec![spec]).budgets().remove(0);
        assert_eq!(
            (status.desired, status.allowed),
            (desired, allowed),
            "{rule:?} of {replicas}"
        );
    };
    let max = BudgetRule::MaxUnavailable;
    let min = BudgetRule::MinAvailable;
    check(max(Amount::Count(1)), 3, 2, 1);
    check(max(Amount::Count(0)), 3, 3, 0);
    check(max(Amount::Count(9)), 3, 0, 3);
    check(max(Amount::Percent(30)), 4, 2, 2); // 1.2 rounded up
    check(max(Amount::Percent(0)), 4, 4, 0);
    check(min(Amount::Count(2)), 3, 2, 1);
    check(min(Amount::Count(5)), 3, 5, 0);
    check(min(Amount::Percent(50)), 3, 2, 1); // 1.5 rounded up
    check(min(Amount::Percent(100)), 3, 3, 0);
}

#[test]
fn two_budgets_over_one_pod_are_refused_and_a_pod_that_never_started_passes() {
    let two = WorkloadSpec::deployment("shop", "web", 3)
        .max_unavailable(1)
        .min_available(1);
    let cluster = small(vec![two]);
    let pod = id(&cluster, "web");
    assert!(matches!(
        evict(&cluster, &pod),
        Answer::OverlappingBudgets { .. }
    ));
    assert_eq!(pods(&cluster, "web")[0].1.budgets.len(), 2);

    let cluster = small(vec![
        WorkloadSpec::deployment("shop", "web", 2).max_unavailable(1),
    ]);
    evict(&cluster, &id(&cluster, "web"));
    let young = pods(&cluster, "web")
        .into_iter()
        .find(|(_, pod)| !pod.ready && pod.terminating_until.is_none())
        .expect("the replacement")
        .1;
    assert_eq!(cluster.budgets()[0].allowed, 0);
    assert_eq!(
        evict(&cluster, &young.id),
        Answer::Accepted,
        "Pending Pods pass the budget"
    );
}

#[test]
fn a_crashed_pod_passes_only_where_its_budget_lets_unhealthy_ones_go() {
    let check = |always: bool, expected: fn(&Answer) -> bool| {
        let mut spec = WorkloadSpec::deployment("shop", "web", 2).min_available(2);
        spec.budgets[0].always_allow_unhealthy = always;
        let cluster = small(vec![spec]);
        let pod = id(&cluster, "web");
        cluster.break_pod(&pod);
        let answer = evict(&cluster, &pod);
        assert!(expected(&answer), "{answer:?}");
    };
    check(false, |answer| {
        matches!(answer, Answer::BlockedByBudget { .. })
    });
    check(true, |answer| *answer == Answer::Accepted);
    // With enough others, it goes without spending anything.
    let cluster = small(vec![
        WorkloadSpec::deployment("shop", "web", 3).max_unavailable(1),
    ]);
    let pod = id(&cluster, "web");
    cluster.break_pod(&pod);
    assert_eq!(cluster.budgets()[0].allowed, 0);
    assert_eq!(evict(&cluster, &pod), Answer::Accepted);
}

#[test]
fn an_eviction_for_an_old_uid_spends_a_disruption_and_touches_nobody() {
    let cluster = small(vec![
        WorkloadSpec::stateful_set("shop", "db", 3).max_unavailable(1),
    ]);
    let pod = PodId {
        uid: "of another time".into(),
        ..id(&cluster, "db")
    };
    assert_eq!(evict(&cluster, &pod), Answer::Gone);
    assert_eq!(cluster.budgets()[0].allowed, 0);
    assert!(matches!(
        evict(&cluster, &id(&cluster, "db")),
        Answer::BlockedByBudget { .. }
    ));
    cluster.advance(at(120_000));
    assert_eq!(cluster.budgets()[0].allowed, 1);
    assert!(
        cluster
            .all_pods()
            .iter()
            .all(|(_, pod)| pod.terminating_until.is_none())
    );
}

// ---- Nodes that fail, Pods that hang ----

#[test]
fn on_a_node_that_does_not_answer_pods_neither_work_nor_finish() {
    let cluster = small(vec![
        WorkloadSpec::deployment("shop", "web", 3).max_unavailable(1),
    ]);
    let name = NodeName::from("a");
    cluster.set_node_ready(&name, false);
    assert!(!entry(&cluster, "a").facts.ready);
    assert_eq!(cluster.budgets()[0].healthy, 2);
    let (_, pod) = pods(&cluster, "web")
        .into_iter()
        .find(|(node, _)| node.as_ref() == Some(&name))
        .expect("one on each Node");
    assert_eq!(evict(&cluster, &pod.id), Answer::Accepted);
    cluster.advance(at(200_000));
    assert!(now(cluster.read_pod(&pod.id)).expect("read").is_some());
    cluster.set_node_ready(&name, true);
    cluster.advance(at(205_000));
    assert_eq!(now(cluster.read_pod(&pod.id)), Ok(None));
    assert_eq!(entry(&cluster, "a").facts.taints, []);

    // After five minutes Kubernetes moves the Pods, and keeps the old ones until the Node is back.
    let cluster = small(vec![WorkloadSpec::deployment("shop", "web", 3)]);
    cluster.set_node_ready(&name, false);
    cluster.advance(at(299_000));
    assert_eq!(cluster.all_pods().len(), 3);
    cluster.advance(at(300_000));
    assert_eq!(cluster.all_pods().len(), 4);
}

#[test]
fn a_finalizer_keeps_a_pod_until_it_is_removed() {
    let cluster = small(vec![WorkloadSpec::deployment("shop", "web", 2)]);
    let pod = id(&cluster, "web");
    cluster.set_finalizers(&pod, &["example.org/hold"]);
    evict(&cluster, &pod);
    cluster.advance(at(600_000));
    let found = now(cluster.read_pod(&pod)).expect("read").expect("there");
    assert_eq!(found.finalizers, ["example.org/hold"]);
    cluster.set_finalizers(&pod, &[]);
    assert_eq!(now(cluster.read_pod(&pod)), Ok(None));
}

#[test]
fn a_daemon_set_covers_new_nodes_and_leaves_orphans() {
    let cluster = small(vec![WorkloadSpec::daemon_set(
        "monitoring",
        "node-exporter",
    )]);
    assert_eq!(pods(&cluster, "node-exporter").len(), 3);
    let old = node(&cluster, "b");
    cluster.recreate_node(&"b".into());
    assert_ne!(node(&cluster, "b").uid, old.uid);
    assert!(matches!(
        now(cluster.pods(&old)),
        Err(ClusterError::Superseded { .. })
    ));
    cluster.advance(at(5_000));
    assert_eq!(pods(&cluster, "node-exporter").len(), 3);
    cluster.delete_controller("monitoring", "node-exporter");
    let orphans = pods(&cluster, "node-exporter");
    assert!(orphans.iter().all(|(_, pod)| pod.daemon_set_gone));
    evict(&cluster, &orphans[0].1.id);
    cluster.advance(at(10_000));
    assert_eq!(pods(&cluster, "node-exporter").len(), 2);
}

// ---- marks ----

#[test]
fn a_mark_is_refused_where_the_node_is_not_as_the_decision_saw_it() {
    type Meanwhile = fn(&SimulatedCluster, &NodeName);
    let name = NodeName::from("a");
    let check = |cause: Cause, meanwhile: Meanwhile, expected: &str| {
        let cluster = small(vec![]);
        let id = node(&cluster, "a");
        let (expects, record) = match cause {
            Cause::Taint => (None, Some(tainted(&id))),
            Cause::DrainStart => {
                taint(&cluster, "a");
                let draining = NodeRecord {
                    phase: RecordedPhase::Draining,
                    ..tainted(&id)
                };
                (Some(tainted(&id)), Some(draining))
            }
            _ => {
                taint(&cluster, "a");
                (Some(tainted(&id)), None)
            }
        };
        let order = order(&id, cause, expects, record);
        meanwhile(&cluster, &name);
        let shown = || cluster.nodes().borrow().nodes.get("a").cloned();
        let before = shown();
        match now(cluster.mark(&order)) {
            Err(ClusterError::Superseded { detail, .. }) if !expected.is_empty() => {
                assert!(detail.contains(expected), "{detail}");
                assert_eq!(shown(), before);
            }
            Ok(_) if expected.is_empty() => {}
            other => panic!("{cause:?}, {expected}: {other:?}"),
        }
    };
    let foreign = |cluster: &SimulatedCluster, name: &NodeName| {
        let theirs = Taint {
            value: "maintenance".into(),
            ..our_taint()
        };
        cluster.add_taint(name, theirs);
    };
    check(Cause::Taint, |_, _| {}, "");
    check(
        Cause::Taint,
        foreign,
        "somebody else's taint degradation=maintenance:NoSchedule",
    );
    check(
        Cause::Taint,
        |cluster, name| {
            cluster.add_taint(name, our_taint());
        },
        "somebody else's",
    );
    check(
        Cause::Taint,
        |cluster, name| {
            cluster.set_excluded(name, true);
        },
        "foreshock.dev/exclude",
    );
    check(
        Cause::Taint,
        |cluster, name| {
            cluster.set_hold_until(name, Some(HoldUntil::Time(at(1_000))));
        },
        "foreshock.dev/hold-until",
    );
    check(
        Cause::Taint,
        |cluster, name| {
            cluster.set_hold_until(name, Some(HoldUntil::Malformed("soon".into())));
        },
        "foreshock.dev/hold-until",
    );
    check(
        Cause::Taint,
        |cluster, name| {
            cluster.set_hold_until(name, Some(HoldUntil::Time(start())));
        },
        "",
    );
    check(
        Cause::Taint,
        |cluster, name| {
            cluster.set_taken_by(name, Some("kured"));
        },
        "kured",
    );
    check(
        Cause::Taint,
        |cluster, name| {
            cluster.set_risk_label(name, Some("mine"));
        },
        "label",
    );
    check(
        Cause::Taint,
        |cluster, name| {
            cluster.recreate_node(name);
        },
        "another Node",
    );
    check(
        Cause::Taint,
        |cluster, name| {
            cluster.delete_node(name);
        },
        "does not exist",
    );
    check(
        Cause::Taint,
        |cluster, name| {
            cluster.set_record(
                name,
                RecordState::Foreign {
                    instance: "other".into(),
                },
            );
        },
        "other",
    );
    check(Cause::DrainStart, |_, _| {}, "");
    check(
        Cause::DrainStart,
        |cluster, name| {
            cluster.remove_taint(name, "degradation");
        },
        "not there any more",
    );
    check(
        Cause::DrainStart,
        |cluster, name| {
            cluster.set_record(name, RecordState::Absent);
        },
        "gone",
    );
    check(
        Cause::DrainStart,
        |cluster, name| {
            cluster.set_excluded(name, true);
        },
        "exclude",
    );
    check(Cause::Release, |_, _| {}, "");
    check(
        Cause::Release,
        |cluster, name| {
            cluster.set_excluded(name, true);
        },
        "exclude",
    );
    check(
        Cause::Release,
        |cluster, name| {
            cluster.set_taken_by(name, Some("kured"));
        },
        "",
    );
    check(
        Cause::Release,
        |cluster, name| {
            cluster.remove_taint(name, "degradation");
        },
        "not there any more",
    );
    check(
        Cause::Veto,
        |cluster, name| {
            cluster.remove_taint(name, "degradation");
        },
        "",
    );
    check(Cause::Veto, |_, _| {}, "there again");
}

#[test]
fn a_release_takes_only_what_is_ours_and_restores_what_was_there() {
    let cluster = small(vec![]);
    let name = NodeName::from("a");
    cluster.set_risk_label(&name, Some("mine"));
    let theirs = Taint {
        key: "dedicated".into(),
        value: "gpu".into(),
        effect: TaintEffect::NoSchedule,
    };
    cluster.add_taint(&name, theirs.clone());
    let before = entry(&cluster, "a");
    let id = node(&cluster, "a");
    let mut record = tainted(&id);
    record.marks.label_before = Some("mine".into());
    let marked =
        now(cluster.mark(&order(&id, Cause::Taint, None, Some(record.clone())))).expect("tainted");
    assert_eq!(marked.facts.taints, [theirs, our_taint()]);
    assert_eq!(
        marked.facts.record,
        RecordState::Ours(Box::new(record.clone()))
    );
    assert_ne!(marked.resource_version, before.resource_version);
    assert_eq!(entry(&cluster, "a"), marked);
    let released =
        now(cluster.mark(&order(&id, Cause::Release, Some(record), None))).expect("released");
    assert_eq!(released.facts, before.facts);
    assert_eq!(released.labels, before.labels);
}

// ---- Lease, watches, faults ----

fn lease_write(expects: Option<String>) -> LeaseWrite {
    LeaseWrite {
        expects,
        holder: Some("a".into()),
        address: None,
        duration: Duration::from_secs(15),
        renewed_at: start(),
        transitions: 0,
        paused: false,
        record: None,
    }
}

#[test]
fn of_two_who_write_the_lease_on_the_same_version_one_wins() {
    let cluster = small(vec![]);
    let seen = cluster.lease();
    let view = now(cluster.write_lease(&lease_write(None))).expect("created");
    assert!(matches!(&*seen.borrow(), LeaseState::Present(found) if **found == view));
    let version = Some(view.resource_version.clone());
    let superseded = |expects: Option<String>| {
        let result = now(cluster.write_lease(&lease_write(expects)));
        assert!(
            matches!(result, Err(ClusterError::Superseded { .. })),
            "{result:?}"
        );
    };
    superseded(None);
    let mut record = ClusterRecord::default();
    record.drains.insert((start(), "a".into()), "uid".into());
    let with_record = LeaseWrite {
        record: Some(record.clone()),
        ..lease_write(version.clone())
    };
    let second = now(cluster.write_lease(&with_record)).expect("renewed");
    superseded(version);
    // A write without a record leaves what stands there.
    let third =
        now(cluster.write_lease(&lease_write(Some(second.resource_version)))).expect("renewed");
    assert_eq!(third.record, Ok(record));
    // Somebody pauses with kubectl: seen, and a write on the old version is refused.
    cluster.set_paused(true);
    assert!(matches!(&*seen.borrow(), LeaseState::Present(found) if found.paused));
    superseded(Some(third.resource_version));
    cluster.delete_lease();
    assert_eq!(*seen.borrow(), LeaseState::Absent);
    superseded(Some("1".into()));
}

#[test]
fn the_watch_of_a_nodes_pods_shows_their_changes_and_only_those() {
    let cluster = small(vec![
        WorkloadSpec::deployment("shop", "web", 3).max_unavailable(1),
    ]);
    let mut a = cluster.watch_pods(&node(&cluster, "a"));
    let mut b = cluster.watch_pods(&node(&cluster, "b"));
    let pod = a.borrow_and_update().pods[0].clone();
    assert_eq!(b.borrow_and_update().pods.len(), 1);
    cluster.advance(at(500));
    assert!(!a.has_changed().expect("open") && !b.has_changed().expect("open"));
    assert_eq!(a.borrow().at, Some(at(500)), "it is as true as ever");
    evict(&cluster, &pod.id);
    let goes = |found: &&PodFacts| found.id == pod.id && found.terminating_until.is_some();
    assert_eq!(a.borrow_and_update().pods.iter().filter(goes).count(), 1);
    // The budget they share is spent: that is news on the other Node as well.
    assert!(b.has_changed().expect("open"));
    assert_eq!(
        b.borrow_and_update().pods[0].budgets[0].allowance,
        EvictionAllowance::Now(0)
    );
    cluster.with_faults(|faults| faults.watches_stand_still = true);
    cluster.advance(at(10_000));
    assert!(!b.has_changed().expect("open"));
    cluster.with_faults(|faults| faults.watches_stand_still = false);
    assert_eq!(
        b.borrow_and_update().pods[0].budgets[0].allowance,
        EvictionAllowance::Now(1)
    );
}

#[test]
fn faults_meet_the_next_call_before_or_after_its_write() {
    let cluster = small(vec![WorkloadSpec::deployment("shop", "web", 3)]);
    let pod = id(&cluster, "web");
    let goes = |cluster: &SimulatedCluster| {
        let found = now(cluster.read_pod(&pod)).expect("read").expect("there");
        found.terminating_until.is_some()
    };
    cluster.with_faults(|faults| {
        faults.evictions.extend([
            Some(Fault::TimeoutBefore),
            Some(Fault::Throttled),
            Some(Fault::TimeoutAfter),
            None,
        ]);
        faults
            .marks
            .extend([Some(Fault::TimeoutBefore), Some(Fault::TimeoutAfter)]);
        faults.leases.extend([Some(Fault::Conflict)]);
        faults.events.extend([Some(Fault::Forbidden)]);
    });
    assert!(matches!(evict(&cluster, &pod), Answer::Lost { .. }) && !goes(&cluster));
    assert!(matches!(evict(&cluster, &pod), Answer::Throttled { .. }) && !goes(&cluster));
    assert!(matches!(evict(&cluster, &pod), Answer::Lost { .. }) && goes(&cluster));
    assert_eq!(evict(&cluster, &pod), Answer::Accepted);

    let id = node(&cluster, "a");
    let order = order(&id, Cause::Taint, None, Some(tainted(&id)));
    for taken_place in [false, true] {
        let result = now(cluster.mark(&order));
        assert!(
            matches!(result, Err(ClusterError::Timeout { .. })),
            "{result:?}"
        );
        assert_eq!(
            entry(&cluster, "a").facts.taints.contains(&our_taint()),
            taken_place
        );
    }
    let lease = now(cluster.write_lease(&lease_write(None)));
    assert!(matches!(lease, Err(ClusterError::Superseded { .. })));
    assert!(now(cluster.write_lease(&lease_write(None))).is_ok());
    let event = ClusterEvent {
        node: id,
        pod: None,
        reason: "DegradationTainted",
        warning: false,
        note: "because".into(),
    };
    assert!(matches!(
        now(cluster.publish(&event)),
        Err(ClusterError::Forbidden { .. })
    ));
    assert_eq!(cluster.events(), []);
    assert_eq!(now(cluster.publish(&event)), Ok(()));
    assert_eq!(cluster.events().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn it_follows_a_clock() {
    let cluster = small(vec![WorkloadSpec::deployment("shop", "web", 3)]);
    let began = tokio::time::Instant::now();
    let clock = move || after(start(), began.elapsed());
    let follow = cluster.follow(clock, Duration::from_millis(100));
    evict(&cluster, &id(&cluster, "web"));
    let _ = tokio::time::timeout(Duration::from_secs(5), follow).await;
    assert!(cluster.now() >= at(4_900));
    assert!(cluster.all_pods().iter().all(|(_, pod)| pod.ready));
}
