//! A running service, as the commands that talk to one meet it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use base64::Engine;
use clap::Args;
use reqwest::{Method, StatusCode, Url, header};

use crate::cycle::chain;
use crate::kubernetes::text::clean;
use crate::web::read_secret;

/// Where a service listens unless it is configured otherwise.
const SERVER: &str = "http://127.0.0.1:5000";
/// The service itself answers within 30 s.
const LIMIT: Duration = Duration::from_secs(35);
/// One Node in detail takes some 100 KiB, and a plan with 500 Pods some 300.
const ANSWER_BYTES_MAX: usize = 16 << 20;

#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// The running service [default: http://127.0.0.1:5000].
    #[arg(long, value_name = "URL")]
    pub(super) server: Option<String>,
    /// File with the bearer token, where the service asks for one.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// User, where the service asks for user and password.
    #[arg(
        long,
        value_name = "NAME",
        requires = "password_file",
        conflicts_with = "token_file"
    )]
    user: Option<String>,
    /// File with the password.
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// File with the certificates (PEM) to trust for https, instead of the system's.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl ServerArgs {
    /// Whether anything here was given.
    pub(super) fn is_given(&self) -> bool {
        self.server.is_some()
            || self.token_file.is_some()
            || self.user.is_some()
            || self.ca_file.is_some()
    }

    /// Makes ready to ask.
    pub(super) async fn connect(&self) -> anyhow::Result<Server> {
        let text = self.server.as_deref().unwrap_or(SERVER);
        let url = Url::parse(text)
            .with_context(|| format!("--server: {text:?} is no URL such as {SERVER}"))?;
        if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
            bail!("--server: {text:?} is no URL such as {SERVER}");
        }
        let mut builder = reqwest::Client::builder()
            // What is shown to this server is not for another one.
            .redirect(reqwest::redirect::Policy::none())
            .timeout(LIMIT);
        let host = url.host_str().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
            builder = builder.no_proxy();
        }
        if let Some(file) = &self.ca_file {
            let pem = std::fs::read(file)
                .with_context(|| format!("--ca-file: {} cannot be read", file.display()))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem).with_context(|| {
                format!("--ca-file: {} has no PEM certificates", file.display())
            })?;
            builder = builder.tls_certs_only(certificates);
        } else if url.scheme() == "http" {
            // No certificate is looked at, and looking for the system's fails where there are none.
            builder = builder.tls_certs_only([]);
        }
        let secret = |flag: &'static str, file: PathBuf| async move {
            let bytes = read_secret(&file)
                .await
                .map_err(|problem| anyhow!("{flag}: {problem}"))?;
            String::from_utf8(bytes).map_err(|_| anyhow!("{flag}: {}: is no text", file.display()))
        };
        let authorization = match (&self.token_file, &self.user, &self.password_file) {
            (Some(file), ..) => Some(format!(
                "Bearer {}",
                secret("--token-file", file.clone()).await?
            )),
            (None, Some(user), Some(file)) => {
                let password = secret("--password-file", file.clone()).await?;
                let both = format!("{user}:{password}");
                let both = base64::engine::general_purpose::STANDARD.encode(both);
                Some(format!("Basic {both}"))
            }
            (None, ..) => None,
        };
        Ok(Server {
            client: builder.build().context("no HTTP client can be made")?,
            url,
            authorization,
        })
    }
}

/// A service to be asked.
pub(super) struct Server {
    client: reqwest::Client,
    url: Url,
    authorization: Option<String>,
}

impl Server {
    /// The JSON of a GET. `path` is given in segments, which are escaped here.
    pub(super) async fn get(&self, path: &[&str]) -> anyhow::Result<Vec<u8>> {
        self.ask(Method::GET, path).await
    }

    /// The JSON of a POST without a body.
    pub(super) async fn post(&self, path: &[&str]) -> anyhow::Result<Vec<u8>> {
        self.ask(Method::POST, path).await
    }

    async fn ask(&self, method: Method, path: &[&str]) -> anyhow::Result<Vec<u8>> {
        let mut url = self.url.clone();
        url.path_segments_mut()
            .map_err(|()| anyhow!("{} is no URL to ask", self.url))?
            .pop_if_empty()
            .extend(path);
        let what = format!("{method} {url}");
        let mut request = self.client.request(method.clone(), url);
        if method == Method::POST {
            request = request
                .header(header::CONTENT_TYPE, "application/json")
                .body("{}");
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let mut answer = request.send().await.map_err(|error| {
            let remedy = if error.is_connect() {
                "; is foreshock running there? Say where with --server"
            } else {
                ""
            };
            anyhow!("{what}: no answer: {}{remedy}", chain(&error.without_url()))
        })?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(chunk) = answer
            .chunk()
            .await
            .map_err(|error| anyhow!("{what}: the answer broke off: {}", chain(&error)))?
        {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                bail!(
                    "{what}: the answer is longer than {ANSWER_BYTES_MAX} bytes; is it foreshock?"
                );
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return Ok(body);
        }
        let detail = serde_json::from_slice::<serde_json::Value>(&body)
            .ok()
            .and_then(|problem| Some(clean(problem.get("detail")?.as_str()?, 500)));
        let remedy = match status {
            StatusCode::UNAUTHORIZED => " (--token-file, or --user and --password-file)",
            _ if detail.is_none() => "; is it foreshock?",
            _ => "",
        };
        let detail = detail.unwrap_or_default();
        bail!("{what}: {status}: {detail}{remedy}")
    }
}
