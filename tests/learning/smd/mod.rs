//! Real servers: the Server Machine Dataset, judged on later time and on machines never seen.

mod bootstrap;
mod columns;
mod events;
mod machines;
mod task;

use std::path::Path;

use foreshock::model::boost::Settings;
use foreshock::model::choose::{self, Best, Way};
use foreshock::model::learn::Slices;
use foreshock::model::measure::average_precision;

use self::columns::Columns;
use self::events::{FALSE_A_DAY, sight};
use self::machines::Machine;
use self::task::{HORIZON, Row, Task, slice};
use crate::compare::TREES_MAX;
use crate::figures::{Figures, mean};
use crate::ours;
use crate::theirs::{Given, Python};

/// One minute of so many is learned from: neighbours are much alike.
const EVERY: usize = 5;
/// Shares of the labelled time at which choosing, calibrating and judging begin.
const LATER: [f64; 3] = [0.5, 0.6, 0.7];

/// How machines and time are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Split {
    /// Learned from the first half of each machine, judged by its last part.
    Time,
    /// Learned from the others but one, chosen by that one, calibrated by the last part of both, judged by
    /// one machine never seen.
    Unseen,
}

/// The rows of one division.
struct Division {
    train: Vec<Row>,
    validation: Vec<Row>,
    calibration: Vec<Row>,
    test: Vec<Row>,
}

/// Scores of the same rows, side by side.
#[derive(Default)]
struct Scored {
    rows: Vec<Row>,
    ours: Vec<f64>,
    lightgbm: Vec<f64>,
    largest: Vec<f64>,
}

/// Learns on the machines of a folder, prints the tables and takes the figures.
///
/// # Errors
///
/// The folder holds no machines, or a learner fails.
pub(crate) fn report(folder: &Path, python: &Python, figures: &mut Figures) -> anyhow::Result<()> {
    let machines = machines::read(folder)?;
    let columns: Vec<Columns> = machines.iter().map(Columns::of).collect();
    println!("\nServer Machine Dataset: {} machines\n", machines.len());
    println!("| machine | labelled days | anomalies | anomalous |");
    println!("|---|---|---|---|");
    for machine in &machines {
        let (from, to) = machine.labelled();
        let days = (to - from) as f64 / 1_440.0;
        let bad = machine
            .anomalous
            .iter()
            .filter(|label| **label == Some(true));
        let share = bad.count() as f64 / (to - from).max(1) as f64;
        println!(
            "| {} | {days:.1} | {} | {share:.3} |",
            machine.name,
            machine.events.len()
        );
    }
    let mut judged = Vec::new();
    for split in [Split::Time, Split::Unseen] {
        for task in Task::ALL {
            let name = format!("{}_{}", split.as_str(), task.as_str());
            let mut scored = Scored::default();
            for division in split.divisions(task, &machines) {
                let best = scored.add(&columns, &division, python)?;
                say_ways(&name, &best);
            }
            judged.push((split, task, name, scored));
        }
    }
    println!(
        "\n| judged by | base rate | ours | LightGBM | largest deviation | ours − largest deviation, 95 % |"
    );
    println!("|---|---|---|---|---|---|");
    for (split, task, name, scored) in &judged {
        scored.areas(*split, *task, name, figures);
    }
    println!(
        "\nAt {FALSE_A_DAY} false alarm a machine and day: anomalies seen, median lead in minutes\n"
    );
    println!("| judged by | anomalies | ours | LightGBM | largest deviation |");
    println!("|---|---|---|---|---|");
    for (_, _, name, scored) in &judged {
        scored.events(name, &machines, figures);
    }
    Ok(())
}

fn say_ways(name: &str, best: &Best) {
    let each = best.tried.iter().enumerate().map(|(at, tried)| {
        let mark = if at == best.chosen { " (chosen)" } else { "" };
        let (name, loss, pr_auc, trees) = (&tried.name, tried.loss, tried.pr_auc, tried.trees);
        format!("{name} {loss:.4} {pr_auc:.3} {trees}{mark}")
    });
    println!("{name}: {}", each.collect::<Vec<_>>().join(", "));
}

impl Split {
    fn as_str(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Unseen => "unseen",
        }
    }

    fn divisions(self, task: Task, machines: &[Machine]) -> Vec<Division> {
        let n = machines.len();
        // Shares of the labelled time; nothing that is learned from looks into what follows.
        let part = |machine: usize, from: f64, to: f64| {
            let (first, end) = machines[machine].labelled();
            let at = |share: f64| first + (share * (end - first) as f64) as usize;
            let to = if to < 1.0 { at(to) - HORIZON } else { end };
            task.rows(machines, machine, at(from), to)
        };
        let thin = |rows: Vec<Row>| rows.into_iter().step_by(EVERY).collect::<Vec<Row>>();
        match self {
            Self::Time => {
                let all =
                    |from: f64, to: f64| (0..n).flat_map(move |m| part(m, from, to)).collect();
                let [choose, calibrate, judge] = LATER;
                vec![Division {
                    train: thin(all(0.0, choose)),
                    validation: all(choose, calibrate),
                    calibration: all(calibrate, judge),
                    test: all(judge, 1.0),
                }]
            }
            Self::Unseen => {
                let of = |judged: usize| {
                    let decides = (judged + n - 1) % n;
                    let others = (1..n).map(|step| (judged + step) % n);
                    let teach = others.clone().filter(|m| *m != decides);
                    let calibrate = LATER[2];
                    Division {
                        train: thin(teach.flat_map(|m| part(m, 0.0, calibrate)).collect()),
                        validation: part(decides, 0.0, calibrate),
                        calibration: others.flat_map(|m| part(m, calibrate, 1.0)).collect(),
                        test: part(judged, 0.0, 1.0),
                    }
                };
                (0..n).map(of).collect()
            }
        }
    }
}

/// Two of the usual ways to learn from all columns, and two from the summaries alone.
fn ways(n_columns: usize) -> Vec<Way> {
    let mut ways = choose::ways(TREES_MAX);
    ways.retain(|way| ["usual", "half of the columns"].contains(&way.name.as_str()));
    let summaries = |name: &str, depth, l2, leaf_rows_min| Way {
        name: name.to_owned(),
        settings: Settings {
            depth,
            rate: 0.05,
            l2,
            leaf_rows_min,
            ..ways[0].settings.clone()
        },
        columns: Some(Columns::summaries(n_columns)),
        ..ways[0].clone()
    };
    let alone = [
        summaries("summaries", 3, 20.0, 100),
        summaries("summaries, shallow", 2, 50.0, 200),
    ];
    ways.extend(alone);
    ways
}

impl Scored {
    fn add(&mut self, columns: &[Columns], of: &Division, python: &Python) -> anyhow::Result<Best> {
        let slices = Slices {
            train: slice(columns, &of.train),
            validation: slice(columns, &of.validation),
            calibration: slice(columns, &of.calibration),
            test: slice(columns, &of.test),
        };
        let width = slices.train.values.ncols();
        let rising = Columns::summaries(width);
        let best = ours::learn(&slices, Vec::new(), &rising, &ways(width))?;
        let said = python.learn(&["lightgbm"], Given::of(&slices))?.remove(0);
        self.ours
            .extend(ours::probabilities(&best.model, &slices.test.values));
        self.lightgbm.extend(said.probabilities);
        let deviation = |row: &Row| columns[row.machine].largest()[row.minute];
        self.largest.extend(of.test.iter().map(deviation));
        self.rows.extend(&of.test);
        Ok(best)
    }

    fn areas(&self, split: Split, task: Task, name: &str, figures: &mut Figures) {
        let labels: Vec<bool> = self.rows.iter().map(|row| row.label).collect();
        let base = labels.iter().filter(|label| **label).count() as f64 / labels.len() as f64;
        let each = [&self.ours, &self.lightgbm, &self.largest];
        let [ours, lightgbm, largest] = each.map(|scores| average_precision(scores, &labels));
        let (low, high) = bootstrap::difference(&self.rows, &self.ours, &self.largest);
        println!(
            "| {name} | {base:.3} | {ours:.3} | {lightgbm:.3} | {largest:.3} | {low:+.3} to {high:+.3} |"
        );
        let figure = |what: &str| format!("smd_{name}_{what}");
        figures.say(&figure("base_rate"), base);
        figures.say(&figure("pr_auc"), ours);
        figures.say(&figure("pr_auc_lightgbm"), lightgbm);
        figures.say(&figure("pr_auc_largest_deviation"), largest);
        let bounded = (split, task) == (Split::Unseen, Task::Now);
        difference(figures, &figure("difference"), (low, high), bounded);
        if split == Split::Time {
            return;
        }
        // Models of different machines share no scale: each is also judged by itself.
        let places = bootstrap::by_machine(&self.rows);
        let alone = |scores: &[f64]| {
            mean(places.values().map(|places| {
                let scores: Vec<f64> = places.iter().map(|at| scores[*at]).collect();
                let labels: Vec<bool> = places.iter().map(|at| labels[*at]).collect();
                average_precision(&scores, &labels)
            }))
        };
        let [ours, lightgbm, largest] = each.map(|scores| alone(scores));
        let (low, high) = bootstrap::difference_of_means(&self.rows, &self.ours, &self.largest);
        println!(
            "| {name}, mean of the machines | | {ours:.3} | {lightgbm:.3} | {largest:.3} | \
             {low:+.3} to {high:+.3} |"
        );
        figures.say(&figure("machines_pr_auc"), ours);
        figures.say(&figure("machines_pr_auc_lightgbm"), lightgbm);
        figures.say(&figure("machines_pr_auc_largest_deviation"), largest);
        difference(
            figures,
            &figure("machines_difference"),
            (low, high),
            bounded,
        );
    }

    fn events(&self, name: &str, machines: &[Machine], figures: &mut Figures) {
        let each = [&self.ours, &self.lightgbm, &self.largest];
        let [ours, lightgbm, largest] = each.map(|scores| sight(machines, &self.rows, scores));
        let words = |sight: events::Sight| format!("{}, {:+.0} min", sight.seen, sight.lead);
        println!(
            "| {name} | {} | {} | {} | {} |",
            ours.events,
            words(ours),
            words(lightgbm),
            words(largest)
        );
        let recall = |sight: events::Sight| sight.seen as f64 / sight.events.max(1) as f64;
        figures.say(&format!("smd_{name}_event_recall"), recall(ours));
        figures.say(
            &format!("smd_{name}_event_recall_largest_deviation"),
            recall(largest),
        );
        figures.say(&format!("smd_{name}_lead_minutes"), ours.lead);
        figures.say(&format!("smd_{name}_false_alarms_a_day"), ours.false_a_day);
    }
}

/// An interval; where it is bounded it must not lie wholly below 0, for that would mean: worse than no
/// model at all.
fn difference(figures: &mut Figures, name: &str, (low, high): (f64, f64), bounded: bool) {
    figures.say(&format!("{name}_low"), low);
    if bounded {
        figures.at_least(&format!("{name}_high"), high, 0.0);
    } else {
        figures.say(&format!("{name}_high"), high);
    }
}
