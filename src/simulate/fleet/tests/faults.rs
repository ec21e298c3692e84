//! Each fault moves what it should, becomes an incident when it is bad, and goes away again; healthy
//! Nodes have none.

use super::*;

/// Features of a Node before, during and after a fault of severity 0.8 that lasts 20 min.
struct Story {
    before: FeatureMatrix,
    worst: FeatureMatrix,
    after: FeatureMatrix,
    fleet: Fleet,
}

fn story(seed: u64, fault: &str) -> Story {
    let text = format!("worker-01:{fault}:at=70m:for=20m");
    let mut fleet = remembering(seed, 2, &[&text]);
    let columns = columns();
    fleet.advance(minute(69));
    let before = columns.matrix(&fleet, fleet.now());
    fleet.advance(minute(89));
    let worst = columns.matrix(&fleet, fleet.now());
    fleet.advance(minute(120));
    let after = columns.matrix(&fleet, fleet.now());
    Story {
        before,
        worst,
        after,
        fleet,
    }
}

impl Story {
    fn rises(&self, feature: &str, to: f64) {
        let before = value(&self.before, "worker-01", feature);
        // A kernel without PSI or a machine without that sensor says nothing.
        let Some(worst) = value(&self.worst, "worker-01", feature) else {
            assert_eq!(before, None, "{feature} was lost");
            return;
        };
        let before = before.unwrap_or(0.0);
        assert!(
            worst >= to && worst > before,
            "{feature}: {before} to {worst}, wanted {to}"
        );
    }

    fn is_high(&self, feature: &str, at_least: f64) {
        if let Some(worst) = value(&self.worst, "worker-01", feature) {
            assert!(worst >= at_least, "{feature}: {worst}, wanted {at_least}");
        }
    }

    fn is_back(&self, feature: &str, factor: f64, within: f64) {
        let before = value(&self.before, "worker-01", feature).unwrap_or(0.0);
        let after = value(&self.after, "worker-01", feature).unwrap_or(0.0);
        assert!(
            after <= before * factor + within,
            "{feature}: {before}, and {after} after the fault"
        );
    }

    fn incident(&self, kind: IncidentKind) {
        let node = "worker-01".into();
        let incidents = self.fleet.incidents(&node);
        let one = incidents.iter().find(|incident| incident.kind == kind);
        let one = one.unwrap_or_else(|| panic!("no {kind:?}: {incidents:?}"));
        assert!((minute(70)..minute(90)).contains(&one.from), "{one:?}");
        assert!(
            one.until.is_some_and(|until| until < minute(105)),
            "{one:?}"
        );
        assert_eq!(self.fleet.degraded(&node), None, "it is over");
        assert_eq!(
            self.fleet.incidents(&"worker-02".into()),
            [],
            "the other Node is well"
        );
    }
}

const SEEDS: [u64; 4] = [1, 2, 3, 4];

#[test]
fn a_memory_leak_ends_in_pressure_faults_and_kills() {
    for seed in SEEDS {
        let story = story(seed, "memory-leak");
        story.rises("mem_used", 0.9);
        story.rises("psi_mem", 0.1);
        story.rises("major_faults", 100.0);
        story.rises("mem_in_1h", 0.95);
        story.incident(IncidentKind::MemoryExhausted);
        story.is_back("mem_used", 1.5, 0.1);
        story.is_back("psi_mem", 1.5, 0.05);
    }
}

#[test]
fn a_slow_disk_ends_in_waiting_and_blocked_processes() {
    for seed in SEEDS {
        let story = story(seed, "slow-disk");
        if value(&story.before, "worker-01", "disk_busy").is_none() {
            continue; // A sandbox without disk statistics.
        }
        story.rises("disk_await_write", 0.1);
        story.is_high("disk_busy", 0.2);
        story.is_high("psi_io", 0.1);
        story.incident(IncidentKind::IoStall);
        story.is_back("disk_await_write", 3.0, 0.02);
    }
}

#[test]
fn packet_loss_ends_in_retransmissions_drops_and_lost_probes() {
    let mut lost = 0.0;
    for seed in SEEDS {
        let story = story(seed, "packet-loss");
        story.rises("tcp_retrans_ratio", 0.05);
        story.rises("tcp_timeout_ratio", 0.01);
        story.rises("net_drop_ratio", 0.02);
        story.rises("net_error_ratio", 0.005);
        lost += value(&story.worst, "worker-01", "net_probe_loss").unwrap();
        story.incident(IncidentKind::PacketLoss);
        story.is_back("tcp_retrans_ratio", 2.0, 0.01);
    }
    assert!(
        (0.05..0.9).contains(&lost),
        "a tenth of the probes: {lost} in {}",
        SEEDS.len()
    );
}

#[test]
fn overheating_ends_in_throttling() {
    for seed in SEEDS {
        let story = story(seed, "overheating");
        assert!(
            value(&story.before, "worker-01", "temp_vs_crit").is_some(),
            "it can be seen"
        );
        story.rises("temp_vs_crit", 0.97);
        story.rises("cpu_throttles", 10.0);
        story.incident(IncidentKind::Overheated);
        story.is_back("temp_vs_crit", 1.0, 0.35);
    }
}

#[test]
fn cpu_starvation_ends_in_a_run_queue_and_slow_scrapes() {
    for seed in SEEDS {
        let story = story(seed, "cpu-starvation");
        story.rises("load_per_core", 6.0);
        story.rises("psi_cpu", 0.9);
        story.rises("scrape_seconds", 0.02);
        story.rises("pleg_p99", 0.03);
        if story.fleet.hardware(&"worker-01".into()).unwrap().machine != Machine::Metal {
            story.rises("cpu_steal", 0.4);
        }
        story.incident(IncidentKind::CpuStarved);
        story.is_back("load_per_core", 2.5, 1.0);
    }
}

#[test]
fn a_filling_filesystem_is_seen_before_it_is_full() {
    for seed in SEEDS {
        let story = story(seed, "filling-filesystem");
        story.rises("fs_used", 0.97);
        story.incident(IncidentKind::FilesystemFull);
        story.is_back("fs_used", 1.0, 0.03);
    }
}

#[test]
fn a_reboot_loop_is_counted() {
    for seed in SEEDS {
        let mut fleet = remembering(seed, 1, &["worker-01:reboot-loop:at=70m:for=30m"]);
        fleet.advance(minute(115));
        let matrix = columns().matrix(&fleet, fleet.now());
        assert!(value(&matrix, "worker-01", "up_flaps").is_some_and(|flaps| flaps >= 4.0));
        assert!(value(&matrix, "worker-01", "pod_restarts").is_some_and(|n| n > 0.0));
        let incidents = fleet.incidents(&"worker-01".into());
        assert!(
            incidents.iter().any(|i| i.kind == IncidentKind::RebootLoop),
            "{incidents:?}"
        );
    }
}

#[test]
fn a_lost_collector_takes_its_features_and_no_others() {
    let lost = "worker-01:lost-collector:at=10m:for=10m:target=pressure";
    let mut fleet = remembering(1, 8, &[lost]);
    let columns = columns();
    fleet.advance(minute(9));
    let before = columns.matrix(&fleet, fleet.now());
    assert!(
        value(&before, "worker-01", "psi_io").is_some(),
        "seed with PSI on the first Node"
    );
    fleet.advance(second(9 * 60 + 90));
    let during = columns.matrix(&fleet, fleet.now());
    for feature in ["psi_cpu", "psi_io", "psi_mem"] {
        assert_eq!(value(&during, "worker-01", feature), None, "{feature}");
    }
    assert!(value(&during, "worker-01", "cpu_used").is_some());
    let failed = |matrix| value(matrix, "worker-01", "collectors_failed").unwrap();
    assert_eq!(failed(&during), failed(&before) + 1.0);
    assert_eq!(fleet.incidents(&"worker-01".into()), [], "the Node is well");
    fleet.advance(minute(21));
    let after = columns.matrix(&fleet, fleet.now());
    assert!(value(&after, "worker-01", "psi_io").is_some());
}

#[test]
fn without_its_name_a_node_is_unknown_as_a_whole() {
    let mut fleet = remembering(1, 2, &["worker-01:lost-collector:for=1h:target=uname"]);
    fleet.advance(minute(10));
    let matrix = columns().matrix(&fleet, fleet.now());
    assert_eq!(matrix.scraped_at[0], None);
    assert!(matrix.values.row(0).iter().all(|value| value.is_nan()));
    assert!(matrix.scraped_at[1].is_some());
}

#[test]
fn a_vanished_exporter_is_silence_and_no_incident() {
    let mut fleet = remembering(1, 2, &["worker-01:vanished-exporter:at=70m:for=10m"]);
    let columns = columns();
    let node: NodeName = "worker-01".into();
    fleet.advance(minute(71));
    let during = columns.matrix(&fleet, fleet.now());
    assert_eq!(during.scraped_at[0], None);
    assert!(during.values.row(0).iter().all(|value| value.is_nan()));
    assert!(during.scraped_at[1].is_some());
    let mut out = String::new();
    assert_eq!(
        fleet.write_page(&node, Page::NodeExporter, &mut out),
        Err(NoAnswer::Vanished)
    );
    assert_eq!(fleet.write_page(&node, Page::Kubelet, &mut out), Ok(()));
    fleet.advance(minute(82));
    let after = columns.matrix(&fleet, fleet.now());
    let down = value(&after, "worker-01", "down_share").unwrap();
    assert!((0.6..0.72).contains(&down), "10 of 15 min: {down}");
    assert_eq!(value(&after, "worker-01", "up_flaps"), Some(2.0));
    assert_eq!(fleet.incidents(&node), []);
}

#[test]
fn a_mild_fault_is_no_incident() {
    // A reboot loop has no mild form: it is one reboot, or several.
    for kind in FaultKind::ALL
        .into_iter()
        .filter(|kind| *kind != FaultKind::RebootLoop)
    {
        for seed in SEEDS {
            let text = format!("worker-01:{kind}:for=1h:severity=0.2");
            let mut fleet = remembering(seed, 1, &[&text]);
            fleet.advance(minute(70));
            assert_eq!(
                fleet.incidents(&"worker-01".into()),
                [],
                "{kind} with seed {seed}"
            );
        }
    }
}

#[test]
fn a_healthy_fleet_has_no_incident_in_a_day() {
    let mut options = FleetOptions::new(99, 150, start());
    options.tick = Duration::from_secs(60);
    let mut fleet = Fleet::new(options).unwrap();
    fleet.advance(minute(1440));
    let names: Vec<NodeName> = fleet.names().cloned().collect();
    for name in names {
        assert_eq!(
            fleet.incidents(&name),
            [],
            "{name} is {:?}",
            fleet.profile(&name)
        );
    }
}

#[test]
fn healthy_nodes_are_of_many_kinds() {
    let mut fleet = slow(6, 120);
    let columns = columns();
    let mut seen: std::collections::BTreeMap<&str, (f64, f64)> = std::collections::BTreeMap::new();
    let features = [
        "cpu_used",
        "load_per_core",
        "psi_cpu",
        "mem_used",
        "disk_busy",
        "disk_await_write",
        "tcp_retrans_ratio",
        "clock_unsynced",
        "collectors_failed",
        "fs_used",
        "temp_vs_crit",
        "entropy_free",
    ];
    for step in 1..=24 {
        fleet.advance(minute(20 * step));
        let matrix = columns.matrix(&fleet, fleet.now());
        for feature in features {
            for node in fleet.names() {
                if let Some(value) = value(&matrix, node.as_str(), feature) {
                    let range = seen.entry(feature).or_insert((value, value));
                    *range = (range.0.min(value), range.1.max(value));
                }
            }
        }
    }
    for (feature, low, high) in [
        ("cpu_used", 0.02, 0.97),
        ("load_per_core", 0.05, 2.0),
        ("psi_cpu", 0.001, 0.9),
        ("mem_used", 0.15, 0.88),
        ("disk_busy", 0.001, 0.95),
        ("disk_await_write", 0.000_2, 0.015),
        ("tcp_retrans_ratio", 1e-6, 1e-3),
        ("clock_unsynced", 0.0, 1.0),
        ("collectors_failed", 8.0, 18.0),
        ("fs_used", 0.2, 0.85),
        ("temp_vs_crit", 0.45, 0.75),
        ("entropy_free", 0.95, 1.0),
    ] {
        let (least, most) = seen[feature];
        assert!(least <= low && most >= high, "{feature}: {least} to {most}");
    }
}
