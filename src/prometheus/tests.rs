//! Scripted HTTP, and whole snapshots from a Prometheus that is a table.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;
use wiremock::matchers::{header, method, path, query_param};
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

use super::client::{Query, chain};
use super::options::{BasicAuth, PrometheusOptions};
use super::{PrometheusClient, PrometheusTelemetry};
use crate::features::assemble::Sample;
use crate::features::{NodeDirectory, NodeEntry, Schema, Telemetered, Telemetry};

fn at() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn options(server: &MockServer) -> PrometheusOptions {
    PrometheusOptions {
        url: server.uri(),
        timeout: Duration::from_secs(5),
        ..PrometheusOptions::default()
    }
}

fn empty() -> ResponseTemplate {
    let body = json!({"status": "success", "data": {"resultType": "vector", "result": []}});
    ResponseTemplate::new(200).set_body_json(body)
}

async fn ask(options: &PrometheusOptions) -> Result<usize, String> {
    let client = PrometheusClient::new(options).unwrap();
    let answer = client
        .instant::<Sample>(Query::Feature("f".into()), "up", at())
        .await;
    answer
        .map(|vector| vector.samples.len())
        .map_err(|error| chain(&error))
}

/// Form parameters of a query.
fn form(request: &Request) -> BTreeMap<String, String> {
    let body = String::from_utf8(request.body.clone()).unwrap();
    let url = reqwest::Url::parse(&format!("http://x/?{body}")).unwrap();
    url.query_pairs().into_owned().collect()
}

#[tokio::test]
async fn a_query_carries_its_time_its_timeout_and_the_extra_parameters_and_headers() {
    let server = MockServer::start().await;
    for (prefix, slash) in [("", ""), ("", "/"), ("/prom", ""), ("/prom/x", "/")] {
        server.reset().await;
        Mock::given(method("POST"))
            .and(path(format!("{prefix}/api/v1/query")))
            .and(header("X-Scope-OrgID", "tenant"))
            .respond_with(empty())
            .mount(&server)
            .await;
        let options = PrometheusOptions {
            url: format!("{}{prefix}{slash}", server.uri()),
            headers: vec![("X-Scope-OrgID".into(), "tenant".into())],
            parameters: vec![
                ("dedup".into(), "true".into()),
                ("partial_response".into(), "false".into()),
            ],
            ..options(&server)
        };
        assert_eq!(ask(&options).await, Ok(0), "{prefix}{slash}");
        let requests = server.received_requests().await.unwrap();
        let expected = [
            ("dedup", "true"),
            ("partial_response", "false"),
            ("query", "up"),
            ("time", "1800000000.000"),
            ("timeout", "5000ms"),
        ];
        assert_eq!(
            form(&requests[0]),
            expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
        );
    }
}

#[tokio::test]
async fn secrets_are_read_from_their_files_anew_for_each_request() {
    let server = MockServer::start().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let accept = |value: &'static str| {
        Mock::given(header("Authorization", value))
            .respond_with(empty())
            .mount(&server)
    };
    let token = PrometheusOptions {
        bearer_token_file: Some(file.path().to_owned()),
        ..options(&server)
    };
    let client = PrometheusClient::new(&token).unwrap();
    for (secret, expected) in [("first\n", "Bearer first"), ("second", "Bearer second")] {
        std::fs::write(file.path(), secret).unwrap();
        server.reset().await;
        accept(expected).await;
        assert!(
            client
                .instant::<Sample>(Query::Up, "up", at())
                .await
                .is_ok(),
            "{expected}"
        );
    }
    std::fs::write(file.path(), "two\nlines").unwrap();
    let error = client
        .instant::<Sample>(Query::Up, "up", at())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("has characters that no HTTP header may have"),
        "{error}"
    );

    std::fs::write(file.path(), "pass word").unwrap();
    let user = "ann".into();
    let basic = PrometheusOptions {
        basic_auth: Some(BasicAuth {
            user,
            password_file: file.path().to_owned(),
        }),
        ..options(&server)
    };
    accept("Basic YW5uOnBhc3Mgd29yZA==").await;
    assert_eq!(ask(&basic).await, Ok(0));

    drop(file);
    let error = ask(&basic).await.unwrap_err();
    assert!(error.starts_with("cannot read the secret in "), "{error}");
}

#[tokio::test]
async fn passing_failures_are_tried_three_times_and_wrong_queries_once() {
    let server = MockServer::start().await;
    let error = json!({"status": "error", "errorType": "bad_data", "error": "parse error"});
    for (status, requests) in [
        (429, 3),
        (502, 3),
        (503, 3),
        (504, 3),
        (400, 1),
        (422, 1),
        (401, 1),
        (403, 1),
        (404, 1),
        (500, 1),
    ] {
        server.reset().await;
        let refuse = ResponseTemplate::new(status).set_body_json(&error);
        Mock::given(method("POST"))
            .respond_with(refuse)
            .mount(&server)
            .await;
        let told = ask(&options(&server)).await.unwrap_err();
        let head = format!("query for feature `f` was refused with HTTP {status}");
        assert!(
            told.starts_with(&head) && told.ends_with("bad_data: parse error"),
            "{told}"
        );
        assert_eq!(
            server.received_requests().await.unwrap().len(),
            requests,
            "{status}"
        );
    }

    server.reset().await;
    let refuse = ResponseTemplate::new(503).set_body_string("<html>try later</html>");
    Mock::given(method("POST"))
        .respond_with(refuse)
        .up_to_n_times(2)
        .mount(&server)
        .await;
    Mock::given(method("POST"))
        .respond_with(empty())
        .mount(&server)
        .await;
    assert_eq!(ask(&options(&server)).await, Ok(0));
}

#[tokio::test]
async fn an_answer_is_bounded_in_bytes_and_time_and_is_not_fetched_elsewhere() {
    let server = MockServer::start().await;
    let script = |template: ResponseTemplate| {
        let server = &server;
        async move {
            server.reset().await;
            Mock::given(method("POST"))
                .respond_with(template)
                .mount(server)
                .await;
        }
    };
    let small = PrometheusOptions {
        answer_bytes_max: 1000,
        ..options(&server)
    };
    let fits = ResponseTemplate::new(200).set_body_string("x".repeat(1000));
    script(fits).await;
    assert!(ask(&small).await.unwrap_err().contains("of no use"));
    script(ResponseTemplate::new(200).set_body_string("x".repeat(1001))).await;
    let told = ask(&small).await.unwrap_err();
    assert_eq!(
        told,
        "the answer to the query for feature `f` is longer than 1000 bytes"
    );

    script(empty().set_delay(Duration::from_secs(30))).await;
    let hasty = PrometheusOptions {
        timeout: Duration::from_millis(200),
        ..options(&server)
    };
    let start = Instant::now();
    let told = ask(&hasty).await.unwrap_err();
    assert_eq!(told, "query for feature `f` took longer than 200ms");
    assert!(start.elapsed() < Duration::from_secs(10));

    script(ResponseTemplate::new(302).insert_header("Location", "http://elsewhere/login")).await;
    let told = ask(&options(&server)).await.unwrap_err();
    assert!(
        told.contains("redirected to http://elsewhere/login"),
        "{told}"
    );
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_so_after_three_attempts() {
    // Bound and given back: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("http://127.0.0.1:{port}");
    let start = Instant::now();
    let told = ask(&PrometheusOptions {
        url,
        ..PrometheusOptions::default()
    })
    .await
    .unwrap_err();
    assert!(
        told.starts_with("query for feature `f` did not reach the server: "),
        "{told}"
    );
    assert!(told.to_lowercase().contains("refused"), "{told}");
    // Two pauses of at least half of 200 ms and 400 ms.
    assert!(
        start.elapsed() >= Duration::from_millis(300),
        "it was tried again"
    );
}

#[test]
fn options_that_cannot_be_are_reported_all_at_once_with_their_keys() {
    let faults = |options: &PrometheusOptions| -> Vec<String> {
        let error = PrometheusTelemetry::new(options, Arc::new(Schema::built_in())).unwrap_err();
        error.faults.iter().map(|fault| fault.key.clone()).collect()
    };
    let none = || Some(PathBuf::from("/nowhere/at/all"));
    let wrong = PrometheusOptions {
        url: "prometheus:9090".into(),
        selector: "node".into(),
        matchers: "{}".into(),
        concurrency: 0,
        timeout: Duration::ZERO,
        headers: vec![("a b".into(), "c".into()), ("a".into(), "b\nc".into())],
        bearer_token_file: none(),
        basic_auth: Some(BasicAuth {
            user: "u".into(),
            password_file: "p".into(),
        }),
        ca_file: none(),
        key_file: none(),
        ..PrometheusOptions::default()
    };
    let keys = [
        "url",
        "bearer_token_file",
        "concurrency",
        "timeout",
        "headers",
        "headers",
        "ca_file",
        "key_file",
        "selector",
        "matchers",
    ];
    assert_eq!(faults(&wrong), keys);
    for url in [
        "",
        "ftp://x",
        "http://u:p@x",
        "http://x?a=b",
        "http://",
        "http://x y",
    ] {
        let wrong = PrometheusOptions {
            url: url.into(),
            ..PrometheusOptions::default()
        };
        assert_eq!(faults(&wrong), ["url"], "{url}");
    }
    let dialect = Schema::parse(
        "[[feature]]\nname='f'\nunit='ratio'\npromql='rate(a) keep_metric_names'\nmin=0\nmax=1",
    );
    let with = PrometheusOptions {
        matchers: "a=\"b\"".into(),
        ..PrometheusOptions::default()
    };
    let error = PrometheusTelemetry::new(&with, Arc::new(dialect.unwrap()))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("prometheus.features_file: feature \"f\": is no PromQL"),
        "{error}"
    );
}

#[tokio::test]
async fn check_learns_the_version_and_the_alerts_over_our_own_metrics() {
    let server = MockServer::start().await;
    let success =
        |data| ResponseTemplate::new(200).set_body_json(json!({"status": "success", "data": data}));
    Mock::given(path("/api/v1/status/buildinfo"))
        .and(query_param("dedup", "true"))
        .respond_with(success(json!({"version": "3.16.0", "goVersion": "x"})))
        .mount(&server)
        .await;
    let alert =
        json!({"type": "alerting", "name": "A", "query": "foreshock_leader == 0", "labels": {}});
    Mock::given(path("/api/v1/rules"))
        .respond_with(success(
            json!({"groups": [{"name": "g", "rules": [alert]}]}),
        ))
        .mount(&server)
        .await;
    let parameters = vec![("dedup".to_owned(), "true".to_owned())];
    let client = PrometheusClient::new(&PrometheusOptions {
        parameters,
        ..options(&server)
    })
    .unwrap();
    assert_eq!(client.build_info().await.unwrap().version, "3.16.0");
    assert_eq!(client.unmarked_alerts().await.unwrap()[0].name, "A");
    server.reset().await;
    assert!(
        client
            .build_info()
            .await
            .unwrap_err()
            .to_string()
            .contains("HTTP 404")
    );
}

/// A Prometheus that is a table: the first entry whose text is in the query answers it.
#[derive(Clone, Default)]
struct Table(Arc<Mutex<Vec<(&'static str, ResponseTemplate)>>>);

impl Respond for Table {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let promql = form(request).remove("query").unwrap();
        let table = self.0.lock().unwrap();
        let found = table.iter().find(|(text, _)| promql.contains(text));
        found.map_or_else(empty, |(_, answer)| answer.clone())
    }
}

impl Table {
    fn set(&self, entries: &[(&'static str, ResponseTemplate)]) {
        *self.0.lock().unwrap() = entries.to_vec();
    }
}

/// Series from `name=value … number`.
fn series(lines: &[&str]) -> ResponseTemplate {
    let result = lines.iter().map(|line| {
        let (labels, value) = line.rsplit_once(' ').unwrap();
        let labels: BTreeMap<_, _> = labels
            .split(' ')
            .map(|l| l.split_once('=').unwrap())
            .collect();
        json!({"metric": labels, "value": [1_800_000_000, value]})
    });
    let data = json!({"resultType": "vector", "result": result.collect::<Vec<_>>()});
    ResponseTemplate::new(200).set_body_json(json!({"status": "success", "data": data}))
}

async fn telemetry(schema: &str, table: &Table) -> (MockServer, PrometheusTelemetry) {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .respond_with(table.clone())
        .mount(&server)
        .await;
    let schema = Arc::new(Schema::parse(schema).unwrap());
    let telemetry = PrometheusTelemetry::new(&options(&server), schema).unwrap();
    (server, telemetry)
}

fn directory(names: &[(&str, &str)]) -> NodeDirectory {
    NodeDirectory::new(names.iter().map(|(name, address)| NodeEntry {
        name: (*name).into(),
        uid: (*name).into(),
        created: Timestamp::from_second(1_700_000_000).unwrap(),
        hostname: None,
        addresses: vec![(*address).to_owned()],
    }))
}

const THREE: &str = r#"
    [[feature]]
    name = "plain"
    unit = "ratio"
    promql = "plain{$S}"
    min = 0
    max = 1
    group = "cpu"
    [[feature]]
    name = "slow"
    unit = "ratio"
    promql = "slow{$S}"
    min = 0
    max = 1
    group = "hwmon"
    history = "1h"
    every = "5m"
    [[feature]]
    name = "pods"
    unit = "ratio"
    promql = "pods"
    min = 0
    max = 1
"#;

/// Two Nodes as kube-prometheus-stack shows them; the collector hwmon failed on b.
fn two_nodes() -> Vec<(&'static str, ResponseTemplate)> {
    vec![
        (
            "and on (namespace, pod)",
            series(&[
                "namespace=mon pod=x node=a 1",
                "namespace=mon pod=y node=b 1",
            ]),
        ),
        (
            "timestamp(node_uname_info",
            series(&[
                "instance=10.1.0.1:9100 namespace=mon pod=x 1799999990.5",
                "instance=10.1.0.2:9100 namespace=mon pod=y 1799999980",
            ]),
        ),
        ("count_over_time(up", series(&["a=b 15"])),
        (
            "up{",
            series(&["instance=10.1.0.1:9100 namespace=mon pod=x 1"]),
        ),
        (
            "node_scrape_collector_success",
            series(&["instance=10.1.0.1:9100 3", "instance=10.1.0.2:9100 1"]),
        ),
        (
            "node_exporter_build_info",
            series(&["instance=10.1.0.1:9100 version=1.10.2 1"]),
        ),
        (
            "present_over_time",
            series(&["instance=10.1.0.1:9100 1", "instance=10.1.0.2:9100 1"]),
        ),
        (
            "plain{",
            series(&["instance=10.1.0.1:9100 0.25", "instance=10.1.0.2:9100 NaN"]),
        ),
        (
            "slow{",
            series(&["instance=10.1.0.1:9100 0.5", "instance=10.1.0.2:9100 0.5"]),
        ),
        ("pods", series(&["node=a 0.75", "node=b 0.125", "node=z 1"])),
    ]
}

#[tokio::test]
async fn a_snapshot_is_the_matrix_of_all_queries_at_one_time() {
    let table = Table::default();
    table.set(&two_nodes());
    let (server, telemetry) = telemetry(THREE, &table).await;
    let nodes = directory(&[
        ("a", "192.168.0.1"),
        ("b", "192.168.0.2"),
        ("c", "192.168.0.3"),
    ]);
    let seen = telemetry.snapshot(at(), &nodes).await.unwrap();
    let row = |row| [0, 1, 2].map(|column| seen.matrix.value(row, column));
    assert_eq!(row(0), [Some(0.25), Some(0.5), Some(0.75)]);
    assert_eq!(row(1), [None, None, Some(0.125)]);
    assert_eq!(row(2), [None; 3]);
    assert_eq!(
        seen.matrix.scraped_at[0].unwrap().as_millisecond(),
        1_799_999_990_500
    );
    assert_eq!(seen.problems, [""; 0]);
    assert_eq!(seen.columns[1].uncollected, 1);
    assert_eq!(
        seen.identity.node_of_instance("10.1.0.2:9100"),
        Some(&"b".into())
    );
    assert_eq!(
        telemetry.scrape_interval(at()).await.unwrap(),
        Some(Duration::from_secs(15))
    );

    // All for the same time, but for what is asked at whole minutes or whole `every`.
    let requests = server.received_requests().await.unwrap();
    for request in &requests {
        assert_eq!(form(request)["time"], "1800000000.000");
    }
    assert_eq!(
        requests.len(),
        10,
        "identity, up, versions, Pods, collectors, history, three features; interval"
    );
}

#[tokio::test]
async fn what_is_asked_for_less_often_is_kept_on_its_own_grid() {
    let table = Table::default();
    table.set(&two_nodes());
    let (server, telemetry) = telemetry(THREE, &table).await;
    let nodes = directory(&[("a", "192.168.0.1"), ("b", "192.168.0.2")]);
    let mut asked = Vec::new();
    for seconds in [45, 60, 299, 300] {
        let at = Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        let before = server.received_requests().await.unwrap().len();
        let seen = telemetry.snapshot(at, &nodes).await.unwrap();
        let of_slow = seen.columns[1].at.as_second() - 1_800_000_000;
        let requests = server.received_requests().await.unwrap();
        let slow = requests[before..]
            .iter()
            .map(form)
            .filter(|f| f["query"].contains("slow"));
        let times: Vec<_> = slow.map(|f| f["time"].clone()).collect();
        asked.push((
            seconds,
            of_slow,
            times.len(),
            seen.columns[1].age(at).as_secs(),
        ));
    }
    assert_eq!(
        asked,
        [
            (45, 0, 1, 45),
            (60, 0, 0, 60),
            (299, 0, 0, 299),
            (300, 300, 1, 0)
        ]
    );
}

#[tokio::test]
async fn a_failed_query_costs_its_column_and_a_failed_identity_everything() {
    let table = Table::default();
    let (_server, telemetry) = telemetry(THREE, &table).await;
    let nodes = directory(&[("a", "10.1.0.1"), ("b", "10.1.0.2")]);
    let with = |text: &'static str, answer: ResponseTemplate| {
        let mut entries = two_nodes();
        entries.insert(0, (text, answer));
        table.set(&entries);
    };
    let refused = || {
        let body =
            json!({"status": "error", "errorType": "execution", "error": "too many samples"});
        ResponseTemplate::new(422).set_body_json(body)
    };
    let data = json!({"resultType": "vector", "result": []});
    let partial = json!({"status": "success", "data": data, "warnings": ["store gone"]});

    with("plain{", refused());
    let seen = telemetry.snapshot(at(), &nodes).await.unwrap();
    let problem = seen.columns[0].problem.as_deref();
    assert_eq!(
        problem,
        Some(
            "query for feature `plain` was refused with HTTP 422 Unprocessable Entity: execution: too many samples"
        )
    );
    assert_eq!(
        [0, 2].map(|column| seen.matrix.value(0, column)),
        [None, Some(0.75)]
    );

    with("plain{", ResponseTemplate::new(200).set_body_json(partial));
    let seen = telemetry.snapshot(at(), &nodes).await.unwrap();
    let problem = seen.columns[0].problem.clone().unwrap();
    assert!(
        problem.ends_with("the answer is partial: store gone"),
        "{problem}"
    );

    with("node_scrape_collector_success", refused());
    let seen = telemetry.snapshot(at(), &nodes).await.unwrap();
    assert_eq!(
        [0, 1, 2].map(|column| seen.matrix.value(0, column)),
        [None, None, Some(0.75)]
    );
    assert!(seen.problems[0].starts_with("which collectors succeeded is unknown: "));

    // A version is not new because it could not be asked for once.
    let version = |seen: &Telemetered| {
        let target = seen.identity.fresh(&"a".into()).cloned();
        target.and_then(|target| target.exporter)
    };
    assert_eq!(version(&seen).as_deref(), Some("1.10.2"));
    with("node_exporter_build_info", refused());
    let seen = telemetry.snapshot(at(), &nodes).await.unwrap();
    assert_eq!(version(&seen).as_deref(), Some("1.10.2"));
    assert!(
        seen.problems[0].contains("node_exporter_build_info"),
        "{:?}",
        seen.problems
    );

    // Without kube_pod_info the addresses still tell.
    with("kube_pod_info", refused());
    let later = Timestamp::from_second(1_800_000_060).unwrap();
    let seen = telemetry.snapshot(later, &nodes).await.unwrap();
    assert_eq!(seen.matrix.value(0, 0), Some(0.25));
    assert!(
        seen.problems[0].contains("kube_pod_info"),
        "{:?}",
        seen.problems
    );

    with("node_uname_info", refused());
    let error = telemetry.snapshot(at(), &nodes).await.unwrap_err();
    assert!(
        chain(&error)
            .starts_with("no telemetry for 2027-01-15T08:00:00Z: query for the targets' identity")
    );

    // Nobody there at all is no error: every Node is silent.
    table.set(&[]);
    let seen = telemetry.snapshot(at(), &nodes).await.unwrap();
    assert_eq!(seen.identity.report().silent.len(), 2);
    assert_eq!(seen.matrix.missing_share(0), 1.0);
}

#[tokio::test]
async fn columns_that_come_too_late_are_missing_and_say_so() {
    let table = Table::default();
    let mut entries = two_nodes();
    entries.insert(0, ("plain{", empty().set_delay(Duration::from_secs(60))));
    table.set(&entries);
    let (server, _) = telemetry(THREE, &table).await;
    let schema = Arc::new(Schema::parse(THREE).unwrap());
    let hasty = PrometheusOptions {
        snapshot_timeout: Duration::from_millis(700),
        timeout: Duration::from_secs(50),
        ..options(&server)
    };
    let telemetry = PrometheusTelemetry::new(&hasty, schema).unwrap();
    let seen = telemetry
        .snapshot(at(), &directory(&[("a", "10.1.0.1")]))
        .await
        .unwrap();
    let problem = seen.columns[0].problem.as_deref();
    assert_eq!(
        problem,
        Some("no answer within 700ms, the time for all queries")
    );
    assert_eq!(seen.matrix.value(0, 2), Some(0.75));
}
