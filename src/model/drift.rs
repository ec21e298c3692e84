//! How far the inputs of today are from those that the model learned from.
//!
//! By column: the population stability index over groups of the training's bins, `Σ (today − then) ×
//! ln(today ÷ then)`, of values that are there; the share that is missing; the share that lies far out. The
//! index of the score is by groups of its own. What "then" was stands in the model file ([`Reference`]); a
//! file without it still has its missing and far-out shares counted.
//!
//! Counts are kept by the hour for a day, whatever the number of Nodes.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::artifact::{Artifact, Column, ModelError};
use super::bins::{Bins, MISSING, to_nine_digits};
use super::range::Range;
use crate::features::{FeatureName, ModelMatrix};

/// Groups are closed when they hold this share of the rows: ten groups are what the usual limits of the
/// index (0.1 to 0.3) are meant for.
const GROUP_SHARE: f64 = 0.1;
/// Groups of one column in a file.
const GROUPS_MAX: usize = 32;
/// Lower ends of the groups of the score but the first, as probabilities: finer where most Nodes are.
pub const SCORE_CUTS: [f64; 11] = [
    0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8,
];
/// A day is kept.
const HOURS: i64 = 24;
/// Fewer hours tell the time of day and not the inputs.
pub const HOURS_MIN: usize = 6;
/// And fewer values are chance.
pub const VALUES_MIN: u64 = 500;
/// A group that is empty counts as half a row.
const EMPTY: f64 = 0.5;
/// And a share of the reference that is smaller is taken as this.
const SHARE_MIN: f64 = 1e-4;
/// An index of one day that is larger is a day on which everything was different.
const DAY_INDEX_MAX: f64 = 100.0;
/// Features that have drifted are an alarm if the trees ask about them so often, as a share of all splits.
/// Of fifty features one has always drifted, and nothing hangs on it.
pub const IMPORTANCE_MIN: f64 = 0.1;

/// The inputs and scores of the history that a model learned from; rows in their true shares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// For each column of the model, in their order.
    pub columns: Vec<Groups>,
    /// Share of the rows in each group of [`SCORE_CUTS`].
    pub score: Vec<f64>,
}

/// One column's values, by groups of its bins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Groups {
    /// The first bin of each group, rising from 1; empty where there was no value.
    pub from: Vec<u8>,
    /// Share of the values in each group.
    pub shares: Vec<f64>,
    /// Share of the rows without a value.
    pub missing: f64,
    /// The index that a single day of that history usually had against the whole: what changes slowly, as
    /// the use of a file system does on few Nodes, is no drift.
    #[serde(default)]
    pub day: f64,
}

impl Reference {
    /// What these rows of bin numbers and their scores are; `None` without rows.
    pub fn of(columns: &[Column], codes: &[u8], probabilities: &[f64]) -> Option<Self> {
        if probabilities.is_empty() || columns.is_empty() {
            return None;
        }
        let rows = || codes.chunks_exact(columns.len());
        let groups = columns.iter().enumerate().map(|(i, column)| {
            let mut counts = vec![0u64; usize::from(column.edges.code_max()) + 1];
            for row in rows() {
                if let Some(count) = counts.get_mut(usize::from(row[i])) {
                    *count += 1;
                }
            }
            Groups::of(&counts)
        });
        let columns = groups.collect();
        let mut score = vec![0.0; SCORE_CUTS.len() + 1];
        for probability in probabilities {
            score[score_group(*probability)] += 1.0 / probabilities.len() as f64;
        }
        Some(Self { columns, score })
    }

    /// Nine digits of every number, see [`to_nine_digits`].
    pub(super) fn shorten_numbers(&mut self) {
        let shorten = |number: &mut f64| *number = to_nine_digits(*number);
        for groups in &mut self.columns {
            groups.shares.iter_mut().for_each(shorten);
            shorten(&mut groups.missing);
            shorten(&mut groups.day);
        }
        self.score.iter_mut().for_each(shorten);
    }

    /// Checks that the shares can be, and are of these columns.
    ///
    /// # Errors
    ///
    /// [`ModelError::Invalid`] with the first fault.
    pub(super) fn check(&self, columns: &[Column]) -> Result<(), ModelError> {
        let fault = |place: &str, fault: &str| {
            Err(ModelError::invalid(
                format!("content.reference.{place}"),
                fault,
            ))
        };
        if self.columns.len() != columns.len() {
            return fault("columns", "has not as many entries as there are columns");
        }
        for (i, (groups, column)) in self.columns.iter().zip(columns).enumerate() {
            groups
                .check(column.edges.code_max())
                .or_else(|what| fault(&format!("columns[{i}]"), what))?;
        }
        if self.score.len() != SCORE_CUTS.len() + 1 || !are_shares(&self.score) {
            return fault(
                "score",
                "is not the shares of 12 groups, which are 1 together",
            );
        }
        Ok(())
    }
}

/// Makes a [`Reference`] of a history that is too long to be in memory: row by row, in the order of time.
#[derive(Clone, Debug)]
pub struct Referring {
    /// For each column how many rows had each bin, of the whole history.
    whole: Vec<Vec<u64>>,
    /// The same of each day (UTC), by its number since 1970.
    days: BTreeMap<i64, Vec<Vec<u32>>>,
    score: Vec<u64>,
}

impl Referring {
    /// For a model of these columns.
    pub fn new(columns: &[Column]) -> Self {
        let bins = columns
            .iter()
            .map(|column| usize::from(column.edges.code_max()) + 1);
        Self {
            whole: bins.map(|bins| vec![0; bins]).collect(),
            days: BTreeMap::new(),
            score: vec![0; SCORE_CUTS.len() + 1],
        }
    }

    /// Counts a row of bin numbers; and its score, where it is one that the model has not learned from.
    pub fn add(&mut self, at: Timestamp, codes: &[u8], probability: Option<f64>) {
        let whole = &mut self.whole;
        let day = self.days.entry(at.as_second().div_euclid(86_400));
        let day = day.or_insert_with(|| whole.iter().map(|bins| vec![0; bins.len()]).collect());
        for ((whole, day), code) in whole.iter_mut().zip(day).zip(codes) {
            let code = usize::from(*code);
            if let (Some(whole), Some(day)) = (whole.get_mut(code), day.get_mut(code)) {
                *whole += 1;
                *day += 1;
            }
        }
        if let Some(probability) = probability {
            self.score[score_group(probability)] += 1;
        }
    }

    /// The reference; `None` without a score.
    pub fn end(self) -> Option<Reference> {
        let scores = self.score.iter().sum::<u64>();
        if scores == 0 {
            return None;
        }
        // Days of few rows, the first and the last, say nothing.
        let rows = |day: &[Vec<u32>]| day.first().map_or(0, |bins| bins.iter().sum::<u32>());
        let usual = self.days.values().map(|day| rows(day)).max().unwrap_or(0) / 2;
        let days: Vec<_> = self
            .days
            .values()
            .filter(|day| rows(day) >= usual)
            .collect();
        let columns = self.whole.iter().enumerate().map(|(i, counts)| {
            let mut groups = Groups::of(counts);
            let mut indices: Vec<f64> = days
                .iter()
                .filter_map(|day| groups.index_of(day.get(i)?))
                .collect();
            indices.sort_by(f64::total_cmp);
            groups.day = indices.get(indices.len() / 2).copied().unwrap_or(0.0);
            groups
        });
        Some(Reference {
            columns: columns.collect(),
            score: self
                .score
                .iter()
                .map(|n| *n as f64 / scores as f64)
                .collect(),
        })
    }
}

impl Groups {
    /// The index of counts by bin number; `None` without values, or without groups.
    fn index_of(&self, counts: &[u32]) -> Option<f64> {
        let mut groups = vec![0; self.from.len()];
        for (code, count) in (0..=u8::MAX).zip(counts).skip(1) {
            if let Some(of) = self.group_of(code).and_then(|at| groups.get_mut(at)) {
                *of += u64::from(*count);
            }
        }
        (groups.iter().sum::<u64>() > 0).then(|| index(&groups, &self.shares).min(DAY_INDEX_MAX))
    }

    /// Groups of about a tenth of the values each, of rows by bin number.
    fn of(counts: &[u64]) -> Self {
        let missing = counts.first().copied().unwrap_or_default();
        let rows = counts.iter().sum::<u64>().max(1) as f64;
        let values = counts.iter().skip(1).sum::<u64>() as f64;
        let mut groups = Self {
            missing: missing as f64 / rows,
            ..Self::default()
        };
        if values == 0.0 {
            return groups;
        }
        let mut full = true;
        for (code, count) in counts.iter().enumerate().skip(1) {
            let share = *count as f64 / values;
            match groups.shares.last_mut().filter(|_| !full) {
                Some(last) => *last += share,
                None => {
                    groups.from.push(u8::try_from(code).unwrap_or(u8::MAX));
                    groups.shares.push(share);
                }
            }
            full = groups
                .shares
                .last()
                .is_some_and(|last| *last >= GROUP_SHARE);
        }
        // What is left over at the end is too small to be a group.
        if !full && groups.shares.len() > 1 {
            let rest = groups.shares.pop().unwrap_or_default();
            groups.from.pop();
            groups
                .shares
                .iter_mut()
                .last()
                .into_iter()
                .for_each(|last| *last += rest);
        }
        groups
    }

    fn check(&self, code_max: u8) -> Result<(), &'static str> {
        let Self {
            from,
            shares,
            missing,
            day,
        } = self;
        if from.len() != shares.len() || from.len() > GROUPS_MAX {
            return Err("has not one share for each of at most 32 groups");
        }
        if !(0.0..=1.0).contains(missing) || !(0.0..=DAY_INDEX_MAX).contains(day) {
            return Err("has a share of missing values or a daily index that cannot be");
        }
        if from.is_empty() {
            return Ok(());
        }
        let rises = from.windows(2).all(|pair| pair[0] < pair[1]);
        if from.first() != Some(&1) || !rises || from.last().is_some_and(|last| *last > code_max) {
            return Err("has groups that do not rise from 1 to the column's last bin");
        }
        if !are_shares(shares) {
            return Err("has shares that are not 1 together");
        }
        Ok(())
    }

    fn group_of(&self, code: u8) -> Option<usize> {
        self.from
            .partition_point(|from| *from <= code)
            .checked_sub(1)
    }
}

fn are_shares(shares: &[f64]) -> bool {
    let possible = shares.iter().all(|share| (0.0..=1.0).contains(share));
    possible && (shares.iter().sum::<f64>() - 1.0).abs() < 1e-6
}

fn score_group(probability: f64) -> usize {
    SCORE_CUTS.partition_point(|cut| *cut <= probability)
}

/// The index of counts against shares of a reference.
fn index(counts: &[u64], shares: &[f64]) -> f64 {
    let n = counts.iter().sum::<u64>() as f64;
    let all = n + EMPTY * counts.len() as f64;
    let terms = counts.iter().zip(shares).map(|(count, then)| {
        let today = (*count as f64 + EMPTY) / all;
        let then = then.max(SHARE_MIN);
        (today - then) * libm::log(today / then)
    });
    terms.sum()
}

/// What of a model it takes to count its inputs.
#[derive(Clone, Debug)]
pub struct Probe {
    columns: Vec<ProbeColumn>,
    /// `None`: the file does not say what inputs and scores were.
    score: Option<Vec<f64>>,
}

#[derive(Clone, Debug)]
struct ProbeColumn {
    feature: FeatureName,
    importance: f64,
    bins: Bins,
    range: Option<Range>,
    groups: Groups,
}

/// What was counted of some rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    rows: u64,
    columns: Vec<ColumnCounts>,
    score: Vec<u64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct ColumnCounts {
    groups: Vec<u64>,
    values: u64,
    missing: u64,
    far_out: u64,
}

/// How far the inputs of the last day are from those of the training.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Rows that were counted: Nodes, again and again.
    pub rows: u64,
    /// Hours of the day in which there were any.
    pub hours: usize,
    /// The file says what inputs and scores were.
    pub reference: bool,
    /// The index of the score; `None` where it is not known (yet).
    pub score: Option<f64>,
    /// Features by name.
    pub features: Vec<FeatureDrift>,
}

/// How far one feature is; of several columns made from it the worst.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureDrift {
    /// The feature.
    pub feature: FeatureName,
    /// Its share of all splits.
    pub importance: f64,
    /// The index, less what a single day usually has; `None` where it is not known (yet).
    pub index: Option<f64>,
    /// Share of the rows without a value.
    pub missing: f64,
    /// Share of the values that lie far outside of the training, see [`super::range`].
    pub far_out: f64,
}

impl Probe {
    /// Prepares a checked model.
    pub fn new(artifact: &Artifact) -> Self {
        let content = artifact.content();
        let reference = content.reference.as_ref();
        let importances = artifact.importances();
        let columns = content.columns.iter().enumerate().map(|(i, column)| {
            let groups = reference.and_then(|reference| reference.columns.get(i).cloned());
            ProbeColumn {
                feature: FeatureName::new(column.feature()),
                importance: importances
                    .get(column.feature())
                    .copied()
                    .unwrap_or_default(),
                bins: column.edges.clone(),
                range: Range::of(&column.edges),
                groups: groups.unwrap_or_default(),
            }
        });
        Self {
            columns: columns.collect(),
            score: reference.map(|reference| reference.score.clone()),
        }
    }

    /// Counts rows of the model's own columns. `scored` has for each row its probability, `Some(None)`
    /// where there is none for want of values, or `None` where the Node says nothing at all: such a row is
    /// not counted.
    pub fn count(&self, matrix: &ModelMatrix, scored: &[Option<Option<f64>>]) -> Counts {
        let mut counts = self.nothing();
        for (row, scored) in matrix.values.rows().into_iter().zip(scored) {
            let Some(probability) = scored else {
                continue;
            };
            counts.rows += 1;
            if let Some(probability) = probability {
                counts.score[score_group(*probability)] += 1;
            }
            let columns = self.columns.iter().zip(&mut counts.columns);
            for ((column, counts), value) in columns.zip(row) {
                let code = column.bins.code(*value);
                if code == MISSING {
                    counts.missing += 1;
                    continue;
                }
                counts.values += 1;
                let far = |range: Range| range.is_far_out(*value);
                counts.far_out += u64::from(column.range.is_some_and(far));
                if let Some(group) = column.groups.group_of(code)
                    && let Some(count) = counts.groups.get_mut(group)
                {
                    *count += 1;
                }
            }
        }
        counts
    }

    fn nothing(&self) -> Counts {
        let column = |column: &ProbeColumn| ColumnCounts {
            groups: vec![0; column.groups.from.len()],
            ..ColumnCounts::default()
        };
        Counts {
            rows: 0,
            columns: self.columns.iter().map(column).collect(),
            score: vec![0; SCORE_CUTS.len() + 1],
        }
    }

    fn measure(&self, counts: &Counts, hours: usize) -> Measured {
        let long = hours >= HOURS_MIN;
        let mut features: BTreeMap<&str, FeatureDrift> = BTreeMap::new();
        for (column, counts) in self.columns.iter().zip(&counts.columns) {
            let enough = long && counts.values >= VALUES_MIN && !column.groups.from.is_empty();
            let index = enough.then(|| {
                let index = index(&counts.groups, &column.groups.shares);
                (index - column.groups.day).max(0.0)
            });
            let share = |part: u64, of: u64| part as f64 / of.max(1) as f64;
            let missing = share(counts.missing, counts.missing + counts.values);
            let far_out = share(counts.far_out, counts.values);
            let feature = features
                .entry(column.feature.as_str())
                .or_insert_with(|| FeatureDrift {
                    feature: column.feature.clone(),
                    importance: column.importance,
                    index: None,
                    missing: 0.0,
                    far_out: 0.0,
                });
            feature.index = match (feature.index, index) {
                (Some(one), Some(other)) => Some(one.max(other)),
                (one, other) => one.or(other),
            };
            feature.missing = feature.missing.max(missing);
            feature.far_out = feature.far_out.max(far_out);
        }
        let scores: u64 = counts.score.iter().sum();
        let reference = self.score.as_ref();
        Measured {
            rows: counts.rows,
            hours,
            reference: reference.is_some(),
            score: reference
                .filter(|_| long && scores >= VALUES_MIN)
                .map(|shares| index(&counts.score, shares)),
            features: features.into_values().collect(),
        }
    }
}

impl Counts {
    fn add(&mut self, more: &Self) {
        self.rows += more.rows;
        add_up(&mut self.score, &more.score);
        for (column, more) in self.columns.iter_mut().zip(&more.columns) {
            add_up(&mut column.groups, &more.groups);
            column.values += more.values;
            column.missing += more.missing;
            column.far_out += more.far_out;
        }
    }
}

fn add_up(counts: &mut [u64], more: &[u64]) {
    for (count, more) in counts.iter_mut().zip(more) {
        *count += more;
    }
}

/// A day of counts, by the hour.
#[derive(Clone, Debug, Default)]
pub struct Day {
    hours: VecDeque<(i64, Counts)>,
}

impl Day {
    /// Takes in what was counted at this time, and forgets what is a day older. A clock that was set back
    /// makes the day begin again.
    pub fn add(&mut self, at: Timestamp, counts: &Counts) {
        let hour = at.as_second().div_euclid(3_600);
        if self.hours.back().is_some_and(|(last, _)| *last > hour) {
            self.hours.clear();
        }
        match self.hours.back_mut().filter(|(last, _)| *last == hour) {
            Some((_, sum)) => sum.add(counts),
            None => self.hours.push_back((hour, counts.clone())),
        }
        while self
            .hours
            .front()
            .is_some_and(|(first, _)| *first <= hour - HOURS)
        {
            self.hours.pop_front();
        }
    }

    /// How far the day is from the training.
    pub fn measure(&self, probe: &Probe) -> Measured {
        let mut sum = probe.nothing();
        self.hours.iter().for_each(|(_, counts)| sum.add(counts));
        probe.measure(&sum, self.hours.len())
    }
}

impl Measured {
    /// What has drifted by `limit` or more, in words, the farthest first; empty where nothing has.
    pub fn beyond(&self, limit: f64) -> Vec<(&str, f64)> {
        let features = self
            .features
            .iter()
            .filter_map(|one| Some((one.feature.as_str(), one.index?)));
        let all = features.chain(self.score.map(|index| ("the score", index)));
        let mut beyond: Vec<(&str, f64)> = all.filter(|(_, index)| *index >= limit).collect();
        beyond.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        beyond
    }

    /// Whether so much has drifted by `limit` or more that the model's word is no ground to act: the score
    /// itself, or features that the trees ask about often.
    pub fn is_alarm(&self, limit: f64) -> bool {
        let beyond = |index: Option<f64>| index.is_some_and(|index| index >= limit);
        let features = self.features.iter().filter(|one| beyond(one.index));
        beyond(self.score) || features.map(|one| one.importance).sum::<f64>() >= IMPORTANCE_MIN
    }
}

#[cfg(test)]
mod tests;
