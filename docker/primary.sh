#!/bin/sh
# Sets the first primary up: an application's database, the user who replicates, and the user as whom Poolhouse asks
# how the servers are and promotes. The official image runs it once, on a new data directory.
set -eu

psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres \
    --set replication_password="$REPLICATION_PASSWORD" \
    --set health_password="$HEALTH_PASSWORD" \
    --set app_password="$APP_PASSWORD" <<'SQL'
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'replication_password';

CREATE ROLE app LOGIN PASSWORD :'app_password';
CREATE DATABASE app OWNER app;

-- Not a superuser: docs/operations.md says what each of these rights is for.
CREATE ROLE poolhouse LOGIN PASSWORD :'health_password';
GRANT pg_monitor TO poolhouse;
GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer), pg_reload_conf() TO poolhouse;
GRANT ALTER SYSTEM ON PARAMETER primary_conninfo TO poolhouse;
SQL

# The image lets everybody in with a password, but not for replication.
echo "host replication replicator all scram-sha-256" >>"$PGDATA/pg_hba.conf"
