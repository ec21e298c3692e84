//! `[policy]`, `[eviction]` and `[alerts]`: what the operator allows.

use std::time::Duration;

use config::ValueKind;
use foreshock_core::decision::policy::{ControlPlane, Limit, Limits, Policy, Reach, Rules};
use foreshock_core::drain::{Choice, DrainRules, Pace};
use foreshock_core::record::{Taint, TaintEffect};
use foreshock_core::risk::Risk;

use super::pools::{self, PoolSelectors};
use super::read::Section;
use crate::alertmanager::{AlertRule, AlertRules, Matcher};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const MONTH: Duration = Duration::from_secs(31 * 86_400);

const REACHES: [(&str, Reach); 4] = [
    ("observe", Reach::Observe),
    ("label", Reach::Label),
    ("taint", Reach::Taint),
    ("evict", Reach::Evict),
];

/// Reads `[policy]`. What depends on other sections is filled in by the caller.
pub(super) fn policy(
    section: &mut Section<'_>,
    marks_per_second: &mut u32,
) -> (Policy, PoolSelectors) {
    let rules = rules(section, &default_rules());
    let (pools, selectors) = pools::pools(section, &rules);
    let policy = Policy {
        instance: String::new(),
        model_trusted: false,
        score_age_max: MINUTE,
        facts_age_max: MINUTE,
        rules,
        limits: section.table("limits", |section| limits(section, marks_per_second)),
        pools,
        drain: DrainRules {
            grace_cap: None,
            deadline: 15 * MINUTE,
            pod_deadline: 10 * MINUTE,
            pace: Pace::Owner,
            surge: false,
            unmanaged: Choice::Leave,
            empty_dir: Choice::Leave,
            local_volumes: Choice::Leave,
            devices: Choice::Evict,
            kube_system: Choice::Leave,
            opted_out: Choice::Leave,
            orphaned_daemon_set: Choice::Leave,
        },
    };
    (policy, selectors)
}

fn default_rules() -> Rules {
    let taint = |value: &str, effect| Taint {
        key: "degradation".into(),
        value: value.into(),
        effect,
    };
    Rules {
        reach: Reach::Observe,
        at_risk: risk(0.65),
        caution: risk(0.5),
        recover_below: risk(0.5),
        confirm_for: 45 * SECOND,
        drain_after: MINUTE,
        recover_for: 10 * MINUTE,
        probation: HOUR,
        repeat_max: 2,
        repeat_window: DAY,
        veto_for: DAY,
        tainted_for_max: 6 * HOUR,
        new_node_age: 10 * MINUTE,
        taint: taint("true", TaintEffect::NoSchedule),
        caution_taint: Some(taint("caution", TaintEffect::PreferNoSchedule)),
        control_plane: ControlPlane::Exclude,
        windows: Vec::new(),
    }
}

/// Reads the rules for some Nodes. What is not set is as in `default`.
pub(super) fn rules(section: &mut Section<'_>, default: &Rules) -> Rules {
    let at_risk = section.number("at_risk", default.at_risk.as_f64(), 0.0, 1.0);
    let caution = section.number("caution", default.caution.as_f64(), 0.0, 1.0);
    let recover_below = section.number("recover_below", default.recover_below.as_f64(), 0.0, 1.0);
    let of_at_risk = section.path_of("at_risk");
    for (key, value) in [("caution", caution), ("recover_below", recover_below)] {
        if value > at_risk {
            section.fault(
                key,
                format!("must not exceed `{of_at_risk}` ({at_risk}), got {value}"),
            );
        }
    }
    let taint = taint(section, "taint", &default.taint);
    let caution_taint = taint_or_none(section, "caution_taint", default.caution_taint.as_ref());
    if caution_taint
        .as_ref()
        .is_some_and(|caution| caution.collides_with(&taint))
    {
        let of_taint = section.path_of("taint");
        section.fault(
            "caution_taint",
            format!("must differ from `{of_taint}` in its key or its effect"),
        );
    }
    if section.switch("condition", false) {
        section.fault("condition", NOT_BUILT);
    }
    Rules {
        reach: section.one_of("reach", default.reach, &REACHES),
        at_risk: risk(at_risk),
        caution: risk(caution),
        recover_below: risk(recover_below),
        confirm_for: section.duration("confirm_for", default.confirm_for, Duration::ZERO, HOUR),
        drain_after: section.duration("drain_after", default.drain_after, Duration::ZERO, DAY),
        recover_for: section.duration("recover_for", default.recover_for, Duration::ZERO, DAY),
        probation: section.duration("probation", default.probation, Duration::ZERO, MONTH),
        repeat_max: section.count("repeat_max", default.repeat_max, 0, 15),
        repeat_window: section.duration("repeat_window", default.repeat_window, MINUTE, MONTH),
        veto_for: section.duration("veto_for", default.veto_for, Duration::ZERO, MONTH),
        tainted_for_max: section.duration(
            "tainted_for_max",
            default.tainted_for_max,
            MINUTE,
            MONTH,
        ),
        new_node_age: section.duration("new_node_age", default.new_node_age, Duration::ZERO, DAY),
        taint,
        caution_taint,
        control_plane: section.one_of(
            "control_plane",
            default.control_plane,
            &[
                ("exclude", ControlPlane::Exclude),
                ("include", ControlPlane::Include),
            ],
        ),
        windows: pools::windows(section, &default.windows),
    }
}

/// Keys of the design whose behaviour this version does not have: refused when set, listed by `check`.
pub(super) const UNBUILT: [&str; 1] = ["policy.condition"];

const NOT_BUILT: &str = "is not built into this version yet; remove the key";

fn limits(section: &mut Section<'_>, marks_per_second: &mut u32) -> Limits {
    *marks_per_second = section.count("marks_per_second", 5, 1, 1000);
    let share = limit(section, "storm_share", Limit::Percent(20.0));
    let storm_share = match share {
        Limit::Percent(percent) => percent / 100.0,
        Limit::Count(_) => {
            section.fault(
                "storm_share",
                "has to be a percentage in quotes, such as \"20%\"; the count is `storm_min`",
            );
            0.2
        }
    };
    Limits {
        tainted_max: limit(section, "tainted_max", Limit::Percent(10.0)),
        draining_max: limit(section, "draining_max", Limit::Count(1)),
        drains_per_hour: // The record on the Lease has to list them: 300 of the longest names are within its bounds.
        section.count("drains_per_hour", 6, 0, 300),
        zone_tainted_max: optional_limit(section, "zone_tainted_max"),
        zone_draining_max: optional_limit(section, "zone_draining_max"),
        storm_share,
        storm_min: section.count("storm_min", 3, 1, 10_000),
        storm_window: section.duration("storm_window", 5 * MINUTE, SECOND, DAY),
    }
}

fn limit(section: &mut Section<'_>, key: &'static str, default: Limit) -> Limit {
    optional_limit(section, key).unwrap_or(default)
}

/// A limit; `None` where it is not set or empty.
pub(super) fn optional_limit(section: &mut Section<'_>, key: &'static str) -> Option<Limit> {
    let value = section.take(key)?;
    let parsed = match &value.kind {
        ValueKind::String(text) if text.is_empty() => return None,
        ValueKind::I64(n) => u32::try_from(*n).ok().map(Limit::Count),
        ValueKind::U64(n) => u32::try_from(*n).ok().map(Limit::Count),
        ValueKind::String(text) => match text.strip_suffix('%') {
            Some(percent) => percent
                .trim()
                .parse()
                .ok()
                .filter(|percent| (0.0..=100.0).contains(percent))
                .map(Limit::Percent),
            None => text.parse().ok().map(Limit::Count),
        },
        _ => None,
    };
    if parsed.is_none() {
        section.fault(
            key,
            format!("has to be a count, or a percentage in quotes such as \"10%\", got {value}"),
        );
    }
    parsed
}

fn risk(p: f64) -> Risk {
    Risk::new(p).unwrap_or(Risk::ZERO)
}

fn taint_or_none(
    section: &mut Section<'_>,
    key: &'static str,
    default: Option<&Taint>,
) -> Option<Taint> {
    if section.is_missing(key) {
        // Asked for, so that it counts as known.
        section.take(key);
        return default.cloned();
    }
    let text = section.text(key, "");
    if text.is_empty() {
        None
    } else {
        parse_taint(section, key, &text)
    }
}

fn taint(section: &mut Section<'_>, key: &'static str, default: &Taint) -> Taint {
    let text = section.text(key, &default.to_string());
    parse_taint(section, key, &text).unwrap_or_else(|| default.clone())
}

fn parse_taint(section: &mut Section<'_>, key: &'static str, text: &str) -> Option<Taint> {
    let parts = text
        .rsplit_once(':')
        .map(|(left, effect)| (left.split_once('=').unwrap_or((left, "")), effect));
    let Some(((name, value), effect)) = parts else {
        section.fault(
            key,
            format!(
                "has to be key=value:effect, such as degradation=true:NoSchedule, got {text:?}"
            ),
        );
        return None;
    };
    let effect = match effect {
        "NoSchedule" => TaintEffect::NoSchedule,
        "PreferNoSchedule" => TaintEffect::PreferNoSchedule,
        "NoExecute" => {
            section.fault(
                key,
                "NoExecute is refused: it deletes Pods past their PodDisruptionBudgets",
            );
            return None;
        }
        other => {
            section.fault(
                key,
                format!("has an unknown effect {other:?}; use NoSchedule or PreferNoSchedule"),
            );
            return None;
        }
    };
    if let Err(problem) = qualified_name(name).and_then(|()| label_value(value)) {
        section.fault(key, problem);
        return None;
    }
    Some(Taint {
        key: name.to_owned(),
        value: value.to_owned(),
        effect,
    })
}

/// What Kubernetes accepts as the key of a taint or label: `[prefix/]name`.
fn qualified_name(name: &str) -> Result<(), String> {
    let (prefix, base) = name
        .split_once('/')
        .map_or((None, name), |(prefix, base)| (Some(prefix), base));
    let prefix_fits = prefix.is_none_or(|prefix| {
        (1..=253).contains(&prefix.len())
            && prefix.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte)
            })
    });
    if base.is_empty() || !prefix_fits || label_value(base).is_err() {
        return Err(format!(
            "has a key that Kubernetes does not accept: {name:?}"
        ));
    }
    Ok(())
}

/// What Kubernetes accepts as the value of a taint or label.
fn label_value(value: &str) -> Result<(), String> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let ends = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
    let fits = value.len() <= 63
        && value.bytes().all(inner)
        && ends(value.bytes().next())
        && ends(value.bytes().last());
    if fits {
        Ok(())
    } else {
        Err(format!(
            "has a value that Kubernetes does not accept: {value:?}"
        ))
    }
}

/// Reads `[eviction]` and gives the rate.
pub(super) fn eviction(section: &mut Section<'_>, rules: &mut DrainRules) -> u32 {
    let choices = [("leave", Choice::Leave), ("evict", Choice::Evict)];
    let grace = section.text("grace_period", "pod");
    rules.grace_cap = match grace.as_str() {
        "pod" => None,
        text => match humantime::parse_duration(text) {
            Ok(cap) if cap >= SECOND => Some(cap),
            Ok(_) => {
                section.fault(
                    "grace_period",
                    "has to be \"pod\" or at least \"1s\": zero would kill without asking",
                );
                None
            }
            Err(_) => {
                section.fault(
                    "grace_period",
                    format!("has to be \"pod\" or a time such as \"30s\", got {text:?}"),
                );
                None
            }
        },
    };
    rules.deadline = section.duration("deadline", 15 * MINUTE, 10 * SECOND, DAY);
    rules.pod_deadline = section.duration(
        "pod_deadline",
        (10 * MINUTE).min(rules.deadline),
        SECOND,
        DAY,
    );
    if rules.pod_deadline > rules.deadline {
        let deadline = humantime::format_duration(rules.deadline);
        section.fault(
            "pod_deadline",
            format!("must not exceed `eviction.deadline` ({deadline})"),
        );
    }
    rules.unmanaged = section.one_of("unmanaged", Choice::Leave, &choices);
    rules.empty_dir = section.one_of("empty_dir", Choice::Leave, &choices);
    rules.local_volumes = section.one_of("local_volumes", Choice::Leave, &choices);
    rules.devices = section.one_of("devices", Choice::Evict, &choices);
    rules.kube_system = section.one_of("kube_system", Choice::Leave, &choices);
    rules.opted_out = section.one_of("opted_out", Choice::Leave, &choices);
    rules.orphaned_daemon_set = section.one_of("orphaned_daemon_set", Choice::Leave, &choices);
    rules.pace = section.one_of(
        "pace",
        Pace::Owner,
        &[("owner", Pace::Owner), ("budget", Pace::Budget)],
    );
    rules.surge = section.switch("surge", false);
    section.count("rate", 20, 1, 1000)
}

/// Reads `[alerts]`.
pub(super) fn alerts(section: &mut Section<'_>) -> AlertRules {
    let node_labels = section.texts(
        "node_labels",
        &[
            "foreshock_node",
            "exported_node",
            "node",
            "kubernetes_node",
            "nodename",
            "instance",
        ],
    );
    let rules = section.tables("rules", |rule| {
        let texts = rule.texts("match", &[]);
        if texts.is_empty() {
            rule.fault(
                "match",
                "needs at least one matcher, such as 'alertname=\"NodeMemoryMajorPagesFaults\"'",
            );
        }
        let mut matchers = Vec::new();
        for text in texts {
            match Matcher::parse(&text) {
                Ok(matcher) => matchers.push(matcher),
                Err(error) => rule.fault("match", on_one_line(&error.to_string())),
            }
        }
        if rule.is_missing("floor") {
            rule.fault(
                "floor",
                "is missing: the least risk while the alert is active, such as 0.8",
            );
        }
        AlertRule {
            matchers,
            floor: risk(rule.number("floor", 0.0, 0.0, 1.0)),
            reach: rule.one_of("reach", Reach::Label, &REACHES),
            expire: rule.duration("expire", 5 * HOUR, SECOND, MONTH),
        }
    });
    AlertRules { node_labels, rules }
}

/// Regular expressions explain themselves with a drawing of several lines; a fault is a line in a list.
fn on_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
