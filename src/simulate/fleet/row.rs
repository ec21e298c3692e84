//! What a scrape of one Node brings, as a row of numbers.
//!
//! Counters come first, as scraped and once more with resets taken out; then what is shown as it is;
//! then sums that run on from scrape to scrape, so that an average or a regression over any window is
//! a difference.

use super::collector::Collector;
use super::counters::{
    BOOT_CARRIER_CHANGES, IDLE, IOWAIT, MODES, microseconds, milliseconds, whole,
};
use super::hardware::Sensors;
use super::node::SimulatedNode;

/// Counters by their place in a row. The modes of the CPU come first, in the order of [`MODES`].
pub(super) mod counter {
    pub(in super::super) const PSI_CPU: usize = 8;
    pub(in super::super) const PSI_MEMORY: usize = 9;
    pub(in super::super) const PSI_IO: usize = 10;
    pub(in super::super) const SWAPPED_IN: usize = 11;
    pub(in super::super) const SWAPPED_OUT: usize = 12;
    pub(in super::super) const MAJOR_FAULTS: usize = 13;
    pub(in super::super) const OOM_KILLS: usize = 14;
    pub(in super::super) const CONTEXT_SWITCHES: usize = 15;
    pub(in super::super) const RX_PACKETS: usize = 16;
    pub(in super::super) const TX_PACKETS: usize = 17;
    pub(in super::super) const RX_ERRORS: usize = 18;
    pub(in super::super) const TX_ERRORS: usize = 19;
    pub(in super::super) const RX_DROPS: usize = 20;
    pub(in super::super) const TX_DROPS: usize = 21;
    pub(in super::super) const SEGMENTS_OUT: usize = 22;
    pub(in super::super) const RETRANSMITTED: usize = 23;
    pub(in super::super) const TIMEOUTS: usize = 24;
    pub(in super::super) const OVERFLOWS: usize = 25;
    pub(in super::super) const SOFTNET_DROPPED: usize = 26;
    pub(in super::super) const THROTTLES: usize = 27;
    pub(in super::super) const CARRIER_CHANGES: usize = 28;
    pub(in super::super) const CORRECTABLE: usize = 29;
    pub(in super::super) const UNCORRECTABLE: usize = 30;
    pub(in super::super) const RESTARTS: usize = 31;
    /// Then six of each disk, then idle and waiting time of each core.
    pub(in super::super) const DISKS: usize = 32;
    pub(in super::super) const PER_DISK: usize = 6;
    /// Offsets of one disk.
    pub(in super::super) const IO_TIME: usize = 0;
    pub(in super::super) const IO_WEIGHTED: usize = 1;
    pub(in super::super) const READS: usize = 2;
    pub(in super::super) const READ_TIME: usize = 3;
    pub(in super::super) const WRITES: usize = 4;
    pub(in super::super) const WRITE_TIME: usize = 5;
}

/// Other numbers by their place after the counters: what is shown as it is.
pub(super) mod gauge {
    /// Bits of [`super::Seen`].
    pub(in super::super) const SEEN: usize = 0;
    pub(in super::super) const LOAD5: usize = 1;
    pub(in super::super) const MEMORY_AVAILABLE: usize = 2;
    pub(in super::super) const COMMITTED: usize = 3;
    pub(in super::super) const FILES_OPEN: usize = 4;
    pub(in super::super) const CONNECTIONS: usize = 5;
    pub(in super::super) const ENTROPY: usize = 6;
    pub(in super::super) const BLOCKED: usize = 7;
    pub(in super::super) const TEMPERATURE: usize = 8;
    pub(in super::super) const CLOCK_OFFSET: usize = 9;
    pub(in super::super) const COLLECTORS_FAILED: usize = 10;
    /// Share of inodes that is free where it is least.
    pub(in super::super) const INODES_FREE: usize = 11;
    /// 1 if some filesystem is read-only.
    pub(in super::super) const READ_ONLY: usize = 12;
    /// Share of space that is free where it is least.
    pub(in super::super) const SPACE_FREE: usize = 13;
    /// Running sums begin here: all that a long window may need.
    pub(in super::super) const SCRAPES: usize = 14;
    pub(in super::super) const UPS: usize = 15;
    pub(in super::super) const SCRAPE_SECONDS: usize = 16;
    /// Regression sums: number, time, time squared, value, value × time.
    pub(in super::super) const MEMORY: usize = 17;
    /// Number, time, time squared, then value and value × time of each filesystem.
    pub(in super::super) const FILESYSTEMS: usize = 22;
    pub(in super::super) const FIXED: usize = 25;
}

/// Bits of what a scrape brought: collectors, then these.
pub(super) const OUTSIDE: u32 = 1 << 25;
/// The scrape of node_exporter itself.
pub(super) const UP: u32 = 1 << 26;

/// Counters that some window longer than that of `rate()` asks for.
pub(super) const LONG_COUNTERS: [usize; 7] = [
    counter::THROTTLES,
    counter::OOM_KILLS,
    counter::CARRIER_CHANGES,
    counter::CONTEXT_SWITCHES,
    counter::CORRECTABLE,
    counter::UNCORRECTABLE,
    counter::RESTARTS,
];

/// Where things are in a row of one Node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) disks: usize,
    pub(super) cores: usize,
    pub(super) filesystems: usize,
    pub(super) counters: usize,
}

impl Layout {
    pub(super) fn new(node: &SimulatedNode) -> Self {
        let (disks, cores) = (node.hardware.disks.len(), node.hardware.cores);
        Self {
            disks,
            cores,
            filesystems: node.hardware.filesystems.len(),
            counters: counter::DISKS + counter::PER_DISK * disks + cores,
        }
    }

    pub(super) fn core(self, core: usize) -> usize {
        counter::DISKS + counter::PER_DISK * self.disks + core
    }

    pub(super) fn width(self) -> usize {
        2 * self.counters + gauge::FIXED + 2 * self.filesystems
    }

    /// Columns of a row that the long memory keeps: the running sums, and the long counters twice.
    pub(super) fn long_width(self) -> usize {
        gauge::FIXED - gauge::SCRAPES + 2 * self.filesystems + 2 * LONG_COUNTERS.len()
    }

    /// Fills a row with what a scrape brings now, `hours` after the first one; `before` is the row
    /// of the scrape before.
    pub(super) fn fill(
        self,
        node: &SimulatedNode,
        hours: f64,
        before: Option<&[f64]>,
        row: &mut [f64],
    ) {
        let layout = self;
        let scraped = node.answers();
        let mut bits = OUTSIDE;
        if scraped {
            bits |= UP;
            for collector in Collector::ALL {
                if node.shows(collector) {
                    bits |= collector.bit();
                }
            }
        }
        let (counters, rest) = row.split_at_mut(2 * layout.counters);
        let (raw, unrolled) = counters.split_at_mut(layout.counters);
        fill_counters(node, layout, raw);
        for (place, value) in raw.iter_mut().enumerate() {
            let Some(before) = before else {
                unrolled[place] = *value;
                continue;
            };
            let (was, sum) = (before[place], before[layout.counters + place]);
            if bits & group(place, layout) == 0 {
                // Not seen: nothing was learnt.
                *value = was;
                unrolled[place] = sum;
            } else {
                unrolled[place] = sum + if *value < was { *value } else { *value - was };
            }
        }
        let zero = vec![0.0; if before.is_none() { rest.len() } else { 0 }];
        let before = before.map_or(&zero[..], |before| &before[2 * layout.counters..]);
        fill_gauges(node, hours, bits, before, rest);
    }
}

fn fill_gauges(node: &SimulatedNode, hours: f64, bits: u32, before: &[f64], row: &mut [f64]) {
    use gauge as g;
    let gauges = &node.gauges;
    row[g::SEEN] = f64::from(bits);
    row[g::LOAD5] = libm::round(gauges.load5 * 100.0) / 100.0;
    row[g::MEMORY_AVAILABLE] = gauges.memory_available();
    row[g::COMMITTED] = gauges.committed;
    row[g::FILES_OPEN] = gauges.files_open;
    row[g::CONNECTIONS] = gauges.connections;
    row[g::ENTROPY] = gauges.entropy;
    row[g::BLOCKED] = gauges.blocked;
    row[g::TEMPERATURE] = match node.hardware.sensors {
        Sensors::HwmonCritical(critical) => gauges.temperature / critical,
        Sensors::HwmonPlain | Sensors::ThermalZone | Sensors::None => gauges.temperature / 100.0,
    };
    row[g::CLOCK_OFFSET] = gauges.clock_offset;
    row[g::COLLECTORS_FAILED] =
        f64::from(node.failing.count_ones()) + node.hardware.absent_others.len() as f64;
    let fixed = node.hardware.filesystems.iter().any(|spec| spec.read_only);
    row[g::READ_ONLY] = f64::from(u8::from(fixed || gauges.read_only));
    let (mut space, mut files) = (1.0_f64, 1.0_f64);
    let specs = &node.hardware.filesystems;
    for (spec, (bytes, inodes)) in specs.iter().zip(&gauges.filesystems) {
        space = space.min(bytes / spec.size);
        files = files.min(inodes / spec.files);
    }
    row[g::SPACE_FREE] = space;
    row[g::INODES_FREE] = files;

    let up = bits & UP != 0;
    let add = |row: &mut [f64], place: usize, value: f64| row[place] = before[place] + value;
    add(row, g::SCRAPES, 1.0);
    add(row, g::UPS, f64::from(u8::from(up)));
    add(
        row,
        g::SCRAPE_SECONDS,
        if up { gauges.scrape_seconds } else { 0.0 },
    );
    // Squares of seconds since 1970 lose digits; hours since the first scrape do not.
    let time = hours;
    let known = f64::from(u8::from(bits & Collector::Meminfo.bit() != 0));
    let share = gauges.memory_available() / node.hardware.memory;
    for (place, value) in [1.0, time, time * time, share, share * time]
        .into_iter()
        .enumerate()
    {
        add(row, g::MEMORY + place, known * value);
    }
    let known = f64::from(u8::from(bits & Collector::Filesystem.bit() != 0));
    for (place, value) in [1.0, time, time * time].into_iter().enumerate() {
        add(row, g::FILESYSTEMS + place, known * value);
    }
    for (index, (spec, (bytes, _))) in specs.iter().zip(&gauges.filesystems).enumerate() {
        let share = bytes / spec.size;
        add(row, g::FIXED + 2 * index, known * share);
        add(row, g::FIXED + 2 * index + 1, known * share * time);
    }
}

pub(super) fn seen(row: &[f64], layout: Layout) -> u32 {
    row[2 * layout.counters + gauge::SEEN] as u32
}

/// What must have been seen for a counter to be known.
pub(super) fn group(place: usize, layout: Layout) -> u32 {
    use counter as c;
    let collector = match place {
        c::PSI_CPU | c::PSI_MEMORY | c::PSI_IO => Collector::Pressure,
        c::SWAPPED_IN | c::SWAPPED_OUT | c::MAJOR_FAULTS | c::OOM_KILLS => Collector::Vmstat,
        c::CONTEXT_SWITCHES => Collector::Stat,
        c::RX_PACKETS..=c::TX_DROPS => Collector::Netdev,
        c::SEGMENTS_OUT..=c::OVERFLOWS => Collector::Netstat,
        c::SOFTNET_DROPPED => Collector::Softnet,
        c::CARRIER_CHANGES => Collector::Netclass,
        c::CORRECTABLE | c::UNCORRECTABLE => Collector::Edac,
        c::RESTARTS => return OUTSIDE,
        place if place < c::PSI_CPU || place == c::THROTTLES => Collector::Cpu,
        place if place < layout.core(0) => Collector::Diskstats,
        _ => Collector::Cpu,
    };
    collector.bit()
}

/// Reads every counter as a scrape would show it.
fn fill_counters(node: &SimulatedNode, layout: Layout, raw: &mut [f64]) {
    use counter as c;
    let counters = &node.counters;
    let n = layout.cores;
    // Hundredths of a second, added up as whole numbers.
    for (seconds, sum) in counters.cpu.chunks_exact(n).zip(&mut raw[..MODES.len()]) {
        let hundredths: u64 = seconds.iter().map(|seconds| (seconds * 100.0) as u64).sum();
        *sum = hundredths as f64 / 100.0;
    }
    for core in 0..n {
        let hundredths = (counters.cpu[IDLE * n + core] * 100.0) as u64
            + (counters.cpu[IOWAIT * n + core] * 100.0) as u64;
        raw[layout.core(core)] = hundredths as f64 / 100.0;
    }
    let m = &counters.machine;
    for (place, value) in [
        (c::PSI_CPU, microseconds(m.psi_cpu_waiting)),
        (c::PSI_MEMORY, microseconds(m.psi_memory_stalled)),
        (c::PSI_IO, microseconds(m.psi_io_stalled)),
        (c::SWAPPED_IN, whole(m.swapped_in)),
        (c::SWAPPED_OUT, whole(m.swapped_out)),
        (c::MAJOR_FAULTS, whole(m.major_faults)),
        (c::OOM_KILLS, whole(m.oom_kills)),
        (c::CONTEXT_SWITCHES, whole(m.context_switches)),
        (c::SEGMENTS_OUT, whole(m.segments_out)),
        (c::RETRANSMITTED, whole(m.segments_retransmitted)),
        (c::TIMEOUTS, whole(m.tcp_timeouts)),
        (c::OVERFLOWS, whole(m.listen_overflows)),
        (c::SOFTNET_DROPPED, whole(m.softnet_dropped)),
        (c::THROTTLES, whole(m.throttles)),
        (c::CORRECTABLE, whole(m.edac_correctable)),
        (c::UNCORRECTABLE, whole(m.edac_uncorrectable)),
        (c::RESTARTS, whole(node.restarts)),
    ] {
        raw[place] = value;
    }
    raw[c::RX_PACKETS..=c::TX_DROPS].fill(0.0);
    // A link comes up once at boot.
    raw[c::CARRIER_CHANGES] = BOOT_CARRIER_CHANGES * counters.interfaces.len() as f64;
    for interface in &counters.interfaces {
        for (place, value) in [
            (c::RX_PACKETS, interface.rx_packets),
            (c::TX_PACKETS, interface.tx_packets),
            (c::RX_ERRORS, interface.rx_errors),
            (c::TX_ERRORS, interface.tx_errors),
            (c::RX_DROPS, interface.rx_drops),
            (c::TX_DROPS, interface.tx_drops),
            (c::CARRIER_CHANGES, interface.carrier_changes),
        ] {
            raw[place] += whole(value);
        }
    }
    for (index, disk) in counters.disks.iter().enumerate() {
        let base = c::DISKS + c::PER_DISK * index;
        raw[base + c::IO_TIME] = milliseconds(disk.io_time);
        raw[base + c::IO_WEIGHTED] = milliseconds(disk.io_weighted);
        raw[base + c::READS] = whole(disk.reads);
        raw[base + c::READ_TIME] = milliseconds(disk.read_time);
        raw[base + c::WRITES] = whole(disk.writes);
        raw[base + c::WRITE_TIME] = milliseconds(disk.write_time);
    }
}

pub(super) fn thin_out(row: &[f64], layout: Layout, thin: &mut [f64]) {
    let sums = &row[2 * layout.counters + gauge::SCRAPES..];
    thin[..sums.len()].copy_from_slice(sums);
    for (slot, place) in LONG_COUNTERS.iter().enumerate() {
        thin[sums.len() + 2 * slot] = row[*place];
        thin[sums.len() + 2 * slot + 1] = row[layout.counters + place];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_knows_its_collector() {
        let layout = Layout {
            disks: 2,
            cores: 4,
            filesystems: 1,
            counters: counter::DISKS + 12 + 4,
        };
        assert_eq!(group(0, layout), Collector::Cpu.bit());
        assert_eq!(group(7, layout), Collector::Cpu.bit());
        assert_eq!(group(counter::THROTTLES, layout), Collector::Cpu.bit());
        assert_eq!(group(counter::TX_DROPS, layout), Collector::Netdev.bit());
        assert_eq!(group(counter::RESTARTS, layout), OUTSIDE);
        assert_eq!(group(counter::DISKS, layout), Collector::Diskstats.bit());
        assert_eq!(
            group(layout.core(0) - 1, layout),
            Collector::Diskstats.bit()
        );
        assert_eq!(group(layout.core(3), layout), Collector::Cpu.bit());
    }
}
