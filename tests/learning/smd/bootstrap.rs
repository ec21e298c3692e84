//! How much of a difference is chance: both scores on the same events, drawn again and again.

use std::collections::BTreeMap;

use foreshock::model::boost::unit;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::task::Row;

/// How often events are drawn.
const DRAWS: usize = 1_000;

/// Between which numbers 95 % of the differences in PR-AUC (first less second) lie, all rows taken
/// together.
pub(crate) fn difference(rows: &[Row], first: &[f64], second: &[f64]) -> (f64, f64) {
    within(draws(rows, first, second, 1))
}

/// The same of the mean PR-AUC of the machines, each taken by itself.
pub(crate) fn difference_of_means(rows: &[Row], first: &[f64], second: &[f64]) -> (f64, f64) {
    let places = by_machine(rows);
    let mut sums = vec![0.0; DRAWS];
    let machines = places.len() as f64;
    for (machine, places) in &places {
        let rows: Vec<Row> = places.iter().map(|at| rows[*at]).collect();
        let of = |scores: &[f64]| places.iter().map(|at| scores[*at]).collect::<Vec<f64>>();
        // Another seed for each, for machines have nothing to do with each other.
        let drawn = draws(&rows, &of(first), &of(second), *machine as u64 + 1);
        for (sum, difference) in sums.iter_mut().zip(drawn) {
            *sum += difference / machines;
        }
    }
    within(sums)
}

/// Places of the rows of each machine.
pub(crate) fn by_machine(rows: &[Row]) -> BTreeMap<usize, Vec<usize>> {
    let mut places: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, row) in rows.iter().enumerate() {
        places.entry(row.machine).or_default().push(at);
    }
    places
}

fn within(mut differences: Vec<f64>) -> (f64, f64) {
    differences.sort_by(f64::total_cmp);
    (differences[DRAWS / 40], differences[DRAWS - 1 - DRAWS / 40])
}

/// Differences in PR-AUC when the events are drawn again, with replacement. Rows of an event come and
/// go together, the same for both scores; rows of none stay.
fn draws(rows: &[Row], first: &[f64], second: &[f64], seed: u64) -> Vec<f64> {
    let mut numbers: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for event in rows.iter().filter_map(|row| row.event) {
        let next = numbers.len();
        numbers.entry(event).or_insert(next);
    }
    let of_row: Vec<Option<usize>> = rows
        .iter()
        .map(|row| numbers.get(&row.event?).copied())
        .collect();
    let (first, second) = (order(first), order(second));
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let drawn = (0..DRAWS).map(|_| {
        let mut weights = vec![0u32; numbers.len()];
        for _ in 0..numbers.len() {
            weights[(unit(&mut rng) * numbers.len() as f64) as usize] += 1;
        }
        area(&first, &of_row, &weights) - area(&second, &of_row, &weights)
    });
    drawn.collect()
}

/// Rows from the highest score down, each with its score.
fn order(scores: &[f64]) -> Vec<(usize, f64)> {
    let mut rows: Vec<(usize, f64)> = scores.iter().copied().enumerate().collect();
    rows.sort_by(|a, b| b.1.total_cmp(&a.1));
    rows
}

/// Average precision with a weight for each event; rows of equal score count together.
fn area(order: &[(usize, f64)], of_row: &[Option<usize>], weights: &[u32]) -> f64 {
    let positives: f64 = of_row
        .iter()
        .flatten()
        .map(|event| f64::from(weights[*event]))
        .sum();
    let (mut area, mut hits, mut seen) = (0.0, 0.0, 0.0);
    for tied in order.chunk_by(|a, b| a.1 == b.1) {
        let mut more = 0.0;
        for (row, _) in tied {
            match of_row[*row] {
                Some(event) => more += f64::from(weights[event]),
                None => seen += 1.0,
            }
        }
        hits += more;
        seen += more;
        if seen > 0.0 {
            area += more * hits / seen;
        }
    }
    if positives > 0.0 {
        area / positives
    } else {
        0.0
    }
}
