//! XGBoost's trees as a model of ours: the file that `deploy/xgboost/export.py` writes, and our own
//! validator for it.
//!
//! The gbdt crate has an importer as well. It takes the last digits of a feature's name for its number,
//! checks no range, and reads the base score of 2019's files: none of it is used here.
//!
//! The import is exact. XGBoost compares in single precision, `value < threshold`, and sends a missing
//! value where the split has learned to. Every threshold becomes an edge of its column, put where the
//! rounding to single precision changes sides (`edge_of`), so a code is left of a cut if and only if
//! XGBoost goes left. What the header cannot say (weights of dropped trees, another mark for missing
//! values) the *checks* do: rows with what XGBoost said of them, which the imported model has to repeat.

mod dump;

use std::path::{Path, PathBuf};

use ndarray::Array2;
use serde::Deserialize;

use crate::features::columns::KINDS;
use crate::features::derive::DEVIATION_MAX;
use crate::features::schema::SchemaError;
use crate::features::{ColumnName, ModelMatrix, Schema, Summary};

use self::dump::{DumpNode, Place, Planted};
use super::artifact::{
    Artifact, Calibration, Column, Content, Limits, ModelError, Provenance, Source, meaning_of,
};
use super::bins::{Bins, EDGES_MAX};
use super::gbdt::{Ensemble, Node, NodeValue, Tree};
use super::scorer::{Scorer, TreeScorer};

/// What the field `format` of an export says.
pub const FORMAT: &str = "foreshock-xgboost";
/// The version of the export that this program reads.
pub const VERSION: u64 = 1;
/// How far a probability may be from XGBoost's own.
pub const DIFFERENCE_MAX: f64 = 1e-6;

/// The most rows that are compared: what the exporter writes, and little work for any model.
const CHECKS_MAX: usize = 1_000;
/// The exporter, as messages name it.
const EXPORTER: &str = "deploy/xgboost/export.py";
/// Objectives whose sum of leaves is a log-odds.
const OBJECTIVES: [&str; 3] = ["binary:logistic", "binary:logitraw", "reg:logistic"];
/// The largest leaf or base margin in log-odds: beyond it no probability differs from 0 or 1.
const MARGIN_MAX: f64 = 100.0;

/// An imported model, and how near it comes to XGBoost.
#[derive(Debug)]
pub struct Import {
    /// The model, with the source [`Source::Imported`].
    pub artifact: Artifact,
    /// Rows that both have scored.
    pub rows: usize,
    /// The largest difference of the two probabilities.
    pub difference: f64,
}

/// Why an export cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error("XGBoost export `{}` cannot be read; check the path and its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Larger than an export of the largest model that is taken.
    #[error(
        "the XGBoost export is {bytes} bytes or more, the limit is {limit}; train with fewer or smaller trees"
    )]
    TooLarge {
        /// Size as far as it was read.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Not JSON, cut off, nested too deep, a wrong type, or an unknown or repeated key.
    #[error("the XGBoost export is not complete; make it anew with `{EXPORTER}`")]
    Json(#[source] serde_json::Error),
    /// JSON, but no export of ours.
    #[error(
        "the file is no XGBoost export (its `format` is not `{FORMAT}`); `{EXPORTER}` makes one of a \
         model that XGBoost has saved"
    )]
    Foreign,
    /// Written by the exporter of another version.
    #[error(
        "the XGBoost export has version {found}, this program reads {VERSION}; make it anew with the \
         `{EXPORTER}` of this version"
    )]
    Version {
        /// What the file says.
        found: u64,
    },
    /// Something in the export cannot be, or is not taken.
    #[error("the XGBoost model cannot be imported: `{place}` {fault}; {remedy}")]
    Invalid {
        /// Where, in the words of the file.
        place: String,
        /// What is wrong there.
        fault: String,
        /// What to do.
        remedy: String,
    },
    /// The definitions of the features are not valid.
    #[error(
        "the features in the XGBoost export cannot be read; export with the file of \
         `prometheus.features_file`, or with config/features.toml"
    )]
    Features(#[source] SchemaError),
    /// The model does not say what XGBoost said.
    #[error(
        "the imported model says {ours} where XGBoost said {theirs} (row {row} of `checks`); predict the \
         checks with the same trees and NaN for missing values, and make the export anew with `{EXPORTER}`"
    )]
    Differs {
        /// The row.
        row: usize,
        /// Our probability.
        ours: f64,
        /// XGBoost's.
        theirs: f64,
    },
    /// What came out breaks a rule of model files.
    #[error("the imported model is not valid")]
    Model(#[source] ModelError),
}

/// A fault with the usual remedy.
fn invalid(place: impl Into<String>, fault: impl Into<String>) -> ImportError {
    refused(
        place,
        fault,
        format!("make the export anew with `{EXPORTER}`"),
    )
}

fn refused(
    place: impl Into<String>,
    fault: impl Into<String>,
    remedy: impl Into<String>,
) -> ImportError {
    ImportError::Invalid {
        place: place.into(),
        fault: fault.into(),
        remedy: remedy.into(),
    }
}

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Export {
    /// Both are checked before anything else is looked at.
    #[serde(rename = "format")]
    _format: String,
    #[serde(rename = "version")]
    _version: u64,
    /// The version of XGBoost.
    xgboost: String,
    name: String,
    /// In the order of XGBoost's `f0`, `f1`, …
    columns: Vec<ExportColumn>,
    /// The text of the features file that the training values were made by.
    features: String,
    objective: String,
    booster: String,
    /// Numbers that the model gives for a row.
    outputs: u64,
    /// Log-odds before any tree.
    base_margin: f64,
    /// How a missing value was told.
    missing: String,
    horizon_seconds: u64,
    training: Training,
    #[serde(default)]
    calibration: Option<Calibration>,
    checks: Checks,
    trees: Vec<DumpNode>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportColumn {
    name: String,
    /// The outermost training values; absent if there were none.
    #[serde(default)]
    low: Option<f64>,
    #[serde(default)]
    high: Option<f64>,
    /// What it usually reads on a Node that is well.
    #[serde(default)]
    usual: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Training {
    rows: u64,
    positives: u64,
}

/// Rows, and XGBoost's probabilities for them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Checks {
    rows: Vec<Vec<Option<f64>>>,
    probabilities: Vec<f64>,
}

/// Reads an export.
///
/// # Errors
///
/// [`ImportError`].
pub fn read(path: &Path, limits: &Limits) -> Result<Import, ImportError> {
    let failed = |source| ImportError::Read {
        path: path.to_owned(),
        source,
    };
    import(&limits.read(path).map_err(failed)?, limits)
}

/// Makes a model of an export, from bytes that may be anything.
///
/// # Errors
///
/// Any [`ImportError`] but that of reading; each in well under a second, without a panic.
pub fn import(bytes: &[u8], limits: &Limits) -> Result<Import, ImportError> {
    if bytes.len() > limits.bytes {
        return Err(ImportError::TooLarge {
            bytes: bytes.len(),
            limit: limits.bytes,
        });
    }
    let export = parse(bytes)?;
    check_header(&export, limits)?;
    let trees = dump::plant_all(&export.trees, export.columns.len(), limits)?;
    let schema = Schema::parse(&export.features).map_err(ImportError::Features)?;
    let columns = columns_of(&export.columns, &schema, &trees)?;
    let content = Content {
        name: export.name.clone(),
        source: Source::Imported,
        calibration: Calibration {
            slope: 1.0,
            intercept: 0.0,
        },
        gaps: Vec::new(),
        horizon_seconds: export.horizon_seconds,
        provenance: Provenance {
            command: format!("foreshock import --xgboost (XGBoost {})", export.xgboost),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            seed: 0,
            rows: export.training.rows,
            positives: export.training.positives,
            nodes: 0,
        },
        validation: None,
        local: None,
        reference: None,
        gbdt: ensemble_of(&trees, &columns, export.base_margin),
        columns,
    };
    // XGBoost knows nothing of a calibration, so the model is compared without.
    let plain = seal(content.clone(), limits)?;
    let difference = compare(&plain, &export.checks)?;
    let artifact = match export.calibration {
        None => plain,
        Some(calibration) => seal(
            Content {
                calibration,
                ..content
            },
            limits,
        )?,
    };
    Ok(Import {
        artifact,
        rows: export.checks.rows.len(),
        difference,
    })
}

fn parse(bytes: &[u8]) -> Result<Export, ImportError> {
    #[derive(Deserialize)]
    struct Envelope {
        format: Option<serde_json::Value>,
        version: Option<serde_json::Value>,
    }
    // serde_json stops at 128 nested levels, so a deep tree cannot exhaust the stack.
    let Envelope { format, version } = serde_json::from_slice(bytes).map_err(ImportError::Json)?;
    if format.as_ref().and_then(|v| v.as_str()) != Some(FORMAT) {
        return Err(ImportError::Foreign);
    }
    match version.as_ref().and_then(serde_json::Value::as_u64) {
        Some(VERSION) => {}
        Some(found) => return Err(ImportError::Version { found }),
        None => return Err(invalid("version", "is not a whole number")),
    }
    serde_json::from_slice(bytes).map_err(ImportError::Json)
}

/// Checks what says how the trees are to be read.
fn check_header(export: &Export, limits: &Limits) -> Result<(), ImportError> {
    let version = &export.xgboost;
    let fits = |c: char| c.is_ascii_alphanumeric() || ".-+".contains(c);
    if version.is_empty() || version.len() > 32 || !version.chars().all(fits) {
        return Err(invalid("xgboost", "is no version of XGBoost"));
    }
    if !OBJECTIVES.contains(&export.objective.as_str()) {
        let remedy = format!("train with the objective {}", OBJECTIVES[0]);
        let fault = format!("is none of {}", OBJECTIVES.join(", "));
        return Err(refused("objective", fault, remedy));
    }
    if export.booster != "gbtree" {
        let fault = "is not `gbtree`: `dart` weighs its trees and `gblinear` has none";
        return Err(refused("booster", fault, "train with booster=gbtree"));
    }
    if export.outputs != 1 {
        let fault = "is not 1: a Node has one risk";
        return Err(refused(
            "outputs",
            fault,
            "train on one label of two classes",
        ));
    }
    if export.missing != "nan" {
        let remedy = "train with NaN for missing values";
        return Err(refused("missing", "is not `nan`", remedy));
    }
    if !(-MARGIN_MAX..=MARGIN_MAX).contains(&export.base_margin) {
        return Err(invalid("base_margin", "is not between -100 and 100"));
    }
    let n = export.columns.len();
    if n == 0 || n > limits.columns {
        let fault = format!("has {n} entries, not 1 to {}", limits.columns);
        return Err(refused(
            "columns",
            fault,
            "train on the columns that matter",
        ));
    }
    let Training { rows, positives } = export.training;
    if positives == 0 || positives >= rows {
        let fault = "says that all rows are of one class";
        return Err(refused("training", fault, "train on rows of both classes"));
    }
    Ok(())
}

/// The columns with their bins: the thresholds of all trees, and the outermost training values.
fn columns_of(
    columns: &[ExportColumn],
    schema: &Schema,
    trees: &[Planted],
) -> Result<Vec<Column>, ImportError> {
    let mut edges = vec![Vec::new(); columns.len()];
    for (column, threshold) in trees.iter().flat_map(Planted::splits) {
        edges[column].push(edge_of(threshold));
    }
    let named = columns.iter().zip(edges).enumerate();
    named
        .map(|(i, (column, mut edges))| {
            let place = format!("columns[{i}]");
            let name = parse_name(&place, &column.name)?;
            let feature = name.subject();
            let meaning = meaning_of(schema, feature).ok_or_else(|| {
                let fault = format!("is made from `{feature}`, which `features` lacks");
                let remedy = "train on columns of the features file that is exported";
                refused(format!("{place}.name"), fault, remedy)
            })?;
            // So that an input that is nothing like the training is known for one.
            edges.extend(range_of(&place, column, &name, schema)?);
            edges.sort_by(f64::total_cmp);
            edges.dedup();
            if edges.len() > EDGES_MAX {
                let fault = format!("has more than {} different thresholds", EDGES_MAX - 2);
                let remedy = "train with tree_method=hist and max_bin=250";
                return Err(refused(place, fault, remedy));
            }
            Ok(Column {
                name: column.name.clone(),
                meaning,
                // Trees that were grown elsewhere promise nothing.
                rising: false,
                usual: column.usual,
                edges: Bins { edges },
            })
        })
        .collect()
}

fn parse_name(place: &str, name: &str) -> Result<ColumnName, ImportError> {
    // A name of any length would be repeated in the message.
    let short: String = name.chars().take(64).collect();
    name.parse().map_err(|_| {
        let fault = format!("is `{short}`, which is no column");
        refused(format!("{place}.name"), fault, format!("known are {KINDS}"))
    })
}

/// The outermost training values, which have to be values that the service can have as well: a
/// model that was trained on percent where the service has ratios must not come this far.
fn range_of(
    place: &str,
    column: &ExportColumn,
    name: &ColumnName,
    schema: &Schema,
) -> Result<Vec<f64>, ImportError> {
    let (low, high) = match (column.low, column.high) {
        (None, None) => return Ok(Vec::new()),
        (Some(low), Some(high)) if low <= high => (low, high),
        _ => return Err(invalid(place, "has a `low` without a `high` above it")),
    };
    let unbounded = (f64::NEG_INFINITY, f64::INFINITY);
    let feature = name
        .feature()
        .and_then(|name| schema.feature(name.as_str()));
    let span = feature.map_or(f64::INFINITY, |f| f.max - f.min + 2.0 * f.noise);
    let (least, most) = match name {
        ColumnName::Peers(_) | ColumnName::Week(_) => (-DEVIATION_MAX, DEVIATION_MAX),
        ColumnName::Now(_) => feature.map_or(unbounded, |f| (f.min - f.noise, f.max + f.noise)),
        ColumnName::Change(..) => (-span, span),
        ColumnName::Spread(_) => (0.0, span),
        ColumnName::Node(summary) => match summary {
            Summary::Largest | Summary::Third | Summary::Top5 | Summary::Mean => {
                (0.0, DEVIATION_MAX)
            }
            Summary::Beyond3 | Summary::Beyond6 => (0.0, schema.len() as f64),
        },
    };
    // In single precision a value may lie beyond its bound by a rounding.
    let slack = |bound: f64| bound.abs() * 1e-6;
    if low < least - slack(least) || high > most + slack(most) {
        let fault = format!(
            "was trained on values from {low} to {high}, and `{name}` is within {least} to {most}"
        );
        let remedy = "train on values in the units of `features`, without those that cannot be";
        return Err(refused(place, fault, remedy));
    }
    Ok(vec![low, high])
}

/// The lowest value that XGBoost does not hold to be below a threshold: values are rounded to single
/// precision first, so it lies halfway to the next lower number, or just above where the tie goes down.
fn edge_of(threshold: f32) -> f64 {
    let below = f64::from(threshold.next_down());
    // Two neighbours in single precision have their middle in double precision, exactly.
    let middle = f64::midpoint(below, f64::from(threshold));
    if (middle as f32) < threshold {
        middle.next_up()
    } else {
        middle
    }
}

/// The trees on codes; leaves in half log-odds, as our trees have them.
fn ensemble_of(trees: &[Planted], columns: &[Column], base_margin: f64) -> Ensemble {
    let n = columns.len();
    let depth = trees.iter().map(|tree| tree.depth).max().unwrap_or(0);
    let node = |(index, place): (usize, &Place)| match *place {
        Place::Leaf(value) => Node::leaf(index, value / 2.0),
        Place::Split {
            column,
            threshold,
            missing_right,
            left,
            right,
        } => {
            let edges = columns.get(column).map_or(&[][..], |c| &c.edges.edges);
            let edge = edge_of(threshold);
            // Codes of values below the edge are those up to its place plus one.
            let place = edges.partition_point(|e| *e < edge);
            Node {
                value: NodeValue {
                    feature_index: column,
                    feature_value: place as f32 + 1.5,
                    pred: 0.0,
                    missing: i8::from(missing_right),
                    is_leaf: false,
                },
                index,
                left,
                right,
            }
        }
    };
    let grown = trees
        .iter()
        .map(|tree| {
            let nodes = tree.places.iter().enumerate().map(node).collect();
            Tree::new(n, tree.depth, nodes)
        })
        .collect();
    Ensemble::new(n, depth, (base_margin / 2.0) as f32, grown)
}

/// Seals, with faults in the words of the export.
fn seal(content: Content, limits: &Limits) -> Result<Artifact, ImportError> {
    Artifact::seal(content, limits).map_err(|error| match error {
        ModelError::Invalid { place, fault } => {
            invalid(place.trim_start_matches("content."), fault)
        }
        error => ImportError::Model(error),
    })
}

/// The largest difference from XGBoost's probabilities.
fn compare(artifact: &Artifact, checks: &Checks) -> Result<f64, ImportError> {
    let scorer = TreeScorer::new(artifact);
    let columns = scorer.columns().to_vec();
    let n = checks.rows.len();
    if n == 0 || n > CHECKS_MAX || n != checks.probabilities.len() {
        let fault = format!("has not 1 to {CHECKS_MAX} rows with a probability for each");
        return Err(invalid("checks", fault));
    }
    if let Some(row) = checks.rows.iter().position(|r| r.len() != columns.len()) {
        let fault = "is not as long as `columns`";
        return Err(invalid(format!("checks.rows[{row}]"), fault));
    }
    let values = Array2::from_shape_fn((n, columns.len()), |(row, column)| {
        checks.rows[row][column].unwrap_or(f64::NAN)
    });
    let matrix = ModelMatrix {
        // Scoring does not ask whose the rows are.
        nodes: Vec::new(),
        columns,
        values,
    };
    let mut difference = 0.0f64;
    let scores = scorer.score(&matrix);
    for (row, (score, theirs)) in scores.iter().zip(&checks.probabilities).enumerate() {
        let (ours, theirs) = (score.probability.as_f64(), *theirs);
        let off = (ours - theirs).abs();
        if off.is_nan() || off > DIFFERENCE_MAX {
            return Err(ImportError::Differs { row, ours, theirs });
        }
        difference = difference.max(off);
    }
    Ok(difference)
}

#[cfg(test)]
mod tests;
