//! What the model says of every Node, and what it has earned.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::health::ModelJson;
use super::nodes::ContributionJson;
use super::{decimals, significant};
use crate::model::drift::FeatureDrift;
use crate::snapshot::{CardCosts, Drift, NodeView, Snapshot};
use crate::web::words::{BandWord, ReachWord, Time, UnitWord, seconds};

/// Score, band and contributions of every Node.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Predictions)]
pub(in crate::web) struct PredictionsJson {
    /// The time of the decision that is shown.
    at: Time,
    /// The time that the features were asked for.
    features_at: Option<Time>,
    /// The model in use.
    model: Option<ModelJson>,
    /// The Nodes, by name.
    predictions: Vec<PredictionJson>,
}

/// Score, band and contributions of one Node.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Prediction)]
struct PredictionJson {
    /// The Node.
    node: String,
    /// The model's word, a probability; `null` is unknown.
    score: Option<f64>,
    /// The larger of the model's word and the floors of its active alerts.
    risk: Option<f64>,
    /// How the risk reads.
    band: BandWord,
    /// What drives the model's word, the largest first.
    contributions: Vec<ContributionJson>,
}

impl PredictionsJson {
    pub(in crate::web) fn new(snapshot: &Snapshot) -> Self {
        let prediction = |node: &NodeView| PredictionJson {
            node: node.name().as_str().to_owned(),
            score: node.verdict.model_risk.map(|r| decimals(r.as_f64(), 4)),
            risk: node.verdict.risk.map(|risk| decimals(risk.as_f64(), 4)),
            band: BandWord(node.verdict.band),
            contributions: node
                .contributions
                .iter()
                .map(ContributionJson::new)
                .collect(),
        };
        Self {
            at: Time(snapshot.at),
            features_at: snapshot.matrix.as_ref().map(|matrix| Time(matrix.at)),
            model: snapshot.health.model.as_ref().map(ModelJson::new),
            predictions: snapshot.nodes.iter().map(prediction).collect(),
        }
    }
}

/// What is known about the model.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ModelCard)]
pub(in crate::web) struct ModelCardJson {
    /// Its name.
    name: String,
    /// Where it was learned: `synthetic`, `local`, `imported`.
    source: String,
    /// The furthest that it may cause.
    reach: ReachWord,
    /// Digest of the features that it was made for.
    schema: String,
    /// How far ahead it looks.
    horizon_seconds: f64,
    /// The command that made it.
    command: String,
    /// What it was trained on.
    training: TrainingJson,
    /// The features it reads, the most important first.
    features: Vec<CardFeatureJson>,
    /// How it did on rows that it had not seen.
    validation: BTreeMap<String, f64>,
    /// How often what it said came true.
    calibration: Vec<CalibrationJson>,
    /// How far the inputs of today are from those of the training; `null` where not measured.
    drift: Option<DriftJson>,
    /// Whether it may act, and what it has not earned.
    authority: AuthorityJson,
    /// What acting on it would have cost on the cluster's own history, by what an incident is worth.
    costs: Vec<CostsJson>,
    /// What the configured worth of an incident implies.
    threshold: ThresholdJson,
    /// How much of the Nodes' last week (604800 s) is remembered for columns that need it; `null` where the
    /// model has none.
    history_seconds: Option<f64>,
    /// What a reader has to know.
    notes: Vec<String>,
}

/// Whether a model may act, and what it has not earned.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Authority)]
struct AuthorityJson {
    /// It may cause more than a label.
    acts: bool,
    /// `model.act_untrained`: it may although it has not earned it.
    act_untrained: bool,
    /// What it has not earned, each with its remedy.
    refusals: Vec<RefusalJson>,
    /// The part of the history that it was judged on; `null` where it was not.
    judged: Option<JudgedJson>,
}

/// Why a model may not cause more than a label.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ModelRefusal)]
struct RefusalJson {
    /// The reason.
    reason: &'static str,
    /// The same in words, with the remedy.
    detail: String,
}

/// The part of the history that a model was judged on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Judged)]
struct JudgedJson {
    /// Its begin.
    from: Time,
    /// Its end.
    to: Time,
    /// Degradations that began in it.
    events: u64,
    /// Nodes that they befell.
    nodes: u64,
}

/// What acting would have cost where an incident is worth so much, in drains for each Node and day.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Costs)]
struct CostsJson {
    /// Drains that an incident is worth.
    incident_cost: f64,
    /// The probability above which acting pays there.
    threshold: f64,
    /// Acting on the model.
    model: f64,
    /// The same without the model.
    baselines: BTreeMap<&'static str, BaselineJson>,
}

/// What a way to do without the model would have cost.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BaselineCost)]
struct BaselineJson {
    /// In drains for each Node and day.
    cost: f64,
    /// Lower end of the 95 % interval of the model's cost less this one.
    low: f64,
    /// Upper end.
    high: f64,
}

/// What the configured worth of an incident implies.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ImpliedThreshold)]
struct ThresholdJson {
    /// `model.incident_cost`: drains that an incident is worth.
    incident_cost: f64,
    /// Share of it that a drain in time is taken to avert.
    efficacy: f64,
    /// The probability above which acting costs less than not acting: 1 ÷ (efficacy × incident_cost).
    implied: f64,
    /// `policy.at_risk`, which is what counts.
    at_risk: f64,
}

/// What a model was trained on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Training)]
struct TrainingJson {
    /// Begin of the history; `null` for simulated rows.
    from: Option<Time>,
    /// Its end.
    to: Option<Time>,
    /// Rows.
    rows: u64,
    /// Rows that were followed by a degradation.
    positives: u64,
}

/// One feature of a model.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CardFeature)]
struct CardFeatureJson {
    /// The feature.
    feature: String,
    /// Its unit.
    unit: UnitWord,
    /// Its share of what the model makes of all of them.
    importance: f64,
}

/// How often what a model said came true, for one bin of what it said.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CalibrationBin)]
struct CalibrationJson {
    /// Lower end of the bin.
    from: f64,
    /// Upper end.
    to: f64,
    /// Mean of what the model said.
    predicted: f64,
    /// Share that came true.
    observed: f64,
    /// Rows in the bin.
    rows: u64,
}

/// How far the inputs of today are from those of the training.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Drift)]
struct DriftJson {
    /// `ok`, `warn`, `alarm` (the model may cause no more than a label), or `unknown`.
    level: &'static str,
    /// The model file says what inputs and scores were; without that there is no index of anything.
    reference: bool,
    /// Population stability index of the score; `null` where it is not known, as at first.
    score: Option<f64>,
    /// That of each feature, less what a single day usually has.
    features: BTreeMap<String, Option<f64>>,
    /// Share of the Nodes for which it is missing, by feature.
    missing: BTreeMap<String, f64>,
    /// Share of the values that lie far outside of the training, by feature.
    out_of_range: BTreeMap<String, f64>,
    /// `model.drift_warn`.
    warn: f64,
    /// `model.drift_alarm`.
    alarm: f64,
    /// Hours of the last day that were measured.
    hours: usize,
    /// Rows that were counted: Nodes, again and again.
    rows: u64,
    /// Whether as many Nodes degrade as expected; `null` where that is not known.
    events: Option<OutcomesJson>,
}

/// Whether as many Nodes turned not Ready as the model expected.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Outcomes)]
struct OutcomesJson {
    /// How many it expected: the sum of its probabilities.
    expected: f64,
    /// How many did within the horizon.
    observed: u64,
    /// Lower end of the exact 95 % interval of the rate behind `observed`.
    low: f64,
    /// Upper end.
    high: f64,
    /// What was expected lies within it.
    agrees: bool,
    /// Over so long, of a week at most.
    seconds: f64,
}

impl DriftJson {
    fn new(drift: &Drift) -> Self {
        let features = || drift.measured.features.iter();
        let by_name = |share: fn(&FeatureDrift) -> f64| {
            features()
                .map(|one| (one.feature.as_str().to_owned(), decimals(share(one), 4)))
                .collect()
        };
        Self {
            level: drift.level(),
            reference: drift.measured.reference,
            score: drift.measured.score.map(|index| decimals(index, 4)),
            features: features()
                .map(|one| {
                    let index = one.index.map(|index| decimals(index, 4));
                    (one.feature.as_str().to_owned(), index)
                })
                .collect(),
            missing: by_name(|one| one.missing),
            out_of_range: by_name(|one| one.far_out),
            warn: drift.warn,
            alarm: drift.alarm,
            hours: drift.measured.hours,
            rows: drift.measured.rows,
            events: drift.outcomes.map(|outcomes| OutcomesJson {
                expected: decimals(outcomes.expected, 2),
                observed: outcomes.observed,
                low: decimals(outcomes.low, 2),
                high: decimals(outcomes.high, 2),
                agrees: outcomes.agrees(),
                seconds: seconds(outcomes.lasting),
            }),
        }
    }
}

impl ModelCardJson {
    pub(in crate::web) fn new(snapshot: &Snapshot) -> Option<Self> {
        let card = snapshot.model.as_ref()?;
        Some(Self {
            name: card.name.name.clone(),
            source: card.name.source.clone(),
            reach: ReachWord(card.name.reach),
            schema: card.name.schema.clone(),
            horizon_seconds: seconds(card.horizon),
            command: card.command.clone(),
            training: TrainingJson {
                from: card.window.map(|(from, _)| Time(from)),
                to: card.window.map(|(_, to)| Time(to)),
                rows: card.rows,
                positives: card.positives,
            },
            features: card
                .features
                .iter()
                .map(|feature| CardFeatureJson {
                    feature: feature.feature.as_str().to_owned(),
                    unit: UnitWord(feature.unit),
                    importance: decimals(feature.importance, 6),
                })
                .collect(),
            validation: card
                .validation
                .iter()
                .map(|(name, value)| (name.clone(), significant(*value)))
                .collect(),
            calibration: card
                .calibration
                .iter()
                .map(|bin| CalibrationJson {
                    from: bin.from,
                    to: bin.to,
                    predicted: decimals(bin.predicted, 4),
                    observed: decimals(bin.observed, 4),
                    rows: bin.rows,
                })
                .collect(),
            drift: card.drift.as_ref().map(DriftJson::new),
            authority: AuthorityJson {
                acts: card.authority.acts,
                act_untrained: card.authority.act_untrained,
                refusals: card
                    .authority
                    .refusals
                    .iter()
                    .map(|(reason, detail)| RefusalJson {
                        reason,
                        detail: detail.clone(),
                    })
                    .collect(),
                judged: card
                    .authority
                    .judged
                    .map(|(from, to, events, nodes)| JudgedJson {
                        from: Time(from),
                        to: Time(to),
                        events,
                        nodes,
                    }),
            },
            costs: card.costs.iter().map(CostsJson::new).collect(),
            threshold: ThresholdJson {
                incident_cost: significant(card.threshold.incident_cost),
                efficacy: card.threshold.efficacy,
                implied: decimals(card.threshold.implied, 4),
                at_risk: decimals(snapshot.policy.rules.at_risk.as_f64(), 4),
            },
            history_seconds: snapshot.counters.history.map(seconds),
            notes: card.notes.clone(),
        })
    }
}

impl CostsJson {
    fn new(costs: &CardCosts) -> Self {
        let baselines = costs.against.iter().map(|(name, cost, (low, high))| {
            let baseline = BaselineJson {
                cost: significant(*cost),
                low: significant(*low),
                high: significant(*high),
            };
            (*name, baseline)
        });
        Self {
            incident_cost: significant(costs.incident_cost),
            threshold: decimals(costs.threshold, 4),
            model: significant(costs.cost),
            baselines: baselines.collect(),
        }
    }
}
