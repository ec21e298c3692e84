//! The service put together: its tasks, and how they start and end.

use std::sync::Arc;

use foreshock_core::decision::audit::AuditedPlan;
use foreshock_core::decision::policy::{Policy, Reach};
use foreshock_core::record::Taint;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, info_span};

use crate::actuator::{
    self, Actuator, ActuatorOptions, EventTx, Leader, LeaderOptions, Leadership, LeaseTimes,
    ReportRx,
};
use crate::alertmanager::{AlertmanagerClient, webhook_queue};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::cycle::{Cycle, CycleOptions, CycleParts};
use crate::doors::{LeadDoor, MayWrite, NoSwitch, PlanDoor, Switch, WebhookDoor};
use crate::events::{EventKind, EventLog, NewEvent};
use crate::features::Telemetry;
use crate::kubernetes::Cluster;
use crate::kubernetes::client::{ConnectError, KubeCluster, KubeOptions};
use crate::metrics::{Counters, Metrics};
use crate::model::artifact::ModelError;
use crate::model::loaded::Model;
use crate::prometheus::{PrometheusTelemetry, SetupError};
use crate::snapshot::Snapshot;
use crate::web::{self, Control, PeerUrl, WebError, WebState};

/// Why the service cannot start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The listener.
    #[error(transparent)]
    Web(#[from] WebError),
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Prometheus cannot even be asked.
    #[error("Prometheus cannot be asked as configured:\n{0}")]
    Prometheus(#[from] SetupError),
    /// There is no way to the cluster.
    #[error(
        "no way to Kubernetes; correct [kubernetes], or set kubernetes.enabled = false to only watch"
    )]
    Kubernetes(#[from] ConnectError),
    /// `listen.advertise`.
    #[error("listen.advertise: {0}")]
    Advertise(String),
    /// The HTTP client for Alertmanager cannot be made.
    #[error("Alertmanager cannot be asked")]
    Alertmanager(#[source] reqwest::Error),
    /// A task ended by itself; the service does not go on with a part of it missing.
    #[error("the {task} ended unexpectedly{}", .problem.as_ref().map(|problem| format!(": {problem}")).unwrap_or_default())]
    Ended {
        /// Which.
        task: &'static str,
        /// Why, where it said so.
        problem: Option<String>,
    },
}

/// What the service rests on. The demo puts simulated ones in their places.
pub struct Foundation {
    /// Where features come from.
    pub telemetry: Arc<dyn Telemetry>,
    /// The cluster, where there is one.
    pub cluster: Option<Arc<dyn Cluster>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Foundation {
    /// Real ones, as configured.
    ///
    /// # Errors
    ///
    /// [`AppError::Prometheus`] and [`AppError::Kubernetes`]. That neither answers is no error: the
    /// service starts, says so, and goes on trying.
    pub async fn real(config: &Config) -> Result<Self, AppError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let telemetry = PrometheusTelemetry::new(&config.prometheus, Arc::clone(&config.schema))?;
        let cluster: Option<Arc<dyn Cluster>> = if config.kubernetes.enabled {
            Some(KubeCluster::connect(kube_options(config), Arc::clone(&clock)).await?)
        } else {
            None
        };
        Ok(Self {
            telemetry: Arc::new(telemetry),
            cluster,
            clock,
        })
    }
}

/// How the cluster is reached, as configured.
pub fn kube_options(config: &Config) -> KubeOptions {
    KubeOptions {
        kubeconfig: config.kubernetes.kubeconfig.clone(),
        instance: config.kubernetes.instance.clone(),
        namespace: config.kubernetes.namespace.clone().unwrap_or_default(),
        node_selector: config.kubernetes.node_selector.clone(),
        taints: taints(&config.policy),
    }
}

/// Every taint that may be written, of the policy and of its pools.
fn taints(policy: &Policy) -> Vec<Taint> {
    let pools = policy.pools.iter().map(|pool| &pool.rules);
    let mut taints: Vec<Taint> = std::iter::once(&policy.rules)
        .chain(pools)
        .flat_map(|rules| std::iter::once(&rules.taint).chain(&rules.caution_taint))
        .cloned()
        .collect();
    taints.sort();
    taints.dedup();
    taints
}

/// Runs the service until shutdown.
///
/// # Errors
///
/// [`AppError`], also when a task ends that should not.
pub async fn serve(
    config: Config,
    model: Model,
    foundation: Foundation,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), AppError> {
    let Foundation {
        telemetry,
        cluster,
        clock,
    } = foundation;
    let started_at = clock.now();
    let standing = model.standing(started_at, None);
    let mut policy = config.policy.clone();
    policy.model_trusted = standing.trusted;
    let policy = Arc::new(policy);
    let events = Arc::new(EventLog::new(started_at));
    let counters = Arc::new(Counters::new());
    let (queue, webhook) = webhook_queue();
    let starting = Snapshot::starting(started_at, env!("CARGO_PKG_VERSION"), Arc::clone(&policy));
    let (snapshots_tx, snapshots) = watch::channel(Arc::new(starting));
    let (plans_tx, plans) = watch::channel(None);
    events.push(NewEvent::new(
        started_at,
        EventKind::Started,
        concat!("foreshock ", env!("CARGO_PKG_VERSION"), " started"),
    ));
    info!(
        version = env!("CARGO_PKG_VERSION"),
        model = model.id(),
        reach = policy.reach_max().as_str(),
        model_reach = standing.reach().as_str(),
        kubernetes = cluster.is_some(),
        "starting"
    );
    for shortened in config.shortened() {
        info!(
            key = shortened.key,
            value = ?shortened.value,
            default = ?shortened.default,
            "waiting time is shorter than its default"
        );
    }

    let mut tasks: JoinSet<(&'static str, Result<(), String>)> = JoinSet::new();
    let writer = match &cluster {
        Some(cluster) => {
            let address = advertised(&config, &listener)?;
            writer(
                &config,
                policy.reach_max(),
                address,
                Arc::clone(cluster),
                Arc::clone(&clock),
                plans,
                &mut tasks,
                &shutdown,
            )
        }
        None => Writer::none(started_at),
    };

    let alertmanager = match &config.alertmanager_url {
        Some(url) => {
            let client = reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .build();
            Some(AlertmanagerClient::new(
                client.map_err(AppError::Alertmanager)?,
                url,
                config.prometheus.timeout,
            ))
        }
        None => None,
    };
    let metrics = Arc::new(Metrics::new(snapshots.clone(), Arc::clone(&counters)));
    let plans = PlanDoor::new(
        cluster.clone(),
        Arc::clone(&policy),
        config.eviction_rate,
        Arc::clone(&clock),
        snapshots.clone(),
        writer.may_write,
    );
    let state = WebState {
        snapshots,
        events: Arc::clone(&events),
        metrics: {
            let clock = Arc::clone(&clock);
            Arc::new(move || metrics.render(clock.now()))
        },
        webhook: Arc::new(WebhookDoor {
            queue,
            counters: Arc::clone(&counters),
        }),
        control: writer.control,
        leads: Arc::new(LeadDoor {
            leadership: writer.leadership.clone(),
            counters: Arc::clone(&counters),
        }),
        plans: Arc::new(plans),
        clock: {
            let clock = Arc::clone(&clock);
            Arc::new(move || clock.now())
        },
    };
    let cycle = Cycle::new(
        CycleOptions {
            interval: config.interval,
            lag: config.prometheus.lag,
            missing_max: config.model.missing_max,
            shortened: config.shortened(),
            policy,
            pools: config.pools,
            model,
            started_at,
            alerts: Arc::new(config.alerts),
        },
        CycleParts {
            telemetry,
            cluster,
            webhook,
            alertmanager,
            leadership: writer.leadership,
            reports: writer.reports,
            announce: writer.announce,
            clock,
            events,
            counters,
            snapshots: snapshots_tx,
            plans: plans_tx,
        },
    );
    let stop = shutdown.clone();
    tasks.spawn(
        async move {
            ("cycle", {
                cycle.run(stop).await;
                Ok(())
            })
        }
        .instrument(info_span!("cycle")),
    );
    let stop = shutdown.clone();
    tasks.spawn(
        async move {
            let served = web::serve(listener, config.web, state, stop).await;
            (
                "web server",
                served.map_err(|error| crate::cycle::chain(&error)),
            )
        }
        .instrument(info_span!("web")),
    );
    wind_up(tasks, shutdown).await
}

/// Where the other replicas reach this one, for the Lease.
fn advertised(config: &Config, listener: &TcpListener) -> Result<Option<String>, AppError> {
    let listening = listener
        .local_addr()
        .map_err(|source| WebError::Listener { source })?;
    let url = PeerUrl::advertised(
        config.advertise.as_deref(),
        listening,
        config.web.tls.is_some(),
    )
    .map_err(AppError::Advertise)?;
    if url.is_none() && config.policy.reach_max() > Reach::Observe {
        info!(
            key = "listen.advertise",
            "other replicas cannot hand requests on to this one: its address is not known"
        );
    }
    Ok(url.map(|url| url.as_str().to_owned()))
}

/// Waits for the tasks. The first that ends brings the others down; one that ends before it was told
/// to is a failure.
async fn wind_up(
    mut tasks: JoinSet<(&'static str, Result<(), String>)>,
    shutdown: CancellationToken,
) -> Result<(), AppError> {
    let mut failure = None;
    while let Some(ended) = tasks.join_next().await {
        let (task, problem) = match ended {
            Ok((task, result)) => (task, result.err()),
            Err(error) => ("task", Some(error.to_string())),
        };
        if !shutdown.is_cancelled() || problem.is_some() {
            error!(task, problem, "a task ended; shutting down");
            failure.get_or_insert(AppError::Ended { task, problem });
        }
        shutdown.cancel();
    }
    info!("stopped");
    failure.map_or(Ok(()), Err)
}

/// What the rest of the service sees of whoever writes.
struct Writer {
    leadership: watch::Receiver<Leadership>,
    reports: Option<ReportRx>,
    announce: Option<EventTx>,
    control: Arc<dyn Control>,
    /// Whether a write could leave now.
    may_write: MayWrite,
}

impl Writer {
    /// Without a cluster nobody writes.
    fn none(at: Timestamp) -> Self {
        let (_, leadership) = watch::channel(Leadership {
            leader: true,
            since: at,
            paused: false,
            record: None,
            holder: None,
            other_leads: false,
            address: None,
            problem: None,
        });
        Self {
            leadership,
            reports: None,
            announce: None,
            control: Arc::new(NoSwitch),
            may_write: Arc::new(|| Err("there is no cluster".to_owned())),
        }
    }
}

/// Starts the leader and, where anything may be written, the actuator.
#[expect(
    clippy::too_many_arguments,
    reason = "called once, to keep `serve` readable"
)]
fn writer(
    config: &Config,
    reach: Reach,
    address: Option<String>,
    cluster: Arc<dyn Cluster>,
    clock: Arc<dyn Clock>,
    plans: watch::Receiver<Option<Arc<AuditedPlan>>>,
    tasks: &mut JoinSet<(&'static str, Result<(), String>)>,
    shutdown: &CancellationToken,
) -> Writer {
    let writes = reach > Reach::Observe;
    let options = LeaderOptions {
        identity: actuator::identity(&*clock),
        address,
        elect: writes,
        times: LeaseTimes::default(),
    };
    let (leader, handle) = Leader::new(Arc::clone(&cluster), Arc::clone(&clock), options);
    let gate = handle.gate(reach);
    let may_write: MayWrite = Arc::new(move || gate.check().map_err(|closed| closed.to_string()));
    cluster.set_guard(Arc::clone(&may_write));
    let leadership = handle.leadership();
    let control = Arc::new(Switch {
        leader: handle.clone(),
        lasting: writes,
    });
    // The Lease is given up only after the last write has ended.
    let lead_until = CancellationToken::new();
    let lead = leader
        .run(lead_until.clone())
        .instrument(info_span!("leader"));
    tasks.spawn(async move {
        lead.await;
        ("leader", Ok(()))
    });
    let stop = shutdown.clone();
    if !writes {
        tasks.spawn(async move {
            stop.cancelled().await;
            lead_until.cancel();
            ("switch", Ok(()))
        });
        return Writer {
            leadership,
            reports: None,
            announce: None,
            control,
            may_write,
        };
    }
    let options = ActuatorOptions {
        reach,
        marks_per_second: config.marks_per_second,
        evictions_per_second: config.eviction_rate,
    };
    let (actuator, reports, announce) = Actuator::new(options, cluster, clock, handle, plans);
    let act = actuator.run(stop).instrument(info_span!("actuator"));
    tasks.spawn(async move {
        act.await;
        lead_until.cancel();
        ("actuator", Ok(()))
    });
    Writer {
        leadership,
        reports: Some(reports),
        announce: Some(announce),
        control,
        may_write,
    }
}
