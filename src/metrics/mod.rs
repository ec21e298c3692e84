//! The body of `/metrics`: the last cycle's Nodes, and what foreshock has counted.
//!
//! One scrape shows one cycle: everything about Nodes comes from one [`Snapshot`], so a Node that has
//! vanished takes its series along. That part is large and is encoded once per snapshot; ages and
//! counts are encoded afresh, so that a cycle that hangs is seen to hang.

mod counters;
mod encode;
mod names;
mod process;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use prometheus_client::encoding::text::encode_eof;
use tokio::sync::watch;

use crate::snapshot::Snapshot;

pub use counters::{Counters, ReloadOutcome, TelemetryOutcome, WebhookOutcome, WriteOutcome};
pub use names::{Described, Kind, METRICS};

/// `Content-Type` of the body.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What `/metrics` answers.
pub struct Metrics {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    counters: Arc<Counters>,
    /// The part about Nodes, and the snapshot that it shows. 5,000 Nodes take tens of milliseconds
    /// and 3 MB; two Prometheus replicas and a page ask for the same.
    nodes: Mutex<Option<(Arc<Snapshot>, Arc<str>)>>,
}

impl Metrics {
    /// Over the latest of these snapshots and these counters.
    pub fn new(snapshots: watch::Receiver<Arc<Snapshot>>, counters: Arc<Counters>) -> Self {
        Self {
            snapshots,
            counters,
            nodes: Mutex::new(None),
        }
    }

    /// The body, in the OpenMetrics text format 1.0 ([`CONTENT_TYPE`]). Ages are those at `now`.
    ///
    /// # Caveats
    ///
    /// Takes tens of milliseconds in a large cluster; not for an asynchronous thread.
    pub fn render(&self, now: Timestamp) -> String {
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let nodes = self.nodes_part(&snapshot);
        let own = encode::own(&snapshot, &self.counters, now);
        let mut body = String::with_capacity(nodes.len() + own.len() + 16);
        body.push_str(&nodes);
        body.push_str(&own);
        encode_eof(&mut body).expect("writing to a String cannot fail");
        body
    }

    fn nodes_part(&self, snapshot: &Arc<Snapshot>) -> Arc<str> {
        // Held while encoding on purpose: scrapes that come together encode once.
        let mut cached = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cached {
            Some((of, body)) if Arc::ptr_eq(of, snapshot) => Arc::clone(body),
            _ => {
                let body: Arc<str> = encode::nodes(snapshot, &self.counters).into();
                *cached = Some((Arc::clone(snapshot), Arc::clone(&body)));
                body
            }
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
