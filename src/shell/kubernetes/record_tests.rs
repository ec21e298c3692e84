use foreshock_core::drain::PodOutcome;
use foreshock_core::record::{Input, Ramp};
use proptest::prelude::*;

use super::*;

fn timestamp() -> impl Strategy<Value = Timestamp> {
    (0_i64..4_000_000_000, 0_i32..1_000_000_000)
        .prop_map(|(second, nano)| Timestamp::new(second, nano).expect("in range"))
}

fn taint() -> impl Strategy<Value = Taint> {
    (
        "[a-z]{1,10}(/[a-z]{1,10})?",
        "[a-z]{0,5}",
        prop_oneof![
            Just(TaintEffect::NoSchedule),
            Just(TaintEffect::PreferNoSchedule),
            Just(TaintEffect::NoExecute)
        ],
    )
        .prop_map(|(key, value, effect)| Taint { key, value, effect })
}

fn alert() -> impl Strategy<Value = ActingAlert> {
    (
        "[0-9a-f]{16}",
        "[A-Za-z]{1,40}",
        timestamp(),
        0.0..=1.0_f64,
        prop::sample::select(Reach::ALL.to_vec()),
        timestamp(),
    )
        .prop_map(
            |(fingerprint, name, starts_at, floor, reach, expires_at)| ActingAlert {
                fingerprint,
                name,
                starts_at,
                floor: Risk::new(floor).expect("within 0 and 1"),
                reach,
                expires_at,
            },
        )
}

fn outcome() -> impl Strategy<Value = NodeOutcome> {
    prop_oneof![
        Just(NodeOutcome::Drained),
        prop::sample::select(PodOutcome::ALL.to_vec()).prop_map(NodeOutcome::Ended)
    ]
}

fn surge() -> impl Strategy<Value = SurgeRecord> {
    let name = || "[a-z][a-z0-9-]{0,40}";
    (name(), name(), name(), name(), timestamp()).prop_map(
        |(namespace, deployment, pod, uid, since)| SurgeRecord {
            namespace: namespace.clone(),
            deployment,
            uid: Uid::from(uid.clone()),
            before: 1,
            pod: PodId {
                namespace,
                name: pod,
                uid: Uid::from(uid),
            },
            since,
        },
    )
}

fn record() -> impl Strategy<Value = NodeRecord> {
    let marks = (
        prop::option::of(taint()),
        prop::option::of(taint()),
        prop::option::of(prop_oneof![
            Just(RiskLabel::Caution),
            Just(RiskLabel::AtRisk)
        ]),
        prop::option::of("[a-z-]{0,20}"),
    )
        .prop_map(|(taint, caution_taint, label, label_before)| Marks {
            taint,
            caution_taint,
            label,
            label_before,
        });
    let drain = (
        timestamp(),
        any::<u32>(),
        prop::option::of((timestamp(), outcome())),
    )
        .prop_map(|(started_at, attempts, ended)| DrainRecord {
            started_at,
            attempts,
            ended,
        });
    (
        (
            prop::sample::select(RecordedPhase::ALL.to_vec()),
            timestamp(),
            prop::collection::vec(
                ".{0,40}".prop_map(|reason| clean(&reason, REASON_MAX)),
                0..8,
            ),
            prop::collection::vec(alert(), 0..16),
            prop::collection::vec(timestamp(), 0..16),
        ),
        prop::option::of(timestamp()),
        prop::option::of(timestamp()),
        any::<bool>(),
        marks,
        prop::option::of(drain),
        prop::collection::vec(surge(), 0..4),
    )
        .prop_map(
            |(
                (phase, since, reasons, alerts, repeats),
                released_at,
                veto_until,
                had_features,
                marks,
                drain,
                surges,
            )| {
                // Phase, taint and drain have to agree; a record that contradicts itself is unreadable.
                let phase = match (&marks.taint, &drain) {
                    (None, _) => RecordedPhase::Clear,
                    (Some(_), Some(DrainRecord { ended: None, .. })) => RecordedPhase::Draining,
                    (Some(_), _) if phase == RecordedPhase::Drained => phase,
                    (Some(_), _) => RecordedPhase::Tainted,
                };
                let drain = drain.filter(|_| phase != RecordedPhase::Clear);
                NodeRecord {
                    instance: "foreshock".to_owned(),
                    uid: Uid::from("1f-2e"),
                    phase,
                    since,
                    reasons,
                    alerts,
                    repeats,
                    released_at,
                    veto_until,
                    had_features,
                    marks,
                    drain,
                    surges,
                }
            },
        )
}

proptest! {
    #[test]
    fn a_record_is_read_back_as_it_was_written(record in record()) {
        let text = encode(&record).expect("fits");
        prop_assert_eq!(
            decode(Some(&text), "foreshock", &Uid::from("1f-2e")),
            RecordState::Ours(Box::new(record))
        );
    }

    #[test]
    fn a_cluster_record_is_read_back_as_it_was_written(
        drains in prop::collection::btree_map((timestamp(), "[a-z0-9.-]{1,30}"), "[0-9a-f-]{1,36}", 0..50),
        storm in prop::option::of((timestamp(), prop::option::of(timestamp()), prop::option::of(".{0,250}"))),
        ramp in prop::option::of((timestamp(), 1..1000_u32, prop::collection::btree_map("[a-z0-9.-]{1,30}", "[0-9a-f-]{1,36}", 0..20))),
    ) {
        let record = ClusterRecord {
            drains: drains
                .into_iter()
                .map(|((at, node), uid)| ((at, NodeName::from(node)), Uid::from(uid)))
                .collect(),
            storm: storm.map(|(since, calm_since, input)| Storm { since, about: "4 of 10 Nodes".into(), input: input.map(Input::Alert), calm_since }),
            ramp: ramp.map(|(since, width, nodes)| Ramp {
                since,
                width,
                nodes: nodes
                    .into_iter()
                    .map(|(node, uid)| (NodeName::from(node), Uid::from(uid)))
                    .collect(),
            }),
        };
        let text = encode_cluster(&record).expect("fits");
        prop_assert_eq!(decode_cluster(Some(&text)), Ok(record));
    }

    #[test]
    fn any_text_is_read_without_a_panic_and_never_taken_for_ours(text in ".{0,200}") {
        let state = decode(Some(&text), "foreshock", &Uid::from("1f-2e"));
        prop_assert!(matches!(state, RecordState::Unreadable { .. }), "{:?}", state);
        let _ = decode_cluster(Some(&text));
    }

    #[test]
    fn a_damaged_record_is_read_without_a_panic(record in record(), at in any::<prop::sample::Index>(), with in ".") {
        let text = encode(&record).expect("fits");
        let mut chars: Vec<char> = text.chars().collect();
        let at = at.index(chars.len());
        chars[at] = with.chars().next().unwrap_or('x');
        let damaged: String = chars.into_iter().collect();
        let _ = decode(Some(&damaged), "foreshock", &Uid::from("1f-2e"));
    }
}

#[test]
fn what_is_not_ours_is_told_apart() {
    let clear = NodeRecord::clear("foreshock", &Uid::from("a"), Timestamp::UNIX_EPOCH);
    let text = encode(&clear).expect("fits");
    let ours = Uid::from("a");
    let check = |text: Option<&str>, instance: &str, uid: &Uid, expected: &str| {
        let state = decode(text, instance, uid);
        assert!(
            format!("{state:?}").contains(expected),
            "{text:?} gave {state:?}"
        );
    };
    check(None, "foreshock", &ours, "Absent");
    check(Some(&text), "foreshock", &ours, "Ours");
    check(
        Some(&text),
        "other",
        &ours,
        "Foreign { instance: \"foreshock\" }",
    );
    check(Some(&text), "foreshock", &Uid::from("b"), "OtherUid");
    check(
        Some(&text.replace("\"version\":1", "\"version\":2")),
        "foreshock",
        &ours,
        "version 2",
    );
    check(
        Some(&text.replace("clear", "melted")),
        "foreshock",
        &ours,
        "melted",
    );
    check(
        Some(&text.replace("\"marks\":{", "\"marks\":{\"condition\":true")),
        "foreshock",
        &ours,
        "condition",
    );
    check(
        Some("{\"version\":1}"),
        "foreshock",
        &ours,
        "names no instance",
    );
    check(Some("[]"), "foreshock", &ours, "Unreadable");
    check(Some(""), "foreshock", &ours, "Unreadable");
    check(Some(&"{".repeat(10_000)), "foreshock", &ours, "Unreadable");
    check(Some(&"[".repeat(60_000)), "foreshock", &ours, "Unreadable");
    check(
        Some(&" ".repeat(NODE_RECORD_BYTES_MAX + 1)),
        "foreshock",
        &ours,
        "bytes",
    );
}

#[test]
fn the_largest_record_stays_below_a_tenth_of_what_annotations_may_take() {
    let mut record = NodeRecord::clear("foreshock", &Uid::from("a"), Timestamp::UNIX_EPOCH);
    record.reasons = vec!["\u{7}<script>".repeat(10_000); 100];
    record.alerts = vec![
        ActingAlert {
            fingerprint: "f".repeat(1000),
            name: "é\n".repeat(1000),
            starts_at: Timestamp::UNIX_EPOCH,
            floor: Risk::ZERO,
            reach: Reach::Evict,
            expires_at: Timestamp::UNIX_EPOCH,
        };
        100
    ];
    record.repeats = vec![Timestamp::UNIX_EPOCH; 100];
    let text = encode(&record).expect("fits");
    assert!(text.len() < 26_000, "{}", text.len());
    assert!(!text.contains('\u{7}') && !text.contains("\\u0007"));
    assert!(
        decode(Some(&text), "foreshock", &Uid::from("a"))
            .ours()
            .is_some()
    );
}

#[test]
fn a_record_that_contradicts_itself_stops_its_own_node_and_no_other() {
    let uid = Uid::from("1f-2e");
    let tainted = NodeRecord {
        phase: RecordedPhase::Tainted,
        ..NodeRecord::clear("foreshock", &uid, Timestamp::UNIX_EPOCH)
    };
    let text = encode(&tainted).expect("fits");
    let state = decode(Some(&text), "foreshock", &uid);
    assert!(matches!(state, RecordState::Unreadable { .. }), "{state:?}");
}

#[test]
fn what_is_written_keeps_the_rules_of_kubernetes() {
    use crate::kubernetes::names;
    let fits = |text: &str| {
        let bytes = text.as_bytes();
        let ends = [bytes.first(), bytes.last()];
        text.len() <= 63
            && ends
                .iter()
                .all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
            && bytes
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
    };
    for value in [RiskLabel::Caution, RiskLabel::AtRisk] {
        assert!(fits(value.as_str()), "{value:?}");
    }
    for key in [
        names::LABEL_RISK,
        names::ANNOTATION_STATE,
        names::ANNOTATION_PAUSED,
        names::ANNOTATION_ADDRESS,
        names::ANNOTATION_CLUSTER_STATE,
    ] {
        let (prefix, name) = key.split_once('/').expect("our names have our prefix");
        assert_eq!(prefix, "foreshock.dev");
        assert!(fits(name), "{key}");
    }
}

#[test]
fn the_largest_record_of_surges_can_be_read_back() {
    let long = |letter: char| letter.to_string().repeat(253);
    let surge = |n: usize| SurgeRecord {
        namespace: long('n'),
        deployment: long('d'),
        uid: Uid::from(format!("{n:036}")),
        before: 1,
        pod: PodId {
            namespace: long('n'),
            name: long('p'),
            uid: Uid::from(format!("{n:036}")),
        },
        since: Timestamp::UNIX_EPOCH,
    };
    let mut record = NodeRecord::clear("foreshock", &Uid::from("u"), Timestamp::UNIX_EPOCH);
    record.surges = (0..NodeRecord::SURGES_MAX).map(surge).collect();
    let text = encode(&record).expect("fits");
    assert!(text.len() < 34 * 1024, "{} bytes", text.len());
    let read = decode(Some(&text), "foreshock", &Uid::from("u"));
    assert_eq!(read, RecordState::Ours(Box::new(record.clone())));
    // One more is not ours.
    record.surges.push(surge(99));
    let text = encode(&record).expect("fits");
    let read = decode(Some(&text), "foreshock", &Uid::from("u"));
    assert!(matches!(read, RecordState::Unreadable { .. }));
}

/// Anybody who may write to a Node may write its record, and what stands in it becomes part of a path.
#[test]
fn a_surge_that_we_would_not_have_written_makes_the_record_unreadable() {
    let surges = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut surge = serde_json::json!({
            "namespace": "shop", "deployment": "web", "uid": "d", "replicas_before": 1,
            "pod": "web-1", "pod_uid": "p", "since": "2026-01-01T00:00:00Z",
        });
        change(&mut surge);
        let clear = NodeRecord::clear("foreshock", &Uid::from("u"), Timestamp::UNIX_EPOCH);
        let mut text: serde_json::Value =
            serde_json::from_str(&encode(&clear).expect("fits")).expect("JSON");
        text["marks"]["surges"] = serde_json::json!([surge]);
        decode(Some(&text.to_string()), "foreshock", &Uid::from("u"))
    };
    let read = surges(&|_| {});
    assert_eq!(read.ours().expect("ours").surges[0].deployment, "web");
    type Change<'a> = &'a dyn Fn(&mut serde_json::Value);
    let changes: [Change<'_>; 6] = [
        &|surge| surge["deployment"] = "web/../../nodes/a".into(),
        &|surge| surge["namespace"] = "".into(),
        &|surge| surge["pod"] = "..".into(),
        &|surge| surge["replicas_before"] = 0.into(),
        &|surge| surge["replicas_before"] = 2.into(),
        &|surge| surge["more"] = 2.into(),
    ];
    for change in changes {
        assert!(matches!(surges(change), RecordState::Unreadable { .. }));
    }
}
