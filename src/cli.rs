//! The command line.

mod by_hand;
pub(crate) mod explain;
mod import;
mod release;
mod server;
mod switch;
mod train;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::app::{self, Foundation};
use crate::check;
use crate::config::{Config, Log};
use crate::demo;
use crate::model::loaded::Model;
use crate::simulate::fleet::server::{self as fleet_server, SharedFleet};
use crate::simulate::fleet::{FaultEvent, FaultSpec, Fleet, FleetOptions};
use crate::telemetry;
use crate::web;

/// Sees Kubernetes Nodes degrade before users do, and moves their work away first.
#[derive(Debug, Parser)]
#[command(name = "foreshock", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  foreshock demo                             the whole service on a simulated cluster, at http://127.0.0.1:5000
  foreshock check --config foreshock.toml    would `run` work, and what is missing?
  foreshock run --config foreshock.toml      the service
  foreshock explain worker-03                why something, or nothing, is done to this Node
  foreshock pause                            nothing more is written, until `foreshock resume`
  foreshock release --config foreshock.toml  takes everything of foreshock's off every Node
  foreshock fleet --nodes 20 --fault worker-03:slow-disk:at=60s:for=10m:severity=0.7
                                             simulated node_exporters for a Prometheus to scrape";

#[derive(Debug, Subcommand)]
enum Command {
    /// The service.
    Run(RunArgs),
    /// The whole service on an embedded simulated fleet and cluster; needs nothing else.
    Demo(DemoArgs),
    /// Validates the configuration, then asks every dependency. Exits 0 only if `run` would work.
    Check(RunArgs),
    /// Serves simulated Nodes as node_exporter would, with faults on a schedule.
    Fleet(FleetArgs),
    /// Makes a model, of your own history or of a simulated fleet.
    Train(train::TrainArgs),
    /// Makes a model of one that XGBoost has trained.
    Import(import::ImportArgs),
    /// Says of one Node what its risk is, why, what is done about it, and what holds that back.
    Explain(explain::ExplainArgs),
    /// Stops every write, by the running service or on the Lease.
    Pause(switch::SwitchArgs),
    /// Ends a pause.
    Resume(switch::SwitchArgs),
    /// Removes everything of foreshock's from every Node, with or without a running service.
    Release(release::ReleaseArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Configuration file (TOML). FORESHOCK__SECTION__KEY in the environment overrides a key.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  foreshock demo --listen 127.0.0.1:5001")]
struct DemoArgs {
    /// Where page and API listen.
    #[arg(long, default_value = "127.0.0.1:5000", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Seed of the simulation.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Prometheus finds the Nodes by HTTP discovery:
  scrape_configs:
    - job_name: node-exporter
      http_sd_configs: [{ url: http://127.0.0.1:9101/sd }]

Faults: memory-leak slow-disk packet-loss overheating cpu-starvation filling-filesystem
reboot-loop lost-collector vanished-exporter

Example:
  foreshock fleet --nodes 20 --fault worker-03:slow-disk:at=60s:for=10m:severity=0.7")]
struct FleetArgs {
    /// How many Nodes: worker-01, worker-02, …
    #[arg(long, default_value_t = 20, value_name = "N")]
    nodes: usize,
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:9101", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Seed: the same seed shows the same fleet.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// A fault, NODE:KIND:at=TIME:for=TIME:severity=0.1..1 (at counts from the start). Repeatable.
    #[arg(long = "fault", value_name = "FAULT")]
    faults: Vec<FaultSpec>,
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    // Two providers may be compiled in; without a choice, the first TLS connection would panic.
    // The choice can only have been made before by ourselves.
    drop(rustls::crypto::ring::default_provider().install_default());
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("the runtime cannot start")),
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Run(args) => run(args).await.map(|()| ExitCode::SUCCESS),
            Command::Demo(args) => run_demo(args).await.map(|()| ExitCode::SUCCESS),
            Command::Check(args) => run_check(args).await,
            Command::Fleet(args) => run_fleet(args).await.map(|()| ExitCode::SUCCESS),
            Command::Train(args) => train::run(args).await.map(|()| ExitCode::SUCCESS),
            Command::Import(args) => import::run(args).map(|()| ExitCode::SUCCESS),
            Command::Explain(args) => explain::run(args).await,
            Command::Pause(args) => switch::run(args, true).await,
            Command::Resume(args) => switch::run(args, false).await,
            Command::Release(args) => release::run(args).await,
        }
    });
    // Blocking work that is still under way, a score or an encoding, is of no use any more.
    runtime.shutdown_timeout(Duration::from_secs(5));
    outcome.unwrap_or_else(|error| fail(&error))
}

fn fail(error: &anyhow::Error) -> ExitCode {
    // Standard error may be closed; then nobody is there to be told.
    drop(writeln!(
        std::io::stderr(),
        "foreshock: {}",
        crate::cycle::chain(error.as_ref())
    ));
    ExitCode::FAILURE
}

async fn run(args: RunArgs) -> anyhow::Result<()> {
    let config = Config::load(&args.config)?;
    telemetry::start(&config.log);
    let model = Model::load(config.model.file.as_deref(), config.model_terms())?;
    let listener = web::bind(&config.listen.to_string()).await?;
    let foundation = Foundation::real(&config).await?;
    let shutdown = on_signal()?;
    app::serve(config, model, foundation, listener, shutdown).await?;
    Ok(())
}

async fn run_demo(args: DemoArgs) -> anyhow::Result<()> {
    telemetry::start(&Log {
        json: false,
        level: "info".to_owned(),
    });
    let listener = web::bind(&args.listen.to_string()).await?;
    let shutdown = on_signal()?;
    demo::run(args.seed, args.listen, listener, shutdown).await?;
    Ok(())
}

async fn run_check(args: RunArgs) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.config)?;
    let findings = check::check(&config).await;
    let mut out = std::io::stdout().lock();
    for finding in &findings {
        writeln!(out, "{finding}")?;
    }
    let failed = findings
        .iter()
        .filter(|finding| finding.is_failure())
        .count();
    writeln!(out)?;
    if failed == 0 {
        writeln!(
            out,
            "`foreshock run` would work with {}",
            args.config.display()
        )?;
        Ok(ExitCode::SUCCESS)
    } else {
        writeln!(out, "{failed} of {} checks failed", findings.len())?;
        Ok(ExitCode::FAILURE)
    }
}

async fn run_fleet(args: FleetArgs) -> anyhow::Result<()> {
    telemetry::start(&Log {
        json: false,
        level: "info".to_owned(),
    });
    let start = Timestamp::now();
    let mut options = FleetOptions::new(args.seed, args.nodes, start);
    options.schedule = args
        .faults
        .iter()
        .map(|spec| spec.starting(start))
        .collect::<Vec<FaultEvent>>();
    let fleet = Fleet::new(options).context("the fleet cannot be simulated")?;
    let listener = web::bind(&args.listen.to_string()).await?;
    let shutdown: CancellationToken = on_signal()?;
    tracing::info!(address = %listener.local_addr()?, nodes = args.nodes, faults = args.faults.len(), "listening");
    let fleet = SharedFleet::new(fleet, Arc::new(Timestamp::now));
    let driver = fleet_server::drive(fleet.clone(), 1.0, shutdown.clone());
    let (served, ()) = tokio::join!(fleet_server::serve(listener, fleet, shutdown), driver);
    served?;
    Ok(())
}

/// A token that SIGINT and SIGTERM cancel.
fn on_signal() -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("signals cannot be heard")?;
    let mut terminate = signal(SignalKind::terminate()).context("signals cannot be heard")?;
    let shutdown = CancellationToken::new();
    let told = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("asked to stop");
        told.cancel();
    });
    Ok(shutdown)
}
