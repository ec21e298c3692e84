//! A fleet over HTTP: pages for a Prometheus to scrape, discovery for it to find them, and a way to
//! break Nodes while it watches.
//!
//! | path | |
//! |---|---|
//! | `GET /` | the Nodes, their hardware, work and incidents, as text |
//! | `GET /nodes/{node}/metrics` | the Node's node_exporter; 503 while it does not answer |
//! | `GET /nodes/{node}/kubelet/metrics` | its kubelet |
//! | `GET /nodes/{node}/probe` | a prober that pings it |
//! | `GET /kube-state-metrics/metrics` | kube-state-metrics; `?pods=false` leaves Pods out |
//! | `GET /sd` | discovery for `http_sd_configs`; see [`Discovery`] |
//! | `GET /faults` · `POST /faults` | the faults; adds one, from loopback only |
//!
//! A page of node_exporter takes as long as the simulated scrape does, so that
//! `scrape_duration_seconds` is as true as everything else.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{ConnectInfo, Json, Path, Query, State};
use axum::http::{Extensions, HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, extract::rejection::JsonRejection};
use foreshock_core::node::NodeName;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::discovery::Discovery;
use super::fault::{FaultEvent, FaultSpec};
use super::{Fleet, FleetError, NoAnswer, Page};

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A fleet that several tasks hold. Cheap to clone.
#[derive(Clone)]
pub struct SharedFleet {
    fleet: Arc<Mutex<Fleet>>,
    clock: Clock,
}

impl SharedFleet {
    /// Shares a fleet; `clock` says when a scrape happens and how far [`drive`] moves it.
    pub fn new(fleet: Fleet, clock: Clock) -> Self {
        Self {
            fleet: Arc::new(Mutex::new(fleet)),
            clock,
        }
    }

    /// Calls with the fleet, alone. Never keep it over an `.await`.
    pub fn with<R>(&self, call: impl FnOnce(&mut Fleet) -> R) -> R {
        // A panic of another holder leaves counters, not invariants, half way.
        call(&mut self.fleet.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl std::fmt::Debug for SharedFleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedFleet").finish_non_exhaustive()
    }
}

/// The most steps that are taken without letting go of the fleet.
const STEPS_AT_ONCE: u32 = 32;

/// Moves a fleet with the clock until `shutdown`; `speed` 1 is the clock's own.
///
/// At another speed the counters no longer fit the time of a Prometheus that scrapes them.
pub async fn drive(fleet: SharedFleet, speed: f64, shutdown: CancellationToken) {
    let (virtual_start, tick) = fleet.with(|fleet| (fleet.now(), fleet.tick()));
    let real_start = (fleet.clock)();
    let speed = if speed.is_finite() && speed > 0.0 {
        speed
    } else {
        1.0
    };
    let pause = Duration::from_secs_f64((tick.as_secs_f64() / speed).clamp(0.01, 60.0));
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let passed = (fleet.clock)().duration_since(real_start).as_secs_f64() * speed;
        let passed = SignedDuration::try_from_secs_f64(passed).unwrap_or(SignedDuration::ZERO);
        let target = virtual_start.checked_add(passed).unwrap_or(Timestamp::MAX);
        let stepping = fleet.clone();
        // Thousands of Nodes take milliseconds, and hours of a suspended machine seconds.
        let stepped = tokio::task::spawn_blocking(move || {
            let most =
                SignedDuration::try_from(tick * STEPS_AT_ONCE).unwrap_or(SignedDuration::ZERO);
            loop {
                let done = stepping.with(|fleet| {
                    let next = fleet
                        .now()
                        .checked_add(most)
                        .unwrap_or(Timestamp::MAX)
                        .min(target);
                    let before = fleet.now();
                    fleet.advance(next);
                    fleet.now() == before
                });
                if done {
                    break;
                }
            }
        });
        if stepped.await.is_err() {
            return;
        }
    }
}

/// Everything that a fleet serves. Serve it with
/// `into_make_service_with_connect_info::<SocketAddr>()`, or use [`serve`]: without the peer's
/// address, `POST /faults` is taken to come from this process.
pub fn router(fleet: SharedFleet) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/nodes/{node}/metrics", get(node_exporter))
        .route("/nodes/{node}/kubelet/metrics", get(kubelet))
        .route("/nodes/{node}/probe", get(probe))
        .route("/kube-state-metrics/metrics", get(kube_state_metrics))
        .route("/sd", get(discover))
        .route("/faults", get(list_faults).post(add_fault))
        .with_state(fleet)
}

/// Serves a fleet on a listener until `shutdown`.
///
/// # Errors
///
/// What the listener says.
pub async fn serve(
    listener: tokio::net::TcpListener,
    fleet: SharedFleet,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let service = router(fleet).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}

async fn node_exporter(State(fleet): State<SharedFleet>, Path(node): Path<String>) -> Response {
    let node = NodeName::from(node);
    let began = tokio::time::Instant::now();
    let at = (fleet.clock)();
    let (page, takes) = fleet.with(|fleet| {
        // A scrape that fails is one too.
        fleet.note_scrape(&node, Page::NodeExporter, at);
        (
            page_of(fleet, &node, Page::NodeExporter),
            fleet.scrape_duration(&node),
        )
    });
    if let Some(takes) = takes {
        // What writing the page took counts; the last millisecond is the network's.
        let until = began + takes.saturating_sub(Duration::from_millis(1));
        tokio::time::sleep_until(until).await;
    }
    answer(page)
}

async fn kubelet(State(fleet): State<SharedFleet>, Path(node): Path<String>) -> Response {
    beside(&fleet, node.into(), Page::Kubelet)
}

async fn probe(State(fleet): State<SharedFleet>, Path(node): Path<String>) -> Response {
    beside(&fleet, node.into(), Page::Probe)
}

fn beside(fleet: &SharedFleet, node: NodeName, page: Page) -> Response {
    let at = (fleet.clock)();
    answer(fleet.with(|fleet| {
        fleet.note_scrape(&node, page, at);
        page_of(fleet, &node, page)
    }))
}

fn page_of(fleet: &Fleet, node: &NodeName, page: Page) -> Result<String, NoAnswer> {
    let mut out = String::with_capacity(32 * 1024);
    fleet.write_page(node, page, &mut out).map(|()| out)
}

fn answer(page: Result<String, NoAnswer>) -> Response {
    match page {
        Ok(page) => metrics(page),
        Err(reason @ NoAnswer::UnknownNode) => problem(StatusCode::NOT_FOUND, &reason.to_string()),
        Err(reason @ (NoAnswer::Down | NoAnswer::Vanished)) => {
            problem(StatusCode::SERVICE_UNAVAILABLE, &reason.to_string())
        }
    }
}

fn metrics(page: String) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], page).into_response()
}

fn problem(status: StatusCode, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("error");
    let body = serde_json::json!({"title": title, "status": status.as_u16(), "detail": detail});
    let kind = [(header::CONTENT_TYPE, "application/problem+json")];
    (status, kind, body.to_string()).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterPage {
    #[serde(default = "yes")]
    pods: bool,
}

fn yes() -> bool {
    true
}

async fn kube_state_metrics(
    State(fleet): State<SharedFleet>,
    Query(wanted): Query<ClusterPage>,
) -> Response {
    // Megabytes in a large fleet.
    let written = tokio::task::spawn_blocking(move || {
        let mut out = String::new();
        fleet.with(|fleet| fleet.write_cluster_page(wanted.pods, &mut out));
        out
    });
    match written.await {
        Ok(page) => metrics(page),
        Err(_) => problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the page could not be written",
        ),
    }
}

async fn discover(
    State(fleet): State<SharedFleet>,
    headers: HeaderMap,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Response {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let Some(host) = host else {
        return problem(
            StatusCode::BAD_REQUEST,
            "a request for targets needs the header Host",
        );
    };
    match Discovery::parse(&parameters) {
        Ok(discovery) => Json(fleet.with(|fleet| discovery.groups(fleet, host))).into_response(),
        Err(error) => problem(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

async fn index(State(fleet): State<SharedFleet>) -> Response {
    let mut out = String::from(
        "foreshock fleet: simulated Nodes\n\n\
         /sd                              targets for http_sd_configs (?target=node-exporter|kubelet|probe)\n\
         /kube-state-metrics/metrics\n\
         /faults                          GET lists, POST adds\n\
         /nodes/{node}/metrics            and /nodes/{node}/kubelet/metrics, /nodes/{node}/probe\n\n",
    );
    fleet.with(|fleet| {
        let _ = writeln!(out, "{} Nodes at {}\n", fleet.names().len(), fleet.now());
        for node in &fleet.nodes {
            let hardware = &node.hardware;
            let incident = node
                .incident()
                .map_or("", |incident| incident.kind.as_str());
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "/nodes/{}/metrics  {} {} cores, {} {}",
                node.name,
                hardware.machine.as_str(),
                hardware.cores,
                node.work.profile.as_str(),
                incident,
            );
        }
    });
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], out).into_response()
}

/// A fault in JSON; times as in [`FaultSpec`], `at` from now on.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewFault {
    node: String,
    kind: String,
    at: Option<String>,
    #[serde(rename = "for")]
    lasts: Option<String>,
    severity: Option<f64>,
    ramp: Option<String>,
    target: Option<String>,
}

impl NewFault {
    /// The same fault as text, so that there is one reader and one set of messages.
    fn text(&self) -> String {
        let mut text = format!("{}:{}", self.node, self.kind);
        for (key, value) in [
            ("at", &self.at),
            ("for", &self.lasts),
            ("ramp", &self.ramp),
            ("target", &self.target),
        ] {
            if let Some(value) = value {
                let _ = write!(text, ":{key}={value}");
            }
        }
        if let Some(severity) = self.severity {
            let _ = write!(text, ":severity={severity}");
        }
        text
    }
}

#[derive(Serialize)]
struct FaultView {
    node: String,
    kind: &'static str,
    from: Timestamp,
    until: Timestamp,
    severity: f64,
}

impl FaultView {
    fn of(fault: &FaultEvent) -> Self {
        Self {
            node: fault.node.to_string(),
            kind: fault.kind.as_str(),
            from: fault.from,
            until: fault.until(),
            severity: fault.severity,
        }
    }
}

async fn list_faults(State(fleet): State<SharedFleet>) -> Response {
    let list: Vec<_> = fleet.with(|fleet| fleet.faults().map(FaultView::of).collect());
    Json(list).into_response()
}

async fn add_fault(
    State(fleet): State<SharedFleet>,
    extensions: Extensions,
    headers: HeaderMap,
    body: Result<Json<NewFault>, JsonRejection>,
) -> Response {
    let peer = extensions.get::<ConnectInfo<SocketAddr>>();
    if peer.is_some_and(|ConnectInfo(peer)| !peer.ip().is_loopback()) {
        return problem(StatusCode::FORBIDDEN, "faults are taken from loopback only");
    }
    // A page in somebody's browser sends this header; nobody who should be here does.
    if headers.contains_key(header::ORIGIN) {
        return problem(StatusCode::FORBIDDEN, "faults are not taken from browsers");
    }
    let Json(fault) = match body {
        Ok(fault) => fault,
        Err(rejection) => return problem(rejection.status(), &rejection.body_text()),
    };
    let spec: FaultSpec = match fault.text().parse() {
        Ok(spec) => spec,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let added = fleet.with(|fleet| {
        let event = spec.starting(fleet.now());
        let view = FaultView::of(&event);
        fleet.inject(event).map(|()| view)
    });
    match added {
        Ok(view) => (StatusCode::CREATED, Json(view)).into_response(),
        Err(error @ FleetError::UnknownNode(_)) => {
            problem(StatusCode::NOT_FOUND, &error.to_string())
        }
        Err(error) => problem(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}
