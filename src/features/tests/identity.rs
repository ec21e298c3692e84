use std::sync::Arc;
use std::time::Duration;

use super::{ago, at, node};
use crate::features::directory::NodeDirectory;
use crate::features::identity::{
    IdentityMap, Labels, Owner, PodOnNode, Refusal, Sightings, Step, Target, needs_pods,
};

const STALE_AFTER: Duration = Duration::from_secs(120);

/// Labels from `name=value` pairs, separated by blanks.
fn labels(text: &str) -> Labels {
    let pairs = text
        .split_whitespace()
        .map(|pair| pair.split_once('=').unwrap());
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// A target scraped 10 s ago, or as many seconds as the label `age` says.
fn target(text: &str) -> Target {
    let mut labels = labels(text);
    let age = labels.remove("age").map_or(10, |age| age.parse().unwrap());
    Target {
        labels,
        scraped_at: ago(age),
    }
}

fn sightings(targets: &[&str]) -> Sightings {
    Sightings {
        targets: targets.iter().map(|t| target(t)).collect(),
        pods: vec![
            PodOnNode {
                namespace: "mon".into(),
                pod: "ne-a".into(),
                node: "a".into(),
            },
            PodOnNode {
                namespace: "mon".into(),
                pod: "ne-x".into(),
                node: "a".into(),
            },
            PodOnNode {
                namespace: "mon".into(),
                pod: "ne-x".into(),
                node: "b".into(),
            },
        ],
        ..Sightings::default()
    }
}

fn directory() -> NodeDirectory {
    NodeDirectory::new([
        node("a", "host-a", &["10.0.0.1", "fd00::a"]),
        node("b", "host-b", &["10.0.0.2", "10.0.9.9"]),
        node("c.example.com", "localhost", &["10.0.0.3", "10.0.9.9"]),
        node("d", "localhost", &["c-alias.example.com"]),
    ])
}

fn resolve(sightings: &Sightings) -> IdentityMap {
    IdentityMap::resolve(&directory(), at(), STALE_AFTER, sightings)
}

#[test]
fn a_target_is_the_node_that_the_first_of_the_five_steps_names() {
    use Step::{Address, InstanceName, NodeLabel, Nodename, Pod};
    for (labels, node, step) in [
        // Each step alone, with the later ones saying otherwise.
        (
            "node=a instance=b:9100 namespace=mon pod=ne-b nodename=b",
            "a",
            NodeLabel,
        ),
        (
            "instance=b:9100 namespace=mon pod=ne-a nodename=a",
            "b",
            InstanceName,
        ),
        (
            "instance=10.0.0.2:9100 namespace=mon pod=ne-a nodename=b",
            "a",
            Pod,
        ),
        (
            "instance=10.0.0.2:9100 namespace=mon pod=unknown nodename=a",
            "b",
            Address,
        ),
        ("instance=192.168.1.1:9100 nodename=host-b", "b", Nodename),
        // Labels that name no Node are passed over.
        ("node=zone-1 instance=10.0.0.1:9100", "a", Address),
        ("node= instance=a", "a", InstanceName),
        // Every spelling.
        ("instance=A:9100", "a", InstanceName),
        ("instance=c.example.com:9100", "c.example.com", InstanceName),
        ("instance=[fd00::a]:9100", "a", Address),
        ("instance=[FD00:0::A]:9100", "a", Address),
        ("instance=c-alias.example.com:9100", "d", Address),
        ("instance=x nodename=B", "b", Nodename),
        (
            "instance=x nodename=c.example.com",
            "c.example.com",
            Nodename,
        ),
    ] {
        let map = resolve(&sightings(&[labels]));
        let instance = target(labels).labels["instance"].clone();
        assert_eq!(
            map.node_of_instance(&instance),
            Some(&node.into()),
            "{labels}"
        );
        assert_eq!(
            map.fresh(&node.into()).map(|f| f.scraped_at),
            Some(ago(10)),
            "{labels}"
        );
        assert_eq!(
            map.report().steps.keys().collect::<Vec<_>>(),
            [&step],
            "{labels}"
        );
    }
}

#[test]
fn whatever_is_ambiguous_is_refused_with_its_reason_and_belongs_to_nobody() {
    for (targets, refused) in [
        (
            &[
                "instance=10.0.0.1:9100 job=x",
                "instance=10.0.0.1:9100 job=y",
            ][..],
            &["2 targets share the instance 10.0.0.1:9100"][..],
        ),
        (
            &["instance=a cluster=prod", "instance=a cluster=test"],
            &["2 targets share the instance a (label cluster: prod, test)"],
        ),
        (
            &["instance=a:9100", "instance=10.0.0.1:9100"],
            &["Node a has several instances: 10.0.0.1:9100, a:9100"],
        ),
        (
            &[
                "node=a instance=10.1.0.1:9100 cluster=prod",
                "node=a instance=10.2.0.1:9100 cluster=test",
            ],
            &[
                "Node a has several instances: 10.1.0.1:9100, 10.2.0.1:9100 (label cluster: prod, test)",
            ],
        ),
        (
            &["instance=10.0.9.9:9100"],
            &["instance 10.0.9.9:9100 matches several Nodes by the Node's address in instance"],
        ),
        (
            &["instance=x nodename=localhost"],
            &["instance x matches several Nodes by nodename"],
        ),
        (
            &["instance=x namespace=mon pod=ne-x"],
            &["instance x matches several Nodes by kube_pod_info"],
        ),
        // The Node was created 30 days ago: a sample from before is of an earlier one.
        (
            &["instance=a age=2592001"],
            &["the last sample of a is older than its Node a"],
        ),
        // Silent, and still two.
        (
            &["instance=a:9100 age=200", "instance=a:9200 age=250"],
            &["Node a has several instances: a:9100, a:9200"],
        ),
    ] {
        let map = resolve(&sightings(targets));
        let shown: Vec<_> = map
            .report()
            .refused
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(shown, refused, "{targets:?}");
        assert_eq!(map.fresh(&"a".into()), None, "{targets:?}");
        for text in targets {
            let instance = target(text).labels["instance"].clone();
            assert_eq!(map.node_of_instance(&instance), None, "{targets:?}");
            for of_targets in [true, false] {
                let directory = directory();
                let owner = map.owner(&directory, None, Some(&instance), of_targets);
                assert_eq!(owner, Owner::Refused, "{instance}");
            }
        }
        let mixes = map.report().refused.iter().any(Refusal::mixes_clusters);
        assert_eq!(mixes, refused[0].contains("label cluster"), "{targets:?}");
    }
}

#[test]
fn a_lingering_old_series_makes_nothing_ambiguous() {
    for targets in [
        // The exporter's Pod was replaced under the same instance; then under another port.
        ["instance=a:9100 pod=new", "instance=a:9100 pod=old age=150"],
        ["instance=a:9100", "instance=a:9200 age=150"],
    ] {
        let map = resolve(&sightings(&targets));
        assert_eq!(map.report().refused, [], "{targets:?}");
        assert_eq!(
            map.fresh(&"a".into()).map(|f| f.instance.as_str()),
            Some("a:9100")
        );
        assert_eq!(map.node_of_instance("a:9200"), None);
    }
}

#[test]
fn a_node_is_fresh_while_its_scrape_is_younger_than_stale_after() {
    let report = |age: &str| {
        let map = resolve(&sightings(&[&format!("instance=a age={age}")]));
        (
            map.fresh(&"a".into()).is_some(),
            map.report().stale.clone(),
            map.report().silent.len(),
        )
    };
    assert_eq!(report("119"), (true, vec![], 3));
    assert_eq!(report("120"), (false, vec!["a".into()], 3));
}

#[test]
fn a_dead_exporter_still_tells_which_node_an_alert_means() {
    let mut seen = sightings(&["instance=a:9100 job=node"]);
    seen.up = vec![
        labels("instance=a:9100 job=node"),
        labels("instance=b:9100 job=node"),
        labels("job=node"),
    ];
    let map = resolve(&seen);
    assert_eq!(map.node_of_instance("b:9100"), Some(&"b".into()));
    assert_eq!(map.fresh(&"b".into()), None);
    assert_eq!(map.report().stale, ["b".into()]);
    assert_eq!(map.report().silent, ["c.example.com".into(), "d".into()]);
    assert_eq!((map.report().instances, map.report().unlabelled), (2, 1));
    // Not the host of an instance that no exporter has, however well it would fit.
    assert_eq!(map.node_of_instance("b:9999"), None);
}

#[test]
fn strangers_are_listed_and_belong_to_no_node() {
    let map = resolve(&sightings(&["instance=db-1:9100 nodename=db-1"]));
    assert_eq!(map.report().strangers, ["db-1:9100"]);
    assert_eq!(
        map.owner(&directory(), None, Some("db-1:9100"), true),
        Owner::Stranger
    );
}

#[test]
fn series_of_other_jobs_may_name_a_node_by_label_name_or_address() {
    let map = resolve(&sightings(&[
        "instance=a:9100",
        "node=b instance=1:1",
        "node=b instance=2:2",
    ]));
    let a = "a".into();
    let c = "c.example.com".into();
    for (node, instance, of_targets, owner) in [
        (Some("a"), None, false, Owner::Node(&a)),
        (None, Some("a:9100"), true, Owner::Node(&a)),
        (None, Some("a:9115"), false, Owner::Node(&a)),
        (None, Some("10.0.0.3"), false, Owner::Node(&c)),
        (
            None,
            Some("https://10.0.0.3:10250/healthz"),
            false,
            Owner::Node(&c),
        ),
        (Some("no-node"), Some("10.0.0.3"), false, Owner::Node(&c)),
        // Only the identity query knows the exporters' instances.
        (None, Some("a:9115"), true, Owner::Stranger),
        (None, Some("10.0.9.9"), false, Owner::Refused),
        (None, Some("1:1"), false, Owner::Refused),
        // What is known of a Node with two exporters is known of neither.
        (Some("b"), None, false, Owner::Refused),
        (None, Some("10.0.0.2"), false, Owner::Refused),
        (None, Some("example.com"), false, Owner::Stranger),
        (None, None, false, Owner::Stranger),
    ] {
        assert_eq!(
            map.owner(&directory(), node, instance, of_targets),
            owner,
            "{node:?} {instance:?}"
        );
    }
}

#[test]
fn pods_are_asked_for_only_where_they_can_help() {
    let directory = directory();
    for (labels, needed) in [
        ("instance=10.0.0.1:9100 namespace=mon pod=ne-a", true),
        (
            "instance=10.0.0.1:9100 node=a namespace=mon pod=ne-a",
            false,
        ),
        ("instance=a:9100 namespace=mon pod=ne-a", false),
        ("instance=10.0.0.1:9100", false),
    ] {
        assert_eq!(
            needs_pods(&directory, &sightings(&[labels])),
            needed,
            "{labels}"
        );
    }
    let labels = "instance=10.0.0.1:9100 namespace=mon pod=ne-a";
    assert!(!needs_pods(&NodeDirectory::open(), &sightings(&[labels])));
}

#[test]
fn without_kubernetes_the_targets_themselves_are_the_nodes() {
    let open = NodeDirectory::open();
    let seen = sightings(&[
        "instance=10.0.0.1:9100 nodename=vm-1",
        "instance=10.0.0.2:9100 node=n2 nodename=vm-2",
        "instance=10.0.0.3:9100",
        "instance=10.0.0.4:9100 nodename=localhost",
        "instance=10.0.0.5:9100 nodename=localhost",
        "instance=10.0.0.6:9100 nodename=vm-6 age=500",
    ]);
    let map = IdentityMap::resolve(&open, at(), STALE_AFTER, &seen);
    let nodes: Vec<_> = map.nodes().into_iter().map(|n| n.to_string()).collect();
    assert_eq!(nodes, ["10.0.0.3", "localhost", "n2", "vm-1", "vm-6"]);
    assert_eq!(map.report().refused.len(), 1);
    assert!(map.fresh(&"vm-1".into()).is_some() && map.fresh(&"vm-6".into()).is_none());
    assert_eq!(
        map.owner(&open, None, Some("vm-1"), false),
        Owner::Node(&"vm-1".into())
    );
}

#[test]
fn a_fresh_target_says_its_job_and_the_version_of_its_exporter_where_that_is_one() {
    let mut seen = sightings(&[
        "instance=a:9100 job=node",
        "instance=b:9100 job=node",
        "instance=c.example.com:9100",
        "instance=d:9100 job=node age=600",
    ]);
    seen.builds = [
        "instance=a:9100 version=1.9.1",
        "instance=b:9100 version=1.9.1",
        "instance=b:9100 version=1.10.0",
        "instance=c.example.com:9100",
        "version=1.9.1",
        "instance=stranger:9100 version=2",
        "instance=d:9100 version=1.9.1",
    ]
    .map(labels)
    .into();
    let map = resolve(&seen);
    let inputs = |node: &str| {
        map.fresh(&node.into()).map(|target| {
            let text = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
            (text(&target.job), text(&target.exporter))
        })
    };
    let node = || Some("node".to_owned());
    assert_eq!(inputs("a"), Some((node(), Some("1.9.1".to_owned()))));
    assert_eq!(inputs("b"), Some((node(), None)), "two versions are none");
    assert_eq!(inputs("c.example.com"), Some((None, None)));
    assert_eq!(inputs("d"), None, "not fresh");
    let shared = |node: &str| map.fresh(&node.into()).and_then(|t| t.job.clone());
    let (a, b) = (shared("a"), shared("b"));
    assert!(
        a.zip(b).is_some_and(|(a, b)| Arc::ptr_eq(&a, &b)),
        "thousands of Nodes keep one text"
    );
}
