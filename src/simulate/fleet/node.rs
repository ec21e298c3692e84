//! One simulated Node: its state, and what one tick does to it.
//!
//! The parts hold together because each number is derived from the ones before it: work asks for
//! CPU, memory, disk and network; what the parts can give decides queue lengths; queue lengths
//! decide waiting times, blocked processes, load and pressure. `docs/fleet.md` lists the equations.

use std::collections::VecDeque;

use foreshock_core::node::NodeName;

use super::collector::Collector;
use super::counters::{
    Counters, Gauges, IDLE, IOWAIT, IRQ, NICE, PLEG_BOUNDS, SOFTIRQ, STEAL, SYSTEM, USER,
};
use super::fault::{FaultEvent, FaultKind, Level, from_ms};
use super::hardware::{Hardware, Machine, Sensors, pages};
use super::random::{Pace, Random};
use super::truth::{Condition, Incident, IncidentKind};
use super::workload::{Profile, Workload};

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
        let activity = self.activity(at_ms, pace);
        let memory = self.memory_tick(at_ms, &levels, activity, pace);
        let (blocked, io_stalled, wait) = self.disk_tick(&levels, activity, memory, pace);
        let packets = self.network_tick(&levels, activity, pace);
        let throttled = self.heat_tick(&levels, pace);
        let crowding = self.cpu_tick(
            &levels, activity, memory, blocked, io_stalled, throttled, packets, pace,
        );
        self.filesystem_tick(&levels, pace);
        self.rest_tick(&levels, activity, memory, io_stalled, crowding, pace);
        let now = Truths {
            memory,
            wait,
            blocked,
            throttled,
            crowding: crowding.0,
            steal: crowding.1,
            loss: loss_share(levels.loss),
        };
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

    /// Memory; returns how hard the kernel reclaims, 0 to 1.
    fn memory_tick(&mut self, at_ms: i64, levels: &Levels, activity: f64, pace: &Pace) -> f64 {
        let total = self.hardware.memory;
        let work = &self.work;
        let resident = 0.25 + 0.75 * self.load.min(1.0);
        let usual = (work.memory_base * resident
            + work.memory_work * activity.min(1.6)
            + work.memory_burst * self.burst
            + 0.006 * self.waves.memory)
            .clamp(0.02, 0.93);
        // A leak of severity 0.55 or less ends before the machine is full; from 0.8 on it wants
        // more than there is.
        let target =
            levels.leak.progress * (1.05 - usual) * (0.35 + 0.82 * levels.leak.severity).min(1.08);
        self.leaked = if levels.leak.progress > 0.0 {
            target
        } else {
            pace.s30.towards(self.leaked, 0.0)
        };
        self.relief = pace.m1.towards(self.relief, 0.0);
        let swap = self.hardware.swap / total;
        let wanted = (usual + self.leaked - self.relief).max(0.02);
        // Reclaim begins at 95 % and is frantic at 100 %.
        let pressure = {
            let over = ((wanted - 0.95) / 0.05).clamp(0.0, 1.0);
            over * over
        };
        let beyond = wanted - 0.985 - swap;
        if beyond > 0.0 {
            let kills = self
                .random
                .events(pace.tick / 25.0 * (beyond / 0.02).clamp(0.3, 2.0));
            if kills > 0.0 {
                self.counters.machine.oom_kills += kills;
                self.restarts += kills;
                self.relief += self.random.range(0.04, 0.12) * kills.min(2.0);
                self.last_oom_ms = at_ms;
            }
        }
        let swap_wanted = ((wanted - 0.96).max(0.0) * total).min(self.hardware.swap);
        let swap_before = self.swap_used;
        self.swap_used = pace
            .s30
            .towards(self.swap_used, swap_wanted.max(self.swap_used * 0.999));
        if self.hardware.swap > 0.0 {
            let moved = (self.swap_used - swap_before).abs() / 4096.0;
            let usual = work.quirks.swapping * activity * (0.3 + self.burst);
            let churn = (pressure * 3000.0 + usual) * pace.tick;
            self.counters.machine.swapped_out += moved + churn;
            self.counters.machine.swapped_in += 0.8 * churn;
        }
        let used = wanted.min(0.99);
        let cache_wanted = (1.0 - used) * total * work.cache * (1.0 - 0.6 * pressure);
        let room = (1.0 - used) * total;
        self.cache = pace.m15.towards(self.cache, cache_wanted).min(0.98 * room);
        let gauges = &mut self.gauges;
        gauges.memory_used = pages(used * total);
        gauges.memory_cache = pages(self.cache);
        gauges.memory_free = total - gauges.memory_used - gauges.memory_cache;
        gauges.swap_used = pages(self.swap_used);
        gauges.committed = pages(total * (0.05 + used * work.commit));
        let counters = &mut self.counters.machine;
        let stalled = (0.75 * pressure + work.quirks.stalled * activity.min(1.5)).min(0.99);
        counters.psi_memory_stalled += stalled * pace.tick;
        counters.psi_memory_waiting += (1.3 * stalled).min(1.0) * pace.tick;
        let faulting = work.faults * (0.3 + activity + 2.0 * self.burst) + 2500.0 * pressure;
        counters.major_faults += faulting * pace.tick;
        counters.faults +=
            (faulting * 3.0 + 4000.0 * activity * self.hardware.cores as f64) * pace.tick;
        pressure
    }

    /// Disks; returns processes blocked, share of time that all stall, and the worst waiting time.
    fn disk_tick(
        &mut self,
        levels: &Levels,
        activity: f64,
        reclaim: f64,
        pace: &Pace,
    ) -> (f64, f64, f64) {
        let work = &self.work;
        let full = self.gauges.filesystems[0].0 < 0.015 * self.hardware.filesystems[0].size;
        let share = if self.hardware.disks.len() > 1 {
            0.5
        } else {
            1.0
        };
        let extra = slow_by(levels.disk);
        let sticky = (extra / 0.2).min(1.0);
        let synchronous = work.synchronous + (0.7 - work.synchronous).max(0.0) * sticky;
        let (mut blocked, mut worst) = (0.0, 0.0_f64);
        for (index, disk) in self.hardware.disks.iter().enumerate() {
            let first = index == 0;
            let mut reads = work.reads * activity * share;
            let mut writes =
                (work.writes * (0.2 + 0.8 * activity) + work.writes_burst * self.burst) * share;
            if full && first {
                writes *= 0.3;
            }
            // Healthy work is sized for the disk it runs on.
            let sized = (0.75 * disk.iops_max() / (reads + writes).max(1e-9)).min(1.0);
            reads *= sized;
            writes *= sized;
            if first {
                reads += 700.0 * reclaim;
            }
            let service = disk.service * (1.0 + 0.1 * self.waves.disk).max(0.5)
                + if first { extra } else { 0.0 };
            let limit = disk.parallel / service;
            let asked = (reads + writes).max(1e-9);
            let offered = asked / limit;
            let fourth = offered * offered * offered * offered;
            let done = asked / libm::sqrt(libm::sqrt(1.0 + fourth));
            let rho = done / limit;
            let wait = service * (1.0 + rho * rho * rho / (1.05 - rho.min(1.0)));
            let (read_rate, write_rate) = (reads / asked * done, writes / asked * done);
            let queue = read_rate * wait + write_rate * wait * self.write_factor;
            // A block layer queue of 64; what does not fit waits in the processes.
            let fit = (64.0 / queue.max(1e-12)).min(1.0);
            let (wait, queue) = (wait * fit, queue * fit);
            let busy = 1.0 - libm::exp(-queue);
            let counters = &mut self.counters.disks[index];
            let tick = pace.tick;
            counters.reads += read_rate * tick;
            counters.writes += write_rate * tick;
            counters.reads_merged += 0.05 * read_rate * tick;
            counters.writes_merged += 0.4 * write_rate * tick;
            counters.read_bytes += read_rate * work.request * tick;
            counters.written_bytes += write_rate * work.request * tick;
            counters.read_time += read_rate * wait * tick;
            counters.write_time += write_rate * wait * self.write_factor * tick;
            counters.io_time += busy * tick;
            counters.io_weighted += queue * tick;
            self.gauges.in_flight[index] = libm::round(queue);
            // Writes that are slow only because they are many and buffered block nobody.
            let felt = wait * (read_rate + write_rate * self.write_factor.min(1.2));
            blocked += felt * if first { synchronous } else { work.synchronous };
            worst = worst.max(wait);
        }
        let some = 1.0 - libm::exp(-blocked);
        let stalled = some * blocked / (blocked + 0.3 + 0.6 * self.wanted_threads);
        self.counters.machine.psi_io_waiting += some * pace.tick;
        self.counters.machine.psi_io_stalled += stalled * pace.tick;
        (blocked, stalled, worst)
    }

    /// Network; returns packets per second.
    fn network_tick(&mut self, levels: &Levels, activity: f64, pace: &Pace) -> f64 {
        let work = &self.work;
        let loss = loss_share(levels.loss);
        // TCP backs off.
        let flow = (activity * (1.0 + 0.2 * self.waves.network)).max(0.02)
            * (1.0 - (5.0 * loss).min(0.85));
        let received = work.received * flow + 80.0 * work.chatter;
        let sent = work.sent * flow + 80.0 * work.chatter;
        let rx = work.received * flow / work.packet + work.chatter;
        let tx = work.sent * flow / work.packet + work.chatter;
        let tick = pace.tick;
        let count = self.counters.interfaces.len();
        for (index, interface) in self.counters.interfaces.iter_mut().enumerate() {
            let share = match (count, index) {
                (1, _) => 1.0,
                (_, 0) => 0.9,
                _ => 0.1 / (count - 1) as f64,
            };
            interface.rx_bytes += received * share * tick;
            interface.tx_bytes += sent * share * tick;
            interface.rx_packets += rx * share * tick;
            interface.tx_packets += tx * share * tick;
            interface.rx_errors += rx * share * (work.broken + 0.3 * loss) * tick;
            interface.tx_errors += tx * share * (0.1 * work.broken + 0.02 * loss) * tick;
            interface.rx_drops += (rx * share * (work.broken + 0.6 * loss)
                + if index == 0 { work.strange } else { 0.0 })
                * tick;
            interface.tx_drops += tx * share * 0.1 * loss * tick;
        }
        if levels.loss > 0.7 {
            // A cable or a transceiver: now and then the link itself goes.
            let flaps = self.random.events((levels.loss - 0.7) * tick / 60.0);
            self.counters.interfaces[0].carrier_changes += 2.0 * flaps;
        }
        let counters = &mut self.counters.machine;
        let out = 0.95 * tx;
        let again = work.retransmitted * (1.0 + 0.5 * self.waves.network).max(0.1) + 1.05 * loss;
        counters.segments_out += out * tick;
        counters.segments_in += 0.95 * rx * tick;
        let chance = self.random.events(work.quirks.retransmits * tick);
        counters.segments_retransmitted += out * again.min(0.6) * tick + chance;
        counters.tcp_timeouts += out * (0.12 * work.retransmitted + 0.25 * loss) * tick
            + if chance > 0.0 && self.random.chance(0.4) {
                1.0
            } else {
                0.0
            };
        counters.tcp_active_opens += 0.01 * out * tick;
        counters.tcp_passive_opens += 0.012 * out * tick;
        counters.softnet_processed += rx * tick;
        rx + tx
    }

    /// Temperature; returns the share of its speed that the CPU loses to heat.
    fn heat_tick(&mut self, levels: &Levels, pace: &Pace) -> f64 {
        let critical = self.critical();
        let busy = (self.wanted_threads / self.hardware.cores as f64).min(1.0);
        let usual =
            self.work.ambient + self.work.heat * (0.15 + 0.85 * busy) + 0.8 * self.waves.heat;
        let target = usual + levels.heat * 1.15 * (critical + 8.0 - usual);
        self.temperature = pace
            .m1
            .towards(self.temperature, target)
            .min(critical + 6.0);
        self.gauges.temperature = libm::round(self.temperature * 10.0) / 10.0;
        let throttled = 0.7 * ((self.temperature - (critical - 3.0)) / 6.0).clamp(0.0, 1.0);
        if throttled > 0.0 && self.hardware.machine == Machine::Metal {
            self.counters.machine.throttles +=
                self.hardware.cores as f64 * 6.0 * throttled * pace.tick;
        }
        throttled
    }

    /// CPU; returns threads per available core, and steal.
    #[expect(
        clippy::too_many_arguments,
        reason = "the CPU is where everything meets"
    )]
    fn cpu_tick(
        &mut self,
        levels: &Levels,
        activity: f64,
        reclaim: f64,
        blocked: f64,
        io_stalled: f64,
        throttled: f64,
        packets: f64,
        pace: &Pace,
    ) -> (f64, f64) {
        let cores = self.hardware.cores as f64;
        let work = &self.work;
        let metal = self.hardware.machine == Machine::Metal;
        let starved = levels.starved;
        // Work that waits for a disk does not run.
        let runs = 1.0 - 0.6 * io_stalled;
        let threads = cores
            * ((work.cpu_base + work.cpu_work * activity + work.cpu_burst * self.burst) * runs
                + 0.5 * reclaim
                + 12.0 * starved * starved)
            + work.hot * self.load.min(1.0);
        let mut steal = work.steal * (1.0 + 0.4 * self.waves.load).max(0.0);
        let mut slowed = throttled;
        if metal {
            slowed = slowed.max(0.5 * starved);
        } else {
            steal += 0.75 * starved + throttled;
            slowed = 0.0;
        }
        let steal = steal.min(0.9);
        let crowding = threads / cores / ((1.0 - steal) * (1.0 - slowed));
        let fourth = crowding * crowding * crowding * crowding;
        let busy = crowding / libm::sqrt(libm::sqrt(1.0 + fourth)) * (1.0 - steal);
        self.wanted_threads = threads;
        let counters = &mut self.counters.machine;
        let pressed = fourth / (1.0 + fourth) * (1.0 + 0.04 * self.waves.load);
        counters.psi_cpu_waiting += pressed.clamp(0.0, 0.998) * pace.tick;
        if metal {
            let limited = work.quirks.throttles * ((busy - 0.6) / 0.4).max(0.0);
            counters.throttles += cores * (2.0 * starved + limited) * pace.tick;
        }
        let switches = cores * (150.0 + work.switches * busy.min(1.0)) * (1.0 + 1.5 * starved)
            + 0.2 * packets
            + 40.0 * blocked;
        counters.context_switches += switches * pace.tick;
        counters.interrupts += (0.6 * switches + 0.3 * packets) * pace.tick;
        counters.forks += (0.3 + 4.0 * activity + 60.0 * self.burst * cores / 8.0) * pace.tick;
        // Above a few dozen threads per core an admission control or a person would have stepped in.
        let runnable =
            (crowding * cores).min(40.0 * cores) * (1.0 + 0.08 * self.waves.load).max(0.2);
        let queue = runnable + blocked;
        let gauges = &mut self.gauges;
        gauges.load1 = pace.m1.towards(gauges.load1, queue);
        gauges.load5 = pace.m5.towards(gauges.load5, queue);
        gauges.load15 = pace.m15.towards(gauges.load15, queue);
        gauges.running = libm::round(runnable).max(1.0);
        gauges.blocked = libm::round(blocked * (1.0 + 0.2 * self.waves.disk).max(0.0));
        self.count_cpu(busy, steal, blocked, packets, pace.tick);
        (crowding, steal)
    }

    /// Spreads busy time over the cores; the modes of each core add up to the tick.
    fn count_cpu(&mut self, busy: f64, steal: f64, blocked: f64, packets: f64, tick: f64) {
        let n = self.hardware.cores;
        let cores = n as f64;
        let work = &self.work;
        let hot = (work.hot * self.load.min(1.0)).min(busy * cores);
        let even = (busy * cores - hot) / cores;
        // About 1.5 µs per packet.
        let soft = (1.5e-6 * packets / cores)
            .min(0.25)
            .min(0.5 * (1.0 - steal));
        let waiting = (blocked / (cores * (1.0 - busy - steal).max(0.02))).min(0.95);
        let top = 1.0 - steal;
        let (cpu, weights) = (&mut self.counters.cpu, &self.core_weights);
        for (core, weight) in weights.iter().enumerate() {
            let hot = if core == self.hot_core { hot } else { 0.0 };
            let used = (even * weight + hot).clamp(soft, top);
            let idle = top - used;
            let irq = 0.1 * soft;
            let rest = used - soft;
            let user = rest * (1.0 - work.system);
            cpu[IDLE * n + core] += idle * (1.0 - waiting) * tick;
            cpu[IOWAIT * n + core] += idle * waiting * tick;
            cpu[IRQ * n + core] += irq * tick;
            cpu[NICE * n + core] += user * work.nice * tick;
            cpu[SOFTIRQ * n + core] += (soft - irq) * tick;
            cpu[STEAL * n + core] += steal * tick;
            cpu[SYSTEM * n + core] += rest * work.system * tick;
            cpu[USER * n + core] += user * (1.0 - work.nice) * tick;
        }
    }

    fn filesystem_tick(&mut self, levels: &Levels, pace: &Pace) {
        self.artifacts = pace
            .m15
            .towards(self.artifacts, self.work.artifacts * self.burst);
        let usual = self.hardware.filesystems[0].used;
        self.filled = if levels.fill.progress > 0.0 {
            levels.fill.progress * (1.0 - usual) * (0.45 + 0.7 * levels.fill.severity).min(1.0)
        } else {
            pace.m1.towards(self.filled, 0.0)
        };
        for (index, filesystem) in self.hardware.filesystems.iter().enumerate() {
            let mut used = filesystem.used;
            let mut files = filesystem.files_used;
            if index == 0 {
                used += 0.002 * self.waves.files + self.artifacts + self.filled;
                files += 0.5 * self.artifacts + 0.2 * self.filled;
            }
            let free = (1.0 - used).clamp(0.000_4, 1.0);
            self.gauges.filesystems[index] = (
                pages(filesystem.size * free),
                (filesystem.files * (1.0 - files).max(0.001)) as u64 as f64,
            );
        }
        // A disk that keeps failing makes the kernel give up on its filesystem.
        self.gauges.read_only = levels.disk > 0.93;
    }

    fn rest_tick(
        &mut self,
        levels: &Levels,
        activity: f64,
        reclaim: f64,
        io_stalled: f64,
        (crowding, _): (f64, f64),
        pace: &Pace,
    ) {
        let work = &self.work;
        let quirks = work.quirks.clone();
        let loss = loss_share(levels.loss);
        let crowded = crowding.min(4.0) * crowding.min(4.0);
        let starving = ((crowding - 4.0) / 8.0).clamp(0.0, 1.0);
        let strain = 1.0
            + quirks.strain * crowded / (1.0 + crowded)
            + 14.0 * starving
            + 8.0 * reclaim
            + 5.0 * io_stalled * (levels.disk * 1.5).min(1.0);
        let gauges = &mut self.gauges;
        gauges.scrape_seconds = (work.scrape * (1.0 + 0.12 * self.waves.scrape).max(0.5) * strain
            + 1.2 * loss)
            .min(9.0);
        gauges.round_trip = work.round_trip
            * (1.0 + 0.15 * self.waves.round_trip).max(0.4)
            * (1.0 + 6.0 * starving + 3.0 * reclaim)
            + 0.03 * loss;
        gauges.probe_back = !self.random.chance(1.2 * loss + work.quirks.probes_lost);
        gauges.pods = self.pods_wanted.unwrap_or_else(|| {
            let burst = if work.profile == Profile::Ci {
                0.4 * self.burst
            } else {
                0.0
            };
            libm::round(
                f64::from(work.pods.min(self.pods_max)) * (1.0 + burst) * self.load.min(1.0),
            )
            .min(f64::from(self.pods_max)) as u32
        });
        gauges.files_open = libm::round(
            900.0
                + 32.0 * self.hardware.cores as f64
                + f64::from(gauges.pods) * 60.0
                + (4000.0 * activity.min(2.0)) * (1.0 + 0.05 * self.waves.memory),
        )
        .min(0.4 * self.hardware.files_max);
        gauges.connections = libm::round(
            self.hardware.conntrack_max
                * (work.conntrack
                    * (0.3 + 0.7 * activity.min(1.3))
                    * (1.0 + 0.05 * self.waves.network))
                    .clamp(0.000_1, 0.85),
        );
        gauges.entropy = if self.hardware.entropy_pool > 256.0 {
            libm::round(3600.0 + 120.0 * self.waves.memory).min(4096.0)
        } else {
            256.0
        };
        gauges.clock_offset = if self.hardware.clock_synced {
            // The kernel tells nanoseconds.
            libm::round(self.clock_scale * self.waves.heat * 1e9) / 1e9
        } else {
            0.0
        };
        let relist = work.relist * (1.0 + f64::from(gauges.pods) / 30.0) * strain;
        self.count_relists(relist, pace.tick);
        let expected = pace.tick
            * (quirks.crashes.max(0.02) / 3600.0
                + if self.gauges.filesystems[0].0 < 0.012 * self.hardware.filesystems[0].size {
                    1.0 / 120.0
                } else {
                    0.0
                });
        self.restarts += self.random.events(expected);
        let ooms = self.random.events(quirks.ooms * pace.tick / 3600.0);
        self.restarts += ooms;
        let counters = &mut self.counters.machine;
        counters.oom_kills += ooms;
        counters.listen_overflows += pace.tick
            * (starving * 4.0 * (0.1 + activity)
                + reclaim * 1.5
                + (0.000_05 + quirks.overflows) * activity);
        counters.softnet_dropped +=
            pace.tick * (starving * 3.0 + (0.000_02 + quirks.softnet) * activity);
        counters.softnet_squeezed += pace.tick * (0.01 * activity + 2.0 * starving);
        if self.hardware.ecc {
            counters.edac_correctable += self
                .random
                .events(self.correctable_per_day * pace.tick / 86_400.0);
        }
    }

    /// One relist a second, its duration spread around the typical one.
    fn count_relists(&mut self, typical: f64, tick: f64) {
        let pleg = &mut self.counters.pleg;
        for (bound, count) in PLEG_BOUNDS.iter().zip(pleg.iter_mut()) {
            // Log-logistic with shape 4: a quarter above 1.3 times, one in a hundred above 3.2.
            let ratio = bound / typical;
            let fourth = ratio * ratio * ratio * ratio;
            *count += fourth / (1.0 + fourth) * tick;
        }
        pleg[PLEG_BOUNDS.len()] += tick;
        self.counters.machine.pleg_sum += 1.1 * typical * tick;
    }

    /// Decides whether an incident is on, from the true state and never from the metrics.
    fn judge(&mut self, at_ms: i64, state: Option<&Truths>) {
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
            if now.memory > 0.25 * tolerance || at_ms - self.last_oom_ms < 120_000 {
                Some(IncidentKind::MemoryExhausted)
            } else if now.wait > 0.12 * tolerance && now.blocked > 0.25 {
                Some(IncidentKind::IoStall)
            } else if now.loss > 0.025 * tolerance {
                Some(IncidentKind::PacketLoss)
            } else if now.throttled > 0.25 * tolerance {
                Some(IncidentKind::Overheated)
            } else if now.crowding > 5.5 * tolerance || now.steal > 0.4 * tolerance {
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

/// The true state that incidents are judged by.
struct Truths {
    memory: f64,
    wait: f64,
    blocked: f64,
    throttled: f64,
    crowding: f64,
    steal: f64,
    loss: f64,
}

/// Seconds that a slow disk adds to every request: 20 ms at 0.3, 0.32 s at 0.8, 0.62 s at 1.
fn slow_by(level: f64) -> f64 {
    0.6 * level * level * level + 0.02 * level
}

/// Share of packets lost: 1.2 % at 0.3, 8 % at 0.8, 12.4 % at 1.
fn loss_share(level: f64) -> f64 {
    0.12 * level * level + 0.004 * level
}
