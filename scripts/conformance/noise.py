"""The neighbours in the pool: until they are ended, they change settings, prepare, lock and create temporary tables.

usage: noise.py HOST PORT DATABASE USER CLIENTS. What they do is done in short transactions, so that two of them need no
more than two server connections at any moment. A neighbour whose connection is lost comes back: a suite may end the
sessions of others.
"""

import itertools
import sys
import threading
import time

import psycopg2

# Settings that change what others would read, if they leaked.
SETTINGS = [
    ("search_path", "pg_catalog, noise"),
    ("datestyle", "'German'"),
    ("timezone", "'Asia/Kathmandu'"),
    ("application_name", "'noise'"),
    ("client_min_messages", "'error'"),
    ("extra_float_digits", "-3"),
    ("bytea_output", "'escape'"),
    ("intervalstyle", "'iso_8601'"),
    ("statement_timeout", "'19s'"),
    ("default_transaction_isolation", "'serializable'"),
    ("default_transaction_read_only", "on"),
    ("standard_conforming_strings", "on"),
    ("lc_monetary", "'C'"),
    ("work_mem", "'1MB'"),
]
PAUSE_SECONDS = 0.002


def change_settings(cursor, turn):
    name, value = SETTINGS[turn % len(SETTINGS)]
    cursor.execute(f"SET {name} TO {value}")
    cursor.execute(f"SHOW {name}")
    if turn % 3 == 0:
        cursor.execute("RESET ALL")


def prepare(cursor, turn):
    # The first name is asyncpg's own.
    name = f"__asyncpg_stmt_{turn % 9:x}__"
    cursor.execute(f"PREPARE {name} AS SELECT {turn}")
    cursor.execute(f"EXECUTE {name}")
    cursor.execute(f"DEALLOCATE {name}")


def lock(cursor, turn):
    cursor.execute("BEGIN")
    cursor.execute(f"SELECT pg_advisory_xact_lock({1_000_000 + turn % 7})")
    cursor.execute("COMMIT" if turn % 2 else "ROLLBACK")


def create_temporary_table(cursor, turn):
    cursor.execute("BEGIN")
    cursor.execute("SET LOCAL default_transaction_read_only TO off")
    cursor.execute("SET TRANSACTION READ WRITE")
    cursor.execute(f"CREATE TEMPORARY TABLE noise_{turn % 5} (a int)")
    cursor.execute(f"DROP TABLE pg_temp.noise_{turn % 5}")
    cursor.execute("COMMIT")


ACTIONS = [change_settings, prepare, lock, create_temporary_table]


def be_a_neighbour(dsn, first_turn):
    for turn in itertools.count(first_turn):
        if turn == first_turn or connection.closed:
            connection = psycopg2.connect(dsn)
            connection.autocommit = True
        try:
            ACTIONS[turn % len(ACTIONS)](connection.cursor(), turn // len(ACTIONS))
        except psycopg2.Error as error:
            print(type(error).__name__, error, flush=True)
            connection.close()
        time.sleep(PAUSE_SECONDS)


def keep_a_neighbour(dsn, first_turn):
    while True:
        try:
            be_a_neighbour(dsn, first_turn)
        except psycopg2.OperationalError as error:
            print("login:", error, flush=True)
            time.sleep(0.1)


def main():
    host, port, database, user, clients = sys.argv[1:]
    dsn = f"host={host} port={port} dbname={database} user={user}"
    threads = [threading.Thread(target=keep_a_neighbour, args=(dsn, number * 2)) for number in range(int(clients))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
