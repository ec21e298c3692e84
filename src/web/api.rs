//! The handlers of the API: each takes the latest snapshot and answers with a shape of `view`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use foreshock_core::decision::verdict::Phase;
use foreshock_core::risk::Band;

use super::cache::append_json;
use super::openapi;
use super::plan::DrainPlan;
use super::problem::Problem;
use super::query::RawQuery;
use super::router::App;
use super::view::{
    EventJson, EventsJson, FiringAlertsJson, HealthJson, HistoryJson, ModelCardJson,
    NodeDetailJson, NodesJson, PredictionsJson, RiskHistoryJson, StatsJson, SwitchJson,
    WebhookJson, matches_text,
};
use super::words::{BandWord, KindWord, PhaseWord};
use super::{ControlError, PlanError, Switched, WebhookAnswer};
use crate::events::{EventId, EventKind, EventQuery};
use crate::snapshot::NodeView;

/// Most Nodes in one answer; more than Kubernetes supports.
const NODES_MAX: usize = 10_000;
/// Most events in one answer: all that there are.
const EVENTS_MAX: usize = crate::events::EVENTS_MAX;
/// Events in one answer unless asked otherwise.
const EVENTS_DEFAULT: usize = 100;
/// Events in the history of a Node.
const HISTORY_EVENTS: usize = 50;

type Answer = Result<Response, Problem>;

/// Whether the process is alive. It says nothing about dependencies: a restart would not mend them.
#[utoipa::path(get, path = "/healthz", tag = "service", responses((status = 200, description = "alive", body = String, content_type = "text/plain")))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether this replica can answer: the first list of Nodes is complete and a first decision was
/// made. Leadership does not count.
#[utoipa::path(get, path = "/readyz", tag = "service", responses(
    (status = 200, description = "ready", body = String, content_type = "text/plain"),
    (status = 503, description = "not yet", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Answer {
    let snapshot = app.cache.snapshot();
    if snapshot.synced {
        return Ok("ready\n".into_response());
    }
    let health = HealthJson::new(&snapshot, app.now());
    Err(Problem::busy(health.not_ready()))
}

/// Metrics in the OpenMetrics text format.
#[utoipa::path(get, path = "/metrics", tag = "service", responses((status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text")))]
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Answer {
    let encode = app.state.metrics.clone();
    let body = tokio::task::spawn_blocking(move || encode())
        .await
        .map_err(|_| internal("the metrics could not be written"))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
}

/// Takes a payload of Alertmanager's webhook, version 4. It leaves evidence and wakes the decision.
#[utoipa::path(post, path = "/webhook/alertmanager", tag = "evidence",
    request_body(content = serde_json::Value, description = "Alertmanager's webhook payload, version 4; at most 16 MiB"),
    responses(
    (status = 202, description = "taken", body = WebhookJson),
    (status = 400, description = "not JSON, or without `version` or `alerts`", body = Problem, content_type = "application/problem+json"),
    (status = 401, description = "credentials are missing or wrong", body = Problem, content_type = "application/problem+json"),
    (status = 413, description = "larger than 16 MiB", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "no room at present, or the leader cannot be reached; send it again", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn webhook(
    State(app): State<Arc<App>>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!(
                "the payload is larger than {} bytes; set max_alerts in Alertmanager's \
                 webhook_config",
                app.bounds.webhook_body
            ),
        ),
        _ => Problem::new(StatusCode::BAD_REQUEST, "the payload did not arrive whole"),
    })?;
    let webhook = app.state.webhook.clone();
    // Sixteen megabytes of JSON take tens of milliseconds.
    let answer = tokio::task::spawn_blocking(move || webhook.receive(body))
        .await
        .map_err(|_| internal("the payload could not be read"))?;
    match answer {
        WebhookAnswer::Accepted { alerts } => {
            Ok((StatusCode::ACCEPTED, json(&WebhookJson { alerts })).into_response())
        }
        WebhookAnswer::Malformed { problem } => Err(Problem::new(StatusCode::BAD_REQUEST, problem)),
        WebhookAnswer::QueueFull => Err(Problem::busy("the queue of payloads is full")),
    }
}

/// How foreshock itself is. Always 200: `status` says whether all is well.
#[utoipa::path(get, path = "/api/health", tag = "service", responses((status = 200, description = "health", body = HealthJson)))]
pub(super) async fn health(State(app): State<Arc<App>>, query: RawQuery) -> Answer {
    query.of(&[])?;
    Ok(json(&HealthJson::new(&app.cache.snapshot(), app.now())))
}

/// Counters, limits and a summary of the fleet.
#[utoipa::path(get, path = "/api/stats", tag = "fleet", responses((status = 200, description = "statistics", body = StatsJson)))]
pub(super) async fn stats(State(app): State<Arc<App>>, query: RawQuery) -> Answer {
    query.of(&[])?;
    Ok(json(&StatsJson::new(&app.cache.snapshot(), app.now())))
}

/// Nodes with risk, phase and what holds them.
#[utoipa::path(get, path = "/api/nodes", tag = "fleet",
    params(
        ("band" = Option<BandWord>, Query, description = "only Nodes in this band"),
        ("phase" = Option<PhaseWord>, Query, description = "only Nodes in this phase"),
        ("pool" = Option<String>, Query, description = "only Nodes of this pool of the policy"),
        ("q" = Option<String>, Query, description = "only Nodes with this text in name, zone, pool, reasons or alerts; case does not count"),
        ("limit" = Option<u32>, Query, description = "at most so many (1 to 10000); all by default"),
        ("cursor" = Option<String>, Query, description = "`next` of the part before"),
    ),
    responses(
        (status = 200, description = "Nodes, by name", body = NodesJson),
        (status = 400, description = "a parameter cannot be understood", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn nodes(State(app): State<Arc<App>>, query: RawQuery) -> Answer {
    let query = query.of(&["band", "phase", "pool", "q", "limit", "cursor"])?;
    let band = query.word("band", &Band::ALL, |band| band.as_str())?;
    let phase = query.word("phase", &Phase::ALL, |phase| phase.as_str())?;
    let limit = query.number("limit", 1..=NODES_MAX)?.unwrap_or(NODES_MAX);
    let pool = query.text("pool");
    let needle = query.text("q").map(str::to_lowercase);
    let wanted = |node: &NodeView| {
        band.is_none_or(|band| node.verdict.band == band)
            && phase.is_none_or(|phase| node.verdict.phase == phase)
            && pool.is_none_or(|pool| node.pool.as_deref() == Some(pool))
            && needle
                .as_deref()
                .is_none_or(|needle| matches_text(node, needle))
    };
    let rendered = app.cache.rendered().await;
    let body = rendered.page(wanted, query.text("cursor"), limit);
    Ok(json_bytes(body))
}

/// One Node in detail, with its features, its drain plan and its history.
#[utoipa::path(get, path = "/api/nodes/{node}", tag = "fleet",
    params(
        ("node" = String, Path, description = "name of the Node"),
        ("plan" = Option<bool>, Query, description = "`false` leaves the plan out, which saves reading the Pods"),
    ),
    responses(
        (status = 200, description = "the Node", body = NodeDetailJson),
        (status = 404, description = "there is no such Node", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn node(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    query: RawQuery,
) -> Answer {
    let with_plan = query.of(&["plan"])?.flag("plan")?.unwrap_or(true);
    let snapshot = app.cache.snapshot();
    let node = snapshot
        .node(&name)
        .ok_or_else(|| Problem::no_node(&name, snapshot.synced))?;
    let plan = if with_plan {
        let plan = plan_of(&app, node).await;
        Some(plan.map_err(|error| error.to_string()))
    } else {
        None
    };
    let events = app.state.events.page(&EventQuery {
        node: Some(name.clone()),
        limit: HISTORY_EVENTS,
        newest_first: true,
        ..EventQuery::default()
    });
    let history = HistoryJson {
        risk: app.history.of(&name),
        events: events.events.iter().map(|e| EventJson::new(e)).collect(),
    };
    Ok(json(&NodeDetailJson::new(&snapshot, node, plan, history)))
}

/// What a drain of the Node would do now. Writes nothing, whatever the Node's phase.
#[utoipa::path(get, path = "/api/nodes/{node}/plan", tag = "fleet",
    params(("node" = String, Path, description = "name of the Node")),
    responses(
        (status = 200, description = "the plan", body = DrainPlan),
        (status = 404, description = "there is no such Node", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the Pods could not be read", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn plan(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    query: RawQuery,
) -> Answer {
    query.of(&[])?;
    let snapshot = app.cache.snapshot();
    let node = snapshot
        .node(&name)
        .ok_or_else(|| Problem::no_node(&name, snapshot.synced))?;
    match plan_of(&app, node).await {
        Ok(plan) => Ok(json(&plan)),
        Err(error) => Err(Problem::busy(error.to_string())),
    }
}

async fn plan_of(app: &App, node: &NodeView) -> Result<DrainPlan, PlanError> {
    let facts = app.state.plans.facts(&node.verdict.node).await?;
    Ok(DrainPlan::new(node.name(), &facts))
}

/// The recent risk of every Node, for sparklines.
#[utoipa::path(get, path = "/api/risk-history", tag = "fleet", responses((status = 200, description = "risks, oldest first", body = RiskHistoryJson)))]
pub(super) async fn risk_history(State(app): State<Arc<App>>, query: RawQuery) -> Answer {
    query.of(&[])?;
    Ok(json(&app.history.all()))
}

/// What happened, of the last 1,000 events since foreshock started.
#[utoipa::path(get, path = "/api/events", tag = "events",
    params(
        ("after" = Option<String>, Query, description = "only those behind this id, in the chosen order"),
        ("node" = Option<String>, Query, description = "only those about this Node"),
        ("kind" = Option<KindWord>, Query, description = "only those of this kind"),
        ("limit" = Option<u32>, Query, description = "at most so many (1 to 1000); 100 by default"),
        ("order" = Option<String>, Query, description = "`oldest` (first, the default) or `newest`"),
    ),
    responses(
        (status = 200, description = "events", body = EventsJson),
        (status = 400, description = "a parameter cannot be understood", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn events(State(app): State<Arc<App>>, query: RawQuery) -> Answer {
    let query = query.of(&["after", "node", "kind", "limit", "order"])?;
    let after = query
        .text("after")
        .map(str::parse::<EventId>)
        .transpose()
        .map_err(|error| Problem::parameter("after", error))?;
    let newest_first = query.word("order", &[false, true], |newest| {
        if newest { "newest" } else { "oldest" }
    })?;
    let page = app.state.events.page(&EventQuery {
        after,
        node: query.text("node").map(str::to_owned),
        kind: query.word("kind", &EventKind::ALL, |kind| kind.as_str())?,
        limit: query
            .number("limit", 1..=EVENTS_MAX)?
            .unwrap_or(EVENTS_DEFAULT),
        newest_first: newest_first.unwrap_or(false),
    });
    Ok(json(&EventsJson::new(&page)))
}

/// Every alert that fires, also those that act on nothing, with the reason.
#[utoipa::path(get, path = "/api/alerts", tag = "evidence", responses((status = 200, description = "alerts", body = FiringAlertsJson)))]
pub(super) async fn alerts(State(app): State<Arc<App>>, query: RawQuery) -> Answer {
    query.of(&[])?;
    Ok(json(&FiringAlertsJson::new(&app.cache.snapshot())))
}

/// Score, band and contributions of every Node.
#[utoipa::path(get, path = "/api/predictions", tag = "model", responses((status = 200, description = "predictions", body = PredictionsJson)))]
pub(super) async fn predictions(State(app): State<Arc<App>>, query: RawQuery) -> Answer {
    query.of(&[])?;
    let snapshot = app.cache.snapshot();
    // The contributions of 5,000 Nodes are several megabytes.
    let body = tokio::task::spawn_blocking(move || {
        let mut body = Vec::new();
        append_json(&mut body, &PredictionsJson::new(&snapshot));
        body
    })
    .await
    .map_err(|_| internal("the predictions could not be written"))?;
    Ok(json_bytes(body))
}

/// What is known about the model.
#[utoipa::path(get, path = "/api/ml-insights", tag = "model", responses(
    (status = 200, description = "the model's card", body = ModelCardJson),
    (status = 503, description = "no model is in use", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn ml_insights(State(app): State<Arc<App>>, query: RawQuery) -> Answer {
    query.of(&[])?;
    match ModelCardJson::new(&app.cache.snapshot()) {
        Some(card) => Ok(json(&card)),
        None => Err(Problem::busy("no model is in use yet")),
    }
}

/// This description.
#[utoipa::path(get, path = "/api/openapi.json", tag = "service", responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)))]
pub(super) async fn openapi_json() -> Response {
    json_bytes(openapi::document().into_bytes())
}

/// Resumes: writing goes on.
#[utoipa::path(post, path = "/api/monitoring/start", tag = "control", responses(
    (status = 200, description = "how the switch stands", body = SwitchJson),
    (status = 401, description = "credentials are missing or wrong", body = Problem, content_type = "application/problem+json"),
    (status = 403, description = "foreign Origin or Host", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "the switch could not be set", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn start(State(app): State<Arc<App>>, query: RawQuery) -> Answer {
    query.of(&[])?;
    switched(app.state.control.resume().await)
}

/// Pauses: from the answer on nothing more is written, clean-up and release included.
#[utoipa::path(post, path = "/api/monitoring/stop", tag = "control", responses(
    (status = 200, description = "how the switch stands", body = SwitchJson),
    (status = 401, description = "credentials are missing or wrong", body = Problem, content_type = "application/problem+json"),
    (status = 403, description = "foreign Origin or Host", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "the switch could not be set", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn stop(State(app): State<Arc<App>>, query: RawQuery) -> Answer {
    query.of(&[])?;
    switched(app.state.control.pause().await)
}

fn switched(result: Result<Switched, ControlError>) -> Answer {
    match result {
        Ok(Switched { paused, lasting }) => {
            let message = match (paused, lasting) {
                (true, true) => "paused: nothing is written until somebody resumes",
                (true, false) => {
                    "paused until this process ends: nothing is ever written here, so there is \
                     no Lease to keep it on"
                }
                (false, true) => "resumed",
                (false, false) => "resumed; nothing is ever written here (reach is observe)",
            };
            Ok(json(&SwitchJson {
                paused,
                lasting,
                message,
            }))
        }
        Err(error) => Err(Problem::busy(error.to_string())),
    }
}

/// There is no such path.
pub(super) async fn not_found(request: axum::extract::Request) -> Problem {
    let path: String = request.uri().path().chars().take(100).collect();
    Problem::new(
        StatusCode::NOT_FOUND,
        format!("there is no `{path}`; `GET /api/openapi.json` lists every path"),
    )
}

/// The path is there, for other methods.
pub(super) async fn wrong_method(request: axum::extract::Request) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("this path does not take {}", request.method()),
    )
}

fn internal(detail: &str) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
}

fn json(value: &impl serde::Serialize) -> Response {
    let mut body = Vec::new();
    append_json(&mut body, value);
    json_bytes(body)
}

fn json_bytes(body: Vec<u8>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}
