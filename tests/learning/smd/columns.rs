//! What is known of a machine at a minute: means of 5, 15 and 60 minutes, deviation from its own
//! week, and summaries of all deviations.

use super::machines::Machine;

/// Minutes of the week that a machine is held against, and of the hour at its end that is left out,
/// so that trouble does not hide itself.
const WEEK: usize = 7 * 24 * 60;
const LEFT_OUT: usize = 60;
/// A metric's spread counts as no less than this: a hundredth of what it ever was.
const SPREAD_MIN: f64 = 0.01;
/// Columns of each metric, and of the machine.
const EACH: usize = 4;
/// Summaries of the deviations: those of the minute, and means of some over 15 and 60 minutes.
pub(crate) const SUMMARIES: usize = 10;

/// Columns of one machine, minute by minute; those of each metric, then the summaries.
pub(crate) struct Columns {
    /// Values, column by column.
    pub(crate) values: Vec<Vec<f64>>,
    n_metrics: usize,
}

/// Sums up to each minute, so that a window costs one subtraction.
struct Sums(Vec<f64>);

impl Sums {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut sums = vec![0.0];
        let mut sum = 0.0;
        for value in values {
            sum += value;
            sums.push(sum);
        }
        Self(sums)
    }

    /// The mean of minutes `from..to`, none of which is before the first.
    fn mean(&self, from: usize, to: usize) -> f64 {
        let (from, to) = (from.min(to), to.min(self.0.len() - 1));
        (self.0[to] - self.0[from]) / (to - from).max(1) as f64
    }

    /// The mean of the last so many minutes, this one included.
    fn last(&self, minute: usize, minutes: usize) -> f64 {
        self.mean((minute + 1).saturating_sub(minutes), minute + 1)
    }
}

impl Columns {
    /// Derives all columns.
    pub(crate) fn of(machine: &Machine) -> Self {
        let minutes = machine.anomalous.len();
        let mut values = Vec::new();
        let mut deviations: Vec<Vec<f64>> = Vec::new();
        for metric in &machine.metrics {
            let plain = Sums::of(metric.iter().copied());
            let squares = Sums::of(metric.iter().map(|value| value * value));
            let window = |length| (0..minutes).map(|at| plain.last(at, length)).collect();
            let deviation = |at: usize| {
                // "History too short" is missing.
                if at < WEEK + LEFT_OUT {
                    return f64::NAN;
                }
                let (from, to) = (at - LEFT_OUT - WEEK, at - LEFT_OUT);
                let mean = plain.mean(from, to);
                let spread = (squares.mean(from, to) - mean * mean).max(0.0).sqrt();
                (plain.last(at, 5) - mean) / spread.max(SPREAD_MIN)
            };
            let deviation: Vec<f64> = (0..minutes).map(deviation).collect();
            values.extend([window(5), window(15), window(60), deviation.clone()]);
            deviations.push(deviation);
        }
        values.extend(summaries(&deviations, minutes));
        Self {
            values,
            n_metrics: machine.metrics.len(),
        }
    }

    /// The places of the summaries.
    pub(crate) fn summaries(n_columns: usize) -> Vec<usize> {
        (n_columns - SUMMARIES..n_columns).collect()
    }

    /// The largest deviation, minute by minute.
    pub(crate) fn largest(&self) -> &[f64] {
        &self.values[EACH * self.n_metrics]
    }
}

fn summaries(deviations: &[Vec<f64>], minutes: usize) -> Vec<Vec<f64>> {
    let mut now: [Vec<f64>; 6] = Default::default();
    for at in 0..minutes {
        let mut sizes: Vec<f64> = deviations.iter().map(|each| each[at].abs()).collect();
        sizes.sort_by(|a, b| b.total_cmp(a));
        let beyond = |limit: f64| sizes.iter().filter(|size| **size > limit).count() as f64;
        let mean = |n: usize| sizes.iter().take(n).sum::<f64>() / n as f64;
        let known = sizes.first().is_some_and(|size| size.is_finite());
        let of = [
            sizes[0],
            sizes[2],
            mean(5),
            mean(sizes.len()),
            beyond(3.0),
            beyond(6.0),
        ];
        for (column, value) in now.iter_mut().zip(of) {
            column.push(if known { value } else { f64::NAN });
        }
    }
    // Where the week is too short nothing is known; it counts as no deviation in what follows.
    let smooth = |column: &Vec<f64>, length: usize| -> Vec<f64> {
        let known = column
            .iter()
            .map(|value| if value.is_finite() { *value } else { 0.0 });
        let sums = Sums::of(known);
        (0..minutes).map(|at| sums.last(at, length)).collect()
    };
    let smoothed = [
        smooth(&now[0], 15),
        smooth(&now[2], 15),
        smooth(&now[0], 60),
        smooth(&now[2], 60),
    ];
    now.into_iter().chain(smoothed).collect()
}
