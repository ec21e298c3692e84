//! A strict reader of the Prometheus text format.

use std::collections::BTreeMap;

/// One family of a page.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) samples: Vec<Sample>,
}

/// One sample.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) value: f64,
}

impl Sample {
    pub(super) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    pub(super) fn key(&self) -> String {
        format!("{}{:?}", self.name, self.labels)
    }
}

/// Reads a page; panics at anything that the format or Go's client would not write.
pub(super) fn parse(text: &str) -> Vec<Family> {
    assert!(text.ends_with('\n'), "a page ends with a line");
    let mut families: Vec<Family> = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let rest = line
            .strip_prefix("# HELP ")
            .expect("a family begins with its help");
        let (name, help) = rest.split_once(' ').expect("help is not empty");
        assert!(!help.is_empty() && is_name(name), "{line}");
        let line = lines.next().expect("the type follows the help");
        let kind = line
            .strip_prefix(&format!("# TYPE {name} "))
            .expect("the type follows the help");
        assert!(
            ["counter", "gauge", "histogram", "untyped"].contains(&kind),
            "{line}"
        );
        let mut samples = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let sample = sample(line);
            let own = sample.name == name
                || kind == "histogram"
                    && ["_bucket", "_sum", "_count"]
                        .iter()
                        .any(|s| sample.name == format!("{name}{s}"));
            assert!(own, "{line} is in the family {name}");
            samples.push(sample);
        }
        assert!(!samples.is_empty(), "{name} has no sample");
        if let Some(last) = families.last() {
            assert!(last.name.as_str() < name, "{} before {name}", last.name);
        }
        families.push(Family {
            name: name.to_owned(),
            kind: kind.to_owned(),
            samples,
        });
    }
    let mut keys: Vec<_> = families
        .iter()
        .flat_map(|f| f.samples.iter().map(Sample::key))
        .collect();
    let all = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), all, "a series is there twice");
    families
}

fn is_name(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn sample(line: &str) -> Sample {
    let (series, number) = line.rsplit_once(' ').expect("a sample has a value");
    let value: f64 = match number {
        "+Inf" => f64::INFINITY,
        "NaN" => f64::NAN,
        other => other.parse().unwrap_or_else(|_| panic!("{line}")),
    };
    let (name, labels) = match series.split_once('{') {
        None => (series, BTreeMap::new()),
        Some((name, rest)) => (
            name,
            self::labels(rest.strip_suffix('}').expect("labels end")),
        ),
    };
    assert!(is_name(name), "{line}");
    Sample {
        name: name.to_owned(),
        labels,
        value,
    }
}

fn labels(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    let mut last = String::new();
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").expect("a label has a value");
        assert!(
            is_name(name) && name > last.as_str(),
            "labels are sorted: {text}"
        );
        let mut value = String::new();
        let mut end = None;
        let mut escaped = false;
        for (place, c) in after.char_indices() {
            match (escaped, c) {
                (true, 'n') => value.push('\n'),
                (true, _) => value.push(c),
                (false, '\\') => {}
                (false, '"') => {
                    end = Some(place);
                    break;
                }
                (false, _) => value.push(c),
            }
            escaped = !escaped && c == '\\';
        }
        rest = &after[end.expect("a value ends") + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
        last = name.to_owned();
        labels.insert(last.clone(), value);
    }
    labels
}
