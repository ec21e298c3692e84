//! Scoring: rows of column values in, log-odds, probability and reasons out.

use foreshock_core::risk::Risk;
use ndarray::ArrayView1;

use crate::features::{ColumnName, FeatureName, ModelMatrix};

use super::artifact::{Artifact, Calibration, Column, Gap, Source, calibration_of};
use super::bins::MISSING;
use super::explain::{Players, compare};
use super::range::Range;
use super::trees::FlatTrees;

/// What a model says about one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Calibrated log-odds; explanations add up to this.
    pub log_odds: f64,
    /// The same as a probability.
    pub probability: Risk,
}

/// What one metric added to a score.
#[derive(Clone, Debug, PartialEq)]
pub struct Contribution {
    /// The feature; all columns derived from it count together. A summary of the whole Node counts by
    /// itself, and here is the name of its column.
    pub feature: String,
    /// What the Node reads now, in the feature's unit; `None` if missing, or if the model only has
    /// columns derived from the feature.
    pub value: Option<f64>,
    /// What it usually reads; `None` if the caller does not know.
    pub usual: Option<f64>,
    /// What it added to the log-odds, compared with the usual row.
    pub log_odds: f64,
}

/// A score and its reasons: `base + Σ contributions = log_odds`.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The calibrated log-odds of the row.
    pub log_odds: f64,
    /// The log-odds of the usual row, calibrated as the row itself is.
    pub base: f64,
    /// What each feature added, largest first (by size, then by name); features that added nothing
    /// are left out.
    pub contributions: Vec<Contribution>,
}

/// A model ready to score.
///
/// Rows are matched by column name; a column that the matrix lacks is missing, and so is every
/// value that is not finite.
pub trait Scorer: Send + Sync {
    /// Name and checksum, for decisions, metrics and pages.
    fn id(&self) -> &str;

    /// Where the model learned.
    fn source(&self) -> Source;

    /// The columns that the model takes: what [`derive()`](crate::features::derive()) is to make.
    fn columns(&self) -> &[ColumnName];

    /// The outermost training values of a column, by its place in [`Self::columns`]; `None` where
    /// nobody knows them.
    fn range(&self, _column: usize) -> Option<Range> {
        None
    }

    /// Scores every row.
    fn score(&self, matrix: &ModelMatrix) -> Vec<Score>;

    /// Explains one row against what the Node usually reads; `None` if there is no such row.
    ///
    /// `usual` gives a feature's usual value, in its unit. Where it has none, the model's own
    /// healthy reference takes its place in the sum, and [`Contribution::usual`] stays `None`. A
    /// feature of which the row has nothing contributes nothing.
    fn explain(
        &self,
        matrix: &ModelMatrix,
        row: usize,
        usual: &dyn Fn(&FeatureName) -> Option<f64>,
    ) -> Option<Explanation>;
}

/// Our own scorer for a checked model file.
#[derive(Clone, Debug)]
pub struct TreeScorer {
    id: String,
    source: Source,
    names: Vec<ColumnName>,
    columns: Vec<Column>,
    calibration: Calibration,
    gaps: Vec<Gap>,
    trees: FlatTrees,
    players: Players,
    /// One per player.
    subjects: Vec<Subject>,
}

/// What columns count together for.
#[derive(Clone, Debug)]
struct Subject {
    /// Its feature; of a summary of the whole Node, the name of its column.
    name: FeatureName,
    /// The column that reads it as it is, if the model has it.
    now: Option<usize>,
}

impl TreeScorer {
    /// Prepares a checked model. Cannot fail: the check was the artifact's.
    pub fn new(artifact: &Artifact) -> Self {
        let content = artifact.content();
        let players = Players::new(content.columns.iter().map(|c| c.name.as_str()));
        // The validator has parsed every name; one that does not parse would read as missing.
        let parsed = content.columns.iter().filter_map(|c| c.name.parse().ok());
        let names: Vec<ColumnName> = parsed.collect();
        let subject = |subject: &String| Subject {
            name: FeatureName::from(subject.as_str()),
            now: names.iter().position(|column| {
                let says = matches!(column, ColumnName::Now(_) | ColumnName::Node(_));
                says && column.subject() == subject
            }),
        };
        Self {
            id: artifact.id(),
            source: content.source,
            subjects: players.names.iter().map(subject).collect(),
            names,
            columns: content.columns.clone(),
            calibration: content.calibration,
            gaps: content.gaps.clone(),
            trees: FlatTrees::new(&content.gbdt),
            players,
        }
    }

    /// Where each of the model's columns is in a matrix.
    fn places(&self, matrix: &ModelMatrix) -> Vec<Option<usize>> {
        if matrix.columns == self.names {
            return (0..self.names.len()).map(Some).collect();
        }
        let place = |name| matrix.columns.iter().position(|column| column == name);
        self.names.iter().map(place).collect()
    }

    /// Bin numbers of one row.
    fn encode(&self, row: ArrayView1<'_, f64>, places: &[Option<usize>], codes: &mut Vec<u8>) {
        codes.extend(self.columns.iter().enumerate().map(|(i, column)| {
            let place = places.get(i).copied().flatten();
            place
                .and_then(|at| row.get(at))
                .map_or(MISSING, |value| column.edges.code(*value))
        }));
    }

    /// The codes to explain against: usual values (one per subject), the model's own where there are none,
    /// and missing for every feature of which the row has nothing.
    fn reference(&self, codes: &[u8], usual: &[Option<f64>]) -> Vec<u8> {
        let mut has_value = vec![false; self.subjects.len()];
        for (code, player) in codes.iter().zip(&self.players.of_column) {
            has_value[usize::from(*player)] |= *code != MISSING;
        }
        let columns = self
            .columns
            .iter()
            .zip(&self.names)
            .zip(&self.players.of_column);
        columns
            .map(|((column, name), player)| {
                let player = usize::from(*player);
                let value = usual_of(name, usual[player]).or(column.usual);
                value
                    .filter(|_| has_value[player])
                    .map_or(MISSING, |v| column.edges.code(v))
            })
            .collect()
    }
}

/// What a column usually reads where its feature reads as usual.
fn usual_of(column: &ColumnName, usual: Option<f64>) -> Option<f64> {
    match column {
        ColumnName::Now(_) => usual,
        // Then it does not deviate.
        ColumnName::Peers(_) => usual.map(|_| 0.0),
        // Usually it stays as it is, and reads what its own week reads.
        ColumnName::Change(..) | ColumnName::Week(_) => Some(0.0),
        // That is the model's to say.
        ColumnName::Spread(_) | ColumnName::Node(_) => None,
    }
}

/// The probability of a log-odds; the same on every platform.
pub fn probability(log_odds: f64) -> Risk {
    // The logistic function of any number is within 0 and 1; only NaN is refused, and the limits
    // of a model file keep every sum finite.
    Risk::new(1.0 / (1.0 + libm::exp(-log_odds))).unwrap_or(Risk::ZERO)
}

impl Scorer for TreeScorer {
    fn id(&self) -> &str {
        &self.id
    }

    fn source(&self) -> Source {
        self.source
    }

    fn columns(&self) -> &[ColumnName] {
        &self.names
    }

    fn range(&self, column: usize) -> Option<Range> {
        Range::of(&self.columns.get(column)?.edges)
    }

    fn score(&self, matrix: &ModelMatrix) -> Vec<Score> {
        let places = self.places(matrix);
        let n_rows = matrix.values.nrows();
        let mut codes = Vec::with_capacity(n_rows * self.columns.len());
        for row in matrix.values.rows() {
            self.encode(row, &places, &mut codes);
        }
        let mut halves = vec![0.0f32; n_rows];
        self.trees.add(&codes, self.columns.len(), &mut halves);
        let rows = codes.chunks_exact(self.columns.len().max(1));
        let scores = halves.into_iter().zip(rows);
        scores
            .map(|(half, codes)| {
                let calibration = calibration_of(self.calibration, &self.gaps, codes);
                let log_odds = calibration.of(f64::from(half));
                Score {
                    log_odds,
                    probability: probability(log_odds),
                }
            })
            .collect()
    }

    fn explain(
        &self,
        matrix: &ModelMatrix,
        row: usize,
        usual: &dyn Fn(&FeatureName) -> Option<f64>,
    ) -> Option<Explanation> {
        if row >= matrix.values.nrows() {
            return None;
        }
        let places = self.places(matrix);
        let mut codes = Vec::with_capacity(self.columns.len());
        self.encode(matrix.values.row(row), &places, &mut codes);
        let usual: Vec<Option<f64>> = self
            .subjects
            .iter()
            .map(|subject| usual(&subject.name).filter(|value| value.is_finite()))
            .collect();
        let reference = self.reference(&codes, &usual);
        let calibration = calibration_of(self.calibration, &self.gaps, &codes);
        let compared = compare(&self.trees, &self.players, &codes, &reference);

        let subjects = self.subjects.iter().zip(usual).zip(compared.added);
        let mut contributions: Vec<Contribution> = subjects
            .filter(|(_, half)| *half != 0.0)
            .map(|((subject, usual), half)| {
                let place = subject
                    .now
                    .and_then(|now| places.get(now).copied().flatten());
                let value = place.and_then(|at| matrix.values.get((row, at))).copied();
                Contribution {
                    feature: subject.name.to_string(),
                    value: value.filter(|value| value.is_finite()),
                    usual,
                    log_odds: calibration.slope * 2.0 * half,
                }
            })
            .collect();
        contributions.sort_by(|a, b| {
            let by_size = b.log_odds.abs().total_cmp(&a.log_odds.abs());
            by_size.then_with(|| a.feature.cmp(&b.feature))
        });
        Some(Explanation {
            log_odds: calibration.of(f64::from(compared.row)),
            base: calibration.of(f64::from(compared.reference)),
            contributions,
        })
    }
}

#[cfg(test)]
mod tests;
