//! Which rows and columns each tree sees.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use super::super::gbdt::{Grower, Tree, UnknownShape};
use super::{Rows, Settings};

/// The rows that each tree sees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RowSample {
    /// Each with this chance, splits and leaves alike.
    Alike(f64),
    /// Splits are sought on the share `top` of the rows, those that are furthest from what is said of them, and on the
    /// share `drawn` of all rows, drawn from the others, which stands for all of those; leaves are made of all rows.
    /// Gradient-based one-side sampling (Ke et al., NIPS 2017). A tree sees about `least` rows, however few that
    /// would be of so few, or all there are.
    OneSided {
        /// Share of the rows that is furthest off.
        top: f64,
        /// Share of the rows that is drawn from the others.
        drawn: f64,
        /// Rows at least, or nearly: what is drawn stands for a whole number of rows.
        least: usize,
    },
}

/// What each tree sees of rows and columns.
pub(super) enum Sampling {
    /// Growers with sets of columns that take turns.
    Alike {
        share: f64,
        growers: Vec<Grower>,
        /// Trees so far.
        trees: usize,
    },
    /// Rows by how far they are from what is said of them, and columns dealt anew for each tree.
    OneSided { side: OneSided, deck: Deck },
}

impl Sampling {
    pub(super) fn new(rows: &Rows, settings: &Settings, rng: &mut ChaCha8Rng) -> Self {
        const SETS: usize = 6;
        let n = rows.n_columns;
        let mut deck = Deck::new(n, settings.column_share);
        match settings.rows {
            RowSample::Alike(share) => {
                let sets = if deck.size >= n { 1 } else { SETS };
                let dealt: Vec<Vec<usize>> = (0..sets).map(|_| deck.deal(rng)).collect();
                let growers = dealt
                    .iter()
                    .map(|columns| Grower::new(&rows.codes, n, columns));
                Self::Alike {
                    share,
                    growers: growers.collect(),
                    trees: 0,
                }
            }
            RowSample::OneSided { top, drawn, least } => Self::OneSided {
                side: OneSided::of(rows.len(), top, drawn, least),
                deck,
            },
        }
    }

    /// A tree, and the rows that its leaves are made of.
    pub(super) fn grow(
        &mut self,
        rows: &Rows,
        targets: &[f32],
        depth: u32,
        rng: &mut ChaCha8Rng,
    ) -> Result<(Tree, Vec<usize>), UnknownShape> {
        match self {
            Self::Alike {
                share,
                growers,
                trees,
            } => {
                let subset = sample(rows.len(), *share, rng);
                let turn = *trees % growers.len();
                *trees += 1;
                Ok((growers[turn].grow(targets, &subset, depth)?, subset))
            }
            Self::OneSided { side, deck } => {
                let (seen, weights) = side.draw(targets, rng);
                let mut codes = Vec::with_capacity(seen.len() * rows.n_columns);
                for row in &seen {
                    codes.extend_from_slice(rows.row(*row));
                }
                let targets: Vec<f32> = seen.iter().map(|row| targets[*row]).collect();
                let every: Vec<usize> = (0..seen.len()).collect();
                let columns = deck.deal(rng);
                let mut grower = Grower::weighed(&codes, rows.n_columns, &columns, &weights);
                let tree = grower.grow(&targets, &every, depth)?;
                Ok((tree, (0..rows.len()).collect()))
            }
        }
    }
}

/// How many rows are seen for themselves, and how many for the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct OneSided {
    /// Those furthest off.
    top: usize,
    /// Each of the others that are drawn stands for so many.
    each: u32,
}

impl OneSided {
    fn of(n: usize, top: f64, drawn: f64, least: usize) -> Self {
        // More of both where there are few.
        let more = (least as f64 / ((top + drawn) * n as f64)).max(1.0);
        let rows = |share: f64| ((share * more * n as f64).ceil() as usize).clamp(1, n.max(1));
        let top = rows(top);
        let others = n.saturating_sub(top) as f64;
        Self {
            top,
            each: (others / rows(drawn) as f64).round().max(1.0) as u32,
        }
    }

    /// Rows in order, and how many each stands for.
    fn draw(&self, targets: &[f32], rng: &mut ChaCha8Rng) -> (Vec<usize>, Vec<u32>) {
        let n = targets.len();
        let mut order: Vec<usize> = (0..n).collect();
        // Of rows that are equally far off any: at first nearly all are, and the earliest have no history.
        shuffle(&mut order, rng);
        if self.top < n {
            let mut place = vec![0; n];
            for (at, row) in order.iter().enumerate() {
                place[*row] = at;
            }
            order.select_nth_unstable_by(self.top, |a, b| {
                let by_target = targets[*b].abs().total_cmp(&targets[*a].abs());
                by_target.then(place[*a].cmp(&place[*b]))
            });
        }
        let mut others = order.split_off(self.top.min(n));
        // What the selection leaves in which order is its own business.
        others.sort_unstable();
        shuffle(&mut others, rng);
        others.truncate(others.len().div_ceil(self.each.max(1) as usize));
        let top = order.into_iter().map(|row| (row, 1));
        let drawn = others.into_iter().map(|row| (row, self.each));
        let mut seen: Vec<(usize, u32)> = top.chain(drawn).collect();
        seen.sort_unstable();
        seen.into_iter().unzip()
    }
}

/// Sets of columns, dealt like cards so that every column is in as many sets as any other, give or take one: the deck is
/// shuffled whenever it is used up.
pub(super) struct Deck {
    columns: Vec<usize>,
    /// Columns of a set.
    size: usize,
    next: usize,
}

impl Deck {
    fn new(n_columns: usize, share: f64) -> Self {
        let size = (share * n_columns as f64).ceil() as usize;
        Self {
            columns: (0..n_columns).collect(),
            size: size.clamp(1, n_columns.max(1)),
            next: n_columns,
        }
    }

    fn deal(&mut self, rng: &mut ChaCha8Rng) -> Vec<usize> {
        let n = self.columns.len();
        if self.size >= n {
            return (0..n).collect();
        }
        let mut set = Vec::with_capacity(self.size);
        while set.len() < self.size {
            if self.next == n {
                shuffle(&mut self.columns, rng);
                // Those that are in the set already come last: their turn is in another.
                self.columns.sort_by_key(|column| set.contains(column));
                self.next = 0;
            }
            set.push(self.columns[self.next]);
            self.next += 1;
        }
        set.sort_unstable();
        set
    }
}

fn shuffle(list: &mut [usize], rng: &mut ChaCha8Rng) {
    for i in (1..list.len()).rev() {
        list.swap(i, (unit(rng) * (i + 1) as f64) as usize);
    }
}

/// A number in `0.0..1.0`.
pub fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

fn sample(n: usize, share: f64, rng: &mut ChaCha8Rng) -> Vec<usize> {
    if share >= 1.0 {
        return (0..n).collect();
    }
    let drawn: Vec<usize> = (0..n).filter(|_| unit(rng) < share).collect();
    // A handful of rows may draw none at all; then all of them are used.
    if drawn.is_empty() {
        (0..n).collect()
    } else {
        drawn
    }
}

#[cfg(test)]
mod tests;
