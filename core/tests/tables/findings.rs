//! What a hostile reading of the decision found. Each test says what should happen, and what did.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::timeline::{Timeline, fleet, name};
use crate::support::{HOUR, MINUTE, Scene, alert, apply, now, scene};
use foreshock_core::decision::audit::audit;
use foreshock_core::decision::memory::Known;
use foreshock_core::decision::plan::Cause;
use foreshock_core::decision::policy::Reach;
use foreshock_core::decision::verdict::HoldReason;
use foreshock_core::decision::world::{OwnWrite, ScoreUnknown};
use foreshock_core::decision::{Decision, decide};
use foreshock_core::record::Input;
use foreshock_core::record::{
    ClusterRecord, Marks, Ramp, RecordState, RecordedPhase, RiskLabel, Storm, Taint, TaintEffect,
};
use foreshock_core::time::{after, ago};

const STEP: Duration = Duration::from_secs(15);

fn decided(scene: &Scene) -> (Decision, Result<(), String>) {
    let decision = decide(&scene.policy, &scene.memory, &scene.world);
    let audited = audit(
        &scene.policy,
        &decision.memory,
        &scene.world,
        decision.plan.clone(),
    );
    let audited = audited
        .map(drop)
        .map_err(|refusals| format!("{refusals:?}"));
    (decision, audited)
}

fn does(decision: &Decision, cause: Cause) -> Vec<String> {
    let orders = decision.plan.marks.iter();
    orders
        .filter(|order| order.cause == cause)
        .map(|order| order.node.to_string())
        .collect()
}

// ---- refusals that repeat ----

/// Two drains run when a storm begins. After it, one of them is cancelled because its Node looked well
/// for a moment, and is at risk again. SHOULD: the planner waits (or the audit lets a Node of the ramp go
/// on). WAS: the planner begins the drain again, the audit refuses the whole plan, in every cycle, for up
/// to an hour; everything stops.
#[test]
fn a_drain_begun_again_in_a_ramp_that_interrupted_drains_have_filled_is_refused() {
    let mut line = Timeline::new(fleet(100));
    line.drain_takes = 2 * HOUR;
    line.scene.policy.drain.deadline = 4 * HOUR;
    line.run(MINUTE);
    line.risk("n00", 0.9);
    line.risk("n01", 0.9);
    line.run(4 * MINUTE);
    assert_eq!(line.count(Cause::DrainStart), 2, "two drains run");
    for n in 10..50 {
        line.risk(&name(n), 0.9);
    }
    line.run(2 * MINUTE);
    assert!(line.storm().is_some());
    for n in 10..50 {
        line.risk(&name(n), 0.05);
    }
    line.run(6 * MINUTE);
    assert!(line.storm().is_none() && line.ramp() == Some(1));
    line.risk("n00", 0.05);
    line.run(MINUTE);
    line.risk("n00", 0.9);
    line.run(5 * MINUTE); // the timeline panics where the audit refuses
}

/// The end of a storm cannot be written to the Lease for half a minute (5xx, conflict), and meanwhile the
/// drain that it had interrupted ends. SHOULD: the ramp waits for its record, then goes on. WAS: the
/// planner doubles the ramp in memory; the audit, which reads the Lease, refuses it; the refused plan
/// holds the very record that would lift the refusal. For ever, until a restart.
#[test]
fn a_ramp_that_widens_before_the_lease_knows_of_it_is_refused_for_ever() {
    let mut line = Timeline::new(fleet(100));
    line.drain_takes = 20 * MINUTE;
    line.run(MINUTE);
    line.risk("n00", 0.9);
    line.run(3 * MINUTE);
    for n in 10..50 {
        line.risk(&name(n), 0.9);
    }
    line.run(2 * MINUTE);
    for n in 12..50 {
        line.risk(&name(n), 0.05);
    }
    while line.storm().is_some() {
        assert!(line.elapsed() < 5 * HOUR);
        line.step();
        if line.storm().is_none() {
            break;
        }
        line.scene.world.at = after(line.scene.world.at, STEP);
    }
    // The record of that last plan did not reach the Lease.
    let storm = Storm {
        since: ago(line.scene.world.at, 10 * MINUTE),
        about: "40 of 100 Nodes".into(),
        input: None,
        calm_since: None,
    };
    let mut scene = line.scene.clone();
    scene.memory.storm_over = Some(storm.since);
    scene.world.cluster = Some(ClusterRecord {
        storm: Some(storm),
        ramp: None,
        ..scene.world.cluster.clone().expect("there")
    });
    // The drain ends well; that mark needs no record.
    let record = scene.world.nodes["n00"]
        .record
        .ours()
        .cloned()
        .expect("ours");
    assert_eq!(record.phase, RecordedPhase::Draining);
    scene = scene.record("n00", |record| {
        record.phase = RecordedPhase::Drained;
    });
    let mut refused = 0;
    for _ in 0..40 {
        scene.world.at = after(scene.world.at, STEP);
        let at = scene.world.at;
        for score in scene.world.scores.values_mut() {
            score.at = ago(at, 2 * STEP);
        }
        let (decision, audited) = decided(&scene);
        scene.memory = decision.memory.clone();
        match audited {
            Ok(()) => apply(&mut scene.world, &decision.plan),
            Err(problem) => {
                if refused == 0 {
                    println!("{problem}");
                }
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 0, "of 40 plans");
}

/// The configuration's `taint` is now of the same key and effect as the caution taint that an earlier
/// configuration (or the pool that the Node was in) has left on the Node. SHOULD: replaced in one patch,
/// or held. WAS: planned, and refused by the audit in every cycle while the Node is at risk: everything
/// stops.
#[test]
fn a_taint_that_takes_the_place_of_our_own_caution_taint_is_refused_for_ever() {
    let soft = Taint {
        effect: TaintEffect::PreferNoSchedule,
        ..crate::support::taint()
    };
    let scene = scene()
        .record("n1", |record| {
            record.marks = Marks {
                caution_taint: Some(crate::support::caution_taint()),
                label: Some(RiskLabel::Caution),
                ..Marks::default()
            };
        })
        .at_risk("n1", 0.9, 2 * MINUTE)
        .with_policy(|policy| {
            policy.rules.taint = soft.clone();
            policy.rules.caution_taint = None;
        });
    let (_, audited) = decided(&scene);
    assert_eq!(audited, Ok(()));
}

/// The floor of an alert rule was lowered while the Node was under `hold-until`; the alert still fires;
/// the Node has been well for long. SHOULD: released. WAS: the audit still counts the floor that the
/// record kept, under the same fingerprint, and refuses the plan until that copy expires (5 h).
#[test]
fn a_floor_that_was_lowered_is_refused_by_the_copy_in_the_record() {
    let scene = scene()
        .marked("n1", RecordedPhase::Tainted, HOUR)
        .record("n1", |record| {
            record.alerts = vec![alert("Disk", 0.8, Reach::Evict)];
        })
        .alert("n1", alert("Disk", 0.3, Reach::Evict))
        .remember("n1", |memory| memory.well_since = Some(ago(now(), HOUR)));
    let (decision, audited) = decided(&scene);
    println!("{:?}", does(&decision, Cause::Release));
    assert_eq!(audited, Ok(()));
}

// ---- clocks ----

/// Drains that were begun while the clock was a day ahead. SHOULD: they count for an hour, or not at all.
/// WAS: they count for a day and an hour: `drains_per_hour` holds every drain for so long.
#[test]
fn drains_from_the_future_do_not_count_for_a_day() {
    let mut line =
        Timeline::new(fleet(100).with_policy(|policy| policy.limits.drains_per_hour = 1));
    let cluster = line.scene.world.cluster.as_mut().expect("there");
    cluster
        .drains
        .insert((after(now(), 24 * HOUR), "n50".into()), "uid-n50".into());
    line.run(MINUTE);
    line.risk("n01", 0.9);
    line.run(2 * HOUR);
    assert_eq!(line.count(Cause::DrainStart), 1);
}

// ---- storms ----

/// A bad exporter on six Nodes of sixty, a storm by it, and it stays bad. SHOULD: no drain for as long as
/// the cause lasts. WAS: after a day the input is not new any more, the storm ends by the clock, and the
/// Nodes are drained one after the other.
#[test]
fn a_bad_exporter_is_no_better_after_a_day() {
    let mut scene = fleet(60);
    for score in scene.world.scores.values_mut() {
        score.inputs.exporter = Some("1.11.0".into());
        score.inputs.model = "m1".into();
    }
    let mut line = Timeline::new(scene);
    line.run(MINUTE);
    line.scene.world.at = after(line.scene.world.at, 25 * HOUR);
    line.run(MINUTE);
    for n in [0, 1, 2, 3, 4] {
        let score = line.scene.world.scores.get_mut(name(n).as_str());
        score.expect("scored").inputs.exporter = Some("1.12.0".into());
        line.risk(&name(n), 0.9);
    }
    line.run(10 * MINUTE);
    assert!(line.storm().is_some(), "a storm by it");
    let before = line.count(Cause::DrainStart);
    line.run(26 * HOUR);
    assert_eq!(line.count(Cause::DrainStart), before, "{:?}", line.storm());
}

fn three_of_ten_drained() -> Scene {
    let mut scene = fleet(100);
    for n in 0..100 {
        let score = scene
            .world
            .scores
            .get_mut(name(n).as_str())
            .expect("scored");
        score.inputs.model = "m1".into();
        score.inputs.job = Some(if n < 10 { "gpu" } else { "node" }.into());
    }
    for n in 0..3 {
        scene = scene
            .marked(&name(n), RecordedPhase::Drained, 48 * HOUR)
            .score(&name(n), Ok(0.9));
    }
    scene
}

/// Three Nodes of a scrape job of ten were drained days ago and wait for repair. foreshock restarts (a
/// rolling update). SHOULD: nothing; nothing has turned. WAS: the job is "new", so it is a storm, and it
/// holds the whole cluster for 24 h, again after every restart and change of leader.
#[test]
fn a_restart_makes_no_storm_of_what_was_drained_days_ago() {
    let mut line = Timeline::new(three_of_ten_drained());
    line.run(MINUTE);
    println!("{:?}", line.storm());
    line.run(HOUR);
    println!("an hour later: {:?}", line.storm());
    line.risk("n50", 0.9);
    line.run(10 * MINUTE);
    assert_eq!(line.nodes(Cause::Taint), ["n50"], "{:?}", line.storm());
}

/// The same without a restart: one decision without scores (a gap of Prometheus). SHOULD: what was at risk
/// before the gap and is after it has not turned, and its inputs are not new. WAS: a storm for 24 h.
#[test]
fn a_gap_in_telemetry_makes_no_storm_of_what_was_drained_days_ago() {
    let mut line = Timeline::new(three_of_ten_drained());
    line.run(MINUTE);
    line.scene.world.at = after(line.scene.world.at, 25 * HOUR);
    line.run(40 * MINUTE);
    line.scene.memory.storm = None;
    line.scene.world.cluster = Some(ClusterRecord::default());
    line.scene.memory.ramp = None;
    line.run(MINUTE);
    assert_eq!(line.storm(), None, "it is calm and nothing is new");
    let scores = line.scene.world.scores.clone();
    for score in line.scene.world.scores.values_mut() {
        score.risk = Err(ScoreUnknown::NoScrape);
    }
    line.step();
    line.scene.world.at = after(line.scene.world.at, STEP);
    line.scene.world.scores = scores;
    line.run(HOUR);
    assert_eq!(line.storm(), None);
}

/// The same with nothing new at all: three Nodes of a zone of ten were drained days ago, at different
/// times. One decision without scores (or `Memory::after_a_break`). SHOULD: nothing has turned. WAS: all
/// turn at once by the end of the gap: a storm over the cluster, said in an Event, and a ramp after it.
#[test]
fn a_gap_in_telemetry_turns_nobody() {
    let mut scene = fleet(30);
    for n in [0, 3, 6] {
        scene = scene
            .marked(&name(n), RecordedPhase::Drained, 48 * HOUR)
            .at_risk(&name(n), 0.9, 48 * HOUR);
    }
    scene.memory.inputs = BTreeMap::from([(
        Input::Model("".into()),
        Known {
            first: None,
            last: now(),
        },
    )]);
    let mut line = Timeline::new(scene);
    line.run(MINUTE);
    assert_eq!(line.storm(), None);
    let scores = line.scene.world.scores.clone();
    for score in line.scene.world.scores.values_mut() {
        score.risk = Err(ScoreUnknown::NoScrape);
    }
    line.run(STEP);
    line.scene.world.scores = scores;
    line.run(STEP);
    assert_eq!(line.storm(), None);
}

/// A storm is on; Prometheus goes down with it; foreshock restarts. SHOULD: as without the restart
/// (`falling_silent_does_not_end_a_storm`): nobody said that they are well. WAS: unknown counts as calm.
#[test]
fn falling_silent_does_not_end_a_storm_over_a_restart_either() {
    let mut line = Timeline::new(fleet(20));
    line.run(MINUTE);
    for n in 0..8 {
        line.risk(&name(n), 0.9);
    }
    line.run(10 * MINUTE);
    for score in line.scene.world.scores.values_mut() {
        score.risk = Err(ScoreUnknown::NoScrape);
    }
    line.run(MINUTE);
    line.restart();
    line.run(2 * HOUR);
    assert!(line.storm().is_some());
}

/// Nodes that carry our taint of an earlier configuration (`policy.taint` was changed, or the Node was
/// relabelled into a pool with another). SHOULD: they carry our taint, as their records say. WAS: the
/// storm counts them as unmarked, and never ends while they are at risk.
#[test]
fn our_taint_of_an_earlier_configuration_is_our_taint() {
    let mut scene = fleet(12);
    for n in 0..3 {
        scene = scene
            .marked(&name(n), RecordedPhase::Drained, 48 * HOUR)
            .score(&name(n), Ok(0.9));
    }
    scene.policy.rules.taint.key = "renamed".into();
    scene.memory.storm = Some(Storm {
        since: now(),
        about: "zone a: 3 of 4 Nodes".into(),
        input: None,
        calm_since: None,
    });
    let mut line = Timeline::new(scene);
    line.run(24 * HOUR);
    assert_eq!(line.storm(), None);
}

/// The rule `DiskFull` has been there for years; it fires on one Node now and then, and on nobody in
/// between. SHOULD: it is not new. WAS: it is forgotten whenever nobody fires, so it is new each time, and
/// three slow firings among ten Nodes are a storm that lasts until they end.
#[test]
fn a_rule_that_fired_last_week_is_not_new() {
    let mut line = Timeline::new(fleet(10));
    let fire = |line: &mut Timeline, n: usize| {
        let mut scene = std::mem::replace(&mut line.scene, scene());
        let mut firing = alert("DiskFull", 0.9, Reach::Taint);
        firing.fingerprint = format!("fp-{n}");
        firing.starts_at = scene.world.at;
        firing.expires_at = after(scene.world.at, 40 * HOUR);
        scene = scene.alert(&name(n), firing);
        line.scene = scene;
    };
    line.run(MINUTE);
    fire(&mut line, 0);
    line.run(30 * HOUR);
    line.scene.world.alerts.clear();
    line.run(30 * HOUR);
    for n in 1..4 {
        fire(&mut line, n);
        line.run(5 * HOUR);
    }
    assert_eq!(line.storm(), None);
}

/// A storm in one zone comes and goes while another exporter is being rolled out. SHOULD: the exporter
/// stays new. WAS: everything that was in use when any storm ended counts as judged by it, and the guard
/// is off for it.
#[test]
fn a_storm_about_something_else_blesses_no_new_exporter() {
    let mut scene = fleet(60);
    for score in scene.world.scores.values_mut() {
        score.inputs.exporter = Some("1.11.0".into());
    }
    let mut line = Timeline::new(scene);
    line.run(MINUTE);
    line.scene.world.at = after(line.scene.world.at, 25 * HOUR);
    line.run(MINUTE);
    // Two of six have the new one, and the zone has its storm.
    for n in 0..6 {
        let score = line.scene.world.scores.get_mut(name(n).as_str());
        score.expect("scored").inputs.exporter = Some("1.12.0".into());
    }
    for n in (30..48).step_by(3) {
        line.risk(&name(n), 0.9);
    }
    line.run(2 * MINUTE);
    assert!(line.storm().is_some());
    for n in (30..48).step_by(3) {
        line.risk(&name(n), 0.05);
    }
    line.run(6 * MINUTE);
    assert_eq!(line.storm(), None);
    for n in 0..6 {
        line.risk(&name(n), 0.9);
        line.run(6 * MINUTE);
    }
    assert!(line.storm().is_some(), "six of six by a new exporter");
}

// ---- ramps ----

/// After a storm one Node stays at risk that is excluded by a person. SHOULD: the ramp ends an hour after
/// the last Node that may be begun on. WAS: it lasts for as long as that Node does.
#[test]
fn a_ramp_ends_though_somebody_who_may_not_be_marked_is_at_risk() {
    let mut line = Timeline::new(fleet(40).node("n00", |node| node.excluded = true));
    line.run(MINUTE);
    for n in 0..16 {
        line.risk(&name(n), 0.9);
    }
    line.run(MINUTE);
    assert!(line.storm().is_some());
    for n in 1..16 {
        line.risk(&name(n), 0.05);
    }
    line.run(48 * HOUR);
    assert_eq!(line.ramp(), None);
}

/// In a ramp, a person takes our taint off the first Node: the evidence was a lie. SHOULD: that is no
/// good end; the width stays. WAS: a veto counts as a good end, and the width doubles.
#[test]
fn a_veto_is_no_good_end_of_a_stage() {
    let mut line = Timeline::new(fleet(100));
    line.drain_takes = HOUR;
    line.run(MINUTE);
    for n in 0..40 {
        line.risk(&name(n), 0.9);
    }
    line.run(MINUTE);
    for n in 15..40 {
        line.risk(&name(n), 0.05);
    }
    while line.count(Cause::Taint) == 0 {
        assert!(line.elapsed() < 5 * HOUR);
        line.run(STEP);
    }
    assert_eq!(line.ramp(), Some(1));
    let first = line.nodes(Cause::Taint)[0].to_owned();
    let facts = line
        .scene
        .world
        .nodes
        .get_mut(first.as_str())
        .expect("there");
    facts.taints.clear();
    line.run(2 * STEP);
    assert_eq!(line.ramp(), Some(1));
}

/// A width of nothing in the record on the Lease (by hand, or by a later program). SHOULD: refused when
/// read, or taken for one. WAS: nothing is begun for as long as anybody is at risk.
#[test]
fn a_ramp_of_no_width_does_not_hold_for_ever() {
    let mut line = Timeline::new(fleet(40));
    line.scene.world.cluster.as_mut().expect("there").ramp = Some(Ramp {
        since: now(),
        width: 0,
        nodes: BTreeMap::new(),
    });
    line.run(MINUTE);
    line.risk("n01", 0.9);
    line.run(4 * HOUR);
    assert_eq!(line.count(Cause::Taint), 1);
}

// ---- counts ----

/// A record that cannot be read (written by a later version, before a rollback), and our taint on the
/// Node. SHOULD: the Node counts as tainted: nobody else sets that taint, and the limit is about what the
/// cluster can do without. WAS: it does not, and after a rollback a second tenth of the cluster is tainted.
#[test]
fn a_node_with_our_taint_and_an_unreadable_record_counts() {
    let scene = scene()
        .node("n1", |node| {
            node.taints.push(crate::support::taint());
            node.record = RecordState::Unreadable {
                problem: "it has version 2, and this program knows 1".into(),
            };
        })
        .at_risk("n2", 0.9, 2 * MINUTE);
    let (decision, _) = decided(&scene);
    assert!(does(&decision, Cause::Taint).is_empty(), "tainted_max is 1");
}

/// The record on the Lease is written, and the mark that should start the drain fails (a refusal by an
/// admission webhook, or a release in the same plan that failed). SHOULD: a drain that never began counts
/// at most once, and must not starve others. WAS: each try counts, and six tries within two minutes use
/// the cluster's hour up without one Pod evicted, hour after hour.
#[test]
fn tries_that_began_nothing_do_not_use_up_the_hour() {
    let mut scene = scene()
        .at_risk("n1", 0.9, HOUR)
        .marked("n1", RecordedPhase::Tainted, HOUR);
    let mut last = None;
    for _ in 0..30 {
        let (decision, audited) = decided(&scene);
        assert_eq!(audited, Ok(()));
        scene.memory = decision.memory.clone();
        if let Some(cluster) = &decision.plan.cluster {
            scene.world.cluster = Some(cluster.clone());
        }
        // By then the pauses between tries have grown to a minute.
        scene.world.at = after(scene.world.at, MINUTE);
        let at = scene.world.at;
        scene
            .world
            .scores
            .values_mut()
            .for_each(|score| score.at = at);
        for node in scene.world.nodes.values_mut() {
            node.pods = foreshock_core::decision::world::Fact::Known(at, Vec::new());
        }
        last = Some(decision);
    }
    let last = last.expect("decided");
    let hold = last.verdicts["n1"].hold().map(|hold| hold.reason);
    assert_ne!(hold, Some(HoldReason::DrainsPerHour), "{:?}", last.usage);
}

/// A taint whose write failed is due again. SHOULD: tried again at `retry_at`. WAS: it counts against
/// itself where `tainted_max` is 1 (every cluster of up to 19 Nodes), and waits a minute longer under a
/// hold that names the wrong reason; likewise a drain by `draining_max`.
#[test]
fn a_write_that_failed_does_not_count_against_itself() {
    let scene = scene().at_risk("n1", 0.9, HOUR).with_world(|world| {
        let write = OwnWrite::Failed {
            problem: "503".into(),
            retry_at: ago(now(), STEP),
            taints: true,
            drains: false,
        };
        world.writes.insert("n1".into(), write);
    });
    let (decision, audited) = decided(&scene);
    assert_eq!(audited, Ok(()));
    assert_eq!(does(&decision, Cause::Taint), ["n1"]);
}

// ---- odd telemetry ----

/// Inputs far outside of what the model knows, and a low score from them. SHOULD (first promise: odd
/// telemetry leads to no taint *and* no untaint): no release, and no end of a drain, by that score. IS:
/// released. A reach that drift of the whole fleet has lowered holds back no release.
#[test]
fn a_score_that_is_no_ground_to_taint_is_no_ground_to_release() {
    let scene = scene()
        .marked("n1", RecordedPhase::Drained, HOUR)
        .remember("n1", |memory| memory.well_since = Some(ago(now(), HOUR)))
        .with_world(|world| {
            let score = world.scores.get_mut("n1").expect("scored");
            score.out_of_range = Some("12 of 30 features".into());
        });
    let (decision, _) = decided(&scene);
    assert!(does(&decision, Cause::Release).is_empty());
}
