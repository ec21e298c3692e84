//! How an operator would count: anomalies seen, how long before, and how often for nothing.

use std::collections::BTreeMap;

use super::machines::Machine;
use super::task::{HORIZON, Row};

/// False alarms a machine and day that all scores are compared at.
pub(crate) const FALSE_A_DAY: f64 = 1.0;
/// Minutes without an alarm that end an episode.
const QUIET: usize = 30;

/// What a score sees at some threshold.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sight {
    /// Anomalies that an alarm fell on, or came before by no more than the horizon.
    pub(crate) seen: usize,
    /// Anomalies.
    pub(crate) events: usize,
    /// Median minutes from the first alarm to the start, of those that were seen; negative is late.
    pub(crate) lead: f64,
    /// Episodes of alarm near no anomaly, a machine and day.
    pub(crate) false_a_day: f64,
}

/// What the score sees at the lowest threshold that keeps false alarms to [`FALSE_A_DAY`].
pub(crate) fn sight(machines: &[Machine], rows: &[Row], scores: &[f64]) -> Sight {
    let mut levels: Vec<f64> = scores.to_vec();
    levels.sort_by(|a, b| b.total_cmp(a));
    // Every two-hundredth of the first quarter: nobody wants more alarms than that.
    let candidates = (0..200).filter_map(|i| levels.get(i * levels.len() / 800));
    let mut best = None;
    for threshold in candidates {
        let sight = at(machines, rows, scores, *threshold);
        if sight.false_a_day > FALSE_A_DAY {
            break;
        }
        best = Some(sight);
    }
    best.unwrap_or_default()
}

fn at(machines: &[Machine], rows: &[Row], scores: &[f64], threshold: f64) -> Sight {
    let mut alarms: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut minutes: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for (row, score) in rows.iter().zip(scores) {
        let span = minutes
            .entry(row.machine)
            .or_insert((row.minute, row.minute));
        *span = (span.0.min(row.minute), span.1.max(row.minute));
        if *score >= threshold {
            alarms.entry(row.machine).or_default().push(row.minute);
        }
    }
    let (mut sight, mut leads, mut wrong) = (Sight::default(), Vec::new(), 0);
    for (machine, (from, to)) in &minutes {
        let alarms = alarms.get(machine).map_or(&[][..], Vec::as_slice);
        let events = &machines[*machine].events;
        let near = |event: &(usize, usize)| (event.0.saturating_sub(HORIZON), event.1);
        for event in events.iter().filter(|e| (*from..=*to).contains(&e.0)) {
            let (from, to) = near(event);
            sight.events += 1;
            if let Some(first) = alarms.iter().find(|at| (from..to).contains(at)) {
                sight.seen += 1;
                leads.push(event.0 as f64 - *first as f64);
            }
        }
        for episode in alarms.chunk_by(|a, b| b - a <= QUIET) {
            let (first, last) = (episode[0], episode[episode.len() - 1]);
            let meets = |event| {
                let (from, to) = near(event);
                first < to && from <= last
            };
            wrong += usize::from(!events.iter().any(meets));
        }
    }
    let days: f64 = minutes
        .values()
        .map(|(from, to)| (to - from + 1) as f64 / 1_440.0)
        .sum();
    leads.sort_by(f64::total_cmp);
    sight.lead = leads.get(leads.len() / 2).copied().unwrap_or(f64::NAN);
    sight.false_a_day = f64::from(wrong as u32) / days.max(f64::MIN_POSITIVE);
    sight
}
