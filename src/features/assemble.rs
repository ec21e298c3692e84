//! From labelled samples to a [`FeatureMatrix`]: every rule about what counts as a value is here.
//!
//! A value counts if its series is one Node's, that Node's exporter was scraped lately, the collector
//! behind it succeeded, its window is covered by history, and the number is possible. Anything else
//! is missing, and is counted by reason.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use foreshock_core::node::NodeName;
use jiff::Timestamp;

use super::directory::NodeDirectory;
use super::identity::{IdentityMap, Owner};
use super::matrix::FeatureMatrix;
use super::schema::{Absent, Feature, Schema};
use super::telemetry::{Column, Telemetered};

/// One sample of a feature's answer: the labels that say whose it is, and the number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Label `node`.
    pub node: Option<String>,
    /// Label `instance`.
    pub instance: Option<String>,
    /// Label `source`: which of the feature's sources answered; the first when absent.
    pub source: Option<String>,
    /// The number as it came, NaN and infinities included.
    pub value: f64,
}

/// What came of one feature's query.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The evaluation time of the query.
    pub at: Timestamp,
    /// The samples, or why there are none.
    pub samples: Result<Arc<Vec<Sample>>, String>,
    /// What the server remarked.
    pub remarks: Vec<String>,
}

/// Everything that was asked for one matrix.
#[derive(Clone, Debug)]
pub struct Gathered {
    /// Which `instance` is which Node.
    pub identity: IdentityMap,
    /// One answer for each feature, in the order of the schema.
    pub columns: Vec<Answer>,
    /// For each `instance` the collectors that succeeded, bit by bit in the order of
    /// [`Schema::groups`]; or why that is unknown.
    pub collected: Result<Arc<HashMap<String, u64>>, String>,
    /// For each history of [`Schema::histories`] the instances that were scraped that long ago; or
    /// why that is unknown. A history that is not there is unknown.
    pub histories: BTreeMap<Duration, Result<Arc<BTreeSet<String>>, String>>,
    /// Other problems, for the operator.
    pub problems: Vec<String>,
}

/// Makes the matrix of one time.
///
/// # Panics
///
/// If `gathered` has not exactly one answer for each feature.
pub fn assemble(
    schema: Arc<Schema>,
    at: Timestamp,
    directory: &NodeDirectory,
    gathered: Gathered,
) -> Telemetered {
    assert_eq!(
        schema.len(),
        gathered.columns.len(),
        "one answer for each feature"
    );
    let Gathered {
        identity,
        columns: answers,
        collected,
        histories,
        mut problems,
    } = gathered;
    problems.extend(unknowns(&collected, &histories));
    let nodes: Vec<NodeName> = if directory.is_open() {
        identity.nodes().into_iter().collect()
    } else {
        directory.entries().iter().map(|e| e.name.clone()).collect()
    };
    let mut matrix = FeatureMatrix::missing(at, schema.clone(), nodes);
    for (uid, node) in matrix.uids.iter_mut().zip(&matrix.nodes) {
        *uid = directory.entry(node.as_str()).map(|e| e.uid.clone());
    }
    let rows = rows(&mut matrix, directory, &identity, collected.ok().as_deref());
    let groups = schema.groups();
    let mut columns = Vec::with_capacity(answers.len());
    for (index, (feature, answer)) in schema.features().iter().zip(answers).enumerate() {
        let mut column = Column::new(feature.name.clone(), answer.at);
        column.remarks = answer.remarks;
        let filler = Filler {
            feature,
            rows: &rows,
            bits: feature
                .sources
                .iter()
                .map(|s| bit_of(&groups, s.group.as_deref()))
                .collect(),
            known_then: histories
                .get(&feature.history)
                .and_then(|h| h.as_deref().ok()),
        };
        let owner = |s: &Sample| {
            let of_targets = feature.is_of_targets();
            identity.owner(
                directory,
                s.node.as_deref(),
                s.instance.as_deref(),
                of_targets,
            )
        };
        match &answer.samples {
            Ok(samples) => filler.fill(index, samples, owner, &mut matrix, &mut column),
            Err(problem) => column.problem = Some(problem.clone()),
        }
        columns.push(column);
    }
    Telemetered {
        matrix,
        columns,
        identity,
        problems,
    }
}

/// What the columns' conditions could not be told about.
fn unknowns(
    collected: &Result<Arc<HashMap<String, u64>>, String>,
    histories: &BTreeMap<Duration, Result<Arc<BTreeSet<String>>, String>>,
) -> Vec<String> {
    let mut problems = Vec::new();
    if let Err(problem) = collected {
        problems.push(format!("which collectors succeeded is unknown: {problem}"));
    }
    for (history, answer) in histories {
        if let Err(problem) = answer {
            let history = humantime::format_duration(*history);
            problems.push(format!(
                "which targets are older than {history} is unknown: {problem}"
            ));
        }
    }
    problems
}

/// What is known of one row before any column.
struct Row {
    /// The fresh target's instance; `None` makes the whole row missing.
    instance: Option<String>,
    /// Bits of the collectors that succeeded there.
    collected: u64,
    /// Age of the Node at the evaluation, where it is known.
    age: Option<Duration>,
}

fn rows(
    matrix: &mut FeatureMatrix,
    directory: &NodeDirectory,
    identity: &IdentityMap,
    collected: Option<&HashMap<String, u64>>,
) -> Vec<Row> {
    let mut rows = Vec::with_capacity(matrix.nodes.len());
    for (node, scraped_at) in matrix.nodes.iter().zip(&mut matrix.scraped_at) {
        let fresh = identity.fresh(node);
        *scraped_at = fresh.map(|f| f.scraped_at);
        let bits = fresh.zip(collected).and_then(|(f, c)| c.get(&f.instance));
        let created = directory.entry(node.as_str()).map(|e| e.created);
        let age = created.map(|c| matrix.at.duration_since(c));
        rows.push(Row {
            instance: fresh.map(|f| f.instance.clone()),
            collected: bits.copied().unwrap_or(0),
            age: age.map(|age| Duration::try_from(age).unwrap_or_default()),
        });
    }
    rows
}

/// The bit of a collector; no bit where no collector is behind a source.
fn bit_of(groups: &[Arc<str>], group: Option<&str>) -> u64 {
    let place = group.and_then(|group| groups.iter().position(|g| &**g == group));
    place.map_or(0, |place| 1 << place)
}

/// Fills one column.
struct Filler<'a> {
    feature: &'a Feature,
    rows: &'a [Row],
    /// For each source the bit that must be set.
    bits: Vec<u64>,
    /// The instances that were scraped the feature's history ago; `None` if that is unknown.
    known_then: Option<&'a BTreeSet<String>>,
}

/// What is known of one row's value so far.
#[derive(Clone, Copy)]
enum Cell {
    /// No series, or only NaN: Prometheus returns a 0/0, VictoriaMetrics leaves it out.
    Nothing,
    /// There was a number, and it cannot be.
    Bad(f64),
    /// The value of the best source so far; `doubled` if that source has said two.
    Value {
        source: u8,
        value: f64,
        doubled: bool,
    },
}

impl Filler<'_> {
    fn fill<'s>(
        &self,
        index: usize,
        samples: &'s [Sample],
        owner: impl Fn(&'s Sample) -> Owner<'s>,
        matrix: &mut FeatureMatrix,
        column: &mut Column,
    ) {
        column.series = samples.len();
        let mut cells = vec![Cell::Nothing; self.rows.len()];
        for sample in samples {
            match owner(sample) {
                Owner::Node(node) => {
                    if let Ok(row) = matrix.nodes.binary_search(node) {
                        self.take(sample, &self.rows[row], &mut cells[row], column);
                    }
                }
                Owner::Refused => column.refused += 1,
                Owner::Stranger => column.strangers += 1,
            }
        }
        for (row, cell) in cells.into_iter().enumerate() {
            let filled = match cell {
                Cell::Value { doubled: true, .. } => {
                    column.doubled += 1;
                    None
                }
                Cell::Value { source, value, .. } => Some((source, value)),
                Cell::Bad(value) => {
                    matrix.impossible.insert((row, index), value);
                    None
                }
                Cell::Nothing => self.absence(&self.rows[row]).map(|value| (0, value)),
            };
            if let Some((source, value)) = filled {
                matrix.values[(row, index)] = value;
                matrix.sources[(row, index)] = source;
                column.filled += 1;
            }
        }
    }

    fn take(&self, sample: &Sample, row: &Row, cell: &mut Cell, column: &mut Column) {
        if row.instance.is_none() || sample.value.is_nan() {
            return;
        }
        let source = match sample.source.as_deref() {
            // With one source the label says nothing; it may be the series' own.
            Some(name) if self.feature.sources.len() > 1 => self.feature.source_index(name),
            Some(_) | None => Some(0),
        };
        let Some(source) = source else {
            column.unknown_sources += 1;
            return;
        };
        if !self.collected(row, source) {
            column.uncollected += 1;
        } else if !self.old_enough(row) {
            column.young += 1;
        } else if let Some(value) = self.feature.possible(sample.value) {
            cell.put(source, value);
        } else {
            column.absurd += 1;
            if matches!(cell, Cell::Nothing) {
                *cell = Cell::Bad(sample.value);
            }
        }
    }

    /// The value where there is no sample: 0 if that is what absence means, and if the Node would
    /// have told otherwise.
    fn absence(&self, row: &Row) -> Option<f64> {
        let told = row.instance.is_some() && self.collected(row, 0) && self.old_enough(row);
        match self.feature.absent {
            Absent::Zero if told => Some(0.0_f64.clamp(self.feature.min, self.feature.max)),
            Absent::Zero | Absent::Missing => None,
        }
    }

    fn collected(&self, row: &Row, source: u8) -> bool {
        let bit = self.bits.get(usize::from(source)).copied().unwrap_or(0);
        row.collected & bit == bit
    }

    fn old_enough(&self, row: &Row) -> bool {
        if self.feature.history.is_zero() {
            return true;
        }
        let scraped_then = row
            .instance
            .as_ref()
            .zip(self.known_then)
            .is_some_and(|(i, then)| then.contains(i));
        // A younger Node under an old instance: what was scraped then was another Node.
        scraped_then && row.age.is_none_or(|age| age >= self.feature.history)
    }
}

impl Cell {
    fn put(&mut self, source: u8, value: f64) {
        match self {
            Self::Value {
                source: best,
                doubled,
                ..
            } if *best == source => *doubled = true,
            Self::Value { source: best, .. } if *best < source => {}
            Self::Value { .. } | Self::Nothing | Self::Bad(_) => {
                *self = Self::Value {
                    source,
                    value,
                    doubled: false,
                };
            }
        }
    }
}
