//! What the API server was asked to do, by whom, and what it answered, from its audit log.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::Value;

/// One request that has been answered (the audit stage `ResponseComplete`).
///
/// Reads by the control plane itself are not logged. Writes to Nodes and evictions carry their bodies,
/// everything else only what is in the URL.
#[derive(Clone, Debug)]
pub(crate) struct AuditEvent {
    pub(crate) verb: String,
    pub(crate) user: String,
    pub(crate) user_agent: String,
    pub(crate) uri: String,
    /// Empty for a URI that is no resource, such as `/readyz`. So are the next four.
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The UID in the URL's object, which the API server does not fill in for every request.
    pub(crate) uid: String,
    /// HTTP status of the answer.
    pub(crate) code: u16,
    pub(crate) received: Timestamp,
    pub(crate) answered: Timestamp,
    /// `Null` where the policy asks for none.
    pub(crate) request_object: Value,
    /// `Null` where the policy asks for none.
    pub(crate) response_object: Value,
}

impl AuditEvent {
    /// Whether it is an eviction, accepted or not, dry runs included.
    pub(crate) fn is_eviction(&self) -> bool {
        self.verb == "create" && self.resource == "pods" && self.subresource == "eviction"
    }

    pub(crate) fn is_dry_run(&self) -> bool {
        self.uri.contains("dryRun=") || !self.delete_options()["dryRun"].is_null()
    }

    /// Whether the API server did what it was asked. A `Failure` can come with a 2xx.
    pub(crate) fn succeeded(&self) -> bool {
        (200..300).contains(&self.code) && self.response_object["status"] != "Failure"
    }

    /// The UID that an eviction names as its precondition.
    pub(crate) fn pod_uid(&self) -> Option<&str> {
        self.delete_options()["preconditions"]["uid"].as_str()
    }

    /// The grace period in seconds that an eviction asks for.
    pub(crate) fn grace_period(&self) -> Option<i64> {
        self.delete_options()["gracePeriodSeconds"].as_i64()
    }

    fn delete_options(&self) -> &Value {
        &self.request_object["deleteOptions"]
    }

    /// Whether it changes something.
    pub(crate) fn is_write(&self) -> bool {
        matches!(
            self.verb.as_str(),
            "create" | "update" | "patch" | "delete" | "deletecollection"
        )
    }
}

/// Reads the audit log, in the order in which the requests were answered. A last line that is still being
/// written is left for the next time.
pub(super) fn read(path: &Path) -> Vec<AuditEvent> {
    AuditTail::new(path).read()
}

/// Reads on from where it stopped: the log of a long run is read only once.
#[derive(Debug)]
pub(crate) struct AuditTail {
    path: PathBuf,
    /// Bytes read so far, whole lines all of them.
    read: u64,
}

impl AuditTail {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            read: 0,
        }
    }

    /// What was answered since the last call, or the beginning.
    pub(crate) fn read(&mut self) -> Vec<AuditEvent> {
        let mut bytes = Vec::new();
        // It is not there before the first request.
        let Ok(mut file) = File::open(&self.path) else {
            return Vec::new();
        };
        file.seek(SeekFrom::Start(self.read))
            .and_then(|_| file.read_to_end(&mut bytes))
            .unwrap_or_else(|error| panic!("audit log: {error}"));
        let whole = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        self.read += u64::try_from(whole).expect("a file's length is a u64");
        String::from_utf8_lossy(&bytes[..whole])
            .lines()
            .filter_map(|line| {
                let event: Value = serde_json::from_str(line)
                    .unwrap_or_else(|error| panic!("audit log: {error} in {line}"));
                // Whoever is not known is answered at once, and of that there is no other stage.
                let unknown = event["responseStatus"]["code"] == 401;
                (unknown || event["stage"] == "ResponseComplete").then(|| parse(&event))
            })
            .collect()
    }
}

fn parse(event: &Value) -> AuditEvent {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let time = |value: &Value| {
        value
            .as_str()
            .and_then(|time| time.parse().ok())
            .unwrap_or_else(|| panic!("audit log: no time in {event}"))
    };
    let object = &event["objectRef"];
    AuditEvent {
        verb: text(&event["verb"]),
        user: text(&event["user"]["username"]),
        user_agent: text(&event["userAgent"]),
        uri: text(&event["requestURI"]),
        resource: text(&object["resource"]),
        subresource: text(&object["subresource"]),
        namespace: text(&object["namespace"]),
        name: text(&object["name"]),
        uid: text(&object["uid"]),
        code: event["responseStatus"]["code"]
            .as_u64()
            .and_then(|code| u16::try_from(code).ok())
            .unwrap_or_default(),
        received: time(&event["requestReceivedTimestamp"]),
        answered: time(&event["stageTimestamp"]),
        request_object: event["requestObject"].clone(),
        response_object: event["responseObject"].clone(),
    }
}
