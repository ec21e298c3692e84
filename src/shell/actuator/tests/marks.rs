//! Marks: their order, their pace, and what holds them.

use super::*;

#[tokio::test(start_paused = true)]
async fn marks_are_made_paced_and_reported_and_releases_come_before_beginnings() {
    let cluster = Fake::new();
    let names = ["a", "b", "c", "d", "e", "f"];
    for name in names {
        cluster.node(name, None);
    }
    cluster.node("z", Some(&tainted("z")));
    let mut scene = Scene::with(
        &cluster,
        ActuatorOptions {
            marks_per_second: 2,
            ..OPTIONS
        },
    )
    .await;
    scene.plan(|plan| {
        plan.marks = names.map(taint_it).to_vec();
        plan.marks.push(release_it("z"));
    });
    scene
        .until("all marked", |scene| scene.cluster.marked().len() == 7)
        .await;
    assert_eq!(cluster.marked()[0], "z");
    let times: Vec<Duration> = cluster
        .inner()
        .writes
        .iter()
        .filter(|(_, write)| matches!(write, Write::Mark(_)))
        .map(|(at, _)| *at)
        .collect();
    for (at, later) in times.iter().zip(&times[2..]) {
        assert!(*later - *at >= Duration::from_secs(1), "{times:?}");
    }
    scene.pass(Duration::from_secs(1)).await;
    let sent = scene
        .seen
        .iter()
        .filter(|report| matches!(report, Report::MarkSent { .. }))
        .count();
    let marked = scene
        .seen
        .iter()
        .filter(|report| matches!(report, Report::Marked { .. }))
        .count();
    assert_eq!((sent, marked), (7, 7));
    assert!(cluster.record("z").is_none() && cluster.record("a").is_some());
    assert_eq!(
        cluster
            .written()
            .iter()
            .filter(|write| **write == Write::Event("DegradationTainted"))
            .count(),
        6
    );
}

#[tokio::test(start_paused = true)]
async fn a_veto_is_told_in_an_event() {
    let cluster = Fake::new();
    cluster.node("a", Some(&tainted("a")));
    // A person removes the taint, and leaves the record.
    cluster.untaint("a");
    let mut scene = Scene::new(&cluster).await;
    let mut vetoed = tainted("a");
    vetoed.phase = RecordedPhase::Clear;
    vetoed.marks = foreshock_core::record::Marks::default();
    scene.plan(|plan| plan.marks = vec![order(Cause::Veto, Some(tainted("a")), Some(vetoed))]);
    scene
        .until("the Event", |scene| {
            let told = Write::Event("DegradationVetoed");
            scene.cluster.written().contains(&told)
        })
        .await;
    assert_eq!(cluster.marked(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_mark_that_the_next_plan_does_not_have_is_withdrawn() {
    let cluster = Fake::new();
    for name in ["a", "b", "c"] {
        cluster.node(name, None);
    }
    let mut scene = Scene::slow(&cluster).await;
    scene.plan(|plan| plan.marks = ["a", "b", "c"].map(taint_it).to_vec());
    scene.pass(Duration::from_millis(100)).await;
    assert_eq!(cluster.marked(), ["a"]);
    scene.plan(|plan| plan.marks = vec![taint_it("c")]);
    scene.pass(Duration::from_secs(10)).await;
    assert_eq!(cluster.marked(), ["a", "c"]);
}

#[tokio::test(start_paused = true)]
async fn an_order_that_comes_again_before_its_outcome_was_known_is_not_carried_out_twice() {
    let cluster = Fake::new();
    cluster.node("a", None);
    let mut scene = Scene::new(&cluster).await;
    cluster.inner().slow = Duration::from_millis(500);
    for _ in 0..10 {
        scene.plan(|plan| plan.marks = vec![taint_it("a")]);
        scene.pass(Duration::from_millis(100)).await;
    }
    scene.pass(Duration::from_secs(5)).await;
    assert_eq!(cluster.marked(), ["a"]);
    assert!(
        !scene
            .seen
            .iter()
            .any(|report| matches!(report, Report::MarkFailed { .. })),
        "{:?}",
        scene.seen
    );
}

#[tokio::test(start_paused = true)]
async fn a_mark_that_fails_is_reported_and_tried_again_only_by_a_later_plan() {
    let cluster = Fake::new();
    cluster.node("a", None);
    let mut scene = Scene::new(&cluster).await;
    cluster.inner().marks_fail = vec!["a".to_owned()];
    scene.plan(|plan| plan.marks = vec![taint_it("a")]);
    scene.pass(Duration::from_secs(30)).await;
    assert_eq!(cluster.marked(), ["a"]);
    assert!(scene.seen.iter().any(|report| matches!(
        report,
        Report::MarkFailed {
            cause: Cause::Taint,
            ..
        }
    )));
    cluster.inner().marks_fail.clear();
    scene.plan(|plan| plan.marks = vec![taint_it("a")]);
    scene.pass(Duration::from_secs(1)).await;
    assert!(cluster.record("a").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_a_person_changed_is_not_marked() {
    let cluster = Fake::new();
    cluster.node("a", Some(&tainted("a")));
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.marks = vec![taint_it("a")]);
    scene.pass(Duration::from_secs(1)).await;
    assert!(cluster.marked().is_empty());
    assert!(matches!(
        scene.seen.last(),
        Some(Report::MarkFailed {
            error: ClusterError::Superseded { .. },
            ..
        })
    ));
}

#[tokio::test(start_paused = true)]
async fn without_the_clusters_record_nothing_begins_and_what_is_there_is_still_released() {
    let cluster = Fake::new();
    cluster.node("a", None);
    cluster.node("z", Some(&tainted("z")));
    let mut scene = Scene::new(&cluster).await;
    let mut record = ClusterRecord::default();
    record
        .drains
        .insert((scene.now(), NodeName::from("a")), Uid::from("uid-a"));
    cluster.inner().lease_fails = true;
    scene.plan(|plan| {
        plan.cluster = Some(record.clone());
        plan.marks = vec![taint_it("a"), release_it("z")];
    });
    scene.pass(Duration::from_millis(500)).await;
    assert_eq!(cluster.marked(), ["z"]);
    assert!(
        scene
            .seen
            .iter()
            .any(|report| matches!(report, Report::RecordFailed { .. }))
    );
    assert!(scene.seen.iter().any(|report| matches!(
        report,
        Report::MarkFailed {
            cause: Cause::Taint,
            ..
        }
    )));
    // It can be written again: the record first, then the mark.
    cluster.inner().lease_fails = false;
    scene.pass(Duration::from_secs(3)).await;
    scene.plan(|plan| {
        plan.cluster = Some(record.clone());
        plan.marks = vec![taint_it("a")];
    });
    scene.pass(Duration::from_secs(1)).await;
    assert_eq!(cluster.marked(), ["z", "a"]);
    assert_eq!(cluster.lease_view().record, Ok(record));
}

#[tokio::test(start_paused = true)]
async fn pausing_stops_every_write_at_once_and_what_was_decided_before_is_not_made_up_for() {
    let cluster = Fake::new();
    for name in ["a", "b", "c", "d"] {
        cluster.node(name, None);
    }
    cluster.node("z", Some(&tainted("z")));
    let mut scene = Scene::slow(&cluster).await;
    scene.plan(|plan| plan.marks = ["a", "b", "c", "d"].map(taint_it).to_vec());
    scene
        .until("two marked", |scene| scene.cluster.marked().len() == 2)
        .await;
    cluster.edit_lease(|view| view.paused = true);
    let at = cluster.written().len();
    scene.pass(Duration::from_secs(60)).await;
    // Clean-up stops as well.
    scene.plan(|plan| plan.marks = vec![release_it("z")]);
    scene.pass(Duration::from_secs(60)).await;
    assert_eq!(cluster.written().len(), at, "{:?}", cluster.written());
    cluster.edit_lease(|view| view.paused = false);
    scene.pass(Duration::from_secs(60)).await;
    assert_eq!(cluster.marked().len(), 2, "only a new plan is carried out");
    scene.plan(|plan| plan.marks = vec![release_it("z")]);
    scene.pass(Duration::from_secs(5)).await;
    assert_eq!(cluster.marked().last().map(String::as_str), Some("z"));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_does_not_lead_writes_nothing_and_a_plan_from_before_is_not_carried_out() {
    let cluster = Fake::new();
    cluster.node("a", None);
    let first = Scene::new(&cluster).await;
    let mut second = Scene::start(&cluster, OPTIONS);
    second.plan(|plan| plan.marks = vec![taint_it("a")]);
    second.pass(Duration::from_secs(30)).await;
    assert!(cluster.marked().is_empty());
    drop(first.kill());
    second
        .until("leads", |scene| scene.leader.leadership().borrow().leader)
        .await;
    second.pass(Duration::from_secs(10)).await;
    assert!(
        cluster.marked().is_empty(),
        "it was decided on what another was acting on"
    );
    second.plan(|plan| plan.marks = vec![taint_it("a")]);
    second.pass(Duration::from_secs(1)).await;
    assert_eq!(cluster.marked(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_suspended_process_wakes_and_writes_nothing() {
    let cluster = Fake::new();
    for name in ["a", "b", "c"] {
        cluster.node(name, None);
    }
    let mut scene = Scene::slow(&cluster).await;
    scene.plan(|plan| plan.marks = ["a", "b", "c"].map(taint_it).to_vec());
    scene
        .until("one marked", |scene| scene.cluster.marked().len() == 1)
        .await;
    cluster.inner().lease_fails = true;
    cluster.clock.suspend(Duration::from_secs(60));
    scene.pass(Duration::from_secs(30)).await;
    assert_eq!(cluster.marked(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn with_reach_observe_nothing_is_ever_written() {
    let cluster = Fake::new();
    cluster.node("a", None);
    let mut scene = Scene::with(
        &cluster,
        ActuatorOptions {
            reach: Reach::Observe,
            ..OPTIONS
        },
    )
    .await;
    scene.plan(|plan| plan.marks = vec![taint_it("a")]);
    scene.pass(Duration::from_secs(60)).await;
    assert!(cluster.written().is_empty());
}

#[tokio::test(start_paused = true)]
async fn shutting_down_begins_nothing_and_waits_for_what_is_under_way() {
    let cluster = Fake::new();
    cluster.node("a", None);
    cluster.node("b", None);
    let mut scene = Scene::slow(&cluster).await;
    cluster.inner().slow = Duration::from_secs(3);
    scene.plan(|plan| plan.marks = ["a", "b"].map(taint_it).to_vec());
    scene
        .until("one sent", |scene| scene.cluster.marked().len() == 1)
        .await;
    scene.shutdown.cancel();
    scene.actuator.await.expect("ends");
    assert_eq!(cluster.marked(), ["a"]);
    let reports = scene.reports.drain();
    assert!(
        reports
            .iter()
            .any(|report| matches!(report, Report::Marked { .. })),
        "{reports:?}"
    );
}

/// Every plan was dropped for as long as the step, in silence.
#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_is_set_back_does_not_stop_the_leader() {
    let cluster = Fake::new();
    for name in ["a", "b"] {
        cluster.node(name, None);
    }
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.marks = vec![taint_it("a")]);
    scene.pass(Duration::from_millis(100)).await;
    cluster.clock.jump(jiff::SignedDuration::from_hours(-3));
    for _ in 0..3 {
        scene.plan(|plan| plan.marks = vec![taint_it("b")]);
        scene.pass(Duration::from_millis(100)).await;
    }
    assert_eq!(cluster.marked(), ["a", "b"]);
}

fn start_draining(name: &str) -> MarkOrder {
    order(
        Cause::DrainStart,
        Some(tainted(name)),
        Some(draining(name, START)),
    )
}

#[tokio::test(start_paused = true)]
async fn every_candidate_is_marked_before_any_is_drained() {
    let cluster = Fake::new();
    for name in ["a", "b", "c"] {
        cluster.node(name, None);
    }
    cluster.node("z", Some(&tainted("z")));
    cluster.inner().slow = Duration::from_millis(700);
    let mut scene = Scene::new(&cluster).await;
    // First in the plan, and last to be done.
    scene.plan(|plan| {
        plan.marks = vec![
            start_draining("z"),
            taint_it("a"),
            taint_it("b"),
            taint_it("c"),
        ];
    });
    scene
        .until("all marked", |scene| scene.cluster.marked().len() == 4)
        .await;
    assert_eq!(cluster.marked()[3], "z", "{:?}", cluster.marked());
    let through = |report: &&Report| {
        matches!(
            report,
            Report::Marked {
                cause: Cause::Taint,
                ..
            }
        )
    };
    let sent = |report: &Report| {
        matches!(
            report,
            Report::MarkSent {
                cause: Cause::DrainStart,
                ..
            }
        )
    };
    let drain_sent = scene.seen.iter().position(sent).expect("it was sent");
    assert_eq!(scene.seen[..drain_sent].iter().filter(through).count(), 3);
}

#[tokio::test(start_paused = true)]
async fn where_a_candidate_could_not_be_marked_no_drain_of_that_plan_starts() {
    let cluster = Fake::new();
    cluster.node("a", None);
    cluster.node("z", Some(&tainted("z")));
    let mut scene = Scene::new(&cluster).await;
    cluster.inner().marks_fail = vec!["a".to_owned()];
    let plan = |plan: &mut Plan| plan.marks = vec![taint_it("a"), start_draining("z")];
    scene.plan(plan);
    scene.pass(Duration::from_secs(30)).await;
    assert_eq!(cluster.marked(), ["a"]);
    cluster.inner().marks_fail.clear();
    scene.plan(plan);
    scene.pass(Duration::from_secs(5)).await;
    assert_eq!(cluster.marked(), ["a", "a", "z"]);
}

/// Plans are decided at a time of their own, which may lie behind by the time they arrive.
fn plan_of(scene: &Scene, at: Timestamp, change: impl FnOnce(&mut Plan)) {
    let mut plan = Plan::empty(at);
    change(&mut plan);
    scene.plans.send_replace(Some(Arc::new(plan)));
}

#[tokio::test(start_paused = true)]
async fn what_was_decided_before_a_pause_is_not_done_after_it_however_late_it_arrives() {
    let cluster = Fake::new();
    cluster.node("a", None);
    cluster.node("z", Some(&tainted("z")));
    let mut scene = Scene::new(&cluster).await;
    let before = scene.now();
    scene.pass(Duration::from_secs(1)).await;
    cluster.edit_lease(|view| view.paused = true);
    let paused_at = scene.now();
    scene.pass(Duration::from_secs(60)).await;
    cluster.edit_lease(|view| view.paused = false);
    scene.pass(Duration::from_secs(1)).await;
    let mut record = ClusterRecord::default();
    record
        .drains
        .insert((before, NodeName::from("a")), Uid::from("uid-a"));
    plan_of(&scene, before, |plan| {
        plan.cluster = Some(record.clone());
        plan.marks = vec![taint_it("a"), release_it("z")];
    });
    scene.pass(Duration::from_secs(60)).await;
    assert!(cluster.marked().is_empty(), "{:?}", cluster.written());
    assert_eq!(cluster.lease_view().record, Ok(ClusterRecord::default()));
    // Whoever decides at the moment of the pause or after it knows of it.
    plan_of(&scene, paused_at, |plan| plan.marks = vec![release_it("z")]);
    scene.pass(Duration::from_secs(1)).await;
    assert_eq!(cluster.marked(), ["z"]);
}

#[tokio::test(start_paused = true)]
async fn a_plan_from_the_moment_of_the_last_mark_releases_and_begins_nothing() {
    let cluster = Fake::new();
    for name in ["a", "b"] {
        cluster.node(name, None);
    }
    cluster.node("z", Some(&tainted("z")));
    let mut scene = Scene::new(&cluster).await;
    let at = scene.now();
    plan_of(&scene, at, |plan| plan.marks = vec![taint_it("a")]);
    scene
        .until("marked", |scene| scene.cluster.marked() == ["a"])
        .await;
    let sent = scene.seen.iter().find_map(|report| match report {
        Report::MarkSent { at, .. } => Some(*at),
        _ => None,
    });
    let sent = sent.expect("reported");
    let both = |plan: &mut Plan| plan.marks = vec![taint_it("b"), release_it("z")];
    plan_of(&scene, sent, both);
    scene.pass(Duration::from_secs(60)).await;
    assert_eq!(cluster.marked(), ["a", "z"], "it may not count the mark");
    scene.plan(|plan| plan.marks = vec![taint_it("b")]);
    scene.pass(Duration::from_secs(1)).await;
    assert_eq!(cluster.marked(), ["a", "z", "b"]);
}

#[tokio::test(start_paused = true)]
async fn the_same_order_at_the_moment_of_its_answer_is_not_sent_again() {
    let cluster = Fake::new();
    cluster.node("z", Some(&tainted("z")));
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.marks = vec![release_it("z")]);
    // No time passes: the answer has come, and the next plan could not know of it.
    while cluster.marked().is_empty() {
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    scene.plan(|plan| plan.marks = vec![release_it("z")]);
    scene.pass(Duration::from_secs(10)).await;
    assert_eq!(cluster.marked(), ["z"]);
    let failed = |report: &Report| matches!(report, Report::MarkFailed { .. });
    assert!(!scene.seen.iter().any(failed), "{:?}", scene.seen);
}

#[tokio::test(start_paused = true)]
async fn what_waited_when_the_lead_was_lost_is_not_done_when_it_is_back() {
    let cluster = Fake::new();
    for name in ["a", "b", "c"] {
        cluster.node(name, None);
    }
    let mut scene = Scene::slow(&cluster).await;
    scene.plan(|plan| plan.marks = ["a", "b", "c"].map(taint_it).to_vec());
    scene
        .until("one marked", |scene| scene.cluster.marked().len() == 1)
        .await;
    cluster.inner().lease_fails = true;
    cluster.clock.suspend(Duration::from_secs(60));
    scene
        .until("lost", |scene| !scene.leader.leadership().borrow().leader)
        .await;
    cluster.inner().lease_fails = false;
    scene
        .until("leads", |scene| scene.leader.leadership().borrow().leader)
        .await;
    scene.pass(Duration::from_secs(60)).await;
    assert_eq!(cluster.marked(), ["a"], "it was decided before");
    scene.plan(|plan| plan.marks = vec![taint_it("b")]);
    scene.pass(Duration::from_secs(2)).await;
    assert_eq!(cluster.marked(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_server_has_at_most_four_marks_under_way() {
    let cluster = Fake::new();
    let names = ["a", "b", "c", "d", "e", "f"];
    for name in names {
        cluster.node(name, None);
    }
    let mut scene = Scene::new(&cluster).await;
    cluster.inner().slow = Duration::from_secs(5);
    scene.plan(|plan| plan.marks = names.map(taint_it).to_vec());
    scene.pass(Duration::from_secs(4)).await;
    assert_eq!(cluster.marked().len(), MARKS_IN_FLIGHT_MAX);
    scene.pass(Duration::from_secs(5)).await;
    assert_eq!(cluster.marked().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_takes_longer_than_the_servers_own_limit_is_not_awaited() {
    let answered = async |slow: Duration| {
        let cluster = Fake::new();
        cluster.node("a", None);
        let mut scene = Scene::new(&cluster).await;
        cluster.inner().slow = slow;
        scene.plan(|plan| plan.marks = vec![taint_it("a")]);
        scene.pass(Duration::from_secs(20)).await;
        let last = scene.seen.iter().find_map(|report| match report {
            Report::Marked { .. } => Some(true),
            Report::MarkFailed {
                error: ClusterError::Timeout { limit, .. },
                ..
            } => {
                assert_eq!(*limit, WRITE_LIMIT + Duration::from_secs(1));
                Some(false)
            }
            _ => None,
        });
        last.expect("reported")
    };
    assert!(answered(WRITE_LIMIT + Duration::from_millis(900)).await);
    assert!(!answered(WRITE_LIMIT + Duration::from_millis(1_100)).await);
}

#[tokio::test(start_paused = true)]
async fn nothing_begins_in_room_that_was_not_freed_and_a_failed_beginning_holds_no_other() {
    let cluster = Fake::new();
    for name in ["a", "b"] {
        cluster.node(name, None);
    }
    cluster.node("z", Some(&tainted("z")));
    cluster.inner().marks_fail = vec!["z".to_owned()];
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.marks = vec![taint_it("b"), release_it("z")]);
    scene.pass(Duration::from_secs(60)).await;
    assert_eq!(cluster.marked(), ["z"]);
    let said = scene.seen.iter().any(|report| {
        matches!(report, Report::MarkFailed { node, error: ClusterError::Failed { detail, .. }, .. }
            if node.name.as_str() == "b" && detail.contains("free room"))
    });
    assert!(said, "{:?}", scene.seen);

    let cluster = Fake::new();
    for name in ["a", "b"] {
        cluster.node(name, None);
    }
    cluster.inner().marks_fail = vec!["a".to_owned()];
    let mut scene = Scene::slow(&cluster).await;
    scene.plan(|plan| plan.marks = ["a", "b"].map(taint_it).to_vec());
    scene.pass(Duration::from_secs(10)).await;
    assert_eq!(cluster.marked(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_was_found_closed_is_asked_again_after_a_while_and_no_sooner() {
    let cluster = Fake::new();
    cluster.node("a", None);
    let mut scene = Scene::new(&cluster).await;
    cluster.inner().lease_fails = true;
    cluster.clock.suspend(Duration::from_secs(60));
    scene.plan(|plan| plan.marks = vec![taint_it("a")]);
    scene.pass(Duration::from_millis(100)).await;
    // Time does not pass by itself while something is ready to run: a loop without a pause would end here.
    tokio::time::advance(GATE_PAUSE * 3).await;
    scene.pass(Duration::from_secs(10)).await;
    assert!(cluster.marked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_drain_is_told_as_what_it_was() {
    let told = async |outcome: NodeOutcome| {
        let cluster = Fake::new();
        cluster.node("a", Some(&draining("a", START)));
        let mut scene = Scene::new(&cluster).await;
        let mut over = draining("a", START);
        over.phase = RecordedPhase::Tainted;
        over.drain.as_mut().expect("draining").ended = Some((START, outcome));
        let end = order(Cause::DrainEnd, Some(draining("a", START)), Some(over));
        scene.plan(|plan| plan.marks = vec![end]);
        scene
            .until("told", |scene| !scene.cluster.inner().said.is_empty())
            .await;
        let inner = cluster.inner();
        (inner.said[0].reason, inner.said[0].warning)
    };
    for outcome in [PodOutcome::Cancelled, PodOutcome::Superseded] {
        let cancelled = ("DegradationDrainCancelled", false);
        assert_eq!(told(NodeOutcome::Ended(outcome)).await, cancelled);
    }
    let failed = ("DegradationDrainFailed", true);
    assert_eq!(told(NodeOutcome::Ended(PodOutcome::Deadline)).await, failed);
}
