//! From a feature's query with placeholders to PromQL that can be sent.

use std::time::Duration;

use promql_parser::label::{Matcher, Matchers};
use promql_parser::parser::{self, Expr};

use super::options::{OptionFault, PrometheusOptions};

/// Fills in placeholders and adds `prometheus.matchers` to every vector selector.
#[derive(Clone, Debug)]
pub(super) struct Renderer {
    selector: String,
    devices: String,
    interfaces: String,
    filesystems: String,
    rate_window: String,
    matchers: Vec<Matcher>,
}

impl Renderer {
    /// # Errors
    ///
    /// Every option that is not a list of label matchers, or not a window.
    pub(super) fn new(options: &PrometheusOptions) -> Result<Self, Vec<OptionFault>> {
        let mut faults = Vec::new();
        let mut matchers = |key: &str, text: &str| {
            parse_matchers(text).unwrap_or_else(|problem| {
                faults.push(OptionFault::new(key, problem));
                Vec::new()
            })
        };
        matchers("selector", &options.selector);
        matchers("devices", &options.devices);
        matchers("interfaces", &options.interfaces);
        matchers("filesystems", &options.filesystems);
        let matchers = matchers("matchers", &options.matchers);
        if options.rate_window < Duration::from_secs(1) {
            faults.push(OptionFault::new("rate_window", "must be at least 1s"));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let trimmed = |text: &str| text.trim().trim_end_matches(',').trim_end().to_owned();
        Ok(Self {
            selector: trimmed(&options.selector),
            devices: trimmed(&options.devices),
            interfaces: trimmed(&options.interfaces),
            filesystems: trimmed(&options.filesystems),
            rate_window: duration(options.rate_window),
            matchers,
        })
    }

    /// The query to send.
    ///
    /// Without `matchers` the text goes out as it was written: the server may know functions that
    /// our parser does not. With them, it has to be understood first.
    ///
    /// # Errors
    ///
    /// Why the matchers cannot be added.
    pub(super) fn render(&self, promql: &str) -> Result<String, String> {
        let filled = self.fill(promql);
        if self.matchers.is_empty() {
            return Ok(filled);
        }
        let mut expr = parse(&filled)?;
        each_selector(&mut expr, &mut |_, selector| add(selector, &self.matchers));
        let rendered = expr.to_string();
        // The printer is not ours: a query that does not survive it would ask for something else.
        let survives = parse(&rendered).is_ok_and(|mut again| {
            each_selector(&mut again, &mut |_, selector| add(selector, &[]));
            again == expr
        });
        let remedy = "`prometheus.matchers` cannot be added to it; write them in";
        survives
            .then_some(rendered)
            .ok_or_else(|| remedy.to_owned())
    }

    fn fill(&self, promql: &str) -> String {
        let mut filled = String::with_capacity(promql.len() + 200);
        let mut rest = promql;
        while let Some((before, after)) = rest.split_once('$') {
            filled.push_str(before);
            let end = after
                .find(|c: char| !c.is_ascii_uppercase())
                .unwrap_or(after.len());
            let value = match &after[..end] {
                "S" => &self.selector,
                "D" => &self.devices,
                "N" => &self.interfaces,
                "F" => &self.filesystems,
                "W" => &self.rate_window,
                // `$1` and `${name}` of label_replace, and the end of a regular expression.
                _ => {
                    filled.push('$');
                    rest = after;
                    continue;
                }
            };
            rest = &after[end..];
            filled.push_str(value);
            if value.is_empty() {
                // `{$S,mode="idle"}` and `{mode="idle",$S}` must not keep a comma for nothing.
                match rest.trim_start().strip_prefix(',') {
                    Some(shorter) => rest = shorter,
                    None if filled.trim_end().ends_with(',') => {
                        filled.truncate(filled.trim_end().len() - 1);
                    }
                    None => {}
                }
            }
        }
        filled.push_str(rest);
        filled
    }
}

/// A duration as PromQL writes it: `5m`, `90s`, `1500ms`.
pub(super) fn duration(duration: Duration) -> String {
    let ms = duration.as_millis().max(1);
    let whole = [(3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];
    let (unit, name) = whole
        .into_iter()
        .find(|(unit, _)| ms.is_multiple_of(*unit))
        .unwrap_or((1, "ms"));
    format!("{}{name}", ms / unit)
}

/// Whether a query reads a metric for which `is` holds; `None` if our parser cannot read the query.
pub(super) fn reads(promql: &str, is: impl Fn(&str) -> bool) -> Option<bool> {
    let mut expr = parse(promql).ok()?;
    let mut found = false;
    each_selector(&mut expr, &mut |name, matchers| {
        let named = name.is_some_and(&is);
        let mut all = matchers
            .matchers
            .iter()
            .chain(matchers.or_matchers.iter().flatten());
        // A pattern is good enough when its text would do: `__name__=~"foreshock_.*"`.
        found |= named || all.any(|m| m.name == "__name__" && is(&m.value));
    });
    Some(found)
}

fn parse(promql: &str) -> Result<Expr, String> {
    parser::parse(promql).map_err(|e| format!("is no PromQL that could be read: {e}"))
}

fn parse_matchers(text: &str) -> Result<Vec<Matcher>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    // A brace in the text would close the selector and open whatever follows; then the whole is
    // no plain selector any more.
    match parser::parse(&format!("x{{{text}}}")) {
        Ok(Expr::VectorSelector(selector))
            if selector.offset.is_none()
                && selector.at.is_none()
                && selector.matchers.or_matchers.is_empty()
                && !selector.matchers.matchers.is_empty() =>
        {
            Ok(selector.matchers.matchers)
        }
        Ok(_) | Err(_) => Err(format!(
            "must be label matchers such as job=\"node\", got {text:?}"
        )),
    }
}

/// Adds matchers to every alternative of a selector, in the printer's order.
fn add(selector: &mut Matchers, added: &[Matcher]) {
    if selector.or_matchers.is_empty() {
        selector.matchers.extend_from_slice(added);
    }
    selector.matchers.sort_by_key(Matcher::to_string);
    for alternative in &mut selector.or_matchers {
        alternative.extend_from_slice(added);
    }
}

/// Walks to every vector and range selector. Our own walk, because that of the parser leaves out the
/// parameters of aggregations.
fn each_selector(expr: &mut Expr, visit: &mut impl FnMut(Option<&str>, &mut Matchers)) {
    match expr {
        Expr::Aggregate(aggregate) => {
            each_selector(&mut aggregate.expr, visit);
            if let Some(param) = &mut aggregate.param {
                each_selector(param, visit);
            }
        }
        Expr::Unary(unary) => each_selector(&mut unary.expr, visit),
        Expr::Binary(binary) => {
            each_selector(&mut binary.lhs, visit);
            each_selector(&mut binary.rhs, visit);
        }
        Expr::Paren(paren) => each_selector(&mut paren.expr, visit),
        Expr::Subquery(subquery) => each_selector(&mut subquery.expr, visit),
        Expr::Call(call) => {
            for arg in &mut call.args.args {
                each_selector(arg, visit);
            }
        }
        Expr::VectorSelector(selector) => visit(selector.name.as_deref(), &mut selector.matchers),
        Expr::MatrixSelector(selector) => {
            visit(selector.vs.name.as_deref(), &mut selector.vs.matchers);
        }
        // Extensions are made by users of the parser, never by it.
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Schema;

    fn renderer(change: impl FnOnce(&mut PrometheusOptions)) -> Renderer {
        let mut options = PrometheusOptions::default();
        change(&mut options);
        Renderer::new(&options).unwrap()
    }

    #[test]
    fn every_built_in_query_is_promql_after_filling_also_with_empty_options() {
        let full = renderer(|_| {});
        let empty = renderer(|o| {
            o.selector = String::new();
            o.devices = String::new();
            o.interfaces = " ".into();
            o.filesystems = String::new();
        });
        for feature in Schema::built_in().features() {
            for renderer in [&full, &empty] {
                let promql = renderer.render(&feature.promql).unwrap();
                assert!(!promql.contains('$'), "{}: {promql}", feature.name);
                if let Err(e) = parse(&promql) {
                    panic!("{}: {e}\n{promql}", feature.name);
                }
            }
        }
    }

    #[test]
    fn every_built_in_query_keeps_its_meaning_and_gains_the_matchers_everywhere() {
        let plain = renderer(|_| {});
        let with = renderer(|o| o.matchers = r#"cluster="a\"b",env!~"x|y""#.into());
        for feature in Schema::built_in().features() {
            let mut before = parse(&plain.render(&feature.promql).unwrap()).unwrap();
            each_selector(&mut before, &mut |_, selector| add(selector, &[]));
            let rendered = with
                .render(&feature.promql)
                .unwrap_or_else(|e| panic!("{}: {e}", feature.name));
            let mut after = parse(&rendered).unwrap();
            let mut selectors = 0;
            each_selector(&mut after, &mut |name, matchers| {
                selectors += 1;
                for added in [r#"cluster="a\"b""#, r#"env!~"x|y""#] {
                    let place = matchers
                        .matchers
                        .iter()
                        .position(|m| m.to_string() == added);
                    matchers.matchers.remove(place.unwrap_or_else(|| {
                        panic!("{}: no {added} at {name:?} in {rendered}", feature.name)
                    }));
                }
            });
            assert!(selectors > 0, "{}", feature.name);
            assert_eq!(after, before, "{}", feature.name);
        }
    }

    #[test]
    fn matchers_reach_every_kind_of_selector() {
        let with = renderer(|o| o.matchers = r#"c="1""#.into());
        for (promql, expected) in [
            ("up", r#"up{c="1"}"#),
            (r#"{__name__="up"}"#, r#"{__name__="up",c="1"}"#),
            (r#"up{z="1",b="2"}"#, r#"up{b="2",c="1",z="1"}"#),
            (
                r#"up{a="1" or z="2"}"#,
                r#"up{a="1", c="1" or z="2", c="1"}"#,
            ),
            ("rate(a[5m] offset 1h)", r#"rate(a{c="1"}[5m] offset 1h)"#),
            ("topk(scalar(k), a)", r#"topk(scalar(k{c="1"}), a{c="1"})"#),
            (
                "max_over_time(rate(a[1m])[1h:1m])",
                r#"max_over_time(rate(a{c="1"}[1m])[1h:1m])"#,
            ),
            (
                "-a + on (x) group_left (y) b",
                r#"-a{c="1"} + on (x) group_left (y) b{c="1"}"#,
            ),
            (
                "sum without (x) (a unless b)",
                r#"sum without (x) (a{c="1"} unless b{c="1"})"#,
            ),
            (
                "a @ 1609746000 > bool 2",
                r#"a{c="1"} @ 1609746000.000 > bool 2"#,
            ),
            (
                r#"label_replace(a, "x", "$1", "y", "(.*):.*")"#,
                r#"label_replace(a{c="1"}, "x", "$1", "y", "(.*):.*")"#,
            ),
            ("1 - 2", "1 - 2"),
        ] {
            assert_eq!(with.render(promql).as_deref(), Ok(expected), "{promql}");
        }
        // MetricsQL and other dialects pass as they are, until there is something to add.
        let dialect = "rate(a) keep_metric_names";
        assert_eq!(renderer(|_| {}).render(dialect).as_deref(), Ok(dialect));
        assert!(with.render(dialect).is_err());
    }

    #[test]
    fn matchers_that_are_none_are_faults_with_their_keys() {
        let keys = |options: &PrometheusOptions| -> Vec<String> {
            let faults = Renderer::new(options).unwrap_err();
            faults.into_iter().map(|fault| fault.key).collect()
        };
        let all_wrong = PrometheusOptions {
            selector: "job=node".into(),
            devices: r#"device="sda"} or up{x="y""#.into(),
            interfaces: "up".into(),
            filesystems: r#"fstype=~"(""#.into(),
            matchers: r#"a="1" or b="2""#.into(),
            rate_window: Duration::ZERO,
            ..PrometheusOptions::default()
        };
        let all = [
            "selector",
            "devices",
            "interfaces",
            "filesystems",
            "matchers",
            "rate_window",
        ];
        assert_eq!(keys(&all_wrong), all);
        let one_wrong = PrometheusOptions {
            matchers: "}".into(),
            ..PrometheusOptions::default()
        };
        assert_eq!(keys(&one_wrong), ["matchers"]);
    }

    #[test]
    fn durations_are_written_as_promql_does() {
        for (ms, text) in [
            (300_000, "5m"),
            (3_600_000, "1h"),
            (90_000, "90s"),
            (1500, "1500ms"),
        ] {
            assert_eq!(duration(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn metrics_that_a_query_reads_are_found_wherever_they_stand() {
        let ours = |name: &str| name.starts_with("foreshock_");
        for (promql, found) in [
            (
                "max by (node) (foreshock_node_risk_ratio) > 0.65",
                Some(true),
            ),
            (
                "absent(up{job=\"x\"}) or rate(foreshock_taints_total[5m]) > 0",
                Some(true),
            ),
            ("{__name__=~\"foreshock_.*\"} > 0", Some(true)),
            ("up{job=\"foreshock_x\"} == 0", Some(false)),
            ("what is this", None),
        ] {
            assert_eq!(reads(promql, ours), found, "{promql}");
        }
    }
}
