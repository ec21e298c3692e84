//! Places for Pods, as tables: what a Pod asks for, and whether it fits.

use crate::support::labels;
use crate::support::pods::{sized, with};
use foreshock_core::drain::PodFacts;
use foreshock_core::node::NodeName;
use foreshock_core::record::{Taint, TaintEffect};
use foreshock_core::room::{
    Going, HOSTNAME, HostPort, NodeTerm, Obstacle, Operator, PodTerm, Protocol, Requirement,
    Resources, Spread, Survivor, Toleration, VolumeTopology, place,
};

const ZONE: &str = "topology.kubernetes.io/zone";

/// A Node with 1 core, 1 GiB and 10 places.
struct Node {
    name: NodeName,
    labels: std::collections::BTreeMap<String, String>,
    taints: Vec<Taint>,
    has: Resources,
    pods: Vec<PodFacts>,
}

fn node(name: &str, zone: &str) -> Node {
    Node {
        name: name.into(),
        labels: labels(&[(HOSTNAME, name), (ZONE, zone)]),
        taints: Vec::new(),
        has: Resources {
            cpu: 1_000,
            memory: 1 << 30,
            pods: 10,
            ..Resources::default()
        },
        pods: Vec::new(),
    }
}

fn with_pods(mut node: Node, pods: impl IntoIterator<Item = PodFacts>) -> Node {
    node.pods = pods.into_iter().collect();
    node
}

fn changed(mut node: Node, change: impl FnOnce(&mut Node)) -> Node {
    change(&mut node);
    node
}

/// Where each Pod goes, by name, and for which there is no place; those of `first` leave too.
fn placed(nodes: &[Node], first: &[PodFacts], then: &[PodFacts]) -> (Vec<String>, Vec<String>) {
    let from = labels(&[(HOSTNAME, "gone"), (ZONE, "z1")]);
    let survivors: Vec<Survivor<'_>> = nodes
        .iter()
        .map(|node| Survivor {
            name: &node.name,
            labels: &node.labels,
            taints: node.taints.iter().collect(),
            allocatable: &node.has,
            pods: &node.pods,
        })
        .collect();
    let going = |pods: &'_ [PodFacts]| -> Vec<usize> { (0..pods.len()).collect() };
    let first: Vec<Going<'_>> = going(first)
        .into_iter()
        .map(|at| Going {
            pod: &first[at],
            from: &from,
        })
        .collect();
    let then: Vec<Going<'_>> = going(then)
        .into_iter()
        .map(|at| Going {
            pod: &then[at],
            from: &from,
        })
        .collect();
    let placement = place(&survivors, &first, &then);
    assert_eq!(
        placement,
        place(&survivors, &first, &then),
        "the same question has the same answer"
    );
    let mut reversed = survivors.clone();
    reversed.reverse();
    assert_eq!(
        placement,
        place(&reversed, &first, &then),
        "in whatever order it is asked"
    );
    let mut places: Vec<String> = placement
        .places
        .iter()
        .map(|place| format!("{}@{}", place.pod.name, place.on))
        .collect();
    places.sort();
    let without = placement.without.iter().map(ToString::to_string).collect();
    (places, without)
}

#[track_caller]
fn fits(nodes: &[Node], pods: &[PodFacts], expected: &[&str]) {
    let (places, without) = placed(nodes, &[], pods);
    assert_eq!(
        (places, without),
        (
            expected.iter().map(|one| (*one).to_owned()).collect(),
            vec![]
        )
    );
}

#[track_caller]
fn fits_not(nodes: &[Node], pods: &[PodFacts], expected: &[&str]) {
    let (_, without) = placed(nodes, &[], pods);
    assert_eq!(without, expected);
}

fn pod(name: &str, change: impl FnOnce(&mut PodFacts)) -> PodFacts {
    with(sized(name, 100), change)
}

fn is_in(key: &str, values: &[&str]) -> Requirement {
    Requirement {
        key: key.into(),
        operator: Operator::In(values.iter().map(|value| (*value).to_owned()).collect()),
    }
}

fn like(topology_key: &str, app: &str) -> PodTerm {
    PodTerm {
        topology_key: topology_key.into(),
        namespaces: Some(vec!["shop".into()]),
        selector: Some(vec![is_in("app", &[app])]),
    }
}

fn app(name: &str, app: &str) -> PodFacts {
    pod(name, |pod| pod.needs.labels = labels(&[("app", app)]))
}

#[test]
fn what_is_taken_is_not_given_again() {
    let full = || with_pods(node("a", "z1"), [sized("x", 950)]);
    fits_not(
        &[full()],
        &[sized("p", 100)],
        &["shop/p (not enough cpu: 1)"],
    );
    fits(&[full(), node("b", "z1")], &[sized("p", 100)], &["p@b"]);
    let finished = with_pods(
        node("a", "z1"),
        [with(sized("x", 950), |pod| pod.finished = true)],
    );
    fits(&[finished], &[sized("p", 100)], &["p@a"]);
    let slots = changed(with_pods(node("a", "z1"), [sized("x", 0)]), |node| {
        node.has.pods = 1
    });
    fits_not(&[slots], &[sized("p", 0)], &["shop/p (not enough pods: 1)"]);
    // Overcommitted in what the Pod does not ask for.
    let over = with_pods(node("a", "z1"), [sized("x", 5_000)]);
    fits(&[over], &[sized("p", 0)], &["p@a"]);
}

#[test]
fn the_large_ones_go_first_and_where_they_leave_least() {
    let two = || {
        vec![
            with_pods(node("a", "z1"), [sized("x", 400)]),
            node("b", "z1"),
        ]
    };
    fits(&two(), &[sized("s", 600), sized("l", 900)], &["l@b", "s@a"]);
    fits_not(
        &two(),
        &[sized("l", 900), sized("m", 700)],
        &["shop/m (not enough cpu: 2)"],
    );
    // One that can go to one Node only is not crowded out by a larger one that has a choice.
    let bound = pod("bound", |pod| {
        pod.needs.node_selector = labels(&[(HOSTNAME, "b")])
    });
    let (places, without) = placed(&two(), &[], &[sized("l", 600), bound]);
    assert_eq!(
        (places, without),
        (vec!["bound@b".into(), "l@a".into()], vec![])
    );
}

#[test]
fn extended_resources_are_counted_like_any_other() {
    let gpu = |name: &str, count: u64| {
        pod(name, |pod| {
            pod.needs.requests.other = [("nvidia.com/gpu".into(), count)].into();
        })
    };
    let with_gpus = |count| {
        changed(node("g", "z1"), |node| {
            node.has.other = [("nvidia.com/gpu".into(), count)].into();
        })
    };
    fits(&[node("a", "z1"), with_gpus(2)], &[gpu("p", 2)], &["p@g"]);
    fits_not(
        &[node("a", "z1")],
        &[gpu("p", 1)],
        &["shop/p (not enough nvidia.com/gpu: 1)"],
    );
    let busy = with_pods(with_gpus(2), [gpu("x", 1)]);
    fits_not(
        &[busy],
        &[gpu("p", 2)],
        &["shop/p (not enough nvidia.com/gpu: 1)"],
    );
}

#[test]
fn what_cannot_be_counted_has_no_place() {
    let claim = pod("p", |pod| pod.needs.uncountable.push("a claim".into()));
    fits_not(
        &[node("a", "z1")],
        &[claim],
        &["shop/p (a claim cannot be counted: 1)"],
    );
}

#[test]
fn taints_keep_out_what_does_not_tolerate_them() {
    let taint = |effect| Taint {
        key: "gpu".into(),
        value: "a100".into(),
        effect,
    };
    let tainted = |effect| changed(node("a", "z1"), |node| node.taints = vec![taint(effect)]);
    let refused = ["shop/p (taint gpu=a100:NoSchedule: 1)"];
    fits_not(
        &[tainted(TaintEffect::NoSchedule)],
        &[sized("p", 1)],
        &refused,
    );
    fits(
        &[tainted(TaintEffect::PreferNoSchedule)],
        &[sized("p", 1)],
        &["p@a"],
    );
    let check = |key: Option<&str>, value: Option<&str>, effect, tolerates: bool| {
        let toleration = Toleration {
            key: key.map(Into::into),
            value: value.map(Into::into),
            effect,
        };
        let tolerant = pod("p", |pod| pod.needs.tolerations = vec![toleration.clone()]);
        let (places, _) = placed(&[tainted(TaintEffect::NoExecute)], &[], &[tolerant]);
        assert_eq!(places.len() == 1, tolerates, "{toleration:?}");
    };
    check(None, None, None, true);
    check(Some("gpu"), None, None, true);
    check(
        Some("gpu"),
        Some("a100"),
        Some(TaintEffect::NoExecute),
        true,
    );
    check(Some("gpu"), Some("h100"), None, false);
    check(Some("gpu"), None, Some(TaintEffect::NoSchedule), false);
    check(Some("other"), None, None, false);
}

#[test]
fn a_pod_goes_only_where_its_node_rules_and_its_volumes_let_it() {
    let two = || vec![node("a", "z1"), node("b", "z2")];
    let in_zone = |zone: &str| NodeTerm {
        labels: vec![is_in(ZONE, &[zone])],
        name: Vec::new(),
    };
    let selected = pod("p", |pod| pod.needs.node_selector = labels(&[(ZONE, "z2")]));
    fits(&two(), &[selected], &["p@b"]);
    let affine = pod("p", |pod| {
        pod.needs.node_affinity = Some(vec![in_zone("z9"), in_zone("z2")])
    });
    fits(&two(), &[affine], &["p@b"]);
    let nowhere = pod("p", |pod| pod.needs.node_affinity = Some(Vec::new()));
    fits_not(
        &two(),
        &[nowhere],
        &["shop/p (node selector or affinity: 2)"],
    );
    let by_name = NodeTerm {
        labels: Vec::new(),
        name: vec![is_in("metadata.name", &["b"])],
    };
    let named = pod("p", |pod| pod.needs.node_affinity = Some(vec![by_name]));
    fits(&two(), &[named], &["p@b"]);
    let volume = |claim: &str, zone: &str| VolumeTopology {
        claim: claim.into(),
        terms: vec![in_zone(zone)],
    };
    let bound = |zones: [&str; 2]| {
        pod("p", |pod| {
            pod.needs.volumes = vec![volume("data", zones[0]), volume("logs", zones[1])]
        })
    };
    fits(&two(), &[bound(["z2", "z2"])], &["p@b"]);
    fits_not(
        &two(),
        &[bound(["z1", "z2"])],
        &["shop/p (volume of claim data: 1, volume of claim logs: 1)"],
    );
}

#[test]
fn rules_about_pods_of_one_node_are_counted_there() {
    let two = || {
        vec![
            with_pods(node("a", "z1"), [app("x", "web")]),
            node("b", "z1"),
        ]
    };
    let apart = |name: &str| {
        with(app(name, "web"), |pod| {
            pod.needs.apart = vec![like(HOSTNAME, "web")]
        })
    };
    fits(&two(), &[apart("p")], &["p@b"]);
    fits_not(
        &two(),
        &[apart("p"), apart("q")],
        &["shop/q (pod anti-affinity: 2)"],
    );
    // One who is there may ask for it too.
    let shy = with(app("x", "shy"), |pod| {
        pod.needs.apart = vec![like(HOSTNAME, "web")]
    });
    fits_not(
        &[with_pods(node("a", "z1"), [shy])],
        &[app("p", "web")],
        &["shop/p (pod anti-affinity: 1)"],
    );
    let together = |of: &str| pod("p", |pod| pod.needs.together = vec![like(HOSTNAME, of)]);
    fits(&two(), &[together("web")], &["p@a"]);
    fits_not(&two(), &[together("db")], &["shop/p (pod affinity: 2)"]);
    let spread = |name: &str| {
        with(app(name, "web"), |pod| {
            pod.needs.spread = vec![Spread {
                over: like(HOSTNAME, "web"),
                skew_max: 1,
            }];
        })
    };
    fits(&two(), &[spread("p")], &["p@b"]);
    fits_not(
        &two(),
        &[spread("p"), spread("q")],
        &["shop/q (topology spread: 2)"],
    );
    let port = |name: &str, number: u16| {
        pod(name, |pod| {
            pod.needs.host_ports = vec![HostPort {
                protocol: Protocol::Tcp,
                port: number,
                address: None,
            }];
        })
    };
    let serving = || vec![with_pods(node("a", "z1"), [port("x", 80)])];
    fits(&serving(), &[port("p", 81)], &["p@a"]);
    fits_not(&serving(), &[port("p", 80)], &["shop/p (host port 80: 1)"]);
}

#[test]
fn rules_over_a_zone_are_known_to_be_met_only_in_the_zone_that_is_left() {
    let two = || vec![node("a", "z2"), node("b", "z1")];
    for change in [
        (|pod: &mut PodFacts| pod.needs.apart = vec![like(ZONE, "web")]) as fn(&mut PodFacts),
        |pod| pod.needs.together = vec![like(ZONE, "web")],
        |pod| {
            pod.needs.spread = vec![Spread {
                over: like(ZONE, "web"),
                skew_max: 1,
            }]
        },
    ] {
        fits(&two(), &[with(app("p", "web"), change)], &["p@b"]);
        let away = [node("a", "z2")];
        let refused = ["shop/p (its rules over topology.kubernetes.io/zone: 1)"];
        fits_not(&away, &[with(app("p", "web"), change)], &refused);
    }
    let wide = with(app("x", "shy"), |pod| {
        pod.needs.apart = vec![like(ZONE, "web")]
    });
    let there = |zone| [with_pods(node("a", zone), [wide.clone()])];
    fits(&there("z1"), &[app("p", "web")], &["p@a"]);
    fits_not(
        &there("z2"),
        &[app("p", "web")],
        &["shop/p (pod anti-affinity: 1)"],
    );
}

#[test]
fn those_who_go_first_keep_their_room() {
    let one = || vec![node("a", "z1")];
    let check = |first: &[PodFacts], then: &[PodFacts], places: &[&str], without: usize| {
        let (found, left) = placed(&one(), first, then);
        assert_eq!(
            (
                found.iter().map(String::as_str).collect::<Vec<_>>(),
                left.len()
            ),
            (places.to_vec(), without)
        );
    };
    check(&[sized("f", 600)], &[sized("p", 400)], &["f@a", "p@a"], 0);
    check(&[sized("f", 700)], &[sized("p", 400)], &["f@a"], 1);
    // It could use none of these Nodes even alone, so it takes nothing away.
    check(&[sized("f", 2_000)], &[sized("p", 400)], &["p@a"], 0);
    // It could, and there is nothing left for it: another must not take the rest.
    check(
        &[sized("f", 700), sized("g", 700)],
        &[sized("p", 100)],
        &["f@a", "p@a"],
        1,
    );
}

#[test]
fn obstacles_are_shown_the_most_frequent_first() {
    let obstacles = [
        (Obstacle::NodeAffinity, 1),
        (Obstacle::Lacks("cpu".into()), 3),
    ];
    let without = foreshock_core::room::NoPlace {
        pod: sized("p", 1).id,
        obstacles: obstacles.into(),
    };
    assert_eq!(
        without.to_string(),
        "shop/p (not enough cpu: 3, node selector or affinity: 1)"
    );
}
