//! What really happens to a Node: the hidden truth that training learns from and tests judge by.
//!
//! An incident is decided from the true state of the simulation, never from its metrics, with
//! thresholds that differ a little from Node to Node (`tolerance`, 0.85 to 1.2):
//!
//! | incident | begins when, for 20 s |
//! |---|---|
//! | memory exhausted | reclaim pressure above 0.25 × tolerance (memory stalled a fifth of the time), or an OOM kill in the last 2 min |
//! | I/O stall | a request to a disk takes longer than 0.12 s × tolerance, and processes are blocked by it |
//! | packet loss | more than 2.5 % × tolerance of packets are lost |
//! | overheated | the CPU loses more than a quarter × tolerance of its speed to heat |
//! | CPU starved | more than 7 × tolerance threads per available core, or more than 40 % × tolerance stolen |
//! | filesystem full | less than 3 % × tolerance of `/` is free |
//! | reboot loop | at least two boots in 30 min |
//!
//! It ends when that has not been so for 60 s.

use jiff::Timestamp;

/// What an incident is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IncidentKind {
    /// Memory is exhausted: the machine thrashes or kills processes.
    MemoryExhausted,
    /// Work stands still because a disk does not answer in time.
    IoStall,
    /// The network loses more than TCP can hide.
    PacketLoss,
    /// The CPU slows down to protect itself.
    Overheated,
    /// Processes do not get the CPU.
    CpuStarved,
    /// Writes fail.
    FilesystemFull,
    /// The machine does not stay up.
    RebootLoop,
}

impl IncidentKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::MemoryExhausted,
        Self::IoStall,
        Self::PacketLoss,
        Self::Overheated,
        Self::CpuStarved,
        Self::FilesystemFull,
        Self::RebootLoop,
    ];

    /// The name in files and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MemoryExhausted => "memory-exhausted",
            Self::IoStall => "io-stall",
            Self::PacketLoss => "packet-loss",
            Self::Overheated => "overheated",
            Self::CpuStarved => "cpu-starved",
            Self::FilesystemFull => "filesystem-full",
            Self::RebootLoop => "reboot-loop",
        }
    }
}

/// One incident of one Node.
#[derive(Clone, Debug, PartialEq)]
pub struct Incident {
    /// What it is.
    pub kind: IncidentKind,
    /// When it began.
    pub from: Timestamp,
    /// When it was over; `None` while it goes on.
    pub until: Option<Timestamp>,
}

impl Incident {
    /// Whether it was on at a time, or began within `(at, by]`: the label of a row at `at` whose
    /// horizon ends at `by`.
    pub fn concerns(&self, at: Timestamp, by: Timestamp) -> bool {
        self.from <= by && self.until.is_none_or(|until| until > at)
    }
}

/// What is true of a Node now.
#[derive(Clone, Debug, PartialEq)]
pub struct Truth {
    /// The incident that goes on.
    pub incident: IncidentKind,
    /// Since when.
    pub since: Timestamp,
}

/// Turns a state that flickers into one that begins and ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Condition {
    on: Option<IncidentKind>,
    changing: Option<(Option<IncidentKind>, i64)>,
}

/// A state counts when it has lasted this long; it is over when it has been gone this long.
const BEGINS_AFTER_MS: i64 = 20_000;
const ENDS_AFTER_MS: i64 = 60_000;

impl Condition {
    /// Takes the state of a tick; returns since when and what, when an incident begins (`Some`) or
    /// ends (`None`). One incident at a time: while it is on, other kinds do not end it.
    pub(super) fn step(
        &mut self,
        seen: Option<IncidentKind>,
        at_ms: i64,
    ) -> Option<(i64, Option<IncidentKind>)> {
        let unchanged = match (self.on, seen) {
            (None, None) | (Some(_), Some(_)) => true,
            (None, Some(_)) | (Some(_), None) => false,
        };
        if unchanged {
            self.changing = None;
            return None;
        }
        let since = match self.changing {
            Some((_, since)) => since,
            None => {
                self.changing = Some((seen, at_ms));
                at_ms
            }
        };
        let wait = if seen.is_some() {
            BEGINS_AFTER_MS
        } else {
            ENDS_AFTER_MS
        };
        if at_ms - since < wait {
            return None;
        }
        self.on = seen;
        self.changing = None;
        Some((since, seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flicker_is_no_incident_and_no_end_of_one() {
        let mut condition = Condition::default();
        let bad = Some(IncidentKind::IoStall);
        assert_eq!(condition.step(bad, 0), None);
        assert_eq!(condition.step(None, 10_000), None);
        assert_eq!(condition.step(bad, 15_000), None);
        assert_eq!(condition.step(bad, 34_000), None);
        assert_eq!(condition.step(bad, 35_000), Some((15_000, bad)));
        assert_eq!(condition.step(None, 40_000), None);
        assert_eq!(condition.step(bad, 90_000), None);
        assert_eq!(condition.step(None, 100_000), None);
        assert_eq!(condition.step(None, 160_000), Some((100_000, None)));
    }

    #[test]
    fn a_row_is_positive_while_an_incident_is_on_or_begins_within_the_horizon() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let incident = Incident {
            kind: IncidentKind::IoStall,
            from: at(100),
            until: Some(at(200)),
        };
        assert!(!incident.concerns(at(0), at(99)));
        assert!(incident.concerns(at(0), at(100)));
        assert!(incident.concerns(at(150), at(180)));
        assert!(!incident.concerns(at(200), at(300)));
    }
}
