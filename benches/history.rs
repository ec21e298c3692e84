//! What columns with memory cost in a cluster of 5,000 Nodes: every kind of column of every feature.
//!
//! `cargo bench --bench history` prints the times, and the memory as figures; nothing here fails for being
//! slow. The aims: derived columns in 50 ms, and 30 MiB for what is remembered.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use foreshock::features::history::GRID;
use foreshock::features::{ColumnName, FeatureMatrix, History, Schema, derive};
use jiff::Timestamp;

const NODES: usize = 5_000;
/// A day for the week, and the hour after it.
const POINTS: u32 = 288 + 13;

/// A number in `0.0..1.0`, the same at every run.
fn noise(row: usize, column: usize, point: u32) -> f64 {
    // SplitMix64's finish: neighbours have nothing in common, so that branches cannot be foreseen.
    let mut bits = (row as u64) << 40 | (column as u64) << 32 | u64::from(point);
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (bits ^ bits >> 31) as f64 / 2f64.powi(64)
}

fn bench(criterion: &mut Criterion) {
    let schema = Arc::new(Schema::built_in());
    let start = Timestamp::from_second(20_000 * 86_400).expect("in range");
    let names: Vec<_> = (0..NODES)
        .map(|n| format!("worker-{n:05}").into())
        .collect();
    let mut matrix = FeatureMatrix::missing(start, Arc::clone(&schema), names);
    let every = ColumnName::all(&schema);
    let before = resident();
    let mut history = History::of(&schema, &every);
    for point in 0..POINTS {
        matrix.at = start + GRID * point;
        for ((row, column), value) in matrix.values.indexed_iter_mut() {
            *value = noise(row, column, point);
        }
        history.take(&matrix, true);
    }
    let mebibytes = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    let (features, bytes) = (schema.len(), mebibytes(history.bytes()));
    println!("figure history_{features}_features_mib {bytes:.1}");
    if let Some((before, after)) = before.zip(resident()) {
        println!("figure history_resident_mib {:.1}", after - before);
    }

    for (what, columns) in kinds(&every) {
        let work = || derive(&columns, black_box(&matrix), &history);
        if let Some(mebibytes) = peak_of(work) {
            println!("figure derive_{}_columns_mib {mebibytes:.1}", columns.len());
        }
        let what = format!("derive {what}, 5,000 Nodes x {} columns", columns.len());
        criterion.bench_function(&what, |bencher| bencher.iter(work));
    }
    criterion.bench_function("take a point of the grid, 5,000 Nodes", |bencher| {
        bencher.iter(|| {
            matrix.at += GRID;
            assert!(history.take(&matrix, true));
        });
    });
}

/// Each kind by itself, and all together.
fn kinds(every: &[ColumnName]) -> Vec<(&'static str, Vec<ColumnName>)> {
    let of = |is: fn(&ColumnName) -> bool| every.iter().filter(|c| is(c)).cloned().collect();
    vec![
        ("peers", of(|c| matches!(c, ColumnName::Peers(_)))),
        ("changes", of(|c| matches!(c, ColumnName::Change(..)))),
        ("spreads", of(|c| matches!(c, ColumnName::Spread(_)))),
        ("the week", of(|c| matches!(c, ColumnName::Week(_)))),
        ("summaries", of(|c| matches!(c, ColumnName::Node(_)))),
        ("every kind", every.to_vec()),
    ]
}

fn status(key: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kibibytes / 1_024.0)
}

/// Memory in use, in MiB.
fn resident() -> Option<f64> {
    status("VmRSS:")
}

/// By how much memory in use grew at its highest while `work` ran, in MiB.
fn peak_of<T>(work: impl Fn() -> T) -> Option<f64> {
    // Puts the highest mark back to what is in use now.
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    let before = resident()?;
    drop(black_box(work()));
    Some(status("VmHWM:")? - before)
}

criterion_group!(benches, bench);
criterion_main!(benches);
