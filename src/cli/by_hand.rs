//! The cluster, as the commands that work on it by themselves meet it: which Lease is meant, and with
//! whose rights.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;

use crate::app::kube_options;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::kubernetes::{KubeCluster, KubeOptions};

#[derive(Debug, Args)]
pub(super) struct ClusterArgs {
    /// Configuration file of the service: instance, namespace, kubeconfig and taints are those in it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Kubeconfig whose rights are used [default: that of --config, else what kubectl would use].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Namespace of the Lease [default: that of --config, else where a Lease of this name is].
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// kubernetes.instance of the service [default: that of --config, else foreshock].
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
}

impl ClusterArgs {
    /// Whether anything here was given.
    pub(super) fn is_given(&self) -> bool {
        self.config.is_some()
            || self.kubeconfig.is_some()
            || self.namespace.is_some()
            || self.instance.is_some()
    }

    /// The flags again, for a command that is to be shown.
    pub(super) fn shown(&self) -> String {
        let mut text = String::new();
        let files = [("config", &self.config), ("kubeconfig", &self.kubeconfig)];
        let names = [("namespace", &self.namespace), ("instance", &self.instance)];
        for (flag, file) in files {
            if let Some(file) = file {
                text += &format!(" --{flag} {}", file.display());
            }
        }
        for (flag, name) in names {
            if let Some(name) = name {
                text += &format!(" --{flag} {name}");
            }
        }
        text
    }

    /// The cluster, with the Lease that is meant; and the options it was reached with.
    pub(super) async fn connect(&self) -> anyhow::Result<(KubeCluster, KubeOptions)> {
        let config = match &self.config {
            Some(file) => Config::load(file)?,
            None => Config::parse("", std::path::Path::new("foreshock.toml"), [])
                .context("the defaults are not valid")?,
        };
        if !config.kubernetes.enabled && self.config.is_some() {
            bail!("kubernetes.enabled is false: such a service writes nothing");
        }
        let mut options = kube_options(&config);
        options.kubeconfig = self.kubeconfig.clone().or(options.kubeconfig);
        if let Some(instance) = &self.instance {
            options.instance.clone_from(instance);
        }
        if let Some(namespace) = &self.namespace {
            options.namespace.clone_from(namespace);
        }
        let cluster = KubeCluster::at_hand(options.clone(), Arc::new(SystemClock)).await?;
        let in_pod =
            options.kubeconfig.is_none() && std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
        if !options.namespace.is_empty() || in_pod {
            return Ok((cluster, options));
        }
        // The namespace of a kubeconfig's context is where its user works, not where the service runs. A
        // pause on a Lease that nobody looks at would be none.
        let (instance, url) = (options.instance.clone(), cluster.url().to_owned());
        let found = cluster.namespaces_with_lease().await.with_context(|| {
            format!("where is Lease {instance} in {url}? Say so with --namespace")
        })?;
        match &found[..] {
            [] => Ok((cluster, options)),
            [namespace] => Ok((cluster.in_namespace(namespace), options)),
            several => bail!(
                "Lease {instance} is in several namespaces of {url}: {}; say which with --namespace",
                several.join(", ")
            ),
        }
    }
}
