use super::*;
use crate::model::bins::MISSING;
use crate::model::boost::{Settings, unit};
use crate::model::testing::{imported, model};
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
    let small = |names: &[&str], depth| {
        let settings = Settings {
            depth,
            trees_max: 15,
            ..Settings::default()
        };
        model(names, &settings)
    };
    for (artifact, seed) in [
        (small(&["a", "b", "c", "d", "e"], 3), 3),
        (small(&["a", "a:peers", "b", "c", "b:peers", "d"], 5), 5),
        (small(&["a", "b", "c", "d", "e", "f", "g"], 6), 6),
        // Its splits send missing values left and right.
        (imported(), 7),
    ] {
        let content = artifact.content();
        let trees = FlatTrees::new(&content.gbdt);
        let players = Players::new(content.columns.iter().map(|c| c.name.as_str()));
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut draw = || -> Vec<u8> {
            let mut code = |max: u8| {
                let missing = unit(&mut rng) < 0.2;
                let code = (unit(&mut rng) * (f64::from(max) + 1.0)) as u8;
                if missing { MISSING } else { code }
            };
            content
                .columns
                .iter()
                .map(|c| code(c.edges.code_max()))
                .collect()
        };
        for _ in 0..15 {
            let (row, reference) = (draw(), draw());
            let compared_with = compare(&trees, &players, &row, &reference);
            let added = &compared_with.added;
            let scored = |codes: &[u8]| {
                let mut half = [0.0];
                trees.add(codes, codes.len(), &mut half);
                half[0]
            };
            assert_eq!(compared_with.row, scored(&row));
            assert_eq!(compared_with.reference, scored(&reference));
            for (ours, truth) in added
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
    assert!((WEIGHTS[0][0] - 1.0).abs() < 1e-15);
    assert!((WEIGHTS[1][0] - 0.5).abs() < 1e-15);
    assert!((WEIGHTS[2][1] - 2.0 / 24.0).abs() < 1e-15);
    assert!((WEIGHTS[2][3] - 2.0 * 6.0 / 720.0).abs() < 1e-15);
}
