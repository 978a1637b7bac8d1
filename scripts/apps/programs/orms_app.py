"""Peewee, Tortoise, yoyo's migrations, aiopg, psqlpy and ADBC: each for what it does its own way."""

import asyncio
import concurrent.futures
import os
import pathlib
import sys
import types

import adbc_driver_postgresql.dbapi
import aiopg
import peewee
import playhouse.pool
import psqlpy
import tortoise
import tortoise.transactions
import yoyo
from playhouse.postgres_ext import ArrayField, BinaryJSONField
from steps import DATABASE, DSN, PORT, USER, outcome, say, step

URL = f"{USER}@127.0.0.1:{PORT}/{DATABASE}"


def peewees():
    db = playhouse.pool.PooledPostgresqlDatabase(DATABASE, user=USER, host="127.0.0.1", port=int(PORT), max_connections=6, stale_timeout=60, timeout=20)

    class Person(peewee.Model):
        name = peewee.CharField(unique=True)
        tags = ArrayField(peewee.CharField, null=True)
        data = BinaryJSONField(null=True)

        class Meta:
            database = db

    with db:
        db.create_tables([Person])
        say("peewee create", Person.create(name="ada", tags=["a"], data={"k": 1}).id)
        with step("peewee unique"):
            with db.atomic():
                Person.create(name="ada")
        with db.atomic():
            Person.create(name="bob")
            with step("peewee savepoint"):
                with db.atomic():
                    Person.create(name="bob")
        say("peewee upsert", Person.insert(name="ada").on_conflict(conflict_target=[Person.name], preserve=[Person.name]).execute())
        say("peewee bulk", Person.insert_many([{"name": f"m{n}"} for n in range(500)]).execute() is not None)
        say("peewee server side", sum(1 for _ in peewee_iterator(db, Person)))
        say("peewee JSON", Person.select().where(Person.data["k"] == 1).count())
        say("peewee lock", Person.select().where(Person.name == "ada").for_update("FOR UPDATE NOWAIT").get().name)

    def work(n):
        with db:
            made = Person.create(name=f"load{n}")
        with db:
            return Person.select().where(Person.id == made.id).count()

    with concurrent.futures.ThreadPoolExecutor(5) as threads:
        say("peewee read after write", sum(threads.map(work, range(60))))


def peewee_iterator(db, model):
    with db.atomic():
        db.execute_sql("DECLARE named CURSOR FOR SELECT name FROM person")
        while rows := db.execute_sql("FETCH 50 FROM named").fetchall():
            yield from rows


async def tortoises():
    module = types.ModuleType("shop")

    class Thing(tortoise.models.Model):
        id = tortoise.fields.IntField(primary_key=True)
        name = tortoise.fields.CharField(max_length=50, unique=True)
        data = tortoise.fields.JSONField(null=True)

    Thing.__module__ = "shop"
    module.Thing = Thing
    sys.modules["shop"] = module
    await tortoise.Tortoise.init(db_url=f"asyncpg://{URL}?minsize=2&maxsize=6", modules={"models": ["shop"]})
    await tortoise.Tortoise.generate_schemas()
    say("tortoise create", (await Thing.create(name="a", data={"k": 1})).id)
    say("tortoise get_or_create", (await Thing.get_or_create(name="a"))[1])
    with step("tortoise unique"):
        await Thing.create(name="a")
    with step("tortoise block"):
        async with tortoise.transactions.in_transaction():
            await Thing.create(name="b")
            async with tortoise.transactions.in_transaction():
                await Thing.create(name="a")
    say("tortoise nothing of it", await Thing.filter(name="b").count())

    async def load(n):
        await Thing.create(name=f"load{n}")
        return await Thing.filter(name=f"load{n}").count()

    say("tortoise read after write", sum(await asyncio.gather(*[load(n) for n in range(60)])))
    say("tortoise lock", [t.name for t in await locked(Thing)])
    await tortoise.Tortoise.close_connections()


async def locked(model):
    async with tortoise.transactions.in_transaction():
        return await model.filter(name="a").select_for_update(skip_locked=True)


def yoyos():
    place = pathlib.Path(os.environ["SCRATCH"]) / "yoyo"
    place.mkdir()
    (place / "1.py").write_text("from yoyo import step\nsteps = [step('CREATE TABLE y (a int)', 'DROP TABLE y'), step('INSERT INTO y VALUES (1)')]\n")
    (place / "2.py").write_text("from yoyo import step\n__depends__ = {'1'}\n__transactional__ = False\nsteps = [step('CREATE INDEX CONCURRENTLY y_a ON y (a)', 'DROP INDEX y_a')]\n")
    backend = yoyo.get_backend(f"postgresql+psycopg://{URL}")
    migrations = yoyo.read_migrations(str(place))
    with backend.lock():
        backend.apply_migrations(backend.to_apply(migrations))
    say("yoyo applied", [m.id for m in backend.to_apply(migrations)])
    with backend.lock():
        backend.rollback_migrations(backend.to_rollback(migrations))
    say("yoyo rolled back", [m.id for m in backend.to_apply(migrations)])


async def aiopgs():
    async with aiopg.create_pool(DSN, minsize=2, maxsize=5) as pool:
        async with pool.acquire() as c, c.cursor() as cursor:
            await cursor.execute("SELECT %s::int + 1", (41,))
            say("aiopg", await cursor.fetchone())
            await cursor.execute("LISTEN a")
            async with pool.acquire() as other, other.cursor() as theirs:
                await theirs.execute("NOTIFY a, 'hello'")
            say("aiopg notified", (await asyncio.wait_for(c.notifies.get(), 5)).payload)
            await cursor.execute("UNLISTEN a")
            with step("aiopg cancelled"):
                await asyncio.wait_for(cursor.execute("SELECT pg_sleep(5)"), 0.4)


async def psqlpys():
    pool = psqlpy.ConnectionPool(dsn=f"postgresql://{URL}", max_db_pool_size=5)
    c = await pool.connection()
    await c.execute("CREATE TABLE rust (id serial, name text, tags text[])")
    say("psqlpy", (await c.execute("INSERT INTO rust (name, tags) VALUES ($1, $2) RETURNING *", ["a", ["x"]])).result())
    async with c.transaction() as block:
        await block.execute("INSERT INTO rust (name) VALUES ('in')")
        async with block.cursor("SELECT g FROM generate_series(1, 20) g") as cursor:
            say("psqlpy cursor", (await cursor.fetchmany(3)).result())
    with step("psqlpy error"):
        await c.execute("SELECT 1/0")

    async def load(n):
        one = await pool.connection()
        await one.execute("INSERT INTO rust (name) VALUES ($1)", [f"load{n}"])
        found = (await one.execute("SELECT count(*) FROM rust WHERE name = $1", [f"load{n}"])).result()[0]["count"]
        one.close()
        return found

    say("psqlpy read after write", sum(await asyncio.gather(*[load(n) for n in range(60)])))
    pool.close()


def adbcs():
    with adbc_driver_postgresql.dbapi.connect(f"postgresql://{URL}") as c, c.cursor() as cursor:
        cursor.execute("CREATE TABLE arrows (a bigint, b text)")
        cursor.executemany("INSERT INTO arrows VALUES ($1, $2)", [(n, str(n)) for n in range(100)])
        c.commit()
        cursor.execute("SELECT a, b FROM arrows ORDER BY a LIMIT 3")
        say("ADBC", cursor.fetchall())
        with step("ADBC error"):
            cursor.execute("SELECT nothing")
        c.rollback()
        cursor.execute("SELECT count(*) FROM arrows")
        say("ADBC count", cursor.fetchone())
        say("ADBC tables", [row for row in c.adbc_get_objects(depth="tables", table_name_filter="arrows").read_all().to_pylist()] != [])


outcome("peewee ran", peewees)
outcome("tortoise ran", lambda: asyncio.run(tortoises()))
outcome("yoyo ran", yoyos)
outcome("aiopg ran", lambda: asyncio.run(aiopgs()))
outcome("psqlpy ran", lambda: asyncio.run(psqlpys()))
outcome("ADBC ran", adbcs)
