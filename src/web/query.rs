//! Query parameters, taken strictly: a misspelt filter that is ignored would show everything and
//! look like an answer.

use std::fmt::Display;
use std::ops::RangeInclusive;

use axum::extract::{FromRequestParts, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;

use super::problem::Problem;

/// The query parameters of a request, before they are checked.
#[derive(Debug)]
pub(super) struct RawQuery(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for RawQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::<Vec<(String, String)>>::from_request_parts(parts, state).await {
            Ok(Query(pairs)) => Ok(Self(pairs)),
            Err(rejection) => Err(Problem::new(StatusCode::BAD_REQUEST, rejection.body_text())),
        }
    }
}

/// Query parameters of which each is known and there once.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(String, String)>);

impl RawQuery {
    /// Checks the names.
    ///
    /// # Errors
    ///
    /// A [`Problem`] that names the parameter, for one that is not known or there twice.
    pub(super) fn of(self, known: &[&str]) -> Result<Parameters, Problem> {
        for (at, (name, _)) in self.0.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let detail = if known.is_empty() {
                    "this path takes no parameters".to_owned()
                } else {
                    format!("unknown parameter; known are {}", known.join(", "))
                };
                return Err(Problem::parameter(&shown(name), detail));
            }
            if self.0[..at].iter().any(|(other, _)| other == name) {
                return Err(Problem::parameter(name, "given more than once"));
            }
        }
        Ok(Parameters(self.0))
    }
}

impl Parameters {
    /// The value of a parameter; an empty one is as good as none.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, value)| known == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// A number within a range.
    ///
    /// # Errors
    ///
    /// A [`Problem`] that names the parameter, the range and what was there instead.
    pub(super) fn number(
        &self,
        name: &str,
        range: RangeInclusive<usize>,
    ) -> Result<Option<usize>, Problem> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(Problem::parameter(
                name,
                format!(
                    "must be a whole number from {} to {}, got `{}`",
                    range.start(),
                    range.end(),
                    shown(text)
                ),
            )),
        }
    }

    /// One of these words.
    ///
    /// # Errors
    ///
    /// A [`Problem`] that names the parameter, the words and what was there instead.
    pub(super) fn word<T: Copy, W: Display>(
        &self,
        name: &str,
        all: &[T],
        word: impl Fn(T) -> W,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let found = all.iter().find(|one| word(**one).to_string() == text);
        match found {
            Some(one) => Ok(Some(*one)),
            None => {
                let words: Vec<String> = all.iter().map(|one| word(*one).to_string()).collect();
                Err(Problem::parameter(
                    name,
                    format!("must be one of {}, got `{}`", words.join(", "), shown(text)),
                ))
            }
        }
    }

    /// `true` or `false`.
    ///
    /// # Errors
    ///
    /// A [`Problem`] that names the parameter.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Problem> {
        self.word(name, &[true, false], |flag| flag)
    }
}

/// What somebody sent, cut to a length that a message can carry.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}
