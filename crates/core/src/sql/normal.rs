//! What a statement is called where its figures are shown: its text without values and comments.

use std::{fmt, sync::Arc};

use super::fingerprint::Keys;

/// A longer text is cut off, in bytes.
pub const NORMAL_BYTES_MAX: usize = 1_000;

/// Words behind which a parenthesis is set off.
const SET_OFF: [&str; 18] = [
    "all", "and", "any", "as", "by", "exists", "from", "in", "into", "not", "on", "or", "over", "select", "then",
    "using", "values", "where",
];

/// A text of SQL with `?` for each literal, without comments that say nothing to Poolhouse. More than three literals of
/// one kind in a row, and more than three equal groups in parentheses, are shown as three.
#[derive(Debug, PartialEq, Eq)]
pub struct Normal {
    /// Made of all of the text: the same in every process, and another one for another text. 0 without a text.
    pub id: u64,
    /// At most [`NORMAL_BYTES_MAX`], with an ellipsis where it was cut.
    pub text: Box<str>,
    /// What one client has said, when that is to be kept: never in what others share.
    pub verbatim: Option<Box<Verbatim>>,
}

/// A statement as one client has sent it. It may hold secrets, and is only for operators who ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verbatim {
    /// With its literals; nothing when that is not known, or must not be shown.
    pub text: Option<Box<str>>,
    /// Of its parameters, if it has any; or why they are not shown.
    pub values: Option<Box<str>>,
}

impl Normal {
    /// Of a text that cannot be told from others without its values.
    pub(super) fn nameless() -> Normal {
        Normal { id: 0, text: Box::default(), verbatim: None }
    }

    /// Out of a text's form, without the mark in front.
    pub(super) fn of_form(form: &[u8]) -> Normal {
        let mut text = shown(form);
        let id = Keys::new(0).hash(text.as_bytes());
        if text.len() > NORMAL_BYTES_MAX {
            let end = (0..=NORMAL_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(end);
            text.push('…');
        }
        Normal { id, text: text.into(), verbatim: None }
    }
}

/// How a verdict's text is called. It is no part of what a
/// text does, so verdicts that differ in it alone are equal.
#[derive(Clone, Default)]
pub struct Called(pub Option<Arc<Normal>>);

impl Called {
    /// The same, with what a client has said: a copy of its own.
    pub fn with(&self, verbatim: Verbatim) -> Called {
        Called(self.0.as_ref().map(|normal| {
            let Normal { id, text, .. } = &**normal;
            Arc::new(Normal { id: *id, text: text.clone(), verbatim: Some(Box::new(verbatim)) })
        }))
    }
}

impl PartialEq for Called {
    fn eq(&self, _: &Called) -> bool {
        true
    }
}

impl Eq for Called {}

impl fmt::Debug for Called {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("_")
    }
}

/// What stands in a form.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece<'a> {
    Word(&'a [u8]),
    Literal,
    Operator(&'a [u8]),
    /// `.`, `:` and `[`, which join what is around them.
    Joint(&'a [u8]),
    Open,
    /// `)` or `]`
    Close(u8),
    Comma,
    End,
    Hint(&'a [u8]),
}

fn shown(form: &[u8]) -> String {
    let mut text = Vec::with_capacity(form.len() + form.len() / 4);
    let mut rest = form;
    let mut before = None;
    while let Some((piece, after)) = first_piece(rest) {
        rest = after;
        if before.is_some_and(|before| is_parted(before, piece)) {
            text.push(b' ');
        }
        match piece {
            Piece::Word(bytes) | Piece::Operator(bytes) | Piece::Joint(bytes) | Piece::Hint(bytes) => {
                text.extend_from_slice(bytes);
            }
            Piece::Literal => text.push(b'?'),
            Piece::Open => text.push(b'('),
            Piece::Close(mark) => text.push(mark),
            Piece::Comma => text.push(b','),
            Piece::End => text.push(b';'),
        }
        before = Some(piece);
    }
    while matches!(text.last(), Some(b';' | b' ')) {
        text.pop();
    }
    String::from_utf8(text).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Whether a blank stands between two pieces.
fn is_parted(before: Piece<'_>, piece: Piece<'_>) -> bool {
    let is_cast = |operator: &[u8]| operator.starts_with(b":");
    match (before, piece) {
        (Piece::Joint(_) | Piece::Open, _) | (_, Piece::Joint(_) | Piece::Close(_) | Piece::Comma | Piece::End) => {
            false
        }
        (Piece::Operator(operator), _) | (_, Piece::Operator(operator)) if is_cast(operator) => false,
        (Piece::Word(word), Piece::Open) => SET_OFF.iter().any(|it| word.eq_ignore_ascii_case(it.as_bytes())),
        _ => true,
    }
}

/// The piece in front, and what follows; blanks only part pieces.
fn first_piece(form: &[u8]) -> Option<(Piece<'_>, &[u8])> {
    let form = form.trim_ascii_start();
    let first = *form.first()?;
    let many = |is: fn(&u8) -> bool| form.iter().position(|byte| !is(byte)).unwrap_or(form.len());
    let (piece, length) = match first {
        ..=0x1f => (Piece::Literal, 1),
        b'"' => {
            let length = name_end(form);
            (Piece::Word(&form[..length]), length)
        }
        b'/' if form.starts_with(b"/*") => {
            let length = form.windows(2).position(|two| two == b"*/").map_or(form.len(), |at| at + 2);
            (Piece::Hint(&form[..length]), length)
        }
        b'(' => (Piece::Open, 1),
        b')' | b']' => (Piece::Close(first), 1),
        b',' => (Piece::Comma, 1),
        b';' => (Piece::End, 1),
        b'.' | b':' | b'[' => (Piece::Joint(&form[..1]), 1),
        _ if is_word(&first) => {
            let length = many(is_word);
            (Piece::Word(&form[..length]), length)
        }
        _ => {
            let length = many(is_operator).max(1);
            (Piece::Operator(&form[..length]), length)
        }
    };
    Some((piece, &form[length..]))
}

fn is_word(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || *byte >= 0x80
}

fn is_operator(byte: &u8) -> bool {
    super::lexer::is_operator(*byte)
}

/// Where a quoted name ends; quotes in it are doubled.
fn name_end(form: &[u8]) -> usize {
    let mut at = 1;
    while let Some(quote) = memchr::memchr(b'"', &form[at.min(form.len())..]) {
        at += quote + 1;
        if form.get(at) != Some(&b'"') {
            return at;
        }
        at += 1;
    }
    form.len()
}

#[cfg(test)]
mod tests {
    use crate::sql::Cache;

    fn normal(sql: &str) -> Option<String> {
        let verdict = Cache::new(10, 1 << 20).verdict(sql.as_bytes());
        verdict.called().0.as_ref().map(|normal| normal.text.to_string())
    }

    #[test]
    fn values_and_comments_are_left_out() {
        let cases = [
            ("SELECT * FROM t WHERE id = 17", "SELECT * FROM t WHERE id = ?"),
            (
                "SELECT a.b,c::int FROM\n t -- why\n WHERE x='it''s' AND y>=$1;",
                "SELECT a.b, c::int FROM t WHERE x = ? AND y >= $1",
            ),
            ("INSERT INTO t(a,b) VALUES (1,'x'),(2,'y')", "INSERT INTO t(a, b) VALUES (?, ?), (?, ?)"),
            (
                "SELECT count(*), f(1.5), a[1] FROM \"T x\" WHERE a IN (1,2,3,4,5)",
                "SELECT count(*), f(?), a[?] FROM \"T x\" WHERE a IN (?, ?, ?)",
            ),
            ("SELECT -1, 'a' || $$b$$, \"q\"\"uo(\"", "SELECT - ?, ? || ?, \"q\"\"uo(\""),
            ("ALTER ROLE app PASSWORD 'secret'", "ALTER ROLE app PASSWORD ?"),
            ("BEGIN; SELECT 1; COMMIT", "BEGIN; SELECT ?; COMMIT"),
            ("/* poolhouse: primary */ SELECT 1", "/* poolhouse: primary */ SELECT ?"),
            (";", ""),
        ];
        for (sql, expected) in cases {
            assert_eq!(normal(sql).as_deref(), Some(expected), "{sql}");
        }
    }

    #[test]
    fn texts_of_one_form_are_called_the_same() {
        let mut cache = Cache::new(10, 1 << 20);
        let mut id = |sql: &str| cache.verdict(sql.as_bytes()).called().0.as_ref().map(|normal| normal.id);
        assert_eq!(id("SELECT 1"), id("SELECT  23 /* c */"));
        assert_eq!(id("SELECT 1"), id("SELECT 'x'"), "one line for both, although they are judged apart");
        assert_ne!(id("SELECT 1"), id("SELECT a"));
        // What is judged anew each time, because of its values.
        assert_eq!(id("SELECT set_config('a.b', 'c', false)"), id("SELECT set_config('a.d', 'e', false)"));
    }

    #[test]
    fn what_cannot_be_told_from_others_has_no_name() {
        assert_eq!(normal("SELECT 'a\\'b'").as_deref(), Some(""));
        assert_eq!(normal("SELECT (1").as_deref(), Some(""));
    }

    #[test]
    fn a_long_text_is_cut_off_and_still_told_from_others() {
        let mut cache = Cache::new(10, 8 << 20);
        let long = |last: &str| format!("SELECT {} {last}", "naïve,".repeat(1_000));
        let (one, other) = (cache.verdict(long("a").as_bytes()), cache.verdict(long("b").as_bytes()));
        let (one, other) = (one.called().0.clone().unwrap(), other.called().0.clone().unwrap());
        assert_eq!(one.text, other.text);
        assert!(one.text.len() <= super::NORMAL_BYTES_MAX + 3 && one.text.ends_with('…'));
        assert_ne!(one.id, other.id);
    }
}
