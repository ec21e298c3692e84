//! `foreshock train`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use foreshock_core::node::NodeName;
use foreshock_core::time::ago;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::features::grid;
use crate::features::history::GRID;
use crate::model::artifact::Artifact;
use crate::model::built_in;
use crate::model::synthetic::{self, Size};
use crate::prometheus::PrometheusTelemetry;
use crate::train::judge::trial::Manner;
use crate::train::signals::ALERTS;
use crate::train::track::Span;
use crate::trainer::past::PrometheusArchive;
use crate::trainer::work::{Request, Work};
use crate::trainer::{Progress, Step, TREES_MAX, Trained, TrainingTerms, train};

#[derive(Debug, Args)]
#[command(after_help = "\
What is fetched from Prometheus stays in a folder beside the model until the model is written: the same command,
after an interruption, goes on where it was. Beside the model, NAME.json, come NAME.report.md and NAME.report.html.

Examples:
  foreshock train --config foreshock.toml --output mine.json
  foreshock train --config foreshock.toml --since 60d --incidents incidents.csv --output mine.json
  foreshock train --synthetic --seed 20261101 --output models/synthetic.json")]
pub(super) struct TrainArgs {
    /// Learn from a simulated fleet: this is how the built-in model is made.
    #[arg(long, conflicts_with_all = ["config", "since", "until", "incidents", "alerts", "work", "keep"])]
    synthetic: bool,
    /// Configuration file (TOML): whose Prometheus, which features, what a drain and an incident cost.
    #[arg(long, value_name = "FILE", required_unless_present = "synthetic")]
    config: Option<PathBuf>,
    /// How much history, at most.
    #[arg(long, default_value = "28d", value_name = "TIME", value_parser = humantime::parse_duration)]
    since: Duration,
    /// The end of the history, such as 2026-11-01T00:00:00Z; now, if it is not given.
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// Your own list of incidents: CSV with the columns node,start,end,kind.
    #[arg(long, value_name = "FILE")]
    incidents: Option<PathBuf>,
    /// Alerts that count as incidents: a pattern for the whole name. Repeatable. [default: Node.*,
    /// Kube(Node|let).*, Host.*]
    #[arg(long = "alert", value_name = "PATTERN")]
    alerts: Vec<String>,
    /// Seed of every draw: the same seed and history make the same file, byte for byte.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Where what is fetched stays meanwhile. [default: OUTPUT.work]
    #[arg(long, value_name = "FOLDER")]
    work: Option<PathBuf>,
    /// Keep that folder.
    #[arg(long)]
    keep: bool,
    /// Where the model goes.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

/// Makes the model.
pub(super) async fn run(args: TrainArgs) -> anyhow::Result<()> {
    match &args.config {
        Some(config) => local(&args, &Config::load(config)?).await,
        None => {
            let TrainArgs { seed, output, .. } = args;
            tokio::task::spawn_blocking(move || synthetic(seed.unwrap_or(built_in::SEED), &output))
                .await?
        }
    }
}

fn synthetic(seed: u64, output: &std::path::Path) -> anyhow::Result<()> {
    let shown = Shown::new()?;
    let artifact = synthetic::train(seed, &Size::full(), |progress| match progress {
        synthetic::Progress::Fleets(done, all) => {
            shown.say("simulated fleet", done as u64, Some(all as u64));
        }
        synthetic::Progress::Trees(trees) => shown.say("trees grown:", trees as u64, None),
    })?;
    shown.clear();
    artifact.write(output)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "wrote {} ({})", output.display(), artifact.id())?;
    writeln!(out, "on rows of Nodes that it had not seen:")?;
    figures(&mut out, &artifact)
}

fn figures(out: &mut impl Write, artifact: &Artifact) -> anyhow::Result<()> {
    let Some(figures) = &artifact.content().validation else {
        return Ok(());
    };
    for (name, value) in [
        ("base_rate", figures.base_rate),
        ("pr_auc", figures.pr_auc),
        ("brier_skill", figures.brier_skill),
        ("ece", figures.ece),
    ] {
        writeln!(out, "figure {name} {value:.4}")?;
    }
    Ok(())
}

async fn local(args: &TrainArgs, config: &Config) -> anyhow::Result<()> {
    let telemetry = PrometheusTelemetry::new(&config.prometheus, Arc::clone(&config.schema))?;
    let alerts: Vec<String> = if args.alerts.is_empty() {
        ALERTS.map(str::to_owned).into()
    } else {
        args.alerts.clone()
    };
    let archive = PrometheusArchive::new(telemetry, Arc::clone(&config.schema), &alerts);
    let work = args.work.clone().unwrap_or_else(|| {
        let mut name = args.output.clone().into_os_string();
        name.push(".work");
        name.into()
    });
    let folder = work.display().to_string();
    let work = Work::open(work)?;
    let request = request(args, config, &archive, &work, &alerts).await?;
    let rules = &config.policy.rules;
    let terms = TrainingTerms {
        history: Span {
            from: request.from,
            to: request.to,
        },
        scrape_interval: Duration::from_millis(request.scrape_interval_ms),
        incidents: args.incidents.clone(),
        missing_max: config.model.missing_max,
        manner: Manner {
            confirm_for: rules.confirm_for + rules.drain_after,
            recover_for: rules.recover_for,
        },
        at_risk: rules.at_risk.as_f64(),
        demands: config.model_terms().demands,
        seed: args.seed.unwrap_or(1),
        trees_max: TREES_MAX,
        command: format!(
            "foreshock train: history of {:.0} to {:.0}",
            request.from, request.to
        ),
        now: Timestamp::now(),
    };
    let shown = Arc::new(Shown::new()?);
    let progress: Arc<dyn Progress> = Arc::clone(&shown) as Arc<dyn Progress>;
    let stopped = super::on_signal()?;
    let trained = tokio::select! {
        trained = train(&archive, &work, terms, progress) => {
            shown.clear();
            trained?
        }
        () = stopped.cancelled() => {
            shown.clear();
            bail!("stopped; what has been fetched is in `{folder}`, and the same command goes on from there");
        }
    };
    let files = trained.write(&args.output)?;
    if !args.keep {
        work.finish()?;
    }
    told(&trained, &args.output, &files)
}

/// What is asked for: as it was begun, if it was.
async fn request(
    args: &TrainArgs,
    config: &Config,
    archive: &PrometheusArchive,
    work: &Work,
    alerts: &[String],
) -> anyhow::Result<Request> {
    let options = &config.prometheus;
    // Headers and parameters say whose series are meant, and may be secrets: only a digest is kept.
    let asked = format!(
        "{} {{{}}} {{{}}} {{{}}} {{{}}} {{{}}} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {alerts:?} {:?} {:?}",
        options.url,
        options.selector,
        options.devices,
        options.interfaces,
        options.filesystems,
        options.matchers,
        options.stale_after,
        options.rate_window,
        options.headers,
        options.parameters,
        // Behind some gateways the user says whose series they are.
        options.basic_auth,
        options.bearer_token_file,
        options.cert_file,
        args.since,
        args.until,
    );
    let asked: String = Sha256::digest(asked.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let schema = config.schema.digest();
    if let Some(then) = work.request()? {
        work.is_for(&then, &asked, schema)?;
        return Ok(then);
    }
    let to = args.until.unwrap_or_else(Timestamp::now);
    let to = grid(to, options.lag, GRID);
    let from = grid(ago(to, args.since), Duration::ZERO, GRID);
    let Some(begin) = archive.begin(from, to).await? else {
        bail!(
            "Prometheus at {} has no exporter of `prometheus.selector` ({}) between {from:.0} and {to:.0}; \
             `foreshock check` says what it has",
            options.url,
            options.selector
        );
    };
    let interval = archive.scrape_interval(to).await?;
    let interval = interval.with_context(|| {
        format!("no exporter was scraped in the ten minutes before {to:.0}; set `--until` to a time when they were")
    })?;
    let request = Request {
        asked,
        schema: schema.to_owned(),
        from: begin,
        to,
        scrape_interval_ms: u64::try_from(interval.as_millis())?,
    };
    work.begin(&request)?;
    Ok(request)
}

/// Names that are told; of more, how many.
const NAMES_MAX: usize = 5;

fn told_of_strangers(strangers: &[NodeName]) -> String {
    let names = strangers.iter().take(NAMES_MAX);
    // They are labels of whoever writes metrics.
    let names: Vec<String> = names
        .map(|name| name.as_str().escape_debug().to_string())
        .collect();
    let more = match strangers.len().saturating_sub(NAMES_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "Nodes that incidents befell and of which no exporter had features: {}{more}; where they are there under \
         other names, give the exporters' targets a label `node`",
        names.join(", ")
    )
}

fn told(trained: &Trained, output: &std::path::Path, files: &[PathBuf; 2]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let Trained {
        model,
        card,
        ways: (ways, chosen),
        drawn,
        unknown,
        strangers,
    } = trained;
    writeln!(out, "wrote {} ({})", output.display(), model.id())?;
    for file in files {
        writeln!(out, "wrote {}", file.display())?;
    }
    writeln!(out, "ways that were tried, by loss on the validation part:")?;
    for (place, way) in ways.iter().enumerate() {
        let mark = if place == *chosen { "*" } else { " " };
        writeln!(
            out,
            "{mark} {:<36} loss {:.5}  PR-AUC {:.3}  {} trees",
            way.name, way.loss, way.pr_auc, way.trees
        )?;
    }
    if let Some((drawn, all)) = drawn {
        writeln!(out, "judged on {drawn} of {all} Nodes, drawn by lot")?;
    }
    if *unknown > 0 {
        writeln!(
            out,
            "{unknown} rows had too few features for a score (model.missing_max)"
        )?;
    }
    if !strangers.is_empty() {
        writeln!(out, "{}", told_of_strangers(strangers))?;
    }
    writeln!(out, "on the last part of the history:")?;
    figures(&mut out, model)?;
    let judged = &card.judgement;
    writeln!(out, "figure incidents {}", judged.incidents)?;
    if let Some(at) = judged.at_operators_cost() {
        writeln!(out, "figure cost {:.4}", at.model.cost)?;
        for beside in &at.beside {
            let name = beside.baseline.as_str();
            writeln!(out, "figure cost_{name} {:.4}", beside.figures.cost)?;
        }
    }
    if card.refusals.is_empty() {
        writeln!(out, "it may act, as far as policy.reach allows")?;
    } else {
        writeln!(out, "it may not cause more than a label:")?;
        for refusal in &card.refusals {
            writeln!(out, "- {refusal}")?;
        }
    }
    Ok(())
}

/// A bar on a terminal; otherwise a line for each tenth of a step.
struct Shown {
    bar: ProgressBar,
    terminal: bool,
    said: Mutex<(String, u64)>,
}

impl Shown {
    fn new() -> anyhow::Result<Self> {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal {
            ProgressBar::new_spinner()
        } else {
            ProgressBar::hidden()
        };
        bar.set_style(ProgressStyle::with_template(
            "{spinner} {elapsed} {msg} {wide_bar}",
        )?);
        bar.enable_steady_tick(Duration::from_millis(200));
        Ok(Self {
            bar,
            terminal,
            said: Mutex::default(),
        })
    }

    fn say(&self, what: &str, done: u64, all: Option<u64>) {
        let message = match all {
            Some(all) => format!("{what} {done} of {all}"),
            None => format!("{what} {done}"),
        };
        if self.terminal {
            self.bar.set_length(all.unwrap_or(0));
            self.bar.set_position(done);
            self.bar.set_message(message);
            return;
        }
        let tenth = all.map_or(done / 25, |all| done * 10 / all.max(1));
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.0 != what || said.1 != tenth {
            *said = (what.to_owned(), tenth);
            // Standard error may be closed; then nobody is there to be told.
            drop(writeln!(std::io::stderr(), "{message}"));
        }
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Shown {
    fn at(&self, step: Step, done: u64, all: u64) {
        self.say(step.words(), done, Some(all));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_without_features_are_named_a_few_of_them_and_safely() {
        let names: Vec<NodeName> = (0..7)
            .map(|i| format!("edge-{i}").as_str().into())
            .collect();
        let told = told_of_strangers(&names);
        assert!(
            told.contains(": edge-0, edge-1, edge-2, edge-3, edge-4 and 2 more; "),
            "{told}"
        );
        let told = told_of_strangers(&["\u{1b}[2Jgone\n".into()]);
        assert!(told.contains(r": \u{1b}[2Jgone\n; where"), "{told}");
    }
}
