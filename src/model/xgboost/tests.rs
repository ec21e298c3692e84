use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use super::*;
use crate::model::boost::unit;
use crate::model::gbdt;
use crate::model::testing::{EXPORT, imported, message, says};

fn small() -> Value {
    serde_json::from_slice(EXPORT).unwrap()
}

/// Imports, and demands an answer within a second of CPU time (other tests run at the same time).
fn import_in_time(bytes: &[u8]) -> Result<Import, ImportError> {
    let clock = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let started = clock();
    let result = import(bytes, &Limits::default());
    let took = clock() - started;
    assert!(took < Duration::from_secs(1), "took {took:?}");
    result
}

/// The small export with a change.
fn changed(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut export = small();
    change(&mut export);
    serde_json::to_vec(&export).unwrap()
}

fn set(pointer: &str, value: Value) -> Vec<u8> {
    changed(|export| *export.pointer_mut(pointer).unwrap() = value)
}

/// Changes the root of the first tree, which has two levels below it.
fn root(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    changed(|export| change(&mut export["trees"][0]))
}

/// The whole message, as an operator reads it.
/// What XGBoost does with a dump, by its documentation: in single precision, tree by tree.
fn log_odds(export: &Value, row: &[f64]) -> f32 {
    let mut sum = export["base_margin"].as_f64().unwrap() as f32;
    for tree in export["trees"].as_array().unwrap() {
        let mut node = tree;
        while let Some(children) = node["children"].as_array() {
            let column: usize = node["split"].as_str().unwrap()[1..].parse().unwrap();
            let value = row[column];
            let next = if value.is_nan() {
                &node["missing"]
            } else if (value as f32) < node["split_condition"].as_f64().unwrap() as f32 {
                &node["yes"]
            } else {
                &node["no"]
            };
            node = children.iter().find(|c| c["nodeid"] == *next).unwrap();
        }
        sum += node["leaf"].as_f64().unwrap() as f32;
    }
    sum
}

/// Rows of which a fifth is missing, and a third on a threshold or so near to one that only single
/// precision tells them from it.
fn rows(export: &Value, n: usize, seed: u64) -> Array2<f64> {
    let mut thresholds = vec![Vec::new(); export["columns"].as_array().unwrap().len()];
    let mut nodes: Vec<&Value> = export["trees"].as_array().unwrap().iter().collect();
    while let Some(node) = nodes.pop() {
        if let Some(children) = node["children"].as_array() {
            let column: usize = node["split"].as_str().unwrap()[1..].parse().unwrap();
            thresholds[column].push(node["split_condition"].as_f64().unwrap());
            nodes.extend(children);
        }
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Array2::from_shape_fn((n, thresholds.len()), |(_, column)| {
        let lot = unit(&mut rng);
        let near = &thresholds[column];
        if lot < 0.2 {
            f64::NAN
        } else if lot < 0.5 && !near.is_empty() {
            let threshold = near[(unit(&mut rng) * near.len() as f64) as usize];
            let off = [0.0, 1e-9, -1e-9, 4e-8, -4e-8, 9e-8, -9e-8];
            let off = off[(unit(&mut rng) * off.len() as f64) as usize];
            f64::from(threshold as f32) * (1.0 + off)
        } else {
            let column = &export["columns"][column];
            let (low, high) = (column["low"].as_f64(), column["high"].as_f64());
            let (low, high) = (low.unwrap(), high.unwrap());
            low + (high - low) * (1.4 * unit(&mut rng) - 0.2)
        }
    })
}

fn matrix_of(scorer: &TreeScorer, values: Array2<f64>) -> ModelMatrix {
    ModelMatrix {
        nodes: Vec::new(),
        columns: scorer.columns().to_vec(),
        values,
    }
}

#[test]
fn an_import_says_what_xgboost_said() {
    let import = import_in_time(EXPORT).unwrap();
    assert_eq!(import.rows, 80);
    assert!(import.difference <= DIFFERENCE_MAX, "{}", import.difference);
    let content = import.artifact.content();
    assert_eq!(content.source, Source::Imported);
    assert_eq!(content.name, "small");
    assert_eq!(content.provenance.rows, 3_000);
    assert!(content.provenance.command.contains("XGBoost 3.2.0"));
    assert!(content.validation.is_none() && content.columns.iter().all(|c| !c.rising));
    let nodes = || content.gbdt.trees.iter().flat_map(|t| &t.tree.tree);
    for missing in [0, 1] {
        let splits = nodes().filter(|n| !n.value.is_leaf && n.value.missing == missing);
        assert!(splits.count() >= 3, "the small model has both directions");
    }
    // The same file makes the same model, which is read back as it was made.
    let bytes = import.artifact.to_bytes().unwrap();
    assert_eq!(imported().to_bytes().unwrap(), bytes);
    let again = Artifact::parse(&bytes, &Limits::default()).unwrap();
    assert_eq!(again, import.artifact);
}

#[test]
fn an_import_equals_the_dump_on_ten_thousand_rows_on_and_beside_its_thresholds() {
    let export = small();
    let artifact = imported();
    let scorer = TreeScorer::new(&artifact);
    let rows = rows(&export, 10_000, 3);
    let scores = scorer.score(&matrix_of(&scorer, rows.clone()));
    let mut codes = Vec::new();
    for (row, score) in rows.rows().into_iter().zip(&scores) {
        let theirs = f64::from(log_odds(&export, &row.to_vec()));
        let off = score.probability.as_f64() - 1.0 / (1.0 + libm::exp(-theirs));
        assert!(off.abs() <= DIFFERENCE_MAX, "{row}: {score:?}, {theirs}");
        let columns = row.iter().zip(&artifact.content().columns);
        codes.push(
            columns
                .map(|(value, column)| column.edges.code(*value))
                .collect(),
        );
    }
    // The crate's predictor knows directions as well: a third opinion.
    let crates = gbdt::predict(&artifact.content().gbdt, &codes).unwrap();
    assert_eq!(crates.len(), scores.len());
    for (crates, score) in crates.iter().zip(&scores) {
        assert!((f64::from(*crates) - score.probability.as_f64()).abs() <= DIFFERENCE_MAX);
    }
}

#[test]
fn an_edge_is_where_the_rounding_to_single_precision_changes_sides() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut thresholds = vec![
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.1,
        f32::MAX,
        f32::MIN_POSITIVE,
        -f32::MIN_POSITIVE,
        16_777_216.0,
        f32::from_bits(1),
        -f32::from_bits(1),
        f32::MIN.next_up(),
    ];
    thresholds
        .extend((0..500).map(|_| f32::from_bits((unit(&mut rng) * f64::from(u32::MAX)) as u32)));
    thresholds.retain(|t| t.is_finite() && *t > f32::MIN);
    for threshold in thresholds {
        let edge = edge_of(threshold);
        let [one, below] = [f64::from(threshold), f64::from(threshold.next_down())];
        let mut values = vec![
            edge,
            edge.next_up(),
            edge.next_down(),
            one,
            one.next_up(),
            one.next_down(),
        ];
        values.extend([
            below,
            below.next_up(),
            below.next_down(),
            f64::midpoint(one, below),
        ]);
        values.extend([0.0, -0.0, 1e300, -1e300, 1e-300, -1e-300]);
        for value in values {
            let theirs = (value as f32) < threshold;
            assert_eq!(value < edge, theirs, "{value:e} and {threshold:e}");
        }
    }
}

#[test]
fn inputs_far_from_the_training_values_are_known_for_such() {
    // Not the thresholds, which may lie close together, but what the exporter saw.
    let scorer = TreeScorer::new(&imported());
    let range = scorer.range(0).unwrap();
    assert!(range.low < 0.01 && range.high > 0.99, "{range:?}");
}

#[test]
fn a_calibration_comes_after_the_comparison() {
    let calibration = json!({"slope": 0.5, "intercept": -1.0});
    let import = import_in_time(&changed(|e| e["calibration"] = calibration)).unwrap();
    assert!(import.difference <= DIFFERENCE_MAX);
    let row = [[0.9, 0.9, 3.0, 5.0]];
    let say = |artifact: &Artifact| {
        let scorer = TreeScorer::new(artifact);
        scorer.score(&matrix_of(&scorer, ndarray::arr2(&row)))[0].log_odds
    };
    let (plain, calibrated) = (say(&imported()), say(&import.artifact));
    assert!((calibrated - (0.5 * plain - 1.0)).abs() < 1e-12);
}

#[test]
fn statistics_of_nodes_and_children_in_any_order_change_nothing() {
    let bytes = changed(|export| {
        let tree = &mut export["trees"][0];
        (tree["gain"], tree["cover"]) = (json!(1.5), json!(3_000));
        tree["children"].as_array_mut().unwrap().reverse();
    });
    assert_eq!(import_in_time(&bytes).unwrap().artifact, imported());
}

/// A tree that goes down so many levels.
fn chain(levels: usize) -> Value {
    let mut node = json!({"nodeid": 2 * levels, "leaf": 0.0});
    for level in (0..levels).rev() {
        let (id, leaf) = (2 * level, 2 * level + 1);
        node = json!({
            "nodeid": id, "depth": level, "split": "f0", "split_condition": 0.5,
            "yes": leaf, "no": id + 2, "missing": leaf,
            "children": [{"nodeid": leaf, "leaf": 0.0}, node],
        });
    }
    node
}

/// As many trees of one split as there are thresholds.
fn stumps(thresholds: usize) -> Value {
    let stump = |i: usize| {
        let threshold = (i as f64 + 0.5) / thresholds as f64;
        json!({
            "nodeid": 0, "split": "f0", "split_condition": threshold, "yes": 1, "no": 2, "missing": 2,
            "children": [{"nodeid": 1, "leaf": 0.0}, {"nodeid": 2, "leaf": 0.0}],
        })
    };
    (0..thresholds).map(stump).collect()
}

/// Leaves of 0 say the same of every row.
fn with_trees(trees: Value) -> Vec<u8> {
    changed(|export| {
        let says = 1.0 / (1.0 + libm::exp(-export["base_margin"].as_f64().unwrap()));
        export["trees"] = trees;
        export["checks"]["probabilities"] = json!(vec![says; 80]);
    })
}

#[test]
fn a_model_at_its_limits_is_imported() {
    for trees in [
        json!([chain(12)]),
        stumps(252),
        json!([{"nodeid": 0, "leaf": 0.0}]),
    ] {
        let import = import_in_time(&with_trees(trees)).map_err(|error| message(&error));
        assert!(import.is_ok(), "{:?}", import.unwrap_err());
    }
}

type Case = (&'static str, Vec<u8>, &'static str);

fn text(from: &str, to: &str) -> Vec<u8> {
    let text = std::str::from_utf8(EXPORT).unwrap();
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1).into_bytes()
}

/// What is no export of ours at all, or not a whole one.
fn foreign() -> Vec<Case> {
    let deep = |open: &str| [b"{\"format\":", open.repeat(50_000).as_bytes()].concat();
    vec![
        ("empty", vec![], "EOF"),
        (
            "binary",
            (0..=255).cycle().take(4_096).collect(),
            "not complete",
        ),
        (
            "cut in the middle",
            EXPORT[..EXPORT.len() / 2].to_vec(),
            "EOF",
        ),
        (
            "a bare dump",
            small()["trees"].to_string().into_bytes(),
            "not complete",
        ),
        ("an empty object", b"{}".to_vec(), "no XGBoost export"),
        (
            "a model of ours",
            imported().to_bytes().unwrap(),
            "no XGBoost export",
        ),
        (
            "a file of save_model",
            br#"{"learner":{"gradient_booster":{}},"version":[3,2,0]}"#.to_vec(),
            "no XGBoost export",
        ),
        ("deep arrays", deep("["), "recursion"),
        ("deep objects", deep("{\"a\":"), "recursion"),
        (
            "huge",
            vec![b' '; Limits::default().bytes + 1],
            "the limit is",
        ),
        ("a later version", set("/version", json!(2)), "version 2"),
        (
            "a version in quotes",
            set("/version", json!("1")),
            "whole number",
        ),
        (
            "an unknown key",
            changed(|e| e["weights"] = json!([1])),
            "unknown field",
        ),
        (
            "a repeated key",
            text("\"version\":1", "\"version\":1,\"version\":1"),
            "duplicate",
        ),
        (
            "NaN in the text",
            text("\"base_margin\":-", "\"base_margin\":NaN,\"x\":-"),
            "not complete",
        ),
        (
            "no checks",
            changed(|e| drop(e.as_object_mut().unwrap().remove("checks"))),
            "missing field",
        ),
    ]
}

/// Headers that cannot be, or are of models that are not taken.
fn headers() -> Vec<Case> {
    let long = "a".repeat(10_000);
    vec![
        (
            "a version with a line break",
            set("/xgboost", json!("3.2\n")),
            "`xgboost`",
        ),
        ("no name", set("/name", json!("")), "`name`"),
        ("a name of 10 kB", set("/name", json!(long)), "`name`"),
        (
            "several classes",
            set("/objective", json!("multi:softprob")),
            "`objective`",
        ),
        (
            "ranking",
            set("/objective", json!("rank:ndcg")),
            "`objective`",
        ),
        ("dart", set("/booster", json!("dart")), "dart"),
        ("linear", set("/booster", json!("gblinear")), "`booster`"),
        ("several targets", set("/outputs", json!(3)), "`outputs`"),
        (
            "zeros for missing",
            set("/missing", json!("0")),
            "`missing`",
        ),
        ("a margin of null", set("/base_margin", Value::Null), "null"),
        (
            "a margin beyond reason",
            set("/base_margin", json!(1e30)),
            "base_margin",
        ),
        (
            "another margin",
            set("/base_margin", json!(-2.0)),
            "XGBoost said",
        ),
        (
            "a horizon of nothing",
            set("/horizon_seconds", json!(0)),
            "horizon_seconds",
        ),
        (
            "no rows",
            set("/training", json!({"rows": 0, "positives": 0})),
            "`training`",
        ),
        (
            "one class",
            set("/training/positives", json!(3_000)),
            "`training`",
        ),
        (
            "a slope that turns the order",
            changed(|e| e["calibration"] = json!({"slope": -1, "intercept": 0})),
            "calibration.slope",
        ),
        ("no columns", set("/columns", json!([])), "`columns`"),
        (
            "thousands of columns",
            changed(|e| e["columns"] = json!(vec![e["columns"][0].clone(); 1_001])),
            "`columns`",
        ),
        (
            "a column too few",
            changed(|e| drop(e["columns"].as_array_mut().unwrap().pop())),
            "`f3`",
        ),
        (
            "a column too many",
            changed(|e| {
                let mut column = e["columns"][0].clone();
                column["name"] = json!("psi_io:peers");
                e["columns"].as_array_mut().unwrap().push(column);
            }),
            "not as long as",
        ),
        (
            "a column twice",
            set("/columns/1/name", json!("mem_used")),
            "twice",
        ),
        (
            "a column of tomorrow",
            set("/columns/0/name", json!("mem_used:month")),
            "no column",
        ),
        (
            "a column without a feature",
            set("/columns/0/name", json!("load_15")),
            "lacks",
        ),
        (
            "a column of 10 kB",
            set("/columns/0/name", json!(format!(":{long}"))),
            "no column",
        ),
        (
            "a range upside down",
            set("/columns/0/low", json!(2.0)),
            "`low`",
        ),
        ("half a range", set("/columns/0/low", Value::Null), "`low`"),
        (
            "percent for a ratio",
            set("/columns/0/high", json!(98.0)),
            "units",
        ),
        (
            "deviations beyond the bound",
            set("/columns/2/high", json!(35.0)),
            "units",
        ),
        (
            "usual beyond f64",
            text("\"usual\":", "\"usual\":1e999,\"u\":"),
            "out of range",
        ),
        ("no features", set("/features", json!("")), "features"),
        (
            "features that are none",
            set("/features", json!("[[feature]]\nname = 3")),
            "features",
        ),
        (
            "no checks at all",
            set("/checks", json!({"rows": [], "probabilities": []})),
            "`checks`",
        ),
        (
            "a check without its answer",
            changed(|e| drop(e["checks"]["probabilities"].as_array_mut().unwrap().pop())),
            "`checks`",
        ),
        (
            "a short check",
            set("/checks/rows/7", json!([1.0])),
            "checks.rows[7]",
        ),
        (
            "an answer that is off",
            set("/checks/probabilities/5", json!(0.5)),
            "row 5",
        ),
        (
            "an answer of null",
            set("/checks/probabilities/5", Value::Null),
            "null",
        ),
        (
            "too many checks",
            changed(|e| {
                e["checks"] = json!({"rows": vec![json!([null, null, null, null]); 1_001], "probabilities": vec![0.5; 1_001]});
            }),
            "`checks`",
        ),
    ]
}

/// Trees that cannot be, or are of kinds that are not taken.
fn bad_trees() -> Vec<Case> {
    let without = |key: &'static str| root(move |r| drop(r.as_object_mut().unwrap().remove(key)));
    let id = |r: &Value, child: usize| r["children"][child]["nodeid"].clone();
    let many = json!(vec![json!({"nodeid": 0, "leaf": 0.0}); 1_001]);
    let large = json!((0..1_000).map(|_| stumps(1)[0].clone()).collect::<Vec<_>>());
    let wide = {
        // Complete trees of 255 nodes.
        fn grow(id: u64, level: u32) -> Value {
            if level == 7 {
                return json!({"nodeid": id, "leaf": 0.0});
            }
            let children = [grow(2 * id + 1, level + 1), grow(2 * id + 2, level + 1)];
            json!({"nodeid": id, "split": "f0", "split_condition": 0.5, "yes": 2 * id + 1, "no": 2 * id + 2,
                   "missing": 2 * id + 1, "children": children})
        }
        json!(vec![grow(0, 0); 200])
    };
    assert!(import_in_time(&with_trees(large)).is_ok());
    vec![
        ("no trees", set("/trees", json!([])), "`trees`"),
        ("too many trees", set("/trees", many), "`trees`"),
        ("too many nodes", set("/trees", wide), "number of nodes"),
        ("a tree that is null", set("/trees/0", Value::Null), "null"),
        (
            "a tree of gblinear",
            set("/trees/0", json!({"bias": [0.1], "weight": [1, 2]})),
            "unknown field",
        ),
        (
            "an empty node",
            set("/trees/0", json!({"nodeid": 0})),
            "neither",
        ),
        (
            "a tree that is too deep",
            set("/trees/0", chain(13)),
            "max_depth",
        ),
        (
            "a tree that nests too deep",
            with_trees(json!([chain(100)])),
            "recursion",
        ),
        (
            "thresholds beyond the codes",
            with_trees(stumps(253)),
            "max_bin",
        ),
        (
            "a name of a column",
            root(|r| r["split"] = json!("mem_used")),
            "without feature names",
        ),
        (
            "a name with digits",
            root(|r| r["split"] = json!("load_15")),
            "without feature names",
        ),
        (
            "a column out of range",
            root(|r| r["split"] = json!("f4")),
            "`f0` to `f3`",
        ),
        (
            "a column beyond u64",
            root(|r| r["split"] = json!("f99999999999999999999999")),
            "`f0` to",
        ),
        (
            "a column with a sign",
            root(|r| r["split"] = json!("f+1")),
            "`f0` to",
        ),
        (
            "a column with a zero in front",
            root(|r| r["split"] = json!("f01")),
            "`f0` to",
        ),
        (
            "a column by number",
            root(|r| r["split"] = json!(1)),
            "expected a string",
        ),
        (
            "a split of 10 kB",
            root(|r| r["split"] = json!("f".repeat(10_000))),
            "`f0` to",
        ),
        ("an indicator", without("split_condition"), "indicator"),
        (
            "a categorical split",
            root(|r| r["split_condition"] = json!([0, 2])),
            "categorical",
        ),
        (
            "a threshold in quotes",
            root(|r| r["split_condition"] = json!("0.5")),
            "not one number",
        ),
        (
            "a threshold of null",
            root(|r| r["split_condition"] = Value::Null),
            "indicator",
        ),
        (
            "a threshold beyond f32",
            root(|r| r["split_condition"] = json!(1e39)),
            "finite",
        ),
        (
            "a threshold below f32",
            root(|r| r["split_condition"] = json!(-1e39)),
            "finite",
        ),
        (
            "the threshold that marks missing",
            root(|r| r["split_condition"] = json!(f32::MIN)),
            "finite",
        ),
        (
            "another threshold",
            root(|r| r["split_condition"] = json!(0.01)),
            "XGBoost said",
        ),
        (
            "a leaf of several targets",
            set("/trees/0", json!({"nodeid": 0, "leaf": [0.1, 0.2]})),
            "targets",
        ),
        (
            "a leaf beyond f32",
            set("/trees/0", json!({"nodeid": 0, "leaf": 1e39})),
            "between",
        ),
        (
            "a leaf beyond reason",
            set("/trees/0", json!({"nodeid": 0, "leaf": -101.0})),
            "between",
        ),
        (
            "a leaf with a split",
            root(|r| r["leaf"] = json!(0.1)),
            "leaf with",
        ),
        ("no split", without("split"), "neither"),
        ("no yes", without("yes"), "`yes`"),
        ("no no", without("no"), "`no`"),
        ("no direction for missing", without("missing"), "`missing`"),
        ("no children", without("children"), "two children"),
        (
            "one child",
            root(|r| drop(r["children"].as_array_mut().unwrap().pop())),
            "two children",
        ),
        (
            "three children",
            root(|r| {
                let child = r["children"][0].clone();
                r["children"].as_array_mut().unwrap().push(child);
            }),
            "two children",
        ),
        (
            "the same child twice",
            root(|r| r["children"][1] = r["children"][0].clone()),
            "same child",
        ),
        (
            "yes and no the same",
            root(|r| r["no"] = r["yes"].clone()),
            "same child",
        ),
        (
            "a child that is elsewhere",
            root(|r| r["yes"] = json!(77)),
            "other children",
        ),
        (
            "a child that is the node itself",
            root(|r| r["yes"] = r["nodeid"].clone()),
            "other children",
        ),
        (
            "missing values to a grandchild",
            root(|r| r["missing"] = id(&r["children"][0], 0)),
            "neither of",
        ),
        (
            "an id twice",
            root(|r| {
                let other = id(&r["children"][0], 0);
                let child = &mut r["children"][1];
                child["no"] = other.clone();
                child["missing"] = other.clone();
                child["yes"] = id(child, 0);
                child["children"][1]["nodeid"] = other;
            }),
            "twice",
        ),
        (
            "a negative id",
            root(|r| r["nodeid"] = json!(-1)),
            "invalid value",
        ),
        (
            "an id beyond u64",
            root(|r| r["nodeid"] = json!(1e300)),
            "invalid type",
        ),
        ("another depth", root(|r| r["depth"] = json!(3)), "`depth`"),
        (
            "children swapped",
            root(|r| {
                let yes = r["yes"].clone();
                r["yes"] = r["no"].clone();
                r["no"] = yes;
            }),
            "XGBoost said",
        ),
        (
            "a tree too few",
            changed(|e| drop(e["trees"].as_array_mut().unwrap().pop())),
            "XGBoost said",
        ),
    ]
}

#[test]
fn every_hostile_export_is_refused_with_its_reason() {
    let cases = [foreign(), headers(), bad_trees()].concat();
    assert!(cases.len() >= 95, "{}", cases.len());
    for (name, bytes, reason) in cases {
        match import_in_time(&bytes) {
            Ok(_) => panic!("{name}: was accepted"),
            Err(error) => {
                let remedies = ["train", "export.py", "known are", "export with"];
                says(name, &error, reason, &remedies);
            }
        }
    }
}

#[test]
fn a_file_that_is_not_there_or_never_ends_is_an_error_that_names_it() {
    let limits = Limits::default();
    let error = read(Path::new("/no/such/export.json"), &limits).unwrap_err();
    assert!(
        error.to_string().contains("`/no/such/export.json`"),
        "{error}"
    );
    let limits = Limits {
        bytes: 10_000,
        ..limits
    };
    let error = read(Path::new("/dev/zero"), &limits).unwrap_err();
    assert!(
        matches!(error, ImportError::TooLarge { bytes: 10_001, .. }),
        "{error}"
    );
}

/// Pointers to every value.
fn collect_places(value: &Value, path: String, into: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let fields = map.iter();
            fields.for_each(|(key, value)| collect_places(value, format!("{path}/{key}"), into));
        }
        Value::Array(list) => {
            let items = list.iter().enumerate();
            items.for_each(|(i, value)| collect_places(value, format!("{path}/{i}"), into));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    into.push(path);
}

#[test]
fn values_replaced_anywhere_are_refused_or_harmless() {
    let mut places = Vec::new();
    collect_places(&small(), String::new(), &mut places);
    // Most values are those of the checks.
    places.retain(|place| !place.starts_with("/checks/rows/"));
    let odd = [
        json!(0),
        json!(1),
        json!(-1),
        json!(0.5),
        json!(1e39),
        json!(-1e308),
        json!(u64::MAX),
        json!(255),
        Value::Null,
        json!(true),
        json!("f1"),
        json!([]),
        json!({}),
        json!(-0.0),
        json!(1e-320),
    ];
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut refused = 0;
    for _ in 0..400 {
        let place = &places[(unit(&mut rng) * places.len() as f64) as usize];
        let value = odd[(unit(&mut rng) * odd.len() as f64) as usize].clone();
        match import_in_time(&changed(|export| {
            *export.pointer_mut(place).unwrap() = value
        })) {
            Err(_) => refused += 1,
            // It has repeated what XGBoost said of every check.
            Ok(import) => assert!(import.difference <= DIFFERENCE_MAX),
        }
    }
    assert!(refused > 300, "{refused}");
}
