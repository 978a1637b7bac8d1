//! What a statement is: where it may run, what it does to the transaction and to the session. Pure.
//!
//! `judge` parses a text with PostgreSQL's own grammar (`parser`), reads the tree without recursion (`tree`) and applies
//! the rules (`walk`, `functions`) to get a `Verdict`: of what kind each statement is (`StatementKind`) and what it does
//! (`FactSet`). The verdict of several statements is joined from theirs. `Cache` does the same for the many texts that
//! differ only in literals, by a form of the text (`fingerprint`) that a small lexer of our own makes (`lexer`).
//!
//! What no text shows is told by a `census` of the database's own code.
//!
//! A verdict takes the text as UTF-8. Any other client encoding that contains ASCII gives the same verdict as long as
//! the text is ASCII; a text that is not valid UTF-8 never counts as reading, because in some encodings (Big5, GBK,
//! Shift JIS) a byte that looks like a backslash may be half of a letter.
//!
//! It is right whichever way the session has set `standard_conforming_strings`: only a backslash before a quote in a
//! plain literal makes a difference to where literals end. A text with one is parsed both ways, and unless the second
//! way is a syntax error or gives the same verdict, it writes and pins (`Reason::Backslash`).
//!
//! A text that cannot be parsed writes, is opaque and carries `Pin::Unreadable`. Usually it is a syntax error, which
//! the server refuses too and which changes nothing: a session applies pins only after the server has accepted the
//! statement. Texts nested deeper than some thousands of levels, texts with NUL bytes, and texts made to keep the
//! scanner busy (`SCAN_STEPS_MAX`) count as such.

mod cache;
pub mod census;
mod definitions;
mod facts;
mod fingerprint;
mod functions;
mod hint;
mod known;
mod lexer;
mod lists;
mod normal;
mod own;
mod parser;
mod process_id;
#[cfg(any(test, feature = "testing"))]
pub mod scanner;
mod statement;
#[cfg(test)]
mod statement_tests;
#[cfg(test)]
mod tests;
mod tree;
mod verdict;
mod walk;

use std::borrow::Cow;

pub use cache::Cache;
pub use census::{Catalog, Census, Finding, Hidden};
pub use facts::{Fact, FactSet};
pub use hint::Hint;
pub use known::KnownText;
pub use lists::{Lists, Pattern};
pub use normal::{Called, NORMAL_BYTES_MAX, Normal, Verbatim};
pub use own::{BlockStep, OwnCommand, OwnText, is_own_setting};
pub use process_id::{Edited, Edits, OWN_PROCESS, processes_setting, with_process_id};
pub use statement::StatementKind;
pub use verdict::{
    Access, Composition, Deallocate, DefaultsOf, Isolation, Modes, NameUse, Pin, PinSet, Reason, SettingChange,
    TransactionControl, Unseen, Verdict,
};

use lexer::{Lexer, SqlToken, TokenKind};
use parser::Strings;
use tree::Tree;
use walk::Judgement;

/// Judges a text of SQL, which may hold several statements. Takes one full parse: microseconds for a short statement,
/// about 0.1 s for 1 MiB.
pub fn judge(sql: &str) -> Verdict {
    judge_source(Source::Utf8(sql)).verdict
}

/// As `judge`, for bytes as they came from the client. Bytes that are not UTF-8 are judged as if each wrong one were a
/// letter; the result is never `Access::Read`, and with a backslash anywhere it pins as unreadable.
pub fn judge_bytes(sql: &[u8]) -> Verdict {
    judge_source(Source::of(sql)).verdict
}

/// What [`judge_bytes`] finds, for a cache: see [`Cache::take`].
#[derive(Debug)]
pub struct JudgedApart(Judgement);

/// Judges a text for a cache, which need not be at hand: parsing may take long.
pub fn judge_apart(sql: &[u8]) -> JudgedApart {
    JudgedApart(judge_source(Source::of(sql)))
}

/// The PREPARE that gives a name its meaning, out of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrepareText<'a> {
    /// The whole command, and nothing else that would be done again if it ran again. A text that holds only this is
    /// given as it is.
    pub command: &'a [u8],
    /// The statement inside: `SELECT $1` of `PREPARE a (int) AS SELECT $1; …`.
    pub inner: &'a [u8],
}

/// Finds the PREPARE of `name`; where a text has several, the last. `None` when there is none, or the tokens depend on
/// the session's settings.
pub fn prepared_text<'a>(sql: &'a [u8], name: &[u8]) -> Option<PrepareText<'a>> {
    let mut tokens = Vec::new();
    let mut lexer = Lexer::new(sql);
    while let Some(token) = lexer.next() {
        match token.kind {
            TokenKind::Space => {}
            TokenKind::Irregular | TokenKind::Text { ambiguous: true } => return None,
            _ => tokens.push(token),
        }
    }
    let ends = |token: &SqlToken| &sql[token.start..token.end] == b";";
    let alone = tokens.split(ends).filter(|statement| !statement.is_empty()).count() == 1;
    tokens.split(ends).rev().find_map(|statement| {
        let [prepare, named, rest @ ..] = statement else { return None };
        let text = |token: &SqlToken| &sql[token.start..token.end];
        if !text(prepare).eq_ignore_ascii_case(b"prepare") || *identifier(named.kind, text(named))? != *name {
            return None;
        }
        let (mut depth, mut start) = (0_u32, None);
        for token in rest {
            match text(token) {
                b"(" => depth += 1,
                b")" => depth = depth.checked_sub(1)?,
                word if depth == 0 && word.eq_ignore_ascii_case(b"as") => {
                    start = Some(token.end);
                    break;
                }
                _ => {}
            }
        }
        let end = rest.last()?.end;
        let inner = sql.get(start?..end)?.trim_ascii();
        let command = if alone { sql } else { &sql[prepare.start..end] };
        (!inner.is_empty()).then_some(PrepareText { command, inner })
    })
}

/// What a token names: unquoted names are folded to lower case (manual, "Identifiers and Key Words").
fn identifier(kind: TokenKind, text: &[u8]) -> Option<Cow<'_, [u8]>> {
    match kind {
        TokenKind::Word => Some(text.to_ascii_lowercase().into()),
        TokenKind::QuotedName => {
            let inner = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
            let mut name = Vec::with_capacity(inner.len());
            let mut bytes = inner.iter();
            while let Some(byte) = bytes.next() {
                name.push(*byte);
                if *byte == b'"' {
                    bytes.next();
                }
            }
            Some(name.into())
        }
        _ => None,
    }
}

/// A text, by what its bytes are known to be.
#[derive(Clone, Copy)]
enum Source<'a> {
    Utf8(&'a str),
    Other { bytes: &'a [u8], backslash: bool },
}

impl<'a> Source<'a> {
    fn of(bytes: &'a [u8]) -> Source<'a> {
        match std::str::from_utf8(bytes) {
            Ok(sql) => Source::Utf8(sql),
            Err(_) => Source::Other { bytes, backslash: bytes.contains(&b'\\') },
        }
    }

    /// A byte that tells sources apart whose forms may be equal and whose verdicts are not.
    fn mark(self) -> u8 {
        match self {
            Source::Utf8(_) => 0,
            Source::Other { backslash: false, .. } => 1,
            Source::Other { backslash: true, .. } => 2,
        }
    }

    fn text(self) -> Cow<'a, str> {
        match self {
            Source::Utf8(sql) => Cow::Borrowed(sql),
            Source::Other { bytes, .. } => String::from_utf8_lossy(bytes),
        }
    }
}

fn judge_source(source: Source<'_>) -> Judgement {
    let sql = source.text();
    let survey = Survey::of(sql.as_bytes());
    if survey.scan_steps > SCAN_STEPS_MAX {
        return Judgement { verdict: Verdict::unreadable(), literal: true };
    }
    if let Some(start) = survey.route_of {
        return explain_route(&sql.as_bytes()[start..]);
    }
    let mut judgement = judge_as(&sql, Strings::Standard);
    if survey.ambiguous {
        let other = judge_as(&sql, Strings::Escaping);
        if !other.verdict.pins.contains(Pin::Unreadable) && other.verdict != judgement.verdict {
            judgement.verdict = judgement.verdict.either(other.verdict);
        }
        judgement.literal = true;
    }
    judgement.verdict.hint = survey.hint.map(Box::new);
    if let Source::Other { backslash, .. } = source {
        if judgement.verdict.access() == Access::Read {
            judgement.verdict.reason = Reason::Encoding;
            judgement.verdict.facts.insert(Fact::Uncertain);
        } else if judgement.verdict.reads_but_for_functions() {
            judgement.verdict.facts.insert(Fact::Uncertain);
        }
        if backslash {
            judgement.verdict.unseen = Some(Unseen::dark());
            judgement.verdict.pins.insert(Pin::Unreadable);
        }
    }
    judgement
}

/// EXPLAIN ROUTE of the rest of a text, all of which goes one way.
fn explain_route(rest: &[u8]) -> Judgement {
    let mut judgement = judge_as("", Strings::Standard);
    let command = OwnCommand::ExplainRoute { sql: rest.trim_ascii().into() };
    judgement.verdict.own = Some(Box::new(OwnText::Commands([command].into())));
    Judgement { literal: true, ..judgement }
}

/// Judges a text under one setting of `standard_conforming_strings`.
fn judge_as(sql: &str, strings: Strings) -> Judgement {
    let unreadable = || Judgement { verdict: Verdict::unreadable(), literal: false };
    let Ok(json) = parser::parse(sql, strings) else { return unreadable() };
    Tree::read(&json).map_or_else(unreadable, |tree| walk::judge(&tree))
}

/// What a look at the tokens tells before a text is parsed.
struct Survey {
    /// A literal has a backslash before a quote.
    ambiguous: bool,
    /// About how often PostgreSQL's scanner will look at operator characters.
    scan_steps: u64,
    /// The first hint in a comment.
    hint: Option<Hint>,
    /// The text begins with EXPLAIN ROUTE, which ends here.
    route_of: Option<usize>,
}

/// What stands before a token, but for comments and white space.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Explain,
    More,
}

/// PostgreSQL's scanner reads a row of operator characters to its end for each operator or comment that begins in it:
/// 200 KB of `/*/*/*…` take it a minute. Texts that would take more steps than this, some 30 ms, are not parsed.
const SCAN_STEPS_MAX: u64 = 10_000_000;

impl Survey {
    fn of(sql: &[u8]) -> Survey {
        let mut survey = Survey { ambiguous: false, scan_steps: 0, hint: None, route_of: None };
        let mut lexer = Lexer::new(sql);
        let mut before = Before::Nothing;
        while let Some(token) = lexer.next() {
            if before != Before::More && token.kind != TokenKind::Space {
                let is = |word: &[u8]| {
                    token.kind == TokenKind::Word && sql[token.start..token.end].eq_ignore_ascii_case(word)
                };
                before = match before {
                    Before::Nothing if is(b"explain") => Before::Explain,
                    Before::Explain if is(b"route") => {
                        survey.route_of = Some(token.end);
                        Before::More
                    }
                    _ => Before::More,
                };
            }
            match token.kind {
                TokenKind::Text { ambiguous: true } => survey.ambiguous = true,
                TokenKind::Space | TokenKind::Operator | TokenKind::Irregular => {
                    let text = &sql[token.start..token.end];
                    survey.scan_steps += scan_steps(text);
                    if token.kind == TokenKind::Space && survey.hint.is_none() {
                        survey.hint = hint::find(text);
                    }
                }
                _ => {}
            }
        }
        if survey.ambiguous {
            // Read the other way, anything may be an operator.
            survey.scan_steps = scan_steps(sql);
        }
        survey
    }
}

/// The sum of the squares of the lengths of all rows of operator characters.
fn scan_steps(bytes: &[u8]) -> u64 {
    bytes
        .chunk_by(|left, right| lexer::is_operator(*left) && lexer::is_operator(*right))
        .map(|row| row.len() as u64)
        .map(|length| length * length)
        .sum()
}
