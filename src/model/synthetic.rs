//! The built-in model: learned from simulated fleets, because nobody publishes node_exporter
//! histories with incidents.
//!
//! `foreshock train --synthetic --seed N` runs this and nothing else, so anybody can make the file
//! again, to the byte. What it claims is little: it has seen the machines, the work and the faults
//! of [`crate::simulate::fleet`], and nobody's cluster. `docs/model.md` lists what it sees.

use std::sync::Arc;
use std::time::Duration;

use foreshock_core::node::NodeName;
use jiff::{SignedDuration, Timestamp};
use ndarray::Array2;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::features::Schema;
use crate::simulate::fleet::{
    Columns, FaultKind, FaultRates, Fleet, FleetError, FleetOptions, MemoryOptions, Scrapes,
    node_names, random_schedule, training_seed,
};

use super::artifact::{Artifact, Source, meaning_of};
use super::boost::{Settings, unit};
use super::learn::{ColumnPlan, LearnError, Mask, Plan, Slice, Slices, learn};

/// How far ahead a positive looks: half an hour is enough to drain a Node with care.
pub const HORIZON: Duration = Duration::from_secs(1_800);

/// A column of the built-in model, and how far it may go on a machine that is well.
#[derive(Clone, Copy, Debug)]
pub struct SyntheticColumn {
    /// The feature; the built-in model takes features as they are.
    pub feature: &'static str,
    /// What belongs together: healthy oddities come in groups.
    pub group: Group,
    /// Up to here the feature is no evidence by itself, nor together with its group: real machines
    /// read so and are well. Training rows say so, whatever the simulated fleet looks like.
    pub harmless: f64,
}

/// Features that move together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Too much work.
    Cpu,
    /// Memory.
    Memory,
    /// Disks.
    Disk,
    /// Filesystems.
    Filesystem,
    /// Network.
    Network,
    /// Temperature.
    Heat,
    /// Whether the machine stays up.
    Up,
}

impl Group {
    const ALL: [Self; 7] = [
        Self::Cpu,
        Self::Memory,
        Self::Disk,
        Self::Filesystem,
        Self::Network,
        Self::Heat,
        Self::Up,
    ];
}

const fn column(feature: &'static str, group: Group, harmless: f64) -> SyntheticColumn {
    SyntheticColumn {
        feature,
        group,
        harmless,
    }
}

/// The columns of the built-in model. In each the score may only rise.
///
/// Left out on purpose: what says how much work there is rather than how a machine bears it, what a
/// healthy machine may read at any value (context switches, entropy, Pods, collectors without
/// hardware), and what the simulated fleet cannot teach (memory errors, RAID, clock).
pub const COLUMNS: [SyntheticColumn; 28] = [
    column("load_per_core", Group::Cpu, 4.5),
    column("psi_cpu", Group::Cpu, 1.0),
    column("cpu_steal", Group::Cpu, 0.3),
    column("cpu_throttles", Group::Cpu, 50.0),
    column("mem_used", Group::Memory, 0.94),
    column("mem_in_1h", Group::Memory, 1.0),
    column("psi_mem", Group::Memory, 0.03),
    column("swap_pages", Group::Memory, 1_000.0),
    column("major_faults", Group::Memory, 1_000.0),
    column("oom_kills", Group::Memory, 2.0),
    column("cpu_iowait", Group::Disk, 0.5),
    column("disk_queue", Group::Disk, 30.0),
    column("disk_await_read", Group::Disk, 0.08),
    column("disk_await_write", Group::Disk, 0.08),
    column("psi_io", Group::Disk, 0.25),
    column("procs_blocked", Group::Disk, 2.0),
    column("fs_used", Group::Filesystem, 0.92),
    column("fs_in_24h", Group::Filesystem, 1.0),
    column("fs_broken", Group::Filesystem, 0.0),
    column("tcp_retrans_ratio", Group::Network, 0.02),
    column("tcp_timeout_ratio", Group::Network, 0.005),
    column("net_drop_ratio", Group::Network, 0.05),
    column("net_error_ratio", Group::Network, 0.001),
    column("net_probe_loss", Group::Network, 0.05),
    column("temp_vs_crit", Group::Heat, 0.92),
    column("down_share", Group::Up, 0.3),
    column("up_flaps", Group::Up, 4.0),
    column("reboots", Group::Up, 1.0),
];

/// How much is simulated.
#[derive(Clone, Debug)]
pub struct Size {
    /// Fleets for training, stopping, calibration and the figures of the model card, in this order.
    pub fleets: [usize; 4],
    /// Nodes of each fleet.
    pub nodes: usize,
    /// Simulated hours of each fleet.
    pub hours: u64,
    /// Keep one of so many negative training rows.
    pub thin_negatives: f64,
    /// Keep one of so many positive training rows: minutes of one incident are much alike.
    pub thin_positives: f64,
    /// Trees at most.
    pub trees: usize,
}

impl Size {
    /// What the built-in model is made with.
    pub fn full() -> Self {
        Self {
            fleets: [10, 3, 4, 4],
            nodes: 24,
            hours: 36,
            thin_negatives: 12.0,
            thin_positives: 3.0,
            trees: 120,
        }
    }

    /// Enough to try the machinery in seconds; the model is worth nothing.
    pub fn tiny() -> Self {
        Self {
            fleets: [1, 1, 1, 1],
            nodes: 6,
            hours: 6,
            thin_negatives: 4.0,
            thin_positives: 1.0,
            trees: 6,
        }
    }
}

/// Why no built-in model came out.
#[derive(Debug, thiserror::Error)]
pub enum SyntheticError {
    /// The fleet could not be simulated.
    #[error("the training fleet cannot be simulated")]
    Fleet(#[from] FleetError),
    /// The schema is not the built-in one.
    #[error("the schema lacks the feature `{0}` of the built-in model")]
    Feature(&'static str),
    /// Nothing could be learned.
    #[error("nothing could be learned from the training fleet")]
    Learn(#[from] LearnError),
}

/// How far the work has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many of so many fleets are simulated.
    Fleets(usize, usize),
    /// So many trees are grown.
    Trees(usize),
}

/// Makes the built-in model. The same seed and size give the same bytes on every platform.
///
/// # Errors
///
/// [`SyntheticError`].
pub fn train(
    seed: u64,
    size: &Size,
    mut progress: impl FnMut(Progress),
) -> Result<Artifact, SyntheticError> {
    let schema = Arc::new(Schema::built_in());
    let plan = plan(&schema, seed, size)?;
    let total: usize = size.fleets.iter().sum();
    let mut slices: [Slice; 4] = Default::default();
    let mut number = 0;
    for (role, slice) in slices.iter_mut().enumerate() {
        let mut rows = Rows::default();
        for _ in 0..size.fleets[role] {
            simulate(&schema, seed, number, size, role == 0, &mut rows)?;
            number += 1;
            progress(Progress::Fleets(number, total));
        }
        if role == 0 {
            rows.add_oddities(&mut ChaCha8Rng::seed_from_u64(training_seed(seed) ^ 0x6f64));
        }
        *slice = rows.into_slice();
    }
    let [train, validation, calibration, test] = slices;
    let slices = Slices {
        train,
        validation,
        calibration,
        test,
    };
    Ok(learn(&plan, &slices, |trees| {
        progress(Progress::Trees(trees))
    })?)
}

fn plan(schema: &Schema, seed: u64, size: &Size) -> Result<Plan, SyntheticError> {
    let columns: Result<Vec<ColumnPlan>, SyntheticError> = COLUMNS
        .iter()
        .map(|column| {
            let meaning = meaning_of(schema, column.feature)
                .ok_or(SyntheticError::Feature(column.feature))?;
            Ok(ColumnPlan {
                name: column.feature.to_owned(),
                rising: true,
                meaning,
            })
        })
        .collect();
    Ok(Plan {
        name: "synthetic".to_owned(),
        source: Source::Synthetic,
        columns: columns?,
        masks: masks(schema),
        bins: 32,
        settings: Settings {
            trees_max: size.trees,
            depth: 4,
            rate: 0.12,
            row_share: 0.6,
            l2: 10.0,
            leaf_rows_min: 30,
            patience: 15,
            rising: Vec::new(),
            seed,
        },
        horizon_seconds: HORIZON.as_secs(),
        command: format!("foreshock train --synthetic --seed {seed}"),
        nodes: (size.fleets[0] * size.nodes) as u64,
    })
}

/// What goes missing together: each collector, everything that needs history (a young Prometheus),
/// and everything optional at once (a small VM without Kubernetes metrics).
fn masks(schema: &Schema) -> Vec<Mask> {
    let places = |keep: &dyn Fn(&crate::features::Feature) -> bool| -> Vec<usize> {
        let columns = COLUMNS.iter().enumerate();
        columns
            .filter(|(_, column)| schema.feature(column.feature).is_some_and(keep))
            .map(|(place, _)| place)
            .collect()
    };
    let mut masks: Vec<Mask> = schema
        .groups()
        .iter()
        .map(|group| Mask {
            columns: places(&|feature| {
                feature
                    .sources
                    .iter()
                    .any(|source| source.group.as_ref() == Some(group))
            }),
            share: 0.1,
        })
        .collect();
    masks.push(Mask {
        columns: places(&|feature| !feature.history.is_zero()),
        share: 0.3,
    });
    masks.push(Mask {
        columns: places(&|feature| feature.optional),
        share: 0.1,
    });
    masks.retain(|mask| !mask.columns.is_empty());
    masks
}

/// Rows as they are gathered.
#[derive(Default)]
struct Rows {
    values: Vec<f64>,
    labels: Vec<bool>,
}

impl Rows {
    fn into_slice(self) -> Slice {
        let shape = (self.labels.len(), COLUMNS.len());
        let values = Array2::from_shape_vec(shape, self.values)
            .expect("every label was pushed with one value for each column");
        Slice {
            values,
            labels: self.labels,
        }
    }

    /// Adds healthy rows that no fleet shows: copies of negative rows in which one to three groups
    /// read anything up to what is harmless. Real machines are odder than any simulation of them.
    fn add_oddities(&mut self, rng: &mut ChaCha8Rng) {
        let negatives: Vec<usize> = (0..self.labels.len())
            .filter(|i| !self.labels[*i])
            .collect();
        for from in negatives.iter().filter(|i| *i % 3 == 0) {
            let mut row = self.values[from * COLUMNS.len()..(from + 1) * COLUMNS.len()].to_vec();
            let n_groups = 1 + (unit(rng) * 3.0) as usize;
            for _ in 0..n_groups {
                let group = Group::ALL[(unit(rng) * Group::ALL.len() as f64) as usize];
                for (value, column) in row.iter_mut().zip(COLUMNS) {
                    let hit = column.group == group && unit(rng) < 0.7;
                    // Half of them near the limit, where it is decided.
                    let near = unit(rng) < 0.5;
                    let share = unit(rng);
                    if hit && !value.is_nan() {
                        let odd = column.harmless * if near { 0.7 + 0.3 * share } else { share };
                        *value = value.max(odd);
                    }
                }
            }
            self.values.extend(row);
            self.labels.push(false);
        }
    }
}

/// Simulates one fleet and gathers its rows, one per Node and minute, thinned for training.
fn simulate(
    schema: &Arc<Schema>,
    seed: u64,
    number: usize,
    size: &Size,
    thin: bool,
    rows: &mut Rows,
) -> Result<(), SyntheticError> {
    // Later fleets are later in time, and no Node is in two of them.
    let start = after(Timestamp::UNIX_EPOCH, Duration::from_secs(20_000 * 86_400))
        .checked_add(SignedDuration::from_hours(
            48 * number as i64 + 7 * (number as i64 % 5),
        ))
        .unwrap_or(Timestamp::UNIX_EPOCH);
    let end = after(start, Duration::from_secs(size.hours * 3_600));
    let seed = training_seed(seed.wrapping_mul(1_009).wrapping_add(number as u64));
    let nodes = node_names(size.nodes);
    let schedule = random_schedule(seed, &nodes, start, end, &rates());
    // Half of the fleets have the short window that a fast scrape interval allows.
    let rate_window = Duration::from_secs(if number.is_multiple_of(2) { 300 } else { 60 });
    let scrape = Duration::from_secs(15);
    let mut fleet = Fleet::new(FleetOptions {
        seed,
        nodes: nodes.clone(),
        start,
        tick: scrape,
        schedule,
        memory: Some(MemoryOptions {
            scrapes: Scrapes::Every(scrape),
            rate_window,
            long: Duration::from_secs(86_400),
        }),
    })?;
    let columns = Columns::new(schema.clone(), rate_window, Duration::from_secs(120));
    let places: Vec<Option<usize>> = COLUMNS
        .iter()
        .map(|column| schema.column_of(column.feature))
        .collect();
    let mut gathered: Vec<(usize, Timestamp, Vec<f64>)> = Vec::new();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let thinned = if thin {
        size.thin_negatives.min(size.thin_positives)
    } else {
        3.0
    };
    for minute in 2..size.hours * 60 - HORIZON.as_secs() / 60 {
        let at = after(start, Duration::from_secs(minute * 60));
        fleet.advance(at);
        for node in 0..nodes.len() {
            // What both kinds lose need not be computed.
            if unit(&mut rng) * thinned >= 1.0 {
                continue;
            }
            let mut values = vec![f64::NAN; schema.len()];
            let scraped = columns.row(&fleet, node, at, |column, value, _| values[column] = value);
            if scraped.is_some() {
                let row = places
                    .iter()
                    .map(|p| p.map_or(f64::NAN, |p| values[p]))
                    .collect();
                gathered.push((node, at, row));
            }
        }
    }
    fleet.advance(end);
    let keep = |label: bool| match (thin, label) {
        (false, _) => 1.0,
        (true, true) => thinned / size.thin_positives,
        (true, false) => thinned / size.thin_negatives,
    };
    for (node, at, row) in gathered {
        let label = concerns(&fleet, &nodes[node], at);
        if unit(&mut rng) < keep(label) {
            rows.values.extend(row);
            rows.labels.push(label);
        }
    }
    Ok(())
}

/// Whether a Node is in an incident, or one begins within the horizon.
fn concerns(fleet: &Fleet, node: &NodeName, at: Timestamp) -> bool {
    let by = after(at, HORIZON);
    fleet
        .incidents(node)
        .iter()
        .any(|incident| incident.concerns(at, by))
}

/// About three faults per Node in two days, so that a fleet of a day and a half shows every kind.
fn rates() -> FaultRates {
    FaultRates {
        per_day: vec![
            (FaultKind::MemoryLeak, 0.25),
            (FaultKind::SlowDisk, 0.25),
            (FaultKind::PacketLoss, 0.25),
            (FaultKind::Overheating, 0.2),
            (FaultKind::CpuStarvation, 0.25),
            (FaultKind::FillingFilesystem, 0.2),
            (FaultKind::RebootLoop, 0.15),
            (FaultKind::LostCollector, 0.05),
            (FaultKind::VanishedExporter, 0.1),
        ],
        severity: (0.11, 0.99),
        lasts: (Duration::from_secs(240), Duration::from_secs(3 * 3_600)),
    }
}

fn after(at: Timestamp, duration: Duration) -> Timestamp {
    SignedDuration::try_from(duration)
        .ok()
        .and_then(|duration| at.checked_add(duration).ok())
        .unwrap_or(at)
}
