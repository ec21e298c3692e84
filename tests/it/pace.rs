//! Make before break, on the real API server, judged from a watch of the test's own.

use std::collections::BTreeSet;

use crate::scene::Scene;
use crate::support::cluster::deployment;
use crate::support::init;
use crate::support::watcher::{Kind, Moment, What};

/// The fewest ready Pods of a namespace at any moment after the first `from`.
fn fewest_ready(moments: &[Moment], namespace: &str, from: usize) -> usize {
    let mut ready = BTreeSet::new();
    let mut fewest = usize::MAX;
    for (n, moment) in moments.iter().enumerate() {
        if n == from {
            fewest = ready.len();
        }
        let mine = moment
            .object
            .split_once('/')
            .is_some_and(|(of, _)| of == namespace);
        if moment.kind != Kind::Pod || !mine {
            continue;
        }
        match &moment.what {
            What::Ready(true) => {
                ready.insert(&moment.uid);
            }
            What::Ready(false) | What::Terminating { .. } | What::Gone { .. } => {
                ready.remove(&moment.uid);
            }
            What::Appeared
            | What::Bound { .. }
            | What::Taints { .. }
            | What::Cordoned(_)
            | What::Budget { .. }
            | What::BudgetBroken { .. }
            | What::WatchBroken(_) => {}
        }
        if n >= from {
            fewest = fewest.min(ready.len());
        }
    }
    fewest
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn of_three_replicas_without_a_budget_on_one_node_two_are_ready_at_every_moment() {
    init();
    let mut scene = Scene::start(2, "").await;
    scene
        .cluster
        .kubectl(&["create", "namespace", "shop"])
        .await;
    let nodes = scene.nodes("lone", 1, "110").await;
    scene.open_room(false).await;
    scene.cluster.apply(&deployment("shop", "web", 3)).await;
    scene.wait_ready("shop", &nodes, 3).await;
    scene.open_room(true).await;
    let pods = scene.pods_on(&nodes);
    assert_eq!(pods.len(), 3, "all on one Node");
    let seen = scene.watcher.moments();
    scene.fire(&nodes).await;
    scene.wait_gone(&pods, seen).await;
    scene.wait_drained(&nodes).await;
    let moments = scene.watcher.timeline();
    assert!(
        !moments
            .iter()
            .any(|moment| matches!(moment.what, What::WatchBroken(_))),
        "the watch saw every moment"
    );
    assert_eq!(fewest_ready(&moments, "shop", seen), 2);
    let accepted = scene.evictions_of(&pods);
    let accepted = accepted.iter().filter(|event| event.succeeded()).count();
    assert_eq!(accepted, 3, "each is evicted once");
}
