//! One more before one less: the Deployment of a single replica is scaled up, its Pod goes when a second one
//! is Ready on another Node, and the Deployment is scaled back when the first is gone.
//!
//! A ReplicaSet that has one Pod too many removes the younger. So it is scaled back after the old Pod is gone,
//! by UID, and never while it is on its way: a controller that does not see that yet would remove the new one.

use std::time::Duration;

use jiff::Timestamp;

use super::step::STUCK_MARGIN;
use super::{DrainFacts, DrainOrder, DrainProgress, DrainRules, Owner, PodFacts, PodId, Workload};
use crate::node::{NodeName, Uid};
use crate::record::SurgeRecord;
use crate::time::{self, after};

/// Deployments that one drain has scaled up at once: as many as it sends requests for.
const SURGES_MAX: usize = 10;
/// After an attempt that failed, at least: as the longest pause between two eviction requests. Each one writes to
/// the Node, so that the pauses double.
const RETRY_PAUSE: Duration = Duration::from_secs(10);
/// What a Deployment asks for is read again every ten seconds, each read within five. Before, a number other
/// than ours may be the one from before it was scaled up.
const SCALE_SEEN: Duration = Duration::from_secs(20);

/// A Deployment, as far as it matters to whoever wants to scale it up for a while.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scalable {
    /// `spec.replicas`.
    pub replicas: u32,
    /// We are the one who set that, by `metadata.managedFields`; `None` where those do not tell.
    pub by_us: Option<bool>,
    /// `metadata.resourceVersion`; opaque.
    pub version: String,
    /// It is being deleted.
    pub deleted: bool,
    /// `spec.paused`.
    pub paused: bool,
    /// Its Pods are not all of its present specification, or not available.
    pub rolling_out: bool,
    /// It has more or fewer Pods than it asks for, or its controller has not seen yet what it asks for.
    pub scaling: bool,
    /// Its strategy is `Recreate`: no two of its Pods may run at once.
    pub recreates: bool,
    /// The HorizontalPodAutoscaler that sets its replicas.
    pub autoscaler: Option<String>,
}

/// Why a Pod of a Deployment goes without a second one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSurge {
    /// It does not serve anybody now.
    #[error("the Pod is not Ready")]
    NotReady,
    /// Most claims can be mounted on one Node at a time.
    #[error("its claim {0} may be mounted by one Pod alone")]
    Claim(String),
    /// There is not one replica.
    #[error("its Deployment asks for {0} replicas")]
    Replicas(u32),
    /// It is going anyway.
    #[error("its Deployment is being deleted")]
    Deleted,
    /// Somebody works on it.
    #[error("its Deployment is paused")]
    Paused,
    /// It has Pods of two kinds, or is about to.
    #[error("its Deployment is being rolled out")]
    RollingOut,
    /// Which of its Pods stay is not decided yet. That passes.
    #[error("its Deployment is being scaled")]
    Scaling,
    /// Two at once are what its owner does not want.
    #[error("its Deployment has the strategy Recreate")]
    Recreates,
    /// It would undo what we do.
    #[error("HorizontalPodAutoscaler {0} sets its replicas")]
    Autoscaled(String),
}

/// Whether a second Pod is to be Ready before this one goes, as far as the Node's Pods tell: `None` where
/// that is not asked for, or where it is not of a Deployment that has one Pod.
pub fn surges<'a>(
    pod: &'a PodFacts,
    pods: impl IntoIterator<Item = &'a PodFacts>,
    rules: &DrainRules,
) -> Option<Result<&'a Owner, NoSurge>> {
    let owner = pod.workload.as_ref().ok()?.as_ref()?;
    let is_deployment = owner.group == "apps" && owner.kind == "Deployment";
    let others = pods.into_iter().any(|other| {
        let of_it = matches!(&other.workload, Ok(Some(of)) if of.uid == owner.uid);
        of_it && other.id != pod.id && other.terminating_until.is_none() && !other.finished
    });
    if !rules.surge || !is_deployment || others || pod.terminating_until.is_some() {
        return None;
    }
    Some(if !pod.ready {
        Err(NoSurge::NotReady)
    } else if let Some(claim) = pod.claims.first() {
        Err(NoSurge::Claim(claim.clone()))
    } else {
        Ok(owner)
    })
}

/// Whether a Deployment may be scaled up for a while.
///
/// # Errors
///
/// [`NoSurge`]: its Pod goes as it would otherwise.
pub fn may_surge(deployment: &Scalable) -> Result<(), NoSurge> {
    if deployment.deleted {
        Err(NoSurge::Deleted)
    } else if let Some(autoscaler) = &deployment.autoscaler {
        Err(NoSurge::Autoscaled(autoscaler.clone()))
    } else if deployment.replicas != SurgeRecord::FROM {
        Err(NoSurge::Replicas(deployment.replicas))
    } else if deployment.paused {
        Err(NoSurge::Paused)
    } else if deployment.recreates {
        Err(NoSurge::Recreates)
    } else if deployment.rolling_out {
        Err(NoSurge::RollingOut)
    } else if deployment.scaling {
        Err(NoSurge::Scaling)
    } else {
        Ok(())
    }
}

/// How it stands with the second Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Surge {
    /// The Deployment is being looked at, the record written, or the Deployment scaled up.
    Asked {
        /// Since the first attempt.
        since: Timestamp,
    },
    /// That failed, and nothing is left of it.
    Failed {
        /// The first attempt.
        since: Timestamp,
        /// The last one.
        at: Timestamp,
        /// Why.
        detail: String,
    },
    /// The Pod goes without.
    Without,
    /// Two are asked for.
    Up {
        /// Since then.
        at: Timestamp,
        /// The Deployment.
        workload: Uid,
    },
    /// Two are not needed any more: it may be scaled back.
    Over(SurgeEnd),
}

/// Why two are not needed any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SurgeEnd {
    /// The old Pod is gone.
    Moved,
    /// Somebody else has scaled the Deployment, or it is gone: the Pod goes as it would otherwise.
    Overruled,
    /// The second one did not become Ready in time: the old one stays.
    NotReady(String),
}

/// What an attempt to scale up has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SurgeAnswer {
    /// Two are asked for.
    Up,
    /// None; the Pod goes as it would otherwise.
    Without(NoSurge),
    /// It may be tried again.
    Failed(String),
    /// It was held back before anything was written.
    Withheld,
}

impl From<NoSurge> for SurgeAnswer {
    /// What passes by itself is waited for: a Pod that went without meanwhile may have been the only one that
    /// stays.
    fn from(why: NoSurge) -> Self {
        match why {
            NoSurge::Scaling => Self::Failed(why.to_string()),
            NoSurge::NotReady
            | NoSurge::Claim(_)
            | NoSurge::Replicas(_)
            | NoSurge::Deleted
            | NoSurge::Paused
            | NoSurge::RollingOut
            | NoSurge::Recreates
            | NoSurge::Autoscaled(_) => Self::Without(why),
        }
    }
}

impl DrainProgress {
    /// Notes that a Deployment is about to be scaled up for this Pod.
    pub fn surge_asked(&mut self, pod: &PodId, at: Timestamp) {
        let since = match self.surges.get(&pod.uid) {
            Some((_, Surge::Failed { since, .. })) => *since,
            Some(_) | None => at,
        };
        self.note(pod, Surge::Asked { since });
    }

    /// Notes what has come of it.
    pub fn surge_answered(
        &mut self,
        pod: &PodId,
        workload: &Uid,
        answer: SurgeAnswer,
        at: Timestamp,
    ) {
        let since = match self.surges.get(&pod.uid) {
            Some((_, Surge::Asked { since } | Surge::Failed { since, .. })) => *since,
            Some(_) | None => at,
        };
        let surge = match answer {
            SurgeAnswer::Up => Surge::Up {
                at,
                workload: workload.clone(),
            },
            SurgeAnswer::Without(_) => Surge::Without,
            SurgeAnswer::Failed(detail) => Surge::Failed { since, at, detail },
            SurgeAnswer::Withheld => {
                self.surges.remove(&pod.uid);
                return;
            }
        };
        self.note(pod, surge);
    }

    /// Notes that two are not needed any more.
    pub fn surge_over(&mut self, pod: &PodId, end: SurgeEnd) {
        self.note(pod, Surge::Over(end));
    }

    /// Forgets every surge that was begun: whoever goes on with this drain begins them again.
    pub fn forget_surges(&mut self) {
        self.surges.retain(|_, (_, surge)| match surge {
            Surge::Without | Surge::Over(SurgeEnd::Overruled) => true,
            Surge::Asked { .. }
            | Surge::Failed { .. }
            | Surge::Up { .. }
            | Surge::Over(SurgeEnd::Moved | SurgeEnd::NotReady(_)) => false,
        });
    }

    /// Why this Pod has to stay, if its second one did not become Ready.
    pub fn surge_failed(&self, pod: &PodId) -> Option<&str> {
        match self.surges.get(&pod.uid) {
            Some((_, Surge::Over(SurgeEnd::NotReady(detail)) | Surge::Failed { detail, .. })) => {
                Some(detail)
            }
            Some(_) | None => None,
        }
    }

    /// Deployments that are being scaled up, or are.
    pub fn surging(&self) -> usize {
        let surging = self.surges.values().filter(|(_, surge)| match surge {
            Surge::Asked { .. } | Surge::Up { .. } => true,
            Surge::Failed { .. } | Surge::Without | Surge::Over(_) => false,
        });
        surging.count()
    }

    /// The Deployments that are scaled up, with the Pods that they are for.
    pub fn scaled_up(&self) -> impl Iterator<Item = (&PodId, &Uid)> {
        self.surges.values().filter_map(|(pod, surge)| match surge {
            Surge::Up { workload, .. } => Some((pod, workload)),
            Surge::Asked { .. } | Surge::Failed { .. } | Surge::Without | Surge::Over(_) => None,
        })
    }

    fn note(&mut self, pod: &PodId, surge: Surge) {
        self.surges.insert(pod.uid.clone(), (pod.clone(), surge));
    }
}

/// Which surges are over, and why. To be noted with [`DrainProgress::surge_over`] before the next step: what
/// is given up stays so, also if its second Pod becomes Ready a moment later.
pub fn surges_over(
    order: &DrainOrder,
    facts: &DrainFacts<'_>,
    progress: &DrainProgress,
    now: Timestamp,
) -> Vec<(PodId, SurgeEnd)> {
    let of = |(pod, surge): &(PodId, Surge)| {
        let Surge::Up { at, workload } = surge else {
            return None;
        };
        let late = now >= after(*at, order.rules.pod_deadline);
        let seen = facts.workloads.seen(workload);
        let known = seen.and_then(|seen| seen.as_ref().ok());
        let ready = known.is_some_and(|seen| is_ready_elsewhere(seen, pod, &order.node.name));
        if !facts.pods.iter().any(|there| there.id == *pod) {
            return (ready || late).then(|| (pod.clone(), SurgeEnd::Moved));
        }
        let overruled = known.is_some_and(|seen| {
            let other = seen.wanted.is_some_and(|wanted| wanted != SurgeRecord::TO);
            seen.over || (other && now >= after(*at, SCALE_SEEN))
        });
        if overruled {
            return Some((pod.clone(), SurgeEnd::Overruled));
        }
        // Once it was asked to go, its own deadline counts.
        if ready || !late || progress.was_asked(pod) {
            return None;
        }
        let why = match seen {
            Some(Err(problem)) => format!("its Deployment could not be looked at: {problem}"),
            Some(Ok(_)) | None => {
                let limit = order.rules.pod_deadline;
                format!("its second Pod was not Ready on another Node within {limit:?}")
            }
        };
        Some((pod.clone(), SurgeEnd::NotReady(why)))
    };
    progress.surges.values().filter_map(of).collect()
}

/// Whether this Pod's turn has come as far as its second one is concerned.
pub(super) enum SurgeTurn {
    /// It may be asked to go.
    Goes,
    /// Its Deployment is to be scaled up.
    Begin,
    /// Not yet; until then at the latest.
    Waits(Timestamp),
    /// It stays.
    Stuck(String),
}

/// `surging` are the Deployments that this drain has scaled up, those of this very step included.
pub(super) fn turn(
    order: &DrainOrder,
    facts: &DrainFacts<'_>,
    pod: &PodFacts,
    progress: &DrainProgress,
    surging: usize,
    now: Timestamp,
) -> SurgeTurn {
    let limit = |since: Timestamp| after(since, order.rules.pod_deadline);
    let surge = progress.surges.get(&pod.id.uid).map(|(_, surge)| surge);
    match surge {
        Some(Surge::Without | Surge::Over(SurgeEnd::Moved | SurgeEnd::Overruled)) => {
            SurgeTurn::Goes
        }
        Some(Surge::Over(SurgeEnd::NotReady(detail))) => SurgeTurn::Stuck(detail.clone()),
        // Its answer is an event.
        Some(Surge::Asked { since }) => {
            SurgeTurn::Waits(limit(*since).max(after(now, RETRY_PAUSE)))
        }
        Some(Surge::Failed { since, detail, .. }) if now >= limit(*since) => {
            SurgeTurn::Stuck(format!("its Deployment was not scaled up: {detail}"))
        }
        Some(Surge::Failed { since, at, .. }) => {
            let due = after(*at, time::since(*since, *at).max(RETRY_PAUSE));
            if now < due || surging >= SURGES_MAX {
                SurgeTurn::Waits(due.max(now).min(limit(*since)))
            } else {
                SurgeTurn::Begin
            }
        }
        Some(Surge::Up { at, workload }) => match facts.workloads.seen(workload) {
            Some(Ok(seen)) if is_ready_elsewhere(seen, &pod.id, &order.node.name) => {
                SurgeTurn::Goes
            }
            Some(_) | None => SurgeTurn::Waits(if now < after(*at, SCALE_SEEN) {
                after(*at, SCALE_SEEN)
            } else {
                limit(*at).max(after(now, RETRY_PAUSE))
            }),
        },
        // It was asked to go before there could be a second one.
        None if progress.was_asked(&pod.id) => SurgeTurn::Goes,
        None => match surges(pod, facts.pods.iter().copied(), &order.rules) {
            None | Some(Err(_)) => SurgeTurn::Goes,
            // The end of another one is an event.
            Some(Ok(_)) if surging >= SURGES_MAX => SurgeTurn::Waits(order.deadline_at),
            Some(Ok(_)) => SurgeTurn::Begin,
        },
    }
}

fn is_ready_elsewhere(seen: &Workload, pod: &PodId, node: &NodeName) -> bool {
    seen.ready
        .iter()
        .any(|uid| *uid != pod.uid && seen.on.get(uid).is_some_and(|on| on != node))
}

/// What is to be done about a surge that stands in a record and that nobody needs any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undo {
    /// The Pod is on its way: its ReplicaSet may not know yet that it does not count.
    Wait(Timestamp),
    /// Scale the Deployment back.
    ScaleBack,
    /// It is as it was before: it was never scaled up, or somebody else has put it back.
    Nothing,
    /// Leave the Deployment as it is, for this reason.
    Leave(String),
}

/// Decides what is to be done about a surge that nobody needs any more.
///
/// `pod` is the Pod that it was for, if it is still there; `deployment` the Deployment, if it is.
pub fn undo(
    surge: &SurgeRecord,
    pod: Option<&PodFacts>,
    deployment: Option<&Scalable>,
    now: Timestamp,
) -> Undo {
    let Some(deployment) = deployment.filter(|deployment| !deployment.deleted) else {
        return Undo::Leave("it is gone".to_owned());
    };
    if deployment.replicas == surge.before {
        return Undo::Nothing;
    }
    // Two by somebody else's will are not ours either: the process may have died before it scaled up, and
    // whoever may write to Nodes could have written the record.
    if deployment.replicas != SurgeRecord::TO || deployment.by_us == Some(false) {
        return Undo::Leave(format!(
            "somebody else has scaled it to {}",
            deployment.replicas
        ));
    }
    // However long it takes after that: its ReplicaSet has seen by then that it is on its way.
    let seen_by = pod
        .and_then(|pod| pod.terminating_until)
        .map(|until| after(until, STUCK_MARGIN));
    match seen_by {
        Some(until) if now < until => Undo::Wait(until),
        Some(_) | None => Undo::ScaleBack,
    }
}
