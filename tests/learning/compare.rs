//! All learners on the two problems: ranking, calibration, reliability.

use foreshock::model::artifact::Validation;
use foreshock::model::choose::{Best, ways};
use foreshock::model::learn::{Slice, Slices};
use foreshock::model::measure::judge;

use crate::figures::{Figures, largest, least, mean};
use crate::ours;
use crate::problems::Problem;
use crate::reliability::Reliability;
use crate::theirs::{Given, Python, Said};

/// Trees of every learner, at most.
pub(crate) const TREES_MAX: usize = 200;

/// Rows for growing trees, choosing, calibrating and judging.
const ROWS: [usize; 4] = [20_000, 20_000, 20_000, 60_000];

/// The others; the first two have bounds of their own.
const THEIRS: [&str; 3] = ["lightgbm", "sklearn", "xgboost"];

/// One problem of one seed, and what everybody makes of it.
pub(crate) struct Round {
    /// Which problem.
    pub(crate) problem: Problem,
    /// What it was drawn from.
    pub(crate) seed: u64,
    /// How ours did on the test rows.
    pub(crate) ours: Validation,
    /// What ours said of them.
    pub(crate) probabilities: Vec<f64>,
    labels: Vec<bool>,
    best: Best,
    theirs: Vec<(Said, Validation)>,
}

/// The rows of one problem and seed.
pub(crate) fn draw(problem: Problem, seed: u64) -> Slices {
    let [train, validation, calibration, test] = problem.draw(seed, ROWS);
    Slices {
        train,
        validation,
        calibration,
        test,
    }
}

/// Lets everybody learn all problems: the others in one thread, ours in another.
///
/// # Errors
///
/// A learner fails.
pub(crate) fn rounds(python: &Python, seeds: &[u64]) -> anyhow::Result<Vec<Round>> {
    let each: Vec<(Problem, u64)> = Problem::ALL
        .iter()
        .flat_map(|problem| seeds.iter().map(|seed| (*problem, *seed)))
        .collect();
    let (said, learned) = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| -> anyhow::Result<Vec<_>> {
            let said = each.iter().map(|(problem, seed)| {
                let slices = draw(*problem, *seed);
                println!("{} {seed}: the others", problem.as_str());
                python.learn(&THEIRS, Given::of(&slices))
            });
            said.collect()
        });
        let ours = each.iter().map(|(problem, seed)| {
            println!("{} {seed}: ours", problem.as_str());
            Ok(ours::learn(
                &draw(*problem, *seed),
                Vec::new(),
                &[],
                &ways(TREES_MAX),
            )?)
        });
        let ours = ours.collect::<anyhow::Result<Vec<Best>>>();
        (theirs.join(), ours)
    });
    let said = said.map_err(|_| anyhow::anyhow!("the thread of the other learners panicked"))??;
    let rounds = each.into_iter().zip(learned?).zip(said);
    Ok(rounds
        .map(|(((problem, seed), best), said)| Round::of(problem, seed, best, said))
        .collect())
}

impl Round {
    fn of(problem: Problem, seed: u64, best: Best, said: Vec<Said>) -> Self {
        let Slice { values, labels } = draw(problem, seed).test;
        let probabilities = ours::probabilities(&best.model, &values);
        let theirs = said.into_iter().map(|said| {
            let figures = judge(&said.probabilities, &labels);
            (said, figures)
        });
        Self {
            problem,
            seed,
            ours: judge(&probabilities, &labels),
            theirs: theirs.collect(),
            best,
            probabilities,
            labels,
        }
    }

    /// The way that ours has chosen, by its place.
    pub(crate) fn chosen(&self) -> usize {
        self.best.chosen
    }

    fn name(&self) -> String {
        format!("{} {}", self.problem.as_str(), self.seed)
    }

    fn ratio(&self, learner: usize) -> f64 {
        self.ours.pr_auc / self.theirs[learner].1.pr_auc
    }
}

/// Prints the tables and takes the figures.
pub(crate) fn report(rounds: &[Round], figures: &mut Figures) {
    tables(rounds);
    let of = |problem: Option<Problem>| {
        let asked = move |round: &&Round| problem.is_none_or(|asked| asked == round.problem);
        rounds.iter().filter(asked)
    };
    for (learner, name) in THEIRS.iter().enumerate() {
        for problem in Problem::ALL {
            let ratio = mean(of(Some(problem)).map(|round| round.ratio(learner)));
            figures.say(&format!("pr_auc_ratio_{name}_{}", problem.as_str()), ratio);
        }
        let name = format!("pr_auc_ratio_{name}");
        let ratio = mean(of(None).map(|round| round.ratio(learner)));
        if learner < 2 {
            figures.at_least(&name, ratio, 0.95);
        } else {
            figures.say(&name, ratio);
        }
    }
    let both = of(None).flat_map(|round| [round.ratio(0), round.ratio(1)]);
    figures.at_least("pr_auc_ratio_worst_seed", least(both), 0.9);
    figures.at_most("ece", largest(of(None).map(|round| round.ours.ece)), 0.01);
    let skills = of(None).map(|round| round.ours.brier_skill);
    figures.above("brier_skill", least(skills), 0.0);
    let mut reliability = Reliability::default();
    for round in rounds {
        reliability.add(&round.name(), &round.probabilities, &round.labels);
    }
    reliability.print(figures);
}

fn tables(rounds: &[Round]) {
    println!("\nPR-AUC (the base rate is the floor), and ours as a share of each of the others'\n");
    println!("| problem, seed | base rate | ours | LightGBM | scikit-learn | XGBoost |");
    println!("|---|---|---|---|---|---|");
    for round in rounds {
        print!(
            "| {} | {:.4} | {:.3} |",
            round.name(),
            round.ours.base_rate,
            round.ours.pr_auc
        );
        for (learner, (_, theirs)) in round.theirs.iter().enumerate() {
            print!(" {:.3} ({:.2}) |", theirs.pr_auc, round.ratio(learner));
        }
        println!();
    }
    println!("\nExpected calibration error · Brier skill against the base rate\n");
    println!("| problem, seed | ours | LightGBM | scikit-learn | XGBoost |");
    println!("|---|---|---|---|---|");
    for round in rounds {
        print!("| {} |", round.name());
        let theirs = round.theirs.iter().map(|(_, figures)| figures);
        for figures in std::iter::once(&round.ours).chain(theirs) {
            print!(" {:.4} · {:.3} |", figures.ece, figures.brier_skill);
        }
        println!();
    }
    println!("\nOn the validation rows: loss, PR-AUC, trees; what was chosen is marked\n");
    println!("| problem, seed | learner | setting | loss | PR-AUC | trees | |");
    println!("|---|---|---|---|---|---|---|");
    for round in rounds {
        let best = &round.best;
        for (at, way) in best.tried.iter().enumerate() {
            let (name, loss, trees) = (&way.name, way.loss, way.trees);
            row(
                round,
                "ours",
                name,
                loss,
                way.pr_auc,
                trees,
                at == best.chosen,
            );
        }
        for (name, (said, _)) in THEIRS.iter().zip(&round.theirs) {
            for (at, way) in said.tried.iter().enumerate() {
                let (setting, loss, trees) = (&way.name, way.loss, way.trees);
                row(
                    round,
                    name,
                    setting,
                    loss,
                    way.pr_auc,
                    trees,
                    at == said.chosen,
                );
            }
        }
    }
}

fn row(round: &Round, who: &str, way: &str, loss: f64, pr_auc: f64, trees: usize, chosen: bool) {
    let mark = if chosen { "chosen" } else { "" };
    let name = round.name();
    println!("| {name} | {who} | {way} | {loss:.5} | {pr_auc:.3} | {trees} | {mark} |");
}
