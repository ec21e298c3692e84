//! The stream of events, read as a browser reads it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::fixture::{HOSTILE, at, events, scene, snapshot};
use super::{fetch, server};
use crate::events::{EVENTS_MAX, EventKind, NewEvent};
use crate::web::{Bounds, WebOptions};

/// One open stream.
struct Stream {
    socket: TcpStream,
    text: String,
}

/// One message of it.
#[derive(Debug, Default)]
struct Message {
    event: String,
    id: Option<String>,
    data: String,
}

impl Message {
    fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|_| panic!("{self:?}"))
    }
}

impl Stream {
    async fn open(address: SocketAddr, headers: &str) -> Self {
        let mut socket = TcpStream::connect(address).await.unwrap();
        // HTTP/1.0 has no chunks, so that the body can be read as it is.
        let head = format!("GET /api/events/stream HTTP/1.0\r\nHost: localhost\r\n{headers}\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut stream = Self {
            socket,
            text: String::new(),
        };
        let head = stream.until("\r\n\r\n").await.unwrap().to_lowercase();
        assert!(head.starts_with("http/1.0 200"), "{head}");
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        assert!(head.contains("x-accel-buffering: no"), "{head}");
        assert!(!head.contains("content-encoding"), "{head}");
        stream
    }

    /// The text up to this mark; `None` at the end of the stream.
    async fn until(&mut self, mark: &str) -> Option<String> {
        loop {
            if let Some(end) = self.text.find(mark) {
                let rest = self.text.split_off(end + mark.len());
                return Some(std::mem::replace(&mut self.text, rest));
            }
            let mut bytes = [0; 64 << 10];
            let wait = Duration::from_secs(10);
            let read = tokio::time::timeout(wait, self.socket.read(&mut bytes)).await;
            match read.expect("the stream is silent") {
                Ok(0) | Err(_) => return None,
                Ok(length) => self
                    .text
                    .push_str(std::str::from_utf8(&bytes[..length]).unwrap()),
            }
        }
    }

    /// The next message, comments included.
    async fn next(&mut self) -> Option<Message> {
        let text = self.until("\n\n").await?;
        let mut message = Message::default();
        for line in text.trim_end().lines() {
            let (key, value) = line.split_once(':').unwrap();
            let value = value.trim_start().to_owned();
            match key {
                "event" => message.event = value,
                "id" => message.id = Some(value),
                "data" => message.data = value,
                "retry" => assert_eq!(value, "2000"),
                "" => message.event = format!(":{value}"),
                _ => panic!("{line}"),
            }
        }
        Some(message)
    }
}

#[tokio::test]
async fn a_stream_begins_with_the_whole_picture_and_goes_on_with_what_happens() {
    let scene = scene(snapshot(5, 40));
    events(&scene.events);
    let server = server(scene.state, WebOptions::default()).await;
    let mut stream = Stream::open(server.address, "").await;
    let first = stream.next().await.unwrap();
    assert_eq!(first.event, "snapshot");
    let picture = first.json();
    assert_eq!(picture["nodes"].as_array().unwrap().len(), 5);
    assert_eq!(picture["resumed"], false);
    assert_eq!(picture["health"]["status"], "ok");
    assert_eq!(picture["stats"]["nodes"]["at_risk"], 1);
    assert_eq!(first.id.as_deref(), picture["last_event_id"].as_str());

    let id = scene
        .events
        .push(NewEvent::new(at(41), EventKind::Taint, HOSTILE).node(&"worker-03".into()));
    let event = stream.next().await.unwrap();
    assert_eq!(
        (event.event.as_str(), event.id),
        ("taint", Some(id.to_string()))
    );
    let data: Value = serde_json::from_str(&event.data).unwrap();
    assert_eq!(
        data["message"], HOSTILE,
        "line breaks in words must not end a message"
    );
    assert_eq!(data["node"], "worker-03");
}

#[tokio::test]
async fn each_decision_tells_what_changed_and_nothing_else() {
    let scene = scene(snapshot(30, 40));
    let server = server(scene.state, WebOptions::default()).await;
    let mut stream = Stream::open(server.address, "").await;
    stream.next().await.unwrap();

    // Numbers of healthy Nodes that jitter below a hundredth are no news; a new Node, one that is
    // gone and one that turned are.
    let mut next = snapshot(30, 40);
    next.at = at(45);
    next.nodes.remove(29);
    next.nodes[1].verdict.risk = Some(foreshock_core::risk::Risk::new(0.9).unwrap());
    next.nodes[2].contributions.clear();
    for node in &mut next.nodes[15..] {
        let risk = node.verdict.risk.unwrap().as_f64();
        let jittered = (risk * 100.0).round() / 100.0 + 0.001;
        node.verdict.risk = Some(foreshock_core::risk::Risk::new(jittered).unwrap());
        node.contributions.clear();
    }
    scene.snapshots.send_replace(Arc::new(next));
    let message = stream.next().await.unwrap();
    assert_eq!((message.event.as_str(), message.id), ("nodes", None));
    let changes: Value = serde_json::from_str(&message.data).unwrap();
    let changed = changes["changed"].as_array().unwrap();
    let changed: Vec<&str> = changed
        .iter()
        .map(|node| node["node"].as_str().unwrap())
        .collect();
    assert_eq!(changed, ["worker-02", "worker-03"]);
    assert_eq!(changes["removed"], serde_json::json!(["worker-30"]));
    assert_eq!(changes["at"], "2025-11-23T12:14:05.000Z");
    assert!(changes["stats"]["nodes"].is_object() && changes["health"].is_object());
}

#[tokio::test]
async fn many_decisions_at_once_become_one_message_with_the_last_word() {
    let scene = scene(snapshot(3, 40));
    let server = server(scene.state, WebOptions::default()).await;
    let mut stream = Stream::open(server.address, "").await;
    stream.next().await.unwrap();
    for second in 41..=60 {
        let mut next = snapshot(3, 40);
        next.at = at(second);
        scene.snapshots.send_replace(Arc::new(next));
    }
    let mut messages = 0;
    loop {
        let message = stream.next().await.unwrap();
        assert_eq!(message.event, "nodes");
        messages += 1;
        if message.json()["at"] == "2025-11-23T12:14:20.000Z" {
            break;
        }
    }
    assert!(messages <= 3, "{messages}");
}

#[tokio::test]
async fn a_reader_that_comes_back_gets_what_it_missed() {
    let scene = scene(snapshot(3, 40));
    events(&scene.events);
    let server = server(scene.state, WebOptions::default()).await;
    let start = at(0).as_millisecond();
    for header in [
        format!("Last-Event-ID: {start}-9\r\n"),
        format!("last-event-id:  {start}-9 \r\n"),
    ] {
        let mut stream = Stream::open(server.address, &header).await;
        let first = stream.next().await.unwrap();
        assert_eq!(first.event, "snapshot");
        assert_eq!(first.json()["resumed"], true);
        assert_eq!(
            first.id, None,
            "the reader keeps its own id until it was told all"
        );
        let missed = [stream.next().await.unwrap(), stream.next().await.unwrap()];
        let ids = missed.map(|message| message.id.unwrap());
        assert_eq!(ids, [format!("{start}-10"), format!("{start}-11")]);
    }
}

#[tokio::test]
async fn an_id_of_another_start_or_nonsense_gets_a_fresh_picture() {
    let scene = scene(snapshot(3, 40));
    events(&scene.events);
    let server = server(scene.state, WebOptions::default()).await;
    for id in [
        "12345-9",
        "x",
        "",
        "-1",
        &format!("{}-99", at(0).as_millisecond()),
    ] {
        let header = format!("Last-Event-ID: {id}\r\n");
        let mut stream = Stream::open(server.address, &header).await;
        let first = stream.next().await.unwrap();
        assert_eq!(first.json()["resumed"], false, "{id}");
        scene
            .events
            .push(NewEvent::new(at(50), EventKind::Pause, "paused"));
        assert_eq!(stream.next().await.unwrap().event, "pause", "{id}");
    }
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_told_to_begin_again() {
    let scene = scene(snapshot(3, 40));
    let server = server(scene.state, WebOptions::default()).await;
    let mut stream = Stream::open(server.address, "").await;
    stream.next().await.unwrap();
    // Larger than what the sockets between hold, so that the server has to wait for the reader.
    let message = "x".repeat(1_000);
    for _ in 0..40 {
        for _ in 0..EVENTS_MAX / 4 {
            scene
                .events
                .push(NewEvent::new(at(50), EventKind::Health, message.clone()));
        }
        tokio::task::yield_now().await;
    }
    let mut last = String::new();
    while let Some(message) = stream.next().await {
        last = message.event;
    }
    assert_eq!(last, "reload");
}

#[tokio::test]
async fn an_idle_stream_is_kept_alive_and_shutdown_ends_it() {
    let options = WebOptions {
        bounds: Bounds {
            keep_alive: Duration::from_millis(50),
            ..Bounds::default()
        },
        ..WebOptions::default()
    };
    let scene = scene(snapshot(1, 40));
    let server = server(scene.state, options).await;
    let mut stream = Stream::open(server.address, "").await;
    stream.next().await.unwrap();
    assert_eq!(stream.next().await.unwrap().event, ":keep-alive");
    server.shutdown.cancel();
    while let Some(message) = stream.next().await {
        assert_eq!(message.event, ":keep-alive");
    }
}

#[tokio::test]
async fn streams_are_bounded_and_a_closed_one_makes_room() {
    let options = WebOptions {
        bounds: Bounds {
            streams: 2,
            keep_alive: Duration::from_millis(20),
            ..Bounds::default()
        },
        ..WebOptions::default()
    };
    let scene = scene(snapshot(1, 40));
    let server = server(scene.state, options).await;
    let first = Stream::open(server.address, "").await;
    let _second = Stream::open(server.address, "").await;
    let refused = fetch(server.address, "/api/events/stream").await;
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("too many streams"));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(fetch(server.address, "/api/health").await.status, 200);
    drop(first);
    loop {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        let head = b"GET /api/events/stream HTTP/1.0\r\nHost: localhost\r\n\r\n";
        socket.write_all(head).await.unwrap();
        let mut bytes = [0; 12];
        socket.read_exact(&mut bytes).await.unwrap();
        if bytes.ends_with(b"200") {
            break;
        }
    }
}
