//! The storm guard: when so many Nodes turn at risk at once, the likelier fault is the signal.
//!
//! It looks at the whole cluster, at each zone and pool, and at what the positives have in common: a
//! model, an alert, a version of node_exporter or a scrape job that was not there a day ago.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::evidence::Evidence;
use super::memory::{Known, Memory};
use super::policy::Policy;
use super::world::{NodeFacts, World};
use crate::node::NodeName;
use crate::record::{Input, Storm};
use crate::risk::Band;
use crate::time::since;

/// An input is new for a day: long enough for a rollout over the whole cluster to be seen as one.
const INPUT_NEW_FOR: Duration = Duration::from_secs(86_400);
/// What nothing has used for so long is forgotten: an alert that fires once a month is an old one.
const INPUT_KEPT_FOR: Duration = Duration::from_secs(60 * 86_400);
/// Inputs that are remembered at most, whatever alerts are called.
const INPUTS_MAX: usize = 1_000;

/// Where a storm is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place<'a> {
    Cluster,
    Zone(&'a str),
    Pool(&'a str),
    Input(&'a Input),
}

impl<'a> Place<'a> {
    fn input(self) -> Option<&'a Input> {
        match self {
            Self::Cluster | Self::Zone(_) | Self::Pool(_) => None,
            Self::Input(input) => Some(input),
        }
    }

    /// It is an input that a score is made from, which all Nodes may have.
    fn is_shared(&self) -> bool {
        match self {
            Self::Cluster | Self::Zone(_) | Self::Pool(_) | Self::Input(Input::Alert(_)) => false,
            Self::Input(Input::Model(_) | Input::Exporter(_) | Input::Job(_)) => true,
        }
    }
}

/// How it stands with one place.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    nodes: usize,
    /// Nodes that turned at risk within the window; of a new input, all that it speaks against.
    turned: usize,
    /// Nodes at risk, or at risk when last heard of, without our taint: while they are many the storm
    /// goes on. Of a new input, all that it speaks against: what was marked by a lie is no sign of calm.
    unsettled: usize,
}

/// What the guard has come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Guarded {
    /// The storm that is on.
    pub(super) storm: Option<Storm>,
    /// A storm has ended with this decision.
    pub(super) ended: Option<Storm>,
    /// See [`Memory::inputs`].
    pub(super) inputs: BTreeMap<Input, Known>,
}

/// Whether a storm is on after this decision. `memory` has this decision's Nodes already, and of the
/// rest what was remembered before it.
pub(super) fn guard(
    policy: &Policy,
    world: &World,
    memory: &Memory,
    evidence: &BTreeMap<NodeName, Evidence>,
) -> Guarded {
    let inputs = inputs(policy, world, memory, evidence);
    let storm_before = before(world, memory);
    let over = storm_before.as_ref().and_then(|storm| storm.input.as_ref());
    let tallies = tallies(policy, world, memory, evidence, &inputs, over);
    let limits = &policy.limits;
    let many = |count: usize, nodes: usize| {
        #[expect(clippy::cast_precision_loss, reason = "a number of Nodes")]
        let share = count as f64 / nodes.max(1) as f64;
        count >= limits.storm_min as usize && share > limits.storm_share
    };
    let go_on = |storm| Guarded {
        storm,
        ended: None,
        inputs: inputs.clone(),
    };
    let Some(before) = storm_before else {
        let begins = tallies
            .iter()
            .filter(|(_, tally)| many(tally.turned, tally.nodes))
            // What every Node has in common explains nothing that the cluster does not.
            .max_by_key(|(place, tally)| {
                let everywhere = tally.nodes >= world.nodes.len();
                let explains = !(everywhere && place.is_shared());
                (tally.turned, explains, Reverse(**place))
            });
        return go_on(begins.map(|(place, tally)| Storm {
            since: world.at,
            about: about(*place, *tally),
            input: place.input().filter(|input| input.is_short()).cloned(),
            calm_since: None,
        }));
    };
    let many_unsettled = tallies
        .values()
        .any(|tally| many(tally.unsettled, tally.nodes));
    // In the dark nothing is calm.
    let known = evidence
        .values()
        .filter(|evidence| evidence.risk.is_some())
        .count();
    if many_unsettled || known * 2 < evidence.len() {
        return go_on(Some(Storm {
            calm_since: None,
            ..before
        }));
    }
    let calm_since = before.calm_since.unwrap_or(world.at);
    if since(calm_since, world.at) < limits.storm_window {
        return go_on(Some(Storm {
            calm_since: Some(calm_since),
            ..before
        }));
    }
    Guarded {
        storm: None,
        ended: Some(before),
        inputs,
    }
}

/// The storm that was on before this decision, as remembered or as the Lease has it.
fn before(world: &World, memory: &Memory) -> Option<Storm> {
    memory.storm.clone().or_else(|| {
        let recorded = world.cluster.as_ref()?.storm.as_ref()?;
        // The Lease may lag behind the end that was decided a moment ago.
        (memory.storm_over != Some(recorded.since)).then(|| Storm {
            calm_since: None,
            ..recorded.clone()
        })
    })
}

/// What scores and alerts are made from, now and lately, and since when.
fn inputs(
    policy: &Policy,
    world: &World,
    memory: &Memory,
    evidence: &BTreeMap<NodeName, Evidence>,
) -> BTreeMap<Input, Known> {
    let mut known = memory.inputs.clone();
    known.retain(|_, known| since(known.last, world.at) < INPUT_KEPT_FOR);
    // Of what is there when a process begins to look, nobody knows how long it has been there. A model or
    // a rule that came with the restart turns all its Nodes at once, and is seen by that.
    let first = (!memory.inputs.is_empty()).then_some(world.at);
    for node in world.nodes.values() {
        for input in inputs_of(policy, world, evidence, node) {
            let entry = known.entry(input).or_insert(Known {
                first,
                last: world.at,
            });
            entry.last = world.at;
        }
    }
    while known.len() > INPUTS_MAX {
        let oldest = known
            .iter()
            .min_by_key(|(input, known)| (known.last, *input))
            .map(|(input, _)| input.clone());
        known.retain(|input, _| Some(input) != oldest.as_ref());
    }
    known
}

/// What speaks for or against one Node.
fn inputs_of(
    policy: &Policy,
    world: &World,
    evidence: &BTreeMap<NodeName, Evidence>,
    node: &NodeFacts,
) -> Vec<Input> {
    let mut inputs = Vec::new();
    if let Some(score) = world
        .scores
        .get(&node.id.name)
        .filter(|score| score.risk.is_ok())
    {
        inputs.push(Input::Model(score.inputs.model.clone()));
        inputs.extend(score.inputs.exporter.clone().map(Input::Exporter));
        inputs.extend(score.inputs.job.clone().map(Input::Job));
    }
    if let Some(evidence) = evidence.get(&node.id.name) {
        let at_risk = policy.rules_of(node).at_risk;
        let acting = evidence.alerts.iter().filter(|alert| alert.floor > at_risk);
        inputs.extend(acting.map(|alert| Input::Alert(alert.name.clone())));
    }
    inputs
}

fn tallies<'a>(
    policy: &'a Policy,
    world: &'a World,
    memory: &Memory,
    evidence: &BTreeMap<NodeName, Evidence>,
    inputs: &'a BTreeMap<Input, Known>,
    over: Option<&Input>,
) -> BTreeMap<Place<'a>, Tally> {
    let mut tallies: BTreeMap<Place<'_>, Tally> = BTreeMap::new();
    for node in world.nodes.values() {
        let Some(evidence_of) = evidence.get(&node.id.name) else {
            continue;
        };
        let rules = policy.rules_of(node);
        let record = node.record.ours();
        let carries = record.and_then(|record| record.marks.taint.as_ref());
        let marked = carries.is_some_and(|taint| node.taints.contains(taint));
        let turned_at = memory
            .nodes
            .get(&node.id)
            .and_then(|memory| memory.turned_at);
        let turned = turned_at.filter(|at| since(*at, world.at) <= policy.limits.storm_window);
        let turned = turned.is_some() && evidence_of.band == Band::AtRisk;
        // Falling silent is no calm.
        let at_risk = turned_at.is_some();
        let places = [Place::Cluster]
            .into_iter()
            .chain(node.zone.as_deref().map(Place::Zone))
            .chain(policy.pool_of(node).map(|pool| Place::Pool(&pool.name)));
        for place in places {
            let tally = tallies.entry(place).or_default();
            tally.nodes += 1;
            tally.turned += usize::from(turned);
            tally.unsettled += usize::from(at_risk && !marked);
        }
        for input in inputs_of(policy, world, evidence, node) {
            let Some((input, known)) = inputs.get_key_value(&input) else {
                continue;
            };
            let new_since = known
                .first
                .filter(|first| since(*first, world.at) <= INPUT_NEW_FOR);
            if new_since.is_none() && over != Some(input) {
                continue;
            }
            let speaks_against = match input {
                Input::Alert(_) => true,
                Input::Model(_) | Input::Exporter(_) | Input::Job(_) => {
                    evidence_of.model_at_risk(rules)
                }
            };
            // What was at risk before the input was there is not at risk by it.
            let by_it = speaks_against
                && turned_at.is_some_and(|at| new_since.is_none_or(|first| at >= first));
            let tally = tallies.entry(Place::Input(input)).or_default();
            tally.nodes += 1;
            tally.turned += usize::from(by_it);
            tally.unsettled += usize::from(by_it);
        }
    }
    // Every Node of an alert has it. Whether it is everywhere is a question of all Nodes.
    let all = world.nodes.len();
    for (place, tally) in &mut tallies {
        if let Place::Input(Input::Alert(_)) = place {
            tally.nodes = all;
        }
    }
    tallies
}

fn about(place: Place<'_>, tally: Tally) -> String {
    let mut text = match place {
        Place::Cluster => tally.to_string(),
        Place::Zone(zone) => format!("zone {zone}: {tally}"),
        Place::Pool(pool) => format!("pool {pool}: {tally}"),
        Place::Input(input) => format!("{tally}, all by {input}, which is new"),
    };
    // Names come from outside. What the Lease would have to write otherwise would never compare equal
    // with what is read back, and be written again with every decision.
    text = text
        .chars()
        .map(|letter| {
            if letter.is_ascii_graphic() {
                letter
            } else {
                ' '
            }
        })
        .collect();
    let mut words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    words.truncate(Storm::ABOUT_MAX - 2);
    words
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} Nodes", self.turned, self.nodes)
    }
}
