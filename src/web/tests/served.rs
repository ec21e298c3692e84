//! The page over a made-up fleet, for looking at it:
//! `FORESHOCK_FIXTURE=127.0.0.1:5151 cargo test --features page --lib served`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::fixture::{Doors, START, at, events, scene_with, snapshot};
use crate::events::{EventKind, NewEvent};
use crate::snapshot::{LimitUse, Snapshot};
use crate::web::{WebOptions, bind, serve};

/// The made-up fleet shifted to the present, so that ages read as they would.
fn present(count: usize, mode: &str) -> Snapshot {
    let now = Timestamp::now().as_second() - START;
    let mut snapshot = snapshot(count, now);
    match mode {
        "down" => {
            snapshot.health.prometheus.ok = false;
            snapshot.health.prometheus.features_at = Some(at(now - 190));
            snapshot.health.prometheus.problem = Some(
                "Prometheus at http://127.0.0.1:9090 does not answer (connection refused); check \
                 prometheus.url. Nothing is tainted or released meanwhile."
                    .into(),
            );
        }
        "starting" => {
            snapshot.synced = false;
            snapshot.nodes.clear();
            snapshot.health.kubernetes.ok = false;
            snapshot.health.kubernetes.problem = Some(
                "the API server at https://127.0.0.1:6443 does not answer; check \
                 kubernetes.kubeconfig"
                    .into(),
            );
        }
        "empty" => snapshot.nodes.clear(),
        "storm" => {
            snapshot.storm = Some(foreshock_core::record::Storm {
                since: at(now - 130),
                about: "4 of 10 Nodes".into(),
                input: None,
                calm_since: None,
            });
        }
        "ramp" => {
            snapshot.ramp = Some(foreshock_core::record::Ramp {
                since: at(now - 75),
                width: 2,
                nodes: ["worker-03", "worker-07"]
                    .map(|name| (name.into(), "u".into()))
                    .into(),
            });
            let limit = |scope: &str, name, used| LimitUse {
                name,
                scope: scope.into(),
                used,
                max: 2,
            };
            for zone in ["zone/a", "zone/b", "zone/c"] {
                snapshot.limits.push(limit(zone, "tainted_max", 1));
            }
            snapshot.limits.push(limit("pool/gpu", "draining_max", 2));
        }
        "paused" => snapshot.health.paused = true,
        _ => {}
    }
    snapshot
}

#[tokio::test]
async fn the_made_up_fleet_is_served_until_stopped() {
    let address = std::env::var("FORESHOCK_FIXTURE").unwrap_or("127.0.0.1:5151".into());
    let count = std::env::var("FORESHOCK_NODES").map_or(24, |count| count.parse().unwrap());
    let mode = std::env::var("FORESHOCK_MODE").unwrap_or_default();
    let doors = Doors {
        lasting: true,
        ..Doors::default()
    };
    let mut scene = scene_with(present(count, &mode), doors);
    scene.state.clock = Arc::new(Timestamp::now);
    events(&scene.events);
    let tx = scene.snapshots;
    let log = scene.events.clone();
    let doors = scene.doors.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let mut next = present(count, &mode);
            if let Some(paused) = doors.switched.lock().unwrap().last() {
                next.health.paused = *paused;
            }
            let now = next.at;
            tx.send_replace(Arc::new(next));
            let event = NewEvent::new(now, EventKind::Evict, "evicted, and gone after 1.4 s");
            log.push(event.node(&"worker-03".into()).pod("shop/cart-7d9f-4"));
        }
    });
    let listener = bind(&address).await.unwrap();
    let options = WebOptions::default();
    serve(listener, options, scene.state, CancellationToken::new())
        .await
        .unwrap();
}
