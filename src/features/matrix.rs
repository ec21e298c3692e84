//! Feature values of every Node at one evaluation time.

use std::collections::BTreeMap;
use std::sync::Arc;

use foreshock_core::node::{NodeName, Uid};
use jiff::Timestamp;
use ndarray::Array2;

use super::schema::{Schema, Source};

/// Feature values of every Node at one evaluation time.
///
/// Shape: Nodes × features; rows follow [`Self::nodes`], columns the [`Schema`].
/// Units: those of the schema (seconds, bytes, ratios in `0.0..=1.0`). NaN means that there was no
/// fresh and possible sample: stale, absent, NaN and absurd values are all the same "missing".
/// Source: one instant query per column, listed in `config/features.toml`.
#[derive(Clone, Debug)]
pub struct FeatureMatrix {
    /// The evaluation time, on the grid of the cycle interval.
    pub at: Timestamp,
    /// Names and units of the columns.
    pub schema: Arc<Schema>,
    /// Row names, sorted, without repeats.
    pub nodes: Vec<NodeName>,
    /// UID of each row's Node, so that one re-created under its name is known for another; `None` where
    /// nobody says.
    pub uids: Vec<Option<Uid>>,
    /// Nodes × features; NaN is missing, no other value is non-finite.
    pub values: Array2<f64>,
    /// Which of a feature's alternative sources answered (`hwmon`, `kubelet`, …), in the shape of
    /// `values`: index into [`Feature::sources`](super::schema::Feature::sources); 0 where the value
    /// is missing.
    pub sources: Array2<u8>,
    /// Numbers that came and cannot be, by row and column: they are missing in `values`.
    pub impossible: BTreeMap<(usize, usize), f64>,
    /// When each row's Node was last scraped (timestamp of its `node_uname_info` sample); `None`
    /// where the Node has no fresh scrape, and then the whole row is missing.
    pub scraped_at: Vec<Option<Timestamp>>,
}

impl FeatureMatrix {
    /// A matrix of these Nodes in which everything is missing.
    pub fn missing(at: Timestamp, schema: Arc<Schema>, mut nodes: Vec<NodeName>) -> Self {
        nodes.sort();
        nodes.dedup();
        let shape = (nodes.len(), schema.len());
        Self {
            at,
            uids: vec![None; nodes.len()],
            scraped_at: vec![None; nodes.len()],
            values: Array2::from_elem(shape, f64::NAN),
            sources: Array2::zeros(shape),
            impossible: BTreeMap::new(),
            schema,
            nodes,
        }
    }

    /// The row of a Node.
    pub fn row_of(&self, node: &NodeName) -> Option<usize> {
        self.nodes.binary_search(node).ok()
    }

    /// The value at a row and column; `None` if it is missing.
    pub fn value(&self, row: usize, column: usize) -> Option<f64> {
        self.values
            .get((row, column))
            .copied()
            .filter(|v| !v.is_nan())
    }

    /// The value of a Node's feature by name; `None` if it is missing or there is no such feature.
    pub fn value_of(&self, row: usize, feature: &str) -> Option<f64> {
        self.value(row, self.schema.column_of(feature)?)
    }

    /// Where the value at a row and column came from; `None` if it is missing.
    pub fn source(&self, row: usize, column: usize) -> Option<&Source> {
        self.value(row, column)?;
        let index = usize::from(*self.sources.get((row, column))?);
        self.schema.features()[column].sources.get(index)
    }

    /// Share of the required features that a row lacks, in `0.0..=1.0`; optional ones (temperature
    /// on a VM, …) do not count. A Node that was not scraped lacks everything.
    pub fn missing_share(&self, row: usize) -> f64 {
        let mut required = 0_u32;
        let mut missing = 0_u32;
        for (column, feature) in self.schema.features().iter().enumerate() {
            if !feature.optional {
                required += 1;
                missing += u32::from(self.value(row, column).is_none());
            }
        }
        match required {
            0 if self.scraped_at.get(row).is_some_and(Option::is_some) => 0.0,
            0 => 1.0,
            _ => f64::from(missing) / f64::from(required),
        }
    }
}
