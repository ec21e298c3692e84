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

/// How a player must read for the branch that is being walked to be taken.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    /// Either way: both readings have gone the same way so far.
    Either,
    Row,
    Reference,
}

/// The two codes of a column, and whose it is.
#[derive(Clone, Copy)]
struct Reading {
    row: u8,
    reference: u8,
    player: u16,
}

/// What the row says beside the reference, in half log-odds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// The raw score of the row, to the bit that of [`FlatTrees::add`].
    pub row: f32,
    /// That of the reference.
    pub reference: f32,
    /// What each player adds when its codes in the row take the place of those in the reference. They add up to
    /// the difference of the two.
    pub added: Vec<f64>,
}

/// Compares a row with a reference: codes of every column.
pub fn compare(trees: &FlatTrees, players: &Players, row: &[u8], reference: &[u8]) -> Comparison {
    let codes = row.iter().zip(reference).zip(&players.of_column);
    let readings: Vec<Reading> = codes
        .map(|((row, reference), player)| Reading {
            row: *row,
            reference: *reference,
            player: *player,
        })
        .collect();
    let mut game = Game {
        tree: &[],
        readings: &readings,
        sides: vec![Side::Either; players.names.len()],
        is: Comparison {
            row: trees.bias,
            reference: trees.bias,
            added: vec![0.0; players.names.len()],
        },
    };
    for tree in &trees.trees {
        game.tree = tree;
        game.branch(0, 0, 0);
    }
    game.is
}

/// One tree after another, with a row and its reference.
struct Game<'a> {
    tree: &'a [FlatNode],
    /// One per column.
    readings: &'a [Reading],
    /// One per player.
    sides: Vec<Side>,
    is: Comparison,
}

/// What the leaves below a branch give to each player that must read as in the row, and take from each
/// that must read as in the reference.
#[derive(Clone, Copy, Default)]
struct Share {
    gives: f64,
    takes: f64,
}

impl Game<'_> {
    /// Walks a branch for which `n_row` players must read as in the row and `n_reference` as in the
    /// reference. It calls itself only where the two part, which is at most once for each level.
    fn branch(&mut self, node: u32, n_row: usize, n_reference: usize) -> Share {
        let Some(mut at) = self.tree.get(node as usize) else {
            return Share::default();
        };
        while at.left != 0 {
            let Some(reading) = self.readings.get(usize::from(at.column)).copied() else {
                return Share::default();
            };
            let (mine, usual) = (at.next(reading.row), at.next(reading.reference));
            let player = usize::from(reading.player);
            let next = if mine == usual {
                mine
            } else {
                match self.sides.get(player) {
                    Some(Side::Row) => mine,
                    Some(Side::Reference) => usual,
                    // A valid tree is not deeper.
                    Some(Side::Either) if n_row + n_reference < DEPTH_MAX => {
                        self.sides[player] = Side::Row;
                        let with = self.branch(mine, n_row + 1, n_reference);
                        self.sides[player] = Side::Reference;
                        let without = self.branch(usual, n_row, n_reference + 1);
                        self.sides[player] = Side::Either;
                        self.is.added[player] += with.gives - without.takes;
                        return Share {
                            gives: with.gives + without.gives,
                            takes: with.takes + without.takes,
                        };
                    }
                    Some(Side::Either) | None => return Share::default(),
                }
            };
            let Some(child) = self.tree.get(next as usize) else {
                return Share::default();
            };
            at = child;
        }
        // Of each tree one leaf is the row's own, and one the reference's.
        if n_reference == 0 {
            self.is.row += at.value;
        }
        if n_row == 0 {
            self.is.reference += at.value;
        }
        let value = f64::from(at.value);
        let share = |a: Option<usize>, b: Option<usize>| {
            let weight = a.zip(b).map_or(0.0, |(a, b)| WEIGHTS[a][b]);
            value * weight
        };
        Share {
            gives: share(n_row.checked_sub(1), Some(n_reference)),
            takes: share(Some(n_row), n_reference.checked_sub(1)),
        }
    }
}

/// a! b! / (a + b + 1)!: the share of orders in which one player comes after exactly `a` given
/// others and before `b` others.
const WEIGHTS: [[f64; DEPTH_MAX + 1]; DEPTH_MAX + 1] = {
    let mut weights = [[0.0; DEPTH_MAX + 1]; DEPTH_MAX + 1];
    let mut a = 0;
    while a <= DEPTH_MAX {
        let mut b = 0;
        while b <= DEPTH_MAX {
            let (less, more) = if a < b { (a, b) } else { (b, a) };
            let mut weight = 1.0 / (a + b + 1) as f64;
            let mut i = 1;
            while i <= less {
                weight *= i as f64 / (more + i) as f64;
                i += 1;
            }
            weights[a][b] = weight;
            b += 1;
        }
        a += 1;
    }
    weights
};

#[cfg(test)]
mod tests;
