//! Single replicas: scaled up before their Pod goes, and scaled back whatever happens.

use foreshock_core::drain::{Owner, Pace, Scalable};
use foreshock_core::record::SurgeRecord;

use super::super::fake::ScaleFault;
use super::*;

fn of_web(name: &str) -> PodFacts {
    let mut pod = pod(name);
    pod.workload = Ok(Some(Owner {
        group: "apps".to_owned(),
        kind: "Deployment".to_owned(),
        name: "web".to_owned(),
        uid: Uid::from("web"),
    }));
    pod
}

/// A Node `a` that drains since the start, with the only Pod of `web`.
fn single() -> Arc<Fake> {
    let cluster = Fake::new();
    draining_node(&cluster, vec![of_web("p")]);
    cluster.deployment("p");
    cluster
}

fn surge_it() -> DrainOrder {
    let mut order = drain_it("a", START);
    order.rules.surge = true;
    order
}

fn scaled(cluster: &Fake) -> Vec<u32> {
    let of = |write| match write {
        Write::Scale(_, replicas) => Some(replicas),
        Write::Mark(_) | Write::Evict(_) | Write::Lease | Write::Event(_) => None,
    };
    cluster.written().into_iter().filter_map(of).collect()
}

fn surges(cluster: &Fake) -> Vec<SurgeRecord> {
    cluster.record("a").expect("ours").surges
}

fn recorded(pod: &str) -> SurgeRecord {
    SurgeRecord {
        namespace: "shop".to_owned(),
        deployment: "web".to_owned(),
        uid: Uid::from("web"),
        before: 1,
        pod: super::super::fake::pod(pod).id,
        since: START,
    }
}

/// All is as it was, but for the Pod.
fn is_settled(cluster: &Fake) -> bool {
    cluster.replicas() == 1 && surges(cluster).is_empty()
}

#[tokio::test(start_paused = true)]
async fn it_is_noted_scaled_up_evicted_scaled_back_and_forgotten_in_this_order() {
    for pace in [Pace::Owner, Pace::Budget] {
        let cluster = single();
        let mut scene = Scene::new(&cluster).await;
        let mut order = surge_it();
        order.rules.pace = pace;
        scene.plan(|plan| plan.drains = vec![order]);
        let mut fewest = usize::MAX;
        while scene.ended().is_none() || !is_settled(&cluster) {
            fewest = fewest.min(cluster.ready());
            if cluster.replicas() == 2 {
                assert_eq!(surges(&cluster).len(), 1, "what is to be put back is noted");
            }
            if cluster.evictions() == ["p"] && cluster.pod_names("a") == ["p"] {
                assert_eq!(scaled(&cluster), [2], "not while it is on its way");
            }
            scene.pass(Duration::from_millis(10)).await;
        }
        assert_eq!(scene.ended(), Some(NodeOutcome::Drained));
        assert_eq!(fewest, 1, "one is Ready at every moment");
        let written = cluster.written();
        let web = |replicas| Write::Scale("web".to_owned(), replicas);
        let steps: Vec<&Write> = written
            .iter()
            .filter(|write| !matches!(write, Write::Event(_)))
            .collect();
        let node = Write::Mark("a".to_owned());
        let evict = Write::Evict("p".to_owned());
        assert_eq!(steps, [&node, &web(2), &evict, &web(1), &node]);
        for said in ["SurgeStarted", "SurgeEnded"] {
            assert!(written.contains(&Write::Event(said)), "{said}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_kill_at_any_moment_leaves_one_replica_asked_for_and_one_ready() {
    // Every moment of the first nine seconds, in steps of 50 ms: before and after each write of them.
    for moment in 0..180 {
        let cluster = single();
        cluster.inner().slow = Duration::from_millis(120);
        cluster.inner().gone_after = Some(Duration::from_secs(3));
        let first = Scene::new(&cluster).await;
        first.plan(|plan| plan.drains = vec![surge_it()]);
        tokio::time::sleep(Duration::from_millis(50 * moment)).await;
        let cluster = first.kill();
        if cluster.replicas() == 2 {
            assert_eq!(surges(&cluster).len(), 1, "{moment}: nobody would know");
        }
        let mut second = Scene::new(&cluster).await;
        second.plan(|plan| plan.drains = vec![surge_it()]);
        let mut fewest = cluster.ready();
        while second.ended().is_none() || !is_settled(&cluster) {
            second.pass(Duration::from_millis(50)).await;
            fewest = fewest.min(cluster.ready());
        }
        assert_eq!(second.ended(), Some(NodeOutcome::Drained), "{moment}");
        assert_eq!(cluster.evictions().len(), 1, "{moment}");
        assert_eq!((fewest, cluster.ready()), (1, 1), "{moment}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_process_has_noted_is_undone_without_its_drain_and_with_surge_off() {
    // It died before it scaled up, after that, and after the Pod was told to go.
    for (replicas, going) in [(1, false), (2, false), (2, true)] {
        let cluster = Fake::new();
        let mut record = tainted("a");
        record.surges = vec![recorded("p")];
        cluster.node("a", Some(&record));
        let mut pod = of_web("p");
        let until = after(START, Duration::from_secs(120));
        pod.terminating_until = going.then_some(until);
        cluster.set_pods("a", vec![pod]);
        cluster.deployment("p");
        if let Some(found) = cluster.inner().deployments.get_mut(&Uid::from("web")) {
            (found.replicas, found.by_us) = (replicas, Some(replicas == 2));
        }
        let mut scene = Scene::new(&cluster).await;
        scene.plan(|_| {});
        if going {
            scene.pass(Duration::from_secs(60)).await;
            assert_eq!(scaled(&cluster), [0_u32; 0], "its Pod is on its way");
            cluster.set_pods("a", Vec::new());
        }
        scene
            .until("undone", |scene| is_settled(&scene.cluster))
            .await;
        assert_eq!(scaled(&cluster).len(), usize::from(replicas == 2));
        assert!(cluster.evictions().is_empty());
        assert!(
            scene.now() < until,
            "it did not wait for the Pod's time to run out"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_finds_what_a_dead_process_has_scaled_up_waits_until_it_is_back() {
    let cluster = Fake::new();
    let mut record = draining("a", START);
    record.surges = vec![recorded("p")];
    cluster.node("a", Some(&record));
    cluster.set_pods("a", vec![of_web("p")]);
    cluster.deployment("p");
    if let Some(found) = cluster.inner().deployments.get_mut(&Uid::from("web")) {
        (found.replicas, found.by_us) = (2, Some(true));
    }
    // It cannot be scaled back at first: two that somebody else asks for would look the same.
    cluster.inner().scale_fails = [ScaleFault::Refused; 3].into();
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![surge_it()]);
    while cluster.replicas() == 2 {
        scene.pass(Duration::from_millis(50)).await;
        assert!(
            cluster.evictions().is_empty(),
            "its second Pod may be none of those that stay"
        );
    }
    scene
        .until("put back", |scene| {
            scene.ended().is_some() && is_settled(&scene.cluster)
        })
        .await;
    assert_eq!(cluster.evictions(), ["p"]);
    assert_eq!(scaled(&cluster), [1, 1, 1, 1, 2, 1]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_back_yet_hinders_others_only_when_the_record_is_full() {
    // Their Pods are on their way, so they are not scaled back yet.
    for (others, scales) in [(1, [2].as_slice()), (NodeRecord::SURGES_MAX, &[])] {
        let cluster = Fake::new();
        let mut record = draining("a", START);
        let mut pods = vec![of_web("p")];
        for n in 0..others {
            let mut going = pod(&format!("g{n:02}"));
            going.terminating_until = Some(after(START, Duration::from_secs(500)));
            record.surges.push(SurgeRecord {
                deployment: format!("d{n:02}"),
                uid: Uid::from(format!("d{n:02}")),
                ..recorded(&going.id.name)
            });
            pods.push(going);
            let two = Scalable {
                replicas: SurgeRecord::TO,
                by_us: Some(true),
                ..Scalable::default()
            };
            let uid = Uid::from(format!("d{n:02}"));
            cluster.inner().deployments.insert(uid, two);
        }
        cluster.node("a", Some(&record));
        cluster.set_pods("a", pods);
        cluster.deployment("p");
        let mut scene = Scene::new(&cluster).await;
        scene.plan(|plan| plan.drains = vec![surge_it()]);
        scene.pass(Duration::from_secs(2)).await;
        assert_eq!(scaled(&cluster), scales, "{others} others");
        assert_eq!(surges(&cluster).len(), others + scales.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_is_still_being_scaled_is_waited_for() {
    let cluster = single();
    let is_scaling = |scaling| {
        let mut inner = cluster.inner();
        let web = inner.deployments.get_mut(&Uid::from("web"));
        web.expect("there").scaling = scaling;
    };
    is_scaling(true);
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![surge_it()]);
    scene.pass(Duration::from_secs(60)).await;
    assert_eq!(
        (scaled(&cluster).len(), cluster.evictions().len()),
        (0, 0),
        "which of its Pods stay is not decided yet"
    );
    is_scaling(false);
    scene
        .until("put back", |scene| {
            scene.ended().is_some() && is_settled(&scene.cluster)
        })
        .await;
    assert_eq!(scene.ended(), Some(NodeOutcome::Drained));
    assert_eq!(scaled(&cluster), [2, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_withdrawn_drain_scales_back_and_keeps_its_pod() {
    let cluster = single();
    cluster.inner().second_after = None;
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![surge_it()]);
    scene
        .until("scaled up", |scene| scene.cluster.replicas() == 2)
        .await;
    scene.plan(|_| {});
    scene
        .until("put back", |scene| is_settled(&scene.cluster))
        .await;
    assert_eq!(scaled(&cluster), [2, 1]);
    assert_eq!(cluster.pod_names("a"), ["p"]);
    assert_eq!(scene.outcomes()["p"], PodOutcome::Cancelled);
    // Ordered again, it begins again.
    cluster.inner().second_after = Some(Duration::from_secs(2));
    scene.plan(|plan| plan.drains = vec![surge_it()]);
    scene.until("over", |scene| scene.ended().is_some()).await;
    scene
        .until("put back", |scene| is_settled(&scene.cluster))
        .await;
    assert_eq!(scaled(&cluster), [2, 1, 2, 1]);
}

#[tokio::test(start_paused = true)]
async fn while_paused_nothing_is_scaled_and_afterwards_it_is_put_back() {
    let cluster = single();
    cluster.inner().second_after = None;
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![surge_it()]);
    scene
        .until("scaled up", |scene| scene.cluster.replicas() == 2)
        .await;
    scene.pass(Duration::from_secs(1)).await;
    cluster.edit_lease(|view| view.paused = true);
    let written = cluster.written().len();
    scene.pass(Duration::from_secs(30)).await;
    scene.plan(|_| {});
    scene.pass(Duration::from_secs(60)).await;
    assert_eq!(cluster.written().len(), written);
    assert_eq!(surges(&cluster).len(), 1, "it is noted all the same");
    cluster.edit_lease(|view| view.paused = false);
    scene
        .until("put back", |scene| is_settled(&scene.cluster))
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_has_scaled_meanwhile_stays_as_it_is() {
    for theirs in [0, 1, 2, 5] {
        let cluster = single();
        cluster.inner().second_after = None;
        let mut scene = Scene::new(&cluster).await;
        scene.plan(|plan| plan.drains = vec![surge_it()]);
        scene
            .until("scaled up", |scene| scene.cluster.replicas() == 2)
            .await;
        cluster.scale_by_hand(theirs);
        scene.pass(Duration::from_secs(5)).await;
        scene.plan(|_| {});
        scene
            .until("forgotten", |scene| surges(&scene.cluster).is_empty())
            .await;
        assert_eq!(scaled(&cluster), [2]);
        assert_eq!(cluster.replicas(), theirs);
        let said = cluster.written().contains(&Write::Event("SurgeLeft"));
        assert_eq!(said, theirs != 1, "who has put it back needs no word");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_deployment_is_taken_away_from_us_goes_as_it_would_otherwise() {
    let cluster = single();
    cluster.inner().second_after = None;
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![surge_it()]);
    scene
        .until("scaled up", |scene| scene.cluster.replicas() == 2)
        .await;
    cluster.scale_by_hand(1);
    scene.until("over", |scene| scene.ended().is_some()).await;
    assert_eq!(scene.ended(), Some(NodeOutcome::Drained));
    scene
        .until("forgotten", |scene| surges(&scene.cluster).is_empty())
        .await;
    assert_eq!(scaled(&cluster), [2]);
}

#[tokio::test(start_paused = true)]
async fn an_autoscaled_deployment_is_never_touched_and_it_is_said() {
    let cluster = single();
    let web = Uid::from("web");
    let autoscaler = Some("web".to_owned());
    cluster
        .inner()
        .deployments
        .get_mut(&web)
        .expect("there")
        .autoscaler = autoscaler;
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![surge_it()]);
    scene.until("over", |scene| scene.ended().is_some()).await;
    assert_eq!(scene.ended(), Some(NodeOutcome::Drained));
    assert_eq!(scaled(&cluster), [0_u32; 0]);
    assert!(cluster.marked().is_empty());
    assert!(cluster.written().contains(&Write::Event("SurgeLeftOut")));
}

#[tokio::test(start_paused = true)]
async fn a_second_pod_that_is_not_ready_in_time_leaves_the_first_where_it_is() {
    let cluster = single();
    cluster.inner().second_after = None;
    let mut scene = Scene::new(&cluster).await;
    let begun = scene.now();
    scene.plan(|plan| plan.drains = vec![surge_it()]);
    scene.until("over", |scene| scene.ended().is_some()).await;
    let not_ready = PodOutcome::ReplacementNotReady;
    assert_eq!(scene.ended(), Some(NodeOutcome::Ended(not_ready)));
    assert_eq!(scene.outcomes()["p"], not_ready);
    assert!(scene.now() >= after(begun, rules().pod_deadline));
    scene
        .until("put back", |scene| is_settled(&scene.cluster))
        .await;
    assert!(cluster.evictions().is_empty());
    assert_eq!(cluster.pod_names("a"), ["p"]);
}

#[tokio::test(start_paused = true)]
async fn whatever_goes_wrong_with_a_scaling_is_put_right() {
    use ScaleFault::{Conflict, Lost, Refused};
    for faults in [
        &[Lost][..],
        &[Refused],
        &[Conflict],
        &[Conflict, Conflict, Lost, Conflict, Refused],
    ] {
        let cluster = single();
        cluster.inner().scale_fails = faults.iter().copied().collect();
        let mut scene = Scene::new(&cluster).await;
        scene.plan(|plan| plan.drains = vec![surge_it()]);
        scene.until("over", |scene| scene.ended().is_some()).await;
        assert_eq!(scene.ended(), Some(NodeOutcome::Drained));
        scene
            .until("put back", |scene| is_settled(&scene.cluster))
            .await;
        assert!(cluster.inner().scale_fails.is_empty());
        assert_eq!(cluster.ready(), 1, "{faults:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_deleted_with_its_record_leaves_nothing_scaled_up() {
    let cluster = single();
    cluster.inner().second_after = None;
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![surge_it()]);
    scene
        .until("scaled up", |scene| scene.cluster.replicas() == 2)
        .await;
    cluster.delete_node("a");
    cluster.set_pods("a", Vec::new());
    scene.plan(|_| {});
    scene
        .until("put back", |scene| scene.cluster.replicas() == 1)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_goes_while_nothing_may_be_written_is_remembered() {
    let another = |cluster: &Fake| {
        cluster.change_node("a", |node| {
            node["metadata"]["uid"] = serde_json::json!("new");
            node["metadata"]["annotations"] = serde_json::json!({});
        });
    };
    for goes in [|cluster: &Fake| cluster.delete_node("a"), another] {
        let cluster = single();
        cluster.inner().second_after = None;
        let mut scene = Scene::new(&cluster).await;
        scene.plan(|plan| plan.drains = vec![surge_it()]);
        scene
            .until("scaled up", |scene| scene.cluster.replicas() == 2)
            .await;
        scene.pass(Duration::from_secs(1)).await;
        cluster.edit_lease(|view| view.paused = true);
        scene.plan(|_| {});
        scene.pass(Duration::from_secs(10)).await;
        goes(&cluster);
        cluster.set_pods("a", Vec::new());
        scene.pass(Duration::from_secs(10)).await;
        assert_eq!(cluster.replicas(), 2);
        cluster.edit_lease(|view| view.paused = false);
        scene
            .until("put back", |scene| scene.cluster.replicas() == 1)
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_being_scaled_back_is_not_scaled_back_twice() {
    let cluster = single();
    cluster.inner().second_after = None;
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![surge_it()]);
    scene
        .until("scaled up", |scene| scene.cluster.replicas() == 2)
        .await;
    scene.pass(Duration::from_secs(1)).await;
    cluster.inner().slow = Duration::from_secs(3);
    cluster.inner().reading_takes = Duration::from_secs(3);
    scene.plan(|_| {});
    for beat in 0..10 {
        scene.pass(Duration::from_millis(500)).await;
        cluster.change_node("a", |node| {
            node["metadata"]["labels"]["beat"] = beat.to_string().into()
        });
    }
    cluster.inner().slow = Duration::ZERO;
    cluster.inner().reading_takes = Duration::ZERO;
    scene
        .until("put back", |scene| is_settled(&scene.cluster))
        .await;
    scene.pass(Duration::from_secs(10)).await;
    assert_eq!(scaled(&cluster), [2, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_may_have_taken_place_holds_its_workload_though_the_next_is_called_back() {
    let cluster = Fake::new();
    draining_node(&cluster, vec![of_web("p")]);
    cluster.node("b", Some(&draining("b", START)));
    cluster.set_pods("b", vec![of_web("q")]);
    cluster.change_workload(|seen| {
        seen.wanted = Some(2);
        for (pod, node) in [("uid-p", "a"), ("uid-q", "b")] {
            seen.ready.insert(Uid::from(pod));
            seen.on.insert(Uid::from(pod), NodeName::from(node));
        }
    });
    let lost = Answer::Lost {
        detail: "connection reset".to_owned(),
    };
    cluster
        .inner()
        .answers
        .insert("p".to_owned(), [lost].into());
    cluster.inner().reading_takes = Duration::from_secs(4);
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    scene
        .until("read again", |scene| {
            !scene.cluster.inner().reads.is_empty()
        })
        .await;
    let called_back = DrainOrder {
        sends: false,
        ..drain_it("a", START)
    };
    scene.plan(|plan| plan.drains = vec![called_back, drain_it("b", START)]);
    scene.pass(Duration::from_secs(60)).await;
    assert_eq!(cluster.evictions(), ["p"], "it may be on its way");
}

#[tokio::test(start_paused = true)]
async fn a_scaling_that_waits_for_a_reading_is_called_back() {
    let cluster = single();
    cluster.inner().reading_takes = Duration::from_secs(4);
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![surge_it()]);
    scene.pass(Duration::from_secs(1)).await;
    scene.plan(|plan| {
        plan.drains = vec![DrainOrder {
            sends: false,
            ..surge_it()
        }];
    });
    scene.pass(Duration::from_secs(60)).await;
    assert!(scaled(&cluster).is_empty() && surges(&cluster).is_empty());
    assert!(cluster.marked().is_empty());
    scene.plan(|plan| plan.drains = vec![surge_it()]);
    scene
        .until("scaled up", |scene| scene.cluster.replicas() == 2)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_note_is_awaited_for_as_long_as_a_mark() {
    let cluster = single();
    cluster.inner().marking_takes = WRITE_LIMIT + Duration::from_millis(900);
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![surge_it()]);
    scene.pass(Duration::from_secs(10)).await;
    assert_eq!(scaled(&cluster), [2], "at the first attempt");
}
