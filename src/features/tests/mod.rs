//! Tests of the rules about what counts as a value, by area.

mod assemble;
mod history;
mod identity;
mod schema;

use jiff::Timestamp;

use super::directory::NodeEntry;

/// The evaluation time of all tests.
fn at() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn ago(seconds: i64) -> Timestamp {
    Timestamp::from_second(at().as_second() - seconds).unwrap()
}

/// A Node that is 30 days old.
fn node(name: &str, hostname: &str, addresses: &[&str]) -> NodeEntry {
    NodeEntry {
        name: name.into(),
        uid: name.into(),
        created: ago(30 * 86_400),
        hostname: (!hostname.is_empty()).then(|| hostname.to_owned()),
        addresses: addresses.iter().map(|&a| a.to_owned()).collect(),
    }
}
