//! The six things that every operator asks first, each with the feature and source that tell it.

use std::fmt;

use super::matrix::FeatureMatrix;
use super::schema::{FeatureName, Unit};

/// One of the six.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// How busy the processors are.
    CpuUse,
    /// How full the memory is.
    MemoryUse,
    /// How hot it is, against what is critical.
    Temperature,
    /// How long the network takes, or what stands for it where nobody probes.
    NetworkLatency,
    /// How busy the disks are.
    DiskIo,
    /// How many Pods there are, of those it may have.
    PodCount,
}

impl Asked {
    /// The six, in the order in which they are shown.
    pub const ALL: [Self; 6] = [
        Self::CpuUse,
        Self::MemoryUse,
        Self::Temperature,
        Self::NetworkLatency,
        Self::DiskIo,
        Self::PodCount,
    ];

    /// The word for it in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CpuUse => "cpu_use",
            Self::MemoryUse => "memory_use",
            Self::Temperature => "temperature",
            Self::NetworkLatency => "network_latency",
            Self::DiskIo => "disk_io",
            Self::PodCount => "pod_count",
        }
    }

    /// The features that tell it, the best first.
    ///
    /// node_exporter knows no latency: without a prober the retransmits of real traffic stand for
    /// it, and last the time that the scrape itself took.
    fn features(self) -> &'static [&'static str] {
        match self {
            Self::CpuUse => &["cpu_used", "load_per_core"],
            Self::MemoryUse => &["mem_used"],
            Self::Temperature => &["temp_vs_crit"],
            Self::NetworkLatency => &[
                "net_latency_probe",
                "tcp_retrans_ratio",
                "tcp_timeout_ratio",
                "scrape_seconds",
            ],
            Self::DiskIo => &["disk_busy", "disk_queue", "psi_io"],
            Self::PodCount => &["pods_used"],
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The answer to one of the six for one Node.
#[derive(Clone, Debug, PartialEq)]
pub struct Basic {
    /// What is asked.
    pub what: Asked,
    /// The answer; `None` where no feature that tells it has a value.
    pub told: Option<Told>,
}

/// A value, and who says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The feature that tells it.
    pub feature: FeatureName,
    /// Its value.
    pub value: f64,
    /// Unit of the value.
    pub unit: Unit,
    /// Where the value comes from: `node_exporter`, `hwmon`, `icmp_probe`, `kubelet`, …
    pub source: String,
}

/// The six of one row, in the order of [`Asked::ALL`].
pub fn basics(matrix: &FeatureMatrix, row: usize) -> [Basic; 6] {
    Asked::ALL.map(|what| Basic {
        what,
        told: what
            .features()
            .iter()
            .find_map(|name| told(matrix, row, name)),
    })
}

fn told(matrix: &FeatureMatrix, row: usize, name: &str) -> Option<Told> {
    let column = matrix.schema.column_of(name)?;
    let feature = &matrix.schema.features()[column];
    Some(Told {
        feature: feature.name.clone(),
        value: matrix.value(row, column)?,
        unit: feature.unit,
        source: matrix.source(row, column)?.name.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::features::schema::Schema;

    #[test]
    fn each_of_the_six_is_told_by_the_best_feature_there_is_with_its_source() {
        let schema = Arc::new(Schema::built_in());
        let mut matrix = FeatureMatrix::missing(Timestamp::UNIX_EPOCH, schema, vec!["a".into()]);
        assert!(basics(&matrix, 0).iter().all(|basic| basic.told.is_none()));

        let mut set = |name: &str, value: f64, source: u8| {
            let column = matrix.schema.column_of(name).unwrap();
            matrix.values[(0, column)] = value;
            matrix.sources[(0, column)] = source;
            basics(&matrix, 0).map(|b| {
                b.told
                    .map(|t| format!("{}={} {} {}", t.feature, t.value, t.unit, t.source))
            })
        };
        set("cpu_used", 0.5, 0);
        set("mem_used", 0.25, 0);
        set("temp_vs_crit", 0.75, 1);
        set("scrape_seconds", 0.125, 0);
        set("disk_busy", 0.5, 0);
        let six = set("pods_used", 0.5, 1).map(Option::unwrap);
        assert_eq!(
            six,
            [
                "cpu_used=0.5 ratio node_exporter",
                "mem_used=0.25 ratio node_exporter",
                "temp_vs_crit=0.75 ratio hwmon",
                "scrape_seconds=0.125 seconds prometheus",
                "disk_busy=0.5 ratio node_exporter",
                "pods_used=0.5 ratio kube_state_metrics",
            ]
        );
        assert_eq!(
            set("tcp_retrans_ratio", 0.0, 0)[3].as_deref(),
            Some("tcp_retrans_ratio=0 ratio node_exporter")
        );
        assert_eq!(
            set("net_latency_probe", 0.25, 0)[3].as_deref(),
            Some("net_latency_probe=0.25 seconds icmp_probe")
        );
    }
}
