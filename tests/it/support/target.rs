//! Exporters that say what the test wants: one small HTTP server with a page of metrics for each Node.
//!
//! The real node_exporter can only tell of the machine that the tests run on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::{Value, json};

type Pages = Arc<Mutex<BTreeMap<String, String>>>;

/// Serves a page of metrics for each Node. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Targets {
    address: SocketAddr,
    pages: Pages,
    task: tokio::task::JoinHandle<()>,
}

impl Targets {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("the loopback interface has a free port");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let pages = Pages::default();
        let router = Router::new()
            .route("/{node}", get(page))
            .with_state(Arc::clone(&pages));
        let task = tokio::spawn(async move {
            axum::serve(listener, router)
                .await
                .expect("serving on loopback does not end");
        });
        Self {
            address,
            pages,
            task,
        }
    }

    /// What the exporter of `node` says from now on, in the text format.
    pub(crate) fn set(&self, node: &str, metrics: &str) {
        self.pages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(node.to_owned(), metrics.to_owned());
    }

    /// From now on the exporter of `node` answers 404, which Prometheus counts as down.
    pub(crate) fn silence(&self, node: &str) {
        self.pages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(node);
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A scrape configuration for these exporters. `labels_of` gives each Node's target labels, which make it
    /// look as one installation or another would have it: `instance`, `node`, `namespace`, `pod`.
    pub(crate) fn scrape_config<'a>(
        &self,
        job: &str,
        interval: &str,
        nodes: impl IntoIterator<Item = &'a str>,
        labels_of: impl Fn(&str) -> Value,
    ) -> Value {
        let configs: Vec<Value> = nodes
            .into_iter()
            .map(|node| {
                let mut labels = labels_of(node);
                labels["__metrics_path__"] = json!(format!("/{node}"));
                json!({"targets": [self.address.to_string()], "labels": labels})
            })
            .collect();
        json!({
            "job_name": job,
            "scrape_interval": interval,
            "scrape_timeout": interval,
            "static_configs": configs,
        })
    }
}

impl Drop for Targets {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn page(
    State(pages): State<Pages>,
    Path(node): Path<String>,
) -> Result<([(&'static str, &'static str); 1], String), StatusCode> {
    let text = pages
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get(&node)
        .cloned()
        .ok_or(StatusCode::NOT_FOUND)?;
    Ok(([("content-type", "text/plain; version=0.0.4")], text))
}
