//! `foreshock explain`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde::Deserialize;

use super::server::ServerArgs;
use crate::features::schema::Unit;
use crate::web::{DispositionWord, DrainPlan, DryRunWord};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  foreshock explain worker-03
  foreshock explain worker-03 --output json | jq '.holds[] | {reason, until, lift}'
  foreshock explain worker-03 --output json | jq -r '.plan.pods[] | [.namespace, .name, .disposition] | @tsv'")]
pub(super) struct ExplainArgs {
    /// The Node.
    node: String,
    /// As people read it, or as `GET /api/nodes/NODE` answers.
    #[arg(long, short, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
    output: Output,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Asks the service about the Node and says what it answers.
pub(super) async fn run(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let server = args.server.connect().await?;
    let body = server.get(&["api", "nodes", &args.node]).await?;
    let text = match args.output {
        Output::Json => {
            let value: serde_json::Value =
                serde_json::from_slice(&body).context("the answer is no JSON; is it foreshock?")?;
            serde_json::to_string_pretty(&value)? + "\n"
        }
        Output::Table => table(&body)?,
    };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// An answer of `GET /api/nodes/NODE` as `kubectl describe` would show it.
pub(crate) fn table(body: &[u8]) -> anyhow::Result<String> {
    let node: Node = serde_json::from_slice(body)
        .context("the answer is not understood; is it foreshock of this version?")?;
    let mut page = Page {
        text: String::new(),
        now: node.at,
    };
    summary(&mut page, &node);
    holds(&mut page, &node);
    evidence(&mut page, &node);
    plan(&mut page, &node);
    events(&mut page, &node);
    Ok(page.text)
}

/// What of `GET /api/nodes/NODE` is shown. Fields that a newer service adds are of no concern.
#[derive(Debug, Deserialize)]
struct Node {
    node: String,
    at: Timestamp,
    risk: Option<f64>,
    model_risk: Option<f64>,
    band: String,
    phase: String,
    since: Timestamp,
    reach: String,
    holds: Vec<Hold>,
    alerts: Vec<Alert>,
    missing: f64,
    reasons: Vec<String>,
    zone: Option<String>,
    pool: Option<String>,
    drain: Option<Drain>,
    uid: Option<String>,
    ready: Option<bool>,
    cordoned: Option<bool>,
    taints: Vec<String>,
    features_at: Option<Timestamp>,
    scraped_at: Option<Timestamp>,
    contributions: Vec<Contribution>,
    plan: Option<DrainPlan>,
    plan_problem: Option<String>,
    history: History,
}

#[derive(Debug, Deserialize)]
struct Hold {
    reason: String,
    detail: String,
    until: Option<Timestamp>,
    lift: String,
}

#[derive(Debug, Deserialize)]
struct Alert {
    name: String,
    floor: f64,
    reach: String,
    starts_at: Timestamp,
    expires_at: Timestamp,
}

#[derive(Debug, Deserialize)]
struct Drain {
    started_at: Timestamp,
    remaining: u32,
    gone: u32,
    ended_at: Option<Timestamp>,
    outcome: Option<String>,
    detail: String,
}

#[derive(Debug, Deserialize)]
struct Contribution {
    feature: String,
    value: Option<f64>,
    usual: Option<f64>,
    contribution: f64,
    unit: String,
}

#[derive(Debug, Deserialize)]
struct History {
    events: Vec<Event>,
}

#[derive(Debug, Deserialize)]
struct Event {
    at: Timestamp,
    kind: String,
    message: String,
}

/// Contributions that are shown: the reasons that a person reads.
const CONTRIBUTIONS_MAX: usize = 10;
/// Pods that are slow to go and are shown one by one.
const SLOW_MAX: usize = 10;
/// Events that are shown.
const EVENTS_MAX: usize = 10;

fn summary(page: &mut Page, node: &Node) {
    page.field("Name", &node.node);
    if let Some(uid) = &node.uid {
        page.field("UID", uid);
    }
    let band = node.band.replace('_', " ");
    let risk = match (node.risk, node.model_risk) {
        (None, _) => format!("{band} (neither healthy nor at risk)"),
        (Some(risk), Some(model)) if (risk - model).abs() < 5e-5 => format!("{risk:.4} ({band})"),
        (Some(risk), Some(model)) => format!("{risk:.4} ({band}); the model alone says {model:.4}"),
        (Some(risk), None) => format!("{risk:.4} ({band}); the model says nothing"),
    };
    page.field("Risk", &risk);
    let since = page.ago(node.since);
    page.field("Phase", &format!("{}, since {since}", node.phase));
    page.field(
        "Reach",
        &format!(
            "{} (how far evidence and policy would go together)",
            node.reach
        ),
    );
    for (name, value) in [("Zone", &node.zone), ("Pool", &node.pool)] {
        if let Some(value) = value {
            page.field(name, value);
        }
    }
    if let Some(ready) = node.ready {
        let cordoned = if node.cordoned == Some(true) {
            ", cordoned"
        } else {
            ""
        };
        page.field("Ready", &format!("{ready}{cordoned}"));
    }
    let taints = if node.taints.is_empty() {
        "<none>".to_owned()
    } else {
        node.taints.join(", ")
    };
    page.field("Taints", &taints);
    let telemetry = match (node.scraped_at, node.features_at) {
        (Some(at), _) => format!("scraped {}", page.ago(at)),
        (None, Some(_)) => "no sample of this Node".to_owned(),
        (None, None) => "none yet".to_owned(),
    };
    let missing = node.missing * 100.0;
    page.field(
        "Telemetry",
        &format!("{telemetry}; {missing:.0} % of the required features missing"),
    );
    if let Some(drain) = &node.drain {
        let (gone, remaining) = (drain.gone, drain.remaining);
        let started = page.ago(drain.started_at);
        let ended = drain.ended_at.map_or_else(
            || "running".to_owned(),
            |at| {
                let outcome = drain.outcome.as_deref().unwrap_or("ended");
                format!("{outcome} {}", page.ago(at))
            },
        );
        let detail = Some(drain.detail.as_str()).filter(|detail| !detail.is_empty());
        let detail = detail.map_or_else(String::new, |detail| format!(" ({detail})"));
        page.field(
            "Drain",
            &format!("{ended}, started {started}; {gone} Pods gone, {remaining} to go{detail}"),
        );
    }
}

fn holds(page: &mut Page, node: &Node) {
    page.head("Holds");
    if node.holds.is_empty() {
        page.line("<none>: nothing is held back");
        return;
    }
    for (n, hold) in node.holds.iter().enumerate() {
        let first = if n == 0 { "  (primary)" } else { "" };
        page.line(&format!("{}{first}", hold.reason));
        page.line(&format!("  Why:        {}", hold.detail));
        page.line(&format!("  Lifted by:  {}", hold.lift));
        if let Some(until) = hold.until {
            page.line(&format!("  When:       {}", page.ahead(until)));
        }
    }
}

fn evidence(page: &mut Page, node: &Node) {
    if !node.reasons.is_empty() {
        page.head("Reasons");
        for reason in &node.reasons {
            page.line(reason);
        }
    }
    if !node.alerts.is_empty() {
        page.head("Alerts");
        let rows = node.alerts.iter().map(|alert| {
            [
                alert.name.clone(),
                format!("{}", alert.floor),
                alert.reach.clone(),
                page.ago(alert.starts_at),
                page.ahead(alert.expires_at),
            ]
        });
        let rows = rows.collect();
        page.table(["Name", "Floor", "Reach", "Since", "Expires"], rows);
    }
    page.head("Contributions (log-odds; above zero raises the risk)");
    if node.contributions.is_empty() {
        page.line("<none>: there is no score");
        return;
    }
    let shown = |value: Option<f64>, unit: &str, none: &str| {
        let unit = Unit::ALL.into_iter().find(|known| known.as_str() == unit);
        value.map_or_else(
            || none.to_owned(),
            |value| unit.map_or_else(|| value.to_string(), |unit| unit.describe(value)),
        )
    };
    let rows = node
        .contributions
        .iter()
        .take(CONTRIBUTIONS_MAX)
        .map(|part| {
            [
                part.feature.clone(),
                shown(part.value, &part.unit, "missing"),
                shown(part.usual, &part.unit, "-"),
                format!("{:+.2}", part.contribution),
            ]
        });
    page.table(
        ["Feature", "Value", "Usual", "Contribution"],
        rows.collect(),
    );
    let more = node.contributions.len().saturating_sub(CONTRIBUTIONS_MAX);
    if more > 0 {
        page.line(&format!("… and {more} smaller ones (--output json)"));
    }
}

fn plan(page: &mut Page, node: &Node) {
    page.head("Drain plan (what a drain would do now)");
    let Some(plan) = &node.plan else {
        let problem = node.plan_problem.as_deref().unwrap_or("not known");
        page.line(&format!("<none>: {problem}"));
        return;
    };
    let possible = match (plan.possible, plan.estimated_seconds) {
        (true, Some(seconds)) => format!("possible; {seconds:.0} s, {}", plan.estimate),
        (true, None) => format!("possible; how long {}", plan.estimate),
        (false, _) => format!("NOT possible: {}", plan.estimate),
    };
    page.line(&possible);
    for set in &plan.daemon_sets {
        page.line(&format!(
            "DaemonSet {}/{} does not tolerate the taint: a Pod of it that dies here does not come back",
            set.namespace, set.name
        ));
    }
    for slow in plan.slow.iter().take(SLOW_MAX) {
        page.line(&format!(
            "slow: {}/{} {}",
            slow.namespace, slow.name, slow.reason
        ));
    }
    let more = plan.slow.len().saturating_sub(SLOW_MAX);
    if more > 0 {
        page.line(&format!("slow: … and {more} more (--output json)"));
    }
    for note in &plan.warnings {
        page.line(&format!(
            "note: {}/{} {}",
            note.namespace, note.name, note.reason
        ));
    }
    if plan.pods.is_empty() {
        page.line("no Pods");
        return;
    }
    let mut unasked: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in &plan.pods {
        if let (DispositionWord::Evict, None, Some(why)) =
            (pod.disposition, pod.dry_run, pod.dry_run_detail.as_deref())
        {
            *unasked.entry(why).or_default() += 1;
        }
    }
    for (why, count) in unasked {
        page.line(&format!("no dry run of {count} Pod(s): {why}"));
    }
    for pod in &plan.pods {
        let name = format!("{}/{}", pod.namespace, pod.name);
        match (pod.surge, &pod.surge_detail) {
            (Some(true), _) => page.line(&format!("{name} goes when a second Pod is Ready")),
            (Some(false), Some(why)) => {
                page.line(&format!("{name} goes without a second Pod: {why}"));
            }
            (None, Some(why)) => {
                page.line(&format!(
                    "{name}: whether a second Pod comes first is not known: {why}"
                ));
            }
            (Some(false) | None, None) => {}
        }
    }
    let rows = plan.pods.iter().map(|pod| {
        let disposition = match pod.disposition {
            DispositionWord::Evict => "evict",
            DispositionWord::Skip => "skip",
            DispositionWord::Leave => "leave",
            DispositionWord::Impossible => "IMPOSSIBLE",
        };
        let budget = pod.pdb.as_ref().map_or_else(
            || "-".to_owned(),
            |pdb| {
                let headroom = pod.headroom.map_or("?".to_owned(), |n| n.to_string());
                format!("{pdb} ({headroom} now)")
            },
        );
        let fits = match pod.fits_on.as_deref() {
            None => "-".to_owned(),
            Some([]) => "NOWHERE".to_owned(),
            Some([node]) => node.clone(),
            Some([node, more @ ..]) => format!("{node} (+{})", more.len()),
        };
        [
            pod.namespace.clone(),
            pod.name.clone(),
            disposition.to_owned(),
            budget,
            format!("{} s", pod.grace_seconds),
            fits,
            match pod.dry_run {
                Some(DryRunWord::Allowed) => "allowed".to_owned(),
                Some(DryRunWord::Refused) => "REFUSED".to_owned(),
                None => "-".to_owned(),
            },
            // In the server's words where it refuses; why it was not asked is said once, above.
            match (&pod.reason, pod.dry_run, &pod.dry_run_detail) {
                (None, Some(DryRunWord::Refused), Some(said)) => said.clone(),
                (reason, _, _) => reason.clone().unwrap_or_default(),
            },
        ]
    });
    page.table(
        [
            "Namespace",
            "Pod",
            "Drain",
            "Budget",
            "Grace",
            "Fits on",
            "Dry run",
            "Why",
        ],
        rows.collect(),
    );
}

fn events(page: &mut Page, node: &Node) {
    page.head("Events (since foreshock started, newest first)");
    if node.history.events.is_empty() {
        page.line("<none>");
        return;
    }
    let shown = node.history.events.iter().take(EVENTS_MAX);
    let rows = shown.map(|event| {
        [
            page.ago(event.at),
            event.kind.clone(),
            event.message.clone(),
        ]
    });
    let rows = rows.collect();
    page.table(["Age", "Kind", "Message"], rows);
}

/// The text so far; everything in it is from the service, and stays on its line.
struct Page {
    text: String,
    now: Timestamp,
}

impl Page {
    fn push(&mut self, line: &str) {
        let line = crate::kubernetes::text::clean_line(line);
        writeln!(self.text, "{}", line.trim_end()).expect("a String takes everything");
    }

    fn field(&mut self, name: &str, value: &str) {
        self.push(&format!("{:<14}{value}", format!("{name}:")));
    }

    fn head(&mut self, name: &str) {
        self.push(&format!("{name}:"));
    }

    fn line(&mut self, line: &str) {
        self.push(&format!("  {line}"));
    }

    fn table<const N: usize>(&mut self, heads: [&str; N], rows: Vec<[String; N]>) {
        let letters = |text: &str| text.chars().count();
        let widths: [usize; N] = std::array::from_fn(|at| {
            let cells = rows.iter().map(|row| letters(&row[at]));
            cells.max().unwrap_or(0).max(letters(heads[at]))
        });
        let rules: [String; N] = std::array::from_fn(|at| "-".repeat(letters(heads[at])));
        let heads = heads.map(str::to_owned);
        for row in [heads, rules].iter().chain(&rows) {
            let mut line = String::from("  ");
            for (cell, width) in row.iter().zip(widths) {
                write!(line, "{cell:<width$}  ").expect("a String takes everything");
            }
            self.push(&line);
        }
    }

    fn ago(&self, at: Timestamp) -> String {
        let seconds = self.now.duration_since(at).as_secs();
        if seconds < 0 {
            return self.ahead(at);
        }
        format!("{} ago", span(seconds))
    }

    fn ahead(&self, at: Timestamp) -> String {
        let seconds = at.duration_since(self.now).as_secs();
        if seconds < 0 {
            return format!("{} ago", span(-seconds));
        }
        format!("in {} ({at:.0})", span(seconds))
    }
}

/// A span of time in one or two units.
fn span(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{minutes}m{}s", seconds % 60),
        7_200..172_800 => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
