//! Plots as inline SVG: shapes with classes and no colours, which the page's style sheet gives, light or dark.
//! What a shape means stands in the legend beside the plot, where it cannot lie over another.

use std::fmt::Write;

use super::text::{html, short};

const LEFT: f64 = 52.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 40.0;
/// About so many ticks on an axis.
const TICKS: f64 = 5.0;
/// Width of the names beside horizontal bars.
const NAMES: f64 = 168.0;
/// Height of such a bar with the space around it.
const BAR: f64 = 22.0;

/// An axis: what is on it, and from where to where.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) label: String,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Axis {
    /// An axis over a range; one without width or with an end that is no number gets some.
    pub(super) fn new(label: impl Into<String>, low: f64, high: f64) -> Self {
        let low = if low.is_finite() { low } else { 0.0 };
        let high = if high.is_finite() { high } else { low };
        let wide = high - low > 1e-12 * high.abs().max(low.abs()).max(1e-12);
        let high = if wide { high } else { low + low.abs().max(1.0) };
        let label = label.into();
        Self { label, low, high }
    }

    /// Shares.
    pub(super) fn share(label: &str) -> Self {
        Self::new(label, 0.0, 1.0)
    }

    /// Where the ticks are: multiples of 1, 2 or 5.
    fn ticks(&self) -> Vec<f64> {
        let rough = (self.high - self.low) / TICKS;
        let power = libm::pow(10.0, libm::floor(libm::log10(rough)));
        let nice = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
        let step = nice
            .into_iter()
            .find(|step| *step >= rough)
            .unwrap_or(rough);
        let first = libm::ceil(self.low / step - 1e-9);
        let end = self.high + step * 1e-9;
        (0..20)
            .map(|i| (first + f64::from(i)) * step)
            .take_while(|tick| *tick <= end)
            .collect()
    }
}

/// A plot under construction.
#[derive(Debug)]
pub(super) struct Plot {
    svg: String,
    x: Axis,
    y: Axis,
    wide: f64,
    high: f64,
}

impl Plot {
    /// Axes without anything on them. `id` must be that of one plot of the page, `name` is what is read aloud.
    pub(super) fn new(id: &str, name: &str, size: (f64, f64), x: Axis, y: Axis) -> Self {
        let (wide, high) = size;
        let mut plot = Self {
            svg: String::new(),
            x,
            y,
            wide,
            high,
        };
        plot.frame(id, name);
        plot
    }

    /// A curve; a point that is no number is left out, and what is outside of the axes is not shown.
    pub(super) fn line(&mut self, points: impl IntoIterator<Item = (f64, f64)>, class: &str) {
        let mut path = String::new();
        for (x, y) in points
            .into_iter()
            .filter(|(x, y)| x.is_finite() && y.is_finite())
        {
            // Far outside is as good as outside, and no number grows without end.
            let y = self.py(y).clamp(-self.high, 2.0 * self.high);
            let _ = write!(path, "{:.1},{y:.1} ", self.px(x));
        }
        let path = path.trim_end();
        self.add(format_args!(
            "<polyline class=\"{class}\" points=\"{path}\"/>"
        ));
    }

    /// A level line.
    pub(super) fn level(&mut self, y: f64, class: &str) {
        self.line([(self.x.low, y), (self.x.high, y)], class);
    }

    /// An upright line.
    pub(super) fn upright(&mut self, x: f64, class: &str) {
        if (self.x.low..=self.x.high).contains(&x) {
            self.line([(x, self.y.low), (x, self.y.high)], class);
        }
    }

    /// A point with what it says when pointed at.
    pub(super) fn dot(&mut self, (x, y): (f64, f64), class: &str, says: &str) {
        let (px, py, says) = (self.px(x), self.py(y), html(says));
        self.add(format_args!(
            "<circle class=\"{class}\" cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3.5\"><title>{says}</title></circle>"
        ));
    }

    /// An interval of y.
    pub(super) fn whisker(&mut self, x: f64, (low, high): (f64, f64), class: &str) {
        let (px, low, high) = (self.px(x), self.py(low), self.py(high));
        let (left, right) = (px - 3.0, px + 3.0);
        self.add(format_args!(
            "<path class=\"{class}\" d=\"M{px:.1} {low:.1}V{high:.1}M{left:.1} {low:.1}H{right:.1}M{left:.1} {high:.1}H{right:.1}\"/>"
        ));
    }

    /// An upright bar.
    pub(super) fn bar(&mut self, (from, to): (f64, f64), y: f64, class: &str, says: &str) {
        let (left, right) = (self.px(from) + 1.0, self.px(to) - 1.0);
        let (top, bottom) = (self.py(y), self.py(self.y.low));
        let (wide, high, says) = ((right - left).max(0.5), (bottom - top).max(0.0), html(says));
        self.add(format_args!(
            "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{wide:.1}\" height=\"{high:.1}\"><title>{says}</title></rect>"
        ));
    }

    /// The finished plot.
    pub(super) fn finish(mut self) -> String {
        self.svg.push_str("</g></svg>");
        self.svg
    }

    fn frame(&mut self, id: &str, name: &str) {
        let (wide, high) = (self.wide, self.high);
        self.add(format_args!(
            "<svg viewBox=\"0 0 {wide} {high}\" role=\"img\" aria-label=\"{}\">",
            html(name)
        ));
        let (left, right) = (LEFT, wide - RIGHT);
        let (top, bottom) = (TOP, high - BOTTOM);
        for tick in self.y.ticks() {
            let (at, text) = (self.py(tick), short(tick));
            let under = at + 4.0;
            let beside = left - 6.0;
            self.add(format_args!(
                "<path class=\"grid\" d=\"M{left} {at:.1}H{right}\"/><text class=\"tick\" x=\"{beside}\" y=\"{under:.1}\" text-anchor=\"end\">{text}</text>"
            ));
        }
        for tick in self.x.ticks() {
            let (at, text) = (self.px(tick), short(tick));
            let under = bottom + 15.0;
            self.add(format_args!(
                "<path class=\"grid\" d=\"M{at:.1} {top}V{bottom}\"/><text class=\"tick\" x=\"{at:.1}\" y=\"{under}\" text-anchor=\"middle\">{text}</text>"
            ));
        }
        let (middle, under) = (f64::midpoint(left, right), high - 6.0);
        let x = html(&cut(&self.x.label, (wide / 11.0) as usize));
        self.add(format_args!(
            "<text class=\"label\" x=\"{middle}\" y=\"{under}\" text-anchor=\"middle\">{x}</text>"
        ));
        let (middle, y) = (
            f64::midpoint(top, bottom),
            html(&cut(&self.y.label, (high / 9.0) as usize)),
        );
        self.add(format_args!(
            "<text class=\"label\" x=\"12\" y=\"{middle}\" text-anchor=\"middle\" transform=\"rotate(-90 12 {middle})\">{y}</text>"
        ));
        // A little wider than the axes, so that a point on one is whole.
        let (cx, cy, w, h) = (
            left - 4.0,
            top - 4.0,
            right - left + 8.0,
            bottom - top + 8.0,
        );
        self.add(format_args!(
            "<path class=\"axis\" d=\"M{left} {top}V{bottom}H{right}\"/><clipPath id=\"{id}\"><rect x=\"{cx}\" y=\"{cy}\" width=\"{w}\" height=\"{h}\"/></clipPath><g clip-path=\"url(#{id})\">"
        ));
    }

    fn add(&mut self, what: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.svg.write_fmt(what);
    }

    fn px(&self, x: f64) -> f64 {
        let share = (x - self.x.low) / (self.x.high - self.x.low);
        LEFT + share * (self.wide - LEFT - RIGHT)
    }

    fn py(&self, y: f64) -> f64 {
        let share = (y - self.y.low) / (self.y.high - self.y.low);
        self.high - BOTTOM - share * (self.high - TOP - BOTTOM)
    }
}

/// As much of a text as there is room for.
fn cut(text: &str, characters: usize) -> String {
    let mut cut: String = text.chars().take(characters).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

/// Horizontal bars with their names; of a long name the begin.
pub(super) fn bars(name: &str, wide: f64, bars: &[(String, f64)]) -> String {
    let most = bars.iter().map(|bar| bar.1).fold(0.0, f64::max);
    let high = bars.len() as f64 * BAR + 4.0;
    let room = wide - NAMES - 52.0;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {wide} {high}\" role=\"img\" aria-label=\"{}\">",
        html(name)
    );
    for (i, (name, value)) in bars.iter().enumerate() {
        let top = i as f64 * BAR + 4.0;
        let long = if most > 0.0 { value / most * room } else { 0.0 };
        let (text, end) = (top + 12.5, NAMES + long + 6.0);
        let cut = cut(name, 21);
        let (cut, name, value) = (html(&cut), html(name), short(*value));
        let _ = write!(
            svg,
            "<g><title>{name}</title><text class=\"name\" x=\"{:.0}\" y=\"{text:.1}\" text-anchor=\"end\">{cut}</text><rect class=\"fill\" x=\"{NAMES}\" y=\"{top:.1}\" width=\"{long:.1}\" height=\"16\"/><text class=\"tick\" x=\"{end:.1}\" y=\"{text:.1}\">{value}</text></g>",
            NAMES - 8.0
        );
    }
    svg.push_str("</svg>");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        for (low, high, ticks) in [
            (0.0, 1.0, &[0.0, 0.2, 0.4, 0.6, 0.8, 1.0][..]),
            (0.0, 30.0, &[0.0, 10.0, 20.0, 30.0]),
            (-0.7, 2.1, &[0.0, 1.0, 2.0]),
            (0.0, 4e9, &[0.0, 1e9, 2e9, 3e9, 4e9]),
        ] {
            let found = Axis::new("x", low, high).ticks();
            assert_eq!(found.len(), ticks.len(), "{low} to {high}: {found:?}");
            for (found, tick) in found.iter().zip(ticks) {
                assert!((found - tick).abs() < 1e-9 * high, "{found} {tick}");
            }
        }
    }

    #[test]
    fn an_axis_without_width_or_number_is_one_all_the_same() {
        for (low, high) in [
            (0.0, 0.0),
            (5.0, 5.0),
            (f64::NAN, f64::NAN),
            (0.0, f64::INFINITY),
            (3.0, -3.0),
            (1e300, 1e300),
        ] {
            let axis = Axis::new("x", low, high);
            assert!(axis.low.is_finite() && axis.high > axis.low, "{axis:?}");
            assert!(!axis.ticks().is_empty(), "{axis:?}");
        }
    }

    #[test]
    fn what_is_no_number_is_not_drawn() {
        let mut plot = Plot::new("p", "p", (300.0, 200.0), Axis::share("x"), Axis::share("y"));
        plot.line(
            [
                (0.0, f64::NAN),
                (0.1, 0.2),
                (f64::INFINITY, 0.0),
                (0.5, 1e30),
            ],
            "curve",
        );
        plot.upright(f64::INFINITY, "curve");
        let svg = plot.finish();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
