//! Where it went: what is said after a drain, and that nothing waits for it.

use foreshock_core::drain::{Moved, Pace, Replica};

use super::*;
use crate::kubernetes::ClusterEvent;

fn of_web(name: &str) -> PodFacts {
    let mut pod = pod(name);
    pod.workload = Ok(pod.owner.clone());
    pod
}

/// These are the Ready Pods of `web`, on these Nodes, each since so many seconds from the start.
fn web(cluster: &Fake, wanted: u32, ready: &[(&str, &str, u64)]) {
    let fresh: BTreeMap<Uid, Replica> = ready
        .iter()
        .map(|(uid, node, since)| {
            let ready_at = after(START, Duration::from_secs(*since));
            let replica = Replica {
                node: (*node).into(),
                appeared_at: ready_at,
                ready_at,
            };
            ((*uid).into(), replica)
        })
        .collect();
    cluster.set_workload(Workload {
        wanted: Some(wanted),
        ready: fresh.keys().cloned().collect(),
        fresh,
        ..Workload::default()
    });
}

fn drain_at(name: &str, pace: Pace) -> DrainOrder {
    let mut order = drain_it(name, START);
    order.rules.pace = pace;
    order
}

impl Scene {
    fn moved(&self) -> Vec<(String, Arc<Moved>)> {
        let of = |report: &Report| match report {
            Report::Moved { message, moved, .. } => Some((message.clone(), Arc::clone(moved))),
            _ => None,
        };
        self.seen.iter().filter_map(of).collect()
    }

    fn told(&self) -> Vec<ClusterEvent> {
        let inner = self.cluster.inner();
        let told = inner.said.iter();
        told.filter(|event| event.reason == "DegradationWorkMoved")
            .cloned()
            .collect()
    }
}

#[tokio::test(start_paused = true)]
async fn where_the_pods_went_is_said_once_after_the_drain_and_the_last_replacement() {
    let cluster = Fake::new();
    draining_node(&cluster, vec![of_web("p1"), of_web("p2"), of_web("p3")]);
    web(
        &cluster,
        3,
        &[("uid-p1", "a", 0), ("uid-p2", "a", 0), ("uid-p3", "a", 0)],
    );
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_at("a", Pace::Owner)]);
    let mut ready = Vec::new();
    for (n, (uid, node)) in [("r1", "b"), ("r2", "c"), ("r3", "b")]
        .into_iter()
        .enumerate()
    {
        let goes = |scene: &Scene| scene.cluster.evictions().len() == n + 1;
        scene.until("the next one goes", goes).await;
        if n == 2 {
            let ended = |scene: &Scene| scene.ended() == Some(NodeOutcome::Drained);
            scene.until("the drain is over", ended).await;
            scene.pass(Duration::from_secs(60)).await;
            assert_eq!(scene.moved().len(), 0, "one is awaited");
        }
        let now = scene.now().as_second() - START.as_second();
        ready.push((uid, node, u64::try_from(now).expect("later") + 1));
        let mut seen = ready.clone();
        seen.extend([("uid-p2", "a", 0), ("uid-p3", "a", 0)].into_iter().skip(n));
        web(&cluster, 3, &seen);
    }
    scene
        .until("it is said", |scene| !scene.moved().is_empty())
        .await;
    let (message, moved) = scene.moved().remove(0);
    assert!(
        message.starts_with("moved 3 Pods from a to b (2), c (1) in 1 min "),
        "{message}"
    );
    assert_eq!(moved.replacements.len(), 3);
    scene
        .until("an Event says it", |scene| !scene.told().is_empty())
        .await;
    scene.pass(Duration::from_secs(3_600)).await;
    assert_eq!((scene.moved().len(), scene.told().len()), (1, 1), "once");
    let told = scene.told().remove(0);
    assert_eq!(told.note, message);
    assert_eq!(told.node, Some(NodeId::new("a", "uid-a")));
    assert!(!told.warning);
    assert_eq!(
        cluster.listeners(),
        0,
        "nobody looks at the workload any more"
    );
}

#[tokio::test(start_paused = true)]
async fn at_the_pace_of_budgets_alone_nothing_waits_for_what_is_followed() {
    let cluster = Fake::new();
    draining_node(&cluster, vec![of_web("p1"), of_web("p2")]);
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_at("a", Pace::Budget)]);
    // How it stands with the workload is not known yet.
    let ended = |scene: &Scene| scene.ended() == Some(NodeOutcome::Drained);
    scene.until("the drain is over", ended).await;
    assert_eq!(cluster.evictions(), ["p1", "p2"]);
    assert_eq!(
        cluster.inner().followed,
        [Uid::from("rs")],
        "both are followed as one"
    );
    web(&cluster, 2, &[("r1", "b", 2), ("r2", "b", 4)]);
    scene
        .until("it is said", |scene| !scene.moved().is_empty())
        .await;
    let (message, moved) = scene.moved().remove(0);
    assert!(
        message.starts_with("moved 2 Pods from a to b (2) in "),
        "{message}"
    );
    assert_eq!(moved.missing(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_replacement_that_does_not_become_ready_is_said_after_the_pods_deadline() {
    let cluster = Fake::new();
    draining_node(&cluster, vec![of_web("p1"), of_web("p2")]);
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_at("a", Pace::Budget)]);
    scene
        .until("both go", |scene| scene.cluster.evictions().len() == 2)
        .await;
    web(&cluster, 2, &[("r1", "b", 3)]);
    let said = |scene: &Scene| !scene.told().is_empty();
    scene.pass(Duration::from_secs(590)).await;
    assert!(!said(&scene), "it is waited for");
    scene.until("it is said", said).await;
    let told = scene.told().remove(0);
    assert!(told.warning);
    assert!(
        told.note.starts_with("moved 1 Pod from a to b (1) in "),
        "{}",
        told.note
    );
    let missing = "; 1 of 2 not Ready again after 10 min: ReplicaSet shop/web";
    assert!(told.note.ends_with(missing), "{}", told.note);
    let waited = scene.now().duration_since(START).as_secs();
    assert!((600..640).contains(&waited), "after {waited} s");
    assert_eq!(
        cluster.listeners(),
        0,
        "nobody looks at the workload any more"
    );
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_is_withdrawn_says_where_those_went_that_had_gone() {
    let cluster = Fake::new();
    draining_node(&cluster, vec![of_web("p1"), of_web("p2")]);
    answer(&cluster, "p2", std::iter::repeat_n(blocked(), 10_000));
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_at("a", Pace::Budget)]);
    let one = |scene: &Scene| scene.cluster.pod_names("a") == ["p2"];
    scene.until("one has gone", one).await;
    scene.plan(|_| {});
    web(&cluster, 2, &[("r1", "b", 4), ("uid-p2", "a", 0)]);
    scene
        .until("it is said", |scene| !scene.moved().is_empty())
        .await;
    let (message, _) = scene.moved().remove(0);
    assert!(
        message.starts_with("moved 1 Pod from a to b (1) in "),
        "{message}"
    );
}

#[tokio::test(start_paused = true)]
async fn two_drains_count_no_replacement_twice() {
    let cluster = Fake::new();
    draining_node(&cluster, vec![of_web("p1")]);
    cluster.node("b", Some(&draining("b", START)));
    cluster.set_pods("b", vec![of_web("q1")]);
    let mut scene = Scene::new(&cluster).await;
    let order = |name| drain_at(name, Pace::Budget);
    scene.plan(|plan| plan.drains = vec![order("a"), order("b")]);
    scene
        .until("both go", |scene| scene.cluster.evictions().len() == 2)
        .await;
    web(&cluster, 2, &[("r1", "c", 3)]);
    scene
        .until("one is said", |scene| scene.moved().len() == 1)
        .await;
    scene.pass(Duration::from_secs(60)).await;
    assert_eq!(scene.moved().len(), 1, "the other one is awaited");
    web(&cluster, 2, &[("r1", "c", 3), ("r2", "d", 70)]);
    scene
        .until("the other is said", |scene| scene.moved().len() == 2)
        .await;
    let to = |n: usize| {
        let (_, moved) = &scene.moved()[n];
        let to = moved.to();
        (to.len(), to[0].0.to_string())
    };
    assert_eq!((to(0), to(1)), ((1, "c".to_owned()), (1, "d".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn of_many_workloads_a_few_are_followed_at_once_and_each_in_its_turn() {
    let cluster = Fake::new();
    let mut pods = Vec::new();
    for n in 0..40 {
        let mut pod = of_web(&format!("p{n:02}"));
        if let Ok(Some(owner)) = &mut pod.workload {
            owner.uid = Uid::from(format!("w{n:02}"));
        }
        pods.push(pod);
    }
    draining_node(&cluster, pods);
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_at("a", Pace::Budget)]);
    scene
        .until("all go", |scene| scene.cluster.evictions().len() == 40)
        .await;
    assert_eq!(cluster.inner().followed, [], "the drain is left in peace");
    let ended = |scene: &Scene| scene.ended() == Some(NodeOutcome::Drained);
    scene.until("the drain is over", ended).await;
    scene.pass(Duration::from_secs(2)).await;
    assert_eq!(
        cluster.inner().followed.len(),
        16,
        "no more than there are places"
    );
    // Whatever makes it look again.
    for _ in 0..8 {
        scene.pass(Duration::from_secs(2)).await;
        cluster.touch_workloads();
    }
    assert_eq!(cluster.inner().followed.len(), 16, "each for a while");
    let all = |scene: &Scene| {
        let inner = scene.cluster.inner();
        let followed: std::collections::BTreeSet<_> = inner.followed.iter().collect();
        followed.len() == 40
    };
    scene.until("each has had its turn", all).await;
    let waited = scene.now().duration_since(START).as_secs();
    assert!(waited < 120, "after {waited} s");
}

#[tokio::test(start_paused = true)]
async fn while_pods_are_evicted_nothing_is_followed_for_a_minute() {
    let cluster = Fake::new();
    let pods = (0..80).map(|n| of_web(&format!("p{n:02}"))).collect();
    draining_node(&cluster, pods);
    let mut scene = Scene::slow(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_at("a", Pace::Budget)]);
    let begun = |scene: &Scene| !scene.cluster.evictions().is_empty();
    scene.until("the first goes", begun).await;
    scene.pass(Duration::from_secs(58)).await;
    assert_eq!(cluster.inner().followed, []);
    scene.pass(Duration::from_secs(5)).await;
    assert_eq!(cluster.inner().followed, [Uid::from("rs")]);
    assert!(cluster.evictions().len() < 80, "they are evicted still");
}

#[tokio::test(start_paused = true)]
async fn what_was_evicted_is_followed_when_the_last_answer_is_a_second_old() {
    let cluster = Fake::new();
    draining_node(&cluster, vec![of_web("p0"), of_web("p1")]);
    // The drain is over at once; another Node's goes on for half a minute.
    cluster.node("b", Some(&draining("b", START)));
    let others = (0..30).map(|n| pod(&format!("q{n:02}"))).collect();
    cluster.set_pods("b", others);
    let mut scene = Scene::slow(&cluster).await;
    scene.plan(|plan| {
        plan.drains = ["a", "b"].map(|node| drain_at(node, Pace::Budget)).into();
    });
    let all_asked = |scene: &Scene| scene.cluster.evictions().len() == 32;
    scene.until("all go", all_asked).await;
    assert_eq!(cluster.inner().followed, []);
    let last = scene.now();
    let followed = |scene: &Scene| scene.cluster.inner().followed == [Uid::from("rs")];
    scene.until("it is followed", followed).await;
    let waited = scene.now().duration_since(last).as_millis();
    assert!((500..2_500).contains(&waited), "{waited} ms");
}
