//! Two replicas over hours of virtual time, with everything going wrong that a seed draws: the real
//! cycle, actuator and leader have to keep every rule, and to come to rest afterwards.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use foreshock::core::decision::world::HoldUntil;
use foreshock::core::node::NodeName;
use foreshock::core::record::{Taint, TaintEffect};
use foreshock::core::time::{after, since};
use foreshock::simulate::cluster::{Fault, Faults};
use jiff::Timestamp;

use crate::chance::Chance;
use crate::ledger::Done;
use crate::points::Calls;
use crate::shell::{USUAL, World, start};

/// How often the world is looked at.
const TICK: Duration = Duration::from_secs(2);
/// After the faults have stopped, everything is at rest within this: an alert whose end was lost
/// (30 min), a drain at its deadline (15 min), and the time to recover.
const SETTLE: Duration = Duration::from_secs(5_400);

/// What came of a run.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Virtual hours of Nodes.
    pub(crate) node_hours: f64,
    /// What was done, and what was wrong with it.
    pub(crate) done: Done,
    /// Processes that were killed.
    pub(crate) kills: usize,
    /// Faults that were put in the way of calls.
    pub(crate) faults: usize,
    /// Processes that have led, one after the other.
    pub(crate) leaders: usize,
}

/// One run from beginning to end.
pub(crate) fn run(seed: u64, lasts: Duration) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(tell(seed, lasts))
}

/// What a person or a controller takes back, and when.
enum Undo {
    Heal(NodeName),
    Quench(NodeName, Timestamp),
    Uncordon(NodeName),
    Include(NodeName),
    Free(NodeName),
    Untaint(NodeName, String),
    Ready(NodeName),
    Resume,
    Prometheus,
    Watches,
    Start,
}

struct Run {
    world: World,
    chance: Chance,
    undo: BTreeMap<(Timestamp, u64), Undo>,
    counter: u64,
    fires: BTreeMap<NodeName, Timestamp>,
    told_at: Timestamp,
    kills: usize,
    faults: usize,
}

async fn tell(seed: u64, lasts: Duration) -> Outcome {
    let mut run = Run {
        world: World::new(Calls::new(None), &USUAL),
        chance: Chance::new(seed, "shell"),
        undo: BTreeMap::new(),
        counter: 0,
        fires: BTreeMap::new(),
        told_at: start(),
        kills: 0,
        faults: 0,
    };
    run.world.start_process();
    run.world.start_process();
    let mut leaders = Vec::new();
    let mut ticks = tokio::time::interval(TICK);
    let end = after(start(), lasts);
    let mut cleared = false;
    loop {
        ticks.tick().await;
        run.world.follow();
        let now = run.world.cluster.now();
        let holder = run.world.cluster.lease_now().and_then(|lease| lease.holder);
        if holder.is_some() && leaders.last() != Some(&holder) {
            leaders.push(holder);
        }
        if now < end {
            run.strike(now).await;
        } else if !cleared {
            cleared = true;
            run.clear_up();
        }
        run.take_back(now);
        run.send_alerts(now);
        let at_rest = cleared && run.undo.is_empty();
        let over = now >= after(end, SETTLE);
        let broken = !run.world.ledger.done().violations.is_empty();
        if over || broken {
            let mut done = run.world.ledger.done();
            if !broken {
                let left = run.world.ledger.left(&run.world.cluster);
                done.violations
                    .extend(left.into_iter().map(|left| format!("orphan: {left}")));
                assert!(at_rest, "whatever was done is taken back");
            }
            #[expect(clippy::cast_precision_loss, reason = "a number of Nodes")]
            let nodes = USUAL.nodes as f64;
            return Outcome {
                node_hours: nodes * since(start(), now).as_secs_f64() / 3600.0,
                done,
                kills: run.kills,
                faults: run.faults,
                leaders: leaders.len(),
            };
        }
    }
}

impl Run {
    fn later(&mut self, now: Timestamp, low: u64, high: u64, undo: Undo) {
        self.counter += 1;
        let at = after(now, self.chance.lasting(low, high));
        self.undo.insert((at, self.counter), undo);
    }

    /// Something that comes every so often.
    fn due(&mut self, every: Duration) -> bool {
        self.chance.hits(TICK.as_secs_f64() / every.as_secs_f64())
    }

    fn node(&mut self) -> NodeName {
        let nodes = self.world.cluster.nodes_now();
        // What is ours already is the more interesting.
        let marked: Vec<&NodeName> = nodes
            .iter()
            .filter(|(_, facts)| {
                facts
                    .record
                    .ours()
                    .is_some_and(|record| !record.marks.is_empty())
            })
            .map(|(name, _)| name)
            .collect();
        if !marked.is_empty() && self.chance.hits(0.5) {
            return marked[self.chance.below(marked.len())].clone();
        }
        let index = self.chance.below(nodes.len());
        nodes.keys().nth(index).cloned().expect("below the count")
    }

    /// Whatever goes wrong at this moment.
    async fn strike(&mut self, now: Timestamp) {
        const MINUTE: Duration = Duration::from_secs(60);
        if self.due(12 * MINUTE) {
            let node = self.node();
            let risk = self.chance.between(0.55, 0.97);
            self.world.risk(node.as_str(), risk);
            self.later(now, 300, 4_000, Undo::Heal(node));
        }
        if self.due(40 * MINUTE) {
            let node = self.node();
            self.fires.insert(node.clone(), now);
            self.told_at = Timestamp::UNIX_EPOCH;
            self.later(now, 300, 3_000, Undo::Quench(node, now));
        }
        if self.due(2 * MINUTE) {
            self.fault();
        }
        if self.due(25 * MINUTE) {
            let running = self.world.running();
            if !running.is_empty() {
                let number = running[self.chance.below(running.len())];
                self.world.kill(number).await;
                self.kills += 1;
                self.later(now, 1, 60, Undo::Start);
            }
        }
        if self.due(60 * MINUTE) {
            let node = self.node();
            self.world.cluster.cordon(&node, true);
            self.later(now, 60, 3_000, Undo::Uncordon(node));
        }
        if self.due(60 * MINUTE) {
            let node = self.node();
            if self.chance.hits(0.5) {
                self.world.cluster.set_excluded(&node, true);
            } else {
                let malformed = HoldUntil::Malformed("soon".to_owned());
                self.world.cluster.set_hold_until(&node, Some(malformed));
            }
            self.later(now, 60, 2_000, Undo::Include(node));
        }
        if self.due(60 * MINUTE) {
            let node = self.node();
            self.world
                .cluster
                .set_taken_by(&node, Some("cluster-autoscaler"));
            self.later(now, 60, 2_000, Undo::Free(node));
        }
        if self.due(20 * MINUTE) {
            let node = self.node();
            let key = ["degradation", "example.org/a", "example.org/b"][self.chance.below(3)];
            let taint = Taint {
                key: key.to_owned(),
                value: "manual".to_owned(),
                effect: TaintEffect::PreferNoSchedule,
            };
            let nodes = self.world.cluster.nodes_now();
            // Nobody sets one over another's.
            if nodes.get(&node).is_some_and(|facts| {
                facts
                    .taints
                    .iter()
                    .all(|there| !there.collides_with(&taint))
            }) {
                self.world.cluster.add_taint(&node, taint);
                self.later(now, 5, 2_000, Undo::Untaint(node, key.to_owned()));
            }
        }
        if self.due(90 * MINUTE) {
            // A person takes our taint away.
            let node = self.node();
            let ours = |taint: &Taint| taint.key == "degradation" && taint.value == "true";
            let nodes = self.world.cluster.nodes_now();
            if nodes
                .get(&node)
                .is_some_and(|facts| facts.taints.iter().any(ours))
            {
                self.world.ledger.taken_by_a_person(&node);
                self.world.cluster.remove_taint(&node, "degradation");
            }
        }
        if self.due(90 * MINUTE) && self.world.cluster.set_paused(true) {
            self.later(now, 20, 900, Undo::Resume);
        }
        if self.due(120 * MINUTE) {
            self.world.prometheus_gone.store(true, Ordering::Relaxed);
            self.later(now, 60, 3_000, Undo::Prometheus);
        }
        if self.due(20 * MINUTE) {
            self.world
                .cluster
                .with_faults(|faults| faults.watches_stand_still = true);
            self.later(now, 2, 8, Undo::Watches);
        }
        if self.due(90 * MINUTE) {
            let node = self.node();
            self.world.cluster.set_node_ready(&node, false);
            self.later(now, 30, 1_500, Undo::Ready(node));
        }
        if self.due(180 * MINUTE) {
            let node = self.node();
            self.world.cluster.recreate_node(&node);
        }
        if self.due(240 * MINUTE) {
            self.world.cluster.delete_lease();
        }
    }

    /// The next calls of one kind meet something.
    fn fault(&mut self) {
        const ALL: [Fault; 7] = [
            Fault::TimeoutBefore,
            Fault::TimeoutAfter,
            Fault::Conflict,
            Fault::Forbidden,
            Fault::Denied,
            Fault::Throttled,
            Fault::Failed,
        ];
        let count = 1 + self.chance.below(4);
        self.faults += count;
        let drawn: Vec<Option<Fault>> = (0..count)
            .map(|_| Some(ALL[self.chance.below(ALL.len())]))
            .collect();
        let kind = self.chance.below(5);
        self.world.cluster.with_faults(|faults: &mut Faults| {
            let queue = match kind {
                0 => &mut faults.marks,
                1 => &mut faults.evictions,
                2 => &mut faults.leases,
                3 => &mut faults.events,
                _ => &mut faults.reads,
            };
            if queue.is_empty() {
                queue.extend(drawn);
            }
        });
    }

    fn take_back(&mut self, now: Timestamp) {
        while let Some(entry) = self.undo.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let undo = entry.remove();
            self.undo_one(undo);
        }
    }

    fn undo_one(&mut self, undo: Undo) {
        let cluster = &self.world.cluster;
        match undo {
            Undo::Heal(node) => self.world.risk(node.as_str(), 0.1),
            Undo::Quench(node, since) => {
                if self.fires.get(&node) == Some(&since) {
                    self.fires.remove(&node);
                    // One in four ends is lost.
                    if !self.chance.hits(0.25) {
                        self.world.alert(node.as_str(), false, since);
                    }
                }
            }
            Undo::Uncordon(node) => drop(cluster.cordon(&node, false)),
            Undo::Include(node) => {
                cluster.set_excluded(&node, false);
                cluster.set_hold_until(&node, None);
            }
            Undo::Free(node) => drop(cluster.set_taken_by(&node, None)),
            Undo::Untaint(node, key) => drop(cluster.remove_taint_of(&node, &key, "manual")),
            Undo::Ready(node) => drop(cluster.set_node_ready(&node, true)),
            Undo::Resume => drop(cluster.set_paused(false)),
            Undo::Prometheus => self.world.prometheus_gone.store(false, Ordering::Relaxed),
            Undo::Watches => cluster.with_faults(|faults| faults.watches_stand_still = false),
            Undo::Start => drop(self.world.start_process()),
        }
    }

    /// Alertmanager sends again what still fires.
    fn send_alerts(&mut self, now: Timestamp) {
        if since(self.told_at, now) < Duration::from_secs(600) {
            return;
        }
        self.told_at = now;
        for (node, since) in &self.fires {
            self.world.alert(node.as_str(), true, *since);
        }
    }

    /// Everything is put right at once.
    fn clear_up(&mut self) {
        for (_, undo) in std::mem::take(&mut self.undo) {
            self.undo_one(undo);
        }
        for (node, since) in std::mem::take(&mut self.fires) {
            self.world.alert(node.as_str(), false, since);
        }
        self.world
            .cluster
            .with_faults(|faults| *faults = Faults::default());
    }
}
