//! The canonical form of a text: what is left when literals, comments without hints and needless white space are taken out. Two
//! texts of the same form have the same tokens but for the values of literals, and so the same verdict, except where
//! `walk` says that a value mattered. Names and keywords are kept as they are written.
//!
//! In the form each literal is one control byte that tells its kind (control bytes outside of quoted names make a text
//! irregular, so they cannot be mistaken). More than three literals of one kind in a row, and more than three equal
//! groups in parentheses such as the rows of an INSERT, count as three: they add nothing to a verdict.

use super::hint;
use super::lexer::{Lexer, SqlToken, TokenKind};

/// Whether a text's form can stand for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Regular,
    /// The verdict may depend on more than the form: judge the text itself.
    Irregular,
    /// As irregular, and where its literals end depends on the session's `standard_conforming_strings`.
    Ambiguous,
}

/// Literals and groups beyond this many in a row leave no trace.
const REPEATS_MAX: u32 = 3;

/// Of texts with more places than this, none are known.
pub(super) const PLACES_MAX: usize = 64;

/// What `Buffer::write` needs of room beyond the longest form, so that short pieces are copied in one move.
const SLACK: usize = 16;

/// Holds one canonical form at a time and is used again and again.
#[derive(Default)]
pub(super) struct Buffer {
    /// Never shrinks while in use: beyond `length` are leftovers.
    bytes: Vec<u8>,
    length: usize,
    places: Vec<LiteralPlace>,
}

/// A part of a text that may be replaced by others without a change of the form.
#[derive(Clone, Copy, Debug)]
pub(super) struct LiteralPlace {
    /// Any literal of this kind may stand here; for `Space`, any white space and comments.
    pub(super) kind: TokenKind,
    pub(super) start: usize,
    pub(super) end: usize,
    /// Not only one literal may stand here but any number of them, with what is between the place before and this one
    /// in between: a comma, and maybe blanks.
    pub(super) many: bool,
}

impl Buffer {
    /// Writes the canonical form of a text, with a byte in front that keeps texts of different sorts apart. Takes one
    /// pass and allocates only for a text longer than all before. The form of an irregular text means nothing.
    pub(super) fn write(&mut self, mark: u8, sql: &[u8]) -> Form {
        // A form is never longer than its text: every space that it keeps was one in the text.
        let needed = 1 + sql.len() + SLACK;
        if self.bytes.len() < needed {
            self.bytes.resize(needed, 0);
        }
        self.bytes[0] = mark;
        self.places.clear();
        let mut writer = Writer {
            form: &mut self.bytes,
            length: 1,
            edge: Edge::Mark,
            space: false,
            list: List { kind: 0, count: 0, comma: None },
            groups: Groups::default(),
            places: &mut self.places,
        };
        let form = writer.text(sql);
        self.length = writer.length;
        form
    }

    /// The form that was written last.
    pub(super) fn form(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// The places in the text that was written last: most literals, and comments. None when there are more than
    /// `PLACES_MAX`. Those of an irregular text mean nothing.
    pub(super) fn places(&self) -> &[LiteralPlace] {
        if self.places.len() > PLACES_MAX { &[] } else { &self.places }
    }

    /// Gives the memory back when it has grown beyond some bytes.
    pub(super) fn trim(&mut self, bytes_max: usize) {
        if self.bytes.len() > bytes_max {
            *self = Buffer::default();
        }
    }
}

/// Whether an ambiguous literal follows in the rest of a text that is irregular already.
fn rest(mut lexer: Lexer<'_>) -> Form {
    while let Some(token) = lexer.next() {
        if matches!(token.kind, TokenKind::Text { ambiguous: true }) {
            return Form::Ambiguous;
        }
    }
    Form::Irregular
}

/// How a token joins with a neighbour of the same sort when no white space is between them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    Word,
    Operator,
    Mark,
}

struct Writer<'a> {
    form: &'a mut [u8],
    /// How much of `form` is written.
    length: usize,
    /// The edge of the last token.
    edge: Edge,
    /// White space came after the last token.
    space: bool,
    list: List,
    groups: Groups,
    places: &'a mut Vec<LiteralPlace>,
}

/// Literals of one kind, with commas between them, up to the last token.
struct List {
    kind: u8,
    count: u32,
    /// Where the form has the comma after the last of them, when that was the last token.
    comma: Option<usize>,
}

/// Groups in parentheses, outside of other parentheses, with commas between them.
#[derive(Default)]
struct Groups {
    depth: u32,
    /// Where the open group starts, and where the comma before it, when that directly follows another group.
    start: usize,
    comma_before: Option<usize>,
    /// The last group, and how many equal ones came before and with it.
    last: (usize, usize),
    count: u32,
    /// The last token closed a group; or was the comma after one, and where.
    closed: bool,
    comma: Option<usize>,
}

impl Writer<'_> {
    #[inline]
    fn text(&mut self, sql: &[u8]) -> Form {
        let mut lexer = Lexer::new(sql);
        loop {
            self.space |= lexer.pass_blanks();
            let Some(token) = lexer.next() else { break };
            match self.token(sql, token) {
                Form::Regular => {}
                Form::Irregular => return rest(lexer),
                Form::Ambiguous => return Form::Ambiguous,
            }
        }
        if self.groups.depth == 0 { Form::Regular } else { Form::Irregular }
    }

    #[inline]
    fn push(&mut self, byte: u8) {
        self.form[self.length] = byte;
        self.length += 1;
    }

    /// Appends a piece of the text.
    #[inline]
    fn copy(&mut self, sql: &[u8], start: usize, end: usize) {
        let (length, at) = (end - start, self.length);
        if length <= SLACK && start + SLACK <= sql.len() {
            // A move of fixed size; what is too much will be overwritten.
            self.form[at..at + SLACK].copy_from_slice(&sql[start..start + SLACK]);
        } else {
            self.form[at..at + length].copy_from_slice(&sql[start..end]);
        }
        self.length = at + length;
    }

    /// Writes a token, unless it makes the text irregular.
    #[inline(always)]
    fn token(&mut self, sql: &[u8], token: SqlToken) -> Form {
        match token.kind {
            TokenKind::Space => {
                self.space = true;
                let space = &sql[token.start..token.end];
                if space.iter().any(|byte| matches!(byte, b'-' | b'/')) {
                    if hint::is_in(space) { self.hint(sql, token) } else { self.place(token) }
                }
            }
            TokenKind::Word | TokenKind::QuotedName | TokenKind::Parameter => {
                self.between(Edge::Word);
                self.other();
                self.copy(sql, token.start, token.end);
            }
            TokenKind::Operator | TokenKind::Joint => {
                self.between(Edge::Operator);
                self.other();
                self.copy(sql, token.start, token.end);
            }
            TokenKind::Mark => return self.mark(sql[token.start]),
            TokenKind::Integer if after_float(&self.form[..self.length]) => {
                // The grammar itself refuses a precision of 0 or beyond 53, so here the value matters.
                self.other();
                self.edge = Edge::Word;
                self.copy(sql, token.start, token.end);
            }
            TokenKind::Integer => self.literal(1, sql, token),
            TokenKind::Number => self.literal(2, sql, token),
            TokenKind::Text { ambiguous: false } => self.literal(3, sql, token),
            TokenKind::EscapeText { coded: false } => self.literal(4, sql, token),
            TokenKind::DollarText => self.literal(5, sql, token),
            TokenKind::BitText => self.literal(6, sql, token),
            TokenKind::HexText => self.literal(7, sql, token),
            TokenKind::Text { ambiguous: true } => return Form::Ambiguous,
            TokenKind::EscapeText { coded: true }
            | TokenKind::UnicodeText
            | TokenKind::UnicodeName
            | TokenKind::Irregular => {
                return Form::Irregular;
            }
        }
        Form::Regular
    }

    /// Keeps a comment with a hint as it is. Nothing else in a form has the two characters with which it begins, outside
    /// of quoted names.
    #[cold]
    fn hint(&mut self, sql: &[u8], token: SqlToken) {
        self.other();
        self.copy(sql, token.start, token.end);
        (self.edge, self.space) = (Edge::Mark, false);
    }

    /// Notes a token that might as well be another of its kind.
    #[inline]
    fn place(&mut self, token: SqlToken) {
        if self.places.len() <= PLACES_MAX {
            let SqlToken { kind, start, end } = token;
            self.places.push(LiteralPlace { kind, start, end, many: false });
        }
    }

    /// Notes a literal that leaves no trace, after at least three of its kind in a list.
    #[inline(never)]
    fn place_in_list(&mut self, sql: &[u8], token: SqlToken) {
        if let [.., before, last] = &mut self.places[..]
            && before.kind == token.kind
            && last.kind == token.kind
            && sql[before.end..last.start] == sql[last.end..token.start]
        {
            (last.end, last.many) = (token.end, true);
        } else {
            self.place(token);
        }
    }

    /// Keeps a trace of white space where it parts two tokens that would join otherwise.
    #[inline]
    fn between(&mut self, edge: Edge) {
        if self.space && self.edge == edge {
            self.push(b' ');
        }
        (self.edge, self.space) = (edge, false);
    }

    /// A token that is neither a literal nor a mark ends lists and rows of groups.
    #[inline]
    fn other(&mut self) {
        (self.list.count, self.list.comma) = (0, None);
        (self.groups.closed, self.groups.comma) = (false, None);
    }

    #[inline]
    fn literal(&mut self, kind: u8, sql: &[u8], token: SqlToken) {
        (self.groups.closed, self.groups.comma) = (false, None);
        let comma = self.list.comma.take();
        if let Some(comma) = comma
            && self.list.kind == kind
        {
            if self.list.count >= REPEATS_MAX {
                self.place_in_list(sql, token);
                self.length = comma;
                (self.edge, self.space) = (Edge::Word, false);
                return;
            }
            self.list.count += 1;
        } else {
            (self.list.kind, self.list.count) = (kind, 1);
        }
        self.place(token);
        self.between(Edge::Word);
        self.push(kind);
    }

    fn mark(&mut self, mark: u8) -> Form {
        (self.edge, self.space) = (Edge::Mark, false);
        let at = self.length;
        self.push(mark);
        let (closed, comma) = (self.groups.closed, self.groups.comma.take());
        self.groups.closed = false;
        match mark {
            b',' => {
                self.list.comma = (self.list.count > 0 && self.list.comma.is_none()).then_some(at);
                if self.list.comma.is_none() {
                    self.list.count = 0;
                }
                self.groups.comma = closed.then_some(at);
                return Form::Regular;
            }
            b'(' => {
                if self.groups.depth == 0 {
                    (self.groups.start, self.groups.comma_before) = (at, comma);
                }
                self.groups.depth += 1;
            }
            b')' => {
                let Some(depth) = self.groups.depth.checked_sub(1) else { return Form::Irregular };
                self.groups.depth = depth;
                if depth == 0 {
                    self.close_group(at + 1);
                }
            }
            _ => {}
        }
        (self.list.count, self.list.comma) = (0, None);
        Form::Regular
    }

    fn close_group(&mut self, end: usize) {
        let groups = &mut self.groups;
        groups.closed = true;
        let group = groups.start..end;
        if let Some(comma) = groups.comma_before
            && self.form[groups.last.0..groups.last.1] == self.form[group.clone()]
        {
            if groups.count >= REPEATS_MAX {
                self.length = comma;
                return;
            }
            groups.count += 1;
        } else {
            groups.count = 1;
        }
        groups.last = (group.start, group.end);
    }
}

/// Whether a form ends in `float(`.
fn after_float(form: &[u8]) -> bool {
    form.ends_with(b"(") && form.len() > 6 && form[form.len() - 6..form.len() - 1].eq_ignore_ascii_case(b"float")
}

/// The keys of a hash, spread from one seed.
#[derive(Clone, Copy)]
pub(super) struct Keys([u64; 4]);

impl Keys {
    pub(super) fn new(seed: u64) -> Keys {
        let mut state = seed;
        Keys(std::array::from_fn(|_| {
            // The generator splitmix64: each output is a well-mixed function of the seed.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }))
    }

    /// A hash of bytes, to find them in a table. Seeded against floods of equal hashes, but no more than that: who
    /// uses it compares the bytes.
    #[inline]
    pub(super) fn hash(self, bytes: &[u8]) -> u64 {
        let [left, right, first, second] = self.0;
        let length = bytes.len();
        let mut state = first;
        let mut rest = bytes;
        while let Some((chunk, tail)) = rest.split_first_chunk::<16>()
            && !tail.is_empty()
        {
            let (one, two) = halves(chunk);
            state = fold(one ^ left, two ^ state);
            rest = tail;
        }
        // The last 1 to 16 bytes, as two numbers that may have bytes in common.
        let (one, two) = if let Some(last) = bytes.last_chunk::<16>() {
            halves(last)
        } else if let (Some(head), Some(tail)) = (bytes.first_chunk(), bytes.last_chunk()) {
            (u64::from_le_bytes(*head), u64::from_le_bytes(*tail))
        } else {
            (bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)), 0)
        };
        state = fold(one ^ right, two ^ state);
        fold(state ^ second, left ^ length as u64)
    }
}

/// Sixteen bytes as two numbers.
#[inline]
fn halves(bytes: &[u8; 16]) -> (u64, u64) {
    let all = u128::from_le_bytes(*bytes);
    (all as u64, (all >> 64) as u64)
}

/// Both halves of a product of 128 bits, together.
#[inline]
fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(sql: &str) -> Option<Vec<u8>> {
        let mut buffer = Buffer::default();
        (buffer.write(0, sql.as_bytes()) == Form::Regular).then(|| buffer.form().to_vec())
    }

    fn same(texts: &[&str]) {
        for text in texts {
            assert!(form(text).is_some(), "{text}");
            assert_eq!(form(text), form(texts[0]), "{text}");
        }
    }

    fn different(texts: &[&str]) {
        for (index, text) in texts.iter().enumerate() {
            for other in &texts[..index] {
                assert_ne!(form(text), form(other), "{text} / {other}");
            }
        }
    }

    #[test]
    fn literals_spaces_and_comments_leave_no_trace() {
        same(&[
            "select * from t where id = 1",
            "select  *\n from t where id=42 ",
            "select * from t/* x */where id = 7",
        ]);
        same(&["select 'a'", "select 'b''c'", "select /* 'x' */ '';"].map(|text| text.trim_end_matches(';')));
        same(&["select 1.5", "select 1e9", "select 99999999999"]);
        same(&["x in (1,2,3)", "x in (1,2,3,4)", "x in (1, 2, 3, 4, 5, 6, 7)"]);
        same(&["values (1,'a'),(2,'b'),(3,'c')", "values (1,'a'),(2,'b'),(3,'c'),(4,'d'), (5 , 'e')"]);
        same(&["values (now(),-1),(now(),-1),(now(),-1)", "values (now(),-1),(now(),-1),(now(),-1),(now(),-1)"]);
    }

    #[test]
    fn what_matters_leaves_a_trace() {
        different(&["a b", "ab", "a\"b\"", "a.b", "a,b", "a;b", "a+b", "a+ +b", "a++b"]);
        different(&["select 1", "select '1'", "select $1", "select E'1'", "select 1.0", "select $$1$$", "select B'1'"]);
        different(&["x < - 1", "x <- 1"]);
        different(&["f(1)", "f(1,2)", "f(1,2,3)", "f(1,'a')", "f('a',1)", "f(1,2,3,4+a)", "f(1),(1)"]);
        different(&["x::float(5)", "x::float(99)"]);
        different(&["U & \"a\"", "\"a\""]);
        different(&["(a),(a),(a),(b)", "(a),(a),(a)", "(a),(a),(a) (a)", "(a),(a),(a),a"]);
    }

    #[test]
    fn irregular_texts_are_told() {
        for text in ["1a", "U&'x'", r"E'\x41'", "'open", "$x", "a)", "(a", "\u{b}"] {
            assert_eq!(Buffer::default().write(0, text.as_bytes()), Form::Irregular, "{text}");
        }
        for text in [r"'a\'", r"1a 'b\' x", r"U&'x' '\' x"] {
            assert_eq!(Buffer::default().write(0, text.as_bytes()), Form::Ambiguous, "{text}");
        }
    }

    #[test]
    fn hashes_differ_by_seed_length_and_content() {
        let keys = Keys::new(1);
        assert_ne!(keys.hash(b"abc"), Keys::new(2).hash(b"abc"));
        let mut hashes: Vec<u64> = (0..200).map(|length| keys.hash(&vec![0; length])).collect();
        hashes.extend((0..200usize).map(|bit| {
            let mut bytes = [0u8; 25];
            bytes[bit / 8] = 1 << (bit % 8);
            keys.hash(&bytes)
        }));
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 400);
    }
}
