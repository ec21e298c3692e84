//! Whether the time between two decisions has really passed, and was seen to pass.
//!
//! Every wait of a decision (at risk for so long, well for so long, so many drains within the hour)
//! compares times of the wall clock, which anybody can set. A clock that nobody can set tells how much
//! of it was real. And what was not looked at for a long while, as when the process was suspended, was
//! not seen to be at risk, or well, all that time.

use std::time::Duration;

use foreshock_core::decision::policy::{Policy, Rules};
use foreshock_core::record::ClusterRecord;
use jiff::{SignedDuration, Timestamp};

/// The wall clock may differ from the other by so much between two looks, which are seconds apart. A
/// clock that is slewed stays far below it.
const JUMP_MIN: SignedDuration = SignedDuration::from_secs(5);
/// The window of `drains_per_hour`.
const HOUR: Duration = Duration::from_secs(3600);

/// What is wrong with the time that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Break {
    /// The wall clock was set forwards (above zero) or backwards.
    Jumped(SignedDuration),
    /// Nothing was decided for so long.
    Unwatched(Duration),
}

/// Watches both clocks.
#[derive(Debug, Default)]
pub(super) struct Times {
    looked: Option<(Timestamp, Duration)>,
    decided: Option<Duration>,
    /// Until when, by the clock that nobody can set, nothing is begun; and why, in words.
    settles: Option<(Duration, String)>,
}

impl Times {
    /// Looks at both clocks: whether the wall clock has jumped since the last look.
    pub(super) fn look(&mut self, wall: Timestamp, boot: Duration) -> Option<SignedDuration> {
        let (wall_before, boot_before) = self.looked.replace((wall, boot))?;
        let passed = SignedDuration::try_from(boot.saturating_sub(boot_before))
            .unwrap_or(SignedDuration::MAX);
        let by = wall.duration_since(wall_before).saturating_sub(passed);
        (by.abs() > JUMP_MIN).then_some(by)
    }

    /// Looks at the boot clock at a decision: whether nothing was decided for longer than `longest`.
    pub(super) fn decide(&mut self, boot: Duration, longest: Duration) -> Option<Duration> {
        let gap = boot.saturating_sub(self.decided.replace(boot)?);
        (gap > longest).then_some(gap)
    }

    /// Has nothing begun for so long. What was to settle before goes on.
    pub(super) fn settle(&mut self, boot: Duration, lasting: Duration, why: String) {
        let until = boot + lasting;
        if self
            .settles
            .as_ref()
            .is_none_or(|(known, _)| *known <= until)
        {
            self.settles = Some((until, why));
        }
    }

    /// Why nothing is begun at present, and for how much longer.
    pub(super) fn settling(&mut self, boot: Duration) -> Option<(&str, Duration)> {
        if self
            .settles
            .as_ref()
            .is_some_and(|(until, _)| *until <= boot)
        {
            self.settles = None;
        }
        let (until, why) = self.settles.as_ref()?;
        Some((why, until.saturating_sub(boot)))
    }
}

/// How long nothing may be begun after a jump, so that every wait that is measured from a record has
/// really passed. Waits that are measured from memory begin again anyway.
pub(super) fn settle_for(
    policy: &Policy,
    by: SignedDuration,
    record: Option<&ClusterRecord>,
) -> Duration {
    let of = |rules: &Rules| rules.confirm_for.max(rules.drain_after);
    let waits = policy
        .pools
        .iter()
        .map(|pool| of(&pool.rules))
        .fold(of(&policy.rules), Duration::max)
        .max(policy.limits.storm_window);
    // A clock that was set forwards makes the drains of the last hour look older than they are.
    let drained_lately = record.is_none_or(|record| !record.drains.is_empty());
    if by.is_positive() && drained_lately {
        waits.max(HOUR)
    } else {
        waits
    }
}

/// A jump in words for an operator.
pub(super) fn words(by: SignedDuration) -> String {
    let rounded = Duration::from_secs(by.unsigned_abs().as_secs());
    let direction = if by.is_positive() {
        "forwards"
    } else {
        "backwards"
    };
    format!(
        "the clock was set {direction} by {}",
        humantime::format_duration(rounded)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wall(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + seconds).expect("in range")
    }

    fn boot(seconds: u64) -> Duration {
        Duration::from_secs(1_000 + seconds)
    }

    #[test]
    fn a_clock_that_runs_does_not_jump_however_long_nobody_looks() {
        let mut times = Times::default();
        assert_eq!(
            times.look(wall(0), boot(0)),
            None,
            "nothing to compare with"
        );
        assert_eq!(times.look(wall(15), boot(15)), None);
        assert_eq!(times.look(wall(90_000), boot(90_000)), None);
        assert_eq!(times.look(wall(90_018), boot(90_015)), None, "slewed");
    }

    #[test]
    fn a_clock_that_is_set_jumps_once() {
        for by in [-86_400, -21_600, -6, 6, 21_600] {
            let mut times = Times::default();
            times.look(wall(0), boot(0));
            let jumped = times.look(wall(15 + by), boot(15));
            assert_eq!(jumped, Some(SignedDuration::from_secs(by)));
            assert_eq!(times.look(wall(30 + by), boot(30)), None, "{by}");
        }
    }

    #[test]
    fn what_settles_longer_is_not_cut_short() {
        let mut times = Times::default();
        times.settle(boot(0), HOUR, "first".into());
        times.settle(boot(10), Duration::from_secs(60), "second".into());
        assert_eq!(
            times.settling(boot(100)),
            Some(("first", Duration::from_secs(3_500)))
        );
        assert_eq!(times.settling(boot(3_600)), None);
    }

    #[test]
    fn a_gap_is_one_only_beyond_the_age_that_scores_may_have() {
        let mut times = Times::default();
        let longest = Duration::from_secs(60);
        assert_eq!(times.decide(boot(0), longest), None);
        assert_eq!(times.decide(boot(60), longest), None);
        assert_eq!(times.decide(boot(121), longest), Some(boot(61) - boot(0)));
    }
}
