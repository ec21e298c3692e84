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
    /// Every edge is a value that occurred (to nine digits), so the same data in another unit is cut
    /// at the same rows.
    pub fn learn(values: &[f64], positive: &[bool], cut: Cut) -> Self {
        let n_bins = cut.quantiles.clamp(2, cut.quantiles_max());
        let mut levels: Vec<f64> = (1..n_bins).map(|i| i as f64).collect();
        levels.iter_mut().for_each(|level| *level /= n_bins as f64);
        if cut.tails {
            for share in [0.001, 0.002, 0.005, 0.01, 0.02] {
                levels.extend([share, 1.0 - share]);
            }
        }
        let mut edges = quantiles(values.iter().copied(), &levels);
        if cut.tails {
            let of_positives = values
                .iter()
                .zip(positive)
                .filter(|(_, positive)| **positive);
            let levels: Vec<f64> = (1..17).map(|i| f64::from(i) / 17.0).collect();
            edges.extend(quantiles(of_positives.map(|(value, _)| *value), &levels));
        }
        edges
            .iter_mut()
            .for_each(|edge| *edge = to_nine_digits(*edge));
        edges.sort_by(f64::total_cmp);
        edges.dedup();
        edges.truncate(EDGES_MAX);
        Self { edges }
    }
}

/// How finely columns are cut into bins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Quantiles of all values.
    pub quantiles: usize,
    /// Extra edges in the outer two percent of the values, where the rare large counts live that
    /// announce trouble, and sixteen quantiles of the values in positive rows, which are few but
    /// what it is about.
    pub tails: bool,
}

impl Cut {
    /// More quantiles than this and the extra edges would have no room among [`EDGES_MAX`].
    fn quantiles_max(self) -> usize {
        if self.tails { 150 } else { EDGES_MAX }
    }
}

/// Values at these levels; where that is the lowest value, the next higher one, so that a column
/// that is mostly one value still gets an edge.
fn quantiles(values: impl Iterator<Item = f64>, levels: &[f64]) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let Some(lowest) = sorted.first().copied() else {
        return Vec::new();
    };
    let above = sorted
        .get(sorted.partition_point(|value| *value <= lowest))
        .copied();
    let at = |level: f64| sorted[(level * (sorted.len() - 1) as f64) as usize];
    let edge = |level: &f64| Some(at(*level)).filter(|value| *value > lowest).or(above);
    levels.iter().filter_map(edge).collect()
}

/// The nearest number with nine significant digits. Every JSON reader reads such a number alike; of
/// seventeen digits many lose the last (serde_json too, without `float_roundtrip`).
pub(super) fn to_nine_digits(value: f64) -> f64 {
    format!("{value:.8e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUT: Cut = Cut {
        quantiles: 32,
        tails: true,
    };

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
        let plain = Bins::learn(&data, &[], CUT);
        for unit in [1e-3, 1e6] {
            let scaled: Vec<f64> = data.iter().map(|v| v * unit).collect();
            let bins = Bins::learn(&scaled, &[], CUT);
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
        let bins = Bins::learn(&data, &[], CUT);
        assert_eq!(bins.code(0.0), 1);
        assert!(bins.code(1.0) > 1);
        assert!(bins.code(30.0) > bins.code(1.0));
    }

    #[test]
    fn values_of_the_few_positive_rows_get_edges_of_their_own() {
        let data: Vec<f64> = (0..10_000).map(f64::from).collect();
        let positive: Vec<bool> = data.iter().map(|v| *v >= 9_990.0).collect();
        let bins = Bins::learn(&data, &positive, CUT);
        let edges = |bins: &Bins| bins.edges.iter().filter(|edge| **edge > 9_990.0).count();
        assert!(edges(&bins) >= 8, "{:?}", bins.edges);
        assert_eq!(edges(&Bins::learn(&data, &[], CUT)), 0);
        assert!(bins.edges.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn without_tails_there_are_quantiles_alone_and_never_more_edges_than_fit_in_a_byte() {
        let data: Vec<f64> = (0..100_000).map(f64::from).collect();
        let positive: Vec<bool> = data.iter().map(|v| *v >= 99_000.0).collect();
        for (quantiles, tails, edges) in [
            (64, false, 63),
            (64, true, 63 + 10 + 16),
            (1_000, false, 253),
            // Two of the outer edges are quantiles already.
            (1_000, true, 149 + 8 + 16),
        ] {
            let bins = Bins::learn(&data, &positive, Cut { quantiles, tails });
            assert_eq!(bins.edges.len(), edges, "{quantiles} {tails}");
        }
    }

    #[test]
    fn an_empty_and_a_constant_column_have_one_bin() {
        assert_eq!(Bins::learn(&[], &[], CUT).code_max(), 1);
        assert_eq!(Bins::learn(&[f64::NAN; 4], &[true; 4], CUT).code_max(), 1);
        assert_eq!(Bins::learn(&[3.0; 400], &[], CUT).code(3.0), 1);
    }
}
