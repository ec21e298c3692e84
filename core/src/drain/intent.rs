//! Where a drain has differed from what was planned when it began.

use std::collections::BTreeMap;
use std::fmt;

use super::{Disposition, DrainRules, PodFacts, PodId, PodOutcome, SkipReason, classify};
use crate::node::Uid;

/// What was to become of each Pod of a Node when its drain began, and what each look since has said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intent {
    begun: bool,
    pods: BTreeMap<Uid, Meant>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Meant {
    pod: PodId,
    /// `None`: it was not there.
    planned: Option<Disposition>,
    /// It was on its way out already.
    left: bool,
    /// Some look said that it is to be evicted, and nobody had told it to go before.
    had_to_go: bool,
    now: Disposition,
    is_there: bool,
}

/// One Pod with which it went otherwise than planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The Pod.
    pub pod: PodId,
    /// What is different.
    pub what: Differs,
}

/// How it went otherwise than planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Differs {
    /// It was not there when the drain began: the scheduler had bound it already, or something put it there.
    Came,
    /// It was to be evicted, and went by itself or by another's hand.
    WentByItself,
    /// It was to be evicted and is still there.
    StillThere(PodOutcome),
    /// It was to be evicted; then it was left, for this reason.
    Left(String),
    /// It was to stay, for this reason; then it had to go after all.
    HadToGo(String),
    /// It was to stay, for this reason, and is gone without our doing.
    Vanished(String),
}

impl fmt::Display for Differs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Came => f.write_str("came after the drain had begun"),
            Self::WentByItself => f.write_str("was to be evicted and went without it"),
            Self::StillThere(outcome) => {
                write!(f, "was to be evicted and is still there ({outcome})")
            }
            Self::Left(reason) => write!(f, "was to be evicted and was left ({reason})"),
            Self::HadToGo(reason) => write!(f, "was to stay ({reason}) and had to go"),
            Self::Vanished(reason) => write!(f, "was to stay ({reason}) and is gone"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pod, self.what)
    }
}

impl Intent {
    /// Takes a complete look at the Pods of the Node. The first one is the plan.
    pub fn see<'a>(&mut self, pods: impl IntoIterator<Item = &'a PodFacts>, rules: &DrainRules) {
        for meant in self.pods.values_mut() {
            meant.is_there = false;
        }
        for pod in pods {
            let now = classify(pod, rules);
            let left = pod.terminating_until.is_some();
            let goes = now == Disposition::Evict && !left;
            match self.pods.get_mut(&pod.id.uid) {
                Some(meant) => {
                    meant.now = now;
                    meant.had_to_go |= goes;
                    meant.is_there = true;
                }
                // Who comes later and has not to go is nothing to the plan.
                None if self.begun && !goes => {}
                None => {
                    let meant = Meant {
                        pod: pod.id.clone(),
                        planned: (!self.begun).then(|| now.clone()),
                        left,
                        had_to_go: goes,
                        now,
                        is_there: true,
                    };
                    self.pods.insert(pod.id.uid.clone(), meant);
                }
            }
        }
        self.begun = true;
    }

    /// What went otherwise than planned, by Pod. `came_of` says what came of those that were to go:
    /// [`PodOutcome::Evicted`] also of one that is still there in its last moment.
    pub fn differences(&self, came_of: impl Fn(&PodId) -> Option<PodOutcome>) -> Vec<Difference> {
        let of = |meant: &Meant| {
            let outcome = came_of(&meant.pod);
            let evicted = outcome == Some(PodOutcome::Evicted);
            let what = match &meant.planned {
                None => Differs::Came,
                Some(Disposition::Evict) if evicted => return None,
                Some(Disposition::Evict) if !meant.is_there => {
                    (!meant.left).then_some(Differs::WentByItself)?
                }
                Some(Disposition::Evict) => match &meant.now {
                    Disposition::Evict => {
                        Differs::StillThere(outcome.unwrap_or(PodOutcome::Deadline))
                    }
                    // It has done its work before its turn came, or goes as it was told to.
                    Disposition::Skip(SkipReason::Finished) => {
                        (!meant.left).then_some(Differs::WentByItself)?
                    }
                    now @ (Disposition::Skip(_)
                    | Disposition::Leave(_)
                    | Disposition::Impossible(_)) => Differs::Left(now.reason()),
                },
                Some(planned) if evicted || meant.had_to_go => Differs::HadToGo(planned.reason()),
                Some(Disposition::Skip(_)) => return None,
                Some(planned) => (!meant.is_there).then(|| Differs::Vanished(planned.reason()))?,
            };
            Some(Difference {
                pod: meant.pod.clone(),
                what,
            })
        };
        let mut differences: Vec<Difference> = self.pods.values().filter_map(of).collect();
        differences.sort_by(|a, b| a.pod.cmp(&b.pod));
        differences
    }
}

/// Differences that a sentence names; an Event's note has room for few.
const NAMED: usize = 3;

/// In one sentence, for an operator; empty where there is no difference.
pub fn differences_in_words(differences: &[Difference]) -> String {
    let count = differences.len();
    let Some(more) = count.checked_sub(NAMED.min(count)).filter(|_| count > 0) else {
        return String::new();
    };
    let named: Vec<String> = differences
        .iter()
        .take(NAMED)
        .map(ToString::to_string)
        .collect();
    let pods = if count == 1 {
        "1 Pod"
    } else {
        &format!("{count} Pods")
    };
    let rest = if more > 0 {
        format!("; and {more} more")
    } else {
        String::new()
    };
    format!("{pods} not as planned: {}{rest}", named.join("; "))
}
