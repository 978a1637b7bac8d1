//! `pg_backend_pid()` in a text that a client sends: a pool's client has the process id that Poolhouse has given it, not
//! that of the server process that happens to run the statement, so the call is written as the value.
//!
//! The value stands in a sublink, `(SELECT 1073741831 AS pg_backend_pid)`: it may stand wherever an expression may, is no
//! position of GROUP BY's or ORDER BY's, and gives a column the name that the call would give it (`FigureColname` in
//! PostgreSQL's parse_target.c). Arguments of EXECUTE and CALL take no sublink, and get the number alone.
//!
//! What is kept beyond the statement must not hold the value: bodies, views, defaults. They are left as they are. So is a
//! text that looks at server processes by their ids (`pg_stat_activity`, `pg_locks` …), in which the server's own number is
//! the one that fits.
//!
//! Functions of the kind of pg_blocking_pids() take ids of clients and name clients by theirs: around their arguments and
//! results stands SQL that looks up in a setting which server process each client has now. The setting is brought in front of
//! the statement. A process that no client has keeps its id.

use std::{collections::BTreeMap, fmt::Write};

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
    /// A call of pg_isolation_test_session_is_blocked(), which takes two arguments with process ids.
    Blocked,
    /// A call of one of the functions that say who blocks a process.
    Blocking { name: &'static str },
}

/// The text with the process id in the place of every call of pg_backend_pid() that can be replaced; nothing when there
/// is none. Parses the text.
pub fn with_process_id(sql: &[u8], process: u32) -> Option<Edited> {
    let sql = std::str::from_utf8(sql).ok()?;
    if looks_at_processes(sql) {
        return None;
    }
    let json = parser::parse(sql, Strings::Standard).ok()?;
    let mut splices = Vec::new();
    for (start, place) in calls(&Tree::read_with_positions(&json)?) {
        place.splices(sql, start, process, &mut splices)?;
    }
    splices.sort_by_key(|splice| (splice.start, splice.rank));
    let (mut text, mut edits) = (String::with_capacity(sql.len() + 64 * splices.len()), Vec::new());
    let (mut copied, mut letters) = (0, 0);
    for Splice { start, end, text: value, .. } in splices {
        let before = sql.get(copied..start)?;
        text.push_str(before);
        letters += before.chars().count();
        edits.push(Edit { at: letters, was: sql[start..end].chars().count(), is: value.len() });
        letters += value.len();
        text.push_str(&value);
        copied = end;
    }
    text.push_str(&sql[copied..]);
    (!edits.is_empty()).then(|| Edited { text, edits: Edits(edits.into()) })
}

/// What is put in the place of some bytes of a text, or between two.
struct Splice {
    start: usize,
    end: usize,
    text: String,
    /// Of what stands at one place: what closes a call comes first, that of the innermost before all others.
    rank: (bool, isize),
}

impl Splice {
    fn before(call: usize, at: usize, text: String) -> Splice {
        Splice { start: at, end: at, text, rank: (true, call as isize) }
    }

    fn behind(call: usize, at: usize, text: String) -> Splice {
        Splice { start: at, end: at, text, rank: (false, -(call as isize)) }
    }
}

impl Place {
    /// What is spliced in for the call that begins at `start`; nothing when its end is not found.
    fn splices(self, sql: &str, start: usize, process: u32, splices: &mut Vec<Splice>) -> Option<()> {
        let marks = marks_of_call(sql, start)?;
        let (open, close) = (*marks.first()?, *marks.last()?);
        let own = |text| Splice { start, end: close + 1, text, rank: (true, start as isize) };
        match self {
            Place::Expression => splices.push(own(format!("(SELECT {process} AS {NAME})"))),
            Place::Argument => splices.push(own(process.to_string())),
            Place::Table { named: true } => splices.push(own(format!("pg_catalog.abs({process})"))),
            Place::Table { named: false } => splices.push(own(format!("pg_catalog.abs({process}) AS {NAME}"))),
            Place::Blocked => {
                let [_, comma, _] = marks[..] else { return None };
                one_argument(start, open, comma, splices);
                let each = server_process("process");
                splices.push(Splice::before(start, comma + 1, format!("ARRAY(SELECT {each} FROM pg_catalog.unnest((")));
                splices.push(Splice::behind(start, close, ")::pg_catalog.int4[]) AS process)".to_owned()));
            }
            Place::Blocking { name } => {
                if marks.len() != 2 {
                    return None;
                }
                let each = format!("coalesce({}, process)", looked_up("process"));
                let front = format!("(SELECT ARRAY(SELECT {each} FROM pg_catalog.unnest(");
                splices.push(Splice::before(start, start, front));
                one_argument(start, open, close, splices);
                splices.push(Splice::behind(start, close + 1, format!(") AS process) AS {name})")));
            }
        }
        Some(())
    }
}

/// An argument between two places is read as the server process that the client has now whose id it is.
fn one_argument(call: usize, open: usize, close: usize, splices: &mut Vec<Splice>) {
    let front = format!("(SELECT {} FROM (SELECT (", server_process("process"));
    splices.push(Splice::before(call, open + 1, front));
    splices.push(Splice::behind(call, close, ")::pg_catalog.int4 AS process) AS poolhouse)".to_owned()));
}

/// The server process that is meant by an expression: those of clients are known by their ids.
fn server_process(id: &str) -> String {
    format!("coalesce(CASE WHEN {id} OPERATOR(pg_catalog.>=) {OWN_PROCESS} THEN {} END, {id})", looked_up(id))
}

/// What the setting of [`processes_setting`] has for an id.
fn looked_up(id: &str) -> String {
    format!(
        "pg_catalog.jsonb_object_field_text(nullif(pg_catalog.current_setting('{PROCESSES}', true), '')\
         ::pg_catalog.jsonb, {id}::pg_catalog.text)::pg_catalog.int4"
    )
}

/// The bit that all process ids of our own have. No operating system that PostgreSQL runs on gives its processes such
/// ids, so a client that has its own id terminated (`pg_terminate_backend`) hits no server process of others.
pub const OWN_PROCESS: u32 = 0x4000_0000;

/// The setting of a server connection in which it is told which server process each client has.
const PROCESSES: &str = "poolhouse.processes";

/// The query that tells a server which of its processes are lent, each with the client that has it: the ids of both lead
/// to each other.
pub fn processes_setting(lent: &[(u32, u32)]) -> String {
    let mut sql = format!("SET {PROCESSES} = '{{");
    for (at, (client, server)) in lent.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(sql, "{comma}\"{client}\":{server},\"{server}\":{client}");
    }
    sql.push_str("}'");
    sql
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
const ABOUT_PROCESSES: [&str; 6] = [
    "pg_cancel_backend",
    "pg_lock_status",
    "pg_locks",
    "pg_log_backend_memory_contexts",
    "pg_replication_slots",
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
        // What is kept for later would have to be told anew then who has which process.
        if !matches!(kind, "DeclareCursorStmt" | "PrepareStmt" | "ExecuteStmt" | "CallStmt") {
            found.extend(statement.walk().filter(|value| value.key() == "FuncCall").filter_map(of_others));
        }
        for function in statement.walk().filter(|value| value.key() == "RangeFunction") {
            let named = function.get("alias").is_some();
            let lists = function.get("functions").into_iter().flat_map(TreeValue::children);
            let calls = lists.filter_map(|list| list.get("List")?.get("items")?.only()?.get("FuncCall"));
            for call in calls {
                found.extend(position(call).map(|place| (place, Place::Table { named })));
                // No expression can stand in their place there.
                of_others(call).map(|(place, _)| found.remove(&place));
            }
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

/// A call that asks about processes by their ids: where it begins, and how it is written anew.
fn of_others(call: TreeValue<'_, '_>) -> Option<(usize, Place)> {
    let name = call.get("funcname").filter(|name| is_built_in(*name))?;
    let place = match last_part(name) {
        "pg_isolation_test_session_is_blocked" => Place::Blocked,
        "pg_blocking_pids" => Place::Blocking { name: "pg_blocking_pids" },
        "pg_safe_snapshot_blocking_pids" => Place::Blocking { name: "pg_safe_snapshot_blocking_pids" },
        _ => return None,
    };
    let mut arguments = call.get("args").into_iter().flat_map(TreeValue::children).filter_map(TreeValue::only);
    let is_plain = call.get("args").is_some()
        && !call.flag("func_variadic")
        && arguments.all(|argument| argument.key() != "NamedArgExpr");
    let at = call.get("location").filter(|_| is_plain)?;
    Some((usize::try_from(at.number()).ok()?, place))
}

/// Where in a text the call that begins at `start` has its parentheses, and the commas between its arguments.
fn marks_of_call(sql: &str, start: usize) -> Option<Vec<usize>> {
    let rest = &sql.as_bytes()[start..];
    let (mut lexer, mut marks, mut depth) = (Lexer::new(rest), Vec::new(), 0);
    while let Some(token) = lexer.next() {
        match &rest[token.start..token.end] {
            b"(" | b"[" => {
                if depth == 0 {
                    marks.push(start + token.start);
                }
                depth += 1;
            }
            b"," if depth == 1 => marks.push(start + token.start),
            b")" | b"]" => {
                depth -= 1;
                if depth == 0 {
                    marks.push(start + token.start);
                    return Some(marks);
                }
            }
            _ => {}
        }
    }
    None
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

    /// What stands around the client's own text, with the innermost in order.
    #[test]
    fn ids_of_clients_are_looked_up() {
        let (sql, id) = ("SELECT pg_blocking_pids($1), f(a)", "process");
        let looked = looked_up(id);
        let meant = server_process(id);
        let expected = format!(
            "SELECT (SELECT ARRAY(SELECT coalesce({looked}, process) FROM pg_catalog.unnest(pg_blocking_pids(\
             (SELECT {meant} FROM (SELECT ($1)::pg_catalog.int4 AS process) AS poolhouse)\
             )) AS process) AS pg_blocking_pids), f(a)"
        );
        assert_eq!(edited(sql).unwrap(), expected);
        let blocked = edited("SELECT pg_catalog.pg_isolation_test_session_is_blocked($1, '{1,2}')").unwrap();
        let expected = format!(
            "SELECT pg_catalog.pg_isolation_test_session_is_blocked((SELECT {meant} FROM (SELECT ($1)::pg_catalog.int4 \
             AS process) AS poolhouse),ARRAY(SELECT {meant} FROM pg_catalog.unnest(( '{{1,2}}')::pg_catalog.int4[]) AS \
             process))"
        );
        assert_eq!(blocked, expected);
        for sql in [
            "SELECT pg_blocking_pids(pg_backend_pid())",
            "SELECT pg_blocking_pids((pg_blocking_pids(1))[1]), pg_safe_snapshot_blocking_pids(f(1, 2))",
            "SELECT * FROM unnest(pg_blocking_pids(1)) AS p WHERE p <> pg_backend_pid()",
            "EXPLAIN SELECT pg_isolation_test_session_is_blocked(f(1, 2), ARRAY[1, pg_backend_pid()])",
        ] {
            let edited = edited(sql).unwrap();
            assert!(parser::parse(&edited, Strings::Standard).is_ok(), "{edited}");
            assert!(!edited.contains("pg_backend_pid()"), "{edited}");
        }
        for sql in [
            "SELECT * FROM pg_blocking_pids(1)",
            "SELECT mine.pg_blocking_pids(1)",
            "SELECT pg_blocking_pids()",
            "SELECT pg_blocking_pids(1, 2)",
            "SELECT pg_blocking_pids(a => 1)",
            "SELECT pg_isolation_test_session_is_blocked(1)",
            "SELECT pid, pg_blocking_pids(pid) FROM pg_stat_activity",
            "PREPARE p AS SELECT pg_blocking_pids(1)",
            "CREATE VIEW v AS SELECT pg_blocking_pids(1)",
        ] {
            assert_eq!(edited(sql), None, "{sql}");
        }
    }

    #[test]
    fn a_server_is_told_both_ways() {
        assert_eq!(processes_setting(&[]), "SET poolhouse.processes = '{}'");
        let both = processes_setting(&[(1 << 30 | 1, 7), (1 << 30 | 2, 8)]);
        assert_eq!(
            both,
            "SET poolhouse.processes = '{\"1073741825\":7,\"7\":1073741825,\"1073741826\":8,\"8\":1073741826}'"
        );
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
