//! Another model while the service runs.

use std::path::PathBuf;

use super::*;
use crate::model::artifact::Artifact;
use crate::model::testing::{local, sealed, stump};

/// A service whose model file is this one; `a` calls Nodes at risk from 0.9 on.
struct Filed {
    scene: Scene,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

fn a() -> Artifact {
    sealed(stump("a", RISK, 0.9))
}

fn b() -> Artifact {
    sealed(stump("b", RISK, 0.5))
}

fn filed(nodes: usize, policy: &str) -> Filed {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.json");
    a().write(&path).expect("written");
    let model = Model::load(Some(&path), terms()).expect("a model");
    Filed {
        scene: scene_by(model, "taint", nodes, policy),
        path,
        _folder: folder,
    }
}

impl Filed {
    /// The model that the page shows, and what health says of its file.
    fn shown(&self) -> (String, Vec<String>) {
        let snapshot = self.scene.snapshots.borrow().clone();
        let name = snapshot
            .health
            .model
            .as_ref()
            .expect("a model")
            .name
            .clone();
        assert_eq!(snapshot.model.as_ref().expect("a card").name.name, name);
        let of_file = |problem: &&String| problem.starts_with("model.file ");
        let problems = snapshot.health.degraded.iter().filter(of_file);
        (name, problems.cloned().collect())
    }

    /// What came of the file, by outcome.
    fn counted(&self) -> Vec<(&'static str, u64)> {
        let counted = self.scene.counters.reloads();
        let counted = counted.map(|(outcome, n)| (outcome.as_str(), n));
        counted.filter(|(_, n)| *n > 0).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_model_speaks_from_the_next_scoring_on() {
    let filed = filed(3, "");
    filed.scene.risk("n01", 0.7);
    filed.scene.pass(5 * MINUTE).await;
    assert_eq!(filed.shown(), (a().id(), Vec::new()));
    let node = filed.scene.node("n01");
    assert_eq!(node.model.as_deref(), Some(a().id().as_str()));
    assert!(
        node.verdict
            .model_risk
            .is_some_and(|risk| risk.as_f64() < 0.1)
    );
    assert_eq!(filed.counted(), []);

    b().write(&filed.path).expect("written");
    filed.scene.pass(40).await;
    assert_eq!(filed.shown(), (b().id(), Vec::new()));
    let node = filed.scene.node("n01");
    assert_eq!(node.model.as_deref(), Some(b().id().as_str()));
    assert!(
        node.verdict
            .model_risk
            .is_some_and(|risk| risk.as_f64() > 0.9)
    );
    assert_eq!(filed.counted(), [("ok", 1)]);
    let said = filed.scene.said(EventKind::Model);
    assert_eq!(
        said,
        [format!(
            "model {} is in use, instead of {}",
            b().id(),
            a().id()
        )]
    );
    filed.scene.pass(5 * MINUTE).await;
    assert!(filed.scene.done(Cause::Taint, "n01").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_used_leaves_the_model_and_says_so_until_it_can() {
    let whole = a().to_bytes().expect("bytes");
    let foreign = {
        let mut content = stump("c", RISK, 0.5);
        content.columns[0].meaning = "0123456789abcdef".to_owned();
        sealed(content).to_bytes().expect("bytes")
    };
    let text = String::from_utf8(whole.clone()).expect("text");
    let changed = text.replace("\"intercept\":0.0", "\"intercept\":0.5");
    for (what, bytes, fault, outcome) in [
        (
            "no JSON",
            Some(b"gone".to_vec()),
            "not a complete model file",
            "invalid",
        ),
        (
            "cut off",
            Some(whole[..whole.len() / 2].to_vec()),
            "not a complete model file",
            "invalid",
        ),
        ("changed", Some(changed.into_bytes()), "checksum", "invalid"),
        (
            "deleted",
            None,
            "cannot be read; check `model.file`",
            "unreadable",
        ),
        (
            "of other features",
            Some(foreign),
            "`mem_used` is defined differently",
            "other_features",
        ),
    ] {
        let filed = filed(2, "");
        filed.scene.pass(MINUTE).await;
        match bytes {
            Some(bytes) => std::fs::write(&filed.path, bytes).expect("written"),
            None => std::fs::remove_file(&filed.path).expect("removed"),
        }
        filed.scene.pass(5 * MINUTE).await;
        let (model, problems) = filed.shown();
        assert_eq!(model, a().id(), "{what}");
        let [problem] = problems.as_slice() else {
            panic!("{what}: {problems:?}");
        };
        assert!(problem.contains(fault), "{what}: {problem}");
        assert!(problem.contains("model.json"), "{what}: {problem}");
        assert!(
            problem.ends_with(&format!("; {} stays in use", a().id())),
            "{problem}"
        );
        assert_eq!(filed.counted(), [(outcome, 1)], "{what}: told once");
        assert!(
            filed.scene.node("n00").verdict.model_risk.is_some(),
            "{what}"
        );

        // The same model again is as good as a new one.
        std::fs::write(&filed.path, &whole).expect("written");
        filed.scene.pass(MINUTE).await;
        assert_eq!(filed.shown(), (a().id(), Vec::new()), "{what}");
        b().write(&filed.path).expect("written");
        filed.scene.pass(MINUTE).await;
        assert_eq!(filed.shown(), (b().id(), Vec::new()), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_only_touched_is_no_news() {
    let filed = filed(2, "");
    filed.scene.pass(MINUTE).await;
    for _ in 0..3 {
        a().write(&filed.path).expect("written");
        filed.scene.pass(MINUTE).await;
    }
    assert_eq!(filed.counted(), []);
    assert!(filed.scene.said(EventKind::Model).is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_being_scored_ends_with_the_model_that_it_began_with() {
    let filed = filed(3, "");
    filed.scene.risk("n01", 0.7);
    filed.scene.pass(MINUTE).await;
    // Prometheus takes 10 s for an answer: the file is looked at while one is under way.
    filed.scene.tell(|told| told.takes = seconds(10));
    filed.scene.pass(MINUTE).await;
    b().write(&filed.path).expect("written");
    let shown_at = || {
        let snapshot = filed.scene.snapshots.borrow().clone();
        snapshot.matrix.as_ref().expect("features").at
    };
    let (mut before, mut first) = (shown_at(), None);
    for _ in 0..60 {
        filed.scene.pass(1).await;
        let at = shown_at();
        let model = filed.scene.node("n01").model.expect("a model").to_string();
        // Page, card and every Node are of one model.
        assert_eq!(filed.shown().0, model);
        if filed.counted().is_empty() {
            before = at;
        } else if at > before {
            first.get_or_insert(model);
        }
    }
    assert_eq!(
        first,
        Some(a().id()),
        "the answer under way was the old model's"
    );
    assert_eq!(filed.shown().0, b().id());
}

#[tokio::test(start_paused = true)]
async fn what_one_model_began_to_suspect_another_does_not_confirm() {
    let filed = filed(3, "confirm_for = \"5m\"");
    filed.scene.pass(MINUTE).await;
    filed.scene.risk("n01", 0.95);
    filed.scene.pass(4 * MINUTE).await;
    b().write(&filed.path).expect("written");
    filed.scene.pass(3 * MINUTE).await;
    assert_eq!(filed.shown().0, b().id());
    assert_eq!(filed.scene.hold("n01"), Some(HoldReason::Unconfirmed));
    assert_eq!(filed.scene.writes(), 0);
    filed.scene.pass(4 * MINUTE).await;
    assert!(filed.scene.done(Cause::Taint, "n01").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_new_model_that_calls_many_nodes_lost_is_named_in_the_storm() {
    // One after the other, so slowly that only what is new is looked at for longer than `storm_window`.
    let bad = ["n01", "n02", "n03"];
    let slowly = |filed: Filed| async move {
        filed.scene.pass(MINUTE).await;
        for node in bad {
            filed.scene.risk(node, 0.95);
            filed.scene.pass(6 * MINUTE).await;
        }
        filed
    };
    let old = slowly(filed(10, "")).await;
    assert_eq!(old.scene.said(EventKind::Storm), Vec::<String>::new());

    let filed = filed(10, "");
    filed.scene.pass(2 * MINUTE).await;
    b().write(&filed.path).expect("written");
    let new = slowly(filed).await;
    let said = new.scene.said(EventKind::Storm);
    let named = format!("all by model {}, which is new", b().id());
    assert!(
        said.first().is_some_and(|said| said.contains(&named)),
        "{said:#?}"
    );
}

/// A model that learned here and has proved itself in February 2026; the scene begins on 1 March.
fn proved() -> Artifact {
    let mut content = stump("proved", RISK, 0.9);
    content.local = Some(local());
    sealed(content)
}

#[tokio::test(start_paused = true)]
async fn a_model_acts_once_it_has_proved_itself_and_loses_it_with_a_worse_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.json");
    a().write(&path).expect("written");
    let terms = testing::terms(Schema::built_in());
    let model = Model::load(Some(&path), terms).expect("a model");
    let scene = scene_by(model, "taint", 6, "");
    scene.risk("n01", 0.95);
    scene.pass(5 * MINUTE).await;
    let hold = |node: &str| {
        let node = scene.node(node);
        let hold = node.verdict.hold().expect("is held");
        (hold.reason, hold.detail.clone())
    };
    let health = || scene.snapshots.borrow().health.degraded.clone();
    let (reason, detail) = hold("n01");
    assert_eq!(reason, HoldReason::Untrained);
    let why = "the model alone may cause no more than a label: its file does not say how it did on this \
               cluster's history; train it anew";
    assert_eq!(detail, why);
    let said =
        |problem: &String| problem.contains("alone may cause no more than a label: its file");
    assert!(health().iter().any(said), "{:?}", health());

    proved().write(&path).expect("written");
    scene.pass(5 * MINUTE).await;
    assert!(scene.done(Cause::Taint, "n01").is_some());
    assert!(health().is_empty(), "{:?}", health());
    let card = scene.snapshots.borrow().model.clone().expect("a card");
    assert_eq!((card.name.reach, card.authority.acts), (Reach::Evict, true));

    a().write(&path).expect("written");
    scene.pass(MINUTE).await;
    scene.risk("n02", 0.95);
    scene.pass(5 * MINUTE).await;
    assert_eq!(hold("n02").0, HoldReason::Untrained);
    assert_eq!(scene.done(Cause::Taint, "n02"), None);
    // What the other has begun is given back all the same.
    scene.risk("n01", 0.05);
    scene.pass(30 * MINUTE).await;
    assert!(scene.done(Cause::Release, "n01").is_some());
}
