//! Values hang together, counters only grow, pages are well formed: over random seeds and faults.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::page::{Family, parse};
use super::*;

/// Every sample of a page by name and labels.
struct Seen(BTreeMap<String, Family>);

impl Seen {
    fn of(fleet: &Fleet, node: &NodeName, page: Page) -> Option<Self> {
        let mut out = String::new();
        fleet.write_page(node, page, &mut out).ok()?;
        let families = parse(&out)
            .into_iter()
            .map(|family| (family.name.clone(), family));
        Some(Self(families.collect()))
    }

    fn one(&self, name: &str) -> f64 {
        self.sum(name, |_| true)
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn sum(&self, name: &str, which: impl Fn(&BTreeMap<String, String>) -> bool) -> f64 {
        let family = self.0.get(name).unwrap_or_else(|| panic!("no {name}"));
        family
            .samples
            .iter()
            .filter(|s| which(&s.labels))
            .map(|s| s.value)
            .sum()
    }

    fn counters(&self) -> BTreeMap<String, f64> {
        let mut all = BTreeMap::new();
        for family in self.0.values() {
            let counts = match family.kind.as_str() {
                "counter" | "histogram" => true,
                // vmstat and netstat have no types, and are counters.
                "untyped" => true,
                _ => false,
            };
            if counts {
                all.extend(family.samples.iter().map(|s| (s.key(), s.value)));
            }
        }
        all
    }
}

fn schedule(kind: FaultKind, severity: f64) -> Vec<FaultEvent> {
    let mut event = fault(&format!("worker-01:{kind}:at=30s:for=8m:ramp=2m"));
    event.severity = severity;
    vec![event]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn values_hang_together_and_counters_only_grow(
        seed in any::<u64>(),
        kind in prop::sample::select(FaultKind::ALL.to_vec()),
        severity in 0.05_f64..=1.0,
        tick in prop::sample::select(vec![1_u64, 5, 15, 60]),
    ) {
        let mut options = FleetOptions::new(seed, 1, start());
        options.tick = Duration::from_secs(tick);
        options.schedule = schedule(kind, severity);
        let mut fleet = Fleet::new(options).unwrap();
        let node: NodeName = "worker-01".into();
        let mut before: Option<(Timestamp, Seen)> = None;
        for step in 0..12 {
            fleet.advance(minute(step));
            let Some(seen) = Seen::of(&fleet, &node, Page::NodeExporter) else {
                before = None;
                continue;
            };
            check_gauges(&seen, &fleet, &node);
            if let Some((at, before)) = &before {
                let seconds = fleet.now().duration_since(*at).as_secs_f64();
                let booted = |seen: &Seen| seen.has("node_boot_time_seconds").then(|| seen.one("node_boot_time_seconds"));
                if booted(before) == booted(&seen) {
                    check_growth(before, &seen, seconds);
                }
            }
            before = Some((fleet.now(), seen));
        }
    }
}

fn check_gauges(seen: &Seen, fleet: &Fleet, node: &NodeName) {
    for family in seen.0.values() {
        for sample in &family.samples {
            assert!(sample.value.is_finite(), "{}", sample.key());
            let signed = ["node_timex_offset_seconds"].contains(&sample.name.as_str());
            assert!(
                sample.value >= 0.0 || signed,
                "{} {}",
                sample.key(),
                sample.value
            );
        }
    }
    let hardware = fleet.hardware(node).unwrap();
    if seen.has("node_memory_MemTotal_bytes") {
        let memory = |field: &str| seen.one(&format!("node_memory_{field}_bytes"));
        let available =
            memory("MemFree") + memory("Buffers") + memory("Cached") + memory("SReclaimable");
        assert_eq!(
            available,
            memory("MemAvailable"),
            "what can be had is free or can be reclaimed"
        );
        assert!(memory("MemAvailable") + memory("AnonPages") <= memory("MemTotal"));
        assert_eq!(memory("MemTotal"), hardware.memory);
        assert!(memory("SwapFree") <= memory("SwapTotal"));
        assert_eq!(
            memory("Slab"),
            memory("SReclaimable") + memory("SUnreclaim")
        );
    }
    if seen.has("node_filesystem_size_bytes") {
        for filesystem in &hardware.filesystems {
            let of =
                |name: &str| seen.sum(name, |labels| labels["mountpoint"] == filesystem.mountpoint);
            assert!(of("node_filesystem_avail_bytes") <= of("node_filesystem_free_bytes"));
            assert!(of("node_filesystem_free_bytes") <= of("node_filesystem_size_bytes"));
            assert!(of("node_filesystem_files_free") <= of("node_filesystem_files"));
        }
    }
    if seen.has("node_nf_conntrack_entries") {
        assert!(
            seen.one("node_nf_conntrack_entries") <= seen.one("node_nf_conntrack_entries_limit")
        );
    }
    let success = &seen.0["node_scrape_collector_success"].samples;
    assert_eq!(success.len(), 48, "every default collector tells");
    let lost = |name: &str| {
        success
            .iter()
            .any(|s| s.label("collector") == name && s.value == 0.0)
    };
    for (collector, family) in [
        ("diskstats", "node_disk_io_time_seconds_total"),
        ("pressure", "node_pressure_io_stalled_seconds_total"),
        ("meminfo", "node_memory_MemTotal_bytes"),
        ("edac", "node_edac_correctable_errors_total"),
        ("hwmon", "node_hwmon_temp_celsius"),
    ] {
        assert_eq!(seen.has(family), !lost(collector), "{collector}");
    }
}

fn check_growth(before: &Seen, after: &Seen, seconds: f64) {
    let was = before.counters();
    for (series, value) in after.counters() {
        if let Some(was) = was.get(&series) {
            assert!(value >= *was, "{series} fell from {was} to {value}");
        }
    }
    let grown = |name: &str, which: &dyn Fn(&BTreeMap<String, String>) -> bool| {
        after.sum(name, which) - before.sum(name, which)
    };
    let both = |name: &str| before.has(name) && after.has(name);
    if both("node_cpu_seconds_total") {
        let cores = &after.0["node_cpu_seconds_total"].samples;
        let mut names: Vec<_> = cores.iter().map(|s| s.label("cpu")).collect();
        names.dedup();
        for core in names {
            let time = grown("node_cpu_seconds_total", &|labels| labels["cpu"] == core);
            // Eight modes, each rounded to a hundredth.
            assert!(
                (time - seconds).abs() < 0.09,
                "core {core}: {time} s of {seconds} s"
            );
        }
    }
    for pressure in [
        "node_pressure_cpu_waiting_seconds_total",
        "node_pressure_memory_stalled_seconds_total",
        "node_pressure_io_stalled_seconds_total",
        "node_pressure_io_waiting_seconds_total",
    ] {
        if both(pressure) {
            assert!(grown(pressure, &|_| true) <= seconds + 1e-5, "{pressure}");
        }
    }
    if both("node_disk_io_time_seconds_total") {
        for disk in &after.0["node_disk_io_time_seconds_total"].samples {
            let of = |name: &str| grown(name, &|labels| labels["device"] == disk.label("device"));
            let busy = of("node_disk_io_time_seconds_total");
            assert!(busy <= seconds + 0.002, "busy for {busy} s of {seconds} s");
            let queue = of("node_disk_io_time_weighted_seconds_total");
            let waited =
                of("node_disk_read_time_seconds_total") + of("node_disk_write_time_seconds_total");
            assert!(
                (queue - waited).abs() < 0.01 + 1e-6 * queue,
                "{queue} is not {waited}"
            );
            assert!(
                busy <= queue + 0.002,
                "busy {busy} s without requests ({queue})"
            );
        }
    }
    if both("node_pressure_io_stalled_seconds_total") {
        let some = grown("node_pressure_io_waiting_seconds_total", &|_| true);
        assert!(grown("node_pressure_io_stalled_seconds_total", &|_| true) <= some + 1e-5);
    }
    if both("node_vmstat_pgmajfault") {
        let faults = grown("node_vmstat_pgfault", &|_| true);
        assert!(grown("node_vmstat_pgmajfault", &|_| true) <= faults + 1.0);
    }
}

#[test]
fn the_pages_of_kubelet_prober_and_cluster_are_well_formed() {
    let mut fleet = remembering(9, 5, &[]);
    fleet.advance(minute(10));
    let node: NodeName = "worker-03".into();
    let kubelet = Seen::of(&fleet, &node, Page::Kubelet).unwrap();
    let relists = &kubelet.0["kubelet_pleg_relist_duration_seconds"].samples;
    let buckets: Vec<_> = relists
        .iter()
        .filter(|s| s.name.ends_with("_bucket"))
        .collect();
    assert_eq!(buckets.len(), 12);
    assert!(
        buckets
            .windows(2)
            .all(|pair| pair[0].value <= pair[1].value),
        "buckets are cumulative"
    );
    assert_eq!(buckets[11].label("le"), "+Inf");
    let count = relists.iter().find(|s| s.name.ends_with("_count")).unwrap();
    assert_eq!(buckets[11].value, count.value);

    let probe = Seen::of(&fleet, &node, Page::Probe).unwrap();
    assert_eq!(probe.one("probe_success"), 1.0);
    assert!(
        probe.sum("probe_icmp_duration_seconds", |labels| labels["phase"]
            == "rtt")
            > 0.0
    );

    let mut out = String::new();
    fleet.write_cluster_page(true, &mut out);
    let families = parse(&out);
    let of = |name: &str| families.iter().find(|f| f.name == name).unwrap();
    assert_eq!(of("kube_node_status_allocatable").samples.len(), 15);
    let pods = kubelet.one("kubelet_running_pods");
    let on_node = of("kube_pod_info")
        .samples
        .iter()
        .filter(|s| s.label("node") == "worker-03");
    assert_eq!(on_node.count() as f64, pods.max(2.0));
    let mut without = String::new();
    fleet.write_cluster_page(false, &mut without);
    assert!(!without.contains("kube_pod_") && without.contains("kube_node_status_condition"));
}

#[test]
fn a_reboot_begins_every_counter_again_and_changes_the_boot_time() {
    let mut fleet = remembering(
        21,
        1,
        &["worker-01:reboot-loop:for=20m:severity=1.0:ramp=10s"],
    );
    let node: NodeName = "worker-01".into();
    let mut boots = Vec::new();
    let mut silent = 0;
    let mut last: Option<Seen> = None;
    for step in 0..240 {
        fleet.advance(second(5 * step));
        match Seen::of(&fleet, &node, Page::NodeExporter) {
            None => silent += 1,
            Some(seen) => {
                let boot = seen.one("node_boot_time_seconds");
                if boots.last() != Some(&boot) {
                    if let Some(last) = &last {
                        let switches = "node_context_switches_total";
                        assert!(
                            seen.one(switches) < last.one(switches),
                            "counters began again"
                        );
                        let up = fleet.now().as_second() as f64 - boot;
                        let cores = fleet.hardware(&node).unwrap().cores as f64;
                        let counted = seen.one("node_cpu_seconds_total");
                        assert!(
                            (counted / cores - up).abs() < 6.0,
                            "{counted} s on {cores} cores in {up} s"
                        );
                    }
                    boots.push(boot);
                }
                last = Some(seen);
            }
        }
    }
    assert!(boots.len() >= 5, "{boots:?}");
    assert!(silent >= 20, "a machine that boots does not answer");
}

#[test]
fn a_fleet_starts_as_if_it_had_been_up_for_days() {
    let fleet = remembering(2, 50, &[]);
    let mut days: Vec<f64> = Vec::new();
    for node in fleet.names() {
        let seen = Seen::of(&fleet, node, Page::NodeExporter).unwrap();
        let up = start().as_second() as f64 - seen.one("node_boot_time_seconds");
        let cores = fleet.hardware(node).unwrap().cores as f64;
        let counted = seen.one("node_cpu_seconds_total") / cores;
        assert!(
            (counted - up).abs() < 1.0 + 0.001 * up,
            "{node}: {counted} s counted in {up} s"
        );
        days.push(up / 86_400.0);
    }
    days.sort_by(f64::total_cmp);
    assert!(days[25] > 1.0, "half of them for days");
    assert!(days[0] < 1.0, "some are young");
}

#[test]
fn physics_does_not_depend_on_the_length_of_a_step() {
    let mean = |tick: u64| {
        let mut options = FleetOptions::new(77, 60, start());
        options.tick = Duration::from_secs(tick);
        options.memory = Some(MemoryOptions::every(Duration::from_secs(60)));
        options.schedule = (1..=60)
            .map(|n| {
                fault(&format!(
                    "worker-{n:02}:slow-disk:at=2m:for=40m:ramp=5m:severity=0.6"
                ))
            })
            .collect();
        let mut fleet = Fleet::new(options).unwrap();
        let columns = columns();
        let mut sums = BTreeMap::new();
        for step in 6..30 {
            fleet.advance(minute(step));
            let matrix = columns.matrix(&fleet, fleet.now());
            for feature in [
                "cpu_used",
                "mem_used",
                "disk_busy",
                "disk_await_write",
                "load_per_core",
                "psi_io",
            ] {
                for node in fleet.names() {
                    *sums.entry(feature).or_insert(0.0) +=
                        value(&matrix, node.as_str(), feature).unwrap_or(0.0);
                }
            }
        }
        sums
    };
    let fine = mean(2);
    for coarse in [mean(15), mean(60)] {
        for (feature, sum) in &coarse {
            let ratio = sum / fine[feature];
            assert!((0.85..1.18).contains(&ratio), "{feature}: {ratio}");
        }
    }
}
