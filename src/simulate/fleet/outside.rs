//! What others say of a Node: its kubelet, kube-state-metrics, and a prober in the network.
//!
//! Only what features and labels read is shown.

use super::counters::{PLEG_BOUNDS, nearest, whole};
use super::node::SimulatedNode;
use super::text::Page;

/// The Pods that every Node runs for the cluster; they are not among those that can be moved.
const DAEMONS: [(&str, &str); 2] = [
    ("monitoring", "node-exporter"),
    ("kube-system", "kube-proxy"),
];

/// The page of a Node's kubelet, `/metrics` of port 10250.
pub(super) fn kubelet(node: &SimulatedNode, out: &mut String) {
    let mut page = Page::new(out);
    let page = &mut page;
    page.family("kubelet_node_name")
        .with(&[("node", node.name.as_str())], 1.0);
    page.family("kubelet_pleg_relist_duration_seconds");
    for (place, count) in node.counters.pleg.iter().enumerate() {
        let bound = PLEG_BOUNDS
            .get(place)
            .map_or("+Inf".to_owned(), f64::to_string);
        page.part("_bucket", &[("le", &bound)], nearest(*count));
    }
    page.part("_sum", &[], node.counters.machine.pleg_sum);
    page.part(
        "_count",
        &[],
        nearest(node.counters.pleg[PLEG_BOUNDS.len()]),
    );
    page.single("kubelet_running_pods", f64::from(node.gauges.pods));
}

/// The page of a prober that pings the Node, as blackbox_exporter's `/probe` with module `icmp`.
///
/// A probe that fails tells a duration of 0 for every phase, as the real one does.
pub(super) fn probe(node: &SimulatedNode, out: &mut String) {
    let mut page = Page::new(out);
    let page = &mut page;
    let back = node.gauges.probe_back && node.is_up();
    let round_trip = if back { node.gauges.round_trip } else { 0.0 };
    let total = if back { round_trip + 0.000_2 } else { 5.0 };
    page.single("probe_duration_seconds", total);
    page.family("probe_icmp_duration_seconds");
    for (phase, seconds) in [
        ("resolve", 0.000_02),
        ("rtt", round_trip),
        ("setup", 0.000_08),
    ] {
        page.with(&[("phase", phase)], if back { seconds } else { 0.0 });
    }
    page.single("probe_success", f64::from(u8::from(back)));
}

/// The page of kube-state-metrics for the whole fleet; `pods` adds a few series for each Pod.
pub(super) fn kube_state_metrics(nodes: &[SimulatedNode], pods: bool, out: &mut String) {
    let mut page = Page::new(out);
    let page = &mut page;
    page.family("kube_node_status_allocatable");
    for node in nodes {
        for (resource, unit, amount) in [
            ("cpu", "core", node.hardware.cores as f64),
            ("memory", "byte", node.hardware.memory),
            ("pods", "integer", f64::from(node.pods_max)),
        ] {
            let labels = [
                ("node", node.name.as_str()),
                ("resource", resource),
                ("unit", unit),
            ];
            page.with(&labels, amount);
        }
    }
    page.family("kube_node_status_condition");
    for node in nodes {
        // A kubelet that is off is noticed by its Lease: neither true nor false.
        let truth = if node.is_up() { "true" } else { "unknown" };
        for status in ["true", "false", "unknown"] {
            let labels = [
                ("condition", "Ready"),
                ("node", node.name.as_str()),
                ("status", status),
            ];
            page.with(&labels, f64::from(u8::from(status == truth)));
        }
    }
    if !pods {
        return;
    }
    page.family("kube_pod_container_status_restarts_total");
    for node in nodes {
        each_pod(node, |namespace, pod, daemon| {
            // All restarts are told of one Pod that never moves: the sum over the Node is right.
            let restarts = if daemon == Some("kube-proxy") {
                whole(node.restarts)
            } else {
                0.0
            };
            let container = daemon.unwrap_or("app");
            page.with(
                &[
                    ("container", container),
                    ("namespace", namespace),
                    ("pod", pod),
                ],
                restarts,
            );
        });
    }
    page.family("kube_pod_info");
    for node in nodes {
        each_pod(node, |namespace, pod, daemon| {
            let kind = if daemon.is_some() {
                "DaemonSet"
            } else {
                "ReplicaSet"
            };
            let labels = [
                ("created_by_kind", kind),
                ("namespace", namespace),
                ("node", node.name.as_str()),
                ("pod", pod),
            ];
            page.with(&labels, 1.0);
        });
    }
}

/// Calls with namespace, name and, for a DaemonSet's, its name, for every Pod of a Node.
fn each_pod(node: &SimulatedNode, mut call: impl FnMut(&str, &str, Option<&'static str>)) {
    for (namespace, daemon) in DAEMONS {
        call(namespace, &format!("{daemon}-{}", node.name), Some(daemon));
    }
    for pod in DAEMONS.len()..node.gauges.pods as usize {
        call("default", &format!("app-{}-{pod}", node.name), None);
    }
}
