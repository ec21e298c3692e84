//! Which alerts count, how far, and which Node they mean.

use std::collections::BTreeMap;
use std::time::Duration;

use foreshock_core::decision::policy::Reach;
use foreshock_core::node::NodeName;
use foreshock_core::risk::Risk;
use jiff::Timestamp;

use super::matcher::Matcher;
use super::payload::Alert;

/// One of `[[alerts.rules]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertRule {
    /// All of them must match. A rule without matchers matches nothing.
    pub matchers: Vec<Matcher>,
    /// The Node's risk is at least this while the alert is active.
    pub floor: Risk,
    /// The furthest that the alert may cause.
    pub reach: Reach,
    /// How long it counts without being refreshed.
    pub expire: Duration,
}

impl AlertRule {
    /// Whether the rule is about an alert with these labels.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.matchers.is_empty() && self.matchers.iter().all(|matcher| matcher.matches(labels))
    }
}

/// What `[alerts]` says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AlertRules {
    /// Labels that may name the Node; the first one present decides.
    pub node_labels: Vec<String>,
    /// The first whose matchers all match counts.
    pub rules: Vec<AlertRule>,
}

impl AlertRules {
    /// The label of foreshock's own alerts, and its value: counted, and never evidence.
    pub const OWN_LABEL: (&'static str, &'static str) = ("foreshock", "self");

    /// The rule that counts for an alert.
    pub fn rule(&self, alert: &Alert) -> Option<&AlertRule> {
        self.rules.iter().find(|rule| rule.matches(&alert.labels))
    }

    /// Whether the alert is one of foreshock's own.
    pub fn is_own(&self, alert: &Alert) -> bool {
        let (name, value) = Self::OWN_LABEL;
        alert.labels.get(name).is_some_and(|found| found == value)
    }

    /// The longest that any rule lets an alert count.
    pub fn expire_max(&self) -> Duration {
        let longest = self.rules.iter().map(|rule| rule.expire).max();
        longest.unwrap_or_default()
    }

    /// What the alert says about its Node: the labels that may decide, in order. The last of them
    /// decides for certain; those before it are `instance` labels, which count only if they are a
    /// node_exporter's, and that is known only once the Nodes are.
    pub fn clues(&self, alert: &Alert) -> Vec<NodeClue> {
        let mut clues = Vec::new();
        for label in &self.node_labels {
            // An empty label is an absent one, as everywhere in Prometheus.
            let Some(value) = alert.labels.get(label).filter(|value| !value.is_empty()) else {
                continue;
            };
            clues.push(NodeClue {
                label: label.clone(),
                value: value.clone(),
            });
            if label != NodeClue::INSTANCE {
                break;
            }
        }
        clues
    }
}

/// A label that may name a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeClue {
    /// Its name.
    pub label: String,
    /// Its value.
    pub value: String,
}

impl NodeClue {
    /// The label that names a scrape target rather than a Node.
    pub const INSTANCE: &'static str = "instance";
}

/// Why an alert means no Node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeProblem {
    /// None of the labels that could name one is there.
    NoLabel,
    /// The label that decides names no Node.
    Unknown,
    /// It names several.
    Ambiguous,
}

/// The Nodes there are, by everything that an alert may call them.
#[derive(Clone, Debug)]
pub struct NodeDirectory<'a> {
    created_at: BTreeMap<NodeName, Timestamp>,
    hostnames: BTreeMap<String, Vec<NodeName>>,
    instances: &'a BTreeMap<String, NodeName>,
}

impl<'a> NodeDirectory<'a> {
    /// Takes each Node with its creation and its label `kubernetes.io/hostname`, and the node_exporter
    /// instances of the identity query.
    pub fn new(
        nodes: impl IntoIterator<Item = (NodeName, Timestamp, Option<String>)>,
        instances: &'a BTreeMap<String, NodeName>,
    ) -> Self {
        let mut created_at = BTreeMap::new();
        let mut hostnames: BTreeMap<String, Vec<NodeName>> = BTreeMap::new();
        for (name, created, hostname) in nodes {
            if let Some(hostname) = hostname.filter(|hostname| hostname != name.as_str()) {
                hostnames.entry(hostname).or_default().push(name.clone());
            }
            created_at.insert(name, created);
        }
        Self {
            created_at,
            hostnames,
            instances,
        }
    }

    /// The Node that the clues of an alert mean, and when it was created.
    ///
    /// # Errors
    ///
    /// [`NodeProblem`]: nothing is guessed, and a label that decides is never passed over for the next.
    pub fn resolve(&self, clues: &[NodeClue]) -> Result<(&NodeName, Timestamp), NodeProblem> {
        for clue in clues {
            if clue.label == NodeClue::INSTANCE {
                if let Some(node) = self.instances.get(&clue.value) {
                    return self.known(node.as_str()).ok_or(NodeProblem::Unknown);
                }
                continue;
            }
            let named = self.known(&clue.value);
            let hosts = self
                .hostnames
                .get(&clue.value)
                .map_or(&[][..], Vec::as_slice);
            return match (named, hosts) {
                (Some(node), []) => Ok(node),
                (None, [node]) => self.known(node.as_str()).ok_or(NodeProblem::Unknown),
                (None, []) => Err(NodeProblem::Unknown),
                (_, _) => Err(NodeProblem::Ambiguous),
            };
        }
        Err(NodeProblem::NoLabel)
    }

    fn known(&self, name: &str) -> Option<(&NodeName, Timestamp)> {
        let (name, created_at) = self.created_at.get_key_value(name)?;
        Some((name, *created_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alertmanager::AlertStatus;

    fn alert(labels: &[(&str, &str)]) -> Alert {
        Alert {
            fingerprint: "f".into(),
            status: AlertStatus::Firing,
            labels: labels
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            summary: String::new(),
            starts_at: Timestamp::UNIX_EPOCH,
            ends_at: None,
            updated_at: None,
        }
    }

    fn rules(node_labels: &[&str]) -> AlertRules {
        AlertRules {
            node_labels: node_labels.iter().map(|label| (*label).into()).collect(),
            rules: Vec::new(),
        }
    }

    #[test]
    fn the_first_label_present_decides_and_nothing_is_guessed() {
        let instances = BTreeMap::from([
            ("10.0.0.1:9100".into(), NodeName::from("a")),
            ("[fd00::2]:9100".into(), NodeName::from("b")),
            ("10.0.0.9:9100".into(), NodeName::from("gone")),
        ]);
        let node = |name: &str, host: &str| (name.into(), Timestamp::UNIX_EPOCH, Some(host.into()));
        let directory = NodeDirectory::new(
            [
                node("a", "a"),
                node("b", "host-b"),
                node("c.example", "c"),
                node("d", "twin"),
                node("e", "twin"),
                node("f", "a"),
            ],
            &instances,
        );
        let defaults = [
            "foreshock_node",
            "exported_node",
            "node",
            "kubernetes_node",
            "nodename",
            "instance",
        ];
        use NodeProblem::{Ambiguous, NoLabel, Unknown};
        for (order, labels, expected) in [
            (&defaults[..], &[("node", "b")][..], Ok("b")),
            // kube-state-metrics behind a scrape configuration that adds `node`: its own Node is in
            // `node`, the sick one in `exported_node`.
            (&defaults, &[("node", "d"), ("exported_node", "b")], Ok("b")),
            (
                &defaults,
                &[("node", "e"), ("foreshock_node", "d")],
                Ok("d"),
            ),
            // The label that decides names nobody: the next one is not asked.
            (
                &defaults,
                &[("exported_node", "zz"), ("node", "b")],
                Err(Unknown),
            ),
            (&defaults, &[("node", ""), ("nodename", "b")], Ok("b")),
            (&defaults, &[("nodename", "c")], Ok("c.example")),
            (&defaults, &[("nodename", "twin")], Err(Ambiguous)),
            // "a" is one Node's name and another's hostname.
            (&defaults, &[("node", "a")], Err(Ambiguous)),
            (&defaults, &[("node", "B")], Err(Unknown)),
            (&defaults, &[("instance", "10.0.0.1:9100")], Ok("a")),
            (&defaults, &[("instance", "[fd00::2]:9100")], Ok("b")),
            (&defaults, &[("instance", "10.0.0.9:9100")], Err(Unknown)),
            // Exactly an instance, or it is no clue at all.
            (&defaults, &[("instance", "10.0.0.1")], Err(NoLabel)),
            (&defaults, &[("instance", "ksm:8080")], Err(NoLabel)),
            (&defaults, &[("instance", "a")], Err(NoLabel)),
            (&defaults, &[("alertname", "Watchdog")], Err(NoLabel)),
            (
                &["instance", "node"],
                &[("instance", "ksm:8080"), ("node", "b")],
                Ok("b"),
            ),
            (
                &["instance", "node"],
                &[("instance", "10.0.0.1:9100"), ("node", "b")],
                Ok("a"),
            ),
        ] {
            let clues = rules(order).clues(&alert(labels));
            let found = directory
                .resolve(&clues)
                .map(|(node, _)| node.as_str().to_owned());
            assert_eq!(found, expected.map(str::to_owned), "{labels:?}");
        }
    }

    #[test]
    fn the_first_rule_whose_matchers_all_match_counts() {
        let rule = |matchers: &[&str], floor: f64| AlertRule {
            matchers: matchers
                .iter()
                .map(|text| Matcher::parse(text).expect("a matcher"))
                .collect(),
            floor: Risk::new(floor).expect("a risk"),
            reach: Reach::Taint,
            expire: Duration::from_secs(60),
        };
        let rules = AlertRules {
            node_labels: Vec::new(),
            rules: vec![
                rule(&[], 0.1),
                rule(&["alertname=A", "severity=critical"], 0.9),
                rule(&["alertname=A"], 0.7),
                rule(&["alertname=~A|B"], 0.8),
            ],
        };
        for (labels, expected) in [
            (
                &[("alertname", "A"), ("severity", "critical")][..],
                Some(0.9),
            ),
            (&[("alertname", "A"), ("severity", "warning")], Some(0.7)),
            (&[("alertname", "B")], Some(0.8)),
            (&[("alertname", "AB")], None),
        ] {
            let floor = rules.rule(&alert(labels)).map(|rule| rule.floor.as_f64());
            assert_eq!(floor, expected, "{labels:?}");
        }
    }
}
