//! The fastest that a drain could have been: the same run, replayed with nothing but what the cluster
//! itself took.
//!
//! Each Pod takes as long to go, and each replacement as long from its creation until it is ready, as was
//! seen; every eviction is granted the moment that its budget allows; everything else takes no time. It
//! must share no code with the executor, whose yardstick it is.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// How many Pods of a PodDisruptionBudget may be missing: `spec.maxUnavailable`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MaxUnavailable {
    Count(usize),
    /// Of the Pods that are expected, rounded up, as the disruption controller does.
    Percent(usize),
}

impl MaxUnavailable {
    /// How many may go at once when all `expected` Pods are healthy.
    pub(crate) fn of(self, expected: usize) -> usize {
        match self {
            Self::Count(count) => count.min(expected),
            Self::Percent(percent) => (expected * percent).div_ceil(100),
        }
    }
}

/// Pods that wait for one another: those of one budget, or of one owner without a budget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Group {
    /// How many of its Pods may be missing at once. Nothing: as many as there are, as it is where every Pod
    /// has an owner of its own.
    pub(crate) at_once: Option<usize>,
    /// In the order in which they were evicted.
    pub(crate) pods: Vec<Leaving>,
    /// From the creation of each replacement until it was ready, in the order of creation. The last ones may
    /// be missing: nobody waits for them.
    pub(crate) replacements: Vec<Duration>,
}

/// A Pod that went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leaving {
    /// Its priority class makes it wait until every Pod that has none is gone.
    pub(crate) critical: bool,
    /// From its deletion until it was gone.
    pub(crate) gone_after: Duration,
}

/// From the first eviction until the last Pod is gone.
///
/// # Errors
///
/// A group that may never miss a Pod, or a replacement that somebody waits for and that was not seen ready.
pub(crate) fn fastest(groups: &[Group]) -> Result<Duration, String> {
    // When each place in each group is free again, soonest first.
    let mut places: Vec<BinaryHeap<Reverse<Duration>>> = groups
        .iter()
        .map(|group| {
            let places = group.at_once.unwrap_or(0);
            std::iter::repeat_n(Reverse(Duration::ZERO), places).collect()
        })
        .collect();
    let mut granted = vec![0; groups.len()];
    let mut all_gone = Duration::ZERO;
    for critical in [false, true] {
        let begins = all_gone;
        for (n, group) in groups.iter().enumerate() {
            for pod in group.pods.iter().filter(|pod| pod.critical == critical) {
                let at = match group.at_once {
                    None => begins,
                    Some(_) => {
                        let Reverse(free) = places[n].pop().ok_or_else(|| {
                            format!("group {n}: no place for eviction {}", granted[n])
                        })?;
                        free.max(begins)
                    }
                };
                // A place whose replacement was never seen ready is never free again.
                if let (Some(_), Some(ready)) = (group.at_once, group.replacements.get(granted[n]))
                {
                    places[n].push(Reverse(at + *ready));
                }
                granted[n] += 1;
                all_gone = all_gone.max(at + pod.gone_after);
            }
        }
    }
    Ok(all_gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(all: &[u64]) -> Vec<Duration> {
        all.iter().copied().map(Duration::from_secs).collect()
    }

    fn group(at_once: Option<usize>, gone: &[u64], ready: &[u64]) -> Group {
        Group {
            at_once,
            pods: seconds(gone)
                .into_iter()
                .map(|gone_after| Leaving {
                    critical: false,
                    gone_after,
                })
                .collect(),
            replacements: seconds(ready),
        }
    }

    #[test]
    fn each_eviction_comes_the_moment_that_a_place_is_free() {
        let check = |groups: &[Group], expected: u64| {
            assert_eq!(
                fastest(groups),
                Ok(Duration::from_secs(expected)),
                "{groups:?}"
            );
        };
        check(&[], 0);
        // Nobody waits for anybody: the slowest to go is all.
        check(&[group(None, &[1, 4, 2], &[])], 4);
        // One at a time: two replacements, and the last Pod's own time.
        check(&[group(Some(1), &[9, 1, 2], &[3, 4, 100])], 9);
        check(&[group(Some(1), &[1, 1, 2], &[3, 4, 100])], 9);
        check(&[group(Some(1), &[1, 1, 3], &[3, 4])], 10);
        // Two places: free at 3 and 1, so the third goes at 1 and the fourth at 2.
        check(&[group(Some(2), &[1, 1, 1, 5], &[3, 1, 1, 1])], 7);
        // Groups do not wait for one another.
        check(
            &[
                group(Some(1), &[1, 1], &[3]),
                group(Some(1), &[1, 1], &[5]),
                group(None, &[2], &[]),
            ],
            6,
        );
    }

    #[test]
    fn critical_pods_wait_for_the_last_ordinary_one_and_for_their_budget() {
        let mut waits = group(Some(1), &[1, 1], &[6, 1]);
        waits.pods[1].critical = true;
        // Ordinary ones are gone at 4, the place is free at 6.
        assert_eq!(
            fastest(&[waits.clone(), group(None, &[4], &[])]),
            Ok(Duration::from_secs(7))
        );
        assert_eq!(
            fastest(&[waits, group(None, &[8], &[])]),
            Ok(Duration::from_secs(9))
        );
    }

    #[test]
    fn what_was_not_seen_is_not_made_up() {
        assert!(fastest(&[group(Some(1), &[1, 1], &[])]).is_err());
        assert!(fastest(&[group(Some(0), &[1], &[1])]).is_err());
    }

    #[test]
    fn a_percentage_is_rounded_up_as_the_disruption_controller_does() {
        let check = |limit: MaxUnavailable, expected: usize, at_once: usize| {
            assert_eq!(limit.of(expected), at_once, "{limit:?} of {expected}");
        };
        check(MaxUnavailable::Percent(10), 22, 3);
        check(MaxUnavailable::Percent(10), 20, 2);
        check(MaxUnavailable::Percent(0), 20, 0);
        check(MaxUnavailable::Percent(100), 7, 7);
        check(MaxUnavailable::Count(1), 3, 1);
        check(MaxUnavailable::Count(9), 3, 3);
    }
}
