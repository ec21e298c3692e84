//! How the cluster is reached: options, credentials, and what can be wrong with them.

use std::path::PathBuf;

use foreshock_core::record::Taint;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// How the cluster is reached, and which part of it is ours.
#[derive(Clone, Debug, Default)]
pub struct KubeOptions {
    /// `kubernetes.kubeconfig`; without it in-cluster, then `KUBECONFIG`, then `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// `kubernetes.instance`: name of the Lease and owner in the records.
    pub instance: String,
    /// `kubernetes.namespace`, of the Lease; empty for the credentials' own.
    pub namespace: String,
    /// `kubernetes.node_selector`; empty for all Nodes.
    pub node_selector: String,
    /// The taints that the policy may set: Pods that tolerate them are told apart.
    pub taints: Vec<Taint>,
}

/// Why the cluster cannot be reached at all.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be used.
    #[error("kubeconfig {path} cannot be used; correct `kubernetes.kubeconfig`")]
    Kubeconfig {
        /// Its path, or what was looked for.
        path: String,
        /// Why.
        source: Box<kube::config::KubeconfigError>,
    },
    /// In a Pod, and its ServiceAccount cannot be used.
    #[error("the Pod's ServiceAccount cannot be used; is its token mounted?")]
    InCluster(#[source] Box<kube::config::InClusterError>),
    /// No client could be made from it.
    #[error("no client can be made for {url}")]
    Client {
        /// The API server.
        url: String,
        /// Why.
        source: Box<kube::Error>,
    },
}

/// The file that is named; else the ServiceAccount, in a Pod; else what `kubectl` would use.
pub(super) async fn config(kubeconfig: Option<&PathBuf>) -> Result<Config, ConnectError> {
    let options = KubeConfigOptions::default();
    let failed = |path: String| {
        move |source| ConnectError::Kubeconfig {
            path,
            source: Box::new(source),
        }
    };
    if let Some(path) = kubeconfig {
        let shown = path.display().to_string();
        let kubeconfig = Kubeconfig::read_from(path).map_err(failed(shown.clone()))?;
        return Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(failed(shown));
    }
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        return Config::incluster().map_err(|source| ConnectError::InCluster(Box::new(source)));
    }
    let shown = std::env::var("KUBECONFIG").unwrap_or_else(|_| "~/.kube/config".to_owned());
    Config::from_kubeconfig(&options)
        .await
        .map_err(failed(shown))
}
