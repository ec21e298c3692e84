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
    Columns, FaultEvent, FaultKind, FaultRates, Fleet, FleetError, FleetOptions, MemoryOptions,
    Scrapes, node_names, random_schedule, training_seed,
};

use super::artifact::{Artifact, Source, meaning_of};
use super::bins::Cut;
use super::boost::{RowSample, Settings, unit};
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
    /// Up to here the feature is no evidence, not even together with its whole group: real machines
    /// read so and are well. Training rows say so, whatever the simulated fleet looks like.
    pub harmless: f64,
    /// Up to here it is no evidence where the rest of its group is below `harmless`: a disk whose
    /// reads queue for a while, but not its writes. Where the feature alone must be able to speak,
    /// the same as `harmless`.
    pub alone: f64,
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
    /// Every group.
    pub const ALL: [Self; 7] = [
        Self::Cpu,
        Self::Memory,
        Self::Disk,
        Self::Filesystem,
        Self::Network,
        Self::Heat,
        Self::Up,
    ];
}

const fn column(feature: &'static str, group: Group, harmless: f64, alone: f64) -> SyntheticColumn {
    SyntheticColumn {
        feature,
        group,
        harmless,
        alone,
    }
}

/// The columns of the built-in model. In each the score may only rise.
///
/// Left out on purpose: what says how much work there is rather than how a machine bears it, what a
/// healthy machine may read at any value (context switches, entropy, Pods, collectors without
/// hardware), and what the simulated fleet cannot teach (memory errors, RAID, clock).
pub const COLUMNS: [SyntheticColumn; 28] = [
    column("load_per_core", Group::Cpu, 8.0, 8.0),
    column("psi_cpu", Group::Cpu, 1.0, 1.0),
    column("cpu_steal", Group::Cpu, 0.3, 0.35),
    column("cpu_throttles", Group::Cpu, 50.0, 200.0),
    column("mem_used", Group::Memory, 0.92, 0.93),
    column("mem_in_1h", Group::Memory, 0.95, 1.2),
    column("psi_mem", Group::Memory, 0.02, 0.1),
    column("swap_pages", Group::Memory, 500.0, 3_000.0),
    column("major_faults", Group::Memory, 800.0, 2_500.0),
    column("oom_kills", Group::Memory, 2.0, 4.0),
    column("cpu_iowait", Group::Disk, 0.4, 0.8),
    column("disk_queue", Group::Disk, 120.0, 300.0),
    column("disk_await_read", Group::Disk, 0.2, 0.5),
    column("disk_await_write", Group::Disk, 0.12, 0.5),
    column("psi_io", Group::Disk, 0.6, 0.95),
    column("procs_blocked", Group::Disk, 8.0, 12.0),
    column("fs_used", Group::Filesystem, 0.92, 0.92),
    column("fs_in_24h", Group::Filesystem, 1.0, 1.5),
    column("fs_broken", Group::Filesystem, 0.0, 1.0),
    column("tcp_retrans_ratio", Group::Network, 0.015, 0.04),
    column("tcp_timeout_ratio", Group::Network, 0.003, 0.01),
    column("net_drop_ratio", Group::Network, 0.02, 0.2),
    column("net_error_ratio", Group::Network, 0.001, 0.005),
    column("net_probe_loss", Group::Network, 0.02, 0.05),
    column("temp_vs_crit", Group::Heat, 0.92, 0.92),
    column("down_share", Group::Up, 0.2, 0.6),
    column("up_flaps", Group::Up, 2.0, 3.0),
    column("reboots", Group::Up, 1.0, 3.0),
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
            fleets: [14, 4, 4, 4],
            nodes: 24,
            hours: 36,
            thin_negatives: 8.0,
            thin_positives: 2.0,
            trees: 130,
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
    for ((role, fleets), slice) in Role::ALL.into_iter().zip(size.fleets).zip(&mut slices) {
        let mut rows = Rows::default();
        for _ in 0..fleets {
            gather(&schema, seed, number, size, role, &mut rows)?;
            number += 1;
            progress(Progress::Fleets(number, total));
        }
        if role.teaches() {
            let stream = training_seed(seed) ^ (0x6f64 + number as u64);
            rows.add_oddities(&mut ChaCha8Rng::seed_from_u64(stream));
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
        cut: Cut {
            quantiles: 32,
            tails: true,
        },
        settings: Settings {
            trees_max: size.trees,
            depth: 5,
            rate: 0.2,
            rows: RowSample::Alike(0.6),
            column_share: 0.5,
            residual_max: 0.5,
            l2: 1.0,
            leaf_rows_min: 10,
            patience: 40,
            prior_differs: false,
            rising: Vec::new(),
            seed,
        },
        horizon_seconds: HORIZON.as_secs(),
        command: format!("foreshock train --synthetic --seed {seed}"),
        nodes: (size.fleets[0] * size.nodes) as u64,
        each_negative: 1.0,
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

    /// Adds rows that no fleet shows, under the label of the original: copies in which one to three
    /// groups read anything up to what is harmless, or one column what is harmless alone. Real
    /// machines are odder than any simulation of them. Positive rows are copied as well, or an odd
    /// value would prove that a machine is well.
    fn add_oddities(&mut self, rng: &mut ChaCha8Rng) {
        for from in (0..self.labels.len()).step_by(2) {
            let mut row = self.values[from * COLUMNS.len()..(from + 1) * COLUMNS.len()].to_vec();
            if unit(rng) < 0.3 {
                let column = (unit(rng) * COLUMNS.len() as f64) as usize;
                raise(
                    &mut row[column],
                    COLUMNS[column].alone * (0.3 + 0.73 * unit(rng)),
                );
            } else {
                for _ in 0..1 + (unit(rng) * 3.0) as usize {
                    let group = Group::ALL[(unit(rng) * Group::ALL.len() as f64) as usize];
                    add_oddity(&mut row, group, rng);
                }
            }
            self.values.extend(row);
            self.labels.push(self.labels[from]);
        }
    }
}

/// Makes one group read oddly, a third of the time all of it close to its limit: also
/// a little above, so that the limit itself is on the harmless side.
fn add_oddity(row: &mut [f64], group: Group, rng: &mut ChaCha8Rng) {
    let corner = unit(rng) < 0.33;
    for (value, column) in row.iter_mut().zip(COLUMNS) {
        let (hit, share) = (unit(rng) < 0.7, unit(rng));
        if column.group == group && (corner || hit) {
            raise(
                value,
                column.harmless
                    * if corner {
                        0.85 + 0.18 * share
                    } else {
                        1.03 * share
                    },
            );
        }
    }
}

fn raise(value: &mut f64, to: f64) {
    if !value.is_nan() {
        *value = value.max(to);
    }
}

/// What a fleet is simulated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Train,
    Stop,
    Calibrate,
    Judge,
}

impl Role {
    const ALL: [Self; 4] = [Self::Train, Self::Stop, Self::Calibrate, Self::Judge];

    /// Whether the trees learn from it: then rows are thinned by label. Calibration and judgement
    /// see both kinds in their true share.
    fn teaches(self) -> bool {
        match self {
            Self::Train | Self::Stop => true,
            Self::Calibrate | Self::Judge => false,
        }
    }

    /// Share of rows to keep, of negative and of positive ones.
    fn shares(self, size: &Size) -> (f64, f64) {
        if self.teaches() {
            (1.0 / size.thin_negatives, 1.0 / size.thin_positives)
        } else {
            // Every third minute: the rows in between say nearly the same.
            (1.0 / 3.0, 1.0 / 3.0)
        }
    }
}

/// One Node at one time.
struct Sample {
    node: usize,
    at: Timestamp,
    values: Vec<f64>,
}

/// Simulates one fleet and adds its rows, one per Node and minute, thinned.
fn gather(
    schema: &Arc<Schema>,
    seed: u64,
    number: usize,
    size: &Size,
    role: Role,
    rows: &mut Rows,
) -> Result<(), SyntheticError> {
    let seed = training_seed(seed.wrapping_mul(1_009).wrapping_add(number as u64));
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (negatives, positives) = role.shares(size);
    // Which kind a row is shows later; what neither kind keeps need not be computed.
    let most = negatives.max(positives);
    let (fleet, samples) = simulate(schema, seed, number, size, || unit(&mut rng) < most)?;
    let names: Vec<NodeName> = fleet.names().cloned().collect();
    for Sample { node, at, values } in samples {
        let name = &names[node];
        let label = is_degrading(&fleet, name, at);
        let share = if label { positives } else { negatives };
        let keep = unit(&mut rng) < share / most;
        if keep && (label || role == Role::Judge || is_well(&fleet, name, at)) {
            rows.values.extend(values);
            rows.labels.push(label);
        }
    }
    Ok(())
}

/// Runs a fleet to its end and takes samples along the way, as long as their label is known by then.
fn simulate(
    schema: &Arc<Schema>,
    seed: u64,
    number: usize,
    size: &Size,
    mut wanted: impl FnMut() -> bool,
) -> Result<(Fleet, Vec<Sample>), SyntheticError> {
    // Later fleets are later in time, at other hours of the day; no Node is in two of them.
    let begin = SignedDuration::from_hours(480_000 + 55 * number as i64);
    let start = Timestamp::UNIX_EPOCH
        .checked_add(begin)
        .unwrap_or(Timestamp::UNIX_EPOCH);
    let end = after(start, Duration::from_secs(size.hours * 3_600));
    let nodes = node_names(size.nodes);
    // Half of the fleets have the short window that a fast scrape interval allows.
    let rate_window = Duration::from_secs(if number.is_multiple_of(2) { 300 } else { 60 });
    let scrape = Duration::from_secs(15);
    let mut fleet = Fleet::new(FleetOptions {
        seed,
        schedule: random_schedule(seed, &nodes, start, end, &rates()),
        nodes,
        start,
        tick: scrape,
        memory: Some(MemoryOptions {
            scrapes: Scrapes::Every(scrape),
            rate_window,
            long: Duration::from_secs(86_400),
        }),
    })?;
    let columns = Columns::new(schema.clone(), rate_window, Duration::from_secs(120));
    let places = COLUMNS.map(|column| schema.column_of(column.feature));
    let mut samples = Vec::new();
    for minute in 2..size.hours * 60 - HORIZON.as_secs() / 60 {
        let at = after(start, Duration::from_secs(minute * 60));
        fleet.advance(at);
        for node in 0..size.nodes {
            if !wanted() {
                continue;
            }
            let mut all = vec![f64::NAN; schema.len()];
            let scraped = columns.row(&fleet, node, at, |column, value, _| all[column] = value);
            if scraped.is_some() {
                let values = places
                    .iter()
                    .map(|place| place.map_or(f64::NAN, |p| all[p]));
                samples.push(Sample {
                    node,
                    at,
                    values: values.collect(),
                });
            }
        }
    }
    fleet.advance(end);
    Ok((fleet, samples))
}

/// The label: an incident is on, or its cause is at work and it begins within the horizon. Before
/// that a simulated Node shows no sign of it, and what shows no sign cannot be learned or foreseen.
fn is_degrading(fleet: &Fleet, node: &NodeName, at: Timestamp) -> bool {
    let by = after(at, HORIZON);
    let at_work = || faults(fleet, node).any(|fault| fault.from <= at && at < fault.until());
    fleet
        .incidents(node)
        .iter()
        .any(|i| i.concerns(at, at) || (i.concerns(at, by) && at_work()))
}

/// Whether a Node that is not degrading is well. A disk that takes a third of a second on a machine
/// that hardly asks it is neither health nor an incident, so the trees are not told that it is one
/// of them; nor what is left of it in the rates when it is over.
fn is_well(fleet: &Fleet, node: &NodeName, at: Timestamp) -> bool {
    !faults(fleet, node).any(|fault| {
        let over = after(fault.until(), Duration::from_secs(600));
        let shown = fleet
            .incidents(node)
            .iter()
            .any(|i| i.concerns(fault.from, over));
        // Minutes after an incident are what recovery looks like, and do teach.
        fault.from <= at && at < if shown { fault.until() } else { over }
    })
}

fn faults<'a>(fleet: &'a Fleet, node: &'a NodeName) -> impl Iterator<Item = &'a FaultEvent> {
    fleet
        .faults()
        .filter(move |fault| fault.node == *node && fault.kind.degrades())
}

/// About three faults per Node in two days, so that a fleet of a day and a half shows every kind.
fn rates() -> FaultRates {
    FaultRates {
        per_day: vec![
            (FaultKind::MemoryLeak, 0.6),
            (FaultKind::SlowDisk, 0.8),
            (FaultKind::PacketLoss, 0.5),
            (FaultKind::Overheating, 0.5),
            (FaultKind::CpuStarvation, 0.6),
            (FaultKind::FillingFilesystem, 0.4),
            (FaultKind::RebootLoop, 0.3),
            (FaultKind::LostCollector, 0.1),
            (FaultKind::VanishedExporter, 0.2),
        ],
        severity: (0.11, 0.99),
        lasts: (Duration::from_secs(240), Duration::from_secs(5_400)),
    }
}

fn after(at: Timestamp, duration: Duration) -> Timestamp {
    SignedDuration::try_from(duration)
        .ok()
        .and_then(|duration| at.checked_add(duration).ok())
        .unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_model_and_another_seed_another() {
        let bytes = |seed| {
            train(seed, &Size::tiny(), |_| {})
                .unwrap()
                .to_bytes()
                .unwrap()
        };
        let first = bytes(5);
        assert_eq!(first, bytes(5));
        assert_ne!(first, bytes(6));
    }

    #[test]
    fn masks_cover_every_collector_a_young_history_and_a_bare_machine() {
        let schema = Schema::built_in();
        let masks = masks(&schema);
        let place = |feature: &str| COLUMNS.iter().position(|c| c.feature == feature).unwrap();
        let covers = |features: &[&'static str]| {
            let places: Vec<usize> = features.iter().map(|f| place(f)).collect();
            masks
                .iter()
                .any(|mask| places.iter().all(|p| mask.columns.contains(p)))
        };
        assert!(covers(&["psi_cpu", "psi_io", "psi_mem"]));
        assert!(covers(&["disk_queue", "disk_await_write"]));
        assert!(covers(&["fs_in_24h", "reboots", "up_flaps", "mem_in_1h"]));
        assert!(covers(&["temp_vs_crit", "net_probe_loss", "psi_io"]));
        assert!(
            masks
                .iter()
                .all(|mask| !mask.columns.is_empty() && mask.share > 0.0)
        );
    }

    #[test]
    fn oddities_stay_within_what_is_harmless_and_keep_their_label() {
        let mut rows = Rows::default();
        for i in 0..300 {
            rows.values.extend(COLUMNS.map(|_| 0.0));
            rows.labels.push(i % 10 == 0);
        }
        rows.add_oddities(&mut ChaCha8Rng::seed_from_u64(1));
        assert_eq!(rows.labels.len(), 450);
        let positives = rows.labels[300..].iter().filter(|label| **label).count();
        assert_eq!(positives, 30);
        let odd = &rows.values[300 * COLUMNS.len()..];
        assert!(odd.iter().any(|value| *value > 0.0));
        for row in odd.chunks(COLUMNS.len()) {
            for (value, column) in row.iter().zip(COLUMNS) {
                let most = 1.03 * column.alone;
                assert!((0.0..=most).contains(value), "{} {value}", column.feature);
            }
        }
    }

    #[test]
    fn every_column_is_a_feature_and_what_is_harmless_is_possible() {
        let schema = Schema::built_in();
        for column in COLUMNS {
            let feature = schema.feature(column.feature).expect(column.feature);
            assert!(column.harmless >= feature.min && column.harmless <= column.alone);
            assert!(column.alone < feature.max);
        }
    }
}
