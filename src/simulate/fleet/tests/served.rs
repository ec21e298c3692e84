//! The fleet over HTTP, through the real router.

use std::net::SocketAddr;

use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode};
use tower::ServiceExt;

use super::page::parse;
use super::server::{SharedFleet, router};
use super::*;

fn shared(faults: &[&str], on_request: bool) -> SharedFleet {
    let mut options = FleetOptions::new(1, 3, start());
    options.schedule = faults.iter().map(|text| fault(text)).collect();
    options.memory = on_request.then(|| MemoryOptions {
        scrapes: Scrapes::OnRequest,
        ..MemoryOptions::every(Duration::from_secs(15))
    });
    let mut fleet = Fleet::new(options).unwrap();
    fleet.advance(minute(5));
    SharedFleet::new(fleet, Arc::new(|| minute(5)))
}

async fn ask(fleet: &SharedFleet, request: Request<Body>) -> (StatusCode, String) {
    let answer = router(fleet.clone()).oneshot(request).await.unwrap();
    let status = answer.status();
    let body = to_bytes(answer.into_body(), 100_000_000).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn get(fleet: &SharedFleet, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).header("host", "127.0.0.1:9999");
    ask(fleet, request.body(Body::empty()).unwrap()).await
}

fn post(body: &str) -> Request<Body> {
    let request = Request::post("/faults").header("content-type", "application/json");
    request.body(Body::from(body.to_owned())).unwrap()
}

#[tokio::test(start_paused = true)]
async fn pages_are_served_and_silence_is_an_error() {
    let fleet = shared(&["worker-02:vanished-exporter:for=10m"], false);
    for path in [
        "/nodes/worker-01/metrics",
        "/nodes/worker-01/kubelet/metrics",
        "/nodes/worker-02/probe",
        "/kube-state-metrics/metrics",
    ] {
        let (status, body) = get(&fleet, path).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert!(!parse(&body).is_empty());
    }
    for (path, expected) in [
        ("/nodes/worker-02/metrics", StatusCode::SERVICE_UNAVAILABLE),
        ("/nodes/worker-02/kubelet/metrics", StatusCode::OK),
        ("/nodes/worker-09/metrics", StatusCode::NOT_FOUND),
        ("/nodes/worker-09/probe", StatusCode::NOT_FOUND),
        ("/nodes", StatusCode::NOT_FOUND),
        ("/sd?target=x", StatusCode::BAD_REQUEST),
        ("/kube-state-metrics/metrics?all=1", StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(get(&fleet, path).await.0, expected, "{path}");
    }
    let (status, index) = get(&fleet, "/").await;
    assert!(status == StatusCode::OK && index.contains("/nodes/worker-03/metrics"));
}

#[tokio::test(start_paused = true)]
async fn a_scrape_takes_as_long_as_it_is_said_to() {
    let fleet = shared(&[], false);
    let says = fleet
        .with(|fleet| fleet.scrape_duration(&"worker-01".into()))
        .unwrap();
    let began = tokio::time::Instant::now();
    get(&fleet, "/nodes/worker-01/metrics").await;
    let took = began.elapsed();
    assert!(
        took <= says + Duration::from_millis(2) && took + Duration::from_millis(3) >= says,
        "{took:?} for {says:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn discovery_leads_to_pages_that_answer() {
    let fleet = shared(&[], false);
    let (status, body) = get(&fleet, "/sd?job=nodes&instance=%7Bnode%7D:9100&zone=a").await;
    assert_eq!(status, StatusCode::OK);
    let groups: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(groups.as_array().unwrap().len(), 3);
    assert_eq!(groups[0]["targets"][0], "127.0.0.1:9999");
    assert_eq!(groups[0]["labels"]["job"], "nodes");
    assert_eq!(groups[0]["labels"]["zone"], "a");
    let path = groups[1]["labels"]["__metrics_path__"].as_str().unwrap();
    assert_eq!(get(&fleet, path).await.0, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_fault_can_be_added_while_it_runs() {
    let fleet = shared(&[], false);
    let (status, body) = ask(
        &fleet,
        post(r#"{"node":"worker-03","kind":"slow-disk","for":"5m","severity":0.9}"#),
    )
    .await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let added: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(added["from"], minute(5).to_string());
    assert_eq!(added["until"], minute(10).to_string());
    let (_, list) = get(&fleet, "/faults").await;
    assert!(list.contains("slow-disk"), "{list}");
    fleet.with(|fleet| fleet.advance(minute(9)));
    let degraded = fleet.with(|fleet| fleet.degraded(&"worker-03".into()));
    assert_eq!(
        degraded.map(|truth| truth.incident),
        Some(IncidentKind::IoStall)
    );
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_cannot_be_is_refused_with_the_reason() {
    let fleet = shared(&[], false);
    let good = r#"{"node":"worker-03","kind":"slow-disk"}"#;
    for (body, expected, message) in [
        ("", StatusCode::BAD_REQUEST, "EOF"),
        ("[]", StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
        (
            r#"{"node":"worker-03"}"#,
            StatusCode::UNPROCESSABLE_ENTITY,
            "missing field `kind`",
        ),
        (
            r#"{"node":"worker-03","kind":"slow-disk","how":1}"#,
            StatusCode::UNPROCESSABLE_ENTITY,
            "unknown field `how`",
        ),
        (
            r#"{"node":"worker-03","kind":"slow"}"#,
            StatusCode::BAD_REQUEST,
            "`slow` is no kind",
        ),
        (
            r#"{"node":"worker-03","kind":"slow-disk","for":"x"}"#,
            StatusCode::BAD_REQUEST,
            "not a duration",
        ),
        (
            r#"{"node":"worker-03","kind":"slow-disk","severity":7}"#,
            StatusCode::BAD_REQUEST,
            "at most 1",
        ),
        (
            r#"{"node":"worker-33","kind":"slow-disk"}"#,
            StatusCode::NOT_FOUND,
            "worker-33",
        ),
    ] {
        let (status, answer) = ask(&fleet, post(body)).await;
        assert_eq!(status, expected, "{body}: {answer}");
        assert!(answer.contains(message), "{body}: {answer}");
    }
    let text = Request::post("/faults").body(Body::from(good)).unwrap();
    assert_eq!(
        ask(&fleet, text).await.0,
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
    let mut foreign = post(good);
    foreign
        .headers_mut()
        .insert("origin", "https://example.org".parse().unwrap());
    assert_eq!(ask(&fleet, foreign).await.0, StatusCode::FORBIDDEN);
    let mut remote = post(good);
    remote
        .extensions_mut()
        .insert(ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 4000))));
    assert_eq!(ask(&fleet, remote).await.0, StatusCode::FORBIDDEN);
    assert_eq!(get(&fleet, "/faults").await.1, "[]");
}

#[tokio::test(start_paused = true)]
async fn the_columns_follow_the_scrapes_of_whoever_scrapes() {
    let mut options = FleetOptions::new(1, 2, start());
    options.memory = Some(MemoryOptions {
        scrapes: Scrapes::OnRequest,
        ..MemoryOptions::every(Duration::from_secs(15))
    });
    let fleet = Fleet::new(options).unwrap();
    let now = Arc::new(std::sync::Mutex::new(start()));
    let clock = now.clone();
    let shared = SharedFleet::new(fleet, Arc::new(move || *clock.lock().unwrap()));
    for step in 1..=20 {
        *now.lock().unwrap() = second(15 * step);
        shared.with(|fleet| fleet.advance(second(15 * step)));
        get(&shared, "/nodes/worker-01/metrics").await;
    }
    let matrix = shared.with(|fleet| columns().matrix(fleet, fleet.now()));
    assert_eq!(matrix.scraped_at[0], Some(second(300)));
    assert_eq!(matrix.scraped_at[1], None, "nobody asked for it");
    assert!(value(&matrix, "worker-01", "cpu_used").is_some());
}

#[tokio::test(start_paused = true)]
async fn the_driver_follows_the_clock_and_stops() {
    let fleet = Fleet::new(FleetOptions::new(1, 2, start())).unwrap();
    let began = tokio::time::Instant::now();
    let clock = Arc::new(move || {
        let passed = jiff::SignedDuration::try_from(began.elapsed()).unwrap();
        start().checked_add(passed).unwrap()
    });
    let shared = SharedFleet::new(fleet, clock);
    let stop = tokio_util::sync::CancellationToken::new();
    let task = tokio::spawn(server::drive(shared.clone(), 1.0, stop.clone()));
    tokio::time::sleep(Duration::from_secs(62)).await;
    // The steps are taken on another thread, which the paused clock does not wait for.
    let mut reached = start();
    for _ in 0..1000 {
        reached = shared.with(|fleet| fleet.now());
        if reached >= second(55) {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
        tokio::task::yield_now().await;
    }
    assert!((second(55)..=second(120)).contains(&reached), "{reached}");
    stop.cancel();
    task.await.unwrap();
}
