//! Healthy machines of all kinds, as a node_exporter would show them. The numbers are made here, without
//! any code of the simulated fleet.

use std::f64::consts::TAU;
use std::fmt::Write as _;

use jiff::Timestamp;

/// How many there are.
pub(super) const MACHINES: usize = 20;

/// What happens on one made machine. All numbers are this test's own.
pub(super) struct Machine {
    pub(super) name: String,
    cores: usize,
    memory: f64,
    /// Share of memory that is not available.
    used: f64,
    /// Share of CPU time that is neither idle nor iowait.
    cpu: f64,
    iowait: f64,
    steal: f64,
    /// Reads and writes a second, and seconds each takes.
    io: (f64, f64, f64),
    /// Packets a second.
    packets: f64,
    filesystem: f64,
    /// Celsius; no sensor where `None`.
    heat: Option<f64>,
    pressure: bool,
    conntrack: bool,
    synced: bool,
    swap: bool,
    /// Seconds since it booted, at second 0 of the test.
    up: f64,
    phase: f64,
}

/// What makes a machine special.
type Change = fn(&mut Machine);

/// Twenty machines of the kind that one meets, each with a name that says what is special about it.
pub(super) fn machines() -> Vec<Machine> {
    let kinds: [(&str, Change); MACHINES] = [
        ("plain-a", |_| {}),
        ("plain-b", |m| m.cores = 8),
        ("plain-c", |m| m.cpu = 0.22),
        ("busy", |m| m.cpu = 0.78),
        ("busier", |m| {
            m.cores = 32;
            m.cpu = 0.9;
        }),
        ("batch", |m| {
            m.cpu = 0.55;
            m.io = (220.0, 310.0, 0.004);
            m.iowait = 0.04;
        }),
        ("cache", |m| {
            m.memory = 256.0 * GIB;
            m.used = 0.9;
        }),
        ("java", |m| {
            m.used = 0.88;
            m.cpu = 0.35;
        }),
        ("small-vm", |m| {
            m.cores = 1;
            m.memory = 2.0 * GIB;
            m.used = 0.7;
            m.heat = None;
        }),
        ("cloud-vm", |m| {
            m.heat = None;
            m.steal = 0.01;
        }),
        ("old-kernel", |m| m.pressure = false),
        ("old-vm", |m| {
            m.pressure = false;
            m.heat = None;
            m.conntrack = false;
        }),
        ("no-ntp", |m| m.synced = false),
        ("no-ntp-vm", |m| {
            m.synced = false;
            m.heat = None;
        }),
        ("warm", |m| {
            m.heat = Some(71.0);
            m.cpu = 0.6;
        }),
        ("router", |m| {
            m.packets = 240_000.0;
            m.cpu = 0.3;
        }),
        ("spinning-disk", |m| {
            m.io = (35.0, 28.0, 0.009);
            m.iowait = 0.05;
        }),
        ("full-disk", |m| m.filesystem = 0.82),
        ("swapper", |m| {
            m.swap = true;
            m.used = 0.8;
        }),
        ("just-booted", |m| m.up = 40.0),
    ];
    let machine = |(n, (name, change)): (usize, &(&str, Change))| {
        let mut machine = Machine {
            name: format!("{name}-{n:02}"),
            cores: 4,
            memory: 16.0 * GIB,
            used: 0.35 + 0.02 * (n % 7) as f64,
            cpu: 0.1 + 0.015 * (n % 5) as f64,
            iowait: 0.004,
            steal: 0.0,
            io: (4.0 + n as f64, 12.0 + n as f64, 0.0011),
            packets: 900.0 + 130.0 * n as f64,
            filesystem: 0.3 + 0.02 * n as f64,
            heat: Some(44.0 + n as f64 * 0.5),
            pressure: true,
            conntrack: true,
            synced: true,
            swap: false,
            up: 1e6 + 77_000.0 * n as f64,
            phase: n as f64,
        };
        change(&mut machine);
        machine
    };
    kinds.iter().enumerate().map(machine).collect()
}

const GIB: f64 = 1_073_741_824.0;

impl Machine {
    /// A counter that grows by `rate` a second on average, unevenly, after `t` seconds.
    fn total(&self, rate: f64, t: f64, salt: f64) -> f64 {
        self.uneven(rate, 1.0, t, salt)
    }

    /// The same with waves of `scale`, at most 1.
    fn uneven(&self, rate: f64, scale: f64, t: f64, salt: f64) -> f64 {
        let mut sum = rate * (t + self.up);
        // Half a minute, five minutes and a day: work is not even, and each has its own time of day.
        for (period, share) in [(31.0, 0.25), (307.0, 0.2), (86_400.0, 0.25)] {
            let w = TAU / period;
            let phase = self.phase + salt;
            sum -= rate * scale * share / w * ((w * t + phase).cos() - (phase - w * self.up).cos());
        }
        sum.max(0.0)
    }

    /// A gauge around `mean`.
    fn around(&self, mean: f64, share: f64, t: f64, salt: f64) -> f64 {
        let waves = (TAU * t / 173.0 + self.phase + salt).sin() * 0.6
            + (TAU * t / 3571.0 + self.phase * 1.7 + salt).sin() * 0.4;
        mean * (1.0 + share * waves)
    }

    /// The page of its node_exporter, `t` seconds after the test's own beginning.
    pub(super) fn page(&self, t: f64, now: Timestamp) -> String {
        let mut page = String::with_capacity(16_384);
        let mut say = |name: &str, value: f64| {
            writeln!(page, "{name} {value}").expect("writing to a String cannot fail");
        };
        say(
            &format!(
                "node_uname_info{{machine=\"x86_64\",nodename=\"{}\",release=\"6.1.0\",sysname=\"Linux\"}}",
                self.name
            ),
            1.0,
        );
        let busy = [
            ("user", 0.68),
            ("system", 0.24),
            ("softirq", 0.06),
            ("irq", 0.02),
        ];
        // The waves leave some time idle also on the busiest machine.
        let all = self.cpu + self.iowait + self.steal;
        let scale = ((0.98 - all) / all / 0.7).clamp(0.0, 1.0);
        for core in 0..self.cores {
            let salt = core as f64 * 0.9;
            let mut spent = 0.0;
            for (mode, share) in busy {
                let seconds = self.uneven(self.cpu * share, scale, t, salt);
                spent += seconds;
                say(
                    &format!("node_cpu_seconds_total{{cpu=\"{core}\",mode=\"{mode}\"}}"),
                    seconds,
                );
            }
            for (mode, rate) in [
                ("iowait", self.iowait),
                ("steal", self.steal),
                ("nice", 0.0),
            ] {
                let seconds = self.uneven(rate, scale, t, salt);
                spent += seconds;
                say(
                    &format!("node_cpu_seconds_total{{cpu=\"{core}\",mode=\"{mode}\"}}"),
                    seconds,
                );
            }
            let idle = (t + self.up - spent).max(0.0);
            say(
                &format!("node_cpu_seconds_total{{cpu=\"{core}\",mode=\"idle\"}}"),
                idle,
            );
        }
        let cores = self.cores as f64;
        let load = self.around((self.cpu + self.iowait) * cores, 0.2, t, 0.3);
        for name in ["node_load1", "node_load5", "node_load15"] {
            say(name, (load * 100.0).round() / 100.0);
        }
        self.memory_and_disks(t, &mut say);
        self.network_and_kernel(t, now, &mut say);
        page
    }

    fn memory_and_disks(&self, t: f64, say: &mut impl FnMut(&str, f64)) {
        let used = self.around(self.used, 0.03, t, 1.1).min(0.96);
        say("node_memory_MemTotal_bytes", self.memory);
        say("node_memory_MemAvailable_bytes", (1.0 - used) * self.memory);
        say(
            "node_memory_MemFree_bytes",
            (1.0 - used) * 0.3 * self.memory,
        );
        say("node_memory_CommitLimit_bytes", 0.5 * self.memory);
        say("node_memory_Committed_AS_bytes", 0.7 * used * self.memory);
        say("node_memory_HardwareCorrupted_bytes", 0.0);
        let paged = if self.swap { 3.0 } else { 0.0 };
        say("node_vmstat_pswpin", self.total(paged, t, 0.0).floor());
        say(
            "node_vmstat_pswpout",
            self.total(paged * 0.5, t, 0.1).floor(),
        );
        say(
            "node_vmstat_pgmajfault",
            self.total(0.4 + paged, t, 0.2).floor(),
        );
        say("node_vmstat_oom_kill", 0.0);
        let (reads, writes, each) = self.io;
        for (device, share) in [("nvme0n1", 0.8), ("nvme1n1", 0.2)] {
            let mut disk = |name: &str, rate: f64| {
                let value = self.total(rate * share, t, 2.0);
                say(
                    &format!("node_disk_{name}_total{{device=\"{device}\"}}"),
                    value,
                );
            };
            disk("reads_completed", reads);
            disk("writes_completed", writes);
            disk("read_time_seconds", reads * each);
            disk("write_time_seconds", writes * each);
            disk("io_time_seconds", ((reads + writes) * each * 0.8).min(0.7));
            disk("io_time_weighted_seconds", (reads + writes) * each);
        }
        if self.pressure {
            let waiting = (self.cpu - 0.4).max(0.01) * 0.15;
            say(
                "node_pressure_cpu_waiting_seconds_total",
                self.total(waiting, t, 3.0),
            );
            say(
                "node_pressure_io_stalled_seconds_total",
                self.total(self.iowait * 0.6, t, 3.1),
            );
            say(
                "node_pressure_memory_stalled_seconds_total",
                self.total(0.0001, t, 3.2),
            );
        }
        for (device, mountpoint, size) in [
            ("/dev/nvme0n1p2", "/", 200.0),
            ("/dev/nvme1n1", "/data", 900.0),
        ] {
            let labels = format!(
                "{{device=\"{device}\",device_error=\"\",fstype=\"ext4\",mountpoint=\"{mountpoint}\"}}"
            );
            // It fills by a percent a day, and something tidies up every hour.
            let filled = self.filesystem + 0.01 * t / 86_400.0 + 0.001 * (t % 3600.0) / 3600.0;
            say(&format!("node_filesystem_size_bytes{labels}"), size * GIB);
            say(
                &format!("node_filesystem_avail_bytes{labels}"),
                (1.0 - filled) * size * GIB,
            );
            say(&format!("node_filesystem_files{labels}"), 1e7);
            say(&format!("node_filesystem_files_free{labels}"), 9e6);
            say(&format!("node_filesystem_readonly{labels}"), 0.0);
            say(&format!("node_filesystem_device_error{labels}"), 0.0);
        }
    }

    fn network_and_kernel(&self, t: f64, now: Timestamp, say: &mut impl FnMut(&str, f64)) {
        for direction in ["receive", "transmit"] {
            let mut link = |name: &str, rate: f64| {
                let value = self.total(rate, t, 4.0).floor();
                say(
                    &format!("node_network_{direction}_{name}_total{{device=\"ens3\"}}"),
                    value,
                );
            };
            link("packets", self.packets);
            link("errs", 0.0);
            link("drop", self.packets * 2e-6);
        }
        say("node_network_carrier_changes_total{device=\"ens3\"}", 1.0);
        say(
            "node_netstat_Tcp_OutSegs",
            self.total(self.packets * 0.7, t, 5.0).floor(),
        );
        say(
            "node_netstat_Tcp_RetransSegs",
            self.total(self.packets * 0.0006, t, 5.1).floor(),
        );
        say(
            "node_netstat_TcpExt_TCPTimeouts",
            self.total(self.packets * 0.00008, t, 5.2).floor(),
        );
        say("node_netstat_TcpExt_ListenOverflows", 0.0);
        say("node_softnet_dropped_total{cpu=\"0\"}", 0.0);
        if self.conntrack {
            say(
                "node_nf_conntrack_entries",
                self.around(4000.0, 0.2, t, 6.0).floor(),
            );
            say("node_nf_conntrack_entries_limit", 262_144.0);
        }
        say(
            "node_filefd_allocated",
            self.around(3500.0, 0.1, t, 6.1).floor(),
        );
        say("node_filefd_maximum", 1_600_000.0);
        say("node_entropy_available_bits", 256.0);
        say("node_entropy_pool_size_bits", 256.0);
        let blocked = (TAU * t / 47.0 + self.phase).sin() > 0.97 && self.iowait > 0.01;
        say("node_procs_blocked", f64::from(u8::from(blocked)));
        say(
            "node_context_switches_total",
            self.total(1500.0 + 9000.0 * self.cpu, t, 7.0).floor(),
        );
        let booted = now.as_second() as f64 - t - self.up;
        say("node_boot_time_seconds", booted.floor());
        if let Some(heat) = self.heat {
            let chip = "{chip=\"platform_coretemp_0\",sensor=\"temp1\"}";
            say(
                &format!("node_hwmon_temp_celsius{chip}"),
                self.around(heat, 0.05, t, 8.0),
            );
            say(&format!("node_hwmon_temp_crit_celsius{chip}"), 100.0);
        }
        say(
            "node_timex_offset_seconds",
            if self.synced { 0.0002 } else { 0.0 },
        );
        say("node_timex_sync_status", f64::from(u8::from(self.synced)));
        let mut collectors: Vec<(&str, bool)> = [
            "cpu",
            "loadavg",
            "meminfo",
            "vmstat",
            "diskstats",
            "filesystem",
            "netdev",
            "netstat",
            "softnet",
            "netclass",
            "filefd",
            "entropy",
            "stat",
            "timex",
        ]
        .map(|name| (name, true))
        .to_vec();
        collectors.extend([
            ("pressure", self.pressure),
            ("hwmon", self.heat.is_some()),
            ("conntrack", self.conntrack),
            // Switched on everywhere by default, with nothing to tell almost everywhere.
            ("bonding", false),
            ("infiniband", false),
        ]);
        for (collector, succeeded) in collectors {
            let name = format!("node_scrape_collector_success{{collector=\"{collector}\"}}");
            say(&name, f64::from(u8::from(succeeded)));
        }
    }
}
