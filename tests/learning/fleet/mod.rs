//! What acting on a model costs beside doing without it, on simulated fleets: all of `foreshock train` but the
//! questions to Prometheus.
//!
//! The fleet with its hazards and faults is that of `docs/fleet.md`. Seeds are fixed here; nothing of the model
//! was tuned on them.

mod archive;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use foreshock::model::authority::Demands;
use foreshock::simulate::fleet::{FaultEvent, FaultKind, FaultRates, node_names, random_schedule};
use foreshock::train::judge::trial::Manner;
use foreshock::train::judge::{AtCost, Judgement};
use foreshock::train::track::Span;
use foreshock::trainer::work::Work;
use foreshock::trainer::{Progress, Step, TREES_MAX, Trained, TrainingTerms, train};
use foreshock_core::time::after;
use jiff::Timestamp;

use self::archive::{FleetArchive, SCRAPE};
use crate::figures::Figures;

/// Seeds that are judged. All were fixed before any model was made of such a history, and none was tuned on. That the
/// first three once broke a bound has led to changes since; the others were first looked at when those were done.
pub(crate) const SEEDS: [u64; 6] = [8101, 8102, 8103, 8301, 8302, 8303];
/// What an incident is worth, in drains, and whether the model is held to be the cheapest there. At the default of
/// `model.incident_cost` acting pays from 0.63 on, which few rows are half an hour ahead: it is told all the same.
const INCIDENT_COSTS: [(f64, bool); 3] = [(2.0, false), (8.0, true), (16.0, true)];
/// Kinds of faults that one of the two histories has in its last part alone.
const ABSENT: [FaultKind; 2] = [FaultKind::PacketLoss, FaultKind::Overheating];

/// From the first sign of a fault to its end: foreshock foresees what comes on over an hour and not what strikes
/// within minutes, which leaves nothing to move away from.
const LASTS: (Duration, Duration) = (Duration::from_secs(3_600), Duration::from_secs(12 * 3_600));

const DAYS: u64 = 28;

struct Quiet;

impl Progress for Quiet {
    fn at(&self, _: Step, _: u64, _: u64) {}
}

/// Which faults a history has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Faults {
    /// All kinds, always.
    All,
    /// Two kinds in the part that is judged, and the others before it.
    NewAtTheEnd,
}

impl Faults {
    fn words(self) -> &'static str {
        match self {
            Self::All => "all kinds of faults",
            Self::NewAtTheEnd => "two kinds of faults that training has never seen",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::All => "fleet",
            Self::NewAtTheEnd => "fleet_new_faults",
        }
    }
}

/// Learns from each history, and says what acting costs.
///
/// # Errors
///
/// A fleet that cannot be simulated, or a history that nothing can be learned from.
pub(crate) fn report(seeds: &[u64], nodes: usize, figures: &mut Figures) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    for faults in [Faults::All, Faults::NewAtTheEnd] {
        println!(
            "\nSimulated fleets of {nodes} Nodes, {DAYS} days, {}; cost in drains for each Node and day",
            faults.words()
        );
        for seed in seeds {
            let trained = runtime.block_on(one(*seed, nodes, faults));
            let trained = trained.with_context(|| format!("fleet {seed}"))?;
            print(*seed, &trained, faults, figures);
        }
    }
    Ok(())
}

async fn one(seed: u64, nodes: usize, faults: Faults) -> anyhow::Result<Trained> {
    let begin: Timestamp = "2026-06-01T00:00:00Z".parse()?;
    let end = after(begin, Duration::from_secs(DAYS * 86_400));
    let archive = FleetArchive::simulate(
        seed,
        nodes,
        begin,
        DAYS,
        schedule(seed, nodes, begin, end, faults),
    )?;
    let folder = tempfile::tempdir()?;
    let work = Work::open(folder.path().join("work"))?;
    let terms = TrainingTerms {
        history: Span {
            from: begin,
            to: end,
        },
        scrape_interval: SCRAPE,
        incidents: None,
        missing_max: 0.3,
        manner: Manner::default(),
        at_risk: 0.65,
        demands: Demands::default(),
        seed: 1,
        trees_max: TREES_MAX,
        command: "tests/learners --fleet".to_owned(),
        now: end,
    };
    Ok(train(&archive, &work, terms, Arc::new(Quiet)).await?)
}

/// Faults as often as usual, of the kinds that a part of the history has.
fn schedule(
    seed: u64,
    nodes: usize,
    begin: Timestamp,
    end: Timestamp,
    faults: Faults,
) -> Vec<FaultEvent> {
    let nodes = node_names(nodes);
    let of = |seed, from, to, has: &dyn Fn(FaultKind) -> bool, more: f64| {
        let mut rates = FaultRates {
            lasts: LASTS,
            ..FaultRates::default()
        };
        rates
            .per_day
            .retain(|(kind, _)| !kind.degrades() || has(*kind));
        for (kind, rate) in &mut rates.per_day {
            if kind.degrades() {
                *rate *= more;
            }
        }
        random_schedule(seed, &nodes, from, to, &rates)
    };
    match faults {
        Faults::All => of(seed, begin, end, &|_| true, 1.0),
        Faults::NewAtTheEnd => {
            // The last quarter is judged; a day before it is the end of the others.
            let turn = after(begin, Duration::from_secs(DAYS * 86_400 * 3 / 4 - 86_400));
            let mut all = of(seed, begin, turn, &|kind| !ABSENT.contains(&kind), 1.0);
            // Two kinds of seven, as often as all seven together.
            all.extend(of(seed ^ 1, turn, end, &|kind| ABSENT.contains(&kind), 3.5));
            all
        }
    }
}

fn print(seed: u64, trained: &Trained, faults: Faults, figures: &mut Figures) {
    let card = &trained.card;
    let (ways, chosen) = &trained.ways;
    let way = ways.get(*chosen).map_or("", |way| way.name.as_str());
    let parts: Vec<(&str, &Judgement)> = std::iter::once(("later", &card.judgement))
        .chain(
            card.unseen_nodes
                .iter()
                .map(|unseen| ("later, unseen Nodes", unseen)),
        )
        .collect();
    for (what, judgement) in parts {
        println!(
            "fleet {seed}, {what}: {} incidents of {} Nodes in {:.0} Node-days, PR-AUC {:.3} at a base rate of {:.4}, by `{way}`",
            judgement.incidents,
            judgement.nodes_befallen,
            judgement.node_days,
            judgement.rows.pr_auc,
            judgement.rows.base_rate,
        );
        for (incident_cost, held) in INCIDENT_COSTS {
            let same = |at: &&AtCost| (at.incident_cost - incident_cost).abs() < 1e-9;
            let Some(at) = judgement.costs.iter().find(same) else {
                continue;
            };
            print!(
                "  an incident worth {incident_cost} drains: {:.4}, recall {:.2}, {:.2} needless drains a Node and month;",
                at.model.cost, at.model.recall, at.model.needless_per_node_month
            );
            let mut best = f64::INFINITY;
            for beside in &at.beside {
                best = best.min(beside.figures.cost);
                print!(
                    " {} {:.4} ({:+.4} to {:+.4})",
                    beside.baseline.words(),
                    beside.figures.cost,
                    beside.low,
                    beside.high
                );
            }
            println!();
            let unseen = if what == "later" { "" } else { "_unseen" };
            let name = format!("{}{unseen}_{seed}_cost_{incident_cost}", faults.name());
            let ratio = at.model.cost / best;
            if held && faults == Faults::All {
                figures.at_most(&format!("{name}_ratio"), ratio, 0.9999);
            } else {
                figures.say(&format!("{name}_ratio"), ratio);
            }
        }
    }
}
