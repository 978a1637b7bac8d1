//! Functions that are made, or changed, on a direct connection a moment before they are called through Poolhouse: what they
//! do to the session follows its client, from the first call on, and reaches nobody else.

use super::{
    hidden_state::{CUSTOM, LOCK, SETTING, TABLE, follows, in_front, login, succeeds, with_schema},
    kit::{LabCluster, PATIENCE, RawClient, cluster, wait_until},
};

/// A harmless function, what it is changed to, and what shows the state. `#` stands for the number of the round.
struct Change {
    before: &'static str,
    after: &'static str,
    act: &'static str,
    shows: (&'static str, &'static str, &'static str),
}

const MADE: &[Change] = &[
    Change {
        before: "",
        after: "CREATE FUNCTION made#() RETURNS void LANGUAGE plpgsql AS
            $$BEGIN PERFORM set_config('new#.tenant', 'me', false); END$$",
        act: "SELECT made#()",
        shows: ("SELECT coalesce(current_setting('new#.tenant', true), '')", "me", ""),
    },
    Change {
        before: "",
        after: "CREATE FUNCTION inner#() RETURNS void LANGUAGE plpgsql AS $$BEGIN SET deep#.tenant = 'me'; END$$;
            CREATE FUNCTION outer#() RETURNS void LANGUAGE sql AS 'SELECT inner#()'",
        act: "SELECT outer#()",
        shows: ("SELECT coalesce(current_setting('deep#.tenant', true), '')", "me", ""),
    },
    Change {
        before: "",
        after: "CREATE FUNCTION dynamic#(t text) RETURNS void LANGUAGE plpgsql AS
            $$BEGIN EXECUTE format('SET dyn#.tenant = %L', t); END$$",
        act: "SELECT dynamic#('me')",
        shows: ("SELECT coalesce(current_setting('dyn#.tenant', true), '')", "me", ""),
    },
    Change {
        before: "",
        after: "CREATE FUNCTION composed#(t text) RETURNS void LANGUAGE plpgsql AS
            $$BEGIN PERFORM set_config('com#.' || t, 'me', false); END$$",
        act: "SELECT composed#('tenant')",
        shows: ("SELECT coalesce(current_setting('com#.tenant', true), '')", "me", ""),
    },
    Change {
        before: "",
        after: "CREATE PROCEDURE block#() LANGUAGE sql AS $$SELECT set_config('blo#.tenant', 'me', false)$$",
        act: "DO $$BEGIN CALL block#(); END$$",
        shows: ("SELECT coalesce(current_setting('blo#.tenant', true), '')", "me", ""),
    },
    Change {
        before: "CREATE FUNCTION changed#() RETURNS text LANGUAGE sql AS $$SELECT 'x'$$",
        after: "CREATE OR REPLACE FUNCTION changed#() RETURNS text LANGUAGE sql AS
            $$SELECT set_config('cha#.tenant', 'me', false)$$",
        act: "SELECT changed#()",
        shows: ("SELECT coalesce(current_setting('cha#.tenant', true), '')", "me", ""),
    },
    Change {
        before: "CREATE FUNCTION below#() RETURNS text LANGUAGE sql AS $$SELECT 'x'$$;
            CREATE FUNCTION above#() RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN below#(); END$$",
        after: "CREATE OR REPLACE FUNCTION below#() RETURNS text LANGUAGE sql AS
            $$SELECT set_config('work_mem', '1234kB', false)$$",
        act: "SELECT above#()",
        shows: SETTING,
    },
    Change {
        before: "CREATE FUNCTION other#(int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        after: "CREATE FUNCTION app.other#(text) RETURNS int LANGUAGE plpgsql AS
            $$BEGIN PERFORM pg_advisory_lock(7); RETURN 1; END$$; GRANT ALL ON FUNCTION app.other# TO app",
        act: "SELECT app.other#('x')",
        shows: LOCK,
    },
    Change {
        before: "CREATE FUNCTION table#() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        after: "CREATE OR REPLACE FUNCTION table#() RETURNS int LANGUAGE plpgsql AS
            $$BEGIN CREATE TEMP TABLE IF NOT EXISTS secret (a int); RETURN 1; END$$",
        act: "SELECT table#()",
        shows: TABLE,
    },
];

#[test]
fn a_function_made_a_moment_ago_is_asked_about() {
    const ROUNDS: usize = 3;
    let cluster = with_schema();
    let beside = |sql: &str| {
        if !sql.is_empty() {
            cluster.node(0).query(sql).unwrap();
        }
    };
    let numbered = |text: &str, round: usize| text.replace('#', &round.to_string());
    for change in MADE {
        (0..ROUNDS).for_each(|round| beside(&numbered(change.before, round)));
    }
    let pooler = in_front(&cluster, "2").start();
    let mut others = [login(pooler.port(), "postgres"), login(pooler.port(), "postgres")];
    for change in MADE.iter().filter(|change| !change.before.is_empty()) {
        // Known to be harmless.
        (0..ROUNDS).for_each(|round| drop(others[0].query(&numbered(change.act, round))));
    }
    for round in 0..ROUNDS {
        for Change { after, act, shows: (sql, there, absent), .. } in MADE {
            let (after, act, sql) = (numbered(after, round), numbered(act, round), numbered(sql, round));
            let mut mine = login(pooler.port(), "postgres");
            beside(&after);
            succeeds(&mut mine, &act);
            follows(&mut mine, &mut others, &act, (&sql, there, absent));
        }
    }
}

#[test]
fn settings_of_code_are_known_to_the_first_session() {
    let cluster = cluster().trust_user("app").start().unwrap();
    for database in ["called", "hidden"] {
        cluster.node(0).query(&format!("CREATE DATABASE {database}")).unwrap();
        let code = "CREATE FUNCTION set_tenant() RETURNS trigger LANGUAGE plpgsql AS
                $$BEGIN PERFORM set_config('app.tenant', 'me', false); RETURN NEW; END$$;
            CREATE FUNCTION tenant() RETURNS text LANGUAGE sql AS $$SELECT set_config('app.tenant', 'me', false)$$;
            CREATE TABLE t (a int); CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION set_tenant();
            GRANT ALL ON t TO app";
        cluster.node(0).query_in(database, code).unwrap();
    }
    let pooler = in_front(&cluster, "2").start();
    for (database, act) in [("called", "SELECT tenant()"), ("hidden", "INSERT INTO t VALUES (1)")] {
        let mut mine = login(pooler.port(), database);
        succeeds(&mut mine, act);
        follows(&mut mine, &mut [login(pooler.port(), database), login(pooler.port(), database)], act, CUSTOM);
    }
}

#[test]
fn what_asks_for_functions_is_no_statement_of_the_client() {
    let cluster = with_schema();
    let pooler = in_front(&cluster, "1").start();
    let mut mine = login(pooler.port(), "postgres");
    for _ in 0..3 {
        succeeds(&mut mine, "SELECT app.f()");
        assert_eq!(mine.value("SELECT count(*) FROM pg_prepared_statements").as_deref(), Some("0"));
        succeeds(&mut mine, "SELECT app.f()");
        // Where code takes it away it is prepared anew.
        succeeds(&mut mine, "DO $$BEGIN EXECUTE 'DEALLOCATE ALL'; PERFORM app.f(); END$$");
        succeeds(&mut mine, "SELECT app.f()");
    }
}

/// What a trigger that is made beside Poolhouse does before it is noticed is gone from the connections once it is.
#[test]
fn what_a_new_trigger_left_behind_is_cleaned_up() {
    let cluster = with_schema();
    cluster.node(0).query("CREATE TABLE t (a int); GRANT ALL ON t TO app").unwrap();
    let pooler = in_front(&cluster, "1").start();
    let (mut mine, mut other) = (login(pooler.port(), "postgres"), login(pooler.port(), "postgres"));
    succeeds(&mut mine, "SELECT 1");
    make_trigger(&cluster);
    succeeds(&mut mine, "INSERT INTO t VALUES (1)");
    let tenant = |client: &mut RawClient| client.value(CUSTOM.0);
    wait_until("others see nothing of it", PATIENCE, || tenant(&mut other).as_deref() == Some(""));
    drop(mine);
    // From then on it follows its client.
    wait_until("the trigger is known", PATIENCE, || {
        let mut mine = login(pooler.port(), "postgres");
        succeeds(&mut mine, "INSERT INTO t VALUES (1)");
        tenant(&mut other).as_deref() == Some("") && tenant(&mut mine).as_deref() == Some("me")
    });
}

fn make_trigger(cluster: &LabCluster) {
    let code = "CREATE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN PERFORM set_config('app.tenant', 'me', false); RETURN NEW; END$$;
        CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION g()";
    cluster.node(0).query(code).unwrap();
}
