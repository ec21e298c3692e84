//! The simulated fleet is honest: what the demo and training compute from its counters is what a real
//! Prometheus says of the same counters.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use foreshock::core::node::NodeName;
use foreshock::features::{FeatureMatrix, NodeDirectory, NodeEntry, Schema, Telemetry};
use foreshock::prometheus::{PrometheusOptions as Options, PrometheusTelemetry};
use foreshock::simulate::fleet::server::{SharedFleet, drive, serve};
use foreshock::simulate::fleet::{
    Columns, FaultSpec, Fleet, FleetOptions, MemoryOptions, Page, Scrapes,
};
use jiff::{SignedDuration, Timestamp};
use regex::Regex;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::node_exporter::NodeExporter;
use crate::support::prometheus::{Prometheus, PrometheusOptions};
use crate::support::{init, wait_until};

const NODES: usize = 20;
/// Relative difference that is allowed between the two ways.
const TOLERANCE: f64 = 0.02;
/// And this share of the feature's noise, for values that are almost nothing.
const NOISE_SHARE: f64 = 0.001;

/// Two matrices of one time, cell by cell.
#[derive(Default)]
struct Comparison {
    cells: BTreeMap<String, usize>,
    missing: usize,
    worst: Option<(f64, String)>,
    wrong: Vec<String>,
}

impl Comparison {
    fn add(&mut self, prometheus: &FeatureMatrix, fleet: &FeatureMatrix) {
        assert_eq!(prometheus.nodes, fleet.nodes, "the same Nodes");
        for (row, node) in fleet.nodes.iter().enumerate() {
            let scraped = (prometheus.scraped_at[row], fleet.scraped_at[row]);
            if scraped.0.is_some() != scraped.1.is_some() {
                self.wrong.push(format!("{node} scraped at {scraped:?}"));
            }
            for (column, feature) in fleet.schema.features().iter().enumerate() {
                let name = feature.name.as_str();
                let cell = |matrix: &FeatureMatrix| {
                    let source = matrix
                        .source(row, column)
                        .map(|source| source.name.to_string());
                    matrix.value(row, column).zip(source)
                };
                let (theirs, ours) = (cell(prometheus), cell(fleet));
                let text = format!(
                    "{name} of {node} at {}: Prometheus {theirs:?}, the fleet {ours:?}",
                    fleet.at
                );
                let ((a, from), (b, of)) = match (theirs, ours) {
                    (None, None) => {
                        self.missing += 1;
                        continue;
                    }
                    (Some(a), Some(b)) => (a, b),
                    (None, Some(_)) | (Some(_), None) => {
                        self.wrong.push(text);
                        continue;
                    }
                };
                *self.cells.entry(name.to_owned()).or_default() += 1;
                // How long a scrape takes here depends on what else this machine does.
                let slack = if name == "scrape_seconds" {
                    feature.noise
                } else {
                    NOISE_SHARE * feature.noise
                };
                let size = a.abs().max(b.abs());
                let off = ((a - b).abs() - slack).max(0.0) / size.max(f64::MIN_POSITIVE);
                if off > TOLERANCE || from != of {
                    self.wrong.push(text.clone());
                }
                if self.worst.as_ref().is_none_or(|(worst, _)| off > *worst) {
                    self.worst = Some((off, text));
                }
            }
        }
    }

    /// Judges; `all` also wants a value of every feature, the optional ones included.
    fn judge(&self, what: &str, all: bool) {
        let cells: usize = self.cells.values().sum();
        println!(
            "{what}: {cells} cells of {} features compared, {} missing both ways, {} differ",
            self.cells.len(),
            self.missing,
            self.wrong.len()
        );
        if let Some((off, text)) = &self.worst {
            println!("worst: {:.3} % off; {text}", off * 100.0);
        }
        println!("figure fleet_cells_{what} {cells}");
        assert!(
            self.wrong.is_empty(),
            "{} cells differ, such as:\n{}",
            self.wrong.len(),
            self.wrong[..self.wrong.len().min(30)].join("\n")
        );
        for feature in Schema::built_in().features() {
            let compared = self.cells.get(feature.name.as_str()).copied().unwrap_or(0);
            let least = match (feature.optional, all) {
                // Three Nodes may be down, silent or without the collector.
                (false, _) => NODES - 4,
                (true, true) => 1,
                (true, false) => 0,
            };
            assert!(
                compared >= least,
                "{}: only {compared} values compared",
                feature.name
            );
        }
    }
}

fn directory(fleet: &Fleet) -> NodeDirectory {
    NodeDirectory::new(fleet.names().map(|name| NodeEntry {
        name: name.clone(),
        uid: format!("uid-{name}").as_str().into(),
        created: Timestamp::UNIX_EPOCH,
        hostname: None,
        addresses: Vec::new(),
    }))
}

fn faults(specs: &[&str], start: Timestamp) -> Vec<foreshock::simulate::fleet::FaultEvent> {
    specs
        .iter()
        .map(|text| {
            let spec: FaultSpec = text.parse().expect("a fault");
            spec.starting(start)
        })
        .collect()
}

/// How many Nodes are in an incident; several must be, or nothing is said of sick ones.
fn sick(fleet: &Fleet) -> usize {
    let nodes = fleet.names();
    let sick = nodes.filter(|node| fleet.degraded(node).is_some()).count();
    assert!(sick >= 4, "only {sick} Nodes are in an incident");
    sick
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A fleet in this process, which remembers what is scraped, and a Prometheus that scrapes it.
struct Served {
    fleet: SharedFleet,
    prometheus: Prometheus,
    stop: CancellationToken,
}

/// Scrape interval of the live test.
const EVERY: u64 = 2;
const LIVE_WINDOW: u64 = 30;

impl Served {
    async fn start(specs: &[&str]) -> Self {
        init();
        let start = Timestamp::from_second(Timestamp::now().as_second()).expect("now is a time");
        let mut options = FleetOptions::new(11, NODES, start);
        options.tick = seconds(1);
        options.schedule = faults(specs, start);
        options.memory = Some(MemoryOptions {
            scrapes: Scrapes::OnRequest,
            rate_window: seconds(LIVE_WINDOW),
            long: seconds(3600),
        });
        let fleet = Fleet::new(options).expect("a fleet");
        let fleet = SharedFleet::new(fleet, Arc::new(Timestamp::now));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let stop = CancellationToken::new();
        tokio::spawn(drive(fleet.clone(), 1.0, stop.clone()));
        tokio::spawn(serve(listener, fleet.clone(), stop.clone()));
        let mut jobs = vec![json!({
            "job_name": "kube-state-metrics", "honor_labels": true,
            "metrics_path": "/kube-state-metrics/metrics", "static_configs": [{"targets": [address]}],
        })];
        for target in ["node-exporter", "kubelet", "probe"] {
            jobs.push(json!({
                "job_name": target,
                "http_sd_configs": [{"url": format!("http://{address}/sd?target={target}")}],
            }));
        }
        let every = format!("{EVERY}s");
        let config = json!({
            "global": {"scrape_interval": every, "scrape_timeout": every}, "scrape_configs": jobs,
        });
        let prometheus = Prometheus::start(PrometheusOptions {
            config: config.to_string(),
            ..PrometheusOptions::default()
        })
        .await;
        Self {
            fleet,
            prometheus,
            stop,
        }
    }

    /// Waits until every target of a job was scraped so often within the rate window.
    async fn wait_scraped(&self, job: &str, times: u64) {
        let query =
            format!("count(count_over_time(up{{job=\"{job}\"}}[{LIVE_WINDOW}s]) >= {times})");
        wait_until(
            &format!("{NODES} targets of {job} to be scraped {times} times"),
            seconds(90),
            async || match self.prometheus.value(&query).await {
                Some(count) if count >= NODES as f64 => Ok(()),
                other => Err(format!("{other:?} targets")),
            },
        )
        .await;
    }

    /// The millisecond within a scrape interval that lies farthest from every scrape, and how far.
    ///
    /// The fleet hears of a scrape some milliseconds after Prometheus has noted its time. At an edge of a
    /// window that would be one sample more or less; in a gap between the scrapes it is nothing.
    async fn quiet_moment(&self) -> (i64, i64) {
        let interval = EVERY as i64 * 1000;
        let result = self
            .prometheus
            .query("timestamp(up{job!=\"kube-state-metrics\"})")
            .await;
        let mut phases: Vec<i64> = result
            .as_array()
            .expect("a vector")
            .iter()
            .filter_map(|series| series["value"][1].as_str()?.parse::<f64>().ok())
            .map(|time| (time * 1000.0).round() as i64 % interval)
            .collect();
        phases.sort_unstable();
        let first = *phases.first().expect("there are targets");
        phases.push(first + interval);
        let (gap, from) = phases
            .windows(2)
            .map(|pair| (pair[1] - pair[0], pair[0]))
            .max()
            .expect("there are two targets");
        ((from + gap * 2 / 3) % interval, gap / 3)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn what_a_scraping_prometheus_says_of_the_fleet_is_what_the_fleet_computes() {
    let served = Served::start(&[
        "worker-02:memory-leak:for=10m:severity=0.9:ramp=20s",
        "worker-03:slow-disk:for=10m:severity=0.8:ramp=5s",
        "worker-05:packet-loss:for=10m:severity=0.7:ramp=5s",
        "worker-07:overheating:for=10m:severity=0.9:ramp=20s",
        "worker-08:cpu-starvation:for=10m:severity=0.8:ramp=5s",
        "worker-11:filling-filesystem:for=10m:severity=0.9:ramp=20s",
        "worker-13:lost-collector:at=20s:for=10m:severity=0.8:target=pressure",
        "worker-14:vanished-exporter:at=25s:for=10m:severity=0.8",
        "worker-17:reboot-loop:at=10s:for=10m:severity=0.9",
    ])
    .await;
    for job in ["node-exporter", "kubelet", "blackbox"] {
        served.wait_scraped(job, LIVE_WINDOW / EVERY).await;
    }
    let options = Options {
        url: served.prometheus.url().to_owned(),
        rate_window: seconds(LIVE_WINDOW),
        stale_after: seconds(10),
        ..Options::default()
    };
    let schema = Arc::new(Schema::built_in());
    let telemetry = PrometheusTelemetry::new(&options, Arc::clone(&schema)).expect("options");
    let columns = Columns::new(schema, options.rate_window, options.stale_after);
    let directory = served.fleet.with(|fleet| directory(fleet));

    let (phase, margin) = served.quiet_moment().await;
    println!("asked {phase} ms after each interval begins, {margin} ms from the nearest scrape");
    let interval = EVERY as i64 * 1000;
    let mut comparison = Comparison::default();
    let mut next = Timestamp::now().as_millisecond() / interval * interval + phase;
    for _ in 0..4 {
        let at = Timestamp::from_millisecond(next).expect("a time of today");
        // Until the scrapes before it have arrived.
        let due = at + SignedDuration::from_millis(800);
        let pause = due.duration_since(Timestamp::now());
        tokio::time::sleep(Duration::try_from(pause).unwrap_or_default()).await;
        let said = telemetry
            .snapshot(at, &directory)
            .await
            .expect("Prometheus answers");
        assert!(said.problems.is_empty(), "{:?}", said.problems);
        let computed = served.fleet.with(|fleet| columns.matrix(fleet, at));
        comparison.add(&said.matrix, &computed);
        next += 3 * interval;
    }
    println!(
        "{} of {NODES} Nodes are sick",
        served.fleet.with(|fleet| sick(fleet))
    );
    comparison.judge("scraped", false);
}

/// How far apart the scrapes of the written history are.
const STEP: u64 = 120;
const HISTORY_WINDOW: u64 = 600;
/// Beyond the windows of an hour and six hours only this share of the scrapes is written.
const THIN: u64 = 5;
const HOUR: u64 = 3600;

/// Every metric that a feature asks for, and for how long before the last evaluation it is needed.
fn metrics_of(schema: &Schema) -> BTreeMap<String, Duration> {
    let quoted = Regex::new(r#""[^"]*""#).expect("a pattern");
    let name = Regex::new(r"\b(?:node|kube|kubelet|probe)_[a-zA-Z0-9_]+\b").expect("a pattern");
    let mut metrics = BTreeMap::new();
    for feature in schema.features() {
        let text = quoted.replace_all(&feature.promql, "");
        for found in name.find_iter(&text) {
            let needed = metrics
                .entry(found.as_str().to_owned())
                .or_insert(seconds(HISTORY_WINDOW));
            *needed = feature.history.max(*needed);
        }
    }
    metrics
}

/// Writes one page into a history, as if it had been scraped at `at` with these target labels.
fn write_history(
    page: &str,
    wanted: &BTreeSet<&str>,
    labels: &str,
    at: Timestamp,
    history: &mut String,
) {
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let end = line.find(['{', ' ']).expect("a sample has a value");
        let (name, rest) = line.split_at(end);
        if !wanted.contains(name) {
            continue;
        }
        let time = at.as_second();
        let written = match rest.strip_prefix('{') {
            Some(rest) => {
                let (own, value) = rest.rsplit_once("} ").expect("labels end");
                writeln!(history, "{name}{{{own},{labels}}} {value} {time}")
            }
            None => writeln!(history, "{name}{{{labels}}}{rest} {time}"),
        };
        written.expect("writing to a String cannot fail");
    }
}

/// Writes everything that would be scraped now.
fn scrape(fleet: &Fleet, age: Duration, metrics: &BTreeMap<String, Duration>, out: &mut String) {
    let at = fleet.now();
    let wanted: BTreeSet<&str> = metrics
        .iter()
        .filter(|(_, needed)| age < **needed + seconds(2400))
        .map(|(name, _)| name.as_str())
        .chain(["node_uname_info", "up", "scrape_duration_seconds"])
        .collect();
    let names: Vec<NodeName> = fleet.names().cloned().collect();
    let mut page = String::new();
    for node in &names {
        for (kind, labels) in [
            (
                Page::NodeExporter,
                format!("job=\"node-exporter\",instance=\"{node}:9100\""),
            ),
            (
                Page::Kubelet,
                format!("job=\"kubelet\",instance=\"{node}:10250\",node=\"{node}\""),
            ),
            (Page::Probe, format!("job=\"blackbox\",instance=\"{node}\"")),
        ] {
            if kind != Page::NodeExporter && age > seconds(2400 + HISTORY_WINDOW) {
                continue;
            }
            page.clear();
            let up = fleet.write_page(node, kind, &mut page).is_ok();
            if kind == Page::NodeExporter {
                let took = fleet.scrape_duration(node).unwrap_or_default();
                writeln!(
                    page,
                    "up {}\nscrape_duration_seconds {}",
                    u8::from(up),
                    took.as_secs_f64()
                )
                .expect("writing to a String cannot fail");
            }
            write_history(&page, &wanted, &labels, at, out);
        }
    }
    if age < seconds(HOUR + 2400) {
        page.clear();
        fleet.write_cluster_page(true, &mut page);
        let labels = "job=\"kube-state-metrics\",instance=\"kube-state-metrics:8080\"";
        write_history(&page, &wanted, labels, at, out);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn windows_of_an_hour_and_a_day_agree_with_a_prometheus_that_has_the_history() {
    init();
    let start: Timestamp = "2026-10-01T00:00:00Z".parse().expect("a time");
    let after = |seconds: u64| start + SignedDuration::from_secs(seconds as i64);
    let mut options = FleetOptions::new(12, NODES, start);
    options.tick = seconds(15);
    options.schedule = faults(
        &[
            "worker-02:memory-leak:at=24h:for=3h:severity=0.9",
            "worker-03:slow-disk:at=25h:for=1h:severity=0.8",
            "worker-05:packet-loss:at=25h:for=1h:severity=0.7",
            "worker-07:overheating:at=24h:for=2h:severity=0.9",
            "worker-08:cpu-starvation:at=25h:for=1h:severity=0.8",
            "worker-11:filling-filesystem:at=20h:for=7h:severity=0.9",
            "worker-13:lost-collector:at=25h:for=1h:severity=0.8:target=filesystem",
            "worker-14:vanished-exporter:at=24h40m:for=20m:severity=0.8",
            "worker-17:reboot-loop:at=24h30m:for=30m:severity=0.9",
        ],
        start,
    );
    options.memory = Some(MemoryOptions {
        scrapes: Scrapes::Every(seconds(STEP)),
        rate_window: seconds(HISTORY_WINDOW),
        long: seconds(86_400),
    });
    let schema = Arc::new(Schema::built_in());
    let metrics = metrics_of(&schema);
    let (window, stale) = (seconds(HISTORY_WINDOW), seconds(290));
    let columns = Columns::new(Arc::clone(&schema), window, stale);
    let mut fleet = Fleet::new(options).expect("a fleet");
    let moments = [25 * HOUR + 975, 25 * HOUR + 1575];
    let end = moments[1];
    let mut computed = Vec::new();
    let mut history = String::new();
    for step in 1..=end.div_ceil(STEP) {
        let (from, to) = ((step - 1) * STEP, step * STEP);
        for moment in moments.iter().filter(|moment| (from..to).contains(moment)) {
            fleet.advance(after(*moment));
            computed.push(columns.matrix(&fleet, after(*moment)));
        }
        fleet.advance(after(to));
        let age = seconds(end.saturating_sub(to));
        if age < seconds(6 * HOUR + 2400) || step % THIN == 0 {
            scrape(&fleet, age, &metrics, &mut history);
        }
    }
    history.push_str("# EOF\n");
    println!(
        "{} samples of history in {} MB",
        history.lines().count() - 1,
        history.len() / 1_000_000
    );
    let prometheus = Prometheus::start(PrometheusOptions {
        config: "scrape_configs: []".to_owned(),
        history: Some(history),
        ..PrometheusOptions::default()
    })
    .await;
    let options = Options {
        url: prometheus.url().to_owned(),
        rate_window: window,
        stale_after: stale,
        ..Options::default()
    };
    let telemetry = PrometheusTelemetry::new(&options, schema).expect("options");
    let directory = directory(&fleet);
    let mut comparison = Comparison::default();
    for computed in &computed {
        let said = telemetry
            .snapshot(computed.at, &directory)
            .await
            .expect("Prometheus answers");
        assert!(said.problems.is_empty(), "{:?}", said.problems);
        comparison.add(&said.matrix, computed);
    }
    println!("{} of {NODES} Nodes are sick", sick(&fleet));
    comparison.judge("history", true);
}

/// `# TYPE` lines of a page.
fn types(page: &str) -> BTreeMap<String, String> {
    page.lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split_once(' '))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn the_fleet_shows_every_metric_of_the_features_with_the_types_of_the_real_exporter() {
    let served = Served::start(&[]).await;
    served.wait_scraped("node-exporter", 1).await;
    let targets = served
        .prometheus
        .get("/api/v1/targets", &[("state", "active")])
        .await;
    let targets = targets["activeTargets"].as_array().expect("targets");
    let up = targets
        .iter()
        .filter(|target| target["labels"]["job"] == "node-exporter" && target["health"] == "up")
        .count();
    assert_eq!(up, NODES, "{targets:?}");

    let mut shown = BTreeMap::new();
    served.fleet.with(|fleet| {
        let mut page = String::new();
        let names: Vec<NodeName> = fleet.names().cloned().collect();
        for node in &names {
            for kind in [Page::NodeExporter, Page::Kubelet, Page::Probe] {
                fleet
                    .write_page(node, kind, &mut page)
                    .expect("a healthy Node answers");
            }
        }
        fleet.write_cluster_page(true, &mut page);
        shown.extend(types(&page));
    });
    let schema = Schema::built_in();
    let missing: Vec<String> = metrics_of(&schema)
        .into_keys()
        .filter(|name| !shown.contains_key(name.strip_suffix("_bucket").unwrap_or(name)))
        .collect();
    assert!(
        missing.is_empty(),
        "features ask for what no simulated Node shows: {missing:?}"
    );

    let exporter = NodeExporter::start(&[]).await;
    let real = types(&exporter.metrics().await);
    let common: Vec<_> = shown
        .iter()
        .filter_map(|(name, kind)| Some((name, kind, real.get(name)?)))
        .collect();
    println!(
        "{} families simulated, {} of them also shown by the node_exporter of this machine",
        shown.len(),
        common.len()
    );
    assert!(common.len() >= 50, "only {} in common", common.len());
    let other: Vec<_> = common
        .iter()
        .filter(|(_, kind, real)| kind != real)
        .collect();
    assert!(other.is_empty(), "other types than the real: {other:?}");
}
