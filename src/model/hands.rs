//! Learning for Nodes that nobody has seen.
//!
//! Nodes are dealt into hands. For each hand there are trees that have not seen it, and what they say of it decides
//! which way to learn is taken, when to stop, and how sure the model may be. Judged by the Nodes that it has grown up
//! with, a model would be chosen that knows those.

use super::artifact::{Artifact, Calibration, Gap, Limits};
use super::boost::{Booster, Rows, Stopping, add_tree};
use super::choose::{Tried, Way, compare, learn_anew};
use super::learn::{Grown, LearnError, Plan, Said, Slice, Slices, grow_anew, masked, settings};
use super::taken::{Kept, Taken};

/// The hand that the Node of each row was dealt to, counted from 0. A hand can be left out if every row has one.
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
    /// For each hand one of the same way whose trees have not seen it, calibrated alike, but by no row of that hand. None
    /// where no hand can be left out.
    pub blind: Vec<Artifact>,
    /// The place of the best way in [`Self::tried`].
    pub chosen: usize,
    /// What was tried, in the order in which it was given, judged on Nodes that were not seen.
    pub tried: Vec<Tried>,
}

impl Hands {
    /// Whether each hand can be left out: every row has one, and there are rows of both kinds without it, to grow trees
    /// on and to calibrate by, and rows of both kinds to choose by.
    fn suffice(&self, slices: &Slices) -> bool {
        let each_has_one = |hands: &[u8], slice: &Slice| {
            hands.len() == slice.labels.len() && hands.iter().all(|hand| *hand < self.count)
        };
        let both = |slice, rows| {
            let taken = Taken {
                rows,
                ..Taken::all(slice)
            };
            taken.labels().any(|label| label) && taken.labels().any(|label| !label)
        };
        self.count >= 2
            && each_has_one(&self.train, &slices.train)
            && each_has_one(&self.validation, &slices.validation)
            && each_has_one(&self.calibration, &slices.calibration)
            && both(&slices.validation, Kept::All)
            && self.all().all(|hand| {
                both(&slices.train, Kept::NotOf(&self.train, hand))
                    && both(&slices.calibration, Kept::NotOf(&self.calibration, hand))
            })
    }

    fn all(&self) -> impl Iterator<Item = u8> + use<> {
        0..self.count
    }
}

/// Learns in each of several ways, and makes models of the one with the least loss on the validation rows, each said by
/// trees that have not seen its Node; of equals the first. Its trees are grown anew, as many as that was least with, on
/// training and validation rows together. Models are not judged: test rows are not looked at.
///
/// Where a hand cannot be left out, there are no models that have not seen one, and ways are compared and the model is
/// calibrated by trees that have seen every Node.
///
/// The same arguments give the same bytes. `progress` is called with how many trees there are so far, and how many there may
/// be.
///
/// # Errors
///
/// [`LearnError`].
pub fn learn_by_hands(
    plan: &Plan,
    ways: &[Way],
    slices: &Slices,
    hands: &Hands,
    mut progress: impl FnMut(usize, usize),
) -> Result<ByHands, LearnError> {
    slices.check(plan.columns.len())?;
    let hands = Some(hands).filter(|hands| hands.suffice(slices));
    let models = 1 + hands.map_or(0, |hands| usize::from(hands.count));
    let each = ways.iter().map(|way| way.settings.trees_max.max(1)).max();
    let each = each.unwrap_or(0);
    let all = (ways.len() + models) * each;
    let mut progress = |number: usize, trees: usize| progress(number * each + trees, all);
    let (chosen, tried) = match hands {
        Some(hands) => compare_by_hands(plan, ways, slices, hands, &mut progress)?,
        None => {
            let (_, chosen, tried) = compare(plan, ways, slices, &mut progress)?;
            (chosen, tried)
        }
    };
    let (way, trees) = (&ways[chosen], tried[chosen].trees);
    let mut progress = |model: usize, trees: usize| progress(ways.len() + model, trees);
    let (model, blind) = match hands {
        Some(hands) => {
            let search = Search {
                plan: plan.by(way)?,
                way,
                slices,
                hands,
            };
            search.models(trees, &mut progress)?
        }
        None => {
            let model = learn_anew(plan, way, trees, slices, |trees| progress(0, trees))?;
            (model, Vec::new())
        }
    };
    progress(models, 0);
    Ok(ByHands {
        model,
        blind,
        chosen,
        tried,
    })
}

/// The place of the way with the least loss on Nodes that were not seen, and what was tried.
fn compare_by_hands(
    plan: &Plan,
    ways: &[Way],
    slices: &Slices,
    hands: &Hands,
    mut progress: impl FnMut(usize, usize),
) -> Result<(usize, Vec<Tried>), LearnError> {
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
    Ok((least.ok_or(LearnError::NoWay)?, tried))
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
        let all = std::iter::once((&whole, None));
        let each = all.chain(blind.iter().zip(hands.all().map(Some)));
        let calibrations: Vec<_> = each
            .map(|(grown, but)| self.calibrations(grown, &blind, but))
            .collect();
        let seal = |(grown, calibrations): (Grown, _)| {
            Artifact::seal(grown.content(&self.plan, calibrations), &Limits::default())
        };
        let mut sealed = std::iter::once(whole)
            .chain(blind)
            .zip(calibrations)
            .map(seal);
        let model = sealed.next().ok_or(LearnError::NoWay)??;
        Ok((model, sealed.collect::<Result<_, _>>()?))
    }

    /// By what trees say of Nodes that they have seen, and by as many rows of what the blind say of Nodes that they have not:
    /// one meets both. Of a model that is to be judged on a hand, by no row of that hand.
    fn calibrations(
        &self,
        grown: &Grown,
        blind: &[Grown],
        but: Option<u8>,
    ) -> (Calibration, Vec<Gap>) {
        let dealt = &self.hands.calibration;
        let rows = |grown: &Grown, rows| {
            let taken = self.take(&self.slices.calibration, rows);
            taken.encode(&grown.columns)
        };
        let own = but.map_or(Kept::All, |hand| Kept::NotOf(dealt, hand));
        let mut each = vec![(&grown.gbdt, rows(grown, own))];
        for (hand, other) in self.hands.all().zip(blind) {
            if Some(hand) != but {
                each.push((&other.gbdt, rows(other, Kept::Of(dealt, hand))));
            }
        }
        let said = Said {
            each,
            each_negative: self.plan.each_negative,
        };
        said.calibrations(&self.plan)
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
