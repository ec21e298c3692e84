use super::*;

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
