//! Maintenance windows: the times of the week in which drains may start.

use jiff::Timestamp;
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;

/// A stretch of the day, on some days of the week, in one time zone.
///
/// A window whose end is not after its beginning runs past midnight; its day is the one it begins on.
/// Where a clock change skips the beginning, the window begins right after the gap.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Days on which it begins; every day, where there is none.
    pub days: Vec<Weekday>,
    /// Local time at which it opens, inclusive.
    pub from: Time,
    /// Local time at which it closes, exclusive.
    pub to: Time,
    /// Whose clock.
    pub time_zone: TimeZone,
}

/// The next opening is looked for so many days ahead: a week, and a day for either end.
const DAYS_AHEAD: i64 = 8;

impl Window {
    /// Whether the window is open.
    pub fn contains(&self, at: Timestamp) -> bool {
        self.openings(at, -1..=0)
            .any(|(opens, closes)| opens <= at && at < closes)
    }

    /// When it opens next, if it is closed now.
    fn opens_at(&self, at: Timestamp) -> Option<Timestamp> {
        self.openings(at, -1..=DAYS_AHEAD)
            .map(|(opens, _)| opens)
            .filter(|opens| *opens > at)
            .min()
    }

    /// Openings and closings of the days around a time.
    fn openings(
        &self,
        at: Timestamp,
        days: std::ops::RangeInclusive<i64>,
    ) -> impl Iterator<Item = (Timestamp, Timestamp)> + '_ {
        let today = self.time_zone.to_datetime(at).date();
        days.filter_map(move |offset| {
            let day = today
                .checked_add(jiff::Span::new().try_days(offset).ok()?)
                .ok()?;
            if !self.days.is_empty() && !self.days.contains(&day.weekday()) {
                return None;
            }
            let last = if self.to > self.from {
                day
            } else {
                day.tomorrow().ok()?
            };
            let moment = |day: jiff::civil::Date, time| {
                self.time_zone
                    .to_ambiguous_timestamp(day.to_datetime(time))
                    .compatible()
                    .ok()
            };
            Some((moment(day, self.from)?, moment(last, self.to)?))
        })
    }
}

/// Whether drains may start now, and if not, when they may (`None`: not within the coming week).
///
/// # Errors
///
/// The time at which the next window opens.
pub fn open(windows: &[Window], at: Timestamp) -> Result<(), Option<Timestamp>> {
    if windows.is_empty() || windows.iter().any(|window| window.contains(at)) {
        return Ok(());
    }
    Err(windows
        .iter()
        .filter_map(|window| window.opens_at(at))
        .min())
}
