use super::*;

#[test]
fn a_mark_is_refused_where_the_node_is_not_as_the_decision_saw_it() {
    type Meanwhile = fn(&SimulatedCluster, &NodeName);
    let name = NodeName::from("a");
    let check = |cause: Cause, meanwhile: Meanwhile, expected: &str| {
        let cluster = small(vec![]);
        let id = node(&cluster, "a");
        let (expects, record) = match cause {
            Cause::Taint => (None, Some(tainted(&id))),
            Cause::DrainStart => {
                taint(&cluster, "a");
                let draining = NodeRecord {
                    phase: RecordedPhase::Draining,
                    ..tainted(&id)
                };
                (Some(tainted(&id)), Some(draining))
            }
            _ => {
                taint(&cluster, "a");
                (Some(tainted(&id)), None)
            }
        };
        let order = order(&id, cause, expects, record);
        meanwhile(&cluster, &name);
        let shown = || cluster.nodes().borrow().nodes.get("a").cloned();
        let before = shown();
        match now(cluster.mark(&order)) {
            Err(ClusterError::Superseded { detail, .. }) if !expected.is_empty() => {
                assert!(detail.contains(expected), "{detail}");
                assert_eq!(shown(), before);
            }
            Ok(_) if expected.is_empty() => {}
            other => panic!("{cause:?}, {expected}: {other:?}"),
        }
    };
    let foreign = |cluster: &SimulatedCluster, name: &NodeName| {
        let theirs = Taint {
            value: "maintenance".into(),
            ..our_taint()
        };
        cluster.add_taint(name, theirs);
    };
    check(Cause::Taint, |_, _| {}, "");
    check(
        Cause::Taint,
        foreign,
        "somebody else's taint degradation=maintenance:NoSchedule",
    );
    check(
        Cause::Taint,
        |cluster, name| {
            cluster.add_taint(name, our_taint());
        },
        "somebody else's",
    );
    check(
        Cause::Taint,
        |cluster, name| {
            cluster.set_excluded(name, true);
        },
        "foreshock.dev/exclude",
    );
    check(
        Cause::Taint,
        |cluster, name| {
            cluster.set_hold_until(name, Some(HoldUntil::Time(at(1_000))));
        },
        "foreshock.dev/hold-until",
    );
    check(
        Cause::Taint,
        |cluster, name| {
            cluster.set_hold_until(name, Some(HoldUntil::Malformed("soon".into())));
        },
        "foreshock.dev/hold-until",
    );
    check(
        Cause::Taint,
        |cluster, name| {
            cluster.set_hold_until(name, Some(HoldUntil::Time(start())));
        },
        "",
    );
    check(
        Cause::Taint,
        |cluster, name| {
            cluster.set_taken_by(name, Some("kured"));
        },
        "kured",
    );
    check(
        Cause::Taint,
        |cluster, name| {
            cluster.set_risk_label(name, Some("mine"));
        },
        "label",
    );
    check(
        Cause::Taint,
        |cluster, name| {
            cluster.recreate_node(name);
        },
        "another Node",
    );
    check(
        Cause::Taint,
        |cluster, name| {
            cluster.delete_node(name);
        },
        "does not exist",
    );
    check(
        Cause::Taint,
        |cluster, name| {
            cluster.set_record(
                name,
                RecordState::Foreign {
                    instance: "other".into(),
                },
            );
        },
        "other",
    );
    check(Cause::DrainStart, |_, _| {}, "");
    check(
        Cause::DrainStart,
        |cluster, name| {
            cluster.remove_taint(name, "degradation");
        },
        "not there any more",
    );
    check(
        Cause::DrainStart,
        |cluster, name| {
            cluster.set_record(name, RecordState::Absent);
        },
        "gone",
    );
    check(
        Cause::DrainStart,
        |cluster, name| {
            cluster.set_excluded(name, true);
        },
        "exclude",
    );
    check(Cause::Release, |_, _| {}, "");
    check(
        Cause::Release,
        |cluster, name| {
            cluster.set_excluded(name, true);
        },
        "exclude",
    );
    check(
        Cause::Release,
        |cluster, name| {
            cluster.set_taken_by(name, Some("kured"));
        },
        "",
    );
    check(
        Cause::Release,
        |cluster, name| {
            cluster.remove_taint(name, "degradation");
        },
        "not there any more",
    );
    check(
        Cause::Veto,
        |cluster, name| {
            cluster.remove_taint(name, "degradation");
        },
        "",
    );
    check(Cause::Veto, |_, _| {}, "there again");
}

#[test]
fn a_release_takes_only_what_is_ours_and_restores_what_was_there() {
    let cluster = small(vec![]);
    let name = NodeName::from("a");
    cluster.set_risk_label(&name, Some("mine"));
    let theirs = Taint {
        key: "dedicated".into(),
        value: "gpu".into(),
        effect: TaintEffect::NoSchedule,
    };
    cluster.add_taint(&name, theirs.clone());
    let before = entry(&cluster, "a");
    let id = node(&cluster, "a");
    let mut record = tainted(&id);
    record.marks.label_before = Some("mine".into());
    let marked =
        now(cluster.mark(&order(&id, Cause::Taint, None, Some(record.clone())))).expect("tainted");
    assert_eq!(marked.facts.taints, [theirs, our_taint()]);
    assert_eq!(
        marked.facts.record,
        RecordState::Ours(Box::new(record.clone()))
    );
    assert_ne!(marked.resource_version, before.resource_version);
    assert_eq!(entry(&cluster, "a"), marked);
    let released =
        now(cluster.mark(&order(&id, Cause::Release, Some(record), None))).expect("released");
    assert_eq!(released.facts, before.facts);
    assert_eq!(released.labels, before.labels);
}
