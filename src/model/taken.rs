//! Which rows and columns of a slice are learned from, where they are: nothing is copied but codes.

use super::artifact::Column;
use super::bins::MISSING;
use super::boost::Rows;
use super::learn::Slice;

/// Some columns of some of a slice's rows, where they are.
#[derive(Clone, Copy)]
pub(super) struct Taken<'a> {
    pub(super) slice: &'a Slice,
    /// Places of the columns; all of them if none are named.
    pub(super) columns: Option<&'a [usize]>,
    pub(super) rows: Kept<'a>,
}

/// Which rows, by the hand that each was dealt to.
#[derive(Clone, Copy)]
pub(super) enum Kept<'a> {
    All,
    Of(&'a [u8], u8),
    NotOf(&'a [u8], u8),
}

impl Kept<'_> {
    fn has(&self, row: usize) -> bool {
        match self {
            Self::All => true,
            Self::Of(hands, hand) => hands.get(row) == Some(hand),
            Self::NotOf(hands, hand) => hands.get(row) != Some(hand),
        }
    }
}

impl<'a> Taken<'a> {
    pub(super) fn all(slice: &'a Slice) -> Self {
        Self {
            slice,
            columns: None,
            rows: Kept::All,
        }
    }

    fn place(&self, column: usize) -> Option<usize> {
        match self.columns {
            Some(places) => places.get(column).copied(),
            None => Some(column),
        }
    }

    pub(super) fn labels(&self) -> impl Iterator<Item = bool> + use<'a> {
        let rows = self.rows;
        let labels = self.slice.labels.iter().enumerate();
        labels
            .filter(move |(row, _)| rows.has(*row))
            .map(|(_, label)| *label)
    }

    /// The values of a column with their labels; none of one that is not there.
    pub(super) fn column(&self, column: usize) -> impl Iterator<Item = (f64, bool)> + use<'a> {
        let rows = self.rows;
        let there = |at: &usize| *at < self.slice.values.ncols();
        let values = self.place(column).filter(there);
        let values = values.map(|at| self.slice.values.column(at));
        let values = values.into_iter().flat_map(|column| column.into_iter());
        let each = values.zip(&self.slice.labels).enumerate();
        each.filter(move |(row, _)| rows.has(*row))
            .map(|(_, (value, label))| (*value, *label))
    }

    /// Adds the codes of the rows under these columns' bins.
    fn encode_into(&self, rows: &mut Rows, columns: &[Column]) {
        rows.labels.extend(self.labels());
        rows.codes
            .reserve(rows.labels.len() * columns.len() - rows.codes.len());
        for (i, row) in self.slice.values.rows().into_iter().enumerate() {
            if !self.rows.has(i) {
                continue;
            }
            rows.codes
                .extend(columns.iter().enumerate().map(|(i, column)| {
                    let value = self.place(i).and_then(|place| row.get(place));
                    value.map_or(MISSING, |value| column.edges.code(*value))
                }));
        }
    }

    /// Codes of the rows under these columns' bins.
    pub(super) fn encode(&self, columns: &[Column]) -> Rows {
        encode_all(&[*self], columns)
    }
}

/// Codes of the rows of several parts, one after another.
pub(super) fn encode_all(parts: &[Taken<'_>], columns: &[Column]) -> Rows {
    let mut rows = Rows {
        n_columns: columns.len(),
        ..Rows::default()
    };
    for part in parts {
        part.encode_into(&mut rows, columns);
    }
    rows
}

/// Codes of a slice under these columns' bins.
pub fn encode(columns: &[Column], slice: &Slice) -> Rows {
    Taken::all(slice).encode(columns)
}
