//! A replica that does not lead, and one that does, over real connections.

use std::path::Path;
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::HeaderMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::fixture::{Doors, scene, scene_with, snapshot};
use super::{JSON, Server, post, server};
use crate::web::hand_on::{Errand, HandOn};
use crate::web::{Credentials, Lead, TlsFiles, WebOptions};

const STOP: &str = "/api/monitoring/stop";
const START: &str = "/api/monitoring/start";
const WEBHOOK: &str = "/webhook/alertmanager";

async fn leader(options: WebOptions) -> (Server, Arc<Doors>) {
    let scene = scene_with(
        snapshot(1, 40),
        Doors {
            lasting: true,
            ..Doors::default()
        },
    );
    (server(scene.state, options).await, scene.doors)
}

async fn follower(lead: Lead, options: WebOptions) -> (Server, Arc<Doors>) {
    let scene = scene(snapshot(1, 40));
    *scene.doors.lead.lock().unwrap() = Some(lead);
    (server(scene.state, options).await, scene.doors)
}

fn there(address: impl Into<String>) -> Lead {
    Lead::There {
        address: Some(address.into()),
    }
}

fn secret(folder: &tempfile::TempDir, content: &str) -> WebOptions {
    let token_file = folder.path().join(content);
    std::fs::write(&token_file, content).unwrap();
    WebOptions {
        credentials: Some(Credentials::Bearer { token_file }),
        ..WebOptions::default()
    }
}

#[tokio::test]
async fn a_follower_hands_webhook_and_switch_to_the_leader_with_the_callers_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let (leads, led) = leader(secret(&folder, "s3cret")).await;
    let url = format!("http://{}", leads.address);
    let (follows, own) = follower(there(url), secret(&folder, "s3cret")).await;
    let headers = format!("{JSON}Authorization: Bearer s3cret\r\n");
    let body = br#"{"version":"4"}"#;

    let reply = post(follows.address, WEBHOOK, &headers, body).await;
    assert_eq!((reply.status, reply.text()), (202, r#"{"alerts":1}"#));
    assert_eq!(led.received.lock().unwrap()[0], body[..]);
    // What the leader finds wrong with a payload is said to whoever sent it.
    let reply = post(follows.address, WEBHOOK, &headers, b"nonsense").await;
    assert_eq!(reply.status, 400);
    assert_eq!(reply.json()["detail"], "not JSON");
    // A leader without room is a reason to send it again.
    let reply = post(follows.address, WEBHOOK, &headers, b"full").await;
    assert_eq!(reply.status, 503);
    assert!(reply.text().contains("queue"), "{}", reply.text());

    let reply = post(follows.address, STOP, &headers, b"").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["lasting"], true);
    assert_eq!(
        post(follows.address, START, &headers, b"").await.status,
        200
    );
    assert_eq!(*led.switched.lock().unwrap(), [true, false]);

    // Nothing is handed on for somebody who may not.
    assert_eq!(post(follows.address, STOP, JSON, b"").await.status, 401);
    assert_eq!(led.received.lock().unwrap().len(), 3);
    assert!(own.received.lock().unwrap().is_empty());
    assert!(own.switched.lock().unwrap().is_empty());
    assert_eq!(*own.handed_on.lock().unwrap(), [true, true, false]);
}

#[tokio::test]
async fn what_cannot_be_handed_on_is_refused_so_that_it_comes_again_and_a_pause_is_taken_here() {
    // A port that was free a moment ago: nobody listens there.
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let (other, _) = leader(secret(&folder, "another")).await;
    for (lead, words) in [
        (Lead::Nobody, "no replica leads"),
        (Lead::There { address: None }, "listen.advertise"),
        (there(format!("http://{closed}")), "does not answer"),
        (there(format!("http://u:p@{closed}")), "more than scheme"),
        (there("file:///etc/passwd"), "not http"),
        // Secrets that are just being changed: not for the caller to mend.
        (there(format!("http://{}", other.address)), "answers 401"),
    ] {
        let nobody = lead == Lead::Nobody;
        let (follows, own) = follower(lead, WebOptions::default()).await;
        let reply = post(follows.address, WEBHOOK, JSON, b"{}").await;
        assert_eq!(reply.status, 503, "{words}");
        assert!(reply.text().contains(words), "{}", reply.text());
        assert!(reply.header("retry-after").is_some());
        assert_eq!(*own.handed_on.lock().unwrap(), [false]);

        assert_eq!(post(follows.address, STOP, JSON, b"").await.status, 200);
        let resumed = post(follows.address, START, JSON, b"").await;
        let expected: (u16, &[bool]) = if nobody {
            (200, &[true, false])
        } else {
            (503, &[true])
        };
        assert_eq!(
            (resumed.status, &own.switched.lock().unwrap()[..]),
            expected
        );
        assert!(own.received.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_request_is_handed_on_once() {
    // Two replicas, each of which takes the other for the leader.
    let (first, first_doors) = follower(Lead::Nobody, WebOptions::default()).await;
    let (second, _) = follower(
        there(format!("http://{}", first.address)),
        WebOptions::default(),
    )
    .await;
    *first_doors.lead.lock().unwrap() = Some(there(format!("http://{}", second.address)));
    for path in [WEBHOOK, START] {
        let reply = post(second.address, path, JSON, b"{}").await;
        assert_eq!(reply.status, 503, "{path}");
        assert!(reply.text().contains("changing hands"), "{}", reply.text());
    }
    assert!(first_doors.handed_on.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_an_endless_answer_not_read() {
    let (goal, goal_doors) = leader(WebOptions::default()).await;
    let redirect = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://{}{WEBHOOK}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        goal.address
    );
    let endless = format!(
        "HTTP/1.1 202 Accepted\r\nContent-Length: 1000000000\r\n\r\n{}",
        "x".repeat(1 << 20)
    );
    for (answer, words) in [(redirect, "answers 307"), (endless, "at length")] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        });
        let (follows, _) =
            follower(there(format!("http://{address}")), WebOptions::default()).await;
        let reply = post(follows.address, WEBHOOK, JSON, b"{}").await;
        assert_eq!(reply.status, 503);
        assert!(reply.text().contains(words), "{}", reply.text());
        task.await.unwrap();
    }
    assert!(goal_doors.received.lock().unwrap().is_empty());
}

#[tokio::test]
async fn with_tls_the_leader_has_to_show_the_certificate_that_this_replica_serves_with() {
    // Choosing twice is refused and harmless.
    drop(rustls::crypto::ring::default_provider().install_default());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/web/tests");
    let files = TlsFiles {
        cert_file: folder.join("cert.pem"),
        key_file: folder.join("key.pem"),
    };
    let tls = || WebOptions {
        tls: Some(files.clone()),
        ..WebOptions::default()
    };
    let (leads, led) = leader(tls()).await;
    let ask = async |files: &TlsFiles, address: String| {
        let doors = scene(snapshot(1, 40)).doors;
        let hand_on = HandOn::new(doors, Some(files.clone()), 1 << 20);
        let (none, body) = (HeaderMap::new(), Bytes::from_static(b"{}"));
        let answer = hand_on
            .ask(Some(&address), Errand::Webhook, WEBHOOK, &none, body)
            .await;
        answer.map(|answer| answer.status().as_u16())
    };
    let https = format!("https://{}", leads.address);
    assert_eq!(ask(&files, https.clone()).await, Ok(202));
    assert_eq!(led.received.lock().unwrap().len(), 1);
    // Nobody's certificate but ours, and nothing in the clear.
    let other = tempfile::tempdir().unwrap();
    let cert_file = other.path().join("cert.pem");
    let pem = "-----BEGIN CERTIFICATE-----\nbm90IHRoYXQgb25l\n-----END CERTIFICATE-----\n";
    std::fs::write(&cert_file, pem).unwrap();
    let others = TlsFiles {
        cert_file,
        ..files.clone()
    };
    let refused = ask(&others, https).await.unwrap_err();
    assert!(refused.contains("does not answer"), "{refused}");
    let refused = ask(&files, format!("http://{}", leads.address)).await;
    assert!(refused.unwrap_err().contains("not https"));
    assert_eq!(led.received.lock().unwrap().len(), 1);
}
