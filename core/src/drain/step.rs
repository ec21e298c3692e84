//! What a drain does next.
//!
//! The executor calls [`step`] whenever something may have changed: a Pod, a budget, an answer, the
//! time that the last call named, or the order itself. It carries out the actions and reports each
//! answer through [`DrainProgress`]. Dropping the progress (a restart) is safe: an accepted eviction
//! shows on the Pod itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::pace::{Pace, Turn, Workloads, paced_by};
use super::surge::{self, Surge, SurgeTurn};
use super::{
    Budget, Disposition, DrainOrder, EvictionAllowance, ImpossibleReason, NodeOutcome, PodFacts,
    PodId, PodOutcome, classify,
};
use crate::node::Uid;
use crate::time::after;

/// Requests under way for one Node at once. The rate for the whole cluster is the executor's.
const IN_FLIGHT_MAX: usize = 10;
/// Of them Pods that are no links of chains, while there are links.
const ALONE_IN_FLIGHT_MAX: usize = 4;
/// So long after an eviction the disruption controller is waited for: it takes some tens of milliseconds, and
/// a collision with its write half a second.
const SETTLES_IN: Duration = Duration::from_millis(300);
/// So long after an eviction it is no news that its budget has no room.
const EXPLAINED_FOR: Duration = Duration::from_secs(5);
/// Nothing is repeated sooner, whatever the server says or a delay option is set to.
const RETRY_FLOOR: Duration = Duration::from_millis(500);
/// After a budget has opened again: the refusal was about a moment that is over. Doubles with each further
/// refusal, up to the floor of everything else.
const OPENED_FLOOR: Duration = Duration::from_millis(100);
/// The watch shows within this what an accepted eviction has taken from its budget. Beyond it the watch is
/// believed again: some evictions are accepted and take nothing, such as that of a virtual machine that
/// moves first.
const BUDGET_LAG: Duration = Duration::from_secs(2);
/// An API server that has just started refuses what it allows a moment later, while it does not know its roles
/// yet. So often one Pod is asked for, over some seconds, before its refusal is the last word on its namespace.
const FORBIDDEN_MAX: u32 = 4;
/// Nothing is repeated later, unless the server asked for it.
const RETRY_CAP: Duration = Duration::from_secs(10);
/// A server's own `Retry-After` is honoured up to this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// A terminating Pod that is still there this long after its time has run out is stuck. The kubelet
/// takes a few seconds beyond the grace period to report.
pub(super) const STUCK_MARGIN: Duration = Duration::from_secs(30);
/// No cap shortens a grace period below this: 0 would delete the Pod by force, and Kubernetes counts
/// in whole seconds.
const GRACE_FLOOR: Duration = Duration::from_secs(1);

/// What the executor is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask the Eviction API to evict this Pod, with its UID as precondition.
    Evict {
        /// Which Pod.
        pod: PodId,
        /// `deleteOptions.gracePeriodSeconds`, only where the cap really shortens the Pod's own.
        grace: Option<Duration>,
        /// Read the Pod first, because an earlier request may have been accepted. Not where budgets have refused
        /// every one of them: that was the server's last word.
        read_first: bool,
    },
}

/// What came of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Accepted, or found to be terminating already.
    Accepted,
    /// The Pod is gone, or another has its name.
    Gone,
    /// A budget does not allow it now.
    BlockedByBudget {
        /// In the server's words, which name the budget.
        detail: String,
        /// How long the server asked to wait.
        retry_after: Option<Duration>,
    },
    /// The server is busy (API priority and fairness, or overloaded).
    Throttled {
        /// How long the server asked to wait.
        retry_after: Option<Duration>,
    },
    /// More than one budget covers the Pod.
    OverlappingBudgets {
        /// In the server's words.
        detail: String,
    },
    /// An admission webhook or policy refused.
    WebhookDenied {
        /// In the server's words.
        detail: String,
    },
    /// Our credentials do not allow it.
    Forbidden {
        /// In the server's words.
        detail: String,
    },
    /// The Pod's namespace is being deleted, and the Pod with it.
    NamespaceTerminating,
    /// No answer came: the request may have taken place.
    Lost {
        /// What happened instead.
        detail: String,
    },
    /// The server failed.
    Failed {
        /// In the server's words.
        detail: String,
    },
}

impl Answer {
    /// What came of the Pod if nothing more comes after this answer.
    pub fn outcome(&self) -> PodOutcome {
        match self {
            Self::Accepted | Self::NamespaceTerminating => PodOutcome::Evicted,
            Self::Gone => PodOutcome::Gone,
            Self::BlockedByBudget { .. } => PodOutcome::BlockedByBudget,
            Self::OverlappingBudgets { .. } => PodOutcome::OverlappingPdbs,
            Self::WebhookDenied { .. } => PodOutcome::WebhookDenied,
            Self::Forbidden { .. } => PodOutcome::Forbidden,
            Self::Throttled { .. } | Self::Lost { .. } | Self::Failed { .. } => {
                PodOutcome::Deadline
            }
        }
    }

    /// Somebody said no, and who it was tells an operator more than that the time ran out.
    fn is_refusal(&self) -> bool {
        match self {
            Self::BlockedByBudget { .. }
            | Self::OverlappingBudgets { .. }
            | Self::WebhookDenied { .. }
            | Self::Forbidden { .. } => true,
            Self::Accepted
            | Self::Gone
            | Self::Throttled { .. }
            | Self::NamespaceTerminating
            | Self::Lost { .. }
            | Self::Failed { .. } => false,
        }
    }

    /// In the server's words, where it had any.
    pub fn detail(&self) -> &str {
        match self {
            Self::BlockedByBudget { detail, .. }
            | Self::OverlappingBudgets { detail }
            | Self::WebhookDenied { detail }
            | Self::Forbidden { detail }
            | Self::Lost { detail }
            | Self::Failed { detail } => detail,
            Self::Accepted | Self::Gone | Self::NamespaceTerminating | Self::Throttled { .. } => "",
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::BlockedByBudget { retry_after, .. } | Self::Throttled { retry_after } => {
                *retry_after
            }
            Self::Accepted
            | Self::Gone
            | Self::OverlappingBudgets { .. }
            | Self::WebhookDenied { .. }
            | Self::Forbidden { .. }
            | Self::NamespaceTerminating
            | Self::Lost { .. }
            | Self::Failed { .. } => None,
        }
    }
}

/// How it stands with one Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodProgress {
    /// When the first request was made.
    pub first_request_at: Option<Timestamp>,
    /// Requests made.
    pub requests: u32,
    /// A request is under way.
    pub in_flight: bool,
    /// The last answer, and when it came.
    pub answer: Option<(Timestamp, Answer)>,
    /// One was accepted; no other is sent.
    pub accepted: bool,
    /// The budget that covered it when it was asked to go, in its own namespace.
    pub budget: Option<String>,
    /// Some answer was another than that a budget does not allow it, so that a request may have taken place.
    pub in_doubt: bool,
}

/// How it stands with a drain; starts empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrainProgress {
    /// By the Pod's UID.
    pub pods: BTreeMap<Uid, (PodId, PodProgress)>,
    /// Second Pods of single replicas, by the UID of the first.
    pub surges: BTreeMap<Uid, (PodId, Surge)>,
}

impl DrainProgress {
    /// Notes that a request is being made, and which budget covers the Pod.
    pub fn sent(&mut self, pod: &PodFacts, at: Timestamp) {
        let (_, progress) = self.entry(&pod.id);
        progress.budget = pod.budgets.first().map(|budget| budget.name.clone());
        progress.first_request_at.get_or_insert(at);
        progress.requests += 1;
        progress.in_flight = true;
    }

    /// Notes that the request was not made after all: it was held back before it left.
    pub fn withheld(&mut self, pod: &PodId) {
        let (_, progress) = self.entry(pod);
        progress.in_flight = false;
        progress.requests = progress.requests.saturating_sub(1);
        if progress.requests == 0 {
            progress.first_request_at = None;
        }
    }

    /// Whether a request was made for this Pod.
    pub fn was_asked(&self, pod: &PodId) -> bool {
        self.pods
            .get(&pod.uid)
            .is_some_and(|(_, progress)| progress.requests > 0)
    }

    /// Notes the answer to the request that was made last.
    pub fn answered(&mut self, pod: &PodId, answer: Answer, at: Timestamp) {
        let (_, progress) = self.entry(pod);
        progress.in_flight = false;
        progress.accepted |= matches!(answer, Answer::Accepted | Answer::NamespaceTerminating);
        progress.in_doubt |= !matches!(answer, Answer::BlockedByBudget { .. });
        progress.answer = Some((at, answer));
    }

    /// The Pods that were asked to go.
    pub fn asked(&self) -> impl Iterator<Item = (&PodId, &PodProgress)> {
        self.pods.values().map(|(id, progress)| (id, progress))
    }

    fn entry(&mut self, pod: &PodId) -> &mut (PodId, PodProgress) {
        self.pods
            .entry(pod.uid.clone())
            .or_insert_with(|| (pod.clone(), PodProgress::default()))
    }
}

/// Where the drain is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepState {
    /// It goes on.
    Running {
        /// Pods that are still to go.
        remaining: u32,
    },
    /// It is over.
    Over {
        /// How it ended.
        outcome: NodeOutcome,
        /// What stood in the way, for an operator; empty when it is complete.
        detail: String,
    },
}

/// What is next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What to do now, the most pressing first.
    pub actions: Vec<Action>,
    /// So many of the first actions are links of chains: others have to wait until these Pods are replaced.
    pub links: usize,
    /// Links that cannot go yet. The moment that one can, it should not have to wait for its turn.
    pub links_waiting: usize,
    /// Pods whose Deployments are to be scaled up now.
    pub surges: Vec<PodId>,
    /// When to call again if nothing happens before.
    pub wake_at: Timestamp,
    /// Where the drain is.
    pub state: StepState,
}

/// What one Pod needs.
enum Need {
    /// A request, now.
    Request,
    /// To wait until then at the latest.
    Wait(Timestamp),
    /// Nothing helps any more.
    Stuck(PodOutcome, String),
}

/// What is known while a Node is drained.
#[derive(Clone, Debug)]
pub struct DrainFacts<'a> {
    /// All Pods of the Node, as known now.
    pub pods: Vec<&'a PodFacts>,
    /// The Node's condition, which tells a Pod that is slow to go from one that nobody is there to stop.
    pub node_ready: bool,
    /// The workloads of its Pods, and what all drains have asked of them.
    pub workloads: &'a Workloads,
}

/// Decides what a drain does next.
pub fn step(
    order: &DrainOrder,
    facts: &DrainFacts<'_>,
    progress: &DrainProgress,
    now: Timestamp,
) -> Step {
    let node_ready = facts.node_ready;
    let mut sorted = facts.pods.clone();
    sorted.sort_by(|a, b| a.id.cmp(&b.id));

    let mut going: Vec<&PodFacts> = Vec::new();
    let mut stuck: Vec<(PodOutcome, String)> = Vec::new();
    for pod in sorted {
        match classify(pod, &order.rules) {
            Disposition::Evict => going.push(pod),
            Disposition::Skip(_) | Disposition::Leave(_) => {}
            Disposition::Impossible(reason) => {
                stuck.push((impossible_outcome(&reason), format!("{}: {reason}", pod.id)))
            }
        }
    }

    let mut of_workload: BTreeMap<&Uid, usize> = BTreeMap::new();
    for workload in going.iter().filter_map(|pod| paced_by(pod)) {
        *of_workload.entry(workload).or_default() += 1;
    }
    // Of a chain, whose Pods go one after the other: under a budget, or several of one workload.
    let is_link = |pod: &PodFacts| {
        let paced = |workload| of_workload.get(workload).is_some_and(|count| *count > 1);
        !pod.budgets.is_empty()
            || (order.rules.pace == Pace::Owner && paced_by(pod).is_some_and(paced))
    };
    // Ordinary Pods first, critical ones last. Among them the links come first: they decide how long all of it
    // takes. Ties by name.
    // Of those that nobody waits for, whoever was asked before lets the others go first: it may have met a
    // server that hangs.
    going.sort_by_key(|pod| {
        let again = !is_link(pod) && progress.was_asked(&pod.id);
        (pod.critical, pod.dependency.is_some(), !is_link(pod), again)
    });

    let mut step = Step {
        actions: Vec::new(),
        links: 0,
        links_waiting: 0,
        surges: Vec::new(),
        wake_at: order.deadline_at,
        state: StepState::Running { remaining: 0 },
    };
    let mut waiting: Vec<&PodFacts> = Vec::new();
    let mut ordinary_waiting = false;
    let quiet_until = quiet_until(progress);
    let forbidden = forbidden(&going, progress);
    let mut in_flight = progress
        .pods
        .values()
        .filter(|(_, pod)| pod.in_flight)
        .count();
    let mut asked: BTreeMap<(&str, &str), Asked> = BTreeMap::new();
    for pod in &going {
        if let (Some(key), Some((_, state))) = (budget_key(pod), progress.pods.get(&pod.id.uid)) {
            let asked = asked.entry(key).or_default();
            asked.under_way += usize::from(state.in_flight);
            asked.any = true;
            if let (true, None, Some((at, _))) =
                (state.accepted, pod.terminating_until, &state.answer)
            {
                let shown_by = after(*at, BUDGET_LAG);
                if now < shown_by {
                    asked.taken += 1;
                    step.wake_at = step.wake_at.min(shown_by);
                }
            }
        }
    }
    // A Pod that goes names its budget no more.
    for (id, state) in progress.asked() {
        let (Some(budget), true, Some((at, _))) = (&state.budget, state.accepted, &state.answer)
        else {
            continue;
        };
        let explained_until = after(*at, EXPLAINED_FOR);
        if now < explained_until {
            let asked = asked.entry((&id.namespace, budget)).or_default();
            asked.any = true;
            let settled_by = after(*at, SETTLES_IN);
            asked.settling |= now < settled_by;
            let next = if now < settled_by {
                settled_by
            } else {
                explained_until
            };
            step.wake_at = step.wake_at.min(next);
        }
    }
    // Pods that nobody waits for leave the server to the links, which decide how long all of it takes.
    let chains = going.iter().any(|pod| {
        let state = progress.pods.get(&pod.id.uid).map(|(_, state)| state);
        let goes = pod.terminating_until.is_some() || state.is_some_and(|state| state.accepted);
        let stuck = || matches!(need(order, pod, state, node_ready, now), Need::Stuck(..));
        // A critical one waits for the others itself.
        is_link(pod) && !pod.critical && !goes && !stuck()
    });
    let is_in_flight = |pod: &PodFacts| {
        let state = progress.pods.get(&pod.id.uid);
        state.is_some_and(|(_, state)| state.in_flight)
    };
    let mut alone_in_flight = going
        .iter()
        .filter(|pod| !is_link(pod) && is_in_flight(pod))
        .count();
    // Workloads of which a Pod is asked for in this very step.
    let mut given: BTreeSet<&Uid> = BTreeSet::new();
    let last_request = progress
        .asked()
        .filter_map(|(_, state)| state.first_request_at)
        .fold(order.started_at, Timestamp::max);
    for pod in going {
        let state = progress.pods.get(&pod.id.uid).map(|(_, state)| state);
        match need(order, pod, state, node_ready, now) {
            Need::Stuck(outcome, detail) => {
                stuck.push((outcome, detail));
                continue;
            }
            Need::Wait(until) => step.wake_at = step.wake_at.min(until),
            Need::Request if !order.sends => {}
            // Rights are given by namespace: its other Pods would be refused too, one by one.
            Need::Request
                if forbidden
                    .get(pod.id.namespace.as_str())
                    .is_some_and(Forbidden::is_final) =>
            {
                let detail = forbidden[pod.id.namespace.as_str()].detail;
                stuck.push((PodOutcome::Forbidden, format!("{}: {detail}", pod.id)));
                continue;
            }
            // One of them is asked for again, and its answer is an event.
            Need::Request
                if forbidden
                    .get(pod.id.namespace.as_str())
                    .is_some_and(|forbidden| *forbidden.asked != pod.id.uid) => {}
            Need::Request if now < quiet_until => step.wake_at = step.wake_at.min(quiet_until),
            // Critical Pods wait for the ordinary ones; whatever ends that wait is itself an event. One that the
            // others of its namespace wait for has had its turn before.
            Need::Request
                if pod.critical
                    && ordinary_waiting
                    && !forbidden.contains_key(pod.id.namespace.as_str()) => {}
            Need::Request if in_flight >= IN_FLIGHT_MAX => {}
            Need::Request if chains && !is_link(pod) && alone_in_flight >= ALONE_IN_FLIGHT_MAX => {}
            Need::Request => {
                let surging = progress.surging() + step.surges.len();
                match surge::turn(order, facts, pod, progress, surging, now) {
                    SurgeTurn::Goes => {}
                    SurgeTurn::Stuck(detail) => {
                        let detail = format!("{}: {detail}", pod.id);
                        stuck.push((PodOutcome::ReplacementNotReady, detail));
                        continue;
                    }
                    SurgeTurn::Begin => {
                        step.surges.push(pod.id.clone());
                        waiting.push(pod);
                        ordinary_waiting |= !pod.critical;
                        continue;
                    }
                    SurgeTurn::Waits(until) => {
                        step.wake_at = step.wake_at.min(until);
                        waiting.push(pod);
                        ordinary_waiting |= !pod.critical;
                        continue;
                    }
                }
                match turn(order, facts, pod, &of_workload, &mut given, now) {
                    Turn::Now => {}
                    Turn::Waits(since, detail) => {
                        let limit = after(since.unwrap_or(last_request), order.rules.pod_deadline);
                        if now >= limit {
                            let detail = format!("{}: {detail}", pod.id);
                            stuck.push((PodOutcome::ReplacementNotReady, detail));
                            continue;
                        }
                        step.wake_at = step.wake_at.min(limit);
                        waiting.push(pod);
                        ordinary_waiting |= !pod.critical;
                        continue;
                    }
                }
                let asked = budget_key(pod).map(|key| asked.entry(key).or_default());
                if may_ask(pod, state, asked.as_deref()) {
                    // Critical ones come after all others, so what is no link ends the first links.
                    step.links += usize::from(is_link(pod) && step.links == step.actions.len());
                    if let Some(asked) = asked {
                        asked.under_way += 1;
                        asked.any = true;
                    }
                    in_flight += 1;
                    alone_in_flight += usize::from(!is_link(pod));
                    step.actions.push(Action::Evict {
                        pod: pod.id.clone(),
                        grace: order
                            .rules
                            .grace_cap
                            .map(|cap| cap.max(GRACE_FLOOR))
                            .filter(|cap| *cap < pod.grace),
                        read_first: state.is_some_and(|state| state.in_doubt),
                    });
                }
            }
        }
        waiting.push(pod);
        ordinary_waiting |= !pod.critical;
    }
    let is_asked = |pod: &PodFacts| {
        let of_it =
            |action: &Action| matches!(action, Action::Evict { pod: id, .. } if *id == pod.id);
        pod.terminating_until.is_some()
            || progress
                .pods
                .get(&pod.id.uid)
                .is_some_and(|(_, state)| state.in_flight || state.accepted)
            || step.actions.iter().take(step.links).any(of_it)
    };
    step.links_waiting = waiting
        .iter()
        .filter(|pod| is_link(pod) && !is_asked(pod) && !(pod.critical && ordinary_waiting))
        .count();

    step.state = if now >= order.deadline_at && (!waiting.is_empty() || !stuck.is_empty()) {
        over_by_deadline(&waiting, progress, stuck)
    } else if !waiting.is_empty() {
        StepState::Running {
            remaining: count(waiting.len() + stuck.len()),
        }
    } else if !stuck.is_empty() {
        over(stuck)
    } else if now < order.complete_after {
        // Also where that is later than the deadline: nothing is left that could be late.
        step.wake_at = order.complete_after;
        StepState::Running { remaining: 0 }
    } else if progress.surging() > 0 && now < order.deadline_at {
        // Its end is an event.
        StepState::Running { remaining: 0 }
    } else {
        StepState::Over {
            outcome: NodeOutcome::Drained,
            detail: String::new(),
        }
    };
    if matches!(step.state, StepState::Over { .. }) {
        step.actions.clear();
        step.surges.clear();
    }
    step
}

/// Whether the Pod's workload lets it go now.
fn turn<'a>(
    order: &DrainOrder,
    facts: &DrainFacts<'_>,
    pod: &'a PodFacts,
    of_workload: &BTreeMap<&Uid, usize>,
    given: &mut BTreeSet<&'a Uid>,
    now: Timestamp,
) -> Turn {
    match order.rules.pace {
        Pace::Budget => return Turn::Now,
        Pace::Owner => {}
    }
    let workload = paced_by(pod);
    if workload.is_some_and(|workload| given.contains(workload)) {
        return Turn::Waits(
            Some(now),
            "another Pod of its workload goes first".to_owned(),
        );
    }
    let alone = workload.is_some_and(|workload| of_workload.get(workload) == Some(&1));
    let turn = facts.workloads.turn(pod, alone);
    if turn == Turn::Now {
        given.extend(workload);
    }
    turn
}

fn need(
    order: &DrainOrder,
    pod: &PodFacts,
    state: Option<&PodProgress>,
    node_ready: bool,
    now: Timestamp,
) -> Need {
    if let Some(until) = pod.terminating_until {
        let Some(overdue) = overdue(pod, now) else {
            return Need::Wait(after(until, STUCK_MARGIN));
        };
        return if node_ready {
            Need::Stuck(
                PodOutcome::StuckTerminating,
                format!("{}: {overdue}", pod.id),
            )
        } else {
            Need::Stuck(
                PodOutcome::Unreachable,
                format!("{}: its Node does not answer, so it cannot finish", pod.id),
            )
        };
    }
    let Some(state) = state else {
        return Need::Request;
    };
    if state.in_flight || state.accepted {
        // Its answer, or its deletion, is the next event; the pod deadline bounds the wait.
        let limit = after(
            state.first_request_at.unwrap_or(now),
            order.rules.pod_deadline,
        );
        return if state.accepted && now >= limit {
            Need::Stuck(
                PodOutcome::StuckTerminating,
                format!(
                    "{}: its eviction was accepted, and it is still there",
                    pod.id
                ),
            )
        } else {
            Need::Wait(limit.max(after(now, RETRY_FLOOR)))
        };
    }
    let Some((answered_at, answer)) = &state.answer else {
        return Need::Request;
    };
    let detail = || format!("{}: {}", pod.id, answer.detail());
    match answer {
        // Asking on would be the same answer, loudly; a person has to change something.
        Answer::Forbidden { .. } if state.requests >= FORBIDDEN_MAX => {
            return Need::Stuck(PodOutcome::Forbidden, detail());
        }
        Answer::Forbidden { .. }
        | Answer::Accepted
        | Answer::Gone
        | Answer::BlockedByBudget { .. }
        | Answer::Throttled { .. }
        | Answer::OverlappingBudgets { .. }
        | Answer::WebhookDenied { .. }
        | Answer::NamespaceTerminating
        | Answer::Lost { .. }
        | Answer::Failed { .. } => {}
    }
    let limit = after(
        state.first_request_at.unwrap_or(*answered_at),
        order.rules.pod_deadline,
    );
    if now >= limit {
        return Need::Stuck(answer.outcome(), detail());
    }
    let asks_to_wait = answer.retry_after().is_some_and(|asked| !asked.is_zero());
    let budget = pod.budgets.first().filter(|budget| {
        budget.observed && !asks_to_wait && matches!(answer, Answer::BlockedByBudget { .. })
    });
    let pause = match budget {
        // Its opening is an event.
        Some(budget) if budget.is_closed() => spread(&pod.id.uid, state.requests, RETRY_CAP),
        Some(_) => OPENED_FLOOR
            .saturating_mul(1 << state.requests.saturating_sub(1).min(6))
            .min(RETRY_FLOOR),
        None => backoff(&pod.id.uid, state.requests, answer.retry_after()),
    };
    let due = after(*answered_at, pause);
    if now >= due {
        Need::Request
    } else {
        Need::Wait(due.min(limit))
    }
}

/// Doubles from the floor to the cap.
fn backoff(uid: &Uid, requests: u32, retry_after: Option<Duration>) -> Duration {
    if let Some(asked) = retry_after.filter(|asked| !asked.is_zero()) {
        return asked.clamp(RETRY_FLOOR, RETRY_AFTER_MAX);
    }
    let doubled = RETRY_FLOOR
        .saturating_mul(1 << requests.min(6))
        .min(RETRY_CAP);
    spread(uid, requests, doubled)
}

/// Shorter by up to a fifth, so that Pods which were refused together do not come back together. How much
/// comes from the UID, not from chance, so that a replay repeats it.
fn spread(uid: &Uid, requests: u32, pause: Duration) -> Duration {
    let thousandths = uid.as_str().bytes().fold(requests, |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(u32::from(byte))
    }) % 200;
    pause - pause * thousandths / 1000
}

/// What was asked of one budget.
#[derive(Default)]
struct Asked {
    /// Requests under way.
    under_way: usize,
    /// Accepted, and not seen to go yet.
    taken: usize,
    /// One was evicted so shortly ago that the disruption controller may not have taken it in.
    settling: bool,
    /// Some of its Pods that are still there was asked for, or one was evicted a moment ago.
    any: bool,
}

/// Namespace and name of the budget that a Pod waits for.
fn budget_key(pod: &PodFacts) -> Option<(&str, &str)> {
    let budget = pod.budgets.first()?;
    Some((&pod.id.namespace, &budget.name))
}

/// Whether the Pod's budget has room for a request.
///
/// One at a time: the server writes each disruption to the budget's status, and of two that it writes at
/// once one begins again after half a second. Of a budget without room one Pod is asked for, because what
/// the watch shows may be old, and to have the server's own words; the others wait for the budget to open.
/// Where what we evicted a moment ago explains that there is no room, nobody is asked for; and while the
/// controller is about to write the status itself, its write would be the one that collides.
fn may_ask(pod: &PodFacts, state: Option<&PodProgress>, asked: Option<&Asked>) -> bool {
    let (Some(budget), Some(asked)) = (pod.budgets.first(), asked) else {
        return true;
    };
    if budget.is_closed() && state.is_none() && asked.any {
        return false;
    }
    if budget.unsettled && asked.settling {
        return false;
    }
    let room = match budget.allowance {
        EvictionAllowance::Now(count) => (count as usize).max(1),
        EvictionAllowance::Never => 1,
    };
    asked.under_way == 0 && asked.taken < room
}

fn impossible_outcome(reason: &ImpossibleReason) -> PodOutcome {
    match reason {
        ImpossibleReason::NeverAllowed { .. } => PodOutcome::NeverAllowed,
        ImpossibleReason::OverlappingPdbs(_) => PodOutcome::OverlappingPdbs,
    }
}

/// A busy server is left alone by the whole drain, not only for the Pod that met it.
fn quiet_until(progress: &DrainProgress) -> Timestamp {
    progress
        .pods
        .values()
        .filter(|(_, state)| !state.in_flight)
        .filter_map(|(id, state)| match &state.answer {
            Some((at, answer @ Answer::Throttled { .. })) => Some(after(
                *at,
                backoff(&id.uid, state.requests, answer.retry_after()),
            )),
            Some(_) | None => None,
        })
        .max()
        .unwrap_or(Timestamp::MIN)
}

/// A namespace in which our credentials do not allow evictions.
struct Forbidden<'a> {
    /// In the server's words.
    detail: &'a str,
    /// How often it has said so of one Pod, and of which.
    times: u32,
    asked: &'a Uid,
}

impl Forbidden<'_> {
    fn is_final(&self) -> bool {
        self.times >= FORBIDDEN_MAX
    }
}

/// Namespaces in which our credentials do not allow evictions. Of each the Pod that was asked for most often
/// of those that are still to go: nobody hears again of one that is gone.
fn forbidden<'a>(
    going: &[&'a PodFacts],
    progress: &'a DrainProgress,
) -> BTreeMap<&'a str, Forbidden<'a>> {
    let mut namespaces: BTreeMap<&str, Forbidden<'_>> = BTreeMap::new();
    for pod in going.iter().filter(|pod| pod.terminating_until.is_none()) {
        let state = progress.pods.get(&pod.id.uid).map(|(_, state)| state);
        let Some((requests, Some((_, Answer::Forbidden { detail })))) =
            state.map(|state| (state.requests, &state.answer))
        else {
            continue;
        };
        let next = Forbidden {
            detail,
            times: requests,
            asked: &pod.id.uid,
        };
        let known = namespaces.get(pod.id.namespace.as_str());
        if known.is_none_or(|known| known.times < next.times) {
            namespaces.insert(&pod.id.namespace, next);
        }
    }
    namespaces
}

/// The time for the Node is up: each Pod that is still there says what it was waiting for.
fn over_by_deadline(
    waiting: &[&PodFacts],
    progress: &DrainProgress,
    mut stuck: Vec<(PodOutcome, String)>,
) -> StepState {
    for pod in waiting {
        if let Some(budget) = unasked_by(pod, progress) {
            let detail = format!("{}: budget {}: {}", pod.id, budget.name, budget.detail);
            stuck.push((PodOutcome::BlockedByBudget, detail));
            continue;
        }
        let answer = progress
            .pods
            .get(&pod.id.uid)
            .and_then(|(_, state)| state.answer.as_ref())
            .map(|(_, answer)| answer)
            .filter(|answer| pod.terminating_until.is_none() && answer.is_refusal());
        stuck.push(match answer {
            Some(answer) => (answer.outcome(), format!("{}: {}", pod.id, answer.detail())),
            None => (
                PodOutcome::Deadline,
                format!(
                    "{}: still there at the deadline{}",
                    pod.id,
                    named(&pod.finalizers)
                ),
            ),
        });
    }
    over(stuck)
}

/// The budget for whose sake the Pod was never asked for.
fn unasked_by<'a>(pod: &'a PodFacts, progress: &DrainProgress) -> Option<&'a Budget> {
    let unasked = pod.terminating_until.is_none() && !progress.pods.contains_key(&pod.id.uid);
    pod.closed_budget().filter(|_| unasked)
}

/// Why a terminating Pod does not finish, once it should have long ago: it is told with its finalizers,
/// which only those who put them there may take away. `None` while it still has time, or does not terminate.
pub fn overdue(pod: &PodFacts, now: Timestamp) -> Option<String> {
    let until = pod.terminating_until?;
    (now >= after(until, STUCK_MARGIN)).then(|| {
        let finalizers = named(&pod.finalizers);
        format!("should have been gone by {until}{finalizers}")
    })
}

fn named(finalizers: &[String]) -> String {
    if finalizers.is_empty() {
        String::new()
    } else {
        format!(", finalizers {}", finalizers.join(", "))
    }
}

fn over(mut stuck: Vec<(PodOutcome, String)>) -> StepState {
    stuck.sort();
    stuck.dedup();
    let outcome = stuck
        .first()
        .map_or(PodOutcome::Deadline, |(outcome, _)| *outcome);
    let shown: Vec<&str> = stuck
        .iter()
        .take(5)
        .map(|(_, detail)| detail.as_str())
        .collect();
    let more = stuck.len().saturating_sub(shown.len());
    let more = if more == 0 {
        String::new()
    } else {
        format!("; and {more} more")
    };
    StepState::Over {
        outcome: NodeOutcome::Ended(outcome),
        detail: format!("{}{more}", shown.join("; ")),
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
