//! `kill -9` at exact places of the writing path, on a real API server: right before a write arrives there,
//! and right after it took place and before foreshock could hear of it.
//!
//! All places are on one Node's way, one after the other, so that each start finds what the last kill left.

use std::time::Duration;

use axum::http::Method;

use crate::scenario::{Scene, SceneOptions, lasting};
use crate::support::proxy::{Held, Passing, Side};
use crate::support::{figure, init, wait_for};

const NODE: &str = "worker-04";

/// A write on a Node's way.
#[derive(Clone, Copy, Debug)]
enum Write {
    Taint,
    /// The cluster's record, which must be on the Lease before a drain may begin.
    Record,
    DrainStart,
    Eviction,
    Drained,
    Release,
}

impl Write {
    fn is(self, passing: &Passing) -> bool {
        let phase = || passing.record().map(|record| record["phase"].clone());
        let lease = "/apis/coordination.k8s.io/v1/namespaces/foreshock/leases/";
        match self {
            Self::Taint => phase().is_some_and(|phase| phase == "tainted"),
            Self::Record => {
                passing.method == Method::PATCH
                    && passing.uri.starts_with(lease)
                    && passing.body["metadata"]["annotations"]["foreshock.dev/cluster-state"]
                        .as_str()
                        .is_some_and(|record| record.contains(NODE))
            }
            Self::DrainStart => phase().is_some_and(|phase| phase == "draining"),
            Self::Eviction => {
                passing.method == Method::POST
                    && passing.uri.contains("/eviction?")
                    && !passing.uri.contains("dryRun")
                    && passing.body["deleteOptions"]["dryRun"].is_null()
            }
            Self::Drained => phase().is_some_and(|phase| phase == "drained"),
            Self::Release => phase().is_some_and(|phase| phase.is_null() || phase == "clear"),
        }
    }
}

/// Waits until the write comes, kills foreshock there, and starts it again.
async fn killed_at(scene: &mut Scene, side: Side, write: Write) {
    let caught = scene.proxy().hold(side, move |passing| write.is(passing));
    let held: Held = tokio::time::timeout(Duration::from_secs(90), caught)
        .await
        .unwrap_or_else(|_| panic!("{write:?} does not come"))
        .expect("the proxy lives as long as the scene");
    match side {
        Side::Before => assert_eq!(held.status, None),
        Side::After => assert!(
            held.status.is_some_and(|status| status < 300),
            "{write:?} took place: {held:?}"
        ),
    }
    scene.foreshock.kill9();
    println!(
        "killed {side:?} {write:?}: {} {}",
        held.passing.method, held.passing.uri
    );
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn a_kill_before_or_after_any_kind_of_write_converges() {
    init();
    let mut scene = Scene::start(SceneOptions {
        proxied: true,
        // Alerts are read at the start: one that was only heard of dies with the process.
        more: "[eviction]\nrate = 2\n[alertmanager]\nurl = \"@ALERTMANAGER@\"\n",
        ..SceneOptions::default()
    })
    .await;
    let before = lasting(&scene.node_object(NODE).await);
    scene.fire(NODE, true);
    let mut kills = 0;
    for write in [
        Write::Taint,
        Write::Record,
        Write::DrainStart,
        Write::Eviction,
        Write::Drained,
        Write::Release,
    ] {
        if let Write::Release = write {
            scene.wait_phase(NODE, "drained", 60).await;
            // Who only waits to lead cannot write into the record that an alert has ended, and a kill
            // would bring it back until it expires.
            wait_for("a leader", Duration::from_secs(60), async || {
                let health = scene.foreshock.get_json("/api/health").await;
                (health["leader"] == true).then_some(())
            })
            .await;
            scene.fire(NODE, false);
        }
        for side in [Side::Before, Side::After] {
            killed_at(&mut scene, side, write).await;
            kills += 1;
            scene.foreshock.restart().await;
        }
    }
    scene.wait_released(NODE, 90).await;
    wait_for(
        "the Node to be as before",
        Duration::from_secs(30),
        async || (lasting(&scene.node_object(NODE).await) == before).then_some(()),
    )
    .await;
    scene.print_timeline();
    scene.judge(&[NODE]);
    figure("kill_points_real", kills);
}
