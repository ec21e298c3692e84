//! What is asked of the API server for plans, and how often.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use foreshock_core::decision::plan::MarkOrder;
use foreshock_core::decision::policy::Reach;
use foreshock_core::drain::{Answer, Choice, DrainRules, Owner, PodFacts, PodId, Scalable};
use foreshock_core::node::NodeId;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::watch;

use super::dry_runs::{DRY_RUNS_IN_FLIGHT, DryRuns};
use super::plan::Alone;
use crate::clock::{SystemClock, VirtualClock};
use crate::kubernetes::{
    Cluster, ClusterError, ClusterEvent, DryRun, Guard, LeaseState, LeaseView, LeaseWrite,
    NodeEntry, NodeTable, PodTable, WorkloadState,
};
use crate::web::PlanDryRun;

/// Takes dry runs and reads Deployments, and nothing else.
#[derive(Default)]
struct Tried {
    asked: AtomicUsize,
    read: AtomicUsize,
    busy: AtomicBool,
}

impl Cluster for Tried {
    fn try_eviction(&self, pod: &PodId, _: Option<Duration>) -> BoxFuture<'_, DryRun> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let answer = if self.busy.load(Ordering::Relaxed) {
            DryRun::Busy(Some(Duration::from_secs(9)))
        } else if pod.name == "no" {
            DryRun::Refused("its budget".to_owned())
        } else if pod.name == "mute" {
            DryRun::NoAnswer("timed out".to_owned())
        } else {
            DryRun::Allowed
        };
        Box::pin(std::future::ready(answer))
    }

    fn deployment(
        &self,
        _: &str,
        owner: &Owner,
    ) -> BoxFuture<'_, Result<Option<Scalable>, ClusterError>> {
        self.read.fetch_add(1, Ordering::Relaxed);
        let replicas = match owner.name.as_str() {
            "one" => Ok(Some(1)),
            "two" => Ok(Some(2)),
            "gone" => Ok(None),
            _ => Err(ClusterError::Timeout {
                action: format!("read {owner}"),
                limit: Duration::from_secs(5),
            }),
        };
        let found = replicas.map(|replicas| {
            replicas.map(|replicas| Scalable {
                replicas,
                ..Scalable::default()
            })
        });
        Box::pin(std::future::ready(found))
    }

    fn set_guard(&self, _: Guard) {
        unreachable!("a plan sets no guard")
    }

    fn nodes(&self) -> watch::Receiver<Arc<NodeTable>> {
        unreachable!("dry runs look at no Node")
    }

    fn pods(&self, _: &NodeId) -> BoxFuture<'_, Result<Vec<PodFacts>, ClusterError>> {
        unreachable!("dry runs list no Pods")
    }

    fn watch_pods(&self, _: &NodeId) -> watch::Receiver<Arc<PodTable>> {
        unreachable!("dry runs watch no Pods")
    }

    fn watch_workload(&self, _: &str, _: &Owner) -> watch::Receiver<WorkloadState> {
        unreachable!("dry runs wait for no replacement")
    }

    fn read_pod(&self, _: &PodId) -> BoxFuture<'_, Result<Option<PodFacts>, ClusterError>> {
        unreachable!("dry runs read no Pod")
    }

    fn mark(&self, _: &MarkOrder) -> BoxFuture<'_, Result<NodeEntry, ClusterError>> {
        unreachable!("a plan writes nothing")
    }

    fn evict(&self, _: &PodId, _: Option<Duration>) -> BoxFuture<'_, Answer> {
        unreachable!("a plan evicts nothing")
    }

    fn lease(&self) -> watch::Receiver<LeaseState> {
        unreachable!("a plan asks for no Lease")
    }

    fn write_lease(&self, _: &LeaseWrite) -> BoxFuture<'_, Result<LeaseView, ClusterError>> {
        unreachable!("a plan writes nothing")
    }

    fn publish(&self, _: &ClusterEvent) -> BoxFuture<'_, Result<(), ClusterError>> {
        unreachable!("a plan publishes nothing")
    }
}

fn pod(name: &str) -> PodFacts {
    PodFacts {
        id: PodId {
            namespace: "shop".into(),
            name: name.into(),
            uid: name.into(),
        },
        owner: Some(Owner {
            group: "apps".into(),
            kind: "ReplicaSet".into(),
            name: "web".into(),
            uid: "rs".into(),
        }),
        workload: Ok(None),
        daemon_set_gone: false,
        mirror: false,
        finished: false,
        ready: true,
        terminating_until: None,
        finalizers: Vec::new(),
        grace: Duration::from_secs(30),
        empty_dir: false,
        local_volumes: false,
        devices: Vec::new(),
        dependency: None,
        claims: Vec::new(),
        volumes: Vec::new(),
        critical: false,
        opted_out: None,
        tolerates_taint: false,
        own: false,
        budgets: Vec::new(),
        needs: foreshock_core::room::Needs::default(),
    }
}

fn rules() -> DrainRules {
    DrainRules {
        grace_cap: None,
        deadline: Duration::from_secs(900),
        pod_deadline: Duration::from_secs(600),
        pace: foreshock_core::drain::Pace::Owner,
        surge: false,
        unmanaged: Choice::Leave,
        empty_dir: Choice::Leave,
        local_volumes: Choice::Leave,
        devices: Choice::Evict,
        kube_system: Choice::Leave,
        opted_out: Choice::Leave,
        orphaned_daemon_set: Choice::Leave,
    }
}

#[tokio::test(start_paused = true)]
async fn the_only_pod_of_a_deployment_in_kube_system_is_told() {
    let of = |name: &str| {
        let mut pod = pod(name);
        pod.id.namespace = "kube-system".into();
        pod.workload = Ok(Some(Owner {
            group: "apps".into(),
            kind: "Deployment".into(),
            name: name.into(),
            uid: name.into(),
        }));
        pod
    };
    let mut elsewhere = of("one");
    elsewhere.id = pod("elsewhere").id;
    let mut covered = of("one");
    covered.id.name = "covered".into();
    covered.budgets.push(foreshock_core::drain::Budget {
        name: "dns".into(),
        allowance: foreshock_core::drain::EvictionAllowance::Now(1),
        observed: true,
        unsettled: false,
        detail: String::new(),
    });
    let pods = [
        of("one"),
        of("two"),
        of("gone"),
        of("mute"),
        elsewhere,
        covered,
    ];
    let mut chosen = rules();
    let (cluster, alone) = (Tried::default(), Alone::default());
    let clock = VirtualClock::new(Timestamp::UNIX_EPOCH);
    let none = alone.of(&cluster, &clock, &pods, &chosen).await;
    assert!(none.is_empty(), "none of them goes");
    chosen.kube_system = Choice::Evict;
    let said = alone.of(&cluster, &clock, &pods, &chosen).await;
    let read = || cluster.read.load(Ordering::Relaxed);
    assert_eq!(read(), 4);
    for (later, reads) in [(19, 4), (1, 8)] {
        tokio::time::advance(Duration::from_secs(later)).await;
        let again = alone.of(&cluster, &clock, &pods, &chosen).await;
        assert_eq!((&again, read()), (&said, reads));
    }
    let names: Vec<&str> = said.keys().map(|pod| pod.name.as_str()).collect();
    assert_eq!(names, ["mute", "one"]);
    let words: Vec<&String> = said.values().collect();
    assert!(
        words[0].starts_with("may be the only one of Deployment/mute"),
        "{words:?}"
    );
    assert!(
        words[1].starts_with("is the only one of Deployment/one"),
        "{words:?}"
    );
}

async fn said(dry_runs: &DryRuns, cluster: &Tried, reach: Reach, pods: &[PodFacts]) -> Vec<String> {
    let answers = dry_runs
        .of(cluster, &SystemClock, Some(reach), pods, &rules())
        .await;
    let words = |answer: &PlanDryRun| match answer {
        PlanDryRun::Allowed(_) => "allowed".to_owned(),
        PlanDryRun::Refused(_, why) | PlanDryRun::Unknown(why) => why.clone(),
    };
    answers.values().map(words).collect()
}

#[tokio::test]
async fn only_pods_that_would_be_evicted_are_asked_about_and_once() {
    let (dry_runs, cluster) = (DryRuns::new(Arc::new(|| Ok(()))), Tried::default());
    let (mut left, mut going) = (pod("left"), pod("going"));
    left.empty_dir = true;
    going.terminating_until = Some(Timestamp::UNIX_EPOCH);
    let pods = [pod("fine"), going, left, pod("no")];
    let expected = [
        "allowed",
        "not asked: it is terminating already",
        "its budget",
    ];
    for _ in 0..3 {
        let answers = said(&dry_runs, &cluster, Reach::Evict, &pods).await;
        assert_eq!(answers, expected);
    }
    assert_eq!(cluster.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn an_answer_serves_for_half_a_minute_and_none_for_a_moment() {
    let clock = VirtualClock::new(Timestamp::UNIX_EPOCH);
    let asked_again = async |name: &str, later: Duration| {
        let (dry_runs, cluster) = (DryRuns::new(Arc::new(|| Ok(()))), Tried::default());
        let pods = [pod(name)];
        for wait in [Duration::ZERO, later] {
            tokio::time::advance(wait).await;
            dry_runs
                .of(&cluster, &clock, Some(Reach::Evict), &pods, &rules())
                .await;
        }
        cluster.asked.load(Ordering::Relaxed) == 2
    };
    let second = Duration::from_secs(1);
    for (name, long) in [("fine", 30), ("no", 30), ("mute", 3)] {
        assert!(!asked_again(name, (long - 1) * second).await, "{name}");
        assert!(asked_again(name, long * second).await, "{name}");
    }
}

#[tokio::test]
async fn nothing_is_asked_below_reach_evict_or_where_no_write_may_leave() {
    let cluster = Tried::default();
    let open = DryRuns::new(Arc::new(|| Ok(())));
    let paused = DryRuns::new(Arc::new(|| Err("paused".to_owned())));
    for (dry_runs, reach, why) in [
        (&open, Reach::Observe, "not asked: reach is observe"),
        (&open, Reach::Label, "not asked: reach is label"),
        (&open, Reach::Taint, "not asked: reach is taint"),
        (&paused, Reach::Evict, "not asked: paused"),
    ] {
        let answers = said(dry_runs, &cluster, reach, &[pod("a")]).await;
        assert_eq!(answers, [why]);
    }
    assert_eq!(cluster.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_busy_server_is_left_alone_and_a_plan_does_not_wait_for_it() {
    let (dry_runs, cluster) = (DryRuns::new(Arc::new(|| Ok(()))), Tried::default());
    cluster.busy.store(true, Ordering::Relaxed);
    let pods: Vec<PodFacts> = (0..50).map(|n| pod(&format!("p{n}"))).collect();
    let answers = said(&dry_runs, &cluster, Reach::Evict, &pods).await;
    assert!(
        answers
            .iter()
            .all(|why| why == "not asked: the API server is busy")
    );
    let first = cluster.asked.load(Ordering::Relaxed);
    assert!(
        (1..=DRY_RUNS_IN_FLIGHT).contains(&first),
        "{first} were asked"
    );
    // It asked for 9 s, and a plan has 5.
    let answers = said(&dry_runs, &cluster, Reach::Evict, &pods).await;
    assert!(answers.iter().all(|why| why.contains("no time left")));
    assert_eq!(cluster.asked.load(Ordering::Relaxed), first);
}
