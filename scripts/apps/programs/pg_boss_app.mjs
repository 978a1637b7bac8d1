// pg-boss: its schema under an advisory lock, queues by policy, workers, retries, dead letters, schedules, publish/subscribe.
import PgBoss from "pg-boss";
import pg from "pg";
import { outcome, say, until } from "./steps.mjs";

const connectionString = process.env.DATABASE_URL;
const bosses = [1, 2].map(() => new PgBoss({ connectionString, max: 5, monitorStateIntervalSeconds: 1 }));
bosses.forEach((boss) => boss.on("error", (error) => say("boss", error.message)));
const pool = new pg.Pool({ connectionString, max: 4 });
// Not both at once: their CREATE SCHEMA IF NOT EXISTS can meet, which PostgreSQL answers with 23505.
for (const boss of bosses) await outcome("start", async () => { await boss.start(); });
const [boss, other] = bosses;
await outcome("queues", async () => {
  await boss.createQueue("dead");
  await boss.createQueue("work", { retryLimit: 0 });
  await boss.createQueue("fails", { retryLimit: 1, retryDelay: 0, deadLetter: "dead" });
  await boss.createQueue("single", { policy: "singleton" });
  await boss.createQueue("short", { policy: "short" });
});
const seen = [];
await outcome("send", async () => {
  for (let n = 0; n < 40; n++) await boss.send("work", { n });
  return (await boss.getQueueSize("work"));
});
await outcome("insert many", () => boss.insert([...Array(60).keys()].map((n) => ({ name: "work", data: { n: 100 + n } }))));
await outcome("in a block of the caller", async () => {
  const client = await pool.connect();
  const db = { executeSql: (text, values) => client.query(text, values) };
  await client.query("BEGIN");
  await boss.send("work", { n: 999 }, { db });
  await client.query("ROLLBACK");
  client.release();
  return boss.getQueueSize("work");
});
await outcome("short policy", async () => [await boss.send("short", {}) !== null, await boss.send("short", {})]);
await outcome("fetch and complete", async () => {
  const [job] = await boss.fetch("short");
  await boss.complete("short", job.id, { ok: true });
  return (await boss.getJobById("short", job.id)).state;
});
await outcome("cancel and resume", async () => {
  const id = await boss.send("single", { a: 1 }, { startAfter: 3600 });
  await boss.cancel("single", id);
  const first = (await boss.getJobById("single", id)).state;
  await boss.resume("single", id);
  return [first, (await boss.getJobById("single", id)).state];
});
let failures = 0;
const dead = [];
await outcome("work", async () => {
  for (const each of bosses) {
    for (let n = 0; n < 3; n++) await each.work("work", { batchSize: 5, pollingIntervalSeconds: 0.5 }, async (jobs) => { jobs.forEach((job) => seen.push(job.data.n)); });
  }
  await boss.work("fails", { pollingIntervalSeconds: 0.5 }, async () => { failures++; throw new Error("enough"); });
  await other.work("dead", { pollingIntervalSeconds: 0.5 }, async (jobs) => { dead.push(...jobs.map((job) => job.data)); });
  await boss.send("fails", { why: "because" });
  say("all done", await until(() => seen.length >= 100 && dead.length === 1, 30));
});
say("seen", [seen.length, new Set(seen).size]);
say("failures", failures);
say("dead", dead);
await outcome("publish", async () => {
  await boss.createQueue("subscriber");
  await boss.subscribe("event", "subscriber");
  await other.publish("event", { hello: 1 });
  return (await other.fetch("subscriber")).map((job) => job.data);
});
await outcome("schedule", async () => { await boss.schedule("work", "0 3 * * *", { n: 1 }); return (await other.getSchedules()).map((s) => [s.name, s.cron]); });
await outcome("throttled", async () => [await boss.sendThrottled("single", {}, {}, 60) !== null, await boss.sendThrottled("single", {}, {}, 60)]);
await outcome("maintain", async () => { await boss.maintain("work"); await boss.purgeQueue("single"); return boss.getQueueSize("single"); });
await outcome("stop", () => Promise.all(bosses.map((each) => each.stop({ graceful: true, timeout: 5000 }))).then(() => null));
await outcome("states", async () => (await pool.query("SELECT name, state, count(*)::int AS n FROM pgboss.job WHERE name IN ('work', 'fails', 'dead') GROUP BY 1, 2 ORDER BY 1, 2")).rows);
await pool.end();
