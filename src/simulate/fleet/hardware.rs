//! What a simulated Node is made of: drawn once from the seed, changed by nothing.
//!
//! The ranges are wide on purpose. A model that has only seen tidy servers calls everything else
//! degraded: two-core VMs without a synchronised clock, kernels without PSI, sandboxes where half of
//! the collectors fail, hosts whose sensors report a critical temperature of 0.

use super::collector::{Collector, OFTEN_ABSENT};
use super::random::Random;

/// Kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// A server of its own, mostly with sensors and ECC memory.
    Metal,
    /// A virtual machine: no sensors, time may be stolen from it.
    Vm,
    /// A sandboxed kernel in which several collectors fail for good.
    Sandbox,
}

impl Machine {
    /// The name in the index of a served fleet.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Metal => "metal",
            Self::Vm => "vm",
            Self::Sandbox => "sandbox",
        }
    }
}

/// How hot parts of a machine are told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sensors {
    /// `node_hwmon_temp_celsius` with a critical temperature in °C.
    HwmonCritical(f64),
    /// `node_hwmon_temp_celsius` whose critical temperature reads 0.
    HwmonPlain,
    /// Only `node_thermal_zone_temp`.
    ThermalZone,
    /// None, as in most virtual machines.
    None,
}

/// One disk.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Kernel name, as in the label `device`.
    pub name: String,
    /// Seconds that one request takes on an idle disk.
    pub service: f64,
    /// Requests that are served at the same time.
    pub parallel: f64,
    /// Whether it spins.
    pub rotational: bool,
}

impl Disk {
    /// Requests per second at which a healthy disk is saturated.
    pub fn iops_max(&self) -> f64 {
        self.parallel / self.service
    }
}

/// One filesystem.
#[derive(Clone, Debug)]
pub struct Filesystem {
    /// Label `device`.
    pub device: String,
    /// Label `mountpoint`.
    pub mountpoint: &'static str,
    /// Label `fstype`.
    pub fstype: &'static str,
    /// Bytes.
    pub size: f64,
    /// Inodes.
    pub files: f64,
    /// Share that is used when nothing happens.
    pub used: f64,
    /// Share of inodes that is used when nothing happens.
    pub files_used: f64,
    /// Whether it is mounted read-only on purpose.
    pub read_only: bool,
}

/// What a Node is made of.
#[derive(Clone, Debug)]
pub struct Hardware {
    /// Kind of machine.
    pub machine: Machine,
    /// Logical CPUs.
    pub cores: usize,
    /// Bytes of memory.
    pub memory: f64,
    /// Bytes of swap; 0 on most Kubernetes Nodes.
    pub swap: f64,
    /// Disks; the first carries the system. Never empty.
    pub disks: Vec<Disk>,
    /// Filesystems; the first is `/`. Never empty.
    pub filesystems: Vec<Filesystem>,
    /// Names of the network interfaces. Never empty.
    pub interfaces: Vec<String>,
    /// How temperatures are told.
    pub sensors: Sensors,
    /// Whether memory errors are counted (`node_edac_*`).
    pub ecc: bool,
    /// Whether a software RAID exists (`node_md_disks`).
    pub raid: bool,
    /// Size of the entropy pool in bits: 256 since kernel 5.18, 4096 before.
    pub entropy_pool: f64,
    /// Upper limit of open files.
    pub files_max: f64,
    /// Upper limit of tracked connections.
    pub conntrack_max: f64,
    /// Whether the clock is synchronised (`node_timex_sync_status`).
    pub clock_synced: bool,
    /// Release of the kernel.
    pub kernel: &'static str,
    /// Bits of the simulated collectors that fail on this Node for good.
    pub(super) absent: u32,
    /// Other collectors of node_exporter that fail here for good; a healthy VM has about fifteen.
    pub(super) absent_others: Vec<&'static str>,
}

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

impl Hardware {
    /// Draws a machine; `hot` asks for one whose temperature can be seen.
    pub(super) fn draw(random: &mut Random, hot: bool) -> Self {
        let machine = match random.unit() {
            _ if hot => Machine::Metal,
            x if x < 0.42 => Machine::Metal,
            x if x < 0.94 => Machine::Vm,
            _ => Machine::Sandbox,
        };
        let cores = match machine {
            Machine::Metal => random.pick(&[4, 8, 8, 16, 16, 24, 32, 32, 48, 64]),
            Machine::Vm => random.pick(&[1, 2, 2, 2, 4, 4, 4, 8, 8, 16, 32]),
            Machine::Sandbox => random.pick(&[1, 2, 4, 4, 8]),
        };
        let per_core = random.pick(&[2.0, 4.0, 4.0, 4.0, 8.0, 8.0]);
        // Firmware and kernel take their part: MemTotal is never a power of two.
        let memory = pages(cores as f64 * per_core * GIB * random.range(0.955, 0.985));
        let swap = if random.chance(0.2) {
            pages((memory * random.range(0.1, 0.5)).min(16.0 * GIB))
        } else {
            0.0
        };
        let disks = draw_disks(random, machine);
        let filesystems = draw_filesystems(random, &disks);
        let sensors = match (machine, random.unit()) {
            (Machine::Metal, x) if hot || x < 0.6 => {
                Sensors::HwmonCritical(random.pick(&[84.0, 90.0, 95.0, 100.0, 100.0, 105.0]))
            }
            (Machine::Metal, x) if x < 0.75 => Sensors::HwmonPlain,
            (Machine::Metal, x) if x < 0.9 => Sensors::ThermalZone,
            (Machine::Metal | Machine::Vm | Machine::Sandbox, _) => Sensors::None,
        };
        let old_kernel = random.chance(0.25);
        let mut hardware = Self {
            machine,
            cores,
            memory,
            swap,
            disks,
            filesystems,
            interfaces: draw_interfaces(random, machine),
            sensors,
            ecc: machine == Machine::Metal && random.chance(0.7),
            raid: machine == Machine::Metal && random.chance(0.3),
            entropy_pool: if old_kernel { 4096.0 } else { 256.0 },
            files_max: if old_kernel {
                (memory / 10_240.0) as u64 as f64
            } else {
                9_223_372_036_854_775_807.0
            },
            conntrack_max: random.pick(&[65_536.0, 131_072.0, 262_144.0, 524_288.0, 1_048_576.0]),
            clock_synced: match machine {
                Machine::Metal => random.chance(0.97),
                Machine::Vm => random.chance(0.75),
                Machine::Sandbox => random.chance(0.3),
            },
            kernel: if old_kernel {
                random.pick(&[
                    "4.18.0-553.el8_10.x86_64",
                    "5.4.0-216-generic",
                    "5.10.0-35-amd64",
                ])
            } else {
                random.pick(&[
                    "6.1.0-37-amd64",
                    "6.8.0-71-generic",
                    "6.12.41",
                    "5.19.0-50-generic",
                ])
            },
            absent: 0,
            absent_others: Vec::new(),
        };
        hardware.draw_absent(random);
        hardware
    }

    fn draw_absent(&mut self, random: &mut Random) {
        let hwmon = matches!(
            self.sensors,
            Sensors::HwmonCritical(_) | Sensors::HwmonPlain
        );
        let zone = matches!(self.sensors, Sensors::ThermalZone);
        let sandbox = self.machine == Machine::Sandbox;
        let there = [
            (Collector::Hwmon, hwmon),
            (Collector::ThermalZone, zone),
            (Collector::Edac, self.ecc),
            (Collector::Mdadm, self.raid),
            // Old kernels, distributions that boot with psi=0, and sandboxes have none.
            (Collector::Pressure, random.chance(0.93) && !sandbox),
            // The module is loaded only where something tracks connections.
            (Collector::Conntrack, random.chance(0.9) && !sandbox),
            (Collector::Softnet, !(sandbox && random.chance(0.4))),
            (Collector::Entropy, !(sandbox && random.chance(0.4))),
            (Collector::Diskstats, !(sandbox && random.chance(0.4))),
        ];
        self.absent = there
            .into_iter()
            .filter(|(_, there)| !there)
            .fold(0, |mask, (collector, _)| mask | collector.bit());
        let often = match self.machine {
            Machine::Metal if random.chance(0.25) => 0.05,
            Machine::Metal => 0.5,
            Machine::Vm => 0.9,
            Machine::Sandbox => 1.0,
        };
        self.absent_others = OFTEN_ABSENT
            .into_iter()
            .filter(|_| random.chance(often))
            .collect();
    }
}

fn draw_disks(random: &mut Random, machine: Machine) -> Vec<Disk> {
    let count = if random.chance(0.4) { 2 } else { 1 };
    (0..count)
        .map(|index| {
            let letter = if index == 0 { 'a' } else { 'b' };
            match (machine, random.unit()) {
                (Machine::Metal, x) if x < 0.55 => Disk {
                    name: format!("nvme{index}n1"),
                    service: random.range(0.000_06, 0.000_2),
                    parallel: 32.0,
                    rotational: false,
                },
                (Machine::Metal, x) if x < 0.8 => Disk {
                    name: format!("sd{letter}"),
                    service: random.range(0.000_2, 0.000_7),
                    parallel: 8.0,
                    rotational: false,
                },
                (Machine::Metal, _) => Disk {
                    name: format!("sd{letter}"),
                    service: random.range(0.005, 0.009),
                    parallel: 1.3,
                    rotational: true,
                },
                (Machine::Vm, x) if x < 0.35 => Disk {
                    name: format!("nvme{index}n1"),
                    service: random.range(0.000_4, 0.001_5),
                    parallel: 8.0,
                    rotational: false,
                },
                (Machine::Vm | Machine::Sandbox, x) => Disk {
                    name: format!("vd{letter}"),
                    // Network volumes: most answer in a millisecond or two, cheap ones in eight.
                    service: if x < 0.85 {
                        random.range(0.000_6, 0.003)
                    } else {
                        random.range(0.003, 0.008)
                    },
                    parallel: random.pick(&[4.0, 8.0, 16.0]),
                    rotational: false,
                },
            }
        })
        .collect()
}

fn draw_filesystems(random: &mut Random, disks: &[Disk]) -> Vec<Filesystem> {
    let mut list = Vec::new();
    for (index, disk) in disks.iter().enumerate() {
        let partition = if disk.name.starts_with("nvme") {
            "p1"
        } else {
            "1"
        };
        let size = pages(random.log_range(20.0, 2000.0) * GIB);
        list.push(Filesystem {
            device: format!("/dev/{}{partition}", disk.name),
            mountpoint: if index == 0 { "/" } else { "/var/lib/data" },
            fstype: random.pick(&["ext4", "ext4", "xfs"]),
            size,
            files: (size / 16_384.0) as u64 as f64,
            // Stable at 88 % is full of data, not degraded.
            used: random.range(0.08, 0.885),
            files_used: if random.chance(0.06) {
                random.range(0.4, 0.88)
            } else {
                random.range(0.005, 0.4)
            },
            read_only: false,
        });
    }
    if random.chance(0.3) {
        list.push(Filesystem {
            device: format!("/dev/{}15", disks[0].name),
            // Not /boot: the features' default selector leaves that out, so that what is told of it and
            // what is computed would differ.
            mountpoint: "/opt",
            fstype: "ext4",
            size: 511.0 * 1024.0 * 1024.0,
            files: 32_768.0,
            used: random.range(0.1, 0.6),
            files_used: random.range(0.005, 0.05),
            read_only: random.chance(0.06),
        });
    }
    list
}

fn draw_interfaces(random: &mut Random, machine: Machine) -> Vec<String> {
    let names: &[&str] = match machine {
        Machine::Metal if random.chance(0.5) => &["eno1", "eno2"],
        Machine::Metal => &["enp65s0f0"],
        Machine::Vm if random.chance(0.15) => &["ens5", "ens6"],
        Machine::Vm => random.pick(&[&["eth0"], &["ens5"], &["ens192"], &["enp1s0"]]),
        Machine::Sandbox => &["eth0"],
    };
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Whole memory pages.
pub(super) fn pages(bytes: f64) -> f64 {
    (bytes / 4096.0) as i64 as f64 * 4096.0
}
