//! One run: a seed, what it allows, and what came of it. And what to do with a seed that fails.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use foreshock_core::decision::policy::{Limit, Policy, Pool, PoolLimits};
use foreshock_core::time::{after, since};
use jiff::Timestamp;

use super::chance::Chance;
use super::cluster::{Cluster, POOL};
use super::judge::{Judge, Rules, Seen, Share, Violation};
use super::process::{Process, Sabotage};
use super::support;
use super::weather::{Kind, Weather};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// A tick while something is under way.
const TICK: Duration = Duration::from_secs(5);
/// After the weather has cleared up, everything has to be in order within this: the longest alert
/// without an end (40 min), a drain at its deadline, and the time to recover.
const SETTLE: Duration = Duration::from_secs(2 * 3600);

/// What a run is made of. The same options give the same run.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Where all chance comes from.
    pub seed: u64,
    /// Nodes at the start.
    pub nodes: usize,
    /// Zones.
    pub zones: usize,
    /// Virtual time before the weather clears up.
    pub lasts: Duration,
    /// Which faults may strike.
    pub kinds: BTreeSet<Kind>,
    /// How often a Node degrades.
    pub mtbf: Duration,
    /// The operator's numbers.
    pub rules: Rules,
    /// What the program is told instead: a fault that the judge has to find.
    pub told: Option<Rules>,
    /// A deliberate fault in the program.
    pub sabotage: Option<Sabotage>,
}

impl Options {
    /// A run drawn from its seed: fleet, limits, and about two thirds of all kinds of faults, so
    /// that each is met alone and in company.
    pub fn drawn(seed: u64) -> Self {
        let mut chance = Chance::new(seed, "options");
        let kinds = Kind::ALL
            .into_iter()
            .filter(|_| chance.hits(0.66))
            .collect();
        let nodes = [3, 5, 10, 20, 40, 60, 80, 100][chance.below(8)];
        let limit = |chance: &mut Chance, counts: &[usize], percents: &[usize]| {
            if chance.hits(0.5) {
                Share::Count(counts[chance.below(counts.len())])
            } else {
                Share::Percent(percents[chance.below(percents.len())])
            }
        };
        let few = [Share::Count(1), Share::Count(2), Share::Percent(20)];
        let mut maybe = || chance.hits(0.3).then(|| few[chance.below(3)]);
        let (zone_tainted_max, zone_draining_max) = (maybe(), maybe());
        let (pool_tainted_max, pool_draining_max) = (maybe(), maybe());
        let rules = Rules {
            zone_tainted_max,
            zone_draining_max,
            pool_tainted_max,
            pool_draining_max,
            tainted_max: limit(&mut chance, &[1, 2, 4, 8], &[10, 15, 25]),
            draining_max: limit(&mut chance, &[1, 2, 3], &[3, 5, 10]),
            drains_per_hour: [2, 4, 6, 12, 30][chance.below(5)],
            ..rules()
        };
        Self {
            seed,
            nodes,
            zones: 1 + chance.below(4),
            lasts: Duration::from_secs(24 * 3600),
            kinds,
            // About every three days: far more than in life, so that much is seen.
            mtbf: 72 * HOUR,
            rules,
            told: None,
            sabotage: None,
        }
    }

    /// Node-hours of the run, as it begins.
    #[expect(clippy::cast_precision_loss, reason = "a number of Nodes")]
    pub fn node_hours(&self) -> f64 {
        self.nodes as f64 * (self.lasts + SETTLE).as_secs_f64() / 3600.0
    }
}

/// The operator's numbers in these runs: the defaults, with the long waits scaled down.
pub fn rules() -> Rules {
    Rules {
        tainted_max: Share::Percent(10),
        draining_max: Share::Count(1),
        zone_tainted_max: None,
        zone_draining_max: None,
        pool_tainted_max: None,
        pool_draining_max: None,
        drains_per_hour: 6,
        at_risk: 0.65,
        recover_below: 0.5,
        recover_for: 10 * MINUTE,
        veto_for: HOUR,
        new_node_age: 10 * MINUTE,
        score_age_max: 90 * Duration::from_secs(1),
        storm_percent: 20,
        storm_min: 3,
        storm_window: 5 * MINUTE,
        taint: support::taint(),
        caution_taint: support::caution_taint(),
    }
}

/// The same as the program is told it.
pub fn policy(rules: &Rules) -> Policy {
    #[expect(clippy::cast_precision_loss, reason = "a number of Nodes, or per cent")]
    let limit = |share: Share| match share {
        Share::Count(count) => Limit::Count(u32::try_from(count).unwrap_or(u32::MAX)),
        Share::Percent(percent) => Limit::Percent(percent as f64),
    };
    let mut policy = support::policy();
    policy.rules.recover_for = rules.recover_for;
    policy.rules.veto_for = rules.veto_for;
    policy.rules.probation = 30 * MINUTE;
    policy.rules.repeat_window = 4 * HOUR;
    policy.rules.new_node_age = rules.new_node_age;
    policy.score_age_max = rules.score_age_max;
    policy.facts_age_max = MINUTE;
    policy.limits.tainted_max = limit(rules.tainted_max);
    policy.limits.draining_max = limit(rules.draining_max);
    policy.limits.zone_tainted_max = rules.zone_tainted_max.map(limit);
    policy.limits.zone_draining_max = rules.zone_draining_max.map(limit);
    policy.pools = vec![Pool {
        name: POOL.to_owned(),
        rules: policy.rules.clone(),
        limits: PoolLimits {
            tainted_max: rules.pool_tainted_max.map(limit),
            draining_max: rules.pool_draining_max.map(limit),
            drains_per_hour: None,
        },
    }];
    policy.limits.drains_per_hour = u32::try_from(rules.drains_per_hour).unwrap_or(u32::MAX);
    policy.limits.storm_min = u32::try_from(rules.storm_min).unwrap_or(u32::MAX);
    #[expect(clippy::cast_precision_loss, reason = "per cent")]
    let share = rules.storm_percent as f64 / 100.0;
    policy.limits.storm_share = share;
    policy.limits.storm_window = rules.storm_window;
    policy
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Virtual hours of Nodes that were there.
    pub node_hours: f64,
    /// What was done.
    pub seen: Seen,
    /// What must not have happened.
    pub violations: Vec<Violation>,
}

/// A run under way.
pub struct Simulation {
    /// The truth.
    pub cluster: Cluster,
    /// The program.
    pub process: Process,
    /// What happens to both.
    pub weather: Weather,
    /// Who looks on.
    pub judge: Judge,
    node_seconds: f64,
    looked_at: Timestamp,
}

/// The start of every run.
pub fn start() -> Timestamp {
    support::now()
}

impl Simulation {
    /// At its start.
    pub fn new(options: &Options) -> Self {
        let now = start();
        let cluster = Cluster::new(options.seed, now, options.nodes, options.zones);
        let weather = Weather::new(options.seed, &options.kinds, options.mtbf, now);
        let told = options.told.as_ref().unwrap_or(&options.rules);
        Self {
            process: Process::new(policy(told), now, options.sabotage),
            judge: Judge::new(options.rules.clone()),
            cluster,
            weather,
            node_seconds: 0.0,
            looked_at: now,
        }
    }

    /// Goes on until then, or until something has happened that must not.
    pub fn run_until(&mut self, end: Timestamp) {
        while self.cluster.now < end && self.judge.violations.is_empty() {
            self.tick(end);
        }
    }

    /// One tick, which ends at that time at the latest.
    pub fn tick(&mut self, end: Timestamp) {
        let now = self.cluster.now;
        let mut next = self.weather.next().min(self.process.next()).min(end);
        if self.process.is_busy() {
            next = next.min(after(now, TICK));
        }
        let next = next.max(after(now, Duration::from_secs(1)));
        #[expect(clippy::cast_precision_loss, reason = "a number of Nodes")]
        let nodes = self.cluster.nodes.len() as f64;
        self.node_seconds += nodes * next.duration_since(self.looked_at).as_secs_f64();
        self.looked_at = next;
        self.cluster.advance(next);
        self.process.now = self.cluster.now;
        self.weather
            .happen(&mut self.cluster, &mut self.process, &mut self.judge);
        self.process
            .tick(&mut self.cluster, &mut self.weather, &mut self.judge);
    }

    /// Everything is put right, and has to come to rest.
    pub fn settle(&mut self) {
        if !self.judge.violations.is_empty() {
            return;
        }
        self.weather
            .clear_up(&mut self.cluster, &mut self.process, &mut self.judge);
        self.run_until(after(self.cluster.now, SETTLE));
        self.judge.settled(&self.cluster);
    }

    /// What came of it.
    pub fn outcome(self) -> Outcome {
        Outcome {
            node_hours: self.node_seconds / 3600.0,
            seen: self.judge.seen,
            violations: self.judge.violations,
        }
    }
}

/// One run from beginning to end.
pub fn run(options: &Options) -> Outcome {
    let mut simulation = Simulation::new(options);
    simulation.run_until(after(start(), options.lasts));
    simulation.settle();
    simulation.outcome()
}

/// Runs one seed after the other on this many threads, until there are so many Node-hours. A seed
/// that fails is made smaller and said; the rest go on.
pub fn run_seeds(
    first: u64,
    node_hours: f64,
    threads: usize,
    mut each: impl FnMut(&Options, &Outcome) + Send,
) -> (Outcome, u64) {
    let total = Mutex::new((
        Outcome {
            node_hours: 0.0,
            seen: Seen::default(),
            violations: Vec::new(),
        },
        first,
        &mut each,
    ));
    // A thread that has panicked has said so itself, and `scope` hands it on.
    let lock = || total.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = {
                        let mut total = lock();
                        if total.0.node_hours >= node_hours {
                            return;
                        }
                        total.1 += 1;
                        total.1 - 1
                    };
                    let options = Options::drawn(seed);
                    let outcome = run(&options);
                    let mut total = lock();
                    total.0.node_hours += outcome.node_hours;
                    total.0.seen.add(&outcome.seen);
                    (total.2)(&options, &outcome);
                    total.0.violations.extend(outcome.violations);
                }
            });
        }
    });
    let (outcome, next, _) = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    (outcome, next)
}

/// What to put into a test that fails as this run does.
pub fn as_regression(options: &Options, violation: &Violation) -> String {
    let kinds: Vec<&str> = options.kinds.iter().map(|kind| kind.as_str()).collect();
    format!(
        "regression({}, {}, {}, {:?}) // {}",
        options.seed,
        options.nodes,
        options.lasts.as_secs(),
        kinds.join(" "),
        violation,
    )
}

/// The smallest run that still breaks the same rule: fewer kinds of faults, fewer Nodes, less time.
pub fn shrink(options: &Options, rule: &'static str) -> (Options, Violation) {
    let breaks = |options: &Options| {
        run(options)
            .violations
            .into_iter()
            .find(|violation| violation.rule == rule)
    };
    let mut best = options.clone();
    let Some(mut violation) = breaks(&best) else {
        panic!("seed {} does not break the rule {rule}", options.seed);
    };
    // Nothing after the violation matters, so that most of the time is cut off at once.
    let needed = since(start(), violation.at) + Duration::from_secs(1);
    if needed < best.lasts {
        best.lasts = needed;
    }
    loop {
        let mut smaller = Vec::new();
        for kind in &best.kinds {
            let mut kinds = best.kinds.clone();
            kinds.remove(kind);
            smaller.push(Options {
                kinds,
                ..best.clone()
            });
        }
        for nodes in [best.nodes / 2, best.nodes.saturating_sub(1)] {
            if nodes > 0 && nodes < best.nodes {
                smaller.push(Options {
                    nodes,
                    ..best.clone()
                });
            }
        }
        for lasts in [best.lasts / 2, best.lasts.mul_f64(0.9)] {
            if lasts > MINUTE {
                smaller.push(Options {
                    lasts: Duration::from_secs(lasts.as_secs()),
                    ..best.clone()
                });
            }
        }
        let found = smaller
            .into_iter()
            .find_map(|options| Some((options.clone(), breaks(&options)?)));
        match found {
            Some((options, found)) => (best, violation) = (options, found),
            None => return (best, violation),
        }
    }
}
