//! From the TOML of a features file to a checked list of [`Feature`]s, or to all its faults.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use toml::{Table, Value};

use super::columns::NODE;
use super::schema::{
    Absent, FEATURES_MAX, Feature, FeatureName, GROUPS_MAX, SOURCES_MAX, SchemaError, SchemaFault,
    Source, Unit,
};

const KEYS: [&str; 12] = [
    "name", "unit", "promql", "min", "max", "noise", "history", "group", "sources", "absent",
    "every", "optional",
];

/// Placeholders that a query may contain; `prometheus` fills them in.
pub(crate) const PLACEHOLDERS: [&str; 5] = ["S", "D", "N", "F", "W"];

/// Longest window that makes sense in a query of every cycle.
const HISTORY_MAX: Duration = Duration::from_secs(31 * 24 * 3600);

/// Reads a features file.
pub(super) fn parse(text: &str) -> Result<Vec<Feature>, SchemaError> {
    let table: Table = toml::from_str(text).map_err(|e| SchemaError {
        faults: vec![fault("", "", format!("not TOML: {}", e.to_string().trim()))],
    })?;
    let mut faults = Vec::new();
    for key in table.keys().filter(|k| *k != "feature") {
        faults.push(fault("", key, "unknown key; only [[feature]] is read"));
    }
    let entries = match table.get("feature") {
        Some(Value::Array(entries)) if !entries.is_empty() => entries.as_slice(),
        None | Some(Value::Array(_)) => {
            faults.push(fault("", "feature", "at least one [[feature]] is needed"));
            &[]
        }
        Some(_) => {
            faults.push(fault("", "feature", "must be a list: [[feature]]"));
            &[]
        }
    };
    if entries.len() > FEATURES_MAX {
        let n = entries.len();
        faults.push(fault(
            "",
            "feature",
            format!("{n} features, at most {FEATURES_MAX}"),
        ));
    }
    let mut features: Vec<Feature> = Vec::new();
    let mut names = BTreeSet::new();
    for (i, entry) in entries.iter().take(FEATURES_MAX).enumerate() {
        let mut reader = Reader::new(i, entry, &mut faults);
        let feature = reader.feature();
        if let Some(name) = reader.name.take()
            && !names.insert(name.clone())
        {
            reader.fault("name", format!("there is another feature `{name}`"));
        }
        features.extend(feature);
    }
    let groups: BTreeSet<_> = features
        .iter()
        .flat_map(|f| f.sources.iter().filter_map(|s| s.group.as_ref()))
        .collect();
    if groups.len() > GROUPS_MAX {
        let n = groups.len();
        faults.push(fault(
            "",
            "group",
            format!("{n} different groups, at most {GROUPS_MAX}"),
        ));
    }
    if faults.is_empty() {
        Ok(features)
    } else {
        Err(SchemaError { faults })
    }
}

fn fault(feature: &str, key: &str, problem: impl Into<String>) -> SchemaFault {
    SchemaFault {
        feature: feature.into(),
        key: key.into(),
        problem: problem.into(),
    }
}

/// Reads one `[[feature]]`, noting faults and going on.
struct Reader<'a> {
    /// How faults name the feature.
    label: String,
    /// The name, where it has the form of one.
    name: Option<String>,
    table: Table,
    faults: &'a mut Vec<SchemaFault>,
}

impl<'a> Reader<'a> {
    fn new(i: usize, entry: &Value, faults: &'a mut Vec<SchemaFault>) -> Self {
        let table = entry.as_table().cloned();
        let shown = table.as_ref().and_then(|t| t.get("name")?.as_str());
        let label = match shown {
            Some(name) => format!("feature[{}] {name:?}", i + 1),
            None => format!("feature[{}]", i + 1),
        };
        if table.is_none() {
            faults.push(fault(&label, "", "must be a table"));
        }
        Self {
            label,
            name: None,
            table: table.unwrap_or_default(),
            faults,
        }
    }

    fn fault(&mut self, key: &str, problem: impl Into<String>) {
        self.faults.push(fault(&self.label, key, problem));
    }

    fn feature(&mut self) -> Option<Feature> {
        let unknown: Vec<_> = self
            .table
            .keys()
            .filter(|k| !KEYS.contains(&k.as_str()))
            .cloned()
            .collect();
        for key in unknown {
            self.fault(&key, format!("unknown key; known are {}", KEYS.join(", ")));
        }
        self.name = self.text("name", true);
        if let Some(name) = self.name.clone()
            && !is_word(&name)
        {
            self.fault("name", WORD);
        }
        if self.name.as_deref() == Some(NODE) {
            let reserved = "`node` is what columns of a whole Node begin with; choose another";
            self.fault("name", reserved);
        }
        let unit = self.choice("unit", true, Unit::ALL.map(|u| (u.as_str(), u)));
        let promql = self.text("promql", true);
        let min = self.number("min", true);
        let max = self.number("max", true);
        if let (Some(min), Some(max)) = (min, max)
            && min >= max
        {
            self.fault("max", format!("must be above min ({min}), got {max}"));
        }
        let default_noise = (max.unwrap_or(1.0) - min.unwrap_or(0.0)) / 1000.0;
        let noise = self.number("noise", false).unwrap_or(default_noise);
        if noise <= 0.0 && self.table.contains_key("noise") {
            self.fault("noise", format!("must be above 0, got {noise}"));
        }
        let history = self.duration("history").unwrap_or_default();
        if history > HISTORY_MAX {
            self.fault("history", "must not exceed 31 days");
        }
        let every = self.duration("every");
        if every.is_some_and(|every| every.is_zero() || every.subsec_nanos() != 0) {
            self.fault("every", "must be whole seconds, at least 1s");
        }
        let absent = [Absent::Missing, Absent::Zero].map(|a| (a.as_str(), a));
        let absent = self
            .choice("absent", false, absent)
            .unwrap_or(Absent::Missing);
        let optional = self.flag("optional");
        let sources = self.sources();
        if let Some(promql) = &promql {
            self.check_promql(promql, &sources);
        }
        Some(Feature {
            name: FeatureName::new(self.name.clone()?),
            unit: unit?,
            promql: promql?,
            sources,
            min: min?,
            max: max?,
            noise,
            history,
            absent,
            every,
            optional,
        })
    }

    fn check_promql(&mut self, promql: &str, sources: &[Source]) {
        for name in placeholders(promql) {
            if !PLACEHOLDERS.contains(&name) {
                let known = PLACEHOLDERS.map(|p| format!("${p}")).join(" ");
                self.fault(
                    "promql",
                    format!("unknown placeholder ${name}; known are {known}"),
                );
            }
        }
        if sources.len() > 1 {
            for source in sources {
                if !promql.contains(&format!("\"{}\"", source.name)) {
                    let name = &source.name;
                    self.fault(
                        "promql",
                        format!("never sets the label `source` to \"{name}\""),
                    );
                }
            }
        }
    }

    fn sources(&mut self) -> Vec<Source> {
        let group = self.text("group", false);
        if let Some(group) = group.as_deref().filter(|g| !is_word(g)) {
            self.fault("group", format!("{WORD}, got {group:?}"));
        }
        let default = Source {
            name: if group.is_some() {
                "node_exporter"
            } else {
                "prometheus"
            }
            .into(),
            group: group.as_deref().map(Arc::from),
        };
        let Some(value) = self.table.get("sources").cloned() else {
            return vec![default];
        };
        if group.is_some() {
            self.fault("group", "give each of the `sources` its own group instead");
        }
        let Value::Array(entries) = value else {
            self.fault("sources", "must be a list of { name, group }");
            return vec![default];
        };
        if entries.is_empty() || entries.len() > SOURCES_MAX {
            self.fault("sources", format!("must have 1 to {SOURCES_MAX} entries"));
        }
        let mut sources: Vec<Source> = Vec::new();
        for entry in entries.iter().take(SOURCES_MAX) {
            match source(entry) {
                Ok(source) if sources.iter().any(|s| s.name == source.name) => {
                    self.fault("sources", format!("{:?} is there twice", source.name));
                }
                Ok(source) => sources.push(source),
                Err(problem) => self.fault("sources", problem),
            }
        }
        sources
    }

    fn text(&mut self, key: &str, needed: bool) -> Option<String> {
        match self.table.get(key).cloned() {
            Some(Value::String(text)) if text.trim().is_empty() => {
                self.fault(key, "must not be empty");
                None
            }
            Some(Value::String(text)) => Some(text.trim().to_owned()),
            Some(other) => {
                self.fault(key, format!("must be text, got {}", other.type_str()));
                None
            }
            None => {
                self.needed(key, needed);
                None
            }
        }
    }

    fn number(&mut self, key: &str, needed: bool) -> Option<f64> {
        match self.table.get(key).cloned() {
            Some(Value::Float(number)) if number.is_finite() => Some(number),
            // Exact for every integer that anyone writes as a bound.
            Some(Value::Integer(number)) => Some(number as f64),
            Some(other) => {
                self.fault(key, format!("must be a finite number, got {other}"));
                None
            }
            None => {
                self.needed(key, needed);
                None
            }
        }
    }

    fn duration(&mut self, key: &str) -> Option<Duration> {
        let text = self.text(key, false)?;
        match humantime::parse_duration(&text) {
            Ok(duration) => Some(duration),
            Err(e) => {
                self.fault(key, format!("{text:?} is no duration such as \"15m\": {e}"));
                None
            }
        }
    }

    fn flag(&mut self, key: &str) -> bool {
        match self.table.get(key).cloned() {
            None => false,
            Some(Value::Boolean(flag)) => flag,
            Some(other) => {
                self.fault(key, format!("must be true or false, got {other}"));
                false
            }
        }
    }

    fn choice<T: Copy, const N: usize>(
        &mut self,
        key: &str,
        needed: bool,
        choices: [(&str, T); N],
    ) -> Option<T> {
        let text = self.text(key, needed)?;
        let found = choices.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let words = choices.map(|(word, _)| word).join(", ");
            self.fault(key, format!("must be one of {words}, got {text:?}"));
        }
        found.map(|(_, value)| *value)
    }

    fn needed(&mut self, key: &str, needed: bool) {
        if needed {
            self.fault(key, "is needed");
        }
    }
}

const WORD: &str = "must be lower-case letters, digits and _, at most 63, a letter first";

fn is_word(text: &str) -> bool {
    let mut chars = text.chars();
    text.len() <= 63
        && chars.next().is_some_and(|c| c.is_ascii_lowercase())
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn source(entry: &Value) -> Result<Source, String> {
    let table = entry.as_table().ok_or("each must be { name, group }")?;
    if let Some(key) = table.keys().find(|k| *k != "name" && *k != "group") {
        return Err(format!("unknown key `{key}`; known are name, group"));
    }
    let word = |key: &str| match table.get(key) {
        None => Ok(None),
        Some(Value::String(text)) if is_word(text) => Ok(Some(Arc::from(text.as_str()))),
        Some(other) => Err(format!("{key} {WORD}, got {other}")),
    };
    Ok(Source {
        name: word("name")?.ok_or("each needs a name")?,
        group: word("group")?,
    })
}

/// Names of the placeholders in a query: `$` and capital letters. `$1` and `${name}` are PromQL's own.
fn placeholders(promql: &str) -> impl Iterator<Item = &str> {
    promql.split('$').skip(1).filter_map(|rest| {
        let end = rest
            .find(|c: char| !c.is_ascii_uppercase())
            .unwrap_or(rest.len());
        (end > 0).then(|| &rest[..end])
    })
}
