//! Volumes that evicted Pods have left behind: how it reads.

use std::time::Duration;

use crate::support::now;
use foreshock_core::drain::{DrainId, LeftBehind, Volume};
use foreshock_core::node::NodeId;

fn volume(n: usize, shared: bool) -> Volume {
    Volume {
        namespace: "shop".to_owned(),
        claim: format!("data-{n}"),
        name: format!("pv-{n}"),
        driver: "csi.example.com".to_owned(),
        handle: format!("vol-{n}"),
        shared,
    }
}

#[test]
fn what_is_left_behind_is_said_in_a_sentence() {
    let check = |attached: &[Volume], unknown: usize, expected: &str| {
        let left = LeftBehind {
            drain: DrainId {
                node: NodeId::new("worker-02", "uid"),
                started_at: now(),
            },
            waited: Duration::from_secs(845),
            attached: attached.to_vec(),
            unknown: (0..unknown)
                .map(|n| (volume(n, false), format!("problem {n}")))
                .collect(),
        };
        assert_eq!(left.to_string(), expected);
    };
    check(
        &[volume(1, false)],
        0,
        "1 volume of evicted Pods is still attached to worker-02 14 min 5 s after the drain, and replacements \
         wait for that: shop/data-1 (pv-1)",
    );
    let several: Vec<Volume> = (1..=4).map(|n| volume(n, n != 3)).collect();
    check(
        &several,
        0,
        "4 volumes of evicted Pods are still attached to worker-02 14 min 5 s after the drain, and replacements \
         wait for that: shop/data-1 (pv-1), shop/data-2 (pv-2) and 2 more",
    );
    // Of what several Nodes may have, nobody waits for the other.
    check(
        &[volume(1, true)],
        0,
        "1 volume of evicted Pods is still attached to worker-02 14 min 5 s after the drain: shop/data-1 (pv-1)",
    );
    check(
        &[],
        3,
        "whether 3 volumes of evicted Pods left worker-02 is not known: shop/data-0 (pv-0), shop/data-1 (pv-1) and \
         1 more: problem 0",
    );
    check(
        &[volume(7, true)],
        1,
        "1 volume of evicted Pods is still attached to worker-02 14 min 5 s after the drain: shop/data-7 (pv-7); \
         whether 1 volume of evicted Pods left worker-02 is not known: shop/data-0 (pv-0): problem 0",
    );
}

/// Longer ones are cut, and the names come last.
#[test]
fn a_sentence_about_two_provisioned_volumes_fits_into_an_event() {
    let provisioned = |n: usize| Volume {
        name: "pvc-1dfaca6a-9d0e-4f0e-9f5e-6a1f0f7d3c11".to_owned(),
        ..volume(n, false)
    };
    let left = LeftBehind {
        drain: DrainId {
            node: NodeId::new("worker-02", "uid"),
            started_at: now(),
        },
        waited: Duration::from_secs(845),
        attached: (0..9).map(provisioned).collect(),
        unknown: Vec::new(),
    };
    assert!(left.to_string().len() < 250, "{left}");
}
