//! Texts with places in them where other literals or other comments may stand, so that a text which differs from one
//! that is known in nothing else is recognised by comparing bytes, without a look at most of its tokens.
//!
//! Why a match proves that both texts have the same canonical form: a place begins where a token of the known text
//! does, and either right after another place or after a byte that ends a token whatever literal (or comment) comes
//! next. The lexer keeps nothing from one token to the next. So a text that has the same bytes up to a place has the
//! same tokens there; it is read from there on by the lexer itself, must show a token of the same kind, and goes on
//! with bytes that are compared again. All tokens that are no literals, and the kinds of all literals, are then the
//! same, and the form is made from nothing else. Only lists of literals may differ in length, beyond the three of a
//! kind of which the form shows a trace.

use memchr::memchr;

use super::super::fingerprint::{Keys, LiteralPlace, PLACES_MAX};
use super::super::hint;
use super::super::lexer::{CONTINUES_NAME, HIGH, LOW, Lexer, TokenKind, eight};

/// Patterns have at most this many bytes that are compared.
const FIXED_MAX: usize = 1024;

/// Of how many bytes at each end the key of a long text is made.
const KEY_PART: usize = 64;
/// What a pattern takes at most besides itself, in bytes.
pub(super) const BYTES_MAX: usize = FIXED_MAX + PLACES_MAX * size_of::<Gap>();

/// A text, or many that differ in literals and comments only.
pub(super) struct FormPattern {
    /// What is left of the text without its literals and comments.
    fixed: Box<[u8]>,
    gaps: Box<[Gap]>,
}

/// A place in a pattern.
struct Gap {
    /// How much of the fixed bytes comes before.
    after: u32,
    kind: TokenKind,
    many: bool,
}

/// A text from which a pattern can be made, before it is known whether that is worth while.
pub(super) struct Sketch<'a> {
    sql: &'a [u8],
    places: &'a [LiteralPlace],
    fixed_length: usize,
}

impl<'a> Sketch<'a> {
    /// For the pattern of all texts that differ from this one in its places only. When one of them directly follows a
    /// byte that might join with another literal, it is the pattern of this text alone. `None` when it would be longer
    /// than `FIXED_MAX`.
    pub(super) fn of(sql: &'a [u8], places: &'a [LiteralPlace]) -> Option<Sketch<'a>> {
        let mut end = 0;
        let mut variable = 0;
        let mut apart = true;
        for place in places {
            apart &= place.start == end || is_apart(sql[place.start - 1], place.kind);
            variable += place.end - place.start;
            end = place.end;
        }
        let (places, variable) = if apart { (places, variable) } else { (&[][..], 0) };
        let fixed_length = sql.len() - variable;
        (fixed_length <= FIXED_MAX).then_some(Sketch { sql, places, fixed_length })
    }

    /// A hash of the pattern.
    pub(super) fn hash(&self, keys: Keys) -> u64 {
        let mut start = 0;
        let mut hash = self.places.len() as u64;
        for place in self.places {
            hash = hash.rotate_left(5).wrapping_add(keys.hash(&self.sql[start..place.start]));
            start = place.end;
        }
        hash.rotate_left(5).wrapping_add(keys.hash(&self.sql[start..]))
    }

    pub(super) fn pattern(&self) -> FormPattern {
        let mut fixed = Vec::with_capacity(self.fixed_length);
        let mut gaps = Vec::with_capacity(self.places.len());
        let mut start = 0;
        for place in self.places {
            fixed.extend_from_slice(&self.sql[start..place.start]);
            gaps.push(Gap { after: fixed.len() as u32, kind: place.kind, many: place.many });
            start = place.end;
        }
        fixed.extend_from_slice(&self.sql[start..]);
        FormPattern { fixed: fixed.into(), gaps: gaps.into() }
    }
}

impl FormPattern {
    /// Whether a text is one of those that the pattern stands for.
    #[inline]
    pub(super) fn matches(&self, sql: &[u8]) -> bool {
        let (mut rest, mut start) = (sql, 0);
        for gap in &self.gaps {
            let end = gap.after as usize;
            let before = &self.fixed[start..end];
            let Some(after) = rest.strip_prefix(before).and_then(|after| gap.pass(after)) else { return false };
            (rest, start) = (after, end);
            if gap.many {
                while let Some(after) = rest.strip_prefix(before).and_then(|after| gap.pass(after)) {
                    rest = after;
                }
            }
        }
        *rest == self.fixed[start..]
    }

    /// How many bytes it takes besides itself.
    pub(super) fn bytes(&self) -> usize {
        self.fixed.len() + self.gaps.len() * size_of::<Gap>()
    }
}

impl Gap {
    /// What follows a token that may stand here, if a text begins with one.
    #[inline(always)]
    fn pass<'a>(&self, sql: &'a [u8]) -> Option<&'a [u8]> {
        let token = Lexer::new(sql).next()?;
        let (value, rest) = sql.split_at(token.end);
        (token.kind == self.kind && is_harmless(token.kind, value)).then_some(rest)
    }
}

/// Whether a byte in front of a literal, or of space with a comment, belongs to a token that ends there also when
/// another one of that kind follows. No literal begins with a character of an operator, but a comment does.
fn is_apart(byte: u8, kind: TokenKind) -> bool {
    match byte {
        b' ' | b'\t' | b'\n' | b'\r' | 0x0c | b',' | b'(' | b')' | b'[' | b']' | b';' => true,
        b'=' | b'<' | b'>' | b'+' | b'-' | b'*' | b'/' | b'%' | b'|' => kind != TokenKind::Space,
        _ => false,
    }
}

/// Whether what stands in a place neither is a hint, nor has a NUL, which makes the whole text unreadable, nor changes whether the
/// whole text is UTF-8.
#[inline]
fn is_harmless(kind: TokenKind, value: &[u8]) -> bool {
    if matches!(kind, TokenKind::Integer | TokenKind::Number) {
        return true;
    }
    if kind == TokenKind::Space && hint::is_in(value) {
        return false;
    }
    let mut at = 0;
    while let Some(word) = eight(value, at) {
        // A zero byte borrows, and so gets the high bit as well.
        if (word.wrapping_sub(LOW) | word) & HIGH != 0 {
            return is_text(&value[at..]);
        }
        at += 8;
    }
    value[at..].iter().all(|byte| matches!(byte, 1..0x80)) || is_text(&value[at..])
}

#[cold]
fn is_text(value: &[u8]) -> bool {
    memchr(0, value).is_none() && std::str::from_utf8(value).is_ok()
}

/// A hash that is the same for most texts with the same pattern: of what comes before the first literal, or of both ends
/// of that if it is long.
#[inline]
pub(super) fn key(keys: Keys, sql: &[u8]) -> u64 {
    let start = &sql[..sql.len().min(FIXED_MAX)];
    let start = &start[..before_literals(start)];
    if start.len() <= 2 * KEY_PART {
        return keys.hash(start);
    }
    let (head, tail) = (&start[..KEY_PART], &start[start.len() - KEY_PART..]);
    keys.hash(head).rotate_left(1) ^ keys.hash(tail).wrapping_add(start.len() as u64)
}

/// Where the first quote or number is. Comments, quoted names and other literals are not told from the rest.
#[inline]
fn before_literals(sql: &[u8]) -> usize {
    let mut from = 0;
    while let Some(at) = find_literal_byte(sql, from) {
        let in_name = at > 0 && sql[at] != b'\'' && CONTINUES_NAME[sql[at - 1] as usize];
        if !in_name {
            return at;
        }
        from = at + 1;
        while from < sql.len() && sql[from].is_ascii_digit() {
            from += 1;
        }
    }
    sql.len()
}

/// Where the first quote or digit from an offset on is.
#[inline]
fn find_literal_byte(sql: &[u8], from: usize) -> Option<usize> {
    let wanted = |byte: u8| byte == b'\'' || byte.is_ascii_digit();
    let mut at = from;
    // Compilers make a few vector instructions of this.
    for chunk in sql[from..].as_chunks::<32>().0 {
        if chunk.iter().fold(false, |any, byte| any | wanted(*byte)) {
            break;
        }
        at += 32;
    }
    while let Some(word) = eight(sql, at) {
        let low = word & !HIGH;
        let from_zero = low + LOW * u64::from(0x80 - b'0');
        let above_nine = low + LOW * u64::from(0x7f - b'9');
        let other_than_quote = (low ^ (LOW * u64::from(b'\''))) + LOW * 0x7f;
        let found = ((from_zero & !above_nine) | !other_than_quote) & !word & HIGH;
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    sql[at..].iter().position(|byte| wanted(*byte)).map(|distance| at + distance)
}

#[cfg(test)]
mod tests {
    use super::super::super::fingerprint::{Buffer, Form};
    use super::super::super::tests::{CASES, filled, literal, piece, statement};
    use super::*;
    use proptest::prelude::*;

    fn form(sql: &[u8]) -> Option<Vec<u8>> {
        let mut buffer = Buffer::default();
        (buffer.write(0, sql) == Form::Regular).then(|| buffer.form().to_vec())
    }

    fn pattern(sql: &str) -> FormPattern {
        let mut buffer = Buffer::default();
        let places = if buffer.write(0, sql.as_bytes()) == Form::Regular { buffer.places() } else { &[] };
        Sketch::of(sql.as_bytes(), places).expect("the text is short").pattern()
    }

    fn matches(known: &str, sql: &str) -> bool {
        pattern(known).matches(sql.as_bytes())
    }

    #[test]
    fn texts_that_differ_in_literals_and_comments_match() {
        for (known, sql) in [
            ("SELECT 1", "SELECT 4711"),
            ("SELECT a FROM t WHERE b = 'x' LIMIT 5;", "SELECT a FROM t WHERE b = 'it''s\n' LIMIT 0x1F;"),
            ("SELECT (1,'a',1.5)", "SELECT (2,'é',.5)"),
            ("SELECT E'a', $$b$$, B'1'", "SELECT e'\\'', $x$ $$ $x$, b'0'"),
            ("SELECT 1 /* a */", "SELECT 2 -- it's b"),
            ("/* a */ 'x'", "-- b\n'y'"),
            ("SELECT 'x'/* a */", "SELECT 'y'/* /* */ b */"),
            ("x IN (1, 2, 3, 4) AND y", "x IN (5, 4, 3, 2, 1) AND y"),
            ("x, 1, 2,3,4,5, 'a'", "x, 1, 2,3,4,5,6, 'b'"),
        ] {
            assert!(matches(known, sql) && matches(sql, known), "{known} / {sql}");
        }
        assert!(matches("f(1,2,3,4)", "f(1,2,3)") && !matches("f(1,2,3)", "f(1,2,3,4)"));
        assert!(matches("", "") && matches("a.5", "a.5"));
    }

    #[test]
    fn other_texts_do_not_match() {
        for (known, sql) in [
            ("SELECT 1", "SELECT '1'"),
            ("SELECT 1", "SELECT 1, 2"),
            ("SELECT 1", "SELECT 1a"),
            ("SELECT 1", "SELECT 1 "),
            ("SELECT 1", "SELECT "),
            ("SELECT 1", "SELECT"),
            ("SELECT 1", ""),
            ("SELECT 1", "SELECT 2147483648"),
            ("a.5", "a1.5"),
            ("float(5)", "float(99)"),
            ("-/* c */ 1", "---\n 1"),
            ("'a' /* c */ 'b'", "'a' -- c\n'b'"),
            ("SELECT 'a', 'b'", r"SELECT 'a\', 'b'"),
            ("f(1,2,3,4)", "f(1,2)"),
            ("f(1,2,3,4)", "f(1,2,3,4,a)"),
            ("f(1,2,3,4)", "f(1,2,3,4,'a')"),
            ("f(1,2,3,4)", "f(1,2,3,4, 5)"),
            ("f(1,2,3,4)", "f(1,2,3,4,"),
            ("SELECT 'a'", "SELECT 'a\0'"),
            ("SELECT 'abcdefgh'", "SELECT 'abcd\0fgh'"),
        ] {
            assert!(!matches(known, sql), "{known} / {sql}");
        }
        assert!(!pattern("SELECT 'a'").matches(b"SELECT '\xff'"));
        assert!(!pattern("SELECT 'a'").matches(b"SELECT 'abcdef\xff '"));
    }

    #[test]
    fn patterns_are_bounded() {
        let long = format!("SELECT {}", "a, ".repeat(FIXED_MAX));
        assert!(Sketch::of(long.as_bytes(), &[]).is_none());
        let many = format!("SELECT {}1", "1, 'a', ".repeat(PLACES_MAX));
        assert!(matches(&many, &many) && !matches(&many, &many.replace("1, ", "2, ")));
        let blob = format!("SELECT '{}'", "a".repeat(10 * FIXED_MAX));
        assert!(matches(&blob, "SELECT ''") && matches("SELECT ''", &blob));
    }

    #[test]
    fn the_first_literal_is_found() {
        for (sql, expected) in [("", 0), ("a", 1), ("7", 0), ("a7 $1 'x'", 6), ("é9 = 1", 6), ("t123.a = .5", 10)] {
            assert_eq!(before_literals(sql.as_bytes()), expected, "{sql}");
        }
        for byte in 0..=255u8 {
            for position in 0..75 {
                let mut bytes = [b'='; 75];
                bytes[position] = byte;
                let expected = if byte == b'\'' || byte.is_ascii_digit() { position } else { 75 };
                assert_eq!(before_literals(&bytes), expected, "{byte} at {position}");
            }
        }
    }

    /// Two texts that have most pieces in common.
    fn two_texts() -> impl Strategy<Value = (String, String)> {
        let change = (any::<prop::sample::Index>(), prop_oneof![piece(), literal(), Just("\0".to_owned())]);
        let changes = prop::collection::vec(change, 1..4);
        let pieces = prop::collection::vec(prop_oneof![2 => piece(), 1 => literal()], 1..20);
        (pieces, changes, any::<bool>()).prop_map(|(mut pieces, changes, spaced)| {
            let known = pieces.join(if spaced { " " } else { "" });
            for (index, piece) in changes {
                let index = index.index(pieces.len());
                pieces[index] = piece;
            }
            (known, pieces.join(if spaced { " " } else { "" }))
        })
    }

    fn two_statements() -> impl Strategy<Value = (String, String)> {
        let literals = || prop::collection::vec(literal(), 1..6);
        (statement(), literals(), literals())
            .prop_map(|(template, known, other)| (filled(template, &known), filled(template, &other)))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4 * CASES, ..ProptestConfig::default() })]

        #[test]
        fn texts_that_match_have_equal_forms((known, sql) in prop_oneof![two_texts(), two_statements()]) {
            prop_assert!(matches(&known, &known));
            if known != sql && matches(&known, &sql) {
                prop_assert!(form(known.as_bytes()).is_some() && !sql.contains('\0'), "{:?} {:?}", known, sql);
                prop_assert_eq!(form(known.as_bytes()), form(sql.as_bytes()), "{:?} {:?}", known, sql);
            }
        }

        #[test]
        fn a_match_is_text(known in two_statements(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = known.1.into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if pattern(&known.0).matches(&bytes) {
                prop_assert!(std::str::from_utf8(&bytes).is_ok() && byte != 0);
            }
        }
    }
}
