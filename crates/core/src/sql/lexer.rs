//! A lexer for PostgreSQL's SQL, just exact enough to know where literals, comments and names begin and end. It
//! follows `scan.l` of PostgreSQL 18 (a test compares the two) and works on bytes: every byte from 0x80 up belongs to
//! a name, as there. It knows no keywords and does not take operators apart.
//!
//! It reads plain literals as with `standard_conforming_strings` on. A session can turn that off, and then a quote
//! after a backslash does not end a literal: such literals are marked `Text { ambiguous: true }`. Without one of them
//! the ends of all tokens are the same under both settings.

use memchr::{memchr, memchr2};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// White space and comments, any number of them.
    Space,
    /// A keyword or a name without quotes.
    Word,
    /// `"name"`
    QuotedName,
    /// `U&"name"`: what it names depends on a UESCAPE that may follow.
    UnicodeName,
    /// `$1`
    Parameter,
    /// An integer that fits 32 bits.
    Integer,
    /// Any other number.
    Number,
    /// `'text'`; `ambiguous` when a backslash stands before a quote, so that where it ends depends on the session.
    Text { ambiguous: bool },
    /// `E'text'`; `coded` with escapes that can be wrong (`\x`, `\u`, octal), so that its value decides whether the
    /// text can be parsed.
    EscapeText { coded: bool },
    /// `U&'text'`
    UnicodeText,
    /// `$tag$text$tag$`
    DollarText,
    /// `B'01'`
    BitText,
    /// `X'1F'`
    HexText,
    /// Operator characters without white space in between, which may be several operators.
    Operator,
    /// One of `,()[];` which never join with a neighbour.
    Mark,
    /// `.` and `:` which join with themselves or with operators.
    Joint,
    /// What PostgreSQL's lexer refuses or what differs between its versions: control characters, things without an
    /// end, letters right after a number.
    Irregular,
}

/// A token: its kind, and its bytes `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SqlToken {
    pub(super) kind: TokenKind,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Walks through a text; the tokens cover it without gaps.
pub(super) struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// What a byte can begin.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ByteClass {
    Irregular,
    Space,
    Letter,
    Digit,
    Quote,
    DoubleQuote,
    Dollar,
    Operator,
    Mark,
    Dot,
    Colon,
}

const CLASSES: [ByteClass; 256] = classes();

/// Whether a byte continues a name: letters, digits, `_`, `$` and everything from 0x80 up.
pub(super) const CONTINUES_NAME: [bool; 256] = continues_name();

const fn classes() -> [ByteClass; 256] {
    let mut table = [ByteClass::Irregular; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0c => ByteClass::Space,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => ByteClass::Letter,
            b'0'..=b'9' => ByteClass::Digit,
            b'\'' => ByteClass::Quote,
            b'"' => ByteClass::DoubleQuote,
            b'$' => ByteClass::Dollar,
            b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'+' | b'-' | b'*' | b'/' | b'%' | b'<'
            | b'>' | b'=' => ByteClass::Operator,
            b',' | b'(' | b')' | b'[' | b']' | b';' => ByteClass::Mark,
            b'.' => ByteClass::Dot,
            b':' => ByteClass::Colon,
            _ => ByteClass::Irregular,
        };
        byte += 1;
    }
    table
}

const fn continues_name() -> [bool; 256] {
    let classes = classes();
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(classes[byte], ByteClass::Letter | ByteClass::Digit | ByteClass::Dollar);
        byte += 1;
    }
    table
}

/// Whether a byte is one of those that make up operators (and the ends of comments).
pub(super) fn is_operator(byte: u8) -> bool {
    CLASSES[byte as usize] == ByteClass::Operator
}

impl<'a> Lexer<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Lexer<'a> {
        Lexer { bytes, at: 0 }
    }

    /// Passes blanks, which most texts have between any two tokens. True when there was one.
    #[inline(always)]
    pub(super) fn pass_blanks(&mut self) -> bool {
        let start = self.at;
        while self.is(0, |byte| byte == b' ' || byte == b'\n') {
            self.at += 1;
        }
        self.at > start
    }

    /// The next token, or `None` at the end of the text. Inlined, so that what a token begins with decides at once what
    /// is written of it, and not twice.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Option<SqlToken> {
        let start = self.at;
        let first = *self.bytes.get(start)?;
        let kind = match CLASSES[first as usize] {
            ByteClass::Space => self.space(),
            ByteClass::Letter => self.word(first),
            ByteClass::Digit => self.number(),
            ByteClass::Quote => self.text(start + 1),
            ByteClass::DoubleQuote => self.quoted_name(start + 1, TokenKind::QuotedName),
            ByteClass::Dollar => self.dollar(),
            ByteClass::Operator => self.operator(),
            ByteClass::Mark => self.take(1, TokenKind::Mark),
            ByteClass::Dot if self.is(1, |byte| byte.is_ascii_digit()) => self.number(),
            ByteClass::Dot if self.is(1, |byte| byte == b'.') => self.take(2, TokenKind::Joint),
            ByteClass::Dot | ByteClass::Colon => self.take(1, TokenKind::Joint),
            ByteClass::Irregular => self.take(1, TokenKind::Irregular),
        };
        Some(SqlToken { kind, start, end: self.at })
    }

    #[inline]
    fn take(&mut self, length: usize, kind: TokenKind) -> TokenKind {
        self.at += length;
        kind
    }

    /// Whether the byte at a distance from the current one exists and passes a test.
    #[inline]
    fn is(&self, distance: usize, test: impl Fn(u8) -> bool) -> bool {
        self.bytes.get(self.at + distance).is_some_and(|byte| test(*byte))
    }

    /// Ends the text: something has no end.
    fn endless(&mut self) -> TokenKind {
        self.at = self.bytes.len();
        TokenKind::Irregular
    }

    #[inline(never)]
    fn space(&mut self) -> TokenKind {
        loop {
            match self.bytes.get(self.at) {
                Some(byte) if CLASSES[*byte as usize] == ByteClass::Space => self.at += 1,
                Some(b'-') if self.is(1, |byte| byte == b'-') => self.line_comment(),
                Some(b'/') if self.is(1, |byte| byte == b'*') => {
                    if !self.block_comment() {
                        return self.endless();
                    }
                }
                _ => return TokenKind::Space,
            }
        }
    }

    fn line_comment(&mut self) {
        let rest = &self.bytes[self.at..];
        self.at += memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
    }

    /// Passes a block comment, which may hold others. False when it has no end.
    fn block_comment(&mut self) -> bool {
        let mut depth = 1;
        self.at += 2;
        while depth > 0 {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let Some(distance) = memchr2(b'*', b'/', rest) else { return false };
            self.at += distance;
            match (rest[distance], rest.get(distance + 1)) {
                (b'/', Some(b'*')) => (depth, self.at) = (depth + 1, self.at + 2),
                (b'*', Some(b'/')) => (depth, self.at) = (depth - 1, self.at + 2),
                (_, Some(_)) => self.at += 1,
                (_, None) => return false,
            }
        }
        true
    }

    #[inline(always)]
    fn word(&mut self, first: u8) -> TokenKind {
        let end = name_end(self.bytes, self.at + 1);
        if end == self.at + 1 && self.bytes.get(end).is_some_and(|next| *next == b'\'' || *next == b'&') {
            return self.prefix(first | 0x20);
        }
        self.at = end;
        TokenKind::Word
    }

    /// What begins with one letter (in lower case) and a quote or an ampersand.
    #[inline(never)]
    fn prefix(&mut self, letter: u8) -> TokenKind {
        let quoted = self.is(1, |byte| byte == b'\'');
        let after = self.bytes.get(self.at + 2);
        match (letter, quoted, after) {
            (b'e', true, _) => self.escape_text(self.at + 2),
            (b'b', true, _) => self.digits_text(self.at + 2, TokenKind::BitText),
            (b'x', true, _) => self.digits_text(self.at + 2, TokenKind::HexText),
            (b'u', false, Some(b'\'')) => self.unicode_text(self.at + 3),
            (b'u', false, Some(b'"')) => self.quoted_name(self.at + 3, TokenKind::UnicodeName),
            _ => self.take(1, TokenKind::Word),
        }
    }

    fn quoted_name(&mut self, inside: usize, kind: TokenKind) -> TokenKind {
        self.at = inside;
        loop {
            let Some(quote) = find(self.bytes, self.at, b'"') else { return self.endless() };
            self.at = quote + 1;
            if !self.is(0, |byte| byte == b'"') {
                return kind;
            }
            self.at += 1;
        }
    }

    /// A plain literal from after its opening quote.
    #[inline(never)]
    fn text(&mut self, inside: usize) -> TokenKind {
        let mut ambiguous = false;
        match self.doubling(inside, |before| ambiguous |= before == b'\\') {
            true => TokenKind::Text { ambiguous },
            false => self.endless(),
        }
    }

    fn unicode_text(&mut self, inside: usize) -> TokenKind {
        match self.doubling(inside, |_| {}) {
            true => TokenKind::UnicodeText,
            false => self.endless(),
        }
    }

    /// Passes a literal in which only a doubled quote is special, with its continuations. `visit` is shown the byte
    /// before each quote. False when it has no end.
    #[inline]
    fn doubling(&mut self, inside: usize, mut visit: impl FnMut(u8)) -> bool {
        self.at = inside;
        loop {
            let Some(quote) = find(self.bytes, self.at, b'\'') else { return false };
            visit(self.bytes[quote - 1]);
            self.at = quote + 1;
            if self.is(0, |byte| byte == b'\'') {
                self.at += 1;
            } else if !self.continuation() {
                return true;
            }
        }
    }

    fn escape_text(&mut self, inside: usize) -> TokenKind {
        self.at = inside;
        let mut coded = false;
        loop {
            match self.bytes.get(self.at) {
                Some(b'\\') => {
                    coded |= self.is(1, |byte| matches!(byte, b'0'..=b'7' | b'x' | b'u' | b'U'));
                    self.at += 2;
                }
                Some(b'\'') => {
                    self.at += 1;
                    if self.is(0, |byte| byte == b'\'') {
                        self.at += 1;
                    } else if !self.continuation() {
                        return TokenKind::EscapeText { coded };
                    }
                }
                Some(_) => self.at += 1,
                None => return self.endless(),
            }
        }
    }

    /// `B'…'` and `X'…'`: quotes are not doubled in them.
    fn digits_text(&mut self, inside: usize, kind: TokenKind) -> TokenKind {
        self.at = inside;
        loop {
            let Some(quote) = find(self.bytes, self.at, b'\'') else { return self.endless() };
            self.at = quote + 1;
            if !self.continuation() {
                return kind;
            }
        }
    }

    /// After the closing quote of a literal: another quote after white space with a line break in it goes on with the
    /// literal (line comments count as white space here, block comments do not). If so, moves past that quote.
    #[inline]
    fn continuation(&mut self) -> bool {
        let mut ahead = Lexer { bytes: self.bytes, at: self.at };
        let mut line_break = false;
        loop {
            match ahead.bytes.get(ahead.at) {
                Some(b'\n' | b'\r') => (line_break, ahead.at) = (true, ahead.at + 1),
                Some(b' ' | b'\t' | 0x0b | 0x0c) => ahead.at += 1,
                Some(b'-') if ahead.is(1, |byte| byte == b'-') => ahead.line_comment(),
                Some(b'\'') if line_break => {
                    self.at = ahead.at + 1;
                    return true;
                }
                _ => return false,
            }
        }
    }

    /// `$1`, `$tag$…$tag$`, or a dollar sign that is neither.
    fn dollar(&mut self) -> TokenKind {
        if self.is(1, |byte| byte.is_ascii_digit()) {
            self.at += 2;
            self.pass_digits(|byte| byte.is_ascii_digit());
            return self.unless_letter_follows(self.at, TokenKind::Parameter);
        }
        let mut end = self.at + 1;
        while let Some(byte) = self.bytes.get(end)
            && *byte != b'$'
            && CONTINUES_NAME[*byte as usize]
        {
            end += 1;
        }
        if self.bytes.get(end) != Some(&b'$') {
            return self.take(1, TokenKind::Irregular);
        }
        let tag = &self.bytes[self.at..=end];
        let mut from = end + 1;
        while let Some(dollar) = find(self.bytes, from, b'$') {
            if self.bytes[dollar..].starts_with(tag) {
                self.at = dollar + tag.len();
                return TokenKind::DollarText;
            }
            from = dollar + 1;
        }
        self.endless()
    }

    fn operator(&mut self) -> TokenKind {
        let start = self.at;
        while let Some(byte) = self.bytes.get(self.at)
            && CLASSES[*byte as usize] == ByteClass::Operator
        {
            let comment = match byte {
                b'-' => self.is(1, |byte| byte == b'-'),
                b'/' => self.is(1, |byte| byte == b'*'),
                _ => false,
            };
            if comment {
                return if self.at == start { self.space() } else { TokenKind::Operator };
            }
            self.at += 1;
        }
        TokenKind::Operator
    }

    #[inline]
    fn number(&mut self) -> TokenKind {
        let start = self.at;
        self.pass_digits(|byte| byte.is_ascii_digit());
        let length = self.at - start;
        let plain = length > 0 && !self.is(0, |byte| CONTINUES_NAME[byte as usize] || byte == b'.');
        if plain && length <= 9 { TokenKind::Integer } else { self.long_number(start) }
    }

    /// Any number but a short integer, whose first digits have been passed.
    fn long_number(&mut self, start: usize) -> TokenKind {
        let radix = match self.bytes.get(start + 1) {
            Some(b'x' | b'X') => 16,
            Some(b'o' | b'O') => 8,
            Some(b'b' | b'B') => 2,
            _ => 10,
        };
        if radix != 10 && self.bytes[start] == b'0' {
            self.at = start + 2;
            if self.pass_groups(true, |byte| (byte as char).is_digit(radix))
                && !self.is(0, |byte| CONTINUES_NAME[byte as usize])
            {
                return integer_kind(&self.bytes[start + 2..self.at], radix);
            }
            self.pass_digits(|byte| CONTINUES_NAME[byte as usize]);
            return TokenKind::Irregular;
        }
        self.pass_groups(true, |byte| byte.is_ascii_digit());
        let mut kind = integer_kind(&self.bytes[start..self.at], 10);
        if self.is(0, |byte| byte == b'.') && (self.at == start || !self.is(1, |byte| byte == b'.')) {
            kind = TokenKind::Number;
            self.at += 1;
            self.pass_groups(false, |byte| byte.is_ascii_digit());
        }
        if self.is(0, |byte| byte | 0x20 == b'e') {
            let sign = self.is(1, |byte| byte == b'+' || byte == b'-') as usize;
            if self.is(1 + sign, |byte| byte.is_ascii_digit()) {
                kind = TokenKind::Number;
                self.at += 1 + sign;
                self.pass_groups(false, |byte| byte.is_ascii_digit());
            }
        }
        self.unless_letter_follows(start, kind)
    }

    fn pass_digits(&mut self, test: impl Fn(u8) -> bool) {
        while self.is(0, &test) {
            self.at += 1;
        }
    }

    /// Passes digits with single underscores between them; `leading` allows an underscore in front. True when there
    /// was a digit.
    fn pass_groups(&mut self, leading: bool, test: impl Fn(u8) -> bool) -> bool {
        let start = self.at;
        loop {
            if self.is(0, &test) {
                self.at += 1;
            } else if (leading || self.at > start) && self.is(0, |byte| byte == b'_') && self.is(1, &test) {
                self.at += 2;
            } else {
                return self.at > start;
            }
        }
    }

    /// A number or parameter directly before a letter is an error since PostgreSQL 15, and two tokens before. So is a
    /// number before a dollar sign when its end could be the beginning of a name, as in `1e5$` and `1_0$`.
    #[inline]
    fn unless_letter_follows(&mut self, start: usize, kind: TokenKind) -> TokenKind {
        let named = || self.bytes[start..self.at].iter().any(|byte| CLASSES[*byte as usize] == ByteClass::Letter);
        if self.is(0, |byte| CLASSES[byte as usize] == ByteClass::Letter || byte == b'$' && named()) {
            self.pass_digits(|byte| CONTINUES_NAME[byte as usize]);
            return TokenKind::Irregular;
        }
        kind
    }
}

/// Whether digits make an integer of 32 bits, which the grammar tells from larger ones.
fn integer_kind(digits: &[u8], radix: u32) -> TokenKind {
    let mut value = 0u64;
    for digit in digits.iter().filter_map(|byte| (*byte as char).to_digit(radix)) {
        value = value.saturating_mul(u64::from(radix)).saturating_add(u64::from(digit));
    }
    if value <= i32::MAX as u64 { TokenKind::Integer } else { TokenKind::Number }
}

/// `1` in each byte of a word.
pub(super) const LOW: u64 = 0x0101_0101_0101_0101;
/// The high bit in each byte of a word.
pub(super) const HIGH: u64 = 0x8080_8080_8080_8080;

/// Eight bytes from an offset on, the first in the lowest place; `None` when there are fewer.
#[inline]
pub(super) fn eight(bytes: &[u8], at: usize) -> Option<u64> {
    let chunk = bytes.get(at..at + 8)?;
    Some(u64::from_le_bytes(chunk.try_into().expect("the slice has eight bytes")))
}

/// The end of the name that goes on at an offset. Looks at eight bytes at a time without branches, because the length
/// of a word is what a processor guesses worst.
#[inline]
fn name_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(word) = eight(bytes, at) {
        let low = word & !HIGH;
        // The high bit of a byte is set when it is at least `first` and at most `last`; all bytes are below 0x80.
        let within = |value: u64, first: u8, last: u8| {
            value.wrapping_add(LOW * u64::from(0x80 - first)) & !value.wrapping_add(LOW * u64::from(0x7f - last))
        };
        let letters = within(low | (LOW * 0x20), b'a', b'z');
        let others = within(low, b'0', b'9') | within(low, b'_', b'_') | within(low, b'$', b'$');
        let ends = !(letters | others | word) & HIGH;
        if ends != 0 {
            return at + ends.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while let Some(byte) = bytes.get(at)
        && CONTINUES_NAME[*byte as usize]
    {
        at += 1;
    }
    at
}

/// Where `find` leaves a text to `memchr`, which is slow to start and fast from there on.
const FIND_SHORT: usize = 32;

/// The offset of the first `wanted` byte from an offset on.
#[inline]
fn find(bytes: &[u8], from: usize, wanted: u8) -> Option<usize> {
    let mut at = from;
    while let Some(word) = eight(bytes, at) {
        let word = word ^ (LOW * u64::from(wanted));
        // A zero byte borrows, so that its high bit is set; the lowest such bit is exact.
        let zeros = word.wrapping_sub(LOW) & !word & HIGH;
        if zeros != 0 {
            return Some(at + zeros.trailing_zeros() as usize / 8);
        }
        at += 8;
        if at - from >= FIND_SHORT {
            return memchr(wanted, &bytes[at..]).map(|distance| at + distance);
        }
    }
    bytes[at.min(bytes.len())..].iter().position(|byte| *byte == wanted).map(|distance| at + distance)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, expected: &[(TokenKind, &str)]) {
        let mut lexer = Lexer::new(sql.as_bytes());
        let tokens: Vec<_> = std::iter::from_fn(|| lexer.next())
            .filter(|token| token.kind != TokenKind::Space)
            .map(|token| (token.kind, &sql[token.start..token.end]))
            .collect();
        assert_eq!(tokens, expected, "{sql}");
    }

    const PLAIN: TokenKind = TokenKind::Text { ambiguous: false };
    const AMBIGUOUS: TokenKind = TokenKind::Text { ambiguous: true };
    const ESCAPED: TokenKind = TokenKind::EscapeText { coded: false };

    #[test]
    fn literals() {
        check("'a''b' 'c'", &[(PLAIN, "'a''b'"), (PLAIN, "'c'")]);
        check("'a'\n 'b'", &[(PLAIN, "'a'\n 'b'")]);
        check("'a' -- x\n 'b'", &[(PLAIN, "'a' -- x\n 'b'")]);
        check("'a' /* \n */ 'b'", &[(PLAIN, "'a'"), (PLAIN, "'b'")]);
        check(r"'a\' 'b'", &[(AMBIGUOUS, r"'a\'"), (PLAIN, "'b'")]);
        check(r"'a\b'", &[(PLAIN, r"'a\b'")]);
        check(r"E'a\'b' e'\\'", &[(ESCAPED, r"E'a\'b'"), (ESCAPED, r"e'\\'")]);
        check(r"e'\x41'", &[(TokenKind::EscapeText { coded: true }, r"e'\x41'")]);
        check("B'01' X'1f'", &[(TokenKind::BitText, "B'01'"), (TokenKind::HexText, "X'1f'")]);
        check("U&'a' u&\"b\"", &[(TokenKind::UnicodeText, "U&'a'"), (TokenKind::UnicodeName, "u&\"b\"")]);
        check("N'a' e 'b'", &[(TokenKind::Word, "N"), (PLAIN, "'a'"), (TokenKind::Word, "e"), (PLAIN, "'b'")]);
        check("$$a'$b$$", &[(TokenKind::DollarText, "$$a'$b$$")]);
        check("$a$ $b$ $$ $a$", &[(TokenKind::DollarText, "$a$ $b$ $$ $a$")]);
        check("a$b$c$b$", &[(TokenKind::Word, "a$b$c$b$")]);
        check("'abc", &[(TokenKind::Irregular, "'abc")]);
    }

    #[test]
    fn numbers() {
        for integer in ["0", "42", "1_000", "0x1F", "0b1", "0o17", "2147483647", "0x_7fffffff"] {
            check(integer, &[(TokenKind::Integer, integer)]);
        }
        for number in ["1.", ".5", "1.5e-3", "2147483648", "1e5", "0x80000000", "99999999999999999999", "1_0.0_1e1_0"] {
            check(number, &[(TokenKind::Number, number)]);
        }
        check("1..2", &[(TokenKind::Integer, "1"), (TokenKind::Joint, ".."), (TokenKind::Integer, "2")]);
        for irregular in ["1a", "1_", "0x", "0xg", "1e", "0b12", "$1a", "1.5e"] {
            check(irregular, &[(TokenKind::Irregular, irregular)]);
        }
        check("$1", &[(TokenKind::Parameter, "$1")]);
    }

    #[test]
    fn comments_and_operators() {
        check("a/* /* */ ' */b -- '\nc", &[(TokenKind::Word, "a"), (TokenKind::Word, "b"), (TokenKind::Word, "c")]);
        check("a+-b", &[(TokenKind::Word, "a"), (TokenKind::Operator, "+-"), (TokenKind::Word, "b")]);
        check(
            "a+--b\n*/*c*/d",
            &[(TokenKind::Word, "a"), (TokenKind::Operator, "+"), (TokenKind::Operator, "*"), (TokenKind::Word, "d")],
        );
        check("/* x", &[(TokenKind::Irregular, "/* x")]);
        check("\"a\"\"b\" \"", &[(TokenKind::QuotedName, "\"a\"\"b\""), (TokenKind::Irregular, "\"")]);
        check("\u{1}", &[(TokenKind::Irregular, "\u{1}")]);
    }

    #[test]
    fn names_end_where_the_table_says() {
        for byte in 0..=255u8 {
            for position in 0..20 {
                let mut bytes = [b'z'; 24];
                bytes[position] = byte;
                let expected = if CONTINUES_NAME[byte as usize] { 24 } else { position };
                assert_eq!(name_end(&bytes, 0), expected, "{byte} at {position}");
            }
        }
    }

    #[test]
    fn finds_bytes_at_every_offset() {
        for length in 0..80 {
            for position in 0..length {
                let mut bytes = vec![b'&'; length];
                bytes[position] = b'\'';
                for from in 0..=length {
                    let expected = (from <= position).then_some(position);
                    assert_eq!(find(&bytes, from, b'\''), expected, "{length} {position} {from}");
                }
            }
        }
    }
}
