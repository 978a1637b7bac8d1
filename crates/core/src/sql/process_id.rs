//! `pg_backend_pid()` in a text that a client sends: a pool's client has the process id that Poolhouse has given it, not
//! that of the server process that happens to run the statement, so the call is written as the value.
//!
//! The value stands in a sublink, `(SELECT 1073741831 AS pg_backend_pid)`: it may stand wherever an expression may, is no
//! position of GROUP BY's or ORDER BY's, and gives a column the name that the call would give it (`FigureColname` in
//! PostgreSQL's parse_target.c). Arguments of EXECUTE and CALL take no sublink, and get the number alone.
//!
//! What is kept beyond the statement must not hold the value: bodies, views, defaults. They are left as they are. So is a
//! text that looks at server processes by their ids (`pg_stat_activity`, `pg_locks`, `pg_blocking_pids` …), in which the
//! server's own number is the one that fits.

use std::collections::BTreeMap;

use super::{
    Lexer, TokenKind,
    parser::{self, Strings},
    tree::{Tree, TreeValue, is_built_in, last_part},
};

const NAME: &str = "pg_backend_pid";

/// What a text becomes, and where it differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// The text that goes to the server.
    pub text: String,
    /// Where it differs from the client's.
    pub edits: Edits,
}

/// Where a text was edited, in the order of places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits(Box<[Edit]>);

/// One place, in characters: where it begins in the edited text, how long it was and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edit {
    at: usize,
    was: usize,
    is: usize,
}

impl Edits {
    /// The position in the client's text that is meant by one in the edited text: both count characters from 1, as the
    /// field `P` of an error does. A position inside of what was put there means the beginning of the call.
    pub fn original(&self, position: usize) -> usize {
        let (mut gone, mut come) = (0, 0);
        for edit in self.0.iter().take_while(|edit| edit.at < position.saturating_sub(1)) {
            if position - 1 < edit.at + edit.is {
                return edit.at + 1 + gone - come;
            }
            (gone, come) = (gone + edit.was, come + edit.is);
        }
        (position + gone).saturating_sub(come)
    }
}

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Where any expression may stand.
    Expression,
    /// Where an expression without a sublink may stand.
    Argument,
    /// In FROM, with a name of its own or without.
    Table { named: bool },
}

/// The text with the process id in the place of every call of pg_backend_pid() that can be replaced; nothing when there
/// is none. Parses the text.
pub fn with_process_id(sql: &[u8], process: u32) -> Option<Edited> {
    let sql = std::str::from_utf8(sql).ok()?;
    if looks_at_processes(sql) {
        return None;
    }
    let json = parser::parse(sql, Strings::Standard).ok()?;
    let calls = calls(&Tree::read_with_positions(&json)?);
    let (mut text, mut edits) = (String::with_capacity(sql.len() + 32 * calls.len()), Vec::new());
    let (mut copied, mut letters) = (0, 0);
    for (start, place) in calls {
        let end = end_of_call(sql, start)?;
        let before = sql.get(copied..start)?;
        text.push_str(before);
        letters += before.chars().count();
        let value = match place {
            Place::Expression => format!("(SELECT {process} AS {NAME})"),
            Place::Argument => process.to_string(),
            Place::Table { named: true } => format!("pg_catalog.abs({process})"),
            Place::Table { named: false } => format!("pg_catalog.abs({process}) AS {NAME}"),
        };
        edits.push(Edit { at: letters, was: sql[start..end].chars().count(), is: value.len() });
        letters += value.len();
        text.push_str(&value);
        copied = end;
    }
    text.push_str(&sql[copied..]);
    (!edits.is_empty()).then(|| Edited { text, edits: Edits(edits.into()) })
}

/// Whether a text names something that knows server processes by their ids, or can be read in two ways.
fn looks_at_processes(sql: &str) -> bool {
    let mut lexer = Lexer::new(sql.as_bytes());
    std::iter::from_fn(|| lexer.next()).any(|token| match token.kind {
        TokenKind::Word | TokenKind::QuotedName => {
            let name = sql[token.start..token.end].trim_matches('"').to_ascii_lowercase();
            let of_statistics = name.starts_with("pg_stat_") && name != "pg_stat_statements";
            of_statistics || ABOUT_PROCESSES.contains(&&*name)
        }
        TokenKind::Text { ambiguous } => ambiguous,
        TokenKind::UnicodeName | TokenKind::Irregular => true,
        _ => false,
    })
}

/// Relations and functions with process ids in them, besides those of statistics.
const ABOUT_PROCESSES: [&str; 9] = [
    "pg_blocking_pids",
    "pg_cancel_backend",
    "pg_isolation_test_session_is_blocked",
    "pg_lock_status",
    "pg_locks",
    "pg_log_backend_memory_contexts",
    "pg_replication_slots",
    "pg_safe_snapshot_blocking_pids",
    "pg_terminate_backend",
];

/// Statements of which nothing is kept but their result.
const REPLACEABLE: [&str; 11] = [
    "SelectStmt",
    "InsertStmt",
    "UpdateStmt",
    "DeleteStmt",
    "MergeStmt",
    "ExplainStmt",
    "DeclareCursorStmt",
    "CreateTableAsStmt",
    "PrepareStmt",
    "ExecuteStmt",
    "CallStmt",
];

/// The calls that can be replaced, in the order of their places: where each begins, in bytes.
fn calls(tree: &Tree<'_>) -> BTreeMap<usize, Place> {
    let mut found = BTreeMap::new();
    let statements = tree.root().get("stmts").into_iter().flat_map(TreeValue::children);
    for statement in statements.filter_map(|raw| raw.get("stmt")?.only()) {
        let kind = statement.key();
        let copies_a_query = kind == "CopyStmt" && statement.get("query").is_some();
        let is_kept = statement.text_of("objtype") == "OBJECT_MATVIEW";
        if is_kept || !copies_a_query && !REPLACEABLE.contains(&kind) {
            continue;
        }
        let usual = if matches!(kind, "ExecuteStmt" | "CallStmt") { Place::Argument } else { Place::Expression };
        found.extend(statement.walk().filter_map(|value| match value.key() {
            "FuncCall" => Some((position(value)?, usual)),
            _ => None,
        }));
        for function in statement.walk().filter(|value| value.key() == "RangeFunction") {
            let named = function.get("alias").is_some();
            let lists = function.get("functions").into_iter().flat_map(TreeValue::children);
            let calls = lists.filter_map(|list| list.get("List")?.get("items")?.only()?.get("FuncCall"));
            found.extend(calls.filter_map(position).map(|place| (place, Place::Table { named })));
        }
    }
    found
}

/// Whether a node calls pg_backend_pid() anywhere. What PREPARE keeps, EXECUTE calls.
pub(super) fn is_called_in(node: TreeValue<'_, '_>) -> bool {
    node.walk().any(|value| value.key() == "FuncCall" && is_call(value))
}

fn is_call(call: TreeValue<'_, '_>) -> bool {
    let Some(name) = call.get("funcname") else { return false };
    last_part(name) == NAME && is_built_in(name) && call.get("args").is_none()
}

/// Where a call of pg_backend_pid() begins; nothing for another call.
fn position(call: TreeValue<'_, '_>) -> Option<usize> {
    let at = call.get("location").filter(|_| is_call(call))?;
    usize::try_from(at.number()).ok()
}

/// Where the call that begins at `start` ends: behind its closing parenthesis.
fn end_of_call(sql: &str, start: usize) -> Option<usize> {
    let rest = &sql.as_bytes()[start..];
    let mut lexer = Lexer::new(rest);
    let closing = std::iter::from_fn(|| lexer.next()).find(|token| &rest[token.start..token.end] == b")")?;
    Some(start + closing.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(sql: &str) -> Option<String> {
        with_process_id(sql.as_bytes(), 7).map(|edited| edited.text)
    }

    #[test]
    fn calls_become_the_value() {
        for (sql, expected) in [
            ("SELECT pg_backend_pid()", "SELECT (SELECT 7 AS pg_backend_pid)"),
            ("select Pg_Catalog . \"pg_backend_pid\" /* a */ ( ) x", "select (SELECT 7 AS pg_backend_pid) x"),
            (
                "SELECT pg_backend_pid()::text, f(pg_backend_pid() + 1) GROUP BY pg_backend_pid()",
                "SELECT (SELECT 7 AS pg_backend_pid)::text, f((SELECT 7 AS pg_backend_pid) + 1) \
                 GROUP BY (SELECT 7 AS pg_backend_pid)",
            ),
            (
                "INSERT INTO t VALUES ('é', pg_backend_pid())",
                "INSERT INTO t VALUES ('é', (SELECT 7 AS pg_backend_pid))",
            ),
            ("EXECUTE s(pg_backend_pid(), 2)", "EXECUTE s(7, 2)"),
            ("CALL p(pg_backend_pid())", "CALL p(7)"),
            ("SELECT * FROM pg_backend_pid()", "SELECT * FROM pg_catalog.abs(7) AS pg_backend_pid"),
            ("SELECT p FROM t, pg_backend_pid() AS p", "SELECT p FROM t, pg_catalog.abs(7) AS p"),
            (
                "SELECT * FROM generate_series(0, pg_backend_pid())",
                "SELECT * FROM generate_series(0, (SELECT 7 AS pg_backend_pid))",
            ),
            ("PREPARE s AS SELECT pg_backend_pid()", "PREPARE s AS SELECT (SELECT 7 AS pg_backend_pid)"),
            ("COPY (SELECT pg_backend_pid()) TO STDOUT", "COPY (SELECT (SELECT 7 AS pg_backend_pid)) TO STDOUT"),
            (
                "BEGIN; SELECT pg_backend_pid(); CREATE VIEW v AS SELECT pg_backend_pid()",
                "BEGIN; SELECT (SELECT 7 AS pg_backend_pid); CREATE VIEW v AS SELECT pg_backend_pid()",
            ),
            ("SELECT 'pg_backend_pid()', pg_backend_pid()", "SELECT 'pg_backend_pid()', (SELECT 7 AS pg_backend_pid)"),
        ] {
            assert_eq!(edited(sql).as_deref(), Some(expected), "{sql}");
            assert!(parser::parse(expected, Strings::Standard).is_ok(), "{expected}");
        }
    }

    #[test]
    fn what_is_kept_or_looks_at_processes_stays() {
        for sql in [
            "SELECT 1",
            "SELECT mine.pg_backend_pid()",
            "SELECT pg_backend_pid(1)",
            "SELECT \"PG_BACKEND_PID\"()",
            "CREATE VIEW v AS SELECT pg_backend_pid()",
            "CREATE MATERIALIZED VIEW v AS SELECT pg_backend_pid()",
            "CREATE TABLE t (a int DEFAULT pg_backend_pid())",
            "DO $$ BEGIN PERFORM pg_backend_pid(); END $$",
            "SELECT * FROM pg_stat_activity WHERE pid = pg_backend_pid()",
            "SELECT * FROM pg_locks WHERE pid = pg_backend_pid()",
            "SELECT pg_terminate_backend(pg_backend_pid())",
            "SELECT pg_backend_pid(), 'a\\'' , 1 --'",
            "SELECT pg_backend_pid(",
        ] {
            assert_eq!(edited(sql), None, "{sql}");
        }
    }

    /// For every character of the client's text that was kept: its position in the edited text leads back.
    #[test]
    fn positions_lead_back() {
        for sql in ["SELECT 'é', pg_backend_pid(), pg_catalog.pg_backend_pid() + nosuch", "SELECT pg_backend_pid()+a"]
        {
            let Edited { text, edits } = with_process_id(sql.as_bytes(), 1 << 30).unwrap();
            let theirs: Vec<char> = sql.chars().collect();
            for (index, letter) in text.chars().enumerate() {
                let original = edits.original(index + 1);
                let inside = edits.0.iter().any(|edit| (edit.at..edit.at + edit.is).contains(&index));
                if inside {
                    assert_eq!(theirs[original - 1], 'p', "{index} of {text}");
                } else {
                    assert_eq!(theirs[original - 1], letter, "{index} of {text}");
                }
            }
        }
    }
}
