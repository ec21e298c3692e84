//! Make before break: one Pod of a workload at a time.
//!
//! A Pod under a PodDisruptionBudget follows its budget. Of any other workload at most one Pod is on its
//! way at a time, across all drains of this process; the next goes when the workload has as many Ready Pods
//! as it asks for, or as it had before, whichever is less.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::{Answer, Owner, PodFacts, PodId, Replica};
use crate::node::{NodeName, Uid};
use crate::time::after;

/// What holds back the next Pod of a workload; `eviction.pace` in the TOML.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// Its PodDisruptionBudget; without one, the replacement of the Pod before.
    #[default]
    Owner,
    /// PodDisruptionBudgets alone.
    Budget,
}

/// How it stands with one workload: the Deployment, StatefulSet, Job … that Pods belong to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Pods that it asks for now; `None` where its kind does not say.
    pub wanted: Option<u32>,
    /// Its Pods, on any Node, that are Ready and not terminating.
    pub ready: BTreeSet<Uid>,
    /// The Nodes that those run on, as far as they are known.
    pub on: BTreeMap<Uid, NodeName>,
    /// Of those, the ones that became Ready lately, where it is known of them.
    pub fresh: BTreeMap<Uid, Replica>,
    /// It is gone or finished: nobody waits for a replacement.
    pub over: bool,
}

/// What all drains of one process know of the workloads of their Pods, and what they have asked of them.
///
/// A Pod that was asked to go counts as not Ready from then on, so that a watch that lags cannot let a
/// second one go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workloads {
    /// By UID of the workload; `Err` says why it could not be looked at.
    facts: BTreeMap<Uid, Result<Workload, String>>,
    /// By UID of the Pod.
    asked: BTreeMap<Uid, Asked>,
    /// Ready Pods before anything was asked of the workload.
    before: BTreeMap<Uid, u32>,
    /// Nobody before us can have evicted Pods whose replacements are still awaited.
    settled_before: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    workload: Uid,
    at: Timestamp,
    /// The request was accepted, or the Pod found gone.
    going: bool,
}

/// Whether a Pod's turn has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Now,
    /// Not yet, for this reason; since then, if another Pod of the workload was asked to go.
    Waits(Option<Timestamp>, String),
}

impl Workloads {
    /// Says whether what is seen of a workload at first is what it had before any drain: not so for a
    /// process that may have followed upon another in the middle of one.
    pub fn trust(&mut self, settled_before: bool) {
        self.settled_before = settled_before;
    }

    /// Takes in how it stands with a workload.
    pub fn see(&mut self, workload: &Uid, now: Result<Workload, String>) {
        if let Ok(seen) = &now {
            let asked = || {
                self.asked
                    .iter()
                    .filter(|(_, asked)| asked.workload == *workload)
            };
            // Those that were asked to go without a look at their workload were there before.
            let gone = asked().filter(|(pod, _)| !seen.ready.contains(*pod));
            let ready = count(seen.ready.len() + gone.count());
            let had = match seen.wanted {
                Some(wanted) if !self.settled_before => ready.max(wanted),
                Some(_) | None => ready,
            };
            let before = match self.before.get(workload) {
                None => had,
                // What is remembered may be old: it has grown since, and nothing was asked of it. Where
                // its kind does not say how many it asks for, a moment with one too many would be waited
                // for in vain.
                Some(known) if seen.wanted.is_some() && asked().next().is_none() => had.max(*known),
                Some(known) => *known,
            };
            self.before.insert(workload.clone(), before);
        }
        self.facts.insert(workload.clone(), now);
    }

    /// Forgets how it stood with a workload that is not seen at present: it may be otherwise by now.
    pub fn unsee(&mut self, workload: &Uid) {
        self.facts.remove(workload);
    }

    /// Forgets what was asked so long ago that nobody waits for it any more.
    pub fn expire(&mut self, now: Timestamp, pod_deadline: Duration) {
        self.asked
            .retain(|_, asked| now < after(asked.at, pod_deadline));
    }

    /// The workloads that have to be looked at before these Pods, which are to go, can have their turns:
    /// one of which a single Pod goes, and none is awaited, need not, nor one whose Pods are all going already.
    /// Those of which most Pods go come first: their Pods go one after the other.
    pub fn to_look_at<'a>(
        &self,
        going: impl Iterator<Item = &'a PodFacts>,
    ) -> Vec<(&'a str, &'a Owner)> {
        let mut pods: BTreeMap<&Uid, (usize, &PodFacts, bool)> = BTreeMap::new();
        for pod in going {
            if let Some(workload) = paced_by(pod) {
                let (count, _, stays) = pods.entry(workload).or_insert((0, pod, false));
                *count += 1;
                *stays |= pod.terminating_until.is_none();
            }
        }
        let needed = pods.into_iter().filter(|(workload, (count, pod, stays))| {
            let unseen = *count == 1 && self.goes_unseen(pod, workload);
            *stays && (!unseen || self.facts.contains_key(*workload))
        });
        let mut needed: Vec<_> = needed.collect();
        needed.sort_by_key(|(_, (count, _, _))| Reverse(*count));
        needed
            .into_iter()
            .filter_map(|(_, (_, pod, _))| Some((pod.id.namespace.as_str(), workload_of(pod)?)))
            .collect()
    }

    /// Whether the only Pod of its workload that is to go may do so without a look at the workload.
    fn goes_unseen(&self, pod: &PodFacts, workload: &Uid) -> bool {
        let others = self
            .asked
            .iter()
            .any(|(uid, asked)| asked.workload == *workload && *uid != pod.id.uid);
        let says_how_many = workload_of(pod).is_some_and(|owner| {
            matches!(
                (owner.group.as_str(), owner.kind.as_str()),
                ("apps", "Deployment" | "ReplicaSet" | "StatefulSet")
                    | ("", "ReplicationController")
                    | ("batch", "Job")
            )
        });
        // What is remembered is of an earlier drain whose replacements never came.
        let remembered = self.before.contains_key(workload);
        self.settled_before && says_how_many && !others && !remembered
    }

    /// What is seen of a workload, if it is looked at.
    pub(super) fn seen(&self, workload: &Uid) -> Option<&Result<Workload, String>> {
        self.facts.get(workload)
    }

    /// Notes that a request is being made for this Pod.
    pub fn sent(&mut self, pod: &PodFacts, at: Timestamp) {
        if let Some(workload) = paced_by(pod) {
            let asked = Asked {
                workload: workload.clone(),
                at,
                going: false,
            };
            // Each request may be the one that takes place, so the last one counts.
            let entry = self.asked.entry(pod.id.uid.clone());
            entry.and_modify(|asked| asked.at = at).or_insert(asked);
        }
    }

    /// Notes that the request was not made after all, and none before it.
    pub fn withheld(&mut self, pod: &PodId) {
        self.asked.remove(&pod.uid);
    }

    /// Notes the answer to a request.
    pub fn answered(&mut self, pod: &PodId, answer: &Answer) {
        match answer {
            Answer::Accepted | Answer::Gone | Answer::NamespaceTerminating => {
                if let Some(asked) = self.asked.get_mut(&pod.uid) {
                    asked.going = true;
                }
            }
            // The request may have taken place.
            Answer::Lost { .. } | Answer::Failed { .. } => {}
            // It stays, and another of its workload may go in its place.
            Answer::BlockedByBudget { .. }
            | Answer::Throttled { .. }
            | Answer::OverlappingBudgets { .. }
            | Answer::WebhookDenied { .. }
            | Answer::Forbidden { .. } => {
                self.asked.remove(&pod.uid);
            }
        }
    }

    /// Forgets what is settled, and what nobody waits for any more. `concerned` are the workloads of all
    /// Pods of running drains.
    ///
    /// A workload that never got its Pods back is remembered with what it had before, so that the next
    /// attempt does not take what is left for all there ever was.
    pub fn settle(&mut self, concerned: &BTreeSet<Uid>, now: Timestamp, pod_deadline: Duration) {
        self.expire(now, pod_deadline);
        let settled: Vec<Uid> = self
            .asked
            .iter()
            .filter(|(pod, asked)| {
                asked.going
                    && self.facts.get(&asked.workload).is_some_and(|fact| {
                        fact.as_ref().is_ok_and(|seen| {
                            seen.over
                                || (!seen.ready.contains(*pod)
                                    && self.ready_left(&asked.workload, seen)
                                        >= self.target(&asked.workload, seen))
                        })
                    })
            })
            .map(|(pod, _)| pod.clone())
            .collect();
        for pod in &settled {
            self.asked.remove(pod);
        }
        let asked: BTreeSet<&Uid> = self.asked.values().map(|asked| &asked.workload).collect();
        let has_all = |workload: &Uid| {
            self.facts.get(workload).is_some_and(|fact| {
                fact.as_ref().is_ok_and(|seen| {
                    seen.over || self.ready_left(workload, seen) >= self.target(workload, seen)
                })
            })
        };
        let kept: BTreeSet<Uid> = self
            .before
            .keys()
            .filter(|workload| {
                concerned.contains(*workload) || asked.contains(workload) || !has_all(workload)
            })
            .take(WORKLOADS_MAX)
            .cloned()
            .collect();
        self.before.retain(|workload, _| kept.contains(workload));
        let asked: BTreeSet<Uid> = asked.into_iter().cloned().collect();
        self.facts
            .retain(|workload, _| concerned.contains(workload) || asked.contains(workload));
    }

    /// The workloads of which something was asked that is not settled yet.
    pub fn unsettled(&self) -> impl Iterator<Item = &Uid> {
        self.asked.values().map(|asked| &asked.workload)
    }

    /// Whether this Pod may be asked to go now.
    pub(super) fn turn(&self, pod: &PodFacts, alone: bool) -> Turn {
        // It has had its turn already, and is asked again.
        if !is_paced(pod) || self.asked.contains_key(&pod.id.uid) {
            return Turn::Now;
        }
        let owner = match &pod.workload {
            Ok(Some(owner)) => owner,
            Ok(None) => return Turn::Now,
            Err(problem) => {
                let detail = format!("what it belongs to could not be looked at: {problem}");
                return Turn::Waits(None, detail);
            }
        };
        let (workload, name) = (&owner.uid, owner.to_string());
        let others = || {
            self.asked
                .iter()
                .filter(|(_, asked)| asked.workload == *workload)
        };
        let since = others().map(|(_, asked)| asked.at).max();
        let seen = match self.facts.get(workload) {
            Some(Ok(seen)) => seen,
            Some(Err(problem)) => {
                return Turn::Waits(since, format!("{name} could not be looked at: {problem}"));
            }
            None if alone && self.goes_unseen(pod, workload) => return Turn::Now,
            None => return Turn::Waits(since, format!("{name} is being looked at")),
        };
        if seen.over {
            return Turn::Now;
        }
        let (left, target) = (self.ready_left(workload, seen), self.target(workload, seen));
        let goes = others().any(|(pod, asked)| !asked.going || seen.ready.contains(pod));
        if goes || left < target {
            return Turn::Waits(since, format!("{name} has {left} of {target} Ready Pods"));
        }
        Turn::Now
    }

    /// Ready Pods, without those that were asked to go.
    fn ready_left(&self, workload: &Uid, seen: &Workload) -> u32 {
        let stays = |pod: &&Uid| {
            self.asked
                .get(*pod)
                .is_none_or(|asked| asked.workload != *workload)
        };
        count(seen.ready.iter().filter(stays).count())
    }

    /// As many as it asks for now, or as it had before, whichever is less.
    fn target(&self, workload: &Uid, seen: &Workload) -> u32 {
        let before = self.before.get(workload).copied();
        let before = before.unwrap_or_else(|| count(seen.ready.len()));
        seen.wanted.map_or(before, |wanted| wanted.min(before))
    }
}

/// Workloads without their Pods that are remembered at most.
const WORKLOADS_MAX: usize = 10_000;

/// The workload that paces a Pod: none where a budget does, or where it is not known.
pub fn paced_by(pod: &PodFacts) -> Option<&Uid> {
    let workload = workload_of(pod)?;
    is_paced(pod).then_some(&workload.uid)
}

/// No budget paces it, and somebody starts it again elsewhere.
fn is_paced(pod: &PodFacts) -> bool {
    pod.budgets.is_empty() && !pod.daemon_set_gone
}

fn workload_of(pod: &PodFacts) -> Option<&Owner> {
    pod.workload.as_ref().ok()?.as_ref()
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
