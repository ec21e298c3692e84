//! The listener: who is let through, what is bounded, how it begins and ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::fixture::{Doors, scene, scene_with, snapshot};
use super::{JSON, Server, fetch, post, reply, server};
use crate::web::{Bounds, Credentials, TlsFiles, WebError, WebOptions, bind, serve};

const STOP: &str = "/api/monitoring/stop";
const START: &str = "/api/monitoring/start";

fn secret(folder: &tempfile::TempDir, content: &str) -> std::path::PathBuf {
    let file = folder.path().join("secret");
    std::fs::write(&file, content).unwrap();
    file
}

#[tokio::test]
async fn a_foreign_page_can_cause_nothing_on_loopback() {
    let scene = scene(snapshot(1, 40));
    let doors = scene.doors.clone();
    let server = server(scene.state, WebOptions::default()).await;
    let address = server.address;
    for path in [STOP, START, "/webhook/alertmanager"] {
        for (headers, status) in [
            ("Content-Type: text/plain\r\n".to_owned(), 415),
            (
                "Content-Type: application/x-www-form-urlencoded\r\n".to_owned(),
                415,
            ),
            (String::new(), 415),
            (format!("{JSON}Origin: https://evil.example\r\n"), 403),
            (format!("{JSON}Origin: null\r\n"), 403),
            (format!("{JSON}Origin: http://localhost:1\r\n"), 403),
            (format!("{JSON}Host: 127.0.0.1\r\n"), 400),
        ] {
            let reply = post(address, path, &headers, b"{}").await;
            assert_eq!(reply.status, status, "{path} {headers}");
            assert_eq!(
                reply.header("content-type"),
                Some("application/problem+json")
            );
        }
        let rebound = format!(
            "POST {path} HTTP/1.1\r\nHost: evil.example:5000\r\nContent-Length: 2\r\n{JSON}"
        );
        assert_eq!(
            super::send(address, &rebound, b"{}").await.status,
            403,
            "{path}"
        );
        // A page may not ask beforehand either: there is no CORS answer to lean on.
        let preflight = format!(
            "OPTIONS {path} HTTP/1.1\r\nHost: {address}\r\nOrigin: https://evil.example\r\nAccess-Control-Request-Method: POST"
        );
        let answer = super::send(address, &preflight, b"").await;
        assert_eq!(answer.status, 405);
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    assert!(doors.switched.lock().unwrap().is_empty());
    assert!(doors.received.lock().unwrap().is_empty());

    let own = format!("{JSON}Origin: http://{address}\r\n");
    assert_eq!(post(address, STOP, &own, b"").await.status, 200);
    assert_eq!(post(address, START, JSON, b"").await.status, 200);
    assert_eq!(*doors.switched.lock().unwrap(), [true, false]);
}

/// A server whose guard believes that others can reach it.
async fn beyond_loopback(credentials: Option<Credentials>, protect_reads: bool) -> Server {
    let options = WebOptions {
        credentials,
        protect_reads,
        ..WebOptions::default()
    };
    let listener = bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let shutdown = CancellationToken::new();
    let state = scene(snapshot(2, 40)).state;
    let task = tokio::spawn(serve(listener, options, state, shutdown.clone()));
    Server {
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        shutdown,
        task,
    }
}

#[tokio::test]
async fn beyond_loopback_every_post_shows_the_token_of_this_moment() {
    let folder = tempfile::tempdir().unwrap();
    let token_file = secret(&folder, "s3cret\n");
    let credentials = Credentials::Bearer {
        token_file: token_file.clone(),
    };
    let server = beyond_loopback(Some(credentials), false).await;
    let with = |value: &str| format!("{JSON}Authorization: {value}\r\n");
    for path in [STOP, START, "/webhook/alertmanager"] {
        for (headers, status) in [
            (JSON.to_owned(), 401),
            (with("Bearer wrong"), 401),
            (with("Bearer s3cre"), 401),
            (with("Bearer s3crets"), 401),
            (with("Bearer "), 401),
            (with("Basic czNjcmV0"), 401),
            (with("s3cret"), 401),
            (
                with("Bearer s3cret") + "Authorization: Bearer s3cret\r\n",
                401,
            ),
        ] {
            let reply = post(server.address, path, &headers, b"{}").await;
            assert_eq!(reply.status, status, "{path} {headers}");
            let challenge = reply.header("www-authenticate").unwrap();
            assert!(challenge.starts_with("Bearer"), "{challenge}");
            assert!(!reply.text().contains("s3cret"));
        }
        for headers in [with("Bearer s3cret"), with("bearer  s3cret")] {
            let status = post(server.address, path, &headers, b"{}").await.status;
            assert!(status < 300, "{path}: {status}");
        }
    }
    // Reading stays open unless configured otherwise.
    assert_eq!(fetch(server.address, "/api/nodes").await.status, 200);

    // A rotated secret counts at once; one that cannot be read lets nobody through.
    std::fs::write(&token_file, "fresh").unwrap();
    assert_eq!(
        post(server.address, STOP, &with("Bearer s3cret"), b"")
            .await
            .status,
        401
    );
    assert_eq!(
        post(server.address, STOP, &with("Bearer fresh"), b"")
            .await
            .status,
        200
    );
    for broken in ["", "  \n"] {
        std::fs::write(&token_file, broken).unwrap();
        let reply = post(server.address, STOP, &with("Bearer x"), b"").await;
        assert_eq!(reply.status, 503);
    }
    std::fs::remove_file(&token_file).unwrap();
    let reply = post(server.address, STOP, &with("Bearer fresh"), b"").await;
    assert_eq!(reply.status, 503);
    assert!(
        !reply.text().contains("secret"),
        "the file's name is for the log: {}",
        reply.text()
    );
}

#[tokio::test]
async fn basic_credentials_need_user_and_password() {
    let folder = tempfile::tempdir().unwrap();
    let credentials = Credentials::Basic {
        user: "ops".into(),
        password_file: secret(&folder, "pass:word"),
    };
    let server = beyond_loopback(Some(credentials), false).await;
    let basic = |text: &str| {
        let code = base64::engine::general_purpose::STANDARD.encode(text);
        format!("{JSON}Authorization: Basic {code}\r\n")
    };
    for (headers, status) in [
        (JSON.to_owned(), 401),
        (basic("ops:pass:word"), 200),
        (basic("ops:pass"), 401),
        (basic("OPS:pass:word"), 401),
        (basic(":pass:word"), 401),
        (basic("ops"), 401),
        (format!("{JSON}Authorization: Basic !!!\r\n"), 401),
        (format!("{JSON}Authorization: Bearer pass:word\r\n"), 401),
    ] {
        let reply = post(server.address, STOP, &headers, b"").await;
        assert_eq!(reply.status, status, "{headers}");
        if status == 401 {
            assert!(
                reply
                    .header("www-authenticate")
                    .unwrap()
                    .starts_with("Basic realm=")
            );
        }
    }
}

#[tokio::test]
async fn reads_can_be_protected_but_not_probes_and_the_page_itself() {
    let folder = tempfile::tempdir().unwrap();
    let token_file = secret(&folder, "s3cret");
    let server = beyond_loopback(Some(Credentials::Bearer { token_file }), true).await;
    for (path, status) in [
        ("/api/nodes", 401),
        ("/api/nodes/worker-01", 401),
        ("/api/events", 401),
        ("/api/events/stream", 401),
        ("/api/openapi.json", 401),
        ("/metrics", 401),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/", 200),
        ("/assets/app.js", 200),
    ] {
        assert_eq!(fetch(server.address, path).await.status, status, "{path}");
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer s3cret");
        if path != "/api/events/stream" {
            assert_eq!(
                super::send(server.address, &head, b"").await.status,
                200,
                "{path}"
            );
        }
    }
}

#[tokio::test]
async fn others_are_not_let_in_without_credentials_and_broken_ones_are_said_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let started = async |address: &str, credentials| {
        let options = WebOptions {
            credentials,
            ..WebOptions::default()
        };
        let listener = bind(address).await.unwrap();
        let stop = CancellationToken::new();
        stop.cancel();
        serve(listener, options, scene(snapshot(1, 40)).state, stop).await
    };
    let bearer = |token_file| Some(Credentials::Bearer { token_file });
    assert!(started("127.0.0.1:0", None).await.is_ok());
    let error = started("0.0.0.0:0", None).await.unwrap_err();
    assert!(matches!(error, WebError::CredentialsNeeded { .. }));
    assert!(
        error.to_string().contains("auth.bearer_token_file"),
        "{error}"
    );
    let missing = folder.path().join("missing");
    let error = started("127.0.0.1:0", bearer(missing)).await.unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
    let empty = secret(&folder, " \n");
    let error = started("127.0.0.1:0", bearer(empty)).await.unwrap_err();
    assert!(error.to_string().contains("is empty"), "{error}");
}

#[tokio::test]
async fn a_port_in_use_is_said_with_the_remedy() {
    let first = bind("127.0.0.1:0").await.unwrap();
    let address = first.local_addr().unwrap().to_string();
    let error = bind(&address).await.unwrap_err();
    assert!(matches!(error, WebError::PortInUse { .. }));
    assert_eq!(
        error.to_string(),
        format!(
            "cannot listen on {address}: the port is in use; stop the other program, or set \
             listen.address"
        )
    );
    let error = bind("256.1.1.1:1").await.unwrap_err();
    assert!(matches!(error, WebError::Bind { .. }), "{error}");
}

#[tokio::test]
async fn bodies_headers_and_waits_are_bounded() {
    let options = WebOptions {
        bounds: Bounds {
            webhook_body: 1_000,
            headers: 8 << 10,
            header_timeout: Duration::from_millis(200),
            request_timeout: Duration::from_millis(300),
            ..Bounds::default()
        },
        ..WebOptions::default()
    };
    let server = server(scene(snapshot(1, 40)).state, options).await;
    let hook = "/webhook/alertmanager";
    let large = [b'{'; 1_001];
    let reply = post(server.address, hook, JSON, &large).await;
    assert_eq!(reply.status, 413);
    assert!(
        reply.text().contains("larger than 1000 bytes"),
        "{}",
        reply.text()
    );
    assert_eq!(
        post(server.address, hook, JSON, &large[..1_000])
            .await
            .status,
        202
    );

    // Without a length, piece by piece.
    let head =
        format!("POST {hook} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n{JSON}");
    let mut body = format!("{:x}\r\n", large.len()).into_bytes();
    body.extend_from_slice(&large);
    body.extend_from_slice(b"\r\n0\r\n\r\n");
    assert_eq!(super::send(server.address, &head, &body).await.status, 413);

    let head = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: {}",
        "x".repeat(20_000)
    );
    assert_eq!(super::send(server.address, &head, b"").await.status, 431);

    // Half a request, and then nothing: first the headers, then the body.
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
    let mut bytes = Vec::new();
    slow.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.is_empty() || text.contains(" 408 "), "{text}");
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST {hook} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 9\r\n{JSON}\r\n{{"
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    slow.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(reply_status(&bytes), 503);
}

fn reply_status(bytes: &[u8]) -> u16 {
    reply(bytes).status
}

#[tokio::test]
async fn too_many_requests_at_once_are_refused_not_queued() {
    let options = WebOptions {
        bounds: Bounds {
            requests: 0,
            ..Bounds::default()
        },
        ..WebOptions::default()
    };
    let server = server(scene(snapshot(1, 40)).state, options).await;
    let reply = fetch(server.address, "/api/nodes").await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.header("retry-after"), Some("2"));
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_a_place() {
    let options = WebOptions {
        bounds: Bounds {
            connections: 1,
            ..Bounds::default()
        },
        ..WebOptions::default()
    };
    let server = server(scene(snapshot(1, 40)).state, options).await;
    let held = TcpStream::connect(server.address).await.unwrap();
    let waiting = tokio::spawn(fetch(server.address, "/healthz"));
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(held);
    assert_eq!(waiting.await.unwrap().status, 200);
}

#[tokio::test]
async fn the_switch_says_how_long_it_holds_and_when_it_could_not_be_set() {
    for (doors, path, status, words) in [
        (
            Doors {
                lasting: true,
                ..Doors::default()
            },
            STOP,
            200,
            "until somebody resumes",
        ),
        (Doors::default(), STOP, 200, "until this process ends"),
        (
            Doors {
                lasting: true,
                ..Doors::default()
            },
            START,
            200,
            "resumed",
        ),
        (
            Doors {
                stuck: true,
                ..Doors::default()
            },
            STOP,
            503,
            "the Lease could not be written: forbidden",
        ),
    ] {
        let server = server(
            scene_with(snapshot(1, 40), doors).state,
            WebOptions::default(),
        )
        .await;
        let reply = post(server.address, path, JSON, b"{}").await;
        assert_eq!(reply.status, status);
        assert!(reply.text().contains(words), "{}", reply.text());
    }
}

#[tokio::test]
async fn shutdown_lets_an_answer_finish_and_then_ends() {
    let scene = scene(snapshot(1, 40));
    let mut server = server(scene.state, WebOptions::default()).await;
    assert_eq!(fetch(server.address, "/healthz").await.status, 200);
    let idle = TcpStream::connect(server.address).await.unwrap();
    server.shutdown.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(8), &mut server.task).await;
    assert!(ended.unwrap().unwrap().is_ok());
    assert!(TcpStream::connect(server.address).await.is_err());
    drop(idle);
}

#[tokio::test]
async fn https_is_served_with_certificate_and_key_and_broken_ones_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (cert_file, key_file) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    let (cert, key) = (include_bytes!("cert.pem"), include_bytes!("key.pem"));
    std::fs::write(&cert_file, cert).unwrap();
    std::fs::write(&key_file, key).unwrap();
    let files = TlsFiles {
        cert_file,
        key_file,
    };
    let options = WebOptions {
        tls: Some(files.clone()),
        ..WebOptions::default()
    };
    let server = server(scene(snapshot(1, 40)).state, options.clone()).await;

    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(cert).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let socket = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector.connect(name, socket).await.unwrap();
    let head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    assert_eq!(reply(&bytes).status, 200);

    // Plain HTTP on this port is no request, and does not disturb the next one.
    let mut plain = TcpStream::connect(server.address).await.unwrap();
    plain.write_all(head).await.unwrap();
    let mut bytes = Vec::new();
    let _ = plain.read_to_end(&mut bytes).await;
    assert!(!bytes.starts_with(b"HTTP/1.1 200"));

    for (file, content) in [(&files.key_file, &b"nonsense"[..]), (&files.cert_file, b"")] {
        std::fs::write(file, content).unwrap();
        let listener = bind("127.0.0.1:0").await.unwrap();
        let state = scene(snapshot(1, 40)).state;
        let error = serve(listener, options.clone(), state, CancellationToken::new()).await;
        let message = error.unwrap_err().to_string();
        assert!(message.contains(&file.display().to_string()), "{message}");
    }
}
