//! One simulated Node: its state, and what one tick does to it.
//!
//! The parts hold together because each number is derived from the ones before it: work asks for
//! CPU, memory, disk and network; what the parts can give decides queue lengths; queue lengths
//! decide waiting times, blocked processes, load and pressure. `docs/fleet.md` lists the equations.

mod physics;
mod surface;

use std::collections::VecDeque;

use foreshock_core::node::NodeName;

use super::collector::Collector;
use super::counters::{Counters, Gauges};
use super::fault::{FaultEvent, FaultKind, Level, from_ms};
use super::hardware::{Hardware, Sensors};
use super::random::{Pace, Random};
use super::truth::{Condition, Incident, IncidentKind};
use super::workload::Workload;

/// Slow random walks of deviation 1.
#[derive(Clone, Debug, Default)]
struct Waves {
    work: f64,
    disk: f64,
    network: f64,
    memory: f64,
    heat: f64,
    files: f64,
    scrape: f64,
    round_trip: f64,
    load: f64,
}

/// How far each degrading fault has come.
struct Levels {
    leak: Level,
    disk: f64,
    loss: f64,
    heat: f64,
    starved: f64,
    fill: Level,
    reboot: Level,
    lost: u32,
    vanished: bool,
}

/// What one tick finds out, part by part; each part uses what the parts before it found.
#[derive(Default)]
struct Strain {
    /// How much of its usual work the Node does.
    activity: f64,
    /// Share of packets lost.
    loss: f64,
    /// How hard the kernel reclaims memory, 0 to 1.
    reclaim: f64,
    /// Processes that wait for a disk.
    blocked: f64,
    /// Share of time in which all that would run waits for a disk.
    stalled: f64,
    /// Seconds that the slowest disk takes for a request.
    wait: f64,
    /// Packets per second.
    packets: f64,
    /// Share of its speed that the CPU loses to heat.
    throttled: f64,
    /// Threads that want to run per core that is there for them.
    crowding: f64,
    /// Share of time stolen.
    steal: f64,
}

/// A simulated Node.
#[derive(Clone, Debug)]
pub(super) struct SimulatedNode {
    pub(super) name: NodeName,
    pub(super) hardware: Hardware,
    pub(super) work: Workload,
    pub(super) faults: Vec<FaultEvent>,
    pub(super) counters: Counters,
    pub(super) gauges: Gauges,
    pub(super) boot_ms: i64,
    /// Set while the machine is off.
    pub(super) down_until_ms: Option<i64>,
    /// Bits of collectors that fail now.
    pub(super) failing: u32,
    pub(super) exporter_vanished: bool,
    /// Container restarts since the Node exists; survives reboots, as the API server keeps it.
    pub(super) restarts: f64,
    pub(super) pods_max: u32,
    pub(super) incidents: Vec<Incident>,
    random: Random,
    waves: Waves,
    load: f64,
    load_wanted: f64,
    pods_wanted: Option<u32>,
    bursting: bool,
    burst: f64,
    burst_ends_ms: i64,
    artifacts: f64,
    leaked: f64,
    relief: f64,
    filled: f64,
    cache: f64,
    swap_used: f64,
    temperature: f64,
    wanted_threads: f64,
    core_weights: Vec<f64>,
    hot_core: usize,
    write_factor: f64,
    tolerance: f64,
    clock_scale: f64,
    correctable_per_day: f64,
    next_reboot_ms: Option<i64>,
    boots: VecDeque<i64>,
    last_oom_ms: i64,
    condition: Condition,
}

/// A machine that runs this long has filled its page cache.
const WARM_SECONDS: f64 = 3600.0;

impl SimulatedNode {
    /// A healthy Node that has been up for a while when the fleet starts.
    pub(super) fn new(name: NodeName, index: usize, seed: u64, start_ms: i64, hot: bool) -> Self {
        let mut random = Random::new(seed, index as u64);
        let hardware = Hardware::draw(&mut random, hot);
        let work = Workload::draw(&mut random, &hardware);
        let bursting = random.chance(work.burst_on / (work.burst_on + work.burst_off))
            && (work.cpu_burst > 0.0 || work.writes_burst > 0.0);
        let uptime = if random.chance(0.12) {
            random.log_range(60.0, 3600.0)
        } else {
            random.log_range(3600.0, 200.0 * 86_400.0)
        };
        let burst_left = random.exponential(if bursting {
            work.burst_on
        } else {
            work.burst_off
        });
        let mut weights: Vec<f64> = (0..hardware.cores)
            .map(|_| random.range(0.85, 1.15))
            .collect();
        let mean = weights.iter().sum::<f64>() / hardware.cores as f64;
        weights.iter_mut().for_each(|weight| *weight /= mean);
        let mut node = Self {
            counters: Counters::zero(&hardware),
            gauges: Gauges {
                filesystems: vec![(0.0, 0.0); hardware.filesystems.len()],
                in_flight: vec![0.0; hardware.disks.len()],
                ..Gauges::default()
            },
            boot_ms: start_ms - (uptime * 1000.0) as i64,
            down_until_ms: None,
            failing: hardware.absent,
            exporter_vanished: false,
            restarts: random.whole(0, 12) as f64,
            pods_max: random.pick(&[110, 110, 110, 110, 58, 29, 250]),
            incidents: Vec::new(),
            waves: Waves {
                work: random.normal(),
                disk: random.normal(),
                network: random.normal(),
                memory: random.normal(),
                heat: random.normal(),
                files: random.normal(),
                scrape: random.normal(),
                round_trip: random.normal(),
                load: random.normal(),
            },
            load: 1.0,
            load_wanted: 1.0,
            pods_wanted: None,
            bursting,
            burst: f64::from(u8::from(bursting)),
            burst_ends_ms: start_ms + (burst_left * 1000.0) as i64,
            artifacts: 0.0,
            leaked: 0.0,
            relief: 0.0,
            filled: 0.0,
            cache: hardware.memory * 0.3 * (uptime / WARM_SECONDS).min(1.0),
            swap_used: hardware.swap * random.range(0.0, 0.05),
            temperature: work.ambient + 0.3 * work.heat,
            wanted_threads: 0.1,
            core_weights: weights,
            hot_core: random.whole(0, hardware.cores as u64 - 1) as usize,
            write_factor: if random.chance(0.25) {
                random.log_range(1.0, 8.0)
            } else {
                random.range(0.5, 1.2)
            },
            tolerance: random.range(0.85, 1.2),
            clock_scale: if random.chance(0.1) {
                random.log_range(6e-4, 2e-2)
            } else {
                random.log_range(1e-6, 6e-4)
            },
            correctable_per_day: if random.chance(0.1) {
                random.log_range(0.3, 20.0)
            } else {
                0.0
            },
            next_reboot_ms: None,
            boots: VecDeque::new(),
            last_oom_ms: i64::MIN / 2,
            condition: Condition::default(),
            faults: Vec::new(),
            name,
            hardware,
            work,
            random,
        };
        node.settle(start_ms, uptime);
        node
    }

    /// Lets the Node run for a while before the fleet starts, then counts that as its whole uptime.
    fn settle(&mut self, start_ms: i64, uptime: f64) {
        const TICKS: i64 = 24;
        let pace = Pace::new(30.0);
        for tick in (0..TICKS).rev() {
            self.tick(start_ms - tick * 30_000, &pace);
        }
        let scale = uptime / (30.0 * TICKS as f64);
        self.counters.scale(scale);
        self.incidents.clear();
        self.condition = Condition::default();
    }

    /// The share of its usual work that a Node does; 0 is a Node whose Pods are all gone.
    pub(super) fn set_load(&mut self, share: f64) {
        self.load_wanted = share.clamp(0.0, 4.0);
    }

    pub(super) fn set_pods(&mut self, pods: u32) {
        self.pods_wanted = Some(pods);
        self.gauges.pods = pods;
    }

    pub(super) fn is_up(&self) -> bool {
        self.down_until_ms.is_none()
    }

    /// Whether a scrape gets an answer.
    pub(super) fn answers(&self) -> bool {
        self.is_up() && !self.exporter_vanished
    }

    pub(super) fn shows(&self, collector: Collector) -> bool {
        self.failing & collector.bit() == 0
    }

    pub(super) fn incident(&self) -> Option<&Incident> {
        self.incidents
            .last()
            .filter(|incident| incident.until.is_none())
    }

    /// Critical temperature in °C, whether or not a sensor tells it.
    pub(super) fn critical(&self) -> f64 {
        match self.hardware.sensors {
            Sensors::HwmonCritical(critical) => critical,
            Sensors::HwmonPlain | Sensors::ThermalZone | Sensors::None => 100.0,
        }
    }

    /// Moves the Node to `at_ms`, one tick after where it was.
    pub(super) fn tick(&mut self, at_ms: i64, pace: &Pace) {
        let levels = self.levels(at_ms);
        self.exporter_vanished = levels.vanished;
        self.failing = self.hardware.absent | levels.lost;
        self.wander(pace);
        if !self.stays_up(at_ms, &levels, pace) {
            self.judge(at_ms, None);
            return;
        }
        let mut now = Strain {
            activity: self.activity(at_ms, pace),
            loss: physics::loss_share(levels.loss),
            ..Strain::default()
        };
        self.memory_tick(at_ms, &levels, &mut now, pace);
        self.disk_tick(&levels, &mut now, pace);
        self.network_tick(&levels, &mut now, pace);
        self.heat_tick(&levels, &mut now, pace);
        self.cpu_tick(&levels, &mut now, pace);
        self.filesystem_tick(&levels, pace);
        self.kernel_tick(&now, pace);
        self.outside_tick(&levels, &now, pace);
        self.judge(at_ms, Some(&now));
    }

    fn levels(&self, at_ms: i64) -> Levels {
        let mut levels = Levels {
            leak: Level::NONE,
            disk: 0.0,
            loss: 0.0,
            heat: 0.0,
            starved: 0.0,
            fill: Level::NONE,
            reboot: Level::NONE,
            lost: 0,
            vanished: false,
        };
        for fault in &self.faults {
            let level = fault.level(at_ms);
            let value = level.value();
            if value <= 0.0 {
                continue;
            }
            match fault.kind {
                FaultKind::MemoryLeak => levels.leak = levels.leak.worse(level),
                FaultKind::SlowDisk => levels.disk = levels.disk.max(value),
                FaultKind::PacketLoss => levels.loss = levels.loss.max(value),
                FaultKind::Overheating => levels.heat = levels.heat.max(value),
                FaultKind::CpuStarvation => levels.starved = levels.starved.max(value),
                FaultKind::FillingFilesystem => levels.fill = levels.fill.worse(level),
                FaultKind::RebootLoop => levels.reboot = levels.reboot.worse(level),
                FaultKind::LostCollector => levels.lost |= fault.collector().bit(),
                FaultKind::VanishedExporter => levels.vanished = true,
            }
        }
        levels
    }

    fn wander(&mut self, pace: &Pace) {
        let random = &mut self.random;
        let waves = &mut self.waves;
        waves.work = pace.m5.wander(waves.work, random);
        waves.disk = pace.m1.wander(waves.disk, random);
        waves.network = pace.m1.wander(waves.network, random);
        waves.memory = pace.h1.wander(waves.memory, random);
        waves.heat = pace.m5.wander(waves.heat, random);
        waves.files = pace.h6.wander(waves.files, random);
        waves.scrape = pace.s30.wander(waves.scrape, random);
        waves.round_trip = pace.s30.wander(waves.round_trip, random);
        waves.load = pace.m1.wander(waves.load, random);
    }

    /// Reboots when the fault says so; false while the machine is off.
    fn stays_up(&mut self, at_ms: i64, levels: &Levels, pace: &Pace) -> bool {
        if let Some(until) = self.down_until_ms {
            if at_ms < until {
                self.gauges.probe_back = false;
                return false;
            }
            self.boot(at_ms);
        }
        if levels.reboot.progress <= 0.0 {
            self.next_reboot_ms = None;
            return true;
        }
        // From one reboot in half an hour to one in two minutes.
        let severity = levels.reboot.severity;
        let period = 1800.0 - (1800.0 - 110.0) * severity.min(1.0);
        match self.next_reboot_ms {
            None => {
                let first = period * self.random.range(0.1, 0.4);
                self.next_reboot_ms = Some(at_ms + (first * 1000.0) as i64);
                true
            }
            Some(next) if at_ms >= next => {
                let off = self.random.range(20.0, 45.0).max(pace.tick);
                self.down_until_ms = Some(at_ms + (off * 1000.0) as i64);
                let pause = off + period * self.random.range(0.8, 1.2);
                self.next_reboot_ms = Some(at_ms + (pause * 1000.0) as i64);
                self.gauges.probe_back = false;
                false
            }
            Some(_) => true,
        }
    }

    fn boot(&mut self, at_ms: i64) {
        self.down_until_ms = None;
        self.boot_ms = at_ms;
        self.counters = Counters::zero(&self.hardware);
        self.cache = 0.02 * self.hardware.memory;
        self.leaked = 0.0;
        self.relief = 0.0;
        self.swap_used = 0.0;
        self.burst = 0.0;
        (self.gauges.load1, self.gauges.load5, self.gauges.load15) = (0.0, 0.0, 0.0);
        // Every container starts again.
        self.restarts += f64::from(self.gauges.pods);
        self.boots.push_back(at_ms);
        if self.boots.len() > 32 {
            self.boots.pop_front();
        }
    }

    /// How much of its usual work the Node does now.
    fn activity(&mut self, at_ms: i64, pace: &Pace) -> f64 {
        self.load = pace.s10.towards(self.load, self.load_wanted);
        if at_ms >= self.burst_ends_ms && self.work.cpu_burst > 0.0 {
            self.bursting = !self.bursting;
            let mean = if self.bursting {
                self.work.burst_on
            } else {
                self.work.burst_off
            };
            let lasts = self.random.exponential(mean).max(20.0);
            self.burst_ends_ms = at_ms + (lasts * 1000.0) as i64;
        }
        let wanted = if self.bursting {
            self.load.min(1.2)
        } else {
            0.0
        };
        self.burst = pace.s10.towards(self.burst, wanted);
        let day = (at_ms.rem_euclid(86_400_000)) as f64 / 86_400_000.0;
        let wave =
            1.0 + self.work.diurnal * libm::sin(day * std::f64::consts::TAU + self.work.phase);
        // A machine that has just booted starts everything at once.
        let young = (at_ms - self.boot_ms) as f64 / 1000.0;
        let starting = if young < 90.0 {
            0.6 * (1.0 - young / 90.0)
        } else {
            0.0
        };
        self.load * (wave * (1.0 + self.work.restless * self.waves.work)).max(0.03) + starting
    }

    /// Decides whether an incident is on, from the true state and never from the metrics.
    fn judge(&mut self, at_ms: i64, state: Option<&Strain>) {
        let tolerance = self.tolerance;
        let boots = self
            .boots
            .iter()
            .filter(|boot| at_ms - **boot < 1_800_000)
            .count();
        let kind = if boots >= 2 {
            Some(IncidentKind::RebootLoop)
        } else if let Some(now) = state {
            let filesystem = &self.hardware.filesystems[0];
            let free = self.gauges.filesystems[0].0 / filesystem.size;
            if now.reclaim > 0.25 * tolerance || at_ms - self.last_oom_ms < 120_000 {
                Some(IncidentKind::MemoryExhausted)
            } else if now.wait > 0.12 * tolerance && now.blocked > 0.25 {
                Some(IncidentKind::IoStall)
            } else if now.loss > 0.025 * tolerance {
                Some(IncidentKind::PacketLoss)
            } else if now.throttled > 0.25 * tolerance {
                Some(IncidentKind::Overheated)
            } else if now.crowding > 7.0 * tolerance || now.steal > 0.4 * tolerance {
                Some(IncidentKind::CpuStarved)
            } else if free < 0.03 * tolerance {
                Some(IncidentKind::FilesystemFull)
            } else {
                None
            }
        } else {
            // Off: whatever was wrong is not over.
            self.incident().map(|incident| incident.kind)
        };
        match self.condition.step(kind, at_ms) {
            None => {}
            Some((_, None)) => {
                if let Some(open) = self.incidents.last_mut() {
                    open.until.get_or_insert(from_ms(at_ms));
                }
            }
            Some((from, Some(kind))) => self.incidents.push(Incident {
                kind,
                from: from_ms(from),
                until: None,
            }),
        }
    }
}
