//! The storm guard: when so many Nodes turn at risk at once, the likelier fault is the signal.

use std::collections::BTreeMap;

use super::evidence::Evidence;
use super::memory::Memory;
use super::policy::Policy;
use super::world::World;
use crate::node::NodeName;
use crate::record::Storm;
use crate::risk::Band;
use crate::time::since;

/// Whether a storm is on after this decision. `memory` has this decision's `at_risk_since` already.
pub(super) fn storm(
    policy: &Policy,
    world: &World,
    memory: &Memory,
    evidence: &BTreeMap<NodeName, Evidence>,
) -> Option<Storm> {
    let limits = &policy.limits;
    let many = |count: usize| {
        #[expect(clippy::cast_precision_loss, reason = "a number of Nodes")]
        let share = count as f64 / world.nodes.len().max(1) as f64;
        count >= limits.storm_min as usize && share > limits.storm_share
    };
    let turned = memory
        .nodes
        .values()
        .filter_map(|node| node.at_risk_since)
        .filter(|at| since(*at, world.at) <= limits.storm_window)
        .count();

    let before = memory.storm.clone().or_else(|| {
        let recorded = world.cluster.as_ref()?.storm.as_ref()?;
        Some(Storm {
            since: recorded.since,
            calm_since: None,
        })
    });
    let Some(before) = before else {
        return many(turned).then_some(Storm {
            since: world.at,
            calm_since: None,
        });
    };
    let at_risk_unmarked = world
        .nodes
        .values()
        .filter(|node| {
            evidence
                .get(&node.id.name)
                .is_some_and(|evidence| evidence.band == Band::AtRisk)
        })
        .filter(|node| !node.taints.contains(&policy.taint))
        .count();
    if many(at_risk_unmarked) {
        return Some(Storm {
            since: before.since,
            calm_since: None,
        });
    }
    let calm_since = before.calm_since.unwrap_or(world.at);
    if since(calm_since, world.at) < limits.storm_window {
        Some(Storm {
            since: before.since,
            calm_since: Some(calm_since),
        })
    } else {
        None
    }
}
