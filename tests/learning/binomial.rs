//! The exact binomial interval (Clopper and Pearson, 1934).

/// Between which shares the true one lies, `hits` of `rows` having been seen, but for a chance of at
/// most `alpha`: those of which the observed count is neither an improbably high nor an improbably
/// low outcome, at `alpha / 2` each.
pub(crate) fn interval(hits: usize, rows: usize, alpha: f64) -> (f64, f64) {
    let low = search(|p| at_least(hits, rows, p) < alpha / 2.0);
    let high = 1.0 - search(|q| at_least(rows - hits, rows, q) < alpha / 2.0);
    (
        if hits == 0 { 0.0 } else { low },
        if hits == rows { 1.0 } else { high },
    )
}

/// Where in `0.0..1.0` a statement that is true below some number ceases to be.
fn search(below: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        *if below(middle) { &mut low } else { &mut high } = middle;
    }
    0.5 * (low + high)
}

/// The chance of so many hits or more in so many rows.
fn at_least(hits: usize, rows: usize, p: f64) -> f64 {
    let (n, ln) = (rows as f64, libm::log);
    let chance = |k: usize| {
        let k = k as f64;
        let ways = libm::lgamma(n + 1.0) - libm::lgamma(k + 1.0) - libm::lgamma(n - k + 1.0);
        libm::exp(ways + k * ln(p) + (n - k) * ln(1.0 - p))
    };
    (hits..=rows).map(chance).sum()
}

/// That the interval is that of the tables.
///
/// # Errors
///
/// What is not.
pub(crate) fn check() -> anyhow::Result<()> {
    // From SciPy: binomtest(hits, rows).proportion_ci(1 - alpha, "exact").
    for (hits, rows, alpha, low, high) in [
        (8, 10, 0.05, 0.443_904_5, 0.974_789_3),
        (0, 20, 0.05, 0.0, 0.168_433_5),
        (20, 20, 0.05, 0.831_566_5, 1.0),
        (65, 100, 0.05, 0.548_150_6, 0.742_706_2),
    ] {
        let found = interval(hits, rows, alpha);
        anyhow::ensure!(
            (found.0 - low).abs() < 1e-6 && (found.1 - high).abs() < 1e-6,
            "the binomial interval of {hits} in {rows} came out as {found:?}"
        );
    }
    Ok(())
}
