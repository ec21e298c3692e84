//! Alerts, their cases, their runbooks.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use foreshock::alertmanager::AlertRules;
use serde_json::Value;

use super::{files, items, metric_words, promql, root, string, text, yaml};
use crate::support::Version;

pub(super) const RULES: &str = "rules/foreshock.rules.yaml";

pub(super) fn alerts() -> Vec<Value> {
    let rules = yaml(RULES);
    let groups = items(&rules["groups"]).iter();
    let alerts: Vec<Value> = groups
        .flat_map(|group| items(&group["rules"]))
        .cloned()
        .collect();
    assert!(alerts.len() >= 11, "{} alerts", alerts.len());
    alerts
}

#[test]
fn every_alert_is_marked_as_our_own_and_says_what_to_do() {
    let (label, own) = AlertRules::OWN_LABEL;
    for alert in alerts() {
        let name = string(&alert["alert"]);
        let named = name.starts_with("Foreshock") || name.starts_with("Node");
        assert!(named, "{name}");
        assert_eq!(alert["labels"][label], own, "{name}");
        let severity = string(&alert["labels"]["severity"]);
        assert!(["warning", "critical"].contains(&severity), "{name}");
        assert!(alert["for"].is_string(), "{name} has no `for`");
        for annotation in ["summary", "description"] {
            let text = string(&alert["annotations"][annotation]);
            assert!(text.ends_with('.'), "{name}: {annotation} is no sentence");
        }
        // Alertmanager groups by summary: it may not differ from Node to Node.
        let summary = string(&alert["annotations"]["summary"]);
        assert!(!summary.contains("{{"), "{name}: {summary}");
        let runbook = string(&alert["annotations"]["runbook_url"]);
        let expected = format!("https://foreshock.dev/runbooks/{name}");
        assert_eq!(runbook, expected);
    }
}

#[test]
fn every_expression_reads_metrics_that_exist() {
    for alert in alerts() {
        let metrics = promql::check(string(&alert["expr"]));
        assert!(!metrics.is_empty(), "{alert}");
    }
}

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    let names: BTreeSet<String> = alerts()
        .iter()
        .map(|alert| string(&alert["alert"]).to_owned())
        .collect();
    let mut pages = BTreeSet::new();
    for path in files("docs/runbooks") {
        let name = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if name == "README" {
            continue;
        }
        let page = text(&format!("docs/runbooks/{name}.md"));
        for part in ["Meaning", "Impact", "What to look at", "What to do"] {
            assert!(page.contains(&format!("\n## {part}\n")), "{name}: {part}");
        }
        assert!(page.starts_with(&format!("# {name}\n")), "{name}");
        for word in metric_words(&page) {
            let known = promql::metric(word).is_some()
                || promql::metric(&format!("{word}_bucket")).is_some();
            assert!(known, "{name}: nothing exports {word}");
        }
        pages.insert(name);
    }
    assert_eq!(pages, names);
    let index = text("docs/runbooks/README.md");
    for name in names {
        assert!(
            index.contains(&format!("({name}.md)")),
            "{name} is not in the index"
        );
    }
}

#[test]
fn every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_is_silent() {
    let mut cases: BTreeMap<String, (bool, bool)> = BTreeMap::new();
    for path in files("tests/rules") {
        let path = path
            .strip_prefix(root())
            .expect("below the root")
            .to_owned();
        let file = yaml(&path.to_string_lossy());
        assert_eq!(
            items(&file["rule_files"])[0],
            "../../rules/foreshock.rules.yaml"
        );
        for test in items(&file["tests"]) {
            let of: BTreeSet<&str> = items(&test["alert_rule_test"])
                .iter()
                .map(|case| string(&case["alertname"]))
                .collect();
            let fires = items(&test["alert_rule_test"])
                .iter()
                .any(|case| !items(&case["exp_alerts"]).is_empty());
            for alert in of {
                let (firing, silent) = cases.entry(alert.to_owned()).or_default();
                *firing |= fires;
                *silent |= !fires;
            }
        }
    }
    for alert in alerts() {
        let name = string(&alert["alert"]);
        assert_eq!(
            cases.remove(name),
            Some((true, true)),
            "{name}: (fires, silent)"
        );
    }
    assert!(
        cases.is_empty(),
        "cases of alerts that are not there: {cases:?}"
    );
}

#[track_caller]
fn promtool(version: Version, args: &[&str], paths: &[std::path::PathBuf]) {
    let output = Command::new(version.program("promtool"))
        .args(args)
        .args(paths)
        .current_dir(root())
        .output()
        .expect("promtool can be started");
    assert!(
        output.status.success(),
        "promtool {args:?} of {version:?}:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
fn promtool_accepts_the_rules_and_their_cases_pass_in_the_oldest_and_the_newest() {
    for version in [Version::Debian, Version::Current] {
        let rules = root().join(RULES);
        promtool(
            version,
            &["check", "rules", "--lint=all", "--lint-fatal"],
            &[rules],
        );
        promtool(version, &["test", "rules"], &files("tests/rules"));
    }
}
