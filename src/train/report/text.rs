//! Text and numbers for people, of which some come from whoever names Nodes and alerts.

use std::time::Duration;

/// Characters of a name that is shown.
const NAME_MAX: usize = 80;

/// Text for HTML, also within quoted attributes. Control characters, and those that turn the direction of
/// writing, are shown as a replacement.
pub(super) fn html(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if is_unseen(c) => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// Text for Markdown: every punctuation mark is itself, so it makes no link, table cell or tag.
pub(super) fn markdown(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unseen(c) {
            safe.push('\u{fffd}');
            continue;
        }
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            // These begin nothing within a line, and names are full of them.
            '-' | '.' | ',' => safe.push(c),
            c if c.is_ascii_punctuation() => safe.extend(['\\', c]),
            c => safe.push(c),
        }
    }
    safe
}

/// A name from outside, not longer than anybody reads.
pub(super) fn name(text: &str) -> String {
    let mut short: String = text.chars().take(NAME_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A number in three digits, with k, M, G or T for large ones.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return "–".to_owned();
    }
    if size < 1e-12 {
        return "0".to_owned();
    }
    let scale = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    // What rounds to a thousand is one of the next.
    let found = scale.into_iter().find(|(scale, _)| size >= scale * 0.999_5);
    let (scaled, unit) = found.map_or((value, ""), |(scale, unit)| (value / scale, unit));
    if scaled.abs() < 1e-4 {
        return format!("{value:.1e}");
    }
    let before = libm::floor(libm::log10(scaled.abs())) as i32 + 1;
    let digits = (3 - before).clamp(0, 6) as usize;
    let text = format!("{scaled:.digits$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text}{unit}")
}

/// A share in percent.
pub(super) fn percent(share: f64) -> String {
    format!("{} %", short(share * 100.0))
}

/// A time in minutes.
pub(super) fn minutes(time: Option<Duration>) -> String {
    time.map_or_else(
        || "–".to_owned(),
        |time| format!("{} min", short(time.as_secs_f64() / 60.0)),
    )
}

/// A whole number with its thousands apart.
pub(super) fn whole(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.1 + 0.2, "0.3"),
            (0.012_345, "0.0123"),
            (0.000_012, "1.2e-5"),
            (1.0, "1"),
            (12.345, "12.3"),
            (123.45, "123"),
            (999.6, "1k"),
            (1_500.0, "1.5k"),
            (2.5e9, "2.5G"),
            (-0.5, "-0.5"),
            (f64::INFINITY, "–"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(short(value), text, "{value}");
        }
        assert_eq!(whole(1), "1");
        assert_eq!(whole(1_234_567), "1,234,567");
        assert_eq!(minutes(Some(Duration::from_secs(90))), "1.5 min");
        assert_eq!(percent(0.1234), "12.3 %");
    }

    #[test]
    fn hostile_text_stays_text() {
        assert_eq!(
            html("<a href='x'>&\"\n\u{202e}"),
            "&lt;a href=&#39;x&#39;&gt;&amp;&quot;\u{fffd}\u{fffd}"
        );
        assert_eq!(
            markdown("a|b <i> [x](http://y) `c`\n# d"),
            "a\\|b &lt;i&gt; \\[x\\]\\(http\\:\\/\\/y\\) \\`c\\`\u{fffd}\\# d"
        );
        assert_eq!(name(&"x".repeat(500)).chars().count(), NAME_MAX + 1);
    }
}
