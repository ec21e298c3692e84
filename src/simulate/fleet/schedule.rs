//! Random schedules of faults for training, and how training is kept apart from tests.

use std::time::Duration;

use foreshock_core::node::NodeName;
use jiff::Timestamp;

use super::collector::WITH_FEATURES;
use super::fault::{FaultEvent, FaultKind, from_ms, is_severity};
use super::random::Random;

/// Whether training may use a severity.
///
/// Tests, the demo and the documentation use multiples of 0.1 (0.8 by default); training stays at
/// least 0.01 away from each of them, so that no magnitude that a test uses was ever trained on.
pub fn is_training_severity(severity: f64) -> bool {
    let tenths = severity * 10.0;
    let off = tenths - libm::round(tenths);
    is_severity(severity) && off.abs() >= 0.1 - 1e-9
}

/// The seed of a training fleet or schedule: never one that a test, a demo or an operator would
/// write, because its highest bit is set.
pub fn training_seed(seed: u64) -> u64 {
    seed | 1 << 63
}

/// How often faults happen to a Node in a training schedule, and how bad they get.
#[derive(Clone, Debug)]
pub struct FaultRates {
    /// Expected faults of each kind per Node and day.
    pub per_day: Vec<(FaultKind, f64)>,
    /// Severities are drawn uniformly between these two, away from the values that tests use
    /// ([`is_training_severity`]).
    pub severity: (f64, f64),
    /// Lengths are drawn between these two, uniform in the logarithm; telemetry is also lost for
    /// less, and most reboot loops are a single reboot.
    pub lasts: (Duration, Duration),
}

impl Default for FaultRates {
    /// About one fault per Node in two days, of every kind, from hardly seen to fatal.
    fn default() -> Self {
        Self {
            per_day: vec![
                (FaultKind::MemoryLeak, 0.08),
                (FaultKind::SlowDisk, 0.08),
                (FaultKind::PacketLoss, 0.08),
                (FaultKind::Overheating, 0.05),
                (FaultKind::CpuStarvation, 0.08),
                (FaultKind::FillingFilesystem, 0.06),
                (FaultKind::RebootLoop, 0.07),
                (FaultKind::LostCollector, 0.05),
                (FaultKind::VanishedExporter, 0.05),
            ],
            severity: (0.11, 0.99),
            lasts: (Duration::from_secs(240), Duration::from_secs(6 * 3600)),
        }
    }
}

/// Draws a schedule for training between two times, sorted by time.
///
/// Faults of one Node do not overlap, so that each incident has one cause. Lengths are never whole
/// seconds and ramps are drawn too: no schedule that a person writes can occur. Use
/// [`training_seed`] for the seed.
pub fn random_schedule(
    seed: u64,
    nodes: &[NodeName],
    from: Timestamp,
    to: Timestamp,
    rates: &FaultRates,
) -> Vec<FaultEvent> {
    let total: f64 = rates.per_day.iter().map(|(_, rate)| rate.max(0.0)).sum();
    let mut schedule = Vec::new();
    if total <= 0.0 {
        return schedule;
    }
    let (shortest, longest) = (
        rates.lasts.0.as_secs_f64().max(1.0),
        rates.lasts.1.as_secs_f64(),
    );
    let between_ms = 86_400_000.0 / total;
    let end = to.as_millisecond();
    for (index, node) in nodes.iter().enumerate() {
        // Streams above 2^32 are schedules; those below are Nodes.
        let mut random = Random::new(seed, (1 << 32) + index as u64);
        let mut at = from.as_millisecond() + random.exponential(between_ms) as i64;
        while at < end {
            let kind = draw_kind(&mut random, rates, total);
            let (whole, severities) = match kind {
                // Most reboots are one reboot: mild enough, and too short for a second.
                FaultKind::RebootLoop if random.chance(0.6) => {
                    (random.range(650.0, 1200.0), (0.11, 0.19))
                }
                // Telemetry is lost for moments as well as for hours.
                FaultKind::LostCollector | FaultKind::VanishedExporter => {
                    (random.log_range(20.0, longest.max(30.0)), rates.severity)
                }
                FaultKind::MemoryLeak
                | FaultKind::SlowDisk
                | FaultKind::PacketLoss
                | FaultKind::Overheating
                | FaultKind::CpuStarvation
                | FaultKind::FillingFilesystem
                | FaultKind::RebootLoop => (
                    random.log_range(shortest, longest.max(shortest + 1.0)),
                    rates.severity,
                ),
            };
            let lasts = whole as u64 as f64 + random.range(0.01, 0.99);
            let severity = draw_severity(&mut random, severities);
            let ramp = lasts * random.range(0.1, 0.95);
            let lost = random.pick(WITH_FEATURES);
            schedule.push(FaultEvent {
                node: node.clone(),
                kind,
                from: from_ms(at),
                lasts: Duration::from_secs_f64(lasts),
                severity,
                ramp: kind.degrades().then(|| Duration::from_secs_f64(ramp)),
                target: (kind == FaultKind::LostCollector).then(|| lost.as_str().to_owned()),
            });
            // An hour of quiet at least, so that recovery is seen.
            at += (lasts * 1000.0) as i64 + 3_600_000 + random.exponential(between_ms) as i64;
        }
    }
    schedule.sort_by(|a, b| (a.from, &a.node).cmp(&(b.from, &b.node)));
    schedule
}

fn draw_kind(random: &mut Random, rates: &FaultRates, total: f64) -> FaultKind {
    let mut left = random.unit() * total;
    let mut last = FaultKind::SlowDisk;
    for (kind, rate) in &rates.per_day {
        if *rate > 0.0 {
            last = *kind;
            left -= rate;
            if left < 0.0 {
                break;
            }
        }
    }
    last
}

fn draw_severity(random: &mut Random, (low, high): (f64, f64)) -> f64 {
    // Eight of ten draws are allowed; the bound only guards a range without an allowed value.
    for _ in 0..64 {
        let severity = random.range(low, high);
        if is_training_severity(severity) {
            return severity;
        }
    }
    0.55
}

#[cfg(test)]
mod tests {
    use super::super::fault::after;
    use super::*;

    #[test]
    fn training_never_draws_what_a_test_uses() {
        let nodes: Vec<NodeName> = (0..200).map(|n| format!("w{n}").into()).collect();
        let from = Timestamp::UNIX_EPOCH;
        let to = after(from, Duration::from_secs(20 * 86_400));
        let schedule = random_schedule(training_seed(1), &nodes, from, to, &FaultRates::default());
        assert!(schedule.len() > 1000, "{}", schedule.len());
        for kind in FaultKind::ALL {
            assert!(schedule.iter().any(|event| event.kind == kind), "no {kind}");
        }
        for event in &schedule {
            event.check().unwrap();
            assert!(is_training_severity(event.severity), "{event:?}");
            assert!(
                event.lasts.subsec_millis() > 0,
                "whole seconds are for people"
            );
        }
        for tenth in 1..=10 {
            assert!(!is_training_severity(f64::from(tenth) / 10.0));
        }
        assert!(schedule.is_sorted_by_key(|event| event.from));
    }

    #[test]
    fn faults_of_one_node_do_not_overlap() {
        let nodes: Vec<NodeName> = vec!["a".into(), "b".into()];
        let to = after(Timestamp::UNIX_EPOCH, Duration::from_secs(200 * 86_400));
        let rates = FaultRates::default();
        let schedule = random_schedule(training_seed(5), &nodes, Timestamp::UNIX_EPOCH, to, &rates);
        for node in &nodes {
            let own: Vec<_> = schedule
                .iter()
                .filter(|event| event.node == *node)
                .collect();
            assert!(own.len() > 50);
            assert!(own.windows(2).all(|pair| pair[0].until() < pair[1].from));
        }
    }
}
