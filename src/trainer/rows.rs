//! Which rows are learned from: a first pass over the features counts, a second derives.

use std::collections::{BTreeMap, BTreeSet};

use foreshock_core::node::NodeName;
use ndarray::Array2;

use super::collect::Fetched;
use super::story::Story;
use super::{Progress, Step, TrainError};
use crate::features::series::next_rows;
use crate::features::{ColumnName, FeatureMatrix, FeatureName, History, Summary};
use crate::model::learn::{LearnError, Slice};
use crate::train::labels::{Dropped, Label, Tally};
use crate::train::sample::{Cut, Part, Prior, Thinner};

/// Values that the rows of the training part may come to; those of the two parts after it are half as many again, and
/// all are 120 MB. ADR 17 has what fewer cost.
const CELLS_MAX: usize = 10_000_000;
/// However many positives there are, so many negatives stand beside each.
const NEGATIVES_MIN: u64 = 4;
/// A feature that fewer rows have is no column: one in so many.
const ROWS_WITH_VALUE: u64 = 20;

/// What there is to learn from.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    /// Rows with features, by what they are.
    pub(super) tally: Tally,
    /// Positives and negatives of each part.
    pub(super) parts: BTreeMap<Part, (u64, u64)>,
    /// Nodes with rows.
    pub(super) nodes: BTreeSet<NodeName>,
    /// Nodes that exporters said something of, if too little for a score.
    pub(super) heard: BTreeSet<NodeName>,
    /// Rows with too few features for a score.
    pub(super) unknown: u64,
    rows: u64,
    /// Rows that have a value, by feature.
    with_value: Vec<u64>,
}

/// Counts the rows of a history.
pub(super) fn count(
    fetched: &Fetched,
    story: &Story,
    cut: &Cut,
    missing_max: f64,
    progress: &dyn Progress,
) -> Result<Counted, TrainError> {
    let mut counted = Counted {
        with_value: vec![0; fetched.schema().len()],
        ..Counted::default()
    };
    for (done, matrix) in (0..).zip(fetched.matrices()) {
        progress.at(Step::Counting, done, fetched.points());
        let matrix = matrix?;
        for (row, node) in matrix.nodes.iter().enumerate() {
            if matrix.missing_share(row) > missing_max {
                let says = matrix.values.row(row).iter().any(|value| !value.is_nan());
                if says && !counted.heard.contains(node) {
                    counted.heard.insert(node.clone());
                }
                counted.unknown += 1;
                continue;
            }
            let Some(label) = story.label(node, matrix.at) else {
                continue;
            };
            if !counted.nodes.contains(node) {
                counted.nodes.insert(node.clone());
            }
            counted.rows += 1;
            for (n, value) in counted.with_value.iter_mut().zip(matrix.values.row(row)) {
                *n += u64::from(!value.is_nan());
            }
            counted.tally.count(label);
            let Some(part) = cut.part_of(matrix.at) else {
                continue;
            };
            let of = counted.parts.entry(part).or_default();
            match label {
                Label::Positive(_) => of.0 += 1,
                Label::Negative => of.1 += 1,
                Label::Dropped(_) => {}
            }
        }
    }
    Ok(counted)
}

impl Counted {
    /// Positive and negative rows of a part; none of one that the history has no row of.
    pub(super) fn rows_of(&self, part: Part) -> (u64, u64) {
        self.parts.get(&part).copied().unwrap_or((0, 0))
    }

    /// Everything that can be made of the features that are there.
    pub(super) fn columns(&self, fetched: &Fetched) -> Vec<ColumnName> {
        let features = fetched.schema().features().iter().zip(&self.with_value);
        let there: BTreeSet<&FeatureName> = features
            .filter(|(_, n)| **n * ROWS_WITH_VALUE >= self.rows.max(1))
            .map(|(feature, _)| &feature.name)
            .collect();
        let mut columns = ColumnName::all(fetched.schema());
        columns.retain(|column| column.feature().is_none_or(|of| there.contains(of)));
        columns
    }

    /// Of so many negatives one is kept.
    pub(super) fn one_in(&self, n_columns: usize) -> u32 {
        let (positives, negatives) = self.rows_of(Part::Train);
        let most = (CELLS_MAX / n_columns.max(1)) as u64;
        // As many again while incidents are on.
        let room = most.saturating_sub(2 * positives);
        let room = room.max(positives * NEGATIVES_MIN).max(1);
        u32::try_from(negatives.div_ceil(room))
            .unwrap_or(u32::MAX)
            .max(1)
    }

    /// Of so many training rows while an incident is on one is kept: about a quarter as many as there are before
    /// incidents. They are easy to tell; with as many, trees are grown for little else.
    pub(super) fn one_in_during(&self) -> u32 {
        let (positives, _) = self.rows_of(Part::Train);
        let during = self.tally.dropped.get(&Dropped::InIncident);
        // They are counted over the whole history, of which half is for training.
        let during = during.map_or(0, |rows| rows / 2);
        let one_in = (4 * during).div_ceil(positives.max(1));
        u32::try_from(one_in).unwrap_or(u32::MAX).max(1)
    }
}

/// Rows of one part, as they are gathered.
#[derive(Clone, Debug, Default)]
struct Rows {
    values: Vec<f64>,
    labels: Vec<bool>,
    nodes: Vec<NodeName>,
}

/// Rows of one part, with whose each is.
#[derive(Clone, Debug, Default)]
pub(super) struct Lessons {
    pub(super) slice: Slice,
    pub(super) nodes: Vec<NodeName>,
}

/// The rows of the three parts that are learned from.
#[derive(Clone, Debug, Default)]
pub(super) struct Gathered {
    pub(super) train: Lessons,
    pub(super) validation: Lessons,
    pub(super) calibration: Lessons,
    /// What thinning has done to the calibration part.
    pub(super) prior: Prior,
}

/// How rows are gathered.
pub(super) struct Gathering<'a> {
    pub(super) story: &'a Story,
    pub(super) cut: &'a Cut,
    pub(super) columns: &'a [ColumnName],
    pub(super) missing_max: f64,
    pub(super) one_in: u32,
    /// The same of training rows while an incident is on.
    pub(super) one_in_during: u32,
    pub(super) seed: u64,
}

impl Gathering<'_> {
    /// Derives the rows, as the service would have had them, and keeps those that are learned from.
    pub(super) fn gather(
        &self,
        fetched: &Fetched,
        progress: &dyn Progress,
    ) -> Result<Gathered, TrainError> {
        let thinner = || Thinner::new(self.one_in, self.seed);
        let (mut thin, mut thin_calibration) = (thinner(), thinner());
        let mut thin_during = Thinner::new(self.one_in_during, self.seed);
        let [mut train, mut validation, mut calibration] = [(); 3].map(|()| Rows::default());
        let mut history = History::default();
        for (done, matrix) in (0..).zip(fetched.matrices()) {
            progress.at(Step::Deriving, done, fetched.points());
            let matrix = matrix?;
            let part = self.cut.part_of(matrix.at);
            if part == Some(Part::Test) {
                progress.at(Step::Deriving, fetched.points(), fetched.points());
                break;
            }
            // Also between two parts the history goes on.
            let rows = next_rows(self.columns, &matrix, true, &mut history)?;
            for (node, label, row) in self.labelled(&matrix) {
                let (rows_of, thin) = match part {
                    Some(Part::Train) => (&mut train, &mut thin),
                    Some(Part::Validation) => (&mut validation, &mut thin),
                    Some(Part::Calibration) => (&mut calibration, &mut thin_calibration),
                    Some(Part::Test) | None => continue,
                };
                let (positive, keeps) = match label {
                    Label::Positive(_) => (true, thin.keeps(node, matrix.at, true)),
                    Label::Negative => (false, thin.keeps(node, matrix.at, false)),
                    // The trees have to know what a Node looks like that nothing is left to be foretold of, or
                    // it would look well. Nothing is calibrated or judged by it.
                    Label::Dropped(Dropped::InIncident) if part == Some(Part::Train) => {
                        (true, thin_during.keeps(node, matrix.at, false))
                    }
                    Label::Dropped(_) => continue,
                };
                if keeps {
                    rows_of.values.extend(rows.values.row(row));
                    rows_of.labels.push(positive);
                    rows_of.nodes.push(node.clone());
                }
            }
        }
        let n = self.columns.len();
        Ok(Gathered {
            train: train.end("training", n)?,
            validation: validation.end("validation", n)?,
            calibration: calibration.end("calibration", n)?,
            prior: thin_calibration.prior(),
        })
    }

    fn labelled<'a>(
        &'a self,
        matrix: &'a FeatureMatrix,
    ) -> impl Iterator<Item = (&'a NodeName, Label, usize)> {
        let rows = matrix.nodes.iter().enumerate();
        rows.filter(|(row, _)| matrix.missing_share(*row) <= self.missing_max)
            .filter_map(|(row, node)| Some((node, self.story.label(node, matrix.at)?, row)))
    }
}

impl Rows {
    fn end(mut self, slice: &'static str, columns: usize) -> Result<Lessons, LearnError> {
        self.values.shrink_to_fit();
        let (rows, labels) = (self.values.len() / columns.max(1), self.labels.len());
        match Array2::from_shape_vec((labels, columns), self.values) {
            Ok(values) => Ok(Lessons {
                slice: Slice {
                    values,
                    labels: self.labels,
                },
                nodes: self.nodes,
            }),
            Err(_) => Err(LearnError::Shape {
                slice,
                columns,
                rows,
                labels,
            }),
        }
    }
}

impl Lessons {
    /// Rows that are positive and negative.
    pub(super) fn kinds(&self) -> (u64, u64) {
        let positives = self.slice.positives() as u64;
        (positives, self.slice.labels.len() as u64 - positives)
    }

    /// The hand of each row's Node; of a Node in none that of nobody, so that no hand can be left out.
    pub(super) fn hands(&self, dealt: &[BTreeSet<NodeName>]) -> Vec<u8> {
        let hand = |node| {
            let at = dealt.iter().position(|hand| hand.contains(node));
            at.and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX)
        };
        self.nodes.iter().map(hand).collect()
    }
}

/// Whether a column is a summary of a whole Node.
pub(super) fn is_summary(column: &ColumnName) -> bool {
    matches!(column, ColumnName::Node(_))
}

/// The column of the largest deviation: what a model is held against.
pub(super) const LARGEST: ColumnName = ColumnName::Node(Summary::Largest);
