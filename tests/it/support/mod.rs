//! Starts the real servers that the tests talk to, on loopback and on ephemeral ports, and stops them
//! again whatever becomes of the test.
//!
//! Everything here panics when it fails: a panic, unlike an `Err` that a test returns, is still under way
//! when the servers are dropped, and that is how they know to show their logs.
//!
//! A test that needs a server says so, and is reported as left out when the bed is not there:
//!
//! ```ignore
//! #[tokio::test(flavor = "multi_thread")]
//! #[cfg_attr(not(feature = "bed"), ignore = "needs the test bed: ./tests/run")]
//! async fn prometheus_answers() {
//!     support::init();
//!     // …
//! }
//! ```
#![allow(
    dead_code,
    reason = "a tool box: which part is in use changes with every test"
)]
#![allow(
    clippy::print_stderr,
    reason = "libtest captures it and shows it only for a test that fails"
)]

pub(crate) mod alertmanager;
pub(crate) mod audit;
pub(crate) mod cluster;
pub(crate) mod foreshock;
pub(crate) mod node_exporter;
pub(crate) mod prometheus;
pub(crate) mod proxy;
pub(crate) mod server;
pub(crate) mod target;
pub(crate) mod watcher;

use std::io::Write as _;
use std::net::TcpListener;
use std::panic::Location;
use std::path::PathBuf;
use std::sync::Once;
use std::time::{Duration, Instant};

/// Which of the two pinned versions of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Version {
    /// The newest that the bed builds.
    #[default]
    Current,
    /// That of Debian 12, the oldest still met in the field.
    Debian,
}

impl Version {
    pub(crate) fn program(self, name: &str) -> PathBuf {
        match self {
            Self::Current => bed_program(name),
            Self::Debian => bed_program(&format!("{name}-debian")),
        }
    }
}

/// Installs the cryptography provider. Every test calls it first: without one, both the Kubernetes and
/// the HTTP client panic at their first use.
pub(crate) fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error means that somebody else in this process has installed one, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// The path of a server that `tests/bed/setup` has built.
pub(crate) fn bed_program(name: &str) -> PathBuf {
    let bin = std::env::var_os("FORESHOCK_BED_BIN")
        .expect("FORESHOCK_BED_BIN names the servers of the test bed; ./tests/run sets it");
    let path = PathBuf::from(bin).join(name);
    assert!(
        path.exists(),
        "{} is missing; ./tests/bed/setup builds it",
        path.display()
    );
    path
}

/// A port that was free a moment ago. For servers that cannot be told to choose one themselves: start them
/// again with another port when they lose the race for it.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("the loopback interface has a free port")
        .port()
}

/// Says `figure NAME VALUE` past libtest, which shows what a passing test prints to nobody.
pub(crate) fn figure(name: &str, value: impl std::fmt::Display) {
    // A closed standard output is no fault of the test.
    let _ = writeln!(std::io::stdout().lock(), "figure {name} {value}");
}

/// A client for plain HTTP on loopback: no proxy, and no request outlives the patience of a test.
pub(crate) fn http() -> reqwest::Client {
    init();
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(20))
        .build()
        .expect("an HTTP client can be built where CA certificates are installed")
}

/// Asks again and again until `ask` has an answer, and panics with `what` when there is none within
/// `limit`.
#[track_caller]
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> impl Future<Output = T> {
    wait_until(what, limit, async move || {
        ask().await.ok_or_else(String::new)
    })
}

/// Like [`wait_for`], with a reason for each refusal; the last one is part of the panic's message.
#[track_caller]
pub(crate) fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut ask: impl AsyncFnMut() -> Result<T, String>,
) -> impl Future<Output = T> {
    let at = Location::caller();
    async move {
        let began = Instant::now();
        let mut pause = Duration::from_millis(10);
        let mut last = String::from("it was never asked");
        loop {
            let left = limit.saturating_sub(began.elapsed());
            // One answer that never comes must not outlast the limit either.
            match tokio::time::timeout(left.max(Duration::from_millis(1)), ask()).await {
                Ok(Ok(answer)) => return answer,
                Ok(Err(reason)) => last = reason,
                Err(_) => last = format!("{last} (and the last question got no answer)"),
            }
            assert!(
                began.elapsed() < limit,
                "not within {limit:?}: {what} (waited for at {at}){}{last}",
                if last.is_empty() { "" } else { "; last: " }
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }
}
