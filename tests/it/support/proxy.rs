//! A proxy in front of the API server, so that a test can act at an exact place of the traffic: when a
//! certain request has come and has not been passed on, or when the API server has carried it out and its
//! answer has not been passed back.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::cluster::Cluster;

/// One request as it came.
#[derive(Debug)]
pub(crate) struct Passing {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) uri: String,
    /// `Null` where the body is no JSON.
    pub(crate) body: Value,
}

impl Passing {
    /// Whether it changes something.
    pub(crate) fn is_write(&self) -> bool {
        self.method != Method::GET
    }

    /// What our record says in a patch of a Node: nothing where it is no such patch, `Null` where the
    /// record is removed.
    pub(crate) fn record(&self) -> Option<Value> {
        let is_mark = self.method == Method::PATCH && self.uri.starts_with("/api/v1/nodes/");
        let annotation = self.body["metadata"]["annotations"].get("foreshock.dev/state");
        let annotation = annotation.filter(|_| is_mark)?;
        let text = annotation.as_str().unwrap_or("null");
        Some(serde_json::from_str(text).expect("our record is JSON"))
    }
}

/// On which side of the API server a request is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// It never arrives there.
    Before,
    /// It takes place, and nobody is told.
    After,
}

type Fits = Box<dyn Fn(&Passing) -> bool + Send>;

struct Trap {
    fits: Fits,
    side: Side,
    caught: oneshot::Sender<Held>,
}

/// A request that is held. It is never passed on, or never answered: dropping this ends its connection.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) passing: Passing,
    /// The API server's status, for [`Side::After`].
    pub(crate) status: Option<u16>,
    _release: oneshot::Sender<()>,
}

struct Shared {
    server: String,
    http: reqwest::Client,
    trap: Mutex<Option<Trap>>,
}

/// A proxy for plain HTTP on loopback. It ends when it is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(cluster: &Cluster) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("the loopback interface has a free port");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([Cluster::certificate()])
            .build()
            .expect("an HTTP client can be built");
        let shared = Arc::new(Shared {
            server: cluster.url().to_owned(),
            http,
            trap: Mutex::default(),
        });
        let router = Router::new().fallback(pass).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move {
            axum::serve(listener, router)
                .await
                .expect("serving on loopback does not end");
        });
        Self {
            address,
            shared,
            task,
        }
    }

    /// Writes a kubeconfig with the rights of a ServiceAccount that goes through the proxy.
    pub(crate) async fn kubeconfig_for(
        &self,
        cluster: &Cluster,
        namespace: &str,
        service_account: &str,
    ) -> PathBuf {
        let token = cluster.token_for(namespace, service_account).await;
        let text = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "bed", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "bed", "user": {"token": token}}],
            "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": "bed"}}],
            "current-context": "bed",
        })
        .to_string();
        cluster.workdir().write("proxied.kubeconfig", &text)
    }

    /// Holds the next request that fits. One trap at a time: a new one takes the place of the last.
    pub(crate) fn hold(
        &self,
        side: Side,
        fits: impl Fn(&Passing) -> bool + Send + 'static,
    ) -> oneshot::Receiver<Held> {
        let (caught, receiver) = oneshot::channel();
        *self.trap() = Some(Trap {
            fits: Box::new(fits),
            side,
            caught,
        });
        receiver
    }

    fn trap(&self) -> std::sync::MutexGuard<'_, Option<Trap>> {
        self.shared
            .trap
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    // Larger bodies than an Event or a patch with a record do not come from foreshock.
    let Ok(bytes) = axum::body::to_bytes(body, 4 << 20).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let passing = Passing {
        method: head.method.clone(),
        uri: head
            .uri
            .path_and_query()
            .map_or_else(String::new, ToString::to_string),
        body: serde_json::from_slice(&bytes).unwrap_or_default(),
    };
    let trap = {
        let mut trap = shared.trap.lock().unwrap_or_else(PoisonError::into_inner);
        if trap.as_ref().is_some_and(|trap| (trap.fits)(&passing)) {
            trap.take()
        } else {
            None
        }
    };
    match trap {
        // In a task of its own: what has come this far takes place, also when foreshock is killed now.
        // An eviction that is broken off within the API server keeps its budget spent for two minutes.
        None => {
            let headers = head.headers;
            let passed =
                tokio::spawn(async move { forward(&shared, &passing, &headers, bytes).await });
            passed.await.expect("passing on does not panic")
        }
        Some(trap) => {
            let status = match trap.side {
                Side::Before => None,
                Side::After => {
                    let answer = forward(&shared, &passing, &head.headers, bytes).await;
                    Some(answer.status().as_u16())
                }
            };
            let (_release, released) = oneshot::channel();
            // A test that does not wait for it any more has failed already.
            let _ = trap.caught.send(Held {
                passing,
                status,
                _release,
            });
            let _ = released.await;
            StatusCode::BAD_GATEWAY.into_response()
        }
    }
}

async fn forward(shared: &Shared, passing: &Passing, headers: &HeaderMap, body: Bytes) -> Response {
    let mut request = shared.http.request(
        passing.method.clone(),
        format!("{}{}", shared.server, passing.uri),
    );
    for name in ["authorization", "content-type", "accept", "user-agent"] {
        if let Some(value) = headers.get(name) {
            request = request.header(name, value);
        }
    }
    let answer = match request.body(body).send().await {
        Ok(answer) => answer,
        Err(error) => return (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    };
    let mut response = Response::builder().status(answer.status());
    for name in ["content-type", "retry-after", "warning", "audit-id"] {
        if let Some(value) = answer.headers().get(name) {
            response = response.header(name, value);
        }
    }
    // A watch is passed on piece by piece, and a piece that does not come ends the answer where it is.
    let pieces = futures::stream::unfold(answer, async |mut answer| match answer.chunk().await {
        Ok(Some(piece)) => Some((Ok(piece), answer)),
        Ok(None) => None,
        Err(error) => Some((Err(error), answer)),
    });
    response
        .body(Body::from_stream(pieces))
        .expect("status and headers come from an answer")
}
