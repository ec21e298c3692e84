//! How a value becomes a bin number: the encoding in front of the trees.
//!
//! Trees see small whole numbers only. That keeps NaN, infinities and extreme values away from the
//! gbdt crate, makes the model blind to units, and gives a missing value a place of its own.

use serde::{Deserialize, Serialize};

/// The code of a missing value: below the code of every value.
///
/// Below rather than above, because in nearly every column high is bad: a missing value stands
/// beside the harmless end, and in a rising column it can never read worse than any value.
pub const MISSING: u8 = 0;

/// The most edges that a column may have, so that every code fits in a byte.
pub const EDGES_MAX: usize = 254;

/// The bins of one column.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bins {
    /// Lower edges of all bins but the first: finite, strictly rising, at most [`EDGES_MAX`].
    pub edges: Vec<f64>,
}

impl Bins {
    /// The code of a value: [`MISSING`] unless it is finite, else 1 + the number of edges at or
    /// below it.
    pub fn code(&self, value: f64) -> u8 {
        if !value.is_finite() {
            return MISSING;
        }
        let below = self.edges.partition_point(|edge| *edge <= value);
        u8::try_from(below + 1).unwrap_or(u8::MAX)
    }

    /// The highest code of the column.
    pub fn code_max(&self) -> u8 {
        u8::try_from(self.edges.len() + 1).unwrap_or(u8::MAX)
    }

    /// Learns edges from training values; values that are not finite are left out.
    ///
    /// `n_bins` quantiles, and with `tails` extra edges in the outer two percent of either side,
    /// where the rare large counts live that announce trouble. Every edge is a value that
    /// occurred (to nine digits), so the same data in another unit is cut at the same rows.
    pub fn learn(values: &[f64], n_bins: usize, tails: bool) -> Self {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        if sorted.is_empty() {
            return Self::default();
        }
        let n_bins = n_bins.clamp(2, 200);
        let mut levels: Vec<f64> = (1..n_bins).map(|i| i as f64 / n_bins as f64).collect();
        if tails {
            for share in [0.001, 0.002, 0.005, 0.01, 0.02] {
                levels.push(share);
                levels.push(1.0 - share);
            }
            levels.sort_by(f64::total_cmp);
        }
        let mut edges: Vec<f64> = Vec::new();
        for level in levels {
            let at = (level * (sorted.len() - 1) as f64) as usize;
            let here = sorted[at];
            // A column that is mostly one value still gets an edge at the next one.
            let edge = if here > sorted[0] {
                Some(here)
            } else {
                sorted.get(sorted.partition_point(|v| *v <= here)).copied()
            };
            if let Some(edge) = edge.map(to_nine_digits)
                && edges.last().is_none_or(|last| *last < edge)
            {
                edges.push(edge);
            }
        }
        edges.truncate(EDGES_MAX);
        Self { edges }
    }
}

/// The nearest number with nine significant digits. Every JSON reader reads such a number alike; of
/// seventeen digits serde_json may lose the last.
pub(super) fn to_nine_digits(value: f64) -> f64 {
    format!("{value:.8e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_is_missing_and_the_rest_has_its_bin() {
        let bins = Bins {
            edges: vec![0.0, 1.0, 10.0],
        };
        for (value, code) in [
            (f64::NAN, 0),
            (f64::INFINITY, 0),
            (f64::NEG_INFINITY, 0),
            (-5.0, 1),
            (0.0, 2),
            (0.5, 2),
            (1.0, 3),
            (10.0, 4),
            (1e300, 4),
        ] {
            assert_eq!(bins.code(value), code, "{value}");
        }
        assert_eq!(bins.code_max(), 4);
    }

    #[test]
    fn the_same_data_in_other_units_gets_the_same_codes() {
        let data: Vec<f64> = (0..5_000)
            .map(|i| libm::pow(f64::from(i % 977), 1.7))
            .collect();
        let plain = Bins::learn(&data, 32, true);
        for unit in [1e-3, 1e6] {
            let scaled: Vec<f64> = data.iter().map(|v| v * unit).collect();
            let bins = Bins::learn(&scaled, 32, true);
            for (a, b) in data.iter().zip(&scaled) {
                assert_eq!(plain.code(*a), bins.code(*b));
            }
        }
    }

    #[test]
    fn a_counter_that_is_nearly_always_zero_keeps_an_edge_above_zero() {
        let mut data = vec![0.0; 10_000];
        for (i, slot) in data.iter_mut().rev().take(30).enumerate() {
            *slot = 1.0 + i as f64;
        }
        let bins = Bins::learn(&data, 32, true);
        assert_eq!(bins.code(0.0), 1);
        assert!(bins.code(1.0) > 1);
        assert!(bins.code(30.0) > bins.code(1.0));
    }

    #[test]
    fn an_empty_and_a_constant_column_have_one_bin() {
        assert_eq!(Bins::learn(&[], 32, true).code_max(), 1);
        assert_eq!(Bins::learn(&[f64::NAN; 4], 32, true).code_max(), 1);
        assert_eq!(Bins::learn(&[3.0; 400], 32, true).code(3.0), 1);
    }
}
