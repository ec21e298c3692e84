//! An Alertmanager of its own for one test.

use std::time::Duration;

use serde_json::Value;

use super::server::{Server, Workdir, listening};
use super::{Version, http};

/// A running Alertmanager, alone unless its arguments make it one of a cluster.
#[derive(Debug)]
pub(crate) struct Alertmanager {
    server: Server,
    url: String,
    http: reqwest::Client,
    // After the server: it is dropped last, when the log is whole.
    workdir: Workdir,
}

impl Alertmanager {
    pub(crate) async fn start(version: Version, config: &str) -> Self {
        Self::start_with(version, config, &["--cluster.listen-address="]).await
    }

    /// Like [`Self::start`], with the arguments of the caller, such as those that make it one of a pair.
    pub(crate) async fn start_with(version: Version, config: &str, args: &[&str]) -> Self {
        let workdir = Workdir::new("alertmanager");
        let config = workdir.write("alertmanager.yml", config);
        let mut all = vec![
            format!("--config.file={}", config.display()),
            format!("--storage.path={}", workdir.join("data").display()),
            "--web.listen-address=127.0.0.1:0".to_owned(),
        ];
        all.extend(args.iter().map(|&arg| arg.to_owned()));
        let program = version.program("alertmanager");
        let server = Server::start("alertmanager", &program, all, &[], workdir.path());
        let mut alertmanager = Self {
            server,
            url: String::new(),
            http: http(),
            workdir,
        };
        alertmanager.wait_ready().await;
        alertmanager
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

    /// Posts alerts as Prometheus does: an array in the form of the API's version 2.
    pub(crate) async fn post_alerts(&self, alerts: &Value) {
        let answer = self
            .http
            .post(format!("{}/api/v2/alerts", self.url))
            .json(alerts)
            .send()
            .await
            .expect("Alertmanager takes alerts");
        assert!(
            answer.status().is_success(),
            "Alertmanager refuses the alerts: {}",
            answer.text().await.unwrap_or_default()
        );
    }

    /// An answer of its API.
    pub(crate) async fn get(&self, path: &str) -> Value {
        self.http
            .get(format!("{}{path}", self.url))
            .send()
            .await
            .unwrap_or_else(|error| panic!("{path} failed: {error:?}"))
            .json()
            .await
            .unwrap_or_else(|error| panic!("{path} is no JSON: {error:?}"))
    }

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
