//! Whether a Node's inputs are anything like what the model was trained on.
//!
//! Trees answer whatever they are asked: a value beyond the last edge counts as the last bin. That is
//! right for a disk that is slower than any in the training, and wrong for an exporter that says
//! milliseconds where seconds are meant. The difference is how many inputs are out, and how far: a
//! machine that fails is far outside in the few columns that its fault drives.
//!
//! The rule: [`FAR_OUT_MIN`] features or more are far out, and they are more than [`FAR_OUT_SHARE`] of
//! those that say anything; or so many cannot be at all, which no fault of a machine brings about. A
//! value is far out if it lies beyond the outermost training value by more than the whole span of the
//! training values. Features that read 0 say nothing: 0 is the same in every unit.

use crate::features::schema::Unit;
use crate::features::{ColumnName, FeatureMatrix, FeatureName, ModelMatrix};

use super::bins::Bins;
use super::scorer::Scorer;

/// Fewer are one fault: a failing disk drives the two awaits of the five columns that it drives.
pub const FAR_OUT_MIN: usize = 3;
/// And of a machine that shows little, three may be most of it.
pub const FAR_OUT_SHARE: f64 = 0.25;
/// Features that are named.
const NAMED_MAX: usize = 3;

/// The outermost values of a column in the training, as far as its bins tell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// The lowest.
    pub low: f64,
    /// The highest.
    pub high: f64,
}

impl Range {
    /// The range of a column; `None` where its bins tell no span.
    pub fn of(bins: &Bins) -> Option<Self> {
        let (low, high) = (*bins.edges.first()?, *bins.edges.last()?);
        (high > low).then_some(Self { low, high })
    }

    /// Whether a value lies outside by more than the whole span.
    pub fn is_far_out(self, value: f64) -> bool {
        self.outside(value) > 1.0
    }

    /// How far outside a value lies, in spans; 0 inside.
    fn outside(self, value: f64) -> f64 {
        let by = (value - self.high).max(self.low - value).max(0.0);
        by / (self.high - self.low)
    }
}

/// One feature that is far out.
struct FarOut {
    feature: FeatureName,
    /// The column in which it is.
    column: String,
    value: f64,
    unit: Unit,
    /// `None`: it cannot be.
    range: Option<Range>,
    spans: f64,
}

/// Says, in words for an operator, if the inputs of this Node are so far outside of the training that
/// the score is no ground to act. `row` is the Node's in both matrices.
pub fn out_of_range(
    scorer: &dyn Scorer,
    model: &ModelMatrix,
    matrix: &FeatureMatrix,
    row: usize,
) -> Option<String> {
    let mut speaking: Vec<&FeatureName> = Vec::new();
    let mut out: Vec<FarOut> = Vec::new();
    for (place, column) in model.columns.iter().enumerate() {
        // A summary of the whole Node says nothing about inputs that they do not say themselves.
        let Some(feature) = column.feature() else {
            continue;
        };
        let at = matrix.schema.column_of(feature.as_str());
        let impossible = at.and_then(|at| matrix.impossible.get(&(row, at))).copied();
        let value = model.values.get((row, place)).copied();
        let value = value.filter(|value| value.is_finite() && *value != 0.0);
        let Some(value) = impossible.or(value) else {
            continue;
        };
        if !speaking.contains(&feature) {
            speaking.push(feature);
        }
        let definition = matrix.schema.feature(feature.as_str());
        let range = scorer.range(place).filter(|_| impossible.is_none());
        let spans = match (impossible, range) {
            (Some(_), _) => f64::INFINITY,
            (None, Some(range)) => range.outside(value),
            (None, None) => 0.0,
        };
        if spans > 1.0 && out.iter().all(|known| known.feature != *feature) {
            out.push(FarOut {
                feature: feature.clone(),
                column: match impossible {
                    Some(_) => feature.to_string(),
                    None => column.to_string(),
                },
                value,
                unit: match impossible {
                    Some(_) => ColumnName::Now(feature.clone()).unit(definition),
                    None => column.unit(definition),
                },
                range,
                spans,
            });
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a number of features")]
    let share = out.len() as f64 / speaking.len().max(1) as f64;
    let cannot_be = out.iter().filter(|out| out.range.is_none()).count();
    let many = out.len() >= FAR_OUT_MIN && share > FAR_OUT_SHARE;
    if !many && cannot_be < FAR_OUT_MIN {
        return None;
    }
    out.sort_by(|a, b| {
        let by_spans = b.spans.total_cmp(&a.spans);
        by_spans.then_with(|| a.feature.as_str().cmp(b.feature.as_str()))
    });
    let named: Vec<String> = out.iter().take(NAMED_MAX).map(FarOut::words).collect();
    Some(format!(
        "{} of {} inputs lie far outside of what it was trained on: {}",
        out.len(),
        speaking.len(),
        named.join(", ")
    ))
}

impl FarOut {
    fn words(&self) -> String {
        let describe = |value: f64| self.unit.describe(value);
        let value = describe(self.value);
        match self.range {
            Some(Range { low, high }) => format!(
                "{} {value} (trained on {} to {})",
                self.column,
                describe(low),
                describe(high)
            ),
            None => format!("{} {value} (cannot be)", self.column),
        }
    }
}
