//! Reading the active alerts from Alertmanager: at the start, when a webhook may be hours away, and
//! once a minute. An alert that is not in the list is not taken for resolved: the answer may come
//! from a replica that knows less.

use std::time::Duration;

use super::payload::{Payload, PayloadError};

/// Asks one Alertmanager for its active alerts.
#[derive(Clone, Debug)]
pub struct AlertmanagerClient {
    http: reqwest::Client,
    url: String,
    timeout: Duration,
}

/// Why the active alerts could not be read.
#[derive(Debug, thiserror::Error)]
pub enum AlertmanagerError {
    /// No answer, or none in time.
    #[error("Alertmanager at {url} did not answer")]
    Request {
        /// The address that was asked.
        url: String,
        /// Why not.
        source: reqwest::Error,
    },
    /// An answer other than 200.
    #[error("Alertmanager at {url} answered {status}")]
    Status {
        /// The address that was asked.
        url: String,
        /// The answer.
        status: u16,
    },
    /// A longer answer than is read.
    #[error("Alertmanager at {url} sent more than {limit} bytes")]
    TooLarge {
        /// The address that was asked.
        url: String,
        /// The limit, in bytes.
        limit: usize,
    },
    /// An answer that is no list of alerts.
    #[error("Alertmanager at {url} sent no list of alerts")]
    Body {
        /// The address that was asked.
        url: String,
        /// What is wrong with it.
        source: PayloadError,
    },
}

impl AlertmanagerClient {
    /// Bytes of one answer: as much as a webhook may have. 1,000 alerts are 0.5 to 2 MB.
    pub const BODY_MAX: usize = 16 << 20;

    /// `base` is Alertmanager's external URL (`alertmanager.url`), with or without a slash at the
    /// end. `http` brings the certificates.
    pub fn new(http: reqwest::Client, base: &str, timeout: Duration) -> Self {
        let url = format!("{}/api/v2/alerts", base.trim_end_matches('/'));
        Self { http, url, timeout }
    }

    /// Reads the alerts that are active, neither silenced nor inhibited: those that a webhook would
    /// have been told of.
    ///
    /// # Errors
    ///
    /// [`AlertmanagerError`]; nothing has changed then.
    pub async fn active(&self) -> Result<Payload, AlertmanagerError> {
        let url = || self.url.clone();
        let request = |source| AlertmanagerError::Request { url: url(), source };
        let mut response = self
            .http
            .get(&self.url)
            .query(&[
                ("active", "true"),
                ("silenced", "false"),
                ("inhibited", "false"),
            ])
            .timeout(self.timeout)
            .send()
            .await
            .map_err(request)?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(AlertmanagerError::Status { url: url(), status });
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(request)? {
            if body.len() + chunk.len() > Self::BODY_MAX {
                return Err(AlertmanagerError::TooLarge {
                    url: url(),
                    limit: Self::BODY_MAX,
                });
            }
            body.extend_from_slice(&chunk);
        }
        Payload::parse_active(&body)
            .map_err(|source| AlertmanagerError::Body { url: url(), source })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Once;

    use wiremock::matchers::{method, path, query_param};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;

    fn http() -> reqwest::Client {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            rustls::crypto::ring::default_provider()
                .install_default()
                .ok();
        });
        reqwest::Client::builder().build().expect("a client")
    }

    async fn ask(answer: ResponseTemplate) -> Result<Payload, AlertmanagerError> {
        let server = MockServer::start().await;
        Mock::given(method("GET"))
            .and(path("/am/api/v2/alerts"))
            .and(query_param("silenced", "false"))
            .and(query_param("inhibited", "false"))
            .respond_with(answer)
            .mount(&server)
            .await;
        let base = format!("{}/am/", server.uri());
        AlertmanagerClient::new(http(), &base, Duration::from_millis(500))
            .active()
            .await
    }

    #[tokio::test]
    async fn the_active_alerts_are_read() {
        let body = r#"[{"labels":{"alertname":"A"},"status":{"state":"active"},
            "startsAt":"2026-11-23T08:00:00Z","endsAt":"2026-11-23T08:04:00Z"}]"#;
        let payload = ask(ResponseTemplate::new(200).set_body_string(body)).await;
        assert_eq!(payload.expect("a list").alerts.len(), 1);
    }

    #[tokio::test]
    async fn what_goes_wrong_is_said_with_the_address() {
        let big = "x".repeat(AlertmanagerClient::BODY_MAX + 1);
        for (answer, expected) in [
            (ResponseTemplate::new(502), "answered 502"),
            (
                ResponseTemplate::new(200).set_body_string("<html>"),
                "sent no list of alerts",
            ),
            (
                ResponseTemplate::new(200).set_body_string(big),
                "sent more than 16777216 bytes",
            ),
            (
                ResponseTemplate::new(200).set_delay(Duration::from_secs(5)),
                "did not answer",
            ),
        ] {
            let error = ask(answer).await.expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains("/am/api/v2/alerts"), "{error}");
        }
    }
}
