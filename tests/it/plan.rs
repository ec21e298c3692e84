//! What a plan says before the drain is what the drain does, Pod by Pod, on a Node that holds every class of
//! Pod that the real API server can be given.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::scene::{LIMIT, Scene};
use crate::support::audit::AuditEvent;
use crate::support::cluster::{budget, deployment};
use crate::support::foreshock::ACCOUNT;
use crate::support::{init, wait_until};

const NODE: &str = "full-01";

/// A Deployment whose Pods are so, by a strategic merge into the template.
fn like(namespace: &str, name: &str, replicas: usize, metadata: Value, spec: Value) -> String {
    let mut all: Value =
        serde_json::from_str(&deployment(namespace, name, replicas)).expect("it is JSON");
    let template = &mut all["spec"]["template"];
    for (part, values) in [("metadata", metadata), ("spec", spec)] {
        for (key, value) in values.as_object().cloned().unwrap_or_default() {
            match (&mut template[part][&key], value) {
                (Value::Object(there), Value::Object(more)) => there.extend(more),
                (place, value) => *place = value,
            }
        }
    }
    all.to_string()
}

/// A Pod that nobody puts back, bound to the Node.
fn bare(name: &str, metadata: Value) -> String {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {
            "nodeName": NODE, "automountServiceAccountToken": false, "enableServiceLinks": false,
            "containers": [{"name": "main", "image": "example.invalid/app"}],
        },
    });
    for (key, value) in metadata.as_object().cloned().unwrap_or_default() {
        pod["metadata"][&key] = value;
    }
    pod.to_string()
}

fn with_volume(namespace: &str, name: &str, volume: Value) -> String {
    let mut volume = volume;
    volume["name"] = json!("data");
    like(namespace, name, 1, json!({}), json!({"volumes": [volume]}))
}

/// Everything that is to be on the Node.
fn everything() -> String {
    let opted_out =
        json!({"annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}});
    let tolerations = json!({"tolerations": [{"key": "degradation", "operator": "Exists"}]});
    let critical = json!({"priorityClassName": "system-cluster-critical"});
    let stateful = with_volume(
        "shop",
        "db",
        json!({"persistentVolumeClaim": {"claimName": "data"}}),
    )
    .replace("\"kind\":\"Deployment\"", "\"kind\":\"StatefulSet\"");
    let mut daemons: Value =
        serde_json::from_str(&deployment("shop", "agent", 1)).expect("it is JSON");
    daemons["kind"] = json!("DaemonSet");
    daemons["spec"]["replicas"] = Value::Null;
    let mirror = json!({"annotations": {"kubernetes.io/config.mirror": "abc"}});
    let held = json!({"finalizers": ["example.org/hold"]});
    let foreign = json!({"ownerReferences": [{
        "apiVersion": "apps.example.org/v1", "kind": "DaemonSet", "name": "theirs", "uid": "0b0b0b0b", "controller": true,
    }]});
    let budget_of = |name: &str, app: &str| {
        budget("shop", app, ("maxUnavailable", json!(1))).replace(
            &format!("\"name\":\"{app}\""),
            &format!("\"name\":\"{name}\""),
        )
    };
    [
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "data"}, "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "none",
            "nfs": {"server": "files.example.invalid", "path": "/data"},
        }})
        .to_string(),
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "shop", "name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "none", "resources": {"requests": {"storage": "1Gi"}},
        }})
        .to_string(),
        deployment("shop", "web", 2),
        deployment("shop", "guarded", 2),
        budget("shop", "guarded", ("maxUnavailable", json!(1))),
        deployment("shop", "strict", 1),
        budget("shop", "strict", ("maxUnavailable", json!(0))),
        deployment("shop", "doubled", 1),
        budget_of("first", "doubled"),
        budget_of("second", "doubled"),
        stateful,
        like("shop", "last", 1, json!({}), critical),
        with_volume("shop", "scratch", json!({"emptyDir": {}})),
        with_volume("shop", "tmpfs", json!({"emptyDir": {"medium": "Memory"}})),
        with_volume("shop", "host", json!({"hostPath": {"path": "/data"}})),
        like("shop", "asks", 1, opted_out, json!({})),
        like("shop", "tolerates", 1, json!({}), tolerations),
        deployment("kube-system", "dns", 1),
        like("foreshock", "self", 1, json!({"labels": {"app.kubernetes.io/name": "foreshock"}}), json!({})),
        daemons.to_string(),
        bare("alone", json!({})),
        bare("finished", json!({})),
        bare("static", mirror),
        bare("theirs", foreign),
        bare("leaving", held.clone()),
        bare("held", held),
    ]
    .join("\n---\n")
}

/// By the first word of the Pod's name: what is to become of it, and why.
fn expected(name: &str) -> (&'static str, &'static str) {
    let app = name.split('-').next().unwrap_or_default();
    match app {
        "web" | "guarded" | "db" | "last" | "theirs" | "leaving" => ("evict", ""),
        "strict" => ("impossible", "can never allow it"),
        "doubled" => ("impossible", "more than one PodDisruptionBudget"),
        "held" => ("impossible", "finalizers example.org/hold"),
        "scratch" | "tmpfs" => ("leave", "emptyDir"),
        "host" => ("leave", "local volumes"),
        "asks" => ("leave", "safe-to-evict"),
        "tolerates" => ("leave", "tolerates our taint"),
        "dns" => ("leave", "kube-system"),
        "alone" => ("leave", "no controller"),
        "self" => ("skip", "foreshock itself"),
        "agent" => ("skip", "DaemonSet"),
        "finished" => ("skip", "finished"),
        "static" => ("skip", "mirror"),
        other => panic!("{other} is not of this test"),
    }
}

async fn prepare(scene: &Scene) {
    scene
        .cluster
        .kubectl(&["create", "namespace", "shop"])
        .await;
    scene.nodes("full", 1, "110").await;
    scene.open_room(false).await;
    scene.cluster.apply(&everything()).await;
    wait_until("every Pod to be on the Node and Ready", LIMIT, async || {
        let field = format!("spec.nodeName={NODE}");
        let args = [
            "get",
            "pods",
            "-A",
            "--field-selector",
            &field,
            "-o",
            "json",
        ];
        let list: Value =
            serde_json::from_str(&scene.cluster.kubectl(&args).await).expect("kubectl writes JSON");
        let pods = list["items"].as_array().cloned().unwrap_or_default();
        let ready = |pod: &&Value| {
            let conditions = pod["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            conditions
                .iter()
                .any(|one| one["type"] == "Ready" && one["status"] == "True")
        };
        let count = pods.iter().filter(ready).count();
        if count == 22 {
            Ok(())
        } else {
            Err(format!("{count} of {}", pods.len()))
        }
    })
    .await;
    let succeeded = json!({"status": {"phase": "Succeeded"}}).to_string();
    let patch = [
        "patch",
        "pod",
        "finished",
        "-n",
        "shop",
        "--subresource=status",
        "-p",
        &succeeded,
    ];
    scene.cluster.kubectl(&patch).await;
    delete(scene, "held").await;
    scene.open_room(true).await;
    scene.wait_budgets_of("shop", &["guarded"]).await;
}

/// It begins to terminate, and stays as long as its finalizer is there.
async fn delete(scene: &Scene, name: &str) {
    let args = ["delete", "pod", name, "-n", "shop", "--wait=false"];
    scene.cluster.kubectl(&args).await;
}

/// The plan, as bytes, once it is complete: what is held past its time is told, and every dry run is made.
async fn fetch(scene: &Scene, leaving: bool) -> String {
    let path = format!("/api/nodes/{NODE}/plan");
    wait_until("the plan to be complete", LIMIT, async || {
        let (status, body) = scene.foreshock.get(&path).await;
        let plan: Value = serde_json::from_str(&body).unwrap_or_default();
        let pods = plan["pods"].as_array().cloned().unwrap_or_default();
        let stands = |name: &str, key: &str, is: &dyn Fn(&Value) -> bool| {
            pods.iter().any(|pod| pod["name"] == name && is(&pod[key]))
        };
        let held = stands("held", "disposition", &|word: &Value| word == "impossible")
            && stands("leaving", "terminating_until", &|until: &Value| {
                until.is_null() != leaving
            });
        let asked = pods
            .iter()
            .filter(|pod| pod["disposition"] == "evict" && pod["terminating_until"].is_null())
            .all(|pod| !pod["dry_run"].is_null());
        if status == 200 && held && asked {
            Ok(body)
        } else {
            Err(body)
        }
    })
    .await
}

/// What foreshock has written but its Lease, Events, dry runs and questions about its own rights.
fn writes(scene: &Scene) -> Vec<AuditEvent> {
    let aside = [
        "leases",
        "events",
        "selfsubjectaccessreviews",
        "selfsubjectrulesreviews",
    ];
    let all = scene.cluster.audit().into_iter();
    all.filter(|event| event.user == ACCOUNT && event.is_write() && !event.is_dry_run())
        .filter(|event| !aside.contains(&event.resource.as_str()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn a_drain_does_with_each_pod_what_its_plan_has_said() {
    init();
    let scene = Scene::start(2, "").await;
    prepare(&scene).await;
    fetch(&scene, false).await;
    delete(&scene, "leaving").await;
    let bytes = fetch(&scene, true).await;
    let made = writes(&scene);
    assert!(made.is_empty(), "a plan writes nothing: {made:?}");

    let plan: Value = serde_json::from_str(&bytes).expect("a plan");
    let pods = plan["pods"].as_array().expect("its Pods").clone();
    assert_eq!(pods.len(), 22, "{bytes}");
    let text = |pod: &Value, key: &str| pod[key].as_str().unwrap_or_default().to_owned();
    for pod in &pods {
        let name = text(pod, "name");
        let (disposition, reason) = expected(&name);
        assert_eq!(pod["disposition"], disposition, "{pod}");
        assert!(text(pod, "reason").contains(reason), "{pod}");
        let asked = disposition == "evict" && pod["terminating_until"].is_null();
        let answer = if asked { json!("allowed") } else { Value::Null };
        assert_eq!(pod["dry_run"], answer, "{pod}");
    }
    let named = |list: &Value| -> BTreeSet<String> {
        let all = list.as_array().expect("a list").iter();
        all.map(|one| {
            text(one, "name")
                .split('-')
                .next()
                .unwrap_or_default()
                .to_owned()
        })
        .collect()
    };
    let first: Vec<&Value> = pods.iter().take(3).collect();
    assert!(
        first.iter().all(|pod| pod["disposition"] == "impossible"),
        "{bytes}"
    );
    assert_eq!(
        named(&plan["impossible"]),
        ["doubled", "held", "strict"].map(str::to_owned).into()
    );
    assert!(named(&plan["slow"]).is_superset(&["leaving".to_owned(), "web".to_owned()].into()));
    assert_eq!(named(&plan["daemon_sets"]), ["agent".to_owned()].into());

    scene.fire(&[NODE.to_owned()]).await;
    // Whoever holds it lets it go in the middle.
    wait_until("the first eviction", LIMIT, async || {
        let begun = writes(&scene).iter().any(AuditEvent::is_eviction);
        begun.then_some(()).ok_or_else(String::new)
    })
    .await;
    let free = json!({"metadata": {"finalizers": null}}).to_string();
    let patch = [
        "patch",
        "pod",
        "leaving",
        "-n",
        "shop",
        "--type=merge",
        "-p",
        &free,
    ];
    scene.cluster.kubectl(&patch).await;
    let path = format!("/api/nodes/{NODE}?plan=false");
    let view = wait_until("the drain to end", LIMIT, async || {
        let (_, body) = scene.foreshock.get(&path).await;
        let view: Value = serde_json::from_str(&body).unwrap_or_default();
        let over = view["phase"] == "tainted" && view["hold"]["reason"] == "drain_failed";
        if over { Ok(view) } else { Err(body) }
    })
    .await;

    // Item by item: what was asked of the API server, and who is still there.
    let asked: Vec<AuditEvent> = writes(&scene)
        .into_iter()
        .filter(AuditEvent::is_eviction)
        .collect();
    let there: BTreeSet<String> = scene.pods_on(&[NODE.to_owned()]);
    let mut ordinary: Vec<Timestamp> = Vec::new();
    let mut critical: Vec<Timestamp> = Vec::new();
    let mut differences = Vec::new();
    for pod in &pods {
        let uid = text(pod, "uid");
        let of_it = || {
            asked
                .iter()
                .filter(|event| event.pod_uid() == Some(uid.as_str()))
        };
        let accepted: Vec<Timestamp> = of_it()
            .filter(|event| event.succeeded())
            .map(|event| event.received)
            .collect();
        let terminating = !pod["terminating_until"].is_null();
        let done = (of_it().count() > 0, accepted.len(), there.contains(&uid));
        let planned = match (pod["disposition"].as_str().expect("a word"), terminating) {
            ("evict", false) => (true, 1, false),
            ("evict", true) => (false, 0, false),
            ("impossible" | "leave" | "skip", _) => (false, 0, true),
            (word, _) => panic!("{word} is no disposition"),
        };
        if done != planned {
            differences.push(format!(
                "{}: planned {planned:?}, done {done:?}",
                text(pod, "name")
            ));
        }
        if pod["critical"] == true {
            critical.extend(accepted);
        } else {
            ordinary.extend(accepted);
        }
    }
    assert!(differences.is_empty(), "{differences:#?}");
    assert_eq!((ordinary.len(), critical.len()), (6, 1));
    assert!(
        critical[0] > *ordinary.iter().max().expect("some went"),
        "critical ones go last"
    );
    let known: BTreeSet<String> = pods.iter().map(|pod| text(pod, "uid")).collect();
    assert!(
        asked
            .iter()
            .all(|event| event.pod_uid().is_some_and(|uid| known.contains(uid)))
    );

    // The outcome is typed, and names those that the plan has called impossible.
    let outcomes: BTreeMap<String, String> = view["history"]["events"]
        .as_array()
        .expect("its events")
        .iter()
        .filter(|event| !event["pod"].is_null() && !event["reason"].is_null())
        .map(|event| (text(event, "pod"), text(event, "reason")))
        .collect();
    for (app, outcome) in [
        ("strict", "never_allowed"),
        ("doubled", "overlapping_pdbs"),
        ("held", "stuck_terminating"),
    ] {
        let (pod, of_it) = outcomes
            .iter()
            .find(|(pod, _)| pod.contains(app))
            .unwrap_or_else(|| panic!("nothing is told of {app}: {outcomes:?}"));
        assert_eq!(of_it, outcome, "{pod}");
    }
    println!("{}", view["hold"]["detail"]);
}
