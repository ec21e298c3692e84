//! What the model costs in a cluster of 5,000 Nodes, on one core: deriving columns, scoring, explaining.
//!
//! For a model as large as any that is sensible (60 columns, 100 complete trees of depth 6), and for the
//! one that is shipped. `cargo bench --bench model` prints the times, and the memory as a figure; nothing
//! here fails for being slow. The aims: scores in 25 ms, derived columns in 50 ms and 30 MiB,
//! explanations in 250 ms.

mod memory;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use foreshock::features::{
    ColumnName, FeatureMatrix, FeatureName, History, ModelMatrix, Schema, Usual, derive,
};
use foreshock::model::artifact::{
    Artifact, Calibration, Column, Content, Limits, Provenance, Source, meaning_of,
};
use foreshock::model::bins::Bins;
use foreshock::model::built_in::built_in;
use foreshock::model::gbdt::{Ensemble, Node, Tree};
use foreshock::model::scorer::{Scorer, TreeScorer};
use jiff::Timestamp;

const NODES: usize = 5_000;
const COLUMNS: usize = 60;
const TREES: usize = 100;
const DEPTH: u32 = 6;
const EDGES: usize = 60;

/// A number in `0.0..1.0`, the same at every run.
fn noise(row: usize, column: usize) -> f64 {
    // SplitMix64's finish: neighbours have nothing in common, so that branches cannot be foreseen.
    let mut bits = (row as u64) << 32 | column as u64;
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (bits ^ bits >> 31) as f64 / 2f64.powi(64)
}

/// Every feature as it is, and against its peers.
fn all_columns(schema: &Schema) -> Vec<ColumnName> {
    let names = || schema.features().iter().map(|feature| feature.name.clone());
    let now = names().map(ColumnName::Now);
    now.chain(names().map(ColumnName::Peers)).collect()
}

/// A model of the largest sensible size: every leaf is at the full depth.
fn large(schema: &Schema) -> Artifact {
    let columns: Vec<Column> = all_columns(schema)
        .into_iter()
        .take(COLUMNS)
        .map(|name| Column {
            name: name.to_string(),
            meaning: meaning_of(schema, name.subject()).expect("a feature of the schema"),
            rising: false,
            usual: Some(0.5),
            edges: Bins {
                edges: (1..=EDGES).map(|i| i as f64 / (EDGES + 1) as f64).collect(),
            },
        })
        .collect();
    let inner = (1usize << DEPTH) - 1;
    let tree = |number: usize| {
        let nodes = (0..2 * inner + 1).map(|at| {
            let draw = |what: usize| noise(number * 1_000 + at, what);
            let mut node = Node::leaf(at, (draw(0) as f32 - 0.5) * 0.1);
            if at < inner {
                (node.left, node.right) = (2 * at + 1, 2 * at + 2);
                node.value.is_leaf = false;
                node.value.feature_index = (draw(1) * COLUMNS as f64) as usize;
                node.value.feature_value = (draw(2) * (EDGES - 1) as f64).floor() as f32 + 1.5;
            }
            node
        });
        Tree::new(COLUMNS, DEPTH, nodes.collect())
    };
    let content = Content {
        name: "large".to_owned(),
        source: Source::Synthetic,
        columns,
        calibration: Calibration {
            slope: 1.0,
            intercept: 0.0,
        },
        gaps: Vec::new(),
        horizon_seconds: 1_800,
        provenance: Provenance::default(),
        validation: None,
        local: None,
        reference: None,
        gbdt: Ensemble::new(COLUMNS, DEPTH, -1.0, (0..TREES).map(tree).collect()),
    };
    Artifact::seal(content, &Limits::default()).expect("a valid model")
}

/// Random rows in the model's columns.
fn rows_of(scorer: &TreeScorer, features: &FeatureMatrix) -> ModelMatrix {
    let mut rows = derive(scorer.columns(), features, &History::default())
        .expect("the features are in the schema");
    for ((row, column), value) in rows.values.indexed_iter_mut() {
        *value = noise(row, column);
    }
    rows
}

fn bench(criterion: &mut Criterion) {
    let schema = Arc::new(Schema::built_in());
    let now = Timestamp::from_second(1_790_000_000).expect("in range");
    let names = (0..NODES)
        .map(|n| format!("worker-{n:05}").into())
        .collect();
    let mut features = FeatureMatrix::missing(now, Arc::clone(&schema), names);
    for ((row, column), value) in features.values.indexed_iter_mut() {
        *value = noise(row, column) * 0.2;
    }

    let columns = all_columns(&schema);
    let derive_all = || derive(&columns, black_box(&features), &History::default());
    // Before anything else, so that nothing that was freed hides what is taken.
    match memory::peak_of(derive_all) {
        Some(mebibytes) => println!("figure derive_{}_columns_mib {mebibytes:.1}", columns.len()),
        None => println!("the memory of deriving is not known: it takes Linux's /proc"),
    }
    let what = format!("derive, 5,000 Nodes x {} columns", columns.len());
    criterion.bench_function(&what, |bencher| bencher.iter(derive_all));

    let usual = Usual::of(&features);
    for (name, artifact) in [
        ("large", large(&schema)),
        ("shipped", built_in().expect("the built-in model is valid")),
    ] {
        let content = artifact.content();
        let size = format!(
            "{name}: 5,000 Nodes x {} columns x {} trees",
            content.columns.len(),
            content.gbdt.trees.len(),
        );
        let scorer = TreeScorer::new(&artifact);
        let rows = rows_of(&scorer, &features);
        criterion.bench_function(&format!("derive, {size}"), |bencher| {
            bencher.iter(|| derive(scorer.columns(), black_box(&features), &History::default()));
        });
        criterion.bench_function(&format!("score, {size}"), |bencher| {
            bencher.iter(|| scorer.score(black_box(&rows)));
        });
        criterion.bench_function(&format!("explain, {size}"), |bencher| {
            bencher.iter(|| {
                let explained = (0..NODES).filter_map(|row| {
                    let of = |feature: &FeatureName| {
                        usual.value(row, schema.column_of(feature.as_str())?)
                    };
                    scorer.explain(black_box(&rows), row, &of)
                });
                explained.count()
            });
        });
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
