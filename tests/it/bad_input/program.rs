//! Command line, configuration, model and features: what the program says, and its exit code.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::BASE;
use crate::support::cluster::Cluster;
use crate::support::prometheus::{Prometheus, PrometheusOptions};
use crate::support::server::Workdir;
use crate::support::{free_port, init};

/// One run of the program. In every text `{dir}` is the folder with the files, and `{taken}` the address
/// of somebody else's listener.
struct Case {
    name: &'static str,
    args: &'static [&'static str],
    /// Name and content of files beside each other; a content of `model:…` is made from the built-in
    /// model, see [`content`].
    files: &'static [(&'static str, &'static str)],
    env: &'static [(&'static str, &'static str)],
    code: i32,
    /// What the output has to say, all of it.
    says: &'static [&'static str],
}

const RUN: &[&str] = &["run", "--config", "{dir}/foreshock.toml"];
const CHECK: &[&str] = &["check", "--config", "{dir}/foreshock.toml"];
/// `load_per_core`, which the built-in model uses, from another metric.
const OTHER_FEATURES: &str = "features:load15";

const CASES: &[Case] = &[
    Case {
        name: "no configuration file",
        args: RUN,
        files: &[],
        env: &[],
        code: 1,
        says: &[
            "foreshock: configuration file {dir}/foreshock.toml cannot be read: No such file or directory",
        ],
    },
    Case {
        name: "broken TOML",
        args: RUN,
        files: &[("foreshock.toml", "[policy\nreach = \"evict\"")],
        env: &[],
        code: 1,
        says: &[
            "foreshock: configuration file {dir}/foreshock.toml is not valid TOML: ",
            "line 1, column 8",
        ],
    },
    Case {
        name: "several faults are listed together, each with its key",
        args: RUN,
        files: &[(
            "foreshock.toml",
            "[policy]\nrecover_below = 0.9\nconfirm_for = 45\n[cycle]\ninterval = \"7s\"\n[prometheus]\nurl = \"localhost\"\n[[alerts.rules]]\nmatch = ['alertname=~\"(\"']\nfloor = 7",
        )],
        env: &[],
        code: 1,
        says: &[
            "foreshock: 6 faults in the configuration of {dir}/foreshock.toml:\n",
            "\n  policy.recover_below: must not exceed `policy.at_risk` (0.65), got 0.9\n",
            "\n  policy.confirm_for: has to be a time with its unit in quotes, such as \"45s\", got 45\n",
            "\n  cycle.interval: has to divide 5 minutes, so that history can be replayed on the same grid\n",
            "\n  prometheus.url: has to be a URL such as http://127.0.0.1:9090, got \"localhost\"\n",
            "\n  alerts.rules[0].match: in `alertname=~\"(\"`: `(` is not a regular expression: regex parse error: ( ^ error: unclosed group\n",
            "\n  alerts.rules[0].floor: has to be between 0 and 1, got 7",
        ],
    },
    Case {
        name: "unknown key",
        args: CHECK,
        files: &[("foreshock.toml", "[policy]\nconfirm_fro = \"1m\"")],
        env: &[],
        code: 1,
        says: &[
            "1 fault in the configuration of {dir}/foreshock.toml:\n  policy.confirm_fro: unknown key; did you mean `confirm_for`?",
        ],
    },
    Case {
        name: "unknown section",
        args: RUN,
        files: &[("foreshock.toml", "[evictions]\nrate = 5")],
        env: &[],
        code: 1,
        says: &["  evictions: unknown key; did you mean `eviction`?"],
    },
    Case {
        name: "a key that is no table",
        args: RUN,
        files: &[("foreshock.toml", "policy = \"evict\"")],
        env: &[],
        code: 1,
        says: &["  policy: has to be a table, [policy], got \"evict\""],
    },
    Case {
        name: "NoExecute",
        args: RUN,
        files: &[(
            "foreshock.toml",
            "[policy]\ntaint = \"degradation=true:NoExecute\"",
        )],
        env: &[],
        code: 1,
        says: &[
            "  policy.taint: NoExecute is refused: it deletes Pods past their PodDisruptionBudgets",
        ],
    },
    Case {
        name: "a grace period of zero",
        args: RUN,
        files: &[("foreshock.toml", "[eviction]\ngrace_period = \"0s\"")],
        env: &[],
        code: 1,
        says: &[
            "  eviction.grace_period: has to be \"pod\" or at least \"1s\": zero would kill without asking",
        ],
    },
    Case {
        name: "a behaviour that is not built yet",
        args: RUN,
        files: &[("foreshock.toml", "[policy]\ncondition = true")],
        env: &[],
        code: 1,
        says: &["  policy.condition: is not built into this version yet; remove the key"],
    },
    Case {
        name: "pools and windows that cannot be understood",
        args: RUN,
        files: &[(
            "foreshock.toml",
            "[policy]\nwindows = [{ days = [\"Monday\"], from = \"25:00\", to = \"05:00\", time_zone = \"Mars\" }]\n\
             [[policy.pools]]\nname = \"gpu\"\nselector = \"pool of gpu\"\nat_risk = 0.4\n[policy.pools.limits]\ntainted_max = \"many\"",
        )],
        env: &[],
        code: 1,
        says: &[
            "  policy.windows[0].days: has to be a list of Mon, Tue, Wed, Thu, Fri, Sat and Sun, got \"Monday\" in it",
            "  policy.windows[0].from: has to be a time of day such as \"22:00\", got \"25:00\"",
            "  policy.windows[0].time_zone: has to be a name such as \"Europe/Berlin\" or \"UTC\", got \"Mars\"",
            "  policy.pools[0].selector: cannot be understood at \"pool of gpu\"",
            "  policy.pools[0].caution: must not exceed `policy.pools[0].at_risk` (0.4), got 0.5",
            "  policy.pools[0].limits.tainted_max: has to be a count, or a percentage in quotes such as \"10%\", got many",
        ],
    },
    Case {
        name: "a wrong override in the environment",
        args: RUN,
        files: &[("foreshock.toml", "")],
        env: &[
            ("FORESHOCK__POLICY__REACH", "destroy"),
            ("FORESHOCK_PORT", "tcp://10.0.0.1:5000"),
        ],
        code: 1,
        says: &[
            "1 fault in the configuration",
            "  policy.reach: has to be one of \"observe\", \"label\", \"taint\", \"evict\", got \"destroy\"",
        ],
    },
    Case {
        name: "an unknown key in the environment",
        args: RUN,
        files: &[("foreshock.toml", "")],
        env: &[("FORESHOCK__PROMETHEUS__ULR", "http://prometheus:9090")],
        code: 1,
        says: &["  prometheus.ulr: unknown key; did you mean `url`?"],
    },
    Case {
        name: "open to others without credentials",
        args: RUN,
        files: &[("foreshock.toml", "[listen]\naddress = \"0.0.0.0:5000\"")],
        env: &[],
        code: 1,
        says: &[
            "  auth.bearer_token_file: is needed because `listen.address` (0.0.0.0:5000) is not loopback: set it, or user and password_file",
        ],
    },
    Case {
        name: "a token file that is not there",
        args: RUN,
        files: &[(
            "foreshock.toml",
            "base:[auth]\nbearer_token_file = \"token\"",
        )],
        env: &[],
        code: 1,
        says: &["the secret of [auth] cannot be used: {dir}/token: No such file or directory"],
    },
    Case {
        name: "a port in use",
        args: RUN,
        files: &[("foreshock.toml", "base:")],
        env: &[("FORESHOCK__LISTEN__ADDRESS", "{taken}")],
        code: 1,
        says: &[
            "foreshock: cannot listen on {taken}: the port is in use; stop the other program, or set listen.address",
        ],
    },
    Case {
        name: "a port in use, checked",
        args: CHECK,
        files: &[("foreshock.toml", "base:")],
        env: &[("FORESHOCK__LISTEN__ADDRESS", "{taken}")],
        code: 1,
        says: &["FAIL  listen         cannot listen on {taken}: the port is in use"],
    },
    Case {
        name: "a port in use, in the demo",
        args: &["demo", "--listen", "{taken}"],
        files: &[],
        env: &[],
        code: 1,
        says: &["foreshock: cannot listen on {taken}: the port is in use"],
    },
    Case {
        name: "no model file",
        args: RUN,
        files: &[("foreshock.toml", "base:[model]\nfile = \"model.json\"")],
        env: &[],
        code: 1,
        says: &[
            "foreshock: model file `{dir}/model.json` cannot be read; check `model.file` and its permissions: No such file or directory",
        ],
    },
    Case {
        name: "a model file of noise",
        args: RUN,
        files: &[
            ("foreshock.toml", "base:[model]\nfile = \"model.json\""),
            ("model.json", "\u{1}\u{2}not a model"),
        ],
        env: &[],
        code: 1,
        says: &[
            "foreshock: the model is not a complete model file; copy it again or make it anew with `foreshock train`: expected value at line 1 column 1",
        ],
    },
    Case {
        name: "a model file cut in half",
        args: RUN,
        files: &[
            ("foreshock.toml", "base:[model]\nfile = \"model.json\""),
            ("model.json", "model:half"),
        ],
        env: &[],
        code: 1,
        says: &[
            "foreshock: the model is not a complete model file; copy it again",
            "EOF while parsing",
        ],
    },
    Case {
        name: "a model file with a changed number",
        args: RUN,
        files: &[
            ("foreshock.toml", "base:[model]\nfile = \"model.json\""),
            ("model.json", "model:changed"),
        ],
        env: &[],
        code: 1,
        says: &[
            "foreshock: the model's checksum does not match its content, so the file was changed or damaged; copy it again or train anew",
        ],
    },
    Case {
        name: "a model file of another version",
        args: RUN,
        files: &[
            ("foreshock.toml", "base:[model]\nfile = \"model.json\""),
            ("model.json", "model:version"),
        ],
        env: &[],
        code: 1,
        says: &[
            "foreshock: the model has format version 7, this program reads 1; train it anew with this program",
        ],
    },
    Case {
        name: "JSON that is no model",
        args: RUN,
        files: &[
            ("foreshock.toml", "base:[model]\nfile = \"model.json\""),
            ("model.json", "{\"trees\": []}"),
        ],
        env: &[],
        code: 1,
        says: &[
            "foreshock: the file is no foreshock model (its `format` is not `foreshock-model`)",
        ],
    },
    Case {
        name: "a model for other features",
        args: RUN,
        files: &[
            ("foreshock.toml", "base:features_file = \"features.toml\""),
            ("features.toml", OTHER_FEATURES),
        ],
        env: &[],
        code: 1,
        says: &[
            "foreshock: the model was trained with other features than these: ",
            "load_per_core",
            "set `prometheus.features_file` to the file it was trained with, or train anew",
        ],
    },
    Case {
        name: "a model for other features, checked",
        args: CHECK,
        files: &[
            ("foreshock.toml", "base:features_file = \"features.toml\""),
            ("features.toml", OTHER_FEATURES),
        ],
        env: &[],
        code: 1,
        says: &["FAIL  model          the model was trained with other features than these: "],
    },
    Case {
        name: "no features file",
        args: RUN,
        files: &[("foreshock.toml", "base:features_file = \"features.toml\"")],
        env: &[],
        code: 1,
        says: &[
            "  prometheus.features_file: {dir}/features.toml cannot be read: No such file or directory",
        ],
    },
    Case {
        name: "a broken features file",
        args: RUN,
        files: &[
            ("foreshock.toml", "base:features_file = \"features.toml\""),
            (
                "features.toml",
                "[[feature]]\nname = \"Odd Name\"\nunit = \"stones\"\npromql = 'up{$X}'\nmin = 3\nmax = 2",
            ),
        ],
        env: &[],
        code: 1,
        says: &[
            "  prometheus.features_file: {dir}/features.toml: ",
            "Odd Name",
            "unit",
            "stones",
        ],
    },
    Case {
        name: "a selector that is none",
        args: RUN,
        files: &[("foreshock.toml", "base:selector = 'job=='")],
        env: &[],
        code: 1,
        says: &["foreshock: Prometheus cannot be asked as configured:\nprometheus.selector: "],
    },
    Case {
        name: "no kubeconfig",
        args: RUN,
        files: &[("foreshock.toml", "base:")],
        env: &[
            ("FORESHOCK__KUBERNETES__ENABLED", "true"),
            ("FORESHOCK__KUBERNETES__KUBECONFIG", "admin.conf"),
        ],
        code: 1,
        says: &[
            "foreshock: no way to Kubernetes; correct [kubernetes], or set kubernetes.enabled = false to only watch: kubeconfig {dir}/admin.conf cannot be used",
            "No such file or directory",
        ],
    },
    Case {
        name: "a kubeconfig of noise",
        args: RUN,
        files: &[("foreshock.toml", "base:"), ("admin.conf", "clusters: [")],
        env: &[
            ("FORESHOCK__KUBERNETES__ENABLED", "true"),
            ("FORESHOCK__KUBERNETES__KUBECONFIG", "admin.conf"),
        ],
        code: 1,
        says: &["kubeconfig {dir}/admin.conf cannot be used; correct `kubernetes.kubeconfig`: "],
    },
    Case {
        name: "no Kubernetes around",
        args: CHECK,
        files: &[("foreshock.toml", "base:")],
        env: &[("FORESHOCK__KUBERNETES__ENABLED", "true")],
        code: 1,
        says: &[
            "FAIL  kubernetes     kubeconfig ~/.kube/config cannot be used; correct `kubernetes.kubeconfig`: ",
            "FAIL  features       not asked for",
        ],
    },
    Case {
        name: "an unreachable Prometheus, checked",
        args: CHECK,
        files: &[("foreshock.toml", "base:")],
        env: &[],
        code: 1,
        says: &[
            "FAIL  features       no telemetry for ",
            "did not reach the server",
            "Connection refused",
            " checks failed",
        ],
    },
    Case {
        name: "a certificate authority that is not there",
        args: RUN,
        files: &[("foreshock.toml", "base:ca_file = \"ca.pem\"")],
        env: &[],
        code: 1,
        says: &[
            "foreshock: Prometheus cannot be asked as configured:\nprometheus.ca_file: ",
            "{dir}/ca.pem",
            "No such file or directory",
        ],
    },
    Case {
        name: "an unknown command",
        args: &["drain", "worker-01"],
        files: &[],
        env: &[],
        code: 2,
        says: &[
            "error: unrecognized subcommand 'drain'",
            "Usage: foreshock <COMMAND>",
        ],
    },
    Case {
        name: "an unknown flag",
        args: &["run", "--config", "x.toml", "--force"],
        files: &[],
        env: &[],
        code: 2,
        says: &["error: unexpected argument '--force' found"],
    },
    Case {
        name: "no configuration given",
        args: &["run"],
        files: &[],
        env: &[],
        code: 2,
        says: &["error: the following required arguments were not provided:\n  --config <FILE>"],
    },
    Case {
        name: "an address that is none",
        args: &["demo", "--listen", "localhost"],
        files: &[],
        env: &[],
        code: 2,
        says: &[
            "error: invalid value 'localhost' for '--listen <ADDRESS>': invalid socket address",
        ],
    },
    Case {
        name: "an unknown kind of fault",
        args: &["fleet", "--fault", "worker-01:fire"],
        files: &[],
        env: &[],
        code: 2,
        says: &[
            "invalid value 'worker-01:fire' for '--fault <FAULT>': `fire` is no kind of fault: use one of memory-leak, slow-disk",
        ],
    },
    Case {
        name: "a fault beyond everything",
        args: &["fleet", "--fault", "worker-01:slow-disk:severity=1.5"],
        files: &[],
        env: &[],
        code: 2,
        says: &["`severity=1.5`: must be above 0 and at most 1"],
    },
    Case {
        name: "a fault of nobody",
        args: &[
            "fleet",
            "--listen",
            "127.0.0.1:0",
            "--fault",
            "worker-99:slow-disk",
        ],
        files: &[],
        env: &[],
        code: 1,
        says: &[
            "foreshock: the fleet cannot be simulated: no Node of the fleet is named `worker-99`",
        ],
    },
    Case {
        name: "a fleet of nobody",
        args: &["fleet", "--listen", "127.0.0.1:0", "--nodes", "0"],
        files: &[],
        env: &[],
        code: 1,
        says: &["foreshock: the fleet cannot be simulated: a fleet has 1 to 10000 Nodes, got 0"],
    },
    Case {
        name: "a model without saying from what",
        args: &["train", "--output", "x.json"],
        files: &[],
        env: &[],
        code: 2,
        says: &["error: the following required arguments were not provided:\n  --config <FILE>"],
    },
    Case {
        name: "a model of a simulated fleet and of one's own history",
        args: &[
            "train",
            "--synthetic",
            "--incidents",
            "i.csv",
            "--output",
            "x.json",
        ],
        files: &[],
        env: &[],
        code: 2,
        says: &["error: the argument '--synthetic' cannot be used with '--incidents <FILE>'"],
    },
    Case {
        name: "a folder for training that holds something else",
        args: &[
            "train",
            "--config",
            "foreshock.toml",
            "--work",
            "{dir}",
            "--output",
            "x.json",
        ],
        files: &[("foreshock.toml", "base:")],
        env: &[],
        code: 1,
        says: &["holds other files; `--work` takes a folder that is empty"],
    },
    Case {
        name: "a training without a Prometheus",
        args: &["train", "--config", "foreshock.toml", "--output", "x.json"],
        files: &[("foreshock.toml", "base:")],
        env: &[],
        code: 1,
        says: &["could not be had: query for the exporters (up)"],
    },
    Case {
        name: "an export that is not there",
        args: &[
            "import",
            "--xgboost",
            "{dir}/export.json",
            "--output",
            "{dir}/model.json",
        ],
        files: &[],
        env: &[],
        code: 1,
        says: &[
            "foreshock: XGBoost export `{dir}/export.json` cannot be read; check the path and its permissions: No such file or directory",
        ],
    },
    Case {
        name: "a model of XGBoost's own in place of an export",
        args: &[
            "import",
            "--xgboost",
            "{dir}/model.json",
            "--output",
            "{dir}/mine.json",
        ],
        files: &[("model.json", "{\"learner\":{},\"version\":[3,2,0]}")],
        env: &[],
        code: 1,
        says: &[
            "foreshock: the file is no XGBoost export (its `format` is not `foreshock-xgboost`); `deploy/xgboost/export.py` makes one",
        ],
    },
];

fn content(text: &str) -> String {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let model =
        || std::fs::read_to_string(manifest.join("models/synthetic.json")).expect("the model");
    let changed = |text: String, from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    };
    match text {
        "model:half" => {
            let model = model();
            model[..model.len() / 2].to_owned()
        }
        "model:changed" => changed(model(), "\"horizon_seconds\":", "\"horizon_seconds\":1"),
        "model:version" => changed(model(), "\"version\":1", "\"version\":7"),
        OTHER_FEATURES => {
            let features = std::fs::read_to_string(manifest.join("config/features.toml"));
            changed(features.expect("the features"), "node_load5", "node_load15")
        }
        _ => match text.strip_prefix("base:") {
            Some(more) => format!("{BASE}{more}"),
            None => text.to_owned(),
        },
    }
}

/// Runs the program to its end: exit code and everything it said.
async fn program(args: &[String], env: &[(String, String)], folder: &Path) -> (i32, String) {
    let run = tokio::process::Command::new(env!("CARGO_BIN_EXE_foreshock"))
        .args(args)
        .current_dir(folder)
        .env_remove("KUBECONFIG")
        .env_remove("KUBERNETES_SERVICE_HOST")
        .env("HOME", folder)
        .envs(env.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(60), run)
        .await
        .unwrap_or_else(|_| panic!("foreshock {args:?} did not end"))
        .expect("the program can be started");
    let said = [output.stdout, output.stderr].concat();
    let code = output.status.code().expect("it ended by itself");
    (code, String::from_utf8_lossy(&said).into_owned())
}

async fn check(case: &Case, taken: &str) -> Result<(), String> {
    let workdir = Workdir::new("bad-input");
    let dir = workdir.path().display().to_string();
    let filled = |text: &str| text.replace("{dir}", &dir).replace("{taken}", taken);
    for (name, text) in case.files {
        workdir.write(name, &content(text));
    }
    let args: Vec<String> = case.args.iter().map(|arg| filled(arg)).collect();
    let env: Vec<(String, String)> = case
        .env
        .iter()
        .map(|(key, value)| ((*key).to_owned(), filled(value)))
        .collect();
    let (code, said) = program(&args, &env, workdir.path()).await;
    let unsaid: Vec<String> = case
        .says
        .iter()
        .map(|text| filled(text))
        .filter(|text| !said.contains(text.as_str()))
        .collect();
    if code == case.code && unsaid.is_empty() && !said.contains("panicked") {
        return Ok(());
    }
    Err(format!(
        "{}: exit code {code} (expected {}), not said: {unsaid:#?}\nit said:\n{said}",
        case.name, case.code
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_answers_bad_input_with_one_clear_message_and_its_exit_code() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let mut wrong = Vec::new();
    for case in CASES {
        if let Err(problem) = check(case, &address).await {
            wrong.push(problem);
        }
    }
    println!("figure bad_inputs_program {}", CASES.len());
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        CASES.len(),
        wrong.join("\n----\n")
    );
}

/// Reads Nodes and Pods and everything else that `observe` needs, and may write nothing.
const READER: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules:
  - {apiGroups: [""], resources: [nodes, pods, persistentvolumes, persistentvolumeclaims], verbs: [get, list, watch]}
  - {apiGroups: [policy], resources: [poddisruptionbudgets], verbs: [get, list, watch]}
  - {apiGroups: [apps], resources: [daemonsets, replicasets], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{kind: ServiceAccount, namespace: default, name: reader}]
"#;

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
async fn a_missing_right_is_named_by_check() {
    init();
    let cluster = Cluster::start().await;
    cluster.create_nodes(1).await;
    for account in ["nobody", "reader"] {
        cluster
            .kubectl(&["create", "serviceaccount", account])
            .await;
    }
    cluster.apply(READER).await;
    let prometheus = Prometheus::start(PrometheusOptions {
        config: "scrape_configs: []".to_owned(),
        ..PrometheusOptions::default()
    })
    .await;
    for (account, reach, says) in [
        (
            "nobody",
            "observe",
            &["FAIL  permissions    missing: get nodes (to know the Nodes), list nodes"][..],
        ),
        (
            "reader",
            "evict",
            &[
                "ok    kubernetes     ",
                "FAIL  permissions    missing: patch nodes (to set and remove marks)",
                "create pods/eviction",
                "patch deployments/scale.apps (to scale a single replica up before its Pod goes, and back)",
                "list horizontalpodautoscalers.autoscaling",
                "apply the roles in deploy/kustomize/base, with components/surge for eviction.surge",
            ],
        ),
        ("reader", "observe", &["ok    permissions    all "]),
    ] {
        let kubeconfig = cluster.kubeconfig_for("default", account).await;
        let workdir = Workdir::new("rights");
        let config = workdir.write(
            "foreshock.toml",
            &format!(
                "[listen]\naddress = \"127.0.0.1:{}\"\n[kubernetes]\nkubeconfig = \"{}\"\nnamespace = \"default\"\n[prometheus]\nurl = \"{}\"\n[policy]\nreach = \"{reach}\"\n[eviction]\nsurge = true\n",
                free_port(),
                kubeconfig.display(),
                prometheus.url()
            ),
        );
        let args = ["check", "--config", &config.display().to_string()].map(str::to_owned);
        let (code, said) = program(&args, &[], workdir.path()).await;
        // The Prometheus knows no Node, so that `check` fails in any case.
        assert_eq!(code, 1, "{said}");
        for says in says {
            assert!(
                said.contains(says),
                "{account}, {reach}: {says:?} is not in\n{said}"
            );
        }
    }
}
