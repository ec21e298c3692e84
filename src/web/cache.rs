//! Each snapshot written as JSON once, however many ask for it.
//!
//! Five thousand Nodes are two megabytes; the list is written when somebody first wants it and kept
//! until the next snapshot. Every filter, page and stream is cut from it.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{OnceCell, watch};

use super::view::{HealthJson, NodeJson, StatsJson, signature};
use super::words::Time;
use crate::snapshot::{NodeView, Snapshot};

/// From so many Nodes on, writing them leaves the async threads: about half a millisecond.
const INLINE_MAX: usize = 100;

/// So many differences are kept with a snapshot: streams are at the last one, or a few behind.
const DELTAS_MAX: usize = 4;

/// The latest snapshot, written as JSON.
pub(super) struct Cache {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    slot: Mutex<Option<Slot>>,
}

/// The cell in which a snapshot's JSON appears, so that nobody writes it twice.
#[derive(Clone)]
struct Slot {
    snapshot: Arc<Snapshot>,
    rendered: Arc<OnceCell<Arc<Rendered>>>,
}

/// A snapshot, written as JSON.
pub(super) struct Rendered {
    /// What was written.
    pub(super) snapshot: Arc<Snapshot>,
    /// The whole list of Nodes, as an array.
    list: Bytes,
    /// Where each Node is in `list`, in the order of the snapshot.
    spans: Vec<Range<usize>>,
    /// What a person would see of each Node, as a number.
    signatures: Vec<u64>,
    /// Differences from earlier snapshots, by the identity of those.
    deltas: Mutex<Vec<(Arc<Snapshot>, Bytes)>>,
}

impl Cache {
    /// A cache of what comes through this channel.
    pub(super) fn new(snapshots: watch::Receiver<Arc<Snapshot>>) -> Self {
        Self {
            snapshots,
            slot: Mutex::new(None),
        }
    }

    /// The latest snapshot.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// Tells when there is another snapshot.
    pub(super) fn changes(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// The latest snapshot as JSON, written now if nobody wanted it before.
    pub(super) async fn rendered(&self) -> Arc<Rendered> {
        let slot = self.slot();
        let snapshot = slot.snapshot.clone();
        let write = || async {
            if snapshot.nodes.len() <= INLINE_MAX {
                return Arc::new(Rendered::new(snapshot));
            }
            let on_thread = snapshot.clone();
            match tokio::task::spawn_blocking(move || Rendered::new(on_thread)).await {
                Ok(rendered) => Arc::new(rendered),
                // Only a runtime that is shutting down, or a panic, which would show here again.
                Err(_) => Arc::new(Rendered::new(snapshot)),
            }
        };
        slot.rendered.get_or_init(write).await.clone()
    }

    fn slot(&self) -> Slot {
        let snapshot = self.snapshot();
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        match &*slot {
            Some(present) if Arc::ptr_eq(&present.snapshot, &snapshot) => present.clone(),
            _ => {
                let fresh = Slot {
                    snapshot,
                    rendered: Arc::new(OnceCell::new()),
                };
                *slot = Some(fresh.clone());
                fresh
            }
        }
    }
}

impl Rendered {
    fn new(snapshot: Arc<Snapshot>) -> Self {
        // About what a healthy Node takes; saves most of the growing.
        let mut list = Vec::with_capacity(snapshot.nodes.len() * 640 + 2);
        let mut spans = Vec::with_capacity(snapshot.nodes.len());
        list.push(b'[');
        for node in &snapshot.nodes {
            if list.len() > 1 {
                list.push(b',');
            }
            let start = list.len();
            append_json(&mut list, &NodeJson::new(node));
            spans.push(start..list.len());
        }
        list.push(b']');
        Self {
            signatures: snapshot.nodes.iter().map(signature).collect(),
            list: list.into(),
            spans,
            snapshot,
            deltas: Mutex::default(),
        }
    }

    /// All Nodes, as an array.
    pub(super) fn list(&self) -> Bytes {
        self.list.clone()
    }

    /// The answer to `GET /api/nodes`: Nodes that are wanted, behind `cursor`, at most `limit`.
    pub(super) fn page(
        &self,
        wanted: impl Fn(&NodeView) -> bool,
        cursor: Option<&str>,
        limit: usize,
    ) -> Vec<u8> {
        let mut body = Vec::with_capacity(if limit < 1_000 {
            64 << 10
        } else {
            self.list.len()
        });
        body.extend_from_slice(b"{\"at\":");
        append_json(&mut body, &Time(self.snapshot.at));
        body.extend_from_slice(b",\"nodes\":[");
        let nodes = &self.snapshot.nodes;
        let start = cursor.map_or(0, |cursor| {
            nodes.partition_point(|node| node.name().as_str() <= cursor)
        });
        let mut last: Option<&NodeView> = None;
        let mut next = None;
        let mut count = 0;
        for (node, span) in nodes.iter().zip(&self.spans).skip(start) {
            if !wanted(node) {
                continue;
            }
            if count == limit {
                next = last.map(|node| node.name().as_str());
                break;
            }
            if count > 0 {
                body.push(b',');
            }
            body.extend_from_slice(&self.list[span.clone()]);
            count += 1;
            last = Some(node);
        }
        body.extend_from_slice(b"],\"next\":");
        append_json(&mut body, &next);
        body.push(b'}');
        body
    }

    /// What a person would see change from an earlier snapshot to this one, as JSON.
    pub(super) fn delta_from(&self, earlier: &Self, now: Timestamp) -> Bytes {
        let mut deltas = self.deltas.lock().unwrap_or_else(PoisonError::into_inner);
        let known = deltas
            .iter()
            .find(|(from, _)| Arc::ptr_eq(from, &earlier.snapshot));
        if let Some((_, delta)) = known {
            return delta.clone();
        }
        let delta = self.delta(earlier, now);
        if deltas.len() == DELTAS_MAX {
            deltas.remove(0);
        }
        deltas.push((earlier.snapshot.clone(), delta.clone()));
        delta
    }

    fn delta(&self, earlier: &Self, now: Timestamp) -> Bytes {
        let mut body = Vec::with_capacity(4 << 10);
        body.extend_from_slice(b"{\"at\":");
        append_json(&mut body, &Time(self.snapshot.at));
        body.extend_from_slice(b",\"changed\":[");
        let mut removed: Vec<&str> = Vec::new();
        let mut before = earlier
            .snapshot
            .nodes
            .iter()
            .zip(&earlier.signatures)
            .peekable();
        let mut first = true;
        for ((node, signature), span) in self
            .snapshot
            .nodes
            .iter()
            .zip(&self.signatures)
            .zip(&self.spans)
        {
            while let Some((gone, _)) = before.next_if(|(old, _)| old.name() < node.name()) {
                removed.push(gone.name().as_str());
            }
            let same = before
                .next_if(|(old, _)| old.name() == node.name())
                .is_some_and(|(_, old)| old == signature);
            if !same {
                if !first {
                    body.push(b',');
                }
                first = false;
                body.extend_from_slice(&self.list[span.clone()]);
            }
        }
        removed.extend(before.map(|(gone, _)| gone.name().as_str()));
        body.extend_from_slice(b"],\"removed\":");
        append_json(&mut body, &removed);
        body.extend_from_slice(b",\"health\":");
        append_json(&mut body, &HealthJson::new(&self.snapshot, now));
        body.extend_from_slice(b",\"stats\":");
        append_json(&mut body, &StatsJson::new(&self.snapshot, now));
        body.push(b'}');
        body.into()
    }
}

/// Appends a value as JSON. Our own shapes have string keys and numbers that are checked, so that
/// writing them cannot fail; `null` stands in for the impossible.
pub(super) fn append_json(body: &mut Vec<u8>, value: &impl Serialize) {
    let length = body.len();
    if serde_json::to_writer(&mut *body, value).is_err() {
        body.truncate(length);
        body.extend_from_slice(b"null");
    }
}
