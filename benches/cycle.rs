//! What one decision costs in a cluster of 5,000 Nodes: deciding and auditing. `model` has the rest of
//! a cycle.
//!
//! `cargo bench` prints the times; nothing here fails for being slow.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use foreshock::core::decision::audit::audit;
use foreshock::core::decision::decide;
use foreshock::core::decision::memory::Memory;
use foreshock::core::decision::world::{Fact, Inputs, NodeFacts, Score, World};
use foreshock::core::node::{NodeId, NodeName};
use foreshock::core::record::{ClusterRecord, RecordState};
use foreshock::core::risk::Risk;
use foreshock::core::room::Resources;
use jiff::Timestamp;

const NODES: usize = 5_000;

fn names() -> Vec<NodeName> {
    (0..NODES)
        .map(|n| NodeName::from(format!("worker-{n:05}")))
        .collect()
}

fn now() -> Timestamp {
    Timestamp::from_second(1_790_000_000).expect("in range")
}

fn deciding(criterion: &mut Criterion) {
    let config =
        foreshock::config::Config::parse("[policy]\nreach = \"evict\"", "bench".as_ref(), [])
            .expect("a valid configuration");
    let nodes: BTreeMap<NodeName, NodeFacts> = names()
        .into_iter()
        .map(|name| {
            let facts = NodeFacts {
                id: NodeId::new(name.clone(), format!("uid-{name}")),
                created_at: Timestamp::UNIX_EPOCH,
                ready: true,
                cordoned: false,
                control_plane: false,
                zone: None,
                pool: None,
                labels: Arc::default(),
                allocatable: Resources::default(),
                taints: Vec::new(),
                risk_label: None,
                record: RecordState::Absent,
                excluded: false,
                hold_until: None,
                taken_by: None,
                pods: Fact::Unknown,
            };
            (name, facts)
        })
        .collect();
    // One Node in a hundred is at risk.
    let scores = nodes
        .keys()
        .enumerate()
        .map(|(n, name)| {
            let risk = Risk::new(if n % 100 == 0 { 0.9 } else { 0.02 }).expect("a probability");
            (
                name.clone(),
                Score {
                    risk: Ok(risk),
                    at: now(),
                    reasons: vec!["disk".to_owned()],
                    inputs: Inputs::default(),
                    out_of_range: None,
                },
            )
        })
        .collect();
    let world = World {
        at: now(),
        nodes,
        scores,
        alerts: BTreeMap::new(),
        resolved: BTreeMap::new(),
        cluster: Some(ClusterRecord::default()),
        paused: false,
        untrusted: None,
        drift: None,
        writes: BTreeMap::new(),
        drains: BTreeMap::new(),
    };
    let decision = decide(&config.policy, &Memory::default(), &world);
    criterion.bench_function("decide, 5,000 Nodes", |bencher| {
        bencher.iter(|| {
            decide(
                &config.policy,
                black_box(&decision.memory),
                black_box(&world),
            )
        });
    });
    criterion.bench_function("audit, 5,000 Nodes", |bencher| {
        bencher.iter(|| {
            audit(
                &config.policy,
                &decision.memory,
                black_box(&world),
                decision.plan.clone(),
            )
        });
    });
}

criterion_group!(benches, deciding);
criterion_main!(benches);
