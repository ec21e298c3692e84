//! The only place that reads clocks. Everything else is handed a [`Timestamp`] or a [`Clock`].

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// What time it is, by the wall and by a clock that nobody can set.
pub trait Clock: Send + Sync + 'static {
    /// The time by the wall clock. It can jump, forwards and backwards.
    fn now(&self) -> Timestamp;

    /// Time since some fixed point in the past that never jumps and does *not* stand still while the
    /// machine is suspended. What a Lease is judged by: a leader that was suspended must know on waking
    /// that its Lease has run out, and `Instant` would tell it that no time has passed.
    fn boottime(&self) -> Duration;
}

/// The clocks of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn boottime(&self) -> Duration {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let id = rustix::time::ClockId::Boottime;
        // Elsewhere foreshock is only developed; the monotonic clock will do.
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let id = rustix::time::ClockId::Monotonic;
        let time = rustix::time::clock_gettime(id);
        Duration::new(
            u64::try_from(time.tv_sec).unwrap_or(0),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        )
    }
}

/// A clock that runs with tokio's, so that it stands still and jumps with a paused runtime; its wall
/// clock can be set besides. For tests and for the simulator.
#[derive(Debug)]
pub struct VirtualClock {
    started: tokio::time::Instant,
    wall: Mutex<Timestamp>,
    suspended: Mutex<Duration>,
}

impl VirtualClock {
    /// A clock that shows `at` now. Must be called within a tokio runtime.
    pub fn new(at: Timestamp) -> Self {
        Self {
            started: tokio::time::Instant::now(),
            wall: Mutex::new(at),
            suspended: Mutex::new(Duration::ZERO),
        }
    }

    /// Sets the wall clock forwards or backwards, as an administrator or NTP would.
    pub fn jump(&self, by: SignedDuration) {
        let mut wall = self.wall.lock().unwrap_or_else(PoisonError::into_inner);
        *wall = wall.checked_add(by).unwrap_or(*wall);
    }

    /// Lets time pass that the process does not notice, as when its machine is suspended.
    pub fn suspend(&self, lasting: Duration) {
        *self
            .suspended
            .lock()
            .unwrap_or_else(PoisonError::into_inner) += lasting;
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        let wall = *self.wall.lock().unwrap_or_else(PoisonError::into_inner);
        foreshock_core::time::after(wall, self.boottime())
    }

    fn boottime(&self) -> Duration {
        self.started.elapsed()
            + *self
                .suspended
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_only_goes_forwards() {
        let first = SystemClock.boottime();
        let second = SystemClock.boottime();
        assert!(second >= first);
        assert!(first > Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspended_machine_shows_on_both_clocks_and_a_set_one_only_on_the_wall() {
        let clock = VirtualClock::new(Timestamp::UNIX_EPOCH);
        tokio::time::advance(Duration::from_secs(5)).await;
        clock.suspend(Duration::from_secs(60));
        clock.jump(SignedDuration::from_secs(-10));
        assert_eq!(clock.boottime(), Duration::from_secs(65));
        assert_eq!(clock.now(), Timestamp::from_second(55).expect("in range"));
    }
}
