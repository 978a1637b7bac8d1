//! Random scripts from a grammar of statements about the session's state, valid and not, in and out of transactions, in
//! both protocols. One that fails is printed as a script, to be kept in `scripts/found.txt`.

use proptest::{
    prelude::*,
    sample::select,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};

use super::{script::script, stage::Stage};

/// Most attempts to make a script that fails shorter; each is played twice.
const SHRINKS_MAX: u32 = 120;

const SETTINGS: &[(&str, &[&str])] = &[
    ("work_mem", &["'5MB'", "'6000kB'", "'nonsense'", "1", "DEFAULT"]),
    ("TimeZone", &["'Asia/Tokyo'", "'utc'", "'No/Where'", "DEFAULT"]),
    ("DateStyle", &["'German'", "ISO, DMY", "SQL", "'wrong'", "DEFAULT"]),
    ("search_path", &["one", "two, one", "''", "\"$user\", public", "DEFAULT"]),
    ("application_name", &["'one'", "'it''s two'", "''", "DEFAULT"]),
    ("statement_timeout", &["'1h'", "0", "-5", "DEFAULT"]),
    ("default_transaction_isolation", &["serializable", "'repeatable read'", "'none'", "DEFAULT"]),
    ("default_transaction_read_only", &["on", "off", "maybe"]),
    ("client_min_messages", &["warning", "notice", "loud"]),
    ("standard_conforming_strings", &["off", "on"]),
    ("log_statement", &["'all'"]),
    ("no_such_setting", &["1"]),
];

const TRANSACTIONS: &[&str] = &[
    "BEGIN",
    "BEGIN",
    "BEGIN ISOLATION LEVEL SERIALIZABLE",
    "COMMIT",
    "COMMIT",
    "ROLLBACK",
    "COMMIT AND CHAIN",
    "ROLLBACK AND CHAIN",
    "SAVEPOINT s1",
    "SAVEPOINT s2",
    "ROLLBACK TO s1",
    "ROLLBACK TO s2",
    "RELEASE s1",
    "SET TRANSACTION READ ONLY",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
];

const STATES: &[&str] = &[
    "RESET ALL",
    "SET ROLE guest",
    "SET ROLE NONE",
    "SET LOCAL ROLE guest",
    "RESET ROLE",
    "SET SESSION AUTHORIZATION DEFAULT",
    "SELECT current_user, session_user",
    "CREATE TEMP TABLE t1 (x int)",
    "CREATE TEMP TABLE t1 (x int) ON COMMIT DROP",
    "INSERT INTO t1 VALUES (1)",
    "SELECT count(*) FROM t1",
    "DROP TABLE t1",
    "SELECT 1 AS x INTO TEMP t2",
    "DROP TABLE IF EXISTS t2",
    "SELECT pg_try_advisory_lock(1)",
    "SELECT pg_try_advisory_lock(2), pg_try_advisory_lock_shared(3)",
    "SELECT pg_try_advisory_xact_lock(4)",
    "SELECT pg_advisory_unlock(1)",
    "SELECT pg_advisory_unlock_all()",
    "DECLARE c CURSOR WITH HOLD FOR SELECT x FROM generate_series(1, 3) x",
    "DECLARE c CURSOR FOR SELECT x FROM generate_series(1, 3) x",
    "FETCH c",
    "CLOSE c",
    "CLOSE ALL",
    "PREPARE p AS SELECT where_is FROM place",
    "PREPARE p(int) AS SELECT $1 + 1",
    "EXECUTE p",
    "EXECUTE p(1)",
    "DEALLOCATE p",
    "DEALLOCATE ALL",
    "DISCARD ALL",
    "DISCARD TEMP",
    "DISCARD PLANS",
    "LISTEN heard",
    "UNLISTEN heard",
    "UNLISTEN *",
    "SELECT pg_listening_channels()",
    "SELECT 1/0",
    "SELECT nothing",
    "SELECT FROM WHERE",
    "SELECT where_is FROM place",
    "SELECT date '2020-02-01', 'a\\b'",
    "DO $$BEGIN PERFORM set_config('work_mem', '7MB', false); END$$",
    "DO $$BEGIN PERFORM set_config('work_mem', '8MB', false); RAISE EXCEPTION 'no'; END$$",
    "SELECT sets('work_mem', '9MB')",
    "SELECT sets_within()",
    "SELECT locks(5)",
    "SELECT makes_temporary()",
    "SELECT set_config(name, '2MB', false) FROM pg_settings WHERE name = 'work_mem'",
];

/// Messages of the extended protocol, up to a Sync.
const EXTENDED: &[&str] = &[
    "\\parse a: SELECT where_is FROM place",
    "\\parse a: SELECT 'a'",
    "\\parse b 23: SELECT $1",
    "\\parse b: SELECT nothing",
    "\\parse d: SET work_mem = '10MB'",
    "\\parse _: SELECT 'unnamed'",
    "\\bind _ a",
    "\\bind _ b: 1",
    "\\bind _ b",
    "\\bind _ d",
    "\\bind _ _",
    "\\bind portal a",
    "\\execute _",
    "\\execute portal",
    "\\execute portal 1",
    "\\describe S a",
    "\\describe S b",
    "\\describe S _",
    "\\describe P _",
    "\\close S a",
    "\\close S b",
    "\\close S _",
    "\\close P portal",
];

/// What is asked at the end.
const LAST: &[&str] = &[
    "\\sync",
    "SELECT name, setting FROM pg_settings WHERE source = 'session' AND name NOT LIKE 'transaction%' ORDER BY 1",
    "ROLLBACK",
    "SELECT name, setting FROM pg_settings WHERE source = 'session' AND name NOT LIKE 'transaction%' ORDER BY 1",
    "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() ORDER BY 1",
    "SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema() ORDER BY 1",
    "SELECT name, is_holdable FROM pg_cursors ORDER BY 1",
    "SELECT pg_listening_channels()",
    "SELECT current_user, session_user",
    "EXECUTE p",
    "\\bind _ a",
    "\\execute _",
    "\\sync",
    "\\bind _ b: 1",
    "\\execute _",
    "\\sync",
    "\\bind _ _",
    "\\execute _",
    "\\sync",
];

fn setting() -> impl Strategy<Value = String> {
    (select(SETTINGS), any::<prop::sample::Index>(), 0..8).prop_map(|((name, values), index, form)| {
        let value = *index.get(values);
        let quoted =
            if value.starts_with('\'') { value.to_owned() } else { format!("'{}'", value.replace('\'', "''")) };
        match form {
            0 | 1 => format!("SET {name} = {value}"),
            2 => format!("SET SESSION {name} TO {value}"),
            3 => format!("SET LOCAL {name} = {value}"),
            4 if value != "DEFAULT" => format!("SELECT set_config('{name}', {quoted}, false)"),
            5 if value != "DEFAULT" => format!("SELECT set_config('{name}', {quoted}, true)"),
            6 => format!("RESET {name}"),
            _ => format!("SHOW {name}"),
        }
    })
}

fn statement() -> impl Strategy<Value = String> {
    let owned = |texts: &'static [&'static str]| select(texts).prop_map(str::to_owned);
    prop_oneof![4 => setting(), 3 => owned(TRANSACTIONS), 5 => owned(STATES)]
}

/// One thing that a client does, as lines of a script.
fn action() -> impl Strategy<Value = Vec<String>> {
    let ends = || select(&["\\sync", "\\sync+"][..]).prop_map(str::to_owned);
    let messages = prop::collection::vec(select(EXTENDED).prop_map(str::to_owned), 1..4);
    let runs = prop::collection::vec(statement().prop_map(|sql| format!("\\run {sql}")), 1..4);
    let ended = |(mut lines, end): (Vec<String>, String)| {
        lines.push(end);
        lines
    };
    prop_oneof![
        6 => statement().prop_map(|sql| vec![sql]),
        1 => statement().prop_map(|sql| vec![format!("+ {sql}")]),
        1 => prop::collection::vec(statement(), 2..4).prop_map(|texts| vec![texts.join("; ")]),
        2 => (messages, ends()).prop_map(ended),
        2 => (runs, ends()).prop_map(ended),
    ]
}

/// Plays so many scripts, and fails the test with the shortest that was found to differ.
pub fn play(stage: &Stage, cases: u32, seed: u64) {
    let config = Config { cases, max_shrink_iters: SHRINKS_MAX, failure_persistence: None, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let result = runner.run(&prop::collection::vec(action(), 3..25), |actions| {
        match stage.judge(&script("random", &lines(&actions))) {
            Some(report) => Err(TestCaseError::fail(report)),
            None => Ok(()),
        }
    });
    if let Err(TestError::Fail(report, actions)) = &result {
        panic!("seed {seed}: {report}\n== found by seed {seed}\n{}", lines(actions).join("\n"));
    }
    result.unwrap();
}

fn lines(actions: &[Vec<String>]) -> Vec<String> {
    actions.iter().flatten().cloned().chain(LAST.iter().map(|line| (*line).to_owned())).collect()
}
