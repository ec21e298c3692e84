//! The real Prometheus is gone for five minutes: nothing is marked, nothing is given back, and somebody
//! is told.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::scenario::{Scene, SceneOptions};
use crate::support::prometheus::{Prometheus, PrometheusOptions};
use crate::support::{figure, init, wait_until};

const OUR_TAINT: &str = "degradation=true:NoSchedule";

/// The shipped rules, and the expression of one of their alerts.
fn shipped(alert: &str) -> (String, String) {
    let path = format!("{}/rules/foreshock.rules.yaml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("the rules are there");
    let rules: Value = serde_saphyr::from_str(&text).expect("the rules are YAML");
    let groups = rules["groups"].as_array().expect("groups");
    let expr = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().into_iter().flatten())
        .find(|rule| rule["alert"] == alert)
        .and_then(|rule| rule["expr"].as_str())
        .unwrap_or_else(|| panic!("there is no alert {alert}"))
        .to_owned();
    (text, expr)
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn five_minutes_without_prometheus_write_nothing_and_are_told() {
    init();
    let mut scene = Scene::start(SceneOptions {
        // Long enough to stop Prometheus while a Node is about to be tainted.
        confirm_for: "25s",
        ..SceneOptions::default()
    })
    .await;
    // Another Prometheus, as a second pair of eyes on foreshock itself.
    let (rules, stale) = shipped("ForeshockTelemetryStale");
    let beside = Prometheus::start(PrometheusOptions {
        config: json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules/*.yml"],
            "scrape_configs": [scene.scrape_config()],
        })
        .to_string(),
        rules: vec![("foreshock.yml".to_owned(), rules)],
        ..PrometheusOptions::default()
    })
    .await;
    let told = async || {
        let result = beside.query(&stale).await;
        result.as_array().is_some_and(|series| !series.is_empty())
    };

    // One Node is held by an alert, and one is about to be tainted.
    let (held, next) = ("worker-04", "worker-07");
    scene.fire(held, true);
    scene.wait_phase(held, "drained", 90).await;
    scene.fault(next, "slow-disk", "420s").await;
    let view = scene
        .wait_node(next, "to be suspect", 60, |view| view["phase"] == "suspect")
        .await;
    assert_eq!(view["hold"]["reason"], "unconfirmed", "{view}");
    assert!(!told().await, "nothing is stale yet");

    scene.prometheus.stop().await;
    let stopped = Timestamp::now();
    // Nobody hears of this: with Prometheus back, there is no alert.
    scene.fire(held, false);
    for node in [held, next] {
        let view = scene
            .wait_node(node, "to be unknown", 60, |view| {
                view["hold"]["reason"] == "unknown" || view["model_risk"].is_null()
            })
            .await;
        assert!(view["model_risk"].is_null(), "{view}");
    }
    let health = scene.foreshock.get_json("/api/health").await;
    assert_eq!(health["status"], "degraded", "{health}");
    assert_eq!(health["prometheus"]["ok"], false, "{health}");

    // Alertmanager hears nothing from Prometheus, and gives the alert up by itself.
    let resolved = scene
        .wait_node(held, "to lose its alert", 330, |view| {
            view["alerts"].as_array().is_some_and(Vec::is_empty)
        })
        .await;
    assert!(
        resolved["risk"].is_null(),
        "nothing is known of it: {resolved}"
    );
    wait_until(
        "the shipped alert's expression to be true",
        Duration::from_secs(330),
        async || {
            let gone_for = Timestamp::now().duration_since(stopped).as_secs();
            let told = told().await;
            if told && gone_for >= 300 {
                return Ok(());
            }
            Err(format!("told {told} after {gone_for} s"))
        },
    )
    .await;
    let ended = Timestamp::now();
    let gone_for = ended.duration_since(stopped).as_secs();

    for (node, phase) in [(held, "drained"), (next, "healthy")] {
        let view = scene.node(node).await;
        assert_eq!(view["band"], "unknown", "{view}");
        assert_eq!(view["phase"], phase, "{view}");
        assert_eq!(view["hold"]["reason"], "unknown", "{view}");
    }
    assert_eq!(scene.taints(held).await, [OUR_TAINT], "released nothing");
    assert!(scene.taints(next).await.is_empty(), "tainted nothing");
    let written: Vec<String> = scene
        .writes()
        .iter()
        .filter(|event| event.resource != "leases")
        .filter(|event| event.received > stopped && event.received < ended)
        .map(|event| {
            format!(
                "{} {} {} {}",
                event.received, event.verb, event.uri, event.request_object
            )
        })
        .collect();
    let renewed = scene
        .writes()
        .iter()
        .filter(|event| event.resource == "leases" && event.received > stopped)
        .count();
    figure("outage_seconds", gone_for);
    figure("outage_writes", written.len());
    assert!(written.is_empty(), "{written:#?}");
    assert!(
        renewed > 60,
        "it was there all the time: {renewed} renewals"
    );

    // It was about to be: with Prometheus back, it is; and the other one is given back by what is seen.
    scene.prometheus.restart().await;
    scene.wait_released(held, 90).await;
    wait_until(
        &format!("the taint of {next}"),
        Duration::from_secs(90),
        async || {
            let taints = scene.taints(next).await;
            taints
                .contains(&OUR_TAINT.to_owned())
                .then_some(())
                .ok_or_else(|| format!("{taints:?}"))
        },
    )
    .await;
    scene.print_timeline();
    scene.judge(&[held, next]);
}
