//! How a history is filled after a start.

use super::super::past::{Filled, Filling, Past, lock};
use super::*;
use crate::features::history::{GRID, Gap, WEEK};
use crate::features::series::next_rows;
use crate::features::{History, PastFeatures};

/// The service runs until here: 01:00 of some day.
const NOW: i64 = 20_833 * 86_400 + 3_600;

/// A Prometheus that has five days of past, and notes what it is asked for.
#[derive(Default)]
struct Remembers {
    asked: Mutex<Vec<(i64, u32)>>,
    down: Mutex<bool>,
    partly: bool,
}

fn matrix_at(schema: &Arc<Schema>, at: Timestamp) -> FeatureMatrix {
    let names = ["a", "b"].map(NodeName::from).into();
    let mut matrix = FeatureMatrix::missing(at, Arc::clone(schema), names);
    let known = NOW - at.as_second() < 5 * 86_400;
    for ((row, column), value) in matrix.values.indexed_iter_mut() {
        let wave = (at.as_second() / 300 % 17) as f64 / 40.0;
        // By name: a schema of some features has its columns in other places.
        let name = schema.features()[column].name.as_str().len();
        *value = if known {
            wave + (row + name) as f64 / 100.0
        } else {
            f64::NAN
        };
    }
    matrix
}

impl Telemetry for Remembers {
    fn snapshot<'a>(
        &'a self,
        at: Timestamp,
        _nodes: &'a NodeDirectory,
    ) -> BoxFuture<'a, Result<Telemetered, TelemetryError>> {
        let source = "not asked here".into();
        Box::pin(std::future::ready(Err(TelemetryError { at, source })))
    }

    fn knows_past(&self) -> bool {
        true
    }

    fn past<'a>(
        &'a self,
        schema: &'a Arc<Schema>,
        from: Timestamp,
        points: u32,
        _nodes: &'a NodeDirectory,
    ) -> BoxFuture<'a, Result<PastFeatures, TelemetryError>> {
        Box::pin(async move {
            if *self.down.lock().unwrap() {
                let source = "connection refused".into();
                return Err(TelemetryError { at: from, source });
            }
            self.asked.lock().unwrap().push((from.as_second(), points));
            let times = (0..points).map(|i| from + GRID * i);
            Ok(PastFeatures {
                matrices: times.map(|at| matrix_at(schema, at)).collect(),
                problems: self
                    .partly
                    .then(|| "feature `x` was refused".to_owned())
                    .into_iter()
                    .collect(),
            })
        })
    }
}

fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn columns() -> Vec<ColumnName> {
    let names = ["cpu_used:week", "mem_used:change60", "mem_used"];
    names.map(|name| name.parse().unwrap()).into()
}

/// One point has been seen; `n_nodes` is what the size of the slices goes by.
fn begun(telemetry: &Arc<Remembers>, n_nodes: usize) -> (Past, impl Fn(&Past, Gap) -> Filling) {
    let past = Past::default();
    let schema = Arc::new(Schema::built_in());
    let made = next_rows(
        &columns(),
        &matrix_at(&schema, time(NOW)),
        true,
        &mut lock(&past.history()),
    );
    assert!(made.unwrap().values[(0, 0)].is_nan());
    let telemetry = Arc::clone(telemetry);
    let filling = move |past: &Past, gap| Filling {
        telemetry: Arc::clone(&telemetry) as Arc<dyn Telemetry>,
        history: past.history(),
        schema: Arc::clone(&schema),
        nodes: NodeDirectory::open(),
        n_nodes,
        gap,
    };
    (past, filling)
}

#[tokio::test]
async fn a_restart_is_no_blind_week_and_what_nobody_needs_is_not_asked_for() {
    let telemetry = Arc::new(Remembers::default());
    let (mut past, filling) = begun(&telemetry, 5_000);
    let mut gaps = Vec::new();
    while let Some(gap) = past.next() {
        gaps.push(gap);
        filling(&past, gap).fill().await.unwrap();
        past.take(Filled { gap, problem: None });
    }
    let today = 20_833;
    let days = (1..=7).map(|back| Gap::Day(today - back));
    // Today began an hour ago: that is the last hour.
    let expected: Vec<_> = std::iter::once(Gap::Hour).chain(days).collect();
    assert_eq!(gaps, expected);
    let history = past.history();
    let history = lock(&history);
    assert_eq!(history.features().len(), 2, "of 53");
    // Five days are there, as far as they are in whole days or of the last hour.
    assert!(
        history.extent() > WEEK.mul_f64(0.7) && history.extent() < WEEK,
        "{:?}",
        history.extent()
    );
    let schema = Arc::new(Schema::built_in());
    let made =
        crate::features::derive(&columns(), &matrix_at(&schema, time(NOW)), &history).unwrap();
    assert!(
        made.values.iter().all(|value| value.is_finite()),
        "{:?}",
        made.values
    );

    // As if it had been there all the time.
    let mut watched = History::default();
    let mut last = None;
    for point in (0..=7 * 288).rev() {
        let matrix = matrix_at(&schema, time(NOW - 300 * point));
        last = Some(next_rows(&columns(), &matrix, true, &mut watched).unwrap());
    }
    assert_eq!(made, last.unwrap());

    // 2 features of 5,000 Nodes: 200 points at a time.
    let asked = telemetry.asked.lock().unwrap();
    assert!(asked.iter().all(|(_, points)| *points <= 200));
    let points: u32 = asked.iter().map(|(_, points)| *points).sum();
    assert_eq!(points, 13 + 7 * 288);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_tried_again_later_and_not_for_ever() {
    let telemetry = Arc::new(Remembers::default());
    let (mut past, filling) = begun(&telemetry, 2);
    *telemetry.down.lock().unwrap() = true;
    let mut tries = BTreeMap::new();
    for _ in 0..200 {
        if let Some(gap) = past.next() {
            *tries.entry(gap).or_insert(0) += 1;
            let problem = filling(&past, gap).fill().await.unwrap_err();
            assert!(problem.ends_with("connection refused"), "{problem}");
            past.take(Filled {
                gap,
                problem: Some(problem),
            });
            assert_eq!(past.next(), None, "not at once");
        }
        tokio::time::advance(seconds(60)).await;
    }
    let days = tries.iter().filter(|(gap, _)| matches!(gap, Gap::Day(_)));
    assert!(
        days.clone().count() == 7 && days.clone().all(|(_, times)| *times == 3),
        "{tries:?}"
    );
    // The last hour is worth another attempt from time to time.
    assert!((4..=6).contains(&tries[&Gap::Hour]), "{tries:?}");
    *telemetry.down.lock().unwrap() = false;
    tokio::time::advance(seconds(3_600)).await;
    let gap = past.next().unwrap();
    filling(&past, gap).fill().await.unwrap();
    past.take(Filled { gap, problem: None });
    assert_ne!(past.next(), Some(Gap::Hour));
}

#[tokio::test]
async fn what_is_not_whole_counts_and_is_asked_for_again() {
    let telemetry = Arc::new(Remembers {
        partly: true,
        ..Remembers::default()
    });
    let (past, filling) = begun(&telemetry, 2);
    let problem = filling(&past, Gap::Day(20_832)).fill().await.unwrap_err();
    assert_eq!(problem, "feature `x` was refused");
    let history = past.history();
    let history = lock(&history);
    assert_eq!(history.extent(), GRID * 289);
    assert!(history.gaps().contains(&Gap::Day(20_832)));
}
