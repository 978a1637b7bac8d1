#!/bin/sh
# Applications written with some thirty tools, directly and through Poolhouse: fetches the tools, and compares.
# usage: scripts/apps/run.sh [--mode pooled|split|roaming] [--rounds N] [--pooler BINARY] [TOOL...]
# What it fetches from PyPI and npm and builds goes to target/apps; the rest are Debian's packages (scripts/deps.sh apps).
# A tool that cannot be had here is skipped, and the comparison says so.
set -eu
cd "$(dirname "$0")/../.."
scripts/deps.sh build postgres python node apps

home=${CARGO_TARGET_DIR:-target}/apps
mkdir -p "$home"
home=$(cd "$home" && pwd)
python="psycopg[binary]==3.3.9 psycopg-pool==3.3.3 psycopg2-binary==2.9.13 asyncpg==0.32.0 pg8000==1.31.6
    django==5.2.19 sqlalchemy==2.1.9 greenlet alembic==1.20.1 peewee==4.5.3 tortoise-orm==1.1.9 yoyo-migrations==9.0.0
    aiopg==1.4.0 psqlpy==0.13.1 adbc-driver-postgresql==1.13.0 pyarrow pyodbc==5.5.0 procrastinate==3.10.0 pgqueuer==1.6.0"
# The newest that run on Node 20.
node="pg@8.23.1 pg-cursor@2.22.0 pg-copy-streams@7.0.0 pg-query-stream@4.17.0 postgres@3.4.9 sequelize@6.37.8 knex@3.3.0
    pg-boss@10.4.2 graphile-worker@0.16.6 prisma@7.10.1 @prisma/client@7.10.0 @prisma/adapter-pg@7.10.1"

say() { echo "apps: $*" >&2; }

# A directory that was cut short while it was filled lacks the stamp, and is made again.
stamp=$home/venv-$(echo "$python" | cksum | cut -d ' ' -f 1)
if [ ! -e "$stamp" ]; then
    say "fetching from PyPI"
    rm -rf "$home/venv"
    python3 -m venv "$home/venv"
    "$home/venv/bin/pip" --disable-pip-version-check --quiet install $python
    : > "$stamp"
fi

stamp=$home/node-$(echo "$node" | cksum | cut -d ' ' -f 1)
if [ ! -e "$stamp" ]; then
    say "fetching from npm"
    rm -rf "$home/node_modules" "$home/prisma-client"
    echo '{"private": true}' > "$home/package.json"
    # Without their install scripts, which would download programs.
    if npm --prefix "$home" install --silent --no-audit --no-fund --ignore-scripts $node; then
        : > "$stamp"
    else
        say "npm could not fetch them all: what it lacks is skipped"
    fi
fi

# Its compiler is WebAssembly in the package. The engine for migrations is a download, and nothing here runs it.
schema=scripts/apps/programs/prisma
stamp=$home/prisma-$(cat "$schema"/* | cksum | cut -d ' ' -f 1)
if [ -d "$home/node_modules/prisma" ] && [ ! -e "$stamp" ]; then
    say "generating Prisma's client"
    mkdir -p "$home/prisma"
    cp "$schema"/* "$home/prisma"
    if (cd "$home/prisma" && PRISMA_SCHEMA_ENGINE_BINARY=/bin/true CHECKPOINT_DISABLE=1 \
        "$home/node_modules/.bin/prisma" generate > "$home/prisma/log" 2>&1); then
        : > "$stamp"
    else
        say "Prisma's client could not be generated; why is in $home/prisma/log"
        rm -rf "$home/prisma-client"
    fi
fi
exec "$home/venv/bin/python" scripts/apps/compare.py --home "$home" "$@"
