//! The boosting loop: seeded row sampling, leaves that are held back, rising columns, early
//! stopping. The gbdt crate grows the trees; everything that makes them trustworthy is here.
//!
//! The crate's own loop draws from an unseeded generator, stops nowhere, and gives a leaf of a
//! single row an unbounded step, so that twelve positives in 60,000 rows read as certainty.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::bins::MISSING;
use super::gbdt::{Ensemble, Node, Tree, UnknownShape};
use super::learn::Mask;
use super::measure::{centred_log_loss, log_loss};
use super::trees::{DEPTH_MAX, FlatTrees, tells_missing};

pub mod sampling;

use sampling::Sampling;
pub use sampling::{RowSample, unit};

/// Encoded rows with their labels.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Codes, row by row, `n_columns` each.
    pub codes: Vec<u8>,
    /// Columns of a row.
    pub n_columns: usize,
    /// Whether the Node degrades within the horizon of the row; one per row.
    pub labels: Vec<bool>,
}

impl Rows {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// That the codes make as many rows as there are labels, of so many columns.
    fn check(&self, n_columns: usize) -> Result<(), BoostError> {
        if n_columns == 0 || self.codes.len() != self.len() * n_columns {
            return Err(BoostError::Shape {
                codes: self.codes.len(),
                rows: self.len(),
                columns: n_columns,
            });
        }
        Ok(())
    }

    fn row(&self, i: usize) -> &[u8] {
        self.codes
            .get(i * self.n_columns..(i + 1) * self.n_columns)
            .unwrap_or(&[])
    }
}

/// Settings of the loop.
#[derive(Clone, Debug)]
pub struct Settings {
    /// At most this many trees.
    pub trees_max: usize,
    /// Levels below the root.
    pub depth: u32,
    /// Learning rate.
    pub rate: f64,
    /// The rows that each tree sees.
    pub rows: RowSample,
    /// Share of columns that each tree sees: drawn once for each of a few sets that take turns, or for every tree where
    /// its rows are drawn from one side. With rising columns below 1, or trees go on finding the one split that a
    /// rising column forbids.
    pub column_share: f64,
    /// Split search sees residuals no larger than this, in `0.0..=1.0`. Below 1, the few positive
    /// rows that look like every healthy one no longer draw every split to themselves; leaf values
    /// always see the true residuals.
    pub residual_max: f64,
    /// Added to a leaf's denominator, in rows of full uncertainty (a quarter each).
    pub l2: f64,
    /// A leaf with fewer rows takes its parent's value.
    pub leaf_rows_min: usize,
    /// Stop when the validation loss has not improved for so many trees.
    pub patience: usize,
    /// Whether the share of positives in the validation rows may be another than in training
    /// (thinned negatives, other Nodes): their loss is then taken with the prior put right, or a
    /// loop that learns well would stop for what calibration repairs.
    pub prior_differs: bool,
    /// Columns in which the score may only rise; one per column, none if shorter.
    pub rising: Vec<bool>,
    /// Seed of the row sampling.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            trees_max: 200,
            depth: 4,
            rate: 0.1,
            rows: RowSample::Alike(0.7),
            column_share: 1.0,
            residual_max: 1.0,
            l2: 4.0,
            leaf_rows_min: 20,
            patience: 20,
            prior_differs: false,
            rising: Vec::new(),
            seed: 0,
        }
    }
}

/// Why nothing could be trained.
#[derive(Debug, thiserror::Error)]
pub enum BoostError {
    /// Learning needs examples of both kinds.
    #[error("of {rows} training rows {positives} are positive; there must be rows of both kinds")]
    OneClass {
        /// Training rows.
        rows: usize,
        /// Positive ones.
        positives: usize,
    },
    /// Rows and columns do not fit together.
    #[error("{codes} codes do not make {rows} rows of {columns} columns")]
    Shape {
        /// Codes given.
        codes: usize,
        /// Labels given.
        rows: usize,
        /// Columns given.
        columns: usize,
    },
    /// The gbdt crate is not the one that this program was written for.
    #[error(transparent)]
    Crate(#[from] UnknownShape),
}

/// Trains an ensemble on `rows`, stopping by the loss on `validation`; with no such rows it grows all trees.
///
/// The same rows, settings and program give the same ensemble, to the bit. `progress` is called
/// with the number of trees so far.
///
/// # Errors
///
/// [`BoostError`].
pub fn boost(
    rows: &Rows,
    validation: &Rows,
    settings: &Settings,
    mut progress: impl FnMut(usize),
) -> Result<Ensemble, BoostError> {
    validation.check(rows.n_columns)?;
    let mut booster = Booster::new(rows, settings)?;
    let mut half = booster.begin(validation);
    let mut stopping = Stopping::default();
    while booster.trees.len() < settings.trees_max.max(1) {
        add_tree(booster.grow()?, validation, &mut half);
        progress(booster.trees.len());
        if !validation.is_empty() {
            let loss = settings.loss_of(&half, &validation.labels);
            if stopping.stops(booster.trees.len(), loss, settings.patience) {
                break;
            }
        }
    }
    let best = stopping.best().unwrap_or(booster.trees.len());
    Ok(booster.end(best))
}

/// A loop that grows one tree after another.
pub(super) struct Booster<'a> {
    rows: &'a Rows,
    settings: &'a Settings,
    depth: u32,
    bias: f32,
    rng: ChaCha8Rng,
    sampling: Sampling,
    /// Of each row half the log-odds so far.
    half: Vec<f32>,
    trees: Vec<Tree>,
}

impl<'a> Booster<'a> {
    pub(super) fn new(rows: &'a Rows, settings: &'a Settings) -> Result<Self, BoostError> {
        rows.check(rows.n_columns)?;
        let n = rows.len();
        let positives = rows.labels.iter().filter(|y| **y).count();
        if positives == 0 || positives == n {
            return Err(BoostError::OneClass { rows: n, positives });
        }
        let share = positives as f64 / n as f64;
        let bias = on_grid(0.5 * libm::log(share / (1.0 - share)));
        let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
        Ok(Self {
            rows,
            settings,
            depth: settings.depth.clamp(1, DEPTH_MAX as u32),
            bias,
            sampling: Sampling::new(rows, settings, &mut rng),
            rng,
            half: vec![bias; n],
            trees: Vec::new(),
        })
    }

    /// Half the log-odds of other rows before any tree.
    pub(super) fn begin(&self, rows: &Rows) -> Vec<f32> {
        vec![self.bias; rows.len()]
    }

    /// Grows one more tree.
    pub(super) fn grow(&mut self) -> Result<&Tree, BoostError> {
        let labels = self.rows.labels.iter();
        let gradients: Vec<(f64, f64)> = labels
            .zip(&self.half)
            .map(|(label, half)| {
                let p = 1.0 / (1.0 + libm::exp(-2.0 * f64::from(*half)));
                let y = f64::from(u8::from(*label));
                (y - p, p * (1.0 - p))
            })
            .collect();
        let most = self.settings.residual_max;
        let targets: Vec<f32> = gradients
            .iter()
            .map(|(gradient, _)| gradient.clamp(-most, most) as f32)
            .collect();
        let (grown, subset) = self
            .sampling
            .grow(self.rows, &targets, self.depth, &mut self.rng)?;
        let tree = refit(
            grown,
            self.rows,
            &subset,
            &gradients,
            self.settings,
            self.depth,
        );
        add_tree(&tree, self.rows, &mut self.half);
        let place = self.trees.len();
        self.trees.push(tree);
        Ok(&self.trees[place])
    }

    /// The first so many trees.
    pub(super) fn end(mut self, trees: usize) -> Ensemble {
        self.trees.truncate(trees);
        Ensemble::new(self.rows.n_columns, self.depth, self.bias, self.trees)
    }
}

impl Settings {
    /// Mean logistic loss of rows by half their log-odds.
    pub(super) fn loss_of(&self, half: &[f32], labels: &[bool]) -> f64 {
        let log_odds: Vec<f64> = half.iter().map(|h| 2.0 * f64::from(*h)).collect();
        if self.prior_differs {
            centred_log_loss(&log_odds, labels)
        } else {
            log_loss(&log_odds, labels)
        }
    }
}

/// When to stop.
#[derive(Debug)]
pub(super) struct Stopping {
    least: f64,
    /// After how many trees the loss was least; 0 before there was any.
    at: usize,
}

impl Default for Stopping {
    fn default() -> Self {
        Self {
            least: f64::INFINITY,
            at: 0,
        }
    }
}

impl Stopping {
    /// Takes the loss after so many trees; whether it has not been better for as many as patience lasts.
    pub(super) fn stops(&mut self, trees: usize, loss: f64, patience: usize) -> bool {
        if loss < self.least - 1e-6 {
            (self.least, self.at) = (loss, trees);
            return false;
        }
        trees >= self.at + patience.max(1)
    }

    /// After how many trees the loss was least.
    pub(super) fn best(&self) -> Option<usize> {
        (self.at > 0).then_some(self.at)
    }
}

/// Raw log-odds (not halved, not calibrated) of encoded rows.
pub fn log_odds(ensemble: &Ensemble, rows: &Rows) -> Vec<f64> {
    let mut half = vec![0.0f32; rows.len()];
    FlatTrees::new(ensemble).add(&rows.codes, rows.n_columns, &mut half);
    half.into_iter().map(|h| 2.0 * f64::from(h)).collect()
}

/// Makes each mask's columns missing in its share of the rows, each mask by its own draw, so that a
/// missing group of columns means something to the trees.
pub fn mask(rows: &mut Rows, masks: &[Mask], seed: u64) {
    // Another stream than the row sampling of the same seed.
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x6d61_736b);
    for row in rows.codes.chunks_exact_mut(rows.n_columns.max(1)) {
        for mask in masks {
            if unit(&mut rng) < mask.share {
                for column in &mask.columns {
                    if let Some(code) = row.get_mut(*column) {
                        *code = MISSING;
                    }
                }
            }
        }
    }
}

/// Leaves are multiples of 2⁻¹⁶, so that sums of them are exact in any order and precision.
fn on_grid(value: f64) -> f32 {
    const GRID: f64 = 65_536.0;
    ((value * GRID).round() / GRID) as f32
}

pub(super) fn add_tree(tree: &Tree, rows: &Rows, half: &mut [f32]) {
    let alone = Ensemble::new(rows.n_columns, 0, 0.0, vec![tree.clone()]);
    FlatTrees::new(&alone).add(&rows.codes, rows.n_columns, half);
}

/// Gives the grown structure its leaf values: a regularised Newton step, the parent's where a leaf
/// is small, within the bounds of rising columns, times the learning rate. Then drops splits that
/// no longer tell anything apart.
fn refit(
    mut tree: Tree,
    rows: &Rows,
    subset: &[usize],
    gradients: &[(f64, f64)],
    settings: &Settings,
    depth: u32,
) -> Tree {
    let nodes = &mut tree.tree.tree;
    let sums = sums_at(nodes, rows, subset, gradients);
    // Newton's step in log-odds; a row of full uncertainty has width 1/4.
    let step = |at: usize| sums[at].gradient / (sums[at].width + settings.l2 * 0.25);
    let mut values = vec![0.0; nodes.len()];
    let mut bounds = vec![(-8.0f64, 8.0f64); nodes.len()];
    values[0] = step(0).clamp(-8.0, 8.0);
    for at in 0..nodes.len() {
        if nodes[at].value.is_leaf {
            continue;
        }
        let (left, right) = (nodes[at].left, nodes[at].right);
        let (low, high) = bounds[at];
        for child in [left, right] {
            let small = sums[child].rows < settings.leaf_rows_min;
            let value = if small { values[at] } else { step(child) };
            values[child] = value.clamp(low, high);
            bounds[child] = (low, high);
        }
        let rising = settings.rising.get(nodes[at].value.feature_index) == Some(&true);
        if rising && !tells_missing(&nodes[at]) {
            // Everything left of the cut stays at or below everything right of it. Where the rows
            // say otherwise, both sides meet at their common value.
            let middle = if values[left] <= values[right] {
                0.5 * (values[left] + values[right])
            } else {
                values[at]
            };
            bounds[left].1 = middle;
            bounds[right].0 = middle;
            values[left] = values[left].min(middle);
            values[right] = values[right].max(middle);
        }
    }
    for (node, value) in nodes.iter_mut().zip(&values) {
        // The score is half the log-odds.
        node.value.pred = on_grid(value * settings.rate * 0.5);
    }
    prune(&tree, rows.n_columns, depth)
}

/// What passes through a node.
#[derive(Clone, Copy, Default)]
struct Sums {
    gradient: f64,
    width: f64,
    rows: usize,
}

fn sums_at(nodes: &[Node], rows: &Rows, subset: &[usize], gradients: &[(f64, f64)]) -> Vec<Sums> {
    let mut sums = vec![Sums::default(); nodes.len()];
    for i in subset {
        let row = rows.row(*i);
        let (gradient, width) = gradients[*i];
        let mut at = 0;
        loop {
            sums[at].gradient += gradient;
            sums[at].width += width;
            sums[at].rows += 1;
            let node = &nodes[at];
            if node.value.is_leaf {
                break;
            }
            let code = f32::from(row[node.value.feature_index]);
            at = if code < node.value.feature_value {
                node.left
            } else {
                node.right
            };
        }
    }
    sums
}

/// Joins splits whose leaves say the same, and lays the nodes out anew, parents first.
fn prune(tree: &Tree, n_columns: usize, depth: u32) -> Tree {
    let nodes = &tree.tree.tree;
    // Children come after their parent, so backwards every child is judged before its parent.
    let mut same: Vec<Option<f32>> = vec![None; nodes.len()];
    for (at, node) in nodes.iter().enumerate().rev() {
        same[at] = if node.value.is_leaf {
            Some(node.value.pred)
        } else {
            same[node.left].filter(|left| same[node.right] == Some(*left))
        };
    }
    let mut kept: Vec<Node> = Vec::new();
    // Place in the old tree, and which child of which kept node it is.
    let mut open: Vec<(usize, Option<(usize, bool)>)> = vec![(0, None)];
    while let Some((old, parent)) = open.pop() {
        let place = kept.len();
        if let Some((parent, is_left)) = parent {
            let slot: &mut Node = &mut kept[parent];
            if is_left {
                slot.left = place
            } else {
                slot.right = place
            }
        }
        match same[old] {
            Some(value) => kept.push(Node::leaf(place, value)),
            None => {
                let mut node = nodes[old].clone();
                (node.index, node.left, node.right) = (place, 0, 0);
                kept.push(node);
                open.push((nodes[old].right, Some((place, false))));
                open.push((nodes[old].left, Some((place, true))));
            }
        }
    }
    Tree::new(n_columns, depth, kept)
}

#[cfg(test)]
mod tests;
