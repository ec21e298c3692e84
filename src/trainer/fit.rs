//! From rows to models: what goes missing in training, which ways are tried, and which Nodes are left out in turn.

use std::collections::BTreeSet;
use std::time::Duration;

use foreshock_core::node::NodeName;

use super::rows::{Gathered, is_summary};
use super::{Progress, Step, TrainError, TrainingTerms};
use crate::features::derive::DeriveError;
use crate::features::{ColumnName, Schema};
use crate::model::artifact::{Source, meaning_of};
use crate::model::bins::Cut;
use crate::model::boost::{RowSample, Settings};
use crate::model::choose::{Way, ways};
use crate::model::hands::{ByHands, Hands, learn_by_hands};
use crate::model::learn::{ColumnPlan, Mask, Plan, Slice, Slices};

/// Share of the rows in which something that goes missing together does.
const MASKED: f64 = 0.1;
/// Of the rows a tree sees the tenth that is worst told and as many of the others, if that is enough rows, and of the
/// columns a quarter (ADR 17).
const SEEN: RowSample = RowSample::OneSided {
    top: 0.1,
    drawn: 0.1,
    least: 5_000,
};
const COLUMNS: f64 = 0.25;
/// So many columns or fewer are all seen: there are fewer summaries of a Node than that.
const COLUMNS_FEW: usize = 20;

/// What is learned with.
pub(super) struct Fitting {
    slices: Slices,
    hands: Hands,
    plan: Plan,
    ways: Vec<Way>,
}

impl Fitting {
    pub(super) fn new(
        gathered: Gathered,
        dealt: &[BTreeSet<NodeName>],
        columns: &[ColumnName],
        schema: &Schema,
        horizon: Duration,
        terms: &TrainingTerms,
    ) -> Result<Self, DeriveError> {
        let column = |column: &ColumnName| {
            let subject = column.subject();
            let meaning = meaning_of(schema, subject).ok_or_else(|| DeriveError::Features {
                features: vec![subject.to_owned()],
            })?;
            Ok(ColumnPlan {
                name: column.to_string(),
                rising: false,
                meaning,
            })
        };
        let taught = [&gathered.train, &gathered.validation];
        let n_nodes = taught
            .into_iter()
            .flat_map(|part| &part.nodes)
            .collect::<BTreeSet<_>>()
            .len();
        let plan = Plan {
            name: "local".to_owned(),
            source: Source::Local,
            columns: columns.iter().map(column).collect::<Result<_, _>>()?,
            masks: masks(columns, schema),
            // Each way has its own.
            cut: Cut {
                quantiles: 32,
                tails: true,
            },
            settings: Settings {
                seed: terms.seed,
                ..Settings::default()
            },
            horizon_seconds: horizon.as_secs(),
            command: terms.command.clone(),
            nodes: n_nodes as u64,
            each_negative: gathered.prior.each(),
        };
        Ok(Self {
            hands: Hands {
                count: u8::try_from(dealt.len()).unwrap_or(u8::MAX),
                train: gathered.train.hands(dealt),
                validation: gathered.validation.hands(dealt),
                calibration: gathered.calibration.hands(dealt),
            },
            slices: Slices {
                train: gathered.train.slice,
                validation: gathered.validation.slice,
                calibration: gathered.calibration.slice,
                // Judged elsewhere, by incidents and on rows that are not thinned.
                test: Slice::default(),
            },
            ways: local_ways(columns, terms.trees_max),
            plan,
        })
    }

    /// Models in the best of several ways.
    pub(super) fn best(&self, progress: &dyn Progress) -> Result<ByHands, TrainError> {
        let tell = |trees: usize, all: usize| {
            progress.at(Step::Learning, trees as u64, all as u64);
        };
        Ok(learn_by_hands(
            &self.plan,
            &self.ways,
            &self.slices,
            &self.hands,
            tell,
        )?)
    }
}

/// What goes missing together: all columns of a collector's features; everything that takes a history; and
/// everything that is optional.
fn masks(columns: &[ColumnName], schema: &Schema) -> Vec<Mask> {
    let places = |is_masked: &dyn Fn(&ColumnName) -> bool| -> Vec<usize> {
        let columns = columns.iter().enumerate();
        let masked = columns.filter(|(_, column)| is_masked(column));
        masked.map(|(place, _)| place).collect()
    };
    let feature = |column: &ColumnName| schema.feature(column.feature()?.as_str());
    let mut masks: Vec<Vec<usize>> = Vec::new();
    for group in schema.groups() {
        masks.push(places(&|column| {
            let mut sources = feature(column).into_iter().flat_map(|f| &f.sources);
            sources.any(|source| source.group.as_ref() == Some(&group))
        }));
    }
    // A restart without an archive, and a Node that is new: summaries are of the history, too.
    masks.push(places(&|column| match column {
        ColumnName::Now(_) | ColumnName::Peers(_) => {
            feature(column).is_some_and(|feature| !feature.history.is_zero())
        }
        ColumnName::Change(..)
        | ColumnName::Spread(_)
        | ColumnName::Week(_)
        | ColumnName::Node(_) => true,
    }));
    masks.push(places(&|column| {
        feature(column).is_some_and(|feature| feature.optional)
    }));
    masks.retain(|columns| !columns.is_empty());
    let masks = masks.into_iter();
    masks
        .map(|columns| Mask {
            columns,
            share: MASKED,
        })
        .collect()
}

/// The ways that are tried: few, because incidents are, and the more there are the likelier chance wins. The
/// fewer columns, the better it carries over to Nodes that nobody has seen.
fn local_ways(columns: &[ColumnName], trees_max: usize) -> Vec<Way> {
    let places = |is_taken: &dyn Fn(&ColumnName) -> bool| -> Option<Vec<usize>> {
        let columns = columns.iter().enumerate();
        let taken = columns.filter(|(_, column)| is_taken(column));
        Some(taken.map(|(place, _)| place).collect())
    };
    let now = places(&|c| is_summary(c) || matches!(c, ColumnName::Now(_) | ColumnName::Peers(_)));
    let week = places(&|c| is_summary(c) || matches!(c, ColumnName::Now(_) | ColumnName::Week(_)));
    let summaries = places(&is_summary);
    let n = columns.len();
    let mut tried = Vec::new();
    for way in ways(trees_max) {
        let sets: &[(&str, &Option<Vec<usize>>)] = match way.name.as_str() {
            "usual" => &[
                ("all columns", &None),
                ("now and peers", &now),
                ("now and week", &week),
                ("summaries", &summaries),
            ],
            "slow" => &[("all columns", &None), ("now and week", &week)],
            _ => &[],
        };
        for (name, columns) in sets {
            let n_taken = columns.as_ref().map_or(n, Vec::len);
            tried.push(Way {
                name: format!("{}, {name}", way.name),
                columns: (*columns).clone(),
                settings: Settings {
                    rows: SEEN,
                    // Of the few summaries every tree sees all.
                    column_share: if n_taken > COLUMNS_FEW { COLUMNS } else { 1.0 },
                    ..way.settings.clone()
                },
                ..way.clone()
            });
        }
    }
    tried.retain(|way| {
        way.columns
            .as_ref()
            .is_none_or(|columns| !columns.is_empty())
    });
    tried
}
