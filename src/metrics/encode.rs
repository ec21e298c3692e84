//! From snapshot and counters to text.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use foreshock_core::decision::verdict::{HoldReason, Phase};
use foreshock_core::risk::Band;
use foreshock_core::time::since;
use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::counters::Counters;
use super::names::{self, Kind, Metric};
use super::process::Process;
use crate::snapshot::{Drift, Snapshot};

/// Contributions of one Node that are exported: the number of reasons a person reads.
const CONTRIBUTIONS_MAX: usize = 5;

/// The part about Nodes; nothing where this process does not lead or knows nothing yet. A follower
/// sees the same Nodes, and both would be added up.
pub(super) fn nodes(snapshot: &Arc<Snapshot>, counters: &Counters) -> String {
    if !snapshot.synced || !snapshot.health.leader {
        return String::new();
    }
    let snapshot = Arc::clone(snapshot);
    let blocked = counters.blocked();
    text(move |out| {
        node_series(out, &snapshot)?;
        out.gauges(&names::NODES, snapshot.bands(), |(band, n)| {
            ([band.as_str().into()], *n as i64)
        })?;
        let holds = snapshot.holds();
        out.gauges(&names::HOLDS, HoldReason::ALL, |reason| {
            let n = holds.get(reason).copied().unwrap_or_default();
            ([reason.as_str().into()], n as i64)
        })?;
        out.gauge(&names::STORM, i64::from(snapshot.storm.is_some()))?;
        let ramp = snapshot.ramp.as_ref().map(|ramp| f64::from(ramp.width));
        out.maybe(&names::STORM_RAMP, ramp)?;
        out.gauges(&names::BUDGET, &snapshot.limits, |limit| {
            let left = limit.max.saturating_sub(limit.used) as i64;
            ([limit.scope.as_str().into(), limit.name.into()], left)
        })?;
        out.gauges(&names::BLOCKED, &blocked, |((namespace, pdb), n)| {
            (
                [namespace.as_str().into(), pdb.as_str().into()],
                i64::from(**n),
            )
        })
    })
}

/// The part about foreshock itself.
pub(super) fn own(snapshot: &Arc<Snapshot>, counters: &Arc<Counters>, now: Timestamp) -> String {
    let snapshot = Arc::clone(snapshot);
    let counters = Arc::clone(counters);
    text(move |out| {
        counts(out, &counters)?;
        // Those of the verdicts, not of the book: after a restart the Nodes' records still hold some.
        let active = snapshot.nodes.iter().map(|node| node.verdict.alerts.len());
        out.gauge(&names::ALERTS_ACTIVE, active.sum::<usize>() as i64)?;
        stages(out, &counters)?;
        out.gauge(&names::CYCLE_INTERVAL, snapshot.interval.as_secs_f64())?;
        let decided_at = snapshot.synced.then_some(snapshot.at);
        out.maybe(&names::CYCLE_LAST, decided_at.map(seconds))?;
        let age = |at| since(at, now).as_secs_f64();
        let features_at = snapshot.health.prometheus.features_at;
        out.maybe(&names::FEATURE_AGE, features_at.map(age))?;
        out.gauge(&names::FEATURES_FAILED, counters.features_failed() as i64)?;
        let history = counters.history().map(|history| history.as_secs_f64());
        out.maybe(&names::HISTORY, history)?;
        out.gauge(&names::TARGETS_REFUSED, counters.targets_refused() as i64)?;
        health(out, &snapshot)?;
        process(out, &snapshot)
    })
}

fn node_series(out: &mut Out<'_>, snapshot: &Snapshot) -> fmt::Result {
    let at_risk = |band| match band {
        Band::Caution | Band::AtRisk => true,
        Band::Healthy | Band::Unknown => false,
    };
    let nodes = &snapshot.nodes;
    let risks = nodes
        .iter()
        .filter_map(|node| Some((node, node.verdict.risk?)));
    out.gauges(&names::NODE_RISK, risks, |(node, risk)| {
        ([node.name().as_str().into()], risk.as_f64())
    })?;
    let phases = nodes
        .iter()
        .flat_map(|node| Phase::ALL.map(|phase| (node, phase)));
    out.gauges(&names::NODE_PHASE, phases, |(node, phase)| {
        let is = i64::from(node.verdict.phase == *phase);
        ([node.name().as_str().into(), phase.as_str().into()], is)
    })?;
    let contributions = nodes
        .iter()
        .filter(|node| at_risk(node.verdict.band))
        .flat_map(|node| {
            let largest = node.contributions.iter().take(CONTRIBUTIONS_MAX);
            largest.map(move |contribution| (node, contribution))
        });
    out.gauges(&names::NODE_CONTRIBUTION, contributions, |(node, part)| {
        let labels = [node.name().as_str().into(), part.feature.as_str().into()];
        (labels, part.contribution)
    })?;
    let rules = nodes.iter().filter_map(|node| Some((node, node.rule?)));
    out.gauges(&names::NODE_RULE, rules, |(node, rule)| {
        ([node.name().as_str().into()], rule.as_f64())
    })?;
    out.gauges(&names::NODE_MISSING, nodes, |node| {
        ([node.name().as_str().into()], node.missing)
    })?;
    let holds = nodes
        .iter()
        .filter_map(|node| Some((node, node.verdict.hold()?)));
    out.gauges(&names::NODE_HOLD, holds, |(node, hold)| {
        let labels = [node.name().as_str().into(), hold.reason.as_str().into()];
        (labels, 1_i64)
    })
}

fn counts(out: &mut Out<'_>, counters: &Counters) -> fmt::Result {
    out.counters(
        &names::TAINTS,
        counters.writes(),
        |((cause, outcome), n)| ([cause.as_str().into(), outcome.as_str().into()], *n),
    )?;
    out.counters(&names::EVICTIONS, counters.pods(), |(outcome, n)| {
        ([outcome.as_str().into()], *n)
    })?;
    out.counters(&names::DRAINS, counters.drains(), |(outcome, n)| {
        ([outcome.as_str().into()], *n)
    })?;
    let replacements = counters.replacements();
    out.family(&names::REPLACEMENT)?
        .encode_histogram::<NoLabelSet>(
            replacements.sum.as_secs_f64(),
            replacements.count,
            &replacements.buckets(),
            None,
        )?;
    out.family(&names::REPLACEMENTS_MISSING)?
        .encode_counter::<NoLabelSet, _, u64>(&counters.missing(), None)?;
    let alerts = counters.alert_outcomes();
    out.counters(&names::ALERTS_RECEIVED, alerts, |(outcome, n)| {
        ([outcome.as_str().into()], *n)
    })?;
    out.counters(&names::WEBHOOKS, counters.webhooks(), |(outcome, n)| {
        ([outcome.as_str().into()], *n)
    })?;
    out.counters(&names::TELEMETRY, counters.telemetry(), |(outcome, n)| {
        ([outcome.as_str().into()], *n)
    })?;
    out.counters(&names::MODEL_RELOADS, counters.reloads(), |(outcome, n)| {
        ([outcome.as_str().into()], *n)
    })
}

fn stages(out: &mut Out<'_>, counters: &Counters) -> fmt::Result {
    let mut family = out.family(&names::CYCLE)?;
    for (stage, timings) in counters.stages() {
        let labels = labels(&names::CYCLE, [stage]);
        family
            .encode_family(&labels)?
            .encode_histogram::<NoLabelSet>(
                timings.sum.as_secs_f64(),
                timings.count,
                &timings.buckets(),
                None,
            )?;
    }
    Ok(())
}

fn health(out: &mut Out<'_>, snapshot: &Snapshot) -> fmt::Result {
    let health = &snapshot.health;
    if let Some(model) = &health.model {
        let values = [&model.name, &model.schema, &model.source].map(String::as_str);
        out.info(&names::MODEL, values)?;
    }
    if let Some(drift) = snapshot.model.as_ref().and_then(|card| card.drift.as_ref()) {
        model_drift(out, drift)?;
    }
    out.gauge(&names::LEADER, i64::from(health.leader))?;
    out.gauge(&names::PAUSED, i64::from(health.paused))?;
    let dependencies = [
        ("prometheus", health.prometheus.ok),
        ("kubernetes", health.kubernetes.ok),
    ];
    out.gauges(&names::DEPENDENCY, dependencies, |(name, ok)| {
        ([(*name).into()], i64::from(*ok))
    })?;
    out.gauge(&names::DEGRADED, health.degraded.len() as i64)?;
    out.info(&names::BUILD, [snapshot.version])
}

fn model_drift(out: &mut Out<'_>, drift: &Drift) -> fmt::Result {
    let features = &drift.measured.features;
    let known = features.iter().filter_map(|one| Some((one, one.index?)));
    out.gauges(&names::MODEL_DRIFT, known, |(one, index)| {
        ([one.feature.as_str().into()], *index)
    })?;
    out.maybe(&names::MODEL_SCORE_DRIFT, drift.measured.score)?;
    out.gauge(&names::MODEL_DRIFTED, i64::from(drift.alarmed))?;
    out.gauges(&names::MODEL_MISSING, features, |one| {
        ([one.feature.as_str().into()], one.missing)
    })?;
    out.gauges(&names::MODEL_FAR_OUT, features, |one| {
        ([one.feature.as_str().into()], one.far_out)
    })?;
    if let Some(outcomes) = &drift.outcomes {
        out.gauge(&names::MODEL_EXPECTED, outcomes.expected)?;
        out.gauge(&names::MODEL_OBSERVED, outcomes.observed as f64)?;
    }
    Ok(())
}

fn process(out: &mut Out<'_>, snapshot: &Snapshot) -> fmt::Result {
    let process = Process::read();
    if let Some(cpu) = process.cpu_seconds {
        out.family(&names::PROCESS_CPU)?
            .encode_counter::<NoLabelSet, _, u64>(&cpu, None)?;
    }
    let whole = |n: Option<u64>| n.map(|n| n as f64);
    out.maybe(&names::PROCESS_RSS, whole(process.resident_bytes))?;
    out.maybe(&names::PROCESS_FDS, whole(process.open_fds))?;
    out.gauge(&names::PROCESS_START, seconds(snapshot.started_at))
}

fn seconds(at: Timestamp) -> f64 {
    Duration::try_from(at.as_duration()).map_or(0.0, |since| since.as_secs_f64())
}

/// Runs `write` as a collector of its own and returns what it wrote.
fn text(write: impl Fn(&mut Out<'_>) -> fmt::Result + Send + Sync + 'static) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Part(write)));
    let mut text = String::new();
    encode_registry(&mut text, &registry).expect("writing to a String cannot fail");
    text
}

struct Part<F>(F);

impl<F> fmt::Debug for Part<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Part")
    }
}

impl<F: Fn(&mut Out<'_>) -> fmt::Result + Send + Sync + 'static> Collector for Part<F> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        (self.0)(&mut Out(encoder))
    }
}

struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn family<const N: usize>(
        &mut self,
        metric: &Metric<N>,
    ) -> Result<MetricEncoder<'_>, fmt::Error> {
        let kind = match metric.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
            Kind::Info => MetricType::Info,
        };
        self.0
            .encode_descriptor(metric.base(), metric.help, None, kind)
    }

    fn gauges<T, V: EncodeGaugeValue, const N: usize>(
        &mut self,
        metric: &Metric<N>,
        items: impl IntoIterator<Item = T>,
        sample: impl for<'s> Fn(&'s T) -> ([Value<'s>; N], V),
    ) -> fmt::Result {
        let mut family = self.family(metric)?;
        for item in items {
            let (values, value) = sample(&item);
            family
                .encode_family(&labels(metric, values.map(|value| value.0)))?
                .encode_gauge(&value)?;
        }
        Ok(())
    }

    fn counters<T, V: EncodeCounterValue, const N: usize>(
        &mut self,
        metric: &Metric<N>,
        items: impl IntoIterator<Item = T>,
        sample: impl for<'s> Fn(&'s T) -> ([Value<'s>; N], V),
    ) -> fmt::Result {
        let mut family = self.family(metric)?;
        for item in items {
            let (values, value) = sample(&item);
            family
                .encode_family(&labels(metric, values.map(|value| value.0)))?
                .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    fn gauge(&mut self, metric: &Metric<0>, value: impl EncodeGaugeValue) -> fmt::Result {
        self.family(metric)?.encode_gauge(&value)
    }

    /// A gauge that is absent rather than wrong.
    fn maybe(&mut self, metric: &Metric<0>, value: Option<f64>) -> fmt::Result {
        value.map_or(Ok(()), |value| self.gauge(metric, value))
    }

    fn info<const N: usize>(&mut self, metric: &Metric<N>, values: [&str; N]) -> fmt::Result {
        self.family(metric)?.encode_info(&labels(metric, values))
    }
}

/// A label's value.
struct Value<'a>(&'a str);

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self(text)
    }
}

fn labels<'a, const N: usize>(
    metric: &Metric<N>,
    values: [&'a str; N],
) -> [(&'static str, &'a str); N] {
    let mut names = metric.labels.iter();
    values.map(|value| (names.next().copied().unwrap_or_default(), value))
}
