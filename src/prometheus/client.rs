//! One question to Prometheus at a time: bounded in time and bytes, repeated where that can help.

use std::error::Error as _;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{AUTHORIZATION, LOCATION};
use jiff::Timestamp;
use serde::Deserialize;

use super::decode::{self, DecodeError, FromSeries, Series, Steps, Vector};
use super::options::{PrometheusOptions, SetupError};
use super::setup::{self, Auth};
use crate::features::FeatureName;

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// The column of a feature.
    Feature(FeatureName),
    /// `node_uname_info` of the targets.
    Identity,
    /// `up` of the targets.
    Up,
    /// `node_exporter_build_info` of the targets.
    Builds,
    /// `kube_pod_info` of the targets' Pods.
    Pods,
    /// `node_scrape_collector_success` of the targets.
    Collectors,
    /// Which targets were scraped this long ago.
    History(Duration),
    /// How often the targets are scraped.
    ScrapeInterval,
    /// Alerting and recording rules.
    Rules,
    /// Something that happened to the Nodes, in words.
    Seen(&'static str),
    /// Version of the server.
    BuildInfo,
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Feature(name) => return write!(f, "feature `{name}`"),
            Self::History(history) => {
                return write!(
                    f,
                    "the targets of {} ago",
                    humantime::format_duration(*history)
                );
            }
            Self::Seen(what) => what,
            Self::Identity => "the targets' identity (node_uname_info)",
            Self::Up => "the targets' `up`",
            Self::Builds => "the exporters' versions (node_exporter_build_info)",
            Self::Pods => "the targets' Pods (kube_pod_info)",
            Self::Collectors => "the collectors' success (node_scrape_collector_success)",
            Self::ScrapeInterval => "the scrape interval",
            Self::Rules => "the rules",
            Self::BuildInfo => "the version",
        })
    }
}

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// No complete answer in time.
    #[error("query for {query} took longer than {limit:?}")]
    Timeout {
        /// What was asked for.
        query: Query,
        /// How long it was waited for.
        limit: Duration,
    },
    /// Nobody answered.
    #[error("query for {query} did not reach the server")]
    Transport {
        /// What was asked for.
        query: Query,
        /// What happened.
        source: prometheus_http_query::Error,
    },
    /// Nobody answered, or the answer broke off.
    #[error("query for {query} got no whole answer")]
    Http {
        /// What was asked for.
        query: Query,
        /// What happened.
        source: reqwest::Error,
    },
    /// The server refused, or went on failing.
    #[error("query for {query} was refused with HTTP {status}: {text}")]
    Refused {
        /// What was asked for.
        query: Query,
        /// Of the last attempt.
        status: StatusCode,
        /// The server's own words, shortened.
        text: String,
    },
    /// The server wants to be asked elsewhere. Not followed: credentials would go along.
    #[error(
        "query for {query} was redirected to {location}; set `prometheus.url` to where it leads"
    )]
    Redirected {
        /// What was asked for.
        query: Query,
        /// Where to.
        location: String,
    },
    /// More bytes than `answer_bytes_max`.
    #[error("the answer to the query for {query} is longer than {limit} bytes")]
    TooLong {
        /// What was asked for.
        query: Query,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The answer is no complete result.
    #[error("the answer to the query for {query} is of no use")]
    Answer {
        /// What was asked for.
        query: Query,
        /// Why.
        source: DecodeError,
    },
    /// A token or password cannot be read.
    #[error("cannot read the secret in {}", .path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A token that cannot be a header.
    #[error("the secret in {} has characters that no HTTP header may have", .path.display())]
    SecretForm {
        /// The file.
        path: PathBuf,
    },
}

/// What `/api/v1/status/buildinfo` says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct BuildInfo {
    /// Version of the server.
    #[serde(default)]
    pub version: String,
}

/// How often a question is put at most: the first time and twice more.
const ATTEMPTS_MAX: u32 = 3;

/// The pause before the second attempt; twice that before the third. Half of it is random, so that
/// many questions refused together do not come back together.
const PAUSE: Duration = Duration::from_millis(200);

/// The server's error text is kept this far, in characters.
const TEXT_MAX: usize = 300;

/// From here on, in bytes, a body is decoded off the threads that serve: half a millisecond's work.
const DECODE_ASIDE: usize = 64 << 10;

/// Asks one Prometheus. Cheap to clone.
#[derive(Clone)]
pub struct PrometheusClient(Arc<Inner>);

struct Inner {
    queries: prometheus_http_query::Client,
    http: reqwest::Client,
    base: String,
    auth: Auth,
    parameters: Vec<(&'static str, String)>,
    timeout: Duration,
    bytes_max: usize,
    jitter: RandomState,
}

impl fmt::Debug for PrometheusClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrometheusClient")
            .field("base", &self.0.base)
            .finish_non_exhaustive()
    }
}

impl PrometheusClient {
    /// A client for these options. Nothing is asked yet.
    ///
    /// # Errors
    ///
    /// [`SetupError`] with every option that cannot be.
    pub fn new(options: &PrometheusOptions) -> Result<Self, SetupError> {
        let setup::Parts {
            queries,
            http,
            base,
            auth,
        } = setup::parts(options)?;
        // The query builder wants names that live for ever. They are few, and a process has one
        // configuration.
        let name = |name: &String| -> &'static str { Box::leak(name.clone().into_boxed_str()) };
        Ok(Self(Arc::new(Inner {
            queries,
            http,
            base,
            auth,
            parameters: options
                .parameters
                .iter()
                .map(|(n, v)| (name(n), v.clone()))
                .collect(),
            timeout: options.timeout,
            bytes_max: options.answer_bytes_max,
            jitter: RandomState::new(),
        })))
    }

    /// Asks for the version, which shows whether the server is there and lets us in.
    ///
    /// # Errors
    ///
    /// [`QueryError`]. Not every back end has this path; those answer 404.
    pub async fn build_info(&self) -> Result<BuildInfo, QueryError> {
        let query = Query::BuildInfo;
        let body = self.get(&query, "/api/v1/status/buildinfo").await?;
        decode::data(&body).map_err(|source| QueryError::Answer { query, source })
    }

    /// Asks for an instant vector. 429, 502, 503, 504 and refused connections are tried
    /// [`ATTEMPTS_MAX`] times.
    pub(super) async fn instant<T>(
        &self,
        query: Query,
        promql: &str,
        at: Timestamp,
    ) -> Result<Vector<T>, QueryError>
    where
        T: FromSeries + Send + 'static,
    {
        let body = self
            .bounded(&query, || self.post(&query, promql, at))
            .await?;
        let decoded = aside(body, |body| decode::vector(body)).await;
        decoded.map_err(|source| QueryError::Answer { query, source })
    }

    /// Asks for vectors at several times, by the rules of [`Self::instant`].
    pub(super) async fn range<T>(
        &self,
        query: Query,
        promql: &str,
        steps: Steps,
    ) -> Result<Vector<Series<T::Metric>>, QueryError>
    where
        T: FromSeries + 'static,
        T::Metric: 'static,
    {
        let body = self
            .bounded(&query, || self.post_range(&query, promql, steps))
            .await?;
        let decoded = aside(body, move |body| decode::matrix::<T>(body, steps)).await;
        decoded.map_err(|source| QueryError::Answer { query, source })
    }

    /// Asks for anything below the base URL.
    pub(super) async fn get(&self, query: &Query, path: &str) -> Result<Vec<u8>, QueryError> {
        let ask = || async {
            let url = format!("{}{path}", self.0.base);
            let mut request = self.0.http.get(url).query(&self.0.parameters);
            if let Some(authorization) = self.0.auth.header().await.map_err(Failure::Final)? {
                request = request.header(AUTHORIZATION, authorization);
            }
            let sent = request.send().await.map_err(|source| {
                let passing = source.is_connect();
                Failure::new(
                    passing,
                    QueryError::Http {
                        query: query.clone(),
                        source,
                    },
                )
            })?;
            self.read(query, sent).await
        };
        self.bounded(query, ask).await
    }

    async fn post(&self, query: &Query, promql: &str, at: Timestamp) -> Result<Vec<u8>, Failure> {
        let inner = &*self.0;
        let timeout = i64::try_from(inner.timeout.as_millis()).unwrap_or(i64::MAX);
        let mut builder = inner
            .queries
            .query(promql)
            .query("time", time(at))
            .timeout(timeout);
        for (name, value) in &inner.parameters {
            builder = builder.query(name, value);
        }
        if let Some(authorization) = inner.auth.header().await.map_err(Failure::Final)? {
            builder = builder.header(AUTHORIZATION, authorization);
        }
        let sent = builder.post_raw().await;
        let sent = sent.map_err(|source| unsent(query, source))?;
        self.read(query, sent).await
    }

    async fn post_range(
        &self,
        query: &Query,
        promql: &str,
        steps: Steps,
    ) -> Result<Vec<u8>, Failure> {
        let inner = &*self.0;
        let timeout = i64::try_from(inner.timeout.as_millis()).unwrap_or(i64::MAX);
        let mut builder = inner
            .queries
            .query_range(promql, steps.from, steps.last(), steps.step as f64)
            .timeout(timeout);
        for (name, value) in &inner.parameters {
            builder = builder.query(name, value);
        }
        if let Some(authorization) = inner.auth.header().await.map_err(Failure::Final)? {
            builder = builder.header(AUTHORIZATION, authorization);
        }
        let sent = builder.post_raw().await;
        let sent = sent.map_err(|source| unsent(query, source))?;
        self.read(query, sent).await
    }

    /// The whole body of a success; everything else is a failure.
    async fn read(&self, query: &Query, mut sent: reqwest::Response) -> Result<Vec<u8>, Failure> {
        let query = || query.clone();
        let status = sent.status();
        if status.is_redirection() {
            let location = sent.headers().get(LOCATION).and_then(|l| l.to_str().ok());
            let location = location.unwrap_or("nowhere").to_owned();
            return Err(Failure::Final(QueryError::Redirected {
                query: query(),
                location,
            }));
        }
        let limit = self.0.bytes_max;
        let too_long = || {
            Failure::Final(QueryError::TooLong {
                query: query(),
                limit,
            })
        };
        if sent.content_length().is_some_and(|n| n > limit as u64) {
            return Err(too_long());
        }
        let mut body = Vec::new();
        loop {
            match sent.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > limit => return Err(too_long()),
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(source) => {
                    return Err(Failure::Final(QueryError::Http {
                        query: query(),
                        source,
                    }));
                }
            }
        }
        if status.is_success() {
            return Ok(body);
        }
        // 400 and 422 mean that the query is wrong: it would be as wrong the next time.
        let passing = matches!(status.as_u16(), 429 | 502 | 503 | 504);
        Err(Failure::new(
            passing,
            QueryError::Refused {
                query: query(),
                status,
                text: words(&body),
            },
        ))
    }

    /// Puts a question until it is answered, refused for good, or out of time.
    async fn bounded<F>(&self, query: &Query, ask: impl Fn() -> F) -> Result<Vec<u8>, QueryError>
    where
        F: Future<Output = Result<Vec<u8>, Failure>>,
    {
        let attempts = async {
            let mut attempt = 1;
            loop {
                match ask().await {
                    Ok(body) => return Ok(body),
                    Err(Failure::Final(error)) => return Err(error),
                    Err(Failure::Passing(error)) if attempt == ATTEMPTS_MAX => return Err(error),
                    Err(Failure::Passing(_)) => {}
                }
                tokio::time::sleep(self.pause(query, attempt)).await;
                attempt += 1;
            }
        };
        let limit = self.0.timeout;
        match tokio::time::timeout(limit, attempts).await {
            Ok(answered) => answered,
            Err(_) => Err(QueryError::Timeout {
                query: query.clone(),
                limit,
            }),
        }
    }

    fn pause(&self, query: &Query, attempt: u32) -> Duration {
        let random = self.0.jitter.hash_one((query.to_string(), attempt));
        // The upper half of the bits as a share of one.
        let share = (random >> 32) as f64 / f64::from(u32::MAX);
        PAUSE.mul_f64(f64::from(attempt) * (0.5 + 0.5 * share))
    }
}

/// Why one attempt failed.
enum Failure {
    /// The next attempt may succeed.
    Passing(QueryError),
    /// It will not.
    Final(QueryError),
}

impl Failure {
    fn new(passing: bool, error: QueryError) -> Self {
        if passing {
            Self::Passing(error)
        } else {
            Self::Final(error)
        }
    }
}

/// Decodes, off the threads that serve where it is much.
async fn aside<D: Send + 'static>(
    body: Vec<u8>,
    decode: impl FnOnce(&[u8]) -> D + Send + 'static,
) -> D {
    if body.len() < DECODE_ASIDE {
        return decode(&body);
    }
    let decoding = tokio::task::spawn_blocking(move || decode(&body));
    decoding
        .await
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

fn unsent(query: &Query, source: prometheus_http_query::Error) -> Failure {
    let cause = source
        .source()
        .and_then(|e| e.downcast_ref::<reqwest::Error>());
    let passing = is_connect(&source) || cause.is_some_and(reqwest::Error::is_connect);
    Failure::new(
        passing,
        QueryError::Transport {
            query: query.clone(),
            source,
        },
    )
}

/// The crate's error hands out the source of the HTTP client's error, not that error itself; what is
/// left to look at is the connector's own.
fn is_connect(error: &prometheus_http_query::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::ConnectionRefused;
        }
        source = error.source();
    }
    false
}

/// Seconds since the epoch, to the millisecond.
fn time(at: Timestamp) -> String {
    let ms = at.as_millisecond();
    format!("{}.{:03}", ms.div_euclid(1000), ms.rem_euclid(1000))
}

/// The server's own words about a failure, or the beginning of whatever it sent.
fn words(body: &[u8]) -> String {
    let text = match decode::failure(body) {
        Some((kind, text)) if kind.is_empty() => text,
        Some((kind, text)) => format!("{kind}: {text}"),
        None => {
            let beginning = &body[..body.len().min(4 * TEXT_MAX)];
            String::from_utf8_lossy(beginning).trim().to_owned()
        }
    };
    text.chars().take(TEXT_MAX).collect()
}

/// An error with everything behind it, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}
