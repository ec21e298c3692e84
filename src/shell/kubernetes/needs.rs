//! What a Pod asks of a Node and what a Node has, from the objects of Kubernetes.
//!
//! Requests follow `k8s.io/component-helpers/resource` (`PodRequests`), which the scheduler uses.

use std::collections::BTreeMap;

use foreshock_core::record::TaintEffect;
use foreshock_core::room::{
    HostPort, Needs, NodeTerm, Operator, PodTerm, Protocol, Requirement, Resources, Spread,
    Toleration, VolumeTopology,
};
use k8s_openapi::api::core::v1::{
    Container, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume, Pod, PodAffinityTerm,
    PodSpec, Toleration as PodToleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::record;
use super::text::clean;

/// Why a text is no quantity of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// It is not written like one.
    #[error("{0:?} is no quantity")]
    Malformed(String),
    /// It is negative, or larger than 2^63.
    #[error("{0:?} is out of range")]
    OutOfRange(String),
}

/// An amount in thousandths, rounded up.
pub fn thousandths(quantity: &Quantity) -> Result<u64, QuantityError> {
    scaled(&quantity.0, 1000)
}

/// An amount in whole units, rounded up.
pub fn units(quantity: &Quantity) -> Result<u64, QuantityError> {
    scaled(&quantity.0, 1)
}

fn scaled(text: &str, times: u128) -> Result<u64, QuantityError> {
    let malformed = || QuantityError::Malformed(clean(text, 32));
    let out_of_range = || QuantityError::OutOfRange(clean(text, 32));
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if unsigned.starts_with('-') {
        return Err(out_of_range());
    }
    let end = unsigned
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(malformed());
    }
    // As many digits as surely fit.
    if number.len() > 38 {
        return Err(out_of_range());
    }
    let digits: u128 = format!("{whole}{fraction}")
        .parse()
        .map_err(|_| malformed())?;
    let behind = u32::try_from(fraction.len()).map_err(|_| out_of_range())?;
    let (up, down) = factor(suffix).ok_or_else(malformed)?;
    let above = digits
        .checked_mul(up)
        .and_then(|above| above.checked_mul(times))
        .ok_or_else(out_of_range)?;
    let below = 10_u128
        .checked_pow(behind)
        .and_then(|below| below.checked_mul(down))
        .ok_or_else(out_of_range)?;
    let amount = above.div_ceil(below);
    u64::try_from(amount)
        .ok()
        .filter(|amount| i64::try_from(*amount).is_ok())
        .ok_or_else(out_of_range)
}

/// What a suffix multiplies by, and divides by.
fn factor(suffix: &str) -> Option<(u128, u128)> {
    let binary = |power: u32| Some((1_u128 << (10 * power), 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1_000)),
        "k" => Some((1_000, 1)),
        "M" => Some((1_000_000, 1)),
        "G" => Some((1_000_000_000, 1)),
        "T" => Some((1_000_000_000_000, 1)),
        "P" => Some((1_000_000_000_000_000, 1)),
        "E" => Some((1_000_000_000_000_000_000, 1)),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_u128.checked_pow(exponent.unsigned_abs().min(30))?;
            Some(if exponent < 0 { (1, power) } else { (power, 1) })
        }
    }
}

/// `status.allocatable`. What cannot be read counts as nothing: no Pod is said to fit there.
pub fn allocatable(list: Option<&BTreeMap<String, Quantity>>) -> Resources {
    let mut resources = Resources::default();
    for (name, quantity) in list.into_iter().flatten() {
        set(&mut resources, name, quantity).unwrap_or(());
    }
    resources
}

fn set(into: &mut Resources, name: &str, quantity: &Quantity) -> Result<(), QuantityError> {
    match name {
        "cpu" => into.cpu = thousandths(quantity)?,
        "memory" => into.memory = units(quantity)?,
        "ephemeral-storage" => into.ephemeral_storage = units(quantity)?,
        "pods" => into.pods = units(quantity)?,
        name => {
            let amount = units(quantity)?;
            if amount > 0 {
                into.other.insert(name.to_owned(), amount);
            }
        }
    }
    Ok(())
}

/// What a Pod asks for, but for where its volumes can be reached.
pub fn needs(pod: &Pod) -> Needs {
    let Some(spec) = &pod.spec else {
        return Needs {
            uncountable: vec!["a Pod without a specification".to_owned()],
            ..Needs::default()
        };
    };
    let mut uncountable = Vec::new();
    let requests = requests(pod, spec, &mut uncountable);
    if spec
        .resource_claims
        .as_ref()
        .is_some_and(|claims| !claims.is_empty())
    {
        uncountable.push("a claim of dynamic resource allocation".to_owned());
    }
    let affinity = spec.affinity.as_ref();
    let node_affinity = affinity
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|node| {
            node.required_during_scheduling_ignored_during_execution
                .as_ref()
        })
        .map(|required| node_terms(&required.node_selector_terms));
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let together = affinity
        .and_then(|affinity| affinity.pod_affinity.as_ref())
        .and_then(|pods| {
            pods.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
    let apart = affinity
        .and_then(|affinity| affinity.pod_anti_affinity.as_ref())
        .and_then(|pods| {
            pods.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
    let spread = spec.topology_spread_constraints.iter().flatten();
    Needs {
        requests,
        tolerations: spec
            .tolerations
            .iter()
            .flatten()
            .filter_map(toleration)
            .collect(),
        node_selector: spec.node_selector.clone().unwrap_or_default(),
        node_affinity,
        volumes: Vec::new(),
        host_ports: host_ports(spec),
        together: together
            .into_iter()
            .flatten()
            .map(|term| pod_term(term, namespace, false))
            .collect(),
        apart: apart
            .into_iter()
            .flatten()
            .map(|term| pod_term(term, namespace, true))
            .collect(),
        spread: spread
            .filter(|constraint| constraint.when_unsatisfiable == "DoNotSchedule")
            .map(|constraint| spread_of(constraint, namespace, &labels))
            .collect(),
        labels,
        uncountable,
    }
}

/// All containers together; or what an init container needs beside the sidecars that started before it,
/// where that is more; and the overhead of the runtime. Requests for the Pod as a whole replace the sums.
fn requests(pod: &Pod, spec: &PodSpec, uncountable: &mut Vec<String>) -> Resources {
    let mut read = |list: Option<&BTreeMap<String, Quantity>>| {
        let mut resources = Resources::default();
        for (name, quantity) in list.into_iter().flatten() {
            if let Err(error) = set(&mut resources, name, quantity) {
                uncountable.push(format!("its request for {}: {error}", clean(name, 64)));
            }
        }
        resources
    };
    let allocated = allocated(pod);
    let mut of = |container: &Container| {
        let asked = container
            .resources
            .as_ref()
            .and_then(|resources| resources.requests.as_ref());
        let mut asked = read(asked);
        // While a container is resized in place, the larger of what it asks for and has counts.
        asked.raise(&read(allocated.get(container.name.as_str()).copied()));
        asked
    };
    let mut sum = Resources::default();
    for container in &spec.containers {
        sum.add(&of(container));
    }
    let mut sidecars = Resources::default();
    let mut starting = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut asked = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&asked);
            starting.raise(&sidecars);
        } else {
            asked.add(&sidecars);
            starting.raise(&asked);
        }
    }
    sum.add(&sidecars);
    sum.raise(&starting);
    let whole = spec
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.as_ref());
    if let Some(whole) = whole {
        for (name, quantity) in whole {
            if let Err(error) = set(&mut sum, name, quantity) {
                uncountable.push(format!("its request for {}: {error}", clean(name, 64)));
            }
        }
    }
    let mut overhead = Resources::default();
    for (name, quantity) in spec.overhead.iter().flatten() {
        if let Err(error) = set(&mut overhead, name, quantity) {
            uncountable.push(format!("its overhead of {}: {error}", clean(name, 64)));
        }
    }
    sum.add(&overhead);
    sum.pods = 1;
    sum
}

/// `allocatedResources` of the containers, by name.
fn allocated(pod: &Pod) -> BTreeMap<&str, &BTreeMap<String, Quantity>> {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    let init = status.and_then(|status| status.init_container_statuses.as_ref());
    let all = containers.into_iter().chain(init).flatten();
    all.filter_map(|status| Some((status.name.as_str(), status.allocated_resources.as_ref()?)))
        .collect()
}

/// `None` for one that is not understood: it tolerates nothing.
fn toleration(toleration: &PodToleration) -> Option<Toleration> {
    let present = |text: Option<&String>| text.filter(|text| !text.is_empty()).cloned();
    let key = present(toleration.key.as_ref());
    let value = match toleration.operator.as_deref() {
        Some("Exists") => None,
        Some("Equal" | "") | None => {
            key.as_ref()?;
            Some(toleration.value.clone().unwrap_or_default())
        }
        Some(_) => return None,
    };
    let effect: Option<TaintEffect> = match present(toleration.effect.as_ref()) {
        Some(effect) => Some(record::effect(&effect)?),
        None => None,
    };
    Some(Toleration { key, value, effect })
}

/// The alternatives of a node selector.
fn node_terms(terms: &[NodeSelectorTerm]) -> Vec<NodeTerm> {
    let convert = |requirements: &Option<Vec<NodeSelectorRequirement>>| {
        let all = requirements.iter().flatten();
        all.map(|one| requirement(&one.key, &one.operator, one.values.as_deref()))
            .collect()
    };
    terms
        .iter()
        .map(|term| NodeTerm {
            labels: convert(&term.match_expressions),
            name: term
                .match_fields
                .iter()
                .flatten()
                .map(|one| {
                    // The only field there is.
                    let known = one.key == "metadata.name";
                    let operator = if known { one.operator.as_str() } else { "" };
                    requirement(&one.key, operator, one.values.as_deref())
                })
                .collect(),
        })
        .collect()
}

fn requirement(key: &str, operator: &str, values: Option<&[String]>) -> Requirement {
    let values = values.unwrap_or_default();
    let number = || values.first().and_then(|value| value.parse::<i64>().ok());
    Requirement {
        key: key.to_owned(),
        operator: match operator {
            "In" => Operator::In(values.to_vec()),
            "NotIn" => Operator::NotIn(values.to_vec()),
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => number().map_or(Operator::Unknown, Operator::Gt),
            "Lt" => number().map_or(Operator::Unknown, Operator::Lt),
            _ => Operator::Unknown,
        },
    }
}

fn selector(selector: Option<&LabelSelector>) -> Option<Vec<Requirement>> {
    let selector = selector?;
    let equal = selector.match_labels.iter().flatten();
    let expressions = selector.match_expressions.iter().flatten();
    let equal = equal.map(|(key, value)| Requirement {
        key: key.clone(),
        operator: Operator::In(vec![value.clone()]),
    });
    let expressions =
        expressions.map(|one| requirement(&one.key, &one.operator, one.values.as_deref()));
    Some(equal.chain(expressions).collect())
}

/// `matchLabelKeys` needs nothing here: the API server has made it part of the selector. A selector of
/// namespaces is taken as all of them where that keeps more Pods apart, and as none where it would let
/// more count as near.
fn pod_term(term: &PodAffinityTerm, own_namespace: &str, apart: bool) -> PodTerm {
    let listed = term.namespaces.clone().unwrap_or_default();
    let namespaces = match &term.namespace_selector {
        Some(selector) => {
            let all = selector
                .match_labels
                .as_ref()
                .is_none_or(BTreeMap::is_empty)
                && selector
                    .match_expressions
                    .as_ref()
                    .is_none_or(Vec::is_empty);
            (!all && !apart).then_some(listed)
        }
        None if listed.is_empty() => Some(vec![own_namespace.to_owned()]),
        None => Some(listed),
    };
    PodTerm {
        topology_key: term.topology_key.clone(),
        namespaces,
        selector: selector(term.label_selector.as_ref()),
    }
}

fn spread_of(
    constraint: &TopologySpreadConstraint,
    namespace: &str,
    labels: &BTreeMap<String, String>,
) -> Spread {
    let mut requirements = selector(constraint.label_selector.as_ref());
    if let Some(requirements) = &mut requirements {
        let keys = constraint.match_label_keys.iter().flatten();
        requirements.extend(keys.filter_map(|key| {
            Some(Requirement {
                key: key.clone(),
                operator: Operator::In(vec![labels.get(key)?.clone()]),
            })
        }));
    }
    Spread {
        over: PodTerm {
            topology_key: constraint.topology_key.clone(),
            namespaces: Some(vec![namespace.to_owned()]),
            selector: requirements,
        },
        skew_max: u32::try_from(constraint.max_skew).unwrap_or(1).max(1),
    }
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    // With `hostNetwork` the API server sets `hostPort` to the container's port.
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let number = port.host_port.and_then(|port| u16::try_from(port).ok())?;
            Some(HostPort {
                protocol: match port.protocol.as_deref() {
                    Some("UDP") => Protocol::Udp,
                    Some("SCTP") => Protocol::Sctp,
                    Some(_) | None => Protocol::Tcp,
                },
                port: number,
                address: port
                    .host_ip
                    .clone()
                    .filter(|address| !matches!(address.as_str(), "" | "0.0.0.0" | "::")),
            })
        })
        .filter(|port| port.port > 0)
        .collect()
}

/// Where a volume can be reached: by its node affinity, and by the labels of its zone and region, which
/// volumes from before CSI have instead. `None`: everywhere.
pub fn topology(claim: &str, volume: &PersistentVolume) -> Option<VolumeTopology> {
    const LABELS: [&str; 4] = [
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
    ];
    let labels = volume.metadata.labels.as_ref();
    let by_label: Vec<Requirement> = LABELS
        .iter()
        .filter_map(|key| {
            let value = labels?.get(*key)?;
            // A volume in several zones names them all, in one value.
            let values = value.split("__").map(str::to_owned).collect();
            Some(Requirement {
                key: (*key).to_owned(),
                operator: Operator::In(values),
            })
        })
        .collect();
    let required = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.node_affinity.as_ref())
        .and_then(|affinity| affinity.required.as_ref());
    let mut terms = match required {
        Some(required) => node_terms(&required.node_selector_terms),
        None if by_label.is_empty() => return None,
        None => vec![NodeTerm::default()],
    };
    for term in &mut terms {
        term.labels.extend(by_label.iter().cloned());
    }
    Some(VolumeTopology {
        claim: claim.to_owned(),
        terms,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(spec: Value) -> Needs {
        with_status(spec, json!({}))
    }

    fn with_status(mut spec: Value, status: Value) -> Needs {
        if spec.get("containers").is_none() {
            spec["containers"] = json!([]);
        }
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": "p", "labels": {"app": "web", "rev": "7"}},
            "spec": spec, "status": status,
        }))
        .expect("a Pod");
        needs(&pod)
    }

    fn asks(requests: Value) -> Value {
        json!({"name": "c", "resources": {"requests": requests}})
    }

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        let check = |text: &str, milli: Option<u64>, whole: Option<u64>| {
            let quantity = Quantity(text.to_owned());
            assert_eq!(thousandths(&quantity).ok(), milli, "{text}");
            assert_eq!(units(&quantity).ok(), whole, "{text}");
        };
        check("100m", Some(100), Some(1));
        check("1", Some(1_000), Some(1));
        check("1.5", Some(1_500), Some(2));
        check(".5", Some(500), Some(1));
        check("2.", Some(2_000), Some(2));
        check("+3", Some(3_000), Some(3));
        check("0", Some(0), Some(0));
        check("1n", Some(1), Some(1));
        check("250u", Some(1), Some(1));
        check("64Mi", Some(67_108_864_000), Some(67_108_864));
        check("1.5Gi", Some(1_610_612_736_000), Some(1_610_612_736));
        check("1k", Some(1_000_000), Some(1_000));
        check("12e6", Some(12_000_000_000), Some(12_000_000));
        check("5E-3", Some(5), Some(1));
        check("1E", None, Some(1_000_000_000_000_000_000));
        check("7Ei", None, Some(7 << 60));
        for text in [
            "", "m", "1.2.3", "1mm", "0x10", "1 Gi", "NaN", "e3", "1e", "١",
        ] {
            check(text, None, None);
        }
        for text in [
            "-1",
            "8Ei",
            "9999999999999999999999999999999999999999",
            "1e30",
        ] {
            let error = units(&Quantity(text.to_owned())).expect_err(text);
            assert!(
                matches!(error, QuantityError::OutOfRange(_)),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn requests_are_counted_as_the_scheduler_counts_them() {
        let check = |spec: Value, cpu: u64, memory: u64| {
            let needs = of(spec.clone());
            let found = (needs.requests.cpu, needs.requests.memory >> 20);
            assert_eq!(found, (cpu, memory), "{spec}");
            assert_eq!(needs.requests.pods, 1);
        };
        let one = || asks(json!({"cpu": "100m", "memory": "64Mi"}));
        let init = |cpu: &str, sidecar: bool| {
            let mut container = asks(json!({"cpu": cpu}));
            if sidecar {
                container["restartPolicy"] = json!("Always");
            }
            container
        };
        check(json!({}), 0, 0);
        check(json!({"containers": [one(), one()]}), 200, 128);
        check(
            json!({"containers": [one()], "overhead": {"cpu": "50m", "memory": "1Mi"}}),
            150,
            65,
        );
        // One after the other: the largest counts, where it is more than what runs afterwards.
        check(
            json!({"containers": [one()], "initContainers": [init("300m", false), init("200m", false)]}),
            300,
            64,
        );
        check(
            json!({"containers": [one()], "initContainers": [init("50m", false)]}),
            100,
            64,
        );
        // A sidecar runs beside the containers, and beside the init containers that come after it.
        check(
            json!({"containers": [one()], "initContainers": [init("300m", true)]}),
            400,
            64,
        );
        check(
            json!({"containers": [one()], "initContainers": [init("300m", true), init("500m", false)]}),
            800,
            64,
        );
        check(
            json!({"containers": [one()], "initContainers": [init("500m", false), init("300m", true)]}),
            500,
            64,
        );
        // Requests of the Pod as a whole.
        check(
            json!({"containers": [one()], "resources": {"requests": {"cpu": "1"}}}),
            1_000,
            64,
        );
    }

    #[test]
    fn what_a_container_was_given_counts_while_it_is_resized() {
        let spec = json!({"containers": [asks(json!({"cpu": "100m"}))]});
        let status = json!({"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0, "allocatedResources": {"cpu": "400m"}}]});
        assert_eq!(with_status(spec, status).requests.cpu, 400);
    }

    #[test]
    fn extended_resources_are_counted_and_what_cannot_be_is_said() {
        let needs = of(
            json!({"containers": [asks(json!({"nvidia.com/gpu": "2", "hugepages-2Mi": "4Mi"}))]}),
        );
        assert_eq!(needs.requests.of("nvidia.com/gpu"), 2);
        assert_eq!(needs.requests.of("hugepages-2Mi"), 4 << 20);
        assert!(needs.uncountable.is_empty());
        let claims = of(json!({"resourceClaims": [{"name": "gpu", "resourceClaimName": "g"}]}));
        assert_eq!(
            claims.uncountable,
            ["a claim of dynamic resource allocation"]
        );
        let list: BTreeMap<String, Quantity> = serde_json::from_value(json!({
            "cpu": "3920m", "memory": "16Gi", "pods": "110", "ephemeral-storage": "100Gi",
            "hugepages-1Gi": "0", "nvidia.com/gpu": "8",
        }))
        .expect("quantities");
        let has = allocatable(Some(&list));
        assert_eq!((has.cpu, has.memory, has.pods), (3_920, 16 << 30, 110));
        assert_eq!(has.other.keys().collect::<Vec<_>>(), ["nvidia.com/gpu"]);
    }

    #[test]
    fn affinity_to_nodes_is_read_and_what_is_not_understood_is_never_met() {
        let labels: BTreeMap<String, String> = [
            ("zone".to_owned(), "a".to_owned()),
            ("cores".to_owned(), "8".to_owned()),
        ]
        .into();
        let check = |term: Value, meets: bool| {
            let needs = of(
                json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term.clone()]}}}}),
            );
            let terms = needs.node_affinity.expect("there is one");
            assert_eq!(terms[0].matches(&"n1".into(), &labels), meets, "{term}");
        };
        let by = |key: &str, operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        check(by("zone", "In", &["a", "b"]), true);
        check(by("zone", "In", &["b"]), false);
        check(by("zone", "NotIn", &["b"]), true);
        check(by("zone", "NotIn", &["a"]), false);
        check(by("absent", "NotIn", &["a"]), true);
        check(by("zone", "Exists", &[]), true);
        check(by("absent", "Exists", &[]), false);
        check(by("absent", "DoesNotExist", &[]), true);
        check(by("cores", "Gt", &["7"]), true);
        check(by("cores", "Gt", &["8"]), false);
        check(by("cores", "Lt", &["9"]), true);
        check(by("zone", "Gt", &["7"]), false);
        check(by("zone", "Near", &["a"]), false);
        check(json!({}), false);
        check(
            json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}),
            true,
        );
        check(
            json!({"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["n1"]}]}),
            false,
        );
        check(
            json!({"matchFields": [{"key": "metadata.uid", "operator": "In", "values": ["n1"]}]}),
            false,
        );
    }

    #[test]
    fn rules_about_other_pods_are_read() {
        let term = json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}});
        let needs = of(json!({
            "affinity": {
                "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]},
                "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone", "namespaceSelector": {"matchLabels": {"team": "a"}}, "labelSelector": {}}]},
            },
            "topologySpreadConstraints": [
                {"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}, "matchLabelKeys": ["rev"]},
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"},
            ],
        }));
        let labels = |app: &str, rev: &str| {
            BTreeMap::from([
                ("app".to_owned(), app.to_owned()),
                ("rev".to_owned(), rev.to_owned()),
            ])
        };
        assert!(needs.apart[0].matches("shop", &labels("web", "1")));
        assert!(!needs.apart[0].matches("shop", &labels("db", "1")));
        assert!(!needs.apart[0].matches("other", &labels("web", "1")));
        assert!(
            !needs.together[0].matches("shop", &labels("web", "1")),
            "which namespaces is not known"
        );
        assert_eq!((needs.spread.len(), needs.spread[0].skew_max), (1, 2));
        assert!(needs.spread[0].over.matches("shop", &labels("web", "7")));
        assert!(!needs.spread[0].over.matches("shop", &labels("web", "8")));
    }

    #[test]
    fn host_ports_collide_by_protocol_number_and_address() {
        let ports =
            |port: Value| of(json!({"containers": [{"name": "c", "ports": [port]}]})).host_ports;
        let tcp = ports(json!({"containerPort": 80, "hostPort": 80, "hostIP": "10.0.0.1"}));
        let all = ports(json!({"containerPort": 80, "hostPort": 80, "hostIP": "0.0.0.0"}));
        let udp = ports(json!({"containerPort": 80, "hostPort": 80, "protocol": "UDP"}));
        let other = ports(json!({"containerPort": 80, "hostPort": 80, "hostIP": "10.0.0.2"}));
        assert!(tcp[0].collides_with(&all[0]) && !tcp[0].collides_with(&udp[0]));
        assert!(!tcp[0].collides_with(&other[0]));
        assert!(ports(json!({"containerPort": 80})).is_empty());
    }

    #[test]
    fn a_volume_says_where_it_can_be_reached() {
        let volume = |metadata: Value, spec: Value| {
            let volume: PersistentVolume =
                serde_json::from_value(json!({"metadata": metadata, "spec": spec}))
                    .expect("a volume");
            topology("data", &volume)
        };
        let csi = json!({"csi": {"driver": "d", "volumeHandle": "h"}});
        assert_eq!(volume(json!({}), csi.clone()), None);
        let node = |zone: &str| {
            BTreeMap::from([("topology.kubernetes.io/zone".to_owned(), zone.to_owned())])
        };
        let meets = |topology: &Option<VolumeTopology>, zone: &str| {
            let topology = topology.as_ref().expect("it is somewhere");
            topology
                .terms
                .iter()
                .any(|term| term.matches(&"n".into(), &node(zone)))
        };
        let labelled = volume(
            json!({"labels": {"topology.kubernetes.io/zone": "a__b"}}),
            csi,
        );
        assert!(meets(&labelled, "a") && meets(&labelled, "b") && !meets(&labelled, "c"));
        let affine = volume(
            json!({}),
            json!({"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["c"]}]}]}}}),
        );
        assert!(meets(&affine, "c") && !meets(&affine, "a"));
    }
}
