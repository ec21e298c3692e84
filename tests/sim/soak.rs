//! The soak of the whole shell: every kill point, and two replicas with everything that goes wrong.
//! `tests/soak` runs this.

#[allow(
    dead_code,
    unreachable_pub,
    reason = "the core's simulation uses it as well, and all of it"
)]
#[path = "../../core/tests/simulation/chance.rs"]
mod chance;
mod faults;
mod kills;
mod ledger;
mod points;
mod shell;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kills::{Story, kill_at_each, points, run};

/// Runs of two replicas, and the virtual time before their faults stop.
const RUNS: u64 = 16;
const LASTS: Duration = Duration::from_secs(6 * 3600);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut seed = 1;
    while let Some(argument) = arguments.next() {
        let value = arguments.next().and_then(|value| value.parse().ok());
        match (argument.as_str(), value) {
            ("--seed", Some(value)) => seed = value,
            ("--only-shell", Some(value)) => return one_seed(value),
            // The other half of the soak has its own.
            ("--node-hours" | "--threads", Some(_)) => {}
            (other, _) => {
                println!("soak: {other}: no such argument, or no number behind it");
                return ExitCode::from(2);
            }
        }
    }
    let killed = kill_points();
    let kept = replicas(seed);
    if killed && kept {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn kill_points() -> bool {
    let began = Instant::now();
    let (mut tried, mut converged) = (0, 0);
    for story in [Story::Plain, Story::Lossy] {
        let whole = run(story, None);
        let all = points(&whole, usize::MAX, usize::MAX);
        println!("kill points, {story:?}: {} to try", all.len());
        let killed = kill_at_each(story, &all, &whole);
        for (point, wrong) in &killed.wrong {
            println!("kill points, {story:?}: {point:?}: {wrong}");
        }
        println!(
            "kill points, {story:?}: {} tried, {} killed, {} came to the same end; calls by kind, three each: {:?}",
            killed.points, killed.reached, killed.converged, killed.kinds
        );
        tried += killed.points;
        converged += killed.converged;
    }
    println!("kill points: after {:.0?}", began.elapsed());
    println!("kill points: kill_points {tried}");
    println!("kill points: kill_points_converged {converged}");
    tried == converged && tried > 0
}

fn replicas(first: u64) -> bool {
    let began = Instant::now();
    let next = AtomicU64::new(first);
    let total = Mutex::new((0.0, 0, 0, 0, 0, 0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + RUNS {
                        return;
                    }
                    let outcome = faults::run(seed, LASTS);
                    for violation in &outcome.done.violations {
                        println!("whole shell: seed {seed} breaks a rule: {violation}");
                    }
                    let mut total = total.lock().expect("no thread panics with it");
                    total.0 += outcome.node_hours;
                    total.1 += outcome.done.violations.len();
                    total.2 += outcome.kills;
                    total.3 += outcome.faults;
                    total.4 += outcome.done.drained.len();
                    total.5 += outcome.leaders;
                }
            });
        }
    });
    let (hours, violations, kills, faults, drained, leaders) =
        total.into_inner().expect("no thread panics with it");
    println!("whole shell: seeds {first} to {}", first + RUNS - 1);
    println!(
        "whole shell: {kills} kills, {leaders} leaders, {faults} faults in calls, {drained} Nodes drained"
    );
    println!("whole shell: node_hours {hours:.0}");
    println!("whole shell: seconds {:.1}", began.elapsed().as_secs_f64());
    println!("whole shell: violations {violations}");
    violations == 0 && hours > 0.0
}

fn one_seed(seed: u64) -> ExitCode {
    let outcome = faults::run(seed, LASTS);
    println!("seed {seed}: {outcome:?}");
    if outcome.done.violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
