//! Feature values of every Node at one evaluation time.

use std::sync::Arc;

use foreshock_core::node::NodeName;
use jiff::Timestamp;
use ndarray::Array2;

use super::schema::Schema;

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
    /// Nodes × features; NaN is missing, no other value is non-finite.
    pub values: Array2<f64>,
    /// Which of a feature's alternative sources answered (`hwmon`, `kubelet`, …), in the shape of
    /// `values`: index into [`super::schema::Feature::sources`]; 0 where the value is missing.
    pub sources: Array2<u8>,
    /// When each row's Node was last scraped (timestamp of its `node_uname_info` sample); `None`
    /// where the Node has no fresh scrape, and then the whole row is missing.
    pub scraped_at: Vec<Option<Timestamp>>,
}

impl FeatureMatrix {
    /// The row of a Node.
    pub fn row_of(&self, node: &NodeName) -> Option<usize> {
        self.nodes.binary_search(node).ok()
    }
}
