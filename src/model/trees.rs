//! Trees laid flat for scoring and explaining.
//!
//! Made from an ensemble that the validator has accepted. Scoring needs no recursion and no
//! memory, and every index is looked up, so even a mistake in the validator could not panic here.

use super::gbdt::{Ensemble, Node};

/// The most levels below the root that a tree may have.
pub const DEPTH_MAX: usize = 12;

/// One node, 16 bytes.
#[derive(Clone, Copy, Debug)]
pub struct FlatNode {
    /// Column that the node tests.
    pub column: u16,
    /// Subtracted from a code first, round the end: 1 where a missing value goes right, for it is
    /// then the highest code of all; else 0.
    pub shift: u8,
    /// Codes below this go left, once shifted.
    pub cut: u8,
    /// Place of the left child; 0 marks a leaf.
    pub left: u32,
    /// Place of the right child.
    pub right: u32,
    /// Value of a leaf, with the learning rate in it: half log-odds.
    pub value: f32,
}

impl FlatNode {
    fn new(node: &Node, shrinkage: f32) -> Self {
        let shift = u8::from(missing_goes_right(node));
        // Codes are whole numbers: below 3.5 is below 4.
        let cut = node.value.feature_value.ceil().clamp(0.0, 255.0) as u8;
        Self {
            column: u16::try_from(node.value.feature_index).unwrap_or(u16::MAX),
            shift,
            cut: cut.saturating_sub(shift),
            left: u32::try_from(node.left).unwrap_or(0),
            right: u32::try_from(node.right).unwrap_or(0),
            value: shrinkage * node.value.pred,
        }
    }

    /// Which child a code goes to.
    pub fn next(&self, code: u8) -> u32 {
        if code.wrapping_sub(self.shift) < self.cut {
            self.left
        } else {
            self.right
        }
    }
}

/// Whether a split only tells missing from present. Such a split is free in a rising column too: of
/// a value nothing is known, and that may well be worse than a good value.
pub(super) fn tells_missing(node: &Node) -> bool {
    node.value.feature_value <= 1.0
}

/// Whether a missing value goes right at a split. Of itself it goes left, as the lowest code; trees
/// that were imported have learned a direction at every split.
pub(super) fn missing_goes_right(node: &Node) -> bool {
    node.value.missing == 1
}

/// A flat ensemble.
#[derive(Clone, Debug)]
pub struct FlatTrees {
    /// Half the log-odds before any tree.
    pub bias: f32,
    /// The trees, in summing order; each is its own list of nodes, root first.
    pub trees: Vec<Vec<FlatNode>>,
}

impl FlatTrees {
    /// Lays out an ensemble that passed validation.
    pub fn new(ensemble: &Ensemble) -> Self {
        let shrinkage = ensemble.conf.shrinkage;
        let trees = ensemble
            .trees
            .iter()
            .map(|tree| {
                let nodes = tree.tree.tree.iter();
                nodes.map(|node| FlatNode::new(node, shrinkage)).collect()
            })
            .collect();
        Self {
            bias: ensemble.bias,
            trees,
        }
    }

    /// Adds each row's half log-odds to `sums`; `codes` holds `n_columns` codes for each row.
    ///
    /// Sums in f32 in the order of the trees, as the gbdt crate does, so both agree to the bit.
    pub fn add(&self, codes: &[u8], n_columns: usize, sums: &mut [f32]) {
        // A tree and a block of rows stay in the nearest cache together.
        const BLOCK: usize = 256;
        let n_columns = n_columns.max(1);
        for (rows, sums) in codes.chunks(BLOCK * n_columns).zip(sums.chunks_mut(BLOCK)) {
            for sum in sums.iter_mut() {
                *sum += self.bias;
            }
            for tree in &self.trees {
                for (row, sum) in rows.chunks_exact(n_columns).zip(sums.iter_mut()) {
                    *sum += leaf_value(tree, row);
                }
            }
        }
    }
}

/// The value of the leaf that a row falls into.
pub fn leaf_value(tree: &[FlatNode], row: &[u8]) -> f32 {
    let mut at = 0usize;
    for _ in 0..=DEPTH_MAX {
        let Some(node) = tree.get(at) else { return 0.0 };
        if node.left == 0 {
            return node.value;
        }
        at = node.next(row.get(usize::from(node.column)).copied().unwrap_or(0)) as usize;
    }
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_value_goes_left_or_where_the_split_sends_it_and_no_other_value_does_so_too() {
        for missing in [0, 1] {
            for cut in 2..=255u8 {
                let mut node = Node::leaf(0, 0.0);
                (node.left, node.right) = (1, 2);
                node.value.feature_value = f32::from(cut) - 0.5;
                node.value.missing = missing;
                let flat = FlatNode::new(&node, 1.0);
                assert_eq!(flat.next(0), if missing == 1 { 2 } else { 1 });
                for code in 1..=255u8 {
                    let side = if code < cut { 1 } else { 2 };
                    assert_eq!(flat.next(code), side, "{missing} {cut} {code}");
                }
            }
        }
        assert_eq!(size_of::<FlatNode>(), 16);
    }
}
