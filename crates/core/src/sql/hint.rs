//! Hints: comments in which a statement says itself where it wants to run. A comment is one when it begins with
//! `poolhouse:`, or says `NO LOAD BALANCE` and nothing else, which is Pgpool-II's word for the primary.

use memchr::memchr2;

/// Where a statement wants to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// The primary.
    Primary,
    /// A replica, whatever it does.
    Replica,
    /// The node of this name.
    Node(Box<str>),
    /// It begins as a hint does and says something else.
    Unknown(Box<str>),
}

/// Whether white space with comments holds a hint.
#[inline(never)]
pub(super) fn is_in(space: &[u8]) -> bool {
    Comments { space }.any(|comment| text(comment).is_some())
}

/// The first hint in white space with comments.
pub(super) fn find(space: &[u8]) -> Option<Hint> {
    let (text, named) = Comments { space }.find_map(text)?;
    if !named {
        return Some(Hint::Primary);
    }
    let words = String::from_utf8_lossy(text);
    let (word, value) = words.split_once('=').map_or((&*words, None), |(word, value)| (word, Some(value)));
    let word = word.trim().to_ascii_lowercase();
    Some(match (word.as_str(), value.map(str::trim)) {
        ("primary", None) => Hint::Primary,
        ("replica", None) => Hint::Replica,
        ("node", Some(name)) if !name.is_empty() => Hint::Node(name.into()),
        _ => Hint::Unknown(words.trim().into()),
    })
}

/// What a comment says as a hint, and whether it names Poolhouse; `None` for any other comment.
fn text(comment: &[u8]) -> Option<(&[u8], bool)> {
    const NAMED: &[u8] = b"poolhouse:";
    let comment = comment.trim_ascii();
    match comment.split_at_checked(NAMED.len()) {
        Some((start, rest)) if start.eq_ignore_ascii_case(NAMED) => Some((rest.trim_ascii(), true)),
        _ => comment.eq_ignore_ascii_case(b"NO LOAD BALANCE").then_some((comment, false)),
    }
}

/// The comments in white space, without what begins and ends them.
struct Comments<'a> {
    space: &'a [u8],
}

impl<'a> Iterator for Comments<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            match self.space {
                [b'-', b'-', rest @ ..] => {
                    let end = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                    self.space = &rest[end..];
                    return Some(&rest[..end]);
                }
                [b'/', b'*', rest @ ..] => {
                    let end = block_end(rest);
                    self.space = rest.get(end + 2..).unwrap_or_default();
                    return Some(&rest[..end]);
                }
                [_, rest @ ..] => self.space = rest,
                [] => return None,
            }
        }
    }
}

/// Where the end of a block comment begins, from after its beginning; block comments may hold others.
fn block_end(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (1, 0);
    while let Some(distance) = memchr2(b'*', b'/', rest.get(at..).unwrap_or_default()) {
        at += distance;
        match (rest[at], rest.get(at + 1)) {
            (b'/', Some(b'*')) => (depth, at) = (depth + 1, at + 2),
            (b'*', Some(b'/')) if depth == 1 => return at,
            (b'*', Some(b'/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_told_from_other_comments() {
        let check = |space: &str, expected: Option<Hint>| {
            assert_eq!(is_in(space.as_bytes()), expected.is_some(), "{space}");
            assert_eq!(find(space.as_bytes()), expected, "{space}");
        };
        check("/* poolhouse: primary */", Some(Hint::Primary));
        check("/*POOLHOUSE:Replica*/", Some(Hint::Replica));
        check("  -- poolhouse: primary\n", Some(Hint::Primary));
        check("--poolhouse:replica", Some(Hint::Replica));
        check("/* a */ /* b /* poolhouse: x */ */\n/* poolhouse: replica */", Some(Hint::Replica));
        check("/* poolhouse: node = 10.0.0.1:5432 */", Some(Hint::Node("10.0.0.1:5432".into())));
        check("/* poolhouse: primary *//* poolhouse: replica */", Some(Hint::Primary));
        check("/*NO LOAD BALANCE*/", Some(Hint::Primary));
        check("/* no load balance */", Some(Hint::Primary));
        for unknown in ["standby", "node=", "node", "primary=1", "primary replica", ""] {
            check(&format!("/* poolhouse: {unknown} */"), Some(Hint::Unknown(unknown.into())));
        }
        for other in [
            " \n",
            "/* poolhouse */",
            "/* see poolhouse: primary */",
            "/* NO LOAD BALANCES */",
            "-- x\n/*y*/",
            "/*application='poolhouse: primary'*/",
            "/**/",
            "--",
            "/*/*poolhouse: primary*/*/",
        ] {
            check(other, None);
        }
    }
}
