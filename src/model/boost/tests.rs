use super::*;
use crate::model::artifact::{Artifact, Limits};
use crate::model::measure::judge;
use crate::model::testing::{encode, model, raw_rows};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn quick() -> Settings {
    Settings {
        trees_max: 30,
        ..Settings::default()
    }
}

fn probabilities(artifact: &Artifact, seed: u64) -> (Vec<f64>, Vec<bool>) {
    let (values, labels) = raw_rows(4_000, NAMES.len(), seed);
    let rows = encode(&values, &artifact.content().columns, &labels);
    let odds = log_odds(&artifact.content().gbdt, &rows);
    (
        odds.into_iter()
            .map(|x| 1.0 / (1.0 + libm::exp(-x)))
            .collect(),
        labels,
    )
}

#[test]
fn the_loop_learns_what_is_there_to_learn() {
    let (p, labels) = probabilities(&model(&NAMES, &quick()), 8);
    let figures = judge(&p, &labels);
    assert!(figures.pr_auc > 2.0 * figures.base_rate, "{figures:?}");
    assert!(figures.brier_skill > 0.1, "{figures:?}");
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let bytes = |seed| {
        model(&NAMES, &Settings { seed, ..quick() })
            .to_bytes()
            .unwrap()
    };
    assert_eq!(bytes(1), bytes(1));
    assert_ne!(bytes(1), bytes(2));
}

#[test]
fn training_stops_when_validation_no_longer_improves() {
    let artifact = model(&NAMES, &quick());
    let columns = &artifact.content().columns;
    let rows = |n, seed| {
        let (values, labels) = raw_rows(n, NAMES.len(), seed);
        encode(&values, columns, &labels)
    };
    let settings = Settings {
        trees_max: 400,
        rate: 0.5,
        patience: 5,
        ..Settings::default()
    };
    let mut grown = 0;
    let ensemble = boost(&rows(800, 1), &rows(800, 2), &settings, |n| grown = n).unwrap();
    assert!(grown < 100, "stopped after {grown}");
    assert_eq!(
        ensemble.trees.len() + 5,
        grown,
        "the trees after the best are dropped"
    );
}

#[test]
fn validation_rows_with_another_share_of_positives_do_not_stop_a_loop_that_is_told_so() {
    let columns = model(&NAMES, &quick()).content().columns.clone();
    let rows = |n, seed| {
        let (values, labels) = raw_rows(n, NAMES.len(), seed);
        encode(&values, &columns, &labels)
    };
    let train = rows(2_000, 1);
    // Of the positive validation rows one in ten is left.
    let all = rows(6_000, 2);
    let mut validation = Rows {
        n_columns: all.n_columns,
        ..Rows::default()
    };
    let mut positives = 0;
    for (i, label) in all.labels.iter().enumerate() {
        positives += usize::from(*label);
        if !label || positives % 10 == 0 {
            validation.codes.extend(all.row(i));
            validation.labels.push(*label);
        }
    }
    let trees = |prior_differs| {
        let settings = Settings {
            trees_max: 60,
            patience: 10,
            prior_differs,
            ..Settings::default()
        };
        let ensemble = boost(&train, &validation, &settings, |_| {}).unwrap();
        ensemble.trees.len()
    };
    assert!(
        trees(true) > trees(false) + 5,
        "{} {}",
        trees(true),
        trees(false)
    );
}

#[test]
fn twelve_positives_among_many_rows_do_not_read_as_certainty() {
    // With the crate's own loop a leaf of one row says p = 1.0 after a single tree.
    let n = 6_000;
    let mut rows = Rows {
        n_columns: 2,
        ..Rows::default()
    };
    for i in 0..n {
        rows.codes.extend([(i * 7 % 33) as u8, (i * 13 % 31) as u8]);
        rows.labels.push(i % 500 == 0);
    }
    let ensemble = boost(&rows, &Rows::default(), &quick(), |_| {}).unwrap();
    let worst = log_odds(&ensemble, &rows)
        .into_iter()
        .fold(f64::MIN, f64::max);
    assert!(worst < 0.0, "log-odds {worst}");
}

#[test]
fn a_rising_column_never_lowers_the_score_and_missing_is_its_lowest() {
    let (values, labels) = raw_rows(1_500, NAMES.len(), 3);
    let columns = model(&NAMES, &quick()).content().columns.clone();
    // The truth is turned around, so that an unbound model would fall in the first column.
    let labels: Vec<bool> = labels.into_iter().map(|y| !y).collect();
    let rows = encode(&values, &columns, &labels);
    for rising in [true, false] {
        let settings = Settings {
            rising: vec![rising; 4],
            ..quick()
        };
        let ensemble = boost(&rows, &Rows::default(), &settings, |_| {}).unwrap();
        let falls = (0..200).any(|i| {
            let sweep: Vec<f64> = (0..=columns[0].edges.code_max())
                .map(|code| {
                    let mut codes = rows.row(i).to_vec();
                    codes[0] = code;
                    log_odds(
                        &ensemble,
                        &Rows {
                            codes,
                            n_columns: 4,
                            labels: vec![false],
                        },
                    )[0]
                })
                .collect();
            sweep.windows(2).any(|pair| pair[1] < pair[0])
        });
        assert_eq!(falls, !rising);
        let mut content = model(&NAMES, &quick()).content().clone();
        content.gbdt = ensemble;
        for column in &mut content.columns {
            column.rising = true;
        }
        assert_eq!(Artifact::seal(content, &Limits::default()).is_ok(), rising);
    }
}

#[test]
fn masking_hits_whole_groups_in_the_asked_share() {
    let mut rows = Rows {
        codes: vec![5; 4 * 10_000],
        n_columns: 4,
        labels: vec![false; 10_000],
    };
    let group = |columns: &[usize], share| Mask {
        columns: columns.to_vec(),
        share,
    };
    mask(&mut rows, &[group(&[0, 1], 0.1), group(&[2], 0.3)], 1);
    let (mut first, mut second, mut both) = (0, 0, 0);
    for row in rows.codes.chunks_exact(4) {
        assert_eq!(row[0], row[1]);
        assert_eq!(row[3], 5);
        let hit = (row[0] == MISSING, row[2] == MISSING);
        first += usize::from(hit.0);
        second += usize::from(hit.1);
        both += usize::from(hit.0 && hit.1);
    }
    assert!((900..1_100).contains(&first), "{first}");
    assert!((2_850..3_150).contains(&second), "{second}");
    assert!((230..370).contains(&both), "{both}");
}

#[test]
fn rows_of_one_kind_or_of_the_wrong_width_are_refused() {
    let rows = |codes: usize, labels: Vec<bool>| Rows {
        codes: vec![1; codes],
        n_columns: 2,
        labels,
    };
    for (rows, message) in [
        (
            rows(4, vec![true, true]),
            "of 2 training rows 2 are positive",
        ),
        (rows(0, vec![]), "of 0 training rows 0 are positive"),
        (
            rows(5, vec![true, false]),
            "5 codes do not make 2 rows of 2 columns",
        ),
    ] {
        let error = boost(&rows, &Rows::default(), &quick(), |_| {}).unwrap_err();
        assert!(error.to_string().starts_with(message), "{error}");
    }
}

#[test]
fn a_fifth_of_the_rows_for_each_tree_is_nearly_as_good_as_all_and_repeatable() {
    let settings = |rows| Settings { rows, ..quick() };
    let one_sided = settings(RowSample::OneSided {
        top: 0.1,
        drawn: 0.1,
        least: 0,
    });
    let pr_auc = |settings: &Settings| {
        let (p, labels) = probabilities(&model(&NAMES, settings), 8);
        judge(&p, &labels).pr_auc
    };
    let (one, all) = (pr_auc(&one_sided), pr_auc(&settings(RowSample::Alike(1.0))));
    assert!(one > 0.9 * all, "{one} {all}");
    let bytes = || model(&NAMES, &one_sided).to_bytes().unwrap();
    assert_eq!(bytes(), bytes());
}

#[test]
fn leaves_are_made_of_all_rows_where_splits_are_sought_on_few() {
    // A tree of one split.
    let columns = model(&NAMES, &quick()).content().columns.clone();
    let (values, labels) = raw_rows(2_000, NAMES.len(), 3);
    let rows = encode(&values, &columns, &labels);
    let settings = Settings {
        trees_max: 1,
        depth: 1,
        rate: 1.0,
        rows: RowSample::OneSided {
            top: 0.05,
            drawn: 0.05,
            least: 0,
        },
        ..Settings::default()
    };
    let grown = boost(
        &rows,
        &Rows {
            n_columns: 4,
            ..Rows::default()
        },
        &settings,
        |_| {},
    )
    .unwrap();
    let [root, left, right] = grown.trees[0].tree.tree.as_slice() else {
        panic!("{grown:?}");
    };
    let share = labels.iter().filter(|y| **y).count() as f64 / labels.len() as f64;
    let (mut sums, mut n) = ([0.0; 2], [0.0; 2]);
    for (row, label) in rows.codes.chunks_exact(4).zip(&labels) {
        let code = f32::from(row[root.value.feature_index]);
        let side = usize::from(code >= root.value.feature_value);
        sums[side] += f64::from(u8::from(*label)) - share;
        n[side] += 1.0;
    }
    for (side, leaf) in [left, right].into_iter().enumerate() {
        // Newton's step with a row's width and what holds leaves back, halved.
        let step = sums[side] / (n[side] * share * (1.0 - share) + 1.0) / 2.0;
        assert!(
            (f64::from(leaf.value.pred) - step).abs() < 1e-3,
            "{step} {leaf:?}"
        );
    }
}

#[test]
fn it_stops_when_nothing_has_been_better_for_as_long_as_patience_lasts() {
    for (losses, patience, stops_after, best) in [
        (vec![0.5, 0.4, 0.41, 0.42], 2, Some(4), Some(2)),
        // A gain that is none.
        (vec![0.5, 0.499_999_5, 0.499_999_4], 2, Some(3), Some(1)),
        (vec![0.5, 0.6, 0.4, 0.39], 2, None, Some(4)),
        (vec![0.5, 0.6], 0, Some(2), Some(1)),
        (vec![f64::NAN, 0.5, f64::NAN, 0.4], 3, None, Some(4)),
        (vec![f64::NAN, f64::NAN], 2, Some(2), None),
    ] {
        let mut stopping = Stopping::default();
        let each = (1..).zip(&losses);
        let stopped: Vec<usize> = each
            .filter(|(trees, loss)| stopping.stops(*trees, **loss, patience))
            .map(|(trees, _)| trees)
            .collect();
        assert_eq!(stopped.first().copied(), stops_after, "{losses:?}");
        assert_eq!(stopping.best(), best, "{losses:?}");
    }
}
