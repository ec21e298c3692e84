//! What must be known to ask a Prometheus.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How to reach Prometheus, and which of its series are meant. `[prometheus]` of the configuration.
#[derive(Clone, Debug)]
pub struct PrometheusOptions {
    /// Base URL, with or without a path prefix and a slash at the end.
    pub url: String,
    /// `$S`: label matchers of node_exporter's series.
    pub selector: String,
    /// `$D`: label matchers of real block devices; a disk under device mapper would count twice.
    pub devices: String,
    /// `$N`: label matchers of the machine's own network interfaces.
    pub interfaces: String,
    /// `$F`: label matchers of the machine's own filesystems.
    pub filesystems: String,
    /// Label matchers that are added to every vector selector of every query; empty for none.
    pub matchers: String,
    /// A Node is fresh while its last scrape is younger.
    pub stale_after: Duration,
    /// `$W`: window of rates.
    pub rate_window: Duration,
    /// How far in the past the evaluation lies; see [`grid`](crate::features::grid).
    pub lag: Duration,
    /// For one query, its repetitions included; also told to the server.
    pub timeout: Duration,
    /// For all columns of one evaluation; those that are not there by then are missing.
    pub snapshot_timeout: Duration,
    /// Queries at the same time.
    pub concurrency: usize,
    /// The longest answer, in bytes after decompression.
    pub answer_bytes_max: usize,
    /// Headers of every request, such as `X-Scope-OrgID`.
    pub headers: Vec<(String, String)>,
    /// Parameters of every query, such as `dedup=true` or `partial_response=false`.
    pub parameters: Vec<(String, String)>,
    /// A file with a bearer token, read anew for each request.
    pub bearer_token_file: Option<PathBuf>,
    /// User and password, instead of a token.
    pub basic_auth: Option<BasicAuth>,
    /// Certificates (PEM) that may sign the server's, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate (PEM).
    pub cert_file: Option<PathBuf>,
    /// The key (PEM) of the client's certificate.
    pub key_file: Option<PathBuf>,
}

/// User and password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasicAuth {
    /// The user.
    pub user: String,
    /// A file with the password, read anew for each request.
    pub password_file: PathBuf,
}

impl Default for PrometheusOptions {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:9090".into(),
            selector: r#"job=~"node-exporter|node""#.into(),
            devices: r#"device!~"(loop|ram|fd|sr|dm-|md|zram).*""#.into(),
            interfaces: concat!(
                r#"device!~"lo|(veth|cali|cni|flannel|docker|br-|virbr|tap|tun|cilium|lxc|"#,
                r#"dummy|kube-|nodelocaldns|vxlan|geneve|weave|eni|azv).*""#
            )
            .into(),
            // Mounts of Pods' volumes are the Pods' own; a full /boot stops no Node.
            filesystems: concat!(
                r#"fstype!~"tmpfs|ramfs|devtmpfs|overlay|squashfs|erofs|iso9660|autofs|nsfs|"#,
                r#"fuse.*|nfs.*|cifs|cgroup.*|proc|sysfs","#,
                r#"mountpoint!~"/boot.*|/run/.*|/var/lib/kubelet/(pods|plugins)/.*""#
            )
            .into(),
            matchers: String::new(),
            stale_after: Duration::from_secs(120),
            rate_window: Duration::from_secs(300),
            lag: Duration::from_secs(30),
            timeout: Duration::from_secs(10),
            snapshot_timeout: Duration::from_secs(30),
            concurrency: 6,
            // One column of 5,000 Nodes is about 0.6 MB; `up` with 20 labels a series about 4 MB.
            answer_bytes_max: 64 << 20,
            headers: Vec::new(),
            parameters: Vec::new(),
            bearer_token_file: None,
            basic_auth: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
        }
    }
}

/// One thing wrong in [`PrometheusOptions`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionFault {
    /// The key below `prometheus`, or the feature.
    pub key: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl OptionFault {
    pub(super) fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            problem: problem.into(),
        }
    }
}

impl fmt::Display for OptionFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "prometheus.{}: {}", self.key, self.problem)
    }
}

/// Prometheus cannot even be asked: every reason at once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .faults.iter().map(OptionFault::to_string).collect::<Vec<_>>().join("\n"))]
pub struct SetupError {
    /// What is wrong; never empty.
    pub faults: Vec<OptionFault>,
}
