//! The model file: one JSON object with everything that scoring needs, and our own validator.
//!
//! A model file decides who is evicted, and the gbdt crate loads files that later make it hang.
//! So an [`Artifact`] exists only if every check passed, and everything behind it relies on that:
//! [`Artifact::parse`] for bytes from anywhere, [`Artifact::seal`] for a model just trained.
//!
//! [`ColumnName`]: crate::features::ColumnName

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::features::columns::subject_of;
use crate::features::{Schema, Summary};

use super::bins::{Bins, MISSING, to_nine_digits};
use super::drift::Reference;
use super::gbdt::Ensemble;
use super::local::Local;
use super::trees::DEPTH_MAX;
use super::validate::check;

/// What the field `format` of a model file says.
pub const FORMAT: &str = "foreshock-model";
/// The version of the format that this program reads and writes.
pub const VERSION: u64 = 1;

/// How many hexadecimal digits of a feature's digest a model keeps.
pub const MEANING_DIGITS: usize = 16;

/// How large a model may be. The defaults are several times what `train` writes, and small enough
/// that even an unoptimised program has read the largest file within a second.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the file.
    pub bytes: usize,
    /// Trees.
    pub trees: usize,
    /// Nodes of all trees together.
    pub nodes: usize,
    /// Levels below the root; at most [`DEPTH_MAX`].
    pub depth: usize,
    /// Columns.
    pub columns: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 8 << 20,
            trees: 1_000,
            nodes: 50_000,
            depth: DEPTH_MAX,
            columns: 1_000,
        }
    }
}

impl Limits {
    /// The bytes of a file: one more than allowed where it is too large, which is enough to know, also on a
    /// pipe that never ends.
    pub(super) fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        let most = u64::try_from(self.bytes)
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        let mut bytes = Vec::new();
        std::fs::File::open(path)?
            .take(most)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// A checked model.
#[derive(Clone, Debug, PartialEq)]
pub struct Artifact {
    content: Content,
    checksum: String,
}

/// Everything in a model file but its envelope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// Name of the model: lower-case letters, digits, `.`, `-`, `_`.
    pub name: String,
    /// Where the training rows came from.
    pub source: Source,
    /// The columns in the order of the trees' feature numbers.
    pub columns: Vec<Column>,
    /// From raw log-odds to calibrated log-odds.
    pub calibration: Calibration,
    /// The same for rows that lack what usually comes together; none where the trees did not learn to do
    /// without. See [`Content::calibration_of`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
    /// How far ahead a positive looks, in seconds.
    pub horizon_seconds: u64,
    /// What is needed to make the same model again.
    pub provenance: Provenance,
    /// How the model did on rows that it had not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
    /// What it has shown on the operator's own history, beside what is to be had without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<Local>,
    /// What inputs and scores were in the history that it learned from: what drift is measured against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
    /// The trees, in the gbdt crate's own shape.
    pub gbdt: Ensemble,
}

/// Where a model's training rows came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The simulated fleet: such a model has proved nothing about anybody's cluster.
    Synthetic,
    /// The operator's own Prometheus history.
    Local,
    /// Nobody here knows: the model was made by another program. It has proved nothing here.
    Imported,
}

impl Source {
    /// The name in the API and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Synthetic => "synthetic",
            Self::Local => "local",
            Self::Imported => "imported",
        }
    }
}

/// One column of the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// `feature`, `feature:derivation` such as `mem_used:peers`, or `node:summary`: a
    /// [`ColumnName`](crate::features::ColumnName).
    pub name: String,
    /// [`meaning_of`] the feature: the model only fits a schema in which the feature means the same. Of
    /// a summary over all features, that of all.
    pub meaning: String,
    /// Whether the score may only rise with this column; checked tree by tree.
    pub rising: bool,
    /// What the column usually reads on a healthy Node of the training data; the reference of an
    /// explanation where the Node has no peers. In the column's unit; absent if it never had a
    /// value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usual: Option<f64>,
    /// The bins.
    pub edges: Bins,
}

impl Column {
    /// What the column counts with: the feature that it is derived from, or, of a column that is of the
    /// whole Node, its own name.
    pub fn feature(&self) -> &str {
        subject_of(&self.name)
    }
}

/// Platt's two parameters: `calibrated = slope × raw + intercept`, in log-odds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Never negative: calibration must not turn the order of the Nodes around.
    pub slope: f64,
    /// Shift in log-odds.
    pub intercept: f64,
}

impl Calibration {
    /// Calibrated log-odds of half a raw log-odds.
    pub(super) fn of(self, half: f64) -> f64 {
        self.slope * 2.0 * half + self.intercept
    }
}

/// How to calibrate rows in which all of some columns are missing: with a collector that is switched off the
/// trees know less, and what they say is to be taken for less.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gap {
    /// Places of the columns, in rising order.
    pub columns: Vec<usize>,
    /// From raw log-odds to calibrated log-odds.
    pub calibration: Calibration,
}

impl Content {
    /// The calibration of a row, given its codes: of the gaps that it has the one of most columns, of equals
    /// the one that makes the least of the trees' word, and without a gap [`Self::calibration`].
    pub fn calibration_of(&self, codes: &[u8]) -> Calibration {
        calibration_of(self.calibration, &self.gaps, codes)
    }
}

/// See [`Content::calibration_of`].
pub(super) fn calibration_of(whole: Calibration, gaps: &[Gap], codes: &[u8]) -> Calibration {
    if !codes.contains(&MISSING) {
        return whole;
    }
    let is_missing = |column: &usize| codes.get(*column) == Some(&MISSING);
    let there = gaps.iter().filter(|gap| gap.columns.iter().all(is_missing));
    let widest = there.min_by(|a, b| {
        let by_width = b.columns.len().cmp(&a.columns.len());
        by_width.then_with(|| a.calibration.slope.total_cmp(&b.calibration.slope))
    });
    widest.map_or(whole, |gap| gap.calibration)
}

/// What is needed to make the same model again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// The command that made the file.
    pub command: String,
    /// Version of the program that made it.
    pub version: String,
    /// Seed of every random draw.
    pub seed: u64,
    /// Training rows.
    pub rows: u64,
    /// Positive training rows.
    pub positives: u64,
    /// Nodes that the training rows came from.
    pub nodes: u64,
}

/// How the model did on rows that it had not seen. All ratios are in `0.0..=1.0`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Validation {
    /// Rows judged.
    pub rows: u64,
    /// Share of positive rows.
    pub base_rate: f64,
    /// Area under the precision-recall curve.
    pub pr_auc: f64,
    /// Mean squared error of the probability.
    pub brier: f64,
    /// 1 − Brier score ÷ that of always saying the base rate.
    pub brier_skill: f64,
    /// Expected calibration error over ten bins.
    pub ece: f64,
}

/// The envelope of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File<C> {
    format: String,
    version: u64,
    checksum: String,
    content: C,
}

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file cannot be read.
    #[error("model file `{}` cannot be read; check `model.file` and its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file cannot be written; nothing was changed.
    #[error("model file `{}` cannot be written; choose another `--output`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Larger than any model that `train` writes.
    #[error(
        "the model is {bytes} bytes or more, the limit is {limit}; train with fewer or smaller trees"
    )]
    TooLarge {
        /// Size as far as it was read.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Not JSON, cut off, a wrong type, or an unknown or repeated key.
    #[error(
        "the model is not a complete model file; copy it again or make it anew with `foreshock train`"
    )]
    Json(#[source] serde_json::Error),
    /// JSON, but no model file of ours.
    #[error(
        "the file is no foreshock model (its `format` is not `{FORMAT}`); `foreshock train` and `foreshock import` write one"
    )]
    Foreign,
    /// Written by another version of the program.
    #[error(
        "the model has format version {found}, this program reads {VERSION}; train it anew with this program"
    )]
    Version {
        /// What the file says.
        found: u64,
    },
    /// The content is not what was written.
    #[error(
        "the model's checksum does not match its content, so the file was changed or damaged; copy it again or train anew"
    )]
    Checksum,
    /// Something in the content cannot be.
    #[error("the model cannot be used: `{place}` {fault}; make it anew with `foreshock train`")]
    Invalid {
        /// Where, in the words of the file.
        place: String,
        /// What is wrong there.
        fault: String,
    },
    /// The model needs features that are not there, or that mean something else there.
    #[error(
        "the model was trained with other features than these: {}; set `prometheus.features_file` to the file it was trained with, or train anew",
        faults.join(", ")
    )]
    Schema {
        /// The features, as the model names them, and what is wrong with each.
        faults: Vec<String>,
    },
}

impl ModelError {
    /// A fault at a place in the content.
    pub(super) fn invalid(place: impl Into<String>, fault: impl Into<String>) -> Self {
        Self::Invalid {
            place: place.into(),
            fault: fault.into(),
        }
    }
}

impl Artifact {
    /// Checks a model made in this process and gives it its checksum. Numbers but edges are kept to
    /// nine significant digits, which every JSON reader reads alike.
    ///
    /// # Errors
    ///
    /// [`ModelError::Invalid`] where the content breaks a rule of the format.
    pub fn seal(mut content: Content, limits: &Limits) -> Result<Self, ModelError> {
        shorten_numbers(&mut content);
        check(&content, limits)?;
        let checksum = checksum_of(&content)?;
        Ok(Self { content, checksum })
    }

    /// Reads a model file from bytes that may be anything.
    ///
    /// # Errors
    ///
    /// Any [`ModelError`] but those of files and schema; each in well under a second, without a
    /// panic.
    pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Self, ModelError> {
        if bytes.len() > limits.bytes {
            return Err(ModelError::TooLarge {
                bytes: bytes.len(),
                limit: limits.bytes,
            });
        }
        #[derive(Deserialize)]
        struct Envelope {
            format: Option<serde_json::Value>,
            version: Option<serde_json::Value>,
        }
        // serde_json stops at 128 nested levels, so depth cannot exhaust the stack.
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(ModelError::Json)?;
        if envelope.format.as_ref().and_then(|v| v.as_str()) != Some(FORMAT) {
            return Err(ModelError::Foreign);
        }
        match envelope
            .version
            .as_ref()
            .and_then(serde_json::Value::as_u64)
        {
            Some(VERSION) => {}
            Some(found) => return Err(ModelError::Version { found }),
            None => return Err(ModelError::invalid("version", "is not a whole number")),
        }
        let file: File<Content> = serde_json::from_slice(bytes).map_err(ModelError::Json)?;
        check(&file.content, limits)?;
        if checksum_of(&file.content)? != file.checksum {
            return Err(ModelError::Checksum);
        }
        Ok(Self {
            content: file.content,
            checksum: file.checksum,
        })
    }

    /// Reads a model file.
    ///
    /// # Errors
    ///
    /// [`ModelError::Read`], and those of [`Self::parse`].
    pub fn read(path: &Path, limits: &Limits) -> Result<Self, ModelError> {
        let failed = |source| ModelError::Read {
            path: path.to_owned(),
            source,
        };
        Self::parse(&limits.read(path).map_err(failed)?, limits)
    }

    /// The bytes of the model file; the same for the same model.
    ///
    /// # Errors
    ///
    /// [`ModelError::Json`], in theory: everything in a checked model can be written.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ModelError> {
        let file = File {
            format: FORMAT.to_owned(),
            version: VERSION,
            checksum: self.checksum.clone(),
            content: &self.content,
        };
        let mut bytes = serde_json::to_vec(&file).map_err(ModelError::Json)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Writes the model file: afterwards there is the new file or the old one, never half a file.
    ///
    /// # Errors
    ///
    /// [`ModelError::Write`].
    pub fn write(&self, path: &Path) -> Result<(), ModelError> {
        let bytes = self.to_bytes()?;
        write_whole(path, &bytes).map_err(|source| ModelError::Write {
            path: path.to_owned(),
            source,
        })
    }

    /// The checked content.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// The checksum: SHA-256 of the content, in hexadecimal.
    pub fn checksum(&self) -> &str {
        &self.checksum
    }

    /// The model's id on decisions and metrics: its name and the start of its checksum.
    pub fn id(&self) -> String {
        format!(
            "{}-{}",
            self.content.name,
            self.checksum.get(..8).unwrap_or_default()
        )
    }

    /// Each feature's share of all splits, in `0.0..=1.0`: how often the trees ask about it.
    pub fn importances(&self) -> BTreeMap<&str, f64> {
        let mut splits = vec![0usize; self.content.columns.len()];
        let trees = self.content.gbdt.trees.iter();
        for node in trees.flat_map(|tree| &tree.tree.tree) {
            if !node.value.is_leaf
                && let Some(count) = splits.get_mut(node.value.feature_index)
            {
                *count += 1;
            }
        }
        let all = splits.iter().sum::<usize>().max(1) as f64;
        let mut shares = BTreeMap::new();
        for (column, count) in self.content.columns.iter().zip(&splits) {
            *shares.entry(column.feature()).or_default() += *count as f64 / all;
        }
        shares
    }

    /// The features that the model's columns are derived from, and its summaries of whole Nodes; sorted.
    pub fn features(&self) -> BTreeSet<&str> {
        self.content.columns.iter().map(Column::feature).collect()
    }

    /// Checks that every feature the model needs is in a schema, and means there what it meant in
    /// training.
    ///
    /// # Errors
    ///
    /// [`ModelError::Schema`] with the names of those that are not or do not.
    pub fn matches(&self, schema: &Schema) -> Result<(), ModelError> {
        let mut faults = BTreeSet::new();
        for column in &self.content.columns {
            let feature = column.feature();
            match meaning_of(schema, feature) {
                None => drop(faults.insert(format!("`{feature}` is missing"))),
                Some(meaning) if meaning != column.meaning && Summary::named(feature).is_some() => {
                    faults.insert(format!("`{feature}` is made of others"));
                }
                Some(meaning) if meaning != column.meaning => {
                    faults.insert(format!("`{feature}` is defined differently"));
                }
                Some(_) => {}
            }
        }
        let faults: Vec<String> = faults.into_iter().collect();
        if faults.is_empty() {
            Ok(())
        } else {
            Err(ModelError::Schema { faults })
        }
    }
}

/// What a feature means in a schema, as a model keeps it: [`Schema::digest_of`] it alone, as far as
/// [`MEANING_DIGITS`]; `None` if the schema lacks it. A summary of the whole Node means all features, in
/// any order: one more changes what is the mean, and how many are beyond.
pub fn meaning_of(schema: &Schema, feature: &str) -> Option<String> {
    let mut names = vec![feature];
    if Summary::named(feature).is_some() {
        names = schema.features().iter().map(|f| f.name.as_str()).collect();
        names.sort_unstable();
    }
    let mut digest = schema.digest_of(&names)?;
    digest.truncate(MEANING_DIGITS);
    Some(digest)
}

fn shorten_numbers(content: &mut Content) {
    let shorten = |number: &mut f64| *number = to_nine_digits(*number);
    for column in &mut content.columns {
        column.usual.iter_mut().for_each(shorten);
        // Not the edges: those that are learned are short, and those that are imported stand exactly
        // between two values that a threshold tells apart.
    }
    let gaps = content.gaps.iter_mut().map(|gap| &mut gap.calibration);
    for Calibration { slope, intercept } in gaps.chain([&mut content.calibration]) {
        shorten(slope);
        shorten(intercept);
    }
    if let Some(Validation {
        rows: _,
        base_rate,
        pr_auc,
        brier,
        brier_skill,
        ece,
    }) = &mut content.validation
    {
        [base_rate, pr_auc, brier, brier_skill, ece]
            .into_iter()
            .for_each(shorten);
    }
    content.local.iter_mut().for_each(Local::shorten_numbers);
    content
        .reference
        .iter_mut()
        .for_each(Reference::shorten_numbers);
    let conf = &mut content.gbdt.conf;
    shorten(&mut conf.feature_sample_ratio);
    shorten(&mut conf.data_sample_ratio);
}

/// Over the content as this program would write it, so that white space and the order of keys in
/// the file do not matter, and every number does.
fn checksum_of(content: &Content) -> Result<String, ModelError> {
    let bytes = serde_json::to_vec(content).map_err(ModelError::Json)?;
    Ok(Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// Writes to a file beside the target, syncs it and renames it over the target.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let name = path.file_name().ok_or(std::io::ErrorKind::IsADirectory)?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}", std::process::id()));
    let beside = folder.join(hidden);
    let written = (|| {
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    })();
    if written.is_err() {
        // The first failure is the one to report; a left-over is harmless.
        let _ = std::fs::remove_file(&beside);
    }
    written?;
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
