//! From features to the model's own columns.
//!
//! The model says which columns it wants, by name; serving and training both get them from here, so
//! that the two cannot drift apart.

use foreshock_core::node::NodeName;
use ndarray::{Array2, ArrayViewMut1, ArrayViewMut2, Axis};

use super::columns::{ColumnName, KINDS, Summary};
use super::history::{Cell, History, Past, PastFeature};
use super::matrix::FeatureMatrix;
use super::usual::Usual;

/// Deviations beyond this are taken as this: farther off says nothing more.
pub const DEVIATION_MAX: f64 = 20.0;

/// Of fewer features' deviations no summary is made: the third largest of three is none.
const SUMMARY_MIN: usize = 5;

/// Why columns cannot be made from a matrix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeriveError {
    /// Not a kind of column that this version knows.
    #[error("`{column}` is no model column; known are {KINDS}")]
    Kind {
        /// The name.
        column: String,
    },
    /// The model wants features that the schema does not have.
    #[error("the model wants features that are not in the schema: {}", .features.join(", "))]
    Features {
        /// Their names.
        features: Vec<String>,
    },
}

/// The model's columns of every Node at one time.
///
/// Shape: Nodes × columns; rows are those of the [`FeatureMatrix`]. NaN is missing, every other value
/// is finite.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelMatrix {
    /// Row names, sorted, without repeats.
    pub nodes: Vec<NodeName>,
    /// Column names, in the model's order.
    pub columns: Vec<ColumnName>,
    /// Nodes × columns.
    pub values: Array2<f64>,
}

/// Makes the columns that a model wants. What the history does not remember, or not for long enough, is
/// missing: of a change the point that it began at, of a spread half an hour, of the week a day, of a
/// summary five features that have a day.
///
/// The history has to have taken the matrix itself, if that lies on its grid: [`History::take`].
///
/// # Errors
///
/// [`DeriveError::Features`] if the schema of the matrix lacks one of their features.
pub fn derive(
    columns: &[ColumnName],
    matrix: &FeatureMatrix,
    history: &History,
) -> Result<ModelMatrix, DeriveError> {
    let schema = &matrix.schema;
    let features = columns.iter().filter_map(ColumnName::feature);
    let mut absent: Vec<_> = features
        .filter(|name| schema.feature(name.as_str()).is_none())
        .map(ToString::to_string)
        .collect();
    absent.sort();
    absent.dedup();
    if !absent.is_empty() {
        return Err(DeriveError::Features { features: absent });
    }
    let past = history.past(matrix);
    let source = Source::of(columns, matrix, &past);
    let mut values = Array2::from_elem((matrix.nodes.len(), columns.len()), f64::NAN);
    let blocks = values.axis_chunks_iter_mut(Axis(0), BLOCK);
    for (block, values) in blocks.enumerate() {
        source.fill(block * BLOCK, values);
    }
    Ok(ModelMatrix {
        nodes: matrix.nodes.clone(),
        columns: columns.to_vec(),
        values,
    })
}

/// Rows that are made at a time: so few that what is remembered of them, which several columns read, and
/// what is written stay in the cache.
const BLOCK: usize = 32;

/// What columns are made from.
struct Source<'a> {
    matrix: &'a FeatureMatrix,
    /// What is usual among peers, where a column asks.
    usual: Option<Usual>,
    features: Vec<Asked<'a>>,
    /// The summaries that are asked for, with the places of their columns.
    summaries: Vec<(usize, Summary)>,
}

/// A feature that columns are made of.
struct Asked<'a> {
    /// Its place in the schema.
    at: usize,
    noise: f64,
    past: Option<PastFeature<'a>>,
    /// Its columns with their places.
    columns: Vec<(usize, &'a ColumnName)>,
    /// Whether one of them, or a summary, asks how far a Node is from its own week.
    deviates: bool,
    /// Whether one of them asks how a value has changed.
    changes: bool,
}

impl<'a> Source<'a> {
    fn of(columns: &'a [ColumnName], matrix: &'a FeatureMatrix, past: &'a Past<'a>) -> Self {
        let summaries = columns.iter().enumerate();
        let summaries: Vec<(usize, Summary)> = summaries
            .filter_map(|(place, column)| match column {
                ColumnName::Node(summary) => Some((place, *summary)),
                _ => None,
            })
            .collect();
        let features = matrix.schema.features().iter().enumerate();
        let asked = features.map(|(at, feature)| {
            let columns = columns.iter().enumerate();
            let columns = columns.filter(|(_, column)| column.feature() == Some(&feature.name));
            let columns: Vec<(usize, &ColumnName)> = columns.collect();
            let has = |is: fn(&ColumnName) -> bool| columns.iter().any(|(_, column)| is(column));
            Asked {
                at,
                noise: feature.noise,
                past: past.feature(feature.name.as_str()),
                deviates: !summaries.is_empty() || has(|c| matches!(c, ColumnName::Week(_))),
                changes: has(|c| matches!(c, ColumnName::Change(..))),
                columns,
            }
        });
        let peers = columns.iter().any(|c| matches!(c, ColumnName::Peers(_)));
        Self {
            features: asked
                .filter(|asked| asked.deviates || !asked.columns.is_empty())
                .collect(),
            usual: peers.then(|| Usual::of(matrix)),
            summaries,
            matrix,
        }
    }

    /// Fills in the values of some rows, from this one on.
    fn fill(&self, first: usize, mut values: ArrayViewMut2<'_, f64>) {
        let mut deviations = Array2::from_elem((values.nrows(), self.features.len()), f64::NAN);
        let mut readings = Vec::with_capacity(values.nrows());
        for (asked, mut deviations) in self.features.iter().zip(deviations.columns_mut()) {
            readings.clear();
            let rows = first..first + values.nrows();
            readings.extend(rows.map(|row| self.reading(asked, row)));
            for (deviation, reading) in deviations.iter_mut().zip(&readings) {
                *deviation = reading.deviation;
            }
            for (place, column) in &asked.columns {
                self.put(column, asked, &readings, values.column_mut(*place));
            }
        }
        if self.summaries.is_empty() {
            return;
        }
        for (mut values, made) in values.rows_mut().into_iter().zip(summaries_of(&deviations)) {
            for (place, summary) in &self.summaries {
                values[*place] = made.map_or(f64::NAN, |made| made[*summary as usize]);
            }
        }
    }

    fn reading(&self, asked: &'a Asked<'a>, row: usize) -> Reading<'a> {
        let now = self.matrix.value(row, asked.at);
        let feature = asked.past.as_ref();
        let cell = feature.and_then(|feature| feature.cell(row));
        let is_wanted = asked.deviates || asked.changes;
        let remembered = now.filter(|_| is_wanted);
        let remembered = remembered.and_then(|now| feature?.remembered(now));
        let deviation = || feature?.week(cell?, remembered?);
        let deviation = if asked.deviates { deviation() } else { None };
        Reading {
            row,
            now: now.unwrap_or(f64::NAN),
            cell,
            remembered: remembered.unwrap_or(f64::NAN),
            deviation: deviation.map_or(f64::NAN, bounded),
        }
    }

    /// Puts the values of one column in their places.
    fn put(
        &self,
        column: &ColumnName,
        asked: &Asked<'_>,
        readings: &[Reading<'_>],
        values: ArrayViewMut1<'_, f64>,
    ) {
        let past = asked.past.as_ref();
        match column {
            ColumnName::Now(_) => put(values, readings, |of| Some(of.now)),
            ColumnName::Week(_) => put(values, readings, |of| Some(of.deviation)),
            ColumnName::Peers(_) => {
                let Some(usual) = &self.usual else { return };
                // Never below the feature's `noise`, or one lost packet among idle Nodes would be the largest
                // deviation there is.
                let scale = usual.spread(asked.at).max(asked.noise);
                put(values, readings, |of| {
                    let median = usual.value(of.row, asked.at)?;
                    Some(bounded((of.now - median) / scale))
                });
            }
            ColumnName::Change(_, over) => {
                let slot = past.and_then(|past| past.slot_before(over.points()));
                if let Some((past, slot)) = past.zip(slot) {
                    put(values, readings, |of| {
                        past.change(of.cell?, of.remembered, slot)
                    });
                }
            }
            ColumnName::Spread(_) => {
                if let Some(past) = past {
                    put(values, readings, |of| past.spread(of.cell?));
                }
            }
            ColumnName::Node(_) => {}
        }
    }
}

/// Puts a value for each reading; NaN where there is none.
fn put(
    mut values: ArrayViewMut1<'_, f64>,
    readings: &[Reading<'_>],
    value: impl Fn(&Reading<'_>) -> Option<f64>,
) {
    for (place, reading) in values.iter_mut().zip(readings) {
        *place = value(reading).unwrap_or(f64::NAN);
    }
}

/// A deviation, no larger than says anything.
fn bounded(deviation: f64) -> f64 {
    deviation.clamp(-DEVIATION_MAX, DEVIATION_MAX)
}

/// What there is of one feature of one row; NaN is missing, or not asked for.
struct Reading<'a> {
    row: usize,
    now: f64,
    cell: Option<&'a Cell>,
    /// The value now as it would be remembered.
    remembered: f64,
    /// How far it is from the Node's own week.
    deviation: f64,
}

/// The summaries of each row of deviations, in the order of [`Summary::ALL`].
fn summaries_of(
    weeks: &Array2<f64>,
) -> impl Iterator<Item = Option<[f64; Summary::ALL.len()]>> + '_ {
    weeks.rows().into_iter().map(|row| {
        // The largest first.
        let mut largest = [0.0; SUMMARY_MIN];
        let (mut n, mut total, mut beyond) = (0_u32, 0.0, [0_u32; 2]);
        for size in row.iter().map(|z| z.abs()).filter(|z| !z.is_nan()) {
            n += 1;
            total += size;
            beyond[0] += u32::from(size > 3.0);
            beyond[1] += u32::from(size > 6.0);
            let mut at = SUMMARY_MIN;
            while at > 0 && largest[at - 1] < size {
                if at < SUMMARY_MIN {
                    largest[at] = largest[at - 1];
                }
                largest[at - 1] = size;
                at -= 1;
            }
        }
        if (n as usize) < SUMMARY_MIN {
            return None;
        }
        Some(Summary::ALL.map(|summary| match summary {
            Summary::Largest => largest[0],
            Summary::Third => largest[2],
            Summary::Top5 => largest.iter().sum::<f64>() / SUMMARY_MIN as f64,
            Summary::Mean => total / f64::from(n),
            Summary::Beyond3 => f64::from(beyond[0]),
            Summary::Beyond6 => f64::from(beyond[1]),
        }))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::features::schema::Schema;

    fn matrix(cpu: &[f64]) -> FeatureMatrix {
        let nodes = (0..cpu.len()).map(|i| format!("n{i}").into()).collect();
        let schema = Arc::new(Schema::built_in());
        let mut matrix = FeatureMatrix::missing(Timestamp::UNIX_EPOCH, schema, nodes);
        let column = matrix.schema.column_of("cpu_used").unwrap();
        for (row, value) in cpu.iter().enumerate() {
            matrix.values[(row, column)] = *value;
        }
        matrix
    }

    fn columns(names: &[&str]) -> Vec<ColumnName> {
        names.iter().map(|n| n.parse().unwrap()).collect()
    }

    #[test]
    fn columns_come_in_the_models_order_with_missing_as_nan() {
        let names = columns(&["mem_used", "cpu_used:peers", "cpu_used"]);
        let made = derive(
            &names,
            &matrix(&[0.25, 0.25, 0.3, f64::NAN, 0.95]),
            &History::default(),
        )
        .unwrap();
        assert_eq!(made.columns, names);
        assert!(made.values.column(0).iter().all(|v| v.is_nan()));
        assert_eq!(made.values[(4, 2)], 0.95);
        assert!(made.values[(3, 1)].is_nan() && made.values[(3, 2)].is_nan());
        // Spread 1.4826 × 0.025, the median of distances 0.025 0.025 0.025 0.675 from 0.275.
        assert!((made.values[(4, 1)] - 0.7 / (1.4826 * 0.025)).abs() < 1e-9);
    }

    #[test]
    fn a_deviation_is_bounded_counts_in_noise_at_least_and_needs_three_peers() {
        let peers = columns(&["cpu_used:peers"]);
        let of = |cpu: &[f64]| {
            derive(&peers, &matrix(cpu), &History::default())
                .unwrap()
                .values
        };
        assert_eq!(of(&[0.0, 0.0, 0.0, 1.0])[(3, 0)], DEVIATION_MAX);
        // cpu_used has a noise of 0.02: a hundredth of a core is half of nothing.
        assert!((of(&[0.1, 0.1, 0.1, 0.11])[(3, 0)] - 0.5).abs() < 1e-9);
        assert!(of(&[0.1, 0.2, 0.9]).iter().all(|v| v.is_nan()));
    }

    #[test]
    fn summaries_are_found_by_their_place_among_all() {
        for (place, summary) in Summary::ALL.into_iter().enumerate() {
            assert_eq!(summary as usize, place);
        }
    }

    #[test]
    fn unknown_columns_are_named() {
        assert!("cpu_used:yesterday".parse::<ColumnName>().is_err());
        assert!("".parse::<ColumnName>().is_err());
        let error = derive(
            &columns(&["b", "cpu_used", "a:peers"]),
            &matrix(&[]),
            &History::default(),
        );
        let features = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(error, Err(DeriveError::Features { features }));
    }
}
