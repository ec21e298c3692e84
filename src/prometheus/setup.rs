//! From options to an HTTP client: URL, headers, certificates, secrets; every fault with its key.

use std::path::{Path, PathBuf};

use base64::Engine;
use http::Uri;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::client::{QueryError, chain};
use super::options::{BasicAuth, OptionFault, PrometheusOptions, SetupError};

/// What a client is made of.
pub(super) struct Parts {
    pub(super) queries: prometheus_http_query::Client,
    pub(super) http: reqwest::Client,
    /// The base URL without a slash at the end.
    pub(super) base: String,
    pub(super) auth: Auth,
}

/// How we say who we are.
pub(super) enum Auth {
    None,
    Bearer(PathBuf),
    Basic(BasicAuth),
}

impl Auth {
    /// The header, from files read anew: tokens are rotated.
    pub(super) async fn header(&self) -> Result<Option<HeaderValue>, QueryError> {
        let (path, text) = match self {
            Self::None => return Ok(None),
            Self::Bearer(path) => (path, format!("Bearer {}", secret(path).await?)),
            Self::Basic(BasicAuth {
                user,
                password_file,
            }) => {
                let pair = format!("{user}:{}", secret(password_file).await?);
                let pair = base64::engine::general_purpose::STANDARD.encode(pair);
                (password_file, format!("Basic {pair}"))
            }
        };
        let value = HeaderValue::from_str(&text);
        let mut value = value.map_err(|_| QueryError::SecretForm { path: path.clone() })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

async fn secret(path: &Path) -> Result<String, QueryError> {
    let text = tokio::fs::read_to_string(path).await;
    let text = text.map_err(|source| QueryError::Secret {
        path: path.to_owned(),
        source,
    })?;
    Ok(text.trim().to_owned())
}

/// # Errors
///
/// [`SetupError`] with every option that cannot be.
pub(super) fn parts(options: &PrometheusOptions) -> Result<Parts, SetupError> {
    // Without a provider the TLS layer panics; with two it would not know which. Ring is ours.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Another thread may have been faster: then there is one, which is all that is needed.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let mut faults = Vec::new();
    let base = base_url(&options.url, &mut faults);
    let auth = auth(options, &mut faults);
    if options.concurrency == 0 {
        faults.push(OptionFault::new("concurrency", "must be at least 1"));
    }
    let limits = [
        ("timeout", options.timeout),
        ("snapshot_timeout", options.snapshot_timeout),
    ];
    for (key, _) in limits.iter().filter(|(_, limit)| limit.is_zero()) {
        faults.push(OptionFault::new(*key, "must be above 0s"));
    }
    let builder = http_client(options, &mut faults);
    if !faults.is_empty() {
        return Err(SetupError { faults });
    }
    let fault = |problem: String| SetupError {
        faults: vec![OptionFault::new("url", problem)],
    };
    let http = builder.build().map_err(|e| {
        let remedy = "where the system has no CA certificates, set `ca_file`";
        fault(format!(
            "no HTTP client could be made ({}); {remedy}",
            chain(&e)
        ))
    })?;
    let queries = prometheus_http_query::Client::from(http.clone(), &base)
        .map_err(|e| fault(format!("{base:?} is no URL: {e}")))?;
    Ok(Parts {
        queries,
        http,
        base,
        auth,
    })
}

/// Without the slash at the end: with it, the query builder would ask for `//api`.
fn base_url(url: &str, faults: &mut Vec<OptionFault>) -> String {
    let base = url.trim().trim_end_matches('/');
    let mut fault = |problem: String| faults.push(OptionFault::new("url", problem));
    match base.parse::<Uri>() {
        Ok(uri) if !matches!(uri.scheme_str(), Some("http" | "https")) => {
            fault(format!("must begin with http:// or https://, got {url:?}"));
        }
        Ok(uri) if uri.query().is_some() || base.contains('#') => {
            fault(format!("must have no query, use `parameters`; got {url:?}"));
        }
        Ok(uri) if uri.authority().is_some_and(|a| a.as_str().contains('@')) => {
            fault("must not carry user and password, use `basic_auth`".into());
        }
        Ok(_) => {}
        Err(e) => fault(format!("{url:?} is no URL: {e}")),
    }
    base.to_owned()
}

fn auth(options: &PrometheusOptions, faults: &mut Vec<OptionFault>) -> Auth {
    match (&options.bearer_token_file, &options.basic_auth) {
        (None, None) => Auth::None,
        (Some(path), None) => Auth::Bearer(path.clone()),
        (None, Some(basic)) => Auth::Basic(basic.clone()),
        (Some(_), Some(_)) => {
            faults.push(OptionFault::new(
                "bearer_token_file",
                "cannot go with basic_auth",
            ));
            Auth::None
        }
    }
}

fn http_client(
    options: &PrometheusOptions,
    faults: &mut Vec<OptionFault>,
) -> reqwest::ClientBuilder {
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(options.timeout)
        .default_headers(headers(options, faults));
    if let Some(path) = &options.ca_file {
        let certificates =
            pem(
                "ca_file",
                path,
                faults,
                |pem| match reqwest::Certificate::from_pem_bundle(pem) {
                    Ok(certificates) if !certificates.is_empty() => Ok(certificates),
                    Ok(_) => Err("no certificate in it".to_owned()),
                    Err(e) => Err(chain(&e)),
                },
            );
        builder = builder.tls_certs_only(certificates.unwrap_or_default());
    } else if options.url.trim_start().starts_with("http://") {
        // No certificate will be looked at, and looking for the system's fails where there are
        // none, as in a bare container.
        builder = builder.tls_certs_only([]);
    }
    match (&options.cert_file, &options.key_file) {
        (None, None) => {}
        (Some(cert), Some(key)) => {
            let key = pem("key_file", key, faults, |pem| Ok(pem.to_vec()));
            let identity = key.and_then(|key| {
                pem("cert_file", cert, faults, |cert| {
                    let both = [cert, b"\n", &key].concat();
                    reqwest::Identity::from_pem(&both).map_err(|e| chain(&e))
                })
            });
            if let Some(identity) = identity {
                builder = builder.identity(identity);
            }
        }
        (Some(_), None) => faults.push(OptionFault::new("cert_file", "needs key_file as well")),
        (None, Some(_)) => faults.push(OptionFault::new("key_file", "needs cert_file as well")),
    }
    builder
}

fn headers(options: &PrometheusOptions, faults: &mut Vec<OptionFault>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut fault = |problem: String| faults.push(OptionFault::new("headers", problem));
    for (name, value) in &options.headers {
        match (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            (Ok(name), Ok(value)) => {
                headers.append(name, value);
            }
            (Ok(name), Err(_)) => fault(format!("{name}: no header may have such a value")),
            (Err(_), _) => fault(format!("{name:?} is no name of a header")),
        }
    }
    headers
}

fn pem<T>(
    key: &str,
    path: &Path,
    faults: &mut Vec<OptionFault>,
    parse: impl FnOnce(&[u8]) -> Result<T, String>,
) -> Option<T> {
    let parsed = std::fs::read(path)
        .map_err(|e| e.to_string())
        .and_then(|pem| parse(&pem));
    let fault = |e: String| faults.push(OptionFault::new(key, format!("{}: {e}", path.display())));
    parsed.map_err(fault).ok()
}
