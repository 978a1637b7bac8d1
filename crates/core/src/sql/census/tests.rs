//! Bodies of all sorts, censuses of small catalogs, and a great many ways to write what must never be called harmless.

use proptest::prelude::*;

use super::{
    Catalog, CatalogRow, Census, Finding, Hidden, NAMED_MAX, array_of,
    body::{Body, scan},
    stamp, version_of,
};
use crate::sql::{Fact, judge};

/// A body that touches nothing by itself.
#[track_caller]
fn harmless(body: &str) {
    assert!(!scan(body).touches, "{body}");
}

#[track_caller]
fn touches(body: &str) {
    assert!(scan(body).touches, "{body}");
}

#[test]
fn harmless_bodies() {
    for body in [
        "",
        "SELECT 1",
        "SELECT a + b FROM t WHERE c = $1 AND d IN (1, 2)",
        "BEGIN RETURN x * 2; END",
        "BEGIN\n  NEW.changed := now();\n  RETURN NEW;\nEND;",
        "BEGIN UPDATE t SET a = 1 WHERE b = 2; END",
        "BEGIN UPDATE t AS u SET (a, b) = (1, 2); END",
        "BEGIN UPDATE ONLY t * SET a = 1; END",
        "BEGIN INSERT INTO t (a, b) VALUES (1, 2) ON CONFLICT (a) DO UPDATE SET b = excluded.b; END",
        "BEGIN INSERT INTO t VALUES (1) ON CONFLICT ON CONSTRAINT k DO NOTHING; END",
        "INSERT INTO audit (who, at, what) SELECT current_user, clock_timestamp(), row_to_json(new)",
        "MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN UPDATE SET b = 1",
        "DECLARE n int; BEGIN SELECT count(*) INTO n FROM t; IF n > 0 THEN RAISE EXCEPTION 'set a limit: %', n; END IF; END",
        "BEGIN SET LOCAL work_mem = '1MB'; PERFORM f(); END",
        "BEGIN set local search_path to public; END",
        "BEGIN SET LOCAL \"app.user\" = 'x'; END",
        "BEGIN SET CONSTRAINTS ALL DEFERRED; SET CONSTRAINTS \"to\" IMMEDIATE; END",
        "BEGIN SET TRANSACTION READ ONLY; END",
        "SELECT set_config('app.user', current_user, true)",
        "SELECT pg_catalog.set_config('app.user', coalesce(a, (b)[1], format('%s,%s', c, d)), true)",
        "SELECT set_config('app.user'::text, (x)::text, true)",
        "SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock_shared(2, 3)",
        "SELECT nextval('s'), currval('s'), lastval()",
        "PERFORM pg_notify('channel', 'temp')",
        "NOTIFY channel",
        "-- set_config('a', 'b', false)\nSELECT 1 /* CREATE TEMP TABLE /* x */ */",
        "SELECT 'it''s, SET x = 1; EXECUTE y'",
        "SELECT $$SET x = 1$$, $a$EXECUTE$a$",
        "SELECT \"set\", \"temp\", \"execute\" FROM \"load\"",
        "FOR r IN SELECT * FROM t LOOP CONTINUE WHEN r.a IS NULL; END LOOP;",
        "BEGIN LOCK TABLE t; DELETE FROM t; COMMIT; END",
        "SELECT template, temperature, resettable, loads FROM settings",
    ] {
        harmless(body);
    }
}

#[test]
fn bodies_that_touch_the_session() {
    for body in [
        "SET work_mem = '1MB'",
        "BEGIN SET search_path TO x; END",
        "begin set session work_mem to 1; end",
        "BEGIN SET ROLE admin; END",
        "BEGIN SET SESSION AUTHORIZATION admin; END",
        "BEGIN SET TIME ZONE 'UTC'; END",
        "BEGIN SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY; END",
        "IF x THEN SET a = 1; ELSE SET b = 1; END IF",
        "LOOP SET a = 1; END LOOP",
        "BEGIN <<label>> SET a = 1; END",
        "SELECT 1; /* x */ SET /* y */ a = 1",
        "BEGIN ATOMIC SET a = 1; END",
        "BEGIN SET local = 1; END",
        "BEGIN SET local TO 1; SET local.x = 2; END",
        "BEGIN SET transaction.x = 2; END",
        "BEGIN SET constraints TO 2; END",
        "BEGIN SET LOCAL search_path = pg_temp; END",
        "BEGIN SET LOCAL search_path = 'pg_temp', public; END",
        "BEGIN SET LOCAL search_path = E'pg\\_temp'; END",
        "BEGIN SET LOCAL search_path = 'pg_'\n'temp'; END",
        "BEGIN SET LOCAL search_path = 'pg_' -- x\n 'temp'; END",
        "BEGIN SET LOCAL search_path = U&'pg\\005Ftemp'; END",
        "BEGIN SET LOCAL search_path = E'\\x70g_temp'; END",
        "BEGIN RESET ALL; END",
        "SELECT set_config('a.b', 'c', false)",
        "SELECT set_config('a.b', 'c', $1)",
        "SELECT set_config($1, 'c', true)",
        "SELECT set_config('search_path', 'pg_' || 'temp', true)",
        "SELECT set_config('SEARCH_PATH', x, true)",
        "SELECT set_config('a.b', true)",
        "SELECT set_config(is_local => false, setting_name => 'a', new_value => true)",
        "SELECT set_config('a.b', f(1, true), false)",
        "SELECT set_config('a.b', 'c', not true)",
        "SELECT set_config('a.b', 'c', false and true)",
        "SELECT set_config('a.b', 'c', x)",
        "SELECT \"set_config\"('a.b', 'c', false)",
        "SELECT Set_Config /* x */ -- y\n ('a.b', 'c', false)",
        "SELECT U&\"set_config\"('a.b', 'c', false)",
        "PERFORM pg_advisory_lock(1)",
        "PERFORM pg_try_advisory_lock_shared(1, 2)",
        "PERFORM pg_catalog.pg_advisory_unlock_all()",
        "CREATE TEMP TABLE x (a int)",
        "CREATE LOCAL TEMPORARY TABLE x (a int)",
        "SELECT 1 INTO TEMP x",
        "CREATE TABLE pg_temp.x (a int)",
        "CREATE TABLE \"pg_temp\".x (a int)",
        "BEGIN EXECUTE 'SELECT 1'; END",
        "FOR r IN EXECUTE x LOOP NULL; END LOOP",
        "RETURN QUERY EXECUTE format('SELECT %s', x)",
        "OPEN c FOR EXECUTE x",
        "LISTEN a",
        "UNLISTEN *",
        "PREPARE a AS SELECT 1",
        "DEALLOCATE ALL",
        "DISCARD ALL",
        "LOAD 'x'",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "CREATE EXTENSION x",
        "BEGIN DO $x$BEGIN NULL; END$x$; END",
        "SELECT query_to_xml('SELECT 1', true, true, '')",
        "SELECT setseed(0.5)",
        "SELECT pg_create_physical_replication_slot('x', true, true)",
        "SELECT 'it\\'s'",
        "SELECT 'open",
        "SELECT 1 /* open",
        "SELECT \u{1}",
    ] {
        touches(body);
    }
}

#[test]
fn bodies_that_write_or_differ_by_server() {
    for body in [
        "INSERT INTO t VALUES (1)",
        "SELECT 1 FROM t FOR UPDATE",
        "SELECT 1 FROM t FOR SHARE",
        "SELECT nextval('s')",
        "SELECT txid_current()",
        "SELECT current_setting('x')",
        "SELECT version()",
        "SELECT * FROM pg_stat_activity",
        "SELECT * FROM \"pg_locks\"",
        "CALL p()",
        "BEGIN COMMIT; END",
        "EXECUTE x",
    ] {
        assert!(scan(body).writes, "{body}");
    }
    for body in ["SELECT a FROM t", "BEGIN RETURN lower($1) || now(); END", "SELECT count(*) FROM t GROUP BY a"] {
        assert!(!scan(body).writes, "{body}");
    }
}

#[test]
fn names_are_those_of_the_server() {
    let body = scan("SELECT F(1), \"G\"\"x\"(2), s.h (3), f /* x */ (4), a, (b) FROM c() AS d(e)");
    assert_eq!(body.names.iter().map(|name| &**name).collect::<Vec<_>>(), ["G\"x", "c", "f", "h"]);
    let long = "é".repeat(40);
    assert!(scan(&format!("SELECT {long}(1)")).names.contains(&*"é".repeat(31)), "cut at 63 bytes");
}

#[test]
fn settings_in_texts_that_are_run() {
    let check = |body: &str, customs: &[&str], sets_any: bool| {
        let found = scan(body);
        let names: Vec<_> = found.customs.iter().map(|name| &**name).collect();
        assert_eq!((names.as_slice(), found.sets_any), (customs, sets_any), "{body}");
    };
    check("BEGIN EXECUTE 'SET App.Tenant = ' || quote_literal(x); END", &["app.tenant"], false);
    check("BEGIN EXECUTE format('SET SESSION app.tenant TO %L', x); END", &["app.tenant"], false);
    check("BEGIN EXECUTE format('SET \"app\".tenant TO %L', x); END", &["app.tenant"], false);
    check("BEGIN EXECUTE $x$SELECT 1; SET a.b = 1$x$; END", &["a.b"], false);
    check("BEGIN EXECUTE 'SELECT set_config(''app.tenant'', $1, false)' USING x; END", &["app.tenant"], false);
    check("BEGIN EXECUTE E'SELECT Set_Config (\\'app.tenant\\', $1, false)' USING x; END", &["app.tenant"], false);
    check("BEGIN text := 'set a.b = 1'; EXECUTE text; END", &["a.b"], false);
    // No name is there to be read.
    for body in [
        "BEGIN EXECUTE format('SET %I = %L', x, y); END",
        "BEGIN EXECUTE 'SET ' || quote_ident(x) || ' = 1'; END",
        "BEGIN EXECUTE 'SET app.' || x || ' = 1'; END",
        "BEGIN EXECUTE 'SELECT set_config($1, $2, false)' USING x, y; END",
        "BEGIN EXECUTE format('SELECT set_config(%L, $1, false)', x); END",
        "BEGIN EXECUTE x; END",
        "BEGIN EXECUTE 'x'; END",
        "SELECT query_to_xml($1, true, true, '')",
    ] {
        check(body, &[], true);
    }
    // What is no setting of a session.
    for body in [
        "BEGIN EXECUTE format('UPDATE %I SET %I = $1', t, c); END",
        "BEGIN EXECUTE 'UPDATE t SET a = 1, offset_config = 2'; END",
        "BEGIN EXECUTE 'SET LOCAL work_mem = 1'; END",
        "BEGIN EXECUTE 'ALTER TABLE t ALTER a SET DEFAULT ' || x; END",
        "FOR r IN EXECUTE 'SELECT * FROM ' || x LOOP NULL; END LOOP",
        "SELECT 'SET a.b = 1'",
    ] {
        check(body, &[], false);
    }
    let of_other = |text: &str| {
        let mut body = Body::default();
        body.note_text(text);
        (body.customs.into_iter().collect::<Vec<_>>(), body.sets_any)
    };
    assert_eq!(of_other("plpy.execute(\"SET app.tenant = 'x'\")"), (vec!["app.tenant".into()], false));
    assert_eq!(
        of_other("plv8.execute(`select set_config('app.tenant', 'x', false)`)"),
        (vec!["app.tenant".into()], false)
    );
    assert_eq!(of_other("spi_exec_query('SET ' . $name . ' = 1')"), (vec![], true));
    assert_eq!(of_other("return set(x), subset (y), charset_config(1)"), (vec![], false));
}

#[test]
fn a_version_tells_of_functions_and_all_that_they_call() {
    let stamped = |oid: &str, name: &str, source: &str, stamp: &str| {
        let mut row = function(oid, name, "plpgsql", "v", source);
        row.push(Some(stamp.to_owned()));
        row
    };
    let census = census(&[
        stamped("20001", "outer", "BEGIN RETURN inner(1) + lower(2) + missing(3); END", "10"),
        stamped("20002", "inner", "BEGIN RETURN outer(1); END", "3"),
        stamped("20003", "inner", "BEGIN RETURN 1; END", "200"),
        stamped("20004", "other", "BEGIN RETURN 1; END", "5000"),
    ]);
    let version = |names: &[&str]| {
        let mut version = census.version(names.iter().copied()).unwrap();
        version.names.sort();
        (version.names.join(" "), version.stamps)
    };
    let sum = |stamps: &[(u32, &str)]| {
        stamps.iter().fold(0u64, |sum, (oid, xmin)| sum.wrapping_add(stamp(*oid, xmin).unwrap()))
    };
    assert_eq!(
        version(&["outer"]),
        ("inner missing outer".into(), sum(&[(20001, "10"), (20002, "3"), (20003, "200")]))
    );
    assert_eq!(version(&["other", "nowhere"]), ("nowhere other".into(), sum(&[(20004, "5000")])));
    assert_ne!(stamp(20001, "10"), stamp(20001, "11"));
    assert_eq!(stamp(16383, "10"), None);
    let many: Vec<String> = (0..=NAMED_MAX).map(|at| at.to_string()).collect();
    assert_eq!(census.version(many.iter().map(String::as_str)), None);
}

#[test]
fn names_are_quoted_in_questions() {
    let names = || ["plain", "it's", "a\"b\\c", "x,{y}"].into_iter();
    assert!(version_of(names()).contains("IN (E'plain',E'it''s',E'a\"b\\\\c',E'x,{y}')"));
    assert_eq!(array_of(names()), r#"{"plain","it's","a\"b\\c","x,{y}"}"#);
}

#[test]
fn a_census_exceeds_another_by_what_nobody_knew_of() {
    let of = |source: &str, reach: &str| {
        census(&[function("20001", "g", "plpgsql", "v", source), row(&["r", "20001", reach])])
    };
    let (none, plain) = (Census::default(), of("BEGIN RETURN NEW; END", "w"));
    let (writes, reads) = (of("BEGIN SET work_mem = 1; END", "w"), of("BEGIN SET work_mem = 1; END", "r"));
    let (custom, any) = (of("BEGIN SET a.b = 1; END", "w"), of("BEGIN EXECUTE x; END", "w"));
    assert!(!plain.exceeds(&none) && !none.exceeds(&reads) && !custom.exceeds(&custom) && !writes.exceeds(&reads));
    assert!(writes.exceeds(&plain) && reads.exceeds(&writes) && custom.exceeds(&writes) && any.exceeds(&writes));
}

fn row(columns: &[&str]) -> CatalogRow {
    columns.iter().map(|column| (!column.is_empty()).then(|| (*column).to_owned())).collect()
}

/// A function of PL/pgSQL or of another language: oid, name, language, volatility and source.
fn function(oid: &str, name: &str, language: &str, volatility: &str, source: &str) -> CatalogRow {
    row(&["f", oid, name, language, volatility, "f", source, "", "", "", "f"])
}

fn census(rows: &[CatalogRow]) -> Census {
    let mut catalog = Catalog::default();
    catalog.take(rows);
    Census::of(&catalog)
}

/// What is found of a text: of the session, and whether it only reads.
fn found(census: &Census, sql: &str) -> (Finding, bool) {
    let verdict = judge(sql);
    (census.find(&verdict), census.reads(&verdict))
}

#[test]
fn what_functions_do_is_carried_to_their_callers() {
    let census = census(&[
        function("20001", "plain", "sql", "s", "SELECT a FROM t"),
        function("20002", "caller", "plpgsql", "i", "BEGIN RETURN plain(1) + other(2); END"),
        function("20003", "other", "sql", "i", "SELECT 1"),
        function("20004", "writer", "plpgsql", "v", "BEGIN INSERT INTO plain (a) VALUES (1); END"),
        function("20005", "calls_writer", "sql", "s", "SELECT writer()"),
        function("20006", "setter", "plpgsql", "v", "BEGIN SET a.b = 1; END"),
        function("20007", "far", "sql", "s", "SELECT middle()"),
        function("20008", "middle", "sql", "s", "SELECT app.\"setter\" ()"),
        function("20009", "round", "sql", "s", "SELECT trip()"),
        function("20010", "trip", "sql", "s", "SELECT \"round\"()"),
        function("20011", "overloaded", "sql", "s", "SELECT 1"),
        function("20012", "overloaded", "sql", "v", "SELECT set_config('a.b', $1, false)"),
        function("20013", "python", "plpython3u", "i", "return 1"),
        function("20014", "library", "c", "i", ""),
        function("20015", "my_range", "internal", "i", "range_constructor2"),
        function("20016", "sneaky", "internal", "i", "set_config_by_name"),
    ]);
    let harmless = Finding::Harmless;
    for (sql, expected, reads) in [
        ("SELECT plain(1)", harmless, true),
        ("SELECT caller(1), app.other(2)", harmless, true),
        ("SELECT caller(1), random()", harmless, false),
        ("SELECT plain(1) FOR UPDATE", harmless, false),
        ("SELECT writer()", harmless, false),
        ("CALL writer()", harmless, false),
        ("SELECT calls_writer()", harmless, false),
        ("SELECT trip()", harmless, true),
        ("SELECT my_range(1, 2)", harmless, true),
        ("SELECT setter()", Finding::MayTouch, false),
        ("SELECT middle()", Finding::MayTouch, false),
        ("SELECT far()", Finding::MayTouch, false),
        ("SELECT overloaded()", Finding::MayTouch, false),
        ("SELECT python()", Finding::MayTouch, false),
        ("SELECT library()", Finding::MaySetAny, false),
        ("SELECT sneaky()", Finding::MayTouch, false),
        ("SELECT new()", Finding::Unknown, false),
        ("EXECUTE plain", harmless, false),
        ("SELECT plain(1), query_to_xml('x', true, true, '')", Finding::MayTouch, false),
        ("DO 'BEGIN PERFORM writer(); INSERT INTO x (a) VALUES (1); END'", harmless, false),
        ("DO 'BEGIN PERFORM far(); END'", Finding::MayTouch, false),
        ("DO 'BEGIN SET x.y = 1; END'", Finding::MayTouch, false),
        ("DO LANGUAGE plpython3u 'BEGIN END'", Finding::MayTouch, false),
        ("INSERT INTO t VALUES (plain(1))", harmless, false),
        ("UPDATE pg_settings SET setting = 1", Finding::MayTouch, false),
        ("SELECT 1", harmless, false),
    ] {
        assert_eq!(found(&census, sql), (expected, reads), "{sql}");
    }
    assert_eq!(census.hidden(), Hidden::default());
}

#[test]
fn extensions_are_taken_for_what_is_known_of_them() {
    let of = |extension, name, source| row(&["f", "20001", name, "c", "i", "f", source, "", "", extension, "f"]);
    for (extension, name, expected, reads) in [
        ("hstore", "hs_concat", Finding::Harmless, true),
        ("pg_trgm", "similarity", Finding::Harmless, true),
        ("pg_trgm", "set_limit", Finding::MayTouch, false),
        ("dblink", "dblink_connect", Finding::MayTouch, false),
        ("tablefunc", "crosstab3", Finding::MayTouch, false),
        ("tablefunc", "normal_rand", Finding::Harmless, true),
        ("pageinspect", "page_header", Finding::Harmless, false),
    ] {
        let census = census(&[of(extension, name, "")]);
        assert_eq!(found(&census, &format!("SELECT {name}()")), (expected, reads), "{extension} {name}");
    }
}

#[test]
fn defaults_settings_and_parts_count() {
    let with = |kind, source, defaults, settings| {
        census(&[row(&["f", "20001", "f", "sql", "s", kind, source, defaults, settings, "", "f"])])
    };
    let of = |census: Census| found(&census, "SELECT f()").0;
    assert_eq!(of(with("f", "SELECT 1", "set_config('a'::text, 'b'::text, false)", "")), Finding::MayTouch);
    assert_eq!(of(with("f", "SELECT 1", "lower('A'::text)", "")), Finding::Harmless);
    assert_eq!(of(with("f", "SELECT 1", "", "{\"search_path=public, pg_temp\",work_mem=1MB}")), Finding::Harmless);
    assert_eq!(of(with("f", "CREATE TABLE x ()", "", "{search_path=pg_temp}")), Finding::MayTouch);
    assert_eq!(of(with("a", "int4_sum();set_config()", "", "")), Finding::MaySetAny);
    assert_eq!(of(with("a", "int4_sum();other()", "", "")), Finding::Harmless);
}

#[test]
fn what_is_reached_without_a_name() {
    let setter = function("20001", "setter", "plpgsql", "v", "BEGIN PERFORM inner_setter(); END");
    let inner = function("20002", "inner_setter", "plpgsql", "v", "BEGIN SET a.b = 1; END");
    let plain = function("20003", "plain", "plpgsql", "v", "BEGIN NULL; END");
    let hidden = |more: &[CatalogRow]| {
        let rows = [&[setter.clone(), inner.clone(), plain.clone()], more].concat();
        census(&rows).hidden()
    };
    let writes = Hidden { reads: false, writes: true };
    assert_eq!(hidden(&[]), Hidden::default());
    assert_eq!(hidden(&[row(&["r", "20003", "r"])]), Hidden::default());
    assert_eq!(hidden(&[row(&["r", "20001", "w"])]), writes);
    assert_eq!(hidden(&[row(&["r", "20001", "w"]), row(&["r", "20001", "r"])]), Hidden::ANYTHING);
    assert_eq!(hidden(&[row(&["d", "w"])]), writes);
    assert_eq!(hidden(&[row(&["d", "r"])]), Hidden::ANYTHING);
    // Named like one of PostgreSQL's own, or callable like a column.
    assert_eq!(hidden(&[function("20004", "lower", "sql", "v", "SELECT setter()")]), Hidden::ANYTHING);
    assert_eq!(hidden(&[function("20004", "lower", "sql", "v", "SELECT plain()")]), Hidden::default());
    let column = |source| row(&["f", "20004", "col", "sql", "v", "f", source, "", "", "", "t"]);
    assert_eq!(hidden(&[column("SELECT setter()")]), Hidden::ANYTHING);
    assert_eq!(hidden(&[column("SELECT plain()")]), Hidden::default());
}

#[test]
fn hidden_code_is_reached_by_what_may_write() {
    let rows = [
        function("20001", "setter", "plpgsql", "v", "BEGIN SET a.b = 1; RETURN NEW; END"),
        function("20002", "steady", "sql", "s", "SELECT 1"),
        function("20003", "writer", "sql", "v", "DELETE FROM t"),
        row(&["r", "20001", "w"]),
    ];
    let census = census(&rows);
    for (sql, expected) in [
        ("SELECT 1", Finding::Harmless),
        ("SELECT steady()", Finding::Harmless),
        ("SELECT writer()", Finding::MayTouch),
        ("INSERT INTO t VALUES (1)", Finding::MayTouch),
        ("DO 'BEGIN NULL; END'", Finding::MayTouch),
    ] {
        assert_eq!(found(&census, sql).0, expected, "{sql}");
    }
}

#[test]
fn what_may_create_without_a_word_that_says_so() {
    let functions = [
        function("20001", "makes", "plpgsql", "v", "BEGIN CREATE TABLE t (a int); END"),
        function("20002", "calls", "sql", "v", "SELECT makes()"),
        function("20003", "selects", "sql", "v", "SELECT 1 AS a INTO t"),
        function(
            "20004",
            "counts",
            "plpgsql",
            "v",
            "BEGIN SELECT count(*) INTO n FROM t; INSERT INTO t VALUES (1); END",
        ),
        function("20005", "runs", "plpgsql", "v", "BEGIN EXECUTE a; END"),
    ];
    let plain = census(&functions);
    let with = |more: CatalogRow| census(&[&functions[..], &[more]].concat());
    let (triggered, harmless) = (with(row(&["r", "20002", "w"])), with(row(&["r", "20004", "w"])));
    for (sql, creates) in [
        ("SELECT makes()", true),
        ("SELECT calls()", true),
        ("SELECT selects()", true),
        ("SELECT counts()", false),
        ("SELECT runs()", true),
        ("SELECT unknown()", true),
        ("CALL counts()", false),
        ("DO 'BEGIN CREATE TABLE t (a int); END'", true),
        ("DO 'BEGIN PERFORM makes(); END'", true),
        ("DO 'BEGIN PERFORM counts(); END'", false),
        ("INSERT INTO t VALUES (1)", false),
        ("COMMIT", false),
    ] {
        assert_eq!(plain.may_create(&judge(sql)), creates, "{sql}");
        assert_eq!(harmless.may_create(&judge(sql)), creates, "{sql}");
        assert_eq!(triggered.may_create(&judge(sql)), sql != "COMMIT", "{sql}");
    }
}

#[test]
fn newer_functions_of_postgresql_are_told_by_the_server() {
    let census = census(&[row(&["b", "any_value", "f"]), row(&["b", "new_random", "t"]), row(&["b", "lower", "t"])]);
    assert_eq!(found(&census, "SELECT any_value(a) FROM t"), (Finding::Harmless, true));
    assert_eq!(found(&census, "SELECT new_random(1)"), (Finding::MayTouch, false));
    assert_eq!(census.hidden(), Hidden::default());
}

#[test]
fn nonsense_is_passed_over() {
    let census = census(&[row(&[]), row(&["x", "1"]), row(&["f"]), row(&["f", "x", "y"]), row(&["r"]), row(&["b"])]);
    assert_eq!(found(&census, "SELECT y()"), (Finding::Unknown, false));
}

#[test]
fn settings_with_dots_are_known_by_their_names() {
    for (body, customs, sets_any) in [
        (
            "BEGIN SET App.Tenant = 1; SET LOCAL \"b\".c = 2; SET SESSION d.e.f TO 3; SET work_mem = 4; END",
            "app.tenant b.c d.e.f",
            false,
        ),
        ("SELECT set_config('App.It''s'::text, $1, false), current_setting('x.y', true)", "app.it's x.y", false),
        ("SELECT set_config('work_mem', $1, false)", "", false),
        ("SELECT set_config('app.' || a, $1, false)", "", true),
        ("SELECT set_config(a, $1, false), current_setting(b)", "", true),
        ("SELECT setseed(0.5)", "", true),
        ("BEGIN LOAD 'x'; END", "", true),
        ("BEGIN SET SEED TO 0.5; END", "", true),
    ] {
        let body = scan(body);
        assert_eq!(body.customs.iter().map(|name| &**name).collect::<Vec<_>>().join(" "), customs);
        assert_eq!(body.sets_any, sets_any);
    }
    let rows = [
        function("20001", "named", "sql", "v", "SELECT set_config('b.c', $1, false)"),
        function("20002", "unnamed", "sql", "v", "SELECT set_config($1, $2, false)"),
        function("20003", "caller", "plpgsql", "v", "BEGIN PERFORM unnamed('a.b', 'c'); SET a.b = 1; END"),
    ];
    let taken = census(&rows);
    assert_eq!(taken.customs(), ["a.b".into(), "b.c".into()]);
    assert_eq!(found(&taken, "SELECT named('x')").0, Finding::MayTouch);
    assert_eq!(found(&taken, "SELECT caller()").0, Finding::MaySetAny);
    assert_eq!(found(&taken, "DO 'BEGIN PERFORM caller(); END'").0, Finding::MaySetAny);
    assert_eq!(found(&taken, "DO 'BEGIN PERFORM set_config(a, b, false); END'").0, Finding::MaySetAny);
    assert_eq!(found(&taken, "INSERT INTO t VALUES (1)").0, Finding::Harmless);
    let hidden = census(&[&rows[..], &[row(&["r", "20003", "w"])]].concat());
    assert_eq!(found(&hidden, "INSERT INTO t VALUES (1)").0, Finding::MaySetAny);
    assert_eq!(&*judge("DO 'BEGIN SET a.b = 1; END'").customs, ["a.b".into()]);
    let new =
        "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM set_config('c.d', 'x', false); END$$";
    assert_eq!(&*judge(new).customs, ["c.d".into()]);
}

/// Something that touches the session, as a statement, with `~` where white space or comments may stand and `?` where
/// they must.
fn culprit() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "SET?work_mem~=~1",
        "SET?SESSION?work_mem?TO?1",
        "SET?ROLE?NONE",
        "SET?TIME?ZONE~'UTC'",
        "RESET?ALL",
        "PERFORM?set_config~(~'a.b'~,~'c'~,~false~)",
        "PERFORM?pg_catalog~.~set_config~(~'a.b'~,~'c'~,~false~)",
        "PERFORM?\"set_config\"~(~'a.b'~,~'c'~,~1~=~2~)",
        "x~:=~pg_advisory_lock~(~1~)",
        "PERFORM?a?FROM?pg_try_advisory_lock_shared~(~1~,~2~)?a",
        "PERFORM?\"pg_advisory_unlock_all\"~(~)",
        "CREATE?TEMP?TABLE?x~(~a?int~)",
        "CREATE?TEMPORARY?TABLE?x?AS?SELECT?1",
        "CREATE?TABLE?pg_temp~.~x~(~a?int~)",
        "EXECUTE~'SELECT 1'",
        "LISTEN?a",
        "UNLISTEN~*",
        "DISCARD?ALL",
        "LOAD~'x'",
    ])
}

/// White space or comments.
fn gap() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        " ",
        "\n",
        "\t",
        "/**/",
        " /* ' */ ",
        "/* /* SET LOCAL */ \" */",
        " -- ' \n",
        "\r\n",
        " /* $$ */ ",
        "--;\n",
    ])
}

/// What may stand around a statement, with `%` in its place.
fn frame() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "BEGIN %; END",
        "BEGIN NULL; %; RETURN NEW; END",
        "DECLARE s text := 'it''s'; BEGIN IF a THEN %; ELSE b := 1; END IF; END",
        "BEGIN IF a THEN b := 1; ELSE %; END IF; END",
        "BEGIN FOR r IN SELECT * FROM t LOOP %; END LOOP; END",
        "<<outer>> BEGIN <<inner>> BEGIN %; END; END",
        "BEGIN UPDATE t SET a = $$ ; $$; %; END",
        "BEGIN BEGIN NULL; EXCEPTION WHEN OTHERS THEN %; END; END",
        "BEGIN CASE a WHEN 1 THEN %; END CASE; END",
        "#variable_conflict use_column\nBEGIN PERFORM $a$ x $a$, E'\\\\', \"q\"; %; END",
    ])
}

/// A culprit as somebody may write it.
fn written(template: &str, gaps: &[&str], upper: &[bool]) -> String {
    let (mut gaps, mut upper) = (gaps.iter().cycle(), upper.iter().cycle());
    let mut quoted = false;
    let mut text = String::new();
    for letter in template.chars() {
        quoted ^= matches!(letter, '\'' | '"');
        match letter {
            '~' if upper.next() == Some(&false) => {}
            '~' | '?' => text.push_str(gaps.next().unwrap_or(&" ")),
            letter if !quoted && upper.next() == Some(&true) => text.push(letter.to_ascii_uppercase()),
            letter if !quoted => text.push(letter.to_ascii_lowercase()),
            letter => text.push(letter),
        }
    }
    text
}

proptest! {
    #[test]
    fn what_touches_the_session_is_never_called_harmless(
        template in culprit(),
        gaps in prop::collection::vec(gap(), 1..8),
        upper in prop::collection::vec(any::<bool>(), 1..40),
        frame in frame(),
        depth in 0..4usize,
    ) {
        let body = frame.replace('%', &written(template, &gaps, &upper));
        prop_assert!(scan(&body).touches, "{}", body);
        // Also behind any number of calls.
        let mut rows = vec![function("20000", "f0", "plpgsql", "v", &body)];
        for level in 1..=depth {
            let source = format!("SELECT{}\"f{}\"{}()", gaps[0], level - 1, gaps[0]);
            rows.push(function(&(20_000 + level).to_string(), &format!("f{level}"), "sql", "i", &source));
        }
        rows.push(row(&["r", &(20_000 + depth).to_string(), "r"]));
        let census = census(&rows);
        let sql = format!("SELECT f{depth}()");
        let touches = |census: &Census, sql: &str| {
            let (finding, reads) = found(census, sql);
            matches!(finding, Finding::MayTouch | Finding::MaySetAny) && !reads
        };
        prop_assert!(touches(&census, &sql));
        prop_assert_eq!(census.hidden(), Hidden::ANYTHING);
        let block = format!("DO $anonymous${body}$anonymous$");
        prop_assert!(touches(&Census::default(), &block));
    }

    #[test]
    fn any_text_is_looked_at_without_a_panic(text in ".{0,80}") {
        scan(&text);
    }
}

#[test]
fn relations_that_are_read_on_the_primary() {
    let row = |name: &str, why: &str| -> CatalogRow { ["u", name, why].map(|text| Some(text.to_owned())).to_vec() };
    let mut catalog = Catalog::default();
    catalog.take(&[row("draft", "u"), row("pair", "S"), row("pair", "u"), row("Numbers", "S")]);
    let census = Census::of(&catalog);
    assert!(census.knows_primary_only() && !Census::default().knows_primary_only());
    let found = |sql: &str| census.primary_only(&judge(sql)).map(|(name, why)| format!("{name} {why}"));
    assert_eq!(
        found("SELECT * FROM other JOIN app.draft USING (x)").as_deref(),
        Some("app.draft is unlogged, or reads what is")
    );
    assert_eq!(found("TABLE pair").as_deref(), Some("pair is unlogged, or reads what is"));
    assert_eq!(found("SELECT last_value FROM \"Numbers\"").as_deref(), Some("Numbers is a sequence, or reads one"));
    for sql in ["SELECT 1", "SELECT draft FROM numbers", "SELECT * FROM draft.other"] {
        assert_eq!(found(sql), None, "{sql}");
    }
    let names_column = |sql: &str| judge(sql).does(Fact::MayReadSequence);
    assert!(names_column("SELECT * FROM s") && names_column("SELECT s.* FROM s") && names_column("TABLE s"));
    assert!(names_column("SELECT last_value FROM s") && names_column("SELECT 1 FROM a.s WHERE s.is_called"));
    assert!(!names_column("SELECT 'last_value', last_value(x) OVER () AS is_called FROM s"));
}
