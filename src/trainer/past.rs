//! The past as Prometheus knows it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use foreshock_core::node::NodeName;
use futures::future::BoxFuture;
use jiff::Timestamp;

use super::archive::{Archive, ArchiveError, Seen, What};
use crate::cycle::chain;
use crate::features::history::GRID;
use crate::features::identity::{Labels, Owner};
use crate::features::{FeatureMatrix, IdentityMap, NodeDirectory, NodeEntry, Schema, Telemetry};
use crate::prometheus::{PastSeries, PrometheusTelemetry, RangeError, Times};
use crate::train::signals::{Signal, alerts_promql, other_alerts_promql};

/// A question that fails is put so often before the training stops.
const ATTEMPTS_MAX: u32 = 3;
/// Pause before it is put again.
const PAUSE: Duration = Duration::from_secs(5);
/// The begin of the history is looked for in steps of this.
const COARSE: Duration = Duration::from_secs(3_600);

/// No range is asked for in more steps: Prometheus refuses 11,000.
const STEPS_MAX: u64 = 10_000;
/// A target whose exporter is silent is still known by what it was so many points ago: an hour.
const SILENT_POINTS: usize = 12;

/// The past as Prometheus knows it. Nodes are those that kube-state-metrics named at the time, and where it was
/// not there those that the exporters name: the cluster of today does not know who is gone.
#[derive(Debug)]
pub struct PrometheusArchive {
    telemetry: PrometheusTelemetry,
    schema: Arc<Schema>,
    alerts: String,
    other_alerts: String,
}

impl PrometheusArchive {
    /// What this Prometheus knows. `alerts` are patterns of the names of alerts that count as incidents.
    pub fn new<P: AsRef<str>>(
        telemetry: PrometheusTelemetry,
        schema: Arc<Schema>,
        alerts: &[P],
    ) -> Self {
        Self {
            telemetry,
            schema,
            alerts: alerts_promql(alerts),
            other_alerts: other_alerts_promql(alerts),
        }
    }

    /// How often the exporters are scraped; `None` if there are none at that time.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`].
    pub async fn scrape_interval(&self, at: Timestamp) -> Result<Option<Duration>, ArchiveError> {
        let asked = self.telemetry.scrape_interval(at).await;
        asked.map_err(|error| not_had(at, &error))
    }

    /// The first hour (of a very long range: the first step) in which there is an exporter; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`].
    pub async fn begin(
        &self,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Option<Timestamp>, ArchiveError> {
        let seconds = to.duration_since(from).as_secs().unsigned_abs();
        let step = COARSE.as_secs().max(seconds.div_ceil(STEPS_MAX));
        let times = Times {
            from,
            step: Duration::from_secs(step),
            n: usize::try_from(seconds / step).unwrap_or(0) + 1,
        };
        let counted = self.asked(from, "the exporters (up)", "count(up{$S})", times);
        let counted = counted.await?;
        let there = |i: usize| counted.iter().any(|series| is_there(series, i));
        let first = times.iter().enumerate().find(|(i, _)| there(*i));
        Ok(first.map(|(_, at)| at))
    }

    async fn asked(
        &self,
        from: Timestamp,
        what: &'static str,
        promql: &str,
        times: Times,
    ) -> Result<Vec<PastSeries>, ArchiveError> {
        let mut attempt = 1;
        loop {
            match self.telemetry.series(what, promql, times).await {
                Ok(series) => return Ok(series),
                Err(error @ RangeError::Query(_)) if attempt < ATTEMPTS_MAX => {
                    tracing::debug!(error = chain(&error), "asked again");
                    tokio::time::sleep(PAUSE).await;
                    attempt += 1;
                }
                Err(error) => return Err(not_had(from, &error)),
            }
        }
    }

    /// The Nodes of some time.
    async fn directory(
        &self,
        from: Timestamp,
        points: usize,
    ) -> Result<NodeDirectory, ArchiveError> {
        let times = Times {
            from,
            step: GRID,
            n: points,
        };
        let named = "max by (node, internal_ip) (kube_node_info)";
        let named = self.asked(from, "the Nodes (kube_node_info)", named, times);
        let named = named.await?;
        let born = Signal::Created;
        let born = self.asked(from, born.words(), born.promql(), times).await?;
        let born: BTreeMap<&str, f64> = born
            .iter()
            .filter_map(|series| Some((series.labels.get("node")?.as_str(), last(series)?)))
            .collect();
        // Of two addresses of one Node the later one.
        let mut latest: BTreeMap<&str, (usize, Option<&String>)> = BTreeMap::new();
        for series in &named {
            let there = series.values.iter().rposition(|value| !value.is_nan());
            let (Some(node), Some(there)) = (series.labels.get("node"), there) else {
                continue;
            };
            let entry = (there, series.labels.get("internal_ip"));
            let known = latest.entry(node.as_str()).or_insert(entry);
            if known.0 <= there {
                *known = entry;
            }
        }
        if latest.is_empty() {
            return Ok(NodeDirectory::open());
        }
        let entries = latest.into_iter().map(|(node, (_, address))| {
            // Of which nobody says when it was made was always there: none of its samples is too old for it.
            let created = born.get(node).copied().unwrap_or(0.0);
            NodeEntry {
                name: node.into(),
                // A Node that was made anew under its name is another one.
                uid: created.to_string().as_str().into(),
                created: Timestamp::from_second(created as i64).unwrap_or(Timestamp::UNIX_EPOCH),
                hostname: None,
                addresses: address.into_iter().cloned().collect(),
            }
        });
        Ok(NodeDirectory::new(entries))
    }

    async fn see(&self, from: Timestamp, n: usize) -> Result<Seen, ArchiveError> {
        let times = Times {
            from,
            step: Seen::STEP,
            n,
        };
        let each = (GRID.as_secs() / Seen::STEP.as_secs()) as usize;
        let points = n.div_ceil(each);
        let directory = self.directory(from, points).await?;
        let whose = self.telemetry.identities(from, points, &directory).await;
        let whose = Whose {
            directory,
            maps: whose.map_err(|error| not_had(from, &error))?,
            each,
        };
        let mut seen = Seen {
            from,
            series: Vec::new(),
        };
        for signal in Signal::ALL {
            let of_targets = matches!(signal, Signal::Down | Signal::Boot);
            let series = self.asked(from, signal.words(), signal.promql(), times);
            for ((node, _), values) in whose.joined(series.await?, of_targets, n) {
                seen.add(node.as_str(), What::Signal(signal), &values);
            }
        }
        let alerts = self.asked(from, "alerts (ALERTS)", &self.alerts, times);
        for ((node, alert), values) in whose.joined(alerts.await?, false, n) {
            seen.add(node.as_str(), What::Alert(alert), &values);
        }
        let others = self.asked(from, "other alerts (ALERTS)", &self.other_alerts, times);
        for ((node, alert), values) in whose.joined(others.await?, false, n) {
            seen.add(node.as_str(), What::OtherAlert(alert), &values);
        }
        Ok(seen)
    }

    async fn feature_matrices(
        &self,
        from: Timestamp,
        points: usize,
    ) -> Result<Vec<FeatureMatrix>, ArchiveError> {
        let directory = self.directory(from, points).await?;
        let n = u32::try_from(points).unwrap_or(u32::MAX);
        let mut attempt = 1;
        loop {
            let past = self.telemetry.past(&self.schema, from, n, &directory).await;
            let problem = match past {
                Ok(past) => match past.problems.into_iter().next() {
                    None => return Ok(past.matrices),
                    Some(problem) => problem,
                },
                Err(error) => chain(&error),
            };
            if attempt == ATTEMPTS_MAX {
                return Err(ArchiveError::NotHad { from, problem });
            }
            tracing::debug!(error = problem, "asked again");
            tokio::time::sleep(PAUSE).await;
            attempt += 1;
        }
    }
}

impl Archive for PrometheusArchive {
    fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    fn seen(&self, from: Timestamp, times: usize) -> BoxFuture<'_, Result<Seen, ArchiveError>> {
        Box::pin(self.see(from, times))
    }

    fn features(
        &self,
        from: Timestamp,
        points: usize,
    ) -> BoxFuture<'_, Result<Vec<FeatureMatrix>, ArchiveError>> {
        Box::pin(self.feature_matrices(from, points))
    }
}

/// Whose series were, point by point of the grid.
struct Whose {
    directory: NodeDirectory,
    maps: Vec<IdentityMap>,
    /// Times of a series for each point.
    each: usize,
}

impl Whose {
    /// Series by Node and alert; of several of one Node the largest value of each time.
    fn joined(
        &self,
        series: Vec<PastSeries>,
        of_targets: bool,
        n: usize,
    ) -> BTreeMap<(NodeName, String), Vec<f64>> {
        let mut joined: BTreeMap<(NodeName, String), Vec<f64>> = BTreeMap::new();
        for series in series {
            // Signals have none, and then one series for each Node.
            let alert = series.labels.get("alertname").map_or("", String::as_str);
            let each = self.each;
            for (point, values) in series.values.chunks(each).enumerate() {
                if values.iter().all(|value| value.is_nan()) {
                    continue;
                }
                let Some(node) = self.node(&series.labels, of_targets, point) else {
                    continue;
                };
                let whole = joined.entry((node, alert.to_owned()));
                let whole = whole.or_insert_with(|| vec![f64::NAN; n]);
                // `max` takes the number where the other is none.
                for (known, value) in whole.iter_mut().skip(point * each).zip(values) {
                    *known = known.max(*value);
                }
            }
        }
        joined
    }

    fn node(&self, labels: &Labels, of_targets: bool, point: usize) -> Option<NodeName> {
        // What says `node` means it; a Node whose exporter is silent is in no map.
        let named = labels.get("node").filter(|node| !node.is_empty());
        if let Some(node) = named.filter(|_| !of_targets) {
            return Some(node.as_str().into());
        }
        let instance = labels.get("instance").map(String::as_str);
        let owner = |map: &IdentityMap| match map.owner(&self.directory, None, instance, of_targets)
        {
            Owner::Node(node) => Some(Some(node.clone())),
            Owner::Refused => Some(None),
            Owner::Stranger => None,
        };
        // Whose exporter is silent is not named any more, and that is just what is to be known of it.
        let lately = if of_targets { SILENT_POINTS } else { 0 };
        let maps = self.maps.get(point.saturating_sub(lately)..=point)?;
        maps.iter().rev().find_map(owner).flatten()
    }
}

fn is_there(series: &PastSeries, i: usize) -> bool {
    series.values.get(i).is_some_and(|value| !value.is_nan())
}

fn last(series: &PastSeries) -> Option<f64> {
    let values = series.values.iter().rev();
    values.copied().find(|value| !value.is_nan())
}

fn not_had(from: Timestamp, error: &(dyn std::error::Error + 'static)) -> ArchiveError {
    let problem = chain(error);
    ArchiveError::NotHad { from, problem }
}

#[cfg(test)]
mod tests;
