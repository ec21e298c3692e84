//! The client of the cluster against a real API server: what a scripted one could only claim.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use foreshock::clock::{Clock, SystemClock};
use foreshock::core::decision::plan::{Cause, MarkOrder};
use foreshock::core::decision::policy::Reach;
use foreshock::core::drain::{Answer, EvictionAllowance, PodFacts};
use foreshock::core::node::{NodeId, Uid};
use foreshock::core::record::{
    ClusterRecord, Marks, NodeRecord, RecordedPhase, Storm, Taint, TaintEffect,
};
use foreshock::kubernetes::{
    Cluster as _, ClusterError, ClusterEvent, KubeCluster, KubeOptions, LeaseState, LeaseWrite,
};
use serde_json::{Value, json};

use crate::support::cluster::{Cluster, budget, deployment};
use crate::support::wait_for;

const LIMIT: Duration = Duration::from_secs(60);

fn taint() -> Taint {
    Taint {
        key: "degradation".to_owned(),
        value: "true".to_owned(),
        effect: TaintEffect::NoSchedule,
    }
}

async fn connect(bed: &Cluster) -> Arc<KubeCluster> {
    let path = bed.workdir().path().join("client.kubeconfig");
    bed.kubeconfig(&path);
    let options = KubeOptions {
        kubeconfig: Some(path),
        instance: "foreshock".to_owned(),
        namespace: "default".to_owned(),
        node_selector: String::new(),
        taints: vec![taint()],
    };
    KubeCluster::connect(options, Arc::new(SystemClock))
        .await
        .expect("the kubeconfig is good")
}

async fn document(bed: &Cluster, args: &[&str]) -> Value {
    let mut all = vec!["get", "-o", "json"];
    all.extend(args);
    serde_json::from_str(&bed.kubectl(&all).await).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn the_client_marks_evicts_watches_and_leads_on_a_real_api_server() {
    let bed = Cluster::start().await;
    bed.create_nodes(2).await;
    let cluster = connect(&bed).await;
    let mut nodes = cluster.nodes();
    let table = nodes.wait_for(|table| {
        table.nodes.len() == 2 && table.nodes.values().all(|node| node.facts.ready)
    });
    let table = tokio::time::timeout(LIMIT, table)
        .await
        .expect("two Nodes")
        .expect("watched")
        .clone();
    let id = table
        .nodes
        .values()
        .next()
        .expect("there are two")
        .facts
        .id
        .clone();

    marks(&bed, &cluster, &id).await;
    evictions(
        &bed,
        &cluster,
        &table
            .nodes
            .keys()
            .map(|name| name.to_string())
            .collect::<Vec<_>>(),
    )
    .await;
    lease(&bed, &cluster).await;

    let event = ClusterEvent {
        node: Some(id.clone()),
        pod: None,
        reason: "DegradationTainted",
        warning: true,
        note: "risk 0.81".to_owned(),
    };
    cluster.publish(&event).await.expect("published");
    let events = document(&bed, &["events.events.k8s.io", "-n", "default"]).await;
    let ours = events["items"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|event| event["reportingController"] == "foreshock");
    assert_eq!(ours.expect("there")["regarding"]["uid"], id.uid.as_str());

    let permissions = cluster
        .permissions(Reach::Evict, true)
        .await
        .expect("answered");
    assert!(
        permissions.iter().all(|right| right.allowed),
        "{permissions:?}"
    );
    cluster.close().await;
}

async fn marks(bed: &Cluster, cluster: &KubeCluster, id: &NodeId) {
    let name = id.name.as_str();
    bed.kubectl(&["taint", "node", name, "theirs=1:PreferNoSchedule"])
        .await;
    let before = document(bed, &["node", name]).await;
    let record = NodeRecord {
        phase: RecordedPhase::Tainted,
        marks: Marks {
            taint: Some(taint()),
            ..Marks::default()
        },
        ..NodeRecord::clear("foreshock", &id.uid, SystemClock.now())
    };
    let mut order = MarkOrder {
        node: id.clone(),
        cause: Cause::Taint,
        note: String::new(),
        expects: None,
        record: Some(Box::new(record.clone())),
    };
    let entry = cluster.mark(&order).await.expect("marked");
    assert_eq!(entry.facts.record.ours(), Some(&record));
    let shown = cluster.nodes().borrow().nodes[&id.name].clone();
    assert_eq!(
        shown.facts.taints.len(),
        2,
        "shown at once: {:?}",
        shown.facts.taints
    );
    // The same again is not what the Node is any more.
    let again = cluster.mark(&order).await.expect_err("superseded");
    assert!(matches!(again, ClusterError::Superseded { .. }), "{again}");
    // A person removes the taint: a release is not carried out, the veto is.
    bed.kubectl(&["taint", "node", name, "degradation-"]).await;
    order.expects = Some(Box::new(record.clone()));
    order.record = None;
    order.cause = Cause::Release;
    let vetoed = cluster.mark(&order).await.expect_err("superseded");
    assert!(
        vetoed.to_string().contains("is not there any more"),
        "{vetoed}"
    );
    order.cause = Cause::Veto;
    cluster.mark(&order).await.expect("the record goes");
    let after = document(bed, &["node", name]).await;
    assert_eq!(after["spec"]["taints"], before["spec"]["taints"]);
    assert_eq!(
        after["metadata"]["annotations"],
        before["metadata"]["annotations"]
    );
    assert_eq!(after["metadata"]["labels"], before["metadata"]["labels"]);
}

async fn evictions(bed: &Cluster, cluster: &KubeCluster, nodes: &[String]) {
    bed.kubectl(&["create", "namespace", "shop"]).await;
    for (name, replicas) in [("free", 2), ("tight", 2), ("twice", 2)] {
        bed.apply(&deployment("shop", name, replicas)).await;
    }
    bed.apply(&budget("shop", "tight", ("minAvailable", json!(2))))
        .await;
    bed.apply(&budget("shop", "twice", ("maxUnavailable", json!(1))))
        .await;
    bed.apply(
        &budget("shop", "twice", ("maxUnavailable", json!(1)))
            .replace("\"name\":\"twice\"", "\"name\":\"twice-more\""),
    )
    .await;
    for name in ["free", "tight", "twice"] {
        bed.wait_rollout("shop", &format!("deployment/{name}"))
            .await;
    }
    // Of two budgets on one Pod the controller counts one, whichever.
    let budgets_counted = async || {
        let budget = document(bed, &["pdb", "-n", "shop", "tight"]).await;
        (budget["status"]["currentHealthy"] == 2).then_some(())
    };
    wait_for("the budgets are counted", LIMIT, budgets_counted).await;

    // Every Pod is on one of the two Nodes, with its budgets.
    let mut pods: Vec<PodFacts> = Vec::new();
    for node in nodes {
        let id = NodeId::new(
            node.as_str(),
            cluster.nodes().borrow().nodes[node.as_str()]
                .facts
                .id
                .uid
                .clone(),
        );
        pods.extend(cluster.pods(&id).await.expect("listed"));
    }
    let of = |app: &str| {
        pods.iter()
            .filter(|pod| pod.id.name.starts_with(&format!("{app}-")))
            .cloned()
            .collect::<VecDeque<_>>()
    };
    let (mut free, mut tight, mut twice) = (of("free"), of("tight"), of("twice"));
    assert_eq!(
        (free.len(), tight.len(), twice.len()),
        (2, 2, 2),
        "{pods:?}"
    );
    let (free, tight, twice) = (
        free.remove(0).expect("two"),
        tight.remove(0).expect("two"),
        twice.remove(0).expect("two"),
    );
    assert!(free.budgets.is_empty() && twice.budgets.len() == 2);
    assert_eq!(tight.budgets[0].allowance, EvictionAllowance::Never);
    assert_eq!(tight.budgets[0].detail, "2 of 2 healthy, 2 wanted");

    let node = document(bed, &["pod", "-n", "shop", &tight.id.name]).await["spec"]["nodeName"]
        .as_str()
        .expect("bound")
        .to_owned();
    let uid = cluster.nodes().borrow().nodes[node.as_str()]
        .facts
        .id
        .uid
        .clone();
    let mut watched = cluster.watch_pods(&NodeId::new(node, uid));

    let blocked = cluster.evict(&tight.id, None).await;
    assert!(
        matches!(&blocked, Answer::BlockedByBudget { detail, .. } if detail.contains("tight")),
        "{blocked:?}"
    );
    let overlapping = cluster.evict(&twice.id, None).await;
    assert!(
        matches!(overlapping, Answer::OverlappingBudgets { .. }),
        "{overlapping:?}"
    );
    let mut stale = free.id.clone();
    stale.uid = Uid::from("00000000-0000-0000-0000-000000000000");
    assert_eq!(
        cluster.evict(&stale, None).await,
        Answer::Gone,
        "another Pod has its name"
    );
    assert_eq!(
        cluster
            .read_pod(&free.id)
            .await
            .expect("read")
            .map(|pod| pod.id),
        Some(free.id.clone())
    );
    assert_eq!(
        cluster.evict(&free.id, Some(Duration::from_secs(5))).await,
        Answer::Accepted
    );
    let gone = async || {
        let read = cluster.read_pod(&free.id).await.expect("read");
        read.is_none().then_some(())
    };
    wait_for("the evicted Pod is gone", LIMIT, gone).await;
    assert_eq!(cluster.evict(&free.id, None).await, Answer::Gone);

    // The budget opens, and the watch says so.
    bed.kubectl(&[
        "patch",
        "pdb",
        "tight",
        "-n",
        "shop",
        "-p",
        "{\"spec\":{\"minAvailable\":1}}",
    ])
    .await;
    let opened = watched.wait_for(|table| {
        let pod = table.pods.iter().find(|pod| pod.id == tight.id);
        table.synced && pod.is_some_and(|pod| pod.budgets[0].allowance == EvictionAllowance::Now(1))
    });
    drop(
        tokio::time::timeout(LIMIT, opened)
            .await
            .expect("shown")
            .expect("watched"),
    );
    assert_eq!(cluster.evict(&tight.id, None).await, Answer::Accepted);
    let goes = watched.wait_for(|table| table.pods.iter().all(|pod| pod.id != tight.id));
    drop(
        tokio::time::timeout(LIMIT, goes)
            .await
            .expect("shown")
            .expect("watched"),
    );

    // A namespace that is being deleted.
    bed.kubectl(&["delete", "namespace", "shop", "--wait=false"])
        .await;
    let answer = cluster.evict(&twice.id, None).await;
    assert!(
        matches!(
            answer,
            Answer::NamespaceTerminating | Answer::Gone | Answer::Accepted
        ),
        "{answer:?}"
    );
}

async fn lease(bed: &Cluster, cluster: &KubeCluster) {
    let mut states = cluster.lease();
    drop(
        tokio::time::timeout(LIMIT, states.wait_for(|state| *state == LeaseState::Absent))
            .await
            .expect("read")
            .expect("watched"),
    );
    let record = ClusterRecord {
        storm: Some(Storm {
            since: SystemClock.now(),
            about: "4 of 10 Nodes".into(),
            input: None,
            calm_since: None,
        }),
        ..ClusterRecord::default()
    };
    let mut write = LeaseWrite {
        expects: None,
        holder: Some("me".to_owned()),
        address: Some("127.0.0.1:5000".to_owned()),
        duration: Duration::from_secs(15),
        renewed_at: SystemClock.now(),
        transitions: 0,
        paused: false,
        record: Some(record.clone()),
    };
    let view = cluster.write_lease(&write).await.expect("created");
    assert_eq!(view.record, Ok(record));
    let exists = cluster.write_lease(&write).await.expect_err("there is one");
    assert!(
        matches!(exists, ClusterError::Superseded { .. }),
        "{exists}"
    );
    // Somebody with nothing but kubectl throws the switch.
    let thrown = std::time::Instant::now();
    bed.kubectl(&[
        "annotate",
        "lease",
        "foreshock",
        "-n",
        "default",
        "foreshock.dev/paused=true",
        "mine=kept",
    ])
    .await;
    let paused = states.wait_for(|state| matches!(state, LeaseState::Present(view) if view.paused));
    drop(
        tokio::time::timeout(LIMIT, paused)
            .await
            .expect("heard")
            .expect("watched"),
    );
    assert!(
        thrown.elapsed() < Duration::from_secs(5),
        "{:?}, kubectl's own start included",
        thrown.elapsed()
    );
    write.expects = Some(view.resource_version);
    let stale = cluster
        .write_lease(&write)
        .await
        .expect_err("changed since");
    assert!(matches!(stale, ClusterError::Superseded { .. }), "{stale}");
    let LeaseState::Present(view) = cluster.read_lease().await.expect("read") else {
        panic!("it is there")
    };
    write.expects = Some(view.resource_version);
    write.record = None;
    write.holder = None;
    let view = cluster.write_lease(&write).await.expect("renewed");
    assert!(view.holder.is_none() && view.record.is_ok_and(|record| record.storm.is_some()));
    let kept = document(bed, &["lease", "foreshock", "-n", "default"]).await;
    assert_eq!(kept["metadata"]["annotations"]["mine"], "kept");
    assert_eq!(
        kept["metadata"]["annotations"].get("foreshock.dev/paused"),
        None
    );
}
