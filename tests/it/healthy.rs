//! Healthy machines that the model has never met stay healthy: a real node_exporter, idle and at work,
//! and exporters whose numbers are made here, without any code of the simulated fleet.

use std::f64::consts::TAU;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use foreshock::features::{
    FeatureMatrix, FeatureName, History, NodeDirectory, Schema, Telemetry, Usual, derive, grid,
};
use foreshock::model::loaded::Model;
use foreshock::model::scorer::Scorer;
use foreshock::prometheus::{PrometheusOptions as Options, PrometheusTelemetry};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::support::node_exporter::NodeExporter;
use crate::support::prometheus::{Prometheus, PrometheusOptions};
use crate::support::server::Workdir;
use crate::support::target::Targets;
use crate::support::{init, wait_until};

/// Below this a Node is healthy: `policy.caution`.
const CAUTION: f64 = 0.5;
/// How many exporters are made here.
const MACHINES: usize = 20;

/// The built-in model, over the features of some jobs of a Prometheus.
struct Judge {
    name: &'static str,
    telemetry: PrometheusTelemetry,
    model: Model,
    evaluations: usize,
    highest: (f64, String),
    wrong: Vec<String>,
}

impl Judge {
    fn new(name: &'static str, prometheus: &Prometheus, job: &str, rate_window: u64) -> Self {
        let schema = Arc::new(Schema::built_in());
        let options = Options {
            url: prometheus.url().to_owned(),
            selector: format!("job=\"{job}\""),
            rate_window: Duration::from_secs(rate_window),
            ..Options::default()
        };
        Self {
            name,
            model: Model::load(None, &schema, false).expect("the built-in model"),
            telemetry: PrometheusTelemetry::new(&options, schema).expect("options"),
            evaluations: 0,
            highest: (0.0, String::new()),
            wrong: Vec::new(),
        }
    }

    /// Scores every Node there is at a time; returns how many.
    async fn ask(&mut self, at: Timestamp) -> usize {
        let said = self
            .telemetry
            .snapshot(at, &NodeDirectory::open())
            .await
            .expect("Prometheus answers");
        let matrix = said.matrix;
        let scorer = &self.model.scorer;
        let columns = derive(scorer.columns(), &matrix, &History::default())
            .expect("the model knows these features");
        let usual = Usual::of(&matrix);
        for (row, score) in scorer.score(&columns).iter().enumerate() {
            let risk = score.probability.as_f64();
            self.evaluations += 1;
            if risk <= self.highest.0 && risk < CAUTION {
                continue;
            }
            let value = |feature: &FeatureName| {
                usual.value(row, matrix.schema.column_of(feature.as_str())?)
            };
            let reasons: Vec<String> = scorer
                .explain(&columns, row, &value)
                .map(|explanation| explanation.contributions)
                .unwrap_or_default()
                .iter()
                .take(6)
                .map(|c| {
                    format!(
                        "{} {:?} (usually {:?}) {:+.2}",
                        c.feature, c.value, c.usual, c.log_odds
                    )
                })
                .collect();
            let text = format!(
                "{} at {at}: risk {risk:.3}, {:.0} % missing; {}",
                matrix.nodes[row],
                100.0 * matrix.missing_share(row),
                reasons.join("; ")
            );
            if risk >= CAUTION {
                self.wrong
                    .push(format!("{text}\n    {}", row_text(&matrix, row)));
            }
            if risk > self.highest.0 {
                self.highest = (risk, text);
            }
        }
        matrix.nodes.len()
    }

    fn report(&self) {
        println!(
            "{}: {} scores, the highest {:.3}: {}",
            self.name, self.evaluations, self.highest.0, self.highest.1
        );
        println!("figure healthy_{}_highest {:.3}", self.name, self.highest.0);
    }

    fn assert_healthy(&self, least: usize) {
        assert!(
            self.evaluations >= least,
            "{}: only {} scores",
            self.name,
            self.evaluations
        );
        assert!(
            self.wrong.is_empty(),
            "{}: {} of {} scores of healthy machines reach {CAUTION}:\n{}",
            self.name,
            self.wrong.len(),
            self.evaluations,
            self.wrong[..self.wrong.len().min(12)].join("\n")
        );
    }
}

/// All features of a row, for whoever has to improve the model.
fn row_text(matrix: &FeatureMatrix, row: usize) -> String {
    let features = matrix.schema.features().iter().enumerate();
    let values: Vec<String> = features
        .filter_map(|(column, feature)| {
            Some(format!(
                "{}={:.4}",
                feature.name,
                matrix.value(row, column)?
            ))
        })
        .collect();
    values.join(" ")
}

/// Compiles on every core until it is dropped.
struct Compilers {
    tasks: Vec<tokio::task::JoinHandle<()>>,
    _workdir: Workdir,
}

impl Compilers {
    fn start() -> Self {
        let workdir = Workdir::new("compilers");
        let mut source = String::new();
        for n in 0..1500 {
            writeln!(
                source,
                "pub fn f{n}(x: &[u64]) -> Vec<String> {{ x.iter().filter(|y| **y % {m} == 0).map(|y| format!(\"{{y}}-{{}}\", y.wrapping_mul({n}))).collect() }}",
                m = n + 2
            )
            .expect("writing to a String cannot fail");
        }
        let source = workdir.write("busy.rs", &source);
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let tasks = (0..cores)
            .map(|n| tokio::spawn(compile(source.clone(), workdir.join(&format!("out-{n}")))))
            .collect();
        Self {
            tasks,
            _workdir: workdir,
        }
    }
}

impl Drop for Compilers {
    fn drop(&mut self) {
        // The processes are killed with the tasks that wait for them.
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

async fn compile(source: impl AsRef<Path>, out: std::path::PathBuf) {
    std::fs::create_dir_all(&out).expect("a folder can be made");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    loop {
        let status = tokio::process::Command::new(&rustc)
            .args(["--edition=2021", "--crate-type=lib", "-O", "--out-dir"])
            .arg(&out)
            .arg(source.as_ref())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .status()
            .await
            .expect("rustc, which has built this test, can be started");
        assert!(status.success(), "the generated source compiles");
    }
}

/// What happens on one made machine. All numbers are this test's own.
struct Machine {
    name: String,
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
fn machines() -> Vec<Machine> {
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
    fn page(&self, t: f64, now: Timestamp) -> String {
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

/// Sets the pages of all machines to now, every half second, until it is dropped.
fn keep_telling(targets: Arc<Targets>, machines: Arc<Vec<Machine>>) -> tokio::task::JoinHandle<()> {
    let began = tokio::time::Instant::now();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(500));
        loop {
            ticks.tick().await;
            for machine in machines.iter() {
                let page = machine.page(began.elapsed().as_secs_f64(), Timestamp::now());
                targets.set(&machine.name, &page);
            }
        }
    })
}

/// How long each half lasts: `FORESHOCK_HEALTHY_MINUTES` for the full claim, less in every test run.
fn half() -> Duration {
    match std::env::var("FORESHOCK_HEALTHY_MINUTES") {
        Ok(minutes) => {
            let minutes: f64 = minutes
                .parse()
                .expect("FORESHOCK_HEALTHY_MINUTES is a number");
            Duration::from_secs_f64(60.0 * minutes)
        }
        Err(_) => Duration::from_secs(50),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn a_real_node_exporter_idle_and_compiling_and_twenty_made_ones_stay_healthy() {
    init();
    let exporter = NodeExporter::start(&[]).await;
    let machines = Arc::new(machines());
    let targets = Arc::new(Targets::start().await);
    let telling = keep_telling(Arc::clone(&targets), Arc::clone(&machines));
    let names = machines.iter().map(|machine| machine.name.as_str());
    let made = targets.scrape_config(
        "made",
        "5s",
        names,
        |name| json!({"instance": format!("{name}:9100")}),
    );
    let config = json!({
        "global": {"scrape_interval": "5s", "scrape_timeout": "5s"},
        "scrape_configs": [
            {"job_name": "node", "static_configs": [{"targets": [exporter.address()]}]},
            made,
        ],
    });
    let prometheus = Prometheus::start(PrometheusOptions {
        config: config.to_string(),
        ..PrometheusOptions::default()
    })
    .await;
    // With the default window the first minutes are averages with little in them; a window of a minute
    // shows a busy machine as busy at once.
    let mut judges = [
        (1, Judge::new("real", &prometheus, "node", 300)),
        (1, Judge::new("real_1m", &prometheus, "node", 60)),
        (MACHINES, Judge::new("made", &prometheus, "made", 300)),
        (MACHINES, Judge::new("made_1m", &prometheus, "made", 60)),
    ];
    wait_until(
        "all exporters to be scraped",
        Duration::from_secs(60),
        async || match prometheus.value("count(up offset 4s == 1)").await {
            Some(count) if count > MACHINES as f64 => Ok(()),
            other => Err(format!("{other:?} up")),
        },
    )
    .await;
    let half = half();
    let began = tokio::time::Instant::now();
    let mut steps = tokio::time::interval(Duration::from_secs(15));
    let mut compilers = None;
    while began.elapsed() < 2 * half {
        steps.tick().await;
        if compilers.is_none() && began.elapsed() >= half {
            println!("after {:?} the compilers start", began.elapsed());
            compilers = Some(Compilers::start());
        }
        let (lag, interval) = (Duration::from_secs(2), Duration::from_secs(1));
        for (nodes, judge) in &mut judges {
            let seen = judge.ask(grid(Timestamp::now(), lag, interval)).await;
            assert_eq!(seen, *nodes, "{}", judge.name);
        }
    }
    if let Some(busy) = prometheus
        .value("1 - avg(rate(node_cpu_seconds_total{job=\"node\",mode=\"idle\"}[30s]))")
        .await
    {
        println!("figure healthy_compiling_cpu_used {busy:.3}");
    }
    drop(compilers);
    telling.abort();
    let least = usize::try_from(half.as_secs() * 2 / 15).unwrap_or(usize::MAX);
    judges.iter().for_each(|(_, judge)| judge.report());
    for (nodes, judge) in &judges {
        judge.assert_healthy(least.saturating_sub(2) * nodes);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn twenty_made_machines_with_a_day_of_history_stay_healthy() {
    init();
    let machines = machines();
    let start: Timestamp = "2026-10-03T06:00:00Z".parse().expect("a time");
    let end = 26 * 3600_i64;
    let mut history = String::new();
    let mut t = 0;
    while t <= end {
        let now = start + SignedDuration::from_secs(t);
        for machine in &machines {
            let instance = format!("job=\"made\",instance=\"{}:9100\"", machine.name);
            let page = machine.page(t as f64, now);
            for line in page.lines().chain(["up 1", "scrape_duration_seconds 0.03"]) {
                let (name, value) = line.rsplit_once(' ').expect("a sample has a value");
                let labelled = match name.strip_suffix('}') {
                    Some(open) => format!("{open},{instance}}}"),
                    None => format!("{name}{{{instance}}}"),
                };
                writeln!(history, "{labelled} {value} {}", now.as_second())
                    .expect("writing to a String cannot fail");
            }
        }
        // The last hours as they would be scraped, the time before as rules of thumb need it.
        t += if t < end - 7200 { 900 } else { 60 };
    }
    history.push_str("# EOF\n");
    let prometheus = Prometheus::start(PrometheusOptions {
        config: "scrape_configs: []".to_owned(),
        history: Some(history),
        ..PrometheusOptions::default()
    })
    .await;
    let mut judge = Judge::new("day", &prometheus, "made", 300);
    for t in (end - 3600..=end).step_by(150) {
        let nodes = judge.ask(start + SignedDuration::from_secs(t)).await;
        assert_eq!(nodes, MACHINES);
    }
    judge.report();
    judge.assert_healthy(25 * MACHINES);
}
