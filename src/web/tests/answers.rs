//! What the API answers: shapes, filters, pages and problems.

use serde_json::{Value, json};

use super::fixture::{HOSTILE, at, events, scene, snapshot};
use super::{JSON, Server, fetch, post, send, server};
use crate::snapshot::Snapshot;
use crate::web::WebOptions;

async fn fleet(count: usize) -> Server {
    let scene = scene(snapshot(count, 40));
    events(&scene.events);
    server(scene.state, WebOptions::default()).await
}

/// Whether every key of the contract is there, all the way down; `null` asks only for the key.
fn has_shape(value: &Value, shape: &Value, path: &str) {
    match shape {
        Value::Object(keys) => {
            for (key, shape) in keys {
                let inner = value
                    .get(key)
                    .unwrap_or_else(|| panic!("{path}.{key} is missing in {value}"));
                has_shape(inner, shape, &format!("{path}.{key}"));
            }
        }
        Value::Array(shapes) => {
            let first = value
                .get(0)
                .unwrap_or_else(|| panic!("{path} has no element: {value}"));
            has_shape(first, &shapes[0], &format!("{path}[0]"));
        }
        Value::String(kind) => {
            let right = match kind.as_str() {
                "text" => value.is_string(),
                "number" => value.is_number(),
                "flag" => value.is_boolean(),
                "time" => value.as_str().is_some_and(|text| {
                    text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok()
                }),
                _ => panic!("unknown kind {kind}"),
            };
            assert!(right, "{path} is no {kind}: {value}");
        }
        _ => {}
    }
}

#[tokio::test]
async fn every_answer_has_the_shape_of_the_contract() {
    let server = fleet(24).await;
    let node = json!({
        "node": "text", "risk": "number", "model_risk": "number", "model": "text", "rule_score": "number", "band": "text", "phase": "text",
        "since": "time", "reach": "text", "hold": null, "holds": null, "alerts": null,
        "missing": "number",
        "top": [{"feature": "text", "value": "number", "usual": "number", "contribution": "number"}],
    });
    let mut detail = node.clone();
    let more = json!({
        "features": {"cpu_used": "number"},
        "basics": [{"name": "text", "value": "number", "source": "text", "unit": "text"}],
        "inputs": [{"feature": "text", "unit": "text", "source": "text"}],
        "contributions": [{"feature": "text", "contribution": "number", "unit": "text"}],
        "plan": {"possible": "flag"},
        "history": {"events": [{"id": "text"}], "risk": [{"at": "time", "risk": "number"}]},
        "hold": null, "drain": {"remaining": "number", "gone": "number", "started_at": "time"},
        "alerts": [{"name": "text", "floor": "number", "reach": "text", "expires_at": "time"}],
    });
    for (key, shape) in more.as_object().unwrap() {
        detail[key] = shape.clone();
    }
    let plan = json!({
        "at": "time", "node": "text", "possible": "flag", "estimated_seconds": null,
        "impossible": [{"namespace": "text", "name": "text", "reason": "text"}],
        "warnings": [{"namespace": "text", "name": "text", "reason": "text"}],
        "daemon_sets": [{"namespace": "text", "name": "text"}],
        "pods": [{"namespace": "text", "name": "text", "uid": "text", "disposition": "text",
                  "reason": "text", "owner": "text", "pdb": "text", "headroom": "number",
                  "dry_run": null, "dry_run_detail": "text", "dry_run_at": null, "surge": "flag", "surge_detail": null, "fits_on": null, "grace_seconds": "number", "volumes": ["text"]}],
    });
    for (path, shape) in [
        (
            "/api/nodes",
            json!({"at": "time", "nodes": [node], "next": null}),
        ),
        ("/api/nodes/worker-03", detail),
        ("/api/nodes/worker-03/plan", plan),
        (
            "/api/health",
            json!({"status": "text", "version": "text", "leader": "flag", "paused": "flag",
                   "prometheus": {"ok": "flag", "age_seconds": "number"},
                   "kubernetes": {"ok": "flag"}, "model": {"name": "text", "source": "text"}}),
        ),
        (
            "/api/stats",
            json!({"nodes": {"at_risk": "number", "caution": "number", "healthy": "number", "unknown": "number"},
                   "phases": {"healthy": "number", "draining": "number"},
                   "taints": {"taint": {"ok": "number"}},
                   "evictions": {"evicted": "number", "deadline": "number"},
                   "alerts": {"active": "number", "received": {"unknown_node": "number"}},
                   "cycles": {"count": "number", "last_seconds": "number"},
                   "uptime_seconds": "number"}),
        ),
        (
            "/api/events",
            json!({"events": [{"id": "text", "at": "time", "kind": "text", "node": null,
                   "pod": null, "message": "text", "reason": null}], "next": null}),
        ),
        (
            "/api/predictions",
            json!({"predictions": [{"node": "text", "score": "number", "band": "text",
                   "contributions": [{"feature": "text"}]}]}),
        ),
        (
            "/api/ml-insights",
            json!({"features": [{"feature": "text", "importance": "number"}],
                   "training": {"rows": "number"}, "validation": {"pr_auc": "number"},
                   "calibration": [{"predicted": "number", "observed": "number"}],
                   "authority": {"acts": "flag", "refusals": [{"reason": "text", "detail": "text"}],
                                 "judged": {"from": "time", "events": "number"}},
                   "costs": [{"incident_cost": "number", "model": "number",
                              "baselines": {"never_act": {"cost": "number", "low": "number"}}}],
                   "threshold": {"implied": "number", "at_risk": "number"},
                   "drift": {"level": "text", "score": "number", "features": {"disk_busy": "number", "temp_vs_crit": null},
                             "missing": {"temp_vs_crit": "number"}, "out_of_range": {"disk_busy": "number"},
                             "events": {"expected": "number", "observed": "number", "low": "number", "agrees": "flag"}},
                   "history_seconds": "number"}),
        ),
        (
            "/api/alerts",
            json!({"alerts": [{"name": "text", "outcome": "text"}]}),
        ),
        (
            "/api/risk-history",
            json!({"at": ["time"], "nodes": {"worker-03": ["number"]}}),
        ),
        ("/api/openapi.json", json!({"openapi": "text", "paths": {}})),
    ] {
        let reply = fetch(server.address, path).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        assert_eq!(
            reply.header("content-type"),
            Some("application/json"),
            "{path}"
        );
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{path}");
        has_shape(&reply.json(), &shape, path);
    }
}

fn names(reply: &super::Reply) -> Vec<String> {
    let nodes = reply.json()["nodes"].as_array().unwrap().clone();
    let names = nodes
        .iter()
        .map(|node| node["node"].as_str().unwrap().to_owned());
    names.collect()
}

#[tokio::test]
async fn nodes_are_filtered_and_an_unknown_risk_is_null() {
    let server = fleet(24).await;
    for (query, expected) in [
        ("band=unknown", &["worker-12"][..]),
        ("band=caution", &["worker-11"]),
        ("phase=draining", &["worker-03"]),
        ("phase=suspect&band=at_risk", &["worker-07"]),
        ("phase=suspect&band=healthy", &[]),
        ("pool=batch&limit=2", &["worker-04", "worker-08"]),
        ("pool=nobody", &[]),
        ("q=WORKER-1&limit=2", &["worker-10", "worker-11"]),
        ("q=saturation", &["worker-03"]),
        ("q=eu-central-1c&limit=1", &["worker-02"]),
        ("q=%3Cimg", &[]),
        ("band=", &["worker-01"]),
    ] {
        let reply = fetch(server.address, &format!("/api/nodes?{query}")).await;
        let mut found = names(&reply);
        if query == "band=" {
            found.truncate(1);
        }
        assert_eq!(found, expected, "{query}");
    }
    let unknown = fetch(server.address, "/api/nodes?band=unknown").await;
    let node = &unknown.json()["nodes"][0];
    assert_eq!(node["risk"], Value::Null);
    assert_eq!(node["hold"]["reason"], "unknown");
    assert_eq!(
        node["hold"]["lift"],
        foreshock_core::decision::verdict::HoldReason::Unknown.lift()
    );
}

#[tokio::test]
async fn pages_walk_all_nodes_once_also_under_a_filter() {
    let server = fleet(23).await;
    for (filter, total) in [("", 23), ("&pool=batch", 5)] {
        let (mut cursor, mut seen) = (String::new(), Vec::new());
        loop {
            let path = format!("/api/nodes?limit=4{filter}{cursor}");
            let reply = fetch(server.address, &path).await;
            let page = names(&reply);
            assert!(page.len() <= 4);
            seen.extend(page);
            match reply.json()["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        let mut sorted = seen.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(seen, sorted, "{filter}");
        assert_eq!(seen.len(), total, "{filter}");
    }
}

#[tokio::test]
async fn a_wrong_parameter_is_named_with_what_would_be_right() {
    let server = fleet(3).await;
    for (path, parameter, words) in [
        (
            "/api/nodes?band=bad",
            "band",
            "healthy, caution, at_risk, unknown",
        ),
        ("/api/nodes?phase=x", "phase", "recovering"),
        ("/api/nodes?limit=0", "limit", "from 1 to 10000"),
        ("/api/nodes?limit=-1", "limit", "got `-1`"),
        (
            "/api/nodes?limit=99999999999999999999",
            "limit",
            "whole number",
        ),
        ("/api/nodes?bnad=healthy", "bnad", "known are band"),
        (
            "/api/nodes?band=healthy&band=caution",
            "band",
            "more than once",
        ),
        ("/api/nodes/worker-01?plan=maybe", "plan", "true, false"),
        ("/api/events?kind=x", "kind", "untaint"),
        ("/api/events?after=x", "after", "event id"),
        ("/api/events?limit=1001", "limit", "from 1 to 1000"),
        ("/api/events?order=up", "order", "newest"),
        ("/api/health?pretty=1", "pretty", "takes no parameters"),
        ("/api/events/stream?nodes=1", "nodes", "last_event_id"),
    ] {
        let reply = fetch(server.address, path).await;
        assert_eq!(reply.status, 400, "{path}");
        assert_eq!(
            reply.header("content-type"),
            Some("application/problem+json")
        );
        let problem = reply.json();
        assert_eq!(problem["parameter"], parameter, "{path}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.starts_with(parameter) && detail.contains(words),
            "{path}: {detail}"
        );
    }
}

#[tokio::test]
async fn what_is_not_there_is_said_to_be_not_there() {
    let server = fleet(3).await;
    for (path, words) in [
        (
            "/api/nodes/nobody",
            "no Node `nobody`; `GET /api/nodes` lists",
        ),
        ("/api/nodes/nobody/plan", "no Node `nobody`"),
        ("/api/nodes/..%2F..%2Fetc%2Fpasswd", "no Node"),
        ("/api/nothing", "/api/openapi.json"),
        ("/assets/nothing.js", "no file"),
        ("/assets/../Cargo.toml", "no file"),
    ] {
        let reply = fetch(server.address, path).await;
        assert_eq!(reply.status, 404, "{path}");
        let problem = reply.json();
        assert_eq!(problem["status"], 404);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(words), "{path}: {detail}");
    }
    for (method, path, allow) in [
        ("PUT", "/api/nodes", "GET"),
        ("POST", "/api/nodes", "GET"),
        ("GET", "/api/monitoring/stop", "POST"),
        ("GET", "/webhook/alertmanager", "POST"),
        ("DELETE", "/webhook/alertmanager", "POST"),
    ] {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0");
        let reply = send(server.address, &head, b"").await;
        assert_eq!(reply.status, 405, "{method} {path}");
        assert!(
            reply.header("allow").unwrap_or_default().contains(allow),
            "{method} {path}: {}",
            reply.head
        );
        assert!(reply.json()["detail"].as_str().unwrap().contains(method));
    }
}

#[tokio::test]
async fn a_plan_that_cannot_be_made_says_why_and_the_node_is_shown_all_the_same() {
    let server = fleet(12).await;
    let plan = fetch(server.address, "/api/nodes/worker-12/plan").await;
    assert_eq!(plan.status, 503);
    assert!(plan.text().contains("the Pods could not be read: timeout"));
    let node = fetch(server.address, "/api/nodes/worker-12").await.json();
    assert_eq!(node["plan"], Value::Null);
    assert_eq!(node["plan_problem"], "the Pods could not be read: timeout");
    let without = fetch(server.address, "/api/nodes/worker-01?plan=false")
        .await
        .json();
    assert_eq!(
        (&without["plan"], &without["plan_problem"]),
        (&Value::Null, &Value::Null)
    );
}

#[tokio::test]
async fn where_the_pods_of_a_drain_went_is_told_of_the_node() {
    let server = fleet(12).await;
    let moved = fetch(server.address, "/api/nodes/worker-09?plan=false").await;
    let moved = moved.json()["moved"].clone();
    has_shape(
        &moved,
        &json!({"drain": "time", "at": "time", "message": "text", "seconds": "number"}),
        "moved",
    );
    let message = "moved 10 Pods from worker-09 to worker-02 (7), worker-01 (3) in 8.2 s; \
                   1 of 11 not Ready again after 10 min: Deployment shop/cart";
    assert_eq!(moved["message"], message);
    let counts = [
        "moved",
        "not_ready",
        "unneeded",
        "unknown",
        "workloads_left_out",
    ];
    assert_eq!(counts.map(|key| &moved[key]), [10, 1, 0, 0, 0]);
    let to = json!([{"node": "worker-02", "pods": 7}, {"node": "worker-01", "pods": 3}]);
    assert_eq!(moved["to"], to);
    let cart = json!({"namespace": "shop", "kind": "Deployment", "name": "cart",
        "to": [{"node": "worker-01", "pods": 3}, {"node": "worker-02", "pods": 1}],
        "longest_seconds": 5.2, "not_ready": 1, "unneeded": 0, "unknown": 0, "problem": null});
    assert_eq!(moved["workloads"][0], cart);
    let other = fetch(server.address, "/api/nodes/worker-01?plan=false").await;
    assert_eq!(other.json()["moved"], Value::Null);
}

#[tokio::test]
async fn how_a_drain_differed_from_its_plan_is_told_of_the_node() {
    let server = fleet(12).await;
    let node = fetch(server.address, "/api/nodes/worker-09?plan=false").await;
    let differs = node.json()["differs"].clone();
    has_shape(&differs, &json!({"drain": "time", "at": "time"}), "differs");
    let late = "came after the drain had begun";
    assert_eq!(
        differs["message"],
        format!("1 Pod not as planned: shop/late-1 {late}")
    );
    let pods =
        json!([{"namespace": "shop", "name": "late-1", "uid": "uid-late-1", "difference": late}]);
    assert_eq!(
        (&differs["pods"], &differs["pods_left_out"]),
        (&pods, &json!(0))
    );
    let other = fetch(server.address, "/api/nodes/worker-01?plan=false").await;
    assert_eq!(other.json()["differs"], Value::Null);
}

#[tokio::test]
async fn volumes_that_a_drain_left_attached_are_told_of_the_node() {
    let server = fleet(12).await;
    let node = fetch(server.address, "/api/nodes/worker-09?plan=false").await;
    let told = node.json()["volumes"].clone();
    has_shape(&told, &json!({"drain": "time", "at": "time"}), "volumes");
    let message = "1 volume of evicted Pods is still attached to worker-09 14 min after the drain, and \
                   replacements wait for that: shop/data-0 (pv-0); whether 1 volume of evicted Pods left \
                   worker-09 is not known: shop/data-1 (pv-1): no answer";
    assert_eq!(told["message"], message);
    let volumes = json!([
        {"namespace": "shop", "claim": "data-0", "volume": "pv-0", "problem": null},
        {"namespace": "shop", "claim": "data-1", "volume": "pv-1", "problem": "no answer"},
    ]);
    assert_eq!(
        (&told["volumes"], &told["volumes_left_out"]),
        (&volumes, &json!(0))
    );
    let other = fetch(server.address, "/api/nodes/worker-01?plan=false").await;
    assert_eq!(other.json()["volumes"], Value::Null);
}

#[tokio::test]
async fn before_the_first_decision_nothing_is_claimed() {
    let now = at(5);
    let policy = snapshot(0, 5).policy;
    let server = server(
        scene(Snapshot::starting(now, "0.1.0", policy)).state,
        WebOptions::default(),
    )
    .await;
    let ready = fetch(server.address, "/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(
        ready.text().contains("not ready: starting"),
        "{}",
        ready.text()
    );
    assert_eq!(fetch(server.address, "/healthz").await.status, 200);
    let health = fetch(server.address, "/api/health").await.json();
    assert_eq!(health["status"], "degraded");
    assert_eq!(health["prometheus"]["age_seconds"], Value::Null);
    assert_eq!(
        fetch(server.address, "/api/nodes").await.json()["nodes"],
        json!([])
    );
    let missing = fetch(server.address, "/api/nodes/worker-01").await;
    assert!(
        missing.text().contains("has not come yet"),
        "{}",
        missing.text()
    );
    assert_eq!(fetch(server.address, "/api/ml-insights").await.status, 503);
}

#[tokio::test]
async fn a_follower_is_ready_too() {
    let mut snapshot = snapshot(3, 40);
    snapshot.health.leader = false;
    let server = server(scene(snapshot).state, WebOptions::default()).await;
    assert_eq!(fetch(server.address, "/readyz").await.status, 200);
}

#[tokio::test]
async fn hostile_words_come_back_as_data_and_never_as_a_page() {
    let server = fleet(3).await;
    for path in ["/api/alerts", "/api/events"] {
        let reply = fetch(server.address, path).await;
        assert!(reply.text().contains("<img src=x"), "{path} lost the words");
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        let found = reply.json().to_string();
        assert!(found.contains(&serde_json::to_string(HOSTILE).unwrap()[1..20]));
    }
    // What the caller sent is quoted in a problem, and a problem is no page either.
    let reply = fetch(server.address, "/api/nodes?%3Cscript%3E=1").await;
    assert_eq!(
        reply.header("content-type"),
        Some("application/problem+json")
    );
    let policy = reply.header("content-security-policy").unwrap().to_owned();
    assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"));
    assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
}

#[tokio::test]
async fn the_page_brings_everything_along_and_runs_nothing_inline() {
    let server = fleet(1).await;
    let page = fetch(server.address, "/").await;
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let html = page.text();
    for forbidden in [
        "http://",
        "https://",
        "style=",
        "onclick",
        "<script>",
        "javascript:",
    ] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    let mut found = vec!["/assets/app.js".to_owned()];
    let mut at = 0;
    while let Some(path) = found.get(at).cloned() {
        at += 1;
        let reply = fetch(server.address, &path).await;
        assert_eq!(reply.status, 200, "{path}");
        assert!(
            reply
                .header("content-type")
                .unwrap()
                .starts_with("text/javascript"),
            "{path}"
        );
        let source = reply.text();
        for forbidden in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(!source.contains(forbidden), "{path}: {forbidden}");
        }
        for part in source.split("from \"./").skip(1) {
            let name = format!("/assets/{}", part.split('"').next().unwrap());
            if !found.contains(&name) {
                found.push(name);
            }
        }
    }
    assert!(found.len() > 8, "{found:?}");
    for path in ["/assets/style.css", "/assets/favicon.svg"] {
        assert!(html.contains(path));
        assert_eq!(fetch(server.address, path).await.status, 200, "{path}");
    }
    // Rows and marks have words of the API as classes: a rule for one of them alone would hit all of those.
    let style = fetch(server.address, "/assets/style.css").await;
    let style = String::from_utf8_lossy(&style.body).into_owned();
    for word in ["impossible", "evict", "leave", "skip", "missing"] {
        let bare = format!("\n.{word}");
        let hit = style
            .split(&bare)
            .skip(1)
            .any(|rest| !rest.starts_with(['-', '_']));
        assert!(!hit, ".{word} stands alone");
    }
    let tag = page.header("etag").unwrap();
    let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: {tag}");
    let again = send(server.address, &head, b"").await;
    assert_eq!((again.status, again.body.len()), (304, 0));
}

#[tokio::test]
async fn large_answers_are_compressed_for_those_who_take_it() {
    let server = fleet(200).await;
    let plain = fetch(server.address, "/api/nodes").await;
    assert_eq!(plain.header("content-encoding"), None);
    let head = "GET /api/nodes HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip";
    let small = send(server.address, head, b"").await;
    assert_eq!(small.header("content-encoding"), Some("gzip"));
    assert!(small.body.len() * 4 < plain.body.len());
    let head = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip";
    assert_eq!(
        send(server.address, head, b"")
            .await
            .header("content-encoding"),
        None
    );
}

#[tokio::test]
async fn metrics_are_openmetrics_text() {
    let server = fleet(1).await;
    let reply = fetch(server.address, "/metrics").await;
    assert_eq!(reply.text(), "foreshock_paused 0\n# EOF\n");
    let kind = reply.header("content-type").unwrap();
    assert!(
        kind.starts_with("application/openmetrics-text; version=1.0.0"),
        "{kind}"
    );
}

#[tokio::test]
async fn the_webhook_answers_so_that_alertmanager_does_the_right_thing() {
    let scene = scene(snapshot(1, 40));
    let doors = scene.doors.clone();
    let server = server(scene.state, WebOptions::default()).await;
    let path = "/webhook/alertmanager";
    for (body, status, words) in [
        (&b"{}"[..], 202, "\"alerts\":1"),
        (b"nonsense", 400, "not JSON"),
        (b"", 400, "not JSON"),
        (b"full", 503, "queue"),
        (b"panic", 500, "could not be read"),
    ] {
        let reply = post(server.address, path, JSON, body).await;
        assert_eq!(reply.status, status, "{}", String::from_utf8_lossy(body));
        assert!(reply.text().contains(words), "{}", reply.text());
        assert_eq!(reply.header("retry-after").is_some(), status == 503);
    }
    assert_eq!(doors.received.lock().unwrap().len(), 4);
    // After a fault in one request the server still answers.
    assert_eq!(fetch(server.address, "/healthz").await.status, 200);
}

#[tokio::test]
async fn a_description_lists_every_route_and_every_route_is_described() {
    use super::super::guard::Guard;
    use super::super::router::{App, paths};

    let scene = scene(snapshot(1, 40));
    let options = WebOptions::default();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let app = App::new(scene.state, options.bounds, None, shutdown);
    let guard = Guard::new(&options, [127, 0, 0, 1].into());
    let mut routed: Vec<&str> = paths(&app, &guard).iter().map(|(path, _)| *path).collect();
    let document: Value = serde_json::from_str(&crate::web::openapi_document()).unwrap();
    let mut described: Vec<&str> = document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    routed.sort_unstable();
    described.sort_unstable();
    assert_eq!(routed, described);
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let summary = operation["summary"].as_str().unwrap_or_default();
            assert!(!summary.is_empty(), "{method} {path} has no summary");
        }
    }
    // Every reference leads somewhere.
    let text = document.to_string();
    for part in text.split("\"#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(
            document["components"]["schemas"].get(name).is_some(),
            "{name}"
        );
    }
    assert_eq!(
        document["components"]["schemas"]["Phase"]["enum"],
        json!([
            "healthy",
            "suspect",
            "tainted",
            "draining",
            "drained",
            "recovering"
        ])
    );
}

#[tokio::test]
async fn events_are_paged_filtered_and_ordered() {
    let server = fleet(3).await;
    let ids = async |query: &str| -> (Vec<String>, Value) {
        let answer = fetch(server.address, &format!("/api/events?{query}"))
            .await
            .json();
        let events = answer["events"].as_array().unwrap().clone();
        let ids = events.iter().map(|event| {
            let id = event["id"].as_str().unwrap();
            id.rsplit_once('-').unwrap().1.to_owned()
        });
        (ids.collect(), answer["next"].clone())
    };
    let (first, next) = ids("limit=3").await;
    assert_eq!(first, ["1", "2", "3"]);
    let (second, _) = ids(&format!("limit=3&after={}", next.as_str().unwrap())).await;
    assert_eq!(second, ["4", "5", "6"]);
    assert_eq!(ids("order=newest&limit=2").await.0, ["11", "10"]);
    assert_eq!(ids("kind=evict&limit=2").await.0, ["6", "7"]);
    assert_eq!(ids("node=nobody").await.0, Vec::<String>::new());
    assert_eq!(ids("node=worker-03&kind=taint").await.0, ["4"]);
    let (all, next) = ids("").await;
    assert_eq!((all.len(), next), (11, Value::Null));
    let other = fetch(server.address, "/api/events?after=5-3").await.json();
    assert_eq!(other["gap"], true);
}

#[tokio::test]
async fn explain_understands_what_is_answered_about_any_node() {
    let scene = scene(snapshot(24, 40));
    let server = server(scene.state, WebOptions::default()).await;
    let nodes = fetch(server.address, "/api/nodes").await.json();
    let nodes = nodes["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 24);
    for node in nodes {
        let name = node["node"].as_str().unwrap();
        let reply = fetch(server.address, &format!("/api/nodes/{name}")).await;
        let text = crate::cli::explain::table(&reply.body).unwrap();
        assert!(text.starts_with("Name:"), "{text}");
        for hold in node["holds"].as_array().unwrap() {
            assert!(hold["lift"].as_str().is_some_and(|by| !by.is_empty()));
            assert!(text.contains(hold["reason"].as_str().unwrap()), "{text}");
        }
        // Whatever Prometheus and Alertmanager say, the terminal obeys none of it.
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
    }
}

#[test]
fn what_would_lift_a_hold_is_short_and_names_keys_that_there_are() {
    use foreshock_core::decision::verdict::HoldReason;
    let sample = include_str!("../../../config/foreshock.toml");
    for reason in HoldReason::ALL {
        let words = reason.lift();
        assert!(!words.is_empty() && words.len() < 250, "{reason}: {words}");
        let keys = words
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_')
            .filter(|word| word.starts_with("policy.") || word.starts_with("model."));
        for key in keys {
            let last = key.rsplit('.').next().unwrap_or_default();
            let known = sample
                .lines()
                .any(|line| line.trim_start_matches("# ").split(" =").next() == Some(last));
            assert!(known, "{reason}: {key}");
        }
    }
}
