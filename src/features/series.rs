//! The model's rows at one time after another: the one way to them, for the service and for training.

use super::columns::ColumnName;
use super::derive::{DeriveError, ModelMatrix, derive};
use super::history::History;
use super::matrix::FeatureMatrix;

/// Remembers a matrix and makes the model's columns of it. `whole` says that every column was answered:
/// what was not is to be had later.
///
/// # Errors
///
/// [`DeriveError::Features`] if the schema of the matrix lacks a feature of the columns.
pub fn next_rows(
    columns: &[ColumnName],
    matrix: &FeatureMatrix,
    whole: bool,
    history: &mut History,
) -> Result<ModelMatrix, DeriveError> {
    history.want(&matrix.schema, columns);
    history.take(matrix, whole);
    derive(columns, matrix, history)
}

/// The model's rows of a series of matrices in the order of time, as the service would have had them: the
/// first ones without a history. Every point of the grid has to be among them; the times between are as
/// the caller likes.
///
/// # Errors
///
/// Each item as [`next_rows`].
pub fn rows<'a>(
    columns: &'a [ColumnName],
    matrices: impl IntoIterator<Item = FeatureMatrix> + 'a,
) -> impl Iterator<Item = Result<ModelMatrix, DeriveError>> + 'a {
    let mut history = History::default();
    let matrices = matrices.into_iter();
    matrices.map(move |matrix| next_rows(columns, &matrix, true, &mut history))
}
