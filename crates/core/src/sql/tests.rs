//! Judging as a whole: a table of statements with what is expected of each, the lexer against PostgreSQL's scanner,
//! the cache against judging, and texts that nobody should send.

use std::{fs, path::Path};

use proptest::prelude::*;

use super::fingerprint::{Buffer, Form};
use super::scanner;
use super::*;

fn mode_words(what: &str, modes: Modes) -> String {
    let access = match modes.read_only {
        None => "",
        Some(true) => "-read-only",
        Some(false) => "-read-write",
    };
    let isolation = match modes.isolation {
        None => "",
        Some(Isolation::ReadCommitted) => "-committed",
        Some(Isolation::RepeatableRead) => "-repeatable",
        Some(Isolation::Serializable) => "-serializable",
    };
    format!("{what}{access}{isolation}")
}

/// What a verdict says besides its reason, in words: `read` or `write`, then whatever else is not nothing.
fn words(verdict: &Verdict) -> String {
    let mut words = vec![match verdict.access() {
        Access::Read => "read".to_owned(),
        Access::Write => "write".to_owned(),
    }];
    if !verdict.composition.is_one() {
        words.push(format!("n={}", verdict.composition.count()));
    }
    words.push(match verdict.transaction {
        TransactionControl::None => String::new(),
        TransactionControl::Begin { modes, start: false } => mode_words("begin", modes),
        TransactionControl::Begin { modes, start: true } => mode_words("start", modes),
        TransactionControl::Commit { chain } => if chain { "commit-chain" } else { "commit" }.into(),
        TransactionControl::Rollback { chain } => if chain { "rollback-chain" } else { "rollback" }.into(),
        TransactionControl::Savepoint => "savepoint".into(),
        TransactionControl::RollbackTo => "rollback-to".into(),
        TransactionControl::Release => "release".into(),
        TransactionControl::SetTransaction(None) => "set-transaction".into(),
        TransactionControl::SetTransaction(Some(modes)) => mode_words("set-transaction", modes),
        TransactionControl::PrepareTransaction => "prepare-transaction".into(),
        TransactionControl::Mixed => "mixed".into(),
    });
    words.extend(verdict.settings.iter().map(|setting| match setting {
        SettingChange::Set(name) => format!("set:{name}"),
        SettingChange::Reset(name) => format!("reset:{name}"),
        SettingChange::ResetAll => "reset-all".into(),
        SettingChange::Unknown => "set-unknown".into(),
    }));
    words.extend(verdict.pins.iter().map(|pin| format!("pin:{pin:?}")));
    words.push(if verdict.does(Fact::NamesTemporaryPath) { "temporary-path" } else { "" }.into());
    words.push(if verdict.does(Fact::DiscardsAll) { "discards" } else { "" }.into());
    words.push(match &verdict.deallocates {
        Deallocate::None => String::new(),
        Deallocate::All => "deallocate-all".into(),
        Deallocate::Named(name) => format!("deallocate:{name}"),
    });
    words.extend(verdict.names.iter().filter_map(|name| match name {
        NameUse::Prepares(name) => Some(format!("prep:{name}")),
        NameUse::Executes(name) => Some(format!("exec:{name}")),
        // Told by `deallocates` already, unless there are several.
        NameUse::Deallocates(_) => None,
    }));
    words.push(if verdict.does(Fact::ListsStatements) { "lists" } else { "" }.into());
    // What cannot be seen may do anything, so that of it this says nothing.
    words.push(if verdict.does(Fact::Listens) && !verdict.is_opaque() { "listens" } else { "" }.into());
    words.push(if verdict.does(Fact::Notifies) && !verdict.is_opaque() { "notifies" } else { "" }.into());
    words.push(if verdict.is_opaque() { "opaque" } else { "" }.into());
    words.extend(verdict.vacates.iter().map(|database| format!("vacates:{database}")));
    words.extend(verdict.defaults.iter().map(|of| {
        let name = |name: &Option<Box<str>>| name.as_deref().unwrap_or("*").to_owned();
        format!("defaults:{}/{}", name(&of.database), name(&of.user))
    }));
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

/// Checks a table: in each line the expected words, then `|`, then the statement.
fn check(table: &str) {
    let mut wrong = Vec::new();
    let mut cache = Cache::new(1000, 1 << 20);
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (expected, sql) = line.split_once('|').expect("a line has two parts");
        let (expected, sql) = (expected.trim(), sql.trim());
        let verdict = judge(sql);
        if words(&verdict) != expected {
            wrong.push(format!("{sql}\n    expected {expected}\n    but is   {}: {}", words(&verdict), verdict.reason));
        }
        assert_eq!(**cache.verdict(sql.as_bytes()), verdict, "{sql}");
        assert_eq!(**cache.verdict(sql.as_bytes()), verdict, "{sql}");
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn reads() {
    check(
        r#"
        read | SELECT 1
        read | select a, b from t where id = $1
        read | TABLE t
        read | VALUES (1, 'a'), (2, 'b')
        read | SELECT * FROM a JOIN b USING (id) LEFT JOIN c ON c.x = lower(b.y)
        read | SELECT count(*), sum(x) FILTER (WHERE x > abs(-1)) FROM t GROUP BY ROLLUP (a, b) HAVING max(x) > 1
        read | SELECT row_number() OVER w, lag(x, 1) OVER (PARTITION BY a ORDER BY b) FROM t WINDOW w AS (ORDER BY c)
        read | WITH a AS (SELECT 1), b AS MATERIALIZED (SELECT * FROM a) SELECT * FROM b
        read | WITH RECURSIVE r(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM r WHERE n < 9) SELECT sum(n) FROM r
        read | SELECT 1 UNION SELECT 2 INTERSECT SELECT 3 EXCEPT SELECT 4
        read | SELECT now(), current_timestamp, current_date, localtime, current_user, session_user
        read | SELECT coalesce(a, b), greatest(1, 2), nullif(a, b), extract(year FROM d), cast(a AS int), a::text FROM t
        read | SELECT d AT TIME ZONE 'UTC', a LIKE 'x%' ESCAPE '!', a SIMILAR TO 'b', a ILIKE 'c' FROM t
        read | SELECT substring(a FROM 1 FOR 2), trim(both 'x' FROM a), position('a' IN b), overlay(a PLACING b FROM 1)
        read | SELECT ARRAY(SELECT 1), ROW(1, 2), CASE WHEN a THEN 1 ELSE 2 END, a[1], (b).c FROM t
        read | SELECT EXISTS (SELECT 1 FROM t), a = ANY (ARRAY[1, 2]), a IN (SELECT b FROM u), a > ALL (SELECT 1) FROM v
        read | SELECT * FROM generate_series(1, 10) AS g(i), LATERAL (SELECT i) AS x
        read | SELECT * FROM ROWS FROM (generate_series(1, 2), unnest(ARRAY[1])) WITH ORDINALITY
        read | SELECT * FROM unnest(ARRAY[1, 2]) AS u
        read | SELECT DISTINCT ON (a) a, b FROM t ORDER BY a, b DESC NULLS LAST LIMIT 10 OFFSET 5
        read | SELECT a FROM t ORDER BY a FETCH FIRST 5 ROWS WITH TIES
        read | SELECT * FROM t TABLESAMPLE system (10) REPEATABLE (1)
        read | SELECT * FROM t TABLESAMPLE bernoulli (1)
        read | SELECT xmlelement(name a, b), xmlconcat(a, b), xmlforest(a) FROM t
        read | SELECT json_build_object('a', 1), jsonb_agg(x), to_jsonb(t) FROM t
        read | SELECT a -> 'b' ->> 'c', a @> b, a ? 'x', a || b FROM t
        read | SELECT string_agg(a, ',' ORDER BY b), percentile_cont(0.5) WITHIN GROUP (ORDER BY c) FROM t
        read | SELECT pg_catalog.lower('A'), pg_catalog.now()
        read | SELECT to_tsvector('english', a) @@ plainto_tsquery('b') FROM t
        read | SELECT 1 OPERATOR(pg_catalog.+) 2
        read | SELECT * FROM information_schema.tables
        read | SELECT * FROM pg_class, pg_catalog.pg_attribute, pg_stats, pg_stats_ext, pg_tables, pg_indexes
        read | SELECT pg_get_viewdef(1), obj_description(1, 'pg_class'), format_type(1, 2), has_table_privilege('t', 'SELECT')
        read | SELECT $1::int, $2
        read | SELECT 'FOR UPDATE; DROP TABLE t', "for update" FROM t -- FOR UPDATE
        read | SELECT E'a\'b', $x$ nextval('s') $x$, B'01', X'1F', U&'d\0061t', N'x'
        read | SELECT collation for ('a'), normalize('a'), 'a' IS NORMALIZED
        read | SELECT GROUPING(a) FROM t GROUP BY GROUPING SETS ((a), ())
        read | SELECT random_column, nextval FROM t
        read | COPY t TO STDOUT
        read | COPY t (a, b) TO STDOUT WITH (FORMAT csv)
        read | COPY (SELECT a FROM t) TO STDOUT
        read | EXPLAIN SELECT * FROM t
        read | EXPLAIN (ANALYZE, BUFFERS) SELECT * FROM t
        read | EXPLAIN ANALYZE VERBOSE SELECT lower(a) FROM t
        read | EXPLAIN INSERT INTO t VALUES (1)
        read | EXPLAIN SELECT my_function(a), nextval('s') FROM t FOR UPDATE
        read n=2 | SELECT 1; SELECT 2
        read n=2 | SELECT 1; ; ; SELECT 2;
        read n=0 | -- nothing
        read n=0 | /* nothing */ ;
        read n=0 |
        read | SELECT set_config FROM t
        read | select * from t where x = 0xFF or y = 1_000
        read | SELECT float8 '1', interval '1 day', date '2020-01-01', 'x'::float(5)
        read | SELECT ('a', 'b') = ('c', 'd')
        read | SELECT * FROM json_table('[1]', '$[*]' COLUMNS (a int PATH '$')) AS j
        read | SELECT json_array(1, 2), json_object('a': 1), json_value(a, '$.b'), a IS JSON FROM t
        read | SELECT * FROM xmltable('/a' PASSING x COLUMNS b int PATH 'c')
        "#,
    );
}

#[test]
fn functions_that_do_not_only_read_are_found_in_every_clause() {
    for call in ["nextval('s')", "f(1)", "s.lower('a')"] {
        let opaque = if call.starts_with('n') { "write" } else { "write opaque" };
        let places = [
            "SELECT {}",
            "SELECT 1 + {}",
            "SELECT - {}",
            "SELECT NOT ({} > 0 OR false)",
            "SELECT lower({}::text)",
            "SELECT a FROM t WHERE {} = 1",
            "SELECT a FROM t GROUP BY {}",
            "SELECT a FROM t GROUP BY GROUPING SETS ((a), ({}))",
            "SELECT a FROM t GROUP BY CUBE (a, {})",
            "SELECT a FROM t GROUP BY a HAVING {} = 1",
            "SELECT a FROM t ORDER BY {}",
            "SELECT a FROM t LIMIT {}",
            "SELECT a FROM t OFFSET {}",
            "SELECT DISTINCT ON ({}) a FROM t",
            "SELECT * FROM {}",
            "SELECT * FROM {} WITH ORDINALITY",
            "SELECT * FROM LATERAL {} AS x",
            "SELECT * FROM ROWS FROM ({}, generate_series(1, 2))",
            "SELECT * FROM generate_series(1, {})",
            "SELECT * FROM a JOIN b ON a.x = {}",
            "SELECT * FROM a LEFT JOIN (b CROSS JOIN c) ON {} = 1",
            "SELECT CASE WHEN {} = 1 THEN 1 END",
            "SELECT CASE {} WHEN 1 THEN 1 END",
            "SELECT CASE WHEN a THEN {} ELSE 1 END FROM t",
            "SELECT CASE WHEN a THEN 1 ELSE {} END FROM t",
            "SELECT ARRAY[1, {}]",
            "SELECT ARRAY(SELECT {})",
            "SELECT ROW(1, {})",
            "SELECT (1, {})",
            "SELECT a[{}] FROM t",
            "SELECT a[1:{}] FROM t",
            "SELECT ({}).x",
            "SELECT ({})[1]",
            "SELECT (SELECT {})",
            "SELECT EXISTS (SELECT {})",
            "SELECT 1 IN (SELECT {})",
            "SELECT 1 IN (1, {})",
            "SELECT {} IN (SELECT 1)",
            "SELECT 1 = ANY (SELECT {})",
            "SELECT 1 = ALL (ARRAY[{}])",
            "SELECT 1 BETWEEN 0 AND {}",
            "SELECT 'a' LIKE {}",
            "SELECT 'a' LIKE 'b' ESCAPE {}",
            "SELECT 'a' SIMILAR TO {}",
            "SELECT {} IS NULL",
            "SELECT ({} = 1) IS TRUE",
            "SELECT {} IS DISTINCT FROM 1",
            "SELECT NULLIF(1, {})",
            "SELECT COALESCE(1, {})",
            "SELECT GREATEST(1, {})",
            "SELECT CAST({} AS text)",
            "SELECT {} COLLATE \"C\"",
            "SELECT {} AT TIME ZONE 'utc'",
            "SELECT now() AT TIME ZONE {}",
            "SELECT EXTRACT(year FROM {})",
            "SELECT sum(a) FILTER (WHERE {} = 1) FROM t",
            "SELECT sum(a) OVER (PARTITION BY {}) FROM t",
            "SELECT sum(a) OVER (ORDER BY {}) FROM t",
            "SELECT sum(a) OVER (ROWS BETWEEN {} PRECEDING AND CURRENT ROW) FROM t",
            "SELECT sum(a) OVER (ROWS BETWEEN CURRENT ROW AND {} FOLLOWING) FROM t",
            "SELECT sum(a) OVER w FROM t WINDOW w AS (PARTITION BY {})",
            "SELECT string_agg(a, ',' ORDER BY {}) FROM t",
            "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY {}) FROM t",
            "SELECT make_interval(days => {})",
            "SELECT concat(VARIADIC ARRAY[{}])",
            "VALUES (1, {})",
            "VALUES (1), ({})",
            "SELECT * FROM (VALUES (1, {})) AS v",
            "SELECT * FROM (SELECT * FROM (SELECT {}) AS a) AS b",
            "WITH x AS (SELECT {}) SELECT 1",
            "WITH RECURSIVE x AS (SELECT 1 UNION ALL SELECT {}) SELECT * FROM x",
            "SELECT 1 UNION ALL SELECT {}",
            "SELECT 1 UNION (SELECT 2 EXCEPT SELECT {})",
            "(SELECT 1 ORDER BY {})",
            "SELECT * FROM t TABLESAMPLE system ({})",
            "SELECT * FROM t TABLESAMPLE system (1) REPEATABLE ({})",
            "SELECT xmlelement(name a, xmlattributes({} AS b))",
            "SELECT xmlelement(name a, {})",
            "SELECT xmlforest({} AS a)",
            "SELECT xmlserialize(CONTENT {} AS text)",
            "SELECT xmlparse(CONTENT {})",
            "SELECT * FROM xmltable('/a' PASSING {} COLUMNS b int)",
            "SELECT * FROM xmltable('/a' PASSING x COLUMNS b int DEFAULT {})",
            "SELECT * FROM xmltable({} PASSING x COLUMNS b int)",
            "SELECT json_array(1, {})",
            "SELECT json_array(SELECT {})",
            "SELECT json_object('a': {})",
            "SELECT json_objectagg('a': {})",
            "SELECT json_arrayagg({} ORDER BY 1)",
            "SELECT json_value({}, '$')",
            "SELECT json_query(a, '$' PASSING {} AS x) FROM t",
            "SELECT json_value(a, '$' DEFAULT {} ON EMPTY) FROM t",
            "SELECT json_exists({}, '$')",
            "SELECT * FROM json_table({}, '$[*]' COLUMNS (a int PATH '$')) AS j",
            "SELECT {} IS JSON",
            "SELECT json_scalar({})",
            "COPY (SELECT {}) TO STDOUT",
            "EXPLAIN ANALYZE SELECT {}",
            "EXPLAIN (ANALYZE false) SELECT {}",
        ];
        let mut wrong = Vec::new();
        for place in places {
            let sql = place.replace("{}", call);
            let verdict = judge(&sql);
            if words(&verdict) != opaque || verdict.reason == Reason::Unreadable {
                wrong.push(format!("{sql}: {} ({})", words(&verdict), verdict.reason));
            }
        }
        assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    }
}

/// Nobody else can call them, so nothing is to be found out about them in the catalog.
#[test]
fn functions_of_one_session_are_judged_when_they_are_made() {
    let made =
        judge("CREATE FUNCTION pg_temp.f() RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM g(); SET a.b = 1; END'");
    assert_eq!((&*made.customs, made.does(Fact::Defines)), (&["a.b".into()][..], false));
    let unseen = made.unseen.as_deref().unwrap();
    assert!(unseen.dark && unseen.called().eq([&"g".into()]), "{unseen:?}");
    let called = judge("SELECT pg_temp.f(), pg_temp_3.g()");
    let unseen = called.unseen.as_deref().unwrap();
    assert!(unseen.dark && unseen.called().next().is_none(), "{unseen:?}");
    for (sql, defines) in [
        ("DROP FUNCTION IF EXISTS pg_temp.f()", false),
        ("DROP FUNCTION pg_temp.f(), f()", true),
        ("CREATE FUNCTION pg_temp.f() RETURNS void LANGUAGE plpython3u AS 'plpy.execute(q)'", true),
        ("CREATE FUNCTION pg_temp.f() RETURNS void LANGUAGE plpgsql AS 'BEGIN CREATE VIEW v AS SELECT 1; END'", true),
        ("CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'SELECT 1'", true),
        ("CREATE TEMP VIEW v AS SELECT f()", true),
    ] {
        assert_eq!(judge(sql).does(Fact::Defines), defines, "{sql}");
    }
}

#[test]
fn what_does_not_only_read() {
    check(
        r#"
        write | INSERT INTO t VALUES (1)
        write | INSERT INTO t SELECT * FROM u ON CONFLICT DO NOTHING RETURNING id
        write | UPDATE t SET a = 1 WHERE id = 2
        write | DELETE FROM t USING u WHERE t.id = u.id
        write | MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DELETE
        write | TRUNCATE t
        write | SELECT * FROM t FOR UPDATE
        write | SELECT * FROM t FOR NO KEY UPDATE SKIP LOCKED
        write | SELECT * FROM t FOR SHARE NOWAIT
        write | SELECT * FROM t FOR KEY SHARE OF t
        write | SELECT * FROM (SELECT * FROM t FOR UPDATE) AS x
        write | SELECT (SELECT a FROM t LIMIT 1 FOR UPDATE)
        write | WITH x AS (SELECT * FROM t FOR SHARE) SELECT * FROM x
        write | SELECT 1 UNION (SELECT 2 FROM t FOR UPDATE)
        write | COPY (SELECT * FROM t FOR UPDATE) TO STDOUT
        write | EXPLAIN ANALYZE SELECT * FROM t FOR UPDATE
        write | WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM x
        write | WITH x AS (DELETE FROM t) SELECT 1
        write | WITH x AS (UPDATE t SET a = 1 RETURNING a), y AS (SELECT 1) SELECT * FROM x, y
        write | COPY (INSERT INTO t VALUES (1) RETURNING a) TO STDOUT
        write | EXPLAIN ANALYZE INSERT INTO t VALUES (1)
        write | EXPLAIN (ANALYZE off) DELETE FROM t
        write exec:p | EXPLAIN ANALYZE EXECUTE p
        write exec:p | EXPLAIN EXECUTE p
        write | EXPLAIN CREATE TABLE x AS SELECT 1
        write | SELECT * INTO x FROM t
        write | CREATE TABLE x AS SELECT 1
        write | CREATE TABLE x (a int DEFAULT 1)
        write | CREATE INDEX CONCURRENTLY i ON t (lower(a))
        write | CREATE VIEW v AS SELECT nextval('s')
        write | CREATE MATERIALIZED VIEW v AS SELECT 1
        write | REFRESH MATERIALIZED VIEW v
        write | ALTER TABLE t ADD COLUMN a int
        write | DROP TABLE t
        write | CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT pg_advisory_lock(1)'
        write | GRANT SELECT ON t TO u
        write | COMMENT ON TABLE t IS 'pg_temp'
        write | ANALYZE t
        write | VACUUM (ANALYZE) t
        write | CLUSTER t
        write | REINDEX TABLE t
        write | CHECKPOINT
        write | LOCK TABLE t
        write listens notifies | NOTIFY c, 'x'
        write listens | UNLISTEN *
        write listens notifies | SELECT pg_notify('c', x) FROM t
        write listens | SELECT * FROM pg_listening_channels()
        write | CLOSE c
        write | FETCH 10 FROM c
        write | MOVE c
        write | DECLARE c CURSOR FOR SELECT 1
        write | COPY t FROM STDIN
        write | COPY t TO '/tmp/x'
        write | COPY t TO PROGRAM 'cat'
        write | COPY t FROM '/tmp/x'
        write | SHOW search_path
        write | SHOW ALL
        write | ALTER SYSTEM SET work_mem = '1MB'
        write defaults:*/r | ALTER ROLE r SET search_path = a
        write defaults:d/r | ALTER USER r IN DATABASE d RESET ALL
        write defaults:*/* | ALTER ROLE ALL SET search_path = a
        write defaults:*/* | ALTER ROLE CURRENT_USER SET search_path = a
        write defaults:d/* | ALTER DATABASE d SET search_path = a
        write n=2 defaults:*/* | ALTER DATABASE d SET search_path = a; ALTER ROLE r RESET search_path
        write | ALTER ROLE r PASSWORD 'x'
        write | ALTER DATABASE d CONNECTION LIMIT 5
        write | ALTER TABLE d RENAME TO e
        write vacates:D 1 | DROP DATABASE IF EXISTS "D 1"
        write vacates:d | DROP DATABASE d WITH (FORCE)
        write vacates:d | ALTER DATABASE d RENAME TO e
        write vacates:d | ALTER DATABASE d SET TABLESPACE s
        write vacates:template1 | CREATE DATABASE d
        write vacates:t | CREATE DATABASE d OWNER o TEMPLATE t
        write vacates:t 2 | CREATE DATABASE d TEMPLATE = 't 2'
        write vacates:t 3 | CREATE DATABASE d TEMPLATE = 't 3'
        write | SECURITY LABEL ON TABLE t IS 'x'
        write | SET CONSTRAINTS ALL DEFERRED
        write | COMMIT PREPARED 'x'
        write | ROLLBACK PREPARED 'x'
        write opaque | DO 'BEGIN NULL; END'
        write opaque | CALL p(1)
        write opaque | CALL lower('a')
        write exec:p | EXECUTE p (1)
        write exec:p | CREATE TABLE x AS EXECUTE p
        write n=2 | SELECT 1; DELETE FROM t
        write n=2 | INSERT INTO t VALUES (1); SELECT 1
        write | SELECT nextval('s')
        write | SELECT setval('s', 1), currval('s'), lastval()
        write | SELECT random()
        write | SELECT gen_random_uuid()
        write | SELECT clock_timestamp()
        write | SELECT pg_sleep(1), random()
        write | SELECT txid_current()
        write | SELECT pg_current_xact_id()
        write listens notifies | SELECT pg_notify('c', 'x')
        write | SELECT lo_get(1), lo_create(2)
        write | SELECT lowrite(1, 'x')
        write | SELECT pg_advisory_xact_lock(1)
        write | SELECT pg_try_advisory_xact_lock_shared(1, 2)
        write | SELECT pg_advisory_unlock_all()
        write | SELECT pg_is_in_recovery()
        write | SELECT pg_terminate_backend(1)
        write | SELECT pg_backend_pid()
        write | SELECT current_setting('x')
        write | SELECT inet_server_addr(), version()
        write | SELECT pg_stat_get_activity(NULL)
        write opaque | SELECT query_to_xml('DELETE FROM t', true, true, '')
        write opaque | SELECT * FROM ts_stat('SELECT v FROM t')
        write opaque | SELECT uuid_generate_v4()
        write opaque | SELECT public.lower('a')
        write opaque | SELECT "LOWER"('a')
        write opaque | SELECT my.set_config('a', 'b', false)
        write opaque | SELECT my.pg_advisory_lock(1)
        write opaque | SELECT * FROM dblink('x', 'y') AS t(a int)
        write opaque | SELECT * FROM t TABLESAMPLE system_rows(1)
        write opaque | SELECT 1 OPERATOR(my.+) 2
        write opaque | SELECT 1 OPERATOR(my.=) ANY (SELECT 1)
        write opaque | SELECT a FROM t ORDER BY a USING OPERATOR(my.<)
        write | SELECT * FROM pg_stat_activity
        write | SELECT * FROM pg_catalog.pg_stat_user_tables
        write | SELECT * FROM pg_locks, t
        write | SELECT * FROM (SELECT * FROM pg_settings) AS s
        write lists | SELECT 1 WHERE EXISTS (SELECT 1 FROM pg_prepared_statements)
        write lists | SELECT * FROM pg_catalog.pg_prepared_statement()
        write | SELECT * FROM pg_prepared_xacts
        write | SELECT * FROM pg_cursors
        write | SELECT * FROM pg_replication_slots
        write | SELECT * FROM pg_statio_user_tables
        write | SELECT * FROM public.pg_stat_statements
        write | EXPLAIN SELECT * FROM pg_stat_activity
        write | TABLE pg_file_settings
        write | CREATE POLICY p ON t USING (a = current_setting('x'))
        write | CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT f(1); DELETE FROM u)
        write | DISCARD PLANS
        write | DISCARD TEMP
        "#,
    );
}

#[test]
fn transactions() {
    check(
        r#"
        write begin | BEGIN
        write begin | BEGIN WORK
        write start | START TRANSACTION
        write begin-read-write-serializable | BEGIN ISOLATION LEVEL SERIALIZABLE, READ WRITE, DEFERRABLE
        write begin-read-only | BEGIN READ ONLY
        write start-read-only-repeatable | START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY
        write begin-committed | BEGIN ISOLATION LEVEL READ UNCOMMITTED
        write begin-read-write | BEGIN READ ONLY, READ WRITE
        write commit | COMMIT
        write commit | END
        write commit | COMMIT WORK AND NO CHAIN
        write commit-chain | COMMIT AND CHAIN
        write rollback | ROLLBACK
        write rollback | ABORT
        write rollback-chain | ROLLBACK AND CHAIN
        write savepoint | SAVEPOINT a
        write release | RELEASE SAVEPOINT a
        write rollback-to | ROLLBACK TO SAVEPOINT a
        write rollback-to | ROLLBACK TO a
        write prepare-transaction | PREPARE TRANSACTION 'x'
        write set-transaction-read-only | SET TRANSACTION READ ONLY
        write set-transaction-serializable | SET TRANSACTION ISOLATION LEVEL SERIALIZABLE
        write set-transaction | SET TRANSACTION SNAPSHOT 'x'
        write set-transaction | SET transaction_read_only = on
        write set-transaction | SET LOCAL transaction_isolation = 'serializable'
        write n=3 mixed | BEGIN; SELECT 1; COMMIT
        write n=2 mixed | SELECT 1; ROLLBACK
        write n=2 mixed | COMMIT; BEGIN
        write begin | BEGIN;
        write n=3 mixed set:x | BEGIN; SET x = 1; COMMIT
        "#,
    );
}

#[test]
fn settings() {
    check(
        r#"
        write set:work_mem | SET work_mem = '1MB'
        write set:work_mem | SET SESSION Work_Mem TO 1
        write set:my.setting | SET my.setting = 'x'
        write set:my.set"ting | SET my."Set""ting" = 'x'
        write | SET LOCAL work_mem = '1MB'
        write | SET LOCAL TIME ZONE 'UTC'
        write pin:Seed | SET seed TO 0.5
        write pin:Seed | SELECT setseed(0.5)
        write set:search_path | SET search_path TO a, b
        write set:search_path | SET SCHEMA 'a'
        write set:search_path temporary-path | SET search_path TO pg_temp, a
        write set:search_path temporary-path | SET search_path = 'PG_TEMP'
        write temporary-path | SET LOCAL search_path TO pg_temp
        write | SET LOCAL search_path TO a
        write temporary-path | SELECT set_config('Search_Path', 'a, pg_temp', true)
        write temporary-path | SELECT set_config('search_path', $1, true)
        write temporary-path | SELECT set_config($1, $2, true)
        write | SELECT set_config('work_mem', $1, true)
        write set:timezone | SET TIME ZONE 'UTC'
        write set:timezone | SET TIME ZONE INTERVAL '1' HOUR TO MINUTE
        write reset:timezone | SET TIME ZONE LOCAL
        write set:client_encoding | SET NAMES 'UTF8'
        write reset:client_encoding | SET NAMES DEFAULT
        write set:role | SET ROLE alice
        write set:role | SET ROLE NONE
        write reset:role | RESET ROLE
        write | SET LOCAL ROLE alice
        write set:session_authorization | SET SESSION AUTHORIZATION alice
        write reset:session_authorization | SET SESSION AUTHORIZATION DEFAULT
        write reset:session_authorization | RESET SESSION AUTHORIZATION
        write set:xmloption | SET XML OPTION DOCUMENT
        write reset:work_mem | SET work_mem TO DEFAULT
        write reset:work_mem | RESET work_mem
        write reset:timezone | RESET TIME ZONE
        write reset-all | RESET ALL
        write set:default_transaction_read_only | SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY
        write set:default_transaction_isolation set:default_transaction_deferrable | SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, DEFERRABLE
        write reset-all discards deallocate-all | DISCARD ALL
        write set:work_mem | SELECT set_config('work_mem', '1MB', false)
        write set:work_mem | SELECT pg_catalog.set_config('Work_mem'::text, $1, false::bool)
        write set-unknown | SELECT set_config('work_mem', 'x', 'a' IS NULL OR false)
        write | SELECT set_config('work_mem', '1MB', true)
        write | SELECT set_config($1, '1MB', true)
        write set:search_path | SELECT pg_catalog.set_config('search_path', '', false)
        write set:search_path temporary-path | SELECT set_config('search_path', 'pg_temp', false)
        write set:search_path temporary-path | SELECT set_config('search_path', $1, false)
        write set-unknown | SELECT set_config($1, 'x', false)
        write set-unknown | SELECT set_config('work_mem', 'x', $1)
        write set-unknown temporary-path | SELECT set_config(name, setting, false) FROM t
        write set-unknown temporary-path | SELECT set_config(setting_name => 'a', new_value => 'b', is_local => true)
        write set:a set:b | SELECT set_config('a', '1', false), set_config('b', '2', false)
        write set:a | EXPLAIN ANALYZE SELECT set_config('a', '1', false)
        read | EXPLAIN SELECT set_config('a', '1', false)
        write | CREATE VIEW v AS SELECT set_config('a', '1', false)
        write n=2 set:a reset:b | SET a = 1; RESET b
        "#,
    );
}

#[test]
fn pins() {
    check(
        r#"
        write pin:TemporaryTable | CREATE TEMP TABLE x (a int)
        write pin:TemporaryTable | CREATE TEMPORARY TABLE IF NOT EXISTS x AS SELECT 1
        write | CREATE LOCAL TEMP TABLE x (a int) ON COMMIT DROP
        write | CREATE TEMP TABLE x ON COMMIT DROP AS SELECT 1
        write pin:TemporaryTable | CREATE TEMP TABLE x (a int) ON COMMIT DELETE ROWS
        write pin:TemporaryTable | CREATE TEMP SEQUENCE s
        write pin:TemporaryTable | CREATE TEMP VIEW v AS SELECT 1
        write pin:TemporaryTable | CREATE OR REPLACE TEMP RECURSIVE VIEW v (a) AS SELECT 1
        write pin:TemporaryTable | SELECT * INTO TEMP x FROM t
        write pin:TemporaryTable | SELECT * INTO TEMPORARY TABLE x FROM t
        write pin:TemporaryTable | CREATE TABLE pg_temp.x (a int)
        write pin:TemporaryTable | SELECT * INTO pg_temp.x FROM t
        write pin:TemporaryTable opaque | CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'
        write pin:TemporaryTable opaque | CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS $$SET a.b = 1$$
        write set-unknown pin:TemporaryTable opaque | CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE plpgsql AS 'BEGIN SET seed = 1; END'
        write pin:TemporaryTable | CREATE FUNCTION pg_temp.f() RETURNS int RETURN 1
        write set:a.b pin:TemporaryTable | CREATE FUNCTION pg_temp.f() RETURNS text RETURN set_config('a.b', '1', false)
        write | DROP FUNCTION pg_temp.f(), pg_temp.g(int)
        write pin:TemporaryTable | CREATE TYPE pg_temp.e AS ENUM ('a')
        write pin:TemporaryTable | CREATE TYPE pg_temp.c AS (a int)
        write pin:TemporaryTable | CREATE DOMAIN pg_temp.d AS int
        write pin:TemporaryTable | SELECT * FROM pg_temp.x
        write pin:TemporaryTable | SELECT * FROM pg_temp_3.x
        write pin:TemporaryTable | SELECT 'a'::pg_temp.e
        write pin:TemporaryTable opaque | SELECT pg_temp.f()
        write pin:TemporaryTable | EXPLAIN SELECT * FROM pg_temp.x
        write pin:TemporaryTable | INSERT INTO pg_temp.x VALUES (1)
        write pin:TemporaryTable exec:p | CREATE TEMP TABLE x AS EXECUTE p
        write | CREATE UNLOGGED TABLE x (a int)
        write | CREATE TABLE pg_temporary.x (a int)
        write pin:HoldCursor | DECLARE c CURSOR WITH HOLD FOR SELECT 1
        write pin:HoldCursor | DECLARE c INSENSITIVE SCROLL CURSOR WITH HOLD FOR SELECT 1
        write | DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1
        write pin:AdvisoryLock | SELECT pg_advisory_lock(1)
        write pin:AdvisoryLock | SELECT pg_catalog.pg_advisory_lock_shared(1, 2)
        write pin:AdvisoryLock | SELECT 1 WHERE pg_try_advisory_lock(1)
        write pin:AdvisoryLock | INSERT INTO t SELECT pg_try_advisory_lock_shared(1)
        write pin:AdvisoryLock | WITH x AS (SELECT pg_advisory_lock(1)) SELECT * FROM x
        write pin:AdvisoryLock | COPY (SELECT pg_advisory_lock(1)) TO STDOUT
        write pin:AdvisoryLock | EXPLAIN ANALYZE SELECT pg_advisory_lock(1)
        read | EXPLAIN SELECT pg_advisory_lock(1)
        write pin:Listen listens | LISTEN c
        write pin:Load | LOAD 'plpgsql'
        write pin:Prepare prep:p | PREPARE p AS SELECT 1
        write pin:Prepare prep:p | PREPARE p (int) AS SELECT pg_advisory_lock($1)
        write n=2 pin:Listen pin:Load listens | LISTEN c; LOAD 'x'
        write n=3 pin:Prepare deallocate:p prep:p exec:Q | PREPARE p AS SELECT 1; EXECUTE "Q"; DEALLOCATE p
        write deallocate:p | DEALLOCATE p
        write deallocate:P | DEALLOCATE PREPARE "P"
        write deallocate-all | DEALLOCATE ALL
        write n=2 deallocate-all | DEALLOCATE a; DEALLOCATE b
        write n=2 deallocate:a | DEALLOCATE a; DEALLOCATE a
        write pin:Unreadable opaque | SELEC 1
        write pin:Unreadable opaque | SELECT 1a
        write pin:Unreadable opaque | SELECT 'open
        write pin:Unreadable opaque | SELECT 1 /* open
        write pin:Unreadable opaque | SELECT E'\u12'
        write pin:Unreadable opaque | SELECT 1; SELEC 2
        write pin:Unreadable opaque | COPY t TO STDOUT; SELECT (
        "#,
    );
}

#[test]
fn a_backslash_before_a_quote_is_read_both_ways() {
    // A syntax error when escapes are on: only one meaning is left.
    check(r"read | SELECT 'C:\dir\'");
    check(r"read | SELECT 'a\b', 'c\\'");
    // The second way is another text altogether.
    check(
        r"
        write n=2 pin:Unreadable opaque | SELECT 'a\' , b, '; DELETE FROM t; --'
        write n=2 set-unknown pin:Unreadable opaque | SELECT 'a\', '; SET x = 1; --'
        write n=2 mixed pin:Unreadable opaque | SELECT 'a\', '; COMMIT --'
        write pin:Unreadable opaque | SELECT 'it\'s'
        ",
    );
    assert_eq!(judge(r"SELECT 'a\', '; COMMIT --'").reason, Reason::Backslash);
}

#[test]
fn bytes_that_are_not_utf8_do_not_read() {
    let mut cache = Cache::new(10, 10_000);
    for (sql, words_expected) in [
        (&b"SELECT 'caf\xe9'"[..], "write"),
        (b"SELECT 'caf\xe9\\'", "write pin:Unreadable opaque"),
        (b"SET x = '\xe9'", "write set:x"),
        (b"SELECT 'a\0'", "write pin:Unreadable opaque"),
        (b"SELECT '\xff' FROM \xff(", "write pin:Unreadable opaque"),
    ] {
        let verdict = cache.verdict(sql);
        assert_eq!(words(&verdict), words_expected, "{:?}", String::from_utf8_lossy(sql));
        assert_eq!(**verdict, judge_bytes(sql));
        assert_eq!(**cache.verdict(sql), **verdict);
    }
    assert_eq!(**cache.verdict(b"SELECT 'caf'"), judge("SELECT 'caf'"));
    assert_eq!(**cache.verdict("SELECT 'café'".as_bytes()), judge("SELECT 'caf'"));
}

#[test]
fn reasons_are_for_people() {
    for (sql, reason) in [
        ("SELECT 1", "only reads"),
        ("", "no statement"),
        ("SELEC", "the text cannot be parsed"),
        ("INSERT INTO t VALUES (1)", "statement of kind Insert"),
        ("WITH x AS (DELETE FROM t) SELECT 1", "holds a statement of kind Delete"),
        ("SELECT nextval('s')", "calls the volatile function nextval"),
        ("SELECT f()", "calls the function f, which is not built in"),
        ("SELECT * FROM pg_locks", "asks about the server itself (pg_locks)"),
        ("SHOW timezone", "asks for the state of the session (timezone)"),
        ("SELECT 1 FROM t FOR UPDATE", "locks rows"),
    ] {
        assert_eq!(judge(sql).reason.to_string(), reason, "{sql}");
    }
}

#[test]
fn pin_sets_hold_pins() {
    let mut pins = PinSet::default();
    assert!(pins.is_empty());
    pins.insert(Pin::Load);
    pins.insert(Pin::TemporaryTable);
    assert!(pins.contains(Pin::Load) && !pins.contains(Pin::Listen));
    assert_eq!(pins.iter().collect::<Vec<_>>(), [Pin::TemporaryTable, Pin::Load]);
    assert_eq!(format!("{pins:?}"), "{TemporaryTable, Load}");
    assert!(judge("LOAD 'x'").touches_session() && judge("DEALLOCATE x").touches_session());
    assert!(!judge("SELECT 1").touches_session() && !judge("SET LOCAL a = 1").touches_session());
}

#[test]
fn deep_and_long_texts_end_well() {
    // Tests run on threads with 2 MiB of stack, as workers do.
    for depth in [50, 100, 1_000, 10_000, 50_000] {
        let nested = |open: &str, inner: &str, close: &str| {
            judge(&format!("SELECT {}{inner}{}", open.repeat(depth), close.repeat(depth)))
        };
        for verdict in [
            nested("(", "1", ")"),
            nested("", "1", " + x"),
            nested("NOT ", "a", ""),
            nested("abs(", "1", ")"),
            nested("(SELECT ", "1", ")"),
            nested("", "1", " UNION ALL SELECT 2"),
            nested("CASE WHEN a THEN ", "1", " END"),
            nested("ARRAY[", "1", "]"),
            nested("[", "1", ""),
            nested("/* ", "", "*/ 1"),
            nested("", "1", "::int"),
        ] {
            let unreadable = verdict.pins.contains(Pin::Unreadable);
            assert_eq!(verdict.access() == Access::Read, !unreadable, "{depth} {verdict:?}");
        }
    }
    assert_eq!(judge(&format!("SELECT 1{}", " + x".repeat(500))).access(), Access::Read);
    let rows = format!("INSERT INTO t VALUES {}(1, 'x')", "(1, 'abcdefghijklmnopqrstuvwxyz'), ".repeat(30_000));
    assert_eq!(words(&judge(&rows)), "write");
    assert_eq!(words(&judge("SELECT 1\0; DELETE FROM t")), "write pin:Unreadable opaque");
}

#[test]
fn texts_made_to_keep_the_scanner_busy_are_not_parsed() {
    for row in ["/*", "+", "-+", "@"] {
        let sql = format!("SELECT {}1", row.repeat(100_000));
        assert!(judge(&sql).pins.contains(Pin::Unreadable), "{row}");
    }
    let rule = "=".repeat(120);
    let sql = format!("/* {rule} */ SELECT 1 -- {rule}\n, '{}'", rule.repeat(100));
    assert_eq!(judge(&sql).access(), Access::Read);
}

#[test]
fn rows_of_equal_form_share_an_entry() {
    let mut cache = Cache::new(100, 100_000);
    for rows in 3..50 {
        let sql = format!("INSERT INTO t VALUES {}(0, 'x', now())", "(1, 'y', now()), ".repeat(rows));
        assert_eq!(**cache.verdict(sql.as_bytes()), judge(&sql));
    }
    assert_eq!((cache.len(), cache.misses(), cache.hits()), (1, 1, 46));
}

#[test]
fn a_cache_stays_within_its_bounds() {
    let mut cache = Cache::new_seeded(50, 20_000, 7);
    for round in 0..2_000 {
        let sql = format!("SELECT a{} FROM t", round % 300);
        cache.verdict(sql.as_bytes());
        cache.verdict(b"SELECT 1");
        assert!(cache.len() <= 50 && cache.bytes() <= 20_000);
    }
    // What is used again and again stays.
    assert!(cache.hits() >= 1_999);
    let long = format!("SELECT {}", "a, ".repeat(5_000) + "a");
    let before = (cache.len(), cache.bytes());
    cache.verdict(long.as_bytes());
    assert_eq!((cache.len(), cache.bytes()), before);
    let mut none = Cache::new(0, 0);
    assert_eq!(**none.verdict(b"SELECT 1"), judge("SELECT 1"));
    assert!(none.is_empty());
}

#[test]
fn a_text_that_comes_again_is_found_whatever_it_is() {
    let mut cache = Cache::new(100, 100_000);
    for sql in
        ["SELECT $1", "SET search_path = a", "SELECT set_config('a', 'b', false)", "SELEC", r"SELECT 'a\', '; x'"]
    {
        for _ in 0..5 {
            assert_eq!(**cache.verdict(sql.as_bytes()), judge(sql));
        }
    }
    // The verdicts of the first and of the syntax error hold for their forms; the other texts are judged twice each
    // before they are kept.
    assert_eq!((cache.hits(), cache.misses()), (2 * 4 + 3 * 3, 2 + 3 * 2));
}

#[test]
fn patterns_answer_as_forms_do() {
    let mut cache = Cache::new_seeded(1000, 1 << 20, 3);
    let texts = |number: u32| {
        [
            format!("SELECT abalance FROM pgbench_accounts WHERE aid = {number};"),
            format!("SELECT a FROM t WHERE b = 'x{number}' /* request {number} */"),
            format!("SELECT a FROM t WHERE b = 'y{number}' AND nextval('{number}') > 0"),
            format!("SELECT a FROM t WHERE b IN ({}0)", "7, ".repeat(2 + number as usize % 10)),
            format!("INSERT INTO t VALUES {}(0, 'x')", "(1, 'y'), ".repeat(2 + number as usize % 10)),
            format!("SET work_mem = {number}"),
            format!("SELECT '{number}\u{e9}'"),
            format!("SELECT {number} AS \"it's {number}\", $${number}'$$"),
        ]
    };
    for number in 0..1_000 {
        for sql in texts(number) {
            assert_eq!(**cache.verdict(sql.as_bytes()), judge(&sql), "{sql}");
        }
        let foreign = [format!("SELECT 'x{number}").as_bytes(), b"\xff'"].concat();
        assert_eq!(**cache.verdict(&foreign), judge_bytes(&foreign));
        let with_nul = format!("SELECT '\0{number}'");
        assert_eq!(**cache.verdict(with_nul.as_bytes()), judge(&with_nul));
        assert!(cache.bytes() <= 1 << 20);
    }
}

#[test]
fn verdicts_that_depend_on_literals_are_not_reused() {
    let mut cache = Cache::new(100, 100_000);
    for name in ["a", "b", "search_path"] {
        let sql = format!("SELECT set_config('{name}', 'x', false)");
        assert_eq!(words(&cache.verdict(sql.as_bytes())), format!("write set:{name}"));
    }
    for local in ["true", "false"] {
        let sql = format!("SELECT set_config('a', 'x', {local})");
        assert_eq!(**cache.verdict(sql.as_bytes()), judge(&sql));
    }
    for path in ["'a'", "'pg_temp'"] {
        let sql = format!("SET search_path = {path}");
        assert_eq!(**cache.verdict(sql.as_bytes()), judge(&sql));
    }
    assert_eq!(cache.hits(), 0);
}

/// Pieces from which texts are made: every kind of token, whole and broken, and what stands between.
pub(super) fn piece() -> impl Strategy<Value = String> {
    let fixed = prop::sample::select(vec![
        "SELECT",
        "select",
        "FROM",
        "t",
        "a",
        "WHERE",
        "set_config",
        "nextval",
        "lower",
        "f",
        "E",
        "e",
        "N",
        "U&",
        "u&",
        "B",
        "x",
        "'",
        "''",
        "'a'",
        "'a''b'",
        "E'a\\'b'",
        "e'\\\\'",
        "E'\\x41'",
        "U&'a'",
        "B'01'",
        "X'1F'",
        "N'a'",
        "$$",
        "$a$",
        "$a$ ' $a$",
        "$1",
        "$",
        "\"",
        "\"a\"",
        "\"a\"\"b\"",
        "U&\"a\"",
        "--",
        "-- c\n",
        "/*",
        "*/",
        "/* c */",
        "/* /* */ */",
        "\n",
        " ",
        "\t",
        "\r",
        "\u{c}",
        "\u{b}",
        "1",
        "1.5",
        "1.",
        ".5",
        "1e5",
        "1e",
        "0x1F",
        "0x",
        "1_0",
        "1..2",
        "2147483648",
        "(",
        ")",
        "[",
        "]",
        ",",
        ";",
        ".",
        "..",
        ":",
        "::",
        ":=",
        "=",
        "=>",
        "+",
        "-",
        "*",
        "/",
        "<",
        "<>",
        "!=",
        "@",
        "|",
        "||",
        "?",
        "\\",
        "\\'",
        "é",
        "日",
        "FOR UPDATE",
        "float(",
        "UESCAPE '!'",
        "LIMIT",
        "IN",
        "VALUES",
        "(1,2)",
        "(1,2),",
        "1,",
        "'x',",
        "true",
        "NULL",
    ]);
    prop_oneof![8 => fixed.prop_map(str::to_owned), 1 => "[ -~]{0,4}", 1 => "\\PC{0,2}"]
}

fn text() -> impl Strategy<Value = String> {
    (prop::collection::vec(piece(), 0..25), any::<bool>())
        .prop_map(|(pieces, spaced)| pieces.join(if spaced { " " } else { "" }))
}

/// A statement that reads, with places for literals.
pub(super) fn statement() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "SELECT a FROM t WHERE id = {} AND b IN ({}, {}, {}, {}) LIMIT 1",
        "INSERT INTO t VALUES ({}, {}), ({}, {}), ({}, {}), ({}, {})",
        "SELECT set_config({}, {}, false)",
        "SELECT set_config('a', {}, {})",
        "SET search_path = {}, {}",
        "SET x = {}",
        "SELECT {} AS a, lower({}), nextval({}) FROM f({})",
        "COPY (SELECT {}) TO STDOUT",
        "EXPLAIN (ANALYZE {}) SELECT {}",
        "SELECT x::float({}), y::numeric({}, {}) FROM t",
        "FETCH {} FROM c",
        "SELECT {} {} FROM t",
        "SELECT a{} FROM t LIMIT {}, {}",
        "BEGIN; DELETE FROM t WHERE a = {}; COMMIT",
        "SET TIME ZONE INTERVAL {} HOUR TO MINUTE",
        "SELECT U&\"a\" UESCAPE {}, {}",
    ])
}

pub(super) fn literal() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<u32>().prop_map(|number| number.to_string()),
        (0..100u8).prop_map(|number| number.to_string()),
        prop::sample::select(vec![
            "1.5",
            "0x1F",
            "99999999999",
            "0",
            "54",
            "'a'",
            "'pg_temp'",
            "'search_path'",
            "'it''s'",
            r"'a\'",
            r"'a\b'",
            r"E'a\'b'",
            r"E'\x41'",
            r"E'\u12'",
            "$$a$$",
            "$a$ $$ $a$",
            "B'1'",
            "X'F'",
            "'a'\n'b'",
            "true",
            "false",
            "NULL",
            "$1",
            "'t'",
            "U&'x'",
            "'é'",
            "''",
            "-1",
            "'a'::text",
            "1a",
        ])
        .prop_map(str::to_owned),
    ]
}

pub(super) fn filled(template: &str, literals: &[String]) -> String {
    let mut parts = template.split("{}");
    let mut sql = parts.next().unwrap_or("").to_owned();
    for (index, part) in parts.enumerate() {
        sql.push_str(&literals[index % literals.len()]);
        sql.push_str(part);
    }
    sql
}

/// Cases for each property; a run of 100,000 has been clean.
pub(super) const CASES: u32 = 1_000;

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, ..ProptestConfig::default() })]

    #[test]
    fn the_lexer_agrees_with_the_scanner(sql in text()) {
        scanner::compare_with_scanner(&sql);
    }

    #[test]
    fn equal_forms_have_equal_verdicts(first in text(), second in text(), template in statement(),
        one in prop::collection::vec(literal(), 1..6), two in prop::collection::vec(literal(), 1..6)) {
        let texts = [first, second, filled(template, &one), filled(template, &two), filled(template, &one[..1])];
        let mut cache = Cache::new_seeded(100, 100_000, one.len() as u64);
        for sql in [&texts; 3].into_iter().flatten() {
            prop_assert_eq!(&**cache.verdict(sql.as_bytes()), &judge(sql), "{:?}", texts);
        }
    }

    #[test]
    fn bytes_never_panic(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\''), Just(b'a')], 0..200)) {
        let mut cache = Cache::new(10, 10_000);
        let verdict = cache.verdict(&bytes);
        prop_assert_eq!(&**verdict, &judge_bytes(&bytes));
        prop_assert!(Buffer::default().write(0, &bytes) == Form::Regular || cache.is_empty());
        for _ in 0..3 {
            prop_assert_eq!(&**cache.verdict(&bytes), &**verdict);
        }
    }

    #[test]
    fn white_space_and_comments_change_nothing(template in statement(), literals in prop::collection::vec(literal(), 1..4)) {
        let sql = filled(template, &literals);
        let spaced = filled(&template.replace(' ', " /* c */ "), &literals);
        let without_reason = |sql: &str| Verdict { reason: Reason::Nothing, ..judge(sql) };
        prop_assert_eq!(without_reason(&sql), without_reason(&spaced));
    }
}

/// What the fuzz target of the lexer begins with, and what it has found.
#[test]
fn seeds_of_the_lexer() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/seeds/lexer");
    let seeds: Vec<_> = fs::read_dir(folder).unwrap().map(|seed| fs::read(seed.unwrap().path()).unwrap()).collect();
    assert!(!seeds.is_empty());
    seeds.iter().filter_map(|seed| std::str::from_utf8(seed).ok()).for_each(scanner::compare_with_scanner);
}

#[test]
fn the_statement_inside_of_a_prepare() {
    let check = |sql: &str, name: &str, expected: Option<&str>| {
        let found = prepared_text(sql.as_bytes(), name.as_bytes());
        assert_eq!(found.map(|found| found.inner), expected.map(str::as_bytes), "{sql}");
    };
    check("PREPARE a AS SELECT 1", "a", Some("SELECT 1"));
    let inner = "select $1 as b, (select ';')";
    check(&format!(" /* x */ prepare \"as\" (int, text) as {inner}; -- end"), "as", Some(inner));
    check("PREPARE A (numeric(3, 1)) AS VALUES (1) /* last */", "a", Some("VALUES (1)"));
    check("PREPARE \"q\"\"Q\" AS SELECT E'\\'' AS x", "q\"Q", Some("SELECT E'\\'' AS x"));
    let several = "PREPARE a AS SELECT 1; PREPARE b AS SELECT 2; DEALLOCATE a; PREPARE a AS SELECT 3; EXECUTE a";
    check(several, "a", Some("SELECT 3"));
    check(several, "b", Some("SELECT 2"));
    check(several, "c", None);
    for other in
        ["SELECT 1 AS a", "PREPARE TRANSACTION 'a'", "", "EXECUTE a", "PREPARE a AS SELECT 'a\\'b'", "PREPARE a AS"]
    {
        check(other, "a", None);
    }
}

#[test]
fn a_prepare_that_runs_again_takes_no_other_statement_with_it() {
    let check = |sql: &str, expected: &str| {
        let found = prepared_text(sql.as_bytes(), b"a").unwrap();
        assert_eq!(std::str::from_utf8(found.command), Ok(expected));
    };
    for alone in ["PREPARE a AS SELECT 1", " /* x */ PREPARE a (int) AS SELECT $1; ; -- end"] {
        check(alone, alone);
    }
    check("INSERT INTO t VALUES (1); PREPARE a AS SELECT 1", "PREPARE a AS SELECT 1");
    check("prepare a (int) as delete from t; EXECUTE a (1);", "prepare a (int) as delete from t");
}

#[test]
fn settings_of_our_own_are_told_from_all_others() {
    let commands = |sql: &str| match judge(sql).own.as_deref() {
        Some(OwnText::Commands(commands)) => commands.to_vec(),
        other => panic!("{sql}: {other:?}"),
    };
    let set = |name: &str, value: &str, local| OwnCommand::Set {
        name: name.into(),
        values: [Box::from(value)].into(),
        local,
    };
    assert_eq!(commands("SET poolhouse.route = 'replica'"), [set("poolhouse.route", "replica", false)]);
    assert_eq!(commands("set local Poolhouse.\"X\" to 'it''s';"), [set("poolhouse.x", "it's", true)]);
    assert_eq!(commands("SET poolhouse.explain = ON"), [set("poolhouse.explain", "on", false)]);
    assert_eq!(commands("SET poolhouse.x = 0"), [set("poolhouse.x", "0", false)]);
    assert_eq!(commands("SET poolhouse.x = -1.5"), [set("poolhouse.x", "-1.5", false)]);
    let reset = |tag, local| OwnCommand::Reset { name: "poolhouse.route".into(), local, tag };
    assert_eq!(commands("RESET poolhouse.route"), [reset("RESET", false)]);
    assert_eq!(commands("SET LOCAL poolhouse.route TO DEFAULT"), [reset("SET", true)]);
    let show = OwnCommand::Show { name: "poolhouse.route".into() };
    assert_eq!(commands("SHOW poolhouse.route; /* a */ SHOW POOLHOUSE.ROUTE"), [show.clone(), show]);

    for sql in [
        "SET poolhouse.route = 'replica'; SELECT 1",
        "SELECT 1; SHOW poolhouse.route",
        "SELECT set_config('poolhouse.route', 'replica', false)",
        "SELECT pg_catalog.set_config('Poolhouse.x' , 'y', true)",
        "ALTER ROLE a SET poolhouse.route = 'replica'",
        "ALTER DATABASE a RESET poolhouse.route",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET poolhouse.route = 'x' AS 'SELECT 1'",
        "SELECT 'a\\'; SET poolhouse.route = 'b'",
    ] {
        assert_eq!(judge(sql).own.as_deref(), Some(&OwnText::Misplaced), "{sql}");
    }
    for sql in ["SET poolhouse = 1", "SET pool.house = 1", "SELECT 'poolhouse.route'", "SHOW ALL", "RESET ALL"] {
        assert_eq!(judge(sql).own, None, "{sql}");
    }
}

#[test]
fn what_is_judged_apart_is_known_afterwards() {
    let mut cache = Cache::new(100, 1 << 20);
    for sql in ["SELECT 1", "SELECT 1 FROM a WHERE b = 'x'", "SET search_path = a", "SELECT '\\' || 'x'", "", "SELEC"] {
        assert!(cache.find(sql.as_bytes()).is_none(), "{sql}");
        let verdict = cache.take(sql.as_bytes(), judge_apart(sql.as_bytes()));
        assert_eq!(**verdict, judge(sql), "{sql}");
        assert_eq!(**cache.verdict(sql.as_bytes()), judge(sql), "{sql}");
    }
    let known = cache.find(b"SELECT 1 FROM a WHERE b = 'yy'").unwrap();
    assert_eq!(**known, judge("SELECT 1 FROM a WHERE b = 'yy'"));
    assert!(cache.find(b"SELECT 1 FROM a WHERE c = 'yy'").is_none());
}

#[test]
fn explain_route_is_ours() {
    let explained = |sql: &str| match judge(sql).own.as_deref() {
        Some(OwnText::Commands(commands)) => match &**commands {
            [OwnCommand::ExplainRoute { sql }] => Some(String::from_utf8(sql.to_vec()).unwrap()),
            _ => None,
        },
        _ => None,
    };
    let yes = |sql: &str, inner: &str| assert_eq!(explained(sql).as_deref(), Some(inner), "{sql}");
    yes("EXPLAIN ROUTE SELECT 1", "SELECT 1");
    yes("-- a\n/* b */ explain/**/Route\tSELECT 1; DELETE FROM t", "SELECT 1; DELETE FROM t");
    yes("EXPLAIN ROUTE EXPLAIN ROUTE SELECT 1", "EXPLAIN ROUTE SELECT 1");
    yes("EXPLAIN ROUTE", "");
    yes("EXPLAIN ROUTE'x'", "'x'");
    for sql in [
        "EXPLAIN SELECT 1",
        "EXPLAIN ROUTES SELECT 1",
        "EXPLAIN \"route\" SELECT 1",
        "SELECT 1; EXPLAIN ROUTE SELECT 1",
    ] {
        assert_eq!(explained(sql), None, "{sql}");
    }
    let mut cache = Cache::new(100, 1 << 20);
    for sql in ["EXPLAIN ROUTE SELECT 1", "EXPLAIN ROUTE SELECT 2", "EXPLAIN ROUTE SELECT 1"] {
        assert_eq!(**cache.verdict(sql.as_bytes()), judge(sql), "{sql}");
    }
}

#[test]
fn steps_of_transactions_in_their_order() {
    let check = |sql: &str, steps: &[BlockStep]| assert_eq!(*judge(sql).steps, *steps, "{sql}");
    check("SELECT 1", &[]);
    check(
        "BEGIN; SAVEPOINT \"A\"; RELEASE a; ROLLBACK TO SAVEPOINT a; END; ABORT",
        &[
            BlockStep::Begin,
            BlockStep::Savepoint("A".into()),
            BlockStep::Release("a".into()),
            BlockStep::RollbackTo("a".into()),
            BlockStep::Commit,
            BlockStep::Rollback,
        ],
    );
    check("PREPARE TRANSACTION 'a'", &[BlockStep::Commit]);
    check("COMMIT PREPARED 'a'", &[]);
}

#[test]
fn hints_are_part_of_verdicts_and_of_what_is_known_of_texts() {
    let hint = |sql: &str| judge(sql).hint.map(|hint| *hint);
    assert_eq!(hint("SELECT 1"), None);
    assert_eq!(hint("SELECT 1 /* poolhouse: replica */"), Some(Hint::Replica));
    assert_eq!(hint("/*NO LOAD BALANCE*/ SELECT 1"), Some(Hint::Primary));
    assert_eq!(hint("SELECT '/* poolhouse: replica */', \"-- poolhouse: primary\""), None);
    assert_eq!(hint("SELECT 1 -- poolhouse: node=b\n, 2"), Some(Hint::Node("b".into())));

    let texts = [
        "SELECT 1 /* poolhouse: replica */",
        "SELECT 1 /* poolhouse: primary */",
        "SELECT 1 /* another comment */",
        "SELECT 1",
        "SELECT 2 /* poolhouse: replica */",
        "/* poolhouse: node=a */ SELECT 2",
        "/* poolhouse: node=b */ SELECT 2",
        "/* poolhouse */ SELECT 2",
        "INSERT INTO t VALUES (1), (2), (3), /* poolhouse: primary */ (4)",
        "INSERT INTO t VALUES (1), (2), (3), (4)",
        "SELECT a IN (1, 2, 3, /* poolhouse: primary */ 4)",
        "SELECT a IN (1, 2, 3, /* x */ 4)",
        "SELECT a/* poolhouse: primary */b",
        "SELECT a /* x */ b",
        "SELECT 1 +/* poolhouse: primary */- 1",
    ];
    let mut cache = Cache::new(100, 100_000);
    for sql in [&texts; 4].into_iter().flatten() {
        assert_eq!(**cache.verdict(sql.as_bytes()), judge(sql), "{sql}");
    }
    let (before, hinted) = (cache.misses(), "SELECT 7 /* poolhouse: replica */");
    assert_eq!(cache.verdict(hinted.as_bytes()).hint.as_deref(), Some(&Hint::Replica));
    assert_eq!(cache.misses(), before, "a text with a hint is known by its form like any other");
}
