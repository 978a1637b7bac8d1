// graphile-worker: its migrations, runners with several jobs at once, retries, queues, crontab, jobs by SQL in a block.
import { Logger, makeWorkerUtils, run, runMigrations, runOnce } from "graphile-worker";
import pg from "pg";
import { outcome, say, sleep, until } from "./steps.mjs";

const connectionString = process.env.DATABASE_URL;
const logger = new Logger(() => (level, message) => { if (level === "error") process.stderr.write(`${message}\n`); });
const pool = new pg.Pool({ connectionString, max: 8 });
await outcome("migrate", () => runMigrations({ connectionString, logger }));
await outcome("migrate together", async () => (await Promise.allSettled([1, 2, 3].map(() => runMigrations({ connectionString, logger })))).map((r) => r.status));
await pool.query("CREATE TABLE done (what text, n int)");
const utils = await makeWorkerUtils({ connectionString, logger });

let attempts = 0;
const order = [];
const taskList = {
  work: async (payload, helpers) => { await helpers.query("INSERT INTO done VALUES ('work', $1)", [payload.n]); },
  fails: async () => { attempts++; throw new Error("enough"); },
  block: async (payload, helpers) => {
    await helpers.withPgClient(async (client) => {
      await client.query("BEGIN");
      await client.query("INSERT INTO done VALUES ('block', $1)", [payload.n]);
      await client.query("COMMIT");
    });
    await helpers.addJob("work", { n: 1000 + payload.n });
  },
  ordered: async (payload) => { order.push(payload.n); await sleep(5); },
  batch: async (payload) => { await pool.query("INSERT INTO done VALUES ('batch', $1)", [payload.length]); },
};
for (let n = 0; n < 60; n++) await utils.addJob("work", { n });
for (let n = 0; n < 10; n++) await utils.addJob("ordered", { n }, { queueName: "one by one" });
await utils.addJob("fails", {}, { maxAttempts: 1 });
await outcome("job key", async () => {
  const first = await utils.addJob("work", { n: 500 }, { jobKey: "k", runAt: new Date(Date.now() + 3600000) });
  const second = await utils.addJob("work", { n: 501 }, { jobKey: "k", jobKeyMode: "replace" });
  return first.id === second.id;
});
await outcome("by SQL in a block", async () => {
  const client = await pool.connect();
  await client.query("BEGIN");
  await client.query("SELECT graphile_worker.add_job('work', '{\"n\": 700}')");
  await client.query("ROLLBACK");
  await client.query("BEGIN");
  await client.query("SELECT graphile_worker.add_job('block', '{\"n\": 701}')");
  await client.query("COMMIT");
  client.release();
});
const count = async (where) => (await pool.query(`SELECT count(*)::int AS n, count(DISTINCT n)::int AS d FROM done WHERE ${where}`)).rows[0];
await outcome("run", async () => {
  const runners = await Promise.all([1, 2].map(() => run({ connectionString, logger, concurrency: 4, maxPoolSize: 5, taskList, noHandleSignals: true, pollInterval: 500, crontab: "" })));
  say("all jobs", await until(async () => (await count("what = 'work'")).n >= 62));
  // By notification, not by polling: well within the poll interval of a runner that idles.
  await sleep(300);
  await utils.addJob("work", { n: 900 });
  say("a late one", await until(async () => (await count("n = 900")).n === 1, 10));
  await Promise.all(runners.map((runner) => runner.stop()));
});
await outcome("done", () => count("what = 'work'"));
await outcome("blocks", () => count("what = 'block'"));
say("ordered", order);
say("attempts", attempts);
await outcome("left", async () => (await pool.query("SELECT task_identifier, attempts, last_error FROM graphile_worker.jobs ORDER BY id")).rows);
await outcome("permanently failed", async () => (await utils.permanentlyFailJobs((await pool.query("SELECT id FROM graphile_worker.jobs")).rows.map((r) => r.id), "given up")).length);
await outcome("run once", async () => {
  for (let n = 0; n < 20; n++) await utils.addJob("work", { n: 2000 + n });
  await runOnce({ connectionString, logger, taskList, noHandleSignals: true });
  return count("n >= 2000");
});
await outcome("clean up", () => utils.cleanup({ tasks: ["GC_JOB_QUEUES", "GC_TASK_IDENTIFIERS", "DELETE_PERMAFAILED_JOBS"] }));
await outcome("locks left", async () => (await pool.query("SELECT count(*)::int AS n FROM graphile_worker._private_jobs WHERE locked_at IS NOT NULL")).rows[0].n);
await utils.release();
await pool.end();
