//! Which points are missing, and how they are put in where they belong.
//!
//! A day is made anew as a whole, in the order of time: only so it is the same as if it had been watched.

use jiff::Timestamp;

use super::cell::{DAYS, POINTS};
use super::{DAY_POINTS, History, MISSING, Remembered, day_of, differ, slot_of, time_of};

/// A stretch of time of which points are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gap {
    /// Of the last hour: any of its matrices may be given to [`History::take`].
    Hour,
    /// Of the day that the last hour began in: a [`History::scratch`] that has taken all of them up to now
    /// is given to [`History::resume`].
    Today,
    /// Of this day before, counted from 1970: a scratch that has taken all of them is given to
    /// [`History::adopt`].
    Day(i64),
}

impl History {
    /// Which points are missing, what is most useful first. Nothing before the first matrix.
    pub fn gaps(&self) -> Vec<Gap> {
        let Some(newest) = self.newest.filter(|_| self.is_wanted()) else {
            return Vec::new();
        };
        let oldest = newest + 1 - POINTS as i64;
        let today = day_of(oldest);
        let mut gaps = Vec::new();
        if self.taken.count_ones() < POINTS as u32 {
            gaps.push(Gap::Hour);
        }
        if self.taken_of(today) < oldest - today * DAY_POINTS {
            gaps.push(Gap::Today);
        }
        let days = Self::days_before(newest).rev();
        let days = days.filter(|day| self.taken_of(*day) < DAY_POINTS);
        gaps.extend(days.map(Gap::Day));
        gaps
    }

    /// The first and the last time of a gap; `None` before the first matrix.
    pub fn span(&self, gap: Gap) -> Option<(Timestamp, Timestamp)> {
        let newest = self.newest?;
        let oldest = newest + 1 - POINTS as i64;
        let (from, to) = match gap {
            Gap::Hour => (oldest, newest),
            Gap::Today => (day_of(oldest) * DAY_POINTS, newest),
            Gap::Day(day) => (day * DAY_POINTS, (day + 1) * DAY_POINTS - 1),
        };
        Some((time_of(from), time_of(to)))
    }

    /// An empty history of the same features, to take the matrices of a gap in the order of time.
    pub fn scratch(&self) -> Self {
        let features = self.features.iter().map(|feature| Remembered {
            name: feature.name.clone(),
            code: feature.code,
            noise: feature.noise,
            cells: Vec::new(),
        });
        Self {
            features: features.collect(),
            ..Self::default()
        }
    }

    /// Takes a day from a scratch of [`Gap::Day`]. Says whether it did: not where this history has
    /// meanwhile gone on to other features, or past that day.
    pub fn adopt(&mut self, day: i64, mut scratch: Self) -> bool {
        let Some(newest) = self.newest.filter(|_| self.is_like(&scratch)) else {
            return false;
        };
        if !Self::days_before(newest).contains(&day) {
            return false;
        }
        if let Some(last) = scratch.newest {
            scratch.advance(last + POINTS as i64);
        }
        let place = day.rem_euclid(DAYS as i64) as usize;
        if scratch.days[place].day != Some(day) {
            return false;
        }
        self.forget_day(place);
        self.days[place] = scratch.days[place];
        for (from, known) in scratch.known.iter().enumerate() {
            let uid = known.uid.clone();
            let Some(to) = self.place(&known.name, uid, known.seen) else {
                continue;
            };
            for (mine, theirs) in self.features.iter_mut().zip(&scratch.features) {
                mine.cells[to].copy_day(place, &theirs.cells[from]);
            }
        }
        true
    }

    /// Goes on from a scratch of [`Gap::Today`]: its day so far and its last hour, then the points that
    /// this history has taken since; the days before stay. Says whether it did: not where this history
    /// has meanwhile gone on to other features, or more than an hour.
    pub fn resume(&mut self, mut scratch: Self) -> bool {
        let Some((newest, reached)) = self.newest.zip(scratch.newest) else {
            return false;
        };
        if !self.is_like(&scratch) || reached + (POINTS as i64) < newest {
            return false;
        }
        let today = day_of(newest + 1 - POINTS as i64);
        let before: Vec<usize> = (0..DAYS)
            .filter(|slot| self.days[*slot].day.is_some_and(|day| day < today))
            .filter(|slot| scratch.days[*slot].day.is_none())
            .collect();
        for slot in &before {
            scratch.days[*slot] = self.days[*slot];
        }
        for (place, known) in self.known.iter().enumerate() {
            let uid = known.uid.clone();
            let Some(to) = scratch.place(&known.name, uid, known.seen) else {
                continue;
            };
            for (theirs, mine) in scratch.features.iter_mut().zip(&self.features) {
                for slot in &before {
                    theirs.cells[to].copy_day(*slot, &mine.cells[place]);
                }
            }
        }
        let oldest = newest + 1 - POINTS as i64;
        for point in oldest..=newest {
            scratch.copy_point(self, point);
        }
        *self = scratch;
        true
    }

    /// Takes a point of another history of the same Nodes, where it has none.
    fn copy_point(&mut self, other: &Self, point: i64) {
        let slot = slot_of(point);
        let bit = 1 << slot;
        if self.newest.is_none_or(|newest| newest < point) {
            self.advance(point);
        }
        if !self.in_ring(point) || self.taken & bit != 0 || other.there & bit == 0 {
            return;
        }
        for (place, known) in other.known.iter().enumerate() {
            let Some(to) = self.nodes.get(&known.name).copied() else {
                continue;
            };
            if differ(self.known[to].uid.as_ref(), known.uid.as_ref()) {
                continue;
            }
            for (mine, theirs) in self.features.iter_mut().zip(&other.features) {
                let code = theirs
                    .cells
                    .get(place)
                    .map_or(MISSING, |cell| cell.code(slot));
                mine.cells[to].put(slot, code);
            }
        }
        self.there |= bit;
        self.taken |= other.taken & bit;
        self.told |= other.told & bit;
    }

    /// The days before today that count: six, and a seventh until today has its first point.
    fn days_before(newest: i64) -> std::ops::Range<i64> {
        let today = day_of(newest + 1 - POINTS as i64);
        let last = day_of(newest - POINTS as i64);
        last + 1 - DAYS as i64..today
    }

    /// Whole points of a day that have left the ring.
    fn taken_of(&self, day: i64) -> i64 {
        let slot = &self.days[day.rem_euclid(DAYS as i64) as usize];
        let of_it = slot.day == Some(day);
        if of_it { i64::from(slot.taken) } else { 0 }
    }

    /// Whether another history remembers the same features in the same way.
    fn is_like(&self, other: &Self) -> bool {
        let both = self.features.iter().zip(&other.features);
        self.features.len() == other.features.len()
            && both
                .into_iter()
                .all(|(a, b)| (&a.name, a.code, a.noise) == (&b.name, b.code, b.noise))
    }
}
