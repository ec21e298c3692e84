//! Name, type and help of every metric family that a fleet shows, as the real exporters have them.

use super::text::Kind;

/// Sorted by name.
#[rustfmt::skip]
const FAMILIES: [(&str, Kind, &str); 113] = [
    ("kube_node_status_allocatable", Kind::Gauge, "[STABLE] The allocatable for different resources of a node that are available for scheduling."),
    ("kube_node_status_condition", Kind::Gauge, "[STABLE] The condition of a cluster node."),
    ("kube_pod_container_status_restarts_total", Kind::Counter, "[STABLE] The number of container restarts per container."),
    ("kube_pod_info", Kind::Gauge, "[STABLE] Information about pod."),
    ("kubelet_node_name", Kind::Gauge, "[ALPHA] The node's name. The count is always 1."),
    ("kubelet_pleg_relist_duration_seconds", Kind::Histogram, "[ALPHA] Duration in seconds for relisting pods in PLEG."),
    ("kubelet_running_pods", Kind::Gauge, "[ALPHA] Number of pods that have a running pod sandbox"),
    ("node_boot_time_seconds", Kind::Gauge, "Node boot time, in unixtime."),
    ("node_context_switches_total", Kind::Counter, "Total number of context switches."),
    ("node_cpu_core_throttles_total", Kind::Counter, "Number of times this CPU core has been throttled."),
    ("node_cpu_seconds_total", Kind::Counter, "Seconds the CPUs spent in each mode."),
    ("node_disk_io_now", Kind::Gauge, "The number of I/Os currently in progress."),
    ("node_disk_io_time_seconds_total", Kind::Counter, "Total seconds spent doing I/Os."),
    ("node_disk_io_time_weighted_seconds_total", Kind::Counter, "The weighted # of seconds spent doing I/Os."),
    ("node_disk_read_bytes_total", Kind::Counter, "The total number of bytes read successfully."),
    ("node_disk_read_time_seconds_total", Kind::Counter, "The total number of seconds spent by all reads."),
    ("node_disk_reads_completed_total", Kind::Counter, "The total number of reads completed successfully."),
    ("node_disk_reads_merged_total", Kind::Counter, "The total number of reads merged."),
    ("node_disk_write_time_seconds_total", Kind::Counter, "This is the total number of seconds spent by all writes."),
    ("node_disk_writes_completed_total", Kind::Counter, "The total number of writes completed successfully."),
    ("node_disk_writes_merged_total", Kind::Counter, "The number of writes merged."),
    ("node_disk_written_bytes_total", Kind::Counter, "The total number of bytes written successfully."),
    ("node_edac_correctable_errors_total", Kind::Counter, "Total correctable memory errors."),
    ("node_edac_uncorrectable_errors_total", Kind::Counter, "Total uncorrectable memory errors."),
    ("node_entropy_available_bits", Kind::Gauge, "Bits of available entropy."),
    ("node_entropy_pool_size_bits", Kind::Gauge, "Bits of entropy pool."),
    ("node_exporter_build_info", Kind::Gauge, "A metric with a constant '1' value labeled by version, revision, branch, goversion from which node_exporter was built, and the goos and goarch for the build."),
    ("node_filefd_allocated", Kind::Gauge, "File descriptor statistics: allocated."),
    ("node_filefd_maximum", Kind::Gauge, "File descriptor statistics: maximum."),
    ("node_filesystem_avail_bytes", Kind::Gauge, "Filesystem space available to non-root users in bytes."),
    ("node_filesystem_device_error", Kind::Gauge, "Whether an error occurred while getting statistics for the given device."),
    ("node_filesystem_files", Kind::Gauge, "Filesystem total file nodes."),
    ("node_filesystem_files_free", Kind::Gauge, "Filesystem total free file nodes."),
    ("node_filesystem_free_bytes", Kind::Gauge, "Filesystem free space in bytes."),
    ("node_filesystem_readonly", Kind::Gauge, "Filesystem read-only status."),
    ("node_filesystem_size_bytes", Kind::Gauge, "Filesystem size in bytes."),
    ("node_forks_total", Kind::Counter, "Total number of forks."),
    ("node_hwmon_chip_names", Kind::Gauge, "Annotation metric for human-readable chip names"),
    ("node_hwmon_sensor_label", Kind::Gauge, "Label for given chip and sensor"),
    ("node_hwmon_temp_celsius", Kind::Gauge, "Hardware monitor for temperature (input)"),
    ("node_hwmon_temp_crit_celsius", Kind::Gauge, "Hardware monitor for temperature (crit)"),
    ("node_intr_total", Kind::Counter, "Total number of interrupts serviced."),
    ("node_load1", Kind::Gauge, "1m load average."),
    ("node_load15", Kind::Gauge, "15m load average."),
    ("node_load5", Kind::Gauge, "5m load average."),
    ("node_md_disks", Kind::Gauge, "Number of active/failed/spare disks of device."),
    ("node_md_disks_required", Kind::Gauge, "Total number of disks of device."),
    ("node_memory_AnonPages_bytes", Kind::Gauge, "Memory information field AnonPages_bytes."),
    ("node_memory_Buffers_bytes", Kind::Gauge, "Memory information field Buffers_bytes."),
    ("node_memory_Cached_bytes", Kind::Gauge, "Memory information field Cached_bytes."),
    ("node_memory_CommitLimit_bytes", Kind::Gauge, "Memory information field CommitLimit_bytes."),
    ("node_memory_Committed_AS_bytes", Kind::Gauge, "Memory information field Committed_AS_bytes."),
    ("node_memory_HardwareCorrupted_bytes", Kind::Gauge, "Memory information field HardwareCorrupted_bytes."),
    ("node_memory_MemAvailable_bytes", Kind::Gauge, "Memory information field MemAvailable_bytes."),
    ("node_memory_MemFree_bytes", Kind::Gauge, "Memory information field MemFree_bytes."),
    ("node_memory_MemTotal_bytes", Kind::Gauge, "Memory information field MemTotal_bytes."),
    ("node_memory_SReclaimable_bytes", Kind::Gauge, "Memory information field SReclaimable_bytes."),
    ("node_memory_SUnreclaim_bytes", Kind::Gauge, "Memory information field SUnreclaim_bytes."),
    ("node_memory_Slab_bytes", Kind::Gauge, "Memory information field Slab_bytes."),
    ("node_memory_SwapFree_bytes", Kind::Gauge, "Memory information field SwapFree_bytes."),
    ("node_memory_SwapTotal_bytes", Kind::Gauge, "Memory information field SwapTotal_bytes."),
    ("node_netstat_IpExt_InOctets", Kind::Untyped, "Statistic IpExtInOctets."),
    ("node_netstat_IpExt_OutOctets", Kind::Untyped, "Statistic IpExtOutOctets."),
    ("node_netstat_TcpExt_ListenDrops", Kind::Untyped, "Statistic TcpExtListenDrops."),
    ("node_netstat_TcpExt_ListenOverflows", Kind::Untyped, "Statistic TcpExtListenOverflows."),
    ("node_netstat_TcpExt_TCPTimeouts", Kind::Untyped, "Statistic TcpExtTCPTimeouts."),
    ("node_netstat_Tcp_ActiveOpens", Kind::Untyped, "Statistic TcpActiveOpens."),
    ("node_netstat_Tcp_InSegs", Kind::Untyped, "Statistic TcpInSegs."),
    ("node_netstat_Tcp_OutSegs", Kind::Untyped, "Statistic TcpOutSegs."),
    ("node_netstat_Tcp_PassiveOpens", Kind::Untyped, "Statistic TcpPassiveOpens."),
    ("node_netstat_Tcp_RetransSegs", Kind::Untyped, "Statistic TcpRetransSegs."),
    ("node_network_carrier_changes_total", Kind::Counter, "Network device property: carrier_changes_total"),
    ("node_network_receive_bytes_total", Kind::Counter, "Network device statistic receive_bytes."),
    ("node_network_receive_drop_total", Kind::Counter, "Network device statistic receive_drop."),
    ("node_network_receive_errs_total", Kind::Counter, "Network device statistic receive_errs."),
    ("node_network_receive_packets_total", Kind::Counter, "Network device statistic receive_packets."),
    ("node_network_speed_bytes", Kind::Gauge, "Network device property: speed_bytes"),
    ("node_network_transmit_bytes_total", Kind::Counter, "Network device statistic transmit_bytes."),
    ("node_network_transmit_drop_total", Kind::Counter, "Network device statistic transmit_drop."),
    ("node_network_transmit_errs_total", Kind::Counter, "Network device statistic transmit_errs."),
    ("node_network_transmit_packets_total", Kind::Counter, "Network device statistic transmit_packets."),
    ("node_network_up", Kind::Gauge, "Value is 1 if operstate is 'up', 0 otherwise."),
    ("node_nf_conntrack_entries", Kind::Gauge, "Number of currently allocated flow entries for connection tracking."),
    ("node_nf_conntrack_entries_limit", Kind::Gauge, "Maximum size of connection tracking table."),
    ("node_pressure_cpu_waiting_seconds_total", Kind::Counter, "Total time in seconds that processes have waited for CPU time"),
    ("node_pressure_io_stalled_seconds_total", Kind::Counter, "Total time in seconds no process could make progress due to IO congestion"),
    ("node_pressure_io_waiting_seconds_total", Kind::Counter, "Total time in seconds that processes have waited due to IO congestion"),
    ("node_pressure_memory_stalled_seconds_total", Kind::Counter, "Total time in seconds no process could make progress due to memory congestion"),
    ("node_pressure_memory_waiting_seconds_total", Kind::Counter, "Total time in seconds that processes have waited for memory"),
    ("node_procs_blocked", Kind::Gauge, "Number of processes blocked waiting for I/O to complete."),
    ("node_procs_running", Kind::Gauge, "Number of processes in runnable state."),
    ("node_scrape_collector_duration_seconds", Kind::Gauge, "node_exporter: Duration of a collector scrape."),
    ("node_scrape_collector_success", Kind::Gauge, "node_exporter: Whether a collector succeeded."),
    ("node_softnet_dropped_total", Kind::Counter, "Number of dropped packets"),
    ("node_softnet_processed_total", Kind::Counter, "Number of processed packets"),
    ("node_softnet_times_squeezed_total", Kind::Counter, "Number of times processing packets ran out of quota"),
    ("node_thermal_zone_temp", Kind::Gauge, "Zone temperature in Celsius"),
    ("node_time_seconds", Kind::Gauge, "System time in seconds since epoch (1970)."),
    ("node_timex_estimated_error_seconds", Kind::Gauge, "Estimated error in seconds."),
    ("node_timex_maxerror_seconds", Kind::Gauge, "Maximum error in seconds."),
    ("node_timex_offset_seconds", Kind::Gauge, "Time offset in between local system and reference clock."),
    ("node_timex_sync_status", Kind::Gauge, "Is clock synchronized to a reliable server (1 = yes, 0 = no)."),
    ("node_uname_info", Kind::Gauge, "Labeled system information as provided by the uname system call."),
    ("node_vmstat_oom_kill", Kind::Untyped, "/proc/vmstat information field oom_kill."),
    ("node_vmstat_pgfault", Kind::Untyped, "/proc/vmstat information field pgfault."),
    ("node_vmstat_pgmajfault", Kind::Untyped, "/proc/vmstat information field pgmajfault."),
    ("node_vmstat_pgpgin", Kind::Untyped, "/proc/vmstat information field pgpgin."),
    ("node_vmstat_pgpgout", Kind::Untyped, "/proc/vmstat information field pgpgout."),
    ("node_vmstat_pswpin", Kind::Untyped, "/proc/vmstat information field pswpin."),
    ("node_vmstat_pswpout", Kind::Untyped, "/proc/vmstat information field pswpout."),
    ("probe_duration_seconds", Kind::Gauge, "Returns how long the probe took to complete in seconds"),
    ("probe_icmp_duration_seconds", Kind::Gauge, "Duration of icmp request by phase"),
    ("probe_success", Kind::Gauge, "Displays whether or not the probe was a success"),
];

/// Type and help of a family; untyped and its own name for one that is not in the table.
pub(super) fn of(name: &'static str) -> (Kind, &'static str) {
    match FAMILIES.binary_search_by_key(&name, |(name, _, _)| name) {
        Ok(place) => (FAMILIES[place].1, FAMILIES[place].2),
        Err(_) => (Kind::Untyped, name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_sorted_and_counters_are_named_so() {
        assert!(FAMILIES.is_sorted_by(|a, b| a.0 < b.0));
        for (name, kind, help) in FAMILIES {
            assert!(!help.is_empty());
            assert_eq!(
                matches!(kind, Kind::Counter),
                name.ends_with("_total"),
                "{name}"
            );
        }
    }
}
