//! The JSON of a query, decoded by ourselves: warnings must not get lost, one native
//! histogram must not cost the whole answer, and what is missing must not look like a number.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::features::assemble::Sample;
use crate::features::identity::Labels;

/// A complete instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Vector<T> {
    /// Its samples, in the order of the answer; native histograms are left out.
    pub samples: Vec<T>,
    /// What the server said about it, and what was left out.
    pub remarks: Vec<String>,
}

/// Why a body is no complete answer.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON, or not of Prometheus' form.
    #[error("the answer is not that of a Prometheus")]
    Form(#[from] serde_json::Error),
    /// The server says that it failed.
    #[error("the server says {kind}: {text}")]
    Failed {
        /// `errorType`: `bad_data`, `timeout`, `execution`, or whatever the back end has.
        kind: String,
        /// `error`.
        text: String,
    },
    /// The query yields something other than an instant vector.
    #[error("the result is a {kind}, an instant vector is needed")]
    NotAVector {
        /// `resultType`.
        kind: String,
    },
    /// The range query yields something other than a matrix.
    #[error("the result is a {kind}, a range of vectors is needed")]
    NotAMatrix {
        /// `resultType`.
        kind: String,
    },
    /// Parts are missing: a Node that is not in the answer would look like one without a sample.
    #[error("the answer is partial: {}", .warnings.join("; "))]
    Partial {
        /// What the server said about it.
        warnings: Vec<String>,
    },
}

/// All labels and the number of one series.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Labelled {
    pub(super) labels: Labels,
    pub(super) value: f64,
}

/// What can be made of one series' labels and number.
pub(super) trait FromSeries: Sized {
    /// The labels that are wanted.
    type Metric: Default + Send;
    fn label(metric: &mut Self::Metric, name: &str, value: Cow<'_, str>);
    fn of(metric: Self::Metric, value: f64) -> Self;
    /// The wanted labels, in an order: the same for the same series.
    type Key: Ord;
    fn key(metric: &Self::Metric) -> Self::Key;
}

impl FromSeries for Sample {
    type Metric = Self;

    fn label(metric: &mut Self, name: &str, value: Cow<'_, str>) {
        match name {
            "node" => metric.node = Some(value.into_owned()),
            "instance" => metric.instance = Some(value.into_owned()),
            "source" => metric.source = Some(value.into_owned()),
            // Other labels say nothing about whose the value is.
            _ => {}
        }
    }

    fn of(metric: Self, value: f64) -> Self {
        Self { value, ..metric }
    }

    type Key = [Option<String>; 3];

    fn key(metric: &Self) -> Self::Key {
        [&metric.node, &metric.instance, &metric.source].map(Clone::clone)
    }
}

impl FromSeries for Labelled {
    type Metric = Labels;

    fn label(metric: &mut Labels, name: &str, value: Cow<'_, str>) {
        if name != "__name__" {
            metric.insert(name.to_owned(), value.into_owned());
        }
    }

    fn of(labels: Labels, value: f64) -> Self {
        Self { labels, value }
    }

    type Key = Labels;

    fn key(labels: &Labels) -> Labels {
        labels.clone()
    }
}

/// Decodes the body of an answer to an instant query.
///
/// # Errors
///
/// [`DecodeError`], for everything that is not a complete vector.
pub(super) fn vector<T: FromSeries>(body: &[u8]) -> Result<Vector<T>, DecodeError> {
    let envelope: Envelope<Data<T>> = match serde_json::from_slice(body) {
        Ok(envelope) => envelope,
        Err(error) => return Err(not_a("vector", body).unwrap_or(DecodeError::Form(error))),
    };
    let (data, mut remarks) = envelope.opened()?;
    if data.result_type != "vector" {
        return Err(DecodeError::NotAVector {
            kind: data.result_type,
        });
    }
    let n = data.result.len();
    let samples: Vec<T> = data
        .result
        .into_iter()
        .filter_map(Entry::into_sample)
        .collect();
    if samples.len() < n {
        remarks.push(format!("{} native histograms left out", n - samples.len()));
    }
    Ok(Vector { samples, remarks })
}

/// One series of a range, at so many times in equal steps; NaN where it has no sample.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Series<M> {
    /// What is wanted of its labels.
    pub(super) metric: M,
    /// Its values, in the order of time.
    pub(super) values: Vec<f64>,
}

/// The times of a range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Steps {
    /// The first, in seconds since the epoch.
    pub(super) from: i64,
    /// From one to the next, in seconds; above 0.
    pub(super) step: i64,
    /// How many; at least 1.
    pub(super) n: usize,
}

impl Steps {
    /// The last, in seconds since the epoch.
    pub(super) fn last(&self) -> i64 {
        self.from + self.step * (self.n as i64 - 1)
    }

    /// The place of a time; `None` if it is not one of them.
    pub(super) fn place(&self, seconds: f64) -> Option<usize> {
        let steps = (seconds - self.from as f64) / self.step as f64;
        let whole = steps.fract() == 0.0 && steps >= 0.0 && steps < self.n as f64;
        whole.then_some(steps as usize)
    }
}

/// Decodes the body of an answer to a range query, by the rules of [`vector`].
///
/// # Errors
///
/// [`DecodeError`], for everything that is not a complete matrix.
pub(super) fn matrix<T: FromSeries>(
    body: &[u8],
    steps: Steps,
) -> Result<Vector<Series<T::Metric>>, DecodeError> {
    let envelope: Envelope<RangeData<T>> = match serde_json::from_slice(body) {
        Ok(envelope) => envelope,
        Err(error) => return Err(not_a("matrix", body).unwrap_or(DecodeError::Form(error))),
    };
    let (data, mut remarks) = envelope.opened()?;
    if data.result_type != "matrix" {
        return Err(DecodeError::NotAMatrix {
            kind: data.result_type,
        });
    }
    let n = data.result.len();
    let samples: Vec<_> = data
        .result
        .into_iter()
        .filter_map(|entry| {
            let mut values = vec![f64::NAN; steps.n];
            for (seconds, Number(value)) in entry.values? {
                if let Some(value_at) = steps.place(seconds).and_then(|at| values.get_mut(at)) {
                    *value_at = value;
                }
            }
            let metric = entry.metric.0;
            Some(Series { metric, values })
        })
        .collect();
    if samples.len() < n {
        remarks.push(format!("{} native histograms left out", n - samples.len()));
    }
    Ok(Vector { samples, remarks })
}

/// Decodes the `data` of any other answer.
///
/// # Errors
///
/// [`DecodeError`], for everything that is not a success of that form.
pub(super) fn data<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, DecodeError> {
    let envelope: Envelope<T> = serde_json::from_slice(body)?;
    Ok(envelope.opened()?.0)
}

/// Only the server's own words about a failure: its kind and text; `None` if the body has none.
pub(super) fn failure(body: &[u8]) -> Option<(String, String)> {
    let envelope: Envelope<IgnoredAny> = serde_json::from_slice(body).ok()?;
    Some((envelope.error_type.unwrap_or_default(), envelope.error?))
}

/// A body of the right form with another kind of result deserves a better word than where the
/// form broke.
fn not_a(wanted: &str, body: &[u8]) -> Option<DecodeError> {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "resultType")]
        result_type: String,
    }
    let kind = serde_json::from_slice::<Envelope<Kind>>(body)
        .ok()?
        .data?
        .result_type;
    (kind != wanted).then_some(match wanted {
        "matrix" => DecodeError::NotAMatrix { kind },
        _ => DecodeError::NotAVector { kind },
    })
}

#[derive(Deserialize)]
struct Envelope<D> {
    status: String,
    data: Option<D>,
    #[serde(rename = "errorType")]
    error_type: Option<String>,
    error: Option<String>,
    warnings: Option<Vec<String>>,
    infos: Option<Vec<String>>,
    /// VictoriaMetrics: some storage node did not answer.
    #[serde(rename = "isPartial")]
    is_partial: Option<bool>,
}

impl<D> Envelope<D> {
    /// The data with the remarks on them.
    fn opened(self) -> Result<(D, Vec<String>), DecodeError> {
        if self.status != "success" {
            return Err(DecodeError::Failed {
                kind: self.error_type.unwrap_or(self.status),
                text: self.error.unwrap_or_default(),
            });
        }
        let mut remarks = self.warnings.unwrap_or_default();
        // Notes on the query itself begin like this. Every other warning comes from a storage that
        // could not be asked (Thanos, remote read): then series may be missing.
        let note = |w: &String| w.starts_with("PromQL warning:") || w.starts_with("PromQL info:");
        if self.is_partial == Some(true) || !remarks.iter().all(note) {
            return Err(DecodeError::Partial { warnings: remarks });
        }
        remarks.extend(self.infos.unwrap_or_default());
        match self.data {
            Some(data) => Ok((data, remarks)),
            None => Err(DecodeError::Failed {
                kind: self.status,
                text: "but there is no data".into(),
            }),
        }
    }
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "T: FromSeries"))]
struct Data<T: FromSeries> {
    #[serde(rename = "resultType")]
    result_type: String,
    result: Vec<Entry<T>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "T: FromSeries"))]
struct Entry<T: FromSeries> {
    metric: Metric<T>,
    /// Time and number; absent for a native histogram.
    value: Option<(IgnoredAny, Number)>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "T: FromSeries"))]
struct RangeData<T: FromSeries> {
    #[serde(rename = "resultType")]
    result_type: String,
    result: Vec<RangeEntry<T>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "T: FromSeries"))]
struct RangeEntry<T: FromSeries> {
    metric: Metric<T>,
    /// Times and numbers; absent for a native histogram.
    values: Option<Vec<(f64, Number)>>,
}

impl<T: FromSeries> Entry<T> {
    fn into_sample(self) -> Option<T> {
        let (_, Number(value)) = self.value?;
        Some(T::of(self.metric.0, value))
    }
}

/// A sample's number, which Prometheus writes as a string: `"0.5"`, `"NaN"`, `"+Inf"`.
struct Number(f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Text(text) = Text::deserialize(deserializer)?;
        let number = text
            .parse()
            .map_err(|_| serde::de::Error::custom(format!("no number: {text:?}")));
        Ok(Self(number?))
    }
}

struct Metric<T: FromSeries>(T::Metric);

impl<'de, T: FromSeries> Deserialize<'de> for Metric<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<'de, T: FromSeries> Visitor<'de> for Reader<T> {
            type Value = Metric<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("labels")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metric<T>, A::Error> {
                let mut metric = T::Metric::default();
                while let Some((Text(name), Text(value))) = map.next_entry()? {
                    T::label(&mut metric, &name, value);
                }
                Ok(Metric(metric))
            }
        }
        deserializer.deserialize_map(Reader(PhantomData))
    }
}

/// Text that is borrowed from the body where nothing in it is escaped.
struct Text<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples as `node|instance|source=value`, then the remarks; or the error.
    fn read(body: &str) -> String {
        let vector = match vector::<Sample>(body.as_bytes()) {
            Ok(vector) => vector,
            Err(error) => return format!("! {error}"),
        };
        let label = |l: &Option<String>| l.clone().unwrap_or_default();
        let sample = |s: &Sample| {
            let labels = [&s.node, &s.instance, &s.source].map(label).join("|");
            format!("{labels}={}", s.value)
        };
        let remarks = vector.remarks.iter().map(|r| format!("({r})"));
        vector
            .samples
            .iter()
            .map(sample)
            .chain(remarks)
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn every_answer_is_a_vector_with_its_remarks_or_says_why_not() {
        let vector = |result: &str, more: &str| {
            format!(
                r#"{{"status":"success","data":{{"resultType":"vector","result":[{result}]}}{more}}}"#
            )
        };
        for (body, expected) in [
            (vector("", ""), ""),
            (
                vector(
                    r#"{"metric":{"instance":"a:1","x":"y"},"value":[1.5,"0.25"]},
                       {"metric":{"node":"n","source":"s"},"value":[1,"-1e3"]}"#,
                    "",
                ),
                "|a:1|=0.25 n||s=-1000",
            ),
            (
                vector(
                    r#"{"metric":{},"value":[1,"NaN"]},{"metric":{},"value":[1,"+Inf"]},
                       {"metric":{},"value":[1,"-Inf"]}"#,
                    "",
                ),
                "||=NaN ||=inf ||=-inf",
            ),
            (
                vector(
                    r#"{"metric":{"instance":"\u00fc\"\\"},"value":[1,"1"]}"#,
                    "",
                ),
                "|ü\"\\|=1",
            ),
            (
                vector(
                    r#"{"metric":{"instance":"h"},"histogram":[1,{"count":"3","buckets":[]}]},
                       {"metric":{"instance":"a"},"value":[1,"2"]}"#,
                    "",
                ),
                "|a|=2 (1 native histograms left out)",
            ),
            (
                vector(
                    r#"{"metric":{"instance":"a"},"value":[1,"2"]}"#,
                    r#","warnings":["PromQL warning: mixed"],"infos":["PromQL info: no counter"],
                       "isPartial":false"#,
                ),
                "|a|=2 (PromQL warning: mixed) (PromQL info: no counter)",
            ),
            (
                vector("", r#","warnings":["store 10.0.0.1 unreachable"]"#),
                "! the answer is partial: store 10.0.0.1 unreachable",
            ),
            (
                vector("", r#","isPartial":true"#),
                "! the answer is partial: ",
            ),
            (
                vector(r#"{"metric":{},"value":[1,"abc"]}"#, ""),
                "! the answer is not that of a Prometheus",
            ),
            (
                r#"{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}"#.into(),
                "! the result is a scalar, an instant vector is needed",
            ),
            (
                r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#.into(),
                "! the result is a matrix, an instant vector is needed",
            ),
            (
                r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#.into(),
                "! the server says bad_data: parse error",
            ),
            (
                r#"{"status":"success"}"#.into(),
                "! the server says success: but there is no data",
            ),
            (String::new(), "! the answer is not that of a Prometheus"),
            ("<html>".into(), "! the answer is not that of a Prometheus"),
            ("[[[[".into(), "! the answer is not that of a Prometheus"),
        ] {
            assert_eq!(read(&body), expected, "{body}");
        }
    }

    #[test]
    fn a_range_has_every_value_in_its_place_and_nothing_where_there_is_none() {
        let steps = Steps {
            from: 600,
            step: 300,
            n: 4,
        };
        let read = |body: &str| {
            matrix::<Sample>(body.as_bytes(), steps).map_err(|error| error.to_string())
        };
        let of = |result: &str| {
            format!(
                r#"{{"status":"success","data":{{"resultType":"matrix","result":[{result}]}}}}"#
            )
        };
        let body = of(r#"{"metric":{"instance":"a","x":"y"},
                "values":[[600,"1"],[1200.0,"-2.5"],[1500,"NaN"],[1800,"9"],[700,"9"]]},
               {"metric":{"instance":"h"},"histograms":[]}"#);
        let made = read(&body).unwrap();
        assert_eq!(made.remarks, ["1 native histograms left out"]);
        let [series] = made.samples.as_slice() else {
            panic!("{made:?}");
        };
        assert_eq!(series.metric.instance.as_deref(), Some("a"));
        let shown: Vec<_> = series.values.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["1", "NaN", "-2.5", "NaN"]);
        assert_eq!(steps.last(), 1500);
        let vector = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
        let told = "the result is a vector, a range of vectors is needed";
        assert_eq!(read(vector).unwrap_err(), told);
        let scalar = r#"{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}"#;
        assert!(read(scalar).unwrap_err().contains("is a scalar"));
        assert!(read("<html>").is_err());
        assert!(read(&of(r#"{"metric":{},"values":[[600,"abc"]]}"#)).is_err());
    }

    #[test]
    fn all_labels_but_the_name_are_kept_for_identity() {
        let body = r#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"__name__":"up","instance":"a:1","job":"node"},"value":[1,"1"]}]}}"#;
        let labels = vector::<Labelled>(body.as_bytes())
            .unwrap()
            .samples
            .remove(0)
            .labels;
        let expected = [("instance", "a:1"), ("job", "node")];
        assert_eq!(
            labels,
            expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
        );
    }

    #[test]
    fn the_servers_own_words_are_found_whatever_the_error_type() {
        let body = br#"{"status":"error","errorType":"422","error":"cannot parse"}"#;
        assert_eq!(failure(body), Some(("422".into(), "cannot parse".into())));
        assert_eq!(failure(b"bad gateway"), None);
    }
}
