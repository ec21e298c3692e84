use super::*;

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
