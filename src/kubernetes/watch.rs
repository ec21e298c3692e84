//! Listing in pages, and following what changes.
//!
//! Own lines rather than `kube::runtime::watcher`, for three things it does not tell: that a watch is
//! up again after a failure (so that a quiet cluster is not shown as out of reach until its next
//! event), the version of each event (so that an older event does not undo what an own write has
//! shown), and each page by itself (so that 5,000 whole Nodes are never in memory at once).

use std::convert::Infallible;
use std::fmt::Debug;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tracing::debug;

use super::rate::{Rate, chance};
use super::text::clean;

/// One page, or the start of a watch, must answer within this.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// A watch that sends neither event nor bookmark nor its end by then has lost its connection.
const SILENCE_MARGIN: Duration = Duration::from_secs(10);
/// A list whose continue token expires is begun again so often; then its failure is one.
const RESTARTS_MAX: u32 = 3;

/// What to list and watch.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    /// Label selector; empty for all.
    pub(super) labels: String,
    /// Field selector; empty for all.
    pub(super) fields: String,
    /// Objects in a page.
    pub(super) page: u32,
    /// How long one watch request lasts. It also bounds how long a dead connection goes unnoticed.
    pub(super) watch_for: Duration,
}

/// What a watch has to say.
#[derive(Debug)]
pub(super) enum Seen<T> {
    /// That is all there is, as of this version.
    Listed { items: Vec<T>, version: String },
    /// Added or changed.
    Applied { item: T, version: String },
    /// Gone.
    Deleted { item: T, version: String },
    /// The watch is up, and has said everything there was to say.
    Alive,
    /// It is not up to date, for this reason; it is being tried again.
    Failed(String),
}

/// Everything in the scope, page by page, and its version.
pub(super) async fn list<K, T>(
    api: &Api<K>,
    scope: &Scope,
    rate: &Rate,
    convert: &impl Fn(K) -> Option<T>,
) -> Result<(Vec<T>, String), ListError>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let mut restarts = 0;
    loop {
        match list_once(api, scope, rate, convert).await {
            Err(ListError::Api(error)) if is_expired(&error) && restarts < RESTARTS_MAX => {
                debug!(error = %said(&error), "list expired, beginning again");
                restarts += 1;
            }
            result => return result,
        }
    }
}

/// Why a list failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListError {
    #[error("no answer within {ANSWER_LIMIT:?}")]
    Timeout,
    #[error("{}", said(.0))]
    Api(kube::Error),
}

async fn list_once<K, T>(
    api: &Api<K>,
    scope: &Scope,
    rate: &Rate,
    convert: &impl Fn(K) -> Option<T>,
) -> Result<(Vec<T>, String), ListError>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let mut items = Vec::new();
    let mut continues: Option<String> = None;
    loop {
        let mut params = ListParams::default().limit(scope.page);
        params.label_selector = Some(scope.labels.clone()).filter(|text| !text.is_empty());
        params.field_selector = Some(scope.fields.clone()).filter(|text| !text.is_empty());
        params.continue_token = continues;
        rate.turn().await;
        let page = tokio::time::timeout(ANSWER_LIMIT, api.list(&params))
            .await
            .map_err(|_| ListError::Timeout)?
            .map_err(ListError::Api)?;
        items.extend(page.items.into_iter().filter_map(convert));
        continues = page.metadata.continue_.filter(|token| !token.is_empty());
        if continues.is_none() {
            return Ok((items, page.metadata.resource_version.unwrap_or_default()));
        }
    }
}

/// Lists, watches, and begins again where it has to, until the future is dropped.
pub(super) async fn follow<K, T>(
    api: &Api<K>,
    scope: &Scope,
    rate: &Rate,
    convert: impl Fn(K) -> Option<T>,
    mut handle: impl FnMut(Seen<T>),
) -> Infallible
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let mut backoff = Backoff::default();
    let mut known: Option<String> = None;
    loop {
        let version = match known.take() {
            Some(version) => version,
            None => match list(api, scope, rate, &convert).await {
                Ok((items, version)) => {
                    handle(Seen::Listed {
                        items,
                        version: version.clone(),
                    });
                    version
                }
                Err(error) => {
                    handle(Seen::Failed(error.to_string()));
                    tokio::time::sleep(backoff.next()).await;
                    continue;
                }
            },
        };
        rate.turn().await;
        let begun = tokio::time::Instant::now();
        let end = watch(api, scope, version, &convert, &mut handle).await;
        let lasted = begun.elapsed();
        if lasted > Backoff::RESET {
            backoff = Backoff::default();
        }
        match end {
            End::Over { version } => {
                known = Some(version);
                // A server or proxy that closes at once must not be asked in a hot loop.
                if lasted < Backoff::FLOOR {
                    tokio::time::sleep(backoff.next()).await;
                }
            }
            End::Expired => tokio::time::sleep(backoff.next()).await,
            End::Failed { version, problem } => {
                handle(Seen::Failed(problem));
                known = Some(version);
                tokio::time::sleep(backoff.next()).await;
            }
        }
    }
}

enum End {
    /// The server closed it, as it does after `watch_for`.
    Over { version: String },
    /// The version is too old to go on from.
    Expired,
    /// It broke.
    Failed { version: String, problem: String },
}

async fn watch<K, T>(
    api: &Api<K>,
    scope: &Scope,
    mut version: String,
    convert: &impl Fn(K) -> Option<T>,
    handle: &mut impl FnMut(Seen<T>),
) -> End
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let mut params =
        WatchParams::default().timeout(u32::try_from(scope.watch_for.as_secs()).unwrap_or(60));
    params.label_selector = Some(scope.labels.clone()).filter(|text| !text.is_empty());
    params.field_selector = Some(scope.fields.clone()).filter(|text| !text.is_empty());
    let failed = |version: String, problem: String| End::Failed { version, problem };
    let stream = match tokio::time::timeout(ANSWER_LIMIT, api.watch(&params, &version)).await {
        Err(_) => return failed(version, format!("no watch within {ANSWER_LIMIT:?}")),
        Ok(Err(error)) if is_expired(&error) => return End::Expired,
        Ok(Err(error)) => return failed(version, said(&error)),
        Ok(Ok(stream)) => stream,
    };
    let mut stream = stream.into_stream().boxed();
    handle(Seen::Alive);
    loop {
        let event =
            match tokio::time::timeout(scope.watch_for + SILENCE_MARGIN, stream.next()).await {
                Err(_) => return failed(version, "the watch fell silent".to_owned()),
                Ok(None) => return End::Over { version },
                Ok(Some(Err(error))) => return failed(version, said(&error)),
                Ok(Some(Ok(event))) => event,
            };
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                version = object.resource_version().unwrap_or(version);
                if let Some(item) = convert(object) {
                    handle(Seen::Applied {
                        item,
                        version: version.clone(),
                    });
                }
            }
            WatchEvent::Deleted(object) => {
                version = object.resource_version().unwrap_or(version);
                if let Some(item) = convert(object) {
                    handle(Seen::Deleted {
                        item,
                        version: version.clone(),
                    });
                }
            }
            WatchEvent::Bookmark(bookmark) => {
                version = bookmark.metadata.resource_version;
                handle(Seen::Alive);
            }
            WatchEvent::Error(status) if status.code == 410 => return End::Expired,
            WatchEvent::Error(status) => return failed(version, clean(&status.message, 300)),
        }
    }
}

fn is_expired(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 410)
}

/// The same, with the remedy where our credentials do not allow the call.
pub(super) fn with_remedy(error: &kube::Error) -> String {
    let said = said(error);
    if matches!(error, kube::Error::Api(status) if status.code == 403) {
        format!("{said}; apply the roles in deploy/kustomize/base")
    } else {
        said
    }
}

/// What a failed call says, in one line: the server's words, or the whole chain of causes.
pub(super) fn said(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        let message = clean(&status.message, 300);
        return if message.is_empty() {
            format!("HTTP status {}", status.code)
        } else {
            message
        };
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    clean(&text, 300)
}

/// Doubles from half a second to 30 s, each spread by up to a half, so that the replicas of many
/// clusters do not come back to one API server at the same moment.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(super) const FLOOR: Duration = Duration::from_millis(500);
    const CAP: Duration = Duration::from_secs(30);
    const RESET: Duration = Duration::from_secs(30);

    pub(super) fn next(&mut self) -> Duration {
        let full = Self::FLOOR
            .saturating_mul(1 << self.failures.min(10))
            .min(Self::CAP);
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(0.5 + chance() / 2.0).max(Self::FLOOR)
    }
}

/// Whether version `a` of an object is older than `b`. They are opaque by contract before Kubernetes
/// 1.35, which promises that they compare as numbers, as etcd's revisions always have; where they are
/// no numbers, nothing is known.
pub(super) fn is_older(a: &str, b: &str) -> Option<bool> {
    let number = |text: &str| text.parse::<u64>().ok();
    Some(number(a)? < number(b)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers_or_not_at_all() {
        assert_eq!(is_older("9", "10"), Some(true));
        assert_eq!(is_older("10", "10"), Some(false));
        assert_eq!(is_older("11", "10"), Some(false));
        assert_eq!(is_older("abc", "10"), None);
    }

    #[test]
    fn retries_have_a_floor_and_a_cap() {
        let mut backoff = Backoff::default();
        for _ in 0..100 {
            let pause = backoff.next();
            assert!(
                pause >= Backoff::FLOOR && pause <= Backoff::CAP,
                "{pause:?}"
            );
        }
        assert!(backoff.next() >= Backoff::CAP / 2);
        assert!(
            (0..100)
                .map(|_| chance())
                .all(|share| (0.0..1.0).contains(&share))
        );
    }
}
