//! Reading a configuration tree, section by section, noting every fault instead of stopping at the first.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use config::{Value, ValueKind};

/// One thing wrong in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key, as in `policy.limits.tainted_max`.
    pub key: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.problem)
    }
}

/// One table of the tree. Every key has to be asked for; the rest is unknown.
pub(super) struct Section<'a> {
    path: String,
    values: BTreeMap<String, Value>,
    known: Vec<&'static str>,
    faults: &'a mut Vec<Fault>,
}

impl<'a> Section<'a> {
    pub(super) fn root(tree: Value, faults: &'a mut Vec<Fault>) -> Self {
        let values = match tree.kind {
            ValueKind::Table(table) => table.into_iter().collect(),
            _ => BTreeMap::new(),
        };
        Self {
            path: String::new(),
            values,
            known: Vec::new(),
            faults,
        }
    }

    /// Reads a table below this one, with its own unknown keys.
    pub(super) fn table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let value = self.take(key);
        let path = self.path_of(key);
        let values = match value.map(|value| value.kind) {
            None | Some(ValueKind::Nil) => BTreeMap::new(),
            Some(ValueKind::Table(table)) => table.into_iter().collect(),
            Some(other) => {
                self.fault(
                    key,
                    format!("has to be a table, [{path}], got {}", kind(&other)),
                );
                BTreeMap::new()
            }
        };
        let mut section = Section {
            path,
            values,
            known: Vec::new(),
            faults: self.faults,
        };
        let read = read(&mut section);
        section.finish();
        read
    }

    /// Reads an array of tables, `[[path.key]]`.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Section<'_>) -> T,
    ) -> Vec<T> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        let path = self.path_of(key);
        let ValueKind::Array(items) = value.kind else {
            self.fault(
                key,
                format!(
                    "has to be an array of tables, [[{path}]], got {}",
                    kind(&value.kind)
                ),
            );
            return Vec::new();
        };
        let mut all = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            let ValueKind::Table(table) = item.kind else {
                self.faults.push(Fault {
                    key: path,
                    problem: format!("has to be a table, got {}", kind(&item.kind)),
                });
                continue;
            };
            let values = table.into_iter().collect();
            let mut section = Section {
                path,
                values,
                known: Vec::new(),
                faults: self.faults,
            };
            all.push(read(&mut section));
            section.finish();
        }
        all
    }

    /// A text; the default where it is not set.
    pub(super) fn text(&mut self, key: &'static str, default: &str) -> String {
        match self.take(key).map(|value| value.kind) {
            None => default.to_owned(),
            Some(ValueKind::String(text)) => text,
            Some(other) => {
                self.fault(
                    key,
                    format!("has to be a string in quotes, got {}", kind(&other)),
                );
                default.to_owned()
            }
        }
    }

    /// A text; `None` where it is not set or empty.
    pub(super) fn optional(&mut self, key: &'static str) -> Option<String> {
        Some(self.text(key, "")).filter(|text| !text.is_empty())
    }

    /// A switch.
    pub(super) fn switch(&mut self, key: &'static str, default: bool) -> bool {
        let Some(value) = self.take(key) else {
            return default;
        };
        match &value.kind {
            ValueKind::Boolean(on) => *on,
            // From the environment everything is a string.
            ValueKind::String(text) if text == "true" || text == "false" => text == "true",
            other => {
                self.fault(key, format!("has to be true or false, got {}", kind(other)));
                default
            }
        }
    }

    /// A number within bounds, both inclusive.
    pub(super) fn number(&mut self, key: &'static str, default: f64, min: f64, max: f64) -> f64 {
        let Some(value) = self.take(key) else {
            return default;
        };
        match number(&value.kind) {
            Some(number) if (min..=max).contains(&number) => number,
            Some(number) => {
                self.fault(
                    key,
                    format!("has to be between {min} and {max}, got {number}"),
                );
                default
            }
            None => {
                self.fault(
                    key,
                    format!(
                        "has to be a number between {min} and {max}, got {}",
                        kind(&value.kind)
                    ),
                );
                default
            }
        }
    }

    /// A whole number within bounds, both inclusive.
    pub(super) fn count(&mut self, key: &'static str, default: u32, min: u32, max: u32) -> u32 {
        let Some(value) = self.take(key) else {
            return default;
        };
        let found = match &value.kind {
            ValueKind::I64(n) => u32::try_from(*n).ok(),
            ValueKind::U64(n) => u32::try_from(*n).ok(),
            ValueKind::String(text) => text.parse().ok(),
            _ => None,
        };
        match found {
            Some(count) if (min..=max).contains(&count) => count,
            Some(_) | None => {
                self.fault(
                    key,
                    format!(
                        "has to be a whole number from {min} to {max}, got {}",
                        kind(&value.kind)
                    ),
                );
                default
            }
        }
    }

    /// A time such as `"45s"`, `"10m"` or `"24h"`, within bounds, both inclusive.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        min: Duration,
        max: Duration,
    ) -> Duration {
        let Some(value) = self.take(key) else {
            return default;
        };
        let ValueKind::String(text) = &value.kind else {
            self.fault(
                key,
                format!(
                    "has to be a time with its unit in quotes, such as \"45s\", got {}",
                    kind(&value.kind)
                ),
            );
            return default;
        };
        match humantime::parse_duration(text.trim()) {
            Ok(duration) if (min..=max).contains(&duration) => duration,
            Ok(_) => {
                let (min, max) = (
                    humantime::format_duration(min),
                    humantime::format_duration(max),
                );
                self.fault(
                    key,
                    format!("has to be between {min} and {max}, got {text:?}"),
                );
                default
            }
            Err(error) => {
                self.fault(key, format!("is no time ({error}); write for example \"45s\", \"10m\" or \"24h\", got {text:?}"));
                default
            }
        }
    }

    /// One of a few words.
    pub(super) fn one_of<T: Copy>(
        &mut self,
        key: &'static str,
        default: T,
        words: &[(&str, T)],
    ) -> T {
        let Some(value) = self.take(key) else {
            return default;
        };
        let found = match &value.kind {
            ValueKind::String(text) => words
                .iter()
                .find(|(word, _)| word == text)
                .map(|(_, meaning)| *meaning),
            _ => None,
        };
        found.unwrap_or_else(|| {
            let words: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            self.fault(
                key,
                format!(
                    "has to be one of {}, got {}",
                    words.join(", "),
                    kind(&value.kind)
                ),
            );
            default
        })
    }

    /// A list of texts; from the environment, separated by commas.
    pub(super) fn texts(&mut self, key: &'static str, default: &[&str]) -> Vec<String> {
        let default = || default.iter().map(|text| (*text).to_owned()).collect();
        let Some(value) = self.take(key) else {
            return default();
        };
        match value.kind {
            ValueKind::Array(items) => {
                let mut texts = Vec::new();
                for item in items {
                    match item.kind {
                        ValueKind::String(text) => texts.push(text),
                        other => self.fault(
                            key,
                            format!("has to be a list of strings, got {} in it", kind(&other)),
                        ),
                    }
                }
                texts
            }
            ValueKind::String(text) => text.split(',').map(|text| text.trim().to_owned()).collect(),
            other => {
                self.fault(
                    key,
                    format!("has to be a list of strings, got {}", kind(&other)),
                );
                default()
            }
        }
    }

    /// A table of texts, such as HTTP headers.
    pub(super) fn pairs(&mut self, key: &'static str) -> Vec<(String, String)> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        let ValueKind::Table(table) = value.kind else {
            self.fault(
                key,
                format!("has to be a table of strings, got {}", kind(&value.kind)),
            );
            return Vec::new();
        };
        let mut pairs = Vec::new();
        for (name, value) in table.into_iter().collect::<BTreeMap<_, _>>() {
            match value.kind {
                ValueKind::String(text) => pairs.push((name, text)),
                other => {
                    let key = format!("{}.{name}", self.path_of(key));
                    self.faults.push(Fault {
                        key,
                        problem: format!("has to be a string, got {}", kind(&other)),
                    });
                }
            }
        }
        pairs
    }

    /// Whether a key that has no default is not set.
    pub(super) fn is_missing(&self, key: &str) -> bool {
        !self.values.contains_key(key)
    }

    /// What stands there, whatever it is.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.values.remove(key)
    }

    /// Notes a fault at a key of this section.
    pub(super) fn fault(&mut self, key: &str, problem: impl Into<String>) {
        let key = self.path_of(key);
        self.faults.push(Fault {
            key,
            problem: problem.into(),
        });
    }

    /// What is left is unknown.
    pub(super) fn finish(self) {
        for key in self.values.keys() {
            let near = self.known.iter().find(|known| distance(known, key) <= 2);
            let problem = match near {
                Some(near) => format!("unknown key; did you mean `{near}`?"),
                None => format!("unknown key; known here: {}", self.known.join(", ")),
            };
            let path = if self.path.is_empty() {
                key.clone()
            } else {
                format!("{}.{key}", self.path)
            };
            self.faults.push(Fault { key: path, problem });
        }
    }

    /// The whole name of a key of this section.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "thresholds and rates are far below 2^52"
)]
fn number(kind: &ValueKind) -> Option<f64> {
    let number = match kind {
        ValueKind::I64(n) => *n as f64,
        ValueKind::U64(n) => *n as f64,
        ValueKind::Float(n) => *n,
        ValueKind::String(text) => text.parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

fn kind(kind: &ValueKind) -> String {
    match kind {
        ValueKind::Nil => "nothing".to_owned(),
        ValueKind::Boolean(on) => on.to_string(),
        ValueKind::I64(n) => n.to_string(),
        ValueKind::U64(n) => n.to_string(),
        ValueKind::I128(n) => n.to_string(),
        ValueKind::U128(n) => n.to_string(),
        ValueKind::Float(n) => n.to_string(),
        ValueKind::String(text) => format!("{:?}", text.chars().take(80).collect::<String>()),
        ValueKind::Table(_) => "a table".to_owned(),
        ValueKind::Array(_) => "a list".to_owned(),
    }
}

/// Edits between two words, by the usual dynamic programme; keys are short.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
