//! Which features there are: ordered names with unit, query, possible range and meaning of absence.
//!
//! The order of the file is the order of the columns everywhere. Reading the TOML is in
//! `schema_toml`; filling the queries' placeholders is the business of `prometheus`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

/// The features that foreshock brings along: `config/features.toml`.
const BUILT_IN: &str = include_str!("../../config/features.toml");

/// Name of a feature, as in `config/features.toml`: `[a-z][a-z0-9_]*`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeatureName(Arc<str>);

impl FeatureName {
    /// Takes a name; [`Schema::parse`] is what checks its form.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FeatureName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FeatureName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl From<&str> for FeatureName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl std::borrow::Borrow<str> for FeatureName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Unit of a feature's values; the words are those of the TOML, the API and the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// A share, usually within `0.0..=1.0`.
    Ratio,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Degrees Celsius.
    Celsius,
    /// How many.
    Count,
    /// How many a second.
    PerSecond,
    /// A number without a unit.
    Number,
}

impl Unit {
    /// Every unit, in the order of the documentation.
    pub const ALL: [Self; 7] = [
        Self::Ratio,
        Self::Seconds,
        Self::Bytes,
        Self::Celsius,
        Self::Count,
        Self::PerSecond,
        Self::Number,
    ];

    /// The word for it in TOML and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ratio => "ratio",
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
            Self::Celsius => "celsius",
            Self::Count => "count",
            Self::PerSecond => "per_second",
            Self::Number => "number",
        }
    }
}

impl Unit {
    /// A value with its unit as an operator reads it: `84 ms`, `41 %`, `3.2 GiB`, `30 /s`.
    pub fn describe(self, value: f64) -> String {
        match self {
            Self::Ratio => format!("{} %", short(value * 100.0)),
            Self::Seconds => scaled(
                value,
                &[
                    (1e-6, "µs", 1e-3),
                    (1e-3, "ms", 1.0),
                    (1.0, "s", f64::INFINITY),
                ],
            ),
            Self::Bytes => scaled(
                value,
                &[
                    (1.0, "B", 1024.0),
                    (1024.0, "KiB", 1_048_576.0),
                    (1_048_576.0, "MiB", 1_073_741_824.0),
                    (1_073_741_824.0, "GiB", f64::INFINITY),
                ],
            ),
            Self::Celsius => format!("{} °C", short(value)),
            Self::Count | Self::Number => short(value),
            Self::PerSecond => format!("{} /s", short(value)),
        }
    }
}

/// Divides by the first unit whose end lies beyond the value.
fn scaled(value: f64, units: &[(f64, &str, f64)]) -> String {
    let fits = units
        .iter()
        .find(|(.., end)| value.abs() < *end)
        .or(units.last());
    fits.map_or_else(
        || short(value),
        |(unit, name, _)| format!("{} {name}", short(value / unit)),
    )
}

/// Two or three significant digits, without a tail of zeros.
fn short(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 10.0 || size == 0.0 => 0,
        size if size >= 1.0 => 1,
        size if size >= 0.1 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    if text == "-0" || (text == "0" && value != 0.0) {
        format!("{value:.1e}").replace("0.0e0", "0")
    } else {
        text.to_owned()
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What it means when a fresh Node, whose collector succeeded, has no sample of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// Nothing is known.
    Missing,
    /// Nothing happened: the value is 0, as for the error ratio of an idle interface.
    Zero,
}

impl Absent {
    /// The word for it in TOML.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Zero => "zero",
        }
    }
}

/// One place that a feature's value may come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// As shown to people and as in the label `source` of the query's result.
    pub name: Arc<str>,
    /// The node_exporter collector whose `node_scrape_collector_success` must be 1 for a value of
    /// this source to count; `None` where no collector is behind it.
    pub group: Option<Arc<str>>,
}

/// One column of a [`FeatureMatrix`](super::FeatureMatrix).
#[derive(Clone, Debug, PartialEq)]
pub struct Feature {
    /// Name of the column, unique in its schema.
    pub name: FeatureName,
    /// Unit of `min`, `max`, `noise` and of every value.
    pub unit: Unit,
    /// An instant query with placeholders (`$S $D $N $F $W`), at most one series for each Node.
    pub promql: String,
    /// Where a value may come from, the preferred place first; never empty, at most [`SOURCES_MAX`].
    pub sources: Vec<Source>,
    /// Lowest possible value.
    pub min: f64,
    /// Highest possible value, above `min`.
    pub max: f64,
    /// The smallest difference between two Nodes that means anything; above 0.
    pub noise: f64,
    /// How long a target must have been scraped before a value means anything; 0 for no condition.
    pub history: Duration,
    /// What no sample means.
    pub absent: Absent,
    /// Asked for at multiples of this only; `None` for every cycle. Whole seconds.
    pub every: Option<Duration>,
    /// Does not count in the share of missing features.
    pub optional: bool,
}

/// The most sources one feature may have; two or three are usual.
pub const SOURCES_MAX: usize = 8;

/// The most features one schema may have: each is a query in every cycle.
pub const FEATURES_MAX: usize = 500;

/// The most collectors one schema may name: their success is asked for in one number, bit by bit,
/// and a float carries 53 bits exactly.
pub const GROUPS_MAX: usize = 50;

impl Feature {
    /// Whether the series are those of the node_exporter targets of the identity query (the query
    /// uses `$S`), so that only that query may say which Node an `instance` is.
    pub fn is_of_targets(&self) -> bool {
        self.promql.contains("$S")
    }

    /// The place of a source among [`Self::sources`].
    pub fn source_index(&self, name: &str) -> Option<u8> {
        let index = self.sources.iter().position(|s| &*s.name == name)?;
        u8::try_from(index).ok()
    }

    /// A possible value as it is, one beyond the range by no more than `noise` as the bound, since
    /// rates jitter; `None` for anything else, NaN and infinities included.
    pub fn possible(&self, value: f64) -> Option<f64> {
        let near = value >= self.min - self.noise && value <= self.max + self.noise;
        near.then(|| value.clamp(self.min, self.max))
    }

    /// Everything that changes what a value means, as unambiguous text. `every` and `optional` do not.
    fn meaning(&self) -> String {
        let promql = self.promql.split_whitespace().collect::<Vec<_>>().join(" ");
        let sources: Vec<_> = self
            .sources
            .iter()
            .map(|s| (&*s.name, s.group.as_deref().unwrap_or("")))
            .collect();
        format!(
            "{:?} {} {:?} {:?} {:?} {:?} {:?} {} {}\n",
            self.name.as_str(),
            self.unit,
            promql,
            sources,
            self.min,
            self.max,
            self.noise,
            self.history.as_millis(),
            self.absent.as_str(),
        )
    }
}

/// The ordered features of one installation. At least one; names do not repeat.
#[derive(Debug)]
pub struct Schema {
    features: Vec<Feature>,
    index: BTreeMap<FeatureName, usize>,
    digest: String,
}

impl Schema {
    /// The features that foreshock brings along.
    pub fn built_in() -> Self {
        Self::parse(BUILT_IN).expect("config/features.toml is part of the program and tested")
    }

    /// Reads the form of `config/features.toml`.
    ///
    /// # Errors
    ///
    /// [`SchemaError`] with every fault of the text, each with its feature and key.
    pub fn parse(toml: &str) -> Result<Self, SchemaError> {
        super::schema_toml::parse(toml).map(Self::of)
    }

    /// A schema of features that are already checked.
    pub(super) fn of(features: Vec<Feature>) -> Self {
        let index = features
            .iter()
            .enumerate()
            .map(|(i, f)| (f.name.clone(), i))
            .collect();
        let digest = digest(features.iter());
        Self {
            features,
            index,
            digest,
        }
    }

    /// Only these of the features, in the same order; `None` if none of them is here.
    pub fn only<'a>(&self, names: impl IntoIterator<Item = &'a FeatureName>) -> Option<Self> {
        let names: std::collections::BTreeSet<_> = names.into_iter().collect();
        let features = self.features.iter().filter(|f| names.contains(&f.name));
        let features: Vec<_> = features.cloned().collect();
        (!features.is_empty()).then(|| Self::of(features))
    }

    /// The features in the order of the columns.
    pub fn features(&self) -> &[Feature] {
        &self.features
    }

    /// Number of features; never 0.
    #[allow(clippy::len_without_is_empty)] // A schema is never empty.
    pub fn len(&self) -> usize {
        self.features.len()
    }

    /// The column of a feature.
    pub fn column_of(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// A feature by name.
    pub fn feature(&self, name: &str) -> Option<&Feature> {
        self.column_of(name).map(|i| &self.features[i])
    }

    /// SHA-256 (hex) over all that changes the meaning of any column, and their order. Stable over
    /// versions, platforms and the layout of the file.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The digest of only these features in this order: what a model that reads only them must
    /// agree with. `None` if one of them is not in the schema.
    pub fn digest_of<N: AsRef<str>>(&self, names: &[N]) -> Option<String> {
        let features: Option<Vec<_>> = names.iter().map(|n| self.feature(n.as_ref())).collect();
        features.map(|f| digest(f.into_iter()))
    }

    /// Every collector that some source belongs to, sorted, without repeats.
    pub fn groups(&self) -> Vec<Arc<str>> {
        let mut groups: Vec<_> = self
            .features
            .iter()
            .flat_map(|f| f.sources.iter().filter_map(|s| s.group.clone()))
            .collect();
        groups.sort();
        groups.dedup();
        groups
    }

    /// Every history that some feature needs, ascending, without 0 and repeats.
    pub fn histories(&self) -> Vec<Duration> {
        let mut histories: Vec<_> = self
            .features
            .iter()
            .map(|f| f.history)
            .filter(|h| !h.is_zero())
            .collect();
        histories.sort();
        histories.dedup();
        histories
    }
}

fn digest<'a>(features: impl Iterator<Item = &'a Feature>) -> String {
    let mut hash = Sha256::new();
    for feature in features {
        hash.update(feature.meaning().as_bytes());
    }
    let bytes = hash.finalize();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One thing wrong in a file of features.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaFault {
    /// The feature, as `feature[3] "cpu_used"`; empty when the fault is of the file as a whole.
    pub feature: String,
    /// The key at fault; empty when it is none in particular.
    pub key: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl fmt::Display for SchemaFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            feature,
            key,
            problem,
        } = self;
        match (feature.is_empty(), key.is_empty()) {
            (true, true) => f.write_str(problem),
            (true, false) => write!(f, "{key}: {problem}"),
            (false, true) => write!(f, "{feature}: {problem}"),
            (false, false) => write!(f, "{feature}.{key}: {problem}"),
        }
    }
}

/// A file of features cannot be used: every reason at once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} fault(s) in the features:{}", .faults.len(), lines(.faults))]
pub struct SchemaError {
    /// What is wrong; never empty.
    pub faults: Vec<SchemaFault>,
}

fn lines(faults: &[SchemaFault]) -> String {
    faults.iter().map(|fault| format!("\n  {fault}")).collect()
}

#[cfg(test)]
mod unit_tests {
    use super::Unit;

    #[test]
    fn values_read_as_an_operator_says_them() {
        for (unit, value, expected) in [
            (Unit::Ratio, 0.41, "41 %"),
            (Unit::Ratio, 0.005, "0.5 %"),
            (Unit::Ratio, 0.0, "0 %"),
            (Unit::Ratio, 0.000_001, "1.0e-4 %"),
            (Unit::Seconds, 0.084, "84 ms"),
            (Unit::Seconds, 0.0031, "3.1 ms"),
            (Unit::Seconds, 0.000_02, "20 µs"),
            (Unit::Seconds, 0.0, "0 µs"),
            (Unit::Seconds, 12.3, "12 s"),
            (Unit::Bytes, 3_435_973_836.8, "3.2 GiB"),
            (Unit::Celsius, 71.0, "71 °C"),
            (Unit::PerSecond, 30.0, "30 /s"),
            (Unit::Count, 2.0, "2"),
            (Unit::Number, -1.25, "-1.2"),
        ] {
            assert_eq!(unit.describe(value), expected, "{unit} {value}");
        }
    }
}
