//! Where it went, on the real API server: what is said is held against where the Pods really are.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::scene::{LIMIT, Scene};
use crate::support::cluster::deployment;
use crate::support::{init, wait_until};

/// What one sentence says: `moved 4 Pods from worker-02 to worker-01 (3), worker-03 (1) in 8.2 s`.
#[derive(Debug)]
struct Said {
    moved: u32,
    to: BTreeMap<String, u32>,
    seconds: f64,
}

/// Nothing but that sentence, about this Node.
fn said(sentence: &str, node: &str) -> Said {
    let pattern = format!(
        r"^moved (\d+) Pods? from {node} to ((?:[a-z0-9-]+ \(\d+\)(?:, )?)+) in (\d+(?:\.\d)?) s$"
    );
    let pattern = regex::Regex::new(&pattern).expect("a pattern");
    let found = pattern.captures(sentence);
    let found = found.unwrap_or_else(|| panic!("`{sentence}` says something else"));
    let to = found[2].split(", ").map(|part| {
        let (node, count) = part
            .trim_end_matches(')')
            .split_once(" (")
            .expect("a count");
        (node.to_owned(), count.parse().expect("a number"))
    });
    Said {
        moved: found[1].parse().expect("a number"),
        to: to.collect(),
        seconds: found[3].parse().expect("a number"),
    }
}

/// The only Event of this reason about a Node, as soon as there is one.
async fn event_of(scene: &Scene, node: &str) -> Value {
    let field = format!("regarding.name={node},reason=DegradationWorkMoved");
    let field = format!("--field-selector={field}");
    let kind = "events.events.k8s.io";
    let get = ["get", kind, "-n", "default", "-o", "json", &field];
    wait_until(&format!("an Event of {node}"), LIMIT, async || {
        let list = scene.cluster.kubectl(&get).await;
        let list: Value = serde_json::from_str(&list).expect("kubectl writes JSON");
        match list["items"].as_array().map(Vec::as_slice) {
            Some([one]) => Ok(one.clone()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

async fn json(scene: &Scene, path: &str) -> Value {
    let (status, body) = scene.foreshock.get(path).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

/// Ready Pods of the workloads by Node, by the word of the API server.
async fn where_they_are(scene: &Scene) -> BTreeMap<String, u32> {
    let get = ["get", "pods", "-n", "shop", "-o", "json"];
    let list = scene.cluster.kubectl(&get).await;
    let list: Value = serde_json::from_str(&list).expect("kubectl writes JSON");
    let mut on = BTreeMap::new();
    for pod in list["items"].as_array().expect("a list") {
        assert!(
            pod["metadata"]["deletionTimestamp"].is_null(),
            "all is still"
        );
        let node = pod["spec"]["nodeName"].as_str().expect("bound");
        *on.entry(node.to_owned()).or_default() += 1;
    }
    on
}

/// Two Nodes with six Pods of one Deployment and one of another are drained.
async fn is_said_and_true(eviction: &str) {
    init();
    let scene = Scene::start(3, eviction).await;
    scene
        .cluster
        .kubectl(&["create", "namespace", "shop"])
        .await;
    let nodes = scene.nodes("pair", 2, "110").await;
    scene.open_room(false).await;
    scene.cluster.apply(&deployment("shop", "web", 6)).await;
    scene.cluster.apply(&deployment("shop", "lone", 1)).await;
    scene.wait_ready("shop", &nodes, 7).await;
    scene.open_room(true).await;
    let before: Vec<usize> = nodes
        .iter()
        .map(|node| scene.watcher.pods_on(node).len())
        .collect();
    assert!(before.iter().all(|count| *count > 0), "on both: {before:?}");
    scene.fire(&nodes).await;
    scene.wait_drained(&nodes).await;
    let mut all: BTreeMap<String, u32> = BTreeMap::new();
    for (node, before) in nodes.iter().zip(before) {
        let event = event_of(&scene, node).await;
        assert_eq!(event["type"], "Normal", "{event}");
        let sentence = event["note"].as_str().expect("a note");
        let said = said(sentence, node);
        assert_eq!(said.moved as usize, before, "{sentence}");
        assert_eq!(said.to.values().sum::<u32>(), said.moved, "{sentence}");
        // Pods of the bed become ready after one to three seconds.
        assert!(said.seconds >= 0.5, "{sentence}");
        for (node, count) in said.to {
            *all.entry(node).or_default() += count;
        }
        let view = json(&scene, &format!("/api/nodes/{node}?plan=false")).await;
        assert_eq!(view["moved"]["message"], sentence, "{}", view["moved"]);
        let feed = json(&scene, &format!("/api/events?kind=moved&node={node}")).await;
        let feed: Vec<&Value> = feed["events"].as_array().expect("a list").iter().collect();
        assert_eq!(feed.len(), 1, "{feed:?}");
        assert_eq!(feed[0]["message"], sentence);
    }
    assert_eq!(all, where_they_are(&scene).await, "where they really are");
    let (_, metrics) = scene.foreshock.get("/metrics").await;
    let count = "foreshock_replacement_ready_seconds_count 7";
    assert!(metrics.lines().any(|line| line == count), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn an_event_says_where_the_pods_of_two_nodes_went_and_they_are_there() {
    is_said_and_true("").await;
}

/// There nothing looks at workloads on behalf of the drain.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn at_the_pace_of_budgets_alone_it_is_said_all_the_same() {
    is_said_and_true("[eviction]\npace = \"budget\"\n").await;
}
