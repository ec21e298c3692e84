//! How good a set of probabilities is.

use super::artifact::Validation;

/// The figures of a model card, for probabilities and what then happened.
///
/// All zero for no rows. Values that are not probabilities must not be given.
pub fn judge(probabilities: &[f64], labels: &[bool]) -> Validation {
    let n = probabilities.len().min(labels.len());
    if n == 0 {
        return Validation::default();
    }
    let rows = n as f64;
    let base_rate = labels.iter().filter(|y| **y).count() as f64 / rows;
    let error = |p: f64, y: bool| (p - f64::from(u8::from(y))) * (p - f64::from(u8::from(y)));
    let brier = probabilities
        .iter()
        .zip(labels)
        .map(|(p, y)| error(*p, *y))
        .sum::<f64>()
        / rows;
    let constant = base_rate * (1.0 - base_rate);
    Validation {
        rows: n as u64,
        base_rate,
        pr_auc: average_precision(probabilities, labels),
        brier,
        brier_skill: if constant > 0.0 {
            1.0 - brier / constant
        } else {
            0.0
        },
        ece: expected_calibration_error(probabilities, labels),
    }
}

/// Area under the precision-recall curve as average precision; rows of equal score count together.
pub fn average_precision(scores: &[f64], labels: &[bool]) -> f64 {
    let cuts = cuts(scores, labels);
    let positives = cuts.last().map_or(0, |cut| cut.hits);
    if positives == 0 {
        return 0.0;
    }
    let (mut area, mut before) = (0.0, 0);
    for Cut { hits, seen, .. } in cuts {
        area += ((hits - before) as f64 / positives as f64) * (hits as f64 / seen as f64);
        before = hits;
    }
    area.min(1.0)
}

/// A point of the precision-recall curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrecisionRecall {
    /// Rows of at least this score are taken as positive.
    pub threshold: f64,
    /// Share of those that are positive.
    pub precision: f64,
    /// Share of the positive rows among them.
    pub recall: f64,
}

/// The precision-recall curve, from the highest score down; a point for each different score. Empty without
/// a positive row.
pub fn precision_recall(scores: &[f64], labels: &[bool]) -> Vec<PrecisionRecall> {
    let cuts = cuts(scores, labels);
    let positives = cuts.last().map_or(0, |cut| cut.hits);
    let point = |cut: Cut| PrecisionRecall {
        threshold: cut.score,
        precision: cut.hits as f64 / cut.seen as f64,
        recall: cut.hits as f64 / positives as f64,
    };
    let any = positives > 0;
    cuts.into_iter().filter(|_| any).map(point).collect()
}

/// Rows of at least `score`: how many, and how many of them are positive.
struct Cut {
    score: f64,
    hits: usize,
    seen: usize,
}

fn cuts(scores: &[f64], labels: &[bool]) -> Vec<Cut> {
    let mut rows: Vec<(f64, bool)> = scores.iter().copied().zip(labels.iter().copied()).collect();
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut hits, mut seen) = (0, 0);
    let tied = rows.chunk_by(|a, b| a.0 == b.0);
    tied.map(|tied| {
        hits += tied.iter().filter(|row| row.1).count();
        seen += tied.len();
        let score = tied[0].0;
        Cut { score, hits, seen }
    })
    .collect()
}

/// Mean distance between predicted and observed share over ten bins of equal width.
pub fn expected_calibration_error(probabilities: &[f64], labels: &[bool]) -> f64 {
    let mut bins = [(0usize, 0.0f64, 0usize); 10];
    for (p, y) in probabilities.iter().zip(labels) {
        let bin = &mut bins[((p * 10.0) as usize).min(9)];
        bin.0 += 1;
        bin.1 += p;
        bin.2 += usize::from(*y);
    }
    let rows: usize = bins.iter().map(|bin| bin.0).sum();
    let off: f64 = bins
        .iter()
        .map(|(_, sum, hits)| (sum - *hits as f64).abs())
        .sum();
    if rows == 0 { 0.0 } else { off / rows as f64 }
}

/// Mean logistic loss of log-odds.
pub fn log_loss(log_odds: &[f64], labels: &[bool]) -> f64 {
    let sum: f64 = log_odds
        .iter()
        .zip(labels)
        .map(|(x, y)| one_log_loss(*x, *y))
        .sum();
    sum / log_odds.len().max(1) as f64
}

/// Mean logistic loss of log-odds once they are shifted, all by the same, to the true share of
/// positives. Where there are rows of one kind only, they are left as they are.
pub fn centred_log_loss(log_odds: &[f64], labels: &[bool]) -> f64 {
    let n = log_odds.len().min(labels.len());
    let positives = labels.iter().take(n).filter(|y| **y).count();
    if positives == 0 || positives == n {
        return log_loss(log_odds, labels);
    }
    let mut shift = 0.0;
    // Newton's steps on a convex function; a long one is cut short, so that none overshoots for good.
    for _ in 0..50 {
        let (mut expected, mut width) = (0.0, 1e-9);
        for x in log_odds {
            let p = 1.0 / (1.0 + libm::exp(-(x + shift)));
            expected += p;
            width += p * (1.0 - p);
        }
        let step = ((positives as f64 - expected) / width).clamp(-1.0, 1.0);
        shift += step;
        if step.abs() < 1e-9 {
            break;
        }
    }
    let shifted: Vec<f64> = log_odds.iter().map(|x| x + shift).collect();
    log_loss(&shifted, labels)
}

/// Logistic loss of one row.
pub(super) fn one_log_loss(log_odds: f64, label: bool) -> f64 {
    let x = if label { -log_odds } else { log_odds };
    // ln(1 + e^x) without overflow.
    if x > 0.0 {
        x + libm::log1p(libm::exp(-x))
    } else {
        libm::log1p(libm::exp(x))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_precision_is_one_for_a_perfect_order_and_the_base_rate_for_none() {
        let labels = [true, true, false, false, false, false, false, false];
        let perfect = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2];
        assert!((average_precision(&perfect, &labels) - 1.0).abs() < 1e-12);
        assert!((average_precision(&[0.5; 8], &labels) - 0.25).abs() < 1e-12);
        let worst: Vec<f64> = perfect.iter().rev().copied().collect();
        assert!(average_precision(&worst, &labels) < 0.25);
    }

    #[test]
    fn the_curve_has_a_point_for_each_score() {
        let curve = precision_recall(&[0.9, 0.5, 0.5, 0.1], &[true, false, true, false]);
        let points: Vec<_> = curve
            .iter()
            .map(|point| (point.threshold, point.precision, point.recall))
            .collect();
        let expected = [(0.9, 1.0, 0.5), (0.5, 2.0 / 3.0, 1.0), (0.1, 0.5, 1.0)];
        assert_eq!(points, expected);
        assert_eq!(precision_recall(&[0.9], &[false]), []);
    }

    #[test]
    fn a_loss_with_the_prior_put_right_does_not_see_a_shift_of_all_log_odds() {
        let odds: Vec<f64> = (0..200).map(|i| f64::from(i) / 25.0 - 6.0).collect();
        let labels: Vec<bool> = (0..200).map(|i| i % 7 == 0 || i > 190).collect();
        let centred = centred_log_loss(&odds, &labels);
        assert!(centred < log_loss(&odds, &labels));
        for shift in [-20.0, -1.0, 5.0] {
            let shifted: Vec<f64> = odds.iter().map(|x| x + shift).collect();
            let loss = centred_log_loss(&shifted, &labels);
            assert!((loss - centred).abs() < 1e-9, "{shift}: {loss} {centred}");
        }
        assert_eq!(
            centred_log_loss(&odds, &[true; 200]),
            log_loss(&odds, &[true; 200])
        );
    }

    #[test]
    fn saying_the_base_rate_has_no_skill_and_no_calibration_error() {
        let labels: Vec<bool> = (0..100).map(|i| i % 10 == 0).collect();
        let figures = judge(&[0.1; 100], &labels);
        assert!(figures.brier_skill.abs() < 1e-9);
        assert!(figures.ece < 1e-9);
        let sure = judge(&[1.0; 100], &labels);
        assert!((sure.ece - 0.9).abs() < 1e-9);
        assert!(sure.brier_skill < 0.0);
    }
}
