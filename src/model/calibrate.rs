//! Platt's calibration: two numbers that turn a score's log-odds into honest ones.

use super::artifact::Calibration;
use super::measure::one_log_loss;

/// Fits slope and intercept on rows that the trees have not seen.
///
/// Smoothed targets keep the answer finite where the score separates perfectly; the slope is never
/// negative; and a Newton step is halved until it helps, because plain Newton diverges on a
/// saturated score and then turns the order of the rows around. Without a row of either class the
/// answer is to leave the score as it is.
pub fn platt(log_odds: &[f64], labels: &[bool]) -> Calibration {
    let n = log_odds.len().min(labels.len());
    let positives = labels.iter().take(n).filter(|y| **y).count();
    if positives == 0 || positives == n {
        return Calibration {
            slope: 1.0,
            intercept: 0.0,
        };
    }
    let high = (positives as f64 + 1.0) / (positives as f64 + 2.0);
    let low = 1.0 / ((n - positives) as f64 + 2.0);
    let target = |y: bool| if y { high } else { low };
    let loss = |slope: f64, intercept: f64| -> f64 {
        let each = log_odds.iter().zip(labels).map(|(x, y)| {
            let z = slope * x + intercept;
            let t = target(*y);
            t * one_log_loss(z, true) + (1.0 - t) * one_log_loss(z, false)
        });
        each.sum::<f64>() / n as f64
    };

    let (mut slope, mut intercept) = (1.0, 0.0);
    let mut now = loss(slope, intercept);
    for _ in 0..100 {
        let (mut g_s, mut g_i, mut h_ss, mut h_si, mut h_ii) = (0.0, 0.0, 1e-9, 0.0, 1e-9);
        for (x, y) in log_odds.iter().zip(labels) {
            let p = 1.0 / (1.0 + libm::exp(-(slope * x + intercept)));
            let (error, width) = (p - target(*y), p * (1.0 - p));
            g_s += error * x;
            g_i += error;
            h_ss += width * x * x;
            h_si += width * x;
            h_ii += width;
        }
        // At a slope of zero that should fall further, only the intercept is left to move.
        if slope == 0.0 && g_s > 0.0 {
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
            let s: f64 = (slope - step * d_s).clamp(0.0, 50.0);
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
    fn one_class_alone_changes_nothing() {
        let unchanged = Calibration {
            slope: 1.0,
            intercept: 0.0,
        };
        assert_eq!(platt(&[1.0, 2.0], &[true, true]), unchanged);
        assert_eq!(platt(&[], &[]), unchanged);
    }
}
