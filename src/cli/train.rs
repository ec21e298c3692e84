//! `foreshock train`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::model::built_in;
use crate::model::synthetic::{self, Progress, Size};

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  foreshock train --synthetic --seed 20261101 --output models/synthetic.json"
)]
pub(super) struct TrainArgs {
    /// Learn from a simulated fleet: this is how the built-in model is made.
    #[arg(long, required = true)]
    synthetic: bool,
    /// Seed: the same seed makes the same file, byte for byte.
    #[arg(long, default_value_t = built_in::SEED, value_name = "N")]
    seed: u64,
    /// Where the model goes.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

/// Makes the model.
pub(super) fn run(args: TrainArgs) -> anyhow::Result<()> {
    let TrainArgs {
        synthetic: _,
        seed,
        output,
    } = args;
    let terminal = std::io::stderr().is_terminal();
    let bar = if terminal {
        ProgressBar::new_spinner()
    } else {
        ProgressBar::hidden()
    };
    bar.set_style(ProgressStyle::with_template("{spinner} {elapsed} {msg}")?);
    bar.enable_steady_tick(Duration::from_millis(200));
    let mut said = 0;
    let artifact = synthetic::train(seed, &Size::full(), |progress| {
        let (step, message) = match progress {
            Progress::Fleets(done, all) => (done, format!("simulated fleet {done} of {all}")),
            Progress::Trees(trees) => (trees / 25 * 25, format!("{trees} trees grown")),
        };
        // In a log, a line for every step that is news; on a terminal the bar shows them all.
        if !terminal && step != said {
            said = step;
            drop(writeln!(std::io::stderr(), "{message}"));
        }
        bar.set_message(message);
    })?;
    bar.finish_and_clear();
    artifact.write(&output)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "wrote {} ({})", output.display(), artifact.id())?;
    if let Some(figures) = &artifact.content().validation {
        writeln!(out, "on rows of Nodes that it had not seen:")?;
        for (name, value) in [
            ("base_rate", figures.base_rate),
            ("pr_auc", figures.pr_auc),
            ("brier_skill", figures.brier_skill),
            ("ece", figures.ece),
        ] {
            writeln!(out, "figure {name} {value:.4}")?;
        }
    }
    Ok(())
}
