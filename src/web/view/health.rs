//! How foreshock itself is.

use foreshock_core::time::since;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::snapshot::{ModelName, Snapshot};
use crate::web::words::{ReachWord, seconds};

/// How foreshock itself is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Health)]
pub(in crate::web) struct HealthJson {
    /// `ok` or `degraded`.
    #[schema(value_type = String, pattern = "ok|degraded")]
    status: &'static str,
    /// What is not as it should be, in words with the remedy.
    problems: Vec<String>,
    /// Version of the program.
    version: &'static str,
    /// The first list of Nodes is complete and a first decision was made.
    synced: bool,
    /// This process may write.
    leader: bool,
    /// Who leads, by the Lease.
    leader_name: Option<String>,
    /// Nothing is written, because somebody paused foreshock.
    paused: bool,
    /// The furthest that the policy allows.
    reach: ReachWord,
    /// The source of the features.
    prometheus: PrometheusJson,
    /// The cluster.
    kubernetes: KubernetesJson,
    /// The model in use.
    model: Option<ModelJson>,
}

impl HealthJson {
    /// Why this replica is not ready, in one line.
    pub(in crate::web) fn not_ready(&self) -> String {
        format!("not ready: {}", self.problems.join("; "))
    }
}

/// How the source of the features is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PrometheusHealth)]
struct PrometheusJson {
    /// The last cycle got its features.
    ok: bool,
    /// Age of the newest features; `null` before the first.
    age_seconds: Option<f64>,
    /// What is wrong, with the remedy.
    problem: Option<String>,
}

/// How the connection to the cluster is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KubernetesHealth)]
struct KubernetesJson {
    /// The watch is up to date, or Kubernetes is not used.
    ok: bool,
    /// Kubernetes is used.
    enabled: bool,
    /// What is wrong, with the remedy.
    problem: Option<String>,
}

/// Which model is in use.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Model)]
pub(super) struct ModelJson {
    /// Its name.
    name: String,
    /// Where it was learned.
    source: String,
    /// The furthest that it may cause.
    reach: ReachWord,
}

impl ModelJson {
    pub(super) fn new(model: &ModelName) -> Self {
        Self {
            name: model.name.clone(),
            source: model.source.clone(),
            reach: ReachWord(model.reach),
        }
    }
}

impl HealthJson {
    pub(in crate::web) fn new(snapshot: &Snapshot, now: Timestamp) -> Self {
        let health = &snapshot.health;
        let mut problems: Vec<String> = Vec::new();
        problems.extend(health.prometheus.problem.clone());
        problems.extend(health.kubernetes.problem.clone());
        problems.extend(health.degraded.iter().cloned());
        if !snapshot.synced {
            problems.push("starting: the first decision has not been made yet".to_owned());
        }
        let ok = health.is_ok() && snapshot.synced;
        Self {
            status: if ok { "ok" } else { "degraded" },
            problems,
            version: snapshot.version,
            synced: snapshot.synced,
            leader: health.leader,
            leader_name: health.leader_name.clone(),
            paused: health.paused,
            reach: ReachWord(snapshot.policy.reach_max()),
            prometheus: PrometheusJson {
                ok: health.prometheus.ok,
                age_seconds: health
                    .prometheus
                    .features_at
                    .map(|at| seconds(since(at, now))),
                problem: health.prometheus.problem.clone(),
            },
            kubernetes: KubernetesJson {
                ok: health.kubernetes.ok,
                enabled: health.kubernetes.enabled,
                problem: health.kubernetes.problem.clone(),
            },
            model: health.model.as_ref().map(ModelJson::new),
        }
    }
}
