//! The features of a simulated fleet, where no Prometheus stands in between.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;

use super::fleet::server::SharedFleet;
use super::fleet::{Columns, EXPORTER_VERSION};
use crate::features::identity::{Labels, Sightings, Target};
use crate::features::telemetry::Column;
use crate::features::{
    FeatureMatrix, IdentityMap, NodeDirectory, Schema, Telemetered, Telemetry, TelemetryError,
};

/// Asks a simulated fleet for its features, worked out from the same counters that it exposes.
pub struct FleetTelemetry {
    fleet: SharedFleet,
    columns: Columns,
    stale_after: Duration,
}

impl FleetTelemetry {
    /// Over a fleet that remembers (`FleetOptions::memory`).
    pub fn new(
        fleet: SharedFleet,
        schema: Arc<Schema>,
        rate_window: Duration,
        stale_after: Duration,
    ) -> Self {
        Self {
            fleet,
            columns: Columns::new(schema, rate_window, stale_after),
            stale_after,
        }
    }
}

/// The targets as `/sd` and the pages of the fleet show them to a Prometheus.
fn identity(matrix: &FeatureMatrix, at: Timestamp, stale_after: Duration) -> IdentityMap {
    let labels = |pairs: &[(&str, &str)]| -> Labels {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    let mut sightings = Sightings::default();
    for (node, scraped_at) in matrix.nodes.iter().zip(&matrix.scraped_at) {
        let instance = format!("{node}:9100");
        let target = labels(&[
            ("instance", &instance),
            ("job", "node-exporter"),
            ("node", node.as_str()),
        ]);
        if let Some(scraped_at) = scraped_at {
            sightings.targets.push(Target {
                labels: target.clone(),
                scraped_at: *scraped_at,
            });
            let version = ("version", EXPORTER_VERSION);
            sightings
                .builds
                .push(labels(&[("instance", &instance), version]));
        }
        sightings.up.push(target);
    }
    IdentityMap::resolve(&NodeDirectory::open(), at, stale_after, &sightings)
}

impl Telemetry for FleetTelemetry {
    fn snapshot<'a>(
        &'a self,
        at: Timestamp,
        _nodes: &'a NodeDirectory,
    ) -> BoxFuture<'a, Result<Telemetered, TelemetryError>> {
        Box::pin(async move {
            let matrix = self.fleet.with(|fleet| self.columns.matrix(fleet, at));
            let columns = matrix
                .schema
                .features()
                .iter()
                .enumerate()
                .map(|(place, feature)| {
                    let filled = matrix
                        .values
                        .column(place)
                        .iter()
                        .filter(|value| !value.is_nan())
                        .count();
                    Column {
                        series: filled,
                        filled,
                        ..Column::new(feature.name.clone(), at)
                    }
                })
                .collect();
            let identity = identity(&matrix, at, self.stale_after);
            Ok(Telemetered {
                matrix,
                columns,
                identity,
                problems: Vec::new(),
            })
        })
    }
}
