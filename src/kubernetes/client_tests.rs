use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use foreshock_core::decision::plan::Cause;
use foreshock_core::node::Uid;
use foreshock_core::record::{Marks, NodeRecord, RecordedPhase, Taint, TaintEffect};
use jiff::Timestamp;
use serde_json::json;
use wiremock::matchers::{method, path, query_param};
use wiremock::{Mock, MockServer, Request as Asked, ResponseTemplate};

use super::*;
use crate::clock::SystemClock;

const NODE: &str = "/api/v1/nodes/a";
const POD: &str = "/api/v1/namespaces/shop/pods/web-1";
const EVICTION: &str = "/api/v1/namespaces/shop/pods/web-1/eviction";

fn options() -> KubeOptions {
    KubeOptions {
        instance: "foreshock".to_owned(),
        namespace: "monitoring".to_owned(),
        taints: vec![taint()],
        ..KubeOptions::default()
    }
}

/// A client of a scripted API server. Lists and watches that the test does not script fail.
async fn cluster(server: &MockServer) -> Arc<KubeCluster> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = Config::new(server.uri().parse().expect("a URL"));
    KubeCluster::with_config(config, options(), Arc::new(SystemClock)).expect("a client")
}

fn taint() -> Taint {
    Taint {
        key: "degradation".to_owned(),
        value: "true".to_owned(),
        effect: TaintEffect::NoSchedule,
    }
}

fn pod_id() -> PodId {
    PodId {
        namespace: "shop".to_owned(),
        name: "web-1".to_owned(),
        uid: Uid::from("u1"),
    }
}

fn pod(name: &str, uid: &str, terminating: bool) -> Value {
    let mut pod = json!({
        "metadata": {"namespace": "shop", "name": name, "uid": uid, "labels": {"app": "web"}},
        "spec": {"nodeName": "a", "containers": []},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    });
    if terminating {
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    pod
}

fn status(code: u16, message: &str, details: Value) -> ResponseTemplate {
    ResponseTemplate::new(code).set_body_json(json!({
        "kind": "Status", "status": "Failure", "code": code, "message": message, "details": details,
        "reason": if code == 404 { "NotFound" } else { "" },
    }))
}

fn budget_refusal() -> ResponseTemplate {
    let cause = json!({"causes": [{"reason": "DisruptionBudget", "message": "The disruption budget web needs 2 healthy pods and has 2 currently"}]});
    status(
        429,
        "Cannot evict pod as it would violate the pod's disruption budget.",
        cause,
    )
}

async fn mount(server: &MockServer, verb: &str, at: &str, answer: ResponseTemplate) {
    Mock::given(method(verb))
        .and(path(at))
        .respond_with(answer)
        .mount(server)
        .await;
}

async fn asked(server: &MockServer, verb: &str, at: &str) -> Vec<Asked> {
    let requests = server.received_requests().await.expect("recorded");
    requests
        .into_iter()
        .filter(|request| request.method.as_str() == verb && request.url.path() == at)
        .collect()
}

/// What `evict` makes of the server's answer and of what a fresh read of the Pod then shows.
async fn evicted(answer: ResponseTemplate, read: ResponseTemplate) -> Answer {
    let server = MockServer::start().await;
    mount(&server, "POST", EVICTION, answer).await;
    mount(&server, "GET", POD, read).await;
    let answer = cluster(&server).await.evict(&pod_id(), None).await;
    assert_eq!(
        asked(&server, "POST", EVICTION).await.len(),
        1,
        "one request is one request"
    );
    answer
}

#[tokio::test]
async fn after_a_409_or_429_the_pod_is_read_again() {
    let gone = || status(404, "not found", json!({"name": "web-1", "kind": "pods"}));
    let there = |uid: &str, terminating: bool| {
        ResponseTemplate::new(200).set_body_json(pod("web-1", uid, terminating))
    };
    let mismatch = || {
        status(
            409,
            "the UID in the precondition (u1) does not match the UID in record (u2)",
            json!({}),
        )
    };

    assert_eq!(evicted(mismatch(), there("u2", false)).await, Answer::Gone);
    assert_eq!(evicted(mismatch(), gone()).await, Answer::Gone);
    assert_eq!(
        evicted(mismatch(), there("u1", true)).await,
        Answer::Accepted
    );
    assert!(matches!(
        evicted(mismatch(), there("u1", false)).await,
        Answer::Failed { .. }
    ));

    assert_eq!(
        evicted(budget_refusal(), there("u2", false)).await,
        Answer::Gone
    );
    assert_eq!(
        evicted(budget_refusal(), there("u1", true)).await,
        Answer::Accepted
    );
    let blocked = evicted(budget_refusal(), there("u1", false)).await;
    assert!(
        matches!(&blocked, Answer::BlockedByBudget { detail, retry_after: None } if detail.contains("budget web needs 2")),
        "{blocked:?}"
    );
    // The read fails as well: then the first answer stands.
    assert!(matches!(
        evicted(budget_refusal(), status(500, "x", json!({}))).await,
        Answer::BlockedByBudget { .. }
    ));
}

#[tokio::test]
async fn a_busy_server_is_not_a_budget_and_is_not_asked_twice() {
    let busy = status(429, "too many requests", json!({"retryAfterSeconds": 1}))
        .insert_header("retry-after", "3");
    let answer = evicted(busy, ResponseTemplate::new(500)).await;
    assert_eq!(
        answer,
        Answer::Throttled {
            retry_after: Some(Duration::from_secs(3))
        }
    );
}

#[tokio::test]
async fn a_dry_run_is_marked_as_one_in_the_query_and_in_the_body() {
    let server = MockServer::start().await;
    let success = json!({"kind": "Status", "status": "Success"});
    let answer = ResponseTemplate::new(201).set_body_json(success);
    mount(&server, "POST", EVICTION, answer).await;
    let cluster = cluster(&server).await;
    let cap = Some(Duration::from_secs(7));
    assert_eq!(cluster.try_eviction(&pod_id(), cap).await, DryRun::Allowed);
    let requests = asked(&server, "POST", EVICTION).await;
    assert_eq!(requests.len(), 1);
    let query: Vec<_> = requests[0].url.query_pairs().collect();
    assert!(
        query.contains(&("dryRun".into(), "All".into())),
        "{query:?}"
    );
    let body: Value = requests[0].body_json().expect("JSON");
    assert_eq!(
        body["deleteOptions"],
        json!({"dryRun": ["All"], "gracePeriodSeconds": 7, "preconditions": {"uid": "u1"}}),
    );
}

#[tokio::test]
async fn a_dry_run_tells_a_refusal_from_an_answer_that_says_nothing() {
    let tried = async |answer: ResponseTemplate| {
        let server = MockServer::start().await;
        mount(&server, "POST", EVICTION, answer).await;
        let said = cluster(&server).await.try_eviction(&pod_id(), None).await;
        // Nothing can have been evicted, so there is nothing to read.
        assert!(asked(&server, "GET", POD).await.is_empty());
        format!("{said:?}")
    };
    for (answer, expected) in [
        (budget_refusal(), "Refused(\"Cannot evict pod as it would"),
        (
            status(
                500,
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                json!({}),
            ),
            "Refused(\"This pod has more than one",
        ),
        (
            status(
                400,
                "admission webhook \"w\" does not support dry run",
                json!({}),
            ),
            "NoAnswer(\"admission webhook",
        ),
        (
            status(409, "the UID in the precondition does not match", json!({})),
            "NoAnswer(\"the UID in",
        ),
        (
            status(404, "gone", json!({"name": "web-1", "kind": "pods"})),
            "NoAnswer(\"it is gone meanwhile",
        ),
        (
            status(429, "too many requests", json!({"retryAfterSeconds": 3})),
            "Busy(Some(3s))",
        ),
        (status(500, "etcd", json!({})), "NoAnswer(\"etcd"),
    ] {
        let said = tried(answer).await;
        assert!(said.starts_with(expected), "{said} for {expected}");
    }
}

#[tokio::test]
async fn no_dry_run_leaves_while_nothing_may_be_written() {
    let server = MockServer::start().await;
    let cluster = cluster(&server).await;
    cluster.set_guard(Arc::new(|| Err("paused".to_owned())));
    let said = format!("{:?}", cluster.try_eviction(&pod_id(), None).await);
    assert!(
        said.starts_with("NotAsked(") && said.contains("paused"),
        "{said}"
    );
    assert!(asked(&server, "POST", EVICTION).await.is_empty());
}

const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/shop/deployments/web";
const SCALE: &str = "/apis/apps/v1/namespaces/shop/deployments/web/scale";

fn deployment() -> Owner {
    Owner {
        group: "apps".to_owned(),
        kind: "Deployment".to_owned(),
        name: "web".to_owned(),
        uid: Uid::from("w"),
    }
}

#[tokio::test]
async fn a_scaling_names_uid_and_version_and_nothing_but_the_replicas() {
    let scaled = async |answer: ResponseTemplate| {
        let server = MockServer::start().await;
        mount(&server, "PATCH", SCALE, answer).await;
        let cluster = cluster(&server).await;
        let result = cluster.scale("shop", &deployment(), "77", 2).await;
        let requests = asked(&server, "PATCH", SCALE).await;
        assert_eq!(requests.len(), 1, "one request is one request");
        let body: Value = requests[0].body_json().expect("JSON");
        assert_eq!(
            body,
            json!({"metadata": {"uid": "w", "resourceVersion": "77"}, "spec": {"replicas": 2}})
        );
        assert_eq!(
            requests[0].headers["content-type"],
            "application/merge-patch+json"
        );
        assert!(
            requests[0]
                .url
                .query_pairs()
                .any(|(key, by)| key == "fieldManager" && by == "foreshock")
        );
        result
    };
    let fine = ResponseTemplate::new(200).set_body_json(json!({"kind": "Scale"}));
    assert_eq!(scaled(fine).await, Ok(()));
    for (code, superseded) in [
        (404, true),
        (409, true),
        (403, false),
        (500, false),
        (429, false),
    ] {
        let error = scaled(status(code, "no", json!({})))
            .await
            .expect_err("refused");
        let is_superseded = matches!(error, ClusterError::Superseded { .. });
        assert_eq!(is_superseded, superseded, "{code}: {error}");
        let names_the_remedy = error.to_string().contains("components/surge");
        assert_eq!(names_the_remedy, code == 403, "{code}: {error}");
    }
}

#[tokio::test]
async fn a_scaling_is_held_back_at_the_very_last_moment() {
    let server = MockServer::start().await;
    let cluster = cluster(&server).await;
    cluster.set_guard(Arc::new(|| Err("paused".to_owned())));
    let error = cluster.scale("shop", &deployment(), "77", 2).await;
    let error = error.expect_err("held back").to_string();
    assert!(
        error.contains("held back before it was sent: paused"),
        "{error}"
    );
    assert!(asked(&server, "PATCH", SCALE).await.is_empty());
}

#[tokio::test]
async fn nothing_is_scaled_without_its_version() {
    let server = MockServer::start().await;
    let found = json!({
        "metadata": {"name": "web", "uid": "w"},
        "spec": {"replicas": 1, "selector": {}, "template": {}},
    });
    let answer = ResponseTemplate::new(200).set_body_json(found);
    mount(&server, "GET", DEPLOYMENT, answer).await;
    let cluster = cluster(&server).await;
    let read = cluster.deployment("shop", &deployment()).await;
    let version = read.expect("read").expect("there").version;
    let error = cluster.scale("shop", &deployment(), &version, 2).await;
    let error = error.expect_err("refused").to_string();
    assert!(
        error.contains("without knowing its resourceVersion"),
        "{error}"
    );
    assert!(asked(&server, "PATCH", SCALE).await.is_empty());
}

#[tokio::test]
async fn a_deployment_of_another_uid_is_gone_and_its_autoscaler_is_found_by_name() {
    let read = async |uid: &str| {
        let server = MockServer::start().await;
        let found = json!({
            "metadata": {"name": "web", "uid": uid, "resourceVersion": "77"},
            "spec": {"replicas": 2, "selector": {}, "template": {}},
        });
        let answer = ResponseTemplate::new(200).set_body_json(found);
        mount(&server, "GET", DEPLOYMENT, answer).await;
        cluster(&server)
            .await
            .deployment("shop", &deployment())
            .await
    };
    assert_eq!(read("other").await, Ok(None));
    assert_eq!(
        read("w")
            .await
            .map(|found| found.map(|found| found.replicas)),
        Ok(Some(2))
    );
    let server = MockServer::start().await;
    let autoscalers = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers";
    let of = |name: &str, target: &str| {
        json!({
            "metadata": {"name": name},
            "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}},
        })
    };
    let list = json!({
        "kind": "HorizontalPodAutoscalerList", "apiVersion": "autoscaling/v2", "metadata": {},
        "items": [of("a", "other"), of("b", "web")],
    });
    let answer = ResponseTemplate::new(200).set_body_json(list);
    mount(&server, "GET", autoscalers, answer).await;
    let found = cluster(&server)
        .await
        .autoscaler("shop", &deployment())
        .await;
    assert_eq!(found, Ok(Some("b".to_owned())));
}

#[tokio::test]
async fn an_eviction_names_the_uid_and_a_grace_period_only_where_told() {
    let server = MockServer::start().await;
    mount(
        &server,
        "POST",
        EVICTION,
        ResponseTemplate::new(201).set_body_json(json!({"kind": "Status", "status": "Success"})),
    )
    .await;
    let cluster = cluster(&server).await;
    assert_eq!(cluster.evict(&pod_id(), None).await, Answer::Accepted);
    assert_eq!(
        cluster.evict(&pod_id(), Some(Duration::from_secs(7))).await,
        Answer::Accepted
    );
    assert_eq!(
        cluster.evict(&pod_id(), Some(Duration::ZERO)).await,
        Answer::Accepted
    );
    let bodies: Vec<Value> = asked(&server, "POST", EVICTION)
        .await
        .iter()
        .map(|request| request.body_json().expect("JSON"))
        .collect();
    assert_eq!(
        bodies[0],
        json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": "web-1", "namespace": "shop"},
            "deleteOptions": {"preconditions": {"uid": "u1"}},
        })
    );
    assert_eq!(bodies[1]["deleteOptions"]["gracePeriodSeconds"], 7);
    assert_eq!(
        bodies[2]["deleteOptions"]["gracePeriodSeconds"], 1,
        "0 would be a kill"
    );
}

#[tokio::test]
async fn a_connection_that_breaks_is_a_lost_answer() {
    // Takes the request and closes.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accepts");
            let mut bytes = [0; 100];
            let _ = stream.readable().await;
            let _ = stream.try_read(&mut bytes);
        }
    });
    let config = Config::new(url.parse().expect("a URL"));
    let cluster =
        KubeCluster::with_config(config, options(), Arc::new(SystemClock)).expect("a client");
    let answer = cluster.evict(&pod_id(), None).await;
    assert!(matches!(answer, Answer::Lost { .. }), "{answer:?}");
    server.abort();
    cluster.close().await;
}

#[tokio::test]
async fn a_closed_guard_stops_every_write_but_the_lease() {
    let server = MockServer::start().await;
    mount(
        &server,
        "GET",
        NODE,
        ResponseTemplate::new(200).set_body_json(node_document("7")),
    )
    .await;
    let lease = "/apis/coordination.k8s.io/v1/namespaces/monitoring/leases";
    mount(
        &server,
        "POST",
        lease,
        ResponseTemplate::new(201)
            .set_body_json(json!({"metadata": {"name": "foreshock", "resourceVersion": "1"}})),
    )
    .await;
    let cluster = cluster(&server).await;
    cluster.set_guard(Arc::new(|| Err("paused".to_owned())));
    let marked = cluster.mark(&taint_order()).await.expect_err("held back");
    assert!(
        marked
            .to_string()
            .contains("held back before it was sent: paused"),
        "{marked}"
    );
    assert!(
        matches!(cluster.evict(&pod_id(), None).await, Answer::Lost { detail } if detail.contains("paused"))
    );
    let event = ClusterEvent {
        node: Some(NodeId::new("a", "u1")),
        pod: None,
        reason: "DegradationTainted",
        warning: true,
        note: String::new(),
    };
    cluster.publish(&event).await.expect_err("held back");
    cluster
        .write_lease(&lease_write())
        .await
        .expect("the Lease is always written");
    let requests = server.received_requests().await.expect("recorded");
    let writes: Vec<_> = requests
        .iter()
        .filter(|request| request.method.as_str() != "GET")
        .map(|request| request.url.path())
        .collect();
    assert_eq!(writes, [lease]);
}

fn lease_write() -> LeaseWrite {
    LeaseWrite {
        expects: None,
        holder: Some("me".to_owned()),
        address: None,
        duration: Duration::from_secs(15),
        renewed_at: Timestamp::UNIX_EPOCH,
        transitions: 0,
        paused: false,
        record: None,
    }
}

fn node_document(version: &str) -> Value {
    json!({
        "metadata": {"name": "a", "uid": "u1", "resourceVersion": version},
        "spec": {"taints": [{"key": "theirs", "effect": "NoSchedule"}]},
    })
}

fn taint_order() -> MarkOrder {
    let mut record = NodeRecord::clear("foreshock", &Uid::from("u1"), Timestamp::UNIX_EPOCH);
    record.phase = RecordedPhase::Tainted;
    record.marks = Marks {
        taint: Some(taint()),
        ..Marks::default()
    };
    MarkOrder {
        node: NodeId::new("a", "u1"),
        cause: Cause::Taint,
        note: String::new(),
        expects: None,
        record: Some(Box::new(record)),
    }
}

#[tokio::test]
async fn a_mark_that_meets_a_change_is_worked_out_anew_and_shows_at_once() {
    let server = MockServer::start().await;
    // The first read is overtaken by a heartbeat, the second is not.
    let reads = AtomicU32::new(7);
    Mock::given(method("GET"))
        .and(path(NODE))
        .respond_with(move |_: &Asked| {
            ResponseTemplate::new(200).set_body_json(node_document(
                &reads.fetch_add(1, Ordering::Relaxed).to_string(),
            ))
        })
        .mount(&server)
        .await;
    Mock::given(method("PATCH"))
        .and(path(NODE))
        .respond_with(|request: &Asked| {
            let patch: Value = request.body_json().expect("JSON");
            if patch["metadata"]["resourceVersion"] == "7" {
                return status(409, "the object has been modified", json!({}));
            }
            let mut after = node_document("20");
            after["spec"]["taints"] = patch["spec"]["taints"].clone();
            after["metadata"]["annotations"] = patch["metadata"]["annotations"].clone();
            ResponseTemplate::new(200).set_body_json(after)
        })
        .mount(&server)
        .await;
    let cluster = cluster(&server).await;
    let entry = cluster.mark(&taint_order()).await.expect("marked");
    assert_eq!(entry.facts.taints.len(), 2);
    assert!(entry.facts.record.ours().is_some());
    assert_eq!(cluster.nodes().borrow().nodes["a"].facts.taints.len(), 2);
    let patches = asked(&server, "PATCH", NODE).await;
    assert_eq!(patches.len(), 2);
    assert_eq!(
        patches[0].headers["content-type"],
        "application/merge-patch+json"
    );
}

#[tokio::test]
async fn a_mark_gives_up_after_three_conflicts_and_never_writes_what_was_not_expected() {
    let server = MockServer::start().await;
    mount(
        &server,
        "GET",
        NODE,
        ResponseTemplate::new(200).set_body_json(node_document("7")),
    )
    .await;
    mount(
        &server,
        "PATCH",
        NODE,
        status(409, "the object has been modified", json!({})),
    )
    .await;
    let cluster = cluster(&server).await;
    let error = cluster.mark(&taint_order()).await.expect_err("conflicts");
    assert!(matches!(error, ClusterError::Superseded { .. }), "{error}");
    assert_eq!(asked(&server, "PATCH", NODE).await.len(), 3);
    let mut other = taint_order();
    other.node = NodeId::new("a", "u9");
    let error = cluster.mark(&other).await.expect_err("another Node");
    assert!(
        error.to_string().contains("another Node of this name"),
        "{error}"
    );
    assert_eq!(asked(&server, "PATCH", NODE).await.len(), 3);
}

#[tokio::test]
async fn refusals_of_a_mark_are_told_apart() {
    let check = |code: u16, expected: &'static str| async move {
        let server = MockServer::start().await;
        mount(
            &server,
            "GET",
            NODE,
            ResponseTemplate::new(200).set_body_json(node_document("7")),
        )
        .await;
        mount(
            &server,
            "PATCH",
            NODE,
            status(code, "in the server's words", json!({})),
        )
        .await;
        let error = cluster(&server)
            .await
            .mark(&taint_order())
            .await
            .expect_err("refused");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(
            error.to_string().contains("in the server's words"),
            "{error}"
        );
    };
    check(403, "apply the roles in deploy/kustomize/base").await;
    check(500, "mark Node a failed").await;
    check(422, "mark Node a failed").await;
    let server = MockServer::start().await;
    mount(&server, "GET", NODE, status(404, "not found", json!({}))).await;
    let error = cluster(&server)
        .await
        .mark(&taint_order())
        .await
        .expect_err("gone");
    assert!(matches!(error, ClusterError::Superseded { .. }), "{error}");
}

#[tokio::test]
async fn pods_are_listed_in_pages_and_an_expired_token_begins_again() {
    let server = MockServer::start().await;
    let firsts = AtomicU32::new(0);
    Mock::given(method("GET")).and(path("/api/v1/pods")).and(query_param("fieldSelector", "spec.nodeName=a"))
        .respond_with(move |request: &Asked| {
            let token = request.url.query_pairs().find(|(key, _)| key == "continue").map(|(_, token)| token.into_owned());
            let limit = request.url.query_pairs().any(|(key, value)| key == "limit" && value == "50");
            assert!(limit, "{}", request.url);
            let (items, next) = match token.as_deref() {
                None => (vec![pod("web-1", "u1", false)], format!("t{}", firsts.fetch_add(1, Ordering::Relaxed))),
                Some("t0") => return status(410, "The provided continue parameter is too old", json!({})),
                Some(_) => (vec![pod("web-2", "u2", false)], String::new()),
            };
            ResponseTemplate::new(200).set_body_json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "9", "continue": next}, "items": items}))
        })
        .mount(&server).await;
    mount(&server, "GET", "/apis/policy/v1/namespaces/shop/poddisruptionbudgets", ResponseTemplate::new(200).set_body_json(json!({
        "kind": "PodDisruptionBudgetList", "apiVersion": "policy/v1", "metadata": {"resourceVersion": "9"},
        "items": [{"metadata": {"namespace": "shop", "name": "web"}, "spec": {"selector": {"matchLabels": {"app": "web"}}},
                   "status": {"disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2}}],
    }))).await;
    let cluster = cluster(&server).await;
    let pods = cluster.pods(&NodeId::new("a", "n")).await.expect("listed");
    let names: Vec<&str> = pods.iter().map(|pod| pod.id.name.as_str()).collect();
    assert_eq!(names, ["web-1", "web-2"]);
    assert!(
        pods.iter()
            .all(|pod| pod.budgets.len() == 1 && pod.budgets[0].name == "web")
    );
}

#[tokio::test]
async fn watched_pods_change_with_their_pods_and_with_their_budgets() {
    let server = MockServer::start().await;
    let list = |kind: &str, group: &str, items: Value| json!({"kind": kind, "apiVersion": group, "metadata": {"resourceVersion": "9"}, "items": items});
    let budget = |allowed: i32| {
        json!({"metadata": {"namespace": "shop", "name": "web", "resourceVersion": "10"}, "spec": {"selector": {}},
        "status": {"disruptionsAllowed": allowed, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2}})
    };
    let line = |kind: &str, object: Value| format!("{}\n", json!({"type": kind, "object": object}));
    let mut deleted = pod("web-1", "u1", true);
    deleted["apiVersion"] = json!("v1");
    deleted["kind"] = json!("Pod");
    Mock::given(method("GET"))
        .and(path("/api/v1/pods"))
        .and(query_param("watch", "true"))
        .respond_with(
            ResponseTemplate::new(200)
                .set_body_string(line("DELETED", deleted))
                .set_delay(Duration::from_millis(600)),
        )
        .mount(&server)
        .await;
    mount(
        &server,
        "GET",
        "/api/v1/pods",
        ResponseTemplate::new(200).set_body_json(list(
            "PodList",
            "v1",
            json!([pod("web-1", "u1", false)]),
        )),
    )
    .await;
    let mut changed = budget(1);
    changed["apiVersion"] = json!("policy/v1");
    changed["kind"] = json!("PodDisruptionBudget");
    Mock::given(method("GET"))
        .and(path("/apis/policy/v1/poddisruptionbudgets"))
        .and(query_param("watch", "true"))
        .respond_with(
            ResponseTemplate::new(200)
                .set_body_string(line("MODIFIED", changed))
                .set_delay(Duration::from_millis(200)),
        )
        .mount(&server)
        .await;
    mount(
        &server,
        "GET",
        "/apis/policy/v1/poddisruptionbudgets",
        ResponseTemplate::new(200).set_body_json(list(
            "PodDisruptionBudgetList",
            "policy/v1",
            json!([budget(0)]),
        )),
    )
    .await;

    let cluster = cluster(&server).await;
    let mut rx = cluster.watch_pods(&NodeId::new("a", "n"));
    let allowed = |table: &PodTable| match table.pods.first().and_then(|pod| pod.budgets.first()) {
        Some(budget) => format!("{:?}", budget.allowance),
        None => format!("{} pods", table.pods.len()),
    };
    let mut shown: Vec<String> = Vec::new();
    let wait = async {
        loop {
            let table = rx.borrow_and_update().clone();
            if table.synced {
                let now = allowed(&table);
                if shown.last() != Some(&now) {
                    shown.push(now);
                }
                if table.pods.is_empty() {
                    break;
                }
            }
            rx.changed().await.expect("kept");
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .expect("all shown");
    assert_eq!(shown, ["Now(0)", "Now(1)", "0 pods"]);
    // Nobody listens: the watches end, the shared one of the budgets too.
    drop(rx);
    let ended = async {
        while cluster
            .budgets
            .lock()
            .expect("not poisoned")
            .upgrade()
            .is_some()
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), ended)
        .await
        .expect("ended");
    cluster.close().await;
}

#[tokio::test]
async fn the_lease_is_created_patched_and_lost_under_its_version() {
    let server = MockServer::start().await;
    let collection = "/apis/coordination.k8s.io/v1/namespaces/monitoring/leases";
    let object = "/apis/coordination.k8s.io/v1/namespaces/monitoring/leases/foreshock";
    Mock::given(method("POST"))
        .and(path(collection))
        .respond_with(|request: &Asked| {
            let mut created: Value = request.body_json().expect("JSON");
            assert_eq!(created["metadata"]["name"], "foreshock");
            created["metadata"]["resourceVersion"] = json!("1");
            ResponseTemplate::new(201).set_body_json(created)
        })
        .mount(&server)
        .await;
    mount(
        &server,
        "PATCH",
        object,
        status(409, "the object has been modified", json!({})),
    )
    .await;
    mount(&server, "GET", object, status(404, "not found", json!({}))).await;
    let cluster = cluster(&server).await;
    let view = cluster.write_lease(&lease_write()).await.expect("created");
    assert_eq!(
        (view.holder.as_deref(), view.resource_version.as_str()),
        (Some("me"), "1")
    );
    assert!(
        matches!(&*cluster.lease().borrow(), LeaseState::Present(view) if view.holder.as_deref() == Some("me"))
    );
    let again = LeaseWrite {
        expects: Some("1".to_owned()),
        ..lease_write()
    };
    let error = cluster
        .write_lease(&again)
        .await
        .expect_err("somebody was faster");
    assert!(matches!(error, ClusterError::Superseded { .. }), "{error}");
    assert_eq!(cluster.read_lease().await, Ok(LeaseState::Absent));
}

#[tokio::test]
async fn rights_are_asked_for_verb_by_verb() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        ))
        .respond_with(|request: &Asked| {
            let mut review: Value = request.body_json().expect("JSON");
            let allowed = review["spec"]["resourceAttributes"]["verb"] != "patch";
            review["status"] = json!({"allowed": allowed});
            ResponseTemplate::new(201).set_body_json(review)
        })
        .mount(&server)
        .await;
    let permissions = cluster(&server)
        .await
        .permissions(Reach::Evict, false)
        .await
        .expect("answered");
    let missing: Vec<&str> = permissions
        .iter()
        .filter(|right| !right.allowed)
        .map(|right| right.resource.as_str())
        .collect();
    assert_eq!(missing, ["nodes", "leases"]);
}

/// The volume is known from the Pod's claim, and its attachment is one object of a name that follows from it.
#[tokio::test]
async fn one_object_says_whether_a_volume_is_attached() {
    let server = MockServer::start().await;
    let namespace = "/api/v1/namespaces/shop";
    let mut with_claims = pod("db-0", "u1", false);
    with_claims["spec"]["volumes"] = json!([
        {"name": "data", "persistentVolumeClaim": {"claimName": "data-0"}},
        {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
        {"name": "host", "hostPath": {"path": "/var"}},
    ]);
    let list = |items: Value| json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items});
    let ok = |body: Value| ResponseTemplate::new(200).set_body_json(body);
    mount(
        &server,
        "GET",
        "/api/v1/pods",
        ok(list(json!([with_claims]))),
    )
    .await;
    let budgets = "/apis/policy/v1/namespaces/shop/poddisruptionbudgets";
    mount(&server, "GET", budgets, ok(list(json!([])))).await;
    for (claim, volume) in [("data-0", "pv-1"), ("db-0-scratch", "pv-2")] {
        let found = json!({"metadata": {"name": claim}, "spec": {"volumeName": volume}});
        let at = format!("{namespace}/persistentvolumeclaims/{claim}");
        mount(&server, "GET", &at, ok(found)).await;
        let csi = json!({"driver": "csi.example.com", "volumeHandle": "vol-1"});
        let spec = json!({"csi": csi, "accessModes": ["ReadWriteOnce"]});
        let found = json!({"metadata": {"name": volume}, "spec": spec});
        let at = format!("/api/v1/persistentvolumes/{volume}");
        mount(&server, "GET", &at, ok(found)).await;
    }
    let client = cluster(&server).await;
    let pods = client.pods(&NodeId::new("a", "uid-a")).await;
    let pods = pods.expect("listed");
    // The claim that goes with its Pod is none that a replacement waits for.
    let [volume] = pods[0].volumes.as_slice() else {
        panic!("one volume: {:?}", pods[0].volumes)
    };
    assert_eq!(volume.to_string(), "shop/data-0 (pv-1)");

    // `printf '%s' vol-1csi.example.coma | sha256sum`
    let at = "/apis/storage.k8s.io/v1/volumeattachments/csi-4f4c5b53add60f057179836d7a0bd36617892e4c7e1710658136f601397a24cd";
    let attached_to = |node: &str| {
        ok(json!({
            "metadata": {"name": "csi-4f4c5b53add60f057179836d7a0bd36617892e4c7e1710658136f601397a24cd"}, "spec": {"attacher": "csi.example.com", "nodeName": node,
            "source": {"persistentVolumeName": "pv-1"}}, "status": {"attached": true},
        }))
    };
    let answers = [
        (attached_to("a"), Ok(true)),
        (attached_to("b"), Ok(false)),
        (status(404, "not found", json!({})), Ok(false)),
        (status(403, "no", json!({})), Err(true)),
        (status(500, "no", json!({})), Err(false)),
    ];
    for (answer, expected) in answers {
        let mock = Mock::given(method("GET"))
            .and(path(at))
            .respond_with(answer);
        let _scripted = mock.mount_as_scoped(&server).await;
        let found = client.is_attached(&NodeName::from("a"), volume).await;
        let found = found.map_err(|error| matches!(error, ClusterError::Forbidden { .. }));
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn a_kubeconfig_that_is_not_there_is_named() {
    let options = KubeOptions {
        kubeconfig: Some(PathBuf::from("/nowhere/kubeconfig")),
        ..options()
    };
    let error = KubeCluster::connect(options, Arc::new(SystemClock))
        .await
        .expect_err("not there");
    assert!(error.to_string().contains("/nowhere/kubeconfig"), "{error}");
}
