//! What the other learners make of the same rows: `theirs.py` in the command's Python environment.
//!
//! What they said is kept beside the environment under a digest of rows, script and versions, so that
//! only what has changed is trained again.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use foreshock::model::learn::{Slice, Slices};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Where Python is, and where what was learned is kept.
#[derive(Clone, Debug)]
pub(crate) struct Python {
    /// The interpreter of the environment.
    pub(crate) program: PathBuf,
    /// Where results are kept.
    pub(crate) results: PathBuf,
}

/// What a learner has said.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    /// Probabilities of the test rows.
    pub(crate) probabilities: Vec<f64>,
    /// Which of the settings was chosen.
    pub(crate) chosen: usize,
    /// What was tried.
    pub(crate) tried: Vec<Setting>,
}

/// One setting on the validation rows.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Setting {
    /// Its name.
    pub(crate) name: String,
    /// Trees that were kept.
    pub(crate) trees: usize,
    /// Mean logistic loss.
    pub(crate) loss: f64,
    /// Area under the precision-recall curve.
    pub(crate) pr_auc: f64,
}

/// The rows that all learners are given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given<'a> {
    /// To grow trees on.
    pub(crate) train: &'a Slice,
    /// To choose by.
    pub(crate) validation: &'a Slice,
    /// To be judged by; labels are not handed over.
    pub(crate) test: &'a Slice,
}

impl<'a> Given<'a> {
    /// The rows of slices.
    pub(crate) fn of(slices: &'a Slices) -> Self {
        Self {
            train: &slices.train,
            validation: &slices.validation,
            test: &slices.test,
        }
    }
}

const SCRIPT: &str = include_str!("theirs.py");
const VERSIONS: &str = include_str!("requirements.txt");

impl Python {
    /// What each of these learners says of the test rows, in their order.
    ///
    /// # Errors
    ///
    /// Python fails, or something cannot be written or read.
    pub(crate) fn learn(&self, learners: &[&str], given: Given<'_>) -> anyhow::Result<Vec<Said>> {
        let unlabelled = Slice {
            values: given.test.values.clone(),
            labels: vec![false; given.test.labels.len()],
        };
        let files: Vec<(&str, Vec<u8>, Vec<u8>)> = [
            ("train", given.train),
            ("validation", given.validation),
            ("test", &unlabelled),
        ]
        .map(|(name, slice)| (name, values_npy(slice), labels_npy(slice)))
        .into();
        let mut digest = Sha256::new();
        digest.update(SCRIPT);
        digest.update(VERSIONS);
        for (_, values, labels) in &files {
            digest.update(values);
            digest.update(labels);
        }
        let key: String = digest
            .finalize()
            .iter()
            .take(12)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let kept = self.results.join(key);
        let lacking: Vec<&str> = learners
            .iter()
            .copied()
            .filter(|name| !kept.join(format!("{name}.json")).exists())
            .collect();
        if !lacking.is_empty() {
            let folder = tempfile::tempdir().context("no folder for the rows")?;
            for (name, values, labels) in &files {
                std::fs::write(folder.path().join(format!("{name}.npy")), values)?;
                std::fs::write(folder.path().join(format!("{name}.labels.npy")), labels)?;
            }
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/learning/theirs.py");
            let done = Command::new(&self.program)
                .arg(&script)
                .arg(folder.path())
                .args(&lacking)
                .status()
                .with_context(|| format!("{} does not start", self.program.display()))?;
            ensure!(done.success(), "{} failed: {done}", script.display());
            std::fs::create_dir_all(&kept)
                .with_context(|| format!("{} cannot be made", kept.display()))?;
            // The table last: where it is, the probabilities are whole.
            for name in &lacking {
                for file in [format!("{name}.npy"), format!("{name}.json")] {
                    std::fs::copy(folder.path().join(&file), kept.join(&file))?;
                }
            }
        }
        learners.iter().map(|name| read(&kept, name)).collect()
    }
}

fn read(folder: &Path, name: &str) -> anyhow::Result<Said> {
    #[derive(Deserialize)]
    struct Table {
        chosen: usize,
        tried: Vec<Setting>,
    }
    let path = folder.join(format!("{name}.json"));
    let text = std::fs::read(&path).with_context(|| format!("{} is gone", path.display()))?;
    let table: Table = serde_json::from_slice(&text)?;
    let path = folder.join(format!("{name}.npy"));
    let bytes = std::fs::read(&path).with_context(|| format!("{} is gone", path.display()))?;
    let probabilities =
        from_npy(&bytes).with_context(|| format!("{} is no list of numbers", path.display()))?;
    Ok(Said {
        probabilities,
        chosen: table.chosen,
        tried: table.tried,
    })
}

fn values_npy(slice: &Slice) -> Vec<u8> {
    let (rows, columns) = slice.values.dim();
    let mut bytes = header("<f8", &format!("{rows}, {columns}"));
    bytes.extend(slice.values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

fn labels_npy(slice: &Slice) -> Vec<u8> {
    let mut bytes = header("|u1", &format!("{},", slice.labels.len()));
    bytes.extend(slice.labels.iter().map(|label| u8::from(*label)));
    bytes
}

/// The head of a file of NumPy's format, version 1.0, padded to a multiple of 64 bytes.
fn header(kind: &str, shape: &str) -> Vec<u8> {
    let text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}");
    let length = (10 + text.len() + 1).next_multiple_of(64) - 10;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes());
    // Writing to memory cannot fail.
    let _ = writeln!(bytes, "{text:<width$}", width = length - 1);
    bytes
}

fn from_npy(bytes: &[u8]) -> anyhow::Result<Vec<f64>> {
    let Some(length) = bytes.get(8..10).and_then(|two| two.try_into().ok()) else {
        bail!("it is cut short");
    };
    let from = 10 + usize::from(u16::from_le_bytes(length));
    let head = String::from_utf8_lossy(bytes.get(10..from).unwrap_or_default());
    ensure!(
        head.contains("'<f8'"),
        "its numbers are of another kind: {head}"
    );
    let numbers = bytes.get(from..).unwrap_or_default().chunks_exact(8);
    Ok(numbers
        .map(|eight| f64::from_le_bytes(eight.try_into().expect("eight bytes in each chunk")))
        .collect())
}
