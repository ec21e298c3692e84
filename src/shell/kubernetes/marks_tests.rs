use std::collections::BTreeMap;

use foreshock_core::drain::PodId;
use foreshock_core::node::Uid;
use foreshock_core::record::{RecordedPhase, RiskLabel, TaintEffect};
use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn taint(text: &str) -> Taint {
    let (key, rest) = text.split_once('=').expect("key=value:effect");
    let (value, effect) = rest.split_once(':').expect("value:effect");
    Taint {
        key: key.to_owned(),
        value: value.to_owned(),
        effect: record::effect(effect).expect("an effect"),
    }
}

fn ours() -> Taint {
    taint("degradation=true:NoSchedule")
}

fn caution() -> Taint {
    taint("degradation=caution:PreferNoSchedule")
}

fn clear() -> NodeRecord {
    NodeRecord::clear("foreshock", &Uid::from("u1"), NOW)
}

fn marked(marks: Marks) -> NodeRecord {
    let phase = if marks.taint.is_some() {
        RecordedPhase::Tainted
    } else {
        RecordedPhase::Clear
    };
    NodeRecord {
        phase,
        marks,
        ..clear()
    }
}

fn tainted() -> NodeRecord {
    marked(Marks {
        taint: Some(ours()),
        label: Some(RiskLabel::AtRisk),
        ..Marks::default()
    })
}

fn node(taints: &[&str], labels: Value, annotations: Value) -> Value {
    let taints: Vec<Value> = taints.iter().map(|text| raw(&taint(text))).collect();
    json!({
        "kind": "Node",
        "metadata": {
            "name": "a", "uid": "u1", "resourceVersion": "77",
            "labels": labels, "annotations": annotations,
        },
        "spec": {"taints": taints, "providerID": "x"},
    })
}

fn recorded(record: &NodeRecord) -> Value {
    json!({ANNOTATION_STATE: record::encode(record).expect("fits")})
}

fn order(cause: Cause, expects: Option<NodeRecord>, record: Option<NodeRecord>) -> MarkOrder {
    MarkOrder {
        node: NodeId::new("a", "u1"),
        cause,
        note: String::new(),
        expects: expects.map(Box::new),
        record: record.map(Box::new),
    }
}

/// What the API server makes of a merge patch (RFC 7386).
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    let into = into.as_object_mut().expect("made one above");
    for (key, value) in patch {
        if value.is_null() {
            into.remove(key);
        } else {
            merge(into.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

fn applied(document: &Value, order: &MarkOrder) -> Result<Value, Superseded> {
    let patch = patch_for(document, order, "foreshock", NOW)?;
    assert_eq!(
        patch["metadata"]["resourceVersion"], "77",
        "every patch has its precondition"
    );
    let mut after = document.clone();
    merge(&mut after, &patch);
    Ok(after)
}

#[test]
fn tainting_keeps_what_others_have_written_and_is_undone_without_a_trace() {
    let before = node(
        &["dedicated=db:NoExecute", "x=:NoSchedule"],
        json!({"zone": "z"}),
        json!({"theirs": "1"}),
    );
    let after = applied(&before, &order(Cause::Taint, None, Some(tainted()))).expect("as expected");
    assert_eq!(
        after["spec"]["taints"],
        json!([
            {"key": "dedicated", "value": "db", "effect": "NoExecute"},
            {"key": "x", "effect": "NoSchedule"},
            {"key": "degradation", "value": "true", "effect": "NoSchedule"},
        ])
    );
    assert_eq!(after["metadata"]["labels"][LABEL_RISK], "at-risk");
    assert_eq!(after["metadata"]["annotations"]["theirs"], "1");

    let released =
        applied(&after, &order(Cause::Release, Some(tainted()), None)).expect("as expected");
    assert_eq!(released, before);
}

#[test]
fn a_node_without_taints_has_no_empty_list_afterwards() {
    let mut before = node(&[], json!({}), json!({}));
    before["spec"] = json!({});
    let after = applied(&before, &order(Cause::Taint, None, Some(tainted()))).expect("as expected");
    let released =
        applied(&after, &order(Cause::Release, Some(tainted()), None)).expect("as expected");
    assert_eq!(released, before);
}

#[test]
fn the_label_that_stood_there_comes_back() {
    let before = node(&[], json!({LABEL_RISK: "theirs"}), json!({}));
    let mut record = tainted();
    record.marks.label_before = Some("theirs".to_owned());
    let after = applied(&before, &order(Cause::Taint, None, Some(record.clone()))).expect("fits");
    assert_eq!(after["metadata"]["labels"][LABEL_RISK], "at-risk");
    let released = applied(&after, &order(Cause::Release, Some(record), None)).expect("fits");
    assert_eq!(released["metadata"]["labels"][LABEL_RISK], "theirs");
}

#[test]
fn what_is_not_as_the_decision_saw_it_is_refused() {
    let check = |what: &str, document: Value, order: MarkOrder| {
        let result = patch_for(&document, &order, "foreshock", NOW);
        let problem = result.expect_err(what).to_string();
        assert!(problem.contains(what), "{problem:?} does not say {what:?}");
    };
    let taint_it = || order(Cause::Taint, None, Some(tainted()));
    let release_it = || order(Cause::Release, Some(tainted()), None);
    let drain_it = || {
        let mut draining = tainted();
        draining.phase = RecordedPhase::Draining;
        order(Cause::DrainStart, Some(tainted()), Some(draining))
    };
    let with_ours = || {
        node(
            &["degradation=true:NoSchedule"],
            json!({LABEL_RISK: "at-risk"}),
            recorded(&tainted()),
        )
    };

    // Somebody else's marks.
    check(
        "somebody else's taint degradation=false:NoSchedule",
        node(&["degradation=false:NoSchedule"], json!({}), json!({})),
        taint_it(),
    );
    check(
        "somebody else's taint degradation=true:NoSchedule",
        node(&["degradation=true:NoSchedule"], json!({}), json!({})),
        taint_it(),
    );
    check(
        "somebody else's taint degradation=true:NoExecute",
        node(&["degradation=true:NoExecute"], json!({}), json!({})),
        taint_it(),
    );
    check(
        "label foreshock.dev/risk",
        node(&[], json!({LABEL_RISK: "mine"}), json!({})),
        taint_it(),
    );
    // Another Node.
    let mut other = node(&[], json!({}), json!({}));
    other["metadata"]["uid"] = json!("u2");
    check("another Node", other, taint_it());
    check("cannot be read", json!({"metadata": {}}), taint_it());
    check("cannot be read", json!([]), taint_it());
    // Records.
    check("there is one already", with_ours(), taint_it());
    check(
        "it is gone",
        node(&["degradation=true:NoSchedule"], json!({}), json!({})),
        release_it(),
    );
    let mut changed = tainted();
    changed.had_features = true;
    check(
        "it has changed",
        node(
            &["degradation=true:NoSchedule"],
            json!({}),
            recorded(&changed),
        ),
        release_it(),
    );
    let foreign = NodeRecord {
        instance: "other".to_owned(),
        ..tainted()
    };
    check(
        "belongs to the instance \"other\"",
        node(&[], json!({}), recorded(&foreign)),
        taint_it(),
    );
    check(
        "version 9",
        node(&[], json!({}), json!({ANNOTATION_STATE: "{\"version\":9}"})),
        taint_it(),
    );
    // A person removed or changed our taint: that is a veto, to be decided on.
    check(
        "our taint degradation=true:NoSchedule is not there",
        node(&[], json!({}), recorded(&tainted())),
        release_it(),
    );
    check(
        "our taint degradation=true:NoSchedule is not there",
        node(
            &["degradation=maybe:NoSchedule"],
            json!({}),
            recorded(&tainted()),
        ),
        drain_it(),
    );
    check(
        "is there again",
        with_ours(),
        order(Cause::Veto, Some(tainted()), Some(clear())),
    );
    // Hands off.
    for (name, value) in [
        ("foreshock.dev/exclude", ""),
        ("foreshock.dev/hold-until", "2300-01-01T00:00:00Z"),
        ("foreshock.dev/hold-until", "tomorrow"),
    ] {
        let mut held = with_ours();
        held["metadata"]["annotations"][name] = json!(value);
        check("left alone", held.clone(), release_it());
        check("left alone", held, drain_it());
        check(
            "left alone",
            node(&[], json!({}), json!({name: value})),
            taint_it(),
        );
    }
    // However little of it would change: the taint alone, the label alone.
    let mut held = json!({"foreshock.dev/exclude": "true"});
    let bare = marked(Marks {
        taint: Some(ours()),
        ..Marks::default()
    });
    merge(&mut held, &recorded(&bare));
    check(
        "left alone",
        node(&["degradation=true:NoSchedule"], json!({}), held.clone()),
        order(Cause::Release, Some(bare), None),
    );
    let labelled = marked(Marks {
        label: Some(RiskLabel::Caution),
        ..Marks::default()
    });
    merge(&mut held, &recorded(&labelled));
    check(
        "left alone",
        node(&[], json!({LABEL_RISK: "caution"}), held),
        order(Cause::Caution, Some(labelled), Some(clear())),
    );
    check(
        "left alone: cluster-autoscaler",
        node(
            &["ToBeDeletedByClusterAutoscaler=1:NoSchedule"],
            json!({}),
            json!({}),
        ),
        taint_it(),
    );
    // An order that was made up wrongly.
    let mut wrong = tainted();
    wrong.instance = "other".to_owned();
    check(
        "instance \"other\"",
        node(&[], json!({}), json!({})),
        order(Cause::Taint, None, Some(wrong)),
    );
    let mut wrong = tainted();
    wrong.uid = Uid::from("u9");
    check(
        "UID u9",
        node(&[], json!({}), json!({})),
        order(Cause::Taint, None, Some(wrong)),
    );
}

#[test]
fn what_may_go_on_does() {
    let check = |document: Value, order: MarkOrder| {
        applied(&document, &order).unwrap_or_else(|problem| panic!("{:?}: {problem}", order.cause))
    };
    let with_ours = |annotations: Value| {
        node(
            &["degradation=true:NoSchedule"],
            json!({LABEL_RISK: "at-risk"}),
            annotations,
        )
    };
    // A hold that has run out holds nothing.
    for over in ["1969-01-01T00:00:00Z".to_owned(), NOW.to_string()] {
        check(
            node(&[], json!({}), json!({"foreshock.dev/hold-until": over})),
            order(Cause::Taint, None, Some(tainted())),
        );
    }
    // A record of a Node that had the name before is replaced.
    let old = NodeRecord {
        uid: Uid::from("u0"),
        ..tainted()
    };
    check(
        node(&[], json!({}), recorded(&old)),
        order(Cause::Taint, None, Some(tainted())),
    );
    // On an excluded Node the end of a drain is noted, and its marks stay.
    let mut excluded = recorded(&tainted());
    excluded["foreshock.dev/exclude"] = json!("true");
    let mut ended = tainted();
    ended.reasons = vec!["excluded".to_owned()];
    let after = check(
        with_ours(excluded),
        order(Cause::DrainEnd, Some(tainted()), Some(ended)),
    );
    assert_eq!(after["spec"]["taints"][0]["key"], "degradation");
    // The veto: the record follows what a person did, and the taint stays away.
    let vetoed = NodeRecord {
        veto_until: Some(NOW),
        ..clear()
    };
    let after = check(
        node(&["other=:NoSchedule"], json!({}), recorded(&tainted())),
        order(Cause::Veto, Some(tainted()), Some(vetoed)),
    );
    assert_eq!(
        after["spec"]["taints"],
        json!([{"key": "other", "effect": "NoSchedule"}])
    );
    // What is ours may leave a Node that somebody takes away.
    let mut going = with_ours(recorded(&tainted()));
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let after = check(going, order(Cause::Release, Some(tainted()), None));
    assert_eq!(after["spec"].get("taints"), None);
    // A label that somebody wrote over is theirs.
    let after = check(
        node(
            &["degradation=true:NoSchedule"],
            json!({LABEL_RISK: "mine"}),
            recorded(&tainted()),
        ),
        order(Cause::Release, Some(tainted()), None),
    );
    assert_eq!(after["metadata"]["labels"][LABEL_RISK], "mine");
    // From caution to at risk: one taint goes, the other comes, both with the same key.
    let cautious = marked(Marks {
        caution_taint: Some(caution()),
        label: Some(RiskLabel::Caution),
        ..Marks::default()
    });
    let after = check(
        node(
            &["degradation=caution:PreferNoSchedule"],
            json!({LABEL_RISK: "caution"}),
            recorded(&cautious),
        ),
        order(Cause::Taint, Some(cautious.clone()), Some(tainted())),
    );
    assert_eq!(after["spec"]["taints"], json!([raw(&ours())]));
    // Both of ours together.
    let both = marked(Marks {
        taint: Some(ours()),
        caution_taint: Some(caution()),
        label: Some(RiskLabel::Caution),
        ..Marks::default()
    });
    let after = check(
        node(
            &["degradation=caution:PreferNoSchedule"],
            json!({LABEL_RISK: "caution"}),
            recorded(&cautious),
        ),
        order(Cause::Taint, Some(cautious), Some(both)),
    );
    assert_eq!(
        after["spec"]["taints"],
        json!([raw(&caution()), raw(&ours())])
    );
}

#[test]
fn a_label_that_somebody_wrote_over_is_not_changed_either() {
    let labelled = |label| {
        marked(Marks {
            label: Some(label),
            ..Marks::default()
        })
    };
    let before = labelled(RiskLabel::Caution);
    let rises = order(
        Cause::Caution,
        Some(before.clone()),
        Some(labelled(RiskLabel::AtRisk)),
    );
    let with = |value: Value| node(&[], json!({ LABEL_RISK: value }), recorded(&before));
    let after = applied(&with(json!("caution")), &rises).expect("as expected");
    assert_eq!(after["metadata"]["labels"][LABEL_RISK], "at-risk");
    let theirs = applied(&with(json!("mine")), &rises);
    assert_eq!(
        theirs,
        Err(Superseded::ForeignLabel(Some("mine".to_owned())))
    );
    let gone = node(&[], json!({}), recorded(&before));
    assert_eq!(applied(&gone, &rises), Err(Superseded::ForeignLabel(None)));
}

#[test]
fn a_change_of_the_record_alone_leaves_the_taints_out_of_the_patch() {
    let mut later = tainted();
    later.reasons = vec!["disk_await_write 84 ms".to_owned()];
    let document = node(
        &["degradation=true:NoSchedule"],
        json!({LABEL_RISK: "at-risk"}),
        recorded(&tainted()),
    );
    let patch = patch_for(
        &document,
        &order(Cause::Record, Some(tainted()), Some(later)),
        "foreshock",
        NOW,
    )
    .expect("as expected");
    assert!(
        patch.get("spec").is_none() && patch["metadata"].get("labels").is_none(),
        "{patch}"
    );
}

/// The Node after a release, and what was said of it.
fn released(document: &Value, adopt: bool) -> (Value, String) {
    let mut after = document.clone();
    let said = match release(document, "foreshock", &[ours(), caution()], adopt) {
        Err(problem) => panic!("{problem}"),
        Ok(Release::Nothing) => "nothing".to_owned(),
        Ok(Release::Patch { patch, takes, .. }) => {
            assert_eq!(patch["metadata"]["resourceVersion"], "77");
            merge(&mut after, &patch);
            takes.join(", ")
        }
        Ok(Release::Lost(lost)) => {
            let whose = if lost.ours { "ours" } else { "anybody's" };
            format!("{whose}: {}", lost.marks.join(", "))
        }
    };
    (after, said)
}

#[test]
fn a_person_can_have_everything_removed_and_nothing_else() {
    const OURS: &str = "degradation=true:NoSchedule";
    const CAUTION: &str = "degradation=caution:PreferNoSchedule";
    let excluded = || json!({"foreshock.dev/exclude": "true"});
    let with = |record: &NodeRecord| {
        let mut annotations = recorded(record);
        annotations["foreshock.dev/exclude"] = json!("true");
        annotations
    };
    let bare = node(&["x=:NoSchedule"], json!({}), excluded());
    let check = |document: &Value, adopt: bool, expected: &Value, words: &str| {
        let (after, said) = released(document, adopt);
        assert_eq!((&after, said.as_str()), (expected, words));
    };
    let marked = node(
        &["x=:NoSchedule", OURS],
        json!({LABEL_RISK: "at-risk"}),
        with(&tainted()),
    );
    let all = "taint degradation=true:NoSchedule, label foreshock.dev/risk, record";
    check(&marked, false, &bare, all);
    check(&bare, false, &bare, "nothing");
    check(&bare, true, &bare, "nothing");
    // A record alone is ours as well: it holds repeats and vetoes.
    let remembered = node(&["x=:NoSchedule"], json!({}), with(&clear()));
    check(&remembered, false, &bare, "record");
    // Deployments that stand in it are scaled back before it goes.
    let mut surging = clear();
    surging.surges = vec![SurgeRecord {
        namespace: "shop".to_owned(),
        deployment: "web".to_owned(),
        uid: Uid::from("w"),
        before: 1,
        pod: PodId {
            namespace: "shop".to_owned(),
            name: "web-1".to_owned(),
            uid: Uid::from("p"),
        },
        since: NOW,
    }];
    let surging = node(&["x=:NoSchedule"], json!({}), with(&surging));
    let words = "Deployment shop/web, back to 1 unless somebody else has scaled it, record";
    check(&surging, false, &bare, words);

    // What stood there comes back; what a person has changed since is theirs.
    let mut before = tainted();
    before.marks.label_before = Some("mine".to_owned());
    let labelled = node(&[OURS], json!({LABEL_RISK: "at-risk"}), with(&before));
    let (after, said) = released(&labelled, false);
    assert_eq!(after["metadata"]["labels"][LABEL_RISK], "mine");
    assert!(said.contains("back to \"mine\""), "{said}");
    let changed = node(
        &["degradation=maybe:NoSchedule"],
        json!({LABEL_RISK: "theirs"}),
        with(&tainted()),
    );
    let theirs = node(
        &["degradation=maybe:NoSchedule"],
        json!({LABEL_RISK: "theirs"}),
        excluded(),
    );
    check(&changed, false, &theirs, "record");
    check(&changed, true, &theirs, "record");

    // Marks without a record are only taken on request.
    let orphan = node(
        &["x=:NoSchedule", OURS, CAUTION],
        json!({LABEL_RISK: "caution"}),
        excluded(),
    );
    let marks = "taint degradation=true:NoSchedule, taint degradation=caution:PreferNoSchedule, label foreshock.dev/risk";
    check(
        &orphan,
        false,
        &orphan,
        &format!("anybody's: {marks}=caution"),
    );
    check(&orphan, true, &bare, marks);
    // So are those with a record of ours that cannot be used.
    let old = NodeRecord {
        uid: Uid::from("u0"),
        ..tainted()
    };
    let damaged = json!({"foreshock.dev/exclude": "true", ANNOTATION_STATE: "{\"version\":1,"});
    for annotations in [with(&old), damaged] {
        let document = node(&["x=:NoSchedule", OURS], json!({}), annotations);
        let words = "taint degradation=true:NoSchedule, record";
        check(&document, false, &document, &format!("ours: {words}"));
        check(&document, true, &bare, words);
    }

    // Another instance's are never touched, not even by a record of a version that is not known.
    let foreign = NodeRecord {
        instance: "other".to_owned(),
        ..tainted()
    };
    let newer = json!({ANNOTATION_STATE: "{\"version\":9,\"instance\":\"other\"}"});
    for annotations in [recorded(&foreign), newer] {
        let document = node(&[OURS], json!({LABEL_RISK: "at-risk"}), annotations);
        check(&document, false, &document, "nothing");
        check(&document, true, &document, "nothing");
    }
}

fn foreign_taints() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::btree_map(
        ("[a-c]{1,2}|degradatio|degradation/x", 0..3_usize),
        ("[a-z]{0,3}", any::<bool>()),
        0..8,
    )
    .prop_map(|taints| {
        taints
            .into_iter()
            .map(|((key, effect), (value, odd))| {
                let effect = ["NoSchedule", "PreferNoSchedule", "NoExecute"][effect];
                let mut taint = json!({"key": key, "effect": effect});
                if !value.is_empty() {
                    taint["value"] = json!(value);
                }
                if odd {
                    // A field that this program does not know, and the time that the taint manager sets.
                    taint["timeAdded"] = json!("2026-01-01T00:00:00Z");
                    taint["fromTheFuture"] = json!({"a": [1]});
                }
                taint
            })
            .collect()
    })
}

fn marks() -> impl Strategy<Value = Marks> {
    (
        any::<bool>(),
        any::<bool>(),
        prop::option::of(prop_oneof![
            Just(RiskLabel::Caution),
            Just(RiskLabel::AtRisk)
        ]),
    )
        .prop_map(|(taint, cautious, label)| Marks {
            taint: taint.then(ours),
            caution_taint: cautious.then(caution),
            label,
            label_before: None,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nothing_foreign_is_ever_lost_or_changed(
        foreign in foreign_taints(),
        labels in prop::collection::btree_map("[a-z]{1,5}", "[a-z]{0,5}", 0..5),
        annotations in prop::collection::btree_map("[a-z]{1,5}", ".{0,20}", 0..5),
        before in marks(),
        after in marks(),
        position in any::<prop::sample::Index>(),
        recorded_before in any::<bool>(),
        removes_record in any::<bool>(),
    ) {
        // The Node carries what `before` says, in some place among the foreign taints.
        let before = if recorded_before { before } else { Marks::default() };
        let mut taints = foreign.clone();
        for taint in before.taint.iter().chain(&before.caution_taint) {
            let at = position.index(taints.len() + 1);
            taints.insert(at, raw(taint));
        }
        let mut labels: BTreeMap<String, String> = labels;
        let mut annotations: BTreeMap<String, String> = annotations;
        let foreign_labels = labels.clone();
        let foreign_annotations = annotations.clone();
        if let Some(label) = before.label {
            labels.insert(LABEL_RISK.to_owned(), label.as_str().to_owned());
        }
        let expects = recorded_before.then(|| marked(before.clone()));
        if let Some(record) = &expects {
            annotations.insert(ANNOTATION_STATE.to_owned(), record::encode(record).expect("fits"));
        }
        let wanted = if removes_record { Marks::default() } else { after };
        let record = (!removes_record).then(|| marked(wanted.clone()));
        let document = json!({
            "metadata": {"name": "a", "uid": "u1", "resourceVersion": "77", "labels": labels, "annotations": annotations},
            "spec": {"taints": taints, "unschedulable": true},
        });
        let after = applied(&document, &order(Cause::Record, expects, record.clone())).expect("nothing stands in the way");

        let is_ours = |raw: &&Value| is(raw, &ours()) || is(raw, &caution());
        let (mine, others): (Vec<Value>, Vec<Value>) = after["spec"]["taints"]
            .as_array().cloned().unwrap_or_default().into_iter()
            .partition(|raw| is_ours(&raw));
        prop_assert_eq!(others, foreign);
        prop_assert_eq!(mine.len(), wanted.taint.iter().chain(&wanted.caution_taint).count());
        let mut labels_after = after["metadata"]["labels"].as_object().cloned().unwrap_or_default();
        let ours_after = labels_after.remove(LABEL_RISK);
        prop_assert_eq!(Value::Object(labels_after), json!(foreign_labels));
        prop_assert_eq!(ours_after, wanted.label.map(|label| json!(label.as_str())));
        let mut annotations_after = after["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
        prop_assert_eq!(annotations_after.remove(ANNOTATION_STATE).is_some(), record.is_some());
        prop_assert_eq!(Value::Object(annotations_after), json!(foreign_annotations));
        prop_assert_eq!(&after["spec"]["unschedulable"], &json!(true));
    }

    #[test]
    fn a_release_takes_what_the_record_names_and_leaves_the_rest(
        foreign in foreign_taints(),
        labels in prop::collection::btree_map("[a-z]{1,5}", "[a-z]{0,5}", 0..5),
        mut marks in marks(),
        before in prop::option::of("[a-z]{1,5}"),
        position in any::<prop::sample::Index>(),
        adopt in any::<bool>(),
    ) {
        marks.label_before = before.filter(|_| marks.label.is_some());
        let mut taints = foreign.clone();
        for taint in marks.taint.iter().chain(&marks.caution_taint) {
            let at = position.index(taints.len() + 1);
            taints.insert(at, raw(taint));
        }
        let mut labels_before: BTreeMap<String, String> = labels.clone();
        if let Some(label) = marks.label {
            labels_before.insert(LABEL_RISK.to_owned(), label.as_str().to_owned());
        }
        let text = record::encode(&marked(marks.clone())).expect("fits");
        let document = json!({
            "metadata": {"name": "a", "uid": "u1", "resourceVersion": "77", "labels": labels_before, "annotations": {"a": "b", ANNOTATION_STATE: text}},
            "spec": {"taints": taints, "unschedulable": true},
        });
        let (after, _) = released(&document, adopt);
        prop_assert_eq!(after["spec"]["taints"].as_array().cloned().unwrap_or_default(), foreign);
        let mut expected = labels;
        if let Some(value) = marks.label_before {
            expected.insert(LABEL_RISK.to_owned(), value);
        }
        prop_assert_eq!(&after["metadata"]["labels"], &json!(expected));
        prop_assert_eq!(&after["metadata"]["annotations"], &json!({"a": "b"}));
        prop_assert_eq!(&after["spec"]["unschedulable"], &json!(true));
        // Again there is nothing to do.
        prop_assert_eq!(released(&after, adopt), (after.clone(), "nothing".to_owned()));
    }

    #[test]
    fn a_document_that_is_no_node_is_refused_without_a_panic(text in "[\\[\\]{}\",:a-z0-9]{0,60}") {
        if let Ok(document) = serde_json::from_str::<Value>(&text) {
            prop_assert!(patch_for(&document, &order(Cause::Taint, None, Some(tainted())), "foreshock", NOW).is_err());
            prop_assert!(release(&document, "foreshock", &[ours()], true).is_err());
        }
    }
}

#[test]
fn effects_are_those_of_kubernetes() {
    assert_eq!(record::effect("NoSchedule"), Some(TaintEffect::NoSchedule));
    assert_eq!(record::effect("noschedule"), None);
}
