//! What is not known is neither well nor at risk, and time that was not seen to pass has not passed.

use jiff::SignedDuration;

use super::*;

/// `recover_for` by default.
const RECOVER_FOR: u64 = 10 * MINUTE;
/// How long nothing is begun after a jump: `storm_window` by default.
const SETTLE_FOR: u64 = 5 * MINUTE;

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

#[tokio::test(start_paused = true)]
async fn a_node_that_looked_well_for_a_minute_has_not_been_well_for_six_hours_because_the_clock_says_so()
 {
    for by in [6, -6] {
        let scene = scene(10, "");
        scene.recovering("n03").await;
        let jumped_at = scene.clock.boottime().as_secs();
        scene.clock.jump(hours(by));
        scene.pass(RECOVER_FOR - MINUTE).await;
        assert_eq!(scene.done(Cause::Release, "n03"), None, "{by} h");
        // And it is no reason to wait for ever.
        scene.pass(3 * MINUTE).await;
        let released_at = scene.done(Cause::Release, "n03").expect("given back");
        assert!(
            released_at >= jumped_at + RECOVER_FOR,
            "{by} h: {released_at} after {jumped_at}"
        );
        let said = scene.said(EventKind::Health);
        let jumps = said
            .iter()
            .filter(|text| text.contains("the clock was set"));
        assert_eq!(
            jumps.count(),
            2,
            "the jump, and that health is degraded: {said:#?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_at_risk_for_a_moment_is_not_confirmed_by_a_jump() {
    for by in [6, -6] {
        let scene = scene(10, "");
        scene.pass(MINUTE).await;
        scene.risk("n03", 0.9);
        scene.pass(20).await;
        let jumped_at = scene.clock.boottime().as_secs();
        scene.clock.jump(hours(by));
        scene.pass(SETTLE_FOR - 10).await;
        assert_eq!(scene.writes(), 0, "{by} h");
        assert_eq!(scene.hold("n03"), Some(HoldReason::FactsUnknown));
        let problems = scene.snapshots.borrow().health.degraded.join("; ");
        assert!(problems.contains("the clock was set"), "{problems}");
        scene.pass(MINUTE).await;
        let tainted_at = scene.done(Cause::Taint, "n03").expect("tainted");
        assert!(tainted_at >= jumped_at + SETTLE_FOR, "{tainted_at}");
        assert!(scene.snapshots.borrow().health.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_suspended_has_not_seen_a_node_be_well() {
    let scene = scene(10, "");
    scene.recovering("n03").await;
    let suspended_at = scene.clock.boottime().as_secs();
    scene.clock.suspend(seconds(15 * MINUTE));
    scene.pass(RECOVER_FOR - MINUTE).await;
    assert_eq!(scene.done(Cause::Release, "n03"), None);
    scene.pass(3 * MINUTE).await;
    let released_at = scene.done(Cause::Release, "n03").expect("given back");
    assert!(released_at >= suspended_at + 15 * MINUTE + RECOVER_FOR);
    let said = scene.said(EventKind::Health).join("\n");
    assert!(said.contains("nothing was looked at for 15m"), "{said}");
    assert!(!said.contains("the clock was set"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn after_a_suspension_nothing_is_done_on_what_was_known_before() {
    let scene = scene(10, "");
    scene.pass(MINUTE).await;
    scene.risk("n03", 0.9);
    scene.pass(30).await;
    scene.clock.suspend(seconds(5 * MINUTE));
    scene.tell(|told| told.down = true);
    scene.pass(10 * MINUTE).await;
    assert_eq!(scene.writes(), 0);
    assert_eq!(scene.hold("n03"), Some(HoldReason::Unknown));
}

#[tokio::test(start_paused = true)]
async fn nodes_that_vanish_from_the_answers_are_unknown_and_not_well() {
    let scene = scene(10, "");
    scene.recovering("n03").await;
    let writes = scene.writes();
    scene.tell(|told| told.risks.retain(|name, _| name.as_str() >= "n05"));
    scene.pass(60 * MINUTE).await;
    for node in ["n00", "n01", "n02", "n04"] {
        assert_eq!(scene.hold(node), Some(HoldReason::Unknown), "{node}");
    }
    assert_eq!(scene.hold("n03"), Some(HoldReason::BlindedByTaint));
    for node in ["n05", "n09"] {
        assert_eq!(scene.hold(node), None, "{node}");
    }
    assert_eq!(
        scene.writes(),
        writes,
        "no mark is made, none is taken away"
    );
}

#[tokio::test(start_paused = true)]
async fn prometheus_gone_for_an_hour_marks_nothing_and_gives_nothing_back() {
    // Longer than the last score counts after Prometheus has gone.
    let scene = scene(10, "confirm_for = \"90s\"\n");
    scene.recovering("n03").await;
    scene.risk("n07", 0.9);
    scene.pass(20).await;
    let writes = scene.writes();
    scene.tell(|told| told.down = true);
    scene.pass(60 * MINUTE).await;
    assert_eq!(scene.writes(), writes);
    assert_eq!(scene.hold("n07"), Some(HoldReason::Unknown));
    assert_eq!(scene.hold("n03"), Some(HoldReason::Unknown));
    assert!(!scene.snapshots.borrow().health.prometheus.ok);

    // It is back: both begin their waits anew.
    let back_at = scene.clock.boottime().as_secs();
    scene.tell(|told| told.down = false);
    scene.pass(15 * MINUTE).await;
    let tainted_at = scene.done(Cause::Taint, "n07").expect("confirmed");
    let released_at = scene.done(Cause::Release, "n03").expect("given back");
    assert!(tainted_at >= back_at + 90, "{tainted_at} after {back_at}");
    assert!(released_at >= back_at + RECOVER_FOR);
}

#[tokio::test(start_paused = true)]
async fn pods_that_cannot_be_read_are_not_asked_for_in_a_hot_loop() {
    const FAULTS: usize = 5000;
    let scene = scene_to("evict", 10, "");
    scene.pass(MINUTE).await;
    scene
        .cluster
        .with_faults(|faults| faults.reads = vec![Some(Fault::Failed); FAULTS].into());
    scene.risk("n03", 0.9);
    scene.pass(5 * MINUTE).await;
    let left = scene.cluster.with_faults(|faults| faults.reads.len());
    let nodes_times_pauses = 10 * 5 * 12;
    assert!(
        (1..=nodes_times_pauses).contains(&(FAULTS - left)),
        "{} reads",
        FAULTS - left
    );
}
