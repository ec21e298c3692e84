//! What is remembered of one feature of one Node: 96 bytes.

use super::code::{Code, MISSING};

/// Points of the last hour, both ends included.
pub(super) const POINTS: usize = 13;

/// Days that are summed up.
pub(super) const DAYS: usize = 7;

/// One feature of one Node. Which point and which day a slot is of is the same for all cells, and kept
/// once, by their owner.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::features) struct Cell {
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
        let counts = self.counts.map(f64::from);
        let means = self.means.map(f64::from);
        let mean = sum(&each(|day| counts[day] * means[day])) / n;
        let between = sum(&each(|day| {
            let from_mean = means[day] - mean;
            counts[day] * from_mean * from_mean
        }));
        let within = sum(&self.squares.map(f64::from));
        Some((count, mean, ((between + within) / n).max(0.0).sqrt()))
    }

    /// Number and standard deviation of the points in those slots of the ring whose bit is set; `None`
    /// without any.
    pub(super) fn hour(&self, slots: u16, code: Code) -> Option<(u32, f64)> {
        // Most codes are whole numbers of one step: then sums are of whole numbers.
        let (mut n, mut bits) = (0_u32, 0_u16);
        let (mut total, mut squares) = (0_i64, 0_i64);
        for (slot, number) in self.ring.iter().enumerate() {
            let there = slots >> slot & 1 == 1 && *number != MISSING;
            let number = if there { *number } else { 0 };
            n += u32::from(there);
            bits |= number.unsigned_abs();
            total += i64::from(number);
            squares += i64::from(i32::from(number) * i32::from(number));
        }
        if n == 0 {
            return None;
        }
        if let Some(step) = code.step_below(bits) {
            let squares = i64::from(n) * squares - total * total;
            return Some((n, (squares as f64).sqrt() / f64::from(n) * step));
        }
        let mut values = [0.0; POINTS];
        let numbers = self.ring.iter().enumerate();
        let there = numbers.filter(|(slot, _)| slots >> slot & 1 == 1);
        let decoded = there.filter_map(|(_, number)| code.decode(*number));
        for (value, decoded) in values.iter_mut().zip(decoded) {
            *value = decoded;
        }
        let values = &mut values[..n as usize];
        let mean = sum(values) / f64::from(n);
        for value in values.iter_mut() {
            *value = (*value - mean) * (*value - mean);
        }
        Some((n, (sum(values) / f64::from(n)).sqrt()))
    }
}

/// A number for each day.
fn each(of: impl FnMut(usize) -> f64) -> [f64; DAYS] {
    std::array::from_fn(of)
}

/// The sum, as four that are added up at last: one that follows another has to wait for it.
fn sum(values: &[f64]) -> f64 {
    let (fours, rest) = values.as_chunks::<4>();
    let mut sums = [0.0; 4];
    for four in fours {
        for (sum, value) in sums.iter_mut().zip(four) {
            *sum += value;
        }
    }
    for (sum, value) in sums.iter_mut().zip(rest) {
        *sum += value;
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_of_an_hour_is_the_same_in_whole_steps_and_in_numbers() {
        let schema = crate::features::Schema::built_in();
        for feature in schema.features() {
            let code = Code::of(feature);
            for number in 1..200_u32 {
                let mut cell = Cell::EMPTY;
                let mut values = Vec::new();
                for point in 0..POINTS {
                    // From within the first step to far beyond it, of both signs, some missing.
                    let lot = (number * 7_919 + point as u32 * 104_729) % 1_000;
                    let size = feature.noise * f64::from(number) * (f64::from(lot) - 300.0);
                    if lot.is_multiple_of(11) {
                        continue;
                    }
                    cell.put(point, code.encode(size));
                    values.extend((point != 3).then(|| code.remembered(size).unwrap()));
                }
                let n = values.len() as f64;
                let mean = values.iter().sum::<f64>() / n;
                let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
                let expected = (squares / n).sqrt();
                let (counted, spread) = cell.hour(0x1fff & !(1 << 3), code).unwrap();
                assert_eq!(counted as usize, values.len());
                assert!(
                    (spread - expected).abs() <= 1e-9 * expected,
                    "{}: {spread} {expected}",
                    feature.name
                );
            }
        }
    }

    #[test]
    fn a_feature_of_a_node_costs_at_most_100_bytes() {
        assert!(std::mem::size_of::<Cell>() <= 100);
    }
}
