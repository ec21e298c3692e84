//! The program is killed at every call that it makes on its way to a write, and started again: it
//! has to come to the same end as without the kill.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use foreshock::core::node::NodeName;
use foreshock::core::record::{RecordState, RecordedPhase};
use foreshock::core::time::since;
use foreshock::simulate::cluster::Fault;

use crate::ledger::Done;
use crate::points::{Calls, Kind, Moment, Point};
use crate::shell::{World, start};

/// By its score.
const SICK: &str = "worker-02";
/// By an alert.
const ON_FIRE: &str = "worker-05";
/// How long the model says so, and the alert fires.
const SICK_UNTIL: Duration = Duration::from_secs(90);
const FIRE_FROM: Duration = Duration::from_secs(20);
const FIRE_UNTIL: Duration = Duration::from_secs(220);
/// Alertmanager's repeat_interval, scaled down.
const REPEAT: Duration = Duration::from_secs(20);
/// By then everything is over, whatever happens in between.
const LIMIT: Duration = Duration::from_secs(900);
/// How long a killed process is gone.
const GONE: Duration = Duration::from_secs(3);

/// How a run came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// What was done, up to it.
    pub(crate) done: Done,
    /// What of ours is left.
    pub(crate) left: Vec<String>,
    /// Each Node's taints and phase.
    pub(crate) nodes: BTreeMap<NodeName, (usize, Option<RecordedPhase>)>,
    /// Pods that run, by workload's first letters.
    pub(crate) pods: usize,
    /// It was killed.
    pub(crate) killed: bool,
    /// How many calls of each kind there were.
    pub(crate) calls: BTreeMap<Kind, usize>,
}

/// What a run meets besides the kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Story {
    /// Nothing.
    Plain,
    /// Answers are lost, and there are conflicts: the calls that read first are on the way as well.
    Lossy,
}

/// One run, killed at that point, or not at all.
pub(crate) fn run(story: Story, kill_at: Option<Point>) -> End {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(tell(story, kill_at))
}

async fn tell(story: Story, kill_at: Option<Point>) -> End {
    let mut world = World::new(Calls::new(kill_at));
    if story == Story::Lossy {
        world.cluster.with_faults(|faults| {
            faults.marks = [None, Some(Fault::TimeoutAfter), None, Some(Fault::Conflict)].into();
            faults.evictions = [
                Some(Fault::TimeoutAfter),
                Some(Fault::TimeoutBefore),
                Some(Fault::Failed),
            ]
            .into();
            faults.leases = [None, None, Some(Fault::TimeoutAfter), Some(Fault::Conflict)].into();
        });
    }
    let mut running = Some(world.start_process());
    let mut back_at = None;
    let mut killed = false;
    let mut told_at: Option<Duration> = None;
    let mut calm_since: Option<Duration> = None;
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    let calls = std::sync::Arc::clone(&world.calls);
    loop {
        tokio::select! {
            biased;
            () = calls.reached.notified() => {
                if let Some(number) = running.take() {
                    world.kill(number).await;
                }
                killed = true;
                back_at = Some(tokio::time::Instant::now() + GONE);
            }
            _ = ticks.tick() => {}
        }
        world.follow();
        let elapsed = since(start(), world.cluster.now());
        if back_at.is_some_and(|at| tokio::time::Instant::now() >= at) {
            back_at = None;
            running = Some(world.start_process());
            told_at = None;
        }
        world.risk(SICK, if elapsed < SICK_UNTIL { 0.9 } else { 0.1 });
        let firing = (FIRE_FROM..FIRE_UNTIL).contains(&elapsed);
        let over = elapsed >= FIRE_UNTIL;
        let due = told_at.is_none_or(|at| elapsed >= at + REPEAT);
        if (firing || over) && due {
            told_at = Some(elapsed);
            world.alert(
                ON_FIRE,
                firing,
                foreshock::core::time::after(start(), FIRE_FROM),
            );
        }
        let left = world.ledger.left(&world.cluster);
        let calm = over && left.is_empty() && back_at.is_none();
        calm_since = calm.then(|| calm_since.unwrap_or(elapsed));
        let settled = calm_since.is_some_and(|at| elapsed >= at + 2 * REPEAT);
        if settled || elapsed >= LIMIT {
            let nodes = world.cluster.nodes_now();
            return End {
                done: world.ledger.done(),
                left,
                nodes: nodes
                    .into_iter()
                    .map(|(name, facts)| {
                        let phase = match &facts.record {
                            RecordState::Ours(record) => Some(record.phase),
                            _ => None,
                        };
                        (name, (facts.taints.len(), phase))
                    })
                    .collect(),
                pods: world.cluster.all_pods().len(),
                killed,
                calls: calls.counts(),
            };
        }
    }
}

/// What is wrong with the end of a run, compared with that of a run without a kill.
pub(crate) fn differs(end: &End, whole: &End) -> Option<String> {
    if !end.done.violations.is_empty() {
        return Some(end.done.violations.join("; "));
    }
    if !end.left.is_empty() {
        return Some(format!("left on the Nodes: {:?}", end.left));
    }
    if end.nodes != whole.nodes || end.pods != whole.pods {
        return Some(format!(
            "{:?} and {} Pods instead of {:?} and {}",
            end.nodes, end.pods, whole.nodes, whole.pods
        ));
    }
    for node in [SICK, ON_FIRE].map(NodeName::from) {
        let both = |end: &End| {
            (
                end.done.drained.contains(&node),
                end.done.released.contains(&node),
            )
        };
        if both(end) != both(whole) {
            return Some(format!("{node} was drained and released: {:?}", both(end)));
        }
    }
    None
}

/// Every point of a run: each call of each kind, three times. `renewals` bounds how many of the
/// renewals of the Lease are taken, evenly: they are all the same.
pub(crate) fn points(whole: &End, each_max: usize, renewals: usize) -> Vec<Point> {
    let mut points = Vec::new();
    for (kind, count) in &whole.calls {
        let most = if *kind == Kind::Renew {
            renewals
        } else {
            each_max
        };
        let step = count.div_ceil(most.max(1)).max(1);
        for number in (0..*count).step_by(step) {
            points.extend(Moment::ALL.map(|moment| Point {
                kind: *kind,
                number,
                moment,
            }));
        }
    }
    points
}

/// What came of all kill points of one story.
#[derive(Debug, Default)]
pub(crate) struct Killed {
    /// Points that were tried.
    pub(crate) points: usize,
    /// Points that were reached, so that there was a kill.
    pub(crate) reached: usize,
    /// Points after which everything came to the same end.
    pub(crate) converged: usize,
    /// The others, with what was wrong.
    pub(crate) wrong: Vec<(Point, String)>,
    /// Points by kind.
    pub(crate) kinds: BTreeMap<Kind, usize>,
}

/// Kills at every one of these points, on two threads.
pub(crate) fn kill_at_each(story: Story, points: &[Point], whole: &End) -> Killed {
    let killed = Mutex::new(Killed::default());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let end = run(story, Some(*point));
                    let mut killed = killed.lock().expect("no thread panics with it");
                    killed.points += 1;
                    killed.reached += usize::from(end.killed);
                    *killed.kinds.entry(point.kind).or_default() += 1;
                    match differs(&end, whole) {
                        None => killed.converged += 1,
                        Some(wrong) => killed.wrong.push((*point, wrong)),
                    }
                }
            });
        }
    });
    killed.into_inner().expect("no thread panics with it")
}
