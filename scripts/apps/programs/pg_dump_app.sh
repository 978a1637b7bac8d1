# pg_dump, pg_restore, psql, vacuumdb, reindexdb and pgbench: the server's own programs, all of which find it by PG* variables.
set -u
export PGOPTIONS="-c statement_timeout=60s" PATH="$POSTGRES_BIN:$PATH"
say() { printf '%s: %s\n' "$1" "$2"; }
sums() { md5sum | cut -d ' ' -f 1; }

psql -qX -v ON_ERROR_STOP=1 <<'SQL'
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE SEQUENCE loose START 40;
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE TABLE a (id serial PRIMARY KEY, what text, how mood DEFAULT 'sad', at timestamptz DEFAULT '2026-01-01Z', raw bytea);
CREATE TABLE b (a int REFERENCES a, n numeric, PRIMARY KEY (a, n));
CREATE TABLE parted (d date, v int) PARTITION BY RANGE (d);
CREATE TABLE parted1 PARTITION OF parted FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
CREATE TABLE parted2 PARTITION OF parted FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');
CREATE VIEW v AS SELECT what, twice(id) FROM a;
CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM a;
INSERT INTO a (what, raw) SELECT 'line ' || n || E'\n\t\\', decode(md5(n::text), 'hex') FROM generate_series(1, 5000) n;
INSERT INTO b SELECT id, id / 3.0 FROM a WHERE id < 2000;
INSERT INTO parted SELECT date '2026-01-01' + n % 360, n FROM generate_series(1, 3000) n;
SELECT nextval('loose');
SELECT lo_from_bytea(424242, 'a large object');
CREATE INDEX a_what ON a (what);
ALTER TABLE a ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON a USING (true);
COMMENT ON TABLE a IS 'a''s comment';
SQL
say "made" "$?"

# In the order of their keys: a dump's own order is that of the table.
for how in "" "--serializable-deferrable" "--inserts" "--column-inserts --rows-per-insert=50" "--schema-only" "--data-only" "--clean --if-exists" "--no-sync -Z0" "--enable-row-security"; do
    said=$(pg_dump --no-comments $how 2>"$SCRATCH/err" | grep -v -e '^\\restrict' -e '^\\unrestrict' | sums)
    say "pg_dump $how" "$said $(head -1 "$SCRATCH/err")"
done
for jobs in 1 4 6; do
    pg_dump -Fd -j "$jobs" -f "$SCRATCH/dump$jobs" 2>"$SCRATCH/err"
    say "pg_dump -j $jobs" "$? $(head -1 "$SCRATCH/err")"
    say "its files" "$(ls "$SCRATCH/dump$jobs" | wc -l)"
    say "its rows" "$(cd "$SCRATCH/dump$jobs" && for file in *.dat.gz; do zcat "$file"; done | sort | sums)"
done
pg_dump -Fc -f "$SCRATCH/dump.custom" 2>"$SCRATCH/err"
say "pg_dump -Fc" "$? $(head -1 "$SCRATCH/err")"
say "its list" "$(pg_restore -l "$SCRATCH/dump.custom" | grep -v '^;' | cut -d ';' -f 2- | cut -d ' ' -f 4- | sort | sums)"

psql -qX -c "DROP OWNED BY app" >/dev/null 2>&1
psql -qXAt -c "DROP TABLE IF EXISTS b, a, parted CASCADE; DROP SEQUENCE IF EXISTS loose; DROP FUNCTION IF EXISTS twice(int); DROP TYPE IF EXISTS mood; SELECT lo_unlink(oid) FROM pg_largeobject_metadata WHERE oid = 424242" >"$SCRATCH/out" 2>&1
say "dropped" "$(cat "$SCRATCH/out")"
pg_restore -d "$PGDATABASE" -j 4 "$SCRATCH/dump4" 2>"$SCRATCH/err"
say "pg_restore -j 4" "$? $(grep -c error "$SCRATCH/err") $(head -1 "$SCRATCH/err")"
say "rows" "$(psql -XAt -c "SELECT (SELECT count(*) FROM a), (SELECT sum(n) FROM b), (SELECT sum(v) FROM parted), (SELECT count(*) FROM v), (SELECT * FROM m), lo_get(424242)" 2>&1)"
say "sequence" "$(psql -XAt -c "SELECT nextval('loose'), nextval('a_id_seq')" 2>&1)"
pg_restore --clean --if-exists --single-transaction -d "$PGDATABASE" "$SCRATCH/dump.custom" 2>"$SCRATCH/err"
say "pg_restore --single-transaction" "$? $(head -1 "$SCRATCH/err")"
say "rows again" "$(psql -XAt -c "SELECT (SELECT count(*) FROM a), (SELECT sum(n) FROM b)" 2>&1)"
say "pg_dumpall" "$(pg_dumpall --globals-only --no-role-passwords 2>&1 | grep -c 'ROLE')"

vacuumdb -z -j 3 -t a -t b -t parted "$PGDATABASE" >"$SCRATCH/out" 2>&1
say "vacuumdb -j 3" "$? $(head -1 "$SCRATCH/out")"
vacuumdb --analyze-in-stages "$PGDATABASE" >"$SCRATCH/out" 2>"$SCRATCH/err"
say "vacuumdb in stages" "$? $(grep -v WARNING "$SCRATCH/err" | head -1)"
reindexdb -j 3 --concurrently -t a -t b "$PGDATABASE" >"$SCRATCH/out" 2>&1
say "reindexdb" "$? $(head -1 "$SCRATCH/out")"
clusterdb -t a "$PGDATABASE" >"$SCRATCH/out" 2>&1
say "clusterdb" "$? $(head -1 "$SCRATCH/out")"

pgbench -i -q -s 1 >"$SCRATCH/out" 2>&1
say "pgbench -i" "$?"
for protocol in simple extended prepared; do
    pgbench -n -M "$protocol" -c 8 -j 2 -t 50 >"$SCRATCH/out" 2>&1
    say "pgbench -M $protocol" "$? $(grep -E 'actually|failed' "$SCRATCH/out" | tr '\n' ' ')"
done
say "pgbench sums" "$(psql -XAt -c "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(delta) FROM pgbench_history), (SELECT count(*) FROM pgbench_history)")"
cat >"$SCRATCH/pipeline.sql" <<'SQL'
\startpipeline
BEGIN;
UPDATE pgbench_branches SET bbalance = bbalance + 1 WHERE bid = 1;
SELECT bbalance FROM pgbench_branches WHERE bid = 1;
COMMIT;
SELECT 1;
\endpipeline
SQL
pgbench -n -M prepared -c 4 -t 20 -f "$SCRATCH/pipeline.sql" >"$SCRATCH/out" 2>&1
say "pgbench in a pipeline" "$? $(grep -E 'actually' "$SCRATCH/out")"
cat >"$SCRATCH/retried.sql" <<'SQL'
BEGIN ISOLATION LEVEL SERIALIZABLE;
UPDATE pgbench_tellers SET tbalance = tbalance + 1 WHERE tid = 1;
END;
SQL
pgbench -n -c 4 -t 20 --max-tries=1000 -f "$SCRATCH/retried.sql" >"$SCRATCH/out" 2>&1
say "pgbench that retries" "$? $(grep -E 'actually' "$SCRATCH/out")"

psql -XAt 2>&1 <<'SQL' | sed -e 's/with PID [0-9]*/with its PID/' -e 's/^/psql: /'
SELECT 1 AS a, 'x' AS b \gset
\echo :a :b
SELECT 'SELECT ' || g FROM generate_series(1, 3) g \gexec
\set FETCH_COUNT 7
SELECT g FROM generate_series(1, 20) g
\;
SELECT count(*) FROM a;
\unset FETCH_COUNT
\set ON_ERROR_ROLLBACK on
BEGIN;
INSERT INTO b VALUES (-1, 0);
INSERT INTO b VALUES (1999, 1);
SELECT count(*) FROM b WHERE n = 1;
COMMIT;
\set ON_ERROR_ROLLBACK off
\set AUTOCOMMIT off
CREATE TABLE auto (a int);
ROLLBACK;
SELECT to_regclass('auto') IS NULL;
ROLLBACK;
\set AUTOCOMMIT on
\d a
\dt
\df twice
\dp a
\encoding LATIN1
SELECT octet_length('é');
\encoding UTF8
PREPARE p (int) AS SELECT $1 + 1;
EXECUTE p (41);
\gdesc
SELECT 1 AS one, now() AS two \gdesc
DEALLOCATE p;
\copy (SELECT id FROM a ORDER BY id LIMIT 3) TO STDOUT
COPY b FROM STDIN;
1	77
\.
SELECT count(*) FROM b WHERE n = 77;
\errverbose
SELECT 1/0;
\errverbose
SELECT current_setting('statement_timeout');
\c - -
SELECT current_setting('statement_timeout');
SET statement_timeout = '200ms';
SELECT pg_sleep(3);
LISTEN x;
NOTIFY x, 'hello';
\lo_list
\crosstabview
SELECT :'HOST', :'SERVER_VERSION_NUM' > '1';
SELECT :'LAST_ERROR_SQLSTATE';
SQL
