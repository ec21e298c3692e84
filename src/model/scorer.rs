//! Scoring: rows of column values in, log-odds, probability and reasons out.

use foreshock_core::risk::Risk;
use ndarray::ArrayView2;

use super::artifact::{Artifact, Calibration, Column, Source};
use super::bins::MISSING;
use super::explain::{Players, Walk, add_contributions};
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
    /// The feature; all columns derived from it count together.
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
    /// The calibrated log-odds of the usual row.
    pub base: f64,
    /// What each feature added, largest first (by size, then by name); features that added nothing
    /// are left out.
    pub contributions: Vec<Contribution>,
}

/// A model ready to score. Rows hold the values of [`Scorer::columns`] in that order; NaN and
/// everything else that is not finite is missing, and so are columns that a short row lacks.
pub trait Scorer: Send + Sync {
    /// Name and checksum, for decisions, metrics and pages.
    fn id(&self) -> &str;

    /// Where the model learned.
    fn source(&self) -> Source;

    /// The columns that the model takes, as the derivation stage names them.
    fn columns(&self) -> &[String];

    /// Scores every row.
    fn score(&self, rows: ArrayView2<'_, f64>) -> Vec<Score>;

    /// Explains one row against what the Node usually reads.
    ///
    /// Where `usual` is missing, the model's own healthy reference takes its place in the sum (and
    /// [`Contribution::usual`] stays `None`). A feature of which the row has nothing contributes
    /// nothing.
    fn explain(&self, row: &[f64], usual: &[f64]) -> Explanation;
}

/// Our own scorer for a checked model file.
#[derive(Clone, Debug)]
pub struct TreeScorer {
    id: String,
    source: Source,
    names: Vec<String>,
    columns: Vec<Column>,
    calibration: Calibration,
    trees: FlatTrees,
    players: Players,
}

impl TreeScorer {
    /// Prepares a checked model. Cannot fail: the check was the artifact's.
    pub fn new(artifact: &Artifact) -> Self {
        let content = artifact.content();
        let names: Vec<String> = content.columns.iter().map(|c| c.name.clone()).collect();
        Self {
            id: artifact.id(),
            source: content.source,
            players: Players::new(names.iter().map(String::as_str)),
            names,
            columns: content.columns.clone(),
            calibration: content.calibration,
            trees: FlatTrees::new(&content.gbdt),
        }
    }

    /// Bin numbers of one row.
    fn encode<'a>(&self, row: impl Iterator<Item = &'a f64>, codes: &mut Vec<u8>) {
        let mut row = row.copied();
        codes.extend(
            self.columns
                .iter()
                .map(|c| row.next().map_or(MISSING, |value| c.edges.code(value))),
        );
    }

    /// Calibrated log-odds of half a raw log-odds.
    fn calibrated(&self, half: f64) -> f64 {
        self.calibration.slope * 2.0 * half + self.calibration.intercept
    }

    fn score_of(&self, half: f32) -> Score {
        let log_odds = self.calibrated(f64::from(half));
        Score {
            log_odds,
            probability: probability(log_odds),
        }
    }

    fn half_of(&self, codes: &[u8]) -> f32 {
        let mut half = [0.0f32];
        self.trees.add(codes, self.columns.len(), &mut half);
        half[0]
    }

    /// The codes to explain against: usual values, the model's own where there are none, and
    /// missing for every feature of which the row has nothing.
    fn reference(&self, codes: &[u8], usual: &[f64]) -> Vec<u8> {
        let mut has_value = vec![false; self.players.names.len()];
        for (code, player) in codes.iter().zip(&self.players.of_column) {
            has_value[usize::from(*player)] |= *code != MISSING;
        }
        let columns = self.columns.iter().zip(&self.players.of_column).enumerate();
        columns
            .map(|(i, (column, player))| {
                let value = known(usual, i).or(column.usual);
                let there = has_value[usize::from(*player)];
                value
                    .filter(|_| there)
                    .map_or(MISSING, |v| column.edges.code(v))
            })
            .collect()
    }
}

/// The probability of a log-odds; the same on every platform.
pub fn probability(log_odds: f64) -> Risk {
    // The logistic function of any number is within 0 and 1; only NaN is refused, and the limits
    // of a model file keep every sum finite.
    Risk::new(1.0 / (1.0 + libm::exp(-log_odds))).unwrap_or(Risk::ZERO)
}

fn known(values: &[f64], i: usize) -> Option<f64> {
    values.get(i).copied().filter(|value| value.is_finite())
}

impl Scorer for TreeScorer {
    fn id(&self) -> &str {
        &self.id
    }

    fn source(&self) -> Source {
        self.source
    }

    fn columns(&self) -> &[String] {
        &self.names
    }

    fn score(&self, rows: ArrayView2<'_, f64>) -> Vec<Score> {
        let mut codes = Vec::with_capacity(rows.nrows() * self.columns.len());
        for row in rows.rows() {
            self.encode(row.iter(), &mut codes);
        }
        let mut halves = vec![0.0f32; rows.nrows()];
        self.trees.add(&codes, self.columns.len(), &mut halves);
        halves.into_iter().map(|half| self.score_of(half)).collect()
    }

    fn explain(&self, row: &[f64], usual: &[f64]) -> Explanation {
        let mut codes = Vec::with_capacity(self.columns.len());
        self.encode(row.iter(), &mut codes);
        let reference = self.reference(&codes, usual);
        let mut sums = vec![0.0; self.players.names.len()];
        let walk = &mut Walk::default();
        add_contributions(
            &self.trees,
            &self.players,
            &codes,
            &reference,
            walk,
            &mut sums,
        );

        let mut contributions: Vec<Contribution> = Vec::new();
        for (feature, half) in self.players.names.iter().zip(sums) {
            if half != 0.0 {
                let at = self.names.iter().position(|name| name == feature);
                contributions.push(Contribution {
                    feature: feature.clone(),
                    value: at.and_then(|at| known(row, at)),
                    usual: at.and_then(|at| known(usual, at)),
                    log_odds: self.calibration.slope * 2.0 * half,
                });
            }
        }
        contributions.sort_by(|a, b| {
            let by_size = b.log_odds.abs().total_cmp(&a.log_odds.abs());
            by_size.then_with(|| a.feature.cmp(&b.feature))
        });
        Explanation {
            log_odds: self.calibrated(f64::from(self.half_of(&codes))),
            base: self.calibrated(f64::from(self.half_of(&reference))),
            contributions,
        }
    }
}

#[cfg(test)]
mod tests;
