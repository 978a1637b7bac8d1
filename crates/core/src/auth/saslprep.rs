//! How a password is brought into one form before it is hashed: SASLprep (RFC 4013), the way PostgreSQL does it.
//!
//! PostgreSQL strays from the RFC in three points, and clients on libpq do as it does: a text that may not be prepared
//! is used as it is, pure ASCII (control characters too) is never touched, and what is prohibited is looked for before
//! the normalisation, not after.

use std::borrow::Cow;

use stringprep::tables;

/// The bytes of a password that are hashed. What is not UTF-8, holds a character that RFC 4013 prohibits or Unicode 3.2
/// did not have, or mixes writing directions comes back as it was.
///
/// One corner differs from PostgreSQL, since stringprep looks at writing directions after the normalisation as well:
/// a Hebrew presentation form with a point (U+FB2A and on) at the end, or a Hebrew letter symbol (U+2135 to U+2138)
/// beside other text, is left as it is where PostgreSQL normalises it.
pub fn saslprep(text: &[u8]) -> Cow<'_, [u8]> {
    match prepared(text) {
        Some(prepared) => Cow::Owned(prepared.into_bytes()),
        None => Cow::Borrowed(text),
    }
}

/// None when the text is to be used as it is.
fn prepared(text: &[u8]) -> Option<String> {
    if text.is_ascii() {
        return None;
    }
    let mapped = mapped(std::str::from_utf8(text).ok()?);
    if mapped.is_empty() || mapped.chars().any(is_prohibited) || mixes_directions(&mapped) {
        return None;
    }
    // Maps again, which changes nothing, and normalises.
    stringprep::saslprep(&mapped).ok().map(Cow::into_owned)
}

/// RFC 4013, 2.1: other spaces become U+0020, soft hyphens and the like go.
fn mapped(text: &str) -> String {
    text.chars()
        .map(|c| if tables::non_ascii_space_character(c) { ' ' } else { c })
        .filter(|&c| !tables::commonly_mapped_to_nothing(c))
        .collect()
}

/// RFC 4013, 2.3 and 2.5.
fn is_prohibited(c: char) -> bool {
    tables::ascii_control_character(c)
        || tables::non_ascii_control_character(c)
        || tables::private_use(c)
        || tables::non_character_code_point(c)
        || tables::inappropriate_for_plain_text(c)
        || tables::inappropriate_for_canonical_representation(c)
        || tables::change_display_properties_or_deprecated(c)
        || tables::tagging_character(c)
        || tables::unassigned_code_point(c)
}

/// RFC 3454, 6: text with a right-to-left letter must begin and end with one and have no left-to-right letter.
fn mixes_directions(text: &str) -> bool {
    let right_to_left = tables::bidi_r_or_al;
    text.contains(right_to_left)
        && (text.contains(tables::bidi_l) || !text.starts_with(right_to_left) || !text.ends_with(right_to_left))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expected: &str) {
        assert_eq!(saslprep(input.as_bytes()), expected.as_bytes(), "{input:?}");
    }

    #[test]
    fn examples_of_rfc_4013() {
        check("I\u{AD}X", "IX");
        check("user", "user");
        check("USER", "USER");
        check("\u{AA}", "a");
        check("\u{2168}", "IX");
        check("\u{7}", "\u{7}");
        check("\u{627}\u{31}", "\u{627}\u{31}");
    }

    #[test]
    fn spaces_and_composition() {
        check("a\u{A0}b\u{3000}c", "a b c");
        check("e\u{301}", "é");
        check("\u{627}1\u{628}", "\u{627}1\u{628}");
    }

    #[test]
    fn what_may_not_be_prepared_stays() {
        // Control, private use, not in Unicode 3.2 (a digit with full stop whose normal form would be allowed),
        // mixed directions, and nothing left.
        for text in ["é\u{7}", "\u{AD}é\u{E000}", "\u{1F100}\u{AD}", "a\u{AD}\u{5D0}", "\u{AD}"] {
            check(text, text);
        }
        assert_eq!(saslprep(b"e\xCC\x81\xFF"), b"e\xCC\x81\xFF".as_slice());
    }
}
