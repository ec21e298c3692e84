//! Choosing among several ways to learn, by rows that no tree was grown on.
//!
//! No one way is best everywhere: coarse bins hurt where rare counters carry the signal, extra edges
//! and small leaves learn noise where they do not, and on machines that nobody has seen a few
//! summaries can say more than all columns. What decides is the loss on the validation rows.

use super::artifact::Artifact;
use super::bins::Cut;
use super::boost::{Settings, log_odds};
use super::calibrate::platt;
use super::learn::{Grown, LearnError, Mask, Plan, Slice, Slices, grow, grow_anew};
use super::measure::{average_precision, log_loss};
use super::taken::{Kept, Taken};

/// One way to learn.
#[derive(Clone, Debug)]
pub struct Way {
    /// Its name in tables.
    pub name: String,
    /// How columns are cut into bins.
    pub cut: Cut,
    /// Of the boosting loop; `rising` is taken from the columns, `seed` from the plan.
    pub settings: Settings,
    /// The places of the columns that it takes; all if none are named.
    pub columns: Option<Vec<usize>>,
}

/// How a way did on the validation rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Tried {
    /// The way's name.
    pub name: String,
    /// Mean logistic loss, once calibrated on the same rows: a way is not to lose for a prior that
    /// calibration puts right. The lower the better.
    pub loss: f64,
    /// Area under the precision-recall curve.
    pub pr_auc: f64,
    /// Trees that were kept.
    pub trees: usize,
}

/// What came of the ways.
#[derive(Clone, Debug)]
pub struct Best {
    /// The model that the best way gave.
    pub model: Artifact,
    /// The place of the best way in [`Self::tried`].
    pub chosen: usize,
    /// What was tried, in the order in which it was given.
    pub tried: Vec<Tried>,
}

/// The ways that are tried, each with at most so many trees: guarded leaves and extra edges for rare
/// counters, four times; free leaves and deep trees for columns that only mean something together,
/// twice. `tests/learners` shows what each comes to.
pub fn ways(trees_max: usize) -> Vec<Way> {
    let way = |name: &str, quantiles, tails, settings: Settings| Way {
        name: name.to_owned(),
        cut: Cut { quantiles, tails },
        settings: Settings {
            trees_max,
            ..settings
        },
        columns: None,
    };
    let usual = || Settings {
        prior_differs: true,
        ..Settings::default()
    };
    vec![
        way("usual", 32, true, usual()),
        way("fine bins", 128, true, usual()),
        way(
            "half of the columns",
            32,
            true,
            Settings {
                column_share: 0.5,
                ..usual()
            },
        ),
        way(
            "slow",
            32,
            true,
            Settings {
                rate: 0.05,
                ..usual()
            },
        ),
        way(
            "deep",
            32,
            false,
            Settings {
                depth: 5,
                leaf_rows_min: 1,
                ..usual()
            },
        ),
        way(
            "deeper",
            32,
            false,
            Settings {
                depth: 6,
                leaf_rows_min: 1,
                ..usual()
            },
        ),
    ]
}

/// Learns in each of several ways, and makes a model of the one with the least loss on the
/// validation rows; of equals the first.
///
/// The same slices, plan and ways give the same bytes. `cut` and `settings` of the plan are replaced
/// by those of each way, but for the seed. `progress` is called with the number of the way and of its
/// trees so far.
///
/// # Errors
///
/// [`LearnError`]; [`LearnError::NothingToChooseBy`] where the validation rows are not of both kinds,
/// unless there is but one way.
pub fn learn_best(
    plan: &Plan,
    ways: &[Way],
    slices: &Slices,
    progress: impl FnMut(usize, usize),
) -> Result<Best, LearnError> {
    let (grown, chosen, tried) = compare(plan, ways, slices, progress)?;
    let way = &ways[chosen];
    let later = [&slices.calibration, &slices.test];
    let model = grown.seal(&plan.by(way)?, later.map(|slice| way.taking(slice)))?;
    Ok(Best {
        model,
        chosen,
        tried,
    })
}

/// The trees of the way with the least loss, its place, and what was tried; see [`learn_best`].
pub(super) fn compare(
    plan: &Plan,
    ways: &[Way],
    slices: &Slices,
    mut progress: impl FnMut(usize, usize),
) -> Result<(Grown, usize, Vec<Tried>), LearnError> {
    slices.check(plan.columns.len())?;
    let (rows, positives) = (
        slices.validation.labels.len(),
        slices.validation.positives(),
    );
    if ways.len() > 1 && (positives == 0 || positives == rows) {
        return Err(LearnError::NothingToChooseBy { rows, positives });
    }
    let mut tried: Vec<Tried> = Vec::new();
    let mut best: Option<(usize, Grown)> = None;
    for (number, way) in ways.iter().enumerate() {
        let plan = plan.by(way)?;
        let train = way.taking(&slices.train);
        let validation = way.taking(&slices.validation);
        let grown = grow(&plan, &train, &validation, |trees| progress(number, trees))?;
        tried.push(Tried::of(way, &grown, &validation));
        if best
            .as_ref()
            .is_none_or(|(at, _)| tried[number].loss < tried[*at].loss)
        {
            best = Some((number, grown));
        }
    }
    let (chosen, grown) = best.ok_or(LearnError::NoWay)?;
    Ok((grown, chosen, tried))
}

/// A model of so many trees, grown in one way on training and validation rows together. `progress` is called with the
/// number of trees so far.
///
/// # Errors
///
/// [`LearnError`].
pub fn learn_anew(
    plan: &Plan,
    way: &Way,
    trees: usize,
    slices: &Slices,
    progress: impl FnMut(usize),
) -> Result<Artifact, LearnError> {
    slices.check(plan.columns.len())?;
    let plan = plan.by(way)?;
    let taking = |slice| way.taking(slice);
    let parts = [&slices.train, &slices.validation].map(taking);
    let grown = grow_anew(&plan, &parts, trees, progress)?;
    grown.seal(&plan, [&slices.calibration, &slices.test].map(taking))
}

impl Tried {
    fn of(way: &Way, grown: &Grown, validation: &Taken<'_>) -> Self {
        let rows = validation.encode(&grown.columns);
        let raw = log_odds(&grown.gbdt, &rows);
        Self::by_scores(way, grown.gbdt.trees.len(), &raw, &rows.labels)
    }

    /// By raw log-odds of the validation rows.
    pub(super) fn by_scores(way: &Way, trees: usize, raw: &[f64], labels: &[bool]) -> Self {
        let fit = platt(raw, labels);
        let calibrated: Vec<f64> = raw.iter().map(|x| fit.slope * x + fit.intercept).collect();
        Self {
            name: way.name.clone(),
            loss: log_loss(&calibrated, labels),
            pr_auc: average_precision(raw, labels),
            trees,
        }
    }
}

impl Way {
    /// What the way takes of a slice. It has passed [`Plan::by`].
    pub(super) fn taking<'a>(&'a self, slice: &'a Slice) -> Taken<'a> {
        Taken {
            slice,
            columns: self.columns.as_deref(),
            rows: Kept::All,
        }
    }
}

impl Plan {
    /// The plan of one way.
    pub(super) fn by(&self, way: &Way) -> Result<Self, LearnError> {
        let mut plan = self.clone();
        plan.cut = way.cut;
        plan.settings = Settings {
            seed: self.settings.seed,
            ..way.settings.clone()
        };
        let Some(columns) = &way.columns else {
            return Ok(plan);
        };
        let taken = columns.iter().map(|at| {
            let column = self.columns.get(*at).cloned();
            column.ok_or_else(|| LearnError::WayColumn {
                way: way.name.clone(),
                column: *at,
                columns: self.columns.len(),
            })
        });
        plan.columns = taken.collect::<Result<_, _>>()?;
        let narrowed = self.masks.iter().map(|mask| Mask {
            columns: (0..columns.len())
                .filter(|place| mask.columns.contains(&columns[*place]))
                .collect(),
            share: mask.share,
        });
        plan.masks = narrowed.filter(|mask| !mask.columns.is_empty()).collect();
        Ok(plan)
    }
}

#[cfg(test)]
mod tests;
