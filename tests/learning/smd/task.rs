//! What is asked of a machine's minutes, and which of them count.

use foreshock::model::learn::Slice;
use ndarray::Array2;

use super::columns::Columns;
use super::machines::Machine;

/// How far ahead the second question looks, in minutes.
pub(crate) const HORIZON: usize = 30;
/// Minutes after an anomaly that the second question leaves out: what follows is its end.
const AFTERMATH: usize = 60;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Is it anomalous now?
    Now,
    /// Does an anomaly start within the horizon?
    Soon,
}

/// A minute that counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Place of the machine.
    pub(crate) machine: usize,
    /// Minute.
    pub(crate) minute: usize,
    /// The answer.
    pub(crate) label: bool,
    /// The anomaly that it belongs to, by machine and number.
    pub(crate) event: Option<(usize, usize)>,
}

impl Task {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Now, Self::Soon];

    /// Its name in figures.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Now => "now",
            Self::Soon => "soon",
        }
    }

    /// The minutes of a machine, within these, that count.
    pub(crate) fn rows(
        self,
        machines: &[Machine],
        machine: usize,
        from: usize,
        to: usize,
    ) -> Vec<Row> {
        let each = (from..to).filter_map(|minute| {
            let event = self.event(&machines[machine], minute)?;
            Some(Row {
                machine,
                minute,
                label: event.is_some(),
                event: event.map(|number| (machine, number)),
            })
        });
        each.collect()
    }

    /// The anomaly that makes a minute positive; `None` where the minute does not count.
    fn event(self, machine: &Machine, minute: usize) -> Option<Option<usize>> {
        let events = &machine.events;
        let next = events.partition_point(|event| event.1 <= minute);
        let within = events.get(next).is_some_and(|event| event.0 <= minute);
        match self {
            Self::Now => Some(within.then_some(next)),
            Self::Soon => {
                let over = next.checked_sub(1).map(|last| events[last].1);
                if within || over.is_some_and(|over| minute < over + AFTERMATH) {
                    return None;
                }
                let starts = events.get(next).is_some_and(|e| e.0 <= minute + HORIZON);
                Some(starts.then_some(next))
            }
        }
    }
}

/// Rows with the values of all columns.
pub(crate) fn slice(columns: &[Columns], rows: &[Row]) -> Slice {
    let width = columns.first().map_or(0, |columns| columns.values.len());
    let values = rows.iter().flat_map(|row| {
        let of = &columns[row.machine].values;
        of.iter().map(|column| column[row.minute])
    });
    Slice {
        values: Array2::from_shape_vec((rows.len(), width), values.collect())
            .expect("a value of each column for every row"),
        labels: rows.iter().map(|row| row.label).collect(),
    }
}
