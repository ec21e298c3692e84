//! What happened, in order.

use serde::Serialize;
use utoipa::ToSchema;

use crate::events::{Event, EventPage};
use crate::web::words::{KindWord, Time};

/// Something that happened.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub(in crate::web) struct EventJson {
    /// Which event: `<start>-<n>`.
    id: String,
    /// When.
    at: Time,
    /// What kind of thing.
    kind: KindWord,
    /// The Node it is about.
    node: Option<String>,
    /// The Pod it is about, as `namespace/name`.
    pod: Option<String>,
    /// One sentence.
    message: String,
    /// A word from an enum, where there is one.
    reason: Option<String>,
}

impl EventJson {
    pub(in crate::web) fn new(event: &Event) -> Self {
        Self {
            id: event.id.to_string(),
            at: Time(event.at),
            kind: KindWord(event.kind),
            node: event.node.as_ref().map(|node| node.as_str().to_owned()),
            pod: event.pod.clone(),
            message: event.message.clone(),
            reason: event.reason.clone(),
        }
    }
}

/// A part of the events.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Events)]
pub(in crate::web) struct EventsJson {
    /// The events.
    events: Vec<EventJson>,
    /// `after` for the next part; `null` when there is none now.
    next: Option<String>,
    /// Some events behind `after` are not there any more.
    gap: bool,
}

impl EventsJson {
    pub(in crate::web) fn new(page: &EventPage) -> Self {
        Self {
            events: page.events.iter().map(|e| EventJson::new(e)).collect(),
            next: page.next.map(|id| id.to_string()),
            gap: page.gap,
        }
    }
}
