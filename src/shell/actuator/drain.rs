//! One drain: the pure `step` of the core, walked by what the watches show and what the API answers.
//!
//! Nothing here decides which Pod goes, or when: that is [`step`]'s. Nothing polls: the task wakes when a
//! Pod or a budget changes, an answer comes, the order changes, the gate opens or closes, or the time
//! comes that `step` named. Losing the task loses nothing: what was accepted shows on the Pods.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use foreshock_core::drain::{
    Action, Answer, Disposition, DrainFacts, DrainId, DrainOrder, DrainProgress, DrainReport,
    ImpossibleReason, Intent, NodeOutcome, Owner, Pace, PodFacts, PodId, PodOutcome, Step,
    StepState, Volume, Workloads, classify, differences_in_words, paced_by, step, surges_over,
};
use foreshock_core::node::{NodeId, Uid};
use foreshock_core::time::since;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::board::Board;
use super::events::EventTx;
use super::gate::Gate;
use super::moves::Account;
use super::reports::{PodReport, Report, ReportTx};
use super::surge::{self, Begun, Held, Surges};
use super::turns::{Turn, Turns};
use super::volumes::{Drained, Evicted, HandOver};
use crate::clock::Clock;
use crate::kubernetes::text::clean;
use crate::kubernetes::{Cluster, ClusterEvent, NodeTable, PodTable, WorkloadState};

/// An eviction with everything that belongs to it is over within this; the cluster has its own limit
/// for each part.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at least, whatever time is asked for.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest sentence that is reported.
const TEXT_MAX: usize = 500;
/// Between two looks at most: the wall clock, which deadlines are on, can be set forwards meanwhile.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// After the gate was found closed. Its opening is an event, but for a Lease that is renewed late.
const GATE_PAUSE: Duration = Duration::from_millis(500);
/// Workloads that are looked at for the first time at once: dozens of them at the beginning of a drain would keep
/// the server from its first evictions.
const FIRST_LOOKS_MAX: usize = 4;
/// A busy server that does not say for how long is left alone for this long, by every drain.
const QUIET: Duration = Duration::from_secs(1);

/// What all drains share.
pub(super) struct Shared {
    pub(super) cluster: Arc<dyn Cluster>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) gate: Gate,
    pub(super) reports: ReportTx,
    pub(super) events: EventTx,
    /// `eviction.rate`.
    pub(super) turns: Arc<Turns>,
    board: Board,
    /// Deployments that are scaled up meanwhile.
    pub(super) surges: Arc<Surges>,
    /// Where what was evicted goes.
    pub(super) account: Account,
    /// Drains that are over, and whose volumes may still be attached.
    pub(super) drained: HandOver,
    /// Whether the reach of any pool is `evict`.
    pub(super) evicts: bool,
}

impl Shared {
    #[expect(clippy::too_many_arguments, reason = "its parts, put together once")]
    pub(super) fn new(
        cluster: Arc<dyn Cluster>,
        clock: Arc<dyn Clock>,
        gate: Gate,
        reports: ReportTx,
        events: EventTx,
        rate: u32,
        surge_rate: u32,
        evicts: bool,
    ) -> Self {
        Self {
            cluster,
            clock,
            gate,
            reports,
            events,
            turns: Arc::new(Turns::per_second(rate)),
            board: Board::new(),
            surges: Surges::new(surge_rate),
            account: Account::default(),
            drained: HandOver::default(),
            evicts,
        }
    }
}

/// What a drain is told.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Orders {
    /// Go on by this order.
    Go(DrainOrder),
    /// The plan has it no more: send nothing more, and say what came of the Pods.
    Cancelled,
    /// This process acts no more (another leads, or it shuts down): send nothing more.
    Stopped,
}

/// How far a drain is. Handed on when a drain that was withdrawn is ordered again.
#[derive(Clone, Debug, Default)]
pub(super) struct DrainState {
    progress: DrainProgress,
    /// Pods seen that are to go, and whether they are gone.
    going: BTreeMap<Uid, Going>,
    /// What was to become of each.
    intent: Intent,
    ended: Option<DrainReport>,
    reported: Option<DrainReport>,
    blocked: BTreeMap<(String, String), u32>,
}

#[derive(Clone, Debug)]
struct Going {
    pod: PodId,
    gone_at: Option<Timestamp>,
    /// Remembered, since a claim may be gone with its Pod.
    volumes: Vec<Volume>,
}

/// What is left of a drain's task when it has ended.
pub(super) struct DrainEnd {
    pub(super) node: NodeId,
    pub(super) started_at: Timestamp,
    pub(super) state: DrainState,
}

/// What came of an attempt to evict.
enum Attempt {
    Answered(Answer),
    /// It never left.
    Withheld,
}

/// What a look at everything has come to.
struct Next {
    /// What to do now.
    actions: Vec<Action>,
    /// Pods whose Deployments are to be scaled up now.
    surges: Vec<(PodId, Owner)>,
    /// There is more to do as soon as there is a turn for it, with so many left to those whose moment is to
    /// come.
    more: Option<usize>,
    /// When to look again.
    pause: Duration,
}

/// Runs one drain until it is withdrawn and nothing of it is under way any more.
pub(super) async fn run(
    shared: Arc<Shared>,
    node: NodeId,
    started_at: Timestamp,
    mut orders: watch::Receiver<Orders>,
    state: DrainState,
) -> DrainEnd {
    let mut drain = Drain {
        node: node.clone(),
        started_at,
        state,
        sending: CancellationToken::new(),
        looked_at: BTreeMap::new(),
        held: BTreeMap::new(),
        shared: Arc::clone(&shared),
    };
    let mut board = shared.board.changes();
    let mut gate = shared.gate.clone();
    let mut nodes = shared.cluster.nodes();
    let mut pods: Option<watch::Receiver<Arc<PodTable>>> = None;
    let mut under_way: FuturesUnordered<BoxFuture<'static, (PodId, Attempt)>> =
        FuturesUnordered::new();
    let mut surging: FuturesUnordered<BoxFuture<'static, Begun>> = FuturesUnordered::new();
    // A place in the queue of all drains, while there is somebody to send. Which Pod goes is decided when
    // the turn has come, not when the waiting begins.
    let mut queued: Option<(usize, BoxFuture<'static, Turn>)> = None;
    let mut turn: Option<Turn> = None;
    loop {
        let order = orders.borrow_and_update().clone();
        // Not waited for unless there is an order.
        let mut wake = Instant::now();
        match &order {
            Orders::Cancelled | Orders::Stopped => {
                (queued, turn) = (None, None);
                drain.sending.cancel();
                drain.held.clear();
                if under_way.is_empty() && surging.is_empty() {
                    break;
                }
            }
            // It stays with what it came to, and says so again until the plan has taken note.
            Orders::Go(_) if drain.state.ended.is_some() => {
                pods = None;
                (queued, turn) = (None, None);
                drain.say_again();
            }
            Orders::Go(order) => {
                board.mark_unchanged();
                let table = pods
                    .get_or_insert_with(|| shared.cluster.watch_pods(&node))
                    .borrow_and_update()
                    .clone();
                // Evictions that are about to leave are called back too.
                if !order.sends || table.problem.is_some() {
                    drain.sending.cancel();
                } else if drain.sending.is_cancelled() {
                    drain.sending = CancellationToken::new();
                }
                let ready = is_ready(&nodes.borrow_and_update(), &node);
                let next = drain.advance(order, &table, ready, turn.is_some());
                for (action, turn) in next.actions.into_iter().zip(turn.take()) {
                    under_way.push(drain.attempt(action, turn));
                }
                for (pod, owner) in next.surges {
                    surging.push(drain.scale_up(pod, owner));
                }
                queued = next.more.map(|spare| match queued.take() {
                    // A place in the queue is kept unless it is the other queue.
                    Some((before, turn)) if (before == 0) == (spare == 0) => (before, turn),
                    Some(_) | None => (spare, Arc::clone(&shared.turns).turn(spare).boxed()),
                });
                let pause = next.pause;
                wake = Instant::now() + pause;
                if drain.state.ended.is_some() {
                    drain.sending.cancel();
                    drain.held.clear();
                    pods = None;
                    queued = None;
                    continue;
                }
            }
        }
        let going = matches!(order, Orders::Go(_)) && drain.state.ended.is_none();
        tokio::select! {
            Some((pod, attempt)) = under_way.next(), if !under_way.is_empty() => drain.note(&pod, attempt),
            Some(begun) = surging.next(), if !surging.is_empty() => drain.begun(begun),
            result = orders.changed() => if result.is_err() {
                // The actuator is gone, and with it the right to act.
                drain.sending.cancel();
                while under_way.next().await.is_some() {}
                while surging.next().await.is_some() {}
                break;
            },
            granted = granted(&mut queued), if going => {
                queued = None;
                turn = Some(granted);
            }
            () = changed(&mut pods), if going => {}
            () = any_changed(&mut drain.looked_at), if going => {}
            Ok(()) = board.changed(), if going => {}
            Ok(()) = nodes.changed(), if going => {}
            () = gate.changed(), if going => {}
            () = tokio::time::sleep_until(wake), if going => {}
        }
    }
    shared.board.leave(&node.name);
    drain.held.clear();
    drain.state.progress.forget_surges();
    shared.account.over(&drain.id());
    if *orders.borrow() == Orders::Cancelled {
        drain.cancelled();
    }
    DrainEnd {
        node,
        started_at,
        state: drain.state,
    }
}

async fn changed(pods: &mut Option<watch::Receiver<Arc<PodTable>>>) {
    if let Some(pods) = pods
        && pods.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

async fn granted(queued: &mut Option<(usize, BoxFuture<'static, Turn>)>) -> Turn {
    match queued {
        Some((_, turn)) => turn.await,
        None => std::future::pending().await,
    }
}

pub(super) async fn any_changed(looked_at: &mut BTreeMap<Uid, watch::Receiver<WorkloadState>>) {
    if looked_at.is_empty() {
        return std::future::pending().await;
    }
    let each = looked_at.values_mut().map(|state| {
        async move {
            if state.changed().await.is_err() {
                // It says nothing any more.
                std::future::pending().await
            }
        }
        .boxed()
    });
    futures::future::select_all(each).await;
}

fn is_ready(nodes: &NodeTable, node: &NodeId) -> bool {
    let entry = nodes.nodes.get(&node.name);
    entry.is_some_and(|entry| entry.facts.id.uid == node.uid && entry.facts.ready)
}

struct Drain {
    shared: Arc<Shared>,
    node: NodeId,
    started_at: Timestamp,
    state: DrainState,
    /// Cancelled when nothing more may be sent.
    sending: CancellationToken,
    /// Workloads that are waited for.
    looked_at: BTreeMap<Uid, watch::Receiver<WorkloadState>>,
    /// Deployments that are scaled up, by the UID of the Pod that is to go.
    held: BTreeMap<Uid, Held>,
}

impl Drain {
    fn id(&self) -> DrainId {
        DrainId {
            node: self.node.clone(),
            started_at: self.started_at,
        }
    }

    /// One look at everything: what to do now, which is nothing where it is not this drain's turn, and when
    /// to look again.
    fn advance(
        &mut self,
        order: &DrainOrder,
        table: &PodTable,
        node_ready: bool,
        has_turn: bool,
    ) -> Next {
        let now = self.shared.clock.now();
        if !table.synced {
            // Without the first list there is nothing to conclude, least of all that nothing is left.
            if now >= order.deadline_at {
                let problem = table.problem.as_deref().unwrap_or("no answer");
                let detail = format!("its Pods could not be listed: {problem}");
                self.end(now, NodeOutcome::Ended(PodOutcome::Deadline), detail);
            }
            return Next {
                actions: Vec::new(),
                surges: Vec::new(),
                more: None,
                pause: self.pause(now, order.deadline_at),
            };
        }
        self.see(order, table, now);
        let open = self.shared.gate.check().is_ok();
        let effective = DrainOrder {
            // What the watch cannot show cannot be compared with the UID before each request.
            sends: order.sends && open && self.shared.evicts && table.problem.is_none(),
            ..order.clone()
        };
        let (next, more) = self.decide(&effective, &table.pods, node_ready, has_turn, now);
        self.blocked(&table.pods);
        let mut pause = self.pause(now, next.wake_at);
        match next.state {
            StepState::Running { remaining } => self.say(remaining, None, table.problem.clone()),
            // Pods may have been bound that a broken watch does not show.
            StepState::Over {
                outcome: NodeOutcome::Drained,
                ..
            } if table.problem.is_some() => {
                self.say(0, None, table.problem.clone());
            }
            StepState::Over { outcome, detail } => {
                let stayed = self.outcomes(order, &table.pods, node_ready, now);
                self.end(now, outcome, detail);
                self.differs(&stayed, now);
                if outcome == NodeOutcome::Drained {
                    self.leaves_volumes(order.deadline_at, now);
                }
            }
        }
        if !open {
            pause = GATE_PAUSE;
        }
        let owner = |id: &PodId| {
            let pod = table.pods.iter().find(|pod| pod.id == *id)?;
            pod.workload.as_ref().ok()?.clone()
        };
        let surges = next.surges.into_iter();
        Next {
            more,
            actions: next.actions,
            surges: surges
                .filter_map(|pod| owner(&pod).map(|owner| (pod, owner)))
                .collect(),
            pause,
        }
    }

    /// What is next, of which at most what there is a turn for is begun, and whether there is more: then how
    /// many turns it leaves to others.
    fn decide(
        &mut self,
        order: &DrainOrder,
        pods: &[Arc<PodFacts>],
        node_ready: bool,
        has_turn: bool,
        now: Timestamp,
    ) -> (Step, Option<usize>) {
        let shared = Arc::clone(&self.shared);
        let going: Vec<&PodFacts> = pods
            .iter()
            .map(Arc::as_ref)
            .filter(|pod| classify(pod, &order.rules) == Disposition::Evict)
            .collect();
        let workloads = going.iter().filter_map(|pod| paced_by(pod).cloned());
        let mut workloads: BTreeSet<Uid> = match order.rules.pace {
            Pace::Owner => workloads.collect(),
            Pace::Budget => BTreeSet::new(),
        };
        workloads.extend(self.held.values().map(|held| held.owner.uid.clone()));
        let paced = !workloads.is_empty();
        let pod_deadline = order.rules.pod_deadline;
        let leads_since = shared.gate.leads_since();
        let name = self.node.name.clone();
        shared
            .board
            .look(&name, workloads, now, leads_since, pod_deadline, |board| {
                if paced {
                    self.look_at_workloads(board, order.rules.pace, &going);
                } else {
                    self.looked_at.clear();
                }
                let looked_at = self.looked_at.keys().cloned().collect();
                shared.account.looks_at(&name, looked_at);
                let facts = DrainFacts {
                    pods: pods.iter().map(Arc::as_ref).collect(),
                    node_ready,
                    workloads: board,
                };
                for (pod, end) in surges_over(order, &facts, &self.state.progress, now) {
                    info!(node = %self.node, pod = %pod, ?end, "second pod not needed any more");
                    self.state.progress.surge_over(&pod, end);
                    self.held.remove(&pod.uid);
                }
                let mut next = step(order, &facts, &self.state.progress, now);
                for pod in &next.surges {
                    self.state.progress.surge_asked(pod, now);
                }
                let ready_to_go = next.actions.len();
                next.actions.truncate(usize::from(has_turn));
                for Action::Evict { pod, .. } in &next.actions {
                    if let Some(facts) = going.iter().find(|facts| facts.id == *pod) {
                        self.state.progress.sent(facts, now);
                        board.sent(facts, now);
                        let account = &shared.account;
                        account.sent(&self.id(), facts, now, pod_deadline);
                    }
                }
                let begun = next.actions.len();
                let spare = if begun < next.links {
                    0
                } else {
                    next.links_waiting
                };
                let more = (ready_to_go > begun).then_some(spare);
                (next, more)
            })
    }

    fn look_at_workloads(&mut self, board: &mut Workloads, pace: Pace, going: &[&PodFacts]) {
        let wanted = match pace {
            Pace::Owner => board.to_look_at(going.iter().copied()),
            Pace::Budget => Vec::new(),
        };
        let surging = self.held.values();
        let surging = surging.map(|held| (held.namespace.as_str(), &held.owner));
        let must = self.held.len();
        let mut kept = BTreeMap::new();
        let mut unseen = 0;
        for (n, (namespace, workload)) in surging.chain(wanted).enumerate() {
            if kept.contains_key(&workload.uid) {
                continue;
            }
            let state = match self.looked_at.remove(&workload.uid) {
                Some(state) => state,
                None if n >= must && unseen >= FIRST_LOOKS_MAX => {
                    board.unsee(&workload.uid);
                    continue;
                }
                None => self.shared.cluster.watch_workload(namespace, workload),
            };
            unseen += usize::from(state.borrow().is_none());
            kept.insert(workload.uid.clone(), state);
        }
        self.looked_at = kept;
        for (workload, state) in &mut self.looked_at {
            match state.borrow_and_update().clone() {
                Some(seen) => {
                    self.shared.account.see(workload, &seen);
                    board.see(workload, seen);
                }
                None => board.unsee(workload),
            }
        }
    }

    fn pause(&self, now: Timestamp, until: Timestamp) -> Duration {
        since(now, until).clamp(PAUSE_MIN, PAUSE_MAX)
    }

    /// Notes which Pods are to go, and which of them are gone.
    fn see(&mut self, order: &DrainOrder, table: &PodTable, now: Timestamp) {
        let pods = table.pods.iter().map(Arc::as_ref);
        self.state.intent.see(pods, &order.rules);
        for pod in &table.pods {
            if classify(pod, &order.rules) == Disposition::Evict {
                let going = self.state.going.entry(pod.id.uid.clone());
                let going = going.or_insert_with(|| Going {
                    pod: pod.id.clone(),
                    gone_at: None,
                    volumes: Vec::new(),
                });
                for volume in &pod.volumes {
                    if !going.volumes.contains(volume) {
                        going.volumes.push(volume.clone());
                    }
                }
            }
        }
        // The kubelet gives a Pod that was told to go its end a moment before it is removed, and a drain may
        // be over in that moment: nothing of it runs on the Node any more.
        let runs = table.pods.iter().filter(|pod| !pod.finished);
        let present: BTreeSet<&Uid> = runs.map(|pod| &pod.id.uid).collect();
        for (uid, going) in &mut self.state.going {
            if going.gone_at.is_some() || present.contains(uid) {
                continue;
            }
            going.gone_at = Some(now);
            let progress = self
                .state
                .progress
                .pods
                .get(uid)
                .map(|(_, progress)| progress);
            let evicted = progress.is_some_and(|progress| progress.accepted);
            let outcome = if evicted {
                PodOutcome::Evicted
            } else {
                PodOutcome::Gone
            };
            info!(node = %self.node, pod = %going.pod, outcome = %outcome, "pod gone");
            self.shared.reports.send(Report::Pod(PodReport {
                node: self.node.clone(),
                pod: going.pod.clone(),
                outcome,
                detail: String::new(),
                requested_at: progress.and_then(|progress| progress.first_request_at),
                gone_at: Some(now),
            }));
        }
    }

    /// The request and all that has to come before it. It holds no borrow of the drain: it goes on
    /// while the drain looks at other things.
    fn attempt(&self, action: Action, mut turn: Turn) -> BoxFuture<'static, (PodId, Attempt)> {
        let (shared, sending) = (Arc::clone(&self.shared), self.sending.clone());
        let Action::Evict {
            pod,
            grace,
            read_first,
        } = action;
        Box::pin(async move {
            let may_send = || !sending.is_cancelled() && shared.gate.check().is_ok();
            if !may_send() {
                return (pod, Attempt::Withheld);
            }
            let exchange = async {
                if read_first {
                    match shared.cluster.read_pod(&pod).await {
                        Ok(None) => return Attempt::Answered(Answer::Gone),
                        Ok(Some(facts)) if facts.terminating_until.is_some() => {
                            return Attempt::Answered(Answer::Accepted);
                        }
                        Ok(Some(_)) => {}
                        Err(error) => {
                            return Attempt::Answered(Answer::Lost {
                                detail: error.to_string(),
                            });
                        }
                    }
                    // Reading took time.
                    if !may_send() {
                        return Attempt::Withheld;
                    }
                }
                turn.send();
                Attempt::Answered(shared.cluster.evict(&pod, grace).await)
            };
            let attempt = tokio::time::timeout(ANSWER_LIMIT, exchange)
                .await
                .unwrap_or_else(|_| {
                    let detail = format!("no answer within {ANSWER_LIMIT:?}");
                    Attempt::Answered(Answer::Lost { detail })
                });
            drop(turn);
            (pod, attempt)
        })
    }

    /// Scaling up, with all that has to come before it; as [`Self::attempt`].
    fn scale_up(&self, pod: PodId, owner: Owner) -> BoxFuture<'static, Begun> {
        let (shared, sending) = (Arc::clone(&self.shared), self.sending.clone());
        surge::begin(shared, sending, self.node.clone(), pod, owner).boxed()
    }

    fn begun(&mut self, begun: Begun) {
        let now = self.shared.clock.now();
        let progress = &mut self.state.progress;
        progress.surge_answered(&begun.pod, &begun.workload, begun.answer, now);
        // Where nobody needs it any more, it is scaled back at once.
        if let Some(held) = begun.held
            && self.state.ended.is_none()
        {
            self.held.insert(begun.pod.uid, held);
        }
    }

    fn note(&mut self, pod: &PodId, attempt: Attempt) {
        let answer = match attempt {
            Attempt::Answered(answer) => answer,
            Attempt::Withheld => {
                self.state.progress.withheld(pod);
                if !self.state.progress.was_asked(pod) {
                    self.shared.board.withheld(pod);
                    self.shared.account.withheld(pod);
                }
                return;
            }
        };
        let now = self.shared.clock.now();
        let first = self
            .state
            .progress
            .pods
            .get(&pod.uid)
            .is_none_or(|(_, progress)| !progress.accepted);
        match &answer {
            Answer::Accepted if first => {
                info!(node = %self.node, pod = %pod, "eviction accepted");
                self.shared.events.publish(ClusterEvent {
                    node: Some(self.node.clone()),
                    pod: Some(pod.clone()),
                    reason: "EvictedFromDegradingNode",
                    warning: false,
                    note: format!(
                        "evicted from Node {}, which is predicted to degrade",
                        self.node
                    ),
                });
            }
            Answer::BlockedByBudget { detail, .. } => {
                info!(node = %self.node, pod = %pod, detail, "eviction blocked by budget");
            }
            Answer::Throttled { retry_after } => {
                warn!(node = %self.node, pod = %pod, ?retry_after, "the API server asks for quiet");
                self.shared
                    .turns
                    .quiet(retry_after.unwrap_or(QUIET).max(QUIET));
            }
            Answer::Forbidden { detail } => {
                warn!(node = %self.node, pod = %pod, detail, "not allowed to evict; apply the roles in deploy/kustomize/base");
            }
            answer => debug!(node = %self.node, pod = %pod, ?answer, "eviction answered"),
        }
        self.shared.reports.send(Report::Answered {
            node: self.node.clone(),
            pod: pod.clone(),
            answer: answer.clone(),
            at: now,
        });
        self.shared.board.answered(pod, &answer);
        self.shared.account.answered(pod, &answer);
        self.state.progress.answered(pod, answer, now);
    }

    /// Reports how many Pods wait for which budget, where that has changed.
    fn blocked(&mut self, pods: &[Arc<PodFacts>]) {
        let mut budgets: BTreeMap<(String, String), u32> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| pod.terminating_until.is_none()) {
            let progress = self.state.progress.pods.get(&pod.id.uid);
            let answer = progress.and_then(|(_, progress)| progress.answer.as_ref());
            let blocked = match answer {
                Some((_, answer)) => matches!(answer, Answer::BlockedByBudget { .. }),
                // Not asked for: another Pod of its budget was, and the budget has no room.
                None => pod.closed_budget().is_some(),
            };
            if blocked {
                let budget = pod
                    .budgets
                    .first()
                    .map_or("", |budget| budget.name.as_str());
                *budgets
                    .entry((pod.id.namespace.clone(), budget.to_owned()))
                    .or_default() += 1;
            }
        }
        self.say_blocked(budgets);
    }

    fn say_blocked(&mut self, budgets: BTreeMap<(String, String), u32>) {
        if budgets != self.state.blocked {
            self.state.blocked.clone_from(&budgets);
            self.shared.reports.send(Report::Blocked {
                node: self.node.clone(),
                budgets,
            });
        }
    }

    fn say(
        &mut self,
        remaining: u32,
        ended: Option<(Timestamp, NodeOutcome)>,
        detail: Option<String>,
    ) {
        let gone = self.state.going.values();
        let gone = gone.filter(|going| going.gone_at.is_some()).count();
        let report = DrainReport {
            started_at: self.started_at,
            remaining,
            gone: u32::try_from(gone).unwrap_or(u32::MAX),
            ended,
            detail: detail.unwrap_or_default(),
        };
        if ended.is_some() {
            self.state.ended = Some(report.clone());
        }
        if self.state.reported.as_ref() != Some(&report) {
            self.state.reported = Some(report.clone());
            self.shared.reports.send(Report::Drain {
                node: self.node.clone(),
                report,
            });
        }
    }

    fn say_again(&self) {
        if let Some(report) = &self.state.ended {
            self.shared.reports.send(Report::Drain {
                node: self.node.clone(),
                report: report.clone(),
            });
        }
    }

    fn end(&mut self, now: Timestamp, outcome: NodeOutcome, detail: String) {
        info!(node = %self.node, outcome = %outcome, detail, "drain over");
        let remaining = self
            .state
            .going
            .values()
            .filter(|going| going.gone_at.is_none())
            .count();
        let remaining = u32::try_from(remaining).unwrap_or(u32::MAX);
        self.say(remaining, Some((now, outcome)), Some(detail));
        self.say_blocked(BTreeMap::new());
        self.looked_at.clear();
        self.shared.account.over(&self.id());
    }

    /// Hands over what it has evicted that had volumes.
    fn leaves_volumes(&self, deadline_at: Timestamp, over_at: Timestamp) {
        let Some(leads_since) = self.shared.gate.leads_since() else {
            return;
        };
        let evicted = |(uid, going): (&Uid, &Going)| {
            let (_, progress) = self.state.progress.pods.get(uid)?;
            let left = progress.accepted && !going.volumes.is_empty();
            left.then(|| Evicted {
                pod: going.pod.clone(),
                volumes: going.volumes.clone(),
                requested_at: progress.first_request_at,
                gone_at: going.gone_at,
            })
        };
        let drained = Drained {
            drain: self.id(),
            leads_since,
            over_at,
            deadline_at,
            pods: self.state.going.iter().filter_map(evicted).collect(),
        };
        if !drained.pods.is_empty() {
            self.shared.drained.give(drained);
        }
    }

    /// Reports with which Pods it went otherwise than was planned when the drain began.
    fn differs(&mut self, stayed: &BTreeMap<Uid, PodOutcome>, at: Timestamp) {
        let intent = std::mem::take(&mut self.state.intent);
        let came_of = |pod: &PodId| {
            let progress = self.state.progress.pods.get(&pod.uid);
            // Also where a request may have taken place: it is not said then that the Pod went without it.
            let evicted = progress.is_some_and(|(_, progress)| {
                let answer = progress.answer.as_ref().map(|(_, answer)| answer);
                let unsure = matches!(answer, Some(Answer::Lost { .. } | Answer::Gone));
                progress.accepted || progress.in_flight || unsure
            });
            let outcome = stayed.get(&pod.uid).copied();
            outcome.or_else(|| evicted.then_some(PodOutcome::Evicted))
        };
        let differences = intent.differences(came_of);
        let message = clean(&differences_in_words(&differences), TEXT_MAX);
        if !differences.is_empty() {
            info!(node = %self.node, message, "not as planned");
            self.shared.events.publish(ClusterEvent {
                node: Some(self.node.clone()),
                pod: None,
                reason: "DrainNotAsPlanned",
                warning: false,
                note: message.clone(),
            });
        }
        self.shared.reports.send(Report::Differs {
            node: self.node.clone(),
            drain: self.started_at,
            differences: Arc::new(differences),
            message,
            at,
        });
    }

    /// What came of each Pod that is still there at the end.
    fn outcomes(
        &self,
        order: &DrainOrder,
        pods: &[Arc<PodFacts>],
        node_ready: bool,
        now: Timestamp,
    ) -> BTreeMap<Uid, PodOutcome> {
        let mut stayed = BTreeMap::new();
        for pod in pods {
            let progress = self
                .state
                .progress
                .pods
                .get(&pod.id.uid)
                .map(|(_, progress)| progress);
            let (outcome, detail) = match classify(pod, &order.rules) {
                Disposition::Skip(_) | Disposition::Leave(_) => continue,
                Disposition::Impossible(reason) => {
                    let outcome = match &reason {
                        ImpossibleReason::NeverAllowed { .. } => PodOutcome::NeverAllowed,
                        ImpossibleReason::OverlappingPdbs(_) => PodOutcome::OverlappingPdbs,
                    };
                    (outcome, reason.to_string())
                }
                Disposition::Evict => match self.state.progress.surge_failed(&pod.id) {
                    Some(why) => (PodOutcome::ReplacementNotReady, why.to_owned()),
                    None => came_of(
                        pod,
                        progress.and_then(|progress| progress.answer.as_ref()),
                        node_ready,
                        now,
                    ),
                },
            };
            info!(node = %self.node, pod = %pod.id, outcome = %outcome, detail, "pod not moved");
            stayed.insert(pod.id.uid.clone(), outcome);
            self.shared.reports.send(Report::Pod(PodReport {
                node: self.node.clone(),
                pod: pod.id.clone(),
                outcome,
                detail,
                requested_at: progress.and_then(|progress| progress.first_request_at),
                gone_at: None,
            }));
        }
        stayed
    }

    /// The drain was withdrawn. Pods that were accepted go on their way; the others stay.
    fn cancelled(&mut self) {
        self.say_blocked(BTreeMap::new());
        if self.state.ended.is_some() {
            return;
        }
        info!(node = %self.node, "drain cancelled");
        for (uid, going) in self
            .state
            .going
            .iter()
            .filter(|(_, going)| going.gone_at.is_none())
        {
            let progress = self
                .state
                .progress
                .pods
                .get(uid)
                .map(|(_, progress)| progress);
            let accepted = progress.is_some_and(|progress| progress.accepted);
            self.shared.reports.send(Report::Pod(PodReport {
                node: self.node.clone(),
                pod: going.pod.clone(),
                outcome: if accepted {
                    PodOutcome::Evicted
                } else {
                    PodOutcome::Cancelled
                },
                detail: "the drain was cancelled".to_owned(),
                requested_at: progress.and_then(|progress| progress.first_request_at),
                gone_at: None,
            }));
        }
    }
}

fn came_of(
    pod: &PodFacts,
    answer: Option<&(Timestamp, Answer)>,
    node_ready: bool,
    now: Timestamp,
) -> (PodOutcome, String) {
    if let Some(until) = pod.terminating_until {
        if until > now {
            return (
                PodOutcome::Deadline,
                format!("its grace period runs until {until}"),
            );
        }
        if !node_ready {
            return (
                PodOutcome::Unreachable,
                "its Node does not answer".to_owned(),
            );
        }
        let finalizers = if pod.finalizers.is_empty() {
            String::new()
        } else {
            format!("finalizers {}", pod.finalizers.join(", "))
        };
        return (PodOutcome::StuckTerminating, finalizers);
    }
    match answer {
        Some((_, Answer::Accepted | Answer::NamespaceTerminating)) => (
            PodOutcome::StuckTerminating,
            "its eviction was accepted, and it is still there".to_owned(),
        ),
        Some((_, answer)) => (answer.outcome(), answer.detail().to_owned()),
        None => match pod.closed_budget() {
            Some(budget) => (
                PodOutcome::BlockedByBudget,
                format!("budget {}: {}", budget.name, budget.detail),
            ),
            None => (PodOutcome::Deadline, "its turn did not come".to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use foreshock_core::drain::{Budget, EvictionAllowance};
    use foreshock_core::time::{after, ago};

    use super::*;
    use crate::actuator::fake::{START, pod};

    const SECOND: Duration = Duration::from_secs(1);

    fn terminating(until: Timestamp) -> PodFacts {
        PodFacts {
            terminating_until: Some(until),
            ..pod("p")
        }
    }

    #[test]
    fn a_pod_that_was_told_to_go_is_late_stuck_or_unreachable() {
        let of = |pod: &PodFacts, ready: bool| came_of(pod, None, ready, START);
        let late = terminating(after(START, SECOND));
        let (outcome, words) = of(&late, false);
        assert_eq!(outcome, PodOutcome::Deadline);
        assert!(words.contains("grace period"), "{words}");
        for until in [START, ago(START, SECOND)] {
            let over = terminating(until);
            assert_eq!(
                of(&over, true),
                (PodOutcome::StuckTerminating, String::new())
            );
            assert_eq!(of(&over, false).0, PodOutcome::Unreachable);
        }
        let held = PodFacts {
            finalizers: vec!["example.com/a".to_owned(), "example.com/b".to_owned()],
            ..terminating(START)
        };
        let words = "finalizers example.com/a, example.com/b".to_owned();
        assert_eq!(of(&held, true), (PodOutcome::StuckTerminating, words));
    }

    #[test]
    fn a_pod_that_stayed_is_told_by_the_last_answer_or_by_its_budget() {
        let answered = |answer: Answer| came_of(&pod("p"), Some(&(START, answer)), true, START).0;
        assert_eq!(answered(Answer::Accepted), PodOutcome::StuckTerminating);
        let ending = answered(Answer::NamespaceTerminating);
        assert_eq!(ending, PodOutcome::StuckTerminating);
        let forbidden = Answer::Forbidden {
            detail: "no".to_owned(),
        };
        assert_eq!(answered(forbidden), PodOutcome::Forbidden);
        assert_eq!(
            came_of(&pod("p"), None, true, START),
            (PodOutcome::Deadline, "its turn did not come".to_owned())
        );
        let budget = Budget {
            name: "pdb".to_owned(),
            allowance: EvictionAllowance::Now(0),
            observed: true,
            unsettled: false,
            detail: "2 of 2 healthy".to_owned(),
        };
        let closed = PodFacts {
            budgets: vec![budget],
            ..pod("p")
        };
        let words = "budget pdb: 2 of 2 healthy".to_owned();
        let blocked = (PodOutcome::BlockedByBudget, words);
        assert_eq!(came_of(&closed, None, true, START), blocked);
    }
}
