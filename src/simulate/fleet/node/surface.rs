//! What a tick changes besides: what the kernel shows of itself, and how exporter, kubelet and prober
//! feel the strain.

use super::super::counters::PLEG_BOUNDS;
use super::super::random::Pace;
use super::super::workload::Profile;
use super::{Levels, SimulatedNode, Strain};

impl Strain {
    /// How starved a process is that wants to run once in a while, 0 to 1: from five threads per
    /// core on.
    fn starving(&self) -> f64 {
        ((self.crowding - 5.0) / 7.0).clamp(0.0, 1.0)
    }
}

impl SimulatedNode {
    /// Files, connections, clock, queues and memory errors.
    pub(super) fn kernel_tick(&mut self, now: &Strain, pace: &Pace) {
        let (work, activity, starving) = (&self.work, now.activity, now.starving());
        let gauges = &mut self.gauges;
        let files = 900.0
            + 32.0 * self.hardware.cores as f64
            + f64::from(gauges.pods) * 60.0
            + 4000.0 * activity.min(2.0) * (1.0 + 0.05 * self.waves.memory);
        gauges.files_open = libm::round(files).min(0.4 * self.hardware.files_max);
        let traffic = (0.3 + 0.7 * activity.min(1.3)) * (1.0 + 0.05 * self.waves.network);
        let tracked = (work.conntrack * traffic).clamp(0.000_1, 0.85);
        gauges.connections = libm::round(self.hardware.conntrack_max * tracked);
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
        let quirks = &work.quirks;
        let ooms = self.random.events(quirks.ooms * pace.tick / 3600.0);
        let counters = &mut self.counters.machine;
        counters.oom_kills += ooms;
        let overflows = starving * 4.0 * (0.1 + activity)
            + now.reclaim * 1.5
            + (0.000_05 + quirks.overflows) * activity;
        counters.listen_overflows += overflows * pace.tick;
        let dropped = starving * 3.0 + (0.000_02 + quirks.softnet) * activity;
        counters.softnet_dropped += dropped * pace.tick;
        counters.softnet_squeezed += (0.01 * activity + 2.0 * starving) * pace.tick;
        if self.hardware.ecc {
            let expected = self.correctable_per_day * pace.tick / 86_400.0;
            counters.edac_correctable += self.random.events(expected);
        }
        let full = self.gauges.filesystems[0].0 < 0.012 * self.hardware.filesystems[0].size;
        let crashes = quirks.crashes.max(0.02) / 3600.0 + if full { 1.0 / 120.0 } else { 0.0 };
        self.restarts += ooms + self.random.events(crashes * pace.tick);
    }

    /// Exporter, prober and kubelet.
    pub(super) fn outside_tick(&mut self, levels: &Levels, now: &Strain, pace: &Pace) {
        let work = &self.work;
        let starving = now.starving();
        let square = now.crowding.min(4.0) * now.crowding.min(4.0);
        let strain = 1.0
            + work.quirks.strain * square / (1.0 + square)
            + 14.0 * starving
            + 8.0 * now.reclaim
            + 5.0 * now.stalled * (levels.disk * 1.5).min(1.0);
        let gauges = &mut self.gauges;
        let jitter = (1.0 + 0.12 * self.waves.scrape).max(0.5);
        // Above 9 s no Prometheus with usual settings waits for an answer.
        gauges.scrape_seconds = (work.scrape * jitter * strain + 1.2 * now.loss).min(9.0);
        let jitter = (1.0 + 0.15 * self.waves.round_trip).max(0.4);
        gauges.round_trip =
            work.round_trip * jitter * (1.0 + 6.0 * starving + 3.0 * now.reclaim) + 0.03 * now.loss;
        gauges.probe_back = !self.random.chance(1.2 * now.loss + work.quirks.probes_lost);
        gauges.pods = self.pods_wanted.unwrap_or_else(|| {
            let burst = if work.profile == Profile::Ci {
                0.4 * self.burst
            } else {
                0.0
            };
            let most = f64::from(self.pods_max);
            let usual = f64::from(work.pods).min(most);
            libm::round(usual * (1.0 + burst) * self.load.min(1.0)).min(most) as u32
        });
        let relist = work.relist * (1.0 + f64::from(gauges.pods) / 30.0) * strain;
        self.count_relists(relist, pace.tick);
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
}
