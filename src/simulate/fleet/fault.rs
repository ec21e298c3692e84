//! Faults: what can go wrong with a simulated Node, when, how badly, and how an operator writes it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use foreshock_core::node::NodeName;
use jiff::{SignedDuration, Timestamp};

use super::collector::Collector;
use super::random::smoothstep;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// A process takes ever more memory: reclaim, swapping, memory stalls, then OOM kills.
    MemoryLeak,
    /// The first disk answers ever more slowly: await, queue, I/O wait, blocked processes, stalls.
    SlowDisk,
    /// The network loses packets: retransmissions, timeouts, drops, errors, probes that fail.
    PacketLoss,
    /// Cooling fails: temperature up to the critical one, then the CPU throttles.
    Overheating,
    /// The CPU is taken away: steal, a run queue that explodes, CPU pressure, throttling.
    CpuStarvation,
    /// The first filesystem fills until writes fail.
    FillingFilesystem,
    /// The Node reboots again and again.
    RebootLoop,
    /// One collector of node_exporter fails. The Node itself is well.
    LostCollector,
    /// node_exporter does not answer. The Node itself is well.
    VanishedExporter,
}

impl FaultKind {
    /// Every kind, in the order of the documentation.
    pub const ALL: [Self; 9] = [
        Self::MemoryLeak,
        Self::SlowDisk,
        Self::PacketLoss,
        Self::Overheating,
        Self::CpuStarvation,
        Self::FillingFilesystem,
        Self::RebootLoop,
        Self::LostCollector,
        Self::VanishedExporter,
    ];

    /// The name on the command line and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MemoryLeak => "memory-leak",
            Self::SlowDisk => "slow-disk",
            Self::PacketLoss => "packet-loss",
            Self::Overheating => "overheating",
            Self::CpuStarvation => "cpu-starvation",
            Self::FillingFilesystem => "filling-filesystem",
            Self::RebootLoop => "reboot-loop",
            Self::LostCollector => "lost-collector",
            Self::VanishedExporter => "vanished-exporter",
        }
    }

    /// Whether the Node itself degrades; the other faults only lose its telemetry.
    pub fn degrades(self) -> bool {
        match self {
            Self::MemoryLeak
            | Self::SlowDisk
            | Self::PacketLoss
            | Self::Overheating
            | Self::CpuStarvation
            | Self::FillingFilesystem
            | Self::RebootLoop => true,
            Self::LostCollector | Self::VanishedExporter => false,
        }
    }

    /// Seconds until a fault of this kind reaches its severity when nothing else is said.
    fn usual_ramp(self, lasts: f64) -> f64 {
        match self {
            // A leak and a filling disk are slow by nature.
            Self::MemoryLeak | Self::FillingFilesystem => 0.7 * lasts,
            Self::SlowDisk
            | Self::PacketLoss
            | Self::Overheating
            | Self::CpuStarvation
            | Self::RebootLoop => (0.3 * lasts).clamp(10.0, 600.0).min(lasts),
            Self::LostCollector | Self::VanishedExporter => 0.0,
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for FaultKind {
    type Err = FaultSyntaxError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| FaultSyntaxError::Kind(text.to_owned()))
    }
}

/// A fault as written by a person: times count from the start of the fleet.
///
/// Syntax: `NODE:KIND[:at=DURATION][:for=DURATION][:severity=0..1][:ramp=DURATION][:target=NAME]`,
/// for example `worker-03:slow-disk:at=60s:for=5m:severity=0.8`.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultSpec {
    /// Which Node.
    pub node: NodeName,
    /// What goes wrong.
    pub kind: FaultKind,
    /// When it begins, after the start of the fleet; default at once.
    pub at: Duration,
    /// How long it lasts, recovery not included; default 10 min.
    pub lasts: Duration,
    /// How bad it gets, above 0 and at most 1; default 0.8.
    pub severity: f64,
    /// How long it takes to get that bad; default depends on the kind.
    pub ramp: Option<Duration>,
    /// The collector that is lost (default `diskstats`); no other kind has a target.
    pub target: Option<String>,
}

/// What is wrong with a fault as given.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FaultSyntaxError {
    /// No Node or no kind.
    #[error(
        "`{0}` is no fault: write NODE:KIND and what differs from the defaults, for example worker-03:slow-disk:at=60s:for=5m:severity=0.8"
    )]
    Shape(String),
    /// Not one of [`FaultKind::ALL`].
    #[error(
        "`{0}` is no kind of fault: use one of memory-leak, slow-disk, packet-loss, overheating, cpu-starvation, filling-filesystem, reboot-loop, lost-collector, vanished-exporter"
    )]
    Kind(String),
    /// A part that is not `key=value`.
    #[error("`{0}` is not key=value: the keys are at, for, severity, ramp and target")]
    Part(String),
    /// A key that does not exist.
    #[error("`{0}` is no key of a fault: the keys are at, for, severity, ramp and target")]
    Key(String),
    /// A key given twice.
    #[error("`{0}` is given twice")]
    Twice(String),
    /// A duration that cannot be read.
    #[error("`{key}={value}`: not a duration such as 90s or 5m")]
    Duration {
        /// The key.
        key: String,
        /// What was written.
        value: String,
    },
    /// A fault that lasts no time or longer than a year.
    #[error("`{key}={value}`: must be above zero and at most 366 days")]
    Length {
        /// The key.
        key: String,
        /// What was written.
        value: String,
    },
    /// A severity that is not above 0 and at most 1.
    #[error("`severity={0}`: must be above 0 and at most 1")]
    Severity(String),
    /// A target on a fault that has none, or a collector that is not simulated.
    #[error(
        "`target={0}`: only lost-collector has a target, and it must be a collector of node_exporter such as diskstats, pressure or meminfo"
    )]
    Target(String),
}

/// The longest time a fault may wait or last: guards the arithmetic, not the operator.
const TIME_MAX: Duration = Duration::from_secs(366 * 86_400);

impl FromStr for FaultSpec {
    type Err = FaultSyntaxError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(':');
        let (Some(node), Some(kind)) = (parts.next(), parts.next()) else {
            return Err(FaultSyntaxError::Shape(text.to_owned()));
        };
        if node.is_empty() || kind.contains('=') {
            return Err(FaultSyntaxError::Shape(text.to_owned()));
        }
        let kind: FaultKind = kind.parse()?;
        let mut given: Vec<&str> = Vec::new();
        let mut spec = Self {
            node: node.into(),
            kind,
            at: Duration::ZERO,
            lasts: Duration::from_secs(600),
            severity: 0.8,
            ramp: None,
            target: None,
        };
        for part in parts {
            let Some((key, value)) = part.split_once('=') else {
                return Err(FaultSyntaxError::Part(part.to_owned()));
            };
            if given.contains(&key) {
                return Err(FaultSyntaxError::Twice(key.to_owned()));
            }
            given.push(key);
            match key {
                "at" => spec.at = duration(key, value)?,
                "for" => spec.lasts = positive(key, value)?,
                "ramp" => spec.ramp = Some(positive(key, value)?),
                "severity" => {
                    spec.severity = value
                        .parse()
                        .ok()
                        .filter(|s| is_severity(*s))
                        .ok_or_else(|| FaultSyntaxError::Severity(value.to_owned()))?;
                }
                "target" => spec.target = Some(value.to_owned()),
                _ => return Err(FaultSyntaxError::Key(key.to_owned())),
            }
        }
        check_target(kind, spec.target.as_deref())?;
        Ok(spec)
    }
}

impl FaultSpec {
    /// The fault at its place in time.
    pub fn starting(&self, fleet_start: Timestamp) -> FaultEvent {
        FaultEvent {
            node: self.node.clone(),
            kind: self.kind,
            from: after(fleet_start, self.at),
            lasts: self.lasts,
            severity: self.severity,
            ramp: self.ramp,
            target: self.target.clone(),
        }
    }
}

impl fmt::Display for FaultSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (node, kind, severity) = (&self.node, self.kind, self.severity);
        let (at, lasts) = (plain(self.at), plain(self.lasts));
        write!(f, "{node}:{kind}:at={at}:for={lasts}:severity={severity}")?;
        if let Some(ramp) = self.ramp {
            write!(f, ":ramp={}", plain(ramp))?;
        }
        if let Some(target) = &self.target {
            write!(f, ":target={target}")?;
        }
        Ok(())
    }
}

/// A duration as the syntax takes it: without spaces.
fn plain(duration: Duration) -> String {
    humantime::format_duration(duration)
        .to_string()
        .replace(' ', "")
}

fn duration(key: &str, value: &str) -> Result<Duration, FaultSyntaxError> {
    let duration = humantime::parse_duration(value).map_err(|_| FaultSyntaxError::Duration {
        key: key.to_owned(),
        value: value.to_owned(),
    })?;
    if duration > TIME_MAX {
        return Err(length(key, value));
    }
    Ok(duration)
}

fn positive(key: &str, value: &str) -> Result<Duration, FaultSyntaxError> {
    let duration = duration(key, value)?;
    if duration.is_zero() {
        return Err(length(key, value));
    }
    Ok(duration)
}

fn length(key: &str, value: &str) -> FaultSyntaxError {
    FaultSyntaxError::Length {
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

/// Above 0 and at most 1.
pub(super) fn is_severity(severity: f64) -> bool {
    severity > 0.0 && severity <= 1.0
}

fn check_target(kind: FaultKind, target: Option<&str>) -> Result<(), FaultSyntaxError> {
    match target {
        Some(target)
            if kind != FaultKind::LostCollector || Collector::of_name(target).is_none() =>
        {
            Err(FaultSyntaxError::Target(target.to_owned()))
        }
        _ => Ok(()),
    }
}

/// A fault at its place in time.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultEvent {
    /// Which Node.
    pub node: NodeName,
    /// What goes wrong.
    pub kind: FaultKind,
    /// When it begins.
    pub from: Timestamp,
    /// How long it lasts, recovery not included.
    pub lasts: Duration,
    /// How bad it gets, above 0 and at most 1.
    pub severity: f64,
    /// How long it takes to get that bad; `None`: as is usual for the kind.
    pub ramp: Option<Duration>,
    /// The collector that is lost; `None`: `diskstats`.
    pub target: Option<String>,
}

impl FaultEvent {
    /// When the cause ends; the Node then recovers.
    pub fn until(&self) -> Timestamp {
        after(self.from, self.lasts)
    }

    /// Checks what the types do not say.
    ///
    /// # Errors
    ///
    /// [`FaultSyntaxError`] for a severity, length or target that no text could have given either.
    pub fn check(&self) -> Result<(), FaultSyntaxError> {
        if !is_severity(self.severity) {
            return Err(FaultSyntaxError::Severity(self.severity.to_string()));
        }
        for (key, value) in [("for", Some(self.lasts)), ("ramp", self.ramp)] {
            if let Some(value) = value
                && (value.is_zero() || value > TIME_MAX)
            {
                return Err(length(key, &plain(value)));
            }
        }
        check_target(self.kind, self.target.as_deref())
    }

    /// The collector that this fault takes away.
    pub(super) fn collector(&self) -> Collector {
        self.target
            .as_deref()
            .and_then(Collector::of_name)
            .unwrap_or(Collector::Diskstats)
    }

    /// How far it has come at a time.
    pub(super) fn level(&self, at_ms: i64) -> Level {
        let since = (at_ms - self.from.as_millisecond()) as f64 / 1000.0;
        if since < 0.0 {
            return Level::NONE;
        }
        let lasts = self.lasts.as_secs_f64();
        // A repaired part does not ramp down for hours: recovery takes at most a minute here, the
        // rest is inertia of what it had filled, heated or queued.
        if since >= lasts + 60.0 {
            return Level::NONE;
        }
        let ramp = self
            .ramp
            .map_or_else(|| self.kind.usual_ramp(lasts), |ramp| ramp.as_secs_f64());
        let rise = |since: f64| {
            if ramp <= 0.0 {
                1.0
            } else if matches!(
                self.kind,
                FaultKind::MemoryLeak | FaultKind::FillingFilesystem
            ) {
                (since / ramp).min(1.0)
            } else {
                smoothstep(since / ramp)
            }
        };
        let progress = if since < lasts {
            rise(since)
        } else {
            let fall = ramp.min(60.0);
            let gone = since - lasts;
            if gone >= fall {
                0.0
            } else {
                rise(lasts) * (1.0 - smoothstep(gone / fall))
            }
        };
        Level {
            progress,
            severity: self.severity,
        }
    }
}

/// How far a fault has come, and how bad it will get.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Level {
    /// From 0 to 1.
    pub(super) progress: f64,
    /// From 0 to 1.
    pub(super) severity: f64,
}

impl Level {
    pub(super) const NONE: Self = Self {
        progress: 0.0,
        severity: 0.0,
    };

    pub(super) fn value(self) -> f64 {
        self.progress * self.severity
    }

    pub(super) fn worse(self, other: Self) -> Self {
        if other.value() > self.value() {
            other
        } else {
            self
        }
    }
}

/// A time and a duration after it, at the end of time when beyond.
pub(super) fn after(at: Timestamp, duration: Duration) -> Timestamp {
    SignedDuration::try_from(duration)
        .ok()
        .and_then(|duration| at.checked_add(duration).ok())
        .unwrap_or(Timestamp::MAX)
}

/// A time from milliseconds since 1970, at the ends of what can be represented when beyond.
pub(super) fn from_ms(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(if ms < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<FaultSpec, FaultSyntaxError> {
        text.parse()
    }

    #[test]
    fn a_fault_is_read_as_it_is_written() {
        let spec = parse("worker-03:slow-disk:at=60s:for=5m:severity=0.8").unwrap();
        assert_eq!(spec.node.as_str(), "worker-03");
        assert_eq!(spec.kind, FaultKind::SlowDisk);
        assert_eq!(spec.at, Duration::from_secs(60));
        assert_eq!(spec.lasts, Duration::from_secs(300));
        assert_eq!(spec.severity, 0.8);
        assert_eq!(parse(&spec.to_string()).unwrap(), spec);
        let lost = parse("a:lost-collector:for=1h:ramp=2m:target=pressure").unwrap();
        assert_eq!(parse(&lost.to_string()).unwrap(), lost);
        for kind in FaultKind::ALL {
            assert_eq!(parse(&format!("a:{kind}")).unwrap().kind, kind);
        }
    }

    #[test]
    fn what_cannot_be_a_fault_is_refused_by_name() {
        for (text, message) in [
            ("", "is no fault"),
            ("worker-03", "is no fault"),
            (":slow-disk", "is no fault"),
            ("worker-03:at=5s", "is no fault"),
            ("worker-03:slow", "`slow` is no kind of fault"),
            ("w:slow-disk:soon", "`soon` is not key=value"),
            ("w:slow-disk:when=5s", "`when` is no key"),
            ("w:slow-disk:at=5s:at=6s", "`at` is given twice"),
            ("w:slow-disk:at=five", "not a duration"),
            ("w:slow-disk:for=0s", "above zero"),
            ("w:slow-disk:for=9000d", "at most 366 days"),
            ("w:slow-disk:ramp=0s", "above zero"),
            ("w:slow-disk:severity=1.2", "above 0 and at most 1"),
            ("w:slow-disk:severity=0", "above 0 and at most 1"),
            ("w:slow-disk:severity=NaN", "above 0 and at most 1"),
            ("w:slow-disk:severity=bad", "above 0 and at most 1"),
            ("w:slow-disk:target=sda", "only lost-collector has a target"),
            ("w:lost-collector:target=disks", "must be a collector"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn a_fault_ramps_up_stays_and_goes() {
        let event = parse("w:slow-disk:at=60s:for=5m:severity=0.8")
            .unwrap()
            .starting(Timestamp::UNIX_EPOCH);
        let level = |second: i64| event.level(second * 1000).value();
        assert_eq!(level(59), 0.0);
        assert!(level(61) < 0.01, "no jump");
        assert!((0.3..0.5).contains(&level(105)), "half way: {}", level(105));
        assert_eq!(level(200), 0.8);
        assert_eq!(level(359), 0.8);
        assert!(level(380) < 0.8 && level(380) > 0.0);
        assert_eq!(level(430), 0.0);
    }
}
