//! A Prometheus that knows a past, asked cycle by cycle and in ranges.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

use super::{PrometheusOptions, PrometheusTelemetry};
use crate::features::history::{GRID, Gap};
use crate::features::series::{next_rows, rows};
use crate::features::{
    ColumnName, History, ModelMatrix, NodeDirectory, NodeEntry, Schema, Telemetry, derive,
};

/// Midnight (UTC) of some day.
const MIDNIGHT: i64 = 20_833 * 86_400;
/// The whole test: a day and four hours, on the grid.
const POINTS: i64 = 340;

/// Six features of every kind: of the exporter, with a history, with an `every` that does not go into the
/// grid, of Pods by name, with an absence that is 0, and of two sources.
const SCHEMA: &str = r#"
    [[feature]]
    name = "plain"
    unit = "ratio"
    promql = "plain{$S}"
    min = 0
    max = 1
    group = "cpu"
    [[feature]]
    name = "counter"
    unit = "per_second"
    promql = "rate(counter{$S}[$W])"
    min = 0
    max = 1_000_000
    noise = 0.5
    history = "1h"
    group = "hwmon"
    [[feature]]
    name = "slow"
    unit = "seconds"
    promql = "slow{$S}"
    min = 0
    max = 3600
    noise = 0.001
    every = "7m"
    [[feature]]
    name = "pods"
    unit = "count"
    promql = "pods"
    min = 0
    max = 500
    [[feature]]
    name = "errors"
    unit = "ratio"
    promql = "errors{$S}"
    min = 0
    max = 1
    noise = 0.001
    absent = "zero"
    group = "cpu"
    [[feature]]
    name = "temp"
    unit = "ratio"
    promql = "label_replace(hot{$S}, \"source\", \"x\", \"\", \"\") or label_replace(warm{$S}, \"source\", \"y\", \"\", \"\")"
    min = 0
    max = 1.5
    sources = [{ name = "x", group = "hwmon" }, { name = "y" }]
"#;

/// Something between 0 and 1 that looks like chance.
fn chance(seconds: i64, what: u64) -> f64 {
    let mut bits = (seconds as u64).wrapping_add(what << 40);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// What this Prometheus has for a query at a time: labels and value.
///
/// Node a is well. The exporter of b is away for two hours and its machine was started anew before, so that
/// its counter began again. The collector `cpu` of c fails now and then. Node d was made again at 14:00,
/// under the same name and address.
fn vector(promql: &str, seconds: i64) -> Vec<(Vec<(&'static str, String)>, f64)> {
    let minute = (seconds - MIDNIGHT) / 60;
    let away = |node: usize| node == 1 && (600..720).contains(&minute);
    let instance = |node: usize| format!("10.1.0.{node}:9100");
    let of_nodes = |value: &dyn Fn(usize) -> Option<f64>| {
        let there = (0..4).filter(|node| !away(*node));
        let valued = there.filter_map(|node| Some((node, value(node)?)));
        let labelled = valued.map(|(node, value)| (vec![("instance", instance(node))], value));
        labelled.collect::<Vec<_>>()
    };
    let draw = |node: usize, what: u64| chance(seconds, what * 16 + node as u64);
    if promql.contains("timestamp(node_uname_info") {
        let mut targets = of_nodes(&|_| Some(seconds as f64 - 7.5));
        for (labels, _) in &mut targets {
            labels.push(("nodename", "x".to_owned()));
        }
        targets
    } else if promql.starts_with("up{") {
        of_nodes(&|_| Some(1.0))
    } else if promql.contains("node_scrape_collector_success") {
        of_nodes(&|node| {
            let failed = node == 2 && draw(node, 9) > 0.9;
            Some(if failed { 2.0 } else { 3.0 })
        })
    } else if promql.contains("present_over_time") {
        let long_enough = |node: usize| node != 1 || !(600..780).contains(&minute);
        of_nodes(&|node| long_enough(node).then_some(1.0))
    } else if promql.starts_with("plain{") {
        of_nodes(&|node| match draw(node, 1) {
            nan if nan > 0.97 => Some(f64::NAN),
            absurd if absurd > 0.95 => Some(7.0),
            value => Some(value),
        })
    } else if promql.starts_with("rate(counter") {
        // Of a counter that began again, rate() adds up what was before and after.
        of_nodes(&|node| Some(if node == 1 && minute < 590 { 1e5 } else { 10.0 } * draw(node, 2)))
    } else if promql.starts_with("slow{") {
        of_nodes(&|node| Some(draw(node, 3) / 10.0))
    } else if promql == "pods" {
        let pods = (0..4).map(|node| (node, (draw(node, 4) * 100.0).round()));
        let name = |node: usize| ["a", "b", "c", "d"][node].to_owned();
        pods.map(|(node, n)| (vec![("node", name(node))], n))
            .collect()
    } else if promql.starts_with("errors{") {
        of_nodes(&|node| Some(draw(node, 5) / 100.0).filter(|e| *e > 0.008))
    } else if promql.contains("hot{") {
        let mut both = of_nodes(&|node| Some(draw(node, 6)).filter(|t| *t > 0.4));
        both.iter_mut()
            .for_each(|(labels, _)| labels.push(("source", "x".to_owned())));
        let mut warm = of_nodes(&|node| Some(draw(node, 7)));
        warm.iter_mut()
            .for_each(|(labels, _)| labels.push(("source", "y".to_owned())));
        both.extend(warm);
        both
    } else {
        Vec::new()
    }
}

/// Answers both kinds of queries from [`vector`]; ranges of more points than allowed it refuses as
/// Prometheus refuses too many samples.
struct Server {
    points_max: usize,
    refused: Arc<AtomicUsize>,
}

impl Respond for Server {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let body = String::from_utf8(request.body.clone()).unwrap();
        let url = reqwest::Url::parse(&format!("http://x/?{body}")).unwrap();
        let form: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
        let promql = &form["query"];
        let number = |key: &str| form[key].parse::<f64>().unwrap() as i64;
        let ok = |data| {
            ResponseTemplate::new(200).set_body_json(json!({"status": "success", "data": data}))
        };
        let metric = |labels: &[(&'static str, String)]| -> BTreeMap<_, _> {
            labels
                .iter()
                .map(|(k, v)| ((*k).to_owned(), v.clone()))
                .collect()
        };
        if request.url.path().ends_with("/query") {
            let at = number("time");
            let result = vector(promql, at).into_iter().map(|(labels, value)| {
                json!({"metric": metric(&labels), "value": [at, value.to_string()]})
            });
            let result: Vec<_> = result.collect();
            return ok(json!({"resultType": "vector", "result": result}));
        }
        let (from, to, step) = (number("start"), number("end"), number("step"));
        let times: Vec<i64> = (0..)
            .map(|i| from + i * step)
            .take_while(|t| *t <= to)
            .collect();
        if times.len() > self.points_max {
            self.refused.fetch_add(1, Ordering::Relaxed);
            let text =
                "query processing would load too many samples into memory in query execution";
            let body = json!({"status": "error", "errorType": "execution", "error": text});
            return ResponseTemplate::new(422).set_body_json(body);
        }
        let mut series: BTreeMap<BTreeMap<String, String>, Vec<_>> = BTreeMap::new();
        for at in times {
            for (labels, value) in vector(promql, at) {
                let values = series.entry(metric(&labels)).or_default();
                values.push(json!([at, value.to_string()]));
            }
        }
        let result = series
            .into_iter()
            .map(|(metric, values)| json!({"metric": metric, "values": values}));
        ok(json!({"resultType": "matrix", "result": result.collect::<Vec<_>>()}))
    }
}

async fn telemetry(points_max: usize) -> (MockServer, Arc<AtomicUsize>, PrometheusTelemetry) {
    let server = MockServer::start().await;
    let refused = Arc::new(AtomicUsize::new(0));
    let answers = Server {
        points_max,
        refused: Arc::clone(&refused),
    };
    Mock::given(method("POST"))
        .respond_with(answers)
        .mount(&server)
        .await;
    let options = PrometheusOptions {
        url: server.uri(),
        ..PrometheusOptions::default()
    };
    let telemetry = PrometheusTelemetry::new(&options, schema()).unwrap();
    (server, refused, telemetry)
}

fn schema() -> Arc<Schema> {
    Arc::new(Schema::parse(SCHEMA).unwrap())
}

fn time(point: i64) -> Timestamp {
    Timestamp::from_second(MIDNIGHT + 300 * point).unwrap()
}

/// The Nodes at a point: d is another one from 14:00 on.
fn directory(point: i64) -> NodeDirectory {
    let made_again = point >= 168;
    NodeDirectory::new(["a", "b", "c", "d"].iter().enumerate().map(|(i, name)| {
        let second = *name == "d" && made_again;
        NodeEntry {
            name: (*name).into(),
            uid: format!("{name}{}", u8::from(second)).as_str().into(),
            created: if second { time(168) } else { time(-9_000) },
            hostname: None,
            addresses: vec![format!("10.1.0.{i}")],
        }
    }))
}

#[track_caller]
fn equal(one: &ModelMatrix, other: &ModelMatrix, what: &str) {
    assert_eq!((&one.nodes, &one.columns), (&other.nodes, &other.columns));
    for ((row, j), value) in one.values.indexed_iter() {
        let (node, column) = (&one.nodes[row], &one.columns[j]);
        let other = other.values[(row, j)];
        let same = value.to_bits() == other.to_bits();
        assert!(same, "{what}: {column} of {node}: {value} {other}");
    }
}

#[tokio::test]
async fn the_same_minutes_score_the_same_live_from_ranges_and_after_a_restart() {
    let (_server, refused, telemetry) = telemetry(100).await;
    let columns = ColumnName::all(&schema());

    // The service, cycle by cycle, with a cycle between two points now and then. One point it missed,
    // and asks for it a while later.
    let mut history = History::default();
    let mut live = Vec::new();
    for point in 0..POINTS {
        let nodes = directory(point);
        if point != 290 {
            let seen = telemetry.snapshot(time(point), &nodes).await.unwrap();
            let made = next_rows(&columns, &seen.matrix, true, &mut history).unwrap();
            live.push((point, made));
        }
        if point == 300 {
            assert_eq!(history.gaps()[0], Gap::Hour);
            let past = telemetry
                .past(&schema(), time(288), 13, &nodes)
                .await
                .unwrap();
            past.matrices
                .iter()
                .for_each(|matrix| _ = history.take(matrix, true));
        }
    }
    let last = &live.last().unwrap().1;
    let there = last.values.row(0).iter().filter(|v| !v.is_nan()).count();
    assert_eq!(there, columns.len(), "with every column by now");

    // The same from ranges, and only the end of it again: of d what is there now is the second one, as
    // whoever trains sees it.
    let nodes = directory(POINTS);
    let mut matrices = Vec::new();
    for (from, points) in [(0, 250), (250, 90)] {
        let past = telemetry
            .past(&schema(), time(from), points, &nodes)
            .await
            .unwrap();
        assert_eq!(past.problems, [""; 0]);
        matrices.extend(past.matrices);
    }
    assert_eq!(matrices.len() as i64, POINTS);
    let trained: Vec<_> = rows(&columns, matrices).map(Result::unwrap).collect();
    for (point, live) in &live {
        // What the service said while a point was missing is not what it would have said with it.
        if (168..290).contains(point) || *point >= 303 {
            let what = format!("point {point}");
            equal(live, &trained[*point as usize], &what);
        }
    }
    assert!(refused.load(Ordering::Relaxed) > 0, "ranges were halved");

    // A process that begins five minutes before the end, and fills its history.
    let mut restarted = History::default();
    let mut made = None;
    for point in POINTS - 2..POINTS {
        let seen = telemetry.snapshot(time(point), &nodes).await.unwrap();
        made = Some(seen.matrix);
        next_rows(&columns, made.as_ref().unwrap(), true, &mut restarted).unwrap();
    }
    for gap in restarted.gaps().into_iter().take(3) {
        let (from, to) = restarted.span(gap).unwrap();
        let points = (to.duration_since(from).as_secs() / 300 + 1) as u32;
        let past = telemetry
            .past(&schema(), from, points, &nodes)
            .await
            .unwrap();
        let mut scratch = restarted.scratch();
        for matrix in &past.matrices {
            match gap {
                Gap::Hour => _ = restarted.take(matrix, true),
                Gap::Today | Gap::Day(_) => assert!(scratch.take(matrix, true)),
            }
        }
        match gap {
            Gap::Hour => {}
            Gap::Today => assert!(restarted.resume(scratch)),
            Gap::Day(day) => assert!(restarted.adopt(day, scratch)),
        }
    }
    let again = derive(&columns, &made.unwrap(), &restarted).unwrap();
    equal(last, &again, "after a restart");
}

#[tokio::test]
async fn a_column_that_cannot_be_had_costs_that_column_and_is_said() {
    let server = MockServer::start().await;
    let answers = Server {
        points_max: 1000,
        refused: Arc::default(),
    };
    let broken = wiremock::matchers::body_string_contains("slow");
    let text = json!({"status": "error", "errorType": "bad_data", "error": "no such function"});
    Mock::given(broken)
        .respond_with(ResponseTemplate::new(400).set_body_json(text))
        .mount(&server)
        .await;
    Mock::given(method("POST"))
        .respond_with(answers)
        .mount(&server)
        .await;
    let options = PrometheusOptions {
        url: server.uri(),
        timeout: Duration::from_secs(5),
        ..PrometheusOptions::default()
    };
    let telemetry = PrometheusTelemetry::new(&options, schema()).unwrap();
    let past = telemetry
        .past(&schema(), time(0), 12, &directory(0))
        .await
        .unwrap();
    let [problem] = past.problems.as_slice() else {
        panic!("{:?}", past.problems);
    };
    assert!(problem.contains("feature `slow` was refused"), "{problem}");
    let value = |name: &str| past.matrices[3].value_of(0, name);
    assert_eq!(value("slow"), None);
    assert!(value("pods").is_some());

    // Only what is wanted is asked for.
    server.reset().await;
    let answers = Server {
        points_max: 1000,
        refused: Arc::default(),
    };
    Mock::given(method("POST"))
        .respond_with(answers)
        .mount(&server)
        .await;
    let only = Arc::new(schema().only([&"pods".into()]).unwrap());
    let past = telemetry
        .past(&only, time(0), 12, &directory(0))
        .await
        .unwrap();
    assert_eq!(past.matrices.len(), 12);
    assert_eq!(past.matrices[0].schema.len(), 1);
    let asked = server.received_requests().await.unwrap().len();
    assert_eq!(asked, 3, "identity, up and the one feature");
    let span = past.matrices[11].at.duration_since(past.matrices[0].at);
    assert_eq!(span.unsigned_abs(), GRID * 11);

    // Without the targets nothing can be said.
    server.reset().await;
    let error = telemetry
        .past(&only, time(0), 12, &directory(0))
        .await
        .unwrap_err();
    assert_eq!(error.at, time(0));
}
