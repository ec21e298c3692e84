//! The soak of the pure centre: `tests/soak` runs this, and says what the arguments mean.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "the tests share these modules and use their part"
)]

mod chance;
mod cluster;
mod judge;
mod process;
mod simulation;
#[path = "../support/mod.rs"]
mod support;
mod weather;

use std::process::ExitCode;
use std::time::Instant;

use foreshock_core::time::after;
use simulation::{Options, Simulation, as_regression, run_seeds, shrink, start};

/// What was asked for.
struct Arguments {
    node_hours: f64,
    seed: u64,
    only: bool,
    threads: usize,
}

impl Arguments {
    fn parse() -> Result<Self, String> {
        let mut parsed = Self {
            node_hours: 1_000_000.0,
            seed: 1,
            only: false,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut number = || {
                let text = arguments.next().unwrap_or_default();
                let number = text.parse::<u64>();
                number.map_err(|error| format!("{argument} {text:?}: {error}"))
            };
            match argument.as_str() {
                #[expect(clippy::cast_precision_loss, reason = "a count")]
                "--node-hours" => parsed.node_hours = number()? as f64,
                "--seed" => parsed.seed = number()?,
                "--only" => (parsed.seed, parsed.only) = (number()?, true),
                "--threads" => {
                    parsed.threads = usize::try_from(number()?.clamp(1, 64)).unwrap_or(1)
                }
                other => return Err(format!("{other}: no such argument")),
            }
        }
        Ok(parsed)
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::parse() {
        Ok(arguments) => arguments,
        Err(problem) => {
            println!("soak: {problem}");
            return ExitCode::from(2);
        }
    };
    if arguments.only {
        return one_seed(arguments.seed);
    }
    let began = Instant::now();
    let mut said = began;
    let mut hours = 0.0;
    let mut failed = Vec::new();
    let (outcome, next) = run_seeds(
        arguments.seed,
        arguments.node_hours,
        arguments.threads,
        |options, outcome| {
            hours += outcome.node_hours;
            if let Some(violation) = outcome.violations.first() {
                println!("seed {} breaks a rule: {violation}", options.seed);
                failed.push((options.clone(), violation.clone()));
            }
            if said.elapsed().as_secs() >= 15 {
                said = Instant::now();
                println!(
                    "decide and step: {hours:.0} of {:.0} Node-hours after {:.0?}, up to seed {}",
                    arguments.node_hours,
                    began.elapsed(),
                    options.seed
                );
            }
        },
    );
    let took = began.elapsed().as_secs_f64();
    println!("decide and step: seeds {} to {}", arguments.seed, next - 1);
    println!("decide and step: {:?}", outcome.seen);
    println!("decide and step: node_hours {:.0}", outcome.node_hours);
    println!("decide and step: seconds {took:.1}");
    println!("decide and step: violations {}", outcome.violations.len());
    // Ten are enough to work on; each takes its time.
    for (options, violation) in failed.iter().take(10) {
        let (small, violation) = shrink(options, violation.rule);
        println!(
            "seed {} made smaller: {}",
            options.seed,
            as_regression(&small, &violation)
        );
    }
    if outcome.violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs one seed and, where it breaks a rule, the smallest run that does so, line by line.
fn one_seed(seed: u64) -> ExitCode {
    let options = Options::drawn(seed);
    let outcome = simulation::run(&options);
    println!("seed {seed}: {options:?}");
    println!(
        "seed {seed}: {:.0} Node-hours, {:?}",
        outcome.node_hours, outcome.seen
    );
    let Some(violation) = outcome.violations.first() else {
        println!("seed {seed}: no rule is broken");
        return ExitCode::SUCCESS;
    };
    println!("seed {seed}: {violation}");
    let (small, violation) = shrink(&options, violation.rule);
    let mut simulation = Simulation::new(&small);
    simulation.process.trace = true;
    simulation.run_until(after(start(), small.lasts));
    simulation.settle();
    println!("made smaller: {}", as_regression(&small, &violation));
    ExitCode::FAILURE
}
