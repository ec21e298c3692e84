use super::*;
use crate::model::boost::{Settings, unit};
use crate::model::testing::model;
use crate::model::trees::leaf_value;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// Half log-odds with the players in `from_row` as in the row, the others as in the reference.
fn game(trees: &FlatTrees, players: &Players, row: &[u8], reference: &[u8], from_row: u32) -> f64 {
    let codes: Vec<u8> = (0..row.len())
        .map(|i| {
            if from_row >> players.of_column[i] & 1 == 1 {
                row[i]
            } else {
                reference[i]
            }
        })
        .collect();
    trees
        .trees
        .iter()
        .map(|tree| f64::from(leaf_value(tree, &codes)))
        .sum()
}

/// Shapley values by their definition: over all subsets of the other players.
fn brute_force(trees: &FlatTrees, players: &Players, row: &[u8], reference: &[u8]) -> Vec<f64> {
    let n = players.names.len();
    let factorial = |k: usize| (1..=k).map(|i| i as f64).product::<f64>();
    let value = |set| game(trees, players, row, reference, set);
    (0..n)
        .map(|player| {
            (0..1u32 << n)
                .filter(|set| set >> player & 1 == 0)
                .map(|set| {
                    let size = set.count_ones() as usize;
                    let share = factorial(size) * factorial(n - 1 - size) / factorial(n);
                    share * (value(set | 1 << player) - value(set))
                })
                .sum()
        })
        .collect()
}

#[test]
fn contributions_are_the_shapley_values_of_the_metrics() {
    let mut compared = 0;
    for (names, depth) in [
        (&["a", "b", "c", "d", "e"][..], 3),
        (&["a", "a:peers", "b", "c", "b:peers", "d"][..], 5),
        (&["a", "b", "c", "d", "e", "f", "g"][..], 6),
    ] {
        let artifact = model(
            names,
            &Settings {
                depth,
                trees_max: 15,
                ..Settings::default()
            },
        );
        let content = artifact.content();
        let trees = FlatTrees::new(&content.gbdt);
        let players = Players::new(names.iter().copied());
        let mut rng = ChaCha8Rng::seed_from_u64(depth.into());
        let mut draw = || -> Vec<u8> {
            let mut code = |max: u8| (unit(&mut rng) * (f64::from(max) + 1.0)) as u8;
            content
                .columns
                .iter()
                .map(|c| code(c.edges.code_max()))
                .collect()
        };
        let mut walk = Walk::default();
        for _ in 0..15 {
            let (row, reference) = (draw(), draw());
            let mut sums = vec![0.0; players.names.len()];
            add_contributions(&trees, &players, &row, &reference, &mut walk, &mut sums);
            for (ours, truth) in sums
                .iter()
                .zip(brute_force(&trees, &players, &row, &reference))
            {
                assert!((ours - truth).abs() < 1e-12, "{ours} is not {truth}");
                compared += usize::from(truth != 0.0);
            }
        }
    }
    assert!(compared > 100, "only {compared} values that are not 0");
}

#[test]
fn weights_are_shares_of_orders() {
    assert!((weight(0, 0) - 1.0).abs() < 1e-15);
    assert!((weight(1, 0) - 0.5).abs() < 1e-15);
    assert!((weight(2, 1) - 2.0 / 24.0).abs() < 1e-15);
    assert!((weight(2, 3) - 2.0 * 6.0 / 720.0).abs() < 1e-15);
}
