//! `foreshock train` on a real Prometheus with two weeks of history, interrupted and resumed; and the service
//! that acts on what was learned, on a real cluster. `tests/history` runs this.

mod history;
#[allow(
    unused_imports,
    dead_code,
    reason = "its own tests belong to the other binary that has it"
)]
#[path = "../it/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use foreshock::model::artifact::{Artifact, Limits};
use foreshock::simulate::fleet::server::{self as fleet_server, SharedFleet};
use foreshock_core::node::NodeName;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use history::{ILL, NODES};
use support::cluster::Cluster;
use support::foreshock::{Foreshock, apply_account};
use support::prometheus::{Prometheus, PrometheusOptions};
use support::server::Workdir;
use support::wait_until;

/// The history that is learned from.
const SEED: u64 = 9_001;
/// More than this a training must not need, in MiB.
const MEMORY_MAX: f64 = 400.0;
/// Drains that an incident is worth in this test, and the threshold that follows: 1 ÷ (0.8 × 4).
const INCIDENT_COST: f64 = 4.0;

fn main() {
    support::init();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be started");
    runtime.block_on(run());
}

async fn run() {
    let workdir = Workdir::new("training");
    let data = workdir.join("data");
    let began = Instant::now();
    let fleet = history::write(SEED, Timestamp::now(), &data);
    println!("history written in {:.0} s", began.elapsed().as_secs_f64());

    // The fleet goes on, and is scraped from now on as it was.
    let names: Vec<NodeName> = fleet.names().cloned().collect();
    let fleet = SharedFleet::new(fleet, Arc::new(Timestamp::now));
    let shutdown = CancellationToken::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("the loopback interface has a free port");
    let address = listener
        .local_addr()
        .expect("a bound socket has an address");
    tokio::spawn(fleet_server::drive(fleet.clone(), 1.0, shutdown.clone()));
    tokio::spawn(fleet_server::serve(listener, fleet, shutdown.clone()));
    let prometheus = Prometheus::start(PrometheusOptions {
        config: scrapes(&names, &address.to_string()),
        data: Some(data),
        ..PrometheusOptions::default()
    })
    .await;

    let config = workdir.write(
        "train.toml",
        &format!(
            "[prometheus]\nurl = \"{}\"\n[kubernetes]\nenabled = false\n[model]\nincident_cost = {INCIDENT_COST}\n",
            prometheus.url()
        ),
    );
    let model = workdir.join("mine.json");
    let training = Training {
        config,
        model: model.clone(),
        until: Timestamp::now(),
    };
    training.interrupted(&workdir).await;
    let artifact = training.finished(&workdir).await;
    println!("model {}", artifact.id());
    acts(&workdir, &prometheus, &model, &artifact).await;
    shutdown.cancel();
    println!("figure training_passed 1");
}

fn scrapes(names: &[NodeName], address: &str) -> String {
    let configs: Vec<Value> = names
        .iter()
        .map(|node| {
            json!({
                "targets": [address],
                "labels": {"__metrics_path__": format!("/nodes/{node}/metrics"), "instance": node.as_str()},
            })
        })
        .collect();
    json!({
        "global": {"scrape_interval": "15s"},
        "scrape_configs": [{"job_name": "node-exporter", "static_configs": configs}],
    })
    .to_string()
}

struct Training {
    config: PathBuf,
    model: PathBuf,
    until: Timestamp,
}

impl Training {
    fn start(&self, workdir: &Workdir, log: &str) -> Child {
        let log = std::fs::File::create(workdir.join(log)).expect("a log can be written");
        Command::new(env!("CARGO_BIN_EXE_foreshock"))
            .args(["train", "--keep", "--since", "20d", "--until"])
            .arg(self.until.to_string())
            .arg("--config")
            .arg(&self.config)
            .arg("--output")
            .arg(&self.model)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be copied"))
            .stderr(log)
            .spawn()
            .expect("foreshock can be started")
    }

    /// What has been fetched, by name: when it was written.
    fn fetched(&self) -> BTreeMap<String, SystemTime> {
        let mut folder = self.model.clone().into_os_string();
        folder.push(".work");
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                let written = entry.metadata().ok()?.modified().ok()?;
                (!name.starts_with('.')).then_some((name, written))
            })
            .collect()
    }

    /// Kills it in the middle of the questions, and asks it to stop a little later.
    async fn interrupted(&self, workdir: &Workdir) {
        let mut child = self.start(workdir, "killed.log");
        self.wait_fetched(&mut child, 6).await;
        child.kill().expect("the child is ours");
        child.wait().expect("the child ends");
        let before = self.fetched();

        let mut child = self.start(workdir, "stopped.log");
        self.wait_fetched(&mut child, before.len() + 12).await;
        let asked = Command::new("kill")
            .args(["-s", "TERM", &child.id().to_string()])
            .status();
        assert!(asked.expect("kill can be started").success());
        let status = child.wait().expect("the child ends");
        assert!(!status.success());
        let said = read(&workdir.join("stopped.log"));
        assert!(
            said.contains("the same command goes on from there"),
            "{said}"
        );
        assert!(!self.model.exists(), "there is a model before it is made");
        let after = self.fetched();
        for (name, written) in &before {
            assert_eq!(after.get(name), Some(written), "{name} was fetched again");
        }
        println!(
            "interrupted after {} and {} of the files",
            before.len(),
            after.len()
        );
    }

    async fn wait_fetched(&self, child: &mut Child, files: usize) {
        wait_until(
            "parts to be fetched",
            Duration::from_secs(120),
            async || {
                if let Some(status) = child.try_wait().expect("the child is ours") {
                    panic!("it ended by itself: {status}");
                }
                let there = self.fetched().len();
                if there >= files {
                    Ok(())
                } else {
                    Err(format!("{there} files"))
                }
            },
        )
        .await;
    }

    /// Lets it end, twice: what was fetched is not fetched again, and the same file comes out.
    async fn finished(&self, workdir: &Workdir) -> Artifact {
        let before = self.fetched();
        let began = Instant::now();
        let (status, mebibytes) = self.run(workdir, "finished.log").await;
        let said = read(&workdir.join("finished.log"));
        println!("{said}");
        assert!(status.success(), "{status}");
        for (name, written) in &before {
            let now = self.fetched();
            assert_eq!(now.get(name), Some(written), "{name} was fetched again");
        }
        println!(
            "figure training_seconds {:.0}",
            began.elapsed().as_secs_f64()
        );
        println!("figure training_mebibytes {mebibytes:.0}");
        assert!(mebibytes < MEMORY_MAX, "{mebibytes} MiB");
        let bytes = std::fs::read(&self.model).expect("the model is there");
        for report in ["mine.report.md", "mine.report.html"] {
            let report = self.model.with_file_name(report);
            assert!(report.metadata().expect("the report is there").len() > 1_000);
        }
        let began = Instant::now();
        let (status, _) = self.run(workdir, "again.log").await;
        assert!(status.success(), "{}", read(&workdir.join("again.log")));
        println!(
            "figure training_seconds_without_fetching {:.0}",
            began.elapsed().as_secs_f64()
        );
        let again = std::fs::read(&self.model).expect("the model is there");
        assert_eq!(again, bytes, "the same history gave another model");
        if let Some(folder) = std::env::var_os("FORESHOCK_KEEP_REPORT") {
            for file in ["mine.json", "mine.report.md", "mine.report.html"] {
                let to = Path::new(&folder).join(file);
                std::fs::copy(self.model.with_file_name(file), to).expect("there is room");
            }
        }
        Artifact::parse(&bytes, &Limits::default()).expect("the model is valid")
    }

    /// Lets it end; how it did, and the most memory that it had.
    async fn run(&self, workdir: &Workdir, log: &str) -> (ExitStatus, f64) {
        let mut child = self.start(workdir, log);
        let status = format!("/proc/{}/status", child.id());
        let mut most = 0.0f64;
        loop {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            most = most.max(kibibytes.unwrap_or(0.0));
            if let Some(status) = child.try_wait().expect("the child is ours") {
                return (status, most / 1_024.0);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// The service with the model, on a cluster: by the model's word alone it taints a Node that is about to degrade,
/// and none that is well.
async fn acts(workdir: &Workdir, prometheus: &Prometheus, model: &Path, artifact: &Artifact) {
    let local = artifact.content().local.as_ref();
    println!(
        "judged on {} incidents of {} Nodes",
        local.map_or(0, |local| local.events),
        local.map_or(0, |local| local.nodes)
    );
    let cluster = Cluster::start().await;
    cluster.create_nodes(NODES).await;
    apply_account(&cluster).await;
    let kubeconfig = cluster.kubeconfig_for("foreshock", "foreshock").await;
    let config = workdir.write(
        "run.toml",
        &format!(
            r#"
[listen]
address = "127.0.0.1:0"
[prometheus]
url = "{prometheus}"
[kubernetes]
kubeconfig = "{kubeconfig}"
namespace = "foreshock"
[cycle]
interval = "5s"
[model]
file = "{model}"
incident_cost = {INCIDENT_COST}
[policy]
reach = "taint"
at_risk = 0.3125
caution = 0.2
recover_below = 0.2
confirm_for = "10s"
new_node_age = "0s"
"#,
            prometheus = prometheus.url(),
            kubeconfig = kubeconfig.display(),
            model = model.display(),
        ),
    );
    let foreshock = Foreshock::start(&config, &[], &[]).await;
    let health = foreshock.get_json("/api/health").await;
    assert_eq!(health["model"]["source"], "local", "{health}");
    let tainted = wait_until(
        "a Node to be tainted by the model's word",
        Duration::from_secs(180),
        async || {
            let (status, body) = foreshock.get("/api/nodes").await;
            let answer: Value = if status == 200 {
                serde_json::from_str(&body).expect("the API writes JSON")
            } else {
                Value::Null
            };
            let nodes = answer["nodes"].as_array().cloned().unwrap_or_default();
            let ill = |node: &&Value| ILL.iter().any(|(name, _)| node["node"] == *name);
            let tainted = nodes.iter().filter(|node| node["phase"] == "tainted");
            let tainted: Vec<Value> = tainted.cloned().collect();
            if tainted.is_empty() {
                let shown = nodes
                    .iter()
                    .filter(ill)
                    .map(|node| format!("{} {} {}", node["node"], node["risk"], node["hold"]));
                return Err(shown.collect::<Vec<_>>().join("; "));
            }
            Ok(tainted)
        },
    )
    .await;
    for node in &tainted {
        println!(
            "tainted: {} risk {} top {}",
            node["node"], node["risk"], node["top"]
        );
        let name = node["node"].as_str().unwrap_or_default();
        assert!(ILL.iter().any(|(ill, _)| *ill == name), "{name} is well");
        let taints = cluster
            .kubectl(&["get", "node", name, "-o", "jsonpath={.spec.taints[*].key}"])
            .await;
        assert!(taints.contains("degradation"), "{taints}");
    }
    println!("figure nodes_tainted {}", tainted.len());
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
