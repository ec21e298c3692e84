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
        let mut present: Vec<f64> = Vec::with_capacity(matrix.values.nrows());
        for (j, column) in matrix.values.columns().into_iter().enumerate() {
            present.clear();
            present.extend(column.iter().copied().filter(|v| !v.is_nan()));
            let middle = Middle::of(&mut present);
            for (i, value) in column.iter().enumerate() {
                medians[(i, j)] = middle.of_others(*value).unwrap_or(f64::NAN);
            }
            spreads.push(spread(&mut present, &middle));
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

/// The values about the middle of a column: all that a median of it needs, with or without one of them.
struct Middle {
    n: usize,
    /// In order, with the place of the first among all; as many as there are.
    values: [f64; 3],
    first: usize,
}

impl Middle {
    /// Of these values, in any order, of which none is NaN. Their order changes.
    fn of(values: &mut [f64]) -> Self {
        let n = values.len();
        let first = (n / 2).saturating_sub(1);
        let mut middle = Self {
            n,
            values: [f64::NAN; 3],
            first,
        };
        if n > 0 {
            let (_, low, after) = values.select_nth_unstable_by(first, f64::total_cmp);
            middle.values[0] = *low;
            let mut rest = after;
            for place in 1..middle.values.len().min(n - first) {
                let (_, next, after) = rest.select_nth_unstable_by(0, f64::total_cmp);
                middle.values[place] = *next;
                rest = after;
            }
        }
        middle
    }

    /// The value at a place in the order of all; only the middle is known.
    fn at(&self, place: usize) -> f64 {
        let place = place.checked_sub(self.first);
        place
            .and_then(|place| self.values.get(place).copied())
            .unwrap_or(f64::NAN)
    }

    /// The median of all; `None` of nothing.
    fn median(&self) -> Option<f64> {
        (self.n > 0).then(|| median(self.n, |place| self.at(place)))
    }

    /// The median without one occurrence of `own`; a missing `own` takes nothing out.
    fn of_others(&self, own: f64) -> Option<f64> {
        if own.is_nan() {
            return self.median().filter(|_| self.n >= PEERS_MIN);
        }
        let n = self.n.checked_sub(1)?;
        // Behind `own` all places move up by one.
        let moved = |place| {
            let at_own = self.at(place).total_cmp(&own).is_ge();
            self.at(place + usize::from(at_own))
        };
        (n >= PEERS_MIN).then(|| median(n, moved))
    }
}

/// The median of `n` (at least 1) values, of which `value` gives each by its place in the order.
fn median(n: usize, value: impl Fn(usize) -> f64) -> f64 {
    let upper = value(n / 2);
    if n % 2 == 1 {
        upper
    } else {
        f64::midpoint(value(n / 2 - 1), upper)
    }
}

/// How far values are from their middle; they are lost.
fn spread(values: &mut [f64], middle: &Middle) -> f64 {
    let Some(center) = middle.median() else {
        return 0.0;
    };
    for value in values.iter_mut() {
        *value = (*value - center).abs();
    }
    1.4826 * Middle::of(values).median().unwrap_or(0.0)
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
