//! At most so many in any second.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Hands out turns, at most so many in *any* window of one second: a bucket that refills would let
/// twice as many through in its first.
#[derive(Debug)]
pub struct Rate {
    per_second: usize,
    turns: Mutex<Turns>,
}

#[derive(Debug, Default)]
struct Turns {
    /// When the last `per_second` turns are or were, oldest first.
    given: VecDeque<Instant>,
    not_before: Option<Instant>,
}

impl Rate {
    /// So many turns a second, at least one.
    pub fn per_second(turns: u32) -> Self {
        Self {
            per_second: usize::try_from(turns).unwrap_or(usize::MAX).max(1),
            turns: Mutex::default(),
        }
    }

    /// Waits for one's turn. A turn that is not waited for is lost, which errs on the slow side.
    pub async fn turn(&self) {
        let at = self.reserve();
        tokio::time::sleep_until(at).await;
    }

    /// Takes a turn if there is one at once.
    pub fn try_turn(&self) -> bool {
        let now = Instant::now();
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.next(self.per_second, now) > now {
            return false;
        }
        turns.give(self.per_second, now);
        true
    }

    /// When the next turn can be had.
    pub fn ready_at(&self) -> Instant {
        let now = Instant::now();
        let turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.next(self.per_second, now)
    }

    /// Gives no turn for so long, because a server asked for quiet.
    pub fn quiet(&self, lasting: Duration) {
        let until = Instant::now() + lasting;
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.not_before = turns.not_before.max(Some(until));
    }

    fn reserve(&self) -> Instant {
        let now = Instant::now();
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let at = turns.next(self.per_second, now);
        turns.give(self.per_second, at);
        at
    }
}

impl Turns {
    fn next(&self, per_second: usize, now: Instant) -> Instant {
        let window = if self.given.len() < per_second {
            now
        } else {
            self.given
                .front()
                .map_or(now, |oldest| *oldest + Duration::from_secs(1))
        };
        // Turns are given in order, also after a time of quiet.
        let last = self.given.back().copied().unwrap_or(now);
        window
            .max(now)
            .max(last)
            .max(self.not_before.unwrap_or(now))
    }

    fn give(&mut self, per_second: usize, at: Instant) {
        if self.given.len() >= per_second {
            self.given.pop_front();
        }
        self.given.push_back(at);
    }
}

/// A number from 0 to 1 that differs from process to process and call to call. Only for spreading
/// retries: nothing that is decided depends on it.
pub fn chance() -> f64 {
    let hash = RandomState::new().hash_one(0_u8) >> 11;
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit exactly")]
    let share = hash as f64 / (1_u64 << 53) as f64;
    share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_window_of_a_second_has_more_than_allowed() {
        let rate = Rate::per_second(20);
        let mut times = Vec::new();
        for turn in 0..100 {
            rate.turn().await;
            times.push(Instant::now());
            // Unevenly, so that windows do not line up with the start.
            tokio::time::advance(Duration::from_millis(turn % 7)).await;
        }
        for (at, later) in times.iter().zip(&times[20..]) {
            assert!(*later - *at >= Duration::from_secs(1));
        }
        // And not slower than allowed.
        assert!(
            times[99] - times[0] < Duration::from_millis(5500),
            "{:?}",
            times[99] - times[0]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_turns_come_at_once_and_quiet_holds_all() {
        let start = Instant::now();
        let rate = Rate::per_second(3);
        assert!(rate.try_turn() && rate.try_turn() && rate.try_turn() && !rate.try_turn());
        rate.quiet(Duration::from_secs(10));
        rate.turn().await;
        assert_eq!(start.elapsed(), Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_of_nothing_is_one_a_second() {
        let start = Instant::now();
        let rate = Rate::per_second(0);
        rate.turn().await;
        rate.turn().await;
        assert_eq!(start.elapsed(), Duration::from_secs(1));
    }
}
