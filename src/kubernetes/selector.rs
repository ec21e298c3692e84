//! Label selectors as `kubectl --selector` has them: `pool=gpu,zone in (a, b),!spot`.

use std::collections::{BTreeMap, BTreeSet};

use kube::core::{Expression, Selector, SelectorExt};

/// A label selector, parsed.
#[derive(Clone, Debug)]
pub struct LabelSelector(Selector);

/// Why a text is no label selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// It selects by nothing.
    #[error("selects by nothing; write for example \"pool=gpu\"")]
    Empty,
    /// A part of it cannot be understood.
    #[error(
        "cannot be understood at {part:?}; write for example \"pool=gpu,zone in (a, b),!spot\""
    )]
    Part {
        /// The part.
        part: String,
    },
}

impl LabelSelector {
    /// Parses the text that `kubectl --selector` takes.
    ///
    /// # Errors
    ///
    /// [`SelectorError`] for anything else.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.trim().is_empty() {
            return Err(SelectorError::Empty);
        }
        parts(text)
            .into_iter()
            .map(|part| {
                expression(part.trim()).ok_or_else(|| SelectorError::Part {
                    part: part.trim().chars().take(100).collect(),
                })
            })
            .collect::<Result<Vec<_>, _>>()
            .map(|expressions| Self(expressions.into_iter().collect()))
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.matches(labels)
    }
}

/// The parts between commas that stand outside parentheses.
fn parts(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut from, mut depth) = (0, 0_i32);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

fn expression(part: &str) -> Option<Expression> {
    if let Some(key) = part.strip_prefix('!') {
        return Some(Expression::DoesNotExist(key_of(key)?));
    }
    if let Some((left, list)) = part.split_once('(') {
        let mut words = left.split_whitespace();
        let (key, operator) = (key_of(words.next()?)?, words.next()?);
        if words.next().is_some() {
            return None;
        }
        let values: BTreeSet<String> = list
            .trim_end()
            .strip_suffix(')')?
            .split(',')
            .map(|value| value_of(value).map(str::to_owned))
            .collect::<Option<_>>()?;
        return match operator {
            "in" => Some(Expression::In(key, values)),
            "notin" => Some(Expression::NotIn(key, values)),
            _ => None,
        };
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Some(Expression::NotEqual(
            key_of(key)?,
            value_of(value)?.to_owned(),
        ));
    }
    if let Some((key, value)) = part.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value);
        return Some(Expression::Equal(key_of(key)?, value_of(value)?.to_owned()));
    }
    Some(Expression::Exists(key_of(part)?))
}

fn key_of(text: &str) -> Option<String> {
    let key = text.trim();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    (!key.is_empty() && key.len() <= 317 && key.bytes().all(fits)).then(|| key.to_owned())
}

fn value_of(text: &str) -> Option<&str> {
    let value = text.trim();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (value.len() <= 63 && value.bytes().all(fits)).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(selector: &str, selected: &[&str], left: &[&str]) {
        let selector = LabelSelector::parse(selector).expect("a selector");
        let labels = |text: &str| -> BTreeMap<String, String> {
            text.split_whitespace()
                .filter_map(|pair| pair.split_once('='))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect()
        };
        for text in selected {
            assert!(selector.matches(&labels(text)), "{text} is selected");
        }
        for text in left {
            assert!(!selector.matches(&labels(text)), "{text} is not selected");
        }
    }

    #[test]
    fn it_reads_what_kubectl_reads() {
        check("pool=gpu", &["pool=gpu", "a=b pool=gpu"], &["", "pool=cpu"]);
        check("pool==gpu", &["pool=gpu"], &["pool=cpu"]);
        check("pool!=gpu", &["", "pool=cpu"], &["pool=gpu"]);
        check("pool", &["pool=", "pool=gpu"], &["", "pools=gpu"]);
        check("!pool", &["", "a=b"], &["pool=gpu"]);
        check("zone in (a, b)", &["zone=a", "zone=b"], &["", "zone=c"]);
        check("zone notin (a,b)", &["", "zone=c"], &["zone=a"]);
        check(
            "topology.kubernetes.io/zone in (a,b), pool = gpu ,!spot",
            &["topology.kubernetes.io/zone=b pool=gpu"],
            &["pool=gpu", "topology.kubernetes.io/zone=b pool=gpu spot=1"],
        );
    }

    #[test]
    fn what_is_no_selector_is_refused_with_the_part_that_is_wrong() {
        for (text, part) in [
            ("pool=gpu,", ""),
            ("pool=gpu,a b", "a b"),
            ("zone of (a)", "zone of (a)"),
            ("zone in (a", "zone in (a"),
            ("zone in a, b", "zone in a"),
            ("=gpu", "=gpu"),
            ("pool=\"gpu\"", "pool=\"gpu\""),
        ] {
            let error = LabelSelector::parse(text).expect_err(text);
            assert_eq!(error, SelectorError::Part { part: part.into() }, "{text}");
        }
        assert_eq!(
            LabelSelector::parse(" ").expect_err("empty"),
            SelectorError::Empty
        );
    }
}
