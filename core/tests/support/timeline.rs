//! A cluster over virtual time: decided, audited and carried out step by step, each write at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foreshock_core::decision::audit::audit;
use foreshock_core::decision::plan::Cause;
use foreshock_core::decision::policy::Limit;
use foreshock_core::decision::{Decision, decide};
use foreshock_core::drain::{DrainReport, NodeOutcome, PodOutcome};
use foreshock_core::node::NodeName;
use foreshock_core::record::RecordedPhase;
use foreshock_core::time::{after, ago, since};
use jiff::Timestamp;

use super::{Scene, apply, node, risk, scene};

/// What was begun, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    pub at: Timestamp,
    pub node: String,
    pub cause: Cause,
}

/// A cluster over virtual time.
pub struct Timeline {
    pub scene: Scene,
    /// How long a drain takes.
    pub drain_takes: Duration,
    /// Nodes of which each drain fails.
    pub drains_fail: BTreeSet<String>,
    /// Everything that was begun or ended, in order.
    pub log: Vec<Begun>,
    pub last: Option<Decision>,
    began: Timestamp,
}

impl Timeline {
    pub fn new(scene: Scene) -> Self {
        Self {
            began: scene.world.at,
            scene,
            drain_takes: Duration::from_secs(30),
            drains_fail: BTreeSet::new(),
            log: Vec::new(),
            last: None,
        }
    }

    /// Sets what the model says of a Node from now on.
    pub fn risk(&mut self, node: &str, p: f64) {
        self.scene
            .world
            .scores
            .get_mut(node)
            .expect("the scene has the Node")
            .risk = Ok(risk(p));
    }

    /// Since the beginning.
    pub fn elapsed(&self) -> Duration {
        since(self.began, self.scene.world.at)
    }

    /// Goes on for so long, deciding every 15 s.
    pub fn run(&mut self, long: Duration) {
        let end = after(self.scene.world.at, long);
        while self.scene.world.at < end {
            self.step();
            self.scene.world.at = after(self.scene.world.at, Duration::from_secs(15));
        }
    }

    /// Decides once and carries it out.
    pub fn step(&mut self) {
        let at = self.scene.world.at;
        for score in self.scene.world.scores.values_mut() {
            if score.risk.is_ok() {
                score.at = ago(at, Duration::from_secs(30));
            }
        }
        let drains: Vec<(NodeName, DrainReport)> = self
            .scene
            .world
            .nodes
            .values()
            .filter_map(|node| {
                let record = node.record.ours()?;
                let drain = record.drain.as_ref()?;
                (record.phase == RecordedPhase::Draining).then_some(())?;
                let over = since(drain.started_at, at) >= self.drain_takes;
                let fails = self.drains_fail.contains(node.id.name.as_str());
                let outcome = if fails {
                    NodeOutcome::Ended(PodOutcome::BlockedByBudget)
                } else {
                    NodeOutcome::Drained
                };
                let report = DrainReport {
                    started_at: drain.started_at,
                    remaining: u32::from(!over),
                    gone: 1,
                    ended: over.then_some((at, outcome)),
                    detail: String::new(),
                };
                Some((node.id.name.clone(), report))
            })
            .collect();
        self.scene.world.drains = BTreeMap::from_iter(drains);
        let Scene {
            policy,
            memory,
            world,
        } = &mut self.scene;
        for node in world.nodes.values_mut() {
            if let foreshock_core::decision::world::Fact::Known(known_at, _) = &mut node.pods {
                *known_at = at;
            }
        }
        let decision = decide(policy, memory, world);
        if let Err(refusals) = audit(policy, &decision.memory, world, decision.plan.clone()) {
            panic!("the audit refused at {at}: {refusals:?}");
        }
        for order in &decision.plan.marks {
            self.log.push(Begun {
                at,
                node: order.node.to_string(),
                cause: order.cause,
            });
        }
        *memory = decision.memory.clone();
        apply(world, &decision.plan);
        self.last = Some(decision);
    }

    /// The process is killed: what it remembers is lost.
    pub fn restart(&mut self) {
        self.scene.memory = Default::default();
    }

    /// Nodes on which this was done, in order.
    pub fn nodes(&self, cause: Cause) -> Vec<&str> {
        self.log
            .iter()
            .filter(|begun| begun.cause == cause)
            .map(|begun| begun.node.as_str())
            .collect()
    }

    pub fn count(&self, cause: Cause) -> usize {
        self.nodes(cause).len()
    }

    pub fn storm(&self) -> Option<&str> {
        let storm = self.last.as_ref()?.storm.as_ref()?;
        Some(&storm.about)
    }

    pub fn ramp(&self) -> Option<u32> {
        Some(self.last.as_ref()?.memory.ramp.as_ref()?.width)
    }
}

/// So many healthy Nodes in three zones, `n00` …, with limits that a storm could use up.
pub fn fleet(count: usize) -> Scene {
    let mut scene = scene()
        .with_world(|world| {
            world.nodes.clear();
            world.scores.clear();
        })
        .with_policy(|policy| {
            policy.limits.draining_max = Limit::Count(8);
            policy.limits.tainted_max = Limit::Percent(15.0);
            policy.limits.drains_per_hour = 60;
        });
    for n in 0..count {
        let mut facts = node(&name(n));
        facts.zone = Some(["a", "b", "c"][n % 3].to_owned());
        scene = scene.with_node(facts, Ok(0.05));
    }
    scene
}

/// Name of the n-th of them.
pub fn name(n: usize) -> String {
    format!("n{n:02}")
}
