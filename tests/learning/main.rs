//! Our learner beside others on the same rows, for `tests/learners`, which see.

mod binomial;
mod compare;
mod figures;
mod fleet;
mod gaps;
mod ours;
mod problems;
mod reliability;
mod seen;
mod smd;
mod theirs;

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;

use crate::figures::Figures;
use crate::theirs::Python;

/// Seeds of the problems, fixed before anything was tuned; tuning took others.
const SEEDS: [u64; 3] = [7001, 7002, 7003];

/// Our learner beside others on the same rows.
#[derive(Parser)]
struct Arguments {
    /// Interpreter of the environment with the other learners.
    #[arg(long)]
    python: PathBuf,
    /// Where results of the other learners are kept.
    #[arg(long)]
    results: PathBuf,
    /// Other seeds of the problems, for tuning.
    #[arg(long, value_delimiter = ',', default_values_t = SEEDS)]
    seeds: Vec<u64>,
    /// A folder with machines of the Server Machine Dataset.
    #[arg(long)]
    machines: Option<PathBuf>,
    /// The machines alone.
    #[arg(long, requires = "machines")]
    only_machines: bool,
    /// The simulated fleets alone.
    #[arg(long, conflicts_with = "only_machines")]
    only_fleets: bool,
    /// What the built-in model sees alone.
    #[arg(long, conflicts_with_all = ["only_machines", "only_fleets"])]
    only_built_in: bool,
    /// Other seeds of the simulated fleets, for looking around.
    #[arg(long, value_delimiter = ',', default_values_t = fleet::SEEDS)]
    fleet_seeds: Vec<u64>,
    /// Nodes of each simulated fleet.
    #[arg(long, default_value_t = 64)]
    fleet_nodes: usize,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let python = Python {
        program: arguments.python,
        results: arguments.results,
    };
    binomial::check()?;
    let mut figures = Figures::default();
    if arguments.only_built_in {
        seen::report(&mut figures)?;
        return end(&figures);
    }
    if arguments.only_fleets {
        fleet::report(&arguments.fleet_seeds, arguments.fleet_nodes, &mut figures)?;
        return end(&figures);
    }
    if !arguments.only_machines {
        seen::report(&mut figures)?;
        let rounds = compare::rounds(&python, &arguments.seeds).context("the comparison failed")?;
        compare::report(&rounds, &mut figures);
        gaps::report(&rounds, &mut figures).context("units and gaps could not be tried")?;
        fleet::report(&arguments.fleet_seeds, arguments.fleet_nodes, &mut figures)?;
    }
    match &arguments.machines {
        Some(folder) => smd::report(folder, &python, &mut figures)?,
        None => println!(
            "\nNo real machines: give the Server Machine Dataset with --machines FOLDER (NAME.csv.gz)"
        ),
    }
    end(&figures)
}

fn end(figures: &Figures) -> anyhow::Result<()> {
    if !figures.print() {
        std::process::exit(1);
    }
    Ok(())
}
