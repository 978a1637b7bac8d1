// Sequelize: sync, findOrCreate with its function in pg_temp, managed transactions, its pool; Knex with its migrations'
// lock; postgres.js and node-postgres with cursors, COPY, streams and cancels.
import pg from "pg";
import { outcome, say, sleep } from "./steps.mjs";
import { DataTypes, Op, Sequelize, Transaction } from "sequelize";

const sequelize = new Sequelize(process.env.DATABASE_URL, { logging: false, pool: { max: 6, min: 2 }, timezone: "+02:00", dialectOptions: { application_name: "sequelize" } });
const User = sequelize.define("User", {
  email: { type: DataTypes.STRING, unique: true }, tags: DataTypes.ARRAY(DataTypes.TEXT), data: DataTypes.JSONB, at: DataTypes.DATE,
  kind: { type: DataTypes.ENUM("a", "b"), defaultValue: "a" },
}, { timestamps: false });
const Post = sequelize.define("Post", { title: DataTypes.TEXT, n: DataTypes.INTEGER }, { timestamps: false });
User.hasMany(Post);
Post.belongsTo(User);

await outcome("authenticate", () => sequelize.authenticate());
await outcome("sync", async () => Object.keys((await sequelize.sync({ force: true })).models));
await outcome("sync again", async () => (await Post.sync({ alter: true })).name);
await outcome("create", () => User.create({ email: "ada@x", tags: ["a", "b"], data: { k: 1 }, at: new Date("2026-03-29T00:59:00Z"), Posts: [{ title: "p", n: 1 }] }, { include: Post }));
await outcome("unique", () => User.create({ email: "ada@x" }));
await outcome("findOrCreate", async () => [
  (await User.findOrCreate({ where: { email: "bob@x" }, defaults: { kind: "b" } }))[1],
  (await User.findOrCreate({ where: { email: "bob@x" } }))[1],
]);
await outcome("findOrCreate together", async () => {
  const made = await Promise.all([...Array(20).keys()].map((n) => User.findOrCreate({ where: { email: `foc${n % 4}@x` } })));
  return [made.filter((pair) => pair[1]).length, await User.count({ where: { email: { [Op.like]: "foc%" } } })];
});
await outcome("upsert", async () => (await User.upsert({ email: "bob@x", kind: "a" }))[0].kind);
await outcome("bulkCreate", async () => (await Post.bulkCreate([...Array(500).keys()].map((n) => ({ title: `t${n}`, n, UserId: 1 })))).length);
await outcome("managed", () => sequelize.transaction(async (transaction) => {
  await Post.create({ title: "in", n: 1 }, { transaction });
  return Post.count({ where: { title: "in" }, transaction });
}));
await outcome("managed that fails", () => sequelize.transaction(async (transaction) => {
  await Post.create({ title: "lost", n: 1 }, { transaction });
  await User.create({ email: "ada@x" }, { transaction });
}));
await outcome("savepoint", () => sequelize.transaction({ isolationLevel: Transaction.ISOLATION_LEVELS.REPEATABLE_READ }, async (transaction) => {
  try {
    await sequelize.transaction({ transaction }, (inner) => User.create({ email: "ada@x" }, { transaction: inner }));
  } catch (error) {
    say("inner", error.name);
  }
  return (await sequelize.query("SHOW transaction_isolation", { transaction, plain: true })).transaction_isolation;
}));
await outcome("lock", () => sequelize.transaction((transaction) => User.findOne({ where: { email: "ada@x" }, lock: transaction.LOCK.UPDATE, skipLocked: true, transaction })));
await outcome("include", async () => (await User.findOne({ where: { email: "ada@x" }, include: { model: Post, where: { title: "p" } } })).Posts.length);
await outcome("increment", async () => { await Post.increment("n", { where: { title: "p" } }); return (await Post.findOne({ where: { title: "p" } })).n; });
await outcome("zone", () => sequelize.query("SELECT to_char(at, 'HH24:MI TZH') AS at FROM \"Users\" WHERE email = 'ada@x'", { plain: true }));
await outcome("read after write", async () => (await Promise.all([...Array(40).keys()].map(async (n) => {
  const made = await Post.create({ title: `load${n}`, n });
  return (await Post.findByPk(made.id)) !== null;
}))).filter(Boolean).length);
await outcome("bind", () => sequelize.query("SELECT $1::int + $2::int AS n", { bind: [1, 2], plain: true }));
await sequelize.close();

const { default: knexOf } = await import("knex");
const knex = knexOf({ client: "pg", connection: process.env.DATABASE_URL, pool: { min: 2, max: 6 } });
const migrations = (named) => ({ getMigrations: async () => Object.keys(named), getMigrationName: (name) => name, getMigration: async (name) => named[name] });
const first = { up: (k) => k.schema.createTable("things", (t) => { t.increments(); t.text("name").unique(); t.jsonb("data"); t.timestamps(true, true); }), down: (k) => k.schema.dropTable("things") };
const second = { config: { transaction: false }, up: (k) => k.raw("CREATE INDEX CONCURRENTLY things_data ON things USING gin (data)"), down: (k) => k.raw("DROP INDEX things_data") };
const third = { up: async (k) => { await k("things").insert({ name: "lost" }); await k.raw("SELECT 1/0"); }, down: () => null };
await outcome("knex migrate", () => knex.migrate.latest({ migrationSource: migrations({ "1": first, "2": second }) }));
await outcome("knex migrate that fails", () => knex.migrate.latest({ migrationSource: migrations({ "1": first, "2": second, "3": third }) }));
await outcome("knex migrations' lock", () => knex("knex_migrations_lock").select("is_locked"));
await outcome("knex insert", () => knex("things").insert([{ name: "a", data: { x: 1 } }, { name: "b" }]).returning(["name", "data"]));
await outcome("knex transaction", () => knex.transaction(async (t) => {
  await t("things").insert({ name: "c" });
  await t.transaction(async (inner) => { await inner("things").insert({ name: "a" }); }).catch((error) => say("knex inner", error.code));
  return t("things").count("* as n");
}));
await outcome("knex stream", async () => { let n = 0; for await (const _ of knex("things").stream()) n++; return n; });
await outcome("knex timeout", () => knex.raw("SELECT pg_sleep(8)").timeout(400, { cancel: true }));
await outcome("knex timeout in a block", () => knex.transaction((t) => t.raw("SELECT pg_sleep(8)").timeout(400, { cancel: true })));
await outcome("knex after it", () => knex("things").count("* as n"));
await knex.destroy();

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 6 });
pool.on("error", (error) => say("pool", error.code));
await outcome("pg named", async () => {
  const rows = [];
  for (let n = 0; n < 12; n++) rows.push((await pool.query({ name: "one", text: "SELECT $1::int + 1 AS n", values: [n] })).rows[0].n);
  return rows;
});
await outcome("pg several", async () => (await pool.query("SELECT 1 AS a; CREATE TEMP TABLE several (a int); INSERT INTO several VALUES (1), (2); SELECT * FROM several; DROP TABLE several")).map((r) => [r.command, r.rowCount]));
await outcome("pg queued on one client", async () => {
  const client = await pool.connect();
  const all = await Promise.allSettled([
    client.query("BEGIN"), client.query("SELECT 1 AS a"), client.query("INSERT INTO things (name) VALUES ('a')"), client.query("SELECT 2 AS b"), client.query("ROLLBACK"), client.query("SELECT 3 AS c")]);
  client.release();
  return all.map((r) => r.value?.rows?.[0] ?? r.reason?.code ?? r.value?.command);
});
const { default: Cursor } = await import("pg-cursor");
await outcome("pg cursor", async () => {
  const client = await pool.connect();
  const cursor = client.query(new Cursor("SELECT g FROM generate_series(1, 1000) g"));
  const got = [(await cursor.read(3)).length, (await cursor.read(500)).length];
  await cursor.close();
  got.push((await client.query("SELECT 1 AS a")).rows[0].a);
  client.release();
  return got;
});
const { from, to } = await import("pg-copy-streams");
const { pipeline } = await import("node:stream/promises");
const { Readable, Writable } = await import("node:stream");
await outcome("pg COPY", async () => {
  const client = await pool.connect();
  await client.query("CREATE TABLE copied (a int, b text)");
  await pipeline(Readable.from([...Array(3000).keys()].map((n) => `${n}\tline ${n}\n`)), client.query(from("COPY copied FROM STDIN")));
  let bytes = 0;
  await pipeline(client.query(to("COPY copied TO STDOUT")), new Writable({ write(chunk, _, done) { bytes += chunk.length; done(); } }));
  client.release();
  return bytes;
});
await outcome("pg LISTEN", async () => {
  const listener = new pg.Client(process.env.DATABASE_URL);
  await listener.connect();
  const heard = [];
  listener.on("notification", (m) => heard.push([m.channel, m.payload]));
  await listener.query("LISTEN news");
  for (let n = 0; n < 20; n++) await pool.query("SELECT pg_notify('news', $1)", [`${n}`]);
  await sleep(300);
  await listener.end();
  return [heard.length, heard[0], heard[19]];
});
await outcome("pg settings of a login", async () => {
  const client = new pg.Client({ connectionString: process.env.DATABASE_URL, statement_timeout: 300, options: "-c search_path=pg_catalog", application_name: "x", idle_in_transaction_session_timeout: 400 });
  client.on("error", (error) => say("pg idle in a transaction", error.code));
  await client.connect();
  const shown = (await client.query("SELECT current_setting('search_path') AS p, current_setting('statement_timeout') AS t")).rows[0];
  await client.query("SELECT pg_sleep(2)").catch((error) => say("pg statement timeout", error.code));
  await client.query("BEGIN");
  await client.query("SELECT 1");
  await sleep(900);
  await client.query("SELECT 1").catch((error) => say("pg after the idle timeout", [error.code, error.message]));
  await client.end().catch(() => null);
  return shown;
});
await pool.end();

const { default: postgres } = await import("postgres");
const sql = postgres(process.env.DATABASE_URL, { max: 6, onnotice: (n) => say("postgres.js notice", n.message) });
await outcome("postgres.js", async () => [...(await sql`SELECT ${1}::int + 1 AS n, ${sql.json({ a: 1 })}::jsonb AS j, ${["x", "y"]}::text[] AS l`)]);
await outcome("postgres.js pipelined", async () => (await Promise.all([...Array(100).keys()].map((n) => sql`SELECT ${n}::int AS n`))).map((r) => r[0].n).reduce((a, b) => a + b));
await outcome("postgres.js begin", () => sql.begin("ISOLATION LEVEL SERIALIZABLE", async (t) => {
  await t`INSERT INTO things (name) VALUES ('pj')`;
  await t.savepoint(async (s) => { await s`INSERT INTO things (name) VALUES ('a')`; }).catch((error) => say("postgres.js savepoint", error.code));
  return [...(await t`SELECT count(*)::int AS n, current_setting('transaction_isolation') AS level FROM things`)];
}));
await outcome("postgres.js pipelined block", () => sql.begin((t) => [t`SELECT 1 AS a`, t`INSERT INTO things (name) VALUES ('pp') RETURNING name`, t`SELECT 2 AS b`]));
await outcome("postgres.js pipelined block that fails", () => sql.begin((t) => [t`INSERT INTO things (name) VALUES ('lost')`, t`SELECT 1/0`, t`SELECT 2 AS b`]));
await outcome("postgres.js nothing of it", async () => [...(await sql`SELECT name FROM things WHERE name IN ('pp', 'lost', 'pj') ORDER BY name`)]);
await outcome("postgres.js simple", async () => (await sql`SELECT 1 AS a; SELECT 2 AS b`.simple()).map((r) => r[0]));
await outcome("postgres.js cursor", async () => { let n = 0; for await (const rows of sql`SELECT g FROM generate_series(1, 100) g`.cursor(30)) n += rows.length; return n; });
await outcome("postgres.js cursor left", async () => { for await (const rows of sql`SELECT g FROM generate_series(1, 100) g`.cursor(10)) return rows.length; });
await outcome("postgres.js cancel", async () => { const query = sql`SELECT pg_sleep(8)`; setTimeout(() => query.cancel(), 300); return [...(await query)]; });
await outcome("postgres.js cancel in a block", () => sql.begin(async (t) => { const query = t`SELECT pg_sleep(8)`; setTimeout(() => query.cancel(), 300); return [...(await query)]; }));
await outcome("postgres.js listen", async () => {
  const heard = [];
  const { unlisten } = await sql.listen("pj", (payload) => heard.push(payload));
  for (let n = 0; n < 10; n++) await sql.notify("pj", `${n}`);
  await sleep(300);
  await unlisten();
  await sql.notify("pj", "late");
  await sleep(200);
  return heard;
});
await outcome("postgres.js reserve", async () => {
  const reserved = await sql.reserve();
  await reserved`CREATE TEMP TABLE mine (a int)`;
  await reserved`INSERT INTO mine VALUES (1)`;
  const rows = [...(await reserved`SELECT * FROM mine`)];
  await reserved`DROP TABLE mine`;
  reserved.release();
  return rows;
});
await outcome("postgres.js describe", async () => { const d = await sql`SELECT name, id FROM things WHERE id = ${1}`.describe(); return [d.types, d.columns.map((c) => c.name)]; });
await outcome("postgres.js unsafe", async () => [...(await sql.unsafe("SELECT $1::text AS t", ["x"], { prepare: true }))]);
await outcome("postgres.js copy", async () => {
  const writable = await sql`COPY copied FROM STDIN`.writable();
  await pipeline(Readable.from(["1\tpj\n", "2\tpj\n"]), writable);
  return (await sql`SELECT count(*)::int AS n FROM copied WHERE b = 'pj'`)[0].n;
});
await outcome("postgres.js notice", () => sql`DO $$ BEGIN RAISE NOTICE 'hello'; END $$`.then(() => null));
await sql.end();
