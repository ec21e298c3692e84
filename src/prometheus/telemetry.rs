//! [`Telemetry`] from Prometheus: one instant query for each feature, all for one time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream;
use jiff::Timestamp;

use super::client::{PrometheusClient, Query, QueryError, chain};
use super::decode::{Labelled, Vector};
use super::options::{OptionFault, PrometheusOptions, SetupError};
use super::promql::{self, Renderer};
use crate::features::assemble::{Answer, Gathered, Sample, assemble};
use crate::features::identity::{Labels, PodOnNode, Sightings, Target, needs_pods};
use crate::features::{
    IdentityMap, NodeDirectory, PastFeatures, Schema, Telemetered, Telemetry, TelemetryError, grid,
};

/// Which Pods are exporters, and which targets are old enough, changes slowly: asked for at whole
/// minutes only.
const SLOW: Duration = Duration::from_secs(60);

/// Versions of exporters hold for so long where they cannot be asked for: without them every one
/// would look new afterwards.
const BUILDS_MAX: Duration = Duration::from_secs(600);

/// The features of all Nodes, from one Prometheus.
#[derive(Debug)]
pub struct PrometheusTelemetry {
    client: PrometheusClient,
    schema: Arc<Schema>,
    renderer: Renderer,
    promql: Queries,
    pub(super) stale_after: Duration,
    concurrency: usize,
    snapshot_timeout: Duration,
    cache: Mutex<Cache>,
}

/// Every query as it is sent.
#[derive(Debug)]
pub(super) struct Queries {
    pub(super) identity: String,
    pub(super) up: String,
    builds: String,
    pub(super) pods: String,
    pub(super) collectors: Option<String>,
    pub(super) histories: BTreeMap<Duration, String>,
    pub(super) features: Vec<String>,
    scrape_interval: String,
}

/// Answers that still hold: those of queries that are not asked in every cycle.
#[derive(Debug, Default)]
struct Cache {
    columns: HashMap<Slot, Came>,
    pods: Option<(Timestamp, Vec<PodOnNode>)>,
    builds: Option<(Timestamp, Vec<Labels>)>,
}

/// Where an answer belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Slot {
    Feature(usize),
    Collectors,
    History(Duration),
}

/// One query that is due.
struct Due<'a> {
    slot: Slot,
    query: Query,
    promql: &'a str,
    at: Timestamp,
}

/// One query's outcome.
#[derive(Clone, Debug)]
struct Came {
    at: Timestamp,
    samples: Result<Arc<Vec<Sample>>, String>,
    remarks: Vec<String>,
}

impl PrometheusTelemetry {
    /// Telemetry of these features. Nothing is asked yet.
    ///
    /// # Errors
    ///
    /// [`SetupError`] with every option, and every feature's query, that cannot be.
    pub fn new(options: &PrometheusOptions, schema: Arc<Schema>) -> Result<Self, SetupError> {
        let client = PrometheusClient::new(options);
        let promql = Renderer::new(options).and_then(|renderer| {
            let promql = queries(&renderer, &schema)?;
            Ok((renderer, promql))
        });
        match (client, promql) {
            (Ok(client), Ok((renderer, promql))) => Ok(Self {
                client,
                schema,
                renderer,
                promql,
                stale_after: options.stale_after,
                concurrency: options.concurrency,
                snapshot_timeout: options.snapshot_timeout,
                cache: Mutex::default(),
            }),
            (client, promql) => {
                let mut faults = client.err().map_or_else(Vec::new, |e| e.faults);
                faults.extend(promql.err().unwrap_or_default());
                Err(SetupError { faults })
            }
        }
    }

    /// The client that asks.
    pub fn client(&self) -> &PrometheusClient {
        &self.client
    }

    /// The queries as they are sent: name of the feature and PromQL, in the order of the schema.
    pub fn queries(&self) -> impl Iterator<Item = (&str, &str)> {
        let names = self.schema.features().iter().map(|f| f.name.as_str());
        names.zip(self.promql.features.iter().map(String::as_str))
    }

    /// The queries of other features, by the same options.
    pub(super) fn queries_of(&self, schema: &Schema) -> Result<Queries, SetupError> {
        queries(&self.renderer, schema).map_err(|faults| SetupError { faults })
    }

    /// The query of any text, with placeholders filled in and matchers added.
    pub(super) fn render(&self, promql: &str) -> Result<String, String> {
        self.renderer.render(promql)
    }

    /// The queries of the service's own features.
    pub(super) fn own_queries(&self) -> &Queries {
        &self.promql
    }

    /// How often the targets are scraped, by the median over those that were there ten minutes
    /// before `at`; `None` while there are none.
    ///
    /// # Errors
    ///
    /// [`QueryError`].
    pub async fn scrape_interval(&self, at: Timestamp) -> Result<Option<Duration>, QueryError> {
        let promql = &self.promql.scrape_interval;
        let answer: Vector<Sample> = self
            .client
            .instant(Query::ScrapeInterval, promql, at)
            .await?;
        let seconds = answer.samples.first().map(|s| s.value);
        Ok(seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()))
    }

    async fn take(
        &self,
        at: Timestamp,
        nodes: &NodeDirectory,
    ) -> Result<Telemetered, TelemetryError> {
        let mut problems = Vec::new();
        let sightings = self.sightings(at, &mut problems).await;
        let mut sightings = sightings.map_err(|e| failed(at, e))?;
        if needs_pods(nodes, &sightings) {
            match self.pods(at).await {
                Ok(pods) => sightings.pods = pods,
                Err(error) => problems.push(chain(&error)),
            }
        }
        let identity = IdentityMap::resolve(nodes, at, self.stale_after, &sightings);
        let came = self.columns(at).await;
        let gathered = self.gathered(at, identity, came, problems);
        let (schema, nodes) = (self.schema.clone(), nodes.clone());
        // Some ten milliseconds for thousands of Nodes.
        tokio::task::spawn_blocking(move || assemble(schema, at, &nodes, gathered))
            .await
            .map_err(|e| failed(at, e))
    }

    /// The targets. Without them no series can be told from another.
    async fn sightings(
        &self,
        at: Timestamp,
        problems: &mut Vec<String>,
    ) -> Result<Sightings, QueryError> {
        let identity = self
            .client
            .instant::<Labelled>(Query::Identity, &self.promql.identity, at);
        let up = self
            .client
            .instant::<Labelled>(Query::Up, &self.promql.up, at);
        let builds = self
            .client
            .instant::<Labelled>(Query::Builds, &self.promql.builds, at);
        let (identity, up, builds) = futures::join!(identity, up, builds);
        let targets = identity?.samples.into_iter().filter_map(target).collect();
        let up = match up {
            Ok(up) => up.samples.into_iter().map(|s| s.labels).collect(),
            Err(error) => {
                problems.push(chain(&error));
                Vec::new()
            }
        };
        let builds = match builds {
            Ok(builds) => {
                let builds: Vec<_> = builds.samples.into_iter().map(|s| s.labels).collect();
                self.lock().builds = Some((at, builds.clone()));
                builds
            }
            Err(error) => {
                problems.push(chain(&error));
                let known = self.lock().builds.clone();
                known
                    .filter(|(then, _)| at.duration_since(*then).unsigned_abs() < BUILDS_MAX)
                    .map_or_else(Vec::new, |(_, builds)| builds)
            }
        };
        Ok(Sightings {
            targets,
            up,
            builds,
            pods: Vec::new(),
        })
    }

    async fn pods(&self, at: Timestamp) -> Result<Vec<PodOnNode>, QueryError> {
        let at = grid(at, Duration::ZERO, SLOW);
        if let Some((known, pods)) = &self.lock().pods
            && *known == at
        {
            return Ok(pods.clone());
        }
        let answer = self
            .client
            .instant::<Labelled>(Query::Pods, &self.promql.pods, at)
            .await?;
        let pods: Vec<_> = answer
            .samples
            .into_iter()
            .filter_map(|s| pod(s.labels))
            .collect();
        self.lock().pods = Some((at, pods.clone()));
        Ok(pods)
    }

    /// The outcome of every query that answers within the time for all; what is still good from
    /// before is not asked again.
    async fn columns(&self, at: Timestamp) -> HashMap<Slot, Came> {
        let mut came = HashMap::new();
        let mut due = self.due(at);
        {
            let cache = self.lock();
            due.retain(|due| match cache.columns.get(&due.slot) {
                Some(known) if known.at == due.at => {
                    came.insert(due.slot, known.clone());
                    false
                }
                Some(_) | None => true,
            });
        }
        let asks: Vec<_> = due.into_iter().map(|due| self.ask(due)).collect();
        let asking = async {
            let mut answers = stream::iter(asks).buffer_unordered(self.concurrency);
            while let Some((slot, answer)) = answers.next().await {
                came.insert(slot, answer);
            }
        };
        // Whoever is late is simply not among those who came.
        let _ = tokio::time::timeout(self.snapshot_timeout, asking).await;
        came
    }

    /// Every query of a cycle, each with the time it is evaluated at: features with `every`, and
    /// what changes slowly, at whole multiples, so that a restart and a replay ask for the same.
    fn due(&self, at: Timestamp) -> Vec<Due<'_>> {
        let slow = grid(at, Duration::ZERO, SLOW);
        // What whole groups depend on comes first, should time run out.
        let collectors = self.promql.collectors.iter().map(|promql| Due {
            slot: Slot::Collectors,
            query: Query::Collectors,
            promql,
            at,
        });
        let histories = self.promql.histories.iter().map(|(history, promql)| Due {
            slot: Slot::History(*history),
            query: Query::History(*history),
            promql,
            at: slow,
        });
        let features = self
            .schema
            .features()
            .iter()
            .zip(&self.promql.features)
            .enumerate();
        let features = features.map(|(i, (feature, promql))| Due {
            slot: Slot::Feature(i),
            query: Query::Feature(feature.name.clone()),
            promql,
            at: feature
                .every
                .map_or(at, |every| grid(at, Duration::ZERO, every)),
        });
        collectors.chain(histories).chain(features).collect()
    }

    /// Asks one query, and keeps the answer where it will hold for longer than this cycle.
    async fn ask(&self, due: Due<'_>) -> (Slot, Came) {
        let Due {
            slot,
            query,
            promql,
            at,
        } = due;
        let Vector { samples, remarks } = match self.client.instant(query, promql, at).await {
            Ok(vector) => vector,
            Err(error) => {
                let samples = Err(chain(&error));
                return (
                    slot,
                    Came {
                        at,
                        samples,
                        remarks: Vec::new(),
                    },
                );
            }
        };
        let came = Came {
            at,
            samples: Ok(Arc::new(samples)),
            remarks,
        };
        let kept = match slot {
            Slot::Feature(i) => self.schema.features()[i].every.is_some(),
            Slot::Collectors => false,
            Slot::History(_) => true,
        };
        if kept {
            self.lock().columns.insert(slot, came.clone());
        }
        (slot, came)
    }

    fn gathered(
        &self,
        at: Timestamp,
        identity: IdentityMap,
        mut came: HashMap<Slot, Came>,
        problems: Vec<String>,
    ) -> Gathered {
        let limit = self.snapshot_timeout;
        let mut take = |slot| {
            let late = || format!("no answer within {limit:?}, the time for all queries");
            came.remove(&slot).unwrap_or_else(|| Came {
                at,
                samples: Err(late()),
                remarks: Vec::new(),
            })
        };
        let mut columns = Vec::with_capacity(self.schema.len());
        for i in 0..self.schema.len() {
            let Came {
                at,
                samples,
                remarks,
            } = take(Slot::Feature(i));
            columns.push(Answer {
                at,
                samples,
                remarks,
            });
        }
        let mut histories = BTreeMap::new();
        for history in self.promql.histories.keys() {
            let known = take(Slot::History(*history)).samples;
            histories.insert(*history, known.map(|samples| Arc::new(instances(&samples))));
        }
        let collected = match self.promql.collectors {
            Some(_) => take(Slot::Collectors)
                .samples
                .map(|s| Arc::new(collected(&s))),
            None => Ok(Arc::default()),
        };
        Gathered {
            identity,
            columns,
            collected,
            histories,
            problems,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        // Nothing that holds it can leave it half written.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Telemetry for PrometheusTelemetry {
    fn snapshot<'a>(
        &'a self,
        at: Timestamp,
        nodes: &'a NodeDirectory,
    ) -> BoxFuture<'a, Result<Telemetered, TelemetryError>> {
        Box::pin(self.take(at, nodes))
    }

    fn knows_past(&self) -> bool {
        true
    }

    fn past<'a>(
        &'a self,
        schema: &'a Arc<Schema>,
        from: Timestamp,
        points: u32,
        nodes: &'a NodeDirectory,
    ) -> BoxFuture<'a, Result<PastFeatures, TelemetryError>> {
        Box::pin(self.take_past(schema, from, points, nodes))
    }
}

pub(super) fn failed(
    at: Timestamp,
    error: impl std::error::Error + Send + Sync + 'static,
) -> TelemetryError {
    TelemetryError {
        at,
        source: Box::new(error),
    }
}

fn queries(renderer: &Renderer, schema: &Schema) -> Result<Queries, Vec<OptionFault>> {
    let mut faults = Vec::new();
    let mut render = |key: &str, text: &str| {
        renderer.render(text).unwrap_or_else(|problem| {
            faults.push(OptionFault::new(key, problem));
            String::new()
        })
    };
    let mut features = Vec::with_capacity(schema.len());
    for feature in schema.features() {
        let key = format!("features_file: feature {:?}", feature.name);
        features.push(render(&key, &feature.promql));
    }
    let mut own = |text: &str| render("matchers", text);
    let mut histories = BTreeMap::new();
    for history in schema.histories() {
        histories.insert(history, own(&of_history(history)));
    }
    let queries = Queries {
        // The function keeps all labels and tells the time of the raw scrape: identity and
        // freshness in one answer.
        identity: own("timestamp(node_uname_info{$S})"),
        up: own("up{$S}"),
        // One series for each target, whatever else the family's labels say.
        builds: own("count by (instance, version) (node_exporter_build_info{$S})"),
        pods: own(concat!(
            r#"max by (namespace, pod, node) (kube_pod_info{node!=""})"#,
            " and on (namespace, pod) node_uname_info{$S}"
        )),
        collectors: of_collectors(schema).map(|text| own(&text)),
        histories,
        features,
        scrape_interval: own(
            "600 / quantile(0.5, count_over_time(up{$S}[10m]) and up{$S} offset 10m)",
        ),
    };
    if faults.is_empty() {
        Ok(queries)
    } else {
        Err(faults)
    }
}

/// Whether a target was scraped so long ago, or in the while before: a gap at just that moment does
/// not make it young.
fn of_history(history: Duration) -> String {
    let before = (history / 12).max(Duration::from_secs(300));
    format!(
        "count by (instance) (present_over_time(node_uname_info{{$S}}[{}] offset {}))",
        promql::duration(before),
        promql::duration(history)
    )
}

/// The success of all collectors in one number for each target, one bit for each: a series for each
/// collector of 5,000 Nodes would be 20 MB in every cycle.
fn of_collectors(schema: &Schema) -> Option<String> {
    let groups = schema.groups();
    let bits = groups.iter().enumerate().map(|(bit, group)| {
        let weight = 1_u64 << bit;
        format!("node_scrape_collector_success{{$S,collector=\"{group}\"}} * {weight}")
    });
    let bits: Vec<_> = bits.collect();
    (!bits.is_empty()).then(|| format!("sum by (instance) ({})", bits.join(" or ")))
}

pub(super) fn collected(samples: &[Sample]) -> HashMap<String, u64> {
    // Exact: below 2^53, as there are at most 50 groups. Anything else is nobody's success.
    let whole = |v: f64| v.fract() == 0.0 && (0.0..9e15).contains(&v);
    let bits = samples.iter().filter(|s| whole(s.value));
    bits.filter_map(|s| Some((s.instance.clone()?, s.value as u64)))
        .collect()
}

pub(super) fn instances(samples: &[Sample]) -> BTreeSet<String> {
    samples.iter().filter_map(|s| s.instance.clone()).collect()
}

pub(super) fn target(series: Labelled) -> Option<Target> {
    let Labelled { labels, value } = series;
    // To the millisecond, as Prometheus keeps it. Any time that Timestamp knows is below 1e15.
    let ms = (value * 1000.0).round();
    let known = ms.abs() < 1e15;
    let scraped_at = known.then(|| Timestamp::from_millisecond(ms as i64).ok())??;
    Some(Target { labels, scraped_at })
}

pub(super) fn pod(mut labels: Labels) -> Option<PodOnNode> {
    Some(PodOnNode {
        namespace: labels.remove("namespace")?,
        pod: labels.remove("pod")?,
        node: labels.remove("node")?,
    })
}
