//! Session state that no statement's text shows: behind triggers, views, casts, operators, functions, DO and CALL. It
//! follows the client that caused it and reaches no other; what is known to be harmless costs the server no question;
//! and what surely only reads goes to replicas.

use super::kit::{
    Config, LabCluster, PATIENCE, RawClient, cluster,
    messages::{bind, execute, parse, sync},
    wait_until,
};

/// A way to change session state, in a database of its own.
struct Case {
    name: &'static str,
    /// Run by the superuser, before Poolhouse knows the database.
    code: &'static str,
    /// What the client says.
    act: &'static str,
    /// What shows the state, and what it shows then and otherwise.
    shows: (&'static str, &'static str, &'static str),
}

pub const SETTING: (&str, &str, &str) = ("SHOW work_mem", "1234kB", "4MB");
pub const CUSTOM: (&str, &str, &str) = ("SELECT coalesce(current_setting('app.tenant', true), '')", "me", "");
pub const LOCK: (&str, &str, &str) =
    ("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()", "1", "0");
pub const TABLE: (&str, &str, &str) =
    ("SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema() AND relkind = 'r'", "1", "0");

const CASES: &[Case] = &[
    Case {
        name: "trigger_setting",
        code:
            "CREATE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN SET work_mem = '1234kB'; RETURN NEW; END$$;
            CREATE TABLE t (a int); CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION g()",
        act: "INSERT INTO t VALUES (1)",
        shows: SETTING,
    },
    Case {
        name: "trigger_custom",
        code: "CREATE FUNCTION h(text) RETURNS void LANGUAGE sql AS $$SELECT set_config('app.tenant', $1, false)$$;
            CREATE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM h('me'); RETURN NEW; END$$;
            CREATE TABLE t (a int); CREATE TRIGGER g AFTER UPDATE ON t EXECUTE FUNCTION g()",
        act: "UPDATE t SET a = 2",
        shows: CUSTOM,
    },
    Case {
        name: "trigger_unnamed",
        code: "CREATE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN PERFORM set_config('app.' || TG_ARGV[0], 'me', false); RETURN NEW; END$$;
            CREATE TABLE t (a int); CREATE TRIGGER g AFTER UPDATE ON t EXECUTE FUNCTION g('tenant')",
        act: "UPDATE t SET a = 2",
        shows: CUSTOM,
    },
    Case {
        name: "trigger_lock",
        code: "CREATE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN PERFORM pg_advisory_lock(7); RETURN NEW; END$$;
            CREATE TABLE t (a int); CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION g()",
        act: "INSERT INTO t VALUES (1)",
        shows: LOCK,
    },
    Case {
        name: "trigger_table",
        code: "CREATE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN CREATE TEMP TABLE IF NOT EXISTS secret (a int); RETURN NEW; END$$;
            CREATE TABLE t (a int); CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION g()",
        act: "INSERT INTO t VALUES (1)",
        shows: TABLE,
    },
    Case {
        name: "trigger_dynamic",
        code: "CREATE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN EXECUTE 'CREATE TE' || 'MP TABLE IF NOT EXISTS secret (a int)'; RETURN NEW; END$$;
            CREATE TABLE t (a int); CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION g()",
        act: "INSERT INTO t VALUES (1)",
        shows: TABLE,
    },
    Case {
        name: "rule",
        code: "CREATE TABLE t (a int); CREATE RULE r AS ON DELETE TO t DO ALSO SELECT pg_advisory_lock(7)",
        act: "DELETE FROM t",
        shows: LOCK,
    },
    Case {
        name: "rule_over_settings",
        code: "CREATE TABLE t (a int); CREATE RULE r AS ON INSERT TO t DO ALSO
            UPDATE pg_settings SET setting = '1234kB' WHERE name = 'work_mem'",
        act: "INSERT INTO t VALUES (1)",
        shows: SETTING,
    },
    Case {
        name: "settings_view",
        code: "CREATE VIEW s AS SELECT * FROM pg_settings",
        act: "UPDATE s SET setting = '1234kB' WHERE name = 'work_mem'",
        shows: SETTING,
    },
    Case {
        name: "settings_themselves",
        code: "SELECT 1",
        act: "UPDATE pg_settings SET setting = '1234kB' WHERE name = 'work_mem'",
        shows: SETTING,
    },
    Case {
        name: "view",
        code: "CREATE FUNCTION g() RETURNS text LANGUAGE sql AS $$SELECT set_config('app.tenant', 'me', false)$$;
            CREATE VIEW v AS SELECT g()",
        act: "SELECT * FROM v",
        shows: CUSTOM,
    },
    Case {
        name: "view_of_a_built_in",
        code: "CREATE VIEW v AS SELECT pg_try_advisory_lock(7)",
        act: "SELECT * FROM v",
        shows: LOCK,
    },
    Case {
        name: "cast_to_number",
        code: "CREATE TYPE pair AS (a int, b int); CREATE FUNCTION g(pair) RETURNS int LANGUAGE plpgsql AS
            $$BEGIN PERFORM pg_advisory_lock(7); RETURN 1; END$$; CREATE CAST (pair AS int) WITH FUNCTION g(pair)",
        act: "SELECT ROW(1, 2)::pair::int",
        shows: LOCK,
    },
    Case {
        name: "operator",
        code: "CREATE FUNCTION g(int, text) RETURNS int LANGUAGE plpgsql AS
            $$BEGIN SET work_mem = '1234kB'; RETURN 1; END$$;
            CREATE OPERATOR ### (FUNCTION = g, LEFTARG = int, RIGHTARG = text)",
        act: "SELECT 1 ### 'x'",
        shows: SETTING,
    },
    Case {
        name: "operator_of_a_built_in",
        code: "CREATE OPERATOR ### (FUNCTION = pg_try_advisory_lock, RIGHTARG = bigint)",
        act: "SELECT ### 7::bigint",
        shows: LOCK,
    },
    Case {
        name: "aggregate",
        code: "CREATE AGGREGATE g(text, boolean) (SFUNC = set_config, STYPE = text, INITCOND = 'work_mem')",
        act: "SELECT g('1234kB', false)",
        shows: SETTING,
    },
    Case {
        name: "domain",
        code: "CREATE FUNCTION g(int) RETURNS boolean LANGUAGE plpgsql AS
            $$BEGIN PERFORM pg_advisory_lock(7); RETURN true; END$$; CREATE DOMAIN d AS int CHECK (g(VALUE))",
        act: "SELECT 1::d",
        shows: LOCK,
    },
    Case {
        name: "default_of_a_column",
        code: "CREATE FUNCTION g() RETURNS int LANGUAGE plpgsql AS $$BEGIN SET work_mem = '1234kB'; RETURN 1; END$$;
            CREATE TABLE t (a int DEFAULT g())",
        act: "INSERT INTO t DEFAULT VALUES",
        shows: SETTING,
    },
    Case {
        name: "policy",
        code: "CREATE FUNCTION g() RETURNS boolean LANGUAGE plpgsql AS
            $$BEGIN SET work_mem = '1234kB'; RETURN true; END$$; CREATE TABLE t (a int); INSERT INTO t VALUES (1);
            ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (g())",
        act: "SELECT * FROM t",
        shows: SETTING,
    },
    Case {
        name: "column_like_call",
        code: "CREATE TABLE t (a int); INSERT INTO t VALUES (1); CREATE FUNCTION g(t) RETURNS int LANGUAGE plpgsql AS
            $$BEGIN SET work_mem = '1234kB'; RETURN 1; END$$",
        act: "SELECT t.g FROM t",
        shows: SETTING,
    },
    Case {
        name: "named_like_a_built_in",
        code: "CREATE FUNCTION lower(int) RETURNS int LANGUAGE plpgsql AS
            $$BEGIN SET work_mem = '1234kB'; RETURN 1; END$$",
        act: "SELECT lower(1)",
        shows: SETTING,
    },
    Case {
        name: "event_trigger",
        code:
            "CREATE FUNCTION g() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_advisory_lock(7); END$$;
            CREATE TABLE t (a int); ALTER TABLE t OWNER TO app;
            CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION g()",
        act: "COMMENT ON TABLE t IS 'x'",
        shows: LOCK,
    },
    Case {
        name: "block",
        code: "SELECT 1",
        act: "DO $$ BEGIN IF true THEN /* here */ SET work_mem = '1234kB'; END IF; END $$",
        shows: SETTING,
    },
    Case {
        name: "block_custom",
        code: "SELECT 1",
        act: "DO $$ BEGIN PERFORM set_config('app.tenant', 'me', false); END $$",
        shows: CUSTOM,
    },
    Case {
        name: "block_that_calls",
        code: "CREATE FUNCTION g() RETURNS void LANGUAGE plpgsql AS
            $$BEGIN CREATE TEMP TABLE IF NOT EXISTS secret (a int); END$$",
        act: "DO $$ BEGIN PERFORM g(); END $$",
        shows: TABLE,
    },
    Case {
        name: "call",
        code: "CREATE PROCEDURE g(int) LANGUAGE plpgsql AS $$BEGIN PERFORM pg_advisory_lock($1); END$$",
        act: "CALL g(7)",
        shows: LOCK,
    },
    Case {
        name: "standard_body",
        code: "CREATE FUNCTION g() RETURNS text LANGUAGE sql RETURN set_config('app.tenant', 'me', false);
            CREATE FUNCTION h() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT g(); END",
        act: "SELECT h()",
        shows: CUSTOM,
    },
    Case {
        name: "default_of_an_argument",
        code: "CREATE FUNCTION g(a text DEFAULT set_config('app.tenant', 'me', false)) RETURNS text LANGUAGE sql
            AS 'SELECT $1'",
        act: "SELECT g()",
        shows: CUSTOM,
    },
    Case {
        name: "function_with_settings",
        code: "CREATE FUNCTION g() RETURNS void LANGUAGE plpgsql SET search_path = pg_temp AS
            $$BEGIN CREATE TABLE secret (a int); END$$",
        act: "SELECT g()",
        shows: TABLE,
    },
];

/// A cluster with a database for each case.
fn with_cases<'c>(cases: impl IntoIterator<Item = &'c Case>) -> LabCluster {
    let cluster = cluster().trust_user("app").start().unwrap();
    let node = cluster.node(0);
    for case in cases {
        node.query(&format!("CREATE DATABASE {}", case.name)).unwrap();
        node.query_in(case.name, case.code).unwrap();
        node.query_in(case.name, "GRANT ALL ON SCHEMA public TO app; GRANT ALL ON ALL TABLES IN SCHEMA public TO app")
            .unwrap();
    }
    cluster
}

pub fn in_front(cluster: &LabCluster, size: &str) -> Config {
    Config::of_cluster(cluster).user("app", "secret").set("pool.size", size).set("log.level", "'debug'")
}

pub fn login(port: u16, database: &str) -> RawClient {
    RawClient::login(port, database, "app", "secret")
}

pub fn succeeds(client: &mut RawClient, sql: &str) {
    let answer = client.query(sql);
    assert!(answer.iter().all(|message| message.tag != b'E'), "{sql}: {answer:?}");
}

/// The state is always there for one client and never for the others, whichever connections they get.
pub fn follows(mine: &mut RawClient, others: &mut [RawClient], case: &str, shows: (&str, &str, &str)) {
    let (sql, there, absent) = shows;
    for round in 0..4 {
        for other in others.iter_mut() {
            assert_eq!(other.value(sql).as_deref(), Some(absent), "{case}, another client, round {round}");
        }
        assert_eq!(mine.value(sql).as_deref(), Some(there), "{case}, round {round}");
    }
}

/// How often Poolhouse has taken a census of a database.
fn censuses(log: &[String], database: &str) -> usize {
    let words = format!("database=\"{database}\"");
    log.iter().filter(|line| line.contains("took a census") && line.contains(&words)).count()
}

/// How often the server was asked what a session has become, by its log of statements.
fn probes(cluster: &LabCluster) -> usize {
    cluster.node(0).log().matches("pg_my_temp_schema() LIMIT 1").count()
}

#[test]
fn hidden_state_follows_its_client() {
    let cluster = with_cases(CASES);
    let pooler = in_front(&cluster, "2").start();
    for case in CASES {
        let mut others = [login(pooler.port(), case.name), login(pooler.port(), case.name)];
        others[0].query("SELECT 1");
        wait_until("a census", PATIENCE, || censuses(&pooler.log(), case.name) > 0);
        let mut mine = login(pooler.port(), case.name);
        succeeds(&mut mine, case.act);
        follows(&mut mine, &mut others, case.name, case.shows);
        drop(mine);
        follows(
            &mut login(pooler.port(), case.name),
            &mut others,
            case.name,
            (case.shows.0, case.shows.2, case.shows.2),
        );
    }
}

#[test]
fn hidden_state_follows_its_client_before_anything_is_known() {
    // The names of settings with a dot are known by the census only.
    let cases = || CASES.iter().filter(|case| case.name.starts_with("trigger_") && case.shows != CUSTOM);
    let cluster = with_cases(cases());
    let pooler = in_front(&cluster, "2").start();
    for case in cases() {
        let mut mine = login(pooler.port(), case.name);
        succeeds(&mut mine, case.act);
        follows(&mut mine, &mut [login(pooler.port(), case.name)], case.name, case.shows);
    }
}

/// Waits until a database's code is known, which begins with its first client.
fn wait_for_census(client: &mut RawClient, log: impl Fn() -> Vec<String>, database: &str) {
    client.query("SELECT 1");
    wait_until("a census", PATIENCE, || censuses(&log(), database) > 0);
}

#[test]
fn what_is_harmless_costs_no_question() {
    const CODE: &str = "
        CREATE TABLE t (a int, changed timestamptz, b serial);
        CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.changed := now(); RETURN NEW; END$$;
        CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch();
        CREATE FUNCTION twice(x int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT x * 2';
        CREATE FUNCTION four(x int) RETURNS int LANGUAGE plpgsql AS $$BEGIN RETURN twice(twice(x)); END$$;
        CREATE PROCEDURE add(x int) LANGUAGE plpgsql AS $$BEGIN INSERT INTO t (a) VALUES (four(x)); END$$;
        CREATE FUNCTION local() RETURNS text LANGUAGE sql AS $$SELECT set_config('app.tenant', 'x', true)$$;
        CREATE FUNCTION fixed() RETURNS text LANGUAGE sql SET work_mem = '2MB' AS 'SELECT current_setting(''work_mem'')';
        CREATE VIEW v AS SELECT four(a), local() FROM t;
        CREATE FUNCTION harmful() RETURNS text LANGUAGE sql AS $$SELECT set_config('app.tenant', 'me', false)$$;
        GRANT ALL ON ALL TABLES IN SCHEMA public TO app; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app";
    let cluster = cluster().trust_user("app").setting("log_statement", "all").start().unwrap();
    cluster.node(0).query(CODE).unwrap();
    let pooler = in_front(&cluster, "1").start();
    let mut client = login(pooler.port(), "postgres");
    wait_for_census(&mut client, || pooler.log(), "postgres");
    // Known at the latest when a call has cost no question.
    let costs = |client: &mut RawClient, sql: &str| {
        let before = probes(&cluster);
        succeeds(client, sql);
        // The question comes before the next statement.
        succeeds(client, "SELECT 1");
        probes(&cluster) - before
    };
    wait_until("a call costs no question", PATIENCE, || costs(&mut client, "SELECT four(1)") == 0);
    for sql in [
        "SELECT 1",
        "SELECT twice(1), four(2), local(), fixed()",
        "INSERT INTO t (a) VALUES (twice(3))",
        "UPDATE t SET a = four(a)",
        "SELECT * FROM v",
        "CALL add(1)",
        "DO $$ DECLARE n int; BEGIN SELECT count(*) INTO n FROM t; PERFORM four(n); CALL add(n); END $$",
        "CREATE TEMP TABLE x ON COMMIT DROP AS SELECT 1",
    ] {
        assert_eq!(costs(&mut client, sql), 0, "{sql}");
        let batch = [parse("", sql), bind("", "", &[]), execute("", 0), sync()];
        let before = probes(&cluster);
        client.send(&batch.concat());
        client.read_until_ready();
        succeeds(&mut client, "SELECT 1");
        assert_eq!(probes(&cluster) - before, 0, "{sql} in a batch");
    }
    assert_eq!(costs(&mut client, "SELECT harmful()"), 1);
    assert_eq!(costs(&mut client, "DO $$BEGIN PERFORM harmful(); END$$"), 1);
    assert_eq!(costs(&mut client, "SELECT no_such_type FROM harmful() no_such_type"), 1);
}

#[test]
fn what_only_writes_reach_costs_reads_nothing() {
    let cluster = cluster().trust_user("app").setting("log_statement", "all").start().unwrap();
    cluster
        .node(0)
        .query(
            "CREATE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN SET work_mem = '1MB'; RETURN NEW; END$$;
            CREATE TABLE t (a int); CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION g();
            GRANT ALL ON t TO app",
        )
        .unwrap();
    let pooler = in_front(&cluster, "1").start();
    let mut client = login(pooler.port(), "postgres");
    wait_for_census(&mut client, || pooler.log(), "postgres");
    let mut costs = |sql: &str| {
        let before = probes(&cluster);
        succeeds(&mut client, sql);
        succeeds(&mut client, "BEGIN");
        succeeds(&mut client, "COMMIT");
        probes(&cluster) - before
    };
    wait_until("a read costs no question", PATIENCE, || costs("SELECT * FROM t") == 0);
    assert_eq!(costs("INSERT INTO t VALUES (1)"), 1);
    assert_eq!(costs("SELECT * FROM t"), 0);
}

const HARMLESS: &str = "CREATE OR REPLACE FUNCTION app.f() RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN 'x'; END$$";

/// A body for the same function that is not harmless.
fn harmful(what: &str) -> String {
    format!("CREATE OR REPLACE FUNCTION app.f() RETURNS text LANGUAGE plpgsql AS $$BEGIN {what}; RETURN 'x'; END$$")
}

/// A database in which the clients' user has a schema of its own with a function that is known.
pub fn with_schema() -> LabCluster {
    let cluster = cluster().trust_user("app").setting("log_statement", "all").start().unwrap();
    cluster.node(0).query("CREATE SCHEMA app AUTHORIZATION app").unwrap();
    cluster.node(0).query(&format!("SET ROLE app; {HARMLESS}")).unwrap();
    cluster
}

const STATES: [(&str, (&str, &str, &str)); 4] = [
    ("SET work_mem = '1234kB'", SETTING),
    ("PERFORM set_config('app.tenant', 'me', false)", CUSTOM),
    ("PERFORM pg_advisory_lock(7)", LOCK),
    ("CREATE TEMP TABLE IF NOT EXISTS secret (a int)", TABLE),
];

#[test]
fn a_change_of_code_that_passes_by_counts_at_once() {
    let cluster = with_schema();
    let pooler = in_front(&cluster, "2").start();
    let mut others = [login(pooler.port(), "postgres"), login(pooler.port(), "postgres")];
    for (what, shows) in STATES {
        wait_for_census_after(&mut others[0], HARMLESS, &cluster);
        // Alone.
        let mut mine = login(pooler.port(), "postgres");
        succeeds(&mut others[0], &harmful(what));
        succeeds(&mut mine, "SELECT app.f()");
        follows(&mut mine, &mut others, what, shows);
        drop(mine);
        // In a transaction: it counts for its own session before the end of that, and for the others after it.
        wait_for_census_after(&mut others[0], HARMLESS, &cluster);
        let mut mine = login(pooler.port(), "postgres");
        for sql in ["BEGIN", &harmful(what), "SELECT app.f()", "COMMIT"] {
            succeeds(&mut mine, sql);
        }
        follows(&mut mine, &mut others, what, shows);
        drop(mine);
        let mut mine = login(pooler.port(), "postgres");
        succeeds(&mut mine, "SELECT app.f()");
        follows(&mut mine, &mut others, what, shows);
    }
}

/// Makes the function harmless, and waits until that is known: calls of it cost no question.
fn wait_for_census_after(client: &mut RawClient, sql: &str, cluster: &LabCluster) {
    succeeds(client, sql);
    wait_until("the function is known to be harmless", PATIENCE, || {
        let before = probes(cluster);
        succeeds(client, "SELECT app.f()");
        succeeds(client, "SELECT 1");
        probes(cluster) == before
    });
}

#[test]
fn a_trigger_made_through_poolhouse_counts_at_once() {
    let cluster = with_schema();
    let pooler = in_front(&cluster, "2").start();
    let mut others = [login(pooler.port(), "postgres"), login(pooler.port(), "postgres")];
    wait_for_census_after(&mut others[0], HARMLESS, &cluster);
    let mut mine = login(pooler.port(), "postgres");
    for sql in [
        "CREATE TABLE app.t (a int)",
        "CREATE FUNCTION app.g() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN PERFORM pg_advisory_lock(7); RETURN NEW; END$$",
        "CREATE TRIGGER g BEFORE INSERT ON app.t FOR EACH ROW EXECUTE FUNCTION app.g()",
    ] {
        succeeds(&mut others[0], sql);
    }
    succeeds(&mut mine, "INSERT INTO app.t VALUES (1)");
    follows(&mut mine, &mut others, "a new trigger", LOCK);
}

#[test]
fn a_change_of_code_beside_poolhouse_is_noticed_in_time() {
    let cluster = with_schema();
    let pooler = in_front(&cluster, "2").start();
    let mut others = [login(pooler.port(), "postgres"), login(pooler.port(), "postgres")];
    wait_for_census_after(&mut others[0], HARMLESS, &cluster);
    let before = censuses(&pooler.log(), "postgres");
    cluster.node(0).query(&format!("SET ROLE app; {}", harmful("PERFORM pg_advisory_lock(7)"))).unwrap();
    wait_until("the change is noticed", PATIENCE, || {
        // Only while the database is in use.
        succeeds(&mut others[0], "SELECT 1");
        censuses(&pooler.log(), "postgres") > before
    });
    let mut mine = login(pooler.port(), "postgres");
    succeeds(&mut mine, "SELECT app.f()");
    follows(&mut mine, &mut others, "a change beside Poolhouse", LOCK);
    // A new function is unknown, so it counts at once.
    cluster
        .node(0)
        .query("CREATE FUNCTION news() RETURNS void LANGUAGE sql AS $$SELECT set_config('work_mem', '1234kB', false)$$")
        .unwrap();
    drop(mine);
    let mut mine = login(pooler.port(), "postgres");
    succeeds(&mut mine, "SELECT news()");
    follows(&mut mine, &mut others, "a new function", SETTING);
}
