//! The report card of a trained model: one Markdown file and one HTML file with plots, which needs nothing
//! else to be shown and runs nothing.
//!
//! Names of Nodes, alerts and kinds come from outside: `text` keeps them from being more
//! than text.

mod html;
mod markdown;
mod plot;
mod text;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::model::artifact::write_whole;

use super::judge::Judgement;
use super::labels::{Kind, Tally};
use super::sample::Part;
use super::track::Span;

/// Kinds of incidents that are listed; of the others only their number.
const KINDS_MAX: usize = 20;
/// Features whose effect is shown.
const EFFECTS_MAX: usize = 12;

/// Everything that is said of a trained model.
#[derive(Clone, Debug)]
pub struct Card {
    /// The model's id.
    pub model: String,
    /// When it was made.
    pub made: Timestamp,
    /// The history that it was made from.
    pub history: Span,
    /// Nodes of the history.
    pub nodes: u64,
    /// Rows of the history by what they are.
    pub rows: Tally,
    /// Incidents of the history by what they were seen as; one that was seen in two ways counts in both.
    pub kinds: BTreeMap<Kind, u64>,
    /// Signs of incidents that were excused by planned work.
    pub excused: u64,
    /// Nodes with incidents of which no exporter had features, so that they teach nothing.
    pub strangers: u64,
    /// The parts of the history.
    pub parts: Vec<PartCard>,
    /// Of the negative rows of training, one of so many was kept.
    pub one_in: u32,
    /// Why the model may do no more than advise, a sentence each; empty if it may act.
    pub refusals: Vec<String>,
    /// The judgement on the last part of the history.
    pub judgement: Judgement,
    /// The same on Nodes that were left out of training.
    pub unseen_nodes: Option<Judgement>,
    /// What the features do, in any order.
    pub effects: Vec<Effect>,
}

/// A part of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartCard {
    /// Which.
    pub part: Part,
    /// When.
    pub span: Span,
    /// Positive rows that were used.
    pub positives: u64,
    /// Negative rows that were used.
    pub negatives: u64,
}

/// What a feature does to the score.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    /// The feature.
    pub feature: String,
    /// The unit of its values, in words.
    pub unit: String,
    /// How much it moves a score, up or down: mean of its contributions' sizes, in log-odds.
    pub mean: f64,
    /// Its contribution in log-odds by its value, in the order of values; may be empty.
    pub curve: Vec<(f64, f64)>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[error("report `{}` cannot be written; choose another `--output`", path.display())]
pub struct ReportError {
    /// The file.
    path: PathBuf,
    /// What the system said.
    source: std::io::Error,
}

impl Card {
    /// The card as Markdown: everything but the plots.
    pub fn to_markdown(&self) -> String {
        markdown::card(self)
    }

    /// The card as one HTML page without a script, a link or a picture from elsewhere.
    pub fn to_html(&self) -> String {
        html::card(self)
    }

    /// Writes both beside the model file: `NAME.report.md` and `NAME.report.html` for `NAME.json`. Of each
    /// there is afterwards the new file or the old one, never half a file.
    ///
    /// # Errors
    ///
    /// [`ReportError`].
    pub fn write(&self, model: &Path) -> Result<[PathBuf; 2], ReportError> {
        let files = [
            (model.with_extension("report.md"), self.to_markdown()),
            (model.with_extension("report.html"), self.to_html()),
        ];
        for (path, text) in &files {
            write_whole(path, text.as_bytes()).map_err(|source| ReportError {
                path: path.clone(),
                source,
            })?;
        }
        Ok(files.map(|file| file.0))
    }

    /// The commonest kinds of incidents with their numbers, and how many others there are.
    fn commonest(&self) -> (Vec<(&Kind, u64)>, usize) {
        let mut kinds: Vec<(&Kind, u64)> = self.kinds.iter().map(|(k, n)| (k, *n)).collect();
        kinds.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        let others = kinds.len().saturating_sub(KINDS_MAX);
        kinds.truncate(KINDS_MAX);
        (kinds, others)
    }

    /// The effects that are shown, the largest first.
    fn largest(&self) -> Vec<&Effect> {
        let mut effects: Vec<&Effect> = self
            .effects
            .iter()
            .filter(|one| one.mean.is_finite())
            .collect();
        effects.sort_by(|a, b| b.mean.total_cmp(&a.mean).then(a.feature.cmp(&b.feature)));
        effects.truncate(EFFECTS_MAX);
        effects
    }

    /// What the model may do, in a sentence.
    fn verdict(&self) -> &'static str {
        if self.refusals.is_empty() {
            "This model may act: it costs less than doing without it."
        } else {
            "This model may advise and not act."
        }
    }
}

#[cfg(test)]
mod tests;
