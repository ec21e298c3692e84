//! The page that node_exporter 1.12 would serve for a Node: its metric names, types, help and labels,
//! in its order.
//!
//! Families that no feature and no dashboard of ours reads are left out; what is shown is as the
//! real exporter shows it. The pages of kubelet, kube-state-metrics and a prober are in `outside`.

use super::collector::{Collector, OTHERS};
use super::counters::{
    BOOT_CARRIER_CHANGES, DiskCounters, InterfaceCounters, MODES, jiffies, microseconds,
    milliseconds, whole,
};
use super::hardware::{Hardware, Machine, Sensors, pages};
use super::node::SimulatedNode;
use super::text::Page;

/// Bytes that may be committed with the kernel's defaults: swap and half of memory.
pub(super) fn commit_limit(hardware: &Hardware) -> f64 {
    hardware.swap + pages(hardware.memory / 2.0)
}

/// Whether the CPU tells when it throttles: real machines only.
pub(super) fn shows_throttles(hardware: &Hardware) -> bool {
    hardware.machine == Machine::Metal
}

/// Writes the page of a Node whose exporter answers; `now` is the system time in seconds.
pub(super) fn node_exporter(node: &SimulatedNode, now: f64, out: &mut String) {
    let page = &mut Page::new(out);
    let (gauges, hardware) = (&node.gauges, &node.hardware);
    let machine = &node.counters.machine;
    let shows = |collector| node.shows(collector);
    // In the order of the metric names, as Go's registry sorts them.
    if shows(Collector::Stat) {
        page.single("node_boot_time_seconds", (node.boot_ms / 1000) as f64);
        page.single(
            "node_context_switches_total",
            whole(machine.context_switches),
        );
    }
    if shows(Collector::Cpu) {
        cpu(node, page);
    }
    if shows(Collector::Diskstats) {
        disks(node, page);
    }
    if shows(Collector::Edac) {
        let controller = [("controller", "0")];
        page.family("node_edac_correctable_errors_total");
        page.with(&controller, whole(machine.edac_correctable));
        page.family("node_edac_uncorrectable_errors_total");
        page.with(&controller, whole(machine.edac_uncorrectable));
    }
    if shows(Collector::Entropy) {
        page.single("node_entropy_available_bits", gauges.entropy);
        page.single("node_entropy_pool_size_bits", hardware.entropy_pool);
    }
    build_info(page);
    if shows(Collector::Filefd) {
        page.single("node_filefd_allocated", gauges.files_open);
        page.single("node_filefd_maximum", hardware.files_max);
    }
    if shows(Collector::Filesystem) {
        filesystems(node, page);
    }
    if shows(Collector::Stat) {
        page.single("node_forks_total", whole(machine.forks));
    }
    if shows(Collector::Hwmon) {
        hwmon(node, page);
    }
    if shows(Collector::Stat) {
        page.single("node_intr_total", whole(machine.interrupts));
    }
    if shows(Collector::Loadavg) {
        let hundredths = |load: f64| libm::round(load * 100.0) / 100.0;
        page.single("node_load1", hundredths(gauges.load1));
        page.single("node_load15", hundredths(gauges.load15));
        page.single("node_load5", hundredths(gauges.load5));
    }
    if shows(Collector::Mdadm) {
        page.family("node_md_disks");
        for (state, disks) in [("active", 2.0), ("failed", 0.0), ("spare", 0.0)] {
            page.with(&[("device", "md0"), ("state", state)], disks);
        }
        page.family("node_md_disks_required")
            .with(&[("device", "md0")], 2.0);
    }
    if shows(Collector::Meminfo) {
        memory(node, page);
    }
    if shows(Collector::Netstat) {
        netstat(node, page);
    }
    network(node, page);
    if shows(Collector::Conntrack) {
        page.single("node_nf_conntrack_entries", gauges.connections);
        page.single("node_nf_conntrack_entries_limit", hardware.conntrack_max);
    }
    if shows(Collector::Pressure) {
        pressure(node, page);
    }
    if shows(Collector::Stat) {
        page.single("node_procs_blocked", gauges.blocked);
        page.single("node_procs_running", gauges.running);
    }
    collectors(node, page);
    if shows(Collector::Softnet) {
        softnet(node, page);
    }
    if shows(Collector::ThermalZone) {
        let zone = [("type", "x86_pkg_temp"), ("zone", "0")];
        page.family("node_thermal_zone_temp")
            .with(&zone, gauges.temperature);
    }
    if shows(Collector::Time) {
        page.single("node_time_seconds", now);
    }
    if shows(Collector::Timex) {
        timex(node, page);
    }
    if shows(Collector::Uname) {
        uname(node, page);
    }
    if shows(Collector::Vmstat) {
        vmstat(node, page);
    }
}

fn core_names(hardware: &Hardware) -> Vec<String> {
    (0..hardware.cores).map(|core| core.to_string()).collect()
}

fn cpu(node: &SimulatedNode, page: &mut Page<'_>) {
    let n = node.hardware.cores;
    let names = core_names(&node.hardware);
    if shows_throttles(&node.hardware) {
        page.family("node_cpu_core_throttles_total");
        let total = whole(node.counters.machine.throttles);
        for (core, name) in names.iter().enumerate() {
            // One after the other, so that no core's count ever falls.
            let count = libm::floor((total + (n - 1 - core) as f64) / n as f64);
            page.with(&[("core", name), ("package", "0")], count);
        }
    }
    page.family("node_cpu_seconds_total");
    for (core, name) in names.iter().enumerate() {
        for (mode, word) in MODES.iter().enumerate() {
            let seconds = jiffies(node.counters.cpu[mode * n + core]);
            page.with(&[("cpu", name), ("mode", word)], seconds);
        }
    }
}

/// What a family shows of each disk.
type OfDisk = (&'static str, fn(&DiskCounters) -> f64);

const OF_DISKS: [OfDisk; 10] = [
    ("node_disk_io_time_seconds_total", |d| {
        milliseconds(d.io_time)
    }),
    ("node_disk_io_time_weighted_seconds_total", |d| {
        milliseconds(d.io_weighted)
    }),
    ("node_disk_read_bytes_total", |d| whole(d.read_bytes)),
    ("node_disk_read_time_seconds_total", |d| {
        milliseconds(d.read_time)
    }),
    ("node_disk_reads_completed_total", |d| whole(d.reads)),
    ("node_disk_reads_merged_total", |d| whole(d.reads_merged)),
    ("node_disk_write_time_seconds_total", |d| {
        milliseconds(d.write_time)
    }),
    ("node_disk_writes_completed_total", |d| whole(d.writes)),
    ("node_disk_writes_merged_total", |d| whole(d.writes_merged)),
    ("node_disk_written_bytes_total", |d| whole(d.written_bytes)),
];

fn disks(node: &SimulatedNode, page: &mut Page<'_>) {
    let names = || node.hardware.disks.iter().map(|disk| disk.name.as_str());
    page.family("node_disk_io_now");
    for (name, in_flight) in names().zip(&node.gauges.in_flight) {
        page.with(&[("device", name)], *in_flight);
    }
    for (family, read) in OF_DISKS {
        page.family(family);
        for (name, counters) in names().zip(&node.counters.disks) {
            page.with(&[("device", name)], read(counters));
        }
    }
}

/// The version of node_exporter that the pages are modelled on.
pub(crate) const EXPORTER_VERSION: &str = "1.12.1";

fn build_info(page: &mut Page<'_>) {
    let labels = [
        ("branch", "HEAD"),
        ("goarch", "amd64"),
        ("goos", "linux"),
        ("goversion", "go1.26"),
        ("revision", "simulated"),
        ("tags", "unknown"),
        ("version", EXPORTER_VERSION),
    ];
    page.family("node_exporter_build_info").with(&labels, 1.0);
}

/// What a family shows of each filesystem, by its place.
type OfFilesystem = (&'static str, fn(&SimulatedNode, usize) -> f64);

const OF_FILESYSTEMS: [OfFilesystem; 7] = [
    ("node_filesystem_avail_bytes", |node, i| {
        node.gauges.filesystems[i].0
    }),
    ("node_filesystem_device_error", |_, _| 0.0),
    ("node_filesystem_files", |node, i| {
        node.hardware.filesystems[i].files
    }),
    ("node_filesystem_files_free", |node, i| {
        node.gauges.filesystems[i].1
    }),
    ("node_filesystem_free_bytes", |node, i| {
        // The blocks reserved for root come on top.
        let size = node.hardware.filesystems[i].size;
        (node.gauges.filesystems[i].0 + pages(0.01 * size)).min(size)
    }),
    ("node_filesystem_readonly", |node, i| {
        let on_purpose = node.hardware.filesystems[i].read_only;
        f64::from(u8::from(on_purpose || (i == 0 && node.gauges.read_only)))
    }),
    ("node_filesystem_size_bytes", |node, i| {
        node.hardware.filesystems[i].size
    }),
];

fn filesystems(node: &SimulatedNode, page: &mut Page<'_>) {
    for (family, read) in OF_FILESYSTEMS {
        page.family(family);
        for (index, spec) in node.hardware.filesystems.iter().enumerate() {
            let labels = [
                ("device", spec.device.as_str()),
                ("device_error", ""),
                ("fstype", spec.fstype),
                ("mountpoint", spec.mountpoint),
            ];
            page.with(&labels, read(node, index));
        }
    }
}

fn hwmon(node: &SimulatedNode, page: &mut Page<'_>) {
    const CHIP: (&str, &str) = ("chip", "platform_coretemp_0");
    let critical = match node.hardware.sensors {
        Sensors::HwmonCritical(critical) => critical,
        Sensors::HwmonPlain | Sensors::ThermalZone | Sensors::None => 0.0,
    };
    // The package is the hottest; a core or two are told besides.
    let sensors = [
        ("temp1", "Package id 0", 0.0),
        ("temp2", "Core 0", 2.0),
        ("temp3", "Core 1", 3.0),
    ];
    page.family("node_hwmon_chip_names")
        .with(&[CHIP, ("chip_name", "coretemp")], 1.0);
    page.family("node_hwmon_sensor_label");
    for (sensor, label, _) in sensors {
        page.with(&[CHIP, ("label", label), ("sensor", sensor)], 1.0);
    }
    page.family("node_hwmon_temp_celsius");
    for (sensor, _, cooler) in sensors {
        let celsius = libm::round((node.gauges.temperature - cooler) * 10.0) / 10.0;
        page.with(&[CHIP, ("sensor", sensor)], celsius);
    }
    page.family("node_hwmon_temp_crit_celsius");
    for (sensor, _, _) in sensors {
        page.with(&[CHIP, ("sensor", sensor)], critical);
    }
}

/// Free memory, buffers, cache and reclaimable slab add up to what is available.
fn memory(node: &SimulatedNode, page: &mut Page<'_>) {
    let (gauges, hardware) = (&node.gauges, &node.hardware);
    let (cache, used) = (gauges.memory_cache, gauges.memory_used);
    let (buffers, reclaimable) = (pages(0.04 * cache), pages(0.08 * cache));
    let unreclaimable = pages(0.03 * used);
    page.single("node_memory_AnonPages_bytes", pages(0.8 * used));
    page.single("node_memory_Buffers_bytes", buffers);
    page.single("node_memory_Cached_bytes", cache - buffers - reclaimable);
    page.single("node_memory_CommitLimit_bytes", commit_limit(hardware));
    page.single("node_memory_Committed_AS_bytes", gauges.committed);
    if hardware.ecc {
        // The kernel tells it where it can take broken memory out of use.
        page.single("node_memory_HardwareCorrupted_bytes", 0.0);
    }
    page.single("node_memory_MemAvailable_bytes", gauges.memory_available());
    page.single("node_memory_MemFree_bytes", gauges.memory_free);
    page.single("node_memory_MemTotal_bytes", hardware.memory);
    page.single("node_memory_SReclaimable_bytes", reclaimable);
    page.single("node_memory_SUnreclaim_bytes", unreclaimable);
    page.single("node_memory_Slab_bytes", reclaimable + unreclaimable);
    page.single(
        "node_memory_SwapFree_bytes",
        hardware.swap - gauges.swap_used,
    );
    page.single("node_memory_SwapTotal_bytes", hardware.swap);
}

fn netstat(node: &SimulatedNode, page: &mut Page<'_>) {
    let m = &node.counters.machine;
    let interfaces = &node.counters.interfaces;
    let bytes = |read: fn(&InterfaceCounters) -> f64| whole(interfaces.iter().map(read).sum());
    page.single("node_netstat_IpExt_InOctets", bytes(|i| i.rx_bytes));
    page.single("node_netstat_IpExt_OutOctets", bytes(|i| i.tx_bytes));
    page.single("node_netstat_TcpExt_ListenDrops", whole(m.listen_overflows));
    page.single(
        "node_netstat_TcpExt_ListenOverflows",
        whole(m.listen_overflows),
    );
    page.single("node_netstat_TcpExt_TCPTimeouts", whole(m.tcp_timeouts));
    page.single("node_netstat_Tcp_ActiveOpens", whole(m.tcp_active_opens));
    page.single("node_netstat_Tcp_InSegs", whole(m.segments_in));
    page.single("node_netstat_Tcp_OutSegs", whole(m.segments_out));
    page.single("node_netstat_Tcp_PassiveOpens", whole(m.tcp_passive_opens));
    page.single(
        "node_netstat_Tcp_RetransSegs",
        whole(m.segments_retransmitted),
    );
}

/// What a family shows of each interface, and of the loopback one.
type OfInterface = (&'static str, fn(&InterfaceCounters) -> f64, f64);

/// The loopback interface talks as much to the machine as this share of what the first one sends.
const LOOPBACK: f64 = 0.3;

const RECEIVED: [OfInterface; 4] = [
    ("node_network_receive_bytes_total", |i| i.rx_bytes, LOOPBACK),
    ("node_network_receive_drop_total", |i| i.rx_drops, 0.0),
    ("node_network_receive_errs_total", |i| i.rx_errors, 0.0),
    (
        "node_network_receive_packets_total",
        |i| i.rx_packets,
        LOOPBACK,
    ),
];

const TRANSMITTED: [OfInterface; 4] = [
    (
        "node_network_transmit_bytes_total",
        |i| i.tx_bytes,
        LOOPBACK,
    ),
    ("node_network_transmit_drop_total", |i| i.tx_drops, 0.0),
    ("node_network_transmit_errs_total", |i| i.tx_errors, 0.0),
    (
        "node_network_transmit_packets_total",
        |i| i.tx_packets,
        LOOPBACK,
    ),
];

fn network(node: &SimulatedNode, page: &mut Page<'_>) {
    let interfaces = || {
        let names = node.hardware.interfaces.iter().map(String::as_str);
        names.zip(&node.counters.interfaces)
    };
    let traffic = |page: &mut Page<'_>, families: [OfInterface; 4]| {
        for (family, read, local) in families {
            page.family(family);
            for (name, counters) in interfaces() {
                page.with(&[("device", name)], whole(read(counters)));
            }
            let local = whole(local * read(&node.counters.interfaces[0]));
            page.with(&[("device", "lo")], local);
        }
    };
    let (class, device) = (
        node.shows(Collector::Netclass),
        node.shows(Collector::Netdev),
    );
    if class {
        page.family("node_network_carrier_changes_total");
        for (name, counters) in interfaces() {
            let changes = BOOT_CARRIER_CHANGES + whole(counters.carrier_changes);
            page.with(&[("device", name)], changes);
        }
    }
    if device {
        traffic(page, RECEIVED);
    }
    if class && node.hardware.machine == Machine::Metal {
        page.family("node_network_speed_bytes");
        for (name, _) in interfaces() {
            page.with(&[("device", name)], 1.25e9);
        }
    }
    if device {
        traffic(page, TRANSMITTED);
    }
    if class {
        page.family("node_network_up");
        for (name, _) in interfaces() {
            page.with(&[("device", name)], 1.0);
        }
    }
}

fn pressure(node: &SimulatedNode, page: &mut Page<'_>) {
    let m = &node.counters.machine;
    for (name, seconds) in [
        ("node_pressure_cpu_waiting_seconds_total", m.psi_cpu_waiting),
        ("node_pressure_io_stalled_seconds_total", m.psi_io_stalled),
        ("node_pressure_io_waiting_seconds_total", m.psi_io_waiting),
        (
            "node_pressure_memory_stalled_seconds_total",
            m.psi_memory_stalled,
        ),
        (
            "node_pressure_memory_waiting_seconds_total",
            m.psi_memory_waiting,
        ),
    ] {
        page.single(name, microseconds(seconds));
    }
}

/// Success and duration of every collector, in the order of their names.
fn collectors(node: &SimulatedNode, page: &mut Page<'_>) {
    let simulated = Collector::ALL.into_iter();
    let absent = &node.hardware.absent_others;
    let mut list: Vec<(&str, bool)> = simulated
        .map(|collector| (collector.as_str(), node.shows(collector)))
        .chain(
            OTHERS
                .into_iter()
                .map(|name| (name, !absent.contains(&name))),
        )
        .collect();
    list.sort_unstable();
    page.family("node_scrape_collector_duration_seconds");
    // They run at the same time; the slowest, cpu, takes most of the scrape.
    for (place, (name, success)) in list.iter().enumerate() {
        let part = if *name == "cpu" {
            0.8
        } else {
            0.02 + 0.004 * (place % 13) as f64
        };
        let seconds = if *success {
            part * node.gauges.scrape_seconds
        } else {
            2.5e-5
        };
        page.with(&[("collector", name)], libm::round(seconds * 1e9) / 1e9);
    }
    page.family("node_scrape_collector_success");
    for (name, success) in list {
        page.with(&[("collector", name)], f64::from(u8::from(success)));
    }
}

fn softnet(node: &SimulatedNode, page: &mut Page<'_>) {
    let m = &node.counters.machine;
    let names = core_names(&node.hardware);
    for (family, total, spread) in [
        ("node_softnet_dropped_total", m.softnet_dropped, false),
        ("node_softnet_processed_total", m.softnet_processed, true),
        (
            "node_softnet_times_squeezed_total",
            m.softnet_squeezed,
            false,
        ),
    ] {
        page.family(family);
        for (core, name) in names.iter().enumerate() {
            // Drops happen where the interrupts arrive.
            let share = match (spread, core) {
                (true, _) => total / names.len() as f64,
                (false, 0) => total,
                (false, _) => 0.0,
            };
            page.with(&[("cpu", name)], whole(share));
        }
    }
}

fn timex(node: &SimulatedNode, page: &mut Page<'_>) {
    let synced = node.hardware.clock_synced;
    let offset = node.gauges.clock_offset;
    // A clock that nobody synchronises says 16 s, the kernel's highest.
    let error = if synced { offset.abs() + 0.000_5 } else { 16.0 };
    page.single("node_timex_estimated_error_seconds", error);
    page.single("node_timex_maxerror_seconds", error.max(0.02));
    page.single("node_timex_offset_seconds", offset);
    page.single("node_timex_sync_status", f64::from(u8::from(synced)));
}

fn uname(node: &SimulatedNode, page: &mut Page<'_>) {
    let labels = [
        ("domainname", "(none)"),
        ("machine", "x86_64"),
        ("nodename", node.name.as_str()),
        ("release", node.hardware.kernel),
        ("sysname", "Linux"),
        ("version", "#1 SMP PREEMPT_DYNAMIC"),
    ];
    page.family("node_uname_info").with(&labels, 1.0);
}

fn vmstat(node: &SimulatedNode, page: &mut Page<'_>) {
    let m = &node.counters.machine;
    let disks = &node.counters.disks;
    let kib = |read: fn(&DiskCounters) -> f64| whole(disks.iter().map(read).sum::<f64>() / 1024.0);
    page.single("node_vmstat_oom_kill", whole(m.oom_kills));
    page.single("node_vmstat_pgfault", whole(m.faults));
    page.single("node_vmstat_pgmajfault", whole(m.major_faults));
    page.single("node_vmstat_pgpgin", kib(|d| d.read_bytes));
    page.single("node_vmstat_pgpgout", kib(|d| d.written_bytes));
    page.single("node_vmstat_pswpin", whole(m.swapped_in));
    page.single("node_vmstat_pswpout", whole(m.swapped_out));
}
