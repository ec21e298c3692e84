//! What is said once: one Kubernetes Event, one event of the page.

use foreshock_core::decision::world::HoldUntil;

use super::*;

const STORM: [&str; 4] = ["n01", "n02", "n03", "n04"];

fn lease(reason: &'static str) -> (String, &'static str) {
    ("Lease".to_owned(), reason)
}

#[tokio::test(start_paused = true)]
async fn a_storm_is_said_once_when_it_begins_and_once_when_it_is_over() {
    let scene = scene(10, "");
    scene.pass(MINUTE).await;
    STORM.iter().for_each(|node| scene.risk(node, 0.9));
    scene.pass(60 * MINUTE).await;
    assert_eq!(scene.published(), [lease("DegradationStorm")]);
    let said = scene.said(EventKind::Storm);
    assert_eq!(said.len(), 1, "{said:#?}");
    assert!(said[0].starts_with("storm, 4 of 10 Nodes: "), "{said:#?}");
    assert_eq!(scene.writes(), 0);

    STORM.iter().for_each(|node| scene.risk(node, 0.05));
    scene.pass(20 * MINUTE).await;
    assert_eq!(scene.published(), [lease("DegradationStormOver")]);
    let said = scene.said(EventKind::Storm);
    assert!(said[1].contains("is over"), "{said:#?}");
    assert_eq!(said[2], "after the storm: one Node first");
    assert_eq!(said.len(), 3, "{said:#?}");
    assert!(scene.snapshots.borrow().ramp.is_some());
}

#[tokio::test(start_paused = true)]
async fn an_exporter_that_makes_many_nodes_look_bad_is_named() {
    // A share of the cluster that is no storm, were they not all of one new version.
    let scene = scene(40, "");
    scene.pass(MINUTE).await;
    let bad = ["n01", "n02", "n03", "n04", "n05"];
    scene.tell(|told| {
        for node in bad {
            told.risks.insert(node.to_owned(), 0.9);
            told.upgraded.insert(node.to_owned(), "1.10.0".to_owned());
        }
    });
    scene.pass(30 * MINUTE).await;
    assert_eq!(scene.published(), [lease("DegradationStorm")]);
    let said = scene.said(EventKind::Storm);
    assert!(
        said[0].contains("all by node_exporter 1.10.0, which is new"),
        "{said:#?}"
    );
    assert_eq!(scene.writes(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_begins_while_paused_is_said_after_it() {
    let scene = scene(10, "");
    scene.pass(MINUTE).await;
    scene.pause(true);
    STORM.iter().for_each(|node| scene.risk(node, 0.9));
    scene.pass(10 * MINUTE).await;
    assert_eq!(scene.published(), []);
    scene.pause(false);
    scene.pass(10 * MINUTE).await;
    assert_eq!(scene.published(), [lease("DegradationStorm")]);
}

#[tokio::test(start_paused = true)]
async fn an_annotation_that_is_no_time_is_said_once_for_each_value() {
    let scene = scene(3, "");
    let malformed = |text: &str| {
        let hold = Some(HoldUntil::Malformed(text.to_owned()));
        scene.cluster.set_hold_until(&"n01".into(), hold)
    };
    assert!(malformed("tomorrow"));
    scene.pass(60 * MINUTE).await;
    let of_node = || ("n01".to_owned(), "HoldUntilMalformed");
    assert_eq!(scene.published(), [of_node()]);
    let said = scene.said(EventKind::Hold);
    assert!(said[0].contains("\"tomorrow\""), "{said:#?}");
    assert_eq!(said.len(), 1);

    assert!(malformed("next week"));
    scene.pass(10 * MINUTE).await;
    assert_eq!(scene.published(), [of_node()]);
    scene.cluster.set_hold_until(&"n01".into(), None);
    scene.pass(MINUTE).await;
    assert!(malformed("next week"));
    scene.pass(MINUTE).await;
    assert_eq!(scene.published(), [of_node()], "it was put there again");
}
