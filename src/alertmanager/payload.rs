//! Reading what Alertmanager says: the webhook's body (version 4) and the list of active alerts.
//!
//! Lenient: unknown fields are passed over, one unreadable alert spoils no other. A payload is a
//! state, not an event: it may come twice, late, or from two replicas.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Whether an alert fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlertStatus {
    /// It does.
    Firing,
    /// It does no more: absence of evidence, not evidence of health.
    Resolved,
}

/// One alert as Alertmanager says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Alertmanager's fingerprint of the labels, or our own digest of them where it sent none.
    pub fingerprint: String,
    /// Whether it fires.
    pub status: AlertStatus,
    /// All labels. At most [`Alert::LABELS_MAX`], names and values of at most
    /// [`Alert::LABEL_BYTES_MAX`] bytes.
    pub labels: BTreeMap<String, String>,
    /// Annotation `summary`, or else `description` or `message`, shortened for a screen.
    pub summary: String,
    /// Since when it fires.
    pub starts_at: Timestamp,
    /// When it ended or will end; `None` where Alertmanager sends Go's zero time, which it does for
    /// every firing alert of a webhook.
    pub ends_at: Option<Timestamp>,
    /// When Prometheus last said so. Only in the list of active alerts.
    pub updated_at: Option<Timestamp>,
}

/// The alerts of one body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// Those that could be read.
    pub alerts: Vec<Alert>,
    /// How many entries could not be read as alerts.
    pub malformed: usize,
    /// How many entries came after [`Payload::ALERTS_MAX`] and were not read.
    pub beyond: usize,
    /// How many alerts Alertmanager left out (`truncatedAlerts`): unknown, not resolved.
    pub truncated: u64,
}

/// Why a body is refused as a whole.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// No JSON.
    #[error("the body is not JSON")]
    NotJson(#[source] serde_json::Error),
    /// JSON of another shape.
    #[error("the body is not what Alertmanager sends")]
    Shape(#[source] serde_json::Error),
    /// A field without which it is no webhook of Alertmanager's.
    #[error("the body has no `{0}`; expected an Alertmanager webhook of version 4")]
    Missing(&'static str),
}

impl Alert {
    /// Labels of one alert. Real ones have 5 to 20.
    pub const LABELS_MAX: usize = 64;
    /// Bytes of a label's name or value. An alert above it is malformed rather than shortened: half
    /// the name of a Node can be the name of another.
    pub const LABEL_BYTES_MAX: usize = 1024;
    /// Characters of a summary that are kept.
    pub const SUMMARY_CHARS_MAX: usize = 240;
    /// Alertmanager's fingerprint has 16 characters; something longer is not taken over.
    const FINGERPRINT_MAX: usize = 64;

    /// Label `alertname`, shortened and without control characters, as it goes into logs and records.
    pub fn name(&self) -> String {
        let name = self.labels.get("alertname").map_or("", String::as_str);
        shortened(name, 128)
    }

    /// Label `severity`, shortened likewise; empty where there is none.
    pub fn severity(&self) -> String {
        let severity = self.labels.get("severity").map_or("", String::as_str);
        shortened(severity, 32)
    }

    fn read(entry: &Value) -> Option<Self> {
        let labels = labels(entry.get("labels")?)?;
        let status = match entry.get("status")? {
            Value::String(status) => match status.as_str() {
                "firing" => AlertStatus::Firing,
                "resolved" => AlertStatus::Resolved,
                _ => return None,
            },
            // The list of active alerts has an object here. Suppressed ones are not asked for; one
            // that comes nevertheless is firing all the same.
            Value::Object(status) => match status.get("state")?.as_str()? {
                "active" | "unprocessed" | "suppressed" => AlertStatus::Firing,
                _ => return None,
            },
            _ => return None,
        };
        let fingerprint = entry
            .get("fingerprint")
            .and_then(Value::as_str)
            .filter(|text| is_fingerprint(text))
            .map_or_else(|| digest(&labels), str::to_owned);
        Some(Self {
            fingerprint,
            status,
            summary: summary(entry.get("annotations")),
            starts_at: time(entry.get("startsAt"))??,
            ends_at: time(entry.get("endsAt"))?,
            updated_at: time(entry.get("updatedAt"))?,
            labels,
        })
    }
}

impl Payload {
    /// Alerts read from one body, and remembered in all. 5,000 Nodes with ten alerts each.
    pub const ALERTS_MAX: usize = 50_000;

    /// Reads the body of a webhook.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] when it is not JSON, or lacks `version` or `alerts`. Anything less is counted
    /// in [`Payload::malformed`].
    pub fn parse(body: &[u8]) -> Result<Self, PayloadError> {
        #[derive(Deserialize)]
        struct Wire {
            version: Option<Value>,
            alerts: Option<Entries>,
            #[serde(rename = "truncatedAlerts")]
            truncated: Option<Value>,
        }
        let wire: Wire = serde_json::from_slice(body).map_err(refused)?;
        if wire.version.is_none() {
            return Err(PayloadError::Missing("version"));
        }
        let Entries(mut payload) = wire.alerts.ok_or(PayloadError::Missing("alerts"))?;
        payload.truncated = wire
            .truncated
            .as_ref()
            .and_then(Value::as_u64)
            .unwrap_or_default();
        Ok(payload)
    }

    /// Reads the answer to `GET /api/v2/alerts`.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] when it is not a JSON list.
    pub fn parse_active(body: &[u8]) -> Result<Self, PayloadError> {
        let Entries(payload) = serde_json::from_slice(body).map_err(refused)?;
        Ok(payload)
    }
}

fn refused(error: serde_json::Error) -> PayloadError {
    if error.is_data() {
        PayloadError::Shape(error)
    } else {
        PayloadError::NotJson(error)
    }
}

/// A JSON list of alerts, of which one at a time is held as JSON: as a whole, 16 MiB of it would
/// take ten times as much memory.
struct Entries(Payload);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Payload;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of alerts")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Payload, A::Error> {
                let mut payload = Payload::default();
                while payload.alerts.len() < Payload::ALERTS_MAX {
                    match list.next_element::<Value>()? {
                        None => return Ok(payload),
                        Some(entry) => match Alert::read(&entry) {
                            Some(alert) => payload.alerts.push(alert),
                            None => payload.malformed += 1,
                        },
                    }
                }
                while list.next_element::<serde::de::IgnoredAny>()?.is_some() {
                    payload.beyond += 1;
                }
                Ok(payload)
            }
        }

        deserializer.deserialize_seq(List).map(Self)
    }
}

fn labels(value: &Value) -> Option<BTreeMap<String, String>> {
    let object = value.as_object()?;
    if object.len() > Alert::LABELS_MAX {
        return None;
    }
    object
        .iter()
        .map(|(name, value)| {
            let value = value.as_str()?;
            let fits = name.len().max(value.len()) <= Alert::LABEL_BYTES_MAX;
            fits.then(|| (name.clone(), value.to_owned()))
        })
        .collect()
}

/// The time in a field: outer `None` when it is there and no time; inner `None` when it is absent,
/// null, or Go's zero time, which means "not set".
fn time(value: Option<&Value>) -> Option<Option<Timestamp>> {
    let text = match value {
        None | Some(Value::Null) => return Some(None),
        Some(Value::String(text)) => text,
        Some(_) => return None,
    };
    let at: Timestamp = text.parse().ok()?;
    // Any time zone: `0001-01-01T00:00:00Z` is the only instant that early.
    let is_zero = at.as_second() <= GO_ZERO_SECOND;
    Some((!is_zero).then_some(at))
}

/// `0001-01-01T00:00:00Z` in seconds since 1970.
const GO_ZERO_SECOND: i64 = -62_135_596_800;

fn is_fingerprint(text: &str) -> bool {
    (1..=Alert::FINGERPRINT_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Names an alert by its labels, as Alertmanager's fingerprint does. Lengths go in as well, so that
/// no two sets of labels read the same.
fn digest(labels: &BTreeMap<String, String>) -> String {
    let mut hash = Sha256::new();
    for text in labels.iter().flat_map(|(name, value)| [name, value]) {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    let bytes = hash.finalize();
    bytes[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn summary(annotations: Option<&Value>) -> String {
    ["summary", "description", "message"]
        .iter()
        .find_map(|name| annotations?.get(name)?.as_str())
        .map(|text| shortened(text, Alert::SUMMARY_CHARS_MAX))
        .unwrap_or_default()
}

/// At most so many characters, none of them a control character.
fn shortened(text: &str, chars_max: usize) -> String {
    let mut chars = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut short: String = chars.by_ref().take(chars_max).collect();
    if chars.next().is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn body(alerts: Value) -> Vec<u8> {
        json!({"version": "4", "groupKey": "{}:{}", "alerts": alerts})
            .to_string()
            .into_bytes()
    }

    fn entry() -> Value {
        json!({
            "status": "firing",
            "labels": {"alertname": "NodeDown", "node": "worker-02"},
            "annotations": {"summary": "it is down"},
            "startsAt": "2026-11-23T08:00:00.5+01:00",
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "http://prometheus/graph",
            "fingerprint": "86788a8aa4a3ad4f"
        })
    }

    #[test]
    fn a_firing_alert_of_a_webhook_has_no_end() {
        let payload = Payload::parse(&body(json!([entry()]))).expect("a webhook");
        let [alert] = &payload.alerts[..] else {
            panic!("one alert, not {payload:?}")
        };
        assert_eq!(alert.fingerprint, "86788a8aa4a3ad4f");
        assert_eq!(alert.status, AlertStatus::Firing);
        assert_eq!(alert.starts_at.to_string(), "2026-11-23T07:00:00.5Z");
        assert_eq!(alert.ends_at, None);
        assert_eq!(alert.name(), "NodeDown");
        assert_eq!(alert.summary, "it is down");
    }

    #[test]
    fn a_body_is_refused_only_for_what_makes_it_no_webhook() {
        for (body, expected) in [
            ("", "the body is not JSON"),
            ("alerts", "the body is not JSON"),
            (r#"{"version":"4","alerts":[{"#, "the body is not JSON"),
            ("{}", "the body has no `version`"),
            (r#"{"alerts":[]}"#, "the body has no `version`"),
            (r#"{"version":"4"}"#, "the body has no `alerts`"),
            (
                r#"{"version":"4","alerts":null}"#,
                "the body has no `alerts`",
            ),
            (r#"{"version":"4","alerts":{}}"#, "is not what Alertmanager"),
            (r#""4""#, "the body is not what Alertmanager sends"),
        ] {
            let error = Payload::parse(body.as_bytes()).expect_err(body).to_string();
            assert!(error.contains(expected), "{body}: {error}");
        }
        for body in [
            r#"{"version":"4","alerts":[]}"#,
            r#"{"version":"5","alerts":[],"news":{"a":[1]}}"#,
            r#"{"version":4,"alerts":[],"truncatedAlerts":null}"#,
        ] {
            let payload = Payload::parse(body.as_bytes()).expect(body);
            assert_eq!(payload, Payload::default(), "{body}");
        }
    }

    #[test]
    fn one_unreadable_alert_spoils_no_other() {
        let change = |name: &str, value: Value| {
            let mut entry = entry();
            entry[name] = value;
            entry
        };
        let long = "x".repeat(Alert::LABEL_BYTES_MAX + 1);
        let many: BTreeMap<String, &str> = (0..=Alert::LABELS_MAX)
            .map(|n| (format!("l{n}"), "v"))
            .collect();
        let unreadable = [
            json!(7),
            json!(null),
            json!({}),
            change("status", json!("perhaps")),
            change("status", json!(null)),
            change("labels", json!(["node"])),
            change("labels", json!({"node": 7})),
            change("labels", json!({ "node": long })),
            change("labels", json!({ long: "x" })),
            change("labels", json!(many)),
            change("startsAt", json!("0001-01-01T00:00:00Z")),
            change("startsAt", json!("yesterday")),
            change("startsAt", json!(null)),
            change("endsAt", json!(12)),
        ];
        let count = unreadable.len();
        let mut alerts = unreadable.to_vec();
        alerts.push(entry());
        let payload = Payload::parse(&body(json!(alerts))).expect("a webhook");
        assert_eq!((payload.malformed, payload.alerts.len()), (count, 1));
    }

    #[test]
    fn without_a_usable_fingerprint_the_labels_are_digested() {
        let of = |fingerprint: Value, labels: Value| {
            let mut entry = entry();
            entry["fingerprint"] = fingerprint;
            entry["labels"] = labels;
            Alert::read(&entry).expect("readable").fingerprint
        };
        let absent = of(json!(null), json!({"a": "bc", "d": ""}));
        assert_eq!(absent.len(), 32);
        assert_eq!(of(json!(""), json!({"d": "", "a": "bc"})), absent);
        assert_eq!(
            of(json!("x".repeat(65)), json!({"d": "", "a": "bc"})),
            absent
        );
        assert_eq!(of(json!("../../etc"), json!({"d": "", "a": "bc"})), absent);
        assert_ne!(of(json!(null), json!({"ab": "c", "d": ""})), absent);
        assert_ne!(of(json!(null), json!({"a": "bcd", "": ""})), absent);
    }

    #[test]
    fn the_missing_alerts_of_a_truncated_group_are_counted() {
        let text = r#"{"version":"4","alerts":[],"truncatedAlerts":480}"#;
        assert_eq!(
            Payload::parse(text.as_bytes()).expect("webhook").truncated,
            480
        );
    }

    #[test]
    fn the_list_of_active_alerts_reads_like_a_webhook() {
        let mut active = entry();
        active["status"] = json!({"state": "active", "silencedBy": [], "inhibitedBy": []});
        active["endsAt"] = json!("2026-11-23T07:04:00Z");
        active["updatedAt"] = json!("2026-11-23T07:00:00Z");
        let text = json!([active, {"status": {"state": "new"}}]).to_string();
        let payload = Payload::parse_active(text.as_bytes()).expect("a list");
        assert_eq!((payload.alerts.len(), payload.malformed), (1, 1));
        assert_eq!(payload.alerts[0].status, AlertStatus::Firing);
        assert!(payload.alerts[0].ends_at < Some(Timestamp::MAX));
        assert!(Payload::parse_active(b"{}").is_err());
    }

    #[test]
    fn hostile_text_is_cut_to_what_a_screen_can_show() {
        let mut hostile = entry();
        hostile["labels"]["alertname"] = json!("a\u{1b}[31m\r\n".repeat(60));
        hostile["annotations"]["summary"] = json!("é".repeat(100_000));
        let alert = Alert::read(&hostile).expect("readable");
        assert!(alert.name().chars().count() <= 129, "{}", alert.name());
        assert!(!alert.name().contains(char::is_control));
        assert_eq!(alert.summary.chars().count(), Alert::SUMMARY_CHARS_MAX + 1);
    }

    #[test]
    fn entries_beyond_the_limit_are_counted_and_not_kept() {
        let one = entry().to_string();
        let mut text = String::from(r#"{"version":"4","alerts":["#);
        text.push_str(&one);
        for _ in 0..Payload::ALERTS_MAX + 2 {
            text.push(',');
            text.push_str(&one);
        }
        text.push_str("]}");
        let payload = Payload::parse(text.as_bytes()).expect("a webhook");
        assert_eq!(
            (payload.alerts.len(), payload.beyond),
            (Payload::ALERTS_MAX, 3)
        );
    }
}
