//! A score that anyone can work out by hand: the yardstick beside the model.
//!
//! Each rule says how alarming one feature is: nothing below `from`, its full `weight` from `full`
//! on, in proportion between. The rules are joined by noisy-or: `1 − Π (1 − alarm)`, as if each
//! were an independent reason. It is not calibrated and never acts; a model that is not better than
//! this has no business acting either.

use foreshock_core::risk::Risk;

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// The feature, in the unit of the built-in schema.
    pub feature: &'static str,
    /// Up to here the feature says nothing.
    pub from: f64,
    /// From here on it says all it can.
    pub full: f64,
    /// How much that is, in `0.0..=1.0`.
    pub weight: f64,
}

const fn rule(feature: &'static str, from: f64, full: f64, weight: f64) -> Rule {
    Rule {
        feature,
        from,
        full,
        weight,
    }
}

/// All rules; `docs/model.md` shows them as a table.
pub const RULES: [Rule; 17] = [
    rule("psi_mem", 0.05, 0.4, 0.9),
    rule("mem_used", 0.92, 0.99, 0.6),
    rule("oom_kills", 1.0, 6.0, 0.5),
    rule("psi_io", 0.2, 0.7, 0.8),
    rule("disk_await_read", 0.08, 0.4, 0.7),
    rule("disk_await_write", 0.08, 0.4, 0.7),
    rule("procs_blocked", 2.0, 10.0, 0.5),
    rule("fs_used", 0.93, 0.99, 0.85),
    rule("fs_broken", 0.0, 1.0, 0.5),
    rule("tcp_retrans_ratio", 0.03, 0.1, 0.7),
    rule("net_error_ratio", 0.005, 0.05, 0.6),
    rule("net_probe_loss", 0.05, 0.3, 0.7),
    rule("cpu_steal", 0.3, 0.6, 0.7),
    rule("load_per_core", 5.0, 12.0, 0.6),
    rule("temp_vs_crit", 0.95, 1.0, 0.8),
    rule("reboots", 1.0, 4.0, 0.6),
    rule("edac_ue", 0.0, 1.0, 0.7),
];

/// The rule score of a Node whose features `value` gives; `None` if no rule finds a value.
pub fn rule_score(value: impl Fn(&str) -> Option<f64>) -> Option<Risk> {
    let mut healthy = None;
    for Rule {
        feature,
        from,
        full,
        weight,
    } in RULES
    {
        if let Some(value) = value(feature).filter(|value| value.is_finite()) {
            let alarm = weight * ((value - from) / (full - from)).clamp(0.0, 1.0);
            healthy = Some(healthy.unwrap_or(1.0) * (1.0 - alarm));
        }
    }
    Risk::new(1.0 - healthy?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Schema;

    fn score(values: &[(&str, f64)]) -> Option<f64> {
        let find = |name: &str| values.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
        rule_score(find).map(Risk::as_f64)
    }

    #[test]
    fn rules_add_up_as_independent_reasons() {
        assert_eq!(score(&[]), None);
        assert_eq!(score(&[("mem_used", f64::NAN)]), None);
        assert_eq!(score(&[("mem_used", 0.5), ("psi_io", 0.1)]), Some(0.0));
        let close = |a: Option<f64>, b: f64| assert!((a.unwrap() - b).abs() < 1e-12, "{a:?} {b}");
        close(score(&[("psi_io", 0.45)]), 0.4);
        close(
            score(&[("psi_io", 0.45), ("disk_await_write", 9.0)]),
            1.0 - 0.6 * 0.3,
        );
    }

    #[test]
    fn every_rule_is_about_a_feature_and_can_be_reached() {
        let schema = Schema::built_in();
        for rule in RULES {
            let feature = schema.feature(rule.feature).expect(rule.feature);
            assert!(feature.min <= rule.from && rule.from < rule.full && rule.full <= feature.max);
            assert!(rule.weight > 0.0 && rule.weight < 1.0);
        }
    }
}
