//! How often what was said came true, with the interval that chance alone explains.

/// One bin of what was said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bin {
    /// Lower end of the bin, a probability.
    pub from: f64,
    /// Upper end.
    pub to: f64,
    /// Rows in the bin.
    pub rows: u64,
    /// Those that came true.
    pub positives: u64,
    /// Mean of what was said.
    pub predicted: f64,
    /// Share that came true.
    pub observed: f64,
    /// Lower end of the exact interval of the rate behind `observed`, by [`binomial_interval`].
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// The reliability of probabilities over `n_bins` bins of equal width; bins without rows are left out.
/// Not-a-number is no row. `confidence` is that of each bin's interval, such as 0.95.
///
/// # Caveats
///
/// The interval takes rows for independent. Those of one incident are not, so the truth is wider.
pub fn reliability(
    probabilities: &[f64],
    labels: &[bool],
    n_bins: usize,
    confidence: f64,
) -> Vec<Bin> {
    let n_bins = n_bins.max(1);
    let mut counts = vec![(0u64, 0u64, 0.0f64); n_bins];
    for (p, y) in probabilities
        .iter()
        .zip(labels)
        .filter(|(p, _)| !p.is_nan())
    {
        let bin = &mut counts[((p * n_bins as f64) as usize).min(n_bins - 1)];
        bin.0 += 1;
        bin.1 += u64::from(*y);
        bin.2 += p;
    }
    let filled = counts.iter().enumerate().filter(|(_, bin)| bin.0 > 0);
    filled
        .map(|(i, (rows, positives, sum))| {
            let (low, high) = binomial_interval(*positives, *rows, confidence);
            Bin {
                from: i as f64 / n_bins as f64,
                to: (i + 1) as f64 / n_bins as f64,
                rows: *rows,
                positives: *positives,
                predicted: sum / *rows as f64,
                observed: *positives as f64 / *rows as f64,
                low,
                high,
            }
        })
        .collect()
}

/// The exact interval (Clopper and Pearson) of the rate behind `hits` of `rows`. Everything, for no rows.
pub fn binomial_interval(hits: u64, rows: u64, confidence: f64) -> (f64, f64) {
    if rows == 0 || hits > rows {
        return (0.0, 1.0);
    }
    let tail = (1.0 - confidence.clamp(0.0, 1.0)) / 2.0;
    let (k, n) = (hits as f64, rows as f64);
    let low = if hits == 0 {
        0.0
    } else {
        solve(|p| incomplete_beta(k, n - k + 1.0, p) < tail)
    };
    let high = if hits == rows {
        1.0
    } else {
        solve(|p| incomplete_beta(k + 1.0, n - k, p) < 1.0 - tail)
    };
    (low, high)
}

/// Where `is_below` turns from true to false between 0 and 1.
fn solve(is_below: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if is_below(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// The regularised incomplete beta function, by its continued fraction (Lentz's way).
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    let log_front = libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b)
        + a * libm::log(x)
        + b * libm::log1p(-x);
    let front = libm::exp(log_front);
    // The fraction converges quickly on this side of the mean only.
    if x < (a + 1.0) / (a + b + 2.0) {
        front * fraction(a, b, x) / a
    } else {
        1.0 - front * fraction(b, a, 1.0 - x) / b
    }
}

fn fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let off_zero = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / off_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut result = d;
    // It takes about the square root of the larger argument; this is enough for ten thousand million rows.
    for m in 1..100_000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / off_zero(1.0 + even * d);
        c = off_zero(1.0 + even / c);
        result *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / off_zero(1.0 + odd * d);
        c = off_zero(1.0 + odd / c);
        result *= d * c;
        if (d * c - 1.0).abs() < 1e-14 {
            break;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_clopper_and_pearsons() {
        for (hits, rows, confidence, low, high) in [
            // Closed forms: 1 - tail^(1/n), and what the table of scipy's binomtest says.
            (0, 10, 0.95, 0.0, 0.308_497_1),
            (10, 10, 0.95, 0.691_502_9, 1.0),
            (1, 10, 0.95, 0.002_528_6, 0.445_016_1),
            (5, 10, 0.95, 0.187_086_0, 0.812_914_0),
            (50, 100, 0.95, 0.398_321_1, 0.601_678_9),
            (3, 1_000, 0.95, 0.000_619_1, 0.008_742_2),
        ] {
            let (l, h) = binomial_interval(hits, rows, confidence);
            assert!(
                (l - low).abs() < 1e-6 && (h - high).abs() < 1e-6,
                "{hits}/{rows}: {l} {h}"
            );
        }
        assert_eq!(binomial_interval(0, 0, 0.95), (0.0, 1.0));
    }

    #[test]
    fn the_ends_have_the_tails_that_they_should() {
        // By the sum of the binomial distribution itself.
        let at_most = |k: u64, n: u64, p: f64| -> f64 {
            let choose = |k: u64| {
                libm::exp(
                    libm::lgamma(n as f64 + 1.0)
                        - libm::lgamma(k as f64 + 1.0)
                        - libm::lgamma((n - k) as f64 + 1.0),
                )
            };
            (0..=k)
                .map(|k| choose(k) * libm::pow(p, k as f64) * libm::pow(1.0 - p, (n - k) as f64))
                .sum()
        };
        for (k, n) in [(1, 7), (3, 7), (6, 7), (2, 40), (20, 60), (59, 60)] {
            let (low, high) = binomial_interval(k, n, 0.99);
            assert!((at_most(k, n, high) - 0.005).abs() < 1e-9, "{k}/{n} {high}");
            assert!(
                (1.0 - at_most(k - 1, n, low) - 0.005).abs() < 1e-9,
                "{k}/{n} {low}"
            );
        }
        // As good as the normal one for millions, and quick.
        let (low, high) = binomial_interval(2_000_000, 5_000_000, 0.95);
        assert!((high - low - 2.0 * 1.959_964 * (0.24f64 / 5e6).sqrt()).abs() < 1e-6);
    }

    #[test]
    fn bins_hold_what_was_said_and_what_came() {
        let said = [0.05, 0.02, 0.95, 1.0, 0.9, f64::NAN];
        let came = [false, true, true, true, false, true];
        let bins = reliability(&said, &came, 10, 0.95);
        assert_eq!(bins.len(), 2);
        assert_eq!((bins[0].rows, bins[0].positives), (2, 1));
        assert!((bins[0].predicted - 0.035).abs() < 1e-12);
        assert_eq!(
            (bins[1].from, bins[1].to, bins[1].rows, bins[1].positives),
            (0.9, 1.0, 3, 2)
        );
        assert!(
            bins.iter()
                .all(|bin| bin.low <= bin.observed && bin.observed <= bin.high)
        );
    }
}
