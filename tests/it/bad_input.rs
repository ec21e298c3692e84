//! Bad input through the real binary and the real socket: message, and exit code or status.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::cluster::Cluster;
use crate::support::foreshock::Foreshock;
use crate::support::prometheus::{Prometheus, PrometheusOptions};
use crate::support::server::Workdir;
use crate::support::{free_port, http, init, wait_until};

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
/// Watches only, asks nobody who answers, and listens where there is room.
const BASE: &str = "[listen]\naddress = \"127.0.0.1:0\"\n[kubernetes]\nenabled = false\n[prometheus]\nurl = \"http://127.0.0.1:1\"\ntimeout = \"1s\"\n";
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
        files: &[(
            "foreshock.toml",
            "[eviction]\npace = \"owner\"\n[[policy.pools]]\nname = \"gpu\"",
        )],
        env: &[],
        code: 1,
        says: &[
            "  eviction.pace: \"owner\" is not built into this version yet; use \"budget\"",
            "  policy.pools: is not built into this version yet; remove the key",
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
        says: &["error: the following required arguments were not provided:\n  --synthetic"],
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

/// One request to a running service.
struct Request {
    name: &'static str,
    method: &'static str,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: Body,
    status: u16,
    /// What the answer has to say, all of it.
    says: &'static [&'static str],
}

#[derive(Clone, Copy)]
enum Body {
    None,
    Text(&'static str),
    /// So many bytes of a JSON list.
    Bytes(usize),
}

const HOOK: &str = "/webhook/alertmanager";
const JSON: (&str, &str) = ("content-type", "application/json");
const PROBLEM: &str = "\"type\":\"about:blank\"";
const GOOD: &str = r#"{"version":"4","alerts":[]}"#;

const REQUESTS: &[Request] = &[
    Request {
        name: "a webhook that is no JSON",
        method: "POST",
        path: HOOK,
        headers: &[JSON],
        body: Body::Text("alert! alert!"),
        status: 400,
        says: &[
            PROBLEM,
            "the body is not JSON: expected value at line 1 column 1",
        ],
    },
    Request {
        name: "an empty webhook",
        method: "POST",
        path: HOOK,
        headers: &[JSON],
        body: Body::None,
        status: 400,
        says: &[PROBLEM, "the body is not JSON: EOF"],
    },
    Request {
        name: "a webhook of another shape",
        method: "POST",
        path: HOOK,
        headers: &[JSON],
        body: Body::Text("[1, 2]"),
        status: 400,
        says: &[PROBLEM, "the body is not what Alertmanager sends"],
    },
    Request {
        name: "a webhook without version",
        method: "POST",
        path: HOOK,
        headers: &[JSON],
        body: Body::Text(r#"{"alerts":[]}"#),
        status: 400,
        says: &[
            PROBLEM,
            "the body has no `version`; expected an Alertmanager webhook of version 4",
        ],
    },
    Request {
        name: "a webhook without alerts",
        method: "POST",
        path: HOOK,
        headers: &[JSON],
        body: Body::Text(r#"{"version":"4"}"#),
        status: 400,
        says: &[
            PROBLEM,
            "the body has no `alerts`; expected an Alertmanager webhook of version 4",
        ],
    },
    Request {
        name: "a webhook of 17 MiB",
        method: "POST",
        path: HOOK,
        headers: &[JSON],
        body: Body::Bytes(17 << 20),
        status: 413,
        says: &[
            PROBLEM,
            "the payload is larger than 16777216 bytes; set max_alerts in Alertmanager's webhook_config",
        ],
    },
    Request {
        name: "the webhook by GET",
        method: "GET",
        path: HOOK,
        headers: &[],
        body: Body::None,
        status: 405,
        says: &[PROBLEM, "this path does not take GET"],
    },
    Request {
        name: "the Nodes by DELETE",
        method: "DELETE",
        path: "/api/nodes",
        headers: &[],
        body: Body::None,
        status: 405,
        says: &[PROBLEM, "this path does not take DELETE"],
    },
    Request {
        name: "a webhook from a form",
        method: "POST",
        path: HOOK,
        headers: &[("content-type", "application/x-www-form-urlencoded")],
        body: Body::Text(GOOD),
        status: 415,
        says: &[PROBLEM, "application/json"],
    },
    Request {
        name: "a webhook without a type",
        method: "POST",
        path: HOOK,
        headers: &[],
        body: Body::Text(GOOD),
        status: 415,
        says: &[PROBLEM, "application/json"],
    },
    Request {
        name: "a webhook from somebody else's page",
        method: "POST",
        path: HOOK,
        headers: &[JSON, ("origin", "https://evil.example")],
        body: Body::Text(GOOD),
        status: 403,
        says: &[
            PROBLEM,
            "a page from `https://evil.example` may not do this; open foreshock's own page",
        ],
    },
    Request {
        name: "the switch from somebody else's page",
        method: "POST",
        path: "/api/monitoring/stop",
        headers: &[JSON, ("origin", "null")],
        body: Body::None,
        status: 403,
        says: &[PROBLEM, "a page from `null` may not do this"],
    },
    Request {
        name: "a webhook to a name that is not ours",
        method: "POST",
        path: HOOK,
        headers: &[JSON, ("host", "foreshock.evil.example")],
        body: Body::Text(GOOD),
        status: 403,
        says: &[
            PROBLEM,
            "host `foreshock.evil.example` is not known as a name of this server; if it is one, add it to ",
        ],
    },
    Request {
        name: "the switch where nothing is ever written",
        method: "POST",
        path: "/api/monitoring/stop",
        headers: &[JSON],
        body: Body::None,
        status: 503,
        says: &[
            PROBLEM,
            "without Kubernetes nothing is ever written (kubernetes.enabled is false)",
        ],
    },
    Request {
        name: "an unknown path",
        method: "GET",
        path: "/api/knodes",
        headers: &[],
        body: Body::None,
        status: 404,
        says: &[
            PROBLEM,
            "there is no `/api/knodes`; `GET /api/openapi.json` lists every path",
        ],
    },
    Request {
        name: "a path that climbs",
        method: "GET",
        path: "/assets/..%2f..%2fCargo.toml",
        headers: &[],
        body: Body::None,
        status: 404,
        says: &[PROBLEM],
    },
    Request {
        name: "an unknown Node",
        method: "GET",
        path: "/api/nodes/ghost",
        headers: &[],
        body: Body::None,
        status: 404,
        says: &[PROBLEM, "there is no Node `ghost`"],
    },
    Request {
        name: "the plan of an unknown Node",
        method: "GET",
        path: "/api/nodes/ghost/plan",
        headers: &[],
        body: Body::None,
        status: 404,
        says: &[PROBLEM, "there is no Node `ghost`"],
    },
    Request {
        name: "a limit that is no number",
        method: "GET",
        path: "/api/nodes?limit=lots",
        headers: &[],
        body: Body::None,
        status: 400,
        says: &[
            PROBLEM,
            "limit: must be a whole number from 1 to 10000, got `lots`",
            "\"parameter\":\"limit\"",
        ],
    },
    Request {
        name: "an unknown band",
        method: "GET",
        path: "/api/nodes?band=purple",
        headers: &[],
        body: Body::None,
        status: 400,
        says: &[
            PROBLEM,
            "band: must be one of healthy, caution, at_risk, unknown, got `purple`",
        ],
    },
    Request {
        name: "a misspelt parameter",
        method: "GET",
        path: "/api/events?nodes=worker-01",
        headers: &[],
        body: Body::None,
        status: 400,
        says: &[
            PROBLEM,
            "nodes: unknown parameter; known are after, node, kind, limit, order",
        ],
    },
    Request {
        name: "an event id that is none",
        method: "GET",
        path: "/api/events?after=yesterday",
        headers: &[],
        body: Body::None,
        status: 400,
        says: &[PROBLEM, "\"parameter\":\"after\""],
    },
];

fn bytes(size: usize) -> Vec<u8> {
    let mut body = vec![b' '; size];
    body[0] = b'[';
    body[size - 1] = b']';
    body
}

async fn ask(url: &str, request: &Request) -> Result<(), String> {
    let method = request.method.parse().expect("a method");
    let mut builder = http().request(method, format!("{url}{}", request.path));
    for (name, value) in request.headers {
        builder = builder.header(*name, *value);
    }
    builder = match request.body {
        Body::None => builder,
        Body::Text(text) => builder.body(text),
        Body::Bytes(size) => builder.body(bytes(size)),
    };
    let answer = builder
        .send()
        .await
        .map_err(|error| format!("{}: no answer: {error:?}", request.name))?;
    let status = answer.status().as_u16();
    let kind = answer.headers().get("content-type").cloned();
    let said = answer.text().await.unwrap_or_default();
    let unsaid: Vec<&&str> = request
        .says
        .iter()
        .filter(|text| !said.contains(**text))
        .collect();
    let is_problem = kind.is_some_and(|kind| kind == "application/problem+json");
    if status == request.status && unsaid.is_empty() && is_problem {
        return Ok(());
    }
    Err(format!(
        "{}: {status} (expected {}), problem+json: {is_problem}, not said: {unsaid:#?}\nit said: {said}",
        request.name, request.status
    ))
}

/// A service that watches only and whose Prometheus is not there.
async fn service(workdir: &Workdir, more: &str) -> Foreshock {
    init();
    let config = workdir.write(
        "foreshock.toml",
        &format!("{BASE}lag = \"1s\"\n[cycle]\ninterval = \"1s\"\n{more}"),
    );
    Foreshock::start(&config, &[], &[]).await
}

/// The value of one sample of `/metrics`.
async fn metric(foreshock: &Foreshock, sample: &str) -> Option<f64> {
    let (_, text) = foreshock.get("/metrics").await;
    text.lines()
        .find_map(|line| line.strip_prefix(sample)?.trim().parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_answers_bad_requests_with_problems_and_the_service_goes_on() {
    let workdir = Workdir::new("bad-requests");
    let foreshock = service(&workdir, "").await;
    let mut wrong = Vec::new();
    for request in REQUESTS {
        if let Err(problem) = ask(foreshock.url(), request).await {
            wrong.push(problem);
        }
    }
    println!("figure bad_inputs_socket {}", REQUESTS.len());
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        REQUESTS.len(),
        wrong.join("\n----\n")
    );
    let refused = "foreshock_webhook_requests_total{outcome=\"malformed\"}";
    assert_eq!(
        metric(&foreshock, refused).await,
        Some(5.0),
        "each is counted"
    );
    let (status, body) = foreshock
        .post_json(HOOK, &json!({"version": "4", "alerts": []}))
        .await;
    assert_eq!(status, 202, "after all that a good one is taken: {body}");
    assert!(!foreshock.log().contains("panicked"), "{}", foreshock.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_is_cut_off_and_the_service_goes_on() {
    let workdir = Workdir::new("no-http");
    let foreshock = service(&workdir, "").await;
    let address = foreshock.url().trim_start_matches("http://").to_owned();
    let long = format!(
        "GET / HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n",
        "a".repeat(256 << 10)
    );
    for (name, sent, expected) in [
        ("noise", "\u{1}\u{2}\u{3}\r\n\r\n", "HTTP/1.1 400 "),
        (
            "a version to come",
            "GET / HTTP/9.9\r\n\r\n",
            "HTTP/1.1 400 ",
        ),
        ("headers of 256 KiB", long.as_str(), "HTTP/1.1 431 "),
    ] {
        let mut stream = tokio::net::TcpStream::connect(&address)
            .await
            .expect("it listens");
        // It may be cut off before all of it is sent.
        let _ = stream.write_all(sent.as_bytes()).await;
        let mut said = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut said));
        let _ = read.await.unwrap_or_else(|_| panic!("{name}: not cut off"));
        let said = String::from_utf8_lossy(&said);
        assert!(said.starts_with(expected), "{name}: {said:?}");
    }
    assert_eq!(foreshock.get("/healthz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_prometheus_health_metrics_and_log_say_so_and_the_service_goes_on() {
    let workdir = Workdir::new("no-prometheus");
    let foreshock = service(&workdir, "").await;
    let health = wait_until("health to say so", Duration::from_secs(30), async || {
        let health = foreshock.get_json("/api/health").await;
        if health["status"] == "degraded" && health["prometheus"]["problem"].is_string() {
            Ok(health)
        } else {
            Err(health.to_string())
        }
    })
    .await;
    assert_eq!(health["prometheus"]["ok"], false);
    let problem = health["prometheus"]["problem"].as_str().unwrap_or_default();
    assert!(
        problem.contains("did not reach the server") && problem.contains("Connection refused"),
        "{problem}"
    );
    let failed = "foreshock_feature_snapshots_total{outcome=\"failed\"}";
    let failed = metric(&foreshock, failed).await;
    assert!(failed.is_some_and(|failed| failed >= 1.0), "{failed:?}");
    let up = metric(
        &foreshock,
        "foreshock_dependency_up{dependency=\"prometheus\"}",
    )
    .await;
    assert_eq!(up, Some(0.0));
    let log = foreshock.log();
    assert!(log.contains("WARN") && log.contains("no features"), "{log}");

    // An alert about a Node that nobody knows is taken, counted and shown.
    let alert = json!({
        "status": "firing", "labels": {"alertname": "Odd", "node": "ghost"},
        "startsAt": "2026-11-01T00:00:00Z", "endsAt": "0001-01-01T00:00:00Z",
    });
    let (status, body) = foreshock
        .post_json(HOOK, &json!({"version": "4", "alerts": [alert]}))
        .await;
    assert_eq!(status, 202, "{body}");
    wait_until(
        "the alert to be counted",
        Duration::from_secs(10),
        async || {
            let stats = foreshock.get_json("/api/stats").await;
            let received = &stats["alerts"]["received"];
            if received["unknown_node"] == 1 {
                Ok(())
            } else {
                Err(received.to_string())
            }
        },
    )
    .await;
    let counted = "foreshock_alerts_received_total{outcome=\"unknown_node\"}";
    assert_eq!(metric(&foreshock, counted).await, Some(1.0));
    let shown = foreshock.get_json("/api/alerts").await;
    assert!(shown.to_string().contains("Odd"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_missing_or_wrong_are_refused_with_a_challenge() {
    let workdir = Workdir::new("credentials");
    workdir.write("token", "s3cret\n");
    let foreshock = service(&workdir, "[auth]\nbearer_token_file = \"token\"").await;
    let good: Value = serde_json::from_str(GOOD).expect("JSON");
    for (shown, status, says) in [
        (None, 401, "this needs `Authorization: Bearer TOKEN`"),
        (Some("Bearer wrong"), 401, "the token is not the right one"),
        (
            Some("Basic czNjcmV0"),
            401,
            "this needs `Authorization: Bearer TOKEN`",
        ),
        (Some("Bearer s3cret"), 202, "\"alerts\":0"),
    ] {
        let mut request = http()
            .post(format!("{}{HOOK}", foreshock.url()))
            .json(&good);
        if let Some(shown) = shown {
            request = request.header("authorization", shown);
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), status, "{shown:?}");
        let challenge = answer.headers().contains_key("www-authenticate");
        assert_eq!(challenge, status == 401, "{shown:?}");
        let said = answer.text().await.expect("a body");
        assert!(said.contains(says), "{shown:?}: {said}");
    }
    assert_eq!(foreshock.get("/api/health").await.0, 200, "reading is open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_alerts_is_answered_with_503_and_the_service_goes_on() {
    /// Two such bodies are more than may wait at once.
    const ALERTS: usize = 30_000;
    let workdir = Workdir::new("flood");
    let foreshock = service(&workdir, "").await;
    let alerts: Vec<Value> = (0..ALERTS)
        .map(|n| {
            json!({"status": "firing", "labels": {"node": format!("n{n}")}, "startsAt": "2026-11-01T00:00:00Z"})
        })
        .collect();
    let body = json!({"version": "4", "alerts": alerts}).to_string();
    let url = format!("{}{HOOK}", foreshock.url());
    let post = || async {
        let answer = http()
            .post(&url)
            .header("content-type", "application/json")
            .body(body.clone())
            .send()
            .await
            .expect("an answer");
        let after = answer.headers().get("retry-after").is_some();
        let status = answer.status().as_u16();
        (status, after, answer.text().await.unwrap_or_default())
    };
    let mut outcomes = Vec::new();
    for _ in 0..10 {
        outcomes.extend(futures::future::join_all((0..6).map(|_| post())).await);
        if outcomes.iter().any(|(status, ..)| *status == 503) {
            break;
        }
    }
    let taken = outcomes
        .iter()
        .filter(|(status, ..)| *status == 202)
        .count();
    let full: Vec<_> = outcomes
        .iter()
        .filter(|(status, ..)| *status != 202)
        .collect();
    println!("{taken} taken, {} refused", full.len());
    assert!(taken >= 1 && !full.is_empty(), "{outcomes:?}");
    for (status, after, said) in full {
        assert_eq!(*status, 503, "{said}");
        assert!(
            *after && said.contains("the queue of payloads is full"),
            "{said}"
        );
    }
    wait_until(
        "it to take alerts again",
        Duration::from_secs(60),
        async || {
            let (status, said) = foreshock
                .post_json(HOOK, &json!({"version": "4", "alerts": []}))
                .await;
            if status == 202 { Ok(()) } else { Err(said) }
        },
    )
    .await;
}

/// Reads Nodes and Pods and everything else that `observe` needs, and may write nothing.
const READER: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules:
  - {apiGroups: [""], resources: [nodes, pods, persistentvolumes, persistentvolumeclaims], verbs: [get, list, watch]}
  - {apiGroups: [policy], resources: [poddisruptionbudgets], verbs: [get, list, watch]}
  - {apiGroups: [apps], resources: [daemonsets], verbs: [get, list, watch]}
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
                "apply the roles in deploy/kustomize/base",
            ],
        ),
        ("reader", "observe", &["ok    permissions    all "]),
    ] {
        let kubeconfig = cluster.kubeconfig_for("default", account).await;
        let workdir = Workdir::new("rights");
        let config = workdir.write(
            "foreshock.toml",
            &format!(
                "[listen]\naddress = \"127.0.0.1:{}\"\n[kubernetes]\nkubeconfig = \"{}\"\nnamespace = \"default\"\n[prometheus]\nurl = \"{}\"\n[policy]\nreach = \"{reach}\"\n",
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
