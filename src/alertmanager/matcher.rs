//! Alertmanager's matchers: `alertname="NodeDown"`, `severity=~"warning|critical"`.

use std::collections::BTreeMap;
use std::fmt;

use regex::Regex;

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MatchOp {
    /// `=`: the value is the same.
    Equal,
    /// `!=`: it is another.
    NotEqual,
    /// `=~`: the whole value matches the expression.
    Matches,
    /// `!~`: it does not.
    NotMatches,
}

impl MatchOp {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Matches => "=~",
            Self::NotMatches => "!~",
        }
    }
}

/// One condition on an alert's labels, in Alertmanager's syntax and with its meaning: a label that is
/// absent is the same as one that is empty, and expressions match the whole value.
#[derive(Clone, Debug)]
pub struct Matcher {
    name: String,
    op: MatchOp,
    value: String,
    /// The anchored expression, for the two operators that have one.
    regex: Option<Regex>,
}

/// Why a matcher cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatcherError {
    /// Something else was expected there.
    #[error("at character {at} of `{text}`: {problem}")]
    Syntax {
        /// The whole matcher.
        text: String,
        /// Where, counted from 1.
        at: usize,
        /// What is wrong, and what would be right.
        problem: &'static str,
    },
    /// The expression is none.
    #[error("in `{text}`: `{value}` is not a regular expression: {problem}")]
    Regex {
        /// The whole matcher.
        text: String,
        /// The expression.
        value: String,
        /// In the words of the regex library.
        problem: String,
    },
}

/// Compiled expressions stay below this, so that no configuration can eat the memory: a hundred times
/// what `a|b|c` over a hundred alert names needs.
const REGEX_BYTES_MAX: usize = 1 << 20;

impl Matcher {
    /// Reads one matcher.
    ///
    /// Names and values may be quoted with `"`, where `\"`, `\\` and `\n` are escapes; a value without
    /// quotes runs to the end.
    ///
    /// # Errors
    ///
    /// [`MatcherError::Syntax`] with the place, [`MatcherError::Regex`].
    pub fn parse(text: &str) -> Result<Self, MatcherError> {
        let mut scanner = Scanner::new(text);
        scanner.skip_space();
        let name = scanner.name()?;
        scanner.skip_space();
        let op = scanner.op()?;
        scanner.skip_space();
        let value = scanner.value()?;
        scanner.skip_space();
        if scanner.peek().is_some() {
            return Err(scanner.fault("nothing may follow the value; write one matcher per entry"));
        }
        let regex = match op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Matches | MatchOp::NotMatches => Some(anchored(text, &value)?),
        };
        Ok(Self {
            name,
            op,
            value,
            regex,
        })
    }

    /// Name of the label that it looks at.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it compares.
    pub fn op(&self) -> MatchOp {
        self.op
    }

    /// What it compares with.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether an alert with these labels meets the condition.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let found = labels.get(&self.name).map_or("", String::as_str);
        match self.op {
            MatchOp::Equal => found == self.value,
            MatchOp::NotEqual => found != self.value,
            MatchOp::Matches => self.regex.as_ref().is_some_and(|re| re.is_match(found)),
            MatchOp::NotMatches => self.regex.as_ref().is_some_and(|re| !re.is_match(found)),
        }
    }
}

fn anchored(text: &str, value: &str) -> Result<Regex, MatcherError> {
    // Compiled alone first: otherwise `a)|(b` would be accepted inside our own brackets.
    Regex::new(value)
        .and_then(|_| {
            regex::RegexBuilder::new(&format!("^(?:{value})$"))
                .size_limit(REGEX_BYTES_MAX)
                .build()
        })
        .map_err(|error| MatcherError::Regex {
            text: text.to_owned(),
            value: value.to_owned(),
            problem: error.to_string(),
        })
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.op == other.op && self.value == other.value
    }
}

impl Eq for Matcher {}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_plain_name(&self.name) {
            f.write_str(&self.name)?;
        } else {
            write_quoted(f, &self.name)?;
        }
        f.write_str(self.op.as_str())?;
        write_quoted(f, &self.value)
    }
}

fn write_quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let escaped = text
        .replace('\\', r"\\")
        .replace('"', "\\\"")
        .replace('\n', r"\n");
    write!(f, "\"{escaped}\"")
}

fn is_plain_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(begins_name) && chars.all(continues_name)
}

fn begins_name(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

fn continues_name(c: char) -> bool {
    begins_name(c) || c.is_ascii_digit()
}

struct Scanner<'a> {
    text: &'a str,
    chars: Vec<char>,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            chars: text.chars().collect(),
            at: 0,
        }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn fault(&self, problem: &'static str) -> MatcherError {
        MatcherError::Syntax {
            text: self.text.to_owned(),
            at: self.at + 1,
            problem,
        }
    }

    fn name(&mut self) -> Result<String, MatcherError> {
        match self.peek() {
            Some('"') => {
                let name = self.quoted()?;
                if name.is_empty() {
                    return Err(self.fault("a label name may not be empty"));
                }
                Ok(name)
            }
            Some('{') => Err(self.fault("write one matcher per entry, without braces")),
            Some(c) if begins_name(c) => {
                let start = self.at;
                while self.peek().is_some_and(continues_name) {
                    self.at += 1;
                }
                Ok(self.chars[start..self.at].iter().collect())
            }
            _ => Err(self.fault("expected a label name, as in `alertname=\"NodeDown\"`")),
        }
    }

    fn op(&mut self) -> Result<MatchOp, MatcherError> {
        let next = self.chars.get(self.at + 1).copied();
        let (op, length) = match (self.peek(), next) {
            (Some('='), Some('~')) => (MatchOp::Matches, 2),
            (Some('!'), Some('~')) => (MatchOp::NotMatches, 2),
            (Some('!'), Some('=')) => (MatchOp::NotEqual, 2),
            (Some('='), Some('=')) => {
                return Err(self.fault("`==` is no operator; use `=`"));
            }
            (Some('='), _) => (MatchOp::Equal, 1),
            _ => return Err(self.fault("expected one of `=`, `!=`, `=~`, `!~`")),
        };
        self.at += length;
        Ok(op)
    }

    fn value(&mut self) -> Result<String, MatcherError> {
        if self.peek() == Some('"') {
            return self.quoted();
        }
        let start = self.at;
        while let Some(c) = self.peek() {
            if matches!(c, '"' | '{' | '}' | ',') || c.is_control() {
                return Err(self.fault("put the value in quotes"));
            }
            self.at += 1;
        }
        let value: String = self.chars[start..].iter().collect();
        Ok(value.trim_end().to_owned())
    }

    fn quoted(&mut self) -> Result<String, MatcherError> {
        let opened = self.at;
        self.at += 1;
        let mut value = String::new();
        while let Some(c) = self.peek() {
            match c {
                '"' => {
                    self.at += 1;
                    return Ok(value);
                }
                '\\' => {
                    self.at += 1;
                    match self.peek() {
                        Some('"') => value.push('"'),
                        Some('\\') => value.push('\\'),
                        Some('n') => value.push('\n'),
                        // As Alertmanager does, so that `"node\.example"` means what it seems to.
                        Some(other) => value.extend(['\\', other]),
                        None => break,
                    }
                }
                c => value.push(c),
            }
            self.at += 1;
        }
        self.at = opened;
        Err(self.fault("this quote is never closed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn matchers_mean_what_they_mean_in_alertmanager() {
        let alert = labels(&[
            ("alertname", "NodeDown"),
            ("severity", "warning"),
            ("quote", "a\"b\\c\nd"),
            ("my.label", "x"),
        ]);
        for (text, expected) in [
            (r#"alertname="NodeDown""#, true),
            (r#" alertname = "NodeDown" "#, true),
            ("alertname=NodeDown", true),
            (r#"alertname="nodedown""#, false),
            (r#"alertname!="NodeDown""#, false),
            (r#"alertname!="NodeUp""#, true),
            (r#"severity=~"warning|critical""#, true),
            // Anchored: a part of the value is not enough, and neither is a part of an alternative.
            (r#"severity=~"warn""#, false),
            (r#"severity=~"warn|xwarning""#, false),
            (r#"severity=~"warn.*""#, true),
            (r#"severity!~"warn""#, true),
            (r#"severity!~"warning|critical""#, false),
            // Absent is empty.
            (r#"zone="""#, true),
            (r#"zone!="""#, false),
            (r#"zone=~".*""#, true),
            (r#"zone=~".+""#, false),
            (r#"zone!~".+""#, true),
            (r#"quote="a\"b\\c\nd""#, true),
            (r#""my.label"="x""#, true),
            ("zone=", true),
        ] {
            let matcher = Matcher::parse(text).expect(text);
            assert_eq!(matcher.matches(&alert), expected, "{text}");
            let again = Matcher::parse(&matcher.to_string()).expect("its own text is readable");
            assert_eq!(again, matcher, "{text} reads the same when printed");
        }
    }

    #[test]
    fn a_faulty_matcher_says_where_and_what() {
        for (text, expected) in [
            ("", "at character 1 of ``: expected a label name"),
            ("=x", "at character 1 of `=x`: expected a label name"),
            ("9a=x", "at character 1 of `9a=x`: expected a label name"),
            ("a", "at character 2 of `a`: expected one of"),
            ("a!x", "at character 2 of `a!x`: expected one of"),
            ("a==x", "at character 2 of `a==x`: `==` is no operator"),
            (r#"a="x"#, "at character 3 of `a=\"x`: this quote is never"),
            (
                r#"a="x\"#,
                "at character 3 of `a=\"x\\`: this quote is never",
            ),
            (r#"a="x",b="y""#, "at character 6 of"),
            ("a=x,b=y", "at character 4 of `a=x,b=y`: put the value in"),
            (r#"{a="x"}"#, "without braces"),
            (r#"""="x""#, "may not be empty"),
            (r#"a=~"(""#, "`(` is not a regular expression"),
            (r#"a=~"x)|(y""#, "`x)|(y` is not a regular expression"),
            (r#"a=~"(x{900}){900}""#, "is not a regular expression"),
        ] {
            let error = Matcher::parse(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
