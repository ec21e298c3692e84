//! The alerts that are known, from the first word to their end or their expiry.
//!
//! Deliveries are states and come in any order: twice, late, from two replicas, the end before the
//! beginning. What is kept of each set of labels is the latest word that can be trusted.
//!
//! "Resolved" wins over a "firing" of the same start for [`AlertBook::LATE_FOR`]: a replica that is
//! behind, or a delivery that is repeated, would otherwise bring back an alert that has ended, and
//! hold a Node for hours. After that the same start may fire again, as it does when the way between
//! Prometheus and Alertmanager was cut for a while.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use foreshock_core::decision::policy::Reach;
use foreshock_core::node::NodeName;
use foreshock_core::record::ActingAlert;
use foreshock_core::risk::Risk;
use foreshock_core::time::{after, since};
use jiff::{SignedDuration, Timestamp};

use super::payload::{Alert, AlertStatus, Payload};
use super::rules::{AlertRules, NodeClue, NodeDirectory, NodeProblem};

/// What became of one alert of a delivery, and where a known one stands now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlertOutcome {
    /// It is evidence about its Node.
    Acting,
    /// No rule is about it: it is shown, and never acts.
    Shown,
    /// One of foreshock's own: counted, never evidence.
    Own,
    /// The label that decides names no Node.
    UnknownNode,
    /// No label that could name a Node is there, though a rule is about the alert.
    NoNodeLabel,
    /// The label that decides names several Nodes.
    AmbiguousNode,
    /// The Nodes are not known yet: kept, and looked at again when they are.
    NodesNotSynced,
    /// It fires since before its Node was created, so it means an earlier Node of that name.
    OlderThanNode,
    /// It has ended.
    Resolved,
    /// Said to fire, with an end that has passed.
    Expired,
    /// Nothing new; it counts for longer.
    Refreshed,
    /// Overtaken by a later word on the same alert.
    Late,
    /// It could not be read.
    Malformed,
    /// There is no room for it.
    Overflow,
    /// Left out by Alertmanager: unknown, not resolved.
    Truncated,
}

impl AlertOutcome {
    /// Every outcome.
    pub const ALL: [Self; 15] = [
        Self::Acting,
        Self::Shown,
        Self::Own,
        Self::UnknownNode,
        Self::NoNodeLabel,
        Self::AmbiguousNode,
        Self::NodesNotSynced,
        Self::OlderThanNode,
        Self::Resolved,
        Self::Expired,
        Self::Refreshed,
        Self::Late,
        Self::Malformed,
        Self::Overflow,
        Self::Truncated,
    ];

    /// The name in the API and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Acting => "acting",
            Self::Shown => "shown",
            Self::Own => "own",
            Self::UnknownNode => "unknown_node",
            Self::NoNodeLabel => "no_node_label",
            Self::AmbiguousNode => "ambiguous_node",
            Self::NodesNotSynced => "nodes_not_synced",
            Self::OlderThanNode => "older_than_node",
            Self::Resolved => "resolved",
            Self::Expired => "expired",
            Self::Refreshed => "refreshed",
            Self::Late => "late",
            Self::Malformed => "malformed",
            Self::Overflow => "overflow",
            Self::Truncated => "truncated",
        }
    }
}

impl std::fmt::Display for AlertOutcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One alert of a delivery, and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// The alert.
    pub alert: Alert,
    /// What became of it.
    pub outcome: AlertOutcome,
    /// The Node it means, where it means one.
    pub node: Option<NodeName>,
}

/// What became of one delivery.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// Each alert that could be read, in the order of the delivery.
    pub received: Vec<Received>,
    /// How many entries had which outcome, those without an alert included. For a webhook these are
    /// what `foreshock_alerts_received_total` counts.
    pub counts: BTreeMap<AlertOutcome, u64>,
}

impl Applied {
    /// Whether a decision made now could differ from the last one, so that the cycle is to be woken.
    pub fn is_news(&self) -> bool {
        [AlertOutcome::Acting, AlertOutcome::Resolved]
            .iter()
            .any(|outcome| self.counts.contains_key(outcome))
    }

    fn count(&mut self, outcome: AlertOutcome, n: u64) {
        if n > 0 {
            *self.counts.entry(outcome).or_default() += n;
        }
    }
}

/// An alert that fires, as the page shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct ShownAlert {
    /// Alertmanager's fingerprint, or our digest.
    pub fingerprint: String,
    /// `alertname`.
    pub name: String,
    /// Label `severity`; empty where there is none.
    pub severity: String,
    /// What it says.
    pub summary: String,
    /// The Node it means, where it means one.
    pub node: Option<NodeName>,
    /// The label that names the Node, or fails to; `None` where there is no such label.
    pub clue: Option<NodeClue>,
    /// Where it stands: acting, shown, or why it does not act.
    pub outcome: AlertOutcome,
    /// Floor and furthest reach by its rule; `None` where no rule is about it.
    pub rule: Option<(Risk, Reach)>,
    /// Since when it fires.
    pub starts_at: Timestamp,
    /// When it is forgotten unless it is refreshed.
    pub expires_at: Timestamp,
}

/// The alerts that are known.
#[derive(Clone, Debug)]
pub struct AlertBook {
    rules: Arc<AlertRules>,
    /// By fingerprint. An older start of the same labels is over when a newer one is there.
    firing: BTreeMap<String, Firing>,
    ended: BTreeMap<String, Ended>,
}

/// Only what is needed later is kept: 50,000 alerts with all their labels would be hundreds of MiB.
#[derive(Clone, Debug)]
struct Firing {
    name: String,
    severity: String,
    summary: String,
    clues: Vec<NodeClue>,
    starts_at: Timestamp,
    expires_at: Timestamp,
    rule: Option<(Risk, Reach)>,
}

#[derive(Clone, Debug)]
struct Ended {
    starts_at: Timestamp,
    ended_at: Timestamp,
    heard_at: Timestamp,
}

impl AlertBook {
    /// Firing alerts that are remembered; likewise ended ones.
    pub const ALERTS_MAX: usize = Payload::ALERTS_MAX;
    /// For so long after its end, the same alert is not believed to fire. Twice Alertmanager's usual
    /// `group_interval`, after which a delivery is given up or has been repeated.
    pub const LATE_FOR: Duration = Duration::from_secs(600);
    /// An alert that never acts is shown for so long without being refreshed: longer than
    /// Alertmanager's usual `repeat_interval` of 4 h.
    pub const SHOWN_FOR: Duration = Duration::from_secs(5 * 3600);

    /// An empty book.
    pub fn new(rules: Arc<AlertRules>) -> Self {
        Self {
            rules,
            firing: BTreeMap::new(),
            ended: BTreeMap::new(),
        }
    }

    /// Takes in one delivery. `nodes` is `None` until the Nodes are known; alerts that come before
    /// are kept and looked at again by [`Self::active_by_node`].
    pub fn apply(
        &mut self,
        payload: Payload,
        now: Timestamp,
        nodes: Option<&NodeDirectory<'_>>,
    ) -> Applied {
        self.prune(now);
        let mut applied = Applied::default();
        applied.count(AlertOutcome::Malformed, payload.malformed as u64);
        applied.count(AlertOutcome::Overflow, payload.beyond as u64);
        applied.count(AlertOutcome::Truncated, payload.truncated);
        for alert in payload.alerts {
            let clues = self.rules.clues(&alert);
            let (outcome, node) = self.take(&alert, clues, now, nodes);
            applied.count(outcome, 1);
            applied.received.push(Received {
                alert,
                outcome,
                node,
            });
        }
        applied
    }

    /// Forgets what has run out.
    pub fn prune(&mut self, now: Timestamp) {
        self.firing.retain(|_, firing| firing.expires_at > now);
        // No record holds an alert for longer than its rule does, so an older end is of no use.
        let keep = self.rules.expire_max().max(Self::LATE_FOR);
        self.ended
            .retain(|_, ended| since(ended.heard_at, now) < keep);
    }

    /// The wall clock was set: an alert counts for as long as before, no longer and no shorter.
    pub fn shift(&mut self, by: SignedDuration) {
        let moved = |at: Timestamp| at.checked_add(by).unwrap_or(at);
        for firing in self.firing.values_mut() {
            firing.expires_at = moved(firing.expires_at);
        }
        for ended in self.ended.values_mut() {
            ended.heard_at = moved(ended.heard_at);
        }
    }

    /// Whether a new alert would find no room.
    pub fn is_full(&self) -> bool {
        self.firing.len() >= Self::ALERTS_MAX
    }

    /// The evidence: alerts that fire, count by a rule and mean a Node, strongest first.
    pub fn active_by_node(
        &self,
        now: Timestamp,
        nodes: &NodeDirectory<'_>,
    ) -> BTreeMap<NodeName, Vec<ActingAlert>> {
        let mut active: BTreeMap<NodeName, Vec<ActingAlert>> = BTreeMap::new();
        for (fingerprint, firing) in self.firing.iter().filter(|(_, f)| f.expires_at > now) {
            let Some((floor, reach)) = firing.rule else {
                continue;
            };
            if let (AlertOutcome::Acting, Some(node)) = firing.standing(Some(nodes)) {
                active.entry(node).or_default().push(ActingAlert {
                    fingerprint: fingerprint.clone(),
                    name: firing.name.clone(),
                    starts_at: firing.starts_at,
                    floor,
                    reach,
                    expires_at: firing.expires_at,
                });
            }
        }
        for alerts in active.values_mut() {
            alerts.sort_by(|a, b| {
                (b.floor, b.reach, &a.name, &a.fingerprint).cmp(&(
                    a.floor,
                    a.reach,
                    &b.name,
                    &b.fingerprint,
                ))
            });
        }
        active
    }

    /// Fingerprints of alerts that have ended, with the start that ended: they end an alert that only
    /// a Node's record still holds.
    pub fn resolved(&self) -> BTreeMap<String, Timestamp> {
        self.ended
            .iter()
            .filter(|(fingerprint, _)| !self.firing.contains_key(*fingerprint))
            .map(|(fingerprint, ended)| (fingerprint.clone(), ended.starts_at))
            .collect()
    }

    /// Every alert that fires, whether it acts or not, newest first.
    pub fn shown(&self, now: Timestamp, nodes: Option<&NodeDirectory<'_>>) -> Vec<ShownAlert> {
        let mut shown: Vec<ShownAlert> = self
            .firing
            .iter()
            .filter(|(_, firing)| firing.expires_at > now)
            .map(|(fingerprint, firing)| {
                let (outcome, node) = firing.standing(nodes);
                ShownAlert {
                    fingerprint: fingerprint.clone(),
                    name: firing.name.clone(),
                    severity: firing.severity.clone(),
                    summary: firing.summary.clone(),
                    node,
                    clue: firing.clues.last().cloned(),
                    outcome,
                    rule: firing.rule,
                    starts_at: firing.starts_at,
                    expires_at: firing.expires_at,
                }
            })
            .collect();
        shown.sort_by(|a, b| {
            (b.starts_at, &a.name, &a.fingerprint).cmp(&(a.starts_at, &b.name, &b.fingerprint))
        });
        shown
    }

    fn take(
        &mut self,
        alert: &Alert,
        clues: Vec<NodeClue>,
        now: Timestamp,
        nodes: Option<&NodeDirectory<'_>>,
    ) -> (AlertOutcome, Option<NodeName>) {
        if self.rules.is_own(alert) {
            return (AlertOutcome::Own, None);
        }
        match alert.status {
            AlertStatus::Resolved => {
                let node = nodes
                    .and_then(|nodes| nodes.resolve(&clues).ok())
                    .map(|(node, _)| node.clone());
                (self.end(alert, now), node)
            }
            AlertStatus::Firing => self.fire(alert, clues, now, nodes),
        }
    }

    fn end(&mut self, alert: &Alert, now: Timestamp) -> AlertOutcome {
        let fingerprint = &alert.fingerprint;
        let ended_at = alert.ends_at.unwrap_or(now);
        if let Some(firing) = self.firing.get(fingerprint) {
            // The end of an earlier firing says nothing about the present one. Alertmanager merges
            // starts of two Prometheus replicas without saying so, hence the look at the end as well.
            if alert.starts_at < firing.starts_at && ended_at <= firing.starts_at {
                return AlertOutcome::Late;
            }
        }
        let known = self.ended.get(fingerprint);
        if known.is_some_and(|known| known.starts_at > alert.starts_at) {
            return AlertOutcome::Late;
        }
        let again = known.is_some_and(|known| known.starts_at == alert.starts_at);
        let starts_at = self
            .firing
            .remove(fingerprint)
            .map_or(alert.starts_at, |firing| {
                firing.starts_at.max(alert.starts_at)
            });
        if again {
            return AlertOutcome::Refreshed;
        }
        self.make_room_for_ended();
        self.ended.insert(
            fingerprint.clone(),
            Ended {
                starts_at,
                ended_at,
                heard_at: now,
            },
        );
        AlertOutcome::Resolved
    }

    fn fire(
        &mut self,
        alert: &Alert,
        clues: Vec<NodeClue>,
        now: Timestamp,
        nodes: Option<&NodeDirectory<'_>>,
    ) -> (AlertOutcome, Option<NodeName>) {
        if alert.ends_at.is_some_and(|ends_at| ends_at <= now) {
            return (AlertOutcome::Expired, None);
        }
        if self
            .ended
            .get(&alert.fingerprint)
            .is_some_and(|ended| ended.overtakes(alert, now))
        {
            return (AlertOutcome::Late, None);
        }
        let rule = self.rules.rule(alert);
        let expire = rule.map_or(Self::SHOWN_FOR, |rule| rule.expire);
        let rule = rule.map(|rule| (rule.floor, rule.reach));
        let known = self.firing.get(&alert.fingerprint);
        if known.is_none() && self.is_full() {
            return (AlertOutcome::Overflow, None);
        }
        let repeated = known.is_some_and(|known| known.starts_at >= alert.starts_at);
        let firing = Firing {
            name: alert.name(),
            severity: alert.severity(),
            summary: alert.summary.clone(),
            clues,
            starts_at: alert.starts_at,
            expires_at: after(now, expire),
            rule,
        };
        let (outcome, node) = firing.standing(nodes);
        self.firing.insert(alert.fingerprint.clone(), firing);
        self.ended.remove(&alert.fingerprint);
        if repeated {
            (AlertOutcome::Refreshed, node)
        } else {
            (outcome, node)
        }
    }

    fn make_room_for_ended(&mut self) {
        if self.ended.len() < Self::ALERTS_MAX {
            return;
        }
        // A tenth at once, so that a flood of ends costs one pass for many of them.
        let mut heard: Vec<Timestamp> = self.ended.values().map(|ended| ended.heard_at).collect();
        heard.sort_unstable();
        let mut to_go = Self::ALERTS_MAX / 10;
        let newest_to_go = heard[to_go - 1];
        self.ended.retain(|_, ended| {
            let goes = to_go > 0 && ended.heard_at <= newest_to_go;
            to_go -= usize::from(goes);
            !goes
        });
    }
}

impl Firing {
    /// Where the alert stands. A label that names the wrong Node is said of every alert; a missing
    /// one only where a rule wants to act, since most alerts of a cluster are about no Node.
    fn standing(&self, nodes: Option<&NodeDirectory<'_>>) -> (AlertOutcome, Option<NodeName>) {
        let Some(nodes) = nodes else {
            return (AlertOutcome::NodesNotSynced, None);
        };
        match (nodes.resolve(&self.clues), self.rule) {
            (Ok((node, created_at)), _) if self.starts_at < created_at => {
                (AlertOutcome::OlderThanNode, Some(node.clone()))
            }
            (Ok((node, _)), Some(_)) => (AlertOutcome::Acting, Some(node.clone())),
            (Ok((node, _)), None) => (AlertOutcome::Shown, Some(node.clone())),
            (Err(NodeProblem::Unknown), _) => (AlertOutcome::UnknownNode, None),
            (Err(NodeProblem::Ambiguous), _) => (AlertOutcome::AmbiguousNode, None),
            (Err(NodeProblem::NoLabel), Some(_)) => (AlertOutcome::NoNodeLabel, None),
            (Err(NodeProblem::NoLabel), None) => (AlertOutcome::Shown, None),
        }
    }
}

impl Ended {
    /// Whether this end is a later word than the alert's "firing".
    fn overtakes(&self, alert: &Alert, now: Timestamp) -> bool {
        let seen_since = alert.updated_at.is_some_and(|at| at > self.ended_at);
        alert.starts_at <= self.starts_at
            && !seen_since
            && since(self.heard_at, now) < AlertBook::LATE_FOR
    }
}

#[cfg(test)]
mod tests;
