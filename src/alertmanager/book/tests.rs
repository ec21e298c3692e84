//! Every webhook line of the cases that burned other tools, and the orders deliveries come in.

use serde_json::{Value, json};

use super::*;
use crate::alertmanager::{AlertRule, Matcher};

const NODES: [&str; 3] = ["worker-01", "worker-02", "reborn"];

fn at(minutes: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + minutes * 60).expect("a time")
}

fn rules() -> Arc<AlertRules> {
    let rule = |matcher: &str, floor: f64, expire_minutes: u64| AlertRule {
        matchers: vec![Matcher::parse(matcher).expect("a matcher")],
        floor: Risk::new(floor).expect("a risk"),
        reach: Reach::Evict,
        expire: Duration::from_secs(expire_minutes * 60),
    };
    Arc::new(AlertRules {
        node_labels: ["foreshock_node", "exported_node", "node", "instance"]
            .map(str::to_owned)
            .to_vec(),
        rules: vec![
            rule(r#"alertname="Faults""#, 0.8, 300),
            rule(r#"alertname="Worse""#, 0.9, 60),
        ],
    })
}

fn alert(name: &str, node: &str, status: &str, starts: i64, ends: Option<i64>) -> Value {
    let ends = ends.map_or("0001-01-01T00:00:00Z".into(), |end| at(end).to_string());
    json!({
        "status": status,
        "labels": {"alertname": name, "node": node, "severity": "warning"},
        "annotations": {"summary": "s"},
        "startsAt": at(starts).to_string(),
        "endsAt": ends,
        "fingerprint": format!("{name}{}", node.replace('-', "")),
    })
}

fn firing(starts: i64) -> Value {
    alert("Faults", "worker-01", "firing", starts, None)
}

fn resolved(starts: i64, ends: i64) -> Value {
    alert("Faults", "worker-01", "resolved", starts, Some(ends))
}

fn payload(alerts: Value) -> Payload {
    let body = json!({"version": "4", "alerts": alerts}).to_string();
    Payload::parse(body.as_bytes()).expect("a webhook")
}

fn no_instances() -> BTreeMap<String, NodeName> {
    BTreeMap::new()
}

fn directory(instances: &BTreeMap<String, NodeName>) -> NodeDirectory<'_> {
    NodeDirectory::new(
        NODES.map(|name| {
            let created = if name == "reborn" { at(50) } else { at(-100) };
            (name.into(), created, None)
        }),
        instances,
    )
}

/// Deliveries as (minute, alerts), then what the last one came to and whether worker-01 has evidence
/// afterwards.
fn check(case: &str, deliveries: &[(i64, Value)], last: &[AlertOutcome], acts: bool) {
    let instances = no_instances();
    let nodes = directory(&instances);
    let mut book = AlertBook::new(rules());
    let mut outcomes = Vec::new();
    let mut now = at(0);
    for (minute, alerts) in deliveries {
        now = at(*minute);
        let applied = book.apply(payload(alerts.clone()), now, Some(&nodes));
        outcomes = applied.received.iter().map(|r| r.outcome).collect();
    }
    assert_eq!(outcomes, last, "{case}");
    let active = book.active_by_node(now, &nodes);
    assert_eq!(active.contains_key("worker-01"), acts, "{case}: {active:?}");
    let ended = book.resolved();
    assert!(
        !(acts && ended.contains_key("Faultsworker01")),
        "{case}: both firing and resolved"
    );
}

#[test]
fn deliveries_in_any_order_come_to_the_latest_word() {
    use AlertOutcome::{Acting, Expired, Late, Refreshed, Resolved};
    check("firing", &[(0, json!([firing(0)]))], &[Acting], true);
    check(
        "a replayed body is no second alert",
        &[(0, json!([firing(0)])), (1, json!([firing(0)]))],
        &[Refreshed],
        true,
    );
    check(
        "two replicas send the same group",
        &[
            (0, json!([firing(0)])),
            (0, json!([firing(0)])),
            (5, json!([resolved(0, 5)])),
            (5, json!([resolved(0, 5)])),
        ],
        &[Refreshed],
        false,
    );
    check(
        "resolved",
        &[(0, json!([firing(0)])), (5, json!([resolved(0, 5)]))],
        &[Resolved],
        false,
    );
    check(
        "resolved before firing",
        &[(5, json!([resolved(0, 5)])), (6, json!([firing(0)]))],
        &[Late],
        false,
    );
    check(
        "resolved and firing in one body, in this order",
        &[(5, json!([resolved(0, 5), firing(0)]))],
        &[Resolved, Late],
        false,
    );
    check(
        "a replica that is behind brings nothing back",
        &[
            (0, json!([firing(0)])),
            (5, json!([resolved(0, 5)])),
            (6, json!([firing(0)])),
        ],
        &[Late],
        false,
    );
    check(
        "the same start fires again after the cut between Prometheus and Alertmanager",
        &[
            (0, json!([firing(0)])),
            (5, json!([resolved(0, 5)])),
            (16, json!([firing(0)])),
        ],
        &[Acting],
        true,
    );
    check(
        "a new start fires at once",
        &[(5, json!([resolved(0, 5)])), (6, json!([firing(6)]))],
        &[Acting],
        true,
    );
    check(
        "the end of an earlier firing says nothing about the present one",
        &[
            (0, json!([firing(0)])),
            (7, json!([firing(6)])),
            (8, json!([resolved(0, 5)])),
        ],
        &[Late],
        true,
    );
    check(
        "starts that Alertmanager merged end all the same",
        &[(1, json!([firing(1)])), (9, json!([resolved(0, 8)]))],
        &[Resolved],
        false,
    );
    check(
        "an older end after a newer one",
        &[(9, json!([resolved(6, 8)])), (9, json!([resolved(0, 5)]))],
        &[Late],
        false,
    );
    check(
        "firing with its end in the past",
        &[(
            9,
            json!([alert("Faults", "worker-01", "firing", 0, Some(8))]),
        )],
        &[Expired],
        false,
    );
    check(
        "resolved without an end",
        &[
            (0, json!([firing(0)])),
            (
                5,
                json!([alert("Faults", "worker-01", "resolved", 0, None)]),
            ),
        ],
        &[Resolved],
        false,
    );
}

#[test]
fn an_alert_counts_until_its_rule_lets_it_expire() {
    let instances = no_instances();
    let nodes = directory(&instances);
    let mut book = AlertBook::new(rules());
    book.apply(payload(json!([firing(0)])), at(0), Some(&nodes));
    // "Resolved" never arrives; the last refresh counts.
    book.apply(payload(json!([firing(0)])), at(240), Some(&nodes));
    assert_eq!(book.active_by_node(at(539), &nodes).len(), 1);
    assert_eq!(book.active_by_node(at(540), &nodes).len(), 0);
    assert_eq!(book.shown(at(540), Some(&nodes)), []);
    book.prune(at(540));
    assert!(book.firing.is_empty());
    assert!(book.resolved().is_empty(), "expiry is not an end");
}

#[test]
fn what_cannot_act_is_counted_and_shown_with_the_reason() {
    use AlertOutcome::{
        Acting, AmbiguousNode, NoNodeLabel, OlderThanNode, Own, Shown, UnknownNode,
    };
    let instances = no_instances();
    let nodes = NodeDirectory::new(
        [
            ("worker-01".into(), at(-100), None),
            ("twin-1".into(), at(-100), Some("twin".into())),
            ("twin-2".into(), at(-100), Some("twin".into())),
            ("reborn".into(), at(50), None),
        ],
        &instances,
    );
    let without_node = |name: &str| {
        let mut alert = alert(name, "x", "firing", 0, None);
        alert["labels"] = json!({"alertname": name});
        alert["fingerprint"] = json!(null);
        alert
    };
    let mut own = firing(0);
    own["labels"]["foreshock"] = json!("self");
    own["fingerprint"] = json!("own");
    let cases = [
        (firing(0), Acting, true),
        (alert("Other", "worker-01", "firing", 0, None), Shown, true),
        (without_node("Other"), Shown, true),
        (without_node("Faults"), NoNodeLabel, true),
        (
            alert("Faults", "nobody", "firing", 0, None),
            UnknownNode,
            true,
        ),
        (
            alert("Other", "nobody", "firing", 0, None),
            UnknownNode,
            true,
        ),
        (
            alert("Faults", "twin", "firing", 0, None),
            AmbiguousNode,
            true,
        ),
        (
            alert("Faults", "reborn", "firing", 49, None),
            OlderThanNode,
            true,
        ),
        (own, Own, false),
    ];
    let mut book = AlertBook::new(rules());
    for (alert, expected, shown) in cases {
        let before = book.shown(at(60), Some(&nodes)).len();
        let applied = book.apply(payload(json!([alert.clone()])), at(60), Some(&nodes));
        assert_eq!(applied.received[0].outcome, expected, "{alert}");
        assert_eq!(applied.counts, BTreeMap::from([(expected, 1)]), "{alert}");
        let after = book.shown(at(60), Some(&nodes));
        assert_eq!(after.len() - before, usize::from(shown), "{alert}");
    }
    let active = book.active_by_node(at(60), &nodes);
    let names: Vec<&str> = active.keys().map(NodeName::as_str).collect();
    assert_eq!(names, ["worker-01"]);
    assert_eq!(
        active["worker-01"].len(),
        1,
        "and only by the alert with a rule"
    );
}

#[test]
fn an_alert_that_comes_before_the_nodes_is_not_lost() {
    let mut book = AlertBook::new(rules());
    let mut by_instance = firing(0);
    by_instance["labels"] = json!({"alertname": "Worse", "instance": "10.0.0.2:9100"});
    by_instance["fingerprint"] = json!(null);
    let applied = book.apply(payload(json!([firing(0), by_instance])), at(0), None);
    let expected = BTreeMap::from([(AlertOutcome::NodesNotSynced, 2)]);
    assert_eq!(applied.counts, expected);
    let instances = BTreeMap::from([("10.0.0.2:9100".into(), "worker-02".into())]);
    let active = book.active_by_node(at(1), &directory(&instances));
    assert_eq!(active["worker-01"][0].name, "Faults");
    assert_eq!(active["worker-02"][0].name, "Worse");
}

#[test]
fn the_strongest_alert_of_a_node_comes_first() {
    let instances = no_instances();
    let nodes = directory(&instances);
    let mut book = AlertBook::new(rules());
    let alerts = json!([firing(0), alert("Worse", "worker-01", "firing", 0, None)]);
    let applied = book.apply(payload(alerts), at(0), Some(&nodes));
    assert!(applied.is_news());
    let active = book.active_by_node(at(0), &nodes);
    let found: Vec<_> = active["worker-01"]
        .iter()
        .map(|alert| (alert.name.as_str(), alert.floor.as_f64(), alert.expires_at))
        .collect();
    assert_eq!(found, [("Worse", 0.9, at(60)), ("Faults", 0.8, at(300))]);
}

#[test]
fn an_end_is_remembered_for_as_long_as_a_record_may_hold_the_alert() {
    let mut book = AlertBook::new(rules());
    book.apply(payload(json!([resolved(0, 5)])), at(5), None);
    let expected = BTreeMap::from([("Faultsworker01".to_owned(), at(0))]);
    assert_eq!(book.resolved(), expected);
    book.prune(at(304));
    assert_eq!(book.resolved(), expected);
    book.prune(at(305));
    assert!(book.resolved().is_empty());
}

#[test]
fn a_list_of_active_alerts_overrules_an_older_end_and_ends_nothing() {
    let instances = no_instances();
    let nodes = directory(&instances);
    let mut book = AlertBook::new(rules());
    let mut active = firing(0);
    active["status"] = json!({"state": "active"});
    active["updatedAt"] = json!(at(7).to_string());
    active["endsAt"] = json!(at(11).to_string());
    book.apply(payload(json!([resolved(0, 5)])), at(6), Some(&nodes));
    let list = Payload::parse_active(json!([active]).to_string().as_bytes()).expect("a list");
    let applied = book.apply(list, at(8), Some(&nodes));
    assert_eq!(applied.received[0].outcome, AlertOutcome::Acting);
    book.apply(Payload::default(), at(9), Some(&nodes));
    assert_eq!(
        book.active_by_node(at(9), &nodes).len(),
        1,
        "absent is not over"
    );
}

#[test]
fn truncated_alerts_are_counted_and_nothing_is_taken_for_resolved() {
    let instances = no_instances();
    let nodes = directory(&instances);
    let mut book = AlertBook::new(rules());
    book.apply(payload(json!([firing(0)])), at(0), Some(&nodes));
    let body = br#"{"version":"4","status":"firing","alerts":[7],"truncatedAlerts":3}"#;
    let applied = book.apply(Payload::parse(body).expect("webhook"), at(1), Some(&nodes));
    let expected = [(AlertOutcome::Malformed, 1), (AlertOutcome::Truncated, 3)];
    assert_eq!(applied.counts, BTreeMap::from(expected));
    assert!(!applied.is_news());
    assert_eq!(book.active_by_node(at(1), &nodes).len(), 1);
}

#[test]
fn a_group_of_500_alerts_is_taken_whole() {
    let instances = no_instances();
    let names: Vec<String> = (0..500).map(|n| format!("node-{n:03}")).collect();
    let nodes = NodeDirectory::new(
        names
            .iter()
            .map(|name| (name.as_str().into(), at(-1), None)),
        &instances,
    );
    let alerts: Vec<Value> = names
        .iter()
        .map(|name| alert("Faults", name, "firing", 0, None))
        .collect();
    let mut book = AlertBook::new(rules());
    let applied = book.apply(payload(json!(alerts)), at(0), Some(&nodes));
    assert_eq!(
        applied.counts,
        BTreeMap::from([(AlertOutcome::Acting, 500)])
    );
    assert_eq!(book.active_by_node(at(0), &nodes).len(), 500);
}

#[test]
fn a_flood_is_bounded_and_known_alerts_stay_refreshed() {
    let many = |from: usize, n: usize, status| Payload {
        alerts: (from..from + n)
            .map(|n| Alert {
                fingerprint: format!("{n:016x}"),
                status,
                labels: BTreeMap::new(),
                summary: String::new(),
                starts_at: at(0),
                ends_at: None,
                updated_at: None,
            })
            .collect(),
        ..Payload::default()
    };
    let max = AlertBook::ALERTS_MAX;
    let mut book = AlertBook::new(rules());
    book.apply(many(0, max, AlertStatus::Firing), at(0), None);
    assert!(book.is_full());
    let applied = book.apply(many(max - 1, 3, AlertStatus::Firing), at(1), None);
    let expected = [(AlertOutcome::Refreshed, 1), (AlertOutcome::Overflow, 2)];
    assert_eq!(applied.counts, BTreeMap::from(expected));
    // Ends are taken always; the oldest of them give way.
    book.apply(many(0, max, AlertStatus::Resolved), at(2), None);
    assert!(!book.is_full());
    book.apply(many(max, 2, AlertStatus::Resolved), at(3), None);
    assert!(book.ended.len() <= max);
    assert!(book.ended.contains_key(&format!("{:016x}", max + 1)));
}
