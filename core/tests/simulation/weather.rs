//! What happens to a cluster and to those who look at it: machines that degrade, people, other
//! controllers, and every fault that a run allows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foreshock_core::decision::policy::Reach;
use foreshock_core::decision::world::{HoldUntil, ScoreUnknown};
use foreshock_core::node::NodeName;
use foreshock_core::record::{ActingAlert, RecordState, Taint, TaintEffect};
use foreshock_core::time::after;
use jiff::{SignedDuration, Timestamp};

use super::chance::Chance;
use super::cluster::Cluster;
use super::judge::Judge;
use super::process::Process;
use super::support;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// One kind of fault. A run allows a set of them; leaving one out changes nothing of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Prometheus does not answer, and what it had firing is resolved.
    Outages,
    /// Features of some Nodes are missing.
    Partial,
    /// Answers come late.
    Late,
    /// Alerts tell of Nodes that degrade; some ends of them never arrive.
    Alerts,
    /// Somebody writes between the read and the write.
    Conflicts,
    /// No answer, with and without effect.
    Timeouts,
    /// The API server fails, is busy, or a webhook refuses.
    ServerErrors,
    /// Writes take their time.
    SlowWrites,
    /// The process is killed, at writes and in between.
    Kills,
    /// Another replica takes over.
    LeaderChanges,
    /// The process is suspended.
    Suspensions,
    /// Its clock is set.
    ClockJumps,
    /// The watch of the Nodes is behind.
    WatchLag,
    /// Others set taints, also with our key, and labels.
    CoWriters,
    /// People cordon.
    Cordons,
    /// People remove our taint.
    Vetoes,
    /// `exclude` and `hold-until`.
    Exclusions,
    /// Other controllers take Nodes away.
    Takers,
    /// Somebody pauses.
    Pauses,
    /// A whole zone is gone.
    ZoneLoss,
    /// The model says at risk of many.
    BadModel,
    /// A rule fires for many.
    BadRule,
    /// Nodes come, go, and come again under their name.
    Churn,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 23] = [
        Self::Outages,
        Self::Partial,
        Self::Late,
        Self::Alerts,
        Self::Conflicts,
        Self::Timeouts,
        Self::ServerErrors,
        Self::SlowWrites,
        Self::Kills,
        Self::LeaderChanges,
        Self::Suspensions,
        Self::ClockJumps,
        Self::WatchLag,
        Self::CoWriters,
        Self::Cordons,
        Self::Vetoes,
        Self::Exclusions,
        Self::Takers,
        Self::Pauses,
        Self::ZoneLoss,
        Self::BadModel,
        Self::BadRule,
        Self::Churn,
    ];

    /// The name on the command line and of its stream of chance.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outages => "outages",
            Self::Partial => "partial",
            Self::Late => "late",
            Self::Alerts => "alerts",
            Self::Conflicts => "conflicts",
            Self::Timeouts => "timeouts",
            Self::ServerErrors => "server-errors",
            Self::SlowWrites => "slow-writes",
            Self::Kills => "kills",
            Self::LeaderChanges => "leader-changes",
            Self::Suspensions => "suspensions",
            Self::ClockJumps => "clock-jumps",
            Self::WatchLag => "watch-lag",
            Self::CoWriters => "co-writers",
            Self::Cordons => "cordons",
            Self::Vetoes => "vetoes",
            Self::Exclusions => "exclusions",
            Self::Takers => "takers",
            Self::Pauses => "pauses",
            Self::ZoneLoss => "zone-loss",
            Self::BadModel => "bad-model",
            Self::BadRule => "bad-rule",
            Self::Churn => "churn",
        }
    }

    /// How often it comes, on average; `None` for those that come with each write or answer.
    fn every(self) -> Option<Duration> {
        match self {
            Self::Outages => Some(9 * HOUR),
            Self::Partial => Some(2 * HOUR),
            Self::Late => Some(5 * HOUR),
            Self::Kills | Self::LeaderChanges => Some(3 * HOUR),
            Self::Suspensions => Some(12 * HOUR),
            Self::ClockJumps => Some(10 * HOUR),
            Self::CoWriters => Some(HOUR),
            Self::Cordons | Self::Exclusions => Some(3 * HOUR),
            Self::Vetoes => Some(3 * HOUR),
            Self::Takers => Some(5 * HOUR),
            Self::Pauses => Some(8 * HOUR),
            Self::ZoneLoss | Self::BadModel | Self::BadRule => Some(16 * HOUR),
            Self::Churn => Some(4 * HOUR),
            Self::Alerts
            | Self::Conflicts
            | Self::Timeouts
            | Self::ServerErrors
            | Self::SlowWrites
            | Self::WatchLag => None,
        }
    }
}

/// A machine that degrades.
#[derive(Clone, Debug)]
pub struct Incident {
    /// Which one; a Node has one at a time.
    pub number: u64,
    /// What a good model says of it.
    pub level: f64,
    /// How far that goes up and down.
    pub wobble: f64,
    /// It does not show while the Node is empty.
    pub by_load: bool,
}

/// An alert as Alertmanager has it.
#[derive(Clone, Debug)]
struct Firing {
    starts_at: Timestamp,
    floor: f64,
    reach: Reach,
    /// Its end never arrives.
    end_is_lost: bool,
}

#[derive(Clone, Debug)]
enum Event {
    Incident,
    IncidentEnds(NodeName, u64),
    Send(NodeName, String),
    Resolve(NodeName, String),
    Fault(Kind),
    Uncordon(NodeName),
    Include(NodeName),
    Free(NodeName),
    Untaint(NodeName, Taint),
    Resume,
    ZoneBack(NodeName),
    ClockBack(SignedDuration),
}

/// What happens next, and what is the case now.
#[derive(Clone, Debug)]
pub struct Weather {
    kinds: BTreeSet<Kind>,
    streams: BTreeMap<Kind, Chance>,
    machines: Chance,
    scores: Chance,
    agenda: BTreeMap<(Timestamp, u64), Event>,
    counter: u64,
    /// Machines that degrade.
    pub incidents: BTreeMap<NodeName, Incident>,
    /// A Node degrades every so often.
    mtbf: Duration,
    firing: BTreeMap<(NodeName, String), Firing>,
    outage_until: Option<Timestamp>,
    late_until: Option<Timestamp>,
    partial: BTreeMap<NodeName, Timestamp>,
    /// Nodes of which the model says the wrong thing, until then.
    pub bad_model: Option<(Timestamp, BTreeSet<NodeName>)>,
    quiet: bool,
}

/// How long an alert counts after it was last sent. Scaled down from five hours.
const EXPIRE: Duration = Duration::from_secs(40 * 60);
/// How often an alert is sent again.
const REPEAT: Duration = Duration::from_secs(10 * 60);

impl Weather {
    /// The weather of this seed.
    pub fn new(seed: u64, kinds: &BTreeSet<Kind>, mtbf: Duration, start: Timestamp) -> Self {
        let mut weather = Self {
            kinds: kinds.clone(),
            streams: Kind::ALL
                .into_iter()
                .map(|kind| (kind, Chance::new(seed, kind.as_str())))
                .collect(),
            machines: Chance::new(seed, "machines"),
            scores: Chance::new(seed, "scores"),
            agenda: BTreeMap::new(),
            counter: 0,
            incidents: BTreeMap::new(),
            mtbf,
            firing: BTreeMap::new(),
            outage_until: None,
            late_until: None,
            partial: BTreeMap::new(),
            bad_model: None,
            quiet: false,
        };
        weather.at(start, Event::Incident);
        for kind in kinds.clone() {
            weather.again(kind, start);
        }
        weather
    }

    fn at(&mut self, at: Timestamp, event: Event) {
        self.counter += 1;
        self.agenda.insert((at, self.counter), event);
    }

    fn again(&mut self, kind: Kind, now: Timestamp) {
        if let Some(every) = kind.every() {
            let wait = self.chance(kind).wait(every);
            self.at(after(now, wait), Event::Fault(kind));
        }
    }

    /// The stream of one kind.
    pub fn chance(&mut self, kind: Kind) -> &mut Chance {
        self.streams.get_mut(&kind).expect("every kind has one")
    }

    /// Whether a fault of this kind strikes now.
    pub fn strikes(&mut self, kind: Kind, share: f64) -> bool {
        !self.quiet && self.kinds.contains(&kind) && self.chance(kind).hits(share)
    }

    /// When something happens next.
    pub fn next(&self) -> Timestamp {
        self.agenda
            .first_key_value()
            .map_or(Timestamp::MAX, |((at, _), _)| *at)
    }

    /// Everything that is due happens.
    pub fn happen(&mut self, cluster: &mut Cluster, process: &mut Process, judge: &mut Judge) {
        let now = cluster.now;
        while let Some(entry) = self.agenda.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let event = entry.remove();
            self.take_place(event, now, cluster, process, judge);
        }
    }

    fn take_place(
        &mut self,
        event: Event,
        now: Timestamp,
        cluster: &mut Cluster,
        process: &mut Process,
        judge: &mut Judge,
    ) {
        match event {
            Event::Incident => self.incident(now, cluster),
            Event::IncidentEnds(name, number) => {
                if self
                    .incidents
                    .get(&name)
                    .is_some_and(|incident| incident.number == number)
                {
                    self.incidents.remove(&name);
                }
            }
            Event::Send(name, fingerprint) => {
                self.send(now, &name, &fingerprint, cluster, process, judge);
            }
            Event::Resolve(name, fingerprint) => {
                if let Some(until) = self.outage_until.filter(|until| now < *until) {
                    return self.at(until, Event::Resolve(name, fingerprint));
                }
                let firing = self.firing.remove(&(name.clone(), fingerprint.clone()));
                if let Some(firing) = firing.filter(|firing| !firing.end_is_lost) {
                    process.resolved(&name, &fingerprint, firing.starts_at, judge);
                }
            }
            Event::Fault(kind) => {
                if !self.quiet {
                    self.fault(kind, now, cluster, process, judge);
                    self.again(kind, now);
                }
            }
            Event::Uncordon(name) => cluster.change(&name, |node| node.cordoned = false),
            Event::Include(name) => cluster.change(&name, |node| {
                node.excluded = false;
                node.hold_until = None;
            }),
            Event::Free(name) => cluster.change(&name, |node| node.taken_by = None),
            Event::Untaint(name, taint) => cluster.change(&name, |node| {
                node.taints.retain(|there| *there != taint);
            }),
            Event::Resume => cluster.paused = false,
            Event::ZoneBack(name) => {
                cluster.change(&name, |node| node.ready = true);
                let fingerprint = format!("not-ready-{name}");
                self.at(after(now, MINUTE), Event::Resolve(name, fingerprint));
            }
            Event::ClockBack(by) => set_clock(process, judge, -by),
        }
    }

    /// A machine begins to degrade.
    fn incident(&mut self, now: Timestamp, cluster: &Cluster) {
        let count = u32::try_from(cluster.nodes.len().max(1)).unwrap_or(u32::MAX);
        let wait = self.machines.wait(self.mtbf / count);
        if self.quiet {
            return;
        }
        self.at(after(now, wait), Event::Incident);
        let Some(name) = pick(&mut self.machines, cluster) else {
            return;
        };
        self.counter += 1;
        let number = self.counter;
        let incident = Incident {
            number,
            level: self.machines.between(0.45, 0.97),
            wobble: self.machines.between(0.0, 0.12),
            by_load: self.machines.hits(0.4),
        };
        let lasts = self.machines.lasting(300, 3 * 3600);
        let alerts = self.machines.hits(0.5);
        self.incidents.insert(name.clone(), incident);
        self.at(after(now, lasts), Event::IncidentEnds(name.clone(), number));
        if alerts && self.kinds.contains(&Kind::Alerts) {
            let chance = self.chance(Kind::Alerts);
            let reach = match chance.below(4) {
                0 => Reach::Label,
                1 => Reach::Taint,
                _ => Reach::Evict,
            };
            let firing = Firing {
                starts_at: after(now, MINUTE),
                floor: if chance.hits(0.8) { 0.8 } else { 0.55 },
                reach,
                end_is_lost: chance.hits(0.2),
            };
            let fingerprint = format!("incident-{number}");
            self.fire(&name, &fingerprint, firing, after(now, lasts));
        }
    }

    /// An alert fires until then.
    fn fire(&mut self, name: &NodeName, fingerprint: &str, firing: Firing, until: Timestamp) {
        let starts_at = firing.starts_at;
        self.firing
            .insert((name.clone(), fingerprint.to_owned()), firing);
        self.at(starts_at, Event::Send(name.clone(), fingerprint.to_owned()));
        self.at(
            after(until, MINUTE),
            Event::Resolve(name.clone(), fingerprint.to_owned()),
        );
    }

    fn send(
        &mut self,
        now: Timestamp,
        name: &NodeName,
        fingerprint: &str,
        cluster: &Cluster,
        process: &mut Process,
        judge: &mut Judge,
    ) {
        let key = (name.clone(), fingerprint.to_owned());
        if let Some(until) = self.outage_until.filter(|until| now < *until) {
            return self.at(until, Event::Send(key.0, key.1));
        }
        let Some(firing) = self.firing.get(&key).cloned() else {
            return;
        };
        self.at(after(now, REPEAT), Event::Send(key.0, key.1));
        if !cluster.nodes.contains_key(name) {
            return;
        }
        let alert = ActingAlert {
            fingerprint: fingerprint.to_owned(),
            name: "Degrades".to_owned(),
            starts_at: firing.starts_at,
            floor: support::risk(firing.floor),
            reach: firing.reach,
            expires_at: after(process.wall(now), EXPIRE),
        };
        process.alert(name, alert, judge);
    }

    fn fault(
        &mut self,
        kind: Kind,
        now: Timestamp,
        cluster: &mut Cluster,
        process: &mut Process,
        judge: &mut Judge,
    ) {
        let chance = self.streams.get_mut(&kind).expect("every kind has one");
        match kind {
            Kind::Outages => {
                let lasts = chance.lasting(120, 2 * 3600);
                if self.outage_until.is_some_and(|until| now < until) {
                    return;
                }
                self.outage_until = Some(after(now, lasts));
                // A dying Prometheus resolves everything, and it fires again when it is back.
                let all: Vec<(NodeName, String, Timestamp)> = self
                    .firing
                    .iter()
                    .map(|((name, print), firing)| (name.clone(), print.clone(), firing.starts_at))
                    .collect();
                for (name, fingerprint, starts_at) in all {
                    process.resolved(&name, &fingerprint, starts_at, judge);
                    if let Some(firing) = self.firing.get_mut(&(name, fingerprint)) {
                        firing.starts_at = after(now, lasts);
                    }
                }
            }
            Kind::Partial => {
                let share = chance.between(0.02, 0.6);
                let until = after(now, chance.lasting(60, 1800));
                for name in cluster.nodes.keys() {
                    if chance.hits(share) {
                        self.partial.insert(name.clone(), until);
                    }
                }
            }
            Kind::Late => self.late_until = Some(after(now, chance.lasting(120, 1200))),
            Kind::Kills => process.die(cluster, chance.lasting(1, 60), judge),
            Kind::LeaderChanges => process.hand_over(now, chance.lasting(15, 20)),
            Kind::Suspensions => process.sleep(now, chance.lasting(30, 900)),
            Kind::ClockJumps => {
                let seconds = i64::try_from(chance.below(600)).unwrap_or(0) - 300;
                let by = SignedDuration::from_secs(seconds);
                let lasts = chance.lasting(60, 3600);
                set_clock(process, judge, by);
                self.at(after(now, lasts), Event::ClockBack(by));
            }
            Kind::CoWriters => {
                let ours = support::taint();
                let taint = match chance.below(6) {
                    // Our key with another value; our key with another effect.
                    0 => Taint {
                        value: "manual".to_owned(),
                        ..ours
                    },
                    1 => Taint {
                        effect: TaintEffect::NoExecute,
                        ..ours
                    },
                    2 => Taint {
                        key: "example.org/maintenance".to_owned(),
                        ..ours
                    },
                    _ => Taint {
                        key: format!("example.org/team-{}", chance.below(4)),
                        value: String::new(),
                        effect: TaintEffect::PreferNoSchedule,
                    },
                };
                let lasts = chance.lasting(10, 2 * 3600);
                if let Some(name) = pick(chance, cluster) {
                    cluster.change(&name, |node| {
                        if !node.taints.iter().any(|there| there.collides_with(&taint)) {
                            node.taints.push(taint.clone());
                        }
                    });
                    self.at(after(now, lasts), Event::Untaint(name, taint));
                }
            }
            Kind::Cordons => {
                let lasts = chance.lasting(60, 3 * 3600);
                if let Some(name) = pick(chance, cluster) {
                    cluster.change(&name, |node| node.cordoned = true);
                    self.at(after(now, lasts), Event::Uncordon(name));
                }
            }
            Kind::Vetoes => {
                let ours = support::taint();
                let marked: Vec<NodeName> = cluster
                    .nodes
                    .values()
                    .filter(|node| node.taints.contains(&ours))
                    .map(|node| node.id.name.clone())
                    .collect();
                if !marked.is_empty() {
                    let name = marked[chance.below(marked.len())].clone();
                    judge.taint_removed_by_a_person(&name, now);
                    cluster.change(&name, |node| node.taints.retain(|taint| *taint != ours));
                }
            }
            Kind::Exclusions => {
                let lasts = chance.lasting(60, 2 * 3600);
                let until = after(now, lasts);
                let which = chance.below(3);
                if let Some(name) = likely(chance, cluster) {
                    cluster.change(&name, |node| match which {
                        0 => node.excluded = true,
                        1 => node.hold_until = Some(HoldUntil::Time(until)),
                        _ => node.hold_until = Some(HoldUntil::Malformed("soon".to_owned())),
                    });
                    self.at(until, Event::Include(name));
                }
            }
            Kind::Takers => {
                let lasts = chance.lasting(60, 3600);
                if let Some(name) = likely(chance, cluster) {
                    cluster.change(&name, |node| {
                        node.taken_by = Some("cluster-autoscaler".to_owned());
                    });
                    self.at(after(now, lasts), Event::Free(name));
                }
            }
            Kind::Pauses => {
                let lasts = chance.lasting(30, 2400);
                cluster.paused = true;
                self.at(after(now, lasts), Event::Resume);
            }
            Kind::ZoneLoss => self.zone_loss(now, cluster),
            Kind::BadModel => {
                let share = chance.between(0.1, 1.0);
                let until = after(now, chance.lasting(600, 6 * 3600));
                let fooled = cluster
                    .nodes
                    .keys()
                    .filter(|_| chance.hits(share))
                    .cloned()
                    .collect();
                self.bad_model = Some((until, fooled));
            }
            Kind::BadRule => {
                let share = chance.between(0.1, 1.0);
                let lasts = chance.lasting(600, 6 * 3600);
                let names: Vec<NodeName> = cluster
                    .nodes
                    .keys()
                    .filter(|_| chance.hits(share))
                    .cloned()
                    .collect();
                self.counter += 1;
                let rule = self.counter;
                for name in names {
                    let firing = Firing {
                        starts_at: now,
                        floor: 0.9,
                        reach: Reach::Evict,
                        end_is_lost: false,
                    };
                    self.fire(
                        &name,
                        &format!("rule-{rule}-{name}"),
                        firing,
                        after(now, lasts),
                    );
                }
            }
            Kind::Churn => churn(chance, now, cluster),
            Kind::Alerts
            | Kind::Conflicts
            | Kind::Timeouts
            | Kind::ServerErrors
            | Kind::SlowWrites
            | Kind::WatchLag => {}
        }
    }

    fn zone_loss(&mut self, now: Timestamp, cluster: &mut Cluster) {
        let chance = self.chance(Kind::ZoneLoss);
        let Some(name) = pick(chance, cluster) else {
            return;
        };
        let lasts = chance.lasting(300, 6 * 3600);
        let zone = cluster.nodes[&name].zone.clone();
        let lost: Vec<NodeName> = cluster
            .nodes
            .values()
            .filter(|node| node.zone == zone && node.ready)
            .map(|node| node.id.name.clone())
            .collect();
        for name in lost {
            cluster.change(&name, |node| node.ready = false);
            let firing = Firing {
                starts_at: after(now, MINUTE),
                floor: 0.9,
                reach: Reach::Evict,
                end_is_lost: false,
            };
            let until = after(now, lasts);
            // Ended by the return of the Node.
            let fingerprint = format!("not-ready-{name}");
            self.firing
                .insert((name.clone(), fingerprint.clone()), firing);
            self.at(after(now, MINUTE), Event::Send(name.clone(), fingerprint));
            self.at(until, Event::ZoneBack(name));
        }
    }

    // ---- telemetry ----

    /// Whether Prometheus answers, and after how long.
    pub fn answer(&mut self, now: Timestamp) -> Option<Duration> {
        if self.outage_until.is_some_and(|until| now < until) {
            return None;
        }
        if self.late_until.is_some_and(|until| now < until) {
            let chance = self.chance(Kind::Late);
            return (!chance.hits(0.3)).then(|| chance.lasting(0, 25));
        }
        Some(Duration::ZERO)
    }

    /// What the model says of a Node, or why it says nothing.
    pub fn score(
        &mut self,
        now: Timestamp,
        name: &NodeName,
        ready: bool,
        empty: impl Fn() -> bool,
    ) -> Result<f64, ScoreUnknown> {
        let noise = self.scores.unit();
        if !ready {
            return Err(ScoreUnknown::NoScrape);
        }
        if !self.partial.is_empty() && self.partial.get(name).is_some_and(|until| now < *until) {
            return Err(if noise < 0.5 {
                ScoreUnknown::NoScrape
            } else {
                ScoreUnknown::FeaturesMissing
            });
        }
        if let Some((until, fooled)) = &self.bad_model
            && now < *until
            && fooled.contains(name)
        {
            return Ok(0.9 + 0.05 * noise);
        }
        match self.incidents.get(name) {
            Some(incident) if !(incident.by_load && empty()) => {
                Ok((incident.level + incident.wobble * (2.0 * noise - 1.0)).clamp(0.0, 0.99))
            }
            Some(_) | None => Ok(0.03 + 0.2 * noise),
        }
    }

    /// Nothing happens but what a test says.
    pub fn be_quiet(&mut self) {
        self.quiet = true;
        self.agenda.clear();
    }

    /// Prometheus does not answer until then.
    pub fn prometheus_is_gone_until(&mut self, until: Timestamp) {
        self.outage_until = Some(until);
    }

    /// The weather clears up: whatever was wrong is put right, and nothing new goes wrong.
    pub fn clear_up(&mut self, cluster: &mut Cluster, process: &mut Process, judge: &mut Judge) {
        self.quiet = true;
        self.outage_until = None;
        self.late_until = None;
        self.partial.clear();
        self.bad_model = None;
        self.incidents.clear();
        self.agenda.clear();
        cluster.paused = false;
        let ours = support::taint();
        let names: Vec<NodeName> = cluster.nodes.keys().cloned().collect();
        for name in names {
            cluster.change(&name, |node| {
                node.ready = true;
                node.cordoned = false;
                node.excluded = false;
                node.hold_until = None;
                node.taken_by = None;
                let record = match &node.record {
                    RecordState::Ours(record) => record.marks.clone(),
                    _ => foreshock_core::record::Marks::default(),
                };
                node.taints.retain(|taint| {
                    taint.key != ours.key
                        || record.taint.as_ref() == Some(taint)
                        || record.caution_taint.as_ref() == Some(taint)
                });
            });
        }
        for ((name, fingerprint), firing) in std::mem::take(&mut self.firing) {
            process.resolved(&name, &fingerprint, firing.starts_at, judge);
        }
        let back = -process.offset;
        set_clock(process, judge, back);
    }
}

fn set_clock(process: &mut Process, judge: &mut Judge, by: SignedDuration) {
    process.offset = process.offset.saturating_add(by);
    if let Ok(forwards) = Duration::try_from(by) {
        judge.clock_set(forwards);
    }
}

fn pick(chance: &mut Chance, cluster: &Cluster) -> Option<NodeName> {
    let count = cluster.nodes.len();
    (count > 0)
        .then(|| chance.below(count))
        .and_then(|index| cluster.nodes.keys().nth(index).cloned())
}

/// A Node with something of ours on it where there is one, twice in three times.
fn likely(chance: &mut Chance, cluster: &Cluster) -> Option<NodeName> {
    let marked: Vec<&NodeName> = cluster
        .nodes
        .iter()
        .filter(|(_, node)| node.record.ours().is_some())
        .map(|(name, _)| name)
        .collect();
    if !marked.is_empty() && chance.hits(0.66) {
        return Some(marked[chance.below(marked.len())].clone());
    }
    pick(chance, cluster)
}

fn churn(chance: &mut Chance, now: Timestamp, cluster: &mut Cluster) {
    let Some(name) = likely(chance, cluster) else {
        return;
    };
    let zone = cluster.nodes[&name].zone.clone().unwrap_or_default();
    match chance.below(3) {
        // Gone, and another instead of it.
        0 => {
            cluster.delete_node(&name);
            let number = chance.below(900_000);
            cluster.add_node(&format!("x{number:06}"), &zone, now);
        }
        // The same name again.
        1 => {
            cluster.delete_node(&name);
            cluster.add_node(name.as_str(), &zone, now);
        }
        _ => {
            let number = chance.below(900_000);
            if cluster.nodes.len() < 500 {
                cluster.add_node(&format!("y{number:06}"), &zone, now);
            }
        }
    }
}
