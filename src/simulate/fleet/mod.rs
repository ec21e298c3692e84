//! A fleet of simulated Nodes, seen as node_exporter, kubelet, kube-state-metrics and a prober would
//! show them.
//!
//! One set of counters per Node feeds both ways out: the [text exposition](Fleet::write_page) that a real
//! Prometheus scrapes, and the [feature columns](columns) that the demo and synthetic training use
//! instead of a Prometheus. Time is virtual: a fleet is [advanced](Fleet::advance) by whoever holds
//! it, and the same seed, schedule and steps give the same bytes on every platform.
//!
//! Nothing here knows models, decisions or Kubernetes objects. `docs/fleet.md` has the equations,
//! the faults and the incidents.

mod beside;
mod collector;
pub mod columns;
mod counters;
pub mod discovery;
mod exposition;
mod families;
mod fault;
mod hardware;
mod history;
mod node;
mod outside;
mod random;
mod ring;
mod row;
mod schedule;
pub mod server;
mod text;
mod truth;
mod workload;

use std::collections::BTreeMap;
use std::time::Duration;

use foreshock_core::node::NodeName;
use jiff::Timestamp;

pub use columns::Columns;
pub(crate) use exposition::EXPORTER_VERSION;
pub use fault::{FaultEvent, FaultKind, FaultSpec, FaultSyntaxError};
pub use hardware::{Disk, Filesystem, Hardware, Machine, Sensors};
pub use schedule::{FaultRates, is_training_severity, random_schedule, training_seed};
pub use truth::{Incident, IncidentKind, Truth};
pub use workload::Profile;

use beside::Beside;
use fault::from_ms;
use history::History;
use node::SimulatedNode;
use random::Pace;

/// The most Nodes of one fleet: twice what Kubernetes supports.
pub const NODES_MAX: usize = 10_000;

/// How a fleet is made.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    /// Decides hardware, work and every random number.
    pub seed: u64,
    /// Names of the Nodes, without repeats; see [`node_names`].
    pub nodes: Vec<NodeName>,
    /// The time at which it begins. Nodes have been up for minutes to months by then.
    pub start: Timestamp,
    /// Length of one step. 1 s to serve, 15 s to train; at most 60 s.
    pub tick: Duration,
    /// What goes wrong, in any order.
    pub schedule: Vec<FaultEvent>,
    /// What is remembered for [`Columns`]; `None` where a Prometheus does the remembering.
    pub memory: Option<MemoryOptions>,
}

impl FleetOptions {
    /// A healthy fleet of `worker-01` and so on, in steps of 5 s, without memory.
    pub fn new(seed: u64, nodes: usize, start: Timestamp) -> Self {
        Self {
            seed,
            nodes: node_names(nodes),
            start,
            tick: Duration::from_secs(5),
            schedule: Vec::new(),
            memory: None,
        }
    }
}

/// What a fleet remembers of its own counters, as a Prometheus would.
#[derive(Clone, Debug)]
pub struct MemoryOptions {
    /// When it is scraped.
    pub scrapes: Scrapes,
    /// Window of `rate()` in the features: `prometheus.rate_window`.
    pub rate_window: Duration,
    /// How far back long windows can look, at most a day. Costs about 0.3 KiB a minute and Node.
    pub long: Duration,
}

impl MemoryOptions {
    /// Scraped this often, with the default window of 5 min and a day of memory.
    pub fn every(interval: Duration) -> Self {
        Self {
            scrapes: Scrapes::Every(interval),
            rate_window: Duration::from_secs(300),
            long: Duration::from_secs(86_400),
        }
    }
}

/// When a remembering fleet is scraped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scrapes {
    /// By itself, at multiples of this; a multiple of the tick.
    Every(Duration),
    /// Whenever somebody asks for a Node's metrics: the columns then agree with what that
    /// Prometheus says, sample by sample.
    OnRequest,
}

/// Why a fleet cannot be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// No Nodes, or more than [`NODES_MAX`].
    #[error("a fleet has 1 to {NODES_MAX} Nodes, got {0}")]
    Size(usize),
    /// Two Nodes of one name.
    #[error("two Nodes are named `{0}`")]
    Twice(NodeName),
    /// A name that is no Node's.
    #[error("no Node of the fleet is named `{0}`")]
    UnknownNode(NodeName),
    /// A tick of zero, of more than a minute, or not of whole milliseconds.
    #[error("a tick of {0:?} is impossible: use whole milliseconds, at most 1 min")]
    Tick(Duration),
    /// A scrape interval that is no multiple of the tick.
    #[error("a scrape interval of {scrape:?} is impossible: use a multiple of the tick, {tick:?}")]
    Scrape {
        /// The interval.
        scrape: Duration,
        /// The tick.
        tick: Duration,
    },
    /// A fault that cannot be.
    #[error("the fault of `{node}` is impossible")]
    Fault {
        /// Whose fault it is.
        node: NodeName,
        /// What is wrong with it.
        source: FaultSyntaxError,
    },
}

/// Who tells of a Node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// Its node_exporter.
    NodeExporter,
    /// Its kubelet.
    Kubelet,
    /// A prober in the network that pings it.
    Probe,
}

/// Why a page cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// No Node of that name.
    #[error("no Node of the fleet has this name")]
    UnknownNode,
    /// The machine is off.
    #[error("the Node is rebooting")]
    Down,
    /// The exporter does not answer.
    #[error("the exporter has vanished")]
    Vanished,
}

/// Names for `n` Nodes: `worker-01`, `worker-02` and so on, sorted as text.
pub fn node_names(n: usize) -> Vec<NodeName> {
    let width = n.to_string().len().max(2);
    (1..=n)
        .map(|i| format!("worker-{i:0width$}").into())
        .collect()
}

/// A fleet of simulated Nodes at one time.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// In the order of their names.
    nodes: Vec<SimulatedNode>,
    /// What is remembered of each Node, in the same order; empty without memory.
    histories: Vec<(History, Beside)>,
    by_name: BTreeMap<NodeName, usize>,
    memory: Option<MemoryOptions>,
    pace: Pace,
    tick_ms: i64,
    start_ms: i64,
    now_ms: i64,
}

impl Fleet {
    /// Makes a fleet at its start time.
    ///
    /// A Node that the schedule overheats gets hardware with a temperature sensor.
    ///
    /// # Errors
    ///
    /// [`FleetError`] for options that cannot be.
    pub fn new(options: FleetOptions) -> Result<Self, FleetError> {
        let tick_ms = tick_ms(options.tick)?;
        if options.nodes.is_empty() || options.nodes.len() > NODES_MAX {
            return Err(FleetError::Size(options.nodes.len()));
        }
        if let Some(Scrapes::Every(scrape)) = options.memory.as_ref().map(|m| m.scrapes)
            && (scrape.is_zero() || scrape.as_millis() % options.tick.as_millis() != 0)
        {
            let tick = options.tick;
            return Err(FleetError::Scrape { scrape, tick });
        }
        let mut names = options.nodes;
        names.sort();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(FleetError::Twice(pair[0].clone()));
        }
        let start_ms = options.start.as_millisecond();
        let hot: Vec<&NodeName> = options
            .schedule
            .iter()
            .filter(|fault| fault.kind == FaultKind::Overheating)
            .map(|fault| &fault.node)
            .collect();
        let nodes: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(index, name)| {
                SimulatedNode::new(
                    name.clone(),
                    index,
                    options.seed,
                    start_ms,
                    hot.contains(&name),
                )
            })
            .collect();
        let histories = match &options.memory {
            Some(memory) => nodes
                .iter()
                .map(|node| (History::new(node, memory, start_ms), Beside::new(memory)))
                .collect(),
            None => Vec::new(),
        };
        let by_name = names
            .into_iter()
            .enumerate()
            .map(|(i, name)| (name, i))
            .collect();
        let mut fleet = Self {
            nodes,
            histories,
            by_name,
            memory: options.memory,
            pace: Pace::new(tick_ms as f64 / 1000.0),
            tick_ms,
            start_ms,
            now_ms: start_ms,
        };
        for fault in options.schedule {
            fleet.inject(fault)?;
        }
        Ok(fleet)
    }

    /// The time the fleet has reached.
    pub fn now(&self) -> Timestamp {
        from_ms(self.now_ms)
    }

    /// The time it began at.
    pub fn start(&self) -> Timestamp {
        from_ms(self.start_ms)
    }

    /// Length of one step.
    pub fn tick(&self) -> Duration {
        Duration::from_millis(self.tick_ms as u64)
    }

    /// Names of the Nodes, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &NodeName> {
        self.nodes.iter().map(|node| &node.name)
    }

    /// Steps the fleet until its next step would pass `to`. Going back does nothing.
    pub fn advance(&mut self, to: Timestamp) {
        let to_ms = to.as_millisecond();
        let steps = (to_ms - self.now_ms).max(0) / self.tick_ms;
        if steps == 0 {
            return;
        }
        let every_ms = self
            .memory
            .as_ref()
            .and_then(|memory| match memory.scrapes {
                Scrapes::Every(every) => Some(every.as_millis() as i64),
                Scrapes::OnRequest => None,
            });
        let from_ms = self.now_ms;
        // Node by Node rather than step by step: the state of a Node stays in the cache.
        for (index, node) in self.nodes.iter_mut().enumerate() {
            for step in 1..=steps {
                let at_ms = from_ms + step * self.tick_ms;
                node.tick(at_ms, &self.pace);
                if let Some(every) = every_ms
                    && at_ms.div_euclid(every) != (at_ms - self.tick_ms).div_euclid(every)
                {
                    let (history, beside) = &mut self.histories[index];
                    history.record(node, at_ms);
                    beside.record_kubelet(node, at_ms);
                    beside.record_probe(node, at_ms);
                }
            }
        }
        self.now_ms = from_ms + steps * self.tick_ms;
    }

    /// Adds a fault, at run time too.
    ///
    /// # Errors
    ///
    /// [`FleetError::UnknownNode`] and [`FleetError::Fault`].
    pub fn inject(&mut self, fault: FaultEvent) -> Result<(), FleetError> {
        fault.check().map_err(|source| FleetError::Fault {
            node: fault.node.clone(),
            source,
        })?;
        let node = self.node_mut(&fault.node)?;
        node.faults.push(fault);
        Ok(())
    }

    /// Every fault there was, is or will be, by Node.
    pub fn faults(&self) -> impl Iterator<Item = &FaultEvent> {
        self.nodes.iter().flat_map(|node| &node.faults)
    }

    /// Sets how much of its usual work a Node does: 1 as drawn, 0 when its Pods are gone, at most 4.
    ///
    /// # Errors
    ///
    /// [`FleetError::UnknownNode`].
    pub fn set_load(&mut self, node: &NodeName, share: f64) -> Result<(), FleetError> {
        self.node_mut(node)?.set_load(share);
        Ok(())
    }

    /// Sets how many Pods a Node runs, from now on instead of as drawn. Their work is
    /// [`Self::set_load`].
    ///
    /// # Errors
    ///
    /// [`FleetError::UnknownNode`].
    pub fn set_pods(&mut self, node: &NodeName, pods: u32) -> Result<(), FleetError> {
        self.node_mut(node)?.set_pods(pods);
        Ok(())
    }

    /// The incident that a Node is in, if it is in one: the truth, not what its metrics say.
    pub fn degraded(&self, node: &NodeName) -> Option<Truth> {
        let incident = self.node(node)?.incident()?;
        Some(Truth {
            incident: incident.kind,
            since: incident.from,
        })
    }

    /// Every incident of a Node since the start, in order; none for an unknown Node.
    pub fn incidents(&self, node: &NodeName) -> &[Incident] {
        self.node(node).map_or(&[], |node| &node.incidents)
    }

    /// What a Node is made of.
    pub fn hardware(&self, node: &NodeName) -> Option<&Hardware> {
        self.node(node).map(|node| &node.hardware)
    }

    /// What a Node does.
    pub fn profile(&self, node: &NodeName) -> Option<Profile> {
        self.node(node).map(|node| node.work.profile)
    }

    /// Writes a page about a Node, as somebody who scrapes now would get it.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`] when nobody of that name is there, or does not answer.
    pub fn write_page(
        &self,
        node: &NodeName,
        page: Page,
        out: &mut String,
    ) -> Result<(), NoAnswer> {
        let node = self.node(node).ok_or(NoAnswer::UnknownNode)?;
        match page {
            Page::NodeExporter if !node.is_up() => Err(NoAnswer::Down),
            Page::NodeExporter if node.exporter_vanished => Err(NoAnswer::Vanished),
            Page::NodeExporter => {
                exposition::node_exporter(node, self.now_ms as f64 / 1000.0, out);
                Ok(())
            }
            Page::Kubelet if !node.is_up() => Err(NoAnswer::Down),
            Page::Kubelet => {
                outside::kubelet(node, out);
                Ok(())
            }
            Page::Probe => {
                outside::probe(node, out);
                Ok(())
            }
        }
    }

    /// Writes the page of kube-state-metrics for the whole fleet; `pods` adds series for each Pod.
    pub fn write_cluster_page(&self, pods: bool, out: &mut String) {
        outside::kube_state_metrics(&self.nodes, pods, out);
    }

    /// How long a scrape of a Node's exporter takes now; `None` when it does not answer.
    pub fn scrape_duration(&self, node: &NodeName) -> Option<Duration> {
        let node = self.node(node).filter(|node| node.answers())?;
        Some(Duration::from_secs_f64(node.gauges.scrape_seconds))
    }

    /// Remembers that a page of a Node is scraped now, at `at`; nothing unless the fleet remembers
    /// [`Scrapes::OnRequest`].
    pub fn note_scrape(&mut self, node: &NodeName, page: Page, at: Timestamp) {
        let on_request = (self.memory.as_ref()).is_some_and(|m| m.scrapes == Scrapes::OnRequest);
        let Some(&index) = self.by_name.get(node).filter(|_| on_request) else {
            return;
        };
        let (node, at_ms) = (&self.nodes[index], at.as_millisecond());
        let (history, beside) = &mut self.histories[index];
        match page {
            Page::NodeExporter => history.record(node, at_ms),
            Page::Kubelet => beside.record_kubelet(node, at_ms),
            Page::Probe => beside.record_probe(node, at_ms),
        }
    }

    fn node(&self, name: &NodeName) -> Option<&SimulatedNode> {
        self.by_name.get(name).map(|&index| &self.nodes[index])
    }

    fn node_mut(&mut self, name: &NodeName) -> Result<&mut SimulatedNode, FleetError> {
        match self.by_name.get(name) {
            Some(&index) => Ok(&mut self.nodes[index]),
            None => Err(FleetError::UnknownNode(name.clone())),
        }
    }
}

fn tick_ms(tick: Duration) -> Result<i64, FleetError> {
    let whole = tick.subsec_nanos().is_multiple_of(1_000_000);
    if tick.is_zero() || !whole || tick > Duration::from_secs(60) {
        return Err(FleetError::Tick(tick));
    }
    Ok(tick.as_millis() as i64)
}

#[cfg(test)]
mod tests;
