//! How much memory a piece of work takes.

use std::hint::black_box;

/// By how much memory in use grew at its highest while `work` ran, in MiB; `None` where Linux's
/// /proc does not tell.
pub(crate) fn peak_of<T>(work: impl FnOnce() -> T) -> Option<f64> {
    let read = |key: &str| {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().trim_end_matches(" kB").parse::<f64>().ok()
    };
    // Puts the highest mark back to what is in use now.
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    let before = read("VmRSS:")?;
    drop(black_box(work()));
    Some((read("VmHWM:")? - before) / 1_024.0)
}
