//! What is remembered of one feature of one Node: 96 bytes.

use super::code::{Code, MISSING};

/// Points of the last hour, both ends included.
pub(super) const POINTS: usize = 13;

/// Days that are summed up.
pub(super) const DAYS: usize = 7;

/// One feature of one Node. Which point and which day a slot is of is the same for all cells, and kept
/// once, by their owner.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cell {
    /// Points of the last hour, as codes.
    ring: [i16; POINTS],
    /// Values of each day; a day has 288 points.
    counts: [u16; DAYS],
    /// Their means, in the feature's unit.
    means: [f32; DAYS],
    /// Sums of their squared distances from the mean.
    squares: [f32; DAYS],
}

impl Cell {
    pub(super) const EMPTY: Self = Self {
        ring: [MISSING; POINTS],
        counts: [0; DAYS],
        means: [0.0; DAYS],
        squares: [0.0; DAYS],
    };

    pub(super) fn put(&mut self, point: usize, code: i16) {
        self.ring[point] = code;
    }

    pub(super) fn code(&self, point: usize) -> i16 {
        self.ring[point]
    }

    /// Moves a point out of the ring into a day's sum (Welford's way, in the order of time).
    pub(super) fn fold(&mut self, point: usize, day: usize, code: Code) {
        let Some(value) = code.decode(std::mem::replace(&mut self.ring[point], MISSING)) else {
            return;
        };
        let count = self.counts[day].saturating_add(1);
        let mean = f64::from(self.means[day]);
        let from_mean = value - mean;
        let mean = mean + from_mean / f64::from(count);
        let squares = f64::from(self.squares[day]) + from_mean * (value - mean);
        self.counts[day] = count;
        self.means[day] = mean as f32;
        self.squares[day] = squares as f32;
    }

    pub(super) fn forget_day(&mut self, day: usize) {
        self.counts[day] = 0;
        self.means[day] = 0.0;
        self.squares[day] = 0.0;
    }

    pub(super) fn copy_day(&mut self, day: usize, other: &Self) {
        self.counts[day] = other.counts[day];
        self.means[day] = other.means[day];
        self.squares[day] = other.squares[day];
    }

    /// Number, mean and standard deviation of the values of all days; `None` without any.
    pub(super) fn week(&self) -> Option<(u32, f64, f64)> {
        let count: u32 = self.counts.iter().map(|n| u32::from(*n)).sum();
        if count == 0 {
            return None;
        }
        let n = f64::from(count);
        let days = || self.counts.iter().zip(&self.means);
        let total: f64 = days().map(|(n, m)| f64::from(*n) * f64::from(*m)).sum();
        let mean = total / n;
        let between: f64 = days()
            .map(|(n, m)| f64::from(*n) * (f64::from(*m) - mean).powi(2))
            .sum();
        let within: f64 = self.squares.iter().map(|s| f64::from(*s)).sum();
        Some((count, mean, ((between + within) / n).max(0.0).sqrt()))
    }

    /// Number and standard deviation of the points in those slots of the ring whose bit is set; `None`
    /// without any.
    pub(super) fn hour(&self, slots: u16, code: Code) -> Option<(u32, f64)> {
        let mut values = [0.0; POINTS];
        let mut n = 0;
        for (slot, number) in self.ring.iter().enumerate() {
            if slots >> slot & 1 == 1
                && let Some(value) = code.decode(*number)
            {
                values[n] = value;
                n += 1;
            }
        }
        if n == 0 {
            return None;
        }
        let values = &values[..n];
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        Some((n as u32, (squares / n as f64).sqrt()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_of_a_node_costs_at_most_100_bytes() {
        assert!(std::mem::size_of::<Cell>() <= 100);
    }
}
