//! The Nodes that exist, and by which names a series may mean one of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use foreshock_core::node::{NodeName, Uid};
use jiff::Timestamp;

/// What telemetry needs to know of one Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEntry {
    /// `metadata.name`.
    pub name: NodeName,
    /// `metadata.uid`.
    pub uid: Uid,
    /// `metadata.creationTimestamp`: samples from before it belong to an earlier Node of this name.
    pub created: Timestamp,
    /// The label `kubernetes.io/hostname`.
    pub hostname: Option<String>,
    /// `status.addresses`, of every type: IP addresses and DNS names.
    pub addresses: Vec<String>,
}

/// The Nodes of this instance at one time. Cheap to clone.
#[derive(Clone, Debug)]
pub struct NodeDirectory(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    entries: Vec<NodeEntry>,
    open: bool,
    by_name: HashMap<String, Named>,
    by_address: HashMap<String, Named>,
    by_hostname: HashMap<String, Named>,
}

/// What a name means among the Nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// This one, by its place in [`NodeDirectory::entries`].
    One(usize),
    /// More than one: nobody may guess which.
    Several,
}

impl NodeDirectory {
    /// The directory of these Nodes; of two entries with one name the later counts.
    pub fn new(entries: impl IntoIterator<Item = NodeEntry>) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        // The sort is stable and `dedup_by` keeps the first of equals: reversed, that is the later.
        entries.reverse();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries.dedup_by(|other, kept| other.name == kept.name);
        let mut inner = Inner::default();
        for (i, entry) in entries.iter().enumerate() {
            note(&mut inner.by_name, entry.name.as_str(), i);
            note(&mut inner.by_hostname, entry.name.as_str(), i);
            for address in &entry.addresses {
                note(&mut inner.by_address, address, i);
            }
            if let Some(hostname) = &entry.hostname {
                note(&mut inner.by_hostname, hostname, i);
            }
        }
        inner.entries = entries;
        Self(Arc::new(inner))
    }

    /// A directory for `kubernetes.enabled = false`: nobody says which Nodes there are, so whatever
    /// the identity query finds is a Node.
    pub fn open() -> Self {
        Self(Arc::new(Inner {
            open: true,
            ..Inner::default()
        }))
    }

    /// Whether telemetry itself says which Nodes there are.
    pub fn is_open(&self) -> bool {
        self.0.open
    }

    /// The Nodes, sorted by name, without repeats; empty when open.
    pub fn entries(&self) -> &[NodeEntry] {
        &self.0.entries
    }

    /// One Node by its exact name.
    pub fn entry(&self, name: &str) -> Option<&NodeEntry> {
        let entries = &self.0.entries;
        let at = entries
            .binary_search_by(|e| e.name.as_str().cmp(name))
            .ok()?;
        Some(&entries[at])
    }

    /// Which Node has this name, whatever the case (DNS names have none).
    pub fn by_name(&self, host: &str) -> Option<Named> {
        self.0.by_name.get(&normal(host)).copied()
    }

    /// Which Node has this address.
    pub fn by_address(&self, host: &str) -> Option<Named> {
        self.0.by_address.get(&normal(host)).copied()
    }

    /// Which Node has this name or hostname label, as `uname -n` prints it.
    pub fn by_nodename(&self, nodename: &str) -> Option<Named> {
        self.0.by_hostname.get(&normal(nodename)).copied()
    }
}

fn note(map: &mut HashMap<String, Named>, host: &str, i: usize) {
    map.entry(normal(host))
        .and_modify(|named| {
            if *named != Named::One(i) {
                *named = Named::Several;
            }
        })
        .or_insert(Named::One(i));
}

/// One spelling for each host: IP addresses as the standard library prints them, names in lower case.
fn normal(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().to_string(),
        Err(_) => host.to_ascii_lowercase(),
    }
}

/// The host part of an `instance`: without scheme, path, port and brackets.
pub(crate) fn host_of(instance: &str) -> &str {
    let rest = instance
        .split_once("://")
        .map_or(instance, |(_, rest)| rest);
    let rest = rest.split(['/', '?']).next().unwrap_or(rest);
    if let Some(bracketed) = rest.strip_prefix('[') {
        return bracketed.split(']').next().unwrap_or(bracketed);
    }
    match rest.rsplit_once(':') {
        // A bare IPv6 address has more than one colon and no port.
        Some((host, _)) if !host.contains(':') => host,
        _ => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_instance_is_found_in_every_spelling() {
        for (instance, host) in [
            ("10.0.0.1:9100", "10.0.0.1"),
            ("10.0.0.1", "10.0.0.1"),
            ("worker-1", "worker-1"),
            ("worker-1.example.com:9100", "worker-1.example.com"),
            ("[fd00::1]:9100", "fd00::1"),
            ("[fd00::1]", "fd00::1"),
            ("fd00::1", "fd00::1"),
            ("https://worker-1:10250/healthz?x=1", "worker-1"),
            ("http://[fd00::1]:80/", "fd00::1"),
            ("", ""),
            (":9100", ""),
            ("[", ""),
        ] {
            assert_eq!(host_of(instance), host, "{instance}");
        }
    }

    fn node(name: &str, uid: &str, addresses: &[&str]) -> NodeEntry {
        NodeEntry {
            name: name.into(),
            uid: uid.into(),
            created: Timestamp::UNIX_EPOCH,
            hostname: None,
            addresses: addresses.iter().map(|&a| a.to_owned()).collect(),
        }
    }

    #[test]
    fn addresses_match_in_every_spelling_and_shared_ones_mean_nobody() {
        let directory = NodeDirectory::new([
            node("b", "1", &["FD00:0:0::1", "10.9.9.9"]),
            node("a", "2", &["10.0.0.1", "10.9.9.9"]),
        ]);
        assert_eq!(directory.by_address("fd00::1"), Some(Named::One(1)));
        assert_eq!(directory.by_address("::ffff:10.0.0.1"), Some(Named::One(0)));
        assert_eq!(directory.by_address("10.9.9.9"), Some(Named::Several));
        assert_eq!(directory.by_name("A"), Some(Named::One(0)));
        assert_eq!(directory.by_name("c"), None);
    }

    #[test]
    fn of_two_entries_with_one_name_the_later_counts() {
        let directory = NodeDirectory::new([node("a", "old", &[]), node("a", "new", &[])]);
        assert_eq!(directory.entries().len(), 1);
        assert_eq!(directory.entry("a").unwrap().uid.as_str(), "new");
    }
}
