//! Learning for Nodes that nobody has seen.
//!
//! Nodes are dealt into hands. For each hand there are trees that have not seen it, and what they say of it decides
//! which way to learn is taken, when to stop, and how sure the model may be. Judged by the Nodes that it has grown up
//! with, a model would be chosen that knows those.

use super::artifact::Artifact;
use super::boost::{Booster, Rows, Stopping, add_tree};
use super::choose::{Tried, Way};
use super::learn::{
    Grown, Kept, LearnError, Plan, Said, Slice, Slices, Taken, grow_anew, masked, settings,
};

/// The hand that the Node of each row was dealt to, counted from 0.
#[derive(Clone, Debug, Default)]
pub struct Hands {
    /// How many hands there are.
    pub count: u8,
    /// Of the training rows.
    pub train: Vec<u8>,
    /// Of the validation rows.
    pub validation: Vec<u8>,
    /// Of the calibration rows.
    pub calibration: Vec<u8>,
}

/// What came of learning by hands.
#[derive(Clone, Debug)]
pub struct ByHands {
    /// A model of all Nodes, in the best way, calibrated by what it says of them and what the others say of Nodes that
    /// they have not seen.
    pub model: Artifact,
    /// For each hand one of the same way whose trees have not seen it, calibrated alike, but by no row of that hand.
    pub blind: Vec<Artifact>,
    /// The place of the best way in [`Self::tried`].
    pub chosen: usize,
    /// What was tried, in the order in which it was given, judged on Nodes that were not seen.
    pub tried: Vec<Tried>,
}

impl Hands {
    /// Whether each hand can be left out: every row has one, and there are rows of both kinds without it, to grow trees on and to calibrate
    /// by, and rows of both kinds to choose by.
    pub fn suffice(&self, slices: &Slices) -> bool {
        let both = |labels: &mut dyn Iterator<Item = bool>| {
            let (mut positive, mut negative) = (false, false);
            for label in labels {
                positive |= label;
                negative |= !label;
            }
            positive && negative
        };
        let without = |slice, hands, hand| {
            let taken = Taken {
                rows: Kept::NotOf(hands, hand),
                ..Taken::all(slice)
            };
            both(&mut taken.labels())
        };
        let each_has_one = |hands: &[u8], slice: &Slice| {
            hands.len() == slice.labels.len() && hands.iter().all(|hand| *hand < self.count)
        };
        self.count >= 2
            && each_has_one(&self.train, &slices.train)
            && each_has_one(&self.validation, &slices.validation)
            && each_has_one(&self.calibration, &slices.calibration)
            && both(&mut slices.validation.labels.iter().copied())
            && (0..self.count).all(|hand| {
                without(&slices.train, &self.train, hand)
                    && without(&slices.calibration, &self.calibration, hand)
            })
    }

    fn all(&self) -> impl Iterator<Item = u8> + use<> {
        0..self.count
    }
}

/// Learns in each of several ways, and makes models of the one with the least loss on the validation rows, each said by
/// trees that have not seen its Node; of equals the first. Its trees are grown anew, as many as that was least with, on
/// training and validation rows together.
///
/// The same arguments give the same bytes. `progress` is called with the number of the way and of its trees so far;
/// numbers from `ways.len()` on are those of the models, first the one of all Nodes.
///
/// # Errors
///
/// [`LearnError`]; give [`Hands`] that [suffice](Hands::suffice).
pub fn learn_by_hands(
    plan: &Plan,
    ways: &[Way],
    slices: &Slices,
    hands: &Hands,
    mut progress: impl FnMut(usize, usize),
) -> Result<ByHands, LearnError> {
    slices.check(plan.columns.len())?;
    if !hands.suffice(slices) {
        return Err(LearnError::Hands(hands.count));
    }
    let mut tried: Vec<Tried> = Vec::new();
    for (number, way) in ways.iter().enumerate() {
        let search = Search {
            plan: plan.by(way)?,
            way,
            slices,
            hands,
        };
        tried.push(search.run(|trees| progress(number, trees))?);
    }
    let least = (0..tried.len()).reduce(|best, next| {
        if tried[next].loss < tried[best].loss {
            next
        } else {
            best
        }
    });
    let chosen = least.ok_or(LearnError::NoWay)?;
    let search = Search {
        plan: plan.by(&ways[chosen])?,
        way: &ways[chosen],
        slices,
        hands,
    };
    let (model, blind) = search.models(tried[chosen].trees, |model, trees| {
        progress(ways.len() + model, trees);
    })?;
    Ok(ByHands {
        model,
        blind,
        chosen,
        tried,
    })
}

/// One way to learn on one history.
struct Search<'a> {
    plan: Plan,
    way: &'a Way,
    slices: &'a Slices,
    hands: &'a Hands,
}

impl<'a> Search<'a> {
    fn take(&self, slice: &'a Slice, rows: Kept<'a>) -> Taken<'a> {
        Taken {
            rows,
            ..self.way.taking(slice)
        }
    }

    /// Trees without each hand grow side by side until what they say of their hands together has not been better for as
    /// long as patience lasts: of one hand alone there are too few incidents to stop by.
    fn run(&self, mut progress: impl FnMut(usize)) -> Result<Tried, LearnError> {
        let (slices, hands) = (self.slices, self.hands);
        let settings = settings(&self.plan);
        let mut train: Vec<Rows> = Vec::new();
        let mut validation: Vec<Rows> = Vec::new();
        for hand in hands.all() {
            let without = self.take(&slices.train, Kept::NotOf(&hands.train, hand));
            let (columns, rows) = masked(&self.plan, &[without]);
            let left_out = self.take(&slices.validation, Kept::Of(&hands.validation, hand));
            train.push(rows);
            validation.push(left_out.encode(&columns));
        }
        let labels: Vec<bool> = validation
            .iter()
            .flat_map(|rows| rows.labels.iter().copied())
            .collect();
        let boosters: Result<Vec<Booster<'_>>, _> = train
            .iter()
            .map(|rows| Booster::new(rows, &settings))
            .collect();
        let mut boosters = boosters?;
        let mut half: Vec<Vec<f32>> = boosters
            .iter()
            .zip(&validation)
            .map(|(booster, rows)| booster.begin(rows))
            .collect();
        let mut best: Vec<f32> = half.concat();
        let mut stopping = Stopping::default();
        for trees in 1..=settings.trees_max.max(1) {
            let each = boosters.iter_mut().zip(&validation).zip(&mut half);
            side_by_side(each, |((booster, rows), half)| {
                add_tree(booster.grow()?, rows, half);
                Ok::<(), LearnError>(())
            })?;
            progress(trees);
            let said = half.concat();
            let stops = stopping.stops(trees, settings.loss_of(&said, &labels), settings.patience);
            if stopping.best() == Some(trees) {
                best = said;
            }
            if stops {
                break;
            }
        }
        let raw: Vec<f64> = best.iter().map(|half| 2.0 * f64::from(*half)).collect();
        let trees = stopping.best().unwrap_or(1);
        Ok(Tried::by_scores(self.way, trees, &raw, &labels))
    }

    /// Models of so many trees: of all Nodes, and without each hand.
    fn models(
        &self,
        trees: usize,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<(Artifact, Vec<Artifact>), LearnError> {
        let (slices, hands) = (self.slices, self.hands);
        let whole = [&slices.train, &slices.validation].map(|slice| self.take(slice, Kept::All));
        let whole = grow_anew(&self.plan, &whole, trees, |done| progress(0, done))?;
        let mut blind: Vec<Grown> = Vec::new();
        for hand in hands.all() {
            let parts = [
                self.take(&slices.train, Kept::NotOf(&hands.train, hand)),
                self.take(&slices.validation, Kept::NotOf(&hands.validation, hand)),
            ];
            let number = blind.len() + 1;
            blind.push(grow_anew(&self.plan, &parts, trees, |done| {
                progress(number, done);
            })?);
        }
        // What trees say of Nodes that they have not seen, and as many rows of Nodes that they have: one meets both. For a
        // model that is to be judged on a hand, no row of that hand.
        let encode =
            |grown: &Grown, rows| self.take(&slices.calibration, rows).encode(&grown.columns);
        let calibrations = |grown: &Grown, but: Option<u8>| {
            let own = match but {
                Some(hand) => Kept::NotOf(&hands.calibration, hand),
                None => Kept::All,
            };
            let mut each = vec![(&grown.gbdt, encode(grown, own))];
            for (hand, other) in hands.all().zip(&blind) {
                if Some(hand) != but {
                    let left_out = Kept::Of(&hands.calibration, hand);
                    each.push((&other.gbdt, encode(other, left_out)));
                }
            }
            let said = Said {
                each,
                each_negative: self.plan.each_negative,
            };
            said.calibrations(&self.plan)
        };
        let all = std::iter::once((&whole, None));
        let without = blind.iter().zip(hands.all().map(Some));
        let calibrations: Vec<_> = all
            .chain(without)
            .map(|(grown, but)| calibrations(grown, but))
            .collect();
        let mut sealed = Vec::new();
        for (grown, (calibration, gaps)) in std::iter::once(whole).chain(blind).zip(calibrations) {
            let rows = self
                .take(&slices.calibration, Kept::All)
                .encode(&grown.columns);
            let test = self.take(&slices.test, Kept::All);
            sealed.push(grown.seal_as(&self.plan, calibration, gaps, &rows, test)?);
        }
        let blind = sealed.split_off(1);
        let model = sealed.pop().ok_or(LearnError::NoWay)?;
        Ok((model, blind))
    }
}

/// Does something for each, at once; the first error if there is one.
fn side_by_side<T: Send, E: Send>(
    each: impl Iterator<Item = T>,
    run: impl Fn(T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = each.map(|one| scope.spawn(move || run(one))).collect();
        let ended = threads.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        ended.collect::<Vec<_>>().into_iter().collect()
    })
}

#[cfg(test)]
mod tests;
