//! Two weeks of a simulated fleet as blocks of a real Prometheus.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use foreshock::features::Schema;
use foreshock::simulate::fleet::{
    FaultEvent, FaultKind, FaultRates, Fleet, FleetOptions, IncidentKind, Page, node_names,
    random_schedule,
};
use foreshock_core::node::NodeName;
use foreshock_core::time::{after, ago};
use jiff::Timestamp;

use crate::support::bed_program;

/// Nodes of the fleet.
pub(crate) const NODES: usize = 24;
/// How long its history is.
pub(crate) const DAYS: u64 = 14;
/// How often it was scraped.
pub(crate) const SCRAPE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_secs(30);
/// A block of Prometheus: two hours, at whole multiples of them.
const BLOCK: i64 = 7_200;
/// Faults of each of three kinds for each Node and day, which come on over an hour or more: two weeks shall hold
/// enough incidents to learn from and to judge by.
const A_DAY: f64 = 0.5;

/// The Nodes that are about to degrade when the history ends, and how.
pub(crate) const ILL: [(&str, FaultKind); 2] = [
    ("worker-03", FaultKind::MemoryLeak),
    ("worker-08", FaultKind::SlowDisk),
];

/// Simulates a fleet up to now and writes what a Prometheus would have of it into `data`. The fleet that comes
/// back goes on from there.
pub(crate) fn write(seed: u64, now: Timestamp, data: &Path) -> Fleet {
    let begin = ago(now, Duration::from_secs(DAYS * 86_400));
    let begin = Timestamp::from_second(begin.as_second().div_euclid(BLOCK) * BLOCK)
        .expect("a time of this century");
    let mut fleet = Fleet::new(FleetOptions {
        tick: TICK,
        schedule: schedule(seed, begin, now),
        ..FleetOptions::new(seed, NODES, begin)
    })
    .expect("the fleet can be simulated");
    let names: Vec<NodeName> = fleet.names().cloned().collect();
    let wanted = wanted();
    let mut at = begin;
    let mut text = String::new();
    let mut block = begin.as_second();
    let mut lines = 0;
    while at < now {
        fleet.advance(at);
        for node in &names {
            lines += page(&fleet, node, at, &wanted, &mut text);
        }
        at = after(at, SCRAPE);
        if at.as_second() >= block + BLOCK || at >= now {
            backfill(&mut text, data);
            block += BLOCK;
        }
    }
    println!("history: {} days of {NODES} Nodes, {lines} samples", DAYS);
    fleet
}

fn schedule(seed: u64, begin: Timestamp, now: Timestamp) -> Vec<FaultEvent> {
    let rates = FaultRates {
        per_day: vec![
            (FaultKind::MemoryLeak, A_DAY),
            (FaultKind::SlowDisk, A_DAY),
            (FaultKind::CpuStarvation, A_DAY),
            (FaultKind::LostCollector, 0.05),
            (FaultKind::VanishedExporter, 0.05),
        ],
        severity: (0.55, 0.99),
        lasts: (Duration::from_secs(5_400), Duration::from_secs(4 * 3_600)),
    };
    // The last hours are those of the two Nodes alone.
    let quiet = ago(now, Duration::from_secs(3 * 3_600));
    let mut all = random_schedule(seed, &node_names(NODES), begin, quiet, &rates);
    all.retain(|fault| fault.until() < quiet);
    all.extend(ILL.map(|(node, kind)| FaultEvent {
        node: node.into(),
        kind,
        from: ago(now, Duration::from_secs(2_400)),
        lasts: Duration::from_secs(4 * 3_600),
        severity: 0.9,
        ramp: Some(Duration::from_secs(1_800)),
        target: None,
    }));
    all
}

/// Names of the metrics that features and labels read: a whole page would be five times as much.
fn wanted() -> BTreeSet<String> {
    let mut names: BTreeSet<String> = ["node_uname_info", "node_boot_time_seconds"]
        .map(str::to_owned)
        .into();
    for feature in Schema::built_in().features() {
        let words = feature
            .promql
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
        names.extend(
            words
                .filter(|word| word.starts_with("node_"))
                .map(str::to_owned),
        );
    }
    names.insert("node_scrape_collector_success".to_owned());
    names
}

/// Everything that a scrape of one Node brings; the number of samples.
fn page(
    fleet: &Fleet,
    node: &NodeName,
    at: Timestamp,
    wanted: &BTreeSet<String>,
    text: &mut String,
) -> u64 {
    let mut metrics = String::new();
    let up = fleet
        .write_page(node, Page::NodeExporter, &mut metrics)
        .is_ok();
    let seconds = at.as_second();
    let mut n = 0;
    let mut put = |name: &str, labels: &str, value: &str| {
        let comma = if labels.is_empty() { "" } else { "," };
        writeln!(
            text,
            "{name}{{{labels}{comma}instance=\"{node}\",job=\"node-exporter\"}} {value} {seconds}"
        )
        .expect("writing to a string succeeds");
        n += 1;
    };
    for line in metrics.lines().filter(|line| !line.starts_with('#') && up) {
        let end = line.find(['{', ' ']).unwrap_or(line.len());
        let (name, rest) = line.split_at(end);
        if !wanted.contains(name) {
            continue;
        }
        let (labels, value) = match rest.strip_prefix('{').and_then(|r| r.rsplit_once("} ")) {
            Some((labels, value)) => (labels.trim_end_matches(','), value),
            None => ("", rest.trim()),
        };
        put(name, labels, value);
    }
    put("up", "", if up { "1" } else { "0" });
    if let Some(took) = fleet.scrape_duration(node) {
        put(
            "scrape_duration_seconds",
            "",
            &took.as_secs_f64().to_string(),
        );
    }
    let truth = fleet.degraded(node).map(|truth| truth.incident);
    let pressure = |is: bool| if is { "1" } else { "0" };
    let memory = truth == Some(IncidentKind::MemoryExhausted);
    let disk = truth == Some(IncidentKind::FilesystemFull);
    let ready = truth.is_none() || memory || disk;
    for (condition, value) in [
        ("Ready", ready),
        ("MemoryPressure", memory),
        ("DiskPressure", disk),
    ] {
        writeln!(
            text,
            "kube_node_status_condition{{condition=\"{condition}\",node=\"{node}\",status=\"true\",job=\"kube-state-metrics\"}} {} {seconds}",
            pressure(value)
        )
        .expect("writing to a string succeeds");
    }
    writeln!(
        text,
        "kube_node_info{{node=\"{node}\",internal_ip=\"10.0.0.{}\",job=\"kube-state-metrics\"}} 1 {seconds}",
        node.as_str().trim_start_matches("worker-")
    )
    .expect("writing to a string succeeds");
    n + 4
}

/// Makes blocks of what there is, and forgets it.
fn backfill(text: &mut String, data: &Path) {
    text.push_str("# EOF\n");
    let file = data.with_extension("openmetrics");
    std::fs::write(&file, &*text).expect("there is room for a block");
    let made = Command::new(bed_program("promtool"))
        .args(["tsdb", "create-blocks-from", "openmetrics", "--quiet"])
        .args([&file, &data.to_owned()])
        .output()
        .expect("promtool can be started");
    assert!(
        made.status.success(),
        "promtool refuses the history: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    text.clear();
}
