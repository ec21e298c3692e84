//! A Node as Kubernetes shows it, turned into what a decision needs.

use std::sync::Arc;

use foreshock_core::decision::world::{Fact, HoldUntil, NodeFacts};
use foreshock_core::node::{NodeId, NodeName, Uid};
use foreshock_core::record::Taint;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;

use super::NodeEntry;
use super::names::{
    ANNOTATION_EXCLUDE, ANNOTATION_HOLD_UNTIL, ANNOTATION_STATE, LABEL_RISK, is_set,
};
use super::needs;
use super::record;
use super::text::clean;

/// Taints by which others say that the Node is going, with who they are.
const TAKEN_BY_TAINT: [(&str, &str); 9] = [
    (
        "ToBeDeletedByClusterAutoscaler",
        "cluster-autoscaler is deleting it",
    ),
    (
        "DeletionCandidateOfClusterAutoscaler",
        "cluster-autoscaler may delete it",
    ),
    ("karpenter.sh/disrupted", "Karpenter is disrupting it"),
    // Karpenter before 1.0.
    ("karpenter.sh/disruption", "Karpenter is disrupting it"),
    (
        "node.kubernetes.io/out-of-service",
        "it is marked out of service",
    ),
    (
        "node.cloudprovider.kubernetes.io/shutdown",
        "its cloud provider has shut it down",
    ),
    (
        "node.cloudprovider.kubernetes.io/uninitialized",
        "its cloud provider has not initialised it",
    ),
    (
        "node.cluster.x-k8s.io/uninitialized",
        "Cluster API has not initialised it",
    ),
    (
        "cloud.google.com/impending-node-termination",
        "its cloud provider is terminating it",
    ),
];

/// The same by prefix of the taint's key.
const TAKEN_BY_TAINT_PREFIX: [(&str, &str); 1] = [(
    "aws-node-termination-handler/",
    "aws-node-termination-handler is draining it",
)];

/// The same by annotation, whatever its value.
const TAKEN_BY_ANNOTATION: [(&str, &str); 5] = [
    (
        "weave.works/kured-reboot-in-progress",
        "kured is rebooting it",
    ),
    ("kured.dev/reboot-in-progress", "kured is rebooting it"),
    (
        "cluster.x-k8s.io/delete-machine",
        "Cluster API is deleting its machine",
    ),
    (
        "machine.openshift.io/delete-machine",
        "its machine is being deleted",
    ),
    (
        "cluster.k8s.io/delete-machine",
        "its machine is being deleted",
    ),
];

const CONTROL_PLANE_LABELS: [&str; 2] = [
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
];

/// What stands in the Node, or nothing for an object without a name or UID, which the API never sends.
pub fn entry(node: &Node, instance: &str) -> Option<NodeEntry> {
    let metadata = &node.metadata;
    let uid = Uid::from(metadata.uid.as_deref()?);
    let id = NodeId::new(NodeName::from(metadata.name.as_deref()?), uid);
    let labels = Arc::new(metadata.labels.clone().unwrap_or_default());
    let annotations = metadata.annotations.as_ref();
    let annotation = |name: &str| annotations.and_then(|annotations| annotations.get(name));
    let spec = node.spec.as_ref();
    let status = node.status.as_ref();
    let conditions = status
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let addresses = status
        .and_then(|status| status.addresses.as_deref())
        .unwrap_or_default();
    Some(NodeEntry {
        facts: NodeFacts {
            created_at: metadata
                .creation_timestamp
                .as_ref()
                .map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            ready: conditions
                .iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            cordoned: spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
            control_plane: CONTROL_PLANE_LABELS
                .iter()
                .any(|label| labels.contains_key(*label)),
            zone: labels.get("topology.kubernetes.io/zone").cloned(),
            // Pools are the operator's, and known to the loop.
            pool: None,
            labels: Arc::clone(&labels),
            allocatable: needs::allocatable(status.and_then(|status| status.allocatable.as_ref())),
            taints: taints(node),
            risk_label: labels.get(LABEL_RISK).cloned(),
            record: record::decode(
                annotation(ANNOTATION_STATE).map(String::as_str),
                instance,
                &id.uid,
            ),
            excluded: is_set(annotation(ANNOTATION_EXCLUDE)),
            hold_until: annotation(ANNOTATION_HOLD_UNTIL).map(|text| hold_until(text)),
            taken_by: taken_by(node),
            pods: Fact::Unknown,
            id,
        },
        resource_version: metadata.resource_version.clone().unwrap_or_default(),
        hostname: labels.get("kubernetes.io/hostname").cloned(),
        addresses: addresses
            .iter()
            .map(|address| address.address.clone())
            .collect(),
        labels,
    })
}

fn taints(node: &Node) -> Vec<Taint> {
    let taints = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default();
    taints
        .iter()
        .filter_map(|taint| {
            Some(Taint {
                // An effect that this program does not know cannot be one of ours.
                effect: record::effect(&taint.effect)?,
                key: taint.key.clone(),
                value: taint.value.clone().unwrap_or_default(),
            })
        })
        .collect()
}

/// What the annotation `foreshock.dev/hold-until` says.
pub fn hold_until(text: &str) -> HoldUntil {
    text.trim()
        .parse::<Timestamp>()
        .map_or_else(|_| HoldUntil::Malformed(clean(text, 64)), HoldUntil::Time)
}

fn taken_by(node: &Node) -> Option<String> {
    if node.metadata.deletion_timestamp.is_some() {
        return Some("it is being deleted".to_owned());
    }
    let keys = || {
        let taints = node
            .spec
            .as_ref()
            .and_then(|spec| spec.taints.as_deref())
            .unwrap_or_default();
        taints.iter().map(|taint| taint.key.as_str())
    };
    let by_taint = TAKEN_BY_TAINT
        .iter()
        .find(|(key, _)| keys().any(|of_node| of_node == *key))
        .or_else(|| {
            TAKEN_BY_TAINT_PREFIX
                .iter()
                .find(|(prefix, _)| keys().any(|of_node| of_node.starts_with(*prefix)))
        });
    let by_annotation = || {
        let annotations = node.metadata.annotations.as_ref()?;
        TAKEN_BY_ANNOTATION
            .iter()
            .find(|(name, _)| annotations.contains_key(*name))
    };
    by_taint
        .or_else(by_annotation)
        .map(|(_, who)| (*who).to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(node: serde_json::Value, expected: impl Fn(&NodeFacts) -> bool) {
        let mut whole =
            json!({"metadata": {"name": "a", "uid": "u", "labels": {}, "annotations": {}}});
        merge(&mut whole, node.clone());
        let parsed: Node = serde_json::from_value(whole).expect("a Node");
        let facts = entry(&parsed, "foreshock").expect("named").facts;
        assert!(expected(&facts), "{node} gave {facts:?}");
    }

    fn merge(into: &mut serde_json::Value, from: serde_json::Value) {
        match (into, from) {
            (serde_json::Value::Object(into), serde_json::Value::Object(from)) => {
                for (key, value) in from {
                    merge(into.entry(key).or_insert(serde_json::Value::Null), value);
                }
            }
            (into, from) => *into = from,
        }
    }

    fn annotated(name: &str, value: &str) -> serde_json::Value {
        json!({"metadata": {"annotations": {name: value}}})
    }

    fn tainted(key: &str) -> serde_json::Value {
        json!({"spec": {"taints": [{"key": key, "effect": "NoSchedule"}]}})
    }

    #[test]
    fn people_can_have_a_node_left_alone() {
        check(json!({}), |facts| {
            !facts.excluded && facts.hold_until.is_none()
        });
        check(annotated("foreshock.dev/exclude", "true"), |facts| {
            facts.excluded
        });
        check(annotated("foreshock.dev/exclude", ""), |facts| {
            facts.excluded
        });
        check(annotated("foreshock.dev/exclude", "false"), |facts| {
            !facts.excluded
        });
        check(
            annotated("foreshock.dev/hold-until", "2026-01-02T03:04:05Z"),
            |facts| matches!(facts.hold_until, Some(HoldUntil::Time(at)) if at.as_second() == 1_767_323_045),
        );
        check(
            annotated("foreshock.dev/hold-until", "2026-01-02T05:04:05+02:00"),
            |facts| matches!(facts.hold_until, Some(HoldUntil::Time(at)) if at.as_second() == 1_767_323_045),
        );
        for malformed in ["tomorrow", "", "2026-01-02", "1767323045"] {
            check(annotated("foreshock.dev/hold-until", malformed), |facts| {
                matches!(facts.hold_until, Some(HoldUntil::Malformed(_)))
            });
        }
    }

    #[test]
    fn a_node_that_another_controller_takes_away_is_recognised() {
        check(json!({}), |facts| facts.taken_by.is_none());
        check(
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            |facts| facts.taken_by.as_deref() == Some("it is being deleted"),
        );
        for (key, who) in [
            ("ToBeDeletedByClusterAutoscaler", "cluster-autoscaler"),
            ("DeletionCandidateOfClusterAutoscaler", "cluster-autoscaler"),
            ("karpenter.sh/disrupted", "Karpenter"),
            ("node.kubernetes.io/out-of-service", "out of service"),
            ("node.cloudprovider.kubernetes.io/shutdown", "shut it down"),
            ("aws-node-termination-handler/spot-itn", "aws"),
        ] {
            check(tainted(key), |facts| {
                facts.taken_by.as_deref().is_some_and(|by| by.contains(who))
            });
        }
        check(tainted("dedicated"), |facts| facts.taken_by.is_none());
        check(
            annotated("weave.works/kured-reboot-in-progress", "2026"),
            |facts| facts.taken_by.is_some(),
        );
        check(annotated("cluster.x-k8s.io/delete-machine", ""), |facts| {
            facts.taken_by.is_some()
        });
        check(annotated("cluster.x-k8s.io/machine", "m-1"), |facts| {
            facts.taken_by.is_none()
        });
    }

    #[test]
    fn readiness_role_and_cordon_are_read() {
        check(json!({}), |facts| {
            !facts.ready && !facts.cordoned && !facts.control_plane
        });
        check(
            json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
            |facts| facts.ready,
        );
        check(
            json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}, {"type": "DiskPressure", "status": "True"}]}}),
            |facts| !facts.ready,
        );
        check(json!({"spec": {"unschedulable": true}}), |facts| {
            facts.cordoned
        });
        for role in CONTROL_PLANE_LABELS {
            check(json!({"metadata": {"labels": {role: ""}}}), |facts| {
                facts.control_plane
            });
        }
        check(
            json!({"spec": {"taints": [{"key": "a", "effect": "Evaporate"}, {"key": "b", "value": "c", "effect": "NoExecute"}]}}),
            |facts| facts.taints.len() == 1 && facts.taints[0].to_string() == "b=c:NoExecute",
        );
    }
}
