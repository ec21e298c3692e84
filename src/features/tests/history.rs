use std::sync::{Arc, LazyLock};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::features::derive::DEVIATION_MAX;
use crate::features::history::{GRID, Gap};
use crate::features::{
    ColumnName, FeatureMatrix, History, ModelMatrix, Schema, Summary, Usual, derive,
};

const DAY: i64 = 86_400;

/// Read once: some tests make ten thousand matrices.
static SCHEMA: LazyLock<Arc<Schema>> = LazyLock::new(|| Arc::new(Schema::built_in()));

/// Midnight (UTC) of some day.
fn midnight() -> Timestamp {
    Timestamp::from_second(20_000 * DAY).unwrap()
}

fn after(minutes: i64) -> Timestamp {
    midnight() + SignedDuration::from_mins(minutes)
}

fn columns(names: &[&str]) -> Vec<ColumnName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn every_column() -> Vec<ColumnName> {
    ColumnName::all(&SCHEMA)
}

/// A matrix of these Nodes; `value` is asked for each Node and feature, by number.
fn matrix(at: Timestamp, nodes: &[&str], value: impl Fn(usize, usize) -> f64) -> FeatureMatrix {
    let names = nodes.iter().map(|name| (*name).into()).collect();
    let mut matrix = FeatureMatrix::missing(at, Arc::clone(&SCHEMA), names);
    for ((row, column), cell) in matrix.values.indexed_iter_mut() {
        *cell = value(row, column);
    }
    matrix
}

/// `cpu_used` of one Node.
fn cpu(at: Timestamp, used: f64) -> FeatureMatrix {
    let of_cpu = |_, column| if column == 0 { used } else { f64::NAN };
    matrix(at, &["a"], of_cpu)
}

/// Something between 0 and 1 that looks like chance, and is missing now and then.
fn chance(at: Timestamp, row: usize, column: usize) -> f64 {
    let mut bits = at.as_second() as u64 ^ ((row as u64) << 40) ^ ((column as u64) << 50);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    let share = (bits >> 11) as f64 / (1_u64 << 53) as f64;
    if share > 0.97 { f64::NAN } else { share }
}

fn value(made: &ModelMatrix, column: &str) -> Option<f64> {
    let column = made.columns.iter().position(|c| c.to_string() == column);
    Some(made.values[(0, column.unwrap())]).filter(|v| !v.is_nan())
}

/// Takes `cpu_used` on the grid up to a time, then derives at that time.
fn told(used: impl Fn(i64) -> Option<f64>, minutes: i64, names: &[&str]) -> ModelMatrix {
    let columns = columns(names);
    let mut history = History::of(&SCHEMA, &columns);
    let mut last = None;
    for minute in 0..=minutes {
        let Some(used) = used(minute) else { continue };
        let matrix = cpu(after(minute), used);
        history.take(&matrix, true);
        last = Some(matrix);
    }
    derive(&columns, &last.unwrap(), &history).unwrap()
}

#[test]
fn a_change_is_from_the_newest_point_that_is_old_enough() {
    let names = ["cpu_used:change15", "cpu_used:change60"];
    // A twentieth every five minutes; between two points the value is that of the minute.
    let rising = |minute: i64| Some(minute as f64 / 100.0);
    let made = told(rising, 60, &names);
    assert!((value(&made, names[0]).unwrap() - 0.15).abs() < 1e-3);
    assert!((value(&made, names[1]).unwrap() - 0.6).abs() < 1e-3);
    // At minute 73 the points at least 15 and 60 minutes old are those of 55 and 10.
    let made = told(rising, 73, &names);
    assert!((value(&made, names[0]).unwrap() - 0.18).abs() < 1e-3);
    assert!((value(&made, names[1]).unwrap() - 0.63).abs() < 1e-3);
    // What stands still has not changed, whatever the 16 bits leave of it.
    let made = told(|_| Some(0.123_456_789), 62, &names);
    assert_eq!(
        (value(&made, names[0]), value(&made, names[1])),
        (Some(0.0), Some(0.0))
    );
}

#[test]
fn a_history_that_is_too_short_is_missing_for_each_kind() {
    let names = [
        "cpu_used",
        "cpu_used:change15",
        "cpu_used:change60",
        "cpu_used:spread60",
        "cpu_used:week",
    ];
    let there = |minutes: i64, used: &dyn Fn(i64) -> Option<f64>| {
        let made = told(used, minutes, &names);
        names.map(|name| value(&made, name).is_some())
    };
    let always = |minute: i64| Some((minute % 7) as f64 / 10.0);
    assert_eq!(there(14, &always), [true, false, false, false, false]);
    assert_eq!(there(15, &always), [true, true, false, false, false]);
    assert_eq!(there(29, &always), [true, true, false, false, false]);
    assert_eq!(there(30, &always), [true, true, false, true, false]);
    assert_eq!(there(60, &always), [true, true, true, true, false]);
    // A day's worth of points, and the hour that does not count yet.
    assert_eq!(there(1440 + 55, &always), [true, true, true, true, false]);
    assert_eq!(there(1440 + 60, &always), [true, true, true, true, true]);
    // The point of 45 was never taken, the hour lacks one point of thirteen.
    let gap = |minute: i64| always(minute).filter(|_| minute != 45);
    assert_eq!(there(60, &gap), [true, false, true, true, false]);
    // A missing value is no point either.
    let missing = |minute: i64| {
        if minute == 45 {
            Some(f64::NAN)
        } else {
            always(minute)
        }
    };
    assert_eq!(there(60, &missing), [true, false, true, true, false]);
}

#[test]
fn what_is_usual_is_the_nodes_own_week_once_there_is_a_day_of_it() {
    let usual = |minutes: i64| {
        let columns = columns(&["cpu_used:week"]);
        let mut history = History::of(&SCHEMA, &columns);
        for minute in (0..minutes).step_by(5) {
            history.take(&cpu(after(minute), 0.25), true);
        }
        let now = cpu(after(minutes), 0.9);
        let column = SCHEMA.column_of("cpu_used").unwrap();
        Usual::of(&now).or_own(&now, &history).value(0, column)
    };
    // One Node has no peers either.
    assert_eq!(usual(1440), None);
    let own = usual(1440 + 65).unwrap();
    assert!((own - 0.25).abs() < 1e-3, "{own}");
}

#[test]
fn the_week_ends_an_hour_ago_so_that_an_incident_does_not_hide_itself() {
    let names = ["cpu_used:week", "cpu_used:spread60"];
    // Two days between 0.2 and 0.3, then 55 minutes at 0.9.
    let begin = 2 * 1440;
    let used = |minute: i64| {
        let usual = if minute / 5 % 2 == 0 { 0.2 } else { 0.3 };
        Some(if minute > begin { 0.9 } else { usual })
    };
    let during = told(used, begin + 55, &names);
    // Mean 0.25, spread 0.05.
    assert!((value(&during, names[0]).unwrap() - 13.0).abs() < 0.1);
    assert!(value(&during, names[1]).unwrap() > 0.1);
    // Ten hours later it has begun to become usual.
    let later = told(used, begin + 600, &names);
    assert!(value(&later, names[0]).unwrap() < 4.0);
    // As flat as it may be, the scale is `noise`, 0.02; and a deviation has an end.
    let flat = |last: f64| move |minute: i64| Some(if minute == 1600 { last } else { 0.5 });
    let of = |last: f64| value(&told(flat(last), 1600, &names[..1]), names[0]).unwrap();
    assert!((of(0.51) - 0.5).abs() < 0.02);
    assert_eq!(of(0.99), DEVIATION_MAX);
    assert_eq!(of(0.0), -DEVIATION_MAX);
}

#[test]
fn a_day_is_forgotten_after_a_week() {
    let names = ["cpu_used:week"];
    // One day at 0.9, then 0.1; the spread would tell for as long as the day counts.
    let used = |minute: i64| {
        let at = if minute < 1440 { 0.9 } else { 0.1 };
        Some(at).filter(|_| minute % 5 == 0)
    };
    let deviation = |minutes: i64| value(&told(used, minutes, &names), names[0]).unwrap();
    assert!(deviation(7 * 1440 + 55) < -0.2);
    assert!(deviation(7 * 1440 + 65).abs() < 0.1);
}

#[test]
fn summaries_are_of_the_sizes_of_all_deviations() {
    let schema = Arc::clone(&SCHEMA);
    let columns: Vec<_> = Summary::ALL.map(ColumnName::Node).into();
    let mut history = History::of(&schema, &columns);
    assert_eq!(history.features().len(), schema.len());
    let there = |column: usize| (10..16).contains(&column);
    for minute in (0..1600).step_by(5) {
        history.take(
            &matrix(after(minute), &["a", "b"], |_, column| {
                if there(column) { 0.0 } else { f64::NAN }
            }),
            true,
        );
    }
    // The flat week makes the scale of each feature its noise.
    let deviations = [9.0, -5.0, 4.0, 2.0, -1.0, 0.0];
    let last = matrix(after(1600), &["a", "b"], |row, column| {
        let feature = &schema.features()[column];
        let deviation = deviations.get(column.wrapping_sub(10)).copied();
        // The second Node has too few that say anything.
        let few = row == 1 && column > 13;
        deviation
            .filter(|_| !few)
            .map_or(f64::NAN, |z| (z * feature.noise).max(feature.min))
    });
    let made = derive(&columns, &last, &history).unwrap();
    let sizes: Vec<f64> = (10..16)
        .zip(deviations)
        .map(|(column, z): (usize, f64)| {
            let f = &schema.features()[column];
            (z * f.noise).clamp(f.min, f.max).abs() / f.noise
        })
        .collect();
    let mut sorted = sizes.clone();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let expected = [
        sorted[0],
        sorted[2],
        sorted[..5].iter().sum::<f64>() / 5.0,
        sorted.iter().sum::<f64>() / 6.0,
        sorted.iter().filter(|z| **z > 3.0).count() as f64,
        sorted.iter().filter(|z| **z > 6.0).count() as f64,
    ];
    for (summary, (made, expected)) in Summary::ALL
        .iter()
        .zip(made.values.row(0).iter().zip(expected))
    {
        assert!(
            (made - expected).abs() < 0.05,
            "{summary:?}: {made}, not {expected}"
        );
    }
    assert!(made.values.row(1).iter().all(|value| value.is_nan()));
}

#[test]
fn a_node_that_was_made_again_under_its_name_begins_anew() {
    let names = columns(&["cpu_used:change15", "cpu_used:change60"]);
    let mut history = History::of(&SCHEMA, &names);
    let at = |minute: i64, uid: Option<&str>| {
        let mut matrix = cpu(after(minute), 0.5);
        matrix.uids[0] = uid.map(Into::into);
        matrix
    };
    let there = |history: &History, matrix: &FeatureMatrix| {
        let made = derive(&names, matrix, history).unwrap();
        made.values
            .row(0)
            .iter()
            .map(|v| !v.is_nan())
            .collect::<Vec<_>>()
    };
    for minute in (0..=60).step_by(5) {
        history.take(&at(minute, Some("1")), true);
    }
    assert_eq!(there(&history, &at(61, Some("1"))), [true, true]);
    // Nobody says which: it is the one that is known.
    assert_eq!(there(&history, &at(61, None)), [true, true]);
    // Another has no past, neither before its first point is taken nor after.
    assert_eq!(there(&history, &at(62, Some("2"))), [false, false]);
    for minute in (65..=80).step_by(5) {
        history.take(&at(minute, Some("2")), true);
    }
    assert_eq!(there(&history, &at(80, Some("2"))), [true, false]);
    // A straggler of the old one changes nothing.
    assert!(!history.take(&at(80, Some("1")), true));
    assert_eq!(there(&history, &at(80, Some("2"))), [true, false]);
}

#[test]
fn nodes_that_vanished_are_forgotten_and_the_others_keep_their_own() {
    let names = columns(&["cpu_used:change60"]);
    let mut history = History::of(&SCHEMA, &names);
    let mut nodes: Vec<String> = (0..150).map(|i| format!("gone-{i}")).collect();
    nodes.push("stays".to_owned());
    let point = |minute: i64, nodes: &[String]| {
        let names: Vec<&str> = nodes.iter().map(String::as_str).collect();
        matrix(after(minute), &names, |row, _| row as f64 / 200.0)
    };
    history.take(&point(0, &nodes), true);
    let cells = history.bytes();
    let only = ["stays".to_owned()];
    for minute in (5..=60).step_by(5) {
        history.take(&point(minute, &only), true);
    }
    let last = point(60, &only);
    let made = derive(&names, &last, &history).unwrap();
    // It was row 150 of 151, so 0.75; now it is row 0.
    assert!((made.values[(0, 0)] + 0.75).abs() < 1e-3);
    assert_eq!(history.nodes(), 2 + 100);
    // A week later there is only the one.
    for minute in (65..=8 * 1440).step_by(5) {
        history.take(&point(minute, &only), true);
    }
    assert_eq!(history.nodes(), 1);
    assert!(history.bytes() <= cells);
}

#[test]
fn nothing_is_kept_that_no_column_needs() {
    let schema = Arc::clone(&SCHEMA);
    let mut history = History::of(&schema, &columns(&["cpu_used", "mem_used:peers"]));
    assert!(!history.is_wanted());
    assert!(!history.take(&cpu(after(0), 0.5), true));
    assert!(history.gaps().is_empty());
    assert_eq!((history.bytes(), history.extent()), (0, Duration::ZERO));

    history.want(&schema, &columns(&["cpu_used:week"]));
    assert!(history.take(&cpu(after(0), 0.5), true));
    assert!(
        !history.take(&cpu(after(0), 0.5), true),
        "a point counts once"
    );
    assert!(
        !history.take(&cpu(after(1), 0.5), true),
        "it is not on the grid"
    );
    // Another model: what both need stays, and what is new has to be filled.
    history.want(
        &schema,
        &columns(&["cpu_used:change15", "mem_used:spread60"]),
    );
    for minute in (5..=15).step_by(5) {
        history.take(&cpu(after(minute), 0.75), true);
    }
    let made = derive(
        &columns(&["cpu_used:change15"]),
        &cpu(after(15), 0.75),
        &history,
    );
    assert_eq!(made.unwrap().values[(0, 0)], 0.25);
    assert!(history.gaps().contains(&Gap::Hour));
    history.want(&schema, &[]);
    assert_eq!((history.bytes(), history.is_wanted()), (0, false));
}

#[test]
fn five_thousand_nodes_with_every_feature_take_less_than_30_mib() {
    let columns = every_column();
    let mut history = History::of(&SCHEMA, &columns);
    let names: Vec<String> = (0..5_000).map(|i| format!("worker-{i:05}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    history.take(&matrix(after(0), &names, |_, _| 0.5), true);
    let per_cell = history.bytes() / (5_000 * SCHEMA.len());
    assert!(per_cell <= 100, "{per_cell} bytes");
    assert!(history.bytes() <= 30 << 20, "{} bytes", history.bytes());
}

/// A fleet whose Nodes come and go, whose features are missing now and then, and of which some times
/// are not there at all.
fn eventful(at: Timestamp) -> Option<FeatureMatrix> {
    let minutes = at.duration_since(midnight()).as_mins();
    // Prometheus was away for three hours on the second day, and for one scrape now and then.
    let away = (1440 + 100..1440 + 280).contains(&minutes) || minutes % 1735 == 0;
    if away {
        return None;
    }
    let nodes: &[&str] = match minutes {
        0..2000 => &["a", "b", "c", "d", "e"],
        2000..4000 => &["a", "b", "d", "e"],
        _ => &["a", "b", "c", "d", "e", "f"],
    };
    let mut made = matrix(at, nodes, |row, column| {
        // A feature that nobody has for a day, and a Node that says nothing for two hours.
        let silent = column == 3 && (3000..4440).contains(&minutes);
        let dark = row == 1 && (5000..5120).contains(&minutes);
        if silent || dark {
            f64::NAN
        } else {
            chance(at, row, column)
        }
    });
    for (uid, node) in made.uids.iter_mut().zip(&made.nodes) {
        // Node d is made again at the end of the third day.
        let second = node.as_str() == "d" && minutes >= 4300;
        *uid = Some(
            format!("{node}{}", if second { "2" } else { "" })
                .as_str()
                .into(),
        );
    }
    Some(made)
}

/// As a Prometheus is asked later: of Nodes that are there now, and without values from before they were
/// made.
fn looked_up(at: Timestamp, now: &FeatureMatrix) -> FeatureMatrix {
    let names = now.nodes.clone();
    let mut made = FeatureMatrix::missing(at, Arc::clone(&now.schema), names);
    made.uids.clone_from(&now.uids);
    if let Some(then) = eventful(at) {
        for row in 0..made.nodes.len() {
            let Some(from) = then.row_of(&made.nodes[row]) else {
                continue;
            };
            if then.uids[from] == made.uids[row] {
                let values = then.values.row(from).to_owned();
                made.values.row_mut(row).assign(&values);
            }
        }
    }
    made
}

fn bits(made: &ModelMatrix) -> Vec<u64> {
    made.values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn a_history_that_was_filled_later_is_the_same_as_one_that_was_watched() {
    let columns = every_column();
    let schema = Arc::clone(&SCHEMA);
    let end = 9 * 1440 + 333;
    // Watched from the first minute on.
    let mut watched = History::of(&schema, &columns);
    // Begun twenty minutes, and five hours over midnight, before the end; filled while it goes on.
    for begun in [20, 5 * 60 + 400, 26 * 60] {
        let mut filled = History::of(&schema, &columns);
        let mut gaps_done = 0;
        let first = if begun == 20 { 0 } else { end - begun };
        for minute in first..=end {
            let Some(matrix) = eventful(after(minute)) else {
                continue;
            };
            if begun == 20 {
                watched.take(&matrix, true);
            }
            if minute < end - begun {
                continue;
            }
            filled.take(&matrix, true);
            // One gap at a time, from the matrices up to now; the rest of the service goes on.
            if minute % 2 != 0 {
                continue;
            }
            let Some(gap) = filled.gaps().first().copied() else {
                continue;
            };
            gaps_done += 1;
            let (from, to) = filled.span(gap).unwrap();
            let mut scratch = filled.scratch();
            let mut at = from;
            while at <= to {
                let then = looked_up(at, &matrix);
                match gap {
                    Gap::Hour => _ = filled.take(&then, true),
                    Gap::Today | Gap::Day(_) => assert!(scratch.take(&then, true)),
                }
                at += GRID;
            }
            match gap {
                Gap::Hour => {}
                Gap::Today => assert!(filled.resume(scratch)),
                Gap::Day(day) => assert!(filled.adopt(day, scratch)),
            }
        }
        assert!(gaps_done >= 7, "{gaps_done} gaps");
        assert_eq!(filled.gaps(), [], "begun {begun} minutes before the end");
        let last = eventful(after(end)).unwrap();
        let (mine, theirs) = (
            derive(&columns, &last, &watched).unwrap(),
            derive(&columns, &last, &filled).unwrap(),
        );
        for (j, column) in columns.iter().enumerate() {
            for row in 0..last.nodes.len() {
                let (a, b) = (mine.values[(row, j)], theirs.values[(row, j)]);
                let node = &last.nodes[row];
                assert_eq!(
                    a.to_bits(),
                    b.to_bits(),
                    "{node} {column}: {a} {b}, {begun} min"
                );
            }
        }
        assert_eq!(bits(&mine), bits(&theirs));
        let weeks = mine.values.iter().filter(|value| !value.is_nan()).count();
        assert!(
            weeks > mine.values.len() / 2,
            "{weeks} of {}",
            mine.values.len()
        );
    }
}

#[test]
fn a_scratch_of_another_time_or_of_other_features_is_refused() {
    let schema = Arc::clone(&SCHEMA);
    let mut history = History::of(&schema, &columns(&["cpu_used:week"]));
    history.take(&cpu(after(3 * 1440), 0.5), true);
    assert_eq!(
        history.gaps()[..3],
        [Gap::Hour, Gap::Today, Gap::Day(20_001)]
    );
    let mut scratch = history.scratch();
    scratch.take(&cpu(after(3 * 1440 - 120), 0.5), true);
    assert!(
        !history.resume(scratch.clone()),
        "more than an hour is missing"
    );
    let mut other = History::of(&schema, &columns(&["mem_used:week"]));
    other.take(&cpu(after(3 * 1440), 0.5), true);
    assert!(!other.adopt(20_002, scratch.clone()), "other features");
    assert!(
        !history.adopt(19_990, scratch),
        "a day that does not count any more"
    );
}

#[test]
fn how_much_history_there_is_counts_what_was_said() {
    let mut history = History::of(&SCHEMA, &columns(&["cpu_used:week"]));
    for minute in (0..12 * 60).step_by(5) {
        let silent = (120..240).contains(&minute);
        let used = if silent { f64::NAN } else { 0.5 };
        history.take(&cpu(after(minute), used), true);
    }
    assert_eq!(history.extent(), Duration::from_secs(10 * 3600));
}

#[test]
fn a_point_that_is_not_whole_counts_until_it_can_be_had_whole() {
    let names = columns(&["cpu_used:change15"]);
    let mut history = History::of(&SCHEMA, &names);
    for minute in (0..=75).step_by(5) {
        let used = if minute == 60 { f64::NAN } else { 0.5 };
        assert!(history.take(&cpu(after(minute), used), minute != 60));
    }
    assert_eq!(history.gaps()[0], Gap::Hour);
    let change = |history: &History| {
        let made = derive(&names, &cpu(after(75), 0.5), history).unwrap();
        made.values[(0, 0)]
    };
    assert!(change(&history).is_nan());
    assert!(history.take(&cpu(after(60), 0.25), true));
    assert_eq!(change(&history), 0.25);
    assert!(
        !history.take(&cpu(after(60), 0.75), true),
        "the whole one stays"
    );
    assert!(!history.gaps().contains(&Gap::Hour));
}
