//! From labelled rows to a model file: bins, masking, boosting, calibration, judgement.
//!
//! Where the rows come from (simulated fleet, Prometheus history) is none of its business.

use ndarray::Array2;

use super::artifact::{
    Artifact, Calibration, Column, Content, Gap, Limits, ModelError, Provenance, Source, Validation,
};
use super::bins::{Bins, Cut, MISSING};
use super::boost::{BoostError, Rows, Settings, boost, log_odds, mask};
use super::calibrate::{Scored, calibrate, calibrate_within};
use super::drift::Reference;
use super::gbdt::Ensemble;
use super::measure::judge;
use super::scorer::probability;
use super::taken::{Taken, encode_all};

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
    /// How columns are cut into bins.
    pub cut: Cut,
    /// Of the boosting loop; `rising` is taken from the columns.
    pub settings: Settings,
    /// How far ahead a positive looks, in seconds.
    pub horizon_seconds: u64,
    /// The command, for the provenance.
    pub command: String,
    /// Nodes that the training rows come from.
    pub nodes: u64,
    /// How many negative rows each one of the calibration slice stands for: 1, or more where they were thinned.
    pub each_negative: f64,
}

/// The rows, in the order of time: no slice may share a moment with another on the same Node.
#[derive(Clone, Debug, Default)]
pub struct Slices {
    /// Trees are grown on these. Negatives may be thinned: calibration puts the prior right.
    pub train: Slice,
    /// Decides when to stop.
    pub validation: Slice,
    /// Calibration; with the true share of positives, or what [`Plan::each_negative`] makes of it.
    pub calibration: Slice,
    /// The figures of the model card; with the true share of positives.
    pub test: Slice,
}

impl Slices {
    /// That every slice has so many columns, and a label for each row.
    pub(super) fn check(&self, n_columns: usize) -> Result<(), LearnError> {
        for (slice, name) in [
            (&self.train, "training"),
            (&self.validation, "validation"),
            (&self.calibration, "calibration"),
            (&self.test, "test"),
        ] {
            let (rows, columns) = slice.values.dim();
            if slice.labels.len() != rows || (rows > 0 && columns != n_columns) {
                let labels = slice.labels.len();
                return Err(LearnError::Shape {
                    slice: name,
                    columns,
                    rows,
                    labels,
                });
            }
        }
        Ok(())
    }
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
    /// No way to learn was given.
    #[error("there is no way to learn to choose; give one at least")]
    NoWay,
    /// A way that takes columns which are not there.
    #[error("the way `{way}` takes column {column} of {columns}; count from 0")]
    WayColumn {
        /// Its name.
        way: String,
        /// The column that it takes.
        column: usize,
        /// How many there are.
        columns: usize,
    },
    /// Several ways cannot be compared.
    #[error(
        "of {rows} validation rows {positives} are positive; to choose among several ways to learn \
         there must be rows of both kinds: validate on a longer time"
    )]
    NothingToChooseBy {
        /// Validation rows.
        rows: usize,
        /// Positive ones.
        positives: usize,
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
    slices.check(plan.columns.len())?;
    let [train, validation] = [&slices.train, &slices.validation].map(Taken::all);
    let grown = grow(plan, &train, &validation, progress)?;
    grown.seal(plan, [&slices.calibration, &slices.test].map(Taken::all))
}

/// Trees with the columns whose bins they were grown on.
pub(super) struct Grown {
    pub(super) columns: Vec<Column>,
    pub(super) gbdt: Ensemble,
    /// Rows that they were grown on, and positive ones among them.
    rows: (u64, u64),
}

/// Grows trees by a plan, from rows of the plan's width.
pub(super) fn grow(
    plan: &Plan,
    train: &Taken<'_>,
    validation: &Taken<'_>,
    progress: impl FnMut(usize),
) -> Result<Grown, LearnError> {
    let (columns, rows) = masked(plan, &[*train]);
    let validation = validation.encode(&columns);
    let gbdt = boost(&rows, &validation, &settings(plan), progress)?;
    Ok(Grown::new(columns, gbdt, &rows))
}

/// Grows so many trees by a plan, from rows of the plan's width, one part after another.
pub(super) fn grow_anew(
    plan: &Plan,
    parts: &[Taken<'_>],
    trees: usize,
    progress: impl FnMut(usize),
) -> Result<Grown, LearnError> {
    let (columns, rows) = masked(plan, parts);
    let settings = Settings {
        trees_max: trees,
        ..settings(plan)
    };
    let nothing = Rows {
        n_columns: rows.n_columns,
        ..Rows::default()
    };
    let gbdt = boost(&rows, &nothing, &settings, progress)?;
    Ok(Grown::new(columns, gbdt, &rows))
}

/// Bins learned from these rows, and the rows with what goes missing in training.
pub(super) fn masked(plan: &Plan, parts: &[Taken<'_>]) -> (Vec<Column>, Rows) {
    let columns = learn_columns(plan, parts);
    let mut rows = encode_all(parts, &columns);
    mask(&mut rows, &plan.masks, plan.settings.seed);
    (columns, rows)
}

pub(super) fn settings(plan: &Plan) -> Settings {
    Settings {
        rising: plan.columns.iter().map(|column| column.rising).collect(),
        ..plan.settings.clone()
    }
}

impl Grown {
    fn new(columns: Vec<Column>, gbdt: Ensemble, rows: &Rows) -> Self {
        let positives = rows.labels.iter().filter(|label| **label).count();
        Self {
            columns,
            gbdt,
            rows: (rows.len() as u64, positives as u64),
        }
    }

    /// Calibrates and judges the trees, and makes a model file of them.
    pub(super) fn seal(
        self,
        plan: &Plan,
        [calibration, test]: [Taken<'_>; 2],
    ) -> Result<Artifact, LearnError> {
        let said = Said {
            each: vec![(&self.gbdt, calibration.encode(&self.columns))],
            each_negative: plan.each_negative,
        };
        let calibrations = said.calibrations(plan);
        let calibrating = said.each.into_iter().next().map(|(_, rows)| rows);
        let mut content = self.content(plan, calibrations);
        content.reference = calibrating.and_then(|rows| reference(&content, &rows));
        let test = test.encode(&content.columns);
        let validation = judge(&probabilities(&content, &test), &test.labels);
        content.validation = (validation != Validation::default()).then_some(validation);
        Ok(Artifact::seal(content, &Limits::default())?)
    }

    /// What goes into a model file of a calibration that is known, not judged.
    pub(super) fn content(
        self,
        plan: &Plan,
        (calibration, gaps): (Calibration, Vec<Gap>),
    ) -> Content {
        let (rows, positives) = self.rows;
        Content {
            name: plan.name.clone(),
            source: plan.source,
            columns: self.columns,
            calibration,
            gaps,
            horizon_seconds: plan.horizon_seconds,
            provenance: Provenance {
                command: plan.command.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                seed: plan.settings.seed,
                rows,
                positives,
                nodes: plan.nodes,
            },
            validation: None,
            local: None,
            reference: None,
            gbdt: self.gbdt,
        }
    }
}

/// What a model says of rows that have its codes.
pub fn probabilities(content: &Content, rows: &Rows) -> Vec<f64> {
    let raw = log_odds(&content.gbdt, rows);
    let codes = rows.codes.chunks_exact(rows.n_columns.max(1));
    raw.iter()
        .zip(codes)
        .map(|(raw, codes)| {
            let log_odds = content.calibration_of(codes).of(raw / 2.0);
            probability(log_odds).as_f64()
        })
        .collect()
}

/// Rows that trees were not grown on, with those trees: what calibration is fitted on.
pub(super) struct Said<'a> {
    pub(super) each: Vec<(&'a Ensemble, Rows)>,
    pub(super) each_negative: f64,
}

impl Said<'_> {
    /// The calibration, and that of each set of columns that is missing together in training.
    pub(super) fn calibrations(&self, plan: &Plan) -> (Calibration, Vec<Gap>) {
        let labels: Vec<bool> = self
            .each
            .iter()
            .flat_map(|(_, rows)| rows.labels.iter().copied())
            .collect();
        let scored = |log_odds: &[f64], fit: &dyn Fn(Scored<'_>) -> Calibration| {
            fit(Scored {
                log_odds,
                labels: &labels,
                each_negative: self.each_negative,
            })
        };
        let whole = scored(&self.log_odds(&[]), &calibrate);
        // Of rows of one kind nothing is to be learned.
        if !labels.contains(&true) || !labels.contains(&false) {
            return (whole, Vec::new());
        }
        let gap = |columns: Vec<usize>| Gap {
            calibration: scored(&self.log_odds(&columns), &|rows| {
                calibrate_within(rows, whole)
            }),
            columns,
        };
        (whole, gaps(plan).into_iter().map(gap).collect())
    }

    /// Raw log-odds of all rows without these columns.
    fn log_odds(&self, missing: &[usize]) -> Vec<f64> {
        let mut said = Vec::new();
        for (gbdt, rows) in &self.each {
            if missing.is_empty() {
                said.extend(log_odds(gbdt, rows));
                continue;
            }
            let mut without = rows.clone();
            for row in without.codes.chunks_exact_mut(rows.n_columns.max(1)) {
                for column in missing {
                    if let Some(code) = row.get_mut(*column) {
                        *code = MISSING;
                    }
                }
            }
            said.extend(log_odds(gbdt, &without));
        }
        said
    }
}

/// Sets of columns that are missing together in training, each once. Nothing is left to say something of a row
/// without any column.
fn gaps(plan: &Plan) -> Vec<Vec<usize>> {
    let mut gaps: Vec<Vec<usize>> = Vec::new();
    for mask in plan.masks.iter().filter(|mask| mask.share > 0.0) {
        let mut columns = mask.columns.clone();
        columns.sort_unstable();
        columns.dedup();
        if (1..plan.columns.len()).contains(&columns.len()) && !gaps.contains(&columns) {
            gaps.push(columns);
        }
    }
    gaps
}

/// What inputs and scores were, for drift. Of the calibration slice, in which the positives have their true
/// share and nothing is masked. Simulated machines are nobody's history.
fn reference(content: &Content, rows: &Rows) -> Option<Reference> {
    match content.source {
        Source::Local => {
            let said = probabilities(content, rows);
            Reference::of(&content.columns, &rows.codes, &said)
        }
        Source::Synthetic | Source::Imported => None,
    }
}

fn learn_columns(plan: &Plan, parts: &[Taken<'_>]) -> Vec<Column> {
    let columns = plan.columns.iter().enumerate();
    columns
        .map(|(place, column)| {
            let each = parts.iter().flat_map(|part| part.column(place));
            let (values, labels): (Vec<f64>, Vec<bool>) = each.unzip();
            Column {
                name: column.name.clone(),
                meaning: column.meaning.clone(),
                rising: column.rising,
                usual: healthy_median(values.iter().zip(&labels)),
                edges: Bins::learn(&values, &labels, plan.cut),
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::taken::encode;
    use crate::model::testing::{plan, slice, slices};

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

    /// What the model says of a slice's rows, with these columns missing from all of them.
    fn says(model: &Artifact, slice: &Slice, missing: &[usize]) -> Vec<f64> {
        let mut slice = slice.clone();
        for column in missing {
            slice.values.column_mut(*column).fill(f64::NAN);
        }
        let content = model.content();
        probabilities(content, &encode(&content.columns, &slice))
    }

    #[test]
    fn the_same_rows_in_other_units_get_the_same_scores() {
        let plain = slices();
        let scores = says(&learn(&plan(4), &plain, |_| {}).unwrap(), &plain.test, &[]);
        for unit in [1e-3, 1e6] {
            let mut scaled = plain.clone();
            for slice in [
                &mut scaled.train,
                &mut scaled.validation,
                &mut scaled.calibration,
                &mut scaled.test,
            ] {
                slice.values *= unit;
            }
            let model = learn(&plan(4), &scaled, |_| {}).unwrap();
            assert_eq!(says(&model, &scaled.test, &[]), scores, "x {unit}");
        }
    }

    #[test]
    fn a_model_that_was_trained_with_gaps_bears_a_missing_group_and_knows_nothing_of_an_empty_row()
    {
        let slices = slices();
        let complete = Plan {
            masks: Vec::new(),
            ..plan(4)
        };
        let complete = learn(&complete, &slices, |_| {}).unwrap();
        // The plan masks the first two columns together.
        let gaps = learn(&plan(4), &slices, |_| {}).unwrap();
        let judged = |model: &Artifact, missing: &[usize]| {
            judge(&says(model, &slices.test, missing), &slices.test.labels)
        };
        let ratio = judged(&gaps, &[]).pr_auc / judged(&complete, &[]).pr_auc;
        assert!(ratio > 0.95, "{ratio}");
        // So few rows say little about the rest of them; tests/learners holds it to the bounds on real numbers.
        let (without, unprepared) = (judged(&gaps, &[0, 1]), judged(&complete, &[0, 1]));
        assert!(without.ece < 0.05, "{without:?}");
        assert!(without.brier_skill > -0.02, "{without:?}");
        assert!(
            without.brier < unprepared.brier,
            "{without:?} {unprepared:?}"
        );
        // It says so with a calibration of its own, which makes no more of the trees' word.
        let whole = gaps.content().calibration;
        let own = &gaps.content().gaps;
        assert_eq!(own.len(), 1);
        assert_eq!(own[0].columns, [0, 1]);
        assert!(own[0].calibration.slope <= whole.slope, "{own:?} {whole:?}");
        assert!(complete.content().gaps.is_empty());
        let nothing = says(&gaps, &slices.test, &[0, 1, 2, 3])[0];
        assert!(nothing < 0.5, "{nothing}");
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
