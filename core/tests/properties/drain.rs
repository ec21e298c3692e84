//! What is always true of a drain, against a server and a network that are drawn at random.
//!
//! Requests take time, answers are lost before and after the write took place, the watch lags, the
//! process is killed. The judge is the server's own count, not what the drain believes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::support::pods::{budget, order, owner, pod, seconds, with};
use crate::support::{now, rules};
use foreshock_core::drain::{
    Action, Answer, Choice, Disposition, DrainFacts, DrainProgress, EvictionAllowance, NodeOutcome,
    Owner, PodFacts, StepState, Workload, Workloads, classify, step,
};
use foreshock_core::node::Uid;
use foreshock_core::time::after;
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Requests of one drain under way at once. Repeated here on purpose: a change has to be meant.
const UNDER_WAY_MAX: usize = 10;
/// As above, in milliseconds.
const RETRY_FLOOR: u64 = 500;
/// The same after a budget's refusal, where the budget has opened meanwhile.
const OPENED_FLOOR: u64 = 100;

#[derive(Clone, Debug)]
struct DrawnPod {
    kind: u8,
    /// Milliseconds from its eviction until it is gone.
    takes: u64,
}

#[derive(Clone, Debug)]
struct Case {
    pods: Vec<DrawnPod>,
    /// Of two budgets: room at first, and milliseconds until a disruption is made good.
    budgets: [(u32, Option<u64>); 2],
    /// Of two workloads without a budget: Ready Pods on other Nodes, and milliseconds until a replacement
    /// is Ready.
    workloads: [(u32, Option<u64>); 2],
    /// What happens to each request, in turn: its fate and its way in 8 ms.
    script: Vec<(u8, u8)>,
    /// Milliseconds by which the watch is behind.
    lag: u64,
    deadline: u64,
    /// While nothing may be sent, in seconds from the start.
    silence: Option<(u64, u64)>,
}

fn case() -> impl Strategy<Value = Case> {
    let pod = (0..60_u8, 0..20_000_u64).prop_map(|(kind, takes)| DrawnPod { kind, takes });
    let budget = || (0..4_u32, prop::option::weighted(0.9, 500..30_000_u64));
    (
        prop::collection::vec(pod, 1..30),
        [budget(), budget()],
        [budget(), budget()],
        prop::collection::vec(any::<(u8, u8)>(), 1..60),
        0..3_000_u64,
        30..900_u64,
        prop::option::weighted(0.2, (0..60_u64, 1..120_u64)),
    )
        .prop_map(
            |(pods, budgets, workloads, script, lag, deadline, silence)| Case {
                pods,
                budgets,
                workloads,
                script,
                lag,
                deadline,
                silence: silence.map(|(from, long)| (from, from + long)),
            },
        )
}

impl DrawnPod {
    fn facts(&self, n: usize) -> PodFacts {
        with(pod(&format!("p{n:02}")), |pod| match self.kind {
            0 => pod.critical = true,
            1 => pod.owner = owner("apps", "DaemonSet"),
            2 => pod.finished = true,
            3 => pod.owner = None,
            4 => pod.finalizers = vec!["example.org/hold".into()],
            5..=14 => pod.budgets = vec![budget("b0", EvictionAllowance::Now(0))],
            15..=19 => pod.budgets = vec![budget("b1", EvictionAllowance::Now(0))],
            20..=29 => pod.workload = Ok(workload(0)),
            30..=34 => pod.workload = Ok(workload(1)),
            _ => {}
        })
    }

    fn never_goes(&self) -> bool {
        self.kind == 4
    }
}

fn workload_uid(pod: &PodFacts) -> Option<&str> {
    let owner = pod.workload.as_ref().ok()?.as_ref()?;
    Some(owner.uid.as_str())
}

fn workload(n: usize) -> Option<Owner> {
    owner("apps", "Deployment").map(|owner| Owner {
        name: format!("w{n}"),
        uid: format!("w{n}").as_str().into(),
        ..owner
    })
}

/// Where a Pod really is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Whereabouts {
    Running,
    Going(u64),
    Gone,
}

#[derive(Clone, Debug)]
enum Event {
    Arrives { pod: usize, lost_after: bool },
    Answered { pod: usize, answer: Answer },
    Gone(usize),
    Restored(usize),
    Replaced(usize),
    Seen(Vec<PodFacts>, [Workload; 2]),
    Restart,
    Started,
    Wake,
}

#[derive(Debug, Default)]
struct Tally {
    drained: usize,
    ended: usize,
    taken_place_and_lost: usize,
    replaced: usize,
    not_replaced: usize,
    restarts: usize,
    blocked: usize,
    requests: usize,
}

/// Server, network and executor in virtual milliseconds.
struct Simulation<'a> {
    case: &'a Case,
    at: u64,
    agenda: BTreeMap<(u64, u64), Event>,
    n_events: u64,
    pods: Vec<(PodFacts, Whereabouts)>,
    room: [u32; 2],
    /// Ready Pods of each workload on other Nodes, by number, and how many it asks for.
    elsewhere: [u32; 2],
    wanted: [u32; 2],
    accepted: BTreeMap<Uid, u32>,
    n_requests: usize,
    // What the executor has.
    up: bool,
    started: u64,
    seen: Vec<PodFacts>,
    progress: DrainProgress,
    workloads: Workloads,
    /// Evictions that took more of a workload than its replacements allowed.
    too_soon: Vec<String>,
    last_answer: BTreeMap<usize, u64>,
    tally: Tally,
}

impl<'a> Simulation<'a> {
    fn of(case: &'a Case) -> Self {
        let pods: Vec<(PodFacts, Whereabouts)> = case
            .pods
            .iter()
            .enumerate()
            .map(|(n, pod)| (pod.facts(n), Whereabouts::Running))
            .collect();
        let mut simulation = Self {
            case,
            at: 0,
            agenda: BTreeMap::new(),
            n_events: 0,
            pods,
            room: [case.budgets[0].0, case.budgets[1].0],
            elsewhere: [case.workloads[0].0, case.workloads[1].0],
            wanted: [0; 2],
            accepted: BTreeMap::new(),
            n_requests: 0,
            up: true,
            started: 0,
            seen: Vec::new(),
            progress: DrainProgress::default(),
            workloads: Workloads::default(),
            too_soon: Vec::new(),
            last_answer: BTreeMap::new(),
            tally: Tally::default(),
        };
        for n in 0..2 {
            let ready = simulation.workload(n).ready.len();
            simulation.wanted[n] = u32::try_from(ready).expect("few");
        }
        simulation.see(
            simulation.truth(),
            [0, 1].map(|n| simulation.workload(n)),
            true,
        );
        if let Some((_, until)) = case.silence {
            simulation.plan(until * 1000, Event::Wake);
        }
        simulation
    }

    fn plan(&mut self, at: u64, event: Event) {
        self.n_events += 1;
        self.agenda.insert((at, self.n_events), event);
    }

    fn time(&self) -> Timestamp {
        after(now(), Duration::from_millis(self.at))
    }

    /// The Pods as they really are.
    fn truth(&self) -> Vec<PodFacts> {
        self.pods
            .iter()
            .filter(|(_, whereabouts)| *whereabouts != Whereabouts::Gone)
            .map(|(facts, whereabouts)| {
                with(facts.clone(), |pod| {
                    if let Whereabouts::Going(until) = whereabouts {
                        pod.terminating_until = Some(after(now(), Duration::from_millis(*until)));
                    }
                    for budget in &mut pod.budgets {
                        budget.allowance =
                            EvictionAllowance::Now(self.room[usize::from(budget.name == "b1")]);
                    }
                })
            })
            .collect()
    }

    /// One of the workloads as it really is.
    fn workload(&self, n: usize) -> Workload {
        let uid = format!("w{n}");
        let here = self.pods.iter().filter(|(facts, whereabouts)| {
            let of = workload_uid(facts);
            of == Some(&uid) && *whereabouts == Whereabouts::Running
        });
        let here = here.map(|(facts, _)| facts.id.uid.clone());
        let there = (0..self.elsewhere[n]).map(|k| format!("{uid}-{k}").as_str().into());
        Workload {
            wanted: Some(self.wanted[n]),
            ready: here.chain(there).collect(),
            ..Workload::default()
        }
    }

    /// The watches show this.
    fn see(&mut self, pods: Vec<PodFacts>, workloads: [Workload; 2], trusted: bool) {
        self.seen = pods;
        self.workloads.trust(trusted);
        for (n, seen) in workloads.into_iter().enumerate() {
            self.workloads
                .see(&format!("w{n}").as_str().into(), Ok(seen));
        }
    }

    fn changed(&mut self) {
        let event = Event::Seen(self.truth(), [0, 1].map(|n| self.workload(n)));
        self.plan(self.at + self.case.lag, event);
    }

    /// The eviction reaches the server.
    fn evict(&mut self, n: usize) -> Answer {
        let (facts, whereabouts) = &mut self.pods[n];
        match whereabouts {
            Whereabouts::Gone => return Answer::Gone,
            Whereabouts::Going(_) => {
                *self.accepted.entry(facts.id.uid.clone()).or_default() += 1;
                return Answer::Accepted;
            }
            Whereabouts::Running => {}
        }
        if let Some(budget) = facts.budgets.first() {
            let which = usize::from(budget.name == "b1");
            if self.room[which] == 0 {
                self.tally.blocked += 1;
                return Answer::BlockedByBudget {
                    detail: budget.name.clone(),
                    retry_after: None,
                };
            }
            self.room[which] -= 1;
            if let Some(restored) = self.case.budgets[which].1 {
                self.agenda.insert(
                    (self.at + restored, u64::MAX - n as u64),
                    Event::Restored(which),
                );
            }
        }
        *self.accepted.entry(facts.id.uid.clone()).or_default() += 1;
        let uid = workload_uid(facts).map(Uid::from);
        if let Some(w) = (0..2).find(|w| uid == Some(format!("w{w}").as_str().into())) {
            let ready = self.workload(w).ready.len();
            if ready != self.wanted[w] as usize {
                self.too_soon
                    .push(format!("p{n:02}: w{w} has {ready} of {}", self.wanted[w]));
            }
            match self.case.workloads[w].1 {
                Some(takes) => self.plan(self.at + takes, Event::Replaced(w)),
                None => self.tally.not_replaced += 1,
            }
        }
        let whereabouts = &mut self.pods[n].1;
        *whereabouts = Whereabouts::Going(self.at + 30_000);
        if !self.case.pods[n].never_goes() {
            let gone_at = self.at + self.case.pods[n].takes;
            self.plan(gone_at, Event::Gone(n));
        }
        self.changed();
        Answer::Accepted
    }

    /// Sends one request on its way, as the script has it.
    fn send(&mut self, n: usize, read_first: bool) {
        let (fate, way) = self.case.script[self.n_requests % self.case.script.len()];
        self.n_requests += 1;
        let arrives = self.at + u64::from(way) * 4;
        let back = self.at + u64::from(way) * 8 + 1;
        if read_first {
            let found = match self.pods[n].1 {
                Whereabouts::Running => None,
                Whereabouts::Going(_) => Some(Answer::Accepted),
                Whereabouts::Gone => Some(Answer::Gone),
            };
            if let Some(answer) = found {
                self.plan(back, Event::Answered { pod: n, answer });
                return;
            }
        }
        let detail = String::from("drawn");
        let refused = match fate {
            0..=149 | 248..=252 => None,
            150..=169 => Some(Answer::Lost { detail }),
            170..=199 => {
                self.plan(
                    arrives,
                    Event::Arrives {
                        pod: n,
                        lost_after: true,
                    },
                );
                return;
            }
            200..=214 => Some(Answer::Throttled {
                retry_after: Some(seconds(u64::from(way) / 16)),
            }),
            215..=229 => Some(Answer::Failed { detail }),
            230..=239 => Some(Answer::WebhookDenied { detail }),
            240 => Some(Answer::Forbidden { detail }),
            241..=247 => Some(Answer::OverlappingBudgets { detail }),
            253.. => {
                self.plan(arrives + 5, Event::Restart);
                None
            }
        };
        match refused {
            Some(answer) => self.plan(back, Event::Answered { pod: n, answer }),
            None => self.plan(
                arrives,
                Event::Arrives {
                    pod: n,
                    lost_after: false,
                },
            ),
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Arrives { pod, lost_after } => {
                let mut answer = self.evict(pod);
                let mut wait = 1;
                if lost_after {
                    self.tally.taken_place_and_lost += usize::from(answer == Answer::Accepted);
                    answer = Answer::Lost {
                        detail: "timed out".into(),
                    };
                    wait = 5_000;
                }
                self.plan(self.at + wait, Event::Answered { pod, answer });
            }
            Event::Answered { pod, answer } => {
                let id = self.pods[pod].0.id.clone();
                self.last_answer.insert(pod, self.at);
                self.workloads.answered(&id, &answer);
                self.progress.answered(&id, answer, self.time());
            }
            Event::Gone(pod) => {
                self.pods[pod].1 = Whereabouts::Gone;
                self.changed();
            }
            Event::Restored(budget) => {
                self.room[budget] += 1;
                self.changed();
            }
            Event::Replaced(workload) => {
                self.tally.replaced += 1;
                self.elsewhere[workload] += 1;
                self.changed();
            }
            Event::Seen(pods, workloads) => self.see(pods, workloads, self.started == 0),
            Event::Restart => self.kill(),
            Event::Started => {
                self.up = true;
                self.started = self.at;
                self.progress = DrainProgress::default();
                self.last_answer.clear();
                // A fresh list, and a watch from there on: it never goes back.
                self.agenda
                    .retain(|_, event| !matches!(event, Event::Seen(..)));
                self.workloads = Workloads::default();
                self.see(self.truth(), [0, 1].map(|n| self.workload(n)), false);
            }
            Event::Wake => {}
        }
    }

    /// The process dies. What it had sent takes place or not; nobody hears the answers, and what the
    /// watch had on its way is lost with it.
    fn kill(&mut self) {
        self.tally.restarts += 1;
        self.up = false;
        let pending = std::mem::take(&mut self.agenda);
        let mut on_the_wire = Vec::new();
        for (when, event) in pending {
            match event {
                Event::Arrives { pod, .. } => on_the_wire.push(pod),
                Event::Gone(_) | Event::Restored(_) | Event::Replaced(_) => {
                    self.agenda.insert(when, event);
                }
                Event::Wake => {
                    self.agenda.insert(when, event);
                }
                Event::Answered { .. } | Event::Seen(..) | Event::Restart | Event::Started => {}
            }
        }
        for (n, pod) in on_the_wire.into_iter().enumerate() {
            if n % 2 == 0 {
                self.evict(pod);
            }
        }
        self.plan(self.at + 1_000, Event::Started);
    }

    fn run(mut self) -> Result<Tally, TestCaseError> {
        let mut order = order(rules());
        order.deadline_at = after(now(), seconds(self.case.deadline));
        order.rules.unmanaged = Choice::Evict;
        let bound =
            |requests: usize| requests <= self.case.pods.len() * 2 * self.case.deadline as usize;
        let mut wake = 0;
        let mut asked_at: BTreeMap<usize, u64> = BTreeMap::new();
        loop {
            // One alarm at a time, as the executor has: each step sets it anew.
            match self.agenda.first_key_value() {
                Some(((at, _), _)) if !self.up || *at <= wake => {
                    let ((at, _), event) = self.agenda.pop_first().expect("looked at");
                    self.at = at.max(self.at);
                    self.happens(event);
                }
                Some(_) | None => self.at = wake,
            }
            if !self.up {
                continue;
            }
            let silent = |(from, until): (u64, u64)| (from * 1000..until * 1000).contains(&self.at);
            order.sends = !self.case.silence.is_some_and(silent);
            let concerned: BTreeSet<Uid> = ["w0".into(), "w1".into()].into();
            self.workloads
                .settle(&concerned, self.time(), order.rules.pod_deadline);
            let facts = DrainFacts {
                pods: self.seen.iter().collect(),
                node_ready: true,
                workloads: &self.workloads,
            };
            let next = step(&order, &facts, &self.progress, self.time());
            if let StepState::Over { outcome, detail } = next.state {
                prop_assert!(next.actions.is_empty());
                self.judge_end(outcome, &detail, order.deadline_at)?;
                prop_assert!(bound(self.n_requests), "{} requests", self.n_requests);
                self.tally.requests = self.n_requests;
                return Ok(self.tally);
            }
            prop_assert!(self.time() < order.deadline_at, "not over at the deadline");
            prop_assert!(next.wake_at > self.time(), "a hot loop");
            prop_assert!(
                order.sends || next.actions.is_empty(),
                "sent while it may not"
            );
            for Action::Evict {
                pod, read_first, ..
            } in next.actions
            {
                let n = self
                    .pods
                    .iter()
                    .position(|(facts, _)| facts.id == pod)
                    .expect("known");
                if let Some(answered) = self.last_answer.get(&n)
                    && asked_at.contains_key(&n)
                    && self.progress.pods.contains_key(&pod.uid)
                {
                    let answer = self.progress.pods[&pod.uid].1.answer.as_ref();
                    let floor = match answer {
                        Some((_, Answer::BlockedByBudget { .. })) => OPENED_FLOOR,
                        Some(_) | None => RETRY_FLOOR,
                    };
                    prop_assert!(self.at >= answered + floor, "repeated too soon");
                    let refused = matches!(answer, Some((_, Answer::BlockedByBudget { .. })));
                    prop_assert!(read_first || refused, "repeated without reading first");
                }
                asked_at.insert(n, self.at);
                let now = self.time();
                self.progress.sent(&self.pods[n].0, now);
                self.workloads.sent(&self.pods[n].0, now);
                self.send(n, read_first);
            }
            self.judge_step()?;
            let milliseconds = next.wake_at.duration_since(now()).as_millis();
            wake = u64::try_from(milliseconds)
                .expect("in the future")
                .max(self.at + 1);
        }
    }

    fn judge_step(&self) -> Result<(), TestCaseError> {
        let under_way = self
            .progress
            .asked()
            .filter(|(_, state)| state.in_flight)
            .count();
        prop_assert!(under_way <= UNDER_WAY_MAX, "{under_way} requests under way");
        for (uid, times) in &self.accepted {
            prop_assert!(*times <= 1, "{uid} has {times} accepted evictions");
        }
        prop_assert!(self.too_soon.is_empty(), "{:?}", self.too_soon);
        prop_assert!(self.n_events < 100_000, "it goes on for ever");
        Ok(())
    }

    fn judge_end(
        &mut self,
        outcome: NodeOutcome,
        detail: &str,
        deadline: Timestamp,
    ) -> Result<(), TestCaseError> {
        self.judge_step()?;
        let start = after(now(), Duration::from_millis(self.started));
        prop_assert!(
            self.time() <= deadline.max(start),
            "over after the deadline"
        );
        let rules = crate::support::rules();
        let evictable = |facts: &PodFacts| {
            let rules = foreshock_core::drain::DrainRules {
                unmanaged: Choice::Evict,
                ..rules.clone()
            };
            classify(facts, &rules) == Disposition::Evict
        };
        let left: Vec<&PodFacts> = self
            .pods
            .iter()
            .filter(|(facts, whereabouts)| *whereabouts != Whereabouts::Gone && evictable(facts))
            .map(|(facts, _)| facts)
            .collect();
        match outcome {
            NodeOutcome::Drained => {
                prop_assert!(left.is_empty(), "drained, with {left:?}");
                self.tally.drained += 1;
            }
            NodeOutcome::Ended(_) => {
                prop_assert!(detail.contains("shop/p"), "names nobody: {detail:?}");
                self.tally.ended += 1;
            }
        }
        for (facts, _) in self.pods.iter().filter(|(facts, _)| !evictable(facts)) {
            prop_assert!(
                !self.accepted.contains_key(&facts.id.uid),
                "{} was evicted",
                facts.id
            );
        }
        Ok(())
    }
}

#[test]
fn a_drain_ends_in_time_evicts_no_pod_twice_and_never_hammers_the_server() {
    // The same cases in every run: a test that fails by chance is a test that is run again.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let cases = crate::support::cases(2_000);
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let total = RefCell::new(Tally::default());
    let outcome = TestRunner::new_with_rng(config, rng).run(&case(), |case| {
        let tally = Simulation::of(&case).run()?;
        let mut total = total.borrow_mut();
        total.drained += tally.drained;
        total.ended += tally.ended;
        total.taken_place_and_lost += tally.taken_place_and_lost;
        total.restarts += tally.restarts;
        total.blocked += tally.blocked;
        total.requests += tally.requests;
        Ok(())
    });
    let total = total.into_inner();
    println!("property drain: {total:?}");
    if let Err(error) = outcome {
        panic!("{error}");
    }
    assert!(
        [
            total.drained,
            total.ended,
            total.taken_place_and_lost,
            total.restarts,
            total.blocked
        ]
        .iter()
        .all(|count| *count > cases as usize / 20),
        "the cases have to see everything: {total:?}"
    );
}
