use super::*;

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
    let goes = |found: &&Arc<PodFacts>| found.id == pod.id && found.terminating_until.is_some();
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
        node: Some(id),
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

#[tokio::test(start_paused = true)]
async fn a_replacement_is_no_older_than_the_call_that_made_room_for_it() {
    let cluster = small(vec![WorkloadSpec::deployment("shop", "web", 3)]);
    let began = tokio::time::Instant::now();
    let clock = move || after(start(), began.elapsed());
    let between_two_steps = async {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let pod = id(&cluster, "web");
        let facts = now(cluster.read_pod(&pod)).expect("read").expect("there");
        let owner = facts.workload.expect("known").expect("a Deployment's");
        let seen = cluster.watch_workload("shop", &owner);
        let asked_at = clock();
        evict(&cluster, &pod);
        tokio::time::sleep(Duration::from_secs(30)).await;
        let state = seen.borrow().clone().expect("seen").expect("looked at");
        let newest = state.fresh.values().max_by_key(|replica| replica.ready_at);
        let newest = newest.expect("Ready again");
        assert!(
            newest.ready_at > asked_at && newest.appeared_at >= asked_at,
            "{newest:?}"
        );
    };
    tokio::select! {
        () = between_two_steps => {}
        () = cluster.follow(clock, Duration::from_millis(100)) => {}
    }
}
