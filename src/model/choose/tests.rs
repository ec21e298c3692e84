use super::*;
use crate::model::learn::learn;
use crate::model::testing::{plan, slices};

fn few() -> Vec<Way> {
    let mut ways = ways(30);
    ways.truncate(2);
    ways
}

fn only(name: &str, columns: &[usize]) -> Way {
    Way {
        name: name.to_owned(),
        columns: Some(columns.to_vec()),
        ..few().remove(0)
    }
}

#[test]
fn the_way_with_the_least_loss_gives_the_model_and_all_that_was_tried_is_told() {
    // The hazard is in the first three columns; the fourth is noise.
    let given = [only("noise", &[3]), few().remove(0), only("two", &[0, 1])];
    let mut seen = Vec::new();
    let best = learn_best(&plan(4), &given, &slices(), |way, trees| {
        seen.push((way, trees));
    })
    .unwrap();
    assert_eq!(best.chosen, 1);
    let names: Vec<&str> = best.tried.iter().map(|tried| tried.name.as_str()).collect();
    assert_eq!(names, ["noise", "usual", "two"]);
    assert!(best.tried[1].loss < best.tried[2].loss && best.tried[2].loss < best.tried[0].loss);
    assert!(best.tried[1].pr_auc > 2.0 * best.tried[0].pr_auc);
    let content = best.model.content();
    assert_eq!(content.gbdt.trees.len(), best.tried[1].trees);
    assert_eq!(content.columns.len(), 4);
    assert!(seen.contains(&(0, 1)) && seen.contains(&(2, 1)));
}

#[test]
fn a_way_alone_gives_the_model_that_its_plan_gives_and_needs_no_validation() {
    let way = few().remove(1);
    let mut alone = slices();
    for validation in [alone.validation.clone(), Slice::default()] {
        alone.validation = validation;
        let best = learn_best(&plan(4), std::slice::from_ref(&way), &alone, |_, _| {}).unwrap();
        let same = Plan {
            cut: way.cut,
            settings: Settings {
                seed: plan(4).settings.seed,
                ..way.settings.clone()
            },
            ..plan(4)
        };
        let learned = learn(&same, &alone, |_| {}).unwrap();
        assert_eq!(best.model.to_bytes().unwrap(), learned.to_bytes().unwrap());
    }
}

#[test]
fn trees_grown_anew_have_seen_the_validation_rows_as_well() {
    let ways = [only("two", &[0, 1]), few().remove(0)];
    let best = learn_best(&plan(4), &ways, &slices(), |_, _| {}).unwrap();
    let (way, trees) = (&ways[best.chosen], best.tried[best.chosen].trees);
    let mut told = Vec::new();
    let anew = learn_anew(&plan(4), way, trees, &slices(), |n| told.push(n)).unwrap();
    assert_eq!(told, (1..=trees).collect::<Vec<_>>());
    let content = anew.content();
    assert_eq!(content.gbdt.trees.len(), trees);
    assert_eq!(content.provenance.rows, 3_000);
    let positives = slices().train.positives() + slices().validation.positives();
    assert_eq!(content.provenance.positives, positives as u64);
    assert_ne!(content.gbdt, best.model.content().gbdt);
    // The same as of rows that were one part before.
    let mut joined = slices();
    let all = [&joined.train, &joined.validation].map(|part| part.values.view());
    joined.train.values = ndarray::concatenate(ndarray::Axis(0), &all).unwrap();
    let more = joined.validation.labels.clone();
    joined.train.labels.extend(more);
    joined.validation = Slice::default();
    let mut alone = way.clone();
    alone.settings.trees_max = trees;
    let one = learn_best(&plan(4), &[alone], &joined, |_, _| {}).unwrap();
    assert_eq!(one.model.content().gbdt, content.gbdt);
    // A way of some columns, too.
    let narrow = learn_anew(&plan(4), &ways[0], 7, &slices(), |_| {}).unwrap();
    assert_eq!(narrow.content().columns.len(), 2);
    assert_eq!(narrow.content().gbdt.trees.len(), 7);
}

#[test]
fn choosing_again_gives_the_same_bytes() {
    let bytes = || {
        let best = learn_best(&plan(4), &few(), &slices(), |_, _| {}).unwrap();
        (best.model.to_bytes().unwrap(), best.tried)
    };
    assert_eq!(bytes(), bytes());
}

#[test]
fn a_way_of_some_columns_makes_a_model_of_those_with_their_masks() {
    let narrow = plan(4).by(&only("turned", &[2, 1])).unwrap();
    let names: Vec<&str> = narrow.columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["f2", "f1"]);
    // Of the mask of the first two columns the second is left, now in the second place.
    assert_eq!(narrow.masks.len(), 1);
    assert_eq!(narrow.masks[0].columns, [1]);
    let best = learn_best(&plan(4), &[only("turned", &[2, 1])], &slices(), |_, _| {}).unwrap();
    let content = best.model.content();
    assert_eq!(content.columns[0].name, "f2");
    assert!(content.validation.as_ref().unwrap().brier_skill > 0.0);
}

#[test]
fn no_way_a_way_of_columns_that_are_not_there_and_rows_that_decide_nothing_are_refused() {
    let refused = |ways: &[Way], slices: &Slices, reason: &str| {
        let error = learn_best(&plan(4), ways, slices, |_, _| {}).unwrap_err();
        assert!(error.to_string().starts_with(reason), "{error}");
    };
    refused(&[], &slices(), "there is no way to learn");
    refused(
        &[only("wide", &[1, 4])],
        &slices(),
        "the way `wide` takes column 4 of 4",
    );
    let mut healthy = slices();
    healthy.validation.labels.fill(false);
    refused(&few(), &healthy, "of 1000 validation rows 0 are positive");
    let mut narrow = slices();
    narrow.test.labels.pop();
    refused(&few(), &narrow, "the test slice has 4 columns and 3999");
}
