//! Drains: what is sent, what is followed, and what came of it.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_drain_evicts_each_pod_once_and_is_over_when_all_are_gone() {
    let cluster = Fake::new();
    draining_node(&cluster, (0..12).map(|n| pod(&format!("p{n}"))).collect());
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    scene.until("over", |scene| scene.ended().is_some()).await;
    assert_eq!(scene.ended(), Some(NodeOutcome::Drained));
    let mut evicted = cluster.evictions();
    evicted.sort();
    evicted.dedup();
    assert_eq!((evicted.len(), cluster.evictions().len()), (12, 12));
    assert!(
        scene
            .outcomes()
            .values()
            .all(|outcome| *outcome == PodOutcome::Evicted)
    );
    assert_eq!(scene.drain_report().expect("reported").gone, 12);
    assert!(
        cluster
            .written()
            .contains(&Write::Event("EvictedFromDegradingNode"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_the_nodes_record_does_not_know_is_not_begun() {
    let cluster = Fake::new();
    cluster.node("a", Some(&tainted("a")));
    cluster.set_pods("a", vec![pod("p")]);
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    scene.pass(Duration::from_secs(60)).await;
    assert!(cluster.evictions().is_empty());
    // Another start than the record says is another drain.
    cluster.node(
        "a",
        Some(&draining("a", after(START, Duration::from_secs(1)))),
    );
    scene.pass(Duration::from_secs(60)).await;
    assert!(cluster.evictions().is_empty());
    // It begins when the mark of the same plan has been made.
    cluster.node("a", Some(&draining("a", START)));
    scene
        .until("evicted", |scene| scene.cluster.evictions() == ["p"])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_its_budget_holds_goes_the_moment_the_budget_opens() {
    let cluster = Fake::new();
    draining_node(&cluster, vec![budgeted("p", 0), pod("free")]);
    answer(&cluster, "p", std::iter::repeat_n(blocked(), 1000));
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    scene.until("blocked", |scene| {
        scene.seen.iter().any(|report| matches!(report, Report::Blocked { budgets, .. } if budgets.values().sum::<u32>() == 1))
    }).await;
    scene
        .until("the other is gone", |scene| {
            scene.cluster.pod_names("a") == ["p"]
        })
        .await;
    let asked = cluster.evictions().iter().filter(|pod| *pod == "p").count();
    scene.pass(Duration::from_secs(20)).await;
    let asked_later = cluster.evictions().iter().filter(|pod| *pod == "p").count();
    assert!(
        (1..=6).contains(&(asked_later - asked)),
        "{} requests in 20 s",
        asked_later - asked
    );
    cluster.inner().answers.clear();
    set_allowed(&cluster, 1);
    let opened_at = cluster.clock.boottime();
    scene
        .until("gone", |scene| scene.cluster.pod_names("a").is_empty())
        .await;
    assert!(
        cluster.clock.boottime() - opened_at <= Duration::from_millis(1600),
        "a second of it is the Pod's own"
    );
    scene
        .until("over", |scene| scene.ended() == Some(NodeOutcome::Drained))
        .await;
    let blocked_last = scene.seen.iter().rev().find_map(|report| match report {
        Report::Blocked { budgets, .. } => Some(budgets.clone()),
        _ => None,
    });
    assert_eq!(blocked_last, Some(BTreeMap::new()));
}

#[tokio::test(start_paused = true)]
async fn a_withdrawn_drain_sends_nothing_more_and_says_what_came_of_its_pods() {
    let cluster = Fake::new();
    draining_node(&cluster, vec![pod("p1"), budgeted("p2", 0)]);
    answer(&cluster, "p2", std::iter::repeat_n(blocked(), 100));
    cluster.inner().gone_after = None;
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    scene.pass(Duration::from_secs(5)).await;
    let sent = cluster.evictions().len();
    scene.plan(|_| {});
    scene.pass(Duration::from_secs(120)).await;
    assert_eq!(cluster.evictions().len(), sent);
    assert_eq!(scene.outcomes()["p1"], PodOutcome::Evicted);
    assert_eq!(scene.outcomes()["p2"], PodOutcome::Cancelled);
    assert_eq!(
        scene.ended(),
        None,
        "a cancelled drain is not a drained Node"
    );
    // Ordered again, it goes on where it was.
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    scene.pass(Duration::from_secs(30)).await;
    assert_eq!(
        cluster
            .evictions()
            .iter()
            .filter(|pod| *pod == "p1")
            .count(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn pausing_a_drain_stops_evictions_at_once_and_what_was_accepted_is_followed() {
    let cluster = Fake::new();
    draining_node(
        &cluster,
        (0..40).map(|n| pod(&format!("p{n:02}"))).collect(),
    );
    let mut scene = Scene::with(
        &cluster,
        ActuatorOptions {
            evictions_per_second: 5,
            ..OPTIONS
        },
    )
    .await;
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    scene
        .until("some evicted", |scene| scene.cluster.evictions().len() >= 8)
        .await;
    cluster.edit_lease(|view| view.paused = true);
    let sent = cluster.written().len();
    for _ in 0..20 {
        scene.pass(Duration::from_secs(3)).await;
        scene.plan(|plan| {
            plan.drains = vec![DrainOrder {
                sends: false,
                ..drain_it("a", START)
            }];
        });
    }
    assert_eq!(cluster.written().len(), sent);
    let gone = scene
        .outcomes()
        .values()
        .filter(|outcome| **outcome == PodOutcome::Evicted)
        .count();
    assert_eq!(gone, cluster.evictions().len());
    cluster.edit_lease(|view| view.paused = false);
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    scene
        .until("over", |scene| scene.ended() == Some(NodeOutcome::Drained))
        .await;
    assert_eq!(cluster.evictions().len(), 40);
}

#[tokio::test(start_paused = true)]
async fn a_kill_at_any_moment_leads_to_no_second_accepted_eviction() {
    // Every moment of the first three seconds, in steps of 50 ms.
    for moment in 0..60 {
        let cluster = Fake::new();
        draining_node(&cluster, (0..10).map(|n| pod(&format!("p{n}"))).collect());
        cluster.inner().slow = Duration::from_millis(120);
        cluster.inner().gone_after = Some(Duration::from_secs(2));
        let first = Scene::with(
            &cluster,
            ActuatorOptions {
                evictions_per_second: 6,
                ..OPTIONS
            },
        )
        .await;
        first.plan(|plan| plan.drains = vec![drain_it("a", START)]);
        tokio::time::sleep(Duration::from_millis(50 * moment)).await;
        let cluster = first.kill();
        let mut second = Scene::new(&cluster).await;
        second.plan(|plan| plan.drains = vec![drain_it("a", START)]);
        second.until("over", |scene| scene.ended().is_some()).await;
        assert_eq!(second.ended(), Some(NodeOutcome::Drained));
        let mut evicted = cluster.evictions();
        evicted.sort();
        let sent = evicted.len();
        evicted.dedup();
        assert_eq!(
            (sent, evicted.len()),
            (10, 10),
            "killed after {} ms",
            50 * moment
        );
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_lost_answer_the_pod_is_read_before_it_is_asked_again() {
    let cluster = Fake::new();
    draining_node(&cluster, vec![pod("happened"), pod("did-not")]);
    answer(
        &cluster,
        "happened",
        [Answer::Lost {
            detail: "reset; it took place".to_owned(),
        }],
    );
    answer(
        &cluster,
        "did-not",
        [Answer::Lost {
            detail: "reset".to_owned(),
        }],
    );
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    scene
        .until("over", |scene| scene.ended() == Some(NodeOutcome::Drained))
        .await;
    let mut evicted = cluster.evictions();
    evicted.sort();
    assert_eq!(evicted, ["did-not", "did-not", "happened"]);
    assert!(cluster.inner().reads.contains(&"did-not".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_a_drain_with_an_outcome_for_each_pod() {
    let cluster = Fake::new();
    let never = Budget {
        name: "pdb".to_owned(),
        allowance: EvictionAllowance::Never,
        observed: true,
        unsettled: false,
        detail: "3 wanted".to_owned(),
    };
    draining_node(
        &cluster,
        vec![
            pod("departs"),
            budgeted("waits", 0),
            PodFacts {
                budgets: vec![never],
                ..pod("never")
            },
            pod("forbidden"),
            pod("denied"),
        ],
    );
    answer(&cluster, "waits", std::iter::repeat_n(blocked(), 10_000));
    answer(
        &cluster,
        "forbidden",
        std::iter::repeat_n(
            Answer::Forbidden {
                detail: "no".to_owned(),
            },
            10_000,
        ),
    );
    answer(
        &cluster,
        "denied",
        std::iter::repeat_n(
            Answer::WebhookDenied {
                detail: "guard".to_owned(),
            },
            10_000,
        ),
    );
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    scene.until("over", |scene| scene.ended().is_some()).await;
    assert!(
        matches!(scene.ended(), Some(NodeOutcome::Ended(_))),
        "{:?}",
        scene.ended()
    );
    scene.pass(Duration::from_secs(1)).await;
    let outcomes = scene.outcomes();
    assert_eq!(outcomes["departs"], PodOutcome::Evicted);
    assert_eq!(outcomes["never"], PodOutcome::NeverAllowed);
    assert_eq!(outcomes["waits"], PodOutcome::BlockedByBudget);
    assert_eq!(outcomes["denied"], PodOutcome::WebhookDenied);
    assert_eq!(outcomes["forbidden"], PodOutcome::Forbidden);
    assert_eq!(
        cluster
            .evictions()
            .iter()
            .filter(|pod| *pod == "forbidden")
            .count(),
        4,
        "some seconds, for a server that has just started, and then no more"
    );
    // It stays over, and says so again when it is still ordered.
    let sent = cluster.evictions().len();
    scene.seen.clear();
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    scene.pass(Duration::from_secs(60)).await;
    assert_eq!(cluster.evictions().len(), sent);
    assert!(scene.ended().is_some());
}

#[tokio::test(start_paused = true)]
async fn evictions_of_all_drains_together_keep_to_the_rate() {
    let cluster = Fake::new();
    for node in ["a", "b", "c"] {
        cluster.node(node, Some(&draining(node, START)));
        cluster.set_pods(node, (0..30).map(|n| pod(&format!("{node}{n}"))).collect());
    }
    let mut scene = Scene::with(
        &cluster,
        ActuatorOptions {
            evictions_per_second: 7,
            ..OPTIONS
        },
    )
    .await;
    scene.plan(|plan| plan.drains = ["a", "b", "c"].map(|node| drain_it(node, START)).to_vec());
    scene
        .until("all evicted", |scene| scene.cluster.evictions().len() == 90)
        .await;
    let times: Vec<Duration> = cluster
        .inner()
        .writes
        .iter()
        .filter(|(_, write)| matches!(write, Write::Evict(_)))
        .map(|(at, _)| *at)
        .collect();
    for (at, later) in times.iter().zip(&times[7..]) {
        assert!(*later - *at >= Duration::from_secs(1));
    }
    assert!(
        times[89] - times[0] <= Duration::from_secs(14),
        "nor slower: {:?}",
        times[89] - times[0]
    );
}

#[tokio::test(start_paused = true)]
async fn a_busy_server_slows_every_drain_down() {
    let cluster = Fake::new();
    for node in ["a", "b"] {
        cluster.node(node, Some(&draining(node, START)));
        cluster.set_pods(
            node,
            (0..20).map(|n| pod(&format!("{node}{n:02}"))).collect(),
        );
    }
    let throttled = Answer::Throttled {
        retry_after: Some(Duration::from_secs(20)),
    };
    answer(&cluster, "a00", [throttled]);
    let mut scene = Scene::with(
        &cluster,
        ActuatorOptions {
            evictions_per_second: 2,
            ..OPTIONS
        },
    )
    .await;
    scene.plan(|plan| plan.drains = ["a", "b"].map(|node| drain_it(node, START)).to_vec());
    scene.pass(Duration::from_secs(15)).await;
    // What had its turn already may still have left.
    assert!(
        cluster.evictions().len() <= 22,
        "{}",
        cluster.evictions().len()
    );
    let sent = cluster.evictions().len();
    scene.pass(Duration::from_secs(60)).await;
    assert!(cluster.evictions().len() > sent);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_concluded_from_pods_that_cannot_be_listed() {
    let cluster = Fake::new();
    cluster.node("a", Some(&draining("a", START)));
    cluster.inner().pods_fail = true;
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    scene.pass(Duration::from_secs(600)).await;
    assert_eq!(scene.ended(), None);
    scene.until("over", |scene| scene.ended().is_some()).await;
    assert_eq!(
        scene.ended(),
        Some(NodeOutcome::Ended(PodOutcome::Deadline))
    );
    assert!(
        scene
            .drain_report()
            .expect("reported")
            .detail
            .contains("refused")
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_broke_sends_nothing_and_concludes_nothing_until_it_is_back() {
    let cluster = Fake::new();
    draining_node(&cluster, vec![pod("p")]);
    cluster.change_pods("a", |table| {
        table.problem = Some("connection refused".to_owned())
    });
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    scene.pass(Duration::from_secs(60)).await;
    assert!(cluster.evictions().is_empty());
    cluster.change_pods("a", |table| table.pods.clear());
    scene.pass(Duration::from_secs(60)).await;
    assert_eq!(scene.ended(), None);
    cluster.change_pods("a", |table| {
        table.problem = None;
        table.pods = vec![Arc::new(pod("p")), Arc::new(pod("late"))];
    });
    scene
        .until("over", |scene| scene.ended() == Some(NodeOutcome::Drained))
        .await;
    assert_eq!(cluster.evictions().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_went_as_planned_says_so_without_an_event() {
    let cluster = Fake::new();
    let alone = PodFacts {
        owner: None,
        ..pod("alone")
    };
    draining_node(&cluster, vec![pod("p"), alone]);
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    scene
        .until("said", |scene| scene.not_as_planned() == Some(""))
        .await;
    assert_eq!(scene.ended(), Some(NodeOutcome::Drained));
    assert!(told_of_the_plan(&cluster).is_empty());
}

fn told_of_the_plan(cluster: &Fake) -> Vec<String> {
    let inner = cluster.inner();
    let said = inner.said.iter();
    said.filter(|event| event.reason == "DrainNotAsPlanned")
        .map(|event| event.note.clone())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn pods_that_appear_after_the_taint_are_caught() {
    let cluster = Fake::new();
    draining_node(&cluster, Vec::new());
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    scene.pass(Duration::from_secs(3)).await;
    assert_eq!(
        scene.ended(),
        None,
        "the scheduler may have bound some already"
    );
    cluster.change_pods("a", |table| table.pods.push(Arc::new(pod("late"))));
    scene
        .until("over", |scene| scene.ended() == Some(NodeOutcome::Drained))
        .await;
    assert_eq!(cluster.evictions(), ["late"]);
    let said = "1 Pod not as planned: shop/late came after the drain had begun";
    scene
        .until("said", |scene| scene.not_as_planned() == Some(said))
        .await;
    assert_eq!(told_of_the_plan(&cluster), [said]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_loses_the_lease_sends_no_further_eviction_and_the_next_goes_on() {
    let cluster = Fake::new();
    draining_node(
        &cluster,
        (0..40).map(|n| pod(&format!("p{n:02}"))).collect(),
    );
    let options = ActuatorOptions {
        evictions_per_second: 2,
        ..OPTIONS
    };
    let mut first = Scene::with(&cluster, options).await;
    first.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    first
        .until("some evicted", |scene| scene.cluster.evictions().len() >= 4)
        .await;
    let mut second = Scene::start(&cluster, options);
    // Somebody takes the Lease away by hand.
    cluster.edit_lease(|view| {
        view.holder = Some("somebody".to_owned());
        view.transitions += 1;
    });
    tokio::task::yield_now().await;
    let sent = cluster.evictions().len();
    first.pass(Duration::from_secs(10)).await;
    assert_eq!(cluster.evictions().len(), sent);
    second
        .until("leads again", |scene| {
            scene.leader.leadership().borrow().leader || first.leader.leadership().borrow().leader
        })
        .await;
    second.pass(Duration::from_millis(100)).await;
    for _ in 0..60 {
        for scene in [&mut first, &mut second] {
            scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
            scene.pass(Duration::from_millis(500)).await;
        }
    }
    let mut evicted = cluster.evictions();
    evicted.sort();
    evicted.dedup();
    assert_eq!((evicted.len(), cluster.evictions().len()), (40, 40));
}

/// Evictions that waited for their turn left long after a person had excluded the Node.
#[tokio::test(start_paused = true)]
async fn evictions_that_wait_for_their_turn_are_called_back_when_nothing_may_be_sent() {
    let cluster = Fake::new();
    draining_node(&cluster, ["p1", "p2", "p3", "p4"].map(pod).to_vec());
    let slow = ActuatorOptions {
        evictions_per_second: 1,
        ..OPTIONS
    };
    let mut scene = Scene::with(&cluster, slow).await;
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    scene.pass(Duration::from_millis(200)).await;
    let sent = cluster.evictions().len();
    assert!(
        (1..4).contains(&sent),
        "some wait for their turn: {sent} sent"
    );
    scene.plan(|plan| {
        let order = drain_it("a", START);
        plan.drains = vec![DrainOrder {
            sends: false,
            ..order
        }];
    });
    scene.pass(Duration::from_secs(30)).await;
    assert_eq!(cluster.evictions().len(), sent);
    // Allowed again, those that were called back go.
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    scene
        .until("all evicted", |scene| scene.cluster.evictions().len() == 4)
        .await;
}

// ---- one Pod of a workload at a time ----

fn of_web(name: &str) -> PodFacts {
    let mut pod = pod(name);
    pod.workload = Ok(pod.owner.clone());
    pod
}

fn web(cluster: &Fake, ready: &[&str]) {
    cluster.set_workload(Workload {
        wanted: Some(3),
        ready: ready
            .iter()
            .map(|name| format!("uid-{name}").as_str().into())
            .collect(),
        ..Workload::default()
    });
}

#[tokio::test(start_paused = true)]
async fn the_next_pod_of_a_workload_goes_when_the_replacement_is_ready() {
    let cluster = Fake::new();
    draining_node(
        &cluster,
        vec![of_web("p1"), of_web("p2"), of_web("p3"), pod("free")],
    );
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    scene.pass(Duration::from_secs(5)).await;
    assert_eq!(
        cluster.evictions(),
        ["free"],
        "how it stands with the workload is not known"
    );
    web(&cluster, &["p1", "p2", "p3"]);
    scene
        .until("the first goes", |scene| {
            scene.cluster.evictions().len() == 2
        })
        .await;
    web(&cluster, &["p2", "p3"]);
    scene.pass(Duration::from_secs(60)).await;
    assert_eq!(cluster.evictions(), ["free", "p1"]);
    let ready_at = cluster.clock.boottime();
    web(&cluster, &["p2", "p3", "r1"]);
    scene
        .until("the next goes", |scene| {
            scene.cluster.evictions().len() == 3
        })
        .await;
    assert!(
        cluster.clock.boottime() - ready_at < Duration::from_millis(100),
        "it is an event"
    );
    web(&cluster, &["p3", "r1", "r2"]);
    scene
        .until("over", |scene| scene.ended() == Some(NodeOutcome::Drained))
        .await;
}

#[tokio::test(start_paused = true)]
async fn four_workloads_are_looked_at_for_the_first_time_at_once() {
    let cluster = Fake::new();
    let pods = (0..10).map(|n| {
        let mut pod = of_web(&format!("p{n}"));
        if let Ok(Some(owner)) = &mut pod.workload {
            owner.uid = Uid::from(format!("w{n}"));
        }
        pod
    });
    draining_node(&cluster, pods.collect());
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    scene.pass(Duration::from_secs(10)).await;
    assert_eq!(cluster.looked_at(), ["w0", "w1", "w2", "w3"]);
    // What has been seen makes room for the next, and stays in sight while its Pod waits.
    let none_ready = Workload {
        wanted: Some(1),
        ..Workload::default()
    };
    cluster.set_other_workload("w1", none_ready.clone());
    scene.pass(Duration::from_secs(10)).await;
    assert_eq!(cluster.looked_at(), ["w0", "w1", "w2", "w3", "w4"]);
    cluster.set_other_workload("w0", none_ready.clone());
    cluster.set_other_workload("w2", none_ready);
    scene.pass(Duration::from_secs(10)).await;
    assert_eq!(
        cluster.looked_at(),
        ["w0", "w1", "w2", "w3", "w4", "w5", "w6"]
    );
    assert_eq!(cluster.evictions(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn two_nodes_that_are_drained_at_once_take_one_pod_of_a_workload_at_a_time() {
    let cluster = Fake::new();
    draining_node(&cluster, vec![of_web("p1")]);
    cluster.node("b", Some(&draining("b", START)));
    cluster.set_pods("b", vec![of_web("p2")]);
    web(&cluster, &["p1", "p2", "p3"]);
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_it("a", START), drain_it("b", START)]);
    scene
        .until("one goes", |scene| !scene.cluster.evictions().is_empty())
        .await;
    scene.pass(Duration::from_secs(60)).await;
    let first = cluster.evictions();
    assert_eq!(first.len(), 1, "{first:?}");
    let left = if first == ["p1"] { "p2" } else { "p1" };
    web(&cluster, &[left, "p3", "r1"]);
    scene
        .until("the other goes", |scene| {
            scene.cluster.evictions().len() == 2
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_drain_has_seen_of_a_workload_is_not_believed_in_the_next() {
    let cluster = Fake::new();
    draining_node(&cluster, vec![of_web("p1")]);
    web(&cluster, &["p1", "p2", "p3"]);
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    let asked = |scene: &Scene| scene.cluster.evictions() == ["p1"];
    scene.until("the first goes", asked).await;
    web(&cluster, &["p2", "p3"]);
    let drained = |scene: &Scene| scene.ended() == Some(NodeOutcome::Drained);
    scene.until("the first drain is over", drained).await;
    scene.plan(|_| {});
    // Its replacement is waited for in vain, and comes when nobody looks.
    let pod_deadline = drain_it("a", START).rules.pod_deadline;
    scene.pass(pod_deadline + Duration::from_secs(1)).await;

    cluster.forget_workload();
    let later = scene.now();
    cluster.node("b", Some(&draining("b", later)));
    cluster.set_pods("b", vec![of_web("p2")]);
    scene.seen.clear();
    scene.plan(|plan| plan.drains = vec![drain_it("b", later)]);
    scene.pass(Duration::from_secs(5)).await;
    assert_eq!(cluster.evictions(), ["p1"], "nothing is known of it");
    assert_eq!(scene.ended(), None);
    web(&cluster, &["p2", "p3", "r1"]);
    let asked = |scene: &Scene| scene.cluster.evictions() == ["p1", "p2"];
    scene.until("the second goes", asked).await;
}

#[tokio::test(start_paused = true)]
async fn each_drain_goes_by_what_it_sees_of_a_workload_itself() {
    let cluster = Fake::new();
    draining_node(&cluster, vec![of_web("p1")]);
    cluster.node("b", Some(&draining("b", START)));
    cluster.set_pods("b", vec![of_web("p2")]);
    web(&cluster, &["p1", "p2", "p3"]);
    let mut scene = Scene::new(&cluster).await;
    let looks_on = DrainOrder {
        sends: false,
        ..drain_it("a", START)
    };
    scene.plan(|plan| plan.drains = vec![looks_on.clone()]);
    scene.pass(Duration::from_secs(5)).await;
    // What the first one saw is all that it will ever see.
    cluster.forget_workload();
    scene.plan(|plan| plan.drains = vec![looks_on, drain_it("b", START)]);
    scene.pass(Duration::from_secs(5)).await;
    assert_eq!(cluster.evictions(), Vec::<String>::new());
    web(&cluster, &["p1", "p2", "p3"]);
    let asked = |scene: &Scene| scene.cluster.evictions() == ["p2"];
    scene.until("it goes", asked).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_is_ordered_again_goes_on_and_another_of_the_same_node_begins_anew() {
    let cluster = Fake::new();
    draining_node(&cluster, vec![pod("p"), budgeted("q", 1)]);
    never_allow(&cluster, "q");
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    let gone = |scene: &Scene| {
        scene
            .drain_report()
            .map(|report| (report.started_at, report.gone))
    };
    scene
        .until("p is gone", |scene| gone(scene) == Some((START, 1)))
        .await;
    scene.plan(|_| {});
    scene.pass(Duration::from_secs(5)).await;
    scene.seen.clear();
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    scene.pass(Duration::from_secs(1)).await;
    assert_eq!(
        gone(&scene).unwrap_or((START, 1)),
        (START, 1),
        "it says nothing, or what it was"
    );
    scene.plan(|_| {});
    scene.pass(Duration::from_secs(5)).await;
    let later = after(START, Duration::from_secs(60));
    cluster.node("a", Some(&draining("a", later)));
    scene.seen.clear();
    scene.plan(|plan| plan.drains = vec![drain_it("a", later)]);
    scene
        .until("begun", |scene| scene.drain_report().is_some())
        .await;
    assert_eq!(gone(&scene), Some((later, 0)));
}

#[tokio::test(start_paused = true)]
async fn another_drain_of_the_same_node_takes_the_place_of_the_one_that_runs() {
    let cluster = Fake::new();
    draining_node(&cluster, vec![budgeted("q", 1)]);
    never_allow(&cluster, "q");
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    scene
        .until("runs", |scene| scene.drain_report().is_some())
        .await;
    for _ in 0..3 {
        scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
        scene.pass(Duration::from_secs(1)).await;
    }
    assert!(scene.outcomes().is_empty(), "the same drain goes on");
    let later = after(START, Duration::from_secs(60));
    cluster.node("a", Some(&draining("a", later)));
    scene.plan(|plan| plan.drains = vec![drain_it("a", later)]);
    scene
        .until("the other runs", |scene| {
            scene
                .drain_report()
                .is_some_and(|report| report.started_at == later)
        })
        .await;
    assert_eq!(scene.outcomes().get("q"), Some(&PodOutcome::Cancelled));
}

#[tokio::test(start_paused = true)]
async fn a_drain_whose_task_fails_is_begun_again_and_no_other_with_it() {
    let cluster = Fake::new();
    draining_node(&cluster, vec![pod("p")]);
    cluster.node("b", Some(&draining("b", START)));
    cluster.set_pods("b", vec![budgeted("q", 1)]);
    never_allow(&cluster, "q");
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_it("b", START)]);
    scene
        .until("b runs", |scene| scene.drain_report().is_some())
        .await;
    cluster.inner().evict_panics = true;
    scene.seen.clear();
    scene.plan(|plan| plan.drains = vec![drain_it("a", START), drain_it("b", START)]);
    scene
        .until("a is drained", |scene| {
            scene.ended() == Some(NodeOutcome::Drained)
        })
        .await;
    // b's drain still runs, and hears that it is not wanted.
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    scene
        .until("b is cancelled", |scene| {
            scene.outcomes().get("q") == Some(&PodOutcome::Cancelled)
        })
        .await;
}

/// Every request for this Pod is answered by its budget.
fn never_allow(cluster: &Fake, name: &str) {
    let answers = std::iter::repeat_with(blocked).take(1_000).collect();
    cluster.inner().answers.insert(name.to_owned(), answers);
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_a_request_is_awaited_though_the_drain_was_cancelled_meanwhile() {
    let cluster = Fake::new();
    draining_node(&cluster, vec![pod("p")]);
    let mut scene = Scene::new(&cluster).await;
    cluster.inner().slow = Duration::from_secs(5);
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    scene
        .until("asked", |scene| scene.cluster.evictions() == ["p"])
        .await;
    scene.plan(|_| {});
    scene.pass(Duration::from_secs(20)).await;
    let answered = |report: &Report| {
        matches!(
            report,
            Report::Answered {
                answer: Answer::Accepted,
                ..
            }
        )
    };
    assert!(scene.seen.iter().any(answered), "{:?}", scene.seen);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_a_reading_is_called_back() {
    let sent_after = async |stop: fn(&Fake, &mut Scene)| {
        let cluster = Fake::new();
        draining_node(&cluster, vec![budgeted("q", 1)]);
        cluster
            .inner()
            .answers
            .insert("q".to_owned(), [lost()].into());
        cluster.inner().reading_takes = Duration::from_secs(4);
        let mut scene = Scene::new(&cluster).await;
        scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
        scene
            .until("read again", |scene| {
                !scene.cluster.inner().reads.is_empty()
            })
            .await;
        stop(&cluster, &mut scene);
        scene.pass(Duration::from_secs(60)).await;
        cluster.evictions().len() - 1
    };
    assert_eq!(sent_after(|_, _| ()).await, 1, "nobody stops it");
    let withdrawn = |_: &Fake, scene: &mut Scene| {
        scene.plan(|plan| {
            plan.drains = vec![DrainOrder {
                sends: false,
                ..drain_it("a", START)
            }];
        });
    };
    assert_eq!(sent_after(withdrawn).await, 0);
    let broken = |cluster: &Fake, _: &mut Scene| {
        cluster.change_pods("a", |table| table.problem = Some("closed".to_owned()));
    };
    assert_eq!(sent_after(broken).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_does_not_go_is_told_by_whether_its_own_node_is_ready() {
    let came_of = async |change: fn(&Fake)| {
        let cluster = Fake::new();
        draining_node(&cluster, vec![pod("p")]);
        cluster.inner().gone_after = None;
        let mut scene = Scene::new(&cluster).await;
        scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
        scene
            .until("asked", |scene| scene.cluster.evictions() == ["p"])
            .await;
        change(&cluster);
        scene.until("over", |scene| scene.ended().is_some()).await;
        let report = scene.drain_report().expect("reported");
        assert_eq!((report.remaining, report.gone), (1, 0));
        scene.outcomes()["p"]
    };
    assert_eq!(came_of(|_| ()).await, PodOutcome::StuckTerminating);
    let silent = |cluster: &Fake| {
        cluster.change_node("a", |node| {
            node["status"]["conditions"][0]["status"] = serde_json::json!("Unknown");
        });
    };
    assert_eq!(came_of(silent).await, PodOutcome::Unreachable);
    let another = |cluster: &Fake| {
        cluster.change_node("a", |node| {
            node["metadata"]["uid"] = serde_json::json!("new")
        });
    };
    assert_eq!(came_of(another).await, PodOutcome::Unreachable);
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_often_looks_again_keeps_its_place_in_the_queue() {
    let cluster = Fake::new();
    let pods = |of: &str| (0..10).map(|n| pod(&format!("{of}{n}"))).collect();
    draining_node(&cluster, pods("a"));
    cluster.node("b", Some(&draining("b", START)));
    cluster.set_pods("b", pods("b"));
    let mut scene = Scene::slow(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_it("a", START), drain_it("b", START)]);
    for _ in 0..200 {
        let now = scene.now();
        cluster.change_pods("a", |table| table.at = Some(now));
        scene.pass(Duration::from_millis(50)).await;
    }
    let of_a = |name: &&String| name.starts_with('a');
    let evictions = cluster.evictions();
    let share = evictions.iter().filter(of_a).count();
    assert!(share * 2 + 2 >= evictions.len(), "{evictions:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_renewed_late_is_waited_for_and_then_things_go_on() {
    let cluster = Fake::new();
    draining_node(
        &cluster,
        (0..30).map(|n| pod(&format!("p{n:02}"))).collect(),
    );
    cluster.node("z", Some(&tainted("z")));
    let mut scene = Scene::slow(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    scene
        .until("some evicted", |scene| scene.cluster.evictions().len() == 3)
        .await;
    // Nobody else may lead yet, and this process not write any more.
    cluster.inner().lease_fails = true;
    let closed = |scene: &Scene| scene.leader.gate(Reach::Evict).check().is_err();
    scene.until("closed", closed).await;
    assert!(scene.leader.leadership().borrow().leader);
    let sent = cluster.evictions().len();
    scene.plan(|plan| {
        plan.marks = vec![release_it("z")];
        plan.drains = vec![drain_it("a", START)];
    });
    scene.pass(Duration::from_millis(900)).await;
    assert_eq!(
        (cluster.evictions().len(), cluster.marked().len()),
        (sent, 0)
    );
    cluster.inner().lease_fails = false;
    // The Lease is tried again every two seconds, and the gate asked twice a second.
    scene.pass(Duration::from_millis(2_900)).await;
    assert!(cluster.evictions().len() > sent);
    assert_eq!(cluster.marked(), ["z"]);
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_opens_while_the_lease_is_late_is_used_as_soon_as_that_is_renewed() {
    let cluster = Fake::new();
    draining_node(&cluster, vec![budgeted("q", 0)]);
    answer(&cluster, "q", vec![blocked(); 20]);
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    scene.pass(Duration::from_secs(5)).await;
    cluster.inner().lease_fails = true;
    let closed = |scene: &Scene| scene.leader.gate(Reach::Evict).check().is_err();
    scene.until("closed", closed).await;
    let before = cluster.evictions().len();
    // The last thing that happens by itself.
    set_allowed(&cluster, 1);
    scene.pass(Duration::from_millis(900)).await;
    assert_eq!(cluster.evictions().len(), before);
    cluster.inner().lease_fails = false;
    scene.pass(Duration::from_millis(2_900)).await;
    assert!(cluster.evictions().len() > before);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_went_after_a_request_without_an_answer_went_as_planned() {
    for unsure in [lost(), Answer::Gone] {
        let cluster = Fake::new();
        draining_node(&cluster, vec![pod("p")]);
        answer(&cluster, "p", vec![unsure; 20]);
        let mut scene = Scene::new(&cluster).await;
        scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
        let asked = |scene: &Scene| !scene.cluster.evictions().is_empty();
        scene.until("asked", asked).await;
        scene.pass(Duration::from_millis(100)).await;
        cluster.set_pods("a", Vec::new());
        scene.until("over", |scene| scene.ended().is_some()).await;
        assert_eq!(scene.not_as_planned(), Some(""));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_a_moment_ago_is_asked_again_a_moment_later() {
    let cluster = Fake::new();
    draining_node(&cluster, vec![budgeted("q", 0)]);
    answer(&cluster, "q", [blocked(), blocked()]);
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    scene.pass(Duration::from_millis(700)).await;
    assert_eq!(cluster.evictions(), ["q"]);
    set_allowed(&cluster, 1);
    scene.pass(Duration::from_millis(400)).await;
    assert_eq!(cluster.evictions(), ["q"; 3], "no event says when");
}

#[tokio::test(start_paused = true)]
async fn pods_that_others_wait_for_use_every_turn_there_is() {
    let cluster = Fake::new();
    let pods = (0..16).map(|n| budgeted(&format!("q{n:02}"), 8));
    draining_node(&cluster, pods.collect());
    let options = ActuatorOptions {
        evictions_per_second: 4,
        ..OPTIONS
    };
    let mut scene = Scene::with(&cluster, options).await;
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    let begun = |scene: &Scene| !scene.cluster.evictions().is_empty();
    scene.until("begun", begun).await;
    scene.pass(Duration::from_millis(900)).await;
    assert_eq!(cluster.evictions().len(), 4, "none of them is spared");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_goes_by_the_time_it_is_read_again_is_not_asked_again() {
    let cluster = Fake::new();
    draining_node(&cluster, vec![budgeted("q", 1)]);
    cluster
        .inner()
        .answers
        .insert("q".to_owned(), [lost()].into());
    cluster.inner().reads_terminating = true;
    let mut scene = Scene::new(&cluster).await;
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    scene
        .until("read again", |scene| {
            !scene.cluster.inner().reads.is_empty()
        })
        .await;
    scene.pass(Duration::from_secs(1)).await;
    assert_eq!(cluster.evictions(), ["q"]);
    let accepted = |report: &Report| {
        matches!(
            report,
            Report::Answered {
                answer: Answer::Accepted,
                ..
            }
        )
    };
    assert!(scene.seen.iter().any(accepted), "{:?}", scene.seen);
    scene.pass(Duration::from_secs(120)).await;
    assert_eq!(cluster.evictions(), ["q"], "nor later");
}

#[tokio::test(start_paused = true)]
async fn events_leave_the_server_to_the_evictions_and_none_is_lost() {
    let cluster = Fake::new();
    let pods = (0..60).map(|n| pod(&format!("p{n:02}"))).collect();
    draining_node(&cluster, pods);
    let options = ActuatorOptions {
        evictions_per_second: 20,
        ..OPTIONS
    };
    let mut scene = Scene::with(&cluster, options).await;
    let said = |cluster: &Fake| {
        let said = Write::Event("EvictedFromDegradingNode");
        let written = cluster.written();
        written.iter().filter(|write| **write == said).count()
    };
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    let all_asked = |scene: &Scene| scene.cluster.evictions().len() == 60;
    scene.until("all are asked to go", all_asked).await;
    let took = scene.now().duration_since(START).as_secs();
    assert!((2..5).contains(&took), "{took} s");
    let early = said(&cluster);
    assert!(early <= 4 * 5, "{early} in {took} s");
    // What is no news of one Pod does not wait behind them.
    scene.events.publish(ClusterEvent {
        node: Some(NodeId::new("a", "uid-a")),
        pod: None,
        reason: "DegradationTainted",
        warning: false,
        note: String::new(),
    });
    scene.pass(Duration::from_millis(10)).await;
    assert_eq!(cluster.inner().said.len(), 1);
    scene.pass(Duration::from_secs(30)).await;
    assert_eq!(said(&cluster), 60);
}

#[tokio::test(start_paused = true)]
async fn ordinary_pods_leave_a_turn_to_a_budget_that_opens() {
    let cluster = Fake::new();
    let mut pods: Vec<PodFacts> = (0..40).map(|n| pod(&format!("p{n:02}"))).collect();
    pods.push(budgeted("q", 0));
    draining_node(&cluster, pods);
    cluster
        .inner()
        .answers
        .insert("q".to_owned(), [blocked()].into());
    // Four a second, of which one is spared for the budget's Pod.
    let options = ActuatorOptions {
        evictions_per_second: 4,
        ..OPTIONS
    };
    let mut scene = Scene::with(&cluster, options).await;
    scene.plan(|plan| plan.drains = vec![drain_it("a", START)]);
    let busy = |scene: &Scene| scene.cluster.evictions().len() >= 9;
    scene.until("in the middle", busy).await;
    // Those who spare none have used up the turns of this second.
    scene.pass(Duration::from_millis(300)).await;
    let before = cluster.evictions().len();
    set_allowed(&cluster, 1);
    scene.pass(Duration::from_millis(100)).await;
    assert_eq!(cluster.evictions()[before..], ["q"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_in_its_last_moment_is_gone_when_the_drain_is_over() {
    let finishes = async |asked: bool| {
        let cluster = Fake::new();
        draining_node(&cluster, vec![pod("p")]);
        cluster.inner().gone_after = None;
        let mut scene = Scene::new(&cluster).await;
        let order = DrainOrder {
            sends: asked,
            ..drain_it("a", START)
        };
        scene.plan(|plan| plan.drains = vec![order]);
        scene.pass(Duration::from_secs(2)).await;
        assert_eq!(cluster.evictions().len(), usize::from(asked));
        // It is still there, and has ended.
        cluster.change_pods("a", |table| {
            Arc::make_mut(&mut table.pods[0]).finished = true;
        });
        scene
            .until("over", |scene| scene.ended() == Some(NodeOutcome::Drained))
            .await;
        let report = scene.drain_report().expect("reported");
        assert_eq!((report.remaining, report.gone), (0, 1));
        (scene.outcomes()["p"], scene.not_as_planned() == Some(""))
    };
    assert_eq!(finishes(true).await, (PodOutcome::Evicted, true));
    assert_eq!(finishes(false).await, (PodOutcome::Gone, false));
}
