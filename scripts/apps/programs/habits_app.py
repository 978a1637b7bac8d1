"""What tools that cannot be had here send, statement by statement, over connections of their own pools."""

import concurrent.futures
import json
import threading
import time

import psycopg
from psycopg import sql
from psycopg_pool import ConnectionPool
from steps import DSN, outcome, say, step

pool = ConnectionPool(DSN, min_size=4, max_size=8, open=True, timeout=20, kwargs={"autocommit": True})
pool.wait()


def one(connection, statement, *parameters):
    return connection.execute(statement, parameters or None).fetchone()


def postgrest():
    """Each request is one transaction, READ ONLY for GET, with its claims and role local to it."""
    with pool.connection() as c:
        c.execute("CREATE SCHEMA api")
        c.execute("CREATE TABLE api.notes (id serial PRIMARY KEY, owner text, body text)")
        c.execute("ALTER TABLE api.notes ENABLE ROW LEVEL SECURITY")
        c.execute("CREATE POLICY own ON api.notes USING (owner = nullif(current_setting('request.jwt.claims', true), '')::json->>'sub')")
        c.execute("GRANT USAGE ON SCHEMA api TO web_anon")
        c.execute("GRANT SELECT, INSERT, UPDATE ON api.notes TO web_anon")
        c.execute("GRANT USAGE ON SEQUENCE api.notes_id_seq TO web_anon")

    def request(number):
        who = f"user{number % 3}"
        claims = json.dumps({"sub": who, "role": "web_anon"})
        with pool.connection() as c:
            writes = number % 4 == 0
            c.execute(f"BEGIN ISOLATION LEVEL READ COMMITTED {'READ WRITE' if writes else 'READ ONLY'}")
            c.execute(
                "SELECT set_config('search_path', 'api, public', true), set_config('role', 'web_anon', true),"
                " set_config('request.jwt.claims', %s, true), set_config('request.method', %s, true)",
                (claims, "POST" if writes else "GET"),
            )
            if writes:
                c.execute("WITH s AS (INSERT INTO api.notes (owner, body) VALUES (%s, 'x') RETURNING *) SELECT json_agg(s) FROM s", (who,))
            owners = one(c, "SELECT coalesce(json_agg(DISTINCT owner), '[]') FROM notes")[0]
            role = one(c, "SELECT current_user, session_user, current_setting('request.method')")
            c.execute("COMMIT")
            outside = one(c, "SELECT current_user, nullif(current_setting('request.jwt.claims', true), '')")
            return set(owners) <= {who} and role[:2] == ("web_anon", "app") and outside == ("app", None)

    with concurrent.futures.ThreadPoolExecutor(6) as threads:
        say("postgrest requests", sum(threads.map(request, range(80))))
    with pool.connection() as c:
        with step("postgrest write in GET"):
            with c.transaction():
                c.execute("SET TRANSACTION READ ONLY")
                c.execute("SET LOCAL ROLE web_anon")
                c.execute("INSERT INTO api.notes (owner) VALUES ('x')")
        say("postgrest role afterwards", one(c, "SELECT current_user, current_setting('role')"))
        with c.transaction():
            c.execute("SET TRANSACTION READ ONLY")
            c.execute("SET LOCAL statement_timeout = '5s'")
            c.execute("SET LOCAL ROLE web_anon")
            say("supabase", one(c, "SELECT current_setting('statement_timeout'), current_user, count(*) FROM api.notes"))
        with psycopg.connect(DSN) as fresh:
            say("postgrest fresh session", one(fresh, "SELECT current_setting('request.jwt.claims', true), current_user"))
            with step("postgrest setting that is not there"):
                fresh.execute("SHOW request.method")


def hasura():
    """Subscriptions by multiplexed statements; session variables in one JSON parameter."""
    with pool.connection() as c:
        c.execute("CREATE TABLE items (id int PRIMARY KEY, who text)")
        c.execute("INSERT INTO items SELECT n, 'u' || n % 3 FROM generate_series(1, 30) n")
        query = (
            "SELECT _subs.result_id, json_build_object('n', (SELECT count(*) FROM items WHERE who = _subs.vars->>'who'))"
            " FROM UNNEST(%s::uuid[], %s::json[]) AS _subs (result_id, vars) ORDER BY 1"
        )
        ids = [f"00000000-0000-0000-0000-00000000000{n}" for n in range(3)]
        for turn in range(8):
            rows = c.execute(query, (ids, [json.dumps({"who": f"u{n}"}) for n in range(3)])).fetchall()
        say("hasura", [row[1] for row in rows])
        c.execute("SET SESSION \"hasura.user\" = '{\"x-hasura-role\": \"admin\"}'")
        say("hasura session", one(c, "SELECT current_setting('hasura.user')::json->>'x-hasura-role'"))
        c.execute("RESET \"hasura.user\"")


def sequelize():
    """findOrCreate makes a function in pg_temp for each call."""
    with pool.connection() as c:
        c.execute("CREATE TABLE users (id serial PRIMARY KEY, email text UNIQUE)")

    def call(number):
        with pool.connection() as c, c.transaction():
            c.execute(
                "CREATE OR REPLACE FUNCTION pg_temp.testfunc(OUT response users, OUT sequelize_caught_exception text) RETURNS RECORD"
                f" AS $f$ BEGIN INSERT INTO users (email) VALUES ('u{number % 10}') RETURNING * INTO response;"
                " EXCEPTION WHEN unique_violation THEN GET STACKED DIAGNOSTICS sequelize_caught_exception = PG_EXCEPTION_DETAIL;"
                " END $f$ LANGUAGE plpgsql"
            )
            row = one(c, "SELECT (testfunc.response).id IS NOT NULL, testfunc.sequelize_caught_exception FROM pg_temp.testfunc()")
            c.execute("DROP FUNCTION IF EXISTS pg_temp.testfunc()")
            return row[0]

    with concurrent.futures.ThreadPoolExecutor(5) as threads:
        say("findOrCreate", sum(threads.map(call, range(60))))
    with pool.connection() as c:
        say("findOrCreate rows", one(c, "SELECT count(*), count(DISTINCT email) FROM users"))
        with step("findOrCreate function afterwards"):
            c.execute("SELECT pg_temp.testfunc()")


def flyway():
    """A session's lock on one connection, work on another, by several processes at once."""
    with pool.connection() as c:
        c.execute("CREATE TABLE history (rank int PRIMARY KEY, script text)")

    def deploy(_):
        with psycopg.connect(DSN, autocommit=True) as lock, psycopg.connect(DSN, autocommit=True) as work:
            while not one(lock, "SELECT pg_try_advisory_lock(83647)")[0]:
                time.sleep(0.05)
            try:
                done = one(work, "SELECT coalesce(max(rank), 0) FROM history")[0]
                for rank in range(done + 1, 5):
                    with work.transaction():
                        work.execute(f"CREATE TABLE migrated{rank} (a int)")
                        work.execute("INSERT INTO history VALUES (%s, 'V')", (rank,))
            finally:
                one(lock, "SELECT pg_advisory_unlock(83647)")
        return 1

    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        say("flyway deployments", sum(threads.map(deploy, range(3))))
    with pool.connection() as c:
        say("flyway history", one(c, "SELECT count(*), max(rank) FROM history"))
        say("flyway lock", one(c, "SELECT pg_try_advisory_lock(83647), pg_advisory_unlock(83647)"))


def rails():
    """An advisory-locked migration; the schema's version in a table; SET for the session around it."""
    def migrate(_):
        with psycopg.connect(DSN, autocommit=True) as c:
            c.execute("SET client_min_messages TO 'warning'")
            c.execute("SET standard_conforming_strings = on")
            c.execute("SET SESSION timezone TO 'UTC'")
            got = one(c, "SELECT pg_try_advisory_lock(2935512)")[0]
            if got:
                with step("rails migration"):
                    c.execute("CREATE TABLE IF NOT EXISTS schema_migrations (version varchar PRIMARY KEY)")
                    with c.transaction():
                        c.execute("INSERT INTO schema_migrations VALUES ('1')")
                    time.sleep(0.3)
                return got, one(c, "SELECT pg_advisory_unlock(2935512)")[0]
            return got, None

    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        say("rails migrations", sorted(threads.map(migrate, range(3)), key=str))


def queue():
    """Que and GoodJob: locks of the session by job, taken in a recursive statement; LISTEN for new ones."""
    with pool.connection() as c:
        c.execute("CREATE TABLE jobs (id bigserial PRIMARY KEY, done int DEFAULT 0, priority int)")
        c.execute("INSERT INTO jobs (priority) SELECT n % 5 FROM generate_series(1, 60) n")
    worked, lock = [], threading.Lock()

    def worker(_):
        with psycopg.connect(DSN, autocommit=True) as c:
            c.execute("LISTEN que_jobs")
            idle = 0
            while idle < 8:
                row = one(
                    c,
                    "WITH RECURSIVE job AS (SELECT (j).*, pg_try_advisory_lock((j).id) AS locked FROM (SELECT j FROM jobs j WHERE done = 0"
                    " ORDER BY priority, id LIMIT 1) t1 UNION ALL (SELECT (j).*, pg_try_advisory_lock((j).id) FROM (SELECT (SELECT j FROM jobs j"
                    " WHERE done = 0 AND (priority, id) > (job.priority, job.id) ORDER BY priority, id LIMIT 1) AS j FROM job WHERE NOT job.locked"
                    " LIMIT 1) t1)) SELECT id FROM job WHERE locked LIMIT 1",
                )
                if row is None or row[0] is None:
                    heard = list(c.notifies(timeout=0.2, stop_after=1))
                    idle = 0 if heard else idle + 1
                    continue
                if one(c, "SELECT done FROM jobs WHERE id = %s", row[0])[0] == 0:
                    c.execute("UPDATE jobs SET done = done + 1 WHERE id = %s", (row[0],))
                    with lock:
                        worked.append(row[0])
                c.execute("SELECT pg_advisory_unlock(%s)", (row[0],))

    def enqueue():
        for _ in range(20):
            with pool.connection() as c, c.transaction():
                c.execute("INSERT INTO jobs (priority) VALUES (1)")
                c.execute("NOTIFY que_jobs")
            time.sleep(0.02)

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        workers = [threads.submit(worker, n) for n in range(3)]
        threads.submit(enqueue).result()
        [each.result() for each in workers]
    say("queue", (len(worked), len(set(worked))))
    with pool.connection() as c:
        say("queue rows", one(c, "SELECT count(*), sum(done), max(done) FROM jobs"))
        c.execute("CREATE UNLOGGED TABLE hangfire (id int, state text)")
        c.execute("INSERT INTO hangfire SELECT n, 'new' FROM generate_series(1, 20) n")
        with c.transaction():
            taken = c.execute("DELETE FROM hangfire WHERE id = (SELECT id FROM hangfire ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1) RETURNING id").fetchall()
            with pool.connection() as other:
                theirs = other.execute("DELETE FROM hangfire WHERE id = (SELECT id FROM hangfire ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1) RETURNING id").fetchall()
        say("hangfire", (taken, theirs))


def sessions():
    """What PgBouncer's manual says not to do in transaction mode."""
    with pool.connection() as a, pool.connection() as b:
        for name, c in (("a", a), ("b", b)):
            c.execute(f"SET SESSION search_path = 'one_{name}', public")
            c.execute(f"PREPARE own AS SELECT '{name}'::text")
            c.execute(f"CREATE TEMP TABLE own_rows AS SELECT '{name}'::text AS who")
            c.execute("DECLARE held CURSOR WITH HOLD FOR SELECT who, g FROM own_rows, generate_series(1, 5) g")
        for turn in range(5):
            for name, c in (("a", a), ("b", b)):
                rows = (
                    one(c, "SHOW search_path")[0], one(c, "EXECUTE own")[0], one(c, "SELECT who FROM own_rows")[0], one(c, "FETCH held"))
                say(f"session {name}", rows)
        for c in (a, b):
            c.execute("DISCARD ALL")
        with step("session cursor afterwards"):
            a.execute("FETCH held")
        with step("session statement afterwards"):
            b.execute("EXECUTE own")
        with step("session table afterwards"):
            b.execute("SELECT * FROM own_rows")
        say("session path afterwards", one(a, "SHOW search_path"))


def audit():
    """Triggers that read who asks from a setting or from a temporary table."""
    with pool.connection() as c:
        c.execute("CREATE TABLE audited (id int, who text, via text)")
        c.execute(
            "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.who := current_setting('app.who', true);"
            " IF to_regclass('pg_temp.context') IS NOT NULL THEN NEW.via := (SELECT via FROM pg_temp.context); END IF; RETURN NEW; END $$"
        )
        c.execute("CREATE TRIGGER stamp BEFORE INSERT ON audited FOR EACH ROW EXECUTE FUNCTION stamp()")

    def request(number):
        with pool.connection() as c:
            c.execute("SELECT set_config('app.who', %s, false)", (f"u{number}",))
            with c.transaction():
                if number % 2:
                    c.execute("CREATE TEMP TABLE context ON COMMIT DROP AS SELECT %s::text AS via", (f"v{number}",))
                c.execute("INSERT INTO audited (id) VALUES (%s)", (number,))
            c.execute("RESET app.who")

    with concurrent.futures.ThreadPoolExecutor(6) as threads:
        list(threads.map(request, range(60)))
    with pool.connection() as c:
        say("audit", one(c, "SELECT count(*), count(*) FILTER (WHERE who = 'u' || id::text), count(*) FILTER (WHERE via = 'v' || id::text) FROM audited"))


def outbox():
    """An outbox with pg_current_snapshot, a debouncer with pg_sleep, and a leader by an advisory lock."""
    with pool.connection() as c:
        c.execute("CREATE TABLE outbox (id bigserial, tx xid8 DEFAULT pg_current_xact_id(), body text)")
        with c.transaction():
            c.execute("INSERT INTO outbox (body) VALUES ('a'), ('b')")
            say("outbox in it", one(c, "SELECT count(*) FROM outbox WHERE tx < pg_snapshot_xmin(pg_current_snapshot())"))
            c.execute("SAVEPOINT s")
            xid = one(c, "SELECT pg_current_xact_id_if_assigned() IS NOT NULL")
            c.execute("RELEASE s")
        say("outbox xid", xid)
        say("outbox status", one(c, "SELECT DISTINCT pg_xact_status(tx) FROM outbox"))
    with psycopg.connect(DSN, autocommit=True) as leader, psycopg.connect(DSN, autocommit=True) as follower:
        say("leader", (one(leader, "SELECT pg_try_advisory_lock(31, 7)"), one(follower, "SELECT pg_try_advisory_lock(31, 7)")))
        leader.close()
        deadline = time.monotonic() + 5
        got = (False,)
        while not got[0] and time.monotonic() < deadline:
            got = one(follower, "SELECT pg_try_advisory_lock(31, 7)")
        say("follower when the leader has left", got)


def tenants():
    """A schema for each tenant by SET search_path in each request, as django-tenants and Apartment do."""
    with pool.connection() as c:
        for number in range(4):
            c.execute(f"CREATE SCHEMA tenant{number}")
            c.execute(f"CREATE TABLE tenant{number}.people (id serial PRIMARY KEY, name text)")
            c.execute(f"INSERT INTO tenant{number}.people (name) VALUES ('of {number}')")

    def request(number):
        with pool.connection() as c:
            c.execute(sql.SQL("SET search_path = {}, public").format(sql.Identifier(f"tenant{number % 4}")))
            with c.transaction():
                c.execute("INSERT INTO people (name) VALUES (%s)", (f"of {number % 4}",))
            names = {row[0] for row in c.execute("SELECT DISTINCT name FROM people")}
            c.execute("RESET search_path")
            return names == {f"of {number % 4}"}

    with concurrent.futures.ThreadPoolExecutor(6) as threads:
        say("tenants", sum(threads.map(request, range(120))))


def warehouse():
    """Batch work: a temporary table that is filled by COPY and merged, with session settings; a long report on the side."""
    with pool.connection() as c:
        c.execute("CREATE TABLE facts (id int PRIMARY KEY, n int)")
        c.execute("SET work_mem = '32MB'")
        c.execute("SET SESSION synchronous_commit = off")
        c.execute("CREATE TEMP TABLE staging (LIKE facts) ON COMMIT PRESERVE ROWS")
        for turn in range(3):
            with c.cursor().copy("COPY staging FROM STDIN") as copy:
                for number in range(1000):
                    copy.write_row((number + turn * 500, turn))
            c.execute("INSERT INTO facts SELECT * FROM staging ON CONFLICT (id) DO UPDATE SET n = excluded.n")
            c.execute("TRUNCATE staging")
        say("merged", one(c, "SELECT count(*), sum(n), current_setting('work_mem'), current_setting('synchronous_commit') FROM facts"))
        c.execute("MERGE INTO facts USING (VALUES (1, 9), (9999, 9)) AS s (id, n) ON facts.id = s.id WHEN MATCHED THEN UPDATE SET n = s.n WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.n)")
        say("MERGE", c.execute("SELECT n FROM facts WHERE id IN (1, 9999)").fetchall())
        c.execute("DROP TABLE staging")
        c.execute("RESET ALL")
        c.execute("CREATE MATERIALIZED VIEW report AS SELECT n, count(*) FROM facts GROUP BY n")
        c.execute("CREATE UNIQUE INDEX ON report (n)")
        c.execute("DELETE FROM facts WHERE n = 9")
        c.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY report")
        say("report", c.execute("SELECT * FROM report ORDER BY n").fetchall())
        c.execute("CREATE PROCEDURE purge() LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1..5 LOOP DELETE FROM facts WHERE id = i; COMMIT; END LOOP; END $$")
        c.execute("CALL purge()")
        say("procedure that commits", one(c, "SELECT count(*) FROM facts WHERE id BETWEEN 1 AND 5"))
        c.execute("VACUUM (ANALYZE) facts")
        say("explained", one(c, "EXPLAIN (COSTS off) SELECT * FROM facts WHERE id = 7"))
        with c.transaction():
            snapshot = one(c, "SELECT pg_export_snapshot()")[0]
            with psycopg.connect(DSN) as other:
                other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                other.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(snapshot))
                say("snapshot", one(other, "SELECT count(*) > 0 FROM facts"))


for part in (postgrest, hasura, sequelize, flyway, rails, queue, sessions, audit, outbox, tenants, warehouse):
    outcome(part.__name__, part)
pool.close()
