use std::sync::OnceLock;
use std::time::Duration;

use proptest::prelude::*;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use super::*;
use crate::features::Schema;
use crate::model::boost::Settings;
use crate::model::scorer::{Scorer, TreeScorer};
use crate::model::testing::{matrix, message, model, says};

mod mutations;

const NAMES: [&str; 3] = ["mem_used", "mem_used:peers", "psi_io"];

fn good() -> &'static Artifact {
    static GOOD: OnceLock<Artifact> = OnceLock::new();
    GOOD.get_or_init(|| {
        model(
            &NAMES,
            &Settings {
                trees_max: 8,
                ..Settings::default()
            },
        )
    })
}

fn good_bytes() -> Vec<u8> {
    good().to_bytes().unwrap()
}

/// Parses, and demands an answer within a second of CPU time (other tests run at the same time).
fn parse(bytes: &[u8]) -> Result<Artifact, ModelError> {
    let clock = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let started = clock();
    let result = Artifact::parse(bytes, &Limits::default());
    let took = clock() - started;
    assert!(took < Duration::from_secs(1), "took {took:?}");
    result
}

/// The whole message, as an operator reads it.
/// The good file with a change, and a checksum that fits wherever the content still has its shape:
/// whoever can change the content can also change the checksum.
fn changed(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut file: Value = serde_json::from_slice(&good_bytes()).unwrap();
    change(&mut file);
    if let Ok(content) = serde_json::from_value::<Content>(file["content"].clone()) {
        file["checksum"] = json!(checksum_of(&content).unwrap());
    }
    serde_json::to_vec(&file).unwrap()
}

fn content(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    changed(|file| change(&mut file["content"]))
}

fn trees(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    changed(|file| change(&mut file["content"]["gbdt"]))
}

/// Changes the nodes of the first tree, whose root is an inner node.
fn nodes(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    trees(|gbdt| change(&mut gbdt["trees"][0]["tree"]["tree"]))
}

/// Sets one field of the content, found by its JSON pointer.
fn set(pointer: &str, value: Value) -> Vec<u8> {
    changed(|file| *file.pointer_mut(&format!("/content{pointer}")).unwrap() = value)
}

/// A file with a calibration for rows that lack these columns.
fn gap(columns: Value, slope: Value) -> Vec<u8> {
    let gap = json!({"columns": columns, "calibration": {"slope": slope, "intercept": 0.0}});
    content(|c| c["gaps"] = json!([gap]))
}

fn text(from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(good_bytes()).unwrap();
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1).into_bytes()
}

type Case = (&'static str, Vec<u8>, &'static str);

/// What is no model file of ours at all, or not a whole one.
fn foreign() -> Vec<Case> {
    let whole = good_bytes();
    let nested = |open: &str| format!("{{\"format\":{}", open.repeat(100_000)).into_bytes();
    let mut broken = whole.clone();
    let at = whole.windows(5).position(|part| part == b"small").unwrap();
    broken[at] = 0xff;
    vec![
        ("empty", vec![], "EOF"),
        ("white space", b" \n\t ".to_vec(), "EOF"),
        (
            "cut in the middle",
            whole[..whole.len() / 2].to_vec(),
            "EOF",
        ),
        (
            "cut at the last brace",
            whole[..whole.len() - 2].to_vec(),
            "EOF",
        ),
        (
            "something after the end",
            [&whole[..], b"{}"].concat(),
            "trailing",
        ),
        (
            "binary",
            (0..=255).cycle().take(4_096).collect(),
            "not a complete",
        ),
        ("zeros", vec![0; 4_096], "not a complete"),
        (
            "a lone surrogate",
            text("small", "\\ud800\\ud800"),
            "surrogate",
        ),
        ("broken UTF-8", broken, "code point"),
        ("null", b"null".to_vec(), "not a complete"),
        ("a number", b"17".to_vec(), "not a complete"),
        ("an array", b"[1,2,3]".to_vec(), "not a complete"),
        ("an empty object", b"{}".to_vec(), "no foreshock model"),
        (
            "a file of the crate",
            serde_json::to_vec(&good().content().gbdt).unwrap(),
            "no foreshock",
        ),
        (
            "an XGBoost dump",
            br#"[{"nodeid":0,"leaf":0.1}]"#.to_vec(),
            "not a complete",
        ),
        ("deep arrays", nested("["), "recursion"),
        ("deep objects", nested("{\"a\":"), "recursion"),
        (
            "huge",
            vec![b' '; Limits::default().bytes + 1],
            "the limit is",
        ),
        (
            "another format",
            changed(|f| f["format"] = json!("onnx")),
            "no foreshock model",
        ),
        (
            "a format that is a list",
            changed(|f| f["format"] = json!([FORMAT])),
            "no foreshock model",
        ),
        (
            "a later version",
            changed(|f| f["version"] = json!(2)),
            "format version 2",
        ),
        (
            "a version in quotes",
            changed(|f| f["version"] = json!("1")),
            "whole number",
        ),
        (
            "a negative version",
            changed(|f| f["version"] = json!(-1)),
            "whole number",
        ),
        (
            "an unknown key",
            changed(|f| f["signature"] = json!("x")),
            "unknown field",
        ),
        (
            "an unknown key inside",
            content(|c| c["extra"] = json!(1)),
            "unknown field",
        ),
        (
            "a repeated key",
            text("\"version\":1", "\"version\":1,\"version\":1"),
            "duplicate",
        ),
        (
            "no content",
            text("\"content\":", "\"contents\":"),
            "unknown field",
        ),
        (
            "no checksum",
            text("\"checksum\":", "\"checksums\":"),
            "unknown field",
        ),
        (
            "a number changed in the text",
            text("\"slope\":0.9", "\"slope\":0.8"),
            "checksum",
        ),
        ("an empty checksum", text(good().checksum(), ""), "checksum"),
    ]
}

/// Content that cannot be, with a checksum that fits.
fn impossible() -> Vec<Case> {
    let ratio = json!({"rows": 1, "base_rate": 2.0, "pr_auc": 0.0, "brier": 0.0, "brier_skill": 0.0, "ece": 0.0});
    let many: Vec<u32> = (0..255).collect();
    vec![
        ("no name", set("/name", json!("")), "content.name"),
        (
            "a name with a newline",
            set("/name", json!("a\nb")),
            "content.name",
        ),
        (
            "a name that is too long",
            set("/name", json!("a".repeat(65))),
            "content.name",
        ),
        (
            "an unknown source",
            set("/source", json!("stolen")),
            "unknown variant",
        ),
        (
            "a horizon of nothing",
            set("/horizon_seconds", json!(0)),
            "horizon",
        ),
        (
            "a negative horizon",
            set("/horizon_seconds", json!(-60)),
            "invalid value",
        ),
        (
            "a slope that turns the order",
            set("/calibration/slope", json!(-1.0)),
            "slope",
        ),
        (
            "a slope of null",
            set("/calibration/slope", Value::Null),
            "null",
        ),
        (
            "an intercept beyond reason",
            set("/calibration/intercept", json!(1e30)),
            "intercept",
        ),
        (
            "a gap of a column that is not there",
            gap(json!([1, 4_000]), json!(0.5)),
            "content.gaps[0].columns",
        ),
        (
            "a gap of columns in another order",
            gap(json!([1, 0]), json!(0.5)),
            "content.gaps[0].columns",
        ),
        (
            "a gap of nothing",
            gap(json!([]), json!(0.5)),
            "content.gaps[0].columns",
        ),
        (
            "a gap that turns the order",
            gap(json!([0]), json!(-0.5)),
            "content.gaps[0].calibration.slope",
        ),
        (
            "more gaps than there are collectors",
            content(|c| {
                let one = json!({"columns": [0], "calibration": {"slope": 1.0, "intercept": 0.0}});
                c["gaps"] = json!(vec![one; 101]);
            }),
            "content.gaps",
        ),
        (
            "a figure that is no ratio",
            content(|c| c["validation"] = ratio),
            "base_rate",
        ),
        (
            "a command of a megabyte",
            set("/provenance/command", json!("a".repeat(1 << 20))),
            "provenance",
        ),
        ("no columns", set("/columns", json!([])), "content.columns"),
        (
            "a column too few",
            content(|c| drop(c["columns"].as_array_mut().unwrap().pop())),
            "feature_size",
        ),
        (
            "thousands of columns",
            content(|c| c["columns"] = json!(vec![c["columns"][0].clone(); 1_001])),
            "content.columns",
        ),
        (
            "a column twice",
            set("/columns/1/name", json!("mem_used")),
            "twice",
        ),
        (
            "a column of tomorrow",
            set("/columns/0/name", json!("mem_used:month")),
            "no kind of column",
        ),
        (
            "a meaning that is none",
            set("/columns/0/meaning", json!("x")),
            "meaning",
        ),
        (
            "a column without a feature",
            set("/columns/0/name", json!(":peers")),
            "no kind of column",
        ),
        (
            "a column with a space",
            set("/columns/0/name", json!("mem used")),
            "columns[0].name",
        ),
        (
            "edges out of order",
            set("/columns/2/edges", json!([0.5, 0.1])),
            "does not rise",
        ),
        (
            "an edge twice",
            set("/columns/2/edges", json!([0.1, 0.1])),
            "does not rise",
        ),
        (
            "an edge of null",
            set("/columns/2/edges", json!([null])),
            "null",
        ),
        (
            "an edge of -1e999",
            text("\"edges\":[", "\"edges\":[-1e999,"),
            "out of range",
        ),
        (
            "too many edges",
            set("/columns/2/edges", json!(many)),
            "more than 254",
        ),
        (
            "edges that are text",
            set("/columns/2/edges", json!(["NaN"])),
            "invalid type",
        ),
    ]
}

/// Trees of every kind that makes the gbdt crate panic, hang or talk nonsense.
fn bad_trees() -> Vec<Case> {
    let none = |g: &mut Value| {
        g["trees"] = json!([]);
        g["conf"]["iterations"] = json!(0);
    };
    let many = |g: &mut Value| {
        g["trees"] = json!(vec![g["trees"][0].clone(); 1_001]);
        g["conf"]["iterations"] = json!(1_001);
    };
    let one_more = |g: &mut Value| {
        let tree = g["trees"][0].clone();
        g["trees"].as_array_mut().unwrap().push(tree);
    };
    let orphan = |n: &mut Value| {
        let place = n.as_array().unwrap().len();
        n.as_array_mut().unwrap().push(node(place, 0, 0, 0.0));
    };
    let childless = |n: &mut Value| {
        n[0]["left"] = json!(0);
        n[0]["right"] = json!(0);
    };
    let falling = |c: &mut Value| {
        c["columns"][0]["rising"] = json!(true);
        c["gbdt"]["trees"][0]["tree"]["tree"] =
            json!([node(0, 1, 2, 0.0), node(1, 0, 0, 1.0), node(2, 0, 0, -1.0)]);
    };
    let last_leaf = |n: &mut Value, value: Value| {
        let last = n.as_array().unwrap().len() - 1;
        n[last]["value"]["pred"] = value;
    };
    vec![
        ("no trees", trees(none), "trees"),
        (
            "more iterations than trees",
            set("/gbdt/conf/iterations", json!(9_999)),
            "iterations",
        ),
        ("a tree too many", trees(one_more), "iterations"),
        ("too many trees", trees(many), "limit"),
        (
            "another loss",
            set("/gbdt/conf/loss", json!("SquaredError")),
            "loss",
        ),
        (
            "a wrong width",
            set("/gbdt/conf/feature_size", json!(4)),
            "feature_size",
        ),
        (
            "a tree of a wrong width",
            set("/gbdt/trees/0/feature_size", json!(99)),
            "feature_size",
        ),
        (
            "an initial guess",
            set("/gbdt/conf/initial_guess_enabled", json!(true)),
            "initial_guess",
        ),
        (
            "a negative shrinkage",
            set("/gbdt/conf/shrinkage", json!(-0.1)),
            "shrinkage",
        ),
        (
            "a huge shrinkage",
            set("/gbdt/conf/shrinkage", json!(1e6)),
            "shrinkage",
        ),
        (
            "a bias beyond f32",
            set("/gbdt/bias", json!(1e39)),
            "out of range",
        ),
        ("a bias of null", set("/gbdt/bias", Value::Null), "null"),
        ("a huge bias", set("/gbdt/bias", json!(1e30)), "bias"),
        ("an empty tree", nodes(|n| *n = json!([])), "no root"),
        (
            "a child that is the node itself",
            nodes(|n| n[1]["left"] = json!(1)),
            "child",
        ),
        (
            "a child that is an ancestor",
            nodes(|n| n[1]["right"] = json!(0)),
            "child",
        ),
        (
            "a child out of range",
            nodes(|n| n[0]["right"] = json!(1_000_000)),
            "child",
        ),
        (
            "a child beyond any number",
            nodes(|n| n[0]["right"] = json!(1e300)),
            "invalid type",
        ),
        (
            "a negative child",
            nodes(|n| n[0]["right"] = json!(-1)),
            "invalid value",
        ),
        (
            "a node reached twice",
            nodes(|n| n[0]["right"] = n[0]["left"].clone()),
            "reached twice",
        ),
        ("a node that nothing reaches", nodes(orphan), "not reached"),
        ("an inner node without children", nodes(childless), "child"),
        (
            "a leaf with children",
            nodes(|n| n[0]["value"]["is_leaf"] = json!(true)),
            "with children",
        ),
        (
            "a feature out of range",
            nodes(|n| n[0]["value"]["feature_index"] = json!(3)),
            "feature_index",
        ),
        (
            "a cut that is no bin",
            nodes(|n| n[0]["value"]["feature_value"] = json!(1e20)),
            "feature_value",
        ),
        (
            "a cut of minus infinity",
            nodes(|n| n[0]["value"]["feature_value"] = json!(-1e39)),
            "out of range",
        ),
        (
            "a cut of null",
            nodes(|n| n[0]["value"]["feature_value"] = Value::Null),
            "null",
        ),
        (
            "a leaf beyond f32",
            nodes(|n| last_leaf(n, json!(1e39))),
            "out of range",
        ),
        (
            "a leaf of minus infinity",
            nodes(|n| last_leaf(n, json!(-1e39))),
            "out of range",
        ),
        (
            "a huge value in an inner node",
            nodes(|n| n[0]["value"]["pred"] = json!(-51.0)),
            "pred",
        ),
        (
            "a direction for missing values",
            nodes(|n| n[0]["value"]["missing"] = json!(-1)),
            "missing values",
        ),
        (
            "another place in index",
            nodes(|n| n[1]["index"] = json!(7)),
            "index",
        ),
        (
            "a tree that is too deep",
            nodes(|n| *n = chain(40)),
            "levels",
        ),
        (
            "more nodes than the limit",
            nodes(|n| *n = chain(25_001)),
            "more nodes",
        ),
        ("a fall in a rising column", content(falling), "rising"),
    ]
}

fn node(index: usize, left: usize, right: usize, pred: f64) -> Value {
    json!({
        "value": {"feature_index": 0, "feature_value": 1.5, "pred": pred, "missing": 0, "is_leaf": left == 0},
        "index": index, "left": left, "right": right,
    })
}

/// A tree that goes down one level for every two nodes.
fn chain(levels: usize) -> Value {
    let mut all = Vec::new();
    for level in 0..levels {
        // The leaf comes first, so that both children are after their parent.
        all.push(node(2 * level, 2 * level + 1, 2 * level + 2, 0.0));
        all.push(node(2 * level + 1, 0, 0, 0.1));
    }
    all.push(node(2 * levels, 0, 0, 0.1));
    json!(all)
}

#[test]
fn every_hostile_file_is_refused_with_its_reason() {
    let cases = [foreign(), impossible(), bad_trees()].concat();
    assert!(cases.len() >= 80, "{}", cases.len());
    for (name, bytes, reason) in cases {
        match parse(&bytes) {
            Ok(_) => panic!("{name}: was accepted"),
            Err(error) => {
                let remedies = ["train", "copy it again"];
                says(name, &error, reason, &remedies);
            }
        }
    }
}

#[test]
fn the_changes_that_hostile_files_are_made_with_do_no_harm_by_themselves() {
    // Guards the test above: a file is refused for the change, not for having been rewritten.
    assert!(parse(&changed(|_| {})).is_ok());
    let pretty: Value = serde_json::from_slice(&good_bytes()).unwrap();
    assert!(parse(&serde_json::to_vec_pretty(&pretty).unwrap()).is_ok());
}

#[test]
fn a_file_is_read_back_as_it_was_written_and_scores_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.json");
    good().write(&path).unwrap();
    let again = Artifact::read(&path, &Limits::default()).unwrap();
    assert_eq!(&again, good());
    assert_eq!(again.to_bytes().unwrap(), std::fs::read(&path).unwrap());
    let rows = matrix(
        &NAMES,
        ndarray::arr2(&[[0.1, 0.2, 0.3], [0.9, f64::NAN, 0.9]]),
    );
    let score = |artifact| TreeScorer::new(artifact).score(&rows);
    assert_eq!(score(&again), score(good()));
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing is left beside it"
    );
}

#[test]
fn a_file_that_cannot_be_written_leaves_the_old_one_alone() {
    let folder = tempfile::tempdir().unwrap();
    let taken = folder.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    std::fs::write(taken.join("old"), "old").unwrap();
    let error = good().write(&taken).unwrap_err();
    assert!(error.to_string().contains("cannot be written"), "{error}");
    assert_eq!(std::fs::read_to_string(taken.join("old")).unwrap(), "old");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(good().write(&folder.path().join("no/such/folder")).is_err());
}

#[test]
fn a_file_that_is_not_there_or_never_ends_is_an_error_that_names_it() {
    let error = Artifact::read(Path::new("/no/such/model.json"), &Limits::default()).unwrap_err();
    assert!(
        message(&error).contains("`/no/such/model.json` cannot be read"),
        "{error}"
    );
    let limits = Limits {
        bytes: 10_000,
        ..Limits::default()
    };
    let error = Artifact::read(Path::new("/dev/zero"), &limits).unwrap_err();
    assert!(
        matches!(error, ModelError::TooLarge { bytes: 10_001, .. }),
        "{error}"
    );
}

#[test]
fn a_model_fits_only_a_schema_whose_features_mean_the_same() {
    let schema = Schema::built_in();
    let mut content = good().content().clone();
    for column in &mut content.columns {
        column.meaning = meaning_of(&schema, column.feature()).unwrap();
    }
    let seal = |content: &Content| Artifact::seal(content.clone(), &Limits::default()).unwrap();
    assert!(seal(&content).matches(&schema).is_ok());
    content.columns[0].meaning = "0123456789abcdef".to_owned();
    content.columns[1].name = "mem_used:peers".to_owned();
    content.columns[2].name = "fan_speed".to_owned();
    let error = seal(&content).matches(&schema).unwrap_err().to_string();
    assert!(
        error.contains("`mem_used` is defined differently"),
        "{error}"
    );
    assert!(error.contains("`fan_speed` is missing"), "{error}");
    assert!(error.contains("features_file"), "{error}");
}

#[test]
fn a_summary_of_the_whole_node_fits_only_the_features_that_it_was_made_of() {
    let text = |names: &[&str]| -> String {
        let feature = |name: &&str| {
            format!("[[feature]]\nname='{name}'\nunit='ratio'\npromql='{name}'\nmin=0\nmax=1\n")
        };
        names.iter().map(feature).collect()
    };
    let schema = |names: &[&str]| Schema::parse(&text(names)).unwrap();
    let own = schema(&["mem_used", "psi_io", "psi_cpu"]);
    let mut content = good().content().clone();
    content.columns[0].name = "node:largest".to_owned();
    content.columns[1].name = "mem_used:week".to_owned();
    content.columns[2].name = "psi_io".to_owned();
    for column in &mut content.columns {
        column.meaning = meaning_of(&own, column.feature()).unwrap();
    }
    let artifact = Artifact::seal(content, &Limits::default()).unwrap();
    assert!(artifact.features().contains("node:largest"));
    assert!(artifact.matches(&own).is_ok());
    // The order in the file says nothing; one feature more, or less, does.
    assert!(
        artifact
            .matches(&schema(&["psi_cpu", "mem_used", "psi_io"]))
            .is_ok()
    );
    for names in [
        &["mem_used", "psi_io"][..],
        &["mem_used", "psi_io", "psi_cpu", "x"],
    ] {
        let error = artifact.matches(&schema(names)).unwrap_err().to_string();
        assert!(
            error.contains("`node:largest` is made of others"),
            "{error}"
        );
        assert!(!error.contains("`mem_used`"), "{error}");
    }
}

/// A file that was accepted in spite of a change must at least be harmless.
fn use_it(artifact: &Artifact) {
    let scorer = TreeScorer::new(artifact);
    let rows = [[0.1, 0.2, 0.3], [f64::NAN, f64::INFINITY, -1e300]];
    let rows = matrix(&NAMES, ndarray::arr2(&rows));
    for score in scorer.score(&rows) {
        assert!(score.log_odds.is_finite());
    }
    let explanation = scorer.explain(&rows, 0, &|_| Some(0.0)).unwrap();
    assert!(explanation.log_odds.is_finite());
}

fn odd_value() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!(0),
        json!(1),
        json!(-1),
        json!(0.5),
        json!(1e39),
        json!(-1e39),
        json!(1e308),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(255),
        json!(65_536),
        json!(4_294_967_296_u64),
        Value::Null,
        json!(true),
        json!("1"),
        json!([]),
        json!({}),
        json!(-0.0),
        json!(1e-320),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bytes_are_noticed_and_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)
    ) {
        let mut bytes = good_bytes();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(artifact) = parse(&bytes) {
            // White space, or the same byte again: the content must be untouched.
            prop_assert_eq!(artifact.checksum(), good().checksum());
        }
    }

    #[test]
    fn cut_and_joined_files_never_panic(
        cut in any::<prop::sample::Index>(),
        skip in 0usize..200,
        noise in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let bytes = good_bytes();
        let cut = cut.index(bytes.len());
        let rest = &bytes[(cut + skip).min(bytes.len())..];
        if let Ok(artifact) = parse(&[&bytes[..cut], &noise, rest].concat()) {
            prop_assert_eq!(artifact.checksum(), good().checksum());
        }
    }

    #[test]
    fn values_replaced_anywhere_are_refused_or_harmless(
        which in any::<prop::sample::Index>(), value in odd_value()
    ) {
        // With a checksum that fits: only the rules stand between the value and the scorer.
        let bytes = changed(|file| {
            let mut places = Vec::new();
            collect_places(&file["content"], String::from("/content"), &mut places);
            if let Some(slot) = file.pointer_mut(which.get(&places[..]).as_str()) {
                *slot = value;
            }
        });
        if let Ok(artifact) = parse(&bytes) {
            use_it(&artifact);
        }
    }
}

/// Pointers to every number and truth value.
fn collect_places(value: &Value, path: String, into: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                collect_places(value, format!("{path}/{key}"), into);
            }
        }
        Value::Array(list) => {
            for (i, value) in list.iter().enumerate() {
                collect_places(value, format!("{path}/{i}"), into);
            }
        }
        Value::Number(_) | Value::Bool(_) => into.push(path),
        Value::Null | Value::String(_) => {}
    }
}
