//! Healthy machines that the model has never met stay healthy: a real node_exporter, idle and at work,
//! and exporters whose numbers are made here, without any code of the simulated fleet.

mod machines;

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use foreshock::features::{
    FeatureMatrix, FeatureName, History, NodeDirectory, Schema, Telemetry, Usual, derive, grid,
};
use foreshock::model::authority::Demands;
use foreshock::model::loaded::{Model, Terms};
use foreshock::prometheus::{PrometheusOptions as Options, PrometheusTelemetry};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use self::machines::{MACHINES, Machine, machines};
use crate::support::node_exporter::NodeExporter;
use crate::support::prometheus::{Prometheus, PrometheusOptions};
use crate::support::server::Workdir;
use crate::support::target::Targets;
use crate::support::{init, wait_until};

/// Below this a Node is healthy: `policy.caution`.
const CAUTION: f64 = 0.5;

/// The built-in model, over the features of some jobs of a Prometheus.
struct Judge {
    name: &'static str,
    telemetry: PrometheusTelemetry,
    model: Model,
    evaluations: usize,
    highest: (f64, String),
    wrong: Vec<String>,
}

impl Judge {
    fn new(name: &'static str, prometheus: &Prometheus, job: &str, rate_window: u64) -> Self {
        let schema = Arc::new(Schema::built_in());
        let options = Options {
            url: prometheus.url().to_owned(),
            selector: format!("job=\"{job}\""),
            rate_window: Duration::from_secs(rate_window),
            ..Options::default()
        };
        let terms = Terms {
            schema: Arc::clone(&schema),
            demands: Demands::default(),
        };
        Self {
            name,
            model: Model::load(None, terms).expect("the built-in model"),
            telemetry: PrometheusTelemetry::new(&options, schema).expect("options"),
            evaluations: 0,
            highest: (0.0, String::new()),
            wrong: Vec::new(),
        }
    }

    /// Scores every Node there is at a time; returns how many.
    async fn ask(&mut self, at: Timestamp) -> usize {
        let said = self
            .telemetry
            .snapshot(at, &NodeDirectory::open())
            .await
            .expect("Prometheus answers");
        let matrix = said.matrix;
        let scorer = &self.model.scorer;
        let columns = derive(scorer.columns(), &matrix, &History::default())
            .expect("the model knows these features");
        let usual = Usual::of(&matrix);
        for (row, score) in scorer.score(&columns).iter().enumerate() {
            let risk = score.probability.as_f64();
            self.evaluations += 1;
            if risk <= self.highest.0 && risk < CAUTION {
                continue;
            }
            let value = |feature: &FeatureName| {
                usual.value(row, matrix.schema.column_of(feature.as_str())?)
            };
            let reasons: Vec<String> = scorer
                .explain(&columns, row, &value)
                .map(|explanation| explanation.contributions)
                .unwrap_or_default()
                .iter()
                .take(6)
                .map(|c| {
                    format!(
                        "{} {:?} (usually {:?}) {:+.2}",
                        c.feature, c.value, c.usual, c.log_odds
                    )
                })
                .collect();
            let text = format!(
                "{} at {at}: risk {risk:.3}, {:.0} % missing; {}",
                matrix.nodes[row],
                100.0 * matrix.missing_share(row),
                reasons.join("; ")
            );
            if risk >= CAUTION {
                self.wrong
                    .push(format!("{text}\n    {}", row_text(&matrix, row)));
            }
            if risk > self.highest.0 {
                self.highest = (risk, text);
            }
        }
        matrix.nodes.len()
    }

    fn report(&self) {
        println!(
            "{}: {} scores, the highest {:.3}: {}",
            self.name, self.evaluations, self.highest.0, self.highest.1
        );
        println!("figure healthy_{}_highest {:.3}", self.name, self.highest.0);
    }

    fn assert_healthy(&self, least: usize) {
        assert!(
            self.evaluations >= least,
            "{}: only {} scores",
            self.name,
            self.evaluations
        );
        assert!(
            self.wrong.is_empty(),
            "{}: {} of {} scores of healthy machines reach {CAUTION}:\n{}",
            self.name,
            self.wrong.len(),
            self.evaluations,
            self.wrong[..self.wrong.len().min(12)].join("\n")
        );
    }
}

/// All features of a row, for whoever has to improve the model.
fn row_text(matrix: &FeatureMatrix, row: usize) -> String {
    let features = matrix.schema.features().iter().enumerate();
    let values: Vec<String> = features
        .filter_map(|(column, feature)| {
            Some(format!(
                "{}={:.4}",
                feature.name,
                matrix.value(row, column)?
            ))
        })
        .collect();
    values.join(" ")
}

/// Compiles on every core until it is dropped.
struct Compilers {
    tasks: Vec<tokio::task::JoinHandle<()>>,
    _workdir: Workdir,
}

impl Compilers {
    fn start() -> Self {
        let workdir = Workdir::new("compilers");
        let mut source = String::new();
        for n in 0..1500 {
            writeln!(
                source,
                "pub fn f{n}(x: &[u64]) -> Vec<String> {{ x.iter().filter(|y| **y % {m} == 0).map(|y| format!(\"{{y}}-{{}}\", y.wrapping_mul({n}))).collect() }}",
                m = n + 2
            )
            .expect("writing to a String cannot fail");
        }
        let source = workdir.write("busy.rs", &source);
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let tasks = (0..cores)
            .map(|n| tokio::spawn(compile(source.clone(), workdir.join(&format!("out-{n}")))))
            .collect();
        Self {
            tasks,
            _workdir: workdir,
        }
    }
}

impl Drop for Compilers {
    fn drop(&mut self) {
        // The processes are killed with the tasks that wait for them.
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

async fn compile(source: impl AsRef<Path>, out: std::path::PathBuf) {
    std::fs::create_dir_all(&out).expect("a folder can be made");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    loop {
        let status = tokio::process::Command::new(&rustc)
            .args(["--edition=2021", "--crate-type=lib", "-O", "--out-dir"])
            .arg(&out)
            .arg(source.as_ref())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .status()
            .await
            .expect("rustc, which has built this test, can be started");
        assert!(status.success(), "the generated source compiles");
    }
}

/// Sets the pages of all machines to now, every half second, until it is dropped.
fn keep_telling(targets: Arc<Targets>, machines: Arc<Vec<Machine>>) -> tokio::task::JoinHandle<()> {
    let began = tokio::time::Instant::now();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(500));
        loop {
            ticks.tick().await;
            for machine in machines.iter() {
                let page = machine.page(began.elapsed().as_secs_f64(), Timestamp::now());
                targets.set(&machine.name, &page);
            }
        }
    })
}

/// How long each half lasts: `FORESHOCK_HEALTHY_MINUTES` for the full claim, less in every test run.
fn half() -> Duration {
    match std::env::var("FORESHOCK_HEALTHY_MINUTES") {
        Ok(minutes) => {
            let minutes: f64 = minutes
                .parse()
                .expect("FORESHOCK_HEALTHY_MINUTES is a number");
            Duration::from_secs_f64(60.0 * minutes)
        }
        Err(_) => Duration::from_secs(50),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn a_real_node_exporter_idle_and_compiling_and_twenty_made_ones_stay_healthy() {
    init();
    let exporter = NodeExporter::start(&[]).await;
    let machines = Arc::new(machines());
    let targets = Arc::new(Targets::start().await);
    let telling = keep_telling(Arc::clone(&targets), Arc::clone(&machines));
    let names = machines.iter().map(|machine| machine.name.as_str());
    let made = targets.scrape_config(
        "made",
        "5s",
        names,
        |name| json!({"instance": format!("{name}:9100")}),
    );
    let config = json!({
        "global": {"scrape_interval": "5s", "scrape_timeout": "5s"},
        "scrape_configs": [
            {"job_name": "node", "static_configs": [{"targets": [exporter.address()]}]},
            made,
        ],
    });
    let prometheus = Prometheus::start(PrometheusOptions {
        config: config.to_string(),
        ..PrometheusOptions::default()
    })
    .await;
    // With the default window the first minutes are averages with little in them; a window of a minute
    // shows a busy machine as busy at once.
    let mut judges = [
        (1, Judge::new("real", &prometheus, "node", 300)),
        (1, Judge::new("real_1m", &prometheus, "node", 60)),
        (MACHINES, Judge::new("made", &prometheus, "made", 300)),
        (MACHINES, Judge::new("made_1m", &prometheus, "made", 60)),
    ];
    wait_until(
        "all exporters to be scraped",
        Duration::from_secs(60),
        async || match prometheus.value("count(up offset 4s == 1)").await {
            Some(count) if count > MACHINES as f64 => Ok(()),
            other => Err(format!("{other:?} up")),
        },
    )
    .await;
    let half = half();
    let began = tokio::time::Instant::now();
    let mut steps = tokio::time::interval(Duration::from_secs(15));
    let mut compilers = None;
    while began.elapsed() < 2 * half {
        steps.tick().await;
        if compilers.is_none() && began.elapsed() >= half {
            println!("after {:?} the compilers start", began.elapsed());
            compilers = Some(Compilers::start());
        }
        let (lag, interval) = (Duration::from_secs(2), Duration::from_secs(1));
        for (nodes, judge) in &mut judges {
            let seen = judge.ask(grid(Timestamp::now(), lag, interval)).await;
            assert_eq!(seen, *nodes, "{}", judge.name);
        }
    }
    if let Some(busy) = prometheus
        .value("1 - avg(rate(node_cpu_seconds_total{job=\"node\",mode=\"idle\"}[30s]))")
        .await
    {
        println!("figure healthy_compiling_cpu_used {busy:.3}");
    }
    drop(compilers);
    telling.abort();
    let least = usize::try_from(half.as_secs() * 2 / 15).unwrap_or(usize::MAX);
    judges.iter().for_each(|(_, judge)| judge.report());
    for (nodes, judge) in &judges {
        judge.assert_healthy(least.saturating_sub(2) * nodes);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn twenty_made_machines_with_a_day_of_history_stay_healthy() {
    init();
    let machines = machines();
    let start: Timestamp = "2026-10-03T06:00:00Z".parse().expect("a time");
    let end = 26 * 3600_i64;
    let mut history = String::new();
    let mut t = 0;
    while t <= end {
        let now = start + SignedDuration::from_secs(t);
        for machine in &machines {
            let instance = format!("job=\"made\",instance=\"{}:9100\"", machine.name);
            let page = machine.page(t as f64, now);
            for line in page.lines().chain(["up 1", "scrape_duration_seconds 0.03"]) {
                let (name, value) = line.rsplit_once(' ').expect("a sample has a value");
                let labelled = match name.strip_suffix('}') {
                    Some(open) => format!("{open},{instance}}}"),
                    None => format!("{name}{{{instance}}}"),
                };
                writeln!(history, "{labelled} {value} {}", now.as_second())
                    .expect("writing to a String cannot fail");
            }
        }
        // The last hours as they would be scraped, the time before as rules of thumb need it.
        t += if t < end - 7200 { 900 } else { 60 };
    }
    history.push_str("# EOF\n");
    let prometheus = Prometheus::start(PrometheusOptions {
        config: "scrape_configs: []".to_owned(),
        history: Some(history),
        ..PrometheusOptions::default()
    })
    .await;
    let mut judge = Judge::new("day", &prometheus, "made", 300);
    for t in (end - 3600..=end).step_by(150) {
        let nodes = judge.ask(start + SignedDuration::from_secs(t)).await;
        assert_eq!(nodes, MACHINES);
    }
    judge.report();
    judge.assert_healthy(25 * MACHINES);
}
