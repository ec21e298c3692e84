//! The card as one HTML page: inline style and plots, no script.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::super::judge::{AtCost, Judgement};
use super::markdown::{self, NODES, Table};
use super::plot::{Axis, Plot, bars};
use super::text::{html, minutes, name, percent, short, whole};
use super::{Card, Effect};

const STYLE: &str = include_str!("report.css");
const SIZE: (f64, f64) = (460.0, 290.0);
/// Width of a figure over the whole page.
const WHOLE: f64 = 1_010.0;
const SMALL: (f64, f64) = (300.0, 190.0);
/// Features whose effect is drawn by value.
const CURVES: usize = 6;
/// Minutes of a bar in the plot of lead times.
const LEAD_BAR: f64 = 2.0;

pub(super) fn card(card: &Card) -> String {
    let title = html(&name(&card.model));
    // The one thing in the page that a policy could refuse is its style: it is allowed by its digest.
    let digest = STANDARD.encode(Sha256::digest(STYLE));
    let mut page = Page(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}: report card</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
    ));
    page.head(card);
    page.judgement("j", "On the last part of the history", &card.judgement);
    page.effects(&card.largest());
    if let Some(unseen) = &card.unseen_nodes {
        page.judgement("u", "On Nodes that were left out of training", unseen);
    }
    page.add("<section><h2>Rows and incidents</h2><div class=\"tables\">");
    let (kinds, others) = markdown::kinds(card, str::to_owned);
    page.table(&kinds);
    if others > 0 {
        page.paragraph(&format!("And {others} more kinds."));
    }
    page.table(&markdown::rows(card));
    page.add("</div>");
    page.table(&markdown::parts(card));
    page.add("</section>\n<section class=\"notes\"><h2>How to read this</h2>");
    markdown::notes()
        .iter()
        .for_each(|note| page.paragraph(note));
    page.add("</section>\n</body>\n</html>\n");
    page.0
}

struct Page(String);

impl Page {
    fn add(&mut self, safe: &str) {
        self.0.push_str(safe);
    }

    fn paragraph(&mut self, text: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "<p>{}</p>", html(text));
    }

    fn head(&mut self, card: &Card) {
        let state = if card.refusals.is_empty() {
            "good"
        } else {
            "held"
        };
        let verdict = html(card.verdict());
        let model = html(&name(&card.model));
        let made = format!("{:.0}", card.made);
        let _ = write!(
            self.0,
            "<header><p class=\"over\">Report card, made {made}</p><h1>{model}</h1></header>\n<section class=\"verdict {state}\"><p>{verdict}</p>"
        );
        if !card.refusals.is_empty() {
            self.add("<ul>");
            for refusal in &card.refusals {
                let _ = write!(self.0, "<li>{}</li>", html(refusal));
            }
            self.add("</ul>");
        }
        self.add("</section>\n");
        self.add("<dl class=\"facts\">");
        let judgement = &card.judgement;
        let mut facts = vec![
            ("incidents judged", whole(judgement.incidents)),
            (
                "Nodes befallen",
                format!("{} of {}", judgement.nodes_befallen, judgement.nodes),
            ),
        ];
        if let Some(at) = judgement.at_operators_cost() {
            facts.extend([
                ("incidents averted", percent(at.model.recall)),
                ("lead time, median", minutes(at.model.lead_median)),
                (
                    "needless drains / Node and month",
                    short(at.model.needless_per_node_month),
                ),
            ]);
        }
        facts.extend([
            ("threshold your costs imply", short(judgement.threshold)),
            ("policy.at_risk", short(judgement.at_risk)),
        ]);
        for (what, value) in facts {
            let _ = write!(self.0, "<div><dt>{what}</dt><dd>{value}</dd></div>");
        }
        self.add("</dl>\n");
        self.paragraph(&markdown::history(card));
    }

    fn judgement(&mut self, id: &str, title: &str, judgement: &Judgement) {
        let _ = write!(self.0, "<section><h2>{title}</h2>");
        self.paragraph(&markdown::watched(judgement));
        if let Some(at) = judgement.at_operators_cost() {
            let worth = markdown::drains(at.incident_cost);
            let _ = write!(self.0, "<h3>Where an incident is worth {worth}</h3>");
            self.table(&markdown::beside(judgement, at));
        }
        self.add("<div class=\"plots\">");
        if let Some(at) = judgement.at_operators_cost() {
            self.cost_by_threshold(id, judgement, at);
        }
        self.precision_recall(id, judgement);
        self.reliability(id, judgement);
        self.lead_times(id, judgement);
        self.add(
            "</div><h3>By what an incident is worth: cost for 100 Nodes and a day, in drains</h3>",
        );
        self.table(&markdown::costs(judgement));
        self.add("<div class=\"tables\">");
        self.table(&markdown::row_by_row(judgement));
        self.table(&markdown::reliability(judgement));
        self.add("</div></section>\n");
    }

    fn table(&mut self, (head, rows): &Table) {
        self.add("<div class=\"wide\"><table><thead><tr>");
        for cell in head {
            let _ = write!(self.0, "<th scope=\"col\">{}</th>", html(cell));
        }
        self.add("</tr></thead><tbody>");
        for row in rows {
            self.add("<tr>");
            for cell in row {
                let _ = write!(self.0, "<td>{}</td>", html(cell));
            }
            self.add("</tr>");
        }
        self.add("</tbody></table></div>\n");
    }

    fn figure(&mut self, title: &str, legend: &[(&str, String)], plot: &str) {
        let _ = write!(
            self.0,
            "<figure><figcaption>{}</figcaption><ul class=\"legend\">",
            html(title)
        );
        for (class, what) in legend {
            let _ = write!(
                self.0,
                "<li><i class=\"key {class}\"></i>{}</li>",
                html(what)
            );
        }
        let _ = writeln!(self.0, "</ul>{plot}</figure>");
    }

    fn cost_by_threshold(&mut self, id: &str, judgement: &Judgement, at: &AtCost) {
        let points: Vec<(f64, f64)> = judgement
            .by_threshold
            .iter()
            .map(|by| (by.threshold, judgement.cost(by, at.incident_cost) * NODES))
            .collect();
        let levels: Vec<f64> = at
            .beside
            .iter()
            .map(|one| one.figures.cost * NODES)
            .collect();
        // What acting at next to no probability costs says nothing about the rest, and would flatten it.
        let highest = levels.iter().fold(at.model.cost * NODES, |a, b| a.max(*b)) * 1.5;
        let mut plot = Plot::new(
            &format!("{id}-cost"),
            "Cost against threshold",
            SIZE,
            Axis::share("threshold (probability)"),
            Axis::new("drains / 100 Nodes and day", 0.0, highest),
        );
        let mut legend = vec![("curve", "the model".to_owned())];
        for ((one, level), class) in at.beside.iter().zip(&levels).zip(["b0", "b1", "b2", "b3"]) {
            plot.level(*level, class);
            legend.push((
                class,
                format!("{}: {}", one.baseline.words(), short(*level)),
            ));
        }
        plot.upright(judgement.threshold, "implied");
        plot.upright(judgement.at_risk, "at-risk");
        plot.line(points, "curve");
        legend.push((
            "implied",
            format!("implied threshold {}", short(judgement.threshold)),
        ));
        legend.push((
            "at-risk",
            format!("policy.at_risk {}", short(judgement.at_risk)),
        ));
        let title = format!(
            "Cost against threshold, an incident worth {}",
            markdown::drains(at.incident_cost)
        );
        self.figure(&title, &legend, &plot.finish());
    }

    fn precision_recall(&mut self, id: &str, judgement: &Judgement) {
        let mut plot = Plot::new(
            &format!("{id}-pr"),
            "Precision against recall",
            SIZE,
            Axis::share("recall (share of the positive rows)"),
            Axis::share("precision"),
        );
        let base = judgement.rows.base_rate;
        plot.level(base, "base");
        let start = judgement.curve.first().map(|point| (0.0, point.precision));
        plot.line(
            start
                .into_iter()
                .chain(judgement.curve.iter().map(|p| (p.recall, p.precision))),
            "curve",
        );
        let mut legend = vec![
            (
                "curve",
                format!("the model, area {}", short(judgement.rows.pr_auc)),
            ),
            ("base", format!("base rate {}", percent(base))),
        ];
        let marks = [
            (
                "implied",
                "implied mark",
                judgement.threshold,
                "implied threshold",
            ),
            (
                "at-risk",
                "at-risk mark",
                judgement.at_risk,
                "policy.at_risk",
            ),
        ];
        for (class, key, threshold, what) in marks {
            // The last point of the curve that is still at or above it.
            let at = judgement
                .curve
                .iter()
                .rfind(|point| point.threshold >= threshold);
            if let Some(at) = at {
                let says = format!(
                    "{what} {}: precision {}, recall {}",
                    short(threshold),
                    short(at.precision),
                    short(at.recall)
                );
                plot.dot((at.recall, at.precision), class, &says);
                legend.push((key, format!("{what} {}", short(threshold))));
            }
        }
        self.figure(
            "Precision against recall, row by row",
            &legend,
            &plot.finish(),
        );
    }

    fn reliability(&mut self, id: &str, judgement: &Judgement) {
        let mut plot = Plot::new(
            &format!("{id}-rel"),
            "Reliability",
            SIZE,
            Axis::share("said (mean of the bin)"),
            Axis::share("came true"),
        );
        plot.line([(0.0, 0.0), (1.0, 1.0)], "base");
        for bin in &judgement.reliability {
            plot.whisker(bin.predicted, (bin.low, bin.high), "whisker");
        }
        for bin in &judgement.reliability {
            let says = format!(
                "said {}, came true {} of {} rows ({} to {})",
                short(bin.predicted),
                short(bin.observed),
                whole(bin.rows),
                short(bin.low),
                short(bin.high)
            );
            plot.dot((bin.predicted, bin.observed), "point", &says);
        }
        let legend = [
            (
                "point",
                "share that came true, with its exact 95 % interval".to_owned(),
            ),
            ("base", "as said".to_owned()),
        ];
        let title = format!(
            "Reliability, calibration error {}",
            short(judgement.rows.ece)
        );
        self.figure(&title, &legend, &plot.finish());
    }

    fn lead_times(&mut self, id: &str, judgement: &Judgement) {
        let leads: Vec<f64> = judgement
            .leads
            .iter()
            .map(|lead| lead.as_secs_f64() / 60.0)
            .collect();
        let longest = leads.iter().copied().fold(LEAD_BAR, f64::max);
        // What is capped at the horizon belongs to the last bar, not to one of its own.
        let n = (libm::ceil(longest / LEAD_BAR) as usize).clamp(1, 200);
        let mut counts = vec![0u32; n];
        for lead in &leads {
            counts[((lead / LEAD_BAR) as usize).min(n - 1)] += 1;
        }
        let most = f64::from(counts.iter().copied().max().unwrap_or(0)).max(1.0);
        let mut plot = Plot::new(
            &format!("{id}-lead"),
            "Lead time",
            SIZE,
            Axis::new(
                "minutes from the drain to the incident",
                0.0,
                n as f64 * LEAD_BAR,
            ),
            Axis::new("incidents", 0.0, most * 1.05),
        );
        for (i, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let (from, to) = (i as f64 * LEAD_BAR, (i + 1) as f64 * LEAD_BAR);
            plot.bar(
                (from, to),
                f64::from(*count),
                "fill",
                &format!("{from} to {to} min: {count}"),
            );
        }
        let mut legend = vec![(
            "fill",
            format!("{} averted of {}", leads.len(), judgement.incidents),
        )];
        if let Some(at) = judgement.at_operators_cost() {
            for (class, lead, what) in [
                ("implied", at.model.lead_median, "median"),
                ("at-risk", at.model.lead_p10, "9 of 10 at least"),
            ] {
                if let Some(lead) = lead {
                    plot.upright(lead.as_secs_f64() / 60.0, class);
                    legend.push((class, format!("{what} {}", minutes(Some(lead)))));
                }
            }
        }
        self.figure(
            "Lead time at the implied threshold",
            &legend,
            &plot.finish(),
        );
    }

    fn effects(&mut self, effects: &[&Effect]) {
        if effects.is_empty() {
            return;
        }
        self.add("<section><h2>What the features do</h2><div class=\"whole\">");
        let named = effects.iter().map(|one| (name(&one.feature), one.mean));
        let plot = bars("Effect of each feature", WHOLE, &named.collect::<Vec<_>>());
        self.figure(
            "How much each feature moves a score, in log-odds",
            &[],
            &plot,
        );
        self.add("</div><div class=\"small\">");
        let curves = effects
            .iter()
            .filter(|one| one.curve.len() > 1)
            .take(CURVES);
        for (i, effect) in curves.enumerate() {
            let ends = |of: fn(&(f64, f64)) -> f64| {
                let values = effect
                    .curve
                    .iter()
                    .map(of)
                    .filter(|value| value.is_finite());
                values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| {
                    (a.min(v), b.max(v))
                })
            };
            let ((x0, x1), (y0, y1)) = (ends(|p| p.0), ends(|p| p.1));
            let margin = (y1 - y0) * 0.08;
            let mut plot = Plot::new(
                &format!("e-{i}"),
                &effect.feature,
                SMALL,
                Axis::new(name(&effect.unit), x0, x1),
                Axis::new("log-odds", y0 - margin, y1 + margin),
            );
            plot.level(0.0, "base");
            plot.line(effect.curve.iter().copied(), "curve");
            self.figure(&name(&effect.feature), &[], &plot.finish());
        }
        self.add("</div></section>\n");
    }
}
