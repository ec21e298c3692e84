use ndarray::Array2;

use super::*;
use crate::model::artifact::{Content, Limits};
use crate::model::testing::{matrix, says, sealed, stump};

const COLUMNS: [&str; 2] = ["mem_used", "psi_io"];

fn at(hours: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + hours * 3_600).unwrap()
}

/// Values of a column that are spread evenly from `low` to `low + 1`.
fn even(n: usize, low: f64) -> Vec<f64> {
    (0..n).map(|i| low + (i as f64 + 0.5) / n as f64).collect()
}

fn rows(first: &[f64], second: &[f64]) -> ModelMatrix {
    let values = first.iter().zip(second).flat_map(|(a, b)| [*a, *b]);
    let values = Array2::from_shape_vec((first.len(), 2), values.collect()).unwrap();
    matrix(&COLUMNS, values)
}

/// A stump over the first column, with another that it does not ask about, and what both were.
fn content() -> Content {
    let mut content = stump("small", COLUMNS[0], 0.9);
    let mut other = content.columns[0].clone();
    let meaning =
        crate::model::artifact::meaning_of(&crate::features::Schema::built_in(), COLUMNS[1]);
    (other.name, other.meaning) = (COLUMNS[1].to_owned(), meaning.unwrap());
    content.columns.push(other);
    let edges: Vec<f64> = (1..20).map(|i| f64::from(i) / 20.0).collect();
    for column in &mut content.columns {
        column.edges.edges = edges.clone();
    }
    content.gbdt.conf.feature_size = 2;
    content.gbdt.trees[0].feature_size = 2;
    let codes: Vec<u8> = even(2_000, 0.0)
        .iter()
        .flat_map(|value| [content.columns[0].edges.code(*value); 2])
        .collect();
    content.reference = Reference::of(&content.columns, &codes, &even(2_000, 0.0));
    content
}

/// A day on which these rows came in each hour.
fn day(probe: &Probe, hours: i64, matrix: &ModelMatrix, probabilities: &[f64]) -> Measured {
    let scored: Vec<_> = probabilities.iter().map(|p| Some(Some(*p))).collect();
    let mut day = Day::default();
    for hour in 0..hours {
        day.add(at(hour), &probe.count(matrix, &scored));
    }
    day.measure(probe)
}

fn index_of(measured: &Measured, feature: &str) -> Option<f64> {
    let mut features = measured.features.iter();
    features
        .find(|one| one.feature.as_str() == feature)
        .unwrap()
        .index
}

#[test]
fn the_same_inputs_have_no_drift_and_moved_ones_have() {
    let probe = Probe::new(&sealed(content()));
    let same = even(200, 0.0);
    let measured = day(&probe, 8, &rows(&same, &same), &same);
    assert!(
        index_of(&measured, "mem_used").unwrap() < 0.01,
        "{measured:?}"
    );
    assert!(measured.score.unwrap() < 0.01, "{measured:?}");
    assert!(measured.beyond(0.2).is_empty() && !measured.is_alarm(0.3));

    let moved = even(200, 0.4);
    let measured = day(&probe, 8, &rows(&moved, &same), &same);
    assert!(
        index_of(&measured, "mem_used").unwrap() > 0.5,
        "{measured:?}"
    );
    assert_eq!(measured.beyond(0.2)[0].0, "mem_used");
    assert!(measured.is_alarm(0.3), "the trees ask about nothing else");

    let measured = day(&probe, 8, &rows(&same, &moved), &same);
    assert_eq!(measured.beyond(0.2)[0].0, "psi_io");
    assert!(!measured.is_alarm(0.3), "no tree asks about it");

    let measured = day(&probe, 8, &rows(&same, &same), &even(200, 0.0).map_to(0.7));
    assert_eq!(measured.beyond(0.2)[0].0, "the score");
    assert!(measured.is_alarm(0.3));
}

trait MapTo {
    fn map_to(self, value: f64) -> Self;
}

impl MapTo for Vec<f64> {
    fn map_to(mut self, value: f64) -> Self {
        self.fill(value);
        self
    }
}

#[test]
fn the_index_is_the_one_of_the_books() {
    // Two groups, 50/50 then and 90/10 now: (0.4) ln 1.8 + (−0.4) ln 0.2.
    let expected = 0.4 * 1.8f64.ln() - 0.4 * 0.2f64.ln();
    let found = index(&[90_000, 10_000], &[0.5, 0.5]);
    assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    assert!(index(&[0, 1_000], &[0.5, 0.5]).is_finite());
}

#[test]
fn few_hours_and_few_values_say_nothing() {
    let probe = Probe::new(&sealed(content()));
    let moved = even(200, 0.4);
    let measured = day(&probe, 5, &rows(&moved, &moved), &moved);
    assert_eq!(
        (index_of(&measured, "mem_used"), measured.score),
        (None, None)
    );
    let few = even(50, 0.4);
    let measured = day(&probe, 8, &rows(&few, &few), &few);
    assert_eq!(
        (index_of(&measured, "mem_used"), measured.score),
        (None, None)
    );
    assert_eq!((measured.rows, measured.hours), (400, 8));
}

#[test]
fn what_a_day_usually_has_is_no_drift() {
    let mut content = content();
    content.reference.as_mut().unwrap().columns[0].day = 100.0;
    let probe = Probe::new(&sealed(content));
    let moved = even(200, 0.4);
    let measured = day(&probe, 8, &rows(&moved, &even(200, 0.0)), &even(200, 0.0));
    assert_eq!(index_of(&measured, "mem_used"), Some(0.0));
}

#[test]
fn without_a_reference_missing_and_far_out_values_are_still_told() {
    let probe = Probe::new(&sealed(Content {
        reference: None,
        ..content()
    }));
    let mut first = even(200, 0.0);
    first[..50].fill(f64::NAN);
    first[50..80].fill(1_000.0);
    let measured = day(&probe, 8, &rows(&first, &even(200, 0.0)), &even(200, 0.0));
    assert!(!measured.reference);
    let feature = &measured.features[0];
    assert_eq!(
        (feature.index, feature.missing, feature.far_out),
        (None, 0.25, 0.2)
    );
    // A Node that says nothing is counted nowhere, one without a score in its inputs.
    let scored = [None, Some(None), Some(Some(0.5))];
    let counts = probe.count(&rows(&[0.5; 3], &[f64::NAN; 3]), &scored);
    assert_eq!((counts.rows, counts.score.iter().sum::<u64>()), (2, 1));
    assert_eq!(
        (counts.columns[0].values, counts.columns[1].missing),
        (2, 2)
    );
}

#[test]
fn a_day_is_forgotten_by_the_hour_and_begins_again_when_the_clock_is_set_back() {
    let probe = Probe::new(&sealed(content()));
    let one = even(200, 0.0);
    let counts = probe.count(&rows(&one, &one), &vec![Some(Some(0.5)); 200]);
    let mut day = Day::default();
    for hour in 0..100 {
        day.add(at(hour), &counts);
        day.add(at(hour), &counts);
    }
    assert_eq!(day.measure(&probe).hours, 24);
    assert_eq!(day.measure(&probe).rows, 24 * 400);
    day.add(at(3), &counts);
    assert_eq!(day.measure(&probe).rows, 200);
}

#[test]
fn groups_hold_a_tenth_each_and_rare_bins_are_joined() {
    // Missing, then bins of 95 %, and twenty rare ones.
    let mut counts = vec![100, 1_900];
    counts.extend([5; 20]);
    let groups = Groups::of(&counts);
    assert_eq!(groups.from, [1]);
    assert!((groups.missing - 100.0 / 2_100.0).abs() < 1e-12);
    let groups = Groups::of(&[0, 10, 10, 30, 30, 20]);
    assert_eq!(groups.from, [1, 2, 3, 4, 5]);
    assert_eq!(Groups::of(&[7, 0, 0]).from, [0u8; 0]);
    let groups = Groups::of(&[0; 3]);
    assert!(groups.from.is_empty() && groups.missing == 0.0);
}

/// What is wrong, how it is made so, and what is said.
type Change = (&'static str, fn(&mut Reference), &'static str);

#[test]
fn a_reference_that_cannot_be_is_refused_with_its_place() {
    let changes: [Change; 13] = [
        (
            "too few columns",
            |it| it.columns.truncate(1),
            "`content.reference.columns` has not as many",
        ),
        (
            "too many columns",
            |it| it.columns.push(Groups::default()),
            "`content.reference.columns` has not as many",
        ),
        (
            "one share less",
            |it| it.columns[1].shares.truncate(1),
            "`content.reference.columns[1]` has not one share",
        ),
        (
            "many groups",
            |it| {
                it.columns[0].from = (1..=40).collect();
                it.columns[0].shares = vec![1.0 / 40.0; 40];
            },
            "`content.reference.columns[0]` has not one share",
        ),
        (
            "no first bin",
            |it| it.columns[0].from[0] = 0,
            "groups that do not rise",
        ),
        (
            "falling",
            |it| it.columns[0].from[1] = 1,
            "groups that do not rise",
        ),
        (
            "beyond the last bin",
            |it| *it.columns[0].from.last_mut().unwrap() = 250,
            "groups that do not rise",
        ),
        (
            "more than one",
            |it| it.columns[0].shares[0] = 0.9,
            "shares that are not 1 together",
        ),
        (
            "negative",
            |it| {
                it.columns[0].shares[0] -= 0.5;
                it.columns[0].shares[1] += 0.5;
            },
            "shares that are not 1 together",
        ),
        (
            "missing",
            |it| it.columns[0].missing = 1.5,
            "missing values or a daily index",
        ),
        (
            "no number",
            |it| it.columns[0].day = f64::NAN,
            "missing values or a daily index",
        ),
        (
            "short score",
            |it| it.score.truncate(11),
            "`content.reference.score` is not the shares",
        ),
        (
            "endless score",
            |it| it.score[0] = f64::INFINITY,
            "`content.reference.score` is not the shares",
        ),
    ];
    for (name, change, reason) in changes {
        let mut content = content();
        change(content.reference.as_mut().unwrap());
        let error = Artifact::seal(content, &Limits::default()).unwrap_err();
        says(name, &error, reason, &["foreshock train"]);
    }
}

#[test]
fn a_reference_is_read_back_as_it_was_written() {
    let model = sealed(content());
    let read = Artifact::parse(&model.to_bytes().unwrap(), &Limits::default()).unwrap();
    assert_eq!(read, model);
    assert!(read.content().reference.is_some());
}

#[test]
fn a_reference_that_is_made_row_by_row_is_that_of_all_rows_and_knows_what_a_day_is() {
    let columns = content().columns;
    let values = even(2_400, 0.0);
    let codes: Vec<u8> = values
        .iter()
        .flat_map(|value| [columns[0].edges.code(*value); 2])
        .collect();
    let whole = Reference::of(&columns, &codes, &values).unwrap();
    // Midnight; the first column rises over ten days, the second is mixed.
    let begin = Timestamp::from_second(20_700 * 86_400).unwrap();
    let mut referring = Referring::new(&columns);
    for (i, value) in values.iter().enumerate() {
        let at = begin + jiff::SignedDuration::from_hours(i as i64 / 10);
        let mixed = codes[i * 1_009 % values.len() * 2];
        referring.add(at, &[codes[2 * i], mixed], Some(*value));
    }
    let made = referring.end().unwrap();
    for (made, whole) in made.columns.iter().zip(&whole.columns) {
        assert_eq!((&made.from, &made.shares), (&whole.from, &whole.shares));
    }
    for (made, whole) in made.score.iter().zip(&whole.score) {
        assert!((made - whole).abs() < 1e-9);
    }
    assert!(made.columns[0].day > 1.0, "{:?}", made.columns[0]);
    assert!(made.columns[1].day < 0.2, "{:?}", made.columns[1]);
    made.check(&columns).unwrap();
    assert_eq!(Referring::new(&columns).end(), None);
}
