//! Server-Sent Events: first the whole picture, then what happens and what changes.
//!
//! | event | data |
//! |---|---|
//! | `snapshot` | first of all: `start`, `resumed`, `last_event_id`, `at`, `health`, `stats`, `nodes` |
//! | `nodes` | after each decision: `at`, `changed` Nodes, `removed` names, `health`, `stats` |
//! | a kind of event | the event, with its `id:` |
//! | `reload` | this reader was too slow; the stream ends, and a new one begins with a snapshot |
//!
//! A stream is pulled by its reader: one that does not read holds a bounded queue and nothing else.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast, watch};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::cache::{Rendered, append_json};
use super::problem::Problem;
use super::query::RawQuery;
use super::router::App;
use super::view::{EventJson, HealthJson, StatsJson};
use super::words::Time;
use crate::events::{Event, EventId};
use crate::snapshot::Snapshot;

/// How long a browser waits before it connects again.
const RETRY: Duration = Duration::from_secs(2);

/// What a stream begins with, but for the Nodes, which are cut from the cache.
#[derive(Serialize, ToSchema)]
struct Beginning {
    /// First part of the ids of this start.
    start: String,
    /// What was missed follows; otherwise events may have been lost, and the list of events has
    /// to be read anew.
    resumed: bool,
    /// The newest event at this moment.
    last_event_id: String,
    /// The time of the decision that is shown.
    at: Time,
    health: HealthJson,
    stats: StatsJson,
}

/// Events as they happen (`text/event-stream`): first `event: snapshot` with health, statistics and
/// every Node; then `event: nodes` with what changed, and each event under its kind, with its id.
/// `Last-Event-ID` (or `last_event_id`) resumes; an id of another start gets the snapshot alone.
#[utoipa::path(get, path = "/api/events/stream", tag = "events",
    params(
        ("Last-Event-ID" = Option<String>, Header, description = "id of the last event seen"),
        ("last_event_id" = Option<String>, Query, description = "the same, for those who cannot set headers"),
    ),
    responses(
        (status = 200, description = "events", body = String, content_type = "text/event-stream"),
        (status = 503, description = "too many streams", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn stream(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    query: RawQuery,
) -> Result<Response, Problem> {
    let query = query.of(&["last_event_id"])?;
    let permit = app
        .streams
        .clone()
        .try_acquire_owned()
        .map_err(|_| Problem::busy("too many streams are open; close a page, or try again"))?;
    // An id that cannot be read is one of another start: both get a fresh picture.
    let seen: Option<EventId> = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok())
        .or_else(|| query.text("last_event_id"))
        .and_then(|text| text.trim().parse().ok());

    let mut snapshots = app.cache.changes();
    snapshots.mark_unchanged();
    // The events before the picture: what happens in between is then told twice, not lost.
    let watch = app.state.events.watch(seen);
    let rendered = app.cache.rendered().await;
    let mut reader = Reader {
        frames: VecDeque::new(),
        events: watch.events,
        snapshots,
        shown: rendered.clone(),
        shown_at: Instant::now(),
        ended: false,
        app,
        _permit: permit,
    };
    reader.begin(&rendered, watch.last, watch.missed.as_deref());
    let frames = futures::stream::unfold(reader, |mut reader| async move {
        let frame = reader.next().await?;
        Some((Ok::<Bytes, Infallible>(frame), reader))
    });
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Tells nginx and its kind to hand each event on at once.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// One open stream.
struct Reader {
    frames: VecDeque<Bytes>,
    events: broadcast::Receiver<Arc<Event>>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    /// What the reader has been told of the Nodes.
    shown: Arc<Rendered>,
    shown_at: Instant,
    ended: bool,
    app: Arc<App>,
    _permit: OwnedSemaphorePermit,
}

impl Reader {
    /// Queues the picture, and what was missed.
    fn begin(&mut self, rendered: &Rendered, last: EventId, missed: Option<&[Arc<Event>]>) {
        let snapshot = &rendered.snapshot;
        let now = self.app.now();
        let beginning = Beginning {
            start: last.start.to_string(),
            resumed: missed.is_some(),
            last_event_id: last.to_string(),
            at: Time(snapshot.at),
            health: HealthJson::new(snapshot, now),
            stats: StatsJson::new(snapshot, now),
        };
        let mut head = format!("retry: {}\nevent: snapshot\n", RETRY.as_millis()).into_bytes();
        if missed.is_none() {
            // Who resumes keeps its own id until it has been told what it missed.
            head.extend_from_slice(format!("id: {last}\n").as_bytes());
        }
        head.extend_from_slice(b"data: ");
        append_json(&mut head, &beginning);
        // The Nodes go into the same object, without being copied for each reader.
        head.pop();
        head.extend_from_slice(b",\"nodes\":");
        self.frames.push_back(head.into());
        self.frames.push_back(rendered.list());
        self.frames.push_back(Bytes::from_static(b"}\n\n"));
        for event in missed.unwrap_or_default() {
            self.frames.push_back(event_frame(event));
        }
    }

    /// The next bytes; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(frame) = self.frames.pop_front() {
            return Some(frame);
        }
        if self.ended {
            return None;
        }
        let due = self.shown_at + self.app.bounds.stream_interval;
        let idle = Instant::now() + self.app.bounds.keep_alive;
        // Set when there is another picture but it is too soon to send it.
        let mut waiting = false;
        loop {
            tokio::select! {
                biased;
                () = self.app.shutdown.cancelled() => return None,
                event = self.events.recv() => return match event {
                    Ok(event) => Some(event_frame(&event)),
                    Err(RecvError::Lagged(_)) => {
                        self.ended = true;
                        Some(Bytes::from_static(
                            b"event: reload\ndata: {\"reason\":\"this reader was too slow\"}\n\n",
                        ))
                    }
                    Err(RecvError::Closed) => None,
                },
                changed = self.snapshots.changed(), if !waiting => {
                    changed.ok()?;
                    waiting = true;
                }
                () = tokio::time::sleep_until(due), if waiting => return Some(self.changes().await),
                () = tokio::time::sleep_until(idle) => {
                    return Some(Bytes::from_static(b": keep-alive\n\n"));
                }
            }
        }
    }

    /// What changed since the reader was last told.
    async fn changes(&mut self) -> Bytes {
        self.snapshots.mark_unchanged();
        let rendered = self.app.cache.rendered().await;
        let delta = rendered.delta_from(&self.shown, self.app.now());
        self.shown = rendered;
        self.shown_at = Instant::now();
        let mut frame = Vec::with_capacity(delta.len() + 32);
        frame.extend_from_slice(b"event: nodes\ndata: ");
        frame.extend_from_slice(&delta);
        frame.extend_from_slice(b"\n\n");
        frame.into()
    }
}

/// JSON has no line breaks of its own, so that one `data:` line carries any text.
fn event_frame(event: &Event) -> Bytes {
    let mut frame = format!("event: {}\nid: {}\ndata: ", event.kind, event.id).into_bytes();
    append_json(&mut frame, &EventJson::new(event));
    frame.extend_from_slice(b"\n\n");
    frame.into()
}
