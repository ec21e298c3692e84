//! Our own learner on the same rows: the ways of `foreshock::model::choose`, and the service's scorer.

use foreshock::features::ModelMatrix;
use foreshock::model::artifact::{Artifact, Source};
use foreshock::model::bins::Cut;
use foreshock::model::boost::Settings;
use foreshock::model::choose::{Best, Way, learn_best};
use foreshock::model::learn::{ColumnPlan, LearnError, Mask, Plan, Slices};
use foreshock::model::scorer::{Scorer, TreeScorer};
use ndarray::Array2;

/// Seed of the row sampling: of all problems the same.
const SEED: u64 = 1;

/// A plan for columns that mean nothing to the service; in those of `rising` places the score may
/// only rise.
pub(crate) fn plan(n_columns: usize, masks: Vec<Mask>, rising: &[usize]) -> Plan {
    let column = |i| ColumnPlan {
        name: format!("c{i}"),
        rising: rising.contains(&i),
        meaning: "0000000000000000".to_owned(),
    };
    Plan {
        name: "learners".to_owned(),
        source: Source::Synthetic,
        columns: (0..n_columns).map(column).collect(),
        masks,
        // Each way has its own.
        cut: Cut {
            quantiles: 32,
            tails: true,
        },
        settings: Settings {
            seed: SEED,
            ..Settings::default()
        },
        horizon_seconds: 1_800,
        command: "tests/learners".to_owned(),
        nodes: 0,
        each_negative: 1.0,
    }
}

/// Learns from rows as the service would.
///
/// # Errors
///
/// [`LearnError`].
pub(crate) fn learn(
    slices: &Slices,
    masks: Vec<Mask>,
    rising: &[usize],
    ways: &[Way],
) -> Result<Best, LearnError> {
    let plan = plan(slices.train.values.ncols(), masks, rising);
    learn_best(&plan, ways, slices, |_, _| {})
}

/// Probabilities of rows that have the plan's columns, by the service's own scorer.
pub(crate) fn probabilities(model: &Artifact, values: &Array2<f64>) -> Vec<f64> {
    let scorer = TreeScorer::new(model);
    let name = |i| format!("c{i}").parse().expect("the name of a feature");
    let matrix = ModelMatrix {
        nodes: Vec::new(),
        columns: (0..values.ncols()).map(name).collect(),
        values: values.clone(),
    };
    let scores = scorer.score(&matrix);
    scores
        .iter()
        .map(|score| score.probability.as_f64())
        .collect()
}
