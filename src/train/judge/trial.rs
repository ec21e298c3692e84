//! What happened to the Nodes in the part of the history that is judged on, and what acting on a score would
//! have brought about.
//!
//! An incident is one, however many rows foretell it, and an alarm is one, however long it lasts: nothing is
//! adjusted by points.

use std::time::Duration;

use foreshock_core::node::NodeName;
use jiff::Timestamp;

use super::super::labels::{Label, Rules, Timeline};

const DAY: f64 = 86_400.0;

/// A row that is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Whose, by its place in [`Trial::nodes`].
    pub node: u32,
    /// When.
    pub at: Timestamp,
    /// The incident that it foretells, by its place in [`Trial::incidents`]; `None` for a negative.
    pub incident: Option<u32>,
}

/// An incident that could be foretold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Happened {
    /// Whose, by its place in [`Trial::nodes`].
    pub node: u32,
    /// When it began.
    pub from: Timestamp,
}

/// What happened. Rows are those of every Node at every step, not thinned.
#[derive(Clone, Debug)]
pub struct Trial {
    step: Duration,
    horizon: Duration,
    nodes: Vec<NodeName>,
    rows: Vec<Row>,
    incidents: Vec<Happened>,
    unjudged: usize,
}

impl Trial {
    /// An empty trial with rows at steps of this length.
    pub fn new(step: Duration, rules: &Rules) -> Self {
        Self {
            step,
            horizon: rules.horizon,
            nodes: Vec::new(),
            rows: Vec::new(),
            incidents: Vec::new(),
            unjudged: 0,
        }
    }

    /// Adds a Node with the times, in order, at which it has features. Returns the places of the times that
    /// became rows, in order: scores are asked for these, Node after Node.
    pub fn add(&mut self, node: NodeName, timeline: &Timeline, times: &[Timestamp]) -> Vec<usize> {
        let place = self.nodes.len() as u32;
        self.nodes.push(node);
        let (mut kept, mut last) = (Vec::new(), None);
        let before = self.incidents.len();
        for (i, at) in times.iter().enumerate() {
            let incident = match timeline.label(*at) {
                Label::Dropped(_) => continue,
                Label::Negative => None,
                Label::Positive(which) => {
                    if last != Some(which) {
                        last = Some(which);
                        let from = timeline.incidents()[which].span.from;
                        self.incidents.push(Happened { node: place, from });
                    }
                    Some(self.incidents.len() as u32 - 1)
                }
            };
            kept.push(i);
            self.rows.push(Row {
                node: place,
                at: *at,
                incident,
            });
        }
        let within = times.first().zip(times.last()).map_or(0, |(first, last)| {
            let all = timeline.incidents().iter();
            all.filter(|one| *first < one.span.from && one.span.from <= *last)
                .count()
        });
        self.unjudged += within.saturating_sub(self.incidents.len() - before);
        kept
    }

    /// The Nodes, in the order in which they were added.
    pub fn nodes(&self) -> &[NodeName] {
        &self.nodes
    }

    /// The rows, Node after Node and each in the order of time.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Whether each row is positive.
    pub fn labels(&self) -> Vec<bool> {
        self.rows.iter().map(|row| row.incident.is_some()).collect()
    }

    /// The incidents that have rows before them.
    pub fn incidents(&self) -> &[Happened] {
        &self.incidents
    }

    /// Incidents without a row before them, so that no score could have foretold them: too soon after another,
    /// during planned work, or of a Node that nobody watched.
    pub fn unjudged(&self) -> usize {
        self.unjudged
    }

    /// Nodes that incidents befell.
    pub fn nodes_befallen(&self) -> usize {
        let mut nodes: Vec<u32> = self.incidents.iter().map(|one| one.node).collect();
        nodes.dedup();
        nodes.len()
    }

    /// How long Nodes were watched, together, in days.
    pub fn node_days(&self) -> f64 {
        self.rows.len() as f64 * self.step.as_secs_f64() / DAY
    }

    /// The Node's day that each row belongs to, numbered from 0, and how many there are.
    pub(super) fn days(&self) -> (Vec<u32>, usize) {
        let (mut days, mut last, mut n) = (Vec::with_capacity(self.rows.len()), None, 0u32);
        for row in &self.rows {
            let day = (row.node, row.at.as_second().div_euclid(86_400));
            if last != Some(day) {
                n += u32::from(last.is_some());
                last = Some(day);
            }
            days.push(n);
        }
        let count = if days.is_empty() { 0 } else { n as usize + 1 };
        (days, count)
    }
}

/// How one acts on a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// The score must stay at the threshold or above for so long (`policy.confirm_for` and `drain_after`).
    pub confirm_for: Duration,
    /// And below it for so long until the Node is given back (`policy.recover_for`).
    pub recover_for: Duration,
}

impl Default for Manner {
    /// The defaults of `[policy]`.
    fn default() -> Self {
        Self {
            confirm_for: Duration::from_secs(105),
            recover_for: Duration::from_secs(600),
        }
    }
}

/// A drain that a score would have caused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// The row at which it began.
    pub row: usize,
    /// The incident that found the Node empty; `None` for a needless one.
    pub averted: Option<u32>,
}

/// What acting on a score at one threshold would have brought about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Every drain. A Node that is held empty beyond the horizon is drained again for each further one:
    /// an alarm that never ends must not be cheap.
    pub drains: Vec<Drain>,
    /// For each incident, how long before it the Node was drained; `None` for a missed one. What is older than
    /// the horizon counts as the horizon.
    pub leads: Vec<Option<Duration>>,
    /// Alarms in which nothing happened.
    pub false_episodes: usize,
}

impl Outcome {
    /// Drains in which no incident came.
    pub fn needless(&self) -> usize {
        self.drains
            .iter()
            .filter(|drain| drain.averted.is_none())
            .count()
    }

    /// Incidents that were foretold.
    pub fn foretold(&self) -> usize {
        self.leads.iter().flatten().count()
    }

    /// Incidents that were not.
    pub fn missed(&self) -> usize {
        self.leads.len() - self.foretold()
    }
}

/// An alarm that is on. Times are in seconds since 1970.
struct Episode {
    began: i64,
    /// Place of its last drain among the drains.
    drain: usize,
    drained_at: i64,
    low_since: Option<i64>,
    hit: bool,
}

/// What acting on `scores`, one for each row of the trial, would have brought about. A row without a score
/// (not a number) is neither above the threshold nor evidence of health.
pub fn act(trial: &Trial, scores: &[f64], threshold: f64, manner: &Manner) -> Outcome {
    let mut outcome = Outcome {
        leads: vec![None; trial.incidents.len()],
        ..Outcome::default()
    };
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let (confirm_for, recover_for) = (seconds(manner.confirm_for), seconds(manner.recover_for));
    let horizon = seconds(trial.horizon);
    // A single row that is missing is no end of an alarm.
    let gap = seconds(trial.step * 5 / 2);
    let (mut above_since, mut episode): (Option<i64>, Option<Episode>) = (None, None);
    let mut before = None;
    for (i, (row, score)) in trial.rows.iter().zip(scores).enumerate() {
        let now = row.at.as_second();
        let continues = before.is_some_and(|(node, at)| node == row.node && now - at <= gap);
        before = Some((row.node, now));
        if !continues {
            above_since = None;
            outcome.close(episode.take());
        }
        if *score >= threshold {
            let confirmed = now - *above_since.get_or_insert(now) >= confirm_for;
            if let Some(on) = &mut episode {
                on.low_since = None;
                if now >= on.drained_at + horizon {
                    // The incident is still to come: this drain finds it, and the one before was for nothing.
                    if let Some(before) = outcome.drains.get_mut(on.drain) {
                        before.averted = None;
                    }
                    (on.drain, on.drained_at) = (outcome.drain(i), now);
                }
            } else if confirmed {
                episode = Some(Episode {
                    began: now,
                    drain: outcome.drain(i),
                    drained_at: now,
                    low_since: None,
                    hit: false,
                });
            }
        } else {
            above_since = None;
            // Not a number is neither.
            if let Some(on) = episode.as_mut().filter(|_| *score < threshold) {
                let low_for = now - *on.low_since.get_or_insert(now);
                if low_for >= recover_for {
                    outcome.close(episode.take());
                }
            }
        }
        let Some(incident) = row.incident else {
            continue;
        };
        match &mut episode {
            Some(on) => {
                on.hit = true;
                let from = trial
                    .incidents
                    .get(incident as usize)
                    .map(|one| one.from.as_second());
                let ahead = (from.unwrap_or(now) - on.began).clamp(0, horizon);
                outcome.foretell(
                    incident,
                    on.drain,
                    Duration::from_secs(ahead.unsigned_abs()),
                );
            }
            // The Node was given back before the incident came: it was not averted after all.
            None => outcome.withdraw(incident),
        }
    }
    outcome.close(episode.take());
    outcome
}

impl Outcome {
    /// Begins a drain; its place.
    fn drain(&mut self, row: usize) -> usize {
        self.drains.push(Drain { row, averted: None });
        self.drains.len() - 1
    }

    fn foretell(&mut self, incident: u32, drain: usize, ahead: Duration) {
        if let Some(drain) = self.drains.get_mut(drain) {
            drain.averted = Some(incident);
        }
        if let Some(lead) = self.leads.get_mut(incident as usize) {
            lead.get_or_insert(ahead);
        }
    }

    fn close(&mut self, episode: Option<Episode>) {
        self.false_episodes += usize::from(episode.is_some_and(|episode| !episode.hit));
    }

    fn withdraw(&mut self, incident: u32) {
        let Some(lead) = self.leads.get_mut(incident as usize) else {
            return;
        };
        if lead.take().is_some() {
            let mut drains = self.drains.iter_mut().rev();
            if let Some(drain) = drains.find(|drain| drain.averted == Some(incident)) {
                drain.averted = None;
                self.false_episodes += 1;
            }
        }
    }
}
