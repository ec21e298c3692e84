//! From what was seen of a Node to its incidents, and to the label of each row, or why it has none.
//!
//! A row at `t` is positive if an incident begins in `(t + gap, t + horizon]`. Rows of which nobody can say
//! what they were signs of are dropped, each for one reason that is counted: a model must learn neither that
//! maintenance is an incident nor that an incident averted was none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use foreshock_core::time::{after, ago};
use jiff::Timestamp;

use super::signals::Signal;
use super::track::{Boots, Life, Span, State, Track};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// What makes an incident and a label. `docs/training.md` shows the defaults as a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How far ahead a positive looks.
    pub horizon: Duration,
    /// An incident that begins within this is too near to be warned of. At least two scrapes: the first
    /// signs of it may be in the row already.
    pub gap: Duration,
    /// Incidents of one Node that are nearer to each other are one.
    pub merge: Duration,
    /// After an incident, rows are its traces for so long.
    pub settle: Duration,
    /// After planned work and after our own action.
    pub settle_planned: Duration,
    /// Not Ready for less is no incident.
    pub not_ready_min: Duration,
    /// An exporter that is silent for less is no incident.
    pub down_min: Duration,
    /// A reboot so soon after a cordon is planned.
    pub cordon_before_boot: Duration,
}

impl Rules {
    /// The defaults for Nodes that are scraped this often.
    pub fn new(scrape_interval: Duration) -> Self {
        Self {
            horizon: 30 * MINUTE,
            gap: scrape_interval * 2,
            merge: 30 * MINUTE,
            settle: HOUR,
            settle_planned: HOUR,
            not_ready_min: 2 * MINUTE,
            down_min: 3 * MINUTE,
            cordon_before_boot: HOUR,
        }
    }

    /// Checks that the times fit together.
    ///
    /// # Errors
    ///
    /// [`RulesFault`].
    pub fn check(&self, scrape_interval: Duration) -> Result<(), RulesFault> {
        if self.gap < scrape_interval * 2 {
            return Err(RulesFault::Gap {
                gap: self.gap,
                scrape_interval,
            });
        }
        if self.horizon < self.gap * 2 {
            return Err(RulesFault::Horizon {
                horizon: self.horizon,
                gap: self.gap,
            });
        }
        if !(30 * MINUTE..=HOUR).contains(&self.settle) {
            return Err(RulesFault::Settle(self.settle));
        }
        Ok(())
    }
}

/// Why rules cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesFault {
    /// The first scrape of an incident could be in its own warning.
    #[error(
        "the gap of {gap:?} is less than two scrapes of {scrape_interval:?}; make it longer, or scrape more often"
    )]
    Gap {
        /// The gap.
        gap: Duration,
        /// How often Nodes are scraped.
        scrape_interval: Duration,
    },
    /// Nothing would be left between gap and horizon.
    #[error("the horizon of {horizon:?} is less than twice the gap of {gap:?}; make it longer")]
    Horizon {
        /// The horizon.
        horizon: Duration,
        /// The gap.
        gap: Duration,
    },
    /// Traces of an incident would be learned from, or too much is dropped.
    #[error("rows are dropped for {0:?} after an incident; it must be 30 to 60 minutes")]
    Settle(Duration),
}

/// What an incident was seen as.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Not Ready.
    NotReady,
    /// Memory pressure.
    MemoryPressure,
    /// Disk pressure.
    DiskPressure,
    /// PID pressure.
    PidPressure,
    /// The Node's network is not set up.
    NetworkUnavailable,
    /// The exporter was silent.
    Down,
    /// A reboot that nobody had prepared.
    Reboot,
    /// An alert fired: its name.
    Alert(Arc<str>),
    /// The operator reports it: its kind, in the operator's words.
    Reported(Arc<str>),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotReady => "not Ready",
            Self::MemoryPressure => "memory pressure",
            Self::DiskPressure => "disk pressure",
            Self::PidPressure => "PID pressure",
            Self::NetworkUnavailable => "network unavailable",
            Self::Down => "exporter silent",
            Self::Reboot => "reboot",
            Self::Alert(name) => return write!(f, "alert {name}"),
            Self::Reported(kind) => return write!(f, "reported: {kind}"),
        })
    }
}

/// An incident of one Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// From its first sign to its last.
    pub span: Span,
    /// Everything that it was seen as.
    pub kinds: BTreeSet<Kind>,
    /// When it began is known, so rows before it can be labelled: the Node was seen well before.
    pub begin_seen: bool,
}

/// What a row is to the learner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// This incident, by its place in [`Timeline::incidents`], begins within the horizon.
    Positive(usize),
    /// None does.
    Negative,
    /// Not to be learned from.
    Dropped(Dropped),
}

/// Why a row is not learned from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dropped {
    /// The incident is on: there is nothing left to warn of.
    InIncident,
    /// It was on a while ago.
    AfterIncident,
    /// It begins within the gap.
    TooLate,
    /// Somebody works on the Node, is about to, or just did; or it comes or goes.
    Planned,
    /// We have acted on it, or are about to: what would have come is not known.
    OwnAction,
    /// The history ends before the horizon does.
    EndOfHistory,
    /// Nobody looked at the Node at some time until the horizon.
    Unobserved,
}

impl Dropped {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::InIncident,
        Self::AfterIncident,
        Self::TooLate,
        Self::Planned,
        Self::OwnAction,
        Self::EndOfHistory,
        Self::Unobserved,
    ];

    /// The reason in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::InIncident => "within an incident",
            Self::AfterIncident => "soon after an incident",
            Self::TooLate => "an incident begins too soon to warn of it",
            Self::Planned => "planned work, or the Node comes or goes",
            Self::OwnAction => "foreshock itself acts",
            Self::EndOfHistory => "the history ends before the horizon",
            Self::Unobserved => "nobody looked at the Node",
        }
    }
}

/// How many rows were what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Positive rows.
    pub positives: u64,
    /// Negative rows.
    pub negatives: u64,
    /// Rows that were dropped, by reason.
    pub dropped: BTreeMap<Dropped, u64>,
}

impl Tally {
    /// Counts a row.
    pub fn count(&mut self, label: Label) {
        match label {
            Label::Positive(_) => self.positives += 1,
            Label::Negative => self.negatives += 1,
            Label::Dropped(reason) => *self.dropped.entry(reason).or_default() += 1,
        }
    }

    /// All rows, dropped ones too.
    pub fn rows(&self) -> u64 {
        self.positives + self.negatives + self.dropped.values().sum::<u64>()
    }

    /// Adds the rows of another Node.
    pub fn add(&mut self, other: &Self) {
        self.positives += other.positives;
        self.negatives += other.negatives;
        for (reason, rows) in &other.dropped {
            *self.dropped.entry(*reason).or_default() += rows;
        }
    }
}

/// Everything that was seen of one Node, in the order of time for each signal.
#[derive(Clone, Debug)]
pub struct NodeHistory {
    step: Duration,
    states: BTreeMap<Signal, Track>,
    alerts: BTreeMap<Arc<str>, Track>,
    /// Those that are no incidents.
    others: BTreeMap<Arc<str>, Track>,
    boots: Boots,
    life: Life,
    reported: Vec<(Span, Arc<str>)>,
}

impl NodeHistory {
    /// A Node of which nothing was seen yet, on a grid of this step.
    pub fn new(step: Duration) -> Self {
        Self {
            step,
            states: BTreeMap::new(),
            alerts: BTreeMap::new(),
            others: BTreeMap::new(),
            boots: Boots::default(),
            life: Life::new(step),
            reported: Vec::new(),
        }
    }

    /// Takes a sample of a signal's query. Not-a-number is no sample.
    pub fn see(&mut self, signal: Signal, at: Timestamp, value: f64) {
        match signal {
            Signal::Boot => self.boots.see(at, value),
            Signal::Created => self.life.see(at, value),
            _ if value.is_nan() => {}
            _ => {
                let track = self.states.entry(signal);
                let track = track.or_insert_with(|| Track::told(self.step));
                track.see(at, if value > 0.5 { State::On } else { State::Off });
            }
        }
    }

    /// Takes a sample of an alert that is an incident when it fires.
    pub fn see_alert(&mut self, name: &str, at: Timestamp, state: State) {
        see_in(&mut self.alerts, self.step, name, at, state);
    }

    /// Takes a sample of another alert.
    pub fn see_other_alert(&mut self, name: &str, at: Timestamp, state: State) {
        see_in(&mut self.others, self.step, name, at, state);
    }

    /// Whether any alert was pending or fired at a time.
    pub fn alerting(&self, at: Timestamp) -> bool {
        let on = |track: &Track| {
            let stretches = track.stretches();
            let begun = stretches.partition_point(|stretch| stretch.span.from <= at);
            stretches[..begun]
                .last()
                .is_some_and(|stretch| stretch.span.contains(at))
        };
        self.alerts.values().chain(self.others.values()).any(on)
    }

    /// Takes an incident that the operator reports. It counts also where planned work would excuse it.
    pub fn report(&mut self, span: Span, kind: &str) {
        self.reported.push((span, kind.into()));
    }

    /// The Node's incidents and the labels of its rows, for a history that was asked for in this span.
    pub fn timeline(&self, rules: &Rules, history: Span) -> Timeline {
        let observed = self.observed();
        let cordons = self.spans(Signal::Cordoned);
        let mut planned: Vec<Span> = cordons
            .iter()
            .map(|span| Span {
                from: span.from,
                to: after(span.to, rules.settle_planned),
            })
            .collect();
        // Whoever takes a Node away often stops it first: what begins within a horizon of it is that.
        planned.extend(self.life.changes(history).into_iter().map(|at| Span {
            from: ago(at, rules.horizon),
            to: after(at, rules.settle_planned),
        }));
        let (mut kept, mut excused) = (Vec::new(), Vec::new());
        for piece in self.pieces(rules, &observed) {
            let cordoned_before = |span: &Span| {
                span.from <= piece.span.from
                    && ago(piece.span.from, rules.cordon_before_boot) < span.to
            };
            let is_planned = planned.iter().any(|span| span.contains(piece.span.from))
                || (piece.kind == Kind::Reboot && cordons.iter().any(cordoned_before));
            if is_planned && !matches!(piece.kind, Kind::Reported(_)) {
                excused.push(piece.span);
            } else {
                kept.push(piece);
            }
        }
        let n_excused = excused.len();
        planned.extend(excused.into_iter().map(|span| Span {
            from: span.from,
            to: after(span.to, rules.settle_planned),
        }));
        let own = self.spans(Signal::OwnAction).into_iter().map(|span| Span {
            from: span.from,
            to: after(span.to, rules.settle_planned),
        });
        Timeline {
            rules: *rules,
            history,
            incidents: merged(kept, rules.merge),
            n_excused,
            planned,
            own: own.collect(),
            observed,
        }
    }

    /// When anybody could have seen the Node fail, overlaps joined.
    fn observed(&self) -> Vec<Span> {
        let watching = [Signal::NotReady, Signal::Down];
        let tracks = watching.iter().filter_map(|signal| self.states.get(signal));
        let mut spans: Vec<Span> = tracks.flat_map(|track| track.seen()).copied().collect();
        spans.sort();
        let mut joined: Vec<Span> = Vec::new();
        for span in spans {
            match joined.last_mut() {
                Some(last) if span.from <= last.to => last.to = last.to.max(span.to),
                _ => joined.push(span),
            }
        }
        joined
    }

    fn spans(&self, signal: Signal) -> Vec<Span> {
        let track = self.states.get(&signal);
        let stretches = track.map(Track::stretches).unwrap_or_default();
        stretches.iter().map(|stretch| stretch.span).collect()
    }

    /// Every sign of an incident.
    fn pieces(&self, rules: &Rules, observed: &[Span]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for (signal, kind, least) in [
            (Signal::NotReady, Kind::NotReady, rules.not_ready_min),
            (Signal::MemoryPressure, Kind::MemoryPressure, Duration::ZERO),
            (Signal::DiskPressure, Kind::DiskPressure, Duration::ZERO),
            (Signal::PidPressure, Kind::PidPressure, Duration::ZERO),
            (
                Signal::NetworkUnavailable,
                Kind::NetworkUnavailable,
                Duration::ZERO,
            ),
            (Signal::Down, Kind::Down, rules.down_min),
        ] {
            let track = self.states.get(&signal);
            let stretches = track.map(Track::stretches).unwrap_or_default();
            let long = stretches.iter().filter(|s| s.span.lasts() >= least);
            pieces.extend(long.map(|stretch| Piece {
                span: stretch.span,
                kind: kind.clone(),
                begin_seen: stretch.begin_seen,
            }));
        }
        for (name, track) in &self.alerts {
            let fired = track.stretches().iter().filter(|stretch| stretch.full);
            pieces.extend(fired.map(|stretch| Piece {
                span: stretch.span,
                kind: Kind::Alert(Arc::clone(name)),
                // An alert says nothing while it is off, so it is asked whether the Node was watched.
                begin_seen: observed.iter().any(|seen| {
                    seen.contains(stretch.span.from)
                        && seen.contains(ago(stretch.span.from, super::track::BRIDGE))
                }),
            }));
        }
        pieces.extend(self.boots.boots().iter().map(|boot| Piece {
            span: Span {
                from: *boot,
                to: after(*boot, self.step),
            },
            kind: Kind::Reboot,
            begin_seen: true,
        }));
        pieces.extend(self.reported.iter().map(|(span, kind)| Piece {
            span: *span,
            kind: Kind::Reported(Arc::clone(kind)),
            begin_seen: true,
        }));
        pieces.sort_by(|a, b| (a.span, &a.kind).cmp(&(b.span, &b.kind)));
        pieces
    }
}

fn see_in(
    alerts: &mut BTreeMap<Arc<str>, Track>,
    step: Duration,
    name: &str,
    at: Timestamp,
    state: State,
) {
    if !alerts.contains_key(name) {
        alerts.insert(name.into(), Track::while_on(step));
    }
    if let Some(track) = alerts.get_mut(name) {
        track.see(at, state);
    }
}

struct Piece {
    span: Span,
    kind: Kind,
    begin_seen: bool,
}

/// Sorted pieces that are nearer than `near` to what came before them are one incident.
fn merged(pieces: Vec<Piece>, near: Duration) -> Vec<Incident> {
    let mut incidents: Vec<Incident> = Vec::new();
    for piece in pieces {
        match incidents.last_mut() {
            Some(incident) if piece.span.from < after(incident.span.to, near) => {
                incident.span.to = incident.span.to.max(piece.span.to);
                incident.kinds.insert(piece.kind);
            }
            _ => incidents.push(Incident {
                span: piece.span,
                kinds: BTreeSet::from([piece.kind]),
                begin_seen: piece.begin_seen,
            }),
        }
    }
    incidents
}

/// The incidents of one Node, and what its rows are.
#[derive(Clone, Debug)]
pub struct Timeline {
    rules: Rules,
    history: Span,
    incidents: Vec<Incident>,
    n_excused: usize,
    planned: Vec<Span>,
    own: Vec<Span>,
    observed: Vec<Span>,
}

impl Timeline {
    /// The incidents, in order; they do not touch.
    pub fn incidents(&self) -> &[Incident] {
        &self.incidents
    }

    /// How many signs of incidents were excused by planned work.
    pub fn n_excused(&self) -> usize {
        self.n_excused
    }

    /// What the row at a time is.
    pub fn label(&self, at: Timestamp) -> Label {
        self.dropped_now(at)
            .map_or_else(|| self.label_ahead(at), Label::Dropped)
    }

    /// By what is so at that time.
    fn dropped_now(&self, at: Timestamp) -> Option<Dropped> {
        let within = |spans: &[Span]| spans.iter().any(|span| span.contains(at));
        let last = self.incidents.partition_point(|one| one.span.from <= at);
        let last = last.checked_sub(1).and_then(|i| self.incidents.get(i));
        if within(&self.own) {
            Some(Dropped::OwnAction)
        } else if last.is_some_and(|one| one.span.contains(at)) {
            Some(Dropped::InIncident)
        } else if within(&self.planned) {
            Some(Dropped::Planned)
        } else if last.is_some_and(|one| at < after(one.span.to, self.rules.settle)) {
            Some(Dropped::AfterIncident)
        } else {
            None
        }
    }

    /// By what comes.
    fn label_ahead(&self, at: Timestamp) -> Label {
        let until = after(at, self.rules.horizon);
        let next = self.incidents.partition_point(|one| one.span.from <= at);
        // What begins before anybody works on the Node is an incident, whatever is done about it then.
        if let Some(incident) = self
            .incidents
            .get(next)
            .filter(|one| one.span.from <= until)
        {
            return if !incident.begin_seen {
                Label::Dropped(Dropped::Unobserved)
            } else if incident.span.from <= after(at, self.rules.gap) {
                Label::Dropped(Dropped::TooLate)
            } else {
                Label::Positive(next)
            };
        }
        let begins = |spans: &[Span]| {
            spans
                .iter()
                .any(|span| at < span.from && span.from <= until)
        };
        if begins(&self.own) {
            Label::Dropped(Dropped::OwnAction)
        } else if begins(&self.planned) {
            Label::Dropped(Dropped::Planned)
        } else if until >= self.history.to {
            Label::Dropped(Dropped::EndOfHistory)
        } else if !self
            .observed
            .iter()
            .any(|s| s.contains(at) && s.contains(until))
        {
            Label::Dropped(Dropped::Unobserved)
        } else {
            Label::Negative
        }
    }
}

#[cfg(test)]
mod tests;
