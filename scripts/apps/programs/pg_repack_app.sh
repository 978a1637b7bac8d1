# pg_repack: rewrites tables while others write to them; the extension's own locks, triggers and temporary tables.
set -u
export PATH="$POSTGRES_BIN:$PATH"
say() { printf '%s: %s\n' "$1" "$2"; }

psql -qX -v ON_ERROR_STOP=1 <<'SQL'
CREATE EXTENSION pg_repack;
CREATE TABLE a (id serial PRIMARY KEY, what text, n int DEFAULT 0);
CREATE TABLE b (id serial PRIMARY KEY, what text);
INSERT INTO a (what) SELECT repeat('x', 200) FROM generate_series(1, 20000);
INSERT INTO b (what) SELECT 'b' FROM generate_series(1, 2000);
CREATE INDEX a_what ON a (what);
CREATE INDEX a_n ON a (n);
DELETE FROM a WHERE id % 3 = 0;
SQL
say "made" "$?"
repack() {
    timeout 60 pg_repack -h 127.0.0.1 -p "$PGPORT" -U "$PGUSER" -d "$PGDATABASE" "$@" >"$SCRATCH/out" 2>&1
    said=$?
    say "pg_repack $*" "$said $(sed 's/[0-9]\{5,\}/N/g' "$SCRATCH/out" | sort | tr '\n' ' ')"
}
repack -t a
repack -t a -o n
repack -t a -j 3
repack -t b --no-order
repack -i a_what
repack -t a -x
# Somebody writes meanwhile.
( for turn in $(seq 1 100); do psql -qXAt -c "INSERT INTO a (what) VALUES ('new'); UPDATE a SET n = n + 1 WHERE id = 1"; done ) &
writer=$!
repack -t a
wait "$writer"
repack -t nothing
repack --all --dry-run
say "rows" "$(psql -qXAt -c "SELECT count(*), count(*) FILTER (WHERE what = 'new'), max(n) FROM a")"
say "indexes" "$(psql -qXAt -c "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relkind = 'i' AND relnamespace = 'public'::regnamespace")"
say "left" "$(psql -qXAt -c "SELECT count(*) FROM pg_class WHERE relnamespace = 'repack'::regnamespace AND relname ~ '^(log|table)_'")"
say "triggers" "$(psql -qXAt -c "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'repack%'")"
