//! Every path with its handler, and what surrounds all of them.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};

use super::cache::Cache;
use super::guard::{self, Guard};
use super::hand_on::{self, Errand, HandOn};
use super::history::RiskHistory;
use super::problem::Problem;
use super::{Bounds, TlsFiles, WebState, api, page, stream};

/// Answers from so many bytes on are worth compressing.
const COMPRESS_MIN: u64 = 1_024;

/// What the handlers share.
pub(super) struct App {
    pub(super) state: WebState,
    pub(super) cache: Cache,
    pub(super) history: RiskHistory,
    pub(super) bounds: Bounds,
    pub(super) streams: Arc<Semaphore>,
    requests: Semaphore,
    hand_on: HandOn,
    pub(super) shutdown: CancellationToken,
}

impl App {
    /// `tls`: what this server serves with, and what it expects of the leader.
    pub(super) fn new(
        state: WebState,
        bounds: Bounds,
        tls: Option<TlsFiles>,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            hand_on: HandOn::new(state.leads.clone(), tls, bounds.webhook_body),
            cache: Cache::new(state.snapshots.clone()),
            history: RiskHistory::default(),
            streams: Arc::new(Semaphore::new(bounds.streams)),
            requests: Semaphore::new(bounds.requests),
            state,
            bounds,
            shutdown,
        }
    }

    /// The time.
    pub(super) fn now(&self) -> Timestamp {
        (self.state.clock)()
    }
}

/// Every path of the API with what answers it. The description is compared with this list.
pub(super) fn paths(app: &App, guard: &Guard) -> Vec<(&'static str, MethodRouter<Arc<App>>)> {
    let read = || middleware::from_fn_with_state(guard.clone(), guard::reads);
    let write = || middleware::from_fn_with_state(guard.clone(), guard::writes);
    let body = DefaultBodyLimit::max(app.bounds.webhook_body);
    // Behind the guard: what is handed on has been let through here.
    let leader = |errand: Errand| {
        middleware::from_fn_with_state((app.hand_on.clone(), errand), hand_on::to_leader)
    };
    vec![
        // A kubelet has no credentials, and these say nothing worth any.
        ("/healthz", get(api::healthz)),
        ("/readyz", get(api::readyz)),
        ("/metrics", get(api::metrics).route_layer(read())),
        (
            "/webhook/alertmanager",
            post(api::webhook)
                .route_layer(leader(Errand::Webhook))
                .route_layer(body)
                .route_layer(write()),
        ),
        ("/api/health", get(api::health).route_layer(read())),
        ("/api/stats", get(api::stats).route_layer(read())),
        ("/api/nodes", get(api::nodes).route_layer(read())),
        ("/api/nodes/{node}", get(api::node).route_layer(read())),
        ("/api/nodes/{node}/plan", get(api::plan).route_layer(read())),
        (
            "/api/risk-history",
            get(api::risk_history).route_layer(read()),
        ),
        ("/api/events", get(api::events).route_layer(read())),
        (
            "/api/events/stream",
            get(stream::stream).route_layer(read()),
        ),
        ("/api/alerts", get(api::alerts).route_layer(read())),
        (
            "/api/predictions",
            get(api::predictions).route_layer(read()),
        ),
        (
            "/api/ml-insights",
            get(api::ml_insights).route_layer(read()),
        ),
        (
            "/api/openapi.json",
            get(api::openapi_json).route_layer(read()),
        ),
        (
            "/api/monitoring/start",
            post(api::start)
                .route_layer(leader(Errand::Resume))
                .route_layer(write()),
        ),
        (
            "/api/monitoring/stop",
            post(api::stop)
                .route_layer(leader(Errand::Pause))
                .route_layer(write()),
        ),
    ]
}

/// The whole router.
pub(super) fn router(app: &Arc<App>, guard: &Guard) -> Router {
    let mut router = Router::new()
        .route("/", get(page::index))
        .route("/assets/{*path}", get(page::asset));
    for (path, methods) in paths(app, guard) {
        router = router.route(path, methods);
    }
    let compress = SizeAbove::new(COMPRESS_MIN)
        .and(NotForContentType::const_new("text/event-stream"))
        .and(NotForContentType::IMAGES);
    router
        .fallback(api::not_found)
        .method_not_allowed_fallback(api::wrong_method)
        .layer(CompressionLayer::new().gzip(true).compress_when(compress))
        .layer(middleware::from_fn_with_state(app.clone(), bounded))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::map_response(secured))
        .with_state(app.clone())
}

/// Bounds how many requests are answered at once, and for how long. A stream is counted until it
/// begins; from then on it has its own bound.
async fn bounded(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Ok(_permit) = app.requests.try_acquire() else {
        return Problem::busy("too many requests at once").into_response();
    };
    match tokio::time::timeout(app.bounds.request_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let limit = app.bounds.request_timeout;
            Problem::busy(format!("no answer within {limit:?}")).into_response()
        }
    }
}

fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("unknown");
    tracing::error!(error = message, "a request met a fault in the program");
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "a fault in the program, which is in the log; please report it",
    )
    .into_response()
}

/// What every answer carries: nothing foreign is loaded, nobody frames or sniffs it, and what is
/// shown is not kept.
async fn secured(mut response: Response) -> Response {
    const POLICY: &str = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; \
                          form-action 'none'; object-src 'none'";
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}
