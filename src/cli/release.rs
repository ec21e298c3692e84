//! `foreshock release`.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use foreshock_core::node::NodeName;
use indicatif::{ProgressBar, ProgressStyle};

use super::by_hand::ClusterArgs;
use crate::actuator::{Progress, ReleaseOptions, Summary, rehearse, release};
use crate::clock::SystemClock;

#[derive(Debug, Args)]
#[command(after_help = "\
It pauses foreshock on its Lease, waits until every write that a service may have begun has timed out
(23 s), and then removes from every Node what the records of this instance call its own, the records
included, and puts back what stood there before. It works with or without a running service, and with
the rights of the kubeconfig: get, list and patch Nodes, get, patch and create Leases. foreshock stays
paused until `foreshock resume`. The exit code is 1 if something of ours is left.

Marks of other instances are never touched. Marks that no record calls ours may be anybody's: they are
named, and stay unless --adopt is given.

Examples:
  foreshock release --config foreshock.toml
  foreshock release --namespace foreshock --dry-run
  foreshock release --config foreshock.toml --node worker-07 --adopt")]
pub(super) struct ReleaseArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Also take marks that lost their record: the taints of the configuration and the risk label.
    #[arg(long)]
    adopt: bool,
    /// Only this Node. Repeatable.
    #[arg(long = "node", value_name = "NAME")]
    nodes: Vec<String>,
    /// Say what would be removed, and change nothing: foreshock is not paused either.
    #[arg(long)]
    dry_run: bool,
}

/// Takes everything off.
pub(super) async fn run(args: ReleaseArgs) -> anyhow::Result<ExitCode> {
    let (cluster, options) = args.cluster.connect().await?;
    let lease = format!("Lease {}/{}", cluster.namespace(), cluster.instance());
    let instance = cluster.instance().to_owned();
    let options = ReleaseOptions {
        taints: options.taints,
        adopt: args.adopt,
        nodes: args
            .nodes
            .iter()
            .map(|node| NodeName::from(node.as_str()))
            .collect(),
    };
    for node in &options.nodes {
        if !cluster.has_node(node).await? {
            bail!("there is no Node {node} in {}", cluster.url());
        }
    }
    let where_to = if options.nodes.is_empty() {
        ""
    } else {
        " on the Nodes that were named"
    };
    let mut out = std::io::stdout().lock();
    if args.dry_run {
        let summary = rehearse(&cluster, &options).await?;
        table(&mut out, &summary, "would release")?;
        writeln!(out, "nothing was changed (--dry-run)")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut teller = Teller::new(&lease)?;
    let summary = release(&cluster, &SystemClock, &options, &mut |progress| {
        teller.tell(progress);
    })
    .await;
    teller.end();
    let resume = format!("foreshock resume{}", args.cluster.shown());
    let resume = if args.cluster.is_given() {
        resume
    } else {
        format!("{resume} --namespace {}", cluster.namespace())
    };
    let summary = summary.inspect_err(|_| {
        drop(writeln!(
            std::io::stderr(),
            "foreshock: {lease} may be paused; `{resume}` ends it"
        ));
    })?;
    table(&mut out, &summary, "released")?;
    let done = summary.left.is_empty();
    if done {
        writeln!(
            out,
            "{} released; nothing of instance {instance} is left{where_to}",
            nodes(summary.released.len())
        )?;
    } else {
        writeln!(
            out,
            "{} released, {} NOT: see above",
            nodes(summary.released.len()),
            nodes(summary.left.len())
        )?;
    }
    if !summary.unclaimed.is_empty() {
        writeln!(
            out,
            "{} with marks that no record calls foreshock's: they stay; --adopt takes them",
            nodes(summary.unclaimed.len())
        )?;
    }
    writeln!(out, "{lease} stays paused until `{resume}`")?;
    Ok(if done {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn nodes(count: usize) -> String {
    match count {
        1 => "1 Node".to_owned(),
        count => format!("{count} Nodes"),
    }
}

/// A line for each Node.
fn table(out: &mut impl Write, summary: &Summary, verb: &str) -> std::io::Result<()> {
    let mut lines: BTreeMap<(&NodeName, &str), String> = BTreeMap::new();
    for (node, took) in &summary.released {
        lines.insert((node, verb), took.join(", "));
    }
    for (node, why) in &summary.left {
        lines.insert((node, "LEFT"), why.clone());
    }
    for (node, marks) in &summary.unclaimed {
        lines.insert((node, "not ours"), marks.join(", "));
    }
    let widest = |of: fn(&(&NodeName, &str)) -> usize| lines.keys().map(of).max().unwrap_or(0);
    let (name, word) = (
        widest(|(node, _)| node.as_str().len()),
        widest(|(_, word)| word.len()),
    );
    for ((node, what), detail) in &lines {
        writeln!(out, "{:name$}  {what:word$}  {detail}", node.as_str())?;
    }
    Ok(())
}

/// A bar on a terminal, lines otherwise.
struct Teller {
    lease: String,
    bar: Option<ProgressBar>,
    said: Option<u64>,
}

impl Teller {
    fn new(lease: &str) -> anyhow::Result<Self> {
        let bar = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(1);
            let style = "{spinner} {msg} [{bar:30}] {pos}/{len}";
            bar.set_style(ProgressStyle::with_template(style)?.progress_chars("=> "));
            bar.enable_steady_tick(Duration::from_millis(200));
            Some(bar)
        } else {
            None
        };
        Ok(Self {
            lease: lease.to_owned(),
            bar,
            said: None,
        })
    }

    fn tell(&mut self, progress: Progress) {
        match progress {
            Progress::Paused {
                already,
                holder,
                wait,
            } => {
                let lease = &self.lease;
                let was = if already { "paused already" } else { "paused" };
                let who = holder.map_or_else(
                    || "nobody leads".to_owned(),
                    |holder| format!("{holder} leads, or did"),
                );
                self.say(&format!("{lease}: {was} ({who})"));
                let seconds = wait.as_secs();
                self.say(&format!(
                    "waiting {seconds} s, until every write that a service may have begun has timed out"
                ));
                if let Some(bar) = &self.bar {
                    bar.set_length(seconds);
                    bar.set_message("waiting");
                }
            }
            Progress::Waiting { left } => match &self.bar {
                Some(bar) => {
                    let all = bar.length().unwrap_or_default();
                    bar.set_position(all.saturating_sub(left.as_secs()));
                }
                // A sign of life every few seconds is enough for a log.
                None if self.said != Some(left.as_secs() / 5) => {
                    self.said = Some(left.as_secs() / 5);
                    self.say(&format!("{} s left", left.as_secs().max(1)));
                }
                None => {}
            },
            Progress::Found { nodes: count } => {
                if let Some(bar) = &self.bar {
                    bar.set_length(count as u64);
                    bar.set_position(0);
                    bar.set_message("releasing");
                } else {
                    self.say(&format!("releasing {}", nodes(count)));
                }
            }
            Progress::Released { node, took } => {
                if let Some(bar) = &self.bar {
                    bar.inc(1);
                } else {
                    self.say(&format!("{node}: released: {}", took.join(", ")));
                }
            }
            Progress::Failed { node, problem } => {
                self.say(&format!("{node}: not released this time: {problem}"));
            }
        }
    }

    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            // Standard error may be closed; then nobody is there to be told.
            None => drop(writeln!(std::io::stderr(), "{line}")),
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
