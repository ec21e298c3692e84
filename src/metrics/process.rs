//! What the operating system says about this process. On Linux only; elsewhere nothing is said.

use std::fs;

/// What the operating system says about this process; `None` where it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Process {
    /// User and system time, in seconds.
    pub(super) cpu_seconds: Option<f64>,
    /// Bytes in memory.
    pub(super) resident_bytes: Option<u64>,
    /// Open file descriptors.
    pub(super) open_fds: Option<u64>,
}

impl Process {
    pub(super) fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).ok();
        Self {
            cpu_seconds: text("/proc/self/stat").and_then(|stat| cpu_seconds(&stat)),
            resident_bytes: text("/proc/self/status").and_then(|status| resident_bytes(&status)),
            open_fds: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|entries| entries.count() as u64),
        }
    }
}

/// Linux gives times to user space in hundredths of a second on every architecture (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

fn cpu_seconds(stat: &str) -> Option<f64> {
    // The second field is the command in brackets and may contain both blanks and brackets.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_kernel_are_read() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 9 0 0 0 150 25 0 0 20 0 8 0 1 2 3";
        assert_eq!(cpu_seconds(stat), Some(1.75));
        assert_eq!(
            resident_bytes("VmHWM:\t 9 kB\nVmRSS:\t   512 kB\n"),
            Some(524_288)
        );
        assert_eq!(
            (cpu_seconds(""), resident_bytes("VmRSS: many")),
            (None, None)
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_very_process_has_memory_and_files() {
        let process = Process::read();
        assert!(process.resident_bytes > Some(1 << 20), "{process:?}");
        assert!(process.open_fds > Some(2), "{process:?}");
        assert!(process.cpu_seconds.is_some());
    }
}
