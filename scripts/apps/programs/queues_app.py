"""Procrastinate and PgQueuer: queues in PostgreSQL that listen, lock and retry, with several workers."""

import asyncio
import datetime

import asyncpg
import procrastinate
import psycopg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries
from steps import DATABASE, DSN, PORT, USER, outcome, say, step


def count(query):
    with psycopg.connect(DSN, autocommit=True) as c:
        return c.execute(query).fetchall()


async def procrastinating():
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=DSN, min_size=2, max_size=6))
    done, tries = [], []

    @app.task(name="work", queue="q")
    async def work(n):
        await asyncio.sleep(0.01)
        done.append(n)

    @app.task(name="fails", queue="q", retry=2)
    async def fails():
        tries.append(1)
        raise ValueError("enough")

    @app.task(name="locked", queue="q")
    async def locked(n):
        done.append(1000 + n)

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for n in range(30):
            await work.defer_async(n=n)
        await work.batch_defer_async(*[{"n": 100 + n} for n in range(20)])
        for n in range(5):
            await locked.configure(lock="one").defer_async(n=n)
        await fails.defer_async()
        with step("queueing lock"):
            await work.configure(queueing_lock="only").defer_async(n=500)
            await work.configure(queueing_lock="only").defer_async(n=501)
        await work.configure(schedule_in={"hours": 1}).defer_async(n=600)
        say("check", await app.check_connection_async())
        workers = [asyncio.create_task(app.run_worker_async(queues=["q"], concurrency=4, install_signal_handlers=False, listen_notify=True)) for _ in range(2)]
        for _ in range(200):
            if len(done) >= 56 and len(tries) >= 3:
                break
            await asyncio.sleep(0.1)
        # Told by NOTIFY: the workers ask by themselves only every five seconds.
        began = asyncio.get_running_loop().time()
        await work.defer_async(n=900)
        while 900 not in done and asyncio.get_running_loop().time() - began < 10:
            await asyncio.sleep(0.02)
        say("told at once", asyncio.get_running_loop().time() - began < 3)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    say("procrastinate", (len(done), len(set(done)), [n for n in done if n >= 1000], len(tries)))
    say("procrastinate jobs", count("SELECT status::text, count(*) FROM procrastinate_jobs GROUP BY 1 ORDER BY 1"))


async def queueing():
    pool = await asyncpg.create_pool(host="127.0.0.1", port=int(PORT), user=USER, database=DATABASE, min_size=2, max_size=6)
    async with pool:
        queries = Queries(AsyncpgPoolDriver(pool))
        await queries.install()
        done = []
        runners = []
        for _ in range(2):
            queuer = PgQueuer(AsyncpgPoolDriver(pool))

            @queuer.entrypoint("work")
            async def work(job: Job):
                done.append(int(job.payload))

            runners.append(queuer)
        await queries.enqueue(["work"] * 40, [str(n).encode() for n in range(40)], [0] * 40)
        tasks = [asyncio.create_task(queuer.run(dequeue_timeout=datetime.timedelta(seconds=20), batch_size=5)) for queuer in runners]
        for _ in range(100):
            if len(done) >= 40:
                break
            await asyncio.sleep(0.1)
        began = asyncio.get_running_loop().time()
        await queries.enqueue("work", b"900", 0)
        while 900 not in done and asyncio.get_running_loop().time() - began < 15:
            await asyncio.sleep(0.02)
        say("told at once", asyncio.get_running_loop().time() - began < 5)
        for queuer in runners:
            queuer.shutdown.set()
        await asyncio.wait(tasks, timeout=10)
        say("pgqueuer", (len(done), len(set(done))))
        say("pgqueuer left", await pool.fetchval("SELECT count(*) FROM pgqueuer"))


outcome("procrastinate ran", lambda: asyncio.run(procrastinating()))
outcome("pgqueuer ran", lambda: asyncio.run(queueing()))
