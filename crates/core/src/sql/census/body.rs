//! What the text of a function or a DO block may do, by a look at its tokens alone. Whatever spelling, case, quoting or
//! nesting a body uses, words and names that may touch the state of a session are found; that a harmless body uses them
//! for something else (a column called `hold`) costs a probe and nothing more. Words that stand for something else in
//! nearly every body are told apart by what stands before them: SET of an UPDATE, DO of an ON CONFLICT.
//!
//! SQL and PL/pgSQL share their scanner, so one lexer reads both.

use std::collections::BTreeSet;

use super::assumed;
use crate::sql::{
    functions::{self, FunctionKind as Function},
    lexer::{Lexer, TokenKind},
};

/// What was found in a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::sql) struct Body {
    /// It may change state of the session by itself, whatever the functions do that it calls.
    pub(in crate::sql) touches: bool,
    /// It may write, or read what is not the same on every server.
    pub(in crate::sql) writes: bool,
    /// It may create or change functions, triggers and so on.
    pub(in crate::sql) defines: bool,
    /// It may create something in the schema that comes first in the search path.
    pub(in crate::sql) creates: bool,
    /// It may create a table by SELECT INTO, if it is SQL: in PL/pgSQL that fills a variable.
    pub(in crate::sql) selects_into: bool,
    /// Settings with a dot in their names, which the server lists nowhere, as far as they are named by constants.
    pub(in crate::sql) customs: BTreeSet<Box<str>>,
    /// It may change what the server cannot tell of: a setting whose name does not stand in the body, the seed of random
    /// numbers, or whatever a library changes that it loads.
    pub(in crate::sql) sets_any: bool,
    /// Every name that stands before a parenthesis, folded, without schema: functions, but also tables and keywords.
    pub(in crate::sql) names: BTreeSet<Box<str>>,
}

/// Words that change session state, or run a text that is not there to be looked at.
const TOUCHING: &[&str] = &[
    "deallocate",
    "discard",
    "execute",
    "extension",
    "hold",
    "listen",
    "load",
    "prepare",
    "reset",
    "temp",
    "temporary",
    "unlisten",
];

/// Words of statements that write, or that need the primary.
const WRITING: &[&str] = &[
    "alter", "analyze", "call", "cluster", "comment", "commit", "copy", "create", "delete", "do", "drop", "execute",
    "grant", "import", "insert", "into", "lock", "merge", "notify", "reassign", "refresh", "reindex", "revoke",
    "rollback", "security", "share", "truncate", "update", "vacuum",
];

/// Words of statements that change what code there is.
const DEFINING: &[&str] = &["alter", "create", "drop", "execute", "extension"];

/// Words after which a statement may begin.
const BEFORE_STATEMENT: &[&str] = &["atomic", "begin", "else", "loop", "then"];

/// Looks at a body.
pub(in crate::sql) fn scan(text: &str) -> Body {
    let mut scan = Scan { tokens: tokens(text), body: Body::default(), runs_text: false };
    for at in 0..scan.tokens.len() {
        scan.token(at);
    }
    if scan.runs_text {
        scan.texts();
    }
    scan.body
}

/// Whether a text has the name of the schema of temporary objects in it, however it is quoted.
pub(super) fn names_temporary(text: &str) -> bool {
    let bare: String = text.chars().filter(|letter| !matches!(letter, '\'' | '"' | '\\')).collect();
    bare.to_ascii_lowercase().contains("pg_temp")
}

struct Scan<'a> {
    tokens: Vec<(TokenKind, &'a str)>,
    body: Body,
    /// It runs a text that is made, or given.
    runs_text: bool,
}

impl Body {
    /// Looks for settings that are named in a text of which nothing is known but that it may be run, or is in a language that
    /// is not read here: by SET at the beginning of a statement, or as the first argument of `set_config`. When one is not
    /// there to be read, it may be any.
    pub(in crate::sql) fn note_text(&mut self, text: &str) {
        let text = text.to_ascii_lowercase();
        let is_of_word = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '$');
        let quotes = ['\'', '"', '`', '\\'];
        for (at, _) in text.match_indices("set") {
            let (before, after) = (&text[..at], &text[at + 3..]);
            if before.ends_with(is_of_word) {
                continue;
            }
            let name = if let Some(after) = after.strip_prefix("_config") {
                let after = after.trim_start_matches(quotes).trim_start();
                let Some(argument) = after.strip_prefix('(') else { continue };
                let argument = argument.trim_start();
                let argument = argument.strip_prefix('e').filter(|rest| rest.starts_with(quotes)).unwrap_or(argument);
                let bare = argument.trim_start_matches(quotes);
                let end = bare.find(|letter| !is_of_word(letter) && letter != '.').unwrap_or(bare.len());
                if bare.len() < argument.len() && bare[end..].starts_with(quotes) {
                    bare[..end].into()
                } else {
                    String::new()
                }
            } else if after.starts_with(char::is_whitespace) {
                let begins = before.trim_end().chars().next_back();
                if begins.is_some_and(|last| !quotes.contains(&last) && !matches!(last, ';' | '$')) {
                    continue;
                }
                let after = after.trim_start();
                let after = after.strip_prefix("session ").map_or(after, str::trim_start);
                let bare = after.trim_start_matches(quotes);
                let end = bare.find(|letter| !is_of_word(letter) && !matches!(letter, '.' | '"'));
                bare[..end.unwrap_or(bare.len())].replace('"', "")
            } else {
                continue;
            };
            if name.is_empty() || name.ends_with('.') || name == "seed" {
                self.sets_any = true;
            } else if name.contains('.') {
                self.customs.insert(name.into());
            }
        }
    }
}

/// All tokens but white space and comments.
fn tokens(text: &str) -> Vec<(TokenKind, &str)> {
    let mut lexer = Lexer::new(text.as_bytes());
    let mut tokens = Vec::new();
    while let Some(token) = lexer.next() {
        if token.kind != TokenKind::Space {
            // Tokens end at ASCII characters, or where the text ends.
            let (kind, text) = match text.get(token.start..token.end) {
                Some(text) => (token.kind, text),
                None => (TokenKind::Irregular, ""),
            };
            tokens.push((kind, text));
        }
    }
    tokens
}

impl<'a> Scan<'a> {
    fn token(&mut self, at: usize) {
        let (kind, text) = self.tokens[at];
        match kind {
            TokenKind::Word => {
                let word = text.to_ascii_lowercase();
                self.word(at, &word);
                self.name(at, &word);
            }
            TokenKind::QuotedName => self.name(at, &text[1..text.len() - 1].replace("\"\"", "\"")),
            TokenKind::Text { ambiguous: false } | TokenKind::EscapeText { coded: false } => {
                self.body.touches |= names_temporary(text) || is_continued(text);
            }
            TokenKind::DollarText => self.body.touches |= names_temporary(text),
            // What these mean cannot be told without more rules than they are worth.
            TokenKind::Text { ambiguous: true }
            | TokenKind::EscapeText { coded: true }
            | TokenKind::UnicodeText
            | TokenKind::UnicodeName
            | TokenKind::Irregular => (self.body.touches, self.body.writes) = (true, true),
            TokenKind::Space
            | TokenKind::Parameter
            | TokenKind::Integer
            | TokenKind::Number
            | TokenKind::BitText
            | TokenKind::HexText
            | TokenKind::Operator
            | TokenKind::Mark
            | TokenKind::Joint => {}
        }
    }

    /// The literals of a body that runs a text, which may be made of them. When no statement begins in any of them, it comes
    /// from elsewhere, and may be any.
    fn texts(&mut self) {
        let mut begins = false;
        for (kind, text) in &self.tokens {
            if matches!(kind, TokenKind::Text { .. } | TokenKind::EscapeText { .. } | TokenKind::DollarText) {
                let inside = text.trim_start_matches(['e', 'E']).trim_start_matches(['\'', '$']).trim_start();
                begins |= inside.starts_with(|letter: char| letter.is_ascii_alphabetic()) && inside.contains(' ');
                self.body.note_text(text);
            }
        }
        self.body.sets_any |= !begins;
    }

    /// A word without quotes, which may be a keyword.
    fn word(&mut self, at: usize, word: &str) {
        self.body.touches |= TOUCHING.contains(&word);
        self.runs_text |= word == "execute";
        self.body.writes |= WRITING.contains(&word);
        self.body.defines |= DEFINING.contains(&word);
        self.body.creates |= matches!(word, "create" | "alter");
        let adds_rows =
            || at.checked_sub(1).is_some_and(|before| self.is(before, "insert") || self.is(before, "merge"));
        self.body.selects_into |= word == "into" && !adds_rows();
        self.body.sets_any |= word == "load";
        match word {
            "set" if self.begins_statement(at) => {
                self.body.touches |= !self.is_of_transaction(at);
                self.custom_name(at + 1);
            }
            "do" if self.begins_statement(at) => (self.body.touches, self.body.defines) = (true, true),
            _ => {}
        }
    }

    /// A name, also one without quotes.
    fn name(&mut self, at: usize, name: &str) {
        self.body.touches |= name.starts_with("pg_temp");
        self.body.writes |= functions::is_node_relation(name);
        if self.is(at + 1, "(") {
            self.call(at, name);
        }
    }

    fn call(&mut self, at: usize, name: &str) {
        // What follows AS is an alias with names for its columns.
        if !at.checked_sub(1).is_some_and(|before| self.is(before, "as")) {
            self.body.names.insert(cut(name).into());
        }
        self.body.writes |= match functions::kind(name) {
            Function::RunsText => {
                self.runs_text = true;
                true
            }
            Function::Steady | Function::Unknown => false,
            Function::Volatile | Function::Session | Function::Node => true,
        };
        if matches!(name, "set_config" | "current_setting") {
            self.custom_constant(at + 2);
        }
        self.body.touches |= match name {
            "set_config" if self.is_local_setting(at) => false,
            "set_config" => {
                self.body.sets_any |= self.constant(at + 2).is_none_or(|name| name == "seed");
                true
            }
            "setseed" => {
                self.body.sets_any = true;
                true
            }
            _ => assumed::touches_session(name),
        };
    }

    /// The name that SET is given, if it has a dot.
    fn custom_name(&mut self, mut at: usize) {
        if self.is(at, "local") || self.is(at, "session") {
            at += 1;
        }
        let part = |at: usize| match self.tokens.get(at)? {
            (TokenKind::Word, word) => Some(*word),
            (TokenKind::QuotedName, name) => Some(&name[1..name.len() - 1]),
            _ => None,
        };
        let Some(first) = part(at) else { return };
        let mut name = first.to_ascii_lowercase();
        self.body.sets_any |= name == "seed";
        while self.tokens.get(at + 1) == Some(&(TokenKind::Joint, "."))
            && let Some(next) = part(at + 2)
        {
            name = format!("{name}.{}", next.to_ascii_lowercase());
            at += 2;
        }
        if name.contains('.') {
            self.body.customs.insert(name.into());
        }
    }

    /// The name of a setting that a function is given as a constant, if it has a dot.
    fn custom_constant(&mut self, at: usize) {
        if let Some(name) = self.constant(at).filter(|name| name.contains('.')) {
            self.body.customs.insert(name.into());
        }
    }

    /// The value of a plain literal that is an argument, in lower case. The server writes it as `'value'::text`.
    fn constant(&self, at: usize) -> Option<String> {
        let after: Vec<_> =
            self.tokens[at.min(self.tokens.len())..].iter().skip(1).take(4).map(|(_, text)| *text).collect();
        if !matches!(after[..], ["," | ")", ..] | [":", ":", "text", "," | ")"]) {
            return None;
        }
        match self.tokens.get(at)? {
            (TokenKind::Text { ambiguous: false }, text) if !is_continued(text) => {
                Some(text[1..text.len() - 1].replace("''", "'").to_ascii_lowercase())
            }
            _ => None,
        }
    }

    fn begins_statement(&self, at: usize) -> bool {
        let Some(before) = at.checked_sub(1) else { return true };
        match self.tokens[before] {
            (TokenKind::Mark, ";") => true,
            // The end of a label.
            (TokenKind::Operator, operator) => operator.ends_with('>'),
            (TokenKind::Word, word) => BEFORE_STATEMENT.iter().any(|known| word.eq_ignore_ascii_case(known)),
            _ => false,
        }
    }

    /// SET LOCAL, SET CONSTRAINTS and SET TRANSACTION, all of which end with the transaction. The same words may be the
    /// name of a setting, or the first part of one.
    fn is_of_transaction(&self, at: usize) -> bool {
        let ends = ["local", "constraints", "transaction"].iter().any(|word| self.is(at + 1, word));
        ends && match self.tokens.get(at + 2) {
            Some((TokenKind::Word, word)) => !word.eq_ignore_ascii_case("to"),
            Some((kind, _)) => *kind == TokenKind::QuotedName,
            None => false,
        }
    }

    /// `set_config('name', …, true)`: three arguments, the first a plain constant other than the search path, which may
    /// come to name the schema of temporary objects, and the last one TRUE.
    fn is_local_setting(&self, at: usize) -> bool {
        if self.constant(at + 2).is_none_or(|name| name == "search_path") {
            return false;
        }
        let (mut depth, mut commas) = (0, 0);
        for (here, (kind, text)) in self.tokens.iter().enumerate().skip(at + 1) {
            match (*kind, *text) {
                (TokenKind::Mark, "(" | "[") => depth += 1,
                (TokenKind::Mark, ")" | "]") => depth -= 1,
                (TokenKind::Mark, ",") if depth == 1 => commas += 1,
                _ => {}
            }
            if depth == 0 {
                return commas == 2 && self.is(here - 1, "true") && self.is(here - 2, ",");
            }
        }
        false
    }

    /// Whether a token is a certain mark, or a certain word without quotes.
    fn is(&self, at: usize, text: &str) -> bool {
        self.tokens.get(at).is_some_and(|(kind, token)| {
            matches!(kind, TokenKind::Mark | TokenKind::Word) && token.eq_ignore_ascii_case(text)
        })
    }
}

/// A name as the server cuts it: at 63 bytes, `NAMEDATALEN` of PostgreSQL's `pg_config_manual.h` without the last NUL.
fn cut(name: &str) -> &str {
    let end = (0..=name.len().min(63)).rev().find(|end| name.is_char_boundary(*end));
    &name[..end.unwrap_or(0)]
}

/// Whether a literal in quotes goes on after a line break: what it says is not to be read off its bytes.
fn is_continued(literal: &str) -> bool {
    let escaping = literal.starts_with(['e', 'E']);
    let mut inside = literal.bytes().skip_while(|byte| *byte != b'\'').skip(1).peekable();
    while let Some(byte) = inside.next() {
        match byte {
            b'\\' if escaping => drop(inside.next()),
            b'\'' if inside.peek() == Some(&b'\'') => drop(inside.next()),
            b'\'' => return inside.peek().is_some(),
            _ => {}
        }
    }
    false
}
