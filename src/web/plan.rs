//! The drain plan of a Node as the API shows it: what a drain would do with each Pod, before it does.
//!
//! Read-only, and made by the same `classify` that the executor walks.

use std::collections::BTreeMap;
use std::time::Duration;

use foreshock_core::drain::{
    Disposition, DrainOrder, EvictionAllowance, Owner, Pace, PodFacts, classify, overdue, paced_by,
};
use foreshock_core::node::{NodeName, Uid};
use foreshock_core::time::since;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{PlanDryRun, PlanFacts, PlanRoom, PlanSurge};

/// What a drain of one Node would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DrainPlan {
    /// When the Pods were read.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The Node.
    pub node: String,
    /// Whether every Pod that has to go can go.
    pub possible: bool,
    /// How long the drain takes at most when every Pod uses its whole grace period. `null` where
    /// that cannot be told: a budget makes some Pods wait for replacements, or it is not possible.
    pub estimated_seconds: Option<f64>,
    /// What the estimate rests on, or why there is none.
    pub estimate: String,
    /// Pods that have to go and cannot.
    pub impossible: Vec<ObstacleView>,
    /// Pods that can go, but not at once: a closed budget, others of their workload before them, a long grace
    /// period, finalizers.
    #[serde(default)]
    pub slow: Vec<ObstacleView>,
    /// Pods that can go, and of which the operator may want to know before: those with devices, a Prometheus or
    /// Alertmanager, the only Pod of a Deployment in kube-system.
    #[serde(default)]
    pub warnings: Vec<ObstacleView>,
    /// DaemonSets that do not tolerate our taint: a Pod of theirs that dies here does not come back.
    pub daemon_sets: Vec<DaemonSetView>,
    /// Every Pod of the Node: the impossible first, then in the order of eviction, then the rest.
    pub pods: Vec<PlannedPod>,
}

/// What stands in the way of a Pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Obstacle)]
pub struct ObstacleView {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Why it cannot go, or not at once.
    pub reason: String,
}

impl ObstacleView {
    fn new(pod: &PodFacts, reason: String) -> Self {
        Self {
            namespace: pod.id.namespace.clone(),
            name: pod.id.name.clone(),
            reason,
        }
    }
}

/// A DaemonSet that does not tolerate our taint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct DaemonSetView {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What becomes of one Pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlannedPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// What becomes of it.
    pub disposition: DispositionWord,
    /// Why it is not simply evicted; `null` when it is.
    pub reason: Option<String>,
    /// Its controller, as `Kind/name`.
    pub owner: Option<String>,
    /// The PodDisruptionBudget that covers it; the first, if several do.
    pub pdb: Option<String>,
    /// How many disruptions that budget lets through now; `null` where its status is out of date.
    pub headroom: Option<u32>,
    /// The budget's status in words.
    pub pdb_detail: Option<String>,
    /// What the API server says to a dry run; `null` where it was not asked.
    pub dry_run: Option<DryRunWord>,
    /// Why it would refuse, in its words; why it was not asked, or what it said instead.
    pub dry_run_detail: Option<String>,
    /// When it was asked: its answer serves other plans for half a minute.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub dry_run_at: Option<Timestamp>,
    /// Its Deployment is scaled up to two, and it goes when the second Pod is Ready on another Node; `null` where
    /// that is not known.
    pub surge: Option<bool>,
    /// Why it goes without, though `eviction.surge` is on and it is the only Pod of a Deployment here; or why
    /// that is not known.
    pub surge_detail: Option<String>,
    /// Nodes that have room for it, of a few that were looked at: first the one on which it fits together
    /// with the others that go. `null` where that was not looked at, or where it needs no room.
    pub fits_on: Option<Vec<String>>,
    /// The time it would get to finish.
    pub grace_seconds: u64,
    /// What binds it or would be lost: `emptyDir`, `local`, `claim/NAME`.
    pub volumes: Vec<String>,
    /// It goes after the others: its priority class is system-cluster-critical or system-node-critical.
    pub critical: bool,
    /// It is Ready.
    pub ready: bool,
    /// It is terminating, and has to be gone by then.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub terminating_until: Option<Timestamp>,
}

/// What becomes of a Pod in a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Disposition)]
pub enum DispositionWord {
    /// It is evicted.
    Evict,
    /// It does not have to go.
    Skip,
    /// It stays, by a rule or its owner's wish.
    Leave,
    /// It should go, and cannot.
    Impossible,
}

/// What the API server says to an eviction that is only tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = DryRun)]
pub enum DryRunWord {
    /// It would be accepted now.
    Allowed,
    /// It would not.
    Refused,
}

impl DrainPlan {
    /// What a drain of this Node would do with these Pods.
    pub fn new(node: &NodeName, facts: &PlanFacts) -> Self {
        let mut pods: Vec<(&PodFacts, Disposition)> = facts
            .pods
            .iter()
            .map(|pod| (pod, classify(pod, &facts.rules)))
            .collect();
        pods.sort_by(|(a, a_goes), (b, b_goes)| {
            let key = |pod: &PodFacts, goes: &Disposition| {
                let cannot = cannot(pod, goes, facts).is_some();
                (
                    if cannot { 0 } else { rank(goes) },
                    pod.critical,
                    pod.dependency.is_some(),
                )
            };
            (key(a, a_goes), &a.id).cmp(&(key(b, b_goes), &b.id))
        });
        let impossible: Vec<ObstacleView> = pods
            .iter()
            .filter_map(|(pod, goes)| Some(ObstacleView::new(pod, cannot(pod, goes, facts)?)))
            .chain(without_room(facts.room.as_ref()))
            .collect();
        let (estimated, estimate) = if impossible.is_empty() {
            estimate(&pods, facts)
        } else {
            let count = impossible.len();
            (
                None,
                format!("{count} Pod(s) cannot go, so it would not end"),
            )
        };
        Self {
            at: Timestamp::from_millisecond(facts.at.as_millisecond()).unwrap_or(facts.at),
            node: node.as_str().to_owned(),
            possible: impossible.is_empty(),
            estimated_seconds: estimated,
            estimate,
            impossible,
            slow: slow(&pods, facts),
            warnings: warnings(&pods, facts),
            daemon_sets: daemon_sets(&facts.pods),
            pods: pods
                .iter()
                .map(|(pod, goes)| planned(pod, goes, facts))
                .collect(),
        }
    }
}

/// Why a Pod that has to go cannot: by its budgets, or because it was told to go long ago and did not.
fn cannot(pod: &PodFacts, goes: &Disposition, facts: &PlanFacts) -> Option<String> {
    match goes {
        Disposition::Impossible(reason) => Some(reason.to_string()),
        Disposition::Evict => overdue(pod, facts.at),
        Disposition::Skip(_) | Disposition::Leave(_) => None,
    }
}

/// A grace period that is worth a word.
const GRACE_LONG: Duration = Duration::from_secs(120);

/// What keeps the Pods that can go from going at once, each with all that does, in the order of the plan.
fn slow(pods: &[(&PodFacts, Disposition)], facts: &PlanFacts) -> Vec<ObstacleView> {
    let mut before: BTreeMap<&Uid, u32> = BTreeMap::new();
    pods.iter()
        .filter(|(pod, goes)| {
            *goes == Disposition::Evict && cannot(pod, goes, facts).is_none()
        })
        .filter_map(|(pod, _)| {
            let mut reasons = Vec::new();
            if let Some(until) = pod.terminating_until {
                reasons.push(format!("is terminating already, until {until}"));
            } else {
                if let Some(budget) = pod.closed_budget() {
                    let (name, detail) = (&budget.name, &budget.detail);
                    reasons.push(format!(
                        "PodDisruptionBudget {name} lets none go at present ({detail})"
                    ));
                }
                match &pod.workload {
                    Err(why) => reasons.push(format!("its workload is not known: {why}")),
                    Ok(workload) => {
                        if facts.rules.pace == Pace::Owner
                            && let (Some(uid), Some(workload)) = (paced_by(pod), workload)
                        {
                            let others = before.entry(uid).or_default();
                            if *others > 0 {
                                reasons.push(format!(
                                    "goes after {others} other Pod(s) of {workload}, each when it is Ready again elsewhere"
                                ));
                            }
                            *others += 1;
                        }
                    }
                }
                let grace = grace(pod, facts);
                if grace >= GRACE_LONG {
                    let seconds = grace.as_secs();
                    reasons.push(format!("may take {seconds} s to finish"));
                }
            }
            if !pod.finalizers.is_empty() {
                let finalizers = pod.finalizers.join(", ");
                reasons.push(format!("stays until its finalizers are taken away: {finalizers}"));
            }
            (!reasons.is_empty()).then(|| ObstacleView::new(pod, reasons.join("; ")))
        })
        .collect()
}

/// What the operator may want to know of Pods that can go, in the order of the plan.
fn warnings(pods: &[(&PodFacts, Disposition)], facts: &PlanFacts) -> Vec<ObstacleView> {
    pods.iter()
        .filter(|(pod, goes)| *goes == Disposition::Evict && pod.terminating_until.is_none())
        .filter_map(|(pod, _)| {
            let mut words = Vec::new();
            if !pod.devices.is_empty() {
                let devices = pod.devices.join(", ");
                words.push(format!("uses {devices}: what it has computed there may be lost"));
            }
            if let Some(dependency) = &pod.dependency {
                words.push(format!(
                    "is a {dependency}, which foreshock may rely on: it goes after the others, and until it is back nothing new is decided"
                ));
            }
            words.extend(facts.alone.get(&pod.id).cloned());
            (!words.is_empty()).then(|| ObstacleView::new(pod, words.join("; ")))
        })
        .collect()
}

/// The time that a Pod would get to finish.
fn grace(pod: &PodFacts, facts: &PlanFacts) -> Duration {
    let cap = facts.rules.grace_cap;
    cap.map_or(pod.grace, |cap| cap.min(pod.grace))
}

/// A Pod without room could be evicted; it would then run nowhere.
fn without_room(room: Option<&PlanRoom>) -> impl Iterator<Item = ObstacleView> {
    room.into_iter().flat_map(|room| {
        room.without.iter().map(|without| ObstacleView {
            namespace: without.pod.namespace.clone(),
            name: without.pod.name.clone(),
            reason: format!(
                "{} other Node(s) were looked at and have no room for {without}",
                room.looked_at
            ),
        })
    })
}

fn rank(disposition: &Disposition) -> u8 {
    match disposition {
        Disposition::Impossible(_) => 0,
        Disposition::Evict => 1,
        Disposition::Leave(_) => 2,
        Disposition::Skip(_) => 3,
    }
}

fn planned(pod: &PodFacts, goes: &Disposition, facts: &PlanFacts) -> PlannedPod {
    let budget = pod.budgets.first();
    let headroom = budget
        .filter(|budget| budget.observed)
        .map(|budget| match budget.allowance {
            EvictionAllowance::Now(count) => count,
            EvictionAllowance::Never => 0,
        });
    let mut volumes = Vec::new();
    if pod.empty_dir {
        volumes.push("emptyDir".to_owned());
    }
    if pod.local_volumes {
        volumes.push("local".to_owned());
    }
    volumes.extend(pod.claims.iter().map(|claim| format!("claim/{claim}")));
    let (dry_run, dry_run_detail, dry_run_at) = match facts.dry_runs.get(&pod.id) {
        Some(PlanDryRun::Allowed(at)) => (Some(DryRunWord::Allowed), None, Some(*at)),
        Some(PlanDryRun::Refused(at, said)) => {
            (Some(DryRunWord::Refused), Some(said.clone()), Some(*at))
        }
        Some(PlanDryRun::Unknown(why)) => (None, Some(why.clone()), None),
        None => (
            None,
            Some("not asked: it would not be evicted".to_owned()),
            None,
        ),
    };
    let cannot = cannot(pod, goes, facts);
    let (surge, surge_detail) = match facts.surges.get(&pod.id) {
        Some(PlanSurge::Yes) => (Some(true), None),
        Some(PlanSurge::No(why)) => (Some(false), Some(why.clone())),
        Some(PlanSurge::Unknown(why)) => (None, Some(why.clone())),
        None => (Some(false), None),
    };
    PlannedPod {
        namespace: pod.id.namespace.clone(),
        name: pod.id.name.clone(),
        uid: pod.id.uid.as_str().to_owned(),
        disposition: match goes {
            _ if cannot.is_some() => DispositionWord::Impossible,
            Disposition::Evict => DispositionWord::Evict,
            Disposition::Skip(_) => DispositionWord::Skip,
            Disposition::Leave(_) => DispositionWord::Leave,
            Disposition::Impossible(_) => DispositionWord::Impossible,
        },
        reason: cannot.or_else(|| Some(goes.reason()).filter(|reason| !reason.is_empty())),
        owner: pod.owner.as_ref().map(ToString::to_string),
        pdb: budget.map(|budget| budget.name.clone()),
        headroom,
        pdb_detail: budget.map(|budget| budget.detail.clone()),
        dry_run,
        dry_run_detail,
        dry_run_at,
        surge,
        surge_detail,
        fits_on: fits_on(pod, facts.room.as_ref()),
        grace_seconds: grace(pod, facts).as_secs(),
        volumes,
        critical: pod.critical,
        ready: pod.ready,
        terminating_until: pod.terminating_until,
    }
}

fn fits_on(pod: &PodFacts, room: Option<&PlanRoom>) -> Option<Vec<String>> {
    let room = room?;
    if room.without.iter().any(|without| without.pod == pod.id) {
        return Some(Vec::new());
    }
    let nodes = room.fits.get(&pod.id)?;
    Some(nodes.iter().map(ToString::to_string).collect())
}

fn daemon_sets(pods: &[PodFacts]) -> Vec<DaemonSetView> {
    let mut found: Vec<DaemonSetView> = pods
        .iter()
        .filter(|pod| !pod.tolerates_taint)
        .filter_map(|pod| {
            let owner = pod.owner.as_ref()?;
            let is_one = owner.kind == "DaemonSet" && owner.group == "apps" && !pod.daemon_set_gone;
            is_one.then(|| DaemonSetView {
                namespace: pod.id.namespace.clone(),
                name: owner.name.clone(),
            })
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

/// The longest that the drain can take, where that can be told at all.
fn estimate(pods: &[(&PodFacts, Disposition)], facts: &PlanFacts) -> (Option<f64>, String) {
    let going: Vec<&PodFacts> = pods
        .iter()
        .filter(|(_, goes)| *goes == Disposition::Evict)
        .map(|(pod, _)| *pod)
        .collect();
    let mut covered: BTreeMap<(&str, &str), (u32, u32)> = BTreeMap::new();
    for pod in going.iter().filter(|pod| pod.terminating_until.is_none()) {
        for budget in &pod.budgets {
            let room = match budget.allowance {
                EvictionAllowance::Now(count) if budget.observed => count,
                EvictionAllowance::Now(_) | EvictionAllowance::Never => 0,
            };
            let entry = covered
                .entry((&pod.id.namespace, &budget.name))
                .or_insert((0, room));
            entry.0 += 1;
        }
    }
    if let Some(((namespace, budget), (count, room))) =
        covered.iter().find(|(_, (count, room))| count > room)
    {
        return (
            None,
            format!(
                "depends on how soon replacements are Ready: PodDisruptionBudget \
                 {namespace}/{budget} covers {count} Pod(s) here and lets {room} go at a time"
            ),
        );
    }
    if let Some((workload, count)) = queued(&going, facts) {
        return (
            None,
            format!(
                "depends on how soon replacements are Ready: {workload} has {count} Pods here, \
                 which go one at a time"
            ),
        );
    }
    let second = facts.surges.values().any(|surge| match surge {
        PlanSurge::Yes | PlanSurge::Unknown(_) => true,
        PlanSurge::No(_) => false,
    });
    if second {
        let words =
            "depends on how soon the second Pods of single replicas are Ready (eviction.surge)";
        return (None, words.to_owned());
    }
    let lag = DrainOrder::SCHEDULER_LAG.as_secs_f64();
    if going.is_empty() {
        let words = "no Pod has to go; waits only for Pods already bound to the Node";
        return (Some(lag), words.to_owned());
    }
    let longest = |critical: bool| {
        let of_class = going.iter().filter(|pod| pod.critical == critical);
        let seconds = of_class.map(|pod| match pod.terminating_until {
            Some(until) => since(facts.at, until).as_secs_f64(),
            None => grace(pod, facts).as_secs_f64(),
        });
        seconds.fold(0.0, f64::max)
    };
    #[expect(clippy::cast_precision_loss, reason = "at most the Pods of one Node")]
    let sending = going.len() as f64 / facts.rate.max(0.01);
    let seconds = (longest(false) + longest(true) + sending).max(lag);
    let words = "at most, if every Pod uses its whole grace period and no request is refused";
    (Some((seconds * 10.0).round() / 10.0), words.to_owned())
}

/// A workload whose Pods here follow one another, and how many they are.
fn queued<'a>(going: &[&'a PodFacts], facts: &PlanFacts) -> Option<(&'a Owner, u32)> {
    if facts.rules.pace == Pace::Budget {
        return None;
    }
    let mut of: BTreeMap<&Uid, (&Owner, u32)> = BTreeMap::new();
    for pod in going.iter().filter(|pod| pod.terminating_until.is_none()) {
        if let (Some(uid), Ok(Some(workload))) = (paced_by(pod), &pod.workload) {
            of.entry(uid).or_insert((workload, 0)).1 += 1;
        }
    }
    of.into_values().find(|(_, count)| *count > 1)
}

#[cfg(test)]
mod tests {
    use foreshock_core::drain::{Budget, Choice, DrainRules, PodId};

    use foreshock_core::room::{NoPlace, Obstacle};

    use super::*;

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

    fn budget(allowance: EvictionAllowance) -> Budget {
        Budget {
            name: "web-pdb".into(),
            allowance,
            observed: true,
            unsettled: false,
            detail: "3 of 3 healthy, 2 wanted".into(),
        }
    }

    fn plan(pods: Vec<PodFacts>) -> DrainPlan {
        plan_with(pods, None)
    }

    fn plan_with(pods: Vec<PodFacts>, room: Option<PlanRoom>) -> DrainPlan {
        DrainPlan::new(&"worker-1".into(), &facts(pods, room))
    }

    fn facts(pods: Vec<PodFacts>, room: Option<PlanRoom>) -> PlanFacts {
        PlanFacts {
            at: Timestamp::from_second(1_763_900_000).unwrap(),
            pods,
            rules: DrainRules {
                grace_cap: Some(Duration::from_secs(20)),
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
            },
            rate: 20.0,
            room,
            dry_runs: BTreeMap::new(),
            surges: BTreeMap::new(),
            alone: BTreeMap::new(),
        }
    }

    #[test]
    fn a_plan_says_where_each_pod_fits_and_which_has_no_room() {
        let without = NoPlace {
            pod: pod("large").id,
            obstacles: [(Obstacle::Lacks("memory".into()), 2)].into(),
        };
        let room = PlanRoom {
            looked_at: 2,
            fits: [(pod("small").id, vec!["worker-2".into(), "worker-3".into()])].into(),
            without: vec![without],
        };
        let mut left = pod("left");
        left.empty_dir = true;
        let plan = plan_with(vec![pod("small"), pod("large"), left], Some(room));
        let fits = |name: &str| {
            let pod = plan.pods.iter().find(|pod| pod.name == name);
            pod.expect("in the plan").fits_on.clone()
        };
        assert_eq!(
            fits("small"),
            Some(vec!["worker-2".into(), "worker-3".into()])
        );
        assert_eq!(fits("large"), Some(Vec::new()));
        assert_eq!(fits("left"), None);
        assert!(!plan.possible && plan.estimated_seconds.is_none());
        assert_eq!(plan.impossible.len(), 1);
        assert_eq!(
            plan.impossible[0].reason,
            "2 other Node(s) were looked at and have no room for shop/large (not enough memory: 2)"
        );
    }

    #[test]
    fn pods_come_in_the_order_of_eviction_with_the_impossible_first() {
        let mut critical = pod("a-critical");
        critical.critical = true;
        let mut never = pod("z-never");
        never.budgets = vec![budget(EvictionAllowance::Never)];
        let mut left = pod("b-left");
        left.empty_dir = true;
        let plan = plan(vec![critical, left, pod("c-plain"), never]);
        let names: Vec<&str> = plan.pods.iter().map(|pod| pod.name.as_str()).collect();
        assert_eq!(names, ["z-never", "c-plain", "a-critical", "b-left"]);
        assert!(!plan.possible);
        assert_eq!(plan.estimated_seconds, None);
        assert_eq!(plan.impossible[0].name, "z-never");
    }

    #[test]
    fn a_plan_says_what_the_api_server_would_answer_or_why_it_was_not_asked() {
        let at = Timestamp::from_second(1_763_900_000).unwrap();
        let mut left = pod("left");
        left.empty_dir = true;
        let mut facts = facts(vec![pod("a"), pod("b"), pod("c"), left], None);
        facts.dry_runs = [
            (pod("a").id, PlanDryRun::Allowed(at)),
            (pod("b").id, PlanDryRun::Refused(at, "no".into())),
            (pod("c").id, PlanDryRun::Unknown("paused".into())),
        ]
        .into();
        let plan = DrainPlan::new(&"worker-1".into(), &facts);
        let said: Vec<_> = plan
            .pods
            .iter()
            .map(|pod| (pod.dry_run, pod.dry_run_detail.as_deref(), pod.dry_run_at))
            .collect();
        assert_eq!(
            said,
            [
                (Some(DryRunWord::Allowed), None, Some(at)),
                (Some(DryRunWord::Refused), Some("no"), Some(at)),
                (None, Some("paused"), None),
                (None, Some("not asked: it would not be evicted"), None),
            ]
        );
    }

    #[test]
    fn a_plan_says_which_single_replicas_get_a_second_pod_first() {
        let mut facts = facts(["a", "b", "c", "d"].map(pod).into(), None);
        facts.surges = [
            (pod("a").id, PlanSurge::Yes),
            (pod("b").id, PlanSurge::No("autoscaled".into())),
            (pod("c").id, PlanSurge::Unknown("no answer".into())),
        ]
        .into();
        let plan = DrainPlan::new(&"worker-1".into(), &facts);
        let said: Vec<_> = plan
            .pods
            .iter()
            .map(|pod| (pod.surge, pod.surge_detail.as_deref()))
            .collect();
        assert_eq!(
            said,
            [
                (Some(true), None),
                (Some(false), Some("autoscaled")),
                (None, Some("no answer")),
                (Some(false), None),
            ]
        );
        assert_eq!(plan.estimated_seconds, None);
        assert!(
            plan.estimate.contains("eviction.surge"),
            "{}",
            plan.estimate
        );
    }

    #[test]
    fn the_estimate_is_the_worst_case_with_the_cap_on_grace() {
        let plan = plan(vec![pod("a"), pod("b")]);
        assert_eq!(plan.estimated_seconds, Some(20.1));
        assert!(plan.pods.iter().all(|pod| pod.grace_seconds == 20));
    }

    #[test]
    fn there_is_no_estimate_where_a_budget_makes_pods_wait() {
        let mut pods = vec![pod("a"), pod("b")];
        for pod in &mut pods {
            pod.budgets = vec![budget(EvictionAllowance::Now(1))];
        }
        let plan = plan(pods);
        assert!(plan.possible);
        assert_eq!(plan.estimated_seconds, None);
        assert!(plan.estimate.contains("shop/web-pdb"), "{}", plan.estimate);
        assert_eq!(plan.pods[0].headroom, Some(1));
    }

    #[test]
    fn what_to_know_before_is_said_of_pods_that_go_and_of_no_others() {
        let (mut gpu, mut prometheus) = (pod("gpu"), pod("a-prometheus"));
        gpu.devices = vec!["nvidia.com/gpu".into()];
        prometheus.dependency = Some("Prometheus".into());
        let mut left = gpu.clone();
        left.id = pod("left").id;
        left.empty_dir = true;
        let mut facts = facts(vec![gpu, prometheus, left, pod("dns")], None);
        facts.alone = [(pod("dns").id, "is the only one of Deployment/dns".into())].into();
        let plan = DrainPlan::new(&NodeName::from("worker-1"), &facts);
        let said: Vec<(&str, &str)> = plan
            .warnings
            .iter()
            .map(|one| (one.name.as_str(), one.reason.as_str()))
            .collect();
        let [dns, gpu, prometheus] = said[..] else {
            panic!("{said:?}")
        };
        assert_eq!(dns, ("dns", "is the only one of Deployment/dns"));
        assert_eq!(
            gpu,
            (
                "gpu",
                "uses nvidia.com/gpu: what it has computed there may be lost"
            )
        );
        assert_eq!(prometheus.0, "a-prometheus", "it goes after the others");
        assert!(
            prometheus.1.starts_with("is a Prometheus"),
            "{}",
            prometheus.1
        );
        assert!(plan.possible, "a note keeps nobody");
    }

    #[test]
    fn a_pod_held_by_finalizers_past_its_time_is_impossible_and_before_that_slow() {
        let at = Timestamp::from_second(1_763_900_000).unwrap();
        let mut held = pod("held");
        held.finalizers = vec!["example.com/backup".into(), "example.com/wait".into()];
        held.terminating_until = Some(at - Duration::from_secs(30));
        let now = plan(vec![held.clone()]);
        assert_eq!(now.pods[0].disposition, DispositionWord::Impossible);
        let reason = "should have been gone by 2025-11-23T12:12:50Z, finalizers example.com/backup, example.com/wait";
        assert_eq!(now.impossible, [ObstacleView::new(&held, reason.into())]);
        assert_eq!(now.pods[0].reason.as_deref(), Some(reason));
        assert_eq!(now.slow, []);
        assert!(!now.possible);

        held.terminating_until = Some(at - Duration::from_secs(29));
        let soon = plan(vec![held]);
        assert!(soon.possible);
        assert_eq!(soon.pods[0].disposition, DispositionWord::Evict);
        assert_eq!(
            soon.slow[0].reason,
            "is terminating already, until 2025-11-23T12:12:51Z; stays until its finalizers are taken away: \
             example.com/backup, example.com/wait"
        );
    }

    #[test]
    fn what_is_slow_is_told_with_all_its_reasons() {
        let web = pod("web").owner;
        let mut first = pod("a");
        first.workload = Ok(web.clone());
        let mut second = pod("b");
        second.workload = Ok(web);
        let mut closed = pod("c");
        closed.budgets = vec![budget(EvictionAllowance::Now(0))];
        let mut unknown = pod("d");
        unknown.workload = Err("the server is busy".into());
        let mut long = facts(vec![first, second, closed, unknown], None);
        long.rules.grace_cap = None;
        long.pods[0].grace = Duration::from_secs(120);
        let told = DrainPlan::new(&"worker-1".into(), &long);
        let slow: Vec<(&str, &str)> = told
            .slow
            .iter()
            .map(|one| (one.name.as_str(), one.reason.as_str()))
            .collect();
        assert_eq!(
            slow,
            [
                ("a", "may take 120 s to finish"),
                (
                    "b",
                    "goes after 1 other Pod(s) of ReplicaSet/web, each when it is Ready again elsewhere"
                ),
                (
                    "c",
                    "PodDisruptionBudget web-pdb lets none go at present (3 of 3 healthy, 2 wanted)"
                ),
                ("d", "its workload is not known: the server is busy"),
            ]
        );
        assert!(told.possible);
        assert_eq!(told.estimated_seconds, None);

        long.pods.truncate(2);
        let paced = DrainPlan::new(&"worker-1".into(), &long);
        assert_eq!(paced.estimated_seconds, None);
        assert_eq!(
            paced.estimate,
            "depends on how soon replacements are Ready: ReplicaSet/web has 2 Pods here, which go one at a time"
        );
        long.rules.pace = Pace::Budget;
        let together = DrainPlan::new(&"worker-1".into(), &long);
        assert_eq!(together.slow.len(), 1);
        assert_eq!(together.estimated_seconds, Some(120.1));
    }

    #[test]
    fn daemon_sets_without_the_toleration_are_listed_once() {
        let mut pods = vec![pod("exporter-x"), pod("exporter-y"), pod("proxy")];
        for (pod, name) in pods.iter_mut().zip(["exporter", "exporter", "proxy"]) {
            if let Some(owner) = &mut pod.owner {
                owner.kind = "DaemonSet".into();
                owner.name = name.into();
            }
        }
        pods[2].tolerates_taint = true;
        let plan = plan(pods);
        assert_eq!(plan.daemon_sets.len(), 1);
        assert_eq!(plan.daemon_sets[0].name, "exporter");
        assert_eq!(plan.estimated_seconds, Some(5.0));
    }
}
