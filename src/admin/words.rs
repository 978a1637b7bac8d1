//! What is typed into the console, as words: PostgreSQL's lexical rules as far as the console needs them. Pure.

use std::fmt;

/// One word of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// A bare name or keyword, as it was typed.
    Name(String),
    /// A name in double quotes.
    Quoted(String),
    /// A text in single quotes, or what a parameter stands for.
    Text(String),
    /// NULL, as what a parameter stands for.
    Null,
    /// Digits, with a sign, a point, or an exponent at most.
    Number(String),
    /// `$1` is 1.
    Parameter(u16),
    /// Punctuation.
    Sign(&'static str),
}

impl Word {
    /// Whether it is this keyword, in whatever case.
    pub fn is(&self, keyword: &str) -> bool {
        matches!(self, Word::Name(name) if name.eq_ignore_ascii_case(keyword))
    }
}

impl fmt::Display for Word {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Word::Name(text) | Word::Number(text) => formatter.write_str(text),
            Word::Quoted(text) => write!(formatter, "\"{text}\""),
            Word::Text(text) => write!(formatter, "'{text}'"),
            Word::Null => formatter.write_str("NULL"),
            Word::Parameter(number) => write!(formatter, "${number}"),
            Word::Sign(sign) => formatter.write_str(sign),
        }
    }
}

/// Why a text is no words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stray {
    #[error("unterminated quoted string at or near \"{0}\"")]
    OpenQuote(String),
    #[error("unterminated /* comment")]
    OpenComment,
    #[error("syntax error at or near \"{0}\"")]
    Character(char),
    #[error("there is no parameter ${0}")]
    Parameter(String),
}

/// The longer ones come first.
const SIGNS: [&str; 19] =
    ["!~~*", "!~*", "!~", "~*", "<>", "!=", "<=", ">=", "::", "=", "<", ">", "~", ",", "(", ")", "*", "+", "-"];

/// The statements of a text, each as its words; empty ones are left out.
///
/// # Errors
/// [`Stray`].
pub fn statements(text: &str) -> Result<Vec<Vec<Word>>, Stray> {
    if let Some(words) = explain_route(text)? {
        return Ok(vec![words]);
    }
    let mut statements = Vec::new();
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        rest = skip_blanks(rest)?;
        let Some(first) = rest.chars().next() else { break };
        if first == ';' {
            statements.push(std::mem::take(&mut words));
            rest = &rest[1..];
            continue;
        }
        let (word, after) = word(rest, first)?;
        words.push(word);
        rest = after;
    }
    statements.push(words);
    statements.retain(|words| !words.is_empty());
    Ok(statements)
}

/// EXPLAIN ROUTE takes the rest of the text as it is, for one word: it is not for the console to read.
fn explain_route(text: &str) -> Result<Option<Vec<Word>>, Stray> {
    let mut words = Vec::new();
    let mut rest = text;
    for keyword in ["EXPLAIN", "ROUTE"] {
        match next_name(rest)? {
            Some((name, after)) if name.is(keyword) => {
                words.push(name);
                rest = after;
            }
            _ => return Ok(None),
        }
    }
    while let Some((keyword, after)) = next_name(rest)?.filter(|(name, _)| name.is("DATABASE") || name.is("USER")) {
        words.push(keyword);
        rest = skip_blanks(after)?;
        let Some(first) = rest.chars().next() else { return Ok(Some(words)) };
        let (name, after) = word(rest, first)?;
        words.push(name);
        rest = after;
    }
    let sql = skip_blanks(rest)?.trim_end_matches(|character: char| character.is_whitespace() || character == '\0');
    match sql.strip_suffix(';').unwrap_or(sql) {
        "" => {}
        quoted if quoted.starts_with('\'') => words.push(word(quoted, '\'')?.0),
        sql => words.push(Word::Text(sql.to_owned())),
    }
    Ok(Some(words))
}

/// The next word, if it is a bare name, and what follows.
fn next_name(text: &str) -> Result<Option<(Word, &str)>, Stray> {
    let text = skip_blanks(text)?;
    match text.chars().next() {
        Some(first) if first.is_ascii_alphabetic() => Ok(Some(word(text, first)?)),
        _ => Ok(None),
    }
}

/// Blanks and comments.
fn skip_blanks(mut text: &str) -> Result<&str, Stray> {
    loop {
        text = text.trim_start_matches(|character: char| character.is_whitespace() || character == '\0');
        if text.starts_with("--") {
            text = text.split_once('\n').map_or("", |(_, rest)| rest);
        } else if text.starts_with("/*") {
            text = skip_comment(text)?;
        } else {
            return Ok(text);
        }
    }
}

/// Comments may hold comments.
fn skip_comment(text: &str) -> Result<&str, Stray> {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match text.as_bytes().get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return Ok(&text[at..]);
        }
    }
    Err(Stray::OpenComment)
}

fn word(text: &str, first: char) -> Result<(Word, &str), Stray> {
    match first {
        '\'' => quoted(text, '\'').map(|(content, rest)| (Word::Text(content), rest)),
        '"' => quoted(text, '"').map(|(content, rest)| (Word::Quoted(content), rest)),
        '$' => {
            let (digits, rest) = split_while(&text[1..], |character| character.is_ascii_digit());
            let number = digits.parse().ok().filter(|number| *number > 0);
            let number = number.ok_or_else(|| Stray::Parameter(digits.to_owned()))?;
            Ok((Word::Parameter(number), rest))
        }
        _ if first.is_ascii_digit() || (first == '.' && text[1..].starts_with(|next: char| next.is_ascii_digit())) => {
            let (number, rest) = split_while(text, |character| character.is_ascii_alphanumeric() || character == '.');
            Ok((Word::Number(number.to_owned()), rest))
        }
        _ if first.is_alphabetic() || first == '_' => {
            let inside = |character: char| character.is_alphanumeric() || "_$.".contains(character);
            let (name, rest) = split_while(text, inside);
            Ok((Word::Name(name.to_owned()), rest))
        }
        _ => {
            let sign = SIGNS.into_iter().find(|sign| text.starts_with(sign));
            let sign = sign.ok_or(Stray::Character(first))?;
            Ok((Word::Sign(sign), &text[sign.len()..]))
        }
    }
}

/// What stands in quotes; two of them stand for one.
fn quoted(text: &str, quote: char) -> Result<(String, &str), Stray> {
    let mut content = String::new();
    let mut rest = &text[1..];
    loop {
        let (before, after) = rest.split_once(quote).ok_or_else(|| Stray::OpenQuote(text.to_owned()))?;
        content.push_str(before);
        match after.strip_prefix(quote) {
            Some(more) => {
                content.push(quote);
                rest = more;
            }
            None => return Ok((content, after)),
        }
    }
}

fn split_while(text: &str, inside: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|character| !inside(character)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let show = |words: &Vec<Word>| words.iter().map(Word::to_string).collect::<Vec<_>>().join(" ");
        statements(text).unwrap().iter().map(show).collect()
    }

    #[test]
    fn texts_become_words() {
        for (text, expected) in [
            ("", &[][..]),
            (" ; ;; ", &[]),
            ("show pools", &["show pools"]),
            ("SHOW pools;SHOW stats;", &["SHOW pools", "SHOW stats"]),
            ("-- a\nshow /* b /* c */ d */ pools -- e", &["show pools"]),
            ("pause \"my \"\"db\"\"\"", &["pause \"my \"db\"\""]),
            ("where a='it''s' and b>=10.5", &["where a = 'it's' and b >= 10.5"]),
            ("set log.level='debug'", &["set log.level = 'debug'"]),
            ("a!~*$2,b", &["a !~* $2 , b"]),
            ("'; --'", &["'; --'"]),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_word_is_named() {
        for (text, expected) in [
            ("show 'pools", Stray::OpenQuote("'pools".into())),
            ("show \"a", Stray::OpenQuote("\"a".into())),
            ("/* /* */", Stray::OpenComment),
            ("show §", Stray::Character('§')),
            ("kill_client $0", Stray::Parameter("0".into())),
            ("kill_client $", Stray::Parameter(String::new())),
        ] {
            assert_eq!(statements(text), Err(expected), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "\\PC*") {
            let _ = statements(&text);
        }

        #[test]
        fn quotes_keep_what_they_hold(content in "\\PC*") {
            let content = content.replace('\0', "");
            let text = format!("'{}'", content.replace('\'', "''"));
            prop_assert_eq!(statements(&text), Ok(vec![vec![Word::Text(content)]]));
        }
    }
}
