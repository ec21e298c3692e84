//! What a tick does to the parts of a Node. `docs/fleet.md` lists the equations.

use super::super::counters::{IDLE, IOWAIT, IRQ, NICE, SOFTIRQ, STEAL, SYSTEM, USER};
use super::super::hardware::{Machine, pages};
use super::super::random::Pace;
use super::{Levels, SimulatedNode, Strain};

impl SimulatedNode {
    pub(super) fn memory_tick(
        &mut self,
        at_ms: i64,
        levels: &Levels,
        now: &mut Strain,
        pace: &Pace,
    ) {
        let activity = now.activity;
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
        now.reclaim = pressure;
    }

    pub(super) fn disk_tick(&mut self, levels: &Levels, now: &mut Strain, pace: &Pace) {
        let (activity, reclaim) = (now.activity, now.reclaim);
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
        (now.blocked, now.stalled, now.wait) = (blocked, stalled, worst);
    }

    pub(super) fn network_tick(&mut self, levels: &Levels, now: &mut Strain, pace: &Pace) {
        let (activity, loss) = (now.activity, now.loss);
        let work = &self.work;
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
        now.packets = rx + tx;
    }

    pub(super) fn heat_tick(&mut self, levels: &Levels, now: &mut Strain, pace: &Pace) {
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
        now.throttled = throttled;
    }

    pub(super) fn cpu_tick(&mut self, levels: &Levels, now: &mut Strain, pace: &Pace) {
        let (activity, reclaim, blocked) = (now.activity, now.reclaim, now.blocked);
        let packets = now.packets;
        let cores = self.hardware.cores as f64;
        let work = &self.work;
        let metal = self.hardware.machine == Machine::Metal;
        let starved = levels.starved;
        // Work that waits for a disk does not run.
        let runs = 1.0 - 0.6 * now.stalled;
        let threads = cores
            * ((work.cpu_base + work.cpu_work * activity + work.cpu_burst * self.burst) * runs
                + 0.5 * reclaim
                + 12.0 * starved * starved)
            + work.hot * self.load.min(1.0);
        let mut steal = work.steal * (1.0 + 0.4 * self.waves.load).max(0.0);
        let mut slowed = now.throttled;
        if metal {
            slowed = slowed.max(0.5 * starved);
        } else {
            steal += 0.75 * starved + now.throttled;
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
        (now.crowding, now.steal) = (crowding, steal);
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

    pub(super) fn filesystem_tick(&mut self, levels: &Levels, pace: &Pace) {
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
}

/// Seconds that a slow disk adds to every request: 20 ms at 0.3, 0.32 s at 0.8, 0.62 s at 1.
fn slow_by(level: f64) -> f64 {
    0.6 * level * level * level + 0.02 * level
}

/// Share of packets lost: 1.2 % at 0.3, 8 % at 0.8, 12.4 % at 1.
pub(super) fn loss_share(level: f64) -> f64 {
    0.12 * level * level + 0.004 * level
}
