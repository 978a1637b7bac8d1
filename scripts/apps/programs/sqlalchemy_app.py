"""SQLAlchemy with Alembic: migrations, sessions, its queue pool, on psycopg2, psycopg, asyncpg and pg8000."""

import asyncio
import concurrent.futures
import datetime
import os
import pathlib
import sys
import time

import alembic.command
import alembic.config
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from steps import DATABASE, PORT, USER, outcome, say, step

URL = f"{USER}@127.0.0.1:{PORT}/{DATABASE}"

ENV = """
from alembic import context
from sqlalchemy import create_engine
engine = create_engine(context.config.get_main_option("sqlalchemy.url"))
with engine.connect() as connection:
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
"""
FIRST = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "1", None
def upgrade():
    op.create_table("author", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String(40), unique=True))
    op.create_table("book", sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("author_id", sa.Integer, sa.ForeignKey("author.id")), sa.Column("title", sa.Text), sa.Column("version", sa.Integer),
        sa.Column("tags", sa.ARRAY(sa.Text)), sa.Column("extra", sa.JSON), sa.Column("at", sa.DateTime(timezone=True)))
def downgrade():
    op.drop_table("book")
    op.drop_table("author")
"""
SECOND = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "2", "1"
def upgrade():
    with op.get_context().autocommit_block():
        op.create_index("book_title", "book", ["title"], postgresql_concurrently=True)
    op.alter_column("book", "extra", type_=sa.dialects.postgresql.JSONB, postgresql_using="extra::jsonb")
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.bulk_insert(sa.table("author", sa.column("name", sa.String)), [{"name": "Ada"}, {"name": "Bob"}])
def downgrade():
    op.drop_index("book_title")
    op.execute("DELETE FROM author")
"""
THIRD = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "3", "2"
def upgrade():
    op.add_column("book", sa.Column("broken", sa.Integer))
    op.execute("ALTER TABLE nothing ADD COLUMN a int")
def downgrade():
    pass
"""


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    books: Mapped[list["Book"]] = relationship(back_populates="author", order_by="Book.id")


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(sa.BigInteger, sa.Identity(), primary_key=True)
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("author.id"))
    title: Mapped[str]
    version: Mapped[int] = mapped_column()
    tags: Mapped[list[str]] = mapped_column(ARRAY(sa.Text))
    extra: Mapped[dict] = mapped_column(JSONB)
    at: Mapped[datetime.datetime] = mapped_column(sa.DateTime(timezone=True))
    author: Mapped[Author] = relationship(back_populates="books")
    __mapper_args__ = {"version_id_col": version}


def migrate():
    place = pathlib.Path(os.environ["SCRATCH"]) / "migrations"
    (place / "versions").mkdir(parents=True)
    (place / "env.py").write_text(ENV)
    (place / "script.py.mako").write_text("")
    for name, text in (("1", FIRST), ("2", SECOND)):
        (place / f"versions/{name}.py").write_text(text)
    config = alembic.config.Config()
    config.set_main_option("script_location", str(place))
    config.set_main_option("path_separator", "os")
    config.set_main_option("sqlalchemy.url", f"postgresql+psycopg2://{URL}")
    outcome("alembic upgrade", alembic.command.upgrade, config, "head")
    (place / "versions/3.py").write_text(THIRD)
    outcome("alembic upgrade that fails", alembic.command.upgrade, config, "head")
    engine = sa.create_engine(f"postgresql+psycopg2://{URL}")
    with engine.connect() as c:
        say("version", c.execute(sa.text("SELECT version_num FROM alembic_version")).all())
    say("columns", [column["name"] for column in sa.inspect(engine).get_columns("book")])
    say("indexes", sa.inspect(engine).get_indexes("book"))
    say("foreign keys", sa.inspect(engine).get_foreign_keys("book"))
    outcome("alembic downgrade", alembic.command.downgrade, config, "1")
    outcome("alembic upgrade again", alembic.command.upgrade, config, "2")
    engine.dispose()


def book(number, author_id=1):
    return Book(
        author_id=author_id, title=f"title {number}", tags=["a", f"t{number}"], extra={"n": number, "x": [None, True]},
        at=datetime.datetime(2026, 10, 25, 0, 30, tzinfo=datetime.timezone.utc) + datetime.timedelta(hours=number),
    )


def sessions(driver):
    engine = sa.create_engine(f"postgresql+{driver}://{URL}", pool_size=5, max_overflow=3, pool_pre_ping=True)
    logins = []
    event.listen(engine, "connect", lambda *_: logins.append(1))
    author = {"psycopg2": "Carl", "psycopg": "Dora", "pg8000": "Eve"}[driver]
    with Session(engine) as session:
        session.add(Author(name=author, books=[]))
        session.flush()
        session.commit()
        who = session.scalars(sa.select(Author).where(Author.name == author)).one()
        author_id = who.id
        session.add_all([book(number, author_id) for number in range(30)])
        session.commit()
        say(f"{driver} books", len(who.books))
        first = who.books[0]
        first.title = "changed"
        session.flush()
        with step(f"{driver} savepoint"):
            with session.begin_nested():
                session.add(Author(name=author))
        say(f"{driver} after the savepoint", (first.title, first.version, first.tags, first.extra, str(first.at.utctimetuple()[:5])))
        session.commit()
        with Session(engine) as other:
            theirs = other.get(Book, first.id)
            theirs.title = "theirs"
            other.commit()
        session.execute(sa.text("SELECT 1"))
        with step(f"{driver} stale version"):
            with Session(engine) as third:
                mine = third.get(Book, first.id)
                with Session(engine) as fourth:
                    fourth.get(Book, first.id).title = "fourth"
                    fourth.commit()
                mine.title = "third"
                third.commit()
        upsert = insert(Author).values(name=author).on_conflict_do_update(index_elements=["name"], set_={"name": author}).returning(Author.name)
        say(f"{driver} upsert", session.execute(upsert).all())
        session.rollback()
        say(f"{driver} for update", session.scalars(sa.select(Author.name).where(Author.name == author).with_for_update(skip_locked=True)).all())
        session.rollback()
    with engine.connect().execution_options(isolation_level="SERIALIZABLE") as c:
        say(f"{driver} isolation", c.execute(sa.text("SHOW transaction_isolation")).scalar())
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
        say(f"{driver} autocommit", c.execute(sa.text("SHOW transaction_isolation")).scalar())
        outcome(f"{driver} VACUUM", lambda: c.execute(sa.text("VACUUM author")).rowcount)
    with engine.connect().execution_options(postgresql_readonly=True, postgresql_deferrable=True, isolation_level="SERIALIZABLE") as c:
        say(f"{driver} read only", c.execute(sa.text("SHOW transaction_read_only")).scalar())
    if driver != "pg8000":
        with engine.connect().execution_options(stream_results=True, max_row_buffer=7) as c:
            rows = c.execute(sa.select(Book.title).where(Book.author_id == author_id).order_by(Book.id))
            say(f"{driver} streamed", (rows.fetchmany(3), len(rows.all())))
    with engine.begin() as c:
        c.execute(sa.text("CREATE TEMP TABLE scratch (a int) ON COMMIT DROP"))
        c.execute(sa.text("INSERT INTO scratch VALUES (:a)"), [{"a": n} for n in range(100)])
        say(f"{driver} scratch", c.execute(sa.text("SELECT sum(a) FROM scratch")).scalar())
    with step(f"{driver} rows of an executemany"):
        with Session(engine) as session:
            ids = session.scalars(sa.insert(Book).returning(Book.title, sort_by_parameter_order=True), [
                {"author_id": author_id, "title": f"many {n}", "version": 1, "tags": [], "extra": {}, "at": datetime.datetime.now(datetime.timezone.utc)}
                for n in range(2500)]).all()
            say(f"{driver} many", (len(ids), ids[:2], ids[-1]))
            session.commit()

    def work(number):
        with Session(engine) as session:
            made = book(1000 + number, author_id)
            session.add(made)
            session.commit()
            key = made.id
        with Session(engine) as session:
            return session.get(Book, key) is not None

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        say(f"{driver} read after write", sum(threads.map(work, range(80))))
    with engine.connect() as c:
        c.execute(sa.text("SET TIME ZONE 'Asia/Tokyo'"))
        c.commit()
        say(f"{driver} zone", c.execute(sa.text("SELECT to_char(at, 'HH24:MI TZH') FROM book WHERE title = 'title 1' AND author_id = :a"), {"a": author_id}).scalar())
    say(f"{driver} count", Session(engine).scalar(sa.select(sa.func.count()).select_from(Book).where(Book.author_id == author_id)))
    with engine.connect() as c:
        pid = c.execute(sa.text("SELECT pg_backend_pid()")).scalar()
        with engine.connect() as other:
            say(f"{driver} ended", other.execute(sa.text("SELECT pg_terminate_backend(:p)"), {"p": pid}).scalar())
            other.commit()
        time.sleep(0.2)
        with step(f"{driver} ended session"):
            c.execute(sa.text("SELECT 1"))
    with engine.connect() as c:
        say(f"{driver} pre-ping", c.execute(sa.text("SELECT 1")).scalar())
    engine.dispose()


async def asynchronous():
    engine = create_async_engine(f"postgresql+asyncpg://{URL}", pool_size=5)
    make = async_sessionmaker(engine, expire_on_commit=False)
    async with make() as session:
        who = Author(name="Fay")
        session.add(who)
        await session.commit()
        session.add_all([book(number, who.id) for number in range(30)])
        await session.commit()
        rows = (await session.scalars(sa.select(Book).where(Book.author_id == who.id).order_by(Book.id))).all()
        say("asyncpg books", [(rows[0].title, rows[0].tags, rows[0].extra), len(rows)])
        with step("asyncpg savepoint"):
            async with session.begin_nested():
                session.add(Author(name="Fay"))
                await session.flush()
        await session.commit()
        with step("asyncpg stale plan"):
            async with engine.begin() as other:
                await other.execute(sa.text("ALTER TABLE author ADD COLUMN age int"))
            say("asyncpg after DDL", (await session.execute(sa.text("SELECT count(*) FROM author"))).scalar() > 0)
    async with engine.connect() as c:
        result = await c.stream(sa.select(Book.title).where(Book.author_id == who.id).order_by(Book.id))
        say("asyncpg streamed", [row async for row in result][:2])

    async def work(number):
        async with make() as session:
            made = book(2000 + number, who.id)
            session.add(made)
            await session.commit()
        async with make() as session:
            return await session.get(Book, made.id) is not None

    say("asyncpg read after write", sum(await asyncio.gather(*[work(number) for number in range(60)])))
    async with engine.connect() as c:
        with step("asyncpg cancelled"):
            await asyncio.wait_for(c.execute(sa.text("SELECT pg_sleep(20)")), 0.5)
    await engine.dispose()


outcome("migrate", migrate)
for name in ("psycopg2", "psycopg", "pg8000"):
    outcome(name, sessions, name)
outcome("asyncpg", lambda: asyncio.run(asynchronous()))
sys.stdout.flush()
