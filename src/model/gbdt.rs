//! The border to the gbdt crate: its file shape, its tree grower, its predictor.
//!
//! Only this file knows the crate. The crate panics on NaN and on rows that are too short, loads
//! files on which it later hangs, and prints to the console: therefore it is given nothing but bin
//! numbers that this program made, and never a file. Its predictor serves as the yardstick for our
//! own scorer.

use gbdt::config::Loss;
use gbdt::decision_tree::{Data, DataVec, DecisionTree, TrainingCache, VALUE_TYPE_UNKNOWN};
use gbdt::gradient_boost::GBDT;
use serde::{Deserialize, Serialize};

use super::bins::MISSING;

/// The only loss of the crate whose score is half a log-odds; the spelling is the crate's.
pub const LOSS: &str = "LogLikelyhood";

/// An ensemble in the crate's own JSON shape, so that the crate can read what we write.
///
/// The score of a row is `bias + Σ shrinkage × leaf`, which is half the log-odds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ensemble {
    /// Settings; prediction uses `iterations`, `shrinkage`, `loss` and `initial_guess_enabled`.
    pub conf: Conf,
    /// The trees, in the order in which they are summed.
    pub trees: Vec<Tree>,
    /// Half the log-odds before any tree.
    pub bias: f32,
}

/// The crate's settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // The names are the crate's, which documents them.
pub struct Conf {
    pub feature_size: usize,
    pub max_depth: u32,
    pub iterations: usize,
    pub shrinkage: f32,
    pub feature_sample_ratio: f64,
    pub data_sample_ratio: f64,
    pub min_leaf_size: usize,
    pub loss: String,
    pub debug: bool,
    pub initial_guess_enabled: bool,
    pub training_optimization_level: u8,
}

/// One tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Tree {
    pub tree: Nodes,
    pub feature_size: usize,
    pub max_depth: u32,
    pub min_leaf_size: usize,
    pub loss: String,
    pub feature_sample_ratio: f64,
}

/// The nodes of a tree; the root is the first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Nodes {
    pub tree: Vec<Node>,
}

/// A node: its value and, unless it is a leaf, its children's places.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Node {
    pub value: NodeValue,
    pub index: usize,
    /// Place of the left child (below `feature_value`); 0 is none.
    pub left: usize,
    /// Place of the right child; 0 is none.
    pub right: usize,
}

/// What a node tests, and what it predicts if it is a leaf.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct NodeValue {
    pub feature_index: usize,
    pub feature_value: f32,
    pub pred: f32,
    /// 1: a missing value goes right. 0: it is the lowest code, and so goes left.
    pub missing: i8,
    pub is_leaf: bool,
}

impl Ensemble {
    /// An ensemble of trees whose leaves already contain the learning rate.
    pub fn new(n_columns: usize, depth: u32, bias: f32, trees: Vec<Tree>) -> Self {
        let conf = Conf {
            feature_size: n_columns,
            max_depth: depth,
            iterations: trees.len(),
            shrinkage: 1.0,
            feature_sample_ratio: 1.0,
            data_sample_ratio: 1.0,
            min_leaf_size: 1,
            loss: LOSS.to_owned(),
            debug: false,
            initial_guess_enabled: false,
            training_optimization_level: 2,
        };
        Self { conf, trees, bias }
    }
}

impl Tree {
    /// A tree of these nodes, root first.
    pub fn new(n_columns: usize, depth: u32, nodes: Vec<Node>) -> Self {
        Self {
            tree: Nodes { tree: nodes },
            feature_size: n_columns,
            max_depth: depth,
            min_leaf_size: 1,
            loss: "SquaredError".to_owned(),
            feature_sample_ratio: 1.0,
        }
    }
}

impl Node {
    /// A leaf at place `index`.
    pub fn leaf(index: usize, pred: f32) -> Self {
        let value = NodeValue {
            feature_index: 0,
            feature_value: 0.0,
            pred,
            missing: 0,
            is_leaf: true,
        };
        Self {
            value,
            index,
            left: 0,
            right: 0,
        }
    }
}

/// Grows trees on one fixed set of encoded rows and columns.
pub struct Grower {
    data: DataVec,
    cache: TrainingCache,
    n_columns: usize,
    /// The columns that it sees, as numbers among all.
    columns: Vec<usize>,
}

/// The crate grew something that its own shape does not describe.
#[derive(Debug, thiserror::Error)]
#[error("the gbdt crate returned a tree in an unknown shape; pin gbdt to 0.1.3")]
pub struct UnknownShape(#[from] serde_json::Error);

impl Grower {
    /// Takes rows of bin numbers, `n_columns` each, of which trees see the given `columns` (those
    /// that exist). An incomplete last row is left out.
    pub fn new(codes: &[u8], n_columns: usize, columns: &[usize]) -> Self {
        Self::weighed(codes, n_columns, columns, &[])
    }

    /// The same with how many rows each stands for; 1 where none is given.
    pub fn weighed(codes: &[u8], n_columns: usize, columns: &[usize], weights: &[u32]) -> Self {
        let n_columns = n_columns.max(1);
        let columns: Vec<usize> = columns.iter().copied().filter(|c| *c < n_columns).collect();
        let weights = weights.iter().copied().chain(std::iter::repeat(1));
        let data: DataVec = codes
            .chunks_exact(n_columns)
            .zip(weights)
            .map(|(row, weight)| {
                let features = columns
                    .iter()
                    .map(|column| f32::from(row[*column]))
                    .collect();
                Data::new_training_data(features, weight as f32, 0.0, None)
            })
            .collect();
        let cache = TrainingCache::get_cache(columns.len(), &data, 2);
        Self {
            data,
            cache,
            n_columns,
            columns,
        }
    }

    /// Grows one regression tree for `targets` (one per row) on the rows of `subset`.
    ///
    /// Targets are rounded to a multiple of 2⁻¹⁵: then every sum in the split search is exact (of up to eight million
    /// rows, each counted for as many as it stands for), and
    /// the tree does not depend on the order in which equal values happen to be sorted. That, and
    /// drawing the sample ourselves, is what makes a model repeatable to the byte.
    ///
    /// # Errors
    ///
    /// [`UnknownShape`] if another version of the crate is linked.
    pub fn grow(
        &mut self,
        targets: &[f32],
        subset: &[usize],
        depth: u32,
    ) -> Result<Tree, UnknownShape> {
        const GRID: f32 = 32_768.0;
        for (row, target) in self.data.iter_mut().zip(targets) {
            let target = if target.is_finite() {
                target.clamp(-64.0, 64.0)
            } else {
                0.0
            };
            row.target = (target * GRID).round() / GRID;
        }
        if subset.is_empty() || self.columns.is_empty() {
            return Ok(Tree::new(self.n_columns, depth, vec![Node::leaf(0, 0.0)]));
        }
        let mut tree = DecisionTree::new();
        tree.set_feature_size(self.columns.len());
        tree.set_max_depth(depth);
        tree.set_min_leaf_size(1);
        tree.set_loss(Loss::SquaredError);
        tree.fit_n(&self.data, subset, &mut self.cache);
        let mut tree: Tree = serde_json::from_value(serde_json::to_value(&tree)?)?;
        tree.feature_size = self.n_columns;
        for node in &mut tree.tree.tree {
            let column = self.columns.get(node.value.feature_index).copied();
            node.value.feature_index = column.unwrap_or_default();
        }
        Ok(tree)
    }
}

/// Probabilities by the crate's own `predict`, before calibration: the yardstick for our scorer.
///
/// Only for ensembles that [`super::artifact::Artifact`] accepted and rows of their width; the
/// crate panics or hangs on others.
///
/// # Errors
///
/// [`UnknownShape`] if the crate cannot read the shape.
pub fn predict(ensemble: &Ensemble, rows: &[Vec<u8>]) -> Result<Vec<f32>, UnknownShape> {
    let mut ensemble = ensemble.clone();
    let mut nodes: Vec<&mut Node> = ensemble
        .trees
        .iter_mut()
        .flat_map(|tree| &mut tree.tree.tree)
        .collect();
    // Where splits send missing values somewhere, they are told in the crate's own way: by a mark, and
    // by a direction at every split. Elsewhere they are the lowest code, as the crate was trained.
    let directed = nodes.iter().any(|node| node.value.missing != 0);
    if directed {
        for node in &mut nodes {
            node.value.missing = if node.value.missing == 1 { 1 } else { -1 };
        }
    }
    let model: GBDT = serde_json::from_value(serde_json::to_value(&ensemble)?)?;
    let feature = |code: &u8| match *code {
        MISSING if directed => VALUE_TYPE_UNKNOWN,
        code => f32::from(code),
    };
    let data: DataVec = rows
        .iter()
        .map(|row| Data::new_test_data(row.iter().map(feature).collect(), None))
        .collect();
    Ok(model.predict(&data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grown_tree_splits_where_the_target_jumps_and_comes_out_the_same_twice() {
        let codes: Vec<u8> = (0..200u8).flat_map(|i| [i, 200 - i]).collect();
        let targets: Vec<f32> = (0..200).map(|i| if i < 150 { -0.1 } else { 0.9 }).collect();
        let subset: Vec<usize> = (0..200).collect();
        let grow = || {
            Grower::new(&codes, 2, &[0, 1])
                .grow(&targets, &subset, 1)
                .unwrap()
        };
        let tree = grow();
        assert_eq!(tree.tree.tree.len(), 3);
        assert!((tree.tree.tree[0].value.feature_value - 149.5).abs() < 1e-6);
        assert_eq!(tree, grow());
    }

    #[test]
    fn a_row_that_stands_for_three_is_three_rows() {
        let codes: Vec<u8> = (0..60u8).flat_map(|i| [i % 7, i % 5]).collect();
        let targets: Vec<f32> = (0..60u8)
            .map(|i| f32::from(i % 7) / 8.0 - f32::from(i % 3))
            .collect();
        let grow = |codes: &[u8], weights: &[u32], targets: &[f32]| {
            let all: Vec<usize> = (0..targets.len()).collect();
            Grower::weighed(codes, 2, &[0, 1], weights)
                .grow(targets, &all, 3)
                .unwrap()
        };
        let weighed = grow(&codes, &[3; 20], &targets);
        let (mut more, mut of) = (codes.clone(), targets.clone());
        for _ in 0..2 {
            more.extend(&codes[..40]);
            of.extend(&targets[..20]);
        }
        let repeated = grow(&more, &[], &of);
        assert_eq!(weighed, repeated);
        assert_ne!(weighed, grow(&codes, &[], &targets));
    }
}
