//! Whether 0.65 means 65 %: predicted beside observed shares, in bins of a tenth.

use crate::binomial::interval;
use crate::figures::Figures;

/// The lowest probability that is looked at: below, nothing is done.
const FROM: f64 = 0.3;
/// Fewer rows say little.
const ROWS_MIN: usize = 100;
/// The chance that all bins together are allowed to be wrong by.
const ALPHA: f64 = 0.05;
/// Where the service calls a Node at risk.
const AT_RISK: f64 = 0.65;

/// One bin of one problem and seed.
struct Bin {
    whose: String,
    from: f64,
    rows: usize,
    predicted: f64,
    hits: usize,
}

/// The bins of all problems and seeds.
#[derive(Default)]
pub(crate) struct Reliability {
    bins: Vec<Bin>,
    /// Problems and seeds in which no row is at risk.
    silent: Vec<String>,
}

impl Reliability {
    /// Takes the probabilities of one problem and seed, and what then happened.
    pub(crate) fn add(&mut self, whose: &str, probabilities: &[f64], labels: &[bool]) {
        if probabilities.iter().all(|p| *p < AT_RISK) {
            self.silent.push(whose.to_owned());
        }
        for tenth in 0..10 {
            let within = |p: f64| ((p * 10.0) as usize).min(9) == tenth;
            let rows = probabilities.iter().zip(labels);
            let rows: Vec<(f64, bool)> = rows
                .filter(|(p, _)| **p >= FROM && within(**p))
                .map(|(p, y)| (*p, *y))
                .collect();
            if rows.len() >= ROWS_MIN {
                self.bins.push(Bin {
                    whose: whose.to_owned(),
                    from: f64::from(tenth as u8) / 10.0,
                    rows: rows.len(),
                    predicted: rows.iter().map(|row| row.0).sum::<f64>() / rows.len() as f64,
                    hits: rows.iter().filter(|row| row.1).count(),
                });
            }
        }
    }

    /// Prints every bin with the interval of what was observed, and counts those that are off.
    pub(crate) fn print(&self, figures: &mut Figures) {
        let alpha = ALPHA / self.bins.len().max(1) as f64;
        println!(
            "\nReliability: each bin of a tenth from {FROM} up with at least {ROWS_MIN} rows; exact binomial \
             intervals, {} % for all {} bins together",
            100.0 * (1.0 - ALPHA),
            self.bins.len(),
        );
        println!("\n| problem, seed | bin | rows | mean prediction | observed | interval | |");
        println!("|---|---|---|---|---|---|---|");
        let mut off = 0;
        for bin in &self.bins {
            let (low, high) = interval(bin.hits, bin.rows, alpha);
            let within = (low..=high).contains(&bin.predicted);
            off += usize::from(!within);
            println!(
                "| {} | {:.1}–{:.1} | {} | {:.3} | {:.3} | {low:.3}–{high:.3} | {} |",
                bin.whose,
                bin.from,
                bin.from + 0.1,
                bin.rows,
                bin.predicted,
                bin.hits as f64 / bin.rows as f64,
                if within { "within" } else { "off" },
            );
        }
        if self.silent.is_empty() {
            println!("\nThere are rows of {AT_RISK} or more in every problem and seed.");
        } else {
            println!("\nNo row reaches {AT_RISK} in: {}.", self.silent.join(", "));
        }
        figures.say("reliability_bins", self.bins.len() as f64);
        figures.at_most("reliability_bins_off", off as f64, 0.0);
    }
}
