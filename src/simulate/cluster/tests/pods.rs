use super::*;

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

#[test]
fn requests_and_node_selectors_decide_where_a_pod_can_run_and_the_facts_say_them() {
    let waiting = |workloads: Vec<WorkloadSpec>| {
        let cluster = small(workloads);
        let pods = cluster.all_pods();
        pods.iter().filter(|(node, _)| node.is_none()).count()
    };
    // Three Nodes of 4 cores.
    let large = |replicas| WorkloadSpec::deployment("shop", "large", replicas).with_cpu(2_500);
    assert_eq!(waiting(vec![large(3)]), 0);
    assert_eq!(waiting(vec![large(4)]), 1);
    let bound = WorkloadSpec::deployment("shop", "bound", 2)
        .with_cpu(2_500)
        .only_on("kubernetes.io/hostname", "b");
    assert_eq!(waiting(vec![bound.clone()]), 1);
    let cluster = small(vec![bound]);
    let entry = entry(&cluster, "b");
    let facts = now(cluster.pods(&entry.facts.id)).expect("read");
    assert_eq!(facts[0].needs.requests.cpu, 2_500);
    assert_eq!(
        facts[0].needs.node_selector.get("kubernetes.io/hostname"),
        Some(&"b".to_owned())
    );
    assert_eq!(entry.facts.allocatable.cpu, 4_000);
    assert!(
        Arc::ptr_eq(&entry.labels, &entry.facts.labels),
        "they are kept once"
    );
}
