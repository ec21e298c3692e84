//! The text that Prometheus gets, line by line.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foreshock_core::decision::plan::Cause;
use foreshock_core::decision::policy::{ControlPlane, Limit, Limits, Policy, Reach, Rules};
use foreshock_core::decision::verdict::{Hold, HoldReason, Phase, Verdict};
use foreshock_core::drain::{Choice, DrainRules};
use foreshock_core::node::NodeId;
use foreshock_core::record::{ActingAlert, Ramp, Storm, Taint, TaintEffect};
use foreshock_core::risk::{Band, Risk};

use super::*;
use crate::features::FeatureName;
use crate::features::schema::Unit;
use crate::model::drift::{FeatureDrift, Measured};
use crate::model::outcomes::Outcomes;
use crate::snapshot::{
    CardAuthority, CardThreshold, Contribution, Drift, LimitUse, ModelCard, ModelName, NodeView,
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + seconds).expect("a time")
}

/// No metric shows any of this.
fn policy() -> Arc<Policy> {
    let minute = Duration::from_secs(60);
    Arc::new(Policy {
        instance: "foreshock".into(),
        model_trusted: false,
        score_age_max: minute,
        facts_age_max: minute,
        rules: Rules {
            reach: Reach::Observe,
            at_risk: Risk::new(0.65).expect("a risk"),
            caution: Risk::new(0.5).expect("a risk"),
            recover_below: Risk::new(0.5).expect("a risk"),
            confirm_for: minute,
            drain_after: minute,
            recover_for: minute,
            probation: minute,
            repeat_max: 2,
            repeat_window: minute,
            veto_for: minute,
            tainted_for_max: minute,
            new_node_age: minute,
            taint: Taint {
                key: "degradation".into(),
                value: "true".into(),
                effect: TaintEffect::NoSchedule,
            },
            caution_taint: None,
            control_plane: ControlPlane::Exclude,
            windows: Vec::new(),
        },
        limits: Limits {
            tainted_max: Limit::Count(1),
            draining_max: Limit::Count(1),
            drains_per_hour: 6,
            zone_tainted_max: None,
            zone_draining_max: None,
            storm_share: 0.2,
            storm_min: 3,
            storm_window: minute,
        },
        pools: Vec::new(),
        drain: DrainRules {
            grace_cap: None,
            deadline: minute,
            pod_deadline: minute,
            pace: foreshock_core::drain::Pace::Owner,
            surge: false,
            unmanaged: Choice::Leave,
            empty_dir: Choice::Leave,
            local_volumes: Choice::Leave,
            devices: Choice::Evict,
            kube_system: Choice::Leave,
            opted_out: Choice::Leave,
            orphaned_daemon_set: Choice::Leave,
        },
    })
}

fn node(name: &str, risk: Option<f64>, band: Band, phase: Phase) -> NodeView {
    let contribution = |n: usize| Contribution {
        feature: FeatureName::new(format!("feature_{n}")),
        value: None,
        usual: None,
        unit: Unit::Ratio,
        contribution: 2.0 - n as f64 / 2.0,
    };
    NodeView {
        verdict: Verdict {
            node: NodeId::new(name, "uid"),
            model_risk: None,
            risk: risk.map(|risk| Risk::new(risk).expect("a risk")),
            band,
            phase,
            since: at(0),
            reach: Reach::Observe,
            holds: Vec::new(),
            alerts: Vec::new(),
            reasons: Vec::new(),
        },
        contributions: (0..8).map(contribution).collect(),
        rule: Risk::new(0.1).ok(),
        model: Some("m1".into()),
        missing: 0.25,
        pool: None,
        entry: None,
        drain: None,
        moved: None,
        differs: None,
        volumes: None,
    }
}

fn held(mut node: NodeView, reason: HoldReason) -> NodeView {
    node.verdict.holds.push(Hold {
        reason,
        detail: String::new(),
        until: None,
    });
    node
}

/// Of which the metrics show the drift alone.
fn card() -> ModelCard {
    let feature = |name: &str, index| FeatureDrift {
        feature: name.into(),
        importance: 0.5,
        index,
        missing: 0.25,
        far_out: 0.05,
    };
    let drift = Drift {
        measured: Measured {
            rows: 10_000,
            hours: 24,
            reference: true,
            score: Some(0.07),
            features: vec![feature("psi_io", Some(0.31)), feature("mem_used", None)],
        },
        warn: 0.2,
        alarm: 0.3,
        alarmed: true,
        outcomes: Some(Outcomes {
            lasting: Duration::from_secs(7 * 86_400),
            expected: 11.5,
            observed: 9,
            low: 4.1,
            high: 17.1,
        }),
    };
    ModelCard {
        name: ModelName {
            name: "m1".into(),
            source: "local".into(),
            schema: "abc".into(),
            reach: Reach::Label,
        },
        horizon: Duration::from_secs(1_800),
        command: String::new(),
        window: None,
        rows: 0,
        positives: 0,
        features: Vec::new(),
        validation: Vec::new(),
        calibration: Vec::new(),
        drift: Some(drift),
        authority: CardAuthority::default(),
        costs: Vec::new(),
        threshold: CardThreshold::default(),
        notes: Vec::new(),
    }
}

/// A snapshot in which every metric has something to show.
fn full() -> Snapshot {
    let mut snapshot = Snapshot::starting(at(0), "1.2.3", policy());
    snapshot.synced = true;
    snapshot.nodes = vec![
        node("a", Some(0.2), Band::Healthy, Phase::Healthy),
        held(
            node("b", Some(0.91), Band::AtRisk, Phase::Suspect),
            HoldReason::Reach,
        ),
        held(
            node("c\"\\\n", None, Band::Unknown, Phase::Tainted),
            HoldReason::Unknown,
        ),
    ];
    snapshot.storm = Some(Storm {
        since: at(0),
        about: "4 of 10 Nodes".into(),
        input: None,
        calm_since: None,
    });
    snapshot.ramp = Some(Ramp {
        since: at(0),
        width: 2,
        nodes: BTreeMap::new(),
    });
    let limit = |scope: &str, used| LimitUse {
        name: "tainted_max",
        scope: scope.into(),
        used,
        max: 3,
    };
    snapshot.limits = vec![
        limit("cluster", 1),
        limit("zone/a", 3),
        limit("pool/gpu", 0),
    ];
    snapshot.health.leader = true;
    snapshot.health.prometheus.ok = true;
    snapshot.health.prometheus.features_at = Some(at(-40));
    snapshot.health.model = Some(ModelName {
        name: "m1".into(),
        source: "synthetic".into(),
        schema: "abc".into(),
        reach: Reach::Label,
    });
    snapshot.model = Some(Arc::new(card()));
    snapshot.health.degraded = vec!["something".into()];
    let alert = ActingAlert {
        fingerprint: "f".into(),
        name: "A".into(),
        starts_at: at(0),
        floor: Risk::new(0.8).expect("a risk"),
        reach: Reach::Evict,
        expires_at: at(60),
    };
    snapshot.nodes[1].verdict.alerts = vec![alert.clone(), alert];
    snapshot
}

struct Scene {
    tx: watch::Sender<Arc<Snapshot>>,
    counters: Arc<Counters>,
    metrics: Metrics,
}

fn scene(snapshot: Snapshot) -> Scene {
    let (tx, rx) = watch::channel(Arc::new(snapshot));
    let counters = Arc::new(Counters::new());
    counters.write(Cause::Taint, WriteOutcome::Ok);
    counters.webhook(WebhookOutcome::Accepted);
    counters.reload(ReloadOutcome::Invalid);
    counters.telemetry_failed();
    counters.set_telemetry(3, 1);
    counters.set_history(Some(Duration::from_secs(76 * 3_600)));
    counters.set_blocked(BTreeMap::from([(("shop".into(), "web".into()), 4)]));
    let query = ("query", Duration::from_millis(30));
    counters.cycle(&[query], Duration::from_millis(40));
    counters.replacement(Duration::from_millis(8_200));
    counters.replacement(Duration::from_secs(4_000));
    counters.replacements_missing(2);
    Scene {
        metrics: Metrics::new(rx, Arc::clone(&counters)),
        tx,
        counters,
    }
}

/// Sample lines as (name, labels, value).
fn samples(body: &str) -> Vec<(String, BTreeMap<String, String>, f64)> {
    body.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, rest) = series.split_once('{').unwrap_or((series, "}"));
            let labels = rest.trim_end_matches('}').split("\",");
            let labels = labels.filter_map(|pair| pair.split_once("=\""));
            let labels = labels
                .map(|(name, value)| (name.to_owned(), value.trim_end_matches('"').to_owned()));
            let value = value.parse().expect("a number");
            (name.to_owned(), labels.collect(), value)
        })
        .collect()
}

fn has(body: &str, line: &str) {
    assert!(
        body.lines().any(|l| l == line),
        "no line `{line}` in:\n{body}"
    );
}

#[test]
fn every_metric_of_the_table_is_exported_with_its_labels_and_no_other() {
    let body = scene(full()).metrics.render(at(10));
    let mut found: BTreeMap<String, BTreeSet<Vec<String>>> = BTreeMap::new();
    for (name, labels, _) in samples(&body) {
        let labels = labels.into_keys().filter(|label| label != "le");
        found.entry(name).or_default().insert(labels.collect());
    }
    for metric in METRICS {
        let mut labels: Vec<String> = metric.labels.iter().map(|l| (*l).to_owned()).collect();
        labels.sort();
        let names = match metric.kind {
            Kind::Histogram => {
                ["_bucket", "_sum", "_count"].map(|end| metric.name.to_owned() + end)
            }
            Kind::Counter | Kind::Gauge | Kind::Info => [(); 3].map(|()| metric.name.to_owned()),
        };
        for name in BTreeSet::from(names) {
            let of = found.remove(&name);
            assert_eq!(of, Some(BTreeSet::from([labels.clone()])), "{name}");
        }
        let base = metric.name.trim_end_matches("_total");
        let base = base.strip_suffix("_info").unwrap_or(base);
        assert!(body.contains(&format!("# HELP {base} {}\n", metric.help)));
        // One line of help, since the encoder does not escape it.
        assert!(!metric.help.contains(['\n', '\\', '"']), "{}", metric.name);
    }
    assert!(found.is_empty(), "exported and not in the table: {found:?}");
    assert!(body.ends_with("\n# EOF\n"));
    assert_eq!(body.matches("# EOF").count(), 1);
}

#[test]
fn values_say_what_the_snapshot_says() {
    let body = scene(full()).metrics.render(at(10));
    for line in [
        r#"foreshock_node_risk_ratio{node="b"} 0.91"#,
        r#"foreshock_node_phase{node="b",phase="suspect"} 1"#,
        r#"foreshock_node_phase{node="b",phase="healthy"} 0"#,
        r#"foreshock_node_phase{node="c\"\\\n",phase="tainted"} 1"#,
        r#"foreshock_node_risk_contribution{node="b",feature="feature_4"} 0.0"#,
        r#"foreshock_node_features_missing{node="a"} 0.25"#,
        r#"foreshock_node_rule_ratio{node="b"} 0.1"#,
        r#"foreshock_node_hold{node="b",reason="reach"} 1"#,
        r#"foreshock_nodes{band="unknown"} 1"#,
        r#"foreshock_holds{reason="reach"} 1"#,
        r#"foreshock_holds{reason="storm"} 0"#,
        "foreshock_storm 1",
        "foreshock_storm_ramp_nodes 2.0",
        r#"foreshock_budget_available{scope="zone/a",limit="tainted_max"} 0"#,
        r#"foreshock_budget_available{scope="pool/gpu",limit="tainted_max"} 3"#,
        r#"foreshock_budget_available{scope="cluster",limit="tainted_max"} 2"#,
        r#"foreshock_drain_blocked_pods{namespace="shop",pdb="web"} 4"#,
        r#"foreshock_taints_total{action="taint",outcome="ok"} 1"#,
        r#"foreshock_taints_total{action="release",outcome="failed"} 0"#,
        r#"foreshock_evictions_total{outcome="blocked_by_budget"} 0"#,
        r#"foreshock_drains_total{outcome="drained"} 0"#,
        r#"foreshock_replacement_ready_seconds_bucket{le="5.0"} 0"#,
        r#"foreshock_replacement_ready_seconds_bucket{le="10.0"} 1"#,
        r#"foreshock_replacement_ready_seconds_bucket{le="+Inf"} 2"#,
        "foreshock_replacement_ready_seconds_sum 4008.2",
        "foreshock_replacements_missing_total 2",
        r#"foreshock_alerts_received_total{outcome="acting"} 0"#,
        "foreshock_alerts_active 2",
        r#"foreshock_webhook_requests_total{outcome="accepted"} 1"#,
        r#"foreshock_cycle_duration_seconds_bucket{le="0.025",stage="query"} 0"#,
        r#"foreshock_cycle_duration_seconds_bucket{le="0.05",stage="query"} 1"#,
        r#"foreshock_cycle_duration_seconds_bucket{le="+Inf",stage="total"} 1"#,
        r#"foreshock_cycle_duration_seconds_sum{stage="total"} 0.04"#,
        "foreshock_feature_age_seconds 50.0",
        "foreshock_cycle_last_timestamp_seconds 1790000000.0",
        r#"foreshock_feature_snapshots_total{outcome="failed"} 1"#,
        r#"foreshock_feature_snapshots_total{outcome="partial"} 1"#,
        r#"foreshock_feature_snapshots_total{outcome="ok"} 0"#,
        r#"foreshock_model_drift_ratio{feature="psi_io"} 0.31"#,
        "foreshock_model_score_drift_ratio 0.07",
        "foreshock_model_drifted 1",
        r#"foreshock_model_feature_missing_ratio{feature="mem_used"} 0.25"#,
        r#"foreshock_model_feature_out_of_range_ratio{feature="psi_io"} 0.05"#,
        "foreshock_model_events_expected 11.5",
        "foreshock_model_events_observed 9.0",
        r#"foreshock_model_reloads_total{outcome="invalid"} 1"#,
        r#"foreshock_model_reloads_total{outcome="ok"} 0"#,
        "foreshock_features_failed 3",
        "foreshock_history_seconds 273600.0",
        "foreshock_targets_refused 1",
        r#"foreshock_model_info{model="m1",schema="abc",source="synthetic"} 1"#,
        "foreshock_leader 1",
        "foreshock_paused 0",
        r#"foreshock_dependency_up{dependency="prometheus"} 1"#,
        r#"foreshock_dependency_up{dependency="kubernetes"} 0"#,
        "foreshock_degraded 1",
        r#"foreshock_build_info{version="1.2.3"} 1"#,
        "process_start_time_seconds 1790000000.0",
    ] {
        has(&body, line);
    }
    let names = samples(&body);
    let of = |name: &str, node: &str| {
        let of = |s: &&(String, BTreeMap<String, String>, f64)| {
            s.0 == name && s.1.get("node").is_some_and(|found| found == node)
        };
        names.iter().filter(of).count()
    };
    assert_eq!(
        of("foreshock_node_risk_ratio", "c\\\"\\\\\\n"),
        0,
        "unknown is absent"
    );
    assert_eq!(
        of("foreshock_node_risk_contribution", "b"),
        5,
        "the largest only"
    );
    assert_eq!(
        of("foreshock_node_risk_contribution", "a"),
        0,
        "none while healthy"
    );
    assert_eq!(of("foreshock_node_hold", "a"), 0);
    assert!(!body.contains(r#"foreshock_model_drift_ratio{feature="mem_used"}"#));
    assert!(!body.contains("NaN"), "absent, never NaN");
}

#[test]
fn only_the_leader_exports_nodes() {
    let mut snapshot = full();
    snapshot.health.leader = false;
    let body = scene(snapshot).metrics.render(at(10));
    for metric in METRICS
        .iter()
        .filter(|metric| metric.labels.contains(&"node"))
    {
        assert!(!body.contains(metric.name), "{}", metric.name);
    }
    assert!(!body.contains("foreshock_holds"));
    has(&body, "foreshock_leader 0");
}

#[test]
fn before_the_first_cycle_nothing_is_made_up() {
    let body = scene(Snapshot::starting(at(0), "1.2.3", policy()))
        .metrics
        .render(at(10));
    for name in [
        "foreshock_node",
        "foreshock_feature_age",
        "foreshock_cycle_last",
        "foreshock_model_info",
    ] {
        assert!(!body.contains(name), "{name} in:\n{body}");
    }
    has(&body, r#"foreshock_build_info{version="1.2.3"} 1"#);
}

#[test]
fn a_vanished_node_takes_its_series_along() {
    let scene = scene(full());
    assert!(scene.metrics.render(at(10)).contains(r#"node="b""#));
    let mut next = full();
    next.nodes.retain(|node| node.name().as_str() != "b");
    scene.tx.send_replace(Arc::new(next));
    assert!(!scene.metrics.render(at(20)).contains(r#"node="b""#));
}

#[test]
fn a_cycle_that_hangs_is_seen_to_hang() {
    let scene = scene(full());
    has(
        &scene.metrics.render(at(10)),
        "foreshock_feature_age_seconds 50.0",
    );
    scene.counters.webhook(WebhookOutcome::Accepted);
    let later = scene.metrics.render(at(3_600));
    has(&later, "foreshock_feature_age_seconds 3640.0");
    has(
        &later,
        r#"foreshock_webhook_requests_total{outcome="accepted"} 2"#,
    );
    has(&later, r#"foreshock_node_risk_ratio{node="b"} 0.91"#);
}

#[test]
fn features_from_the_future_are_not_of_negative_age() {
    let scene = scene(full());
    has(
        &scene.metrics.render(at(-100)),
        "foreshock_feature_age_seconds 0.0",
    );
}
