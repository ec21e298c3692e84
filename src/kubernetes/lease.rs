//! The Lease: its view, its patch, and the latest of what watch and own writes have shown.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::names::{ANNOTATION_ADDRESS, ANNOTATION_CLUSTER_STATE, ANNOTATION_PAUSED, is_set};
use super::record::{RecordError, decode_cluster, encode_cluster};
use super::text::clean;
use super::watch::{Seen, is_older};
use super::{LeaseState, LeaseView, LeaseWrite};

/// What stands in the Lease.
pub(super) fn view(lease: &Lease) -> LeaseView {
    let spec = lease.spec.as_ref();
    let annotations = lease.metadata.annotations.as_ref();
    let annotation = |name: &str| annotations.and_then(|annotations| annotations.get(name));
    LeaseView {
        // An empty holder is how other programs give a Lease up.
        holder: spec
            .and_then(|spec| spec.holder_identity.clone())
            .filter(|holder| !holder.is_empty()),
        address: annotation(ANNOTATION_ADDRESS).map(|address| clean(address, 300)),
        duration: spec
            .and_then(|spec| spec.lease_duration_seconds)
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(Duration::ZERO, Duration::from_secs),
        renewed_at: spec
            .and_then(|spec| spec.renew_time.as_ref())
            .map(|time| time.0),
        transitions: spec
            .and_then(|spec| spec.lease_transitions)
            .and_then(|transitions| u32::try_from(transitions).ok())
            .unwrap_or(0),
        paused: is_set(annotation(ANNOTATION_PAUSED)),
        record: decode_cluster(annotation(ANNOTATION_CLUSTER_STATE).map(String::as_str)),
        resource_version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}

/// The merge patch of a write. It leaves what others have put on the Lease; with `expects` it holds
/// only for that version. Without, it is the body of a Lease that is created.
pub(super) fn patch(write: &LeaseWrite) -> Result<Value, RecordError> {
    let mut annotations = Map::new();
    annotations.insert(
        ANNOTATION_PAUSED.to_owned(),
        if write.paused {
            json!("true")
        } else {
            Value::Null
        },
    );
    annotations.insert(ANNOTATION_ADDRESS.to_owned(), json!(write.address));
    if let Some(record) = &write.record {
        annotations.insert(
            ANNOTATION_CLUSTER_STATE.to_owned(),
            json!(encode_cluster(record)?),
        );
    }
    if write.expects.is_none() {
        annotations.retain(|_, value| !value.is_null());
    }
    let mut metadata = json!({"annotations": annotations});
    if let Some(version) = &write.expects {
        metadata["resourceVersion"] = json!(version);
    }
    let mut spec = json!({
        "leaseDurationSeconds": write.duration.as_secs().max(1),
        "leaseTransitions": write.transitions,
        // RFC 3339 with exactly six digits, as Kubernetes' MicroTime demands.
        "renewTime": k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(write.renewed_at),
    });
    match (&write.holder, &write.expects) {
        (Some(holder), _) => spec["holderIdentity"] = json!(holder),
        (None, Some(_)) => spec["holderIdentity"] = Value::Null,
        (None, None) => {}
    }
    Ok(json!({"metadata": metadata, "spec": spec}))
}

/// The latest state of the Lease.
#[derive(Debug)]
pub(super) struct LeaseBook {
    tx: watch::Sender<LeaseState>,
    /// The version that an own write produced and the watch has not passed yet.
    own: Mutex<Option<String>>,
}

impl LeaseBook {
    pub(super) fn new() -> Self {
        Self {
            tx: watch::channel(LeaseState::Unknown).0,
            own: Mutex::default(),
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<LeaseState> {
        self.tx.subscribe()
    }

    /// Takes in what the watch says. A watch that fails changes nothing: a leader's own renewals say
    /// within seconds whether the last view still holds.
    pub(super) fn see(&self, seen: Seen<LeaseView>) {
        let (state, version) = match seen {
            Seen::Listed { mut items, version } => match items.pop() {
                Some(view) => {
                    let version = view.resource_version.clone();
                    (LeaseState::Present(Box::new(view)), version)
                }
                None => (LeaseState::Absent, version),
            },
            Seen::Applied { item, version } => (LeaseState::Present(Box::new(item)), version),
            Seen::Deleted { version, .. } => (LeaseState::Absent, version),
            Seen::Alive | Seen::Failed(_) => return,
        };
        self.show(state, &version, false);
    }

    /// Takes in a fresh read.
    pub(super) fn read(&self, lease: Option<LeaseView>) {
        match lease {
            Some(view) => {
                let version = view.resource_version.clone();
                self.show(LeaseState::Present(Box::new(view)), &version, false);
            }
            // Without an object there is no version to compare; the read was a fresh one.
            None => {
                *self.own.lock().unwrap_or_else(PoisonError::into_inner) = None;
                self.set(LeaseState::Absent);
            }
        }
    }

    /// Takes in the Lease as an own write left it.
    pub(super) fn wrote(&self, view: &LeaseView) {
        self.show(
            LeaseState::Present(Box::new(view.clone())),
            &view.resource_version,
            true,
        );
    }

    fn show(&self, state: LeaseState, version: &str, is_own: bool) {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if is_own {
            let shown = match &*self.tx.borrow() {
                LeaseState::Present(view) => is_older(version, &view.resource_version),
                LeaseState::Unknown | LeaseState::Absent => None,
            };
            if shown == Some(true) {
                return;
            }
            *own = Some(version.to_owned());
        } else if let Some(written) = own.as_deref() {
            if is_older(version, written).unwrap_or(version != written) {
                return;
            }
            *own = None;
        }
        self.set(state);
    }

    fn set(&self, state: LeaseState) {
        self.tx.send_if_modified(|present| {
            let differs = *present != state;
            if differs {
                *present = state;
            }
            differs
        });
    }
}

#[cfg(test)]
mod tests {
    use foreshock_core::record::ClusterRecord;
    use jiff::Timestamp;

    use super::*;

    fn write(expects: Option<&str>) -> LeaseWrite {
        LeaseWrite {
            expects: expects.map(str::to_owned),
            holder: Some("a".to_owned()),
            address: Some("10.0.0.1:5000".to_owned()),
            duration: Duration::from_secs(15),
            renewed_at: Timestamp::from_millisecond(1_500).expect("in range"),
            transitions: 3,
            paused: false,
            record: None,
        }
    }

    fn lease(version: &str, holder: &str) -> LeaseView {
        view(
            &serde_json::from_value(json!({
                "metadata": {"name": "foreshock", "resourceVersion": version},
                "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15},
            }))
            .expect("a Lease"),
        )
    }

    #[test]
    fn a_write_names_its_version_and_leaves_the_record_it_does_not_change() {
        let patch = patch(&write(Some("7"))).expect("fits");
        assert_eq!(
            patch,
            json!({
                "metadata": {"resourceVersion": "7", "annotations": {"foreshock.dev/paused": null, "foreshock.dev/address": "10.0.0.1:5000"}},
                "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15, "leaseTransitions": 3, "renewTime": "1970-01-01T00:00:01.500000Z"},
            })
        );
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let mut write = write(None);
        write.paused = true;
        write.record = Some(ClusterRecord::default());
        let mut created = patch(&write).expect("fits");
        created["metadata"]["resourceVersion"] = json!("8");
        let view = view(&serde_json::from_value(created).expect("a Lease"));
        assert_eq!(view.holder, write.holder);
        assert_eq!(view.address, write.address);
        assert_eq!(view.duration, write.duration);
        assert_eq!(view.renewed_at, Some(write.renewed_at));
        assert_eq!((view.transitions, view.paused), (3, true));
        assert_eq!(view.record, Ok(ClusterRecord::default()));
    }

    #[test]
    fn an_odd_lease_is_read_without_a_panic() {
        let odd: Lease = serde_json::from_value(json!({
            "metadata": {"annotations": {"foreshock.dev/paused": "yes", "foreshock.dev/cluster-state": "{]"}},
            "spec": {"holderIdentity": "", "leaseDurationSeconds": -5, "leaseTransitions": -1},
        }))
        .expect("a Lease");
        let view = view(&odd);
        assert_eq!(
            (view.holder, view.duration, view.transitions),
            (None, Duration::ZERO, 0)
        );
        assert!(view.paused);
        assert!(view.record.is_err());
    }

    #[test]
    fn an_older_word_of_the_watch_does_not_undo_an_own_write() {
        let book = LeaseBook::new();
        let rx = book.subscribe();
        let holder = || match &*rx.borrow() {
            LeaseState::Present(view) => view.holder.clone().unwrap_or_default(),
            LeaseState::Absent => "absent".to_owned(),
            LeaseState::Unknown => "unknown".to_owned(),
        };
        book.see(Seen::Listed {
            items: Vec::new(),
            version: "5".to_owned(),
        });
        assert_eq!(holder(), "absent");
        book.wrote(&lease("9", "a"));
        book.see(Seen::Applied {
            item: lease("7", "b"),
            version: "7".to_owned(),
        });
        assert_eq!(holder(), "a");
        book.see(Seen::Applied {
            item: lease("9", "a"),
            version: "9".to_owned(),
        });
        book.see(Seen::Applied {
            item: lease("11", "b"),
            version: "11".to_owned(),
        });
        assert_eq!(holder(), "b");
        book.wrote(&lease("10", "a"));
        assert_eq!(holder(), "b");
        book.see(Seen::Deleted {
            item: lease("12", "b"),
            version: "12".to_owned(),
        });
        assert_eq!(holder(), "absent");
    }
}
