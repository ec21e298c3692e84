//! Features of past times, from range queries: the same answers as those of instant queries at each of the
//! times, by the same rules.
//!
//! Prometheus evaluates every step of a range as it would the instant, so nothing remains that could
//! differ but what reached it later than `prometheus.lag`. (VictoriaMetrics holds its cached ranges back by
//! `-search.latencyOffset`; the points of the last minutes may be missing there and are asked for again.)
//!
//! One query at a time, and as long a pause after it. A range that is too much for the server or for
//! `answer_bytes_max` is halved until it is not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::time::Instant;

use super::client::{Query, QueryError, chain};
use super::decode::{FromSeries, Labelled, Series, Steps};
use super::telemetry::{PrometheusTelemetry, Queries, collected, failed, instances, pod, target};
use crate::features::assemble::{Answer, Gathered, Sample, assemble};
use crate::features::history::GRID;
use crate::features::identity::{Labels, Sightings, needs_pods};
use crate::features::{
    FeatureMatrix, IdentityMap, NodeDirectory, PastFeatures, Schema, TelemetryError,
};

/// The longest pause after a query.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Whose the series of a range are.
pub(super) struct Who {
    identity: Vec<Series<Labels>>,
    up: Vec<Series<Labels>>,
    pods: Vec<Series<Labels>>,
}

/// All answers of one range.
struct Answers {
    who: Who,
    collectors: Option<Result<Ranged, String>>,
    histories: BTreeMap<Duration, Result<Ranged, String>>,
    features: Vec<Result<Ranged, String>>,
}

/// Series with the times that they were asked for.
struct Ranged {
    steps: Steps,
    series: Vec<Series<Sample>>,
}

impl PrometheusTelemetry {
    pub(super) async fn take_past(
        &self,
        schema: &Arc<Schema>,
        from: Timestamp,
        points: u32,
        nodes: &NodeDirectory,
    ) -> Result<PastFeatures, TelemetryError> {
        let promql = self.queries_of(schema).map_err(|e| failed(from, e))?;
        let grid = Steps {
            from: from.as_second(),
            step: GRID.as_secs() as i64,
            n: points.max(1) as usize,
        };
        let mut problems = Vec::new();
        let answers = self
            .answers(schema, &promql, grid, nodes, &mut problems)
            .await;
        let answers = answers.map_err(|e| failed(from, e))?;
        let (schema, nodes) = (Arc::clone(schema), nodes.clone());
        let stale_after = self.stale_after;
        let matrices = tokio::task::spawn_blocking(move || {
            let times = (0..grid.n).map(|i| (i, grid.from + grid.step * i as i64));
            let matrices = times.filter_map(|(i, seconds)| {
                let at = Timestamp::from_second(seconds).ok()?;
                Some(answers.matrix(&schema, &nodes, stale_after, i, at))
            });
            matrices.collect()
        });
        let matrices = matrices.await.map_err(|e| failed(from, e))?;
        Ok(PastFeatures { matrices, problems })
    }

    async fn answers(
        &self,
        schema: &Schema,
        promql: &Queries,
        grid: Steps,
        nodes: &NodeDirectory,
        problems: &mut Vec<String>,
    ) -> Result<Answers, QueryError> {
        let who = self.who(promql, grid, nodes).await?;
        let mut said = |answer: Result<Vec<Series<Sample>>, QueryError>, steps| {
            let answer = answer.map_err(|error| chain(&error));
            problems.extend(answer.as_ref().err().cloned());
            answer.map(|series| Ranged { steps, series })
        };
        let mut collectors = None;
        if let Some(promql) = &promql.collectors {
            let answer = self.ranged::<Sample>(Query::Collectors, promql, grid).await;
            collectors = Some(said(answer, grid));
        }
        let mut histories = BTreeMap::new();
        for (history, promql) in &promql.histories {
            let query = Query::History(*history);
            let answer = self.ranged::<Sample>(query, promql, grid).await;
            histories.insert(*history, said(answer, grid));
        }
        let mut features = Vec::with_capacity(schema.len());
        for (feature, promql) in schema.features().iter().zip(&promql.features) {
            let steps = steps_of(grid, feature.every);
            let query = Query::Feature(feature.name.clone());
            let answer = self.ranged::<Sample>(query, promql, steps).await;
            features.push(said(answer, steps));
        }
        Ok(Answers {
            who,
            collectors,
            histories,
            features,
        })
    }

    /// The targets: without them no series can be told from another.
    pub(super) async fn who(
        &self,
        promql: &Queries,
        grid: Steps,
        nodes: &NodeDirectory,
    ) -> Result<Who, QueryError> {
        let identity = self.ranged::<Labelled>(Query::Identity, &promql.identity, grid);
        let mut who = Who {
            identity: identity.await?,
            up: self.ranged::<Labelled>(Query::Up, &promql.up, grid).await?,
            pods: Vec::new(),
        };
        if (0..grid.n).any(|i| needs_pods(nodes, &who.sightings(i))) {
            let pods = self.ranged::<Labelled>(Query::Pods, &promql.pods, grid);
            who.pods = pods.await?;
        }
        Ok(who)
    }

    /// One range, in as many parts as it takes.
    pub(super) fn ranged<'a, T>(
        &'a self,
        query: Query,
        promql: &'a str,
        steps: Steps,
    ) -> BoxFuture<'a, Result<Vec<Series<T::Metric>>, QueryError>>
    where
        T: FromSeries + 'static,
        T::Metric: 'static,
        T::Key: Send,
    {
        async move {
            let started = Instant::now();
            let answer = self.client().range::<T>(query.clone(), promql, steps).await;
            // As much time for others as for us.
            tokio::time::sleep(started.elapsed().min(PAUSE_MAX)).await;
            match answer {
                Ok(vector) => Ok(vector.samples),
                Err(error) if steps.n > 1 && is_too_much(&error) => {
                    let half = steps.n / 2;
                    let first = Steps { n: half, ..steps };
                    let second = Steps {
                        from: steps.from + steps.step * half as i64,
                        n: steps.n - half,
                        ..steps
                    };
                    let first = self.ranged::<T>(query.clone(), promql, first).await?;
                    let second = self.ranged::<T>(query, promql, second).await?;
                    Ok(joined::<T>(first, second, half, steps.n))
                }
                Err(error) => Err(error),
            }
        }
        .boxed()
    }
}

/// Whether a shorter range may be answered where this one was not.
fn is_too_much(error: &QueryError) -> bool {
    match error {
        QueryError::Timeout { .. } | QueryError::TooLong { .. } => true,
        // 422: the limit of samples (Prometheus); 503: the query took too long there.
        QueryError::Refused { status, .. } => matches!(status.as_u16(), 422 | 503),
        QueryError::Transport { .. }
        | QueryError::Http { .. }
        | QueryError::Redirected { .. }
        | QueryError::Answer { .. }
        | QueryError::Secret { .. }
        | QueryError::SecretForm { .. } => false,
    }
}

/// Two halves of a range, series by series. Series that differ in no wanted label are as good as one
/// another: which half goes with which says nothing.
fn joined<T: FromSeries>(
    first: Vec<Series<T::Metric>>,
    second: Vec<Series<T::Metric>>,
    half: usize,
    n: usize,
) -> Vec<Series<T::Metric>> {
    let mut whole = first;
    // Those without a second half yet.
    let mut open: BTreeMap<T::Key, Vec<usize>> = BTreeMap::new();
    for (place, series) in whole.iter_mut().enumerate() {
        series.values.resize(n, f64::NAN);
        open.entry(T::key(&series.metric)).or_default().push(place);
    }
    for mut series in second {
        let place = open.get_mut(&T::key(&series.metric)).and_then(Vec::pop);
        match place.and_then(|place| whole.get_mut(place)) {
            Some(before) => {
                before.values.truncate(half);
                before.values.append(&mut series.values);
            }
            None => {
                let mut values = vec![f64::NAN; half];
                values.append(&mut series.values);
                whole.push(Series { values, ..series });
            }
        }
    }
    whole
}

/// The times at which a feature with `every` is asked for, so that for each point there is the one that
/// an instant query would have had.
fn steps_of(grid: Steps, every: Option<Duration>) -> Steps {
    let Some(every) = every.and_then(|every| i64::try_from(every.as_secs()).ok()) else {
        return grid;
    };
    if every <= 0 || grid.step % every == 0 {
        return grid;
    }
    let from = grid.from.div_euclid(every) * every;
    let n = (grid.last() - from) / every + 1;
    Steps {
        from,
        step: every,
        n: usize::try_from(n).unwrap_or(1),
    }
}

impl Who {
    /// Whose they were at one of the times.
    pub(super) fn at(
        &self,
        i: usize,
        at: Timestamp,
        nodes: &NodeDirectory,
        stale_after: Duration,
    ) -> IdentityMap {
        IdentityMap::resolve(nodes, at, stale_after, &self.sightings(i))
    }

    fn sightings(&self, i: usize) -> Sightings {
        let there =
            move |series: &&Series<Labels>| series.values.get(i).is_some_and(|v| !v.is_nan());
        let labelled = |series: &Series<Labels>| Labelled {
            labels: series.metric.clone(),
            value: series.values[i],
        };
        let targets = self.identity.iter().filter(there).map(labelled);
        let labels = |all: &[Series<Labels>]| -> Vec<Labels> {
            let those = all.iter().filter(there);
            those.map(|series| series.metric.clone()).collect()
        };
        let pods = labels(&self.pods).into_iter().filter_map(pod);
        Sightings {
            targets: targets.filter_map(target).collect(),
            up: labels(&self.up),
            builds: Vec::new(),
            pods: pods.collect(),
        }
    }
}

impl Ranged {
    /// The samples that an instant query would have had at a time, and the time that it would have been
    /// for.
    fn at(&self, at: Timestamp) -> (Timestamp, Vec<Sample>) {
        let Steps { from, step, .. } = self.steps;
        let seconds = from + (at.as_second() - from).div_euclid(step) * step;
        let then = Timestamp::from_second(seconds).unwrap_or(at);
        let Some(place) = self.steps.place(seconds as f64) else {
            return (then, Vec::new());
        };
        let samples = self.series.iter().filter_map(|series| {
            let value = series.values.get(place).copied()?;
            let sample = Sample {
                value,
                ..series.metric.clone()
            };
            (!value.is_nan()).then_some(sample)
        });
        (then, samples.collect())
    }
}

impl Answers {
    fn matrix(
        &self,
        schema: &Arc<Schema>,
        nodes: &NodeDirectory,
        stale_after: Duration,
        i: usize,
        at: Timestamp,
    ) -> FeatureMatrix {
        let identity = self.who.at(i, at, nodes, stale_after);
        let samples = |ranged: &Result<Ranged, String>| match ranged {
            Ok(ranged) => Ok(ranged.at(at)),
            Err(problem) => Err(problem.clone()),
        };
        let columns = self.features.iter().map(|ranged| {
            let came = samples(ranged);
            Answer {
                at: came.as_ref().map_or(at, |(then, _)| *then),
                samples: came.map(|(_, samples)| Arc::new(samples)),
                remarks: Vec::new(),
            }
        });
        let histories = self.histories.iter().map(|(history, ranged)| {
            let known = samples(ranged).map(|(_, samples)| Arc::new(instances(&samples)));
            (*history, known)
        });
        let collected = match &self.collectors {
            Some(ranged) => samples(ranged).map(|(_, samples)| Arc::new(collected(&samples))),
            None => Ok(Arc::default()),
        };
        let gathered = Gathered {
            columns: columns.collect(),
            histories: histories.collect(),
            identity,
            collected,
            problems: Vec::new(),
        };
        assemble(Arc::clone(schema), at, nodes, gathered).matrix
    }
}
