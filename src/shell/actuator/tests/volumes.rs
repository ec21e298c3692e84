//! Volumes that stay attached: what is said at the drain's deadline, and what is not.

use foreshock_core::drain::{LeftBehind, Volume};

use super::*;
use crate::kubernetes::ClusterEvent;

/// A Pod whose claim `data-NAME` is bound to the volume `pv-NAME`.
fn with_volume(name: &str) -> PodFacts {
    let claim = format!("data-{name}");
    let volume = Volume {
        namespace: "shop".to_owned(),
        claim: claim.clone(),
        name: format!("pv-{name}"),
        driver: "csi.example.com".to_owned(),
        handle: format!("vol-{name}"),
        shared: false,
    };
    PodFacts {
        claims: vec![claim],
        volumes: vec![volume],
        ..pod(name)
    }
}

fn attach(cluster: &Fake, claims: &[&str]) {
    cluster.inner().attached = claims.iter().map(|claim| (*claim).to_owned()).collect();
}

impl Scene {
    fn left_behind(&self) -> Vec<(String, Arc<LeftBehind>)> {
        let of = |report: &Report| match report {
            Report::LeftBehind { message, left, .. } => Some((message.clone(), Arc::clone(left))),
            _ => None,
        };
        self.seen.iter().filter_map(of).collect()
    }

    fn warned(&self) -> Vec<ClusterEvent> {
        let inner = self.cluster.inner();
        let said = inner.said.iter();
        said.filter(|event| event.reason == "VolumesStillAttached")
            .cloned()
            .collect()
    }

    /// Pods with the outcome `volumes`, and the detail of each.
    fn held(&self) -> Vec<(String, String)> {
        let of = |report: &Report| match report {
            Report::Pod(report) if report.outcome == PodOutcome::Volumes => {
                Some((report.pod.name.clone(), report.detail.clone()))
            }
            _ => None,
        };
        self.seen.iter().filter_map(of).collect()
    }

    async fn drained(&mut self) {
        self.plan(|plan| plan.drains = vec![drain_it("a", START)]);
        let drained = |scene: &Scene| scene.ended() == Some(NodeOutcome::Drained);
        self.until("the drain is over", drained).await;
        // As the decision does: its order is not in the next plan.
        self.plan(|_| {});
    }

    fn waited(&self) -> i64 {
        self.now().duration_since(START).as_secs()
    }

    fn asked(&self) -> usize {
        self.cluster.inner().attached_asked.len()
    }
}

#[tokio::test(start_paused = true)]
async fn volumes_that_stay_attached_are_said_at_the_deadline_and_nothing_waits_for_them() {
    let cluster = Fake::new();
    let pods = ["p1", "p2", "p3"].map(with_volume);
    draining_node(&cluster, [pods.as_slice(), &[pod("p4")]].concat());
    attach(&cluster, &["data-p1", "data-p2", "data-p3"]);
    let mut scene = Scene::new(&cluster).await;
    scene.drained().await;
    assert!(scene.waited() < 60, "after {} s", scene.waited());
    // One of them is detached in time.
    attach(&cluster, &["data-p1", "data-p3"]);
    scene.pass(Duration::from_secs(800)).await;
    assert_eq!((scene.left_behind().len(), scene.held().len()), (0, 0));
    assert!(scene.asked() < 80, "asked {} times", scene.asked());
    let said = |scene: &Scene| !scene.left_behind().is_empty() && !scene.warned().is_empty();
    scene.until("it is said", said).await;
    assert!(
        (900..905).contains(&scene.waited()),
        "after {} s",
        scene.waited()
    );
    scene.pass(Duration::from_secs(3_600)).await;
    let detail = |name: &str| {
        let held = format!("still attached to a: shop/data-{name} (pv-{name})");
        (name.to_owned(), held)
    };
    assert_eq!(scene.held(), [detail("p1"), detail("p3")], "once");
    let warned = scene.warned();
    let [event] = warned.as_slice() else {
        panic!("once: {warned:?}")
    };
    assert!(event.warning);
    assert_eq!(event.node, Some(NodeId::new("a", "uid-a")));
    let start = "2 volumes of evicted Pods are still attached to a 14 min ";
    let end = " after the drain, and replacements wait for that: shop/data-p1 (pv-p1), shop/data-p3 (pv-p3)";
    let fits = event.note.starts_with(start) && event.note.ends_with(end);
    assert!(fits, "{}", event.note);
    let said = scene.left_behind();
    assert_eq!(said.len(), 1, "once");
    assert_eq!(
        (&said[0].0, said[0].1.drain.started_at),
        (&event.note, START)
    );
}

#[tokio::test(start_paused = true)]
async fn volumes_that_are_detached_in_time_are_no_news() {
    let cluster = Fake::new();
    draining_node(&cluster, vec![with_volume("p1"), pod("p2")]);
    attach(&cluster, &["data-p1"]);
    let mut scene = Scene::new(&cluster).await;
    scene.drained().await;
    scene.pass(Duration::from_secs(10)).await;
    assert!(scene.asked() > 1, "it is looked at");
    attach(&cluster, &[]);
    scene.pass(Duration::from_secs(60)).await;
    let asked = scene.asked();
    scene.pass(Duration::from_secs(3_600)).await;
    assert_eq!(scene.asked(), asked, "nobody looks any more");
    assert_eq!((scene.left_behind().len(), scene.held().len()), (0, 0));
    assert_eq!(scene.warned(), []);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_goes_with_its_pod_is_remembered() {
    let cluster = Fake::new();
    draining_node(&cluster, vec![with_volume("p1")]);
    attach(&cluster, &["data-p1"]);
    cluster.inner().gone_after = Some(Duration::from_secs(20));
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    let asked = |scene: &Scene| scene.cluster.evictions() == ["p1"];
    scene.until("it is evicted", asked).await;
    cluster.change_pods("a", |table| {
        for pod in &mut table.pods {
            Arc::make_mut(pod).volumes.clear();
        }
    });
    let said = |scene: &Scene| !scene.held().is_empty();
    scene.until("it is said", said).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_said_as_such_and_not_guessed() {
    for pods_fail in [false, true] {
        let cluster = Fake::new();
        draining_node(&cluster, vec![with_volume("p1"), with_volume("p2")]);
        attach(&cluster, &["data-p1", "data-p2"]);
        let mut scene = Scene::new(&cluster).await;
        scene.drained().await;
        // Either the volumes, or who uses them.
        cluster.inner().pods_fail = pods_fail;
        cluster.inner().attached_fails = !pods_fail;
        let said = |scene: &Scene| !scene.left_behind().is_empty();
        scene.until("it is said", said).await;
        let (message, left) = scene.left_behind().remove(0);
        assert_eq!((left.attached.len(), left.unknown.len()), (0, 2));
        let start = "whether 2 volumes of evicted Pods left a is not known: \
                     shop/data-p1 (pv-p1), shop/data-p2 (pv-p2): ";
        assert!(message.starts_with(start), "{message}");
        scene.pass(Duration::from_secs(60)).await;
        assert_eq!((scene.held(), scene.warned()), (vec![], vec![]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_another_pod_on_the_node_uses_is_not_left_behind() {
    let cluster = Fake::new();
    let user = |name: &str, finished: bool| PodFacts {
        owner: None,
        workload: Ok(None),
        finished,
        claims: with_volume(name).claims,
        ..pod(&format!("user-of-{name}"))
    };
    let pods = ["p1", "p2", "p3"].map(with_volume);
    let users = [user("p1", false), user("p2", true)];
    draining_node(&cluster, [pods.as_slice(), &users].concat());
    attach(&cluster, &["data-p1", "data-p2"]);
    let mut scene = Scene::new(&cluster).await;
    scene.drained().await;
    let said = |scene: &Scene| !scene.left_behind().is_empty();
    scene.until("it is said", said).await;
    let held: Vec<String> = scene.held().into_iter().map(|(pod, _)| pod).collect();
    assert_eq!(held, ["p2"], "who has finished uses nothing");
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_did_not_empty_its_node_follows_no_volumes() {
    // Cancelled, or over without having moved everything.
    for cancelled in [true, false] {
        let cluster = Fake::new();
        draining_node(&cluster, vec![with_volume("p1"), with_volume("p2")]);
        attach(&cluster, &["data-p1", "data-p2"]);
        answer(&cluster, "p2", std::iter::repeat_n(blocked(), 10_000));
        let mut scene = Scene::new(&cluster).await;
        scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
        let one = |scene: &Scene| scene.cluster.pod_names("a") == ["p2"];
        scene.until("one has gone", one).await;
        if cancelled {
            scene.plan(|_| {});
        } else {
            scene
                .until("its time is over", |scene| scene.ended().is_some())
                .await;
        }
        scene.pass(Duration::from_secs(3_600)).await;
        assert_eq!(scene.asked(), 0);
        assert_eq!((scene.held(), scene.warned()), (vec![], vec![]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_went_by_itself_is_not_followed() {
    let cluster = Fake::new();
    draining_node(&cluster, vec![with_volume("p1"), with_volume("p2")]);
    attach(&cluster, &["data-p1", "data-p2"]);
    answer(&cluster, "p2", [Answer::Gone]);
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    let asked = |scene: &Scene| scene.cluster.evictions().contains(&"p2".to_owned());
    scene.until("both are asked to go", asked).await;
    cluster.change_pods("a", |table| table.pods.retain(|pod| pod.id.name != "p2"));
    scene.drained().await;
    let said = |scene: &Scene| !scene.held().is_empty();
    scene.until("it is said", said).await;
    let held: Vec<String> = scene.held().into_iter().map(|(pod, _)| pod).collect();
    assert_eq!(held, ["p1"]);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_leads_no_more_says_nothing_of_volumes() {
    let cluster = Fake::new();
    draining_node(&cluster, vec![with_volume("p1")]);
    attach(&cluster, &["data-p1"]);
    let mut scene = Scene::new(&cluster).await;
    scene.drained().await;
    cluster.inner().lease_fails = true;
    scene.pass(Duration::from_secs(120)).await;
    let asked = scene.asked();
    // Nor when it leads again: meanwhile the Node was another's.
    cluster.inner().lease_fails = false;
    scene.pass(Duration::from_secs(3_600)).await;
    assert!(scene.leader.leadership().borrow().leader);
    assert_eq!(scene.asked(), asked);
    assert_eq!((scene.held(), scene.warned()), (vec![], vec![]));
    assert_eq!(scene.left_behind().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_ends_follows_nothing_and_the_next_does_not_either() {
    let cluster = Fake::new();
    draining_node(&cluster, vec![with_volume("p1")]);
    attach(&cluster, &["data-p1"]);
    let mut scene = Scene::new(&cluster).await;
    scene.drained().await;
    scene.pass(Duration::from_secs(5)).await;
    scene.shutdown.cancel();
    let end = (&mut scene.actuator).await;
    assert!(end.is_ok(), "it ends: {end:?}");
    let asked = scene.asked();
    let cluster = scene.kill();
    let mut next = Scene::new(&cluster).await;
    next.pass(Duration::from_secs(3_600)).await;
    assert_eq!(next.asked(), asked);
    assert_eq!(next.warned(), []);
}

#[tokio::test(start_paused = true)]
async fn while_paused_no_event_says_that_volumes_are_left() {
    let cluster = Fake::new();
    draining_node(&cluster, vec![with_volume("p1")]);
    attach(&cluster, &["data-p1"]);
    let mut scene = Scene::new(&cluster).await;
    scene.drained().await;
    scene.leader.set_paused(true).await.expect("written");
    let said = |scene: &Scene| !scene.left_behind().is_empty();
    scene.until("it is reported", said).await;
    scene.pass(Duration::from_secs(60)).await;
    assert_eq!(scene.warned(), []);
}

#[tokio::test(start_paused = true)]
async fn volumes_of_a_node_that_is_gone_or_made_anew_are_not_followed() {
    for anew in [false, true] {
        let cluster = Fake::new();
        draining_node(&cluster, vec![with_volume("p1")]);
        attach(&cluster, &["data-p1"]);
        let mut scene = Scene::new(&cluster).await;
        scene.drained().await;
        if anew {
            cluster.change_node("a", |node| node["metadata"]["uid"] = "another".into());
        } else {
            cluster.delete_node("a");
        }
        scene.pass(Duration::from_secs(3_600)).await;
        assert_eq!((scene.held(), scene.warned()), (vec![], vec![]));
        assert_eq!(scene.left_behind().len(), 0);
    }
}
