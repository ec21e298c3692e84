//! Real servers, the oldest and the newest, scrape the exposition and answer every query that ships.
//!
//! What is scraped here is the program's own encoder over a picture that moves; the scenarios with the
//! whole program ask the same queries again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use foreshock::alertmanager::{AlertOutcome, Applied};
use foreshock::config::Config;
use foreshock::core::decision::plan::Cause;
use foreshock::core::decision::policy::{Policy, Reach};
use foreshock::core::decision::verdict::{Hold, HoldReason, Phase, Verdict};
use foreshock::core::drain::PodOutcome;
use foreshock::core::node::NodeId;
use foreshock::core::risk::Risk;
use foreshock::features::FeatureName;
use foreshock::features::schema::Unit;
use foreshock::metrics::{CONTENT_TYPE, Counters, Metrics, WriteOutcome};
use foreshock::snapshot::{Contribution, LimitUse, NodeView, Snapshot};
use jiff::Timestamp;
use tokio::sync::watch;

use super::{dashboard, items, rules, text};
use crate::support::prometheus::{Prometheus, PrometheusOptions};
use crate::support::{self, Version, wait_until};

/// A picture at a step: one Node whose risk goes up and down, and a healthy one.
fn picture(step: usize, policy: &Arc<Policy>) -> Snapshot {
    let now = Timestamp::now();
    let node = |name: &str, risk: f64, phase: Phase| NodeView {
        verdict: Verdict {
            node: NodeId::new(name, "uid"),
            model_risk: None,
            risk: Some(Risk::new(risk).expect("a risk")),
            band: policy.rules.band(Some(Risk::new(risk).expect("a risk"))),
            phase,
            since: now,
            reach: Reach::Evict,
            holds: vec![Hold {
                reason: HoldReason::Unconfirmed,
                detail: String::new(),
                until: None,
            }],
            alerts: Vec::new(),
            reasons: Vec::new(),
        },
        contributions: vec![Contribution {
            feature: FeatureName::new("disk_await_write"),
            value: None,
            usual: None,
            unit: Unit::Seconds,
            contribution: risk,
        }],
        rule: None,
        model: None,
        missing: 0.0,
        pool: None,
        entry: None,
        drain: None,
        moved: None,
        differs: None,
        volumes: None,
    };
    let mut snapshot = Snapshot::starting(now, "0.1.0", Arc::clone(policy));
    snapshot.synced = true;
    snapshot.health.leader = true;
    snapshot.health.prometheus.features_at = Some(now);
    let phase = Phase::ALL[step / 4 % Phase::ALL.len()];
    let risk = 0.55 + (step % 40) as f64 / 100.0;
    snapshot.nodes = vec![node("a", risk, phase), node("b", 0.1, Phase::Healthy)];
    snapshot.limits = vec![LimitUse {
        name: "tainted_max",
        scope: "cluster".into(),
        used: step % 2,
        max: 2,
    }];
    snapshot
}

fn count(counters: &Counters, step: usize) {
    counters.write(Cause::Taint, WriteOutcome::Ok);
    counters.write(Cause::Taint, WriteOutcome::Forbidden);
    counters.pod(PodOutcome::Evicted);
    let took = Duration::from_millis(20 + step as u64);
    counters.cycle(&[("features", took), ("decide", took)], took);
    counters.alerts(&Applied {
        counts: BTreeMap::from([(AlertOutcome::Acting, 1)]),
        ..Applied::default()
    });
    let blocked = ("shop".to_owned(), "web".to_owned());
    counters.set_blocked(BTreeMap::from([(blocked, 1 + step as u32 % 3)]));
}

/// Serves the exposition of a picture that moves, for as long as the test lasts.
async fn exporter() -> SocketAddr {
    let policy = Config::parse("", Path::new("foreshock.toml"), [])
        .expect("defaults")
        .policy;
    let policy = Arc::new(policy);
    let (tx, rx) = watch::channel(Arc::new(picture(0, &policy)));
    let counters = Arc::new(Counters::new());
    let metrics = Arc::new(Metrics::new(rx, Arc::clone(&counters)));
    let body = move || {
        let metrics = Arc::clone(&metrics);
        async move {
            (
                [("content-type", CONTENT_TYPE)],
                metrics.render(Timestamp::now()),
            )
        }
    };
    let router = Router::new().route("/metrics", get(body));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    tokio::spawn(async move {
        for step in 0.. {
            count(&counters, step);
            tx.send_replace(Arc::new(picture(step, &policy)));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    });
    address
}

/// How a query of a dashboard reads with every variable at "All".
fn filled(expr: &str) -> String {
    ["cluster", "job", "instance", "node"]
        .iter()
        .fold(expr.replace("$__rate_interval", "8s"), |expr, variable| {
            expr.replace(&format!("${variable}"), ".*")
        })
}

async fn check(version: Version) {
    support::init();
    let exporter = exporter().await;
    let prometheus = Prometheus::start(PrometheusOptions {
        version,
        config: serde_json::json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules/*.yml"],
            "scrape_configs": [{
                "job_name": "foreshock",
                "honor_labels": true,
                "static_configs": [{"targets": [exporter.to_string()]}],
            }],
        })
        .to_string(),
        rules: vec![("foreshock.yml".into(), text(rules::RULES))],
        ..PrometheusOptions::default()
    })
    .await;
    for (title, expr) in dashboard::queries() {
        let expr = filled(&expr);
        wait_until(&title, Duration::from_secs(30), async || {
            let result = prometheus.query(&expr).await;
            let empty = items(&result).is_empty();
            if empty {
                Err(format!("no data: {expr}"))
            } else {
                Ok(())
            }
        })
        .await;
    }
    // The server has taken the rules, evaluates them, and has met no error.
    let groups = prometheus.get("/api/v1/rules", &[]).await;
    let mut evaluated = 0;
    for rule in items(&groups["groups"])
        .iter()
        .flat_map(|g| items(&g["rules"]))
    {
        assert_eq!(rule["health"], "ok", "{rule}");
        evaluated += 1;
    }
    assert_eq!(evaluated, rules::alerts().len());
    // Our `node` stayed ours.
    let renamed = prometheus.query("{exported_node!=\"\"}").await;
    assert!(items(&renamed).is_empty(), "{renamed}");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn the_newest_prometheus_answers_every_query_of_the_dashboard() {
    check(Version::Current).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn the_oldest_prometheus_answers_every_query_of_the_dashboard() {
    check(Version::Debian).await;
}
