//! Statements as the client sent them, with their literals and the values of their parameters, while somebody wants to
//! see those of slow ones. A password is not shown even then, as far as words tell that there may be one.

use std::{borrow::Cow, fmt::Write};

use super::{Pipeline, Session, Statement};
use crate::{
    sql::{Called, KnownText, NameUse, Verbatim, Verdict},
    wire::request::{BindValue, BindValues},
};

/// A longer text is cut off, in bytes.
const TEXT_BYTES_MAX: usize = 1_000;

/// The values of one statement are cut off where they are longer together.
const VALUES_BYTES_MAX: usize = 1_000;

/// Words that stand where passwords do, in lower case, by their first letters.
const SECRET: [&[u8]; 5] = [b"passw", b"passphrase", b"pwd", b"secret", b"crypt("];

/// In place of values among which there may be a password.
const WITHHELD: &str = "(not shown: there may be a password among them)";

impl Session {
    /// How a prepared statement is called, with its text where that is wanted.
    pub(super) fn called(&self, statement: &Statement, pipeline: &Pipeline) -> Called {
        if pipeline.verbatim {
            self.called_verbatim(&statement.verdict, &statement.sql, pipeline)
        } else {
            statement.verdict.called().clone()
        }
    }

    /// How a text is called, with the text itself.
    pub(super) fn called_verbatim(&self, verdict: &KnownText, sql: &[u8], pipeline: &Pipeline) -> Called {
        let secret = may_tell_secrets(sql) || self.executes_secrets(verdict, pipeline);
        verdict.called().with(if secret {
            Verbatim { text: None, values: Some(WITHHELD.into()) }
        } else {
            Verbatim { text: Some(beginning(sql, TEXT_BYTES_MAX).into()), values: None }
        })
    }

    /// Whether a text executes by SQL what may take a password, or what is not known.
    fn executes_secrets(&self, verdict: &Verdict, pipeline: &Pipeline) -> bool {
        verdict.names.iter().any(|name| {
            let NameUse::Executes(name) = name else { return false };
            let known = self.prepared.get(name.as_bytes(), &pipeline.owed);
            known.is_none_or(|statement| may_tell_secrets(&statement.sql))
        })
    }
}

/// How a statement is called, with the values that are bound to it: what follows the names of the Bind message.
pub(super) fn with_values(called: &Called, bound: &[u8]) -> Called {
    let Some(normal) = &called.0 else { return Called::default() };
    let verbatim = normal.verbatim.as_deref().cloned().unwrap_or_else(|| {
        // Its text was not kept when it was parsed; without its literals it still has the words that matter, if it is whole.
        let cut = normal.text.ends_with('…');
        let secret = cut || normal.text.is_empty() || may_tell_secrets(normal.text.as_bytes());
        Verbatim { text: None, values: secret.then(|| WITHHELD.into()) }
    });
    let values = verbatim.values.or_else(|| shown_values(bound));
    called.with(Verbatim { values, ..verbatim })
}

/// `$1 = 'text', $2 = NULL, $3 = \x0102`, as far as they have come; nothing when there are none.
fn shown_values(bound: &[u8]) -> Option<Box<str>> {
    let mut shown = String::new();
    for (number, value) in (1..).zip(BindValues::read(bound)) {
        if value == BindValue::Missing || shown.len() > VALUES_BYTES_MAX {
            shown.push('…');
            break;
        }
        let separator = if shown.is_empty() { "" } else { ", " };
        let _ = write!(shown, "{separator}${number} = {}", shown_value(value));
    }
    cut(&mut shown, VALUES_BYTES_MAX);
    (!shown.is_empty()).then(|| shown.into())
}

fn shown_value(value: BindValue<'_>) -> Cow<'static, str> {
    match value {
        BindValue::Null => "NULL".into(),
        BindValue::Missing => "…".into(),
        BindValue::Text(bytes) | BindValue::Binary(bytes) if may_tell_secrets(bytes) => "(not shown)".into(),
        BindValue::Text(bytes) => format!("'{}'", beginning(bytes, VALUES_BYTES_MAX)).into(),
        BindValue::Binary(bytes) => {
            let hex = bytes.iter().take(VALUES_BYTES_MAX).fold(String::from("\\x"), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            hex.into()
        }
    }
}

/// A text in any encoding, cut off behind so many bytes.
fn beginning(bytes: &[u8], bytes_max: usize) -> String {
    // A letter that this cuts in two is cut off below.
    const LETTER_BYTES_MAX: usize = 4;
    let front = &bytes[..bytes.len().min(bytes_max + LETTER_BYTES_MAX)];
    let mut text = String::from_utf8_lossy(front).into_owned();
    cut(&mut text, bytes_max);
    text
}

/// Cuts off what is longer than so many bytes, and leaves an ellipsis there.
fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
}

/// Whether a text or a value may hold a password, as its words tell. Rather too often than too seldom: all that is lost
/// is that the values of one more statement are not shown.
fn may_tell_secrets(bytes: &[u8]) -> bool {
    let is_secret = |at: usize| {
        let rest = &bytes[at..];
        SECRET.iter().any(|word| rest.get(..word.len()).is_some_and(|front| front.eq_ignore_ascii_case(word)))
    };
    let begins = |byte: u8| matches!(byte, b'p' | b'P' | b's' | b'S' | b'c' | b'C');
    bytes.iter().enumerate().any(|(at, byte)| begins(*byte) && is_secret(at)) || has_login(bytes)
}

/// Whether an address stands there with somebody's login, `postgres://user:password@host`.
fn has_login(bytes: &[u8]) -> bool {
    memchr::memmem::find_iter(bytes, b"://").any(|at| {
        let address = &bytes[at + 3..];
        let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'?' | b'#' | b'\'' | b'"');
        address.iter().take_while(|byte| !ends(byte)).any(|byte| *byte == b'@')
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What follows the names of a Bind message.
    fn bound(formats: &[u16], values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut rest = (formats.len() as u16).to_be_bytes().to_vec();
        rest.extend(formats.iter().flat_map(|format| format.to_be_bytes()));
        rest.extend((values.len() as u16).to_be_bytes());
        for value in values {
            rest.extend(value.map_or(-1, |value| value.len() as i32).to_be_bytes());
            rest.extend_from_slice(value.unwrap_or_default());
        }
        rest
    }

    fn shown(formats: &[u16], values: &[Option<&[u8]>]) -> Option<String> {
        shown_values(&bound(formats, values)).map(String::from)
    }

    #[test]
    fn values_are_shown_by_their_formats() {
        assert_eq!(shown(&[], &[]), None);
        assert_eq!(shown(&[], &[Some(b"17"), None, Some(b"")]).as_deref(), Some("$1 = '17', $2 = NULL, $3 = ''"));
        assert_eq!(shown(&[1], &[Some(&[0, 1, 2]), Some(b"")]).as_deref(), Some("$1 = \\x000102, $2 = \\x"));
        assert_eq!(shown(&[0, 1], &[Some(b"a"), Some(b"a")]).as_deref(), Some("$1 = 'a', $2 = \\x61"));
        assert_eq!(shown(&[], &[Some(b"na\xefve")]).as_deref(), Some("$1 = 'na\u{fffd}ve'"), "another encoding");
    }

    #[test]
    fn what_has_not_come_is_not_shown() {
        let whole = bound(&[], &[Some(b"one"), Some(b"two")]);
        let cases = [
            (2, "…"),
            (6, "…"),
            (8, "$1 = ''…"),
            (10, "$1 = 'on'…"),
            (14, "$1 = 'one'…"),
            (whole.len() - 1, "$1 = 'one', $2 = 'tw'…"),
            (whole.len(), "$1 = 'one', $2 = 'two'"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(shown_values(&whole[..bytes]).as_deref(), Some(expected), "{bytes}");
        }
    }

    #[test]
    fn all_is_cut_off_between_letters() {
        let long = "ä".repeat(TEXT_BYTES_MAX);
        for front in ["", "x"] {
            let text = beginning(format!("{front}{long}").as_bytes(), TEXT_BYTES_MAX);
            assert!(text.starts_with(front) && text.ends_with("ä…") && !text.contains('\u{fffd}'), "{text}");
            assert!((TEXT_BYTES_MAX + 2..=TEXT_BYTES_MAX + 3).contains(&text.len()), "{}", text.len());
        }
        assert_eq!(beginning("ä".repeat(TEXT_BYTES_MAX / 2).as_bytes(), TEXT_BYTES_MAX).len(), TEXT_BYTES_MAX);
        let value = Some(long.as_bytes());
        for formats in [[0], [1]] {
            let values = shown(&formats, &[Some(b"1"), value, value, value]).unwrap();
            assert!(values.starts_with("$1 = ") && values.contains("$2 = ") && !values.contains("$3"), "{values}");
            assert!(values.len() <= VALUES_BYTES_MAX + '…'.len_utf8() && values.ends_with('…'), "{values}");
        }
        let many = shown(&[], &[Some(&b"1"[..]); 10_000]).unwrap();
        assert!(many.len() <= VALUES_BYTES_MAX + '…'.len_utf8() && many.ends_with('…'), "{many}");
    }

    #[test]
    fn what_may_hold_a_password_is_not_shown() {
        for secret in [
            "ALTER ROLE app PASSWORD 'x'",
            "create user app encrypted password 'x'",
            "CREATE USER MAPPING FOR app SERVER s OPTIONS (user 'app', password 'x')",
            "CREATE SUBSCRIPTION s CONNECTION 'host=a password=x' PUBLICATION p",
            "CREATE SUBSCRIPTION s CONNECTION 'postgres://app:x@host/db' PUBLICATION p",
            "UPDATE account SET password_hash = $1",
            "UPDATE account SET hash = crypt($1, gen_salt('bf'))",
            "{\"client_secret\": 1}",
            "PWD",
            "https://app@host",
        ] {
            assert!(may_tell_secrets(secret.as_bytes()), "{secret}");
            let values = shown(&[], &[Some(b"1"), Some(secret.as_bytes()), None]);
            assert_eq!(values.as_deref(), Some("$1 = '1', $2 = (not shown), $3 = NULL"));
        }
        for plain in ["", "SELECT 'pass', 'sec', 'w'", "SELECT 'https://host/path@2'", "SELECT 'a@b'", "passpasspas"] {
            assert!(!may_tell_secrets(plain.as_bytes()), "{plain}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_shown_within_the_limits(bytes: Vec<u8>) {
            let values = shown_values(&bytes).unwrap_or_default();
            prop_assert!(values.len() <= VALUES_BYTES_MAX + '…'.len_utf8());
            prop_assert!(beginning(&bytes, 10).len() <= 10 + '…'.len_utf8());
        }
    }
}
