//! From features to the model's own columns.
//!
//! The model says which columns it wants, by name; serving and training both get them from here, so
//! that the two cannot drift apart.

use std::fmt;
use std::str::FromStr;

use foreshock_core::node::NodeName;
use ndarray::Array2;

use super::matrix::FeatureMatrix;
use super::schema::FeatureName;
use super::usual::Usual;

/// One column of a model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ColumnName {
    /// `mem_used`: the feature's value now, in its unit.
    Now(FeatureName),
    /// `mem_used:peers`: how far it is from the median of the Node's peers, in multiples of how far
    /// Nodes usually are from it; within ±[`DEVIATION_MAX`].
    Peers(FeatureName),
}

/// Deviations beyond this are taken as this: farther off says nothing more.
pub const DEVIATION_MAX: f64 = 20.0;

impl ColumnName {
    /// The feature that the column is made from.
    pub fn feature(&self) -> &FeatureName {
        match self {
            Self::Now(feature) | Self::Peers(feature) => feature,
        }
    }
}

impl fmt::Display for ColumnName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(feature) => write!(f, "{feature}"),
            Self::Peers(feature) => write!(f, "{feature}:peers"),
        }
    }
}

impl FromStr for ColumnName {
    type Err = DeriveError;

    fn from_str(text: &str) -> Result<Self, DeriveError> {
        match text.split_once(':') {
            None if !text.is_empty() => Ok(Self::Now(text.into())),
            Some((feature, "peers")) if !feature.is_empty() => Ok(Self::Peers(feature.into())),
            _ => Err(DeriveError::Kind {
                column: text.into(),
            }),
        }
    }
}

/// Why columns cannot be made from a matrix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeriveError {
    /// Not a kind of column that this version knows.
    #[error("`{column}` is no model column; known are `FEATURE` and `FEATURE:peers`")]
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

/// What is remembered of earlier matrices. Nothing yet: no column needs it so far.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct History {}

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

/// Makes the columns that a model wants.
///
/// # Errors
///
/// [`DeriveError::Features`] if the schema of the matrix lacks one of their features.
pub fn derive(
    columns: &[ColumnName],
    matrix: &FeatureMatrix,
    _history: &History,
) -> Result<ModelMatrix, DeriveError> {
    let place = |column: &ColumnName| matrix.schema.column_of(column.feature().as_str());
    let mut absent: Vec<_> = columns
        .iter()
        .filter(|c| place(c).is_none())
        .map(|c| c.feature().to_string())
        .collect();
    absent.sort();
    absent.dedup();
    if !absent.is_empty() {
        return Err(DeriveError::Features { features: absent });
    }
    let peers = columns.iter().any(|c| matches!(c, ColumnName::Peers(_)));
    let usual = peers.then(|| Usual::of(matrix));
    let mut values = Array2::from_elem((matrix.nodes.len(), columns.len()), f64::NAN);
    for (j, column) in columns.iter().enumerate() {
        let Some(from) = place(column) else { continue };
        let noise = matrix.schema.features()[from].noise;
        for row in 0..matrix.nodes.len() {
            let value = match (column, &usual) {
                (ColumnName::Peers(_), Some(usual)) => deviation(matrix, usual, noise, row, from),
                (ColumnName::Now(_) | ColumnName::Peers(_), _) => matrix.value(row, from),
            };
            values[(row, j)] = value.unwrap_or(f64::NAN);
        }
    }
    Ok(ModelMatrix {
        nodes: matrix.nodes.clone(),
        columns: columns.to_vec(),
        values,
    })
}

/// Deviation from the peers' median. The scale is never below the feature's `noise`, or one lost
/// packet among idle Nodes would be the largest deviation there is.
fn deviation(
    matrix: &FeatureMatrix,
    usual: &Usual,
    noise: f64,
    row: usize,
    column: usize,
) -> Option<f64> {
    let from_median = matrix.value(row, column)? - usual.value(row, column)?;
    let scale = usual.spread(column).max(noise);
    Some((from_median / scale).clamp(-DEVIATION_MAX, DEVIATION_MAX))
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
