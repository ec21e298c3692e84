//! A made-up fleet in which everything that can be shown is there once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use foreshock_core::decision::policy::{ControlPlane, Limit, Limits, Policy, Reach, Rules};
use foreshock_core::decision::verdict::{Hold, HoldReason, Phase, Verdict};
use foreshock_core::decision::world::{Fact, NodeFacts};
use foreshock_core::drain::{
    Budget, Choice, Difference, Differs, DrainId, DrainReport, DrainRules, EvictionAllowance,
    LeftBehind, Moved, MovedWorkload, NodeOutcome, Owner, PodFacts, PodId, PodOutcome, Volume,
    differences_in_words,
};
use foreshock_core::node::{NodeId, NodeName};
use foreshock_core::record::{ActingAlert, RecordState, Taint, TaintEffect};
use foreshock_core::risk::Risk;
use foreshock_core::room::{Needs, Resources};
use foreshock_core::time::after;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::alertmanager::{AlertOutcome, NodeClue, ShownAlert};
use crate::events::{EventKind, EventLog, NewEvent};
use crate::features::{FeatureMatrix, Schema, Usual};
use crate::kubernetes::NodeEntry;
use crate::model::drift::{FeatureDrift, Measured};
use crate::model::outcomes::Outcomes;
use crate::snapshot::{
    CalibrationBin, CardAuthority, CardCosts, CardFeature, CardThreshold, Contribution, Counters,
    Cycles, DiffersView, Drift, Health, KubernetesHealth, LimitUse, ModelCard, ModelName,
    MovedView, NodeView, PrometheusHealth, Shortened, Snapshot, VolumesView,
};
use crate::web::{
    Bytes, Control, ControlError, Lead, Leads, PlanError, PlanFacts, Plans, Switched, WebState,
    Webhook, WebhookAnswer,
};

/// The start of everything.
pub(super) const START: i64 = 1_763_900_000;

/// A text that a careless page would run.
pub(super) const HOSTILE: &str = "<img src=x onerror=alert(1)>\"'&\n\u{202e}";

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(START + second).unwrap()
}

fn risk(probability: f64) -> Risk {
    Risk::new(probability.clamp(0.0, 1.0)).unwrap()
}

pub(super) fn rules() -> DrainRules {
    DrainRules {
        grace_cap: None,
        deadline: Duration::from_secs(900),
        pod_deadline: Duration::from_secs(600),
        pace: foreshock_core::drain::Pace::Owner,
        surge: false,
        unmanaged: Choice::Leave,
        empty_dir: Choice::Leave,
        local_volumes: Choice::Leave,
        devices: Choice::Evict,
        kube_system: Choice::Leave,
        opted_out: Choice::Leave,
        orphaned_daemon_set: Choice::Leave,
    }
}

pub(super) fn policy() -> Policy {
    let seconds = Duration::from_secs;
    Policy {
        instance: "foreshock".into(),
        model_trusted: true,
        score_age_max: seconds(120),
        facts_age_max: seconds(60),
        rules: Rules {
            reach: Reach::Evict,
            at_risk: risk(0.65),
            caution: risk(0.5),
            recover_below: risk(0.5),
            confirm_for: seconds(5),
            drain_after: seconds(5),
            recover_for: seconds(30),
            probation: seconds(3_600),
            repeat_max: 2,
            repeat_window: seconds(86_400),
            veto_for: seconds(86_400),
            tainted_for_max: seconds(21_600),
            new_node_age: seconds(600),
            taint: Taint {
                key: "degradation".into(),
                value: "true".into(),
                effect: TaintEffect::NoSchedule,
            },
            caution_taint: None,
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
            storm_window: seconds(300),
        },
        pools: Vec::new(),
        drain: rules(),
    }
}

/// What is made up about one Node.
struct Case {
    risk: Option<f64>,
    phase: Phase,
    holds: Vec<Hold>,
    drain: Option<DrainReport>,
    moved: Option<MovedView>,
    differs: Option<DiffersView>,
    volumes: Option<VolumesView>,
    alerts: Vec<ActingAlert>,
    drivers: &'static [(&'static str, f64, f64)],
}

fn hold(reason: HoldReason, detail: &str, until: Option<Timestamp>) -> Hold {
    Hold {
        reason,
        detail: detail.into(),
        until,
    }
}

const DISK: &[(&str, f64, f64)] = &[
    ("disk_await_write", 0.084, 2.31),
    ("disk_busy", 0.97, 1.12),
    ("cpu_iowait", 0.31, 0.84),
    ("psi_io", 0.44, 0.42),
    ("procs_blocked", 9.0, 0.21),
    ("mem_used", 0.41, -0.08),
];
const MEMORY: &[(&str, f64, f64)] = &[
    ("mem_used", 0.94, 1.42),
    ("mem_in_1h", 1.08, 0.91),
    ("major_faults", 412.0, 0.55),
    ("swap_pages", 1_830.0, 0.31),
    ("cpu_used", 0.22, -0.11),
];
const WELL: &[(&str, f64, f64)] = &[("cpu_used", 0.34, -0.21), ("mem_used", 0.48, -0.18)];

/// Of a drain of `worker-09`.
fn differs(now: i64) -> DiffersView {
    let differences = vec![Difference {
        pod: PodId {
            namespace: "shop".into(),
            name: "late-1".into(),
            uid: "uid-late-1".into(),
        },
        what: Differs::Came,
    }];
    DiffersView {
        drain: at(now - 900),
        at: at(now - 880),
        message: differences_in_words(&differences),
        differences: Arc::new(differences),
    }
}

fn volumes(now: i64) -> VolumesView {
    let volume = |n: usize| Volume {
        namespace: "shop".into(),
        claim: format!("data-{n}"),
        name: format!("pv-{n}"),
        driver: "csi.example.com".into(),
        handle: format!("vol-{n}"),
        shared: false,
    };
    let left = LeftBehind {
        drain: DrainId {
            node: NodeId::new("worker-09", "uid-worker-09"),
            started_at: at(now - 900),
        },
        waited: Duration::from_secs(840),
        attached: vec![volume(0)],
        unknown: vec![(volume(1), "no answer".into())],
    };
    VolumesView {
        at: at(now - 10),
        message: left.to_string(),
        left: Arc::new(left),
    }
}

fn moved(now: i64) -> MovedView {
    let workload = |name: &str, to: &[(&str, u32)], missing| MovedWorkload {
        namespace: "shop".into(),
        owner: Owner {
            group: "apps".into(),
            kind: "Deployment".into(),
            name: name.into(),
            uid: name.into(),
        },
        to: to.iter().map(|(node, n)| ((*node).into(), *n)).collect(),
        longest: Duration::from_millis(5_200),
        missing,
        unneeded: 0,
        unseen: 0,
        problem: None,
    };
    let moved = Moved {
        drain: DrainId {
            node: NodeId::new("worker-09", "uid-worker-09"),
            started_at: at(now - 900),
        },
        took: Duration::from_millis(8_210),
        waited: Duration::from_secs(600),
        replacements: vec![Duration::from_millis(5_200); 10],
        workloads: vec![
            workload("cart", &[("worker-01", 3), ("worker-02", 1)], 1),
            workload("web", &[("worker-02", 6)], 0),
        ],
    };
    MovedView {
        at: at(now - 250),
        message: moved.to_string(),
        moved: Arc::new(moved),
    }
}

fn case(n: usize, now: i64) -> Case {
    let wave = ((now as f64 / 40.0) + n as f64).sin();
    let well = Case {
        risk: Some(0.06 + 0.03 * wave + 0.001 * (n % 17) as f64),
        phase: Phase::Healthy,
        holds: Vec::new(),
        drain: None,
        moved: None,
        differs: None,
        volumes: None,
        alerts: Vec::new(),
        drivers: WELL,
    };
    match n {
        3 => Case {
            risk: Some(0.91 + 0.02 * wave),
            phase: Phase::Draining,
            drain: Some(DrainReport {
                started_at: at(now - 21),
                remaining: 7,
                gone: 4,
                ended: None,
                detail: "shop/cart-7d9f: PodDisruptionBudget cart lets 1 go at a time".into(),
            }),
            alerts: vec![ActingAlert {
                fingerprint: "a1b2c3d4e5f60718".into(),
                name: "NodeDiskIOSaturation".into(),
                starts_at: at(now - 340),
                floor: risk(0.8),
                reach: Reach::Evict,
                expires_at: at(now + 17_600),
            }],
            drivers: DISK,
            ..well
        },
        5 => Case {
            risk: Some(0.12),
            phase: Phase::Recovering,
            holds: vec![hold(
                HoldReason::Recovering,
                "below 0.50 for 12 s of 30 s",
                Some(at(now + 18)),
            )],
            drain: Some(DrainReport {
                started_at: at(now - 190),
                remaining: 0,
                gone: 9,
                ended: Some((at(now - 160), NodeOutcome::Drained)),
                detail: String::new(),
            }),
            ..well
        },
        7 => Case {
            risk: Some(0.72 + 0.02 * wave),
            phase: Phase::Suspect,
            holds: vec![
                hold(
                    HoldReason::DrainingMax,
                    "1 of 1 Nodes are draining: worker-03",
                    None,
                ),
                hold(
                    HoldReason::Unconfirmed,
                    "at risk for 2 s of 5 s",
                    Some(at(now + 3)),
                ),
            ],
            drivers: MEMORY,
            ..well
        },
        9 => Case {
            risk: Some(0.83),
            phase: Phase::Drained,
            holds: vec![hold(
                HoldReason::Drained,
                "everything is done; still at risk, so a person should look at the machine",
                None,
            )],
            drain: Some(DrainReport {
                started_at: at(now - 900),
                remaining: 0,
                gone: 11,
                ended: Some((at(now - 850), NodeOutcome::Drained)),
                detail: String::new(),
            }),
            moved: Some(moved(now)),
            differs: Some(differs(now)),
            volumes: Some(volumes(now)),
            drivers: DISK,
            ..well
        },
        11 => Case {
            risk: Some(0.57 + 0.03 * wave),
            drivers: MEMORY,
            ..well
        },
        12 => Case {
            risk: None,
            holds: vec![hold(
                HoldReason::Unknown,
                "no fresh scrape of its node_exporter",
                None,
            )],
            drivers: &[],
            ..well
        },
        14 => Case {
            risk: Some(0.78),
            phase: Phase::Tainted,
            holds: vec![hold(
                HoldReason::DrainFailed,
                "never_allowed: shop/ledger-0: PodDisruptionBudget ledger can never allow it \
                 (1 of 1 healthy, 1 wanted); attempt 1 of 3",
                Some(at(now + 240)),
            )],
            drain: Some(DrainReport {
                started_at: at(now - 400),
                remaining: 1,
                gone: 6,
                ended: Some((at(now - 60), NodeOutcome::Ended(PodOutcome::NeverAllowed))),
                detail: "shop/ledger-0: PodDisruptionBudget ledger can never allow it".into(),
            }),
            drivers: DISK,
            ..well
        },
        _ => well,
    }
}

/// A fleet of so many Nodes, as it looks so many seconds after the start.
pub(super) fn snapshot(count: usize, now: i64) -> Snapshot {
    let schema = Arc::new(Schema::built_in());
    let name = |n: usize| NodeName::from(format!("worker-{n:02}"));
    let mut names: Vec<(NodeName, usize)> = (1..=count).map(|n| (name(n), n)).collect();
    names.sort();
    let rows: Vec<NodeName> = names.iter().map(|(name, _)| name.clone()).collect();
    let mut matrix = FeatureMatrix::missing(at(now - now.rem_euclid(5)), schema.clone(), rows);
    for (row, (_, n)) in names.iter().enumerate() {
        let silent = *n == 12;
        matrix.scraped_at[row] = (!silent).then(|| at(now - 7));
        for (column, feature) in schema.features().iter().enumerate() {
            let rare = feature.optional && (column + n).is_multiple_of(3);
            if silent || rare {
                continue;
            }
            let base = match feature.name.as_str() {
                "disk_await_write" => 0.003,
                "disk_await_read" => 0.002,
                "cpu_used" => 0.34,
                "mem_used" => 0.48,
                "temp_vs_crit" => 0.61,
                "pods_used" => 0.31,
                "disk_busy" => 0.12,
                _ => feature.noise,
            };
            let wobble = 1.0 + 0.1 * ((column * 7 + n * 3) as f64 + now as f64 / 30.0).sin();
            matrix.values[(row, column)] = (base * wobble).clamp(feature.min, feature.max);
        }
        for (feature, value, _) in case(*n, now).drivers {
            if let Some(column) = schema.column_of(feature) {
                matrix.values[(row, column)] = *value;
            }
        }
    }
    let usual = Usual::of(&matrix);
    let nodes = names
        .iter()
        .enumerate()
        .map(|(row, (name, n))| view(name, *n, row, now, &matrix, &usual))
        .collect();
    Snapshot {
        synced: true,
        started_at: at(0),
        interval: Duration::from_secs(5),
        nodes,
        usual: Arc::new(usual),
        matrix: Some(Arc::new(matrix)),
        alerts: alerts(now),
        limits: vec![
            limit("tainted_max", 4, (count / 10).max(5)),
            limit("draining_max", 1, 1),
            limit("drains_per_hour", 3, 6),
        ],
        health: Health {
            prometheus: PrometheusHealth {
                ok: true,
                features_at: Some(at(now - 4)),
                problem: None,
            },
            kubernetes: KubernetesHealth {
                ok: true,
                enabled: true,
                problem: None,
            },
            model: Some(model().name),
            leader: true,
            leader_name: Some("foreshock-6c9f7d-x2x8p".into()),
            paused: false,
            degraded: Vec::new(),
        },
        shortened: vec![
            shortened("policy.confirm_for", 5, 45),
            shortened("policy.drain_after", 5, 60),
            shortened("policy.recover_for", 30, 600),
        ],
        model: Some(Arc::new(model())),
        counters: Counters {
            taints: BTreeMap::from([(("taint", "ok"), 5), (("untaint", "ok"), 1)]),
            evictions: BTreeMap::from([
                (PodOutcome::Evicted, 30),
                (PodOutcome::BlockedByBudget, 2),
                (PodOutcome::NeverAllowed, 1),
            ]),
            alerts: BTreeMap::from([(AlertOutcome::Acting, 3), (AlertOutcome::UnknownNode, 1)]),
            history: Some(Duration::from_secs(76 * 3_600)),
        },
        cycles: Cycles {
            count: now.unsigned_abs() / 5,
            last: Some(Duration::from_millis(38)),
            stages: vec![
                ("features", Duration::from_millis(31)),
                ("decide", Duration::from_millis(2)),
            ],
        },
        ..Snapshot::starting(at(now), "0.1.0", Arc::new(policy()))
    }
}

fn view(
    name: &NodeName,
    n: usize,
    row: usize,
    now: i64,
    matrix: &FeatureMatrix,
    usual: &Usual,
) -> NodeView {
    let case = case(n, now);
    let policy = policy();
    let tainted = matches!(
        case.phase,
        Phase::Tainted | Phase::Draining | Phase::Drained | Phase::Recovering
    );
    let id = NodeId::new(name.clone(), format!("uid-{name}"));
    let contributions: Vec<Contribution> = case
        .drivers
        .iter()
        .filter_map(|(feature, _, contribution)| {
            let column = matrix.schema.column_of(feature)?;
            Some(Contribution {
                feature: (*feature).into(),
                value: matrix.value(row, column),
                usual: usual.value(row, column),
                unit: matrix.schema.features()[column].unit,
                contribution: *contribution,
            })
        })
        .collect();
    NodeView {
        verdict: Verdict {
            node: id.clone(),
            model_risk: case.risk.map(risk),
            risk: case.risk.map(risk),
            band: policy.rules.band(case.risk.map(risk)),
            phase: case.phase,
            since: at(now - 25 - (n as i64 % 5) * 400),
            reach: Reach::Evict,
            holds: case.holds,
            reasons: case
                .drivers
                .iter()
                .take(2)
                .filter(|(_, _, contribution)| *contribution > 0.3)
                .map(|(feature, value, _)| format!("{feature} at {value}"))
                .collect(),
            alerts: case.alerts,
        },
        contributions,
        rule: case.risk.map(|_| risk(0.25)),
        model: case.risk.map(|_| "synthetic-7f3a".into()),
        missing: if n == 12 { 1.0 } else { 0.0 },
        pool: n.is_multiple_of(4).then(|| "batch".to_owned()),
        entry: Some(Arc::new(NodeEntry {
            facts: NodeFacts {
                id,
                created_at: at(-86_400 * 40),
                ready: n != 12,
                cordoned: n == 15,
                control_plane: false,
                pool: None,
                zone: Some(format!("eu-central-1{}", ["a", "b", "c"][n % 3])),
                labels: Arc::default(),
                allocatable: Resources::default(),
                taints: tainted
                    .then(|| policy.rules.taint.clone())
                    .into_iter()
                    .collect(),
                risk_label: None,
                record: RecordState::Absent,
                excluded: false,
                hold_until: None,
                taken_by: None,
                pods: Fact::Unknown,
            },
            resource_version: "1".into(),
            hostname: None,
            addresses: vec![format!("10.0.0.{n}")],
            labels: Arc::new(BTreeMap::from([
                ("kubernetes.io/arch".into(), "amd64".into()),
                (
                    "node.kubernetes.io/instance-type".into(),
                    "m6i.2xlarge".into(),
                ),
            ])),
        })),
        drain: case.drain,
        moved: case.moved,
        differs: case.differs,
        volumes: case.volumes,
    }
}

fn limit(name: &'static str, used: usize, max: usize) -> LimitUse {
    LimitUse {
        name,
        scope: "cluster".into(),
        used,
        max,
    }
}

fn shortened(key: &str, value: u64, default: u64) -> Shortened {
    Shortened {
        key: key.into(),
        value: Duration::from_secs(value),
        default: Duration::from_secs(default),
    }
}

fn alerts(now: i64) -> Vec<ShownAlert> {
    let alert = |name: &str, node: Option<&str>, clue: &str, outcome| ShownAlert {
        fingerprint: format!("fp-{name}"),
        name: name.into(),
        severity: "warning".into(),
        summary: format!("{name} on {clue}"),
        node: node.map(NodeName::from),
        clue: Some(NodeClue {
            label: "node".into(),
            value: clue.into(),
        }),
        outcome,
        rule: Some((risk(0.8), Reach::Evict)),
        starts_at: at(now - 340),
        expires_at: at(now + 17_600),
    };
    vec![
        alert(
            "NodeDiskIOSaturation",
            Some("worker-03"),
            "worker-03",
            AlertOutcome::Acting,
        ),
        alert(
            "NodeClockSkew",
            None,
            "old-worker-99",
            AlertOutcome::UnknownNode,
        ),
        alert(HOSTILE, None, HOSTILE, AlertOutcome::UnknownNode),
    ]
}

fn model() -> ModelCard {
    let schema = Schema::built_in();
    let feature = |name: &str, importance| CardFeature {
        feature: name.into(),
        unit: schema.feature(name).unwrap().unit,
        importance,
    };
    ModelCard {
        name: ModelName {
            name: "synthetic-7f3a".into(),
            source: "synthetic".into(),
            schema: schema.digest().into(),
            reach: Reach::Label,
        },
        horizon: Duration::from_secs(1_800),
        command: "foreshock train --synthetic --seed 7".into(),
        window: None,
        rows: 120_000,
        positives: 5_210,
        features: vec![
            feature("disk_await_write", 0.21),
            feature("mem_used", 0.17),
            feature("disk_busy", 0.12),
            feature("tcp_retrans_ratio", 0.08),
            feature("temp_vs_crit", 0.05),
        ],
        validation: vec![
            ("pr_auc".into(), 0.71),
            ("brier_skill".into(), 0.52),
            ("ece".into(), 0.008),
        ],
        calibration: (0..10)
            .map(|bin| CalibrationBin {
                from: f64::from(bin) / 10.0,
                to: f64::from(bin + 1) / 10.0,
                predicted: f64::from(bin) / 10.0 + 0.05,
                observed: f64::from(bin) / 10.0 + 0.04,
                rows: 1_000,
            })
            .collect(),
        drift: Some(drift()),
        authority: CardAuthority {
            acts: false,
            act_untrained: false,
            refusals: vec![(
                "synthetic",
                "it was learned from simulated machines and has proved nothing on this cluster"
                    .into(),
            )],
            judged: Some((at(0), at(86_400), 40, 8)),
        },
        costs: vec![CardCosts {
            incident_cost: 2.0,
            threshold: 0.625,
            cost: 0.05,
            against: vec![("never_act", 0.2, (-0.2, -0.1))],
        }],
        threshold: CardThreshold {
            incident_cost: 2.0,
            efficacy: 0.8,
            implied: 0.625,
        },
        notes: vec![
            "Learned from a simulated fleet: it has proved nothing about this cluster, so it may \
             set a label and no more unless model.act_untrained says otherwise."
                .into(),
        ],
    }
}

fn drift() -> Drift {
    let feature = |name: &str, importance, index, missing| FeatureDrift {
        feature: name.into(),
        importance,
        index,
        missing,
        far_out: 0.0,
    };
    Drift {
        measured: Measured {
            rows: 6_912,
            hours: 24,
            reference: true,
            score: Some(0.03),
            features: vec![
                feature("disk_await_write", 0.21, Some(0.24), 0.0),
                feature("disk_busy", 0.12, Some(0.02), 0.0),
                feature("mem_used", 0.17, Some(0.01), 0.01),
                feature("temp_vs_crit", 0.05, None, 1.0),
            ],
        },
        warn: 0.2,
        alarm: 0.3,
        alarmed: false,
        outcomes: Some(Outcomes {
            lasting: Duration::from_secs(7 * 86_400),
            expected: 11.5,
            observed: 9,
            low: 4.1,
            high: 17.1,
        }),
    }
}

pub(super) fn events(log: &EventLog) {
    let worker: NodeName = "worker-03".into();
    let story = [
        (
            EventKind::Risk,
            "at_risk",
            "risk 0.91: disk_await_write 84 ms (usually 3 ms)",
        ),
        (
            EventKind::Alert,
            "acting",
            "NodeDiskIOSaturation fires: floor 0.80, reach evict",
        ),
        (
            EventKind::Taint,
            "ok",
            "tainted degradation=true:NoSchedule: at risk for 5 s",
        ),
        (EventKind::Drain, "started", "drain started: 11 Pods to go"),
    ];
    log.push(NewEvent::new(
        at(0),
        EventKind::Started,
        "foreshock 0.1.0 started",
    ));
    for (second, (kind, reason, message)) in story.into_iter().enumerate() {
        let event = NewEvent::new(at(second as i64 + 1), kind, message);
        log.push(event.node(&worker).reason(reason));
    }
    for pod in 0..4 {
        log.push(
            NewEvent::new(
                at(10 + pod),
                EventKind::Evict,
                "evicted, and gone after 1.9 s",
            )
            .node(&worker)
            .pod(format!("shop/cart-7d9f-{pod}"))
            .reason("evicted"),
        );
    }
    log.push(
        NewEvent::new(
            at(18),
            EventKind::Moved,
            "moved 4 Pods from worker-03 to worker-01 (3), worker-05 (1) in 8.2 s",
        )
        .node(&worker),
    );
    log.push(
        NewEvent::new(
            at(19),
            EventKind::Alert,
            format!("alert {HOSTILE} names no Node"),
        )
        .reason("unknown_node"),
    );
}

pub(super) fn pod(name: &str) -> PodFacts {
    PodFacts {
        id: PodId {
            namespace: "shop".into(),
            name: name.into(),
            uid: format!("uid-{name}").into(),
        },
        owner: Some(Owner {
            group: "apps".into(),
            kind: "ReplicaSet".into(),
            name: "cart-7d9f".into(),
            uid: "rs".into(),
        }),
        workload: Ok(None),
        daemon_set_gone: false,
        mirror: false,
        finished: false,
        ready: true,
        terminating_until: None,
        finalizers: Vec::new(),
        grace: Duration::from_secs(30),
        empty_dir: false,
        local_volumes: false,
        devices: Vec::new(),
        dependency: None,
        claims: Vec::new(),
        volumes: Vec::new(),
        critical: false,
        opted_out: None,
        tolerates_taint: false,
        own: false,
        budgets: Vec::new(),
        needs: Needs::default(),
    }
}

fn pods() -> Vec<PodFacts> {
    let budget = |name: &str, allowance| Budget {
        name: name.into(),
        allowance,
        observed: true,
        unsettled: false,
        detail: "3 of 3 healthy, 2 wanted".into(),
    };
    let mut pods: Vec<PodFacts> = (0..5).map(|n| pod(&format!("cart-7d9f-{n}"))).collect();
    for pod in &mut pods[..3] {
        pod.budgets = vec![budget("cart", EvictionAllowance::Now(1))];
    }
    pods[0].terminating_until = Some(at(60));
    pods[4].devices = vec!["nvidia.com/gpu".into()];
    let mut ledger = pod("ledger-0");
    ledger.budgets = vec![budget("ledger", EvictionAllowance::Never)];
    ledger.claims = vec!["data-ledger-0".into()];
    let mut cache = pod("cache-5f");
    cache.empty_dir = true;
    let mut exporter = pod("node-exporter-k2");
    if let Some(owner) = &mut exporter.owner {
        owner.kind = "DaemonSet".into();
        owner.name = "node-exporter".into();
    }
    let mut alone = pod("debug-shell");
    alone.owner = None;
    pods.extend([ledger, cache, exporter, alone]);
    pods
}

/// What is behind the doors, with what was asked of it.
#[derive(Default)]
pub(super) struct Doors {
    pub(super) received: Mutex<Vec<Bytes>>,
    pub(super) switched: Mutex<Vec<bool>>,
    /// Whether the switch can be set.
    pub(super) stuck: bool,
    /// Whether it survives the end of the process.
    pub(super) lasting: bool,
    /// Who leads; this process where it is `None`.
    pub(super) lead: Mutex<Option<Lead>>,
    /// What became of webhooks that were handed on.
    pub(super) handed_on: Mutex<Vec<bool>>,
}

impl Leads for Doors {
    fn who(&self) -> Lead {
        self.lead.lock().unwrap().clone().unwrap_or(Lead::Here)
    }

    fn handed_on(&self, taken: bool) {
        self.handed_on.lock().unwrap().push(taken);
    }
}

impl Webhook for Doors {
    fn receive(&self, body: Bytes) -> WebhookAnswer {
        let answer = match &body[..] {
            b"full" => WebhookAnswer::QueueFull,
            b"panic" => panic!("made to"),
            [b'{', ..] => WebhookAnswer::Accepted { alerts: 1 },
            _ => WebhookAnswer::Malformed {
                problem: "not JSON".into(),
            },
        };
        self.received.lock().unwrap().push(body);
        answer
    }
}

impl Doors {
    fn switch(&self, paused: bool) -> BoxFuture<'_, Result<Switched, ControlError>> {
        self.switched.lock().unwrap().push(paused);
        let lasting = self.lasting;
        let result = if self.stuck {
            Err(ControlError::NotRecorded {
                problem: "forbidden".into(),
            })
        } else {
            Ok(Switched { paused, lasting })
        };
        Box::pin(async move { result })
    }
}

impl Control for Doors {
    fn pause(&self) -> BoxFuture<'_, Result<Switched, ControlError>> {
        self.switch(true)
    }

    fn resume(&self) -> BoxFuture<'_, Result<Switched, ControlError>> {
        self.switch(false)
    }
}

impl Plans for Doors {
    fn facts(&self, node: &NodeId) -> BoxFuture<'_, Result<PlanFacts, PlanError>> {
        let result = if node.name.as_str() == "worker-12" {
            Err(PlanError::Unread {
                problem: "timeout".into(),
            })
        } else {
            Ok(PlanFacts {
                at: at(40),
                pods: pods(),
                rules: rules(),
                rate: 20.0,
                room: None,
                dry_runs: std::collections::BTreeMap::new(),
                surges: std::collections::BTreeMap::new(),
                alone: std::collections::BTreeMap::new(),
            })
        };
        Box::pin(async move { result })
    }
}

/// Everything that the web needs, and the other ends of it.
pub(super) struct Scene {
    pub(super) state: WebState,
    pub(super) doors: Arc<Doors>,
    pub(super) snapshots: watch::Sender<Arc<Snapshot>>,
    pub(super) events: Arc<EventLog>,
}

pub(super) fn scene(snapshot: Snapshot) -> Scene {
    scene_with(snapshot, Doors::default())
}

pub(super) fn scene_with(snapshot: Snapshot, doors: Doors) -> Scene {
    let now = snapshot.at;
    let events = Arc::new(EventLog::new(at(0)));
    let (tx, rx) = watch::channel(Arc::new(snapshot));
    let doors = Arc::new(doors);
    Scene {
        state: WebState {
            snapshots: rx,
            events: events.clone(),
            metrics: Arc::new(|| "foreshock_paused 0\n# EOF\n".to_owned()),
            webhook: doors.clone(),
            control: doors.clone(),
            plans: doors.clone(),
            leads: doors.clone(),
            clock: Arc::new(move || after(now, Duration::from_secs(1))),
        },
        doors,
        snapshots: tx,
        events,
    }
}
