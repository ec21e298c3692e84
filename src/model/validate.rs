//! The rules that a model must keep before anything scores with it.
//!
//! What a file can get wrong and what comes of it in the gbdt crate: a child that points back makes
//! prediction run for ever, an index out of range panics, a bias of 1e39 calls every Node lost.

use std::collections::BTreeSet;

use crate::features::ColumnName;

use super::artifact::{
    Calibration, Column, Content, Gap, Limits, MEANING_DIGITS, ModelError, Source, Validation,
};
use super::bins::EDGES_MAX;
use super::gbdt::{Ensemble, LOSS, Node, Tree};
use super::trees::{DEPTH_MAX, missing_goes_right, tells_missing};

/// The largest value of a leaf or bias, in half log-odds: beyond any probability that f64 can tell
/// from 0 or 1.
const SCORE_MAX: f32 = 50.0;

/// The most kinds of gaps: one for each collector is a dozen.
const GAPS_MAX: usize = 100;

fn invalid(place: impl Into<String>, fault: impl Into<String>) -> ModelError {
    ModelError::invalid(place, fault)
}

/// Checks everything in a model but its checksum.
///
/// # Errors
///
/// [`ModelError::Invalid`] with the first fault.
pub(super) fn check(content: &Content, limits: &Limits) -> Result<(), ModelError> {
    check_name("content.name", &content.name, "._-")?;
    if content.provenance.command.len() > 4_096 || content.provenance.version.len() > 128 {
        return Err(invalid("content.provenance", "is longer than any command"));
    }
    if !(60..=7 * 86_400).contains(&content.horizon_seconds) {
        return Err(invalid(
            "content.horizon_seconds",
            "is not between a minute and a week",
        ));
    }
    check_calibration("content.calibration", content.calibration)?;
    check_gaps(&content.gaps, content.columns.len())?;
    if let Some(figures) = &content.validation {
        check_figures(figures)?;
    }
    if let Some(local) = &content.local {
        if content.source != Source::Local {
            return Err(invalid(
                "content.local",
                "is there although the model did not learn from local history",
            ));
        }
        local.check()?;
    }
    check_columns(&content.columns, limits)?;
    if let Some(reference) = &content.reference {
        reference.check(&content.columns)?;
    }
    check_ensemble(&content.gbdt, &content.columns, limits)
}

fn check_name(place: &str, name: &str, also: &str) -> Result<(), ModelError> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || also.contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
        let fault = format!("is not 1 to 64 lower-case letters, digits or any of `{also}`");
        return Err(invalid(place, fault));
    }
    Ok(())
}

fn check_calibration(place: &str, calibration: Calibration) -> Result<(), ModelError> {
    let Calibration { slope, intercept } = calibration;
    if !(0.0..=100.0).contains(&slope) {
        return Err(invalid(
            format!("{place}.slope"),
            "is not between 0 and 100",
        ));
    }
    if !(-100.0..=100.0).contains(&intercept) {
        return Err(invalid(
            format!("{place}.intercept"),
            "is not between -100 and 100",
        ));
    }
    Ok(())
}

fn check_gaps(gaps: &[Gap], n_columns: usize) -> Result<(), ModelError> {
    if gaps.len() > GAPS_MAX {
        let fault = format!("has more than {GAPS_MAX} entries");
        return Err(invalid("content.gaps", fault));
    }
    for (i, gap) in gaps.iter().enumerate() {
        let place = format!("content.gaps[{i}]");
        let columns = &gap.columns;
        if columns.windows(2).any(|pair| pair[0] >= pair[1]) {
            let place = format!("{place}.columns");
            return Err(invalid(place, "does not rise from entry to entry"));
        }
        if columns.last().is_none_or(|last| *last >= n_columns) {
            let place = format!("{place}.columns");
            return Err(invalid(
                place,
                "is empty, or names a column that is not there",
            ));
        }
        check_calibration(&format!("{place}.calibration"), gap.calibration)?;
    }
    Ok(())
}

fn check_figures(figures: &Validation) -> Result<(), ModelError> {
    let Validation {
        rows: _,
        base_rate,
        pr_auc,
        brier,
        brier_skill,
        ece,
    } = figures;
    for (name, figure) in [
        ("base_rate", base_rate),
        ("pr_auc", pr_auc),
        ("brier", brier),
        ("ece", ece),
    ] {
        if !(0.0..=1.0).contains(figure) {
            return Err(invalid(
                format!("content.validation.{name}"),
                "is not between 0 and 1",
            ));
        }
    }
    if !brier_skill.is_finite() || *brier_skill > 1.0 {
        return Err(invalid(
            "content.validation.brier_skill",
            "is not a number of at most 1",
        ));
    }
    Ok(())
}

fn check_columns(columns: &[Column], limits: &Limits) -> Result<(), ModelError> {
    if columns.is_empty() || columns.len() > limits.columns {
        let fault = format!("has {} entries, not 1 to {}", columns.len(), limits.columns);
        return Err(invalid("content.columns", fault));
    }
    let mut seen = BTreeSet::new();
    for (i, column) in columns.iter().enumerate() {
        let place = |what: &str| format!("content.columns[{i}].{what}");
        check_name(&place("name"), &column.name, "_:")?;
        if column.name.parse::<ColumnName>().is_err() {
            return Err(invalid(
                place("name"),
                "is no kind of column that this version makes",
            ));
        }
        if !seen.insert(column.name.as_str()) {
            return Err(invalid(place("name"), "is there twice"));
        }
        let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if column.meaning.len() != MEANING_DIGITS || !column.meaning.chars().all(hex) {
            return Err(invalid(place("meaning"), "is not 16 hexadecimal digits"));
        }
        if column.usual.is_some_and(|usual| !usual.is_finite()) {
            return Err(invalid(place("usual"), "is not a finite number"));
        }
        let edges = &column.edges.edges;
        if edges.len() > EDGES_MAX {
            return Err(invalid(
                place("edges"),
                format!("has more than {EDGES_MAX} entries"),
            ));
        }
        if edges.iter().any(|edge| !edge.is_finite()) {
            return Err(invalid(
                place("edges"),
                "has an entry that is not a finite number",
            ));
        }
        if edges.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(invalid(place("edges"), "does not rise from entry to entry"));
        }
    }
    Ok(())
}

fn check_ensemble(
    ensemble: &Ensemble,
    columns: &[Column],
    limits: &Limits,
) -> Result<(), ModelError> {
    let conf = &ensemble.conf;
    let fault = |place: &str, fault: &str| Err(invalid(format!("content.gbdt.{place}"), fault));
    if conf.feature_size != columns.len() {
        return fault("conf.feature_size", "is not the number of columns");
    }
    if ensemble.trees.is_empty() || ensemble.trees.len() > limits.trees {
        return fault("trees", "is empty or longer than the limit");
    }
    if conf.iterations != ensemble.trees.len() {
        return fault("conf.iterations", "is not the number of trees");
    }
    if conf.loss != LOSS {
        return fault("conf.loss", "is not `LogLikelyhood`");
    }
    if conf.initial_guess_enabled || conf.debug {
        return fault("conf", "has `debug` or `initial_guess_enabled` set");
    }
    if !(conf.shrinkage > 0.0 && conf.shrinkage <= 1.0) {
        return fault("conf.shrinkage", "is not above 0 and at most 1");
    }
    for ratio in [conf.feature_sample_ratio, conf.data_sample_ratio] {
        if !(ratio > 0.0 && ratio <= 1.0) {
            return fault(
                "conf",
                "has a sample ratio that is not above 0 and at most 1",
            );
        }
    }
    if !(-SCORE_MAX..=SCORE_MAX).contains(&ensemble.bias) {
        return fault("bias", "is not between -50 and 50");
    }
    let nodes: usize = ensemble.trees.iter().map(|tree| tree.tree.tree.len()).sum();
    if nodes > limits.nodes {
        return fault("trees", "has more nodes than the limit");
    }
    for (i, tree) in ensemble.trees.iter().enumerate() {
        check_tree(tree, columns, limits.depth.min(DEPTH_MAX)).map_err(|(at, fault)| {
            invalid(format!("content.gbdt.trees[{i}].tree.tree[{at}]"), fault)
        })?;
    }
    Ok(())
}

/// Checks one tree; the error is the place of a node and what is wrong there.
fn check_tree(tree: &Tree, columns: &[Column], depth_max: usize) -> Result<(), (usize, String)> {
    let nodes = &tree.tree.tree;
    let fault = |at: usize, fault: &str| Err((at, fault.to_owned()));
    if nodes.is_empty() {
        return fault(0, "is missing: the tree has no root");
    }
    if tree.feature_size != columns.len() {
        return fault(0, "is in a tree of another `feature_size`");
    }
    // Children come after their parent, so one pass forward knows every parent before its children.
    let mut depth: Vec<Option<usize>> = vec![None; nodes.len()];
    depth[0] = Some(0);
    for (at, node) in nodes.iter().enumerate() {
        let Some(level) = depth[at] else {
            return fault(at, "is not reached from the root");
        };
        if node.index != at {
            return fault(at, "has another place in `index`");
        }
        if !matches!(node.value.missing, 0 | 1) {
            return fault(
                at,
                "has a direction for missing values that is not 0 (as the lowest) or 1 (right)",
            );
        }
        if !(-SCORE_MAX..=SCORE_MAX).contains(&node.value.pred) {
            return fault(at, "has a `pred` that is not between -50 and 50");
        }
        if node.value.is_leaf {
            if (node.left, node.right) != (0, 0) {
                return fault(at, "is a leaf with children");
            }
            continue;
        }
        let Some(column) = columns.get(node.value.feature_index) else {
            return fault(at, "has a `feature_index` beyond the columns");
        };
        let code_max = f32::from(column.edges.code_max());
        if !(node.value.feature_value > 0.0 && node.value.feature_value <= code_max) {
            return fault(at, "has a `feature_value` that is no bin of its column");
        }
        if missing_goes_right(node) {
            if column.rising {
                return fault(
                    at,
                    "sends missing values to the high side of a column that is declared as rising",
                );
            }
            if tells_missing(node) {
                return fault(at, "sends every value and missing values to the right");
            }
        }
        if level >= depth_max {
            return Err((
                at,
                format!("is more than {depth_max} levels below the root"),
            ));
        }
        for child in [node.left, node.right] {
            if child <= at || child >= nodes.len() {
                return fault(
                    at,
                    "has a child that does not come after it, or is not there",
                );
            }
            if depth[child].replace(level + 1).is_some() {
                return fault(child, "is reached twice");
            }
        }
    }
    check_rising(nodes, columns)
}

/// In a column declared as rising, nothing left of a cut may exceed anything right of it. That is
/// more than needed, but it is what training guarantees, and it can be checked in one pass.
fn check_rising(nodes: &[Node], columns: &[Column]) -> Result<(), (usize, String)> {
    let mut span: Vec<(f32, f32)> = nodes.iter().map(|n| (n.value.pred, n.value.pred)).collect();
    for (at, node) in nodes.iter().enumerate().rev() {
        if node.value.is_leaf {
            continue;
        }
        let (left, right) = (span[node.left], span[node.right]);
        let rising = columns[node.value.feature_index].rising && !tells_missing(node);
        if rising && left.1 > right.0 {
            return Err((
                at,
                "falls in a column that is declared as rising".to_owned(),
            ));
        }
        span[at] = (left.0.min(right.0), left.1.max(right.1));
    }
    Ok(())
}
