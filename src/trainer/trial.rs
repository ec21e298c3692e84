//! How a model does on the parts of the history that it has not learned from: another pass over the features.

use std::collections::{BTreeMap, BTreeSet};

use foreshock_core::node::NodeName;
use jiff::Timestamp;
use ndarray::ArrayView1;

use super::collect::Fetched;
use super::rows::LARGEST;
use super::story::Story;
use super::{Progress, Step, TrainError};
use crate::features::series::next_rows;
use crate::features::{FeatureMatrix, History, ModelMatrix, Schema};
use crate::model::artifact::{Artifact, Column};
use crate::model::bins::MISSING;
use crate::model::drift::{Reference, Referring};
use crate::model::local::Baseline;
use crate::model::rule::rule_score;
use crate::model::scorer::{Scorer, TreeScorer};
use crate::train::judge::Scores;
use crate::train::judge::trial::Trial;
use crate::train::labels::Rules;
use crate::train::report::Effect;
use crate::train::sample::{Cut, Part, lot};

/// Rows that are judged: about 200 bytes each. Where there are more, Nodes are drawn by lot, all rows of a Node or none.
const ROWS_MAX: u64 = 2_000_000;
/// Rows that the effects of the features are worked out on.
const EXPLAINED: u64 = 3_000;
/// Points of a feature's curve.
const CURVE: usize = 24;

/// A model that has not seen some Nodes.
pub(super) struct Blind {
    pub(super) left_out: BTreeSet<NodeName>,
    pub(super) model: Artifact,
}

/// One part of the history, with what each had to say of it.
pub(super) struct Judged {
    pub(super) trial: Trial,
    pub(super) scores: Scores,
    /// The same with the word of models that had not seen the Node, where there are such models.
    pub(super) unseen: Option<Scores>,
}

/// What comes of the pass.
pub(super) struct Tried {
    pub(super) calibration: Judged,
    pub(super) test: Judged,
    pub(super) reference: Option<Reference>,
    pub(super) effects: Vec<Effect>,
    /// Nodes that were drawn, of so many; `None` where all were.
    pub(super) drawn: Option<(u64, u64)>,
}

/// How the pass is made.
pub(super) struct Trying<'a> {
    pub(super) story: &'a Story,
    pub(super) cut: &'a Cut,
    pub(super) rules: &'a Rules,
    pub(super) missing_max: f64,
    pub(super) seed: u64,
    /// Nodes that have rows.
    pub(super) nodes: &'a BTreeSet<NodeName>,
}

/// What is said of one Node at one time, of each a number where there is one.
#[derive(Clone, Copy, Default)]
struct Said {
    model: f64,
    unseen: f64,
    rule: f64,
    largest: f64,
    alerting: bool,
}

type Told = BTreeMap<NodeName, (Vec<Timestamp>, Vec<Said>)>;

impl Trying<'_> {
    /// Scores the history as the service would have.
    pub(super) fn run(
        &self,
        fetched: &Fetched,
        model: &Artifact,
        blind: &[Blind],
        progress: &dyn Progress,
    ) -> Result<Tried, TrainError> {
        let scorer = TreeScorer::new(model);
        let blind: Vec<(&BTreeSet<NodeName>, TreeScorer)> = blind
            .iter()
            .map(|one| (&one.left_out, TreeScorer::new(&one.model)))
            .collect();
        let mut columns = scorer.columns().to_vec();
        for more in blind
            .iter()
            .flat_map(|(_, s)| s.columns())
            .chain([&LARGEST])
        {
            if !columns.contains(more) {
                columns.push(more.clone());
            }
        }
        let (judged, lot) = self.judged_nodes(fetched);
        let mut told = [Told::new(), Told::new()];
        let mut referring = Referring::new(&model.content().columns);
        let mut effects = Effects::of(self.cut, fetched, judged.len());
        let mut history = History::default();
        let mut codes = Vec::new();
        for (done, matrix) in (0..).zip(fetched.matrices()) {
            progress.at(Step::Judging, done, fetched.points());
            let matrix = matrix?;
            let rows = next_rows(&columns, &matrix, true, &mut history)?;
            let scores = scorer.score(&rows);
            let unseen: Vec<_> = blind.iter().map(|(_, s)| s.score(&rows)).collect();
            let largest = columns.iter().position(|column| *column == LARGEST);
            let part = self.cut.part_of(matrix.at);
            let later = match part {
                Some(Part::Calibration) => Some(0),
                Some(Part::Test) => Some(1),
                Some(Part::Train | Part::Validation) | None => None,
            };
            for (row, node) in matrix.nodes.iter().enumerate() {
                if !self.nodes.contains(node) {
                    continue;
                }
                let known = matrix.missing_share(row) <= self.missing_max;
                let of = |scores: &[crate::model::scorer::Score]| {
                    let score = scores.get(row).filter(|_| known);
                    score.map_or(f64::NAN, |score| score.probability.as_f64())
                };
                let says = of(&scores);
                if known {
                    encode(&model.content().columns, rows.values.row(row), &mut codes);
                    referring.add(matrix.at, &codes, later.map(|_| says));
                }
                let Some(later) = later.filter(|_| judged.contains(node)) else {
                    continue;
                };
                if later == 1 && known {
                    effects.look(&scorer, &matrix, &rows, row);
                }
                let blind = blind.iter().zip(&unseen);
                let mut blind = blind.filter(|((left_out, _), _)| left_out.contains(node));
                let said = Said {
                    model: says,
                    unseen: blind.next().map_or(f64::NAN, |(_, scores)| of(scores)),
                    rule: rule_score(|feature| matrix.value_of(row, feature))
                        .map_or(f64::NAN, |risk| risk.as_f64()),
                    largest: largest
                        .and_then(|at| rows.values.get((row, at)).copied())
                        .unwrap_or(f64::NAN),
                    alerting: self.story.alerting(node, matrix.at),
                };
                let (times, all) = told[later].entry(node.clone()).or_default();
                times.push(matrix.at);
                all.push(said);
            }
        }
        progress.at(Step::Judging, fetched.points(), fetched.points());
        let [calibration, test] = told.map(|told| self.judged(told, !blind.is_empty()));
        Ok(Tried {
            calibration,
            test,
            reference: referring.end(),
            effects: effects.end(fetched.schema()),
            drawn: lot,
        })
    }

    /// The Nodes that are judged, and how many of how many where it is not all.
    fn judged_nodes(&self, fetched: &Fetched) -> (BTreeSet<NodeName>, Option<(u64, u64)>) {
        let all = self.nodes.len() as u64;
        // Calibration and test are three eighths of the history.
        let most = ROWS_MAX / (fetched.points() * 3 / 8).max(1);
        if all <= most {
            return (self.nodes.clone(), None);
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let drawn = lot(self.nodes, most, self.seed);
        let n = drawn.len() as u64;
        (drawn, Some((n, all)))
    }

    fn judged(&self, told: Told, has_unseen: bool) -> Judged {
        let mut trial = Trial::new(crate::features::history::GRID, self.rules);
        let mut kept: Vec<Said> = Vec::new();
        for (node, (times, said)) in told {
            let Some(timeline) = self.story.timeline(&node) else {
                continue;
            };
            let places = trial.add(node, timeline, &times);
            kept.extend(
                places
                    .into_iter()
                    .filter_map(|place| said.get(place).copied()),
            );
        }
        let of = |what: fn(&Said) -> f64| kept.iter().map(what).collect::<Vec<f64>>();
        let baselines = BTreeMap::from([
            (Baseline::StaticThresholds, of(|said| said.rule)),
            (Baseline::LargestDeviation, of(|said| said.largest)),
            (
                Baseline::PendingAlerts,
                of(|said| if said.alerting { 1.0 } else { 0.0 }),
            ),
        ]);
        let unseen = has_unseen.then(|| Scores {
            model: of(|said| said.unseen),
            baselines: baselines.clone(),
        });
        Judged {
            trial,
            unseen,
            scores: Scores {
                model: of(|said| said.model),
                baselines,
            },
        }
    }
}

fn encode(columns: &[Column], row: ArrayView1<'_, f64>, codes: &mut Vec<u8>) {
    // The model's columns are the first ones of the row.
    codes.clear();
    let values = row.iter().map(Some).chain(std::iter::repeat(None));
    codes.extend(
        columns
            .iter()
            .zip(values)
            .map(|(column, value)| value.map_or(MISSING, |value| column.edges.code(*value))),
    );
}

/// What the features do to the score, on rows of the test part.
struct Effects {
    every: u64,
    seen: u64,
    explained: u64,
    /// Sum of the sizes of each subject's contributions, and pairs of its value and contribution.
    of: BTreeMap<String, (f64, Vec<(f64, f64)>)>,
}

impl Effects {
    fn of(cut: &Cut, fetched: &Fetched, n_nodes: usize) -> Self {
        let test =
            cut.span(Part::Test).lasts().as_secs() / crate::features::history::GRID.as_secs();
        let rows = test.min(fetched.points()) * n_nodes as u64;
        Self {
            every: rows.div_ceil(EXPLAINED).max(1),
            seen: 0,
            explained: 0,
            of: BTreeMap::new(),
        }
    }

    fn look(
        &mut self,
        scorer: &TreeScorer,
        matrix: &FeatureMatrix,
        rows: &ModelMatrix,
        row: usize,
    ) {
        self.seen += 1;
        if !self.seen.is_multiple_of(self.every) {
            return;
        }
        let Some(explanation) = scorer.explain(rows, row, &|_| None) else {
            return;
        };
        self.explained += 1;
        for one in explanation.contributions {
            let value = one.value.or_else(|| matrix.value_of(row, &one.feature));
            let of = self.of.entry(one.feature).or_default();
            of.0 += one.log_odds.abs();
            of.1.extend(value.map(|value| (value, one.log_odds)));
        }
    }

    fn end(self, schema: &Schema) -> Vec<Effect> {
        let n = self.explained.max(1) as f64;
        let effects = self.of.into_iter().map(|(feature, (sum, mut pairs))| {
            pairs.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
            let each = pairs.len().div_ceil(CURVE).max(1);
            // Where one value is most of them, a point for it is enough.
            let mut curve: Vec<(f64, f64)> = Vec::new();
            for some in pairs.chunks(each) {
                let value = some[some.len() / 2].0;
                let mean = some.iter().map(|(_, y)| y).sum::<f64>() / some.len() as f64;
                match curve.last_mut() {
                    Some(last) if last.0 == value => last.1 = f64::midpoint(last.1, mean),
                    _ => curve.push((value, mean)),
                }
            }
            let unit = crate::features::columns::unit_of(schema, &feature);
            Effect {
                unit: unit.map_or_else(String::new, |unit| unit.as_str().to_owned()),
                mean: sum / n,
                curve,
                feature,
            }
        });
        effects.collect()
    }
}
