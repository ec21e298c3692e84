//! Names of a model's columns: what is made of a feature, or of all features of a Node.

use std::fmt;
use std::str::FromStr;

use super::derive::DeriveError;
use super::schema::{Feature, FeatureName, Schema, Unit};

/// The name before the `:` of a column that is of no single feature; no feature may have it.
pub(crate) const NODE: &str = "node";

/// What columns there are, for messages.
pub(crate) const KINDS: &str = "`FEATURE`, `FEATURE:peers`, `FEATURE:change15`, `FEATURE:change60`, \
     `FEATURE:spread60`, `FEATURE:week`, and `node:` with `largest`, `third`, `top5`, `mean`, `beyond3` or `beyond6`";

/// One column of a model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ColumnName {
    /// `mem_used`: the feature's value now, in its unit.
    Now(FeatureName),
    /// `mem_used:peers`: how far it is from the median of the Node's peers, in multiples of how far
    /// Nodes usually are from it; within ±[`DEVIATION_MAX`](super::derive::DEVIATION_MAX).
    Peers(FeatureName),
    /// `mem_used:change15`, `mem_used:change60`: the value now less that of a while ago, in the
    /// feature's unit.
    Change(FeatureName, Over),
    /// `mem_used:spread60`: standard deviation of the last hour's points, in the feature's unit.
    Spread(FeatureName),
    /// `mem_used:week`: how far it is from the mean of the Node's own week before the last hour, in
    /// multiples of how far it was from it usually; within ±[`DEVIATION_MAX`](super::derive::DEVIATION_MAX).
    Week(FeatureName),
    /// `node:largest` and the like: of the sizes of all features' deviations from the Node's own week.
    Node(Summary),
}

/// How long ago a change began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Over {
    /// 15 minutes.
    Minutes15,
    /// 60 minutes.
    Minutes60,
}

impl Over {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Minutes15, Self::Minutes60];

    /// Points of the grid.
    pub(super) fn points(self) -> i64 {
        match self {
            Self::Minutes15 => 3,
            Self::Minutes60 => 12,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Minutes15 => "change15",
            Self::Minutes60 => "change60",
        }
    }
}

/// A number made of the sizes of all features' deviations from the Node's own week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Summary {
    /// The largest.
    Largest,
    /// The third largest: one broken sensor does not move it.
    Third,
    /// The mean of the five largest.
    Top5,
    /// The mean of all.
    Mean,
    /// How many are beyond 3.
    Beyond3,
    /// How many are beyond 6.
    Beyond6,
}

impl Summary {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::Largest,
        Self::Third,
        Self::Top5,
        Self::Mean,
        Self::Beyond3,
        Self::Beyond6,
    ];

    /// The column's whole name, and the name of what contributes to a score.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Largest => "node:largest",
            Self::Third => "node:third",
            Self::Top5 => "node:top5",
            Self::Mean => "node:mean",
            Self::Beyond3 => "node:beyond3",
            Self::Beyond6 => "node:beyond6",
        }
    }

    /// What it is, as an operator reads it before the number.
    pub fn words(self) -> &'static str {
        match self {
            Self::Largest => "largest deviation from its own week",
            Self::Third => "third largest deviation from its own week",
            Self::Top5 => "mean of the five largest deviations from its own week",
            Self::Mean => "mean deviation from its own week",
            Self::Beyond3 => "features more than 3 spreads from its own week",
            Self::Beyond6 => "features more than 6 spreads from its own week",
        }
    }

    /// Unit of the number.
    pub fn unit(self) -> Unit {
        match self {
            Self::Largest | Self::Third | Self::Top5 | Self::Mean => Unit::Number,
            Self::Beyond3 | Self::Beyond6 => Unit::Count,
        }
    }

    /// The summary of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|summary| summary.as_str() == name)
    }
}

impl ColumnName {
    /// Every column that can be made of a schema's features, kind by kind.
    pub fn all(schema: &Schema) -> Vec<Self> {
        let kinds: [fn(FeatureName) -> Self; 6] = [
            Self::Now,
            Self::Peers,
            |feature| Self::Change(feature, Over::Minutes15),
            |feature| Self::Change(feature, Over::Minutes60),
            Self::Spread,
            Self::Week,
        ];
        let names = || schema.features().iter().map(|feature| feature.name.clone());
        let of_features = kinds.into_iter().flat_map(|kind| names().map(kind));
        of_features.chain(Summary::ALL.map(Self::Node)).collect()
    }

    /// The feature that the column is made from; `None` if it is made from all.
    pub fn feature(&self) -> Option<&FeatureName> {
        match self {
            Self::Now(feature)
            | Self::Peers(feature)
            | Self::Change(feature, _)
            | Self::Spread(feature)
            | Self::Week(feature) => Some(feature),
            Self::Node(_) => None,
        }
    }

    /// What the column counts with where a score is explained: its feature, or itself.
    pub fn subject(&self) -> &str {
        match self {
            Self::Node(summary) => summary.as_str(),
            Self::Now(feature)
            | Self::Peers(feature)
            | Self::Change(feature, _)
            | Self::Spread(feature)
            | Self::Week(feature) => feature.as_str(),
        }
    }

    /// Unit of the column's values, where its feature has this definition.
    pub fn unit(&self, feature: Option<&Feature>) -> Unit {
        match self {
            Self::Now(_) | Self::Change(..) | Self::Spread(_) => {
                feature.map_or(Unit::Number, |feature| feature.unit)
            }
            Self::Peers(_) | Self::Week(_) => Unit::Number,
            Self::Node(summary) => summary.unit(),
        }
    }

    /// Whether the column needs to know what this feature was before.
    pub fn remembers(&self, feature: &FeatureName) -> bool {
        match self {
            Self::Now(_) | Self::Peers(_) => false,
            Self::Change(of, _) | Self::Spread(of) | Self::Week(of) => of == feature,
            Self::Node(_) => true,
        }
    }
}

/// What a column's name says it counts with: [`ColumnName::subject`] of a name that need not be valid.
pub fn subject_of(column: &str) -> &str {
    match column.split_once(':') {
        Some((NODE, _)) | None => column,
        Some((feature, _)) => feature,
    }
}

/// Unit of a subject's value now; `None` if the schema has no such feature.
pub fn unit_of(schema: &Schema, subject: &str) -> Option<Unit> {
    let of_feature = || Some(schema.feature(subject)?.unit);
    Summary::named(subject)
        .map(Summary::unit)
        .or_else(of_feature)
}

impl fmt::Display for ColumnName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(feature) => write!(f, "{feature}"),
            Self::Peers(feature) => write!(f, "{feature}:peers"),
            Self::Change(feature, over) => write!(f, "{feature}:{}", over.as_str()),
            Self::Spread(feature) => write!(f, "{feature}:spread60"),
            Self::Week(feature) => write!(f, "{feature}:week"),
            Self::Node(summary) => f.write_str(summary.as_str()),
        }
    }
}

impl FromStr for ColumnName {
    type Err = DeriveError;

    fn from_str(text: &str) -> Result<Self, DeriveError> {
        if let Some(summary) = Summary::named(text) {
            return Ok(Self::Node(summary));
        }
        let name = subject_of(text);
        let kind = text.strip_prefix(name).unwrap_or_default();
        let column = match kind.strip_prefix(':') {
            _ if name.is_empty() || name.split(':').next() == Some(NODE) => None,
            None if kind.is_empty() => Some(Self::Now(name.into())),
            Some("peers") => Some(Self::Peers(name.into())),
            Some("spread60") => Some(Self::Spread(name.into())),
            Some("week") => Some(Self::Week(name.into())),
            Some(kind) => {
                let over = Over::ALL.into_iter().find(|over| over.as_str() == kind);
                over.map(|over| Self::Change(name.into(), over))
            }
            None => None,
        };
        column.ok_or_else(|| DeriveError::Kind {
            column: text.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_as_it_is_written_and_counts_with_its_feature_or_itself() {
        let all = ColumnName::all(&Schema::built_in());
        for column in &all {
            let name = column.to_string();
            assert_eq!(name.parse().as_ref(), Ok(column), "{name}");
            assert_eq!(subject_of(&name), column.subject(), "{name}");
            assert!(
                unit_of(&Schema::built_in(), column.subject()).is_some(),
                "{name}"
            );
        }
        let mut names: Vec<_> = all.iter().map(ToString::to_string).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len());
    }

    #[test]
    fn what_is_no_column_is_refused_and_told_what_would_be_one() {
        for name in [
            "",
            ":",
            ":week",
            "node",
            "node:",
            "node:week",
            "node:peers",
            "node:fourth",
            "cpu_used:",
            "cpu_used:change",
            "cpu_used:change15:week",
            "cpu_used:largest",
        ] {
            let error = name.parse::<ColumnName>().unwrap_err().to_string();
            assert!(error.contains("`FEATURE:week`"), "{name}: {error}");
        }
        let schema = "[[feature]]\nname='node'\nunit='ratio'\npromql='up'\nmin=0\nmax=1";
        let error = Schema::parse(schema).unwrap_err().to_string();
        assert!(error.contains("choose another"), "{error}");
    }
}
