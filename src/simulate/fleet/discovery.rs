//! What a Prometheus finds at `/sd`: one target group for each Node, in the form of `http_sd_configs`.

use std::collections::BTreeMap;

use foreshock_core::node::NodeName;
use serde::Serialize;

use super::Fleet;

/// What is asked of `/sd`, from its query parameters.
///
/// `target` says which page of a Node is meant: `node-exporter` (default), `kubelet` or `probe`.
/// Every other parameter is a label of the targets; in its value `{node}`, `{index}` (from 0) and
/// `{address}` (an address of its own in 10.0.0.0/8) are filled in, and an empty value leaves the
/// label out. By default `job` is the target's name, `instance` is `{node}:9100` (10250 for a
/// kubelet, no port for a probe), and a kubelet's series carry `node`.
///
/// `/sd?instance={address}:9100&namespace=monitoring&pod=node-exporter-{node}` looks like
/// kube-prometheus-stack, `/sd?instance={address}:9100&node={node}` like the `prometheus` chart.
#[derive(Clone, Debug)]
pub struct Discovery {
    path: PathOf,
    labels: BTreeMap<String, String>,
}

/// The path of a Node's page.
type PathOf = fn(&NodeName) -> String;

/// Why `/sd` cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// A target that is none.
    #[error("`target={0}`: use node-exporter, kubelet or probe")]
    Target(String),
    /// A parameter that can be no label.
    #[error("`{0}` can be no label: use letters, digits and _, and no digit first")]
    Label(String),
    /// A parameter given twice.
    #[error("`{0}` is given twice")]
    Twice(String),
}

/// One target with its labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetGroup {
    /// Where to scrape: the address that was asked.
    pub targets: Vec<String>,
    /// Labels of the target, `__metrics_path__` among them.
    pub labels: BTreeMap<String, String>,
}

impl Discovery {
    /// Reads the query parameters.
    ///
    /// # Errors
    ///
    /// [`DiscoveryError`] names the parameter.
    pub fn parse(parameters: &[(String, String)]) -> Result<Self, DiscoveryError> {
        let target = parameters.iter().find(|(name, _)| name == "target");
        let target = target.map_or("node-exporter", |(_, value)| value);
        let (path, defaults): (PathOf, &[(&str, &str)]) = match target {
            "node-exporter" => (
                |node| format!("/nodes/{node}/metrics"),
                &[("job", "node-exporter"), ("instance", "{node}:9100")],
            ),
            "kubelet" => (
                |node| format!("/nodes/{node}/kubelet/metrics"),
                &[
                    ("job", "kubelet"),
                    ("instance", "{node}:10250"),
                    ("node", "{node}"),
                ],
            ),
            "probe" => (
                |node| format!("/nodes/{node}/probe"),
                &[("job", "blackbox"), ("instance", "{node}")],
            ),
            other => return Err(DiscoveryError::Target(other.to_owned())),
        };
        let mut labels: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in parameters {
            if name != "target" && !is_label(name) {
                return Err(DiscoveryError::Label(name.clone()));
            }
            if labels.insert(name.clone(), value.clone()).is_some() {
                return Err(DiscoveryError::Twice(name.clone()));
            }
        }
        labels.remove("target");
        for (name, value) in defaults {
            labels
                .entry((*name).to_owned())
                .or_insert_with(|| (*value).to_owned());
        }
        labels.retain(|_, value| !value.is_empty());
        Ok(Self { path, labels })
    }

    /// The target groups of a fleet that is served at `host`.
    pub fn groups(&self, fleet: &Fleet, host: &str) -> Vec<TargetGroup> {
        let group = |(index, node): (usize, &NodeName)| {
            let fill = |template: &String| {
                template
                    .replace("{node}", node.as_str())
                    .replace("{index}", &index.to_string())
                    .replace("{address}", &address(index))
            };
            let mut labels: BTreeMap<_, _> = self
                .labels
                .iter()
                .map(|(name, value)| (name.clone(), fill(value)))
                .collect();
            labels.insert("__metrics_path__".to_owned(), (self.path)(node));
            TargetGroup {
                targets: vec![host.to_owned()],
                labels,
            }
        };
        fleet.names().enumerate().map(group).collect()
    }
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`, and not one of Prometheus' own.
fn is_label(name: &str) -> bool {
    let mut letters = name.chars();
    let first = letters
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    first && letters.all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.starts_with("__")
}

/// An address for the `index`-th Node, never that of a network or its broadcast.
pub(super) fn address(index: usize) -> String {
    format!(
        "10.{}.{}.{}",
        index / 50_000,
        (index / 200) % 250,
        index % 200 + 10
    )
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::FleetOptions;
    use super::*;

    fn groups(parameters: &[(&str, &str)]) -> Result<Vec<TargetGroup>, DiscoveryError> {
        let owned: Vec<_> = parameters
            .iter()
            .map(|(n, v)| ((*n).into(), (*v).into()))
            .collect();
        let fleet = Fleet::new(FleetOptions::new(1, 3, Timestamp::UNIX_EPOCH)).unwrap();
        Ok(Discovery::parse(&owned)?.groups(&fleet, "127.0.0.1:9000"))
    }

    #[test]
    fn each_node_is_one_target_with_the_labels_asked_for() {
        let plain = groups(&[]).unwrap();
        assert_eq!(plain.len(), 3);
        assert_eq!(plain[2].targets, ["127.0.0.1:9000"]);
        let labels: Vec<_> = plain[2]
            .labels
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        assert_eq!(
            labels,
            [
                ("__metrics_path__", "/nodes/worker-03/metrics"),
                ("instance", "worker-03:9100"),
                ("job", "node-exporter"),
            ]
        );
        let stack = groups(&[
            ("instance", "{address}:9100"),
            ("pod", "ne-{index}"),
            ("job", ""),
        ])
        .unwrap();
        assert_eq!(stack[1].labels["instance"], "10.0.0.11:9100");
        assert_eq!(stack[1].labels["pod"], "ne-1");
        assert!(!stack[1].labels.contains_key("job"));
        let kubelet = groups(&[("target", "kubelet")]).unwrap();
        assert_eq!(kubelet[0].labels["node"], "worker-01");
    }

    #[test]
    fn what_can_be_no_target_or_label_is_refused() {
        assert_eq!(
            groups(&[("target", "disk")]),
            Err(DiscoveryError::Target("disk".into()))
        );
        assert_eq!(
            groups(&[("1st", "x")]),
            Err(DiscoveryError::Label("1st".into()))
        );
        assert_eq!(
            groups(&[("__address__", "x")]),
            Err(DiscoveryError::Label("__address__".into()))
        );
        assert_eq!(
            groups(&[("a", "x"), ("a", "y")]),
            Err(DiscoveryError::Twice("a".into()))
        );
    }

    #[test]
    fn addresses_do_not_repeat_in_the_largest_fleet() {
        let mut all: Vec<_> = (0..super::super::NODES_MAX).map(address).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), super::super::NODES_MAX);
    }
}
