//! What learning costs: 20,000 rows of 60 columns, 100 trees, in each of the ways that are tried.
//!
//! `cargo bench --bench training` prints figures, and fails where a way takes more than 20 s or
//! 150 MB: whoever trains on an ordinary machine, beside other work, is not to notice. Each way has a
//! process of its own, so that none finds memory that another has left.

mod memory;

use std::process::Command;
use std::time::Instant;

use foreshock::model::artifact::Source;
use foreshock::model::boost::Settings;
use foreshock::model::choose::ways;
use foreshock::model::learn::{ColumnPlan, Plan, Slice, Slices, learn};
use ndarray::Array2;

const ROWS: usize = 20_000;
const COLUMNS: usize = 60;
const TREES: usize = 100;
const SECONDS_MAX: f64 = 20.0;
/// 150 MB.
const MEBIBYTES_MAX: f64 = 143.0;

/// A number in `0.0..1.0`, the same at every run.
fn noise(row: usize, column: usize) -> f64 {
    let mut bits = (row as u64) << 32 | column as u64;
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (bits ^ bits >> 31) as f64 / 2f64.powi(64)
}

/// Rows of which one in thirty is positive, by three columns and chance.
fn rows(n: usize, from: usize) -> Slice {
    let values = Array2::from_shape_fn((n, COLUMNS), |(row, column)| noise(from + row, column));
    let labels = values.rows().into_iter().enumerate().map(|(row, of)| {
        let hazard = 6.0 * of[0] * of[1] + 2.0 * of[2] - 6.0;
        noise(from + row, COLUMNS) < 1.0 / (1.0 + (-hazard).exp())
    });
    Slice {
        labels: labels.collect(),
        values,
    }
}

/// Learns in one way; prints seconds, MiB and trees.
fn run(number: usize) {
    let way = ways(TREES).swap_remove(number);
    let column = |i| ColumnPlan {
        name: format!("c{i}"),
        rising: false,
        meaning: "0000000000000000".to_owned(),
    };
    let plan = Plan {
        name: "bench".to_owned(),
        source: Source::Synthetic,
        columns: (0..COLUMNS).map(column).collect(),
        masks: Vec::new(),
        cut: way.cut,
        // Every tree is grown.
        settings: Settings {
            patience: TREES,
            ..way.settings
        },
        horizon_seconds: 1_800,
        command: "cargo bench --bench training".to_owned(),
        nodes: 0,
        each_negative: 1.0,
    };
    let slices = Slices {
        train: rows(ROWS, 0),
        validation: rows(ROWS / 4, ROWS),
        calibration: rows(ROWS / 4, 2 * ROWS),
        test: Slice::default(),
    };
    let mut trees = 0;
    let start = Instant::now();
    let peak =
        memory::peak_of(|| learn(&plan, &slices, |n| trees = n).expect("rows of both kinds"));
    let seconds = start.elapsed().as_secs_f64();
    println!("{seconds} {} {trees}", peak.unwrap_or(f64::NAN));
}

fn main() {
    if let Some(number) = std::env::args().find_map(|argument| argument.parse().ok()) {
        return run(number);
    }
    let program = std::env::current_exe().expect("a program has a path");
    let (mut slowest, mut largest) = (0.0f64, 0.0f64);
    for (number, way) in ways(TREES).iter().enumerate() {
        let done = Command::new(&program).arg(number.to_string()).output();
        let done = done.expect("the program starts again");
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        let numbers: Vec<f64> = text
            .split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect();
        let [seconds, mebibytes, trees] = numbers[..] else {
            panic!("the way `{}` did not come through: {done:?}", way.name);
        };
        println!(
            "{}: {seconds:.1} s, {mebibytes:.0} MiB, {trees} trees",
            way.name
        );
        slowest = slowest.max(seconds);
        // Where memory is not known, it is not judged.
        largest = largest.max(mebibytes);
    }
    println!("figure training_seconds {slowest:.1}");
    println!("figure training_peak_mib {largest:.0}");
    if slowest > SECONDS_MAX || largest > MEBIBYTES_MAX {
        println!("broken: to be at most {SECONDS_MAX} s and {MEBIBYTES_MAX} MiB");
        std::process::exit(1);
    }
}
