use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::train::labels::{NodeHistory, Rules};
use crate::train::sample::below;
use crate::train::signals::Signal;
use crate::train::track::tests::{MINUTE, at, span};
use jiff::Timestamp;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

const DAY: i64 = 1_440;

fn manner() -> Manner {
    Manner {
        confirm_for: MINUTE,
        recover_for: 10 * MINUTE,
    }
}

/// A trial of `days` days with a Node for each list of incidents, which last ten minutes.
fn trial(days: i64, nodes: &[&[i64]]) -> (Trial, Vec<i64>) {
    let rules = Rules::new(MINUTE);
    let mut trial = Trial::new(MINUTE, &rules);
    let times: Vec<Timestamp> = (0..days * DAY).map(at).collect();
    let mut minutes = Vec::new();
    for (n, incidents) in nodes.iter().enumerate() {
        let mut history = NodeHistory::new(MINUTE);
        for m in 0..days * DAY {
            let down = incidents.iter().any(|from| (*from..from + 10).contains(&m));
            history.see(Signal::NotReady, at(m), f64::from(u8::from(down)));
        }
        let timeline = history.timeline(&rules, span(0, days * DAY));
        let kept = trial.add(format!("worker-{n}").into(), &timeline, &times);
        minutes.extend(kept.into_iter().map(|i| i as i64));
    }
    (trial, minutes)
}

/// One Node for a day, an incident at minute 600; the score is high in these stretches.
fn acted(high: &[(i64, i64)]) -> Outcome {
    let (trial, minutes) = trial(1, &[&[600]]);
    let is_high = |m: &i64| high.iter().any(|(from, to)| (*from..*to).contains(m));
    let scores: Vec<f64> = minutes
        .iter()
        .map(|m| if is_high(m) { 0.9 } else { 0.1 })
        .collect();
    act(&trial, &scores, 0.65, &manner())
}

#[test]
fn an_incident_is_foretold_by_an_alarm_that_lasts_until_it() {
    for (high, drains, lead, false_episodes) in [
        // (stretches of a high score, drains, minutes of lead, alarms in which nothing happened)
        (&[][..], 0, None, 0),
        (&[(580, 600)], 1, Some(19), 0),
        // It has to be confirmed: one row is nothing.
        (&[(580, 581)], 0, None, 0),
        (&[(596, 598)], 1, Some(3), 0),
        // The last row before the incident is its gap away; an alarm after that comes too late.
        (&[(597, 600)], 0, None, 0),
        // A dip that is shorter than the way back does not end it, a longer one does.
        (&[(575, 580), (588, 600)], 1, Some(24), 0),
        (&[(570, 575), (590, 600)], 2, Some(9), 1),
        (&[(570, 575)], 1, None, 1),
        // Nothing came of it.
        (&[(100, 110)], 1, None, 1),
        (&[(100, 110), (300, 310), (580, 600)], 3, Some(19), 2),
        // An alarm that lasts is a drain for every horizon, and no lead is longer than that.
        (&[(100, 200)], 4, None, 1),
        (&[(540, 600)], 2, Some(30), 0),
        (&[(0, 600)], 20, Some(30), 0),
    ] {
        let outcome = acted(high);
        assert_eq!(outcome.drains.len(), drains, "{high:?}");
        assert_eq!(outcome.leads, [lead.map(|m: u32| m * MINUTE)], "{high:?}");
        assert_eq!(outcome.false_episodes, false_episodes, "{high:?}");
        assert_eq!(
            outcome.needless(),
            drains - usize::from(lead.is_some()),
            "{high:?}"
        );
    }
}

#[test]
fn a_row_without_a_score_is_neither_an_alarm_nor_its_end() {
    let (trial, minutes) = trial(1, &[&[600]]);
    let scores = |of: fn(i64) -> f64| -> Vec<f64> { minutes.iter().map(|m| of(*m)).collect() };
    let unknown = act(&trial, &scores(|_| f64::NAN), 0.5, &manner());
    assert_eq!((unknown.drains.len(), unknown.missed()), (0, 1));
    let dark = |m| match m {
        575..580 => 0.9,
        580..600 => f64::NAN,
        _ => 0.1,
    };
    assert_eq!(act(&trial, &scores(dark), 0.5, &manner()).foretold(), 1);
}

#[test]
fn what_nobody_could_foretell_is_counted_apart() {
    // The second begins within the hour after the first, in which there are no rows.
    let (trial, _) = trial(1, &[&[600, 655], &[], &[900]]);
    assert_eq!(trial.incidents().len(), 2);
    assert_eq!(trial.unjudged(), 1);
    assert_eq!(trial.nodes_befallen(), 2);
    assert_eq!(trial.nodes().len(), 3);
    let rows = trial.rows().len() as f64;
    assert!((trial.node_days() - rows / 1_440.0).abs() < 1e-9);
}

/// Twenty-four Nodes for two days, with an incident each now and then.
fn fleet(seed: u64) -> (Trial, Vec<bool>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let incidents: Vec<Vec<i64>> = (0..24)
        .map(|_| {
            let each = (0..2).map(|day| day * DAY + 100 + below(&mut rng, 1_200) as i64);
            each.filter(|m| m % 3 != 0).collect()
        })
        .collect();
    let lists: Vec<&[i64]> = incidents.iter().map(Vec::as_slice).collect();
    let trial = trial(2, &lists).0;
    let labels = trial.labels();
    (trial, labels)
}

/// A model that knows, but for `blind` of ten incidents, and cries wolf now and then.
fn scores(trial: &Trial, seed: u64, blind: u32, wolf: u64) -> Scores {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut cries = 0;
    let model = trial.rows().iter().map(|row| {
        if below(&mut rng, 10_000) < wolf {
            cries = 5;
        }
        cries = i32::max(cries - 1, 0);
        match row.incident {
            Some(incident) if incident % 10 >= blind => 0.8,
            _ if cries > 0 => 0.7,
            _ => 0.001,
        }
    });
    // Sees `of_ten` of ten incidents, and these eight minutes before.
    let late = |row: &trial::Row, of_ten: u32| {
        let seen = row.incident.filter(|incident| incident % 10 < of_ten);
        let from = seen.map(|i| trial.incidents()[i as usize].from);
        let is = from.is_some_and(|from| foreshock_core::time::since(row.at, from) < 8 * MINUTE);
        f64::from(u8::from(is))
    };
    let noise = |rng: &mut ChaCha8Rng| below(rng, 1_000) as f64 / 1_000.0;
    Scores {
        model: model.collect(),
        baselines: BTreeMap::from([
            (
                Baseline::StaticThresholds,
                trial
                    .rows()
                    .iter()
                    .map(|row| noise(&mut rng) * 0.5 + 0.5 * late(row, 6))
                    .collect(),
            ),
            (
                Baseline::LargestDeviation,
                trial.rows().iter().map(|_| 5.0 * noise(&mut rng)).collect(),
            ),
            (
                Baseline::PendingAlerts,
                trial.rows().iter().map(|row| late(row, 4)).collect(),
            ),
        ]),
    }
}

fn terms(incident_cost: f64) -> Terms {
    Terms {
        manner: manner(),
        incident_cost,
        at_risk: 0.65,
        seed: 11,
    }
}

fn judged(blind: u32, wolf: u64, incident_cost: f64) -> Judgement {
    let (earlier, test) = (fleet(1).0, fleet(2).0);
    let (before, scores) = (scores(&earlier, 3, 0, 5), scores(&test, 4, blind, wolf));
    judge((&earlier, &before), (&test, &scores), &terms(incident_cost)).unwrap()
}

#[test]
fn a_model_that_knows_wins_and_the_account_adds_up() {
    let judgement = judged(1, 5, 10.0);
    assert!(
        judgement.incidents > 20 && judgement.nodes_befallen > 10,
        "{judgement:?}"
    );
    let at = judgement.at_operators_cost().unwrap();
    assert_eq!(at.lost_to().count(), 0, "{at:#?}");
    assert!((judgement.threshold - 0.125).abs() < 1e-12);
    let never = &at.beside[0];
    assert_eq!(never.baseline, Baseline::NeverAct);
    let incidents = judgement.incidents as f64;
    assert!((never.figures.cost - 10.0 * incidents / judgement.node_days).abs() < 1e-9);
    assert_eq!(
        (
            never.figures.recall,
            never.figures.drains,
            never.figures.lead_median
        ),
        (0.0, 0, None)
    );
    assert!(never.high < 0.0, "it wins beyond chance: {never:?}");
    let model = &at.model;
    let foretold = incidents - model.missed as f64;
    assert!((model.recall - foretold / incidents).abs() < 1e-12);
    let cost = model.drains as f64 + 10.0 * (model.missed as f64 + 0.2 * foretold);
    assert!((model.cost - cost / judgement.node_days).abs() < 1e-9);
    for one in &at.beside {
        let difference = model.cost - one.figures.cost;
        assert!(one.low <= difference && difference <= one.high, "{one:?}");
    }
    // It warns about half an hour before.
    assert!(model.lead_median.unwrap() >= 25 * MINUTE, "{model:?}");
    assert!(model.lead_p10.unwrap() <= model.lead_median.unwrap());
    assert_eq!(judgement.leads.len() as f64, foretold);
    assert!(judgement.rows.pr_auc > judgement.pr_auc[&Baseline::LargestDeviation]);
    assert!(!judgement.pr_auc.contains_key(&Baseline::NeverAct));
}

#[test]
fn a_model_that_sees_nothing_or_cries_wolf_loses() {
    for (name, judgement) in [
        ("blind", judged(10, 30, 10.0)),
        ("wolf", judged(0, 300, 2.0)),
    ] {
        let at = judgement.at_operators_cost().unwrap();
        let lost: Vec<Baseline> = at.lost_to().map(|one| one.baseline).collect();
        assert!(lost.contains(&Baseline::NeverAct), "{name}: {at:#?}");
    }
}

#[test]
fn the_operators_cost_is_judged_beside_the_usual_ones() {
    let costs = |incident_cost| -> Vec<f64> {
        let all = judged(1, 5, incident_cost).costs;
        all.iter().map(|at| at.incident_cost).collect()
    };
    assert_eq!(costs(3.0), [1.0, 2.0, 3.0, 4.0, 8.0, 16.0, 32.0, 64.0]);
    assert_eq!(costs(8.0), INCIDENT_COSTS);
}

#[test]
fn the_same_seed_gives_the_same_judgement() {
    assert_eq!(judged(1, 5, 5.0), judged(1, 5, 5.0));
}

#[test]
fn thresholds_of_baselines_come_from_the_earlier_part_alone() {
    let (earlier, test) = (fleet(1).0, fleet(2).0);
    let before = scores(&earlier, 3, 0, 5);
    let mut scores = scores(&test, 4, 1, 5);
    let thresholds = |scores: &Scores| -> Vec<f64> {
        let judgement = judge((&earlier, &before), (&test, scores), &terms(5.0)).unwrap();
        let at = judgement.costs.iter();
        at.flat_map(|at| at.beside.iter().map(|one| one.figures.threshold))
            .collect()
    };
    let once = thresholds(&scores);
    for scores in scores.baselines.values_mut() {
        scores.reverse();
    }
    assert_eq!(thresholds(&scores), once);
}

#[test]
fn what_cannot_be_judged_is_refused() {
    let (earlier, test) = (fleet(1).0, fleet(2).0);
    let (before, good) = (scores(&earlier, 3, 0, 5), scores(&test, 4, 1, 5));
    let refused = |scores: &Scores, terms: &Terms| {
        judge((&earlier, &before), (&test, scores), terms)
            .unwrap_err()
            .to_string()
    };
    let mut short = good.clone();
    short.model.pop();
    assert!(refused(&short, &terms(5.0)).contains("scores of `model` for"));
    let mut short = good.clone();
    short
        .baselines
        .get_mut(&Baseline::PendingAlerts)
        .unwrap()
        .pop();
    assert!(refused(&short, &terms(5.0)).contains("scores of `pending alerts` for"));
    let mut wrong = good.clone();
    wrong.model[0] = 1.5;
    assert!(refused(&wrong, &terms(5.0)).contains("no probability"));
    for cost in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(refused(&good, &terms(cost)).contains("cannot be worth"));
    }
    let quiet = trial(1, &[&[], &[]]).0;
    let scores = scores(&quiet, 5, 0, 0);
    let none = judge((&earlier, &before), (&quiet, &scores), &terms(5.0));
    assert_eq!(none, Err(JudgeError::NoIncidents));
}

#[test]
fn a_curve_keeps_its_ends() {
    let point = |i: usize| PrecisionRecall {
        threshold: 1.0 - i as f64 / 5_000.0,
        precision: 0.5,
        recall: (i as f64 / 5_000.0).sqrt(),
    };
    let curve: Vec<_> = (1..=5_000).map(point).collect();
    let few = thinned(curve.clone());
    assert!((150..=CURVE_MAX + 2).contains(&few.len()), "{}", few.len());
    assert_eq!((few.first(), few.last()), (curve.first(), curve.last()));
}

#[test]
fn the_threshold_falls_with_what_an_incident_is_worth() {
    for (incident_cost, expected) in [(0.5, 1.0), (1.25, 1.0), (2.0, 0.625), (10.0, 0.125)] {
        assert!((threshold(incident_cost) - expected).abs() < 1e-12);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_incident_is_foretold_or_missed_and_every_drain_is_counted_once(
        seed in any::<u64>(), threshold in 0.0..1.0f64, late in 0..40i64,
    ) {
        let (trial, minutes) = trial(1, &[&[300, 900 + late], &[], &[50]]);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut level = 0.0;
        let scores: Vec<f64> = minutes
            .iter()
            .map(|_| {
                level = 0.9 * level + 0.1 * (below(&mut rng, 1_000) as f64 / 1_000.0);
                if below(&mut rng, 50) == 0 { f64::NAN } else { level }
            })
            .collect();
        let outcome = act(&trial, &scores, threshold, &manner());
        prop_assert_eq!(outcome.leads.len(), trial.incidents().len());
        prop_assert_eq!(outcome.foretold() + outcome.missed(), trial.incidents().len());
        prop_assert_eq!(outcome.drains.len() - outcome.needless(), outcome.foretold());
        prop_assert!(outcome.false_episodes <= outcome.needless());
        for drain in &outcome.drains {
            prop_assert!(scores[drain.row] >= threshold);
        }
        for lead in outcome.leads.iter().flatten() {
            prop_assert!(*lead <= 30 * MINUTE && *lead > 2 * MINUTE);
        }
        prop_assert_eq!(act(&trial, &scores, f64::INFINITY, &manner()).drains.len(), 0);
    }
}
