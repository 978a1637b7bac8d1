//! Text from outside, made fit to be shown: names, error texts and statements may hold anything, and what they say must
//! not move a terminal's cursor, begin a line of its own in a log, or turn the order of what stands around it. Each way
//! out has one place where this is done: the formatter of the log (`cli::log`), the tables of the console and of HTTP
//! (`admin::desk`), and the labels of metrics.

use std::{
    borrow::Cow,
    fmt::{self, Write},
};

/// Whether a character does something else than to be seen: controls (C0, DEL, C1), ends of lines and paragraphs, and
/// what turns the direction of text.
pub fn is_control(character: char) -> bool {
    matches!(
        character,
        '\0'..='\x1f'
            | '\x7f'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}'
    )
}

/// The text with such characters written out, like `\u{1b}`.
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 8);
    // A String takes all that is written.
    let _ = Plain(&mut plain).write_str(text);
    Cow::Owned(plain)
}

/// Writes on what it is given as [`plain`] does.
pub struct Plain<W>(pub W);

impl<W: Write> Write for Plain<W> {
    fn write_str(&mut self, mut text: &str) -> fmt::Result {
        while let Some(at) = text.find(is_control) {
            let (before, rest) = text.split_at(at);
            self.0.write_str(before)?;
            let mut characters = rest.chars();
            if let Some(control) = characters.next() {
                write!(self.0, "{}", control.escape_unicode())?;
            }
            text = characters.as_str();
        }
        self.0.write_str(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_seen_stays_as_it_is() {
        for text in ["", "alice", "ünïcödé-日本語", "a b=c \"quoted\" \\n %s {} '; --", "👍🏽 e\u{301} \u{a0} a\u{200d}b"]
        {
            assert!(matches!(plain(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn what_does_something_is_written_out() {
        for (text, expected) in [
            ("a\nb\r\tc", r"a\u{a}b\u{d}\u{9}c"),
            ("\x1b[31mred\x07", r"\u{1b}[31mred\u{7}"),
            ("\u{9b}31m\u{7f}\u{85}", r"\u{9b}31m\u{7f}\u{85}"),
            ("\u{202e}gnp.exe\u{2066}\u{200f}", r"\u{202e}gnp.exe\u{2066}\u{200f}"),
            ("\u{2028}line\0", r"\u{2028}line\u{0}"),
        ] {
            assert_eq!(plain(text), expected);
        }
    }

    proptest! {
        #[test]
        fn nothing_is_left_that_does_something(text: String) {
            prop_assert!(!plain(&text).contains(is_control));
            prop_assert!(!plain(&text).contains(char::is_control));
        }
    }
}
