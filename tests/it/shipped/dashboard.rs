//! The dashboard, held against the metrics and against the habits of well-kept dashboards.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{items, promql, string, text};

fn dashboards() -> Vec<(String, Value)> {
    super::files("grafana")
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .map(|path| {
            let name = path
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            let json = text(&format!("grafana/{name}.json"));
            (name, serde_json::from_str(&json).expect("JSON"))
        })
        .collect()
}

/// Title and PromQL of every query of every panel, with the dashboard's variables still in it.
pub(crate) fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for (_, dashboard) in dashboards() {
        for panel in items(&dashboard["panels"]) {
            for target in items(&panel["targets"]) {
                let title = string(&panel["title"]).to_owned();
                queries.push((title, string(&target["expr"]).to_owned()));
            }
        }
    }
    queries
}

#[test]
fn a_dashboard_can_be_imported_anywhere() {
    assert!(!dashboards().is_empty());
    for (name, dashboard) in dashboards() {
        assert_eq!(string(&dashboard["uid"]), name);
        assert_eq!(dashboard["id"], Value::Null);
        assert_eq!(dashboard["schemaVersion"], 42);
        assert_eq!(dashboard["editable"], false);
        let variables = items(&dashboard["templating"]["list"]);
        let names: Vec<&str> = variables.iter().map(|v| string(&v["name"])).collect();
        assert_eq!(names, ["datasource", "cluster", "job", "instance", "node"]);
        assert_eq!(variables[0]["type"], "datasource");
        for variable in &variables[1..] {
            assert_eq!(variable["datasource"]["uid"], "${datasource}");
            assert_eq!(variable["refresh"], 2, "follows the time range");
            assert_eq!(variable["includeAll"], true);
            let query = string(&variable["query"]["query"]);
            let inner = query
                .strip_prefix("label_values(")
                .and_then(|query| query.strip_suffix(')'));
            let (selector, label) = inner.and_then(|q| q.rsplit_once(", ")).expect(query);
            assert_eq!(label, string(&variable["name"]));
            let metric = selector.split('{').next().expect("a name");
            let metric = promql::metric(metric).unwrap_or_else(|| panic!("{query}: no {metric}"));
            let target = ["cluster", "job", "instance"].contains(&label);
            assert!(target || metric.labels.contains(&label), "{query}");
        }
    }
}

#[test]
fn every_panel_says_what_it_shows_and_reads_metrics_that_exist() {
    for (name, dashboard) in dashboards() {
        let mut ids = BTreeSet::new();
        let mut titles = BTreeSet::new();
        for panel in items(&dashboard["panels"]) {
            let title = string(&panel["title"]);
            assert!(ids.insert(panel["id"].as_u64()), "{name}: {title}: id");
            assert!(titles.insert(title), "{name}: {title}: twice");
            assert!(
                string(&panel["description"]).ends_with('.'),
                "{name}: {title}"
            );
            assert_eq!(
                panel["datasource"]["uid"], "${datasource}",
                "{name}: {title}"
            );
            let unit = string(&panel["fieldConfig"]["defaults"]["unit"]);
            assert!(!unit.is_empty(), "{name}: {title}");
            let targets = items(&panel["targets"]);
            assert!(!targets.is_empty(), "{name}: {title}");
            for target in targets {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
                let expr = string(&target["expr"]);
                assert!(!promql::check(expr).is_empty(), "{title}: {expr}");
                assert!(!expr.contains("vector("), "{title}: {expr}");
                let fixed_window =
                    expr.matches('[').count() - expr.matches("[$__rate_interval]").count();
                assert_eq!(fixed_window, 0, "{title}: {expr}");
                for variable in ["cluster", "job", "instance"] {
                    let matcher = format!("{variable}=~\"${variable}\"");
                    let selectors =
                        expr.matches("foreshock_").count() + expr.matches("process_").count();
                    assert_eq!(expr.matches(&matcher).count(), selectors, "{title}: {expr}");
                }
                if expr.contains("foreshock_node_") {
                    assert!(expr.contains("node=~\"$node\""), "{title}: {expr}");
                }
                legend_is_there(title, expr, target["legendFormat"].as_str());
            }
        }
        assert!(titles.len() >= 10, "{name}: {titles:?}");
    }
}

/// Every `{{label}}` of a legend is one that the query keeps.
fn legend_is_there(title: &str, expr: &str, legend: Option<&str>) {
    for part in legend.unwrap_or_default().split("{{").skip(1) {
        let label = part.split("}}").next().expect("an end");
        let kept = expr.split(" by (").skip(1).any(|after| {
            let list = after.split(')').next().expect("an end");
            list.split(", ").any(|kept| kept == label)
        });
        assert!(kept, "{title}: {{{{{label}}}}} is not kept by {expr}");
    }
}

#[test]
fn panels_do_not_overlap() {
    for (name, dashboard) in dashboards() {
        let mut taken: BTreeSet<(u64, u64)> = BTreeSet::new();
        for panel in items(&dashboard["panels"]) {
            let grid = |key: &str| panel["gridPos"][key].as_u64().expect("a number");
            assert!(grid("x") + grid("w") <= 24, "{name}: {}", panel["title"]);
            for x in grid("x")..grid("x") + grid("w") {
                for y in grid("y")..grid("y") + grid("h") {
                    assert!(taken.insert((x, y)), "{name}: {}", panel["title"]);
                }
            }
        }
    }
}
