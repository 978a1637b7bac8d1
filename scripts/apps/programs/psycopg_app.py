"""psycopg 3 with its pool: the driver's own features, and habits of programs that send the same statements."""

import concurrent.futures
import datetime
import decimal
import threading
import time
import uuid

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool
from steps import DATABASE, DSN, outcome, say, step

def tidy(connection):
    """What a failed step has left is not for the next one."""
    connection.rollback()
    connection.autocommit = False


pool = ConnectionPool(DSN, min_size=5, max_size=8, open=True, timeout=20, reset=tidy)
pool.wait()


def one(connection, statement, *parameters):
    return connection.execute(statement, parameters or None).fetchone()


def migrate():
    with pool.connection() as c:
        c.execute("SELECT pg_advisory_xact_lock(4711)")
        c.execute("CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')")
        c.execute(
            "CREATE TABLE people (id bigserial PRIMARY KEY, name text UNIQUE, mood mood, tags text[], data jsonb,"
            " seen timestamptz, paid numeric(10,2), token uuid, raw bytea, span int4range)"
        )
        c.execute("CREATE INDEX ON people (mood)")
    with pool.connection() as c:
        c.autocommit = True
        c.execute("CREATE INDEX CONCURRENTLY people_seen ON people (seen)")
        say("index", one(c, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'people_seen'::regclass"))
        c.autocommit = False


def values():
    now = datetime.datetime(2026, 3, 29, 1, 30, tzinfo=datetime.timezone.utc)
    with pool.connection() as c:
        row = one(
            c,
            "INSERT INTO people (name, mood, tags, data, seen, paid, token, raw, span)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, int4range(1, 5)) RETURNING *",
            "ada", "happy", ["a", "b,c", None], Jsonb({"k": [1, None]}), now, decimal.Decimal("12.50"), uuid.UUID(int=7), b"\0\xff",
        )
        say("values", row)
    with pool.connection() as c:
        say("read on another connection", one(c, "SELECT count(*) FROM people"))
    for zone in ("Europe/Berlin", "America/New_York"):
        with pool.connection() as c:
            c.execute(sql.SQL("SET TIME ZONE {}").format(zone))
            say(f"zone {zone}", one(c, "SELECT seen::text, now() AT TIME ZONE 'UTC' IS NOT NULL FROM people"))
            say(f"zone {zone} as the driver knows it", c.info.timezone)
    with pool.connection() as c:
        c.execute("RESET TIME ZONE")
        say("zone afterwards", c.info.timezone)


def transactions():
    with pool.connection() as c:
        with step("unique violation in a block"):
            c.execute("INSERT INTO people (name) VALUES ('ada')")
        with step("statement in a failed block"):
            c.execute("SELECT 1")
        c.rollback()
        with c.transaction():
            c.execute("INSERT INTO people (name) VALUES ('bob')")
            with step("savepoint"):
                with c.transaction():
                    c.execute("INSERT INTO people (name) VALUES ('eve')")
                    c.execute("INSERT INTO people (name) VALUES ('bob')")
            say("after the savepoint", c.execute("SELECT name FROM people ORDER BY id").fetchall())
        c.execute("INSERT INTO people (name) VALUES ('gone')")
        c.rollback()
        say("lastval", one(c, "SELECT lastval() > 0, currval('people_id_seq') > 0"))
    with pool.connection() as c:
        c.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        c.read_only, c.deferrable = True, True
        say("isolation", one(c, "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only'),"
                                " current_setting('transaction_deferrable')"))
        with step("write in a read-only block"):
            c.execute("INSERT INTO people (name) VALUES ('no')")
        c.rollback()
        c.isolation_level = c.read_only = c.deferrable = None


def serialization():
    with pool.connection() as c:
        c.execute("CREATE TABLE doctors (name text, on_call bool)")
        c.execute("INSERT INTO doctors VALUES ('a', true), ('b', true)")
    with pool.connection() as a, pool.connection() as b:
        for c in (a, b):
            c.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
            say("on call", one(c, "SELECT count(*) FROM doctors WHERE on_call"))
        a.execute("UPDATE doctors SET on_call = false WHERE name = 'a'")
        with step("write skew"):
            b.execute("UPDATE doctors SET on_call = false WHERE name = 'b'")
            a.commit()
            b.commit()
        a.rollback(), b.rollback()
        for c in (a, b):
            c.isolation_level = None


def deadlock():
    with pool.connection() as c:
        c.execute("CREATE TABLE accounts (id int PRIMARY KEY, balance int)")
        c.execute("INSERT INTO accounts SELECT n, 100 FROM generate_series(1, 10) n")
    barrier, states = threading.Barrier(2), []

    def transfer(first, second):
        with pool.connection() as c:
            try:
                c.execute("UPDATE accounts SET balance = balance + 1 WHERE id = %s", (first,))
                barrier.wait()
                c.execute("UPDATE accounts SET balance = balance - 1 WHERE id = %s", (second,))
                c.commit()
                states.append("committed")
            except psycopg.Error as error:
                states.append(error.sqlstate)
                c.rollback()

    threads = [threading.Thread(target=transfer, args=pair) for pair in [(1, 2), (2, 1)]]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    say("deadlock", sorted(states))


def prepared():
    with pool.connection() as c:
        c.prepare_threshold = 0
        for turn in range(3):
            say("prepared", c.execute("SELECT id, name FROM people WHERE name = %s", ("ada",)).fetchone())
        say("prepared statements", c.execute("SELECT name, statement, from_sql FROM pg_prepared_statements ORDER BY name").fetchall())
        c.commit()
        c.execute("SELECT * FROM doctors ORDER BY name").fetchall()
        c.commit()
        with pool.connection() as other:
            other.execute("ALTER TABLE doctors ADD COLUMN age int")
        with step("stale plan"):
            say("stale plan rows", c.execute("SELECT * FROM doctors ORDER BY name").fetchall())
        c.rollback()
        c.execute("DEALLOCATE ALL")
        c.commit()
        say("after DEALLOCATE ALL", c.execute("SELECT id, name FROM people WHERE name = %s", ("ada",)).fetchone())
        c.prepare_threshold = 5
        c.execute("PREPARE mine (int) AS SELECT $1 + 1")
        c.rollback()
        with step("PREPARE after its rollback"):
            say("PREPARE outlives its rollback", one(c, "EXECUTE mine (41)"))
        c.rollback()


def locks():
    with pool.connection() as a, pool.connection() as b:
        say("lock a", one(a, "SELECT pg_try_advisory_lock(11)"))
        a.commit()
        say("lock b", one(b, "SELECT pg_try_advisory_lock(11)"))
        b.commit()
        say("lock a again", one(a, "SELECT pg_try_advisory_lock(11)"))
        say("unlock", one(a, "SELECT pg_advisory_unlock(11), pg_advisory_unlock(11), pg_advisory_unlock(11)"))
        a.commit()
        say("lock b then", one(b, "SELECT pg_try_advisory_lock(11), pg_advisory_unlock(11)"))
        b.commit()
        b.execute("SET lock_timeout = '200ms'")
        b.commit()
        a.execute("SELECT * FROM people WHERE name = 'ada' FOR UPDATE")
        with step("lock timeout"):
            b.execute("SELECT * FROM people WHERE name = 'ada' FOR UPDATE")
        b.rollback()
        with step("nowait"):
            b.execute("SELECT * FROM people WHERE name = 'ada' FOR UPDATE NOWAIT")
        b.rollback()
        say("skip locked", b.execute("SELECT name FROM people ORDER BY id FOR UPDATE SKIP LOCKED").fetchall())
        b.execute("RESET lock_timeout")
        b.commit()


def notifications():
    with psycopg.connect(DSN, autocommit=True) as listener, pool.connection() as c:
        listener.execute("LISTEN jobs")
        say("channels", listener.execute("SELECT pg_listening_channels()").fetchall())
        for number in range(3):
            c.execute("SELECT pg_notify('jobs', %s)", (str(number),))
        c.execute("NOTIFY other")
        c.rollback()
        c.execute("NOTIFY jobs, 'x'")
        c.execute("NOTIFY jobs, 'x'")
        c.execute("NOTIFY jobs, 'y'")
        c.commit()
        got = [(n.channel, n.payload, n.pid == c.info.backend_pid) for n in listener.notifies(timeout=5, stop_after=2)]
        say("notified", got)
        own = [(n.channel, n.payload) for n in listener.notifies(timeout=0.1)]
        say("nothing more", own)
        listener.execute("NOTIFY jobs, 'self'")
        say("own", [(n.channel, n.payload, n.pid == listener.info.backend_pid) for n in listener.notifies(timeout=5, stop_after=1)])
        listener.execute("UNLISTEN *")
        c.execute("NOTIFY jobs, 'late'")
        c.commit()
        say("not any more", [n.payload for n in listener.notifies(timeout=0.2)])


def copies():
    with pool.connection() as c:
        c.execute("CREATE TABLE points (id int, what text)")
        with c.cursor().copy("COPY points FROM STDIN") as copy:
            for number in range(5000):
                copy.write_row((number, f"tab\t{number}"))
        say("copied in", one(c, "SELECT count(*), sum(id), max(what) FROM points"))
        with c.cursor().copy("COPY (SELECT * FROM points WHERE id < 3 ORDER BY id) TO STDOUT WITH (FORMAT csv, HEADER)") as copy:
            say("copied out", [bytes(block) for block in copy])
        with c.cursor().copy("COPY (SELECT id FROM points WHERE id < 3 ORDER BY id) TO STDOUT (FORMAT binary)") as copy:
            copy.set_types(["int4"])
            say("copied out binary", list(copy.rows()))
        c.commit()
        with step("bad line"):
            with c.cursor().copy("COPY points FROM STDIN") as copy:
                copy.write("1\tone\nnot a number\ttwo\n")
        c.rollback()
        with step("given up"):
            with c.cursor().copy("COPY points FROM STDIN") as copy:
                copy.write("1\tone\n")
                raise ValueError("given up")
        c.rollback()
        with step("COPY left half read"):
            with c.cursor().copy("COPY points TO STDOUT") as copy:
                copy.read()
                raise ValueError("enough")
        c.rollback()
        say("still there", one(c, "SELECT count(*) FROM points"))


def cursors():
    with pool.connection() as c:
        with c.cursor("named", scrollable=True) as cursor:
            cursor.execute("SELECT id FROM points ORDER BY id")
            say("first", cursor.fetchmany(3))
            cursor.scroll(100)
            say("after a scroll", cursor.fetchone())
            cursor.scroll(0, "absolute")
            say("back", cursor.fetchone())
            cursor.itersize = 500
            say("all", sum(row[0] for row in cursor))
        c.commit()
        with c.cursor("held", withhold=True) as cursor:
            cursor.execute("SELECT id FROM points ORDER BY id DESC")
            say("held", cursor.fetchone())
            c.commit()
            say("held after the commit", cursor.fetchmany(2))
            say("pg_cursors", c.execute("SELECT name, is_holdable FROM pg_cursors").fetchall())
        c.commit()
        with step("closed"):
            c.execute("FETCH held")
        c.rollback()
    with pool.connection() as c:
        say("stream", sum(row[0] for row in c.cursor().stream("SELECT id FROM points WHERE id < %s", (100,), size=7)))


def temporary():
    with pool.connection() as a, pool.connection() as b:
        for name, c in (("a", a), ("b", b)):
            c.execute("CREATE TEMP TABLE cart (id serial, what text)")
            c.execute("INSERT INTO cart (what) VALUES (%s)", (name,))
            c.commit()
        for name, c in (("a", a), ("b", b)):
            say(f"temporary {name}", c.execute("SELECT id, what FROM cart").fetchall())
            c.commit()
            c.execute("DISCARD TEMP")
            c.commit()
        with step("temporary is gone"):
            a.execute("SELECT * FROM cart")
        a.rollback()
        with a.transaction():
            a.execute("CREATE TEMP TABLE brief (id int) ON COMMIT DROP")
            a.execute("INSERT INTO brief VALUES (1)")
        say("ON COMMIT DROP", one(a, "SELECT to_regclass('pg_temp.brief') IS NULL"))


def settings():
    with pool.connection() as c:
        say("default", one(c, "SELECT current_setting('app.tenant', true)"))
        with c.transaction():
            c.execute("SELECT set_config('app.tenant', '7', true)")
            c.execute("SET LOCAL search_path = pg_catalog")
            say("local", one(c, "SELECT current_setting('app.tenant'), current_setting('search_path')"))
        say("after the block", one(c, "SELECT current_setting('app.tenant', true), current_setting('search_path')"))
        c.execute("SET SESSION statement_timeout = '100ms'")
        c.commit()
        with step("statement timeout"):
            c.execute("SELECT pg_sleep(5)")
        c.rollback()
        c.execute("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        c.commit()
        say("characteristics", one(c, "SHOW transaction_isolation"))
        c.execute("RESET ALL")
        c.commit()
        say("reset", one(c, "SELECT current_setting('statement_timeout'), current_setting('transaction_isolation')"))
        c.execute("SET statement_timeout = '33s'")
        c.rollback()
        say("SET that was rolled back", one(c, "SHOW statement_timeout"))
        c.commit()
        c.autocommit = True
        c.execute("SET client_encoding = 'LATIN1'")
        say("encoding", (c.info.encoding, one(c, "SELECT 'é', octet_length('é')")))
        c.execute("RESET client_encoding")
        c.autocommit = False
    with psycopg.connect(DSN, application_name="reports", options="-c work_mem=7MB -c app.who=me") as c:
        say("at login", one(c, "SELECT current_setting('application_name'), current_setting('work_mem'), current_setting('app.who')"))
        say("in pg_stat_activity", one(c, "SELECT application_name, state FROM pg_stat_activity WHERE pid = pg_backend_pid()"))
        say("one process id", one(c, "SELECT pg_backend_pid()")[0] == c.info.backend_pid)


def notices():
    with pool.connection() as c:
        heard = []
        c.add_notice_handler(lambda notice: heard.append((notice.severity, notice.sqlstate, notice.message_primary)))
        c.execute("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two' USING ERRCODE = '01999'; END $$")
        c.execute("DROP TABLE IF EXISTS nothing")
        c.commit()
        c.execute("SET client_min_messages = error")
        c.execute("DROP TABLE IF EXISTS nothing")
        c.execute("RESET client_min_messages")
        c.commit()
        c.execute("ROLLBACK")
        say("notices", heard)
        try:
            c.execute("SELECT * FROM people WHERE nme = 1")
        except psycopg.Error as error:
            d = error.diag
            say("diagnosis", (d.severity, d.sqlstate, d.message_primary, d.message_hint, d.statement_position))
        c.rollback()


def pipelines():
    with pool.connection() as c:
        with c.pipeline() as pipeline:
            cursors = [c.execute("INSERT INTO accounts VALUES (%s, 0) RETURNING id", (100 + n,)) for n in range(20)]
            pipeline.sync()
            say("pipeline", [cursor.fetchone()[0] for cursor in cursors])
        c.commit()
        with step("error in a pipeline"):
            with c.pipeline():
                c.execute("INSERT INTO accounts VALUES (200, 0)")
                c.execute("INSERT INTO accounts VALUES (100, 0)")
                c.execute("INSERT INTO accounts VALUES (201, 0)")
        c.rollback()
        say("nothing of it", one(c, "SELECT count(*) FROM accounts WHERE id >= 200"))
        c.commit()
        c.autocommit = True
        with c.pipeline() as p:
            c.execute("SET app.step = 'one'")
            a = c.execute("SELECT current_setting('app.step')")
            c.execute("CREATE TEMP TABLE pipe (a int)")
            b = c.execute("INSERT INTO pipe VALUES (1), (2) RETURNING a")
            p.sync()
            say("session state in a pipeline", (a.fetchall(), b.fetchall()))
        c.execute("DROP TABLE pipe")
        c.execute("RESET app.step")
        with c.pipeline():
            with c.transaction():
                c.execute("INSERT INTO accounts VALUES (300, 1)")
            with step("block in a pipeline"):
                with c.transaction():
                    c.execute("INSERT INTO accounts VALUES (301, 1)")
                    c.execute("INSERT INTO accounts VALUES (300, 1)").fetchone()
        say("blocks in a pipeline", c.execute("SELECT id FROM accounts WHERE id >= 300").fetchall())
        c.cursor().executemany("INSERT INTO accounts VALUES (%s, %s)", [(400 + n, n) for n in range(1000)])
        say("many", one(c, "SELECT count(*), sum(balance) FROM accounts WHERE id >= 400"))
        c.autocommit = False


def cancelling():
    with pool.connection() as c:
        timer = threading.Timer(0.3, c.cancel_safe)
        timer.start()
        with step("cancelled"):
            c.execute("SELECT pg_sleep(20)")
        timer.join()
        c.rollback()
        say("after the cancel", one(c, "SELECT 1"))
        c.commit()
    with psycopg.connect(DSN) as victim, pool.connection() as c:
        say("ended", one(c, "SELECT pg_terminate_backend(%s)", victim.info.backend_pid))
        c.commit()
        time.sleep(0.3)
        with step("ended session"):
            victim.execute("SELECT 1")
        say("is closed", (victim.closed, victim.broken))
        victim.close()


def load():
    with pool.connection() as c:
        c.execute("CREATE TABLE counter (n int)")
        c.execute("INSERT INTO counter VALUES (0)")

    def work(number):
        with pool.connection() as c:
            c.execute("UPDATE counter SET n = n + 1")
            c.execute("INSERT INTO points VALUES (%s, 'load')", (100000 + number,))
        with pool.connection() as c:
            return one(c, "SELECT count(*) FROM points WHERE id = %s", 100000 + number)[0]

    with concurrent.futures.ThreadPoolExecutor(10) as threads:
        say("read after write", sum(threads.map(work, range(300))))
    with pool.connection() as c:
        say("counted", one(c, "SELECT n FROM counter"))
        c.execute("TRUNCATE counter")
        say("truncated", one(c, "SELECT count(*) FROM counter"))


def two_phases():
    """As it is delivered, PostgreSQL has no room for prepared transactions; the servers here have."""
    with pool.connection() as c:
        with step("two-phase rollback"):
            c.tpc_begin(c.xid(1, "gtrid", DATABASE))
            c.execute("INSERT INTO accounts VALUES (900, 1)")
            c.tpc_prepare()
            c.tpc_rollback()
        say("rolled back", one(c, "SELECT count(*) FROM accounts WHERE id = 900"))
        c.rollback()
        with step("two-phase commit"):
            c.tpc_begin(c.xid(2, "gtrid", DATABASE))
            c.execute("INSERT INTO accounts VALUES (901, 1)")
            c.tpc_prepare()
    with pool.connection() as c:
        say("in doubt", [x.gtrid for x in c.tpc_recover() if x.database == DATABASE])
        c.rollback()
        with step("committed by another session"):
            for x in c.tpc_recover():
                if x.database == DATABASE:
                    c.rollback()
                    c.tpc_commit(x)
        say("committed", one(c, "SELECT count(*) FROM accounts WHERE id = 901"))


def large():
    with pool.connection() as c:
        c.execute("CREATE TABLE files (id int, body bytea)")
        c.execute("INSERT INTO files VALUES (1, %s)", (b"\1" * 5_000_000,))
        say("five megabytes", one(c, "SELECT length(body), md5(body) FROM files"))
        oid = one(c, "SELECT lo_create(0)")[0]
        handle = one(c, "SELECT lo_open(%s, 131072 | 262144)", oid)[0]
        say("large object", one(c, "SELECT lowrite(%s, 'hello')", handle))
        c.execute("SELECT lo_close(%s)", (handle,))
        say("large object's bytes", one(c, "SELECT lo_get(%s)", oid))
        say("unlinked", one(c, "SELECT lo_unlink(%s)", oid))


for part in (migrate, values, transactions, serialization, deadlock, prepared, locks, notifications, copies, cursors, temporary,
             settings, notices, pipelines, cancelling, load, large, two_phases):
    outcome(part.__name__, part)
pool.close()
