//! A Prometheus of its own for one test.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::server::{Server, Workdir, listening};
use super::{Version, http};

/// How a [`Prometheus`] is started.
#[derive(Clone, Debug, Default)]
pub(crate) struct PrometheusOptions {
    pub(crate) version: Version,
    /// The configuration file. It can refer to the rule files as `rules/*.yml`.
    pub(crate) config: String,
    /// Name and text of the rule files, such as `("node.yml", "groups: …")`.
    pub(crate) rules: Vec<(String, String)>,
    /// History to start with, in the OpenMetrics text format with timestamps; `# EOF` at its end.
    pub(crate) history: Option<String>,
    /// A folder with blocks to start with.
    pub(crate) data: Option<std::path::PathBuf>,
    /// Further arguments.
    pub(crate) args: Vec<String>,
}

/// A running Prometheus. It takes remote writes and reloads, and forgets nothing while the test lasts.
#[derive(Debug)]
pub(crate) struct Prometheus {
    server: Server,
    url: String,
    http: reqwest::Client,
    // After the server: it is dropped last, when the log is whole.
    workdir: Workdir,
}

impl Prometheus {
    pub(crate) async fn start(options: PrometheusOptions) -> Self {
        let workdir = Workdir::new("prometheus");
        let config = workdir.write("prometheus.yml", &options.config);
        for (name, text) in &options.rules {
            workdir.write(&format!("rules/{name}"), text);
        }
        let data = options.data.unwrap_or_else(|| workdir.join("data"));
        if let Some(history) = &options.history {
            let file = workdir.write("history.txt", history);
            let output = Command::new(options.version.program("promtool"))
                .args(["tsdb", "create-blocks-from", "openmetrics"])
                .args([&file, &data])
                .output()
                .expect("promtool can be started");
            assert!(
                output.status.success(),
                "promtool refuses the history: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let mut args = vec![
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", data.display()),
            "--storage.tsdb.retention.time=10y".to_owned(),
            "--web.listen-address=127.0.0.1:0".to_owned(),
            "--web.enable-lifecycle".to_owned(),
            "--web.enable-admin-api".to_owned(),
            "--web.enable-remote-write-receiver".to_owned(),
        ];
        args.extend(options.args);
        let program = options.version.program("prometheus");
        let server = Server::start("prometheus", &program, args, &[], workdir.path());
        let mut prometheus = Self {
            server,
            url: String::new(),
            http: http(),
            workdir,
        };
        prometheus.wait_ready().await;
        prometheus
    }

    async fn wait_ready(&mut self) {
        let client = self.http.clone();
        self.url = self
            .server
            .ready(Duration::from_secs(60), async |log| {
                let url = format!("http://{}", listening(log)?);
                let answer = client.get(format!("{url}/-/ready")).send().await.ok()?;
                answer.status().is_success().then_some(url)
            })
            .await;
    }

    /// Without a slash at its end.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    pub(crate) fn workdir(&self) -> &Workdir {
        &self.workdir
    }

    /// The `data.result` of an instant query evaluated now.
    pub(crate) async fn query(&self, expr: &str) -> Value {
        self.get("/api/v1/query", &[("query", expr)]).await["result"].take()
    }

    /// The value of an instant query that yields exactly one sample, or nothing.
    pub(crate) async fn value(&self, expr: &str) -> Option<f64> {
        let result = self.query(expr).await;
        match result.as_array().map(Vec::as_slice) {
            Some([one]) => one["value"][1].as_str()?.parse().ok(),
            _ => None,
        }
    }

    /// The `data` of any answer of the API, which must be a success.
    pub(crate) async fn get(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let answer = self
            .http
            .get(format!("{}{path}", self.url))
            .query(query)
            .send()
            .await
            .unwrap_or_else(|error| panic!("{path} failed: {error:?}"));
        let mut body: Value = answer
            .json()
            .await
            .unwrap_or_else(|error| panic!("{path} is no JSON: {error:?}"));
        assert_eq!(body["status"], "success", "{path} {query:?}: {body}");
        body["data"].take()
    }

    /// Replaces the configuration file and makes it count.
    pub(crate) async fn reload(&self, config: &str) {
        self.workdir.write("prometheus.yml", config);
        let answer = self
            .http
            .post(format!("{}/-/reload", self.url))
            .send()
            .await
            .expect("Prometheus takes a reload");
        assert!(
            answer.status().is_success(),
            "Prometheus refuses the configuration: {}",
            answer.text().await.unwrap_or_default()
        );
    }

    /// Ends it in good order. Its data, and its place for [`Self::restart`], stay.
    pub(crate) async fn stop(&mut self) {
        self.server.stop(Duration::from_secs(30)).await;
    }

    /// Starts it again at the same URL with the data it had; one that runs is killed first.
    pub(crate) async fn restart(&mut self) {
        let address = self.url.trim_start_matches("http://").to_owned();
        for arg in self.server.args_mut() {
            if arg.starts_with("--web.listen-address=") {
                *arg = format!("--web.listen-address={address}");
            }
        }
        self.server.start_again();
        self.wait_ready().await;
    }
}
