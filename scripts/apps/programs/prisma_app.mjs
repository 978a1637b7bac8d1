// Prisma's client with its driver adapter for node-postgres: its pool, nested writes, both kinds of transactions, raw SQL.
import { PrismaPg } from "@prisma/adapter-pg";
import prismaClient from "./prisma-client/index.js";
import { outcome, say, sleep } from "./steps.mjs";

const { PrismaClient, Prisma } = prismaClient;
const prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString: process.env.DATABASE_URL, max: 6 }) });

// Its migrations are scripts of several statements.
await outcome("migrate", () =>
  prisma.$executeRawUnsafe(`CREATE TABLE "Person" (id serial PRIMARY KEY, email text NOT NULL, tags text[], data jsonb,
    paid numeric(10,2) NOT NULL DEFAULT 0, born timestamptz(3), big bigint NOT NULL DEFAULT 1)`));
await outcome("migrate more", async () => {
  await prisma.$executeRawUnsafe(`CREATE UNIQUE INDEX "Person_email_key" ON "Person" (email)`);
  await prisma.$executeRawUnsafe(`CREATE TABLE "Post" (id serial PRIMARY KEY, title text NOT NULL,
    "authorId" int NOT NULL REFERENCES "Person" (id))`);
});
await outcome("lock of its migrations", () => prisma.$queryRaw`SELECT pg_try_advisory_xact_lock(72707369) AS got`);
await outcome("nested create", () =>
  prisma.person.create({
    data: {
      email: "ada@x", tags: ["a", "b,c"], data: { k: [1, null] }, paid: "12.50", born: new Date("2026-03-29T00:59:00Z"), big: 2n ** 60n,
      posts: { create: [{ title: "one" }, { title: "two" }] },
    },
    include: { posts: true },
  }));
await outcome("unique", () => prisma.person.create({ data: { email: "ada@x" } }));
await outcome("createMany", () =>
  prisma.person.createMany({ data: [...Array(300).keys()].map((n) => ({ email: `many${n}@x`, paid: n })), skipDuplicates: true }));
await outcome("createManyAndReturn", async () =>
  (await prisma.post.createManyAndReturn({ data: [{ title: "r1", authorId: 1 }, { title: "r2", authorId: 1 }] })).map((p) => p.title));
await outcome("upsert", async () => [
  (await prisma.person.upsert({ where: { email: "eve@x" }, create: { email: "eve@x" }, update: { paid: 1 } })).paid,
  (await prisma.person.upsert({ where: { email: "eve@x" }, create: { email: "eve@x" }, update: { paid: 1 } })).paid,
]);
await outcome("concurrent upserts", async () =>
  (await Promise.allSettled([...Array(10).keys()].map(() =>
    prisma.person.upsert({ where: { email: "race@x" }, create: { email: "race@x" }, update: { paid: { increment: 1 } } })))).length);
await outcome("aggregate", () => prisma.person.aggregate({ _sum: { paid: true }, _count: true, where: { email: { startsWith: "many" } } }));
await outcome("groupBy", () => prisma.post.groupBy({ by: ["authorId"], _count: { _all: true } }));
await outcome("filters", () =>
  prisma.person.findMany({ where: { OR: [{ tags: { has: "a" } }, { data: { path: ["k", "0"], equals: 1 } }] }, select: { email: true } }));
await outcome("cursor", () =>
  prisma.person.findMany({ where: { email: { startsWith: "many" } }, orderBy: { id: "asc" }, take: 3, skip: 1, cursor: { email: "many7@x" }, select: { email: true } }));
await outcome("in", () => prisma.person.count({ where: { id: { in: [...Array(500).keys()] } } }));
await outcome("batch", () =>
  prisma.$transaction([prisma.person.count({ where: { email: "ada@x" } }), prisma.post.create({ data: { title: "b", authorId: 1 }, select: { title: true } })]));
await outcome("batch that fails", () =>
  prisma.$transaction([prisma.post.create({ data: { title: "lost", authorId: 1 } }), prisma.person.create({ data: { email: "ada@x" } })]));
await outcome("nothing of it", () => prisma.post.count({ where: { title: "lost" } }));
await outcome("interactive", () =>
  prisma.$transaction(async (t) => {
    await t.$executeRaw`SET LOCAL app.tenant = '7'`;
    await t.$executeRaw`SELECT set_config('app.user', ${"ada"}, true)`;
    await t.post.create({ data: { title: "in", authorId: 1 } });
    return t.$queryRaw`SELECT current_setting('app.tenant') AS tenant, current_setting('app.user') AS who`;
  }, { isolationLevel: Prisma.TransactionIsolationLevel.Serializable }));
await outcome("isolation", () =>
  prisma.$transaction((t) => t.$queryRaw`SELECT current_setting('transaction_isolation') AS level`, { isolationLevel: "RepeatableRead" }));
await outcome("interactive that fails", () =>
  prisma.$transaction(async (t) => {
    await t.post.create({ data: { title: "lost", authorId: 1 } });
    throw new Error("enough");
  }));
await outcome("interactive that is too slow", () =>
  prisma.$transaction(async (t) => {
    await t.post.create({ data: { title: "lost", authorId: 1 } });
    await sleep(600);
    await t.post.count();
  }, { timeout: 300 }));
await outcome("nothing of them", () => prisma.post.count({ where: { title: "lost" } }));
await outcome("write conflicts", async () => {
  let conflicts = 0;
  const add = async () => {
    for (;;) {
      try {
        return await prisma.$transaction(async (t) => {
          const { paid } = await t.person.findUnique({ where: { email: "eve@x" } });
          await t.person.update({ where: { email: "eve@x" }, data: { paid: Number(paid) + 1 } });
        }, { isolationLevel: "Serializable", maxWait: 15000, timeout: 15000 });
      } catch (error) {
        if (error.code !== "P2034") throw error;
        conflicts++;
      }
    }
  };
  await Promise.all([...Array(5).keys()].map(add));
  return (await prisma.person.findUnique({ where: { email: "eve@x" } })).paid;
});
await outcome("raw", () => prisma.$queryRaw`SELECT ${1}::int + 1 AS n, ${["a"]}::text[] AS list, ${{ a: 1 }}::jsonb AS doc, now() > '2020-01-01' AS late`);
await outcome("raw error", () => prisma.$queryRaw`SELECT 1/0`);
await outcome("relation", async () => (await prisma.person.findUnique({ where: { email: "ada@x" }, include: { posts: { where: { title: "one" } } } })).posts.length);
await outcome("read after write", async () => {
  const seen = await Promise.all([...Array(40).keys()].map(async (n) => {
    const { id } = await prisma.post.create({ data: { title: `load ${n}`, authorId: 1 } });
    return (await prisma.post.findUnique({ where: { id } })) !== null;
  }));
  return seen.filter(Boolean).length;
});
await outcome("DDL under it", async () => {
  await prisma.$executeRawUnsafe(`ALTER TABLE "Post" ADD COLUMN extra int`);
  return (await prisma.post.findFirst({ where: { title: "one" } })).title;
});
await outcome("deleteMany", () => prisma.post.deleteMany({ where: { title: { startsWith: "load" } } }));
say("end", "disconnecting");
await prisma.$disconnect();
