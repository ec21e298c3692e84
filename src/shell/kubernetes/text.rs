//! Text from outside, made fit to be shown and stored.

/// `text` without control characters, on one line, at most `max` letters long. Annotations and alert
/// texts are whatever somebody put there: escape sequences, line feeds, megabytes.
pub fn clean(text: &str, max: usize) -> String {
    let mut cleaned = String::with_capacity(text.len().min(max));
    let mut letters = 0;
    let mut gap = false;
    for letter in text.chars() {
        let shown = if letter.is_control() || is_invisible(letter) {
            ' '
        } else {
            letter
        };
        if shown.is_whitespace() {
            gap = letters > 0;
            continue;
        }
        // One letter is kept back for the ellipsis.
        if letters + usize::from(gap) + 1 >= max {
            cleaned.push('…');
            return cleaned;
        }
        if gap {
            cleaned.push(' ');
            letters += 1;
            gap = false;
        }
        cleaned.push(shown);
        letters += 1;
    }
    cleaned
}

/// `text` on one line and without anything that a terminal would obey; spaces stay, for columns.
pub fn clean_line(text: &str) -> String {
    text.chars()
        .map(|letter| {
            if letter.is_control() || is_invisible(letter) {
                ' '
            } else {
                letter
            }
        })
        .collect()
}

/// Letters that change how the ones around them read: directional overrides and the like.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_becomes_one_short_line() {
        let check = |text: &str, max: usize, expected: &str| assert_eq!(clean(text, max), expected);
        check("plain words", 64, "plain words");
        check("  two\r\n\tlines \u{0} ", 64, "two lines");
        check("\u{1b}[31mred\u{1b}[0m", 64, "[31mred [0m");
        check("user\u{202e}txt.exe", 64, "user txt.exe");
        check("", 64, "");
        check("abcdef", 4, "abc…");
        assert_eq!(clean_line("a   b\n\u{1b}[2Jc\u{202e}"), "a   b  [2Jc ");
        assert_eq!(clean(&"é".repeat(1_000_000), 10).chars().count(), 10);
    }
}
