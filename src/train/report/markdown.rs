//! The card as Markdown.

use std::fmt::Write;

use super::super::judge::{AtCost, Baseline, Figures, Judgement};
use super::super::labels::Dropped;
use super::Card;
use super::text::{markdown, minutes, name, percent, short, whole};

/// Costs and alarms are told for so many Nodes and a day.
pub(super) const NODES: f64 = 100.0;

/// Lines of a table: its head and its rows.
pub(super) type Table = (Vec<&'static str>, Vec<Vec<String>>);

pub(super) fn card(card: &Card) -> String {
    let mut out = Out(String::new());
    out.line(&format!("# Model {}", markdown(&name(&card.model))));
    out.line(&format!("**{}**", card.verdict()));
    if !card.refusals.is_empty() {
        let each = card
            .refusals
            .iter()
            .map(|one| format!("- {}", markdown(one)));
        out.line(&each.collect::<Vec<_>>().join("\n"));
    }
    out.line(&format!("Made {:.0}. {}", card.made, history(card)));
    out.judgement("On the last part of the history", &card.judgement);
    if let Some(unseen) = &card.unseen_nodes {
        out.judgement("On Nodes that were left out of training", unseen);
    }
    let effects = card.largest();
    if !effects.is_empty() {
        out.line("## What the features do");
        let rows = effects.iter().map(|one| {
            vec![
                markdown(&name(&one.feature)),
                markdown(&name(&one.unit)),
                short(one.mean),
            ]
        });
        out.table(&(
            vec!["Feature", "Unit", "Moves a score by, in log-odds"],
            rows.collect(),
        ));
    }
    out.line("## Rows and incidents");
    let (kinds, others) = kinds(card, markdown);
    out.table(&kinds);
    if others > 0 {
        out.line(&format!("And {others} more kinds."));
    }
    out.table(&rows(card));
    out.table(&parts(card));
    out.line(&notes().join("\n\n"));
    out.0
}

struct Out(String);

impl Out {
    fn line(&mut self, text: &str) {
        self.0.push_str(text);
        self.0.push_str("\n\n");
    }

    fn table(&mut self, (head, rows): &Table) {
        let line = |cells: &[String]| format!("| {} |", cells.join(" | "));
        let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{}", line(&head));
        let right = head
            .iter()
            .enumerate()
            .map(|(i, _)| if i == 0 { "---" } else { "--:" });
        let _ = writeln!(self.0, "|{}|", right.collect::<Vec<_>>().join("|"));
        for row in rows {
            let _ = writeln!(self.0, "{}", line(row));
        }
        self.0.push('\n');
    }

    fn judgement(&mut self, title: &str, judgement: &Judgement) {
        self.line(&format!("## {title}"));
        self.line(&watched(judgement));
        if let Some(at) = judgement.at_operators_cost() {
            self.line(&format!(
                "### Where an incident is worth {} drains",
                short(at.incident_cost)
            ));
            self.table(&beside(judgement, at));
        }
        self.line("### By what an incident is worth");
        self.table(&costs(judgement));
        self.line("### Row by row");
        self.table(&row_by_row(judgement));
        self.line("### Said and came true");
        self.table(&reliability(judgement));
    }
}

pub(super) fn history(card: &Card) -> String {
    let kept = match card.one_in {
        0 | 1 => "every one".to_owned(),
        n => format!("one in {n}"),
    };
    let strangers = match card.strangers {
        0 => String::new(),
        n => format!(
            " Nodes that incidents befell and of which no exporter had features, so that they teach nothing: {}.",
            whole(n)
        ),
    };
    format!(
        "From {:.0} to {:.0}, {} Nodes, {} rows, {} signs of incidents excused by planned work. Of the negative rows of training {kept} was kept.{strangers}",
        card.history.from,
        card.history.to,
        whole(card.nodes),
        whole(card.rows.rows()),
        whole(card.excused),
    )
}

pub(super) fn watched(judgement: &Judgement) -> String {
    format!(
        "{} incidents of {} Nodes, among {} Nodes watched for {} Node-days. Without a row before them, and not judged: {}. Rows without a score: {}.",
        whole(judgement.incidents),
        whole(judgement.nodes_befallen),
        whole(judgement.nodes),
        short(judgement.node_days),
        whole(judgement.unjudged),
        whole(judgement.unscored),
    )
}

/// A number of drains.
pub(super) fn drains(number: f64) -> String {
    let one = (number - 1.0).abs() < 1e-9;
    format!("{} drain{}", short(number), if one { "" } else { "s" })
}

/// A threshold, of a score that never acts none.
fn threshold(threshold: f64) -> String {
    if threshold.is_finite() {
        short(threshold)
    } else {
        "–".to_owned()
    }
}

/// The model and the baselines at one cost.
pub(super) fn beside(judgement: &Judgement, at: &AtCost) -> Table {
    let head = vec![
        "Acting by",
        "Threshold",
        "Incidents averted",
        "Lead, median",
        "Lead, 10th percentile",
        "False alarms / 100 Nodes and day",
        "Needless drains / Node and month",
        "Cost / 100 Nodes and day",
        "Model's cost minus this (95 %)",
    ];
    let row = |who: String, figures: &Figures, less: String| {
        vec![
            who,
            threshold(figures.threshold),
            percent(figures.recall),
            minutes(figures.lead_median),
            minutes(figures.lead_p10),
            short(figures.false_episodes_per_node_day * NODES),
            short(figures.needless_per_node_month),
            short(figures.cost * NODES),
            less,
        ]
    };
    let mut rows = vec![
        row(
            "model, at the implied threshold".to_owned(),
            &at.model,
            String::new(),
        ),
        row(
            format!("model, at policy.at_risk ({})", short(judgement.at_risk)),
            &at.at_risk,
            String::new(),
        ),
    ];
    rows.extend(at.beside.iter().map(|one| {
        let (low, high) = (one.low * NODES, one.high * NODES);
        let less = (at.model.cost - one.figures.cost) * NODES;
        let less = format!("{} ({} to {})", short(less), short(low), short(high));
        row(one.baseline.words().to_owned(), &one.figures, less)
    }));
    (head, rows)
}

/// The model and the baselines by cost.
pub(super) fn costs(judgement: &Judgement) -> Table {
    let mut head = vec!["An incident is worth", "Implied threshold", "Model"];
    head.extend(Baseline::ALL.map(Baseline::words));
    head.push("Not dearer than the model");
    let rows = judgement.costs.iter().map(|at| {
        let mut row = vec![
            drains(at.incident_cost),
            short(at.model.threshold),
            short(at.model.cost * NODES),
        ];
        row.extend(Baseline::ALL.map(|baseline| {
            let found = at.beside.iter().find(|one| one.baseline == baseline);
            found.map_or_else(String::new, |one| short(one.figures.cost * NODES))
        }));
        let lost: Vec<&str> = at.lost_to().map(|one| one.baseline.words()).collect();
        row.push(if lost.is_empty() {
            "nothing".to_owned()
        } else {
            lost.join(", ")
        });
        row
    });
    (head, rows.collect())
}

pub(super) fn row_by_row(judgement: &Judgement) -> Table {
    let rows = &judgement.rows;
    let mut table = vec![
        vec!["Rows".to_owned(), whole(rows.rows)],
        vec!["Base rate".to_owned(), percent(rows.base_rate)],
        vec!["PR-AUC of the model".to_owned(), short(rows.pr_auc)],
    ];
    let each = judgement.pr_auc.iter();
    table.extend(each.map(|(b, area)| vec![format!("PR-AUC of {}", b.words()), short(*area)]));
    table.extend([
        vec!["Brier score".to_owned(), short(rows.brier)],
        vec![
            "Brier skill against the base rate".to_owned(),
            short(rows.brier_skill),
        ],
        vec!["Expected calibration error".to_owned(), short(rows.ece)],
    ]);
    (vec!["Figure", "Value"], table)
}

pub(super) fn reliability(judgement: &Judgement) -> Table {
    let rows = judgement.reliability.iter().map(|bin| {
        vec![
            format!("{} to {}", short(bin.from), short(bin.to)),
            whole(bin.rows),
            short(bin.predicted),
            short(bin.observed),
            format!("{} to {}", short(bin.low), short(bin.high)),
        ]
    });
    (
        vec![
            "Said",
            "Rows",
            "Mean said",
            "Came true",
            "Exact interval (95 %)",
        ],
        rows.collect(),
    )
}

/// The commonest kinds, with names made safe by `safe`; and how many kinds are left out.
pub(super) fn kinds(card: &Card, safe: impl Fn(&str) -> String) -> (Table, usize) {
    let (kinds, others) = card.commonest();
    let rows = kinds
        .into_iter()
        .map(|(kind, n)| vec![safe(&name(&kind.to_string())), whole(n)]);
    ((vec!["Seen as", "Incidents"], rows.collect()), others)
}

pub(super) fn rows(card: &Card) -> Table {
    let mut rows = vec![
        vec![
            "positive: an incident begins within the horizon".to_owned(),
            whole(card.rows.positives),
        ],
        vec!["negative: none does".to_owned(), whole(card.rows.negatives)],
    ];
    rows.extend(Dropped::ALL.map(|reason| {
        let count = card.rows.dropped.get(&reason).copied().unwrap_or(0);
        vec![format!("dropped: {}", reason.words()), whole(count)]
    }));
    (vec!["Rows", "Number"], rows)
}

pub(super) fn parts(card: &Card) -> Table {
    let rows = card.parts.iter().map(|one| {
        vec![
            one.part.as_str().to_owned(),
            format!("{:.0}", one.span.from),
            format!("{:.0}", one.span.to),
            whole(one.positives),
            whole(one.negatives),
        ]
    });
    (
        vec!["Part", "From", "To", "Positive rows", "Negative rows"],
        rows.collect(),
    )
}

/// How to read the figures.
pub(super) fn notes() -> [&'static str; 4] {
    [
        "A drain costs 1, whether it was needed or not, and averts four fifths of an incident. Costs are in drains for 100 Nodes and a day. From a probability of 1 / (0.8 × what an incident is worth) on, acting costs less than not acting.",
        "An incident is averted if an alarm that has drained its Node is still on when it comes. An alarm that lasts costs one more drain for each further horizon. Nothing is adjusted by points.",
        "Baselines act at the threshold that cost the least on the calibration part; where that was never to act, there is a dash. Intervals are of a paired bootstrap over incidents and the days of Nodes with needless drains.",
        "The exact intervals of the reliability take rows for independent. Rows before one incident are not, so the truth is wider.",
    ]
}
