//! What units do to a model (nothing), and what missing metrics do (little).

use foreshock::model::artifact::Validation;
use foreshock::model::choose::{Way, ways};
use foreshock::model::learn::{Mask, Slice, Slices};
use foreshock::model::measure::judge;
use ndarray::Array2;

use crate::compare::{Round, TREES_MAX, draw};
use crate::figures::{Figures, largest, least, mean};
use crate::ours;
use crate::problems::{GROUPS, Problem};

/// Share of the training rows that each group of columns is missing from.
const MASKED: f64 = 0.1;

/// The same rows in other units, and rows with gaps.
///
/// # Errors
///
/// Nothing can be learned.
pub(crate) fn report(rounds: &[Round], figures: &mut Figures) -> anyhow::Result<()> {
    units(rounds, figures)?;
    gaps(rounds, figures)
}

/// The way that a round has chosen, alone.
fn chosen(round: &Round) -> [Way; 1] {
    [ways(TREES_MAX).swap_remove(round.chosen())]
}

fn units(rounds: &[Round], figures: &mut Figures) -> anyhow::Result<()> {
    println!("\nThe same rows in units × 1e-3 and × 1e6: the largest difference of any score\n");
    let mut worst = 0.0f64;
    for problem in Problem::ALL {
        let Some(round) = rounds.iter().find(|round| round.problem == problem) else {
            continue;
        };
        for unit in [1e-3, 1e6] {
            let mut slices = draw(problem, round.seed);
            for slice in [
                &mut slices.train,
                &mut slices.validation,
                &mut slices.calibration,
                &mut slices.test,
            ] {
                slice.values *= unit;
            }
            let best = ours::learn(&slices, Vec::new(), &[], &chosen(round))?;
            let scores = ours::probabilities(&best.model, &slices.test.values);
            let pairs = scores.iter().zip(&round.probabilities);
            let difference = largest(pairs.map(|(a, b)| (a - b).abs()));
            println!(
                "{} {} × {unit:e}: {difference:e}",
                problem.as_str(),
                round.seed
            );
            worst = worst.max(difference);
        }
    }
    figures.at_most("units_difference_max", worst, 0.0);
    Ok(())
}

/// One seed of the fleet, learned with gaps.
struct Gaps {
    /// On complete rows, as a share of what the model that was trained on complete rows reaches.
    complete: f64,
    /// With each group missing from all rows.
    without: Vec<Validation>,
    /// What is said of a row of which nothing is known.
    nothing: f64,
}

fn gaps(rounds: &[Round], figures: &mut Figures) -> anyhow::Result<()> {
    println!(
        "\nThe fleet, each group of columns missing from {} % of the training rows",
        100.0 * MASKED
    );
    println!("\n| seed | rows | PR-AUC | ECE | Brier skill |");
    println!("|---|---|---|---|---|");
    let fleet = rounds
        .iter()
        .filter(|round| round.problem == Problem::Fleet);
    let all = fleet.map(Gaps::of).collect::<anyhow::Result<Vec<Gaps>>>()?;
    let complete = || all.iter().map(|gaps| gaps.complete);
    let without = || all.iter().flat_map(|gaps| &gaps.without);
    figures.at_least("gaps_complete_pr_auc_ratio", mean(complete()), 0.97);
    figures.say("gaps_complete_pr_auc_ratio_worst_seed", least(complete()));
    let ece = largest(without().map(|judged| judged.ece));
    figures.at_most("gaps_group_missing_ece", ece, 0.02);
    let skill = least(without().map(|judged| judged.brier_skill));
    figures.above("gaps_group_missing_brier_skill", skill, 0.0);
    // The service calls a Node unknown of which too much is missing, whatever the model says of it; and
    // this is what the model says.
    let nothing = largest(all.iter().map(|gaps| gaps.nothing));
    figures.at_most("gaps_all_missing_probability", nothing, 0.5);
    Ok(())
}

impl Gaps {
    fn of(round: &Round) -> anyhow::Result<Self> {
        let slices: Slices = draw(round.problem, round.seed);
        let masks = GROUPS.map(|(_, columns)| Mask {
            columns: columns.collect(),
            share: MASKED,
        });
        let best = ours::learn(&slices, masks.into(), &[], &chosen(round))?;
        let Slice { values, labels } = &slices.test;
        let say = |what: &str, values: &Array2<f64>| {
            let judged = judge(&ours::probabilities(&best.model, values), labels);
            println!(
                "| {} | {what} | {:.3} | {:.4} | {:.3} |",
                round.seed, judged.pr_auc, judged.ece, judged.brier_skill
            );
            judged
        };
        let complete = say("complete", values);
        let without = GROUPS.iter().map(|(name, columns)| {
            let mut values = values.clone();
            for column in columns.clone() {
                values.column_mut(column).fill(f64::NAN);
            }
            say(&format!("no {name}"), &values)
        });
        let nothing = Array2::from_elem((1, values.ncols()), f64::NAN);
        Ok(Self {
            complete: complete.pr_auc / round.ours.pr_auc,
            without: without.collect(),
            nothing: largest(ours::probabilities(&best.model, &nothing)),
        })
    }
}
