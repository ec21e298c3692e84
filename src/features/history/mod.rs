//! What is remembered of earlier matrices: the last hour, and the week before it.
//!
//! On a grid of five minutes, so that history asked for later is the same points. Per feature and Node 96
//! bytes: 13 points of the last hour in 16 bits each (`code`), and of each of seven days (UTC) number,
//! mean and spread of the points (`cell`). A point goes into its day when it is older than an hour: an
//! incident does not hide itself by becoming usual. The seventh day back leaves as a whole, so the week is
//! six to seven days.
//!
//! What a feature was is a function of the points alone, not of when or in which order they came:
//! a process that has run for a week, one that has just filled its history from Prometheus, and one that
//! makes training rows hold the same numbers, to the bit.

mod cell;
mod code;
mod gaps;

use std::collections::BTreeMap;
use std::time::Duration;

use foreshock_core::node::{NodeName, Uid};
use jiff::Timestamp;

use self::cell::{DAYS, POINTS};
use self::code::{Code, MISSING};
use super::columns::ColumnName;
use super::matrix::FeatureMatrix;
use super::schema::{FeatureName, Schema};

pub(super) use cell::Cell;
pub use gaps::Gap;

/// Distance of two points.
pub const GRID: Duration = Duration::from_secs(300);

/// The trailing week, with the hour before now.
pub const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// Points of a day.
const DAY_POINTS: i64 = 288;
/// Points of the week.
const WEEK_POINTS: i64 = DAY_POINTS * DAYS as i64;
/// Fewer points of the last hour than half an hour's say nothing about how much it changed.
const HOUR_POINTS_MIN: u32 = 7;
/// Less than a day has no night, or no noon: nobody knows what is usual.
const WEEK_POINTS_MIN: u32 = DAY_POINTS as u32;
/// Nodes that vanished are remembered for a week, and this many beside twice those that are there.
const VANISHED_MAX: usize = 100;

/// What is remembered of earlier matrices, as far as columns need it.
#[derive(Clone, Debug, Default)]
pub struct History {
    features: Vec<Remembered>,
    nodes: BTreeMap<NodeName, usize>,
    /// By slot, as the cells.
    known: Vec<Known>,
    /// The newest point that was taken.
    newest: Option<i64>,
    /// The slots of the ring that hold a point, bit by bit.
    there: u16,
    /// Those whose point was whole.
    taken: u16,
    /// Those in which some Node said something.
    told: u16,
    days: [Day; DAYS],
}

/// One feature with its cells, by the Nodes' slots.
#[derive(Clone, Debug)]
struct Remembered {
    name: FeatureName,
    code: Code,
    noise: f64,
    cells: Vec<Cell>,
}

#[derive(Clone, Debug)]
struct Known {
    name: NodeName,
    uid: Option<Uid>,
    /// The newest point at which it was there.
    seen: i64,
}

/// What a day's slot holds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Day {
    /// Days since 1970; `None` while nothing is in the slot.
    day: Option<i64>,
    /// Whole points of it that have left the ring.
    taken: u16,
    /// Points in which some Node said something.
    told: u16,
}

impl History {
    /// A history of what these columns need. Without such columns nothing is remembered.
    pub fn of(schema: &Schema, columns: &[ColumnName]) -> Self {
        let mut history = Self::default();
        history.want(schema, columns);
        history
    }

    /// Goes on with what these columns need: what is kept for them stays, what nobody needs goes.
    pub fn want(&mut self, schema: &Schema, columns: &[ColumnName]) {
        let wanted: Vec<_> = schema
            .features()
            .iter()
            .filter(|feature| columns.iter().any(|c| c.remembers(&feature.name)))
            .map(|feature| (&feature.name, Code::of(feature), feature.noise))
            .collect();
        let same = wanted.len() == self.features.len()
            && wanted
                .iter()
                .zip(&self.features)
                .all(|((name, code, noise), known)| {
                    **name == known.name && *code == known.code && *noise == known.noise
                });
        if same {
            return;
        }
        if wanted.is_empty() {
            *self = Self::default();
            return;
        }
        let mut before = std::mem::take(&mut self.features);
        let mut news = false;
        for (name, code, noise) in wanted {
            let known = before
                .iter_mut()
                .find(|f| f.name == *name && f.code == code);
            news |= known.is_none();
            let cells = known.map(|f| std::mem::take(&mut f.cells));
            self.features.push(Remembered {
                name: name.clone(),
                code,
                noise,
                cells: cells.unwrap_or_else(|| vec![Cell::EMPTY; self.known.len()]),
            });
        }
        if news {
            // Of a new feature no point is there: all are to be had again.
            self.taken = 0;
            for day in &mut self.days {
                day.taken = 0;
            }
        }
    }

    /// Whether some column needs a history.
    pub fn is_wanted(&self) -> bool {
        !self.features.is_empty()
    }

    /// The features that are remembered.
    pub fn features(&self) -> impl ExactSizeIterator<Item = &FeatureName> {
        self.features.iter().map(|feature| &feature.name)
    }

    /// Remembers a matrix, if it lies on the grid, and if it is no older than an hour before the newest.
    /// Says whether it did. `whole` says that every feature could be asked for; what is not is kept until a
    /// whole one of the same time comes, and the first whole one stays.
    pub fn take(&mut self, matrix: &FeatureMatrix, whole: bool) -> bool {
        let Some(point) = point_at(matrix.at).filter(|_| self.is_wanted()) else {
            return false;
        };
        match self.newest {
            Some(newest) if point <= newest - POINTS as i64 => return false,
            Some(newest) if point <= newest => {}
            Some(_) | None => self.advance(point),
        }
        let slot = slot_of(point);
        if self.taken >> slot & 1 == 1 {
            return false;
        }
        let rows = self.places(matrix, point);
        let mut told = false;
        for feature in &mut self.features {
            let Some(column) = matrix.schema.column_of(feature.name.as_str()) else {
                continue;
            };
            for (row, place) in rows.iter().enumerate() {
                let Some(place) = *place else { continue };
                let value = matrix.values.get((row, column)).copied();
                let code = feature.code.encode(value.unwrap_or(f64::NAN));
                told |= code != MISSING;
                feature.cells[place].put(slot, code);
            }
        }
        self.there |= 1 << slot;
        self.taken |= u16::from(whole) << slot;
        self.told |= u16::from(told) << slot;
        self.forget_vanished(matrix.nodes.len());
        true
    }

    /// For how long some Node has said something, of the week and the hour after it.
    pub fn extent(&self) -> Duration {
        let days: u32 = self.days.iter().map(|day| u32::from(day.told)).sum();
        GRID * (days + self.told.count_ones())
    }

    /// How many Nodes are remembered, those that vanished lately included.
    pub fn nodes(&self) -> usize {
        self.known.len()
    }

    /// Bytes of the cells.
    pub fn bytes(&self) -> usize {
        let cells: usize = self.features.iter().map(|f| f.cells.capacity()).sum();
        cells * size_of::<Cell>()
    }

    /// Makes `to` the newest point. What leaves the ring goes into its day, in the order of time.
    fn advance(&mut self, to: i64) {
        let Some(newest) = self.newest.replace(to) else {
            return;
        };
        let oldest = newest + 1 - POINTS as i64;
        let leaving = (to - newest).clamp(0, POINTS as i64);
        for point in oldest..oldest + leaving {
            self.fold(point);
        }
        let last = day_of(to - POINTS as i64);
        for slot in 0..DAYS {
            if self.days[slot]
                .day
                .is_some_and(|day| day <= last - DAYS as i64)
            {
                self.forget_day(slot);
            }
        }
    }

    fn fold(&mut self, point: i64) {
        let slot = slot_of(point);
        let bit = 1 << slot;
        if self.there & bit == 0 {
            return;
        }
        let day = day_of(point);
        let place = day.rem_euclid(DAYS as i64) as usize;
        if self.days[place].day != Some(day) {
            self.forget_day(place);
            self.days[place].day = Some(day);
        }
        for feature in &mut self.features {
            let code = feature.code;
            feature
                .cells
                .iter_mut()
                .for_each(|cell| cell.fold(slot, place, code));
        }
        self.days[place].taken += u16::from(self.taken & bit != 0);
        self.days[place].told += u16::from(self.told & bit != 0);
        self.there &= !bit;
        self.taken &= !bit;
        self.told &= !bit;
    }

    fn forget_day(&mut self, place: usize) {
        self.days[place] = Day::default();
        for feature in &mut self.features {
            feature
                .cells
                .iter_mut()
                .for_each(|cell| cell.forget_day(place));
        }
    }

    /// The slot of every row's Node, new ones included. A Node of another UID begins anew.
    fn places(&mut self, matrix: &FeatureMatrix, point: i64) -> Vec<Option<usize>> {
        let news = matrix.nodes.iter().filter(|n| !self.nodes.contains_key(*n));
        let news = news.count();
        self.known.reserve_exact(news);
        for feature in &mut self.features {
            feature.cells.reserve_exact(news);
        }
        let rows = matrix.nodes.iter().enumerate();
        rows.map(|(row, name)| {
            let uid = matrix.uids.get(row).cloned().flatten();
            self.place(name, uid, point)
        })
        .collect()
    }

    /// The slot of a Node that was there at a point; `None` if an earlier Node of its name was.
    fn place(&mut self, name: &NodeName, uid: Option<Uid>, point: i64) -> Option<usize> {
        let Some(place) = self.nodes.get(name).copied() else {
            let place = self.known.len();
            self.nodes.insert(name.clone(), place);
            let name = name.clone();
            self.known.push(Known {
                name,
                uid,
                seen: point,
            });
            for feature in &mut self.features {
                feature.cells.push(Cell::EMPTY);
            }
            return Some(place);
        };
        let known = &mut self.known[place];
        if differ(known.uid.as_ref(), uid.as_ref()) {
            if point < known.seen {
                return None;
            }
            known.uid = None;
            for feature in &mut self.features {
                feature.cells[place] = Cell::EMPTY;
            }
        }
        known.uid = uid.or(known.uid.take());
        known.seen = known.seen.max(point);
        Some(place)
    }

    /// Nothing is left to remember of a Node after a week; and of many that came and went, as where
    /// Nodes live for an hour, those that went first are forgotten earlier.
    fn forget_vanished(&mut self, present: usize) {
        let Some(newest) = self.newest else { return };
        let most = 2 * present + VANISHED_MAX;
        let excess = self.known.len().saturating_sub(most);
        let mut gone: Vec<(i64, NodeName)> = self
            .known
            .iter()
            .filter(|known| known.seen < newest)
            .map(|known| (known.seen, known.name.clone()))
            .collect();
        gone.sort();
        let over = gone.partition_point(|(seen, _)| *seen <= newest - WEEK_POINTS - POINTS as i64);
        for (_, name) in gone.into_iter().take(over.max(excess)) {
            self.forget(&name);
        }
    }

    fn forget(&mut self, name: &NodeName) {
        let Some(place) = self.nodes.remove(name) else {
            return;
        };
        self.known.swap_remove(place);
        for feature in &mut self.features {
            feature.cells.swap_remove(place);
        }
        if let Some(moved) = self.known.get(place) {
            self.nodes.insert(moved.name.clone(), place);
        }
    }
}

/// The history of the Nodes of one matrix, as its columns read it.
pub(super) struct Past<'a> {
    history: &'a History,
    /// The slot of each row's Node, where it is known.
    places: Vec<Option<usize>>,
    /// The point at or before the matrix.
    point: i64,
    /// Slots of the ring that hold points of the hour before.
    slots: u16,
}

/// One feature in a [`Past`].
pub(super) struct PastFeature<'a> {
    past: &'a Past<'a>,
    feature: &'a Remembered,
}

impl History {
    /// The past of a matrix.
    pub(super) fn past(&self, matrix: &FeatureMatrix) -> Past<'_> {
        let rows = matrix.nodes.iter().enumerate();
        let places = rows.map(|(row, name)| {
            let place = self.nodes.get(name).copied()?;
            let uid = matrix.uids.get(row).and_then(Option::as_ref);
            (!differ(self.known[place].uid.as_ref(), uid)).then_some(place)
        });
        let point = floor(matrix.at);
        let hour = point + 1 - POINTS as i64..=point;
        let slots = hour.filter(|point| self.in_ring(*point));
        Past {
            places: places.collect(),
            slots: slots.fold(0, |slots, point| slots | 1 << slot_of(point)),
            point,
            history: self,
        }
    }

    /// Calls with row, column and mean of the Node's own week, wherever a feature is remembered for a day.
    pub fn each_week(&self, matrix: &FeatureMatrix, mut call: impl FnMut(usize, usize, f64)) {
        let past = self.past(matrix);
        for (column, feature) in matrix.schema.features().iter().enumerate() {
            let Some(feature) = past.feature(feature.name.as_str()) else {
                continue;
            };
            for row in 0..matrix.nodes.len() {
                if let Some(mean) = feature.cell(row).and_then(|cell| feature.usual(cell)) {
                    call(row, column, mean);
                }
            }
        }
    }

    fn in_ring(&self, point: i64) -> bool {
        let newest = self.newest.unwrap_or(i64::MIN + POINTS as i64);
        (newest + 1 - POINTS as i64..=newest).contains(&point)
    }
}

impl<'a> Past<'a> {
    /// One feature of it; `None` if it is not remembered.
    pub(super) fn feature(&'a self, name: &str) -> Option<PastFeature<'a>> {
        let mut features = self.history.features.iter();
        let feature = features.find(|f| f.name.as_str() == name)?;
        Some(PastFeature {
            past: self,
            feature,
        })
    }
}

impl PastFeature<'_> {
    /// What is remembered of a row; `None` of a Node that is not known.
    pub(super) fn cell(&self, row: usize) -> Option<&Cell> {
        let place = self.past.places.get(row).copied().flatten()?;
        self.feature.cells.get(place)
    }

    /// A value as it would be remembered; `None` if it is missing.
    pub(super) fn remembered(&self, value: f64) -> Option<f64> {
        self.feature.code.remembered(value)
    }

    /// Where the cells have the point that is so many points old; `None` where they have none.
    pub(super) fn slot_before(&self, points: i64) -> Option<usize> {
        let then = self.past.point - points;
        self.past.history.in_ring(then).then(|| slot_of(then))
    }

    /// How a value differs from the one in a slot; `None` without that. The value has to be as it would be
    /// remembered: what stands still has not changed.
    pub(super) fn change(&self, cell: &Cell, remembered: f64, slot: usize) -> Option<f64> {
        Some(remembered - self.feature.code.decode(cell.code(slot))?)
    }

    /// Standard deviation of the points of the last hour; `None` with fewer than half an hour's.
    pub(super) fn spread(&self, cell: &Cell) -> Option<f64> {
        let (n, spread) = cell.hour(self.past.slots, self.feature.code)?;
        (n >= HOUR_POINTS_MIN).then_some(spread)
    }

    /// The mean of the Node's own week; `None` with less than a day.
    fn usual(&self, cell: &Cell) -> Option<f64> {
        let (n, mean, _) = cell.week()?;
        (n >= WEEK_POINTS_MIN).then_some(mean)
    }

    /// How far a value is from the mean of the Node's own week, in multiples of how far it was from it
    /// usually, and at least of `noise`; `None` with less than a day. The value has to be as it would be
    /// remembered.
    pub(super) fn week(&self, cell: &Cell, remembered: f64) -> Option<f64> {
        let (n, mean, spread) = cell.week()?;
        let deviation = (remembered - mean) / spread.max(self.feature.noise);
        (n >= WEEK_POINTS_MIN).then_some(deviation)
    }
}

/// The point of a time on the grid; `None` for every other time.
fn point_at(at: Timestamp) -> Option<i64> {
    let point = floor(at);
    (time_of(point) == at).then_some(point)
}

/// The point at or before a time.
fn floor(at: Timestamp) -> i64 {
    let nanos = at.as_nanosecond().div_euclid(GRID.as_nanos() as i128);
    i64::try_from(nanos).unwrap_or(i64::MAX / 2)
}

/// The time of a point.
fn time_of(point: i64) -> Timestamp {
    let seconds = point.saturating_mul(GRID.as_secs() as i64);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}

fn day_of(point: i64) -> i64 {
    point.div_euclid(DAY_POINTS)
}

fn slot_of(point: i64) -> usize {
    point.rem_euclid(POINTS as i64) as usize
}

/// Whether two UIDs are known and those of two Nodes.
fn differ(a: Option<&Uid>, b: Option<&Uid>) -> bool {
    a.zip(b).is_some_and(|(a, b)| a != b)
}
