#!/bin/sh
# Installs psycopg and asyncpg in a virtual environment, once, and prints the Python that has them.
set -eu
cd "$(dirname "$0")/.."
psycopg=3.3.9
asyncpg=0.32.0

home=${CARGO_TARGET_DIR:-target}/drivers
mkdir -p "$home"
home=$(cd "$home" && pwd)
# An environment that was cut short while it was made lacks the stamp, and is made again.
stamp="$home/made-$psycopg-$asyncpg"
if [ ! -e "$stamp" ]; then
    rm -rf "$home/venv"
    python3 -m venv "$home/venv"
    "$home/venv/bin/pip" --disable-pip-version-check --quiet install "psycopg==$psycopg" "asyncpg==$asyncpg" >&2
    : > "$stamp"
fi
echo "$home/venv/bin/python"
