//! Kubernetes Events: bounded in number and length, and not repeated.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::ClusterEvent;
use super::names::CONTROLLER;
use super::text::clean;

/// The same is not said again within this time.
const REPEAT_AFTER: Duration = Duration::from_secs(300);
/// Events remembered against repetition.
const REMEMBERED: usize = 1000;
/// Kubernetes' own limit of a note is 1,024 bytes; a letter takes up to four.
const NOTE_LETTERS: usize = 250;

/// Remembers what was said lately.
#[derive(Debug, Default)]
pub(super) struct Said {
    lately: Mutex<VecDeque<(Instant, ClusterEvent)>>,
}

impl Said {
    /// Whether this is news; if so it is remembered.
    pub(super) fn is_news(&self, event: &ClusterEvent) -> bool {
        let now = Instant::now();
        let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        while lately
            .front()
            .is_some_and(|(at, _)| *at + REPEAT_AFTER <= now)
            || lately.len() >= REMEMBERED
        {
            lately.pop_front();
        }
        if lately.iter().any(|(_, said)| said == event) {
            return false;
        }
        lately.push_back((now, event.clone()));
        true
    }
}

/// The namespace and body of an `events.k8s.io/v1` Event. `serial` makes its name unique.
pub(super) fn body(
    event: &ClusterEvent,
    instance: &str,
    now: Timestamp,
    serial: &str,
) -> (String, Value) {
    // Nodes have no namespace; Kubernetes wants Events about them in `default`.
    let (namespace, name, regarding) = match &event.pod {
        Some(pod) => (
            pod.namespace.clone(),
            pod.name.clone(),
            json!({"apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid.as_str()}),
        ),
        None => (
            "default".to_owned(),
            event.node.name.to_string(),
            json!({"apiVersion": "v1", "kind": "Node", "name": event.node.name.as_str(), "uid": event.node.uid.as_str()}),
        ),
    };
    let related = event.pod.as_ref().map(|_| {
        json!({"apiVersion": "v1", "kind": "Node", "name": event.node.name.as_str(), "uid": event.node.uid.as_str()})
    });
    // A name may have 253 letters; the serial makes up for what is cut.
    let short: String = name.chars().take(200).collect();
    let mut body = json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": namespace, "name": format!("{short}.{serial}")},
        "eventTime": MicroTime(now),
        "type": if event.warning { "Warning" } else { "Normal" },
        "reason": event.reason,
        "action": event.reason,
        "note": clean(&event.note, NOTE_LETTERS),
        "reportingController": CONTROLLER,
        // At most 128 letters.
        "reportingInstance": clean(&format!("{CONTROLLER}-{instance}"), 120),
        "regarding": regarding,
    });
    if let Some(related) = related {
        body["related"] = related;
    }
    (namespace, body)
}

#[cfg(test)]
mod tests {
    use foreshock_core::drain::PodId;
    use foreshock_core::node::{NodeId, Uid};

    use super::*;

    fn event(note: &str) -> ClusterEvent {
        ClusterEvent {
            node: NodeId::new("worker-1", "nu"),
            pod: None,
            reason: "DegradationTainted",
            warning: true,
            note: note.to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_is_said_once_in_five_minutes() {
        let said = Said::default();
        assert!(said.is_news(&event("a")));
        assert!(!said.is_news(&event("a")));
        assert!(said.is_news(&event("b")));
        tokio::time::advance(REPEAT_AFTER).await;
        assert!(said.is_news(&event("a")));
        for n in 0..10_000 {
            assert!(said.is_news(&event(&n.to_string())));
        }
        assert!(said.lately.lock().expect("not poisoned").len() <= REMEMBERED);
    }

    #[test]
    fn an_event_of_a_node_goes_to_default_and_one_of_a_pod_to_its_namespace() {
        let (namespace, body) = body(
            &event("risk\n0.81\u{1b}[0m"),
            "foreshock",
            Timestamp::UNIX_EPOCH,
            "1f",
        );
        assert_eq!(namespace, "default");
        assert_eq!(body["metadata"]["name"], "worker-1.1f");
        assert_eq!(body["note"], "risk 0.81 [0m");
        assert_eq!(body["eventTime"], "1970-01-01T00:00:00.000000Z");
        let typed: k8s_openapi::api::events::v1::Event =
            serde_json::from_value(body).expect("an Event");
        assert_eq!(
            typed.regarding.and_then(|object| object.kind).as_deref(),
            Some("Node")
        );
        let mut of_pod = event(&"ü".repeat(5000));
        of_pod.pod = Some(PodId {
            namespace: "shop".to_owned(),
            name: "p".repeat(253),
            uid: Uid::from("pu"),
        });
        let (namespace, body) = super::body(&of_pod, &"i".repeat(500), Timestamp::UNIX_EPOCH, "1f");
        assert_eq!(namespace, "shop");
        let typed: k8s_openapi::api::events::v1::Event =
            serde_json::from_value(body).expect("an Event");
        assert!(typed.note.expect("has one").len() <= 1024);
        assert!(typed.reporting_instance.expect("has one").len() <= 128);
        assert!(typed.metadata.name.expect("has one").len() <= 253);
    }
}
