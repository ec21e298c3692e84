use rand_chacha::rand_core::SeedableRng;

use super::*;

fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

#[test]
fn of_the_rows_those_furthest_off_are_seen_and_the_others_stand_for_each_other() {
    let side = OneSided::of(1_000, 0.1, 0.2, 0);
    assert_eq!(side, OneSided { top: 100, each: 5 });
    // Every tenth row is far off, by turns above and below.
    let targets: Vec<f32> = (0..1_000)
        .map(|i| match i % 20 {
            3 => 0.9,
            13 => -0.9,
            _ => -0.01,
        })
        .collect();
    let (seen, weights) = side.draw(&targets, &mut rng(1));
    let off: Vec<usize> = (0..1_000).filter(|row| row % 10 == 3).collect();
    let top: Vec<usize> = seen
        .iter()
        .zip(&weights)
        .filter(|(_, each)| **each == 1)
        .map(|(row, _)| *row)
        .collect();
    assert_eq!(top, off);
    assert_eq!(seen.len(), 280);
    assert_eq!(
        weights.iter().sum::<u32>(),
        1_000,
        "together they stand for all"
    );
    assert!(seen.is_sorted_by(|a, b| a < b), "no row twice");
    assert_eq!(side.draw(&targets, &mut rng(1)), (seen.clone(), weights));
    assert_ne!(side.draw(&targets, &mut rng(2)).0, seen);
}

#[test]
fn of_rows_that_are_all_alike_any_are_the_furthest() {
    let side = OneSided::of(1_000, 0.1, 0.1, 0);
    let furthest = |seed| {
        let (seen, weights) = side.draw(&[0.25; 1_000], &mut rng(seed));
        let each = seen.into_iter().zip(weights);
        let top: Vec<usize> = each.filter(|(_, w)| *w == 1).map(|(row, _)| row).collect();
        top
    };
    assert_eq!(furthest(1).len(), 100);
    assert_ne!(furthest(1), furthest(2));
    let mean = furthest(1).iter().sum::<usize>() as f64 / 100.0;
    assert!((400.0..600.0).contains(&mean), "not the first ones: {mean}");
}

#[test]
fn a_tree_sees_so_many_rows_at_least_and_all_of_few() {
    assert_eq!(
        OneSided::of(10_000, 0.1, 0.1, 5_000),
        OneSided {
            top: 2_500,
            each: 3
        }
    );
    for (n, top, drawn, least) in [
        (1, 0.1, 0.1, 0),
        (7, 1.0, 0.0, 0),
        (400, 0.1, 0.1, 5_000),
        (9, 2.0, 3.0, 0),
    ] {
        let side = OneSided::of(n, top, drawn, least);
        let targets: Vec<f32> = (0..n).map(|i| i as f32).collect();
        let (seen, weights) = side.draw(&targets, &mut rng(3));
        assert_eq!(weights.iter().sum::<u32>() as usize, n, "{n} {top} {drawn}");
        if least > n {
            assert_eq!(seen.len(), n);
        }
    }
}

#[test]
fn columns_are_dealt_so_that_each_is_seen_as_often_as_any_other() {
    for seed in 0..50 {
        let (mut rng, mut deck, mut seen) = (rng(seed), Deck::new(10, 0.3), [0u32; 10]);
        for _ in 0..40 {
            let set = deck.deal(&mut rng);
            assert_eq!(set.len(), 3);
            assert!(set.is_sorted_by(|a, b| a < b));
            for column in set {
                seen[column] += 1;
            }
        }
        assert!(seen.iter().all(|n| *n == 12), "{seen:?}");
    }
    assert_eq!(Deck::new(4, 1.0).deal(&mut rng(1)), [0, 1, 2, 3]);
    assert_eq!(Deck::new(4, 0.0).deal(&mut rng(1)).len(), 1);
}
