//! The past of a simulated fleet, as the service's own training asks for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use foreshock::features::history::GRID;
use foreshock::features::{FeatureMatrix, Schema};
use foreshock::simulate::fleet::{
    Columns, FaultEvent, Fleet, FleetError, FleetOptions, MemoryOptions, Scrapes, node_names,
};
use foreshock::train::signals::Signal;
use foreshock::trainer::archive::{Archive, ArchiveError, Seen, What};
use foreshock_core::node::NodeName;
use foreshock_core::time::after;
use futures::future::BoxFuture;
use jiff::Timestamp;

/// How often the fleet is scraped, and how long one of its steps is.
pub(crate) const SCRAPE: Duration = Duration::from_secs(15);

/// Alerts as operators have them by the dozen: a feature and the value from which on it is pending.
const ALERTS: [(&str, &str, f64); 8] = [
    ("MemoryHighUtilization", "mem_used", 0.9),
    ("MemoryMajorPagesFaults", "major_faults", 500.0),
    ("DiskIOSaturation", "disk_queue", 10.0),
    ("SystemSaturation", "load_per_core", 2.0),
    ("CPUHighUsage", "cpu_used", 0.9),
    ("FilesystemAlmostOutOfSpace", "fs_used", 0.95),
    ("NetworkReceiveErrs", "net_error_ratio", 0.01),
    ("FilesystemSpaceFillingUp", "fs_in_24h", 1.0),
];

/// The past of a fleet, simulated to its end.
pub(crate) struct FleetArchive {
    schema: Arc<Schema>,
    begin: Timestamp,
    /// One for each point of the grid.
    matrices: Vec<FeatureMatrix>,
    /// When each Node was degraded.
    degraded: BTreeMap<NodeName, Vec<(Timestamp, Timestamp)>>,
}

impl FleetArchive {
    /// Simulates `days` of `nodes` Nodes from `begin` (on the grid) on.
    ///
    /// # Errors
    ///
    /// [`FleetError`].
    pub(crate) fn simulate(
        seed: u64,
        nodes: usize,
        begin: Timestamp,
        days: u64,
        schedule: Vec<FaultEvent>,
    ) -> Result<Self, FleetError> {
        let schema = Arc::new(Schema::built_in());
        let memory = MemoryOptions {
            scrapes: Scrapes::Every(SCRAPE),
            ..MemoryOptions::every(SCRAPE)
        };
        let mut fleet = Fleet::new(FleetOptions {
            nodes: node_names(nodes),
            tick: SCRAPE,
            schedule,
            memory: Some(memory.clone()),
            ..FleetOptions::new(seed, nodes, begin)
        })?;
        let columns = Columns::new(
            Arc::clone(&schema),
            memory.rate_window,
            Duration::from_secs(120),
        );
        let points = days * 86_400 / GRID.as_secs();
        let mut matrices = Vec::new();
        for point in 0..points {
            let at = after(begin, Duration::from_secs(GRID.as_secs() * point));
            fleet.advance(at);
            matrices.push(columns.matrix(&fleet, at));
        }
        let end = after(begin, Duration::from_secs(days * 86_400));
        let of = |node: &NodeName| {
            let incidents = fleet.incidents(node).iter();
            incidents
                .map(|one| (one.from, one.until.unwrap_or(end)))
                .collect()
        };
        let degraded = fleet.names().map(|node| (node.clone(), of(node))).collect();
        Ok(Self {
            schema,
            begin,
            matrices,
            degraded,
        })
    }

    fn see(&self, from: Timestamp, times: usize) -> Seen {
        let mut seen = Seen {
            from,
            ..Seen::default()
        };
        let at: Vec<Timestamp> = (0..times as u32)
            .map(|i| after(from, Seen::STEP * i))
            .collect();
        for (node, degraded) in &self.degraded {
            let is = |at: &Timestamp| degraded.iter().any(|(from, to)| from <= at && at < to);
            let not_ready: Vec<f64> = at.iter().map(|at| f64::from(u8::from(is(at)))).collect();
            seen.add(node.as_str(), What::Signal(Signal::NotReady), &not_ready);
            seen.add(node.as_str(), What::Signal(Signal::Down), &vec![0.0; times]);
            for (alert, feature, limit) in ALERTS {
                let pending = |at: &Timestamp| {
                    let since = at.duration_since(self.begin).as_secs() / GRID.as_secs() as i64;
                    let matrix = usize::try_from(since)
                        .ok()
                        .and_then(|i| self.matrices.get(i));
                    let value = matrix.and_then(|m| m.value_of(m.row_of(node)?, feature));
                    if value.is_some_and(|value| value >= limit) {
                        1.0
                    } else {
                        f64::NAN
                    }
                };
                let values: Vec<f64> = at.iter().map(pending).collect();
                seen.add(node.as_str(), What::OtherAlert(alert.to_owned()), &values);
            }
        }
        seen
    }
}

impl Archive for FleetArchive {
    fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    fn seen(&self, from: Timestamp, times: usize) -> BoxFuture<'_, Result<Seen, ArchiveError>> {
        Box::pin(std::future::ready(Ok(self.see(from, times))))
    }

    fn features(
        &self,
        from: Timestamp,
        points: usize,
    ) -> BoxFuture<'_, Result<Vec<FeatureMatrix>, ArchiveError>> {
        let asked = self.matrices.iter().filter(|matrix| matrix.at >= from);
        Box::pin(std::future::ready(Ok(asked
            .take(points)
            .cloned()
            .collect())))
    }
}
