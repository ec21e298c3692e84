//! What was seen of one Node, sample by sample in the order of time, kept as stretches.
//!
//! A week of a state that is mostly off is a handful of stretches, so a history of any length can be read
//! in slices and forgotten.

use std::time::Duration;

use foreshock_core::time::{after, since};
use jiff::Timestamp;

/// Samples that are missing for no longer than this are taken as the ones around them: it is how long
/// Prometheus itself looks back.
pub const BRIDGE: Duration = Duration::from_secs(300);
/// A boot time may stand so much before the last sample of the boot before it: clocks of machines differ.
const BOOT_SLACK: f64 = 60.0;
/// The kernel works its boot time out of two clocks, so it trembles; a machine is not up again sooner.
const BOOT_APART: f64 = 10.0;

/// A stretch of time: `from` belongs to it, `to` does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Its begin.
    pub from: Timestamp,
    /// Its end, never before the begin.
    pub to: Timestamp,
}

impl Span {
    /// Whether a time belongs to it.
    pub fn contains(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.to
    }

    /// How long it lasts.
    pub fn lasts(&self) -> Duration {
        since(self.from, self.to)
    }
}

/// What a sample says of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is not so.
    Off,
    /// It is so, and not yet for long enough to count: an alert in its pending time.
    Pending,
    /// It is so.
    On,
}

/// A stretch in which a state was pending or on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// From the first sample to one step after the last.
    pub span: Span,
    /// It was on, not only pending.
    pub full: bool,
    /// A sample shortly before it said off, so that it began when it was first seen.
    pub begin_seen: bool,
}

/// One state of one Node.
#[derive(Clone, Debug)]
pub struct Track {
    step: Duration,
    bridge: Duration,
    absent_is_off: bool,
    last: Option<(Timestamp, State)>,
    on: Vec<Stretch>,
    seen: Vec<Span>,
}

impl Track {
    /// A state that has a sample while it is off, too: no sample means that nobody looked.
    pub fn told(step: Duration) -> Self {
        Self {
            step,
            bridge: BRIDGE.max(step * 2),
            absent_is_off: false,
            last: None,
            on: Vec::new(),
            seen: Vec::new(),
        }
    }

    /// A state that only has samples while it is not off, as `ALERTS` has.
    pub fn while_on(step: Duration) -> Self {
        Self {
            bridge: step * 2,
            absent_is_off: true,
            ..Self::told(step)
        }
    }

    /// Takes a sample. One that is not later than the last is not news: slices may overlap.
    pub fn see(&mut self, at: Timestamp, state: State) {
        if self.last.is_some_and(|(last, _)| at <= last) {
            return;
        }
        let before = self.last.replace((at, state));
        let before = before.filter(|(last, _)| since(*last, at) <= self.bridge);
        let end = after(at, self.step);
        match self.seen.last_mut() {
            Some(span) if before.is_some() => span.to = end,
            _ => self.seen.push(Span { from: at, to: end }),
        }
        // An off ends the stretch at its own time, not a step after the last on.
        if let (State::Off, Some(stretch)) = (state, self.on.last_mut()) {
            stretch.span.to = stretch.span.to.min(at);
        }
        if state == State::Off {
            return;
        }
        let goes_on = before.is_some_and(|(_, state)| state != State::Off);
        match self.on.last_mut() {
            Some(stretch) if goes_on => {
                stretch.span.to = end;
                stretch.full |= state == State::On;
            }
            _ => self.on.push(Stretch {
                span: Span { from: at, to: end },
                full: state == State::On,
                begin_seen: self.absent_is_off || before.is_some(),
            }),
        }
    }

    /// The stretches in which it was pending or on, in order.
    pub fn stretches(&self) -> &[Stretch] {
        &self.on
    }

    /// When anybody looked, in order.
    pub fn seen(&self) -> &[Span] {
        &self.seen
    }
}

/// The boots of one Node, from its boot time and not from how often that changes: the boot time trembles by
/// a second, and it moves with the clock, and neither is a reboot.
#[derive(Clone, Debug, Default)]
pub struct Boots {
    last: Option<(Timestamp, f64)>,
    boots: Vec<Timestamp>,
}

impl Boots {
    /// Takes a sample: the time of the last boot, in seconds since 1970.
    pub fn see(&mut self, at: Timestamp, boot: f64) {
        if !boot.is_finite() || self.last.is_some_and(|(last, _)| at <= last) {
            return;
        }
        let Some((before, boot_before)) = self.last.replace((at, boot)) else {
            return;
        };
        // A machine that has booted did so after it was last seen running. A clock that was set moves the
        // boot time to anywhere.
        let new = boot > boot_before + BOOT_APART;
        let after_last_seen = boot >= before.as_second() as f64 - BOOT_SLACK;
        let until_now = boot <= at.as_second() as f64 + BOOT_SLACK;
        if new && after_last_seen && until_now {
            let boot = Timestamp::from_second(boot as i64).unwrap_or(at);
            self.boots.push(boot.clamp(before, at));
        }
    }

    /// When it booted, in order; the boot before the first sample is not among them.
    pub fn boots(&self) -> &[Timestamp] {
        &self.boots
    }
}

/// When Nodes of one name existed, from the time of their creation.
#[derive(Clone, Debug)]
pub struct Life {
    step: Duration,
    lives: Vec<(f64, Span)>,
}

impl Life {
    /// Of a Node of which nothing is known yet.
    pub fn new(step: Duration) -> Self {
        Self {
            step,
            lives: Vec::new(),
        }
    }

    /// Takes a sample: when the Node of this name was created, in seconds since 1970.
    pub fn see(&mut self, at: Timestamp, created: f64) {
        if !created.is_finite() {
            return;
        }
        let end = after(at, self.step);
        match self.lives.last_mut() {
            Some((_, span)) if end <= span.to => {}
            // The exporter may have been away in between; the Node was not.
            Some((same, span)) if (*same - created).abs() < 1.0 => span.to = end,
            _ => self.lives.push((created, Span { from: at, to: end })),
        }
    }

    /// When it was created or deleted within a history, in order. One that is not seen any more when the
    /// history ends was deleted, for all that is known.
    pub fn changes(&self, history: Span) -> Vec<Timestamp> {
        let mut changes = Vec::new();
        for (created, span) in &self.lives {
            let created = Timestamp::from_second(*created as i64).unwrap_or(span.from);
            if history.contains(created) {
                changes.push(created);
            }
            if since(span.to, history.to) > BRIDGE.max(self.step * 2) {
                changes.push(span.to);
            }
        }
        changes
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) const MINUTE: Duration = Duration::from_secs(60);

    /// Minute `m` of the tests' day.
    pub(crate) fn at(m: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_040 + m * 60).unwrap()
    }

    pub(crate) fn span(from: i64, to: i64) -> Span {
        Span {
            from: at(from),
            to: at(to),
        }
    }

    fn track(mut track: Track, samples: &str) -> Vec<(i64, i64, bool, bool)> {
        for (m, sample) in samples.chars().enumerate() {
            let state = match sample {
                '.' => State::Off,
                'p' => State::Pending,
                '#' => State::On,
                _ => continue,
            };
            track.see(at(m as i64), state);
        }
        let minute = |t: Timestamp| (t.as_second() - at(0).as_second()) / 60;
        let each = track.stretches().iter();
        each.map(|s| (minute(s.span.from), minute(s.span.to), s.full, s.begin_seen))
            .collect()
    }

    #[test]
    fn samples_become_stretches() {
        for (samples, expected) in [
            ("", &[][..]),
            ("....", &[]),
            (".##.", &[(1, 3, true, true)]),
            ("##", &[(0, 2, true, false)]),
            // Five minutes without a sample are bridged, six are not.
            (".#    #.", &[(1, 7, true, true)]),
            (".#     #.", &[(1, 2, true, true), (7, 8, true, false)]),
            // Nobody saw how long it went on; off is off from then on.
            (".#  ..", &[(1, 2, true, true)]),
            (".pp##.", &[(1, 5, true, true)]),
            (".pp.p", &[(1, 3, false, true), (4, 5, false, true)]),
        ] {
            assert_eq!(track(Track::told(MINUTE), samples), expected, "{samples:?}");
        }
    }

    #[test]
    fn of_an_alert_no_sample_is_an_end() {
        for (samples, expected) in [
            ("pp##", &[(0, 4, true, true)][..]),
            // One lost sample is none.
            ("p #", &[(0, 3, true, true)]),
            ("p   p#", &[(0, 1, false, true), (4, 6, true, true)]),
        ] {
            assert_eq!(
                track(Track::while_on(MINUTE), samples),
                expected,
                "{samples:?}"
            );
        }
    }

    #[test]
    fn what_was_seen_already_is_no_news() {
        let mut track = Track::told(MINUTE);
        for m in [0, 1, 2, 1, 0, 2, 3] {
            track.see(at(m), State::On);
        }
        assert_eq!(track.stretches().len(), 1);
        assert_eq!(track.seen(), [span(0, 4)]);
    }

    #[test]
    fn a_clock_that_was_set_is_no_reboot() {
        let now = at(0).as_second() as f64;
        for (name, samples, boots) in [
            ("steady", vec![(0, -9_000.0), (1, -9_000.0)], 0),
            (
                "trembling",
                vec![(0, -9_000.0), (1, -8_999.0), (2, -9_000.0)],
                0,
            ),
            (
                "clock set on by an hour",
                vec![(0, -9_000.0), (1, -5_400.0)],
                0,
            ),
            ("clock set back", vec![(0, -9_000.0), (1, -12_600.0)], 0),
            (
                "not a number",
                vec![(0, -9_000.0), (1, f64::NAN), (2, -9_000.0)],
                0,
            ),
            ("booted", vec![(0, -9_000.0), (3, 100.0)], 1),
            (
                "booted twice",
                vec![(0, -9_000.0), (3, 100.0), (9, 500.0)],
                2,
            ),
            ("in the future", vec![(0, -9_000.0), (3, 9_999.0)], 0),
        ] {
            let mut seen = Boots::default();
            for (m, boot) in samples {
                seen.see(at(m), now + boot);
            }
            assert_eq!(seen.boots().len(), boots, "{name}");
        }
    }

    #[test]
    fn a_node_that_comes_or_goes_is_told_from_an_exporter_that_was_away() {
        let born = at(-900).as_second() as f64;
        let changes = |samples: &[(i64, f64)]| {
            let mut life = Life::new(MINUTE);
            for (m, created) in samples {
                life.see(at(*m), *created);
            }
            life.changes(span(0, 200))
        };
        let steady: Vec<(i64, f64)> = (0..200).map(|m| (m, born)).collect();
        assert_eq!(changes(&steady), []);
        let away: Vec<(i64, f64)> = steady
            .iter()
            .copied()
            .filter(|(m, _)| !(50..90).contains(m))
            .collect();
        assert_eq!(changes(&away), []);
        assert_eq!(changes(&steady[..100]), [at(100)]);
        let again = at(120).as_second() as f64;
        let replaced: Vec<(i64, f64)> = (0..200)
            .filter(|m| !(100..121).contains(m))
            .map(|m| (m, if m < 100 { born } else { again }))
            .collect();
        assert_eq!(changes(&replaced), [at(100), at(120)]);
    }
}
