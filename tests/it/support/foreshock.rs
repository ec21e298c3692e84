//! The program itself, as its users run it: the dev-profile binary, in a process of its own.

use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use serde_json::Value;

use super::cluster::Cluster;
use super::server::{Server, Workdir, listening};
use super::{free_port, http};

/// Who it is to the API server.
pub(crate) const ACCOUNT: &str = "system:serviceaccount:foreshock:foreshock";

/// A running `foreshock run`.
#[derive(Debug)]
pub(crate) struct Foreshock {
    server: Server,
    url: String,
    http: reqwest::Client,
    // After the server: it is dropped last, when the log is whole.
    workdir: Workdir,
}

impl Foreshock {
    /// Starts `foreshock run --config CONFIG ARGS` and waits until it says where it listens. The
    /// configuration should listen on `127.0.0.1:0`.
    pub(crate) async fn start(config: &Path, env: &[(&str, &str)], args: &[&str]) -> Self {
        let config = config.display().to_string();
        let mut all = vec!["run", "--config", &config];
        all.extend(args);
        Self::start_command(&all, env).await
    }

    /// Starts `foreshock ARGS`, for the other commands that serve, such as `demo`.
    pub(crate) async fn start_command(args: &[&str], env: &[(&str, &str)]) -> Self {
        let workdir = Workdir::new("foreshock");
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let program = Path::new(env!("CARGO_BIN_EXE_foreshock"));
        let server = Server::start("foreshock", program, args, env, workdir.path());
        let mut foreshock = Self {
            server,
            url: String::new(),
            http: http(),
            workdir,
        };
        foreshock.wait_listening().await;
        foreshock
    }

    async fn wait_listening(&mut self) {
        self.url = self
            .server
            .ready(Duration::from_secs(30), async |log| {
                Some(format!("http://{}", listening(log)?))
            })
            .await;
    }

    /// Without a slash at its end. It changes with a restart when the configured port is 0.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    /// What the process that runs now has logged.
    pub(crate) fn log(&self) -> String {
        self.server.log()
    }

    /// Status and body of a GET.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let answer = self
            .http
            .get(format!("{}{path}", self.url))
            .send()
            .await
            .unwrap_or_else(|error| panic!("GET {path} failed: {error:?}"));
        let status = answer.status().as_u16();
        let body = answer
            .text()
            .await
            .unwrap_or_else(|error| panic!("GET {path} broke off: {error:?}"));
        (status, body)
    }

    /// The JSON of a GET that must succeed.
    pub(crate) async fn get_json(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "GET {path}: {body}");
        serde_json::from_str(&body)
            .unwrap_or_else(|error| panic!("GET {path} is no JSON ({error}): {body}"))
    }

    /// Status and body of a POST of JSON.
    pub(crate) async fn post_json(&self, path: &str, body: &Value) -> (u16, String) {
        let answer = self
            .http
            .post(format!("{}{path}", self.url))
            .json(body)
            .send()
            .await
            .unwrap_or_else(|error| panic!("POST {path} failed: {error:?}"));
        let status = answer.status().as_u16();
        (status, answer.text().await.unwrap_or_default())
    }

    /// Ends it with SIGKILL: no destructor, no release, no goodbye.
    pub(crate) fn kill9(&mut self) {
        self.server.kill();
    }

    /// Ends it with SIGTERM.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        self.server.stop(Duration::from_secs(30)).await
    }

    /// Starts it again with the same arguments; one that runs is killed first.
    pub(crate) async fn restart(&mut self) {
        self.server.start_again();
        self.wait_listening().await;
    }
}

/// The ServiceAccount and the roles of `deploy/kustomize/base`, and nothing else of it.
pub(crate) async fn apply_account(cluster: &Cluster) {
    let base = format!("{}/deploy/kustomize/base", env!("CARGO_MANIFEST_DIR"));
    let all = cluster.kubectl(&["kustomize", &base]).await;
    let wanted = [
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
    ];
    let parts: Vec<&str> = all
        .split("\n---\n")
        .filter(|part| {
            wanted
                .iter()
                .any(|kind| part.lines().any(|line| line == format!("kind: {kind}")))
        })
        .collect();
    assert_eq!(
        parts.len(),
        wanted.len(),
        "the base has one of each of {wanted:?}"
    );
    cluster.kubectl(&["create", "namespace", "foreshock"]).await;
    cluster.apply(&parts.join("\n---\n")).await;
}

/// The configuration of a service that drains Nodes for the alert `NodeOnFire`, without telemetry: waiting times
/// before a drain are shortened, and `more` says what else differs from the defaults.
pub(crate) fn drains_for_alerts(kubeconfig: &Path, more: &str) -> String {
    format!(
        r#"
[listen]
address = "127.0.0.1:0"
[prometheus]
url = "http://127.0.0.1:{nobody}"
[kubernetes]
kubeconfig = "{kubeconfig}"
namespace = "foreshock"
[cycle]
interval = "1s"
[policy]
reach = "evict"
drain_after = "1s"
new_node_age = "0s"
[[alerts.rules]]
match = ['alertname="NodeOnFire"']
floor = 0.8
reach = "evict"
expire = "3h"
{more}
"#,
        nobody = free_port(),
        kubeconfig = kubeconfig.display(),
    )
}
