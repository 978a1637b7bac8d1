//! Our lexer beside PostgreSQL's own scanner. The tests and the fuzz target of the lexer use it.

use super::lexer::{Lexer, TokenKind};

/// Where literals, quoted names and comments are, by PostgreSQL's scanner; `None` when it refuses the text.
fn scanned(sql: &str) -> Option<Vec<(usize, usize, bool)>> {
    use pg_query::protobuf::Token as Scanned;
    let tokens = pg_query::scan(sql).ok()?.tokens;
    Some(
        tokens
            .iter()
            .filter_map(|token| {
                let kind = Scanned::try_from(token.token).ok()?;
                let literal = match kind {
                    Scanned::Sconst | Scanned::Usconst | Scanned::Bconst | Scanned::Xconst => true,
                    Scanned::Iconst | Scanned::Fconst => true,
                    Scanned::Ident | Scanned::Uident | Scanned::Param => false,
                    _ => return None,
                };
                Some((token.start as usize, token.end as usize, literal))
            })
            .collect(),
    )
}

/// Compares our tokens with the scanner's: every literal of either is one of the other, with the same ends.
pub fn compare_with_scanner(sql: &str) {
    let mut lexer = Lexer::new(sql.as_bytes());
    let ours: Vec<_> = std::iter::from_fn(|| lexer.next()).collect();
    let mut at = 0;
    for token in &ours {
        assert_eq!(token.start, at, "tokens leave no gap: {sql:?}");
        assert!(token.end > at);
        at = token.end;
    }
    assert_eq!(at, sql.len());
    if ours.iter().any(|token| token.kind == TokenKind::Irregular) {
        return;
    }
    let is_literal = |kind| {
        !matches!(
            kind,
            TokenKind::Space
                | TokenKind::Word
                | TokenKind::QuotedName
                | TokenKind::UnicodeName
                | TokenKind::Parameter
                | TokenKind::Operator
                | TokenKind::Mark
                | TokenKind::Joint
                | TokenKind::Irregular
        )
    };
    let Some(theirs) = scanned(sql) else {
        // Only what makes a text irregular may be refused by the scanner and not by us, names of no length, and operators
        // that are too long.
        let known = ours.iter().any(|token| {
            let bytes = &sql[token.start..token.end];
            matches!(
                token.kind,
                TokenKind::EscapeText { coded: true } | TokenKind::UnicodeText | TokenKind::UnicodeName
            ) || token.kind == TokenKind::QuotedName && bytes == "\"\""
                || token.kind == TokenKind::Parameter && bytes.len() > 9
                || token.kind == TokenKind::Operator && bytes.len() > 63
        });
        assert!(known, "the scanner refuses {sql:?}, and we do not");
        return;
    };
    let literals: Vec<_> = ours.iter().filter(|token| is_literal(token.kind)).map(|token| token.start).collect();
    let expected: Vec<_> = theirs.iter().filter(|(.., literal)| *literal).map(|(start, ..)| *start).collect();
    assert_eq!(literals, expected, "{sql:?}\n{ours:?}");
    for (start, end, literal) in theirs {
        let token = ours.iter().find(|token| token.start == start);
        assert!(token.is_some_and(|token| token.end == end), "{start}..{end} {literal} in {sql:?}\n{ours:?}");
    }
}
