//! What is usual for a Node: the mean of its own week, and until there is one the median of its peers.

use ndarray::Array2;

use super::history::History;
use super::matrix::FeatureMatrix;

/// With fewer other Nodes than this nothing is usual.
pub const PEERS_MIN: usize = 3;

/// What every Node's features usually are; of [`Usual::of`] the median over its peers, the other Nodes that have a
/// value.
#[derive(Clone, Debug)]
pub struct Usual {
    /// What is usual, in the shape of the matrix; NaN with fewer than [`PEERS_MIN`] peers and no week.
    medians: Array2<f64>,
    /// 1.4826 × median absolute deviation over all Nodes with a value, by column; 0 without any.
    /// That factor makes it the standard deviation where values are normally distributed.
    spreads: Vec<f64>,
}

impl Usual {
    /// What is usual within the matrix. Its Nodes are one another's peers.
    pub fn of(matrix: &FeatureMatrix) -> Self {
        let mut medians = Array2::from_elem(matrix.values.dim(), f64::NAN);
        let mut spreads = Vec::with_capacity(matrix.values.ncols());
        for (j, column) in matrix.values.columns().into_iter().enumerate() {
            let mut sorted: Vec<f64> = column.iter().copied().filter(|v| !v.is_nan()).collect();
            sorted.sort_by(f64::total_cmp);
            for (i, value) in column.iter().enumerate() {
                medians[(i, j)] = median_of_others(&sorted, *value).unwrap_or(f64::NAN);
            }
            spreads.push(spread(&sorted));
        }
        Self { medians, spreads }
    }

    /// The same, with the mean of a Node's own week where the history knows one: what is usual for its peers may
    /// never have been so for it.
    pub fn or_own(mut self, matrix: &FeatureMatrix, history: &History) -> Self {
        history.each_week(matrix, |row, column, mean| {
            if let Some(usual) = self.medians.get_mut((row, column)) {
                *usual = mean;
            }
        });
        self
    }

    /// What is usual for a row's feature; `None` with fewer than [`PEERS_MIN`] peers and no week.
    pub fn value(&self, row: usize, column: usize) -> Option<f64> {
        self.medians
            .get((row, column))
            .copied()
            .filter(|v| !v.is_nan())
    }

    /// How far Nodes usually are from the median of a feature, in its unit.
    pub fn spread(&self, column: usize) -> f64 {
        self.spreads.get(column).copied().unwrap_or(0.0)
    }
}

/// The median of `sorted` without one occurrence of `own`; a missing `own` takes nothing out.
fn median_of_others(sorted: &[f64], own: f64) -> Option<f64> {
    if own.is_nan() {
        return (sorted.len() >= PEERS_MIN).then(|| median(sorted.len(), |i| sorted[i]));
    }
    let n = sorted.len().checked_sub(1)?;
    let place = sorted.partition_point(|v| v.total_cmp(&own).is_lt());
    (n >= PEERS_MIN).then(|| median(n, |i| sorted[i + usize::from(i >= place)]))
}

/// The median of `n` (at least 1) sorted values.
fn median(n: usize, value: impl Fn(usize) -> f64) -> f64 {
    let upper = value(n / 2);
    if n % 2 == 1 {
        upper
    } else {
        f64::midpoint(value(n / 2 - 1), upper)
    }
}

fn spread(sorted: &[f64]) -> f64 {
    if sorted.is_empty() {
        return 0.0;
    }
    let center = median(sorted.len(), |i| sorted[i]);
    let mut distances: Vec<f64> = sorted.iter().map(|v| (v - center).abs()).collect();
    distances.sort_by(f64::total_cmp);
    1.4826 * median(distances.len(), |i| distances[i])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::features::schema::Schema;

    fn usual(values: &[f64]) -> Vec<Option<f64>> {
        let nodes = (0..values.len())
            .map(|i| format!("n{i:03}").into())
            .collect();
        let schema = Arc::new(Schema::built_in());
        let mut matrix = FeatureMatrix::missing(Timestamp::UNIX_EPOCH, schema, nodes);
        for (i, value) in values.iter().enumerate() {
            matrix.values[(i, 0)] = *value;
        }
        let usual = Usual::of(&matrix);
        (0..values.len()).map(|i| usual.value(i, 0)).collect()
    }

    #[test]
    fn usual_is_the_median_of_the_others_and_unknown_with_fewer_than_three() {
        const NAN: f64 = f64::NAN;
        for (values, expected) in [
            (vec![], vec![]),
            (vec![1.0, 2.0, 3.0], vec![None, None, None]),
            (vec![1.0, 2.0, 3.0, NAN], vec![None, None, None, Some(2.0)]),
            (
                vec![1.0, 2.0, 3.0, 9.0],
                vec![Some(3.0), Some(3.0), Some(2.0), Some(2.0)],
            ),
            (vec![5.0, 5.0, 5.0, 5.0], vec![Some(5.0); 4]),
            (
                vec![4.0, 1.0, 3.0, 2.0, 100.0],
                vec![Some(2.5), Some(3.5), Some(3.0), Some(3.5), Some(2.5)],
            ),
        ] {
            assert_eq!(usual(&values), expected, "{values:?}");
        }
    }

    #[test]
    fn usual_agrees_with_taking_the_median_of_the_others_one_by_one() {
        let values: Vec<f64> = (0..101_u32).map(|i| f64::from(i * 7919 % 53)).collect();
        let fast = usual(&values);
        for (i, fast) in fast.iter().enumerate() {
            let mut others = values.clone();
            others.remove(i);
            others.sort_by(f64::total_cmp);
            assert_eq!(
                *fast,
                Some(f64::midpoint(others[49], others[50])),
                "row {i}"
            );
        }
    }
}
