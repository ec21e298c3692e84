//! The whole service, but for its web server, over a simulated cluster in virtual time.

#[allow(
    dead_code,
    unreachable_pub,
    reason = "the core's simulation uses it as well, and all of it"
)]
#[path = "../../core/tests/simulation/chance.rs"]
mod chance;
mod faults;
mod kills;
mod ledger;
mod points;
mod shell;

use std::time::Duration;

use kills::{Story, differs, kill_at_each, points, run};
use points::Kind;

#[test]
fn without_a_kill_both_nodes_are_drained_and_given_back() {
    for story in [Story::Plain, Story::Lossy] {
        let end = run(story, None);
        assert!(!end.killed);
        assert_eq!(end.done.drained.len(), 2, "{end:?}");
        assert_eq!(end.done.released.len(), 2, "{end:?}");
        assert_eq!(differs(&end, &end), None);
    }
}

/// A bounded share of the kill points; `tests/soak` takes them all.
#[test]
fn a_kill_at_any_call_comes_to_the_same_end_as_none() {
    for story in [Story::Plain, Story::Lossy] {
        let whole = run(story, None);
        let points = points(&whole, 3, 3);
        let killed = kill_at_each(story, &points, &whole);
        println!("{story:?}: {killed:?}");
        assert_eq!(killed.wrong, [], "{story:?}");
        assert_eq!(killed.converged, killed.points);
        // Times differ a little from run to run, so that the last of a kind may not come.
        assert!(killed.reached * 10 >= killed.points * 9, "{killed:?}");
        let mut kinds = vec![
            Kind::Mark,
            Kind::Evict,
            Kind::Lead,
            Kind::Record,
            Kind::Renew,
            Kind::Pods,
        ];
        if story == Story::Lossy {
            kinds.extend([Kind::ReadPod, Kind::ReadLease]);
        }
        assert!(
            kinds.iter().all(|kind| killed.kinds.contains_key(kind)),
            "{:?}",
            killed.kinds
        );
    }
}

/// A share of what `tests/soak` runs.
#[test]
fn two_replicas_keep_every_rule_whatever_goes_wrong() {
    let (mut hours, mut kills, mut faults, mut drained) = (0.0, 0, 0, 0);
    for seed in 1..=2 {
        let outcome = faults::run(seed, Duration::from_secs(4 * 3600));
        println!("seed {seed}: {outcome:?}");
        assert_eq!(outcome.done.violations, Vec::<String>::new(), "seed {seed}");
        assert!(
            outcome.leaders > 2 && outcome.node_hours > 10.0,
            "{outcome:?}"
        );
        hours += outcome.node_hours;
        kills += outcome.kills;
        faults += outcome.faults;
        drained += outcome.done.drained.len();
    }
    println!("{hours:.0} Node-hours");
    assert!(
        kills > 5 && faults > 50 && drained > 5,
        "{kills} kills, {faults} faults, {drained} drained"
    );
}
