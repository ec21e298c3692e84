use foreshock_core::decision::policy::Reach;
use foreshock_core::time::after;
use tokio::task::JoinHandle;

use super::super::fake::{Fake, START, Write};
use super::super::gate::Closed;
use super::*;

struct Replica {
    handle: LeaderHandle,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Replica {
    fn start(cluster: &Arc<Fake>, name: &str) -> Self {
        let options = LeaderOptions {
            identity: name.to_owned(),
            address: Some(format!("{name}:5000")),
            elect: true,
            times: LeaseTimes::default(),
        };
        let (leader, handle) = Leader::new(
            Arc::clone(cluster) as Arc<dyn Cluster>,
            Arc::clone(&cluster.clock) as Arc<dyn Clock>,
            options,
        );
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(leader.run(shutdown.clone()));
        Self {
            handle,
            shutdown,
            task,
        }
    }

    fn leads(&self) -> bool {
        self.handle.leadership.borrow().leader
    }

    fn gate(&self) -> Result<(), Closed> {
        self.handle.gate(Reach::Evict).check()
    }

    async fn until(&self, what: &str, condition: impl Fn(&Leadership) -> bool) {
        let mut leadership = self.handle.leadership();
        let wait = leadership.wait_for(|leadership| condition(leadership));
        tokio::time::timeout(Duration::from_secs(120), wait)
            .await
            .expect(what)
            .expect("the task runs");
    }

    /// As SIGKILL does.
    fn kill(self) {
        self.task.abort();
    }
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

fn record() -> ClusterRecord {
    ClusterRecord {
        storm: Some(foreshock_core::record::Storm {
            since: START,
            about: "4 of 10 Nodes".into(),
            input: None,
            calm_since: None,
        }),
        ..ClusterRecord::default()
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_replica_leads_and_renews_and_the_second_waits() {
    let cluster = Fake::new();
    let first = Replica::start(&cluster, "first");
    first.until("leads", |leadership| leadership.leader).await;
    assert_eq!(first.gate(), Ok(()));
    let second = Replica::start(&cluster, "second");
    seconds(300).await;
    assert!(first.leads() && !second.leads());
    assert_eq!(second.gate(), Err(Closed::NotLeader));
    let seen = second.handle.leadership.borrow().clone();
    assert_eq!(
        (seen.holder.as_deref(), seen.address.as_deref()),
        (Some("first"), Some("first:5000"))
    );
    let writes = cluster.inner().writes.len();
    assert!(
        (140..160).contains(&writes),
        "{writes} writes of the Lease in 300 s, one in 2 s"
    );
}

#[tokio::test(start_paused = true)]
async fn the_gate_says_since_when_this_process_leads() {
    let cluster = Fake::new();
    let first = Replica::start(&cluster, "first");
    let since = |replica: &Replica| replica.handle.gate(Reach::Evict).leads_since();
    seconds(5).await;
    let second = Replica::start(&cluster, "second");
    seconds(30).await;
    let led = first.handle.leadership().borrow().since;
    assert_eq!((since(&first), since(&second)), (Some(led), None));
    assert!(led >= START && led < after(START, Duration::from_secs(5)));
    first.kill();
    second
        .until("follows", |leadership| leadership.leader)
        .await;
    let led = second.handle.leadership().borrow().since;
    assert_eq!(since(&second), Some(led));
    assert!(led > after(START, Duration::from_secs(35)));
}

#[tokio::test(start_paused = true)]
async fn what_is_shown_of_the_lead_changes_with_it_and_not_with_every_renewal() {
    let cluster = Fake::new();
    let first = Replica::start(&cluster, "first");
    assert!(
        !first.handle.leadership().borrow().other_leads,
        "nobody leads"
    );
    seconds(5).await;
    let second = Replica::start(&cluster, "second");
    seconds(5).await;
    assert!(!first.handle.leadership().borrow().other_leads);
    assert!(second.handle.leadership().borrow().other_leads);
    let mut shown = second.handle.leadership();
    shown.mark_unchanged();
    seconds(60).await;
    assert!(!shown.has_changed().expect("open"), "thirty renewals");
    first.shutdown.cancel();
    second
        .until("follows", |leadership| leadership.leader)
        .await;
    assert!(shown.has_changed().expect("open"));
    assert!(!shown.borrow().other_leads);
}

#[tokio::test(start_paused = true)]
async fn a_killed_leader_is_followed_within_twenty_seconds_and_not_before_fifteen() {
    let cluster = Fake::new();
    let first = Replica::start(&cluster, "first");
    first.until("leads", |leadership| leadership.leader).await;
    let second = Replica::start(&cluster, "second");
    seconds(7).await;
    first.kill();
    let killed_at = cluster.clock.boottime();
    // A person who writes on the Lease does not keep a dead leader alive; nor do clocks that are set.
    seconds(10).await;
    cluster.edit_lease(|view| view.address = Some("by hand".to_owned()));
    cluster.clock.jump(jiff::SignedDuration::from_hours(-5));
    second.until("leads", |leadership| leadership.leader).await;
    let took = cluster.clock.boottime() - killed_at;
    assert!(
        took <= Duration::from_secs(20) && took >= Duration::from_secs(13),
        "{took:?}"
    );
    assert_eq!(cluster.lease_view().transitions, 1);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_forwards_takes_no_lease_from_a_living_leader() {
    let cluster = Fake::new();
    let first = Replica::start(&cluster, "first");
    first.until("leads", |leadership| leadership.leader).await;
    let second = Replica::start(&cluster, "second");
    cluster.clock.jump(jiff::SignedDuration::from_hours(5));
    seconds(60).await;
    assert!(first.leads() && !second.leads());
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_closes_its_gate_before_the_lease_could_end() {
    let cluster = Fake::new();
    let first = Replica::start(&cluster, "first");
    first.until("leads", |leadership| leadership.leader).await;
    seconds(10).await;
    cluster.inner().lease_fails = true;
    let failing_since = cluster.clock.boottime();
    while first.gate().is_ok() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let closed_after = cluster.clock.boottime() - failing_since;
    // Renewed at most 2 s before: 15 s from then, less the 8 s that a write may take.
    assert!(closed_after <= Duration::from_secs(7), "{closed_after:?}");
    assert_eq!(first.gate(), Err(Closed::LeaseEnds));
    first
        .until("stands down", |leadership| !leadership.leader)
        .await;
    assert!(cluster.clock.boottime() - failing_since <= Duration::from_secs(13));
    cluster.inner().lease_fails = false;
    first
        .until("leads again", |leadership| leadership.leader)
        .await;
    assert_eq!(cluster.lease_view().transitions, 0, "nobody else had it");
}

#[tokio::test(start_paused = true)]
async fn a_suspended_leader_wakes_with_a_closed_gate() {
    let cluster = Fake::new();
    let first = Replica::start(&cluster, "first");
    first.until("leads", |leadership| leadership.leader).await;
    assert_eq!(first.gate(), Ok(()));
    // Its timers have not moved, and it still believes that it leads.
    cluster.clock.suspend(Duration::from_secs(60));
    assert!(first.leads());
    assert_eq!(first.gate(), Err(Closed::LeaseEnds));
}

#[tokio::test(start_paused = true)]
async fn the_switch_on_the_lease_closes_the_gate_at_once_and_only_the_lease_is_renewed() {
    let cluster = Fake::new();
    let first = Replica::start(&cluster, "first");
    first.until("leads", |leadership| leadership.leader).await;
    let mut gate = first.handle.gate(Reach::Evict);
    cluster.edit_lease(|view| view.paused = true);
    // Before any task has run.
    assert_eq!(gate.check(), Err(Closed::Paused));
    first
        .until("shows it", |leadership| leadership.paused)
        .await;
    seconds(60).await;
    assert!(
        first.leads() && cluster.lease_view().paused,
        "renewing keeps the switch"
    );
    cluster.edit_lease(|view| view.paused = false);
    tokio::time::timeout(Duration::from_secs(1), gate.changed())
        .await
        .expect("the gate opens");
    assert_eq!(gate.check(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn the_switch_can_be_thrown_on_any_replica_and_outlives_them_all() {
    let cluster = Fake::new();
    let first = Replica::start(&cluster, "first");
    first.until("leads", |leadership| leadership.leader).await;
    let second = Replica::start(&cluster, "second");
    second
        .until("sees the Lease", |leadership| leadership.holder.is_some())
        .await;
    second.handle.set_paused(true).await.expect("written");
    assert_eq!(first.gate(), Err(Closed::Paused));
    let view = cluster.lease_view();
    assert_eq!(
        view.holder.as_deref(),
        Some("first"),
        "throwing the switch takes nothing over"
    );
    first.kill();
    second.kill();
    let third = Replica::start(&cluster, "third");
    third.until("leads", |leadership| leadership.leader).await;
    assert_eq!(third.gate(), Err(Closed::Paused));
    third.handle.set_paused(false).await.expect("written");
    assert_eq!(third.gate(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn pausing_holds_in_this_process_where_the_lease_cannot_be_written() {
    let cluster = Fake::new();
    let first = Replica::start(&cluster, "first");
    first.until("leads", |leadership| leadership.leader).await;
    cluster.inner().lease_fails = true;
    let failed = first.handle.set_paused(true).await;
    assert!(matches!(failed, Err(LeaseError::Cluster(_))), "{failed:?}");
    assert_eq!(first.gate(), Err(Closed::Paused));
    first
        .until("says so", |leadership| {
            leadership.paused && leadership.leader
        })
        .await;
    first
        .until("names the problem", |leadership| {
            leadership
                .problem
                .as_ref()
                .is_some_and(|problem| problem.contains("scripted"))
        })
        .await;
    cluster.inner().lease_fails = false;
    seconds(5).await;
    assert_eq!(first.gate(), Err(Closed::Paused));
    assert_eq!(first.handle.leadership.borrow().problem, None);
    first.handle.set_paused(false).await.expect("written");
    seconds(5).await;
    assert_eq!(first.gate(), Ok(()));
    assert!(!first.handle.leadership.borrow().paused);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_vanishes_is_written_anew_with_switch_and_record() {
    let cluster = Fake::new();
    let first = Replica::start(&cluster, "first");
    first.until("leads", |leadership| leadership.leader).await;
    first.handle.write_record(record()).await.expect("written");
    first.handle.set_paused(true).await.expect("written");
    cluster.delete_lease();
    assert_eq!(first.gate(), Err(Closed::Paused), "also while it is away");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let view = cluster.lease_view();
    assert_eq!(
        (view.holder.as_deref(), view.paused, view.record),
        (Some("first"), true, Ok(record()))
    );
    assert!(first.leads());
}

#[tokio::test(start_paused = true)]
async fn a_record_is_written_by_the_leader_alone_and_never_over_one_that_cannot_be_read() {
    let cluster = Fake::new();
    let first = Replica::start(&cluster, "first");
    first.until("leads", |leadership| leadership.leader).await;
    let second = Replica::start(&cluster, "second");
    seconds(1).await;
    first.handle.write_record(record()).await.expect("written");
    assert_eq!(first.handle.leadership.borrow().record, Some(record()));
    seconds(10).await;
    assert_eq!(
        cluster.lease_view().record,
        Ok(record()),
        "renewing keeps the record"
    );
    let refused = second.handle.write_record(ClusterRecord::default()).await;
    assert!(matches!(refused, Err(LeaseError::NotLeader)), "{refused:?}");
    cluster.edit_lease(|view| view.record = Err("version 9".to_owned()));
    first
        .until("is unknown", |leadership| leadership.record.is_none())
        .await;
    let refused = first.handle.write_record(ClusterRecord::default()).await;
    assert!(
        matches!(refused, Err(LeaseError::Unreadable(_))),
        "{refused:?}"
    );
    seconds(10).await;
    assert!(cluster.lease_view().record.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_change_by_hand_between_two_renewals_is_taken_in_not_overwritten() {
    let cluster = Fake::new();
    let first = Replica::start(&cluster, "first");
    first.until("leads", |leadership| leadership.leader).await;
    for _ in 0..20 {
        cluster.edit_lease(|view| view.paused = !view.paused);
        let paused = cluster.lease_view().paused;
        first
            .handle
            .write_record(record())
            .await
            .expect("written after another look");
        assert_eq!(cluster.lease_view().paused, paused);
    }
    assert!(first.leads());
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_shuts_down_gives_the_lease_up_and_is_followed_at_once() {
    let cluster = Fake::new();
    let first = Replica::start(&cluster, "first");
    first.until("leads", |leadership| leadership.leader).await;
    first.handle.write_record(record()).await.expect("written");
    let second = Replica::start(&cluster, "second");
    seconds(3).await;
    first.shutdown.cancel();
    first.task.await.expect("ends");
    assert!(matches!(
        first.handle.set_paused(true).await,
        Err(LeaseError::Stopped)
    ));
    let given_up_at = cluster.clock.boottime();
    second.until("leads", |leadership| leadership.leader).await;
    assert!(cluster.clock.boottime() - given_up_at <= Duration::from_secs(1));
    assert_eq!(second.handle.leadership.borrow().record, Some(record()));
}

#[tokio::test(start_paused = true)]
async fn two_replicas_never_pass_the_gate_together() {
    let cluster = Fake::new();
    let replicas = [
        Replica::start(&cluster, "first"),
        Replica::start(&cluster, "second"),
    ];
    for step in 0..3000_u32 {
        tokio::time::sleep(Duration::from_millis(97)).await;
        // The Lease cannot be written for spells of 12 s, and once in a while somebody deletes it.
        cluster.inner().lease_fails = step % 300 > 170;
        if step % 701 == 700 {
            cluster.delete_lease();
        }
        let open = replicas
            .iter()
            .filter(|replica| replica.gate().is_ok())
            .count();
        assert!(open <= 1, "both may write at step {step}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_server_is_not_asked_in_a_hot_loop() {
    let cluster = Fake::new();
    cluster.inner().lease_fails = true;
    let _first = Replica::start(&cluster, "first");
    seconds(60).await;
    let tries = cluster
        .inner()
        .writes
        .iter()
        .filter(|(_, write)| *write == Write::Lease)
        .count();
    assert!((20..=32).contains(&tries), "{tries} tries in 60 s");
}

#[tokio::test(start_paused = true)]
async fn without_an_election_nothing_is_written_and_the_gate_stays_shut() {
    let cluster = Fake::new();
    let options = LeaderOptions {
        identity: "only".to_owned(),
        address: None,
        elect: false,
        times: LeaseTimes::default(),
    };
    let (leader, handle) = Leader::new(
        Arc::clone(&cluster) as Arc<dyn Cluster>,
        Arc::clone(&cluster.clock) as Arc<dyn Clock>,
        options,
    );
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(leader.run(shutdown.clone()));
    assert!(handle.leadership.borrow().leader);
    assert_eq!(handle.gate(Reach::Observe).check(), Err(Closed::Reach));
    handle.set_paused(true).await.expect("held in memory");
    assert!(handle.leadership.borrow().paused);
    seconds(60).await;
    shutdown.cancel();
    task.await.expect("ends");
    assert!(cluster.inner().writes.is_empty());
}

#[test]
fn two_processes_have_two_identities() {
    let clock = crate::clock::SystemClock;
    assert_ne!(identity(&clock), identity(&clock));
}
