//! Holds a query against the metrics that the program exports.

use std::collections::BTreeSet;

use foreshock::alertmanager::AlertOutcome;
use foreshock::core::decision::plan::Cause;
use foreshock::core::decision::verdict::{HoldReason, Phase};
use foreshock::core::drain::{NodeOutcome, PodOutcome};
use foreshock::core::risk::Band;
use foreshock::metrics::{
    Counters, Described, Kind, METRICS, ReloadOutcome, TelemetryOutcome, WebhookOutcome,
    WriteOutcome,
};
use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{self, Expr, LabelModifier, VectorSelector};

/// Labels that a scrape or a federation adds.
const TARGET_LABELS: [&str; 3] = ["cluster", "job", "instance"];

/// Checks every selector, label and value of a query, and returns the metrics it reads.
#[track_caller]
pub(super) fn check(query: &str) -> BTreeSet<&'static str> {
    let (metrics, faults) = examine(query);
    assert!(faults.is_empty(), "{query}:\n{}", faults.join("\n"));
    metrics
}

/// The metric of this name in a query.
pub(super) fn metric(name: &str) -> Option<&'static Described> {
    METRICS.iter().find(|metric| match metric.kind {
        Kind::Histogram => name
            .strip_prefix(metric.name)
            .is_some_and(|end| ["_bucket", "_sum", "_count"].contains(&end)),
        Kind::Counter | Kind::Gauge | Kind::Info => metric.name == name,
    })
}

fn examine(query: &str) -> (BTreeSet<&'static str>, Vec<String>) {
    let mut walk = Walk::default();
    match parser::parse(&query.replace("$__rate_interval", "5m")) {
        Ok(expr) => {
            walk.expr(&expr, Context::default());
        }
        Err(error) => walk.faults.push(error),
    }
    (walk.metrics, walk.faults)
}

#[derive(Clone, Copy, Default)]
struct Context {
    /// Inside `max`, so that two leaders for a moment are not added up.
    max: bool,
    /// Directly inside `rate` or `increase`.
    rate: bool,
    /// Directly inside `absent`.
    absent: bool,
}

#[derive(Default)]
struct Walk {
    metrics: BTreeSet<&'static str>,
    faults: Vec<String>,
}

impl Walk {
    /// Returns the labels that the result can have.
    fn expr(&mut self, expr: &Expr, context: Context) -> BTreeSet<String> {
        match expr {
            Expr::Aggregate(aggregate) => {
                let op = aggregate.op.to_string();
                let inner = Context {
                    max: context.max || op == "max",
                    ..Context::default()
                };
                let below = self.expr(&aggregate.expr, inner);
                let by: BTreeSet<String> = match &aggregate.modifier {
                    Some(LabelModifier::Include(labels)) => labels.labels.iter().cloned().collect(),
                    Some(LabelModifier::Exclude(_)) => {
                        self.faults
                            .push("`without` keeps labels nobody thought of".into());
                        BTreeSet::new()
                    }
                    None => BTreeSet::new(),
                };
                for label in by.difference(&below) {
                    self.faults.push(format!("no label {label} below {op}"));
                }
                if op == "topk" { below } else { by }
            }
            Expr::Binary(binary) => {
                let mut left = self.expr(&binary.lhs, context);
                let right = self.expr(&binary.rhs, context);
                let matching = binary.modifier.as_ref().and_then(|m| m.matching.as_ref());
                if let Some(LabelModifier::Include(labels)) = matching {
                    for label in &labels.labels {
                        if !left.contains(label) || !right.contains(label) {
                            self.faults
                                .push(format!("on ({label}) without such a label"));
                        }
                    }
                }
                left.extend(right);
                left
            }
            Expr::Call(call) => {
                let inner = Context {
                    rate: ["rate", "increase"].contains(&call.func.name),
                    absent: call.func.name == "absent",
                    ..context
                };
                let args = call.args.args.iter();
                args.flat_map(|arg| self.expr(arg, inner)).collect()
            }
            Expr::MatrixSelector(matrix) => self.selector(&matrix.vs, context, true),
            Expr::VectorSelector(selector) => self.selector(selector, context, false),
            Expr::Paren(paren) => self.expr(&paren.expr, context),
            Expr::Unary(unary) => self.expr(&unary.expr, context),
            Expr::Subquery(subquery) => self.expr(&subquery.expr, context),
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => BTreeSet::new(),
        }
    }

    fn selector(
        &mut self,
        selector: &VectorSelector,
        context: Context,
        range: bool,
    ) -> BTreeSet<String> {
        let name = selector.name.as_deref().unwrap_or_default();
        let Some(metric) = metric(name) else {
            self.faults.push(format!("nothing exports {name:?}"));
            return BTreeSet::new();
        };
        self.metrics.insert(metric.name);
        let counts = matches!(metric.kind, Kind::Counter | Kind::Histogram);
        if counts != (range && context.rate) {
            self.faults.push(format!(
                "counters, and only they, belong into rate(): {name}"
            ));
        }
        if metric.labels.contains(&"node") && !context.max {
            self.faults.push(format!("{name} outside max by (node)"));
        }
        if metric.kind == Kind::Info && !context.absent {
            self.faults.push(format!("{name} is always 1"));
        }
        let mut labels: BTreeSet<String> = TARGET_LABELS.map(str::to_owned).into();
        labels.extend(metric.labels.iter().map(|label| (*label).to_owned()));
        if name.ends_with("_bucket") {
            labels.insert("le".into());
        }
        for matcher in &selector.matchers.matchers {
            if !labels.contains(&matcher.name) {
                self.faults
                    .push(format!("{name} has no label {}", matcher.name));
            }
            for value in impossible_values(metric, matcher) {
                self.faults
                    .push(format!("{} is never {value:?}", matcher.name));
            }
        }
        labels
    }
}

/// Values that are asked for and that the label never has; a variable of a dashboard may be any.
fn impossible_values(metric: &Described, matcher: &Matcher) -> Vec<String> {
    let Some(possible) = possible_values(metric, &matcher.name) else {
        return Vec::new();
    };
    let asked: Vec<&str> = match &matcher.op {
        MatchOp::Equal | MatchOp::NotEqual => vec![&matcher.value],
        MatchOp::Re(_) | MatchOp::NotRe(_) => matcher.value.split('|').collect(),
    };
    asked
        .into_iter()
        .filter(|value| !value.starts_with('$') && !possible.contains(value))
        .map(str::to_owned)
        .collect()
}

fn possible_values(metric: &Described, label: &str) -> Option<Vec<&'static str>> {
    let pods = PodOutcome::ALL.map(PodOutcome::as_str);
    Some(match (label, metric.name) {
        ("phase", _) => Phase::ALL.map(Phase::as_str).into(),
        ("band", _) => Band::ALL.map(Band::as_str).into(),
        ("reason", _) => HoldReason::ALL.map(HoldReason::as_str).into(),
        ("action", _) => Cause::ALL.map(Cause::as_str).into(),
        ("stage", _) => vec![Counters::STAGE_TOTAL],
        ("dependency", _) => vec!["prometheus", "kubernetes"],
        ("outcome", "foreshock_taints_total") => WriteOutcome::ALL.map(WriteOutcome::as_str).into(),
        ("outcome", "foreshock_evictions_total") => pods.into(),
        ("outcome", "foreshock_drains_total") => {
            let drained = [NodeOutcome::Drained.as_str()];
            drained.into_iter().chain(pods).collect()
        }
        ("outcome", "foreshock_alerts_received_total") => {
            AlertOutcome::ALL.map(AlertOutcome::as_str).into()
        }
        ("outcome", "foreshock_webhook_requests_total") => {
            WebhookOutcome::ALL.map(WebhookOutcome::as_str).into()
        }
        ("outcome", "foreshock_feature_snapshots_total") => {
            TelemetryOutcome::ALL.map(TelemetryOutcome::as_str).into()
        }
        ("outcome", "foreshock_model_reloads_total") => {
            ReloadOutcome::ALL.map(ReloadOutcome::as_str).into()
        }
        ("outcome", other) => panic!("which outcomes has {other}?"),
        _ => return None,
    })
}

#[test]
fn the_check_finds_what_is_wrong_with_a_query() {
    for (query, expected) in [
        ("foreshock_nodes_total", "nothing exports"),
        (r#"foreshock_nodes{zone="a"}"#, "has no label zone"),
        (r#"foreshock_nodes{band="risky"}"#, r#"never "risky""#),
        (
            r#"foreshock_nodes{band=~"unknown|risky"}"#,
            r#"never "risky""#,
        ),
        (
            "max by (nodes) (foreshock_node_risk_ratio)",
            "no label nodes",
        ),
        ("sum by (node) (foreshock_node_risk_ratio)", "outside max"),
        ("foreshock_node_risk_ratio > 0.5", "outside max"),
        ("max without (pod) (foreshock_storm)", "`without`"),
        ("foreshock_evictions_total > 0", "into rate()"),
        ("sum(rate(foreshock_leader[5m]))", "into rate()"),
        (
            "max_over_time(foreshock_evictions_total[5m])",
            "into rate()",
        ),
        ("foreshock_storm * on (node) foreshock_leader", "on (node)"),
        ("foreshock_build_info == 1", "always 1"),
        (
            "sum(rate(foreshock_cycle_duration_seconds[5m]))",
            "nothing exports",
        ),
        ("foreshock_storm ==", "invalid"),
    ] {
        let (_, faults) = examine(query);
        let found = faults.iter().any(|fault| fault.contains(expected));
        assert!(found, "{query}: {faults:?}");
    }
}
