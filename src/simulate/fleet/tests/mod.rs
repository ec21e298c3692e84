//! What a fleet must be, judged from outside: from its pages, its columns and its truth.

mod coherence;
mod faults;
mod page;
mod promql;
mod served;

use std::sync::Arc;
use std::time::Duration;

use foreshock_core::node::NodeName;
use jiff::Timestamp;

use super::*;
use crate::features::matrix::FeatureMatrix;
use crate::features::schema::Schema;

/// A start on the grid of every interval up to 5 min.
pub(super) fn start() -> Timestamp {
    Timestamp::from_second(1_790_000_100).unwrap()
}

pub(super) fn second(n: i64) -> Timestamp {
    Timestamp::from_second(start().as_second() + n).unwrap()
}

pub(super) fn minute(n: i64) -> Timestamp {
    second(60 * n)
}

/// A fleet that remembers, scraped every 15 s in steps of 5 s.
pub(super) fn remembering(seed: u64, nodes: usize, faults: &[&str]) -> Fleet {
    let mut options = FleetOptions::new(seed, nodes, start());
    options.schedule = faults.iter().map(|text| fault(text)).collect();
    options.memory = Some(MemoryOptions::every(Duration::from_secs(15)));
    Fleet::new(options).unwrap()
}

/// A fleet that remembers, in steps and scrapes of a minute: for stories of hours.
pub(super) fn slow(seed: u64, nodes: usize) -> Fleet {
    let mut options = FleetOptions::new(seed, nodes, start());
    options.tick = Duration::from_secs(60);
    options.memory = Some(MemoryOptions::every(Duration::from_secs(60)));
    Fleet::new(options).unwrap()
}

pub(super) fn fault(text: &str) -> FaultEvent {
    text.parse::<FaultSpec>().unwrap().starting(start())
}

pub(super) fn columns() -> Columns {
    let schema = Arc::new(Schema::built_in());
    Columns::new(schema, Duration::from_secs(300), Duration::from_secs(120))
}

pub(super) fn value(matrix: &FeatureMatrix, node: &str, feature: &str) -> Option<f64> {
    let row = matrix.row_of(&node.into()).expect("a Node of the fleet");
    assert!(
        matrix.schema.column_of(feature).is_some(),
        "no feature {feature}"
    );
    matrix.value_of(row, feature)
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let pages = |seed, steps: &[i64]| {
        let fault = "worker-02:slow-disk:at=2m:for=5m";
        let mut fleet = remembering(seed, 3, &[fault]);
        for step in steps {
            fleet.advance(second(*step));
        }
        let mut out = String::new();
        let names: Vec<NodeName> = fleet.names().cloned().collect();
        for name in &names {
            for page in [Page::NodeExporter, Page::Kubelet, Page::Probe] {
                fleet.write_page(name, page, &mut out).unwrap();
            }
        }
        fleet.write_cluster_page(true, &mut out);
        let matrix = columns().matrix(&fleet, fleet.now());
        out + &format!("{:?} {:?}", matrix.values, matrix.sources)
    };
    let once = pages(7, &[600]);
    assert_eq!(once, pages(7, &[600]));
    assert_eq!(
        once,
        pages(7, &[1, 4, 5, 33, 60, 299, 600, 604]),
        "steps do not matter"
    );
    assert_ne!(once, pages(8, &[600]));
}

#[test]
fn a_node_does_not_depend_on_how_many_there_are() {
    let page = |nodes| {
        let mut fleet = remembering(11, nodes, &[]);
        fleet.advance(minute(5));
        let mut out = String::new();
        fleet
            .write_page(&"worker-02".into(), Page::NodeExporter, &mut out)
            .unwrap();
        out
    };
    assert_eq!(page(2), page(40));
}

#[test]
fn fleets_that_cannot_be_are_refused_with_the_reason() {
    let options = || FleetOptions::new(1, 2, start());
    let check = |options: FleetOptions, message: &str| {
        let error = Fleet::new(options).unwrap_err();
        let text = format!("{:#}", anyhow::Error::new(error));
        assert!(text.contains(message), "{text}");
    };
    check(FleetOptions::new(1, 0, start()), "1 to 10000 Nodes, got 0");
    check(FleetOptions::new(1, 10_001, start()), "got 10001");
    let twice = vec!["a".into(), "a".into()];
    check(
        FleetOptions {
            nodes: twice,
            ..options()
        },
        "two Nodes are named `a`",
    );
    for tick in [
        Duration::ZERO,
        Duration::from_micros(1),
        Duration::from_secs(61),
    ] {
        check(FleetOptions { tick, ..options() }, "is impossible");
    }
    let memory = Some(MemoryOptions::every(Duration::from_secs(7)));
    check(
        FleetOptions {
            memory,
            ..options()
        },
        "multiple of the tick",
    );
    let schedule = vec![fault("worker-03:slow-disk")];
    check(
        FleetOptions {
            schedule,
            ..options()
        },
        "no Node of the fleet is named `worker-03`",
    );
    let mut bad = fault("worker-01:slow-disk");
    bad.severity = 2.0;
    check(
        FleetOptions {
            schedule: vec![bad],
            ..options()
        },
        "the fault of `worker-01` is impossible: `severity=2`",
    );
}

#[test]
fn without_memory_there_is_nothing_to_say() {
    let mut fleet = Fleet::new(FleetOptions::new(1, 2, start())).unwrap();
    fleet.advance(minute(10));
    let matrix = columns().matrix(&fleet, fleet.now());
    assert!(matrix.scraped_at.iter().all(Option::is_none));
    assert!(matrix.values.iter().all(|value| value.is_nan()));
}

#[test]
fn every_built_in_feature_is_computed_for_some_node() {
    let mut fleet = slow(3, 40);
    fleet.advance(minute(60 * 24 + 10));
    let matrix = columns().matrix(&fleet, fleet.now());
    for (column, feature) in matrix.schema.features().iter().enumerate() {
        let known = (0..40)
            .filter(|row| matrix.value(*row, column).is_some())
            .count();
        assert!(known >= 1, "{} is known of no Node", feature.name);
        if !feature.optional {
            assert!(
                known >= 35,
                "{} is known of {known} Nodes of 40",
                feature.name
            );
        }
    }
    assert!((0..40).all(|row| matrix.missing_share(row) < 0.3));
}

#[test]
fn a_window_says_nothing_before_it_is_full() {
    let mut fleet = remembering(3, 4, &[]);
    fleet.advance(minute(30));
    let young = columns().matrix(&fleet, minute(30));
    fleet.advance(minute(62));
    let older = columns().matrix(&fleet, minute(62));
    for feature in ["mem_in_1h", "up_flaps", "oom_kills", "pod_restarts"] {
        assert_eq!(value(&young, "worker-01", feature), None, "{feature}");
        assert!(value(&older, "worker-01", feature).is_some(), "{feature}");
    }
    for feature in ["ctx_vs_day", "fs_in_24h", "reboots"] {
        assert_eq!(value(&older, "worker-01", feature), None, "{feature}");
    }
    assert!(value(&young, "worker-01", "cpu_used").is_some());
}

#[test]
fn a_node_without_work_looks_idle_and_has_no_pods() {
    let mut fleet = remembering(5, 30, &[]);
    let names: Vec<NodeName> = fleet.names().cloned().collect();
    fleet.advance(minute(20));
    let before = columns().matrix(&fleet, fleet.now());
    for name in &names {
        fleet.set_load(name, 0.0).unwrap();
        fleet.set_pods(name, 0).unwrap();
    }
    fleet.advance(minute(40));
    let after = columns().matrix(&fleet, fleet.now());
    let sum = |matrix: &FeatureMatrix, feature| -> f64 {
        names
            .iter()
            .filter_map(|name| value(matrix, name.as_str(), feature))
            .sum()
    };
    assert!(sum(&after, "cpu_used") < 0.35 * sum(&before, "cpu_used"));
    assert!(sum(&after, "disk_busy") < 0.4 * sum(&before, "disk_busy"));
    assert!(sum(&after, "mem_used") < 0.7 * sum(&before, "mem_used"));
    assert_eq!(sum(&after, "pods_used"), 0.0);
    assert!(sum(&before, "pods_used") > 3.0);
    let unknown = fleet.set_load(&"nobody".into(), 1.0);
    assert!(matches!(unknown, Err(FleetError::UnknownNode(name)) if name.as_str() == "nobody"));
}
