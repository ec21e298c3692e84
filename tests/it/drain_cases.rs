//! Cases of calling eviction and of grace that a real API server can be made to show. Where cases do not
//! disturb one another they share a control plane.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use foreshock::clock::SystemClock;
use foreshock::core::drain::{Answer, EvictionAllowance, PodFacts, PodId};
use foreshock::core::node::{NodeId, Uid};
use foreshock::kubernetes::{Cluster as _, KubeCluster, KubeOptions};
use futures::future::join_all;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::scenario::{ACCOUNT, apply_account};
use crate::support::cluster::{Cluster, budget, deployment};
use crate::support::foreshock::{Foreshock, drains_for_alerts};
use crate::support::server::Workdir;
use crate::support::{wait_for, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
/// Slow enough for something to happen in the middle.
const ONE_A_SECOND: &str = "[eviction]\nrate = 1";

async fn document(bed: &Cluster, args: &[&str]) -> Value {
    let mut all = vec!["get", "-o", "json"];
    all.extend(args);
    serde_json::from_str(&bed.kubectl(&all).await).expect("kubectl writes JSON")
}

/// A client with the rights of a ServiceAccount.
async fn connect(bed: &Cluster, namespace: &str, account: &str) -> Arc<KubeCluster> {
    let options = KubeOptions {
        kubeconfig: Some(bed.kubeconfig_for(namespace, account).await),
        instance: "foreshock".to_owned(),
        namespace: "foreshock".to_owned(),
        node_selector: String::new(),
        taints: Vec::new(),
    };
    KubeCluster::connect(options, Arc::new(SystemClock))
        .await
        .expect("the kubeconfig is good")
}

/// The first Pod of an application, by name.
async fn pod_of(bed: &Cluster, namespace: &str, app: &str) -> PodId {
    let label = format!("app={app}");
    let pods = document(bed, &["pods", "-n", namespace, "-l", &label]).await;
    let metadata = &pods["items"][0]["metadata"];
    let text = |key: &str| metadata[key].as_str().expect("a Pod").to_owned();
    PodId {
        namespace: namespace.to_owned(),
        name: text("name"),
        uid: Uid::from(text("uid").as_str()),
    }
}

/// What the client knows of the Pod, its budgets included.
async fn facts(bed: &Cluster, client: &KubeCluster, pod: &PodId) -> PodFacts {
    let seen = document(bed, &["pod", &pod.name, "-n", &pod.namespace]).await;
    let node = seen["spec"]["nodeName"].as_str().expect("bound").to_owned();
    let pods = client.pods(&NodeId::new(node.as_str(), "any")).await;
    let pods = pods.expect("listed");
    let found = pods.into_iter().find(|facts| facts.id == *pod);
    found.expect("it is on its Node")
}

/// Waits until the API server answers so. Only for Pods that no answer before lets go.
async fn answers(client: &KubeCluster, pod: &PodId, what: &str, is: impl Fn(&Answer) -> bool) {
    wait_until(what, LIMIT, async || {
        let answer = client.evict(pod, None).await;
        assert_ne!(answer, Answer::Accepted, "{pod} must not go here");
        if is(&answer) {
            return Ok(());
        }
        Err(format!("{answer:?}"))
    })
    .await;
}

fn blocked(answer: &Answer) -> bool {
    matches!(answer, Answer::BlockedByBudget { .. })
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn each_refusal_of_a_real_api_server_is_told_from_the_others() {
    let mut bed = Cluster::start().await;
    bed.create_nodes(2).await;
    apply_account(&bed).await;
    for namespace in ["shop", "leaving"] {
        bed.kubectl(&["create", "namespace", namespace]).await;
    }
    let never = ("maxUnavailable", json!(0));
    let stateful = deployment("shop", "orders", 1)
        .replace("\"kind\":\"Deployment\"", "\"kind\":\"StatefulSet\"");
    let all = [
        deployment("shop", "guarded", 1),
        budget("shop", "guarded", never.clone()),
        deployment("shop", "percent", 2),
        budget("shop", "percent", ("minAvailable", json!("100%"))),
        deployment("shop", "many", 2),
        budget("shop", "many", ("minAvailable", json!(3))),
        deployment("shop", "sick", 2),
        budget("shop", "sick", ("minAvailable", json!(2))),
        deployment("shop", "held", 1),
        deployment("shop", "capped", 1),
        deployment("leaving", "last", 1),
        budget("leaving", "last", never.clone()),
        stateful,
    ];
    bed.apply(&all.join("\n---\n")).await;
    for app in ["guarded", "percent", "many", "sick", "held", "capped"] {
        let what = format!("deployment/{app}");
        bed.wait_rollout("shop", &what).await;
    }
    bed.wait_rollout("shop", "statefulset/orders").await;
    bed.wait_rollout("leaving", "deployment/last").await;
    let client = connect(&bed, "foreshock", "foreshock").await;

    budgets_that_can_never_allow(&bed, &client).await;
    a_pod_that_is_not_ready(&bed, &client).await;
    another_pod_of_the_same_name(&bed, &client).await;
    grace_and_finalizers(&bed, &client).await;
    no_right(&bed).await;
    denied_by_admission(&bed, &client).await;
    priority_and_fairness(&bed, &client).await;
    a_namespace_on_its_way_out(&mut bed, &client).await;

    let mut accepted: BTreeMap<String, usize> = BTreeMap::new();
    for event in bed.audit() {
        if event.is_eviction() && event.user == ACCOUNT {
            // Who is turned away at the door is not read at all.
            if !event.request_object.is_null() {
                assert_eq!(event.request_object["apiVersion"], "policy/v1");
            }
            if event.succeeded() {
                let uid = event.pod_uid().expect("a precondition").to_owned();
                *accepted.entry(uid).or_default() += 1;
            }
        }
    }
    assert!(accepted.len() >= 3, "{accepted:?}");
    assert!(accepted.values().all(|count| *count == 1), "{accepted:?}");
    client.close().await;
}

async fn budgets_that_can_never_allow(bed: &Cluster, client: &KubeCluster) {
    for app in ["guarded", "percent", "many"] {
        let pod = pod_of(bed, "shop", app).await;
        let what = format!("the budget of {app} to be known as one that never allows");
        wait_for(&what, LIMIT, async || {
            let facts = facts(bed, client, &pod).await;
            let budget = facts.budgets.first()?;
            (budget.observed && budget.allowance == EvictionAllowance::Never).then_some(())
        })
        .await;
        answers(client, &pod, "the API server to say the same", blocked).await;
    }
}

/// Running and not Ready, as in a crash loop.
async fn a_pod_that_is_not_ready(bed: &Cluster, client: &KubeCluster) {
    let pod = pod_of(bed, "shop", "sick").await;
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    let patch = [
        "patch",
        "pod",
        &pod.name,
        "-n",
        "shop",
        "--subresource=status",
        "-p",
        &status.to_string(),
    ];
    bed.kubectl(&patch).await;
    wait_for("the budget to count one less", LIMIT, async || {
        let facts = facts(bed, client, &pod).await;
        let detail = &facts.budgets.first()?.detail;
        let told = detail.contains("1 of 2 healthy") && detail.contains("IfHealthyBudget");
        (!facts.ready && told).then_some(())
    })
    .await;
    answers(client, &pod, "the default policy keeps it", blocked).await;
    let always = json!({"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}}).to_string();
    bed.kubectl(&["patch", "pdb", "sick", "-n", "shop", "-p", &always])
        .await;
    wait_for("the other policy to be known", LIMIT, async || {
        let facts = facts(bed, client, &pod).await;
        let budget = facts.budgets.first()?;
        (budget.observed && budget.detail.contains("AlwaysAllow")).then_some(())
    })
    .await;
    assert_eq!(client.evict(&pod, None).await, Answer::Accepted);
}

/// The API server says 409 for another UID, and 429 where a budget blocks: it looks there first.
async fn another_pod_of_the_same_name(bed: &Cluster, client: &KubeCluster) {
    let old = pod_of(bed, "shop", "orders").await;
    bed.kubectl(&[
        "delete",
        "pod",
        &old.name,
        "-n",
        "shop",
        "--grace-period=0",
        "--force",
    ])
    .await;
    bed.wait_rollout("shop", "statefulset/orders").await;
    let new = pod_of(bed, "shop", "orders").await;
    assert_eq!(new.name, old.name);
    assert_ne!(new.uid, old.uid);
    assert_eq!(client.evict(&old, None).await, Answer::Gone);
    bed.apply(&budget("shop", "orders", ("maxUnavailable", json!(0))))
        .await;
    answers(client, &new, "the budget to hold the new one", blocked).await;
    assert_eq!(client.evict(&old, None).await, Answer::Gone);
    let codes: Vec<u16> = bed
        .audit()
        .into_iter()
        .filter(|event| event.is_eviction() && event.pod_uid() == Some(old.uid.as_str()))
        .map(|event| event.code)
        .collect();
    assert_eq!(codes, [409, 429]);
    let there = client.read_pod(&new).await.expect("read").expect("there");
    assert_eq!(there.terminating_until, None, "it was not touched");
}

async fn grace_and_finalizers(bed: &Cluster, client: &KubeCluster) {
    let held = pod_of(bed, "shop", "held").await;
    let finalizers = |list: Value| json!({"metadata": {"finalizers": list}}).to_string();
    let hold = finalizers(json!(["example.org/hold"]));
    bed.kubectl(&["patch", "pod", &held.name, "-n", "shop", "-p", &hold])
        .await;
    assert_eq!(client.evict(&held, None).await, Answer::Accepted);
    let facts = client.read_pod(&held).await.expect("read").expect("held");
    assert!(facts.terminating_until.is_some());
    assert!(
        facts
            .finalizers
            .iter()
            .any(|name| name == "example.org/hold")
    );
    let capped = pod_of(bed, "shop", "capped").await;
    let zero = client.evict(&capped, Some(Duration::ZERO)).await;
    assert_eq!(zero, Answer::Accepted);
    let sent = |pod: &PodId| {
        let mut all = bed.audit().into_iter();
        let event =
            all.rfind(|event| event.is_eviction() && event.pod_uid() == Some(pod.uid.as_str()));
        event.expect("in the audit log").grace_period()
    };
    assert_eq!(sent(&held), None, "its own time is not touched");
    assert_eq!(sent(&capped), Some(1), "0 would be a kill");
    let merge = finalizers(Value::Null);
    let patch = [
        "patch",
        "pod",
        &held.name,
        "-n",
        "shop",
        "--type=merge",
        "-p",
    ];
    let patch: Vec<&str> = patch.into_iter().chain([merge.as_str()]).collect();
    bed.kubectl(&patch).await;
}

async fn no_right(bed: &Cluster) {
    let stranger = connect(bed, "default", "default").await;
    let pod = pod_of(bed, "shop", "guarded").await;
    let answer = stranger.evict(&pod, None).await;
    assert!(
        matches!(&answer, Answer::Forbidden { detail } if detail.contains("pods/eviction")),
        "{answer:?}"
    );
    stranger.close().await;
}

async fn denied_by_admission(bed: &Cluster, client: &KubeCluster) {
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "fridays"},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods/eviction"],
            }]},
            "validations": [{
                "expression": "!object.metadata.name.startsWith('guarded-')", "message": "not on Fridays",
            }],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "fridays"},
        "spec": {"policyName": "fridays", "validationActions": ["Deny"]},
    });
    bed.apply(&[policy, binding].map(|one| one.to_string()).join("\n---\n"))
        .await;
    let pod = pod_of(bed, "shop", "guarded").await;
    answers(client, &pod, "the policy to deny it", |answer| {
        matches!(answer, Answer::WebhookDenied { detail } if detail.contains("not on Fridays"))
    })
    .await;
}

/// A level without a seat of its own for our evictions: of many at once most are turned away.
async fn priority_and_fairness(bed: &Cluster, client: &KubeCluster) {
    let level = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
        "metadata": {"name": "tight"},
        "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0,
            "limitResponse": {"type": "Reject"},
        }},
    });
    let schema = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema",
        "metadata": {"name": "tight"},
        "spec": {
            "matchingPrecedence": 50,
            "priorityLevelConfiguration": {"name": "tight"},
            "rules": [{
                "subjects": [{"kind": "ServiceAccount", "serviceAccount": {"namespace": "foreshock", "name": "foreshock"}}],
                "resourceRules": [{
                    "verbs": ["create"], "apiGroups": [""], "resources": ["pods/eviction"], "namespaces": ["*"],
                }],
            }],
        },
    });
    let all = [level, schema].map(|one| one.to_string()).join("\n---\n");
    bed.apply(&all).await;
    let pod = pod_of(bed, "shop", "percent").await;
    wait_until("some to be turned away", LIMIT, async || {
        let answers = join_all((0..12).map(|_| client.evict(&pod, None))).await;
        assert!(
            answers
                .iter()
                .all(|answer| blocked(answer) || matches!(answer, Answer::Throttled { .. })),
            "{answers:?}"
        );
        let turned_away = answers.iter().any(|answer| !blocked(answer));
        turned_away.then_some(()).ok_or(format!("{answers:?}"))
    })
    .await;
    bed.kubectl(&["delete", "flowschema", "tight"]).await;
}

async fn a_namespace_on_its_way_out(bed: &mut Cluster, client: &KubeCluster) {
    let pod = pod_of(bed, "leaving", "last").await;
    answers(client, &pod, "its budget to hold it", blocked).await;
    // Else its Pods would be deleted before anybody could ask.
    bed.controller_manager().signal("STOP");
    bed.kubectl(&["delete", "namespace", "leaving", "--wait=false"])
        .await;
    answers(
        client,
        &pod,
        "the namespace to be known as leaving",
        |answer| *answer == Answer::NamespaceTerminating,
    )
    .await;
    bed.controller_manager().signal("CONT");
    wait_for("its Pod to go with it", LIMIT, async || {
        let read = client.read_pod(&pod).await.expect("read");
        read.is_none_or(|pod| pod.terminating_until.is_some())
            .then_some(())
    })
    .await;
}

/// UID and name of every Pod of `shop` on the Node.
async fn on_node(bed: &Cluster, node: &str) -> BTreeMap<String, String> {
    let field = format!("--field-selector=spec.nodeName={node}");
    let pods = document(bed, &["pods", "-n", "shop", &field]).await;
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    let text = |pod: &Value, key: &str| pod["metadata"][key].as_str().map(str::to_owned);
    pods.iter()
        .filter_map(|pod| Some((text(pod, "uid")?, text(pod, "name")?)))
        .collect()
}

/// UIDs of the Pods whose eviction by foreshock was accepted, by the audit log.
fn accepted(bed: &Cluster) -> Vec<String> {
    let all = bed.audit().into_iter();
    let ours = all.filter(|event| {
        event.user == ACCOUNT && event.is_eviction() && !event.is_dry_run() && event.succeeded()
    });
    ours.filter_map(|event| event.pod_uid().map(str::to_owned))
        .collect()
}

async fn fire(foreshock: &Foreshock, node: &str) {
    let alert = json!({
        "version": "4", "groupKey": "{}", "truncatedAlerts": 0, "status": "firing",
        "receiver": "foreshock", "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {},
        "externalURL": "http://alertmanager", "alerts": [{
            "status": "firing", "labels": {"alertname": "NodeOnFire", "node": node},
            "annotations": {}, "startsAt": Timestamp::now().to_string(),
            "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "", "fingerprint": "f",
        }],
    });
    // Until it leads it says so, and an Alertmanager sends it again.
    wait_until("the alert to be taken", LIMIT, async || {
        match foreshock.post_json("/webhook/alertmanager", &alert).await {
            (202, _) => Ok(()),
            (status, body) => Err(format!("{status} {body}")),
        }
    })
    .await;
}

/// The API server is killed and started again in the middle, which breaks every watch. One Pod is under a
/// budget that can never allow it: that is told before the first write, everything else moves, and the
/// outcome names it.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn a_drain_survives_its_api_server_and_names_the_budget_that_never_allows() {
    let mut bed = Cluster::start().await;
    bed.create_nodes(3).await;
    apply_account(&bed).await;
    bed.kubectl(&["create", "namespace", "shop"]).await;
    let all = [
        deployment("shop", "free", 18),
        deployment("shop", "strict", 3),
        budget("shop", "strict", ("maxUnavailable", json!(0))),
    ];
    bed.apply(&all.join("\n---\n")).await;
    for app in ["deployment/free", "deployment/strict"] {
        bed.wait_rollout("shop", app).await;
    }
    let strict = pod_of(&bed, "shop", "strict").await;
    let seen = document(&bed, &["pod", &strict.name, "-n", "shop"]).await;
    let node = seen["spec"]["nodeName"].as_str().expect("bound").to_owned();
    let before = on_node(&bed, &node).await;
    let free = before.values().filter(|name| name.starts_with("free-"));
    assert!(free.count() >= 3, "{before:?}");

    let workdir = Workdir::new("drain-cases");
    let kubeconfig = bed.kubeconfig_for("foreshock", "foreshock").await;
    let config = drains_for_alerts(&kubeconfig, ONE_A_SECOND);
    let config = workdir.write("foreshock.toml", &config);
    let foreshock = Foreshock::start(&config, &[], &[]).await;
    let path = format!("/api/nodes/{node}/plan");
    wait_until("the plan to name what can never go", LIMIT, async || {
        let (status, body) = foreshock.get(&path).await;
        let plan: Value = serde_json::from_str(&body).unwrap_or_default();
        let impossible = plan["impossible"].as_array().cloned().unwrap_or_default();
        let named = impossible
            .iter()
            .any(|pod| pod["name"] == strict.name.as_str());
        if status == 200 && named {
            return Ok(());
        }
        Err(body)
    })
    .await;
    // The server's own answer, of a dry run and nothing else.
    let (_, body) = foreshock.get(&path).await;
    let plan: Value = serde_json::from_str(&body).expect("a plan");
    let free = plan["pods"].as_array().expect("its Pods").iter();
    let free: Vec<&Value> = free
        .filter(|pod| {
            pod["name"]
                .as_str()
                .is_some_and(|name| name.starts_with("free-"))
        })
        .collect();
    assert!(free.iter().all(|pod| pod["dry_run"] == "allowed"), "{body}");
    let tried: Vec<_> = bed
        .audit()
        .into_iter()
        .filter(|event| event.is_eviction())
        .collect();
    assert!(
        tried.len() >= free.len() && tried.iter().all(|event| event.is_dry_run()),
        "{tried:?}"
    );
    assert_eq!(
        on_node(&bed, &node).await,
        before,
        "every Pod is where it was"
    );
    assert!(accepted(&bed).is_empty(), "told before the first eviction");

    fire(&foreshock, &node).await;
    wait_for("the first eviction", LIMIT, async || {
        (!accepted(&bed).is_empty()).then_some(())
    })
    .await;
    let at_the_kill = accepted(&bed).len();
    bed.restart_apiserver().await;

    // It steps aside: back to `tainted`, held, with the reason.
    let path = format!("/api/nodes/{node}?plan=false");
    let view = wait_until("the drain to end", 2 * LIMIT, async || {
        let (_, body) = foreshock.get(&path).await;
        let view: Value = serde_json::from_str(&body).unwrap_or_default();
        if view["phase"] == "tainted" && view["hold"]["reason"] == "drain_failed" {
            return Ok(view);
        }
        Err(body)
    })
    .await;
    let hold = view["hold"]["detail"].as_str().expect("said");
    println!("{at_the_kill} evictions before the kill; {hold}");
    assert!(hold.contains("never_allowed"), "{hold}");
    let events = view["history"]["events"]
        .as_array()
        .expect("its events")
        .iter();
    let mut ends =
        events.filter(|event| event["reason"] == "never_allowed" && event["pod"].is_null());
    let end = ends.next().expect("the end of the drain is told");
    assert!(end.to_string().contains(&strict.name), "{end}");
    let mut uids = accepted(&bed);
    let total = uids.len();
    assert!(at_the_kill < total, "it went on afterwards");
    uids.sort_unstable();
    uids.dedup();
    assert_eq!(uids.len(), total, "no Pod was evicted twice");
    let after = on_node(&bed, &node).await;
    for (uid, name) in &before {
        let stays = name.starts_with("strict-");
        assert_eq!(after.contains_key(uid), stays, "{name}");
        assert_eq!(uids.contains(uid), !stays, "{name}");
    }
}

/// The token is taken back in the middle, so that every request is refused until the file that it came from,
/// where the next one stands already, is read again: as where a Pod slept through the kubelet's rotation.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn a_drain_goes_on_when_its_token_has_ended_and_there_is_a_new_one() {
    let bed = Cluster::start().await;
    bed.create_nodes(2).await;
    apply_account(&bed).await;
    bed.kubectl(&["create", "namespace", "shop"]).await;
    let all: Vec<String> = ["a", "b", "c", "d", "e", "f"]
        .map(|name| deployment("shop", name, 6))
        .into();
    bed.apply(&all.join("\n---\n")).await;
    for name in ["a", "b", "c", "d", "e", "f"] {
        bed.wait_rollout("shop", &format!("deployment/{name}"))
            .await;
    }
    let node = "worker-01".to_owned();
    let before = on_node(&bed, &node).await;
    // The API server believes a token for ten seconds before it looks at it again.
    assert!(before.len() > 14, "{before:?}");

    let workdir = Workdir::new("drain-token");
    bed.kubectl(&["create", "secret", "generic", "first", "-n", "foreshock"])
        .await;
    let first = [
        "create",
        "token",
        "foreshock",
        "-n",
        "foreshock",
        "--bound-object-kind=Secret",
        "--bound-object-name=first",
    ];
    let token = bed.kubectl(&first).await;
    let file = workdir.write("token", token.trim());
    let kubeconfig = bed.kubeconfig_of_file(&file);
    let kubeconfig = workdir.write("kubeconfig", &kubeconfig);
    let config = workdir.write(
        "foreshock.toml",
        &drains_for_alerts(&kubeconfig, ONE_A_SECOND),
    );
    let foreshock = Foreshock::start(&config, &[], &[]).await;
    fire(&foreshock, &node).await;
    wait_for("the first eviction", LIMIT, async || {
        (!accepted(&bed).is_empty()).then_some(())
    })
    .await;
    workdir.write("token", &bed.token_for("foreshock", "foreshock").await);
    bed.kubectl(&["delete", "secret", "first", "-n", "foreshock"])
        .await;
    wait_until("every Pod to be gone", 4 * LIMIT, async || {
        let there = on_node(&bed, &node).await;
        let left = before.keys().filter(|uid| there.contains_key(*uid));
        match left.count() {
            0 => Ok(()),
            left => Err(format!("{left} Pods are left")),
        }
    })
    .await;
    let refused: Vec<Timestamp> = bed
        .audit()
        .into_iter()
        .filter(|event| event.code == 401)
        .map(|event| event.received)
        .collect();
    assert!(!refused.is_empty(), "the first token had ended");
    let evicted: Vec<_> = bed
        .audit()
        .into_iter()
        .filter(|event| event.is_eviction() && !event.is_dry_run() && event.succeeded())
        .collect();
    let last = evicted.iter().map(|event| event.received).max();
    assert!(
        last > refused.iter().min().copied(),
        "it went on with the next token"
    );
    let mut uids = accepted(&bed);
    let total = uids.len();
    uids.sort_unstable();
    uids.dedup();
    assert_eq!(uids.len(), total, "no Pod was evicted twice");
    assert!(before.keys().all(|uid| uids.contains(uid)));
    println!(
        "{} requests refused in the middle of {total} evictions",
        refused.len()
    );
}

/// A volume of a CSI driver, its claim, and a Deployment of one Pod that uses it.
fn with_volume() -> String {
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv-orders"},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "csi": {"driver": "csi.example.com", "volumeHandle": "vol-1"},
        },
    });
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "shop", "name": "orders"},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": "pv-orders",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    });
    let deployment = deployment("shop", "orders", 1);
    let mut deployment: Value = serde_json::from_str(&deployment).expect("a Deployment");
    let spec = &mut deployment["spec"]["template"]["spec"];
    spec["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "orders"}}]);
    [volume, claim, deployment]
        .map(|one| one.to_string())
        .join("\n---\n")
}

/// The VolumeAttachment that Kubernetes has made, and the Node that it is for.
async fn attachment(bed: &Cluster, not: &str) -> (String, String) {
    wait_until(
        "the volume to be attached to another Node",
        LIMIT,
        async || {
            let all = document(bed, &["volumeattachments"]).await;
            let text = |at: &Value| at.as_str().unwrap_or_default().to_owned();
            match all["items"].as_array().map(Vec::as_slice) {
                Some([one]) if one["spec"]["nodeName"] != not => Ok((
                    text(&one["metadata"]["name"]),
                    text(&one["spec"]["nodeName"]),
                )),
                _ => Err(all.to_string()),
            }
        },
    )
    .await
}

async fn patch_attachment(bed: &Cluster, name: &str, more: &[&str], patch: Value) {
    let patch = patch.to_string();
    let args = [
        "patch",
        "volumeattachment",
        name,
        "--type=merge",
        "-p",
        &patch,
    ];
    let args: Vec<&str> = args.iter().chain(more).copied().collect();
    bed.kubectl(&args).await;
}

/// As the driver's attacher does.
async fn attached(bed: &Cluster, name: &str) {
    let patch = json!({"status": {"attached": true}});
    patch_attachment(bed, name, &["--subresource=status"], patch).await;
}

/// While the attacher has its finalizer there, the volume is not detached.
async fn hold_attached(bed: &Cluster, name: &str, hold: bool) {
    let finalizers = hold.then_some(["external-attacher/csi-example-com"]);
    let patch = json!({"metadata": {"finalizers": finalizers}});
    patch_attachment(bed, name, &[], patch).await;
}

/// Kubernetes itself attaches the volume, and deletes what says so when the Pod is gone; the driver does not let it
/// go. That holds up neither the drain nor its end, and is said at the Node's deadline. The second Node's is let go.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn a_volume_that_stays_attached_is_told_at_the_deadline_and_one_that_goes_is_not() {
    let bed = Cluster::start().await;
    bed.create_nodes(3).await;
    // As the kubelet does, so that Kubernetes attaches volumes to them.
    let managed = "volumes.kubernetes.io/controller-managed-attach-detach=true";
    bed.kubectl(&["annotate", "node", "--all", managed]).await;
    apply_account(&bed).await;
    bed.kubectl(&["create", "namespace", "shop"]).await;
    bed.apply(&with_volume()).await;
    bed.wait_rollout("shop", "deployment/orders").await;
    let (first, node) = attachment(&bed, "").await;
    hold_attached(&bed, &first, true).await;
    attached(&bed, &first).await;

    let workdir = Workdir::new("drain-volumes");
    let kubeconfig = bed.kubeconfig_for("foreshock", "foreshock").await;
    let more = "[eviction]\ndeadline = \"25s\"\n\
                [policy.limits]\ntainted_max = 2\ndraining_max = 2\nstorm_min = 20";
    let config = workdir.write("foreshock.toml", &drains_for_alerts(&kubeconfig, more));
    let foreshock = Foreshock::start(&config, &[], &[]).await;
    let view = async |node: &str| {
        let (_, body) = foreshock
            .get(&format!("/api/nodes/{node}?plan=false"))
            .await;
        serde_json::from_str::<Value>(&body).unwrap_or_default()
    };
    let drained = async |node: &str| {
        wait_until("the Node to be drained", LIMIT, async || {
            let view = view(node).await;
            (view["phase"] == "drained")
                .then(|| view.clone())
                .ok_or(view.to_string())
        })
        .await
    };
    fire(&foreshock, &node).await;
    let at_its_end = drained(&node).await;
    assert_eq!(at_its_end["volumes"], Value::Null, "nothing waits for it");
    let told = wait_until("the volume to be told", LIMIT, async || {
        let view = view(&node).await;
        (!view["volumes"].is_null())
            .then(|| view.clone())
            .ok_or(view.to_string())
    })
    .await;
    let message = told["volumes"]["message"].as_str().expect("a sentence");
    let start = format!("1 volume of evicted Pods is still attached to {node} ");
    let end = " after the drain, and replacements wait for that: shop/orders (pv-orders)";
    assert!(
        message.starts_with(&start) && message.ends_with(end),
        "{message}"
    );
    let time = |at: &Value| at.as_str().and_then(|at| at.parse::<Timestamp>().ok());
    let drain = time(&told["volumes"]["drain"]).expect("a time");
    let waited = time(&told["volumes"]["at"])
        .expect("a time")
        .duration_since(drain);
    assert!((25..40).contains(&waited.as_secs()), "{waited}");
    let events = told["history"]["events"].as_array().expect("its events");
    let of_pod = |event: &&Value| event["reason"] == "volumes" && !event["pod"].is_null();
    let of_pod = events.iter().find(of_pod).expect("what came of the Pod");
    let detail = format!("volumes, still attached to {node}: shop/orders (pv-orders)");
    let said = of_pod["message"].as_str().expect("a sentence");
    assert!(
        said.starts_with("shop/orders-") && said.ends_with(&detail),
        "{said}"
    );
    let (_, metrics) = foreshock.get("/metrics").await;
    let counted = "foreshock_evictions_total{outcome=\"volumes\"} 1";
    assert!(metrics.lines().any(|line| line == counted), "{metrics}");
    let field = format!("--field-selector=regarding.name={node},reason=VolumesStillAttached");
    wait_until("an Event of the Node", LIMIT, async || {
        let events = document(&bed, &["events.events.k8s.io", "-n", "default", &field]).await;
        let one = events["items"].as_array().filter(|all| all.len() == 1);
        one.filter(|all| all[0]["note"] == message && all[0]["type"] == "Warning")
            .map(|_| ())
            .ok_or(events.to_string())
    })
    .await;
    let still = document(&bed, &["volumeattachment", &first]).await;
    assert!(
        !still["metadata"]["deletionTimestamp"].is_null(),
        "Kubernetes has asked for it"
    );

    hold_attached(&bed, &first, false).await;
    let (second, next) = attachment(&bed, &node).await;
    attached(&bed, &second).await;
    // A replacement that is not Ready would have its own Node's drain wait.
    bed.wait_rollout("shop", "deployment/orders").await;
    fire(&foreshock, &next).await;
    let ends = time(&drained(&next).await["at"]).expect("a time");
    wait_until("its deadline to be over", LIMIT, async || {
        let now = time(&view(&next).await["at"]).expect("a time");
        let passed = now.duration_since(ends).as_secs();
        (passed > 30).then_some(()).ok_or(format!("{passed} s"))
    })
    .await;
    assert_eq!(view(&next).await["volumes"], Value::Null);
    let asked = bed.audit().into_iter();
    let asked =
        asked.filter(|event| event.user == ACCOUNT && event.uri.contains("volumeattachments"));
    let asked: Vec<String> = asked.map(|event| event.verb).collect();
    assert!(
        asked.len() >= 3 && asked.iter().all(|verb| verb == "get"),
        "{asked:?}"
    );
}
