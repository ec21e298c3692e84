//! The features of a simulated fleet, where no Prometheus stands in between.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;

use super::fleet::Columns;
use super::fleet::server::SharedFleet;
use crate::features::telemetry::Column;
use crate::features::{IdentityMap, NodeDirectory, Schema, Telemetered, Telemetry, TelemetryError};

/// Asks a simulated fleet for its features, worked out from the same counters that it exposes.
pub struct FleetTelemetry {
    fleet: SharedFleet,
    columns: Columns,
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
        }
    }
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
            Ok(Telemetered {
                matrix,
                columns,
                identity: IdentityMap::default(),
                problems: Vec::new(),
            })
        })
    }
}
