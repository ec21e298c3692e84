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

/// The namespace and body of an `events.k8s.io/v1` Event. `serial` makes its name unique;
/// `lease_namespace` is that of the Lease, which is named by the instance.
pub(super) fn body(
    event: &ClusterEvent,
    instance: &str,
    lease_namespace: &str,
    now: Timestamp,
    serial: &str,
) -> (String, Value) {
    let node = event.node.as_ref().map(|node| {
        json!({"apiVersion": "v1", "kind": "Node", "name": node.name.as_str(), "uid": node.uid.as_str()})
    });
    let (namespace, name, regarding, related) = match (&event.pod, &event.node) {
        (Some(pod), _) => (
            pod.namespace.clone(),
            pod.name.clone(),
            json!({"apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid.as_str()}),
            node,
        ),
        // Nodes have no namespace; Kubernetes wants Events about them in `default`.
        (None, Some(of)) => (
            "default".to_owned(),
            of.name.to_string(),
            node.unwrap_or_default(),
            None,
        ),
        (None, None) => (
            lease_namespace.to_owned(),
            instance.to_owned(),
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "namespace": lease_namespace, "name": instance}),
            None,
        ),
    };
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
            node: Some(NodeId::new("worker-1", "nu")),
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
            "ops",
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
        let (namespace, body) = super::body(
            &of_pod,
            &"i".repeat(500),
            "ops",
            Timestamp::UNIX_EPOCH,
            "1f",
        );
        assert_eq!(namespace, "shop");
        let typed: k8s_openapi::api::events::v1::Event =
            serde_json::from_value(body).expect("an Event");
        assert!(typed.note.expect("has one").len() <= 1024);
        assert!(typed.reporting_instance.expect("has one").len() <= 128);
        assert!(typed.metadata.name.expect("has one").len() <= 253);
    }

    #[test]
    fn an_event_of_foreshock_as_a_whole_is_about_its_lease() {
        let of_all = ClusterEvent {
            node: None,
            reason: "DegradationStorm",
            ..event("41 of 100 Nodes")
        };
        let (namespace, body) =
            super::body(&of_all, "foreshock-b", "ops", Timestamp::UNIX_EPOCH, "1f");
        assert_eq!(namespace, "ops");
        assert_eq!(body["metadata"]["name"], "foreshock-b.1f");
        assert_eq!(body["metadata"]["namespace"], "ops");
        let regarding = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "namespace": "ops", "name": "foreshock-b"});
        assert_eq!(body["regarding"], regarding);
        assert_eq!(body.get("related"), None);
        let typed: Result<k8s_openapi::api::events::v1::Event, _> = serde_json::from_value(body);
        typed.expect("an Event");
    }
}
