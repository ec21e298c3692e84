//! The only writer of Nodes and Pods, from an audited plan and nothing else.
//!
//! A plan is standing orders: the latest one counts, and an order that is not in it any more is
//! withdrawn. Before every single write the [`Gate`] is asked: reach, pause, leadership, and whether the
//! Lease outlasts the write. What happened goes to the cycle as [`Report`]s.

mod board;
mod drain;
mod events;
mod gate;
mod leader;
mod moves;
mod release;
mod reports;
mod surge;
mod turns;
mod volumes;

pub use events::channel as event_channel;
pub use events::{EventRx, EventTx};
pub use gate::{Closed, Gate, LeaderHandle, Leadership, LeaseError};
pub use leader::{Leader, LeaderOptions, LeaseTimes, identity};
pub use release::{Progress, ReleaseError, ReleaseOptions, Summary, rehearse, release};
pub use reports::{PodReport, REPORTS_MAX, Report, ReportRx, ReportTx, channel as report_channel};

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foreshock_core::decision::audit::AuditedPlan;
use foreshock_core::decision::plan::{Cause, MarkOrder, Plan};
use foreshock_core::decision::policy::Reach;
use foreshock_core::drain::{DrainOrder, NodeOutcome, PodOutcome};
use foreshock_core::node::{NodeId, NodeName};
use foreshock_core::record::{ClusterRecord, RecordedPhase};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info, info_span, warn};

use crate::clock::Clock;
use crate::kubernetes::rate::Rate;
use crate::kubernetes::{Cluster, ClusterError, ClusterEvent, NodeEntry, NodeTable, WRITE_LIMIT};
use drain::{DrainEnd, DrainState, Orders};

/// Marks under way at once. `marks_per_second` paces them; this bounds what a slow server piles up.
const MARKS_IN_FLIGHT_MAX: usize = 4;
/// After the gate was found closed. Its opening is an event, but for a Lease that is renewed late.
const GATE_PAUSE: Duration = Duration::from_millis(500);
/// What is under way at shutdown is waited for: a write, and the read that may follow it.
const SHUTDOWN_LIMIT: Duration = WRITE_LIMIT.saturating_add(Duration::from_secs(7));

/// How the actuator works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActuatorOptions {
    /// The furthest that any pool allows.
    pub reach: Reach,
    /// `policy.limits.marks_per_second`.
    pub marks_per_second: u32,
    /// `eviction.rate`, per second.
    pub evictions_per_second: u32,
}

/// The task that carries plans out. Nobody outside can make one for anything but audited plans; the
/// tests of this folder make up plans of their own.
pub struct Actuator<P = AuditedPlan> {
    cluster: Arc<dyn Cluster>,
    clock: Arc<dyn Clock>,
    leader: LeaderHandle,
    gate: Gate,
    plans: watch::Receiver<Option<Arc<P>>>,
    plan_of: fn(&P) -> &Plan,
    reports: ReportTx,
    events: EventTx,
    events_rx: EventRx,
    marks: Rate,
    shared: Arc<drain::Shared>,
}

impl Actuator {
    /// The task, to be run; what it reports; and where others may have Events published.
    pub fn new(
        options: ActuatorOptions,
        cluster: Arc<dyn Cluster>,
        clock: Arc<dyn Clock>,
        leader: LeaderHandle,
        plans: watch::Receiver<Option<Arc<AuditedPlan>>>,
    ) -> (Self, ReportRx, EventTx) {
        Self::with_plans(options, cluster, clock, leader, plans, AuditedPlan::plan)
    }
}

impl<P: Send + Sync + 'static> Actuator<P> {
    fn with_plans(
        options: ActuatorOptions,
        cluster: Arc<dyn Cluster>,
        clock: Arc<dyn Clock>,
        leader: LeaderHandle,
        plans: watch::Receiver<Option<Arc<P>>>,
        plan_of: fn(&P) -> &Plan,
    ) -> (Self, ReportRx, EventTx) {
        let (reports, reports_rx) = reports::channel();
        let (events, events_rx) = events::channel();
        let gate = leader.gate(options.reach);
        let shared = drain::Shared::new(
            Arc::clone(&cluster),
            Arc::clone(&clock),
            gate.clone(),
            reports.clone(),
            events.clone(),
            options.evictions_per_second,
            options.marks_per_second,
            options.reach >= Reach::Evict,
        );
        let actuator = Self {
            cluster,
            clock,
            leader,
            gate,
            plans,
            plan_of,
            reports,
            events: events.clone(),
            events_rx,
            marks: Rate::per_second(options.marks_per_second),
            shared: Arc::new(shared),
        };
        (actuator, reports_rx, events)
    }

    /// Runs until `shutdown`. Then nothing more is begun, and what is under way is waited for, for at
    /// most 15 s; only after that may the Lease be given up.
    pub async fn run(self, shutdown: CancellationToken) {
        let stop = CancellationToken::new();
        let events = events::run(
            Arc::clone(&self.cluster),
            self.gate.clone(),
            Arc::clone(&self.shared.turns),
            self.events_rx,
            stop.clone(),
        );
        let keep = surge::keep(Arc::clone(&self.shared), stop.clone());
        let follow = moves::run(Arc::clone(&self.shared), stop.clone());
        let volumes = volumes::run(Arc::clone(&self.shared), stop.clone());
        let run = Run {
            nodes: self.cluster.nodes(),
            cluster: self.cluster,
            clock: self.clock,
            leader: self.leader,
            gate: self.gate,
            reports: self.reports,
            events: self.events,
            rate: self.marks,
            shared: self.shared,
            queue: VecDeque::new(),
            record_wanted: None,
            record_writing: false,
            record_failed: None,
            writes: FuturesUnordered::new(),
            in_flight: BTreeMap::new(),
            finished: BTreeMap::new(),
            wanted: BTreeMap::new(),
            drains: BTreeMap::new(),
            tasks: JoinSet::new(),
            parked: BTreeMap::new(),
            leads_from: None,
            paused: false,
            marks_from: Timestamp::MIN,
            last_sent: None,
            finish_failed: false,
            taint_failed: false,
        };
        let act = async {
            run.run(self.plans, self.plan_of, shutdown).await;
            stop.cancel();
        };
        tokio::join!(act, follow, volumes, events, keep);
    }
}

/// What came of a write.
enum Written {
    Mark(MarkOrder, Result<Box<NodeEntry>, ClusterError>),
    Record(ClusterRecord, Result<(), LeaseError>),
}

/// A drain whose task runs.
struct Running {
    node: NodeId,
    started_at: Timestamp,
    orders: watch::Sender<Orders>,
}

struct Run {
    cluster: Arc<dyn Cluster>,
    clock: Arc<dyn Clock>,
    leader: LeaderHandle,
    gate: Gate,
    nodes: watch::Receiver<Arc<NodeTable>>,
    reports: ReportTx,
    events: EventTx,
    rate: Rate,
    shared: Arc<drain::Shared>,
    /// Marks of the present plan that have not been sent.
    queue: VecDeque<MarkOrder>,
    /// The cluster's record that the present plan wants: before any of its marks.
    record_wanted: Option<ClusterRecord>,
    record_writing: bool,
    /// It could not be written: nothing of the present plan may begin.
    record_failed: Option<String>,
    writes: FuturesUnordered<BoxFuture<'static, Written>>,
    /// One write at a time for each Node.
    in_flight: BTreeMap<NodeName, MarkOrder>,
    /// The last order that was carried out for each Node, or tried: a plan that was decided before its
    /// outcome was known has it again.
    finished: BTreeMap<NodeName, (MarkOrder, Timestamp, bool)>,
    /// Drains of the present plan.
    wanted: BTreeMap<NodeName, DrainOrder>,
    drains: BTreeMap<NodeName, Running>,
    tasks: JoinSet<DrainEnd>,
    /// How far drains were that have been withdrawn, in case they are ordered again.
    parked: BTreeMap<NodeName, DrainEnd>,
    /// Since when this process leads. Plans that were decided earlier are not carried out: they saw
    /// the world that another was acting on.
    leads_from: Option<Timestamp>,
    paused: bool,
    /// Marks that were decided before the last pause began are not made after it.
    marks_from: Timestamp,
    /// When the last mark was sent.
    last_sent: Option<Timestamp>,
    /// An order of the present plan that finishes something has failed.
    finish_failed: bool,
    /// A taint of the present plan was not set: no drain of it starts.
    taint_failed: bool,
}

impl Run {
    async fn run<P>(
        mut self,
        mut plans: watch::Receiver<Option<Arc<P>>>,
        plan_of: fn(&P) -> &Plan,
        shutdown: CancellationToken,
    ) {
        let mut leadership = self.leader.leadership();
        let mut gate = self.gate.clone();
        let mut nodes = self.nodes.clone();
        self.follow_leadership(&leadership.borrow_and_update().clone());
        let plan = plans.borrow_and_update().clone();
        self.adopt(plan.as_deref().map(plan_of));
        loop {
            let wake = self.dispatch();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(written) = self.writes.next(), if !self.writes.is_empty() => self.written(written),
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => self.drain_ended(ended),
                Ok(()) = leadership.changed() => {
                    let now = leadership.borrow_and_update().clone();
                    self.follow_leadership(&now);
                }
                Ok(()) = plans.changed() => {
                    let plan = plans.borrow_and_update().clone();
                    self.adopt(plan.as_deref().map(plan_of));
                }
                () = gate.changed() => {}
                Ok(()) = nodes.changed() => {
                    nodes.borrow_and_update();
                    self.start_drains();
                }
                () = tokio::time::sleep_until(wake) => {}
            }
        }
        self.stop().await;
    }

    /// Takes the plan over. What is not in it is withdrawn.
    fn adopt(&mut self, plan: Option<&Plan>) {
        self.follow_clock();
        let plan = plan.filter(|plan| self.leads_from.is_some_and(|from| plan.at >= from));
        let Some(plan) = plan else {
            self.withdraw_all(&Orders::Cancelled);
            return;
        };
        let at = plan.at;
        let marks = if self.paused || at < self.marks_from {
            &[]
        } else {
            plan.marks.as_slice()
        };
        // While the cluster's record is on its way, the marks that wait for it stay: a newer plan may not
        // know of it. The next plan after it has landed is taken over whole.
        if self.record_writing {
            self.wanted = drains_of(plan);
            self.tell_drains();
            self.start_drains();
            return;
        }
        // A plan that was decided before the last mark was sent may not count it. What it begins waits
        // for the next plan, which is already on its way: the sent mark has woken the cycle.
        let counts_all = self.last_sent.is_none_or(|sent| at > sent);
        self.finish_failed = false;
        self.taint_failed = false;
        self.queue = marks
            .iter()
            .filter(|order| !self.is_known(order, at) && (counts_all || !order.begins()))
            .cloned()
            .collect();
        self.record_wanted = plan
            .cluster
            .clone()
            .filter(|_| !self.paused && at >= self.marks_from && counts_all);
        self.record_failed = None;
        self.wanted = drains_of(plan);
        self.tell_drains();
        self.start_drains();
    }

    /// The wall clock may be set back. Times from before that would shut out every plan until it has
    /// caught up, so they become the present.
    fn follow_clock(&mut self) {
        let now = self.clock.now();
        let leads_from = self.leads_from.as_mut();
        let times = leads_from
            .into_iter()
            .chain(self.last_sent.as_mut())
            .chain([&mut self.marks_from]);
        let mut jumped = false;
        for time in times.filter(|time| **time > now) {
            *time = now;
            jumped = true;
        }
        if jumped {
            warn!(now = %now, "the clock was set back");
            self.finished.clear();
        }
    }

    /// Whether the order is being carried out, or its outcome was not known to who decided it.
    fn is_known(&self, order: &MarkOrder, decided_at: Timestamp) -> bool {
        let name = &order.node.name;
        self.in_flight.get(name) == Some(order)
            || self
                .finished
                .get(name)
                .is_some_and(|(finished, at, success)| {
                    finished == order && (*success || decided_at <= *at)
                })
    }

    fn follow_leadership(&mut self, now: &Leadership) {
        if now.paused != self.paused {
            self.paused = now.paused;
            if now.paused {
                self.marks_from = self.clock.now();
            }
            self.queue.clear();
            self.record_wanted = None;
            // Drains go on being followed; the gate lets nothing out.
            info!(paused = now.paused, "the switch was thrown");
        }
        if !now.leader {
            self.leads_from = None;
            self.withdraw_all(&Orders::Stopped);
        } else if self.leads_from.is_none() {
            self.leads_from = Some(now.since);
        }
    }

    fn withdraw_all(&mut self, orders: &Orders) {
        self.queue.clear();
        self.record_wanted = None;
        self.wanted.clear();
        for running in self.drains.values() {
            if matches!(*running.orders.borrow(), Orders::Go(_)) {
                running.orders.send_replace(orders.clone());
            }
        }
    }

    /// Sends what may be sent now. Returns when to look again if nothing happens.
    fn dispatch(&mut self) -> Instant {
        let later = Instant::now() + Duration::from_secs(3600);
        let present = self.leader.leadership().borrow().record.clone();
        if self.record_wanted == present {
            self.record_wanted = None;
        }
        let record_due = self.record_wanted.is_some() && self.record_failed.is_none();
        if self.record_writing || (self.queue.is_empty() && !record_due) {
            return later;
        }
        if let Err(closed) = self.gate.check() {
            debug!(%closed, waiting = self.queue.len(), "marks wait");
            return Instant::now() + GATE_PAUSE;
        }
        if let Some(problem) = self.record_failed.clone() {
            self.skip_beginnings(&problem);
        } else if let Some(record) = self.record_wanted.clone() {
            self.record_writing = true;
            let leader = self.leader.clone();
            self.writes.push(Box::pin(async move {
                let result = leader.write_record(record.clone()).await;
                Written::Record(record, result)
            }));
            return later;
        }
        // A plan may use the room that its own finishing orders free. So nothing begins before they
        // are through, and nothing at all if one of them failed.
        if self.finish_failed {
            self.skip_beginnings("an order that was to free room for it failed");
        }
        // A Node at risk that could not be marked would take the Pods of those that are drained. The
        // next plan, which knows of the failure, says what is to be done about that.
        if self.taint_failed {
            self.queue.retain(|order| order.cause != Cause::DrainStart);
        }
        while self.in_flight.len() < MARKS_IN_FLIGHT_MAX {
            let finishing = self
                .in_flight
                .values()
                .chain(&self.queue)
                .any(|order| !order.begins());
            // Every candidate is marked before any is drained, so that no Pod moves to the next of them.
            let tainting = self
                .in_flight
                .values()
                .chain(&self.queue)
                .any(|order| order.cause == Cause::Taint);
            let waits = |order: &MarkOrder| {
                self.in_flight.contains_key(&order.node.name)
                    || (finishing && order.begins())
                    || (tainting && order.cause == Cause::DrainStart)
            };
            let Some(at) = self.queue.iter().position(|order| !waits(order)) else {
                return later;
            };
            if !self.rate.try_turn() {
                return self.rate.ready_at();
            }
            if let Some(order) = self.queue.remove(at) {
                self.send(order);
            }
        }
        later
    }

    fn send(&mut self, order: MarkOrder) {
        debug!(node = %order.node, cause = order.cause.as_str(), "marking node");
        let now = self.clock.now();
        self.last_sent = Some(now);
        self.reports.send(Report::MarkSent {
            node: order.node.clone(),
            cause: order.cause,
            at: now,
        });
        self.in_flight
            .insert(order.node.name.clone(), order.clone());
        let cluster = Arc::clone(&self.cluster);
        self.writes.push(Box::pin(async move {
            // The cluster has its own limit, which is WRITE_LIMIT; a simulated one may not.
            let limit = WRITE_LIMIT + Duration::from_secs(1);
            let result = tokio::time::timeout(limit, cluster.mark(&order)).await;
            let result = result.unwrap_or_else(|_| {
                Err(ClusterError::Timeout {
                    action: format!("mark Node {}", order.node),
                    limit,
                })
            });
            Written::Mark(order, result.map(Box::new))
        }));
    }

    /// Without the cluster's record a limit could be forgotten by the next process.
    fn skip_beginnings(&mut self, problem: &str) {
        let (reports, now) = (&self.reports, self.clock.now());
        self.queue.retain(|order| {
            if order.begins() {
                reports.send(Report::MarkFailed {
                    node: order.node.clone(),
                    cause: order.cause,
                    error: ClusterError::Failed {
                        action: "write the cluster's record".to_owned(),
                        detail: problem.to_owned(),
                    },
                    at: now,
                });
            }
            !order.begins()
        });
    }

    fn written(&mut self, written: Written) {
        let now = self.clock.now();
        match written {
            Written::Record(record, result) => {
                self.record_writing = false;
                // A newer plan may want another one meanwhile; that one is written next.
                let is_wanted = self.record_wanted.as_ref() == Some(&record);
                match result {
                    Ok(()) => {
                        self.record_wanted.take_if(|_| is_wanted);
                        // Plans that were decided before this do not know of it.
                        self.last_sent = Some(now);
                        self.reports.send(Report::RecordWritten { record });
                    }
                    Err(error) => {
                        let problem = leader::chain(&error);
                        warn!(
                            error = problem,
                            "cluster record not written: nothing is begun"
                        );
                        self.record_failed = is_wanted.then(|| problem.clone());
                        self.reports.send(Report::RecordFailed { problem });
                    }
                }
            }
            Written::Mark(order, result) => {
                self.in_flight.remove(&order.node.name);
                let success = result.is_ok();
                self.finish_failed |= !success && !order.begins();
                self.taint_failed |= !success && order.cause == Cause::Taint;
                match result {
                    Ok(entry) => {
                        if let Some(event) = event_of(&order) {
                            self.events.publish(event);
                        }
                        self.reports.send(Report::Marked {
                            entry,
                            cause: order.cause,
                            note: order.note.clone(),
                            at: now,
                        });
                    }
                    Err(error) => {
                        self.reports.send(Report::MarkFailed {
                            node: order.node.clone(),
                            cause: order.cause,
                            error,
                            at: now,
                        });
                    }
                }
                // The same order may have come again meanwhile, from a plan that could not know.
                self.queue.retain(|queued| *queued != order);
                self.finished
                    .insert(order.node.name.clone(), (order, now, success));
                self.start_drains();
            }
        }
    }

    /// Tells the running drains their orders, also where they are the same, since a drain that is over says so
    /// again with every plan, and withdraws those that are not wanted.
    fn tell_drains(&self) {
        for (name, running) in &self.drains {
            let wanted = self.wanted.get(name).filter(|order| {
                order.node == running.node && order.started_at == running.started_at
            });
            let orders = wanted.map_or(Orders::Cancelled, |order| Orders::Go(order.clone()));
            running.orders.send_replace(orders);
        }
    }

    /// Starts the drains that are wanted and recorded.
    fn start_drains(&mut self) {
        let table = self.nodes.borrow().clone();
        let due: Vec<DrainOrder> = self
            .wanted
            .values()
            .filter(|order| {
                !self.drains.contains_key(&order.node.name) && is_recorded(&table, order)
            })
            .cloned()
            .collect();
        for order in due {
            self.start(order);
        }
        self.finished
            .retain(|name, _| table.nodes.contains_key(name));
        self.parked.retain(|name, _| table.nodes.contains_key(name));
    }

    fn start(&mut self, order: DrainOrder) {
        let (node, started_at) = (order.node.clone(), order.started_at);
        let parked = self.parked.remove(&node.name);
        let state = parked
            .filter(|parked| parked.node == node && parked.started_at == started_at)
            .map_or_else(DrainState::default, |parked| parked.state);
        info!(node = %node, started_at = %started_at, "drain goes on");
        let (orders, orders_rx) = watch::channel(Orders::Go(order));
        let run = drain::run(
            Arc::clone(&self.shared),
            node.clone(),
            started_at,
            orders_rx,
            state,
        );
        self.tasks
            .spawn(run.instrument(info_span!("drain", node = %node)));
        self.drains.insert(
            node.name.clone(),
            Running {
                node,
                started_at,
                orders,
            },
        );
    }

    fn drain_ended(&mut self, ended: Result<DrainEnd, tokio::task::JoinError>) {
        match ended {
            Ok(end) => {
                let name = end.node.name.clone();
                if self
                    .drains
                    .get(&name)
                    .is_some_and(|running| running.orders.is_closed())
                {
                    self.drains.remove(&name);
                }
                self.parked.insert(name, end);
            }
            Err(problem) => {
                // A drain that panicked must not be taken for one that runs. Its task cannot be told
                // from the others, so those that have ended are found by their closed channels.
                error!(error = %problem, "a drain's task failed");
                self.drains.retain(|_, running| !running.orders.is_closed());
            }
        }
        self.start_drains();
    }

    /// Begins nothing more, and waits for what is under way.
    async fn stop(mut self) {
        self.withdraw_all(&Orders::Stopped);
        let rest = async {
            // What came of them is still reported.
            while let Some(written) = self.writes.next().await {
                self.written(written);
            }
            while self.tasks.join_next().await.is_some() {}
        };
        if tokio::time::timeout(SHUTDOWN_LIMIT, rest).await.is_err() {
            warn!(limit = ?SHUTDOWN_LIMIT, "writes were still under way at shutdown");
        }
        self.tasks.shutdown().await;
    }
}

fn drains_of(plan: &Plan) -> BTreeMap<NodeName, DrainOrder> {
    plan.drains
        .iter()
        .map(|order| (order.node.name.clone(), order.clone()))
        .collect()
}

/// Whether the Node's own record says that this very drain runs. Nothing is evicted from a Node that
/// does not say so: a restart would not know of it.
fn is_recorded(table: &NodeTable, order: &DrainOrder) -> bool {
    let entry = table.nodes.get(&order.node.name);
    let record = entry
        .filter(|entry| entry.facts.id == order.node)
        .and_then(|entry| entry.facts.record.ours());
    record.is_some_and(|record| {
        record.phase == RecordedPhase::Draining
            && record
                .drain
                .as_ref()
                .is_some_and(|drain| drain.started_at == order.started_at && drain.ended.is_none())
    })
}

/// The Event of a mark; caution marks and changes of the record alone are no news.
fn event_of(order: &MarkOrder) -> Option<ClusterEvent> {
    let ended = order
        .record
        .as_ref()
        .and_then(|record| record.drain.as_ref()?.ended);
    let cancelled = matches!(
        ended,
        Some((
            _,
            NodeOutcome::Ended(PodOutcome::Cancelled | PodOutcome::Superseded)
        ))
    );
    let (reason, warning) = match order.cause {
        Cause::Taint => ("DegradationTainted", true),
        Cause::DrainStart => ("DegradationDrainStarted", true),
        Cause::Drained => ("DegradationDrained", false),
        Cause::DrainEnd if cancelled => ("DegradationDrainCancelled", false),
        Cause::DrainEnd => ("DegradationDrainFailed", true),
        Cause::Release => ("DegradationReleased", false),
        Cause::Veto => ("DegradationVetoed", false),
        Cause::Caution | Cause::Record => return None,
    };
    Some(ClusterEvent {
        node: Some(order.node.clone()),
        pod: None,
        reason,
        warning,
        note: order.note.clone(),
    })
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
