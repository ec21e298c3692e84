//! The Prometheus text format, written as Go's client writes it.

use std::fmt::Write;

use super::families;

/// Type of a metric family.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Untyped,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Untyped => "untyped",
        }
    }
}

/// A page of metric families, written from top to bottom.
pub(super) struct Page<'a> {
    out: &'a mut String,
    name: &'static str,
}

impl<'a> Page<'a> {
    pub(super) fn new(out: &'a mut String) -> Self {
        Self { out, name: "" }
    }

    /// Begins a family; the samples that follow are its own.
    pub(super) fn family(&mut self, name: &'static str) -> &mut Self {
        let (kind, help) = families::of(name);
        self.name = name;
        let out = &mut *self.out;
        out.push_str("# HELP ");
        out.push_str(name);
        out.push(' ');
        out.push_str(help);
        out.push_str("\n# TYPE ");
        out.push_str(name);
        out.push(' ');
        out.push_str(kind.as_str());
        out.push('\n');
        self
    }

    /// A family of one sample without labels.
    pub(super) fn single(&mut self, name: &'static str, value: f64) -> &mut Self {
        self.family(name).value(value)
    }

    /// A sample without labels.
    pub(super) fn value(&mut self, value: f64) -> &mut Self {
        self.out.push_str(self.name);
        self.out.push(' ');
        self.finish(value)
    }

    /// A sample with labels, which are given in the order of their names.
    pub(super) fn with(&mut self, labels: &[(&str, &str)], value: f64) -> &mut Self {
        self.series("", labels);
        self.finish(value)
    }

    /// A sample of a histogram's part, such as `_bucket`.
    pub(super) fn part(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) -> &mut Self {
        self.series(suffix, labels);
        self.finish(value)
    }

    fn series(&mut self, suffix: &str, labels: &[(&str, &str)]) {
        let out = &mut *self.out;
        out.push_str(self.name);
        out.push_str(suffix);
        for (place, (name, value)) in labels.iter().enumerate() {
            out.push(if place == 0 { '{' } else { ',' });
            out.push_str(name);
            out.push_str("=\"");
            escape(out, value);
            out.push('"');
        }
        out.push_str(if labels.is_empty() { " " } else { "} " });
    }

    fn finish(&mut self, value: f64) -> &mut Self {
        number(self.out, value);
        self.out.push('\n');
        self
    }
}

fn escape(out: &mut String, value: &str) {
    if !value.contains(['\\', '"', '\n']) {
        out.push_str(value);
        return;
    }
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

/// A number as Go's `strconv.FormatFloat(x, 'g', -1, 64)`: shortest, with an exponent below 1e-4 and
/// from 1e6 on.
pub(super) fn number(out: &mut String, x: f64) {
    if x == 0.0 {
        out.push('0');
        return;
    }
    if !x.is_finite() {
        out.push_str(if x.is_nan() {
            "NaN"
        } else if x > 0.0 {
            "+Inf"
        } else {
            "-Inf"
        });
        return;
    }
    let size = x.abs();
    // Writing to a String cannot fail.
    if (1e-4..1e6).contains(&size) {
        let _ = write!(out, "{x}");
        return;
    }
    let start = out.len();
    let _ = write!(out, "{x:e}");
    let Some(mark) = out[start..].find('e').map(|at| start + at) else {
        return;
    };
    let exponent: i32 = out[mark + 1..].parse().unwrap_or(0);
    out.truncate(mark);
    let sign = if exponent < 0 { '-' } else { '+' };
    let _ = write!(out, "e{sign}{:02}", exponent.abs());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_go_writes_them() {
        for (x, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (0.21, "0.21"),
            (529_408.0, "529408"),
            (1_236_968.0, "1.236968e+06"),
            (1_000_000.0, "1e+06"),
            (999_999.5, "999999.5"),
            (16_772_214_784.0, "1.6772214784e+10"),
            (0.000_1, "0.0001"),
            (0.000_023, "2.3e-05"),
            (-0.000_023, "-2.3e-05"),
            (9_223_372_036_854_775_807.0, "9.223372036854776e+18"),
            (1e100, "1e+100"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
        ] {
            let mut out = String::new();
            number(&mut out, x);
            assert_eq!(out, text);
        }
    }

    #[test]
    fn labels_are_escaped() {
        let mut out = String::new();
        Page::new(&mut out)
            .family("probe_success")
            .with(&[("b", "x\\y\"z\n")], 1.5);
        assert!(out.starts_with("# HELP probe_success Displays "));
        let end = "# TYPE probe_success gauge\nprobe_success{b=\"x\\\\y\\\"z\\n\"} 1.5\n";
        assert!(out.ends_with(end), "{out}");
    }
}
