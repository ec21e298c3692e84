//! The machines of the Server Machine Dataset, as a folder of `NAME.csv.gz`: `minute`, `anomaly`
//! (empty, 0 or 1), and metrics between 0 and 1, a row a minute.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};

/// One machine.
pub(crate) struct Machine {
    /// As its file is called.
    pub(crate) name: String,
    /// Whether each minute is anomalous; `None` where nobody has said.
    pub(crate) anomalous: Vec<Option<bool>>,
    /// Values of each metric, minute by minute.
    pub(crate) metrics: Vec<Vec<f64>>,
    /// Anomalies: first minute, and the one after the last.
    pub(crate) events: Vec<(usize, usize)>,
}

/// Reads all machines of a folder, by name.
///
/// # Errors
///
/// There are none, or a file is not as it should be.
pub(crate) fn read(folder: &Path) -> anyhow::Result<Vec<Machine>> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("the folder {} cannot be read", folder.display()))?;
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_string_lossy().ends_with(".csv.gz"))
        .collect();
    files.sort();
    ensure!(
        files.len() >= 3,
        "{} holds {} machines (NAME.csv.gz); to judge by a machine that nobody has seen takes three",
        folder.display(),
        files.len(),
    );
    let machines = files.iter().map(|path| {
        let machine = Machine::read(path);
        machine.with_context(|| format!("{} is no machine", path.display()))
    });
    machines.collect()
}

impl Machine {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let unpacked = Command::new("gzip").arg("-dc").arg(path).output();
        let unpacked = unpacked.context("gzip does not start; install it")?;
        ensure!(unpacked.status.success(), "gzip cannot unpack it");
        let text = String::from_utf8(unpacked.stdout).context("it is no text")?;
        let mut lines = text.lines();
        let head: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
        ensure!(
            head.get(..2) == Some(&["minute", "anomaly"]) && head.len() > 6,
            "its first line is not `minute,anomaly` and five metrics or more"
        );
        let mut anomalous = Vec::new();
        let mut metrics = vec![Vec::new(); head.len() - 2];
        for (number, line) in lines.enumerate() {
            let fields: Vec<&str> = line.split(',').collect();
            ensure!(
                fields.len() == head.len(),
                "row {number} is not as wide as the first line"
            );
            anomalous.push(match fields[1] {
                "" => None,
                "0" => Some(false),
                "1" => Some(true),
                other => bail!("row {number}: `{other}` is neither empty, 0 nor 1"),
            });
            for (metric, field) in metrics.iter_mut().zip(&fields[2..]) {
                let value = field.parse::<f64>();
                metric.push(value.with_context(|| format!("row {number}: `{field}`"))?);
            }
        }
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().replace(".csv.gz", ""));
        Ok(Self {
            name: name.unwrap_or_default(),
            events: events(&anomalous),
            anomalous,
            metrics,
        })
    }

    /// The first minute with a label, and the one after the last.
    pub(crate) fn labelled(&self) -> (usize, usize) {
        let first = self.anomalous.iter().position(Option::is_some);
        (first.unwrap_or(self.anomalous.len()), self.anomalous.len())
    }
}

fn events(anomalous: &[Option<bool>]) -> Vec<(usize, usize)> {
    let mut events: Vec<(usize, usize)> = Vec::new();
    for (minute, label) in anomalous.iter().enumerate() {
        if *label == Some(true) {
            match events.last_mut() {
                Some(last) if last.1 == minute => last.1 += 1,
                _ => events.push((minute, minute + 1)),
            }
        }
    }
    events
}
