//! The soak of the whole shell: every kill point. `tests/soak` runs this.

mod kills;
mod ledger;
mod points;
mod shell;

use std::process::ExitCode;
use std::time::Instant;

use kills::{Story, kill_at_each, points, run};

fn main() -> ExitCode {
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
    if tried == converged && tried > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
