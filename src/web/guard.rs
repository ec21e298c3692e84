//! Who may ask for what.
//!
//! Any page in an operator's browser can send a `POST` to a loopback address, by its own name
//! (cross-site) or through a name that it makes point there (DNS rebinding). So a `POST` must be
//! `application/json`, which no form can send, must name a host that only we can be, and must come
//! from a page of ours if it comes from a page. Beyond loopback it must show the credentials too.

use std::net::IpAddr;
use std::path::Path;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::problem::Problem;
use super::{Credentials, WebOptions};

/// The longest token or password that is read from a file.
const SECRET_MAX: u64 = 64 << 10;

/// What is asked of callers on one listener.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    credentials: Option<Credentials>,
    protect_reads: bool,
    hosts: Vec<String>,
    loopback: bool,
}

impl Guard {
    /// What is asked on a listener with this address.
    pub(super) fn new(options: &WebOptions, address: IpAddr) -> Self {
        Self {
            credentials: options.credentials.clone(),
            protect_reads: options.protect_reads,
            hosts: options.hosts.clone(),
            loopback: address.to_canonical().is_loopback(),
        }
    }

    /// Whether a `POST` could be let through at all.
    pub(super) fn can_let_through(&self) -> bool {
        self.loopback || self.credentials.is_some()
    }

    async fn read(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if self.protect_reads {
            self.check_credentials(headers).await
        } else {
            Ok(())
        }
    }

    async fn write(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let host = self.check_host(headers)?;
        self.check_origin(headers, &host)?;
        self.check_credentials(headers).await?;
        check_content_type(headers)
    }

    fn check_host(&self, headers: &HeaderMap) -> Result<String, Problem> {
        let host = match one(headers, header::HOST) {
            Ok(Some(host)) => host.to_lowercase(),
            Ok(None) | Err(()) => {
                return Err(Problem::new(
                    StatusCode::BAD_REQUEST,
                    "a POST needs exactly one Host header",
                ));
            }
        };
        let (name, _) = split_port(&host);
        if self.is_ours(name) {
            Ok(host)
        } else {
            Err(Problem::new(
                StatusCode::FORBIDDEN,
                format!(
                    "host `{}` is not known as a name of this server; if it is one, add it to \
                     listen.hosts",
                    shown(name)
                ),
            ))
        }
    }

    /// Whether a host name can only mean us. Addresses can: rebinding needs a name. So can names
    /// that no public DNS answers: without a dot, and those of a cluster's own DNS.
    fn is_ours(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        let address = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
            .unwrap_or(name);
        let plain = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        let within_cluster = [".svc", ".svc.cluster.local", ".localhost"]
            .iter()
            .any(|suffix| name.ends_with(suffix));
        address.parse::<IpAddr>().is_ok()
            || plain && (!name.contains('.') || within_cluster)
            || self.hosts.iter().any(|host| host == name)
    }

    fn check_origin(&self, headers: &HeaderMap, host: &str) -> Result<(), Problem> {
        let origin = match one(headers, header::ORIGIN) {
            Ok(None) => return Ok(()),
            Ok(Some(origin)) => origin.to_lowercase(),
            Err(()) => String::new(),
        };
        let ours = origin
            .split_once("://")
            .filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
            .is_some_and(|(scheme, authority)| {
                let default = if scheme == "https" { "443" } else { "80" };
                let full = |authority: &str| {
                    let (name, port) = split_port(authority);
                    (name.to_owned(), port.unwrap_or(default).to_owned())
                };
                // A proxy may put its own idea of us into Host; then the page's name must be known.
                let (name, _) = split_port(authority);
                full(authority) == full(host) || self.hosts.iter().any(|host| host == name)
            });
        if ours {
            Ok(())
        } else {
            Err(Problem::new(
                StatusCode::FORBIDDEN,
                format!(
                    "a page from `{}` may not do this; open foreshock's own page",
                    shown(&origin)
                ),
            ))
        }
    }

    async fn check_credentials(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(credentials) = &self.credentials else {
            if self.loopback {
                return Ok(());
            }
            // `serve` refuses such a listener; should one come to be, it is shut.
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "this needs credentials, and none are configured; set [auth]",
            ));
        };
        let shown = one(headers, header::AUTHORIZATION).unwrap_or(None);
        match credentials {
            Credentials::Bearer { token_file } => {
                let challenge = "Bearer realm=\"foreshock\"";
                let token = shown
                    .and_then(|value| scheme(value, "bearer"))
                    .ok_or_else(|| {
                        Problem::unauthorized(challenge, "this needs `Authorization: Bearer TOKEN`")
                    })?;
                if same(token.as_bytes(), &secret(token_file).await?) {
                    Ok(())
                } else {
                    Err(Problem::unauthorized(
                        challenge,
                        "the token is not the right one",
                    ))
                }
            }
            Credentials::Basic {
                user,
                password_file,
            } => {
                let challenge = "Basic realm=\"foreshock\", charset=\"UTF-8\"";
                let decoded = shown
                    .and_then(|value| scheme(value, "basic"))
                    .and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok())
                    .ok_or_else(|| {
                        Problem::unauthorized(challenge, "this needs a user and a password")
                    })?;
                let mut expected = format!("{user}:").into_bytes();
                expected.extend(secret(password_file).await?);
                if same(&decoded, &expected) {
                    Ok(())
                } else {
                    let detail = "user or password is not the right one";
                    Err(Problem::unauthorized(challenge, detail))
                }
            }
        }
    }
}

/// Lets those through who may read.
pub(super) async fn reads(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.read(request.headers()).await {
        Ok(()) => next.run(request).await,
        Err(problem) => refuse(&request, problem),
    }
}

/// Lets those through who may cause something.
pub(super) async fn writes(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.write(request.headers()).await {
        Ok(()) => next.run(request).await,
        Err(problem) => refuse(&request, problem),
    }
}

fn refuse(request: &Request, problem: Problem) -> Response {
    tracing::info!(
        path = request.uri().path(),
        status = problem.status().as_u16(),
        reason = problem.detail(),
        "request refused"
    );
    problem.into_response()
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let json = one(headers, header::CONTENT_TYPE)
        .unwrap_or(None)
        .is_some_and(|value| {
            let kind = value.split(';').next().unwrap_or_default();
            kind.trim().eq_ignore_ascii_case("application/json")
        });
    if json {
        Ok(())
    } else {
        Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "a POST needs `Content-Type: application/json`",
        ))
    }
}

/// The only value of a header; an error when there are several or it is no text.
fn one(headers: &HeaderMap, name: header::HeaderName) -> Result<Option<&str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
        (Some(_), Some(_)) => Err(()),
    }
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            (name, Some(port))
        }
        _ => (authority, None),
    }
}

fn scheme<'a>(value: &'a str, wanted: &str) -> Option<&'a str> {
    let (scheme, rest) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case(wanted)
        .then_some(rest.trim())
        .filter(|rest| !rest.is_empty())
}

/// A token or password, without the white space around it.
async fn secret(file: &Path) -> Result<Vec<u8>, Problem> {
    match read_secret(file).await {
        Ok(secret) => Ok(secret),
        Err(problem) => {
            tracing::error!(error = %problem, "credentials cannot be checked");
            Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "credentials cannot be checked at present; the log says why",
            ))
        }
    }
}

/// Reads a token or password.
///
/// # Errors
///
/// In words, with the file: it cannot be read, is far too large or holds nothing.
pub(crate) async fn read_secret(file: &Path) -> Result<Vec<u8>, String> {
    let name = file.display();
    let length = tokio::fs::metadata(file)
        .await
        .map_err(|error| format!("{name}: {error}"))?
        .len();
    if length > SECRET_MAX {
        return Err(format!(
            "{name}: larger than {SECRET_MAX} bytes, so it is no secret"
        ));
    }
    let content = tokio::fs::read(file)
        .await
        .map_err(|error| format!("{name}: {error}"))?;
    let secret = content.trim_ascii().to_vec();
    if secret.is_empty() {
        return Err(format!(
            "{name}: is empty, and an empty secret protects nothing"
        ));
    }
    Ok(secret)
}

/// Compares in a time that says nothing about where the two differ, or how long they are.
fn same(shown: &[u8], expected: &[u8]) -> bool {
    let (shown, expected) = (Sha256::digest(shown), Sha256::digest(expected));
    shown.as_slice().ct_eq(expected.as_slice()).into()
}

fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(hosts: &[&str]) -> Guard {
        Guard {
            credentials: None,
            protect_reads: false,
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            loopback: true,
        }
    }

    fn check(pairs: &[(header::HeaderName, &str)]) -> u16 {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value.parse().unwrap());
        }
        let guard = guard(&["foreshock.example.com"]);
        let result = guard
            .check_host(&headers)
            .and_then(|host| guard.check_origin(&headers, &host))
            .and_then(|()| check_content_type(&headers));
        result.map_or_else(|problem| problem.status().as_u16(), |()| 200)
    }

    #[test]
    fn a_post_is_judged_by_host_origin_and_content_type() {
        use header::{CONTENT_TYPE, HOST, ORIGIN};
        const JSON: (header::HeaderName, &str) = (CONTENT_TYPE, "application/json");
        type Case = (
            &'static str,
            &'static [(header::HeaderName, &'static str)],
            u16,
        );
        let cases: &[Case] = &[
            ("by address", &[(HOST, "127.0.0.1:5000"), JSON], 200),
            ("by IPv6 address", &[(HOST, "[::1]:5000"), JSON], 200),
            ("by localhost", &[(HOST, "localhost:5000"), JSON], 200),
            ("any case", &[(HOST, "LocalHost:5000"), JSON], 200),
            ("by Service", &[(HOST, "foreshock.ops.svc:5000"), JSON], 200),
            ("by short Service", &[(HOST, "foreshock:5000"), JSON], 200),
            (
                "by configured name",
                &[(HOST, "foreshock.example.com"), JSON],
                200,
            ),
            ("rebound name", &[(HOST, "evil.example:5000"), JSON], 403),
            (
                "looks like loopback",
                &[(HOST, "127.0.0.1.evil.example"), JSON],
                403,
            ),
            ("suffix trick", &[(HOST, "xsvc.example"), JSON], 403),
            (
                "looks like a Service",
                &[(HOST, "foreshock.svc.evil.example"), JSON],
                403,
            ),
            ("odd characters", &[(HOST, "local host"), JSON], 403),
            ("empty", &[(HOST, ""), JSON], 403),
            ("no host", &[JSON], 400),
            (
                "two hosts",
                &[(HOST, "localhost"), (HOST, "localhost"), JSON],
                400,
            ),
            (
                "own page",
                &[
                    (HOST, "localhost:5000"),
                    (ORIGIN, "http://localhost:5000"),
                    JSON,
                ],
                200,
            ),
            (
                "own page behind TLS",
                &[
                    (HOST, "foreshock.example.com"),
                    (ORIGIN, "https://foreshock.example.com"),
                    JSON,
                ],
                200,
            ),
            (
                "own page through a proxy that rewrites Host",
                &[
                    (HOST, "10.0.0.7:5000"),
                    (ORIGIN, "https://foreshock.example.com"),
                    JSON,
                ],
                200,
            ),
            (
                "another port is another page",
                &[
                    (HOST, "localhost:5000"),
                    (ORIGIN, "http://localhost:3000"),
                    JSON,
                ],
                403,
            ),
            (
                "foreign page",
                &[
                    (HOST, "localhost:5000"),
                    (ORIGIN, "https://evil.example"),
                    JSON,
                ],
                403,
            ),
            (
                "sandboxed page",
                &[(HOST, "localhost:5000"), (ORIGIN, "null"), JSON],
                403,
            ),
            (
                "not http",
                &[
                    (HOST, "localhost:5000"),
                    (ORIGIN, "file://localhost:5000"),
                    JSON,
                ],
                403,
            ),
            (
                "two origins",
                &[
                    (HOST, "localhost:5000"),
                    (ORIGIN, "http://localhost:5000"),
                    (ORIGIN, "https://evil.example"),
                    JSON,
                ],
                403,
            ),
            (
                "with charset",
                &[
                    (HOST, "localhost"),
                    (CONTENT_TYPE, "Application/JSON; charset=utf-8"),
                ],
                200,
            ),
            (
                "a form",
                &[
                    (HOST, "localhost"),
                    (CONTENT_TYPE, "application/x-www-form-urlencoded"),
                ],
                415,
            ),
            (
                "plain text",
                &[(HOST, "localhost"), (CONTENT_TYPE, "text/plain")],
                415,
            ),
            ("no type", &[(HOST, "localhost")], 415),
        ];
        for (name, headers, expected) in cases {
            assert_eq!(check(headers), *expected, "{name}");
        }
    }
}
