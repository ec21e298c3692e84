//! What is asked of Prometheus to know what happened to the Nodes.
//!
//! Each is a range query over the history, on a grid as fine as the labels are to be (a minute). `$S` stands
//! for `prometheus.selector`, as in `config/features.toml`. All but the alerts and boots say 0 as well as 1,
//! so that "it was not so" and "nobody looked" are told apart.

use serde::{Deserialize, Serialize};

use super::track::State;

/// The alerts that count as incidents unless the operator names others: patterns of `alertname`, each for
/// the whole name.
pub const ALERTS: [&str; 3] = ["Node.*", "Kube(Node|let).*", "Host.*"];

/// Something that is seen of a Node's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Condition `Ready` is not `True`.
    NotReady,
    /// Condition `MemoryPressure`.
    MemoryPressure,
    /// Condition `DiskPressure`.
    DiskPressure,
    /// Condition `PIDPressure`.
    PidPressure,
    /// Condition `NetworkUnavailable`.
    NetworkUnavailable,
    /// The exporter on the Node does not answer.
    Down,
    /// When the machine booted.
    Boot,
    /// Somebody has cordoned the Node: planned work.
    Cordoned,
    /// When the Node was created; no sample where it does not exist.
    Created,
    /// Our own taint is there, or our drain runs.
    OwnAction,
}

impl Signal {
    /// Every one.
    pub const ALL: [Self; 10] = [
        Self::NotReady,
        Self::MemoryPressure,
        Self::DiskPressure,
        Self::PidPressure,
        Self::NetworkUnavailable,
        Self::Down,
        Self::Boot,
        Self::Cordoned,
        Self::Created,
        Self::OwnAction,
    ];

    /// What it is, in words, where a query for it fails.
    pub fn words(self) -> &'static str {
        match self {
            Self::NotReady => "Nodes that were not Ready (kube_node_status_condition)",
            Self::MemoryPressure => "memory pressure (kube_node_status_condition)",
            Self::DiskPressure => "disk pressure (kube_node_status_condition)",
            Self::PidPressure => "PID pressure (kube_node_status_condition)",
            Self::NetworkUnavailable => "networks that were down (kube_node_status_condition)",
            Self::Down => "exporters that were silent (up)",
            Self::Boot => "boots (node_boot_time_seconds)",
            Self::Cordoned => "cordons (kube_node_spec_unschedulable)",
            Self::Created => "when Nodes were created (kube_node_created)",
            Self::OwnAction => "what foreshock did (foreshock_node_phase)",
        }
    }

    /// The query: one series for each Node, which the label `node`, otherwise `instance`, names.
    pub fn promql(self) -> &'static str {
        match self {
            // Two replicas of kube-state-metrics may differ for a scrape: it is ready if one says so.
            Self::NotReady => {
                r#"1 - max by (node) (kube_node_status_condition{condition="Ready",status="true"})"#
            }
            Self::MemoryPressure => {
                r#"max by (node) (kube_node_status_condition{condition="MemoryPressure",status="true"})"#
            }
            Self::DiskPressure => {
                r#"max by (node) (kube_node_status_condition{condition="DiskPressure",status="true"})"#
            }
            Self::PidPressure => {
                r#"max by (node) (kube_node_status_condition{condition="PIDPressure",status="true"})"#
            }
            Self::NetworkUnavailable => {
                r#"max by (node) (kube_node_status_condition{condition="NetworkUnavailable",status="true"})"#
            }
            Self::Down => "1 - max by (instance) (up{$S})",
            Self::Boot => "max by (instance) (node_boot_time_seconds{$S})",
            Self::Cordoned => "max by (node) (kube_node_spec_unschedulable)",
            Self::Created => "max by (node) (kube_node_created)",
            Self::OwnAction => {
                r#"max by (node) (foreshock_node_phase{phase=~"tainted|draining|drained|recovering"})"#
            }
        }
    }
}

/// The query for alerts of these names: one series for each Node (`node`, otherwise `instance`) and `alertname`,
/// 2 while it fires and 1 while it is pending; no sample while it is neither. Our own alerts, which carry
/// `foreshock="self"`, are evidence of nothing.
pub fn alerts_promql<P: AsRef<str>>(patterns: &[P]) -> String {
    of_alerts("=~", patterns)
}

/// The same for all other alerts. They are no incidents; whoever acts on them acts without a model.
pub fn other_alerts_promql<P: AsRef<str>>(patterns: &[P]) -> String {
    of_alerts("!~", patterns)
}

fn of_alerts<P: AsRef<str>>(operator: &str, patterns: &[P]) -> String {
    let joined = patterns
        .iter()
        .map(AsRef::as_ref)
        .collect::<Vec<_>>()
        .join("|");
    // A pattern is the operator's text: inside the string it must not end it.
    let list = joined
        .replace('\\', r"\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    let of = |state: &str| {
        format!(r#"ALERTS{{alertname{operator}"{list}",alertstate="{state}",foreshock!="self"}}"#)
    };
    format!(
        "max by (node, instance, alertname) (({} + 1) or {})",
        of("firing"),
        of("pending")
    )
}

/// What a sample of [`alerts_promql`] says.
pub fn alert_state(value: f64) -> State {
    if value >= 2.0 {
        State::On
    } else {
        State::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use promql_parser::parser::{self, Expr};

    /// Metrics that a query reads.
    fn metrics(expr: &Expr, found: &mut Vec<String>) {
        match expr {
            Expr::Aggregate(aggregate) => metrics(&aggregate.expr, found),
            Expr::Binary(binary) => {
                metrics(&binary.lhs, found);
                metrics(&binary.rhs, found);
            }
            Expr::Paren(paren) => metrics(&paren.expr, found),
            Expr::VectorSelector(selector) => found.extend(selector.name.clone()),
            Expr::NumberLiteral(_) => {}
            other => panic!("nothing newer or other than this is used: {other:?}"),
        }
    }

    fn parsed(promql: &str) -> Vec<String> {
        let filled = promql.replace("$S", r#"job="node""#);
        let expr = parser::parse(&filled).unwrap_or_else(|e| panic!("{filled}: {e}"));
        let mut found = Vec::new();
        metrics(&expr, &mut found);
        found
    }

    #[test]
    fn every_query_is_promql_that_an_old_server_knows() {
        for signal in Signal::ALL {
            assert_eq!(parsed(signal.promql()).len(), 1, "{signal:?}");
        }
        assert_eq!(parsed(&alerts_promql(&ALERTS)), ["ALERTS", "ALERTS"]);
        assert_eq!(parsed(&other_alerts_promql(&ALERTS)), ["ALERTS", "ALERTS"]);
    }

    #[test]
    fn a_pattern_cannot_leave_its_string() {
        let hostile = [
            r#"x"} or vector(1) or ALERTS{a=""#,
            r"Back\\slash\.",
            "line\nbreak",
        ];
        assert_eq!(parsed(&alerts_promql(&hostile)), ["ALERTS", "ALERTS"]);
    }

    #[test]
    fn our_own_metric_is_one_that_we_export() {
        let ours = parsed(Signal::OwnAction.promql());
        let phase = crate::metrics::METRICS
            .iter()
            .find(|metric| metric.name == ours[0]);
        assert_eq!(
            phase.map(|metric| metric.labels),
            Some(&["node", "phase"][..])
        );
    }

    #[test]
    fn an_alert_is_pending_or_fires() {
        assert_eq!(alert_state(1.0), State::Pending);
        assert_eq!(alert_state(2.0), State::On);
    }
}
