//! Where a drain differs from what was planned when it began.

use std::collections::BTreeMap;

use foreshock_core::drain::{Differs, Intent, PodFacts, PodId, PodOutcome, differences_in_words};
use foreshock_core::time::after;

use crate::support::pods::{pod, seconds, with};
use crate::support::{now, rules};

/// What each look shows, and what came of the Pods in the end.
fn differs(looks: &[Vec<PodFacts>], came_of: &[(&str, PodOutcome)]) -> Vec<(String, Differs)> {
    let mut intent = Intent::default();
    for look in looks {
        intent.see(look, &rules());
    }
    let came_of: BTreeMap<&str, PodOutcome> = came_of.iter().copied().collect();
    let differences = intent.differences(|pod: &PodId| came_of.get(pod.name.as_str()).copied());
    let named = differences.into_iter();
    named.map(|each| (each.pod.name, each.what)).collect()
}

fn unowned(name: &str) -> PodFacts {
    with(pod(name), |pod| pod.owner = None)
}

#[test]
fn a_drain_that_goes_as_planned_has_none() {
    let daemon = with(pod("agent"), |pod| pod.mirror = true);
    let first = vec![pod("a"), unowned("b"), daemon.clone()];
    let last = vec![unowned("b"), daemon];
    let came_of = [("a", PodOutcome::Evicted)];
    assert_eq!(differs(&[first, last], &came_of), []);
    // What had been told to go before goes by itself, as was known.
    let leaving = with(pod("a"), |pod| {
        pod.terminating_until = Some(after(now(), seconds(30)));
    });
    assert_eq!(differs(&[vec![leaving], vec![]], &[]), []);
    assert_eq!(differs(&[vec![]], &[]), []);
}

/// A Pod that was told to go, and one that is in its last moment: the kubelet says how it ended first.
fn going(name: &str) -> PodFacts {
    with(pod(name), |pod| {
        pod.terminating_until = Some(after(now(), seconds(30)));
    })
}

fn ending(name: &str) -> PodFacts {
    with(going(name), |pod| pod.finished = true)
}

#[test]
fn the_last_moment_of_an_evicted_pod_is_no_difference() {
    let evicted = [("a", PodOutcome::Evicted)];
    let looks = vec![vec![pod("a")], vec![going("a")], vec![ending("a")]];
    assert_eq!(differs(&looks, &evicted), [], "still there");
    let gone = [looks, vec![vec![]]].concat();
    assert_eq!(differs(&gone, &evicted), []);
    // By another's hand it is one.
    let by_itself = [("a".to_owned(), Differs::WentByItself)];
    assert_eq!(differs(&gone, &[]), by_itself);
    assert_eq!(differs(&gone[..3], &[]), by_itself);
    assert_eq!(differs(&[vec![going("a")], vec![ending("a")]], &[]), []);

    let late = [vec![], vec![pod("a")], vec![going("a")], vec![ending("a")]];
    let came = [("a".to_owned(), Differs::Came)];
    assert_eq!(differs(&late, &evicted), came, "whatever it is at last");
    assert_eq!(
        differs(&[vec![], vec![going("a")]], &[]),
        [],
        "nobody asked"
    );

    let stayed = [
        vec![unowned("a")],
        vec![pod("a")],
        vec![ending("a")],
        vec![],
    ];
    let what = differs(&stayed, &evicted).remove(0).1;
    assert!(matches!(what, Differs::HadToGo(_)), "{what:?}");
    // Who was to stay, and was deleted by somebody, had not to go.
    let deleted = [vec![unowned("a")], vec![going("a")], vec![]];
    let what = differs(&deleted, &[]).remove(0).1;
    assert!(matches!(what, Differs::Vanished(_)), "{what:?}");
}

#[test]
fn every_way_to_differ_is_told_apart() {
    let a = |looks: [Vec<PodFacts>; 2], came_of: &[(&str, PodOutcome)]| {
        let mut all = differs(&looks, came_of);
        assert!(all.len() <= 1, "{all:?}");
        all.pop().map(|(_, what)| what)
    };
    let came = a([vec![], vec![pod("a")]], &[("a", PodOutcome::Evicted)]);
    assert_eq!(came, Some(Differs::Came));
    let gone = differs(
        &[vec![], vec![pod("a")], vec![]],
        &[("a", PodOutcome::Evicted)],
    );
    assert_eq!(gone, [("a".to_owned(), Differs::Came)], "and is gone since");
    assert_eq!(a([vec![], vec![unowned("a")]], &[]), None, "it stays");
    assert_eq!(
        a([vec![pod("a")], vec![]], &[]),
        Some(Differs::WentByItself)
    );
    let blocked = [("a", PodOutcome::BlockedByBudget)];
    assert_eq!(
        a([vec![pod("a")], vec![pod("a")]], &blocked),
        Some(Differs::StillThere(PodOutcome::BlockedByBudget))
    );
    let finished = with(pod("a"), |pod| pod.finished = true);
    assert_eq!(
        a([vec![pod("a")], vec![finished]], &[]),
        Some(Differs::WentByItself)
    );
    let left = a([vec![pod("a")], vec![unowned("a")]], &[]);
    assert!(
        matches!(&left, Some(Differs::Left(why)) if why.contains("eviction.unmanaged")),
        "{left:?}"
    );
    let had_to = a(
        [vec![unowned("a")], vec![pod("a")]],
        &[("a", PodOutcome::Evicted)],
    );
    assert!(
        matches!(&had_to, Some(Differs::HadToGo(why)) if why.contains("eviction.unmanaged")),
        "{had_to:?}"
    );
    let vanished = a([vec![unowned("a")], vec![]], &[]);
    assert!(
        matches!(&vanished, Some(Differs::Vanished(why)) if why.contains("eviction.unmanaged")),
        "{vanished:?}"
    );
    let mirror = with(pod("a"), |pod| pod.mirror = true);
    assert_eq!(a([vec![mirror], vec![]], &[]), None, "not ours to plan");
}

#[test]
fn a_sentence_names_three_and_counts_the_rest() {
    let said = |names: &[&str]| {
        let mut intent = Intent::default();
        intent.see([], &rules());
        let pods: Vec<PodFacts> = names.iter().map(|name| pod(name)).collect();
        intent.see(&pods, &rules());
        differences_in_words(&intent.differences(|_| None))
    };
    assert_eq!(said(&[]), "");
    assert_eq!(
        said(&["a"]),
        "1 Pod not as planned: shop/a came after the drain had begun"
    );
    let three = said(&["c", "a", "b"]);
    assert_eq!(
        three,
        "3 Pods not as planned: shop/a came after the drain had begun; shop/b came after the drain had begun; \
         shop/c came after the drain had begun"
    );
    let five = said(&["a", "b", "c", "d", "e"]);
    assert!(five.starts_with("5 Pods not as planned: shop/a came"));
    assert!(five.ends_with("shop/c came after the drain had begun; and 2 more"));
}
