//! From labelled rows to a model file: bins, masking, boosting, calibration, judgement.
//!
//! Where the rows come from (simulated fleet, Prometheus history) is none of its business.

use ndarray::Array2;

use super::artifact::{
    Artifact, Calibration, Column, Content, Limits, ModelError, Provenance, Source, Validation,
};
use super::bins::{Bins, MISSING};
use super::boost::{BoostError, Rows, Settings, boost, log_odds, mask};
use super::calibrate::platt;
use super::drift::Reference;
use super::measure::judge;

/// Labelled rows: one row per Node and time.
#[derive(Clone, Debug, Default)]
pub struct Slice {
    /// Rows × columns; NaN is missing.
    pub values: Array2<f64>,
    /// Whether the Node degrades within the horizon; one per row.
    pub labels: Vec<bool>,
}

impl Slice {
    /// Number of positive rows.
    pub fn positives(&self) -> usize {
        self.labels.iter().filter(|label| **label).count()
    }
}

/// A column to learn from.
#[derive(Clone, Debug)]
pub struct ColumnPlan {
    /// As the derivation stage names it.
    pub name: String,
    /// Whether the score may only rise with it.
    pub rising: bool,
    /// What its feature means, see [`super::artifact::meaning_of`].
    pub meaning: String,
}

/// Columns that go missing together in a share of the training rows.
#[derive(Clone, Debug)]
pub struct Mask {
    /// Places of the columns.
    pub columns: Vec<usize>,
    /// Share of the rows, in `0.0..=1.0`.
    pub share: f64,
}

/// How to learn.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name of the model.
    pub name: String,
    /// Where the rows come from.
    pub source: Source,
    /// The columns of every slice.
    pub columns: Vec<ColumnPlan>,
    /// What goes missing in training.
    pub masks: Vec<Mask>,
    /// Quantile bins of a column.
    pub bins: usize,
    /// Of the boosting loop; `rising` is taken from the columns.
    pub settings: Settings,
    /// How far ahead a positive looks, in seconds.
    pub horizon_seconds: u64,
    /// The command, for the provenance.
    pub command: String,
    /// Nodes that the training rows come from.
    pub nodes: u64,
}

/// The rows, in the order of time: no slice may share a moment with another on the same Node.
#[derive(Clone, Debug, Default)]
pub struct Slices {
    /// Trees are grown on these. Negatives may be thinned: calibration puts the prior back.
    pub train: Slice,
    /// Decides when to stop.
    pub validation: Slice,
    /// Calibration; with the true share of positives.
    pub calibration: Slice,
    /// The figures of the model card; with the true share of positives.
    pub test: Slice,
}

/// Why no model came out.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// A slice that does not fit the columns.
    #[error("the {slice} slice has {columns} columns and {labels} labels for {rows} rows")]
    Shape {
        /// Which slice.
        slice: &'static str,
        /// Its columns.
        columns: usize,
        /// Its rows.
        rows: usize,
        /// Its labels.
        labels: usize,
    },
    /// Boosting failed.
    #[error("the trees could not be trained")]
    Boost(#[from] BoostError),
    /// What came out breaks the rules of a model file.
    #[error("the trained model is not valid")]
    Model(#[from] ModelError),
}

/// Learns a model. The same slices and plan give the same bytes.
///
/// `progress` is called with the number of trees so far.
///
/// # Errors
///
/// [`LearnError`].
pub fn learn(
    plan: &Plan,
    slices: &Slices,
    progress: impl FnMut(usize),
) -> Result<Artifact, LearnError> {
    for (slice, name) in [
        (&slices.train, "training"),
        (&slices.validation, "validation"),
        (&slices.calibration, "calibration"),
        (&slices.test, "test"),
    ] {
        let (rows, columns) = slice.values.dim();
        if slice.labels.len() != rows || (rows > 0 && columns != plan.columns.len()) {
            let labels = slice.labels.len();
            return Err(LearnError::Shape {
                slice: name,
                columns,
                rows,
                labels,
            });
        }
    }
    let columns = learn_columns(plan, &slices.train);
    let mut rows = encode(&columns, &slices.train);
    mask(&mut rows, &plan.masks, plan.settings.seed);
    let settings = Settings {
        rising: plan.columns.iter().map(|column| column.rising).collect(),
        ..plan.settings.clone()
    };
    let gbdt = boost(
        &rows,
        &encode(&columns, &slices.validation),
        &settings,
        progress,
    )?;
    let calibrating = encode(&columns, &slices.calibration);
    let raw = log_odds(&gbdt, &calibrating);
    let calibration = platt(&raw, &calibrating.labels);
    let reference = reference(
        plan,
        &columns,
        &calibrating,
        &probabilities(&raw, calibration),
    );
    let test = encode(&columns, &slices.test);
    let validation = judge(
        &probabilities(&log_odds(&gbdt, &test), calibration),
        &test.labels,
    );
    let content = Content {
        name: plan.name.clone(),
        source: plan.source,
        columns,
        calibration,
        horizon_seconds: plan.horizon_seconds,
        provenance: Provenance {
            command: plan.command.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            seed: plan.settings.seed,
            rows: slices.train.labels.len() as u64,
            positives: slices.train.positives() as u64,
            nodes: plan.nodes,
        },
        validation: (validation != Validation::default()).then_some(validation),
        local: None,
        reference,
        gbdt,
    };
    Ok(Artifact::seal(content, &Limits::default())?)
}

/// Calibrated probabilities of raw log-odds.
pub fn probabilities(log_odds: &[f64], calibration: Calibration) -> Vec<f64> {
    let Calibration { slope, intercept } = calibration;
    log_odds
        .iter()
        .map(|x| 1.0 / (1.0 + libm::exp(-(slope * x + intercept))))
        .collect()
}

/// What inputs and scores were, for drift. Of the calibration slice, in which the positives have their true
/// share and nothing is masked. Simulated machines are nobody's history.
fn reference(
    plan: &Plan,
    columns: &[Column],
    rows: &Rows,
    probabilities: &[f64],
) -> Option<Reference> {
    match plan.source {
        Source::Local => Reference::of(columns, &rows.codes, probabilities),
        Source::Synthetic | Source::Imported => None,
    }
}

fn learn_columns(plan: &Plan, train: &Slice) -> Vec<Column> {
    let columns = plan.columns.iter().zip(train.values.columns());
    columns
        .map(|(column, values)| Column {
            name: column.name.clone(),
            meaning: column.meaning.clone(),
            rising: column.rising,
            usual: healthy_median(values.iter().zip(&train.labels)),
            edges: Bins::learn(&values.to_vec(), &train.labels, plan.bins),
        })
        .collect()
}

fn healthy_median<'a>(values: impl Iterator<Item = (&'a f64, &'a bool)>) -> Option<f64> {
    let mut healthy: Vec<f64> = values
        .filter(|(value, label)| value.is_finite() && !**label)
        .map(|(v, _)| *v)
        .collect();
    healthy.sort_by(f64::total_cmp);
    healthy.get(healthy.len() / 2).copied()
}

/// Codes of a slice under these columns' bins.
pub fn encode(columns: &[Column], slice: &Slice) -> Rows {
    let mut codes = Vec::with_capacity(slice.values.len());
    for row in slice.values.rows() {
        codes.extend(columns.iter().enumerate().map(|(i, column)| {
            row.get(i)
                .map_or(MISSING, |value| column.edges.code(*value))
        }));
    }
    Rows {
        codes,
        n_columns: columns.len(),
        labels: slice.labels.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::raw_rows;

    fn plan(n_columns: usize) -> Plan {
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
            bins: 32,
            settings: Settings {
                trees_max: 40,
                seed: 3,
                ..Settings::default()
            },
            horizon_seconds: 1_800,
            command: "test".to_owned(),
            nodes: 4,
        }
    }

    fn slice(n: usize, seed: u64) -> Slice {
        let (values, labels) = raw_rows(n, 4, seed);
        Slice { values, labels }
    }

    fn slices() -> Slices {
        Slices {
            train: slice(2_000, 1),
            validation: slice(1_000, 2),
            calibration: slice(2_000, 3),
            test: slice(4_000, 4),
        }
    }

    #[test]
    fn a_learned_model_is_calibrated_and_better_than_the_base_rate() {
        let model = learn(&plan(4), &slices(), |_| {}).unwrap();
        let figures = model.content().validation.clone().unwrap();
        assert!(figures.brier_skill > 0.1, "{figures:?}");
        assert!(figures.ece < 0.03, "{figures:?}");
        assert!(figures.pr_auc > 2.0 * figures.base_rate, "{figures:?}");
        assert_eq!(model.content().provenance.rows, 2_000);
    }

    #[test]
    fn learning_again_gives_the_same_bytes() {
        let bytes = || {
            learn(&plan(4), &slices(), |_| {})
                .unwrap()
                .to_bytes()
                .unwrap()
        };
        assert_eq!(bytes(), bytes());
    }

    #[test]
    fn thinned_negatives_do_not_raise_the_probability() {
        let mut thin = slices();
        let keep = |i: usize, label: bool| label || i.is_multiple_of(5);
        let train = &thin.train;
        let kept: Vec<usize> = (0..train.labels.len())
            .filter(|i| keep(*i, train.labels[*i]))
            .collect();
        thin.train = Slice {
            values: train.values.select(ndarray::Axis(0), &kept),
            labels: kept.iter().map(|i| train.labels[*i]).collect(),
        };
        let figures = learn(&plan(4), &thin, |_| {})
            .unwrap()
            .content()
            .validation
            .clone()
            .unwrap();
        assert!(figures.ece < 0.03, "{figures:?}");
    }

    #[test]
    fn slices_of_another_width_or_without_positives_are_refused() {
        let mut wide = slices();
        wide.calibration = slice(100, 5);
        let error = learn(&plan(3), &wide, |_| {}).unwrap_err().to_string();
        assert!(
            error.starts_with("the training slice has 4 columns"),
            "{error}"
        );
        let mut empty = slices();
        empty.train.labels.fill(false);
        assert!(matches!(
            learn(&plan(4), &empty, |_| {}),
            Err(LearnError::Boost(_))
        ));
    }
}
