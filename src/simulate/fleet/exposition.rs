//! The page that node_exporter 1.12 would serve for a Node: its metric names, types, help and labels,
//! in its order.
//!
//! Families that no feature and no dashboard of ours reads are left out; what is shown is as the
//! real exporter shows it. The pages of kubelet, kube-state-metrics and a prober are in `outside`.

use super::collector::{Collector, OTHERS};
use super::counters::{
    BOOT_CARRIER_CHANGES, DiskCounters, Gauges, InterfaceCounters, MODES, jiffies, microseconds,
    milliseconds, whole,
};
use super::hardware::{Hardware, Machine, Sensors, pages};
use super::node::SimulatedNode;
use super::text::{Kind, Page, single};

use Kind::{Counter, Gauge, Untyped};

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
    let mut page = Page::new(out);
    let page = &mut page;
    let shows = |collector| node.shows(collector);
    // In the order of the metric names, as Go's registry sorts them.
    if shows(Collector::Stat) {
        let boot = (node.boot_ms / 1000) as f64;
        single(
            page,
            "node_boot_time_seconds",
            Gauge,
            "Node boot time, in unixtime.",
            boot,
        );
        let switches = whole(node.counters.machine.context_switches);
        single(
            page,
            "node_context_switches_total",
            Counter,
            "Total number of context switches.",
            switches,
        );
    }
    if shows(Collector::Cpu) {
        cpu(node, page);
    }
    if shows(Collector::Diskstats) {
        disks(node, page);
    }
    if shows(Collector::Edac) {
        let machine = &node.counters.machine;
        page.family(
            "node_edac_correctable_errors_total",
            Counter,
            "Total correctable memory errors.",
        )
        .with(&[("controller", "0")], whole(machine.edac_correctable));
        page.family(
            "node_edac_uncorrectable_errors_total",
            Counter,
            "Total uncorrectable memory errors.",
        )
        .with(&[("controller", "0")], whole(machine.edac_uncorrectable));
    }
    if shows(Collector::Entropy) {
        single(
            page,
            "node_entropy_available_bits",
            Gauge,
            "Bits of available entropy.",
            node.gauges.entropy,
        );
        let pool = node.hardware.entropy_pool;
        single(
            page,
            "node_entropy_pool_size_bits",
            Gauge,
            "Bits of entropy pool.",
            pool,
        );
    }
    build_info(page);
    if shows(Collector::Filefd) {
        let (open, most) = (node.gauges.files_open, node.hardware.files_max);
        single(
            page,
            "node_filefd_allocated",
            Gauge,
            "File descriptor statistics: allocated.",
            open,
        );
        single(
            page,
            "node_filefd_maximum",
            Gauge,
            "File descriptor statistics: maximum.",
            most,
        );
    }
    if shows(Collector::Filesystem) {
        filesystems(node, page);
    }
    if shows(Collector::Stat) {
        single(
            page,
            "node_forks_total",
            Counter,
            "Total number of forks.",
            whole(node.counters.machine.forks),
        );
    }
    if shows(Collector::Hwmon) {
        hwmon(node, page);
    }
    if shows(Collector::Stat) {
        let interrupts = whole(node.counters.machine.interrupts);
        single(
            page,
            "node_intr_total",
            Counter,
            "Total number of interrupts serviced.",
            interrupts,
        );
    }
    if shows(Collector::Loadavg) {
        let hundredths = |x: f64| libm::round(x * 100.0) / 100.0;
        let gauges = &node.gauges;
        single(
            page,
            "node_load1",
            Gauge,
            "1m load average.",
            hundredths(gauges.load1),
        );
        single(
            page,
            "node_load15",
            Gauge,
            "15m load average.",
            hundredths(gauges.load15),
        );
        single(
            page,
            "node_load5",
            Gauge,
            "5m load average.",
            hundredths(gauges.load5),
        );
    }
    if shows(Collector::Mdadm) {
        page.family(
            "node_md_disks",
            Gauge,
            "Number of active/failed/spare disks of device.",
        );
        for (state, disks) in [("active", 2.0), ("failed", 0.0), ("spare", 0.0)] {
            page.with(&[("device", "md0"), ("state", state)], disks);
        }
        page.family(
            "node_md_disks_required",
            Gauge,
            "Total number of disks of device.",
        )
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
        let (used, most) = (node.gauges.connections, node.hardware.conntrack_max);
        let help = "Number of currently allocated flow entries for connection tracking.";
        single(page, "node_nf_conntrack_entries", Gauge, help, used);
        single(
            page,
            "node_nf_conntrack_entries_limit",
            Gauge,
            "Maximum size of connection tracking table.",
            most,
        );
    }
    if shows(Collector::Pressure) {
        pressure(node, page);
    }
    if shows(Collector::Stat) {
        let (blocked, running) = (node.gauges.blocked, node.gauges.running);
        let help = "Number of processes blocked waiting for I/O to complete.";
        single(page, "node_procs_blocked", Gauge, help, blocked);
        single(
            page,
            "node_procs_running",
            Gauge,
            "Number of processes in runnable state.",
            running,
        );
    }
    collectors(node, page);
    if shows(Collector::Softnet) {
        softnet(node, page);
    }
    if shows(Collector::ThermalZone) {
        page.family(
            "node_thermal_zone_temp",
            Gauge,
            "Zone temperature in Celsius",
        )
        .with(
            &[("type", "x86_pkg_temp"), ("zone", "0")],
            node.gauges.temperature,
        );
    }
    if shows(Collector::Time) {
        let help = "System time in seconds since epoch (1970).";
        single(page, "node_time_seconds", Gauge, help, now);
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

fn cpu(node: &SimulatedNode, page: &mut Page<'_>) {
    let n = node.hardware.cores;
    let names: Vec<String> = (0..n).map(|core| core.to_string()).collect();
    if shows_throttles(&node.hardware) {
        let help = "Number of times this CPU core has been throttled.";
        page.family("node_cpu_core_throttles_total", Counter, help);
        let total = whole(node.counters.machine.throttles);
        let each = libm::floor(total / n as f64);
        for (core, name) in names.iter().enumerate() {
            let count = if core == 0 {
                total - each * (n - 1) as f64
            } else {
                each
            };
            page.with(&[("core", name), ("package", "0")], count);
        }
    }
    page.family(
        "node_cpu_seconds_total",
        Counter,
        "Seconds the CPUs spent in each mode.",
    );
    for (core, name) in names.iter().enumerate() {
        for (mode, word) in MODES.iter().enumerate() {
            let seconds = jiffies(node.counters.cpu[mode * n + core]);
            page.with(&[("cpu", name), ("mode", word)], seconds);
        }
    }
}

/// A family of one disk each: name, type, help, and what of the counters it shows.
type DiskFamily = (&'static str, &'static str, fn(&DiskCounters) -> f64);

const DISK_FAMILIES: [DiskFamily; 10] = [
    (
        "node_disk_io_time_seconds_total",
        "Total seconds spent doing I/Os.",
        |d| milliseconds(d.io_time),
    ),
    (
        "node_disk_io_time_weighted_seconds_total",
        "The weighted # of seconds spent doing I/Os.",
        |d| milliseconds(d.io_weighted),
    ),
    (
        "node_disk_read_bytes_total",
        "The total number of bytes read successfully.",
        |d| whole(d.read_bytes),
    ),
    (
        "node_disk_read_time_seconds_total",
        "The total number of seconds spent by all reads.",
        |d| milliseconds(d.read_time),
    ),
    (
        "node_disk_reads_completed_total",
        "The total number of reads completed successfully.",
        |d| whole(d.reads),
    ),
    (
        "node_disk_reads_merged_total",
        "The total number of reads merged.",
        |d| whole(d.reads_merged),
    ),
    (
        "node_disk_write_time_seconds_total",
        "This is the total number of seconds spent by all writes.",
        |d| milliseconds(d.write_time),
    ),
    (
        "node_disk_writes_completed_total",
        "The total number of writes completed successfully.",
        |d| whole(d.writes),
    ),
    (
        "node_disk_writes_merged_total",
        "The number of writes merged.",
        |d| whole(d.writes_merged),
    ),
    (
        "node_disk_written_bytes_total",
        "The total number of bytes written successfully.",
        |d| whole(d.written_bytes),
    ),
];

fn disks(node: &SimulatedNode, page: &mut Page<'_>) {
    let names = || node.hardware.disks.iter().map(|disk| disk.name.as_str());
    page.family(
        "node_disk_io_now",
        Gauge,
        "The number of I/Os currently in progress.",
    );
    for (name, in_flight) in names().zip(&node.gauges.in_flight) {
        page.with(&[("device", name)], *in_flight);
    }
    for (family, help, read) in DISK_FAMILIES {
        page.family(family, Counter, help);
        for (name, counters) in names().zip(&node.counters.disks) {
            page.with(&[("device", name)], read(counters));
        }
    }
}

fn build_info(page: &mut Page<'_>) {
    page.family(
        "node_exporter_build_info",
        Gauge,
        "A metric with a constant '1' value labeled by version, revision, branch, goversion from which node_exporter was built, and the goos and goarch for the build.",
    )
    .with(
        &[
            ("branch", "HEAD"),
            ("goarch", "amd64"),
            ("goos", "linux"),
            ("goversion", "go1.26"),
            ("revision", "simulated"),
            ("tags", "unknown"),
            ("version", "1.12.1"),
        ],
        1.0,
    );
}

fn filesystems(node: &SimulatedNode, page: &mut Page<'_>) {
    let specs = &node.hardware.filesystems;
    let families: [(&'static str, &str, fn(&SimulatedNode, usize) -> f64); 7] = [
        (
            "node_filesystem_avail_bytes",
            "Filesystem space available to non-root users in bytes.",
            |node, i| node.gauges.filesystems[i].0,
        ),
        (
            "node_filesystem_device_error",
            "Whether an error occurred while getting statistics for the given device.",
            |_, _| 0.0,
        ),
        (
            "node_filesystem_files",
            "Filesystem total file nodes.",
            |node, i| node.hardware.filesystems[i].files,
        ),
        (
            "node_filesystem_files_free",
            "Filesystem total free file nodes.",
            |node, i| node.gauges.filesystems[i].1,
        ),
        (
            "node_filesystem_free_bytes",
            "Filesystem free space in bytes.",
            |node, i| {
                // The blocks reserved for root come on top.
                let reserved = pages(0.01 * node.hardware.filesystems[i].size);
                (node.gauges.filesystems[i].0 + reserved).min(node.hardware.filesystems[i].size)
            },
        ),
        (
            "node_filesystem_readonly",
            "Filesystem read-only status.",
            |node, i| {
                let spec = &node.hardware.filesystems[i];
                f64::from(u8::from(
                    spec.read_only || (i == 0 && node.gauges.read_only),
                ))
            },
        ),
        (
            "node_filesystem_size_bytes",
            "Filesystem size in bytes.",
            |node, i| node.hardware.filesystems[i].size,
        ),
    ];
    for (family, help, read) in families {
        page.family(family, Gauge, help);
        for (index, spec) in specs.iter().enumerate() {
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
    const CHIP: &str = "platform_coretemp_0";
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
    page.family(
        "node_hwmon_chip_names",
        Gauge,
        "Annotation metric for human-readable chip names",
    )
    .with(&[("chip", CHIP), ("chip_name", "coretemp")], 1.0);
    page.family(
        "node_hwmon_sensor_label",
        Gauge,
        "Label for given chip and sensor",
    );
    for (sensor, label, _) in sensors {
        page.with(&[("chip", CHIP), ("label", label), ("sensor", sensor)], 1.0);
    }
    page.family(
        "node_hwmon_temp_celsius",
        Gauge,
        "Hardware monitor for temperature (input)",
    );
    for (sensor, _, cooler) in sensors {
        let celsius = libm::round((node.gauges.temperature - cooler) * 10.0) / 10.0;
        page.with(&[("chip", CHIP), ("sensor", sensor)], celsius);
    }
    page.family(
        "node_hwmon_temp_crit_celsius",
        Gauge,
        "Hardware monitor for temperature (crit)",
    );
    for (sensor, _, _) in sensors {
        page.with(&[("chip", CHIP), ("sensor", sensor)], critical);
    }
}

type MemoryFamily = (&'static str, &'static str, fn(&Hardware, &Gauges) -> f64);

/// Buffers and reclaimable slab are fixed parts of what can be reclaimed, so that free memory,
/// buffers, cache and reclaimable slab add up to what is available.
fn buffers(gauges: &Gauges) -> f64 {
    pages(0.04 * gauges.memory_cache)
}

fn reclaimable_slab(gauges: &Gauges) -> f64 {
    pages(0.08 * gauges.memory_cache)
}

const MEMORY_FAMILIES: [MemoryFamily; 13] = [
    (
        "node_memory_AnonPages_bytes",
        "Memory information field AnonPages_bytes.",
        |_, g| pages(0.8 * g.memory_used),
    ),
    (
        "node_memory_Buffers_bytes",
        "Memory information field Buffers_bytes.",
        |_, g| buffers(g),
    ),
    (
        "node_memory_Cached_bytes",
        "Memory information field Cached_bytes.",
        |_, g| g.memory_cache - buffers(g) - reclaimable_slab(g),
    ),
    (
        "node_memory_CommitLimit_bytes",
        "Memory information field CommitLimit_bytes.",
        |h, _| commit_limit(h),
    ),
    (
        "node_memory_Committed_AS_bytes",
        "Memory information field Committed_AS_bytes.",
        |_, g| g.committed,
    ),
    (
        "node_memory_MemAvailable_bytes",
        "Memory information field MemAvailable_bytes.",
        |_, g| g.memory_available(),
    ),
    (
        "node_memory_MemFree_bytes",
        "Memory information field MemFree_bytes.",
        |_, g| g.memory_free,
    ),
    (
        "node_memory_MemTotal_bytes",
        "Memory information field MemTotal_bytes.",
        |h, _| h.memory,
    ),
    (
        "node_memory_SReclaimable_bytes",
        "Memory information field SReclaimable_bytes.",
        |_, g| reclaimable_slab(g),
    ),
    (
        "node_memory_SUnreclaim_bytes",
        "Memory information field SUnreclaim_bytes.",
        |_, g| pages(0.03 * g.memory_used),
    ),
    (
        "node_memory_Slab_bytes",
        "Memory information field Slab_bytes.",
        |_, g| reclaimable_slab(g) + pages(0.03 * g.memory_used),
    ),
    (
        "node_memory_SwapFree_bytes",
        "Memory information field SwapFree_bytes.",
        |h, g| h.swap - g.swap_used,
    ),
    (
        "node_memory_SwapTotal_bytes",
        "Memory information field SwapTotal_bytes.",
        |h, _| h.swap,
    ),
];

fn memory(node: &SimulatedNode, page: &mut Page<'_>) {
    for (name, help, read) in MEMORY_FAMILIES {
        // The kernel tells it where it can take broken memory out of use.
        if name == "node_memory_MemAvailable_bytes" && node.hardware.ecc {
            let help = "Memory information field HardwareCorrupted_bytes.";
            single(
                page,
                "node_memory_HardwareCorrupted_bytes",
                Gauge,
                help,
                0.0,
            );
        }
        single(page, name, Gauge, help, read(&node.hardware, &node.gauges));
    }
}

fn netstat(node: &SimulatedNode, page: &mut Page<'_>) {
    let m = &node.counters.machine;
    let interfaces = &node.counters.interfaces;
    let bytes = |read: fn(&InterfaceCounters) -> f64| whole(interfaces.iter().map(read).sum());
    for (name, help, value) in [
        (
            "node_netstat_IpExt_InOctets",
            "Statistic IpExtInOctets.",
            bytes(|i| i.rx_bytes),
        ),
        (
            "node_netstat_IpExt_OutOctets",
            "Statistic IpExtOutOctets.",
            bytes(|i| i.tx_bytes),
        ),
        (
            "node_netstat_TcpExt_ListenDrops",
            "Statistic TcpExtListenDrops.",
            whole(m.listen_overflows),
        ),
        (
            "node_netstat_TcpExt_ListenOverflows",
            "Statistic TcpExtListenOverflows.",
            whole(m.listen_overflows),
        ),
        (
            "node_netstat_TcpExt_TCPTimeouts",
            "Statistic TcpExtTCPTimeouts.",
            whole(m.tcp_timeouts),
        ),
        (
            "node_netstat_Tcp_ActiveOpens",
            "Statistic TcpActiveOpens.",
            whole(m.tcp_active_opens),
        ),
        (
            "node_netstat_Tcp_InSegs",
            "Statistic TcpInSegs.",
            whole(m.segments_in),
        ),
        (
            "node_netstat_Tcp_OutSegs",
            "Statistic TcpOutSegs.",
            whole(m.segments_out),
        ),
        (
            "node_netstat_Tcp_PassiveOpens",
            "Statistic TcpPassiveOpens.",
            whole(m.tcp_passive_opens),
        ),
        (
            "node_netstat_Tcp_RetransSegs",
            "Statistic TcpRetransSegs.",
            whole(m.segments_retransmitted),
        ),
    ] {
        single(page, name, Untyped, help, value);
    }
}

type InterfaceFamily = (&'static str, &'static str, fn(&InterfaceCounters) -> f64);

const RECEIVED: [InterfaceFamily; 4] = [
    (
        "node_network_receive_bytes_total",
        "Network device statistic receive_bytes.",
        |i| i.rx_bytes,
    ),
    (
        "node_network_receive_drop_total",
        "Network device statistic receive_drop.",
        |i| i.rx_drops,
    ),
    (
        "node_network_receive_errs_total",
        "Network device statistic receive_errs.",
        |i| i.rx_errors,
    ),
    (
        "node_network_receive_packets_total",
        "Network device statistic receive_packets.",
        |i| i.rx_packets,
    ),
];

const TRANSMITTED: [InterfaceFamily; 4] = [
    (
        "node_network_transmit_bytes_total",
        "Network device statistic transmit_bytes.",
        |i| i.tx_bytes,
    ),
    (
        "node_network_transmit_drop_total",
        "Network device statistic transmit_drop.",
        |i| i.tx_drops,
    ),
    (
        "node_network_transmit_errs_total",
        "Network device statistic transmit_errs.",
        |i| i.tx_errors,
    ),
    (
        "node_network_transmit_packets_total",
        "Network device statistic transmit_packets.",
        |i| i.tx_packets,
    ),
];

fn network(node: &SimulatedNode, page: &mut Page<'_>) {
    let names = || node.hardware.interfaces.iter().map(String::as_str);
    let (class, device) = (
        node.shows(Collector::Netclass),
        node.shows(Collector::Netdev),
    );
    if class {
        let help = "Network device property: carrier_changes_total";
        page.family("node_network_carrier_changes_total", Counter, help);
        for (name, counters) in names().zip(&node.counters.interfaces) {
            let changes = BOOT_CARRIER_CHANGES + whole(counters.carrier_changes);
            page.with(&[("device", name)], changes);
        }
    }
    let traffic = |page: &mut Page<'_>, families: [InterfaceFamily; 4]| {
        for (family, help, read) in families {
            page.family(family, Counter, help);
            for (name, counters) in names().zip(&node.counters.interfaces) {
                page.with(&[("device", name)], whole(read(counters)));
            }
            // The loopback interface talks as much as the machine does to others, and never fails.
            let local = match family.rsplit('_').nth(1) {
                Some("bytes") => 0.3 * node.counters.interfaces[0].tx_bytes,
                Some("packets") => 0.3 * node.counters.interfaces[0].tx_packets,
                _ => 0.0,
            };
            page.with(&[("device", "lo")], whole(local));
        }
    };
    if device {
        traffic(page, RECEIVED);
    }
    if class && node.hardware.machine == Machine::Metal {
        page.family(
            "node_network_speed_bytes",
            Gauge,
            "Network device property: speed_bytes",
        );
        for name in names() {
            page.with(&[("device", name)], 1.25e9);
        }
    }
    if device {
        traffic(page, TRANSMITTED);
    }
    if class {
        page.family(
            "node_network_up",
            Gauge,
            "Value is 1 if operstate is 'up', 0 otherwise.",
        );
        for name in names() {
            page.with(&[("device", name)], 1.0);
        }
    }
}

fn pressure(node: &SimulatedNode, page: &mut Page<'_>) {
    let m = &node.counters.machine;
    for (name, help, seconds) in [
        (
            "node_pressure_cpu_waiting_seconds_total",
            "Total time in seconds that processes have waited for CPU time",
            m.psi_cpu_waiting,
        ),
        (
            "node_pressure_io_stalled_seconds_total",
            "Total time in seconds no process could make progress due to IO congestion",
            m.psi_io_stalled,
        ),
        (
            "node_pressure_io_waiting_seconds_total",
            "Total time in seconds that processes have waited due to IO congestion",
            m.psi_io_waiting,
        ),
        (
            "node_pressure_memory_stalled_seconds_total",
            "Total time in seconds no process could make progress due to memory congestion",
            m.psi_memory_stalled,
        ),
        (
            "node_pressure_memory_waiting_seconds_total",
            "Total time in seconds that processes have waited for memory",
            m.psi_memory_waiting,
        ),
    ] {
        single(page, name, Counter, help, microseconds(seconds));
    }
}

/// Success and duration of every collector, in the order of their names.
fn collectors(node: &SimulatedNode, page: &mut Page<'_>) {
    let mut list: Vec<(&str, bool)> = Collector::ALL
        .into_iter()
        .map(|collector| (collector.as_str(), node.shows(collector)))
        .chain(
            OTHERS
                .into_iter()
                .map(|name| (name, !node.hardware.absent_others.contains(&name))),
        )
        .collect();
    list.sort_unstable();
    let help = "node_exporter: Duration of a collector scrape.";
    page.family("node_scrape_collector_duration_seconds", Gauge, help);
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
    let help = "node_exporter: Whether a collector succeeded.";
    page.family("node_scrape_collector_success", Gauge, help);
    for (name, success) in list {
        page.with(&[("collector", name)], f64::from(u8::from(success)));
    }
}

fn softnet(node: &SimulatedNode, page: &mut Page<'_>) {
    let m = &node.counters.machine;
    let n = node.hardware.cores;
    let names: Vec<String> = (0..n).map(|core| core.to_string()).collect();
    for (family, help, total, spread) in [
        (
            "node_softnet_dropped_total",
            "Number of dropped packets",
            m.softnet_dropped,
            false,
        ),
        (
            "node_softnet_processed_total",
            "Number of processed packets",
            m.softnet_processed,
            true,
        ),
        (
            "node_softnet_times_squeezed_total",
            "Number of times processing packets ran out of quota",
            m.softnet_squeezed,
            false,
        ),
    ] {
        page.family(family, Counter, help);
        for (core, name) in names.iter().enumerate() {
            // Drops happen where the interrupts arrive.
            let share = match (spread, core) {
                (true, _) => total / n as f64,
                (false, 0) => total,
                (false, _) => 0.0,
            };
            page.with(&[("cpu", name)], whole(share));
        }
    }
}

fn timex(node: &SimulatedNode, page: &mut Page<'_>) {
    let synced = node.hardware.clock_synced;
    let error = if synced {
        node.gauges.clock_offset.abs() + 0.000_5
    } else {
        16.0
    };
    let help = "Estimated error in seconds.";
    single(
        page,
        "node_timex_estimated_error_seconds",
        Gauge,
        help,
        error,
    );
    let help = "Maximum error in seconds.";
    single(
        page,
        "node_timex_maxerror_seconds",
        Gauge,
        help,
        error.max(0.02),
    );
    let help = "Time offset in between local system and reference clock.";
    single(
        page,
        "node_timex_offset_seconds",
        Gauge,
        help,
        node.gauges.clock_offset,
    );
    let help = "Is clock synchronized to a reliable server (1 = yes, 0 = no).";
    single(
        page,
        "node_timex_sync_status",
        Gauge,
        help,
        f64::from(u8::from(synced)),
    );
}

fn uname(node: &SimulatedNode, page: &mut Page<'_>) {
    let help = "Labeled system information as provided by the uname system call.";
    page.family("node_uname_info", Gauge, help).with(
        &[
            ("domainname", "(none)"),
            ("machine", "x86_64"),
            ("nodename", node.name.as_str()),
            ("release", node.hardware.kernel),
            ("sysname", "Linux"),
            ("version", "#1 SMP PREEMPT_DYNAMIC"),
        ],
        1.0,
    );
}

fn vmstat(node: &SimulatedNode, page: &mut Page<'_>) {
    let m = &node.counters.machine;
    let kib = |read: fn(&DiskCounters) -> f64| {
        whole(node.counters.disks.iter().map(read).sum::<f64>() / 1024.0)
    };
    for (name, help, value) in [
        (
            "node_vmstat_oom_kill",
            "/proc/vmstat information field oom_kill.",
            whole(m.oom_kills),
        ),
        (
            "node_vmstat_pgfault",
            "/proc/vmstat information field pgfault.",
            whole(m.faults),
        ),
        (
            "node_vmstat_pgmajfault",
            "/proc/vmstat information field pgmajfault.",
            whole(m.major_faults),
        ),
        (
            "node_vmstat_pgpgin",
            "/proc/vmstat information field pgpgin.",
            kib(|d| d.read_bytes),
        ),
        (
            "node_vmstat_pgpgout",
            "/proc/vmstat information field pgpgout.",
            kib(|d| d.written_bytes),
        ),
        (
            "node_vmstat_pswpin",
            "/proc/vmstat information field pswpin.",
            whole(m.swapped_in),
        ),
        (
            "node_vmstat_pswpout",
            "/proc/vmstat information field pswpout.",
            whole(m.swapped_out),
        ),
    ] {
        single(page, name, Untyped, help, value);
    }
}
