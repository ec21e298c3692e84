//! Samples in the order of their times, and what Prometheus makes of the first and last in a window.

use std::collections::VecDeque;

/// Rows in the order of their times.
#[derive(Clone, Debug, Default)]
pub(super) struct Ring {
    pub(super) times: VecDeque<i64>,
    pub(super) rows: VecDeque<Box<[f64]>>,
}

impl Ring {
    /// The row to fill for a new time: that of one too old to keep, or a new one.
    pub(super) fn spare(&mut self, keep_from_ms: i64, width: usize) -> Box<[f64]> {
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

    /// Whether the last row is of this time or later, so that none of it can be added.
    pub(super) fn ends_at(&self, at_ms: i64) -> bool {
        self.times.back().is_some_and(|last| *last >= at_ms)
    }

    pub(super) fn push(&mut self, at_ms: i64, row: Box<[f64]>) {
        self.times.push_back(at_ms);
        self.rows.push_back(row);
    }

    /// Number of rows at or before a time.
    pub(super) fn until(&self, at_ms: i64) -> usize {
        // Mostly the last row is asked for.
        match self.times.back() {
            Some(last) if *last <= at_ms => self.times.len(),
            _ => self.times.partition_point(|time| *time <= at_ms),
        }
    }
}

/// What `increase()` is made of.
pub(super) struct Slope {
    pub(super) increase: f64,
    pub(super) first: f64,
    pub(super) first_ms: i64,
    pub(super) last_ms: i64,
    /// Number of samples less one.
    pub(super) gaps: f64,
    pub(super) from_ms: i64,
    pub(super) to_ms: i64,
}

/// Extrapolates to the borders of the window as Prometheus does (`extrapolatedRate` in
/// `promql/functions.go`, 3.x): all the way when a sample is near the border, else by half a gap,
/// and never to before the counter was zero.
pub(super) fn extrapolated(slope: &Slope) -> f64 {
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
}
