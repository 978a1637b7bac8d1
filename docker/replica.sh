#!/bin/sh
# A replica: copies the primary once, then streams from it. Runs as the user postgres of the official image.
set -eu

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    # The server refuses a directory that others may enter, and the image makes one for any user.
    chmod 700 "$PGDATA"
    # --write-recovery-conf leaves the connection string in primary_conninfo. No replication slot: the next primary
    # would not have it.
    until pg_basebackup --dbname "host=$PRIMARY user=replicator password=$REPLICATION_PASSWORD" \
        --pgdata "$PGDATA" --wal-method stream --checkpoint fast --write-recovery-conf; do
        echo "replica: the primary cannot be copied yet; trying again" >&2
        sleep 1
    done
fi
exec docker-entrypoint.sh postgres -c wal_keep_size=512MB
