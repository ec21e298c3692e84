//! Scenes: a cluster in a few words, and what is done to it.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

pub mod pods;
pub mod timeline;

use std::collections::BTreeMap;
use std::time::Duration;

use foreshock_core::decision::memory::{Memory, NodeMemory};
use foreshock_core::decision::plan::Plan;
use foreshock_core::decision::policy::{ControlPlane, Limit, Limits, Policy, Reach, Rules};
use foreshock_core::decision::world::{Fact, Inputs, NodeFacts, Score, ScoreUnknown, World};
use foreshock_core::drain::{Choice, DrainRules, Pace};
use foreshock_core::node::{NodeId, NodeName};
use foreshock_core::record::{
    ActingAlert, ClusterRecord, DrainRecord, Marks, NodeRecord, RecordState, RecordedPhase,
    RiskLabel, Taint, TaintEffect,
};
use foreshock_core::risk::Risk;
use foreshock_core::room::Resources;
use foreshock_core::time::{after, ago};
use jiff::Timestamp;

pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);

/// How many cases a property draws. Mutation tests ask for fewer: they run everything hundreds of times.
pub fn cases(usual: u32) -> u32 {
    std::env::var("FORESHOCK_PROPERTY_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(usual)
}

/// The time of every scene.
pub fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().expect("a valid time")
}

pub fn risk(p: f64) -> Risk {
    Risk::new(p).expect("a probability")
}

pub fn taint() -> Taint {
    Taint {
        key: "degradation".into(),
        value: "true".into(),
        effect: TaintEffect::NoSchedule,
    }
}

pub fn caution_taint() -> Taint {
    Taint {
        key: "degradation".into(),
        value: "caution".into(),
        effect: TaintEffect::PreferNoSchedule,
    }
}

pub fn rules() -> DrainRules {
    DrainRules {
        grace_cap: None,
        deadline: 15 * MINUTE,
        pod_deadline: 10 * MINUTE,
        pace: Pace::Owner,
        surge: false,
        unmanaged: Choice::Leave,
        empty_dir: Choice::Leave,
        local_volumes: Choice::Leave,
        devices: Choice::Leave,
        kube_system: Choice::Leave,
        opted_out: Choice::Leave,
        orphaned_daemon_set: Choice::Leave,
    }
}

/// The defaults of the configuration, with reach `evict` and a trusted model.
pub fn policy() -> Policy {
    Policy {
        instance: "foreshock".into(),
        model_trusted: true,
        score_age_max: MINUTE,
        facts_age_max: MINUTE,
        rules: Rules {
            reach: Reach::Evict,
            at_risk: risk(0.65),
            caution: risk(0.5),
            recover_below: risk(0.5),
            confirm_for: Duration::from_secs(45),
            drain_after: MINUTE,
            recover_for: 10 * MINUTE,
            probation: HOUR,
            repeat_max: 2,
            repeat_window: 24 * HOUR,
            veto_for: 24 * HOUR,
            tainted_for_max: 6 * HOUR,
            new_node_age: 10 * MINUTE,
            taint: taint(),
            caution_taint: Some(caution_taint()),
            control_plane: ControlPlane::Exclude,
            windows: Vec::new(),
        },
        limits: Limits {
            tainted_max: Limit::Percent(10.0),
            draining_max: Limit::Count(1),
            drains_per_hour: 6,
            zone_tainted_max: None,
            zone_draining_max: None,
            storm_share: 0.2,
            storm_min: 3,
            storm_window: 5 * MINUTE,
        },
        pools: Vec::new(),
        drain: rules(),
    }
}

pub fn labels(all: &[(&str, &str)]) -> BTreeMap<String, String> {
    all.iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// A Node with 4 cores, 16 GiB and places for 110 Pods, of which none is taken.
pub fn node(name: &str) -> NodeFacts {
    NodeFacts {
        id: NodeId::new(name, format!("uid-{name}").as_str()),
        created_at: ago(now(), 100 * HOUR),
        ready: true,
        cordoned: false,
        control_plane: false,
        zone: None,
        pool: None,
        labels: std::sync::Arc::new(labels(&[("kubernetes.io/hostname", name)])),
        allocatable: Resources {
            cpu: 4_000,
            memory: 16 << 30,
            pods: 110,
            ..Resources::default()
        },
        taints: Vec::new(),
        risk_label: None,
        record: RecordState::Absent,
        excluded: false,
        hold_until: None,
        taken_by: None,
        pods: Fact::Known(now(), Vec::new()),
    }
}

pub fn alert(name: &str, floor: f64, reach: Reach) -> ActingAlert {
    ActingAlert {
        fingerprint: format!("fp-{name}"),
        name: name.into(),
        starts_at: ago(now(), 5 * MINUTE),
        floor: risk(floor),
        reach,
        expires_at: after(now(), 5 * HOUR),
    }
}

/// A cluster at one time, with what was decided before.
#[derive(Clone, Debug)]
pub struct Scene {
    pub policy: Policy,
    pub memory: Memory,
    pub world: World,
}

/// Ten healthy Nodes `n0` … `n9`.
pub fn scene() -> Scene {
    let mut scene = Scene {
        policy: policy(),
        memory: Memory::default(),
        world: World {
            at: now(),
            nodes: BTreeMap::new(),
            scores: BTreeMap::new(),
            alerts: BTreeMap::new(),
            resolved: BTreeMap::new(),
            cluster: Some(ClusterRecord::default()),
            paused: false,
            untrusted: None,
            drift: None,
            writes: BTreeMap::new(),
            drains: BTreeMap::new(),
        },
    };
    for index in 0..10 {
        scene = scene.with_node(node(&format!("n{index}")), Ok(0.05));
    }
    scene
}

impl Scene {
    pub fn with_policy(mut self, change: impl FnOnce(&mut Policy)) -> Self {
        change(&mut self.policy);
        self
    }

    pub fn with_world(mut self, change: impl FnOnce(&mut World)) -> Self {
        change(&mut self.world);
        self
    }

    pub fn with_node(mut self, node: NodeFacts, score: Result<f64, ScoreUnknown>) -> Self {
        let name = node.id.name.clone();
        self.world.nodes.insert(name.clone(), node);
        let score = Score {
            risk: score.map(risk),
            at: ago(now(), Duration::from_secs(30)),
            reasons: vec!["disk".into()],
            inputs: Inputs::default(),
            out_of_range: None,
        };
        self.world.scores.insert(name, score);
        self
    }

    pub fn node(mut self, name: &str, change: impl FnOnce(&mut NodeFacts)) -> Self {
        let entry = self
            .world
            .nodes
            .entry(NodeName::from(name))
            .or_insert_with(|| node(name));
        change(entry);
        self
    }

    pub fn score(mut self, name: &str, score: Result<f64, ScoreUnknown>) -> Self {
        self.world
            .scores
            .get_mut(name)
            .expect("the scene has the Node")
            .risk = score.map(risk);
        self
    }

    /// At risk by the model, for so long.
    pub fn at_risk(self, name: &str, p: f64, long: Duration) -> Self {
        let since = ago(now(), long);
        self.score(name, Ok(p)).remember(name, |memory| {
            memory.at_risk_since = Some(since);
            memory.model_at_risk_since = Some(since);
        })
    }

    pub fn alert(mut self, name: &str, alert: ActingAlert) -> Self {
        self.world
            .alerts
            .entry(NodeName::from(name))
            .or_default()
            .push(alert);
        self
    }

    pub fn remember(mut self, name: &str, change: impl FnOnce(&mut NodeMemory)) -> Self {
        let id = self.world.nodes[name].id.clone();
        change(self.memory.nodes.entry(id).or_default());
        self
    }

    /// Carries our taint, in this phase, for so long.
    pub fn marked(self, name: &str, phase: RecordedPhase, long: Duration) -> Self {
        self.record(name, |record| {
            record.phase = phase;
            record.since = ago(now(), long);
            record.had_features = true;
            record.marks = Marks {
                taint: Some(taint()),
                caution_taint: None,
                label: Some(RiskLabel::AtRisk),
                label_before: None,
            };
            if matches!(phase, RecordedPhase::Draining | RecordedPhase::Drained) {
                record.drain = Some(DrainRecord {
                    started_at: ago(now(), long),
                    attempts: 1,
                    ended: None,
                });
            }
        })
    }

    pub fn record(self, name: &str, change: impl FnOnce(&mut NodeRecord)) -> Self {
        self.node(name, |node| {
            let mut record =
                node.record.ours().cloned().unwrap_or_else(|| {
                    NodeRecord::clear("foreshock", &node.id.uid, ago(now(), HOUR))
                });
            change(&mut record);
            show(node, record);
        })
    }
}

/// Puts a record, and the marks it speaks of, on a Node.
pub fn show(node: &mut NodeFacts, record: NodeRecord) {
    if let Some(before) = node.record.ours() {
        let ours = [
            before.marks.taint.clone(),
            before.marks.caution_taint.clone(),
        ];
        node.taints
            .retain(|taint| !ours.contains(&Some(taint.clone())));
    }
    node.taints.extend(
        record
            .marks
            .taint
            .iter()
            .chain(&record.marks.caution_taint)
            .cloned(),
    );
    node.risk_label = record
        .marks
        .label
        .map(|label| label.as_str().to_owned())
        .or(record.marks.label_before.clone());
    node.record = RecordState::Ours(Box::new(record));
}

/// Carries out every mark of a plan, as if each had succeeded at once.
pub fn apply(world: &mut World, plan: &Plan) {
    if let Some(cluster) = &plan.cluster {
        world.cluster = Some(cluster.clone());
    }
    for order in &plan.marks {
        let node = world
            .nodes
            .get_mut(&order.node.name)
            .expect("orders name Nodes of the world");
        match &order.record {
            Some(record) => {
                let before = node
                    .record
                    .ours()
                    .map(|record| record.marks.clone())
                    .unwrap_or_default();
                if before.label.is_some() && record.marks.label.is_none() {
                    node.risk_label = before.label_before.clone();
                }
                show(node, (**record).clone());
            }
            None => node.record = RecordState::Absent,
        }
    }
}
