//! The whole service on an embedded fleet and cluster: the same loop, decision, actuator and page.
//!
//! Nothing else is needed, no network and no other program. The waiting times of the policy are
//! shortened, and the page says which.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use foreshock_core::node::NodeName;
use foreshock_core::time::{after, ago};
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::app::{self, AppError, Foundation};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, ConfigError};
use crate::kubernetes::Cluster;
use crate::model::loaded::Model;
use crate::simulate::cluster::{SimulatedCluster, SimulatedClusterOptions};
use crate::simulate::fleet::server::{SharedFleet, drive};
use crate::simulate::fleet::{
    FaultEvent, FaultKind, Fleet, FleetError, FleetOptions, MemoryOptions,
};
use crate::simulate::telemetry::FleetTelemetry;

/// Simulated seconds between two looks at the fleet's counters, as a scrape interval.
const SCRAPE: Duration = Duration::from_secs(2);
/// The fleet has run for so long when the demo opens, so that rates have something to stand on.
const HISTORY: Duration = Duration::from_secs(1_800);
/// The first fault begins so long after the start: time to open the page.
const FIRST_FAULT: Duration = Duration::from_secs(12);
/// A fault lasts so long.
const FAULT_LASTS: Duration = Duration::from_secs(55);
/// From one fault to the next: long enough for a drain and a return in between.
const FAULT_EVERY: Duration = Duration::from_secs(150);
/// The faults are planned for so long ahead: a demo that is left open overnight goes on.
const PLANNED: Duration = Duration::from_secs(3 * 86_400);
/// The severity of every fault: a multiple of a tenth, which training never uses.
const SEVERITY: f64 = 0.8;
/// What happens, in turn, and to whom.
const FAULTS: [(FaultKind, &str); 5] = [
    (FaultKind::SlowDisk, "worker-05"),
    (FaultKind::MemoryLeak, "worker-09"),
    (FaultKind::PacketLoss, "worker-02"),
    (FaultKind::CpuStarvation, "worker-11"),
    (FaultKind::VanishedExporter, "worker-07"),
];

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The configuration of the demo.
    #[error("the demo's own configuration is wrong")]
    Config(#[from] ConfigError),
    /// The fleet.
    #[error("the demo's fleet cannot be simulated")]
    Fleet(#[from] FleetError),
    /// The service.
    #[error(transparent)]
    App(#[from] AppError),
}

/// The configuration of the demo, as a file would say it.
fn configuration(listen: SocketAddr) -> String {
    format!(
        r#"
        [listen]
        address = "{listen}"
        [prometheus]
        lag = "2s"
        rate_window = "20s"
        stale_after = "10s"
        timeout = "5s"
        [cycle]
        interval = "2s"
        [model]
        act_untrained = true
        [policy]
        reach = "evict"
        confirm_for = "4s"
        drain_after = "5s"
        recover_for = "10s"
        probation = "10s"
        new_node_age = "0s"
        [policy.limits]
        drains_per_hour = 30
        "#
    )
}

/// Runs the demo until shutdown.
///
/// # Errors
///
/// [`DemoError`].
pub async fn run(
    seed: u64,
    listen: SocketAddr,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), DemoError> {
    let config = Config::parse(
        &configuration(listen),
        Path::new("the demo's configuration"),
        [],
    )?;
    let model = Model::load(None, config.model_terms()).map_err(AppError::Model)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let start = clock.now();
    let cluster = SimulatedCluster::new(SimulatedClusterOptions::demo(seed, start));
    let names: Vec<NodeName> = cluster.pods_per_node().into_keys().collect();
    let fleet = warm_fleet(seed, names, start, config.prometheus.rate_window)?;
    let fleet = SharedFleet::new(fleet, {
        let clock = Arc::clone(&clock);
        Arc::new(move || clock.now())
    });
    let telemetry = FleetTelemetry::new(
        fleet.clone(),
        Arc::clone(&config.schema),
        config.prometheus.rate_window,
        config.prometheus.stale_after,
    );
    info!(first_fault = ?FIRST_FAULT, node = FAULTS[0].1, fault = FAULTS[0].0.as_str(), "demo: a simulated cluster of 12 Nodes");
    let foundation = Foundation {
        telemetry: Arc::new(telemetry),
        cluster: Some(Arc::clone(&cluster) as Arc<dyn Cluster>),
        clock: Arc::clone(&clock),
    };
    let world = async {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = drive(fleet.clone(), 1.0, shutdown.clone()) => {}
            () = cluster.follow(|| clock.now(), Duration::from_millis(100)) => {}
            () = carry_load(&cluster, &fleet) => {}
        }
    };
    let (served, ()) = tokio::join!(
        app::serve(config, model, foundation, listener, shutdown.clone()),
        world
    );
    Ok(served?)
}

/// A fleet that has been up for a while, with its faults planned.
fn warm_fleet(
    seed: u64,
    nodes: Vec<NodeName>,
    now: Timestamp,
    rate_window: Duration,
) -> Result<Fleet, FleetError> {
    let mut options = FleetOptions::new(seed, nodes.len(), ago(now, HISTORY));
    options.nodes = nodes;
    options.tick = SCRAPE;
    options.memory = Some(MemoryOptions {
        rate_window,
        ..MemoryOptions::every(SCRAPE)
    });
    let mut at = after(now, FIRST_FAULT);
    for (kind, node) in FAULTS.iter().cycle() {
        if at > after(now, PLANNED) {
            break;
        }
        options.schedule.push(FaultEvent {
            node: NodeName::from(*node),
            kind: *kind,
            from: at,
            lasts: FAULT_LASTS,
            severity: SEVERITY,
            ramp: Some(Duration::from_secs(6)),
            target: None,
        });
        at = after(at, FAULT_EVERY);
    }
    let mut fleet = Fleet::new(options)?;
    fleet.advance(now);
    Ok(fleet)
}

/// Lets the simulated machines carry what the simulated cluster puts on them.
async fn carry_load(cluster: &SimulatedCluster, fleet: &SharedFleet) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        for (node, pods) in cluster.pods_per_node() {
            let share = cluster.load_share(&node);
            fleet.with(|fleet| {
                // The fleet has the Nodes of the cluster, so both are known to it.
                drop(fleet.set_pods(&node, u32::try_from(pods).unwrap_or(u32::MAX)));
                drop(fleet.set_load(&node, share));
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demos_configuration_is_valid_and_says_what_it_shortens() {
        let listen = SocketAddr::from(([127, 0, 0, 1], 5000));
        let config = Config::parse(&configuration(listen), Path::new("demo"), []).expect("valid");
        let keys: Vec<String> = config
            .shortened()
            .into_iter()
            .map(|shortened| shortened.key)
            .collect();
        assert!(keys.contains(&"policy.confirm_for".to_owned()), "{keys:?}");
    }
}
