"""Uses the console as Python programs do; says "fine" at the end. Arguments: port, user, password."""

import asyncio
import sys
from decimal import Decimal

import asyncpg
import psycopg

port, user, password = int(sys.argv[1]), sys.argv[2], sys.argv[3]
where = {"host": "127.0.0.1", "port": port, "user": user, "password": password}


def with_psycopg(autocommit, binary):
    with psycopg.connect(**where, dbname="pgbouncer", autocommit=autocommit) as connection:
        cursor = connection.cursor(binary=binary)
        for _ in range(8):  # Often enough that the driver prepares it.
            cursor.execute("SHOW POOLS WHERE database = %s AND cl_active >= %s", ("postgres", 1), prepare=None)
            names = [column.name for column in cursor.description]
            row = dict(zip(names, cursor.fetchone()))
            assert row["cl_active"] == 1 and row["pool_mode"] == "transaction", row
        cursor.execute("SHOW STATS WHERE database = 'postgres'")
        row = dict(zip([column.name for column in cursor.description], cursor.fetchone()))
        assert isinstance(row["total_xact_count"], Decimal) and row["total_xact_count"] >= 1, row
        connection.commit()
        try:
            cursor.execute("SHOW NONSENSE")
            raise AssertionError("no error")
        except psycopg.errors.UndefinedObject:
            connection.rollback()
        with connection.pipeline():
            for name in ("VERSION", "LISTS", "DATABASES"):
                connection.execute(f"SHOW {name}")
        assert connection.execute("SELECT 1").fetchone() == (1,)
        cursor.execute("RECONNECT")
        assert cursor.statusmessage == "RECONNECT"


async def with_asyncpg():
    connection = await asyncpg.connect(**where, database="poolhouse")
    rows = await connection.fetch("SHOW POOLS WHERE database = $1", "postgres")
    assert rows[0]["cl_active"] == 1, rows
    rows = await connection.fetch("SHOW STATS WHERE database = 'postgres'")
    assert rows[0]["total_query_count"] >= 1 and isinstance(rows[0]["total_query_count"], Decimal), rows
    async with connection.transaction():
        assert len(await connection.fetch("SHOW LISTS")) == 14
    assert await connection.fetchval("SELECT 1") == 1
    try:
        await connection.fetch("nonsense")
        raise AssertionError("no error")
    except asyncpg.exceptions.PostgresSyntaxError:
        pass
    await connection.close()
    pool = await asyncpg.create_pool(**where, database="pgbouncer", min_size=1, max_size=2)
    async with pool.acquire() as one:
        assert (await one.fetchrow("SHOW STATE WHERE key = 'active'"))["value"] == "yes"
    async with pool.acquire() as again:  # It has been reset.
        assert await again.fetchval("SHOW VERSION")
    await pool.close()


for autocommit in (True, False):
    for binary in (True, False):
        with_psycopg(autocommit, binary)
asyncio.run(with_asyncpg())
print("fine")
