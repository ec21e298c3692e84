//! Whether a drain may start beside the drains that run: budgets that they would share, and room for the
//! Pods on the Nodes that are left.
//!
//! It is looked at only where nothing else holds the drain, since it costs requests: the Pods of the Nodes
//! that are left are read for it, a few Nodes at a time until they suffice.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::evidence::Evidence;
use super::policy::Policy;
use super::verdict::{Hold, HoldReason};
use super::world::{Fact, NodeFacts, World};
use crate::drain::{Disposition, DrainOrder, PodFacts, classify};
use crate::node::NodeName;
use crate::record::Taint;
use crate::risk::Band;
use crate::room::{Going, NoPlace, Place, Survivor, choose, place};
use crate::time::{after, since};

/// So many more Nodes are looked at when those so far do not suffice; also what the shell reads at once.
const STEP: usize = 4;
/// So many are looked at for one drain at most: Pods of 32 Nodes are about a thousand, read within
/// seconds.
const SURVIVORS_MAX: usize = 32;
/// A drain without room looks at other Nodes after this, where there are more than it may look at.
const TURN: i64 = 600;
/// So many Pods are named in a hold.
const NAMED_MAX: usize = 5;

/// What came of looking.
pub(super) enum Look {
    /// Nothing stands in the way; this is where the Pods fit.
    Free(Vec<Place>),
    /// Something does.
    Held(Hold),
}

/// The Nodes as the plan so far leaves them.
pub(super) struct After<'w, 'p> {
    pub(super) policy: &'w Policy,
    pub(super) world: &'w World,
    pub(super) evidence: &'p BTreeMap<NodeName, Evidence>,
    /// With our taint.
    pub(super) tainted: &'p BTreeSet<NodeName>,
    /// Being drained.
    pub(super) draining: &'p BTreeSet<NodeName>,
    /// Our taints that this plan removes.
    pub(super) freed: &'p BTreeMap<NodeName, Vec<Taint>>,
    /// When this plan says that a drain ended.
    pub(super) ended: Option<Timestamp>,
}

/// Looks for room, for one drain after the other.
pub(super) struct Looking<'a> {
    /// Nodes that may take Pods, in the order in which they are looked at; found when first needed.
    survivors: Option<Vec<&'a NodeFacts>>,
    /// Nodes whose Pods have to be known, none of them read before then.
    pub(super) wants: BTreeMap<NodeName, Timestamp>,
}

impl<'a> Looking<'a> {
    pub(super) fn new() -> Self {
        Self {
            survivors: None,
            wants: BTreeMap::new(),
        }
    }

    /// Whether the drain of this Node may start.
    pub(super) fn look(&mut self, now: &After<'a, '_>, name: &NodeName) -> Look {
        let Some(node) = now.world.nodes.get(name) else {
            return Look::Free(Vec::new());
        };
        let Some(pods) = now.pods(node) else {
            return held(HoldReason::FactsUnknown, "its Pods are not known yet", None);
        };
        let leaving: Vec<&PodFacts> = now.leaving(pods).collect();
        if leaving.is_empty() {
            return Look::Free(Vec::new());
        }
        let mut others = Vec::new();
        for other in now.draining.iter().filter(|other| *other != name) {
            let Some(other) = now.world.nodes.get(other) else {
                continue;
            };
            let Some(pods) = now.pods(other) else {
                let detail = format!(
                    "the Pods of {}, which is being drained, are not known yet",
                    other.id
                );
                return held(HoldReason::FactsUnknown, detail, None);
            };
            others.push((other, pods));
        }
        if let Some(hold) = shared_budget(now, &leaving, &others) {
            return Look::Held(hold);
        }
        let then = going(node, leaving.iter().copied());
        if then.is_empty() {
            return Look::Free(Vec::new());
        }
        let first: Vec<Going<'_>> = others
            .iter()
            .flat_map(|(other, pods)| going(other, now.leaving(pods)))
            .collect();
        self.room(now, &first, &then)
    }

    /// Looks at the Nodes that are left, a few at a time, until the Pods fit.
    fn room(&mut self, now: &After<'a, '_>, first: &[Going<'_>], then: &[Going<'_>]) -> Look {
        let from = now.settled();
        if from > now.world.at {
            let detail = "Pods of a drain that has just ended may not have their Nodes yet";
            return held(HoldReason::FactsUnknown, detail, Some(from));
        }
        let survivors = self.survivors.get_or_insert_with(|| now.survivors());
        let bare: Vec<Survivor<'_>> = survivors
            .iter()
            .map(|node| now.survivor(node, &[]))
            .collect();
        let chosen: Vec<&NodeFacts> = match choose(&bare, then, SURVIVORS_MAX) {
            Ok(chosen) => chosen.into_iter().map(|at| survivors[at]).collect(),
            Err(barred) => return no_room(survivors.len(), &barred),
        };
        let mut upto = 0;
        let without: Vec<NoPlace> = loop {
            upto = (upto + STEP).min(chosen.len());
            let looked_at = &chosen[..upto];
            let mut known = Vec::with_capacity(upto);
            for node in looked_at {
                self.wants.insert(node.id.name.clone(), from);
                if let Some(pods) = now.pods_since(node, from) {
                    known.push(now.survivor(node, pods));
                }
            }
            if known.len() < looked_at.len() {
                let detail = format!(
                    "looking for room: the Pods of {} of {} other Nodes are known",
                    known.len(),
                    looked_at.len()
                );
                return held(HoldReason::FactsUnknown, detail, None);
            }
            let placement = place(&known, first, then);
            if placement.without.is_empty() {
                return Look::Free(placement.places);
            }
            if upto == chosen.len() {
                break placement.without;
            }
        };
        no_room(chosen.len(), &without)
    }
}

fn no_room(looked_at: usize, without: &[NoPlace]) -> Look {
    let named: Vec<String> = without
        .iter()
        .take(NAMED_MAX)
        .map(ToString::to_string)
        .collect();
    let more = match without.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let detail = format!(
        "{looked_at} other Nodes were looked at and have no room for {}{more}",
        named.join("; ")
    );
    held(HoldReason::NoRoom, detail, None)
}

fn held(reason: HoldReason, detail: impl Into<String>, until: Option<Timestamp>) -> Look {
    Look::Held(Hold {
        reason,
        detail: detail.into(),
        until,
    })
}

/// Those that somebody starts again elsewhere.
fn going<'a>(from: &'a NodeFacts, pods: impl Iterator<Item = &'a PodFacts>) -> Vec<Going<'a>> {
    pods.filter(|pod| pod.comes_back())
        .map(|pod| Going {
            pod,
            from: &from.labels,
        })
        .collect()
}

fn shared_budget(
    now: &After<'_, '_>,
    leaving: &[&PodFacts],
    others: &[(&NodeFacts, &[PodFacts])],
) -> Option<Hold> {
    for (other, pods) in others {
        let theirs: BTreeSet<(&str, &str)> = now.leaving(pods).flat_map(budgets).collect();
        let shared = leaving
            .iter()
            .flat_map(|pod| budgets(pod))
            .find(|budget| theirs.contains(budget));
        if let Some((namespace, budget)) = shared {
            return Some(Hold {
                reason: HoldReason::SharedBudget,
                detail: format!(
                    "{} goes first: Pods of both are under PodDisruptionBudget {namespace}/{budget}",
                    other.id
                ),
                until: None,
            });
        }
    }
    None
}

fn budgets(pod: &PodFacts) -> impl Iterator<Item = (&str, &str)> {
    pod.budgets
        .iter()
        .map(|budget| (pod.id.namespace.as_str(), budget.name.as_str()))
}

impl<'w> After<'w, '_> {
    fn pods(&self, node: &'w NodeFacts) -> Option<&'w [PodFacts]> {
        let pods = node.pods.fresh(self.world.at, self.policy.facts_age_max)?;
        Some(pods.as_slice())
    }

    /// The Pods of a Node, read at `from` or later.
    fn pods_since(&self, node: &'w NodeFacts, from: Timestamp) -> Option<&'w [PodFacts]> {
        match &node.pods {
            Fact::Known(at, _) if *at < from => None,
            Fact::Known(..) | Fact::Assumed(_) | Fact::Unknown => self.pods(node),
        }
    }

    fn leaving<'b>(&'b self, pods: &'b [PodFacts]) -> impl Iterator<Item = &'b PodFacts> {
        pods.iter()
            .filter(|pod| classify(pod, &self.policy.drain) == Disposition::Evict)
    }

    /// Pods that left a Node before this have their new Nodes by now, so that they are seen there. What
    /// was read earlier would show the room that they have taken since.
    fn settled(&self) -> Timestamp {
        let drains = self.world.nodes.values().filter_map(|node| {
            let (ended, _) = node.record.ours()?.drain.as_ref()?.ended?;
            let recent = since(ended, self.world.at) <= self.policy.facts_age_max;
            recent.then(|| after(ended, DrainOrder::SCHEDULER_LAG))
        });
        let now = self
            .ended
            .map(|ended| after(ended, DrainOrder::SCHEDULER_LAG));
        let running =
            self.draining
                .iter()
                .filter_map(|name| match self.world.nodes.get(name)?.pods {
                    Fact::Known(at, _) => Some(at),
                    Fact::Assumed(_) | Fact::Unknown => None,
                });
        drains
            .chain(now)
            .chain(running)
            .max()
            .unwrap_or(Timestamp::MIN)
    }

    /// Nodes that may take Pods: Ready, schedulable, without our taint, not at risk. Where there are more
    /// than may be looked at, another part of them has its turn every ten minutes; those in the caution
    /// band come last.
    fn survivors(&self) -> Vec<&'w NodeFacts> {
        let takes = |node: &&NodeFacts| {
            node.ready
                && !node.cordoned
                && node.taken_by.is_none()
                && !self.tainted.contains(&node.id.name)
        };
        let band = |node: &NodeFacts| {
            self.evidence
                .get(&node.id.name)
                .map(|evidence| evidence.band)
        };
        let (mut first, last): (Vec<_>, Vec<_>) = self
            .world
            .nodes
            .values()
            .filter(takes)
            .filter(|node| band(node) != Some(Band::AtRisk))
            .partition(|node| band(node) != Some(Band::Caution));
        if first.len() > SURVIVORS_MAX {
            let turn = self
                .world
                .at
                .as_second()
                .div_euclid(TURN)
                .rem_euclid(1 << 20);
            let turn = usize::try_from(turn).unwrap_or(0);
            let by = turn * SURVIVORS_MAX % first.len();
            first.rotate_left(by);
        }
        first.extend(last);
        first
    }

    fn survivor<'b>(&'b self, node: &'b NodeFacts, pods: &'b [PodFacts]) -> Survivor<'b> {
        let freed = self.freed.get(&node.id.name);
        Survivor {
            name: &node.id.name,
            labels: &node.labels,
            taints: node
                .taints
                .iter()
                .filter(|taint| freed.is_none_or(|freed| !freed.contains(taint)))
                .collect(),
            allocatable: &node.allocatable,
            pods,
        }
    }
}
