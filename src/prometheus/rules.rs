//! The server's rules, as far as `check` looks at them.
//!
//! An alert over our own metrics that comes back through the webhook would be evidence for what we
//! did ourselves. Such alerts must carry `foreshock="self"`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::client::{PrometheusClient, Query, QueryError};
use super::{decode, promql};

/// An alerting rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AlertRule {
    /// Its group.
    pub group: String,
    /// Its name.
    pub name: String,
    /// Its expression.
    pub promql: String,
}

impl PrometheusClient {
    /// The alerting rules over `foreshock_` metrics, also by way of recording rules, that lack the
    /// label `foreshock="self"`. Sorted. Rules that our parser cannot read count if they have the
    /// prefix anywhere in their text.
    ///
    /// # Errors
    ///
    /// [`QueryError`]; a back end without rules of its own may answer 404.
    pub async fn unmarked_alerts(&self) -> Result<Vec<AlertRule>, QueryError> {
        let query = Query::Rules;
        let body = self.get(&query, "/api/v1/rules").await?;
        let rules: Rules =
            decode::data(&body).map_err(|source| QueryError::Answer { query, source })?;
        Ok(unmarked(&rules))
    }
}

fn unmarked(rules: &Rules) -> Vec<AlertRule> {
    let all = || {
        rules
            .groups
            .iter()
            .flat_map(|g| g.rules.iter().map(move |r| (&g.name, r)))
    };
    let of_ours = |promql: &str, ours: &BTreeSet<&str>| {
        let is = |name: &str| name.starts_with("foreshock_") || ours.contains(name);
        promql::reads(promql, is).unwrap_or_else(|| promql.contains("foreshock_"))
    };
    let mut ours: BTreeSet<&str> = BTreeSet::new();
    // Recording rules may stand on recording rules: until nothing is added, which is at most once
    // for each rule.
    loop {
        let before = ours.len();
        for (_, rule) in all().filter(|(_, r)| r.kind == "recording") {
            if of_ours(&rule.query, &ours) {
                ours.insert(&rule.name);
            }
        }
        if ours.len() == before {
            break;
        }
    }
    let mut unmarked: Vec<_> = all()
        .filter(|(_, r)| r.kind == "alerting" && of_ours(&r.query, &ours))
        .filter(|(_, r)| {
            r.labels
                .get("foreshock")
                .is_none_or(|value| value != "self")
        })
        .map(|(group, r)| AlertRule {
            group: group.clone(),
            name: r.name.clone(),
            promql: r.query.clone(),
        })
        .collect();
    unmarked.sort();
    unmarked
}

#[derive(Deserialize)]
struct Rules {
    #[serde(default)]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    name: String,
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    #[serde(default)]
    name: String,
    #[serde(default)]
    query: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(rename = "type", default)]
    kind: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_over_our_metrics_without_the_mark_are_found_through_recording_rules_too() {
        let rules: Rules = serde_json::from_str(
            r#"{"groups":[{"name":"g","rules":[
                {"type":"recording","name":"risk:max","query":"max(node:risk)"},
                {"type":"recording","name":"node:risk","query":"foreshock_node_risk_ratio"},
                {"type":"alerting","name":"Direct","query":"foreshock_leader == 0","labels":{"x":"y"}},
                {"type":"alerting","name":"Indirect","query":"risk:max > 0.9"},
                {"type":"alerting","name":"Marked","query":"foreshock_leader == 0",
                 "labels":{"foreshock":"self"}},
                {"type":"alerting","name":"WronglyMarked","query":"foreshock_leader == 0",
                 "labels":{"foreshock":"yes"}},
                {"type":"alerting","name":"Dialect","query":"rate(foreshock_x) keep_metric_names"},
                {"type":"alerting","name":"Other","query":"up{job=\"foreshock_x\"} == 0"}
            ]}]}"#,
        )
        .unwrap();
        let names: Vec<_> = unmarked(&rules).into_iter().map(|rule| rule.name).collect();
        assert_eq!(names, ["Dialect", "Direct", "Indirect", "WronglyMarked"]);
    }
}
