use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ndarray::Array2;

use super::*;
use crate::features::{FeatureMatrix, History, Schema, derive};
use crate::model::artifact::Source;
use crate::model::range::out_of_range;
use crate::model::rule::{RULES, Rule, rule_score};
use crate::model::scorer::{Scorer, TreeScorer};
use crate::model::synthetic::{COLUMNS, Group, SyntheticColumn};
use crate::simulate::fleet::{
    Columns, FaultKind, FaultSpec, Fleet, FleetOptions, MemoryOptions, Scrapes,
    is_training_severity,
};

const AT_RISK: f64 = 0.65;
const CAUTION: f64 = 0.5;

fn scorer() -> TreeScorer {
    TreeScorer::new(&built_in().unwrap())
}

fn start() -> Timestamp {
    Timestamp::from_second(1_790_000_000).unwrap()
}

/// Rows of features, given by name; what is not given is missing.
fn matrix_of(rows: &[Vec<(&str, f64)>]) -> FeatureMatrix {
    let schema = Arc::new(Schema::built_in());
    let names = (0..rows.len()).map(|i| format!("n{i:04}").into()).collect();
    let mut matrix = FeatureMatrix::missing(start(), schema, names);
    for (i, row) in rows.iter().enumerate() {
        for (feature, value) in row {
            let column = matrix.schema.column_of(feature).expect(feature);
            matrix.values[(i, column)] = *value;
        }
    }
    matrix
}

fn score_rows(rows: &[Vec<(&str, f64)>]) -> Vec<f64> {
    score(&scorer(), &matrix_of(rows))
}

fn score(scorer: &TreeScorer, matrix: &FeatureMatrix) -> Vec<f64> {
    let rows = derive(scorer.columns(), matrix, &History::default()).unwrap();
    scorer
        .score(&rows)
        .iter()
        .map(|score| score.probability.as_f64())
        .collect()
}

/// What each column usually reads.
fn usual() -> Vec<(&'static str, f64)> {
    let model = built_in().unwrap();
    let columns = COLUMNS.iter().zip(&model.content().columns);
    columns
        .filter_map(|(column, learned)| Some((column.feature, learned.usual?)))
        .collect()
}

#[test]
fn the_built_in_model_is_valid_synthetic_and_for_the_built_in_features() {
    let model = built_in().unwrap();
    assert_eq!(model.content().source, Source::Synthetic);
    assert_eq!(model.to_bytes().unwrap(), BYTES);
    model.matches(&Schema::built_in()).unwrap();
    let provenance = &model.content().provenance;
    assert_eq!(
        provenance.command,
        format!("foreshock train --synthetic --seed {SEED}")
    );
    for (column, learned) in COLUMNS.iter().zip(&model.content().columns) {
        assert_eq!(
            column.feature, learned.name,
            "make models/synthetic.json anew"
        );
        assert!(learned.rising);
    }
    let figures = model.content().validation.as_ref().unwrap();
    assert!(
        figures.pr_auc > 0.6 && figures.ece < 0.02 && figures.brier_skill > 0.4,
        "{figures:?}"
    );
}

#[test]
fn nothing_known_is_no_risk_and_the_usual_is_none_either() {
    let scores = score_rows(&[vec![], usual()]);
    assert!(scores.iter().all(|p| *p < 0.1), "{scores:?}");
}

#[test]
fn the_score_rises_with_every_column_and_one_odd_column_is_no_evidence() {
    let schema = Schema::built_in();
    let model = built_in().unwrap();
    for (column, learned) in COLUMNS.iter().zip(&model.content().columns) {
        let feature = schema.feature(column.feature).unwrap();
        let mut values = vec![feature.min, column.alone, feature.max];
        values.extend(&learned.edges.edges);
        values.sort_by(f64::total_cmp);
        // On a machine that shows everything, and on one that shows nothing else.
        for others in [usual(), vec![]] {
            let rows: Vec<_> = values
                .iter()
                .map(|value| {
                    let mut row = others.clone();
                    row.retain(|(name, _)| *name != column.feature);
                    row.push((column.feature, *value));
                    row
                })
                .collect();
            let scores = score_rows(&rows);
            assert!(scores.is_sorted(), "{} does not rise", column.feature);
            for (value, score) in values.iter().zip(&scores) {
                if *value <= column.alone {
                    let feature = column.feature;
                    assert!(*score < CAUTION, "{feature} = {value} alone scores {score}");
                }
            }
        }
    }
}

#[test]
fn a_whole_group_at_its_harmless_limit_is_no_evidence() {
    for group in Group::ALL {
        let mut row = usual();
        for column in COLUMNS.iter().filter(|column| column.group == group) {
            row.retain(|(name, _)| *name != column.feature);
            row.push((column.feature, column.harmless));
        }
        let score = score_rows(&[row])[0];
        assert!(score < CAUTION, "{group:?} scores {score}");
    }
}

/// Machines that are well, in numbers that no line of the simulator has made: written down from
/// real ones, and with every collector missing that a real one may lack.
fn real_machines() -> Vec<(&'static str, Vec<(&'static str, f64)>)> {
    let idle = vec![
        ("load_per_core", 0.05),
        ("cpu_iowait", 0.001),
        ("cpu_steal", 0.0),
        ("mem_used", 0.12),
        ("swap_pages", 0.0),
        ("major_faults", 0.1),
        ("disk_queue", 0.01),
        ("disk_await_read", 0.0),
        ("disk_await_write", 0.003),
        ("procs_blocked", 0.0),
        ("fs_used", 0.35),
        ("fs_broken", 0.0),
        ("tcp_retrans_ratio", 0.0),
        ("tcp_timeout_ratio", 0.0),
        ("net_drop_ratio", 0.0),
        ("net_error_ratio", 0.0),
    ];
    let with = |changes: &[(&'static str, f64)]| {
        let mut row = idle.clone();
        row.retain(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
        row.extend(changes);
        row
    };
    let compiling = [
        ("load_per_core", 3.8),
        ("psi_cpu", 0.93),
        ("cpu_steal", 0.22),
        ("cpu_iowait", 0.12),
        ("mem_used", 0.83),
        ("major_faults", 240.0),
        ("disk_queue", 6.0),
        ("disk_await_read", 0.03),
        ("disk_await_write", 0.055),
        ("psi_io", 0.16),
        ("procs_blocked", 1.5),
    ];
    vec![
        ("idle VM", with(&[])),
        (
            "idle VM with PSI",
            with(&[("psi_cpu", 0.004), ("psi_io", 0.0), ("psi_mem", 0.0)]),
        ),
        ("compiler on a shared VM", with(&compiling)),
        ("compiler without PSI", {
            let mut row = with(&compiling);
            row.retain(|(name, _)| !name.starts_with("psi_"));
            row
        }),
        (
            "compiler, first minute",
            with(&[
                ("load_per_core", 0.9),
                ("psi_cpu", 0.97),
                ("major_faults", 900.0),
            ]),
        ),
        (
            "batch at three per core",
            with(&[("load_per_core", 3.2), ("psi_cpu", 0.99)]),
        ),
        (
            "busy database",
            with(&[
                ("disk_queue", 14.0),
                ("disk_await_read", 0.004),
                ("disk_await_write", 0.006),
                ("psi_io", 0.35),
                ("cpu_iowait", 0.3),
                ("mem_used", 0.88),
            ]),
        ),
        (
            "spinning disk under a backup",
            with(&[
                ("disk_queue", 9.0),
                ("disk_await_read", 0.06),
                ("disk_await_write", 0.075),
                ("psi_io", 0.3),
                ("cpu_iowait", 0.25),
                ("procs_blocked", 0.5),
            ]),
        ),
        (
            "cache full by design",
            with(&[("mem_used", 0.93), ("mem_in_1h", 0.94)]),
        ),
        (
            "data disk stable at 91 %",
            with(&[("fs_used", 0.91), ("fs_in_24h", 0.915)]),
        ),
        (
            "container killed at its own limit",
            with(&[("oom_kills", 2.0), ("psi_mem", 0.01), ("mem_used", 0.6)]),
        ),
        (
            "hot laptop chip",
            with(&[("temp_vs_crit", 0.88), ("cpu_throttles", 12.0)]),
        ),
        (
            "lossy line abroad",
            with(&[("tcp_retrans_ratio", 0.018), ("tcp_timeout_ratio", 0.003)]),
        ),
        (
            "unknown protocols on the LAN",
            with(&[("net_drop_ratio", 0.04)]),
        ),
        (
            "idle line, one segment in fifty again",
            with(&[("tcp_retrans_ratio", 0.02)]),
        ),
        (
            "booted this morning",
            with(&[("reboots", 1.0), ("up_flaps", 2.0), ("down_share", 0.1)]),
        ),
        (
            "exporter rolled out anew",
            with(&[("up_flaps", 2.0), ("down_share", 0.2)]),
        ),
        (
            "steal on a busy host",
            with(&[
                ("cpu_steal", 0.28),
                ("load_per_core", 1.1),
                ("psi_cpu", 0.4),
            ]),
        ),
        (
            "image pull",
            with(&[
                ("disk_await_write", 0.07),
                ("disk_queue", 25.0),
                ("psi_io", 0.4),
                ("major_faults", 150.0),
                ("cpu_iowait", 0.35),
            ]),
        ),
        (
            "sandbox without disks",
            vec![
                ("load_per_core", 0.4),
                ("mem_used", 0.3),
                ("cpu_iowait", 0.0),
            ],
        ),
        (
            "some swap in use",
            with(&[
                ("swap_pages", 120.0),
                ("mem_used", 0.9),
                ("major_faults", 40.0),
            ]),
        ),
        (
            "probe through a slow gateway",
            with(&[("net_probe_loss", 0.02), ("net_latency_probe", 0.18)]),
        ),
    ]
}

#[test]
fn at_least_twenty_healthy_machines_from_life_are_no_risk() {
    let machines = real_machines();
    assert!(machines.len() >= 20);
    let rows: Vec<_> = machines.iter().map(|(_, row)| row.clone()).collect();
    for ((name, row), score) in machines.iter().zip(score_rows(&rows)) {
        assert!(score < CAUTION, "{name} scores {score}");
        let find = |feature: &str| row.iter().find(|(n, _)| *n == feature).map(|(_, v)| *v);
        let rule = rule_score(find).unwrap().as_f64();
        assert!(rule < CAUTION, "{name} scores {rule} by rule");
    }
}

/// A fleet in which one Node has the fault, one hour after the start, for a quarter of an hour.
fn sick(kind: FaultKind, severity: f64, seed: u64) -> (Fleet, Columns, Timestamp, Timestamp) {
    let fault: FaultSpec = format!("worker-01:{kind}:at=65m:for=15m:severity={severity}")
        .parse()
        .unwrap();
    let mut options = FleetOptions::new(seed, 4, start());
    let scrape = Duration::from_secs(15);
    let window = Duration::from_secs(60);
    options.tick = scrape;
    options.memory = Some(MemoryOptions {
        scrapes: Scrapes::Every(scrape),
        rate_window: window,
        long: Duration::from_secs(2 * 3_600),
    });
    let event = fault.starting(start());
    let (from, until) = (event.from, event.until());
    options.schedule = vec![event];
    let columns = Columns::new(
        Arc::new(Schema::built_in()),
        window,
        Duration::from_secs(120),
    );
    (Fleet::new(options).unwrap(), columns, from, until)
}

fn later(at: Timestamp, seconds: i64) -> Timestamp {
    at.checked_add(jiff::SignedDuration::from_secs(seconds))
        .unwrap()
}

#[test]
fn every_fault_of_the_fleet_is_seen_and_let_go_of_again() {
    let scorer = scorer();
    for kind in FaultKind::ALL.into_iter().filter(|kind| kind.degrades()) {
        let severity = 0.8;
        assert!(!is_training_severity(severity));
        let (mut fleet, columns, from, until) = sick(kind, severity, 11);
        let mut at = later(from, -300);
        let (mut seen, mut gone, mut worst_healthy) = (None, None, 0.0f64);
        while at < later(until, 3_900) && gone.is_none() {
            fleet.advance(at);
            let matrix = columns.matrix(&fleet, at);
            let scores = score(&scorer, &matrix);
            if seen.is_none() && scores[0] > AT_RISK {
                assert!(
                    at > from && at < until,
                    "{kind} seen at {at}, it lasts {from} to {until}"
                );
                seen = Some(at);
            }
            // While the machine is off it is unknown, not recovered.
            if at > until && seen.is_some() && matrix.scraped_at[0].is_some() && scores[0] < CAUTION
            {
                gone = Some(at);
            }
            worst_healthy = scores[1..].iter().copied().fold(worst_healthy, f64::max);
            at = later(at, 15);
        }
        assert!(seen.is_some(), "{kind} at severity {severity} is not seen");
        assert!(gone.is_some(), "{kind} is not let go of within 65 minutes");
        assert!(
            worst_healthy < CAUTION,
            "{kind}: a healthy Node scores {worst_healthy}"
        );
    }
}

#[test]
fn every_calibration_for_a_gap_is_used_and_none_makes_a_node_likelier_to_degrade() {
    let model = built_in().unwrap();
    let content = model.content();
    let whole = content.calibration;
    assert!(content.gaps.len() >= 10, "{}", content.gaps.len());
    for gap in &content.gaps {
        let mut codes = vec![1; content.columns.len()];
        for column in &gap.columns {
            codes[*column] = 0;
        }
        let used = content.calibration_of(&codes);
        assert_eq!(used, gap.calibration, "{:?}", gap.columns);
        for raw in -100..100 {
            let raw = f64::from(raw) / 10.0;
            let (before, after) = (
                whole.slope * raw + whole.intercept,
                used.slope * raw + used.intercept,
            );
            assert!(
                after <= before.max(0.0) + 1e-6,
                "{gap:?} at {raw}: {before} {after}"
            );
        }
    }
}

#[test]
fn lost_telemetry_is_no_risk() {
    let scorer = scorer();
    for kind in [FaultKind::LostCollector, FaultKind::VanishedExporter] {
        let (mut fleet, columns, from, until) = sick(kind, 0.8, 12);
        let mut at = from;
        while at < later(until, 600) {
            fleet.advance(at);
            let scores = score(&scorer, &columns.matrix(&fleet, at));
            assert!(scores.iter().all(|p| *p < CAUTION), "{kind}: {scores:?}");
            at = later(at, 60);
        }
    }
}

#[test]
fn any_loss_of_collectors_leaves_a_healthy_machine_healthy() {
    // Every subset of the groups missing, from everything there to nothing there.
    let rows: Vec<_> = (0..1u32 << Group::ALL.len())
        .map(|set| {
            let there = |feature: &str| {
                let column = COLUMNS.iter().find(|c| c.feature == feature);
                column.is_some_and(|c| set >> (c.group as u32) & 1 == 1)
            };
            usual()
                .into_iter()
                .filter(|(feature, _)| there(feature))
                .collect()
        })
        .collect();
    let scores = score_rows(&rows);
    let worst = scores.iter().copied().fold(0.0, f64::max);
    assert!(worst < 0.2, "{worst}");
}

#[test]
fn a_matrix_of_thousands_is_scored_and_explained_consistently() {
    let scorer = scorer();
    let columns = scorer.columns().to_vec();
    let mut values = Array2::from_elem((500, columns.len()), f64::NAN);
    let model = built_in().unwrap();
    for (i, mut row) in values.rows_mut().into_iter().enumerate() {
        for (j, value) in row.iter_mut().enumerate() {
            let edges = &model.content().columns[j].edges.edges;
            // A walk over all bins, out of step from column to column.
            if let Some(edge) = edges.get((i * (j + 3)) % (edges.len() + 1)) {
                *value = *edge;
            }
        }
    }
    let nodes = (0..500).map(|i| format!("n{i:03}").into()).collect();
    let matrix = crate::features::ModelMatrix {
        nodes,
        columns,
        values,
    };
    for (row, score) in scorer.score(&matrix).iter().enumerate() {
        let explanation = scorer.explain(&matrix, row, &|_| None).unwrap();
        let sum: f64 = explanation.contributions.iter().map(|c| c.log_odds).sum();
        assert!((explanation.base + sum - score.log_odds).abs() < 1e-5);
    }
}

#[test]
fn the_documentation_has_the_tables_of_the_code() {
    let text = include_str!("../../../docs/model.md");
    for SyntheticColumn {
        feature,
        harmless,
        alone,
        ..
    } in COLUMNS
    {
        let row = format!("| `{feature}` | {harmless} | {alone} |");
        assert!(text.contains(&row), "docs/model.md lacks {row}");
    }
    for Rule {
        feature,
        from,
        full,
        weight,
    } in RULES
    {
        let row = format!("| `{feature}` | {from} | {full} | {weight} |");
        assert!(text.contains(&row), "docs/model.md lacks {row}");
    }
    let figures = built_in().unwrap().content().validation.clone().unwrap();
    for figure in [
        format!("{:.2}", figures.pr_auc),
        format!("{:.2}", figures.brier_skill),
    ] {
        assert!(
            text.contains(&format!("| {figure} |")),
            "docs/model.md lacks {figure}"
        );
    }
    assert!(text.contains(&format!("--seed {SEED}")));
}

// ---- inputs that are nothing like the training ----

/// What is said of the inputs of each row.
fn out_of_range_of(scorer: &TreeScorer, matrix: &FeatureMatrix) -> Vec<Option<String>> {
    let rows = derive(scorer.columns(), matrix, &History::default()).unwrap();
    (0..matrix.nodes.len())
        .map(|row| out_of_range(scorer, &rows, matrix, row))
        .collect()
}

/// The matrix as it would be if these features read otherwise; what cannot be is missing.
fn distorted(matrix: &FeatureMatrix, read: impl Fn(&str, f64) -> f64) -> FeatureMatrix {
    let mut matrix = matrix.clone();
    let schema = matrix.schema.clone();
    for row in 0..matrix.nodes.len() {
        for (column, feature) in schema.features().iter().enumerate() {
            let value = matrix.values[(row, column)];
            if value.is_nan() {
                continue;
            }
            let value = read(feature.name.as_str(), value);
            let possible = feature.possible(value);
            if possible.is_none() {
                matrix.impossible.insert((row, column), value);
            }
            matrix.values[(row, column)] = possible.unwrap_or(f64::NAN);
        }
    }
    matrix
}

#[test]
fn no_fault_at_any_severity_and_no_healthy_machine_is_out_of_range() {
    let scorer = scorer();
    let mut said = Vec::new();
    for kind in FaultKind::ALL {
        for severity in [0.2, 0.6, 1.0] {
            let (mut fleet, columns, from, until) = sick(kind, severity, 13);
            let mut at = later(from, -60);
            while at < later(until, 120) {
                fleet.advance(at);
                let out = out_of_range_of(&scorer, &columns.matrix(&fleet, at));
                said.extend(out.into_iter().flatten().map(|out| (kind, severity, out)));
                at = later(at, 120);
            }
        }
    }
    assert!(said.is_empty(), "{said:#?}");
    let rows: Vec<_> = real_machines().into_iter().map(|(_, row)| row).collect();
    let out = out_of_range_of(&scorer, &matrix_of(&rows));
    assert!(out.iter().all(Option::is_none), "{out:#?}");
}

#[test]
fn wrong_units_and_mixed_up_columns_are_out_of_range() {
    let scorer = scorer();
    let (mut fleet, columns, from, until) = sick(FaultKind::SlowDisk, 0.8, 14);
    fleet.advance(later(until, -60));
    assert!(later(until, -60) > from);
    let matrix = columns.matrix(&fleet, later(until, -60));

    // Milliseconds where seconds are meant: everything that is a rate or a mean of seconds.
    let of_seconds = [
        "psi_cpu",
        "psi_mem",
        "psi_io",
        "disk_queue",
        "disk_await_read",
        "disk_await_write",
    ];
    let milliseconds = distorted(&matrix, |feature, value| {
        value
            * if of_seconds.contains(&feature) {
                1_000.0
            } else {
                1.0
            }
    });
    let out = out_of_range_of(&scorer, &milliseconds);
    let sick = out[0].as_deref().expect("out of range");
    assert!(sick.contains(" inputs lie far outside of what it was trained on: "));

    // kB where bytes are meant, on one side of each ratio.
    let of_bytes = ["mem_used", "mem_in_1h", "fs_used", "fs_in_24h"];
    let kilobytes = distorted(&matrix, |feature, value| {
        if of_bytes.contains(&feature) {
            1.0 - (1.0 - value) * 1_000.0
        } else {
            value
        }
    });
    let out = out_of_range_of(&scorer, &kilobytes);
    assert!(out.iter().all(Option::is_some), "{out:#?}");

    // An exporter that says each number under another's name.
    let mut mixed = matrix.clone();
    let places: Vec<usize> = COLUMNS
        .iter()
        .filter_map(|column| matrix.schema.column_of(column.feature))
        .collect();
    for row in 0..matrix.nodes.len() {
        for (to, from) in places.iter().zip(places.iter().cycle().skip(7)) {
            mixed.values[(row, *to)] = matrix.values[(row, *from)];
        }
    }
    let out = out_of_range_of(&scorer, &distorted(&mixed, |_, value| value));
    // The idle ones read small shares of something under any name.
    assert!(out[0].is_some(), "{out:#?}");
}
