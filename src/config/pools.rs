//! `[[policy.pools]]` and `windows`: which Nodes have rules of their own, and when drains may start.

use std::collections::BTreeMap;

use foreshock_core::decision::policy::{Pool, PoolLimits, Rules};
use foreshock_core::decision::window::Window;
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;

use super::policy::{optional_limit, rules};
use super::read::Section;
use crate::kubernetes::selector::LabelSelector;

/// Pools that a configuration may have: far more than anybody could keep apart.
const POOLS_MAX: usize = 100;
/// Windows of one pool.
const WINDOWS_MAX: usize = 100;

const DAYS: [(&str, Weekday); 7] = [
    ("Mon", Weekday::Monday),
    ("Tue", Weekday::Tuesday),
    ("Wed", Weekday::Wednesday),
    ("Thu", Weekday::Thursday),
    ("Fri", Weekday::Friday),
    ("Sat", Weekday::Saturday),
    ("Sun", Weekday::Sunday),
];

/// Which pool a Node is in: the first whose selector matches its labels.
#[derive(Clone, Debug, Default)]
pub struct PoolSelectors(Vec<(String, LabelSelector)>);

impl PoolSelectors {
    /// The name of the pool of a Node with these labels, if it is in one.
    pub fn pool_of(&self, labels: &BTreeMap<String, String>) -> Option<&str> {
        self.0
            .iter()
            .find(|(_, selector)| selector.matches(labels))
            .map(|(name, _)| name.as_str())
    }
}

/// Reads `[[policy.pools]]`. A key that a pool does not set is the policy's.
pub(super) fn pools(section: &mut Section<'_>, policy: &Rules) -> (Vec<Pool>, PoolSelectors) {
    let mut selectors = PoolSelectors::default();
    let mut names: Vec<String> = Vec::new();
    let pools = section.tables("pools", |section| {
        let name = section.text("name", "");
        if name.is_empty() || name.len() > 63 || name.chars().any(char::is_control) {
            section.fault(
                "name",
                "is missing: what the pool is called, such as \"gpu\"",
            );
        } else if names.contains(&name) {
            section.fault("name", format!("another pool is called {name:?} as well"));
        }
        names.push(name.clone());
        match LabelSelector::parse(&section.text("selector", "")) {
            Ok(selector) => selectors.0.push((name.clone(), selector)),
            Err(error) => section.fault("selector", error.to_string()),
        }
        let rules = rules(section, policy);
        let limits = section.table("limits", |section| PoolLimits {
            tainted_max: optional_limit(section, "tainted_max"),
            draining_max: optional_limit(section, "draining_max"),
            drains_per_hour: (!section.is_missing("drains_per_hour"))
                .then(|| section.count("drains_per_hour", 0, 0, 300)),
        });
        Pool {
            name,
            rules,
            limits,
        }
    });
    if pools.len() > POOLS_MAX {
        section.fault("pools", format!("more than {POOLS_MAX} pools"));
    }
    (pools, selectors)
}

/// Reads `windows`, or takes the defaults where the key is not set.
pub(super) fn windows(section: &mut Section<'_>, default: &[Window]) -> Vec<Window> {
    if section.is_missing("windows") {
        return default.to_vec();
    }
    let windows = section.tables("windows", |section| {
        let days: Vec<Option<Weekday>> = section
            .texts("days", &[])
            .iter()
            .map(|day| {
                let known = DAYS.iter().find(|(name, _)| name == day);
                if known.is_none() {
                    section.fault(
                        "days",
                        format!("has to be a list of Mon, Tue, Wed, Thu, Fri, Sat and Sun, got {day:?} in it"),
                    );
                }
                known.map(|(_, weekday)| *weekday)
            })
            .collect();
        let (from, to) = (time(section, "from"), time(section, "to"));
        let zone = section.text("time_zone", "UTC");
        let time_zone = TimeZone::get(&zone).unwrap_or_else(|_| {
            section.fault(
                "time_zone",
                format!("has to be a name such as \"Europe/Berlin\" or \"UTC\", got {zone:?}"),
            );
            TimeZone::UTC
        });
        if from == to {
            section.fault("to", "is the same as `from`; leave the windows out for \"always\"");
        }
        Window {
            days: days.into_iter().flatten().collect(),
            from,
            to,
            time_zone,
        }
    });
    if windows.len() > WINDOWS_MAX {
        section.fault("windows", format!("more than {WINDOWS_MAX} windows"));
    }
    windows
}

fn time(section: &mut Section<'_>, key: &'static str) -> Time {
    let text = section.text(key, "");
    let parsed = (text.len() == 5)
        .then(|| Time::strptime("%H:%M", &text).ok())
        .flatten();
    parsed.unwrap_or_else(|| {
        section.fault(
            key,
            format!("has to be a time of day such as \"22:00\", got {text:?}"),
        );
        Time::midnight()
    })
}
