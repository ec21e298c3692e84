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
use super::collector::Collector;
use super::counters::{IDLE, IOWAIT, IRQ, MODES, PLEG_BOUNDS, SOFTIRQ, STEAL};
use super::fault::from_ms;
use super::hardware::Sensors;
use super::history::{History, KUBELET, OUTSIDE, Window, counter as c, gauge as g};
use super::node::SimulatedNode;

/// Computes the columns of a schema from a fleet that remembers.
#[derive(Clone, Debug)]
pub struct Columns {
    schema: Arc<Schema>,
    /// What to compute for each column; `None` for a feature that the simulation does not know.
    bases: Vec<Option<Base>>,
    rate_ms: i64,
    stale_ms: i64,
}

/// The features that the simulation can compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    CpuUsed,
    CpuIowait,
    CpuSteal,
    CpuSoftirq,
    CpuWorstCore,
    LoadPerCore,
    PsiCpu,
    CpuThrottles,
    MemUsed,
    MemIn1h,
    MemCommit,
    PsiMem,
    SwapPages,
    MajorFaults,
    OomKills,
    MemCorrupted,
    DiskBusy,
    DiskQueue,
    DiskAwaitRead,
    DiskAwaitWrite,
    PsiIo,
    FsUsed,
    FsIn24h,
    InodesUsed,
    FsBroken,
    NetErrorRatio,
    NetDropRatio,
    TcpRetransRatio,
    TcpTimeoutRatio,
    ListenOverflows,
    SoftnetDrops,
    CarrierChanges,
    ConntrackUsed,
    FdUsed,
    EntropyFree,
    ProcsBlocked,
    CtxVsDay,
    TempVsCrit,
    EdacCe,
    EdacUe,
    MdFailed,
    ClockOffset,
    ClockUnsynced,
    DownShare,
    UpFlaps,
    Reboots,
    ScrapeSeconds,
    CollectorsFailed,
    NetLatencyProbe,
    NetProbeLoss,
    PodsUsed,
    PodRestarts,
    PlegP99,
}

const BASES: [(&str, Base); 53] = [
    ("cpu_used", Base::CpuUsed),
    ("cpu_iowait", Base::CpuIowait),
    ("cpu_steal", Base::CpuSteal),
    ("cpu_softirq", Base::CpuSoftirq),
    ("cpu_worst_core", Base::CpuWorstCore),
    ("load_per_core", Base::LoadPerCore),
    ("psi_cpu", Base::PsiCpu),
    ("cpu_throttles", Base::CpuThrottles),
    ("mem_used", Base::MemUsed),
    ("mem_in_1h", Base::MemIn1h),
    ("mem_commit", Base::MemCommit),
    ("psi_mem", Base::PsiMem),
    ("swap_pages", Base::SwapPages),
    ("major_faults", Base::MajorFaults),
    ("oom_kills", Base::OomKills),
    ("mem_corrupted", Base::MemCorrupted),
    ("disk_busy", Base::DiskBusy),
    ("disk_queue", Base::DiskQueue),
    ("disk_await_read", Base::DiskAwaitRead),
    ("disk_await_write", Base::DiskAwaitWrite),
    ("psi_io", Base::PsiIo),
    ("fs_used", Base::FsUsed),
    ("fs_in_24h", Base::FsIn24h),
    ("inodes_used", Base::InodesUsed),
    ("fs_broken", Base::FsBroken),
    ("net_error_ratio", Base::NetErrorRatio),
    ("net_drop_ratio", Base::NetDropRatio),
    ("tcp_retrans_ratio", Base::TcpRetransRatio),
    ("tcp_timeout_ratio", Base::TcpTimeoutRatio),
    ("listen_overflows", Base::ListenOverflows),
    ("softnet_drops", Base::SoftnetDrops),
    ("carrier_changes", Base::CarrierChanges),
    ("conntrack_used", Base::ConntrackUsed),
    ("fd_used", Base::FdUsed),
    ("entropy_free", Base::EntropyFree),
    ("procs_blocked", Base::ProcsBlocked),
    ("ctx_vs_day", Base::CtxVsDay),
    ("temp_vs_crit", Base::TempVsCrit),
    ("edac_ce", Base::EdacCe),
    ("edac_ue", Base::EdacUe),
    ("md_failed", Base::MdFailed),
    ("clock_offset", Base::ClockOffset),
    ("clock_unsynced", Base::ClockUnsynced),
    ("down_share", Base::DownShare),
    ("up_flaps", Base::UpFlaps),
    ("reboots", Base::Reboots),
    ("scrape_seconds", Base::ScrapeSeconds),
    ("collectors_failed", Base::CollectorsFailed),
    ("net_latency_probe", Base::NetLatencyProbe),
    ("net_probe_loss", Base::NetProbeLoss),
    ("pods_used", Base::PodsUsed),
    ("pod_restarts", Base::PodRestarts),
    ("pleg_p99", Base::PlegP99),
];

const QUARTER_HOUR_MS: i64 = 900_000;
const HOUR_MS: i64 = 3_600_000;
const SIX_HOURS_MS: i64 = 21_600_000;
const DAY_MS: i64 = 86_400_000;

impl Columns {
    /// For a schema, with the `rate_window` and `stale_after` of the configuration (5 min and 2 min
    /// by default). A feature that the simulation does not know stays missing.
    pub fn new(schema: Arc<Schema>, rate_window: Duration, stale_after: Duration) -> Self {
        let base = |feature: &Feature| {
            let name = feature.name.as_str();
            BASES
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, base)| *base)
        };
        Self {
            bases: schema.features().iter().map(base).collect(),
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
        let history = fleet.histories.get(index)?;
        let node = fleet.nodes.get(index)?;
        let at_ms = at.as_millisecond();
        let (_, scraped_ms) = history
            .fresh(at_ms)
            .filter(|(_, t)| at_ms - t < self.stale_ms)?;
        let first_ms = history.first_up_ms()?;
        let mut moments = Moments::default();
        for (column, (feature, base)) in self.schema.features().iter().zip(&self.bases).enumerate()
        {
            let Some(base) = *base else { continue };
            // Asked for at multiples of `every` only: the value is as old as the last of them.
            let every = feature.every.map_or(1, millis).max(1);
            let asked_ms = at_ms.div_euclid(every) * every;
            if asked_ms - millis(feature.history) < first_ms && !feature.history.is_zero() {
                continue;
            }
            let Some(moment) = moments.at(history, asked_ms, self.rate_ms) else {
                continue;
            };
            let source = source_of(base, node);
            let Some(bits) = bits_of(feature, source) else {
                continue;
            };
            if !history.shows(moment.last, bits) {
                continue;
            }
            let sight = Sight {
                node,
                history,
                moment,
                rate_ms: self.rate_ms,
            };
            let value = match sight.value(base) {
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

/// Which of a feature's sources, in the order of the built-in schema, a Node answers by.
fn source_of(base: Base, node: &SimulatedNode) -> u8 {
    match (base, node.hardware.sensors) {
        (Base::TempVsCrit, Sensors::HwmonPlain) => 1,
        (Base::TempVsCrit, Sensors::ThermalZone) => 2,
        _ => 0,
    }
}

/// What must have been seen for a source to count; `None` if the schema has no such source or names
/// a collector that is not simulated.
fn bits_of(feature: &Feature, source: u8) -> Option<u32> {
    match &feature.sources.get(usize::from(source))?.group {
        None => Some(0),
        Some(group) => Collector::of_name(group).map(Collector::bit),
    }
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
    moment: Moment,
    rate_ms: i64,
}

impl Sight<'_> {
    /// What PromQL would say, NaN and absence alike `None` or NaN.
    fn value(&self, base: Base) -> Option<f64> {
        let hardware = &self.node.hardware;
        match base {
            Base::CpuUsed => Some(1.0 - self.mode_share(&[IDLE, IOWAIT])?),
            Base::CpuIowait => self.mode_share(&[IOWAIT]),
            Base::CpuSteal => self.mode_share(&[STEAL]),
            Base::CpuSoftirq => self.mode_share(&[SOFTIRQ, IRQ]),
            Base::CpuWorstCore => {
                let cores = 0..hardware.cores;
                let quiet = cores.map(|core| self.rate(self.history.layout.core(core)));
                quiet.flatten().map(|quiet| 1.0 - quiet).reduce(f64::max)
            }
            Base::LoadPerCore => self.per_core(g::LOAD5),
            Base::PsiCpu => self.rate(c::PSI_CPU),
            Base::CpuThrottles => {
                self.throttles_shown()?;
                self.long_increase(QUARTER_HOUR_MS, c::THROTTLES)
            }
            Base::MemUsed => Some(1.0 - self.gauge(g::MEMORY_AVAILABLE) / hardware.memory),
            Base::MemIn1h => {
                let free = self.predicted(HOUR_MS, HOUR_MS, g::MEMORY, g::MEMORY + 3)?;
                Some((1.0 - free).max(-1.0))
            }
            Base::MemCommit => {
                Some(self.gauge(g::COMMITTED) / super::exposition::commit_limit(hardware))
            }
            Base::PsiMem => self.rate(c::PSI_MEMORY),
            Base::SwapPages => Some(self.rate(c::SWAPPED_IN)? + self.rate(c::SWAPPED_OUT)?),
            Base::MajorFaults => self.rate(c::MAJOR_FAULTS),
            Base::OomKills => self.long_increase(HOUR_MS, c::OOM_KILLS),
            Base::MemCorrupted => hardware.ecc.then_some(0.0),
            Base::DiskBusy => self.worst_disk(|disk| self.rate(disk + c::IO_TIME)),
            Base::DiskQueue => self.worst_disk(|disk| self.rate(disk + c::IO_WEIGHTED)),
            Base::DiskAwaitRead => {
                self.worst_disk(|disk| self.ratio(&[disk + c::READ_TIME], &[disk + c::READS]))
            }
            Base::DiskAwaitWrite => {
                self.worst_disk(|disk| self.ratio(&[disk + c::WRITE_TIME], &[disk + c::WRITES]))
            }
            Base::PsiIo => self.rate(c::PSI_IO),
            Base::FsUsed => Some(1.0 - self.gauge(g::SPACE_FREE)),
            Base::FsIn24h => {
                let all = 0..self.history.layout.filesystems;
                let free = all.filter_map(|index| {
                    let values = g::FIXED + 2 * index;
                    self.predicted(SIX_HOURS_MS, DAY_MS, g::FILESYSTEMS, values)
                });
                Some(1.0 - free.reduce(f64::min)?)
            }
            Base::InodesUsed => Some(1.0 - self.gauge(g::INODES_FREE)),
            Base::FsBroken => Some(self.gauge(g::READ_ONLY)),
            Base::NetErrorRatio => self.ratio(
                &[c::RX_ERRORS, c::TX_ERRORS],
                &[c::RX_PACKETS, c::TX_PACKETS],
            ),
            Base::NetDropRatio => {
                self.ratio(&[c::RX_DROPS, c::TX_DROPS], &[c::RX_PACKETS, c::TX_PACKETS])
            }
            Base::TcpRetransRatio => self.ratio(&[c::RETRANSMITTED], &[c::SEGMENTS_OUT]),
            Base::TcpTimeoutRatio => self.ratio(&[c::TIMEOUTS], &[c::SEGMENTS_OUT]),
            Base::ListenOverflows => self.rate(c::OVERFLOWS),
            Base::SoftnetDrops => self.rate(c::SOFTNET_DROPPED),
            Base::CarrierChanges => self.long_increase(HOUR_MS, c::CARRIER_CHANGES),
            Base::ConntrackUsed => Some(self.gauge(g::CONNECTIONS) / hardware.conntrack_max),
            Base::FdUsed => Some(self.gauge(g::FILES_OPEN) / hardware.files_max),
            Base::EntropyFree => Some(self.gauge(g::ENTROPY) / hardware.entropy_pool),
            Base::ProcsBlocked => self.per_core(g::BLOCKED),
            Base::CtxVsDay => {
                let day = self.long_increase(DAY_MS, c::CONTEXT_SWITCHES)? / 86_400.0;
                let now = self.rate(c::CONTEXT_SWITCHES)?;
                (day > 0.0).then(|| now / day)
            }
            Base::TempVsCrit => match hardware.sensors {
                Sensors::None => None,
                Sensors::HwmonCritical(_) | Sensors::HwmonPlain | Sensors::ThermalZone => {
                    Some(self.gauge(g::TEMPERATURE))
                }
            },
            Base::EdacCe => self.long_increase(DAY_MS, c::CORRECTABLE),
            Base::EdacUe => self.long_increase(DAY_MS, c::UNCORRECTABLE),
            Base::MdFailed => Some(0.0),
            Base::ClockOffset => Some(self.gauge(g::CLOCK_OFFSET).abs()),
            Base::ClockUnsynced => Some(f64::from(u8::from(!hardware.clock_synced))),
            Base::DownShare => {
                let all = self.long_sum(QUARTER_HOUR_MS, g::SCRAPES)?;
                let up = self.long_sum(QUARTER_HOUR_MS, g::UPS)?;
                (all > 0.0).then(|| 1.0 - up / all)
            }
            Base::UpFlaps => Some(self.history.flaps(self.moment.at_ms)),
            Base::Reboots => Some(self.history.boots(self.moment.at_ms)),
            Base::ScrapeSeconds => self.average(g::SCRAPE_SECONDS),
            Base::CollectorsFailed => Some(self.gauge(g::COLLECTORS_FAILED)),
            Base::NetLatencyProbe => self.average(g::ROUND_TRIPS),
            Base::NetProbeLoss => Some(1.0 - self.average(g::PROBES_BACK)?),
            Base::PodsUsed => self
                .history
                .shows(self.moment.last, KUBELET | OUTSIDE)
                .then(|| self.gauge(g::PODS) / f64::from(self.node.pods_max)),
            Base::PodRestarts => self.long_increase(HOUR_MS, c::RESTARTS),
            Base::PlegP99 => self.relist_quantile(0.99),
        }
    }

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

    /// Throttling is counted on real machines only.
    fn throttles_shown(&self) -> Option<()> {
        super::exposition::shows_throttles(&self.node.hardware).then_some(())
    }

    /// `histogram_quantile()` over the relists of the window.
    fn relist_quantile(&self, quantile: f64) -> Option<f64> {
        let mut cumulative = [0.0_f64; PLEG_BOUNDS.len() + 1];
        let mut highest = 0.0_f64;
        for (bucket, rate) in cumulative.iter_mut().enumerate() {
            // Buckets that were rounded apart count as one.
            highest = highest.max(self.rate(c::PLEG + bucket)?);
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
