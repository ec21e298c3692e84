//! `foreshock pause` and `foreshock resume`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use serde::Deserialize;

use super::by_hand::ClusterArgs;
use super::server::ServerArgs;
use crate::kubernetes::ByHand;

#[derive(Debug, Args)]
#[command(after_help = "\
With --server it is asked of the running service; any replica will do. With --config, --namespace,
--instance or --kubeconfig it is written to the Lease with the kubeconfig's rights, whether or not a
service runs: `release` leaves a pause that only this ends when there is no service.

Examples:
  foreshock pause
  foreshock resume --server https://foreshock.example.com --token-file token
  foreshock resume --config foreshock.toml
  foreshock pause --namespace foreshock")]
pub(super) struct SwitchArgs {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Deserialize)]
struct Switched {
    paused: bool,
    lasting: bool,
    message: String,
}

/// Throws the switch.
pub(super) async fn run(args: SwitchArgs, paused: bool) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    if args.cluster.is_given() {
        if args.server.is_given() {
            bail!(
                "--server asks the running service, --config and the like write to the Lease: give one \
                 of them"
            );
        }
        writeln!(out, "{}", by_hand(&args.cluster, paused).await?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let server = args.server.connect().await?;
    let verb = if paused { "stop" } else { "start" };
    let body = server.post(&["api", "monitoring", verb]).await?;
    let switched: Switched =
        serde_json::from_slice(&body).context("the answer is not understood; is it foreshock?")?;
    writeln!(out, "{}", switched.message)?;
    if switched.paused != paused {
        bail!("the service answers that it is {}", word(switched.paused));
    }
    if paused && !switched.lasting {
        writeln!(out, "(it does not survive a restart)")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn word(paused: bool) -> &'static str {
    if paused { "paused" } else { "not paused" }
}

async fn by_hand(cluster: &ClusterArgs, paused: bool) -> anyhow::Result<String> {
    let (cluster, _) = cluster.connect().await?;
    let lease = format!("Lease {}/{}", cluster.namespace(), cluster.instance());
    let before = cluster.set_paused(paused).await?;
    Ok(match (&before, paused) {
        (None, true) => format!("paused: {lease} was created, and says so to whoever starts"),
        (Some(view), true) if view.paused => format!("paused already: {lease}"),
        (Some(_), true) => format!("paused: {lease}; nothing is written until somebody resumes"),
        (None, false) => format!("nothing to resume: there is no {lease}"),
        (Some(view), false) if view.paused => format!("resumed: {lease}"),
        (Some(_), false) => format!("not paused: {lease}"),
    })
}
