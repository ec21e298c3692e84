//! From features to the model's own columns.
//!
//! The model says which columns it wants, by name; serving and training both get them from here, so
//! that the two cannot drift apart.

use foreshock_core::node::NodeName;
use ndarray::Array2;

use super::columns::{ColumnName, KINDS, Summary};
use super::history::{History, Past};
use super::matrix::FeatureMatrix;
use super::usual::Usual;

/// Deviations beyond this are taken as this: farther off says nothing more.
pub const DEVIATION_MAX: f64 = 20.0;

/// Of fewer features' deviations no summary is made: the third largest of three is none.
const SUMMARY_MIN: usize = 5;

/// Why columns cannot be made from a matrix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeriveError {
    /// Not a kind of column that this version knows.
    #[error("`{column}` is no model column; known are {KINDS}")]
    Kind {
        /// The name.
        column: String,
    },
    /// The model wants features that the schema does not have.
    #[error("the model wants features that are not in the schema: {}", .features.join(", "))]
    Features {
        /// Their names.
        features: Vec<String>,
    },
}

/// The model's columns of every Node at one time.
///
/// Shape: Nodes × columns; rows are those of the [`FeatureMatrix`]. NaN is missing, every other value
/// is finite.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelMatrix {
    /// Row names, sorted, without repeats.
    pub nodes: Vec<NodeName>,
    /// Column names, in the model's order.
    pub columns: Vec<ColumnName>,
    /// Nodes × columns.
    pub values: Array2<f64>,
}

/// Makes the columns that a model wants. What the history does not remember, or not for long enough, is
/// missing: of a change the point that it began at, of a spread half an hour, of the week a day, of a
/// summary five features that have a day.
///
/// The history has to have taken the matrix itself, if that lies on its grid: [`History::take`].
///
/// # Errors
///
/// [`DeriveError::Features`] if the schema of the matrix lacks one of their features.
pub fn derive(
    columns: &[ColumnName],
    matrix: &FeatureMatrix,
    history: &History,
) -> Result<ModelMatrix, DeriveError> {
    let schema = &matrix.schema;
    let features = columns.iter().filter_map(ColumnName::feature);
    let mut absent: Vec<_> = features
        .filter(|name| schema.feature(name.as_str()).is_none())
        .map(ToString::to_string)
        .collect();
    absent.sort();
    absent.dedup();
    if !absent.is_empty() {
        return Err(DeriveError::Features { features: absent });
    }
    let source = Source::of(columns, matrix, history);
    let mut values = Array2::from_elem((matrix.nodes.len(), columns.len()), f64::NAN);
    for (j, column) in columns.iter().enumerate() {
        source.fill(column, |row, value| values[(row, j)] = value);
    }
    Ok(ModelMatrix {
        nodes: matrix.nodes.clone(),
        columns: columns.to_vec(),
        values,
    })
}

/// What columns are made from.
struct Source<'a> {
    matrix: &'a FeatureMatrix,
    past: Past<'a>,
    /// What is usual among peers, where a column asks.
    usual: Option<Usual>,
    /// Nodes × features: deviations from the own week, where a column asks; NaN is missing.
    weeks: Option<Array2<f64>>,
    /// The summaries of each row, in the order of [`Summary::ALL`], where a column asks.
    summaries: Vec<Option<[f64; Summary::ALL.len()]>>,
}

impl<'a> Source<'a> {
    fn of(columns: &[ColumnName], matrix: &'a FeatureMatrix, history: &'a History) -> Self {
        let peers = columns.iter().any(|c| matches!(c, ColumnName::Peers(_)));
        let of_all = columns.iter().any(|c| matches!(c, ColumnName::Node(_)));
        let past = history.past(matrix);
        let mut weeks = None;
        for (at, feature) in matrix.schema.features().iter().enumerate() {
            let name = &feature.name;
            let asked = || {
                columns
                    .iter()
                    .any(|c| matches!(c, ColumnName::Week(n) if n == name))
            };
            if of_all || asked() {
                let missing = || Array2::from_elem(matrix.values.dim(), f64::NAN);
                deviations(&past, matrix, at, weeks.get_or_insert_with(missing));
            }
        }
        let summaries = weeks.iter().filter(|_| of_all);
        Self {
            usual: peers.then(|| Usual::of(matrix)),
            summaries: summaries.flat_map(summaries_of).collect(),
            weeks,
            past,
            matrix,
        }
    }

    /// Calls `put` with the row and value of every Node that has one.
    fn fill(&self, column: &ColumnName, mut put: impl FnMut(usize, f64)) {
        let rows = 0..self.matrix.nodes.len();
        if let ColumnName::Node(summary) = column {
            for (row, summaries) in self.summaries.iter().enumerate() {
                let value = Summary::ALL.iter().zip(summaries.iter().flatten());
                let value = value.filter(|(known, _)| *known == summary);
                value.for_each(|(_, value)| put(row, *value));
            }
            return;
        }
        let name = column.feature().map_or("", |feature| feature.as_str());
        let Some(at) = self.matrix.schema.column_of(name) else {
            return;
        };
        let noise = self.matrix.schema.features()[at].noise;
        let past = self.past.feature(name);
        for row in rows {
            let now = || self.matrix.value(row, at);
            let value = match column {
                ColumnName::Now(_) => now(),
                ColumnName::Peers(_) => self.beside_peers(noise, row, at),
                ColumnName::Change(_, over) => past
                    .as_ref()
                    .and_then(|past| past.change(row, now()?, over.points())),
                ColumnName::Spread(_) => past.as_ref().and_then(|past| past.spread(row)),
                ColumnName::Week(_) => {
                    let weeks = self.weeks.as_ref();
                    weeks.and_then(|weeks| weeks.get((row, at)).copied())
                }
                ColumnName::Node(_) => None,
            };
            if let Some(value) = value {
                put(row, value);
            }
        }
    }

    /// Deviation from the peers' median. The scale is never below the feature's `noise`, or one lost
    /// packet among idle Nodes would be the largest deviation there is.
    fn beside_peers(&self, noise: f64, row: usize, column: usize) -> Option<f64> {
        let usual = self.usual.as_ref()?;
        let from_median = self.matrix.value(row, column)? - usual.value(row, column)?;
        let scale = usual.spread(column).max(noise);
        Some((from_median / scale).clamp(-DEVIATION_MAX, DEVIATION_MAX))
    }
}

/// The summaries of each row of deviations, in the order of [`Summary::ALL`].
fn summaries_of(
    weeks: &Array2<f64>,
) -> impl Iterator<Item = Option<[f64; Summary::ALL.len()]>> + '_ {
    let mut sizes: Vec<f64> = Vec::new();
    weeks.rows().into_iter().map(move |row| {
        sizes.clear();
        sizes.extend(row.iter().map(|z| z.abs()).filter(|z| !z.is_nan()));
        if sizes.len() < SUMMARY_MIN {
            return None;
        }
        sizes.sort_unstable_by(|a, b| b.total_cmp(a));
        let mean = |sizes: &[f64]| sizes.iter().sum::<f64>() / sizes.len() as f64;
        let beyond = |limit: f64| sizes.partition_point(|z| *z > limit) as f64;
        Some(Summary::ALL.map(|summary| match summary {
            Summary::Largest => sizes[0],
            Summary::Third => sizes[2],
            Summary::Top5 => mean(&sizes[..SUMMARY_MIN]),
            Summary::Mean => mean(&sizes),
            Summary::Beyond3 => beyond(3.0),
            Summary::Beyond6 => beyond(6.0),
        }))
    })
}

/// Deviations of one feature from each Node's own week.
fn deviations(past: &Past<'_>, matrix: &FeatureMatrix, at: usize, weeks: &mut Array2<f64>) {
    let name = &matrix.schema.features()[at].name;
    let Some(past) = past.feature(name.as_str()) else {
        return;
    };
    for row in 0..matrix.nodes.len() {
        let value = matrix.value(row, at);
        if let Some(deviation) = value.and_then(|value| past.week(row, value)) {
            weeks[(row, at)] = deviation.clamp(-DEVIATION_MAX, DEVIATION_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::features::schema::Schema;

    fn matrix(cpu: &[f64]) -> FeatureMatrix {
        let nodes = (0..cpu.len()).map(|i| format!("n{i}").into()).collect();
        let schema = Arc::new(Schema::built_in());
        let mut matrix = FeatureMatrix::missing(Timestamp::UNIX_EPOCH, schema, nodes);
        let column = matrix.schema.column_of("cpu_used").unwrap();
        for (row, value) in cpu.iter().enumerate() {
            matrix.values[(row, column)] = *value;
        }
        matrix
    }

    fn columns(names: &[&str]) -> Vec<ColumnName> {
        names.iter().map(|n| n.parse().unwrap()).collect()
    }

    #[test]
    fn columns_come_in_the_models_order_with_missing_as_nan() {
        let names = columns(&["mem_used", "cpu_used:peers", "cpu_used"]);
        let made = derive(
            &names,
            &matrix(&[0.25, 0.25, 0.3, f64::NAN, 0.95]),
            &History::default(),
        )
        .unwrap();
        assert_eq!(made.columns, names);
        assert!(made.values.column(0).iter().all(|v| v.is_nan()));
        assert_eq!(made.values[(4, 2)], 0.95);
        assert!(made.values[(3, 1)].is_nan() && made.values[(3, 2)].is_nan());
        // Spread 1.4826 × 0.025, the median of distances 0.025 0.025 0.025 0.675 from 0.275.
        assert!((made.values[(4, 1)] - 0.7 / (1.4826 * 0.025)).abs() < 1e-9);
    }

    #[test]
    fn a_deviation_is_bounded_counts_in_noise_at_least_and_needs_three_peers() {
        let peers = columns(&["cpu_used:peers"]);
        let of = |cpu: &[f64]| {
            derive(&peers, &matrix(cpu), &History::default())
                .unwrap()
                .values
        };
        assert_eq!(of(&[0.0, 0.0, 0.0, 1.0])[(3, 0)], DEVIATION_MAX);
        // cpu_used has a noise of 0.02: a hundredth of a core is half of nothing.
        assert!((of(&[0.1, 0.1, 0.1, 0.11])[(3, 0)] - 0.5).abs() < 1e-9);
        assert!(of(&[0.1, 0.2, 0.9]).iter().all(|v| v.is_nan()));
    }

    #[test]
    fn unknown_columns_are_named() {
        assert!("cpu_used:yesterday".parse::<ColumnName>().is_err());
        assert!("".parse::<ColumnName>().is_err());
        let error = derive(
            &columns(&["b", "cpu_used", "a:peers"]),
            &matrix(&[]),
            &History::default(),
        );
        let features = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(error, Err(DeriveError::Features { features }));
    }
}
