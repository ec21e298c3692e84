//! Calibration: two numbers that turn a score's log-odds into honest ones.
//!
//! Two numbers and no curve, so that explanations stay exact: contributions in log-odds add up to what is said.

use super::artifact::Calibration;
use super::measure::one_log_loss;

/// A steeper slope only makes sure what was sure already.
const SLOPE_MAX: f64 = 50.0;

/// How often rows are weighed anew by what is said of them.
const ROUNDS: usize = 2;

/// Slope and intercept for rows that the trees have not seen, where it matters: Platt's fit, with each row
/// weighed by the root of what is said of it.
///
/// Nearly all rows are Nodes that are well, and what two numbers cannot do for both they would do for those:
/// whether 0.002 or 0.003 is said of a Node changes nothing, and at 0.65 it is drained. `docs/learners.md` has
/// what came of it.
pub fn calibrate(log_odds: &[f64], labels: &[bool]) -> Calibration {
    calibrate_below(log_odds, labels, SLOPE_MAX)
}

/// The same, with a slope of at most so much.
pub fn calibrate_below(log_odds: &[f64], labels: &[bool], slope_max: f64) -> Calibration {
    let mut weights = vec![1.0; log_odds.len()];
    let mut best = fit(log_odds, labels, &weights, slope_max);
    for _ in 0..ROUNDS {
        for (weight, x) in weights.iter_mut().zip(log_odds) {
            let said = 1.0 / (1.0 + libm::exp(-(best.slope * x + best.intercept)));
            *weight = said.sqrt();
        }
        best = fit(log_odds, labels, &weights, slope_max);
    }
    best
}

/// Platt's calibration, in which every row counts alike: the least logistic loss.
pub fn platt(log_odds: &[f64], labels: &[bool]) -> Calibration {
    fit(log_odds, labels, &vec![1.0; log_odds.len()], SLOPE_MAX)
}

/// Fits slope and intercept on weighed rows.
///
/// Smoothed targets keep the answer finite where the score separates perfectly; the slope is never
/// negative; and a Newton step is halved until it helps, because plain Newton diverges on a
/// saturated score and then turns the order of the rows around. Without a row of either class the
/// answer is to leave the score as it is.
fn fit(log_odds: &[f64], labels: &[bool], weights: &[f64], slope_max: f64) -> Calibration {
    let slope_max = slope_max.clamp(0.0, SLOPE_MAX);
    let n = log_odds.len().min(labels.len());
    let positives = labels.iter().take(n).filter(|y| **y).count();
    if positives == 0 || positives == n {
        return Calibration {
            slope: slope_max.min(1.0),
            intercept: 0.0,
        };
    }
    let rows = || {
        let rows = log_odds.iter().zip(labels).zip(weights);
        rows.map(|((x, y), weight)| (*x, *y, *weight))
    };
    let total: f64 = rows().map(|(_, _, weight)| weight).sum();
    let high = (positives as f64 + 1.0) / (positives as f64 + 2.0);
    let low = 1.0 / ((n - positives) as f64 + 2.0);
    let target = |y: bool| if y { high } else { low };
    let loss = |slope: f64, intercept: f64| -> f64 {
        let each = rows().map(|(x, y, weight)| {
            let z = slope * x + intercept;
            let t = target(y);
            weight * (t * one_log_loss(z, true) + (1.0 - t) * one_log_loss(z, false))
        });
        each.sum::<f64>() / total
    };

    let (mut slope, mut intercept) = (slope_max.min(1.0), 0.0);
    let mut now = loss(slope, intercept);
    for _ in 0..100 {
        let (mut g_s, mut g_i, mut h_ss, mut h_si, mut h_ii) = (0.0, 0.0, 1e-9, 0.0, 1e-9);
        for (x, y, weight) in rows() {
            let p = 1.0 / (1.0 + libm::exp(-(slope * x + intercept)));
            let (error, width) = (weight * (p - target(y)), weight * p * (1.0 - p));
            g_s += error * x;
            g_i += error;
            h_ss += width * x * x;
            h_si += width * x;
            h_ii += width;
        }
        // At a bound that the slope should go beyond, only the intercept is left to move.
        if (slope == 0.0 && g_s > 0.0) || (slope == slope_max && g_s < 0.0) {
            (g_s, h_si, h_ss) = (0.0, 0.0, 1.0);
        }
        let determinant = h_ss * h_ii - h_si * h_si;
        if determinant.is_nan() || determinant <= 0.0 {
            break;
        }
        let d_s = (h_ii * g_s - h_si * g_i) / determinant;
        let d_i = (h_ss * g_i - h_si * g_s) / determinant;
        let mut step = 1.0;
        let better = loop {
            let s: f64 = (slope - step * d_s).clamp(0.0, slope_max);
            let i: f64 = intercept - step * d_i;
            let next = loss(s, i);
            if next < now && i.abs() <= 50.0 {
                break Some((s, i, next));
            }
            step *= 0.5;
            if step < 1e-8 {
                break None;
            }
        };
        let Some((s, i, next)) = better else { break };
        let gain = now - next;
        (slope, intercept, now) = (s, i, next);
        if gain < 1e-12 {
            break;
        }
    }
    Calibration { slope, intercept }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Labels drawn (evenly, without chance) so that the true log-odds are `truth(x)`.
    fn rows(truth: impl Fn(f64) -> f64) -> (Vec<f64>, Vec<bool>) {
        let (mut scores, mut labels) = (Vec::new(), Vec::new());
        for step in 0..81 {
            let x = f64::from(step) / 10.0 - 4.0;
            let p = 1.0 / (1.0 + libm::exp(-truth(x)));
            for i in 0..1_000 {
                scores.push(x);
                labels.push((f64::from(i) + 0.5) / 1_000.0 < p);
            }
        }
        (scores, labels)
    }

    #[test]
    fn a_score_that_is_too_sure_is_brought_back() {
        let (scores, labels) = rows(|x| 0.5 * x - 1.0);
        let fit = platt(&scores, &labels);
        assert!((fit.slope - 0.5).abs() < 0.01, "{fit:?}");
        assert!((fit.intercept + 1.0).abs() < 0.02, "{fit:?}");
    }

    #[test]
    fn where_two_numbers_do_not_suffice_they_are_right_at_the_top() {
        // Of a fiftieth of the rows the label is drawn by chance: below that floor nothing is to be known.
        let odds = |p: f64| libm::log(p / (1.0 - p));
        let truth = |x: f64| 0.02 + 0.98 / (1.0 + libm::exp(-(2.0 * x - 2.0)));
        let (mut scores, mut labels) = rows(|x| odds(truth(x)));
        // And most rows are far below it.
        for i in 0..400_000 {
            scores.push(-3.0 - f64::from(i % 100) / 100.0);
            labels.push(i % 50 == 0);
        }
        let off = |fit: Calibration| {
            let z = fit.slope * 1.5 + fit.intercept;
            (1.0 / (1.0 + libm::exp(-z)) - truth(1.5)).abs()
        };
        let alike = off(platt(&scores, &labels));
        let weighed = off(calibrate(&scores, &labels));
        assert!(weighed < 0.6 * alike, "{weighed} {alike}");
    }

    #[test]
    fn a_score_that_points_the_wrong_way_is_silenced_not_turned_around() {
        let (scores, labels) = rows(|x| -x - 1.0);
        let fit = platt(&scores, &labels);
        assert_eq!(fit.slope, 0.0);
        let share = labels.iter().filter(|y| **y).count() as f64 / labels.len() as f64;
        assert!(
            (fit.intercept - libm::log(share / (1.0 - share))).abs() < 0.01,
            "{fit:?}"
        );
    }

    #[test]
    fn a_saturated_score_keeps_its_order() {
        let scores: Vec<f64> = (0..2_000)
            .map(|i| if i < 1_900 { -30.0 } else { 30.0 })
            .collect();
        let labels: Vec<bool> = (0..2_000).map(|i| i >= 1_890).collect();
        let fit = platt(&scores, &labels);
        assert!(
            fit.slope > 0.0 && fit.slope.is_finite() && fit.intercept.is_finite(),
            "{fit:?}"
        );
    }

    #[test]
    fn below_a_bound_the_fit_is_the_same_and_at_it_the_mean_is_still_right() {
        let (scores, labels) = rows(|x| 0.8 * x - 2.0);
        let free = calibrate(&scores, &labels);
        let below = calibrate_below(&scores, &labels, 0.9);
        assert!(
            (below.slope - free.slope).abs() < 1e-6,
            "{below:?} {free:?}"
        );
        for bound in [0.0, 0.3, 0.7] {
            let fit = calibrate_below(&scores, &labels, bound);
            assert_eq!(fit.slope, bound);
            // With the weights that it was fitted with.
            let (mut expected, mut came) = (0.0, 0.0);
            for (x, y) in scores.iter().zip(&labels) {
                let p = 1.0 / (1.0 + libm::exp(-(bound * x + fit.intercept)));
                expected += p.sqrt() * p;
                came += if *y { p.sqrt() } else { 0.0 };
            }
            assert!(
                (expected / came - 1.0).abs() < 1e-2,
                "{expected} {came} {fit:?}"
            );
        }
    }

    #[test]
    fn one_class_alone_changes_nothing() {
        let unchanged = Calibration {
            slope: 1.0,
            intercept: 0.0,
        };
        assert_eq!(platt(&[1.0, 2.0], &[true, true]), unchanged);
        assert_eq!(platt(&[], &[]), unchanged);
    }
}
