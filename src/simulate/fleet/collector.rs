//! The collectors of node_exporter that the simulation shows.

/// A collector, named as in `node_scrape_collector_success{collector}`; the discriminant is its bit
/// in a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Collector {
    Conntrack = 0,
    Cpu,
    Diskstats,
    Edac,
    Entropy,
    Filefd,
    Filesystem,
    Hwmon,
    Loadavg,
    Mdadm,
    Meminfo,
    Netclass,
    Netdev,
    Netstat,
    Pressure,
    Softnet,
    Stat,
    ThermalZone,
    Timex,
    Vmstat,
    Uname,
    Time,
}

impl Collector {
    pub(super) const ALL: [Self; 22] = [
        Self::Conntrack,
        Self::Cpu,
        Self::Diskstats,
        Self::Edac,
        Self::Entropy,
        Self::Filefd,
        Self::Filesystem,
        Self::Hwmon,
        Self::Loadavg,
        Self::Mdadm,
        Self::Meminfo,
        Self::Netclass,
        Self::Netdev,
        Self::Netstat,
        Self::Pressure,
        Self::Softnet,
        Self::Stat,
        Self::ThermalZone,
        Self::Timex,
        Self::Vmstat,
        Self::Uname,
        Self::Time,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Conntrack => "conntrack",
            Self::Cpu => "cpu",
            Self::Diskstats => "diskstats",
            Self::Edac => "edac",
            Self::Entropy => "entropy",
            Self::Filefd => "filefd",
            Self::Filesystem => "filesystem",
            Self::Hwmon => "hwmon",
            Self::Loadavg => "loadavg",
            Self::Mdadm => "mdadm",
            Self::Meminfo => "meminfo",
            Self::Netclass => "netclass",
            Self::Netdev => "netdev",
            Self::Netstat => "netstat",
            Self::Pressure => "pressure",
            Self::Softnet => "softnet",
            Self::Stat => "stat",
            Self::ThermalZone => "thermal_zone",
            Self::Timex => "timex",
            Self::Vmstat => "vmstat",
            Self::Uname => "uname",
            Self::Time => "time",
        }
    }

    pub(super) fn of_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|collector| collector.as_str() == name)
    }

    pub(super) fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// Those that a training schedule may lose: all that carry features. Losing `uname` or `time` makes
/// a Node unknown as a whole, which [`super::FaultKind::VanishedExporter`] covers.
pub(super) const WITH_FEATURES: &[Collector] = Collector::ALL.split_at(20).0;

/// Default collectors of node_exporter that show nothing in the simulation.
pub(super) const OTHERS: [&str; 26] = [
    "arp",
    "bcache",
    "bonding",
    "btrfs",
    "cpufreq",
    "dmi",
    "dmmultipath",
    "fibrechannel",
    "infiniband",
    "ipvs",
    "kernel_hung",
    "nfs",
    "nfsd",
    "nvme",
    "os",
    "powersupplyclass",
    "rapl",
    "schedstat",
    "selinux",
    "sockstat",
    "tapestats",
    "textfile",
    "udp_queues",
    "watchdog",
    "xfs",
    "zfs",
];

/// Those of [`OTHERS`] that a plain machine has no hardware or module for: they fail there for good.
pub(super) const OFTEN_ABSENT: [&str; 14] = [
    "bonding",
    "cpufreq",
    "dmmultipath",
    "fibrechannel",
    "infiniband",
    "ipvs",
    "kernel_hung",
    "nfs",
    "nfsd",
    "nvme",
    "rapl",
    "tapestats",
    "watchdog",
    "zfs",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_collector_has_its_own_bit_and_name() {
        for (place, collector) in Collector::ALL.into_iter().enumerate() {
            assert_eq!(collector.bit(), 1 << place);
            assert_eq!(Collector::of_name(collector.as_str()), Some(collector));
            assert!(!OTHERS.contains(&collector.as_str()));
        }
        assert!(OFTEN_ABSENT.iter().all(|name| OTHERS.contains(name)));
    }
}
