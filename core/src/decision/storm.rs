//! The storm guard: when so many Nodes turn at risk at once, the likelier fault is the signal.
//!
//! It looks at the whole cluster, at each zone and pool, and at what the positives have in common: a
//! model, an alert, a version of node_exporter or a scrape job that was not there a day ago.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use super::evidence::Evidence;
use super::memory::{Input, Memory};
use super::policy::Policy;
use super::world::{NodeFacts, World};
use crate::node::NodeName;
use crate::record::Storm;
use crate::risk::Band;
use crate::time::since;

/// An input is new for a day: long enough for a rollout over the whole cluster to be seen as one.
const INPUT_NEW_FOR: Duration = Duration::from_secs(86_400);

/// Where a storm is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place<'a> {
    Cluster,
    Zone(&'a str),
    Pool(&'a str),
    Input(&'a Input),
}

impl Place<'_> {
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
    pub(super) inputs: BTreeMap<Input, Option<Timestamp>>,
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
    let tallies = tallies(policy, world, memory, evidence, &inputs);
    let limits = &policy.limits;
    let many = |count: usize, nodes: usize| {
        #[expect(clippy::cast_precision_loss, reason = "a number of Nodes")]
        let share = count as f64 / nodes.max(1) as f64;
        count >= limits.storm_min as usize && share > limits.storm_share
    };
    let Some(before) = before(world, memory) else {
        let begins = tallies
            .iter()
            .filter(|(_, tally)| many(tally.turned, tally.nodes))
            // What every Node has in common explains nothing that the cluster does not.
            .max_by_key(|(place, tally)| {
                let everywhere = tally.nodes >= world.nodes.len();
                let explains = !(everywhere && place.is_shared());
                (tally.turned, explains, Reverse(**place))
            });
        let storm = begins.map(|(place, tally)| Storm {
            since: world.at,
            about: about(*place, *tally),
            calm_since: None,
        });
        return Guarded {
            storm,
            ended: None,
            inputs,
        };
    };
    let calm = !tallies
        .values()
        .any(|tally| many(tally.unsettled, tally.nodes));
    if !calm {
        let storm = Some(Storm {
            calm_since: None,
            ..before
        });
        return Guarded {
            storm,
            ended: None,
            inputs,
        };
    }
    let calm_since = before.calm_since.unwrap_or(world.at);
    if since(calm_since, world.at) < limits.storm_window {
        let storm = Some(Storm {
            calm_since: Some(calm_since),
            ..before
        });
        return Guarded {
            storm,
            ended: None,
            inputs,
        };
    }
    Guarded {
        storm: None,
        ended: Some(before),
        // What was there during the storm has been judged by it.
        inputs: inputs.into_keys().map(|input| (input, None)).collect(),
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

/// What scores and alerts are made from now, and since when.
fn inputs(
    policy: &Policy,
    world: &World,
    memory: &Memory,
    evidence: &BTreeMap<NodeName, Evidence>,
) -> BTreeMap<Input, Option<Timestamp>> {
    let mut seen = BTreeMap::new();
    let mut see = |input: Input| {
        let first = memory.inputs.get(&input).copied();
        seen.entry(input).or_insert(first.unwrap_or(Some(world.at)));
    };
    for node in world.nodes.values() {
        for input in inputs_of(policy, world, evidence, node) {
            see(input);
        }
    }
    seen
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
    inputs: &'a BTreeMap<Input, Option<Timestamp>>,
) -> BTreeMap<Place<'a>, Tally> {
    let mut tallies: BTreeMap<Place<'_>, Tally> = BTreeMap::new();
    for node in world.nodes.values() {
        let Some(evidence_of) = evidence.get(&node.id.name) else {
            continue;
        };
        let rules = policy.rules_of(node);
        let remembered = memory.nodes.get(&node.id);
        let turned = remembered
            .and_then(|memory| memory.at_risk_since)
            .is_some_and(|at| since(at, world.at) <= policy.limits.storm_window);
        let at_risk = match evidence_of.band {
            Band::AtRisk => true,
            // Falling silent is no calm.
            Band::Unknown => remembered.is_some_and(|memory| memory.at_risk_last_known),
            Band::Healthy | Band::Caution => false,
        };
        let marked = node.taints.contains(&rules.taint);
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
            let new = |first: &Option<Timestamp>| {
                first.is_some_and(|first| since(first, world.at) <= INPUT_NEW_FOR)
            };
            let Some((input, _)) = inputs.get_key_value(&input).filter(|(_, first)| new(first))
            else {
                continue;
            };
            let speaks_against = match input {
                Input::Alert(_) => true,
                Input::Model(_) | Input::Exporter(_) | Input::Job(_) => {
                    evidence_of.model_at_risk(rules)
                }
            };
            let tally = tallies.entry(Place::Input(input)).or_default();
            tally.nodes += 1;
            tally.turned += usize::from(speaks_against);
            tally.unsettled += usize::from(speaks_against);
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
    let mut end = text.len().min(Storm::ABOUT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} Nodes", self.turned, self.nodes)
    }
}
