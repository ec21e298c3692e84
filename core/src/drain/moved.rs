//! Where it went: which Pod came in the place of each one that was evicted, where, and after how long.
//!
//! A ReplicaSet's Pods have no names that anybody knows before, so a replacement is told by its times: it is
//! a Pod of the same workload that came up after the request and has become Ready. Each is counted once, for
//! all drains of a process together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use super::{Answer, Owner, PodFacts, PodId, Workload};
use crate::node::{NodeId, NodeName, Uid};
use crate::time::{after, since};

/// Evictions whose replacements are awaited at most, in one process: more than ten minutes of them at the
/// default rate. What is evicted beyond that is not followed.
const EVICTED_MAX: usize = 20_000;
/// While its drain runs, a workload that the drain does not look at is left alone for so long: following many
/// of them at once would slow the drain down, and what is Ready by then says since when.
const FOLLOW_AFTER: Duration = Duration::from_secs(30);
/// A replacement that has been counted is remembered for so long. One watch has seen it come up, and another
/// lists it with times that are cut to seconds: by those it could stand for a Pod that was asked to go later.
const SPENT_FOR: Duration = Duration::from_secs(60);
/// Nodes that a sentence names; an Event's note has 250 letters.
const NODES_NAMED: usize = 5;
/// Workloads that a sentence names.
const WORKLOADS_NAMED: usize = 3;

/// A Pod of a workload that is Ready, as far as it may have come in the place of another. Times are on the
/// clock of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Where it runs.
    pub node: NodeName,
    /// It came into being then or earlier.
    pub appeared_at: Timestamp,
    /// When it became Ready for the first time.
    pub ready_at: Timestamp,
}

impl Replica {
    /// It may stand for a Pod that was asked to go then or earlier.
    fn replaces_until(&self) -> Timestamp {
        self.appeared_at.min(self.ready_at)
    }
}

/// Which drain: that of this Node, which began then.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DrainId {
    /// The Node.
    pub node: NodeId,
    /// When it began, as in its order.
    pub started_at: Timestamp,
}

/// What all drains of one process have evicted and not yet given account of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// Whether each drain is over.
    drains: BTreeMap<DrainId, bool>,
    /// By UID of the Pod: the UID of its workload.
    evicted: BTreeMap<Uid, Uid>,
    /// Of the Pods in `evicted`, by UID.
    workloads: BTreeMap<Uid, Followed>,
    /// Replacements that a drain has given account of, and until when they are remembered.
    spent: BTreeMap<Uid, Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Evicted {
    drain: DrainId,
    /// The first request that may have been the one that took place.
    asked_at: Timestamp,
    /// Nobody waits for its replacement any longer then.
    until: Timestamp,
    /// The request was accepted.
    accepted: bool,
}

impl Evicted {
    /// From then on its workload is looked at, even though the drain still runs: well before the end of
    /// the wait, however short that is.
    fn follow_at(&self) -> Timestamp {
        let wait = since(self.asked_at, self.until) / 2;
        after(self.asked_at, wait.min(FOLLOW_AFTER))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Followed {
    namespace: String,
    owner: Owner,
    /// By UID of the Pod.
    evicted: BTreeMap<Uid, Evicted>,
    /// No more than there are evicted Pods of it.
    replicas: BTreeMap<Uid, Replica>,
    /// It has all that it asks for, or is gone: no further replacement will come.
    has_all: bool,
    /// Why it is not known how it stands with it.
    problem: Option<String>,
}

impl Moves {
    /// Notes that a request is being made for this Pod, whose replacement is waited for until `pod_deadline`
    /// from now. Pods that nobody starts again have none.
    pub fn sent(&mut self, drain: &DrainId, pod: &PodFacts, at: Timestamp, pod_deadline: Duration) {
        let Ok(Some(owner)) = &pod.workload else {
            return;
        };
        let full = self.evicted.len() >= EVICTED_MAX;
        if pod.daemon_set_gone || full || self.evicted.contains_key(&pod.id.uid) {
            return;
        }
        self.drains.insert(drain.clone(), false);
        self.evicted.insert(pod.id.uid.clone(), owner.uid.clone());
        let followed = self.workloads.entry(owner.uid.clone());
        let followed = followed.or_insert_with(|| Followed {
            namespace: pod.id.namespace.clone(),
            owner: owner.clone(),
            evicted: BTreeMap::new(),
            replicas: BTreeMap::new(),
            has_all: false,
            problem: Some("it was not looked at in time".to_owned()),
        });
        // That was before this Pod was to go.
        followed.has_all = false;
        let evicted = Evicted {
            drain: drain.clone(),
            asked_at: at,
            until: after(at, pod_deadline),
            accepted: false,
        };
        followed.evicted.insert(pod.id.uid.clone(), evicted);
    }

    /// Notes that the request was not made after all, and none before it.
    pub fn withheld(&mut self, pod: &PodId) {
        self.forget(&pod.uid);
    }

    /// Notes the answer to a request.
    pub fn answered(&mut self, pod: &PodId, answer: &Answer) {
        match answer {
            Answer::Accepted => {
                if let Some(evicted) = self.of(&pod.uid) {
                    evicted.accepted = true;
                }
            }
            // The request may have taken place.
            Answer::Lost { .. } | Answer::Failed { .. } => {}
            Answer::Gone
            | Answer::NamespaceTerminating
            | Answer::BlockedByBudget { .. }
            | Answer::Throttled { .. }
            | Answer::OverlappingBudgets { .. }
            | Answer::WebhookDenied { .. }
            | Answer::Forbidden { .. } => {
                if self.of(&pod.uid).is_some_and(|evicted| !evicted.accepted) {
                    self.forget(&pod.uid);
                }
            }
        }
    }

    /// Takes in how it stands with a workload.
    pub fn see(&mut self, workload: &Uid, now: &Result<Workload, String>) {
        let Some(followed) = self.workloads.get_mut(workload) else {
            return;
        };
        match now {
            Ok(seen) => followed.see(seen, &self.spent),
            Err(problem) => followed.problem = Some(problem.clone()),
        }
    }

    /// Notes that this drain sends nothing more. It is given account of when the last replacement is Ready,
    /// or is not waited for any longer.
    pub fn over(&mut self, drain: &DrainId) {
        if let Some(over) = self.drains.get_mut(drain) {
            *over = true;
        }
    }

    /// The workloads that have to be looked at, with their namespaces: whose replacements are awaited, once the
    /// drain is over or some time has passed. Those that have waited longest come first.
    pub fn awaited(&self, now: Timestamp) -> Vec<(&str, &Owner)> {
        let awaited = self.workloads.values().filter_map(|followed| {
            let over = |drain: &DrainId| self.drains.get(drain).is_some_and(|over| *over);
            let since = followed.awaited_since(now, over)?;
            Some((since, followed))
        });
        let mut awaited: Vec<(Timestamp, &Followed)> = awaited.collect();
        awaited.sort_by_key(|(since, followed)| (*since, &followed.owner.uid));
        let each = awaited.into_iter().map(|(_, followed)| followed);
        each.map(|followed| (followed.namespace.as_str(), &followed.owner))
            .collect()
    }

    /// When the next replacement is not waited for any longer, or has to be looked for.
    pub fn wake_at(&self, now: Timestamp) -> Option<Timestamp> {
        let each = self.workloads.values().flat_map(|of| of.evicted.values());
        each.flat_map(|evicted| [evicted.follow_at(), evicted.until])
            .filter(|at| now < *at)
            .min()
    }

    /// Gives account of the drains that are over and wait for no replacement any more, and forgets them.
    pub fn settle(&mut self, now: Timestamp) -> Vec<Moved> {
        self.spent.retain(|_, until| now < *until);
        let over = self.drains.iter().filter(|(_, over)| **over);
        let over: Vec<DrainId> = over.map(|(drain, _)| drain.clone()).collect();
        over.iter()
            .filter_map(|drain| self.settle_one(drain, now))
            .collect()
    }

    fn settle_one(&mut self, drain: &DrainId, now: Timestamp) -> Option<Moved> {
        let mut account = Account::default();
        let mut spent = Vec::new();
        for (workload, followed) in &self.workloads {
            let pods = followed.evicted.iter();
            let mut pods = pods
                .filter(|(_, evicted)| evicted.drain == *drain && evicted.accepted)
                .peekable();
            if pods.peek().is_none() {
                continue;
            }
            let credits = followed.credits(|evicted| evicted.accepted);
            let mut moved = MovedWorkload::new(followed);
            for (pod, evicted) in pods {
                match credits.get(pod) {
                    Some((uid, replica)) => {
                        account.credit(&mut moved, evicted, replica);
                        spent.push((workload.clone(), (*uid).clone()));
                    }
                    None if followed.has_all => moved.unneeded += 1,
                    None if now < evicted.until => return None,
                    None if followed.problem.is_some() => {
                        moved.problem.clone_from(&followed.problem);
                        moved.unseen += 1;
                    }
                    None => {
                        moved.missing += 1;
                        account.waited = account.waited.max(since(evicted.asked_at, evicted.until));
                    }
                }
            }
            account.workloads.push(moved);
        }
        for (workload, uid) in spent {
            if let Some(followed) = self.workloads.get_mut(&workload) {
                followed.replicas.remove(&uid);
            }
            self.spent.insert(uid, after(now, SPENT_FOR));
        }
        self.drains.remove(drain);
        for followed in self.workloads.values_mut() {
            followed
                .evicted
                .retain(|_, evicted| evicted.drain != *drain);
        }
        self.tidy();
        account.moved(drain)
    }

    fn of(&mut self, pod: &Uid) -> Option<&mut Evicted> {
        let workload = self.evicted.get(pod)?;
        self.workloads.get_mut(workload)?.evicted.get_mut(pod)
    }

    fn forget(&mut self, pod: &Uid) {
        let Some(workload) = self.evicted.remove(pod) else {
            return;
        };
        if let Some(followed) = self.workloads.get_mut(&workload) {
            followed.evicted.remove(pod);
            if followed.evicted.is_empty() {
                self.workloads.remove(&workload);
            }
        }
    }

    /// Forgets what no evicted Pod needs any more.
    fn tidy(&mut self) {
        self.workloads
            .retain(|_, followed| !followed.evicted.is_empty());
        let workloads = &self.workloads;
        self.evicted.retain(|pod, workload| {
            let followed = workloads.get(workload);
            followed.is_some_and(|followed| followed.evicted.contains_key(pod))
        });
        let left = workloads.values().flat_map(|of| of.evicted.values());
        let drains: BTreeSet<&DrainId> = left.map(|evicted| &evicted.drain).collect();
        self.drains.retain(|drain, _| drains.contains(drain));
    }
}

impl Followed {
    fn see(&mut self, seen: &Workload, spent: &BTreeMap<Uid, Timestamp>) {
        self.problem = None;
        let stays = |pod: &&Uid| !self.evicted.contains_key(*pod);
        let left = seen.ready.iter().filter(stays).count();
        let wanted = seen.wanted.and_then(|wanted| usize::try_from(wanted).ok());
        self.has_all = seen.over || wanted.is_some_and(|wanted| left >= wanted);
        for (uid, replica) in &seen.fresh {
            // One that was asked to go before it was Ready is in nobody's place.
            let itself = self.evicted.get(uid);
            let goes = itself.is_some_and(|own| own.asked_at <= replica.replaces_until());
            if goes || spent.contains_key(uid) {
                continue;
            }
            let known = self.replicas.entry(uid.clone());
            known
                .and_modify(|known| {
                    known.appeared_at = known.appeared_at.min(replica.appeared_at);
                    known.ready_at = known.ready_at.min(replica.ready_at);
                })
                .or_insert_with(|| replica.clone());
        }
        // What stands for nobody now is older than anything that will yet be asked to go.
        let credits = self.credits(|_| true);
        let needed: BTreeSet<Uid> = credits.into_values().map(|(uid, _)| uid.clone()).collect();
        self.replicas.retain(|uid, _| needed.contains(uid));
    }

    /// Since when a replacement is awaited, if one is.
    fn awaited_since(&self, now: Timestamp, over: impl Fn(&DrainId) -> bool) -> Option<Timestamp> {
        if self.has_all {
            return None;
        }
        let credits = self.credits(|evicted| evicted.accepted);
        let waits = self.evicted.iter().filter(|(pod, evicted)| {
            evicted.accepted
                && now < evicted.until
                && (evicted.follow_at() <= now || over(&evicted.drain))
                && !credits.contains_key(*pod)
        });
        waits.map(|(_, evicted)| evicted.asked_at).min()
    }

    /// Which Ready Pod stands for which evicted one of a workload: for each, from the one that was asked
    /// last, the first that became Ready of those that came up after its request. The later a request, the
    /// fewer may stand for it, so that in this order as many as possible are found.
    fn credits(&self, counts: impl Fn(&Evicted) -> bool) -> BTreeMap<&Uid, (&Uid, &Replica)> {
        let evicted = self.evicted.iter().filter(|(_, evicted)| counts(evicted));
        let mut evicted: Vec<(&Uid, &Evicted)> = evicted.collect();
        evicted.sort_by_key(|(pod, evicted)| std::cmp::Reverse((evicted.asked_at, *pod)));
        let mut replicas: Vec<(&Uid, &Replica)> = self.replicas.iter().collect();
        replicas.sort_by_key(|(uid, replica)| (replica.replaces_until(), *uid));
        let mut free: BTreeMap<(Timestamp, &Uid), &Replica> = BTreeMap::new();
        let mut credits = BTreeMap::new();
        for (pod, evicted) in evicted {
            while let Some((uid, replica)) =
                replicas.pop_if(|(_, replica)| evicted.asked_at <= replica.replaces_until())
            {
                free.insert((replica.ready_at, uid), replica);
            }
            if let Some(((_, uid), replica)) = free.pop_first() {
                credits.insert(pod, (uid, replica));
            }
        }
        credits
    }
}

/// A drain's account while it is being made.
#[derive(Debug, Default)]
struct Account {
    first_asked_at: Option<Timestamp>,
    last_ready_at: Option<Timestamp>,
    waited: Duration,
    replacements: Vec<Duration>,
    workloads: Vec<MovedWorkload>,
}

impl Account {
    fn credit(&mut self, moved: &mut MovedWorkload, evicted: &Evicted, replica: &Replica) {
        let (asked_at, ready_at) = (evicted.asked_at, replica.ready_at);
        self.first_asked_at = Some(self.first_asked_at.map_or(asked_at, |at| at.min(asked_at)));
        self.last_ready_at = self.last_ready_at.max(Some(ready_at));
        let took = since(asked_at, ready_at);
        self.replacements.push(took);
        moved.longest = moved.longest.max(took);
        *moved.to.entry(replica.node.clone()).or_default() += 1;
    }

    /// `None` where nothing was evicted that anybody starts again.
    fn moved(mut self, drain: &DrainId) -> Option<Moved> {
        if self.workloads.is_empty() {
            return None;
        }
        self.workloads.sort_by(|a, b| a.name().cmp(&b.name()));
        self.replacements.sort();
        let took = self.first_asked_at.zip(self.last_ready_at);
        Some(Moved {
            drain: drain.clone(),
            took: took.map_or(Duration::ZERO, |(first, last)| since(first, last)),
            waited: self.waited,
            replacements: self.replacements,
            workloads: self.workloads,
        })
    }
}

/// Where the Pods of a drain went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Which drain.
    pub drain: DrainId,
    /// From the first request to the last replacement that became Ready.
    pub took: Duration,
    /// How long was waited for those that did not.
    pub waited: Duration,
    /// From each request to the replacement's being Ready, the shortest first.
    pub replacements: Vec<Duration>,
    /// Workload by workload, by namespace, kind and name.
    pub workloads: Vec<MovedWorkload>,
}

/// Where the Pods of one workload went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedWorkload {
    /// Its namespace.
    pub namespace: String,
    /// Which workload.
    pub owner: Owner,
    /// Replacements that became Ready, by Node.
    pub to: BTreeMap<NodeName, u32>,
    /// The longest time from a request to the replacement's being Ready.
    pub longest: Duration,
    /// Evicted Pods without a Ready replacement when it was not waited for any longer.
    pub missing: u32,
    /// Evicted Pods that needed none: the workload has all that it asks for, or is gone.
    pub unneeded: u32,
    /// Evicted Pods of which it is not known, for the reason in `problem`.
    pub unseen: u32,
    /// Why the workload could not be looked at.
    pub problem: Option<String>,
}

impl MovedWorkload {
    fn new(followed: &Followed) -> Self {
        Self {
            namespace: followed.namespace.clone(),
            owner: followed.owner.clone(),
            to: BTreeMap::new(),
            longest: Duration::ZERO,
            missing: 0,
            unneeded: 0,
            unseen: 0,
            problem: None,
        }
    }

    fn name(&self) -> (&str, &str, &str) {
        (&self.namespace, &self.owner.kind, &self.owner.name)
    }

    /// Replacements that became Ready.
    pub fn moved(&self) -> u32 {
        self.to.values().sum()
    }

    /// All Pods of it that were evicted.
    pub fn evicted(&self) -> u32 {
        self.moved() + self.missing + self.unneeded + self.unseen
    }
}

impl Moved {
    /// Replacements that became Ready.
    pub fn moved(&self) -> u32 {
        self.workloads.iter().map(MovedWorkload::moved).sum()
    }

    /// Evicted Pods without a Ready replacement.
    pub fn missing(&self) -> u32 {
        self.workloads.iter().map(|workload| workload.missing).sum()
    }

    /// Evicted Pods that needed no replacement.
    pub fn unneeded(&self) -> u32 {
        let each = self.workloads.iter().map(|workload| workload.unneeded);
        each.sum()
    }

    /// Evicted Pods of which it is not known.
    pub fn unseen(&self) -> u32 {
        self.workloads.iter().map(|workload| workload.unseen).sum()
    }

    /// All Pods of workloads that were evicted.
    pub fn evicted(&self) -> u32 {
        self.workloads.iter().map(MovedWorkload::evicted).sum()
    }

    /// Replacements that became Ready, by Node; the Node with the most first.
    pub fn to(&self) -> Vec<(&NodeName, u32)> {
        let mut to: BTreeMap<&NodeName, u32> = BTreeMap::new();
        for (node, count) in self.workloads.iter().flat_map(|workload| &workload.to) {
            *to.entry(node).or_default() += count;
        }
        let mut to: Vec<(&NodeName, u32)> = to.into_iter().collect();
        to.sort_by_key(|(node, count)| (std::cmp::Reverse(*count), *node));
        to
    }
}

/// One sentence: `moved 4 Pods from worker-02 to worker-01 (3), worker-03 (1) in 8.2 s`.
impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (node, moved, evicted) = (&self.drain.node.name, self.moved(), self.evicted());
        if moved > 0 {
            let to = listed(self.to(), NODES_NAMED, |(node, n)| format!("{node} ({n})"));
            let took = words(self.took);
            write!(f, "moved {} from {node} to {to} in {took}", pods(moved))?;
        } else {
            write!(f, "{} evicted from {node}", pods(evicted))?;
        }
        if self.missing() > 0 {
            let (missing, waited) = (self.missing(), words(self.waited));
            let whose = self.named(|workload| workload.missing > 0);
            let after = format!("not Ready again after {waited}");
            write!(f, "; {missing} of {evicted} {after}: {whose}")?;
        }
        if self.unseen() > 0 {
            let whose = self.named(|workload| workload.unseen > 0);
            let problem = self
                .workloads
                .iter()
                .find_map(|each| each.problem.as_deref());
            let problem = problem.unwrap_or_default();
            let unseen = self.unseen();
            write!(
                f,
                "; {unseen} of {evicted} could not be followed: {whose}: {problem}"
            )?;
        }
        if self.unneeded() > 0 {
            write!(
                f,
                "; {} of {evicted} needed no replacement",
                self.unneeded()
            )?;
        }
        Ok(())
    }
}

impl Moved {
    fn named(&self, which: impl Fn(&&MovedWorkload) -> bool) -> String {
        let whose = self.workloads.iter().filter(which).collect();
        listed(whose, WORKLOADS_NAMED, |each| {
            format!("{} {}/{}", each.owner.kind, each.namespace, each.owner.name)
        })
    }
}

fn pods(count: u32) -> String {
    format!("{count} Pod{}", if count == 1 { "" } else { "s" })
}

pub(super) fn listed<T>(items: Vec<T>, named: usize, name: impl Fn(&T) -> String) -> String {
    let more = items.len().saturating_sub(named);
    let named: Vec<String> = items.iter().take(named).map(name).collect();
    let named = named.join(", ");
    if more > 0 {
        format!("{named} and {more} more")
    } else {
        named
    }
}

/// `8.2 s`, `15 min`, `2 min 5 s`, `1 h 30 min`.
pub(super) fn words(duration: Duration) -> String {
    let tenths = (duration.as_millis() + 50) / 100;
    let seconds = (duration.as_millis() + 500) / 1000;
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (first, second) = if tenths < 600 {
        let tenth = (!tenths.is_multiple_of(10)).then(|| format!(".{}", tenths % 10));
        return format!("{}{} s", tenths / 10, tenth.unwrap_or_default());
    } else if hours > 0 {
        ((hours, "h"), (minutes % 60, "min"))
    } else {
        ((minutes, "min"), (seconds % 60, "s"))
    };
    let rest = (second.0 > 0).then(|| format!(" {} {}", second.0, second.1));
    format!("{} {}{}", first.0, first.1, rest.unwrap_or_default())
}
