//! What a running service makes of missing servers, of credentials, of noise and of floods: it goes on.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{BASE, GOOD, HOOK};
use crate::support::foreshock::Foreshock;
use crate::support::server::Workdir;
use crate::support::{http, init, wait_until};

/// A service that watches only and whose Prometheus is not there.
pub(super) async fn service(workdir: &Workdir, more: &str) -> Foreshock {
    init();
    let config = workdir.write(
        "foreshock.toml",
        &format!("{BASE}lag = \"1s\"\n[cycle]\ninterval = \"1s\"\n{more}"),
    );
    Foreshock::start(&config, &[], &[]).await
}

/// The value of one sample of `/metrics`.
pub(super) async fn metric(foreshock: &Foreshock, sample: &str) -> Option<f64> {
    let (_, text) = foreshock.get("/metrics").await;
    text.lines()
        .find_map(|line| line.strip_prefix(sample)?.trim().parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_is_cut_off_and_the_service_goes_on() {
    let workdir = Workdir::new("no-http");
    let foreshock = service(&workdir, "").await;
    let address = foreshock.url().trim_start_matches("http://").to_owned();
    let long = format!(
        "GET / HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n",
        "a".repeat(256 << 10)
    );
    for (name, sent, expected) in [
        ("noise", "\u{1}\u{2}\u{3}\r\n\r\n", "HTTP/1.1 400 "),
        (
            "a version to come",
            "GET / HTTP/9.9\r\n\r\n",
            "HTTP/1.1 400 ",
        ),
        ("headers of 256 KiB", long.as_str(), "HTTP/1.1 431 "),
    ] {
        let mut stream = tokio::net::TcpStream::connect(&address)
            .await
            .expect("it listens");
        // It may be cut off before all of it is sent.
        let _ = stream.write_all(sent.as_bytes()).await;
        let mut said = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut said));
        let _ = read.await.unwrap_or_else(|_| panic!("{name}: not cut off"));
        let said = String::from_utf8_lossy(&said);
        assert!(said.starts_with(expected), "{name}: {said:?}");
    }
    assert_eq!(foreshock.get("/healthz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_prometheus_health_metrics_and_log_say_so_and_the_service_goes_on() {
    let workdir = Workdir::new("no-prometheus");
    let foreshock = service(&workdir, "").await;
    let health = wait_until("health to say so", Duration::from_secs(30), async || {
        let health = foreshock.get_json("/api/health").await;
        if health["status"] == "degraded" && health["prometheus"]["problem"].is_string() {
            Ok(health)
        } else {
            Err(health.to_string())
        }
    })
    .await;
    assert_eq!(health["prometheus"]["ok"], false);
    let problem = health["prometheus"]["problem"].as_str().unwrap_or_default();
    assert!(
        problem.contains("did not reach the server") && problem.contains("Connection refused"),
        "{problem}"
    );
    let failed = "foreshock_feature_snapshots_total{outcome=\"failed\"}";
    let failed = metric(&foreshock, failed).await;
    assert!(failed.is_some_and(|failed| failed >= 1.0), "{failed:?}");
    let up = metric(
        &foreshock,
        "foreshock_dependency_up{dependency=\"prometheus\"}",
    )
    .await;
    assert_eq!(up, Some(0.0));
    let log = foreshock.log();
    assert!(log.contains("WARN") && log.contains("no features"), "{log}");

    // An alert about a Node that nobody knows is taken, counted and shown.
    let alert = json!({
        "status": "firing", "labels": {"alertname": "Odd", "node": "ghost"},
        "startsAt": "2026-11-01T00:00:00Z", "endsAt": "0001-01-01T00:00:00Z",
    });
    let (status, body) = foreshock
        .post_json(HOOK, &json!({"version": "4", "alerts": [alert]}))
        .await;
    assert_eq!(status, 202, "{body}");
    wait_until(
        "the alert to be counted",
        Duration::from_secs(10),
        async || {
            let stats = foreshock.get_json("/api/stats").await;
            let received = &stats["alerts"]["received"];
            if received["unknown_node"] == 1 {
                Ok(())
            } else {
                Err(received.to_string())
            }
        },
    )
    .await;
    let counted = "foreshock_alerts_received_total{outcome=\"unknown_node\"}";
    assert_eq!(metric(&foreshock, counted).await, Some(1.0));
    let shown = foreshock.get_json("/api/alerts").await;
    assert!(shown.to_string().contains("Odd"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_missing_or_wrong_are_refused_with_a_challenge() {
    let workdir = Workdir::new("credentials");
    workdir.write("token", "s3cret\n");
    let foreshock = service(&workdir, "[auth]\nbearer_token_file = \"token\"").await;
    let good: Value = serde_json::from_str(GOOD).expect("JSON");
    for (shown, status, says) in [
        (None, 401, "this needs `Authorization: Bearer TOKEN`"),
        (Some("Bearer wrong"), 401, "the token is not the right one"),
        (
            Some("Basic czNjcmV0"),
            401,
            "this needs `Authorization: Bearer TOKEN`",
        ),
        (Some("Bearer s3cret"), 202, "\"alerts\":0"),
    ] {
        let mut request = http()
            .post(format!("{}{HOOK}", foreshock.url()))
            .json(&good);
        if let Some(shown) = shown {
            request = request.header("authorization", shown);
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), status, "{shown:?}");
        let challenge = answer.headers().contains_key("www-authenticate");
        assert_eq!(challenge, status == 401, "{shown:?}");
        let said = answer.text().await.expect("a body");
        assert!(said.contains(says), "{shown:?}: {said}");
    }
    assert_eq!(foreshock.get("/api/health").await.0, 200, "reading is open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_alerts_is_answered_with_503_and_the_service_goes_on() {
    /// Two such bodies are more than may wait at once.
    const ALERTS: usize = 30_000;
    let workdir = Workdir::new("flood");
    let foreshock = service(&workdir, "").await;
    let alerts: Vec<Value> = (0..ALERTS)
        .map(|n| {
            json!({"status": "firing", "labels": {"node": format!("n{n}")}, "startsAt": "2026-11-01T00:00:00Z"})
        })
        .collect();
    let body = json!({"version": "4", "alerts": alerts}).to_string();
    let url = format!("{}{HOOK}", foreshock.url());
    let post = || async {
        let answer = http()
            .post(&url)
            .header("content-type", "application/json")
            .body(body.clone())
            .send()
            .await
            .expect("an answer");
        let after = answer.headers().get("retry-after").is_some();
        let status = answer.status().as_u16();
        (status, after, answer.text().await.unwrap_or_default())
    };
    let mut outcomes = Vec::new();
    for _ in 0..10 {
        outcomes.extend(futures::future::join_all((0..6).map(|_| post())).await);
        if outcomes.iter().any(|(status, ..)| *status == 503) {
            break;
        }
    }
    let taken = outcomes
        .iter()
        .filter(|(status, ..)| *status == 202)
        .count();
    let full: Vec<_> = outcomes
        .iter()
        .filter(|(status, ..)| *status != 202)
        .collect();
    println!("{taken} taken, {} refused", full.len());
    assert!(taken >= 1 && !full.is_empty(), "{outcomes:?}");
    for (status, after, said) in full {
        assert_eq!(*status, 503, "{said}");
        assert!(
            *after && said.contains("the queue of payloads is full"),
            "{said}"
        );
    }
    wait_until(
        "it to take alerts again",
        Duration::from_secs(60),
        async || {
            let (status, said) = foreshock
                .post_json(HOOK, &json!({"version": "4", "alerts": []}))
                .await;
            if status == 202 { Ok(()) } else { Err(said) }
        },
    )
    .await;
}
