"""State of a session that is seldom thought of, and what administrators do beside applications."""

import os
import pathlib
import subprocess
import time

import psycopg
from steps import DATABASE, DSN, PORT, outcome, say, step


def login(dsn=DSN, **more):
    return psycopg.connect(dsn, autocommit=True, **more)


def one(c, statement, *parameters):
    return c.execute(statement, parameters or None).fetchone()


def seeds():
    with login() as c:
        c.execute("SELECT setseed(0.5)")
        say("seeded", [round(one(c, "SELECT random()")[0], 6) for _ in range(3)])
        c.execute("SET seed = 0.25")
        say("seeded by SET", [round(one(c, "SELECT random()")[0], 6) for _ in range(3)])
        with c.transaction():
            c.execute("SELECT setseed(0.5)")
            say("seeded in a block", round(one(c, "SELECT random()")[0], 6))
        say("and after it", round(one(c, "SELECT random()")[0], 6))


def timeouts():
    with login() as c:
        c.execute("SET idle_session_timeout = '300ms'")
        time.sleep(0.8)
        with step("idle session"):
            c.execute("SELECT 1")
    with login() as c:
        c.execute("SET idle_in_transaction_session_timeout = '300ms'")
        c.execute("BEGIN")
        c.execute("SELECT 1")
        time.sleep(0.8)
        with step("idle in a block"):
            c.execute("SELECT 1")
    with login() as c:
        c.execute("SET idle_in_transaction_session_timeout = '300ms'")
        c.execute("BEGIN")
        time.sleep(0.8)
        with step("idle in an empty block"):
            c.execute("SELECT 1")
    with login(options="-c statement_timeout=300ms") as c:
        with step("statement timeout of the login"):
            c.execute("SELECT pg_sleep(3)")
        with step("statement timeout in a function"):
            c.execute("DO $$ BEGIN PERFORM pg_sleep(3); EXCEPTION WHEN query_canceled THEN RAISE NOTICE 'caught'; END $$")
        c.execute("SET LOCAL statement_timeout = 0")
        with step("SET LOCAL outside of a block"):
            c.execute("SELECT pg_sleep(1)")


def views():
    with login(application_name="looked at", options="-c work_mem=7MB -c app.mine=x") as c:
        c.execute("SET enable_seqscan = off")
        c.execute("SET app.later = 'y'")
        rows = "SELECT name, setting, source, reset_val FROM pg_settings WHERE name IN ('work_mem', 'application_name', 'enable_seqscan', 'app.mine', 'app.later', 'datestyle', 'search_path', 'client_encoding') ORDER BY name"
        for row in c.execute(rows).fetchall():
            say("pg_settings", row)
        c.execute("RESET ALL")
        for row in c.execute(rows).fetchall():
            say("pg_settings after RESET ALL", row)
        say("own activity", one(c, "SELECT datname = current_database(), usename, application_name, state, client_addr, backend_type, query LIKE 'SELECT datname%%' FROM pg_stat_activity WHERE pid = pg_backend_pid()"))
        say("own addresses", one(c, "SELECT inet_client_addr(), inet_server_addr()"))
        say("own names", one(c, "SELECT session_user, current_user, current_schema(), current_schemas(true)"))
        say("own query", one(c, "SELECT current_query()"))
        say("own locks", c.execute("SELECT locktype, mode, granted FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'virtualxid'").fetchall())
        say("temporary schema", one(c, "SELECT pg_my_temp_schema() = 0"))
        c.execute("CREATE TEMP TABLE t (a int)")
        say("temporary schema then", one(c, "SELECT pg_my_temp_schema() <> 0, pg_is_other_temp_schema(pg_my_temp_schema()), (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema())"))
        say("its columns", c.execute("SELECT table_schema LIKE 'pg_temp%%', column_name FROM information_schema.columns WHERE table_name = 't'").fetchall())
        c.execute("DROP TABLE t")
        c.execute("PREPARE p (int, text) AS SELECT $1, $2")
        c.execute("EXECUTE p (1, 'a')")
        say("prepared", c.execute("SELECT name, statement, parameter_types::text, from_sql, generic_plans + custom_plans FROM pg_prepared_statements").fetchall())
        c.execute("DEALLOCATE p")
        say("transaction times", one(c, "SELECT now() = statement_timestamp(), now() = transaction_timestamp()"))
        with c.transaction():
            first = one(c, "SELECT now()")
            time.sleep(0.05)
            say("now() in a block", one(c, "SELECT now()") == first)
        c.execute("BEGIN")
        before = time.time()
        time.sleep(0.6)
        started = one(c, "SELECT extract(epoch FROM now())::float8")[0]
        c.execute("COMMIT")
        # Directly the transaction's time is that of its BEGIN.
        say("now() is BEGIN's", started < before + 0.3)


def extensions():
    with login() as c:
        for name in ("dblink", "pg_trgm", "postgres_fdw", "hstore", "citext", "intarray"):
            with step(f"extension {name}"):
                c.execute(f"CREATE EXTENSION {name}")
        with step("set_limit"):
            c.execute("SELECT set_limit(0.8)")
            say("show_limit", one(c, "SELECT show_limit(), current_setting('pg_trgm.similarity_threshold')"))
        c.execute("SET intervalstyle = 'postgres_verbose'")
        say("hstore", one(c, "SELECT 'a=>1'::hstore -> 'a'"))
        say("interval", one(c, "SELECT (interval '1 day 2 hours')::text"))
        with step("dblink"):
            c.execute("SELECT dblink_connect('named', %s)", (f"dbname={DATABASE} port={PORT} host=127.0.0.1 user=app password=x",))
            for turn in range(3):
                say("dblink row", one(c, "SELECT a FROM dblink('named', 'SELECT 42') AS x (a int)"))
            say("dblinks", one(c, "SELECT dblink_get_connections()"))
            c.execute("SELECT dblink_disconnect('named')")


def blocks():
    with login() as c:
        c.execute("CREATE TABLE parent (id int PRIMARY KEY)")
        c.execute("CREATE TABLE child (p int REFERENCES parent DEFERRABLE INITIALLY IMMEDIATE)")
        c.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        c.execute("SET CONSTRAINTS ALL DEFERRED")
        c.execute("INSERT INTO child VALUES (1)")
        c.execute("INSERT INTO parent VALUES (1)")
        c.execute("COMMIT AND CHAIN")
        say("chained", one(c, "SHOW transaction_isolation"))
        c.execute("ROLLBACK AND CHAIN")
        say("chained again", one(c, "SELECT current_setting('transaction_isolation'), (SELECT count(*) FROM child)"))
        c.execute("COMMIT")
        with step("deferred and broken"):
            c.execute("BEGIN")
            c.execute("SET CONSTRAINTS child_p_fkey DEFERRED")
            c.execute("INSERT INTO child VALUES (2)")
            c.execute("COMMIT")
        say("it is over", c.info.transaction_status.name)
        c.execute("BEGIN; LOCK TABLE parent IN ACCESS EXCLUSIVE MODE")
        with login() as other:
            other.execute("SET lock_timeout = '200ms'")
            with step("locked out"):
                other.execute("SELECT count(*) FROM parent")
        c.execute("END")
        with step("ABORT"):
            c.execute("BEGIN; SAVEPOINT a; SAVEPOINT b; ROLLBACK TO a; SAVEPOINT a; RELEASE a; RELEASE a; ABORT")
        with step("role"):
            c.execute("SET ROLE web_anon")
            say("role is", one(c, "SELECT current_user, session_user"))
            c.execute("CREATE TEMP TABLE of_role (a int)")
        c.execute("RESET ROLE")
        with step("authorization"):
            c.execute("SET SESSION AUTHORIZATION web_anon")
        c.execute("DISCARD ALL")
        with step("role in a block"):
            c.execute("BEGIN; SET LOCAL ROLE web_anon")
            say("role in it", one(c, "SELECT current_user"))
            c.execute("ROLLBACK")
        say("role after it", one(c, "SELECT current_user"))


def databases():
    """A template, a database that is renamed and dropped, and one whose defaults change."""

    def of(name):
        return DSN.replace(f"dbname={DATABASE}", f"dbname={DATABASE}_{name}")

    with login() as c:
        for name in ("other", "used"):
            c.execute(f"CREATE DATABASE {DATABASE}_{name}")
        with login(of("other")) as other:
            other.execute("CREATE TABLE t AS SELECT 1 AS a")
        # Its last session has ended.
        time.sleep(0.2)
        with step("as a template"):
            c.execute(f"CREATE DATABASE {DATABASE}_copy TEMPLATE {DATABASE}_other")
        with login(of("copy")) as copy:
            say("the copy", one(copy, "SELECT a FROM t"))
        with login(of("used")) as used:
            used.execute("SELECT 1")
            with step("dropped while in use"):
                c.execute(f"DROP DATABASE {DATABASE}_used")
        time.sleep(0.2)
        with step("renamed"):
            c.execute(f"ALTER DATABASE {DATABASE}_copy RENAME TO {DATABASE}_moved")
        with step("the old name"):
            login(of("copy"))
        with login(of("moved")) as moved:
            say("the new name", one(moved, "SELECT a FROM t"))
            with step("dropped by force"):
                c.execute(f"DROP DATABASE {DATABASE}_moved WITH (FORCE)")
            with step("whose database is gone"):
                moved.execute("SELECT 1")
        c.execute(f"ALTER DATABASE {DATABASE}_other SET work_mem = '9MB'")
        with login(of("other")) as other:
            say("its setting", one(other, "SHOW work_mem"))
            c.execute(f"ALTER DATABASE {DATABASE}_other SET work_mem = '11MB'")
            time.sleep(1.2)
            say("its setting stays", one(other, "SHOW work_mem"))
            with login(of("other")) as later:
                say("its setting later", one(later, "SHOW work_mem"))
        time.sleep(0.2)
        with step("no more connections"):
            c.execute(f"ALTER DATABASE {DATABASE}_other WITH ALLOW_CONNECTIONS false")
        with step("login there"):
            login(of("other"))
        with step("dropped"):
            c.execute(f"DROP DATABASE {DATABASE}_other")
        with step("login to nothing"):
            login(of("other"))
        with step("login as nobody"):
            psycopg.connect(DSN.replace("user=app", "user=nobody_is_this"))


def programs():
    """The server's programs that copy and follow it."""
    place, binaries = pathlib.Path(os.environ["SCRATCH"]), pathlib.Path(os.environ["POSTGRES_BIN"])

    def run(name, *arguments, seconds=20, user="postgres"):
        command = [binaries / name, "-h", "127.0.0.1", "-p", PORT, "-U", user, *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
            said = [line for line in done.stderr.splitlines() if "checkpoint" not in line]
            return done.returncode, said[:1], done.stdout[:200]
        except subprocess.TimeoutExpired:
            return "no end"

    say("pg_isready", run("pg_isready", "-d", DATABASE)[0])
    say("pg_basebackup", run("pg_basebackup", "-D", str(place / "copy"), "-X", "stream", "-c", "fast", seconds=60)[:2])
    say("pg_verifybackup", subprocess.run([binaries / "pg_verifybackup", place / "copy"], capture_output=True).returncode)
    say("pg_recvlogical", run("pg_recvlogical", "-d", DATABASE, "--slot", f"s_{DATABASE}", "--create-slot", "-P", "test_decoding")[:2])
    with login() as c:
        c.execute("CREATE TABLE followed (a int)")
        c.execute("INSERT INTO followed SELECT generate_series(1, 5)")
    with login(DSN.replace("user=app", "user=postgres")) as c:
        end = one(c, "SELECT pg_current_wal_flush_lsn()")[0]
        changes = c.execute("SELECT data FROM pg_logical_slot_peek_changes(%s, NULL, NULL) WHERE data LIKE 'table%%'", (f"s_{DATABASE}",)).fetchall()
        say("peeked", len(changes))
    followed = run("pg_recvlogical", "-d", DATABASE, "--slot", f"s_{DATABASE}", "--start", "-f", str(place / "changes"), "-E", end, "--no-loop")
    say("pg_recvlogical start", followed[0])
    say("changes", sum(line.startswith("table public.followed") for line in (place / "changes").read_text().splitlines()))
    say("pg_recvlogical drop", run("pg_recvlogical", "-d", DATABASE, "--slot", f"s_{DATABASE}", "--drop-slot")[:2])
    say("createuser", run("createuser", "--no-login", f"role_{DATABASE}"))
    say("dropuser", run("dropuser", f"role_{DATABASE}"))
    say("createdb", run("createdb", f"{DATABASE}_made", user="app"))
    say("dropdb", run("dropdb", f"{DATABASE}_made", user="app"))
    say("pg_amcheck", run("pg_amcheck", "--install-missing", "-d", DATABASE)[:2])
    say("vacuumlo", run("vacuumlo", DATABASE)[:2])
    say("oid2name", run("oid2name", "-d", DATABASE, "-t", "parent", "-q")[0])


for part in (seeds, timeouts, views, extensions, blocks, databases, programs):
    outcome(part.__name__, part)
