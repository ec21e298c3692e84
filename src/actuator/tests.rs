//! The actuator on a small cluster in memory, in virtual time.

use std::collections::BTreeMap;

use foreshock_core::drain::{
    Answer, Budget, Choice, DrainReport, DrainRules, EvictionAllowance, PodFacts,
};
use foreshock_core::node::Uid;
use foreshock_core::record::NodeRecord;
use foreshock_core::time::after;
use tokio::task::JoinHandle;

use super::fake::{Fake, START, Write, budgeted, draining, pod, tainted};
use super::*;

struct Scene {
    cluster: Arc<Fake>,
    leader: LeaderHandle,
    plans: watch::Sender<Option<Arc<Plan>>>,
    reports: ReportRx,
    seen: Vec<Report>,
    shutdown: CancellationToken,
    actuator: JoinHandle<()>,
    lead: JoinHandle<()>,
}

const OPTIONS: ActuatorOptions = ActuatorOptions {
    reach: Reach::Evict,
    marks_per_second: 1000,
    evictions_per_second: 1000,
};

impl Scene {
    async fn new(cluster: &Arc<Fake>) -> Self {
        Self::with(cluster, OPTIONS).await
    }

    /// A process that leads, with nothing to do yet.
    async fn with(cluster: &Arc<Fake>, options: ActuatorOptions) -> Self {
        let scene = Self::start(cluster, options);
        let mut leadership = scene.leader.leadership();
        let wait = leadership.wait_for(|leadership| leadership.leader);
        tokio::time::timeout(Duration::from_secs(60), wait)
            .await
            .expect("leads")
            .expect("runs");
        // A plan counts from the moment on that the process leads.
        tokio::time::sleep(Duration::from_millis(10)).await;
        scene
    }

    fn start(cluster: &Arc<Fake>, options: ActuatorOptions) -> Self {
        let as_cluster = || Arc::clone(cluster) as Arc<dyn Cluster>;
        let clock = || Arc::clone(&cluster.clock) as Arc<dyn Clock>;
        let leading = LeaderOptions {
            identity: identity(&*cluster.clock),
            address: None,
            elect: true,
            times: LeaseTimes::default(),
        };
        let (leader, handle) = Leader::new(as_cluster(), clock(), leading);
        let (plans, plans_rx) = watch::channel(None);
        let (actuator, reports, _) = Actuator::with_plans(
            options,
            as_cluster(),
            clock(),
            handle.clone(),
            plans_rx,
            |plan| plan,
        );
        let shutdown = CancellationToken::new();
        Self {
            cluster: Arc::clone(cluster),
            leader: handle,
            plans,
            reports,
            seen: Vec::new(),
            actuator: tokio::spawn(actuator.run(shutdown.clone())),
            lead: tokio::spawn(leader.run(CancellationToken::new())),
            shutdown,
        }
    }

    fn now(&self) -> Timestamp {
        self.cluster.clock.now()
    }

    fn plan(&self, change: impl FnOnce(&mut Plan)) {
        let mut plan = Plan::empty(self.now());
        change(&mut plan);
        self.plans.send_replace(Some(Arc::new(plan)));
    }

    /// Lets time pass, and collects what is reported.
    async fn pass(&mut self, time: Duration) {
        tokio::time::sleep(time).await;
        self.seen.extend(self.reports.drain());
    }

    /// Waits until it is so, for at most an hour of virtual time.
    async fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        for _ in 0..360_000 {
            if condition(self) {
                return;
            }
            self.pass(Duration::from_millis(10)).await;
        }
        panic!(
            "never: {what}; reported {:?}; written {:?}",
            self.seen,
            self.cluster.written()
        );
    }

    fn drain_report(&self) -> Option<DrainReport> {
        self.seen.iter().rev().find_map(|report| match report {
            Report::Drain { report, .. } => Some(report.clone()),
            _ => None,
        })
    }

    fn ended(&self) -> Option<NodeOutcome> {
        self.drain_report()?.ended.map(|(_, outcome)| outcome)
    }

    fn outcomes(&self) -> BTreeMap<String, PodOutcome> {
        let of = |report: &Report| match report {
            Report::Pod(report) => Some((report.pod.name.clone(), report.outcome)),
            _ => None,
        };
        self.seen.iter().filter_map(of).collect()
    }

    /// As SIGKILL does.
    fn kill(self) -> Arc<Fake> {
        self.actuator.abort();
        self.lead.abort();
        self.cluster
    }
}

fn order(cause: Cause, expects: Option<NodeRecord>, record: Option<NodeRecord>) -> MarkOrder {
    let uid = expects
        .as_ref()
        .or(record.as_ref())
        .expect("one of them")
        .uid
        .clone();
    let name = uid.as_str().trim_start_matches("uid-").to_owned();
    MarkOrder {
        node: NodeId::new(name, uid),
        cause,
        note: "because".to_owned(),
        expects: expects.map(Box::new),
        record: record.map(Box::new),
    }
}

fn taint_it(name: &str) -> MarkOrder {
    order(Cause::Taint, None, Some(tainted(name)))
}

fn release_it(name: &str) -> MarkOrder {
    order(Cause::Release, Some(tainted(name)), None)
}

fn rules() -> DrainRules {
    DrainRules {
        grace_cap: None,
        deadline: Duration::from_secs(900),
        pod_deadline: Duration::from_secs(600),
        unmanaged: Choice::Leave,
        empty_dir: Choice::Leave,
        local_volumes: Choice::Leave,
        kube_system: Choice::Leave,
        opted_out: Choice::Leave,
        orphaned_daemon_set: Choice::Leave,
    }
}

fn drain_it(name: &str, started_at: Timestamp) -> DrainOrder {
    DrainOrder {
        node: NodeId::new(name, format!("uid-{name}")),
        started_at,
        complete_after: after(started_at, DrainOrder::SCHEDULER_LAG),
        deadline_at: after(started_at, Duration::from_secs(900)),
        sends: true,
        rules: rules(),
    }
}

/// A Node `a` whose record says that it drains since the start, with these Pods.
fn draining_node(cluster: &Arc<Fake>, pods: Vec<PodFacts>) {
    cluster.node("a", Some(&draining("a", START)));
    cluster.set_pods("a", pods);
}

fn set_allowed(cluster: &Fake, allowed: u32) {
    cluster.change_pods("a", |table| {
        for pod in &mut table.pods {
            for budget in &mut pod.budgets {
                budget.allowance = EvictionAllowance::Now(allowed);
            }
        }
    });
}

fn blocked() -> Answer {
    Answer::BlockedByBudget {
        detail: "the budget pdb needs 2 healthy Pods".to_owned(),
        retry_after: None,
    }
}

fn answer(cluster: &Fake, pod: &str, answers: impl IntoIterator<Item = Answer>) {
    cluster
        .inner()
        .answers
        .insert(pod.to_owned(), answers.into_iter().collect());
}

// ---- marks ----

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
async fn a_mark_that_the_next_plan_does_not_have_is_withdrawn() {
    let cluster = Fake::new();
    for name in ["a", "b", "c"] {
        cluster.node(name, None);
    }
    let mut scene = Scene::with(
        &cluster,
        ActuatorOptions {
            marks_per_second: 1,
            ..OPTIONS
        },
    )
    .await;
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
    let mut scene = Scene::with(
        &cluster,
        ActuatorOptions {
            marks_per_second: 1,
            ..OPTIONS
        },
    )
    .await;
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
    let mut scene = Scene::with(
        &cluster,
        ActuatorOptions {
            marks_per_second: 1,
            ..OPTIONS
        },
    )
    .await;
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
    let mut scene = Scene::with(
        &cluster,
        ActuatorOptions {
            marks_per_second: 1,
            ..OPTIONS
        },
    )
    .await;
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

// ---- drains ----

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
    answer(&cluster, "p", [blocked()]);
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
    answer(&cluster, "p", std::iter::repeat_n(blocked(), 100));
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
        detail: "3 wanted".to_owned(),
    };
    draining_node(
        &cluster,
        vec![
            pod("goes"),
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
        [Answer::Forbidden {
            detail: "no".to_owned(),
        }],
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
    assert_eq!(outcomes["goes"], PodOutcome::Evicted);
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
        1
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
        table.pods = vec![pod("p"), pod("late")];
    });
    scene
        .until("over", |scene| scene.ended() == Some(NodeOutcome::Drained))
        .await;
    assert_eq!(cluster.evictions().len(), 2);
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
    cluster.change_pods("a", |table| table.pods.push(pod("late")));
    scene
        .until("over", |scene| scene.ended() == Some(NodeOutcome::Drained))
        .await;
    assert_eq!(cluster.evictions(), ["late"]);
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
