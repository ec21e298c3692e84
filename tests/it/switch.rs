//! The one switch on a real API server: thrown in the middle of a drain, nothing more is written, and a
//! restart changes nothing about that; resumed, the drain goes on.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::scenario::{Scene, SceneOptions};
use crate::support::audit::AuditEvent;
use crate::support::{figure, init, wait_for, wait_until};

/// By this long after the switch, the last write has reached the API server.
const LIMIT: SignedDuration = SignedDuration::from_secs(1);

fn is_lease(event: &AuditEvent) -> bool {
    event.resource == "leases"
}

/// Writes of foreshock's, the Lease aside, that reached the API server after `from`.
fn writes_after(scene: &Scene, from: Timestamp) -> Vec<AuditEvent> {
    let mut writes = scene.writes();
    writes.retain(|event| !is_lease(event) && event.received > from);
    writes
}

/// Waits until the Lease has been renewed so often after `from`: the leader is there, and would write.
async fn renewals_after(scene: &Scene, from: Timestamp, count: usize) {
    wait_until(
        "the Lease to be renewed",
        Duration::from_secs(60),
        async || {
            let writes = scene.writes();
            let renewed = writes
                .iter()
                .filter(|event| is_lease(event) && event.received > from)
                .count();
            if renewed >= count {
                return Ok(());
            }
            Err(format!("{renewed} times"))
        },
    )
    .await;
}

/// Starts a drain by an alert, and returns when two of its evictions have been accepted.
async fn begin_drain(scene: &Scene, node: &str) {
    let before = scene.evictions().len();
    scene.fire(node, true);
    wait_for(
        &format!("two evictions from {node}"),
        Duration::from_secs(60),
        async || (scene.evictions().len() >= before + 2).then_some(()),
    )
    .await;
    let left = scene.watcher.pods_on(node);
    assert!(left.len() > 4, "{node} is in the middle of it: {left:?}");
}

/// From a second after `thrown` on there is nothing but the Lease. Returns how many milliseconds after it
/// the last write came, 0 where none did.
fn stands_still(scene: &Scene, thrown: Timestamp) -> i128 {
    let late: Vec<String> = writes_after(scene, thrown + LIMIT)
        .iter()
        .map(|event| format!("{} {} {}", event.received, event.verb, event.uri))
        .collect();
    assert!(late.is_empty(), "written after the switch: {late:#?}");
    writes_after(scene, thrown)
        .iter()
        .map(|event| event.received.duration_since(thrown).as_millis())
        .max()
        .unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn the_switch_stops_every_write_within_a_second_and_survives_a_restart() {
    init();
    let mut scene = Scene::start(SceneOptions {
        // Slow enough to be in the middle of a drain for seconds.
        more: "[eviction]\nrate = 2\n",
        ..SceneOptions::default()
    })
    .await;

    // By the API.
    let node = "worker-04";
    begin_drain(&scene, node).await;
    let thrown = Timestamp::now();
    let (status, body) = scene
        .foreshock
        .post_json("/api/monitoring/stop", &json!({}))
        .await;
    assert_eq!(status, 200, "{body}");
    is_paused(&scene, node).await;
    renewals_after(&scene, thrown, 3).await;
    stands_still(&scene, thrown);
    // Over a kill, and over an end in good order.
    scene.foreshock.kill9();
    scene.foreshock.restart().await;
    is_paused(&scene, node).await;
    scene.foreshock.stop().await;
    let restarted = Timestamp::now();
    scene.foreshock.restart().await;
    is_paused(&scene, node).await;
    renewals_after(&scene, restarted, 3).await;
    figure("pause_api_last_write_ms", stands_still(&scene, thrown));
    assert!(
        !scene.watcher.pods_on(node).is_empty(),
        "the drain waits, it has not ended"
    );
    resume(&scene).await;
    scene.wait_phase(node, "drained", 60).await;
    scene.fire(node, false);
    scene.wait_released(node, 60).await;

    // By the annotation, with nothing but kubectl.
    let node = "worker-11";
    begin_drain(&scene, node).await;
    let before = Timestamp::now();
    scene
        .cluster
        .kubectl(&[
            "annotate",
            "lease",
            "foreshock",
            "-n",
            "foreshock",
            "foreshock.dev/paused=true",
        ])
        .await;
    let thrown = wait_for(
        "kubectl's write in the audit log",
        Duration::from_secs(20),
        async || {
            let audit = scene.cluster.audit();
            audit
                .iter()
                .find(|event| {
                    event.user == "admin"
                        && event.verb == "patch"
                        && is_lease(event)
                        && event.received > before
                })
                .map(|event| event.answered)
        },
    )
    .await;
    is_paused(&scene, node).await;
    // What asks for clean-up comes meanwhile: the alert ends, and the Node is well for longer than
    // `recover_for`.
    scene.fire(node, false);
    scene
        .wait_node(node, "to look well", 60, |view| {
            view["risk"].as_f64().is_some_and(|risk| risk < 0.4)
        })
        .await;
    let well = Timestamp::now();
    renewals_after(&scene, well, 5).await;
    assert!(
        Timestamp::now().duration_since(well) > SignedDuration::from_secs(5),
        "longer than recover_for"
    );
    scene.foreshock.kill9();
    scene.foreshock.restart().await;
    is_paused(&scene, node).await;
    stands_still(&scene, thrown);
    assert_eq!(
        scene.taints(node).await,
        ["degradation=true:NoSchedule"],
        "clean-up waits as well"
    );
    scene.fire(node, true);
    scene
        .wait_node(node, "to be at risk again", 60, |view| {
            view["band"] == "at_risk"
        })
        .await;
    figure("pause_lease_last_write_ms", stands_still(&scene, thrown));
    resume(&scene).await;
    scene.wait_phase(node, "drained", 60).await;
    scene.fire(node, false);
    scene.wait_released(node, 60).await;

    scene.print_timeline();
    scene.judge(&["worker-04", "worker-11"]);
}

/// The Node is where it was, and what is next waits for somebody to resume.
async fn is_paused(scene: &Scene, node: &str) {
    let view = scene
        .wait_node(node, "to be held by the switch", 60, |view| {
            view["hold"]["reason"] == "paused"
        })
        .await;
    assert_eq!(view["phase"], "draining", "{view}");
    let health = scene.foreshock.get_json("/api/health").await;
    assert_eq!(health["paused"], true, "{health}");
}

async fn resume(scene: &Scene) {
    // Right after a start the Lease of the process before is still valid, and nobody leads.
    wait_for(
        "the switch to be taken",
        Duration::from_secs(30),
        async || {
            let (status, body) = scene
                .foreshock
                .post_json("/api/monitoring/start", &json!({}))
                .await;
            assert!(matches!(status, 200 | 503), "{status}: {body}");
            (status == 200).then_some(())
        },
    )
    .await;
    let lease = scene
        .cluster
        .kubectl(&["get", "lease", "foreshock", "-n", "foreshock", "-o", "json"])
        .await;
    assert!(!lease.contains("foreshock.dev/paused"), "{lease}");
}
