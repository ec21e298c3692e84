//! Why a score is what it is: exact Shapley values against one reference row.
//!
//! The question answered is "what did each metric add to the log-odds, compared with what it
//! usually reads?". The players of the game are metrics, not columns: `mem_used` and
//! `mem_used:peers` change together or not at all. With a single reference row the Shapley value of
//! a tree is a sum over its leaves (interventional TreeSHAP), so it is exact and costs one walk.

use super::trees::{DEPTH_MAX, FlatNode, FlatTrees};
use crate::features::columns::subject_of;

/// Which player each column belongs to.
#[derive(Clone, Debug)]
pub struct Players {
    /// Names, in the order of their first column.
    pub names: Vec<String>,
    /// For each column the place of its player in `names`.
    pub of_column: Vec<u16>,
}

impl Players {
    /// Groups columns by what they count with: their feature, or themselves if they are of the whole Node.
    pub fn new<'a>(columns: impl IntoIterator<Item = &'a str>) -> Self {
        let mut names: Vec<String> = Vec::new();
        let of_column = columns
            .into_iter()
            .map(|column| {
                let subject = subject_of(column);
                let at = names
                    .iter()
                    .position(|name| name == subject)
                    .unwrap_or_else(|| {
                        names.push(subject.to_owned());
                        names.len() - 1
                    });
                u16::try_from(at).unwrap_or(u16::MAX)
            })
            .collect();
        Self { names, of_column }
    }
}

/// One branch of the walk that is still to be taken.
#[derive(Clone, Copy)]
struct Branch {
    node: u32,
    /// How many players of its parent must read as in the row, and as in the reference.
    n_row: u8,
    n_reference: u8,
    /// The player that forked, and the side on which this branch needs it.
    joins: Option<(Side, u16)>,
}

#[derive(Clone, Copy)]
enum Side {
    Row,
    Reference,
}

/// Room for one walk, reused from row to row.
#[derive(Default)]
pub struct Walk {
    branches: Vec<Branch>,
    /// Players that must read as in the row for the current branch to be taken.
    row: [u16; DEPTH_MAX + 1],
    /// Players that must read as in the reference.
    reference: [u16; DEPTH_MAX + 1],
}

/// Adds to `sums` (one per player) what each player changes in the raw score, when the row's codes
/// take the place of the reference's codes.
///
/// The sums add up to `score(row) − score(reference)`, in half log-odds.
pub fn add_contributions(
    trees: &FlatTrees,
    players: &Players,
    row: &[u8],
    reference: &[u8],
    walk: &mut Walk,
    sums: &mut [f64],
) {
    for tree in &trees.trees {
        walk.tree(tree, players, row, reference, sums);
    }
}

impl Walk {
    fn tree(
        &mut self,
        tree: &[FlatNode],
        players: &Players,
        row: &[u8],
        reference: &[u8],
        sums: &mut [f64],
    ) {
        self.branches.clear();
        self.branches.push(Branch {
            node: 0,
            n_row: 0,
            n_reference: 0,
            joins: None,
        });
        while let Some(branch) = self.branches.pop() {
            let Some(mut at) = tree.get(branch.node as usize) else {
                continue;
            };
            // What the parent stored is still there: the other child, if it was walked before, has
            // only written above the parent's lengths.
            let (mut u, mut v) = (usize::from(branch.n_row), usize::from(branch.n_reference));
            match branch.joins {
                None => {}
                Some((Side::Row, player)) => {
                    self.row[u] = player;
                    u += 1;
                }
                Some((Side::Reference, player)) => {
                    self.reference[v] = player;
                    v += 1;
                }
            }
            while at.left != 0 {
                let column = usize::from(at.column);
                let code = |codes: &[u8]| codes.get(column).copied().unwrap_or(0);
                let (mine, usual) = (at.next(code(row)), at.next(code(reference)));
                let player = players.of_column.get(column).copied().unwrap_or(u16::MAX);
                let next = if mine == usual || self.row[..u].contains(&player) {
                    mine
                } else if self.reference[..v].contains(&player) {
                    usual
                } else {
                    // A valid tree is not deeper, so the room in the lists suffices.
                    if u + v < DEPTH_MAX {
                        let (n_row, n_reference) = (u as u8, v as u8);
                        let fork = |node, side| {
                            let joins = Some((side, player));
                            Branch {
                                node,
                                n_row,
                                n_reference,
                                joins,
                            }
                        };
                        self.branches.push(fork(usual, Side::Reference));
                        self.branches.push(fork(mine, Side::Row));
                    }
                    break;
                };
                let Some(child) = tree.get(next as usize) else {
                    break;
                };
                at = child;
            }
            if at.left == 0 {
                self.leaf(f64::from(at.value), u, v, sums);
            }
        }
    }

    fn leaf(&self, value: f64, u: usize, v: usize, sums: &mut [f64]) {
        if u > 0 {
            let each = value * weight(u - 1, v);
            for player in &self.row[..u] {
                if let Some(sum) = sums.get_mut(usize::from(*player)) {
                    *sum += each;
                }
            }
        }
        if v > 0 {
            let each = value * weight(u, v - 1);
            for player in &self.reference[..v] {
                if let Some(sum) = sums.get_mut(usize::from(*player)) {
                    *sum -= each;
                }
            }
        }
    }
}

/// a! b! / (a + b + 1)!: the share of orders in which one player comes after exactly `a` given
/// others and before `b` others.
fn weight(a: usize, b: usize) -> f64 {
    let mut product = 1.0 / (a + b + 1) as f64;
    for i in 1..=a.min(b) {
        product *= i as f64 / (a.max(b) + i) as f64;
    }
    product
}

#[cfg(test)]
mod tests;
