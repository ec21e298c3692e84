//! The columns against a second, slow reading of the same formulas: every page is parsed, every
//! sample kept, and rates, regressions and changes are computed from the samples one by one, as
//! Prometheus does. A test against a real Prometheus is in the integration tests.

use std::collections::BTreeMap;

use super::page::parse;
use super::*;

type Labels = BTreeMap<String, String>;

/// Time and value, `None` for a stale marker.
type Samples = [(f64, Option<f64>)];

/// Labels, name and samples.
type Series = (Labels, String, Vec<(f64, Option<f64>)>);

/// Every sample of one Node.
#[derive(Default)]
struct Store {
    series: BTreeMap<String, Series>,
}

impl Store {
    /// Takes what a scrape brought; of families that no formula here reads, nothing.
    fn scrape(&mut self, fleet: &Fleet, node: &NodeName, pages: &[Page]) {
        let at = fleet.now().as_second() as f64;
        let mut seen = Vec::new();
        let mut up = false;
        for page in pages {
            let mut out = String::new();
            if fleet.write_page(node, *page, &mut out).is_ok() {
                up |= *page == Page::NodeExporter;
                seen.extend(parse(&out).into_iter().flat_map(|family| family.samples));
            }
        }
        for (_, _, samples) in self.series.values_mut() {
            samples.push((at, None));
        }
        for sample in seen {
            self.put(at, sample.name.clone(), sample.labels.clone(), sample.value);
        }
        self.put(at, "up".to_owned(), Labels::new(), f64::from(u8::from(up)));
        let mut out = String::new();
        fleet.write_cluster_page(true, &mut out);
        for family in parse(&out)
            .into_iter()
            .filter(|f| f.name.starts_with("kube_pod_container"))
        {
            for sample in family
                .samples
                .into_iter()
                .filter(|s| s.label("pod").ends_with(node.as_str()))
            {
                self.put(at, sample.name.clone(), sample.labels.clone(), sample.value);
            }
        }
    }

    fn put(&mut self, at: f64, name: String, labels: Labels, value: f64) {
        let key = format!("{name}{labels:?}");
        let entry = self
            .series
            .entry(key)
            .or_insert_with(|| (labels, name, Vec::new()));
        match entry.2.last_mut() {
            Some((time, last)) if *time == at => *last = Some(value),
            _ => entry.2.push((at, Some(value))),
        }
    }

    fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a Labels, &'a Samples)> {
        self.series
            .values()
            .filter(move |(_, own, _)| own == name)
            .map(|(labels, _, samples)| (labels, &samples[..]))
    }
}

fn window(samples: &Samples, at: f64, length: f64) -> Vec<(f64, f64)> {
    let from = samples.partition_point(|(time, _)| *time <= at - length);
    let inside = samples[from..]
        .iter()
        .filter(|(time, _)| *time > at - length && *time <= at);
    inside
        .filter_map(|(time, value)| value.map(|value| (*time, value)))
        .collect()
}

fn last(samples: &Samples, at: f64) -> Option<f64> {
    samples
        .iter()
        .rev()
        .find(|(time, _)| *time <= at)
        .and_then(|(_, value)| *value)
}

fn increase(samples: &Samples, at: f64, length: f64) -> Option<f64> {
    let inside = window(samples, at, length);
    let (first, end) = (inside.first()?, inside.last()?);
    if inside.len() < 2 {
        return None;
    }
    let mut result = end.1 - first.1;
    for pair in inside.windows(2) {
        if pair[1].1 < pair[0].1 {
            result += pair[0].1;
        }
    }
    let sampled = end.0 - first.0;
    let average = sampled / (inside.len() - 1) as f64;
    let mut to_start = first.0 - (at - length);
    let mut to_end = at - end.0;
    if to_start >= 1.1 * average {
        to_start = average / 2.0;
    }
    if result > 0.0 && first.1 >= 0.0 {
        to_start = to_start.min(sampled * first.1 / result);
    }
    if to_end >= 1.1 * average {
        to_end = average / 2.0;
    }
    Some(result * (sampled + to_start + to_end) / sampled)
}

fn predict(samples: &Samples, at: f64, length: f64, ahead: f64) -> Option<f64> {
    let inside = window(samples, at, length);
    if inside.len() < 2 {
        return None;
    }
    let n = inside.len() as f64;
    let x = inside.iter().map(|(t, _)| t - at).sum::<f64>() / n;
    let y = inside.iter().map(|(_, v)| v).sum::<f64>() / n;
    let covariance: f64 = inside.iter().map(|(t, v)| (t - at - x) * (v - y)).sum();
    let variance: f64 = inside
        .iter()
        .map(|(t, _)| (t - at - x) * (t - at - x))
        .sum();
    let slope = covariance / variance;
    Some(y + slope * (ahead - x))
}

fn changes(samples: &Samples, at: f64, length: f64) -> f64 {
    let inside = window(samples, at, length);
    inside
        .windows(2)
        .filter(|pair| pair[0].1 != pair[1].1)
        .count() as f64
}

/// What PromQL says of a feature.
fn promql(store: &Store, feature: &str, at: f64) -> Option<f64> {
    const W: f64 = 300.0;
    let rate = |samples: &[_]| increase(samples, at, W).map(|increase| increase / W);
    let sum_rate = |name: &str, which: &dyn Fn(&Labels) -> bool| -> Option<f64> {
        store
            .of(name)
            .filter(|(l, _)| which(l))
            .filter_map(|(_, s)| rate(s))
            .reduce(|a, b| a + b)
    };
    let all = |_: &Labels| true;
    let cpu = |modes: &[&str]| {
        let some = sum_rate("node_cpu_seconds_total", &|l| {
            modes.contains(&l["mode"].as_str())
        })?;
        Some(some / sum_rate("node_cpu_seconds_total", &all)?)
    };
    let gauge = |name: &str| {
        store
            .of(name)
            .filter_map(|(_, s)| last(s, at))
            .reduce(f64::max)
    };
    let cores = || {
        let idle = store
            .of("node_cpu_seconds_total")
            .filter(|(l, s)| l["mode"] == "idle" && last(s, at).is_some());
        let count = idle.count();
        (count > 0).then_some(count as f64)
    };
    let real = |l: &Labels| l["device"] != "lo";
    let network = |what: &str| {
        Some(
            sum_rate(&format!("node_network_receive_{what}_total"), &real)?
                + sum_rate(&format!("node_network_transmit_{what}_total"), &real)?,
        )
    };
    let long = |name: &str, length: f64| {
        store
            .of(name)
            .filter_map(|(_, s)| increase(s, at, length))
            .reduce(|a, b| a + b)
    };
    let positive = |x: f64| (x > 0.0).then_some(x);
    let per_disk = |above: &str, below: &str| {
        let disks = store.of(above).filter_map(|(labels, s)| {
            let (_, below) = store.of(below).find(|(l, _)| *l == labels)?;
            Some(rate(s)? / positive(rate(below)?)?)
        });
        disks.reduce(f64::max)
    };
    let filesystem = |of: &dyn Fn(&Labels, f64) -> Option<f64>| {
        let sizes = store.of("node_filesystem_size_bytes");
        let shares = sizes.filter_map(|(l, s)| of(l, last(s, at)?));
        Some(1.0 - shares.reduce(f64::min)?)
    };
    match feature {
        "cpu_used" => Some(1.0 - cpu(&["idle", "iowait"])?),
        "cpu_iowait" => cpu(&["iowait"]),
        "cpu_steal" => cpu(&["steal"]),
        "cpu_softirq" => cpu(&["softirq", "irq"]),
        "cpu_worst_core" => {
            let mut quiet: BTreeMap<&str, f64> = BTreeMap::new();
            for (labels, samples) in store.of("node_cpu_seconds_total") {
                if ["idle", "iowait"].contains(&labels["mode"].as_str()) {
                    *quiet.entry(&labels["cpu"]).or_default() += rate(samples)?;
                }
            }
            quiet.values().map(|quiet| 1.0 - quiet).reduce(f64::max)
        }
        "load_per_core" => Some(gauge("node_load5")? / cores()?),
        "psi_cpu" => sum_rate("node_pressure_cpu_waiting_seconds_total", &all),
        "psi_io" => sum_rate("node_pressure_io_stalled_seconds_total", &all),
        "psi_mem" => sum_rate("node_pressure_memory_stalled_seconds_total", &all),
        "cpu_throttles" => long("node_cpu_core_throttles_total", 900.0),
        "mem_used" => Some(
            1.0 - gauge("node_memory_MemAvailable_bytes")? / gauge("node_memory_MemTotal_bytes")?,
        ),
        "mem_in_1h" => {
            let (_, samples) = store.of("node_memory_MemAvailable_bytes").next()?;
            let free = predict(samples, at, 3600.0, 3600.0)? / gauge("node_memory_MemTotal_bytes")?;
            Some((1.0 - free).max(-1.0))
        }
        "mem_commit" => {
            Some(gauge("node_memory_Committed_AS_bytes")? / gauge("node_memory_CommitLimit_bytes")?)
        }
        "swap_pages" => {
            Some(sum_rate("node_vmstat_pswpin", &all)? + sum_rate("node_vmstat_pswpout", &all)?)
        }
        "major_faults" => sum_rate("node_vmstat_pgmajfault", &all),
        "oom_kills" => long("node_vmstat_oom_kill", 3600.0),
        "disk_busy" => store
            .of("node_disk_io_time_seconds_total")
            .filter_map(|(_, s)| rate(s))
            .reduce(f64::max),
        "disk_queue" => store
            .of("node_disk_io_time_weighted_seconds_total")
            .filter_map(|(_, s)| rate(s))
            .reduce(f64::max),
        "disk_await_read" => per_disk(
            "node_disk_read_time_seconds_total",
            "node_disk_reads_completed_total",
        ),
        "disk_await_write" => per_disk(
            "node_disk_write_time_seconds_total",
            "node_disk_writes_completed_total",
        ),
        "fs_used" => filesystem(&|labels, size| {
            let (_, free) = store
                .of("node_filesystem_avail_bytes")
                .find(|(l, _)| *l == labels)?;
            Some(last(free, at)? / size)
        }),
        "fs_in_24h" => filesystem(&|labels, size| {
            let (_, free) = store
                .of("node_filesystem_avail_bytes")
                .find(|(l, _)| *l == labels)?;
            Some(predict(free, at, 21_600.0, 86_400.0)? / size)
        }),
        "net_error_ratio" => Some(network("errs")? / positive(network("packets")?)?),
        "net_drop_ratio" => Some(network("drop")? / positive(network("packets")?)?),
        "tcp_retrans_ratio" => Some(
            sum_rate("node_netstat_Tcp_RetransSegs", &all)?
                / positive(sum_rate("node_netstat_Tcp_OutSegs", &all)?)?,
        ),
        "tcp_timeout_ratio" => Some(
            sum_rate("node_netstat_TcpExt_TCPTimeouts", &all)?
                / positive(sum_rate("node_netstat_Tcp_OutSegs", &all)?)?,
        ),
        "listen_overflows" => sum_rate("node_netstat_TcpExt_ListenOverflows", &all),
        "softnet_drops" => sum_rate("node_softnet_dropped_total", &all),
        "carrier_changes" => long("node_network_carrier_changes_total", 3600.0),
        "conntrack_used" => Some(
            gauge("node_nf_conntrack_entries")?
                / positive(gauge("node_nf_conntrack_entries_limit")?)?,
        ),
        "fd_used" => Some(gauge("node_filefd_allocated")? / gauge("node_filefd_maximum")?),
        "entropy_free" => {
            Some(gauge("node_entropy_available_bits")? / gauge("node_entropy_pool_size_bits")?)
        }
        "procs_blocked" => Some(gauge("node_procs_blocked")? / cores()?),
        "ctx_vs_day" => {
            let day = long("node_context_switches_total", 86_400.0)? / 86_400.0;
            Some(sum_rate("node_context_switches_total", &all)? / positive(day)?)
        }
        "temp_vs_crit" => {
            let sensors = store
                .of("node_hwmon_temp_celsius")
                .filter_map(|(labels, s)| {
                    let (_, critical) = store
                        .of("node_hwmon_temp_crit_celsius")
                        .find(|(l, _)| *l == labels)?;
                    let critical = last(critical, at).filter(|c| (40.0..150.0).contains(c))?;
                    Some(last(s, at)? / critical)
                });
            let plain = |name: &str| gauge(name).map(|celsius| celsius / 100.0);
            let best = sensors
                .reduce(f64::max)
                .or_else(|| plain("node_hwmon_temp_celsius"));
            best.or_else(|| plain("node_thermal_zone_temp"))
        }
        "edac_ce" => long("node_edac_correctable_errors_total", 86_400.0),
        "edac_ue" => long("node_edac_uncorrectable_errors_total", 86_400.0),
        "clock_offset" => gauge("node_timex_offset_seconds").map(f64::abs),
        "clock_unsynced" => gauge("node_timex_sync_status").map(|synced| 1.0 - synced),
        "down_share" => {
            let inside = window(store.of("up").next()?.1, at, 900.0);
            Some(1.0 - inside.iter().map(|(_, up)| up).sum::<f64>() / inside.len() as f64)
        }
        "up_flaps" => Some(changes(store.of("up").next()?.1, at, 3600.0)),
        "reboots" => Some(changes(
            store.of("node_boot_time_seconds").next()?.1,
            at,
            86_400.0,
        )),
        "collectors_failed" => {
            let success = store.of("node_scrape_collector_success");
            Some(
                success
                    .filter_map(|(_, s)| last(s, at))
                    .map(|ok| 1.0 - ok)
                    .sum(),
            )
        }
        "net_latency_probe" => {
            let (_, samples) = store
                .of("probe_icmp_duration_seconds")
                .find(|(l, _)| l["phase"] == "rtt")?;
            let inside = window(samples, at, W);
            Some(inside.iter().map(|(_, v)| v).sum::<f64>() / inside.len() as f64)
        }
        "net_probe_loss" => {
            let inside = window(store.of("probe_success").next()?.1, at, W);
            Some(1.0 - inside.iter().map(|(_, v)| v).sum::<f64>() / inside.len() as f64)
        }
        "pod_restarts" => long("kube_pod_container_status_restarts_total", 3600.0),
        _ => None,
    }
}

/// Compares a fleet's columns with the slow reading every `check` seconds from `from` on.
fn compare(fleet: &mut Fleet, hours: f64, scrape: i64, from: i64, check: i64, only: &[&str]) {
    let columns = columns();
    let names: Vec<NodeName> = fleet.names().cloned().collect();
    let mut stores: Vec<Store> = names.iter().map(|_| Store::default()).collect();
    let pages = [Page::NodeExporter, Page::Probe];
    let mut compared: BTreeMap<String, usize> = BTreeMap::new();
    for step in 1..=(hours * 3600.0) as i64 / scrape {
        fleet.advance(second(step * scrape));
        for (name, store) in names.iter().zip(&mut stores) {
            store.scrape(fleet, name, &pages);
        }
        if step * scrape < from || step * scrape % check != 0 {
            continue;
        }
        let matrix = columns.matrix(fleet, fleet.now());
        for (row, store) in stores.iter().enumerate() {
            for (column, feature) in matrix.schema.features().iter().enumerate() {
                let name = feature.name.as_str();
                let Some(ours) = matrix
                    .value(row, column)
                    .filter(|_| only.is_empty() || only.contains(&name))
                else {
                    continue;
                };
                // A feature that is asked for more rarely is as old as the last time.
                let every = feature.every.map_or(1, |every| every.as_secs() as i64);
                let at = fleet.now().as_second().div_euclid(every) * every;
                let Some(theirs) = promql(store, name, at as f64) else {
                    continue;
                };
                let theirs = feature.possible(theirs).unwrap();
                let close = (ours - theirs).abs() <= 0.02 * theirs.abs() + 1e-9;
                assert!(
                    close,
                    "{name} of {} at {}: {ours}, PromQL says {theirs}",
                    names[row],
                    fleet.now()
                );
                *compared.entry(name.to_owned()).or_default() += 1;
            }
        }
    }
    for (name, count) in &compared {
        println!("{name}: {count}");
    }
    if only.is_empty() {
        assert!(compared.len() >= 35, "{compared:?}");
    } else {
        assert!(
            only.iter().all(|name| compared.contains_key(*name)),
            "{compared:?}"
        );
    }
}

#[test]
fn every_column_agrees_with_promql_on_sick_and_healthy_nodes() {
    let mut options = FleetOptions::new(13, 8, start());
    options.memory = Some(MemoryOptions::every(Duration::from_secs(30)));
    options.schedule = [
        "worker-01:memory-leak:at=66m:for=20m",
        "worker-02:slow-disk:at=66m:for=20m",
        "worker-03:packet-loss:at=66m:for=20m:severity=0.9",
        "worker-04:overheating:at=66m:for=20m",
        "worker-05:cpu-starvation:at=66m:for=20m",
        "worker-06:reboot-loop:at=66m:for=20m",
        "worker-07:lost-collector:at=66m:for=7m",
        "worker-08:vanished-exporter:at=66m:for=7m",
    ]
    .map(fault)
    .to_vec();
    let mut fleet = Fleet::new(options).unwrap();
    compare(&mut fleet, 1.6, 30, 3700, 150, &[]);
}

#[test]
fn windows_of_hours_and_a_day_agree_with_promql() {
    let mut options = FleetOptions::new(29, 1, start());
    options.tick = Duration::from_secs(30);
    options.memory = Some(MemoryOptions::every(Duration::from_secs(60)));
    options.schedule = vec![
        fault("worker-01:filling-filesystem:at=20h:for=5h"),
        fault("worker-01:reboot-loop:at=10h:for=15m:severity=0.4"),
    ];
    let mut fleet = Fleet::new(options).unwrap();
    let only = [
        "fs_in_24h",
        "ctx_vs_day",
        "reboots",
        "oom_kills",
        "mem_in_1h",
        "pod_restarts",
    ];
    compare(&mut fleet, 25.0, 60, 86_460, 300, &only);
}
