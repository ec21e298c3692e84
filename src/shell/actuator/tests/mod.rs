//! The actuator on a small cluster in memory, in virtual time.

mod drains;
mod marks;
mod moves;
mod surges;
mod volumes;

use std::collections::BTreeMap;

use foreshock_core::drain::{
    Answer, Budget, Choice, DrainReport, DrainRules, EvictionAllowance, PodFacts, Workload,
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
    events: EventTx,
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

    /// The same, with one mark and one eviction a second.
    async fn slow(cluster: &Arc<Fake>) -> Self {
        let options = ActuatorOptions {
            marks_per_second: 1,
            evictions_per_second: 1,
            ..OPTIONS
        };
        Self::with(cluster, options).await
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
        let (actuator, reports, events) = Actuator::with_plans(
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
            events,
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

    /// Waits until it is so, for at most an hour of virtual time. It looks every 10 ms at first and, the longer
    /// it takes, every hundredth of the time passed: what never comes is then known within a second.
    async fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let mut passed = Duration::ZERO;
        while passed < Duration::from_secs(3_600) {
            if condition(self) {
                return;
            }
            let step = Duration::from_millis(10).max(passed / 100);
            self.pass(step).await;
            passed += step;
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

    /// What the drain that is over says of its plan.
    fn not_as_planned(&self) -> Option<&str> {
        let of = |report: &'_ Report| matches!(report, Report::Differs { .. });
        let last = self.seen.iter().rfind(|report| of(report));
        match last {
            Some(Report::Differs { message, .. }) => Some(message),
            _ => None,
        }
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
            for budget in &mut Arc::make_mut(pod).budgets {
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

fn lost() -> Answer {
    Answer::Lost {
        detail: "the connection broke".to_owned(),
    }
}

fn answer(cluster: &Fake, pod: &str, answers: impl IntoIterator<Item = Answer>) {
    cluster
        .inner()
        .answers
        .insert(pod.to_owned(), answers.into_iter().collect());
}
