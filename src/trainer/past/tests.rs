//! What is made of a Prometheus' answers about the past: whose they are, above all.

use serde_json::{Value, json};
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

use super::*;
use crate::prometheus::PrometheusOptions;
use crate::train::signals::ALERTS;

const MIDNIGHT: i64 = 20_833 * 86_400;
/// From this minute on the exporter of `b` is silent, and nothing but its target is left of it.
const SILENT: i64 = 30;

struct Answers;

type Answer = (Vec<(&'static str, &'static str)>, f64);

/// What a query yields at a minute.
fn answer(promql: &str, minute: i64) -> Vec<Answer> {
    let at = (MIDNIGHT + 60 * minute) as f64;
    let (a, b) = (
        ("instance", "10.0.0.1:9100"),
        ("instance", "exporter-7:9100"),
    );
    let silent = minute >= SILENT;
    if promql.starts_with("max by (node, internal_ip)") {
        // `c` went in the night, and its address has gone to nobody.
        let mut nodes = vec![
            (vec![("node", "a"), ("internal_ip", "10.0.0.1")], 1.0),
            (vec![("node", "b"), ("internal_ip", "10.0.0.2")], 1.0),
        ];
        if minute < 10 {
            nodes.push((vec![("node", "c"), ("internal_ip", "10.0.0.3")], 1.0));
        }
        nodes
    } else if promql.starts_with("max by (node) (kube_node_created") {
        vec![(vec![("node", "a")], 1_700_000_000.0)]
    } else if promql.starts_with("timestamp(node_uname_info") {
        let mut targets = vec![(vec![a, ("nodename", "ip-10-0-0-1")], at)];
        if !silent {
            targets.push((vec![b, ("nodename", "b")], at));
        }
        targets
    } else if promql.starts_with("up{") {
        vec![(vec![a], 1.0), (vec![b], f64::from(u8::from(!silent)))]
    } else if promql.starts_with("1 - max by (instance) (up") {
        let elsewhere = ("instance", "elsewhere:9100");
        vec![
            (vec![a], 0.0),
            (vec![b], f64::from(u8::from(silent))),
            (vec![elsewhere], 1.0),
        ]
    } else if promql.contains("condition=\"Ready\"") {
        // The whole of a Node whose exporter is silent is not lost.
        vec![(vec![("node", "b")], f64::from(u8::from(minute >= 40)))]
    } else if promql.contains("ALERTS{alertname=~") && (10..20).contains(&minute) {
        let firing = if minute < 15 { 1.0 } else { 2.0 };
        let named = ("alertname", "NodeDiskSlow");
        vec![
            (vec![named, a], firing),
            // Of one Node by two labels the more advanced of both.
            (vec![named, ("node", "a")], 1.0),
            (vec![named, ("instance", "elsewhere:9100")], 2.0),
        ]
    } else if promql.contains("ALERTS{alertname!~") && minute == 50 {
        vec![(vec![("alertname", "Odd"), ("node", "b")], 1.0)]
    } else {
        Vec::new()
    }
}

impl Respond for Answers {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let body = String::from_utf8(request.body.clone()).unwrap();
        let url = reqwest::Url::parse(&format!("http://x/?{body}")).unwrap();
        let form: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
        let number = |key: &str| form[key].parse::<f64>().unwrap() as i64;
        let (mut at, to, step) = (number("start"), number("end"), number("step"));
        let mut series: BTreeMap<BTreeMap<&str, &str>, Vec<Value>> = BTreeMap::new();
        while at <= to {
            for (labels, value) in answer(&form["query"], (at - MIDNIGHT) / 60) {
                let values = series.entry(labels.into_iter().collect()).or_default();
                values.push(json!([at, value.to_string()]));
            }
            at += step;
        }
        let result = series.into_iter();
        let result = result.map(|(metric, values)| json!({"metric": metric, "values": values}));
        let data = json!({"resultType": "matrix", "result": result.collect::<Vec<_>>()});
        ResponseTemplate::new(200).set_body_json(json!({"status": "success", "data": data}))
    }
}

async fn seen() -> (MockServer, Seen) {
    let server = MockServer::start().await;
    let answers = Mock::given(method("POST")).respond_with(Answers);
    answers.mount(&server).await;
    let options = PrometheusOptions {
        url: server.uri(),
        ..PrometheusOptions::default()
    };
    let schema = Arc::new(Schema::built_in());
    let telemetry = PrometheusTelemetry::new(&options, Arc::clone(&schema)).unwrap();
    let archive = PrometheusArchive::new(telemetry, schema, &ALERTS);
    let from = Timestamp::from_second(MIDNIGHT).unwrap();
    (server, archive.seen(from, 60).await.unwrap())
}

fn runs(seen: &Seen, node: &str, what: &What) -> Vec<(u32, u32, f64)> {
    let mut series = seen.series.iter();
    let found = series.find(|one| one.node == node && one.what == *what);
    found.map_or_else(Vec::new, |one| one.runs.clone())
}

#[tokio::test]
async fn a_silent_exporter_is_still_its_nodes_and_nobody_elses_are_taken() {
    let (_server, seen) = seen().await;
    let down = |node| runs(&seen, node, &What::Signal(Signal::Down));
    assert_eq!(down("a"), [(0, 60, 0.0)]);
    // Only `nodename` said whose it was, and that went with the exporter.
    assert_eq!(down("b"), [(0, 30, 0.0), (30, 30, 1.0)]);
    let not_ready = runs(&seen, "b", &What::Signal(Signal::NotReady));
    assert_eq!(not_ready, [(0, 40, 0.0), (40, 20, 1.0)]);
    let nodes: Vec<&str> = seen.series.iter().map(|one| one.node.as_str()).collect();
    assert!(
        nodes.iter().all(|node| ["a", "b"].contains(node)),
        "{nodes:?}"
    );
}

#[tokio::test]
async fn alerts_are_of_the_node_that_they_name_by_either_label_and_those_on_the_list_are_apart() {
    let (_server, seen) = seen().await;
    let listed = What::Alert("NodeDiskSlow".to_owned());
    assert_eq!(runs(&seen, "a", &listed), [(10, 5, 1.0), (15, 5, 2.0)]);
    let other = What::OtherAlert("Odd".to_owned());
    assert_eq!(runs(&seen, "b", &other), [(50, 1, 1.0)]);
    assert_eq!(runs(&seen, "b", &listed), []);
}
