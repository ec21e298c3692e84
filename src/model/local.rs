//! What a model has shown on the operator's own history, as its file tells it.
//!
//! Whoever trains judges the model on a later part of the history than it learned from, by what it would
//! have cost to act on it, beside four ways to do without it. Whether that is enough to act is asked by
//! [`super::authority`].

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::artifact::ModelError;
use super::bins::to_nine_digits;

/// Costs of an incident that a file may judge at: a few for each factor of two are enough.
const COSTS_MAX: usize = 64;
/// Bins of a reliability table.
const RELIABILITY_MAX: usize = 100;
/// Beyond any cost, in drains for each Node and day.
const COST_MAX: f64 = 1e9;

/// What a model has shown on the operator's own history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Local {
    /// The history that it learned from.
    pub trained: Span,
    /// The later history that it was judged on.
    pub judged: Span,
    /// Degradations that began in `judged`.
    pub events: u64,
    /// Nodes that they befell.
    pub nodes: u64,
    /// What acting would have cost, by what an incident is worth, the least first.
    pub costs: Vec<CostFigures>,
    /// The same, each Node judged by a model that had not seen it; empty where there were too few to try.
    #[serde(default)]
    pub unseen_nodes: Vec<CostFigures>,
    /// How often what it said came true, by bins of what it said, the lowest first.
    pub reliability: Vec<ReliabilityBin>,
}

/// A part of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// Its begin.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
}

/// What acting would have cost where an incident is worth so much.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostFigures {
    /// Drains that an incident is worth.
    pub incident_cost: f64,
    /// What it would have cost to act on the model: drains, and incidents at their worth, in drains for
    /// each Node and day.
    pub cost: f64,
    /// The same without the model; each [`Baseline`] once.
    pub against: Vec<Against>,
}

/// A way to do without the model, and what it would have cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Against {
    /// Which.
    pub baseline: Baseline,
    /// In drains for each Node and day.
    pub cost: f64,
    /// Lower end of the 95 % interval of the model's cost less this one, by a bootstrap over events that
    /// draws the same events for both.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// A way to do without the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Baseline {
    /// To let every incident happen.
    NeverAct,
    /// Fixed limits on single features.
    StaticThresholds,
    /// The largest deviation from what is usual.
    LargestDeviation,
    /// Alerts, from the begin of their pending time; never to act, where there are none.
    PendingAlerts,
}

impl Baseline {
    /// Every one.
    pub const ALL: [Self; 4] = [
        Self::NeverAct,
        Self::StaticThresholds,
        Self::LargestDeviation,
        Self::PendingAlerts,
    ];

    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NeverAct => "never_act",
            Self::StaticThresholds => "static_thresholds",
            Self::LargestDeviation => "largest_deviation",
            Self::PendingAlerts => "pending_alerts",
        }
    }

    /// What it is to act by it, in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::NeverAct => "never acting",
            Self::StaticThresholds => "static thresholds",
            Self::LargestDeviation => "the largest deviation",
            Self::PendingAlerts => "pending alerts",
        }
    }
}

/// How often what a model said came true, for one bin of what it said.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReliabilityBin {
    /// Lower end of the bin, a probability.
    pub from: f64,
    /// Upper end.
    pub to: f64,
    /// Mean of what the model said.
    pub predicted: f64,
    /// Share that came true.
    pub observed: f64,
    /// Rows in the bin.
    pub rows: u64,
}

impl Local {
    /// Nine digits of every number, see [`to_nine_digits`].
    pub(super) fn shorten_numbers(&mut self) {
        let shorten = |number: &mut f64| *number = to_nine_digits(*number);
        for figures in self.costs.iter_mut().chain(&mut self.unseen_nodes) {
            shorten(&mut figures.incident_cost);
            shorten(&mut figures.cost);
            for against in &mut figures.against {
                [&mut against.cost, &mut against.low, &mut against.high]
                    .into_iter()
                    .for_each(shorten);
            }
        }
        for bin in &mut self.reliability {
            let ReliabilityBin {
                from,
                to,
                predicted,
                observed,
                rows: _,
            } = bin;
            [from, to, predicted, observed]
                .into_iter()
                .for_each(shorten);
        }
    }

    /// Checks that the figures can be.
    ///
    /// # Errors
    ///
    /// [`ModelError::Invalid`] with the first fault.
    pub(super) fn check(&self) -> Result<(), ModelError> {
        let fault = |place: &str, fault: &str| {
            Err(ModelError::invalid(format!("content.local.{place}"), fault))
        };
        for (name, span) in [("trained", self.trained), ("judged", self.judged)] {
            if span.from >= span.to {
                return fault(name, "does not end after it begins");
            }
        }
        if self.judged.from < self.trained.to {
            return fault(
                "judged.from",
                "is before the end of the history that the model learned from",
            );
        }
        if self.nodes > self.events {
            return fault("nodes", "are more than the events that befell them");
        }
        if self.costs.is_empty() {
            return fault("costs", &format!("has not 1 to {COSTS_MAX} entries"));
        }
        for (name, costs) in [("costs", &self.costs), ("unseen_nodes", &self.unseen_nodes)] {
            if costs.len() > COSTS_MAX {
                return fault(name, &format!("has not 1 to {COSTS_MAX} entries"));
            }
            let rising = |pair: &[CostFigures]| pair[0].incident_cost < pair[1].incident_cost;
            if !costs.windows(2).all(rising) {
                return fault(name, "does not rise in `incident_cost` from entry to entry");
            }
            for (i, figures) in costs.iter().enumerate() {
                figures
                    .check()
                    .or_else(|(place, what)| fault(&format!("{name}[{i}].{place}"), what))?;
            }
        }
        check_reliability(&self.reliability)
            .or_else(|(i, what)| fault(&format!("reliability[{i}]"), what))
    }
}

impl CostFigures {
    fn check(&self) -> Result<(), (&'static str, &'static str)> {
        if !(0.01..=1e6).contains(&self.incident_cost) {
            return Err(("incident_cost", "is not between 0.01 and 1000000"));
        }
        let costs = self.against.iter().map(|against| against.cost);
        if !costs
            .chain([self.cost])
            .all(|cost| (0.0..=COST_MAX).contains(&cost))
        {
            return Err((
                "cost",
                "is, or that of a baseline is, not between 0 and 1000000000",
            ));
        }
        let mut named: Vec<Baseline> = self.against.iter().map(|one| one.baseline).collect();
        named.sort();
        if named != Baseline::ALL {
            return Err(("against", "does not have every baseline once"));
        }
        let possible = |end: f64| (-COST_MAX..=COST_MAX).contains(&end);
        let ordered =
            |one: &Against| possible(one.low) && possible(one.high) && one.low <= one.high;
        if !self.against.iter().all(ordered) {
            return Err(("against", "has an interval that cannot be"));
        }
        Ok(())
    }
}

fn check_reliability(bins: &[ReliabilityBin]) -> Result<(), (usize, &'static str)> {
    if bins.len() > RELIABILITY_MAX {
        return Err((RELIABILITY_MAX, "is one more than any table has"));
    }
    let mut end = 0.0;
    for (i, bin) in bins.iter().enumerate() {
        let shares = [bin.from, bin.to, bin.predicted, bin.observed];
        if !shares.iter().all(|share| (0.0..=1.0).contains(share)) {
            return Err((i, "has a number that is not between 0 and 1"));
        }
        if bin.from < end || bin.from >= bin.to {
            return Err((
                i,
                "does not begin where the one before ends, or has no width",
            ));
        }
        if bin.rows == 0 {
            return Err((i, "has no rows"));
        }
        end = bin.to;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::artifact::{Artifact, Content, Limits};
    use crate::model::testing::{local, says, sealed, stump};

    fn good() -> Content {
        Content {
            local: Some(local()),
            ..stump("here", "mem_used", 0.9)
        }
    }

    /// What is said of a file whose section reads otherwise at this place; a change to nothing takes it out.
    fn refused(place: &str, value: &Value) -> ModelError {
        let mut content = serde_json::to_value(good()).unwrap();
        let (parent, key) = place.rsplit_once('/').unwrap();
        let parent = content.pointer_mut(&format!("/local{parent}")).unwrap();
        match (parent, value) {
            (Value::Object(object), Value::Null) => drop(object.remove(key)),
            (Value::Object(object), value) => drop(object.insert(key.to_owned(), value.clone())),
            (Value::Array(array), value) => array[key.parse::<usize>().unwrap()] = value.clone(),
            (other, _) => panic!("{place} is in {other}"),
        }
        match serde_json::from_value::<Content>(content) {
            Ok(content) => Artifact::seal(content, &Limits::default()).unwrap_err(),
            Err(error) => ModelError::Json(error),
        }
    }

    #[test]
    fn a_section_is_read_back_as_it_was_written() {
        let model = sealed(good());
        let read = Artifact::parse(&model.to_bytes().unwrap(), &Limits::default()).unwrap();
        assert_eq!(read, model);
        assert!(read.content().local.is_some());
        // A file without one stays as it was: the key is not there at all.
        let bytes = sealed(stump("old", "mem_used", 0.9)).to_bytes().unwrap();
        assert!(!String::from_utf8(bytes).unwrap().contains("local\":{"));
    }

    #[test]
    fn figures_that_cannot_be_are_refused_with_their_place() {
        let costs = |n: usize| {
            let one = serde_json::to_value(&local().costs[0]).unwrap();
            let with = |i: usize| {
                let mut one = one.clone();
                one["incident_cost"] = json!(i + 1);
                one
            };
            Value::Array((0..n).map(with).collect())
        };
        for (place, value, reason) in [
            (
                "/trained/to",
                json!("2026-01-01T00:00:00Z"),
                "`content.local.trained` does not end after",
            ),
            (
                "/judged/to",
                json!("2026-02-15T06:00:00Z"),
                "`content.local.judged` does not end after",
            ),
            (
                "/judged/from",
                json!("2026-02-14T23:59:59Z"),
                "`content.local.judged.from` is before the end",
            ),
            ("/judged/to", json!("tomorrow"), "not a complete model file"),
            (
                "/judged/to",
                json!(1_790_000_000),
                "not a complete model file",
            ),
            ("/nodes", json!(41), "`content.local.nodes` are more"),
            ("/events", json!(-1), "not a complete model file"),
            ("/events", json!(1e300), "not a complete model file"),
            ("/events", Value::Null, "not a complete model file"),
            ("/more", json!(1), "not a complete model file"),
            ("/costs", json!([]), "`content.local.costs` has not 1 to 64"),
            ("/costs", costs(65), "`content.local.costs` has not 1 to 64"),
            (
                "/costs/1/incident_cost",
                json!(0.5),
                "`content.local.costs` does not rise",
            ),
            (
                "/costs/1/incident_cost",
                json!(1.0),
                "`content.local.costs` does not rise",
            ),
            (
                "/costs/0/incident_cost",
                json!(0.0),
                "`content.local.costs[0].incident_cost` is not between",
            ),
            (
                "/costs/2/incident_cost",
                json!(1e9),
                "`content.local.costs[2].incident_cost` is not between",
            ),
            (
                "/costs/0/cost",
                json!(-0.1),
                "`content.local.costs[0].cost` is",
            ),
            (
                "/costs/0/cost",
                json!(1e300),
                "`content.local.costs[0].cost` is",
            ),
            (
                "/costs/0/against/2/cost",
                json!(-1),
                "`content.local.costs[0].cost` is",
            ),
            (
                "/costs/0/against",
                json!([]),
                "`content.local.costs[0].against` does not have every",
            ),
            (
                "/costs/0/against/2/baseline",
                json!("never_act"),
                "`content.local.costs[0].against` does not have every",
            ),
            (
                "/costs/0/against/2/baseline",
                json!("oracle"),
                "not a complete model file",
            ),
            (
                "/costs/0/against/0/low",
                json!(1.0),
                "`content.local.costs[0].against` has an interval",
            ),
            (
                "/costs/0/against/0/high",
                json!(1e300),
                "`content.local.costs[0].against` has an interval",
            ),
            (
                "/unseen_nodes",
                json!([{"incident_cost": 1.0, "cost": -1.0, "against": []}]),
                "`content.local.unseen_nodes[0].cost` is",
            ),
            (
                "/reliability/0/predicted",
                json!(1.5),
                "`content.local.reliability[0]` has a number",
            ),
            (
                "/reliability/0/from",
                json!(-0.5),
                "`content.local.reliability[0]` has a number",
            ),
            (
                "/reliability/1/from",
                json!(0.25),
                "`content.local.reliability[1]` does not begin",
            ),
            (
                "/reliability/1/to",
                json!(0.5),
                "`content.local.reliability[1]` does not begin",
            ),
            (
                "/reliability/1/rows",
                json!(0),
                "`content.local.reliability[1]` has no rows",
            ),
        ] {
            says(place, &refused(place, &value), reason, &["foreshock train"]);
        }
        let mut many = good();
        let bin = many.local.as_ref().unwrap().reliability[0];
        many.local.as_mut().unwrap().reliability = vec![bin; 101];
        let error = Artifact::seal(many, &Limits::default()).unwrap_err();
        says(
            "many bins",
            &error,
            "is one more than any table has",
            &["foreshock train"],
        );
    }

    #[test]
    fn numbers_that_are_none_are_refused_too() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let changes: [fn(&mut Local, f64); 5] = [
                |local, x| local.costs[0].incident_cost = x,
                |local, x| local.costs[0].cost = x,
                |local, x| local.costs[0].against[0].high = x,
                |local, x| local.reliability[0].observed = x,
                |local, x| local.costs[1].against[3].cost = x,
            ];
            for change in changes {
                let mut content = good();
                change(content.local.as_mut().unwrap(), number);
                assert!(
                    Artifact::seal(content, &Limits::default()).is_err(),
                    "{number}"
                );
            }
        }
    }

    #[test]
    fn only_a_model_that_learned_here_can_have_been_judged_here() {
        for source in [
            crate::model::artifact::Source::Synthetic,
            crate::model::artifact::Source::Imported,
        ] {
            let error =
                Artifact::seal(Content { source, ..good() }, &Limits::default()).unwrap_err();
            says(
                "other source",
                &error,
                "did not learn from local history",
                &["foreshock train"],
            );
        }
    }
}
