//! Nodes that have left `kubernetes.node_selector` with marks of ours on them.
//!
//! The watch shows the Nodes that the selector selects; one whose labels change is gone from it like one
//! that is deleted, and nobody would ever take its taint off. So all Nodes are looked at from time to time,
//! and soon after a marked one has gone from the watch. Where there is no selector there are no strays.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use foreshock_core::node::NodeName;
use foreshock_core::record::RecordState;
use k8s_openapi::api::core::v1::Node;
use kube::api::{ListParams, PartialObjectMeta};
use kube::{Api, Client};
use tokio::sync::{Notify, watch};
use tracing::debug;

use super::names::ANNOTATION_STATE;
use super::nodes::NodeBook;
use super::rate::Rate;
use super::record;
use super::watch::said;
use crate::kubernetes::NodeTable;

/// Between two looks at all Nodes. Of each only its metadata is asked for.
const INTERVAL: Duration = Duration::from_secs(300);
/// The same while there are strays: a person is at work on them.
const INTERVAL_WITH_STRAYS: Duration = Duration::from_secs(30);
/// Between a Node's going and the look that it causes, and so the least time between two looks: Nodes are
/// deleted many at a time.
const GATHER: Duration = Duration::from_secs(5);
/// Objects in a page.
const PAGE: u32 = 500;
/// One page must answer within this.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// Looks for strays until the future is dropped.
pub(super) async fn follow(
    client: Client,
    instance: String,
    nodes: Arc<NodeBook>,
    rate: Arc<Rate>,
    gone: Arc<Notify>,
    strays: watch::Sender<Arc<BTreeSet<NodeName>>>,
) -> std::convert::Infallible {
    let api: Api<Node> = Api::all(client);
    let mut table = nodes.subscribe();
    let mut marked = BTreeSet::new();
    let mut next = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(next) => {
                // Before the first list of the selected Nodes every one would look like a stray.
                if table.borrow().synced {
                    match look(&api, &instance, &rate).await {
                        Ok(found) => marked = found,
                        // The watch of the Nodes says what is wrong; what was known stays.
                        Err(problem) => debug!(error = problem, "no look at all nodes"),
                    }
                    let stray = !outside(&marked, &table.borrow()).is_empty();
                    let interval = if stray { INTERVAL_WITH_STRAYS } else { INTERVAL };
                    next = tokio::time::Instant::now() + interval;
                } else {
                    next = tokio::time::Instant::now() + GATHER;
                }
            }
            () = gone.notified() => next = next.min(tokio::time::Instant::now() + GATHER),
            changed = table.changed() => if changed.is_err() { std::future::pending::<()>().await },
        }
        let found = outside(&marked, &table.borrow_and_update());
        strays.send_if_modified(|shown| {
            let differs = **shown != found;
            if differs {
                *shown = Arc::new(found);
            }
            differs
        });
    }
}

/// Those that the watch does not show. A Node that comes back is none from the moment on that it shows.
fn outside(marked: &BTreeSet<NodeName>, table: &NodeTable) -> BTreeSet<NodeName> {
    marked
        .iter()
        .filter(|node| !table.nodes.contains_key(*node))
        .cloned()
        .collect()
}

/// Every Node with marks of ours.
async fn look(api: &Api<Node>, instance: &str, rate: &Rate) -> Result<BTreeSet<NodeName>, String> {
    let mut marked = BTreeSet::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        rate.turn().await;
        let page = tokio::time::timeout(ANSWER_LIMIT, api.list_metadata(&params))
            .await
            .map_err(|_| format!("no answer within {ANSWER_LIMIT:?}"))?
            .map_err(|error| said(&error))?;
        marked.extend(
            page.items
                .iter()
                .filter_map(|node| marked_by(node, instance)),
        );
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            return Ok(marked);
        }
    }
}

fn marked_by(node: &PartialObjectMeta<Node>, instance: &str) -> Option<NodeName> {
    let text = node.metadata.annotations.as_ref()?.get(ANNOTATION_STATE)?;
    let uid = node.metadata.uid.as_deref()?.into();
    match record::decode(Some(text), instance, &uid) {
        RecordState::Ours(record) if !record.marks.is_empty() => {
            node.metadata.name.as_deref().map(NodeName::from)
        }
        RecordState::Ours(_)
        | RecordState::Absent
        | RecordState::Foreign { .. }
        | RecordState::OtherUid
        | RecordState::Unreadable { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use foreshock_core::node::Uid;
    use foreshock_core::record::{Marks, NodeRecord, RiskLabel};
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    fn node(record: &NodeRecord) -> PartialObjectMeta<Node> {
        let text = record::encode(record).expect("fits");
        let document = json!({"metadata": {"name": "a", "uid": "u1", "annotations": {ANNOTATION_STATE: text}}});
        serde_json::from_value(document).expect("metadata")
    }

    #[test]
    fn a_stray_has_marks_that_its_own_record_calls_ours() {
        let mut record = NodeRecord::clear("foreshock", &Uid::from("u1"), Timestamp::UNIX_EPOCH);
        assert_eq!(marked_by(&node(&record), "foreshock"), None);
        record.marks = Marks {
            label: Some(RiskLabel::Caution),
            ..Marks::default()
        };
        assert_eq!(marked_by(&node(&record), "foreshock"), Some("a".into()));
        assert_eq!(marked_by(&node(&record), "second"), None);
        record.uid = Uid::from("u0");
        assert_eq!(marked_by(&node(&record), "foreshock"), None);
        assert_eq!(marked_by(&PartialObjectMeta::default(), "foreshock"), None);
    }

    #[test]
    fn a_node_that_the_watch_shows_is_no_stray() {
        let document = json!({"metadata": {"name": "a", "uid": "u1"}});
        let entry = crate::kubernetes::marks::read(&document, "foreshock").expect("a Node");
        let mut table = NodeTable::default();
        let marked = BTreeSet::from(["a".into(), "b".into()]);
        assert_eq!(outside(&marked, &table), marked);
        table.nodes.insert("a".into(), Arc::new(entry));
        assert_eq!(outside(&marked, &table), BTreeSet::from(["b".into()]));
    }
}
