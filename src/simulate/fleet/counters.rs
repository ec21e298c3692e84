//! What a kernel counts, and what it shows at the moment of a scrape.
//!
//! The same numbers feed the exposition and the feature columns, rounded once, as a kernel rounds
//! them: CPU time in hundredths of a second, disk time in milliseconds, pressure in microseconds,
//! events in whole numbers.

use super::hardware::Hardware;

/// CPU modes in the order of `node_cpu_seconds_total`.
pub(super) const MODES: [&str; 8] = [
    "idle", "iowait", "irq", "nice", "softirq", "steal", "system", "user",
];
pub(super) const IDLE: usize = 0;
pub(super) const IOWAIT: usize = 1;
pub(super) const IRQ: usize = 2;
pub(super) const NICE: usize = 3;
pub(super) const SOFTIRQ: usize = 4;
pub(super) const STEAL: usize = 5;
pub(super) const SYSTEM: usize = 6;
pub(super) const USER: usize = 7;

/// Upper bounds of `kubelet_pleg_relist_duration_seconds`, without `+Inf`.
pub(super) const PLEG_BOUNDS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// A link goes down and up once while the machine boots.
pub(super) const BOOT_CARRIER_CHANGES: f64 = 2.0;

/// A struct of counters that can be walked for scaling; their order means nothing.
macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($field:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        pub(super) struct $name {
            $(pub(super) $field: f64),*
        }

        impl $name {
            fn each(&mut self, change: &mut impl FnMut(&mut f64)) {
                $(change(&mut self.$field);)*
            }
        }
    };
}

counters! {
    /// Counters of one disk.
    DiskCounters {
        reads, reads_merged, read_bytes, read_time,
        writes, writes_merged, written_bytes, write_time,
        io_time, io_weighted,
    }
}

counters! {
    /// Counters of one network interface.
    InterfaceCounters {
        rx_bytes, rx_packets, rx_errors, rx_drops,
        tx_bytes, tx_packets, tx_errors, tx_drops,
        carrier_changes,
    }
}

counters! {
    /// Counters of which a machine has one each.
    MachineCounters {
        throttles,
        psi_cpu_waiting, psi_memory_waiting, psi_memory_stalled, psi_io_waiting, psi_io_stalled,
        swapped_in, swapped_out, faults, major_faults, oom_kills,
        context_switches, interrupts, forks,
        segments_in, segments_out, segments_retransmitted, tcp_timeouts,
        tcp_active_opens, tcp_passive_opens, listen_overflows,
        softnet_processed, softnet_dropped, softnet_squeezed,
        edac_correctable, edac_uncorrectable,
        pleg_sum,
    }
}

/// Everything that begins at zero when the machine boots.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    /// Seconds by mode, then core.
    pub(super) cpu: Vec<f64>,
    pub(super) disks: Vec<DiskCounters>,
    pub(super) interfaces: Vec<InterfaceCounters>,
    pub(super) machine: MachineCounters,
    /// Relists up to each bound of [`PLEG_BOUNDS`] (cumulative), then all of them.
    pub(super) pleg: [f64; PLEG_BOUNDS.len() + 1],
}

impl Counters {
    pub(super) fn zero(hardware: &Hardware) -> Self {
        Self {
            cpu: vec![0.0; MODES.len() * hardware.cores],
            disks: vec![DiskCounters::default(); hardware.disks.len()],
            interfaces: vec![InterfaceCounters::default(); hardware.interfaces.len()],
            ..Self::default()
        }
    }

    /// Multiplies every counter.
    pub(super) fn scale(&mut self, factor: f64) {
        let mut change = |counter: &mut f64| *counter *= factor;
        self.cpu.iter_mut().for_each(&mut change);
        self.pleg.iter_mut().for_each(&mut change);
        self.disks
            .iter_mut()
            .for_each(|disk| disk.each(&mut change));
        self.interfaces
            .iter_mut()
            .for_each(|one| one.each(&mut change));
        self.machine.each(&mut change);
    }
}

/// What is shown as it is at the moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Gauges {
    pub(super) load1: f64,
    pub(super) load5: f64,
    pub(super) load15: f64,
    /// Bytes that cannot be reclaimed; with those available they are the total.
    pub(super) memory_used: f64,
    pub(super) memory_free: f64,
    /// Page cache, buffers and reclaimable slab.
    pub(super) memory_cache: f64,
    pub(super) committed: f64,
    pub(super) swap_used: f64,
    /// Bytes available and inodes free of each filesystem.
    pub(super) filesystems: Vec<(f64, f64)>,
    /// Whether the first filesystem was remounted read-only.
    pub(super) read_only: bool,
    pub(super) running: f64,
    pub(super) blocked: f64,
    /// °C of the hottest sensor.
    pub(super) temperature: f64,
    pub(super) files_open: f64,
    pub(super) connections: f64,
    pub(super) entropy: f64,
    pub(super) clock_offset: f64,
    /// Requests in flight on each disk.
    pub(super) in_flight: Vec<f64>,
    /// Seconds that a scrape takes now.
    pub(super) scrape_seconds: f64,
    /// Seconds of a round trip from a prober, and whether the last probe came back.
    pub(super) round_trip: f64,
    pub(super) probe_back: bool,
    pub(super) pods: u32,
}

impl Gauges {
    pub(super) fn memory_available(&self) -> f64 {
        self.memory_free + self.memory_cache
    }
}

/// Events: whole numbers.
pub(super) fn whole(x: f64) -> f64 {
    x as u64 as f64
}

/// CPU time: hundredths of a second (`USER_HZ`).
pub(super) fn jiffies(x: f64) -> f64 {
    (x * 100.0) as u64 as f64 / 100.0
}

/// Disk time: milliseconds.
pub(super) fn milliseconds(x: f64) -> f64 {
    (x * 1e3) as u64 as f64 / 1e3
}

/// Pressure stall time: microseconds.
pub(super) fn microseconds(x: f64) -> f64 {
    (x * 1e6) as u64 as f64 / 1e6
}

/// Events of which each falls into one of several counts: rounded, so that counts that are nearly
/// equal are equal.
pub(super) fn nearest(x: f64) -> f64 {
    whole(x + 0.5)
}
