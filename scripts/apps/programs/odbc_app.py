"""psqlODBC by pyodbc, with each of its ways to handle errors and to fetch."""

import pyodbc
from steps import DATABASE, PORT, USER, outcome, say, step


def odbc(more, name):
    text = f"Driver={{PostgreSQL Unicode}};Server=127.0.0.1;Port={PORT};Database={DATABASE};UID={USER};PWD=x;{more}"
    c = pyodbc.connect(text)
    cursor = c.cursor()
    cursor.execute(f"CREATE TABLE odbc_{name} (id serial PRIMARY KEY, name varchar(50) UNIQUE, n numeric(10,2), at timestamp)")
    cursor.execute(f"INSERT INTO odbc_{name} (name, n) VALUES (?, ?)", "ada", 12)
    with step(f"ODBC {name} unique"):
        cursor.execute(f"INSERT INTO odbc_{name} (name, n) VALUES (?, ?)", "ada", 12)
    with step(f"ODBC {name} after it"):
        say(f"ODBC {name} rows", cursor.execute(f"SELECT name, n FROM odbc_{name}").fetchall())
    c.rollback() if "1" in more else c.commit()
    c.autocommit = True
    with step(f"ODBC {name} many"):
        cursor.execute(f"CREATE TABLE many_{name} (a int)")
        cursor.executemany(f"INSERT INTO many_{name} VALUES (?)", [(n,) for n in range(200)])
    say(f"ODBC {name} sum", cursor.execute(f"SELECT sum(a) FROM many_{name} WHERE a > ?", 10).fetchone())
    for _ in range(5):
        cursor.execute(f"SELECT a FROM many_{name} WHERE a = ?", 7).fetchall()
    say(f"ODBC {name} columns", [row.column_name for row in cursor.columns(table=f"odbc_{name}")])
    say(f"ODBC {name} keys", [row.column_name for row in cursor.primaryKeys(table=f"odbc_{name}")])
    say(f"ODBC {name} fetched", sum(row[0] for row in cursor.execute(f"SELECT a FROM many_{name} ORDER BY a")))
    cursor.execute(f"DROP TABLE many_{name}")
    c.close()


for more, name in (("Protocol=7.4-1", "transaction"), ("Protocol=7.4-2", "statement"), ("UseDeclareFetch=1;Fetch=50", "cursor"), ("UseServerSidePrepare=0", "simple")):
    outcome(f"ODBC {name} ran", odbc, more, name)
