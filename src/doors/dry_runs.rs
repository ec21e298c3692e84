//! What the API server would say to the evictions of a plan, asked sparingly.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use foreshock_core::decision::policy::Reach;
use foreshock_core::drain::{Disposition, DrainRules, PodFacts, PodId, classify};
use foreshock_core::time::since;
use futures::StreamExt;
use jiff::Timestamp;
use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::kubernetes::rate::Rate;
use crate::kubernetes::{Cluster, DryRun};
use crate::web::PlanDryRun;

/// Dry runs in flight at once, in the whole process: an eviction holds a place of the API server's
/// for mutating requests, of which it has 200 by default.
pub(super) const DRY_RUNS_IN_FLIGHT: usize = 4;
/// Dry runs a second, for all plans together: a quarter of what the client sends at most.
const DRY_RUNS_PER_SECOND: u32 = 25;
/// Asking must be over within this; what was not asked by then says so.
const DRY_RUNS_LIMIT: Duration = Duration::from_secs(5);
/// An answer serves other plans for so long, so that the next plan of a large Node goes on where this
/// one had no more time. With the rate this bounds the answers kept, to 750.
const DRY_RUN_AGE: Duration = Duration::from_secs(30);
/// A Pod of which there was no answer is asked about again after this.
const DRY_RUN_AGAIN: Duration = Duration::from_secs(3);
/// A busy server that does not say for how long is left alone for this long.
const DRY_RUN_QUIET: Duration = Duration::from_secs(1);

/// A Pod to ask about, and the grace period to ask with.
type Question = (PodId, Option<Duration>);

/// Says whether a write could leave now, and why not.
pub(crate) type MayWrite = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Asks the API server, in the plan of a Node, what it would say to each eviction.
pub(super) struct DryRuns {
    may_write: MayWrite,
    rate: Rate,
    /// Held while somebody asks: one plan after the other, so that each finds what the last was told.
    turn: Mutex<()>,
    answers: std::sync::Mutex<BTreeMap<PodId, (Timestamp, PlanDryRun)>>,
}

impl DryRuns {
    pub(super) fn new(may_write: MayWrite) -> Self {
        Self {
            may_write,
            rate: Rate::per_second(DRY_RUNS_PER_SECOND),
            turn: Mutex::default(),
            answers: std::sync::Mutex::default(),
        }
    }

    /// What is known about each Pod that would be evicted, after asking within the bounds above.
    pub(super) async fn of(
        &self,
        cluster: &dyn Cluster,
        clock: &dyn Clock,
        reach: Option<Reach>,
        pods: &[PodFacts],
        rules: &DrainRules,
    ) -> BTreeMap<PodId, PlanDryRun> {
        let mut said = BTreeMap::new();
        let mut asked: Vec<Question> = Vec::new();
        for pod in pods {
            if classify(pod, rules) != Disposition::Evict {
                continue;
            }
            if pod.terminating_until.is_some() {
                let answer = unknown("not asked: it is terminating already");
                said.insert(pod.id.clone(), answer);
            } else {
                // As the executor would ask.
                let grace = rules.grace_cap.filter(|cap| *cap < pod.grace);
                asked.push((pod.id.clone(), grace));
            }
        }
        // Below `evict` nothing may be evicted, and a question whose answer nobody may act on is load.
        let closed = match reach {
            Some(Reach::Evict) => (self.may_write)().err(),
            Some(reach) => Some(format!("reach is {}", reach.as_str())),
            None => Some("the Node is not known yet".to_owned()),
        };
        if let Some(why) = closed {
            let words = format!("not asked: {why}");
            said.extend(asked.into_iter().map(|(pod, _)| (pod, unknown(&words))));
            return said;
        }
        let mut told = BTreeMap::new();
        let ask = self.ask(cluster, clock, &asked, &mut told);
        let in_time = tokio::time::timeout(DRY_RUNS_LIMIT, ask).await.is_ok();
        let words = if in_time {
            "not asked: the API server is busy".to_owned()
        } else {
            format!("not asked: no time left within {DRY_RUNS_LIMIT:?}")
        };
        let kept = self.kept(clock.now());
        for (pod, _) in asked {
            let answer = told
                .remove(&pod)
                .or_else(|| kept.get(&pod).map(|(_, answer)| answer.clone()));
            said.insert(pod, answer.unwrap_or_else(|| unknown(&words)));
        }
        said
    }

    /// Asks about those that are not known. What tells of the Pod is kept for others, what only tells
    /// of this request goes into `told`.
    async fn ask(
        &self,
        cluster: &dyn Cluster,
        clock: &dyn Clock,
        pods: &[Question],
        told: &mut BTreeMap<PodId, PlanDryRun>,
    ) {
        let _turn = self.turn.lock().await;
        let kept = self.kept(clock.now());
        let mut missing: Vec<Question> = pods.to_vec();
        missing.retain(|(pod, _)| !kept.contains_key(pod));
        let requests = missing.into_iter().map(|(pod, grace)| async move {
            self.rate.turn().await;
            let answer = cluster.try_eviction(&pod, grace).await;
            (pod, answer)
        });
        let mut answers = futures::stream::iter(requests).buffer_unordered(DRY_RUNS_IN_FLIGHT);
        while let Some((pod, answer)) = answers.next().await {
            let now = clock.now();
            let answer = match answer {
                DryRun::Allowed => PlanDryRun::Allowed(now),
                DryRun::Refused(words) => PlanDryRun::Refused(now, words),
                DryRun::NoAnswer(why) => unknown(&format!("asked, without an answer: {why}")),
                DryRun::NotAsked(why) => {
                    told.insert(pod, unknown(&format!("not asked: {why}")));
                    continue;
                }
                DryRun::Busy(wait) => {
                    self.rate.quiet(wait.unwrap_or(DRY_RUN_QUIET));
                    return;
                }
            };
            let mut known = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(pod, (now, answer));
        }
    }

    fn kept(&self, now: Timestamp) -> BTreeMap<PodId, (Timestamp, PlanDryRun)> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|_, (at, answer)| {
            let kept_for = match answer {
                PlanDryRun::Allowed(_) | PlanDryRun::Refused(..) => DRY_RUN_AGE,
                PlanDryRun::Unknown(_) => DRY_RUN_AGAIN,
            };
            since(*at, now) < kept_for
        });
        answers.clone()
    }
}

fn unknown(why: &str) -> PlanDryRun {
    PlanDryRun::Unknown(why.to_owned())
}
