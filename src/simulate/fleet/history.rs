//! What a Prometheus would remember of one Node: recent scrapes whole, older ones thinned out and
//! reduced to what long windows need.
//!
//! Rows (`row`) hold counters with resets taken out and sums that run on from scrape to scrape, so that
//! an increase, an average or a regression over any window is one subtraction.

use std::collections::VecDeque;

use super::MemoryOptions;
use super::collector::Collector;
use super::node::SimulatedNode;
use super::ring::{Ring, Slope, extrapolated};
use super::row::{LONG_COUNTERS, Layout, UP, gauge, group, seen, thin_out};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 86_400_000;

/// Windows of more than an hour are thinned to this.
const DAY_STEP_MS: i64 = 60_000;

/// What is remembered of one Node.
#[derive(Clone, Debug)]
pub(super) struct History {
    pub(super) layout: Layout,
    origin_ms: i64,
    recent: Ring,
    recent_ms: i64,
    /// Every scrape of the last hour, and one a minute of the last day, reduced to what long windows
    /// need.
    hour: Ring,
    day: Ring,
    day_ms: i64,
    /// When `up` and the boot time changed: times of the scrapes before and after.
    up_changes: VecDeque<(i64, i64)>,
    boots: VecDeque<(i64, i64)>,
    /// The last boot time that was told, and when.
    boot_told: Option<(i64, i64)>,
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
            hour: Ring::default(),
            day: Ring::default(),
            // Two hours more, to know whether a day was covered.
            day_ms: ms(options.long).min(DAY_MS) + DAY_MS / 12 + 420_000,
            up_changes: VecDeque::new(),
            boots: VecDeque::new(),
            boot_told: None,
        }
    }

    /// Takes a scrape; times only go forward.
    pub(super) fn record(&mut self, node: &SimulatedNode, at_ms: i64) {
        if self.recent.ends_at(at_ms) {
            return;
        }
        let layout = self.layout;
        let mut row = self.recent.spare(at_ms - self.recent_ms, layout.width());
        let hours = (at_ms - self.origin_ms) as f64 / HOUR_MS as f64;
        let before = self.recent.rows.back().map(|row| &**row);
        layout.fill(node, hours, before, &mut row);
        self.note_changes(node, at_ms, seen(&row, layout));
        let width = layout.long_width();
        let mut thin = self.hour.spare(at_ms - HOUR_MS - 420_000, width);
        thin_out(&row, layout, &mut thin);
        if (self.day.times.back()).is_none_or(|last| at_ms - last >= DAY_STEP_MS) {
            let mut copy = self.day.spare(at_ms - self.day_ms, width);
            copy.copy_from_slice(&thin);
            self.day.push(at_ms, copy);
        }
        self.hour.push(at_ms, thin);
        self.recent.push(at_ms, row);
    }

    fn note_changes(&mut self, node: &SimulatedNode, at_ms: i64, bits: u32) {
        if let (Some(last_ms), Some(row)) = (self.recent.times.back(), self.recent.rows.back())
            && (seen(row, self.layout) ^ bits) & UP != 0
        {
            self.up_changes.push_back((*last_ms, at_ms));
        }
        if bits & Collector::Stat.bit() != 0 {
            if let Some((boot_ms, told_ms)) = self.boot_told
                && boot_ms != node.boot_ms
            {
                self.boots.push_back((told_ms, at_ms));
            }
            self.boot_told = Some((node.boot_ms, at_ms));
        }
        for (changes, keep_ms) in [(&mut self.up_changes, HOUR_MS), (&mut self.boots, DAY_MS)] {
            while changes
                .front()
                .is_some_and(|(_, at)| at_ms - at > keep_ms + 420_000)
            {
                changes.pop_front();
            }
        }
    }

    /// Whether the Node was scraped this long ago or a while before, so that a window of this length
    /// is covered: as `prometheus::telemetry` asks it.
    pub(super) fn covers(&self, at_ms: i64, history_ms: i64) -> bool {
        let ring = if history_ms <= HOUR_MS {
            &self.hour
        } else {
            &self.day
        };
        let ups = |until_ms: i64| match ring.until(until_ms).checked_sub(1) {
            Some(row) => ring.rows[row][gauge::UPS - gauge::SCRAPES],
            None => 0.0,
        };
        let then_ms = at_ms - history_ms;
        ups(then_ms) > ups(then_ms - (history_ms / 12).max(300_000))
    }

    /// The last scrape at or before a time, if it succeeded and told whose it is: its place and time.
    pub(super) fn fresh(&self, at_ms: i64) -> Option<(usize, i64)> {
        let place = self.recent.until(at_ms).checked_sub(1)?;
        self.shows(place, UP | Collector::Uname.bit())
            .then(|| (place, self.recent.times[place]))
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
        let edge = self.edge(at_ms, length_ms, Edge::First)?;
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

    /// `changes()` of `up` over the last hour.
    pub(super) fn flaps(&self, at_ms: i64) -> f64 {
        count(&self.up_changes, at_ms, HOUR_MS)
    }

    /// `changes()` of the boot time over the last day.
    pub(super) fn boots(&self, at_ms: i64) -> f64 {
        count(&self.boots, at_ms, DAY_MS)
    }

    /// The increase of a running sum over a long window, its first scrape included.
    pub(super) fn long_sum(&self, at_ms: i64, length_ms: i64, gauge: usize) -> Option<f64> {
        let edge = self.edge(at_ms, length_ms, Edge::Before)?;
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
        let edge = self.edge(at_ms, length_ms, Edge::Before)?;
        let last = self.recent.until(at_ms).checked_sub(1)?;
        let now = &self.recent.rows[last][2 * self.layout.counters..];
        let sum = |gauge: usize| now[gauge] - edge.value(gauge - gauge::SCRAPES);
        let n = sum(times);
        if n < 1.5 {
            return None;
        }
        let (t, tt) = (sum(times + 1), sum(times + 2));
        let (y, ty) = (sum(values), sum(values + 1));
        let variance = tt - t * t / n;
        if variance <= 1e-12 {
            return None;
        }
        let slope = (ty - t * y / n) / variance;
        let then = (at_ms + ahead_ms - self.origin_ms) as f64 / HOUR_MS as f64;
        Some(y / n + slope * (then - t / n))
    }

    /// The long row at the edge of a window, between two thinned rows if need be. `None` before
    /// anything was remembered.
    fn edge(&self, at_ms: i64, length_ms: i64, wanted: Edge) -> Option<Row<'_>> {
        let edge_ms = at_ms - length_ms;
        let ring = if length_ms <= HOUR_MS {
            &self.hour
        } else {
            &self.day
        };
        let next = ring.until(edge_ms);
        let Some(before) = next.checked_sub(1) else {
            // The window begins before the first scrape.
            let first_ms = *ring.times.front()?;
            return Some(match wanted {
                Edge::First => Row::exact(first_ms, &ring.rows[0]),
                Edge::Before => Row::exact(first_ms, &[]),
            });
        };
        let (from_ms, from) = (ring.times[before], &ring.rows[before]);
        let (Some(to_ms), Some(to)) = (ring.times.get(next), ring.rows.get(next)) else {
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

/// Changes between two scrapes that are both in a window.
fn count(changes: &VecDeque<(i64, i64)>, at_ms: i64, length_ms: i64) -> f64 {
    let inside = |(before, after): &&(i64, i64)| *before > at_ms - length_ms && *after <= at_ms;
    changes.iter().filter(inside).count() as f64
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
