//! Arithmetic on times that cannot overflow into a panic.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// `at` plus `duration`, or the last time there is.
pub fn after(at: Timestamp, duration: Duration) -> Timestamp {
    SignedDuration::try_from(duration)
        .ok()
        .and_then(|duration| at.checked_add(duration).ok())
        .unwrap_or(Timestamp::MAX)
}

/// `at` minus `duration`, or the first time there is.
pub fn ago(at: Timestamp, duration: Duration) -> Timestamp {
    SignedDuration::try_from(duration)
        .ok()
        .and_then(|duration| at.checked_sub(duration).ok())
        .unwrap_or(Timestamp::MIN)
}

/// How long after `earlier` the other is; zero if it is not after.
pub fn since(earlier: Timestamp, later: Timestamp) -> Duration {
    later
        .duration_since(earlier)
        .try_into()
        .unwrap_or(Duration::ZERO)
}
