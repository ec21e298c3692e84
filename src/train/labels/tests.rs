use proptest::prelude::*;

use super::*;
use crate::train::track::tests::{MINUTE, at, span};

const DAY: i64 = 1_440;

/// A Node that is watched for a day; `on` are the stretches in which a signal is so.
fn scene(on: &[(Signal, i64, i64)]) -> NodeHistory {
    let mut node = NodeHistory::new(MINUTE);
    for m in 0..DAY {
        for signal in [
            Signal::NotReady,
            Signal::Down,
            Signal::Cordoned,
            Signal::OwnAction,
            Signal::MemoryPressure,
        ] {
            let is = |(s, from, to): &(Signal, i64, i64)| *s == signal && (*from..*to).contains(&m);
            node.see(signal, at(m), f64::from(u8::from(on.iter().any(is))));
        }
        node.see(Signal::Created, at(m), at(-9_999).as_second() as f64);
        node.see(Signal::Boot, at(m), at(-9_000).as_second() as f64);
    }
    node
}

fn rules() -> Rules {
    Rules::new(MINUTE)
}

fn timeline(node: &NodeHistory) -> Timeline {
    node.timeline(&rules(), span(0, DAY))
}

fn minutes(timeline: &Timeline) -> Vec<(i64, i64)> {
    let minute = |t: Timestamp| (t.as_second() - at(0).as_second()) / 60;
    let spans = timeline.incidents().iter().map(|one| one.span);
    spans
        .map(|span| (minute(span.from), minute(span.to)))
        .collect()
}

/// Rows by minute, `expected` as (minute, label).
fn check(on: &[(Signal, i64, i64)], incidents: &[(i64, i64)], expected: &[(i64, Label)]) {
    let timeline = timeline(&scene(on));
    assert_eq!(minutes(&timeline), incidents, "{on:?}");
    for (m, label) in expected {
        assert_eq!(timeline.label(at(*m)), *label, "minute {m} of {on:?}");
    }
}

const fn dropped(reason: Dropped) -> Label {
    Label::Dropped(reason)
}

#[test]
fn a_row_is_positive_from_one_horizon_before_to_the_gap() {
    check(
        &[(Signal::NotReady, 600, 620)],
        &[(600, 620)],
        &[
            (0, Label::Negative),
            (569, Label::Negative),
            (570, Label::Positive(0)),
            (597, Label::Positive(0)),
            (598, dropped(Dropped::TooLate)),
            (599, dropped(Dropped::TooLate)),
            (600, dropped(Dropped::InIncident)),
            (619, dropped(Dropped::InIncident)),
            (620, dropped(Dropped::AfterIncident)),
            (679, dropped(Dropped::AfterIncident)),
            (680, Label::Negative),
            (1_409, Label::Negative),
            (1_410, dropped(Dropped::EndOfHistory)),
        ],
    );
}

#[test]
fn what_is_too_short_is_no_incident() {
    for (on, incidents) in [
        ((Signal::NotReady, 600, 601), &[][..]),
        ((Signal::NotReady, 600, 602), &[(600, 602)]),
        ((Signal::Down, 600, 602), &[]),
        ((Signal::Down, 600, 603), &[(600, 603)]),
        ((Signal::MemoryPressure, 600, 601), &[(600, 601)]),
    ] {
        check(&[on], incidents, &[]);
    }
}

#[test]
fn incidents_that_are_near_are_one() {
    let first = (Signal::NotReady, 600, 610);
    for (second, incidents) in [
        (639, &[(600, 650)][..]),
        (640, &[(600, 610), (640, 650)]),
        (605, &[(600, 650)]),
    ] {
        check(
            &[first, (Signal::MemoryPressure, second, 650)],
            incidents,
            &[],
        );
    }
    let node = scene(&[first, (Signal::MemoryPressure, 605, 650)]);
    let kinds = timeline(&node).incidents()[0].kinds.clone();
    assert_eq!(
        kinds,
        BTreeSet::from([Kind::NotReady, Kind::MemoryPressure])
    );
}

#[test]
fn planned_work_is_neither_health_nor_an_incident() {
    let cordon = (Signal::Cordoned, 600, 660);
    check(
        &[
            cordon,
            (Signal::NotReady, 610, 630),
            (Signal::Down, 700, 719),
        ],
        &[],
        &[
            (569, Label::Negative),
            (570, dropped(Dropped::Planned)),
            (600, dropped(Dropped::Planned)),
            (659, dropped(Dropped::Planned)),
            (719, dropped(Dropped::Planned)),
            // What was excused has its traces, too.
            (778, dropped(Dropped::Planned)),
            (779, Label::Negative),
        ],
    );
    // An incident that somebody answers with a cordon is one.
    check(
        &[(Signal::NotReady, 590, 640), cordon],
        &[(590, 640)],
        &[
            (560, Label::Positive(0)),
            (570, Label::Positive(0)),
            (595, dropped(Dropped::InIncident)),
            (650, dropped(Dropped::Planned)),
        ],
    );
    // After it, the Node is on its own again.
    check(&[cordon, (Signal::NotReady, 719, 730)], &[], &[]);
    check(
        &[cordon, (Signal::NotReady, 720, 730)],
        &[(720, 730)],
        &[(719, dropped(Dropped::Planned))],
    );
}

#[test]
fn what_would_have_come_without_us_is_not_known() {
    check(
        &[(Signal::OwnAction, 600, 660)],
        &[],
        &[
            (569, Label::Negative),
            (570, dropped(Dropped::OwnAction)),
            (719, dropped(Dropped::OwnAction)),
            (720, Label::Negative),
        ],
    );
    // What came all the same did come.
    check(
        &[(Signal::OwnAction, 600, 660), (Signal::NotReady, 610, 640)],
        &[(610, 640)],
        &[
            (579, dropped(Dropped::OwnAction)),
            (580, Label::Positive(0)),
            (599, Label::Positive(0)),
            (600, dropped(Dropped::OwnAction)),
        ],
    );
}

fn with_boot(on: &[(Signal, i64, i64)], boot: i64) -> Timeline {
    let mut node = scene(on);
    node.boots = Boots::default();
    for m in 0..DAY {
        let booted = if m < boot { -9_000 } else { boot };
        node.see(Signal::Boot, at(m), at(booted).as_second() as f64);
    }
    timeline(&node)
}

#[test]
fn a_reboot_is_an_incident_unless_the_node_was_cordoned_in_the_hour_before() {
    assert_eq!(minutes(&with_boot(&[], 600)), [(600, 601)]);
    assert_eq!(
        minutes(&with_boot(&[(Signal::Cordoned, 590, 595)], 600)),
        []
    );
    assert_eq!(
        minutes(&with_boot(&[(Signal::Cordoned, 500, 541)], 600)),
        []
    );
    assert_eq!(
        minutes(&with_boot(&[(Signal::Cordoned, 500, 540)], 600)),
        [(600, 601)]
    );
}

#[test]
fn an_alert_begins_with_its_pending_time_and_one_that_never_fires_is_none() {
    let mut node = scene(&[]);
    for m in 600..620 {
        let state = if m < 610 { State::Pending } else { State::On };
        node.see_alert("NodeDiskSlow", at(m), state);
    }
    for m in 900..920 {
        node.see_alert("NodeDiskSlow", at(m), State::Pending);
    }
    let timeline = timeline(&node);
    assert_eq!(minutes(&timeline), [(600, 620)]);
    assert_eq!(timeline.label(at(575)), Label::Positive(0));
    assert_eq!(timeline.label(at(890)), Label::Negative);
}

#[test]
fn a_reported_incident_counts_also_during_planned_work() {
    let mut node = scene(&[(Signal::Cordoned, 600, 660)]);
    node.report(span(590, 640), "disk");
    node.report(span(610, 611), "disk again");
    assert_eq!(minutes(&timeline(&node)), [(590, 640)]);
}

#[test]
fn nobody_looked_is_not_it_was_well() {
    let mut node = NodeHistory::new(MINUTE);
    for m in (0..600).chain(650..DAY) {
        let down = (650..660).contains(&m) || m >= 1_430;
        node.see(Signal::NotReady, at(m), f64::from(u8::from(down)));
    }
    let timeline = timeline(&node);
    assert_eq!(minutes(&timeline), [(650, 660), (1_430, 1_440)]);
    for (m, label) in [
        (569, Label::Negative),
        (571, dropped(Dropped::Unobserved)),
        (630, dropped(Dropped::Unobserved)),
        (650, dropped(Dropped::InIncident)),
        (1_400, Label::Positive(1)),
    ] {
        assert_eq!(timeline.label(at(m)), label, "minute {m}");
    }
    // One that was on when the history began has no begin.
    assert!(!timeline.incidents()[0].begin_seen && timeline.incidents()[1].begin_seen);
}

#[test]
fn a_node_that_is_taken_away_was_not_ill() {
    let mut node = NodeHistory::new(MINUTE);
    for m in 0..800 {
        node.see(Signal::NotReady, at(m), f64::from(u8::from(m >= 790)));
        node.see(Signal::Created, at(m), at(-9_999).as_second() as f64);
    }
    let timeline = timeline(&node);
    assert_eq!(minutes(&timeline), []);
    assert_eq!(timeline.n_excused(), 1);
    assert_eq!(timeline.label(at(730)), Label::Negative);
    assert_eq!(timeline.label(at(745)), dropped(Dropped::Planned));
}

#[test]
fn rows_are_counted_by_what_they_are() {
    let timeline = timeline(&scene(&[
        (Signal::NotReady, 600, 620),
        (Signal::Cordoned, 1_000, 1_010),
    ]));
    let mut tally = Tally::default();
    (0..DAY).for_each(|m| tally.count(timeline.label(at(m))));
    let expected = [
        (Dropped::InIncident, 20),
        (Dropped::AfterIncident, 60),
        (Dropped::TooLate, 2),
        (Dropped::Planned, 30 + 10 + 60),
        (Dropped::EndOfHistory, 30),
    ];
    assert_eq!(tally.dropped, BTreeMap::from(expected));
    assert_eq!(tally.positives, 28);
    assert_eq!(tally.rows(), DAY as u64);
    let mut twice = tally.clone();
    twice.add(&tally);
    assert_eq!(twice.rows(), 2 * DAY as u64);
}

#[test]
fn rules_that_cannot_work_are_refused() {
    assert_eq!(rules().check(MINUTE), Ok(()));
    let refused = |change: fn(&mut Rules)| {
        let mut rules = rules();
        change(&mut rules);
        rules.check(MINUTE).unwrap_err().to_string()
    };
    assert!(refused(|r| r.gap = MINUTE).contains("less than two scrapes"));
    assert!(refused(|r| r.horizon = 3 * MINUTE).contains("less than twice the gap"));
    assert!(refused(|r| r.settle = 29 * MINUTE).contains("30 to 60 minutes"));
    assert!(refused(|r| r.settle = 61 * MINUTE).contains("30 to 60 minutes"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn labels_are_what_the_incidents_say(
        on in prop::collection::vec((0..5usize, 0..DAY, 1..90i64), 0..12),
    ) {
        let signals = [Signal::NotReady, Signal::Down, Signal::Cordoned, Signal::OwnAction, Signal::MemoryPressure];
        let on: Vec<_> = on.into_iter().map(|(s, from, lasts)| (signals[s], from, from + lasts)).collect();
        let timeline = timeline(&scene(&on));
        let incidents = timeline.incidents();
        for pair in incidents.windows(2) {
            prop_assert!(pair[1].span.from >= after(pair[0].span.to, rules().merge));
        }
        for m in 0..DAY {
            let now = at(m);
            let soon = |one: &&Incident| now < one.span.from && one.span.from <= after(now, rules().horizon);
            let next = incidents.iter().find(soon);
            match timeline.label(now) {
                Label::Positive(i) => {
                    prop_assert_eq!(Some(&incidents[i]), next);
                    prop_assert!(incidents[i].span.from > after(now, rules().gap));
                    prop_assert!(incidents[i].begin_seen);
                }
                Label::Negative => prop_assert_eq!(next, None),
                Label::Dropped(_) => {}
            }
            // Nobody learns from a row while somebody works on the Node or we do.
            let worked_on = |(s, from, to): &(Signal, i64, i64)| {
                matches!(s, Signal::Cordoned | Signal::OwnAction) && (*from..*to).contains(&m)
            };
            if on.iter().any(worked_on) {
                prop_assert!(matches!(timeline.label(now), Label::Dropped(_)));
            }
        }
    }

    #[test]
    fn slices_that_overlap_change_nothing(cut in 1..DAY - 1, again in 1..120i64) {
        let on = [(Signal::NotReady, 600, 620), (Signal::Cordoned, 900, 910)];
        let whole = scene(&on);
        let mut sliced = NodeHistory::new(MINUTE);
        for m in (0..cut).chain((cut - again).max(0)..DAY) {
            for signal in [Signal::NotReady, Signal::Down, Signal::Cordoned, Signal::OwnAction, Signal::MemoryPressure] {
                let is = |(s, from, to): &(Signal, i64, i64)| *s == signal && (*from..*to).contains(&m);
                sliced.see(signal, at(m), f64::from(u8::from(on.iter().any(is))));
            }
            sliced.see(Signal::Created, at(m), at(-9_999).as_second() as f64);
            sliced.see(Signal::Boot, at(m), at(-9_000).as_second() as f64);
        }
        let (whole, sliced) = (timeline(&whole), timeline(&sliced));
        prop_assert_eq!(whole.incidents(), sliced.incidents());
        for m in 0..DAY {
            prop_assert_eq!(whole.label(at(m)), sliced.label(at(m)));
        }
    }
}

#[test]
fn an_alert_that_is_no_incident_is_known_all_the_same() {
    let mut node = scene(&[]);
    for m in 100..110 {
        node.see_other_alert("Slow", at(m), State::Pending);
    }
    for m in 200..205 {
        node.see_alert("NodeBroken", at(m), State::On);
    }
    let alerting = |m| node.alerting(at(m));
    assert_eq!(
        [99, 100, 109, 110, 199, 200, 204, 205].map(alerting),
        [false, true, true, false, false, true, true, false]
    );
    // Only the one on the list has become an incident.
    assert_eq!(minutes(&timeline(&node)), [(200, 205)]);
}
