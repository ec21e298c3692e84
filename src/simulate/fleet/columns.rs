//! Every base feature, computed from a fleet's own counters as PromQL would from scrapes of them.
//!
//! The formulas are those of `config/features.toml`; what counts as a value (fresh scrape, collector
//! that succeeded, history long enough, possible number, absence that means zero) follows
//! `features::assemble`. A test scrapes the fleet with a real Prometheus and compares.

use std::sync::Arc;
use std::time::Duration;

use foreshock_core::node::NodeName;
use jiff::Timestamp;

use crate::features::matrix::FeatureMatrix;
use crate::features::schema::{Absent, Feature, Schema};

use super::Fleet;
use super::beside::Beside;
use super::collector::Collector;
use super::counters::{IDLE, IOWAIT, IRQ, MODES, PLEG_BOUNDS, SOFTIRQ, STEAL};
use super::fault::from_ms;
use super::hardware::Sensors;
use super::history::{History, Window};
use super::node::SimulatedNode;
use super::row::{counter as c, gauge as g};

/// Computes the columns of a schema from a fleet that remembers.
#[derive(Clone, Debug)]
pub struct Columns {
    schema: Arc<Schema>,
    /// How to compute each column.
    plans: Vec<Plan>,
    rate_ms: i64,
    stale_ms: i64,
}

/// How one column is computed.
#[derive(Clone, Debug)]
struct Plan {
    /// `None` for a feature that the simulation does not know.
    formula: Option<Formula>,
    every_ms: i64,
    history_ms: i64,
    /// What must have been seen for each source to count; `None` for a collector that is not
    /// simulated.
    bits: Vec<Option<u32>>,
    /// Whether the source depends on the sensors of the machine.
    by_sensor: bool,
}

impl Plan {
    fn new(feature: &Feature) -> Self {
        let name = feature.name.as_str();
        let formula = FORMULAS.iter().find(|(known, _)| *known == name);
        let bits = feature.sources.iter().map(|source| match &source.group {
            None => Some(0),
            Some(group) => Collector::of_name(group).map(Collector::bit),
        });
        Self {
            formula: formula.map(|(_, formula)| *formula),
            every_ms: feature.every.map_or(1, millis).max(1),
            history_ms: millis(feature.history),
            bits: bits.collect(),
            by_sensor: name == "temp_vs_crit",
        }
    }

    /// Which of the sources, in the order of the built-in schema, a Node answers by.
    fn source(&self, node: &SimulatedNode) -> u8 {
        match node.hardware.sensors {
            Sensors::HwmonPlain if self.by_sensor => 1,
            Sensors::ThermalZone if self.by_sensor => 2,
            Sensors::HwmonCritical(_)
            | Sensors::HwmonPlain
            | Sensors::ThermalZone
            | Sensors::None => 0,
        }
    }
}

const QUARTER_HOUR_MS: i64 = 900_000;
const HOUR_MS: i64 = 3_600_000;
const SIX_HOURS_MS: i64 = 21_600_000;
const DAY_MS: i64 = 86_400_000;

/// What is computed of one Node at one moment; NaN and `None` alike are no sample.
type Formula = fn(&Sight<'_>) -> Option<f64>;

/// The features that the simulation knows, with what PromQL would say of each.
const FORMULAS: [(&str, Formula); 53] = [
    ("cpu_used", |sight| {
        Some(1.0 - sight.mode_share(&[IDLE, IOWAIT])?)
    }),
    ("cpu_iowait", |sight| sight.mode_share(&[IOWAIT])),
    ("cpu_steal", |sight| sight.mode_share(&[STEAL])),
    ("cpu_softirq", |sight| sight.mode_share(&[SOFTIRQ, IRQ])),
    ("cpu_worst_core", |sight| {
        let cores = 0..sight.node.hardware.cores;
        let quiet = cores.map(|core| sight.rate(sight.history.layout.core(core)));
        quiet.flatten().map(|quiet| 1.0 - quiet).reduce(f64::max)
    }),
    ("load_per_core", |sight| sight.per_core(g::LOAD5)),
    ("psi_cpu", |sight| sight.rate(c::PSI_CPU)),
    ("cpu_throttles", |sight| {
        sight.throttles_shown()?;
        sight.long_increase(QUARTER_HOUR_MS, c::THROTTLES)
    }),
    ("mem_used", |sight| {
        Some(1.0 - sight.gauge(g::MEMORY_AVAILABLE) / sight.node.hardware.memory)
    }),
    ("mem_in_1h", |sight| {
        let free = sight.predicted(HOUR_MS, HOUR_MS, g::MEMORY, g::MEMORY + 3)?;
        Some((1.0 - free).max(-1.0))
    }),
    ("mem_commit", |sight| {
        Some(sight.gauge(g::COMMITTED) / super::exposition::commit_limit(&sight.node.hardware))
    }),
    ("psi_mem", |sight| sight.rate(c::PSI_MEMORY)),
    ("swap_pages", |sight| {
        Some(sight.rate(c::SWAPPED_IN)? + sight.rate(c::SWAPPED_OUT)?)
    }),
    ("major_faults", |sight| sight.rate(c::MAJOR_FAULTS)),
    ("oom_kills", |sight| {
        sight.long_increase(HOUR_MS, c::OOM_KILLS)
    }),
    ("mem_corrupted", |sight| {
        sight.node.hardware.ecc.then_some(0.0)
    }),
    ("disk_busy", |sight| {
        sight.worst_disk(|disk| sight.rate(disk + c::IO_TIME))
    }),
    ("disk_queue", |sight| {
        sight.worst_disk(|disk| sight.rate(disk + c::IO_WEIGHTED))
    }),
    ("disk_await_read", |sight| {
        sight.worst_disk(|disk| sight.ratio(&[disk + c::READ_TIME], &[disk + c::READS]))
    }),
    ("disk_await_write", |sight| {
        sight.worst_disk(|disk| sight.ratio(&[disk + c::WRITE_TIME], &[disk + c::WRITES]))
    }),
    ("psi_io", |sight| sight.rate(c::PSI_IO)),
    ("fs_used", |sight| Some(1.0 - sight.gauge(g::SPACE_FREE))),
    ("fs_in_24h", |sight| {
        let all = 0..sight.history.layout.filesystems;
        let free = all.filter_map(|index| {
            let values = g::FIXED + 2 * index;
            sight.predicted(SIX_HOURS_MS, DAY_MS, g::FILESYSTEMS, values)
        });
        Some(1.0 - free.reduce(f64::min)?)
    }),
    ("inodes_used", |sight| {
        Some(1.0 - sight.gauge(g::INODES_FREE))
    }),
    ("fs_broken", |sight| Some(sight.gauge(g::READ_ONLY))),
    ("net_error_ratio", |sight| {
        sight.ratio(
            &[c::RX_ERRORS, c::TX_ERRORS],
            &[c::RX_PACKETS, c::TX_PACKETS],
        )
    }),
    ("net_drop_ratio", |sight| {
        sight.ratio(&[c::RX_DROPS, c::TX_DROPS], &[c::RX_PACKETS, c::TX_PACKETS])
    }),
    ("tcp_retrans_ratio", |sight| {
        sight.ratio(&[c::RETRANSMITTED], &[c::SEGMENTS_OUT])
    }),
    ("tcp_timeout_ratio", |sight| {
        sight.ratio(&[c::TIMEOUTS], &[c::SEGMENTS_OUT])
    }),
    ("listen_overflows", |sight| sight.rate(c::OVERFLOWS)),
    ("softnet_drops", |sight| sight.rate(c::SOFTNET_DROPPED)),
    ("carrier_changes", |sight| {
        sight.long_increase(HOUR_MS, c::CARRIER_CHANGES)
    }),
    ("conntrack_used", |sight| {
        Some(sight.gauge(g::CONNECTIONS) / sight.node.hardware.conntrack_max)
    }),
    ("fd_used", |sight| {
        Some(sight.gauge(g::FILES_OPEN) / sight.node.hardware.files_max)
    }),
    ("entropy_free", |sight| {
        Some(sight.gauge(g::ENTROPY) / sight.node.hardware.entropy_pool)
    }),
    ("procs_blocked", |sight| sight.per_core(g::BLOCKED)),
    ("ctx_vs_day", |sight| {
        let day = sight.long_increase(DAY_MS, c::CONTEXT_SWITCHES)? / 86_400.0;
        let now = sight.rate(c::CONTEXT_SWITCHES)?;
        (day > 0.0).then(|| now / day)
    }),
    ("temp_vs_crit", |sight| match sight.node.hardware.sensors {
        Sensors::None => None,
        Sensors::HwmonCritical(_) | Sensors::HwmonPlain | Sensors::ThermalZone => {
            Some(sight.gauge(g::TEMPERATURE))
        }
    }),
    ("edac_ce", |sight| {
        sight.long_increase(DAY_MS, c::CORRECTABLE)
    }),
    ("edac_ue", |sight| {
        sight.long_increase(DAY_MS, c::UNCORRECTABLE)
    }),
    ("md_failed", |_| Some(0.0)),
    ("clock_offset", |sight| {
        Some(sight.gauge(g::CLOCK_OFFSET).abs())
    }),
    ("clock_unsynced", |sight| {
        Some(f64::from(u8::from(!sight.node.hardware.clock_synced)))
    }),
    ("down_share", |sight| {
        let all = sight.long_sum(QUARTER_HOUR_MS, g::SCRAPES)?;
        let up = sight.long_sum(QUARTER_HOUR_MS, g::UPS)?;
        (all > 0.0).then(|| 1.0 - up / all)
    }),
    ("up_flaps", |sight| {
        Some(sight.history.flaps(sight.moment.at_ms))
    }),
    ("reboots", |sight| {
        Some(sight.history.boots(sight.moment.at_ms))
    }),
    ("scrape_seconds", |sight| sight.average(g::SCRAPE_SECONDS)),
    ("collectors_failed", |sight| {
        Some(sight.gauge(g::COLLECTORS_FAILED))
    }),
    ("net_latency_probe", |sight| Some(sight.probes()?.1)),
    ("net_probe_loss", |sight| Some(1.0 - sight.probes()?.0)),
    ("pods_used", |sight| {
        let pods = sight.beside.pods(sight.moment.at_ms)?;
        Some(pods / f64::from(sight.node.pods_max))
    }),
    ("pod_restarts", |sight| {
        sight.long_increase(HOUR_MS, c::RESTARTS)
    }),
    ("pleg_p99", |sight| sight.relist_quantile(0.99)),
];

impl Columns {
    /// For a schema, with the `rate_window` and `stale_after` of the configuration (5 min and 2 min
    /// by default). A feature that the simulation does not know stays missing.
    pub fn new(schema: Arc<Schema>, rate_window: Duration, stale_after: Duration) -> Self {
        Self {
            plans: schema.features().iter().map(Plan::new).collect(),
            schema,
            rate_ms: millis(rate_window),
            stale_ms: millis(stale_after),
        }
    }

    /// The schema of the columns.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// The features of every Node of a fleet at a time that it has reached.
    ///
    /// A fleet without memory has nothing to say: every row is missing.
    pub fn matrix(&self, fleet: &Fleet, at: Timestamp) -> FeatureMatrix {
        let names: Vec<NodeName> = fleet.names().cloned().collect();
        let mut matrix = FeatureMatrix::missing(at, self.schema.clone(), names);
        for row in 0..fleet.nodes.len() {
            let mut values = matrix.values.row_mut(row);
            let mut sources = matrix.sources.row_mut(row);
            matrix.scraped_at[row] = self.row(fleet, row, at, |column, value, source| {
                values[column] = value;
                sources[column] = source;
            });
        }
        matrix
    }

    /// The features of one Node, the `index`-th by name: calls `put` with column, value and index of
    /// the source for each that is not missing, and returns when the Node was scraped.
    ///
    /// For training, where a matrix of its own for every time would be waste.
    pub fn row(
        &self,
        fleet: &Fleet,
        index: usize,
        at: Timestamp,
        mut put: impl FnMut(usize, f64, u8),
    ) -> Option<Timestamp> {
        let (history, beside) = fleet.histories.get(index)?;
        let node = fleet.nodes.get(index)?;
        let at_ms = at.as_millisecond();
        let (last, scraped_ms) = history
            .fresh(at_ms)
            .filter(|(_, scraped_ms)| at_ms - scraped_ms < self.stale_ms)?;
        let mut moments = Moments::default();
        let columns = self.schema.features().iter().zip(&self.plans);
        for (column, (feature, plan)) in columns.enumerate() {
            let Some(formula) = plan.formula else {
                continue;
            };
            // Asked for at multiples of `every` only: the value is as old as the last of them.
            let asked_ms = at_ms.div_euclid(plan.every_ms) * plan.every_ms;
            if plan.history_ms > 0 && !history.covers(asked_ms, plan.history_ms) {
                continue;
            }
            let source = plan.source(node);
            // The collector must have succeeded now, whenever the value was asked for.
            let bits = plan.bits.get(usize::from(source)).copied().flatten();
            if bits.is_none_or(|bits| !history.shows(last, bits)) {
                continue;
            }
            let Some(moment) = moments.at(history, asked_ms, self.rate_ms) else {
                continue;
            };
            let sight = Sight {
                node,
                history,
                beside,
                moment,
                rate_ms: self.rate_ms,
            };
            let value = match formula(&sight) {
                Some(value) if !value.is_nan() => feature.possible(value),
                _ if feature.absent == Absent::Zero => {
                    Some(0.0_f64.clamp(feature.min, feature.max))
                }
                _ => None,
            };
            if let Some(value) = value {
                put(column, value, source);
            }
        }
        Some(from_ms(scraped_ms))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

/// One evaluation time, and what is found there.
#[derive(Clone, Copy)]
struct Moment {
    at_ms: i64,
    /// The last scrape.
    last: usize,
    window: Option<Window>,
}

/// The evaluation times of one row: now, and the last multiples of a feature's `every`.
#[derive(Default)]
struct Moments(Vec<(i64, Option<Moment>)>);

impl Moments {
    fn at(&mut self, history: &History, at_ms: i64, rate_ms: i64) -> Option<Moment> {
        if let Some((_, moment)) = self.0.iter().find(|(time, _)| *time == at_ms) {
            return *moment;
        }
        let moment = history.fresh(at_ms).map(|(last, _)| Moment {
            at_ms,
            last,
            window: history.window(at_ms, rate_ms),
        });
        self.0.push((at_ms, moment));
        moment
    }
}

/// One Node at one moment.
struct Sight<'a> {
    node: &'a SimulatedNode,
    history: &'a History,
    beside: &'a Beside,
    moment: Moment,
    rate_ms: i64,
}

impl Sight<'_> {
    fn gauge(&self, gauge: usize) -> f64 {
        self.history.gauge(self.moment.last, gauge)
    }

    fn rate(&self, place: usize) -> Option<f64> {
        let increase = self.history.increase(self.moment.window.as_ref()?, place)?;
        Some(increase * 1000.0 / self.rate_ms as f64)
    }

    /// Share of CPU time in some modes.
    fn mode_share(&self, modes: &[usize]) -> Option<f64> {
        let mut all = 0.0;
        for mode in 0..MODES.len() {
            all += self.rate(mode)?;
        }
        let mut some = 0.0;
        for mode in modes {
            some += self.rate(*mode)?;
        }
        Some(some / all)
    }

    /// A gauge divided by the number of cores, which the CPU collector tells.
    fn per_core(&self, gauge: usize) -> Option<f64> {
        let shown = self.history.shows(self.moment.last, Collector::Cpu.bit());
        shown.then(|| self.gauge(gauge) / self.node.hardware.cores as f64)
    }

    /// Rates above divided by rates below; `None` where nothing is below.
    fn ratio(&self, above: &[usize], below: &[usize]) -> Option<f64> {
        let sum = |places: &[usize]| {
            places
                .iter()
                .try_fold(0.0, |sum, place| Some(sum + self.rate(*place)?))
        };
        let below = sum(below)?;
        if below <= 0.0 {
            return None;
        }
        Some(sum(above)? / below)
    }

    fn worst_disk(&self, of: impl Fn(usize) -> Option<f64>) -> Option<f64> {
        (0..self.history.layout.disks)
            .filter_map(|disk| of(c::DISKS + c::PER_DISK * disk))
            .reduce(f64::max)
    }

    /// `avg_over_time()` of what was summed at every scrape.
    fn average(&self, sum: usize) -> Option<f64> {
        let window = self.moment.window.as_ref()?;
        Some(self.history.sum(window, sum) / self.history.sum(window, g::SCRAPES))
    }

    fn long_increase(&self, length_ms: i64, place: usize) -> Option<f64> {
        self.history
            .long_increase(self.moment.at_ms, length_ms, place)
    }

    fn long_sum(&self, length_ms: i64, sum: usize) -> Option<f64> {
        self.history.long_sum(self.moment.at_ms, length_ms, sum)
    }

    fn predicted(&self, length_ms: i64, ahead_ms: i64, times: usize, values: usize) -> Option<f64> {
        self.history
            .predicted(self.moment.at_ms, length_ms, ahead_ms, times, values)
    }

    fn probes(&self) -> Option<(f64, f64)> {
        self.beside.probes(self.moment.at_ms, self.rate_ms)
    }

    /// Throttling is counted on real machines only.
    fn throttles_shown(&self) -> Option<()> {
        super::exposition::shows_throttles(&self.node.hardware).then_some(())
    }

    /// `histogram_quantile()` over the relists of the window.
    fn relist_quantile(&self, quantile: f64) -> Option<f64> {
        let relists = self.beside.relists(self.moment.at_ms, self.rate_ms)?;
        let mut cumulative = relists;
        let mut highest = 0.0_f64;
        for (bucket, rate) in cumulative.iter_mut().enumerate() {
            // Buckets that were rounded apart count as one.
            highest = highest.max(relists[bucket]);
            *rate = highest;
        }
        let all = cumulative[PLEG_BOUNDS.len()];
        if all <= 0.0 {
            return None;
        }
        let rank = quantile * all;
        let bucket = cumulative.iter().position(|count| *count >= rank)?;
        let Some(upper) = PLEG_BOUNDS.get(bucket) else {
            return PLEG_BOUNDS.last().copied();
        };
        let (lower, below) = match bucket.checked_sub(1) {
            Some(before) => (PLEG_BOUNDS[before], cumulative[before]),
            None => (0.0, 0.0),
        };
        Some(lower + (upper - lower) * (rank - below) / (cumulative[bucket] - below))
    }
}
