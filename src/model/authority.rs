//! Whether a model has earned to act on this cluster.
//!
//! Without that its word causes no more than a label. A model earns it on the operator's own history: judged
//! lately, on enough events of enough Nodes, and at no greater cost than what is to be had without it.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use super::artifact::{Content, Source};
use super::drift::Measured;
use super::local::{Against, Baseline, CostFigures, Local};
use foreshock_core::time::since;

/// With fewer events a model is good or bad by luck.
pub const EVENTS_MIN: u64 = 30;
/// And those of fewer Nodes are the story of one of them.
pub const NODES_MIN: u64 = 5;
/// Share of the incidents' cost that a drain in time averts. Nobody has measured it: what it does not avert
/// is the drain that comes too late, and the Pods that fail elsewhere as well.
pub const EFFICACY: f64 = 0.8;
/// The cost of an incident that a file has judged at may be so many times greater or less than the operator's.
const NEIGHBOUR_MAX: f64 = 2.0;
/// A threshold is given with two digits.
const THRESHOLD_SLACK: f64 = 0.01;
/// Clocks of two machines differ by less.
const AHEAD_MAX: Duration = Duration::from_secs(3_600);
const DAY: u64 = 86_400;
/// Features that have drifted and are named.
const DRIFTED_NAMED: usize = 3;

/// What the operator demands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demands {
    /// `model.act_untrained`: nothing is demanded of a model's proof.
    pub act_untrained: bool,
    /// `model.validation_age_max`.
    pub validation_age_max: Duration,
    /// `model.incident_cost`: drains that an incident is worth.
    pub incident_cost: f64,
    /// `policy.at_risk`; where pools have their own, the least.
    pub at_risk: f64,
    /// `model.drift_warn`: an index from here on is told.
    pub drift_warn: f64,
    /// `model.drift_alarm`: from here on the model's word is no ground to act.
    pub drift_alarm: f64,
}

impl Default for Demands {
    /// Those of a configuration that says nothing.
    fn default() -> Self {
        Self {
            act_untrained: false,
            validation_age_max: Duration::from_secs(90 * DAY),
            incident_cost: 2.0,
            at_risk: 0.65,
            drift_warn: 0.2,
            drift_alarm: 0.3,
        }
    }
}

/// Why a model may not cause more than a label.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// It learned from simulated machines.
    Synthetic,
    /// Another program trained it.
    Imported,
    /// Its file does not say how it did on this cluster's history.
    NotValidated,
    /// The history that it was judged on ends in the future.
    FromTheFuture {
        /// When.
        until: Timestamp,
    },
    /// The history that it was judged on ended too long ago.
    Stale {
        /// Whole days since.
        days: u64,
        /// Whole days that are allowed.
        days_max: u64,
    },
    /// It was judged on too few events.
    FewEvents {
        /// How many.
        events: u64,
    },
    /// They befell too few Nodes.
    FewNodes {
        /// How many.
        nodes: u64,
    },
    /// It was not judged where an incident is worth what it is to the operator, or nearly.
    NotJudgedAt {
        /// What it is to the operator.
        incident_cost: f64,
    },
    /// Something that is to be had without it costs no more.
    Loses {
        /// What.
        baseline: Baseline,
        /// Where an incident is worth so much.
        incident_cost: f64,
        /// What acting on the model costs, in drains for each Node and day.
        cost: f64,
        /// What the other costs.
        other: f64,
    },
    /// It was not judged on Nodes that it had not seen, where an incident is worth what it is to the operator.
    NotJudgedUnseen,
    /// `policy.at_risk` is lower than where acting pays, so that it would act where it was not judged.
    ThresholdTooLow {
        /// `policy.at_risk`.
        at_risk: f64,
        /// Where acting pays.
        threshold: f64,
    },
    /// On Nodes that a model had not seen, something that is to be had without it costs less, beyond chance.
    LosesUnseen {
        /// What.
        baselines: Vec<Baseline>,
        /// Where an incident is worth so much.
        incident_cost: f64,
    },
    /// The inputs are not those any more that it learned from.
    Drifted {
        /// What has drifted the farthest, with its index in hundredths.
        worst: Vec<(String, u32)>,
        /// How many have by as much as is an alarm.
        count: usize,
    },
}

impl Refusal {
    /// The name in the API.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Synthetic => "synthetic",
            Self::Imported => "imported",
            Self::NotValidated => "not_validated",
            Self::FromTheFuture { .. } => "from_the_future",
            Self::Stale { .. } => "stale",
            Self::FewEvents { .. } => "few_events",
            Self::FewNodes { .. } => "few_nodes",
            Self::NotJudgedAt { .. } => "not_judged_at_cost",
            Self::Loses { .. } => "loses",
            Self::NotJudgedUnseen => "not_judged_on_unseen_nodes",
            Self::ThresholdTooLow { .. } => "threshold_too_low",
            Self::LosesUnseen { .. } => "loses_on_unseen_nodes",
            Self::Drifted { .. } => "drift",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Synthetic => write!(
                f,
                "it was learned from simulated machines and has proved nothing on this cluster"
            ),
            Self::Imported => write!(
                f,
                "another program trained it, and it has proved nothing on this cluster"
            ),
            Self::NotValidated => write!(
                f,
                "its file does not say how it did on this cluster's history; train it anew"
            ),
            Self::FromTheFuture { until } => write!(
                f,
                "the history that it was judged on ends at {until:.0}, which is in the future: is the clock right?"
            ),
            Self::Stale { days, days_max } => write!(
                f,
                "the history that it was judged on ended {days} days ago, more than model.validation_age_max ({days_max} days); train it anew"
            ),
            Self::FewEvents { events } => write!(
                f,
                "it was judged on {events} degradations, and it takes {EVENTS_MIN}; train it anew when there is more history"
            ),
            Self::FewNodes { nodes } => write!(
                f,
                "it was judged on degradations of {nodes} Nodes, and it takes {NODES_MIN}; train it anew when there is more history"
            ),
            Self::NotJudgedAt { incident_cost } => write!(
                f,
                "it was not judged where an incident is worth {incident_cost} drains (model.incident_cost), or half or twice that; train it anew"
            ),
            Self::Loses {
                baseline,
                incident_cost,
                cost,
                other,
            } => write!(
                f,
                "where an incident is worth {incident_cost} drains, {} cost no more: {other:.4} drains for each Node and day against {cost:.4}; \
                 train it anew, or leave it at labels",
                baseline.words()
            ),
            Self::NotJudgedUnseen => write!(
                f,
                "it was not judged on Nodes that it had not seen in training: too few Nodes had incidents; train it anew when there is \
                 more history"
            ),
            Self::ThresholdTooLow { at_risk, threshold } => write!(
                f,
                "policy.at_risk is {at_risk}, and it was judged acting from {threshold:.3} on, where that pays; raise policy.at_risk, \
                 or model.incident_cost if an incident is worth more"
            ),
            Self::LosesUnseen {
                baselines,
                incident_cost,
            } => {
                let words: Vec<&str> = baselines.iter().map(|one| one.words()).collect();
                write!(
                    f,
                    "on Nodes that it had not seen in training, {} cost less, beyond chance, where an incident is worth {incident_cost} \
                     drains: it has learned about single Nodes and not what degradation is; train it on more history, or leave it at \
                     labels",
                    words.join(" and ")
                )
            }
            Self::Drifted { worst, count } => {
                let named: Vec<String> = worst
                    .iter()
                    .map(|(what, index)| format!("{what} {:.2}", f64::from(*index) / 100.0))
                    .collect();
                let more = match count.saturating_sub(worst.len()) {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                write!(
                    f,
                    "its inputs have drifted from those that it learned from: {}{more} (model.drift_alarm); \
                     look for what has changed in the fleet or its exporters, or train it anew",
                    named.join(", ")
                )
            }
        }
    }
}

/// Everything that keeps a model from acting at this time; empty where it has earned it.
/// `act_untrained` is another question: see [`trusted`].
pub fn refusals(content: &Content, demands: &Demands, now: Timestamp) -> Vec<Refusal> {
    match (content.source, &content.local) {
        (Source::Synthetic, _) => vec![Refusal::Synthetic],
        (Source::Imported, _) => vec![Refusal::Imported],
        (Source::Local, None) => vec![Refusal::NotValidated],
        (Source::Local, Some(local)) => refusals_of(local, demands, now),
    }
}

/// Whether a model with these refusals may cause more than a label. `act_untrained` makes up for proof that
/// is missing; that the inputs are not what the model knows is nothing that anybody can wish away.
pub fn trusted(refusals: &[Refusal], demands: &Demands) -> bool {
    refusals.iter().all(|refusal| !counts(refusal, demands))
}

/// Whether a refusal keeps a model from acting.
pub fn counts(refusal: &Refusal, demands: &Demands) -> bool {
    match refusal {
        Refusal::Drifted { .. } => true,
        Refusal::Synthetic
        | Refusal::Imported
        | Refusal::NotValidated
        | Refusal::FromTheFuture { .. }
        | Refusal::Stale { .. }
        | Refusal::FewEvents { .. }
        | Refusal::FewNodes { .. }
        | Refusal::NotJudgedAt { .. }
        | Refusal::Loses { .. }
        | Refusal::NotJudgedUnseen
        | Refusal::ThresholdTooLow { .. }
        | Refusal::LosesUnseen { .. } => !demands.act_untrained,
    }
}

/// That the inputs have drifted so far that the model's word is no ground to act.
pub fn drifted(measured: &Measured, demands: &Demands) -> Option<Refusal> {
    let beyond = measured.beyond(demands.drift_alarm);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index is small and never negative"
    )]
    let hundredths = |index: f64| (index * 100.0).round() as u32;
    let worst = beyond.iter().take(DRIFTED_NAMED);
    measured
        .is_alarm(demands.drift_alarm)
        .then(|| Refusal::Drifted {
            worst: worst
                .map(|(what, index)| ((*what).to_owned(), hundredths(*index)))
                .collect(),
            count: beyond.len(),
        })
}

/// The probability above which acting costs less than not acting: a drain costs 1 whether it was needed or
/// not, and averts [`EFFICACY`] of an incident. At most 1: an incident that is worth less is to be let happen.
pub fn threshold(incident_cost: f64) -> f64 {
    (1.0 / (EFFICACY * incident_cost)).min(1.0)
}

fn refusals_of(local: &Local, demands: &Demands, now: Timestamp) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let until = local.judged.to;
    let age = since(until, now);
    if since(now, until) > AHEAD_MAX {
        refusals.push(Refusal::FromTheFuture { until });
    } else if age > demands.validation_age_max {
        refusals.push(Refusal::Stale {
            days: age.as_secs() / DAY,
            days_max: demands.validation_age_max.as_secs() / DAY,
        });
    }
    if local.events < EVENTS_MIN {
        refusals.push(Refusal::FewEvents {
            events: local.events,
        });
    }
    if local.nodes < NODES_MIN {
        refusals.push(Refusal::FewNodes { nodes: local.nodes });
    }
    let incident_cost = demands.incident_cost;
    let Some(nearest) = beside(&local.costs, incident_cost) else {
        refusals.push(Refusal::NotJudgedAt { incident_cost });
        return refusals;
    };
    let lost = nearest.into_iter().flat_map(|figures| {
        // A model that never acts costs what never acting does, and has earned nothing.
        let loses = move |one: &&Against| figures.cost >= one.cost || one.low > 0.0;
        let lost = figures.against.iter().filter(loses);
        lost.map(|one| Refusal::Loses {
            baseline: one.baseline,
            incident_cost: figures.incident_cost,
            cost: figures.cost,
            other: one.cost,
        })
    });
    refusals.extend(lost);
    let threshold = threshold(incident_cost);
    if demands.at_risk < threshold - THRESHOLD_SLACK {
        let at_risk = demands.at_risk;
        refusals.push(Refusal::ThresholdTooLow { at_risk, threshold });
    }
    let Some(unseen) = beside(&local.unseen_nodes, incident_cost) else {
        refusals.push(Refusal::NotJudgedUnseen);
        return refusals;
    };
    let lost = unseen.into_iter().filter_map(|figures| {
        let lost = figures.against.iter().filter(|one| one.low > 0.0);
        let baselines: Vec<Baseline> = lost.map(|one| one.baseline).collect();
        (!baselines.is_empty()).then_some(Refusal::LosesUnseen {
            baselines,
            incident_cost: figures.incident_cost,
        })
    });
    refusals.extend(lost);
    refusals
}

/// The figures at the operator's cost of an incident, or at those next to it on both sides; `None` where
/// there are none so near.
fn beside(costs: &[CostFigures], incident_cost: f64) -> Option<Vec<&CostFigures>> {
    let same = |figures: &&CostFigures| (figures.incident_cost / incident_cost - 1.0).abs() < 1e-6;
    if let Some(figures) = costs.iter().find(same) {
        return Some(vec![figures]);
    }
    let above = costs
        .iter()
        .position(|figures| figures.incident_cost > incident_cost)?;
    let (below, above) = (costs.get(above.checked_sub(1)?)?, costs.get(above)?);
    let near = incident_cost / below.incident_cost <= NEIGHBOUR_MAX
        && above.incident_cost / incident_cost <= NEIGHBOUR_MAX;
    near.then(|| vec![below, above])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::drift::FeatureDrift;
    use crate::model::testing::{local, stump};

    const COST: f64 = 2.0;

    fn demands() -> Demands {
        Demands {
            incident_cost: COST,
            ..Demands::default()
        }
    }

    fn now() -> Timestamp {
        "2026-04-01T00:00:00Z".parse().unwrap()
    }

    fn content(change: impl FnOnce(&mut Local)) -> Content {
        let mut local = local();
        change(&mut local);
        Content {
            local: Some(local),
            ..stump("good", "mem_used", 0.9)
        }
    }

    fn names(content: &Content, demands: &Demands, now: Timestamp) -> Vec<&'static str> {
        let refusals = refusals(content, demands, now);
        assert_eq!(trusted(&refusals, demands), refusals.is_empty());
        assert!(trusted(
            &refusals,
            &Demands {
                act_untrained: true,
                ..*demands
            }
        ));
        refusals.iter().map(Refusal::as_str).collect()
    }

    #[test]
    fn a_model_that_has_proved_itself_lately_may_act() {
        assert_eq!(names(&content(|_| {}), &demands(), now()), [""; 0]);
    }

    #[test]
    fn a_model_acts_where_it_was_judged_and_nowhere_else() {
        let unjudged = content(|local| local.unseen_nodes.clear());
        assert_eq!(
            names(&unjudged, &demands(), now()),
            ["not_judged_on_unseen_nodes"]
        );
        let at = |at_risk| Demands {
            at_risk,
            ..demands()
        };
        // Where an incident is worth two drains, acting pays from 0.625 on.
        let good = content(|_| {});
        assert_eq!(names(&good, &at(0.62), now()), [""; 0]);
        assert_eq!(names(&good, &at(0.9), now()), [""; 0]);
        assert_eq!(names(&good, &at(0.5), now()), ["threshold_too_low"]);
        let text = refusals(&good, &at(0.5), now())[0].to_string();
        assert!(text.contains("acting from 0.625 on"), "{text}");
    }

    #[test]
    fn a_model_that_knows_single_nodes_and_not_degradation_may_not_act() {
        let unseen = |low: f64| {
            content(move |local| {
                local.unseen_nodes = local.costs.clone();
                for one in local.unseen_nodes.iter_mut().flat_map(|at| &mut at.against) {
                    (one.low, one.high) = (-0.01, 0.01);
                    if one.baseline == Baseline::LargestDeviation {
                        one.low = low;
                    }
                }
            })
        };
        // Within chance it is forgiven: there are few incidents for each of so many Nodes.
        assert_eq!(names(&unseen(-0.001), &demands(), now()), [""; 0]);
        assert_eq!(
            names(&unseen(0.001), &demands(), now()),
            ["loses_on_unseen_nodes"]
        );
        let refusals = refusals(&unseen(0.001), &demands(), now());
        let text = refusals[0].to_string();
        assert!(text.contains("the largest deviation"), "{text}");
    }

    #[test]
    fn each_thing_that_is_missing_keeps_it_from_acting() {
        let cost = |change: fn(&mut CostFigures)| {
            content(move |local| local.costs.iter_mut().for_each(change))
        };
        let against = |baseline: usize, change: fn(&mut Against)| {
            content(move |local| {
                let at = local.costs.iter_mut().find(|at| at.incident_cost == COST);
                change(&mut at.unwrap().against[baseline]);
            })
        };
        let stump = || stump("good", "mem_used", 0.9);
        for (content, expected) in [
            (
                Content {
                    source: Source::Synthetic,
                    ..content(|_| {})
                },
                &["synthetic"][..],
            ),
            (
                Content {
                    source: Source::Imported,
                    ..content(|_| {})
                },
                &["imported"],
            ),
            (stump(), &["not_validated"]),
            (content(|local| local.events = 29), &["few_events"]),
            (content(|local| local.nodes = 4), &["few_nodes"]),
            (
                content(|local| (local.events, local.nodes) = (3, 2)),
                &["few_events", "few_nodes"],
            ),
            (
                content(|local| local.judged.to = "2025-12-31T23:00:00Z".parse().unwrap()),
                &["stale"],
            ),
            (
                content(|local| local.judged.to = "2026-04-01T02:00:00Z".parse().unwrap()),
                &["from_the_future"],
            ),
            (
                cost(|at| at.incident_cost *= 100.0),
                &["not_judged_at_cost"],
            ),
            (cost(|at| at.cost = 1.0), &["loses"; 4]),
            // By the point alone, and by the interval alone.
            (against(0, |one| one.cost = 0.04), &["loses"]),
            (
                against(3, |one| (one.low, one.high) = (0.001, 0.01)),
                &["loses"],
            ),
            // No difference has earned nothing; an interval that reaches zero is no loss.
            (against(1, |one| one.cost = 0.05), &["loses"]),
            (against(1, |one| one.low = 0.0), &[]),
        ] {
            assert_eq!(
                names(&content, &demands(), now()),
                expected,
                "{:?}",
                content.local
            );
        }
    }

    #[test]
    fn time_alone_takes_authority_away() {
        let content = content(|_| {});
        let at = |days: i64| now() + jiff::SignedDuration::from_hours(24 * days);
        assert_eq!(names(&content, &demands(), at(58)), [""; 0]);
        assert_eq!(names(&content, &demands(), at(60)), ["stale"]);
    }

    #[test]
    fn between_two_costs_both_have_to_be_won_and_far_from_all_nothing_is_known() {
        let lost_at = |cost: f64| {
            content(move |local| {
                let at = local.costs.iter_mut().find(|at| at.incident_cost == cost);
                at.unwrap().cost = 1.0;
            })
        };
        let between = Demands {
            incident_cost: 3.0,
            ..demands()
        };
        assert_eq!(names(&content(|_| {}), &between, now()), [""; 0]);
        assert_eq!(names(&lost_at(2.0), &between, now()), ["loses"; 4]);
        assert_eq!(names(&lost_at(4.0), &between, now()), ["loses"; 4]);
        assert_eq!(names(&lost_at(1.0), &between, now()), [""; 0]);
        for incident_cost in [0.5, 4.1, 40.0] {
            let far = Demands {
                incident_cost,
                ..demands()
            };
            assert_eq!(
                names(&content(|_| {}), &far, now()),
                ["not_judged_at_cost"],
                "{incident_cost}"
            );
        }
    }

    #[test]
    fn every_refusal_says_what_is_and_what_to_do() {
        let of = |content: &Content| refusals(content, &demands(), now())[0].to_string();
        assert_eq!(
            of(&content(|local| local.events = 12)),
            "it was judged on 12 degradations, and it takes 30; train it anew when there is more history"
        );
        assert_eq!(
            of(&content(|local| local.costs[1].against[3].cost = 0.04)),
            "where an incident is worth 2 drains, pending alerts cost no more: 0.0400 drains for each Node and day against 0.0500; train it anew, or leave it at labels"
        );
    }

    #[test]
    fn drift_takes_authority_away_whatever_the_operator_allows() {
        let measured = |index: f64, importance: f64| Measured {
            rows: 10_000,
            hours: 24,
            reference: true,
            score: Some(0.1),
            features: ["a", "b"]
                .map(|name| FeatureDrift {
                    feature: name.into(),
                    importance,
                    index: Some(index),
                    missing: 0.0,
                    far_out: 0.0,
                })
                .into(),
        };
        let allowed = Demands {
            act_untrained: true,
            ..demands()
        };
        assert_eq!(drifted(&measured(0.29, 0.5), &allowed), None);
        assert_eq!(
            drifted(&measured(0.9, 0.04), &allowed),
            None,
            "the trees hardly ask about them"
        );
        let refusal = drifted(&measured(0.456, 0.06), &allowed).unwrap();
        assert!(!trusted(std::slice::from_ref(&refusal), &allowed));
        assert_eq!(
            refusal.to_string(),
            "its inputs have drifted from those that it learned from: a 0.46, b 0.46 (model.drift_alarm); \
             look for what has changed in the fleet or its exporters, or train it anew"
        );
    }

    #[test]
    fn the_threshold_falls_with_what_an_incident_is_worth() {
        assert!((threshold(2.0) - 0.625).abs() < 1e-12);
        assert!((threshold(10.0) - 0.125).abs() < 1e-12);
        assert!((threshold(0.5) - 1.0).abs() < 1e-12);
    }
}
