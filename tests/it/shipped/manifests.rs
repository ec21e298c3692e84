//! Manifests and sample configuration, held against the program.

use std::collections::BTreeSet;
use std::path::Path;

use foreshock::config::Config;
use foreshock::kubernetes::permissions::{self, RIGHTS, SURGE_RIGHTS, Scope};
use foreshock::web::PeerUrl;
use serde_json::Value;

use super::{items, root, string, text, yaml};
use crate::support;

const BASE: &str = "deploy/kustomize/base";
const SURGE: &str = "deploy/kustomize/components/surge";
const OPERATOR: &str = "deploy/kustomize/components/prometheus-operator";

fn parse(text: &str, path: &str) -> Config {
    Config::parse(text, Path::new(path), []).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_sample_configuration_is_every_default_written_out() {
    let sample = text("config/foreshock.toml");
    let config = parse(&sample, "config/foreshock.toml");
    let default = parse("", "config/foreshock.toml");
    assert_eq!(format!("{config:#?}"), format!("{default:#?}"));
    // The examples in comments are read as well.
    let example: String = sample
        .lines()
        .skip_while(|line| *line != "# [[alerts.rules]]")
        .map(|line| line.trim_start_matches("# ").to_owned() + "\n")
        .collect();
    let rules = parse(&example, "config/foreshock.toml").alerts.rules;
    assert_eq!(rules.len(), 1);
    assert_eq!(rules[0].matchers.len(), 2);
}

#[test]
fn the_sample_configuration_says_of_every_unbuilt_key_that_it_is() {
    let sample = text("config/foreshock.toml");
    for key in Config::UNBUILT {
        let key = key.split(' ').next().expect("a key");
        let (_, last) = key.rsplit_once('.').expect("a section");
        let line = sample
            .lines()
            .find(|line| line.split(" =").next() == Some(last))
            .unwrap_or_else(|| panic!("{key} is not in the sample"));
        assert!(line.contains("not built yet"), "{line}");
    }
}

#[test]
fn the_configuration_of_the_base_is_valid_safe_and_finds_its_secret() {
    let path = format!("{BASE}/foreshock.toml");
    let config = parse(&text(&path), "/etc/foreshock/foreshock.toml");
    assert_eq!(config.listen.to_string(), "0.0.0.0:5000");
    assert_eq!(config.policy.rules.reach.as_str(), "observe");
    let credentials = format!("{:?}", config.web.credentials);
    assert!(
        credentials.contains("/etc/foreshock-auth/token"),
        "{credentials}"
    );
    let pod = pod();
    let mounts: Vec<&str> = items(&pod["containers"][0]["volumeMounts"])
        .iter()
        .map(|mount| string(&mount["mountPath"]))
        .collect();
    assert_eq!(mounts, ["/etc/foreshock", "/etc/foreshock-auth"]);
    assert_eq!(pod["volumes"][1]["secret"]["secretName"], "foreshock-auth");
    let kustomization = yaml(&format!("{BASE}/kustomization.yaml"));
    let generated = &kustomization["configMapGenerator"][0];
    assert_eq!(generated["name"], pod["volumes"][0]["configMap"]["name"]);
    assert_eq!(items(&generated["files"]), ["foreshock.toml"]);
    let tag = string(&kustomization["images"][0]["newTag"]);
    assert_eq!(tag, env!("CARGO_PKG_VERSION"));
    // No secret is in the repository.
    for path in super::files(BASE) {
        let text = std::fs::read_to_string(&path).expect("readable");
        assert!(!text.contains("kind: Secret"), "{}", path.display());
    }
}

fn deployment() -> Value {
    yaml(&format!("{BASE}/deployment.yaml"))
}

fn pod() -> Value {
    deployment()["spec"]["template"]["spec"].clone()
}

#[test]
fn the_pod_may_as_little_as_it_needs() {
    let pod = pod();
    assert_eq!(pod["serviceAccountName"], "foreshock");
    assert_eq!(pod["enableServiceLinks"], false);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        pod["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    let container = &pod["containers"][0];
    let security = &container["securityContext"];
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(items(&security["capabilities"]["drop"]), ["ALL"]);
    assert!(container["resources"]["requests"]["cpu"].is_string());
    assert!(container["resources"]["limits"]["memory"].is_string());
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/healthz");
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
    assert_eq!(container["ports"][0]["containerPort"], 5000);
    assert_eq!(items(&container["args"])[0], "run");
}

#[test]
fn two_replicas_roll_one_after_the_other_and_know_their_own_address() {
    let deployment = deployment();
    assert_eq!(deployment["spec"]["replicas"], 2);
    let strategy = &deployment["spec"]["strategy"];
    assert_eq!(strategy["type"], "RollingUpdate");
    assert_eq!(strategy["rollingUpdate"]["maxUnavailable"], 1);
    let labels = deployment["spec"]["template"]["metadata"]["labels"].clone();
    assert_eq!(deployment["spec"]["selector"]["matchLabels"], labels);
    let pod = pod();
    let spread = &pod["affinity"]["podAntiAffinity"];
    let terms = items(&spread["preferredDuringSchedulingIgnoredDuringExecution"]);
    assert_eq!(terms.len(), 1);
    assert_eq!(
        terms[0]["podAffinityTerm"]["labelSelector"]["matchLabels"],
        labels
    );
    // Two are to run where there is one Node only, too.
    assert!(spread["requiredDuringSchedulingIgnoredDuringExecution"].is_null());
    let budget = yaml(&format!("{BASE}/pdb.yaml"));
    assert_eq!(budget["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(budget["spec"]["maxUnavailable"], 1);

    // The address of the Pod overrides a key that there is, and gets the port that is listened on.
    let env: Vec<(&str, &str)> = items(&pod["containers"][0]["env"])
        .iter()
        .map(|variable| {
            let field = &variable["valueFrom"]["fieldRef"]["fieldPath"];
            (string(&variable["name"]), string(field))
        })
        .collect();
    let name = "FORESHOCK__LISTEN__ADVERTISE";
    assert!(env.contains(&(name, "status.podIP")), "{env:?}");
    let path = format!("{BASE}/foreshock.toml");
    let environment = [(name.to_owned(), "10.1.2.3".to_owned())];
    let config = Config::parse(&text(&path), Path::new(&path), environment).expect("valid");
    let url = PeerUrl::advertised(config.advertise.as_deref(), config.listen, false);
    let url = url.expect("an address").expect("known");
    assert_eq!(url.as_str(), "http://10.1.2.3:5000");
    // A write and the read after it are over before the Pod is killed.
    assert_eq!(pod["terminationGracePeriodSeconds"], 30);
}

#[test]
fn prometheus_finds_the_service_and_keeps_our_labels() {
    let service = yaml(&format!("{BASE}/service.yaml"));
    let port = &service["spec"]["ports"][0];
    assert_eq!(
        port["targetPort"],
        pod()["containers"][0]["ports"][0]["name"]
    );
    let monitor = yaml(&format!("{OPERATOR}/servicemonitor.yaml"));
    let endpoint = &monitor["spec"]["endpoints"][0];
    assert_eq!(endpoint["port"], port["name"]);
    assert_eq!(endpoint["path"], "/metrics");
    // Otherwise `node` would become that of the Node foreshock runs on.
    assert_eq!(endpoint["honorLabels"], true);
    let template = deployment()["spec"]["template"]["metadata"]["labels"].clone();
    assert_eq!(service["spec"]["selector"], template);
    assert_eq!(monitor["spec"]["selector"]["matchLabels"], template);
}

#[test]
fn the_operator_gets_the_same_rules() {
    let operator = yaml(&format!("{OPERATOR}/prometheusrule.yaml"));
    let rules = yaml("rules/foreshock.rules.yaml");
    assert_eq!(operator["spec"]["groups"], rules["groups"]);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn kubernetes_accepts_the_base() {
    support::init();
    let cluster = support::cluster::Cluster::start().await;
    cluster.kubectl(&["create", "namespace", "foreshock"]).await;
    let base = root().join(BASE);
    let base = base.to_str().expect("a path");
    let output = cluster
        .kubectl(&["apply", "--dry-run=server", "-k", base])
        .await;
    for kind in [
        "serviceaccount/foreshock",
        "role.rbac.authorization.k8s.io/foreshock",
        "clusterrole.rbac.authorization.k8s.io/foreshock",
        "rolebinding.rbac.authorization.k8s.io/foreshock",
        "clusterrolebinding.rbac.authorization.k8s.io/foreshock",
        "configmap/foreshock-config-",
        "service/foreshock",
        "deployment.apps/foreshock",
        "poddisruptionbudget.policy/foreshock",
    ] {
        assert!(output.contains(kind), "{kind} is not in:\n{output}");
    }
    // And not only dry: without the Secret the Pod would wait, but every object is there.
    cluster.kubectl(&["apply", "-k", base]).await;
    let surge = root().join(SURGE).join("rbac.yaml");
    let surge = surge.to_str().expect("a path");
    cluster.kubectl(&["apply", "-f", surge]).await;
    let policy = root().join("deploy/kustomize/components/network-policy/networkpolicy.yaml");
    let policy = policy.to_str().expect("a path");
    cluster
        .kubectl(&["apply", "--dry-run=server", "-n", "foreshock", "-f", policy])
        .await;
}

/// A right of one verb: namespaced or not, group, resource with subresource, name, verb.
type Right = (bool, String, String, String, String);

fn granted(folder: &str, name: &str) -> BTreeSet<Right> {
    let text = text(&format!("{folder}/rbac.yaml"));
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
    let mut granted = BTreeSet::new();
    for role in &documents {
        let namespaced = match string(&role["kind"]) {
            "ClusterRole" => false,
            "Role" => true,
            "ClusterRoleBinding" | "RoleBinding" => {
                assert_eq!(role["subjects"][0]["name"], "foreshock");
                assert_eq!(role["roleRef"]["name"], name);
                continue;
            }
            other => panic!("unexpected {other}"),
        };
        for rule in items(&role["rules"]) {
            let names = match items(&rule["resourceNames"]) {
                [] => vec![""],
                names => names.iter().map(string).collect(),
            };
            for group in items(&rule["apiGroups"]).iter().map(string) {
                for resource in items(&rule["resources"]).iter().map(string) {
                    for verb in items(&rule["verbs"]).iter().map(string) {
                        for name in &names {
                            let right = [group, resource, name, verb].map(str::to_owned);
                            let [group, resource, name, verb] = right;
                            let new = granted.insert((namespaced, group, resource, name, verb));
                            assert!(new, "granted twice: {rule}");
                        }
                    }
                }
            }
        }
    }
    granted
}

#[test]
fn the_roles_grant_exactly_what_the_program_asks_for() {
    grants(BASE, "foreshock", &RIGHTS);
    // The name in the Role is that of the Lease.
    let base = parse(&text(&format!("{BASE}/foreshock.toml")), "foreshock.toml");
    assert_eq!(base.kubernetes.instance, "foreshock");
}

#[test]
fn the_component_for_surge_grants_what_that_needs_and_nothing_else() {
    grants(SURGE, "foreshock-surge", &SURGE_RIGHTS);
    let component = yaml(&format!("{SURGE}/kustomization.yaml"));
    assert_eq!(component["kind"], "Component");
    assert_eq!(component["resources"], serde_json::json!(["rbac.yaml"]));
}

fn grants(folder: &str, name: &str, rights: &[permissions::Right]) {
    let asked: BTreeSet<Right> = rights
        .iter()
        .flat_map(|right| {
            let (namespaced, name) = match right.scope {
                Scope::Cluster => (false, ""),
                Scope::LeaseNamespace => (true, ""),
                Scope::Lease => (true, "foreshock"),
            };
            let resource = match right.subresource {
                "" => right.resource.to_owned(),
                subresource => format!("{}/{subresource}", right.resource),
            };
            right.verbs.iter().map(move |verb| {
                let [group, name, verb] = [right.group, name, verb].map(str::to_owned);
                (namespaced, group, resource.clone(), name, verb)
            })
        })
        .collect();
    let granted = granted(folder, name);
    let missing: Vec<_> = asked.difference(&granted).collect();
    assert!(missing.is_empty(), "asked for and not granted: {missing:?}");
    let needless: Vec<_> = granted.difference(&asked).collect();
    assert!(
        needless.is_empty(),
        "granted and never needed: {needless:?}"
    );
}
