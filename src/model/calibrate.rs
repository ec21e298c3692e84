//! Calibration: two numbers that turn a score's log-odds into honest ones.
//!
//! Two numbers and no curve, so that explanations stay exact: contributions in log-odds add up to what is said.

use super::artifact::Calibration;
use super::measure::one_log_loss;

/// A steeper slope only makes sure what was sure already.
const SLOPE_MAX: f64 = 50.0;
/// The most that slope and mean score make together, so that an intercept stays within what a model file may have.
const SHIFT_MAX: f64 = 50.0;
/// No base rate that can be seen has log-odds beyond this.
const LOG_ODDS_MAX: f64 = 40.0;
/// How often rows are weighed anew by what is said of them.
const ROUNDS: usize = 2;
/// Steps of a fit; ten are usual.
const STEPS_MAX: usize = 100;

/// Scores of rows that the trees have not seen, with what came true.
#[derive(Clone, Copy, Debug)]
pub struct Scored<'a> {
    /// Raw log-odds.
    pub log_odds: &'a [f64],
    /// Whether the Node degraded; one per row.
    pub labels: &'a [bool],
    /// How many rows each negative one stands for: 1, or more where negatives were thinned.
    pub each_negative: f64,
}

/// Slope and intercept where it matters: Platt's fit, with each row weighed by the root of what is said of it.
///
/// Nearly all rows are Nodes that are well, and what two numbers cannot do for both they would do for those:
/// whether 0.002 or 0.003 is said of a Node changes nothing, and at 0.65 it is drained. ADR 16 has what came of
/// it. The slope is never negative: calibration must not turn the order of the Nodes around. Without a row of
/// either class the answer is to leave the score as it is.
pub fn calibrate(rows: Scored<'_>) -> Calibration {
    weighed(rows, |fit| fit.line(SLOPE_MAX))
}

/// The same for rows that lack something, beside the calibration of rows that do not: with no larger slope, and
/// so that nothing of which less is known is called likelier to degrade than not, or likelier still, for that. So telemetry that
/// is lost is never a reason to act.
pub fn calibrate_within(rows: Scored<'_>, whole: Calibration) -> Calibration {
    if whole.slope <= 0.0 || !has_both(rows.labels) {
        return whole;
    }
    weighed(rows, |fit| {
        let free = fit.line(whole.slope);
        // At most `whole`, drawn towards even odds: what is below them stays there, and what is not does not rise.
        if free.intercept * whole.slope <= whole.intercept * free.slope {
            return free;
        }
        let share = fit.share_of(whole);
        Calibration {
            slope: share * whole.slope,
            intercept: share * whole.intercept,
        }
    })
}

/// Platt's calibration, in which every row counts alike: the least logistic loss.
pub fn platt(log_odds: &[f64], labels: &[bool]) -> Calibration {
    let rows = Scored {
        log_odds,
        labels,
        each_negative: 1.0,
    };
    if has_both(labels) {
        Fit::of(rows).line(SLOPE_MAX)
    } else {
        UNCHANGED
    }
}

const UNCHANGED: Calibration = Calibration {
    slope: 1.0,
    intercept: 0.0,
};

fn has_both(labels: &[bool]) -> bool {
    labels.contains(&true) && labels.contains(&false)
}

/// Fits, and again with the rows weighed by the root of what the last fit says of them.
fn weighed(rows: Scored<'_>, fit_by: impl Fn(&Fit<'_>) -> Calibration) -> Calibration {
    if !has_both(rows.labels) {
        return UNCHANGED;
    }
    let mut fit = Fit::of(rows);
    let mut best = fit_by(&fit);
    for _ in 0..ROUNDS {
        fit.weigh(best);
        best = fit_by(&fit);
    }
    best
}

/// Rows of both classes with their weights.
struct Fit<'a> {
    rows: Scored<'a>,
    /// One per row.
    weights: Vec<f64>,
    /// What a positive and a negative row are fitted to: a little short of 1 and 0, which keeps the answer finite
    /// where the score separates perfectly.
    targets: (f64, f64),
}

/// Loss, its slope and its curvature in one direction.
#[derive(Clone, Copy, Default)]
struct Along {
    slope: f64,
    curve: f64,
}

impl<'a> Fit<'a> {
    fn of(rows: Scored<'a>) -> Self {
        let positives = rows.labels.iter().filter(|y| **y).count() as f64;
        let negatives = (rows.labels.len() as f64 - positives) * rows.each_negative;
        let weight = |y: &bool| if *y { 1.0 } else { rows.each_negative };
        Self {
            weights: rows.labels.iter().map(weight).collect(),
            targets: (
                (positives + 1.0) / (positives + 2.0),
                1.0 / (negatives + 2.0),
            ),
            rows,
        }
    }

    /// Weighs each row by the root of what is said of it.
    fn weigh(&mut self, said: Calibration) {
        let rows = self.rows.log_odds.iter().zip(self.rows.labels);
        for (weight, (x, y)) in self.weights.iter_mut().zip(rows) {
            let root = logistic(said.slope * x + said.intercept).sqrt();
            *weight = root * if *y { 1.0 } else { self.rows.each_negative };
        }
    }

    /// Score, target and weight of every row.
    fn each(&self) -> impl Iterator<Item = (f64, f64, f64)> + '_ {
        let rows = self.rows.log_odds.iter().zip(self.rows.labels);
        rows.zip(&self.weights).map(|((x, y), weight)| {
            let target = if *y { self.targets.0 } else { self.targets.1 };
            (*x, target, *weight)
        })
    }

    /// Slope and intercept of the least loss, with a slope from 0 to so much.
    fn line(&self, slope_max: f64) -> Calibration {
        let total: f64 = self.each().map(|(_, _, weight)| weight).sum();
        let mean = self.each().map(|(x, _, weight)| weight * x).sum::<f64>() / total;
        let square = |(x, _, weight): (f64, f64, f64)| weight * (x - mean) * (x - mean);
        let spread = (self.each().map(square).sum::<f64>() / total).sqrt();
        let slope_max = slope_max
            .clamp(0.0, SLOPE_MAX)
            .min(SHIFT_MAX / mean.abs().max(1.0));
        let slope = self.free_slope(mean, spread).clamp(0.0, slope_max);
        // The loss has no hollow, so where the best slope is out of reach, the bound is the best within.
        let height = self.height(slope, mean);
        Calibration {
            slope,
            intercept: height - slope * mean,
        }
    }

    /// The slope of the least loss, whatever it is; 0 where all scores are one.
    fn free_slope(&self, mean: f64, spread: f64) -> f64 {
        if spread.is_nan() || spread <= 0.0 {
            return 0.0;
        }
        // Counted from the mean and in spreads, or a score that hardly varies stops every step short.
        let (mut slope, mut height) = (spread, mean);
        let loss = |slope: f64, height: f64| -> f64 {
            let each = self.each().map(|(x, target, weight)| {
                let z = slope * (x - mean) / spread + height;
                weight * (target * one_log_loss(z, true) + (1.0 - target) * one_log_loss(z, false))
            });
            each.sum()
        };
        let mut now = loss(slope, height);
        for _ in 0..STEPS_MAX {
            let (mut g_s, mut g_h, mut h_ss, mut h_sh, mut h_hh) = (0.0, 0.0, 0.0, 0.0, 0.0);
            for (x, target, weight) in self.each() {
                let u = (x - mean) / spread;
                let p = logistic(slope * u + height);
                let (error, width) = (weight * (p - target), weight * p * (1.0 - p));
                g_s += error * u;
                g_h += error;
                h_ss += width * u * u;
                h_sh += width * u;
                h_hh += width;
            }
            let determinant = h_ss * h_hh - h_sh * h_sh;
            if determinant.is_nan() || determinant <= 0.0 {
                break;
            }
            let d_s = (h_hh * g_s - h_sh * g_h) / determinant;
            let d_h = (h_ss * g_h - h_sh * g_s) / determinant;
            // Plain Newton diverges on a saturated score: a step is halved until it helps.
            let mut step = 1.0;
            let better = loop {
                let (s, h) = (slope - step * d_s, height - step * d_h);
                let next = loss(s, h);
                if next < now {
                    break Some((s, h, next));
                }
                step *= 0.5;
                if step < 1e-8 {
                    break None;
                }
            };
            let Some((s, h, next)) = better else { break };
            let gain = now - next;
            (slope, height, now) = (s, h, next);
            if gain < 1e-12 * now {
                break;
            }
        }
        slope / spread
    }

    /// What is said of the mean score, in log-odds, at the least loss with this slope.
    fn height(&self, slope: f64, mean: f64) -> f64 {
        least((-LOG_ODDS_MAX, LOG_ODDS_MAX), |height| {
            let each = self.each().map(|(x, target, weight)| {
                let p = logistic(slope * (x - mean) + height);
                (weight * (p - target), weight * p * (1.0 - p))
            });
            Along::of(each)
        })
    }

    /// The share of another calibration's log-odds with the least loss, from none to all of it.
    fn share_of(&self, whole: Calibration) -> f64 {
        least((0.0, 1.0), |share| {
            let each = self.each().map(|(x, target, weight)| {
                let z = whole.slope * x + whole.intercept;
                let p = logistic(share * z);
                (weight * (p - target) * z, weight * p * (1.0 - p) * z * z)
            });
            Along::of(each)
        })
    }
}

impl Along {
    fn of(each: impl Iterator<Item = (f64, f64)>) -> Self {
        each.fold(Self::default(), |sum, (slope, curve)| Self {
            slope: sum.slope + slope,
            curve: sum.curve + curve,
        })
    }
}

/// Where a loss without a hollow is least between two bounds: Newton's steps, and halves where those lead out.
fn least((mut low, mut high): (f64, f64), loss: impl Fn(f64) -> Along) -> f64 {
    if loss(low).slope >= 0.0 {
        return low;
    }
    if loss(high).slope <= 0.0 {
        return high;
    }
    let mut at = f64::midpoint(low, high);
    for _ in 0..STEPS_MAX {
        let here = loss(at);
        if here.slope < 0.0 {
            low = at;
        } else {
            high = at;
        }
        let step = at - here.slope / here.curve;
        let next = if step > low && step < high {
            step
        } else {
            f64::midpoint(low, high)
        };
        if (next - at).abs() < 1e-12 {
            return next;
        }
        at = next;
    }
    at
}

fn logistic(z: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-z))
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
            for i in 0..200 {
                scores.push(x);
                labels.push((f64::from(i) + 0.5) / 200.0 < p);
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

    /// Of a fiftieth of the rows the label is drawn by chance: below that floor nothing is to be known.
    fn floored_truth(x: f64) -> f64 {
        0.02 + 0.98 * logistic(2.0 * x - 2.0)
    }

    /// Such rows, most of them far below the floor.
    fn floored() -> (Vec<f64>, Vec<bool>) {
        let odds = |p: f64| libm::log(p / (1.0 - p));
        let (mut scores, mut labels) = rows(|x| odds(floored_truth(x)));
        for i in 0..80_000 {
            scores.push(-3.0 - f64::from(i % 100) / 100.0);
            labels.push(i % 50 == 0);
        }
        (scores, labels)
    }

    #[test]
    fn where_two_numbers_do_not_suffice_they_are_right_at_the_top() {
        let (scores, labels) = floored();
        let off = |fit: Calibration| {
            let z = fit.slope * 1.5 + fit.intercept;
            (1.0 / (1.0 + libm::exp(-z)) - floored_truth(1.5)).abs()
        };
        let alike = off(platt(&scores, &labels));
        let weighed = off(calibrate(scored(&scores, &labels)));
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

    fn scored<'a>(log_odds: &'a [f64], labels: &'a [bool]) -> Scored<'a> {
        Scored {
            log_odds,
            labels,
            each_negative: 1.0,
        }
    }

    /// The weighed means of what is said and of what came, with the weights that a calibration gives.
    fn said_and_came(scores: &[f64], labels: &[bool], fit: Calibration) -> (f64, f64) {
        let (mut said, mut came) = (0.0, 0.0);
        for (x, y) in scores.iter().zip(labels) {
            let p = logistic(fit.slope * x + fit.intercept);
            said += p.sqrt() * p;
            came += if *y { p.sqrt() } else { 0.0 };
        }
        (said, came)
    }

    #[test]
    fn rows_that_lack_something_are_never_called_likelier_for_that() {
        let (scores, labels) = rows(|x| 0.8 * x - 2.0);
        let free = calibrate(scored(&scores, &labels));
        for (whole, expected) in [
            // Within what is allowed it is the fit of its own.
            (
                Calibration {
                    slope: 0.9,
                    intercept: -1.5,
                },
                Some(free),
            ),
            // It would be steeper, or say more.
            (
                Calibration {
                    slope: 0.5,
                    intercept: -1.0,
                },
                None,
            ),
            (
                Calibration {
                    slope: 0.9,
                    intercept: -4.0,
                },
                None,
            ),
            (
                Calibration {
                    slope: 1.0,
                    intercept: -9.0,
                },
                None,
            ),
            (
                Calibration {
                    slope: 0.0,
                    intercept: -3.0,
                },
                Some(Calibration {
                    slope: 0.0,
                    intercept: -3.0,
                }),
            ),
        ] {
            let fit = calibrate_within(scored(&scores, &labels), whole);
            if let Some(expected) = expected {
                assert!(
                    (fit.slope - expected.slope).abs() < 1e-6,
                    "{whole:?} {fit:?}"
                );
                assert!(
                    (fit.intercept - expected.intercept).abs() < 1e-6,
                    "{whole:?} {fit:?}"
                );
            }
            assert!(fit.slope <= whole.slope, "{whole:?} {fit:?}");
            for raw in -80..80 {
                let raw = f64::from(raw) / 4.0;
                let (before, after) = (
                    whole.slope * raw + whole.intercept,
                    fit.slope * raw + fit.intercept,
                );
                assert!(after <= before.max(0.0) + 1e-9, "{whole:?} {fit:?} {raw}");
            }
        }
    }

    #[test]
    fn thinned_negatives_change_little() {
        // Of a fiftieth of the rows the label is drawn by chance, and most rows are far below.
        let (scores, labels) = floored();
        let whole = calibrate(scored(&scores, &labels));
        let negatives = |labels: &[bool]| labels.iter().filter(|y| !**y).count() as f64;
        for each in [5, 20] {
            let lot = |i: usize| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            let kept = (0..scores.len()).filter(|i| labels[*i] || lot(*i) % each == 0);
            let (thin, true_of): (Vec<f64>, Vec<bool>) =
                kept.map(|i| (scores[i], labels[i])).unzip();
            let fit = calibrate(Scored {
                log_odds: &thin,
                labels: &true_of,
                each_negative: negatives(&labels) / negatives(&true_of),
            });
            for x in [0.0, 1.0, 1.5, 2.0] {
                let said = |of: Calibration| logistic(of.slope * x + of.intercept);
                let off = said(fit) - said(whole);
                assert!(
                    off.abs() < 0.03,
                    "one in {each}, {x}: {} {}",
                    said(fit),
                    said(whole)
                );
            }
        }
    }

    #[test]
    fn scores_that_hardly_vary_say_the_base_rate() {
        // The higher score is the better one: the slope is 0, and the intercept the base rate's.
        let scores: Vec<f64> = (0..2_000)
            .map(|i| if i < 1_000 { -4.01 } else { -3.99 })
            .collect();
        let labels: Vec<bool> = (0..2_000)
            .map(|i| i < 60 || (1_000..1_040).contains(&i))
            .collect();
        let fit = calibrate(scored(&scores, &labels));
        let said = logistic(fit.slope * -4.0 + fit.intercept);
        assert!(
            fit.slope == 0.0 && (said - 0.05).abs() < 0.002,
            "{fit:?} {said}"
        );
        // Six of a hundred, and those with the lowest scores.
        let scores: Vec<f64> = (0..2_000)
            .map(|i| 5.0 + 0.02 * f64::from(i % 100))
            .collect();
        let labels: Vec<bool> = (0..2_000).map(|i| i % 100 < 6).collect();
        let fit = calibrate(scored(&scores, &labels));
        let said = logistic(fit.slope * 6.0 + fit.intercept);
        assert!(
            fit.slope == 0.0 && (said - 0.06).abs() < 0.002,
            "{fit:?} {said}"
        );
        // And all the same.
        let fit = calibrate(scored(
            &[3.0; 100],
            &(0..100).map(|i| i < 10).collect::<Vec<_>>(),
        ));
        let said = logistic(fit.slope * 3.0 + fit.intercept);
        assert!((said - 0.1).abs() < 0.01, "{fit:?} {said}");
    }

    #[test]
    fn an_intercept_fits_into_a_model_file_whatever_the_scores_are() {
        for far in [-50.0, -20.0, 20.0, 50.0] {
            let scores: Vec<f64> = (0..1_000).map(|i| far + 0.001 * f64::from(i)).collect();
            let labels: Vec<bool> = (0..1_000).map(|i| i >= 900).collect();
            let fit = calibrate(scored(&scores, &labels));
            assert!(fit.intercept.abs() < 100.0, "{far}: {fit:?}");
            let (said, came) = said_and_came(&scores, &labels, fit);
            assert!(
                (said / came - 1.0).abs() < 0.05,
                "{far}: {fit:?} {said} {came}"
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
        assert_eq!(calibrate(scored(&[1.0, 2.0], &[false, false])), unchanged);
        assert_eq!(platt(&[], &[]), unchanged);
    }
}
