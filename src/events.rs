//! What happened, for people: a bounded ring of events, and a channel for those who watch.
//!
//! The lasting story is in Kubernetes Events; this one serves the page and the API and is gone with
//! the process. An id says which start it belongs to, so that nobody mistakes the third event of
//! this process for the third of the last one.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use foreshock_core::node::NodeName;
use jiff::Timestamp;
use tokio::sync::broadcast;

/// How many events are kept. A fleet in trouble makes tens a minute: a quarter of an hour at least.
pub const EVENTS_MAX: usize = 1_000;

/// Longest message and reason, in characters: the words of others are quoted in them.
const TEXT_MAX: usize = 1_000;

/// Identity of an event: which start of foreshock, and the how-manieth since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// The start, in milliseconds since 1970.
    pub start: i64,
    /// Counted from 1.
    pub number: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.number)
    }
}

/// A text that is no event id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no event id, which looks like 1763900000000-42")]
pub struct NotAnEventId(pub String);

impl FromStr for EventId {
    type Err = NotAnEventId;

    fn from_str(text: &str) -> Result<Self, NotAnEventId> {
        text.rsplit_once('-')
            .and_then(|(start, number)| {
                Some(Self {
                    start: start.parse().ok()?,
                    number: number.parse().ok()?,
                })
            })
            .ok_or_else(|| NotAnEventId(shorten(text, 64)))
    }
}

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// foreshock started.
    Started,
    /// A Node's risk went into another band.
    Risk,
    /// A Node's phase changed.
    Phase,
    /// Something is held back, or not any more.
    Hold,
    /// Our taint was set.
    Taint,
    /// Our taint was removed.
    Untaint,
    /// Label or caution taint changed.
    Caution,
    /// A drain began, ended or was cancelled.
    Drain,
    /// A Pod was evicted, or could not be.
    Evict,
    /// Replacements of evicted Pods became Ready elsewhere.
    Moved,
    /// A person removed our taint.
    Veto,
    /// An alert came, was resolved or ran out.
    Alert,
    /// A storm began or ended.
    Storm,
    /// Somebody paused or resumed foreshock.
    Pause,
    /// This process began or ceased to lead.
    Leader,
    /// A dependency failed or came back, or something else about foreshock itself.
    Health,
    /// A write to a Node failed.
    WriteFailed,
    /// Another model is in use.
    Model,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 18] = [
        Self::Started,
        Self::Risk,
        Self::Phase,
        Self::Hold,
        Self::Taint,
        Self::Untaint,
        Self::Caution,
        Self::Drain,
        Self::Evict,
        Self::Moved,
        Self::Veto,
        Self::Alert,
        Self::Storm,
        Self::Pause,
        Self::Leader,
        Self::Health,
        Self::WriteFailed,
        Self::Model,
    ];

    /// The name in the API; also the name of the Server-Sent Event.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Risk => "risk",
            Self::Phase => "phase",
            Self::Hold => "hold",
            Self::Taint => "taint",
            Self::Untaint => "untaint",
            Self::Caution => "caution",
            Self::Drain => "drain",
            Self::Evict => "evict",
            Self::Moved => "moved",
            Self::Veto => "veto",
            Self::Alert => "alert",
            Self::Storm => "storm",
            Self::Pause => "pause",
            Self::Leader => "leader",
            Self::Health => "health",
            Self::WriteFailed => "write_failed",
            Self::Model => "model",
        }
    }

    /// The kind of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that happened, before it has an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// When.
    pub at: Timestamp,
    /// What kind of thing.
    pub kind: EventKind,
    /// The Node it is about.
    pub node: Option<NodeName>,
    /// The Pod it is about, as `namespace/name`.
    pub pod: Option<String>,
    /// One sentence for an operator.
    pub message: String,
    /// A word from an enum, where there is one: a hold reason, an outcome, a cause.
    pub reason: Option<String>,
}

impl NewEvent {
    /// An event about foreshock or the cluster as a whole.
    pub fn new(at: Timestamp, kind: EventKind, message: impl Into<String>) -> Self {
        Self {
            at,
            kind,
            node: None,
            pod: None,
            message: message.into(),
            reason: None,
        }
    }

    /// About this Node.
    #[must_use]
    pub fn node(mut self, node: &NodeName) -> Self {
        self.node = Some(node.clone());
        self
    }

    /// About this Pod, as `namespace/name`.
    #[must_use]
    pub fn pod(mut self, pod: impl fmt::Display) -> Self {
        self.pod = Some(pod.to_string());
        self
    }

    /// With this word.
    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which event.
    pub id: EventId,
    /// When.
    pub at: Timestamp,
    /// What kind of thing.
    pub kind: EventKind,
    /// The Node it is about.
    pub node: Option<NodeName>,
    /// The Pod it is about, as `namespace/name`.
    pub pod: Option<String>,
    /// One sentence for an operator.
    pub message: String,
    /// A word from an enum, where there is one.
    pub reason: Option<String>,
}

/// Which events are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventQuery {
    /// Only those behind this one, in the chosen order.
    pub after: Option<EventId>,
    /// Only those about this Node.
    pub node: Option<String>,
    /// Only those of this kind.
    pub kind: Option<EventKind>,
    /// At most so many; 0 counts as 1.
    pub limit: usize,
    /// The newest first.
    pub newest_first: bool,
}

/// A part of the events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventPage {
    /// The events.
    pub events: Vec<Arc<Event>>,
    /// `after` for the next part; `None` when there is none.
    pub next: Option<EventId>,
    /// Events behind `after` are not there any more, or `after` is of another start.
    pub gap: bool,
}

/// What a watcher gets to begin with.
#[derive(Debug)]
pub struct Watch {
    /// What it missed; `None` when nobody can tell, so that it needs a fresh picture.
    pub missed: Option<Vec<Arc<Event>>>,
    /// The id of the newest event at that moment, for a watcher with a fresh picture.
    pub last: EventId,
    /// What comes.
    pub events: broadcast::Receiver<Arc<Event>>,
}

/// A bounded ring of events, and a channel for those who watch.
#[derive(Debug)]
pub struct EventLog {
    start: i64,
    ring: Mutex<Ring>,
    tx: broadcast::Sender<Arc<Event>>,
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Arc<Event>>,
    last: u64,
}

impl EventLog {
    /// An empty log of a process that started then.
    pub fn new(started_at: Timestamp) -> Self {
        // As many as the ring holds: who is further behind needs a fresh picture anyway.
        let (tx, _) = broadcast::channel(EVENTS_MAX);
        Self {
            start: started_at.as_millisecond(),
            ring: Mutex::default(),
            tx,
        }
    }

    /// Adds an event and tells those who watch.
    pub fn push(&self, event: NewEvent) -> EventId {
        let mut ring = self.lock();
        ring.last += 1;
        let event = Arc::new(Event {
            id: self.id(ring.last),
            at: event.at,
            kind: event.kind,
            node: event.node,
            pod: event.pod.map(|pod| shorten(&pod, TEXT_MAX)),
            message: shorten(&event.message, TEXT_MAX),
            reason: event.reason.map(|reason| shorten(&reason, TEXT_MAX)),
        });
        if ring.events.len() == EVENTS_MAX {
            ring.events.pop_front();
        }
        ring.events.push_back(event.clone());
        let id = event.id;
        // Within the lock, so that a watcher sees each event exactly once: in `missed` or here. An
        // error means that nobody watches.
        let _ = self.tx.send(event);
        id
    }

    /// A part of the events, by default the oldest first.
    pub fn page(&self, query: &EventQuery) -> EventPage {
        let ring = self.lock();
        let limit = query.limit.max(1);
        let oldest = ring.events.front().map_or(0, |event| event.id.number);
        let after = query.after.filter(|id| id.start == self.start);
        let gap = match (query.after, after) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(_), Some(id)) => {
                !query.newest_first && id.number + 1 < oldest || id.number > ring.last
            }
        };
        let wanted = |event: &&Arc<Event>| {
            let behind = after.is_none_or(|id| {
                if query.newest_first {
                    event.id < id
                } else {
                    event.id > id
                }
            });
            let of_node = query.node.as_deref().is_none_or(|wanted| {
                event
                    .node
                    .as_ref()
                    .is_some_and(|node| node.as_str() == wanted)
            });
            behind && of_node && query.kind.is_none_or(|kind| kind == event.kind)
        };
        // One more than asked for tells whether there is a next part.
        let mut events: Vec<Arc<Event>> = if query.newest_first {
            let found = ring.events.iter().rev().filter(wanted);
            found.take(limit + 1).cloned().collect()
        } else {
            let found = ring.events.iter().filter(wanted);
            found.take(limit + 1).cloned().collect()
        };
        let more = events.len() > limit;
        events.truncate(limit);
        let next = events.last().filter(|_| more).map(|event| event.id);
        EventPage { events, next, gap }
    }

    /// Begins to watch behind the event that the watcher saw last.
    pub fn watch(&self, seen: Option<EventId>) -> Watch {
        let ring = self.lock();
        let events = self.tx.subscribe();
        let oldest = ring.events.front().map_or(1, |event| event.id.number);
        let known = seen.filter(|id| {
            id.start == self.start && id.number <= ring.last && id.number + 1 >= oldest
        });
        let missed = known.map(|seen| {
            let missed = ring.events.iter().filter(|event| event.id > seen);
            missed.cloned().collect()
        });
        Watch {
            missed,
            last: self.id(ring.last),
            events,
        }
    }

    fn id(&self, number: u64) -> EventId {
        EventId {
            start: self.start,
            number,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ring> {
        // Nothing between taking and dropping the lock leaves the ring half changed.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// At most so many characters.
fn shorten(text: &str, limit: usize) -> String {
    if text.chars().nth(limit).is_none() {
        return text.to_owned();
    }
    let kept: String = text.chars().take(limit.saturating_sub(1)).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_763_900_000 + second).unwrap()
    }

    fn log(count: u64) -> EventLog {
        let log = EventLog::new(at(0));
        for n in 1..=count {
            let node = NodeName::from(if n % 2 == 0 { "even" } else { "odd" });
            let kind = if n % 3 == 0 {
                EventKind::Taint
            } else {
                EventKind::Risk
            };
            log.push(NewEvent::new(at(1), kind, format!("event {n}")).node(&node));
        }
        log
    }

    fn id(number: u64) -> EventId {
        EventId {
            start: at(0).as_millisecond(),
            number,
        }
    }

    fn numbers(events: &[Arc<Event>]) -> Vec<u64> {
        events.iter().map(|event| event.id.number).collect()
    }

    fn query(limit: usize) -> EventQuery {
        EventQuery {
            limit,
            ..EventQuery::default()
        }
    }

    #[test]
    fn pages_walk_the_log_without_gap_or_repeat_in_both_directions() {
        let log = log(25);
        for newest_first in [false, true] {
            let mut seen = Vec::new();
            let mut after = None;
            loop {
                let page = log.page(&EventQuery {
                    after,
                    newest_first,
                    ..query(10)
                });
                assert!(!page.gap);
                seen.extend(numbers(&page.events));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            if newest_first {
                seen.reverse();
            }
            assert_eq!(seen, (1..=25).collect::<Vec<_>>());
        }
    }

    #[test]
    fn pages_are_filtered_by_node_and_kind() {
        let log = log(12);
        let page = log.page(&EventQuery {
            node: Some("even".into()),
            kind: Some(EventKind::Taint),
            ..query(10)
        });
        assert_eq!(numbers(&page.events), [6, 12]);
    }

    #[test]
    fn the_ring_is_bounded_and_says_when_events_fell_out_of_it() {
        let log = log(EVENTS_MAX as u64 + 5);
        let page = log.page(&query(1));
        assert_eq!(numbers(&page.events), [6]);
        let behind = log.page(&EventQuery {
            after: Some(id(2)),
            ..query(1)
        });
        assert!(behind.gap);
        let just = log.page(&EventQuery {
            after: Some(id(5)),
            ..query(1)
        });
        assert!(!just.gap);
    }

    #[test]
    fn a_watcher_gets_what_it_missed_and_then_what_comes_each_once() {
        let log = log(5);
        let mut watch = log.watch(Some(id(3)));
        assert_eq!(numbers(watch.missed.as_deref().unwrap()), [4, 5]);
        assert_eq!(watch.last, id(5));
        log.push(NewEvent::new(at(2), EventKind::Pause, "paused"));
        assert_eq!(watch.events.try_recv().unwrap().id, id(6));
    }

    #[test]
    fn a_watcher_of_another_start_or_too_far_behind_needs_a_fresh_picture() {
        let log = log(EVENTS_MAX as u64 + 5);
        let other_start = EventId {
            start: 7,
            number: 3,
        };
        for seen in [None, Some(other_start), Some(id(2)), Some(id(9_999))] {
            assert!(log.watch(seen).missed.is_none(), "{seen:?}");
        }
        assert!(log.watch(Some(id(5))).missed.is_some());
    }

    #[test]
    fn ids_read_back_as_written_and_nothing_else_is_one() {
        let id = id(42);
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "7", "a-b", "7-", "-", "7-1 ", "99999999999999999999-1"] {
            assert!(text.parse::<EventId>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_kind_has_its_own_name_and_reads_back() {
        for kind in EventKind::ALL {
            assert_eq!(EventKind::parse(kind.as_str()), Some(kind));
        }
    }

    #[test]
    fn long_words_of_others_are_cut() {
        let log = EventLog::new(at(0));
        log.push(NewEvent::new(at(1), EventKind::Alert, "x".repeat(5_000)));
        let page = log.page(&query(1));
        assert_eq!(page.events[0].message.chars().count(), TEXT_MAX);
    }
}
