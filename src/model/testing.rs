//! Small models and rows for the tests of this module.

use std::sync::Arc;

use ndarray::Array2;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::features::{ModelMatrix, Schema};

use super::artifact::{
    Artifact, Calibration, Column, Content, Limits, Provenance, Source, meaning_of,
};
use super::authority::Demands;
use super::bins::{Bins, Cut};
use super::boost::{Rows, Settings, boost, unit};
use super::gbdt::{Ensemble, Node, NodeValue, Tree};
use super::learn::{ColumnPlan, Mask, Plan, Slice, Slices};
use super::loaded::Terms;
use super::local::{Against, Baseline, CostFigures, Local, ReliabilityBin, Span};
use super::xgboost;

/// How small models cut their columns.
pub(crate) const CUT: Cut = Cut {
    quantiles: 32,
    tails: true,
};

/// Raw rows with labels: trouble is the product of the first two columns, or a large third; one
/// value in twenty is missing.
pub(crate) fn raw_rows(n: usize, n_columns: usize, seed: u64) -> (Array2<f64>, Vec<bool>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut values = Array2::from_elem((n, n_columns), f64::NAN);
    let mut labels = Vec::with_capacity(n);
    for mut row in values.rows_mut() {
        for value in &mut row {
            *value = unit(&mut rng);
        }
        let hazard = 8.0 * row[0] * row[1 % n_columns] + 6.0 * (row[2 % n_columns] - 0.8).max(0.0);
        labels.push(unit(&mut rng) < 1.0 / (1.0 + libm::exp(5.0 - hazard)));
        for value in &mut row {
            if unit(&mut rng) < 0.05 {
                *value = f64::NAN;
            }
        }
    }
    (values, labels)
}

/// Raw rows as the derivation stage hands them over.
pub(crate) fn matrix(names: &[&str], values: Array2<f64>) -> ModelMatrix {
    ModelMatrix {
        nodes: (0..values.nrows())
            .map(|i| format!("n{i:05}").into())
            .collect(),
        columns: names
            .iter()
            .map(|name| name.parse().expect("a column name"))
            .collect(),
        values,
    }
}

/// Codes of raw rows under these columns' bins.
pub(crate) fn encode(values: &Array2<f64>, columns: &[Column], labels: &[bool]) -> Rows {
    let mut codes = Vec::with_capacity(values.len());
    for row in values.rows() {
        codes.extend(
            row.iter()
                .zip(columns)
                .map(|(value, column)| column.edges.code(*value)),
        );
    }
    Rows {
        codes,
        n_columns: columns.len(),
        labels: labels.to_vec(),
    }
}

/// A plan for [`slices`] of so many columns, of which the first rises.
pub(crate) fn plan(n_columns: usize) -> Plan {
    let column = |i| ColumnPlan {
        name: format!("f{i}"),
        rising: i == 0,
        meaning: "0123456789abcdef".to_owned(),
    };
    Plan {
        name: "test".to_owned(),
        source: Source::Local,
        columns: (0..n_columns).map(column).collect(),
        masks: vec![Mask {
            columns: vec![0, 1],
            share: 0.1,
        }],
        cut: CUT,
        settings: Settings {
            trees_max: 40,
            seed: 3,
            ..Settings::default()
        },
        horizon_seconds: 1_800,
        command: "test".to_owned(),
        nodes: 4,
        each_negative: 1.0,
    }
}

/// [`raw_rows`] of four columns.
pub(crate) fn slice(n: usize, seed: u64) -> Slice {
    let (values, labels) = raw_rows(n, 4, seed);
    Slice { values, labels }
}

/// Slices that differ by their seeds alone.
pub(crate) fn slices() -> Slices {
    Slices {
        train: slice(2_000, 1),
        validation: slice(1_000, 2),
        calibration: slice(2_000, 3),
        test: slice(4_000, 4),
    }
}

/// A model trained on [`raw_rows`]; column `i` is `names[i]`.
pub(crate) fn model(names: &[&str], settings: &Settings) -> Artifact {
    let (values, labels) = raw_rows(1_500, names.len(), 7);
    let columns: Vec<Column> = names
        .iter()
        .zip(values.columns())
        .map(|(name, column)| Column {
            name: (*name).to_owned(),
            meaning: "0123456789abcdef".to_owned(),
            rising: false,
            usual: Some(0.5),
            edges: Bins::learn(&column.to_vec(), &labels, CUT),
        })
        .collect();
    let rows = encode(&values, &columns, &labels);
    let gbdt = boost(&rows, &Rows::default(), settings, |_| {}).expect("rows of both classes");
    let content = Content {
        name: "small".to_owned(),
        source: Source::Synthetic,
        columns,
        calibration: Calibration {
            slope: 0.9,
            intercept: -0.1,
        },
        gaps: Vec::new(),
        horizon_seconds: 1_800,
        provenance: Provenance::default(),
        validation: None,
        local: None,
        reference: None,
        gbdt,
    };
    Artifact::seal(content, &Limits::default()).expect("a trained model is valid")
}

/// A model of one feature of the built-in schema: at risk (0.95) from `at` on, well (0.05) below.
pub(crate) fn stump(name: &str, feature: &str, at: f64) -> Content {
    let column = Column {
        name: feature.to_owned(),
        meaning: meaning_of(&Schema::built_in(), feature).expect("is built in"),
        rising: true,
        usual: Some(0.0),
        edges: Bins { edges: vec![at] },
    };
    let value = NodeValue {
        feature_index: 0,
        feature_value: 2.0,
        pred: 0.0,
        missing: 0,
        is_leaf: false,
    };
    let root = Node {
        value,
        index: 0,
        left: 1,
        right: 2,
    };
    let nodes = vec![root, Node::leaf(1, -1.5), Node::leaf(2, 1.5)];
    Content {
        name: name.to_owned(),
        source: Source::Local,
        columns: vec![column],
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
        gbdt: Ensemble::new(1, 1, 0.0, vec![Tree::new(1, 1, nodes)]),
    }
}

/// What a model has shown that may act: judged in the second half of February 2026, where an incident is
/// worth 1, 2 and 4 drains.
pub(crate) fn local() -> Local {
    let span = |from: &str, to: &str| Span {
        from: from.parse().expect("a time"),
        to: to.parse().expect("a time"),
    };
    let costs = [1.0, 2.0, 4.0].map(|incident_cost| CostFigures {
        incident_cost,
        cost: 0.05,
        against: Baseline::ALL
            .into_iter()
            .zip([0.2, 0.1, 0.09, 0.08])
            .map(|(baseline, cost)| Against {
                baseline,
                cost,
                low: 0.05 - cost - 0.02,
                high: 0.05 - cost + 0.02,
            })
            .collect(),
    });
    let bin = |from: f64, rows| ReliabilityBin {
        from,
        to: from + 0.5,
        predicted: from + 0.25,
        observed: from + 0.24,
        rows,
    };
    Local {
        trained: span("2026-01-01T00:00:00Z", "2026-02-15T00:00:00Z"),
        judged: span("2026-02-15T06:00:00Z", "2026-03-01T00:00:00Z"),
        events: 40,
        nodes: 8,
        unseen_nodes: costs.to_vec(),
        costs: costs.into(),
        reliability: vec![bin(0.0, 9_000), bin(0.5, 100)],
    }
}

/// What a model has to fit, as it is configured by default.
pub(crate) fn terms(schema: Schema) -> Terms {
    Terms {
        schema: Arc::new(schema),
        demands: Demands::default(),
    }
}

/// The same as a model.
pub(crate) fn sealed(content: Content) -> Artifact {
    Artifact::seal(content, &Limits::default()).expect("a valid model")
}

/// An export of a small model, made by `tests/import/fixture.py` with XGBoost 3.2.0: splits that send
/// missing values left and right, whole numbers, and 80 rows with what XGBoost said of them.
pub(crate) const EXPORT: &[u8] = include_bytes!("xgboost/small.json");

/// The features that it was trained on.
pub(crate) fn imported_schema() -> Schema {
    let export: serde_json::Value = serde_json::from_slice(EXPORT).expect("JSON");
    Schema::parse(export["features"].as_str().expect("a text")).expect("valid features")
}

/// The model of the export.
pub(crate) fn imported() -> Artifact {
    let import = xgboost::import(EXPORT, &Limits::default());
    import.expect("the small export is valid").artifact
}

/// An error with all that it comes from.
pub(crate) fn message(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// That the refusal of a hostile file says why, names a remedy, and is not as long as the file.
pub(crate) fn says(name: &str, error: &dyn std::error::Error, reason: &str, remedies: &[&str]) {
    let text = message(error);
    assert!(
        text.contains(reason),
        "{name}: `{text}` does not say `{reason}`"
    );
    assert!(
        remedies.iter().any(|remedy| text.contains(remedy)),
        "{name}: no remedy in `{text}`"
    );
    assert!(
        text.len() < 600,
        "{name}: a message of {} bytes",
        text.len()
    );
}
