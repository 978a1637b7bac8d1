#!/bin/sh
# The own test suites of psycopg2 and asyncpg, directly and through Poolhouse: fetches them, and compares.
# usage: scripts/conformance/run.sh [--suite NAME] [--only TEXT] [--pooler BINARY]
# Everything it fetches and builds goes to target/conformance, of which `current` has the versions named here.
set -eu
cd "$(dirname "$0")/../.."
scripts/deps.sh build postgres python

psycopg2=2.9.13
asyncpg=0.32.0
home=${CARGO_TARGET_DIR:-target}/conformance
mkdir -p "$home"
home=$(cd "$home" && pwd)

say() { echo "conformance: $*" >&2; }

# A virtual environment that was cut short while it was made lacks the stamp, and is made again.
stamp="$home/fetched-$psycopg2-$asyncpg"
if [ ! -e "$stamp" ]; then
    say "fetching and building psycopg2 $psycopg2 and asyncpg $asyncpg"
    rm -rf "$home"
    mkdir -p "$home/sources"
    python3 -m venv "$home/venv"
    pip="$home/venv/bin/pip --disable-pip-version-check --quiet"
    # asyncpg's tests import distro.
    $pip install setuptools wheel distro
    $pip download --no-deps --no-binary :all: --dest "$home/sources" "psycopg2==$psycopg2"
    # Its build needs Cython, which pip may take ready-made.
    $pip download --no-deps --no-binary asyncpg --dest "$home/sources" "asyncpg==$asyncpg"
    for suite in "psycopg2-$psycopg2" "asyncpg-$asyncpg"; do
        $pip install --no-deps "$home/sources/$suite.tar.gz"
        # Only the tests: next to the package's own sources they would import those, which are not built.
        mkdir -p "$home/${suite%%-*}"
        tar -xzf "$home/sources/$suite.tar.gz" -C "$home/${suite%%-*}" --strip-components 1 "$suite/tests"
    done
    : > "$stamp"
fi
exec "$home/venv/bin/python" scripts/conformance/compare.py --home "$home" "$@"
