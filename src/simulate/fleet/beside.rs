//! What a Prometheus would remember of a Node from others than its node_exporter: its kubelet and a
//! prober, each scraped at its own times.

use super::MemoryOptions;
use super::counters::{PLEG_BOUNDS, nearest};
use super::node::SimulatedNode;
use super::ring::{Ring, Slope, extrapolated};

/// Buckets of the relists' histogram, `+Inf` included.
const BUCKETS: usize = PLEG_BOUNDS.len() + 1;

/// Places in a kubelet's row: whether it answered, Pods, buckets as scraped, and without resets.
const ANSWERED: usize = 0;
const PODS: usize = 1;
const RAW: usize = 2;
const UNROLLED: usize = RAW + BUCKETS;

/// Places in a prober's row, sums that run on: probes, those that came back, seconds.
const PROBES: usize = 0;
const BACK: usize = 1;
const SECONDS: usize = 2;

/// How far back a Prometheus looks for the last sample of a series.
const LOOKBACK_MS: i64 = 300_000;

/// What is remembered of one Node from beside it.
#[derive(Clone, Debug)]
pub(super) struct Beside {
    kubelet: Ring,
    prober: Ring,
    keep_ms: i64,
}

impl Beside {
    pub(super) fn new(options: &MemoryOptions) -> Self {
        let window_ms = i64::try_from(options.rate_window.as_millis()).unwrap_or(i64::MAX / 4);
        Self {
            kubelet: Ring::default(),
            prober: Ring::default(),
            // Features are asked for up to a minute late.
            keep_ms: window_ms.max(LOOKBACK_MS).saturating_add(120_000),
        }
    }

    /// Takes a scrape of the kubelet; times only go forward.
    pub(super) fn record_kubelet(&mut self, node: &SimulatedNode, at_ms: i64) {
        if self.kubelet.ends_at(at_ms) {
            return;
        }
        let mut row = self.kubelet.spare(at_ms - self.keep_ms, UNROLLED + BUCKETS);
        let before = self.kubelet.rows.back();
        row[ANSWERED] = f64::from(u8::from(node.is_up()));
        row[PODS] = f64::from(node.gauges.pods);
        for bucket in 0..BUCKETS {
            let (was, sum) = before.map_or((0.0, 0.0), |row| {
                (row[RAW + bucket], row[UNROLLED + bucket])
            });
            let count = if node.is_up() {
                nearest(node.counters.pleg[bucket])
            } else {
                was
            };
            row[RAW + bucket] = count;
            row[UNROLLED + bucket] = sum + if count < was { count } else { count - was };
        }
        self.kubelet.push(at_ms, row);
    }

    /// Takes a scrape of the prober, which is one probe; times only go forward.
    pub(super) fn record_probe(&mut self, node: &SimulatedNode, at_ms: i64) {
        if self.prober.ends_at(at_ms) {
            return;
        }
        let mut row = self.prober.spare(at_ms - self.keep_ms, 3);
        let back = node.gauges.probe_back && node.is_up();
        let before = self
            .prober
            .rows
            .back()
            .map_or([0.0; 3], |row| [row[0], row[1], row[2]]);
        row[PROBES] = before[PROBES] + 1.0;
        row[BACK] = before[BACK] + f64::from(u8::from(back));
        // A probe that fails tells 0 seconds.
        row[SECONDS] = before[SECONDS] + if back { node.gauges.round_trip } else { 0.0 };
        self.prober.push(at_ms, row);
    }

    /// Pods, if the kubelet answered last.
    pub(super) fn pods(&self, at_ms: i64) -> Option<f64> {
        let last = self.kubelet.until(at_ms).checked_sub(1)?;
        let row = &self.kubelet.rows[last];
        let known = row[ANSWERED] == 1.0 && at_ms - self.kubelet.times[last] < LOOKBACK_MS;
        known.then(|| row[PODS])
    }

    /// `increase()` of every bucket of the relists over a window.
    pub(super) fn relists(&self, at_ms: i64, length_ms: i64) -> Option<[f64; BUCKETS]> {
        let ring = &self.kubelet;
        let (first, end) = (ring.until(at_ms - length_ms), ring.until(at_ms));
        let answered = |place: &usize| ring.rows[*place][ANSWERED] == 1.0;
        let count = (first..end).filter(answered).count();
        let (first, last) = (
            (first..end).find(answered)?,
            (first..end).rev().find(answered)?,
        );
        if count < 2 {
            return None;
        }
        let (from, to) = (&ring.rows[first], &ring.rows[last]);
        Some(std::array::from_fn(|bucket| {
            extrapolated(&Slope {
                increase: to[UNROLLED + bucket] - from[UNROLLED + bucket],
                first: from[RAW + bucket],
                first_ms: ring.times[first],
                last_ms: ring.times[last],
                gaps: (count - 1) as f64,
                from_ms: at_ms - length_ms,
                to_ms: at_ms,
            })
        }))
    }

    /// Share of probes that came back, and mean seconds, over a window.
    pub(super) fn probes(&self, at_ms: i64, length_ms: i64) -> Option<(f64, f64)> {
        let ring = &self.prober;
        let (first, end) = (ring.until(at_ms - length_ms), ring.until(at_ms));
        if first >= end {
            return None;
        }
        let sum = |place: usize| {
            let before = first
                .checked_sub(1)
                .map_or(0.0, |row| ring.rows[row][place]);
            ring.rows[end - 1][place] - before
        };
        let probes = sum(PROBES);
        Some((sum(BACK) / probes, sum(SECONDS) / probes))
    }
}
