//! From features to scores: derive the model's columns, score, explain.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use foreshock_core::decision::world::{Inputs, Score, ScoreUnknown};
use foreshock_core::node::NodeName;
use foreshock_core::record::NodeRecord;
use foreshock_core::risk::Risk;
use jiff::Timestamp;

use super::past::lock;
use crate::features::columns::unit_of;
use crate::features::identity::Refusal;
use crate::features::series::next_rows;
use crate::features::{
    ColumnName, FeatureMatrix, FeatureName, History, ModelMatrix, Summary, Telemetered, Usual,
};
use crate::model::range::out_of_range;
use crate::model::rule::rule_score;
use crate::model::scorer::{Explanation, Scorer};
use crate::snapshot::Contribution;

/// Everything that follows from the telemetry of one evaluation time.
#[derive(Clone, Debug)]
pub(super) struct Scored {
    pub(super) matrix: Arc<FeatureMatrix>,
    pub(super) usual: Arc<Usual>,
    pub(super) scores: BTreeMap<NodeName, Score>,
    pub(super) contributions: BTreeMap<NodeName, Vec<Contribution>>,
    pub(super) missing: BTreeMap<NodeName, f64>,
    /// The rule score, beside the model's.
    pub(super) rules: BTreeMap<NodeName, Risk>,
    pub(super) instances: BTreeMap<String, NodeName>,
    /// What is wrong with the telemetry, for health: whatever could mislead.
    pub(super) problems: Vec<String>,
    /// The model's own columns, until somebody has counted them.
    pub(super) derived: Option<ModelMatrix>,
    pub(super) columns_failed: usize,
    /// How much history there is; `None` where no column needs one.
    pub(super) history: Option<Duration>,
    pub(super) targets_refused: usize,
}

/// Scores every Node of the matrix. Takes milliseconds for thousands of Nodes: not for the event loop.
///
/// # Errors
///
/// In words, if the model needs features that the schema does not have.
pub(super) fn score(
    scorer: &dyn Scorer,
    telemetered: Telemetered,
    missing_max: f64,
    history: &Mutex<History>,
) -> Result<Scored, String> {
    let Telemetered {
        matrix,
        columns,
        identity,
        problems,
    } = telemetered;
    let whole = columns.iter().all(|column| column.problem.is_none()) && problems.is_empty();
    let (model, usual, extent) = {
        let mut history = lock(history);
        let model = next_rows(scorer.columns(), &matrix, whole, &mut history)
            .map_err(|error| error.to_string())?;
        let usual = Usual::of(&matrix).or_own(&matrix, &history);
        let extent = history.is_wanted().then(|| history.extent());
        (model, usual, extent)
    };
    let scores = scorer.score(&model);
    let report = identity.report();
    let ambiguous: Vec<&NodeName> = report
        .refused
        .iter()
        .filter_map(|refusal| match refusal {
            Refusal::SeveralInstances { node, .. } => Some(node),
            Refusal::SharedInstance { .. }
            | Refusal::SeveralNodes { .. }
            | Refusal::OlderThanNode { .. } => None,
        })
        .collect();

    let model_id: Arc<str> = scorer.id().into();
    let mut all = BTreeMap::new();
    let mut contributions = BTreeMap::new();
    let mut missing = BTreeMap::new();
    let mut rules = BTreeMap::new();
    for (row, (node, score)) in matrix.nodes.iter().zip(&scores).enumerate() {
        let share = matrix.missing_share(row);
        missing.insert(node.clone(), share);
        if let Some(rule) = rule_score(|feature| matrix.value_of(row, feature)) {
            rules.insert(node.clone(), rule);
        }
        let scraped = matrix.scraped_at.get(row).copied().flatten().is_some();
        let unknown = if ambiguous.contains(&node) {
            Some(ScoreUnknown::Ambiguous)
        } else if !scraped {
            Some(ScoreUnknown::NoScrape)
        } else if share > missing_max {
            Some(ScoreUnknown::FeaturesMissing)
        } else {
            None
        };
        let mut reasons = Vec::new();
        if unknown.is_none() {
            let value = |feature: &FeatureName| {
                usual.value(row, matrix.schema.column_of(feature.as_str())?)
            };
            if let Some(explanation) = scorer.explain(&model, row, &value) {
                let shown = shown(&matrix, explanation);
                reasons = words(&shown);
                contributions.insert(node.clone(), shown);
            }
        }
        let target = identity.fresh(node);
        let risk = unknown.map_or(Ok(score.probability), Err);
        all.insert(
            node.clone(),
            Score {
                risk,
                at: matrix.at,
                reasons,
                inputs: Inputs {
                    model: Arc::clone(&model_id),
                    exporter: target.and_then(|target| target.exporter.clone()),
                    job: target.and_then(|target| target.job.clone()),
                },
                out_of_range: out_of_range(scorer, &model, &matrix, row),
            },
        );
    }

    let failed = columns.iter().filter(|column| column.problem.is_some());
    let mut said: Vec<String> = problems;
    said.extend(failed.clone().filter_map(|column| {
        Some(format!(
            "feature {} could not be had: {}",
            column.feature,
            column.problem.as_ref()?
        ))
    }));
    said.extend(report.refused.iter().map(ToString::to_string));
    Ok(Scored {
        usual: Arc::new(usual),
        scores: all,
        contributions,
        missing,
        rules,
        instances: identity.instances(),
        derived: Some(model),
        columns_failed: failed.count(),
        history: extent,
        targets_refused: report.refused.len(),
        problems: said,
        matrix: Arc::new(matrix),
    })
}

impl Scored {
    pub(super) fn at(&self) -> Timestamp {
        self.matrix.at
    }
}

fn shown(matrix: &FeatureMatrix, explanation: Explanation) -> Vec<Contribution> {
    explanation
        .contributions
        .into_iter()
        .filter_map(|contribution| {
            let unit = unit_of(&matrix.schema, &contribution.feature)?;
            Some(Contribution {
                feature: contribution.feature.as_str().into(),
                value: contribution.value,
                usual: contribution.usual,
                unit,
                contribution: contribution.log_odds,
            })
        })
        .collect()
}

/// What raises the risk, strongest first: `disk_await_write 84 ms (usually 3 ms)`.
fn words(contributions: &[Contribution]) -> Vec<String> {
    contributions
        .iter()
        .filter(|contribution| contribution.contribution > 0.0)
        .take(NodeRecord::REASONS_MAX)
        .map(|contribution| {
            let value = contribution.value.map_or_else(
                || "missing".to_owned(),
                |value| contribution.unit.describe(value),
            );
            let usual = contribution
                .usual
                .map(|usual| format!(" (usually {})", contribution.unit.describe(usual)));
            let name = contribution.feature.as_str();
            let name = match Summary::named(name) {
                Some(summary) => summary.words(),
                None => name,
            };
            format!("{name} {value}{}", usual.unwrap_or_default())
        })
        .collect()
}

/// The features that a model's columns are made of.
pub(super) fn features_of(columns: &[ColumnName]) -> Vec<FeatureName> {
    let features = columns.iter().filter_map(ColumnName::feature);
    let mut features: Vec<FeatureName> = features.cloned().collect();
    features.sort();
    features.dedup();
    features
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::{IdentityMap, Schema};
    use crate::model::built_in::built_in;
    use crate::model::scorer::TreeScorer;

    /// The Node `a` was scraped; of every required feature but the first so many nothing came.
    fn told(required: usize) -> Telemetered {
        let at = Timestamp::from_second(1_790_000_000).unwrap();
        let schema = Arc::new(Schema::built_in());
        let mut matrix = FeatureMatrix::missing(at, Arc::clone(&schema), vec!["a".into()]);
        matrix.scraped_at[0] = Some(at);
        let columns = schema.features().iter().enumerate();
        for (column, _) in columns.filter(|(_, f)| !f.optional).take(required) {
            matrix.values[(0, column)] = 0.0;
        }
        Telemetered {
            matrix,
            columns: Vec::new(),
            identity: IdentityMap::default(),
            problems: Vec::new(),
        }
    }

    #[test]
    fn a_node_of_which_nothing_or_too_little_is_known_is_unknown_whatever_the_model_says() {
        let scorer = TreeScorer::new(&built_in().unwrap());
        let required = Schema::built_in()
            .features()
            .iter()
            .filter(|feature| !feature.optional)
            .count();
        for (known, unknown) in [(0, true), (required / 2, true), (required, false)] {
            let scored = score(&scorer, told(known), 0.3, &Mutex::default()).unwrap();
            let risk = &scored.scores["a"].risk;
            assert_eq!(
                risk.as_ref().err(),
                unknown.then_some(&ScoreUnknown::FeaturesMissing),
                "{known} of {required}"
            );
        }
    }
}
