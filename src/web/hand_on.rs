//! What only the leader can take, handed on to the leader.
//!
//! A Service sends a request to any replica; evidence and the switch belong to the one that leads. Where
//! that one is to be found stands on the Lease, written by whoever may write the Lease: so it is taken
//! for no more than scheme, host and port, redirects are not followed, and with TLS the leader has to
//! show the certificate that this replica serves with itself. The caller's own `Authorization` is what is
//! shown to the leader; this replica adds no secret of its own.
//!
//! A request is handed on once: whoever gets one that was handed on and does not lead refuses it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use rustls::DigitallySignedStruct;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::TlsFiles;
use super::problem::Problem;

/// Says that another replica has handed the request on.
const HANDED_ON: HeaderName = HeaderName::from_static("foreshock-handed-on");
/// To connect to another Pod, or to see that it is not there.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// For the whole of a webhook or a resumption. Alertmanager gives up after its own timeout and comes again.
const LIMIT: Duration = Duration::from_secs(10);
/// For a pause: what a leader that hangs does not take is written to the Lease from here.
const PAUSE_LIMIT: Duration = Duration::from_secs(2);
/// Of the leader's answer; its own are far shorter.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Who leads, as far as a request is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lead {
    /// This process, or every process.
    Here,
    /// Another one, which is to be reached there, if it says so.
    There {
        /// What stands on the Lease; not to be trusted.
        address: Option<String>,
    },
    /// Nobody, at present.
    Nobody,
}

/// Knows who leads.
pub trait Leads: Send + Sync + 'static {
    /// Who leads now.
    fn who(&self) -> Lead;

    /// A webhook was handed on to the leader, or could not be.
    fn handed_on(&self, taken: bool);
}

/// Where a replica is to be reached: scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerUrl {
    https: bool,
    text: String,
}

impl PeerUrl {
    /// From a URL that has nothing but scheme, host and port.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let shown: String = text.chars().take(100).collect();
        let url = reqwest::Url::parse(text).map_err(|error| {
            format!("{shown:?} is no URL such as http://10.0.0.5:5000: {error}")
        })?;
        let https = match url.scheme() {
            "http" => false,
            "https" => true,
            other => {
                return Err(format!(
                    "{shown:?} has the scheme {other}, not http or https"
                ));
            }
        };
        let plain = url.username().is_empty()
            && url.password().is_none()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none();
        if !plain {
            return Err(format!("{shown:?} has more than scheme, host and port"));
        }
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(format!("{shown:?} has no host and port"));
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let nowhere = bare
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_unspecified() || ip.is_multicast());
        if nowhere || port == 0 {
            return Err(format!("{shown:?} is no address that can be reached"));
        }
        Ok(Self {
            https,
            text: format!("{}://{host}:{port}", url.scheme()),
        })
    }

    /// Where this process says that it is to be reached. `configured` is `listen.advertise`: a URL, or an
    /// address with or without a port, as the downward API gives it. Without it, the address that is
    /// listened on, where that is one: nobody reaches 0.0.0.0.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words.
    pub fn advertised(
        configured: Option<&str>,
        listening: SocketAddr,
        tls: bool,
    ) -> Result<Option<Self>, String> {
        let scheme = if tls { "https" } else { "http" };
        let Some(text) = configured.map(str::trim).filter(|text| !text.is_empty()) else {
            if listening.ip().is_unspecified() {
                return Ok(None);
            }
            return Self::parse(&format!("{scheme}://{listening}")).map(Some);
        };
        let url = if text.contains("://") {
            text.to_owned()
        } else if let Ok(ip) = text.parse::<IpAddr>() {
            format!("{scheme}://{}", SocketAddr::new(ip, listening.port()))
        } else {
            format!("{scheme}://{text}")
        };
        Self::parse(&url).map(Some)
    }

    /// As a URL, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// What is handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// Evidence.
    Webhook,
    /// A pause: so important that it is written to the Lease from here if the leader does not take it.
    Pause,
    /// The end of a pause.
    Resume,
}

/// Hands requests on.
#[derive(Clone)]
pub(super) struct HandOn {
    leads: Arc<dyn Leads>,
    tls: Option<TlsFiles>,
    body_max: usize,
    client: Arc<Mutex<Option<Held>>>,
}

/// The client, with the certificate that it expects of the leader.
struct Held {
    certificate: Option<Vec<u8>>,
    client: reqwest::Client,
}

impl HandOn {
    pub(super) fn new(leads: Arc<dyn Leads>, tls: Option<TlsFiles>, body_max: usize) -> Self {
        Self {
            leads,
            tls,
            body_max,
            client: Arc::default(),
        }
    }

    /// What the leader at this address answers.
    pub(super) async fn ask(
        &self,
        address: Option<&str>,
        errand: Errand,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response, String> {
        let address = address.ok_or(
            "the Lease does not say where the leader is to be reached; set its listen.advertise",
        )?;
        let peer = PeerUrl::parse(address).map_err(|problem| {
            format!("the leader's address on the Lease is not used: {problem}")
        })?;
        if self.tls.is_some() && !peer.https {
            // Credentials that came encrypted do not leave in the clear.
            return Err(
                "the leader's address on the Lease is not https, and this replica's is".into(),
            );
        }
        let limit = match errand {
            Errand::Webhook | Errand::Resume => LIMIT,
            Errand::Pause => PAUSE_LIMIT,
        };
        let mut request = self
            .client()
            .await?
            .post(format!("{}{path}", peer.text))
            .header(header::CONTENT_TYPE, "application/json")
            .header(HANDED_ON, "1")
            .timeout(limit)
            .body(body);
        if let Some(shown) = headers.get(header::AUTHORIZATION) {
            request = request.header(header::AUTHORIZATION, shown);
        }
        let mut answer = request.send().await.map_err(|error| {
            format!(
                "the leader at {} does not answer: {}",
                peer.text,
                said(&error)
            )
        })?;
        let status = answer.status();
        let kind = answer.headers().get(header::CONTENT_TYPE).cloned();
        let mut content = Vec::new();
        while let Some(chunk) = answer
            .chunk()
            .await
            .map_err(|error| format!("the answer of the leader broke off: {}", said(&error)))?
        {
            if content.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(format!(
                    "the leader at {} answers at length; is it one?",
                    peer.text
                ));
            }
            content.extend_from_slice(&chunk);
        }
        // What is wrong with the request itself is said to whoever sent it. Everything else is between
        // the replicas, and the request may be sent again.
        let plain = status.is_success()
            || matches!(
                status,
                StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE
            );
        if !plain {
            let detail = serde_json::from_slice::<serde_json::Value>(&content)
                .ok()
                .and_then(|problem| Some(problem.get("detail")?.as_str()?.to_owned()))
                .unwrap_or_default();
            let detail = crate::kubernetes::text::clean(&detail, 300);
            return Err(format!(
                "the leader at {} answers {status}: {detail}",
                peer.text
            ));
        }
        let mut response = Response::new(Body::from(content));
        *response.status_mut() = status;
        if let Some(kind) = kind {
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        Ok(response)
    }

    /// Made anew when the certificate was renewed: both replicas serve with the same one.
    async fn client(&self) -> Result<reqwest::Client, String> {
        let certificate = match &self.tls {
            None => None,
            Some(files) => Some(own_certificate(&files.cert_file).await?),
        };
        let mut held = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = held.as_ref().filter(|held| held.certificate == certificate) {
            return Ok(held.client.clone());
        }
        let client = client(certificate.clone())?;
        *held = Some(Held {
            certificate,
            client: client.clone(),
        });
        Ok(client)
    }
}

async fn own_certificate(file: &Path) -> Result<Vec<u8>, String> {
    let problem = |problem: String| format!("{}: {problem}", file.display());
    let pem = tokio::fs::read(file)
        .await
        .map_err(|error| problem(error.to_string()))?;
    let first = CertificateDer::pem_slice_iter(&pem)
        .next()
        .ok_or_else(|| problem("no PEM certificate in it".to_owned()))?;
    first
        .map(|certificate| certificate.to_vec())
        .map_err(|error| problem(format!("no PEM certificate: {error}")))
}

fn client(certificate: Option<Vec<u8>>) -> Result<reqwest::Client, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let config = match certificate {
        // Replicas are alike: without TLS here there is none there, and no certificate is trusted.
        None => config.with_root_certificates(rustls::RootCertStore::empty()),
        Some(certificate) => config
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned {
                certificate,
                provider,
            })),
    };
    reqwest::Client::builder()
        // A proxy must not see the caller's credentials, nor a redirect take them elsewhere.
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_LIMIT)
        .pool_max_idle_per_host(4)
        .tls_backend_preconfigured(config.with_no_client_auth())
        .build()
        .map_err(|error| said(&error))
}

/// Accepts one certificate: a Pod's address is in none, so its name cannot be what is checked.
#[derive(Debug)]
struct Pinned {
    certificate: Vec<u8>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if end_entity.as_ref() == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::InvalidCertificate(
                rustls::CertificateError::ApplicationVerificationFailure,
            ))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Answers here where this process leads, and otherwise with what the leader answers.
pub(super) async fn to_leader(
    State((hand_on, errand)): State<(HandOn, Errand)>,
    request: Request,
    next: Next,
) -> Response {
    let address = match (hand_on.leads.who(), errand) {
        (Lead::Here, _) => return next.run(request).await,
        _ if request.headers().contains_key(HANDED_ON) => {
            return Problem::busy(
                "another replica has handed this on, and this one does not lead: the Lease is changing \
                 hands; send it again",
            )
            .into_response();
        }
        // The switch is on the Lease, which every replica can write.
        (Lead::Nobody, Errand::Pause | Errand::Resume) => return next.run(request).await,
        (Lead::Nobody, Errand::Webhook) => {
            hand_on.leads.handed_on(false);
            return Problem::busy("no replica leads at present; send it again").into_response();
        }
        (Lead::There { address }, _) => address,
    };
    let path = request.uri().path().to_owned();
    let (parts, body) = request.into_parts();
    let (sent, kept) = match errand {
        Errand::Webhook => match axum::body::to_bytes(body, hand_on.body_max).await {
            Ok(bytes) => (bytes, Body::empty()),
            Err(_) => {
                let limit = hand_on.body_max;
                let detail =
                    format!("the payload did not arrive whole, or is larger than {limit} bytes");
                return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail).into_response();
            }
        },
        Errand::Pause | Errand::Resume => (Bytes::from_static(b"{}"), body),
    };
    let asked = hand_on
        .ask(address.as_deref(), errand, &path, &parts.headers, sent)
        .await;
    if errand == Errand::Webhook {
        hand_on.leads.handed_on(asked.is_ok());
    }
    let problem = match asked {
        Ok(mut response) => {
            response
                .headers_mut()
                .insert(HANDED_ON, HeaderValue::from_static("1"));
            return response;
        }
        Err(problem) => problem,
    };
    tracing::warn!(
        path,
        error = problem,
        "request could not be handed on to the leader"
    );
    match errand {
        Errand::Webhook | Errand::Resume => Problem::busy(problem).into_response(),
        Errand::Pause => next.run(Request::from_parts(parts, kept)).await,
    }
}

fn said(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_scheme_host_and_port_and_nothing_else() {
        for (text, url) in [
            ("http://10.0.0.5:5000", "http://10.0.0.5:5000"),
            ("http://10.0.0.5:5000/", "http://10.0.0.5:5000"),
            (
                "https://foreshock-0.foreshock.svc",
                "https://foreshock-0.foreshock.svc:443",
            ),
            ("http://[fd00::5]:5000", "http://[fd00::5]:5000"),
        ] {
            assert_eq!(PeerUrl::parse(text).map(|url| url.text), Ok(url.to_owned()));
        }
        for refused in [
            "",
            "10.0.0.5:5000",
            "ftp://10.0.0.5:5000",
            "http://",
            "http://user@10.0.0.5:5000",
            "http://user:secret@10.0.0.5:5000",
            "http://10.0.0.5:5000/elsewhere",
            "http://10.0.0.5:5000?a=b",
            "http://10.0.0.5:5000#a",
            "http://0.0.0.0:5000",
            "http://[::]:5000",
            "http://224.0.0.1:5000",
            "http://10.0.0.5:0",
            "file:///etc/passwd",
            "http://10.0.0.5:5000\r\nHost: elsewhere",
        ] {
            assert!(PeerUrl::parse(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn a_process_tells_others_an_address_that_they_can_reach() {
        let check = |configured: Option<&str>, listening: &str, tls: bool| {
            let listening: SocketAddr = listening.parse().expect("an address");
            PeerUrl::advertised(configured, listening, tls)
                .map(|url| url.map(|url| url.text).unwrap_or_default())
        };
        let is = |text: &str| Ok(text.to_owned());
        assert_eq!(
            check(None, "127.0.0.1:5000", false),
            is("http://127.0.0.1:5000")
        );
        assert_eq!(check(None, "0.0.0.0:5000", false), is(""));
        assert_eq!(check(Some(""), "[::]:5000", true), is(""));
        assert_eq!(
            check(Some("10.1.2.3"), "0.0.0.0:5000", false),
            is("http://10.1.2.3:5000")
        );
        assert_eq!(
            check(Some("fd00::5"), "[::]:5000", true),
            is("https://[fd00::5]:5000")
        );
        assert_eq!(
            check(Some("10.1.2.3:6000"), "0.0.0.0:5000", false),
            is("http://10.1.2.3:6000")
        );
        assert_eq!(
            check(Some("https://a.b.svc:6000"), "0.0.0.0:5000", false),
            is("https://a.b.svc:6000")
        );
        assert!(check(Some("0.0.0.0"), "0.0.0.0:5000", false).is_err());
        assert!(check(Some("http://a/b"), "0.0.0.0:5000", false).is_err());
    }
}
