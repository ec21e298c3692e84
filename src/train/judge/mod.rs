//! How good a model is beside doing without it, in the currency of whoever is woken at night: drains and
//! incidents.
//!
//! A drain costs 1, whether it was needed or not. An incident costs so many drains; one that finds its Node
//! empty costs what a drain does not avert of it. The model acts at the threshold that this implies; the
//! scores it is held against are given the threshold that would have been the best on an earlier part of the
//! history, and the right never to act. So nothing is picked on the rows that are judged.

pub mod bootstrap;
pub mod trial;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::artifact::Validation;
pub use crate::model::authority::{EFFICACY, threshold};
pub use crate::model::local::Baseline;
use crate::model::measure::{self, PrecisionRecall};
use crate::model::reliability::{Bin, reliability};

use self::bootstrap::Difference;
use self::trial::{Manner, Outcome, Trial, act};

/// What an incident is worth, in drains: judged at each of these and at what the operator says. No further
/// than twice from one to the next, so that a cost that is changed later lies near two that were judged.
pub const INCIDENT_COSTS: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
/// Thresholds that are tried when one is to be found for a score that is no probability.
const TRIED_MAX: usize = 60;
/// Points of a curve that is drawn.
const CURVE_MAX: usize = 300;
/// Days of the month in "needless drains for each Node and month".
const MONTH: f64 = 30.0;

/// Scores of a trial's rows, one each in the order of [`Trial::rows`]; not a number where there is none.
#[derive(Clone, Debug, Default)]
pub struct Scores {
    /// The model's calibrated probability.
    pub model: Vec<f64>,
    /// What each baseline says; one that is not here says nothing, so that it never acts.
    pub baselines: BTreeMap<Baseline, Vec<f64>>,
}

/// What is judged, and how.
#[derive(Clone, Debug)]
pub struct Terms {
    /// How one acts on a score.
    pub manner: Manner,
    /// Drains that an incident is worth to the operator (`model.incident_cost`).
    pub incident_cost: f64,
    /// `policy.at_risk`.
    pub at_risk: f64,
    /// Seed of the bootstrap.
    pub seed: u64,
}

/// Why nothing can be judged.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum JudgeError {
    /// A score for each row is needed.
    #[error("{scores} scores of `{whose}` for {rows} rows of the {part} part")]
    Shape {
        /// Whose.
        whose: &'static str,
        /// Which part.
        part: &'static str,
        /// How many.
        scores: usize,
        /// How many there should be.
        rows: usize,
    },
    /// The model's scores are probabilities.
    #[error("the model says {0}, which is no probability")]
    NotAProbability(f64),
    /// A cost that makes no sense.
    #[error("an incident cannot be worth {0} drains; say a number from 0.01 to 1000000")]
    Cost(f64),
    /// There is nothing to be right about.
    #[error(
        "no incident of the test part has rows before it, so nothing can be judged; train on a longer history"
    )]
    NoIncidents,
}

/// What acting comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// The threshold; infinite for never acting.
    pub threshold: f64,
    /// Share of the incidents that found their Node empty.
    pub recall: f64,
    /// Incidents that did not.
    pub missed: u64,
    /// Drains in all.
    pub drains: u64,
    /// Needless ones for each Node and month of 30 days.
    pub needless_per_node_month: f64,
    /// Alarms in which nothing happened, for each Node and day.
    pub false_episodes_per_node_day: f64,
    /// Median of how long before the incident the Node was drained; `None` if nothing was foretold.
    pub lead_median: Option<Duration>,
    /// Nine of ten were drained at least so long before.
    pub lead_p10: Option<Duration>,
    /// Cost of drains and incidents, in drains for each Node and day.
    pub cost: f64,
}

/// A baseline beside the model at one cost of an incident.
#[derive(Clone, Debug, PartialEq)]
pub struct Beside {
    /// Which.
    pub baseline: Baseline,
    /// What acting by it comes to.
    pub figures: Figures,
    /// Lower end of the 95 % interval of the model's cost less this one: above 0 the model loses, and nothing
    /// else explains it. In drains for each Node and day.
    pub low: f64,
    /// Its upper end: below 0 the model wins.
    pub high: f64,
}

/// The judgement at one cost of an incident.
#[derive(Clone, Debug, PartialEq)]
pub struct AtCost {
    /// Drains that an incident is worth.
    pub incident_cost: f64,
    /// The model at the threshold that this implies.
    pub model: Figures,
    /// The model at `policy.at_risk`.
    pub at_risk: Figures,
    /// Each baseline.
    pub beside: Vec<Beside>,
}

impl AtCost {
    /// The baselines that do not cost more than the model, or that the model costs more than beyond chance.
    pub fn lost_to(&self) -> impl Iterator<Item = &Beside> {
        let model = self.model.cost;
        self.beside
            .iter()
            .filter(move |one| model >= one.figures.cost || one.low > 0.0)
    }
}

/// What the model comes to at one threshold, whatever an incident costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ByThreshold {
    /// The threshold, a probability.
    pub threshold: f64,
    /// Drains in all.
    pub drains: u64,
    /// Incidents that found their Node empty.
    pub foretold: u64,
    /// Incidents that did not.
    pub missed: u64,
}

/// How good a model is.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// Incidents that were judged.
    pub incidents: u64,
    /// Those without a row before them, so that nobody could have foretold them; not judged.
    pub unjudged: u64,
    /// Nodes that were watched.
    pub nodes: u64,
    /// Nodes that incidents befell.
    pub nodes_befallen: u64,
    /// How long they were watched, together, in days.
    pub node_days: f64,
    /// Rows that the model has no score for.
    pub unscored: u64,
    /// The model row by row.
    pub rows: Validation,
    /// Area under the precision-recall curve of each baseline but never acting.
    pub pr_auc: BTreeMap<Baseline, f64>,
    /// The model's precision-recall curve, at most a few hundred points.
    pub curve: Vec<PrecisionRecall>,
    /// How often what the model said came true: ten bins, intervals at 95 %.
    pub reliability: Vec<Bin>,
    /// The operator's cost of an incident.
    pub incident_cost: f64,
    /// The threshold that it implies.
    pub threshold: f64,
    /// `policy.at_risk`.
    pub at_risk: f64,
    /// The figures at each cost of an incident, the least first; the operator's is among them.
    pub costs: Vec<AtCost>,
    /// The model by threshold, the least first.
    pub by_threshold: Vec<ByThreshold>,
    /// Lead times of the incidents that the model foretold at [`Self::threshold`], the shortest first.
    pub leads: Vec<Duration>,
}

impl Judgement {
    /// The figures at the operator's cost of an incident.
    pub fn at_operators_cost(&self) -> Option<&AtCost> {
        let same = |at: &&AtCost| (at.incident_cost / self.incident_cost - 1.0).abs() < 1e-9;
        self.costs.iter().find(same)
    }

    /// Cost at a threshold where an incident is worth so much, in drains for each Node and day.
    pub fn cost(&self, at: &ByThreshold, incident_cost: f64) -> f64 {
        total_cost(at.drains, at.foretold, at.missed, incident_cost) / self.node_days
    }
}

/// Judges a model on `test`, with the baselines' thresholds found on `earlier`.
///
/// # Errors
///
/// [`JudgeError`].
pub fn judge(
    earlier: (&Trial, &Scores),
    test: (&Trial, &Scores),
    terms: &Terms,
) -> Result<Judgement, JudgeError> {
    if !(0.01..=1e6).contains(&terms.incident_cost) {
        return Err(JudgeError::Cost(terms.incident_cost));
    }
    check(earlier, "calibration")?;
    check(test, "test")?;
    let (trial, scores) = test;
    if trial.incidents().is_empty() {
        return Err(JudgeError::NoIncidents);
    }
    let judge = Judge {
        trial,
        terms,
        days: trial.days(),
    };
    let costs = judge.costs(earlier, scores);
    let threshold = threshold(terms.incident_cost);
    let mut leads: Vec<Duration> = act(trial, &scores.model, threshold, &terms.manner)
        .leads
        .into_iter()
        .flatten()
        .collect();
    leads.sort();
    let labels = trial.labels();
    let (said, came): (Vec<f64>, Vec<bool>) = scored(&scores.model, &labels).unzip();
    Ok(Judgement {
        incidents: trial.incidents().len() as u64,
        unjudged: trial.unjudged() as u64,
        nodes: trial.nodes().len() as u64,
        nodes_befallen: trial.nodes_befallen() as u64,
        node_days: trial.node_days(),
        unscored: (labels.len() - said.len()) as u64,
        rows: measure::judge(&said, &came),
        pr_auc: pr_auc(scores, &labels),
        curve: thinned(measure::precision_recall(&said, &came)),
        reliability: reliability(&said, &came, 10, 0.95),
        incident_cost: terms.incident_cost,
        threshold,
        at_risk: terms.at_risk,
        costs,
        by_threshold: judge.by_threshold(&scores.model),
        leads,
    })
}

fn check((trial, scores): (&Trial, &Scores), part: &'static str) -> Result<(), JudgeError> {
    let rows = trial.rows().len();
    let baselines = scores
        .baselines
        .iter()
        .map(|(b, scores)| (b.words(), scores.len()));
    for (whose, scores) in baselines.chain([("model", scores.model.len())]) {
        if scores != rows {
            return Err(JudgeError::Shape {
                whose,
                part,
                scores,
                rows,
            });
        }
    }
    match scores
        .model
        .iter()
        .find(|p| !p.is_nan() && !(0.0..=1.0).contains(*p))
    {
        Some(p) => Err(JudgeError::NotAProbability(*p)),
        None => Ok(()),
    }
}

fn scored<'a>(scores: &'a [f64], labels: &'a [bool]) -> impl Iterator<Item = (f64, bool)> + 'a {
    let pairs = scores.iter().copied().zip(labels.iter().copied());
    pairs.filter(|(score, _)| !score.is_nan())
}

fn pr_auc(scores: &Scores, labels: &[bool]) -> BTreeMap<Baseline, f64> {
    let each = scores
        .baselines
        .iter()
        .filter(|(b, _)| **b != Baseline::NeverAct);
    each.map(|(baseline, scores)| {
        let (said, came): (Vec<f64>, Vec<bool>) = scored(scores, labels).unzip();
        (*baseline, measure::average_precision(&said, &came))
    })
    .collect()
}

/// A curve of few points: those furthest apart in recall, the first and the last among them.
fn thinned(curve: Vec<PrecisionRecall>) -> Vec<PrecisionRecall> {
    if curve.len() <= CURVE_MAX {
        return curve;
    }
    let (last, mut next) = (curve.len() - 1, 0.0);
    let mut kept = Vec::with_capacity(CURVE_MAX + 2);
    for (i, point) in curve.into_iter().enumerate() {
        if i == 0 || i == last || point.recall >= next {
            next = point.recall + 1.0 / CURVE_MAX as f64;
            kept.push(point);
        }
    }
    kept
}

fn total_cost(drains: u64, foretold: u64, missed: u64, incident_cost: f64) -> f64 {
    let left = (1.0 - EFFICACY) * foretold as f64;
    drains as f64 + incident_cost * (missed as f64 + left)
}

fn cost_of(outcome: &Outcome, incident_cost: f64) -> f64 {
    let (foretold, missed) = (outcome.foretold() as u64, outcome.missed() as u64);
    total_cost(outcome.drains.len() as u64, foretold, missed, incident_cost)
}

/// The threshold at which a score costs the least on a trial; infinite if that is never to act.
fn best_threshold(
    trial: &Trial,
    scores: &[f64],
    manner: &Manner,
    incident_costs: &[f64],
) -> Vec<f64> {
    let mut sorted: Vec<f64> = scores
        .iter()
        .copied()
        .filter(|score| !score.is_nan())
        .collect();
    sorted.sort_by(|a, b| b.total_cmp(a));
    // Alarms are rare, so thresholds are tried from the top down, each letting through a third more rows.
    let (mut tried, mut rank) = (vec![f64::INFINITY], 1.0f64);
    while (rank as usize) <= sorted.len() && tried.len() < TRIED_MAX {
        let score = sorted[rank as usize - 1];
        if tried.last() != Some(&score) {
            tried.push(score);
        }
        rank = (rank * 4.0 / 3.0).max(rank + 1.0);
    }
    let outcomes: Vec<(f64, Outcome)> = tried
        .into_iter()
        .map(|threshold| (threshold, act(trial, scores, threshold, manner)))
        .collect();
    incident_costs
        .iter()
        .map(|incident| {
            let costs = outcomes
                .iter()
                .map(|(threshold, o)| (*threshold, cost_of(o, *incident)));
            // Of equals the first, which is the highest.
            costs
                .reduce(|best, next| if next.1 < best.1 { next } else { best })
                .map_or(f64::INFINITY, |best| best.0)
        })
        .collect()
}

struct Judge<'a> {
    trial: &'a Trial,
    terms: &'a Terms,
    /// Of each row, and how many.
    days: (Vec<u32>, usize),
}

impl Judge<'_> {
    fn costs(&self, (earlier, before): (&Trial, &Scores), scores: &Scores) -> Vec<AtCost> {
        let mut incident_costs = INCIDENT_COSTS.to_vec();
        incident_costs.push(self.terms.incident_cost);
        incident_costs.sort_by(f64::total_cmp);
        incident_costs.dedup_by(|a, b| (*a / *b - 1.0).abs() < 1e-9);
        let manner = &self.terms.manner;
        let thresholds: BTreeMap<Baseline, Vec<f64>> = Baseline::ALL
            .into_iter()
            .filter(|baseline| *baseline != Baseline::NeverAct)
            .filter_map(|baseline| Some((baseline, before.baselines.get(&baseline)?)))
            .map(|(b, scores)| (b, best_threshold(earlier, scores, manner, &incident_costs)))
            .collect();
        let mut all = Vec::new();
        let mut differences = Vec::new();
        for (i, incident_cost) in incident_costs.iter().enumerate() {
            let implied = threshold(*incident_cost);
            let model = act(self.trial, &scores.model, implied, manner);
            let mut beside = Vec::new();
            for baseline in Baseline::ALL {
                let threshold = thresholds.get(&baseline).map_or(f64::INFINITY, |at| at[i]);
                let outcome = match scores.baselines.get(&baseline) {
                    Some(scores) => act(self.trial, scores, threshold, manner),
                    None => act(self.trial, &[], f64::INFINITY, manner),
                };
                differences.push(self.difference(&model, &outcome, *incident_cost));
                let figures = self.figures(&outcome, threshold, *incident_cost);
                beside.push(Beside {
                    baseline,
                    figures,
                    low: 0.0,
                    high: 0.0,
                });
            }
            let at_risk = act(self.trial, &scores.model, self.terms.at_risk, manner);
            all.push(AtCost {
                incident_cost: *incident_cost,
                model: self.figures(&model, implied, *incident_cost),
                at_risk: self.figures(&at_risk, self.terms.at_risk, *incident_cost),
                beside,
            });
        }
        let ends = bootstrap::intervals(&differences, self.days.1, self.terms.seed);
        let beside = all.iter_mut().flat_map(|at| &mut at.beside);
        for (one, (low, high)) in beside.zip(ends) {
            one.low = low / self.trial.node_days();
            one.high = high / self.trial.node_days();
        }
        all
    }

    fn by_threshold(&self, scores: &[f64]) -> Vec<ByThreshold> {
        let hundredths = (1..100).map(|i| f64::from(i) / 100.0);
        hundredths
            .map(|threshold| {
                let outcome = act(self.trial, scores, threshold, &self.terms.manner);
                ByThreshold {
                    threshold,
                    drains: outcome.drains.len() as u64,
                    foretold: outcome.foretold() as u64,
                    missed: outcome.missed() as u64,
                }
            })
            .collect()
    }

    fn figures(&self, outcome: &Outcome, threshold: f64, incident_cost: f64) -> Figures {
        let node_days = self.trial.node_days();
        let mut leads: Vec<Duration> = outcome.leads.iter().flatten().copied().collect();
        leads.sort();
        // The lower one of two: a lead time that was not reached is not promised.
        let at = |share: f64| {
            let place = (leads.len().saturating_sub(1) as f64 * share) as usize;
            leads.get(place).copied()
        };
        Figures {
            threshold,
            recall: outcome.foretold() as f64 / outcome.leads.len().max(1) as f64,
            missed: outcome.missed() as u64,
            drains: outcome.drains.len() as u64,
            needless_per_node_month: outcome.needless() as f64 / node_days * MONTH,
            false_episodes_per_node_day: outcome.false_episodes as f64 / node_days,
            lead_median: at(0.5),
            lead_p10: at(0.1),
            cost: cost_of(outcome, incident_cost) / node_days,
        }
    }

    fn difference(&self, model: &Outcome, other: &Outcome, incident_cost: f64) -> Difference {
        let mut by_incident = vec![0.0; self.trial.incidents().len()];
        let mut by_day = BTreeMap::<u32, f64>::new();
        for (outcome, sign) in [(model, 1.0), (other, -1.0)] {
            for (cost, lead) in by_incident.iter_mut().zip(&outcome.leads) {
                let left = if lead.is_some() { 1.0 - EFFICACY } else { 1.0 };
                *cost += sign * incident_cost * left;
            }
            for drain in &outcome.drains {
                match drain
                    .averted
                    .and_then(|incident| by_incident.get_mut(incident as usize))
                {
                    Some(cost) => *cost += sign,
                    None => {
                        let day = self.days.0.get(drain.row).copied().unwrap_or(0);
                        *by_day.entry(day).or_default() += sign;
                    }
                }
            }
        }
        let by_day = by_day.into_iter().filter(|day| day.1 != 0.0).collect();
        Difference {
            by_incident,
            by_day,
        }
    }
}

#[cfg(test)]
mod tests;
