//! Inputs that are not any more what the model learned from.

use super::*;
use crate::model::drift::Reference;
use crate::model::testing::{sealed, stump};

/// A model that learned from Nodes of which four in five read 0.05 and the others 0.15.
fn model() -> Model {
    let mut content = stump("drifting", RISK, 0.9);
    content.columns[0].edges.edges = (1..10).map(|i| f64::from(i) / 10.0).collect();
    content.gbdt.trees[0].tree.tree[0].value.feature_value = 10.0;
    let codes: Vec<u8> = (0..1_000)
        .map(|row| if row % 5 == 0 { 2 } else { 1 })
        .collect();
    content.reference = Reference::of(&content.columns, &codes, &[0.047; 1_000]);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.json");
    sealed(content).write(&path).expect("written");
    let mut model = Model::load(Some(&path), terms()).expect("a model");
    // Nobody looks at the file here, and the folder is gone.
    model.file = None;
    model
}

#[tokio::test(start_paused = true)]
async fn inputs_that_have_drifted_leave_the_model_no_more_than_a_label() {
    let scene = scene_by(model(), "taint", 8, "");
    let drift = || {
        let card = scene.snapshots.borrow().model.clone();
        card.expect("a card").drift.clone()
    };
    for node in 0..8 {
        scene.risk(&format!("n{node:02}"), 0.35);
    }
    scene.pass(MINUTE).await;
    assert_eq!(drift().expect("is counted").level(), "unknown");
    scene.pass(6 * 60 * MINUTE).await;
    let measured = drift().expect("is counted");
    assert_eq!((measured.level(), measured.alarmed), ("alarm", true));
    assert!(
        measured.measured.score.is_some_and(|index| index < 0.1),
        "{measured:?}"
    );
    let outcomes = measured.outcomes.expect("some stretches are over");
    assert!(outcomes.lasting >= seconds(5 * 3_600), "{outcomes:?}");
    assert_eq!(outcomes.observed, 0);
    let health = scene.snapshots.borrow().health.degraded.clone();
    assert!(
        health.iter().any(|problem| problem
            .contains("inputs have drifted from those that it learned from: mem_used")),
        "{health:?}"
    );

    scene.risk("n01", 0.95);
    scene.pass(5 * MINUTE).await;
    let node = scene.node("n01");
    let hold = node.verdict.hold().expect("is held");
    assert_eq!(hold.reason, HoldReason::Untrained);
    assert!(hold.detail.contains("have drifted"), "{}", hold.detail);
    assert_eq!(
        scene.done(Cause::Taint, "n01"),
        None,
        "although model.act_untrained is set"
    );
}
