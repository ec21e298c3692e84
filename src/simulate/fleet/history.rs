//! What a Prometheus would remember of one Node: recent scrapes whole, older ones thinned out and
//! reduced to what long windows need.
//!
//! Counters are kept twice, as scraped and with resets taken out, so that an increase over any window
//! is one subtraction. Sums (of values, of products with time, of changes) run on from scrape to
//! scrape: an average, a regression or a count of changes over any window is a difference too.

use std::collections::VecDeque;

use super::MemoryOptions;
use super::collector::Collector;
use super::counters::{
    BOOT_CARRIER_CHANGES, IDLE, IOWAIT, MODES, PLEG_BOUNDS, microseconds, milliseconds, whole,
};
use super::hardware::Sensors;
use super::node::SimulatedNode;

/// Counters by their place in a row. The modes of the CPU come first, in the order of [`MODES`].
pub(super) mod counter {
    pub(in super::super) const PSI_CPU: usize = 8;
    pub(in super::super) const PSI_MEMORY: usize = 9;
    pub(in super::super) const PSI_IO: usize = 10;
    pub(in super::super) const SWAPPED_IN: usize = 11;
    pub(in super::super) const SWAPPED_OUT: usize = 12;
    pub(in super::super) const MAJOR_FAULTS: usize = 13;
    pub(in super::super) const OOM_KILLS: usize = 14;
    pub(in super::super) const CONTEXT_SWITCHES: usize = 15;
    pub(in super::super) const RX_PACKETS: usize = 16;
    pub(in super::super) const TX_PACKETS: usize = 17;
    pub(in super::super) const RX_ERRORS: usize = 18;
    pub(in super::super) const TX_ERRORS: usize = 19;
    pub(in super::super) const RX_DROPS: usize = 20;
    pub(in super::super) const TX_DROPS: usize = 21;
    pub(in super::super) const SEGMENTS_OUT: usize = 22;
    pub(in super::super) const RETRANSMITTED: usize = 23;
    pub(in super::super) const TIMEOUTS: usize = 24;
    pub(in super::super) const OVERFLOWS: usize = 25;
    pub(in super::super) const SOFTNET_DROPPED: usize = 26;
    pub(in super::super) const THROTTLES: usize = 27;
    pub(in super::super) const CARRIER_CHANGES: usize = 28;
    pub(in super::super) const CORRECTABLE: usize = 29;
    pub(in super::super) const UNCORRECTABLE: usize = 30;
    pub(in super::super) const RESTARTS: usize = 31;
    /// Buckets of the Pod lifecycle event generator, `+Inf` last.
    pub(in super::super) const PLEG: usize = 32;
    /// Then six of each disk, then idle and waiting time of each core.
    pub(in super::super) const DISKS: usize = PLEG + super::PLEG_BOUNDS.len() + 1;
    pub(in super::super) const PER_DISK: usize = 6;
    /// Offsets of one disk.
    pub(in super::super) const IO_TIME: usize = 0;
    pub(in super::super) const IO_WEIGHTED: usize = 1;
    pub(in super::super) const READS: usize = 2;
    pub(in super::super) const READ_TIME: usize = 3;
    pub(in super::super) const WRITES: usize = 4;
    pub(in super::super) const WRITE_TIME: usize = 5;
}

/// Other numbers by their place after the counters: what is shown as it is.
pub(super) mod gauge {
    /// Bits of [`super::Seen`].
    pub(in super::super) const SEEN: usize = 0;
    pub(in super::super) const LOAD5: usize = 1;
    pub(in super::super) const MEMORY_AVAILABLE: usize = 2;
    pub(in super::super) const COMMITTED: usize = 3;
    pub(in super::super) const FILES_OPEN: usize = 4;
    pub(in super::super) const CONNECTIONS: usize = 5;
    pub(in super::super) const ENTROPY: usize = 6;
    pub(in super::super) const BLOCKED: usize = 7;
    pub(in super::super) const TEMPERATURE: usize = 8;
    pub(in super::super) const CLOCK_OFFSET: usize = 9;
    pub(in super::super) const COLLECTORS_FAILED: usize = 10;
    pub(in super::super) const PODS: usize = 11;
    pub(in super::super) const BOOT: usize = 12;
    /// Share of inodes that is free where it is least, 1 if the first filesystem is read-only.
    pub(in super::super) const INODES_FREE: usize = 13;
    pub(in super::super) const READ_ONLY: usize = 14;
    pub(in super::super) const SPACE_FREE: usize = 15;
    /// Running sums begin here: all that a long window may need.
    pub(in super::super) const SCRAPES: usize = 16;
    pub(in super::super) const UPS: usize = 17;
    pub(in super::super) const UP_CHANGES: usize = 18;
    pub(in super::super) const BOOTS: usize = 19;
    pub(in super::super) const SCRAPE_SECONDS: usize = 20;
    pub(in super::super) const PROBES_BACK: usize = 21;
    pub(in super::super) const ROUND_TRIPS: usize = 22;
    /// Regression sums: number, time, time squared, value, value × time.
    pub(in super::super) const MEMORY: usize = 23;
    /// Number, time, time squared, then value and value × time of each filesystem.
    pub(in super::super) const FILESYSTEMS: usize = 28;
    pub(in super::super) const FIXED: usize = 31;
}

/// Bits of what a scrape brought: collectors, then these.
pub(super) const KUBELET: u32 = 1 << 24;
pub(super) const OUTSIDE: u32 = 1 << 25;
const UP: u32 = 1 << 26;

/// Counters that some window longer than that of `rate()` asks for.
const LONG_COUNTERS: [usize; 7] = [
    counter::THROTTLES,
    counter::OOM_KILLS,
    counter::CARRIER_CHANGES,
    counter::CONTEXT_SWITCHES,
    counter::CORRECTABLE,
    counter::UNCORRECTABLE,
    counter::RESTARTS,
];

/// Long windows are thinned to this.
const LONG_STEP_MS: i64 = 60_000;

/// Where things are in a row of one Node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) disks: usize,
    pub(super) cores: usize,
    pub(super) filesystems: usize,
    counters: usize,
}

impl Layout {
    fn new(node: &SimulatedNode) -> Self {
        let (disks, cores) = (node.hardware.disks.len(), node.hardware.cores);
        Self {
            disks,
            cores,
            filesystems: node.hardware.filesystems.len(),
            counters: counter::DISKS + counter::PER_DISK * disks + cores,
        }
    }

    pub(super) fn core(self, core: usize) -> usize {
        counter::DISKS + counter::PER_DISK * self.disks + core
    }

    fn width(self) -> usize {
        2 * self.counters + gauge::FIXED + 2 * self.filesystems
    }

    /// Columns of a row that the long memory keeps: the running sums, and the long counters twice.
    fn long_width(self) -> usize {
        gauge::FIXED - gauge::SCRAPES + 2 * self.filesystems + 2 * LONG_COUNTERS.len()
    }
}

/// Rows in the order of their times.
#[derive(Clone, Debug, Default)]
struct Ring {
    times: VecDeque<i64>,
    rows: VecDeque<Box<[f64]>>,
}

impl Ring {
    /// The row to fill for a new time: that of one too old to keep, or a new one.
    fn spare(&mut self, keep_from_ms: i64, width: usize) -> Box<[f64]> {
        // One row beyond the window stays: its neighbour may begin inside of it.
        if self
            .times
            .get(1)
            .is_some_and(|second| *second < keep_from_ms)
        {
            self.times.pop_front();
            if let Some(row) = self.rows.pop_front() {
                return row;
            }
        }
        vec![0.0; width].into_boxed_slice()
    }

    fn push(&mut self, at_ms: i64, row: Box<[f64]>) {
        self.times.push_back(at_ms);
        self.rows.push_back(row);
    }

    /// Number of rows at or before a time.
    fn until(&self, at_ms: i64) -> usize {
        // Mostly the last row is asked for.
        match self.times.back() {
            Some(last) if *last <= at_ms => self.times.len(),
            _ => self.times.partition_point(|time| *time <= at_ms),
        }
    }
}

/// What is remembered of one Node.
#[derive(Clone, Debug)]
pub(super) struct History {
    pub(super) layout: Layout,
    origin_ms: i64,
    recent: Ring,
    recent_ms: i64,
    long: Ring,
    long_ms: i64,
    first_up_ms: Option<i64>,
}

/// One window of recent scrapes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// First and last row in it.
    first: usize,
    last: usize,
    /// Bits that every row of it has.
    always: u32,
    from_ms: i64,
    to_ms: i64,
}

impl History {
    pub(super) fn new(node: &SimulatedNode, options: &MemoryOptions, start_ms: i64) -> Self {
        let ms = |duration: std::time::Duration| {
            i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
        };
        Self {
            layout: Layout::new(node),
            origin_ms: start_ms,
            recent: Ring::default(),
            // Features are asked for up to a minute late, some at multiples of 5 min.
            recent_ms: ms(options.rate_window).saturating_add(420_000),
            long: Ring::default(),
            long_ms: ms(options.long).min(86_400_000) + 420_000,
            first_up_ms: None,
        }
    }

    /// Takes a scrape; times only go forward.
    pub(super) fn record(&mut self, node: &SimulatedNode, at_ms: i64) {
        if self.recent.times.back().is_some_and(|last| *last >= at_ms) {
            return;
        }
        let layout = self.layout;
        let mut row = self.recent.spare(at_ms - self.recent_ms, layout.width());
        self.fill(node, at_ms, &mut row);
        if seen(&row, layout) & UP != 0 {
            self.first_up_ms.get_or_insert(at_ms);
        }
        let due = (self.long.times.back()).is_none_or(|last| at_ms - last >= LONG_STEP_MS);
        if due {
            let mut thin = self.long.spare(at_ms - self.long_ms, layout.long_width());
            thin_out(&row, layout, &mut thin);
            self.long.push(at_ms, thin);
        }
        self.recent.push(at_ms, row);
    }

    fn fill(&self, node: &SimulatedNode, at_ms: i64, row: &mut [f64]) {
        let layout = self.layout;
        let before = self.recent.rows.back();
        let scraped = node.answers();
        let mut bits = OUTSIDE;
        if node.is_up() {
            bits |= KUBELET;
        }
        if scraped {
            bits |= UP;
            for collector in Collector::ALL {
                if node.shows(collector) {
                    bits |= collector.bit();
                }
            }
        }
        let (counters, rest) = row.split_at_mut(2 * layout.counters);
        let (raw, unrolled) = counters.split_at_mut(layout.counters);
        fill_counters(node, layout, raw);
        for (place, value) in raw.iter_mut().enumerate() {
            let Some(before) = before else {
                unrolled[place] = *value;
                continue;
            };
            let (was, sum) = (before[place], before[layout.counters + place]);
            if bits & group(place, layout) == 0 {
                // Not seen: nothing was learnt.
                *value = was;
                unrolled[place] = sum;
            } else {
                unrolled[place] = sum + if *value < was { *value } else { *value - was };
            }
        }
        let zero = vec![0.0; if before.is_none() { rest.len() } else { 0 }];
        let before = before.map_or(&zero[..], |before| &before[2 * layout.counters..]);
        self.fill_gauges(node, at_ms, bits, before, rest);
    }

    fn fill_gauges(
        &self,
        node: &SimulatedNode,
        at_ms: i64,
        bits: u32,
        before: &[f64],
        row: &mut [f64],
    ) {
        use gauge as g;
        let gauges = &node.gauges;
        row[g::SEEN] = f64::from(bits);
        row[g::LOAD5] = libm::round(gauges.load5 * 100.0) / 100.0;
        row[g::MEMORY_AVAILABLE] = gauges.memory_available();
        row[g::COMMITTED] = gauges.committed;
        row[g::FILES_OPEN] = gauges.files_open;
        row[g::CONNECTIONS] = gauges.connections;
        row[g::ENTROPY] = gauges.entropy;
        row[g::BLOCKED] = gauges.blocked;
        row[g::TEMPERATURE] = match node.hardware.sensors {
            Sensors::HwmonCritical(critical) => gauges.temperature / critical,
            Sensors::HwmonPlain | Sensors::ThermalZone | Sensors::None => {
                gauges.temperature / 100.0
            }
        };
        row[g::CLOCK_OFFSET] = gauges.clock_offset;
        row[g::COLLECTORS_FAILED] =
            f64::from(node.failing.count_ones()) + node.hardware.absent_others.len() as f64;
        row[g::PODS] = f64::from(gauges.pods);
        row[g::BOOT] = (node.boot_ms / 1000) as f64;
        let fixed = node.hardware.filesystems.iter().any(|spec| spec.read_only);
        row[g::READ_ONLY] = f64::from(u8::from(fixed || gauges.read_only));
        let (mut space, mut files) = (1.0_f64, 1.0_f64);
        let specs = &node.hardware.filesystems;
        for (spec, (bytes, inodes)) in specs.iter().zip(&gauges.filesystems) {
            space = space.min(bytes / spec.size);
            files = files.min(inodes / spec.files);
        }
        row[g::SPACE_FREE] = space;
        row[g::INODES_FREE] = files;

        let first = before[g::SCRAPES] == 0.0;
        let up = bits & UP != 0;
        let was_up = before[g::SEEN] as u32 & UP != 0;
        let add = |row: &mut [f64], place: usize, value: f64| row[place] = before[place] + value;
        add(row, g::SCRAPES, 1.0);
        add(row, g::UPS, f64::from(u8::from(up)));
        add(
            row,
            g::UP_CHANGES,
            f64::from(u8::from(!first && up != was_up)),
        );
        // A boot is seen at the first scrape that tells another boot time; until then the old one
        // is remembered.
        let tells = bits & Collector::Stat.bit() != 0;
        let rebooted = tells && before[g::UPS] > 0.0 && before[g::BOOT] != row[g::BOOT];
        add(row, g::BOOTS, f64::from(u8::from(rebooted)));
        if !tells && before[g::UPS] > 0.0 {
            row[g::BOOT] = before[g::BOOT];
        }
        add(
            row,
            g::SCRAPE_SECONDS,
            if up { gauges.scrape_seconds } else { 0.0 },
        );
        let back = gauges.probe_back;
        add(row, g::PROBES_BACK, f64::from(u8::from(back)));
        add(
            row,
            g::ROUND_TRIPS,
            if back { gauges.round_trip } else { 0.0 },
        );
        // Kilometres of seconds squared lose digits; hours since the origin do not.
        let time = (at_ms - self.origin_ms) as f64 / 3_600_000.0;
        let known = f64::from(u8::from(bits & Collector::Meminfo.bit() != 0));
        let share = gauges.memory_available() / node.hardware.memory;
        for (place, value) in [1.0, time, time * time, share, share * time]
            .into_iter()
            .enumerate()
        {
            add(row, g::MEMORY + place, known * value);
        }
        let known = f64::from(u8::from(bits & Collector::Filesystem.bit() != 0));
        for (place, value) in [1.0, time, time * time].into_iter().enumerate() {
            add(row, g::FILESYSTEMS + place, known * value);
        }
        for (index, (spec, (bytes, _))) in specs.iter().zip(&gauges.filesystems).enumerate() {
            let share = bytes / spec.size;
            add(row, g::FIXED + 2 * index, known * share);
            add(row, g::FIXED + 2 * index + 1, known * share * time);
        }
    }

    /// When the Node was first scraped.
    pub(super) fn first_up_ms(&self) -> Option<i64> {
        self.first_up_ms
    }

    /// The last scrape at or before a time, if it succeeded: its place and time.
    pub(super) fn fresh(&self, at_ms: i64) -> Option<(usize, i64)> {
        let place = self.recent.until(at_ms).checked_sub(1)?;
        let up = seen(&self.recent.rows[place], self.layout) & UP != 0;
        up.then(|| (place, self.recent.times[place]))
    }

    /// Whether a scrape brought all of these bits.
    pub(super) fn shows(&self, place: usize, bits: u32) -> bool {
        seen(&self.recent.rows[place], self.layout) & bits == bits
    }

    /// Something that is shown as it is.
    pub(super) fn gauge(&self, place: usize, gauge: usize) -> f64 {
        self.recent.rows[place][2 * self.layout.counters + gauge]
    }

    /// The scrapes in `(at − length, at]`; `None` without any.
    pub(super) fn window(&self, at_ms: i64, length_ms: i64) -> Option<Window> {
        let end = self.recent.until(at_ms);
        let first = self.recent.until(at_ms - length_ms);
        if first >= end {
            return None;
        }
        let rows = self.recent.rows.range(first..end);
        let always = rows.fold(u32::MAX, |bits, row| bits & seen(row, self.layout));
        Some(Window {
            first,
            last: end - 1,
            always,
            from_ms: at_ms - length_ms,
            to_ms: at_ms,
        })
    }

    /// `increase()` of a counter over a window of recent scrapes; divided by its length it is
    /// `rate()`. `None` with fewer than two scrapes that brought it.
    pub(super) fn increase(&self, window: &Window, place: usize) -> Option<f64> {
        let bits = group(place, self.layout);
        let (mut first, mut last) = (window.first, window.last);
        let mut count = last - first + 1;
        if window.always & bits != bits {
            let has = |row: usize| seen(&self.recent.rows[row], self.layout) & bits == bits;
            first = (first..=last).find(|row| has(*row))?;
            last = (first..=last).rev().find(|row| has(*row))?;
            count = (first..=last).filter(|row| has(*row)).count();
        }
        if count < 2 {
            return None;
        }
        let (from, to) = (&self.recent.rows[first], &self.recent.rows[last]);
        let unrolled = self.layout.counters + place;
        Some(extrapolated(&Slope {
            increase: to[unrolled] - from[unrolled],
            first: from[place],
            first_ms: self.recent.times[first],
            last_ms: self.recent.times[last],
            gaps: (count - 1) as f64,
            from_ms: window.from_ms,
            to_ms: window.to_ms,
        }))
    }

    /// The increase of a running sum over a window of recent scrapes, the first one included.
    pub(super) fn sum(&self, window: &Window, gauge: usize) -> f64 {
        let place = 2 * self.layout.counters + gauge;
        let before = match window.first.checked_sub(1) {
            Some(row) => self.recent.rows[row][place],
            None => 0.0,
        };
        self.recent.rows[window.last][place] - before
    }

    /// `increase()` of one of the long counters over a long window.
    pub(super) fn long_increase(&self, at_ms: i64, length_ms: i64, place: usize) -> Option<f64> {
        let edge = self.edge(at_ms - length_ms, Edge::First)?;
        let last = self.recent.until(at_ms).checked_sub(1)?;
        let row = &self.recent.rows[last];
        let layout = self.layout;
        let slot = LONG_COUNTERS.iter().position(|long| *long == place)?;
        let base = gauge::FIXED - gauge::SCRAPES + 2 * layout.filesystems + 2 * slot;
        let gaps = row[2 * layout.counters + gauge::UPS] - edge.value(gauge::UPS - gauge::SCRAPES);
        let last_ms = self.recent.times[last];
        if gaps < 0.5 || last_ms <= edge.at_ms {
            return None;
        }
        Some(extrapolated(&Slope {
            increase: row[layout.counters + place] - edge.value(base + 1),
            first: edge.value(base),
            first_ms: edge.at_ms,
            last_ms,
            gaps,
            from_ms: at_ms - length_ms,
            to_ms: at_ms,
        }))
    }

    /// The increase of a running sum after the first scrape of a long window: for `changes()`.
    pub(super) fn long_changes(&self, at_ms: i64, length_ms: i64, gauge: usize) -> Option<f64> {
        let edge = self.edge(at_ms - length_ms, Edge::First)?;
        let last = self.recent.until(at_ms).checked_sub(1)?;
        let now = self.recent.rows[last][2 * self.layout.counters + gauge];
        // Changes are whole; the edge may lie between two of the thinned rows.
        Some(libm::round(now - libm::floor(edge.value(gauge - gauge::SCRAPES) + 0.5)).max(0.0))
    }

    /// The increase of a running sum over a long window, its first scrape included.
    pub(super) fn long_sum(&self, at_ms: i64, length_ms: i64, gauge: usize) -> Option<f64> {
        let edge = self.edge(at_ms - length_ms, Edge::Before)?;
        let last = self.recent.until(at_ms).checked_sub(1)?;
        let now = self.recent.rows[last][2 * self.layout.counters + gauge];
        Some(now - edge.value(gauge - gauge::SCRAPES))
    }

    /// `predict_linear()` of a share over a long window: the running sums of number, time and time
    /// squared begin at `times`, those of value and value × time at `values`.
    pub(super) fn predicted(
        &self,
        at_ms: i64,
        length_ms: i64,
        ahead_ms: i64,
        times: usize,
        values: usize,
    ) -> Option<f64> {
        let sum = |gauge| self.long_sum(at_ms, length_ms, gauge);
        let n = sum(times)?;
        if n < 1.5 {
            return None;
        }
        let (t, tt) = (sum(times + 1)?, sum(times + 2)?);
        let (y, ty) = (sum(values)?, sum(values + 1)?);
        let variance = tt - t * t / n;
        if variance <= 1e-12 {
            return None;
        }
        let slope = (ty - t * y / n) / variance;
        let then = (at_ms + ahead_ms - self.origin_ms) as f64 / 3_600_000.0;
        Some(y / n + slope * (then - t / n))
    }

    /// The long row at the edge of a window, between two thinned rows if need be. `None` before
    /// anything was remembered.
    fn edge(&self, edge_ms: i64, wanted: Edge) -> Option<Row<'_>> {
        let next = self.long.until(edge_ms);
        let Some(before) = next.checked_sub(1) else {
            // The window begins before the first scrape.
            return match wanted {
                Edge::First => Some(Row::exact(*self.long.times.front()?, &self.long.rows[0])),
                Edge::Before => Some(Row::exact(*self.long.times.front()?, &[])),
            };
        };
        let (from_ms, from) = (self.long.times[before], &self.long.rows[before]);
        let (to_ms, to): (i64, Option<&[f64]>) = match self.long.times.get(next) {
            Some(to_ms) => (*to_ms, Some(&self.long.rows[next])),
            None => (from_ms, None),
        };
        let Some(to) = to else {
            return Some(Row::exact(from_ms, from));
        };
        let scrapes = to[0] - from[0];
        let step = (to_ms - from_ms) as f64 / scrapes.max(1.0);
        // Whole scrapes from the row before to the last one outside of the window, or the first in it.
        let outside = libm::floor((edge_ms - from_ms) as f64 / step);
        let scrape = match wanted {
            Edge::First => outside + 1.0,
            Edge::Before => outside,
        };
        Some(Row {
            at_ms: from_ms + (scrape * step) as i64,
            from,
            to,
            part: scrape / scrapes.max(1.0),
        })
    }
}

/// Which scrape at the beginning of a window is meant.
#[derive(Clone, Copy)]
enum Edge {
    /// The first inside.
    First,
    /// The last before it.
    Before,
}

/// A thinned row, or one between two.
struct Row<'a> {
    at_ms: i64,
    from: &'a [f64],
    to: &'a [f64],
    part: f64,
}

impl<'a> Row<'a> {
    fn exact(at_ms: i64, row: &'a [f64]) -> Self {
        Self {
            at_ms,
            from: row,
            to: row,
            part: 0.0,
        }
    }

    /// A value; 0 before the first row.
    fn value(&self, place: usize) -> f64 {
        match (self.from.get(place), self.to.get(place)) {
            (Some(from), Some(to)) => from + (to - from) * self.part,
            _ => 0.0,
        }
    }
}

/// What `increase()` is made of.
struct Slope {
    increase: f64,
    first: f64,
    first_ms: i64,
    last_ms: i64,
    /// Number of samples less one.
    gaps: f64,
    from_ms: i64,
    to_ms: i64,
}

/// Extrapolates to the borders of the window as Prometheus does (`extrapolatedRate` in
/// `promql/functions.go`, 3.x): all the way when a sample is near the border, else by half a gap,
/// and never to before the counter was zero.
fn extrapolated(slope: &Slope) -> f64 {
    let sampled = (slope.last_ms - slope.first_ms) as f64 / 1000.0;
    if sampled <= 0.0 {
        return slope.increase;
    }
    let gap = sampled / slope.gaps;
    let near = gap * 1.1;
    let mut to_start = (slope.first_ms - slope.from_ms) as f64 / 1000.0;
    if to_start >= near {
        to_start = gap / 2.0;
    }
    if slope.increase > 0.0 && slope.first >= 0.0 {
        to_start = to_start.min(sampled * (slope.first / slope.increase));
    }
    let mut to_end = (slope.to_ms - slope.last_ms) as f64 / 1000.0;
    if to_end >= near {
        to_end = gap / 2.0;
    }
    slope.increase * (sampled + to_start + to_end) / sampled
}

fn seen(row: &[f64], layout: Layout) -> u32 {
    row[2 * layout.counters + gauge::SEEN] as u32
}

/// What must have been seen for a counter to be known.
fn group(place: usize, layout: Layout) -> u32 {
    use counter as c;
    let collector = match place {
        c::PSI_CPU | c::PSI_MEMORY | c::PSI_IO => Collector::Pressure,
        c::SWAPPED_IN | c::SWAPPED_OUT | c::MAJOR_FAULTS | c::OOM_KILLS => Collector::Vmstat,
        c::CONTEXT_SWITCHES => Collector::Stat,
        c::RX_PACKETS..=c::TX_DROPS => Collector::Netdev,
        c::SEGMENTS_OUT..=c::OVERFLOWS => Collector::Netstat,
        c::SOFTNET_DROPPED => Collector::Softnet,
        c::CARRIER_CHANGES => Collector::Netclass,
        c::CORRECTABLE | c::UNCORRECTABLE => Collector::Edac,
        c::RESTARTS => return OUTSIDE,
        c::PLEG..c::DISKS => return KUBELET,
        place if place < c::PSI_CPU || place == c::THROTTLES => Collector::Cpu,
        place if place < layout.core(0) => Collector::Diskstats,
        _ => Collector::Cpu,
    };
    collector.bit()
}

/// Reads every counter as a scrape would show it.
fn fill_counters(node: &SimulatedNode, layout: Layout, raw: &mut [f64]) {
    use counter as c;
    let counters = &node.counters;
    let n = layout.cores;
    // Hundredths of a second, added up as whole numbers.
    for mode in 0..MODES.len() {
        let cores = &counters.cpu[mode * n..(mode + 1) * n];
        let sum: u64 = cores.iter().map(|seconds| (seconds * 100.0) as u64).sum();
        raw[mode] = sum as f64 / 100.0;
    }
    for core in 0..n {
        let hundredths = (counters.cpu[IDLE * n + core] * 100.0) as u64
            + (counters.cpu[IOWAIT * n + core] * 100.0) as u64;
        raw[layout.core(core)] = hundredths as f64 / 100.0;
    }
    let m = &counters.machine;
    for (place, value) in [
        (c::PSI_CPU, microseconds(m.psi_cpu_waiting)),
        (c::PSI_MEMORY, microseconds(m.psi_memory_stalled)),
        (c::PSI_IO, microseconds(m.psi_io_stalled)),
        (c::SWAPPED_IN, whole(m.swapped_in)),
        (c::SWAPPED_OUT, whole(m.swapped_out)),
        (c::MAJOR_FAULTS, whole(m.major_faults)),
        (c::OOM_KILLS, whole(m.oom_kills)),
        (c::CONTEXT_SWITCHES, whole(m.context_switches)),
        (c::SEGMENTS_OUT, whole(m.segments_out)),
        (c::RETRANSMITTED, whole(m.segments_retransmitted)),
        (c::TIMEOUTS, whole(m.tcp_timeouts)),
        (c::OVERFLOWS, whole(m.listen_overflows)),
        (c::SOFTNET_DROPPED, whole(m.softnet_dropped)),
        (c::THROTTLES, whole(m.throttles)),
        (c::CORRECTABLE, whole(m.edac_correctable)),
        (c::UNCORRECTABLE, whole(m.edac_uncorrectable)),
        (c::RESTARTS, whole(node.restarts)),
    ] {
        raw[place] = value;
    }
    for place in c::RX_PACKETS..=c::TX_DROPS {
        raw[place] = 0.0;
    }
    // A link comes up once at boot.
    raw[c::CARRIER_CHANGES] = BOOT_CARRIER_CHANGES * counters.interfaces.len() as f64;
    for interface in &counters.interfaces {
        for (place, value) in [
            (c::RX_PACKETS, interface.rx_packets),
            (c::TX_PACKETS, interface.tx_packets),
            (c::RX_ERRORS, interface.rx_errors),
            (c::TX_ERRORS, interface.tx_errors),
            (c::RX_DROPS, interface.rx_drops),
            (c::TX_DROPS, interface.tx_drops),
            (c::CARRIER_CHANGES, interface.carrier_changes),
        ] {
            raw[place] += whole(value);
        }
    }
    for (bucket, count) in counters.pleg.iter().enumerate() {
        raw[c::PLEG + bucket] = whole(*count);
    }
    for (index, disk) in counters.disks.iter().enumerate() {
        let base = c::DISKS + c::PER_DISK * index;
        raw[base + c::IO_TIME] = milliseconds(disk.io_time);
        raw[base + c::IO_WEIGHTED] = milliseconds(disk.io_weighted);
        raw[base + c::READS] = whole(disk.reads);
        raw[base + c::READ_TIME] = milliseconds(disk.read_time);
        raw[base + c::WRITES] = whole(disk.writes);
        raw[base + c::WRITE_TIME] = milliseconds(disk.write_time);
    }
}

fn thin_out(row: &[f64], layout: Layout, thin: &mut [f64]) {
    let sums = &row[2 * layout.counters + gauge::SCRAPES..];
    thin[..sums.len()].copy_from_slice(sums);
    for (slot, place) in LONG_COUNTERS.iter().enumerate() {
        thin[sums.len() + 2 * slot] = row[*place];
        thin[sums.len() + 2 * slot + 1] = row[layout.counters + place];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slope(increase: f64, first: f64, first_ms: i64, last_ms: i64, gaps: f64) -> f64 {
        extrapolated(&Slope {
            increase,
            first,
            first_ms,
            last_ms,
            gaps,
            from_ms: 0,
            to_ms: 300_000,
        })
    }

    #[test]
    fn an_increase_is_extrapolated_as_prometheus_does() {
        // Samples at 15, 30 … 300 s: all the way to the start.
        assert_eq!(slope(285.0, 1e6, 15_000, 300_000, 19.0), 300.0);
        // A series that begins at 150 s: by half a gap only.
        assert_eq!(slope(150.0, 1e6, 150_000, 300_000, 10.0), 157.5);
        // A counter that began at 5: not to below zero.
        assert_eq!(slope(285.0, 5.0, 15_000, 300_000, 19.0), 290.0);
        // And at the end.
        assert_eq!(slope(150.0, 1e6, 15_000, 165_000, 10.0), 172.5);
    }

    #[test]
    fn every_counter_knows_its_collector() {
        let layout = Layout {
            disks: 2,
            cores: 4,
            filesystems: 1,
            counters: counter::DISKS + 12 + 4,
        };
        assert_eq!(group(0, layout), Collector::Cpu.bit());
        assert_eq!(group(7, layout), Collector::Cpu.bit());
        assert_eq!(group(counter::THROTTLES, layout), Collector::Cpu.bit());
        assert_eq!(group(counter::TX_DROPS, layout), Collector::Netdev.bit());
        assert_eq!(group(counter::PLEG, layout), KUBELET);
        assert_eq!(group(counter::DISKS - 1, layout), KUBELET);
        assert_eq!(group(counter::DISKS, layout), Collector::Diskstats.bit());
        assert_eq!(
            group(layout.core(0) - 1, layout),
            Collector::Diskstats.bit()
        );
        assert_eq!(group(layout.core(3), layout), Collector::Cpu.bit());
    }
}
