//! Scores rows with a model file, for `tests/xgboost`: `import MODEL ROWS` prints a probability a line.
//!
//! ROWS is a JSON list of rows, each a list with a number for each of the model's columns, `null` where
//! the value is missing.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use foreshock::features::ModelMatrix;
use foreshock::model::artifact::{Artifact, Limits};
use foreshock::model::scorer::{Scorer, TreeScorer};
use ndarray::Array2;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, rows] = &arguments[..] else {
        bail!("usage: import MODEL ROWS");
    };
    let scorer = TreeScorer::new(&Artifact::read(Path::new(model), &Limits::default())?);
    let text = std::fs::read(rows).with_context(|| format!("{rows} cannot be read"))?;
    let rows: Vec<Vec<Option<f64>>> = serde_json::from_slice(&text).context("rows are no rows")?;
    let columns = scorer.columns().to_vec();
    let shape = (rows.len(), columns.len());
    let values = rows.iter().flatten().map(|value| value.unwrap_or(f64::NAN));
    let values = Array2::from_shape_vec(shape, values.collect())
        .context("rows are not as wide as the model")?;
    let matrix = ModelMatrix {
        nodes: Vec::new(),
        columns,
        values,
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for score in scorer.score(&matrix) {
        writeln!(out, "{}", score.probability.as_f64())?;
    }
    Ok(())
}
