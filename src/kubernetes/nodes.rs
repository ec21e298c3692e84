//! The table of Nodes: what the watch shows, and what own writes have shown before it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foreshock_core::node::NodeName;
use tokio::sync::{Notify, watch};

use super::watch::{Seen, is_older};
use super::{NodeEntry, NodeTable};

/// Changes that come together are published together: a Node that comes up changes several times.
const GATHER: Duration = Duration::from_millis(50);

/// Collects what is seen of the Nodes and publishes the table where something relevant has changed.
#[derive(Debug)]
pub(super) struct NodeBook {
    inner: Mutex<Inner>,
    changed: Notify,
    /// A Node with marks of ours is not shown any more: deleted, or outside the selector now.
    gone: Arc<Notify>,
    tx: watch::Sender<Arc<NodeTable>>,
}

#[derive(Debug, Default)]
struct Inner {
    table: NodeTable,
    /// Own writes that the watch has not passed yet: the version that they produced.
    own: HashMap<NodeName, String>,
    /// The version of each Node that the watch showed last, heartbeats included.
    seen: HashMap<NodeName, String>,
    dirty: bool,
}

impl NodeBook {
    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::default(),
            changed: Notify::new(),
            gone: Arc::new(Notify::new()),
            tx: watch::channel(Arc::default()).0,
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<NodeTable>> {
        self.tx.subscribe()
    }

    /// Notified when a Node with marks of ours is not shown any more.
    pub(super) fn gone(&self) -> Arc<Notify> {
        Arc::clone(&self.gone)
    }

    /// Publishes what has gathered, until the future is dropped.
    pub(super) async fn publish(&self) -> std::convert::Infallible {
        loop {
            self.changed.notified().await;
            tokio::time::sleep(GATHER).await;
            self.flush();
        }
    }

    /// Takes in what the watch says.
    pub(super) fn see(&self, seen: Seen<NodeEntry>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match seen {
            Seen::Listed { items, version } => inner.list(items, &version),
            Seen::Applied { item, version } => {
                if inner.passes(&item.facts.id.name, &version) {
                    inner.seen.insert(item.facts.id.name.clone(), version);
                    inner.put(item);
                }
            }
            Seen::Deleted { item, version } => {
                let record = item.facts.record.ours();
                if record.is_some_and(|record| !record.marks.is_empty()) {
                    self.gone.notify_one();
                }
                if inner.passes(&item.facts.id.name, &version) {
                    inner.seen.remove(&item.facts.id.name);
                    inner.dirty |= inner.table.nodes.remove(&item.facts.id.name).is_some();
                }
            }
            Seen::Alive => inner.dirty |= inner.table.problem.take().is_some(),
            Seen::Failed(problem) => {
                if inner.table.problem.as_ref() != Some(&problem) {
                    inner.table.problem = Some(problem);
                    inner.dirty = true;
                }
            }
        }
        if inner.dirty {
            self.changed.notify_one();
        }
    }

    /// Takes in a Node as an own write left it, and publishes it at once: the next decision must not
    /// see the Node as it was before.
    pub(super) fn wrote(&self, entry: NodeEntry) {
        {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            let name = entry.facts.id.name.clone();
            let version = entry.resource_version.clone();
            // The watch may have been faster.
            let seen = inner.seen.get(&name);
            if seen.is_some_and(|seen| is_older(&version, seen) == Some(true)) {
                return;
            }
            inner.put(entry);
            inner.own.insert(name, version);
        }
        self.flush();
    }

    fn flush(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut inner.dirty) {
            self.tx.send_replace(Arc::new(inner.table.clone()));
        }
    }
}

impl Inner {
    /// Whether what the watch shows of this Node is not older than what an own write has shown.
    ///
    /// A watch delivers the versions of an object in order and leaves none out. So where versions do
    /// not compare as numbers, everything up to the very version that the write produced is older.
    fn passes(&mut self, name: &NodeName, version: &str) -> bool {
        let Some(own) = self.own.get(name) else {
            return true;
        };
        let older = is_older(version, own).unwrap_or(version != own);
        if !older {
            self.own.remove(name);
        }
        !older
    }

    fn put(&mut self, entry: NodeEntry) {
        match self.table.nodes.get_mut(&entry.facts.id.name) {
            // A heartbeat: nothing is published, and the Arc that others hold stays the same.
            Some(present) if same(present, &entry) => {}
            Some(present) => {
                *present = Arc::new(entry);
                self.dirty = true;
            }
            None => {
                self.table
                    .nodes
                    .insert(entry.facts.id.name.clone(), Arc::new(entry));
                self.dirty = true;
            }
        }
    }

    fn list(&mut self, items: Vec<NodeEntry>, version: &str) {
        let mut listed: BTreeMap<NodeName, NodeEntry> = items
            .into_iter()
            .map(|entry| (entry.facts.id.name.clone(), entry))
            .collect();
        // A list is read from a quorum, so an own write that was answered before it began is in it.
        // One that was answered meanwhile is newer than the list, and stays as it was shown.
        self.own
            .retain(|_, own| is_older(version, own).unwrap_or(false));
        let before = self.table.nodes.len();
        let own = &self.own;
        self.table
            .nodes
            .retain(|name, _| listed.contains_key(name) || own.contains_key(name));
        self.dirty |= self.table.nodes.len() != before || !self.table.synced;
        listed.retain(|name, _| !own.contains_key(name));
        self.seen = listed
            .values()
            .map(|entry| (entry.facts.id.name.clone(), entry.resource_version.clone()))
            .collect();
        for entry in listed.into_values() {
            self.put(entry);
        }
        self.dirty |= self.table.problem.take().is_some();
        self.table.synced = true;
    }
}

/// Whether two versions of a Node are the same to everybody who reads the table.
fn same(a: &NodeEntry, b: &NodeEntry) -> bool {
    // Spelled out, so that a new field has to be thought about here.
    let NodeEntry {
        facts,
        resource_version: _,
        hostname,
        addresses,
        labels,
    } = a;
    *facts == b.facts && *hostname == b.hostname && *addresses == b.addresses && *labels == b.labels
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(name: &str, version: &str, cordoned: bool) -> NodeEntry {
        let document = json!({
            "metadata": {"name": name, "uid": "u", "resourceVersion": version},
            "spec": {"unschedulable": cordoned},
        });
        crate::kubernetes::marks::read(&document, "foreshock").expect("a Node")
    }

    fn applied(name: &str, version: &str, cordoned: bool) -> Seen<NodeEntry> {
        Seen::Applied {
            item: entry(name, version, cordoned),
            version: version.to_owned(),
        }
    }

    fn listed(version: &str, items: Vec<NodeEntry>) -> Seen<NodeEntry> {
        Seen::Listed {
            items,
            version: version.to_owned(),
        }
    }

    /// The table as published: names of the Nodes, in capitals where cordoned.
    fn shown(book: &NodeBook) -> String {
        book.flush();
        let table = book.tx.borrow().clone();
        let shown = |entry: &Arc<NodeEntry>| {
            let name = entry.facts.id.name.to_string();
            if entry.facts.cordoned {
                name.to_uppercase()
            } else {
                name
            }
        };
        table
            .nodes
            .values()
            .map(shown)
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn an_older_event_does_not_undo_what_an_own_write_has_shown() {
        let book = NodeBook::new();
        book.see(listed(
            "10",
            vec![entry("a", "9", false), entry("b", "8", false)],
        ));
        assert_eq!(shown(&book), "a b");
        book.wrote(entry("a", "20", true));
        assert_eq!(shown(&book), "A b");
        // Written by the kubelet before us, and seen after.
        book.see(applied("a", "15", false));
        assert_eq!(shown(&book), "A b");
        book.see(applied("a", "20", true));
        book.see(applied("a", "21", false));
        assert_eq!(shown(&book), "a b");
        // The watch was faster than the answer.
        book.see(applied("b", "30", true));
        book.wrote(entry("b", "25", false));
        assert_eq!(shown(&book), "a B");
        // Also where it showed nothing new, because somebody had undone our write by then.
        book.see(applied("b", "50", true));
        book.wrote(entry("b", "45", false));
        assert_eq!(shown(&book), "a B");
    }

    #[test]
    fn versions_that_are_no_numbers_are_passed_at_the_very_one_that_was_written() {
        let book = NodeBook::new();
        book.see(listed("x", vec![entry("a", "q", false)]));
        book.wrote(entry("a", "w", true));
        book.see(applied("a", "r", false));
        assert_eq!(shown(&book), "A");
        book.see(applied("a", "w", true));
        book.see(applied("a", "z", false));
        assert_eq!(shown(&book), "a");
        // A new list ends the wait: nobody may be shown a write of ours for ever.
        book.wrote(entry("a", "w2", true));
        book.see(listed("y", vec![entry("a", "z", false)]));
        assert_eq!(shown(&book), "a");
    }

    #[test]
    fn a_list_removes_what_is_gone_but_not_what_was_written_meanwhile() {
        let book = NodeBook::new();
        book.see(listed(
            "10",
            vec![entry("a", "9", false), entry("b", "8", false)],
        ));
        book.wrote(entry("a", "20", true));
        book.see(listed("15", vec![entry("a", "9", false)]));
        assert_eq!(shown(&book), "A");
        book.see(listed("30", vec![entry("a", "29", false)]));
        assert_eq!(shown(&book), "a");
    }

    #[test]
    fn a_late_word_of_a_deleted_node_does_not_remove_the_new_one() {
        let book = NodeBook::new();
        book.see(listed("10", vec![entry("a", "9", false)]));
        book.wrote(entry("a", "20", true));
        book.see(Seen::Deleted {
            item: entry("a", "12", false),
            version: "12".to_owned(),
        });
        assert_eq!(shown(&book), "A");
        book.see(Seen::Deleted {
            item: entry("a", "22", false),
            version: "22".to_owned(),
        });
        assert_eq!(shown(&book), "");
    }

    #[test]
    fn a_heartbeat_publishes_nothing() {
        let book = NodeBook::new();
        book.see(listed("10", vec![entry("a", "9", false)]));
        book.flush();
        let mut rx = book.subscribe();
        let before = rx
            .borrow_and_update()
            .nodes
            .get("a")
            .cloned()
            .expect("listed");
        book.see(applied("a", "11", false));
        book.flush();
        assert!(!rx.has_changed().expect("open"));
        book.see(applied("a", "12", true));
        book.flush();
        assert!(rx.has_changed().expect("open"));
        assert!(!Arc::ptr_eq(&before, &rx.borrow().nodes["a"]));
    }

    #[test]
    fn a_failing_watch_says_so_until_it_is_up_again() {
        let book = NodeBook::new();
        book.see(Seen::Failed("connection refused".to_owned()));
        book.flush();
        let table = book.tx.borrow().clone();
        assert!(!table.synced && table.problem.as_deref() == Some("connection refused"));
        book.see(listed("1", Vec::new()));
        book.see(Seen::Failed("closed".to_owned()));
        book.see(Seen::Alive);
        book.flush();
        let table = book.tx.borrow().clone();
        assert!(table.synced && table.problem.is_none());
    }
}
