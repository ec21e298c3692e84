//! What a simulated Node does all day: drawn once from the seed.
//!
//! Every profile is healthy. Batch and compiler Nodes run at 100 % CPU with a load of up to four
//! per core for hours, caches hold 92 % of memory, databases keep their disks busy all the time.

use super::hardware::{Hardware, Machine, Sensors};
use super::random::Random;

/// Kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Next to nothing.
    Idle,
    /// Requests that follow the day.
    Web,
    /// Every core busy for hours, then nothing.
    Batch,
    /// Disks busy, memory full of cache.
    Database,
    /// Memory nearly full, little else.
    Cache,
    /// Compilers and tests: bursts of everything.
    Ci,
    /// Many packets: gateways, proxies, streaming.
    Network,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Self; 7] = [
        Self::Idle,
        Self::Web,
        Self::Batch,
        Self::Database,
        Self::Cache,
        Self::Ci,
        Self::Network,
    ];

    /// The name in the index of a served fleet.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Web => "web",
            Self::Batch => "batch",
            Self::Database => "database",
            Self::Cache => "cache",
            Self::Ci => "ci",
            Self::Network => "network",
        }
    }
}

/// The most of memory that healthy work uses: above, a kernel begins to reclaim in earnest.
const MEMORY_MAX: f64 = 0.925;

/// Numbers of one Node's work at usual load.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    pub(super) profile: Profile,
    /// Height of the daily wave, 0 to 1, and its phase in radians.
    pub(super) diurnal: f64,
    pub(super) phase: f64,
    /// Height of the irregular waves on top of it.
    pub(super) restless: f64,
    /// Runnable threads per core: always, with the work, and in a burst.
    pub(super) cpu_base: f64,
    pub(super) cpu_work: f64,
    pub(super) cpu_burst: f64,
    /// Share of one core that a single busy thread takes besides.
    pub(super) hot: f64,
    /// Share of CPU time that is system, and of the rest that is nice.
    pub(super) system: f64,
    pub(super) nice: f64,
    /// Mean seconds of a burst and of the time between two.
    pub(super) burst_on: f64,
    pub(super) burst_off: f64,
    /// Shares of memory.
    pub(super) memory_base: f64,
    pub(super) memory_work: f64,
    pub(super) memory_burst: f64,
    /// Share of unused memory that becomes page cache.
    pub(super) cache: f64,
    /// Committed memory as a multiple of used memory.
    pub(super) commit: f64,
    /// Requests per second to all disks: reads and writes with the work, and writes in a burst.
    pub(super) reads: f64,
    pub(super) writes: f64,
    pub(super) writes_burst: f64,
    /// Bytes per request.
    pub(super) request: f64,
    /// Share of requests that a process waits for.
    pub(super) synchronous: f64,
    /// Share of the first filesystem that bursts fill and empty again.
    pub(super) artifacts: f64,
    /// Bytes per second received and sent, bytes per packet, packets per second of background.
    pub(super) received: f64,
    pub(super) sent: f64,
    pub(super) packet: f64,
    pub(super) chatter: f64,
    /// Segments sent again and packets broken, as shares.
    pub(super) retransmitted: f64,
    pub(super) broken: f64,
    /// Packets dropped per second whatever the traffic: unknown protocols, as many LANs have them.
    pub(super) strange: f64,
    /// Context switches per second and busy core.
    pub(super) switches: f64,
    /// Major page faults per second.
    pub(super) faults: f64,
    /// Share of connection tracking in use.
    pub(super) conntrack: f64,
    /// Share of time stolen from a healthy VM.
    pub(super) steal: f64,
    /// Degrees above ambient at full load, and ambient, °C.
    pub(super) heat: f64,
    pub(super) ambient: f64,
    /// Seconds of a healthy scrape, round trip and Pod relist.
    pub(super) scrape: f64,
    pub(super) round_trip: f64,
    pub(super) relist: f64,
    /// Pods at usual load.
    pub(super) pods: u32,
    pub(super) quirks: Quirks,
}

/// What looks like a fault and is none: most healthy machines have one or two of these, and a model
/// must have seen them.
#[derive(Clone, Debug, Default)]
pub(super) struct Quirks {
    /// Segments sent again per second whatever the traffic: on an idle machine a large share.
    pub(super) retransmits: f64,
    /// Share of probes that a healthy network loses.
    pub(super) probes_lost: f64,
    /// Containers killed at their own memory limit, per hour.
    pub(super) ooms: f64,
    /// Containers that crash and are started again, per hour.
    pub(super) crashes: f64,
    /// Share of time in which some container at its memory limit stalls all that runs.
    pub(super) stalled: f64,
    /// Pages per second swapped out and in for no pressing reason.
    pub(super) swapping: f64,
    /// Throttling events per second and core at full load: a power limit, not heat.
    pub(super) throttles: f64,
    /// Connections per second that a badly set up server cannot accept.
    pub(super) overflows: f64,
    /// Packets per second that the kernel drops because its queue is short.
    pub(super) softnet: f64,
    /// How much longer a scrape takes when the CPU is crowded.
    pub(super) strain: f64,
}

impl Quirks {
    fn draw(random: &mut Random, hardware: &Hardware) -> Self {
        let mut sometimes = |probability: f64, low: f64, high: f64| {
            let value = random.log_range(low, high);
            if random.chance(probability) {
                value
            } else {
                0.0
            }
        };
        let metal = hardware.machine == Machine::Metal;
        Self {
            retransmits: sometimes(0.3, 1e-3, 0.03),
            probes_lost: sometimes(0.5, 1e-5, 5e-3),
            ooms: sometimes(0.12, 0.05, 6.0),
            crashes: sometimes(0.15, 0.1, 12.0),
            stalled: sometimes(0.15, 1e-4, 0.04),
            swapping: sometimes(0.5, 0.1, 300.0),
            throttles: sometimes(if metal { 0.2 } else { 0.0 }, 1e-3, 3.0),
            overflows: sometimes(0.06, 0.01, 1.0),
            softnet: sometimes(0.06, 0.01, 2.0),
            strain: sometimes(0.8, 0.1, 4.0),
        }
    }
}

impl Workload {
    pub(super) fn draw(random: &mut Random, hardware: &Hardware) -> Self {
        let profile = match random.unit() {
            x if x < 0.16 => Profile::Idle,
            x if x < 0.36 => Profile::Web,
            x if x < 0.48 => Profile::Batch,
            x if x < 0.61 => Profile::Database,
            x if x < 0.71 => Profile::Cache,
            x if x < 0.87 => Profile::Ci,
            _ => Profile::Network,
        };
        let disk = hardware.disks[0].iops_max();
        let mut work = Self::common(random, hardware, profile);
        match profile {
            Profile::Idle => {
                work.cpu_base = random.log_range(0.002, 0.03);
                work.cpu_work = random.range(0.0, 0.02);
                work.memory_base = random.range(0.04, 0.35);
                work.memory_work = random.range(0.0, 0.03);
                work.reads = random.range(0.0, 0.3);
                work.writes = random.log_range(0.3, 5.0);
                work.received = random.log_range(200.0, 2e4);
                work.sent = random.log_range(200.0, 2e4);
            }
            Profile::Web => {
                work.diurnal = random.range(0.2, 0.75);
                work.cpu_work = random.range(0.04, 0.45);
                work.memory_base = random.range(0.15, 0.55);
                work.memory_work = random.range(0.02, 0.2);
                work.received = random.log_range(5e4, 2e7);
                work.sent = random.log_range(5e4, 5e7);
            }
            Profile::Batch => {
                work.cpu_burst = crowd(random, 0.9);
                work.burst_on = random.log_range(3600.0, 12.0 * 3600.0);
                work.burst_off = random.log_range(600.0, 4.0 * 3600.0);
                work.memory_base = random.range(0.08, 0.35);
                work.memory_burst = random.range(0.05, 0.45);
                work.nice = if random.chance(0.4) {
                    random.range(0.1, 0.9)
                } else {
                    0.0
                };
                work.writes_burst = (disk * random.log_range(0.005, 0.2)).min(3000.0);
            }
            Profile::Database => {
                work.cpu_work = random.range(0.08, 0.5);
                work.memory_base = random.range(0.4, 0.8);
                work.memory_work = random.range(0.0, 0.08);
                work.cache = random.range(0.8, 0.97);
                let share = random.log_range(0.05, 0.62);
                let reads = random.range(0.2, 0.8);
                work.reads = (disk * share * reads).min(20_000.0);
                work.writes = (disk * share * (1.0 - reads)).min(15_000.0);
                work.synchronous = random.range(0.05, 0.3);
                work.request = random.pick(&[8192.0, 16_384.0]);
                work.diurnal = random.range(0.0, 0.5);
            }
            Profile::Cache => {
                work.cpu_work = random.range(0.02, 0.3);
                work.memory_base = random.range(0.72, 0.9);
                work.memory_work = random.range(0.0, 0.03);
                work.received = random.log_range(1e5, 3e7);
                work.sent = random.log_range(1e5, 1e8);
                work.packet = random.range(150.0, 600.0);
            }
            Profile::Ci => {
                work.cpu_burst = crowd(random, 0.7);
                work.burst_on = random.log_range(120.0, 2400.0);
                work.burst_off = random.log_range(120.0, 3600.0);
                work.memory_base = random.range(0.08, 0.4);
                work.memory_burst = random.range(0.05, 0.42);
                work.writes_burst = (disk * random.log_range(0.02, 0.5)).min(8000.0);
                work.artifacts = random.range(0.002, 0.06);
                work.faults = random.log_range(0.2, 60.0);
                work.switches = random.log_range(1500.0, 12_000.0);
                work.system = random.range(0.1, 0.4);
            }
            Profile::Network => {
                work.cpu_work = random.range(0.05, 0.4);
                work.received = random.log_range(2e6, 3e8);
                work.sent = random.log_range(2e6, 3e8);
                work.packet = random.range(200.0, 1300.0);
                work.retransmitted = random.log_range(1e-6, 3e-3);
                work.conntrack = random.range(0.05, 0.6);
                work.memory_base = random.range(0.1, 0.5);
                work.system = random.range(0.3, 0.6);
            }
        }
        let room = MEMORY_MAX - work.memory_base - 1.6 * work.memory_work;
        work.memory_burst = work.memory_burst.min(room).max(0.0);
        work
    }

    /// What no profile changes, or only some do.
    fn common(random: &mut Random, hardware: &Hardware, profile: Profile) -> Self {
        let hot_room = match hardware.sensors {
            Sensors::HwmonCritical(critical) => {
                critical * if random.chance(0.1) { 0.94 } else { 0.86 }
            }
            Sensors::HwmonPlain | Sensors::ThermalZone | Sensors::None => 84.0,
        };
        let ambient = random.range(24.0, 42.0);
        let slow_exporter = if random.chance(0.15) {
            random.range(0.02, 0.1)
        } else {
            0.0
        };
        Self {
            profile,
            diurnal: random.range(0.0, 0.3),
            phase: random.range(0.0, std::f64::consts::TAU),
            restless: random.range(0.05, 0.25),
            cpu_base: random.log_range(0.004, 0.05),
            cpu_work: random.range(0.0, 0.05),
            cpu_burst: 0.0,
            hot: if random.chance(0.2) {
                random.range(0.1, 0.95)
            } else {
                0.0
            },
            system: random.range(0.08, 0.35),
            nice: if random.chance(0.2) {
                random.range(0.0, 0.05)
            } else {
                0.0
            },
            burst_on: 300.0,
            burst_off: 3600.0,
            memory_base: 0.2,
            memory_work: 0.05,
            memory_burst: 0.0,
            cache: random.range(0.3, 0.95),
            commit: random.log_range(0.4, 4.0),
            reads: random.log_range(0.05, 8.0),
            writes: random
                .log_range(0.8, 40.0)
                .min(0.2 * hardware.disks[0].iops_max()),
            writes_burst: 0.0,
            request: random.log_range(6e3, 1e5),
            synchronous: random.range(0.1, 0.6),
            artifacts: random.range(0.0, 0.001),
            received: random.log_range(1e3, 1e6),
            sent: random.log_range(1e3, 1e6),
            packet: random.range(120.0, 1100.0),
            chatter: random.log_range(0.5, 30.0),
            retransmitted: random.log_range(1e-6, 1e-3),
            broken: if random.chance(0.04) {
                random.log_range(1e-5, 3e-4)
            } else {
                random.log_range(1e-9, 1e-6)
            },
            strange: if random.chance(0.25) {
                random.log_range(0.01, 1.0)
            } else {
                0.0
            },
            switches: random.log_range(800.0, 8000.0),
            faults: random.log_range(0.005, 3.0),
            conntrack: random.log_range(0.0005, 0.2),
            steal: if hardware.machine == Machine::Vm && random.chance(0.5) {
                random.log_range(1e-4, 0.1)
            } else {
                0.0
            },
            // Some machines run hot by design; a few pass 0.9 of their critical temperature.
            heat: random.range(0.35, 1.0) * (hot_room - ambient),
            ambient,
            scrape: 0.006 + hardware.cores as f64 * random.range(0.000_4, 0.001_2) + slow_exporter,
            round_trip: random.log_range(0.000_15, 0.012),
            relist: random.log_range(0.003, 0.03),
            pods: random.whole(3, 60) as u32,
            quirks: Quirks::draw(random, hardware),
        }
    }
}

/// Threads per core of work that takes all it can get: as many as there are cores, or a few times
/// that, as builds and tests that do not count cores start.
fn crowd(random: &mut Random, least: f64) -> f64 {
    if random.chance(0.8) {
        random.range(least, 3.0)
    } else {
        random.range(3.0, 4.2)
    }
}
