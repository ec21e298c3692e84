//! The test bed itself: each server starts, answers, and goes again whatever becomes of the test.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;

use crate::support::alertmanager::Alertmanager;
use crate::support::cluster::{Cluster, budget, deployment};
use crate::support::node_exporter::NodeExporter;
use crate::support::prometheus::{Prometheus, PrometheusOptions};
use crate::support::server::Workdir;
use crate::support::target::Targets;
use crate::support::watcher::{Watcher, What};
use crate::support::{Version, init, wait_for, wait_until};

const ALERTMANAGER: &str = "
route: {receiver: nobody}
receivers: [{name: nobody}]
";

const RULES: &str = "
groups:
- name: bed
  interval: 1s
  rules: [{record: bed:twice, expr: vector(21) * 2}]
";

const HISTORY: &str = "# TYPE tremor gauge
tremor{node=\"worker-01\"} 1 1700000000
tremor{node=\"worker-01\"} 3 1700000060
# EOF
";

async fn check_prometheus(version: Version, number: &str) {
    init();
    let exporter = NodeExporter::start(&[]).await;
    let scrape = json!({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules/*.yml"],
        "scrape_configs": [{"job_name": "node", "static_configs": [{"targets": [exporter.address()]}]}],
    });
    let mut prometheus = Prometheus::start(PrometheusOptions {
        version,
        config: scrape.to_string(),
        rules: vec![("bed.yml".into(), RULES.into())],
        history: Some(HISTORY.into()),
        args: Vec::new(),
        data: None,
    })
    .await;
    let build = prometheus.get("/api/v1/status/buildinfo", &[]).await;
    let found = build["version"].as_str().unwrap_or_default();
    assert!(found.starts_with(number), "version {found}, not {number}");
    let limit = Duration::from_secs(30);
    let up = async || prometheus.value("up == 1 and on() bed:twice == 42").await;
    wait_for("the exporter is scraped and the rule evaluated", limit, up).await;
    let old = [("query", "sum(tremor)"), ("time", "1700000060")];
    let result = prometheus.get("/api/v1/query", &old).await;
    assert_eq!(result["result"][0]["value"][1], "3", "{result}");

    let (url, before) = (prometheus.url().to_owned(), "1700000060");
    prometheus.stop().await;
    prometheus.restart().await;
    assert_eq!(prometheus.url(), url, "clients find it where it was");
    let old = [("query", "sum(tremor)"), ("time", before)];
    let result = prometheus.get("/api/v1/query", &old).await;
    assert_eq!(result["result"][0]["value"][1], "3", "its data is kept");

    prometheus.reload("scrape_configs: []").await;
    let targets = prometheus.get("/api/v1/targets", &[]).await;
    assert_eq!(targets["activeTargets"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn the_current_prometheus_scrapes_keeps_its_data_and_reloads() {
    check_prometheus(Version::Current, "3.16").await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn the_prometheus_of_debian_scrapes_keeps_its_data_and_reloads() {
    check_prometheus(Version::Debian, "2.42").await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn exporters_say_what_a_test_wants() {
    init();
    let targets = Targets::start().await;
    targets.set("worker-01", "tremor 1\n");
    targets.set("worker-02", "tremor 2\n");
    let scrape = targets.scrape_config(
        "node-exporter",
        "1s",
        ["worker-01", "worker-02"],
        |node| json!({"instance": format!("{node}:9100")}),
    );
    let prometheus = Prometheus::start(PrometheusOptions {
        config: json!({"scrape_configs": [scrape]}).to_string(),
        ..PrometheusOptions::default()
    })
    .await;
    let limit = Duration::from_secs(30);
    let becomes = async |expr: &str, value: f64| {
        let what = format!("{expr} is {value}");
        wait_for(&what, limit, async || {
            (prometheus.value(expr).await == Some(value)).then_some(())
        })
        .await;
    };
    becomes("sum(tremor)", 3.0).await;
    targets.set("worker-02", "tremor 7\n");
    becomes("tremor{instance=\"worker-02:9100\"}", 7.0).await;
    targets.silence("worker-02");
    becomes("up{instance=\"worker-02:9100\"}", 0.0).await;
    becomes("count(tremor)", 1.0).await;
}

async fn check_alertmanager(version: Version, number: &str) {
    init();
    let mut alertmanager = Alertmanager::start(version, ALERTMANAGER).await;
    let status = alertmanager.get("/api/v2/status").await;
    let found = status["versionInfo"]["version"]
        .as_str()
        .unwrap_or_default();
    assert!(found.starts_with(number), "version {found}, not {number}");
    alertmanager
        .post_alerts(&json!([{"labels": {"alertname": "Tremor", "node": "worker-01"}}]))
        .await;
    wait_for("the alert is listed", Duration::from_secs(10), async || {
        let alerts = alertmanager.get("/api/v2/alerts").await;
        (alerts[0]["labels"]["alertname"] == "Tremor").then_some(())
    })
    .await;
    let url = alertmanager.url().to_owned();
    alertmanager.stop().await;
    alertmanager.restart().await;
    assert_eq!(alertmanager.url(), url, "clients find it where it was");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn the_current_alertmanager_takes_alerts() {
    check_alertmanager(Version::Current, "0.31.1").await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn the_alertmanager_of_debian_takes_alerts() {
    check_alertmanager(Version::Debian, "0.25").await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn node_exporter_tells_of_this_machine() {
    init();
    let exporter =
        NodeExporter::start(&["--collector.disable-defaults", "--collector.uname"]).await;
    let metrics = exporter.metrics().await;
    assert!(metrics.contains("node_uname_info{"), "{metrics}");
    assert!(!metrics.contains("node_memory_"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn a_cluster_runs_pods_and_tells_who_evicted_them() {
    init();
    let mut cluster = Cluster::start().await;
    cluster.create_nodes(20).await;
    cluster.apply(&deployment("default", "web", 10)).await;
    cluster
        .apply(&budget("default", "web", ("maxUnavailable", json!(1))))
        .await;
    cluster.wait_rollout("default", "deployment/web").await;

    let watcher = Watcher::start(cluster.client()).await;
    wait_for(
        "the budget allows a disruption",
        Duration::from_secs(30),
        async || {
            watcher
                .timeline()
                .iter()
                .any(|moment| {
                    matches!(
                        moment.what,
                        What::Budget {
                            expected: 10,
                            allowed: 1,
                            ..
                        }
                    )
                })
                .then_some(())
        },
    )
    .await;
    let args = ["get", "pods", "-o", "jsonpath={.items[0].spec.nodeName}"];
    let node = cluster.kubectl(&args).await;
    let pods = watcher.pods_on(&node);
    assert!(
        !pods.is_empty(),
        "kubectl and the watcher see the same Pods"
    );
    cluster
        .kubectl(&["drain", &node, "--timeout=120s", "--ignore-daemonsets"])
        .await;

    let deleted = watcher.pods_deleted(&node);
    assert_eq!(deleted.len(), pods.len(), "{deleted:?} of {pods:?}");
    watcher.assert_budgets_kept();
    assert_eq!(watcher.budgets()["default/web"].unavailable_max, 1);
    let changes = watcher.taint_changes(&node);
    let (_, before, after) = changes.last().expect("a cordon adds a taint");
    assert_eq!(after.len(), before.len() + 1, "{changes:?}");

    let audit = cluster.audit();
    let evictions: Vec<_> = audit.iter().filter(|event| event.is_eviction()).collect();
    let accepted = evictions.iter().filter(|event| event.succeeded()).count();
    assert_eq!(accepted, pods.len(), "{evictions:?}");
    assert!(evictions.iter().all(|event| event.user == "admin"));
    assert!(
        evictions
            .iter()
            .all(|event| event.received <= event.answered)
    );
    assert!(
        audit
            .iter()
            .any(|event| event.resource == "nodes" && event.name == node && event.verb == "patch"),
        "the cordon is in the audit log"
    );

    // The rest needs a cluster with work on it, and a second one would cost more than it tells.
    cluster
        .kubectl(&["create", "serviceaccount", "guest"])
        .await;
    let guest = cluster.client_for("default", "guest").await;
    let nodes = kube::Api::<k8s_openapi::api::core::v1::Node>::all(guest);
    match nodes.list(&kube::api::ListParams::default()).await {
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 403, "{status:?}"),
        other => panic!("a ServiceAccount without a role may not read Nodes: {other:?}"),
    }

    cluster.set_ready("worker-02", false).await;
    cluster.set_ready("worker-02", true).await;
    cluster.restart_apiserver().await;
    let version = cluster.kubectl(&["get", "--raw", "/version"]).await;
    assert!(version.contains("v1.36.3"), "{version}");
}

/// A judge that never says no proves nothing.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn the_watcher_sees_a_broken_budget_and_pods_linger_as_long_as_they_are_told() {
    init();
    let cluster = Cluster::start().await;
    cluster.create_nodes(2).await;
    let mut slow: serde_json::Value =
        serde_json::from_str(&deployment("default", "slow", 3)).expect("it is JSON");
    slow["spec"]["template"]["metadata"]["annotations"] =
        json!({"bed/gone-delay": "6s", "bed/gone-delay-max": "7s"});
    cluster.apply(&slow.to_string()).await;
    cluster
        .apply(&budget("default", "slow", ("minAvailable", json!(2))))
        .await;
    cluster.wait_rollout("default", "deployment/slow").await;
    let watcher = Watcher::start(cluster.client()).await;
    wait_for("the budget is kept", Duration::from_secs(30), async || {
        let budgets = watcher.budgets();
        (budgets["default/slow"].desired == 2).then_some(())
    })
    .await;
    watcher.assert_budgets_kept();

    // A deletion, unlike an eviction, asks no budget.
    cluster
        .kubectl(&["delete", "pods", "-l", "app=slow", "--wait=false"])
        .await;
    let gone = wait_for(
        "the old Pods are gone",
        Duration::from_secs(60),
        async || {
            let times = |wanted: fn(&What) -> bool| -> Vec<_> {
                let timeline = watcher.timeline();
                let moments = timeline.iter().filter(|moment| wanted(&moment.what));
                moments.map(|moment| moment.at).collect()
            };
            let terminating = times(|what| matches!(what, What::Terminating { .. }));
            let gone = times(|what| matches!(what, What::Gone { .. }));
            (gone.len() == 3).then(|| gone[0].duration_since(terminating[0]))
        },
    )
    .await;
    // The API server's timestamps, from which kwok counts, are whole seconds.
    assert!(
        gone.as_secs_f64() > 4.5,
        "gone after {gone:#}, not 6 to 7 s"
    );
    let record = watcher.budgets()["default/slow"].clone();
    assert_eq!((record.healthy_min, record.broken), (0, 1), "{record:?}");
    let verdict = std::panic::catch_unwind(|| watcher.assert_budgets_kept());
    assert!(verdict.is_err(), "{}", watcher.timeline_text());
}

/// Names the file that [`no_process_outlives_its_test`]'s own child writes the process ids to.
const VICTIM: &str = "FORESHOCK_BED_VICTIM";

/// Runs itself again in a process of its own, which starts servers and then panics, or is killed.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn no_process_outlives_its_test() {
    init();
    if let Some(file) = std::env::var_os(VICTIM) {
        let mut exporter = NodeExporter::start(&[]).await;
        let mut alertmanager = Alertmanager::start(Version::Current, ALERTMANAGER).await;
        let pids: Vec<String> = [exporter.server().pid(), alertmanager.server().pid()]
            .iter()
            .flatten()
            .map(ToString::to_string)
            .collect();
        // Written whole or not at all: the parent reads it as soon as it is there.
        let file = Path::new(&file);
        let draft = file.with_extension("draft");
        std::fs::write(&draft, pids.join(" ")).expect("the pids can be written");
        std::fs::rename(&draft, file).expect("the draft can be renamed");
        assert!(!file.ends_with("panic"), "the panic that was ordered");
        tokio::time::sleep(Duration::from_secs(60)).await;
        panic!("nobody killed this test");
    }

    let workdir = Workdir::new("victims");
    for end in ["panic", "kill"] {
        let file = workdir.join(end);
        let mut child = tokio::process::Command::new(
            std::env::current_exe().expect("a test knows its own program"),
        )
        .args(["--exact", "bed::no_process_outlives_its_test"])
        .env(VICTIM, &file)
        // So that the folder that the panic keeps goes with this one.
        .env("TMPDIR", workdir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("a test can run itself");
        let what = format!("the test that will end by {end} has its servers");
        let pids: Vec<u32> = wait_for(&what, Duration::from_secs(60), async || {
            let text = std::fs::read_to_string(&file).ok()?;
            Some(text.split(' ').filter_map(|pid| pid.parse().ok()).collect())
        })
        .await;
        assert_eq!(pids.len(), 2);
        if end == "kill" {
            assert!(pids.iter().all(|&pid| runs(pid)), "{pids:?} should run");
            child.start_kill().expect("one's own child can be killed");
        }
        let output = child
            .wait_with_output()
            .await
            .expect("one's own child can be waited for");
        assert!(!output.status.success());
        if end == "panic" {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("the panic that was ordered"), "{text}");
            assert!(text.contains("alertmanager.server.log"), "{text}");
        }
        wait_until("the servers end", Duration::from_secs(10), async || {
            let left: Vec<_> = pids.iter().filter(|&&pid| runs(pid)).collect();
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:?} still run"))
            }
        })
        .await;
    }
}

/// A zombie has ended, though its new parent may be slow to notice.
fn runs(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        // The state follows the name, which is in parentheses and may contain some itself.
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with('Z'))
    })
}
