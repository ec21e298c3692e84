//! From rows to a model: what goes missing in training, which ways are tried, and models that have not seen
//! some of the Nodes.

use std::collections::BTreeSet;
use std::time::Duration;

use foreshock_core::node::NodeName;

use super::rows::{Gathered, is_summary};
use super::{Progress, Step, TrainError, TrainingTerms};
use crate::features::derive::DeriveError;
use crate::features::{ColumnName, Schema};
use crate::model::artifact::{Artifact, Source, meaning_of};
use crate::model::bins::Cut;
use crate::model::boost::{BoostError, Settings};
use crate::model::choose::{Best, Way, learn_best, ways};
use crate::model::learn::{ColumnPlan, LearnError, Mask, Plan, Slice, Slices};

/// Share of the rows in which something that goes missing together does.
const MASKED: f64 = 0.1;

/// What is learned with.
pub(super) struct Fitting<'a> {
    gathered: &'a Gathered,
    columns: &'a [ColumnName],
    plan: Plan,
    ways: Vec<Way>,
    trees_max: usize,
}

impl<'a> Fitting<'a> {
    pub(super) fn new(
        gathered: &'a Gathered,
        columns: &'a [ColumnName],
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
            nodes: gathered.train.n_nodes(),
            each_negative: gathered.prior.each(),
        };
        Ok(Self {
            gathered,
            ways: local_ways(columns, terms.trees_max),
            trees_max: terms.trees_max,
            columns,
            plan,
        })
    }

    /// The way of this number among those that are tried.
    pub(super) fn way(&self, number: usize) -> Option<&Way> {
        self.ways.get(number)
    }

    /// The best of several ways.
    pub(super) fn best(&self, progress: &dyn Progress) -> Result<Best, TrainError> {
        let slices = self.slices(&|_| true);
        let all = (self.ways.len() * self.trees_max) as u64;
        let best = learn_best(&self.plan, &self.ways, &slices, |way, trees| {
            let done = way * self.trees_max + trees;
            progress.at(Step::Learning, done as u64, all);
        })?;
        progress.at(Step::Learning, all, all);
        Ok(best)
    }

    /// By the same way, a model that has not seen these Nodes; `None` if the others cannot teach it.
    pub(super) fn without(
        &self,
        way: &Way,
        left_out: &BTreeSet<NodeName>,
    ) -> Result<Option<Artifact>, TrainError> {
        let slices = self.slices(&|node| !left_out.contains(node));
        // Without both kinds of rows nothing stops the trees, and nothing calibrates them.
        let both = |slice: &Slice| (1..slice.labels.len()).contains(&slice.positives());
        if !both(&slices.validation) || !both(&slices.calibration) {
            return Ok(None);
        }
        match learn_best(&self.plan, std::slice::from_ref(way), &slices, |_, _| {}) {
            Ok(best) => Ok(Some(best.model)),
            Err(LearnError::Boost(BoostError::OneClass { .. })) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn slices(&self, is_wanted: &dyn Fn(&NodeName) -> bool) -> Slices {
        let n = self.columns.len();
        Slices {
            train: self.gathered.train.slice_of(n, is_wanted),
            validation: self.gathered.validation.slice_of(n, is_wanted),
            calibration: self.gathered.calibration.slice_of(n, is_wanted),
            // Judged elsewhere, by incidents and on rows that are not thinned.
            test: Slice::default(),
        }
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
    let mut tried = Vec::new();
    for way in ways(trees_max) {
        let sets: &[(&str, &Option<Vec<usize>>)] = match way.name.as_str() {
            "usual" => &[
                ("all columns", &None),
                ("now and peers", &now),
                ("now and week", &week),
                ("summaries", &summaries),
            ],
            "half of the columns" => &[("all columns", &None)],
            "slow" => &[("now and week", &week)],
            _ => &[],
        };
        for (name, columns) in sets {
            tried.push(Way {
                name: format!("{}, {name}", way.name),
                columns: (*columns).clone(),
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
