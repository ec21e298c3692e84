//! Whether as many Nodes degrade as the model expects: observed against expected, over a week.
//!
//! At the begin of each stretch of one horizon, the model's probabilities of all Ready Nodes add up to the
//! degradations that it expects in it; those of them that turn not Ready before its end are observed. A Node
//! counts once in a stretch. What is planned is neither: a Node that somebody has cordoned or takes away.
//!
//! It says less than a validation does. Only Ready counts, and of what the model warns of, some is averted by
//! whoever acts on it. So it is shown and never decides anything.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use foreshock_core::node::NodeId;
use foreshock_core::time::{after, since};
use jiff::Timestamp;

/// A week is kept, by the hour.
const HOURS: i64 = 7 * 24;
/// Each side of the interval leaves out this share.
const TAIL: f64 = 0.025;

/// A Node at one time.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Which.
    pub node: &'a NodeId,
    /// Condition `Ready` is `True`.
    pub ready: bool,
    /// Somebody has cordoned it or takes it away.
    pub planned: bool,
    /// The model's word.
    pub probability: Option<f64>,
}

/// The account of a week.
#[derive(Clone, Debug)]
pub struct Account {
    horizon: Duration,
    stretch: Option<Stretch>,
    last: Option<Timestamp>,
    hours: VecDeque<Hour>,
}

#[derive(Clone, Debug)]
struct Stretch {
    until: Timestamp,
    expected: f64,
    observed: u64,
    /// Digests of the Nodes that may still turn: eight bytes each.
    nodes: HashSet<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Hour {
    hour: i64,
    stretches: u32,
    expected: f64,
    observed: u64,
}

/// What the account says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcomes {
    /// How long the stretches are together.
    pub lasting: Duration,
    /// Degradations that the model expected.
    pub expected: f64,
    /// Those that came.
    pub observed: u64,
    /// Lower end of the exact 95 % interval of the rate behind `observed`, by Poisson.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Outcomes {
    /// What was expected is within what chance explains.
    pub fn agrees(&self) -> bool {
        (self.low..=self.high).contains(&self.expected)
    }
}

impl Account {
    /// Of a model that looks so far ahead.
    pub fn new(horizon: Duration) -> Self {
        Self {
            horizon,
            stretch: None,
            last: None,
            hours: VecDeque::new(),
        }
    }

    /// Looks at all Nodes. A stretch in which nobody looked for half of it says nothing and is left out, and
    /// so is one in which the clock was set back.
    pub fn look<'a>(&mut self, at: Timestamp, nodes: impl Iterator<Item = Seen<'a>>) {
        let unwatched = self
            .last
            .is_some_and(|last| at < last || since(last, at) > self.horizon / 2);
        if unwatched {
            self.stretch = None;
        }
        self.last = Some(at);
        let Some(stretch) = &mut self.stretch else {
            self.stretch = Some(self.begin(at, nodes));
            return;
        };
        let over = at >= stretch.until;
        let nodes: Vec<Seen<'a>> = nodes.collect();
        for seen in nodes.iter().filter(|seen| !seen.ready) {
            if stretch.nodes.remove(&digest(seen.node)) && !seen.planned {
                stretch.observed += 1;
            }
        }
        if over {
            let (expected, observed) = (stretch.expected, stretch.observed);
            self.close(at, expected, observed);
            self.stretch = Some(self.begin(at, nodes.into_iter()));
        }
    }

    /// What the whole week says; `None` before the first stretch is over.
    pub fn outcomes(&self) -> Option<Outcomes> {
        let stretches: u32 = self.hours.iter().map(|hour| hour.stretches).sum();
        let observed = self.hours.iter().map(|hour| hour.observed).sum();
        let (low, high) = poisson_interval(observed);
        (stretches > 0).then(|| Outcomes {
            lasting: self.horizon * stretches,
            expected: self.hours.iter().map(|hour| hour.expected).sum(),
            observed,
            low,
            high,
        })
    }

    fn begin<'a>(&self, at: Timestamp, nodes: impl Iterator<Item = Seen<'a>>) -> Stretch {
        let mut stretch = Stretch {
            until: after(at, self.horizon),
            expected: 0.0,
            observed: 0,
            nodes: HashSet::new(),
        };
        for seen in nodes.filter(|seen| seen.ready && !seen.planned) {
            if let Some(probability) = seen.probability {
                stretch.expected += probability;
                stretch.nodes.insert(digest(seen.node));
            }
        }
        stretch
    }

    fn close(&mut self, at: Timestamp, expected: f64, observed: u64) {
        let hour = at.as_second().div_euclid(3_600);
        if self.hours.back().is_none_or(|last| last.hour != hour) {
            self.hours.push_back(Hour {
                hour,
                stretches: 0,
                expected: 0.0,
                observed: 0,
            });
        }
        if let Some(last) = self.hours.back_mut() {
            last.stretches += 1;
            last.expected += expected;
            last.observed += observed;
        }
        let kept = |one: &Hour| (hour - HOURS + 1..=hour).contains(&one.hour);
        self.hours.retain(kept);
    }
}

/// Two Nodes of 5,000 share a digest once in ten million fleets, and then one degradation is counted wrongly.
fn digest(node: &NodeId) -> u64 {
    let mut hasher = DefaultHasher::new();
    node.name.hash(&mut hasher);
    node.uid.hash(&mut hasher);
    hasher.finish()
}

/// The exact 95 % interval (Garwood) of the mean of a Poisson variable that came out as `observed`.
pub fn poisson_interval(observed: u64) -> (f64, f64) {
    let k = observed as f64;
    // Far beyond the ends for any k: eight standard deviations.
    let far = k + 8.0 * (k + 4.0).sqrt() + 8.0;
    let low = match observed.checked_sub(1) {
        Some(before) => solve(far, |mean| 1.0 - at_most(before, mean) < TAIL),
        None => 0.0,
    };
    (low, solve(far, |mean| at_most(observed, mean) > TAIL))
}

/// Where `is_below` turns from true to false between 0 and `far`.
fn solve(far: f64, is_below: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, far);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if is_below(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// The chance that a Poisson variable of this mean is at most `k`.
fn at_most(k: u64, mean: f64) -> f64 {
    if mean <= 0.0 {
        return 1.0;
    }
    // Backwards from the largest term, until nothing is added any more: a few square roots of k steps.
    let first = k as f64;
    let top = first.min(mean.floor());
    let log_of = |n: f64| n * libm::log(mean) - mean - libm::lgamma(n + 1.0);
    let mut sum = 0.0;
    let (mut n, mut term) = (top, libm::exp(log_of(top)));
    while n >= 0.0 && term > sum * 1e-17 {
        sum += term;
        term *= n / mean;
        n -= 1.0;
    }
    let (mut n, mut term) = (top + 1.0, libm::exp(log_of(top + 1.0)));
    while n <= first && term > sum * 1e-17 {
        sum += term;
        n += 1.0;
        term *= mean / n;
    }
    sum.min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF_HOUR: Duration = Duration::from_secs(1_800);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + seconds).unwrap()
    }

    /// Twenty Nodes of a tenth each; those in `down` are not Ready.
    fn look(account: &mut Account, seconds: i64, down: &[usize], planned: &[usize]) {
        let nodes: Vec<NodeId> = (0..20)
            .map(|n| NodeId::new(format!("n{n}").as_str(), "uid"))
            .collect();
        let seen = nodes.iter().enumerate().map(|(n, node)| Seen {
            node,
            ready: !down.contains(&n),
            planned: planned.contains(&n),
            probability: Some(0.1),
        });
        account.look(at(seconds), seen);
    }

    #[test]
    fn the_interval_is_garwoods() {
        // Upper and lower limits of a table of the exact Poisson interval at 95 %.
        for (observed, low, high) in [
            (0, 0.0, 3.6889),
            (1, 0.0253, 5.5716),
            (5, 1.6235, 11.6683),
            (10, 4.7954, 18.3904),
            (100, 81.3636, 121.6266),
        ] {
            let (l, h) = poisson_interval(observed);
            assert!(
                (l - low).abs() < 1e-3 && (h - high).abs() < 1e-3,
                "{observed}: {l} {h}"
            );
        }
        // Close to the normal one, and quick.
        let (low, high) = poisson_interval(1_000_000);
        assert!(
            (low - 998_041.0).abs() < 3.0 && (high - 1_001_961.0).abs() < 3.0,
            "{low} {high}"
        );
    }

    #[test]
    fn nodes_that_turn_within_a_stretch_are_counted_once_and_planned_work_is_not() {
        let mut account = Account::new(HALF_HOUR);
        assert_eq!(account.outcomes(), None);
        look(&mut account, 0, &[9], &[8]);
        look(&mut account, 600, &[1, 2, 9], &[2]);
        look(&mut account, 900, &[], &[]);
        look(&mut account, 1_200, &[1, 3], &[]);
        assert_eq!(account.outcomes(), None);
        look(&mut account, 1_800, &[1, 3, 4], &[]);
        let outcomes = account.outcomes().unwrap();
        // Node 9 was not Ready at the begin, 8 was cordoned, 2 was cordoned when it turned.
        assert!((outcomes.expected - 1.8).abs() < 1e-9, "{outcomes:?}");
        assert_eq!(outcomes.observed, 3, "1 once, 3 and 4");
        assert_eq!(outcomes.lasting, HALF_HOUR);
        assert!(outcomes.agrees());
    }

    #[test]
    fn a_week_is_kept_and_no_more() {
        let mut account = Account::new(HALF_HOUR);
        for step in 0..10 * 24 * 6 {
            look(&mut account, step * 600, &[], &[]);
        }
        let outcomes = account.outcomes().unwrap();
        let hours = outcomes.lasting.as_secs() / 3_600;
        assert!((167..=168).contains(&hours), "{hours}");
        assert!(
            (outcomes.expected - 2.0 * 2.0 * hours as f64).abs() < 4.1,
            "{outcomes:?}"
        );
        assert!(!outcomes.agrees(), "hundreds were expected, and none came");
    }

    #[test]
    fn a_stretch_that_nobody_watched_or_whose_clock_was_set_back_says_nothing() {
        for jump in [1_500, -60] {
            let mut account = Account::new(HALF_HOUR);
            look(&mut account, 0, &[], &[]);
            look(&mut account, 300, &[], &[]);
            look(&mut account, 300 + jump, &[1, 2, 3], &[]);
            look(&mut account, 600 + jump, &[1, 2, 3], &[]);
            assert_eq!(account.outcomes(), None, "{jump}");
        }
    }
}
