//! A Pod as Kubernetes shows it, turned into what a drain needs.

use std::collections::BTreeMap;
use std::time::Duration;

use foreshock_core::drain::{Owner, PodFacts, PodId};
use foreshock_core::node::Uid;
use foreshock_core::record::Taint;
use foreshock_core::room::Needs;
use k8s_openapi::api::core::v1::{Pod, PodSpec, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::needs::needs;
use super::text::clean;

/// A Pod with what its facts are completed from: budgets by label, volumes and owner by lookups.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SeenPod {
    /// Without budgets; volumes behind claims and the existence of a DaemonSet not yet looked up.
    pub(super) facts: PodFacts,
    pub(super) labels: BTreeMap<String, String>,
    /// Not started yet: the Eviction API does not ask its budget.
    pub(super) pending: bool,
    /// Claims that come and go with the Pod: another Pod gets another volume.
    pub(super) own_claims: Vec<String>,
}

/// How foreshock knows itself and its taints among the Pods.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The namespace that foreshock runs in, if it runs in the cluster.
    pub own_namespace: Option<String>,
    /// The name of its own Pod, if it is known.
    pub own_pod: Option<String>,
    /// The taints that it sets.
    pub taints: Vec<Taint>,
}

impl Surroundings {
    /// From the downward API (`POD_NAMESPACE`, `POD_NAME`), or from what every container has: the
    /// ServiceAccount's namespace and the host name.
    pub fn from_environment(taints: Vec<Taint>) -> Self {
        const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let own_namespace = variable("POD_NAMESPACE").or_else(|| {
            let text = std::fs::read_to_string(NAMESPACE_FILE).ok()?;
            Some(text.trim().to_owned()).filter(|namespace| !namespace.is_empty())
        });
        let own_pod = variable("POD_NAME").or_else(|| variable("HOSTNAME"));
        Self {
            own_namespace,
            own_pod,
            taints,
        }
    }

    /// By name in its own namespace; another replica by the label of the shipped manifests.
    fn is_own(&self, pod: &Pod) -> bool {
        if self.own_namespace.is_none() || self.own_namespace != pod.metadata.namespace {
            return false;
        }
        let label = pod
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get("app.kubernetes.io/name"));
        (self.own_pod.is_some() && self.own_pod == pod.metadata.name)
            || label.is_some_and(|name| name == "foreshock")
    }
}

/// What stands in the Pod, or nothing for an object without namespace, name or UID.
pub(super) fn seen(pod: &Pod, around: &Surroundings) -> Option<SeenPod> {
    let metadata = &pod.metadata;
    let id = PodId {
        namespace: metadata.namespace.clone()?,
        name: metadata.name.clone()?,
        uid: Uid::from(metadata.uid.as_deref()?),
    };
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    let phase = status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default();
    let conditions = status
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let volumes = spec
        .and_then(|spec| spec.volumes.as_deref())
        .unwrap_or_default();
    let needs = needs(pod);
    let grace = spec.and_then(|spec| spec.termination_grace_period_seconds);
    let class = spec.and_then(|spec| spec.priority_class_name.as_deref());
    let name = id.name.clone();
    let owner = owner(pod);
    let facts = PodFacts {
        // A ReplicaSet is usually a Deployment's, and has to be looked at to know it.
        workload: match &owner {
            Some(owner) if is_replica_set(owner) => Err("not looked at yet".to_owned()),
            Some(_) | None => Ok(owner.clone()),
        },
        owner,
        daemon_set_gone: false,
        mirror: is_mirror(pod),
        finished: matches!(phase, "Succeeded" | "Failed"),
        ready: conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        terminating_until: metadata.deletion_timestamp.as_ref().map(|time| time.0),
        finalizers: metadata.finalizers.clone().unwrap_or_default(),
        // 30 s is Kubernetes' default; negative values are refused by the API.
        grace: Duration::from_secs(
            grace
                .and_then(|grace| u64::try_from(grace).ok())
                .unwrap_or(30),
        ),
        empty_dir: volumes.iter().any(|volume| volume.empty_dir.is_some()),
        local_volumes: volumes.iter().any(|volume| volume.host_path.is_some()),
        devices: devices(spec, &needs),
        dependency: dependency(metadata.labels.as_ref()),
        claims: volumes
            .iter()
            .filter_map(|volume| claim(volume, &id.name))
            .collect(),
        volumes: Vec::new(),
        // From 2,000,000,000 up are the system-critical classes; no user's class may be.
        critical: matches!(
            class,
            Some("system-cluster-critical" | "system-node-critical")
        ) || spec
            .and_then(|spec| spec.priority)
            .is_some_and(|priority| priority >= 2_000_000_000),
        opted_out: opted_out(pod),
        // A limited time (`tolerationSeconds`) exists for `NoExecute` only, which we never set.
        tolerates_taint: around.taints.iter().any(|taint| needs.tolerates(taint)),
        own: around.is_own(pod),
        budgets: Vec::new(),
        needs,
        id,
    };
    Some(SeenPod {
        facts,
        labels: metadata.labels.clone().unwrap_or_default(),
        pending: phase == "Pending",
        own_claims: volumes
            .iter()
            .filter(|volume| volume.ephemeral.is_some())
            .map(|volume| own_claim(volume, &name))
            .collect(),
    })
}

/// The longest name that the API server takes.
const NAME_MAX: usize = 253;

/// Extended resources, as Kubernetes tells them from its own: with a domain that is not its.
fn devices(spec: Option<&PodSpec>, needs: &Needs) -> Vec<String> {
    let requested = needs.requests.other.keys();
    let extended = requested
        .filter(|name| name.contains('/') && !name.contains("kubernetes.io/"))
        .map(|name| clean(name, NAME_MAX));
    let claims = spec.and_then(|spec| spec.resource_claims.as_deref());
    let claims = claims.unwrap_or_default().iter();
    extended
        .chain(claims.map(|claim| format!("resource claim {}", clean(&claim.name, NAME_MAX))))
        .collect()
}

/// By the label of their charts and operators.
fn dependency(labels: Option<&BTreeMap<String, String>>) -> Option<String> {
    match labels?.get("app.kubernetes.io/name")?.as_str() {
        "prometheus" => Some("Prometheus".to_owned()),
        "alertmanager" => Some("Alertmanager".to_owned()),
        _ => None,
    }
}

pub(super) fn is_replica_set(owner: &Owner) -> bool {
    owner.group == "apps" && owner.kind == "ReplicaSet"
}

/// By the reference with `controller: true` alone: any other owner puts nothing back.
pub(super) fn owner(pod: &Pod) -> Option<Owner> {
    controller(pod.metadata.owner_references.as_deref().unwrap_or_default())
}

/// The controller among the owners of an object.
pub(super) fn controller(references: &[OwnerReference]) -> Option<Owner> {
    let controller = references
        .iter()
        .find(|owner| owner.controller == Some(true))?;
    Some(Owner {
        group: controller
            .api_version
            .split_once('/')
            .map_or_else(String::new, |(group, _)| group.to_owned()),
        kind: controller.kind.clone(),
        name: controller.name.clone(),
        uid: Uid::from(controller.uid.as_str()),
    })
}

fn is_mirror(pod: &Pod) -> bool {
    let annotated = pod
        .metadata
        .annotations
        .as_ref()
        .is_some_and(|annotations| annotations.contains_key("kubernetes.io/config.mirror"));
    let references = pod.metadata.owner_references.as_deref().unwrap_or_default();
    annotated
        || references
            .iter()
            .any(|owner| owner.kind == "Node" && owner.api_version == "v1")
}

fn claim(volume: &Volume, pod: &str) -> Option<String> {
    if let Some(claim) = &volume.persistent_volume_claim {
        return Some(claim.claim_name.clone());
    }
    // A generic ephemeral volume has a claim of its own, named after the Pod.
    volume.ephemeral.as_ref().map(|_| own_claim(volume, pod))
}

fn own_claim(volume: &Volume, pod: &str) -> String {
    format!("{pod}-{}", volume.name)
}

/// Ways by which a Pod asks other programs to be left alone, which foreshock honours.
///
/// | mark | asks to be left alone |
/// |---|---|
/// | annotation `cluster-autoscaler.kubernetes.io/safe-to-evict` | with any value but `true` |
/// | annotation `karpenter.sh/do-not-disrupt` (and `do-not-evict`, before 0.32) | with any value but `false` |
/// | annotation `descheduler.alpha.kubernetes.io/prefer-no-eviction` | with any value but `false` |
/// | label `cluster.x-k8s.io/drain` | with any value (Cluster API knows `skip` and `wait-completed`) |
///
/// A value that the mark's own program would not understand counts as asking: whoever put it there
/// wanted something, and leaving a Pod harms less than moving it.
fn opted_out(pod: &Pod) -> Option<String> {
    const ANNOTATIONS: [(&str, &str); 4] = [
        ("cluster-autoscaler.kubernetes.io/safe-to-evict", "true"),
        ("karpenter.sh/do-not-disrupt", "false"),
        ("karpenter.sh/do-not-evict", "false"),
        (
            "descheduler.alpha.kubernetes.io/prefer-no-eviction",
            "false",
        ),
    ];
    let annotations = pod.metadata.annotations.as_ref();
    let by_annotation = ANNOTATIONS.iter().find_map(|(name, unless)| {
        let value = annotations?.get(*name)?;
        (value.trim() != *unless).then(|| format!("{name}={}", clean(value, 32)))
    });
    by_annotation.or_else(|| {
        let value = pod
            .metadata
            .labels
            .as_ref()?
            .get("cluster.x-k8s.io/drain")?;
        Some(format!("cluster.x-k8s.io/drain={}", clean(value, 64)))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kubernetes::record::effect;

    fn around() -> Surroundings {
        Surroundings {
            own_namespace: Some("monitoring".to_owned()),
            own_pod: Some("foreshock-0".to_owned()),
            taints: vec![Taint {
                key: "degradation".to_owned(),
                value: "true".to_owned(),
                effect: effect("NoSchedule").expect("known"),
            }],
        }
    }

    fn facts(metadata: Value, spec: Value, status: Value) -> SeenPod {
        let mut whole = json!({"metadata": {"namespace": "shop", "name": "p", "uid": "u"}, "spec": spec, "status": status});
        for (key, value) in metadata.as_object().expect("an object") {
            whole["metadata"][key] = value.clone();
        }
        let pod: Pod = serde_json::from_value(whole).expect("a Pod");
        seen(&pod, &around()).expect("named")
    }

    fn containers(mut spec: Value) -> Value {
        spec["containers"] = json!([]);
        spec
    }

    #[test]
    fn the_controller_is_known_by_reference_group_and_kind() {
        let owned = |api: &str, kind: &str, controller: bool| {
            facts(
                json!({"ownerReferences": [{"apiVersion": api, "kind": kind, "name": "o", "uid": "ou", "controller": controller}]}),
                containers(json!({})),
                json!({}),
            )
            .facts
        };
        let owner = owned("apps/v1", "DaemonSet", true).owner.expect("has one");
        assert_eq!(
            (owner.group.as_str(), owner.kind.as_str()),
            ("apps", "DaemonSet")
        );
        assert_eq!(
            owned("example.org/v1", "DaemonSet", true)
                .owner
                .expect("has one")
                .group,
            "example.org"
        );
        assert_eq!(owned("apps/v1", "ReplicaSet", false).owner, None);
        assert!(owned("v1", "Node", true).mirror);
        assert!(!owned("example.org/v1", "Node", true).mirror);
        let mirror = facts(
            json!({"annotations": {"kubernetes.io/config.mirror": ""}}),
            containers(json!({})),
            json!({"phase": "Failed"}),
        );
        assert!(mirror.facts.mirror && mirror.facts.finished);
    }

    #[test]
    fn requests_to_be_left_alone_are_honoured_also_when_malformed() {
        let annotated = |name: &str, value: &str| {
            facts(
                json!({"annotations": {name: value}}),
                containers(json!({})),
                json!({}),
            )
            .facts
            .opted_out
        };
        let check = |name: &str, value: &str, asks: bool| {
            assert_eq!(annotated(name, value).is_some(), asks, "{name}={value}")
        };
        let safe = "cluster-autoscaler.kubernetes.io/safe-to-evict";
        check(safe, "false", true);
        check(safe, "true", false);
        check(safe, "flase", true);
        check("karpenter.sh/do-not-disrupt", "true", true);
        check("karpenter.sh/do-not-disrupt", "false", false);
        check("karpenter.sh/do-not-disrupt", "10m", true);
        check(
            "descheduler.alpha.kubernetes.io/prefer-no-eviction",
            "",
            true,
        );
        check("unrelated", "true", false);
        assert_eq!(
            annotated(safe, "no\u{1b}[31m\n way").as_deref(),
            Some("cluster-autoscaler.kubernetes.io/safe-to-evict=no [31m way")
        );
        let labelled = facts(
            json!({"labels": {"cluster.x-k8s.io/drain": "skip"}}),
            containers(json!({})),
            json!({}),
        );
        assert!(labelled.facts.opted_out.is_some());
    }

    #[test]
    fn tolerations_are_judged_as_the_scheduler_does() {
        let check = |toleration: Value, tolerates: bool| {
            let pod = facts(
                json!({}),
                containers(json!({"tolerations": [toleration]})),
                json!({}),
            );
            assert_eq!(pod.facts.tolerates_taint, tolerates, "{toleration}");
        };
        check(json!({"operator": "Exists"}), true);
        check(json!({"key": "degradation", "operator": "Exists"}), true);
        check(
            json!({"key": "degradation", "operator": "Exists", "effect": "NoSchedule"}),
            true,
        );
        check(json!({"key": "degradation", "value": "true"}), true);
        check(
            json!({"key": "degradation", "operator": "Equal", "value": "true", "effect": "NoSchedule"}),
            true,
        );
        check(json!({"key": "degradation", "value": "false"}), false);
        check(
            json!({"key": "degradation", "operator": "Exists", "effect": "NoExecute"}),
            false,
        );
        check(json!({"key": "other", "operator": "Exists"}), false);
        check(
            json!({"key": "degradation", "operator": "Gt", "value": "true"}),
            false,
        );
    }

    #[test]
    fn volumes_grace_and_priority_are_read() {
        let pod = facts(
            json!({}),
            containers(json!({
                "terminationGracePeriodSeconds": 0,
                "priorityClassName": "system-node-critical",
                "volumes": [
                    {"name": "scratch", "emptyDir": {"medium": "Memory"}},
                    {"name": "logs", "hostPath": {"path": "/var/log"}},
                    {"name": "data", "persistentVolumeClaim": {"claimName": "data-p"}},
                    {"name": "tmp", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
                ],
            })),
            json!({"phase": "Pending"}),
        );
        assert!(
            pod.facts.empty_dir && pod.facts.local_volumes && pod.facts.critical && pod.pending
        );
        assert_eq!(pod.facts.claims, ["data-p", "p-tmp"]);
        assert!(pod.facts.devices.is_empty() && pod.facts.dependency.is_none());
        assert_eq!(pod.facts.grace, Duration::ZERO);
        let plain = facts(
            json!({}),
            containers(json!({})),
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}),
        );
        assert_eq!(plain.facts.grace, Duration::from_secs(30));
        assert!(
            plain.facts.ready && !plain.facts.critical && !plain.pending && !plain.facts.finished
        );
    }

    #[test]
    fn foreshock_knows_its_own_pods_in_its_own_namespace_only() {
        let own = |metadata: Value| facts(metadata, containers(json!({})), json!({})).facts.own;
        assert!(own(
            json!({"namespace": "monitoring", "name": "foreshock-0"})
        ));
        assert!(own(
            json!({"namespace": "monitoring", "name": "x", "labels": {"app.kubernetes.io/name": "foreshock"}})
        ));
        assert!(!own(
            json!({"namespace": "monitoring", "name": "prometheus-0"})
        ));
        assert!(!own(
            json!({"namespace": "shop", "name": "foreshock-0", "labels": {"app.kubernetes.io/name": "foreshock"}})
        ));
    }

    #[test]
    fn devices_are_told_from_what_every_pod_asks_for() {
        let pod = facts(
            json!({}),
            json!({
                "containers": [{"name": "main", "resources": {
                    "limits": {"nvidia.com/gpu": "2"},
                    "requests": {
                        "cpu": "1", "memory": "1Gi", "hugepages-2Mi": "2Mi", "nvidia.com/gpu": "2",
                        "example.kubernetes.io/native": "1", "example.org/fpga": "1",
                    },
                }}],
                "resourceClaims": [{"name": "nic", "resourceClaimName": "nic-0"}],
            }),
            json!({"phase": "Running"}),
        );
        let expected = ["example.org/fpga", "nvidia.com/gpu", "resource claim nic"];
        assert_eq!(pod.facts.devices, expected);
    }

    #[test]
    fn a_prometheus_and_an_alertmanager_are_known_by_their_label() {
        let of = |labels: Value| {
            let metadata = json!({"labels": labels});
            let pod = facts(metadata, json!({"containers": []}), json!({}));
            pod.facts.dependency
        };
        let name = |name: &str| of(json!({"app.kubernetes.io/name": name}));
        assert_eq!(name("prometheus").as_deref(), Some("Prometheus"));
        assert_eq!(name("alertmanager").as_deref(), Some("Alertmanager"));
        assert_eq!(name("prometheus-adapter"), None);
        assert_eq!(of(json!({"app": "web"})), None);
    }
}
