use ndarray::Axis;

use super::*;
use crate::model::choose::{learn_anew, learn_best, ways};
use crate::model::learn::probabilities;
use crate::model::taken::encode;
use crate::model::testing::{plan, slices};

/// Rows go round: every third is of a Node of the same hand.
fn hands(slices: &Slices) -> Hands {
    let dealt = |slice: &Slice| (0..slice.labels.len()).map(|row| (row % 3) as u8).collect();
    Hands {
        count: 3,
        train: dealt(&slices.train),
        validation: dealt(&slices.validation),
        calibration: dealt(&slices.calibration),
    }
}

fn few() -> Vec<Way> {
    let mut ways = ways(20);
    ways.truncate(2);
    ways
}

/// The rows that were not dealt to a hand.
fn without(slice: &Slice, dealt: &[u8], hand: u8) -> Slice {
    let rows: Vec<usize> = (0..dealt.len()).filter(|row| dealt[*row] != hand).collect();
    Slice {
        values: slice.values.select(Axis(0), &rows),
        labels: rows.iter().map(|row| slice.labels[*row]).collect(),
    }
}

#[test]
fn blind_models_have_not_seen_their_hand() {
    let (slices, way) = (slices(), few().remove(0));
    let hands = hands(&slices);
    let learned = learn_by_hands(
        &plan(4),
        std::slice::from_ref(&way),
        &slices,
        &hands,
        |_, _| {},
    )
    .unwrap();
    assert_eq!(learned.blind.len(), 3);
    let trees = learned.tried[0].trees;
    for (hand, blind) in (0..).zip(&learned.blind) {
        let others = Slices {
            train: without(&slices.train, &hands.train, hand),
            validation: without(&slices.validation, &hands.validation, hand),
            ..slices.clone()
        };
        let same = learn_anew(&plan(4), &way, trees, &others, |_| {}).unwrap();
        assert_eq!(blind.content().gbdt, same.content().gbdt);
        assert_eq!(blind.content().columns, same.content().columns);
    }
    let all = learn_anew(&plan(4), &way, trees, &slices, |_| {}).unwrap();
    assert_eq!(learned.model.content().gbdt, all.content().gbdt);
    // Nor has their calibration been fitted on a row of it.
    let mut turned = slices.clone();
    for (label, hand) in turned.calibration.labels.iter_mut().zip(&hands.calibration) {
        *label ^= *hand == 1;
    }
    let other = learn_by_hands(&plan(4), &[way], &turned, &hands, |_, _| {}).unwrap();
    let calibrations = |learned: &ByHands| -> Vec<_> {
        let models = learned.blind.iter().chain([&learned.model]);
        models
            .map(|model| (model.content().calibration, model.content().gaps.clone()))
            .collect()
    };
    let (before, after) = (calibrations(&learned), calibrations(&other));
    assert_eq!(before[1], after[1]);
    for changed in [0, 2, 3] {
        assert_ne!(before[changed], after[changed]);
    }
}

#[test]
fn the_same_rows_give_the_same_models_and_all_that_was_tried_is_told() {
    let slices = slices();
    let hands = hands(&slices);
    let mut told = Vec::new();
    let learned = learn_by_hands(&plan(4), &few(), &slices, &hands, |trees, all| {
        assert_eq!(
            all, 120,
            "two ways, the model of all, and three that are blind"
        );
        told.push(trees);
    })
    .unwrap();
    let names: Vec<&str> = learned.tried.iter().map(|way| way.name.as_str()).collect();
    assert_eq!(names, ["usual", "fine bins"]);
    let least = usize::from(learned.tried[1].loss < learned.tried[0].loss);
    assert_eq!(learned.chosen, least);
    assert!(told.is_sorted() && told.last() == Some(&120), "{told:?}");
    let of = |number: usize| {
        let trees = told.iter().filter(|trees| (**trees - 1) / 20 == number);
        trees.map(|trees| trees - number * 20).max().unwrap()
    };
    assert_eq!(of(2), learned.tried[learned.chosen].trees);
    let again = learn_by_hands(&plan(4), &few(), &slices, &hands, |_, _| {}).unwrap();
    let bytes = |learned: &ByHands| -> Vec<Vec<u8>> {
        let models = learned.blind.iter().chain([&learned.model]);
        models.map(|model| model.to_bytes().unwrap()).collect()
    };
    assert_eq!(bytes(&learned), bytes(&again));
    assert_eq!(learned.tried, again.tried);
}

/// Rows of thirty Nodes, each with a number of its own in the first column, by which it is well or ill; of the others
/// every value is the same.
fn remembered(n: usize, seed: usize) -> (Slice, Vec<u8>) {
    let mut slice = Slice {
        values: ndarray::Array2::zeros((n, 4)),
        labels: Vec::new(),
    };
    let mut dealt = Vec::new();
    for row in 0..n {
        let node = (row * 7 + seed) % 30;
        slice.values[(row, 0)] = node as f64;
        // A third of the Nodes are ill half of the time, scattered among the others; the others hardly ever.
        let often = node * 11 % 30 < 10;
        slice.labels.push(if often {
            (row / 30) % 2 == 0
        } else {
            (row / 30) % 50 == 0
        });
        dealt.push((node % 3) as u8);
    }
    (slice, dealt)
}

#[test]
fn what_is_known_of_single_nodes_alone_makes_no_model_sure() {
    let [train, validation, calibration] =
        [(6_000, 0), (3_000, 1), (6_000, 2)].map(|(n, seed)| remembered(n, seed));
    let hands = Hands {
        count: 3,
        train: train.1,
        validation: validation.1,
        calibration: calibration.1,
    };
    let slices = Slices {
        train: train.0,
        validation: validation.0,
        calibration: calibration.0,
        test: Slice::default(),
    };
    let plan = Plan {
        masks: Vec::new(),
        columns: {
            let mut columns = plan(4).columns;
            columns[0].rising = false;
            columns
        },
        ..plan(4)
    };
    let sure = |model: &Artifact| {
        let rows = encode(&model.content().columns, &slices.calibration);
        probabilities(model.content(), &rows)
            .into_iter()
            .fold(0.0, f64::max)
    };
    let way = few().remove(0);
    let seen = learn_best(&plan, std::slice::from_ref(&way), &slices, |_, _| {}).unwrap();
    let learned = learn_by_hands(&plan, &[way], &slices, &hands, |_, _| {}).unwrap();
    let (seen, unseen) = (sure(&seen.model), sure(&learned.model));
    assert!(seen > 0.4, "{seen}");
    assert!(unseen < seen - 0.1, "{unseen} {seen}");
    let blind: Vec<f64> = learned.blind.iter().map(sure).collect();
    assert!(blind.iter().all(|p| *p < seen - 0.1), "{blind:?} {seen}");
}

#[test]
fn hands_that_teach_nothing_without_one_of_them_do_not_suffice() {
    let slices = slices();
    let enough = hands(&slices);
    assert!(enough.suffice(&slices));
    let one = Hands {
        count: 1,
        ..enough.clone()
    };
    assert!(!one.suffice(&slices));
    // All incidents are of one hand, in any part.
    let only = |labels: &mut [bool], dealt: &[u8]| {
        for (label, hand) in labels.iter_mut().zip(dealt) {
            *label &= *hand == 0;
        }
    };
    let mut train = slices.clone();
    only(&mut train.train.labels, &enough.train);
    let mut calibration = slices.clone();
    only(&mut calibration.calibration.labels, &enough.calibration);
    let mut validation = slices.clone();
    validation.validation.labels.fill(false);
    for (slices, what) in [
        (train, "train"),
        (calibration, "calibration"),
        (validation, "validation"),
    ] {
        assert!(!enough.suffice(&slices), "{what}");
    }
    let mut rare = slices.clone();
    only(&mut rare.validation.labels, &enough.validation);
    assert!(
        enough.suffice(&rare),
        "to choose by, all hands count together"
    );
    // Rows without a hand would teach everybody.
    let mut short = enough.clone();
    short.train.pop();
    let mut nobody = enough.clone();
    nobody.calibration[5] = u8::MAX;
    for hands in [one, short, nobody] {
        assert!(!hands.suffice(&slices));
    }
    assert!(matches!(
        learn_by_hands(&plan(4), &[], &slices, &enough, |_, _| {}),
        Err(LearnError::NoWay)
    ));
}

#[test]
fn where_no_hand_can_be_left_out_there_is_a_model_of_all_nodes_and_no_blind_one() {
    let slices = slices();
    let mut hands = hands(&slices);
    hands.count = 1;
    let mut told = Vec::new();
    let learned = learn_by_hands(&plan(4), &few(), &slices, &hands, |trees, all| {
        assert_eq!(all, 60);
        told.push(trees);
    })
    .unwrap();
    assert!(learned.blind.is_empty());
    assert_eq!(told.last(), Some(&60));
    let best = learn_best(&plan(4), &few(), &slices, |_, _| {}).unwrap();
    assert_eq!((learned.chosen, &learned.tried), (best.chosen, &best.tried));
    let (way, trees) = (&few()[best.chosen], best.tried[best.chosen].trees);
    let anew = learn_anew(&plan(4), way, trees, &slices, |_| {}).unwrap();
    assert_eq!(learned.model.to_bytes().unwrap(), anew.to_bytes().unwrap());
}

#[test]
fn the_way_that_carries_over_to_other_nodes_is_taken_and_stops_by_them() {
    // By the first column Nodes can be told, by the second a little of what is so on all of them.
    let with_a_sign = |n, seed| {
        let (mut slice, dealt) = remembered(n, seed);
        for row in 0..n {
            let sign = slice.labels[row] == (row % 10 < 7);
            slice.values[(row, 1)] = f64::from(u8::from(sign));
        }
        (slice, dealt)
    };
    let [train, validation, calibration] =
        [(6_000, 0), (3_000, 1), (6_000, 2)].map(|(n, seed)| with_a_sign(n, seed));
    let hands = Hands {
        count: 3,
        train: train.1,
        validation: validation.1,
        calibration: calibration.1,
    };
    let slices = Slices {
        train: train.0,
        validation: validation.0,
        calibration: calibration.0,
        test: Slice::default(),
    };
    let mut plan = plan(4);
    plan.masks.clear();
    plan.columns[0].rising = false;
    let only = |name: &str, column| Way {
        name: name.to_owned(),
        columns: Some(vec![column]),
        ..few().remove(0)
    };
    let ways = [only("which Node", 0), only("the sign", 1)];
    let seen = learn_best(&plan, &ways, &slices, |_, _| {}).unwrap();
    assert_eq!(seen.chosen, 0, "{:?}", seen.tried);
    let unseen = learn_by_hands(&plan, &ways, &slices, &hands, |_, _| {}).unwrap();
    assert_eq!(unseen.chosen, 1, "{:?}", unseen.tried);
    // Trees that know Nodes only get worse on others, so they stop at once.
    assert!(unseen.tried[0].trees < 5, "{:?}", unseen.tried);
    assert!(
        seen.tried[0].trees > unseen.tried[0].trees,
        "{:?}",
        seen.tried
    );
}
