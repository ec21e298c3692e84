//! How soon the built-in model sees each fault of the simulated fleet, and how soon it lets go of it again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use foreshock::features::{History, Schema, derive};
use foreshock::model::built_in::built_in;
use foreshock::model::scorer::{Scorer, TreeScorer};
use foreshock::simulate::fleet::{
    Columns, FaultEvent, FaultKind, Fleet, FleetOptions, MemoryOptions, Scrapes, node_names,
};
use foreshock_core::time::after;
use jiff::Timestamp;

use crate::figures::Figures;

/// Another seed than those that the model is made and tested with.
const SEED: u64 = 8_001;
const NODES: usize = 40;
const SCRAPE: Duration = Duration::from_secs(15);
/// The default window of rates, and what a fast scrape allows.
const WINDOWS: [Duration; 2] = [Duration::from_secs(300), Duration::from_secs(60)];
/// The default severity of a fault, none of those that the model was trained with.
const SEVERITY: f64 = 0.8;
const LASTS: Duration = Duration::from_secs(15 * 60);
/// Counts over an hour have their hour before the fault begins.
const BEFORE: Duration = Duration::from_secs(65 * 60);
/// As long is looked whether it is let go of.
const AFTER: Duration = Duration::from_secs(65 * 60);
/// `policy.at_risk`, and half of what is certain.
const AT_RISK: f64 = 0.65;
const EVEN: f64 = 0.5;

/// What is seen of one kind of fault, Node by Node: seconds from its begin until it is seen, and from its end
/// until it is let go of.
#[derive(Default)]
struct Seen {
    after: Vec<u64>,
    gone: Vec<u64>,
}

/// Looks at each fault on every Node of a fleet, and prints a table.
///
/// # Errors
///
/// A fleet that cannot be simulated.
pub(crate) fn report(figures: &mut Figures) -> anyhow::Result<()> {
    let model = built_in().context("the built-in model")?;
    let scorer = TreeScorer::new(&model);
    println!(
        "\nThe built-in model on faults of {} min at severity {SEVERITY}, on {NODES} Nodes each; windows of 5 min and of 1 min\n",
        LASTS.as_secs() / 60
    );
    println!("| fault | above {AT_RISK} | after | below {EVEN} again |\n|---|---|---|---|");
    for kind in FaultKind::ALL.into_iter().filter(|kind| kind.degrades()) {
        let mut seen = Vec::new();
        for window in WINDOWS {
            seen.push(look(&scorer, kind, window).with_context(|| kind.to_string())?);
        }
        let [slow, fast] = [&seen[0], &seen[1]];
        println!(
            "| {kind} | {} of {NODES} ({} at 1 min) | {} ({}) | {} ({}) |",
            slow.after.len(),
            fast.after.len(),
            words(&slow.after, slow.after.len()),
            words(&fast.after, fast.after.len()),
            words(&slow.gone, slow.after.len()),
            words(&fast.gone, fast.after.len())
        );
        figures.say(&format!("seen_{kind}_nodes"), slow.after.len() as f64);
        figures.say(&format!("seen_{kind}_seconds"), median(&slow.after));
    }
    Ok(())
}

fn look(scorer: &TreeScorer, kind: FaultKind, window: Duration) -> anyhow::Result<Seen> {
    let start: Timestamp = "2026-09-21T13:33:20Z".parse()?;
    let from = after(start, BEFORE);
    let until = after(from, LASTS);
    let nodes = node_names(NODES);
    let fault = |node| FaultEvent {
        node,
        kind,
        from,
        lasts: LASTS,
        severity: SEVERITY,
        ramp: None,
        target: None,
    };
    let mut fleet = Fleet::new(FleetOptions {
        tick: SCRAPE,
        schedule: nodes.iter().cloned().map(fault).collect(),
        memory: Some(MemoryOptions {
            scrapes: Scrapes::Every(SCRAPE),
            rate_window: window,
            ..MemoryOptions::every(SCRAPE)
        }),
        ..FleetOptions::new(SEED, NODES, start)
    })?;
    let columns = Columns::new(
        Arc::new(Schema::built_in()),
        window,
        Duration::from_secs(120),
    );
    let mut seen = Seen::default();
    let mut is_seen = [false; NODES];
    let mut is_gone = [false; NODES];
    let mut at = from;
    while at < after(until, AFTER) && !is_gone.iter().all(|gone| *gone) {
        fleet.advance(at);
        let matrix = columns.matrix(&fleet, at);
        let rows = derive(scorer.columns(), &matrix, &History::default())?;
        for (node, score) in scorer.score(&rows).iter().enumerate() {
            let says = score.probability.as_f64();
            let since = |begin: Timestamp| at.duration_since(begin).as_secs().unsigned_abs();
            if at < until {
                if !is_seen[node] && says > AT_RISK {
                    is_seen[node] = true;
                    seen.after.push(since(from));
                }
            } else if is_seen[node] && !is_gone[node] {
                // A machine that is off is unknown, not recovered.
                if matrix.scraped_at[node].is_some() && says < EVEN {
                    is_gone[node] = true;
                    seen.gone.push(since(until));
                }
            }
            is_gone[node] |= at >= until && !is_seen[node];
        }
        at = after(at, SCRAPE);
    }
    seen.after.sort_unstable();
    seen.gone.sort_unstable();
    Ok(seen)
}

/// The median of those that saw it; not a number if nobody did.
fn median(seconds: &[u64]) -> f64 {
    let middle = seconds.get(seconds.len() / 2);
    middle.map_or(f64::NAN, |at| *at as f64)
}

/// The median of so many, of which those that are not told take longer than was looked.
fn words(seconds: &[u64], of: usize) -> String {
    match seconds.get(of / 2) {
        Some(at) => format!("{at} s"),
        None if of == 0 => "never".to_owned(),
        None => format!("over {} min", AFTER.as_secs() / 60),
    }
}
